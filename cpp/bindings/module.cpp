// The Python module lstmcore._core: validates, allocates, releases the GIL, calls. The friendly
// messages are the Python layers'; what is checked here keeps a wrong caller from crashing.
#include <algorithm>
#include <cstring>
#include <map>

#include "binding.h"
#include "machine/isa.h"
#include "machine/threads.h"
#include "recurrent/names.h"
#include "recurrent/parameters.h"

namespace {

template <class Value, size_t N>
Value parse_name(const char* what, const Named<Value> (&all)[N], const std::string& name) {
    if (const auto found = find_name(all, name)) return *found;
    throw py::value_error(std::string(what) + " is \"" + name + "\", which is unknown");
}

}  // namespace

Activation parse_activation(const ActivationTuple& from) {
    const auto& [name, alpha, beta] = from;
    return {parse_name("activation", kActivations, name), alpha, beta};
}

namespace {

constexpr Named<CellKind> kKinds[] = {
    {"rnn", CellKind::rnn}, {"lstm", CellKind::lstm}, {"gru", CellKind::gru}};
constexpr Named<bool> kIsDouble[] = {{"float32", false}, {"float64", true}};

Spec make_spec(const std::string& kind, int64_t input_size, int64_t hidden_size, int64_t proj_size,
               int64_t num_layers, bool bidirectional, bool reverse, const std::string& merge,
               bool bias, bool forget_gate, bool coupled, bool peephole, bool reset_after,
               double cell_clip, double gate_clip, const ActivationTuple& gate,
               const ActivationTuple& candidate, const ActivationTuple& output,
               const std::string& dtype) {
    Spec spec;
    LayerSpec& layer = spec.layer;
    layer.cell.kind = parse_name("kind", kKinds, kind);
    layer.merge = parse_name("merge", kMerges, merge);
    spec.is_double = parse_name("dtype", kIsDouble, dtype);
    layer.cell.gate = parse_activation(gate);
    layer.cell.candidate = parse_activation(candidate);
    layer.cell.output = parse_activation(output);
    layer.cell.forget_gate = forget_gate;
    layer.cell.coupled = coupled;
    layer.cell.peephole = peephole;
    layer.cell.reset_after = reset_after;
    layer.cell.cell_clip = cell_clip;
    layer.cell.gate_clip = gate_clip;
    layer.input_size = input_size;
    layer.hidden_size = hidden_size;
    layer.proj_size = proj_size;
    layer.num_layers = num_layers;
    layer.bidirectional = bidirectional;
    layer.reverse = reverse;
    layer.bias = bias;
    layer.check();
    return spec;
}

/// Memory of one call. Small ones are kept by the thread for its next call.
class Workspace {
public:
    explicit Workspace(int64_t bytes) {
        if (bytes <= kKept) {
            thread_local Block kept;
            if (bytes > kept.bytes() || !kept.data()) kept = Block(bytes);
            data_ = kept.data();
        } else {
            own_ = Block(bytes);
            data_ = own_.data();
        }
    }
    void* data() const { return data_; }

private:
    static constexpr int64_t kKept = 4 << 20;

