// Programs of simple operations: their memories are arrays.
#include "lstmcore/program.h"

#include "layer_call.h"
#include "lstmcore/machine.h"

namespace {

constexpr Named<Op> kOps[] = {{"fill", Op::fill},         {"copy", Op::copy},
                              {"negative", Op::negative}, {"absolute", Op::absolute},
                              {"root", Op::root},         {"reciprocal", Op::reciprocal},
                              {"add", Op::add},           {"subtract", Op::subtract},
                              {"multiply", Op::multiply}, {"divide", Op::divide},
                              {"minimum", Op::minimum},   {"maximum", Op::maximum},
                              {"sum", Op::sum},           {"least", Op::least},
                              {"greatest", Op::greatest}, {"product", Op::product},
                              {"activate", Op::activate}, {"linear", Op::linear},
                              {"softmax", Op::softmax},   {"layer_norm", Op::layer_norm}};

using Sizes = std::vector<int64_t>;
using PlaceTuple = std::tuple<int64_t, int64_t, Sizes>;
/// What an operation is called, its shape, its places, `last`, `value`, its function, its matrix.
using OperationTuple = std::tuple<std::string, Sizes, std::vector<PlaceTuple>, int64_t, double,
                                  std::optional<ActivationTuple>, std::optional<PyLinear>>;
/// An array that a program returns: which of those that it makes, and if it is a part of that where
/// it begins, its shape and its strides in numbers.
using ResultTuple = std::tuple<size_t, std::optional<std::tuple<int64_t, Sizes, Sizes>>>;

template <class T>
Operation<T> parse_operation(const OperationTuple& from) {
    const auto& [name, shape, places, last, value, f, linear] = from;
    Operation<T> made;
    const auto op = find_name(kOps, name);
    require(op.has_value(), "operation: unknown");
    made.op = *op;
    made.shape = shape;
    for (const auto& [memory, offset, strides] : places)
        made.places.push_back({memory, offset, strides});
    made.last = last;
    made.value = value;
    if (f) made.f = parse_activation(*f);
    if (linear) made.linear = linear->of<T>();
    return made;
}

/// Its memories are its own room, those of the arrays that it is given, of constants, and of the
/// arrays that it makes.
struct PyProgram : OfEither<Program> {
    Sizes inputs;  ///< how many numbers each has
    std::vector<py::array> constants;
    std::vector<Sizes> made;  ///< shapes
    std::vector<ResultTuple> results;

    py::object operator()(const py::args& given) const {
        return f64 ? run<double>(given) : run<float>(given);
    }

private:
    template <class T>
    py::object run(const py::args& given) const {
        require(given.size() == inputs.size(), "program: wrong number of arrays");
        const size_t n = inputs.size();
        std::vector<T*> memories(1 + n + constants.size() + made.size());
        for (size_t i = 0; i < n; ++i)
            memories[1 + i] = const_cast<T*>(
                numbers<const T>(py::handle(PyTuple_GET_ITEM(given.ptr(), i)), inputs[i], "x"));
        T** next = memories.data() + 1 + n;
        for (const py::array& constant : constants)
            *next++ = static_cast<T*>(const_cast<void*>(constant.data()));
        std::vector<py::array> arrays;
        for (const Sizes& shape : made) {
            auto array = empty_array<T>(shape);
            *next++ = array.mutable_data();
            arrays.push_back(std::move(array));
        }
        {
            const Program<T>& program = *of<T>();
            const Workspace room(program.room() * int64_t(sizeof(T)));
            memories[0] = static_cast<T*>(room.data());
            const ReleaseGil release;
            program.run(memories.data(), get_num_threads());
        }
        return returned<T>(arrays);
    }

    template <class T>
    py::object returned(const std::vector<py::array>& arrays) const {
        py::tuple found(results.size());
        for (size_t i = 0; i < results.size(); ++i) {
            const auto& [which, part] = results[i];
            const py::array& whole = arrays[which];
            if (!part) {
                found[i] = whole;
                continue;
            }
            const auto& [offset, shape, strides] = *part;
            std::vector<py::ssize_t> bytes;
            for (const int64_t stride : strides) bytes.push_back(stride * int64_t(sizeof(T)));
            found[i] =
                py::array_t<T>(shape, bytes, static_cast<const T*>(whole.data()) + offset, whole);
        }
        if (results.size() == 1) return found[0];
        return found;
    }
};

/// How far a part of an array reaches must be known to lie in it.
void check_part(const Sizes& whole, const std::tuple<int64_t, Sizes, Sizes>& part) {
    int64_t count = 1;
    for (const int64_t n : whole) count = size_product(count, n);
    const auto& [offset, shape, strides] = part;
    require(shape.size() == strides.size(), "results: wrong number of strides");
    int64_t first = offset, last = offset;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
        if (shape[axis] == 0) return;
        const int64_t reach = (shape[axis] - 1) * strides[axis];
        (reach < 0 ? first : last) += reach;
    }
    require(first >= 0 && last < count, "results: a part is outside its array");
}

template <class T>
std::shared_ptr<const Program<T>> make(const std::vector<OperationTuple>& operations,
                                       const PyProgram& program, int64_t room) {
    Sizes sizes{room};
    sizes.insert(sizes.end(), program.inputs.begin(), program.inputs.end());
    for (const py::array& constant : program.constants) {
        (void)numbers<const T>(constant, "constants");
        sizes.push_back(constant.size());
    }
    for (const Sizes& shape : program.made) {
        int64_t count = 1;
        for (const int64_t n : shape) count = size_product(count, n);
        sizes.push_back(count);
    }
    std::vector<Operation<T>> parsed;
    for (const OperationTuple& one : operations) parsed.push_back(parse_operation<T>(one));
    return std::make_shared<const Program<T>>(std::move(parsed), std::move(sizes));
}

PyProgram make_program(bool is_double, const std::vector<OperationTuple>& operations, int64_t room,
                       const Sizes& inputs, const std::vector<py::array>& constants,
                       const std::vector<Sizes>& made, const std::vector<ResultTuple>& results) {
    PyProgram program;
    program.inputs = inputs;
    program.constants = constants;
    program.made = made;
    program.results = results;
    for (const auto& [which, part] : results) {
        require(which < made.size(), "results: no such array");
        if (part) check_part(made[which], *part);
    }
    if (is_double)
        program.f64 = make<double>(operations, program, room);
    else
        program.f32 = make<float>(operations, program, room);
    return program;
}

}  // namespace

void bind_program(py::module_& m) {
    py::class_<PyProgram>(m, "Program", py::is_final()).def("__call__", &PyProgram::operator());
    m.def("make_program", &make_program, py::arg("double"), py::arg("operations"), py::arg("room"),
          py::arg("inputs"), py::arg("constants"), py::arg("made"), py::arg("results"));
}
