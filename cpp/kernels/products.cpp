// Products of many rows with a matrix of weights.
#include "entries.h"
#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {

template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n) {
    constexpr int L = kLanes<T>;
    // Chains of a panel of which every column is wanted end where they are wanted.
    multiply_columns<T, true>(
        w, n, [&](int64_t row) LSTMCORE_INLINE_LAMBDA { return rows[row].a; }, no_input<T>(),
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

template void product<float>(const Packed<float>&, int64_t, const ProductRow<float>*, int64_t);
template void product<double>(const Packed<double>&, int64_t, const ProductRow<double>*, int64_t);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
