// From a layer's h to its output: the two directions are merged, then dropout; and both backward.
#pragma once

#include <cstdint>

#include "lstmcore/spec.h"
#include "recurrent/dropout.h"

namespace lstmcore {

/// The output (F) of a row from its directions' h, side by side.
template <class T>
void merge_row(const LayerSpec& spec, const T* h, T* out) noexcept {
    const int64_t P = spec.output_size(), F = spec.feature_size();
    switch (spec.merge) {
        case Merge::concat:
            for (int64_t f = 0; f < F; ++f) out[f] = h[f];
            break;
        case Merge::sum:
            for (int64_t f = 0; f < F; ++f) out[f] = h[f] + h[P + f];
            break;
        case Merge::mul:
            for (int64_t f = 0; f < F; ++f) out[f] = h[f] * h[P + f];
            break;
        case Merge::ave:
            for (int64_t f = 0; f < F; ++f) out[f] = (h[f] + h[P + f]) * T(0.5);
            break;
    }
}

/// The gradient of the directions' h, side by side, from that of the output.
template <class T>
void merge_row_backward(const LayerSpec& spec, const T* h, const T* dout, T* dh) noexcept {
    const int64_t P = spec.output_size();
    for (int64_t f = 0; f < P; ++f) {
        T one = dout[f], other = dout[f];
        if (spec.merge == Merge::mul) {
            one *= h[P + f];
            other *= h[f];
        } else if (spec.merge == Merge::ave) {
            one *= T(0.5);
            other *= T(0.5);
        }
        dh[f] = one;
        dh[P + f] = other;
    }
}

/// Dropout of a row of n numbers in place: those that are kept are multiplied by `scale`, the
/// others become 0. Backward does the same to a gradient.
template <class T>
void drop_row(const Dropout& mask, uint64_t stream, T scale, int64_t n, T* row) noexcept {
    for (int64_t f = 0; f < n; ++f) row[f] = mask.kept(stream, f) ? row[f] * scale : T(0);
}

}  // namespace lstmcore
