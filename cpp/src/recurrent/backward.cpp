// Back-propagation through time, one chunk of steps after the other, the last first.
//
// For each chunk the workers first take their rows back through its steps, leaving the gradients
// of the gates (dgates) in one buffer in order of step and slot; then, after a barrier, they share
// the rows of the weight gradients, each summed over that buffer from its first row to its last.
// So neither the number of workers nor the size of a chunk changes the order of any sum.
#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "lstmcore/layer.h"
#include "machine/caches.h"
#include "machine/float_mode.h"
#include "machine/threads.h"
#include "memory/arena.h"
#include "memory/pack.h"
#include "memory/strided_rows.h"
#include "recurrent/dropout.h"
#include "recurrent/gradient_sums.h"
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

/// A row of a step whose gradients pass through recurrent dropout, zoneout or layer normalisation
/// between the product with W_hh and the kernel, and behind it.
template <class T>
struct ChangedRow {
    const T *mask, *extra, *dy;
    ZonePlaces takes;
    int64_t slot, row;  ///< row of the chunk
    const T* norms;     ///< on the tape
};

template <class T>
struct BackwardScratch {
    BackwardRows<T> rows;     ///< (slots) of a step
    ProductRow<T>* products;  ///< (chunk rows)
    ChangedRow<T>* changed;   ///< (slots)
    NormBackwardRow<T>* norms;
    T* masked_x;  ///< (I)
};

template <class T>
class Backward : Pass<T> {
    using Pass<T>::spec_, Pass<T>::cell_, Pass<T>::in_, Pass<T>::workers_;
    using Pass<T>::D_, Pass<T>::G_, Pass<T>::H_, Pass<T>::P_;
    using Pass<T>::weights_, Pass<T>::schedule_, Pass<T>::zeros_, Pass<T>::stop_;
    using Pass<T>::state, Pass<T>::stops, Pass<T>::looks_up;

public:
    Backward(const LayerSpec& spec, const Sequences<T>& in, int num_threads, Arena& arena)
        : Pass<T>(spec, in, num_threads),
          gru_(cell_.kind == CellKind::gru),
          chunk_(chunk_of(spec, in)),
          masks_(spec, in, true, arena),
          changes_(changes_rows(cell_, masks_.of_hidden())),
          sums_(spec, in, size_product(chunk_, in.batch), arena) {
        const int64_t B = in.batch, F = spec.feature_size();
        last_dgates_ = take_rows<T>(arena, B, sums_.gate_rows * H_);
        if (cell_.kind == CellKind::lstm) dc_ = take_rows<T>(arena, B, H_);
        if (gru_ || cell_.zoneout.h > 0) carry_ = take_rows<T>(arena, B, P_);
        if (changes_ && spec.proj_size == 0) dh_ = take_rows<T>(arena, B, P_);
        if (masks_.of_hidden()) masked_h_ = take_rows<T>(arena, B, P_);
        if (masks_.of_input())
            dx_rows_ = take_rows<T>(arena, size_product(chunk_, B), widest_input(spec));
        if (cell_.normalizes_c()) dc_norm_ = take_rows<T>(arena, B, H_);
        if (cell_.normalizes_c() && spec.proj_size > 0) dm_ = take_rows<T>(arena, B, H_);
        if (cell_.zoneout.h > 0) kept_dh_ = take_rows<T>(arena, B, P_);
        if (cell_.zoneout.c > 0) {
            kept_dc_ = take_rows<T>(arena, B, H_);
            made_dc_ = take_rows<T>(arena, B, H_);
        }
        for (int64_t l = 0; l < std::min<int64_t>(spec.num_layers - 1, 2); ++l)
            doutput_[l] = take_view<T>(arena, in.steps, B, F);
        if (spec.merge != Merge::concat) dhidden_ = take_view<T>(arena, in.steps, B, 2 * P_);
        zeros_size_ = std::max(sums_.gate_rows * H_, std::max(widest_input(spec), F));
        zeros_ = arena.take<T>(zeros_size_);
        for (int w = 0; w < workers_.count(); ++w) {
            const BackwardRows<T> rows(cell_.kind, B, arena);
            auto* const norms = arena.take<NormBackwardRow<T>>(cell_.normalizes_c() ? B : 0);
            auto* const products = arena.take<ProductRow<T>>(size_product(chunk_, B));
            auto* const changed = arena.take<ChangedRow<T>>(changes_ ? B : 0);
            T* const x = arena.take<T>(masks_.of_input() ? widest_input(spec) : 0);
            scratch_.push_back({rows, products, changed, norms, x});
        }
    }

