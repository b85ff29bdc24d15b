// Hands out pieces of one block of memory; over no block it only counts what would be needed.
#pragma once

#include <cstdint>
#include <new>

#include "machine/caches.h"

namespace lstmcore {

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

/// a * b * c for sizes. Throws std::bad_alloc where no memory could hold so much.
inline int64_t size_product(int64_t a, int64_t b, int64_t c = 1) {
    int64_t ab, abc;
    if (__builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, &abc) ||
        abc > INT64_MAX / 64)
        throw std::bad_alloc();
    return abc;
}

class Arena {
public:
    explicit Arena(void* base) : base_(static_cast<char*>(base)) {}

    /// `count` values of U, aligned to a cache line relative to the base; null when only counting.
    template <class U>
    U* take(int64_t count) {
        char* piece = base_ ? base_ + used_ : nullptr;
        used_ += round_up(size_product(count, sizeof(U)), kAlignment);
        if (used_ > INT64_MAX / 64) throw std::bad_alloc();
        return reinterpret_cast<U*>(piece);
    }
    int64_t used() const { return used_; }

private:
    char* base_;
    int64_t used_ = 0;
};

}  // namespace lstmcore
