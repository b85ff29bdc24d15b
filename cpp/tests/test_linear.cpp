// Linear maps against their definition in long double, at every ISA level.
#include <cstdint>
#include <string>
#include <vector>

#include "levels.h"
#include "lstmcore/linear.h"
#include "test.h"
#include "variants.h"

using namespace lstmcore;
using test::random_numbers;

namespace {

template <class T>
struct Results {
    std::vector<T> y, dx, dweight, dbias;
    bool operator==(const Results& other) const {
        return y == other.y && dx == other.dx && dweight == other.dweight && dbias == other.dbias;
    }
};

template <class T>
struct Case {
    int64_t inputs, outputs, rows;
    std::vector<T> weight, bias, x, dy;

    Case(int64_t I, int64_t O, int64_t N)
        : inputs(I),
          outputs(O),
          rows(N),
          weight(random_numbers<T>(O * I, 1)),
          bias(random_numbers<T>(O, 2)),
          x(random_numbers<T>(N * I, 3)),
          dy(random_numbers<T>(N * O, 4)) {}

    Results<T> run(int threads, int64_t first = 0) const {
        const int64_t n = rows - first;
        Results<T> out{std::vector<T>(n * outputs), std::vector<T>(n * inputs),
                       std::vector<T>(outputs * inputs, T(1)), std::vector<T>(outputs, T(2))};
        const auto linear = pack_linear(weight.data(), bias.data(), inputs, outputs, true);
        linear_forward(*linear, x.data() + first * inputs, n, out.y.data(), threads);
        linear_backward(*linear, x.data() + first * inputs, dy.data() + first * outputs, n,
                        out.dx.data(), out.dweight.data(), out.dbias.data(), threads);
        return out;
    }
};

template <class T>
void check_definition(double tolerance) {
    for (const int64_t inputs : {1, 15, 64, 130})
        for (const int64_t outputs : {1, 16, 67})
            for (const int64_t rows : {0, 1, 5, 300}) {
                const Case<T> at(inputs, outputs, rows);
                std::vector<long double> dweight(outputs * inputs, 1), dbias(outputs, 2);
                std::vector<long double> dx(rows * inputs);
                const Results<T> one = at.run(1);
                for (int64_t i = 0; i < rows; ++i)
                    for (int64_t j = 0; j < outputs; ++j) {
                        const long double d = at.dy[i * outputs + j];
                        long double y = at.bias[j];
                        dbias[j] += d;
                        for (int64_t k = 0; k < inputs; ++k) {
                            const long double x = at.x[i * inputs + k];
                            const long double w = at.weight[j * inputs + k];
                            y += w * x;
                            dx[i * inputs + k] += w * d;
                            dweight[j * inputs + k] += d * x;
                        }
                        CHECK_NEAR(one.y[i * outputs + j], double(y), tolerance);
                    }
                for (size_t i = 0; i < dx.size(); ++i)
                    CHECK_NEAR(one.dx[i], double(dx[i]), tolerance);
                for (size_t i = 0; i < dweight.size(); ++i)
                    CHECK_NEAR(one.dweight[i], double(dweight[i]), tolerance * 10);
                for (size_t i = 0; i < dbias.size(); ++i)
                    CHECK_NEAR(one.dbias[i], double(dbias[i]), tolerance * 10);
            }
}

}  // namespace

TEST(linear_of_floats) {
    for_each_isa([](const std::string&) { check_definition<float>(1e-5); });
}

TEST(linear_of_doubles) {
    for_each_isa([](const std::string&) { check_definition<double>(1e-13); });
}

TEST(neither_threads_nor_other_rows_change_a_bit_of_a_linear_map) {
    for_each_isa([](const std::string&) {
        const Case<float> at(90, 70, 1000);
        const Results<float> one = at.run(1);
        CHECK(at.run(2) == one);
        CHECK(at.run(5) == one);
        const Results<float> alone = at.run(1, 993);
        const std::vector<float> last(one.y.end() - 7 * at.outputs, one.y.end());
        CHECK(alone.y == last);
        const std::vector<float> last_dx(one.dx.end() - 7 * at.inputs, one.dx.end());
        CHECK(alone.dx == last_dx);
    });
}

TEST(without_training_there_is_no_backward_of_a_linear_map) {
    const float weight[] = {1, 2}, x[] = {3, 4}, dy[] = {5};
    float dx[2], dweight[2];
    const auto linear = pack_linear<float>(weight, nullptr, 2, 1);
    CHECK_THROWS(linear_backward<float>(*linear, x, dy, 1, dx, dweight, nullptr, 1),
                 std::invalid_argument, "for inference only");
}
