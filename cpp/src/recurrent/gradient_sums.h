// The weight gradients of a layer: sums over the rows of a chunk of steps. Backward writes what is
// summed into the buffers of this class, then calls sum(). Members of the team share the rows of
// each gradient; each number of it is summed from the first row of the chunk to the last.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernel_table.h"
#include "lstmcore/layer.h"
#include "machine/caches.h"
#include "machine/threads.h"
#include "memory/arena.h"
#include "memory/pack.h"
#include "memory/strided_rows.h"
#include "recurrent/tape.h"
#include "recurrent/weights.h"
#include "recurrent/workers.h"

namespace lstmcore {

template <class T>
class GradientSums {
public:
    /// Room for chunks of `rows` rows.
    GradientSums(const LayerSpec& spec, const Sequences<T>& in, int64_t rows, Arena& arena)
        : gate_rows(gates_of(spec.cell)),
          spec_(spec),
          cell_(spec.cell),
          in_(in),
          gru_(cell_.kind == CellKind::gru),
          G_(cell_.gates()),
          H_(spec.hidden_size),
          P_(spec.output_size()) {
        const auto take = [&](int64_t count, int64_t n) { return take_rows<T>(arena, count, n); };
        const auto take_panels = [&](int64_t count, int64_t n) {
            const int64_t padded = round_up(n, Panels<T>::kWidth);
            return Panels<T>{arena.take<T>(size_product(count, padded)), Panels<T>::kWidth, count};
        };
        dgates = take(rows, gate_rows * H_);
        dgates_panels = {dgates.data, dgates.stride, rows};
        if (!cell_.layer_norm && dgates.stride * int64_t(sizeof(T)) > kPrefetchedStride)
            dgates_panels = take_panels(rows, gate_rows * H_);
        x = take_panels(rows, widest_input(spec));
        if (in.lookup) {
            looked_up = arena.take<int64_t>(rows);
            dlookup_ = take(in.table_rows, G_ * H_);
            table_ = take_panels(in.table_rows, spec.input_size);
            dtable_products_ = arena.take<ProductRow<T>>(in.table_rows);
        }
        h_prev = take_panels(rows, P_);
        if (cell_.peephole) {
            c = take(rows, H_);
            c_prev = take(rows, H_);
        }
        if (spec.proj_size > 0) {
            dh = take(rows, P_);
            m = take(rows, H_);
            dh_panels = take_panels(rows, P_);
            m_panels = take_panels(rows, H_);
        }
        if (gru_ && !cell_.reset_after) rh = take_panels(rows, H_);
        if (!cell_.layer_norm) return;
        input_sums = hidden_sums = dgates;
        if (gru_) {
            input_sums = take(rows, G_ * H_);
            hidden_sums.data += H_;
        }
        dinput = take(rows, G_ * H_);
        dhidden = take(rows, G_ * H_);
        input_normal = take(rows, G_ * H_);
        hidden_normal = take(rows, G_ * H_);
        if (!cell_.normalizes_c()) return;
        dshown = take(rows, H_);
        c_normal = take(rows, H_);
    }

    /// Blocks of H in a row of dgates: one for each gate. The GRU with reset after has two for n:
    /// the gradient of its sum, and that of its hidden product, which r multiplies.
    static int64_t gates_of(const CellSpec& cell) {
        return cell.kind == CellKind::gru && cell.reset_after ? 4 : cell.gates();
    }

    // What backward writes, by row of the chunk; rows are in order of step (last first) and slot.
    const int64_t gate_rows;
    StridedRows<T> dgates, c, c_prev, dh, m;
    Panels<T> dgates_panels, x, h_prev, dh_panels, m_panels, rh;  ///< laid out for the sums
    int64_t* looked_up = nullptr;  ///< the row of the table that was x
    // With layer normalisation, all gates in the order of the weights: the gradients of the
    // normalised products of the input and of h, and of those products; what was normalised of them
    // and of c; the gradient of what output() saw of c.
    StridedRows<T> input_sums, hidden_sums, dinput, dhidden, input_normal, hidden_normal;
    StridedRows<T> dshown, c_normal;

