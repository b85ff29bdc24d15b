// One step of one row: what a stream and a batch of one wait for.
//
// The chain of an element is that of product-inl.h. The product with the input may be made here
// too: then the sums stay in registers from the bias to the gate arithmetic.
#pragma once

#include "product-inl.h"

namespace lstmcore {
namespace LSTMCORE_LEVEL {
namespace {

/// Panels in a tile: enough independent chains to keep the multiplier busy, and few enough that a
/// matrix has several tiles, so that reversing their order (last_first) helps the cache.
constexpr int kStepPanels = 2;
/// Bytes of weights that stay in an L1 cache of 48 KB from one step to the next.
constexpr int64_t kKeptBytes = 40 * 1024;
/// What the L2 cache delivers in the four cycles in which a chain takes one multiply-add.
constexpr int64_t kL2BytesOfLatency = 192;

/// The row of a step.
template <class T>
struct StepRow {
    const T* pre;     ///< where its chains begin
    const T* x;       ///< what w_in is multiplied with
    const T* h_prev;  ///< what w is multiplied with

    /// The only row of a step, with what its matrices are multiplied with.
    template <class Row>
    static StepRow of(const StepArgs<T>& step, const Row& row, const Factors<Row>& factors) {
        const void* const x = step.w_in ? factors.x(0) : nullptr;
        return {row.pre, static_cast<const T*>(x), static_cast<const T*>(factors.a(0))};
    }
};

/// Whether the matrices of a step are kept as T, as step_gates() takes them.
template <class T>
LSTMCORE_INLINE bool is_kept_whole(const StepArgs<T>& step) {
    return step.w.data != nullptr && (step.w_in.data != nullptr || !step.w_in);
}

/// Computes the chains of one row for panel `panel` and kOther registers of the next panel. They
/// begin at row.pre and end in `tile`, where each panel has room for kGates registers.
template <class T, int kGates, int kOther, class Between>
LSTMCORE_INLINE void step_tile(const StepArgs<T>& step, const StepRow<T>& row,
                               const GatePanels<T, kGates>& panels, int64_t panel, Between between,
                               T* tile) {
    constexpr int L = kLanes<T>;
    constexpr int64_t width = kGates * L;
    Packet<T> sum[kGates], other[kOther + 1];  // one more, for an array of none is not allowed
    // sum[column] += sum_k a[k] w[k][column]
    const auto add_products = [&](const T* a, const Packed<T>& w) LSTMCORE_INLINE_LAMBDA {
        const int64_t K = w.K;
        const T *weights = w.data + panel * width * K, *next = weights + width * K;
#pragma GCC unroll 4
        for (int64_t k = 0; k < K; ++k, weights += width, next += kOther * L) {
            const Packet<T> factor = set(a[k]);
            for (int v = 0; v < kGates; ++v) sum[v] = pmadd(factor, load(weights + v * L), sum[v]);
            for (int v = 0; v < kOther; ++v) other[v] = pmadd(factor, load(next + v * L), other[v]);
        }
    };
    const T* pre = row.pre + panel * width;
    T* room = tile + width;
    for (int v = 0; v < kGates; ++v) sum[v] = load(pre + v * L);
    for (int v = 0; v < kOther; ++v) other[v] = load(pre + width + v * L);
    if (step.w_in) add_products(row.x, step.w_in);
    if constexpr (!std::is_same_v<Between, Nothing>) {
        between(panel * L, 0, sum[kGates - 1]);
        if constexpr (kOther == kGates) {
            between((panel + 1) * L, 0, other[kGates - 1]);
        } else if constexpr (kOther > 0) {
            for (int v = 0; v < kOther; ++v) store(room + v * L, other[v]);
            panels.change_last_gate((panel + 1) * L, 0, room, between);
            for (int v = 0; v < kOther; ++v) other[v] = load(room + v * L);
        }
    }
    add_products(row.h_prev, step.w);
    for (int v = 0; v < kGates; ++v) store(tile + v * L, sum[v]);
    for (int v = 0; v < kOther; ++v) store(room + v * L, other[v]);
}

/// f(Constant<n>) for n in 1 .. kMost.
template <int kMost, class F>
LSTMCORE_INLINE void with_constant(int64_t n, F f) {
    if constexpr (kMost > 1) {
        if (n < kMost) return with_constant<kMost - 1>(n, f);
    }
    f(Constant<kMost>());
}

/// The tile of the last full panel and the narrower one, which would have too few chains alone.
template <class T, int kGates, class Between>
__attribute__((noinline)) void step_last_tile(const StepArgs<T>& step, const StepRow<T>& row,
                                              const GatePanels<T, kGates>& panels, Between between,
                                              T* tile) {
    with_constant<kGates - 1>(panels.vectors, [&](auto other) LSTMCORE_INLINE_LAMBDA {
        step_tile<T, kGates, decltype(other)::value>(step, row, panels, panels.full - 1, between,
                                                     tile);
    });
    panels.spread(tile + kGates * kLanes<T>);
}

/// A step of one row in GatePanels; see multiply_gates().
template <class T, int kGates, class Between, class... Finish>
LSTMCORE_INLINE void step_gates(const StepArgs<T>& step, const StepRow<T>& row, Between between,
                                Finish... finish) {
    constexpr int64_t width = kGates * kLanes<T>;
    const GatePanels<T, kGates> panels(step.w);
    const int64_t first = step.first_panel,
                  last = step.last_panel < panels.full ? step.last_panel : panels.full;
    // Tiles of a single panel, if that panel fits the L1 cache and a tile of several does not: the
    // tile at which the direction turns is then still there. Only if the chains of one panel are
    // enough to use weights as fast as the L2 cache delivers them.
    constexpr int64_t row_bytes = width * int64_t(sizeof(T));
    const int64_t bytes = (step.w.K + step.w_in.K) * row_bytes;
    const bool single = row_bytes > kL2BytesOfLatency && bytes <= kKeptBytes &&
                        bytes * kStepPanels > kKeptBytes && last - first > kStepPanels;
    const int64_t most = single ? 1 : kStepPanels;
    // Tiles of full panels alone, and one of the last of them and the narrower one.
    const bool narrow = panels.end(last) > last;
    const int64_t full = last - first - narrow;
    const int64_t full_tiles = single ? full : (full + kStepPanels - 1) / kStepPanels;
    const int64_t tiles = full_tiles + narrow;
    for (int64_t i = 0; i < tiles; ++i) {
        const int64_t turn = step.last_first ? tiles - 1 - i : i;
        int64_t panel = first + turn * most, count = first + full - panel;
        if (count > most) count = most;
        alignas(64) T tile[kStepPanels * width];
        if (turn == full_tiles) {
            step_last_tile<T, kGates>(step, row, panels, between, tile);
            panel = last - 1;
            count = 2;
        } else if (count == 1)
            step_tile<T, kGates, 0>(step, row, panels, panel, between, tile);
        else
            step_tile<T, kGates, kGates>(step, row, panels, panel, between, tile);
        const auto each = [&](auto f) LSTMCORE_INLINE_LAMBDA {
            for (int64_t p = 0; p < count; ++p) f((panel + p) * kLanes<T>, 0, tile + p * width);
        };
        (each(finish), ...);
    }
}

}  // namespace
}  // namespace LSTMCORE_LEVEL
}  // namespace lstmcore
