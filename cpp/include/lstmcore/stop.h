// Long calls that end before their time.
#pragma once

#include <atomic>
#include <chrono>
#include <stdexcept>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Whether a call is to end before its time, as by Ctrl-C: asked a few times a second, on the
/// thread that called. Must not throw. Null `ask`: never.
struct StopCheck {
    bool (*ask)(void* context) = nullptr;
    void* context = nullptr;
};

/// Thrown by a call that its StopCheck has ended. What it has written until then is of no use.
struct Stopped : std::runtime_error {
    Stopped() : std::runtime_error("the call was stopped") {}
};

/// Asks a StopCheck, not too often, and remembers that it said yes.
class Stop {
public:
    explicit Stop(const StopCheck& check) : check_(check) {
        if (check.ask != nullptr) asked_ = Clock::now();
    }

    /// Whether the call is to end. For the thread that called, as often as it likes.
    bool ask() noexcept {
        if (check_.ask == nullptr || stopped()) return stopped();
        const Clock::time_point now = Clock::now();
        if (now - asked_ >= kPause) {
            asked_ = now;
            if (check_.ask(check_.context)) stopped_.store(true, std::memory_order_relaxed);
        }
        return stopped();
    }
    /// What it has said; for any thread.
    bool stopped() const noexcept { return stopped_.load(std::memory_order_relaxed); }

private:
    using Clock = std::chrono::steady_clock;
    /// Asking can cost as much as taking the lock of the Python interpreter.
    static constexpr std::chrono::milliseconds kPause{200};

    const StopCheck check_;
    Clock::time_point asked_{};
    std::atomic<bool> stopped_{false};
};

}  // namespace LSTMCORE_API lstmcore
