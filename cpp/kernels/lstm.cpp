// The LSTM and its variants, one step of n rows: forward, and backward under it, step by step.
//
// Gates i, f, g, o (kGates = 4), or i, g, o (kGates = 3) where f is 1 - i or 1.
#include "activations-inl.h"
#include "entries.h"
#include "norm-inl.h"
#include "product-inl.h"
#include "step-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// sigmoid and tanh and neither peepholes nor clip: the compiler drops what is not there.
inline bool is_plain_lstm(const CellSpec& cell) {
    return has_standard_activations(cell) && !cell.peephole && cell.cell_clip == 0;
}

/// Weights of the peephole of one gate, i, f, o by `index` 0, kGates - 3, kGates - 2.
template <class T>
LSTMCORE_INLINE Packet<T> peephole(const StepArgs<T>& step, int64_t index, int64_t unit) {
    const int64_t padded = (step.H + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
    return load(step.peephole + index * padded + unit);
}

/// A step with layer normalisation, whose products have been made: cells, then outputs, which need
/// the whole of c.
template <class T, int kGates, class FinishCell, class FinishOutput>
void finish_normalized(const StepArgs<T>& step, const LstmForwardRow<T>* rows, int64_t n,
                       FinishCell finish_cell, FinishOutput finish_output) {
    constexpr int L = kLanes<T>;
    const int64_t H = step.H;
    alignas(64) T tile[kGates * L];
    const auto put_sum = [&](int gate, int64_t unit, int64_t row) LSTMCORE_INLINE_LAMBDA {
        store(tile + gate * L,
              sum_of_gate<T>(rows[row].pre, step.norms[row].hidden, gate, unit, H));
    };
    const auto hidden_of = [&](int64_t row) { return of_hidden(step.norms[row]); };
    normalize_rows<T>(n, kGates * H, step.ln_hh, nullptr, hidden_of, [&](int64_t row) {
        for (int64_t unit = 0; unit < H; unit += L) {
            for (int g = 0; g < kGates; ++g) put_sum(g, unit, row);
            finish_cell(unit, row, tile);
        }
    });
    const auto c_of = [&](int64_t row) {
        const NormRow<T>& norm = step.norms[row];
        return NormalizedRow<T>{rows[row].c, norm.shown, norm.c_normal, norm.scales + 1};
    };
    normalize_rows<T>(n, H, step.ln_c, step.ln_c_bias, c_of, [&](int64_t row) {
        for (int64_t unit = 0; unit < H; unit += L) {
            store(tile, load(rows[row].c + unit, H - unit));
            put_sum(kGates - 1, unit, row);
            finish_output(unit, row, tile);
        }
    });
}

template <class T, int kGates, bool kPlain, bool kTrain, bool kNorm>
void lstm_forward_variant(const StepArgs<T>& step, const LstmForwardRow<T>* rows,
                          const Factors<LstmForwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const bool peeps = !kPlain && step.cell.peephole;
    const T clip = T(step.cell.cell_clip);
    const int64_t H = step.H;

    [[maybe_unused]] const auto start = [&](int64_t unit, int64_t row) LSTMCORE_INLINE_LAMBDA {
        if constexpr (kTrain) {
            for (int g = 0; g < kGates; ++g) prefetch(rows[row].gates + g * H + unit);
            prefetch(rows[row].c + unit);
        }
        prefetch(rows[row].m + unit);
        return rows[row].pre + unit * kGates;
    };
    // 1. input and forget gates, candidate, cell; the cell is written over the input gate's sum
    const auto finish_cell = [=, &step](int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
        const LstmForwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        P i = load(tile), g = load(tile + (kGates - 2) * L);
        P f = load(tile + L);  // of kGates == 4
        const P c_prev = load(at.c_prev + unit, valid);
        if (peeps) i = pmadd(peephole(step, 0, unit), c_prev, i);
        const P i_sum = i, g_sum = g;
        if (!kPlain || kTrain || kGates == 3) i = act.gate(i);
        if constexpr (kGates == 4) {
            if (peeps) f = pmadd(peephole(step, 1, unit), c_prev, f);
            if (kTrain && act.keeps_sums()) store(at.gates + (kGates + 1) * H + unit, f, valid);
            f = act.gate(f);
        } else {
            f = step.cell.coupled ? psub(set(T(1)), i) : set(T(1));
        }
        if (!kPlain || kTrain) g = act.candidate(g);
        const P input = kPlain ? sigmoid_times_tanh<T>(i_sum, g_sum) : pmul(i, g);
        P c = pmadd(f, c_prev, input);
        if (!kPlain && clip > 0) c = clamp(c, -clip, clip);
        store(tile, c);
        store(at.c + unit, c, valid);
        if constexpr (kTrain) {
            store(at.gates + unit, i, valid);
            if constexpr (kGates == 4) store(at.gates + H + unit, f, valid);
            store(at.gates + (kGates - 2) * H + unit, g, valid);
            if (act.keeps_sums()) {
                store(at.gates + kGates * H + unit, i_sum, valid);
                store(at.gates + (2 * kGates - 2) * H + unit, g_sum, valid);
            }
        }
    };
    // 2. output gate and output
    const auto finish_output = [=, &step](int64_t unit, int64_t row,
                                          T* tile) LSTMCORE_INLINE_LAMBDA {
        const LstmForwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        P o = load(tile + (kGates - 1) * L);
        const P c = load(tile);
        if (peeps) o = pmadd(peephole(step, kGates - 2, unit), c, o);
        const P o_sum = o;
        if (!kPlain || kTrain) o = act.gate(o);
        P shown = c;
        if constexpr (kNorm) shown = load(step.norms[row].shown + unit, valid);
        store(at.m + unit,
              kPlain ? sigmoid_times_tanh<T>(o_sum, shown) : pmul(o, act.output(shown)), valid);
        if constexpr (kTrain) {
            store(at.gates + (kGates - 1) * H + unit, o, valid);
            if (act.keeps_sums()) store(at.gates + (2 * kGates - 1) * H + unit, o_sum, valid);
        }
    };
    if constexpr (kNorm) {
        finish_normalized<T, kGates>(step, rows, n, finish_cell, finish_output);
    } else {
        if constexpr (!kTrain) {
            if (n == 1 && is_kept_whole(step))
                return step_gates<T, kGates>(step, StepRow<T>::of(step, *rows, factors), Nothing{},
                                             finish_cell, finish_output);
        }
        multiply_gates<T, kGates>(step, factors, n, start, Nothing{}, finish_cell, finish_output);
    }
}

/// The part of backward that layer normalisation takes in one piece, before all else: from the
/// gradient of o * output(shown) that of `shown`, and what that adds to the gradient of c.
template <class T, bool kPlain, class ShownOf>
void lstm_backward_shown(const StepArgs<T>& step, const LstmBackwardRow<T>* rows, int64_t n,
                         ShownOf shown_of) {
    using P = Packet<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H, output = step.cell.gates() - 1;
    for (int64_t row = 0; row < n; ++row) {
        const LstmBackwardRow<T>& at = rows[row];
        const NormBackwardRow<T>& norm = step.backward_norms[row];
        for (int64_t unit = 0; unit < H; unit += kLanes<T>) {
            const int64_t valid = H - unit;
            const P dm = padd(load(at.extra + unit, valid), load(at.dy + unit, valid));
            const P o = load(at.gates + output * H + unit, valid);
            const P shown = shown_of(unit, row),
                    slope = act.output_derivative(act.output(shown), shown);
            store(norm.dshown + unit, pmul(pmul(dm, o), slope), valid);
        }
        normalize_backward<T>(H, norm.dshown, norm.normal, step.ln_c, *norm.scale, norm.dc);
    }
}

template <class T, int kGates, bool kPlain, bool kNorm>
void lstm_backward_variant(const StepArgs<T>& step, const LstmBackwardRow<T>* rows,
                           const Factors<LstmBackwardRow<T>>& factors, int64_t n) {
    using P = Packet<T>;
    const CellActivations<T, kPlain> act{step.cell};
    const bool peeps = !kPlain && step.cell.peephole;
    const T clip = T(step.cell.cell_clip);
    const int64_t H = step.H;

    [[maybe_unused]] const auto start = [&](auto vectors, int64_t unit, int64_t row,
                                            T* tile) LSTMCORE_INLINE_LAMBDA {
        const LstmBackwardRow<T>& at = rows[row];
        for (int g = 0; g < kGates; ++g) prefetch_panel<T>(vectors, at.gates + g * H + unit);
        prefetch_panel<T>(vectors, at.c + unit, at.c_prev + unit, at.dy + unit);
        return chains_from(vectors, at.extra + unit, H - unit, tile);
    };
    [[maybe_unused]] const auto shown_of = [=, &step](int64_t unit,
                                                      int64_t row) LSTMCORE_INLINE_LAMBDA {
        const int64_t valid = H - unit;
        return pmadd(load(step.backward_norms[row].normal + unit, valid),
                     load(step.ln_c + unit, valid), load(step.ln_c_bias + unit, valid));
    };
    const auto finish = [=, &step](int64_t unit, int64_t row, const P& sum) LSTMCORE_INLINE_LAMBDA {
        const LstmBackwardRow<T>& at = rows[row];
        const int64_t valid = H - unit;
        const P dm = padd(sum, load(at.dy + unit, valid));
        const P i = load(at.gates + unit, valid),
                g = load(at.gates + (kGates - 2) * H + unit, valid),
                o = load(at.gates + (kGates - 1) * H + unit, valid);
        const P c = load(at.c + unit, valid), c_prev = load(at.c_prev + unit, valid);
        const auto sum_of = [&](int gate) LSTMCORE_INLINE_LAMBDA {
            return [=]() LSTMCORE_INLINE_LAMBDA {
                return load(at.gates + (kGates + gate) * H + unit, valid);
            };
        };
        // 3. output and output gate
        P shown = c;
        if constexpr (kNorm) shown = shown_of(unit, row);
        const P squashed = act.output(shown);
        const P d_o = pmul(pmul(dm, squashed), act.gate_derivative(o, sum_of(kGates - 1)));
        P dc = load(at.dc_next + unit, valid);
        if constexpr (kNorm)
            dc = padd(load(step.backward_norms[row].dc + unit, valid), dc);
        else
            dc = pmadd(pmul(dm, o), act.output_derivative(squashed, shown), dc);
        if (peeps) dc = pmadd(d_o, peephole(step, kGates - 2, unit), dc);
        // 2. cell and candidate
        if (!kPlain && clip > 0)
            dc = simd::pselect(simd::pcmp_lt(simd::pabs(c), set(clip)), dc, set(T(0)));
        const P d_g = pmul(pmul(dc, i), act.candidate_derivative(g, sum_of(kGates - 2)));
        // 1. forget and input gates
        P d_i = pmul(dc, g), dc_prev = dc;
        if constexpr (kGates == 4) {
            const P f = load(at.gates + H + unit, valid);
            const P d_f = pmul(pmul(dc, c_prev), act.gate_derivative(f, sum_of(1)));
            dc_prev = pmul(dc, f);
            if (peeps) dc_prev = pmadd(d_f, peephole(step, 1, unit), dc_prev);
            store(at.dgates + H + unit, d_f, valid);
        } else if (step.cell.coupled) {
            d_i = pmul(dc, psub(g, c_prev));
            dc_prev = pmul(dc, psub(set(T(1)), i));
        }
        d_i = pmul(d_i, act.gate_derivative(i, sum_of(0)));
        if (peeps) dc_prev = pmadd(d_i, peephole(step, 0, unit), dc_prev);
        store(at.dgates + unit, d_i, valid);
        store(at.dgates + (kGates - 2) * H + unit, d_g, valid);
        store(at.dgates + (kGates - 1) * H + unit, d_o, valid);
        store(at.dc + unit, dc_prev, valid);
        if (at.m != nullptr) store(at.m + unit, pmul(o, squashed), valid);
    };
    if constexpr (kNorm) {
        // The product has been made, and is in `extra`, but for that with W_hr.
        lstm_backward_shown<T, kPlain>(step, rows, n, shown_of);
        for (int64_t row = 0; row < n; ++row)
            for (int64_t unit = 0; unit < H; unit += kLanes<T>)
                finish(unit, row, load(rows[row].extra + unit, H - unit));
    } else {
        multiply_columns(
            step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); },
            no_input<T>(), start, each_register<T>(finish));
    }
}

