// The rows of one step in the form that the kernels of each cell take. Layers and streams fill them
// here: forward, and below it backward.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernel_table.h"
#include "lstmcore/spec.h"
#include "memory/arena.h"
#include "memory/strided_rows.h"
#include "recurrent/masks.h"
#include "recurrent/tape.h"
#include "recurrent/weights.h"
#include "recurrent/zoneout.h"

namespace lstmcore {

/// What the kernels are told about all rows of every step.
template <class T>
StepArgs<T> step_args(const CellSpec& cell, int64_t H, const PackedDirection<T>& w) {
    StepArgs<T> args{cell, H, w.w_hh, w.w_n, w.b_hn, w.peephole};
    args.ln_hh = w.ln_hh;
    args.ln_c = w.ln_c;
    args.ln_c_bias = w.ln_c_bias;
    return args;
}

/// Calls f with the kind of cell as a constant: a loop over rows made for one kind spends nothing
/// on what only the others have.
template <class F>
void with_constant(CellKind kind, F&& f) {
    switch (kind) {
        case CellKind::rnn:
            return f(std::integral_constant<CellKind, CellKind::rnn>());
        case CellKind::lstm:
            return f(std::integral_constant<CellKind, CellKind::lstm>());
        case CellKind::gru:
            return f(std::integral_constant<CellKind, CellKind::gru>());
    }
}

/// The same with whether rows have a change, see changes_rows().
template <class F>
void with_constants(CellKind kind, bool changes, F&& f) {
    with_constant(kind, [&](auto of_kind) {
        if (changes)
            f(of_kind, std::true_type());
        else
            f(of_kind, std::false_type());
    });
}

/// Where one row of a step reads and writes. Members that the cell does not have are ignored.
template <class T>
struct ForwardPlace {
    const T* pre;     ///< the input product, or, where the step makes that itself, the bias
    const T* x;       ///< the input where the step makes the product itself, else null
    const T* h_prev;  ///< (P)
    T* y;             ///< (P)
    const T* c_prev;  ///< (H) LSTM
    T* c;             ///< (H) LSTM, may be c_prev
    T* gates;         ///< on the tape; null in inference
};

/// Whether rows need more than their kernel does: a ForwardChange in forward, and as much again in
/// backward. `masked` is whether there is recurrent dropout.
inline bool changes_rows(const CellSpec& cell, bool masked) {
    return masked || cell.zoneout || cell.layer_norm;
}

/// What recurrent dropout, zoneout and layer normalisation, which no kernel does alone, add to a
/// row; null where there is none.
template <class T>
struct ForwardChange {
    const T* mask = nullptr;   ///< (P) factors of h_prev on its way into W_hh
    T* made_c = nullptr;       ///< (H) on the tape: c as it was made, before zoneout
    uint8_t* takes = nullptr;  ///< on the tape, see ZonePlaces
    T* norms = nullptr;        ///< on the tape, see NormPlaces
};

template <class T>
class ForwardRows {
public:
    /// Room for `count` rows. H is hidden_size, or that rounded up where rows are padded. `masked`
    /// is whether rows may have a mask. `spec` must outlive this.
    ForwardRows(const LayerSpec& spec, int64_t H, int64_t count, Arena& arena, bool masked = false)
        : spec_(&spec) {
        if (masked) masked_ = take_rows<T>(arena, count, spec.output_size());
        if (spec.cell.zoneout) zoned_ = arena.take<ZonedRow>(count);
        if (spec.cell.zoneout.c > 0) made_c_ = take_rows<T>(arena, count, H);
        if (spec.cell.layer_norm) {
            const int64_t G = spec.cell.gates();
            norms_ = arena.take<NormRow<T>>(count);
            hidden_products_ = arena.take<ProductRow<T>>(count);
            // A product writes whole registers.
            hidden_ = take_rows<T>(arena, count, round_up(G * H, kAlignment / int64_t(sizeof(T))));
            shown_ = take_rows<T>(arena, count, H);
            scales_ = take_rows<T>(arena, count, 2);
        }
        switch (spec.cell.kind) {
            case CellKind::rnn:
                rnn_ = arena.take<RnnForwardRow<T>>(count);
                break;
            case CellKind::lstm:
                lstm_ = arena.take<LstmForwardRow<T>>(count);
                if (spec.proj_size == 0) break;
                m_ = take_rows<T>(arena, count, H);
                projections_ = arena.take<ProductRow<T>>(count);
                break;
            case CellKind::gru:
                gru_ = arena.take<GruForwardRow<T>>(count);
                gates_ = take_rows<T>(arena, count, gates_on_tape(spec.cell) * H);
                rh_ = take_rows<T>(arena, count, H);
                break;
        }
    }

