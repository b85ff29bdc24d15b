// Scaled dot-product attention.
#include "lstmcore/attention.h"

#include "binding.h"
#include "lstmcore/machine.h"

namespace {

/// What both directions are given.
struct Given {
    const py::array &query, &key, &value;
    const std::optional<py::array>&lengths, &kept;
    double scale;
    int64_t heads;
    bool batch_first, causal;
};

AttentionShape shape_of(const Given& given) {
    const py::array &query = given.query, &key = given.key, &value = given.value;
    require(query.ndim() == 3 && key.ndim() == 3 && value.ndim() == 3, "three axes expected");
    require(
        given.heads >= 1 && query.shape(2) % given.heads == 0 && value.shape(2) % given.heads == 0,
        "heads: they share no axis");
    const int batch = given.batch_first ? 0 : 1, time = 1 - batch;
    AttentionShape shape{};
    shape.B = query.shape(batch);
    shape.T = query.shape(time);
    shape.S = key.shape(time);
    shape.heads = given.heads;
    shape.size = query.shape(2) / given.heads;
    shape.value_size = value.shape(2) / given.heads;
    shape.batch_first = given.batch_first;
    shape.causal = given.causal;
    require(key.shape(batch) == shape.B && key.shape(2) == query.shape(2), "key: wrong shape");
    require(value.shape(batch) == shape.B && value.shape(time) == shape.S, "value: wrong shape");
    shape.lengths = numbers_or_null<const int64_t>(given.lengths, {shape.B}, "lengths");
    return shape;
}

int64_t weights_of(const AttentionShape& shape) {
    return size_product(size_product(shape.B, shape.heads), shape.T, shape.S);
}

template <class T>
AttentionInputs<T> inputs_of(const Given& given, const AttentionShape& shape) {
    AttentionInputs<T> inputs{};
    inputs.query = numbers<const T>(given.query, "query");
    inputs.key = numbers<const T>(given.key, "key");
    inputs.value = numbers<const T>(given.value, "value");
    inputs.scale = T(given.scale);
    if (given.kept) inputs.kept = numbers<const T>(*given.kept, weights_of(shape), "kept");
    return inputs;
}

std::vector<int64_t> in_order(const AttentionShape& shape, int64_t steps, int64_t size) {
    const int64_t last = shape.heads * size;
    if (shape.batch_first) return {shape.B, steps, last};
    return {steps, shape.B, last};
}

template <class T>
py::array forward_of(const Given& given, const std::optional<py::array>& weights,
                     const std::optional<py::array>& mean) {
    const AttentionShape shape = shape_of(given);
    const AttentionInputs<T> inputs = inputs_of<T>(given, shape);
    T* const each = weights ? numbers<T>(*weights, weights_of(shape), "weights") : nullptr;
    T* const shown = numbers_or_null<T>(mean, {shape.B, shape.T, shape.S}, "mean");
    auto y = empty_array<T>(in_order(shape, shape.T, shape.value_size));
    T* const out = y.mutable_data();
    {
        const ReleaseGil release;
        attention(shape, inputs, out, each, shown, get_num_threads());
    }
    return y;
}

template <class T>
py::tuple backward_of(const Given& given, const py::array& weights, const py::array& dy) {
    const AttentionShape shape = shape_of(given);
    const AttentionInputs<T> inputs = inputs_of<T>(given, shape);
    const T* const each = numbers<const T>(weights, weights_of(shape), "weights");
    const int64_t numbers_of_y = size_product(shape.B, shape.T, given.value.shape(2));
    const T* const from = numbers<const T>(dy, numbers_of_y, "dy");
    auto dquery = empty_array<T>(in_order(shape, shape.T, shape.size));
    auto dkey = empty_array<T>(in_order(shape, shape.S, shape.size));
    auto dvalue = empty_array<T>(in_order(shape, shape.S, shape.value_size));
    const AttentionGradients<T> gradients{dquery.mutable_data(), dkey.mutable_data(),
                                          dvalue.mutable_data()};
    {
        const ReleaseGil release;
        attention_backward(shape, inputs, each, from, gradients, get_num_threads());
    }
    return py::make_tuple(dquery, dkey, dvalue);
}

}  // namespace

void bind_attention(py::module_& m) {
    m.def("attention",
          [](const std::optional<py::array>& weights, const std::optional<py::array>& mean,
             const py::array& query, const py::array& key, const py::array& value,
             const std::optional<py::array>& lengths, const std::optional<py::array>& kept,
             double scale, int64_t heads, bool batch_first, bool causal) -> py::array {
              const Given given{query, key,   value,       lengths, kept,
                                scale, heads, batch_first, causal};
              return is_of<double>(query) ? forward_of<double>(given, weights, mean)
                                          : forward_of<float>(given, weights, mean);
          });
    m.def("attention_backward", [](const py::array& dy, const py::array& weights,
                                   const py::array& query, const py::array& key,
                                   const py::array& value, const std::optional<py::array>& lengths,
                                   const std::optional<py::array>& kept, double scale,
                                   int64_t heads, bool batch_first, bool causal) {
        const Given given{query, key, value, lengths, kept, scale, heads, batch_first, causal};
        return is_of<double>(query) ? backward_of<double>(given, weights, dy)
                                    : backward_of<float>(given, weights, dy);
    });
}
