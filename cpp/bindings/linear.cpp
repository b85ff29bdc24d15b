// Linear maps: packed, forward and backward, over the last axis of what they are given.
#include "lstmcore/linear.h"

#include <optional>

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

template <class T>
std::shared_ptr<const Linear<T>> pack_as(const py::array& weight,
                                         const std::optional<py::array>& bias, bool train,
                                         Precision precision) {
    const int64_t outputs = weight.shape(0), inputs = weight.shape(1);
    const T* w = numbers_or_null<const T>(weight, {outputs, inputs}, "weight");
    const T* b = numbers_or_null<const T>(bias, {outputs}, "bias");
    const ReleaseGil release;
    return pack_linear(w, b, inputs, outputs, train, get_num_threads(), precision);
}

PyLinear pack_any(const py::array& weight, const std::optional<py::array>& bias, bool train,
                  const std::string& precision) {
    require(weight.ndim() == 2, "weight: wrong shape");
    PyLinear linear;
    linear.outputs = weight.shape(0);
    linear.inputs = weight.shape(1);
    if (is_of<double>(weight))
        linear.f64 = pack_as<double>(weight, bias, train, parse_precision(precision));
    else
        linear.f32 = pack_as<float>(weight, bias, train, parse_precision(precision));
    return linear;
}

PyLinear pack_quantized_linear(const py::array& weight, const py::array& scales,
                               const std::optional<py::array>& bias) {
    require(weight.ndim() == 2, "weight: wrong shape");
    PyLinear linear;
    linear.outputs = weight.shape(0);
    linear.inputs = weight.shape(1);
    const QuantizedMatrix matrix{numbers<const int8_t>(weight, "weight"),
                                 numbers_or_null<const float>(scales, {linear.outputs}, "scales")};
    const float* b = numbers_or_null<const float>(bias, {linear.outputs}, "bias");
    const ReleaseGil release;
    linear.f32 = pack_linear(matrix, b, linear.inputs, linear.outputs, get_num_threads());
    return linear;
}

/// The shape of x with another last axis.
std::vector<int64_t> with_last(const py::array& x, int64_t n) {
    std::vector<int64_t> shape(x.shape(), x.shape() + x.ndim());
    shape.back() = n;
    return shape;
}

template <class T>
py::array forward_of(const PyLinear& linear, const py::array& x) {
    require(x.ndim() >= 1 && x.shape(x.ndim() - 1) == linear.inputs, "x: wrong shape");
    const int64_t rows = x.size() / linear.inputs;
    const T* from = numbers<const T>(x, x.size(), "x");
    auto y = empty_array<T>(with_last(x, linear.outputs));
    T* to = y.mutable_data();
    {
        const ReleaseGil release;
        linear_forward(*linear.of<T>(), from, rows, to, get_num_threads());
    }
    return y;
}

template <class T>
py::array backward_of(const PyLinear& linear, const py::array& x, const py::array& dy,
                      const py::array& dweight, const std::optional<py::array>& dbias) {
    require(x.ndim() >= 1 && x.shape(x.ndim() - 1) == linear.inputs, "x: wrong shape");
    const int64_t rows = x.size() / linear.inputs;
    const T* x_data = numbers<const T>(x, x.size(), "x");
    const T* dy_data = numbers<const T>(dy, rows * linear.outputs, "dy");
    T* dw = numbers<T>(dweight, linear.outputs * linear.inputs, "dweight");
    T* db = dbias ? numbers<T>(*dbias, linear.outputs, "dbias") : nullptr;
    auto dx = empty_array<T>(with_last(x, linear.inputs));
    T* to = dx.mutable_data();
    {
        const ReleaseGil release;
        linear_backward(*linear.of<T>(), x_data, dy_data, rows, to, dw, db, get_num_threads());
    }
    return dx;
}

}  // namespace

void bind_linear(py::module_& m) {
    const py::class_<PyLinear> type(m, "Linear", py::is_final());
    m.def("pack_linear", &pack_any, py::arg("weight"), py::arg("bias"), py::arg("train"),
          py::arg("precision") = "float32");
    m.def("pack_quantized_linear", &pack_quantized_linear, py::arg("weight"), py::arg("scales"),
          py::arg("bias"));
    m.def("linear_forward", [](const PyLinear& linear, const py::array& x) {
        return linear.f64 ? forward_of<double>(linear, x) : forward_of<float>(linear, x);
    });
    m.def(
        "linear_backward",
        [](const PyLinear& linear, const py::array& x, const py::array& dy,
           const py::array& dweight, const std::optional<py::array>& dbias) {
            return linear.f64 ? backward_of<double>(linear, x, dy, dweight, dbias)
                              : backward_of<float>(linear, x, dy, dweight, dbias);
        },
        py::arg("linear"), py::arg("x"), py::arg("dy"), py::arg("dweight"),
        py::arg("dbias") = py::none());
}
