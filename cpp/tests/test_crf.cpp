// The CRF against all sequences of labels, at every ISA level.
#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

#include "levels.h"
#include "lstmcore/crf.h"
#include "test.h"

using namespace lstmcore;

namespace {

constexpr int64_t T = 5, B = 3, C = 3;

struct Case {
    std::vector<double> scores, transitions, start, end;
    std::vector<int64_t> target, lengths{5, 0, 3};
    CrfShape shape{T, B, C, B * C, C, nullptr, nullptr};

    /// `scale` of 500 makes exponentials that double cannot hold.
    explicit Case(double scale) {
        std::mt19937_64 random(7);
        std::normal_distribution<double> normal(0, scale);
        for (auto* some : {&scores, &transitions, &start, &end}) {
            some->resize(some == &scores ? T * B * C : some == &transitions ? C * C : C);
            for (double& value : *some) value = normal(random);
        }
        for (int64_t i = 0; i < T * B; ++i) target.push_back(int64_t(random() % C));
        shape.lengths = lengths.data();
    }
    CrfParameters<double> parameters() const {
        return {transitions.data(), start.data(), end.data()};
    }
    double score(int64_t b, const std::vector<int64_t>& labels) const {
        double sum = labels.empty() ? 0 : start[size_t(labels[0])] + end[size_t(labels.back())];
        for (size_t t = 0; t < labels.size(); ++t) {
            sum += scores[(t * B + size_t(b)) * C + size_t(labels[t])];
            if (t > 0) sum += transitions[size_t(labels[t - 1] * C + labels[t])];
        }
        return sum;
    }
    /// Calls f(labels, score) for all sequences of a row.
    template <class F>
    void each(int64_t b, F f) const {
        int64_t count = 1;
        for (int64_t t = 0; t < lengths[size_t(b)]; ++t) count *= C;
        for (int64_t i = 0; i < count; ++i) {
            std::vector<int64_t> labels;
            for (int64_t t = 0, rest = i; t < lengths[size_t(b)]; ++t, rest /= C)
                labels.push_back(rest % C);
            f(labels, score(b, labels));
        }
    }
};

void check(double scale) {
    const Case one(scale);
    for_each_isa([&](const std::string&) {
        std::vector<double> losses(B, 77), factor(B, 1), dscores(T * B * C, 77), da(C * C), ds(C),
            de(C);
        const CrfGradients<double> gradients{da.data(), ds.data(), de.data()};
        crf(one.scores.data(), one.shape, one.parameters(), one.target.data(), factor.data(),
            losses.data(), dscores.data(), &gradients, 2);
        std::vector<int64_t> paths(T * B);
        const int64_t steps =
            crf_decode(one.scores.data(), one.shape, one.parameters(), paths.data(), 2);
        CHECK_EQUAL(steps, int64_t(8));
        std::vector<double> expected(C * C);
        for (int64_t b = 0, first = 0; b < B; first += one.lengths[size_t(b++)]) {
            double highest = -INFINITY, sum = 0;
            std::vector<int64_t> best, target;
            one.each(b, [&](const auto& labels, double score) {
                if (score > highest) highest = score, best = labels;
            });
            one.each(b, [&](const auto&, double score) { sum += std::exp(score - highest); });
            for (int64_t t = 0; t < one.lengths[size_t(b)]; ++t)
                target.push_back(one.target[size_t(t * B + b)]);
            const double all = highest + std::log(sum);
            CHECK_NEAR(losses[size_t(b)], all - one.score(b, target), 1e-12 * (1 + scale));
            CHECK(std::equal(best.begin(), best.end(), paths.begin() + first));
            one.each(b, [&](const auto& labels, double score) {
                for (size_t t = 1; t < labels.size(); ++t)
                    expected[size_t(labels[t - 1] * C + labels[t])] += std::exp(score - all);
            });
            for (size_t t = 1; t < target.size(); ++t)
                expected[size_t(target[t - 1] * C + target[t])] -= 1;
        }
        for (size_t i = 0; i < expected.size(); ++i)
            CHECK_NEAR(da[i], expected[i], 1e-12 * (1 + scale));
    });
}

}  // namespace

TEST(losses_paths_and_gradients_are_those_of_all_sequences) {
    check(1);
}

TEST(what_double_cannot_hold_is_summed_by_logarithms) {
    check(500);
}
