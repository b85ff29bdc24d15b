// Streams. A block of steps goes through one layer after the other, so that the input product of
// the whole block is one product.
#include "lstmcore/stream.h"

#include <algorithm>
#include <cstring>
#include <stdexcept>
#include <string>
#include <utility>

#include "machine/caches.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "stream/stream_ops.h"

namespace lstmcore {
namespace {

template <class T>
using Op = std::variant<RecurrentOp<T>, LinearOp<T>, RowOp<T>>;

}  // namespace

template <class T>
class Stream<T>::Body {
public:
    Body(std::vector<Stage<T>> stages, int64_t batch, const Kernels<T>& kernels)
        : stages_(std::move(stages)),
          kernels_(kernels),
          batch_(batch),
          block_(std::max<int64_t>(kStreamChunkRows / std::max<int64_t>(batch, 1), 1)) {
        if (batch < 1)
            throw std::invalid_argument("batch_size is " + std::to_string(batch) +
                                        ", expected > 0");
        find_input_size();
        const int64_t bytes = build(nullptr);
        memory_.reset(::operator new(bytes, std::align_val_t(kAlignment)));
        std::memset(memory_.get(), 0, bytes);
        build(memory_.get());
    }

    /// At the same ISA level, whichever is chosen by now.
    Body(const Body& other) : Body(other.stages_, other.batch_, other.kernels_) {
        for (size_t i = 0; i < ops_.size(); ++i)
            if (auto* op = std::get_if<RecurrentOp<T>>(&ops_[i]))
                op->copy_state(std::get<RecurrentOp<T>>(other.ops_[i]));
    }

    int64_t batch() const { return batch_; }
    int64_t input_size() const { return input_size_; }
    int64_t output_size() const { return output_size_; }
    const std::vector<const Weights<T>*>& recurrent() const { return recurrent_; }

    void process(const T* x, T* y, int64_t steps) noexcept {
        const FlushDenormals mode;
        while (steps > 0) {
            const int64_t n = std::min(steps, block_);
            StridedRows<const T> rows{x, input_size_};
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

private:
    /// What a stage takes; 0 of one that takes whatever comes.
    static int64_t inputs_of(const std::shared_ptr<const Weights<T>>& weights) {
        return weights->spec().input_size;
    }
    static int64_t inputs_of(const std::shared_ptr<const Linear<T>>& linear) {
        return linear->inputs();
    }
    static int64_t inputs_of(const LayerNorm<T>& norm) { return norm.features; }
    static int64_t inputs_of(const Activation&) { return 0; }
    static int64_t inputs_of(const Softmax&) { return 0; }

    static void check(const std::shared_ptr<const Weights<T>>& weights) {
        if (!weights) throw std::invalid_argument("stages: one is null");
        const LayerSpec& spec = weights->spec();
        if (spec.bidirectional || spec.reverse)
            throw std::invalid_argument(
                std::string(spec.reverse ? "reverse" : "bidirectional") +
                " layers read from the end of a sequence, which a stream does not have");
    }
    static void check(const std::shared_ptr<const Linear<T>>& linear) {
        if (!linear) throw std::invalid_argument("stages: one is null");
    }
    static void check(const LayerNorm<T>& norm) {
        const auto fits = [&](const std::vector<T>& values) {
            return values.empty() || int64_t(values.size()) == norm.features;
        };
        if (norm.features < 1 || !fits(norm.weight) || !fits(norm.bias))
            throw std::invalid_argument("stages: the sizes of a LayerNorm contradict each other");
    }
    static void check(const Activation&) {}
    static void check(const Softmax&) {}

    void add(const std::shared_ptr<const Weights<T>>& weights, int64_t, Arena& arena) {
        recurrent_.push_back(weights.get());
        first_op_.push_back(ops_.size());
        for (int64_t l = 0; l < weights->spec().num_layers; ++l)
            ops_.emplace_back(RecurrentOp<T>(*weights, l, batch_, block_, arena));
    }
    void add(const std::shared_ptr<const Linear<T>>& linear, int64_t, Arena& arena) {
        ops_.emplace_back(LinearOp<T>(*linear, batch_, block_, arena));
    }
    template <class RowFunction>
    void add(const RowFunction& f, int64_t features, Arena& arena) {
        ops_.emplace_back(RowOp<T>(f, kernels_, features, batch_, block_, arena));
    }

    void find_input_size() {
        for (const Stage<T>& stage : stages_) {
            std::visit([](const auto& s) { check(s); }, stage);
            if (input_size_ == 0)
                input_size_ = std::visit([](const auto& s) { return inputs_of(s); }, stage);
        }
        if (input_size_ == 0)
            throw std::invalid_argument("stages: none says how many features it takes");
    }

    int64_t build(void* base) {
        Arena arena(base);
        ops_.clear();
        recurrent_.clear();
        first_op_.clear();
        int64_t features = input_size_;
        for (const Stage<T>& stage : stages_) {
            const int64_t inputs = std::visit([](const auto& s) { return inputs_of(s); }, stage);
            if (inputs != 0 && inputs != features)
                throw std::invalid_argument("stages: " + std::to_string(features) +
                                            " features come to one that takes " +
                                            std::to_string(inputs));
            std::visit([&](const auto& s) { add(s, features, arena); }, stage);
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
    const Kernels<T>& kernels_;  ///< of what works on rows; weights bring their own
    int64_t batch_, block_, input_size_ = 0, output_size_ = 0;
    std::vector<Op<T>> ops_;
    std::vector<const Weights<T>*> recurrent_;
    std::vector<size_t> first_op_;  ///< of each recurrent stage
    std::unique_ptr<void, Release> memory_;
};

template <class T>
Stream<T>::Stream(std::vector<Stage<T>> stages, int64_t batch_size)
    : body_(std::make_unique<Body>(std::move(stages), batch_size, kernel_table().of<T>())) {}

template <class T>
Stream<T>::Stream(const Stream& other) : body_(std::make_unique<Body>(*other.body_)) {}

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
