#include "network/layers.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "lstmcore/layer.h"
#include "lstmcore/row_functions.h"
#include "recurrent/weights.h"
#include "training/linear.h"

namespace lstmcore {
namespace {

template <class T>
class RecurrentPart : public Part<T> {
public:
    explicit RecurrentPart(std::shared_ptr<const Weights<T>> weights)
        : weights_(std::move(weights)), spec_(weights_->spec()) {}

    Axes wanted() const override { return {spec_.input_size, true}; }

    std::vector<Axes> axes(const std::vector<Axes>& args) const override {
        const std::vector<Axes> state = states();
        if (args.empty() || args.size() > 1 + state.size())
            throw std::runtime_error("it is given " + std::to_string(args.size()) + " arguments");
        check_steps(args[0]);
        check_features(args[0], spec_.input_size);
        for (size_t i = 1; i < args.size(); ++i)
            if (args[i] != kNothing && args[i] != state[i - 1])
                refuse(args[i], "a state " + text_of(state[i - 1]));
        std::vector<Axes> made{{spec_.feature_size(), true}};
        made.insert(made.end(), state.begin(), state.end());
        return made;
    }

    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int num_threads) const override {
        const Value<T>& x = args[0];
        Sequences<T> in;
        in.steps = x.steps;
        in.batch = x.batch;
        in.x = {x.x, x.batch * x.features(), x.features()};
        in.lengths = x.lengths ? x.lengths->data() : nullptr;
        if (args.size() > 1) in.h0 = args[1].x;
        if (args.size() > 2) in.c0 = args[2].x;
        NewValue<T> y = like(x, spec_.feature_size());
        std::vector<Value<T>> made{y};
        T* state[2] = {};
        size_t count = 0;
        for (const Axes& axes : states()) {
            NewValue<T> part(axes, axes.states, x.batch);
            state[count++] = part.y;
            made.push_back(std::move(part));
        }
        const CallThreads threads = forward_threads(spec_, in, false, num_threads);
        const Buffer workspace(forward_workspace_bytes(spec_, in, false, threads.count()));
        forward<T>(*weights_, in, {y.y, x.batch * y.features(), y.features()}, state[0], state[1],
                   nullptr, workspace.data(), threads.count());
        return made;
    }

    void add_stages(std::vector<Stage<T>>& stages) const override { stages.push_back(weights_); }

private:
    /// Of h and, of an LSTM, c.
    std::vector<Axes> states() const {
        const int64_t count = spec_.num_layers * spec_.directions();
        std::vector<Axes> axes{{spec_.output_size(), false, count}};
        if (spec_.cell.kind == CellKind::lstm) axes.push_back({spec_.hidden_size, false, count});
        return axes;
    }

    std::shared_ptr<const Weights<T>> weights_;
    LayerSpec spec_;
};

template <class T>
class LinearPart : public Unary<T> {
public:
    explicit LinearPart(std::shared_ptr<const Linear<T>> linear) : linear_(std::move(linear)) {}

    Axes wanted() const override { return {linear_->inputs(), true}; }
    void add_stages(std::vector<Stage<T>>& stages) const override { stages.push_back(linear_); }

private:
    Axes axes_of(const Axes& x) const override {
        check_features(x, linear_->inputs());
        return {linear_->outputs(), x.steps, x.states};
    }
    Value<T> value_of(const Value<T>& x, int num_threads) const override {
        NewValue<T> y = like(x, linear_->outputs());
        linear_forward(*linear_, x.x, x.rows(), y.y, num_threads);
        return y;
    }

    std::shared_ptr<const Linear<T>> linear_;
};

template <class T>
void run_rows(const LayerNorm<T>& norm, const Value<T>& x, T* y, int num_threads) {
    LayerNormArgs<T> args;
    args.features = norm.features;
    args.eps = norm.eps;
    args.weight = norm.weight.empty() ? nullptr : norm.weight.data();
    args.bias = norm.bias.empty() ? nullptr : norm.bias.data();
    layer_norm(args, x.x, x.rows(), y, num_threads);
}
template <class T>
void run_rows(const Activation& f, const Value<T>& x, T* y, int num_threads) {
    activate(f, x.x, x.rows() * x.features(), y, num_threads);
}
template <class T>
void run_rows(const Softmax&, const Value<T>& x, T* y, int num_threads) {
    softmax(x.x, x.rows(), x.features(), y, num_threads);
}

/// `F` is LayerNorm, Activation or Softmax.
template <class T, class F>
class RowPart : public SameAxes<T> {
public:
    explicit RowPart(F f) : f_(std::move(f)) {}

