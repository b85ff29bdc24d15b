// Hands out pieces of one buffer; without a buffer it only counts the bytes that would be needed.
#pragma once

#include <cstdint>
#include <new>

#include "lstmcore/memory.h"
#include "machine/caches.h"

namespace lstmcore {

inline int64_t round_up(int64_t n, int64_t multiple) {
    return (n + multiple - 1) / multiple * multiple;
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
