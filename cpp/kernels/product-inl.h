// Products of rows with a packed matrix, tile by tile, with what comes before and after the
// multiplication fused around it.
//
// Every element is one chain, start + a[0] w[0] + a[1] w[1] + ..., its lanes being columns. The
// shape of the tile changes the speed and never the bits.
#pragma once

#include <algorithm>
#include <type_traits>

#include "amx-inl.h"
#include "bfloat16-inl.h"
#include "kernel_table.h"
#include "quantized-inl.h"
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

/// What the other tiles prefetch to the L2 cache while they are computed, a part of the next panel:
/// for every k the cache line at data + k step. Without it, a matrix larger than the cache would be
/// multiplied at the speed of the memory behind the cache.
template <class W>
struct Ahead {
    const W* data;
    int64_t step;
};

/// sum[panel][row][vector] += a[row][offset] w[panel][vector]
template <int kTerm, class T, class W, int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void add_term(const T* const (&a)[kRows], int64_t offset, const W* w,
                              int64_t w_panel, Packet<T> (&sum)[kPanels][kRows][kVectors]) {
    using P = Packet<T>;
    constexpr int L = kLanes<T> * kTerms<T, W>;
    // Beside the sums the registers hold all factors or all weights, whichever are fewer.
    if constexpr (kRows <= kPanels * kVectors) {
        P factor[kRows];
        for (int r = 0; r < kRows; ++r) factor[r] = set(a[r][offset]);
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) {
                const P weight = load_weight<kTerm>(w + p * w_panel + v * L);
                for (int r = 0; r < kRows; ++r)
                    sum[p][r][v] = multiply_add<W>(factor[r], weight, sum[p][r][v]);
            }
    } else {
        P weight[kPanels][kVectors];
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v)
                weight[p][v] = load_weight<kTerm>(w + p * w_panel + v * L);
        for (int r = 0; r < kRows; ++r) {
            const P factor = set(a[r][offset]);
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] = multiply_add<W>(factor, weight[p][v], sum[p][r][v]);
        }
    }
}

/// to[panel][row][vector] = from[panel][row][vector] +
///     sum_k a[row][k a_step] w[panel][k w_step + vector], for k < K; in pairs of k for bfloat16.
/// a_step is 1 where rows of `a` lie in one piece, as in products: a loop made for that. For sums
/// over rows it is given, and nothing is fetched ahead, as all lies in the cache.
template <class T, class W, int kVectors, int kPanels, int kRows, bool kProduct>
__attribute__((noinline)) void accumulate(const T* const* a, int64_t a_step, const W* w,
                                          int64_t w_panel, int64_t w_step, int64_t K,
                                          Ahead<W> ahead, const Ends<T>* ends) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>, kStep = kFactors<T, W>;
    P sum[kPanels][kRows][kVectors];
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v)
                sum[p][r][v] = load(ends[p * kRows + r].from + v * L);
    const T* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = a[r];
#pragma GCC unroll 2
    for (int64_t k = 0, offset = 0; k < K; ++k, offset += kProduct ? kStep : a_step, w += w_step) {
        if constexpr (kPanels > 1 || kRows == 1) {
            // One row, of a panel or several, is read faster without.
        } else if constexpr (is_alone(kVectors, kRows)) {
            for (int64_t v = 0; v < kVectors * L * kStep; v += kCacheLine / int64_t(sizeof(W)))
                prefetch_near(w + kStepsAhead * w_step + v);
        } else if constexpr (kProduct) {
            prefetch(ahead.data);
            ahead.data += ahead.step;
        }
        add_term<0>(row, offset, w, w_panel, sum);
        if constexpr (kStep > 1) {
            // Weights are read again: kept from the first half, they would displace the sums.
            __asm__ volatile("" : : : "memory");
            add_term<1>(row, offset + 1, w, w_panel, sum);
        }
    }
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v) store(ends[p * kRows + r].to + v * L, sum[p][r][v]);
}

