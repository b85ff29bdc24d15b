// A value, or why there is none: what functions that do not throw return.
#pragma once

#include <optional>
#include <string>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// For programs without exceptions. Only one of the two is there.
template <class V>
struct Result {
    std::optional<V> value;
    std::string error;  ///< as the exception of the function that throws says it; empty if none

    explicit operator bool() const noexcept { return value.has_value(); }
};

}  // namespace LSTMCORE_API lstmcore
