// Numbers in bfloat16.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel_table.h"

namespace lstmcore {

/// The nearest one, of two the even one; NaN stays NaN. As round_to_bfloat16() of the kernels does.
inline Bfloat16 to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const bool nan = (bits & 0x7fffffffu) > 0x7f800000u;
    const uint32_t rounded = nan ? bits | 0x00400000u : bits + ((bits >> 16) & 1) + 0x7fffu;
    return Bfloat16(rounded >> 16);
}

}  // namespace lstmcore
