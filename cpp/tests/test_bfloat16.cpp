// Products in bfloat16 by units that this machine may not have: by their instructions where the
// machine has them, and with these written out in C++ (LSTMCORE_EMULATE_UNITS). Both are held to
// sums written down again here.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "emulated.h"
#include "kernel_table.h"
#include "levels.h"
#include "lstmcore/layer.h"
#include "lstmcore/linear.h"
#include "lstmcore/machine.h"
#include "machine/cpu_features.h"
#include "machine/float_mode.h"
#include "memory/bfloat16.h"
#include "test.h"

using namespace lstmcore;

namespace {

constexpr Bfloat16Unit kUnits[] = {Bfloat16Unit::widening, Bfloat16Unit::dot, Bfloat16Unit::amx,
                                   Bfloat16Unit::amx_parts};

Kernels<float> emulated_kernels() {
    Kernels<float> kernels{};
    kernels.lanes = EMULATED_LANES;
    kernels.product = emulated::product<float>;
    return kernels;
}

/// Whether these kernels and this machine, which can run them, have the unit.
bool has_unit(const Kernels<float>& kernels, Bfloat16Unit unit) {
    if (unit == Bfloat16Unit::widening) return true;
    if (!kernels.has_avx512_units) return false;
    return unit == Bfloat16Unit::dot ? has_avx512_bf16() : has_amx_bf16();
}

/// Calls f(kernels, unit) for every unit of every level that this machine has, and for those that
/// are written out.
template <class F>
void for_each_unit(F f) {
    for_each_isa([&](const std::string&) {
        for (const Bfloat16Unit unit : kUnits)
            if (has_unit(kernel_table().f32, unit)) f(kernel_table().f32, unit);
    });
    if (!emulated::runs_here()) return;
    for (const Bfloat16Unit unit : kUnits) f(emulated_kernels(), unit);
}
/// The same for what multiplies parts.
template <class F>
void for_each_unit_of_parts(F f) {
    for_each_unit([&](const Kernels<float>& kernels, Bfloat16Unit unit) {
        if (unit == Bfloat16Unit::amx_parts) f(kernels);
    });
}

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

struct Parts {
    float of[kParts];
};
Parts parts_of(float x) {
    Bfloat16 numbers[kParts];
    split_bfloat16(x, numbers);
    return {{widened(numbers[0]), widened(numbers[1]), widened(numbers[2])}};
}

/// A (N, K) matrix, packed for a unit in panels of four registers; for `none` in float32.
struct Matrix {
    const Kernels<float> kernels;
    int64_t K, N;
    std::vector<float> from;
    std::vector<Bfloat16> memory;
    std::vector<float> floats;
    Packed<float> packed;

    Matrix(const Kernels<float>& of, int64_t K_, int64_t N_, Bfloat16Unit unit)
        : Matrix(of, K_, N_, unit, numbers(K_ * N_, 7)) {}
    Matrix(const Kernels<float>& of, int64_t K_, int64_t N_, Bfloat16Unit unit,
           std::vector<float> from_)
        : kernels(of), K(K_), N(N_), from(std::move(from_)) {
        const int64_t lanes = kernels.lanes;
        packed.K = K;
        packed.N = (N + lanes - 1) / lanes * lanes;
        packed.vectors = 4;
        packed.unit = unit;
        const int64_t parts = packed.parts(), padded = packed.padded_K();
        memory.resize(size_t(parts * padded * packed.N));
        floats.resize(size_t(K * packed.N));
        const int64_t width = packed.vectors * lanes;
        for (int64_t n = 0; n < N; ++n)
            for (int64_t k = 0; k < K; ++k) {
                const int64_t first = n / width * width;
                const int64_t columns = std::min(width, packed.N - first);
                const float number = from[size_t(n * K + k)];
                Bfloat16 of_number[kParts] = {to_bfloat16(number)};
                if (parts > 1) split_bfloat16(number, of_number);
                for (int64_t p = 0; p < parts; ++p)
                    memory[size_t((first * parts + p * columns) * padded +
                                  (k / 2 * columns + n - first) * 2 + 1 - k % 2)] = of_number[p];
                floats[size_t(first * K + k * columns + n - first)] = number;
            }
        if (packed.is_bfloat16())
            packed.bfloat16 = memory.data();
        else
            packed.data = floats.data();
    }
};

std::vector<float> multiply(const Matrix& w, const std::vector<float>& a, int64_t rows) {
    const std::vector<float> start = numbers(w.packed.N, 3);
    std::vector<float> out(size_t(rows * w.N));
    std::vector<ProductRow<float>> given;
    for (int64_t r = 0; r < rows; ++r)
        given.push_back({a.data() + r * w.K, start.data(), out.data() + r * w.N});
    const FlushDenormals mode;
    w.kernels.product(w.packed, w.N, given.data(), rows);
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
    for (int64_t tile = 0; tile < w.K; tile += 2 * w.kernels.lanes) {
        float even = 0, odd = 0;
        for (int64_t k = tile; k < tile + 2 * w.kernels.lanes; k += 2) {
            even += term(k);
            odd += term(k + 1);
        }
        total += even + odd;
    }
    return sum + total;
}

/// The same of numbers in three parts.
float expected_sum_of_parts(const Matrix& w, const float* a, int64_t n) {
    constexpr int kTerms[][2] = {{0, 2}, {0, 1}, {1, 1}, {1, 0}, {2, 0}, {0, 0}};
    const auto product = [&](int64_t k, const int (&term)[2]) {
        if (k >= w.K) return 0.0f;
        return parts_of(a[k]).of[term[0]] * parts_of(w.from[size_t(n * w.K + k)]).of[term[1]];
    };
    float total = 0;
    for (int64_t tile = 0; tile < w.K; tile += 2 * w.kernels.lanes)
        for (const auto& term : kTerms) {
            float even = 0, odd = 0;
            for (int64_t k = tile; k < tile + 2 * w.kernels.lanes; k += 2) {
                even += product(k, term);
                odd += product(k + 1, term);
            }
            total += even + odd;
        }
    return numbers(w.packed.N, 3)[size_t(n)] + total;
}

}  // namespace

