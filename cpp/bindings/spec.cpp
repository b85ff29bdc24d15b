// What a layer is, from keyword arguments: one for each option of lstmcore/options.h.
#include <string>
#include <tuple>
#include <variant>

#include "binding.h"
#include "lstmcore/options.h"

namespace {

template <class Value, size_t N>
Value parse_name(const char* what, const Named<Value> (&all)[N], const std::string& name) {
    if (const auto found = find_name(all, name)) return *found;
    throw py::value_error(std::string(what) + " is \"" + name + "\", which is unknown");
}

constexpr Named<bool> kIsDouble[] = {{"float32", false}, {"float64", true}};

template <class Value>
void take(const char*, const py::handle& from, Value& to) {
    to = from.cast<Value>();
}
void take(const char*, const py::handle& from, Activation& to) {
    to = parse_activation(from.cast<ActivationTuple>());
}
void take(const char*, const py::handle& from, Zoneout& to) {
    std::tie(to.h, to.c) = from.cast<std::tuple<double, double>>();
}
void take(const char* name, const py::handle& from, Merge& to) {
    to = parse_name(name, kMergeNames, from.cast<std::string>());
}

/// Every option must be given: the defaults are those of Python's layers.
Spec make_spec(const py::kwargs& given) {
    size_t used = 0;
    const auto argument = [&](const char* name) {
        if (!given.contains(name))
            throw py::type_error(std::string("Spec: ") + name + " is missing");
        ++used;
        return py::object(given[name]);
    };
    Spec spec;
    spec.layer.cell.kind = parse_name("kind", kCellNames, argument("kind").cast<std::string>());
    spec.is_double = parse_name("dtype", kIsDouble, argument("dtype").cast<std::string>());
    for (const Option& option : kOptions)
        std::visit([&](auto* value) { take(option.name, argument(option.name), *value); },
                   option.field(spec.layer));
    if (used != given.size()) throw py::type_error("Spec: an argument that is not an option");
    spec.layer.check();
    return spec;
}

}  // namespace

Activation parse_activation(const ActivationTuple& from) {
    const auto& [name, alpha, beta] = from;
    return {parse_name("activation", kActivationNames, name), alpha, beta};
}

Precision parse_precision(const std::string& name) {
    return parse_name("precision", kPrecisionNames, name);
}

void bind_spec(py::module_& m) {
    py::class_<Spec>(m, "Spec", py::is_final()).def(py::init(&make_spec));
}
