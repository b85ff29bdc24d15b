// Attention: against its definition, with lengths and dropout; equal bits however it is shared.
#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "levels.h"
#include "lstmcore/attention.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

template <class T>
struct Results {
    std::vector<T> y, weights, mean, dquery, dkey, dvalue;

    bool operator==(const Results& other) const {
        return y == other.y && weights == other.weights && mean == other.mean &&
               dquery == other.dquery && dkey == other.dkey && dvalue == other.dvalue;
    }
};

template <class T>
struct Example {
    AttentionShape shape;
    std::vector<int64_t> lengths;
    std::vector<T> query, key, value, kept, dy;
    T scale = T(0.3);

    Example(AttentionShape shape_, std::vector<int64_t> lengths_, bool drops)
        : shape(shape_), lengths(std::move(lengths_)) {
        const int64_t E = shape.heads * shape.size, V = shape.heads * shape.value_size;
        query = random_numbers<T>(shape.T * shape.B * E, 1);
        key = random_numbers<T>(shape.S * shape.B * E, 2);
        value = random_numbers<T>(shape.S * shape.B * V, 3);
        dy = random_numbers<T>(shape.T * shape.B * V, 4);
        if (drops) {
            kept = random_numbers<T>(shape.B * shape.heads * shape.T * shape.S, 5);
            for (T& factor : kept) factor = factor > 0 ? T(2) : T(0);
        }
        if (!lengths.empty()) shape.lengths = lengths.data();
    }
    Example(const Example&) = delete;

    int64_t at(int64_t step, int64_t b, int64_t head, int64_t steps, int64_t size) const {
        const int64_t row = shape.batch_first ? b * steps + step : step * shape.B + b;
        return (row * shape.heads + head) * size;
    }
    int64_t count(int64_t b, int64_t t) const {
        const int64_t all = lengths.empty() ? shape.S : lengths[size_t(b)];
        return shape.causal ? std::min(all, t + 1) : all;
    }

    Results<T> run(int threads) const {
        Results<T> out;
        out.y.resize(dy.size());
        out.weights.resize(shape.B * shape.heads * shape.T * shape.S);
        out.mean.resize(shape.B * shape.T * shape.S);
        out.dquery.resize(query.size());
        out.dkey.resize(key.size());
        out.dvalue.resize(value.size());
        const AttentionInputs<T> inputs{query.data(), key.data(), value.data(), scale,
                                        kept.empty() ? nullptr : kept.data()};
        attention(shape, inputs, out.y.data(), out.weights.data(), out.mean.data(), threads);
        attention_backward(shape, inputs, out.weights.data(), dy.data(),
                           {out.dquery.data(), out.dkey.data(), out.dvalue.data()}, threads);
        return out;
    }

    /// The same by the definition, of one query of one head; the gradients are added to.
    void define(int64_t b, int64_t head, int64_t t, Results<long double>& to) const {
        const int64_t S = shape.S, n = count(b, t), size = shape.size, V = shape.value_size;
        const T* q = query.data() + at(t, b, head, shape.T, size);
        const T* d = dy.data() + at(t, b, head, shape.T, V);
        const int64_t place = ((b * shape.heads + head) * shape.T + t) * S;
        std::vector<long double> w(n), dw(n);
        long double sum = 0, dot = 0;
        for (int64_t s = 0; s < n; ++s) {
            for (int64_t e = 0; e < size; ++e)
                w[s] += (long double)q[e] * key[at(s, b, head, S, size) + e];
            sum += w[s] = std::exp(w[s] * scale);
        }
        for (int64_t s = 0; s < n; ++s) {
            w[s] /= sum;
            to.weights[place + s] = w[s];
            to.mean[(b * shape.T + t) * S + s] += w[s] / shape.heads;
            const long double factor = kept.empty() ? 1 : kept[place + s];
            for (int64_t e = 0; e < V; ++e) {
                const int64_t v = at(s, b, head, S, V) + e;
                to.y[at(t, b, head, shape.T, V) + e] += factor * w[s] * value[v];
                to.dvalue[v] += factor * w[s] * d[e];
                dw[s] += factor * value[v] * d[e];
            }
            dot += w[s] * dw[s];
        }
        for (int64_t s = 0; s < n; ++s)
            for (int64_t e = 0; e < size; ++e) {
                const int64_t k = at(s, b, head, S, size) + e;
                const long double dscore = scale * w[s] * (dw[s] - dot);
                to.dquery[at(t, b, head, shape.T, size) + e] += dscore * key[k];
                to.dkey[k] += dscore * q[e];
            }
    }
};