TEST(sums_are_those_of_the_manuals) {
    for_each_unit([](const Kernels<float>& kernels, Bfloat16Unit unit) {
        for (const int64_t K : {1, 7, 32, 33, 100, 600})
            for (const int64_t N : {1, 17, 32, 40, 48, 100})
                for (const int64_t rows : {1, 2, 5, 16, 17, 33, 47}) {
                    const Matrix w(kernels, K, N, unit);
                    const std::vector<float> a = numbers(rows * K, 11);
                    const std::vector<float> out = multiply(w, a, rows);
                    // Of long rows not all.
                    for (int64_t r = 0; r < rows; r += K > 100 ? 3 : 1)
                        for (int64_t n = 0; n < N; ++n) {
                            const float* const row = a.data() + r * K;
                            CHECK_EQUAL(out[size_t(r * N + n)],
                                        unit == Bfloat16Unit::amx_parts
                                            ? expected_sum_of_parts(w, row, n)
                                            : expected_sum(w, row, n, unit));
                        }
                }
    });
}

TEST(a_row_does_not_depend_on_the_others) {
    for_each_unit([](const Kernels<float>& kernels, Bfloat16Unit unit) {
        const Matrix w(kernels, 75, 50, unit);
        std::vector<float> a = numbers(70 * 75, 5);
        a[75 * 3] = std::numeric_limits<float>::infinity();
        const std::vector<float> all = multiply(w, a, 70);
        for (const int64_t r : {0, 3, 15, 16, 17, 31, 32, 69}) {
            const std::vector<float> row(a.begin() + r * 75, a.begin() + (r + 1) * 75);
            const std::vector<float> alone = multiply(w, row, 1);
            CHECK(std::memcmp(alone.data(), all.data() + r * 50, 50 * sizeof(float)) == 0);
            for (const float x : alone) CHECK(std::isfinite(x) == (r != 3));
        }
    });
}

TEST(subnormal_products_are_zeros) {
    for_each_unit([](const Kernels<float>& kernels, Bfloat16Unit unit) {
        const Matrix w(kernels, 2, 1, unit, {1e-20f, 1e-42f});
        for (const float x : {1e-20f, 1.0f}) {
            const std::vector<float> a{x == 1.0f ? 0.0f : x, x};
            CHECK_EQUAL(multiply(w, a, 1)[0], numbers(8, 3)[0]);
        }
    });
}

TEST(parts_add_up_to_the_number) {
    for (const float scale : {1e-25f, 1.0f, 1e30f, 1e38f})
        for (const float number : numbers(2000, 9)) {
            const float x = number * scale;
            const Parts parts = parts_of(x);
            CHECK_EQUAL(double(parts.of[0]) + double(parts.of[1]) + double(parts.of[2]), double(x));
        }
    const float largest = std::numeric_limits<float>::max();
    const Parts parts = parts_of(largest);
    CHECK_EQUAL(double(parts.of[0]) + double(parts.of[1]) + double(parts.of[2]), double(largest));
}

