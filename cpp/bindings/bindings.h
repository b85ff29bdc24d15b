// What the files of the bindings share.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <string>
#include <thread>

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

/// Adds the updates of the optimizers to the module.
void bind_optim(py::module_& m);
