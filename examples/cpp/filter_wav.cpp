// Filters a WAV file with a model, block by block, as an audio callback would:
//
//     filter_wav model.safetensors in.wav out.wav [frames per block]
//
// The model takes one number per sample and gives one (make_filter.py trains such a model). Each
// channel is a row of the batch, with a state of its own. in.wav holds 16-bit integers, out.wav
// 32-bit floats.
#include <lstmcore/model.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

struct Audio {
    uint32_t rate = 0;
    uint16_t channels = 0;
    std::vector<float> samples;  // (frames, channels), full scale = 1
};

template <class Number>
Number number_at(const std::vector<char>& bytes, size_t at) {  // little-endian, as is this machine
    if (at + sizeof(Number) > bytes.size()) throw std::runtime_error("the WAV file is cut off");
    Number value;
    std::memcpy(&value, bytes.data() + at, sizeof value);
    return value;
}

Audio read_wav(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    if (!file) throw std::runtime_error(path + ": cannot be opened");
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file),
                                  std::istreambuf_iterator<char>()};
    const auto is = [&](size_t at, const char* name) {
        return at + 4 <= bytes.size() && std::memcmp(bytes.data() + at, name, 4) == 0;
    };
    if (!is(0, "RIFF") || !is(8, "WAVE")) throw std::runtime_error(path + ": not a WAV file");
    Audio audio;
    for (size_t chunk = 12; chunk + 8 <= bytes.size();) {
        const size_t start = chunk + 8;
        const size_t size =
            std::min<size_t>(number_at<uint32_t>(bytes, chunk + 4), bytes.size() - start);
        if (is(chunk, "fmt ")) {
            if (number_at<uint16_t>(bytes, start) != 1 ||
                number_at<uint16_t>(bytes, start + 14) != 16)
                throw std::runtime_error(path + ": expected 16-bit integers");
            audio.channels = number_at<uint16_t>(bytes, start + 2);
            audio.rate = number_at<uint32_t>(bytes, start + 4);
        } else if (is(chunk, "data")) {
            for (size_t at = start; at + 2 <= start + size; at += 2)
                audio.samples.push_back(float(number_at<int16_t>(bytes, at)) / 32768.0f);
        }
        chunk = start + size + size % 2;
    }
    if (audio.channels == 0) throw std::runtime_error(path + ": it does not say its format");
    audio.samples.resize(audio.samples.size() / audio.channels * audio.channels);
    return audio;
}

void write_wav(const std::string& path, const Audio& audio) {
    std::ofstream file(path, std::ios::binary);
    const auto put = [&](auto value) {
        file.write(reinterpret_cast<const char*>(&value), sizeof value);
    };
    const auto data = uint32_t(audio.samples.size() * sizeof(float));
    file << "RIFF";
    put(uint32_t(36 + data));
    file << "WAVEfmt ";
    put(uint32_t(16));
    put(uint16_t(3));  // floats
    put(audio.channels);
    put(audio.rate);
    put(uint32_t(audio.rate * audio.channels * sizeof(float)));
    put(uint16_t(audio.channels * sizeof(float)));
    put(uint16_t(32));
    file << "data";
    put(data);
    file.write(reinterpret_cast<const char*>(audio.samples.data()), data);
    file.flush();
    if (!file) throw std::runtime_error(path + ": cannot be written");
}

int run(const std::string& model, const std::string& in, const std::string& out, int64_t block) {
    Audio audio = read_wav(in);
    const int64_t channels = audio.channels, frames = int64_t(audio.samples.size()) / channels;

    // Whatever can fail or wait happens here, before the first sample.
    lstmcore::Stream<float> stream(lstmcore::load_model<float>(model), channels);
    if (stream.input_size() != 1 || stream.output_size() != 1)
        throw std::runtime_error(model + ": expected one number per sample in and out");

    std::chrono::duration<double> total{0}, longest{0};
    for (int64_t frame = 0; frame < frames; frame += block) {
        float* const samples = audio.samples.data() + frame * channels;
        const auto start = std::chrono::steady_clock::now();
        stream.process(samples, samples, std::min(block, frames - frame));  // in place
        const std::chrono::duration<double> time = std::chrono::steady_clock::now() - start;
        total += time;
        longest = std::max(longest, time);
    }
    write_wav(out, audio);
    const double seconds = double(frames) / audio.rate;
    std::printf(
        "%.3f s of audio in %.3f s (real-time factor %.4f); longest block %.1f us of %.1f\n",
        seconds, total.count(), total.count() / seconds, longest.count() * 1e6,
        double(block) / audio.rate * 1e6);
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    const int64_t block = argc == 5 ? std::atoll(argv[4]) : 128;
    if (argc < 4 || argc > 5 || block < 1) {
        std::fprintf(stderr, "usage: %s model.safetensors in.wav out.wav [frames per block]\n",
                     argv[0]);
        return 2;
    }
    try {
        return run(argv[1], argv[2], argv[3], block);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "%s\n", error.what());
        return 1;
    }
}
