// The range of sizes.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>

namespace lstmcore {

/// Throws std::invalid_argument unless a size is in 1 .. 2^31 - 1, where the products of two do not
/// overflow.
inline void check_size(int64_t value, const char* name) {
    if (value < 1 || value > INT32_MAX)
        throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                    ", expected 1 .. " + std::to_string(INT32_MAX));
}

}  // namespace lstmcore
