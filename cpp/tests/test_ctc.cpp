// CTC against all ways to say the labels, at every ISA level; the search for labels; logarithms.
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "kernel_table.h"
#include "levels.h"
#include "lstmcore/ctc.h"
#include "machine/isa.h"
#include "test.h"

using namespace lstmcore;

namespace {

using Labels = std::vector<int64_t>;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

/// The probability of all that a row of T steps and C classes says, by enumeration.
std::map<Labels, double> enumerate(const std::vector<double>& logits, int64_t T, int64_t C) {
    std::map<Labels, double> found;
    int64_t ways = 1;
    for (int64_t t = 0; t < T; ++t) ways *= C;
    for (int64_t way = 0; way < ways; ++way) {
        double p = 1;
        Labels labels;
        int64_t rest = way, before = 0;
        for (int64_t t = 0; t < T; ++t, rest /= C) {
            const int64_t k = rest % C;
            double sum = 0;
            for (int64_t c = 0; c < C; ++c) sum += std::exp(logits[size_t(t * C + c)]);
            p *= std::exp(logits[size_t(t * C + k)]) / sum;
            if (k != before && k != 0) labels.push_back(k);
            before = k;
        }
        found[labels] += p;
    }
    return found;
}

std::vector<double> some(int64_t count, unsigned seed) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal(0, 2);
    std::vector<double> x(size_t(count), 0.0);
    for (double& value : x) value = normal(random);
    return x;
}

}  // namespace

TEST(losses_are_those_of_all_ways) {
    constexpr int64_t T = 5, C = 3;
    const std::vector<double> logits = some(T * C, 1);
    const CtcScores scores{T, 1, C, C, T * C, nullptr, 0};
    for_each_isa([&](const std::string&) {
        for (const auto& [labels, p] : enumerate(logits, T, C)) {
            const int64_t count = int64_t(labels.size());
            const double factor = 1;
            double loss = 77;
            std::vector<double> gradient(size_t(T * C), 77.0);
            ctc(logits.data(), scores, labels.data(), &count, &factor, &loss, gradient.data(), 1);
            CHECK_NEAR(loss, -std::log(p), 1e-12);
            for (int64_t t = 0; t < T; ++t) {
                double sum = 0;
                for (int64_t c = 0; c < C; ++c) sum += gradient[size_t(t * C + c)];
                CHECK_NEAR(sum, 0, 1e-14);
            }
        }
        const Labels twice{1, 1, 1, 1};  // three blanks between: seven steps
        const int64_t count = 4;
        double loss = 77;
        ctc<double>(logits.data(), scores, twice.data(), &count, nullptr, &loss, nullptr, 1);
        CHECK_EQUAL(loss, kInfinity);
    });
}

TEST(a_wide_beam_finds_all) {
    constexpr int64_t T = 5, C = 3;
    const std::vector<double> logits = some(T * C, 2);
    const CtcScores scores{T, 1, C, C, T * C, nullptr, 0};
    const std::map<Labels, double> expected = enumerate(logits, T, C);
    const auto found = ctc_beam_search(logits.data(), scores, 1000, 1);
    CHECK_EQUAL(found[0].size(), expected.size());
    double before = kInfinity;
    for (const CtcHypothesis& one : found[0]) {
        CHECK_NEAR(one.score, std::log(expected.at(one.labels)), 1e-12);
        CHECK(one.score <= before);
        before = one.score;
    }
}

TEST(threads_change_no_bit_of_ctc) {
    constexpr int64_t T = 60, B = 7, C = 33;
    const std::vector<double> numbers = some(T * B * C, 3);
    const std::vector<float> logits(numbers.begin(), numbers.end());
    const std::vector<int64_t> counts{3, 0, 30, 7, 1, 12, 5}, lengths{60, 1, 60, 20, 9, 33, 47};
    const std::vector<double> factor(B, 0.5);
    std::vector<int64_t> labels;
    for (const int64_t count : counts)
        for (int64_t i = 0; i < count; ++i) labels.push_back(1 + i * 7 % (C - 1));
    const CtcScores scores{T, B, C, B * C, C, lengths.data(), 0};
    std::vector<std::vector<float>> gradients;
    std::vector<std::vector<double>> losses;
    for (const int threads : {1, 2, 5}) {
        gradients.emplace_back(logits.size(), 77.0f);
        losses.emplace_back(B, 77.0);
        ctc(logits.data(), scores, labels.data(), counts.data(), factor.data(),
            losses.back().data(), gradients.back().data(), threads);
        CHECK(gradients.back() == gradients[0]);
        CHECK(losses.back() == losses[0]);
    }
}

TEST(logarithms_are_right_within_two_ulp) {
    std::mt19937_64 random(4);
    std::uniform_real_distribution<double> exponent(-1020, 1020), near(0.5, 2);
    for_each_isa([&](const std::string&) {
        for (int i = 0; i < 20000; ++i) {
            const double x = i % 2 ? near(random) : std::exp2(exponent(random));
            double y = 77;
            kernel_table().log(&x, &y, 1);
            const double exact = double(std::log((long double)x));
            CHECK_NEAR(y, exact, 5e-16 * std::abs(exact) + 1e-300);
        }
        const double one = 1;
        double y = 77;
        kernel_table().log(&one, &y, 1);
        CHECK_EQUAL(y, 0.0);
    });
}
