// Makes the parts of a network of the modules that a file describes.
#pragma once

#include "files/json.h"
#include "files/tensor_file.h"
#include "network/part.h"

namespace lstmcore {

/// Makes a module, of the tensors of the file, each of which must be one of its parameters. Throws
/// std::runtime_error; std::invalid_argument of options that contradict each other; std::bad_alloc.
template <class T>
PartPointer<T> read_module(const Json& description, const TensorFile& file);

}  // namespace lstmcore
