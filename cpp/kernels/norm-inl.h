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

/// The sum over a row of n numbers: add(i, valid, sum) adds the register that begins at number i to
/// `sum`. What it adds from lane `valid` on is dropped.
template <class T, class Add>
LSTMCORE_INLINE T sum_row(int64_t n, Add add) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>, kChains = 16, kPackets = kChains / L;
    P sum[kPackets];
    for (int64_t j = 0; j < kPackets; ++j) sum[j] = set(T(0));
    int64_t i = 0;
    for (; i + kChains <= n; i += kChains)
        for (int64_t j = 0; j < kPackets; ++j) sum[j] = add(i + j * L, L, sum[j]);
    for (int64_t j = 0; j < kPackets && i + j * L < n; ++j) {
        const int64_t valid = n - i - j * L;
        sum[j] = first_of<T>(add(i + j * L, valid, sum[j]), sum[j], valid);
    }
    alignas(64) T chains[kChains];
    for (int64_t j = 0; j < kPackets; ++j) simd::pstore(chains + j * L, sum[j]);
    for (int64_t half = kChains / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];
    return chains[0];
}

/// normal = (x - mean) * scale of a row of n numbers, with scale = 1 / sqrt(variance + eps), which
/// is returned; out = normal * gain + bias (null = zeros). normal may be null; both may be x.
template <class T>
LSTMCORE_ONE_COPY T normalize(int64_t n, const T* x, const T* gain, const T* bias, T* out,
                              T* normal) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>;
    const T mean =
        sum_row<T>(n, [=](int64_t i, int64_t valid, const P& sum)
                          LSTMCORE_INLINE_LAMBDA { return padd(sum, load(x + i, valid)); }) /
        T(n);
    const P centre = set(mean);
    const T squares =
        sum_row<T>(n, [=](int64_t i, int64_t valid, const P& sum) LSTMCORE_INLINE_LAMBDA {
            const P d = psub(load(x + i, valid), centre);
            return pmadd(d, d, sum);
        });
    const T deviation = simd::pfirst(simd::psqrt(set(squares / T(n) + T(kNormEps))));
    const T scale = T(1) / deviation;
    const P factor = set(scale), zero = set(T(0));
    for (int64_t i = 0; i < n; i += L) {
        const int64_t valid = n - i;
        const P value = pmul(psub(load(x + i, valid), centre), factor);
        if (normal != nullptr) store(normal + i, value, valid);
        store(out + i, pmadd(value, load(gain + i, valid), bias ? load(bias + i, valid) : zero),
              valid);
    }
    return scale;
}

/// The gradient of x from that of `out`; dx may be dout.
template <class T>
LSTMCORE_ONE_COPY void normalize_backward(int64_t n, const T* dout, const T* normal, const T* gain,
                                          T scale, T* dx) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>;
    const auto dnormal = [=](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        return pmul(load(dout + i, valid), load(gain + i, valid));
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