    void run(const Weights<T>& weights, const View<const T>& y, const T* tape,
             const View<const T>& dy, const T* dh_n, const T* dc_n, const View<T>& dx, T* dh0,
             T* dc0, const std::vector<Parameters<T>>& gradients) {
        weights_ = &weights;
        y_ = y;
        dy_ = dy;
        dx_ = dx;
        dh_n_ = dh_n;
        dc_n_ = dc_n;
        dh0_ = dh0;
        dc0_ = dc0;
        tape_ = read_tape(spec_, in_, tape);
        const Schedule schedule(in_);
        schedule_ = &schedule;
        rooms_ = RoundingRooms(weights.precision(), workers_.count(), sums_.gate_rows * H_,
                               size_product(chunk_, in_.batch));
        std::memset(zeros_, 0, sizeof(T) * zeros_size_);
        run_team(workers_.team(), [&](Team& team) noexcept {
            const FlushDenormals mode;
            masks_.fill(team);
            for (int64_t layer = spec_.num_layers; layer-- > 0;) {
                if (spec_.merge != Merge::concat)
                    workers_.each(team, [&](int w) { undo_merge(w, layer); });
                for (int d = 0; d < D_; ++d)
                    run_direction(team, layer, d, gradients[layer * D_ + d]);
                workers_.each(team, [&](int w) { finish_input(w, layer); });
            }
        });
        if (stop_.stopped()) throw Stopped();
    }

private:
    /// Steps of a chunk.
    static int64_t chunk_of(const LayerSpec& spec, const Sequences<T>& in) {
        const int64_t row_bytes =
            GradientSums<T>::gates_of(spec.cell) * spec.hidden_size * int64_t(sizeof(T));
        const bool far =
            size_product(row_bytes, widest_input(spec) + spec.output_size()) > kGradientFarBytes;
        const int64_t least = far ? kGradientChunkFarRows : kGradientChunkRows;
        const int64_t rows = std::max(kGradientChunkBytes / row_bytes, least);
        return std::max<int64_t>(std::min(rows / std::max<int64_t>(in.batch, 1), in.steps), 1);
    }

    using Slots = Range;
    Slots slots_of(int worker, int64_t alive) const { return workers_.all_slots_of(worker, alive); }

    /// Gradient of the layer's output before its dropout.
    View<const T> doutput_of(int64_t layer) const {
        if (layer + 1 == spec_.num_layers) return dy_;
        const View<T>& view = doutput_[layer % 2];
        return {view.data, view.step, view.row};
    }
    View<const T> dhidden_of(int64_t layer) const {
        if (spec_.merge == Merge::concat) return doutput_of(layer);
        return {dhidden_.data, dhidden_.step, dhidden_.row};
    }
    View<T> dinput_of(int64_t layer) const { return layer == 0 ? dx_ : doutput_[(layer - 1) % 2]; }
    View<const T> hidden_of(int64_t layer) const {
        return tape_[layer].hidden ? tape_[layer].hidden : y_;
    }
    View<const T> input_of(int64_t layer) const {
        if (layer == 0) return in_.x;
        return tape_[layer - 1].output ? tape_[layer - 1].output : hidden_of(layer - 1);
    }
    /// Whether zeros replaced the state that enters `step` of a slot.
    bool is_cut(int64_t slot, int64_t step, bool backwards) const {
        return in_.resets && this->moment(slot, step, backwards).cut;
    }
    /// The gradients of the directions' h from that of the layer's output.
    void undo_merge(int worker, int64_t layer) {
        const View<const T> dout = doutput_of(layer), hidden = hidden_of(layer);
        for (int64_t slot : slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            for (int64_t t = 0; t < schedule_->length(slot); ++t) {
                const T* from = dout ? dout.at(t, b) : zeros_;
                merge_row_backward(spec_, hidden.at(t, b), from, dhidden_.at(t, b));
            }
        }
    }

