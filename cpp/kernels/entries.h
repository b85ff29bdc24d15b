// The kernels of a level that are compiled in files of their own, so that several compile at once:
// what kernels.cpp puts into the table beside its own. Their names carry the level's namespace.
#pragma once

#include "kernel_table.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {

// products.cpp
template <class T>
void product(const Packed<T>& w, int64_t columns, const ProductRow<T>* rows, int64_t n);

// sums.cpp
template <class T>
void outer(const OuterArgs<T>& args);
template <class T>
void column_sum(const ColumnSumArgs<T>& args);

// rnn.cpp
template <class T>
void rnn_forward(const StepArgs<T>& step, const RnnForwardRow<T>* rows, int64_t n);
template <class T>
void rnn_backward(const StepArgs<T>& step, const RnnBackwardRow<T>* rows, int64_t n);

// lstm.cpp
template <class T, bool kTrain>
void lstm_forward(const StepArgs<T>& step, const LstmForwardRow<T>* rows, int64_t n);
template <class T>
void lstm_backward(const StepArgs<T>& step, const LstmBackwardRow<T>* rows, int64_t n);

// gru.cpp
template <class T, bool kTrain>
void gru_forward(const StepArgs<T>& step, const GruForwardRow<T>* rows, int64_t n);
template <class T>
void gru_backward(const StepArgs<T>& step, const GruBackwardRow<T>* rows, int64_t n);

}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
