// How the instructions for low precision are chosen, once for the process: of those that it may
// use, by whether they compute what they should, and how long they take.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>

namespace lstmcore {

/// A choice that is made once, by whoever needs it first. Threads that come together may all make
/// it, and all take the first that was made. There is no lock, which a fork could leave locked.
template <class Choice>
class ChosenOnce {
public:
    template <class Choose>
    Choice get(Choose choose) {
        int chosen = chosen_.load(std::memory_order_acquire);
        if (chosen < 0) {
            const int mine = int(choose());
            if (chosen_.compare_exchange_strong(chosen, mine, std::memory_order_acq_rel))
                chosen = mine;
        }
        return Choice(chosen);
    }

private:
    std::atomic<int> chosen_{-1};
};

/// The shortest time that run() takes of some.
template <class Run>
std::chrono::nanoseconds shortest_time(Run run) {
    auto best = std::chrono::nanoseconds::max();
    for (int i = 0; i < 20; ++i) {
        const auto start = std::chrono::steady_clock::now();
        run();
        best = std::min<std::chrono::nanoseconds>(best, std::chrono::steady_clock::now() - start);
    }
    return best;
}

/// Rows of the products that units are compared by.
constexpr int64_t kRowsOfTrial = 16;

/// Whether one unit takes clearly less time than another. time_of(unit, rows) is how long its
/// product takes. The answer is for any number of rows, so a single one must not take clearly
/// longer.
template <class Unit, class TimeOf>
bool is_faster(Unit unit, Unit other, TimeOf time_of) {
    return time_of(unit, kRowsOfTrial) * 5 < time_of(other, kRowsOfTrial) * 4 &&
           time_of(unit, 1) * 4 < time_of(other, 1) * 5;
}

}  // namespace lstmcore
