// Products of many rows with a matrix of weights.
#include "entries.h"
#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {

namespace {

/// product() with the rows that factor_of(row) gives.
template <class T, class FactorOf>
LSTMCORE_INLINE void multiply_rows(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows,
                                   int64_t n, FactorOf factor_of) {
    constexpr int L = kLanes<T>;
    // Chains of a panel of which every column is wanted end where they are wanted.
    multiply_columns<T, true>(
        w, n, factor_of, no_input<T>(),
        [&](auto vectors, int64_t column, int64_t row, T* tile) LSTMCORE_INLINE_LAMBDA {
            const int64_t valid = columns - column;
            Ends<T> ends = chains_from(vectors, rows[row].init + column, valid, tile);
            if (ends.from != tile) ends.to = rows[row].out + column;
            return ends;
        },
        [=](auto vectors, int64_t column, int64_t row, const T* tile) LSTMCORE_INLINE_LAMBDA {
            const int64_t width = vectors * L;
            const int64_t valid = columns - column;
            if (valid >= width) return;
            for (int64_t v = 0; v < width; v += L)
                store(rows[row].out + column + v, load(tile + v), valid - v);
        });
}

/// The same with a matrix in int8: some rows after the other, as many as QuantizedRows has room
/// for.
__attribute__((noinline)) void multiply_quantized(const Packed<float>& w, int64_t columns,
                                                  const ProductRow<float>* rows, int64_t n) {
    QuantizedRows quantized;
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(w.uses_amx());
#endif
    for (int64_t count; n > 0; rows += count, n -= count) {
        count = std::min(n, QuantizedRows::most(w));
        quantized.set(w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; });
        multiply_rows(w, columns, rows, count,
                      [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return quantized.rows()[row]; });
    }
}

/// The same with the rows as they are given.
template <class T>
LSTMCORE_ONE_COPY void multiply_given(const Packed<T>& w, int64_t columns,
                                      const ProductRow<T>* rows, int64_t n) {
    multiply_rows(w, columns, rows, n,
                  [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; });
}

/// The same with a matrix in bfloat16: some rows rounded after the other.
__attribute__((noinline)) void multiply_bfloat16(const Packed<float>& w, int64_t columns,
                                                 const ProductRow<float>* rows, int64_t n) {
    constexpr int64_t kMost = 64;
    Bfloat16Rows rounded(w);
    ProductRow<float> part[kMost];
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(w.uses_amx());
#endif
    for (int64_t count; n > 0; rows += count, n -= count) {
        count = std::min({n, kMost, rounded.most(w)});
        rounded.set(w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; });
        for (int64_t i = 0; i < count; ++i) part[i] = {rounded.at(i), rows[i].init, rows[i].out};
        multiply_given(w, columns, part, count);
    }
}

}  // namespace

template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
        if (w.quantized != nullptr) return multiply_quantized(w, columns, rows, n);
        if (w.is_bfloat16()) return multiply_bfloat16(w, columns, rows, n);
    }
    multiply_given(w, columns, rows, n);
}

template void product<float>(const Packed<float>&, int64_t, const ProductRow<float>*, int64_t);
template void product<double>(const Packed<double>&, int64_t, const ProductRow<double>*, int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
