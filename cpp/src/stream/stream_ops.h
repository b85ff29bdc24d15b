// What a stream runs: each stage of a model with every size worked out, and its memory taken.
//
// An op takes a block of steps of all rows of the batch, and gives rows that stay valid until its
// next call. Rows are by step and batch row, and in memory are padded to whole registers, so that
// no kernel meets part of one. What stands in the padding means nothing, and nothing reads it.
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
#include "training/row_functions.h"

namespace lstmcore {

/// One recurrent layer and its state.
template <class T>
class RecurrentOp {
public:
    RecurrentOp(const Weights<T>& weights, int64_t layer, int64_t batch, int64_t block,
                Arena& arena)
        : w_(&weights.direction(layer, 0)),
          kernels_(&weights.kernels()),
          batch_(batch),
          H_(weights.spec().hidden_size),
          P_(weights.spec().output_size()),
          step_rows_(weights.spec(), round_up(H_, kernels_->lanes), batch, arena) {
        const LayerSpec& spec = weights.spec();
        const int64_t H = round_up(H_, kernels_->lanes);
        args_.cell = spec.cell;
        args_.H = H;
        args_.w = w_->w_hh;
        args_.w_n = w_->w_n;
        args_.b_hn = w_->b_hn;
        args_.peephole = w_->peephole;
        fuses_ = batch == 1 && w_->can_fuse_input();
        const auto rows = [&](int64_t count, int64_t n) { return take_rows<T>(arena, count, n); };
        hidden_ = rows(size_product(batch, 2 + block), P_);
        pre_ = rows(size_product(batch, block), w_->w_ih.N);
        products_ = arena.take<ProductRow<T>>(batch * block);
        for (int64_t i = 0; pre_.data && i < batch * block; ++i)
            products_[i] = {nullptr, w_->bias, pre_.at(i)};
        if (spec.cell.kind == CellKind::lstm) c_ = rows(batch, H);
        if (spec.proj_size > 0) zeros_ = arena.take<T>(w_->w_hr.N);
    }

    int64_t features() const { return P_; }

    /// Takes `steps` steps; the outputs stay valid until the next call.
    StridedRows<const T> run(StridedRows<const T> x, int64_t steps) noexcept {
        const bool fused = fuses_ && steps == 1;
        args_.w_in = fused ? w_->w_ih : Packed<T>{};
        x_ = x.data;
        if (!fused) {
            for (int64_t i = 0; i < steps * batch_; ++i) products_[i].a = x.at(i);
            kernels_->product(w_->w_ih, w_->w_ih.N, products_, steps * batch_);
        }
        // A single step writes the plane of the state that is not in use, a block those behind.
        const int64_t first = steps == 1 ? 1 - now_ : 2;
        for (int64_t s = 0; s < steps; ++s)
            run_step(plane(s == 0 ? now_ : first + s - 1), plane(first + s), s * batch_);
        if (steps == 1)
            now_ = first;
        else
            std::memcpy(plane(now_), plane(first + steps - 1), sizeof(T) * batch_ * hidden_.stride);
        return {plane(first), hidden_.stride};
    }

    void get_state(int64_t row, T* h, T* c) const noexcept {
        if (h) std::memcpy(h, state(row), sizeof(T) * P_);
        if (c && c_.data) std::memcpy(c, c_.at(row), sizeof(T) * H_);
    }
    void set_state(int64_t row, const T* h, const T* c) noexcept {
        copy_or_clear(state(row), h, P_);
        if (c_.data) copy_or_clear(c_.at(row), c, H_);
    }
    void copy_state(const RecurrentOp& other) noexcept {
        for (int64_t row = 0; row < batch_; ++row)
            set_state(row, other.state(row), other.c_.data ? other.c_.at(row) : nullptr);
    }

private:
    T* plane(int64_t i) const { return hidden_.at(i * batch_); }
    T* state(int64_t row) const { return plane(now_) + row * hidden_.stride; }

    void run_step(const T* h_prev, T* y, int64_t first_product) noexcept {
        const int64_t stride = hidden_.stride;
        const T* pre = args_.w_in ? w_->bias : pre_.at(first_product);
        args_.last_first = !args_.last_first;
        with_constant(args_.cell.kind, [&](auto kind) {
            for (int64_t b = 0; b < batch_; ++b) {
                T* const c = c_.data ? c_.at(b) : nullptr;
                const ForwardPlace<T> at{
                    pre + b * pre_.stride, x_, h_prev + b * stride, y + b * stride, c, c, nullptr};
                step_rows_.template set<kind()>(b, at, zeros_);
            }
        });
        step_rows_.run(*kernels_, args_, w_->w_hr, w_->w_hr.N, false, batch_);
    }

    const PackedDirection<T>* w_;
    const Kernels<T>* kernels_;
    StepArgs<T> args_;
    int64_t batch_, H_, P_;
    bool fuses_ = false;    ///< the kernel makes the input product of a single step itself,
    const T* x_ = nullptr;  ///< from this row
    /// Planes of `batch` rows: two that take turns as state, a block's outputs.
    StridedRows<T> hidden_;
    int now_ = 0;         ///< the plane of the state
    StridedRows<T> pre_;  ///< the input product
    ProductRow<T>* products_ = nullptr;
    ForwardRows<T> step_rows_;
    StridedRows<T> c_;
    T* zeros_ = nullptr;
};

template <class T>
class LinearOp {
public:
    LinearOp(const Linear<T>& linear, int64_t batch, int64_t block, Arena& arena)
        : linear_(&linear), batch_(batch) {
        y_ = take_rows<T>(arena, size_product(batch, block), linear.outputs());
        products_ = arena.take<ProductRow<T>>(batch * block);
        for (int64_t i = 0; y_.data && i < batch * block; ++i)
            products_[i] = {nullptr, linear.bias(), y_.at(i)};
    }

    int64_t features() const { return linear_->outputs(); }

    StridedRows<const T> run(StridedRows<const T> x, int64_t steps) noexcept {
        for (int64_t i = 0; i < steps * batch_; ++i) products_[i].a = x.at(i);
        linear_->kernels().product(linear_->weight(), linear_->weight().N, products_,
                                   steps * batch_);
        return {y_.data, y_.stride};
    }

private:
    const Linear<T>* linear_;
    int64_t batch_;
    StridedRows<T> y_;
    ProductRow<T>* products_;
};

/// What works on each row by itself.
template <class T>
class RowOp {
public:
    using Function = std::variant<Activation, LayerNorm<T>, Softmax>;

    RowOp(Function f, const Kernels<T>& kernels, int64_t features, int64_t batch, int64_t block,
          Arena& arena)
        : f_(std::move(f)), kernels_(&kernels), batch_(batch), features_(features) {
        y_ = take_rows<T>(arena, size_product(batch, block), features);
    }

    int64_t features() const { return features_; }

    StridedRows<const T> run(StridedRows<const T> x, int64_t steps) noexcept {
        std::visit(
            [&](const auto& f) noexcept {
                for (int64_t i = 0; i < steps * batch_; ++i) apply(f, x.at(i), y_.at(i));
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
        layer_norm_row<T>(features_, f.eps, or_null(f.weight), or_null(f.bias), x, y, nullptr);
    }
    void apply(const Softmax&, const T* x, T* y) const noexcept {
        softmax_row(*kernels_, features_, x, y);
    }

    Function f_;
    const Kernels<T>* kernels_;
    int64_t batch_, features_;
    StridedRows<T> y_;
};

}  // namespace lstmcore