    /// Goes back through all steps of one direction of a layer, chunk by chunk.
    void run_direction(Team& team, int64_t layer, int d, const Parameters<T>& gradients) {
        if (looks_up(layer)) sums_.start_table(team, d);
        for (int64_t end = schedule_->steps(); end > 0; end -= std::min(end, chunk_)) {
            const int64_t first = end - std::min(end, chunk_);
            int64_t rows = 0;
            for (int64_t step = first; step < end; ++step) rows += schedule_->alive(step);
            workers_.each(team, [&](int w) {
                int64_t row = 0;
                for (int64_t step = end; step-- > first; row += schedule_->alive(step)) {
                    if (stops(team)) return;
                    run_step(w, layer, d, step, end, row);
                }
                finish_chunk(w, first, end, rows);
                multiply_input(w, layer, d, first, end);
            });
            team.barrier();
            // Whoever left out a part above had heard of the stop, and now all have.
            if (!stop_.stopped()) sums_.sum(team, *weights_, layer, rows, gradients);
            team.barrier();
        }
        if (looks_up(layer)) sums_.finish_table(team, *weights_, d, dx_, zeros_, gradients);
        workers_.each(team, [&](int w) { finish_states(w, layer, d); });
    }

    /// One step of the worker's slots, whose rows of the chunk's buffers begin at `row`; the rows
    /// of step + 1, if that is in the chunk, are just before.
    void run_step(int worker, int64_t layer, int d, int64_t step, int64_t end, int64_t row) {
        with_constants(spec_.cell.kind, changes_, [&](auto kind, auto changes) {
            run_step_of<kind(), changes()>(worker, layer, d, step, end, row);
        });
    }
    template <CellKind kKind, bool kChanges>
    void run_step_of(int worker, int64_t layer, int d, int64_t step, int64_t end, int64_t row) {
        constexpr bool gru = kKind == CellKind::gru;
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const bool backwards = spec_.reads_backwards(d), project = spec_.proj_size > 0;
        const View<const T> dhidden = dhidden_of(layer), hidden = hidden_of(layer);
        const View<const T> input = input_of(layer), gates = tape_[layer].gates[d];
        BackwardScratch<T>& scratch = scratch_[worker];
        const int64_t next_alive = schedule_->alive(step + 1);
        const StridedRows<T> next =
            step + 1 < end ? StridedRows<T>{sums_.hidden_gradients().at(row - next_alive),
                                            sums_.hidden_gradients().stride}
                           : last_dgates_;
        const int64_t offset = gru || kChanges ? sums_.hidden_offset() : 0;
        const bool carries = gru || (kChanges && carry_.stride > 0);
        const bool has_gates = kKind != CellKind::rnn || gates;
        int64_t n = 0, running = 0;  // rows; those among them with a next step come first
        for (int64_t slot : slots_of(worker, schedule_->alive(step))) {
            const auto now = this->moment(slot, step, backwards);
            const bool is_last = slot >= next_alive;
            // Whether a gradient comes from the next step.
            const bool linked = !is_last && !is_cut(slot, step + 1, backwards);
            if (!is_last) ++running;

            BackwardPlace<T> at{};
            at.a = linked ? next.at(slot) + offset : zeros_;
            at.dy = dhidden ? dhidden.at(now.t, now.b) + d * P_ : zeros_;
            at.extra = zeros_;
            if (is_last && dh_n_) at.extra = state(dh_n_, layer, d, now.b, P_);
            if (linked && carries) at.extra = carry_.at(slot);
            at.y = hidden.at(now.t, now.b) + d * P_;
            at.h_prev = zeros_;
            if (!now.cut && step > 0) at.h_prev = hidden.at(now.t_prev, now.b) + d * P_;
            if (!now.cut && step == 0 && in_.h0) at.h_prev = state(in_.h0, layer, d, now.b, P_);
            at.kept = at.h_prev;
            if constexpr (kChanges) mask_hidden(at, layer, d, now.b, slot);
            at.dgates = sums_.dgates.at(row + slot);
            at.carry = gru ? carry_.at(slot) : nullptr;
            if (has_gates) at.gates = gates.at(now.t, now.b);
            if (kKind == CellKind::rnn && has_gates) at.y = at.gates;
            if (kKind == CellKind::lstm)
                set_cell<kChanges>(at, layer, d, step, now, slot, is_last, linked);
            if (looks_up(layer))
                sums_.looked_up[row + slot] = *in_.lookup.at(now.t, now.b);
            else
                keep_input(scratch, row + slot, layer, d, now.b, input.at(now.t, now.b));
            keep_row<kKind>(at, row + slot);
            if constexpr (kChanges) {
                change_row(scratch, n, at, layer, d, now, slot, row + slot);
            } else if (project) {
                // First dh, as a product of its own; then dm = dh · W_hr, and the gates behind it.
                T* const dh = sums_.dh.at(row + slot);
                std::memcpy(dh, at.extra, sizeof(T) * P_);
                scratch.products[n] = {at.a, dh, dh};
                at.m = sums_.m.at(row + slot);
                at.a = dh;
                at.extra = zeros_;
            }
            scratch.rows.template set<kKind>(n++, at);
        }
        if constexpr (kChanges)
            run_changed(worker, w, running, n);
        else if (project)
            run_projected(worker, w, running, n);
        else
            run_rows(worker, w, running, n);
    }

