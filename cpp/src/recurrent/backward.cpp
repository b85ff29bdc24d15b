// Back-propagation through time, a chunk of steps at a time, the last first.
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
#include "memory/rows.h"
#include "recurrent/dropout.h"
#include "recurrent/schedule.h"
#include "recurrent/tape.h"
#include "recurrent/weights.h"
#include "recurrent/workers.h"

namespace lstmcore {
namespace {

template <class T>
struct Scratch {
    RnnBackwardRow<T>* rnn;  ///< (slots) the rows of a step; only the cell's own kind is there
    LstmBackwardRow<T>* lstm;
    GruBackwardRow<T>* gru;
    ProductRow<T>* products;  ///< (chunk rows)
};

template <class T>
class Backward {
public:
    Backward(const LayerSpec& spec, const Sequences<T>& in, int num_threads, Arena& arena)
        : spec_(spec),
          cell_(spec.cell),
          in_(in),
          workers_(spec, in.steps, in.batch, sizeof(T), num_threads),
          D_(spec.directions()),
          G_(spec.cell.gates()),
          H_(spec.hidden_size),
          P_(spec.output_size()),
          gru_(cell_.kind == CellKind::gru),
          gate_rows_(gru_ && cell_.reset_after ? 4 : G_) {
        const int64_t B = in.batch;
        const auto row_bytes = gate_rows_ * H_ * int64_t(sizeof(T));
        const bool far = size_product(row_bytes, widest_input(spec) + P_) > kGradientFarBytes;
        const int64_t least = far ? kGradientChunkFarRows : kGradientChunkRows;
        chunk_ = std::max(kGradientChunkBytes / row_bytes, least) / std::max<int64_t>(B, 1);
        chunk_ = std::max<int64_t>(std::min(chunk_, in.steps), 1);
        const int64_t rows = size_product(chunk_, B);
        const auto take = [&](int64_t count, int64_t n) { return take_rows<T>(arena, count, n); };
        const auto take_panels = [&](int64_t n) {
            const int64_t padded = round_up(n, Panels<T>::kWidth);
            return Panels<T>{arena.take<T>(size_product(rows, padded)), Panels<T>::kWidth, rows};
        };
        dgates_ = take(rows, gate_rows_ * H_);
        last_dgates_ = take(B, gate_rows_ * H_);
        dgates_panels_ = {dgates_.data, dgates_.stride, rows};
        if (dgates_.stride * int64_t(sizeof(T)) > kPrefetchedStride)
            dgates_panels_ = take_panels(gate_rows_ * H_);
        x_ = take_panels(widest_input(spec));
        if (in.lookup) {
            looked_up_ = arena.take<int64_t>(rows);
            dlookup_ = take(in.table_rows, G_ * H_);
            const int64_t width = round_up(spec.input_size, Panels<T>::kWidth);
            table_ = {arena.take<T>(size_product(in.table_rows, width)), Panels<T>::kWidth,
                      in.table_rows};
            dtable_products_ = arena.take<ProductRow<T>>(in.table_rows);
        }
        h_prev_ = take_panels(P_);
        if (cell_.kind == CellKind::lstm) dc_ = take(B, H_);
        if (cell_.peephole) {
            c_ = take(rows, H_);
            c_prev_ = take(rows, H_);
        }
        if (spec.proj_size > 0) {
            dh_ = take(rows, P_);
            m_ = take(rows, H_);
            dh_panels_ = take_panels(P_);
            m_panels_ = take_panels(H_);
        }
        if (gru_) carry_ = take(B, H_);
        if (gru_ && !cell_.reset_after) rh_ = take_panels(H_);

        const int64_t F = spec.feature_size();
        for (int64_t l = 0; l < std::min<int64_t>(spec.num_layers - 1, 2); ++l)
            doutput_[l] = take_view<T>(arena, in.steps, B, F);
        if (spec.merge != Merge::concat) dhidden_ = take_view<T>(arena, in.steps, B, 2 * P_);
        zeros_size_ = std::max(gate_rows_ * H_, std::max(widest_input(spec), F));
        zeros_ = arena.take<T>(zeros_size_);
        for (int w = 0; w < workers_.count(); ++w) {
            Scratch<T> s{};
            if (cell_.kind == CellKind::rnn) s.rnn = arena.take<RnnBackwardRow<T>>(B);
            if (cell_.kind == CellKind::lstm) s.lstm = arena.take<LstmBackwardRow<T>>(B);
            if (gru_) s.gru = arena.take<GruBackwardRow<T>>(B);
            s.products = arena.take<ProductRow<T>>(rows);
            scratch_.push_back(s);
        }
    }

