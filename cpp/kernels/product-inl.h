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

/// Where a tile lies in the matrix and in the rows. Its panels are `vectors` registers wide, a
/// number or a Constant.
template <class Vectors>
struct TilePlace {
    Vectors vectors;
    int64_t column;  ///< of its first panel
    int64_t panels;
    int64_t row, rows;
};

/// Calls f(vectors, column, row, tile) for each panel and row of a tile, which has room for
/// `vectors` registers for each.
template <class T, class Vectors, class F>
LSTMCORE_INLINE void for_each_row(const TilePlace<Vectors>& at, T* tile, const F& f) {
    const int64_t width = at.vectors * kLanes<T>;
    for (int64_t p = 0; p < at.panels; ++p)
        for (int64_t r = 0; r < at.rows; ++r, tile += width)
            f(at.vectors, at.column + p * width, at.row + r, tile);
}

/// The same for several functions, one after the other. Not inlined: gate arithmetic is most of
/// what there is to compile, and a call per tile costs nothing. The functions hold values and not
/// references, so that the compiler knows that no stored result changes them.
template <class T, class Vectors, class... Finish>
LSTMCORE_ONE_COPY void finish_tile(const TilePlace<Vectors>& place, T* tile, Finish... finish) {
    const TilePlace<Vectors> at = place;
    (for_each_row<T>(at, tile, finish), ...);
}

/// How n rows are cut into tiles of about equal height.
struct Heights {
    int64_t tiles = 1, height;
    int64_t higher = 0;  ///< so many tiles have one row more

    LSTMCORE_INLINE Heights(int64_t n, int64_t most) : height(n) {
        if (n <= most) return;  // saves the divisions
        tiles = (n + most - 1) / most;
        height = n / tiles;
        higher = n % tiles;
    }
    /// What is done for all tiles of a panel together, divided among them.
    LSTMCORE_INLINE int64_t share(int64_t of) const { return tiles == 1 ? of : of / tiles; }
};

/// A matrix that is multiplied tile by tile.
template <class T>
class TileWalk {
public:
    TileWalk() = default;
    LSTMCORE_INLINE TileWalk(const Packed<T>& w, const Heights& heights, bool last_first)
        : matrix_(in_tiles(w)), step_(w.vectors * kLanes<T>) {
        next_ = last_first ? -matrix_.panel_bytes : matrix_.panel_bytes;
        share_ = heights.share(matrix_.panel_bytes);
        weights_.panel_bytes = matrix_.panel_bytes;
        weights_.turns = matrix_.turns;
        weights_.ahead_bytes = heights.share(matrix_.turn_bytes);
        weights_.scales = matrix_.scales;
        weights_.shifts = matrix_.shifts;
        weights_.panel_columns = step_;
        if constexpr (std::is_same_v<T, float>)
            if (w.room.panel && heights.tiles >= kTilesKept) kept_ = keeping(w);
    }
    /// Adds the product for tile number i of the `panels` panels from `panel` on, which are
    /// `vectors` registers wide, or fewer: wide tells of several. The tiles of a panel come one
    /// after the other.
    LSTMCORE_INLINE void add(bool wide, int64_t vectors, int64_t panel, int64_t panels, int64_t i,
                             int64_t rows, const void* const* a, const Ends<T>* ends) {
        const char* const data = matrix_.data + panel * matrix_.panel_bytes;
        const TileLoops<T>* loops = matrix_.loops;
        weights_.data = data;
        weights_.ahead = data + next_ + i * share_;
        weights_.panels = panels;
        weights_.rows = rows;
        weights_.column = panel * step_;
        if (kept_.first) {
            const bool first = i == 0;
            loops = first ? kept_.first : kept_.others;
            weights_.data = first ? data : reinterpret_cast<const char*>(kept_.panel);
            weights_.kept = kept_.panel;
            weights_.turns = first ? matrix_.turns : kept_.turns;
        }
        (wide ? loops->wide[vectors] : loops->tall[vectors][rows])(a, weights_, ends);
    }

private:
    /// With so many tiles of a panel, the first one keeps its weights as floats for the others.
    static constexpr int64_t kTilesKept = 3;

    TileMatrix<T> matrix_;
    KeepingLoops<T> kept_;
    int64_t step_, next_, share_;
    TileWeights weights_;
};

