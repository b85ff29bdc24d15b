#include "network/graph.h"

#include <algorithm>

namespace lstmcore {
namespace {

/// Calls f(); what it throws names the part.
template <class F>
auto naming(const std::string& name, F f) {
    try {
        return f();
    } catch (const std::runtime_error& error) {
        throw std::runtime_error(name + ": " + error.what());
    } catch (const std::invalid_argument& error) {
        throw std::invalid_argument(name + ": " + error.what());
    }
}

}  // namespace

std::string text_of(const Axes& axes) {
    if (axes == kNothing) return "nothing";
    if (axes.features == 0) return axes.steps ? "ids (T, B)" : "ids (B)";
    const std::string first = axes.states ? std::to_string(axes.states) + ", " : "";
    return "(" + first + (axes.steps ? "T, B, " : "B, ") + std::to_string(axes.features) + ")";
}

template <class T>
Axes Chain<T>::wanted() const {
    Axes found{kAnyFeatures, true};
    for (size_t i = 0; i < parts_.size() && found.features == kAnyFeatures; ++i) {
        const Axes wanted = parts_[i].second->wanted();
        if (i == 0) found.steps = wanted.steps;
        found.features = wanted.features;
    }
    return found;
}

template <class T>
std::vector<Axes> Chain<T>::axes(const std::vector<Axes>& args) const {
    std::vector<Axes> values = args;
    for (const auto& [name, part] : parts_)
        values = {naming(name, [&, &part = part] { return part->axes(values); })[0]};
    return values;
}

template <class T>
std::vector<Value<T>> Chain<T>::run(const std::vector<Value<T>>& args, int num_threads) const {
    std::vector<Value<T>> values = args;
    for (const auto& [name, part] : parts_)
        values = {naming(name, [&, &part = part] { return part->run(values, num_threads); })[0]};
    return values;
}

template <class T>
void Chain<T>::add_stages(std::vector<Stage<T>>& stages) const {
    for (const auto& [name, part] : parts_)
        naming(name, [&, &part = part] { part->add_stages(stages); });
}

template <class T>
void Graph<T>::check_slot(int64_t slot) const {
    if (slot >= int64_t(slots_.size()))
        throw std::runtime_error("the value " + std::to_string(slot) + " of the graph is unknown");
}

template <class T>
void Graph<T>::call(const std::string& name, const PartPointer<T>& part,
                    std::vector<int64_t> args) {
    while (!args.empty() && args.back() < 0) args.pop_back();
    std::vector<Axes> given;
    for (const int64_t slot : args) {
        check_slot(slot);
        given.push_back(slot < 0 ? kNothing : slots_[size_t(slot)]);
    }
    const std::vector<Axes> made = naming(name, [&] { return part->axes(given); });
    calls_.push_back({name, part, std::move(args), slots_.size(), {}});
    slots_.insert(slots_.end(), made.begin(), made.end());
}

template <class T>
void Graph<T>::set_outputs(std::vector<int64_t> slots) {
    for (const int64_t slot : slots) {
        if (slot < 0) throw std::runtime_error("an output of the graph is null");
        check_slot(slot);
    }
    if (slots.empty()) throw std::runtime_error("the graph has no output");
    outputs_ = std::move(slots);
    std::vector<bool> needed(slots_.size());
    for (const int64_t slot : outputs_) needed[size_t(slot)] = true;
    for (auto call = calls_.rbegin(); call != calls_.rend(); ++call)
        for (const int64_t slot : call->args)
            if (slot >= 0 && !needed[size_t(slot)]) {
                needed[size_t(slot)] = true;
                call->last_uses.push_back(size_t(slot));
            }
}

template <class T>
std::vector<Axes> Graph<T>::axes(const std::vector<Axes>& args) const {
    if (args.size() != inputs_.size())
        throw std::runtime_error("it is given " + std::to_string(args.size()) +
                                 " arguments, expected " + std::to_string(inputs_.size()));
    for (size_t i = 0; i < args.size(); ++i)
        if (args[i] != inputs_[i]) refuse(args[i], text_of(inputs_[i]));
    std::vector<Axes> made;
    for (const int64_t slot : outputs_) made.push_back(slots_[size_t(slot)]);
    return made;
}

template <class T>
std::vector<Value<T>> Graph<T>::run(const std::vector<Value<T>>& args, int num_threads) const {
    std::vector<Value<T>> values = args;
    values.resize(slots_.size());
    for (const Call& call : calls_) {
        std::vector<Value<T>> given;
        for (const int64_t slot : call.args)
            given.push_back(slot < 0 ? Value<T>() : values[size_t(slot)]);
        std::vector<Value<T>> made =
            naming(call.name, [&] { return call.part->run(given, num_threads); });
        std::move(made.begin(), made.end(), values.begin() + std::ptrdiff_t(call.first));
        for (const size_t slot : call.last_uses) values[slot] = {};
    }
    std::vector<Value<T>> made;
    for (const int64_t slot : outputs_) made.push_back(values[size_t(slot)]);
    return made;
}

template <class T>
void Graph<T>::add_stages(std::vector<Stage<T>>& stages) const {
    int64_t before = 0;
    for (const Call& call : calls_) {
        if (call.args != std::vector<int64_t>{before})
            throw std::runtime_error(call.name +
                                     ": streams run chains, which this graph is not; "
                                     "load_network() runs it");
        naming(call.name, [&] { call.part->add_stages(stages); });
        before = int64_t(call.first);
    }
    if (inputs_.size() != 1 || outputs_ != std::vector<int64_t>{before})
        throw std::runtime_error(
            "its outputs are more than y of a chain, which streams run; load_network() runs it");
}

template class Chain<float>;
template class Chain<double>;
template class Graph<float>;
template class Graph<double>;

}  // namespace lstmcore
