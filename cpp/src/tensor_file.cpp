#include "tensor_file.h"

#include <algorithm>
#include <stdexcept>
#include <string_view>
#include <utility>

#include "json.h"

namespace lstmcore {
namespace {

/// Bytes of a number; 0 for a dtype that no model has.
int64_t size_of(const std::string& dtype) {
    for (const auto& [name, size] : {std::pair<const char*, int64_t>{"F64", 8}, {"F32", 4}})
        if (dtype == name) return size;
    return 0;
}

Tensor parse_tensor(const std::string& name, const Json& description, const char* data,
                    int64_t bytes) {
    const auto member = [&](const char* key) -> const Json& {
        if (const Json* found = description.find(key)) return *found;
        throw std::runtime_error("the tensor " + name + " has no " + key);
    };
    const std::string of = " of " + name;
    Tensor tensor;
    tensor.dtype = member("dtype").string("dtype" + of);
    for (const Json& size : member("shape").array("shape" + of))
        tensor.shape.push_back(size.integer("shape" + of));
    const Json::Array& offsets = member("data_offsets").array("data_offsets" + of);
    if (offsets.size() != 2)
        throw std::runtime_error("data_offsets" + of + " has " + std::to_string(offsets.size()) +
                                 " entries, expected 2");
    const int64_t first = offsets[0].integer("data_offsets" + of),
                  last = offsets[1].integer("data_offsets" + of);
    if (first > last || last > bytes)
        throw std::runtime_error("data_offsets" + of + " are " + std::to_string(first) + " and " +
                                 std::to_string(last) + " in " + std::to_string(bytes) + " bytes");
    tensor.data = data + first;
    tensor.bytes = last - first;
    int64_t expected = size_of(tensor.dtype);
    if (expected == 0)
        throw std::runtime_error("dtype" + of + " is " + tensor.dtype + ", expected F32 or F64");
    for (const int64_t size : tensor.shape)
        if (__builtin_mul_overflow(expected, size, &expected))
            throw std::runtime_error("shape" + of + " is too large");
    if (expected != tensor.bytes)
        throw std::runtime_error(name + " has " + std::to_string(tensor.bytes) +
                                 " bytes, but its shape needs " + std::to_string(expected));
    return tensor;
}

}  // namespace

TensorFile TensorFile::parse(const char* data, size_t bytes) {
    if (bytes < 8) throw std::runtime_error("it is too short for a safetensors file");
    uint64_t header = 0;
    for (int i = 7; i >= 0; --i) header = header << 8 | static_cast<unsigned char>(data[i]);
    if (header > bytes - 8)
        throw std::runtime_error("no safetensors file, or cut off: its header has " +
                                 std::to_string(header) + " bytes of " + std::to_string(bytes));
    const char* const numbers = data + 8 + header;
    const int64_t left = int64_t(bytes - 8 - header);
    const Json root = Json::parse(std::string_view(data + 8, header));

    TensorFile file;
    std::vector<std::pair<int64_t, int64_t>> pieces;
    for (const auto& [name, description] : root.object("the header")) {
        if (name == "__metadata__") {
            for (const auto& [key, value] : description.object(name))
                file.metadata[key] = value.string(key);
        } else {
            const Tensor tensor = parse_tensor(name, description, numbers, left);
            pieces.emplace_back(tensor.data - numbers, tensor.bytes);
            file.tensors[name] = tensor;
        }
    }
    std::sort(pieces.begin(), pieces.end());
    int64_t end = 0;
    for (const auto& [first, size] : pieces) {
        if (first != end) throw std::runtime_error("its tensors overlap or leave gaps");
        end += size;
    }
    if (end != left) throw std::runtime_error("it is longer than its tensors");
    return file;
}

}  // namespace lstmcore
