// What streams and pools have in common in the binding: their stages, their states, and methods
// that are called for every frame.
#pragma once

#include <new>
#include <stdexcept>
#include <utility>
#include <variant>

#include "binding.h"
#include "lstmcore/stream_pool.h"

/// From so many multiply-adds on, a few microseconds, a call releases the GIL.
constexpr double kLongCall = 1 << 16;

constexpr int kWritable = kReadable | Numpy::NPY_ARRAY_WRITEABLE_;

/// One stage of a model and how many multiply-adds a row of it costs.
template <class T>
std::pair<Stage<T>, double> parse_stage(const py::handle& stage) {
    if (py::isinstance<PyWeights>(stage)) {
        const auto& weights = stage.cast<const PyWeights&>().of<T>();
        require(weights != nullptr, "stages: wrong dtype");
        return {weights, double(packed_bytes(*weights)) / sizeof(T)};
    }
    if (py::isinstance<PyLinear>(stage)) {
        const auto& linear = stage.cast<const PyLinear&>();
        require(linear.of<T>() != nullptr, "stages: wrong dtype");
        return {linear.of<T>(), double(linear.inputs * linear.outputs)};
    }
    const auto parts = stage.cast<py::tuple>();
    const auto kind = parts[0].cast<std::string>();
    const auto numbers = [&](size_t i, int64_t n) {
        const auto array = parts[i].cast<std::optional<py::array>>();
        const T* data = numbers_or_null<const T>(array, {n}, "stages");
        return data ? std::vector<T>(data, data + n) : std::vector<T>();
    };
    if (kind == "activation") return {parse_activation(parts[1].cast<ActivationTuple>()), 0};
    if (kind == "softmax") return {Softmax{}, 0};
    require(kind == "layer_norm", "stages: unknown kind");
    const auto features = parts[1].cast<int64_t>();
    return {
        LayerNorm<T>{features, numbers(2, features), numbers(3, features), parts[4].cast<double>()},
        0};
}

/// All stages, and how many multiply-adds a row of them costs.
template <class T>
std::pair<std::vector<Stage<T>>, double> parse_stages(const py::sequence& stages) {
    std::pair<std::vector<Stage<T>>, double> parsed;
    for (const py::handle stage : stages) {
        auto [one, multiply_adds] = parse_stage<T>(stage);
        parsed.first.push_back(std::move(one));
        parsed.second += multiply_adds;
    }
    return parsed;
}

/// h and c of every recurrent stage; None stands for zeros.
using StateArrays = std::vector<std::pair<std::optional<py::array>, std::optional<py::array>>>;

/// New arrays for the state of a recurrent stage: h (L, B, P) and, of an LSTM, c (L, B, H).
template <class T>
std::pair<py::array_t<T>, std::optional<py::array_t<T>>> state_arrays(const LayerSpec& spec,
                                                                      int64_t batch) {
    std::optional<py::array_t<T>> c;
    if (spec.cell.kind == CellKind::lstm)
        c.emplace(std::vector<int64_t>{spec.num_layers, batch, spec.hidden_size});
    return {py::array_t<T>({spec.num_layers, batch, spec.output_size()}), std::move(c)};
}

/// The numbers of given states, once all are known to fit the stages of a stream or pool.
template <class T, class Streams>
std::vector<StreamState<const T>> state_parts(const Streams& streams, const StateArrays& states,
                                              int64_t batch) {
    require(int64_t(states.size()) == streams.num_states(), "states: wrong number");
    std::vector<StreamState<const T>> parts;
    for (int64_t i = 0; i < streams.num_states(); ++i) {
        const LayerSpec& spec = streams.spec(i);
        parts.push_back({numbers_or_null<const T>(
                             states[i].first, {spec.num_layers, batch, spec.output_size()}, "h"),
                         numbers_or_null<const T>(
                             states[i].second, {spec.num_layers, batch, spec.hidden_size}, "c")});
    }
    return parts;
}

/// Whether memory that is written before it is read would be read.
inline bool overlap(const py::array& x, const py::array& out) {
    const char* const a = static_cast<const char*>(x.data());
    const char* const b = static_cast<const char*>(out.data());
    return a < b + out.nbytes() && b < a + x.nbytes() && !(a == b && x.nbytes() == out.nbytes());
}

/// The arguments of these names, by place and by name; null those not given. False if there are
/// others.
template <size_t kCount>
bool take_arguments(PyObject* const* arguments, Py_ssize_t count, PyObject* names,
                    const char* const (&expected)[kCount], PyObject* (&given)[kCount]) {
    if (count > Py_ssize_t(kCount)) return false;
    std::copy_n(arguments, count, given);
    for (Py_ssize_t i = 0; names && i < PyTuple_GET_SIZE(names); ++i) {
        PyObject* const name = PyTuple_GET_ITEM(names, i);
        size_t which = 0;
        while (which < kCount && PyUnicode_CompareWithASCIIString(name, expected[which]) != 0)
            ++which;
        if (which == kCount || given[which] != nullptr) return false;
        given[which] = arguments[count + i];
    }
    return true;
}

/// What f() returns, as a new reference; null with Python's error set if it throws.
template <class F>
PyObject* or_error(F f) {
    try {
        return f().release().ptr();
    } catch (py::error_already_set& error) {
        error.restore();
    } catch (const py::builtin_exception& error) {
        error.set_error();
    } catch (const std::bad_alloc&) {
        PyErr_NoMemory();
    } catch (const std::exception& error) {
        PyErr_SetString(PyExc_RuntimeError, error.what());
    }
    return nullptr;
}

/// Adds a plain C method that takes its arguments by METH_FASTCALL | METH_KEYWORDS.
template <auto kFunction, class Class>
void add_method(Class& type, const char* name, const char* doc) {
    const auto function = reinterpret_cast<void (*)()>(kFunction);
    static PyMethodDef definition{name, reinterpret_cast<PyCFunction>(function),
                                  METH_FASTCALL | METH_KEYWORDS, doc};
    PyObject* const descriptor =
        PyDescr_NewMethod(reinterpret_cast<PyTypeObject*>(type.ptr()), &definition);
    if (descriptor == nullptr) throw py::error_already_set();
    type.attr(name) = py::reinterpret_steal<py::object>(descriptor);
}
