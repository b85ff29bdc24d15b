// Recurrent layers, and a model around them, one step at a time: for audio callbacks, sensors,
// robots. Whatever can fail or wait happens when a stream is made; step() and process() then
// neither allocate nor lock nor throw nor call the system, and use the calling thread alone.
#pragma once

#include <cstdint>
#include <memory>
#include <variant>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/layer.h"
#include "lstmcore/linear.h"

namespace LSTMCORE_API lstmcore {

/// y = weight (x - mean) / sqrt(variance + eps) + bias over the features of a row (Ba et al. 2016);
/// without `weight` 1, without `bias` 0.
template <class T>
struct LayerNorm {
    int64_t features = 0;
    std::vector<T> weight, bias;  ///< (features) or empty
    double eps = 1e-5;
};

/// y = exp(x) / sum(exp(x)) over the features of a row.
struct Softmax {};

/// One stage of a model: recurrent layers, a linear map, or what works on each row by itself.
template <class T>
using Stage = std::variant<std::shared_ptr<const Weights<T>>, std::shared_ptr<const Linear<T>>,
                           LayerNorm<T>, Activation, Softmax>;

/// Runs stages one after the other over one step after the other, for a batch of independent rows,
/// and keeps the recurrent layers' states. The outputs are those of forward() over the whole
/// sequence, to the bit, however it is cut into steps and blocks.
///
/// The packed weights are shared with other streams; a stream itself is for one thread at a time.
/// Letters as in LayerSpec; F_in and F_out are the features of the first and the last stage.
template <class T>
class Stream {
public:
    /// The state is zero. Throws std::invalid_argument where the stages do not fit each other, or
    /// have a layer that reads from the end, or batch_size < 1; std::bad_alloc.
    explicit Stream(std::vector<Stage<T>> stages, int64_t batch_size = 1);
    explicit Stream(std::shared_ptr<const Weights<T>> layer, int64_t batch_size = 1)
        : Stream(std::vector<Stage<T>>{std::move(layer)}, batch_size) {}

    /// A copy shares the weights and has the state, from there on its own.
    Stream(const Stream& other);
    Stream(Stream&& other) noexcept;
    Stream& operator=(Stream other) noexcept;
    ~Stream();

    int64_t batch_size() const noexcept;
    int64_t input_size() const noexcept;
    int64_t output_size() const noexcept;

    /// x (B, F_in), y (B, F_out); y may be x.
    void step(const T* x, T* y) noexcept { process(x, y, 1); }
    /// x (T, B, F_in), y (T, B, F_out) for T = steps; y may be x where F_in = F_out.
    void process(const T* x, T* y, int64_t steps) noexcept;

    /// The recurrent stages, each of which has a state: h (L, B, P) and, of an LSTM, c (L, B, H).
    int64_t num_states() const noexcept;
    const LayerSpec& spec(int64_t index) const noexcept;
    /// Null h or c is not written.
    void get_state(T* h, T* c, int64_t index = 0) const noexcept;
    /// Null h or c stands for zeros.
    void set_state(const T* h, const T* c, int64_t index = 0) noexcept;
    /// All states, or those of one row, become zero.
    void reset() noexcept;
    void reset(int64_t row) noexcept;

private:
    class Body;
    std::unique_ptr<Body> body_;
};

extern template class Stream<float>;
extern template class Stream<double>;

}  // namespace LSTMCORE_API lstmcore
