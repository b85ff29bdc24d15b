// What streams and pools run: each stage of a model with every size worked out, and its memory
// taken.
//
// An op takes rows, and gives as many, which stay valid until its next call. Those of a stream are
// a block of steps of all rows of its batch, by step and batch row. Rows in memory are padded to
// whole registers, so that no kernel meets part of one. What stands in the padding means nothing,
// and nothing reads it.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <utility>
#include <variant>

#include "lstmcore/stream.h"
#include "memory/arena.h"
#include "memory/strided_rows.h"
#include "recurrent/step_rows.h"
#include "recurrent/weights.h"
#include "training/linear.h"

namespace lstmcore {

/// Where the state of one row is: h before and after the step, and c of an LSTM.
template <class T>
struct StatePlace {
    const T* h_prev;
    T* h;
    T* c;
};

/// One recurrent layer for some rows at a time, whose states are kept elsewhere.
template <class T>
class LayerStep {
public:
    /// Steps of up to `batch` rows; up to `most` rows of x are taken at once.
    LayerStep(const Weights<T>& weights, int64_t layer, int64_t batch, int64_t most, Arena& arena)
        : w_(&weights.direction(layer, 0)),
          kernels_(&weights.kernels()),
          step_rows_(weights.spec(), round_up(weights.spec().hidden_size, kernels_->lanes), batch,
                     arena) {
        const LayerSpec& spec = weights.spec();
        const int64_t H = spec.hidden_size;
        // Layer normalisation counts the units that there are.
        args_ = step_args(spec.cell, spec.cell.layer_norm ? H : round_up(H, kernels_->lanes), *w_);
        changes_ = changes_rows(spec.cell, false);
        pre_ = take_rows<T>(arena, most, w_->w_ih.N);
        products_ = arena.take<ProductRow<T>>(most);
        for (int64_t i = 0; pre_.data && i < most; ++i)
            products_[i] = {nullptr, w_->start, pre_.at(i)};
        if (spec.cell.layer_norm)
            zeros_ = w_->start;
        else if (spec.proj_size > 0)
            zeros_ = arena.take<T>(w_->w_hr.N);
    }

    /// Begins with n rows of x: makes their input products. The kernel makes that of a single row
    /// itself.
    void take(StridedRows<const T> x, int64_t n) noexcept {
        const bool fused = n == 1 && w_->can_fuse_input();
        args_.w_in = fused ? w_->w_ih : Packed<T>{};
        x_ = x.data;
        if (fused) return;
        for (int64_t i = 0; i < n; ++i) products_[i].a = x.at(i);
        kernels_->product(w_->w_ih, w_->w_ih.N, products_, n);
        for (int64_t i = 0; args_.cell.layer_norm && i < n; ++i) {
            T scale;
            const NormalizedRow<T> row{pre_.at(i), pre_.at(i), nullptr, &scale};
            kernels_->normalize(1, args_.cell.gates() * args_.H, &row, w_->ln_ih, w_->bias,
                                T(kNormEps));
        }
    }

