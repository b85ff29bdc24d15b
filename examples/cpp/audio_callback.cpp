// A stream in an audio callback: what a plug-in or a device does, called block by block.
//
//     audio_callback filter.safetensors
//
// make_filter.py trains such a model.
#include <lstmcore/model.h>

#include <cstdio>
#include <exception>
#include <stdexcept>
#include <vector>

class Effect {
public:
    // Here memory is taken and anything may fail: a missing file, a model that is none.
    Effect(const char* path, int channels) : stream_(lstmcore::load_model<float>(path), channels) {
        // `process` gets bare pointers: nobody else sees how many numbers they point to.
        if (stream_.input_size() != 1 || stream_.output_size() != 1)
            throw std::invalid_argument("expected a model of one feature to one feature");
    }

    // Here nothing may: no allocation, no lock, no system call. (frames, channels), in place.
    void process(float* samples, int frames) noexcept { stream_.process(samples, samples, frames); }

private:
    lstmcore::Stream<float> stream_;
};

int main(int argc, char** argv) {
    if (argc != 2) {
        std::fprintf(stderr, "usage: %s model.safetensors\n", argv[0]);
        return 2;
    }
    try {
        Effect effect(argv[1], /*channels=*/2);
        std::vector<float> block(128 * 2, 0.5f);
        for (int i = 0; i < 10; ++i) effect.process(block.data(), 128);
        std::printf("last sample: %f\n", block.back());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
