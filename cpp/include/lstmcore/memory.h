// Memory for workspaces, tapes and results: on cache lines, and large buffers on huge pages.
#pragma once

#include <cstdint>
#include <utility>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

[[noreturn]] void throw_bad_alloc();

/// a * b * c for sizes >= 0. Throws std::bad_alloc where no memory could hold so much.
inline int64_t size_product(int64_t a, int64_t b, int64_t c = 1) {
    int64_t ab, abc;
    if (__builtin_mul_overflow(a, b, &ab) || __builtin_mul_overflow(ab, c, &abc) ||
        abc > INT64_MAX / 64)
        throw_bad_alloc();
    return abc;
}

/// Owned memory, not initialised, aligned to a cache line (64 bytes).
///
/// Buffers of 1 MiB or more take whole huge pages. The thread that frees a buffer of `kKeptFrom`
/// bytes or more keeps it for its next one, because a step of training would otherwise spend up to
/// a fifth of its time on being given the same pages again, cleared. All threads together keep
/// 128 MiB at most.
class Buffer {
public:
    static constexpr int64_t kKeptFrom = 64 * 1024;

    /// None.
    Buffer() = default;
    /// Of `bytes` >= 0. Throws std::bad_alloc.
    explicit Buffer(int64_t bytes);
    Buffer(Buffer&& from) noexcept { swap(from); }
    Buffer& operator=(Buffer&& from) noexcept {
        swap(from);
        return *this;
    }
    ~Buffer();

    void* data() const { return data_; }
    int64_t bytes() const { return bytes_; }

private:
    friend class FreeBuffers;

    void swap(Buffer& other) noexcept {
        std::swap(data_, other.data_);
        std::swap(bytes_, other.bytes_);
        std::swap(capacity_, other.capacity_);
    }

    void* data_ = nullptr;
    int64_t bytes_ = 0;
    int64_t capacity_ = 0;
};

}  // namespace LSTMCORE_API lstmcore
