// What a stream runs: each stage of a model with every size and pointer of a step worked out.
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
#include "memory/rows.h"
#include "recurrent/weights.h"
#include "training/linear.h"

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
          P_(weights.spec().output_size()) {
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
        switch (spec.cell.kind) {
            case CellKind::rnn:
                rnn_ = arena.take<RnnForwardRow<T>>(batch);
                break;
            case CellKind::lstm:
                lstm_ = arena.take<LstmForwardRow<T>>(batch);
                c_ = rows(batch, H);
                if (spec.proj_size > 0) {
                    m_ = rows(batch, H);
                    projections_ = arena.take<ProductRow<T>>(batch);
                    zeros_ = arena.take<T>(w_->w_hr.N);
                }
                break;
            case CellKind::gru:
                gru_ = arena.take<GruForwardRow<T>>(batch);
                gates_ = rows(batch, 3 * H);
                rh_ = rows(batch, H);
                break;
        }
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
        const T* pre = args_.w_in.data ? w_->bias : pre_.at(first_product);
        args_.last_first = !args_.last_first;
        switch (args_.cell.kind) {
            case CellKind::rnn:
                for (int64_t b = 0; b < batch_; ++b)
                    rnn_[b] = {pre + b * pre_.stride, h_prev + b * stride, y + b * stride, x_};
                kernels_->rnn_forward(args_, rnn_, batch_);
                break;
            case CellKind::gru:
                for (int64_t b = 0; b < batch_; ++b)
                    gru_[b] = {pre + b * pre_.stride, h_prev + b * stride, y + b * stride,
                               gates_.at(b),          rh_.at(b),           x_};
                kernels_->gru_forward[0](args_, gru_, batch_);
                break;
            case CellKind::lstm:
                for (int64_t b = 0; b < batch_; ++b) {
                    T* const m = m_.data ? m_.at(b) : y + b * stride;
                    lstm_[b] = {pre + b * pre_.stride,
                                h_prev + b * stride,
                                c_.at(b),
                                c_.at(b),
                                m,
                                nullptr,
                                x_};
                    if (m_.data) projections_[b] = {m, zeros_, y + b * stride};
                }
                kernels_->lstm_forward[0](args_, lstm_, batch_);
                if (m_.data) kernels_->product(w_->w_hr, w_->w_hr.N, projections_, batch_);
                break;
        }
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
    RnnForwardRow<T>* rnn_ = nullptr;  ///< only those of the layer's kind are there
    LstmForwardRow<T>* lstm_ = nullptr;
    GruForwardRow<T>* gru_ = nullptr;
    ProductRow<T>* projections_ = nullptr;
    StridedRows<T> c_, m_, gates_, rh_;
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
        double sum = 0, squares = 0;
        for (int64_t i = 0; i < features_; ++i) sum += double(x[i]);
        const double mean = sum / double(features_);
        for (int64_t i = 0; i < features_; ++i)
            squares += (double(x[i]) - mean) * (double(x[i]) - mean);
        const double scale = 1 / std::sqrt(squares / double(features_) + f.eps);
        for (int64_t i = 0; i < features_; ++i) {
            y[i] = T((double(x[i]) - mean) * scale);
            if (!f.weight.empty()) y[i] *= f.weight[i];
            if (!f.bias.empty()) y[i] += f.bias[i];
        }
    }
    void apply(const Softmax&, const T* x, T* y) const noexcept {
        const T most = *std::max_element(x, x + features_);
        T sum = 0;
        for (int64_t i = 0; i < features_; ++i) sum += y[i] = std::exp(x[i] - most);
        for (int64_t i = 0; i < features_; ++i) y[i] /= sum;
    }

    Function f_;
    const Kernels<T>* kernels_;
    int64_t batch_, features_;
    StridedRows<T> y_;
};

}  // namespace lstmcore
