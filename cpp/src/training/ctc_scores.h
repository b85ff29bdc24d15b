// What the loss and the search of CTC share: scores, step by step, as logarithms of probabilities.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernel_table.h"
#include "lstmcore/ctc.h"
#include "memory/sizes.h"

namespace lstmcore {

inline void check_scores(const CtcScores& scores) {
    if (scores.T < 0 || scores.B < 0 || scores.T > INT32_MAX || scores.B > INT32_MAX)
        throw std::invalid_argument("T, B: expected sizes of at least 0");
    check_size(scores.C, "C");
    if (scores.blank < 0 || scores.blank >= scores.C)
        throw std::invalid_argument("blank is " + std::to_string(scores.blank) +
                                    ", expected a class");
    for (int64_t b = 0; scores.lengths && b < scores.B; ++b)
        if (scores.lengths[b] < 0 || scores.lengths[b] > scores.T)
            throw std::invalid_argument("lengths: expected 0 .. T");
}

/// n numbers in double: themselves, or a copy in `room`.
template <class T>
const double* as_double(const T* x, int64_t n, double* room) {
    if constexpr (std::is_same_v<T, double>) {
        return x;
    } else {
        std::copy_n(x, n, room);
        return room;
    }
}

/// log(sum_c exp(x[c])); NaN if one is NaN or +infinity, or all are -infinity.
inline double log_sum(const Kernels<double>& kernels, const double* x, int64_t classes) {
    const SoftmaxSums<double> sums = kernels.softmax(x, nullptr, classes, 1);
    return sums.max + std::log(sums.sum);
}

}  // namespace lstmcore