    /// Row n is to compute at this place. `zeros` (P, padded) is what the sums of a projection
    /// start from.
    template <CellKind kKind>
    void set(int64_t n, const ForwardPlace<T>& at, const T* zeros) noexcept {
        set_row<kKind>(n, at, at.h_prev, at.c, zeros);
    }
    /// The same with this change. Every row needs one where changes_rows() says so. With layer
    /// normalisation there are G*H `zeros`, because the product with W_hh starts from them too.
    template <CellKind kKind>
    void set_changed(int64_t n, const ForwardPlace<T>& at, const ForwardChange<T>& change,
                     const T* zeros) noexcept {
        const T* h_prev = at.h_prev;
        if (change.mask != nullptr) {
            h_prev = masked_.at(n);
            mask_row(change.mask, at.h_prev, spec_->output_size(), masked_.at(n));
        }
        T* made_c = at.c;
        if (zoned_ != nullptr) {
            if (spec_->cell.zoneout.c > 0) made_c = change.made_c ? change.made_c : made_c_.at(n);
            zoned_[n] = {at, made_c, change.takes};
        }
        if (norms_ != nullptr) {
            hidden_products_[n] = {h_prev, zeros, hidden_.at(n)};
            norms_[n] = {hidden_.at(n), nullptr, shown_.at(n), nullptr, scales_.at(n)};
            if (change.norms != nullptr) {
                const NormPlaces<T> tape(*spec_, change.norms);
                norms_[n] = {hidden_.at(n), tape.hidden, shown_.at(n), tape.c, tape.scales + 1};
            }
        }
        set_row<kKind>(n, at, h_prev, made_c, zeros);
    }

    /// Computes the first n rows; a projection has `columns` columns.
    void run(const Kernels<T>& kernels, const StepArgs<T>& args, const Packed<T>& w_hr,
             int64_t columns, bool train, int64_t n) const noexcept {
        switch (args.cell.kind) {
            case CellKind::rnn:
                kernels.rnn_forward(args, rnn_, n);
                break;
            case CellKind::lstm:
                kernels.lstm_forward[train](args, lstm_, n);
                if (projections_) kernels.product(w_hr, columns, projections_, n);
                break;
            case CellKind::gru:
                kernels.gru_forward[train](args, gru_, n);
                break;
        }
    }
    /// The same of rows with changes.
    void run_changed(const Kernels<T>& kernels, const StepArgs<T>& args, const Packed<T>& w_hr,
                     int64_t columns, bool train, int64_t n) const noexcept {
        StepArgs<T> step = args;
        if (norms_ != nullptr) {
            kernels.product(args.w, args.w.N, hidden_products_, n);
            step.w = {};
            step.norms = norms_;
        }
        run(kernels, step, w_hr, columns, train, n);
        for (int64_t i = 0; zoned_ && i < n; ++i) zone(zoned_[i]);
    }

private:
    struct ZonedRow {
        ForwardPlace<T> at;
        const T* made_c;
        uint8_t* takes;
    };

    /// Row n with other places for what is multiplied with W_hh and for the new c.
    template <CellKind kKind>
    void set_row(int64_t n, const ForwardPlace<T>& at, const T* h_prev, T* c,
                 const T* zeros) noexcept {
        if constexpr (kKind == CellKind::rnn) {
            T* const sum = spec_->cell.needs_sums() ? at.gates : nullptr;
            rnn_[n] = {at.pre, h_prev, at.y, at.x, sum};
        } else if constexpr (kKind == CellKind::lstm) {
            T* const m = projections_ ? m_.at(n) : at.y;
            if (projections_) projections_[n] = {m, zeros, at.y};
            lstm_[n] = {at.pre, h_prev, at.c_prev, c, m, at.gates, at.x};
        } else {
            T* const gates = at.gates ? at.gates : gates_.at(n);
            gru_[n] = {at.pre, h_prev, at.y, gates, rh_.at(n), at.x, at.h_prev};
        }
    }

    /// Takes the state of a row that has been computed through zoneout. An RNN keeps its output
    /// on the tape first, if that is what backward needs for the derivative.
    void zone(const ZonedRow& row) const noexcept {
        const ForwardPlace<T>& at = row.at;
        const CellSpec& cell = spec_->cell;
        const Zoneout p = cell.zoneout;
        const int64_t H = spec_->hidden_size, P = spec_->output_size();
        if (cell.kind == CellKind::rnn && at.gates && !cell.needs_sums())
            std::memcpy(at.gates, at.y, sizeof(T) * H);
        if (row.takes == nullptr) {
            if (p.h > 0) zone_row_in_the_mean(p.h, P, at.h_prev, at.y, at.y);
            if (p.c > 0) zone_row_in_the_mean(p.c, H, at.c_prev, row.made_c, at.c);
        } else {
            const ZonePlaces takes(*spec_, row.takes);
            if (p.h > 0) zone_row(takes.h, P, at.h_prev, at.y);
            if (p.c > 0) {
                std::memcpy(at.c, row.made_c, sizeof(T) * H);
                zone_row(takes.c, H, at.c_prev, at.c);
            }
        }
    }