    /// What multiplies the matrices in backward; of W_hh from hidden_offset() on.
    const StridedRows<T>& input_gradients() const { return cell_.layer_norm ? dinput : dgates; }
    const StridedRows<T>& hidden_gradients() const { return cell_.layer_norm ? dhidden : dgates; }
    int64_t hidden_width() const { return cell_.layer_norm ? G_ * H_ : gate_rows * H_; }
    /// Where the blocks that multiply W_hh begin within a row of dgates, see GruBackwardRow.
    int64_t hidden_offset() const { return gru_ && !cell_.layer_norm ? H_ : 0; }

    /// Takes the dgates of a row back through both normalisations.
    void normalize_backward(const Kernels<T>& kernels, const PackedDirection<T>& w, int64_t row,
                            const NormPlaces<const T>& tape) const {
        const int64_t n = G_ * H_;
        if (gru_) {  // n, r, z
            std::memcpy(input_sums.at(row), dgates.at(row) + H_, sizeof(T) * 2 * H_);
            std::memcpy(input_sums.at(row) + 2 * H_, dgates.at(row), sizeof(T) * H_);
        }
        std::memcpy(input_normal.at(row), tape.input, sizeof(T) * n);
        std::memcpy(hidden_normal.at(row), tape.hidden, sizeof(T) * n);
        if (c_normal.data) std::memcpy(c_normal.at(row), tape.c, sizeof(T) * H_);
        kernels.normalize_backward(n, input_sums.at(row), tape.input, w.ln_ih, tape.scales[0],
                                   dinput.at(row));
        kernels.normalize_backward(n, hidden_sums.at(row), tape.hidden, w.ln_hh, tape.scales[1],
                                   dhidden.at(row));
    }

    /// Copies the dgates of a row and, with a projection, its dh and m into the panels that sum()
    /// reads.
    void finish_row(int64_t row) {
        if (dgates_panels.data != dgates.data)
            copy_to_panels(dgates_panels, row, dgates.at(row), gate_rows * H_);
        if (spec_.proj_size == 0) return;
        copy_to_panels(dh_panels, row, dh.at(row), P_);
        copy_to_panels(m_panels, row, m.at(row), H_);
    }
    /// Whether finish_row has anything to do.
    bool finishes_rows() const { return dgates_panels.data != dgates.data || spec_.proj_size > 0; }

    /// Adds the sums over a chunk to the gradients `to`: the share of one member of the team.
    void sum(Team& team, const Weights<T>& weights, int64_t layer, int64_t rows,
             const Parameters<T>& to) {
        const Kernels<T>& kernels = weights.kernels();
        const int64_t I = spec_.layer_input_size(layer), H = H_;
        const bool looks_up = layer == 0 && in_.lookup;
        sum_vectors(team, kernels, rows, to);
        if (looks_up) add_to_table(team, rows);
        if (weights.precision() == Precision::bfloat16) {
            team.barrier();
            round_factors(team, kernels, looks_up ? 0 : I, rows);
            team.barrier();
        }
        // The gradient of so many gates: those from `to_gate` on in the order of the weights, which
        // are the blocks from `from` on in dgates.
        const auto gates = [&](int from, int to_gate, int64_t gates, const Panels<T>& b) {
            sum_outer(team, kernels, dgates_panels, from * H, gates * H, b, P_,
                      to.w_hh + to_gate * H * P_, rows);
        };
        if (!looks_up) sum_input(team, kernels, dgates_panels, x, I, to.w_ih, rows);
        if (cell_.layer_norm) {
            sum_outer(team, kernels, in_one_panel(dhidden, rows), 0, G_ * H, h_prev, P_, to.w_hh,
                      rows);
        } else if (!gru_) {
            gates(0, 0, G_, h_prev);
        } else {  // the blocks of dgates are n, r, z and, reset after, n of the hidden product
            gates(1, 0, 2, h_prev);
            cell_.reset_after ? gates(3, 2, 1, h_prev) : gates(0, 2, 1, rh);
        }
        if (spec_.proj_size > 0)
            sum_outer(team, kernels, dh_panels, 0, P_, m_panels, H, to.w_hr, rows);
    }

