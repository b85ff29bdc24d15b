// Activation functions and their derivatives, elementwise on packets.
//
// Nothing in them depends on the ISA level but fused multiply-add, so that every level with it
// gives the same bits. Bounds are in units in the last place of the result, over the whole range of
// float (tested number by number) and over samples of double; denormal results may be flushed to
// zero.
#pragma once

#include <limits>

#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// exp(x) = scale (1 + r + r^2 q), scale = 2^k: Cody & Waite's reduction x = k ln 2 + r (Software
/// Manual for the Elementary Functions, 1980), then a minimax polynomial q(r) on |r| <= ln 2 / 2;
/// the error relative to exp(r) is below 2^-28 (float), 2^-61 (double).
template <class T>
struct ExpParts {
    Packet<T> scale, r, q;

    LSTMCORE_INLINE Packet<T> exp() const {
        const Packet<T> one = set(T(1));
        return pmul(scale, pmadd(pmadd(q, r, one), r, one));
    }
    LSTMCORE_INLINE Packet<T> expm1() const {
        return pmadd(scale, pmadd(pmul(r, r), q, r), psub(scale, set(T(1))));
    }
};

template <class T>
LSTMCORE_INLINE ExpParts<T> exp_parts(const Packet<T>& x) {
    const Packet<T> t = pmadd(x, set(T(1.4426950408889634)), set(kRoundToPower<T>));
    const Packet<T> k = psub(t, set(kRoundToPower<T>));
    // ln 2 in two parts; the first is short, so that its product with k is exact.
    constexpr T ln2_high = sizeof(T) == 4 ? T(0.693359375) : T(6.93145751953125e-1);
    constexpr T ln2_low =
        sizeof(T) == 4 ? T(-2.12194440054690583e-4) : T(1.42860682030941723212e-6);
    const Packet<T> r = pmadd(k, set(-ln2_low), pmadd(k, set(-ln2_high), x));
    Packet<T> q;
    if constexpr (sizeof(T) == 4) {
        q = set(T(1.381454008219407e-3));
        q = pmadd(q, r, set(T(8.368745093765905e-3)));
        q = pmadd(q, r, set(T(4.166839078701048e-2)));
        q = pmadd(q, r, set(T(1.6666520399170656e-1)));
        q = pmadd(q, r, set(T(4.99999934321087e-1)));
    } else {
        q = set(T(2.08753293674127413e-9));
        q = pmadd(q, r, set(T(2.5109024474917685475e-8)));
        q = pmadd(q, r, set(T(2.7557402774820039952e-7)));
        q = pmadd(q, r, set(T(2.75572442541605237e-6)));
        q = pmadd(q, r, set(T(2.4801587172229964957e-5)));
        q = pmadd(q, r, set(T(1.984126988607347428e-4)));
        q = pmadd(q, r, set(T(1.3888888888962605816e-3)));
        q = pmadd(q, r, set(T(8.3333333333216541669e-3)));
        q = pmadd(q, r, set(T(4.1666666666666508149e-2)));
        q = pmadd(q, r, set(T(1.6666666666666676547e-1)));
        q = pmadd(q, r, set(T(5.0000000000000000085e-1)));
    }
    return {power_of_two(t, T()), r, q};
}

/// A number as numerator / denominator. Divisions are what the gates of an LSTM take longest for,
/// so a product of two such numbers is divided once.
template <class T>
struct Fraction {
    Packet<T> over, under;

    LSTMCORE_INLINE Packet<T> value() const { return pdiv(over, under); }
};

/// exp(x) / (1 + exp(x)), within 3 ulp; 0 below -88 (float), -709 (double).
template <class T>
LSTMCORE_INLINE Fraction<T> sigmoid_fraction(const Packet<T>& x) {
    constexpr T lowest = sizeof(T) == 4 ? T(-88) : T(-709), one_from = sizeof(T) == 4 ? 18 : 40;
    const Packet<T> power = exp_parts<T>(clamp(x, lowest, one_from)).exp();
    return {power, padd(power, set(T(1)))};
}
template <class T>
LSTMCORE_INLINE Packet<T> sigmoid(const Packet<T>& x) {
    return sigmoid_fraction<T>(x).value();
}

