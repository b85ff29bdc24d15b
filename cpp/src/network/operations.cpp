#include "network/operations.h"

#include <algorithm>
#include <utility>

namespace lstmcore {
namespace {

void check_count(const std::vector<Axes>& args, size_t count) {
    if (args.size() != count)
        throw std::runtime_error("it is given " + std::to_string(args.size()) +
                                 " arguments, expected " + std::to_string(count));
}

/// All with features, and the same axes but for their number.
void check_alike(const std::vector<Axes>& args) {
    if (args.empty()) throw std::runtime_error("it is given no argument");
    for (const Axes& x : args) {
        check_features(x);
        if (x.steps != args[0].steps || x.states != args[0].states)
            refuse(x, text_of(args[0]) + " but for the features");
    }
}

template <class T>
class BinaryPart : public Part<T> {
public:
    explicit BinaryPart(Sign sign) : sign_(sign) {}

    std::vector<Axes> axes(const std::vector<Axes>& args) const override {
        check_count(args, 2);
        check_alike(args);
        const int64_t a = args[0].features, b = args[1].features;
        if (a != b && a != 1 && b != 1) refuse(args[1], text_of(args[0]));
        return {{std::max(a, b), args[0].steps, args[0].states}};
    }

    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int) const override {
        const Value<T>&a = args[0], &b = args[1];
        check_together(a, b);
        const int64_t n = std::max(a.features(), b.features());
        NewValue<T> y = like(a, n);
        for (int64_t r = 0; r < a.rows(); ++r) {
            const T* const x = a.x + r * a.features();
            const T* const z = b.x + r * b.features();
            for (int64_t i = 0; i < n; ++i)
                y.y[r * n + i] = apply(x[a.features() == 1 ? 0 : i], z[b.features() == 1 ? 0 : i]);
        }
        return {y};
    }

private:
    T apply(T a, T b) const {
        return sign_ == Sign::add ? a + b : sign_ == Sign::subtract ? a - b : a * b;
    }

    Sign sign_;
};

template <class T>
class AffinePart : public SameAxes<T> {
public:
    AffinePart(double scale, double shift) : scale_(T(scale)), shift_(T(shift)) {}

private:
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y = like(x, x.features());
        for (int64_t i = 0; i < x.rows() * x.features(); ++i) {
            const T scaled = scale_ == 1 ? x.x[i] : x.x[i] * scale_;
            y.y[i] = shift_ == 0 ? scaled : scaled + shift_;
        }
        return y;
    }

    T scale_, shift_;
};

template <class T>
class ConcatPart : public Part<T> {
public:
    std::vector<Axes> axes(const std::vector<Axes>& args) const override {
        check_alike(args);
        Axes made = args[0];
        for (size_t i = 1; i < args.size(); ++i) made.features += args[i].features;
        return {made};
    }

    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int) const override {
        int64_t n = 0;
        for (const Value<T>& x : args) {
            check_together(args[0], x);
            n += x.features();
        }
        NewValue<T> y = like(args[0], n);
        T* to = y.y;
        for (int64_t r = 0; r < y.rows(); ++r)
            for (const Value<T>& x : args)
                to = std::copy_n(x.x + r * x.features(), x.features(), to);
        return {y};
    }
};

template <class T>
class RepeatLikePart : public Part<T> {
public:
    std::vector<Axes> axes(const std::vector<Axes>& args) const override {
        check_count(args, 2);
        if (args[0].features < 1 || args[0].steps || args[0].states) refuse(args[0], "(B, F)");
        if (!args[1].steps) refuse(args[1], "time steps");
        return {{args[0].features, true}};
    }

    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int) const override {
        const Value<T>&x = args[0], &steps = args[1];
        NewValue<T> y({x.features(), true}, steps.steps, x.batch);
        y.lengths = steps.lengths;
        for (int64_t t = 0; t < y.steps; ++t) std::copy_n(x.x, x.batch * x.features(), y.to(t, 0));
        return {y};
    }
};

