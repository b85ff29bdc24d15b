// Programs: every operation against loops written out, with axes of any strides; what leaves its
// memory is refused.
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "levels.h"
#include "lstmcore/program.h"
#include "lstmcore/row_functions.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using namespace test;

namespace {

template <class T>
Operation<T> operation(Op op, std::vector<int64_t> shape, std::vector<Place> places,
                       int64_t last = 0, double value = 0) {
    Operation<T> made;
    made.op = op;
    made.shape = std::move(shape);
    made.places = std::move(places);
    made.last = last;
    made.value = value;
    return made;
}

/// Runs a program whose memories are its room, x and y.
template <class T>
void run(const std::vector<Operation<T>>& operations, int64_t room, std::vector<T>& x,
         std::vector<T>& y, int num_threads = 1) {
    const Program<T> program(operations, {room, int64_t(x.size()), int64_t(y.size())});
    std::vector<T> own(program.room(), std::numeric_limits<T>::quiet_NaN());
    T* const memories[] = {own.data(), x.data(), y.data()};
    program.run(memories, num_threads);
}

template <class T>
double expected(Op op, T a, T b) {
    switch (op) {
        case Op::negative:
            return -a;
        case Op::absolute:
            return std::abs(a);
        case Op::root:
            return std::sqrt(a);
        case Op::reciprocal:
            return T(1) / a;
        case Op::add:
            return a + b;
        case Op::subtract:
            return a - b;
        case Op::multiply:
            return a * b;
        case Op::divide:
            return a / b;
        case Op::minimum:
            return std::min(a, b);
        case Op::maximum:
            return std::max(a, b);
        default:
            return a;
    }
}

/// y (3, 4, 5) of a, whose axes are turned, and b, spread over the first axis, or a number.
template <class T>
void check_maps() {
    auto x = random_numbers<T>(200, 1);
    for (T& number : x) number = std::abs(number) + T(0.1);
    const Op ops[] = {Op::copy,       Op::negative, Op::absolute, Op::root,
                      Op::reciprocal, Op::add,      Op::subtract, Op::multiply,
                      Op::divide,     Op::minimum,  Op::maximum};
    for (const Op op : ops)
        for (const bool spread : {true, false}) {
            std::vector<T> y(60);
            std::vector<Place> places{{2, 0, {20, 5, 1}}, {1, 3, {1, 3, 12}}};
            const Place b{1, 100, {0, spread ? 5 : 0, spread ? 1 : 0}};
            if (op >= Op::add) places.push_back(b);
            run<T>({operation<T>(op, {3, 4, 5}, places)}, 0, x, y);
            for (int64_t i = 0; i < 3; ++i)
                for (int64_t j = 0; j < 4; ++j)
                    for (int64_t k = 0; k < 5; ++k) {
                        const T a = x[3 + i + 3 * j + 12 * k];
                        const T other = x[spread ? 100 + 5 * j + k : 100];
                        CHECK(y[20 * i + 5 * j + k] == T(expected(op, a, other)));
                    }
        }
}

/// Over the last axis, which is dense, and over one that lies across.
template <class T>
void check_reductions() {
    auto x = random_numbers<T>(7 * 40, 2);
    for (const bool across : {false, true}) {
        const int64_t rows = across ? 40 : 7, columns = across ? 7 : 40;
        const std::vector<int64_t> strides =
            across ? std::vector<int64_t>{1, 40} : std::vector<int64_t>{40, 1};
        for (const Op op : {Op::sum, Op::least, Op::greatest}) {
            std::vector<T> y(rows, T(0));
            run<T>({operation<T>(op, {rows, columns}, {{2, 0, {1, 0}}, {1, 0, strides}}, 1)}, 0, x,
                   y);
            for (int64_t i = 0; i < rows; ++i) {
                double found = 0;
                for (int64_t j = 0; j < columns; ++j) {
                    const double a = x[i * strides[0] + j * strides[1]];
                    if (op == Op::sum) found += a;
                    if (op == Op::least) found = std::min(found, a);
                    if (op == Op::greatest) found = std::max(found, a);
                }
                CHECK_NEAR(y[i], found, 1e-5);
            }
        }
    }
}

/// Two products a (m, k) b (k, n), each matrix as it is or turned, with b in the room or not.
template <class T>
void check_product(int64_t m, int64_t k, int64_t n, bool turned, bool in_room) {
    auto x = random_numbers<T>(2 * (m * k + k * n), 3);
    const int64_t b = 2 * m * k;
    std::vector<T> y(2 * m * n, T(1));
    std::vector<Operation<T>> operations;
    if (in_room)
        operations.push_back(operation<T>(Op::copy, {2 * k * n}, {{0, 0, {1}}, {1, b, {1}}}));
    const Place from{
        1, 0, turned ? std::vector<int64_t>{m * k, 1, m, 0} : std::vector<int64_t>{m * k, k, 1, 0}};
    const Place with{
        in_room ? 0 : 1, in_room ? 0 : b,
        turned ? std::vector<int64_t>{k * n, 0, 1, k} : std::vector<int64_t>{k * n, 0, n, 1}};
    operations.push_back(
        operation<T>(Op::product, {2, m, k, n}, {{2, 0, {m * n, 0, 0, 0}}, from, with}));
    auto shared = y;
    run<T>(operations, 2 * k * n, x, y);
    run<T>(operations, 2 * k * n, x, shared, 3);
    CHECK(y == shared);
    for (int64_t batch = 0; batch < 2; ++batch)
        for (int64_t i = 0; i < m; ++i)
            for (int64_t j = 0; j < n; ++j) {
                double sum = 1;
                for (int64_t p = 0; p < k; ++p)
                    sum += double(x[batch * m * k + (turned ? p * m + i : i * k + p)]) *
                           double(x[b + batch * k * n + (turned ? j * k + p : p * n + j)]);
                CHECK_NEAR(y[batch * m * n + i * n + j], sum, 1e-4);
            }
}

/// Those whose arrays are dense, one after the other through the room.
template <class T>
void check_dense() {
    auto x = random_numbers<T>(3 * 8 + 8 + 4 * 8, 4);
    std::vector<T> y(3 * 4), soft(3 * 8), norm(3 * 8), expected(3 * 4);
    softmax(x.data(), 3, 8, soft.data(), 1);
    LayerNormArgs<T> args;
    args.features = 8;
    args.weight = x.data() + 24;
    layer_norm(args, soft.data(), 3, norm.data(), 1);
    activate({ActivationKind::tanh}, norm.data(), 24, norm.data(), 1);
    auto weights = pack_linear<T>(x.data() + 32, nullptr, 8, 4);
    linear_forward(*weights, norm.data(), 3, expected.data(), 1);
    auto linear = operation<T>(Op::linear, {3, 8, 4}, {{2, 0, {}}, {0, 24, {}}});
    linear.linear = weights;
    auto tanh = operation<T>(Op::activate, {24}, {{0, 24, {}}, {0, 24, {}}});
    tanh.f.kind = ActivationKind::tanh;
    run<T>({operation<T>(Op::softmax, {3, 8}, {{0, 0, {}}, {1, 0, {}}}),
            operation<T>(Op::layer_norm, {3, 8},
                         {{0, 24, {}}, {0, 0, {}}, {1, 24, {}}, {-1, 0, {}}}, 0, 1e-5),
            tanh, linear},
           48, x, y);
    CHECK(y == expected);
}

template <class T>
void check_refused() {
    const auto refused = [](const Operation<T>& said) {
        const std::vector<int64_t> sizes{0, 6, 6};
        CHECK_THROWS(Program<T>({said}, sizes), std::invalid_argument, "operation");
    };
    refused(operation<T>(Op::copy, {7}, {{2, 0, {1}}, {1, 0, {0}}}));
    refused(operation<T>(Op::copy, {2, 3}, {{2, 0, {3, 1}}, {1, 0, {4, 1}}}));
    refused(operation<T>(Op::copy, {3}, {{2, 0, {1}}, {1, 1, {-1}}}));
    refused(operation<T>(Op::copy, {3}, {{2, 0, {1}}, {3, 0, {1}}}));
    refused(operation<T>(Op::copy, {3}, {{2, 0, {1}}}));
    refused(operation<T>(Op::copy, {3}, {{2, 0, {1, 1}}, {1, 0, {1}}}));
    refused(operation<T>(Op::copy, {-1}, {{2, 0, {1}}, {1, 0, {1}}}));
    refused(operation<T>(Op::sum, {3}, {{2, 0, {0}}, {1, 0, {1}}}, 2));
    refused(operation<T>(Op::activate, {7}, {{2, 0, {}}, {1, 0, {}}}));
    refused(operation<T>(Op::linear, {1, 2, 3}, {{2, 0, {}}, {1, 0, {}}}));
    refused(operation<T>(Op::product, {3, 3}, {{2, 0, {0, 0}}, {1, 0, {0, 0}}, {1, 0, {0, 0}}}));
    refused(operation<T>(Op::product, {3, 1, 3},
                         {{2, 0, {0, 0, 0}}, {1, 0, {1, 1, 0}}, {1, 0, {0, 1, 1}}}));
}

template <class T>
void check_all() {
    check_maps<T>();
    check_reductions<T>();
    for (const int64_t n : {1, 5, 16, 33, 64, 130})
        for (const int64_t m : {1, 3, 16, 20})
            for (const bool turned : {false, true})
                for (const bool in_room : {false, true}) check_product<T>(m, 9, n, turned, in_room);
    check_product<T>(130, 120, 90, false, true);  // work for several threads
    check_dense<T>();
    check_refused<T>();
}

}  // namespace

TEST(programs_compute_what_they_say) {
    for_each_isa([](const std::string&) {
        check_all<float>();
        check_all<double>();
    });
}