/// tanh(x), within 6 ulp (double: 5), never beyond +-1, which it is from 8.2 (float), 19.1 (double)
/// on. In float x P(x^2) / Q(x^2), minimax on [0, 8.2], is a shorter chain than expm1(2x) /
/// (expm1(2x) + 2), but keeps the bound only where products are not rounded before they are added.
/// x is clamped to 8.18784809, which gives 1: somewhat above it the fraction would exceed 1.
template <class T>
LSTMCORE_INLINE Fraction<T> tanh_fraction(const Packet<T>& unlimited) {
    constexpr bool rational = sizeof(T) == 4 && kFused;
    constexpr T limit = rational ? T(8.18784809) : sizeof(T) == 4 ? T(10) : T(20);
    const Packet<T> x = clamp(unlimited, -limit, limit), one = set(T(1));
    if constexpr (rational) {
        const Packet<T> u = pmul(x, x);
        Packet<T> p = pmadd(set(T(1.56856412e-08)), u, set(T(2.22305134e-05)));
        Packet<T> q = pmadd(set(T(8.71134148e-07)), u, set(T(3.44481581e-04)));
        p = pmadd(p, u, set(T(3.59213725e-03)));
        q = pmadd(q, u, set(T(2.62426399e-02)));
        p = pmadd(p, u, set(T(1.34618074e-01)));
        q = pmadd(q, u, set(T(4.67951387e-01)));
        return {pmul(x, pmadd(p, u, one)), pmadd(q, u, one)};
    } else {
        const Packet<T> em1 = exp_parts<T>(padd(x, x)).expm1();
        return {em1, padd(em1, set(T(2)))};
    }
}
template <class T>
LSTMCORE_INLINE Packet<T> tanh(const Packet<T>& x) {
    return tanh_fraction<T>(x).value();
}

/// sigmoid(a) tanh(b); none of the products overflows.
template <class T>
LSTMCORE_INLINE Packet<T> sigmoid_times_tanh(const Packet<T>& a, const Packet<T>& b) {
    const Fraction<T> s = sigmoid_fraction<T>(a), t = tanh_fraction<T>(b);
    return pdiv(pmul(s.over, t.over), pmul(s.under, t.under));
}

/// What x is clamped to at least where exp(x) is 0.
template <class T>
constexpr T kExpOfThisIs0 = sizeof(T) == 4 ? T(-88) : T(-709);

/// exp(x), within 3 ulp: the square of exp(x / 2), whose power of two is never too large.
template <class T>
LSTMCORE_INLINE Packet<T> exponential(const Packet<T>& x) {
    constexpr T limit = sizeof(T) == 4 ? T(44.5) : T(355);
    const Packet<T> root = exp_parts<T>(clamp(pmul(x, set(T(0.5))), -limit, limit)).exp();
    return pmul(root, root);
}

/// alpha (exp(x) - 1), x at most 0; within 3 ulp.
template <class T>
LSTMCORE_INLINE Packet<T> elu_below(const Packet<T>& alpha, const Packet<T>& x) {
    return pmul(alpha, exp_parts<T>(clamp(x, kExpOfThisIs0<T>, T(0))).expm1());
}
/// Of selu: its slope above 0, and alpha times that.
template <class T>
constexpr T kSelu = T(1.0507009873554805);
template <class T>
constexpr T kSeluAlpha = T(1.7580993408473766);

