// Layers of every variant, random parameters and inputs for them.
#pragma once

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "lstmcore/layer.h"
#include "machine/isa.h"

namespace test {

using namespace lstmcore;

template <class T>
std::vector<T> random_numbers(int64_t n, unsigned seed, double scale = 0.5) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal(0, scale);
    std::vector<T> out(n);
    for (T& value : out) value = T(normal(random));
    return out;
}

/// The parameters of a layer, or their gradients, each in memory of its own.
template <class T>
struct ParameterSet {
    std::vector<std::vector<T>> arrays;
    std::vector<Parameters<T>> sets;

    explicit ParameterSet(const LayerSpec& spec, bool zero = false) {
        const int64_t H = spec.hidden_size, P = spec.output_size(), G = spec.cell.gates();
        arrays.reserve(10 * spec.num_layers * spec.directions());
        const auto take = [&](bool wanted, int64_t n) -> T* {
            if (!wanted) return nullptr;
            arrays.push_back(random_numbers<T>(n, unsigned(arrays.size() + 1), zero ? 0 : 0.4));
            return arrays.back().data();
        };
        for (int64_t s = 0; s < spec.num_layers * spec.directions(); ++s) {
            Parameters<T> set;
            set.w_ih = take(true, G * H * spec.layer_input_size(s / spec.directions()));
            set.w_hh = take(true, G * H * P);
            set.b_ih = take(spec.bias, G * H);
            set.b_hh = take(spec.bias, G * H);
            set.w_ch = take(spec.cell.peephole, spec.cell.peepholes() * H);
            set.w_hr = take(spec.proj_size > 0, P * H);
            set.ln_ih = take(spec.cell.layer_norm, G * H);
            set.ln_hh = take(spec.cell.layer_norm, G * H);
            set.ln_c = take(spec.cell.normalizes_c(), H);
            set.ln_c_bias = take(spec.cell.normalizes_c(), H);
            sets.push_back(set);
        }
    }
    std::vector<Parameters<const T>> read_only() const {
        std::vector<Parameters<const T>> out;
        for (const auto& s : sets)
            out.push_back({s.w_ih, s.w_hh, s.b_ih, s.b_hh, s.w_ch, s.w_hr, s.ln_ih, s.ln_hh, s.ln_c,
                           s.ln_c_bias});
        return out;
    }
};

template <class T>
struct Input {
    int64_t T_, B, I;
    std::vector<T> x, h0, c0;
    std::vector<int64_t> lengths;
    std::vector<char> resets;

    Input(const LayerSpec& spec, int64_t steps, int64_t batch, bool ragged, bool with_resets)
        : T_(steps), B(batch), I(spec.input_size) {
        const int64_t states = spec.num_layers * spec.directions() * B;
        x = random_numbers<T>(T_ * B * I, 100, 1);
        h0 = random_numbers<T>(states * spec.output_size(), 101);
        if (spec.cell.kind == CellKind::lstm)
            c0 = random_numbers<T>(states * spec.hidden_size, 102);
        if (ragged)
            for (int64_t b = 0; b < B; ++b) lengths.push_back((b * 7 + 3) % (T_ + 1));
        if (with_resets)
            for (int64_t i = 0; i < T_ * B; ++i) resets.push_back(i % 4 == 1);
    }
    Sequences<T> sequences() const {
        Sequences<T> in;
        in.steps = T_;
        in.batch = B;
        in.x = {x.data(), B * I, I};
        in.h0 = h0.data();
        if (!c0.empty()) in.c0 = c0.data();
        if (!lengths.empty()) in.lengths = lengths.data();
        if (!resets.empty()) in.resets = {reinterpret_cast<const bool*>(resets.data()), B, 1};
        return in;
    }
};

struct Variant {
    std::string name;
    LayerSpec spec;
};

