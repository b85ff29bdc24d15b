// A linear map as the kernels read it.
#pragma once

#include <cstdint>

#include "kernel_table.h"
#include "lstmcore/linear.h"
#include "lstmcore/memory.h"

namespace lstmcore {

template <class T>
class Linear {
public:
    /// Of a const T*, or, without `train`, of a QuantizedMatrix.
    template <class Matrix>
    Linear(Matrix weight, const T* bias, int64_t inputs, int64_t outputs, bool train,
           int num_threads, Precision precision);

    int64_t inputs() const { return inputs_; }
    int64_t outputs() const { return outputs_; }
    const Kernels<T>& kernels() const { return kernels_; }
    const Packed<T>& weight() const { return weight_; }
    const T* bias() const { return bias_; }  ///< padded to weight().N
    bool can_train() const { return train_; }
    Precision precision() const { return precision_; }
    const Packed<T>& weight_t() const { return weight_t_; }  ///< K = outputs

private:
    int64_t inputs_, outputs_;
    bool train_;
    const Kernels<T>& kernels_;
    Precision precision_;
    Packed<T> weight_, weight_t_;
    const T* bias_ = nullptr;
    Buffer memory_;
};

}  // namespace lstmcore