/// accumulate() for the number of rows met at run time, 1 .. kRows.
template <class T, class W, int kVectors, int kPanels, int kRows, bool kProduct>
LSTMCORE_INLINE void accumulate_rows(int64_t rows, const T* const* a, int64_t a_step, const W* w,
                                     int64_t w_panel, int64_t w_step, int64_t K, Ahead<W> ahead,
                                     const Ends<T>* ends) {
    if constexpr (kRows > 1) {
        if (rows < kRows)
            return accumulate_rows<T, W, kVectors, kPanels, kRows - 1, kProduct>(
                rows, a, a_step, w, w_panel, w_step, K, ahead, ends);
    }
    accumulate<T, W, kVectors, kPanels, kRows, kProduct>(a, a_step, w, w_panel, w_step, K, ahead,
                                                         ends);
}

/// accumulate() for one panel of fewer registers than others, 1 .. kVectors.
template <class T, class W, int kVectors, int kRows>
void accumulate_narrow(int64_t vectors, int64_t rows, const T* const* a, int64_t a_step, const W* w,
                       int64_t w_step, int64_t K, Ahead<W> ahead, const Ends<T>* ends) {
    if constexpr (kVectors > 1) {
        if (vectors < kVectors)
            return accumulate_narrow<T, W, kVectors - 1, kRows>(vectors, rows, a, a_step, w, w_step,
                                                                K, ahead, ends);
    }
    accumulate_rows<T, W, kVectors, 1, kRows, true>(rows, a, a_step, w, 0, w_step, K, ahead, ends);
}

/// accumulate() for kPanels panels, or for one that may be narrower: of `columns` columns.
template <class T, class W, int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void add_panels(int64_t rows, const T* const* a, const W* w, int64_t w_panel,
                                int64_t columns, int64_t K, Ahead<W> ahead, const Ends<T>* ends) {
    constexpr int64_t width = kVectors * kLanes<T>;
    if constexpr (kVectors > 1 && kPanels == 1) {
        if (columns < width)
            return accumulate_narrow<T, W, kVectors - 1, kRows>(
                columns / kLanes<T>, rows, a, 1, w, columns * kTerms<T, W>, K, ahead, ends);
    }
    accumulate_rows<T, W, kVectors, kPanels, kRows, true>(rows, a, 1, w, w_panel,
                                                          width * kTerms<T, W>, K, ahead, ends);
}

/// What a tile adds to its chains before the product that it is for: x W_in, packed in panels like
/// those of the other, or nothing where `w` is empty.
///   x_of(row)                  the row's (w.K) numbers
///   between(vectors, column, row, tile) may change the sums before the product itself is added,
///                              unless it is Nothing. Without an input they are in the tile only if
///                              start() has put them there
template <class T, class X, class Between>
struct Input {
    Packed<T> w;
    X x_of;
    Between between;
};
template <class T, class X, class Between>
LSTMCORE_INLINE Input<T, X, Between> input(const Packed<T>& w, X x_of, Between between) {
    return {w, x_of, between};
}
template <class T>
LSTMCORE_INLINE auto no_input() {
    return input(Packed<T>{}, Nothing{}, Nothing{});
}

/// Where a tile lies in the matrix and in the rows.
struct TilePlace {
    int64_t column;  ///< of its first panel
    int64_t step;    ///< columns from panel to panel
    int64_t panels;
    int64_t row, rows;
};

/// Calls f(vectors, column, row, tile) for each panel and row of a tile, which has room for
/// kVectors registers for each.
template <class T, int kVectors, class F>
LSTMCORE_INLINE void for_each_row(const TilePlace& at, T* tile, const F& f) {
    for (int64_t p = 0; p < at.panels; ++p)
        for (int64_t r = 0; r < at.rows; ++r, tile += kVectors * kLanes<T>)
            f(Constant<kVectors>(), at.column + p * at.step, at.row + r, tile);
}

/// The same for several functions, one after the other. Not inlined: tiles of all heights share one
/// copy of the gate arithmetic, which is most of what there is to compile, and a call per tile
/// costs nothing. The functions hold values and not references, so that the compiler knows that no
/// stored result changes them.
template <class T, int kVectors, class... Finish>
LSTMCORE_ONE_COPY void finish_tile(const TilePlace& place, T* tile, Finish... finish) {
    const TilePlace at = place;
    (for_each_row<T, kVectors>(at, tile, finish), ...);
}

