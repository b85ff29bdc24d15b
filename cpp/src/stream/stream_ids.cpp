#include "lstmcore/stream_ids.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace lstmcore {
namespace {

/// What is known of a place. `closing`: closed while it is claimed.
enum State : int64_t { kFree, kOpen, kClaimed, kClosing };
constexpr int64_t kStates = 4;

constexpr int64_t word_of(int64_t id, State state) {
    return id * kStates + state;
}
constexpr int64_t id_of(int64_t word) {
    return word / kStates;
}
constexpr State state_of(int64_t word) {
    return State(word % kStates);
}

constexpr uint64_t kPlaceMask = 0xffffffff, kTaken = kPlaceMask + 1;

}  // namespace

StreamIds::StreamIds(int64_t capacity) : capacity_(capacity) {
    if (capacity < 1 || capacity > INT32_MAX)
        throw std::invalid_argument("capacity is " + std::to_string(capacity) + ", expected 1 to " +
                                    std::to_string(INT32_MAX));
    generation_ = 1;
    while (generation_ < capacity) generation_ *= 2;
    slots_.reset(new Slot[capacity]);
    for (int64_t place = 0; place < capacity; ++place) {
        slots_[place].word = word_of(place, kFree);
        slots_[place].link = place + 1 < capacity ? int32_t(place + 1) : -1;
    }
    free_ = 1;
}

int64_t StreamIds::open() noexcept {
    uint64_t head = free_.load(std::memory_order_acquire), rest;
    int64_t place;
    do {
        place = int64_t(head & kPlaceMask) - 1;
        if (place < 0) return -1;
        // If another thread takes the place first, this may be the link of a chain by now; then
        // the number of those taken is another one, and the exchange fails.
        rest = ((head & ~kPlaceMask) + kTaken) | uint64_t(next(place) + 1);
    } while (!free_.compare_exchange_weak(head, rest, std::memory_order_acq_rel,
                                          std::memory_order_acquire));
    Slot& slot = slots_[place];
    const int64_t id = id_of(slot.word.load(std::memory_order_relaxed));
    slot.link.store(-1, std::memory_order_relaxed);
    slot.word.store(word_of(id, kClaimed), std::memory_order_release);
    count_.fetch_add(1, std::memory_order_relaxed);
    return id;
}

PoolResult StreamIds::close(int64_t id) noexcept {
    if (!may_be(id)) return refuse(id, 0);
    const int64_t at = place(id);
    std::atomic<int64_t>& word = slots_[at].word;
    int64_t seen = word.load(std::memory_order_acquire);
    for (;;) {
        const bool claimed = seen == word_of(id, kClaimed);
        if (!claimed && seen != word_of(id, kOpen)) return refuse(id, 0);
        const int64_t then = claimed ? word_of(id, kClosing) : word_of(id + generation_, kFree);
        if (!word.compare_exchange_weak(seen, then, std::memory_order_acq_rel,
                                        std::memory_order_acquire))
            continue;
        count_.fetch_sub(1, std::memory_order_relaxed);
        if (!claimed) add_free(at);
        return {};
    }
}

PoolResult StreamIds::claim(const int64_t* ids, int64_t n, int64_t* first) noexcept {
    *first = -1;
    std::atomic<int32_t>* last = nullptr;
    for (int64_t i = 0; i < n; ++i) {
        const int64_t id = ids[i], at = place(id);
        int64_t expected = may_be(id) ? word_of(id, kOpen) : -1;
        if (expected < 0 || !slots_[at].word.compare_exchange_strong(
                                expected, word_of(id, kClaimed), std::memory_order_acquire)) {
            release(*first);
            PoolResult result = refuse(id, i);
            if (result.error == PoolError::in_use && std::find(ids, ids + i, id) != ids + i)
                result.error = PoolError::repeated;
            return result;
        }
        slots_[at].link.store(-1, std::memory_order_relaxed);
        if (last == nullptr)
            *first = at;
        else
            last->store(int32_t(at), std::memory_order_relaxed);
        last = &slots_[at].link;
    }
    return {};
}

void StreamIds::release(int64_t first) noexcept {
    while (first >= 0) {
        Slot& slot = slots_[first];
        const int64_t following = next(first);
        int64_t word = word_of(id_of(slot.word.load(std::memory_order_relaxed)), kClaimed);
        const int64_t id = id_of(word);
        if (!slot.word.compare_exchange_strong(word, word_of(id, kOpen),
                                               std::memory_order_acq_rel)) {
            slot.word.store(word_of(id + generation_, kFree), std::memory_order_release);
            add_free(first);
        }
        first = following;
    }
}

/// Whether it has a place, and a word can hold it.
bool StreamIds::may_be(int64_t id) const noexcept {
    return id >= 0 && id <= INT64_MAX / kStates && place(id) < capacity_;
}

/// What is wrong with an id that is not open, or is claimed.
PoolResult StreamIds::refuse(int64_t id, int64_t index) const noexcept {
    if (!may_be(id)) return {PoolError::unknown, index};
    const int64_t word = slots_[place(id)].word.load(std::memory_order_acquire);
    if (id < id_of(word) || word == word_of(id, kClosing)) return {PoolError::closed, index};
    if (id > id_of(word) || state_of(word) == kFree) return {PoolError::unknown, index};
    return {PoolError::in_use, index};
}

/// Puts a place, whose word says already that it is free, to the free ones.
void StreamIds::add_free(int64_t place) noexcept {
    uint64_t head = free_.load(std::memory_order_relaxed);
    do slots_[place].link.store(int32_t(int64_t(head & kPlaceMask) - 1), std::memory_order_relaxed);
    while (!free_.compare_exchange_weak(head, (head & ~kPlaceMask) | uint64_t(place + 1),
                                        std::memory_order_release, std::memory_order_relaxed));
}

}  // namespace lstmcore
