// Functions that stand between and behind recurrent layers: activations, softmax, layer
// normalization. A Stream computes them by the same code, to the same bits.
//
// Each number (activations) or row (softmax, layer_norm) is computed by itself: results depend
// neither on num_threads nor on the other rows, to the bit. Denormal numbers count as zero, NaN
// gives NaN. Pointers are borrowed for the call. Sizes are at least 0; a negative one is refused by
// std::invalid_argument. T is float or double.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"
#include "lstmcore/spec.h"

namespace LSTMCORE_API lstmcore {

/// y[i] = f(x[i]) for i < n. y may be x.
template <class T>
LSTMCORE_API void activate(const Activation& f, const T* x, int64_t n, T* y, int num_threads);

/// y = exp(x - max(x)) / sum(exp(x - max(x))) of each row; x and y (rows, classes). y may be x.
template <class T>
LSTMCORE_API void softmax(const T* x, int64_t rows, int64_t classes, T* y, int num_threads);

/// What layer normalization works with; null where there is none.
template <class T>
struct LayerNormArgs {
    int64_t features = 0;
    double eps = 1e-5;          ///< added to the variance
    const T* weight = nullptr;  ///< (features), null = ones
    const T* bias = nullptr;    ///< (features), null = zeros
    T* normal = nullptr;        ///< (rows, features), written: y before weight and bias
    T* scale = nullptr;         ///< (rows), written: 1 / sqrt(variance + eps)
};

/// y = weight (x - mean) / sqrt(variance + eps) + bias of each row (Ba, Kiros, Hinton 2016), with
/// mean and variance, of the population, summed in double. x and y (rows, features). y may be x.
template <class T>
LSTMCORE_API void layer_norm(const LayerNormArgs<T>& args, const T* x, int64_t rows, T* y,
                             int num_threads);

}  // namespace LSTMCORE_API lstmcore