/// Walks panels [first, last) of w, each of kVectors registers and the last possibly narrower, in
/// tiles of `kPanels` panels and at most `kRows` rows.
///   a_of(row)                          the row's (K) numbers, rounded where the matrix is in
///                                      bfloat16, or the row as a QuantizedRow
///   start(vectors, column, row, tile)  gives the Ends of the chains; `tile` is room for `vectors`
///                                      registers
///   finish(vectors, column, row, tile) takes what is in the tile; of several, each goes over the
///                                      whole tile before the next, so that long chains of
///                                      different rows overlap
template <class T, int kVectors, int kPanels, int kRows, class A, class In, class Start,
          class... Finish>
LSTMCORE_INLINE void walk_tiles(const Packed<T>& w, int64_t first, int64_t last, bool last_first,
                                int64_t n, A a_of, In in, Start start, Finish... finish) {
    constexpr int64_t width = kVectors * kLanes<T>;
    alignas(64) T tile[kPanels * kRows * width];
    using Factor = decltype(a_of(int64_t()));
    constexpr bool kQuantized = std::is_same_v<Factor, QuantizedRow>;
    Factor a[kRows];
    Ends<T> ends[kPanels * kRows];
    if (n == 0) return;
    const int64_t tiles = (n + kRows - 1) / kRows;
    const int64_t height = n / tiles, higher = n % tiles;  // of a tile; so many have one row more
    const int64_t step = w.vectors * kLanes<T>;            // of a full panel
    const int64_t pace = step / tiles;                     // of prefetching the next panel, per k
    const int64_t share = w.K * step / tiles;  // of the next panel that one tile prefetches
    const int64_t share_in = in.w.K * step / tiles;
    const int64_t turns = (last - first) / kPanels;
    for (int64_t turn = 0; turn < turns; ++turn) {
        const int64_t panel = first + (last_first ? turns - 1 - turn : turn) * kPanels;
        const int64_t columns = w.N - panel * step;  // from here on
        for (int64_t i = 0, row = 0; i < tiles; ++i) {
            const int64_t rows = height + (i < higher);
            const TilePlace at{panel * step, step, kPanels, row, rows};
            const auto add_product = [&](const Packed<T>& m, int64_t part,
                                         auto row_of) LSTMCORE_INLINE_LAMBDA {
                for (int64_t r = 0; r < rows; ++r) a[r] = row_of(row + r);
                // The product with the matrix at `data`.
                const auto add = [&](const auto* data) LSTMCORE_INLINE_LAMBDA {
                    using W = std::remove_const_t<std::remove_pointer_t<decltype(data)>>;
                    constexpr int64_t terms = kTerms<T, W>;
                    const int64_t turns = terms == 1 ? m.K : m.padded_K() / terms;
                    const int64_t size = turns * terms * step;
                    const W* weights = data + panel * size;
                    const W* next = weights + (last_first ? -size : size) + i * part;
                    add_panels<T, W, kVectors, kPanels, kRows>(rows, a, weights, size, columns,
                                                               turns, {next, pace * terms}, ends);
                };
                if constexpr (kQuantized) {
                    add_quantized<kVectors, kPanels, kRows>(m, panel, columns, rows, a, ends);
                } else {
                    if constexpr (std::is_same_v<T, float>)
                        if (m.bfloat16 != nullptr) {
#if LSTMCORE_AVX512_UNITS
                            if (m.unit == Bfloat16Unit::dot)
                                return add(reinterpret_cast<const DotBfloat16*>(m.bfloat16));
#endif
                            return add(m.bfloat16);
                        }
                    add(m.data);
                }
            };
            Ends<T>* end = ends;
            for_each_row<T, kVectors>(at, tile, [&](auto... of_row) LSTMCORE_INLINE_LAMBDA {
                *end++ = start(of_row...);
            });
            if constexpr (!std::is_same_v<decltype(in.x_of), Nothing>)
                if (in.w) {
                    add_product(in.w, share_in, in.x_of);
                    for (Ends<T>* e = ends; e < end; ++e) e->from = e->to;
                }
            if constexpr (!std::is_same_v<decltype(in.between), Nothing>)
                for_each_row<T, kVectors>(at, tile, in.between);
            add_product(w, share, a_of);
            finish_tile<T, kVectors>(at, tile, finish...);
            row += rows;
        }
    }
}

