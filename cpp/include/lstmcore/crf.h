// Linear-chain conditional random fields: scores of labels that depend on the label before
// (J. Lafferty et al., 2001).
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Scores of C classes for each step of B rows: those of step t, row b begin at
/// t * step_stride + b * row_stride, and its target and mask are at that by C.
struct CrfShape {
    int64_t T, B, C;
    int64_t step_stride, row_stride;
    const int64_t* lengths;  ///< (B) in 0 .. T, or null: T
    const bool* mask;        ///< steps that there are, or null: all. Others are as if left out
};

/// What is added to the scores of a sequence of labels: transitions[i][j] where j follows i, start
/// of its first and end of its last label. Scores may be -infinity, for what cannot be.
template <class T>
struct CrfParameters {
    const T* transitions;  ///< (C, C), from row to column
    const T* start;        ///< (C)
    const T* end;          ///< (C)
};

template <class T>
struct CrfGradients {
    T* transitions;
    T* start;
    T* end;
};

/// losses[b] = log(sum over all sequences of exp(score)) - score of the target: -log of its
/// probability; 0 for a row without steps. A target that cannot be has an infinite loss and the
/// gradient 0. NaN, and +infinity, in a row give NaN in all of its steps and in the parameters'
/// gradients.
///   dscores = factor[b] d losses[b] / d scores, 0 where there is no step; unless null
///   *gradients += sum_b factor[b] d losses[b] / d parameters; unless null
/// All between is in double, where a sum of exponentials is too small for what may be lost in it,
/// in logarithms. The bits do not depend on num_threads, nor on the ISA level where it has fused
/// multiply-add. T is float or double. Throws std::invalid_argument for sizes, lengths or targets
/// out of range.
template <class T>
LSTMCORE_API void crf(const T* scores, const CrfShape& shape, const CrfParameters<T>& parameters,
                      const int64_t* target, const double* factor, double* losses, T* dscores,
                      const CrfGradients<T>* gradients, int num_threads);

/// The likeliest labels of the steps of each row, one row after the other, by Viterbi's
/// algorithm; of equal ones those whose last, then last but one, ... label is lower. `paths` has
/// room for T * B; returns how many there are.
template <class T>
LSTMCORE_API int64_t crf_decode(const T* scores, const CrfShape& shape,
                                const CrfParameters<T>& parameters, int64_t* paths,
                                int num_threads);

}  // namespace LSTMCORE_API lstmcore
