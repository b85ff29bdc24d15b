// Forward through time: the input product of a chunk of steps, then its steps one by one.
//
// Workers share the rows of the batch, or, where there are fewer rows than workers, the two
// directions or the units. A row is computed from its first layer to its last by one worker, so
// only workers that share directions or units wait for each other.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "lstmcore/layer.h"
#include "machine/caches.h"
#include "machine/float_mode.h"
#include "machine/threads.h"
#include "memory/arena.h"
#include "memory/strided_rows.h"
#include "recurrent/dropout.h"
#include "recurrent/masks.h"
#include "recurrent/merge.h"
#include "recurrent/pass.h"
#include "recurrent/schedule.h"
#include "recurrent/step_rows.h"
#include "recurrent/tape.h"
#include "recurrent/weights.h"
#include "recurrent/workers.h"
#include "recurrent/zoneout.h"

namespace lstmcore {
namespace {

/// Whether the steps of a layer make their input product themselves, instead of reading one that
/// was made for many steps at once. That saves writing and reading it, but the panels of W_ih and
/// W_hh then compete for the caches; caches.h tells which sizes were found to be worth it.
template <class T>
bool fuses_input(const PackedDirection<T>& w, int lanes, int64_t rows, int64_t steps) {
    if (!w.can_fuse_input()) return false;
    const int64_t number = sizeof(T), K = w.w_ih.K + w.w_hh.K, bytes = K * w.w_hh.N * number;
    if (steps == 1) return rows < kFusedRows || bytes <= kFusedStepBytes;
    const int64_t width = w.w_hh.vectors * lanes * number;  // of a panel
    if (K * width <= kFusedPanelBytes) return rows >= kFusedRows;
    return w.w_hh.K * width >= kFusedL1Bytes && bytes <= kFusedL2Bytes && rows >= kFusedFarRows;
}

/// Whether a thread's next call begins with the last panel. Calls of one step alternate as the
/// steps of a longer one do.
thread_local bool last_panel_first = false;

/// Where a layer's h or output is kept: by time, or, where only the latest steps matter, by step in
/// a ring.
template <class T>
struct SequenceView {
    View<T> view;
    int64_t ring = 0;

    T* at(int64_t t, int64_t step, int64_t b) const { return view.at(ring ? step % ring : t, b); }
};

/// What one worker computes in.
template <class T>
struct ForwardScratch {
    T* pre;                   ///< input product of a chunk; rows are in order of step and slot
    StridedRows<T> x;         ///< what it is made of, where that has a mask
    ProductRow<T>* products;  ///< (chunk rows)
    ForwardRows<T> rows;      ///< (slots) of a step
    const T* next_pre;        ///< the row of `pre` that is to be used next
    StepArgs<T> args;         ///< what the kernel is told of every step of a chunk
};

template <class T>
class Forward : Pass<T> {
    using Pass<T>::spec_, Pass<T>::in_, Pass<T>::workers_, Pass<T>::D_, Pass<T>::H_, Pass<T>::P_;
    using Pass<T>::weights_, Pass<T>::schedule_, Pass<T>::zeros_, Pass<T>::stop_;
    using Pass<T>::state, Pass<T>::stops, Pass<T>::looks_up;

public:
    Forward(const LayerSpec& spec, const Sequences<T>& in, bool train, int num_threads,
            Arena& tape_arena, Arena& arena)
        : Pass<T>(spec, in, num_threads),
          train_(train),
          masks_(spec, in, train, arena),
          zones_(spec.cell, in.dropout_key),
          changes_(changes_rows(spec.cell, masks_.of_hidden())),
          width_(spec.cell.gates() * round_up(H_, kAlignment / int64_t(sizeof(T)))) {
        const int64_t slots = workers_.slots(), row_bytes = width_ * int64_t(sizeof(T));
        int64_t rows = std::min(kInputChunkBytes / row_bytes, kInputChunkMostRows);
        if (size_product(widest_input(spec), row_bytes) > kInputWeightsL2Bytes)
            rows = std::max(rows, kInputChunkFarRows);
        chunk_ = rows / std::max<int64_t>(slots, 1);
        chunk_ = std::max<int64_t>(std::min(chunk_, in.steps), 1);
        if (train) {
            layers_ = lay_out_tape(spec, in, tape_arena);
        } else {
            layers_.resize(spec.num_layers);
            take_layers(arena);
        }
        zeros_ = arena.take<T>(round_up(std::max(H_, P_), kAlignment));
        if (in.lookup) {
            projected_ = arena.take<T>(size_product(D_, in.table_rows, width_));
            projections_ = arena.take<ProductRow<T>>(in.table_rows);
        }
        for (int w = 0; w < workers_.count(); ++w) {
            T* const pre = arena.take<T>(size_product(chunk_, slots, width_));
            auto* const products = arena.take<ProductRow<T>>(chunk_ * slots);
            StridedRows<T> x;
            if (masks_.of_input()) x = take_rows<T>(arena, chunk_ * slots, widest_input(spec));
            const ForwardRows<T> step(spec, H_, slots, arena, masks_.of_hidden());
            scratch_.push_back({pre, x, products, step, nullptr, {}});
        }
    }

