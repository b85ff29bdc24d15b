// Optimizer updates of a run of numbers: elementwise, in one pass.
#pragma once

#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Calls f(i, valid) for each register of n numbers; valid is a constant but for the last.
template <class T, class F>
LSTMCORE_INLINE void each_register(int64_t n, F f) {
    constexpr int64_t L = kLanes<T>;
    int64_t i = 0;
    for (; i + L <= n; i += L) f(i, L);
    if (i < n) f(i, n - i);
}

template <bool kValue>
struct Flag {
    static constexpr bool value = kValue;
};

/// Calls f with a Flag, so that a choice made once per call is known to the compiler in the loop.
template <class F>
LSTMCORE_INLINE void choose(bool value, F f) {
    value ? f(Flag<true>()) : f(Flag<false>());
}

template <class T, bool kDecay, bool kMomentum, bool kNesterov>
void sgd_loop(const SgdStep<T>& step, const UpdateRun<T>& run) {
    using P = Packet<T>;
    const P minus_lr = set(-step.lr), momentum = set(step.momentum), fresh = set(step.fresh);
    const P weight_decay = set(step.weight_decay);
    T* const data = run.data;
    T* const m_data = run.state[0];
    const T* const grad = run.grad;
    each_register<T>(run.n, [&](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        const P w = load(data + i, valid);
        P g = load(grad + i, valid);
        if constexpr (kDecay) g = pmadd(weight_decay, w, g);
        if constexpr (kMomentum) {
            const P m = pmadd(momentum, load(m_data + i, valid), pmul(fresh, g));
            store(m_data + i, m, valid);
            g = kNesterov ? pmadd(momentum, m, g) : m;
        }
        store(data + i, pmadd(minus_lr, g, w), valid);
    });
}

template <class T>
void sgd(const SgdStep<T>& step, const UpdateRun<T>& run) {
    choose(step.weight_decay != 0, [&](auto decay) {
        constexpr bool kDecay = decltype(decay)::value;
        if (run.state[0] == nullptr) return sgd_loop<T, kDecay, false, false>(step, run);
        choose(step.nesterov, [&](auto nesterov) {
            sgd_loop<T, kDecay, true, decltype(nesterov)::value>(step, run);
        });
    });
}

template <class T, bool kDecay, bool kMomentum, bool kCentered>
void rmsprop_loop(const RmsPropStep<T>& step, const UpdateRun<T>& run) {
    using P = Packet<T>;
    const P minus_lr = set(-step.lr), alpha = set(step.alpha), fresh = set(step.fresh);
    const P eps = set(step.eps), momentum = set(step.momentum);
    const P weight_decay = set(step.weight_decay), zero = set(T(0));
    T* const data = run.data;
    T* const v_data = run.state[0];
    T* const m_data = run.state[1];
    T* const a_data = run.state[2];
    const T* const grad = run.grad;
    each_register<T>(run.n, [&](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        const P w = load(data + i, valid);
        P g = load(grad + i, valid);
        if constexpr (kDecay) g = pmadd(weight_decay, w, g);
        P v = pmadd(alpha, load(v_data + i, valid), pmul(fresh, pmul(g, g)));
        store(v_data + i, v, valid);
        if constexpr (kCentered) {
            const P a = pmadd(alpha, load(a_data + i, valid), pmul(fresh, g));
            store(a_data + i, a, valid);
            // Rounding can take it below 0, whose root is NaN. pmax keeps a NaN in its first
            // argument.
            v = simd::pmax(pmadd(simd::pnegate(a), a, v), zero);
        }
        P d = pdiv(g, padd(simd::psqrt(v), eps));
        if constexpr (kMomentum) {
            d = pmadd(momentum, load(m_data + i, valid), d);
            store(m_data + i, d, valid);
        }
        store(data + i, pmadd(minus_lr, d, w), valid);
    });
}

template <class T>
void rmsprop(const RmsPropStep<T>& step, const UpdateRun<T>& run) {
    choose(step.weight_decay != 0, [&](auto decay) {
        choose(run.state[1] != nullptr, [&](auto momentum) {
            choose(run.state[2] != nullptr, [&](auto centered) {
                rmsprop_loop<T, decltype(decay)::value, decltype(momentum)::value,
                             decltype(centered)::value>(step, run);
            });
        });
    });
}

template <class T, bool kDecay, bool kAmsgrad>
void adam_loop(const AdamStep<T>& step, const UpdateRun<T>& run) {
    using P = Packet<T>;
    const P beta1 = set(step.beta1), fresh1 = set(step.fresh1), minus_lr = set(-step.lr);
    const P beta2 = set(step.beta2), fresh2 = set(step.fresh2), unbias2 = set(step.unbias2);
    const P eps = set(step.eps), weight_decay = set(step.weight_decay), keep = set(step.keep);
    T* const data = run.data;
    T* const m_data = run.state[0];
    T* const v_data = run.state[1];
    T* const u_data = run.state[2];
    const T* const grad = run.grad;
    each_register<T>(run.n, [&](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        const P w = load(data + i, valid);
        P g = load(grad + i, valid);
        if constexpr (kDecay) g = pmadd(weight_decay, w, g);
        const P m = pmadd(beta1, load(m_data + i, valid), pmul(fresh1, g));
        P v = pmadd(beta2, load(v_data + i, valid), pmul(fresh2, pmul(g, g)));
        store(m_data + i, m, valid);
        store(v_data + i, v, valid);
        if constexpr (kAmsgrad) {
            v = simd::pmax(v, load(u_data + i, valid));  // keeps a NaN in v
            store(u_data + i, v, valid);
        }
        const P d = pdiv(pmul(minus_lr, m), pmadd(simd::psqrt(v), unbias2, eps));
        store(data + i, pmadd(keep, w, d), valid);
    });
}

template <class T>
void adam(const AdamStep<T>& step, const UpdateRun<T>& run) {
    choose(step.weight_decay != 0, [&](auto decay) {
        choose(run.state[2] != nullptr, [&](auto amsgrad) {
            adam_loop<T, decltype(decay)::value, decltype(amsgrad)::value>(step, run);
        });
    });
}

/// sum_i (factor x[i])^2 in double: 16 chains over i modulo 16, then their sum in halves, at every
/// level. Not fused, so that levels without fused multiply-add do the same.
template <class T>
double sum_squares(double factor, const T* x, int64_t n) {
    using P = Packet<double>;
    constexpr int64_t L = kLanes<double>, kChains = 16, kPackets = kChains / L;
    const P f = set(factor);
    P sum[kPackets];
    for (int64_t j = 0; j < kPackets; ++j) sum[j] = set(0.0);
    int64_t i = 0;
    for (; i + kChains <= n; i += kChains)
        for (int64_t j = 0; j < kPackets; ++j) {
            const P value = pmul(f, widen(x + i + j * L));
            sum[j] = padd(sum[j], pmul(value, value));
        }
    alignas(64) double chains[kChains];
    for (int64_t j = 0; j < kPackets; ++j) simd::pstore(chains + j * L, sum[j]);
    for (int64_t j = 0; i < n; ++i, ++j) {
        const double value = factor * double(x[i]);
        chains[j] += value * value;
    }
    for (int64_t half = kChains / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];
    return chains[0];
}

template <class T>
void scale(T factor, T* x, int64_t n) {
    const Packet<T> f = set(factor);
    each_register<T>(n, [&](int64_t i, int64_t valid) LSTMCORE_INLINE_LAMBDA {
        store(x + i, pmul(f, load(x + i, valid)), valid);
    });
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
