// Sums of products by AMX, tile by tile: Bfloat16Unit::amx and amx_parts, and Int8Unit::amx.
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
/// Tests can have them emulated everywhere.
#if (defined(__AVX512F__) && !defined(LSTMCORE_OLD_ASSEMBLER)) || defined(LSTMCORE_EMULATE_UNITS)
#define LSTMCORE_AVX512_UNITS 1
#else
#define LSTMCORE_AVX512_UNITS 0
#endif

#if LSTMCORE_AVX512_UNITS
namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

// Tiles 0 .. 3 hold sums, 4 and 5 rows, 6 and 7 weights. A row of a tile is a register, of 16
// numbers.
constexpr int kRowsTile = 4, kWeightsTile = 6, kTiles = 8;
constexpr int64_t kTileRow = kLanes<float>;  // sums, pairs of bfloat16, groups of int8
constexpr int64_t kTileRows = 16;

#if !defined(LSTMCORE_EMULATE_UNITS)
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
        config.rows[tile] = uint8_t(tile >= kWeightsTile ? kTileRow : rows);
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
/// kSum += kRows * kWeights, of int8_t or bfloat16
template <int kSum, int kRows, int kWeights, class W>
LSTMCORE_INLINE void multiply_tiles() {
    if constexpr (std::is_same_v<W, int8_t>)
        __asm__ volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0"
                         :
                         : "i"(kSum), "i"(kRows), "i"(kWeights));
    else
        __asm__ volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0"
                         :
                         : "i"(kSum), "i"(kRows), "i"(kWeights));
}
#else
// The same in C++, for tests where there is no AMX. Its rows are as long as registers are here.
}  // namespace
struct EmulatedTile {
    int64_t rows = 0;
    uint32_t numbers[kTileRows][kTileRow] = {};
};
inline thread_local EmulatedTile emulated_tiles[kTiles];
namespace {

inline void configure_tiles(int64_t rows) {
    for (int tile = 0; tile < kTiles; ++tile)
        emulated_tiles[tile].rows = tile >= kWeightsTile ? kTileRow : rows;
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
template <int kSum, int kRows, int kWeights, class W>
void multiply_tiles() {
    EmulatedTile& sum = emulated_tiles[kSum];
    const EmulatedTile &a = emulated_tiles[kRows], &w = emulated_tiles[kWeights];
    using Number = std::conditional_t<std::is_same_v<W, int8_t>, int8_t, Bfloat16>;
    for (int64_t r = 0; r < sum.rows; ++r)
        for (int64_t n = 0; n < kTileRow; ++n)
            sum.numbers[r][n] = add_products(sum.numbers[r][n], a.numbers[r], w, n, Number());
}
#endif

}  // namespace
/// Rows that this thread's tiles are configured for; 0 while they are released. One for all files
/// of the level.
inline thread_local int64_t configured_rows = 0;
namespace {

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
/// Calls f(Constant<0>()), ... f(Constant<kCount - 1>()).
template <int kCount, class F>
LSTMCORE_INLINE void for_each_constant(F f) {
    for_each_constant(f, std::make_integer_sequence<int, kCount>());
}

}  // namespace
/// How n rows are cut for AMX. Up to 16 are one tile. More are cut into parts of about equal height
/// that are two tiles each, so that a tile of weights is loaded once for both: then loads, 8 cycles
/// each, take half as long as products, 16 cycles each, and weights come from the L2 cache fast
/// enough. All tiles have the same number of rows. The second of a part ends where the part
/// ends: of an odd number of rows both tiles compute the one in the middle.
struct AmxCut {
    int64_t tiles;  ///< of a part
    int64_t parts;
    int64_t height, higher;  ///< rows of a part; so many parts have one more
    int64_t tile_rows;

    explicit AmxCut(int64_t n)
        : tiles(n > kTileRows ? 2 : 1),
          parts((n + tiles * kTileRows - 1) / (tiles * kTileRows)),
          height(n / parts),
          higher(n % parts),
          tile_rows((height + (higher > 0) + tiles - 1) / tiles) {}

    /// Panels that are taken at once: with more rows from the L1 cache than weights.
    int64_t most_panels() const { return kSlots / (tiles * kTileRows); }

