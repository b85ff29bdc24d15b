#include "network/functions.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lstmcore/row_functions.h"

namespace lstmcore {
namespace {

/// y(x), where p are the options. What is computed in T alone is so in Python, too.
template <class T>
using Function = T (*)(T x, const T* p);

template <class T>
struct NamedFunction {
    const char* name;
    Function<T> f;
};

/// log(1 + exp(x))
template <class T>
T softplus(T x) {
    return std::max(x, T(0)) + std::log1p(std::exp(-std::abs(x)));
}

template <class T>
T gelu_tanh(T x, const T*) {
    const T inner = T(0.79788456080286536) * (x + T(0.044715) * x * x * x);
    return T(0.5) * x * (1 + std::tanh(inner));
}

template <class T>
constexpr NamedFunction<T> kFunctions[] = {
    {"GELU(tanh)", gelu_tanh<T>},
    {"ELU", [](T x, const T* p) { return x > 0 ? x : p[0] * std::expm1(x); }},
    {"LeakyReLU", [](T x, const T* p) { return x > 0 ? x : x * p[0]; }},
    {"Softplus",
     [](T x, const T* p) {
         const T scaled = p[0] * x;
         return scaled > p[1] ? x : softplus(scaled) / p[0];
     }},
};

/// Those of Activation, which have no options.
template <class T>
constexpr NamedFunction<T> kNamed[] = {
    {"absolute", [](T x, const T*) { return std::abs(x); }},
    {"relu6", [](T x, const T*) { return std::min(std::max(x, T(0)), T(6)); }},
    {"softsign", [](T x, const T*) { return x * (1 / (1 + std::abs(x))); }},
    {"square", [](T x, const T*) { return x * x; }},
};

template <class T>
class FunctionPart : public SameAxes<T> {
public:
    FunctionPart(Function<T> f, const std::vector<double>& numbers)
        : f_(f), numbers_(numbers.begin(), numbers.end()) {}

private:
    Value<T> value_of(const Value<T>& x, int) const override {
        NewValue<T> y = like(x, x.features());
        for (int64_t i = 0; i < x.rows() * x.features(); ++i) {
            const T number = x.x[i];
            y.y[i] = std::isnan(number) ? number : f_(number, numbers_.data());
        }
        return y;
    }

    Function<T> f_;
    std::vector<T> numbers_;
};

template <class T>
class PreluPart : public SameAxes<T> {
public:
    explicit PreluPart(std::vector<T> slopes) : slopes_(std::move(slopes)) {}

    Axes wanted() const override {
        return {slopes_.size() == 1 ? kAnyFeatures : int64_t(slopes_.size()), true};
    }

private:
    Value<T> value_of(const Value<T>& x, int) const override {
        const int64_t features = x.features();
        NewValue<T> y = like(x, features);
        for (int64_t i = 0; i < x.rows(); ++i)
            for (int64_t k = i * features; k < (i + 1) * features; ++k) {
                const size_t slope = slopes_.size() == 1 ? 0 : size_t(k - i * features);
                y.y[k] = x.x[k] > 0 ? x.x[k] : x.x[k] * slopes_[slope];
            }
        return y;
    }

    std::vector<T> slopes_;
};

/// x - log(sum(exp(x))) of each row, by the kernel's softmax: its largest share is 1 over the sum
/// of exp(x - the largest).
template <class T>
class LogSoftmaxPart : public SameAxes<T> {
    Value<T> value_of(const Value<T>& x, int num_threads) const override {
        const int64_t classes = x.features();
        NewValue<T> y = like(x, classes);
        softmax(x.x, x.rows(), classes, y.y, num_threads);
        for (int64_t row = 0; row < x.rows(); ++row) {
            const T* from = x.x + row * classes;
            T* to = y.y + row * classes;
            const T most = largest(from, classes), log_share = std::log(largest(to, classes));
            for (int64_t c = 0; c < classes; ++c) to[c] = (from[c] - most) + log_share;
        }
        return y;
    }

    /// NaN if one is.
    static T largest(const T* x, int64_t n) {
        T most = -std::numeric_limits<T>::infinity();
        for (int64_t i = 0; i < n; ++i) most = x[i] > most || std::isnan(x[i]) ? x[i] : most;
        return most;
    }
};

template <class T, size_t kCount>
PartPointer<T> find(const NamedFunction<T> (&functions)[kCount], const std::string& name,
                    const std::vector<double>& numbers) {
    for (const NamedFunction<T>& function : functions)
        if (name == function.name) return std::make_shared<FunctionPart<T>>(function.f, numbers);
    return nullptr;
}

}  // namespace

template <class T>
PartPointer<T> function_part(const std::string& name, const std::vector<double>& numbers) {
    if (name == "LogSoftmax") return std::make_shared<LogSoftmaxPart<T>>();
    return find(kFunctions<T>, name, numbers);
}

template <class T>
PartPointer<T> named_function_part(const std::string& name) {
    return find(kNamed<T>, name, {});
}

template <class T>
PartPointer<T> prelu_part(std::vector<T> slopes) {
    return std::make_shared<PreluPart<T>>(std::move(slopes));
}

#define LSTMCORE_INSTANTIATE(T)                                                            \
    template PartPointer<T> prelu_part(std::vector<T>);                                    \
    template PartPointer<T> function_part(const std::string&, const std::vector<double>&); \
    template PartPointer<T> named_function_part(const std::string&);
LSTMCORE_INSTANTIATE(float)
LSTMCORE_INSTANTIATE(double)
#undef LSTMCORE_INSTANTIATE

}  // namespace lstmcore
