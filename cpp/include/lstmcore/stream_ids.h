// The numbers of streams that come and go.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Why a call was refused, which then has changed nothing.
enum class PoolError {
    none,
    unknown,   ///< an id that no stream has had yet
    closed,    ///< that of a closed stream
    repeated,  ///< an id that comes twice in one call
    in_use,    ///< a call of another thread works with this stream
    stepping,  ///< of StreamPool::step: another thread takes a step
};

struct PoolResult {
    PoolError error = PoolError::none;
    int64_t index = 0;  ///< of the id that is refused, among those given

    explicit operator bool() const noexcept { return error == PoolError::none; }
};

/// Numbers for up to `capacity` open streams, each with a place of 0 .. capacity - 1 of its own,
/// and no number is used again when its stream is closed. What StreamPool goes by, and for pools of
/// your own.
///
/// Whoever works with streams claims them meanwhile. Any thread may make any call at any time:
/// nothing locks, waits, allocates or throws once this is made.
class StreamIds {
public:
    /// Throws std::invalid_argument where capacity is not 1 .. 2^31 - 1; std::bad_alloc.
    explicit StreamIds(int64_t capacity);
    StreamIds(const StreamIds&) = delete;

    int64_t capacity() const noexcept { return capacity_; }
    /// How many are open.
    int64_t count() const noexcept { return count_.load(std::memory_order_relaxed); }
    /// Of an id that is open.
    int64_t place(int64_t id) const noexcept { return id & (generation_ - 1); }

    /// A new id, which the caller has claimed; -1 if all places are taken.
    int64_t open() noexcept;
    /// The place of a stream that is claimed is free when it is released.
    PoolResult close(int64_t id) noexcept;

    /// Claims all of n streams, or none. Their places, in this order, are a chain: *first, and
    /// after each next(), until -1.
    PoolResult claim(const int64_t* ids, int64_t n, int64_t* first) noexcept;
    /// For the one who has claimed it.
    int64_t next(int64_t place) const noexcept {
        return slots_[size_t(place)].link.load(std::memory_order_relaxed);
    }
    /// Gives the streams of a chain free again.
    void release(int64_t first) noexcept;

private:
    struct Slot {
        std::atomic<int64_t> word;  ///< its id, or the next one if it is free, times 4, and a state
        std::atomic<int32_t> link;  ///< the next place of a chain, or of the free ones; -1: none
    };

    bool may_be(int64_t id) const noexcept;
    PoolResult refuse(int64_t id, int64_t index) const noexcept;
    void add_free(int64_t place) noexcept;

    const int64_t capacity_;
    int64_t generation_;  ///< between an id and the next at its place: a power of two
    std::unique_ptr<Slot[]> slots_;
    std::atomic<uint64_t> free_;  ///< the first free place + 1; above bit 32 how often it was taken
    std::atomic<int64_t> count_{0};
};

}  // namespace LSTMCORE_API lstmcore
