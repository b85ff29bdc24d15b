// Elman's RNN (1990), one step of n rows: forward, and backward under it.
#pragma once

#include "activations-inl.h"
#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// tanh without clipping, known to the compiler.
inline bool is_plain_rnn(const CellSpec& cell) {
    return cell.candidate.kind == ActivationKind::tanh && cell.gate_clip == 0;
}

template <class T, bool kPlain>
void rnn_forward_variant(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n) {
    const CellActivations<T, kPlain> act{step.cell};
    multiply_columns<T>(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].h_prev; },
        [&](int64_t unit, int64_t row)
            LSTMCORE_INLINE_LAMBDA { return load(rows[row].pre + unit); },
        [&](int64_t unit, int64_t row, const Packet<T>& pre) LSTMCORE_INLINE_LAMBDA {
            store(rows[row].y + unit, act.candidate(pre), step.H - unit);
        });
}

template <class T, bool kPlain>
void rnn_backward_variant(const StepArgs<T>& step, const RnnBackwardRow<T>* rows, int64_t n) {
    const CellActivations<T, kPlain> act{step.cell};
    multiply_columns<T>(
        step.w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; },
        [&](int64_t unit, int64_t row) LSTMCORE_INLINE_LAMBDA {
            for (const T* soon : {rows[row].y, rows[row].dy}) prefetch(soon + unit);
            return load(rows[row].extra + unit, step.H - unit);
        },
        [&](int64_t unit, int64_t row, const Packet<T>& sum) LSTMCORE_INLINE_LAMBDA {
            const int64_t valid = step.H - unit;
            const Packet<T> dh = padd(sum, load(rows[row].dy + unit, valid));
            const Packet<T> y = load(rows[row].y + unit, valid);
            store(rows[row].dgates + unit, pmul(dh, act.candidate_derivative(y)), valid);
        });
}

template <class T>
void rnn_forward(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n) {
    const bool plain = is_plain_rnn(step.cell);
    (plain ? rnn_forward_variant<T, true> : rnn_forward_variant<T, false>)(step, rows, n);
}

template <class T>
void rnn_backward(const StepArgs<T>& step, const RnnBackwardRow<T>* rows, int64_t n) {
    const bool plain = is_plain_rnn(step.cell);
    (plain ? rnn_backward_variant<T, true> : rnn_backward_variant<T, false>)(step, rows, n);
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
