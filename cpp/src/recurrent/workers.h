// How the work of a call is shared: by rows of the batch; where rows are too few, by directions or
// by hidden units.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "lstmcore/layer.h"
#include "machine/caches.h"
#include "machine/threads.h"
#include "recurrent/step_rows.h"

namespace lstmcore {

/// first, first + step, ... as long as it is below last, for range-based loops.
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

/// A worker is a share of the work, a member of the team is a thread. The number of workers is
/// fixed before OpenMP says how many threads there are; in a smaller team a member does several
/// shares, one after the other. What a worker computes are slots, the rows of the batch in the
/// order of Schedule.
class Workers {
public:
    template <class T>
    Workers(const LayerSpec& spec, const Sequences<T>& in, int num_threads)
        : directions_(spec.directions()) {
        constexpr double number_bytes = sizeof(T);
        const int64_t batch = in.batch;
        const double work = spec.multiply_adds() * double(in.steps) * double(batch);
        const int64_t useful = int64_t(std::min(work / kWorkOfThread, 1e6)) + 1;
        const int64_t count = std::clamp<int64_t>(num_threads, 1, useful);
        share_directions_ = directions_ == 2 && batch < count && count > 1;
        row_workers_ = share_directions_ ? std::max<int64_t>(std::min(count / 2, batch), 1)
                                         : std::max<int64_t>(std::min(count, batch), 1);
        slots_ = (batch + row_workers_ - 1) / row_workers_;
        team_ = int(count);
        if (directions_ == 1 && can_share_units(spec, in)) {
            const double weights =
                double(spec.output_size()) * spec.hidden_size * spec.cell.gates();
            // Threads that shared the rows would each read all these weights, see caches.h.
            if (weights * number_bytes > kStepWeightsBytes &&
                batch < kSharedUnitsRowsOfThread * count) {
                row_workers_ = 1;
                slots_ = batch;
            }
            if (weights * slots_ >= kWorkOfBarrier) parts_ = int(count / row_workers_);
        }
    }

    int count() const { return int(share_directions_ ? 2 * row_workers_ : parts_ * row_workers_); }
    /// Into how many parts the units of a step are split. If more than one, all members of the team
    /// wait for each other after every step.
    int parts() const { return parts_; }
    int part(int worker) const { return int(worker / row_workers_) % parts_; }
    /// How many threads the work is worth, which may be more than there are workers.
    int team() const { return team_; }
    bool share_directions() const { return share_directions_; }
    /// The most slots that a worker has.
    int64_t slots() const { return slots_; }

    Range directions(int worker) const {
        if (!share_directions_) return {0, directions_, 1};
        return {worker % 2, worker % 2 + 1, 1};
    }
    /// The worker's slots below `alive`, in the directions that it computes. Workers get the slots
    /// in turn, so that each has long and short sequences.
    Range slots_of(int worker, int64_t alive) const {
        return {share_directions_ ? worker / 2 : worker % row_workers_, alive, row_workers_};
    }
    /// The worker's slots for work on all directions of a row at once.
    Range all_slots_of(int worker, int64_t alive) const { return {worker, alive, count()}; }

    /// Calls f(worker) for the workers that this member of the team stands for.
    template <class F>
    void each(const Team& team, F f) const {
        for (int worker = team.rank; worker < count(); worker += team.size) f(worker);
    }

private:
    /// Whether the kernel of the cell can compute some of the units of a step without the others.
    template <class T>
    static bool can_share_units(const LayerSpec& spec, const Sequences<T>& in) {
        return spec.proj_size == 0 && !changes_rows(spec.cell, in.recurrent_dropout > 0) &&
               (spec.cell.kind == CellKind::lstm ||
                (spec.cell.kind == CellKind::gru && spec.cell.reset_after));
    }

    int64_t directions_, row_workers_, slots_;
    int team_, parts_ = 1;
    bool share_directions_;
};

/// How many threads a call gets: one where Workers would use no more, else what was learned of such
/// calls. `pass` tells forward, with and without a tape, and backward from each other; rows with
/// changes, which workers cannot share by units, are another kind than those without.
template <class T>
CallThreads threads_of(const LayerSpec& spec, const Sequences<T>& in, char pass, int most) {
    if (most > 1) most = Workers(spec, in, most).team();
    if (most <= 1) return CallThreads(1);
    const CellSpec& cell = spec.cell;
    double steps = 1;  // of all rows
    for (int64_t b = 0; b < in.batch; ++b)
        steps += double(in.lengths ? std::max<int64_t>(in.lengths[b], 0) : in.steps);
    const CallKind kind({pass, sizeof(T), int64_t(cell.kind), cell.gates(), cell.reset_after,
                         cell.layer_norm, changes_rows(cell, in.recurrent_dropout > 0),
                         spec.input_size, spec.hidden_size, spec.proj_size, spec.num_layers,
                         spec.directions(), in.batch, in.table_rows, std::ilogb(steps)},
                        steps);
    return CallThreads(kind, most);
}

}  // namespace lstmcore
