// Variables of the environment that choose among a few names.
#pragma once

namespace lstmcore {

/// Which of some names a variable has; `otherwise` if it is not set, or empty. Throws
/// std::invalid_argument for another name.
int named_choice(const char* variable, const char* const* names, int count, int otherwise);

template <int kCount>
int named_choice(const char* variable, const char* const (&names)[kCount], int otherwise) {
    return named_choice(variable, names, kCount, otherwise);
}

}  // namespace lstmcore
