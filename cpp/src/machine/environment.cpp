#include "machine/environment.h"

#include <cstdlib>
#include <stdexcept>
#include <string>

namespace lstmcore {

int named_choice(const char* variable, const char* const (&names)[3], int otherwise) {
    const char* const given = std::getenv(variable);
    const std::string wanted = given == nullptr ? "" : given;
    if (wanted.empty()) return otherwise;
    for (int i = 0; i < 3; ++i)
        if (wanted == names[i]) return i;
    throw std::invalid_argument(std::string(variable) + " is '" + wanted + "', expected " +
                                names[0] + ", " + names[1] + " or " + names[2]);
}

}  // namespace lstmcore
