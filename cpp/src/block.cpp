#include "block.h"

#include <atomic>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "arena.h"

namespace lstmcore {
namespace {

constexpr int64_t kHugePage = 2 << 20;
constexpr int64_t kHugeFrom = 1 << 20;  // bytes from which a block gets whole huge pages

std::align_val_t alignment_of(int64_t capacity) {
    return std::align_val_t(capacity < kHugeFrom ? kAlignment : kHugePage);
}

}  // namespace

/// The large blocks that a thread has freed last: as many as a training step holds at once.
class FreeBlocks {
public:
    ~FreeBlocks() {
        closed = true;
        for (Block& block : blocks_) drop(block);
    }

    /// Gives a block of at least `bytes`, but not of much more.
    bool take(int64_t bytes, Block& to) {
        for (Block& block : blocks_)
            if (block.capacity_ >= bytes && block.capacity_ <= 2 * bytes) {
                to.swap(block);
                kept_by_all -= to.capacity_;
                return true;
            }
        return false;
    }
    /// Keeps the block in the place of the oldest, if all threads together do not keep too much.
    void keep(Block& block) {
        Block& oldest = blocks_[next_++ % kBlocks];
        drop(oldest);
        if (kept_by_all.fetch_add(block.capacity_) + block.capacity_ <= kMostOfAll)
            oldest.swap(block);
        else
            kept_by_all -= block.capacity_;
    }
    static bool keeps(int64_t capacity) {
        return capacity >= kHugeFrom && capacity <= kLargest && !closed;
    }
    static void release(Block& block) {
        if (block.data_) ::operator delete(block.data_, alignment_of(block.capacity_));
        block.data_ = nullptr;
    }

    static thread_local FreeBlocks of_thread;

private:
    static void drop(Block& block) {
        if (block.data_) kept_by_all -= block.capacity_;
        release(block);
        block.capacity_ = 0;
    }

    static constexpr int64_t kLargest = 32 << 20;
    static constexpr int64_t kMostOfAll = 128 << 20;
    static std::atomic<int64_t> kept_by_all;  // bytes
    static constexpr unsigned kBlocks = 3;
    static thread_local bool closed;  // trivial, so it may still be asked at the end of the thread

    Block blocks_[kBlocks];
    unsigned next_ = 0;
};

std::atomic<int64_t> FreeBlocks::kept_by_all{0};
thread_local bool FreeBlocks::closed = false;
thread_local FreeBlocks FreeBlocks::of_thread;

Block::Block(int64_t bytes) {
    const int64_t capacity = bytes < kHugeFrom ? bytes : round_up(bytes, kHugePage);
    if (!FreeBlocks::keeps(capacity) || !FreeBlocks::of_thread.take(bytes, *this)) {
        data_ = ::operator new(capacity, alignment_of(capacity));
        capacity_ = capacity;
#if defined(MADV_HUGEPAGE)
        if (capacity >= kHugeFrom) madvise(data_, capacity, MADV_HUGEPAGE);
#endif
    }
    bytes_ = bytes;
}

Block::~Block() {
    if (data_ && FreeBlocks::keeps(capacity_)) FreeBlocks::of_thread.keep(*this);
    FreeBlocks::release(*this);
}

}  // namespace lstmcore