    /// Puts the row's mask, if there is one, between the state and what W_hh is multiplied with.
    void mask_hidden(BackwardPlace<T>& at, int64_t layer, int d, int64_t b, int64_t slot) const {
        at.mask = masks_.hidden(layer, d, b);
        if (at.mask == nullptr) return;
        mask_row(at.mask, at.kept, P_, masked_h_.at(slot));
        at.h_prev = masked_h_.at(slot);
    }

    /// Where the cell state of a row and its gradients are.
    template <bool kChanges>
    void set_cell(BackwardPlace<T>& at, int64_t layer, int d, int64_t step,
                  const typename Pass<T>::Moment& now, int64_t slot, bool is_last,
                  bool linked) const {
        const View<const T>& cells = tape_[layer].cells[d];
        at.c = cells.at(now.t, now.b);
        if (kChanges && cell_.zoneout.c > 0) at.c = tape_[layer].made_cells[d].at(now.t, now.b);
        at.c_prev = zeros_;
        if (!now.cut && step > 0) at.c_prev = cells.at(now.t_prev, now.b);
        if (!now.cut && step == 0 && in_.c0) at.c_prev = state(in_.c0, layer, d, now.b, H_);
        at.dc_next = zeros_;
        if (is_last && dc_n_) at.dc_next = state(dc_n_, layer, d, now.b, H_);
        if (linked) at.dc_next = dc_.at(slot);
        at.dc = dc_.at(slot);
    }

    /// Copies what a row read, with its mask, for the sum that is dW_ih.
    void keep_input(BackwardScratch<T>& scratch, int64_t row, int64_t layer, int d, int64_t b,
                    const T* x) {
        const int64_t I = spec_.layer_input_size(layer);
        if (const T* mask = masks_.input(layer, d, b)) {
            mask_row(mask, x, I, scratch.masked_x);
            x = scratch.masked_x;
        }
        copy_to_panels(sums_.x, row, x, I);
    }

