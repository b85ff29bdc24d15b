// The GRU with its reset gate after or before the product, one step of n rows: forward, and
// backward under it. h = (1 - z) n + z h_prev.
#include "activations-inl.h"
#include "entries.h"
#include "norm-inl.h"
#include "product-inl.h"
#include "step-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

template <class T>
LSTMCORE_INLINE Packet<T> interpolate(const Packet<T>& z, const Packet<T>& n,
                                      const Packet<T>& h_prev) {
    return pmadd(z, h_prev, pmul(psub(set(T(1)), z), n));
}

/// A step with layer normalisation, whose products have been made.
template <class T, class Finish>
void finish_normalized(const StepArgs<T>& step, const GruForwardRow<T>* rows, int64_t n,
                       Finish finish) {
    constexpr int L = kLanes<T>;
    const int64_t H = step.H;
    alignas(64) T tile[3 * L];
    const auto hidden_of = [&](int64_t row) { return of_hidden(step.norms[row]); };
    normalize_rows<T>(n, 3 * H, step.ln_hh, nullptr, hidden_of, [&](int64_t row) {
        const GruForwardRow<T>& at = rows[row];
        const NormRow<T>& norm = step.norms[row];
        for (int64_t unit = 0; unit < H; unit += L) {
            const int64_t valid = H - unit;
            for (int g = 0; g < 2; ++g)
                store(tile + g * L, sum_of_gate<T>(at.pre, norm.hidden, g, unit, H));
            store(at.rh + unit, load(at.pre + 2 * H + unit, valid), valid);
            const T* const hidden = norm.hidden + 2 * H + unit;
            store(tile + 2 * L, padd(load(hidden, valid), load(step.b_hn + unit, valid)));
            finish(unit, row, tile);
        }
    });
}

/// What entered a gate, r, z or n, where the tape has that: behind its other rows.
template <class T>
LSTMCORE_INLINE auto sum_of(const StepArgs<T>& step, const T* gates, int gate, int64_t unit) {
    return [=, H = step.H, rows = step.cell.reset_after ? 4 : 3]()
               LSTMCORE_INLINE_LAMBDA { return load(gates + (rows + gate) * H + unit, H - unit); };
}

/// n = candidate(pre_n + r (W_hn h_prev + b_hn)): Cho et al. (2014) as in cuDNN, one product.
template <class T, bool kPlain, bool kTrain, bool kNorm>
void gru_forward_reset_after(const StepArgs<T>& step, const GruForwardRow<T>* rows,
                             const Factors<GruForwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;

    [[maybe_unused]] const auto start = [&](int64_t unit, int64_t row) LSTMCORE_INLINE_LAMBDA {
        const GruForwardRow<T>& at = rows[row];
        if constexpr (kTrain)
            for (int g = 0; g < 4; ++g) prefetch(at.gates + g * H + unit);
        prefetch(at.y + unit);
        return at.pre + unit * 3;
    };
    // rh holds the input's part of n until the product is done.
    [[maybe_unused]] const auto between = [&](int64_t unit, int64_t row, P& sums)
                                              LSTMCORE_INLINE_LAMBDA {
                                                  store(rows[row].rh + unit, sums, H - unit);
                                                  sums = load(step.b_hn + unit);
                                              };
    const auto finish = [=](int64_t unit, int64_t row, const T* tile) LSTMCORE_INLINE_LAMBDA {
        const GruForwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        const P r = act.gate(load(tile)), z = act.gate(load(tile + L)), hn = load(tile + 2 * L);
        const P n_sum = pmadd(r, hn, load(at.rh + unit, valid)), candidate = act.candidate(n_sum);
        store(at.y + unit, interpolate<T>(z, candidate, load(at.kept + unit, valid)), valid);
        if constexpr (kTrain) {
            store(at.gates + unit, r, valid);
            store(at.gates + H + unit, z, valid);
            store(at.gates + 2 * H + unit, candidate, valid);
            store(at.gates + 3 * H + unit, hn, valid);
            if (act.keeps_sums()) {
                store(at.gates + 4 * H + unit, load(tile), valid);
                store(at.gates + 5 * H + unit, load(tile + L), valid);
                store(at.gates + 6 * H + unit, n_sum, valid);
            }
        }
    };
    if constexpr (kNorm) {
        finish_normalized<T>(step, rows, n, finish);
    } else {
        if constexpr (!kTrain) {
            if (n == 1 && is_kept_whole(step))
                return step_gates<T, 3>(step, StepRow<T>::of(step, *rows, factors), between,
                                        finish);
        }
        multiply_gates<T, 3>(step, factors, n, start, between, finish);
    }
}