    void run(const Weights<T>& weights, const View<T>& y, T* h_n, T* c_n) {
        weights_ = &weights;
        y_ = y;
        h_n_ = h_n;
        c_n_ = c_n;
        const Schedule schedule(in_);
        schedule_ = &schedule;
        last_panel_first_ = last_panel_first;
        last_panel_first ^= in_.steps % 2 == 1;
        std::memset(zeros_, 0, sizeof(T) * round_up(std::max(H_, P_), kAlignment));
        rooms_ =
            RoundingRooms(weights.precision(), workers_.count(), std::max(widest_input(spec_), H_),
                          size_product(chunk_, workers_.slots()), 2, weights.widens());
        run_team(workers_.count(), [&](Team& team) noexcept {
            const FlushDenormals mode;
            masks_.fill(team);
            if (in_.lookup) project_table(team);
            // With one direction a chunk goes through all layers before the next chunk. With two,
            // a layer needs every step of the layer below, so all steps are one segment.
            const int64_t segment = D_ == 1 ? chunk_ : std::max<int64_t>(in_.steps, 1);
            int64_t first = 0;
            do {
                const int64_t last = std::min(first + segment, schedule.steps());
                for (int64_t layer = 0; layer < spec_.num_layers; ++layer) {
                    run_layer(team, layer, first, last);
                    if (!has_join(spec_, layer, dropout())) continue;
                    workers_.each(team, [&](int w) { join(w, layer, first, last); });
                    if (must_wait()) team.barrier();
                }
                first = last;
            } while (first < schedule.steps());
            workers_.each(team, [&](int w) { clear_padding(w); });
        });
        if (stop_.stopped()) throw Stopped();
    }

private:
    double dropout() const { return train_ ? in_.dropout : 0; }

    /// In inference what the layers below the last compute is kept in the workspace.
    void take_layers(Arena& arena) {
        const int64_t F = spec_.feature_size();
        const bool joined = spec_.merge != Merge::concat;
        if (D_ == 1) {
            // One more than a chunk: its first step reads the state of the step before.
            ring_ = chunk_ + 1;
            for (int64_t l = 0; l + 1 < spec_.num_layers; ++l)
                layers_[l].hidden = take_view<T>(arena, ring_, in_.batch, P_);
            return;
        }
        View<T> hidden[2], output[2];
        for (int parity = 0; parity < 2; ++parity) {
            if (joined ? parity == 0 : parity < spec_.num_layers - 1)
                hidden[parity] = take_view<T>(arena, in_.steps, in_.batch, 2 * P_);
            if (joined && parity < spec_.num_layers - 1)
                output[parity] = take_view<T>(arena, in_.steps, in_.batch, F);
        }
        for (int64_t l = 0; l < spec_.num_layers; ++l) {
            const bool last = l + 1 == spec_.num_layers;
            if (joined) layers_[l].hidden = hidden[0];
            if (!joined && !last) layers_[l].hidden = hidden[l % 2];
            if (joined && !last) layers_[l].output = output[l % 2];
        }
    }

