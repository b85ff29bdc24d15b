// The stages of a model as ops, one after the other, checked and laid out in one piece of memory.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "stream/stream_ops.h"

namespace lstmcore {

/// `Recurrent` is what computes a recurrent layer and keeps its states.
template <class T, class Recurrent>
class OpChain {
public:
    /// Up to `most` rows are taken at once. make(weights, layer, arena) makes the op of a recurrent
    /// layer; it is called twice, the first time to count the memory.
    template <class Make>
    OpChain(std::vector<Stage<T>> stages, const Kernels<T>& kernels, int64_t most, Make make)
        : stages_(std::move(stages)), kernels_(kernels), most_(most) {
        find_input_size();
        const int64_t bytes = build(nullptr, make);
        memory_.reset(::operator new(bytes, std::align_val_t(kAlignment)));
        std::memset(memory_.get(), 0, bytes);
        build(memory_.get(), make);
    }

    const std::vector<Stage<T>>& stages() const { return stages_; }
    const Kernels<T>& kernels() const { return kernels_; }
    int64_t input_size() const { return input_size_; }
    int64_t output_size() const { return output_size_; }

    /// x (n, F_in), y (n, F_out); y may be x.
    void run(const T* x, T* y, int64_t n) noexcept {
        StridedRows<const T> rows{x, input_size_};
        for (Op& op : ops_) rows = std::visit([&](auto& o) noexcept { return o.run(rows, n); }, op);
        for (int64_t i = 0; i < n; ++i, y += output_size_)
            std::memcpy(y, rows.at(i), sizeof(T) * output_size_);
    }

    int64_t num_states() const { return int64_t(recurrent_.size()); }
    const LayerSpec& spec(int64_t index) const { return recurrent_[index]->spec(); }
    /// The op of layer l of a recurrent stage.
    const Recurrent& layer(int64_t index, int64_t l) const {
        return std::get<Recurrent>(ops_[first_op_[index] + l]);
    }
    /// Calls f(index, l, op) for every recurrent layer.
    template <class F>
    void each_layer(F f) const noexcept {
        for (int64_t index = 0; index < num_states(); ++index)
            for (int64_t l = 0; l < spec(index).num_layers; ++l) f(index, l, layer(index, l));
    }

private:
    using Op = std::variant<Recurrent, LinearOp<T>, RowOp<T>>;

    /// What a stage takes; 0 of one that takes whatever comes.
    static int64_t inputs_of(const std::shared_ptr<const Weights<T>>& weights) {
        return weights->spec().input_size;
    }
    static int64_t inputs_of(const std::shared_ptr<const Linear<T>>& linear) {
        return linear->inputs();
    }
    static int64_t inputs_of(const LayerNorm<T>& norm) { return norm.features; }
    static int64_t inputs_of(const Activation&) { return 0; }
    static int64_t inputs_of(const Softmax&) { return 0; }

    static void check(const std::shared_ptr<const Weights<T>>& weights) {
        if (!weights) throw std::invalid_argument("stages: one is null");
        const LayerSpec& spec = weights->spec();
        if (spec.bidirectional || spec.reverse)
            throw std::invalid_argument(
                std::string(spec.reverse ? "reverse" : "bidirectional") +
                " layers read from the end of a sequence, which a stream does not have");
    }
    static void check(const std::shared_ptr<const Linear<T>>& linear) {
        if (!linear) throw std::invalid_argument("stages: one is null");
    }
    static void check(const LayerNorm<T>& norm) {
        const auto fits = [&](const std::vector<T>& values) {
            return values.empty() || int64_t(values.size()) == norm.features;
        };
        if (norm.features < 1 || !fits(norm.weight) || !fits(norm.bias))
            throw std::invalid_argument("stages: the sizes of a LayerNorm contradict each other");
    }
    static void check(const Activation&) {}
    static void check(const Softmax&) {}

    template <class Make>
    void add(const std::shared_ptr<const Weights<T>>& weights, int64_t, Arena& arena, Make& make) {
        recurrent_.push_back(weights.get());
        first_op_.push_back(ops_.size());
        for (int64_t l = 0; l < weights->spec().num_layers; ++l)
            ops_.emplace_back(make(*weights, l, arena));
    }
    template <class Make>
    void add(const std::shared_ptr<const Linear<T>>& linear, int64_t, Arena& arena, Make&) {
        ops_.emplace_back(LinearOp<T>(*linear, most_, arena));
    }
    template <class RowFunction, class Make>
    void add(const RowFunction& f, int64_t features, Arena& arena, Make&) {
        ops_.emplace_back(RowOp<T>(f, kernels_, features, most_, arena));
    }

    void find_input_size() {
        for (const Stage<T>& stage : stages_) {
            std::visit([](const auto& s) { check(s); }, stage);
            if (input_size_ == 0)
                input_size_ = std::visit([](const auto& s) { return inputs_of(s); }, stage);
        }
        if (input_size_ == 0)
            throw std::invalid_argument("stages: none says how many features it takes");
    }

    template <class Make>
    int64_t build(void* base, Make& make) {
        Arena arena(base);
        ops_.clear();
        recurrent_.clear();
        first_op_.clear();
        int64_t features = input_size_;
        for (const Stage<T>& stage : stages_) {
            const int64_t inputs = std::visit([](const auto& s) { return inputs_of(s); }, stage);
            if (inputs != 0 && inputs != features)
                throw std::invalid_argument("stages: " + std::to_string(features) +
                                            " features come to one that takes " +
                                            std::to_string(inputs));
            std::visit([&](const auto& s) { add(s, features, arena, make); }, stage);
            features = std::visit([](const auto& op) { return op.features(); }, ops_.back());
        }
        output_size_ = features;
        return arena.used();
    }

    struct Release {
        void operator()(void* memory) const {
            ::operator delete(memory, std::align_val_t(kAlignment));
        }
    };

    std::vector<Stage<T>> stages_;
    const Kernels<T>& kernels_;  ///< of what works on rows; weights bring their own
    int64_t most_, input_size_ = 0, output_size_ = 0;
    std::vector<Op> ops_;
    std::vector<const Weights<T>*> recurrent_;
    std::vector<size_t> first_op_;  ///< of each recurrent stage
    std::unique_ptr<void, Release> memory_;
};

}  // namespace lstmcore
