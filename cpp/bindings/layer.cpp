// Forward and backward of recurrent layers.
#include "lstmcore/layer.h"

#include <algorithm>
#include <memory>
#include <optional>
#include <utility>

#include "layer_tape.h"
#include "lstmcore/machine.h"

namespace {

/// What a forward call has made; c of the LSTM alone, the tape in training.
template <class T>
struct Made {
    py::array_t<T> y, h;
    std::optional<py::array_t<T>> c;
    std::shared_ptr<Tape> tape;
};

template <class T>
Made<T> run_forward(LayerCall<T> call, bool train) {
    const LayerSpec layer = call.spec.layer;
    Sequences<T> in = call.in;
    const std::shared_ptr<const Weights<T>> weights = call.weights;
    Made<T> made{empty_array<T>(call.sequence_shape(layer.feature_size())),
                 empty_array<T>({call.spec.states(), in.batch, layer.output_size()}),
                 {},
                 {}};
    if (layer.cell.kind == CellKind::lstm)
        made.c = empty_array<T>({call.spec.states(), in.batch, layer.hidden_size});
    const auto y =
        view_of<T>(made.y, "y", call.batch_first, in.steps, in.batch, layer.feature_size());
    T* const h_n = made.h.mutable_data();
    T* const c_n = made.c ? made.c->mutable_data() : nullptr;
    T* tape = nullptr;
    if (train) {
        auto kept = std::make_shared<TapeOf<T>>(std::move(call), made.y);
        tape = kept->data();
        made.tape = std::move(kept);
    }
    run_without_gil(is_interruptible(work_of(layer, in)), [&](const StopCheck& stop) {
        in.stop = stop;
        const CallThreads threads = forward_threads(layer, in, train, get_num_threads());
        const Workspace workspace(forward_workspace_bytes(layer, in, train, threads.count()));
        forward(*weights, in, y, h_n, c_n, tape, workspace.data(), threads.count());
    });
    return made;
}

py::tuple run_forward_any(const PyWeights& weights, const py::array& x,
                          const std::optional<py::array>& h0, const std::optional<py::array>& c0,
                          const std::optional<py::array>& lengths,
                          const std::optional<py::array>& resets, bool batch_first, bool train,
                          const Dropouts& dropouts, uint64_t key,
                          const std::optional<py::array>& lookup, int64_t first_step,
                          int64_t whole_steps) {
    const auto run = [&](auto number) -> py::tuple {
        auto made = run_forward(
            LayerCall<decltype(number)>(weights, x, h0, c0, lengths, resets, batch_first, dropouts,
                                        key, lookup, first_step, whole_steps),
            train);
        return py::make_tuple(made.y, made.h, made.c, made.tape);
    };
    return weights.spec.is_double ? run(double()) : run(float());
}

/// Takes an array that can be used as it is and has this shape, -1 being any size.
template <class T>
bool take_as_is(const py::handle& object, std::initializer_list<int64_t> shape,
                std::optional<py::array>& to) {
    if (static_cast<void*>(Py_TYPE(object.ptr())) != Numpy::get().PyArray_Type_) return false;
    to = py::reinterpret_borrow<py::array>(object);
    const auto fits = [](int64_t size, int64_t has) { return size == -1 || size == has; };
    return std::equal(shape.begin(), shape.end(), to->shape(), to->shape() + to->ndim(), fits) &&
           (to->flags() & kReadable) == kReadable && is_of<T>(*to);
}

/// y and the final state, or None where something is to be converted or refused first: the short
/// way of small calls, which cost less than to look at their arguments in Python.
template <class T>
py::object run_inference(const PyWeights& weights, const py::handle& x, const py::handle& state,
                         bool batch_first) {
    const LayerSpec& layer = weights.spec.layer;
    std::optional<py::array> rows, h0, c0;
    if (!take_as_is<T>(x, {-1, -1, layer.input_size}, rows)) return py::none();
    if (!state.is_none()) {
        const bool lstm = layer.cell.kind == CellKind::lstm;
        if (lstm && !(PyTuple_CheckExact(state.ptr()) && PyTuple_GET_SIZE(state.ptr()) == 2))
            return py::none();
        const int64_t states = weights.spec.states(), batch = rows->shape(batch_first ? 0 : 1);
        const py::handle h = lstm ? PyTuple_GET_ITEM(state.ptr(), 0) : state.ptr();
        const py::handle c = lstm ? PyTuple_GET_ITEM(state.ptr(), 1) : Py_None;
        if (!h.is_none() && !take_as_is<T>(h, {states, batch, layer.output_size()}, h0))
            return py::none();
        if (!c.is_none() && !take_as_is<T>(c, {states, batch, layer.hidden_size}, c0))
            return py::none();
    }
    auto made = run_forward(
        LayerCall<T>(weights, *rows, h0, c0, {}, {}, batch_first, {}, 0, {}, 0, -1), false);
    if (!made.c) return py::make_tuple(made.y, made.h);
    return py::make_tuple(made.y, py::make_tuple(made.h, *made.c));
}

py::object run_inference_any(const PyWeights& weights, const py::handle& x, const py::handle& state,
                             bool batch_first) {
    return weights.spec.is_double ? run_inference<double>(weights, x, state, batch_first)
                                  : run_inference<float>(weights, x, state, batch_first);
}

constexpr Named<DropoutUse> kDropoutUses[] = {{"between_layers", DropoutUse::between_layers},
                                              {"input", DropoutUse::input},
                                              {"hidden", DropoutUse::hidden},
                                              {"zone_h", DropoutUse::zone_h},
                                              {"zone_c", DropoutUse::zone_c}};

py::array_t<bool> make_dropout_mask(uint64_t key, int64_t part, int64_t steps, int64_t batch,
                                    int64_t features, double p, const std::string& use) {
    const auto found = find_name(kDropoutUses, use);
    require(found.has_value(), "use: unknown");
    py::array_t<bool> kept({steps, batch, features});
    dropout_mask(key, *found, part, steps, batch, features, p, kept.mutable_data());
    return kept;
}

}  // namespace

void bind_layer(py::module_& m) {
    py::class_<Tape, std::shared_ptr<Tape>>(m, "Tape", py::is_final())
        .def_property_readonly("nbytes", &Tape::nbytes)
        .def_property_readonly("dropout_key", &Tape::dropout_key)
        .def("gates", &Tape::gates)
        .def("cells", &Tape::cells);
    m.def("forward", &run_forward_any, py::arg("weights"), py::arg("x"), py::arg("h0"),
          py::arg("c0"), py::arg("lengths"), py::arg("resets"), py::arg("batch_first"),
          py::arg("train"), py::arg("dropouts"), py::arg("dropout_key"),
          py::arg("lookup") = py::none(), py::arg("first_step") = 0, py::arg("whole_steps") = -1);
    // Without names of arguments, because keywords would cost a call as much as all the rest of it.
    m.def("infer", &run_inference_any);
    m.def(
        "backward",
        [](const Tape& tape, const std::optional<py::array>& dy, const std::optional<py::array>& dh,
           const std::optional<py::array>& dc, const std::vector<py::array>& gradients,
           bool need_dx) { return tape.backward(dy, dh, dc, gradients, need_dx); },
        py::arg("tape"), py::arg("dy"), py::arg("dh"), py::arg("dc"), py::arg("gradients"),
        py::arg("need_dx") = true);
    m.def("dropout_mask", &make_dropout_mask, py::arg("key"), py::arg("part"), py::arg("time"),
          py::arg("batch"), py::arg("features"), py::arg("p"), py::arg("use") = "between_layers");
}
