// A linear map as the kernels read it.
#pragma once

#include <cstdint>
#include <memory>
#include <new>

#include "../kernels/kernel_table.h"
#include "arena.h"
#include "lstmcore/stream.h"

namespace lstmcore {

template <class T>
class Linear {
public:
    Linear(const T* weight, const T* bias, int64_t inputs, int64_t outputs);

    int64_t inputs() const { return inputs_; }
    int64_t outputs() const { return outputs_; }
    const Kernels<T>& kernels() const { return kernels_; }
    const Packed<T>& weight() const { return weight_; }
    const T* bias() const { return bias_; }  ///< padded to weight().N

private:
    struct Release {
        void operator()(void* memory) const {
            ::operator delete(memory, std::align_val_t(kAlignment));
        }
    };

    int64_t inputs_, outputs_;
    const Kernels<T>& kernels_;
    Packed<T> weight_;
    const T* bias_ = nullptr;
    std::unique_ptr<void, Release> memory_;
};

}  // namespace lstmcore