template <class T, bool kTrain, bool kNorm>
void lstm_forward_with(const StepArgs<T>& step, const LstmForwardRow<T>* rows,
                       const Factors<LstmForwardRow<T>>& factors, int64_t n) {
    const bool plain = is_plain_lstm(step.cell), four = step.cell.gates() == 4;
    const auto run = four ? (plain ? lstm_forward_variant<T, 4, true, kTrain, kNorm>
                                   : lstm_forward_variant<T, 4, false, kTrain, kNorm>)
                          : (plain ? lstm_forward_variant<T, 3, true, kTrain, kNorm>
                                   : lstm_forward_variant<T, 3, false, kTrain, kNorm>);
    run(step, rows, factors, n);
}

template <class T, bool kNorm>
void lstm_backward_with(const StepArgs<T>& step, const LstmBackwardRow<T>* rows,
                        const Factors<LstmBackwardRow<T>>& factors, int64_t n) {
    const bool plain = is_plain_lstm(step.cell), four = step.cell.gates() == 4;
    const auto run = four ? (plain ? lstm_backward_variant<T, 4, true, kNorm>
                                   : lstm_backward_variant<T, 4, false, kNorm>)
                          : (plain ? lstm_backward_variant<T, 3, true, kNorm>
                                   : lstm_backward_variant<T, 3, false, kNorm>);
    run(step, rows, factors, n);
}

