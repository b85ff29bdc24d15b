// Elman's RNN (1990), one step of n rows: forward, and backward under it.
#include "activations-inl.h"
#include "entries.h"
#include "norm-inl.h"
#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// tanh without clipping, known to the compiler.
inline bool is_plain_rnn(const CellSpec& cell) {
    return cell.candidate.kind == ActivationKind::tanh && cell.gate_clip == 0;
}

template <class T, bool kPlain>
void rnn_forward_variant(const StepArgs<T>& step, const RnnForwardRow<T>* rows,
                         const Factors<RnnForwardRow<T>>& factors, int64_t n) {
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;
    const auto x_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.x(row); };
    multiply_columns(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); },
        input<T>(step.w_in, x_of, Nothing{}),
        [&](auto vectors, int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
            prefetch_panel<T>(vectors, rows[row].y + unit);
            return Ends<T>{rows[row].pre + unit, tile};
        },
        each_register<T>([=](int64_t unit, int64_t row, const Packet<T>& pre)
                             LSTMCORE_INLINE_LAMBDA {
                                 if constexpr (!kPlain)
                                     if (rows[row].sum != nullptr)
                                         store(rows[row].sum + unit, pre, H - unit);
                                 store(rows[row].y + unit, act.candidate(pre), H - unit);
                             }));
}

/// The same with layer normalisation.
template <class T, bool kPlain>
void rnn_normalized_variant(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n) {
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;
    normalize_rows<T>(
        n, H, step.ln_hh, nullptr, [&](int64_t row) { return of_hidden(step.norms[row]); },
        [&](int64_t row) LSTMCORE_INLINE_LAMBDA {
            const NormRow<T>& norm = step.norms[row];
            for (int64_t unit = 0; unit < H; unit += kLanes<T>) {
                const Packet<T> sum = sum_of_gate<T>(rows[row].pre, norm.hidden, 0, unit, H);
                if constexpr (!kPlain)
                    if (rows[row].sum != nullptr) store(rows[row].sum + unit, sum, H - unit);
                store(rows[row].y + unit, act.candidate(sum), H - unit);
            }
        });
}

template <class T, bool kPlain>
void rnn_backward_variant(const StepArgs<T>& step, const RnnBackwardRow<T>* rows,
                          const Factors<RnnBackwardRow<T>>& factors, int64_t n) {
    const CellActivations<T, kPlain> act{step.cell};
    const int64_t H = step.H;
    multiply_columns(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); },
        no_input<T>(),
        [&](auto vectors, int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
            const RnnBackwardRow<T>& at = rows[row];
            prefetch_panel<T>(vectors, at.y + unit, at.dy + unit);
            return chains_from(vectors, at.extra + unit, H - unit, tile);
        },
        each_register<T>([=](int64_t unit, int64_t row,
                             const Packet<T>& sum) LSTMCORE_INLINE_LAMBDA {
            const RnnBackwardRow<T>& at = rows[row];
            const int64_t valid = H - unit;
            const Packet<T> dh = padd(sum, load(at.dy + unit, valid)), y = load(at.y + unit, valid);
            const Packet<T> slope =
                act.candidate_derivative(y, [&]() LSTMCORE_INLINE_LAMBDA { return y; });
            store(at.dgates + unit, pmul(dh, slope), valid);
        }));
}

template <class T>
void rnn_forward_with(const StepArgs<T>& step, const RnnForwardRow<T>* rows,
                      const Factors<RnnForwardRow<T>>& factors, int64_t n) {
    const auto run =
        is_plain_rnn(step.cell) ? rnn_forward_variant<T, true> : rnn_forward_variant<T, false>;
    run(step, rows, factors, n);
}

/// Not inlined, here and in the other cells: a plain step would take longer, too.
template <class T>
LSTMCORE_ONE_COPY void rnn_forward_normalized(const StepArgs<T>& step, const RnnForwardRow<T>* rows,
                                              int64_t n) {
    const auto run = is_plain_rnn(step.cell) ? rnn_normalized_variant<T, true>
                                             : rnn_normalized_variant<T, false>;
    run(step, rows, n);
}

template <class T>
void rnn_backward_with(const StepArgs<T>& step, const RnnBackwardRow<T>* rows,
                       const Factors<RnnBackwardRow<T>>& factors, int64_t n) {
    const auto run =
        is_plain_rnn(step.cell) ? rnn_backward_variant<T, true> : rnn_backward_variant<T, false>;
    run(step, rows, factors, n);
}

}  // namespace

template <class T>
void rnn_forward(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n) {
    if (step.cell.layer_norm) return rnn_forward_normalized(step, rows, n);
    with_factors<true>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        rnn_forward_with<T>(step, part, factors, count);
    });
}

template <class T>
void rnn_backward(const StepArgs<T>& step, const RnnBackwardRow<T>* rows, int64_t n) {
    with_factors<false>(step, rows, n, [&](auto part, const auto& factors, int64_t count) {
        rnn_backward_with<T>(step, part, factors, count);
    });
}

template void rnn_forward<float>(const StepArgs<float>&, const RnnForwardRow<float>*, int64_t);
template void rnn_forward<double>(const StepArgs<double>&, const RnnForwardRow<double>*, int64_t);
template void rnn_backward<float>(const StepArgs<float>&, const RnnBackwardRow<float>*, int64_t);
template void rnn_backward<double>(const StepArgs<double>&, const RnnBackwardRow<double>*, int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