template <class T>
class FeaturesPart : public Unary<T> {
public:
    explicit FeaturesPart(const Slice& slice) : slice_(slice) {}

private:
    Axes axes_of(const Axes& x) const override {
        check_features(x);
        const auto count = int64_t(slice_.places(x.features).size());
        if (count == 0) refuse(x, "features that it can take some of");
        return {count, x.steps, x.states};
    }
    Value<T> value_of(const Value<T>& x, int) const override {
        const std::vector<int64_t> places = slice_.places(x.features());
        NewValue<T> y = like(x, int64_t(places.size()));
        T* to = y.y;
        for (int64_t r = 0; r < x.rows(); ++r)
            for (const int64_t place : places) *to++ = x.x[r * x.features() + place];
        return y;
    }

    Slice slice_;
};

template <class T>
class LayersPart : public Unary<T> {
public:
    LayersPart(const Slice& slice, bool one) : slice_(slice), one_(one) {}

private:
    Axes axes_of(const Axes& x) const override {
        const auto count = x.states > 0 ? int64_t(slice_.places(x.states).size()) : 0;
        if (count == 0) refuse(x, "a state that it can take layers of");
        return {x.features, false, one_ ? 0 : count};
    }
    Value<T> value_of(const Value<T>& x, int) const override {
        const std::vector<int64_t> places = slice_.places(x.steps);
        const auto count = int64_t(places.size());
        NewValue<T> y({x.features(), false, one_ ? 0 : count}, count, x.batch);
        for (int64_t i = 0; i < count; ++i)
            std::copy_n(x.at(places[size_t(i)], 0), x.batch * x.features(), y.to(i, 0));
        return y;
    }

    Slice slice_;
    bool one_;
};

template <class T>
class StackPart : public Part<T> {
public:
    std::vector<Axes> axes(const std::vector<Axes>& args) const override {
        check_alike(args);
        for (const Axes& x : args)
            if (x.steps || x.states || x != args[0]) refuse(x, "(B, F) of the same size");
        return {{args[0].features, false, int64_t(args.size())}};
    }

    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int) const override {
        const Value<T>& first = args[0];
        const auto count = int64_t(args.size());
        NewValue<T> y({first.features(), false, count}, count, first.batch);
        for (int64_t i = 0; i < count; ++i)
            std::copy_n(args[size_t(i)].x, first.batch * first.features(), y.to(i, 0));
        return {y};
    }
};

}  // namespace

std::vector<int64_t> Slice::places(int64_t n) const {
    const int64_t by = step.value_or(1);
    std::vector<int64_t> found;
    if (by == 0) return found;
    const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? n : n - 1;
    const auto place = [&](const std::optional<int64_t>& given, int64_t otherwise) {
        if (!given) return otherwise;
        return std::min(std::max(*given < 0 ? *given + n : *given, low), high);
    };
    const int64_t first = place(start, by > 0 ? low : high), end = place(stop, by > 0 ? high : low);
    for (int64_t i = first; by > 0 ? i < end : i > end; i += by) found.push_back(i);
    return found;
}

template <class T>
PartPointer<T> binary_part(Sign sign) {
    return std::make_shared<BinaryPart<T>>(sign);
}

template <class T>
PartPointer<T> affine_part(double scale, double shift) {
    return std::make_shared<AffinePart<T>>(scale, shift);
}

template <class T>
PartPointer<T> concat_part() {
    return std::make_shared<ConcatPart<T>>();
}

template <class T>
PartPointer<T> repeat_like_part() {
    return std::make_shared<RepeatLikePart<T>>();
}

template <class T>
PartPointer<T> features_part(const Slice& slice) {
    return std::make_shared<FeaturesPart<T>>(slice);
}

template <class T>
PartPointer<T> layers_part(const Slice& slice) {
    return std::make_shared<LayersPart<T>>(slice, false);
}

template <class T>
PartPointer<T> layer_part(int64_t index) {
    Slice slice{index, index + 1, {}};
    if (index == -1) slice.stop.reset();
    return std::make_shared<LayersPart<T>>(slice, true);
}

template <class T>
PartPointer<T> stack_part() {
    return std::make_shared<StackPart<T>>();
}

#define LSTMCORE_INSTANTIATE(T)                          \
    template PartPointer<T> binary_part(Sign);           \
    template PartPointer<T> affine_part(double, double); \
    template PartPointer<T> concat_part();               \
    template PartPointer<T> repeat_like_part();          \
    template PartPointer<T> features_part(const Slice&); \
    template PartPointer<T> layers_part(const Slice&);   \
    template PartPointer<T> layer_part(int64_t);         \
    template PartPointer<T> stack_part();
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
