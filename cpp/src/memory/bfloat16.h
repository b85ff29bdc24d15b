// Numbers in bfloat16, and which instructions their products use; see Bfloat16Unit.
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

inline float from_bfloat16(Bfloat16 x) {
    const uint32_t bits = uint32_t(x) << 16;
    float number;
    std::memcpy(&number, &bits, sizeof number);
    return number;
}

/// The unit for what is packed for these kernels: the best that they, the machine and its operating
/// system have, if `LSTMCORE_BFLOAT16` of the environment names it or a better one. Found out once:
/// a unit is tried with a small product, and left alone if that does not come out right. AMX is
/// asked for then, too, for the whole process.
Bfloat16Unit bfloat16_unit(const Kernels<float>& kernels);

}  // namespace lstmcore
