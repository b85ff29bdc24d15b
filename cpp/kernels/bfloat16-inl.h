// Numbers in bfloat16: rows are rounded before they are multiplied with a matrix in bfloat16. Sums
// are float32.
//
// A product of two such numbers is exact in float32, so that only additions round, and the bits are
// the same with fused multiply-add and without.
#pragma once

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "dot-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// The nearest numbers in bfloat16, of two the even one; NaN stays NaN. What is larger than all of
/// them becomes infinite.
LSTMCORE_INLINE Packet<float> round_to_bfloat16(const Packet<float>& x) {
    const Ints bits = (Ints)x;
    const Ints half = ((bits >> 16) & 1) + 0x7fff;
    const Ints nan = (bits & 0x7fffffff) > 0x7f800000;
    const Ints rounded = nan ? bits | 0x00400000 : bits + half;
    return (Packet<float>)(rounded & int32_t(0xffff0000u));
}

template <class T>
void round_array(T* x, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
        for (int64_t i = 0; i < n; i += kLanes<float>)
            store(x + i, round_to_bfloat16(load(x + i, n - i)), n - i);
    }
}

/// How many k lie side by side in a matrix of W, for each of its columns: one, or a pair.
template <class T, class W>
constexpr int kTerms = std::is_same_v<T, W> ? 1 : int(kPair);

/// The weights of one k, of those side by side at w.
template <int kTerm, class T>
LSTMCORE_INLINE Packet<T> load_weight(const T* w) {
    return load(w);
}
template <int kTerm>
LSTMCORE_INLINE Packet<float> load_weight(const Bfloat16* w) {
    Ints pairs;
    std::memcpy(&pairs, w, sizeof pairs);
    return (Packet<float>)(kTerm == 0 ? pairs << 16 : pairs & int32_t(0xffff0000u));
}

/// Room for some rounded rows, on the stack: kernels allocate nothing.
class Bfloat16Rows {
public:
    /// How many rows fit that are multiplied with w.
    static int64_t most(const Packed<float>& w) {
        return kMostBfloat16 / std::max<int64_t>(stride_of(w), 1);
    }

    /// Rounds the rows row_of(0), ... row_of(n - 1), to be multiplied with w.
    template <class RowOf>
    LSTMCORE_INLINE void set(const Packed<float>& w, int64_t n, RowOf row_of) {
        stride_ = stride_of(w);
        for (int64_t i = 0; i < n; ++i) {
            const float* const from = row_of(i);
            float* const to = numbers_ + i * stride_;
            for (int64_t k = 0; k < w.K; k += L)
                store(to + k, round_to_bfloat16(load(from + k, w.K - k)));
            // The second of the last pair: its product with the weight, 0, is then -0, which
            // changes no sum.
            if (w.K % kPair != 0) to[w.K] = -0.0f;
        }
    }
    const float* at(int64_t row) const { return numbers_ + row * stride_; }

private:
    static constexpr int64_t L = kLanes<float>;

    static int64_t stride_of(const Packed<float>& w) { return (w.K + L - 1) / L * L; }

    int64_t stride_ = 0;
    alignas(64) float numbers_[kMostBfloat16];
};

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