    /// Copies what the weight gradients other than dW_ih are sums of.
    template <CellKind kKind>
    void keep_row(const BackwardPlace<T>& at, int64_t row) {
        copy_to_panels(sums_.h_prev, row, at.h_prev, P_);
        if (kKind == CellKind::gru && !cell_.reset_after)
            for (int64_t u = 0; u < H_; ++u) *sums_.rh.at(row, u) = at.gates[u] * at.h_prev[u];
        if (kKind == CellKind::lstm && cell_.peephole) {
            std::memcpy(sums_.c.at(row), at.c, sizeof(T) * H_);
            std::memcpy(sums_.c_prev.at(row), at.c_prev, sizeof(T) * H_);
        }
    }

    /// The gates of a step. Only its first `running` rows have a next step, whose dgates are to be
    /// multiplied by W_hh.
    void run_rows(int worker, const PackedDirection<T>& w, int64_t running, int64_t n) {
        BackwardScratch<T>& scratch = scratch_[worker];
        const Packed<T> w_hh_t = rooms_.in_room(w.w_hh_t, worker);
        StepArgs<T> args{cell_, H_, w_hh_t, w.w_n_t, nullptr, w.peephole};
        scratch.rows.run(weights_->kernels(), args, 0, running);
        args.w.K = 0;
        scratch.rows.run(weights_->kernels(), args, running, n);
    }
    /// The same of an LSTM with a projection: the product gives dh, the kernel goes on from there.
    void run_projected(int worker, const PackedDirection<T>& w, int64_t running, int64_t n) {
        BackwardScratch<T>& scratch = scratch_[worker];
        weights_->kernels().product(rooms_.in_room(w.w_hh_t, worker), P_, scratch.products,
                                    running);
        scratch.rows.move_dy(scratch.products, n, P_, zeros_);
        const StepArgs<T> args{cell_, H_, w.w_hr_t, w.w_n_t, nullptr, w.peephole};
        scratch.rows.run(weights_->kernels(), args, 0, n);
    }

