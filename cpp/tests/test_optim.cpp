// The optimizers' updates against their equations number by number, at every ISA level: to the bit
// where the level fuses multiply-adds.
#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "levels.h"
#include "lstmcore/optim.h"
#include "machine/isa.h"
#include "machine/threads.h"
#include "test.h"

using namespace lstmcore;

namespace {

bool fused() {
    return isa() != "x86-64-v2";
}
template <class T>
T madd(T a, T b, T c) {
    return fused() ? std::fma(a, b, c) : a * b + c;
}

/// One number and what is remembered of it.
template <class T>
struct Number {
    T w, g, state[3];
};

template <class T>
void expect(const Sgd& rule, int64_t t, Number<T>& x) {
    T g = x.g;
    if (rule.weight_decay != 0) g = madd(T(rule.weight_decay), x.w, g);
    if (rule.momentum != 0) {
        const T fresh = T(1 - (t == 1 ? 0 : rule.dampening));
        x.state[0] = madd(T(rule.momentum), x.state[0], fresh * g);
        g = rule.nesterov ? madd(T(rule.momentum), x.state[0], g) : x.state[0];
    }
    x.w = madd(-T(rule.lr), g, x.w);
}

template <class T>
void expect(const RmsProp& rule, int64_t, Number<T>& x) {
    T g = x.g;
    if (rule.weight_decay != 0) g = madd(T(rule.weight_decay), x.w, g);
    const T fresh = T(1 - rule.alpha);
    T v = x.state[0] = madd(T(rule.alpha), x.state[0], fresh * (g * g));
    if (rule.centered) {
        const T a = x.state[2] = madd(T(rule.alpha), x.state[2], fresh * g);
        v = madd(-a, a, v);
        if (v < 0) v = 0;
    }
    T d = g / (std::sqrt(v) + T(rule.eps));
    if (rule.momentum != 0) d = x.state[1] = madd(T(rule.momentum), x.state[1], d);
    x.w = madd(-T(rule.lr), d, x.w);
}

template <class T>
void expect(const Adam& rule, int64_t t, Number<T>& x) {
    const T lr = T(rule.lr / (1 - std::pow(rule.beta1, double(t))));
    const T unbias2 = T(1 / std::sqrt(1 - std::pow(rule.beta2, double(t))));
    T g = x.g;
    if (rule.weight_decay != 0 && !rule.decoupled) g = madd(T(rule.weight_decay), x.w, g);
    x.state[0] = madd(T(rule.beta1), x.state[0], T(1 - rule.beta1) * g);
    T v = x.state[1] = madd(T(rule.beta2), x.state[1], T(1 - rule.beta2) * (g * g));
    if (rule.amsgrad) v = x.state[2] = v < x.state[2] ? x.state[2] : v;
    const T d = -lr * x.state[0] / madd(std::sqrt(v), unbias2, T(rule.eps));
    x.w = madd(T(rule.decoupled ? 1 - rule.lr * rule.weight_decay : 1), x.w, d);
}

bool uses_state(const Sgd& rule, int s) {
    return s == 0 && rule.momentum != 0;
}
bool uses_state(const RmsProp& rule, int s) {
    return s == 0 || (s == 1 && rule.momentum != 0) || (s == 2 && rule.centered);
}
bool uses_state(const Adam& rule, int s) {
    return s < 2 || rule.amsgrad;
}

/// Some arrays with gradients of many sizes, one of them with listed rows of 5 numbers.
template <class T>
struct Arrays {
    std::vector<std::vector<Number<T>>> numbers;
    std::vector<std::vector<T>> memory;
    std::vector<Trained<T>> trained;
    const std::vector<int64_t> listed = {0, 2, 3, 9};

    template <class Rule>
    explicit Arrays(const Rule& rule, std::initializer_list<int64_t> sizes) {
        std::mt19937_64 random(7);
        std::normal_distribution<double> normal;
        std::uniform_real_distribution<double> exponent(-8, 3);
        for (const int64_t n : sizes) {
            std::vector<Number<T>> array(n);
            for (Number<T>& x : array)
                x = {T(normal(random)), T(normal(random) * std::pow(10, exponent(random))), {}};
            numbers.push_back(array);
            Trained<T> p;
            const auto copy = [&](auto member) {
                memory.emplace_back();
                for (const Number<T>& x : array) memory.back().push_back(member(x));
                return memory.back().data();
            };
            p.data = copy([](const Number<T>& x) { return x.w; });
            p.grad = copy([](const Number<T>& x) { return x.g; });
            for (int s = 0; s < 3; ++s)
                if (uses_state(rule, s)) p.state[s] = copy([](const Number<T>&) { return T(0); });
            p.rows.size = n;
            trained.push_back(p);
        }
    }

