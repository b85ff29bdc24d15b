// Products in int8 by units that this machine may not have: by their instructions where the
// machine has them, and with these written out in C++ (LSTMCORE_EMULATE_UNITS). All give the same
// bits.
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include "emulated.h"
#include "kernel_table.h"
#include "levels.h"
#include "lstmcore/machine.h"
#include "machine/float_mode.h"
#include "memory/int8.h"
#include "test.h"

using namespace lstmcore;

namespace {

constexpr Int8Unit kUnits[] = {Int8Unit::plain, Int8Unit::vnni, Int8Unit::amx};

Kernels<float> emulated_kernels() {
    Kernels<float> kernels{};
    kernels.lanes = EMULATED_LANES;
    kernels.product = emulated::product<float>;
    kernels.rnn_forward = emulated::rnn_forward<float>;
    return kernels;
}

/// Whole numbers of -127 .. 127, the same for the same seed.
int8_t number(int64_t i, int64_t seed) {
    return int8_t((i * i * 31 + i * 7919 + seed * 101) % 255 - 127);
}

/// A (N, K) matrix in int8, packed for a unit.
struct Matrix {
    int64_t K, N;
    std::vector<int8_t> values, memory;
    std::vector<float> scales, packed_scales;
    std::vector<int32_t> packed_shifts;
    Packed<float> packed;

    template <class NumberOf>
    Matrix(int lanes, Int8Unit unit, int64_t K_, int64_t N_, NumberOf number_of)
        : K(K_), N(N_), values(size_t(K * N)), scales(static_cast<size_t>(N)) {
        for (size_t i = 0; i < values.size(); ++i) values[i] = number_of(int64_t(i));
        for (size_t i = 0; i < scales.size(); ++i) scales[i] = float(i % 7 + 1) / 512;
        packed.K = K;
        packed.N = (N + lanes - 1) / lanes * lanes;
        packed.vectors = 4;
        packed.int8_unit = unit;
        memory.resize(size_t(packed.padded_int8_K() * packed.N));
        packed_scales.resize(size_t(packed.N));
        packed_shifts.resize(size_t(packed.N));
        const int64_t rows = N;
        copy_int8(
            {values.data(), scales.data()},
            [rows](int64_t column) { return column < rows ? column : -1; }, packed, lanes, 0,
            packed.N, memory.data(), packed_scales.data(), packed_shifts.data());
        packed.quantized = memory.data();
        packed.scales = packed_scales.data();
        packed.shifts = packed_shifts.data();
    }
};

/// Rows of whole numbers, 127 among them: quantising leaves them as they are, with scale 1.
template <class NumberOf>
std::vector<float> whole_rows(int64_t rows, int64_t K, NumberOf number_of) {
    std::vector<float> a(size_t(rows * K));
    for (size_t i = 0; i < a.size(); ++i)
        a[i] = int64_t(i) % K == 0 ? 127.0f : float(number_of(int64_t(i)));
    return a;
}

std::vector<float> multiply(const Kernels<float>& kernels, const Matrix& w,
                            const std::vector<float>& a) {
    const int64_t rows = int64_t(a.size()) / w.K;
    const std::vector<float> start(size_t(w.packed.N), 0.3f);
    std::vector<float> out(size_t(rows * w.N));
    std::vector<ProductRow<float>> given;
    for (int64_t r = 0; r < rows; ++r)
        given.push_back({a.data() + r * w.K, start.data(), out.data() + r * w.N});
    const FlushDenormals mode;
    kernels.product(w.packed, w.N, given.data(), rows);
    return out;
}

/// The sums in whole numbers, and one multiply-add in float.
std::vector<float> expected(const Matrix& w, const std::vector<float>& a, bool fused) {
    std::vector<float> out;
    for (size_t row = 0; row < a.size(); row += size_t(w.K))
        for (int64_t n = 0; n < w.N; ++n) {
            int64_t sum = 0;
            for (int64_t k = 0; k < w.K; ++k)
                sum += int64_t(a[row + size_t(k)]) * w.values[size_t(n * w.K + k)];
            const float scale = w.scales[size_t(n)];
            out.push_back(fused ? std::fma(float(sum), scale, 0.3f) : float(sum) * scale + 0.3f);
        }
    return out;
}

/// Calls f(kernels, unit, fused) for every unit of every level that this machine has, and for those
/// that are written out. `fused` is whether a multiply-add rounds once.
template <class F>
void for_each_unit(F f) {
    for_each_isa([&](const std::string& name) {
        for (const Int8Unit unit : kUnits)
            if (has_int8_unit(kernel_table().f32, unit))
                f(kernel_table().f32, unit, name != "x86-64-v2");
    });
    if (!emulated::runs_here()) return;
    for (const Int8Unit unit : kUnits) f(emulated_kernels(), unit, true);
}

}  // namespace

