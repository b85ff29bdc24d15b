// One step of one row: what a stream and a batch of one wait for.
//
// The chain of an element is that of product-inl.h. Its input part may be made here too, so that
// the sums stay in registers from the bias to the gate arithmetic.
#pragma once

#include "kernel_table.h"
#include "simd-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Panels taken at once: enough chains to fill the pipeline of the multiplier, and few enough that
/// there are several turns to reverse.
constexpr int kStepPanels = 2;
constexpr int64_t kL1Bytes = 40 * 1024;  // of weights, that stay in an L1 cache of 48 KB

/// sum[panel][vector] += sum_k a[k] w[panel][k][vector]
template <class T, int kVectors, int kPanels>
LSTMCORE_INLINE void add_products(const T* a, const Packed<T>& w, int64_t panel,
                                  Packet<T> (&sum)[kPanels][kVectors]) {
    constexpr int64_t width = kVectors * kLanes<T>;
    const int64_t K = w.K, next = K * width;
    const T* weights = w.data + panel * next;
#pragma GCC unroll 4
    for (int64_t k = 0; k < K; ++k, weights += width) {
        const Packet<T> factor = set(a[k]);
        for (int p = 0; p < kPanels; ++p)
            for (int v = 0; v < kVectors; ++v)
                sum[p][v] = pmadd(factor, load(weights + p * next + v * kLanes<T>), sum[p][v]);
    }
}

template <class T, int kVectors, int kPanels, class Row, class Between, class... Finish>
void step_tile(const StepArgs<T>& step, const Row& row, int64_t panel, Between between,
               Finish... finish) {
    constexpr int L = kLanes<T>;
    constexpr int64_t width = kVectors * L;
    Packet<T> sum[kPanels][kVectors];
    for (int p = 0; p < kPanels; ++p)
        for (int v = 0; v < kVectors; ++v) sum[p][v] = load(row.pre + (panel + p) * width + v * L);
    if (step.w_in.data != nullptr) add_products<T, kVectors, kPanels>(row.x, step.w_in, panel, sum);
    for (int p = 0; p < kPanels; ++p) between((panel + p) * L, sum[p]);
    add_products<T, kVectors, kPanels>(row.h_prev, step.w, panel, sum);
    alignas(64) T tile[kPanels * width];
    for (int p = 0; p < kPanels; ++p)
        for (int v = 0; v < kVectors; ++v) store(tile + p * width + v * L, sum[p][v]);
    const auto each = [&](auto f) LSTMCORE_INLINE_LAMBDA {
        for (int p = 0; p < kPanels; ++p) f((panel + p) * L, 0, tile + p * width);
    };
    (each(finish), ...);
}

/// A step whose panels hold one register of each of kGates gates.
///   between(unit, sums)   is called between the input's part of the chains and the state's
///   finish(unit, 0, tile) takes the finished ones; of several, each all of them before the next
template <class T, int kGates, class Row, class Between, class... Finish>
LSTMCORE_INLINE void step_gates(const StepArgs<T>& step, const Row& row, Between between,
                                Finish... finish) {
    const int64_t all = step.w.N / (kGates * kLanes<T>),
                  last = step.last_panel < all ? step.last_panel : all;
    // The tile at which the direction turns is still in the L1 cache, if one panel fits there and
    // several do not.
    const int64_t K = step.w.K + step.w_in.K;
    const int64_t bytes = K * kGates * kLanes<T> * int64_t(sizeof(T));
    const bool single = bytes <= kL1Bytes && bytes * kStepPanels > kL1Bytes && last > kStepPanels;
    const int64_t panels = single ? 1 : kStepPanels;
    const int64_t tiles = (last - step.first_panel + panels - 1) / panels;
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t panel = step.first_panel + (step.backwards ? tiles - 1 - i : i) * panels;
        if (single || last - panel == 1)
            step_tile<T, kGates, 1>(step, row, panel, between, finish...);
        else
            step_tile<T, kGates, kStepPanels>(step, row, panel, between, finish...);
    }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