    SequenceView<T> hidden_of(int64_t layer) const {
        if (!layers_[layer].hidden) return {y_};
        return {layers_[layer].hidden, ring_};
    }
    SequenceView<T> output_of(int64_t layer) const {
        if (layer + 1 == spec_.num_layers) return {y_};
        return layers_[layer].output ? SequenceView<T>{layers_[layer].output} : hidden_of(layer);
    }
    SequenceView<const T> input_of(int64_t layer) const {
        if (layer == 0) return {in_.x};
        const SequenceView<T> below = output_of(layer - 1);
        return {{below.view.data, below.view.step, below.view.row}, below.ring};
    }

    /// Whether several workers compute one row, so that they have to wait for each other.
    bool must_wait() const { return workers_.share_directions() || workers_.parts() > 1; }

    /// Steps [first, last) of one layer.
    void run_layer(Team& team, int64_t layer, int64_t first, int64_t last) {
        if (workers_.parts() > 1) return run_parts(team, layer, first, last);
        workers_.each(team, [&](int w) {
            for (int d : workers_.directions(w)) run_direction(team, w, layer, d, first, last);
        });
        if (workers_.share_directions()) team.barrier();
    }

    /// The same for one direction and the worker's slots.
    void run_direction(const Team& team, int worker, int64_t layer, int d, int64_t first,
                       int64_t last) {
        if (first == 0) start_states(worker, layer, d);
        for (int64_t step = first; step < last; step += chunk_) {
            const int64_t end = std::min(step + chunk_, last);
            start_chunk(worker, layer, d, step, end);
            for (int64_t s = step; s < end; ++s) {
                if (stops(team)) return;
                run_step(worker, layer, d, s);
                end_states(worker, layer, d, s);
            }
        }
    }

    /// The same where workers share the units of every step; the worker with the first part also
    /// writes the final states.
    void run_parts(Team& team, int64_t layer, int64_t first, int64_t last) {
        const auto first_parts = [&](auto f) {
            workers_.each(team, [&](int w) {
                if (workers_.part(w) == 0) f(w);
            });
        };
        if (first == 0) first_parts([&](int w) { start_states(w, layer, 0); });
        for (int64_t step = first; step < last; step += chunk_) {
            const int64_t end = std::min(step + chunk_, last);
            if (!stop_.stopped())
                workers_.each(team, [&](int w) { start_chunk(w, layer, 0, step, end); });
            for (int64_t s = step; s < end; ++s) {
                const bool stopped = stops(team);
                if (!stopped) workers_.each(team, [&](int w) { run_step(w, layer, 0, s); });
                team.barrier();
                if (!stopped) first_parts([&](int w) { end_states(w, layer, 0, s); });
            }
        }
    }

    /// The full panels of gates that the worker computes; the last worker also has the narrower
    /// one.
    Range panels_of(int worker, const Packed<T>& w) const {
        const int64_t panels = w.N / (w.vectors * weights_->kernels().lanes);
        const int64_t part = workers_.part(worker), parts = workers_.parts();
        return {panels * part / parts, panels * (part + 1) / parts, 1};
    }

    /// The final states of rows of length 0, which are the initial ones.
    void start_states(int worker, int64_t layer, int d) {
        const auto copy = [&](T* to, const T* from, int64_t n, int64_t b) {
            copy_or_clear(state(to, layer, d, b, n), from ? state(from, layer, d, b, n) : nullptr,
                          n);
        };
        for (int64_t slot : workers_.slots_of(worker, in_.batch)) {
            if (schedule_->length(slot) > 0) continue;
            const int64_t b = schedule_->row(slot);
            copy(h_n_, in_.h0, P_, b);
            if (c_n_) copy(c_n_, in_.c0, H_, b);
        }
    }

