// What forward and backward have in common: the checks of a call, sizes, workers, the schedule, and
// where the states of a row are.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

#include "lstmcore/layer.h"
#include "recurrent/schedule.h"
#include "recurrent/weights.h"
#include "recurrent/workers.h"

namespace lstmcore {

/// Refuses a call with sizes that cannot be; lengths are checked by Schedule. `c` is whether the
/// call has a cell state, which only an LSTM has.
template <class T>
void check_call(const LayerSpec& spec, const Sequences<T>& in, bool c) {
    const auto require = [](bool ok, const char* message) {
        if (!ok) throw std::invalid_argument(message);
    };
    require(in.steps >= 0 && in.batch >= 0, "steps and batch: expected >= 0");
    require(in.table_rows >= 0, "table_rows: expected >= 0");
    require(in.first_step >= 0, "first_step: expected >= 0");
    require(in.whole_steps < 0 || in.first_step <= in.whole_steps - in.steps,
            "first_step, steps: not within whole_steps");
    require(in.dropout >= 0 && in.dropout < 1, "dropout: expected 0 <= dropout < 1");
    require(in.input_dropout >= 0 && in.input_dropout < 1,
            "input_dropout: expected 0 <= input_dropout < 1");
    require(in.recurrent_dropout >= 0 && in.recurrent_dropout < 1,
            "recurrent_dropout: expected 0 <= recurrent_dropout < 1");
    require(in.input_dropout == 0 || !in.lookup,
            "input_dropout: one row of a table has many masks, expected x and no lookup");
    require(!spec.cell.layer_norm || !in.lookup,
            "layer_norm: what it normalises is kept for each step, expected x and no lookup");
    require(!c || spec.cell.kind == CellKind::lstm,
            "c0, c_n, dc_n and dc0: only the LSTM has a cell, expected null");
}

/// Refuses a call without its input, which a question about sizes need not have.
template <class T>
void check_input(const Sequences<T>& in) {
    const bool empty = in.steps == 0 || in.batch == 0;
    if (!empty && !in.x && !in.lookup)
        throw std::invalid_argument("x and lookup are null, expected one of them");
    if (in.lookup && !in.table && in.table_rows > 0)
        throw std::invalid_argument("table is null, but lookup is not");
}

/// One pass through time; the base of Forward and Backward. A slot is a row's place in the order of
/// the schedule.
template <class T>
class Pass {
protected:
    Pass(const LayerSpec& spec, const Sequences<T>& in, int num_threads)
        : spec_(spec),
          cell_(spec.cell),
          in_(in),
          stop_(in.stop),
          workers_(spec, in, num_threads),
          D_(spec.directions()),
          G_(spec.cell.gates()),
          H_(spec.hidden_size),
          P_(spec.output_size()) {}

    /// The state of a row among those of all layers, directions and rows, n numbers each.
    template <class U>
    U* state(U* states, int64_t layer, int d, int64_t b, int64_t n) const {
        return states + ((layer * D_ + d) * in_.batch + b) * n;
    }

    /// The row b of a slot, the time of one of its steps, and the time of the step before.
    struct Moment {
        int64_t b, t, t_prev;
        bool cut;  ///< whether zeros replace the state that enters the step
    };
    Moment moment(int64_t slot, int64_t step, bool backwards) const {
        const int64_t b = schedule_->row(slot), t = schedule_->time(slot, step, backwards);
        return {b, t, backwards ? t + 1 : t - 1, is_cut(b, t, step, backwards)};
    }
    /// Whether `resets` have zeros replace the state that enters a step of row b. That of t says
    /// that no state crosses between t - 1 and t, whichever of the two is read first.
    bool is_cut(int64_t b, int64_t t, int64_t step, bool backwards) const {
        if (!in_.resets) return false;
        return backwards ? step > 0 && *in_.resets.at(t + 1, b) : *in_.resets.at(t, b);
    }

    /// Whether the call is to end. Members of the team ask it between two pieces of work. Once it
    /// says so, those that have heard it leave out their work, but still call every barrier,
    /// because others may not have heard it yet.
    bool stops(const Team& team) { return team.rank == 0 ? stop_.ask() : stop_.stopped(); }

    /// Whether the layer reads rows of a table (Sequences::lookup): the product of each row with
    /// W_ih is made once, and looked up by the steps.
    bool looks_up(int64_t layer) const { return layer == 0 && in_.lookup; }

    const LayerSpec& spec_;
    const CellSpec& cell_;
    const Sequences<T>& in_;
    Stop stop_;
    const Workers workers_;
    const int64_t D_, G_, H_, P_;
    const Weights<T>* weights_ = nullptr;
    const Schedule* schedule_ = nullptr;
    T* zeros_ = nullptr;
};

}  // namespace lstmcore
