// What matrices are multiplied in.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// `own`: in the dtype of all else. `bfloat16`, beside float32 alone: both factors are rounded to
/// the upper half of a float, to nearest and of two to even, and their products summed in float32.
/// That is half the bytes of the weights. Gates, cells, states, biases, outputs and gradients are
/// float32, and so are the parameters that are packed. What has more than 8,192 products to a sum
/// stays in float32. `bfloat16x3`, beside float32 alone: where AMX multiplies, each factor is the
/// sum of three numbers in bfloat16, and the six largest products of these are added, which is as
/// accurate as float32. What has more than 5,120 products to a sum stays in float32, and so do sums
/// over steps and rows, which are the gradients of matrices. Without AMX, see
/// bfloat16x3_instructions(), it computes as `own` does, to the bit.
enum class Precision { own, bfloat16, bfloat16x3 };

/// Rounds so many numbers to bfloat16, where they are: as factors of products are.
void round_bfloat16(float* numbers, int64_t count) noexcept;

}  // namespace LSTMCORE_API lstmcore