    /// Takes the step of n of these rows, from row `first` on; place_of(i) is the StatePlace of
    /// the i-th of them.
    template <class PlaceOf>
    void run(int64_t first, int64_t n, PlaceOf place_of) noexcept {
        const T* pre = args_.w_in ? w_->bias : pre_.at(first);
        args_.last_first = !args_.last_first;
        with_constants(args_.cell.kind, changes_, [&](auto kind, auto changes) {
            for (int64_t i = 0; i < n; ++i) {
                const StatePlace<T> s = place_of(i);
                const ForwardPlace<T> at{
                    pre + i * pre_.stride, x_, s.h_prev, s.h, s.c, s.c, nullptr};
                if constexpr (changes())
                    step_rows_.template set_changed<kind()>(i, at, {}, zeros_);
                else
                    step_rows_.template set<kind()>(i, at, zeros_);
            }
            if constexpr (changes())
                step_rows_.run_changed(*kernels_, args_, w_->w_hr, w_->w_hr.N, false, n);
            else
                step_rows_.run(*kernels_, args_, w_->w_hr, w_->w_hr.N, false, n);
        });
    }

private:
    const PackedDirection<T>* w_;
    const Kernels<T>* kernels_;
    StepArgs<T> args_;
    bool changes_;          ///< whether rows have a ForwardChange
    const T* x_ = nullptr;  ///< the row of which the kernel makes the input product itself
    StridedRows<T> pre_;    ///< the input products
    ProductRow<T>* products_ = nullptr;
    ForwardRows<T> step_rows_;
    const T* zeros_ = nullptr;  ///< what products of the kernel's rows start from
};

/// One row of a layer's states, h (P) and, of an LSTM, c (H).
template <class T>
struct StateRow {
    T* h;
    int64_t P;
    T* c;  ///< null where there is none
    int64_t H;

    void get(T* to_h, T* to_c) const noexcept {
        if (to_h) std::memcpy(to_h, h, sizeof(T) * P);
        if (to_c && c) std::memcpy(to_c, c, sizeof(T) * H);
    }
    void set(const T* from_h, const T* from_c) const noexcept {
        copy_or_clear(h, from_h, P);
        if (c) copy_or_clear(c, from_c, H);
    }
};

/// One recurrent layer and the states of a batch.
template <class T>
class RecurrentOp {
public:
    RecurrentOp(const Weights<T>& weights, int64_t layer, int64_t batch, int64_t block,
                Arena& arena)
        : step_(weights, layer, batch, size_product(batch, block), arena),
          batch_(batch),
          H_(weights.spec().hidden_size),
          P_(weights.spec().output_size()) {
        hidden_ = take_rows<T>(arena, size_product(batch, 2 + block), P_);
        if (weights.spec().cell.kind == CellKind::lstm) c_ = take_rows<T>(arena, batch, H_);
    }

    int64_t features() const { return P_; }

    /// Takes n rows, which are some steps; the outputs stay valid until the next call.
    StridedRows<const T> run(StridedRows<const T> x, int64_t n) noexcept {
        const int64_t steps = n == batch_ ? 1 : n / batch_, stride = hidden_.stride;
        step_.take(x, n);
        // A single step writes the plane of the state that is not in use, a block those behind.
        const int64_t first = steps == 1 ? 1 - now_ : 2;
        for (int64_t s = 0; s < steps; ++s) {
            const T* const h_prev = plane(s == 0 ? now_ : first + s - 1);
            T* const h = plane(first + s);
            step_.run(s * batch_, batch_, [&](int64_t b) {
                return StatePlace<T>{h_prev + b * stride, h + b * stride, cell(b)};
            });
        }
        if (steps == 1)
            now_ = first;
        else
            std::memcpy(plane(now_), plane(first + steps - 1), sizeof(T) * batch_ * stride);
        return {plane(first), stride};
    }

    StateRow<T> state(int64_t row) const noexcept {
        return {plane(now_) + row * hidden_.stride, P_, cell(row), H_};
    }
    void copy_state(const RecurrentOp& other) const noexcept {
        for (int64_t row = 0; row < batch_; ++row)
            state(row).set(other.state(row).h, other.state(row).c);
    }

private:
    T* plane(int64_t i) const { return hidden_.at(i * batch_); }
    T* cell(int64_t row) const { return c_.data ? c_.at(row) : nullptr; }

