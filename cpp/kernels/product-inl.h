// Products of rows with a packed matrix, tile by tile, with what comes before and after the
// multiplication fused around it.
//
// Every element is one chain, start + a[0] w[0] + a[1] w[1] + ..., its lanes being columns. The
// shape of the tile changes the speed and never the bits.
#pragma once

#include "kernel_table.h"
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

/// What a tile asks the L2 cache to fetch while it is computed: for every k the cache line at data
/// + k step. Weights are used as soon as they arrive, so without it a matrix larger than the cache
/// is multiplied at the speed of the memory behind it.
template <class T>
struct Ahead {
    const T* data;
    int64_t step;
};

/// sum[panel][row][vector] += a[row][offset] w[panel][vector]
template <class T, int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void add_term(const T* const (&a)[kRows], int64_t offset, const T* w,
                              int64_t w_panel, Packet<T> (&sum)[kPanels][kRows][kVectors]) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>;
    // Beside the sums the registers hold all factors or all weights, whichever are fewer.
    if constexpr (kRows <= kPanels * kVectors) {
        P factor[kRows];
        for (int r = 0; r < kRows; ++r) factor[r] = set(a[r][offset]);
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) {
                const P weight = load(w + p * w_panel + v * L);
                for (int r = 0; r < kRows; ++r)
                    sum[p][r][v] = pmadd(factor[r], weight, sum[p][r][v]);
            }
    } else {
        P weight[kPanels][kVectors];
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v) weight[p][v] = load(w + p * w_panel + v * L);
        for (int r = 0; r < kRows; ++r) {
            const P factor = set(a[r][offset]);
            for (int p = 0; p < kPanels; ++p)
                for (int v = 0; v < kVectors; ++v)
                    sum[p][r][v] = pmadd(factor, weight[p][v], sum[p][r][v]);
        }
    }
}

/// tile[panel][row][vector] += sum_k a[row][k a_step] w[panel][k w_step + vector], for k < K.
template <class T, int kVectors, int kPanels, int kRows>
void accumulate(const T* const* a, int64_t a_step, const T* w, int64_t w_panel, int64_t w_step,
                int64_t K, Ahead<T> ahead, T* tile) {
    using P = Packet<T>;
    constexpr int L = kLanes<T>;
    P sum[kPanels][kRows][kVectors];
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v)
                sum[p][r][v] = load(tile + ((p * kRows + r) * kVectors + v) * L);
    const T* row[kRows];
    for (int r = 0; r < kRows; ++r) row[r] = a[r];
#pragma GCC unroll 2
    for (int64_t k = 0, offset = 0; k < K; ++k, offset += a_step, w += w_step) {
        if constexpr (kPanels == 1 && kRows > 1) {
            prefetch(ahead.data);
            ahead.data += ahead.step;
        }
        add_term<T, kVectors, kPanels, kRows>(row, offset, w, w_panel, sum);
    }
    for (int p = 0; p < kPanels; ++p)
        for (int r = 0; r < kRows; ++r)
            for (int v = 0; v < kVectors; ++v)
                store(tile + ((p * kRows + r) * kVectors + v) * L, sum[p][r][v]);
}

/// accumulate() for the number of rows met at run time, 1 .. kRows.
template <class T, int kVectors, int kPanels, int kRows>
LSTMCORE_INLINE void accumulate_rows(int64_t rows, const T* const* a, int64_t a_step, const T* w,
                                     int64_t w_panel, int64_t w_step, int64_t K, Ahead<T> ahead,
                                     T* tile) {
    if constexpr (kRows > 1) {
        if (rows < kRows)
            return accumulate_rows<T, kVectors, kPanels, kRows - 1>(rows, a, a_step, w, w_panel,
                                                                    w_step, K, ahead, tile);
    }
    accumulate<T, kVectors, kPanels, kRows>(a, a_step, w, w_panel, w_step, K, ahead, tile);
}

