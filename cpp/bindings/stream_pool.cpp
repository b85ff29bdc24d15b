// Pools of streams for Python. `step` takes what is as it should be straight to the core, as that
// of streams does; see there. Any thread may call anything at any time, with or without a GIL.
#include "lstmcore/stream_pool.h"

#include <string>

#include "stages.h"

namespace {

/// Raises what says why a call was refused. `id` is the one at fault, `name` what it is called.
void raise_unless(const PoolResult& result, int64_t id, const std::string& name) {
    const std::string is = name + " is " + std::to_string(id) + ", ";
    switch (result.error) {
        case PoolError::none:
            return;
        case PoolError::unknown:
            throw py::value_error(is + "which no stream of this pool has had");
        case PoolError::closed:
            throw py::value_error(is + "a stream that is closed");
        case PoolError::repeated:
            throw py::value_error(is + "which is there before, expected each stream once");
        case PoolError::in_use:
            throw std::runtime_error(is + "a stream that another thread works with now");
        case PoolError::stepping:
            throw std::runtime_error(
                "another thread takes a step of this pool now, expected one at a time");
    }
}

using Ids = py::array_t<int64_t, py::array::c_style>;

void raise_unless(const PoolResult& result, const Ids& ids) {
    if (result) return;
    const int64_t id = result.index < ids.size() ? ids.data()[result.index] : 0;
    raise_unless(result, id, "ids[" + std::to_string(result.index) + "]");
}

int64_t opened(int64_t id, int64_t capacity) {
    if (id < 0)
        throw std::runtime_error("the pool is full: all of its " + std::to_string(capacity) +
                                 " streams are open; close one, or make a larger pool");
    return id;
}

/// A pool of either type behind one face.
class PyStreamPool {
public:
    virtual ~PyStreamPool() = default;

    const py::dtype dtype;
    const int64_t capacity, input_size, output_size;

    /// x and y are contiguous arrays of the right sizes.
    PoolResult step(const int64_t* ids, int64_t n, const void* x, void* y) {
        if (double(n) * work_ < kLongCall) return run(ids, n, x, y);
        const ReleaseGil release;
        return run(ids, n, x, y);
    }
    virtual int64_t count() const noexcept = 0;
    virtual int64_t open() = 0;
    virtual void close(int64_t id) = 0;
    virtual void reset(const Ids& ids) = 0;
    virtual py::list get_states(int64_t id) const = 0;
    virtual void set_states(int64_t id, const StateArrays& states) = 0;

protected:
    PyStreamPool(py::dtype dtype_, int64_t capacity_, int64_t inputs, int64_t outputs, double work)
        : dtype(std::move(dtype_)),
          capacity(capacity_),
          input_size(inputs),
          output_size(outputs),
          work_(work) {}

private:
    virtual PoolResult run(const int64_t* ids, int64_t n, const void* x, void* y) noexcept = 0;

    const double work_;  ///< multiply-adds of a stream's step
};

}  // namespace

template <>
struct py::detail::type_caster<PyStreamPool> : InitializedCaster<PyStreamPool> {};
template <>
struct py::detail::type_caster<StreamIds> : InitializedCaster<StreamIds> {};

namespace {

template <class T>
class StreamPoolOf final : public PyStreamPool {
public:
    StreamPoolOf(StreamPool<T> pool, double work)
        : PyStreamPool(py::dtype::of<T>(), pool.capacity(), pool.input_size(), pool.output_size(),
                       work),
          pool_(std::move(pool)) {}

    int64_t count() const noexcept override { return pool_.count(); }
    int64_t open() override { return opened(pool_.open(), capacity); }
    void close(int64_t id) override { raise_unless(pool_.close(id), id, "id"); }
    void reset(const Ids& ids) override { raise_unless(pool_.reset(ids.data(), ids.size()), ids); }
    py::list get_states(int64_t id) const override {
        py::list arrays;
        std::vector<StreamState<T>> states;
        for (int64_t i = 0; i < pool_.num_states(); ++i) {
            auto [h, c] = state_arrays<T>(pool_.spec(i), 1);
            states.push_back({h.mutable_data(), c ? c->mutable_data() : nullptr});
            arrays.append(py::make_tuple(h, c));
        }
        raise_unless(pool_.get_state(id, states.data()), id, "id");
        return arrays;
    }
    void set_states(int64_t id, const StateArrays& states) override {
        const auto parts = state_parts<T>(pool_, states, 1);
        raise_unless(pool_.set_state(id, parts.data()), id, "id");
    }

private:
    PoolResult run(const int64_t* ids, int64_t n, const void* x, void* y) noexcept override {
        return pool_.step(ids, n, static_cast<const T*>(x), static_cast<T*>(y));
    }

