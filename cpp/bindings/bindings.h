// What the files of the bindings share.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <chrono>
#include <string>
#include <thread>
#include <type_traits>

namespace py = pybind11;

inline void require(bool ok, const std::string& message) {
    if (!ok) throw py::value_error(message);
}

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

template <class T>
bool is_of(const py::array& array) {
    // NumPy's own dtypes are one object each, so that the comparison in full is rarely needed.
    return array.dtype().is(py::dtype::of<T>()) || py::isinstance<py::array_t<T>>(array);
}

/// The numbers of a C-contiguous array with `size` of them; it must be writable unless T is const.
template <class T>
T* numbers(const py::handle& object, py::ssize_t size, const char* name) {
    const auto check = [&](bool ok, const char* what) {
        if (!ok) throw py::value_error(name + std::string(what));
    };
    check(py::isinstance<py::array>(object), ": an array expected");
    const auto array = py::reinterpret_borrow<py::array>(object);
    check(is_of<std::remove_const_t<T>>(array), ": wrong dtype");
    check((array.flags() & py::array::c_style) != 0, ": not contiguous");
    check(reinterpret_cast<uintptr_t>(array.data()) % alignof(T) == 0, ": not aligned");
    check(std::is_const_v<T> || array.writeable(), ": read-only");
    check(array.size() == size, ": wrong size");
    return static_cast<T*>(const_cast<void*>(array.data()));
}

/// Adds the updates of the optimizers to the module.
void bind_optim(py::module_& m);
/// Adds the losses to the module.
void bind_losses(py::module_& m);
