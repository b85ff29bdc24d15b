// Activations, softmax and layer normalization.
#include "lstmcore/row_functions.h"

#include <optional>

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

std::vector<int64_t> shape_of(const py::array& array) {
    return {array.shape(), array.shape() + array.ndim()};
}

template <class T>
py::array activate_of(const Activation& f, const py::array& x) {
    const T* from = numbers<const T>(x, "x");
    const int64_t n = x.size();
    auto y = empty_array<T>(shape_of(x));
    T* to = y.mutable_data();
    {
        const ReleaseGil release;
        activate(f, from, n, to, get_num_threads());
    }
    return y;
}

template <class T>
py::array activate_backward_of(const Activation& f, const py::array& from, const py::array& dy) {
    const T* gradient = numbers<const T>(dy, "dy");
    const T* given = numbers<const T>(from, "from");
    require(from.size() == dy.size(), "from: wrong size");
    auto dx = empty_array<T>(shape_of(dy));
    T* to = dx.mutable_data();
    {
        const ReleaseGil release;
        activate_backward(f, given, gradient, dy.size(), to, get_num_threads());
    }
    return dx;
}

template <class T>
py::array softmax_of(const py::array& x) {
    require(x.ndim() >= 1, "x: an axis expected");
    const T* from = numbers<const T>(x, "x");
    const int64_t classes = x.shape(x.ndim() - 1), rows = classes > 0 ? x.size() / classes : 0;
    auto y = empty_array<T>(shape_of(x));
    T* to = y.mutable_data();
    {
        const ReleaseGil release;
        softmax(from, rows, classes, to, get_num_threads());
    }
    return y;
}

template <class T>
py::array softmax_backward_of(const py::array& dy, const py::array& y) {
    require(y.ndim() >= 1 && y.size() == dy.size(), "y: wrong size");
    const T* gradient = numbers<const T>(dy, "dy");
    const T* given = numbers<const T>(y, "y");
    const int64_t classes = y.shape(y.ndim() - 1), rows = classes > 0 ? y.size() / classes : 0;
    auto dx = empty_array<T>(shape_of(dy));
    T* to = dx.mutable_data();
    {
        const ReleaseGil release;
        softmax_backward(gradient, given, rows, classes, to, get_num_threads());
    }
    return dx;
}

/// y, and in training what backward needs: scale, one for each row, and normal, (rows, features),
/// or None where that is y, as there are no parameters.
template <class T>
py::tuple layer_norm_of(const py::array& x, int64_t features,
                        const std::optional<py::array>& weight,
                        const std::optional<py::array>& bias, double eps, bool train) {
    require(features >= 1 && x.size() % features == 0, "x: wrong shape");
    const T* from = numbers<const T>(x, "x");
    const int64_t rows = x.size() / features;
    LayerNormArgs<T> args;
    args.features = features;
    args.eps = eps;
    if (weight) args.weight = numbers<const T>(*weight, features, "weight");
    if (bias) args.bias = numbers<const T>(*bias, features, "bias");
    auto y = empty_array<T>(shape_of(x));
    std::optional<py::array_t<T>> normal, scale;
    if (train) {
        scale = empty_array<T>({rows, 1});
        args.scale = scale->mutable_data();
    }
    if (train && (weight || bias)) {
        normal = empty_array<T>({rows, features});
        args.normal = normal->mutable_data();
    }
    T* to = y.mutable_data();
    {
        const ReleaseGil release;
        layer_norm(args, from, rows, to, get_num_threads());
    }
    return py::make_tuple(y, normal, scale);
}

/// dx, and the gradients of weight and bias, which are added to.
template <class T>
py::array layer_norm_backward_of(const py::array& dy, const py::array& normal,
                                 const py::array& scale, const std::optional<py::array>& weight,
                                 const std::optional<py::array>& dweight,
                                 const std::optional<py::array>& dbias) {
    require(normal.ndim() == 2 && normal.size() == dy.size(), "normal: wrong shape");
    const int64_t rows = normal.shape(0);
    LayerNormBackwardArgs<T> args;
    args.features = normal.shape(1);
    args.normal = numbers<const T>(normal, "normal");
    args.scale = numbers<const T>(scale, rows, "scale");
    if (weight) args.weight = numbers<const T>(*weight, args.features, "weight");
    if (dweight) args.dweight = numbers<T>(*dweight, args.features, "dweight");
    if (dbias) args.dbias = numbers<T>(*dbias, args.features, "dbias");
    const T* gradient = numbers<const T>(dy, "dy");
    auto dx = empty_array<T>(shape_of(dy));
    T* to = dx.mutable_data();
    {
        const ReleaseGil release;
        layer_norm_backward(args, gradient, rows, to, get_num_threads());
    }
    return dx;
}

}  // namespace

void bind_row_functions(py::module_& m) {
    m.def("activate", [](const ActivationTuple& f, const py::array& x) {
        const Activation activation = parse_activation(f);
        return is_of<double>(x) ? activate_of<double>(activation, x)
                                : activate_of<float>(activation, x);
    });
    m.def("activate_backward",
          [](const ActivationTuple& f, const py::array& from, const py::array& dy) {
              const Activation activation = parse_activation(f);
              return is_of<double>(dy) ? activate_backward_of<double>(activation, from, dy)
                                       : activate_backward_of<float>(activation, from, dy);
          });
    m.def("softmax", [](const py::array& x) {
        return is_of<double>(x) ? softmax_of<double>(x) : softmax_of<float>(x);
    });
    m.def("layer_norm",
          [](const py::array& x, int64_t features, const std::optional<py::array>& weight,
             const std::optional<py::array>& bias, double eps, bool train) {
              return is_of<double>(x) ? layer_norm_of<double>(x, features, weight, bias, eps, train)
                                      : layer_norm_of<float>(x, features, weight, bias, eps, train);
          });
    m.def("softmax_backward", [](const py::array& dy, const py::array& y) {
        return is_of<double>(y) ? softmax_backward_of<double>(dy, y)
                                : softmax_backward_of<float>(dy, y);
    });
    m.def("layer_norm_backward",
          [](const py::array& dy, const py::array& normal, const py::array& scale,
             const std::optional<py::array>& weight, const std::optional<py::array>& dweight,
             const std::optional<py::array>& dbias) {
              return is_of<double>(dy)
                         ? layer_norm_backward_of<double>(dy, normal, scale, weight, dweight, dbias)
                         : layer_norm_backward_of<float>(dy, normal, scale, weight, dweight, dbias);
          });
}
