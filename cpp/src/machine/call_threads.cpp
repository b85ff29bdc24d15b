#include "machine/call_threads.h"

#include <array>
#include <chrono>
#include <mutex>

namespace lstmcore {

namespace {

double now() noexcept {
    using std::chrono::steady_clock;
    return std::chrono::duration<double>(steady_clock::now().time_since_epoch()).count();
}

/// The kinds of calls of late: each has one place, which another kind with the same place takes
/// over.
class Histories {
public:
    CallHistory& find(uint64_t key, int most) {
        CallHistory& history = places_[key % places_.size()];
        if (!history.is_of(key, most)) history.start(key, most);
        return history;
    }
    std::mutex mutex;

private:
    std::array<CallHistory, 256> places_;
};

Histories histories;

}  // namespace

CallKind::CallKind(std::initializer_list<int64_t> numbers, double work_) noexcept : work(work_) {
    for (const int64_t number : numbers) {  // FNV-1a, by words; then the bits are mixed
        key = (key ^ uint64_t(number)) * 0x100000001b3;
        key ^= key >> 29;
    }
}

CallThreads::CallThreads(const CallKind& kind, int most) noexcept
    : kind_(kind), most_(most), count_(most) {
    if (most <= 1 || threads_are_exact()) return;
    const std::unique_lock<std::mutex> lock(histories.mutex, std::try_to_lock);
    if (!lock.owns_lock()) return;  // another call is just looking: not worth waiting for
    CallHistory& history = histories.find(kind.key, most);
    level_ = history.choose();
    count_ = history.threads(level_);
    start_ = now();
}

CallThreads::~CallThreads() {
    if (level_ < 0) return;
    const double seconds = now() - start_;
    const std::unique_lock<std::mutex> lock(histories.mutex, std::try_to_lock);
    if (!lock.owns_lock()) return;
    histories.find(kind_.key, most_).add(level_, float(seconds / kind_.work), kind_.work);
}

}  // namespace lstmcore