    // Steps that looked up the same row of the table have the same x. So their dgates are added up
    // first, and multiplied once: start_table() clears these sums, sum() adds to them, and
    // finish_table() multiplies them, for dW_ih and for the gradient of the table.

    void start_table(Team& team, int d) {
        const Range columns = columns_of(team);
        for (int64_t i = 0; i < in_.table_rows; ++i)
            std::fill(dlookup_.at(i) + columns.first, dlookup_.at(i) + columns.last, T(0));
        if (d == 0 && team.rank == 0)
            for (int64_t i = 0; i < in_.table_rows; ++i)
                copy_to_panels(table_, i, in_.table + i * spec_.input_size, spec_.input_size);
        team.barrier();
    }
    void finish_table(Team& team, const Weights<T>& weights, int d, const View<T>& dx,
                      const T* zeros, const Parameters<T>& to) {
        const int64_t V = in_.table_rows, I = spec_.input_size;
        const PackedDirection<T>& w = weights.direction(0, d);
        const Kernels<T>& kernels = weights.kernels();
        const int64_t first = V * team.rank / team.size, last = V * (team.rank + 1) / team.size;
        if (weights.precision() == Precision::bfloat16) {
            for (int64_t i = first; i < last; ++i) {
                kernels.round(dlookup_.at(i), G_ * H_);
                round_in_panels(kernels, table_, i, I);
            }
            team.barrier();
        }
        sum_input(team, kernels, {dlookup_.data, dlookup_.stride, V}, table_, I, to.w_ih, V);
        for (int64_t i = first; i < last; ++i) {
            T* out = dx.at(0, i);
            dtable_products_[i] = {dlookup_.at(i), d == 0 ? zeros : out, out};
        }
        kernels.product(w.w_ih_t, I, dtable_products_ + first, last - first);
        team.barrier();
    }

private:
    /// Adds the sums that are no products with a matrix: the gradients of biases and peepholes.
    void sum_vectors(const Team& team, const Kernels<T>& kernels, int64_t rows,
                     const Parameters<T>& to) {
        const int64_t H = H_;
        const auto gates = [&](int from, int to_gate, int64_t gates, T* db) {
            const StridedRows<T> a{dgates.data + from * H, dgates.stride};
            if (db) sum_columns(team, kernels, a, gates * H, {}, db + to_gate * H, rows);
        };
        if (cell_.layer_norm) {
            sum_normalized(team, kernels, rows, to);
        } else if (!gru_) {
            gates(0, 0, G_, to.b_ih);
            gates(0, 0, G_, to.b_hh);
        } else {
            gates(0, 2, 1, to.b_ih);
            gates(1, 0, 2, to.b_ih);
            gates(1, 0, 2, to.b_hh);
            gates(cell_.reset_after ? 3 : 0, 2, 1, to.b_hh);
        }
        for (int64_t g = 0; cell_.peephole && g < cell_.peepholes(); ++g) {
            const bool output = g + 1 == cell_.peepholes();
            const StridedRows<T> a{dgates.data + (output ? G_ - 1 : g) * H, dgates.stride};
            sum_columns(team, kernels, a, H, output ? c : c_prev, to.w_ch + g * H, rows);
        }
    }

    /// The gradients of biases, gains and, of c, the bias of layer normalisation.
    void sum_normalized(const Team& team, const Kernels<T>& kernels, int64_t rows,
                        const Parameters<T>& to) {
        const int64_t n = G_ * H_;
        if (to.b_ih) sum_columns(team, kernels, input_sums, n, {}, to.b_ih, rows);
        if (to.b_hh) sum_columns(team, kernels, hidden_sums, n, {}, to.b_hh, rows);
        sum_columns(team, kernels, input_sums, n, input_normal, to.ln_ih, rows);
        sum_columns(team, kernels, hidden_sums, n, hidden_normal, to.ln_hh, rows);
        if (!cell_.normalizes_c()) return;
        sum_columns(team, kernels, dshown, H_, c_normal, to.ln_c, rows);
        sum_columns(team, kernels, dshown, H_, {}, to.ln_c_bias, rows);
    }

