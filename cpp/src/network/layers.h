// Parts with weights: recurrent layers, linear maps, convolutions, embeddings, normalizations.
#pragma once

#include "memory/bfloat16.h"
#include "network/part.h"

namespace lstmcore {

/// y, h and, of an LSTM, c for x and perhaps an initial state.
template <class T>
PartPointer<T> recurrent_part(std::shared_ptr<const Weights<T>> weights);

template <class T>
PartPointer<T> linear_part(std::shared_ptr<const Linear<T>> linear);

/// A stage that works on each row by itself: LayerNorm, Activation or Softmax.
template <class T>
PartPointer<T> row_part(Stage<T> stage);

/// y[t] = b + sum over k of W[k] x[stride t + dilation k - left].
struct Windows {
    int64_t channels = 0, taps = 0, stride = 1, dilation = 1;
    int64_t left = 0, right = 0;  ///< zeros before and after x

    int64_t reach() const { return dilation * (taps - 1); }
    /// Steps of y for so many of x.
    int64_t count(int64_t steps) const;
};

/// For each group of channels, what takes the steps of a window side by side, (taps, channels).
template <class T>
PartPointer<T> conv_part(const Windows& windows,
                         std::vector<std::shared_ptr<const Linear<T>>> groups);

/// Rows of numbers, by their ids: as T, in bfloat16, or in int8 with a scale for each row.
template <class T>
struct Table {
    int64_t count = 0, features = 0;
    std::vector<T> numbers;
    std::vector<Bfloat16> rounded;
    std::vector<int8_t> whole;
    std::vector<float> scales;  ///< of `whole`

    void copy_row(int64_t id, T* to) const;
};

template <class T>
PartPointer<T> embedding_part(Table<T> table);

/// What inference needs of a BatchNorm; without `weight` 1, without `bias` 0.
template <class T>
struct RunningStatistics {
    std::vector<T> mean, variance, weight, bias;
    double eps = 1e-5;
};

template <class T>
PartPointer<T> batch_norm_part(const RunningStatistics<T>& statistics);

}  // namespace lstmcore