    Block own_;
    void* data_;
};

/// A (T, B, n) or (B, T, n) array of T as a view. Throws where it is not one.
template <class T>
View<T> view_of(const py::array& array, const char* name, bool batch_first, int64_t steps,
                int64_t batch, int64_t n) {
    const bool plain = !std::is_floating_point_v<T>;  // one for each step and row, no features
    require(is_of<std::remove_const_t<T>>(array), name, ": wrong dtype");
    require(array.ndim() == (plain ? 2 : 3), name, ": wrong number of axes");
    const int time_axis = batch_first ? 1 : 0;
    const int64_t size = sizeof(T);
    require(array.shape(time_axis) == steps && array.shape(1 - time_axis) == batch, name,
            ": wrong shape");
    if (!plain) require(array.shape(2) == n, name, ": the last axis has the wrong size");
    // The stride of an axis of one means nothing, as do all of an empty array.
    for (int axis = 0; array.size() > 0 && axis < array.ndim(); ++axis) {
        if (array.shape(axis) == 1) continue;
        require(array.strides(axis) % size == 0, name, ": not aligned");
        require(axis < 2 || array.strides(2) == size, name, ": the last axis is not contiguous");
    }
    require(reinterpret_cast<uintptr_t>(array.data()) % size == 0, name, ": not aligned");
    T* data = static_cast<T*>(const_cast<void*>(array.data()));
    return {data, array.strides(time_axis) / size, array.strides(1 - time_axis) / size};
}

/// Splits a flat list of parameters, in the order of the state dict, into one set for each layer
/// and direction.
template <class T>
std::vector<Parameters<T>> split_parameters(const Spec& spec, const std::vector<py::array>& arrays,
                                            const char* name) {
    const LayerSpec& layer = spec.layer;
    size_t used = 0;
    const auto next = [&](const char*, std::initializer_list<int64_t> shape) {
        require(used < arrays.size(), name, ": too few arrays");
        return numbers_or_null<T>(arrays[used++], shape, name);
    };
    std::vector<Parameters<T>> sets;
    for (int64_t s = 0; s < spec.states(); ++s)
        sets.push_back(take_parameters<T>(layer, s / layer.directions(), next));
    require(used == arrays.size(), name, ": too many arrays");
    return sets;
}

template <class T>
std::shared_ptr<const Weights<T>> pack_as(const Spec& spec, const std::vector<py::array>& arrays,
                                          bool train) {
    const auto sets = split_parameters<const T>(spec, arrays, "parameters");
    const ReleaseGil release;
    return pack<T>(spec.layer, sets, train, get_num_threads());
}

PyWeights pack_weights(const Spec& spec, const std::vector<py::array>& arrays, bool train) {
    PyWeights weights{{}, spec};
    if (spec.is_double)
        weights.f64 = pack_as<double>(spec, arrays, train);
    else
        weights.f32 = pack_as<float>(spec, arrays, train);
    return weights;
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

/// The arrays of a call, kept alive together with the views of them.
template <class T>
struct Call {
    Spec spec;
    std::shared_ptr<const Weights<T>> weights;
    py::array x;
    std::optional<py::array> h0, c0, lengths, resets, lookup;
    bool batch_first;
    Sequences<T> in;

    Call(const PyWeights& packed, const py::array& x_, const std::optional<py::array>& h0_,
         const std::optional<py::array>& c0_, const std::optional<py::array>& lengths_,
         const std::optional<py::array>& resets_, bool batch_first_, double dropout,
         uint64_t dropout_key, const std::optional<py::array>& lookup_, int64_t first_step,
         int64_t whole_steps)
        : spec(packed.spec),
          weights(packed.of<T>()),
          x(x_),
          h0(h0_),
          c0(c0_),
          lengths(lengths_),
          resets(resets_),
          lookup(lookup_),
          batch_first(batch_first_) {
        const LayerSpec& layer = spec.layer;
        const py::array& grid = lookup ? *lookup : x;
        require(grid.ndim() == (lookup ? 2 : 3),
                lookup ? "lookup: 2 axes expected" : "x: 3 axes expected");
        in.steps = grid.shape(batch_first ? 1 : 0);
        in.batch = grid.shape(batch_first ? 0 : 1);
        if (lookup) {
            require(x.ndim() == 2, "x: 2 axes expected of a table");
            in.table_rows = x.shape(0);
            in.table = numbers_or_null<const T>(x, {in.table_rows, layer.input_size}, "x");
            in.lookup = view_of<const int64_t>(grid, "lookup", batch_first, in.steps, in.batch, 0);
            check_lookup();
        } else {
            in.x = view_of<const T>(x, "x", batch_first, in.steps, in.batch, layer.input_size);
        }
        in.h0 = numbers_or_null<const T>(h0, {spec.states(), in.batch, layer.output_size()}, "h0");
        require(!c0 || layer.cell.kind == CellKind::lstm, "c0: only the LSTM has a cell");
        in.c0 = numbers_or_null<const T>(c0, {spec.states(), in.batch, layer.hidden_size}, "c0");
        in.lengths = numbers_or_null<const int64_t>(lengths, {in.batch}, "lengths");
        if (resets)
            in.resets = view_of<const bool>(*resets, "resets", batch_first, in.steps, in.batch, 0);
        require(dropout >= 0 && dropout < 1, "dropout: expected 0 <= dropout < 1");
        in.dropout = dropout;
        in.dropout_key = dropout_key;
        in.first_step = first_step;
        in.whole_steps = whole_steps;
        require(first_step >= 0 && (whole_steps < 0 || first_step + in.steps <= whole_steps),
                "first_step: not within the whole");
    }

    /// For each use of the ids, because the caller may have written to them since the last.
    void check_lookup() const {
        bool known = true;
        for (int64_t t = 0; in.lookup && t < in.steps; ++t)
            for (int64_t b = 0; b < in.batch; ++b) {
                const int64_t id = *in.lookup.at(t, b);
                known = known && id >= 0 && id < in.table_rows;
            }
        require(known, "lookup: not of the table");
    }

    std::vector<int64_t> sequence_shape(int64_t n) const {
        if (batch_first) return {in.batch, in.steps, n};
        return {in.steps, in.batch, n};
    }
};

class Tape {
public:
    virtual ~Tape() = default;
    virtual int64_t nbytes() const = 0;
    virtual uint64_t dropout_key() const = 0;
    virtual py::dict gates() const = 0;
    virtual py::array cells() const = 0;
    virtual py::tuple backward(const std::optional<py::array>& dy,
                               const std::optional<py::array>& dh,
                               const std::optional<py::array>& dc,
                               const std::vector<py::array>& gradients) const = 0;
};

}  // namespace

template <>
struct py::detail::type_caster<Tape> : InitializedCaster<Tape> {};

namespace {

template <class T>
class TapeOf final : public Tape {
public:
    TapeOf(Call<T> call, py::array_t<T> y)
        : call_(std::move(call)),
          y_(std::move(y)),
          memory_(tape_size(call_.spec.layer, call_.in) * int64_t(sizeof(T))) {}