    static constexpr int64_t kSlots = 4 * kTileRows;  ///< tiles of rows times panels, in rows
};

/// Adds the products of the rows of a part with `panels` panels of w from `panel` on to their
/// chains; rows, as they are made for w, are equally far apart, and these are the first two. In
/// tiles.cpp.
template <class T>
void add_by_amx(const Packed<T>& w, const AmxCut& cut, int64_t panel, int64_t panels, int64_t rows,
                const void* first, const void* second, const Ends<T>* ends);

namespace {

/// Rows of a part, `stride` bytes apart.
struct AmxRows {
    const char* data;
    int64_t stride;
    int64_t rows;
};

/// Numbers in bfloat16 that are parts of others, see kParts.
enum class Bfloat16Part : Bfloat16 {};

/// Which parts of rows are multiplied with which of weights, in this order: the six largest
/// products, the largest last. All six are computed for a tile of k before the next tile, so that a
/// part that is needed again comes from the L1 cache.
template <class W>
struct AmxTerms {
    static constexpr int kCount = 1, kOfRows[] = {0}, kOfWeights[] = {0};
};
template <>
struct AmxTerms<Bfloat16Part> {
    static constexpr int kCount = 6;
    static constexpr int kOfRows[] = {0, 0, 1, 1, 2, 0}, kOfWeights[] = {2, 1, 1, 0, 0, 0};
};

/// Panels of a matrix of Bfloat16, Bfloat16Part or int8_t.
template <class W>
struct AmxPanels {
    const W* data;
    int64_t panels;
    int64_t size;     ///< numbers from panel to panel
    int64_t vectors;  ///< registers of one
    int64_t K;        ///< a multiple of what a tile takes

    static constexpr int64_t kNumbers = 4 / int64_t(sizeof(W));  ///< of a column that lie together
    int64_t step() const { return vectors * kTileRow * kNumbers; }
    /// From part to part: numbers of weights, bytes of rows.
    int64_t part() const { return vectors * kTileRow * K; }
    int64_t row_part() const { return K * int64_t(sizeof(W)); }
};

/// Sums of the rows of a part for some panels, as float or int32.
class AmxSums {
public:
    explicit AmxSums(const AmxCut& cut) : tiles_(cut.tiles), tile_rows_(cut.tile_rows) {
        if (configured_rows == tile_rows_) return;
        configure_tiles(tile_rows_);
        configured_rows = tile_rows_;
    }
    AmxSums(const AmxSums&) = delete;
    AmxSums& operator=(const AmxSums&) = delete;

    /// sums[panel][row][vector] = sum_k rows[row][k] w[panel][k][vector], for at most as many
    /// panels as AmxCut allows.
    template <class W>
    void set(const AmxRows& rows, const AmxPanels<W>& w) {
        const int64_t steps = w.K / (w.kNumbers * kTileRow);
        const char* const of_tile[] = {rows.data,
                                       rows.data + (rows.rows - tile_rows_) * rows.stride};
        int64_t step = 0;
        do {  // a block of rows comes from the L1 cache for all panels
            const int64_t count = steps - step < kBlock ? steps - step : kBlock;
            for (int64_t p = 0; p < w.panels; ++p) {
                const Block<W> block{of_tile,
                                     rows.stride,
                                     w.row_part(),
                                     w.data + p * w.size + step * kTileRow * w.step(),
                                     w.step(),
                                     w.part(),
                                     step,
                                     count,
                                     numbers_[p * tiles_ * kTileRows]};
                // Of several terms, some take tiles of weights that the one before has loaded.
                constexpr int kAlone = AmxTerms<W>::kCount > 1 ? 2 : kMostVectors;
                for (int64_t v = 0; v < w.vectors; v += tiles_ == 1 ? kAlone : 2)
                    if (tiles_ == 1)
                        add_panel<1, kAlone>(block.from(v), w.vectors - v);
                    else
                        add_panel<2, 2>(block.from(v), w.vectors - v);
            }
            step += count;
        } while (step < steps);
        rows_ = rows.rows;
    }

    template <class P>
    LSTMCORE_INLINE P at(int64_t panel, int64_t row, int64_t column) const {
        const bool second = row >= tile_rows_;
        const int64_t slot = second ? kTileRows + row - (rows_ - tile_rows_) : row;
        P sums;
        std::memcpy(&sums, numbers_[panel * tiles_ * kTileRows + slot] + column, sizeof sums);
        return sums;
    }

private:
    /// So many tiles of k: 16 KB of a tile of rows, or of each of its parts.
    static constexpr int64_t kBlock = 16;