    /// Makes the input product of every row of the table; steps look it up.
    void project_table(Team& team) {
        const int64_t first = in_.table_rows * team.rank / team.size;
        const int64_t last = in_.table_rows * (team.rank + 1) / team.size;
        for (int d = 0; d < D_; ++d) {
            const PackedDirection<T>& w = weights_->direction(0, d);
            for (int64_t i = first; i < last; ++i)
                projections_[i] = {in_.table + i * spec_.input_size, w.bias,
                                   projected_ + (d * in_.table_rows + i) * w.w_ih.N};
            weights_->kernels().product(w.w_ih, w.w_ih.N, projections_ + first, last - first);
        }
        team.barrier();
    }
    bool fuses(int64_t layer) const {
        return !looks_up(layer) && workers_.parts() == 1 && !masks_.of_input() &&
               fuses_input(weights_->direction(layer, 0), weights_->kernels().lanes,
                           workers_.slots(), in_.steps);
    }

    /// What the steps [first, last) have in common: their StepArgs, and their input product unless
    /// they make or look up their own.
    void start_chunk(int worker, int64_t layer, int d, int64_t first, int64_t last) {
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const bool fused = fuses(layer);
        scratch_[worker].args = step_args(worker, w, fused);
        if (looks_up(layer) || fused) return;
        const bool backwards = spec_.reads_backwards(d);
        const SequenceView<const T> x = input_of(layer);
        ForwardScratch<T>& scratch = scratch_[worker];
        scratch.next_pre = scratch.pre;
        Packed<T> part = rooms_.in_room(w.w_ih, worker);
        int64_t column = 0;
        if (workers_.parts() > 1) {
            const Range panels = panels_of(worker, w.w_ih);
            const int64_t width = part.vectors * weights_->kernels().lanes;
            column = panels.first * width;
            const bool last_part = workers_.part(worker) + 1 == workers_.parts();
            part = part.columns(column, (last_part ? part.N : panels.last * width) - column);
        }
        int64_t n = 0;
        for (int64_t step = first; step < last; ++step)
            for (int64_t slot : workers_.slots_of(worker, schedule_->alive(step))) {
                const int64_t t = schedule_->time(slot, step, backwards);
                const int64_t b = schedule_->row(slot);
                const T* from = x.at(t, step, b);
                if (const T* mask = masks_.input(layer, d, b)) {
                    mask_row(mask, from, w.w_ih.K, scratch.x.at(n));
                    from = scratch.x.at(n);
                }
                scratch.products[n] = {from, w.start + column, scratch.pre + n * w.w_ih.N + column};
                ++n;
            }
        weights_->kernels().product(part, part.N, scratch.products, n);
        if (spec_.cell.layer_norm) normalize_input(worker, layer, d, first, last);
    }

    /// Normalises the input products of a chunk, and adds the biases.
    void normalize_input(int worker, int64_t layer, int d, int64_t first, int64_t last) {
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const View<T>& tape = layers_[layer].norms[d];
        T* pre = scratch_[worker].pre;
        T scale;  // where no tape wants to know it
        constexpr int64_t kMost = 16;
        NormalizedRow<T> rows[kMost];
        int64_t n = 0;
        const auto normalize = [&] {
            weights_->kernels().normalize(n, this->G_ * H_, rows, w.ln_ih, w.bias, T(kNormEps));
            n = 0;
        };
        for (int64_t step = first; step < last; ++step)
            for (int64_t slot : workers_.slots_of(worker, schedule_->alive(step))) {
                const auto now = this->moment(slot, step, spec_.reads_backwards(d));
                T* const kept = tape ? tape.at(now.t, now.b) : nullptr;
                rows[n++] = {pre, pre, kept, kept ? NormPlaces<T>(spec_, kept).scales : &scale};
                if (n == kMost) normalize();
                pre += w.w_ih.N;
            }
        normalize();
    }