    void list_rows_of_last() { trained.back().rows = {int64_t(listed.size()), 5, listed.data()}; }
    bool is_listed(size_t array, int64_t i) const {
        if (!trained[array].rows.listed) return true;
        for (const int64_t row : listed)
            if (i / 5 == row) return true;
        return false;
    }
};

template <class T, class Rule>
void check_against_equations(const Rule& rule) {
    for_each_isa([&](const std::string&) {
        Arrays<T> arrays(rule, {1, 3, 8, 17, 0, 1000, 50});
        arrays.list_rows_of_last();
        bool same = true;
        for (int64_t t = 1; t <= 5; ++t) {
            update(rule, t, arrays.trained.data(), int64_t(arrays.trained.size()), 1);
            for (size_t a = 0; a < arrays.numbers.size(); ++a)
                for (int64_t i = 0; i < int64_t(arrays.numbers[a].size()); ++i) {
                    Number<T>& x = arrays.numbers[a][i];
                    if (arrays.is_listed(a, i)) expect(rule, t, x);
                    const Trained<T>& p = arrays.trained[a];
                    same = same && p.data[i] == x.w;
                    for (int s = 0; s < 3; ++s)
                        if (p.state[s]) same = same && p.state[s][i] == x.state[s];
                }
        }
        CHECK(same);
    });
}

template <class Rule>
void check_bits(const Rule& rule) {
    check_against_equations<float>(rule);
    check_against_equations<double>(rule);
}

}  // namespace

TEST(sgd_follows_its_equations_to_the_bit) {
    check_bits(Sgd{0.1, 0, 0, 0, false});
    check_bits(Sgd{0.1, 0, 0, 0.03, false});
    check_bits(Sgd{0.1, 0.9, 0, 0, false});
    check_bits(Sgd{0.1, 0.9, 0.3, 0.03, false});
    check_bits(Sgd{0.1, 0.9, 0, 0.03, true});
}

TEST(rmsprop_follows_its_equations_to_the_bit) {
    check_bits(RmsProp{});
    check_bits(RmsProp{0.01, 0.9, 1e-6, 0.5, 0, false});
    check_bits(RmsProp{0.01, 0.9, 1e-6, 0, 0.03, true});
    check_bits(RmsProp{0.01, 0.9, 1e-6, 0.5, 0.03, true});
}

TEST(adam_follows_its_equations_to_the_bit) {
    check_bits(Adam{});
    check_bits(Adam{0.01, 0.5, 0.9, 1e-3, 0.03, false, false});
    check_bits(Adam{0.01, 0.5, 0.9, 1e-3, 0.03, true, false});
    check_bits(Adam{0.01, 0, 0, 1e-3, 0, false, true});
    check_bits(Adam{0.01, 0.9, 0.999, 1e-8, 0.03, true, true});
}

TEST(threads_change_no_bit) {
    const std::initializer_list<int64_t> sizes = {3, 100000, 70001, 17, 4096, 65536};
    for_each_isa([&](const std::string&) {
        Arrays<float> one(Adam{}, sizes), three(Adam{}, sizes);
        const auto gradients = [](const Arrays<float>& arrays) {
            std::vector<Gradient<float>> all;
            for (const Trained<float>& p : arrays.trained)
                all.push_back({const_cast<float*>(p.grad), p.rows});
            return all;
        };
        const auto g1 = gradients(one), g3 = gradients(three);
        const double norm1 = norm(g1.data(), int64_t(g1.size()), 1);
        CHECK_EQUAL(norm1, norm(g3.data(), int64_t(g3.size()), 3));
        scale(0.3, g1.data(), int64_t(g1.size()), 1);
        scale(0.3, g3.data(), int64_t(g3.size()), 3);
        for (int64_t t = 1; t <= 2; ++t) {
            update(Adam{}, t, one.trained.data(), int64_t(one.trained.size()), 1);
            update(Adam{}, t, three.trained.data(), int64_t(three.trained.size()), 3);
        }
        CHECK(one.memory == three.memory);
    });
}