/// log(1 + u), 0 <= u <= 1: twice the series of atanh(u / (2 + u)), whose square is at most 1 / 9.
template <class T>
LSTMCORE_INLINE Packet<T> log1p_of_share(const Packet<T>& u) {
    const Packet<T> share = pdiv(set(T(2)), padd(u, set(T(2))));  // 2 s = u share
    const Packet<T> s = pmul(pmul(set(T(0.5)), u), share), square = pmul(s, s);
    constexpr int terms = sizeof(T) == 4 ? 8 : 17;
    Packet<T> sum = set(T(1) / T(2 * terms - 1));
    for (int n = terms - 2; n >= 0; --n) sum = pmadd(sum, square, set(T(1) / T(2 * n + 1)));
    return pmul(u, pmul(share, sum));
}

/// log(1 + exp(x)), within 5 ulp.
template <class T>
LSTMCORE_INLINE Packet<T> softplus(const Packet<T>& x) {
    const Packet<T> below = simd::pmin(x, psub(set(T(0)), x));  // -|x|
    const Packet<T> u = exp_parts<T>(simd::pmax(below, set(kExpOfThisIs0<T>))).exp();
    return padd(simd::pmax(x, set(T(0))), log1p_of_share<T>(u));
}

/// P(-z) exp(z^2 / 2) of the normal distribution, z >= 0: Mills' ratio / sqrt(2 pi). In float a
/// fraction, minimax on [0, 13.3], beyond which P(-z) is no normal number, within 2^-27; as no
/// coefficient is negative, nothing cancels. In double times z + 6 it is a polynomial in
/// (z - 6) / (z + 6), from its Chebyshev series.
template <class T>
LSTMCORE_INLINE Fraction<T> normal_tail(const Packet<T>& z) {
    if constexpr (sizeof(T) == 4) {
        const Packet<T> one = set(T(1));
        Packet<T> p = pmadd(set(T(0.00402022739)), z, set(T(0.0399844203)));
        Packet<T> q = pmadd(set(T(0.0100770724)), z, set(T(0.100233459)));
        p = pmadd(p, z, set(T(0.181307491)));
        q = pmadd(q, z, set(T(0.464382266)));
        p = pmadd(p, z, set(T(0.435687299)));
        q = pmadd(q, z, set(T(1.19448724)));
        q = pmadd(q, z, set(T(1.66925952)));
        return {pmadd(p, z, set(T(0.5))), pmadd(q, z, one)};
    } else {
        static constexpr double of[] = {
            0.7773517718933622,      -0.7010090295908656,     0.5689688918147835,
            -0.4139035857755745,     0.2679742458416649,      -0.15268023206503917,
            0.07517191566872725,     -0.03098531549895509,    0.010029820643608887,
            -0.002131605285716135,   3.286999093017252e-05,   0.00018136081565295003,
            -6.475182912359327e-05,  1.0742840107015701e-06,  6.795697883730602e-06,
            -1.7969945618258692e-06, -4.2792082812200157e-07, 3.0702367893627545e-07,
            5.175950303086143e-09,   -4.10380431659102e-08,   3.9361952129522875e-09,
            4.6664643925858215e-09,  -7.828191936665439e-10,  -3.403350501945896e-10,
            7.038111375958135e-11};
        const Packet<T> six = set(T(6)), under = padd(z, six), t = pdiv(psub(z, six), under);
        Packet<T> over = set(T(of[24]));
        for (int n = 23; n >= 0; --n) over = pmadd(over, t, set(T(of[n])));
        return {over, under};
    }
}

/// Of the normal distribution: P(-|x|), that a number is below -|x|, and its density at x.
template <class T>
struct NormalDistribution {
    Packet<T> z, tail, density;  // z = |x|, where it matters

    explicit LSTMCORE_INLINE NormalDistribution(const Packet<T>& x) {
        z = simd::pmin(simd::pabs(x), set(T(40)));
        const Packet<T> exponent = pmul(pmul(z, z), set(T(-0.5)));
        const Packet<T> power = exp_parts<T>(simd::pmax(exponent, set(kExpOfThisIs0<T>))).exp();
        const Fraction<T> share = normal_tail<T>(z);
        tail = pdiv(pmul(share.over, power), share.under);
        density = pmul(power, set(T(0.3989422804014327)));
    }
};

