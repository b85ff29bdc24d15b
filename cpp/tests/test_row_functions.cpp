// Activations, softmax and layer normalization: right, and to the same bits however they are
// shared.
#include <cmath>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <vector>

#include "levels.h"
#include "lstmcore/row_functions.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), sizeof(T) * a.size()) == 0;
}

template <class T>
void check_values(int64_t rows, int64_t n) {
    const double tolerance = sizeof(T) == 4 ? 1e-5 : 1e-13;
    const auto x = random_numbers<T>(rows * n, 1);
    const auto weight = random_numbers<T>(n, 2), bias = random_numbers<T>(n, 3);
    std::vector<T> soft(x.size()), norm(x.size()), normal(x.size()), scale(rows), tanh(x.size());
    softmax(x.data(), rows, n, soft.data(), 1);
    LayerNormArgs<T> args;
    args.features = n;
    args.eps = 0.01;
    args.weight = weight.data();
    args.bias = bias.data();
    args.normal = normal.data();
    args.scale = scale.data();
    layer_norm(args, x.data(), rows, norm.data(), 1);
    activate({ActivationKind::tanh}, x.data(), rows * n, tanh.data(), 1);
    for (int64_t i = 0; i < rows; ++i) {
        double sum = 0, mean = 0, variance = 0;
        for (int64_t j = 0; j < n; ++j) {
            sum += std::exp(double(x[i * n + j]));
            mean += double(x[i * n + j]) / double(n);
        }
        for (int64_t j = 0; j < n; ++j)
            variance += std::pow(double(x[i * n + j]) - mean, 2) / double(n);
        const double factor = 1 / std::sqrt(variance + 0.01);
        CHECK_NEAR(scale[i], factor, tolerance * 10);
        for (int64_t j = 0; j < n; ++j) {
            const double value = double(x[i * n + j]);
            CHECK_NEAR(soft[i * n + j], std::exp(value) / sum, tolerance);
            CHECK_NEAR(normal[i * n + j], (value - mean) * factor, tolerance);
            CHECK_NEAR(norm[i * n + j],
                       (value - mean) * factor * double(weight[j]) + double(bias[j]), tolerance);
            CHECK_NEAR(tanh[i * n + j], std::tanh(value), tolerance);
        }
    }
}

/// The change of sum(dy f(x)) when one number of x moves, by f in double: f(from, to).
template <class F>
std::vector<double> differences(const std::vector<double>& x, const std::vector<double>& dy, F f) {
    const double step = 1e-6;
    std::vector<double> moved = x, y(x.size()), dx(x.size());
    for (size_t i = 0; i < x.size(); ++i) {
        double ends[2];
        for (int side = 0; side < 2; ++side) {
            moved[i] = x[i] + (side ? step : -step);
            f(moved.data(), y.data());
            ends[side] = 0;
            for (size_t k = 0; k < y.size(); ++k) ends[side] += dy[k] * y[k];
        }
        moved[i] = x[i];
        dx[i] = (ends[1] - ends[0]) / (2 * step);
    }
    return dx;
}

void check_gradients(int64_t rows, int64_t n) {
    const auto x = random_numbers<double>(rows * n, 1), dy = random_numbers<double>(rows * n, 2);
    const auto weight = random_numbers<double>(n, 3), bias = random_numbers<double>(n, 4);
    std::vector<double> y(x.size()), dx(x.size());
    const auto check = [&](auto f) {
        const std::vector<double> expected = differences(x, dy, f);
        for (size_t i = 0; i < x.size(); ++i) CHECK_NEAR(dx[i], expected[i], 1e-7);
    };
    for (const Activation f :
         {Activation{ActivationKind::tanh}, Activation{ActivationKind::relu},
          Activation{ActivationKind::elu, 0.7}, Activation{ActivationKind::leaky_relu, 0.2},
          Activation{ActivationKind::gelu}, Activation{ActivationKind::silu}}) {
        activate(f, x.data(), rows * n, y.data(), 1);
        const double* const from = f.needs_input() ? x.data() : y.data();
        activate_backward(f, from, dy.data(), rows * n, dx.data(), 1);
        check([&](const double* a, double* b) { activate(f, a, rows * n, b, 1); });
    }
    softmax(x.data(), rows, n, y.data(), 1);
    softmax_backward(dy.data(), y.data(), rows, n, dx.data(), 1);
    check([&](const double* a, double* b) { softmax(a, rows, n, b, 1); });

    std::vector<double> normal(x.size()), scale(rows);
    for (const bool affine : {false, true}) {
        LayerNormArgs<double> args;
        args.features = n;
        args.eps = 0.01;
        if (affine) args.weight = weight.data(), args.bias = bias.data();
        const auto f = [&](const double* a, double* b) { layer_norm(args, a, rows, b, 1); };
        args.normal = normal.data();
        args.scale = scale.data();
        f(x.data(), y.data());
        args.normal = args.scale = nullptr;
        std::vector<double> dweight(n, 1), dbias(n, 1);  // are added to
        LayerNormBackwardArgs<double> back{
            n, args.weight, normal.data(), scale.data(), dweight.data(), dbias.data()};
        layer_norm_backward(back, dy.data(), rows, dx.data(), 1);
        check(f);
        for (int64_t j = 0; j < n; ++j) {
            double of_weight = 1, of_bias = 1;
            for (int64_t i = 0; i < rows; ++i) {
                of_weight += dy[i * n + j] * normal[i * n + j];
                of_bias += dy[i * n + j];
            }
            CHECK_NEAR(dweight[j], of_weight, 1e-12);
            CHECK_NEAR(dbias[j], of_bias, 1e-12);
        }
    }
}

}  // namespace