    /// One step of the worker's slots.
    void run_step(int worker, int64_t layer, int d, int64_t step) {
        with_constants(spec_.cell.kind, changes_, [&](auto kind, auto changes) {
            run_step_of<kind(), changes()>(worker, layer, d, step);
        });
    }
    template <CellKind kKind, bool kChanges>
    void run_step_of(int worker, int64_t layer, int d, int64_t step) {
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const bool backwards = spec_.reads_backwards(d);
        const SequenceView<T> hidden = hidden_of(layer);
        const SequenceView<const T> input = input_of(layer);
        ForwardScratch<T>& scratch = scratch_[worker];
        const bool look_up = looks_up(layer), fused = bool(scratch.args.w_in);
        scratch.args.last_first = (step % 2 == 1) != last_panel_first_;
        int64_t n = 0;
        for (int64_t slot : workers_.slots_of(worker, schedule_->alive(step))) {
            const auto now = this->moment(slot, step, backwards);
            ForwardPlace<T> at{w.bias, nullptr, zeros_, nullptr, zeros_, nullptr, nullptr};
            if (look_up) {
                at.pre =
                    projected_ + (d * in_.table_rows + *in_.lookup.at(now.t, now.b)) * w.w_ih.N;
            } else if (fused) {
                at.x = input.at(now.t, step, now.b);
            } else {
                at.pre = scratch.next_pre;
                scratch.next_pre += w.w_ih.N;
            }
            at.y = hidden.at(now.t, step, now.b) + d * P_;
            if (!now.cut && step > 0) at.h_prev = hidden.at(now.t_prev, step - 1, now.b) + d * P_;
            if (!now.cut && step == 0 && in_.h0) at.h_prev = state(in_.h0, layer, d, now.b, P_);
            set_cell<kKind>(at, layer, d, step, now);
            if constexpr (kChanges)
                scratch.rows.template set_changed<kKind>(n++, at, change_of(layer, d, now),
                                                         spec_.cell.layer_norm ? w.start : zeros_);
            else
                scratch.rows.template set<kKind>(n++, at, zeros_);
        }
        if constexpr (kChanges)
            scratch.rows.run_changed(weights_->kernels(), scratch.args, w.w_hr, P_, train_, n);
        else
            scratch.rows.run(weights_->kernels(), scratch.args, w.w_hr, P_, train_, n);
    }

    /// Where the gates and the cell state of a row are.
    template <CellKind kKind>
    void set_cell(ForwardPlace<T>& at, int64_t layer, int d, int64_t step,
                  const typename Pass<T>::Moment& now) const {
        const LayerTape<T>& tape = layers_[layer];
        if (train_ && (kKind != CellKind::rnn || tape.gates[d]))
            at.gates = tape.gates[d].at(now.t, now.b);
        if (kKind != CellKind::lstm) return;
        at.c = train_ ? tape.cells[d].at(now.t, now.b) : state(c_n_, layer, d, now.b, H_);
        if (!now.cut && step > 0) at.c_prev = train_ ? tape.cells[d].at(now.t_prev, now.b) : at.c;
        if (!now.cut && step == 0 && in_.c0) at.c_prev = state(in_.c0, layer, d, now.b, H_);
    }

    /// What a row has beside its place.
    ForwardChange<T> change_of(int64_t layer, int d, const typename Pass<T>::Moment& now) const {
        ForwardChange<T> change;
        change.mask = masks_.hidden(layer, d, now.b);
        if (const View<T>& norms = layers_[layer].norms[d]) change.norms = norms.at(now.t, now.b);
        if (!train_ || !spec_.cell.zoneout) return change;
        change.takes = layers_[layer].zones[d].at(now.t, now.b);
        const ZonePlaces takes(spec_, change.takes);
        zones_.draw(layer * D_ + d, in_.first_step + now.t, now.b, takes.h, P_, takes.c, H_);
        const View<T>& made = layers_[layer].made_cells[d];
        if (made) change.made_c = made.at(now.t, now.b);
        return change;
    }

