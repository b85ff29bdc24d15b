// Models from files that Python's lstmcore.save wrote, for streams.
//
// For whole sequences, of models of any shape, see load_network() in network.h.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/result.h"
#include "lstmcore/stream.h"

namespace LSTMCORE_API lstmcore {

/// Reads a model: a safetensors file whose metadata describes it. Its recurrent layers, Linear,
/// LayerNorm, Softmax and activations (Tanh, ReLU, Sigmoid, GELU, SiLU, ELU, LeakyReLU, Activation
/// where the kernels have it), one after the other in a Sequential or a Model, or alone, become
/// stages, Dropout and CRF none. They are for a Stream; the weights of a recurrent
/// stage are for forward() as well. T must be the type that the file holds, and float where its
/// matrices are in int8.
/// Throws std::runtime_error, naming the file and what is wrong, if it cannot be read, is damaged
/// or holds anything else; std::bad_alloc.
template <class T>
LSTMCORE_API std::vector<Stage<T>> load_model(const std::string& path);

/// Reads the same from memory. `name` is what messages call it.
template <class T>
LSTMCORE_API std::vector<Stage<T>> load_model(const void* data, size_t bytes,
                                              const std::string& name);

/// The same without throwing.
template <class T>
LSTMCORE_API Result<std::vector<Stage<T>>> try_load_model(const std::string& path) noexcept;
template <class T>
LSTMCORE_API Result<std::vector<Stage<T>>> try_load_model(const void* data, size_t bytes,
                                                          const std::string& name) noexcept;

/// Stream(stages, batch_size) without throwing.
template <class T>
LSTMCORE_API Result<Stream<T>> try_open_stream(std::vector<Stage<T>> stages,
                                               int64_t batch_size = 1) noexcept;

}  // namespace LSTMCORE_API lstmcore