    StreamPool<T> pool_;
};

template <class T>
std::unique_ptr<PyStreamPool> make_pool(const py::sequence& stages, int64_t capacity) {
    auto [parsed, work] = parse_stages<T>(stages);
    return std::make_unique<StreamPoolOf<T>>(StreamPool<T>(std::move(parsed), capacity), work);
}

/// Whether the core can take an array (n, features) as it is.
bool fits(const py::handle& object, const py::dtype& dtype, int64_t n, int64_t features,
          int flags) {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    return array.ndim() == 2 && array.shape(0) == n && array.shape(1) == features &&
           (array.flags() & flags) == flags &&
           (array.dtype().is(dtype) || array.dtype().equal(dtype));
}

bool are_ids(const py::handle& object) {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    return array.ndim() == 1 && (array.flags() & kReadable) == kReadable && is_of<int64_t>(array);
}

py::object run(const py::handle& self, py::object ids, py::object x, py::object out) {
    PyStreamPool& pool = self.cast<PyStreamPool&>();
    const auto fit = [&] {
        if (!are_ids(ids)) return false;
        const int64_t n = py::array(ids).shape(0);
        return fits(x, pool.dtype, n, pool.input_size, kReadable) &&
               (out.is_none() || (fits(out, pool.dtype, n, pool.output_size, kWritable) &&
                                  !overlap(py::array(x), py::array(out))));
    };
    if (!fit()) {
        const auto converted = self.attr("_convert")(ids, x, out).cast<py::tuple>();
        ids = converted[0];
        x = converted[1];
        out = converted[2];
        require(fit(), "ids, x or out: not as they should be");
    }
    const auto given = py::reinterpret_borrow<py::array>(ids);
    const auto from = py::reinterpret_borrow<py::array>(x);
    const int64_t shape[] = {given.shape(0), pool.output_size};
    if (out.is_none()) out = make_array(pool.dtype, shape, 2);
    auto to = py::reinterpret_borrow<py::array>(out);
    const auto* const numbers = static_cast<const int64_t*>(given.data());
    const PoolResult result = pool.step(numbers, shape[0], from.data(), to.mutable_data());
    if (!result) raise_unless(result, Ids(given));
    return out;
}

PyObject* step(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    PyObject* given[3] = {nullptr, nullptr, nullptr};
    const char* const expected[3] = {"ids", "x", "out"};
    if (!take_arguments(arguments, count, names, expected, given) || !given[0] || !given[1]) {
        PyErr_SetString(PyExc_TypeError, "step() takes ids, x and, optionally, out");
        return nullptr;
    }
    return or_error([&] {
        return run(self, py::reinterpret_borrow<py::object>(given[0]),
                   py::reinterpret_borrow<py::object>(given[1]),
                   given[2] ? py::reinterpret_borrow<py::object>(given[2]) : py::none());
    });
}

constexpr const char* kStepDoc = R"(step($self, ids, x, out=None)
--

Take one step of n streams: compute y and change their states.

Parameters
----------
ids : array_like of int, (n,)
    From `open`, each once, in any order. An array of int64 that is C-contiguous is read as it is.
x : array_like, (n, I)
    What comes to each. An array of the pool's dtype that is C-contiguous is read as it is.
out : ndarray, (n, P), optional
    Is written to and returned; nothing is allocated then. It may be x.

Returns
-------
y : ndarray, (n, P)

Raises
------
ValueError, TypeError
    If an id is of no open stream, or comes twice, or x or out does not fit.
RuntimeError
    If another thread takes a step, or resets one of these streams or reads its state.

After an error nothing has changed, out neither.
)";

/// The numbers of streams for pools that compute in Python; lstmcore/stream_ids.h has the rules.
void bind_ids(py::module_& m) {
    py::class_<StreamIds>(m, "StreamIds")
        .def(py::init<int64_t>(), py::arg("capacity"))
        .def_property_readonly("capacity", &StreamIds::capacity)
        .def_property_readonly("count", &StreamIds::count)
        .def("open",
             [](StreamIds& s) {
                 const int64_t id = opened(s.open(), s.capacity());
                 return std::make_pair(id, s.place(id));
             })
        .def("close", [](StreamIds& s, int64_t id) { raise_unless(s.close(id), id, "id"); })
        .def("claim",
             [](StreamIds& s, const Ids& ids) {
                 int64_t place;
                 raise_unless(s.claim(ids.data(), ids.size(), &place), ids);
                 py::array_t<int64_t> places(ids.size());
                 int64_t* to = places.mutable_data();
                 for (; place >= 0; place = s.next(place)) *to++ = place;
                 return places;
             })
        .def("claim_one",
             [](StreamIds& s, int64_t id) {
                 int64_t place;
                 raise_unless(s.claim(&id, 1, &place), id, "id");
                 return place;
             })
        .def("release", [](StreamIds& s, int64_t first) { s.release(first); });
}

}  // namespace

void bind_stream_pool(py::module_& m) {
    bind_ids(m);
    py::class_<PyStreamPool> type(m, "StreamPool");
    type.def(py::init([](const py::sequence& stages, int64_t capacity, bool is_double) {
                 return is_double ? make_pool<double>(stages, capacity)
                                  : make_pool<float>(stages, capacity);
             }),
             py::arg("stages"), py::arg("capacity"), py::arg("is_double"))
        .def_property_readonly(
            "capacity", [](const PyStreamPool& p) { return p.capacity; },
            "How many streams may be open.")
        .def_property_readonly(
            "input_size", [](const PyStreamPool& p) { return p.input_size; }, "Features of x.")
        .def_property_readonly(
            "output_size", [](const PyStreamPool& p) { return p.output_size; }, "Features of y.")
        .def("__len__", &PyStreamPool::count)
        .def("_open", &PyStreamPool::open)
        .def("_close", &PyStreamPool::close)
        .def("_reset", &PyStreamPool::reset)
        .def("_get_states", &PyStreamPool::get_states)
        .def("_set_states", &PyStreamPool::set_states);
    add_method<&step>(type, "step", kStepDoc);
}
