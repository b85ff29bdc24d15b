// Pools. The streams of a step go through all stages in groups, so that what one stage hands to the
// next is still in the cache.
#include "lstmcore/stream_pool.h"

#include <algorithm>
#include <utility>

#include "machine/caches.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "stream/op_chain.h"

namespace lstmcore {
namespace {

/// How many streams go through the stages at once.
template <class T>
int64_t group_size(const std::vector<Stage<T>>& stages, int64_t capacity) {
    int64_t widest = 1;  // numbers of a row of an input product
    for (const Stage<T>& stage : stages)
        if (const auto* weights = std::get_if<std::shared_ptr<const Weights<T>>>(&stage))
            if (*weights) widest = std::max(widest, (*weights)->direction(0, 0).w_ih.N);
    const int64_t rows = kInputChunkBytes / (widest * int64_t(sizeof(T)));
    return std::min(std::max(rows, kInputChunkFarRows), capacity);
}

}  // namespace

template <class T>
class StreamPool<T>::Body {
public:
    Body(std::vector<Stage<T>> stages, int64_t capacity, const Kernels<T>& kernels)
        : ids_(capacity),
          group_(group_size<T>(stages, capacity)),
          places_(group_),
          ops_(std::move(stages), kernels, group_,
               [&](const Weights<T>& weights, int64_t layer, Arena& arena) {
                   return PooledOp<T>(weights, layer, capacity, group_, places_.data(), arena);
               }) {}

    StreamIds& ids() { return ids_; }
    const OpChain<T, PooledOp<T>>& ops() const { return ops_; }

    PoolResult step(const int64_t* ids, int64_t n, const T* x, T* y) noexcept {
        if (stepping_.exchange(true, std::memory_order_acquire)) return {PoolError::stepping, 0};
        const PoolResult result = with(ids, n, [&](int64_t first) noexcept { run(first, x, y); });
        stepping_.store(false, std::memory_order_release);
        return result;
    }

    /// Calls f(first) for the chain of n streams, which are claimed meanwhile.
    template <class F>
    PoolResult with(const int64_t* ids, int64_t n, F f) noexcept {
        int64_t first;
        const PoolResult result = ids_.claim(ids, n, &first);
        if (!result) return result;
        f(first);
        ids_.release(first);
        return result;
    }

    void clear(int64_t place) const noexcept {
        ops_.each_layer([&](int64_t, int64_t, const PooledOp<T>& op) {
            op.state(place).set(nullptr, nullptr);
        });
    }

private:
    void run(int64_t place, const T* x, T* y) noexcept {
        const FlushDenormals mode;
        while (place >= 0) {
            int64_t n = 0;
            for (; n < group_ && place >= 0; place = ids_.next(place)) places_[n++] = place;
            ops_.run(x, y, n);
            x += n * ops_.input_size();
            y += n * ops_.output_size();
        }
    }

    StreamIds ids_;
    std::atomic<bool> stepping_{false};
    int64_t group_;
    std::vector<int64_t> places_;  ///< of the streams that are computed now
    OpChain<T, PooledOp<T>> ops_;
};

template <class T>
StreamPool<T>::StreamPool(std::vector<Stage<T>> stages, int64_t capacity)
    : body_(std::make_unique<Body>(std::move(stages), capacity, kernel_table().of<T>())) {}

template <class T>
StreamPool<T>::StreamPool(StreamPool&&) noexcept = default;
template <class T>
StreamPool<T>& StreamPool<T>::operator=(StreamPool&&) noexcept = default;
template <class T>
StreamPool<T>::~StreamPool() = default;

template <class T>
int64_t StreamPool<T>::capacity() const noexcept {
    return body_->ids().capacity();
}

template <class T>
int64_t StreamPool<T>::input_size() const noexcept {
    return body_->ops().input_size();
}

template <class T>
int64_t StreamPool<T>::output_size() const noexcept {
    return body_->ops().output_size();
}

template <class T>
int64_t StreamPool<T>::count() const noexcept {
    return body_->ids().count();
}

template <class T>
int64_t StreamPool<T>::open() noexcept {
    StreamIds& ids = body_->ids();
    const int64_t id = ids.open();
    if (id < 0) return id;
    body_->clear(ids.place(id));
    ids.release(ids.place(id));
    return id;
}

template <class T>
PoolResult StreamPool<T>::close(int64_t id) noexcept {
    return body_->ids().close(id);
}

template <class T>
PoolResult StreamPool<T>::step(const int64_t* ids, int64_t n, const T* x, T* y) noexcept {
    return body_->step(ids, n, x, y);
}

template <class T>
PoolResult StreamPool<T>::reset(const int64_t* ids, int64_t n) noexcept {
    return body_->with(ids, n, [&](int64_t place) noexcept {
        for (; place >= 0; place = body_->ids().next(place)) body_->clear(place);
    });
}

template <class T>
int64_t StreamPool<T>::num_states() const noexcept {
    return body_->ops().num_states();
}

template <class T>
const LayerSpec& StreamPool<T>::spec(int64_t index) const noexcept {
    return body_->ops().spec(index);
}

template <class T>
PoolResult StreamPool<T>::get_state(int64_t id, const StreamState<T>* states) const noexcept {
    return body_->with(&id, 1, [&](int64_t place) noexcept {
        body_->ops().each_layer([&](int64_t index, int64_t l, const PooledOp<T>& op) {
            const StateRow<T> row = op.state(place);
            const auto& [h, c] = states[index];
            row.get(h ? h + l * row.P : nullptr, c ? c + l * row.H : nullptr);
        });
    });
}

template <class T>
PoolResult StreamPool<T>::set_state(int64_t id, const StreamState<const T>* states) noexcept {
    return body_->with(&id, 1, [&](int64_t place) noexcept {
        body_->ops().each_layer([&](int64_t index, int64_t l, const PooledOp<T>& op) {
            const StateRow<T> row = op.state(place);
            const auto& [h, c] = states[index];
            row.set(h ? h + l * row.P : nullptr, c ? c + l * row.H : nullptr);
        });
    });
}

template class StreamPool<float>;
template class StreamPool<double>;

}  // namespace lstmcore
