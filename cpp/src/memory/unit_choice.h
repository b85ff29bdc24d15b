// How the instructions for low precision are chosen, once for the process: of those that it may
// use, by whether they compute what they should, and how long they take.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <vector>

#include "kernel_table.h"
#include "machine/float_mode.h"

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

/// Some rows, to be multiplied with a matrix of K rows and N columns.
class TrialRows {
public:
    /// The numbers of the rows are number(0), number(1), ...; each sum begins with start(column).
    template <class Number, class Start>
    TrialRows(int64_t rows, int64_t K, int64_t N, Number number, Start start)
        : a_(size_t(rows * K)), start_(static_cast<size_t>(N)), out_(size_t(rows * N)) {
        for (size_t i = 0; i < a_.size(); ++i) a_[i] = number(int64_t(i));
        for (size_t i = 0; i < start_.size(); ++i) start_[i] = start(int64_t(i));
        for (int64_t r = 0; r < rows; ++r)
            rows_.push_back({a_.data() + r * K, start_.data(), out_.data() + r * N});
    }
    TrialRows(const TrialRows&) = delete;
    TrialRows& operator=(const TrialRows&) = delete;

    const std::vector<float>& multiply(const Kernels<float>& kernels, const Packed<float>& w) {
        const FlushDenormals mode;
        kernels.product(w, w.N, rows_.data(), int64_t(rows_.size()));
        return out_;
    }

private:
    std::vector<float> a_, start_, out_;
    std::vector<ProductRow<float>> rows_;
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

/// Whether a time is clearly less than another, noise left aside.
inline bool is_clearly_less(std::chrono::nanoseconds time, std::chrono::nanoseconds other) {
    return time * 5 < other * 4;
}

/// Whether one unit takes clearly less time than another. time_of(unit, rows) is how long its
/// product takes. The answer is for any number of rows, so a single one must not take clearly
/// longer.
template <class Unit, class TimeOf>
bool is_faster(Unit unit, Unit other, TimeOf time_of) {
    return is_clearly_less(time_of(unit, kRowsOfTrial), time_of(other, kRowsOfTrial)) &&
           time_of(unit, 1) * 4 < time_of(other, 1) * 5;
}

}  // namespace lstmcore