    const LayerSpec* spec_;
    RnnForwardRow<T>* rnn_ = nullptr;  ///< of these three, only the one of the layer's cell is set
    LstmForwardRow<T>* lstm_ = nullptr;
    GruForwardRow<T>* gru_ = nullptr;
    StridedRows<T> m_;  ///< (count, H) what a projection reads
    ProductRow<T>* projections_ = nullptr;
    StridedRows<T> gates_;   ///< (count, rows * H) GRU in inference, see GruForwardRow::gates
    StridedRows<T> rh_;      ///< (count, H) GRU, see GruForwardRow::rh
    StridedRows<T> masked_;  ///< (count, P) h_prev with recurrent dropout
    StridedRows<T> made_c_;  ///< (count, H) c before zoneout, where no tape keeps it
    ZonedRow* zoned_ = nullptr;
    NormRow<T>* norms_ = nullptr;
    ProductRow<T>* hidden_products_ = nullptr;
    StridedRows<T> hidden_, shown_, scales_;  ///< (count, G*H), (count, H), (count, 2), see NormRow
};

/// Where one row of a step reads and writes in backward. dgates are the gradients of the sums that
/// the gates are activations of.
template <class T>
struct BackwardPlace {
    const T* a;        ///< left factor of the product: the next step's dgates, or dh, or zeros
    const T* dy;       ///< (H) gradient of the output at this step
    const T* extra;    ///< (H) what else is added to the gradient of h
    const T* y;        ///< (H) RNN
    const T* h_prev;   ///< (H) GRU, what was multiplied with W_hh
    const T* kept;     ///< (H) GRU, the state itself
    const T* mask;     ///< (H) GRU, the factors between these two, or null
    const T* gates;    ///< on the tape
    const T* c;        ///< (H) LSTM
    const T* c_prev;   ///< (H) LSTM
    const T* dc_next;  ///< (H) LSTM
    T* dc;             ///< (H) LSTM
    T* m;              ///< (H) LSTM, written for the gradient of a projection, else null
    T* carry;          ///< (H) GRU
    T* dgates;         ///< (gates, H)
};

template <class T>
class BackwardRows {
public:
    BackwardRows(CellKind kind, int64_t count, Arena& arena) : kind_(kind) {
        if (kind == CellKind::rnn) rnn_ = arena.take<RnnBackwardRow<T>>(count);
        if (kind == CellKind::lstm) lstm_ = arena.take<LstmBackwardRow<T>>(count);
        if (kind == CellKind::gru) gru_ = arena.take<GruBackwardRow<T>>(count);
    }

    template <CellKind kKind>
    void set(int64_t n, const BackwardPlace<T>& at) noexcept {
        if constexpr (kKind == CellKind::rnn)
            rnn_[n] = {at.a, at.dy, at.extra, at.y, at.dgates};
        else if constexpr (kKind == CellKind::lstm)
            lstm_[n] = {at.a, at.dy,     at.extra,  at.dc_next, at.gates,
                        at.c, at.c_prev, at.dgates, at.dc,      at.m};
        else
            gru_[n] = {at.a,      at.dy,    at.extra, at.gates, at.h_prev,
                       at.dgates, at.carry, at.kept,  at.mask};
    }

    /// For an LSTM with a projection: adds dy of the first n rows to what `products` have written,
    /// the gradients of h, and leaves zeros as their dy.
    void move_dy(const ProductRow<T>* products, int64_t n, int64_t P, const T* zeros) noexcept {
        for (int64_t i = 0; i < n; ++i) {
            for (int64_t p = 0; p < P; ++p) products[i].out[p] += lstm_[i].dy[p];
            lstm_[i].dy = zeros;
        }
    }

    /// Computes rows [first, last).
    void run(const Kernels<T>& kernels, const StepArgs<T>& args, int64_t first,
             int64_t last) const noexcept {
        const int64_t n = last - first;
        if (kind_ == CellKind::rnn) kernels.rnn_backward(args, rnn_ + first, n);
        if (kind_ == CellKind::lstm) kernels.lstm_backward(args, lstm_ + first, n);
        if (kind_ == CellKind::gru) kernels.gru_backward(args, gru_ + first, n);
    }

private:
    CellKind kind_;
    RnnBackwardRow<T>* rnn_ = nullptr;  ///< of these three, only the one of the layer's cell is set
    LstmBackwardRow<T>* lstm_ = nullptr;
    GruBackwardRow<T>* gru_ = nullptr;
};

}  // namespace lstmcore