/// Walks panels [first, last) of w in tiles of `kPanels` panels and at most `kRows` rows.
///   a_of(row)                 the row's (K) numbers
///   start(column, row, tile)  writes the kVectors registers that the chains begin with
///   finish(column, row, tile) takes the finished ones; of several, each goes over the whole tile
///                             before the next, so that long chains of different rows overlap
template <class T, int kVectors, int kPanels, int kRows, class A, class Start, class... Finish>
LSTMCORE_INLINE void walk_tiles(const Packed<T>& w, int64_t first, int64_t last, bool backwards,
                                int64_t n, A a_of, Start start, Finish... finish) {
    constexpr int64_t width = kVectors * kLanes<T>;
    alignas(64) T tile[kPanels * kRows * width];
    const T* a[kRows];
    if (n == 0) return;
    const int64_t tiles = (n + kRows - 1) / kRows;
    const int64_t height = n / tiles, higher = n % tiles;  // of a tile; so many have one row more
    const int64_t step = w.vectors * kLanes<T>;            // of a full panel
    const int64_t share = w.K * step / tiles;              // of the next panel, that a tile fetches
    const int64_t pace = step / tiles;
    const int64_t turns = (last - first) / kPanels;
    for (int64_t turn = 0; turn < turns; ++turn) {
        const int64_t panel = first + (backwards ? turns - 1 - turn : turn) * kPanels;
        const T* weights = w.data + panel * w.K * step;
        const T* next = weights + (backwards ? -w.K * step : w.K * step);
        for (int64_t i = 0, row = 0; i < tiles; ++i) {
            const int64_t rows = height + (i < higher);
            for (int64_t r = 0; r < rows; ++r) a[r] = a_of(row + r);
            const auto each = [&](auto f) LSTMCORE_INLINE_LAMBDA {
                for (int64_t p = 0; p < kPanels; ++p)
                    for (int64_t r = 0; r < rows; ++r)
                        f((panel + p) * step, row + r, tile + (p * rows + r) * width);
            };
            each(start);
            accumulate_rows<T, kVectors, kPanels, kRows>(rows, a, 1, weights, w.K * step, width,
                                                         w.K, {next, pace}, tile);
            (each(finish), ...);
            row += rows;
            next += share;
        }
    }
}

/// Panels [first, last) of w, each kVectors registers wide. One row takes several panels at once.
template <class T, int kVectors, class A, class Start, class... Finish>
LSTMCORE_INLINE void multiply_panels(const Packed<T>& w, int64_t first, int64_t last,
                                     bool backwards, int64_t n, A a_of, Start start,
                                     Finish... finish) {
    constexpr int kRows = tile_rows(kVectors);
    constexpr int kWide = tile_panels(kVectors, 1);
    if (n == 1) {
        walk_tiles<T, kVectors, kWide, 1>(w, first, last, backwards, n, a_of, start, finish...);
        first += (last - first) / kWide * kWide;
    }
    walk_tiles<T, kVectors, 1, kRows>(w, first, last, backwards, n, a_of, start, finish...);
}

/// The matrix of a step whose panels hold one register of each of kGates gates: start and finish
/// get the first unit of the panel in place of its first column.
template <class T, int kGates, class A, class Start, class... Finish>
LSTMCORE_INLINE void multiply_gates(const StepArgs<T>& step, int64_t n, A a_of, Start start,
                                    Finish... finish) {
    const int64_t panels = step.w.N / (kGates * kLanes<T>);
    const auto of_unit = [](auto f) LSTMCORE_INLINE_LAMBDA {
        return [f](int64_t column, int64_t row, T* tile)
                   LSTMCORE_INLINE_LAMBDA { f(column / kGates, row, tile); };
    };
    multiply_panels<T, kGates>(step.w, step.first_panel,
                               step.last_panel < panels ? step.last_panel : panels, step.backwards,
                               n, a_of, of_unit(start), of_unit(finish)...);
}

template <int kValue>
struct Constant {
    static constexpr int value = kValue;
};

