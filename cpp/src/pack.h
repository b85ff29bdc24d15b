// Copies matrices and rows into the order in which the kernels read them.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "../kernels/kernel_table.h"
#include "arena.h"

namespace lstmcore {

/// Room for a matrix of `columns` columns in panels of `vectors` registers.
template <class T>
Packed<T> take_packed(Arena& arena, int lanes, int vectors, int64_t K, int64_t columns, T** out) {
    Packed<T> packed;
    packed.K = K;
    packed.N = round_up(columns, lanes);
    packed.vectors = vectors;
    *out = arena.take<T>(size_product(K, packed.N));
    packed.data = *out;
    return packed;
}

/// Packs the matrix whose column c is row row_of(c) of `source` (rows, K); a negative row is
/// padding.
template <class T, class RowOf>
Packed<T> pack_transposed(Arena& arena, const Kernels<T>& kernels, int vectors, int64_t K,
                          int64_t columns, const T* source, RowOf row_of) {
    T* out;
    const Packed<T> packed = take_packed<T>(arena, kernels.lanes, vectors, K, columns, &out);
    if (out == nullptr) return packed;
    const std::vector<T> padding(K);
    constexpr int64_t kMaxWidth = 4 * kAlignment / int64_t(sizeof(T));
    const T* rows[kMaxWidth];
    for (int64_t first = 0; first < packed.N; first += vectors * kernels.lanes) {
        const int64_t width = std::min<int64_t>(vectors * kernels.lanes, packed.N - first);
        for (int64_t i = 0; i < width; ++i) {
            const int64_t row = row_of(first + i);
            rows[i] = row < 0 ? padding.data() : source + row * K;
        }
        kernels.transpose(rows, K, width, out + first * K);
    }
    return packed;
}

/// Packs the matrix whose row k is row row_of(k) of `source` (rows, columns).
template <class T, class RowOf>
Packed<T> pack_rows(Arena& arena, int lanes, int64_t K, int64_t columns, const T* source,
                    RowOf row_of) {
    constexpr int kVectors = 4;
    T* out;
    const Packed<T> packed = take_packed<T>(arena, lanes, kVectors, K, columns, &out);
    if (out == nullptr) return packed;
    for (int64_t k = 0; k < K; ++k) {
        const T* from = source + row_of(k) * columns;
        for (int64_t first = 0; first < packed.N; first += kVectors * lanes) {
            const int64_t width = std::min<int64_t>(kVectors * lanes, packed.N - first);
            const int64_t count = std::min(width, columns - first);
            T* to = out + first * K + k * width;
            std::copy(from + first, from + first + count, to);
            std::fill(to + count, to + width, T(0));
        }
    }
    return packed;
}

/// Lays the n numbers of a row out for sums over rows.
template <class T>
void copy_to_panels(const Panels<T>& to, int64_t row, const T* from, int64_t n) {
    for (int64_t i = 0; i < n; i += to.width)
        std::memcpy(to.at(row, i), from + i, sizeof(T) * std::min(n - i, to.width));
}

}  // namespace lstmcore
