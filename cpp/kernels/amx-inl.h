// Sums of products by AMX, tile by tile: Bfloat16Unit::amx and Int8Unit::amx.
//
// TDPBF16PS sums the products of 32 k, those of the first of each pair apart from those of the
// second, then adds both sums together and to what the tile holds. So bits are not those of the
// other units; but they depend on nothing else than K either. TDPBSSD sums the products of 64 k in
// whole numbers, which are exact.
#pragma once

#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel_table.h"
#include "simd-inl.h"
#include "tile-inl.h"

/// Whether kernels have AMX, and with it Bfloat16Unit::dot, which an old assembler may not know.
/// Elsewhere tests can have them emulated.
#if (defined(__AVX512F__) && !defined(LSTMCORE_OLD_ASSEMBLER)) || defined(LSTMCORE_EMULATE_UNITS)
#define LSTMCORE_AVX512_UNITS 1
#else
#define LSTMCORE_AVX512_UNITS 0
#endif

#if LSTMCORE_AVX512_UNITS
namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

// Tiles 0 .. 3 hold sums, 4 the rows, 5 the weights. A row of a tile is a register, of 16 numbers.
constexpr int kRowsTile = 4, kWeightsTile = 5, kTiles = 6;
constexpr int64_t kTileRow = kLanes<float>;     // sums, pairs of bfloat16, groups of int8
constexpr int kTileRows = 8, kTileVectors = 4;  // at most: see tile-inl.h, and Packed
static_assert(tile_rows(1) <= kTileRows, "as tiles of rows are cut");

#if defined(__AVX512F__)
/// As LDTILECFG reads it.
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {};
    uint8_t rows[16] = {};
};
static_assert(sizeof(TileConfig) == 64, "as the instruction reads it");

inline void configure_tiles(int64_t rows) {
    TileConfig config;
    for (int tile = 0; tile < kTiles; ++tile) {
        config.row_bytes[tile] = kAmxBytes;
        config.rows[tile] = uint8_t(tile == kWeightsTile ? kTileRow : rows);
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
}
inline void release_tiles() {
    __asm__ volatile("tilerelease");
}
template <int kTile>
LSTMCORE_INLINE void clear_tile() {
    __asm__ volatile("tilezero %%tmm%c0" : : "i"(kTile));
}
/// Rows lie `stride` bytes apart.
template <int kTile>
LSTMCORE_INLINE void load_tile(const void* from, int64_t stride) {
    __asm__ volatile("tileloadd (%0,%1,1), %%tmm%c2"
                     :
                     : "r"(from), "r"(stride), "i"(kTile)
                     : "memory");
}
template <int kTile>
LSTMCORE_INLINE void store_tile(void* to, int64_t stride) {
    __asm__ volatile("tilestored %%tmm%c2, (%0,%1,1)"
                     :
                     : "r"(to), "r"(stride), "i"(kTile)
                     : "memory");
}
/// kSum += rows * weights, of Bfloat16 or int8_t
template <int kSum, class W>
LSTMCORE_INLINE void multiply_tiles() {
    if constexpr (std::is_same_v<W, int8_t>)
        __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                         :
                         : "i"(kSum), "i"(kRowsTile), "i"(kWeightsTile));
    else
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                         :
                         : "i"(kSum), "i"(kRowsTile), "i"(kWeightsTile));
}
#else
// The same in C++, for tests where there is no AMX. Their rows are as long as registers are here.
struct EmulatedTile {
    int64_t rows = 0;
    uint32_t numbers[16][kTileRow];
};
thread_local EmulatedTile emulated_tiles[kTiles];

inline void configure_tiles(int64_t rows) {
    for (int tile = 0; tile < kTiles; ++tile)
        emulated_tiles[tile].rows = tile == kWeightsTile ? kTileRow : rows;
}
inline void release_tiles() {
    for (EmulatedTile& tile : emulated_tiles) tile.rows = 0;
}
template <int kTile>
void clear_tile() {
    std::memset(emulated_tiles[kTile].numbers, 0, sizeof emulated_tiles[kTile].numbers);
}
template <int kTile>
void load_tile(const void* from, int64_t stride) {
    EmulatedTile& tile = emulated_tiles[kTile];
    for (int64_t r = 0; r < tile.rows; ++r)
        std::memcpy(tile.numbers[r], static_cast<const char*>(from) + r * stride, 4 * kTileRow);
}
template <int kTile>
void store_tile(void* to, int64_t stride) {
    const EmulatedTile& tile = emulated_tiles[kTile];
    for (int64_t r = 0; r < tile.rows; ++r)
        std::memcpy(static_cast<char*>(to) + r * stride, tile.numbers[r], 4 * kTileRow);
}
/// What TDPBF16PS and TDPBSSD add to a sum: the products of a row and a column.
inline uint32_t add_products(uint32_t sum, const uint32_t* row, const EmulatedTile& w, int64_t n,
                             Bfloat16) {
    const auto number = [](uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    };
    float of_low = 0, of_high = 0;  // products are exact, so a plain sum is a fused one
    for (int64_t k = 0; k < w.rows; ++k) {
        const uint32_t x = row[k], y = w.numbers[k][n];
        of_low += number(x << 16) * number(y << 16);
        of_high += number(x & 0xffff0000u) * number(y & 0xffff0000u);
    }
    const float total = number(sum) + (of_low + of_high);
    std::memcpy(&sum, &total, sizeof total);
    return sum;
}
inline uint32_t add_products(uint32_t sum, const uint32_t* row, const EmulatedTile& w, int64_t n,
                             int8_t) {
    for (int64_t k = 0; k < w.rows; ++k)
        for (int bit = 0; bit < 32; bit += 8)
            sum += uint32_t(int8_t(row[k] >> bit) * int8_t(w.numbers[k][n] >> bit));
    return sum;
}
template <int kSum, class W>
void multiply_tiles() {
    EmulatedTile& sum = emulated_tiles[kSum];
    const EmulatedTile &a = emulated_tiles[kRowsTile], &w = emulated_tiles[kWeightsTile];
    for (int64_t r = 0; r < sum.rows; ++r)
        for (int64_t n = 0; n < kTileRow; ++n)
            sum.numbers[r][n] = add_products(sum.numbers[r][n], a.numbers[r], w, n, W());
}
#endif