    Axes wanted() const override {
        if constexpr (std::is_same_v<F, LayerNorm<T>>) return {f_.features, true};
        return {kAnyFeatures, true};
    }
    void add_stages(std::vector<Stage<T>>& stages) const override { stages.push_back(f_); }

private:
    Value<T> value_of(const Value<T>& x, int num_threads) const override {
        NewValue<T> y = like(x, x.features());
        run_rows(f_, x, y.y, num_threads);
        return y;
    }

    F f_;
};

template <class T>
class ConvPart : public Unary<T> {
public:
    ConvPart(const Windows& windows, std::vector<std::shared_ptr<const Linear<T>>> groups)
        : windows_(windows), groups_(std::move(groups)) {}

    Axes wanted() const override { return {windows_.channels, true}; }

private:
    Axes axes_of(const Axes& x) const override {
        check_steps(x);
        check_features(x, windows_.channels);
        return {outputs(), true};
    }

    int64_t outputs() const { return int64_t(groups_.size()) * groups_[0]->outputs(); }

    Value<T> value_of(const Value<T>& x, int num_threads) const override {
        const int64_t steps = windows_.count(x.steps);
        NewValue<T> y({outputs(), true}, steps, x.batch);
        for (size_t group = 0; group < groups_.size(); ++group)
            add_group(x, int64_t(group), y, num_threads);
        if (!x.lengths) return y;
        std::vector<int64_t> ends;
        for (const int64_t length : *x.lengths) ends.push_back(windows_.count(length));
        for (int64_t b = 0; b < x.batch; ++b)
            for (int64_t t = ends[size_t(b)]; t < steps; ++t)
                std::fill_n(y.to(t, b), y.features(), T(0));
        y.lengths = std::make_shared<const std::vector<int64_t>>(std::move(ends));
        return y;
    }

    /// The features of y that a group makes.
    void add_group(const Value<T>& x, int64_t group, NewValue<T>& y, int num_threads) const {
        const Linear<T>& linear = *groups_[size_t(group)];
        NewValue<T> beside({linear.inputs(), true}, y.steps, x.batch);
        for (int64_t t = 0; t < y.steps; ++t)
            for (int64_t b = 0; b < x.batch; ++b) fill(x, t, b, group, beside.to(t, b));
        if (groups_.size() == 1) {
            linear_forward(linear, beside.x, y.rows(), y.y, num_threads);
            return;
        }
        const int64_t size = linear.outputs();
        NewValue<T> part({size, true}, y.steps, x.batch);
        linear_forward(linear, beside.x, y.rows(), part.y, num_threads);
        for (int64_t i = 0; i < y.rows(); ++i)
            std::memcpy(y.y + i * y.features() + group * size, part.y + i * size,
                        sizeof(T) * size_t(size));
    }

    /// One window: steps before the first and past the end of the row are zeros.
    void fill(const Value<T>& x, int64_t t, int64_t b, int64_t group, T* to) const {
        const int64_t channels = windows_.channels / int64_t(groups_.size());
        for (int64_t k = 0; k < windows_.taps; ++k, to += channels) {
            const int64_t s = windows_.stride * t + windows_.dilation * k - windows_.left;
            if (s >= 0 && s < x.end(b))
                std::memcpy(to, x.at(s, b) + group * channels, sizeof(T) * size_t(channels));
            else
                std::fill_n(to, channels, T(0));
        }
    }

    Windows windows_;
    std::vector<std::shared_ptr<const Linear<T>>> groups_;
};

template <class T>
class EmbeddingPart : public Unary<T> {
public:
    explicit EmbeddingPart(Table<T> table) : table_(std::move(table)) {}

