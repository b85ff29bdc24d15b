// Whole models from files that Python's lstmcore.save wrote: sequences in, outputs out.
//
// For one step at a time, without allocating, see load_model() in model.h and Stream.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/result.h"

namespace LSTMCORE_API lstmcore {

/// What an input or output of a network is: (T, B, F) with steps, (states, B, F) of the state of a
/// recurrent layer, else (B, F). Ids have no F.
struct NetworkAxes {
    int64_t features = 0;  ///< F; 0 of ids
    bool steps = false;
    int64_t states = 0;
};

/// One input of a call, borrowed for it; `x` or `ids`, as the network's axes say.
template <class T>
struct NetworkInput {
    const T* x = nullptr;              ///< (T, B, F) or (B, F)
    const int64_t* ids = nullptr;      ///< (T, B) or (B)
    int64_t steps = 1;                 ///< T; 1 without steps
    const int64_t* lengths = nullptr;  ///< (B), each in 0..T; null: all are T
};

/// One output of a call.
template <class T>
struct NetworkOutput {
    std::vector<T> y;              ///< (T, B, F), (states, B, F) or (B, F)
    int64_t steps = 1;             ///< T, or states; else 1
    int64_t batch = 0;             ///< B
    int64_t features = 0;          ///< F
    std::vector<int64_t> lengths;  ///< (B), where rows end; empty if all have T steps
};

template <class T>
class Part;

/// A model as it was saved: a chain (Sequential), a graph (Model) or one module, of the modules
///
///   RNN, LSTM, GRU (all options, bidirectional too), Linear, Embedding, Conv1D,
///   LastStep, BothEnds, MeanPool, MaxPool, Flip, Masking, RepeatVector,
///   LayerNorm (over one axis), BatchNorm, Dropout (which does nothing here), CRF (its scores),
///   Tanh, ReLU, Sigmoid, Softmax, LogSoftmax, GELU, SiLU, ELU, LeakyReLU, PReLU, Softplus,
///   Activation,
///
/// and of what graphs do between them: sums, differences and products, concat, repeat, parts of
/// features and of states.
///
/// Time is the first axis here, whatever batch_first the model was saved with. What is past the end
/// of a row is as in Python: 0 behind layers that know of lengths.
///
/// Outputs are those of the model in Python called with the same sequences, at the same ISA level,
/// to the bit wherever Python computes in the core or by a few operations on single numbers. They
/// are within rounding behind MeanPool and behind LogSoftmax, GELU, ELU, Softplus and Activation,
/// for which NumPy has sums and functions of its own.
///
/// Immutable; the copies of a network share its weights, and any number of threads may call one.
template <class T>
class Network {
public:
    explicit Network(std::shared_ptr<const Part<T>> whole, std::vector<NetworkAxes> inputs);

    /// In the order in which the model was given them: of a dict, that of its names.
    const std::vector<NetworkAxes>& inputs() const noexcept { return inputs_; }
    /// A recurrent layer that was saved alone has y, h and, if it is an LSTM, c.
    const std::vector<NetworkAxes>& outputs() const noexcept { return outputs_; }

    /// Runs rows in a batch of `batch`, for inference. No row depends on another, nor on
    /// num_threads, to the bit. Throws std::invalid_argument, naming the input, where one is
    /// missing, a size is negative, a length is not in 0..T, an id is not in the table, or inputs
    /// that meet have different steps or lengths; std::bad_alloc.
    std::vector<NetworkOutput<T>> forward(const std::vector<NetworkInput<T>>& inputs, int64_t batch,
                                          int num_threads = 1) const;
    /// The same with one input and one output; of several outputs the first.
    NetworkOutput<T> forward(const NetworkInput<T>& input, int64_t batch,
                             int num_threads = 1) const;
    /// The same without throwing.
    Result<std::vector<NetworkOutput<T>>> try_forward(const std::vector<NetworkInput<T>>& inputs,
                                                      int64_t batch,
                                                      int num_threads = 1) const noexcept;

private:
    std::shared_ptr<const Part<T>> whole_;
    std::vector<NetworkAxes> inputs_, outputs_;
};

extern template class Network<float>;
extern template class Network<double>;

/// Reads a network. T must be the type that the file holds, and float where its matrices are in
/// int8. Throws std::runtime_error, naming the file and what is wrong, if it cannot be read, is
/// damaged or holds a module that is none of those above; std::bad_alloc.
template <class T>
LSTMCORE_API Network<T> load_network(const std::string& path);

/// Reads the same from memory. `name` is what messages call it.
template <class T>
LSTMCORE_API Network<T> load_network(const void* data, size_t bytes, const std::string& name);

/// The same without throwing.
template <class T>
LSTMCORE_API Result<Network<T>> try_load_network(const std::string& path) noexcept;
template <class T>
LSTMCORE_API Result<Network<T>> try_load_network(const void* data, size_t bytes,
                                                 const std::string& name) noexcept;

}  // namespace LSTMCORE_API lstmcore