    void run(const Weights<T>& weights, const View<const T>& y, const T* tape,
             const View<const T>& dy, const T* dh_n, const T* dc_n, const View<T>& dx, T* dh0,
             T* dc0, const std::vector<Parameters<T>>& gradients) {
        if (!weights.can_train())
            throw std::invalid_argument("weights were packed for inference only");
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
        std::memset(zeros_, 0, sizeof(T) * zeros_size_);
        run_team(workers_.team(), [&](Team& team) noexcept {
            const FlushDenormals mode;
            for (int64_t layer = spec_.num_layers; layer-- > 0;) {
                if (spec_.merge != Merge::concat)
                    workers_.each(team, [&](int w) { split_merge(w, layer); });
                for (int d = 0; d < D_; ++d)
                    run_direction(team, layer, d, gradients[layer * D_ + d]);
                workers_.each(team, [&](int w) { finish_input(w, layer); });
            }
        });
    }

private:
    using Slots = Range;
    Slots slots_of(int worker, int64_t alive) const { return workers_.all_slots_of(worker, alive); }

    /// Gradient of the layer's output, after its dropout has been undone.
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
    template <class U>
    U* state(U* states, int64_t layer, int d, int64_t b, int64_t n) const {
        return states + ((layer * D_ + d) * in_.batch + b) * n;
    }
    /// Whether the state that enters `step` of a slot was replaced by zeros.
    bool is_cut(int64_t slot, int64_t step, bool backwards) const {
        if (!in_.resets) return false;
        const int64_t t = schedule_->time(slot, step, backwards), b = schedule_->row(slot);
        return backwards ? step > 0 && *in_.resets.at(t + 1, b) : *in_.resets.at(t, b);
    }
    /// Rows of the hidden product's gradient begin here within dgates.
    int64_t hidden_offset() const { return gru_ ? H_ : 0; }

    void split_merge(int worker, int64_t layer) {
        const View<const T> dout = doutput_of(layer), hidden = hidden_of(layer);
        for (int64_t slot : slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            for (int64_t t = 0; t < schedule_->length(slot); ++t) {
                const T* from = dout ? dout.at(t, b) : zeros_;
                const T* h = hidden.at(t, b);
                T* to = dhidden_.at(t, b);
                for (int64_t f = 0; f < P_; ++f) {
                    T one = from[f], other = from[f];
                    if (spec_.merge == Merge::mul) {
                        one *= h[P_ + f];
                        other *= h[f];
                    } else if (spec_.merge == Merge::ave) {
                        one *= T(0.5);
                        other *= T(0.5);
                    }
                    to[f] = one;
                    to[P_ + f] = other;
                }
            }
        }
    }

    bool looks_up(int64_t layer) const { return layer == 0 && in_.lookup; }

    void run_direction(Team& team, int64_t layer, int d, const Parameters<T>& gradients) {
        if (looks_up(layer)) start_table(team, d);
        for (int64_t end = schedule_->steps(); end > 0; end -= std::min(end, chunk_)) {
            const int64_t first = end - std::min(end, chunk_);
            int64_t rows = 0;
            for (int64_t step = first; step < end; ++step) rows += schedule_->alive(step);
            workers_.each(team, [&](int w) {
                int64_t row = 0;
                for (int64_t step = end; step-- > first; row += schedule_->alive(step))
                    run_step(w, layer, d, step, end, row);
                finish_chunk(w, first, end, rows);
                multiply_input(w, layer, d, first, end);
            });
            team.barrier();
            sum_gradients(team, layer, rows, gradients);
            team.barrier();
        }
        if (looks_up(layer)) finish_table(team, d, gradients);
        workers_.each(team, [&](int w) { finish_states(w, layer, d); });
    }

