#include "memory/block.h"

#include <algorithm>
#include <atomic>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "machine/caches.h"
#include "memory/arena.h"

namespace lstmcore {
namespace {

std::align_val_t alignment_of(int64_t capacity) {
    return std::align_val_t(capacity < kHugePagesFrom ? kAlignment : kHugePage);
}

}  // namespace

/// The blocks that a thread has freed last: as many as a training step holds at once.
class FreeBlocks {
public:
    ~FreeBlocks() {
        closed = true;
        while (count_ > 0) drop(take_out(0));
    }

    /// Gives the smallest block of at least `bytes`, but none of much more.
    bool take(int64_t bytes, Block& to) {
        int best = count_;
        for (int i = 0; i < count_; ++i) {
            const int64_t capacity = blocks_[i].capacity_;
            if (capacity < bytes || capacity > 2 * bytes) continue;
            if (best == count_ || capacity < blocks_[best].capacity_) best = i;
        }
        if (best == count_) return false;
        to = take_out(best);
        return true;
    }
    /// Keeps the block, in the place of the oldest where these would be too many, unless all
    /// threads together keep too much.
    void keep(Block& block) {
        const int64_t room = kKeptBytes - block.capacity_;
        while (count_ > 0 && (count_ == kKeptBuffers || kept_by_all > room)) drop(take_out(0));
        if (kept_by_all.fetch_add(block.capacity_) <= room)
            blocks_[count_++].swap(block);
        else
            kept_by_all -= block.capacity_;
    }
    static bool keeps(int64_t capacity) {
        return capacity >= Block::kKeptFrom && capacity <= kKeptBytes && !closed;
    }
    static void release(Block& block) {
        if (block.data_) ::operator delete(block.data_, alignment_of(block.capacity_));
        block.data_ = nullptr;
    }

    static thread_local FreeBlocks of_thread;

private:
    Block take_out(int i) {
        Block block = std::move(blocks_[i]);
        std::rotate(blocks_ + i, blocks_ + i + 1, blocks_ + count_--);
        kept_by_all -= block.capacity_;
        return block;
    }
    static void drop(Block block) { release(block); }

    static std::atomic<int64_t> kept_by_all;  // bytes
    static thread_local bool closed;  // trivial, so it may still be asked at the end of the thread

    Block blocks_[kKeptBuffers];  // the oldest first
    int count_ = 0;
};

std::atomic<int64_t> FreeBlocks::kept_by_all{0};
thread_local bool FreeBlocks::closed = false;
thread_local FreeBlocks FreeBlocks::of_thread;

Block::Block(int64_t bytes) {
    const int64_t capacity = bytes < kHugePagesFrom ? bytes : round_up(bytes, kHugePage);
    if (!FreeBlocks::keeps(capacity) || !FreeBlocks::of_thread.take(bytes, *this)) {
        data_ = ::operator new(capacity, alignment_of(capacity));
        capacity_ = capacity;
#if defined(MADV_HUGEPAGE)
        if (capacity >= kHugePagesFrom) madvise(data_, capacity, MADV_HUGEPAGE);
#endif
    }
    bytes_ = bytes;
}

Block::~Block() {
    if (data_ && FreeBlocks::keeps(capacity_)) FreeBlocks::of_thread.keep(*this);
    FreeBlocks::release(*this);
}

}  // namespace lstmcore
