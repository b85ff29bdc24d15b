// Rows of numbers in memory.
#pragma once

#include <cstdint>
#include <cstring>

#include "memory/arena.h"

namespace lstmcore {

/// Rows whose starts are `stride` numbers apart.
template <class T>
struct StridedRows {
    T* data = nullptr;
    int64_t stride = 0;

    T* at(int64_t row) const { return data + row * stride; }
};

/// Room for `count` rows of n numbers. The stride is an odd number of cache lines, so that a column
/// of rows does not fall into a few sets of the cache.
template <class T>
StridedRows<T> take_rows(Arena& arena, int64_t count, int64_t n) {
    constexpr int64_t line = kAlignment / int64_t(sizeof(T));
    const int64_t stride = (round_up(n, line) / line | 1) * line;
    return {arena.take<T>(size_product(count, stride)), stride};
}

/// Null stands for zeros.
template <class T>
void copy_or_clear(T* to, const T* from, int64_t n) {
    if (from == nullptr)
        std::memset(to, 0, sizeof(T) * n);
    else
        std::memcpy(to, from, sizeof(T) * n);
}

}  // namespace lstmcore
