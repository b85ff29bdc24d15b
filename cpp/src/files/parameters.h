// The parameters of modules, taken out of a file by name: each must have a use.
#pragma once

#include <cstring>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include "files/tensor_file.h"
#include "lstmcore/quantized.h"

namespace lstmcore {

template <class T>
class FileParameters {
public:
    explicit FileParameters(const TensorFile& file) : file_(file) {}

    /// The numbers of a tensor of exactly this shape, valid until forget().
    const T* take(const std::string& name, const std::vector<int64_t>& shape) {
        return take_numbers<T>(name, shape, sizeof(T) == 4 ? "F32" : "F64");
    }
    std::vector<T> vector(const std::string& name, int64_t size) {
        const T* data = take(name, {size});
        return {data, data + size};
    }
    /// The same of a matrix in int8, whose scales are beside it.
    QuantizedMatrix take_quantized(const std::string& name, const std::vector<int64_t>& shape) {
        return {take_numbers<int8_t>(name, shape, "I8"),
                take_numbers<float>(name + "_scale", {shape[0]}, "F32")};
    }
    void forget() { kept_.clear(); }

    void check_all_used() const {
        for (const auto& [name, tensor] : file_.tensors)
            if (!used_.count(name)) throw std::runtime_error("the tensor " + name + " is unknown");
    }

private:
    template <class Number>
    const Number* take_numbers(const std::string& name, const std::vector<int64_t>& shape,
                               const char* dtype) {
        const auto found = file_.tensors.find(name);
        if (found == file_.tensors.end())
            throw std::runtime_error("the tensor " + name + " is missing");
        const Tensor& tensor = found->second;
        if (tensor.dtype != dtype)
            throw std::runtime_error("the tensor " + name + " is " + tensor.dtype + ", expected " +
                                     dtype);
        if (tensor.shape != shape)
            throw std::runtime_error("the tensor " + name + " has the shape " + text(tensor.shape) +
                                     ", expected " + text(shape));
        used_.insert(name);
        // At least one byte: a null pointer would say that the tensor is not there.
        kept_.push_back(std::make_unique<char[]>(size_t(tensor.bytes) + 1));
        if (tensor.bytes > 0) std::memcpy(kept_.back().get(), tensor.data, size_t(tensor.bytes));
        return reinterpret_cast<const Number*>(kept_.back().get());
    }

    static std::string text(const std::vector<int64_t>& shape) {
        std::string out;
        for (const int64_t size : shape) out += (out.empty() ? "" : ", ") + std::to_string(size);
        return "(" + out + ")";
    }

    const TensorFile& file_;
    std::set<std::string> used_;
    std::vector<std::unique_ptr<char[]>> kept_;
};

}  // namespace lstmcore
