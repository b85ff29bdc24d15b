// The packed parameters of a layer, in the order in which the kernels read them.
#pragma once

#include <algorithm>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernel_table.h"
#include "lstmcore/layer.h"
#include "lstmcore/memory.h"
#include "memory/pack.h"

namespace lstmcore {

/// One direction of one layer. `_t` are the transposes that backward multiplies with.
template <class T>
struct PackedDirection {
    Packed<T> w_ih;     ///< K = I, all gates
    Packed<T> w_hh;     ///< K = P, all gates; GRU with reset before: r and z
    Packed<T> w_n;      ///< K = H, GRU with reset before: n
    Packed<T> w_hr;     ///< K = H, projection
    const T* bias;      ///< b_ih + b_hh in w_ih's column order; GRU with reset after: n has b_ih
    const T* b_hn;      ///< GRU with reset after
    const T* peephole;  ///< LSTM
    // With layer normalisation, whose gates stand one behind the other in all columns here:
    const T* ln_ih;      ///< (N of w_ih)
    const T* ln_hh;      ///< (N of w_hh)
    const T* ln_c;       ///< LSTM
    const T* ln_c_bias;  ///< LSTM
    const T* start;      ///< what input products begin with: bias, or zeros if that comes later
    Packed<T> w_ih_t;    ///< N = I; K in the order of dgates
    Packed<T> w_hh_t;    ///< N = P
    Packed<T> w_n_t;     ///< N = H
    Packed<T> w_hr_t;    ///< N = H

    /// Whether a step may make the input product itself: the gates of both matrices lie alike, and
    /// both are multiplied by AMX or neither.
    bool can_fuse_input() const {
        return w_ih.K > 0 && !w_n && !ln_hh && w_ih.uses_amx() == w_hh.uses_amx();
    }
};

/// Refuses a set of parameters, or gradients, that has others than the spec.
template <class Set>
void require_parameters(const LayerSpec& spec, const Set& set, const char* name) {
    if (!set.w_ih || !set.w_hh || bool(set.b_ih) != spec.bias || bool(set.b_hh) != spec.bias ||
        bool(set.w_ch) != spec.cell.peephole || bool(set.w_hr) != (spec.proj_size > 0) ||
        bool(set.ln_ih) != spec.cell.layer_norm || bool(set.ln_hh) != spec.cell.layer_norm ||
        bool(set.ln_c) != spec.cell.normalizes_c() ||
        bool(set.ln_c_bias) != spec.cell.normalizes_c())
        throw std::invalid_argument(std::string(name) +
                                    ": a set has others than those of the spec");
}

template <class T>
class Weights {
public:
    /// Of Parameters<const T>, or, without `train`, of QuantizedParameters.
    template <class Set>
    Weights(const LayerSpec& spec, const std::vector<Set>& parameters, bool train, int num_threads,
            Precision precision);

    const LayerSpec& spec() const { return spec_; }
    const PackedDirection<T>& direction(int64_t layer, int d) const {
        return directions_[layer * spec_.directions() + d];
    }
    const Kernels<T>& kernels() const { return kernels_; }
    bool can_train() const { return train_; }
    bool is_quantized() const { return quantized_; }
    Precision precision() const { return precision_; }
    /// Whether a matrix is Bfloat16Unit::widening.
    bool widens() const {
        return std::any_of(directions_.begin(), directions_.end(), [](const auto& direction) {
            return direction.w_ih.unit == Bfloat16Unit::widening ||
                   direction.w_hh.unit == Bfloat16Unit::widening;
        });
    }
    int64_t bytes() const { return memory_.bytes(); }

private:
    template <class Set>
    void lay_out(const std::vector<Set>& parameters, Packing<T>& packing);
    template <class Set>
    void lay_out_forward(const Set& from, int64_t inputs, Packing<T>& packing,
                         PackedDirection<T>& to) const;
    void lay_out_backward(const Parameters<const T>& from, int64_t inputs, Packing<T>& packing,
                          PackedDirection<T>& to) const;

    LayerSpec spec_;
    const Kernels<T>& kernels_;
    bool train_, quantized_;
    Precision precision_;
    std::vector<PackedDirection<T>> directions_;
    Buffer memory_;
};

}  // namespace lstmcore