#if LSTMCORE_AVX512_UNITS
/// The product of a part of the rows with panels of a matrix, from `panel` on, added to its chains.
template <class RowOf>
LSTMCORE_INLINE void add_by_amx(const Packed<float>& w, const TilePlace& at, int64_t panel,
                                RowOf row_of, const Ends<float>* ends, AmxSums& sums) {
    const int64_t columns = w.vectors * kTileRow, left = w.N - panel * columns;
    const int64_t width = left < columns ? left : columns, vectors = width / kTileRow;
    const auto first = row_of(at.row);
    const auto second = row_of(at.row + (at.rows > 1));
    if constexpr (std::is_same_v<decltype(row_of(0)), QuantizedRow>) {
        const int64_t K = w.padded_int8_K(), size = columns * K;
        sums.set<int8_t>({reinterpret_cast<const char*>(first.q), second.q - first.q, at.rows},
                         {w.quantized + panel * size, at.panels, size, vectors, K});
    } else {
        const int64_t K = w.padded_K(), size = columns * K * w.parts();
        const Bfloat16* const data = w.bfloat16 + panel * size;
        const AmxRows rows{reinterpret_cast<const char*>(first),
                           (second - first) * int64_t(sizeof(float)), at.rows};
        if (w.parts() > 1)
            sums.set<Bfloat16Part>(
                rows, {reinterpret_cast<const Bfloat16Part*>(data), at.panels, size, vectors, K});
        else
            sums.set<Bfloat16>(rows, {data, at.panels, size, vectors, K});
    }
    for (int64_t p = 0; p < at.panels; ++p)
        for (int64_t r = 0; r < at.rows; ++r, ++ends)
            for (int64_t v = 0; v < width; v += kTileRow) {
                if constexpr (std::is_same_v<decltype(row_of(0)), QuantizedRow>)
                    store_scaled(sums.at<Ints>(p, r, v), w.scales + (panel + p) * columns + v,
                                 set(row_of(at.row + r).scale), *ends, v);
                else
                    store(ends->to + v,
                          padd(load(ends->from + v), sums.at<Packet<float>>(p, r, v)));
            }
}

/// walk_tiles() by AMX: both matrices are packed for it. A part of the rows, as AmxCut has it,
/// takes several panels at once. How rows are cut changes no bit: the sum of an element is made in
/// one order, by a row of a tile of its own.
template <int kVectors, class A, class In, class Start, class... Finish>
__attribute__((noinline)) void walk_amx_tiles(const Packed<float>& w, int64_t first, int64_t last,
                                              bool last_first, int64_t n, A a_of, In in,
                                              Start start, Finish... finish) {
    if (n == 0) return;
    alignas(64) float tile[AmxCut::kSlots * kVectors * kTileRow];
    Ends<float> ends[AmxCut::kSlots];
    const AmxCut cut(n);
    AmxSums sums(cut);
    const int64_t step = w.vectors * kTileRow, full = w.N / step;
    // The narrower panel comes alone.
    const int64_t wide = last < full ? last - first : full < first ? 0 : full - first;
    const int64_t most = cut.most_panels(), groups = (wide + most - 1) / most;
    const int64_t turns = groups + (last - first > wide);
    for (int64_t turn = 0; turn < turns; ++turn) {
        const int64_t group = last_first ? turns - 1 - turn : turn;
        const int64_t done = group < groups ? group * most : wide;
        const int64_t panels = group == groups ? 1 : wide - done < most ? wide - done : most;
        for (int64_t i = 0, row = 0; i < cut.parts; ++i) {
            const TilePlace at{(first + done) * step, step, panels, row,
                               cut.height + (i < cut.higher)};
            Ends<float>* end = ends;
            for_each_row<float, kVectors>(at, tile, [&](auto... of_row) LSTMCORE_INLINE_LAMBDA {
                *end++ = start(of_row...);
            });
            if constexpr (!std::is_same_v<decltype(in.x_of), Nothing>)
                if (in.w) {
                    add_by_amx(in.w, at, first + done, in.x_of, ends, sums);
                    for (Ends<float>* e = ends; e < end; ++e) e->from = e->to;
                }
            if constexpr (!std::is_same_v<decltype(in.between), Nothing>)
                for_each_row<float, kVectors>(at, tile, in.between);
            add_by_amx(w, at, first + done, a_of, ends, sums);
            finish_tile<float, kVectors>(at, tile, finish...);
            row += at.rows;
        }
    }
}
#endif

