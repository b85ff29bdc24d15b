// Ends a call that its caller no longer wants.
#pragma once

#include <atomic>
#include <chrono>

#include "lstmcore/layer.h"
#include "machine/threads.h"

namespace lstmcore {

/// Members ask it between two pieces of work. Once it says true, those that have heard it leave out
/// their work, but still call every barrier, because others may not have heard it yet.
class Stop {
public:
    explicit Stop(const StopCheck& check) : check_(check) {}

    bool operator()(const Team& team) noexcept {
        if (check_.ask == nullptr) return false;
        if (team.rank == 0 && !stopped()) ask();  // it runs on the thread of the caller
        return stopped();
    }
    bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }

private:
    using Clock = std::chrono::steady_clock;

    void ask() noexcept {
        const Clock::time_point now = Clock::now();
        if (now - asked_ < std::chrono::milliseconds(kMillisecondsOfStop)) return;
        asked_ = now;
        if (check_.ask(check_.context)) stopped_.store(true, std::memory_order_relaxed);
    }

    const StopCheck check_;
    Clock::time_point asked_ = Clock::now();  ///< of the calling thread
    std::atomic<bool> stopped_{false};
};

}  // namespace lstmcore
