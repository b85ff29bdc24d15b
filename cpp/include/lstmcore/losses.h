// The loss of a classifier and its gradient.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Cross-entropy of a softmax over each of `rows` rows of `classes` scores:
///   losses[i] = -log p[target[i]],  p = softmax(pred[i])
///   dpred[i][c] = factor[i] p[c], less hit[i] where c = target[i]
/// A row whose factor is 0 is not looked at, nor its target: its loss and gradient are 0. With
/// class weights or smoothed labels factor and hit differ, else both are the weight of the row.
/// Nothing overflows; NaN in a row gives NaN in all of it. The bits do not depend on num_threads,
/// nor on the ISA level where it has fused multiply-add. T is float or double.
///
/// pred (rows, classes), target (rows) in 0 .. classes - 1, factor (rows), hit (rows);
/// losses (rows); dpred (rows, classes) or null.
template <class T>
LSTMCORE_API void cross_entropy(const T* pred, const int64_t* target, const T* factor, const T* hit,
                                int64_t rows, int64_t classes, double* losses, T* dpred,
                                int num_threads);

}  // namespace LSTMCORE_API lstmcore