#if LSTMCORE_AVX512_UNITS
/// walk_tiles() by AMX: both matrices are packed for it. A part of the rows, as AmxCut has it,
/// takes several panels at once. How rows are cut changes no bit: the sum of an element is made in
/// one order, by a row of a tile of its own.
template <class Vectors, class A, class In, class Start, class... Finish>
__attribute__((noinline)) void walk_amx_tiles(const Packed<float>& w, Vectors vectors,
                                              int64_t first, int64_t last, bool last_first,
                                              int64_t n, A a_of, In in, Start start,
                                              Finish... finish) {
    alignas(64) float tile[AmxCut::kSlots * kMostVectors * kTileRow];
    Ends<float> ends[AmxCut::kSlots];
    const AmxCut cut(n);
    const int64_t step = w.vectors * kTileRow, full = w.N / step;
    // The narrower panel comes alone.
    const int64_t wide = last < full ? last - first : full < first ? 0 : full - first;
    const int64_t most = cut.most_panels(), groups = (wide + most - 1) / most;
    const int64_t turns = groups + (last - first > wide);
    for (int64_t turn = 0; turn < turns; ++turn) {
        const int64_t group = last_first ? turns - 1 - turn : turn;
        const int64_t done = group < groups ? group * most : wide, panel = first + done;
        const int64_t panels = group == groups ? 1 : std::min(most, wide - done);
        for (int64_t i = 0, row = 0; i < cut.parts; ++i) {
            const TilePlace<Vectors> at{vectors, panel * step, panels, row,
                                        cut.height + (i < cut.higher)};
            const auto add_product = [&](const Packed<float>& m, auto row_of) {
                add_by_amx(m, cut, panel, panels, at.rows, row_of(row), row_of(row + (at.rows > 1)),
                           ends);
            };
            Ends<float>* end = ends;
            for_each_row<float>(at, tile, [&](auto... of_row) LSTMCORE_INLINE_LAMBDA {
                *end++ = start(of_row...);
            });
            if constexpr (!std::is_same_v<decltype(in.x_of), Nothing>)
                if (in.w) {
                    add_product(in.w, in.x_of);
                    for (Ends<float>* e = ends; e < end; ++e) e->from = e->to;
                }
            if constexpr (!std::is_same_v<decltype(in.between), Nothing>)
                for_each_row<float>(at, tile, in.between);
            add_product(w, a_of);
            finish_tile<float>(at, tile, finish...);
            row += at.rows;
        }
    }
}
#endif

