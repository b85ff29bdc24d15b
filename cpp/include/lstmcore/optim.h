// Optimizers: one step for many parameters at once, in one pass over their memory.
//
// Every number is treated alone, by fused multiply-adds, true divisions and true square roots: the
// results do not depend on num_threads, nor on the ISA level where it has fused multiply-add
// (x86-64-v3, -v4, neon). NaN and infinity go through. Pointers are borrowed for the call and must
// not overlap. T is float or double.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// The rows of an array that a call is about: all numbers of it as one row, or rows out of many.
struct Rows {
    int64_t count = 1;
    int64_t size = 0;                 ///< numbers in a row
    const int64_t* listed = nullptr;  ///< (count) which rows, each once; null: 0 .. count - 1
};

/// A parameter, its gradient, and what the optimizer remembers of each of its numbers: zeros before
/// the first step, null where the optimizer has no such memory. With listed rows nothing else of
/// the arrays is looked at or changed.
template <class T>
struct Trained {
    T* data = nullptr;
    const T* grad = nullptr;
    T* state[3] = {};
    Rows rows;
};

/// Stochastic gradient descent. With g = grad + weight_decay w at each step:
///   m = momentum m + (1 - dampening) g     (at the first step without dampening)
///   w = w - lr m, or w - lr (g + momentum m) if nesterov, or w - lr g without momentum
/// State: m if momentum is not 0. Nesterov's form is that of Sutskever et al., ICML 2013.
struct Sgd {
    double lr = 1e-3;
    double momentum = 0;
    double dampening = 0;
    double weight_decay = 0;
    bool nesterov = false;
};

/// RMSprop (Hinton, lecture 6e of Neural Networks for Machine Learning, 2012); centered as in
/// Graves, arXiv:1308.0850. With g = grad + weight_decay w:
///   v = alpha v + (1 - alpha) g^2,  a = alpha a + (1 - alpha) g
///   d = g / (sqrt(v) + eps), or g / (sqrt(max(v - a^2, 0)) + eps) if centered
///   m = momentum m + d,  w = w - lr m, or w - lr d without momentum
/// State: v; m if momentum is not 0; a if centered.
struct RmsProp {
    double lr = 1e-2;
    double alpha = 0.99;
    double eps = 1e-8;
    double momentum = 0;
    double weight_decay = 0;
    bool centered = false;
};

/// Adam (Kingma and Ba, ICLR 2015), AdamW if decoupled (Loshchilov and Hutter, ICLR 2019). With
/// g = grad + weight_decay w, or g = grad and first w = w - lr weight_decay w if decoupled:
///   m = beta1 m + (1 - beta1) g,  v = beta2 v + (1 - beta2) g^2,  u = v or max(u, v) if amsgrad
///   w = w - lr m / (1 - beta1^t) / (sqrt(u / (1 - beta2^t)) + eps)
/// State: m; v; u if amsgrad (Reddi et al., ICLR 2018).
struct Adam {
    double lr = 1e-3;
    double beta1 = 0.9;
    double beta2 = 0.999;
    double eps = 1e-8;
    double weight_decay = 0;
    bool decoupled = false;
    bool amsgrad = false;
};

/// Step t = 1, 2, ... of `rule`, which is Sgd, RmsProp or Adam. Denormal numbers count as zero.
template <class T, class Rule>
LSTMCORE_API void update(const Rule& rule, int64_t t, const Trained<T>* parameters, int64_t count,
                         int num_threads);

/// A gradient, as `norm` and `scale` take it.
template <class T>
struct Gradient {
    T* data = nullptr;
    Rows rows;
};

/// The square root of the sum of all squares, summed in double in an order that does not depend on
/// num_threads or the ISA level. Neither overflows nor underflows unless the norm itself does.
template <class T>
LSTMCORE_API double norm(const Gradient<T>* gradients, int64_t count, int num_threads);

/// Multiplies every number by `factor`.
template <class T>
LSTMCORE_API void scale(double factor, const Gradient<T>* gradients, int64_t count,
                        int num_threads);

}  // namespace LSTMCORE_API lstmcore
