// Products of many rows with a matrix of weights.
#include "entries.h"
#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {

namespace {

/// product() with the rows as they are given, or with what has been made of them.
template <class T>
LSTMCORE_ONE_COPY void multiply_rows(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows,
                                     int64_t n, MadeRows made) {
    constexpr int L = kLanes<T>;
    const auto a_of = [&](int64_t row) LSTMCORE_INLINE_LAMBDA -> const void* {
        if (std::is_same_v<T, float> && made) return made.at(row);
        return rows[row].a;
    };
    // Chains of a panel of which every column is wanted end where they are wanted.
    multiply_columns(
        w, n, a_of, no_input<T>(),
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

/// The same with what `in` makes of some rows after the other: Bfloat16Rows or QuantizedRows.
template <class Rows>
LSTMCORE_INLINE void multiply_made(const Packed<float>& w, int64_t columns,
                                   const ProductRow<float>* rows, int64_t n, Rows& in) {
    for (int64_t count; n > 0; rows += count, n -= count) {
        count = std::min(n, in.most(w));
        const MadeRows made =
            in.set(w, count, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; });
        multiply_rows(w, columns, rows, count, made);
    }
}
__attribute__((noinline)) void multiply_quantized(const Packed<float>& w, int64_t columns,
                                                  const ProductRow<float>* rows, int64_t n) {
    QuantizedRows quantized;
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(w.uses_amx());
#endif
    multiply_made(w, columns, rows, n, quantized);
}
__attribute__((noinline)) void multiply_bfloat16(const Packed<float>& w, int64_t columns,
                                                 const ProductRow<float>* rows, int64_t n) {
    Bfloat16Rows rounded(w);
#if LSTMCORE_AVX512_UNITS
    const TileScope tiles(w.uses_amx());
#endif
    multiply_made(w, columns, rows, n, rounded);
}

}  // namespace

template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n) {
    if constexpr (std::is_same_v<T, float>) {
        if (w.quantized != nullptr) return multiply_quantized(w, columns, rows, n);
        if (w.is_bfloat16()) return multiply_bfloat16(w, columns, rows, n);
    }
    multiply_rows(w, columns, rows, n, {});
}

template void product<float>(const Packed<float>&, int64_t, const ProductRow<float>*, int64_t);
template void product<double>(const Packed<double>&, int64_t, const ProductRow<double>*, int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