/// x P(x) of the normal distribution.
template <class T>
LSTMCORE_INLINE Packet<T> gelu(const Packet<T>& x) {
    const NormalDistribution<T> normal(x);
    return psub(simd::pmax(x, set(T(0))), pmul(normal.z, normal.tail));
}

/// What mish is made of: with e = exp(x), tanh(log(1 + e)) = n / (n + 2), n = e (e + 2). It is 1
/// where x is clamped.
template <class T>
struct MishParts {
    Packet<T> e, n, under;

    explicit LSTMCORE_INLINE MishParts(const Packet<T>& x) {
        e = exp_parts<T>(clamp(x, kExpOfThisIs0<T>, sizeof(T) == 4 ? T(20) : T(40))).exp();
        n = pmul(e, padd(e, set(T(2))));
        under = padd(n, set(T(2)));
    }
};

template <class T>
LSTMCORE_INLINE Packet<T> hard_share(const Packet<T>& x) {
    return clamp(pmadd(x, set(T(1.0 / 6)), set(T(0.5))), T(0), T(1));
}

/// x where a product with it is not infinity times 0, which f(x) tends to from there on.
template <class T>
LSTMCORE_INLINE Packet<T> held(const Packet<T>& x) {
    return simd::pmax(x, set(kExpOfThisIs0<T>));
}

template <class T>
LSTMCORE_INLINE Packet<T> activate(const Activation& f, const Packet<T>& x) {
    const Packet<T> alpha = set(T(f.alpha)), beta = set(T(f.beta));
    switch (f.kind) {
        case ActivationKind::sigmoid:
            return sigmoid<T>(x);
        case ActivationKind::tanh:
            return tanh<T>(x);
        case ActivationKind::relu:
            return simd::pmax(x, set(T(0)));
        case ActivationKind::hard_sigmoid:
            return clamp(pmadd(alpha, x, beta), T(0), T(1));
        case ActivationKind::scaled_tanh:
            return pmul(alpha, tanh<T>(pmul(beta, x)));
        case ActivationKind::softsign: {
            // x / (1 + |x|); the clamp keeps infinity / infinity out.
            const Packet<T> huge =
                clamp(x, -std::numeric_limits<T>::max(), std::numeric_limits<T>::max());
            return pdiv(huge, padd(set(T(1)), simd::pabs(huge)));
        }
        case ActivationKind::identity:
            return x;
        case ActivationKind::affine:
            return pmadd(alpha, x, beta);
        case ActivationKind::leaky_relu:
            return simd::pselect(simd::pcmp_lt(x, set(T(0))), pmul(alpha, x), x);
        case ActivationKind::thresholded_relu:
            return simd::pselect(simd::pcmp_le(x, alpha), set(T(0)), x);
        case ActivationKind::elu:
            return simd::pselect(simd::pcmp_le(x, set(T(0))), elu_below<T>(alpha, x), x);
        case ActivationKind::selu:
            return simd::pselect(simd::pcmp_le(x, set(T(0))), elu_below<T>(set(kSeluAlpha<T>), x),
                                 pmul(set(kSelu<T>), x));
        case ActivationKind::softplus:
            return softplus<T>(x);
        case ActivationKind::exponential:
            return exponential<T>(x);
        case ActivationKind::gelu:
            return gelu<T>(x);
        case ActivationKind::silu:
            return pmul(held<T>(x), sigmoid<T>(x));
        case ActivationKind::mish: {
            const MishParts<T> parts(x);
            return pmul(held<T>(x), pdiv(parts.n, parts.under));
        }
        case ActivationKind::hard_silu:
            return pmul(held<T>(x), hard_share<T>(x));
    }
    return x;
}