TEST(nan_and_infinity_go_through) {
    const float inf = std::numeric_limits<float>::infinity(), nan = std::nanf("");
    for_each_isa([&](const std::string&) {
        // A gradient in each position of a register and its remainder; the others stay as they are.
        for (int bad = 0; bad < 19; ++bad) {
            for (const float g : {inf, nan}) {
                std::vector<float> w(19, 1), grad(19, 0), s0(19), s1(19), s2(19);
                grad[bad] = g;
                const auto check = [&](const auto& rule) {
                    Trained<float> p{w.data(), grad.data(), {s0.data(), s1.data(), s2.data()}, {}};
                    p.rows.size = 19;
                    update(rule, 1, &p, 1, 1);
                    for (int i = 0; i < 19; ++i) CHECK(i == bad ? !std::isfinite(w[i]) : w[i] == 1);
                    w[bad] = 1;
                    s0.assign(19, 0);
                    s1.assign(19, 0);
                    s2.assign(19, 0);
                };
                check(Sgd{0.1, 0.9, 0, 0, true});
                check(RmsProp{0.1, 0.9, 1e-8, 0.5, 0, true});
                check(Adam{0.1, 0.9, 0.99, 1e-8, 0, false, true});
            }
            // Without weight decay an infinite parameter does not meet 0 * infinity.
            std::vector<float> w(19, 1), grad(19, 0), m(19, 1);
            w[bad] = inf;
            Trained<float> p{w.data(), grad.data(), {m.data()}, {}};
            p.rows.size = 19;
            update(Sgd{0.1, 0.9}, 1, &p, 1, 1);
            CHECK_EQUAL(m[bad], 0.9f);
        }
    });
}

TEST(norm_neither_overflows_nor_underflows) {
    const auto norm_of = [](auto value, int64_t n) {
        std::vector<decltype(value)> x(n, value);
        Gradient<decltype(value)> g{x.data(), {}};
        g.rows.size = n;
        return norm(&g, 1, 1);
    };
    std::vector<double> first;
    for_each_isa([&](const std::string&) {
        const double inf = std::numeric_limits<double>::infinity();
        CHECK_EQUAL(norm_of(3e38f, 16), 4 * double(3e38f));
        CHECK_EQUAL(norm_of(1e-45f, 16), 4 * double(1e-45f));
        CHECK_EQUAL(norm_of(1e300, 16), 4e300);
        CHECK_EQUAL(norm_of(1e-300, 16), 4e-300);
        CHECK_EQUAL(norm_of(0.0, 16), 0.0);
        CHECK_EQUAL(norm_of(1.0, 0), 0.0);
        CHECK_EQUAL(norm_of(1e308, 4000000), inf);
        CHECK_EQUAL(norm_of(-inf, 3), inf);
        CHECK(std::isnan(norm_of(std::nan(""), 3)));

        // The same bits at every level.
        std::mt19937_64 random(3);
        std::normal_distribution<double> normal;
        std::vector<double> x(10007);
        for (double& value : x) value = normal(random);
        Gradient<double> g{x.data(), {}};
        g.rows.size = int64_t(x.size());
        const double sum = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
        CHECK_NEAR(norm(&g, 1, 1), std::sqrt(sum), 1e-12 * std::sqrt(sum));
        first.push_back(norm(&g, 1, 1));
        CHECK_EQUAL(first.back(), first.front());
    });
}

TEST(listed_rows_alone_count) {
    std::vector<float> x(50, 1);
    const std::vector<int64_t> listed = {1, 4};
    const Gradient<float> g{x.data(), {2, 5, listed.data()}};
    for_each_isa([&](const std::string&) {
        x.assign(50, 1);
        CHECK_EQUAL(norm(&g, 1, 1), std::sqrt(10.0));
        scale(3, &g, 1, 1);
        for (int i = 0; i < 50; ++i) CHECK_EQUAL(x[i], i / 5 == 1 || i / 5 == 4 ? 3.0f : 1.0f);
    });
}

TEST(listed_rows_that_blocks_cut_alone_count) {
    constexpr int64_t kSize = 9001;  // work is dealt in blocks of 4096 numbers
    const std::vector<int64_t> listed = {0, 2, 5};
    std::vector<float> w(7 * kSize), grad(7 * kSize);
    for (size_t i = 0; i < grad.size(); ++i) grad[i] = float(i % 1000) + 1;
    const Rows rows{3, kSize, listed.data()};
    for (const int threads : {1, 3}) {
        w.assign(w.size(), 0);
        const Trained<float> p{w.data(), grad.data(), {}, rows};
        update(Sgd{1, 0, 0, 0, false}, 1, &p, 1, threads);
        double sum = 0;
        for (int64_t i = 0; i < int64_t(w.size()); ++i) {
            const int64_t row = i / kSize;
            const bool counts = row == 0 || row == 2 || row == 5;
            CHECK_EQUAL(w[i], counts ? -grad[i] : 0.0f);
            if (counts) sum += double(grad[i]) * grad[i];
        }
        std::vector<float> scaled = grad;
        const Gradient<float> g{scaled.data(), rows};
        CHECK_NEAR(norm(&g, 1, threads), std::sqrt(sum), 1e-9 * std::sqrt(sum));
        scale(2, &g, 1, threads);
        for (int64_t i = 0; i < int64_t(w.size()); ++i)
            CHECK_EQUAL(scaled[i], w[i] != 0 ? 2 * grad[i] : grad[i]);
    }
}
