// Copies a matrix into the order in which the kernels read it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../kernels/kernel_table.h"
#include "arena.h"

namespace lstmcore {

/// Packs the matrix source[k_offset(k) + column_offset(column)] into panels of `vectors` registers.
/// A negative column_offset is padding.
template <class T, class KOffset, class ColumnOffset>
Packed<T> pack_matrix(Arena& arena, int lanes, int vectors, int64_t K, int64_t columns,
                      const T* source, KOffset k_offset, ColumnOffset column_offset) {
    Packed<T> packed;
    packed.K = K;
    packed.N = round_up(columns, lanes);
    packed.vectors = vectors;
    T* out = arena.take<T>(size_product(K, packed.N));
    packed.data = out;
    if (out == nullptr) return packed;
    constexpr int64_t kMaxWidth = 4 * kAlignment / int64_t(sizeof(T));
    int64_t offsets[kMaxWidth];
    const int64_t width = int64_t(vectors) * lanes;
    for (int64_t first = 0; first < packed.N; first += width) {
        const int64_t count = std::min(width, packed.N - first);
        for (int64_t i = 0; i < count; ++i) offsets[i] = column_offset(first + i);
        for (int64_t k = 0; k < K; ++k) {
            const T* from = source + k_offset(k);
            for (int64_t i = 0; i < count; ++i) *out++ = offsets[i] < 0 ? T(0) : from[offsets[i]];
        }
    }
    return packed;
}

}  // namespace lstmcore