    Axes wanted() const override { return {0, true}; }

private:
    Axes axes_of(const Axes& x) const override {
        if (x.features != 0) refuse(x, "ids");
        return {table_.features, x.steps};
    }
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y = like(x, table_.features);
        for (int64_t i = 0; i < x.rows(); ++i) {
            if (x.ids[i] < 0 || x.ids[i] >= table_.count)
                throw std::invalid_argument("ids has " + std::to_string(x.ids[i]) +
                                            ", expected 0 to " + std::to_string(table_.count - 1));
            table_.copy_row(x.ids[i], y.y + i * table_.features);
        }
        return y;
    }

    Table<T> table_;
};

template <class T>
class BatchNormPart : public SameAxes<T> {
public:
    explicit BatchNormPart(const RunningStatistics<T>& s)
        : mean_(s.mean), weight_(s.weight), bias_(s.bias) {
        for (const T variance : s.variance) scale_.push_back(1 / std::sqrt(variance + T(s.eps)));
    }

    Axes wanted() const override { return {int64_t(mean_.size()), true}; }

private:
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y = like(x, x.features());
        for (int64_t t = 0; t < x.steps; ++t)
            for (int64_t b = 0; b < x.batch; ++b)
                if (t < x.end(b))
                    row(x.at(t, b), y.to(t, b));
                else
                    std::fill_n(y.to(t, b), x.features(), T(0));
        return y;
    }
    void row(const T* x, T* y) const {
        for (size_t i = 0; i < mean_.size(); ++i) {
            y[i] = (x[i] - mean_[i]) * scale_[i];
            if (!weight_.empty()) y[i] = y[i] * weight_[i] + bias_[i];
        }
    }

    std::vector<T> mean_, weight_, bias_, scale_;
};

}  // namespace

int64_t Windows::count(int64_t steps) const {
    return std::max<int64_t>(left + steps + right - reach() - 1 + stride, 0) / stride;
}

template <class T>
void Table<T>::copy_row(int64_t id, T* to) const {
    const int64_t first = id * features;
    if (!whole.empty())
        for (int64_t i = 0; i < features; ++i)
            to[i] = T(float(whole[size_t(first + i)]) * scales[size_t(id)]);
    else if (!rounded.empty())
        for (int64_t i = 0; i < features; ++i) to[i] = T(from_bfloat16(rounded[size_t(first + i)]));
    else
        std::copy_n(numbers.data() + first, features, to);
}

template <class T>
PartPointer<T> recurrent_part(std::shared_ptr<const Weights<T>> weights) {
    return std::make_shared<RecurrentPart<T>>(std::move(weights));
}

template <class T>
PartPointer<T> linear_part(std::shared_ptr<const Linear<T>> linear) {
    return std::make_shared<LinearPart<T>>(std::move(linear));
}

template <class T>
PartPointer<T> row_part(Stage<T> stage) {
    if (auto* norm = std::get_if<LayerNorm<T>>(&stage))
        return std::make_shared<RowPart<T, LayerNorm<T>>>(std::move(*norm));
    if (const auto* f = std::get_if<Activation>(&stage))
        return std::make_shared<RowPart<T, Activation>>(*f);
    return std::make_shared<RowPart<T, Softmax>>(std::get<Softmax>(stage));
}

template <class T>
PartPointer<T> conv_part(const Windows& windows,
                         std::vector<std::shared_ptr<const Linear<T>>> groups) {
    return std::make_shared<ConvPart<T>>(windows, std::move(groups));
}

template <class T>
PartPointer<T> embedding_part(Table<T> table) {
    return std::make_shared<EmbeddingPart<T>>(std::move(table));
}

template <class T>
PartPointer<T> batch_norm_part(const RunningStatistics<T>& statistics) {
    return std::make_shared<BatchNormPart<T>>(statistics);
}

#define LSTMCORE_INSTANTIATE(T)                                                       \
    template PartPointer<T> recurrent_part(std::shared_ptr<const Weights<T>>);        \
    template PartPointer<T> linear_part(std::shared_ptr<const Linear<T>>);            \
    template PartPointer<T> row_part(Stage<T>);                                       \
    template PartPointer<T> conv_part(const Windows&,                                 \
                                      std::vector<std::shared_ptr<const Linear<T>>>); \
    template struct Table<T>;                                                         \
    template PartPointer<T> embedding_part(Table<T>);                                 \
    template PartPointer<T> batch_norm_part(const RunningStatistics<T>&);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
