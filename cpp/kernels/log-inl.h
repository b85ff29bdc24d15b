// Logarithms, and sums of numbers that are known by their logarithms.
#pragma once

#include <cstdint>

#include "kernel_table.h"
#include "simd-inl.h"
#include "softmax-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// log(x) for finite x of at least 2.3e-308, within 2 ulp: x = 2^k m with m in [sqrt(1/2),
/// sqrt(2)), and log(m) = 2 artanh(s), s = (m - 1) / (m + 1), by the series of artanh.
LSTMCORE_INLINE Packet<double> log_of(const Packet<double>& x) {
    typedef uint64_t Bits __attribute__((vector_size(sizeof(Packet<double>))));
    constexpr uint64_t kMantissa = (uint64_t(1) << 52) - 1, kOne = uint64_t(1023) << 52;
    constexpr double kInteger = 4503599627370496.0;  // 2^52: its last bits are an integer
    const Bits bits = (Bits)x;
    // k + 1023 + 2^52, by the bits of the exponent.
    const Packet<double> exponent = (Packet<double>)((bits >> 52) | (Bits)set(kInteger));
    const Packet<double> k = psub(exponent, set(kInteger + 1023));
    const Packet<double> m = (Packet<double>)((bits & kMantissa) | kOne);  // in [1, 2)
    const auto above = simd::pcmp_lt(set(1.4142135623730951), m);
    const Packet<double> one = set(1.0);
    const Packet<double> half = simd::pselect(above, pmul(m, set(0.5)), m);
    const Packet<double> power = simd::pselect(above, padd(k, one), k);
    const Packet<double> s = pdiv(psub(half, one), padd(half, one)), u = pmul(s, s);
    Packet<double> p = set(1.0 / 23);
    for (const double n : {21., 19., 17., 15., 13., 11., 9., 7., 5., 3.})
        p = pmadd(p, u, set(1.0 / n));
    const Packet<double> rest = pmul(pmul(s, u), p), twice = padd(s, s);
    constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    const Packet<double> low = pmadd(power, set(ln2_low), padd(rest, rest));
    return pmadd(power, set(ln2_high), padd(twice, low));
}

/// Beside the highest, which counts as 1, two exponentials are left to add.
LSTMCORE_INLINE Packet<double> log_sum_of(const Packet<double>& a, const Packet<double>& b,
                                          const Packet<double>& c) {
    const Packet<double> high = simd::pmax(a, b), low = simd::pmin(a, b);
    const Packet<double> highest = simd::pmax(high, c), other = simd::pmin(high, c);
    // Of three zeros, whose logarithms are -infinity, the differences shall be no NaN.
    const Packet<double> shift = simd::pmax(highest, set(-1e300));
    const Packet<double> sum =
        padd(exp_below_0<double>(psub(other, shift)), exp_below_0<double>(psub(low, shift)));
    return padd(highest, log_of(padd(sum, set(1.0))));
}

inline void log_sums_of_three(const double* x, const double* allowed, double* out, int64_t n) {
    constexpr int64_t L = kLanes<double>;
    for (int64_t i = 0; i < n; i += L) {
        const int64_t m = n - i;
        const Packet<double> third = padd(load(x + i - 2, m), load(allowed + i, m));
        store(out + i, log_sum_of(load(x + i, m), load(x + i - 1, m), third), m);
    }
}

inline void log_array(const double* x, double* y, int64_t n) {
    for (int64_t i = 0; i < n; i += kLanes<double>) store(y + i, log_of(load(x + i, n - i)), n - i);
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