template <class T, bool kPlain>
void gru_backward_reset_after(const StepArgs<T>& step, const GruBackwardRow<T>* rows,
                              const Factors<GruBackwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;

    const auto start = [&](auto vectors, int64_t unit, int64_t row, T* tile)
                           LSTMCORE_INLINE_LAMBDA {
                               const GruBackwardRow<T>& at = rows[row];
                               for (int g = 0; g < 4; ++g)
                                   prefetch_panel<T>(vectors, at.gates + g * H + unit);
                               prefetch_panel<T>(vectors, at.kept + unit, at.dy + unit);
                               return chains_from(vectors, at.extra + unit, H - unit, tile);
                           };
    const auto finish = [=, &step](int64_t unit, int64_t row, const P& sum) LSTMCORE_INLINE_LAMBDA {
        const GruBackwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        const auto entered = [&](int gate) LSTMCORE_INLINE_LAMBDA {
            return sum_of(step, at.gates, gate, unit);
        };
        const P dh = padd(sum, load(at.dy + unit, valid));
        const P r = load(at.gates + unit, valid), z = load(at.gates + H + unit, valid),
                candidate = load(at.gates + 2 * H + unit, valid),
                hn = load(at.gates + 3 * H + unit, valid), kept = load(at.kept + unit, valid);
        const P d_n =
            pmul(pmul(dh, psub(set(T(1)), z)), act.candidate_derivative(candidate, entered(2)));
        const P d_z = pmul(pmul(dh, psub(kept, candidate)), act.gate_derivative(z, entered(1)));
        const P d_r = pmul(pmul(d_n, hn), act.gate_derivative(r, entered(0)));
        store(at.dgates + unit, d_n, valid);
        store(at.dgates + H + unit, d_r, valid);
        store(at.dgates + 2 * H + unit, d_z, valid);
        store(at.dgates + 3 * H + unit, pmul(d_n, r), valid);
        store(at.carry + unit, pmul(dh, z), valid);
    };
    multiply_columns(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); },
        no_input<T>(), start, each_register<T>(finish));
}

/// n = candidate(pre_n + W_hn (r h_prev)): Cho et al. (2014), ONNX's default. step.w holds r and z.
template <class T, bool kPlain>
void gru_forward_reset_before(const StepArgs<T>& step, const GruForwardRow<T>* rows,
                              const Factors<GruForwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;

    // 1. r, z and r h_prev of all units
    const auto start_gates = [&](int64_t unit, int64_t row)
                                 LSTMCORE_INLINE_LAMBDA { return rows[row].pre + unit * 3; };
    const auto finish_gates = [=](int64_t unit, int64_t row, const T* tile) LSTMCORE_INLINE_LAMBDA {
        const GruForwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        const P r = act.gate(load(tile)), z = act.gate(load(tile + L));
        store(at.rh + unit, pmul(r, load(at.h_prev + unit, valid)), valid);
        store(at.gates + unit, r, valid);
        store(at.gates + H + unit, z, valid);
        if (act.keeps_sums()) {
            store(at.gates + 3 * H + unit, load(tile), valid);
            store(at.gates + 4 * H + unit, load(tile + L), valid);
        }
    };
    multiply_gates<T, 2>(step, factors, n, start_gates, Nothing{}, finish_gates);
    // 2. candidate and output
    const auto rh_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].rh; };
    multiply_columns(
        step.w_n, n, factors.again(step.w_n, n, rh_of), no_input<T>(),
        [&](auto vectors, int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
            for (int64_t v = 0; v < vectors * L; v += L)
                store(tile + v, load(rows[row].pre + (unit + v) * 3 + 2 * L));
            return Ends<T>{tile, tile};
        },
        each_register<T>([=](int64_t unit, int64_t row, const P& pre) LSTMCORE_INLINE_LAMBDA {
            const GruForwardRow<T>& at = rows[row];
            const int64_t valid = H - unit;
            const P candidate = act.candidate(pre), z = load(at.gates + H + unit, valid);
            store(at.y + unit, interpolate<T>(z, candidate, load(at.kept + unit, valid)), valid);
            store(at.gates + 2 * H + unit, candidate, valid);
            if (act.keeps_sums()) store(at.gates + 5 * H + unit, pre, valid);
        }));
}

