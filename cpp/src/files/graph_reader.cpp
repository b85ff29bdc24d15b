#include "files/graph_reader.h"

#include <cmath>
#include <cstdint>
#include <stdexcept>

#include "network/graph.h"
#include "network/operations.h"

namespace lstmcore {
namespace {

constexpr int64_t kNotGiven = -1;
constexpr int kMostNested = 20;  // of structures in structures

int64_t signed_integer(const Json& json, const std::string& name) {
    const double value = json.number(name);
    if (!(std::abs(value) <= 2147483648.0 && value == std::floor(value)))
        throw std::runtime_error(name + " is not an integer of 32 bits");
    return int64_t(value);
}

std::optional<int64_t> bound(const Json& json) {
    if (json.is_null()) return {};
    return signed_integer(json, "the bound of a slice");
}

/// An array that must have so many entries at least.
const Json::Array& list(const Json& json, const std::string& name, size_t least) {
    const Json::Array& entries = json.array(name);
    if (entries.size() < least) throw std::runtime_error(name + " has too few entries");
    return entries;
}

/// Adds the slots of a structure: a slot, null, ["tuple" or "list", parts] or ["dict", names,
/// parts].
void add_slots(const Json& tree, std::vector<int64_t>& slots, int depth = 0) {
    if (depth > kMostNested) throw std::runtime_error("the graph is nested too deep");
    if (tree.is_null()) return slots.push_back(kNotGiven);
    if (!tree.is_array()) return slots.push_back(tree.integer("a value of the graph"));
    const Json::Array& parts = list(tree, "a structure of the graph", 2);
    for (const Json& part : parts.back().array("the parts of a structure"))
        add_slots(part, slots, depth + 1);
}

std::vector<int64_t> slots_of(const Json& tree) {
    std::vector<int64_t> slots;
    add_slots(tree, slots);
    return slots;
}

/// [features or null, steps, dtype or null, axes within a step...]
Axes read_input(const Json& json) {
    const Json::Array& input = list(json, "an input of the graph", 3);
    if (input.size() > 3)
        throw std::runtime_error("an input has axes within its steps, which C++ does not read");
    const int64_t features = input[0].is_null() ? 0 : input[0].integer("the features of an input");
    if (features == 0 && !input[0].is_null()) throw std::runtime_error("an input has no features");
    return {features, input[1].boolean("whether an input has steps")};
}

/// An operation: its name, and what it was made with.
template <class T>
PartPointer<T> read_operation(const Json& json) {
    const Json::Array& what = list(json, "an operation", 1);
    const std::string& name = what[0].string("the name of an operation");
    const auto option = [&](size_t i) -> const Json& {
        if (what.size() <= i) throw std::runtime_error("the operation " + name + " lacks options");
        return what[i];
    };
    if (name == "Concat") return concat_part<T>();
    if (name == "Stack") return stack_part<T>();
    if (name == "Repeat") return repeat_like_part<T>();
    if (name == "Affine")
        return affine_part<T>(option(1).number("scale"), option(2).number("shift"));
    const std::string kind = name == "Binary" || name == "Index" ? option(1).string("kind") : "";
    if (name == "Binary" && kind == "add") return binary_part<T>(Sign::add);
    if (name == "Binary" && kind == "subtract") return binary_part<T>(Sign::subtract);
    if (name == "Binary" && kind == "multiply") return binary_part<T>(Sign::multiply);
    if (name == "Index" && kind == "new") return stack_part<T>();  // a state of one
    if (name == "Index" && kind == "layer")
        return layer_part<T>(signed_integer(option(2), "the index of a layer"));
    if (name == "Index" && (kind == "layers" || kind == "features")) {
        const Slice slice{bound(option(2)), bound(option(3)), bound(option(4))};
        return kind == "layers" ? layers_part<T>(slice) : features_part<T>(slice);
    }
    throw std::runtime_error("it has the operation " + name + (kind.empty() ? "" : " " + kind) +
                             ", which is known to Python only; C++ knows Affine, Binary, Concat, "
                             "Index, Repeat and Stack");
}

/// [module or operation, arguments, whose lengths or null]
template <class T>
void read_call(const Json& json, const std::vector<NamedPart<T>>& modules, Graph<T>& graph) {
    const Json::Array& call = list(json, "a call of the graph", 3);
    const std::vector<int64_t> args = slots_of(call[1]);
    if (!call[2].is_null() &&
        (args.empty() || call[2].integer("whose lengths a call has") != args[0]))
        throw std::runtime_error("a call has the lengths of another value, which C++ does not do");
    if (call[0].is_array()) {
        const PartPointer<T> operation = read_operation<T>(call[0]);
        const std::string& name = call[0].array("an operation")[0].string("an operation");
        return graph.call("operation " + name, operation, args);
    }
    const int64_t number = call[0].integer("a module of the graph");
    if (number >= int64_t(modules.size()))
        throw std::runtime_error("the module " + std::to_string(number) +
                                 " of the graph is unknown");
    const NamedPart<T>& module = modules[size_t(number)];
    graph.call(module.name, module.part, args);
}

}  // namespace

template <class T>
PartPointer<T> read_graph(const Json& json, const std::vector<NamedPart<T>>& modules) {
    const Json::Array& parts = list(json, "graph", 4);
    std::vector<Axes> inputs;
    for (const Json& input : list(parts[0], "the inputs of the graph", 1))
        inputs.push_back(read_input(input));
    const std::vector<int64_t> given = slots_of(parts[1]);
    for (size_t i = 0; i < given.size(); ++i)
        if (given.size() != inputs.size() || given[i] != int64_t(i))
            throw std::runtime_error("the inputs of the graph are not in order");
    auto graph = std::make_shared<Graph<T>>(inputs);
    for (const Json& call : parts[2].array("the calls of the graph"))
        read_call(call, modules, *graph);
    graph->set_outputs(slots_of(parts[3]));
    return graph;
}

template PartPointer<float> read_graph(const Json&, const std::vector<NamedPart<float>>&);
template PartPointer<double> read_graph(const Json&, const std::vector<NamedPart<double>>&);

}  // namespace lstmcore
