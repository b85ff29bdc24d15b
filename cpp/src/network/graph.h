// Parts that are made of parts: chains and graphs.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "network/part.h"

namespace lstmcore {

/// Parts one after the other, each of which takes the first value that the one before gives.
template <class T>
class Chain : public Part<T> {
public:
    /// Messages call the part `name`.
    void add(std::string name, PartPointer<T> part) {
        parts_.emplace_back(std::move(name), std::move(part));
    }

    Axes wanted() const override;
    std::vector<Axes> axes(const std::vector<Axes>& args) const override;
    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int num_threads) const override;
    void add_stages(std::vector<Stage<T>>& stages) const override;

private:
    std::vector<std::pair<std::string, PartPointer<T>>> parts_;
};

/// Calls of parts, in order. Every value has a slot: first the inputs, then what the calls give.
template <class T>
class Graph : public Part<T> {
public:
    explicit Graph(std::vector<Axes> inputs) : inputs_(inputs), slots_(std::move(inputs)) {}

    /// Calls a part, which messages call `name`, with the values in these slots; of an argument
    /// that is not given the slot is negative. Throws std::runtime_error where they do not fit.
    void call(const std::string& name, const PartPointer<T>& part, std::vector<int64_t> args);
    /// After all calls.
    void set_outputs(std::vector<int64_t> slots);

    Axes wanted() const override { return inputs_[0]; }
    std::vector<Axes> inputs() const override { return inputs_; }
    std::vector<Axes> axes(const std::vector<Axes>& args) const override;
    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int num_threads) const override;
    /// Of a graph that is a chain.
    void add_stages(std::vector<Stage<T>>& stages) const override;

private:
    struct Call {
        std::string name;
        PartPointer<T> part;
        std::vector<int64_t> args;
        size_t first;                   ///< slot of the first value that it gives
        std::vector<size_t> last_uses;  ///< slots that no later call needs
    };

    void check_slot(int64_t slot) const;

    std::vector<Axes> inputs_, slots_;
    std::vector<Call> calls_;
    std::vector<int64_t> outputs_;
};

}  // namespace lstmcore
