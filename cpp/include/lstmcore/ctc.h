// Connectionist temporal classification: the loss of sequences of labels that are shorter than what
// they were read from, and the search for the likeliest (A. Graves et al., 2006).
#pragma once

#include <cstdint>
#include <vector>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// Scores of C classes, before a softmax, for each step of B rows: that of step t, row b begins at
/// t * step_stride + b * row_stride.
struct CtcScores {
    int64_t T, B, C;
    int64_t step_stride, row_stride;
    const int64_t* lengths;  ///< (B) in 0 .. T, or null: T
    int64_t blank;           ///< the class that stands for no label
};

/// losses[b] = -log of the probability that row b says its labels: summed over all ways to say each
/// label one or more steps long, with blanks between (at least one between two that are equal).
/// Labels that do not fit into the steps have probability 0: their loss is infinite, their gradient
/// 0. A NaN in a row, or +infinity, gives NaN in all of its steps.
///   dlogits = factor[b] d losses[b] / d logits, 0 past the end of a row.
/// All between is in double, in logarithms. The bits do not depend on num_threads, nor on the
/// ISA level where it has fused multiply-add. T is float or double.
///
/// labels: those of all rows, one after the other, target_lengths[b] >= 0 of each, in 0 .. C - 1
/// and none of them blank; losses (B); factor (B) and dlogits, laid out as logits, may both be
/// null. Throws std::invalid_argument for sizes, lengths or labels out of range.
template <class T>
LSTMCORE_API void ctc(const T* logits, const CtcScores& scores, const int64_t* labels,
                      const int64_t* target_lengths, const double* factor, double* losses,
                      T* dlogits, int num_threads);

/// Labels that a row may say, and the logarithm of their probability.
struct CtcHypothesis {
    std::vector<int64_t> labels;
    double score;
};

/// For each row the likeliest labels, the best first, `beam_size` of them at most: a prefix beam
/// search, which keeps so many beginnings after each step (A. Hannun et al., 2014). Scores are
/// lower bounds, as ways through beginnings that were dropped are missing. Of equals the one with
/// the lower class, or that was found first, comes first. NaN counts as probability 0.
template <class T>
LSTMCORE_API std::vector<std::vector<CtcHypothesis>> ctc_beam_search(const T* logits,
                                                                     const CtcScores& scores,
                                                                     int64_t beam_size,
                                                                     int num_threads);

}  // namespace LSTMCORE_API lstmcore
