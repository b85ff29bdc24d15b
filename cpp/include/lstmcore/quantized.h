// Matrices in int8.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// A (rows, columns) matrix whose element [r][c] is scales[r] times values[r][c]. The values are
/// -127 .. 127, so that all of them have a negative.
struct QuantizedMatrix {
    const int8_t* values = nullptr;
    const float* scales = nullptr;

    explicit operator bool() const { return values != nullptr && scales != nullptr; }
};

/// Fills values and scales with what comes closest to `matrix`: the largest number of a row becomes
/// 127 or -127, and a row of zeros has scale 0. Returns false, and leaves them undefined, if a
/// number is infinite or NaN.
bool quantize(const float* matrix, int64_t rows, int64_t columns, int8_t* values, float* scales);

}  // namespace LSTMCORE_API lstmcore