TEST(gradients_are_those_of_differences) {
    for_each_isa([](const std::string&) {
        for (const int64_t n : {1, 3, 16, 17}) check_gradients(3, n);
    });
}

TEST(values_are_those_of_the_equations) {
    for_each_isa([](const std::string&) {
        for (const int64_t n : {1, 2, 15, 16, 17, 50}) {
            check_values<float>(3, n);
            check_values<double>(3, n);
        }
    });
}

TEST(threads_and_neighbours_do_not_change_a_bit) {
    const int64_t rows = 3000, n = 37;
    const auto x = random_numbers<float>(rows * n, 1);
    std::vector<float> one(x.size()), many(x.size()), alone(n);
    LayerNormArgs<float> args;
    args.features = n;
    const auto check = [&](auto compute) {
        compute(x.data(), rows, one.data(), 1);
        compute(x.data(), rows, many.data(), 4);
        CHECK(same_bits(one, many));
        compute(x.data() + 5 * n, 1, alone.data(), 1);
        CHECK(std::memcmp(alone.data(), one.data() + 5 * n, sizeof(float) * n) == 0);
    };
    check([&](const float* from, int64_t r, float* to, int t) { softmax(from, r, n, to, t); });
    check(
        [&](const float* from, int64_t r, float* to, int t) { layer_norm(args, from, r, to, t); });
    check([&](const float* from, int64_t r, float* to, int t) {
        activate({ActivationKind::sigmoid}, from, r * n, to, t);
    });

    const auto dy = random_numbers<float>(rows * n, 2);
    check([&](const float* from, int64_t r, float* to, int t) {
        activate_backward({ActivationKind::gelu}, from, dy.data() + (from - x.data()), r * n, to,
                          t);
    });
    check([&](const float* from, int64_t r, float* to, int t) {
        softmax_backward(dy.data() + (from - x.data()), from, r, n, to, t);
    });
    const std::vector<float> scale(rows, 0.5f);
    std::vector<float> sums[2] = {std::vector<float>(2 * n), std::vector<float>(2 * n)};
    check([&](const float* from, int64_t r, float* to, int t) {
        std::vector<float>& sum = sums[t > 1];
        layer_norm_backward<float>({n, nullptr, from, scale.data(), sum.data(), sum.data() + n},
                                   dy.data() + (from - x.data()), r, to, t);
        if (t > 1) CHECK(same_bits(sums[0], sums[1]));
    });
}

TEST(nothing_overflows_and_nan_stays) {
    const float infinite = std::numeric_limits<float>::infinity();
    const float x[] = {1000, 1000, -infinite, 0, NAN, 1};
    float y[6];
    softmax(x, 2, 3, y, 1);
    CHECK_EQUAL(y[0], 0.5f);
    CHECK_EQUAL(y[1], 0.5f);
    CHECK_EQUAL(y[2], 0.0f);
    for (int i = 3; i < 6; ++i) CHECK(std::isnan(y[i]));
}

TEST(negative_sizes_are_refused) {
    float x[1] = {};
    LayerNormArgs<float> args;
    args.features = -1;
    CHECK_THROWS(softmax(x, -1, 1, x, 1), std::invalid_argument, "-1");
    CHECK_THROWS(layer_norm(args, x, 1, x, 1), std::invalid_argument, "-1");
    CHECK_THROWS(activate({ActivationKind::tanh}, x, -3, x, 1), std::invalid_argument, "-3");
    CHECK_THROWS(activate_backward({ActivationKind::tanh}, x, x, -3, x, 1), std::invalid_argument,
                 "-3");
    CHECK_THROWS(softmax_backward(x, x, -1, 1, x, 1), std::invalid_argument, "-1");
    LayerNormBackwardArgs<float> back;
    back.features = -1;
    CHECK_THROWS(layer_norm_backward(back, x, 1, x, 1), std::invalid_argument, "-1");
}