    /// What the kernel is told about all rows of every step.
    StepArgs<T> step_args(int worker, const PackedDirection<T>& w, bool fused) const {
        StepArgs<T> args = lstmcore::step_args(spec_.cell, H_, w);
        args.w = rooms_.in_room(args.w, worker);
        if (fused) args.w_in = rooms_.in_room(w.w_ih, worker, 1);
        if (workers_.parts() > 1) {
            const Range panels = panels_of(worker, w.w_hh);
            args.first_panel = panels.first;
            args.last_panel = panels.last;
        }
        return args;
    }

    /// Writes the final states of the slots whose last step this was.
    void end_states(int worker, int64_t layer, int d, int64_t step) {
        if (schedule_->alive(step + 1) == schedule_->alive(step)) return;
        const bool backwards = spec_.reads_backwards(d);
        for (int64_t slot : workers_.slots_of(worker, schedule_->alive(step))) {
            if (slot < schedule_->alive(step + 1)) continue;
            const int64_t b = schedule_->row(slot), t = schedule_->time(slot, step, backwards);
            std::memcpy(state(h_n_, layer, d, b, P_), hidden_of(layer).at(t, step, b) + d * P_,
                        sizeof(T) * P_);
            if (train_ && c_n_)
                std::memcpy(state(c_n_, layer, d, b, H_), layers_[layer].cells[d].at(t, b),
                            sizeof(T) * H_);
        }
    }

    /// The layer's output from its directions: merge, then dropout.
    void join(int worker, int64_t layer, int64_t first, int64_t last) {
        const int64_t F = spec_.feature_size();
        const bool drop = dropout() > 0 && layer + 1 < spec_.num_layers;
        const Dropout mask(in_.dropout_key, in_.dropout);
        const T scale = T(1 / (1 - in_.dropout));
        const SequenceView<T> hidden = hidden_of(layer), output = output_of(layer);
        for (int64_t slot : workers_.all_slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            for (int64_t step = first; step < std::min(last, schedule_->length(slot)); ++step) {
                const int64_t t = schedule_->time(slot, step, spec_.reads_backwards(0));
                T* const out = output.at(t, step, b);
                merge_row(spec_, hidden.at(t, step, b), out);
                if (drop)
                    drop_row(mask,
                             mask.stream(DropoutUse::between_layers, layer, in_.first_step + t, b),
                             scale, F, out);
            }
        }
    }

    void clear_padding(int worker) {
        for (int64_t slot : workers_.all_slots_of(worker, in_.batch))
            for (int64_t t = schedule_->length(slot); t < in_.steps; ++t)
                std::memset(y_.at(t, schedule_->row(slot)), 0, sizeof(T) * spec_.feature_size());
    }