template <class T, bool kPlain>
void gru_backward_reset_before(const StepArgs<T>& step, const GruBackwardRow<T>* rows,
                               const Factors<GruBackwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;

    // 2. candidate and update gate
    multiply_columns(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); },
        no_input<T>(),
        [&](auto vectors, int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
            return chains_from(vectors, rows[row].extra + unit, H - unit, tile);
        },
        each_register<T>([=, &step](int64_t unit, int64_t row,
                                    const P& sum) LSTMCORE_INLINE_LAMBDA {
            const GruBackwardRow<T>& at = rows[row];
            const int64_t valid = H - unit;
            const P dh = padd(sum, load(at.dy + unit, valid));
            const P z = load(at.gates + H + unit, valid),
                    candidate = load(at.gates + 2 * H + unit, valid),
                    kept = load(at.kept + unit, valid);
            const P slope = act.candidate_derivative(candidate, sum_of(step, at.gates, 2, unit));
            const P z_slope = act.gate_derivative(z, sum_of(step, at.gates, 1, unit));
            store(at.dgates + unit, pmul(pmul(dh, psub(set(T(1)), z)), slope), valid);
            store(at.dgates + 2 * H + unit, pmul(pmul(dh, psub(kept, candidate)), z_slope), valid);
            store(at.carry + unit, pmul(dh, z), valid);
        }));
    // 1. through W_hn to r h_prev, and so to the reset gate and h_prev
    const auto dn_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].dgates; };
    multiply_columns(
        step.w_n, n, factors.again(step.w_n, n, dn_of), no_input<T>(),
        [](auto vectors, int64_t, int64_t, T* tile)
            LSTMCORE_INLINE_LAMBDA { return chains_from(vectors, tile, 0, tile); },
        each_register<T>(
            [=, &step](int64_t unit, int64_t row, const P& d_rh) LSTMCORE_INLINE_LAMBDA {
                const GruBackwardRow<T>& at = rows[row];
                const int64_t valid = H - unit;
                const P r = load(at.gates + unit, valid), h_prev = load(at.h_prev + unit, valid);
                const P slope = act.gate_derivative(r, sum_of(step, at.gates, 0, unit));
                store(at.dgates + H + unit, pmul(pmul(d_rh, h_prev), slope), valid);
                P factor = r;
                if constexpr (!kPlain)
                    if (at.mask != nullptr) factor = pmul(r, load(at.mask + unit, valid));
                store(at.carry + unit, pmadd(d_rh, factor, load(at.carry + unit, valid)), valid);
            }));
}

template <class T, bool kTrain>
void gru_forward_with(const StepArgs<T>& step, const GruForwardRow<T>* rows,
                      const Factors<GruForwardRow<T>>& factors, int64_t n) {
    const bool plain = has_standard_activations(step.cell), after = step.cell.reset_after;
    const auto run =
        after ? (plain ? gru_forward_reset_after<T, true, kTrain, false>
                       : gru_forward_reset_after<T, false, kTrain, false>)
              : (plain ? gru_forward_reset_before<T, true> : gru_forward_reset_before<T, false>);
    run(step, rows, factors, n);
}

template <class T, bool kTrain>
LSTMCORE_ONE_COPY void gru_forward_normalized(const StepArgs<T>& step, const GruForwardRow<T>* rows,
                                              int64_t n) {
    const auto run = has_standard_activations(step.cell)
                         ? gru_forward_reset_after<T, true, kTrain, true>
                         : gru_forward_reset_after<T, false, kTrain, true>;
    run(step, rows, Factors<GruForwardRow<T>>{rows}, n);
}

template <class T>
void gru_backward_with(const StepArgs<T>& step, const GruBackwardRow<T>* rows,
                       const Factors<GruBackwardRow<T>>& factors, int64_t n) {
    const bool after = step.cell.reset_after;
    const bool plain =
        has_standard_activations(step.cell) && (after || n == 0 || rows->mask == nullptr);
    const auto run =
        after ? (plain ? gru_backward_reset_after<T, true> : gru_backward_reset_after<T, false>)
              : (plain ? gru_backward_reset_before<T, true> : gru_backward_reset_before<T, false>);
    run(step, rows, factors, n);
}

}  // namespace

template <class T, bool kTrain>
void gru_forward(const StepArgs<T>& step, const GruForwardRow<T>* rows, int64_t n) {
    if (step.cell.layer_norm) return gru_forward_normalized<T, kTrain>(step, rows, n);
    with_factors<!kTrain>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        gru_forward_with<T, kTrain>(step, part, factors, count);
    });
}

template <class T>
void gru_backward(const StepArgs<T>& step, const GruBackwardRow<T>* rows, int64_t n) {
    with_factors<false>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        gru_backward_with<T>(step, part, factors, count);
    });
}

template void gru_forward<float, false>(const StepArgs<float>&, const GruForwardRow<float>*,
                                        int64_t);
template void gru_forward<double, false>(const StepArgs<double>&, const GruForwardRow<double>*,
                                         int64_t);
template void gru_forward<float, true>(const StepArgs<float>&, const GruForwardRow<float>*,
                                       int64_t);
template void gru_forward<double, true>(const StepArgs<double>&, const GruForwardRow<double>*,
                                        int64_t);
template void gru_backward<float>(const StepArgs<float>&, const GruBackwardRow<float>*, int64_t);
template void gru_backward<double>(const StepArgs<double>&, const GruBackwardRow<double>*, int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
