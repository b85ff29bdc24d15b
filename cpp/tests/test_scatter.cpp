// Rows added to a table, against the definition, in order and at any number of threads.
#include <random>
#include <vector>

#include "lstmcore/scatter.h"
#include "test.h"

using namespace lstmcore;

namespace {

template <class T>
void check_definition() {
    std::mt19937_64 random(1);
    std::normal_distribution<double> normal;
    for (const int64_t size : {0, 1, 15, 16, 100, 1000})
        for (const int64_t count : {0, 1, 300}) {
            const int64_t table_rows = 40;
            std::vector<T> table(table_rows * size), values(count * size);
            std::vector<int64_t> rows(count);
            for (T& value : table) value = T(normal(random));
            for (T& value : values) value = T(normal(random));
            for (int64_t& row : rows) row = int64_t(random() % table_rows);
            std::vector<T> expected = table;
            for (int64_t i = 0; i < count; ++i)
                for (int64_t n = 0; n < size; ++n)
                    expected[rows[i] * size + n] += values[i * size + n];
            for (const int threads : {1, 2, 5}) {
                std::vector<T> ours = table;
                add_rows(ours.data(), size, rows.data(), values.data(), count, threads);
                CHECK(ours == expected);
            }
        }
}

}  // namespace

TEST(add_rows_of_floats) {
    check_definition<float>();
}

TEST(add_rows_of_doubles) {
    check_definition<double>();
}
