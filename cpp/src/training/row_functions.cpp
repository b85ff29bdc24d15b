#include "training/row_functions.h"

#include <algorithm>
#include <stdexcept>
#include <string>

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

template <class T>
void activate(const Activation& f, const T* x, int64_t n, T* y, int num_threads) {
    const auto kernel = kernel_table().of<T>().activate;
    share(n, 1, num_threads, [&](int64_t first, int64_t last) noexcept {
        kernel(f, x + first, y + first, last - first);
    });
}

template <class T>
void softmax(const T* x, int64_t rows, int64_t classes, T* y, int num_threads) {
    const Kernels<T>& kernels = kernel_table().of<T>();
    share(rows, classes, num_threads, [&](int64_t first, int64_t last) noexcept {
        for (int64_t i = first; classes > 0 && i < last; ++i)
            softmax_row(kernels, classes, x + i * classes, y + i * classes);
    });
}

template <class T>
void layer_norm(const LayerNormArgs<T>& args, const T* x, int64_t rows, T* y, int num_threads) {
    const int64_t n = args.features;
    share(rows, n, num_threads, [&](int64_t first, int64_t last) noexcept {
        for (int64_t i = first; i < last; ++i) {
            T* const normal = args.normal ? args.normal + i * n : nullptr;
            const double scale =
                layer_norm_row(n, args.eps, args.weight, args.bias, x + i * n, y + i * n, normal);
            if (args.scale) args.scale[i] = T(scale);
        }
    });
}

#define LSTMCORE_INSTANTIATE(T)                                            \
    template void activate(const Activation&, const T*, int64_t, T*, int); \
    template void softmax(const T*, int64_t, int64_t, T*, int);            \
    template void layer_norm(const LayerNormArgs<T>&, const T*, int64_t, T*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