    /// One step of the worker's slots, whose rows of the chunk's buffers begin at `row`; the rows
    /// of step + 1, if that is in the chunk, are just before.
    void run_step(int worker, int64_t layer, int d, int64_t step, int64_t end, int64_t row) {
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const Kernels<T>& kernels = weights_->kernels();
        const bool backwards = spec_.reads_backwards(d), project = spec_.proj_size > 0;
        const View<const T> x = input_of(layer), dhidden = dhidden_of(layer),
                            hidden = hidden_of(layer);
        const LayerTape<const T>& tape = tape_[layer];
        Scratch<T>& scratch = scratch_[worker];
        const int64_t I = spec_.layer_input_size(layer), next_alive = schedule_->alive(step + 1);
        const StridedRows<T> next =
            step + 1 < end ? StridedRows<T>{dgates_.at(row - next_alive), dgates_.stride}
                           : last_dgates_;
        int64_t n = 0,
                running = 0;  // rows of this step; those among them with a next step come first
        for (int64_t slot : slots_of(worker, schedule_->alive(step))) {
            const int64_t b = schedule_->row(slot), t = schedule_->time(slot, step, backwards);
            const int64_t t_prev = backwards ? t + 1 : t - 1;
            const bool is_last = slot >= next_alive;
            const bool cut = is_cut(slot, step, backwards);
            const bool next_cut = !is_last && is_cut(slot, step + 1, backwards);
            if (!is_last) ++running;

            const T* a = is_last || next_cut ? zeros_ : next.at(slot) + hidden_offset();
            const T* dy = dhidden ? dhidden.at(t, b) + d * P_ : zeros_;
            const T* extra = zeros_;
            if (is_last && dh_n_) extra = state(dh_n_, layer, d, b, P_);
            if (!is_last && !next_cut && gru_) extra = carry_.at(slot);
            const T* h_prev = zeros_;
            if (!cut && step > 0) h_prev = hidden.at(t_prev, b) + d * P_;
            if (!cut && step == 0 && in_.h0) h_prev = state(in_.h0, layer, d, b, P_);
            T* dgates = dgates_.at(row + slot);

            if (looks_up(layer))
                looked_up_[row + slot] = *in_.lookup.at(t, b);
            else
                copy_to_panels(x_, row + slot, x.at(t, b), I);
            copy_to_panels(h_prev_, row + slot, h_prev, P_);
            if (cell_.kind == CellKind::rnn) {
                scratch.rnn[n] = {a, dy, extra, hidden.at(t, b) + d * P_, dgates};
            } else if (gru_) {
                const T* gates = tape.gates[d].at(t, b);
                scratch.gru[n] = {a, dy, extra, gates, h_prev, dgates, carry_.at(slot)};
                if (!cell_.reset_after)
                    for (int64_t u = 0; u < H_; ++u) *rh_.at(row + slot, u) = gates[u] * h_prev[u];
            } else {
                const T *c = tape.cells[d].at(t, b), *c_prev = zeros_, *dc_next = zeros_;
                if (!cut && step > 0) c_prev = tape.cells[d].at(t_prev, b);
                if (!cut && step == 0 && in_.c0) c_prev = state(in_.c0, layer, d, b, H_);
                if (is_last && dc_n_) dc_next = state(dc_n_, layer, d, b, H_);
                if (!is_last && !next_cut) dc_next = dc_.at(slot);
                T* m = nullptr;
                if (project) {
                    // dh first, as a product of its own; then dm = dh · W_hr in front of the gates
                    T* dh = dh_.at(row + slot);
                    std::memcpy(dh, extra, sizeof(T) * P_);
                    scratch.products[n] = {a, dh, dh};
                    m = m_.at(row + slot);
                    a = dh;
                    extra = zeros_;
                }
                scratch.lstm[n] = {a, dy,     extra,  dc_next,      tape.gates[d].at(t, b),
                                   c, c_prev, dgates, dc_.at(slot), m};
                if (cell_.peephole) {
                    std::memcpy(c_.at(row + slot), c, sizeof(T) * H_);
                    std::memcpy(c_prev_.at(row + slot), c_prev, sizeof(T) * H_);
                }
            }
            ++n;
        }

        // Rows at their last step have no next one to multiply with.
        const auto without_product = [](Packed<T> w) {
            w.K = 0;
            return w;
        };
        StepArgs<T> args{cell_, H_, w.w_hh_t, w.w_n_t, nullptr, w.peephole};
        if (project) {
            kernels.product(w.w_hh_t, P_, scratch.products, running);
            for (int64_t i = 0; i < n; ++i) {
                for (int64_t p = 0; p < P_; ++p)
                    scratch.products[i].out[p] += scratch.lstm[i].dy[p];
                scratch.lstm[i].dy = zeros_;
            }
            args.w = w.w_hr_t;
            kernels.lstm_backward(args, scratch.lstm, n);
            return;
        }
        const auto step_rows = [&](auto kernel, auto* rows) {
            kernel(args, rows, running);
            args.w = without_product(args.w);
            kernel(args, rows + running, n - running);
        };
        if (cell_.kind == CellKind::rnn) step_rows(kernels.rnn_backward, scratch.rnn);
        if (cell_.kind == CellKind::lstm) step_rows(kernels.lstm_backward, scratch.lstm);
        if (gru_) step_rows(kernels.gru_backward, scratch.gru);
    }

