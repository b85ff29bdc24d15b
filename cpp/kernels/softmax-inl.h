// The softmax of a row.
#pragma once

#include <limits>

#include "activations-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// exp(x) for x <= 0; 0 from about -88 (float), -709 (double) down.
template <class T>
LSTMCORE_INLINE Packet<T> exp_below_0(const Packet<T>& x) {
    constexpr T limit = sizeof(T) == 4 ? T(-88) : T(-709);
    return exp_parts<T>(simd::pmax(x, set(limit))).exp();  // pmax keeps a NaN in x
}

/// The sum runs in 16 chains over c modulo 16, then in halves, at every level.
template <class T>
SoftmaxSums<T> softmax(const T* x, T* out, int64_t C, T factor) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>, kChains = 16, kPackets = kChains / L;
    constexpr T kNothing = -std::numeric_limits<T>::infinity();
    const int64_t whole = C / kChains * kChains;
    alignas(64) T rest[kChains], chains[kChains];
    for (int64_t j = 0; j < kChains; ++j) rest[j] = whole + j < C ? x[whole + j] : kNothing;

    // Four registers at least, as each waits for the comparison before.
    constexpr int64_t kHighest = kPackets < 4 ? 4 : kPackets;
    P highest[kHighest], sum[kPackets];
    for (int64_t j = 0; j < kHighest; ++j) highest[j] = simd::pload<P>(rest + j % kPackets * L);
    int64_t at = 0;
    for (; at + kHighest * L <= whole; at += kHighest * L)
        for (int64_t j = 0; j < kHighest; ++j)
            highest[j] = simd::pmax(load(x + at + j * L), highest[j]);
    for (; at < whole; at += L) highest[0] = simd::pmax(load(x + at), highest[0]);
    for (int64_t j = kPackets; j < kHighest; ++j)
        highest[j % kPackets] = simd::pmax(highest[j], highest[j % kPackets]);
    for (int64_t j = 0; j < kPackets; ++j) simd::pstore(chains + j * L, highest[j]);
    T max = chains[0];
    for (int64_t j = 1; j < kChains; ++j) max = chains[j] > max ? chains[j] : max;

    const P shift = set(max);
    for (int64_t j = 0; j < kPackets; ++j) sum[j] = set(T(0));
    for (int64_t c = 0; c < whole; c += kChains)
        for (int64_t j = 0; j < kPackets; ++j) {
            const P e = exp_below_0<T>(psub(load(x + c + j * L), shift));
            if (out) store(out + c + j * L, e);
            sum[j] = padd(sum[j], e);
        }
    for (int64_t j = 0; j < kPackets; ++j) {
        const P e = exp_below_0<T>(psub(simd::pload<P>(rest + j * L), shift));
        simd::pstore(rest + j * L, e);
        simd::pstore(chains + j * L, padd(sum[j], e));
    }
    for (int64_t half = kChains / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];

    if (out) {
        const T scale = factor / chains[0];
        for (int64_t c = 0; c < whole; c += L) store(out + c, pmul(set(scale), load(out + c)));
        for (int64_t c = whole; c < C; ++c) out[c] = scale * rest[c - whole];
    }
    return {max, chains[0]};
}

/// Its sum is added in 16 chains, as those of softmax().
template <class T>
void softmax_backward(const T* dy, const T* y, T* dx, int64_t C, T factor) {
    using P = Packet<T>;
    constexpr int64_t L = kLanes<T>, kChains = 16, kPackets = kChains / L;
    alignas(64) T chains[kChains];
    P sum[kPackets];
    for (int64_t j = 0; j < kPackets; ++j) sum[j] = set(T(0));
    for (int64_t c = 0; c < C; c += kChains)
        for (int64_t j = 0; j < kPackets; ++j) {
            const int64_t at = c + j * L, left = C - at;
            const P part = pmul(load(dy + at, left), load(y + at, left));
            sum[j] = padd(sum[j], part);
        }
    for (int64_t j = 0; j < kPackets; ++j) simd::pstore(chains + j * L, sum[j]);
    for (int64_t half = kChains / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];
    const P all = set(chains[0]), scale = set(factor);
    for (int64_t c = 0; c < C; c += L) {
        const P weight = load(y + c, C - c);
        const P part = pmul(load(dy + c, C - c), weight);
        store(dx + c, pmul(scale, psub(part, pmul(weight, all))), C - c);
    }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