/// f'(x) of the functions that need it from x, which is held to where they are not straight.
template <class T>
LSTMCORE_INLINE Packet<T> derivative_at(const Activation& f, const Packet<T>& unlimited) {
    const Packet<T> x = clamp(unlimited, kExpOfThisIs0<T>, T(40)), one = set(T(1));
    switch (f.kind) {
        case ActivationKind::gelu: {
            const NormalDistribution<T> normal(x);
            const Packet<T> above = simd::pcmp_lt(set(T(0)), x);
            const Packet<T> below = simd::pselect(above, psub(one, normal.tail), normal.tail);
            return pmadd(x, normal.density, below);
        }
        case ActivationKind::mish: {
            const MishParts<T> parts(x);
            const Packet<T> e4 = pmul(set(T(4)), pmul(parts.e, padd(parts.e, one)));
            return pdiv(pmadd(x, pdiv(e4, parts.under), parts.n), parts.under);
        }
        case ActivationKind::hard_silu: {
            const Packet<T> bent = simd::pcmp_lt(simd::pabs(x), set(T(3)));
            return pmadd(simd::pselect(bent, set(T(1.0 / 6)), set(T(0))), x, hard_share<T>(x));
        }
        default: {
            const Packet<T> s = sigmoid<T>(x);
            return pmadd(pmul(x, s), psub(one, s), s);
        }
    }
}

/// f'(x) from y = f(x), or, if f needs that, from x.
template <class T>
LSTMCORE_INLINE Packet<T> derivative(const Activation& f, const Packet<T>& y) {
    const Packet<T> zero = set(T(0)), one = set(T(1));
    switch (f.kind) {
        case ActivationKind::sigmoid:
            return pmul(y, psub(one, y));
        case ActivationKind::tanh:
            return pmul(psub(one, y), padd(one, y));
        case ActivationKind::relu:
            return simd::pselect(simd::pcmp_lt(zero, y), one, zero);
        case ActivationKind::hard_sigmoid:
            return simd::pselect(simd::pand(simd::pcmp_lt(zero, y), simd::pcmp_lt(y, one)),
                                 set(T(f.alpha)), zero);
        case ActivationKind::scaled_tanh:
            return pmul(set(T(f.beta)), psub(set(T(f.alpha)), pdiv(pmul(y, y), set(T(f.alpha)))));
        case ActivationKind::softsign: {
            const Packet<T> d = psub(one, simd::pabs(y));
            return pmul(d, d);
        }
        case ActivationKind::identity:
            return one;
        case ActivationKind::affine:
            return set(T(f.alpha));
        case ActivationKind::leaky_relu:
            return simd::pselect(simd::pcmp_lt(zero, y), one, set(T(f.alpha)));
        case ActivationKind::thresholded_relu:
            return simd::pselect(simd::pcmp_lt(zero, y), one, zero);
        case ActivationKind::elu:
            return simd::pselect(simd::pcmp_lt(zero, y), one, padd(y, set(T(f.alpha))));
        case ActivationKind::selu:
            return simd::pselect(simd::pcmp_lt(zero, y), set(kSelu<T>),
                                 padd(y, set(kSeluAlpha<T>)));
        case ActivationKind::softplus:
            return psub(zero, elu_below<T>(one, psub(zero, y)));
        case ActivationKind::exponential:
            return y;
        case ActivationKind::gelu:
        case ActivationKind::silu:
        case ActivationKind::mish:
        case ActivationKind::hard_silu:
            return derivative_at<T>(f, y);
    }
    return one;
}

/// f of x held to [-clip, clip]; clip = 0 holds nothing. A call, because inlined everywhere it
/// would be most of the library's code.
template <class T>
__attribute__((noinline)) Packet<T> activate_clipped(const Activation& f, T clip,
                                                     const Packet<T>& x) {
    return activate<T>(f, clip > 0 ? clamp(x, -clip, clip) : x);
}

