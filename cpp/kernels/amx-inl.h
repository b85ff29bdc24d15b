// Products in bfloat16 by AMX, tile by tile: Bfloat16Unit::amx.
//
// TDPBF16PS sums the products of 32 k, those of the first of each pair apart from those of the
// second, then adds both sums together and to what the tile holds. So bits are not those of the
// other units; but they depend on nothing else than K either.
#pragma once

#include <cstdint>
#include <utility>

#include "bfloat16-inl.h"
#include "kernel_table.h"
#include "simd-inl.h"
#include "tile-inl.h"

/// Whether kernels have Bfloat16Unit::dot and amx, which an old assembler may not know. Elsewhere
/// tests can have them emulated.
#if (defined(__AVX512F__) && !defined(LSTMCORE_OLD_ASSEMBLER)) || defined(LSTMCORE_EMULATE_UNITS)
#define LSTMCORE_BFLOAT16_UNITS 1
#else
#define LSTMCORE_BFLOAT16_UNITS 0
#endif

#if LSTMCORE_BFLOAT16_UNITS
namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

// Tiles 0 .. 3 hold sums, 4 the rows, 5 the weights. A row of a tile is a register, of 16 numbers.
constexpr int kRowsTile = 4, kWeightsTile = 5, kTiles = 6;
constexpr int64_t kTileRow = kLanes<float>;  // numbers, or pairs

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
        config.row_bytes[tile] = 64;
        config.rows[tile] = uint8_t(tile == kWeightsTile ? kAmxTerms / kPair : rows);
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
/// kSum += rows * weights
template <int kSum>
LSTMCORE_INLINE void multiply_tiles() {
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
template <int kSum>
void multiply_tiles() {
    EmulatedTile& sum = emulated_tiles[kSum];
    const EmulatedTile &a = emulated_tiles[kRowsTile], &w = emulated_tiles[kWeightsTile];
    const auto number = [](uint32_t bits) {
        float x;
        std::memcpy(&x, &bits, sizeof x);
        return x;
    };
    for (int64_t r = 0; r < sum.rows; ++r)
        for (int64_t n = 0; n < kTileRow; ++n) {
            float of_low = 0, of_high = 0;  // products are exact, so a plain sum is a fused one
            for (int64_t k = 0; k < w.rows; ++k) {
                const uint32_t x = a.numbers[r][k], y = w.numbers[k][n];
                of_low += number(x << 16) * number(y << 16);
                of_high += number(x & 0xffff0000u) * number(y & 0xffff0000u);
            }
            const float total = number(sum.numbers[r][n]) + (of_low + of_high);
            std::memcpy(&sum.numbers[r][n], &total, sizeof total);
        }
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

/// to[panel][row][vector] = from[panel][row][vector] + sum_k a[row][k] w[panel][k][vector], see
/// accumulate(). The rows lie equally far apart.
template <int kVectors>
__attribute__((noinline)) void accumulate_amx(const float* const* a, int64_t rows,
                                              const Bfloat16* w, int64_t w_panel, int64_t panels,
                                              int64_t w_step, int64_t K, const Ends<float>* ends) {
    constexpr int64_t L = kLanes<float>, kTerms = kPair * kTileRow;  // of a tile
    if (rows > configured_rows || rows + 1 < configured_rows) {
        configure_tiles(rows);
        configured_rows = rows;
    }
    const int64_t stride = rows > 1 ? (a[1] - a[0]) * int64_t(sizeof(float)) : 0;
    alignas(64) float sums[9][kVectors * L];
    const auto each_vector = [](auto f) LSTMCORE_INLINE_LAMBDA {
        for_each_constant(f, std::make_integer_sequence<int, kVectors>());
    };
    for (int64_t p = 0; p < panels; ++p, w += w_panel, ends += rows) {
        each_vector([](auto v) { clear_tile<decltype(v)::value>(); });
        for (int64_t k = 0; k < K; k += kTerms) {
            load_tile<kRowsTile>(a[0] + k / kPair, stride);
            each_vector([&](auto v) {
                load_tile<kWeightsTile>(w + k / kPair * w_step + v * L * kPair,
                                        w_step * int64_t(sizeof(Bfloat16)));
                multiply_tiles<decltype(v)::value>();
            });
        }
        each_vector(
            [&](auto v) { store_tile<decltype(v)::value>(&sums[0][v * L], sizeof sums[0]); });
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t v = 0; v < kVectors * L; v += L)
                store(ends[r].to + v, padd(load(ends[r].from + v), load(&sums[r][v])));
    }
}

/// The product of kPanels panels of w from `panel` on, each of kVectors registers, or of one
/// narrower one of `columns` columns, with the rows.
template <int kVectors, int kPanels>
LSTMCORE_INLINE void add_by_amx(const Packed<float>& w, int64_t panel, int64_t columns,
                                int64_t rows, const float* const* a, const Ends<float>* ends) {
    constexpr int L = kLanes<float>;
    const int64_t K = w.padded_K(), size = w.vectors * L * K;
    const Bfloat16* const from = w.bfloat16 + panel * size;
    if constexpr (kVectors > 1 && kPanels == 1) {
        const auto narrow = [&](auto vectors) LSTMCORE_INLINE_LAMBDA {
            accumulate_amx<decltype(vectors)::value>(a, rows, from, 0, 1, columns * kPair, K, ends);
        };
        if (columns == L) return narrow(Constant<1>());
        if constexpr (kVectors > 2)
            if (columns == 2 * L) return narrow(Constant<2>());
        if constexpr (kVectors > 3)
            if (columns == 3 * L) return narrow(Constant<3>());
    }
    accumulate_amx<kVectors>(a, rows, from, size, kPanels, kVectors * L * kPair, K, ends);
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
#endif
