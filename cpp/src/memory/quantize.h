// Checks of matrices in int8.
#pragma once

#include <cstdint>

#include "lstmcore/quantized.h"

namespace lstmcore {

/// Refuses a (rows, columns) matrix that the kernels cannot multiply: with -128 in it, or too wide.
void check_quantized(QuantizedMatrix matrix, int64_t rows, int64_t columns, const char* name);

}  // namespace lstmcore