/// Its derivative: 0 where y is what the ends of [-clip, clip] give.
template <class T>
__attribute__((noinline)) Packet<T> derivative_clipped(const Activation& f, T clip,
                                                       const Packet<T>& y) {
    const Packet<T> inside = derivative<T>(f, y);
    if (!(clip > 0)) return inside;
    if (f.needs_input())
        return simd::pselect(simd::pcmp_lt(simd::pabs(y), set(clip)), inside, set(T(0)));
    const Packet<T> a = activate_clipped<T>(f, 0, set(-clip));
    const Packet<T> b = activate_clipped<T>(f, 0, set(clip));
    return simd::pselect(
        simd::pand(simd::pcmp_lt(simd::pmin(a, b), y), simd::pcmp_lt(y, simd::pmax(a, b))), inside,
        set(T(0)));
}

/// The three activations of a cell. `kStandard` cells are sigmoid and tanh, known to the compiler,
/// and do not clip; it is the same arithmetic either way.
template <class T, bool kStandard>
struct CellActivations {
    using P = Packet<T>;
    const CellSpec& cell;

    LSTMCORE_INLINE P gate(const P& x) const {
        if constexpr (kStandard) return sigmoid<T>(x);
        return activate_clipped<T>(cell.gate, T(cell.gate_clip), x);
    }
    LSTMCORE_INLINE P candidate(const P& x) const {
        if constexpr (kStandard) return tanh<T>(x);
        return activate_clipped<T>(cell.candidate, T(cell.gate_clip), x);
    }
    LSTMCORE_INLINE P output(const P& x) const {
        if constexpr (kStandard) return tanh<T>(x);
        return activate_clipped<T>(cell.output, 0, x);
    }
    /// Of y, or of the sum that has gone in where a gate needs that: `sum()` loads it.
    template <class Sum>
    LSTMCORE_INLINE P gate_derivative(const P& y, Sum sum) const {
        if constexpr (kStandard) return derivative<T>({ActivationKind::sigmoid}, y);
        return derivative_clipped<T>(cell.gate, T(cell.gate_clip),
                                     cell.gate.needs_input() ? sum() : y);
    }
    template <class Sum>
    LSTMCORE_INLINE P candidate_derivative(const P& y, Sum sum) const {
        if constexpr (kStandard) return derivative<T>({ActivationKind::tanh}, y);
        return derivative_clipped<T>(cell.candidate, T(cell.gate_clip),
                                     cell.candidate.needs_input() ? sum() : y);
    }
    LSTMCORE_INLINE P output_derivative(const P& y, const P& x) const {
        if constexpr (kStandard) return derivative<T>({ActivationKind::tanh}, y);
        return derivative_clipped<T>(cell.output, 0, cell.output.needs_input() ? x : y);
    }
    /// Whether the tape has the sums of all gates, behind the gates themselves.
    LSTMCORE_INLINE bool keeps_sums() const { return !kStandard && cell.needs_sums(); }
};

inline bool has_standard_activations(const CellSpec& cell) {
    return cell.gate.kind == ActivationKind::sigmoid &&
           cell.candidate.kind == ActivationKind::tanh &&
           cell.output.kind == ActivationKind::tanh && cell.gate_clip == 0;
}

template <class T>
void activate_array(const Activation& given, const T* x, T* y, int64_t n) {
    const Activation f = given;  // which no store into y can change
    for (int64_t i = 0; i < n; i += kLanes<T>)
        store(y + i, activate<T>(f, load(x + i, n - i)), n - i);
}

/// Kernels::differentiate. Where a relu has nothing behind it, even a gradient of NaN is 0.
template <class T>
void differentiate_array(const Activation& given, const T* from, const T* dy, T* dx, int64_t n) {
    using P = Packet<T>;
    const Activation f = given;
    const bool relu = f.kind == ActivationKind::relu;
    for (int64_t i = 0; i < n; i += kLanes<T>) {
        const P y = load(from + i, n - i), d = load(dy + i, n - i), zero = set(T(0));
        store(dx + i,
              relu ? simd::pselect(simd::pcmp_le(y, zero), zero, d) : pmul(d, derivative<T>(f, y)),
              n - i);
    }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