/// Rows that this thread's tiles are configured for; 0 while they are released.
thread_local int64_t configured_rows = 0;

/// While it lives, this thread may use tiles, for products with a matrix that asks for them.
class TileScope {
public:
    explicit TileScope(bool uses_tiles) : uses_tiles_(uses_tiles) {}
    ~TileScope() {
        if (uses_tiles_ && configured_rows > 0) {
            release_tiles();
            configured_rows = 0;
        }
    }
    TileScope(const TileScope&) = delete;
    TileScope& operator=(const TileScope&) = delete;

private:
    bool uses_tiles_;
};

template <class F, int... kValues>
LSTMCORE_INLINE void for_each_constant(F f, std::integer_sequence<int, kValues...>) {
    (f(Constant<kValues>()), ...);
}

/// Sums of a tile, as float or int32: some registers of each row.
struct alignas(64) TileSums {
    uint32_t numbers[kTileRows][kTileVectors * kTileRow];

    template <class P>
    LSTMCORE_INLINE P at(int64_t row, int64_t column) const {
        P sums;
        std::memcpy(&sums, numbers[row] + column, sizeof sums);
        return sums;
    }
};

/// sums[row][vector] = sum_k a[row][k] w[k][vector] for `rows` rows, `stride` bytes apart. W is
/// Bfloat16 or int8_t; `w_step` numbers lie between the pairs or groups of w, and K is a multiple
/// of what a tile takes.
template <int kVectors, class W>
LSTMCORE_INLINE void sum_by_amx(const void* a, int64_t stride, int64_t rows, const W* w,
                                int64_t w_step, int64_t K, TileSums* sums) {
    constexpr int64_t kNumbers = 4 / int64_t(sizeof(W));  // to a pair or group
    if (rows > configured_rows || rows + 1 < configured_rows) {
        configure_tiles(rows);
        configured_rows = rows;
    }
    const auto each_vector = [](auto f) LSTMCORE_INLINE_LAMBDA {
        for_each_constant(f, std::make_integer_sequence<int, kVectors>());
    };
    each_vector([](auto v) { clear_tile<decltype(v)::value>(); });
    for (int64_t i = 0; i < K / kNumbers; i += kTileRow) {
        load_tile<kRowsTile>(static_cast<const char*>(a) + 4 * i, stride);
        each_vector([&](auto v) {
            load_tile<kWeightsTile>(w + i * w_step + v * kTileRow * kNumbers,
                                    w_step * int64_t(sizeof(W)));
            multiply_tiles<decltype(v)::value, W>();
        });
    }
    each_vector([&](auto v) {
        store_tile<decltype(v)::value>(&sums->numbers[0][v * kTileRow], sizeof sums->numbers[0]);
    });
}

/// Calls add(vectors, panel, w_step) for each of kPanels panels of kVectors registers, or for one
/// of `columns` columns, if they are fewer: with how many registers it has, and how many numbers
/// lie from k to k there, kNumbers of each column.
template <int kVectors, int kPanels, int kNumbers, class Add>
LSTMCORE_INLINE void for_each_panel(int64_t columns, Add add) {
    constexpr int64_t L = kLanes<float>;
    if constexpr (kVectors > 1 && kPanels == 1) {
        if (columns == L) return add(Constant<1>(), 0, L * kNumbers);
        if constexpr (kVectors > 2)
            if (columns == 2 * L) return add(Constant<2>(), 0, 2 * L * kNumbers);
        if constexpr (kVectors > 3)
            if (columns == 3 * L) return add(Constant<3>(), 0, 3 * L * kNumbers);
    }
    for (int64_t p = 0; p < kPanels; ++p) add(Constant<kVectors>(), p, kVectors * L * kNumbers);
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
#endif
