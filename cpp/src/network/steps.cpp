#include "network/steps.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

namespace lstmcore {
namespace {

template <class T>
class PoolPart : public Unary<T> {
public:
    explicit PoolPart(Pooling pooling) : pooling_(pooling) {}

private:
    Axes axes_of(const Axes& x) const override {
        check_steps(x);
        return {x.features};
    }

    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y({x.features()}, 1, x.batch);
        for (int64_t b = 0; b < x.batch; ++b) {
            T* const to = y.to(0, b);
            const int64_t end = x.end(b);
            const int64_t first = pooling_ == Pooling::last ? end - 1 : 0;
            if (end == 0)
                std::fill_n(to, x.features(), T(0));
            else
                std::copy_n(x.at(first, b), x.features(), to);
            for (int64_t t = first + 1; t < end; ++t) add(x.at(t, b), to, x.features());
            if (pooling_ == Pooling::mean) {
                const T share = T(1 / double(std::max<int64_t>(end, 1)));
                for (int64_t i = 0; i < x.features(); ++i) to[i] *= share;
            }
        }
        return y;
    }

    void add(const T* x, T* y, int64_t n) const {
        for (int64_t i = 0; i < n; ++i)
            if (pooling_ == Pooling::mean)
                y[i] += x[i];
            else if (!(x[i] <= y[i]) && !std::isnan(y[i]))  // the first NaN stays
                y[i] = x[i];
    }

    Pooling pooling_;
};

template <class T>
class BothEndsPart : public Unary<T> {
public:
    explicit BothEndsPart(Merge merge) : merge_(merge) {}

private:
    Axes axes_of(const Axes& x) const override {
        check_steps(x);
        if (x.features % 2 != 0) refuse(x, "two halves of the same size");
        return {merge_ == Merge::concat ? x.features : x.features / 2};
    }

    Value<T> value_of(const Value<T>& x, int) const override {
        const int64_t half = x.features() / 2;
        NewValue<T> y({merge_ == Merge::concat ? x.features() : half}, 1, x.batch);
        for (int64_t b = 0; b < x.batch; ++b) {
            T* const to = y.to(0, b);
            if (x.end(b) == 0) {
                std::fill_n(to, y.features(), T(0));
                continue;
            }
            const T* const forward = x.at(x.end(b) - 1, b);
            const T* const reverse = x.at(0, b) + half;
            std::copy_n(forward, half, to);
            if (merge_ == Merge::concat) std::copy_n(reverse, half, to + half);
            for (int64_t i = 0; merge_ != Merge::concat && i < half; ++i) {
                to[i] = merge_ == Merge::mul ? to[i] * reverse[i] : to[i] + reverse[i];
                if (merge_ == Merge::ave) to[i] /= 2;
            }
        }
        return y;
    }

    Merge merge_;
};

template <class T>
class FlipPart : public Unary<T> {
    Axes axes_of(const Axes& x) const override {
        check_steps(x);
        return x;
    }
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y = like(x, x.features());
        for (int64_t t = 0; t < x.steps; ++t)
            for (int64_t b = 0; b < x.batch; ++b)
                if (t < x.end(b))
                    std::copy_n(x.at(x.end(b) - 1 - t, b), x.features(), y.to(t, b));
                else
                    std::fill_n(y.to(t, b), x.features(), T(0));
        return y;
    }
};

template <class T>
class RepeatPart : public Unary<T> {
public:
    explicit RepeatPart(int64_t steps) : steps_(steps) {}

    Axes wanted() const override { return {kAnyFeatures, false}; }

private:
    Axes axes_of(const Axes& x) const override {
        if (x.features < 1 || x.steps || x.states) refuse(x, "(B, F)");
        return {x.features, true};
    }
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y({x.features(), true}, steps_, x.batch);
        for (int64_t t = 0; t < steps_; ++t) std::copy_n(x.x, x.batch * x.features(), y.to(t, 0));
        return y;
    }

    int64_t steps_;
};

template <class T>
class MaskingPart : public Unary<T> {
public:
    MaskingPart(double value, bool ids, bool gaps) : value_(value), ids_(ids), gaps_(gaps) {}