    const bool train_;
    const SequenceMasks<T> masks_;
    const Zones zones_;
    const bool changes_;   // whether rows have a ForwardChange
    const int64_t width_;  // of a row of the input product, at most
    int64_t chunk_, ring_ = 0;
    std::vector<LayerTape<T>> layers_;
    std::vector<ForwardScratch<T>> scratch_;
    RoundingRooms rooms_;
    T* projected_ = nullptr;  ///< (D, table_rows, N of W_ih)
    ProductRow<T>* projections_ = nullptr;
    bool last_panel_first_ = false;  ///< in the first step
    View<T> y_;
    T *h_n_ = nullptr, *c_n_ = nullptr;
};

}  // namespace

template <class T>
int64_t tape_size(const LayerSpec& spec, const Sequences<T>& in) {
    check_call(spec, in, in.c0);
    Arena arena(nullptr);
    lay_out_tape(spec, in, arena);
    // At least one cache line: a null tape asks for inference, so an empty call needs one, too.
    return std::max(arena.used(), kAlignment) / int64_t(sizeof(T));
}

template <class T>
int64_t forward_workspace_bytes(const LayerSpec& spec, const Sequences<T>& in, bool train,
                                int num_threads) {
    check_call(spec, in, in.c0);
    Arena tape(nullptr), arena(nullptr);
    const Forward<T> laid_out(spec, in, train, num_threads, tape, arena);
    return arena.used();
}

template <class T>
CallThreads forward_threads(const LayerSpec& spec, const Sequences<T>& in, bool train, int most) {
    check_call(spec, in, in.c0);
    return threads_of(spec, in, train ? 't' : 'f', most);
}

template <class T>
void forward(const Weights<T>& weights, const Sequences<T>& in, View<T> y, T* h_n, T* c_n, T* tape,
             void* workspace, int num_threads) {
    check_call(weights.spec(), in, in.c0 || c_n);
    check_input(in);
    const auto require = [](bool ok, const char* message) {
        if (!ok) throw std::invalid_argument(message);
    };
    const bool lstm = weights.spec().cell.kind == CellKind::lstm;
    require(in.batch == 0 || h_n != nullptr, "h_n is null, expected (L*D, B, P)");
    require(in.batch == 0 || !lstm || tape != nullptr || c_n != nullptr,
            "c_n is null, expected (L*D, B, H): an LSTM without a tape computes in it");
    require(in.batch == 0 || in.steps == 0 || y.data != nullptr,
            "y is null, expected (T, B, feature_size)");
    require(tape == nullptr || !weights.is_quantized(),
            "tape is given, but weights in int8 are for inference: expected null");
    Arena tape_arena(tape), arena(workspace);
    Forward<T>(weights.spec(), in, tape != nullptr, num_threads, tape_arena, arena)
        .run(weights, y, h_n, c_n);
}

static void check_part(const LayerSpec& spec, int64_t layer, int direction) {
    if (layer < 0 || layer >= spec.num_layers || direction < 0 || direction >= spec.directions())
        throw std::invalid_argument("layer " + std::to_string(layer) + ", direction " +
                                    std::to_string(direction) + ": the spec has no such part");
}

template <class T>
View<const T> tape_gates(const LayerSpec& spec, const Sequences<T>& in, const T* tape,
                         int64_t layer, int direction) {
    check_part(spec, layer, direction);
    if (spec.cell.kind == CellKind::rnn) return {};  // which has something else there, or nothing
    return read_tape(spec, in, tape)[layer].gates[direction];
}

template <class T>
View<const T> tape_cells(const LayerSpec& spec, const Sequences<T>& in, const T* tape,
                         int64_t layer, int direction) {
    check_part(spec, layer, direction);
    return read_tape(spec, in, tape)[layer].cells[direction];
}

void dropout_mask(uint64_t key, DropoutUse use, int64_t part, int64_t steps, int64_t batch,
                  int64_t features, double probability, bool* kept) {
    if (steps < 0 || batch < 0 || features < 0 || !(probability >= 0 && probability < 1))
        throw std::invalid_argument("dropout_mask: a negative size, or not 0 <= probability < 1");
    const Dropout mask(key, probability);
    for (int64_t t = 0; t < steps; ++t)
        for (int64_t b = 0; b < batch; ++b) {
            const uint64_t stream = mask.stream(use, part, t, b);
            for (int64_t f = 0; f < features; ++f) *kept++ = mask.kept(stream, f);
        }
}

#define LSTMCORE_INSTANTIATE(T)                                                                 \
    template int64_t tape_size(const LayerSpec&, const Sequences<T>&);                          \
    template int64_t forward_workspace_bytes(const LayerSpec&, const Sequences<T>&, bool, int); \
    template CallThreads forward_threads(const LayerSpec&, const Sequences<T>&, bool, int);     \
    template void forward(const Weights<T>&, const Sequences<T>&, View<T>, T*, T*, T*, void*,   \
                          int);                                                                 \
    template View<const T> tape_gates(const LayerSpec&, const Sequences<T>&, const T*, int64_t, \
                                      int);                                                     \
    template View<const T> tape_cells(const LayerSpec&, const Sequences<T>&, const T*, int64_t, \
                                      int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