    template <class W>
    struct Block {
        const char* const* rows;  ///< of each tile
        int64_t stride, part;
        const W* w;
        int64_t w_step, w_part;
        int64_t first, count;  ///< tiles of k
        uint32_t* sums;

        Block from(int64_t vector) const {
            Block block = *this;
            block.w += vector * kTileRow * AmxPanels<W>::kNumbers;
            block.sums += vector * kTileRow;
            return block;
        }
    };

    /// The sums of a block with the first kVectors registers of a panel, or with `vectors` of them
    /// if those are fewer.
    template <int kRowTiles, int kVectors, class W>
    static void add_panel(const Block<W>& block, int64_t vectors) {
        if constexpr (kVectors > 1) {
            if (vectors < kVectors) return add_panel<kRowTiles, kVectors - 1>(block, vectors);
        }
        const auto each_sum = [&](auto f) LSTMCORE_INLINE_LAMBDA {
            for_each_constant<kRowTiles>([&](auto r) LSTMCORE_INLINE_LAMBDA {
                for_each_constant<kVectors>([&](auto v) LSTMCORE_INLINE_LAMBDA {
                    f(Constant<decltype(r)::value * kVectors + decltype(v)::value>(),
                      block.sums + (r * kTileRows * kMostVectors + v) * kTileRow);
                });
            });
        };
        if (block.first == 0)
            each_sum([](auto sum, uint32_t*) { clear_tile<decltype(sum)::value>(); });
        else
            each_sum(
                [](auto sum, uint32_t* at) { load_tile<decltype(sum)::value>(at, kSumsBytes); });
        for (int64_t i = 0; i < block.count; ++i)
            for_each_constant<AmxTerms<W>::kCount>([&](auto term) LSTMCORE_INLINE_LAMBDA {
                add_term<kRowTiles, kVectors, decltype(term)::value>(block, i);
            });
        each_sum([](auto sum, uint32_t* at) { store_tile<decltype(sum)::value>(at, kSumsBytes); });
    }

    /// The products of a term, for tile i of k.
    template <int kRowTiles, int kVectors, int kTerm, class W>
    LSTMCORE_INLINE static void add_term(const Block<W>& block, int64_t i) {
        using Terms = AmxTerms<W>;
        constexpr int kBefore = kTerm > 0 ? kTerm - 1 : 0;
        constexpr bool kNewRows = kTerm == 0 || Terms::kOfRows[kTerm] != Terms::kOfRows[kBefore];
        constexpr bool kNewWeights =
            kTerm == 0 || Terms::kOfWeights[kTerm] != Terms::kOfWeights[kBefore] || kVectors > 2;
        if constexpr (kNewRows)
            for_each_constant<kRowTiles>([&](auto r) LSTMCORE_INLINE_LAMBDA {
                load_tile<kRowsTile + decltype(r)::value>(block.rows[r] +
                                                              Terms::kOfRows[kTerm] * block.part +
                                                              4 * kTileRow * (block.first + i),
                                                          block.stride);
            });
        const W* const w =
            block.w + Terms::kOfWeights[kTerm] * block.w_part + i * kTileRow * block.w_step;
        for_each_constant<kVectors>([&](auto v) LSTMCORE_INLINE_LAMBDA {
            constexpr int kVector = decltype(v)::value;
            constexpr int kWeights = kWeightsTile + kVector % 2;
            if constexpr (kNewWeights)
                load_tile<kWeights>(w + kVector * kTileRow * AmxPanels<W>::kNumbers,
                                    block.w_step * int64_t(sizeof(W)));
            for_each_constant<kRowTiles>([&](auto r) LSTMCORE_INLINE_LAMBDA {
                multiply_tiles<decltype(r)::value * kVectors + kVector,
                               kRowsTile + decltype(r)::value, kWeights, W>();
            });
        });
    }

    static constexpr int64_t kSumsBytes = 4 * kMostVectors * kTileRow;

    const int64_t tiles_, tile_rows_;
    int64_t rows_ = 0;
    alignas(64) uint32_t numbers_[AmxCut::kSlots][kMostVectors * kTileRow];
};

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
#endif
