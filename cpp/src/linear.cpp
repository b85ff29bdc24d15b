#include "linear.h"

#include <stdexcept>
#include <string>

#include "isa.h"
#include "pack.h"

namespace lstmcore {

template <class T>
Linear<T>::Linear(const T* weight, const T* bias, int64_t inputs, int64_t outputs)
    : inputs_(inputs), outputs_(outputs), kernels_(kernel_table().of<T>()) {
    const auto positive = [](int64_t value, const char* name) {
        if (value < 1)
            throw std::invalid_argument(std::string(name) + " is " + std::to_string(value) +
                                        ", expected > 0");
    };
    positive(inputs, "inputs");
    positive(outputs, "outputs");
    const auto build = [&](void* base) {
        Arena arena(base);
        weight_ = pack_transposed(arena, kernels_, 4, inputs, outputs, weight,
                                  [&](int64_t column) { return column < outputs ? column : -1; });
        T* padded = arena.take<T>(weight_.N);
        for (int64_t i = 0; base && i < weight_.N; ++i)
            padded[i] = bias && i < outputs ? bias[i] : T(0);
        bias_ = padded;
        return arena.used();
    };
    memory_.reset(::operator new(build(nullptr), std::align_val_t(kAlignment)));
    build(memory_.get());
}

template <class T>
std::shared_ptr<const Linear<T>> pack_linear(const T* weight, const T* bias, int64_t inputs,
                                             int64_t outputs) {
    return std::make_shared<const Linear<T>>(weight, bias, inputs, outputs);
}

template class Linear<float>;
template class Linear<double>;
template std::shared_ptr<const Linear<float>> pack_linear(const float*, const float*, int64_t,
                                                          int64_t);
template std::shared_ptr<const Linear<double>> pack_linear(const double*, const double*, int64_t,
                                                           int64_t);

}  // namespace lstmcore
