// Products in bfloat16 by units that this machine may not have: the kernels that use them, compiled
// with their instructions written out in C++ (LSTMCORE_EMULATE_UNITS), and held to sums written
// down again here.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "emulated.h"
#include "kernel_table.h"
#include "levels.h"
#include "lstmcore/layer.h"
#include "lstmcore/linear.h"
#include "lstmcore/machine.h"
#include "machine/float_mode.h"
#include "memory/bfloat16.h"
#include "test.h"

using namespace lstmcore;

namespace {

constexpr Bfloat16Unit kUnits[] = {Bfloat16Unit::widening, Bfloat16Unit::dot, Bfloat16Unit::amx};
constexpr int64_t kLanes = EMULATED_LANES;

float widened(Bfloat16 x) {
    const uint32_t bits = uint32_t(x) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}
float rounded(float x) {
    return widened(to_bfloat16(x));
}

/// Numbers of many sizes, the same for the same seed.
std::vector<float> numbers(int64_t n, uint32_t seed) {
    std::vector<float> out(static_cast<size_t>(n));
    for (float& x : out) {
        seed = seed * 1664525u + 1013904223u;
        x = std::ldexp(float(int32_t(seed >> 8)) - float(1 << 23), -24 - int(seed % 5));
    }
    return out;
}

/// A (N, K) matrix, packed for a unit in panels of four registers.
struct Matrix {
    int64_t K, N;
    std::vector<float> from;
    std::vector<Bfloat16> memory;
    Packed<float> packed;

    Matrix(int64_t K_, int64_t N_, Bfloat16Unit unit) : K(K_), N(N_), from(numbers(K * N, 7)) {
        packed.K = K;
        packed.N = (N + kLanes - 1) / kLanes * kLanes;
        packed.vectors = 4;
        packed.unit = unit;
        memory.resize(size_t(packed.padded_K() * packed.N));
        const int64_t width = packed.vectors * kLanes;
        for (int64_t n = 0; n < N; ++n)
            for (int64_t k = 0; k < K; ++k) {
                const int64_t first = n / width * width;
                const int64_t columns = std::min(width, packed.N - first);
                memory[size_t(first * packed.padded_K() + (k / 2 * columns + n - first) * 2 + 1 -
                              k % 2)] = to_bfloat16(from[size_t(n * K + k)]);
            }
        packed.bfloat16 = memory.data();
    }
};

std::vector<float> multiply(const Matrix& w, const std::vector<float>& a, int64_t rows) {
    const std::vector<float> start = numbers(w.packed.N, 3);
    std::vector<float> out(size_t(rows * w.N));
    std::vector<ProductRow<float>> given;
    for (int64_t r = 0; r < rows; ++r)
        given.push_back({a.data() + r * w.K, start.data(), out.data() + r * w.N});
    const FlushDenormals mode;
    emulated::product(w.packed, w.N, given.data(), rows);
    return out;
}

/// One sum as the manual of a unit has it.
float expected_sum(const Matrix& w, const float* a, int64_t n, Bfloat16Unit unit) {
    const auto term = [&](int64_t k) {
        return k < w.K ? rounded(a[k]) * rounded(w.from[size_t(n * w.K + k)]) : 0.0f;
    };
    float sum = numbers(w.packed.N, 3)[size_t(n)];
    if (unit != Bfloat16Unit::amx) {
        for (int64_t k = 0; k < w.K; ++k) sum += term(k);
        return sum;
    }
    float total = 0;  // of tiles
    for (int64_t tile = 0; tile < w.K; tile += 2 * kLanes) {
        float even = 0, odd = 0;
        for (int64_t k = tile; k < tile + 2 * kLanes; k += 2) {
            even += term(k);
            odd += term(k + 1);
        }
        total += even + odd;
    }
    return sum + total;
}

}  // namespace

TEST(sums_are_those_of_the_manuals) {
    if (!emulated::runs_here()) return;
    for (const Bfloat16Unit unit : kUnits)
        for (const int64_t K : {1, 2, 7, 32, 33, 100, 1024})
            for (const int64_t N : {1, 8, 17, 32, 40, 64, 100})
                for (const int64_t rows : {1, 2, 3, 5, 13, 16, 17, 33, 47}) {
                    const Matrix w(K, N, unit);
                    const std::vector<float> a = numbers(rows * K, 11);
                    const std::vector<float> out = multiply(w, a, rows);
                    for (int64_t r = 0; r < rows; ++r)
                        for (int64_t n = 0; n < N; ++n)
                            CHECK_EQUAL(out[size_t(r * N + n)],
                                        expected_sum(w, a.data() + r * K, n, unit));
                }
}

TEST(a_row_does_not_depend_on_the_others) {
    if (!emulated::runs_here()) return;
    for (const Bfloat16Unit unit : kUnits) {
        const Matrix w(75, 50, unit);
        std::vector<float> a = numbers(70 * 75, 5);
        a[75 * 3] = std::numeric_limits<float>::infinity();
        const std::vector<float> all = multiply(w, a, 70);
        for (const int64_t r : {0, 3, 15, 16, 17, 31, 32, 69}) {
            const std::vector<float> row(a.begin() + r * 75, a.begin() + (r + 1) * 75);
            const std::vector<float> alone = multiply(w, row, 1);
            CHECK(std::memcmp(alone.data(), all.data() + r * 50, 50 * sizeof(float)) == 0);
            for (const float x : alone) CHECK(std::isfinite(x) == (r != 3));
        }
    }
}

TEST(subnormal_products_are_zeros) {
    if (!emulated::runs_here()) return;
    for (const Bfloat16Unit unit : kUnits) {
        Matrix w(2, 1, unit);
        w.memory[1] = to_bfloat16(1e-20f);
        w.memory[0] = to_bfloat16(1e-42f);
        for (const float x : {1e-20f, 1.0f}) {
            const std::vector<float> a{x == 1.0f ? 0.0f : x, x};
            CHECK_EQUAL(multiply(w, a, 1)[0], numbers(8, 3)[0]);
        }
    }
}

TEST(all_levels_round_alike) {
    const uint32_t bits[] = {0,          0x80000000, 0x3f800000, 0x3f808000, 0x3f818000,
                             0x3f808001, 0x3f807fff, 0x7f7fffff, 0x7f800000, 0xff800000,
                             0x7f800001, 0x7fffffff, 0xffffffff, 0x00000001, 0x007fffff,
                             0x00808000, 0xbf818000, 0x4048f5c3};
    for_each_isa([&](const std::string&) {
        for (size_t n = 1; n <= std::size(bits); ++n) {
            std::vector<float> x(n);
            std::memcpy(x.data(), bits, n * sizeof(float));
            kernel_table().f32.round(x.data(), int64_t(n));
            for (size_t i = 0; i < n; ++i) {
                float from;
                std::memcpy(&from, bits + i, sizeof from);
                const float want = rounded(from);
                CHECK(std::memcmp(&x[i], &want, sizeof want) == 0);
                CHECK(std::isnan(x[i]) == std::isnan(from));
            }
        }
    });
}

TEST(double_is_refused) {
    const double weight = 1;
    for (const Precision precision : {Precision::bfloat16, Precision::bfloat16x3})
        CHECK_THROWS(pack_linear<double>(&weight, nullptr, 1, 1, false, 1, precision),
                     std::invalid_argument, "beside float32 alone");
}

TEST(what_multiplies_has_a_name) {
    const std::string name = bfloat16_instructions();
    CHECK(name == "float32" || name == "widening" || name == "avx512-bf16" || name == "amx");
}
