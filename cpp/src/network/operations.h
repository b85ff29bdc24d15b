// What graphs do between modules: sums, products, parts, values side by side, repeated.
#pragma once

#include <optional>

#include "network/part.h"

namespace lstmcore {

enum class Sign { add, subtract, multiply };

/// a + b, a - b or a * b, of the same shape, or one of them with a single feature.
template <class T>
PartPointer<T> binary_part(Sign sign);

/// scale * x + shift.
template <class T>
PartPointer<T> affine_part(double scale, double shift);

/// Features side by side.
template <class T>
PartPointer<T> concat_part();

/// (B, F) over the steps of the second argument.
template <class T>
PartPointer<T> repeat_like_part();

/// A Python slice; what is not given is None.
struct Slice {
    std::optional<int64_t> start, stop, step;

    /// The places of an axis of n that it takes.
    std::vector<int64_t> places(int64_t n) const;
};

/// Some of the features.
template <class T>
PartPointer<T> features_part(const Slice& slice);

/// Some layers and directions of a state, or, without the axis, the one at `index`.
template <class T>
PartPointer<T> layers_part(const Slice& slice);
template <class T>
PartPointer<T> layer_part(int64_t index);

/// A state (n, B, F) of n values (B, F).
template <class T>
PartPointer<T> stack_part();

}  // namespace lstmcore