    /// Prepares row n, which is row `row` of the chunk, for run_changed().
    void change_row(BackwardScratch<T>& scratch, int64_t n, BackwardPlace<T>& at, int64_t layer,
                    int d, const typename Pass<T>::Moment& now, int64_t slot, int64_t row) {
        ChangedRow<T>& changed = scratch.changed[n];
        changed = {at.mask, at.extra, at.dy, {}, slot, row, nullptr};
        if (cell_.zoneout) changed.takes = {spec_, tape_[layer].zones[d].at(now.t, now.b)};
        T* const dh = spec_.proj_size > 0 ? sums_.dh.at(row) : dh_.at(slot);
        scratch.products[n] = {at.a, zeros_, dh};
        at.a = at.extra = dh;
        at.dy = zeros_;
        if (spec_.proj_size > 0) {
            at.m = sums_.m.at(row);
            at.extra = cell_.layer_norm ? dm_.at(slot) : zeros_;
        }
        if (cell_.layer_norm) changed.norms = tape_[layer].norms[d].at(now.t, now.b);
        if (cell_.normalizes_c()) {
            const NormPlaces<const T> tape(spec_, changed.norms);
            scratch.norms[n] = {tape.c, tape.scales + 2, sums_.dshown.at(row), dc_norm_.at(slot)};
        }
        if (cell_.zoneout.c == 0) return;
        T* const dc = made_dc_.at(slot);
        std::memcpy(dc, at.dc_next, sizeof(T) * H_);
        zone_row_backward(changed.takes.c, H_, dc, kept_dc_.at(slot));
        at.dc_next = dc;
    }
    /// The gates of such rows, after the product with W_hh and all between the two.
    void run_changed(int worker, const PackedDirection<T>& w, int64_t running, int64_t n) {
        BackwardScratch<T>& scratch = scratch_[worker];
        weights_->kernels().product(rooms_.in_room(w.w_hh_t, worker), P_, scratch.products,
                                    running);
        for (int64_t i = 0; i < n; ++i) {
            const ChangedRow<T>& row = scratch.changed[i];
            T* const dh = scratch.products[i].out;
            finish_product(dh, i < running, row.mask, row.extra);
            for (int64_t p = 0; p < P_; ++p) dh[p] += row.dy[p];
            if (cell_.zoneout.h > 0) zone_row_backward(row.takes.h, P_, dh, kept_dh_.at(row.slot));
        }
        StepArgs<T> args = step_args(cell_, H_, w);
        args.w = w.w_hh_t;
        args.w_n = w.w_n_t;
        args.w.K = 0;
        args.backward_norms = scratch.norms;
        if (spec_.proj_size > 0) {
            if (cell_.layer_norm)
                project_back(scratch, w, n);
            else
                args.w = w.w_hr_t;
        }
        scratch.rows.run(weights_->kernels(), args, 0, n);
        for (int64_t i = 0; i < n; ++i) {
            const ChangedRow<T>& row = scratch.changed[i];
            keep_gradients(row.slot);
            if (cell_.layer_norm)
                sums_.normalize_backward(weights_->kernels(), w, row.row,
                                         NormPlaces<const T>(spec_, row.norms));
        }
    }
    /// dm = dh · W_hr, which the kernel makes itself where c is not normalised.
    void project_back(BackwardScratch<T>& scratch, const PackedDirection<T>& w, int64_t n) {
        for (int64_t i = 0; i < n; ++i)
            scratch.products[i] = {scratch.products[i].out, zeros_,
                                   dm_.at(scratch.changed[i].slot)};
        weights_->kernels().product(w.w_hr_t, H_, scratch.products, n);
    }
    /// The gradient of h from what a product with W_hh, started at zeros, has made of the dgates of
    /// the next step, if there is one.
    void finish_product(T* dh, bool running, const T* mask, const T* extra) const {
        if (!running) std::memset(dh, 0, sizeof(T) * P_);
        if (mask) mask_row(mask, dh, P_, dh);
        for (int64_t p = 0; p < P_; ++p) dh[p] += extra[p];
    }
    /// Adds the gradients of what zoneout kept of the state to those of the state before.
    void keep_gradients(int64_t slot) {
        if (cell_.zoneout.h > 0) {
            T* const carry = carry_.at(slot);
            const T* const kept = kept_dh_.at(slot);
            for (int64_t p = 0; p < P_; ++p) carry[p] = gru_ ? carry[p] + kept[p] : kept[p];
        }
        if (cell_.zoneout.c > 0)
            for (int64_t u = 0; u < H_; ++u) dc_.at(slot)[u] += kept_dc_.at(slot)[u];
    }

    /// Lays out the worker's rows of a chunk for the sums over rows, and keeps the dgates of the
    /// chunk's first step: that is the next step of the last one in the chunk that follows.
    void finish_chunk(int worker, int64_t first, int64_t end, int64_t rows) {
        int64_t row = 0;
        for (int64_t step = end; sums_.finishes_rows() && step-- > first;
             row += schedule_->alive(step))
            for (int64_t slot : slots_of(worker, schedule_->alive(step)))
                sums_.finish_row(row + slot);
        const int64_t alive = schedule_->alive(first);
        for (int64_t slot : slots_of(worker, alive))
            std::memcpy(last_dgates_.at(slot), sums_.hidden_gradients().at(rows - alive + slot),
                        sizeof(T) * sums_.hidden_width());
    }

