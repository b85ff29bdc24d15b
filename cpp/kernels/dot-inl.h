// Dot products of groups of four int8, one group for each lane of a register of int32.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel_table.h"
#include "simd-inl.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/// Whether kernels have Int8Unit::vnni, which an old assembler may not know. Elsewhere tests can
/// have it emulated.
#if (defined(__AVX2__) && !defined(LSTMCORE_OLD_ASSEMBLER)) || defined(LSTMCORE_EMULATE_UNITS)
#define LSTMCORE_VNNI 1
#else
#define LSTMCORE_VNNI 0
#endif

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// As many int32 as there are lanes of float.
typedef int32_t Ints __attribute__((vector_size(sizeof(Packet<float>))));
typedef uint32_t Unsigned __attribute__((vector_size(sizeof(Packet<float>))));

LSTMCORE_INLINE Packet<float> to_floats(const Ints& x) {
    typedef float Floats __attribute__((vector_size(sizeof(Packet<float>))));
    return (Packet<float>)__builtin_convertvector(x, Floats);
}

/// Whether a lane of a comparison is true.
LSTMCORE_INLINE bool any(const Ints& x) {
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)x, (__m512i)x) != 0;
#elif defined(__AVX2__)
    return !_mm256_testz_si256((__m256i)x, (__m256i)x);
#else
    bool is = false;
    for (int lane = 0; lane < kLanes<float>; ++lane) is |= x[lane] != 0;
    return is;
#endif
}

#if LSTMCORE_VNNI
/// sum[lane] + the dot product of four bytes of `w`, without a sign, and four of `a`, with one:
/// VPDPBUSD.
LSTMCORE_INLINE Ints add_dots(Ints sum, const Ints& w, const Ints& a) {
#if defined(LSTMCORE_EMULATE_UNITS)
    for (int lane = 0; lane < kLanes<float>; ++lane)
        for (int bit = 0; bit < 32; bit += 8)
            sum[lane] += int32_t(uint8_t(w[lane] >> bit)) * int32_t(int8_t(a[lane] >> bit));
#elif defined(__AVX512F__)
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(w), "v"(a));
#else
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(w), "x"(a));
#endif
    return sum;
}

/// Four numbers of a row, in every lane, that weights with kVnniOffset added are multiplied with.
class VnniFactor {
public:
    /// What the weights are larger by than they should be.
    static constexpr int32_t kOffset = kVnniOffset;

    LSTMCORE_INLINE explicit VnniFactor(const int8_t* four) {
        int32_t bits;
        std::memcpy(&bits, four, sizeof bits);
        a_ = Ints{} + bits;
    }
    /// sum[lane] + the dot product with weights[4 lane] ... weights[4 lane + 3].
    LSTMCORE_INLINE Ints add_dot(const Ints& sum, const int8_t* weights) const {
        Ints w;
        std::memcpy(&w, weights, sizeof w);
        return add_dots(sum, w, a_);
    }

private:
    Ints a_;
};
#endif

/// Four numbers of a row, in every lane, that weights are multiplied with. None is -128, of
/// neither: then the instruction that adds neighbouring products to 16 bits, unsigned times signed,
/// never saturates, as 2 * 127 * 127 < 2^15.
#if defined(__AVX512BW__)
class DotFactor {
public:
    static constexpr int32_t kOffset = 0;

    LSTMCORE_INLINE explicit DotFactor(const int8_t* four) {
        int32_t bits;
        std::memcpy(&bits, four, sizeof bits);
        const __m512i a = _mm512_set1_epi32(bits);
        size_ = _mm512_abs_epi8(a);
        negative_ = _mm512_movepi8_mask(a);
    }
    /// sum[lane] + the dot product with weights[4 lane] ... weights[4 lane + 3].
    LSTMCORE_INLINE Ints add_dot(const Ints& sum, const int8_t* weights) const {
        const __m512i w = _mm512_loadu_si512(weights);
        const __m512i turned = _mm512_mask_sub_epi8(w, negative_, _mm512_setzero_si512(), w);
        const __m512i pairs = _mm512_maddubs_epi16(size_, turned);
        return (Ints)_mm512_add_epi32((__m512i)sum, _mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
    }

private:
    __m512i size_;
    __mmask64 negative_;
};
#elif defined(__AVX2__)
class DotFactor {
public:
    static constexpr int32_t kOffset = 0;

    LSTMCORE_INLINE explicit DotFactor(const int8_t* four) {
        int32_t bits;
        std::memcpy(&bits, four, sizeof bits);
        a_ = _mm256_set1_epi32(bits);
        size_ = _mm256_abs_epi8(a_);
    }
    /// sum[lane] + the dot product with weights[4 lane] ... weights[4 lane + 3].
    LSTMCORE_INLINE Ints add_dot(const Ints& sum, const int8_t* weights) const {
        const __m256i w = _mm256_loadu_si256((const __m256i*)weights);
        const __m256i pairs = _mm256_maddubs_epi16(size_, _mm256_sign_epi8(w, a_));
        return (Ints)_mm256_add_epi32((__m256i)sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }

private:
    __m256i a_, size_;
};
#elif defined(__SSSE3__)
class DotFactor {
public:
    static constexpr int32_t kOffset = 0;

    LSTMCORE_INLINE explicit DotFactor(const int8_t* four) {
        int32_t bits;
        std::memcpy(&bits, four, sizeof bits);
        a_ = _mm_set1_epi32(bits);
        size_ = _mm_abs_epi8(a_);
    }
    /// sum[lane] + the dot product with weights[4 lane] ... weights[4 lane + 3].
    LSTMCORE_INLINE Ints add_dot(const Ints& sum, const int8_t* weights) const {
        const __m128i w = _mm_loadu_si128((const __m128i*)weights);
        const __m128i pairs = _mm_maddubs_epi16(size_, _mm_sign_epi8(w, a_));
        return (Ints)_mm_add_epi32((__m128i)sum, _mm_madd_epi16(pairs, _mm_set1_epi16(1)));
    }

private:
    __m128i a_, size_;
};
#else
class DotFactor {
public:
    static constexpr int32_t kOffset = 0;

    LSTMCORE_INLINE explicit DotFactor(const int8_t* four) : four_(four) {}
    /// sum[lane] + the dot product with weights[4 lane] ... weights[4 lane + 3].
    LSTMCORE_INLINE Ints add_dot(Ints sum, const int8_t* weights) const {
        for (int lane = 0; lane < kLanes<float>; ++lane)
            for (int i = 0; i < 4; ++i) sum[lane] += int32_t(four_[i]) * weights[4 * lane + i];
        return sum;
    }

private:
    const int8_t* four_;
};
#endif

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
