// One row of the functions of lstmcore/row_functions.h, as calls and streams compute it.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernel_table.h"
#include "lstmcore/row_functions.h"

namespace lstmcore {

/// value(0) + ... + value(n - 1), in 16 chains over i modulo 16, then their sum in halves: an order
/// that registers of any width keep.
template <class Value>
double sum_in_chains(int64_t n, Value value) noexcept {
    constexpr int64_t kChains = 16;
    double chains[kChains] = {};
    int64_t i = 0;
    for (; i + kChains <= n; i += kChains)
        for (int64_t j = 0; j < kChains; ++j) chains[j] += value(i + j);
    for (int64_t j = 0; i < n; ++i, ++j) chains[j] += value(i);
    for (int64_t half = kChains / 2; half > 0; half /= 2)
        for (int64_t j = 0; j < half; ++j) chains[j] += chains[j + half];
    return chains[0];
}

/// Gives 1 / sqrt(variance + eps).
template <class T>
double layer_norm_row(int64_t n, double eps, const T* weight, const T* bias, const T* x, T* y,
                      T* normal) noexcept {
    const double mean = sum_in_chains(n, [=](int64_t i) { return double(x[i]); }) / double(n);
    const auto centred = [=](int64_t i) { return double(x[i]) - mean; };
    const double squares = sum_in_chains(n, [=](int64_t i) { return centred(i) * centred(i); });
    const double scale = 1 / std::sqrt(squares / double(n) + eps);
    for (int64_t i = 0; i < n; ++i) {
        T value = T(centred(i) * scale);
        if (normal) normal[i] = value;
        if (weight) value *= weight[i];
        if (bias) value += bias[i];
        y[i] = value;
    }
    return scale;
}

template <class T>
void softmax_row(const Kernels<T>& kernels, int64_t n, const T* x, T* y) noexcept {
    kernels.softmax(x, y, n, T(1));
}

}  // namespace lstmcore
