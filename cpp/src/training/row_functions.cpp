#include "lstmcore/row_functions.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"

namespace lstmcore {
namespace {

/// Shares `count` things of `size` numbers each: calls f(first, last).
template <class F>
void share(int64_t count, int64_t size, int num_threads, F f) {
    if (count < 0 || size < 0)
        throw std::invalid_argument("a size is " + std::to_string(std::min(count, size)) +
                                    ", expected >= 0");
    const double useful = 1 + double(count) * double(size) / kExponentialsOfThread;
    run_fast_team(CallKind({'r', count, size}), int(std::min(double(num_threads), useful)),
                  [&](Team& team) noexcept {
                      const FlushDenormals mode;
                      f(count * team.rank / team.size, count * (team.rank + 1) / team.size);
                  });
}

}  // namespace

// Activations --------------------------------------------------------------------------------

template <class T>
void activate(const Activation& f, const T* x, int64_t n, T* y, int num_threads) {
    const auto kernel = kernel_table().of<T>().activate;
    share(n, 1, num_threads, [&](int64_t first, int64_t last) noexcept {
        kernel(f, x + first, y + first, last - first);
    });
}

template <class T>
void activate_backward(const Activation& f, const T* from, const T* dy, int64_t n, T* dx,
                       int num_threads) {
    const auto kernel = kernel_table().of<T>().differentiate;
    share(n, 1, num_threads, [&](int64_t first, int64_t last) noexcept {
        kernel(f, from + first, dy + first, dx + first, last - first);
    });
}

// Softmax ------------------------------------------------------------------------------------

template <class T>
void softmax(const T* x, int64_t rows, int64_t classes, T* y, int num_threads) {
    const auto kernel = kernel_table().of<T>().softmax;
    share(rows, classes, num_threads, [&](int64_t first, int64_t last) noexcept {
        for (int64_t i = first * classes; i < last * classes; i += classes)
            kernel(x + i, y + i, classes, T(1));
    });
}

template <class T>
void softmax_backward(const T* dy, const T* y, int64_t rows, int64_t classes, T* dx,
                      int num_threads) {
    const auto kernel = kernel_table().of<T>().softmax_backward;
    share(rows, classes, num_threads, [&](int64_t first, int64_t last) noexcept {
        for (int64_t i = first * classes; i < last * classes; i += classes)
            kernel(dy + i, y + i, dx + i, classes, T(1));
    });
}

// Layer normalization ------------------------------------------------------------------------

template <class T>
void layer_norm(const LayerNormArgs<T>& args, const T* x, int64_t rows, T* y, int num_threads) {
    const auto kernel = kernel_table().of<T>().normalize;
    const int64_t n = args.features;
    share(rows, n, num_threads, [&](int64_t first, int64_t last) noexcept {
        constexpr int64_t kMost = 16;
        NormalizedRow<T> some[kMost];
        T scales[kMost];
        for (int64_t i = first, count; i < last; i += count) {
            count = std::min(kMost, last - i);
            for (int64_t r = 0; r < count; ++r)
                some[r] = {x + (i + r) * n, y + (i + r) * n,
                           args.normal ? args.normal + (i + r) * n : nullptr,
                           args.scale ? args.scale + i + r : scales + r};
            kernel(count, n, some, args.weight, args.bias, T(args.eps));
        }
    });
}

template <class T>
void layer_norm_backward(const LayerNormBackwardArgs<T>& args, const T* dy, int64_t rows, T* dx,
                         int num_threads) {
    const Kernels<T>& kernels = kernel_table().of<T>();
    const int64_t n = args.features;
    share(rows, n, num_threads, [&](int64_t first, int64_t last) noexcept {
        for (int64_t i = first; i < last; ++i)
            kernels.normalize_backward(n, dy + i * n, args.normal + i * n, args.weight,
                                       args.scale[i], dx + i * n);
    });
    // Each column is summed by one thread, so that bits do not depend on how many there are.
    if (!args.dweight && !args.dbias) return;
    constexpr int64_t kColumns = 64;
    share((n + kColumns - 1) / kColumns, rows * kColumns, num_threads,
          [&](int64_t first, int64_t last) noexcept {
              const int64_t j = first * kColumns, J = std::min(last * kColumns, n) - j;
              if (J <= 0) return;
              if (args.dweight)
                  kernels.column_sum({dy + j, n, args.normal + j, n, args.dweight + j, rows, J});
              if (args.dbias) kernels.column_sum({dy + j, n, nullptr, 0, args.dbias + j, rows, J});
          });
}

#define LSTMCORE_INSTANTIATE(T)                                                               \
    template void activate(const Activation&, const T*, int64_t, T*, int);                    \
    template void activate_backward(const Activation&, const T*, const T*, int64_t, T*, int); \
    template void softmax(const T*, int64_t, int64_t, T*, int);                               \
    template void softmax_backward(const T*, const T*, int64_t, int64_t, T*, int);            \
    template void layer_norm(const LayerNormArgs<T>&, const T*, int64_t, T*, int);            \
    template void layer_norm_backward(const LayerNormBackwardArgs<T>&, const T*, int64_t, T*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