/// A plain matrix, in panels of w.vectors registers and a narrower last one. start(column, row)
/// gives and finish(column, row, sum) takes one register at a time.
template <class T, class A, class Start, class Finish>
LSTMCORE_INLINE void multiply_columns(const Packed<T>& w, int64_t n, A a_of, Start start,
                                      Finish finish) {
    constexpr int L = kLanes<T>;
    const auto multiply = [&](auto vectors, int64_t first, int64_t last) LSTMCORE_INLINE_LAMBDA {
        constexpr int kVectors = decltype(vectors)::value;
        multiply_panels<T, kVectors>(
            w, first, last, false, n, a_of,
            [&](int64_t column, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
                for (int v = 0; v < kVectors; ++v) store(tile + v * L, start(column + v * L, row));
            },
            [&](int64_t column, int64_t row, const T* tile) LSTMCORE_INLINE_LAMBDA {
                for (int v = 0; v < kVectors; ++v) finish(column + v * L, row, load(tile + v * L));
            });
    };
    const int64_t registers = w.N / L, panels = registers / w.vectors;
    if (w.vectors == 3) return multiply(Constant<3>(), 0, panels);
    multiply(Constant<4>(), 0, panels);
    switch (registers - panels * w.vectors) {
        case 1:
            return multiply(Constant<1>(), panels, panels + 1);
        case 2:
            return multiply(Constant<2>(), panels, panels + 1);
        case 3:
            return multiply(Constant<3>(), panels, panels + 1);
    }
}

template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n) {
    multiply_columns<T>(
        w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; },
        [&](int64_t column, int64_t row)
            LSTMCORE_INLINE_LAMBDA { return load(rows[row].init + column, columns - column); },
        [&](int64_t column, int64_t row, const Packet<T>& sum)
            LSTMCORE_INLINE_LAMBDA { store(rows[row].out + column, sum, columns - column); });
}

/// Rows [first, last) of the gradient of a weight matrix: tiles of c, each an accumulate() over the
/// M rows.
template <class T, int kVectors>
LSTMCORE_INLINE void outer_columns(const OuterArgs<T>& args, int64_t first, int64_t last,
                                   int64_t column) {
    constexpr int L = kLanes<T>;
    constexpr int kRows = tile_rows(kVectors);
    alignas(64) T tile[kRows * kVectors * L];
    const T* a[kRows];
    const T* b = args.b.at(0, column);
    for (int64_t j = first; j < last; j += kRows) {
        const int64_t rows = last - j < kRows ? last - j : kRows;
        for (int64_t r = 0; r < rows; ++r) {
            a[r] = args.a.at(0, args.first + j + r);
            const T* c = args.c + (j + r) * args.N;
            for (int64_t v = 0; v < kVectors; ++v) {
                const int64_t n = column + v * L;
                store(tile + (r * kVectors + v) * L, load(c + n, args.N - n));
            }
        }
        accumulate_rows<T, kVectors, 1, kRows>(rows, a, args.a.width, b, 0, args.b.width, args.M,
                                               {b, 0}, tile);
        for (int64_t r = 0; r < rows; ++r) {
            T* c = args.c + (j + r) * args.N;
            for (int64_t v = 0; v < kVectors; ++v) {
                const int64_t n = column + v * L;
                store(c + n, load(tile + (r * kVectors + v) * L), args.N - n);
            }
        }
    }
}

template <class T>
void outer(const OuterArgs<T>& args) {
    constexpr int L = kLanes<T>;
    static_assert(Panels<T>::kWidth % (4 * L) == 0, "a tile lies in one panel");
    // So many rows, whole tiles of them, that their part of a stays in the cache while all columns
    // pass.
    constexpr int64_t kBlock = 192;
    for (int64_t first = 0; first < args.J; first += kBlock) {
        const int64_t last = first + kBlock < args.J ? first + kBlock : args.J;
        int64_t column = 0;
        for (; column + 3 * L < args.N; column += 4 * L)
            outer_columns<T, 4>(args, first, last, column);
        switch ((args.N - column + L - 1) / L) {
            case 1:
                outer_columns<T, 1>(args, first, last, column);
                break;
            case 2:
                outer_columns<T, 2>(args, first, last, column);
                break;
            case 3:
                outer_columns<T, 3>(args, first, last, column);
                break;
        }
    }
}

template <class T>
void column_sum(const ColumnSumArgs<T>& args) {
    constexpr int L = kLanes<T>;
    for (int64_t j = 0; j < args.J; j += L) {
        const int64_t valid = args.J - j;
        Packet<T> sum = load(args.out + j, valid);
        const T* a = args.a + j;
        if (args.b == nullptr) {
            for (int64_t m = 0; m < args.M; ++m, a += args.lda) sum = padd(sum, load(a, valid));
        } else {
            const T* b = args.b + j;
            for (int64_t m = 0; m < args.M; ++m, a += args.lda, b += args.ldb)
                sum = pmadd(load(a, valid), load(b, valid), sum);
        }
        store(args.out + j, sum, valid);
    }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
