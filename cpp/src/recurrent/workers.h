// How a call's work is shared: by rows of the batch; where rows are too few, by directions or by
// hidden units.
#pragma once

#include <algorithm>
#include <cstdint>

#include "lstmcore/spec.h"
#include "machine/caches.h"
#include "machine/threads.h"

namespace lstmcore {

/// first, first + step, ... below last, for range-based loops.
struct Range {
    int64_t first, last, step;

    struct Iterator {
        int64_t value, step;
        int64_t operator*() const { return value; }
        void operator++() { value += step; }
        bool operator!=(const Iterator& end) const { return value < end.value; }
    };
    Iterator begin() const { return {first, step}; }
    Iterator end() const { return {last, step}; }
};

/// Workers are fixed before the team is known: a smaller team does the same work in turns.
class Workers {
public:
    Workers(const LayerSpec& spec, int64_t steps, int64_t batch, int64_t number_bytes,
            int num_threads)
        : directions_(spec.directions()) {
        double work = 0;
        for (int64_t l = 0; l < spec.num_layers; ++l)
            work += double(spec.layer_input_size(l) + spec.output_size()) * spec.hidden_size *
                    spec.cell.gates() * directions_;
        work *= double(steps) * double(batch);
        const int64_t useful = int64_t(std::min(work / kWorkOfThread, 1e6)) + 1;
        const int64_t count = std::clamp<int64_t>(num_threads, 1, useful);
        share_directions_ = directions_ == 2 && batch < count && count > 1;
        row_workers_ = share_directions_ ? std::max<int64_t>(std::min(count / 2, batch), 1)
                                         : std::max<int64_t>(std::min(count, batch), 1);
        slots_ = (batch + row_workers_ - 1) / row_workers_;
        team_ = int(count);
        if (directions_ == 1 && can_share_units(spec)) {
            const double weights =
                double(spec.output_size()) * spec.hidden_size * spec.cell.gates();
            // Rows that share the weights of a step would each bring all of them from far away.
            if (weights * number_bytes > kStepWeightsBytes &&
                batch < kSharedUnitsRowsOfThread * count) {
                row_workers_ = 1;
                slots_ = batch;
            }
            if (weights * slots_ >= kWorkOfBarrier) parts_ = int(count / row_workers_);
        }
    }

    int count() const { return int(share_directions_ ? 2 * row_workers_ : parts_ * row_workers_); }
    /// Into how many parts the units of a step are shared; if more than one, all members of the
    /// team wait for each other after every step.
    int parts() const { return parts_; }
    int part(int worker) const { return int(worker / row_workers_) % parts_; }
    /// Threads worth waking, which may be more than the rows can use.
    int team() const { return team_; }
    bool share_directions() const { return share_directions_; }
    /// Slots of a worker at most.
    int64_t slots() const { return slots_; }

    Range directions(int worker) const {
        if (!share_directions_) return {0, directions_, 1};
        return {worker % 2, worker % 2 + 1, 1};
    }
    /// The worker's slots below `alive`, in the directions that it computes. Slots are dealt like
    /// cards, so that long and short sequences are shared evenly.
    Range slots_of(int worker, int64_t alive) const {
        return {share_directions_ ? worker / 2 : worker % row_workers_, alive, row_workers_};
    }
    /// The worker's slots where all directions of a row are needed.
    Range all_slots_of(int worker, int64_t alive) const { return {worker, alive, count()}; }

    /// Calls f(worker) for the workers that this member of the team stands for.
    template <class F>
    void each(const Team& team, F f) const {
        for (int worker = team.rank; worker < count(); worker += team.size) f(worker);
    }

private:
    /// Whether the kernel of the cell computes any part of a step by itself.
    static bool can_share_units(const LayerSpec& spec) {
        return spec.proj_size == 0 && (spec.cell.kind == CellKind::lstm ||
                                       (spec.cell.kind == CellKind::gru && spec.cell.reset_after));
    }

    int64_t directions_, row_workers_, slots_;
    int team_, parts_ = 1;
    bool share_directions_;
};

}  // namespace lstmcore