    T* data() const { return static_cast<T*>(memory_.data()); }
    const Call<T>& call() const { return call_; }
    int64_t nbytes() const override { return memory_.bytes(); }
    uint64_t dropout_key() const override { return call_.in.dropout_key; }

    py::dict gates() const override {
        const CellSpec& cell = call_.spec.layer.cell;
        py::dict out;
        if (cell.kind == CellKind::rnn) return out;
        std::vector<const char*> names = {"r", "z", "n"};
        if (cell.kind == CellKind::lstm)
            names = cell.gates() == 4 ? std::vector<const char*>{"i", "f", "g", "o"}
                                      : std::vector<const char*>{"i", "g", "o"};
        for (size_t g = 0; g < names.size(); ++g)
            out[names[g]] = copy([&](int64_t layer, int d) {
                View<const T> view = tape_gates(call_.spec.layer, call_.in, data(), layer, d);
                view.data += g * call_.spec.layer.hidden_size;
                return view;
            });
        return out;
    }

    py::array cells() const override {
        if (call_.spec.layer.cell.kind != CellKind::lstm)
            throw py::type_error("cells(): only an LSTM has cells");
        return copy([&](int64_t layer, int d) {
            return tape_cells(call_.spec.layer, call_.in, data(), layer, d);
        });
    }

    py::tuple backward(const std::optional<py::array>& dy, const std::optional<py::array>& dh,
                       const std::optional<py::array>& dc,
                       const std::vector<py::array>& gradients) const override {
        const Spec& spec = call_.spec;
        const LayerSpec& layer = spec.layer;
        const Sequences<T>& in = call_.in;
        const bool lstm = layer.cell.kind == CellKind::lstm, first = call_.batch_first;
        View<const T> dy_view;
        if (dy)
            dy_view = view_of<const T>(*dy, "dy", first, in.steps, in.batch, layer.feature_size());
        const T* dh_n =
            numbers_or_null<const T>(dh, {spec.states(), in.batch, layer.output_size()}, "dh");
        require(!dc || lstm, "dc: only the LSTM has a cell");
        const T* dc_n =
            numbers_or_null<const T>(dc, {spec.states(), in.batch, layer.hidden_size}, "dc");
        const auto into = split_parameters<T>(spec, gradients, "gradients");
        call_.check_lookup();

        auto dx =
            empty_array<T>(call_.lookup ? std::vector<int64_t>{in.table_rows, layer.input_size}
                                        : call_.sequence_shape(layer.input_size));
        auto dh0 = empty_array<T>({spec.states(), in.batch, layer.output_size()});
        std::optional<py::array_t<T>> dc0;
        if (lstm) dc0 = empty_array<T>({spec.states(), in.batch, layer.hidden_size});
        const auto y = view_of<const T>(y_, "y", first, in.steps, in.batch, layer.feature_size());
        const auto dx_view =
            call_.lookup ? View<T>{dx.mutable_data(), 0, layer.input_size}
                         : view_of<T>(dx, "dx", first, in.steps, in.batch, layer.input_size);
        T* dh0_data = dh0.mutable_data();
        T* dc0_data = dc0 ? dc0->mutable_data() : nullptr;
        {
            const ReleaseGil release;
            const int threads = get_num_threads();
            const Workspace workspace(backward_workspace_bytes(layer, in, threads));
            lstmcore::backward(*call_.weights, in, y, data(), dy_view, dh_n, dc_n, dx_view,
                               dh0_data, dc0_data, into, workspace.data(), threads);
        }
        return py::make_tuple(dx, dh0, dc0);
    }

private:
    /// (L*D, T, B, H), or (L*D, B, T, H), of what part_of(layer, direction) views; zero where a
    /// sequence has ended.
    template <class PartOf>
    py::array copy(PartOf part_of) const {
        const LayerSpec& layer = call_.spec.layer;
        const Sequences<T>& in = call_.in;
        const int64_t H = layer.hidden_size;
        std::vector<int64_t> shape = call_.sequence_shape(H);
        shape.insert(shape.begin(), call_.spec.states());
        py::array_t<T> out(shape);
        T* to = out.mutable_data();
        for (int64_t s = 0; s < call_.spec.states(); ++s) {
            const View<const T> part = part_of(s / layer.directions(), int(s % layer.directions()));
            for (int64_t i = 0; i < shape[1]; ++i)
                for (int64_t j = 0; j < shape[2]; ++j, to += H) {
                    const int64_t t = call_.batch_first ? j : i, b = call_.batch_first ? i : j;
                    const bool ended = in.lengths && in.first_step + t >= in.lengths[b];
                    for (int64_t u = 0; u < H; ++u) to[u] = ended ? T(0) : part.at(t, b)[u];
                }
        }
        return out;
    }