    static Panels<T> in_one_panel(const StridedRows<T>& rows, int64_t count) {
        return {rows.data, rows.stride, count};
    }

    /// Rounds what the gradients of matrices are summed of to bfloat16: the rows of one member.
    /// `inputs` is 0 where x is looked up.
    void round_factors(const Team& team, const Kernels<T>& kernels, int64_t inputs, int64_t rows) {
        const int64_t first = rows * team.rank / team.size;
        const int64_t last = rows * (team.rank + 1) / team.size;
        const std::pair<Panels<T>, int64_t> factors[] = {{dgates_panels, gate_rows * H_},
                                                         {x, inputs},
                                                         {h_prev, P_},
                                                         {dh_panels, P_},
                                                         {m_panels, H_},
                                                         {rh, H_},
                                                         {in_one_panel(dinput, rows), G_ * H_},
                                                         {in_one_panel(dhidden, rows), G_ * H_}};
        for (const auto& [panels, columns] : factors)
            for (int64_t row = first; panels.data != nullptr && row < last; ++row)
                round_in_panels(kernels, panels, row, columns);
    }

    /// dW_ih += dgates^T x over `rows` of both.
    void sum_input(const Team& team, const Kernels<T>& kernels, const Panels<T>& dgates,
                   const Panels<T>& x, int64_t I, T* dw_ih, int64_t rows) {
        if (cell_.layer_norm)
            return sum_outer(team, kernels, in_one_panel(dinput, rows), 0, G_ * H_, x, I, dw_ih,
                             rows);
        if (!gru_) return sum_outer(team, kernels, dgates, 0, G_ * H_, x, I, dw_ih, rows);
        sum_outer(team, kernels, dgates, 0, H_, x, I, dw_ih + 2 * H_ * I, rows);  // n, r, z
        sum_outer(team, kernels, dgates, H_, 2 * H_, x, I, dw_ih, rows);
    }

    void add_to_table(const Team& team, int64_t rows) {
        const Range columns = columns_of(team);
        for (int64_t row = 0; row < rows; ++row) {
            T* __restrict to = dlookup_.at(looked_up[row]);
            const T* from = dgates.at(row);
            for (int64_t n = columns.first; n < columns.last; ++n) to[n] += from[n];
        }
    }
    Range columns_of(const Team& team) const {
        constexpr int64_t line = kAlignment / int64_t(sizeof(T));
        const int64_t lines = round_up(G_ * H_, line) / line;
        return {lines * team.rank / team.size * line,
                std::min(lines * (team.rank + 1) / team.size * line, G_ * H_), 1};
    }

    /// c (J, N) += a[:, from : from + J]^T b over `rows`; each member takes rows of c.
    void sum_outer(const Team& team, const Kernels<T>& kernels, const Panels<T>& a, int64_t from,
                   int64_t J, const Panels<T>& b, int64_t N, T* c, int64_t rows) {
        const int64_t first = J * team.rank / team.size, last = J * (team.rank + 1) / team.size;
        kernels.outer({a, from + first, b, c + first * N, rows, last - first, N});
    }

    void sum_columns(const Team& team, const Kernels<T>& kernels, const StridedRows<T>& a,
                     int64_t J, const StridedRows<T>& b, T* out, int64_t rows) {
        const int64_t first = J * team.rank / team.size, last = J * (team.rank + 1) / team.size;
        kernels.column_sum({a.data + first, a.stride, b.data ? b.data + first : nullptr, b.stride,
                            out + first, rows, last - first});
    }

    const LayerSpec& spec_;
    const CellSpec& cell_;
    const Sequences<T>& in_;
    const bool gru_;
    const int64_t G_, H_, P_;
    StridedRows<T> dlookup_;  ///< (table_rows) the sums of dgates
    Panels<T> table_;
    ProductRow<T>* dtable_products_ = nullptr;
};

}  // namespace lstmcore
