// Packed weights, and whether the parameters that they were packed from have changed.
#include <algorithm>
#include <cstring>

#include "binding.h"
#include "layer_call.h"
#include "lstmcore/machine.h"

namespace {

template <class T>
std::shared_ptr<const Weights<T>> pack_as(const Spec& spec, const std::vector<py::array>& arrays,
                                          bool train, Precision precision) {
    const auto sets = split_sets<Parameters<const T>, const T>(spec, arrays, "parameters");
    const ReleaseGil release;
    return pack<T>(spec.layer, sets, train, get_num_threads(), precision);
}

PyWeights pack_weights(const Spec& spec, const std::vector<py::array>& arrays, bool train,
                       const std::string& precision) {
    PyWeights weights{{}, spec};
    if (spec.is_double)
        weights.f64 = pack_as<double>(spec, arrays, train, parse_precision(precision));
    else
        weights.f32 = pack_as<float>(spec, arrays, train, parse_precision(precision));
    return weights;
}

PyWeights pack_quantized(const Spec& spec, const std::vector<py::array>& arrays) {
    require(!spec.is_double, "spec: float64, which int8 is not there for");
    PyWeights weights{{}, spec};
    const auto sets = split_sets<QuantizedParameters, const float>(spec, arrays, "parameters");
    const ReleaseGil release;
    weights.f32 = pack(spec.layer, sets, get_num_threads());
    return weights;
}

/// A matrix in int8 and the scales of its rows; None if it has a number that is not finite.
py::object quantize_matrix(const py::array& matrix) {
    require(matrix.ndim() == 2, "matrix: 2 axes expected");
    const float* from = numbers<const float>(matrix, "matrix");
    auto values = empty_array<int8_t>({matrix.shape(0), matrix.shape(1)});
    auto scales = empty_array<float>({matrix.shape(0)});
    int8_t* to = values.mutable_data();
    float* scales_to = scales.mutable_data();
    bool finite;
    {
        const ReleaseGil release;
        finite = quantize(from, matrix.shape(0), matrix.shape(1), to, scales_to);
    }
    if (!finite) return py::none();
    return py::make_tuple(values, scales);
}

/// In place.
void round_array(py::array& array) {
    float* const data = numbers<float>(array, "array");
    const ReleaseGil release;
    round_bfloat16(data, array.size());
}

/// Whether the arrays of two lists have the same shapes and bits, one by one.
bool same_bits(const std::vector<py::array>& some, const std::vector<py::array>& others) {
    constexpr size_t kLong = 1 << 18;  // bytes: from there on it releases the GIL
    struct Pair {
        const void *one, *other;
        size_t nbytes;
    };
    if (some.size() != others.size()) return false;
    std::vector<Pair> pairs;
    size_t total = 0;
    for (size_t i = 0; i < some.size(); ++i) {
        const py::array &a = some[i], &b = others[i];
        require((a.flags() & b.flags() & py::array::c_style) != 0, "arrays: not contiguous");
        if (a.nbytes() != b.nbytes() || a.ndim() != b.ndim() ||
            !std::equal(a.shape(), a.shape() + a.ndim(), b.shape()))
            return false;
        pairs.push_back({a.data(), b.data(), size_t(a.nbytes())});
        total += size_t(a.nbytes());
    }
    std::optional<ReleaseGil> release;
    if (total >= kLong) release.emplace();
    return std::all_of(pairs.begin(), pairs.end(), [](const Pair& pair) {
        return std::memcmp(pair.one, pair.other, pair.nbytes) == 0;
    });
}

}  // namespace

void bind_weights(py::module_& m) {
    py::class_<PyWeights>(m, "Weights", py::is_final())
        .def_property_readonly("nbytes", &PyWeights::nbytes);
    m.def("pack", &pack_weights, py::arg("spec"), py::arg("parameters"), py::arg("train"),
          py::arg("precision") = "float32");
    m.def("pack_quantized", &pack_quantized, py::arg("spec"), py::arg("parameters"));
    m.def("quantize", &quantize_matrix, py::arg("matrix"));
    m.def("round_bfloat16", &round_array, py::arg("array").noconvert());
    m.def("same_bits", &same_bits, py::arg("some"), py::arg("others"));
}