    const Call<T> call_;
    const py::array_t<T> y_;
    Block memory_;
};

/// What a forward call has made; c of the LSTM alone, the tape in training.
template <class T>
struct Made {
    py::array_t<T> y, h;
    std::optional<py::array_t<T>> c;
    std::shared_ptr<Tape> tape;
};

template <class T>
Made<T> run_forward(Call<T> call, bool train) {
    const LayerSpec layer = call.spec.layer;
    const Sequences<T> in = call.in;
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
    const ReleaseGil release;
    const int threads = get_num_threads();
    const Workspace workspace(forward_workspace_bytes(layer, in, train, threads));
    forward(*weights, in, y, h_n, c_n, tape, workspace.data(), threads);
    return made;
}

py::tuple run_forward_any(const PyWeights& weights, const py::array& x,
                          const std::optional<py::array>& h0, const std::optional<py::array>& c0,
                          const std::optional<py::array>& lengths,
                          const std::optional<py::array>& resets, bool batch_first, bool train,
                          double dropout, uint64_t key, const std::optional<py::array>& lookup,
                          int64_t first_step, int64_t whole_steps) {
    const auto run = [&](auto number) -> py::tuple {
        auto made =
            run_forward(Call<decltype(number)>(weights, x, h0, c0, lengths, resets, batch_first,
                                               dropout, key, lookup, first_step, whole_steps),
                        train);
        return py::make_tuple(made.y, made.h, made.c, made.tape);
    };
    return weights.spec.is_double ? run(double()) : run(float());
}

/// Takes an array that can be used as it is and has this shape, -1 being any size.
template <class T>
bool take_plain(const py::handle& object, std::initializer_list<int64_t> shape,
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
    if (!take_plain<T>(x, {-1, -1, layer.input_size}, rows)) return py::none();
    if (!state.is_none()) {
        const bool lstm = layer.cell.kind == CellKind::lstm;
        if (lstm && !(PyTuple_CheckExact(state.ptr()) && PyTuple_GET_SIZE(state.ptr()) == 2))
            return py::none();
        const int64_t states = weights.spec.states(), batch = rows->shape(batch_first ? 0 : 1);
        const py::handle h = lstm ? PyTuple_GET_ITEM(state.ptr(), 0) : state.ptr();
        const py::handle c = lstm ? PyTuple_GET_ITEM(state.ptr(), 1) : Py_None;
        if (!h.is_none() && !take_plain<T>(h, {states, batch, layer.output_size()}, h0))
            return py::none();
        if (!c.is_none() && !take_plain<T>(c, {states, batch, layer.hidden_size}, c0))
            return py::none();
    }
    auto made =
        run_forward(Call<T>(weights, *rows, h0, c0, {}, {}, batch_first, 0, 0, {}, 0, -1), false);
    if (!made.c) return py::make_tuple(made.y, made.h);
    return py::make_tuple(made.y, py::make_tuple(made.h, *made.c));
}

py::object run_inference_any(const PyWeights& weights, const py::handle& x, const py::handle& state,
                             bool batch_first) {
    return weights.spec.is_double ? run_inference<double>(weights, x, state, batch_first)
                                  : run_inference<float>(weights, x, state, batch_first);
}

std::map<std::string, std::string> build_info() {
    return {{"version", LSTMCORE_VERSION},
            {"compiler", LSTMCORE_COMPILER},
            {"eigen", LSTMCORE_EIGEN_VERSION},
            {"openmp", LSTMCORE_OPENMP_VERSION},
            {"isas", LSTMCORE_COMPILED_ISAS}};
}

py::array_t<bool> make_dropout_mask(uint64_t key, int64_t layer, int64_t steps, int64_t batch,
                                    int64_t features, double p) {
    py::array_t<bool> kept({steps, batch, features});
    dropout_mask(key, layer, steps, batch, features, p, kept.mutable_data());
    return kept;
}

}  // namespace

PYBIND11_MODULE(_core, m, py::mod_gil_not_used()) {
    m.doc() = "Recurrent kernels of lstmcore; use the layers of the lstmcore package.";
    isa();              // so that a wrong LSTMCORE_ISA or LSTMCORE_NUM_THREADS
    get_num_threads();  // is reported by the import

    py::class_<Spec>(m, "Spec", py::is_final())
        .def(py::init(&make_spec), py::kw_only(), py::arg("kind"), py::arg("input_size"),
             py::arg("hidden_size"), py::arg("proj_size"), py::arg("num_layers"),
             py::arg("bidirectional"), py::arg("reverse"), py::arg("merge"), py::arg("bias"),
             py::arg("forget_gate"), py::arg("coupled"), py::arg("peephole"),
             py::arg("reset_after"), py::arg("cell_clip"), py::arg("gate_clip"),
             py::arg("gate_activation"), py::arg("candidate_activation"),
             py::arg("output_activation"), py::arg("dtype"));
    py::class_<PyWeights>(m, "Weights", py::is_final())
        .def_property_readonly("nbytes", &PyWeights::nbytes);
    py::class_<Tape, std::shared_ptr<Tape>>(m, "Tape", py::is_final())
        .def_property_readonly("nbytes", &Tape::nbytes)
        .def_property_readonly("dropout_key", &Tape::dropout_key)
        .def("gates", &Tape::gates)
        .def("cells", &Tape::cells);

    m.def("pack", &pack_weights, py::arg("spec"), py::arg("parameters"), py::arg("train"));
    m.def("same_bits", &same_bits, py::arg("some"), py::arg("others"));
    // Keywords would cost a call as much as all the rest of it.
    m.def("forward", &run_forward_any, py::arg("weights"), py::arg("x"), py::arg("h0"),
          py::arg("c0"), py::arg("lengths"), py::arg("resets"), py::arg("batch_first"),
          py::arg("train"), py::arg("dropout"), py::arg("dropout_key"),
          py::arg("lookup") = py::none(), py::arg("first_step") = 0, py::arg("whole_steps") = -1);
    m.def("infer", &run_inference_any);
    m.def(
        "backward",
        [](const Tape& tape, const std::optional<py::array>& dy, const std::optional<py::array>& dh,
           const std::optional<py::array>& dc, const std::vector<py::array>& gradients) {
            return tape.backward(dy, dh, dc, gradients);
        },
        py::arg("tape"), py::arg("dy"), py::arg("dh"), py::arg("dc"), py::arg("gradients"));
    m.def("dropout_mask", &make_dropout_mask, py::arg("key"), py::arg("layer"), py::arg("time"),
          py::arg("batch"), py::arg("features"), py::arg("p"));

    bind_stream(m);
    bind_optim(m);
    bind_linear(m);
    bind_losses(m);
    bind_scatter(m);

    m.def("empty", [](const std::vector<int64_t>& shape, const py::dtype& dtype) -> py::array {
        if (dtype.equal(py::dtype::of<float>())) return empty_array<float>(shape);
        require(dtype.equal(py::dtype::of<double>()), "dtype: float32 or float64 expected");
        return empty_array<double>(shape);
    });

    m.def("isa", &isa);
    m.def("available_isas", &available_isas);
    m.def("set_isa", &set_isa, py::arg("name"));
    m.def("isa_version", &isa_version);
    m.def("set_num_threads", &set_num_threads, py::arg("n"), py::arg("beyond_cores") = false);
    m.def("get_num_threads", &get_num_threads);
    m.def("max_threads", &max_threads);
    m.def("build_info", &build_info);
}