template <class T>
void check_near(const std::vector<T>& ours, const std::vector<long double>& theirs,
                double tolerance) {
    for (size_t i = 0; i < ours.size(); ++i) CHECK_NEAR(ours[i], double(theirs[i]), tolerance);
}

template <class T>
void check_definition(const Example<T>& at, double tolerance) {
    const Results<T> ours = at.run(1);
    Results<long double> theirs;
    theirs.y.resize(ours.y.size());
    theirs.weights.resize(ours.weights.size());
    theirs.mean.resize(ours.mean.size());
    theirs.dquery.resize(ours.dquery.size());
    theirs.dkey.resize(ours.dkey.size());
    theirs.dvalue.resize(ours.dvalue.size());
    for (int64_t b = 0; b < at.shape.B; ++b)
        for (int64_t head = 0; head < at.shape.heads; ++head)
            for (int64_t t = 0; t < at.shape.T; ++t) at.define(b, head, t, theirs);
    check_near(ours.y, theirs.y, tolerance);
    check_near(ours.weights, theirs.weights, tolerance);
    check_near(ours.mean, theirs.mean, tolerance);
    check_near(ours.dquery, theirs.dquery, tolerance);
    check_near(ours.dkey, theirs.dkey, tolerance);
    check_near(ours.dvalue, theirs.dvalue, tolerance);
}

template <class T>
void check_definitions(double tolerance) {
    for_each_isa([=](const std::string&) {
        for (const bool batch_first : {false, true})
            for (const int64_t size : {1, 8, 19}) {
                check_definition(Example<T>({2, 3, 5, 2, size, 7, batch_first, nullptr}, {}, false),
                                 tolerance);
                check_definition(
                    Example<T>({3, 70, 65, 3, size, 16, batch_first, nullptr}, {65, 0, 33}, true),
                    tolerance);
                check_definition(Example<T>({3, 70, 65, 3, size, 16, batch_first, nullptr, true},
                                            {65, 0, 33}, true),
                                 tolerance);
            }
    });
}

}  // namespace

TEST(attention_of_floats) {
    check_definitions<float>(2e-5);
}
TEST(attention_of_doubles) {
    check_definitions<double>(1e-13);
}

TEST(neither_threads_nor_blocks_change_a_bit_of_attention) {
    for_each_isa([](const std::string&) {
        const Example<float> at({5, 130, 900, 2, 16, 16, false, nullptr}, {900, 17, 800, 0, 64},
                                false);
        const Results<float> one = at.run(1);
        CHECK(at.run(2) == one);
        CHECK(at.run(3) == one);
    });
}

TEST(what_is_behind_the_keys_is_not_read) {
    Example<float> at({2, 4, 9, 1, 5, 3, true, nullptr}, {9, 6}, false);
    const Results<float> clean = at.run(1);
    for (int64_t s = 6; s < 9; ++s) {
        std::fill_n(at.key.begin() + (9 + s) * 5, 5, std::numeric_limits<float>::quiet_NaN());
        std::fill_n(at.value.begin() + (9 + s) * 3, 3, std::numeric_limits<float>::infinity());
    }
    CHECK(at.run(1) == clean);
}

TEST(attention_refuses_wrong_sizes) {
    Example<float> at({1, 1, 2, 1, 1, 1, false, nullptr}, {2}, false);
    at.lengths[0] = 3;
    CHECK_THROWS(at.run(1), std::invalid_argument, "lengths");
    at.lengths[0] = 2;
    at.shape.heads = 0;
    CHECK_THROWS(at.run(1), std::invalid_argument, "heads");
    at.shape.heads = 1;
    at.shape.T = -1;
    const AttentionInputs<float> inputs{};
    CHECK_THROWS(attention<float>(at.shape, inputs, nullptr, nullptr, nullptr, 1),
                 std::invalid_argument, "T is -1");
}