    Axes wanted() const override { return {ids_ ? 0 : kAnyFeatures, true}; }

private:
    Axes axes_of(const Axes& x) const override {
        if (!x.steps || (x.features == 0) != ids_) refuse(x, ids_ ? "ids (T, B)" : "(T, B, F)");
        return x;
    }

    bool is_there(const Value<T>& x, int64_t t, int64_t b) const {
        if (t >= x.end(b)) return false;
        if (ids_) return double(x.ids[t * x.batch + b]) != value_;
        const T* const row = x.at(t, b);
        return std::any_of(row, row + x.features(), [&](T number) { return number != T(value_); });
    }

    Value<T> value_of(const Value<T>& x, int) const override {
        std::vector<int64_t> found;
        std::vector<int64_t> order(size_t(x.rows()));  // [b][t]: the step that moves to t
        bool moves = false;
        for (int64_t b = 0; b < x.batch; ++b) {
            int64_t* const row = order.data() + b * x.steps;
            std::iota(row, row + x.steps, int64_t(0));
            int64_t* const end = std::stable_partition(
                row, row + x.steps, [&](int64_t t) { return is_there(x, t, b); });
            found.push_back(end - row);
            moves = moves || (end > row && end[-1] != end - row - 1);
        }
        if (moves && !gaps_)
            throw std::invalid_argument(
                "x has masked steps before the end of a row, expected them only at the end: this "
                "model has an output for every step, and none may move");
        Value<T> y = moves ? moved(x, order) : x;
        y.lengths = std::make_shared<const std::vector<int64_t>>(std::move(found));
        return y;
    }

    Value<T> moved(const Value<T>& x, const std::vector<int64_t>& order) const {
        if (!ids_) {
            NewValue<T> y = like(x, x.features());
            for (int64_t t = 0; t < x.steps; ++t)
                for (int64_t b = 0; b < x.batch; ++b)
                    std::copy_n(x.at(order[size_t(b * x.steps + t)], b), x.features(), y.to(t, b));
            return y;
        }
        auto ids = std::make_shared<std::vector<int64_t>>(size_t(x.rows()));
        for (int64_t t = 0; t < x.steps; ++t)
            for (int64_t b = 0; b < x.batch; ++b)
                (*ids)[size_t(t * x.batch + b)] =
                    x.ids[order[size_t(b * x.steps + t)] * x.batch + b];
        Value<T> y = x;
        y.ids = ids->data();
        y.owner = std::move(ids);
        return y;
    }

    double value_;
    bool ids_, gaps_;
};

template <class T>
class PassPart : public SameAxes<T> {
public:
    explicit PassPart(int64_t features) : features_(features) {}

    Axes wanted() const override { return {features_, true}; }
    void add_stages(std::vector<Stage<T>>&) const override {}

private:
    Value<T> value_of(const Value<T>& x, int) const override { return x; }

    int64_t features_;
};

}  // namespace

template <class T>
PartPointer<T> pool_part(Pooling pooling) {
    return std::make_shared<PoolPart<T>>(pooling);
}

template <class T>
PartPointer<T> both_ends_part(Merge merge) {
    return std::make_shared<BothEndsPart<T>>(merge);
}

template <class T>
PartPointer<T> flip_part() {
    return std::make_shared<FlipPart<T>>();
}

template <class T>
PartPointer<T> repeat_part(int64_t steps) {
    return std::make_shared<RepeatPart<T>>(steps);
}

template <class T>
PartPointer<T> masking_part(double value, bool ids, bool gaps) {
    return std::make_shared<MaskingPart<T>>(value, ids, gaps);
}

template <class T>
PartPointer<T> pass_part(int64_t features) {
    return std::make_shared<PassPart<T>>(features);
}

#define LSTMCORE_INSTANTIATE(T)                               \
    template PartPointer<T> pool_part(Pooling);               \
    template PartPointer<T> both_ends_part(Merge);            \
    template PartPointer<T> flip_part();                      \
    template PartPointer<T> repeat_part(int64_t);             \
    template PartPointer<T> masking_part(double, bool, bool); \
    template PartPointer<T> pass_part(int64_t);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
