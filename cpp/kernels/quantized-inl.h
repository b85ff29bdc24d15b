// Products of rows with a matrix in int8, see Quantized: rows are quantised, each by its own scale,
// multiplied in whole numbers, and the sums scaled.
//
// The sums are exact, so that neither the ISA level nor the order changes a bit of them; what
// surrounds them is one multiplication and one multiply-add, the same everywhere.
#pragma once

#include <algorithm>
#include <limits>

#include "amx-inl.h"
#include "dot-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"
#include "tile-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// A row in int8: a[k] is about scale q[k], or scale (q[k] + kShift) if it is shifted. Zeros behind
/// the last, as in the matrix.
struct QuantizedRow {
    const int8_t* q;
    float scale;
    int32_t sum;  ///< of all q[k]
    bool shifted;
};

/// Below this, which is far below what a gate notices, a row counts as zeros.
constexpr float kSmallestQuantized = 1e-30f;

/// Makes a row in int8: round(127 a[k] / max |a|), ties to even, goes to q; the scale is max |a| /
/// 127. A row without a negative number, as those behind a ReLU are, is shifted, so that it has all
/// of -127 .. 127: q is round(254 a[k] / max) - 127. The scale is NaN if a number of the row is
/// infinite or NaN, and so is what the row is multiplied to. From K to `padded`, a multiple of
/// kGroup, q is 0.
inline LSTMCORE_ONE_COPY void quantize_row(const float* a, int64_t K, int64_t padded, int8_t* q,
                                           QuantizedRow& row) {
    constexpr int64_t L = kLanes<float>;
    Ints most = {};
    Unsigned highest = {};  // of bits with the sign, which is above all others
    for (int64_t k = 0; k < K; k += L) {
        const Ints number = (Ints)load(a + k, K - k), size = number & 0x7fffffff;
        most = size > most ? size : most;
        highest = (Unsigned)number > highest ? (Unsigned)number : highest;
    }
    const bool negative = any((Ints)(highest > 0x80000000u));  // which is -0
    int32_t bits = 0;
    for (int64_t l = 0; l < L; ++l) bits = std::max(bits, int32_t(most[l]));
    float max;
    std::memcpy(&max, &bits, sizeof max);
    const bool finite = bits < 0x7f800000, zeros = !finite || max < kSmallestQuantized;
    const bool shifted = !zeros && !negative;
    const float twice = shifted ? 2.0f : 1.0f;
    const Packet<float> inverse = set(zeros ? 0.0f : 127.0f / max * twice);
    // The sum holds the rounded number in its lowest bits.
    const Packet<float> round = set(12582912.0f);  // 1.5 * 2^23
    const Ints zero = (Ints)round + (shifted ? kShift : 0);
    Ints sums = {};
    const auto rounded = [&](const Packet<float>& x) LSTMCORE_INLINE_LAMBDA {
        const Ints sum = (Ints)padd(pmul(x, inverse), round);
        return zeros ? Ints{} : sum - zero;
    };
    const auto write = [&](int64_t k, const Ints& numbers, int64_t n) LSTMCORE_INLINE_LAMBDA {
        sums += numbers;
        int8_t bytes[L];
        for (int64_t l = 0; l < L; ++l) bytes[l] = int8_t(numbers[l]);
        std::memcpy(q + k, bytes, size_t(n));
    };
    int64_t k = 0;
    for (; k + L <= K; k += L) write(k, rounded(load(a + k)), L);
    for (; k < padded; k += L) {
        Ints inside;
        for (int64_t l = 0; l < L; ++l) inside[l] = k + l < K ? -1 : 0;
        write(k, rounded(load(a + k, K - k)) & inside, std::min(L, padded - k));
    }
    int32_t sum = 0;
    for (int64_t l = 0; l < L; ++l) sum += sums[l];
    const float nan = std::numeric_limits<float>::quiet_NaN();
    row = {q, !finite ? nan : zeros ? 0.0f : max / 127.0f / twice, sum, shifted};
}