TEST(products_are_exact_by_every_unit) {
    for_each_unit([](const Kernels<float>& kernels, Int8Unit unit, bool fused) {
        for (const int64_t K : {1, 3, 4, 33, 63, 64, 65, 130, 515})
            for (const int64_t N : {1, 8, 17, 40, 64, 100, 200})
                for (const int64_t rows : {1, 2, 3, 4, 5, 6, 7, 13, 16, 17, 33, 70}) {
                    const Matrix w(kernels.lanes, unit, K, N,
                                   [](int64_t i) { return number(i, 1); });
                    auto a = whole_rows(rows, K, [](int64_t i) { return number(i, 2); });
                    CHECK(multiply(kernels, w, a) == expected(w, a, fused));
                    // Rows without a negative number, each of whose numbers is doubled.
                    for (float& x : a) x = std::abs(x);
                    CHECK(multiply(kernels, w, a) == expected(w, a, fused));
                }
    });
}

TEST(the_largest_sums_are_exact) {
    for_each_unit([](const Kernels<float>& kernels, Int8Unit unit, bool fused) {
        for (const int64_t K : {int64_t(16385), kMostQuantized})
            for (const int weight : {127, -127})
                for (const int factor : {127, -127}) {
                    const Matrix w(kernels.lanes, unit, K, 9,
                                   [&](int64_t) { return int8_t(weight); });
                    const auto a = whole_rows(3, K, [&](int64_t) { return factor; });
                    CHECK(multiply(kernels, w, a) == expected(w, a, fused));
                }
    });
}

TEST(rows_that_are_zero_or_not_finite_stay_apart) {
    for_each_unit([](const Kernels<float>& kernels, Int8Unit unit, bool) {
        const int64_t K = 75, N = 50;
        const Matrix w(kernels.lanes, unit, K, N, [](int64_t i) { return number(i, 3); });
        auto a = whole_rows(9, K, [](int64_t i) { return number(i, 4); });
        std::fill(a.begin() + 2 * K, a.begin() + 3 * K, 0.0f);
        a[size_t(4 * K + 7)] = std::numeric_limits<float>::infinity();
        a[size_t(5 * K)] = std::numeric_limits<float>::quiet_NaN();
        const std::vector<float> all = multiply(kernels, w, a);
        for (int64_t r = 0; r < 9; ++r) {
            const std::vector<float> row(a.begin() + r * K, a.begin() + (r + 1) * K);
            const std::vector<float> alone = multiply(kernels, w, row);
            for (int64_t n = 0; n < N; ++n) {
                const float one = alone[size_t(n)], other = all[size_t(r * N + n)];
                if (r == 4 || r == 5)
                    CHECK(std::isnan(one) && std::isnan(other));
                else
                    CHECK_EQUAL(one, other);
                if (r == 2) CHECK_EQUAL(one, 0.3f);
            }
        }
    });
}

TEST(steps_have_the_same_bits_by_every_unit) {
    const int64_t H = 21, I = 70, rows = 66;  // more rows than are quantised at once
    std::vector<float> x(size_t(rows * I)), h(size_t(rows * H));
    for (size_t i = 0; i < x.size(); ++i) x[i] = float(number(int64_t(i), 5)) / 77;
    for (size_t i = 0; i < h.size(); ++i) h[i] = float(number(int64_t(i), 6)) / 130;
    const auto step = [&](const Kernels<float>& kernels, Int8Unit unit, int64_t n) {
        const Matrix w(kernels.lanes, unit, H, H, [](int64_t i) { return number(i, 7); });
        const Matrix w_in(kernels.lanes, unit, I, H, [](int64_t i) { return number(i, 8); });
        const std::vector<float> bias(size_t(w.packed.N), 0.125f);
        std::vector<float> y(size_t(n * H));
        StepArgs<float> args;
        args.H = H;
        args.w = w.packed;
        args.w_in = w_in.packed;
        std::vector<RnnForwardRow<float>> given;
        for (int64_t r = 0; r < n; ++r)
            given.push_back(
                {bias.data(), h.data() + r * H, y.data() + r * H, x.data() + r * I, nullptr});
        const FlushDenormals mode;
        kernels.rnn_forward(args, given.data(), n);
        return y;
    };
    for_each_unit([&](const Kernels<float>& kernels, Int8Unit unit, bool) {
        for (const int64_t n : {int64_t(1), int64_t(2), int64_t(5), rows})
            CHECK(step(kernels, unit, n) == step(kernels, Int8Unit::plain, n));
    });
}

TEST(what_multiplies_has_a_name_and_is_there) {
    for_each_isa([](const std::string&) {
        const std::string name = int8_instructions();
        CHECK(name == "plain" || name == "vnni" || name == "amx");
        CHECK(has_int8_unit(kernel_table().f32, int8_unit(kernel_table().f32)));
    });
}
