// Sums over rows: the gradients of weight matrices and of biases.
#include <algorithm>

#include "accumulate-inl.h"
#include "entries.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// A tile of a sum over rows: to[row][vector] = from[row][vector] +
///     sum_m a[row][m a_step] b[m b_step + vector], for m < M
template <class T>
using SumLoop = void (*)(const void* const* a, int64_t a_step, const T* b, int64_t b_step,
                         int64_t M, const Ends<T>* ends);
template <class T, int kVectors, int kRows>
void sum_tile(const void* const* a, int64_t a_step, const T* b, int64_t b_step, int64_t M,
              const Ends<T>* ends) {
    accumulate<T, T, kVectors, 1, kRows>(a, a_step, b, 0, b_step, M, ends, [] {});
}

template <class T>
struct SumLoops {
    static constexpr bool kHasWide = false;
    SumLoop<T> tall[kMostVectors + 1][kMostRows + 1];  ///< [vectors][rows]

    template <int kVectors, int, int kRows>
    struct Of {
        static constexpr SumLoop<T> loop = sum_tile<T, kVectors, kRows>;
    };
};
template <class T>
constexpr SumLoops<T> kSumLoops = AllShapes<SumLoops<T>, SumLoops<T>::template Of>::make();

/// Rows [first, last) of the gradient of a weight matrix: tiles of c, `vectors` registers wide,
/// each a sum over the M rows.
template <class T>
LSTMCORE_INLINE void outer_columns(const OuterArgs<T>& args, int64_t first, int64_t last,
                                   int64_t column, int64_t vectors) {
    constexpr int L = kLanes<T>;
    const int64_t width = vectors * L, most = kRowsOf[vectors];
    alignas(64) T tile[kAccumulators * L];
    const void* a[kMostRows];
    Ends<T> ends[kMostRows];
    const T* b = args.b.at(0, column);
    const bool whole = args.N - column >= width;  // then in place
    for (int64_t j = first; j < last; j += most) {
        const int64_t rows = last - j < most ? last - j : most;
        for (int64_t r = 0; r < rows; ++r) {
            a[r] = args.a.at(0, args.first + j + r);
            T *c = args.c + (j + r) * args.N + column, *copy = tile + r * width;
            ends[r] = whole ? Ends<T>{c, c} : Ends<T>{copy, copy};
            for (int64_t v = 0; v < width && !whole; v += L)
                store(copy + v, load(c + v, args.N - column - v));
        }
        // The next tile, down the column or at the top of the next.
        const bool down = j + most < last;
        const T* next = args.c + (down ? j + most : first) * args.N + column + (down ? 0 : width);
        const int64_t next_rows = down && last - j < 2 * most ? last - j - most : most;
        for (int64_t r = 0; r < next_rows; ++r)
            for (int64_t v = 0; v < width; v += kCacheLine / int64_t(sizeof(T)))
                prefetch(next + r * args.N + v);
        kSumLoops<T>.tall[vectors][rows](a, args.a.width, b, args.b.width, args.M, ends);
        for (int64_t r = 0; r < rows && !whole; ++r) {
            T* c = args.c + (j + r) * args.N + column;
            for (int64_t v = 0; v < width; v += L)
                store(c + v, load(tile + r * width + v), args.N - column - v);
        }
    }
}

