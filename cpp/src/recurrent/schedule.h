// Which sequences run at which step. Slots are the rows of the batch, longest first: those that
// are alive at a step are the first ones, and the work is the sum of the lengths.
#pragma once

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

#include "lstmcore/layer.h"

namespace lstmcore {

class Schedule {
public:
    /// Without lengths all rows are `steps` long, slots are rows, and nothing is allocated.
    template <class T>
    explicit Schedule(const Sequences<T>& in)
        : Schedule(in.steps, in.batch, in.lengths, in.first_step,
                   in.whole_steps < 0 ? in.steps : in.whole_steps) {}

    Schedule(int64_t steps, int64_t batch, const int64_t* lengths, int64_t first_step,
             int64_t whole_steps)
        : steps_(steps), batch_(batch) {
        if (lengths == nullptr) return;
        for (int64_t b = 0; b < batch; ++b)
            if (lengths[b] < 0 || lengths[b] > whole_steps)
                throw std::invalid_argument("lengths[" + std::to_string(b) + "] is " +
                                            std::to_string(lengths[b]) + ", expected 0 .. " +
                                            std::to_string(whole_steps));
        row_.resize(batch);
        std::iota(row_.begin(), row_.end(), int64_t(0));
        std::stable_sort(row_.begin(), row_.end(),
                         [&](int64_t a, int64_t b) { return lengths[a] > lengths[b]; });
        length_.reserve(batch);
        for (int64_t row : row_)
            length_.push_back(std::clamp<int64_t>(lengths[row] - first_step, 0, steps));
        steps_ = batch > 0 ? length_[0] : 0;
        alive_.assign(steps_, 0);
        for (int64_t slot = batch; slot-- > 0;)  // the last slot that reaches a step sets it
            for (int64_t step = slot + 1 < batch ? length_[slot + 1] : 0; step < length_[slot];
                 ++step)
                alive_[step] = slot + 1;
    }

    /// Steps in which anything runs: the longest length.
    int64_t steps() const { return batch_ > 0 ? steps_ : 0; }
    int64_t row(int64_t slot) const { return row_.empty() ? slot : row_[slot]; }
    int64_t length(int64_t slot) const { return length_.empty() ? steps_ : length_[slot]; }
    /// Slots that run at `step`; none from steps() on.
    int64_t alive(int64_t step) const {
        if (step >= steps_) return 0;
        return alive_.empty() ? batch_ : alive_[step];
    }
    /// The time at which a slot's `step` happens.
    int64_t time(int64_t slot, int64_t step, bool backwards) const {
        return backwards ? length(slot) - 1 - step : step;
    }

private:
    int64_t steps_, batch_;
    std::vector<int64_t> row_, length_, alive_;
};

}  // namespace lstmcore
