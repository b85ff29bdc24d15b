// Models from files that Python's lstmcore.save wrote.
#pragma once

#include <string>
#include <vector>

#include "lstmcore/stream.h"

namespace lstmcore {

/// Reads a model: a safetensors file whose metadata describes it. Its recurrent layers, Linear,
/// LayerNorm, Tanh, ReLU, Sigmoid and Softmax, in a Sequential or alone, become stages, Dropout
/// none. They are for a Stream; the weights of a recurrent stage are for forward() as well. T must
/// be the type that the file holds, and float where its matrices are in int8.
/// Throws std::runtime_error, naming the file and what is wrong, if it cannot be read, is damaged
/// or holds anything else; std::bad_alloc.
template <class T>
std::vector<Stage<T>> load_model(const std::string& path);

/// Reads the same from memory. `name` is what messages call it.
template <class T>
std::vector<Stage<T>> load_model(const void* data, size_t bytes, const std::string& name);

}  // namespace lstmcore
