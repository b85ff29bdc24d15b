// Layer normalisation (Ba et al. 2016) of a row: forward, and backward under it.
//
// Sums over a row run in 16 chains over i modulo 16, then in halves, at every level.
#pragma once

#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// The first n lanes of `some`, and `others` behind them.
template <class T>
LSTMCORE_INLINE Packet<T> first_of(const Packet<T>& some, const Packet<T>& others, int64_t n) {
    if (n >= kLanes<T>) return some;
    alignas(64) T lanes[kLanes<T>], behind[kLanes<T>];
    simd::pstore(lanes, some);
    simd::pstore(behind, others);
    for (int64_t i = n; i < kLanes<T>; ++i) lanes[i] = behind[i];
    return simd::pload<Packet<T>>(lanes);
}

/// Chains of a sum over a row, in registers, and rows that are summed side by side: an addition
/// waits for the one before it, so one row alone would leave the adder idle.
template <class T>
constexpr int kSumPackets = 16 / kLanes<T>;
template <class T>
constexpr int kRowsAtOnce = kSumPackets<T> > 4    ? 1
                            : kSumPackets<T> == 4 ? 2
                                                  : 4;

/// The sums over kRows rows of n numbers: add(row, i, valid, sum) adds the register that begins at
/// number i to `sum`. What it adds from lane `valid` on is dropped.
template <class T, int kRows, class Add>
LSTMCORE_INLINE void sum_rows(int64_t n, Add add, T (&sums)[kRows]) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>, kChains = 16;
    constexpr int kPackets = kSumPackets<T>;
    P sum[kRows][kPackets];
    for (int r = 0; r < kRows; ++r)
        for (int j = 0; j < kPackets; ++j) sum[r][j] = set(T(0));
    int64_t i = 0;
    for (; i + kChains <= n; i += kChains)
        for (int r = 0; r < kRows; ++r)
            for (int j = 0; j < kPackets; ++j) sum[r][j] = add(r, i + j * L, L, sum[r][j]);
    for (int j = 0; j < kPackets && i + j * L < n; ++j) {
        const int64_t valid = n - i - j * L;
        for (int r = 0; r < kRows; ++r)
            sum[r][j] = first_of<T>(add(r, i + j * L, valid, sum[r][j]), sum[r][j], valid);
    }
    for (int r = 0; r < kRows; ++r) {
        alignas(64) T chains[kChains];
        for (int j = 0; j < kPackets; ++j) simd::pstore(chains + j * L, sum[r][j]);
        for (int64_t half = kChains / 2; half > 0; half /= 2)
            for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];
        sums[r] = chains[0];
    }
}
/// The same of one row: add(i, valid, sum).
template <class T, class Add>
LSTMCORE_INLINE T sum_row(int64_t n, Add add) {
    T sums[1];
    sum_rows<T, 1>(
        n,
        [=](int, int64_t i, int64_t valid, const Packet<T>& sum)
            LSTMCORE_INLINE_LAMBDA { return add(i, valid, sum); },
        sums);
    return sums[0];
}

/// normalize() of kRows rows.
template <class T, int kRows>
LSTMCORE_ONE_COPY void normalize_side_by_side(int64_t n, const NormalizedRow<T>* rows,
                                              const T* gain, const T* bias, T eps) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>;
    const T* x[kRows];
    for (int r = 0; r < kRows; ++r) x[r] = rows[r].x;
    T sums[kRows];
    sum_rows<T, kRows>(
        n,
        [&](int r, int64_t i, int64_t valid, const P& sum)
            LSTMCORE_INLINE_LAMBDA { return padd(sum, load(x[r] + i, valid)); },
        sums);
    P centre[kRows];
    for (int r = 0; r < kRows; ++r) centre[r] = set(sums[r] / T(n));
    sum_rows<T, kRows>(
        n,
        [&](int r, int64_t i, int64_t valid, const P& sum) LSTMCORE_INLINE_LAMBDA {
            const P d = psub(load(x[r] + i, valid), centre[r]);
            return pmadd(d, d, sum);
        },
        sums);
    const P zero = set(T(0)), one = set(T(1));
    for (int r = 0; r < kRows; ++r) {
        const T deviation = simd::pfirst(simd::psqrt(set(sums[r] / T(n) + eps)));
        const T scale = T(1) / deviation;
        const P middle = centre[r], factor = set(scale);
        const T* const from = x[r];
        T* const out = rows[r].out;
        T* const normal = rows[r].normal;
        const auto finish = [=](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
            const P value = pmul(psub(load(from + i, valid), middle), factor);
            if (normal != nullptr) store(normal + i, value, valid);
            store(out + i,
                  pmadd(value, gain ? load(gain + i, valid) : one,
                        bias ? load(bias + i, valid) : zero),
                  valid);
        };
        int64_t i = 0;
        for (; i + L <= n; i += L) finish(i, L);
        if (i < n) finish(i, n - i);
        *rows[r].scale = scale;
    }
}

