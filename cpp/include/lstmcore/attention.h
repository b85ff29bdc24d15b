// Scaled dot-product attention, of one head or several side by side.
#pragma once

#include <cstdint>

#include "lstmcore/api.h"

namespace LSTMCORE_API lstmcore {

/// T queries and S keys with their values for each of B rows. Queries are (T, B, heads * size),
/// keys (S, B, heads * size), values (S, B, heads * value_size), and what comes out (T, B, heads *
/// value_size), or with B as the first axis if `batch_first`.
struct AttentionShape {
    int64_t B, T, S;
    int64_t heads, size, value_size;
    bool batch_first;
    const int64_t* lengths;  ///< (B) how many keys there are, 0 .. S, or null: S
    bool causal = false;     ///< query t looks at keys 0 .. t alone
};

template <class T>
struct AttentionInputs {
    const T* query;
    const T* key;
    const T* value;
    T scale;        ///< of the products query key'
    const T* kept;  ///< (B, heads, T, S) factors of the weights: dropout, or null
};

template <class T>
struct AttentionGradients {
    T* query;
    T* key;
    T* value;
};

/// y = (kept softmax(scale query key')) value for each row and head, over the keys that there are;
/// keys and values behind them are not read. Where there is no key, the weights and y are 0.
///   weights  (B, heads, T, S) written: softmax(...), 0 behind the keys of a query; unless null
///   mean     (B, T, S) written: their mean over the heads; unless null
/// What a row gives depends neither on num_threads nor on other rows nor on S, to the bit. Denormal
/// numbers count as zero. A causal query multiplies the values behind its own by 0, so that NaN
/// there is NaN in y, as in PyTorch. T is float or double. Throws std::invalid_argument for sizes
/// or lengths out of range, std::bad_alloc.
template <class T>
LSTMCORE_API void attention(const AttentionShape& shape, const AttentionInputs<T>& inputs, T* y,
                            T* weights, T* mean, int num_threads);

/// Writes the gradients of query, key and value, 0 behind the keys that there are. `weights` is
/// what attention() has written.
template <class T>
LSTMCORE_API void attention_backward(const AttentionShape& shape, const AttentionInputs<T>& inputs,
                                     const T* weights, const T* dy,
                                     const AttentionGradients<T>& gradients, int num_threads);

}  // namespace LSTMCORE_API lstmcore