/// Panels [first, last) of w, each of kVectors registers and the last possibly narrower. One row
/// takes several panels at once, where there can be several: kSeveral.
template <class T, int kVectors, bool kSeveral, class A, class In, class Start, class... Finish>
LSTMCORE_INLINE void multiply_panels(const Packed<T>& w, int64_t first, int64_t last,
                                     bool last_first, int64_t n, A a_of, In in, Start start,
                                     Finish... finish) {
    constexpr int kRows = tile_rows(kVectors);
    constexpr int kWide = tile_panels(kVectors, 1);
#if LSTMCORE_AVX512_UNITS
    if constexpr (std::is_same_v<T, float>)
        if (w.uses_amx())
            return walk_amx_tiles<kVectors>(w, first, last, last_first, n, a_of, in, start,
                                            finish...);
#endif
    if constexpr (kSeveral) {
        if (n == 1) {
            const int64_t full = w.N / (w.vectors * kLanes<T>), end = last < full ? last : full;
            walk_tiles<T, kVectors, kWide, 1>(w, first, end, last_first, n, a_of, in, start,
                                              finish...);
            first += (end - first) / kWide * kWide;
        }
    }
    walk_tiles<T, kVectors, 1, kRows>(w, first, last, last_first, n, a_of, in, start, finish...);
}

/// Panels of gates, see Packed. There is always a full panel; the narrower one is computed with the
/// last of them.
template <class T, int kGates>
struct GatePanels {
    int64_t full;     ///< panels
    int64_t vectors;  ///< registers in the narrower one, or 0
    int64_t pitch;    ///< from gate to gate there

    explicit GatePanels(const Packed<T>& w)
        : full(w.N / (kGates * kLanes<T>)),
          vectors(w.N / kLanes<T> % kGates),
          pitch(vectors * kLanes<T> / kGates) {}

    bool is_narrow(int64_t unit) const { return unit == full * kLanes<T>; }
    /// Where a part ends whose full panels end at `last`: one panel later if those are the last
    /// full ones and a narrower one follows.
    int64_t end(int64_t last) const { return last < full ? last : full + (vectors > 0); }

    /// Moves the gates of a narrower tile, which has room for kGates registers, to where a full
    /// tile has them. The lanes behind the last unit then hold meaningless numbers.
    LSTMCORE_INLINE void spread(T* tile) const {
        for (int g = kGates - 1; g > 0; --g) store(tile + g * kLanes<T>, load(tile + g * pitch));
    }
    /// Calls f(unit, row, sums) for the last gate of a tile before spread().
    template <class F>
    LSTMCORE_INLINE void change_last_gate(int64_t unit, int64_t row, T* tile, F f) const {
        T* gate = tile + (kGates - 1) * (is_narrow(unit) ? pitch : kLanes<T>);
        Packet<T> sums = load(gate);
        f(unit, row, sums);
        store(gate, sums);
    }
};

/// Whether rows are those of backward, whose left factor is `a`; in forward it is h_prev.
template <class Row, class = void>
constexpr bool kIsBackward = false;
template <class Row>
constexpr bool kIsBackward<Row, std::void_t<decltype(Row::a)>> = true;

/// A pointer to what a row of this type reads.
template <class Row>
struct RowPointer;
template <template <class> class Row, class T>
struct RowPointer<Row<T>> {
    using type = const T*;
};

/// What the matrices of a step are multiplied with: the rows as they are, or rounded to bfloat16
/// ...
template <class Row>
struct FloatFactors {
    const Row* rows;
    Bfloat16Rows* a_rounded = nullptr;  ///< where they are rounded, else null
    Bfloat16Rows* x_rounded = nullptr;

    using Pointer = typename RowPointer<Row>::type;
    static constexpr bool kFloat = std::is_same_v<Pointer, const float*>;

