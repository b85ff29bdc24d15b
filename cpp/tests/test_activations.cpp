// The error bounds stated in activations-inl.h, against the C library in double and long double.
// By default every 97th float, but all where tanh comes near 1; LSTMCORE_EVERY_FLOAT=1 takes all
// 2^32 (some minutes).
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernel_table.h"
#include "levels.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "test.h"

using namespace lstmcore;

namespace {

template <class T>
std::vector<T> activate(const Activation& f, const std::vector<T>& x) {
    std::vector<T> y(x.size());
    const FlushDenormals mode;
    kernel_table().of<T>().activate(f, x.data(), y.data(), int64_t(x.size()));
    return y;
}

/// |y - truth| in units of the last place of the truth; 0 where both are below the normal numbers.
template <class T, class Wide>
double ulps(T y, Wide truth) {
    if (std::isnan(y) || std::isnan(truth)) return std::isnan(y) && std::isnan(truth) ? 0 : 1e30;
    const T smallest = std::numeric_limits<T>::min();
    if (std::abs(truth) < smallest) return std::abs(y) <= smallest ? 0 : 1e30;
    int exponent;
    std::frexp(truth, &exponent);
    return double(std::abs(Wide(y) - truth) /
                  std::ldexp(Wide(1), exponent - std::numeric_limits<T>::digits));
}

template <class Wide>
Wide exact_sigmoid(Wide x) {
    return x < 0 ? std::exp(x) / (1 + std::exp(x)) : 1 / (1 + std::exp(-x));
}

template <class Exact, class See>
double worst_over_floats(const Activation& f, Exact exact, See see) {
    const bool every = std::getenv("LSTMCORE_EVERY_FLOAT");
    const auto step_at = [&](uint64_t bits) {
        return every || (bits >= 0x40800000 && bits < 0x41800000) ? 1 : 97;  // 4 <= x < 16
    };
    constexpr size_t kBlock = 1 << 16;
    double worst = 0;
    std::vector<float> x;
    x.reserve(kBlock);
    for (uint64_t bits = 0; bits < uint64_t(1) << 32; bits += step_at(bits)) {
        const uint32_t pattern = uint32_t(bits);
        float value;
        std::memcpy(&value, &pattern, sizeof value);
        x.push_back(value);
        if (x.size() < kBlock && bits + step_at(bits) < uint64_t(1) << 32) continue;
        const std::vector<float> y = activate(f, x);
        for (size_t i = 0; i < x.size(); ++i)
            worst = std::max(worst, ulps(y[i], exact(double(x[i]))));
        for (float value : y) see(value);
        x.clear();
    }
    return worst;
}

}  // namespace

TEST(sigmoid_of_floats_is_within_3_ulp) {
    for_each_isa([](const std::string& name) {
        const double worst = worst_over_floats(
            {ActivationKind::sigmoid}, [](double x) { return exact_sigmoid(x); }, [](float) {});
        std::cout << name << ": sigmoid " << worst << " ulp" << std::endl;
        CHECK(worst <= 3);
    });
}

TEST(tanh_of_floats_is_within_6_ulp_and_never_beyond_1) {
    for_each_isa([](const std::string& name) {
        float largest = 0;
        const double worst = worst_over_floats(
            {ActivationKind::tanh}, [](double x) { return std::tanh(x); },
            [&](float y) { largest = std::max(largest, std::abs(y)); });
        std::cout << name << ": tanh " << worst << " ulp" << std::endl;
        CHECK(worst <= 6);
        CHECK_EQUAL(largest, 1.0f);
    });
}

TEST(doubles_hold_the_same_bounds) {
    std::mt19937_64 random(1);
    std::vector<double> x = {0.0, -0.0, 1e-300, -1e-300, 5e-324, 19.06, 19.07, 708.9, -708.9};
    std::uniform_real_distribution<double> log_size(-30, 3), sign(-1, 1);
    for (int i = 0; i < 1000000; ++i) {
        const double size = std::pow(10, log_size(random));
        x.push_back(sign(random) < 0 ? -size : size);
    }
    for_each_isa([&](const std::string& name) {
        const auto s = activate<double>({ActivationKind::sigmoid}, x);
        const auto t = activate<double>({ActivationKind::tanh}, x);
        double worst_s = 0, worst_t = 0;
        for (size_t i = 0; i < x.size(); ++i) {
            const long double wide = x[i];
            worst_s = std::max(worst_s, ulps(s[i], exact_sigmoid(wide)));
            worst_t = std::max(worst_t, ulps(t[i], std::tanh(wide)));
        }
        std::cout << name << ": sigmoid " << worst_s << ", tanh " << worst_t << " ulp" << std::endl;
        CHECK(worst_s <= 3);
        CHECK(worst_t <= 5);
    });
}

TEST(special_values) {
    const float inf = std::numeric_limits<float>::infinity(), huge = 3e38f;
    const std::vector<float> x = {-inf, -huge, 0, huge, inf, std::nanf("")};
    const struct {
        Activation f;
        std::vector<float> y;
    } cases[] = {
        {{ActivationKind::sigmoid}, {0, 0, 0.5f, 1, 1}},
        {{ActivationKind::tanh}, {-1, -1, 0, 1, 1}},
        {{ActivationKind::relu}, {0, 0, 0, huge, inf}},
        {{ActivationKind::hard_sigmoid, 0.2, 0.5}, {0, 0, 0.5f, 1, 1}},
        {{ActivationKind::scaled_tanh, 2, 0.5}, {-2, -2, 0, 2, 2}},
        {{ActivationKind::softsign}, {-1, -1, 0, 1, 1}},
        {{ActivationKind::identity}, {-inf, -huge, 0, huge, inf}},
    };
    for_each_isa([&](const std::string&) {
        for (const auto& one : cases) {
            const std::vector<float> y = activate(one.f, x);
            for (size_t i = 0; i < one.y.size(); ++i) CHECK_EQUAL(y[i], one.y[i]);
            CHECK(std::isnan(y.back()));
        }
    });
}
