// Probabilities as logarithms.
#pragma once

#include <limits>

namespace lstmcore {

/// The logarithm of 0.
constexpr double kImpossible = -std::numeric_limits<double>::infinity();

}  // namespace lstmcore
