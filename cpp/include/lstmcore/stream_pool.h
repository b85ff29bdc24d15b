// Streams that come and go, any number of which take a step together: for servers.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/stream.h"
#include "lstmcore/stream_ids.h"

namespace LSTMCORE_API lstmcore {

/// Where the state of one stream is, of one recurrent stage: h (L, P) and, of an LSTM, c (L, H).
template <class T>
struct StreamState {
    T* h = nullptr;
    T* c = nullptr;
};

/// Runs stages over steps of streams, of which each has states of its own and a number. Every
/// stream has the bits of a Stream with batch_size 1, whatever others step with it.
///
/// All memory is taken when the pool is made; no other call allocates, locks, waits, throws or
/// calls the system, and each computes on the calling thread alone. Any thread may open, close and
/// reset streams, and read and set their states, while another one takes a step. Refused, with
/// nothing changed: a second step meanwhile; to read, set or reset a stream that is in the step.
/// One that is in it and closed takes it to the end, and its place is free then.
///
/// Letters as in Stream. A result that is false says what is wrong with which of the ids.
template <class T>
class StreamPool {
public:
    /// Throws as Stream's, and std::invalid_argument where capacity is not 1 .. 2^31 - 1.
    StreamPool(std::vector<Stage<T>> stages, int64_t capacity);
    StreamPool(std::shared_ptr<const Weights<T>> layer, int64_t capacity)
        : StreamPool(std::vector<Stage<T>>{std::move(layer)}, capacity) {}
    StreamPool(StreamPool&&) noexcept;
    StreamPool& operator=(StreamPool&&) noexcept;
    ~StreamPool();

    int64_t capacity() const noexcept;
    int64_t input_size() const noexcept;
    int64_t output_size() const noexcept;
    /// How many streams are open.
    int64_t count() const noexcept;

    /// A new stream, whose states are zero: its id, or -1 if there are as many as the capacity. No
    /// id comes twice; those of the first streams of a new pool are 0, 1, 2, ...
    int64_t open() noexcept;
    PoolResult close(int64_t id) noexcept;

    /// One step of n different streams: x (n, F_in), y (n, F_out); y may be x where F_in = F_out.
    PoolResult step(const int64_t* ids, int64_t n, const T* x, T* y) noexcept;

    /// The states of n different streams become zero.
    PoolResult reset(const int64_t* ids, int64_t n) noexcept;

    /// The recurrent stages, each of which has a state.
    int64_t num_states() const noexcept;
    const LayerSpec& spec(int64_t index) const noexcept;
    /// Of every recurrent stage; null h or c is not written.
    PoolResult get_state(int64_t id, const StreamState<T>* states) const noexcept;
    /// Null h or c stands for zeros.
    PoolResult set_state(int64_t id, const StreamState<const T>* states) noexcept;

private:
    class Body;
    std::unique_ptr<Body> body_;
};

extern template class StreamPool<float>;
extern template class StreamPool<double>;

}  // namespace LSTMCORE_API lstmcore
