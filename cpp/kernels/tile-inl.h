// The shapes of tiles: how many rows and registers of columns are computed at once, and the loops
// that multiply them, one for each shape.
#pragma once

#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Accumulators that fit the registers beside a weight and the rows' factors.
constexpr int kAccumulators = kRegisters == 32 ? 24 : 12;

/// Panels of at most so many registers, tiles of at most so many rows.
constexpr int kMostVectors = 4, kMostRows = 8;

/// Rows of a tile that is `vectors` registers wide.
constexpr int tile_rows(int vectors) {
    return kAccumulators / vectors < kMostRows ? kAccumulators / vectors : kMostRows;
}
/// Panels taken at once, so that a few rows still fill the pipeline of the multiplier.
constexpr int tile_panels(int vectors, int rows) {
    return kAccumulators / (vectors * rows) < 4 ? kAccumulators / (vectors * rows) : 4;
}
/// The same of numbers known at run time: rows of a tile, and panels of one with a single row.
constexpr int kRowsOf[] = {0, tile_rows(1), tile_rows(2), tile_rows(3), tile_rows(4)};
constexpr int kPanelsOf[] = {0, tile_panels(1, 1), tile_panels(2, 1), tile_panels(3, 1),
                             tile_panels(4, 1)};

struct Nothing {};

/// A number that the compiler knows.
template <int kValue>
struct Constant {
    static constexpr int value = kValue;
    constexpr operator int64_t() const { return kValue; }
};

/// Rows that have been made for a product, in bfloat16 or in int8, in place of those given.
struct MadeRows {
    const char* first = nullptr;  ///< null if none have been made
    int64_t bytes = 0;            ///< from row to row

    explicit operator bool() const { return first != nullptr; }
    const void* at(int64_t row) const { return first + row * bytes; }
};

}  // namespace

// What follows is shared by the files of a level.

/// Where the chains of a row of a tile begin and end: so many registers as the tile is wide.
template <class T>
struct Ends {
    const T* from;
    T* to;
};

/// What a tile is multiplied with: panels of a matrix.
struct TileWeights {
    const char* data;     ///< of the first panel
    int64_t panel_bytes;  ///< from panel to panel
    int64_t turns;        ///< K, or how many pairs or groups of k there are
    /// What the loop prefetches to the L2 cache meanwhile, a part of the next panel: in every turn
    /// the cache line at `ahead`, which then moves on by so many bytes. Without it, a matrix larger
    /// than the cache would be multiplied at the speed of the memory behind the cache.
    const char* ahead;
    int64_t ahead_bytes;
    int64_t panels, rows;   ///< of the tile
    float* kept;            ///< bfloat16: where the loop writes the panel as floats, if it does
    const float* scales;    ///< int8: of all columns of the matrix
    const int32_t* shifts;  ///< the same
    int64_t column;         ///< the first
    int64_t panel_columns;  ///< from panel to panel
};

/// The product of a tile with W: row r of panel p begins and ends at ends[p * rows + r], and a[r]
/// is what it is multiplied with: the row's numbers, rounded if W is in bfloat16, or a
/// QuantizedRow.
template <class T>
using TileLoop = void (*)(const void* const* a, const TileWeights& w, const Ends<T>* ends);

/// The loops for all shapes of tiles.
template <class T>
struct TileLoops {
    static constexpr bool kHasWide = true;
    TileLoop<T> tall[kMostVectors + 1][kMostRows + 1];  ///< [vectors][rows], of one panel
    TileLoop<T> wide[kMostVectors + 1];  ///< [vectors], of one row and kPanelsOf[vectors]
};

/// A matrix as it is multiplied in tiles, whatever it is packed in.
template <class T>
struct TileMatrix {
    const TileLoops<T>* loops;
    const char* data;
    int64_t panel_bytes, turns;  ///< see TileWeights
    int64_t turn_bytes;          ///< from turn to turn in a full panel
    const float* scales;
    const int32_t* shifts;
};
/// The loops for several tiles of a panel that Bfloat16Unit::widening multiplies: the first one
/// keeps the panel as floats, by which the others are multiplied.
template <class T>
struct KeepingLoops {
    const TileLoops<T>*first = nullptr, *others = nullptr;
    float* panel = nullptr;
    int64_t turns = 0;  ///< of the others
};
// tiles.cpp
template <class T>
TileMatrix<T> in_tiles(const Packed<T>& w);
template <class T>
KeepingLoops<T> keeping(const Packed<T>& w);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
