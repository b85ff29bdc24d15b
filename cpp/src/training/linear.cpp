#include "training/linear.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <tuple>
#include <type_traits>

#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "memory/arena.h"
#include "memory/pack.h"
#include "memory/quantize.h"
#include "memory/sizes.h"

namespace lstmcore {

template <class T>
template <class Matrix>
Linear<T>::Linear(Matrix weight, const T* bias, int64_t inputs, int64_t outputs, bool train,
                  int num_threads, Precision precision)
    : inputs_(inputs),
      outputs_(outputs),
      train_(train),
      kernels_(kernel_table().of<T>()),
      precision_(usable_precision(kernels_, precision)) {
    check_size(inputs, "inputs");
    check_size(outputs, "outputs");
    if (!weight) throw std::invalid_argument("weight is null, expected (outputs, inputs)");
    memory_ = pack_into_buffer(kernels_, precision_, train, num_threads, [&](Packing<T>& packing) {
        weight_ = packing.transposed(4, inputs, outputs, weight, [=](int64_t column) {
            return column < outputs ? column : -1;
        });
        bias_ = packing.vector(weight_.N,
                               [&](int64_t i) { return bias && i < outputs ? bias[i] : T(0); });
        if constexpr (std::is_same_v<Matrix, const T*>) {
            if (train)
                weight_t_ = packing.in_rows(outputs, inputs, weight, [](int64_t k) { return k; });
        }
    });
}

template <class T>
std::shared_ptr<const Linear<T>> pack_linear(const T* weight, const T* bias, int64_t inputs,
                                             int64_t outputs, bool train, int num_threads,
                                             Precision precision) {
    return std::make_shared<const Linear<T>>(weight, bias, inputs, outputs, train, num_threads,
                                             precision);
}

std::shared_ptr<const Linear<float>> pack_linear(QuantizedMatrix weight, const float* bias,
                                                 int64_t inputs, int64_t outputs, int num_threads) {
    check_size(inputs, "inputs");
    check_size(outputs, "outputs");
    if (weight) check_quantized(weight, outputs, inputs, "weight");
    return std::make_shared<const Linear<float>>(weight, bias, inputs, outputs, false, num_threads,
                                                 Precision::own);
}

namespace {

void check_rows(int64_t rows) {
    if (rows < 0)
        throw std::invalid_argument("rows is " + std::to_string(rows) + ", expected >= 0");
}

int team_size_for(int64_t rows, int64_t inputs, int64_t outputs, int num_threads) {
    const double useful = double(rows) * double(inputs) * double(outputs) / kWorkOfThread;
    return int(std::min({double(num_threads), 1 + useful, std::max(double(rows), 1.0)}));
}

/// out = in W + start, for rows [first, last) and of the packed matrix the first `columns`; every
/// row starts alike.
template <class T>
void multiply_rows(const Kernels<T>& kernels, const Packed<T>& weight, int64_t columns,
                   const T* start, const T* in, T* out, int64_t first, int64_t last) {
    ProductRow<T> products[kLinearPieceRows];
    while (first < last) {
        const int64_t n = std::min(last - first, kLinearPieceRows);
        for (int64_t i = 0; i < n; ++i, ++first)
            products[i] = {in + first * weight.K, start, out + first * columns};
        kernels.product(weight, columns, products, n);
    }
}

}  // namespace

template <class T>
void linear_forward(const Linear<T>& linear, const T* x, int64_t rows, T* y, int num_threads) {
    check_rows(rows);
    const int64_t I = linear.inputs(), O = linear.outputs();
    const int team_size = team_size_for(rows, I, O, num_threads);
    const RoundingRooms rooms(linear.precision(), team_size, I, rows, 1,
                              linear.weight().unit == Bfloat16Unit::widening);
    run_fast_team(CallKind({'l', rows, I, O, sizeof(T)}), team_size, [&](Team& team) noexcept {
        const FlushDenormals mode;
        multiply_rows(linear.kernels(), rooms.in_room(linear.weight(), team.rank), O, linear.bias(),
                      x, y, rows * team.rank / team.size, rows * (team.rank + 1) / team.size);
    });
}

template <class T>
void linear_backward(const Linear<T>& linear, const T* x, const T* dy, int64_t rows, T* dx,
                     T* dweight, T* dbias, int num_threads) {
    check_rows(rows);
    if (!linear.can_train()) throw std::invalid_argument("linear was packed for inference only");
    const int64_t I = linear.inputs(), O = linear.outputs();
    const Kernels<T>& kernels = linear.kernels();
    const bool rounds = linear.precision() == Precision::bfloat16;  // what dweight is summed of
    const auto lay_out = [&](void* base) {
        Arena arena(base);
        Panels<T> panels{nullptr, Panels<T>::kWidth, kLinearPieceRows};
        panels.data = arena.take<T>(size_product(kLinearPieceRows, round_up(I, panels.width)));
        T* zeros = arena.take<T>(I);
        T* rounded = rounds ? arena.take<T>(size_product(kLinearPieceRows, O)) : nullptr;
        return std::make_tuple(panels, zeros, rounded, arena.used());
    };
    const Buffer memory(std::get<3>(lay_out(nullptr)));
    const auto [panels, zeros, rounded, bytes] = lay_out(memory.data());
    std::fill_n(zeros, I, T(0));
    const int team_size = team_size_for(rows, I, O, num_threads);
    const RoundingRooms rooms(linear.precision(), team_size, O, rows);
    const CallKind kind({'L', rows, I, O, sizeof(T), rounds});
    run_fast_team(kind, team_size,
                  [&, panels = panels, zeros = zeros, rounded = rounded](Team& team) noexcept {
                      const FlushDenormals mode;
                      // A piece of rows after the other: its dx by rows, then the sums by outputs.
                      const int64_t first = O * team.rank / team.size;
                      const int64_t last = O * (team.rank + 1) / team.size;
                      for (int64_t piece = 0; piece < rows; piece += kLinearPieceRows) {
                          const int64_t n = std::min(rows - piece, kLinearPieceRows);
                          const int64_t mine = n * team.rank / team.size;
                          const int64_t end = n * (team.rank + 1) / team.size;
                          multiply_rows(kernels, rooms.in_room(linear.weight_t(), team.rank), I,
                                        zeros, dy, dx, piece + mine, piece + end);
                          for (int64_t i = mine; i < end; ++i) {
                              copy_to_panels(panels, i, x + (piece + i) * I, I);
                              if (rounds) round_in_panels(kernels, panels, i, I);
                          }
                          T* from = const_cast<T*>(dy) + piece * O;
                          if (rounds) {
                              std::copy(from + mine * O, from + end * O, rounded + mine * O);
                              kernels.round(rounded + mine * O, (end - mine) * O);
                          }
                          team.barrier();
                          kernels.outer({{rounds ? rounded : from, O, n},
                                         first,
                                         panels,
                                         dweight + first * I,
                                         n,
                                         last - first,
                                         I});
                          if (dbias)
                              kernels.column_sum(
                                  {from + first, O, nullptr, 0, dbias + first, n, last - first});
                          team.barrier();
                      }
                  });
}

#define LSTMCORE_INSTANTIATE(T)                                                                 \
    template class Linear<T>;                                                                   \
    template std::shared_ptr<const Linear<T>> pack_linear(const T*, const T*, int64_t, int64_t, \
                                                          bool, int, Precision);                \
    template void linear_forward(const Linear<T>&, const T*, int64_t, T*, int);                 \
    template void linear_backward(const Linear<T>&, const T*, const T*, int64_t, T*, T*, T*, int);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
