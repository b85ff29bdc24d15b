// Functions of single numbers, and of rows, that the kernels do not have, by the names that Python
// gives them.
#pragma once

#include <string>
#include <vector>

#include "network/part.h"

namespace lstmcore {

/// GELU(tanh), ELU (alpha), LeakyReLU (negative_slope), Softplus (beta, threshold) or LogSoftmax,
/// which is over rows; `numbers` are its options.
template <class T>
PartPointer<T> function_part(const std::string& name, const std::vector<double>& numbers);

/// x, or below 0 x times the slope of its feature; one slope is that of all.
template <class T>
PartPointer<T> prelu_part(std::vector<T> slopes);

/// One of those of Activation; null for any other name.
template <class T>
PartPointer<T> named_function_part(const std::string& name);

}  // namespace lstmcore
