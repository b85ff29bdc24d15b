#include "memory/quantize.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string>

#include "kernel_table.h"

namespace lstmcore {

bool quantize(const float* matrix, int64_t rows, int64_t columns, int8_t* values, float* scales) {
    for (int64_t r = 0; r < rows; ++r, matrix += columns, values += columns) {
        float most = 0;
        for (int64_t c = 0; c < columns; ++c) {
            if (!std::isfinite(matrix[c])) return false;
            most = std::max(most, std::abs(matrix[c]));
        }
        scales[r] = most / 127;
        for (int64_t c = 0; c < columns; ++c)
            values[c] =
                scales[r] > 0 ? int8_t(std::lrint(double(matrix[c]) / scales[r])) : int8_t(0);
    }
    return true;
}

void check_quantized(QuantizedMatrix matrix, int64_t rows, int64_t columns, const char* name) {
    if (columns > kMostQuantized)
        throw std::invalid_argument(std::string(name) + " has " + std::to_string(columns) +
                                    " columns, expected at most " + std::to_string(kMostQuantized) +
                                    " in int8");
    const int8_t* const end = matrix.values + rows * columns;
    if (std::find(matrix.values, end, int8_t(-128)) != end)
        throw std::invalid_argument(std::string(name) + " holds -128, expected -127 .. 127");
}

}  // namespace lstmcore