    LSTMCORE_INLINE Pointer a(int64_t row) const {
        if constexpr (kFloat)
            if (a_rounded != nullptr) return a_rounded->at(row);
        if constexpr (kIsBackward<Row>)
            return rows[row].a;
        else
            return rows[row].h_prev;
    }
    LSTMCORE_INLINE Pointer x(int64_t row) const {
        if constexpr (kFloat)
            if (x_rounded != nullptr) return x_rounded->at(row);
        return rows[row].x;
    }
    /// What gives the rows at row_of(row) for one more product of the step, with w: rounded if
    /// those of a() were, which from here on are gone.
    template <class T, class RowOf>
    LSTMCORE_INLINE auto again(const Packed<T>& w, int64_t n, RowOf row_of) const {
        if constexpr (kFloat) {
            if (a_rounded != nullptr) a_rounded->set(w, n, row_of);
            return [rounded = a_rounded, row_of](int64_t row) LSTMCORE_INLINE_LAMBDA -> Pointer {
                return rounded != nullptr ? rounded->at(row) : row_of(row);
            };
        } else {
            return row_of;
        }
    }
};
/// ... or quantised.
struct QuantizedFactors {
    const QuantizedRow *a_rows, *x_rows;

    LSTMCORE_INLINE QuantizedRow a(int64_t row) const { return a_rows[row]; }
    LSTMCORE_INLINE QuantizedRow x(int64_t row) const { return x_rows[row]; }
};

/// Calls run(rows, factors, n) for some rows after the other, as many as QuantizedRows has room
/// for.
/// Not inlined: with so much on its stack, a step in float32 would take longer, too.
template <class Row, class Run>
__attribute__((noinline)) void in_quantized_rows(const StepArgs<float>& step, const Row* rows,
                                                 int64_t n, Run run) {
    QuantizedRows h, x;
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(step.w.uses_amx());
#endif
    const int64_t most = std::min({QuantizedRows::most(step.w), QuantizedRows::most(step.w_n),
                                   QuantizedRows::most(step.w_in)});
    for (int64_t count; n > 0; rows += count, n -= count) {
        count = std::min(n, most);
        const FloatFactors<Row> of{rows};
        h.set(step.w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return of.a(row); });
        if (step.w_in)
            x.set(step.w_in, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return of.x(row); });
        run(rows, QuantizedFactors{h.rows(), x.rows()}, count);
    }
}

/// The same for matrices in bfloat16.
template <class Row, class Run>
__attribute__((noinline)) void in_bfloat16_rows(const StepArgs<float>& step, const Row* rows,
                                                int64_t n, Run run) {
    Bfloat16Rows a(step.w), x(step.w_in);
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(step.w.uses_amx() || step.w_in.uses_amx());
#endif
    const auto fits = [&](const Bfloat16Rows& rounded, const Packed<float>& w) {
        return w.is_bfloat16() ? rounded.most(w) : n;
    };
    const int64_t most = std::min({fits(a, step.w), fits(a, step.w_n), fits(x, step.w_in)});
    for (int64_t count; n > 0; rows += count, n -= count) {
        count = std::min(n, most);
        const FloatFactors<Row> of{rows};
        FloatFactors<Row> factors = of;
        if (step.w.is_bfloat16()) {
            a.set(step.w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return of.a(row); });
            factors.a_rounded = &a;
        }
        if constexpr (!kIsBackward<Row>)
            if (step.w_in.is_bfloat16()) {
                x.set(step.w_in, count,
                      [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return of.x(row); });
                factors.x_rounded = &x;
            }
        run(rows, factors, count);
    }
}

/// Calls run(rows, factors, n) for a step, in parts where its matrices are in bfloat16 or in int8,
/// which they may be only in float32, and in int8 only if kInference.
template <bool kInference, class T, class Row, class Run>
LSTMCORE_INLINE void with_factors(const StepArgs<T>& step, const Row* rows, int64_t n, Run run) {
    if constexpr (std::is_same_v<T, float>) {
        if (step.w.is_bfloat16() || step.w_in.is_bfloat16())
            return in_bfloat16_rows(step, rows, n, run);
        if constexpr (kInference)
            if (step.w.quantized != nullptr) return in_quantized_rows(step, rows, n, run);
    }
    run(rows, FloatFactors<Row>{rows}, n);
}