    LayerStep<T> step_;
    int64_t batch_, H_, P_;
    /// Planes of `batch` rows: two that take turns as state, a block's outputs.
    StridedRows<T> hidden_;
    int now_ = 0;  ///< the plane of the state
    StridedRows<T> c_;
};

/// One recurrent layer and the states of many streams, of which some take a step together.
template <class T>
class PooledOp {
public:
    /// Up to `most` rows of one call; row i of it is the stream at places[i].
    PooledOp(const Weights<T>& weights, int64_t layer, int64_t capacity, int64_t most,
             const int64_t* places, Arena& arena)
        : step_(weights, layer, most, most, arena),
          places_(places),
          H_(weights.spec().hidden_size),
          P_(weights.spec().output_size()) {
        y_ = take_rows<T>(arena, most, P_);
        h_ = take_rows<T>(arena, capacity, P_);
        if (weights.spec().cell.kind == CellKind::lstm) c_ = take_rows<T>(arena, capacity, H_);
    }

    int64_t features() const { return P_; }

    StridedRows<const T> run(StridedRows<const T> x, int64_t n) noexcept {
        step_.take(x, n);
        step_.run(0, n, [&](int64_t i) {
            const StateRow<T> row = state(places_[i]);
            return StatePlace<T>{row.h, y_.at(i), row.c};
        });
        for (int64_t i = 0; i < n; ++i) std::memcpy(h_.at(places_[i]), y_.at(i), sizeof(T) * P_);
        return {y_.data, y_.stride};
    }

    StateRow<T> state(int64_t place) const noexcept {
        return {h_.at(place), P_, c_.data ? c_.at(place) : nullptr, H_};
    }

private:
    LayerStep<T> step_;
    const int64_t* places_;
    int64_t H_, P_;
    StridedRows<T> y_, h_, c_;
};

template <class T>
class LinearOp {
public:
    LinearOp(const Linear<T>& linear, int64_t most, Arena& arena) : linear_(&linear) {
        y_ = take_rows<T>(arena, most, linear.outputs());
        products_ = arena.take<ProductRow<T>>(most);
        for (int64_t i = 0; y_.data && i < most; ++i)
            products_[i] = {nullptr, linear.bias(), y_.at(i)};
    }

    int64_t features() const { return linear_->outputs(); }

    StridedRows<const T> run(StridedRows<const T> x, int64_t n) noexcept {
        for (int64_t i = 0; i < n; ++i) products_[i].a = x.at(i);
        linear_->kernels().product(linear_->weight(), linear_->weight().N, products_, n);
        return {y_.data, y_.stride};
    }

private:
    const Linear<T>* linear_;
    StridedRows<T> y_;
    ProductRow<T>* products_;
};

/// What works on each row by itself.
template <class T>
class RowOp {
public:
    using Function = std::variant<Activation, LayerNorm<T>, Softmax>;

    RowOp(Function f, const Kernels<T>& kernels, int64_t features, int64_t most, Arena& arena)
        : f_(std::move(f)), kernels_(&kernels), features_(features) {
        y_ = take_rows<T>(arena, most, features);
    }

    int64_t features() const { return features_; }

    StridedRows<const T> run(StridedRows<const T> x, int64_t n) noexcept {
        std::visit(
            [&](const auto& f) noexcept {
                for (int64_t i = 0; i < n; ++i) apply(f, x.at(i), y_.at(i));
            },
            f_);
        return {y_.data, y_.stride};
    }

private:
    void apply(const Activation& f, const T* x, T* y) const noexcept {
        kernels_->activate(f, x, y, features_);
    }
    void apply(const LayerNorm<T>& f, const T* x, T* y) const noexcept {
        const auto or_null = [](const std::vector<T>& v) { return v.empty() ? nullptr : v.data(); };
        T scale;
        const NormalizedRow<T> row{x, y, nullptr, &scale};
        kernels_->normalize(1, features_, &row, or_null(f.weight), or_null(f.bias), T(f.eps));
    }
    void apply(const Softmax&, const T* x, T* y) const noexcept {
        kernels_->softmax(x, y, features_, T(1));
    }

    Function f_;
    const Kernels<T>* kernels_;
    int64_t features_;
    StridedRows<T> y_;
};

}  // namespace lstmcore