/// Room for some rows in int8, on the stack: kernels allocate nothing.
class QuantizedRows {
public:
    /// How many rows fit that are multiplied with w: at least one.
    static int64_t most(const Packed<float>& w) {
        return std::min(kMost, kMostQuantized / std::max<int64_t>(w.padded_int8_K(), 1));
    }

    /// Quantises the rows row_of(0), ... row_of(n - 1), to be multiplied with w.
    template <class RowOf>
    LSTMCORE_INLINE MadeRows set(const Packed<float>& w, int64_t n, RowOf row_of) {
        const int64_t padded = w.padded_int8_K();
        for (int64_t i = 0; i < n; ++i)
            quantize_row(row_of(i), w.K, padded, bytes_ + i * padded, rows_[i]);
        return {reinterpret_cast<const char*>(rows_), int64_t(sizeof(QuantizedRow))};
    }

private:
    static constexpr int64_t kMost = 64;
    alignas(64) int8_t bytes_[kMostQuantized];
    QuantizedRow rows_[kMost];
};

/// to[column] = from[column] + scales[0] a_scale sum, for a register of columns.
LSTMCORE_INLINE void store_scaled(const Ints& sum, const float* scales,
                                  const Packet<float>& a_scale, const Ends<float>& end,
                                  int64_t column) {
    const Packet<float> scale = pmul(load(scales), a_scale);
    store(end.to + column, pmadd(to_floats(sum), scale, load(end.from + column)));
}

/// What is to be added to the sums of a row: the shifts of a register of columns, or nothing.
LSTMCORE_INLINE Ints shift_of(const QuantizedRow& a, const int32_t* shifts) {
    Ints shift = {};
    if (a.shifted) std::memcpy(&shift, shifts, sizeof shift);
    return shift;
}

LSTMCORE_INLINE const QuantizedRow& quantized_row(const void* row) {
    return *static_cast<const QuantizedRow*>(row);
}

/// TileLoop of a matrix in int8: to[panel][row][vector] = from[panel][row][vector] +
///     scale[panel][vector] a[row].scale sum_k a[row].q[k] w[panel][k][vector]
/// with the shift of the row added to the sum.
/// Factor is what multiplies: DotFactor or VnniFactor.
template <class Factor, int kVectors, int kPanels, int kRows>
void multiply_quantized_tile(const void* const* a, const TileWeights& weights,
                             const Ends<float>* ends) {
    constexpr int L = kLanes<float>;
    const auto* w = reinterpret_cast<const int8_t*>(weights.data);
    const int64_t w_panel = weights.panel_bytes, turns = weights.turns;
    const int32_t* const shifts = weights.shifts + weights.column;
    Ints sum[kPanels][kRows][kVectors];
    const int8_t* row[kRows];
    for (int r = 0; r < kRows; ++r) {
        const QuantizedRow& from = quantized_row(a[r]);
        row[r] = from.q;
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) sum[p][r][v] = Ints{} - Factor::kOffset * from.sum;
        if (from.shifted)
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] += shift_of(from, shifts + p * weights.panel_columns + v * L);
    }
    for (int64_t g = 0; g < turns; ++g, w += kVectors * L * kGroup)
        for (int r = 0; r < kRows; ++r) {
            const Factor factor(row[r] + g * kGroup);
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] = factor.add_dot(sum[p][r][v], w + p * w_panel + v * L * kGroup);
        }
    const float* const scales = weights.scales + weights.column;
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r) {
            const Packet<float> a_scale = set(quantized_row(a[r]).scale);
            const Ends<float>& end = ends[p * kRows + r];
            for (int v = 0; v < kVectors; ++v)
                store_scaled(sum[p][r][v], scales + p * weights.panel_columns + v * L, a_scale, end,
                             v * L);
        }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
