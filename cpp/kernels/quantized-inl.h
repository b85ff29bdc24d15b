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

/// A row in int8: a[k] is about scale q[k]. Zeros behind the last, as in the matrix.
struct QuantizedRow {
    const int8_t* q;
    float scale;
    int32_t sum;  ///< of all q[k]
};

/// Below this, which is far below what a gate notices, a row counts as zeros.
constexpr float kSmallestQuantized = 1e-30f;

/// Writes round(127 a[k] / max |a|), ties to even, to q; the scale is max |a| / 127. That is NaN if
/// a number of the row is infinite or NaN, and so is what the row is multiplied to. From K to
/// `padded`, a multiple of kGroup, q is 0.
inline LSTMCORE_ONE_COPY QuantizedRow quantize_row(const float* a, int64_t K, int64_t padded,
                                                   int8_t* q) {
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
    // The sum holds the rounded number in its lowest bits.
    const Packet<float> round = set(12582912.0f);  // 1.5 * 2^23
    Ints sums = {};
    for (int64_t k = 0; k < padded; k += L) {
        const Packet<float> sum = padd(pmul(load(a + k, K - k), inverse), round);
        const Ints numbers = zeros ? Ints{} : (Ints)sum - (Ints)round;
        sums += numbers;
        int8_t bytes[L];
        for (int64_t l = 0; l < L; ++l) bytes[l] = int8_t(numbers[l]);
        std::memcpy(q + k, bytes, size_t(std::min(L, padded - k)));
    }
    int32_t sum = 0;
    for (int64_t l = 0; l < L; ++l) sum += sums[l];
    const float nan = std::numeric_limits<float>::quiet_NaN();
    return {q, !finite ? nan : zeros ? 0.0f : max / 127.0f, sum};
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
            rows_[i] = quantize_row(row_of(i), w.K, padded, bytes_ + i * padded);
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

LSTMCORE_INLINE const QuantizedRow& quantized_row(const void* row) {
    return *static_cast<const QuantizedRow*>(row);
}

/// TileLoop of a matrix in int8: to[panel][row][vector] = from[panel][row][vector] +
///     scale[panel][vector] a[row].scale sum_k a[row].q[k] w[panel][k][vector]
/// Factor is what multiplies: DotFactor or VnniFactor.
template <class Factor, int kVectors, int kPanels, int kRows>
void multiply_quantized_tile(const void* const* a, const TileWeights& weights,
                             const Ends<float>* ends) {
    constexpr int L = kLanes<float>;
    const auto* w = reinterpret_cast<const int8_t*>(weights.data);
    const int64_t w_panel = weights.panel_bytes, turns = weights.turns;
    Ints sum[kPanels][kRows][kVectors];
    const int8_t* row[kRows];
    for (int r = 0; r < kRows; ++r) {
        const QuantizedRow& from = quantized_row(a[r]);
        row[r] = from.q;
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) sum[p][r][v] = Ints{} - Factor::kOffset * from.sum;
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
