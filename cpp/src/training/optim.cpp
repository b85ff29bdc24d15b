#include "lstmcore/optim.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernel_table.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"

namespace lstmcore {

namespace {

// Work is dealt in pieces of an array, which are also the units of a sum: they depend on nothing
// but its size. Another number here would change the last bits of norm().
constexpr int64_t kPiece = 4096;

int64_t size(const Rows& rows) {
    return rows.count * rows.size;
}
int64_t pieces(const Rows& rows) {
    return (size(rows) + kPiece - 1) / kPiece;
}

/// Calls f(offset, n) for each run of adjacent numbers among the numbers [first, last) of `rows`.
template <class F>
void each_run(const Rows& rows, int64_t first, int64_t last, F f) {
    if (!rows.listed) return f(first, last - first);
    while (first < last) {
        const int64_t row = first / rows.size, end = std::min(last, (row + 1) * rows.size);
        f(rows.listed[row] * rows.size + first - row * rows.size, end - first);
        first = end;
    }
}

/// Shares the pieces of all arrays: calls f(array, piece, first, last) for numbers [first, last) of
/// an array, which begin with this piece of all.
template <class Array, class F>
void share(const Array* arrays, int64_t count, int num_threads, F f) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += pieces(arrays[i].rows);
    const int team_size = int(std::min<int64_t>(num_threads, 1 + total / kUpdatePiecesOfThread));
    run_fast_team(CallKind({'o', count, total}), team_size, [&](Team& team) noexcept {
        const int64_t mine = total * team.rank / team.size;
        const int64_t end = total * (team.rank + 1) / team.size;
        int64_t piece = 0;  // the first of the array
        for (int64_t i = 0; i < count && piece < end; ++i) {
            const int64_t next = piece + pieces(arrays[i].rows);
            const int64_t from = std::max(mine, piece), to = std::min(end, next);
            if (from < to)
                f(arrays[i], from, (from - piece) * kPiece,
                  std::min((to - piece) * kPiece, size(arrays[i].rows)));
            piece = next;
        }
    });
}

/// Takes `step` by `kernel`.
template <class T, class Step>
void run(void (*kernel)(const Step&, const UpdateRun<T>&), const Step& step,
         const Trained<T>* parameters, int64_t count, int num_threads) {
    share(parameters, count, num_threads,
          [&](const Trained<T>& p, int64_t, int64_t first, int64_t last) noexcept {
              const FlushDenormals mode;
              each_run(p.rows, first, last, [&](int64_t at, int64_t n) {
                  UpdateRun<T> run{p.data + at, p.grad + at, {}, n};
                  for (int s = 0; s < 3; ++s) run.state[s] = p.state[s] ? p.state[s] + at : nullptr;
                  kernel(step, run);
              });
          });
}

template <class T>
void step(const Sgd& rule, int64_t t, const Trained<T>* parameters, int64_t count,
          int num_threads) {
    const double dampening = t == 1 ? 0 : rule.dampening;
    const SgdStep<T> step{T(rule.lr), T(rule.momentum), T(1 - dampening), T(rule.weight_decay),
                          rule.nesterov};
    run(kernel_table().of<T>().sgd, step, parameters, count, num_threads);
}

template <class T>
void step(const RmsProp& rule, int64_t, const Trained<T>* parameters, int64_t count,
          int num_threads) {
    const RmsPropStep<T> step{T(rule.lr),  T(rule.alpha),    T(1 - rule.alpha),
                              T(rule.eps), T(rule.momentum), T(rule.weight_decay)};
    run(kernel_table().of<T>().rmsprop, step, parameters, count, num_threads);
}

template <class T>
void step(const Adam& rule, int64_t t, const Trained<T>* parameters, int64_t count,
          int num_threads) {
    AdamStep<T> step;
    step.lr = T(rule.lr / (1 - std::pow(rule.beta1, double(t))));
    step.beta1 = T(rule.beta1);
    step.fresh1 = T(1 - rule.beta1);
    step.beta2 = T(rule.beta2);
    step.fresh2 = T(1 - rule.beta2);
    step.unbias2 = T(1 / std::sqrt(1 - std::pow(rule.beta2, double(t))));
    step.eps = T(rule.eps);
    step.weight_decay = T(rule.decoupled ? 0 : rule.weight_decay);
    step.keep = T(rule.decoupled ? 1 - rule.lr * rule.weight_decay : 1);
    run(kernel_table().of<T>().adam, step, parameters, count, num_threads);
}

template <class T>
double sum_squares(double factor, const Gradient<T>* gradients, int64_t count, int num_threads) {
    int64_t total = 0;
    for (int64_t i = 0; i < count; ++i) total += pieces(gradients[i].rows);
    std::vector<double> sums(total);
    const auto kernel = kernel_table().of<T>().sum_squares;
    share(gradients, count, num_threads,
          [&](const Gradient<T>& g, int64_t piece, int64_t first, int64_t last) noexcept {
              for (; first < last; first += kPiece, ++piece)
                  each_run(g.rows, first, std::min(first + kPiece, last),
                           [&](int64_t at, int64_t n) {
                               sums[piece] += kernel(factor, g.data + at, n);
                           });
          });
    double sum = 0;
    for (const double part : sums) sum += part;
    return sum;
}

}  // namespace

template <class T, class Rule>
void update(const Rule& rule, int64_t t, const Trained<T>* parameters, int64_t count,
            int num_threads) {
    step(rule, t, parameters, count, num_threads);
}

template <class T>
double norm(const Gradient<T>* gradients, int64_t count, int num_threads) {
    const double plain = sum_squares(1, gradients, count, num_threads);
    const bool safe = !(plain < 1e-200) && !(plain > 1e200);  // true for NaN
    if (safe || sizeof(T) == 4) return std::sqrt(plain);
    // Perhaps a square was too small or too large; a power of two scales without rounding.
    const double factor = plain < 1 ? 0x1p+500 : 0x1p-600;
    return std::sqrt(sum_squares(factor, gradients, count, num_threads)) / factor;
}

template <class T>
void scale(double factor, const Gradient<T>* gradients, int64_t count, int num_threads) {
    if (factor != 0 && std::abs(factor) < double(std::numeric_limits<T>::min())) {
        const double root = std::sqrt(std::abs(factor));  // as T lacks the digits of the factor
        scale(root, gradients, count, num_threads);
        return scale(std::copysign(root, factor), gradients, count, num_threads);
    }
    const auto kernel = kernel_table().of<T>().scale;
    share(gradients, count, num_threads,
          [&](const Gradient<T>& g, int64_t, int64_t first, int64_t last) noexcept {
              each_run(g.rows, first, last,
                       [&](int64_t at, int64_t n) { kernel(T(factor), g.data + at, n); });
          });
}

#define LSTMCORE_INSTANTIATE(T)                                                     \
    template void update(const Sgd&, int64_t, const Trained<T>*, int64_t, int);     \
    template void update(const RmsProp&, int64_t, const Trained<T>*, int64_t, int); \
    template void update(const Adam&, int64_t, const Trained<T>*, int64_t, int);    \
    template double norm(const Gradient<T>*, int64_t, int);                         \
    template void scale(double, const Gradient<T>*, int64_t, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
