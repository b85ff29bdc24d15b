// What the files of the binding share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <type_traits>
#include <vector>

#include "lstmcore/layer.h"
#include "lstmcore/linear.h"
#include "lstmcore/memory.h"

namespace py = pybind11;
using namespace lstmcore;

inline void require(bool ok, const char* what, const char* wrong = "") {
    if (!ok) throw py::value_error(std::string(what) + wrong);
}

struct Spec {
    LayerSpec layer;
    bool is_double = false;

    int64_t states() const { return layer.num_layers * layer.directions(); }
};

using ActivationTuple = std::tuple<std::string, double, double>;

Activation parse_activation(const ActivationTuple& from);
Precision parse_precision(const std::string& name);

/// What the core has packed, of either dtype; the other is null.
template <template <class> class Packed>
struct OfEither {
    std::shared_ptr<const Packed<float>> f32;
    std::shared_ptr<const Packed<double>> f64;

    template <class T>
    const auto& of() const {
        if constexpr (std::is_same_v<T, float>)
            return f32;
        else
            return f64;
    }
};

struct PyWeights : OfEither<Weights> {
    Spec spec;

    int64_t nbytes() const { return f32 ? packed_bytes(*f32) : packed_bytes(*f64); }
};

struct PyLinear : OfEither<Linear> {
    int64_t inputs = 0, outputs = 0;
};

/// Loads objects of a bound class, but refuses one that `__new__` has made and `__init__` has not:
/// there pybind11 would hand out memory that nobody has written to.
template <class T>
struct InitializedCaster : py::detail::type_caster_base<T> {
    bool load(py::handle source, bool convert) {
        if (this->typeinfo && source && PyObject_TypeCheck(source.ptr(), this->typeinfo->type)) {
            auto* const instance = reinterpret_cast<py::detail::instance*>(source.ptr());
            if (!instance->get_value_and_holder().holder_constructed())
                throw py::type_error(std::string("this ") + Py_TYPE(source.ptr())->tp_name +
                                     " was never initialized: call its class, not __new__");
        }
        return py::detail::type_caster_base<T>::load(source, convert);
    }
};

template <>
struct py::detail::type_caster<Spec> : InitializedCaster<Spec> {};
template <>
struct py::detail::type_caster<PyWeights> : InitializedCaster<PyWeights> {};
template <>
struct py::detail::type_caster<PyLinear> : InitializedCaster<PyLinear> {};

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

    /// Takes the GIL for a moment and runs the handlers of signals that have come, such as Ctrl-C.
    /// Whether one of them has raised an exception, which then waits for py::error_already_set.
    bool run_signal_handlers() noexcept {
        PyEval_RestoreThread(state_);
        const bool raised = PyErr_CheckSignals() != 0;
        state_ = PyEval_SaveThread();
        return raised;
    }

private:
    PyThreadState* state_;
};

template <class T>
bool is_of(const py::array& array) {
    // NumPy's own dtypes are one object each, so that the comparison in full is rarely needed.
    return array.dtype().is(py::dtype::of<T>()) || py::isinstance<py::array_t<T>>(array);
}

/// The numbers of a C-contiguous array; it must be writable unless T is const.
template <class T>
T* numbers(const py::array& array, const char* name) {
    require(is_of<std::remove_const_t<T>>(array), name, ": wrong dtype");
    require((array.flags() & py::array::c_style) != 0, name, ": not contiguous");
    require(reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0, name, ": not aligned");
    require(std::is_const_v<T> || array.writeable(), name, ": read-only");
    return static_cast<T*>(const_cast<void*>(array.data()));
}

/// Those of an array with `size` of them.
template <class T>
T* numbers(const py::handle& object, py::ssize_t size, const char* name) {
    require(py::isinstance<py::array>(object), name, ": an array expected");
    const auto array = py::reinterpret_borrow<py::array>(object);
    require(array.size() == size, name, ": wrong size");
    return numbers<T>(array, name);
}

/// Those of an array with this shape, or null for None.
template <class T>
T* numbers_or_null(const std::optional<py::array>& array, std::initializer_list<int64_t> shape,
                   const char* name) {
    if (!array) return nullptr;
    require(std::equal(shape.begin(), shape.end(), array->shape(), array->shape() + array->ndim()),
            name, ": wrong shape");
    return numbers<T>(*array, name);
}

using Numpy = py::detail::npy_api;
constexpr int kReadable = Numpy::NPY_ARRAY_C_CONTIGUOUS_ | Numpy::NPY_ARRAY_ALIGNED_;

/// A new array, not initialised. (py::array would work out strides first, which takes as long.)
inline py::array make_array(py::dtype dtype, const int64_t* shape, size_t axes) {
    const Numpy& numpy = Numpy::get();
    Py_intptr_t dims[64];  // as many as NumPy allows
    require(axes <= std::size(dims), "shape: too many axes");
    std::copy_n(shape, axes, dims);
    PyObject* const array = numpy.PyArray_NewFromDescr_(
        numpy.PyArray_Type_, dtype.release().ptr(), int(axes), dims, nullptr, nullptr, 0, nullptr);
    if (array == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::array>(array);
}

/// The same of T. A large one is the memory of a Buffer.
template <class T>
py::array_t<T> empty_array(const std::vector<int64_t>& shape) {
    int64_t bytes = sizeof(T);
    for (const int64_t n : shape) bytes = size_product(bytes, n);
    if (bytes < Buffer::kKeptFrom)
        return make_array(py::dtype::of<T>(), shape.data(), shape.size());
    auto buffer = std::make_unique<Buffer>(bytes);
    T* data = static_cast<T*>(buffer->data());
    const py::capsule owner(buffer.get(), [](void* p) { delete static_cast<Buffer*>(p); });
    (void)buffer.release();  // it is the capsule's now
    return py::array_t<T>(shape, data, owner);
}

void bind_machine(py::module_& m);
void bind_spec(py::module_& m);
void bind_weights(py::module_& m);
void bind_layer(py::module_& m);
void bind_linear(py::module_& m);
void bind_row_functions(py::module_& m);
void bind_program(py::module_& m);
void bind_stream(py::module_& m);
void bind_stream_pool(py::module_& m);
void bind_attention(py::module_& m);
void bind_losses(py::module_& m);
void bind_ctc(py::module_& m);
void bind_crf(py::module_& m);
void bind_optim(py::module_& m);
void bind_scatter(py::module_& m);
