#include "machine/environment.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lstmcore {

int named_choice(const char* variable, const char* const* names, int count, int otherwise) {
    const char* const given = std::getenv(variable);
    const std::string wanted = given == nullptr ? "" : given;
    if (wanted.empty()) return otherwise;
    std::string expected;
    for (int i = 0; i < count; ++i) {
        if (wanted == names[i]) return i;
        expected += (i == 0 ? "" : i + 1 < count ? ", " : " or ") + std::string(names[i]);
    }
    throw std::invalid_argument(std::string(variable) + " is '" + wanted + "', expected " +
                                expected);
}

}  // namespace lstmcore
