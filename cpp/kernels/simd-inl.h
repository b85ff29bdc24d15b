// Packets of Eigen under short names, and what Eigen lacks: partial loads, powers of two.
#pragma once

// Else Eigen's square root is an approximation, and another one at each level.
#define EIGEN_FAST_MATH 0

#include <Eigen/Core>
#include <cstdint>
#include <cstring>

#define LSTMCORE_INLINE inline __attribute__((always_inline))
#define LSTMCORE_INLINE_LAMBDA __attribute__((always_inline))
/// One copy of a function, whatever the compiler knows of its arguments where it is called.
#ifdef __clang__
#define LSTMCORE_ONE_COPY __attribute__((noinline))
#else
#define LSTMCORE_ONE_COPY __attribute__((noinline, noclone))
#endif

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

namespace simd = Eigen::internal;
using simd::padd;
using simd::pdiv;
using simd::pmadd;
using simd::pmul;
using simd::psub;

template <class T>
using Packet = typename simd::packet_traits<T>::type;
template <class T>
constexpr int kLanes = simd::packet_traits<T>::size;

#if defined(__AVX512F__) || defined(__aarch64__)
constexpr int kRegisters = 32;
#else
constexpr int kRegisters = 16;
#endif

/// Whether pmadd rounds once.
#if defined(__FMA__) || defined(__aarch64__)
constexpr bool kFused = true;
#else
constexpr bool kFused = false;
#endif

template <class T>
LSTMCORE_INLINE Packet<T> set(T value) {
    return simd::pset1<Packet<T>>(value);
}
template <class T>
LSTMCORE_INLINE Packet<T> load(const T* p) {
    return simd::ploadu<Packet<T>>(p);
}
template <class T>
LSTMCORE_INLINE void store(T* p, const Packet<T>& v) {
    simd::pstoreu(p, v);
}

/// Whether registers can be read and written in part; Eigen does it for float.
template <class T>
constexpr bool kMasked = simd::unpacket_traits<Packet<T>>::masked_load_available &&
                         simd::unpacket_traits<Packet<T>>::masked_store_available;

/// The first n lanes, of fewer than a register has; none if n is negative.
template <class T>
LSTMCORE_INLINE auto first_lanes(int64_t n) {
    return typename simd::unpacket_traits<Packet<T>>::mask_t(n < 0 ? 0 : (1 << n) - 1);
}

template <class T>
__attribute__((noinline)) Packet<T> load_lanes(const T* p, int64_t n) {
    alignas(64) T lanes[kLanes<T>] = {};
    for (int64_t i = 0; i < n; ++i) lanes[i] = p[i];
    return simd::pload<Packet<T>>(lanes);
}
template <class T>
__attribute__((noinline)) void store_lanes(T* p, Packet<T> v, int64_t n) {
    alignas(64) T lanes[kLanes<T>];
    simd::pstore(lanes, v);
    for (int64_t i = 0; i < n; ++i) p[i] = lanes[i];
}

constexpr int kCacheLine = 64;

/// Asks for the cache line at p, which need not be readable, to be brought to the L2 cache: before
/// a tile is multiplied, for what is read or written after it.
LSTMCORE_INLINE void prefetch(const void* p) {
    __builtin_prefetch(p, 0, 2);
}

/// The same, to the L1 cache.
LSTMCORE_INLINE void prefetch_near(const void* p) {
    __builtin_prefetch(p, 0, 3);
}

/// The first n numbers at p, zeros behind them; n may exceed the lanes, or be negative.
template <class T>
LSTMCORE_INLINE Packet<T> load(const T* p, int64_t n) {
    if (n >= kLanes<T>) return load(p);
    if constexpr (kMasked<T>)
        return simd::ploadu<Packet<T>>(p, first_lanes<T>(n));
    else
        return load_lanes(p, n);
}
template <class T>
LSTMCORE_INLINE void store(T* p, const Packet<T>& v, int64_t n) {
    if (n >= kLanes<T>) return store(p, v);
    if constexpr (kMasked<T>)
        simd::pstoreu(p, v, first_lanes<T>(n));
    else
        store_lanes(p, v, n);
}

/// As many numbers at p as there are lanes of double, as doubles.
LSTMCORE_INLINE Packet<double> widen(const double* p) {
    return load(p);
}
LSTMCORE_INLINE Packet<double> widen(const float* p) {
    typedef float Narrow __attribute__((vector_size(sizeof(float) * kLanes<double>)));
    typedef double Wide __attribute__((vector_size(sizeof(double) * kLanes<double>)));
    Narrow narrow;
    std::memcpy(&narrow, p, sizeof narrow);
    return (Packet<double>)__builtin_convertvector(narrow, Wide);
}

/// Added to a number it rounds it to an integer k, and leaves the exponent of 2^k, with its bias,
/// in the lowest bits of the sum.
template <class T>
constexpr T kRoundToPower =
    sizeof(T) == 4 ? T(12582912.0 + 127) : T(6755399441055744.0 + 1023);  // 1.5 * 2^23, 2^52

/// 2^k from that sum.
LSTMCORE_INLINE Packet<float> power_of_two(const Packet<float>& sum, float) {
    typedef uint32_t Bits __attribute__((vector_size(sizeof(Packet<float>))));
    return (Packet<float>)((Bits)sum << 23);
}
LSTMCORE_INLINE Packet<double> power_of_two(const Packet<double>& sum, double) {
    typedef uint64_t Bits __attribute__((vector_size(sizeof(Packet<double>))));
    return (Packet<double>)((Bits)sum << 52);
}

/// x held to [lo, hi]. NaN stays NaN: Eigen's pmin and pmax give their first argument then.
template <class T>
LSTMCORE_INLINE Packet<T> clamp(const Packet<T>& x, T lo, T hi) {
    return simd::pmin(simd::pmax(x, set(lo)), set(hi));
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