    /// Lays the worker's rows of a chunk out for the sums over rows, and keeps the dgates of the
    /// chunk's first step, the next chunk's "next".
    void finish_chunk(int worker, int64_t first, int64_t end, int64_t rows) {
        const bool cut = dgates_panels_.data != dgates_.data, project = spec_.proj_size > 0;
        int64_t row = 0;
        for (int64_t step = end; (cut || project) && step-- > first; row += schedule_->alive(step))
            for (int64_t slot : slots_of(worker, schedule_->alive(step))) {
                const int64_t r = row + slot;
                if (cut) copy_to_panels(dgates_panels_, r, dgates_.at(r), gate_rows_ * H_);
                if (!project) continue;
                copy_to_panels(dh_panels_, r, dh_.at(r), P_);
                copy_to_panels(m_panels_, r, m_.at(r), H_);
            }
        const int64_t alive = schedule_->alive(first);
        for (int64_t slot : slots_of(worker, alive))
            std::memcpy(last_dgates_.at(slot), dgates_.at(rows - alive + slot),
                        sizeof(T) * gate_rows_ * H_);
    }

    /// dx += dgates · W_ih for the worker's rows of a chunk; the first direction begins it.
    void multiply_input(int worker, int64_t layer, int d, int64_t first, int64_t end) {
        if (looks_up(layer)) return;
        const PackedDirection<T>& w = weights_->direction(layer, d);
        const bool backwards = spec_.reads_backwards(d);
        const View<T> dx = dinput_of(layer);
        ProductRow<T>* products = scratch_[worker].products;
        int64_t n = 0, row = 0;
        for (int64_t step = end; step-- > first; row += schedule_->alive(step))
            for (int64_t slot : slots_of(worker, schedule_->alive(step))) {
                T* out = dx.at(schedule_->time(slot, step, backwards), schedule_->row(slot));
                products[n++] = {dgates_.at(row + slot), d == 0 ? zeros_ : out, out};
            }
        weights_->kernels().product(w.w_ih_t, spec_.layer_input_size(layer), products, n);
    }

    /// A team member's share of the weight gradients of a chunk.
    void sum_gradients(const Team& team, int64_t layer, int64_t rows, const Parameters<T>& to) {
        const int64_t I = spec_.layer_input_size(layer), H = H_;
        // `gates` rows of H of the weights from gate `to_gate` on, whose gradient stands in dgates
        // from block `from` on.
        const auto gates = [&](int from, int to_gate, int64_t gates, T* dw, const Panels<T>& b,
                               int64_t columns, T* db) {
            if (dw)
                sum_outer(team, dgates_panels_, from * H, gates * H, b, columns,
                          dw + to_gate * H * columns, rows);
            const StridedRows<T> a{dgates_.data + from * H, dgates_.stride};
            if (db) sum_columns(team, a, gates * H, {}, db + to_gate * H, rows);
        };
        if (looks_up(layer))
            add_to_table(team, rows);
        else
            sum_input(team, dgates_panels_, x_, I, to.w_ih, rows);
        if (!gru_) {
            gates(0, 0, G_, nullptr, x_, I, to.b_ih);
            gates(0, 0, G_, to.w_hh, h_prev_, P_, to.b_hh);
        } else {  // n, r, z, n of the hidden product
            gates(0, 2, 1, nullptr, x_, I, to.b_ih);
            gates(1, 0, 2, nullptr, x_, I, to.b_ih);
            gates(1, 0, 2, to.w_hh, h_prev_, P_, to.b_hh);
            if (cell_.reset_after)
                gates(3, 2, 1, to.w_hh, h_prev_, P_, to.b_hh);
            else
                gates(0, 2, 1, to.w_hh, rh_, P_, to.b_hh);
        }
        if (cell_.peephole)
            for (int64_t g = 0; g < cell_.peepholes(); ++g) {
                const bool output = g + 1 == cell_.peepholes();
                const StridedRows<T> a{dgates_.data + (output ? G_ - 1 : g) * H, dgates_.stride};
                sum_columns(team, a, H, output ? c_ : c_prev_, to.w_ch + g * H, rows);
            }
        if (spec_.proj_size > 0) sum_outer(team, dh_panels_, 0, P_, m_panels_, H, to.w_hr, rows);
    }