/// Walks panels [first, last) of w, each `vectors` registers wide and the last possibly narrower,
/// in tiles of several rows of a panel, or of one row of several panels.
///   a_of(row)                          what the row is multiplied as, see TileLoop
///   start(vectors, column, row, tile)  gives the Ends of the chains; `tile` is room for `vectors`
///                                      registers
///   finish(vectors, column, row, tile) takes what is in the tile; of several, each goes over the
///                                      whole tile before the next, so that long chains of
///                                      different rows overlap
template <class T, class Vectors, class A, class In, class Start, class... Finish>
LSTMCORE_INLINE void walk_tiles(const Packed<T>& w, Vectors vectors, int64_t first, int64_t last,
                                bool last_first, int64_t n, const A& a_of, const In& in,
                                const Start& start, Finish... finish) {
    constexpr int64_t L = kLanes<T>;
    constexpr bool kInput = !std::is_same_v<decltype(in.x_of), Nothing>;
    if (n == 0) return;
#if LSTMCORE_AVX512_UNITS
    if constexpr (std::is_same_v<T, float>)
        if (w.uses_amx())
            return walk_amx_tiles(w, vectors, first, last, last_first, n, a_of, in, start,
                                  finish...);
#endif
    alignas(64) T tile[kAccumulators * L];
    const void* a[kMostRows];
    Ends<T> ends[kMostRows];
    const Heights heights(n, kRowsOf[vectors]);
    TileWalk<T> product(w, heights, last_first);
    auto input = [&]() LSTMCORE_INLINE_LAMBDA {
        if constexpr (kInput)
            return in.w ? TileWalk<T>(in.w, heights, last_first) : TileWalk<T>();
        else
            return Nothing{};
    }();
    const int64_t step = w.vectors * L;  // from panel to panel
    const int64_t all = w.N / L;         // registers
    // One row takes several panels at once while there are so many full ones.
    const int64_t wide = kPanelsOf[vectors];
    const int64_t wides = n == 1 ? (std::min(last, w.N / step) - first) / wide : 0;
    const int64_t narrow_first = first + wides * wide;
    const int64_t turns = wides + last - narrow_first;
    for (int64_t turn = 0; turn < turns; ++turn) {
        const bool is_wide = turn < wides;
        const int64_t before = is_wide ? turn : turn - wides;
        const int64_t panels = is_wide ? wide : 1;
        const int64_t panel = is_wide ? first + (last_first ? wides - 1 - before : before) * wide
                                      : (last_first ? last - 1 - before : narrow_first + before);
        const int64_t registers = std::min<int64_t>(vectors, all - panel * w.vectors);
        for (int64_t i = 0, row = 0; i < heights.tiles; ++i) {
            const int64_t rows = heights.height + (i < heights.higher);
            const TilePlace<Vectors> at{vectors, panel * step, panels, row, rows};
            const auto add_product = [&](TileWalk<T>& m, auto row_of) LSTMCORE_INLINE_LAMBDA {
                for (int64_t r = 0; r < rows; ++r) a[r] = row_of(row + r);
                m.add(is_wide, registers, panel, panels, i, rows, a, ends);
            };
            Ends<T>* end = ends;
            for_each_row<T>(at, tile, [&](auto... of_row) LSTMCORE_INLINE_LAMBDA {
                *end++ = start(of_row...);
            });
            if constexpr (kInput)
                if (in.w) {
                    add_product(input, in.x_of);
                    for (Ends<T>* e = ends; e < end; ++e) e->from = e->to;
                }
            if constexpr (!std::is_same_v<decltype(in.between), Nothing>)
                for_each_row<T>(at, tile, in.between);
            add_product(product, a_of);
            finish_tile<T>(at, tile, finish...);
            row += rows;
        }
    }
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

/// Whether what rows of this type read may be in bfloat16 or in int8: it is float.
template <class Row>
constexpr bool kMayBeMade = false;
template <template <class> class Row>
constexpr bool kMayBeMade<Row<float>> = true;

/// Whether rows are those of backward, whose left factor is `a`; in forward it is h_prev.
template <class Row, class = void>
constexpr bool kIsBackward = false;
template <class Row>
constexpr bool kIsBackward<Row, std::void_t<decltype(Row::a)>> = true;

/// What the matrices of a step are multiplied with: the rows as they are, or made of them for a
/// matrix in bfloat16 or in int8.
template <class Row>
struct Factors {
    const Row* rows;
    MadeRows made_a{}, made_x{};
    // What has made made_a, and holds them; at most one of these.
    Bfloat16Rows* in_bfloat16 = nullptr;
    QuantizedRows* in_int8 = nullptr;

    LSTMCORE_INLINE const void* a(int64_t row) const {
        if (kMayBeMade<Row> && made_a) return made_a.at(row);
        return given_a(row);
    }
    LSTMCORE_INLINE const void* x(int64_t row) const {
        if (kMayBeMade<Row> && made_x) return made_x.at(row);
        return rows[row].x;
    }
    LSTMCORE_INLINE auto given_a(int64_t row) const {
        if constexpr (kIsBackward<Row>)
            return rows[row].a;
        else
            return rows[row].h_prev;
    }
    /// What gives the rows at row_of(row) for one more product of the step, with w: made, if those
    /// of a() were, which from here on are gone.
    template <class T, class RowOf>
    LSTMCORE_INLINE auto again(const Packed<T>& w, int64_t n, RowOf row_of) const {
        MadeRows made{};
        if constexpr (kMayBeMade<Row>) {
            if (in_bfloat16 != nullptr) made = in_bfloat16->set(w, n, row_of);
            if (in_int8 != nullptr) made = in_int8->set(w, n, row_of);
        }
        return [made, row_of](int64_t row) LSTMCORE_INLINE_LAMBDA -> const void* {
            if (kMayBeMade<Row> && made) return made.at(row);
            return row_of(row);
        };
    }
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
        Factors<Row> factors{rows};
        factors.in_int8 = &h;
        factors.made_a = h.set(step.w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA {
            return factors.given_a(row);
        });
        if (step.w_in)
            factors.made_x = x.set(step.w_in, count,
                                   [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].x; });
        run(rows, factors, count);
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
        Factors<Row> factors{rows};
        if (step.w.is_bfloat16()) {
            factors.in_bfloat16 = &a;
            factors.made_a = a.set(step.w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA {
                return factors.given_a(row);
            });
        }
        if constexpr (!kIsBackward<Row>)
            if (step.w_in.is_bfloat16())
                factors.made_x = x.set(step.w_in, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA {
                    return rows[row].x;
                });
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
    run(rows, Factors<Row>{rows}, n);
}

/// The matrix of a step in GatePanels.
///   start(unit, row)          where the chains of a panel's gates begin
///   between(unit, row, sums)  changes what those of the last gate have come to before the product
///                             with the state, unless it is Nothing
///   finish(unit, row, tile)   takes one register of each gate
template <class T, int kGates, class Row, class Start, class Between, class... Finish>
LSTMCORE_INLINE void multiply_gates(const StepArgs<T>& step, const Factors<Row>& factors, int64_t n,
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
    walk_tiles(step.w, Constant<kGates>(), step.first_panel, panels.end(step.last_panel),
               step.last_first, n, a_of, input<T>(step.w_in, x_of, change), of_unit(start_tile),
               of_unit(spread), of_unit(finish)...);
}

/// A plain matrix: its panels, and then the narrower last one.
template <class T, class A, class In, class Start, class Finish>
LSTMCORE_INLINE void multiply_columns(const Packed<T>& w, int64_t n, const A& a_of, const In& in,
                                      const Start& start, Finish finish) {
    const int64_t registers = w.N / kLanes<T>, panels = registers / w.vectors;
    const int64_t rest = registers - panels * w.vectors;
    for (int64_t first = 0, last; first < panels + (rest > 0); first = last) {
        const bool narrow = first == panels;
        last = narrow ? panels + 1 : panels;
        walk_tiles(w, narrow ? rest : w.vectors, first, last, false, n, a_of, in, start, finish);
    }
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
