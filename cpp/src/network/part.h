// What networks are made of: parts that make values of values.
//
// A part says what axes it gives for the axes of its arguments, once when a network is read, and
// then computes values with these axes, as often as wanted.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "lstmcore/memory.h"
#include "lstmcore/network.h"
#include "lstmcore/stream.h"

namespace lstmcore {

using Axes = NetworkAxes;

constexpr int64_t kAnyFeatures = -1;  ///< of a part that takes whatever comes
constexpr Axes kNothing{-2};          ///< of an argument that is not given

inline bool operator==(const Axes& a, const Axes& b) {
    return a.features == b.features && a.steps == b.steps && a.states == b.states;
}
inline bool operator!=(const Axes& a, const Axes& b) {
    return !(a == b);
}

std::string text_of(const Axes& axes);

/// Axes that do not fit.
[[noreturn]] inline void refuse(const Axes& x, const std::string& expected) {
    throw std::runtime_error("it is given " + text_of(x) + ", expected " + expected);
}

/// What goes from part to part. The first axis, if there are three, is counted by `steps`.
template <class T>
struct Value {
    Axes axes;
    int64_t steps = 1, batch = 0;
    const T* x = nullptr;
    const int64_t* ids = nullptr;
    std::shared_ptr<const void> owner;                    ///< of x or ids; null if borrowed
    std::shared_ptr<const std::vector<int64_t>> lengths;  ///< null: all rows have all steps

    int64_t rows() const { return steps * batch; }
    int64_t features() const { return axes.features; }
    /// How many steps a row has.
    int64_t end(int64_t row) const { return lengths ? (*lengths)[size_t(row)] : steps; }
    const T* at(int64_t step, int64_t row) const {
        return x + (step * batch + row) * axes.features;
    }
};

/// A value that is being written.
template <class T>
struct NewValue : Value<T> {
    T* y = nullptr;

    NewValue(const Axes& axes, int64_t steps, int64_t batch) {
        this->axes = axes;
        this->steps = steps;
        this->batch = batch;
        const int64_t bytes = size_product(size_product(steps, batch), axes.features, sizeof(T));
        auto memory = std::make_shared<Buffer>(bytes + 1);  // null would say: not there
        this->x = y = static_cast<T*>(memory->data());
        this->owner = std::move(memory);
    }
    T* to(int64_t step, int64_t row) const {
        return y + (step * this->batch + row) * this->axes.features;
    }
};

/// A value of as many rows and steps as x, of the same lengths.
template <class T>
NewValue<T> like(const Value<T>& x, int64_t features) {
    Axes axes = x.axes;
    axes.features = features;
    NewValue<T> y(axes, x.steps, x.batch);
    y.lengths = x.lengths;
    return y;
}

template <class T>
class Part {
public:
    virtual ~Part() = default;

    /// What it takes where nothing else says so: features, or kAnyFeatures, and whether there are
    /// steps.
    virtual Axes wanted() const { return {kAnyFeatures, true}; }
    /// The same of all arguments.
    virtual std::vector<Axes> inputs() const { return {wanted()}; }
    /// Throws std::runtime_error where the arguments are not what it takes.
    virtual std::vector<Axes> axes(const std::vector<Axes>& args) const = 0;
    /// Of arguments with axes that were accepted. Throws std::invalid_argument, std::bad_alloc.
    virtual std::vector<Value<T>> run(const std::vector<Value<T>>& args, int num_threads) const = 0;
    /// Adds what a stream does for it. Throws std::runtime_error where streams cannot.
    virtual void add_stages(std::vector<Stage<T>>&) const {
        throw std::runtime_error("streams do not run it; load_network() does");
    }
};

template <class T>
using PartPointer = std::shared_ptr<const Part<T>>;

/// A part that makes one value of one.
template <class T>
class Unary : public Part<T> {
public:
    std::vector<Axes> axes(const std::vector<Axes>& args) const final {
        if (args.size() != 1)
            throw std::runtime_error("it is given " + std::to_string(args.size()) +
                                     " arguments, expected one");
        return {axes_of(args[0])};
    }
    std::vector<Value<T>> run(const std::vector<Value<T>>& args, int num_threads) const final {
        return {value_of(args[0], num_threads)};
    }

private:
    virtual Axes axes_of(const Axes& x) const = 0;
    virtual Value<T> value_of(const Value<T>& x, int num_threads) const = 0;
};

/// One that knows of time: it takes (T, B, F).
inline void check_steps(const Axes& x) {
    if (!x.steps || x.features < 1) refuse(x, "(T, B, F)");
}

inline void check_features(const Axes& x, int64_t features = kAnyFeatures) {
    if (x.features < 1 || (features != kAnyFeatures && x.features != features))
        refuse(x, features == kAnyFeatures ? "features" : std::to_string(features) + " features");
}

/// A unary part whose value has the axes of its argument.
template <class T>
class SameAxes : public Unary<T> {
    Axes axes_of(const Axes& x) const final {
        check_features(x, this->wanted().features);
        return x;
    }
};

/// Steps and lengths of values that meet, which must be the same.
template <class T>
void check_together(const Value<T>& a, const Value<T>& b) {
    if (a.steps != b.steps)
        throw std::invalid_argument("values of " + std::to_string(a.steps) + " and " +
                                    std::to_string(b.steps) +
                                    " steps meet in the network, expected the same");
    if (a.axes.steps && a.lengths != b.lengths &&
        (!a.lengths || !b.lengths || *a.lengths != *b.lengths))
        throw std::invalid_argument(
            "values of different lengths meet in the network, expected the same");
}

}  // namespace lstmcore
