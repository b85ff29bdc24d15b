// The loops that measure a machine: multiply-adds in registers, the same with operands from the L1
// cache, and reading memory. Each is compiled for every ISA level of its architecture; the caller
// picks one that the machine has.
#pragma once

#include <cstdint>
#include <cstring>

namespace limits {

/// 1, but not to the compiler.
inline float one() {
    static volatile float value = 1;
    return value;
}

/// Keeps the compiler from leaving out what led to the value.
inline void keep(float value) {
    static volatile float sink;
    sink = value;
    (void)sink;
}

/// Steps of the sums of product(), whose operands stay in the L1 cache, and what these are: numbers
/// without a pattern, which cost a machine more power, and with it some of its clock, than others.
constexpr int kDepth = 64;
template <int kSize>
struct Operands {
    alignas(64) float at[kSize];
    Operands() {
        uint32_t state = 1;
        for (float& value : at) {
            state = state * 1664525u + 1013904223u;  // Numerical Recipes' generator
            value = float(int32_t(state)) * 0x1p-31f;
        }
    }
};

/// multiply_add(n)  n rounds of one multiply-add on each of the independent chains, which hide the
///                  latency of two multipliers and fit in the registers; returns how many
///                  floating-point operations that were. Compile with -ffp-contract=fast.
/// product(n)       the same for a tile of a matrix product, ROWS by VECTORS registers, as large as
///                  fits in the registers: its operands come from the L1 cache, a register of one
///                  matrix for every column and a number of the other, spread, for every row.
/// read(data, n)    reads n bytes, a multiple of kBlock, from aligned memory; returns what keeps
///                  the compiler from leaving it out.
#define LIMITS_LOOPS(LEVEL, TARGET, BYTES, CHAINS, ROWS, VECTORS, REGISTER)                    \
    namespace LEVEL {                                                                          \
    typedef float Floats __attribute__((vector_size(BYTES), may_alias));                       \
    constexpr int kLanes = BYTES / sizeof(float);                                              \
    typedef long long Integers __attribute__((vector_size(BYTES), may_alias));                 \
    TARGET inline int64_t multiply_add(int64_t rounds) {                                       \
        const Floats zero = {}, factor = zero + one(), step = zero + one() * 1e-3f;            \
        Floats chain[CHAINS];                                                                  \
        _Pragma("GCC unroll 32") for (int i = 0; i < CHAINS; ++i) chain[i] = zero + one() * i; \
        for (int64_t r = 0; r < rounds; ++r)                                                   \
            _Pragma("GCC unroll 32") for (int i = 0; i < CHAINS; ++i) chain[i] =               \
                chain[i] * factor + step;                                                      \
        Floats sum = zero;                                                                     \
        _Pragma("GCC unroll 32") for (int i = 0; i < CHAINS; ++i) sum += chain[i];             \
        keep(sum[0]);                                                                          \
        return rounds * CHAINS * kLanes * 2;                                                   \
    }                                                                                          \
    TARGET inline int64_t product(int64_t rounds) {                                            \
        static const Operands<ROWS * kDepth> a;                                                \
        static const Operands<kDepth * VECTORS * kLanes> b;                                    \
        const Floats zero = {};                                                                \
        Floats sum[ROWS][VECTORS];                                                             \
        _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; ++r)                                 \
            _Pragma("GCC unroll 8") for (int v = 0; v < VECTORS; ++v) sum[r][v] = zero;        \
        for (int64_t round = 0; round < rounds; round += kDepth)                               \
            for (int k = 0; k < kDepth; ++k) {                                                 \
                const Floats* row = reinterpret_cast<const Floats*>(b.at) + k * VECTORS;       \
                Floats column[VECTORS];                                                        \
                _Pragma("GCC unroll 8") for (int v = 0; v < VECTORS; ++v) column[v] = row[v];  \
                _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; ++r) {                       \
                    Floats factor = a.at[r * kDepth + k] - zero;                               \
                    asm("" : "+" REGISTER(factor)); /* read once, not once a column */         \
                    _Pragma("GCC unroll 8") for (int v = 0; v < VECTORS; ++v) sum[r][v] +=     \
                        factor * column[v];                                                    \
                }                                                                              \
            }                                                                                  \
        _Pragma("GCC unroll 8") for (int r = 0; r < ROWS; ++r)                                 \
            _Pragma("GCC unroll 8") for (int v = 0; v < VECTORS; ++v) sum[0][0] += sum[r][v];  \
        keep(sum[0][0][0]);                                                                    \
        return (rounds + kDepth - 1) / kDepth * kDepth * ROWS * VECTORS * kLanes * 2;          \
    }                                                                                          \
    TARGET inline int64_t read(const void* data, int64_t n) {                                  \
        Integers seen[8] = {};                                                                 \
        const Integers* end = static_cast<const Integers*>(data) + n / BYTES;                  \
        for (const Integers* p = static_cast<const Integers*>(data); p < end; p += 8)          \
            _Pragma("GCC unroll 8") for (int i = 0; i < 8; ++i) seen[i] |= p[i];               \
        _Pragma("GCC unroll 8") for (int i = 1; i < 8; ++i) seen[0] |= seen[i];                \
        return seen[0][0] | seen[0][1];                                                        \
    }                                                                                          \
    }

constexpr int64_t kBlock = 512;  // bytes of one round of the widest read loop

struct Level {
    const char* name;
    int64_t (*multiply_add)(int64_t rounds);
    int64_t (*product)(int64_t rounds);
    int64_t (*read)(const void* data, int64_t n);
};

#if defined(__x86_64__)
LIMITS_LOOPS(v2, __attribute__((target("sse4.2"))), 16, 10, 4, 2, "x")
LIMITS_LOOPS(v3, __attribute__((target("avx2,fma"))), 32, 12, 4, 3, "x")
LIMITS_LOOPS(v4, __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma"))), 64, 24, 6, 4,
             "v")
constexpr Level kLevels[] = {{"x86-64-v2", v2::multiply_add, v2::product, v2::read},
                             {"x86-64-v3", v3::multiply_add, v3::product, v3::read},
                             {"x86-64-v4", v4::multiply_add, v4::product, v4::read}};
#elif defined(__aarch64__)
LIMITS_LOOPS(neon, , 16, 24, 6, 4, "w")
constexpr Level kLevels[] = {{"neon", neon::multiply_add, neon::product, neon::read}};
#endif

#undef LIMITS_LOOPS

/// Whether the processor multiplies int8 as int8_dots() does.
inline bool has_int8_dots(const char* level) {
#if defined(__x86_64__)
    return std::strcmp(level, "x86-64-v4") == 0 && __builtin_cpu_supports("avx512vnni");
#else
    (void)level;
    return false;
#endif
}
/// multiply_add() of int8 by VPDPBUSD, which sums four products to each of 16 int32.
inline int64_t int8_dots(int64_t rounds) {
    constexpr int kChains = 24;
#if defined(__x86_64__)
    for (int64_t r = 0; r < rounds; ++r)
        asm volatile(
            ".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23\n\t"
            "vpdpbusd %%zmm24, %%zmm25, %%zmm\\n\n\t"
            ".endr"
            :
            :
            : "memory");
    asm volatile("vzeroupper");
#endif
    return rounds * kChains * 64 * 2;
}

/// Null if there is no such level in this build.
inline const Level* find_level(const char* name) {
    for (const Level& level : kLevels)
        if (std::strcmp(level.name, name) == 0) return &level;
    return nullptr;
}

}  // namespace limits