    /// dx += dgates · W_ih for the worker's rows of a chunk; the first direction starts from zeros.
    void multiply_input(int worker, int64_t layer, int d, int64_t first, int64_t end) {
        const View<T> dx = dinput_of(layer);
        if (looks_up(layer) || !dx) return;
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const bool backwards = spec_.reads_backwards(d), masked = masks_.of_input();
        const int64_t I = spec_.layer_input_size(layer);
        ProductRow<T>* products = scratch_[worker].products;
        int64_t n = 0;
        const auto each = [&](auto f) {  // f(row of the chunk, b, where its dx is)
            int64_t row = 0;
            for (int64_t step = end; step-- > first; row += schedule_->alive(step))
                for (int64_t slot : slots_of(worker, schedule_->alive(step))) {
                    const int64_t b = schedule_->row(slot);
                    f(row + slot, b, dx.at(schedule_->time(slot, step, backwards), b));
                }
        };
        each([&](int64_t at, int64_t, T* out) {
            if (masked)
                products[n++] = {sums_.input_gradients().at(at), zeros_, dx_rows_.at(at)};
            else
                products[n++] = {sums_.input_gradients().at(at), d == 0 ? zeros_ : out, out};
        });
        weights_->kernels().product(rooms_.in_room(w.w_ih_t, worker), I, products, n);
        if (!masked) return;
        each([&](int64_t at, int64_t b, T* out) {
            T* const from = dx_rows_.at(at);
            mask_row(masks_.input(layer, d, b), from, I, from);
            for (int64_t i = 0; i < I; ++i) out[i] = d == 0 ? from[i] : out[i] + from[i];
        });
    }

    /// The gradients of the initial states.
    void finish_states(int worker, int64_t layer, int d) {
        const PackedDirection<T>& w = weights_->direction(layer, d);
        ProductRow<T>* products = scratch_[worker].products;
        int64_t n = 0;
        for (int64_t slot : slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            T* dh0 = state(dh0_, layer, d, b, P_);
            T* dc0 = dc0_ ? state(dc0_, layer, d, b, H_) : nullptr;
            if (schedule_->length(slot) == 0) {
                copy_or_clear(dh0, dh_n_ ? state(dh_n_, layer, d, b, P_) : nullptr, P_);
                if (dc0) copy_or_clear(dc0, dc_n_ ? state(dc_n_, layer, d, b, H_) : nullptr, H_);
            } else if (is_cut(slot, 0, spec_.reads_backwards(d))) {
                std::memset(dh0, 0, sizeof(T) * P_);
                if (dc0) std::memset(dc0, 0, sizeof(T) * H_);
            } else {
                const T* const extra = carry_.stride > 0 ? carry_.at(slot) : zeros_;
                if (changes_)
                    scratch_[worker].changed[n] = {
                        masks_.hidden(layer, d, b), extra, zeros_, {}, slot, 0, nullptr};
                products[n++] = {last_dgates_.at(slot) + sums_.hidden_offset(),
                                 changes_ ? zeros_ : extra, dh0};
                if (dc0) std::memcpy(dc0, dc_.at(slot), sizeof(T) * H_);
            }
        }
        weights_->kernels().product(w.w_hh_t, P_, products, n);
        for (int64_t i = 0; changes_ && i < n; ++i) {
            const ChangedRow<T>& row = scratch_[worker].changed[i];
            finish_product(products[i].out, true, row.mask, row.extra);
        }
    }

    /// Clears dx past the ends of rows, and applies the dropout of the layer below to the rest.
    void finish_input(int worker, int64_t layer) {
        const View<T> dx = dinput_of(layer);
        if (looks_up(layer) || !dx) return;
        const int64_t I = spec_.layer_input_size(layer);
        const Dropout mask(in_.dropout_key, in_.dropout);
        const T scale = T(1 / (1 - in_.dropout));
        for (int64_t slot : slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            for (int64_t t = schedule_->length(slot); t < in_.steps; ++t)
                std::memset(dx.at(t, b), 0, sizeof(T) * I);
            if (layer == 0 || in_.dropout == 0) continue;
            for (int64_t t = 0; t < schedule_->length(slot); ++t) {
                const uint64_t stream =
                    mask.stream(DropoutUse::between_layers, layer - 1, in_.first_step + t, b);
                T* row = dx.at(t, b);
                drop_row(mask, stream, scale, I, row);
            }
        }
    }

