// How many threads a call gets: as many as were fastest when such calls were last tried.
//
// Threads that share the work of a call wait for each other. Where other processes use the cores,
// or where the work is small, that can take longer than all of it takes one thread. No result
// depends on the number of threads, so it may change from call to call: most calls run with the
// number that was fastest of late, and now and then one tries half or twice as many.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

#include "lstmcore/machine.h"
#include "machine/threads.h"

namespace lstmcore {

/// The latest times of calls with one number of threads, in seconds for a unit of work.
class Times {
public:
    void add(float seconds) {
        latest_[added_ % kKept] = seconds;
        ++added_;
    }
    bool any() const { return added_ > 0; }
    /// Whether there are enough to go by.
    bool known() const { return added_ > 1; }

    /// The mean without the longest one or two, which may have been somebody else's.
    float typical() const {
        const unsigned n = std::min(added_, kKept);
        float sum = 0, longest = 0, second = 0;
        for (unsigned i = 0; i < n; ++i) {
            sum += latest_[i];
            second = std::max(second, std::min(longest, latest_[i]));
            longest = std::max(longest, latest_[i]);
        }
        if (n > 5) return (sum - longest - second) / float(n - 2);
        return n > 1 ? (sum - longest) / float(n - 1) : sum;
    }

private:
    static constexpr unsigned kKept = 8;
    std::array<float, kKept> latest_{};
    unsigned added_ = 0;
};

/// What is known of the calls of one kind. Level 0 has all threads, each further one half of them,
/// the last has one.
class CallHistory {
public:
    bool is_of(uint64_t key, int most) const { return key == key_ && most == most_; }

    void start(uint64_t key, int most) {
        *this = CallHistory();
        key_ = key;
        most_ = most;
        while (most >> (last_ + 1) > 0) ++last_;
    }

    int threads(int level) const { return std::max(most_ >> level, 1); }

    /// The level of the next call.
    int choose() {
        if (--calls_left_ > 0) return current_;
        calls_left_ = kLeastCalls;  // until add() knows better
        fewer_ = current_ == 0 || (current_ < last_ && !fewer_);
        const int level = current_ + (fewer_ ? 1 : -1);
        if (!again_) times_[level] = Times();  // what was long ago tells nothing
        again_ = false;
        return level;
    }

    /// Takes note of a call of `seconds` for each unit of its `work`.
    void add(int level, float seconds, double work) {
        if (is_first_) {  // of its kind: it finds neither memory nor caches as later ones do
            is_first_ = false;
            return;
        }
        times_[level].add(seconds);
        if (!times_[current_].known()) return;
        const float usual = times_[current_].typical();
        if (level == current_) {
            // No longer the best it was: another may be better now.
            for (const int other : {current_ - 1, current_ + 1})
                if (other >= 0 && other <= last_ && times_[other].any() &&
                    times_[other].typical() < kBetter * usual)
                    return move(other, work);
            // The machine has changed: look around.
            if (before_ == 0) before_ = usual;
            const bool slower = usual > kChange * before_, faster = kChange * usual < before_;
            if (++since_trial_ >= calls_in(kChangePause, work) && (slower || faster)) {
                before_ = usual;
                try_soon(slower);
            }
            return;
        }
        since_trial_ = 0;
        if (times_[level].known() && times_[level].typical() < kBetter * usual)
            return move(level, work);
        if (seconds < usual) {
            again_ = true;
            return try_soon(level > current_);
        }
        // Trials are to cost little, and to be the rarer the longer they were in vain.
        pause_ = std::min(4 * pause_, kLongestPause);
        calls_left_ =
            std::max(calls_in(pause_, work), int(std::min(kTrialCost * seconds / usual, 1e6f)));
    }

private:
    static constexpr int kMostLevels = 16;
    static constexpr int kAgainCalls = 3;
    /// At least so many calls lie between two trials that were in vain: less than one in twenty.
    static constexpr int kLeastCalls = 24;
    /// A trial that took n times as long is not repeated before 20 n calls.
    static constexpr float kTrialCost = 20;
    /// Seconds between them: at first, and at most.
    static constexpr double kShortestPause = 0.01, kLongestPause = 2;
    /// So many times slower or faster calls are a change of the machine.
    static constexpr float kChange = 1.5f;
    static constexpr double kChangePause = 0.1;  ///< seconds after the last trial
    /// Another number of threads is taken for better if calls take less than this part of the time.
    static constexpr float kBetter = 0.97f;

    /// How many calls so many seconds are.
    int calls_in(double seconds, double work) const {
        const double call = std::max(double(times_[current_].typical()) * work, 1e-7);
        return int(std::clamp(seconds / call, double(kLeastCalls), 1e6));
    }
    void try_soon(bool fewer) {
        calls_left_ = kAgainCalls;
        fewer_ = !fewer;  // choose() turns it
    }
    /// Goes over to another level, and soon tries the next one in this direction.
    void move(int level, double work) {
        const bool fewer = level > current_;
        current_ = level;
        before_ = 0;
        pause_ = kShortestPause;
        if (level == (fewer ? last_ : 0))
            calls_left_ = calls_in(pause_, work);
        else
            try_soon(fewer);
    }

    uint64_t key_ = 0;
    int most_ = 0, last_ = 0, current_ = 0;
    int calls_left_ = 5;   ///< before the next trial
    int since_trial_ = 0;  ///< calls
    float before_ = 0;     ///< what was typical when the last change was seen
    bool is_first_ = true;
    bool fewer_ = false;  ///< whether the last trial had fewer threads
    bool again_ = false;  ///< whether the next one repeats it
    double pause_ = kShortestPause;
    std::array<Times, kMostLevels> times_;
};

/// run_team() with as many of `size` threads as are worth it for calls of this kind.
template <class F>
void run_fast_team(CallKind kind, int size, F&& body) noexcept {
    const CallThreads threads(kind, size);
    run_team(threads.count(), body);
}

}  // namespace lstmcore
