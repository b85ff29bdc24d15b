// Products of rows with a matrix in int8, see Quantized: rows are quantised, each by its own scale,
// multiplied in whole numbers, and the sums scaled.
//
// The sums are exact, so that neither the ISA level nor the order changes a bit of them; what
// surrounds them is one multiplication and one multiply-add, the same everywhere.
#pragma once

#include <algorithm>
#include <limits>

#include "dot-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"
#include "tile-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// A row in int8: a[k] is about scale q[k]. In groups of four, zeros behind the last.
struct QuantizedRow {
    const int8_t* q;
    float scale;
};

/// Below this, which is far below what a gate notices, a row counts as zeros.
constexpr float kSmallestQuantized = 1e-30f;

/// Writes round(127 a[k] / max |a|), ties to even, and returns the scale max |a| / 127. That is NaN
/// if a number of the row is infinite or NaN, and so is what the row is multiplied to.
inline float quantize_row(const float* a, int64_t K, int8_t* q) {
    constexpr int64_t L = kLanes<float>;
    Ints most = {};
    for (int64_t k = 0; k < K; k += L) {
        const Ints size = (Ints)load(a + k, K - k) & 0x7fffffff;
        most = size > most ? size : most;
    }
    int32_t bits = 0;
    for (int64_t l = 0; l < L; ++l) bits = std::max(bits, int32_t(most[l]));
    float max;
    std::memcpy(&max, &bits, sizeof max);
    const bool finite = bits < 0x7f800000, zeros = !finite || max < kSmallestQuantized;
    const Packet<float> inverse = set(zeros ? 0.0f : 127.0f / max);
    // In its lowest byte the sum holds the rounded number.
    const Packet<float> round = set(12582912.0f);  // 1.5 * 2^23
    for (int64_t k = 0; k < round_to_groups(K); k += L) {
        const Ints sum = zeros ? Ints{} : (Ints)padd(pmul(load(a + k, K - k), inverse), round);
        int8_t bytes[L];
        for (int64_t l = 0; l < L; ++l) bytes[l] = int8_t(sum[l]);
        std::memcpy(q + k, bytes, size_t(std::min(L, round_to_groups(K) - k)));
    }
    return !finite ? std::numeric_limits<float>::quiet_NaN() : zeros ? 0.0f : max / 127.0f;
}

/// Room for some rows in int8, on the stack: kernels allocate nothing.
class QuantizedRows {
public:
    /// How many rows of K numbers fit: at least one, if K is no more than kMostQuantized.
    static int64_t most(int64_t K) {
        return std::min(kMost, kMostQuantized / std::max<int64_t>(round_to_groups(K), 1));
    }

    /// Quantises the rows row_of(0), ... row_of(n - 1), of K numbers each.
    template <class RowOf>
    LSTMCORE_INLINE void set(int64_t n, int64_t K, RowOf row_of) {
        for (int64_t i = 0; i < n; ++i) {
            int8_t* const q = bytes_ + i * round_to_groups(K);
            rows_[i] = {q, quantize_row(row_of(i), K, q)};
        }
    }
    const QuantizedRow* rows() const { return rows_; }

private:
    static constexpr int64_t kMost = 64;
    alignas(64) int8_t bytes_[kMostQuantized];
    QuantizedRow rows_[kMost];
};

/// to[panel][row][vector] = from[panel][row][vector] + scale[panel][vector] a[row].scale
///     sum_k a[row].q[k] w.q[panel][k][vector]
template <int kVectors, int kPanels, int kRows>
__attribute__((noinline)) void accumulate_quantized(const QuantizedRow* a, const int8_t* w,
                                                    int64_t w_panel, int64_t w_step, int64_t groups,
                                                    const float* scales, int64_t panel_columns,
                                                    const Ends<float>* ends) {
    constexpr int L = kLanes<float>;
    Ints sum[kPanels][kRows][kVectors];
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) sum[p][r][v] = Ints{};
    const int8_t* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = a[r].q;
    for (int64_t g = 0; g < groups; ++g, w += w_step)
        for (int r = 0; r < kRows; ++r) {
            const DotFactor factor(row[r] + g * kGroup);
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] = factor.add_dot(sum[p][r][v], w + p * w_panel + v * L * kGroup);
        }
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r) {
            const Packet<float> a_scale = set(a[r].scale);
            const Ends<float>& end = ends[p * kRows + r];
            for (int v = 0; v < kVectors; ++v) {
                const Packet<float> scale = pmul(load(scales + p * panel_columns + v * L), a_scale);
                store(end.to + v * L,
                      pmadd(to_floats(sum[p][r][v]), scale, load(end.from + v * L)));
            }
        }
}

/// accumulate_quantized() for the number of rows met at run time, 1 .. kRows.
template <int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void accumulate_quantized_rows(int64_t rows, const QuantizedRow* a, const int8_t* w,
                                               int64_t w_panel, int64_t w_step, int64_t groups,
                                               const float* scales, int64_t panel_columns,
                                               const Ends<float>* ends) {
    if constexpr (kRows > 1) {
        if (rows < kRows)
            return accumulate_quantized_rows<kVectors, kPanels, kRows - 1>(
                rows, a, w, w_panel, w_step, groups, scales, panel_columns, ends);
    }
    accumulate_quantized<kVectors, kPanels, kRows>(a, w, w_panel, w_step, groups, scales,
                                                   panel_columns, ends);
}

/// The product of `panels` panels of w from `panel` on, each of kVectors registers, or of one
/// narrower one of `columns` columns, with the rows.
template <int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void add_quantized(const Packed<float>& w, int64_t panel, int64_t columns,
                                   int64_t rows, const QuantizedRow* a, const Ends<float>* ends) {
    constexpr int L = kLanes<float>;
    const int64_t step = w.vectors * L, groups = round_to_groups(w.K) / kGroup;
    const int64_t size = step * groups * kGroup;
    const int8_t* const from = w.quantized + panel * size;
    const float* const scales = w.scales + panel * step;
    if constexpr (kVectors > 1 && kPanels == 1) {
        if (columns < kVectors * L) {
            const auto narrow = [&](auto vectors) LSTMCORE_INLINE_LAMBDA {
                accumulate_quantized_rows<decltype(vectors)::value, 1, kRows>(
                    rows, a, from, 0, columns * kGroup, groups, scales, 0, ends);
            };
            if (columns == L) return narrow(Constant<1>());
            if constexpr (kVectors > 2)
                if (columns == 2 * L) return narrow(Constant<2>());
            if constexpr (kVectors > 3)
                if (columns == 3 * L) return narrow(Constant<3>());
        }
    }
    accumulate_quantized_rows<kVectors, kPanels, kRows>(rows, a, from, size, kVectors * L * kGroup,
                                                        groups, scales, step, ends);
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