    const bool gru_;
    const int64_t chunk_;
    const SequenceMasks<T> masks_;
    const bool changes_;  // whether rows have a ChangedRow
    GradientSums<T> sums_;
    StridedRows<T> last_dgates_, dc_, carry_;  // by slot; carry_: what is added to the next product
    // By slot, where rows are changed: the gradient of h, h with its mask, the gradients of what
    // zoneout kept and made.
    StridedRows<T> dh_, masked_h_, kept_dh_, kept_dc_, made_dc_;
    StridedRows<T> dm_, dc_norm_;  // and with layer normalisation: of m, and through c's
    StridedRows<T> dx_rows_;       // by row of a chunk, the gradient of x with its mask
    View<T> doutput_[2], dhidden_;
    int64_t zeros_size_;
    std::vector<BackwardScratch<T>> scratch_;
    RoundingRooms rooms_;

    std::vector<LayerTape<const T>> tape_;
    View<const T> y_, dy_;
    View<T> dx_;
    const T *dh_n_ = nullptr, *dc_n_ = nullptr;
    T *dh0_ = nullptr, *dc0_ = nullptr;
};

}  // namespace

template <class T>
int64_t backward_workspace_bytes(const LayerSpec& spec, const Sequences<T>& in, int num_threads) {
    check_call(spec, in, in.c0);
    Arena arena(nullptr);
    const Backward<T> laid_out(spec, in, num_threads, arena);
    return arena.used();
}

template <class T>
CallThreads backward_threads(const LayerSpec& spec, const Sequences<T>& in, int most) {
    check_call(spec, in, in.c0);
    return threads_of(spec, in, 'b', most);
}

template <class T>
void backward(const Weights<T>& weights, const Sequences<T>& in, View<const T> y, const T* tape,
              View<const T> dy, const T* dh_n, const T* dc_n, View<T> dx, T* dh0, T* dc0,
              const std::vector<Parameters<T>>& gradients, void* workspace, int num_threads) {
    const LayerSpec& spec = weights.spec();
    check_call(spec, in, in.c0 || dc_n || dc0);
    check_input(in);
    const auto require = [](bool ok, const char* message) {
        if (!ok) throw std::invalid_argument(message);
    };
    require(weights.can_train(), "weights were packed for inference only");
    require(int64_t(gradients.size()) == spec.num_layers * spec.directions(),
            "gradients: one set for each layer and direction is expected");
    for (const Parameters<T>& set : gradients) require_parameters(spec, set, "gradients");
    require(tape != nullptr, "tape is null, expected that of a forward call in training");
    require(in.batch == 0 || dh0 != nullptr, "dh0 is null, expected (L*D, B, P)");
    const bool empty = in.batch == 0 || in.steps == 0;
    require(empty || y.data != nullptr, "y is null, expected that of the forward call");
    require(dx.data != nullptr || !in.lookup || in.table_rows == 0,
            "dx is null, expected the gradient of the table");
    Arena arena(workspace);
    Backward<T>(weights.spec(), in, num_threads, arena)
        .run(weights, y, tape, dy, dh_n, dc_n, dx, dh0, dc0, gradients);
}

#define LSTMCORE_INSTANTIATE(T)                                                             \
    template int64_t backward_workspace_bytes(const LayerSpec&, const Sequences<T>&, int);  \
    template CallThreads backward_threads(const LayerSpec&, const Sequences<T>&, int);      \
    template void backward(const Weights<T>&, const Sequences<T>&, View<const T>, const T*, \
                           View<const T>, const T*, const T*, View<T>, T*, T*,              \
                           const std::vector<Parameters<T>>&, void*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
