// What the files of the binding share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "lstmcore/layer.h"

namespace py = pybind11;
using namespace lstmcore;

inline void require(bool ok, const std::string& message) {
    if (!ok) throw py::value_error(message);
}

struct Spec {
    LayerSpec layer;
    bool is_double = false;

    int64_t states() const { return layer.num_layers * layer.directions(); }
};

using ActivationTuple = std::tuple<std::string, double, double>;

Activation parse_activation(const ActivationTuple& from);

struct PyWeights {
    Spec spec;
    std::shared_ptr<const Weights<float>> f32;
    std::shared_ptr<const Weights<double>> f64;

    template <class T>
    const auto& of() const {
        if constexpr (std::is_same_v<T, float>)
            return f32;
        else
            return f64;
    }
    int64_t nbytes() const { return f32 ? packed_bytes(*f32) : packed_bytes(*f64); }
};

/// Releases the GIL while it lives. Unlike pybind11's, it lets a daemon thread that wakes up while
/// the interpreter is going down wait there for the end: CPython before 3.14 unwinds such a thread
/// (pthread_exit), which no destructor survives.
class ReleaseGil {
public:
    ReleaseGil() : state_(PyEval_SaveThread()) {}
    ~ReleaseGil() {
        try {
            PyEval_RestoreThread(state_);
        } catch (...) {
            for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
        }
    }
    ReleaseGil(const ReleaseGil&) = delete;

private:
    PyThreadState* state_;
};

/// A C-contiguous array of T with this shape, or null for None.
template <class T>
const T* data_of(const std::optional<py::array>& array, const char* name,
                 const std::vector<int64_t>& shape) {
    if (!array) return nullptr;
    require(py::isinstance<py::array_t<T>>(*array), std::string(name) + ": wrong dtype");
    require((array->flags() & py::array::c_style) != 0, std::string(name) + ": not contiguous");
    require(std::vector<int64_t>(array->shape(), array->shape() + array->ndim()) == shape,
            std::string(name) + ": wrong shape");
    return static_cast<const T*>(array->data());
}

void bind_stream(py::module_& m);