    /// dW_ih += dgates^T x over `rows` of both.
    void sum_input(const Team& team, const Panels<T>& dgates, const Panels<T>& x, int64_t I,
                   T* dw_ih, int64_t rows) {
        if (!gru_) return sum_outer(team, dgates, 0, G_ * H_, x, I, dw_ih, rows);
        sum_outer(team, dgates, 0, H_, x, I, dw_ih + 2 * H_ * I, rows);  // n, r, z
        sum_outer(team, dgates, H_, 2 * H_, x, I, dw_ih, rows);
    }

    // Steps that looked up the same row of the table have the same x. So their dgates are added up
    // first, and multiplied once.

    Range columns_of(const Team& team) const {
        constexpr int64_t line = kAlignment / int64_t(sizeof(T));
        const int64_t lines = round_up(G_ * H_, line) / line;
        return {lines * team.rank / team.size * line,
                std::min(lines * (team.rank + 1) / team.size * line, G_ * H_), 1};
    }
    void start_table(Team& team, int d) {
        const Range columns = columns_of(team);
        for (int64_t i = 0; i < in_.table_rows; ++i)
            std::fill(dlookup_.at(i) + columns.first, dlookup_.at(i) + columns.last, T(0));
        if (d == 0 && team.rank == 0)
            for (int64_t i = 0; i < in_.table_rows; ++i)
                copy_to_panels(table_, i, in_.table + i * spec_.input_size, spec_.input_size);
        team.barrier();
    }
    void add_to_table(const Team& team, int64_t rows) {
        const Range columns = columns_of(team);
        for (int64_t row = 0; row < rows; ++row) {
            T* __restrict to = dlookup_.at(looked_up_[row]);
            const T* from = dgates_.at(row);
            for (int64_t n = columns.first; n < columns.last; ++n) to[n] += from[n];
        }
    }
    void finish_table(Team& team, int d, const Parameters<T>& to) {
        const int64_t V = in_.table_rows, I = spec_.input_size;
        const PackedDirection<T>& w = weights_->direction(0, d);
        sum_input(team, {dlookup_.data, dlookup_.stride, V}, table_, I, to.w_ih, V);
        const int64_t first = V * team.rank / team.size, last = V * (team.rank + 1) / team.size;
        for (int64_t i = first; i < last; ++i) {
            T* out = dx_.at(0, i);
            dtable_products_[i] = {dlookup_.at(i), d == 0 ? zeros_ : out, out};
        }
        weights_->kernels().product(w.w_ih_t, I, dtable_products_ + first, last - first);
        team.barrier();
    }

    /// c (J, N) += a[:, from : from + J]^T b over `rows`; each member takes rows of c.
    void sum_outer(const Team& team, const Panels<T>& a, int64_t from, int64_t J,
                   const Panels<T>& b, int64_t N, T* c, int64_t rows) {
        const int64_t first = J * team.rank / team.size, last = J * (team.rank + 1) / team.size;
        weights_->kernels().outer({a, from + first, b, c + first * N, rows, last - first, N});
    }