/// Rows [first, last) of a gradient with one register of columns or less, some of whose lanes would
/// be idle: here lanes run over its rows, which are columns of a. Each number is the same chain.
template <class T>
LSTMCORE_INLINE void outer_turned_tile(const OuterArgs<T>& args, int64_t column, int64_t vectors,
                                       int64_t first, int64_t last) {
    constexpr int L = kLanes<T>;
    const int64_t width = vectors * L, most = kRowsOf[vectors];
    alignas(64) T tile[kAccumulators * L] = {};
    const void* b[kMostRows];
    Ends<T> ends[kMostRows];
    for (int64_t n = 0; n < args.N; n += most) {
        const int64_t rows = args.N - n < most ? args.N - n : most;
        for (int64_t r = 0; r < rows; ++r) {
            T* const sums = tile + r * width;
            b[r] = args.b.at(0, n + r);
            ends[r] = {sums, sums};
            for (int64_t j = first; j < last; ++j)
                sums[j - column] = args.c[(j - args.first) * args.N + n + r];
        }
        kSumLoops<T>.tall[vectors][rows](b, args.b.width, args.a.at(0, column), args.a.width,
                                         args.M, ends);
        for (int64_t r = 0; r < rows; ++r)
            for (int64_t j = first; j < last; ++j)
                args.c[(j - args.first) * args.N + n + r] = tile[r * width + j - column];
    }
}
template <class T>
void outer_turned(const OuterArgs<T>& args) {
    constexpr int L = kLanes<T>;
    const int64_t end = args.first + args.J;
    // From a column at which a register begins, so that none goes past the end of a row.
    for (int64_t column = args.first / L * L; column < end;) {
        const int64_t left = (end - column + L - 1) / L;
        const int64_t in_panel = (args.a.width - column % args.a.width) / L;
        const int64_t vectors = std::min<int64_t>({left, in_panel, kMostVectors});
        const int64_t first = column < args.first ? args.first : column;
        const int64_t last = column + vectors * L < end ? column + vectors * L : end;
        outer_turned_tile(args, column, vectors, first, last);
        column += vectors * L;
    }
}

/// Columns [j, j + kVectors registers) of column_sum, of which `valid` are there: so many chains at
/// once, as each waits for the addition before.
template <class T, int kVectors>
LSTMCORE_INLINE void column_sums(const ColumnSumArgs<T>& args, int64_t j, int64_t valid) {
    constexpr int L = kLanes<T>;
    Packet<T> sum[kVectors];
    for (int v = 0; v < kVectors; ++v) sum[v] = load(args.out + j + v * L, valid - v * L);
    const T *a = args.a + j, *b = args.b;
    if (b == nullptr) {
        for (int64_t m = 0; m < args.M; ++m, a += args.lda)
            for (int v = 0; v < kVectors; ++v)
                sum[v] = padd(sum[v], load(a + v * L, valid - v * L));
    } else {
        b += j;
        for (int64_t m = 0; m < args.M; ++m, a += args.lda, b += args.ldb)
            for (int v = 0; v < kVectors; ++v)
                sum[v] =
                    pmadd(load(a + v * L, valid - v * L), load(b + v * L, valid - v * L), sum[v]);
    }
    for (int v = 0; v < kVectors; ++v) store(args.out + j + v * L, sum[v], valid - v * L);
}

}  // namespace

template <class T>
void outer(const OuterArgs<T>& args) {
    constexpr int L = kLanes<T>;
    static_assert(Panels<T>::kWidth % (4 * L) == 0, "a tile lies in one panel");
    if (args.N <= L && args.a.width % L == 0) return outer_turned(args);
    // So many rows, whole tiles of them, that their part of a stays in the cache while all columns
    // pass.
    constexpr int64_t kBlock = 192;
    for (int64_t first = 0; first < args.J; first += kBlock) {
        const int64_t last = first + kBlock < args.J ? first + kBlock : args.J;
        for (int64_t column = 0, vectors; column < args.N; column += vectors * L) {
            vectors = std::min<int64_t>((args.N - column + L - 1) / L, kMostVectors);
            outer_columns(args, first, last, column, vectors);
        }
    }
}

template <class T>
void column_sum(const ColumnSumArgs<T>& args) {
    constexpr int L = kLanes<T>;
    int64_t j = 0;
    for (; j + 4 * L <= args.J; j += 4 * L) column_sums<T, 4>(args, j, 4 * L);
    for (; j < args.J; j += L) column_sums<T, 1>(args, j, args.J - j);
}

template void outer<float>(const OuterArgs<float>&);
template void outer<double>(const OuterArgs<double>&);
template void column_sum<float>(const ColumnSumArgs<float>&);
template void column_sum<double>(const ColumnSumArgs<double>&);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
