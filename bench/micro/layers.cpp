// What a user of the C++ API waits for: a step, a layer, a training step, packing. I = H.
#include <cmath>
#include <memory>
#include <vector>

#include "lstmcore/layer.h"
#include "machine/threads.h"
#include "micro.h"

using namespace lstmcore;

namespace {

struct Cell {
    const char* name;
    CellKind kind;
};
constexpr Cell kCells[] = {
    {"lstm", CellKind::lstm}, {"gru", CellKind::gru}, {"rnn", CellKind::rnn}};

/// A layer of one direction with its input, and memory for everything that a call writes.
class Layer {
public:
    Layer(CellKind kind, int64_t T, int64_t B, int64_t H)
        : spec_(spec_of(kind, H)),
          weights_(random_array<float>(8 * H * H, 1 / std::sqrt(double(H)))),
          biases_(random_array<float>(8 * H, 1 / std::sqrt(double(H)))),
          x_(random_array<float>(T * B * H, 1)),
          y_(T * B * H),
          state_(2 * B * H) {
        const int64_t G = spec_.cell.gates();
        parameters_.push_back({weights_.data(), weights_.data() + G * H * H, biases_.data(),
                               biases_.data() + G * H, nullptr, nullptr});
        in_.steps = T;
        in_.batch = B;
        in_.x = {x_.data(), B * H, H};
    }

    void pack(bool train) { packed_ = lstmcore::pack<float>(spec_, parameters_, train); }

    int64_t packed_bytes() const { return lstmcore::packed_bytes(*packed_); }

    /// Multiply-adds count twice.
    double flops() const {
        return 4.0 * double(in_.steps * in_.batch) * double(spec_.hidden_size * spec_.hidden_size) *
               spec_.cell.gates();
    }
    /// Of weights: the input's once, the hidden state's in each step.
    double weight_bytes() const {
        return double((in_.steps + 1) * spec_.hidden_size * spec_.hidden_size * spec_.cell.gates() *
                      int64_t(sizeof(float)));
    }

    int64_t forward_workspace(bool train) const {
        return forward_workspace_bytes(spec_, in_, train, get_num_threads());
    }
    void forward(void* workspace, float* tape) {
        lstmcore::forward(*packed_, in_, y(), state_.data(), c(), tape, workspace,
                          get_num_threads());
    }

    int64_t tape_size() const { return lstmcore::tape_size(spec_, in_); }
    int64_t backward_workspace() const {
        return backward_workspace_bytes(spec_, in_, get_num_threads());
    }
    /// dy is y, which is as good as any other.
    void backward(void* workspace, const float* tape, float* dx, float* dstate,
                  const std::vector<Parameters<float>>& gradients) {
        const int64_t B = in_.batch, H = spec_.hidden_size;
        const View<const float> read_y{y_.data(), B * H, H};
        lstmcore::backward<float>(*packed_, in_, read_y, tape, read_y, nullptr, nullptr,
                                  {dx, B * H, H}, dstate, c() ? dstate + B * H : nullptr, gradients,
                                  workspace, get_num_threads());
    }

private:
    static LayerSpec spec_of(CellKind kind, int64_t H) {
        LayerSpec spec;
        spec.cell.kind = kind;
        spec.input_size = spec.hidden_size = H;
        return spec;
    }
    View<float> y() const { return {y_.data(), in_.batch * spec_.hidden_size, spec_.hidden_size}; }
    float* c() const {
        const bool has_c = spec_.cell.kind == CellKind::lstm;
        return has_c ? state_.data() + in_.batch * spec_.hidden_size : nullptr;
    }

    LayerSpec spec_;
    Array<float> weights_, biases_, x_, y_, state_;
    std::vector<Parameters<const float>> parameters_;
    Sequences<float> in_;
    std::shared_ptr<const Weights<float>> packed_;
};

/// The processor's time is that of one thread only.
template <class F>
void add(const std::string& name, F f) {
    auto* benchmark = benchmark::RegisterBenchmark(name.c_str(), f);
    if (get_num_threads() > 1) benchmark->UseRealTime();
}

void add_forward(const char* what, const std::string& isa, const Cell& cell, int64_t T, int64_t B,
                 int64_t H) {
    const std::string name = std::string(what) + "/" + cell.name + "/" + isa +
                             (T > 1 ? part("T", T) : "") + part("B", B) + part("H", H);
    add(name, [=](benchmark::State& state) {
        set_isa(isa);
        Layer layer(cell.kind, T, B, H);
        layer.pack(false);
        const Array<char> workspace(layer.forward_workspace(false));
        for (auto _ : state) layer.forward(workspace.data(), nullptr);
        count_flops(state, layer.flops());
        count_bytes(state, layer.weight_bytes());
    });
}

/// Everything between two steps of an optimiser: packing, forward, backward.
void add_train(const std::string& isa, const Cell& cell, int64_t T, int64_t B, int64_t H) {
    const std::string name =
        std::string("train/") + cell.name + "/" + isa + part("T", T) + part("B", B) + part("H", H);
    add(name, [=](benchmark::State& state) {
        set_isa(isa);
        Layer layer(cell.kind, T, B, H);
        const Array<char> forward_workspace(layer.forward_workspace(true)),
            backward_workspace(layer.backward_workspace());
        const Array<float> tape(layer.tape_size()), dx(T * B * H), dstate(2 * B * H);
        const Array<float> gradient = random_array<float>(8 * H * H + 8 * H, 0);
        float* g = gradient.data();
        const std::vector<Parameters<float>> gradients{
            {g, g + 4 * H * H, g + 8 * H * H, g + 8 * H * H + 4 * H, nullptr, nullptr}};
        for (auto _ : state) {
            layer.pack(true);
            layer.forward(forward_workspace.data(), tape.data());
            layer.backward(backward_workspace.data(), tape.data(), dx.data(), dstate.data(),
                           gradients);
        }
        count_flops(state, 3 * layer.flops());
        count_bytes(state, 2 * layer.weight_bytes());
    });
}

void add_pack(const std::string& isa, const Cell& cell, int64_t H, bool train) {
    const std::string name =
        std::string("pack/") + cell.name + "/" + isa + part("H", H) + (train ? "/train" : "");
    benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) {
        set_isa(isa);
        Layer layer(cell.kind, 1, 1, H);
        for (auto _ : state) layer.pack(train);
        count_bytes(state, double(layer.packed_bytes()));
    });
}

}  // namespace

void add_layers() {
    for (const std::string& isa : available_isas()) {
        for (const Cell& cell : kCells)
            for (const int64_t H : {16, 64, 256, 512})
                for (const int64_t B : {1, 8, 32}) add_forward("step", isa, cell, 1, B, H);
        for (const Cell& cell : kCells) {
            for (const int64_t H : {16, 64, 128, 256, 512})
                add_forward("layer", isa, cell, 100, 1, H);
            for (const int64_t B : {4, 8, 32, 128}) add_forward("layer", isa, cell, 100, B, 256);
            add_forward("layer", isa, cell, 100, 32, 64);
            add_forward("layer", isa, cell, 20, 32, 512);
        }
        for (const Cell& cell : kCells) {
            add_train(isa, cell, 100, 1, 128);
            for (const int64_t H : {64, 128, 256}) add_train(isa, cell, 100, 32, H);
            add_train(isa, cell, 20, 32, 512);
        }
        for (const bool train : {false, true}) add_pack(isa, kCells[0], 256, train);
    }
}
