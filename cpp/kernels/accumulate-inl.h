// The innermost loop: a tile of rows times a panel of a matrix, or a sum over rows.
#pragma once

#include <utility>

#include "bfloat16-inl.h"
#include "simd-inl.h"
#include "tile-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Whether a tile of so few rows is the only one of its panel (more rows are cut into tiles of
/// about equal height). It uses weights faster than the L2 cache delivers them, so it prefetches
/// those of a later k itself.
constexpr bool is_alone(int vectors, int rows) {
    return rows < (tile_rows(vectors) + 1) / 2;
}
constexpr int64_t kStepsAhead = 16;

/// sum[panel][row][vector] += a[row][offset] w[panel][vector]. Of KeptBfloat16, the weights go to
/// kept[kTerm][vector], too.
template <int kTerm, class T, class W, int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void add_term(const T* const (&a)[kRows], int64_t offset, const W* w,
                              int64_t w_panel, T* kept,
                              Packet<T> (&sum)[kPanels][kRows][kVectors]) {
    using P = Packet<T>;
    constexpr int L = kLanes<T> * kTerms<T, W>;
    const auto weight_at = [&](int p, int v) LSTMCORE_INLINE_LAMBDA {
        const P weight = load_weight<kTerm>(w + p * w_panel + v * L);
        if constexpr (std::is_same_v<W, KeptBfloat16>)
            store(kept + (kTerm * kVectors + v) * kLanes<T>, weight);
        return weight;
    };
    // Beside the sums the registers hold all factors or all weights, whichever are fewer.
    if constexpr (kRows <= kPanels * kVectors) {
        P factor[kRows];
        for (int r = 0; r < kRows; ++r) factor[r] = set(a[r][offset]);
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) {
                const P weight = weight_at(p, v);
                for (int r = 0; r < kRows; ++r)
                    sum[p][r][v] = multiply_add<W>(factor[r], weight, sum[p][r][v]);
            }
    } else {
        P weight[kPanels][kVectors];
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) weight[p][v] = weight_at(p, v);
        for (int r = 0; r < kRows; ++r) {
            const P factor = set(a[r][offset]);
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] = multiply_add<W>(factor, weight[p][v], sum[p][r][v]);
        }
    }
}

/// to[panel][row][vector] = from[panel][row][vector] +
///     sum_k a[row][k a_step] w[panel][k w_step + vector], for k < turns; in pairs of k for
/// bfloat16.
/// fetch() is called in every turn of a tile that is not alone.
template <class T, class W, int kVectors, int kPanels, int kRows, class Fetch>
LSTMCORE_INLINE void accumulate(const void* const* a, int64_t a_step, const W* w, int64_t w_panel,
                                int64_t w_step, int64_t turns, const Ends<T>* ends, Fetch fetch,
                                T* kept = nullptr) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>, kStep = kFactors<T, W>;
    P sum[kPanels][kRows][kVectors];
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v)
                sum[p][r][v] = load(ends[p * kRows + r].from + v * L);
    const T* row[kRows];
    for (int r = 0; r < kRows; ++r) {
        row[r] = static_cast<const T*>(a[r]);
        // One by one: a wide load of pointers that have just been written one by one would wait
        // until all before it is done.
        __asm__("" : "+r"(row[r]));
    }
#pragma GCC unroll 2
    for (int64_t k = 0, offset = 0; k < turns; ++k, offset += a_step, w += w_step) {
        if constexpr (kPanels > 1 || kRows == 1) {
            // One row, of a panel or several, is read faster without.
        } else if constexpr (is_alone(kVectors, kRows)) {
            for (int64_t v = 0; v < kVectors * L * kStep; v += kCacheLine / int64_t(sizeof(W)))
                prefetch_near(w + kStepsAhead * w_step + v);
        } else {
            fetch();
        }
        if constexpr (std::is_same_v<W, KeptBfloat16>)
            for (int64_t v = 0; v < kStep * kVectors; ++v)  // else each store would wait for it
                prefetch_near(kept + (kStepsAhead * kVectors + v) * L);
        add_term<0>(row, offset, w, w_panel, kept, sum);
        if constexpr (kStep > 1) {
            // Weights are read again: kept from the first half, they would displace the sums.
            __asm__ volatile("" : : : "memory");
            add_term<1>(row, offset + 1, w, w_panel, kept, sum);
        }
        if constexpr (std::is_same_v<W, KeptBfloat16>) kept += kStep * kVectors * L;
    }
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) store(ends[p * kRows + r].to + v * L, sum[p][r][v]);
}

/// TileLoop of a matrix of W.
template <class T, class W, int kVectors, int kPanels, int kRows>
void multiply_tile(const void* const* a, const TileWeights& w, const Ends<T>* ends) {
    const char* ahead = w.ahead;
    const auto fetch = [&ahead, bytes = w.ahead_bytes]() LSTMCORE_INLINE_LAMBDA {
        prefetch(ahead);
        ahead += bytes;
    };
    T* kept = nullptr;
    if constexpr (std::is_same_v<W, KeptBfloat16>) kept = w.kept;
    accumulate<T, W, kVectors, kPanels, kRows>(
        a, kFactors<T, W>, reinterpret_cast<const W*>(w.data), w.panel_bytes / int64_t(sizeof(W)),
        kVectors * kLanes<T> * kTerms<T, W>, w.turns, ends, fetch, kept);
}

/// A table of Of<kVectors, kPanels, kRows>::loop for all shapes of tiles, those of several panels
/// if Loops has them.
template <class Loops, template <int kVectors, int kPanels, int kRows> class Of>
struct AllShapes {
    template <int kVectors, int... kLess>
    static constexpr void set(Loops& loops, std::integer_sequence<int, kLess...>) {
        ((loops.tall[kVectors][kLess + 1] = Of<kVectors, 1, kLess + 1>::loop), ...);
        if constexpr (Loops::kHasWide && kVectors > 1)
            loops.wide[kVectors] = Of<kVectors, tile_panels(kVectors, 1), 1>::loop;
    }
    static constexpr Loops make() {
        Loops loops{};
        set<1>(loops, std::make_integer_sequence<int, tile_rows(1)>());
        set<2>(loops, std::make_integer_sequence<int, tile_rows(2)>());
        set<3>(loops, std::make_integer_sequence<int, tile_rows(3)>());
        set<4>(loops, std::make_integer_sequence<int, tile_rows(4)>());
        return loops;
    }
};

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
