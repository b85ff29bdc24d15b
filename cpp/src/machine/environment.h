// Variables of the environment that choose among a few names.
#pragma once

namespace lstmcore {

/// Which of three names a variable has; `otherwise` if it is not set, or empty. Throws
/// std::invalid_argument for another name.
int named_choice(const char* variable, const char* const (&names)[3], int otherwise);

}  // namespace lstmcore
