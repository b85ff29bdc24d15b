// Streams for Python. `step` and `process` are plain C methods, because they are called for every
// frame: arrays that are as they should be go straight to the core; for others the Python method
// `_convert` is asked first, which makes them so or says what is wrong with them.
#include "lstmcore/stream.h"

#include <algorithm>
#include <atomic>
#include <stdexcept>
#include <utility>
#include <variant>

#include "interrupt.h"
#include "stages.h"

namespace {

/// A stream of either type behind one face. One thread at a time: a second one is refused rather
/// than mixing up the state.
class PyStream {
public:
    virtual ~PyStream() = default;

    const py::dtype dtype;
    const int64_t batch_size, input_size, output_size;

    /// x and y are contiguous arrays of the right sizes.
    void process(const void* x, void* y, int64_t steps) {
        const Turn turn(*this);
        const double work = double(steps) * work_;
        if (work < kLongCall) return run(x, y, steps);
        if (is_interruptible(work)) return run_in_pieces(x, y, steps);
        const ReleaseGil release;
        run(x, y, steps);
    }
    py::list states() {
        const Turn turn(*this);
        return get_states();
    }
    void set_states(const StateArrays& states) {
        const Turn turn(*this);
        put_states(states);
    }
    void reset(const std::vector<int64_t>& rows) {
        const Turn turn(*this);
        for (const int64_t row : rows) require(row >= 0 && row < batch_size, "rows: no such row");
        for (const int64_t row : rows) reset_row(row);
    }
    std::unique_ptr<PyStream> copy() {
        const Turn turn(*this);
        return make_copy();
    }

protected:
    PyStream(py::dtype dtype_, int64_t batch, int64_t inputs, int64_t outputs, double work)
        : dtype(std::move(dtype_)),
          batch_size(batch),
          input_size(inputs),
          output_size(outputs),
          work_(work) {}

    const double work_;  ///< multiply-adds of a step

private:
    static constexpr double kPieceWork = 1e8;  ///< of what runs between two looks at the clock

    class Turn {
    public:
        explicit Turn(PyStream& stream) : busy_(stream.busy_) {
            if (busy_.exchange(true, std::memory_order_acquire))
                throw std::runtime_error(
                    "the stream is in use by another thread, expected one for each thread");
        }
        ~Turn() { busy_.store(false, std::memory_order_release); }
        Turn(const Turn&) = delete;

    private:
        std::atomic<bool>& busy_;
    };

    /// Runs, and ends when the handler of a signal raises: with the state that it began with.
    void run_in_pieces(const void* x, void* y, int64_t steps) {
        const auto before = get_states().cast<StateArrays>();
        const int64_t piece = std::max<int64_t>(int64_t(kPieceWork / work_), 1);
        const int64_t x_step = batch_size * input_size * dtype.itemsize();
        const int64_t y_step = batch_size * output_size * dtype.itemsize();
        const auto run_all = [&](const StopCheck& check) {
            Stop stop(check);
            for (int64_t first = 0; first < steps; first += piece) {
                run(static_cast<const char*>(x) + first * x_step,
                    static_cast<char*>(y) + first * y_step, std::min(piece, steps - first));
                if (stop.ask()) throw Stopped();
            }
        };
        try {
            run_without_gil(true, run_all);
        } catch (...) {
            put_states(before);
            throw;
        }
    }

    virtual void run(const void* x, void* y, int64_t steps) noexcept = 0;
    virtual py::list get_states() const = 0;
    virtual void put_states(const StateArrays&) = 0;
    virtual void reset_row(int64_t row) noexcept = 0;
    virtual std::unique_ptr<PyStream> make_copy() const = 0;

    std::atomic<bool> busy_{false};
};

}  // namespace

template <>
struct py::detail::type_caster<PyStream> : InitializedCaster<PyStream> {};

namespace {

template <class T>
class StreamOf final : public PyStream {
public:
    StreamOf(Stream<T> stream, double work)
        : PyStream(py::dtype::of<T>(), stream.batch_size(), stream.input_size(),
                   stream.output_size(), work),
          stream_(std::move(stream)) {}

private:
    void run(const void* x, void* y, int64_t steps) noexcept override {
        stream_.process(static_cast<const T*>(x), static_cast<T*>(y), steps);
    }
    py::list get_states() const override {
        py::list states;
        for (int64_t i = 0; i < stream_.num_states(); ++i) {
            auto [h, c] = state_arrays<T>(stream_.spec(i), batch_size);
            stream_.get_state(h.mutable_data(), c ? c->mutable_data() : nullptr, i);
            states.append(py::make_tuple(h, c));
        }
        return states;
    }
    void put_states(const StateArrays& states) override {
        const auto parts = state_parts<T>(stream_, states, batch_size);
        for (size_t i = 0; i < parts.size(); ++i)
            stream_.set_state(parts[i].h, parts[i].c, int64_t(i));
    }
    void reset_row(int64_t row) noexcept override { stream_.reset(row); }
    std::unique_ptr<PyStream> make_copy() const override {
        return std::make_unique<StreamOf>(stream_, work_);
    }

