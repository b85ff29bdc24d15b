// The softmax cross-entropy against its definition in long double, at every ISA level.
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "levels.h"
#include "lstmcore/losses.h"
#include "machine/isa.h"
#include "test.h"

using namespace lstmcore;

namespace {

template <class T>
struct Result {
    std::vector<double> losses;
    std::vector<T> dpred;
};

template <class T>
Result<T> run(const std::vector<T>& pred, const std::vector<int64_t>& target,
              const std::vector<T>& factor, int threads = 1) {
    const int64_t rows = int64_t(target.size()), classes = int64_t(pred.size()) / rows;
    // Not zeros, so that a number that is never written shows.
    Result<T> result{std::vector<double>(rows, 77), std::vector<T>(pred.size(), T(77))};
    cross_entropy(pred.data(), target.data(), factor.data(), factor.data(), rows, classes,
                  result.losses.data(), result.dpred.data(), threads);
    return result;
}

template <class T>
void check_definition(double tolerance) {
    std::mt19937_64 random(5);
    std::normal_distribution<double> normal(0, 20);
    for (const int64_t classes : {1, 2, 3, 15, 16, 17, 33, 1000}) {
        const int64_t rows = 7;
        std::vector<T> pred(rows * classes), factor(rows);
        std::vector<int64_t> target(rows);
        for (T& value : pred) value = T(normal(random));
        for (int64_t i = 0; i < rows; ++i) {
            target[i] = i * 31 % classes;
            factor[i] = T(i + 1) / 8;
        }
        std::vector<Result<T>> results;
        for_each_isa([&](const std::string& name) {
            const Result<T> ours = run(pred, target, factor);
            for (int64_t i = 0; i < rows; ++i) {
                const T* x = pred.data() + i * classes;
                long double sum = 0;
                for (int64_t c = 0; c < classes; ++c)
                    sum += std::exp((long double)x[c] - x[target[i]]);
                CHECK_NEAR(ours.losses[i], double(std::log(sum)), tolerance * 100);
                for (int64_t c = 0; c < classes; ++c) {
                    const long double p = std::exp((long double)x[c] - x[target[i]]) / sum;
                    CHECK_NEAR(ours.dpred[i * classes + c],
                               double(factor[i] * (p - (c == target[i]))), tolerance);
                }
            }
            if (name != "x86-64-v2") results.push_back(ours);
        });
        for (const Result<T>& one : results) {
            CHECK(one.losses == results[0].losses);
            CHECK(one.dpred == results[0].dpred);
        }
    }
}

}  // namespace

TEST(cross_entropy_of_floats) {
    check_definition<float>(3e-7);
}

TEST(cross_entropy_of_doubles) {
    check_definition<double>(1e-15);
}

TEST(cross_entropy_neither_overflows_nor_hides_nan) {
    const float inf = std::numeric_limits<float>::infinity(), huge = 3e38f;
    for_each_isa([&](const std::string&) {
        for (const int64_t classes : {5, 16, 40}) {
            for (int64_t at = 0; at < classes; ++at) {
                std::vector<float> pred(3 * classes, -huge);
                pred[at] = huge;                     // all of the probability
                pred[classes + at] = std::nanf("");  // nothing is known of this row
                pred[2 * classes + at] = -inf;       // none of it
                const Result<float> ours = run<float>(pred, {at, at, at}, {1, 1, 1});
                CHECK_EQUAL(ours.losses[0], 0.0);
                CHECK(std::isnan(ours.losses[1]));
                CHECK_EQUAL(ours.losses[2], double(inf));
                for (int64_t c = 0; c < classes; ++c) {
                    CHECK_EQUAL(ours.dpred[c], 0.0f);
                    CHECK(std::isnan(ours.dpred[classes + c]));
                    CHECK(std::isfinite(ours.dpred[2 * classes + c]));
                }
            }
        }
    });
}

TEST(rows_of_factor_0_are_not_looked_at) {
    const double nan = std::nan("");
    const Result<double> ours = run<double>({nan, nan, 0, 0}, {-100, 1}, {0, 1});
    CHECK_EQUAL(ours.losses[0], 0.0);
    CHECK_EQUAL(ours.dpred[0], 0.0);
    CHECK_EQUAL(ours.dpred[1], 0.0);
    CHECK_NEAR(ours.losses[1], std::log(2.0), 1e-15);
}

TEST(threads_change_no_bit_of_a_loss) {
    std::mt19937_64 random(6);
    std::normal_distribution<double> normal;
    // More than four threads have an equal number of.
    std::vector<float> pred(2003 * 65), factor(2003, 1);
    std::vector<int64_t> target(2003);
    for (float& value : pred) value = float(normal(random));
    for (size_t i = 0; i < target.size(); ++i) target[i] = int64_t(i % 65);
    const Result<float> one = run(pred, target, factor), four = run(pred, target, factor, 4);
    CHECK(one.losses == four.losses);
    CHECK(one.dpred == four.dpred);
}
