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

// The others, each with its bound for float and for double. That of gelu, which is as good as
// nothing far below 0, is in units of the last place of x.
struct Bounded {
    const char* name;
    Activation f;
    long double (*exact)(long double x);
    double of_float, of_double;
    bool of_x = false;
};
const Bounded kBounded[] = {
    {"elu",
     {ActivationKind::elu, 0.5},
     [](long double x) { return x > 0 ? x : 0.5L * std::expm1(x); },
     4,
     4},
    {"selu",
     {ActivationKind::selu},
     [](long double x) {
         return 1.0507009873554804934L * (x > 0 ? x : 1.6732632423543772848L * std::expm1(x));
     },
     4,
     4},
    {"softplus",
     {ActivationKind::softplus},
     [](long double x) { return std::max(x, 0.0L) + std::log1p(std::exp(-std::abs(x))); },
     5,
     5},
    {"exponential", {ActivationKind::exponential}, [](long double x) { return std::exp(x); }, 4, 4},
    {"silu", {ActivationKind::silu}, [](long double x) { return x * exact_sigmoid(x); }, 4, 4},
    {"mish",
     {ActivationKind::mish},
     [](long double x) {
         const long double e = std::exp(std::min(x, 1000.0L)), n = e * (e + 2);
         return x * (n / (n + 2));
     },
     6,
     6},
    {"hard_silu",
     {ActivationKind::hard_silu},
     [](long double x) { return x * std::min(std::max(x / 6 + 0.5L, 0.0L), 1.0L); },
     4,
     4,
     true},
    {"gelu",
     {ActivationKind::gelu},
     [](long double x) { return x * (0.5L * std::erfc(-x * 0.70710678118654752440L)); },
     4,
     4,
     true},
};

template <class T>
double worst_of(const Bounded& one, const std::vector<T>& x) {
    const std::vector<T> y = activate<T>(one.f, x);
    double worst = 0;
    for (size_t i = 0; i < x.size(); ++i) {
        const long double truth = one.exact(x[i]);
        double off = ulps(y[i], truth);
        if (one.of_x) {
            int exponent;
            std::frexp(x[i], &exponent);
            off = double(std::abs(y[i] - truth) /
                         std::ldexp(1.0L, exponent - std::numeric_limits<T>::digits));
        }
        worst = std::max(worst, off);
    }
    return worst;
}

template <class T>
std::vector<T> numbers_of_all_sizes() {
    std::mt19937_64 random(2);
    std::uniform_real_distribution<double> log_size(-6, 1.9), sign(-1, 1);
    std::vector<T> x = {T(-1e-30), T(1e-30), T(1e30), T(88.5), T(88.7), T(-87)};
    for (int i = 0; i < 200000; ++i) {
        const double size = std::pow(10, log_size(random));
        x.push_back(T(sign(random) < 0 ? -size : size));
    }
    return x;
}

TEST(the_other_functions_hold_their_bounds) {
    for_each_isa([](const std::string& name) {
        for (const Bounded& one : kBounded) {
            const double f = worst_of(one, numbers_of_all_sizes<float>());
            const double d = worst_of(one, numbers_of_all_sizes<double>());
            std::cout << name << ": " << one.name << " " << f << ", " << d << " ulp" << std::endl;
            CHECK(f <= one.of_float);
            CHECK(d <= one.of_double);
        }
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
        {{ActivationKind::affine, 0.5, 1}, {-inf, -huge / 2, 1, huge / 2, inf}},
        {{ActivationKind::leaky_relu, 0.5}, {-inf, -huge / 2, 0, huge, inf}},
        {{ActivationKind::thresholded_relu, 2}, {0, 0, 0, huge, inf}},
        {{ActivationKind::elu, 3}, {-3, -3, 0, huge, inf}},
        {{ActivationKind::selu}, {-1.7580993f, -1.7580993f, 0, 1.0507009873554805f * huge, inf}},
        {{ActivationKind::softplus}, {0, 0, 0.6931472f, huge, inf}},
        {{ActivationKind::exponential}, {0, 0, 1, inf, inf}},
        {{ActivationKind::gelu}, {0, 0, 0, huge, inf}},
        {{ActivationKind::silu}, {0, 0, 0, huge, inf}},
        {{ActivationKind::mish}, {0, 0, 0, huge, inf}},
        {{ActivationKind::hard_silu}, {0, 0, 0, huge, inf}},
    };
    for_each_isa([&](const std::string&) {
        for (const auto& one : cases) {
            const std::vector<float> y = activate(one.f, x);
            for (size_t i = 0; i < one.y.size(); ++i) CHECK_EQUAL(y[i], one.y[i]);
            CHECK(std::isnan(y.back()));
        }
    });
}