inline std::vector<Variant> variants() {
    std::vector<Variant> all;
    const auto add = [&](const std::string& name, CellKind kind,
                         const std::function<void(LayerSpec&)>& change) {
        LayerSpec spec;
        spec.cell.kind = kind;
        spec.input_size = 3;
        spec.hidden_size = 5;
        change(spec);
        spec.check();
        all.push_back({name, spec});
    };
    const auto plain = [](LayerSpec&) {};
    add("rnn", CellKind::rnn, plain);
    add("rnn sigmoid", CellKind::rnn,
        [](LayerSpec& s) { s.cell.candidate = {ActivationKind::sigmoid}; });
    add("lstm", CellKind::lstm, plain);
    add("lstm 1997", CellKind::lstm, [](LayerSpec& s) {
        s.cell.forget_gate = false;
        s.cell.candidate = {ActivationKind::scaled_tanh, 2, 0.5};
        s.cell.output = {ActivationKind::scaled_tanh, 1, 0.5};
    });
    add("lstm coupled peephole", CellKind::lstm,
        [](LayerSpec& s) { s.cell.coupled = s.cell.peephole = true; });
    add("lstm peephole clip", CellKind::lstm, [](LayerSpec& s) {
        s.cell.peephole = true;
        s.cell.cell_clip = 0.7;
    });
    add("lstm projection", CellKind::lstm, [](LayerSpec& s) { s.proj_size = 2; });
    add("lstm hard", CellKind::lstm, [](LayerSpec& s) {
        s.cell.gate = {ActivationKind::hard_sigmoid, 0.2, 0.5};
        s.cell.candidate = {ActivationKind::softsign};
        s.cell.output = {ActivationKind::identity};
    });
    // These have no bound: what enters them has one here, so that no state grows beyond all.
    add("rnn leaky", CellKind::rnn, [](LayerSpec& s) {
        s.cell.candidate = {ActivationKind::leaky_relu, 0.2};
        s.cell.gate_clip = 2;
    });
    add("rnn mish", CellKind::rnn, [](LayerSpec& s) {
        s.cell.candidate = {ActivationKind::mish};
        s.cell.gate_clip = 2;
    });
    add("rnn hard silu zoneout", CellKind::rnn, [](LayerSpec& s) {
        s.cell.candidate = {ActivationKind::hard_silu};
        s.cell.zoneout.h = 0.2;
        s.cell.gate_clip = 2;
    });
    add("lstm elu", CellKind::lstm, [](LayerSpec& s) {
        s.cell.gate = {ActivationKind::affine, 0.2, 0.5};
        s.cell.candidate = {ActivationKind::elu, 0.7};
        s.cell.output = {ActivationKind::selu};
        s.cell.gate_clip = 1;
    });
    add("lstm gelu", CellKind::lstm, [](LayerSpec& s) {
        s.cell.candidate = s.cell.output = {ActivationKind::gelu};
        s.cell.peephole = true;
        s.cell.gate_clip = 1;
    });
    add("gru", CellKind::gru, plain);
    add("gru silu", CellKind::gru, [](LayerSpec& s) {
        s.cell.gate = {ActivationKind::silu};
        s.cell.candidate = {ActivationKind::softplus};
        s.cell.gate_clip = 1;
    });
    add("gru reset before mish", CellKind::gru, [](LayerSpec& s) {
        s.cell.candidate = {ActivationKind::mish};
        s.cell.reset_after = false;
        s.cell.gate_clip = 1;
    });
    add("gru reset before", CellKind::gru, [](LayerSpec& s) { s.cell.reset_after = false; });
    const auto normalized = [](LayerSpec& s) { s.cell.layer_norm = true; };
    add("rnn layer norm", CellKind::rnn, normalized);
    add("lstm layer norm", CellKind::lstm, normalized);
    add("lstm layer norm projection", CellKind::lstm, [](LayerSpec& s) {
        s.cell.layer_norm = s.cell.peephole = s.cell.coupled = true;
        s.cell.zoneout = {0.25, 0.125};
        s.proj_size = 2;
    });
    add("gru layer norm", CellKind::gru, normalized);
    add("rnn zoneout", CellKind::rnn, [](LayerSpec& s) { s.cell.zoneout.h = 0.2; });
    add("lstm zoneout", CellKind::lstm, [](LayerSpec& s) {
        s.cell.zoneout = {0.2, 0.3};
        s.proj_size = 3;
    });
    add("gru zoneout", CellKind::gru, [](LayerSpec& s) { s.cell.zoneout.h = 0.2; });
    add("gru no bias", CellKind::gru, [](LayerSpec& s) { s.bias = false; });
    for (const CellKind kind : {CellKind::rnn, CellKind::lstm, CellKind::gru}) {
        add("stack", kind, [](LayerSpec& s) { s.num_layers = 3; });
        add("reverse", kind, [](LayerSpec& s) {
            s.num_layers = 2;
            s.reverse = true;
        });
        for (const Merge merge : {Merge::concat, Merge::sum, Merge::mul, Merge::ave})
            add("bidirectional", kind, [&](LayerSpec& s) {
                s.bidirectional = true;
                s.num_layers = 2;
                s.merge = merge;
            });
    }
    return all;
}

inline void for_each_isa(const std::function<void(const std::string&)>& f) {
    const std::string before = isa();
    for (const std::string& name : available_isas()) {
        set_isa(name);
        f(name);
    }
    set_isa(before);
}

}  // namespace test
