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

}  // namespace

void bind_row_functions(py::module_& m) {
    m.def("activate", [](const ActivationTuple& f, const py::array& x) {
        const Activation activation = parse_activation(f);
        return is_of<double>(x) ? activate_of<double>(activation, x)
                                : activate_of<float>(activation, x);
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
}