/// The matrix of a step in GatePanels.
///   start(unit, row)          where the chains of a panel's gates begin
///   between(unit, row, sums)  changes what those of the last gate have come to before the product
///                             with the state, unless it is Nothing
///   finish(unit, row, tile)   takes one register of each gate
template <class T, int kGates, class Factors, class Start, class Between, class... Finish>
LSTMCORE_INLINE void multiply_gates(const StepArgs<T>& step, Factors factors, int64_t n,
                                    Start start, Between between, Finish... finish) {
    constexpr bool kBetween = !std::is_same_v<Between, Nothing>;
    constexpr int L = kLanes<T>;
    const GatePanels<T, kGates> panels(step.w);
    const auto of_unit = [](auto f) LSTMCORE_INLINE_LAMBDA {
        return [f](int64_t, int64_t column, int64_t row, T* tile)
                   LSTMCORE_INLINE_LAMBDA { return f(column / kGates, row, tile); };
    };
    const auto start_tile = [&](int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
        const T* from = start(unit, row);
        if (!kBetween || step.w_in) return Ends<T>{from, tile};
        const int64_t vectors = panels.is_narrow(unit) ? panels.vectors : kGates;
        for (int64_t v = 0; v < vectors; ++v) store(tile + v * L, load(from + v * L));
        return Ends<T>{tile, tile};
    };
    const auto change = [&] {
        if constexpr (kBetween)
            return of_unit([&](int64_t unit, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
                panels.change_last_gate(unit, row, tile, between);
            });
        else
            return Nothing{};
    }();
    const auto spread = [=](int64_t unit, int64_t, T* tile) LSTMCORE_INLINE_LAMBDA {
        if (panels.is_narrow(unit)) panels.spread(tile);
    };
    const auto a_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.a(row); };
    const auto x_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return factors.x(row); };
    multiply_panels<T, kGates, true>(step.w, step.first_panel, panels.end(step.last_panel),
                                     step.last_first, n, a_of, input<T>(step.w_in, x_of, change),
                                     of_unit(start_tile), of_unit(spread), of_unit(finish)...);
}

/// A plain matrix, in panels of four registers, or of three where kThree allows it, and a narrower
/// last one.
template <class T, bool kThree, class A, class In, class Start, class Finish>
LSTMCORE_INLINE void multiply_columns(const Packed<T>& w, int64_t n, A a_of, In in, Start start,
                                      Finish finish) {
    const auto multiply = [&](auto vectors, auto several, int64_t first,
                              int64_t last) LSTMCORE_INLINE_LAMBDA {
        multiply_panels<T, decltype(vectors)::value, decltype(several)::value>(
            w, first, last, false, n, a_of, in, start, finish);
    };
    const int64_t registers = w.N / kLanes<T>, panels = registers / w.vectors;
    const int64_t rest = registers - panels * w.vectors;
    const bool three = kThree && w.vectors == 3;
    if (!three) multiply(Constant<4>(), Constant<1>(), 0, panels);
    if (three || rest == 3)
        multiply(Constant<3>(), Constant<kThree>(), three ? 0 : panels, panels + (rest == 3));
    if (rest == 2) multiply(Constant<2>(), Constant<0>(), panels, panels + 1);
    if (rest == 1) multiply(Constant<1>(), Constant<0>(), panels, panels + 1);
}

/// A result for a start: chains that begin with the numbers at `from`, of which only `valid` exist,
/// and end in the tile.
template <class T, class Vectors>
LSTMCORE_INLINE Ends<T> chains_from(Vectors vectors, const T* from, int64_t valid, T* tile) {
    constexpr int64_t L = kLanes<T>;
    if (valid >= vectors * L) return {from, tile};
    for (int64_t v = 0; v < vectors * L; v += L) store(tile + v, load(from + v, valid - v));
    return {tile, tile};
}
/// Asks for what a finish will read: as many registers at each pointer as a panel has.
template <class T, class Vectors, class... From>
LSTMCORE_INLINE void prefetch_panel(Vectors vectors, From... from) {
    for (int64_t v = 0; v < vectors; ++v) (prefetch(from + v * kLanes<T>), ...);
}
/// A finish that calls f(column, row, sum) for every register.
template <class T, class F>
LSTMCORE_INLINE auto each_register(F f) {
    return [=](auto vectors, int64_t column, int64_t row, const T* tile) LSTMCORE_INLINE_LAMBDA {
        constexpr int64_t L = kLanes<T>;
        for (int64_t v = 0; v < vectors * L; v += L) f(column + v, row, load(tile + v));
    };
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
