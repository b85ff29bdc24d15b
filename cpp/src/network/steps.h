// Parts that know where rows end, and have no weights.
#pragma once

#include <string>

#include "lstmcore/spec.h"
#include "network/part.h"

namespace lstmcore {

enum class Pooling { last, mean, max };

/// (B, F) of (T, B, F): 0 of a row without steps.
template <class T>
PartPointer<T> pool_part(Pooling pooling);

/// The forward half at the last step, and the reverse half at the first.
template <class T>
PartPointer<T> both_ends_part(Merge merge);

/// The steps of every row in the opposite order, then zeros.
template <class T>
PartPointer<T> flip_part();

/// (B, F) at each of so many steps.
template <class T>
PartPointer<T> repeat_part(int64_t steps);

/// Finds lengths: a step does not count if all its features, or its id, are `value`. Steps that
/// count move up where others are before them, or, without `gaps`, are refused.
template <class T>
PartPointer<T> masking_part(double value, bool ids, bool gaps);

/// What is passed on as it is, also by a stream: dropout in inference, the scores of a CRF.
/// `features` may be kAnyFeatures.
template <class T>
PartPointer<T> pass_part(int64_t features);

}  // namespace lstmcore
