// Matrices in int8 as kernels read them, and which instructions their products use; see Int8Unit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "kernel_table.h"
#include "lstmcore/quantized.h"

namespace lstmcore {

/// The unit for what is packed for these kernels: the best that they and the machine have, or what
/// `LSTMCORE_INT8` of the environment names. Found out once for each level: a unit is tried with
/// small products, and left alone if they are not what Int8Unit::plain gives, to the bit. AMX also
/// has to be faster, unless the environment names it.
Int8Unit int8_unit(const Kernels<float>& kernels);

/// Whether these kernels and this machine, which can run them, have the unit. AMX is asked for
/// then, for the whole process.
bool has_int8_unit(const Kernels<float>& kernels, Int8Unit unit);

/// Writes columns [first, last) of `packed`, where column c is row row_of(c) of `source` (rows, K),
/// or padding if that is negative: the numbers to `out`, the scales and the shifts.
template <class T, class RowOf>
void copy_int8(const QuantizedMatrix& source, RowOf row_of, const Packed<T>& packed, int lanes,
               int64_t first, int64_t last, int8_t* out, float* scales, int32_t* shifts) {
    const int64_t K = packed.K, padded = packed.padded_int8_K(), width = packed.vectors * lanes;
    const int32_t offset = packed.int8_unit == Int8Unit::vnni ? kVnniOffset : 0;
    for (int64_t column = first; column < last; ++column) {
        const int64_t panel = column / width * width, row = row_of(column);
        int8_t* to = out + panel * padded + (column - panel) * kGroup;
        const int64_t step = std::min(width, packed.N - panel) * kGroup;
        scales[column] = row < 0 ? 0 : source.scales[row];
        shifts[column] = 0;
        for (int64_t k = 0; k < padded; k += kGroup, to += step)
            for (int64_t i = 0; i < kGroup; ++i) {
                const bool empty = row < 0 || k + i >= K;
                const int32_t number = empty ? 0 : source.values[row * K + k + i];
                to[i] = int8_t(uint8_t(number + offset));
                shifts[column] += kShift * number;
            }
    }
}

}  // namespace lstmcore