/// The largest error of products of numbers that few rounding errors fit, by a unit.
double largest_error(const Kernels<float>& kernels, int64_t K, Bfloat16Unit unit) {
    const int64_t N = 70, rows = 40;
    const Matrix w(kernels, K, N, unit);
    const std::vector<float> a = numbers(rows * K, 11), start = numbers(w.packed.N, 3);
    const std::vector<float> out = multiply(w, a, rows);
    double largest = 0;
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t n = 0; n < N; ++n) {
            double sum = start[size_t(n)];
            for (int64_t k = 0; k < K; ++k)
                sum += double(a[size_t(r * K + k)]) * double(w.from[size_t(n * K + k)]);
            largest = std::max(largest, std::abs(double(out[size_t(r * N + n)]) - sum));
        }
    return largest;
}

TEST(products_of_parts_are_as_accurate_as_float32) {
    for_each_unit_of_parts([](const Kernels<float>& kernels) {
        for (const int64_t K : {1, 2, 5, 16, 33, 100, 512, 1500}) {
            const double of_parts = largest_error(kernels, K, Bfloat16Unit::amx_parts);
            CHECK(of_parts <= 2 * largest_error(kernels, K, Bfloat16Unit::none));
        }
    });
}

TEST(parts_of_what_is_not_finite_give_what_float32_gives) {
    for_each_unit_of_parts([](const Kernels<float>& kernels) {
        const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
        const float largest = std::numeric_limits<float>::max();
        const int64_t K = 37, N = 20, rows = 18;
        const auto sums = [&](Bfloat16Unit unit, float in_row, float in_weights) {
            std::vector<float> a = numbers(rows * K, 11), weights = numbers(K * N, 7);
            a[size_t(2 * K + 5)] = in_row;
            a[size_t(17 * K)] = in_row;
            a[5] = 0;
            weights[size_t(3 * K + 5)] = in_weights;
            weights[size_t(4 * K + 36)] = in_weights;
            weights[size_t(5 * K)] = 0;
            weights[size_t(6 * K + 5)] = 0.5f;  // one part
            return multiply(Matrix(kernels, K, N, unit, weights), a, rows);
        };
        for (const float x : {1.0f, inf, -inf, nan, largest, -largest})
            for (const float y : {1.0f, inf, -inf, nan, largest}) {
                // Two infinities are NaN here, and so may be two numbers whose product is far too
                // large.
                if (std::abs(x) > 1 && std::abs(y) > 1 && std::isinf(x) == std::isinf(y)) continue;
                const std::vector<float> exact = sums(Bfloat16Unit::none, x, y);
                const std::vector<float> out = sums(Bfloat16Unit::amx_parts, x, y);
                for (size_t i = 0; i < out.size(); ++i) {
                    CHECK_EQUAL(std::isnan(out[i]), std::isnan(exact[i]));
                    if (std::isinf(exact[i])) CHECK_EQUAL(out[i], exact[i]);
                    CHECK_EQUAL(std::isfinite(out[i]), std::isfinite(exact[i]));
                }
            }
        CHECK(!std::isfinite(sums(Bfloat16Unit::amx_parts, inf, inf)[size_t(2 * N + 3)]));
        CHECK(!std::isfinite(sums(Bfloat16Unit::amx_parts, largest, largest)[size_t(2 * N + 3)]));
    });
}

TEST(parts_of_tiny_numbers_vanish_within_bounds) {
    for_each_unit_of_parts([](const Kernels<float>& kernels) {
        const int64_t K = 40, N = 9;
        const double smallest = std::numeric_limits<float>::min();
        for (const float scale : {1e-30f, 1e-34f, 1e-36f, 1e-38f}) {
            std::vector<float> a = numbers(K, 5);
            double factors = 0, sizes = 0;
            const Matrix w(kernels, K, N, Bfloat16Unit::amx_parts);
            for (float& x : a) x *= scale;
            const std::vector<float> out = multiply(w, a, 1), start = numbers(w.packed.N, 3);
            for (int64_t n = 0; n < N; ++n) {
                double sum = start[size_t(n)];
                factors = sizes = 0;
                for (int64_t k = 0; k < K; ++k) {
                    const double weight = w.from[size_t(n * K + k)];
                    sum += double(a[size_t(k)]) * weight;
                    factors += std::abs(weight);
                    sizes += std::abs(double(a[size_t(k)]) * weight);
                }
                const double bound = 2 * smallest * factors + 6 * double(K) * smallest;
                CHECK(std::abs(double(out[size_t(n)]) - sum) <=
                      bound + 1e-6 * (std::abs(double(start[size_t(n)])) + sizes));
            }
        }
    });
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
