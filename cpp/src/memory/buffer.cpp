#include <algorithm>
#include <atomic>
#include <new>

#include "lstmcore/memory.h"

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "machine/caches.h"
#include "memory/arena.h"

namespace lstmcore {

void throw_bad_alloc() {
    throw std::bad_alloc();
}

namespace {

std::align_val_t alignment_of(int64_t capacity) {
    return std::align_val_t(capacity < kHugePagesFrom ? kAlignment : kHugePage);
}

}  // namespace

/// The buffers that a thread has freed last: as many as a training step holds at once.
class FreeBuffers {
public:
    ~FreeBuffers() {
        closed = true;
        while (count_ > 0) drop(take_out(0));
    }

    /// Gives the smallest buffer of at least `bytes`, but none of much more.
    bool take(int64_t bytes, Buffer& to) {
        int best = count_;
        for (int i = 0; i < count_; ++i) {
            const int64_t capacity = buffers_[i].capacity_;
            if (capacity < bytes || capacity > 2 * bytes) continue;
            if (best == count_ || capacity < buffers_[best].capacity_) best = i;
        }
        if (best == count_) return false;
        to = take_out(best);
        return true;
    }
    /// Keeps the buffer, in the place of the oldest where these would be too many, unless all
    /// threads together keep too much.
    void keep(Buffer& buffer) {
        const int64_t room = kKeptBufferBytes - buffer.capacity_;
        while (count_ > 0 && (count_ == kKeptBuffers || kept_by_all > room)) drop(take_out(0));
        if (kept_by_all.fetch_add(buffer.capacity_) <= room)
            buffers_[count_++].swap(buffer);
        else
            kept_by_all -= buffer.capacity_;
    }
    static bool keeps(int64_t capacity) {
        return capacity >= Buffer::kKeptFrom && capacity <= kKeptBufferBytes && !closed;
    }
    static void release(Buffer& buffer) {
        if (buffer.data_) ::operator delete(buffer.data_, alignment_of(buffer.capacity_));
        buffer.data_ = nullptr;
    }

    static thread_local FreeBuffers of_thread;

private:
    Buffer take_out(int i) {
        Buffer buffer = std::move(buffers_[i]);
        std::rotate(buffers_ + i, buffers_ + i + 1, buffers_ + count_--);
        kept_by_all -= buffer.capacity_;
        return buffer;
    }
    static void drop(Buffer buffer) { release(buffer); }

    static std::atomic<int64_t> kept_by_all;  // bytes
    static thread_local bool closed;  // trivial, so it may still be asked at the end of the thread

    Buffer buffers_[kKeptBuffers];  // the oldest first
    int count_ = 0;
};

std::atomic<int64_t> FreeBuffers::kept_by_all{0};
thread_local bool FreeBuffers::closed = false;
thread_local FreeBuffers FreeBuffers::of_thread;

Buffer::Buffer(int64_t bytes) {
    const int64_t capacity = bytes < kHugePagesFrom ? bytes : round_up(bytes, kHugePage);
    if (!FreeBuffers::keeps(capacity) || !FreeBuffers::of_thread.take(bytes, *this)) {
        data_ = ::operator new(capacity, alignment_of(capacity));
        capacity_ = capacity;
#if defined(MADV_HUGEPAGE)
        if (capacity >= kHugePagesFrom) madvise(data_, capacity, MADV_HUGEPAGE);
#endif
    }
    bytes_ = bytes;
}

Buffer::~Buffer() {
    if (data_ && FreeBuffers::keeps(capacity_)) FreeBuffers::of_thread.keep(*this);
    FreeBuffers::release(*this);
}

}  // namespace lstmcore