template <class T, bool kTrain>
LSTMCORE_ONE_COPY void lstm_forward_normalized(const StepArgs<T>& step,
                                               const LstmForwardRow<T>* rows, int64_t n) {
    lstm_forward_with<T, kTrain, true>(step, rows, Factors<LstmForwardRow<T>>{rows}, n);
}
template <class T>
LSTMCORE_ONE_COPY void lstm_backward_normalized(const StepArgs<T>& step,
                                                const LstmBackwardRow<T>* rows, int64_t n) {
    lstm_backward_with<T, true>(step, rows, Factors<LstmBackwardRow<T>>{rows}, n);
}

}  // namespace

template <class T, bool kTrain>
void lstm_forward(const StepArgs<T>& step, const LstmForwardRow<T>* rows, int64_t n) {
    if (step.cell.layer_norm) return lstm_forward_normalized<T, kTrain>(step, rows, n);
    with_factors<!kTrain>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        lstm_forward_with<T, kTrain, false>(step, part, factors, count);
    });
}

template <class T>
void lstm_backward(const StepArgs<T>& step, const LstmBackwardRow<T>* rows, int64_t n) {
    if (step.cell.layer_norm) return lstm_backward_normalized(step, rows, n);
    with_factors<false>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        lstm_backward_with<T, false>(step, part, factors, count);
    });
}

template void lstm_forward<float, false>(const StepArgs<float>&, const LstmForwardRow<float>*,
                                         int64_t);
template void lstm_forward<double, false>(const StepArgs<double>&, const LstmForwardRow<double>*,
                                          int64_t);
template void lstm_forward<float, true>(const StepArgs<float>&, const LstmForwardRow<float>*,
                                        int64_t);
template void lstm_forward<double, true>(const StepArgs<double>&, const LstmForwardRow<double>*,
                                         int64_t);
template void lstm_backward<float>(const StepArgs<float>&, const LstmBackwardRow<float>*, int64_t);
template void lstm_backward<double>(const StepArgs<double>&, const LstmBackwardRow<double>*,
                                    int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