    void sum_columns(const Team& team, const StridedRows<T>& a, int64_t J, const StridedRows<T>& b,
                     T* out, int64_t rows) {
        const int64_t first = J * team.rank / team.size, last = J * (team.rank + 1) / team.size;
        weights_->kernels().column_sum({a.data + first, a.stride, b.data ? b.data + first : nullptr,
                                        b.stride, out + first, rows, last - first});
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
                products[n++] = {last_dgates_.at(slot) + hidden_offset(),
                                 gru_ ? carry_.at(slot) : zeros_, dh0};
                if (dc0) std::memcpy(dc0, dc_.at(slot), sizeof(T) * H_);
            }
        }
        weights_->kernels().product(w.w_hh_t, P_, products, n);
    }

    /// Zeros past the ends; and the dropout of the layer below.
    void finish_input(int worker, int64_t layer) {
        if (looks_up(layer)) return;
        const int64_t I = spec_.layer_input_size(layer);
        const View<T> dx = dinput_of(layer);
        const Dropout mask(in_.dropout_key, in_.dropout);
        const T scale = T(1 / (1 - in_.dropout));
        for (int64_t slot : slots_of(worker, in_.batch)) {
            const int64_t b = schedule_->row(slot);
            for (int64_t t = schedule_->length(slot); t < in_.steps; ++t)
                std::memset(dx.at(t, b), 0, sizeof(T) * I);
            if (layer == 0 || in_.dropout == 0) continue;
            for (int64_t t = 0; t < schedule_->length(slot); ++t) {
                const uint64_t stream = mask.stream(layer - 1, in_.first_step + t, b);
                T* row = dx.at(t, b);
                for (int64_t f = 0; f < I; ++f)
                    row[f] = mask.kept(stream, f) ? row[f] * scale : T(0);
            }
        }
    }

    const LayerSpec& spec_;
    const CellSpec& cell_;
    const Sequences<T>& in_;
    const Workers workers_;
    const int64_t D_, G_, H_, P_;
    const bool gru_;
    const int64_t gate_rows_;  // rows of H in dgates
    int64_t chunk_;
    StridedRows<T> dgates_, c_, c_prev_, dh_, m_;  // of a chunk, by step and slot
    Panels<T> dgates_panels_, x_, h_prev_, dh_panels_, m_panels_, rh_;  // the same for the sums
    StridedRows<T> last_dgates_, dc_, carry_;                           // by slot
    int64_t* looked_up_ = nullptr;  // by step and slot of the chunk, the row of the table
    StridedRows<T> dlookup_;        // (table_rows) the sums of dgates
    Panels<T> table_;
    ProductRow<T>* dtable_products_ = nullptr;
    View<T> doutput_[2], dhidden_;
    T* zeros_;
    int64_t zeros_size_;
    std::vector<Scratch<T>> scratch_;

    const Weights<T>* weights_ = nullptr;
    const Schedule* schedule_ = nullptr;
    std::vector<LayerTape<const T>> tape_;
    View<const T> y_, dy_;
    View<T> dx_;
    const T *dh_n_ = nullptr, *dc_n_ = nullptr;
    T *dh0_ = nullptr, *dc0_ = nullptr;
};

}  // namespace

template <class T>
int64_t backward_workspace_bytes(const LayerSpec& spec, const Sequences<T>& in, int num_threads) {
    Arena arena(nullptr);
    Backward<T>(spec, in, num_threads, arena);
    return arena.used();
}

template <class T>
void backward(const Weights<T>& weights, const Sequences<T>& in, View<const T> y, const T* tape,
              View<const T> dy, const T* dh_n, const T* dc_n, View<T> dx, T* dh0, T* dc0,
              const std::vector<Parameters<T>>& gradients, void* workspace, int num_threads) {
    Arena arena(workspace);
    Backward<T>(weights.spec(), in, num_threads, arena)
        .run(weights, y, tape, dy, dh_n, dc_n, dx, dh0, dc0, gradients);
}

#define LSTMCORE_INSTANTIATE(T)                                                             \
    template int64_t backward_workspace_bytes(const LayerSpec&, const Sequences<T>&, int);  \
    template void backward(const Weights<T>&, const Sequences<T>&, View<const T>, const T*, \
                           View<const T>, const T*, const T*, View<T>, T*, T*,              \
                           const std::vector<Parameters<T>>&, void*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
