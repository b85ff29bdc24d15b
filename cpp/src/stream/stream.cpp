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
#include "stream/op_chain.h"

namespace lstmcore {
template <class T>
class Stream<T>::Body {
public:
    Body(std::vector<Stage<T>> stages, int64_t batch, const Kernels<T>& kernels)
        : batch_(checked(batch)),
          block_(std::max<int64_t>(kStreamChunkRows / batch, 1)),
          ops_(std::move(stages), kernels, size_product(batch, block_),
               [this](const Weights<T>& weights, int64_t layer, Arena& arena) {
                   return RecurrentOp<T>(weights, layer, batch_, block_, arena);
               }) {}

    /// At the same ISA level, whichever is chosen by now.
    Body(const Body& other) : Body(other.ops_.stages(), other.batch_, other.ops_.kernels()) {
        ops_.each_layer([&](int64_t index, int64_t l, const RecurrentOp<T>& op) {
            op.copy_state(other.ops_.layer(index, l));
        });
    }

    int64_t batch() const { return batch_; }
    const OpChain<T, RecurrentOp<T>>& ops() const { return ops_; }

    void process(const T* x, T* y, int64_t steps) noexcept {
        const FlushDenormals mode;
        while (steps > 0) {
            const int64_t n = std::min(steps, block_);
            ops_.run(x, y, n * batch_);
            x += n * batch_ * ops_.input_size();
            y += n * batch_ * ops_.output_size();
            steps -= n;
        }
    }

private:
    static int64_t checked(int64_t batch) {
        if (batch < 1)
            throw std::invalid_argument("batch_size is " + std::to_string(batch) +
                                        ", expected > 0");
        return batch;
    }

    int64_t batch_, block_;
    OpChain<T, RecurrentOp<T>> ops_;
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
    return body_->ops().input_size();
}

template <class T>
int64_t Stream<T>::output_size() const noexcept {
    return body_->ops().output_size();
}

template <class T>
void Stream<T>::process(const T* x, T* y, int64_t steps) noexcept {
    body_->process(x, y, steps);
}

template <class T>
int64_t Stream<T>::num_states() const noexcept {
    return body_->ops().num_states();
}

template <class T>
const LayerSpec& Stream<T>::spec(int64_t index) const noexcept {
    return body_->ops().spec(index);
}

template <class T>
void Stream<T>::get_state(T* h, T* c, int64_t index) const noexcept {
    const int64_t B = batch_size();
    for (int64_t l = 0; l < spec(index).num_layers; ++l)
        for (int64_t b = 0; b < B; ++b) {
            const StateRow<T> row = body_->ops().layer(index, l).state(b);
            row.get(h ? h + (l * B + b) * row.P : nullptr, c ? c + (l * B + b) * row.H : nullptr);
        }
}

template <class T>
void Stream<T>::set_state(const T* h, const T* c, int64_t index) noexcept {
    const int64_t B = batch_size();
    for (int64_t l = 0; l < spec(index).num_layers; ++l)
        for (int64_t b = 0; b < B; ++b) {
            const StateRow<T> row = body_->ops().layer(index, l).state(b);
            row.set(h ? h + (l * B + b) * row.P : nullptr, c ? c + (l * B + b) * row.H : nullptr);
        }
}

template <class T>
void Stream<T>::reset() noexcept {
    for (int64_t row = 0; row < batch_size(); ++row) reset(row);
}

template <class T>
void Stream<T>::reset(int64_t row) noexcept {
    body_->ops().each_layer(
        [&](int64_t, int64_t, const RecurrentOp<T>& op) { op.state(row).set(nullptr, nullptr); });
}

template class Stream<float>;
template class Stream<double>;

}  // namespace lstmcore
