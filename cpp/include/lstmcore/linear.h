// A linear map of rows: y = W x + b.
#pragma once

#include <cstdint>
#include <memory>

#include "lstmcore/api.h"
#include "lstmcore/precision.h"
#include "lstmcore/quantized.h"

namespace LSTMCORE_API lstmcore {

/// y = W x + b with W and b packed for the kernels. Immutable; see Weights.
template <class T>
class Linear;

/// W is (outputs, inputs), b (outputs) or null. With `train` also what backward needs. Up to
/// `num_threads` threads pack a large W. In `bfloat16` both factors of every product are rounded,
/// in backward too, see pack() in layer.h. Throws std::invalid_argument, std::bad_alloc.
template <class T>
LSTMCORE_API std::shared_ptr<const Linear<T>> pack_linear(const T* weight, const T* bias,
                                                          int64_t inputs, int64_t outputs,
                                                          bool train = false, int num_threads = 1,
                                                          Precision precision = Precision::own);

/// The same with W in int8, for inference in float32; rows of x are rounded as in a layer, see
/// pack() in layer.h.
std::shared_ptr<const Linear<float>> pack_linear(QuantizedMatrix weight, const float* bias,
                                                 int64_t inputs, int64_t outputs,
                                                 int num_threads = 1);

/// y (rows, outputs) of x (rows, inputs). As everywhere, each number is one chain: b, then the
/// inputs in order. So it depends neither on num_threads nor on the other rows, to the bit.
template <class T>
LSTMCORE_API void linear_forward(const Linear<T>& linear, const T* x, int64_t rows, T* y,
                                 int num_threads);

/// Writes dx (rows, inputs); adds to dweight (outputs, inputs) and, unless it is null, dbias
/// (outputs), summed over the rows in order whatever num_threads is. Throws std::bad_alloc, and
/// std::invalid_argument if the map was not packed for training.
template <class T>
LSTMCORE_API void linear_backward(const Linear<T>& linear, const T* x, const T* dy, int64_t rows,
                                  T* dx, T* dweight, T* dbias, int num_threads);

}  // namespace LSTMCORE_API lstmcore
