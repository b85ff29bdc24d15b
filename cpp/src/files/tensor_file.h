// The tensors of a safetensors file: eight bytes with the length of a JSON header, the header, and
// the numbers, one tensor behind the other without gaps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace lstmcore {

struct Tensor {
    std::string dtype;  // "F32" and the like
    std::vector<int64_t> shape;
    const char* data = nullptr;  // little-endian; not aligned
    int64_t bytes = 0;
};

struct TensorFile {
    std::map<std::string, Tensor> tensors;
    std::map<std::string, std::string> metadata;

    /// The tensors point into `data`. Throws std::runtime_error where the header is not as it must
    /// be or contradicts the size, or the checksum is there and wrong.
    static TensorFile parse(const char* data, size_t bytes);
};

}  // namespace lstmcore
