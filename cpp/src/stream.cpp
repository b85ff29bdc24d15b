// Streams: every size and pointer of a step is worked out when the stream is made.
//
// A block of up to `block` steps goes through one layer after the other, so that the input product
// of the whole block is one product. Rows in memory are padded to whole registers (the weights are
// padded with zeros), so that no kernel meets part of one.
#include "lstmcore/stream.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "arena.h"
#include "float_mode.h"
#include "isa.h"
#include "linear.h"
#include "weights.h"

namespace lstmcore {
namespace {

constexpr int64_t kBlockRows = 32;  // of an input product: enough to read the weights seldom

/// Rows of numbers, one after the other by step and batch row.
template <class T>
struct Rows {
    T* data;
    int64_t stride;

    T* at(int64_t i) const { return data + i * stride; }
};

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
        args_ = {spec.cell, H, w_->w_hh, w_->w_n, w_->b_hn, w_->peephole};
        const auto rows = [&](int64_t count, int64_t n) {
            const int64_t stride = spread_stride<T>(n);
            return Rows<T>{arena.take<T>(size_product(count, stride)), stride};
        };
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
    Rows<const T> run(Rows<const T> x, int64_t steps) noexcept {
        for (int64_t i = 0; i < steps * batch_; ++i) products_[i].a = x.at(i);
        kernels_->product(w_->w_ih, w_->w_ih.N, products_, steps * batch_);
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
        const auto set = [](T* to, const T* from, int64_t n) {
            if (from)
                std::memcpy(to, from, sizeof(T) * n);
            else
                std::memset(to, 0, sizeof(T) * n);
        };
        set(state(row), h, P_);
        if (c_.data) set(c_.at(row), c, H_);
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
        const T* pre = pre_.at(first_product);
        switch (args_.cell.kind) {
            case CellKind::rnn:
                for (int64_t b = 0; b < batch_; ++b)
                    rnn_[b] = {pre + b * pre_.stride, h_prev + b * stride, y + b * stride};
                kernels_->rnn_forward(args_, rnn_, batch_);
                break;
            case CellKind::gru:
                for (int64_t b = 0; b < batch_; ++b)
                    gru_[b] = {pre + b * pre_.stride, h_prev + b * stride, y + b * stride,
                               gates_.at(b), rh_.at(b)};
                kernels_->gru_forward[0](args_, gru_, batch_);
                break;
            case CellKind::lstm:
                for (int64_t b = 0; b < batch_; ++b) {
                    T* const m = m_.data ? m_.at(b) : y + b * stride;
                    lstm_[b] = {
                        pre + b * pre_.stride, h_prev + b * stride, c_.at(b), c_.at(b), m, nullptr};
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
    Rows<T> hidden_{};  ///< planes of `batch` rows: two that take turns as state, a block's outputs
    int now_ = 0;       ///< the plane of the state
    Rows<T> pre_{};     ///< the input product
    ProductRow<T>* products_ = nullptr;
    RnnForwardRow<T>* rnn_ = nullptr;  ///< only those of the layer's kind are there
    LstmForwardRow<T>* lstm_ = nullptr;
    GruForwardRow<T>* gru_ = nullptr;
    ProductRow<T>* projections_ = nullptr;
    Rows<T> c_{}, m_{}, gates_{}, rh_{};
    T* zeros_ = nullptr;
};

template <class T>
class LinearOp {
public:
    LinearOp(const Linear<T>& linear, int64_t batch, int64_t block, Arena& arena)
        : linear_(&linear), batch_(batch) {
        y_.stride = spread_stride<T>(linear.outputs());
        y_.data = arena.take<T>(size_product(batch, block, y_.stride));
        products_ = arena.take<ProductRow<T>>(batch * block);
        for (int64_t i = 0; y_.data && i < batch * block; ++i)
            products_[i] = {nullptr, linear.bias(), y_.at(i)};
    }

    int64_t features() const { return linear_->outputs(); }

    Rows<const T> run(Rows<const T> x, int64_t steps) noexcept {
        for (int64_t i = 0; i < steps * batch_; ++i) products_[i].a = x.at(i);
        linear_->kernels().product(linear_->weight(), linear_->weight().N, products_,
                                   steps * batch_);
        return {y_.data, y_.stride};
    }

private:
    const Linear<T>* linear_;
    int64_t batch_;
    Rows<T> y_{};
    ProductRow<T>* products_;
};

template <class T>
class ActivationOp {
public:
    ActivationOp(const Activation& f, int64_t features, int64_t batch, int64_t block, Arena& arena)
        : f_(f), kernels_(&kernel_table().of<T>()), batch_(batch), features_(features) {
        y_.stride = spread_stride<T>(features);
        y_.data = arena.take<T>(size_product(batch, block, y_.stride));
    }

    int64_t features() const { return features_; }

    Rows<const T> run(Rows<const T> x, int64_t steps) noexcept {
        for (int64_t i = 0; i < steps * batch_; ++i)
            kernels_->activate(f_, x.at(i), y_.at(i), features_);
        return {y_.data, y_.stride};
    }

private:
    Activation f_;
    const Kernels<T>* kernels_;
    int64_t batch_, features_;
    Rows<T> y_{};
};

template <class T>
using Op = std::variant<RecurrentOp<T>, LinearOp<T>, ActivationOp<T>>;

}  // namespace

template <class T>
class Stream<T>::Body {
public:
    Body(std::vector<Stage<T>> stages, int64_t batch)
        : stages_(std::move(stages)),
          batch_(batch),
          block_(std::max<int64_t>(kBlockRows / std::max<int64_t>(batch, 1), 1)) {
        if (batch < 1)
            throw std::invalid_argument("batch_size is " + std::to_string(batch) +
                                        ", expected > 0");
        input_size_ = find_input_size();
        const int64_t bytes = build(nullptr);
        memory_.reset(::operator new(bytes, std::align_val_t(kAlignment)));
        std::memset(memory_.get(), 0, bytes);
        build(memory_.get());
    }

    const std::vector<Stage<T>>& stages() const { return stages_; }
    int64_t batch() const { return batch_; }
    int64_t input_size() const { return input_size_; }
    int64_t output_size() const { return output_size_; }
    const std::vector<const Weights<T>*>& recurrent() const { return recurrent_; }

    void process(const T* x, T* y, int64_t steps) noexcept {
        const FlushDenormals mode;
        while (steps > 0) {
            const int64_t n = std::min(steps, block_);
            Rows<const T> rows{x, input_size_};
            for (Op<T>& op : ops_)
                rows = std::visit([&](auto& o) noexcept { return o.run(rows, n); }, op);
            for (int64_t i = 0; i < n * batch_; ++i, y += output_size_)
                std::memcpy(y, rows.at(i), sizeof(T) * output_size_);
            x += n * batch_ * input_size_;
            steps -= n;
        }
    }

    /// Calls f(op, layer) for the layers of a recurrent stage.
    template <class F>
    void each_layer(int64_t index, F f) const noexcept {
        const int64_t layers = recurrent_[index]->spec().num_layers;
        for (int64_t l = 0; l < layers; ++l)
            f(std::get<RecurrentOp<T>>(ops_[first_op_[index] + l]), l);
    }
    template <class F>
    void each_layer(int64_t index, F f) noexcept {
        static_cast<const Body*>(this)->each_layer(index, [&](const RecurrentOp<T>& op, int64_t l) {
            f(const_cast<RecurrentOp<T>&>(op), l);
        });
    }

    void copy_state(const Body& other) noexcept {
        for (size_t i = 0; i < ops_.size(); ++i)
            if (auto* op = std::get_if<RecurrentOp<T>>(&ops_[i]))
                op->copy_state(std::get<RecurrentOp<T>>(other.ops_[i]));
    }

private:
    /// What the first stage with a size takes; functions take whatever comes.
    int64_t find_input_size() const {
        for (const Stage<T>& stage : stages_) {
            if (const auto* w = std::get_if<std::shared_ptr<const Weights<T>>>(&stage))
                if (*w) return (*w)->spec().input_size;
            if (const auto* l = std::get_if<std::shared_ptr<const Linear<T>>>(&stage))
                if (*l) return (*l)->inputs();
        }
        throw std::invalid_argument("stages: at least one with weights is expected");
    }

    int64_t build(void* base) {
        Arena arena(base);
        ops_.clear();
        recurrent_.clear();
        first_op_.clear();
        int64_t features = input_size_;
        const auto fits = [&](int64_t inputs) {
            if (features != inputs)
                throw std::invalid_argument("stages: " + std::to_string(features) +
                                            " features come to one that takes " +
                                            std::to_string(inputs));
        };
        const auto not_null = [](bool ok) {
            if (!ok) throw std::invalid_argument("stages: one is null");
        };
        for (const Stage<T>& stage : stages_) {
            if (const auto* weights = std::get_if<std::shared_ptr<const Weights<T>>>(&stage)) {
                not_null(bool(*weights));
                const LayerSpec& spec = (*weights)->spec();
                if (spec.bidirectional || spec.reverse)
                    throw std::invalid_argument(
                        std::string(spec.reverse ? "reverse" : "bidirectional") +
                        " layers read from the end of a sequence, which a stream does not have");
                fits(spec.input_size);
                recurrent_.push_back(weights->get());
                first_op_.push_back(ops_.size());
                for (int64_t l = 0; l < spec.num_layers; ++l)
                    ops_.emplace_back(RecurrentOp<T>(**weights, l, batch_, block_, arena));
            } else if (const auto* linear = std::get_if<std::shared_ptr<const Linear<T>>>(&stage)) {
                not_null(bool(*linear));
                fits((*linear)->inputs());
                ops_.emplace_back(LinearOp<T>(**linear, batch_, block_, arena));
            } else {
                ops_.emplace_back(
                    ActivationOp<T>(std::get<Activation>(stage), features, batch_, block_, arena));
            }
            features = std::visit([](const auto& op) { return op.features(); }, ops_.back());
        }
        output_size_ = features;
        return arena.used();
    }

    struct Release {
        void operator()(void* memory) const {
            ::operator delete(memory, std::align_val_t(kAlignment));
        }
    };

    std::vector<Stage<T>> stages_;
    int64_t batch_, block_, input_size_ = 0, output_size_ = 0;
    std::vector<Op<T>> ops_;
    std::vector<const Weights<T>*> recurrent_;
    std::vector<size_t> first_op_;  ///< of each recurrent stage
    std::unique_ptr<void, Release> memory_;
};

template <class T>
Stream<T>::Stream(std::vector<Stage<T>> stages, int64_t batch_size)
    : body_(std::make_unique<Body>(std::move(stages), batch_size)) {}

template <class T>
Stream<T>::Stream(const Stream& other)
    : body_(std::make_unique<Body>(other.body_->stages(), other.body_->batch())) {
    body_->copy_state(*other.body_);
}

template <class T>
Stream<T>::Stream(Stream&& other) noexcept = default;

template <class T>
Stream<T>& Stream<T>::operator=(Stream other) noexcept {
    body_.swap(other.body_);
    return *this;
}

template <class T>
Stream<T>::~Stream() = default;

template <class T>
int64_t Stream<T>::batch_size() const noexcept {
    return body_->batch();
}

template <class T>
int64_t Stream<T>::input_size() const noexcept {
    return body_->input_size();
}

template <class T>
int64_t Stream<T>::output_size() const noexcept {
    return body_->output_size();
}

template <class T>
void Stream<T>::process(const T* x, T* y, int64_t steps) noexcept {
    body_->process(x, y, steps);
}

template <class T>
int64_t Stream<T>::num_states() const noexcept {
    return int64_t(body_->recurrent().size());
}

template <class T>
const LayerSpec& Stream<T>::spec(int64_t index) const noexcept {
    return body_->recurrent()[index]->spec();
}

template <class T>
void Stream<T>::get_state(T* h, T* c, int64_t index) const noexcept {
    const int64_t B = batch_size(), H = spec(index).hidden_size, P = spec(index).output_size();
    const Body& body = *body_;
    body.each_layer(index, [&](const RecurrentOp<T>& op, int64_t l) {
        for (int64_t b = 0; b < B; ++b)
            op.get_state(b, h ? h + (l * B + b) * P : nullptr, c ? c + (l * B + b) * H : nullptr);
    });
}

template <class T>
void Stream<T>::set_state(const T* h, const T* c, int64_t index) noexcept {
    const int64_t B = batch_size(), H = spec(index).hidden_size, P = spec(index).output_size();
    body_->each_layer(index, [&](RecurrentOp<T>& op, int64_t l) {
        for (int64_t b = 0; b < B; ++b)
            op.set_state(b, h ? h + (l * B + b) * P : nullptr, c ? c + (l * B + b) * H : nullptr);
    });
}

template <class T>
void Stream<T>::reset() noexcept {
    for (int64_t row = 0; row < batch_size(); ++row) reset(row);
}

template <class T>
void Stream<T>::reset(int64_t row) noexcept {
    for (int64_t index = 0; index < num_states(); ++index)
        body_->each_layer(
            index, [&](RecurrentOp<T>& op, int64_t) { op.set_state(row, nullptr, nullptr); });
}

template class Stream<float>;
template class Stream<double>;

}  // namespace lstmcore
