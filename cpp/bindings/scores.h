// Scores of classes for each step of each row, as losses of whole sequences take them.
#pragma once

#include "binding.h"

/// Where they are: (T, B, C), or (B, T, C). The rest of a CtcScores or a CrfShape is the caller's.
template <class Scores>
Scores laid_out(const py::array& array, const std::optional<py::array>& lengths, bool batch_first,
                const char* name) {
    require(array.ndim() == 3, name, ": three axes expected");
    Scores scores{};
    scores.T = array.shape(batch_first ? 1 : 0);
    scores.B = array.shape(batch_first ? 0 : 1);
    scores.C = array.shape(2);
    scores.step_stride = batch_first ? scores.C : scores.B * scores.C;
    scores.row_stride = batch_first ? scores.T * scores.C : scores.C;
    scores.lengths = numbers_or_null<const int64_t>(lengths, {scores.B}, "lengths");
    return scores;
}
