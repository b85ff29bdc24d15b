// Numbers in bfloat16, and which instructions their products use; see Bfloat16Unit.
#pragma once

#include <cstdint>
#include <cstring>

#include "kernel_table.h"
#include "lstmcore/memory.h"
#include "lstmcore/precision.h"
#include "machine/caches.h"

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

/// The parts of a number, as kParts says. As split() of the kernels does.
inline void split_bfloat16(float x, Bfloat16 (&parts)[kParts]) {
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    const auto is_finite = [](Bfloat16 number) { return (number & 0x7f80) != 0x7f80; };
    const bool finite = is_finite(Bfloat16(bits >> 16));
    const Bfloat16 rounded = to_bfloat16(x);
    parts[0] = !finite ? Bfloat16(0) : is_finite(rounded) ? rounded : Bfloat16(bits >> 16);
    const float rest = x - from_bfloat16(parts[0]);
    parts[1] = finite ? to_bfloat16(rest) : Bfloat16(0);
    parts[2] = to_bfloat16(rest - from_bfloat16(parts[1]));
}

/// A panel of a matrix has at most so many columns: four registers.
template <class T>
constexpr int64_t kMostColumns = 4 * kAlignment / int64_t(sizeof(T));

/// Rooms in which the kernels that some threads call round rows: one for each matrix that a call
/// multiplies with. There are none where the stack is enough.
class RoundingRooms {
public:
    RoundingRooms() = default;
    /// For rows of at most K numbers, of which at most `rows` are rounded together. There are none
    /// if this precision does not round. With `widens`, a matrix may be Bfloat16Unit::widening.
    RoundingRooms(Precision precision, int threads, int64_t K, int64_t rows, int matrices = 1,
                  bool widens = false);

    template <class T>
    Packed<T> in_room(Packed<T> w, int thread, int matrix = 0) const {
        if (numbers_ + panel_ == 0) return w;
        const int64_t room = (thread * matrices_ + matrix) * (numbers_ + panel_);
        w.room = {static_cast<float*>(memory_.data()) + room, numbers_};
        if (panel_ > 0 && w.unit == Bfloat16Unit::widening) w.room.panel = w.room.data + numbers_;
        return w;
    }

private:
    int64_t matrices_ = 1;  // for each thread
    int64_t numbers_ = 0;   // of a room
    int64_t panel_ = 0;     // of that for a panel
    Buffer memory_;
};

/// The unit for a (K, N) matrix that is packed for these kernels. Of the instructions that the
/// kernels, the machine and its operating system have, found out once: they are tried with small
/// products, and left alone if these do not come out right. Those of AMX, for which the operating
/// system is asked, or of AVX512-BF16 are taken where they take less time, or if
/// `LSTMCORE_BFLOAT16` of the environment names them. Without either a matrix is kept as float32
/// unless it is large and not trained, as one trains with many rows.
Bfloat16Unit bfloat16_unit(const Kernels<float>& kernels, int64_t K, int64_t N, bool train);

/// The unit for every matrix in three parts: that of AMX, where it may be used as above and takes
/// less time than float32 with many rows, or `none`.
Bfloat16Unit bfloat16x3_unit(const Kernels<float>& kernels);

}  // namespace lstmcore