/// For each of `count` rows of n numbers, normal = (x - mean) * scale with
/// scale = 1 / sqrt(variance + eps), and out = normal * gain + bias (null = ones, zeros).
template <class T>
void normalize(int64_t count, int64_t n, const NormalizedRow<T>* rows, const T* gain, const T* bias,
               T eps) {
    constexpr int kRows = kRowsAtOnce<T>;
    for (; count >= kRows; count -= kRows, rows += kRows)
        normalize_side_by_side<T, kRows>(n, rows, gain, bias, eps);
    for (; count > 0; --count, ++rows) normalize_side_by_side<T, 1>(n, rows, gain, bias, eps);
}

/// Goes through `count` rows, a few at a time: normalises these, of which at(row) gives the
/// NormalizedRow, and calls finish(row) for each of them before it goes on to the next few.
template <class T, class At, class Finish>
LSTMCORE_INLINE void normalize_rows(int64_t count, int64_t n, const T* gain, const T* bias, At at,
                                    Finish finish) {
    constexpr int kRows = 4;  // the most of kRowsAtOnce
    NormalizedRow<T> rows[kRows];
    for (int64_t first = 0; first < count; first += kRows) {
        const int64_t some = count - first < kRows ? count - first : kRows;
        for (int64_t r = 0; r < some; ++r) rows[r] = at(first + r);
        normalize(some, n, rows, gain, bias, T(kNormEps));
        for (int64_t r = 0; r < some; ++r) finish(first + r);
    }
}

/// The gradient of x from that of `out`; dx may be dout, gain null.
template <class T>
LSTMCORE_ONE_COPY void normalize_backward(int64_t n, const T* dout, const T* normal, const T* gain,
                                          T scale, T* dx) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>;
    const auto dnormal = [=](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        const P d = load(dout + i, valid);
        return gain ? pmul(d, load(gain + i, valid)) : d;
    };
    const T mean =
        sum_row<T>(n, [=](int64_t i, int64_t valid, const P& sum)
                          LSTMCORE_INLINE_LAMBDA { return padd(sum, dnormal(i, valid)); }) /
        T(n);
    const T slope = sum_row<T>(n,
                               [=](int64_t i, int64_t valid, const P& sum) LSTMCORE_INLINE_LAMBDA {
                                   return pmadd(dnormal(i, valid), load(normal + i, valid), sum);
                               }) /
                    T(n);
    const P minus_mean = set(-mean), minus_slope = set(-slope), factor = set(scale);
    for (int64_t i = 0; i < n; i += L) {
        const int64_t valid = n - i;
        const P d = padd(dnormal(i, valid), minus_mean);
        store(dx + i, pmul(factor, pmadd(minus_slope, load(normal + i, valid), d)), valid);
    }
}

/// How W_hh h_prev is normalised.
template <class T>
NormalizedRow<T> of_hidden(const NormRow<T>& norm) {
    return {norm.hidden, norm.hidden, norm.hidden_normal, norm.scales};
}

/// What comes in to a gate: its parts of the input product, with bias, and of the hidden one.
template <class T>
LSTMCORE_INLINE Packet<T> sum_of_gate(const T* pre, const T* hidden, int64_t gate, int64_t unit,
                                      int64_t H) {
    const int64_t at = gate * H + unit, valid = H - unit;
    return padd(load(pre + at, valid), load(hidden + at, valid));
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
