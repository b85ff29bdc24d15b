#include "lstmcore/network.h"

#include <stdexcept>
#include <utility>

#include "network/attempt.h"
#include "network/part.h"

namespace lstmcore {
namespace {

/// An input as a value of the network; throws std::invalid_argument where it is none.
template <class T>
Value<T> value_of(const NetworkInput<T>& input, const Axes& axes, int64_t batch,
                  const std::string& name) {
    const auto refuse = [&](const std::string& what) { throw std::invalid_argument(name + what); };
    Value<T> value;
    value.axes = axes;
    value.batch = batch;
    if (axes.steps) value.steps = input.steps;
    if (input.steps < 0)
        refuse(".steps is " + std::to_string(input.steps) + ", expected at least 0");
    if (!axes.steps && (input.steps != 1 || input.lengths))
        refuse(" has steps or lengths, but is " + text_of(axes));
    // Throws std::bad_alloc of more than there can be.
    const int64_t numbers = size_product(value.steps, batch, axes.features ? axes.features : 1);
    const bool ids = axes.features == 0;
    if (numbers > 0 && (ids ? !input.ids : !input.x))
        refuse(std::string(ids ? ".ids" : ".x") + " is null, expected " + text_of(axes));
    if (ids ? input.x != nullptr : input.ids != nullptr)
        refuse(std::string(ids ? ".x" : ".ids") + " is given, expected " + text_of(axes));
    static const T none{};
    static const int64_t no_id{};
    value.x = ids ? nullptr : input.x ? input.x : &none;
    value.ids = !ids ? nullptr : input.ids ? input.ids : &no_id;
    if (!input.lengths) return value;
    for (int64_t b = 0; b < batch; ++b)
        if (input.lengths[b] < 0 || input.lengths[b] > value.steps)
            refuse(".lengths[" + std::to_string(b) + "] is " + std::to_string(input.lengths[b]) +
                   ", expected 0 to " + std::to_string(value.steps));
    value.lengths =
        std::make_shared<const std::vector<int64_t>>(input.lengths, input.lengths + batch);
    return value;
}

template <class T>
NetworkOutput<T> output_of(const Value<T>& value) {
    NetworkOutput<T> output;
    output.steps = value.steps;
    output.batch = value.batch;
    output.features = value.features();
    output.y.assign(value.x, value.x + value.rows() * value.features());
    if (value.axes.steps && value.lengths) output.lengths = *value.lengths;
    return output;
}

}  // namespace

template <class T>
Network<T>::Network(std::shared_ptr<const Part<T>> whole, std::vector<NetworkAxes> inputs)
    : whole_(std::move(whole)), inputs_(std::move(inputs)), outputs_(whole_->axes(inputs_)) {
    for (const NetworkAxes& output : outputs_)
        if (output.features < 1) throw std::runtime_error("its output is ids, expected features");
}

template <class T>
std::vector<NetworkOutput<T>> Network<T>::forward(const std::vector<NetworkInput<T>>& inputs,
                                                  int64_t batch, int num_threads) const {
    if (batch < 0)
        throw std::invalid_argument("batch is " + std::to_string(batch) + ", expected at least 0");
    if (inputs.size() != inputs_.size())
        throw std::invalid_argument("inputs has " + std::to_string(inputs.size()) +
                                    " entries, expected " + std::to_string(inputs_.size()));
    std::vector<Value<T>> values;
    for (size_t i = 0; i < inputs.size(); ++i)
        values.push_back(
            value_of(inputs[i], inputs_[i], batch, "inputs[" + std::to_string(i) + "]"));
    std::vector<NetworkOutput<T>> outputs;
    for (const Value<T>& value : whole_->run(values, num_threads))
        outputs.push_back(output_of(value));
    return outputs;
}

template <class T>
NetworkOutput<T> Network<T>::forward(const NetworkInput<T>& input, int64_t batch,
                                     int num_threads) const {
    return std::move(forward(std::vector<NetworkInput<T>>{input}, batch, num_threads)[0]);
}

template <class T>
Result<std::vector<NetworkOutput<T>>> Network<T>::try_forward(
    const std::vector<NetworkInput<T>>& inputs, int64_t batch, int num_threads) const noexcept {
    return attempt([&] { return forward(inputs, batch, num_threads); });
}

template class Network<float>;
template class Network<double>;

}  // namespace lstmcore
