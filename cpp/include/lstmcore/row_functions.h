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

/// dx[i] = dy[i] f'(x[i]) for i < n, from y = f(x), or from x where f.needs_input(). dx may be dy.
/// Of a relu it is 0 where y is 0, whatever dy is.
template <class T>
LSTMCORE_API void activate_backward(const Activation& f, const T* from, const T* dy, int64_t n,
                                    T* dx, int num_threads);

/// y = exp(x - max(x)) / sum(exp(x - max(x))) of each row; x and y (rows, classes). y may be x.
template <class T>
LSTMCORE_API void softmax(const T* x, int64_t rows, int64_t classes, T* y, int num_threads);

/// dx = y (dy - sum(dy y)) of each row, from y = softmax(x); all (rows, classes). dx may be dy.
template <class T>
LSTMCORE_API void softmax_backward(const T* dy, const T* y, int64_t rows, int64_t classes, T* dx,
                                   int num_threads);

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
/// mean and variance of the population. x and y (rows, features). y may be x.
template <class T>
LSTMCORE_API void layer_norm(const LayerNormArgs<T>& args, const T* x, int64_t rows, T* y,
                             int num_threads);

/// What its backward works with; weight, dweight and dbias may be null.
template <class T>
struct LayerNormBackwardArgs {
    int64_t features = 0;
    const T* weight = nullptr;  ///< (features), as in forward
    const T* normal = nullptr;  ///< (rows, features), from forward
    const T* scale = nullptr;   ///< (rows), from forward
    T* dweight = nullptr;       ///< (features), += the gradient
    T* dbias = nullptr;         ///< (features), += the gradient
};

/// The gradient of x from that of y: with d = weight dy, dx = scale (d - mean(d) - normal
/// mean(d normal)) of each row. dy and dx (rows, features), not the same.
template <class T>
LSTMCORE_API void layer_norm_backward(const LayerNormBackwardArgs<T>& args, const T* dy,
                                      int64_t rows, T* dx, int num_threads);

}  // namespace LSTMCORE_API lstmcore
