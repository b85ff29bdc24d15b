// The shapes of tiles: how many rows and registers of columns are computed at once.
#pragma once

#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Accumulators that fit the registers beside a weight and the rows' factors.
constexpr int kAccumulators = kRegisters == 32 ? 24 : 12;

/// Rows of a tile that is `vectors` registers wide.
constexpr int tile_rows(int vectors) {
    return kAccumulators / vectors < 8 ? kAccumulators / vectors : 8;
}
/// Panels taken at once, so that a few rows still fill the pipeline of the multiplier.
constexpr int tile_panels(int vectors, int rows) {
    return kAccumulators / (vectors * rows) < 4 ? kAccumulators / (vectors * rows) : 4;
}

/// Where the chains of a row of a tile begin and end: kVectors registers each.
template <class T>
struct Ends {
    const T* from;
    T* to;
};

struct Nothing {};

/// A number that the compiler knows.
template <int kValue>
struct Constant {
    static constexpr int value = kValue;
    constexpr operator int64_t() const { return kValue; }
};

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