    Stream<T> stream_;
};

template <class T>
std::unique_ptr<PyStream> make_stream(const py::sequence& stages, int64_t batch_size) {
    auto [parsed, work] = parse_stages<T>(stages);
    return std::make_unique<StreamOf<T>>(Stream<T>(std::move(parsed), batch_size),
                                         work * double(batch_size));
}

/// Whether the core can take an array as it is: (T, B, features) for blocks of steps, else (B,
/// features); without B if that is 1.
bool fits(const PyStream& stream, PyObject* object, int64_t features, bool blocks, int flags) {
    if (!py::isinstance<py::array>(object)) return false;
    const auto array = py::reinterpret_borrow<py::array>(object);
    const py::ssize_t axes = array.ndim(), first = blocks ? 1 : 0;
    if (axes == first + 2) {
        if (array.shape(first) != stream.batch_size) return false;
    } else if (axes != first + 1 || stream.batch_size != 1) {
        return false;
    }
    return array.shape(axes - 1) == features && (array.flags() & flags) == flags &&
           (array.dtype().is(stream.dtype) || array.dtype().equal(stream.dtype));
}

py::object new_output(const PyStream& stream, const py::array& x) {
    const int axes = int(x.ndim());
    int64_t shape[3];
    for (int i = 0; i + 1 < axes; ++i) shape[i] = x.shape(i);
    shape[axes - 1] = stream.output_size;
    return make_array(stream.dtype, shape, axes);
}

py::object run(const py::handle& self, py::object x, py::object out, bool blocks) {
    PyStream& stream = self.cast<PyStream&>();
    const auto fit = [&] {
        return fits(stream, x.ptr(), stream.input_size, blocks, kReadable) &&
               (out.is_none() || (fits(stream, out.ptr(), stream.output_size, blocks, kWritable) &&
                                  py::array(x).ndim() == py::array(out).ndim() &&
                                  !(blocks && overlap(py::array(x), py::array(out)))));
    };
    if (!fit()) {
        const auto converted = self.attr("_convert")(x, out, blocks).cast<py::tuple>();
        x = converted[0];
        out = converted[1];
        require(fit(), "x or out: not as they should be");
    }
    const auto from = py::reinterpret_borrow<py::array>(x);
    if (out.is_none()) out = new_output(stream, from);
    auto to = py::reinterpret_borrow<py::array>(out);
    stream.process(from.data(), to.mutable_data(), blocks ? from.shape(0) : 1);
    return out;
}

/// A method of x and out=None.
template <bool kBlocks>
PyObject* method(PyObject* self, PyObject* const* arguments, Py_ssize_t count, PyObject* names) {
    PyObject* given[2] = {nullptr, nullptr};
    const char* const expected[2] = {"x", "out"};
    if (!take_arguments(arguments, count, names, expected, given) || given[0] == nullptr) {
        PyErr_SetString(PyExc_TypeError, kBlocks ? "process() takes x and, optionally, out"
                                                 : "step() takes x and, optionally, out");
        return nullptr;
    }
    return or_error([&] {
        return run(self, py::reinterpret_borrow<py::object>(given[0]),
                   given[1] ? py::reinterpret_borrow<py::object>(given[1]) : py::none(), kBlocks);
    });
}

}  // namespace

void bind_stream(py::module_& m) {
    py::class_<PyStream> type(m, "Stream");
    type.def(py::init([](const py::sequence& stages, int64_t batch_size, bool is_double) {
                 return is_double ? make_stream<double>(stages, batch_size)
                                  : make_stream<float>(stages, batch_size);
             }),
             py::arg("stages"), py::arg("batch_size"), py::arg("is_double"))
        .def(py::init([](PyStream& other) { return other.copy(); }), py::arg("other"))
        .def_property_readonly(
            "batch_size", [](const PyStream& s) { return s.batch_size; }, "Rows of the batch.")
        .def_property_readonly(
            "input_size", [](const PyStream& s) { return s.input_size; }, "Features of x.")
        .def_property_readonly(
            "output_size", [](const PyStream& s) { return s.output_size; }, "Features of y.")
        .def("_get_states", &PyStream::states)
        .def("_set_states", &PyStream::set_states, py::arg("states"))
        .def("_reset_rows", &PyStream::reset, py::arg("rows"));
    add_method<&method<false>>(type, "step", R"(step($self, x, out=None)
--

Take one step: compute y and change the state.

Parameters
----------
x : array_like, (B, I), or (I,) if batch_size is 1
    An array of the stream's dtype that is C-contiguous is read as it is.
out : ndarray, (B, P), or (P,) like x, optional
    Is written to and returned; nothing is allocated then. It may be x.

Returns
-------
y : ndarray, (B, P), or (P,)
)");
    add_method<&method<true>>(type, "process", R"(process($self, x, out=None)
--

Take a block of steps, to the same bits as so many calls of `step`.

Parameters
----------
x : array_like, (T, B, I), or (T, I) if batch_size is 1
    An array of the stream's dtype that is C-contiguous is read as it is.
out : ndarray, (T, B, P), or (T, P) like x, optional
    Is written to and returned; nothing is allocated then. It may be x.

Returns
-------
y : ndarray, (T, B, P), or (T, P)
)");
}
