// Loops over the numbers of arrays whose axes have any strides.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <vector>

namespace lstmcore {

/// One array that is written and up to two that are read.
constexpr int kLoopArrays = 3;
using LoopStrides = std::array<int64_t, kLoopArrays>;

struct LoopAxis {
    int64_t size = 1;
    LoopStrides strides{};

    /// How fast it is as the innermost one.
    int64_t merit() const {
        const bool dense = std::all_of(strides.begin(), strides.end(),
                                       [](int64_t stride) { return stride == 0 || stride == 1; });
        return size * (dense ? 4 : strides[0] == 1 ? 2 : 1);
    }
};

/// Axes without those of size 1, and with those as one that lie one behind the other; the last is
/// the innermost. None at all: one number.
class Loop {
public:
    Loop() = default;
    explicit Loop(const std::vector<LoopAxis>& axes) {
        for (const LoopAxis& axis : axes) {
            if (axis.size == 0) empty_ = true;
            if (axis.size != 1 && !joined(axis)) axes_.push_back(axis);
        }
        if (axes_.empty()) axes_.emplace_back();
    }

    /// With runs of one number.
    Loop single() const {
        Loop found = *this;
        found.axes_.emplace_back();
        return found;
    }

    /// With the axis innermost that makes it fastest, where the order does not matter.
    Loop fastest() const {
        Loop found = *this;
        auto best = found.axes_.begin();
        for (auto axis = best; axis != found.axes_.end(); ++axis)
            if (axis->merit() >= best->merit()) best = axis;
        std::rotate(best, best + 1, found.axes_.end());
        return found;
    }

    const LoopAxis& inner() const { return axes_.back(); }

    /// Calls row(pointers) at the start of each run along the innermost axis.
    template <class T, class Row>
    void each(std::array<T*, kLoopArrays> at, Row row) const {
        if (empty_) return;
        constexpr size_t kMost = 64;
        int64_t index[kMost] = {};
        const size_t outer = axes_.size() - 1;
        for (;;) {
            row(at);
            size_t axis = outer;
            for (; axis > 0; --axis) {
                const LoopAxis& a = axes_[axis - 1];
                for (int i = 0; i < kLoopArrays; ++i) at[i] += a.strides[i];
                if (++index[axis - 1] < a.size) break;
                for (int i = 0; i < kLoopArrays; ++i) at[i] -= a.size * a.strides[i];
                index[axis - 1] = 0;
            }
            if (axis == 0) return;
        }
    }

private:
    /// Makes it one with the axis before, if that goes on where this one ends.
    bool joined(const LoopAxis& axis) {
        if (axes_.empty()) return false;
        LoopAxis& before = axes_.back();
        for (int i = 0; i < kLoopArrays; ++i)
            if (before.strides[i] != axis.size * axis.strides[i]) return false;
        before = {before.size * axis.size, axis.strides};
        return true;
    }

    std::vector<LoopAxis> axes_;
    bool empty_ = false;
};

/// y[i] = f(a[i], b[i]) along a whole loop.
template <class T, class F>
void map_pairs(const Loop& loop, const std::array<T*, kLoopArrays>& start, F f) {
    const int64_t n = loop.inner().size;
    const LoopStrides& strides = loop.inner().strides;
    const int64_t sy = strides[0], sa = strides[1], sb = strides[2];
    if (sy == 1 && sa == 1 && sb == 1) {
        loop.each(start, [=](const auto& at) {
            const auto [y, a, b] = at;
            for (int64_t i = 0; i < n; ++i) y[i] = f(a[i], b[i]);
        });
    } else if (sy == 1 && sa == 1 && sb == 0) {
        loop.each(start, [=](const auto& at) {
            const auto [y, a, b] = at;
            const T v = *b;
            for (int64_t i = 0; i < n; ++i) y[i] = f(a[i], v);
        });
    } else if (sy == 1 && sa == 0 && sb == 1) {
        loop.each(start, [=](const auto& at) {
            const auto [y, a, b] = at;
            const T v = *a;
            for (int64_t i = 0; i < n; ++i) y[i] = f(v, b[i]);
        });
    } else {
        loop.each(start, [=](const auto& at) {
            const auto [y, a, b] = at;
            for (int64_t i = 0; i < n; ++i) y[i * sy] = f(a[i * sa], b[i * sb]);
        });
    }
}

/// y[i] = f(a[i]) along a whole loop.
template <class T, class F>
void map_each(const Loop& loop, const std::array<T*, kLoopArrays>& start, F f) {
    const int64_t n = loop.inner().size;
    const int64_t sy = loop.inner().strides[0], sa = loop.inner().strides[1];
    if (sy == 1 && sa == 1) {
        loop.each(start, [=](const auto& at) {
            T* const y = at[0];
            const T* const a = at[1];
            for (int64_t i = 0; i < n; ++i) y[i] = f(a[i]);
        });
    } else {
        loop.each(start, [=](const auto& at) {
            T* const y = at[0];
            const T* const a = at[1];
            for (int64_t i = 0; i < n; ++i) y[i * sy] = f(a[i * sa]);
        });
    }
}

template <class T>
void copy_all(const Loop& loop, const std::array<T*, kLoopArrays>& start) {
    const LoopAxis& inner = loop.inner();
    if (inner.strides[0] != 1 || inner.strides[1] != 1)
        return map_each(loop, start, [](T a) { return a; });
    const size_t bytes = sizeof(T) * size_t(inner.size);
    loop.each(start, [=](const auto& at) { std::memmove(at[0], at[1], bytes); });
}

template <class T>
void fill_all(const Loop& loop, const std::array<T*, kLoopArrays>& start, T value) {
    const int64_t n = loop.inner().size, stride = loop.inner().strides[0];
    loop.each(start, [=](const auto& at) {
        for (int64_t i = 0; i < n; ++i) at[0][i * stride] = value;
    });
}

/// y = f(y, f over a row) where the innermost axis is one that y has not.
template <class T, class F>
void reduce_rows(const Loop& loop, const std::array<T*, kLoopArrays>& start, F f) {
    constexpr int64_t kChains = 16;  // which do not wait for each other, and round less
    const int64_t n = loop.inner().size, stride = loop.inner().strides[1];
    loop.each(start, [=](const auto& at) {
        const T* a = at[1];
        T found = *at[0];
        int64_t i = 0;
        if (stride == 1 && n >= kChains) {
            T some[kChains];
            std::copy_n(a, kChains, some);
            for (i = kChains; i + kChains <= n; i += kChains)
                for (int64_t j = 0; j < kChains; ++j) some[j] = f(some[j], a[i + j]);
            for (int64_t half = kChains / 2; half > 0; half /= 2)
                for (int64_t j = 0; j < half; ++j) some[j] = f(some[j], some[j + half]);
            found = f(found, some[0]);
        }
        for (; i < n; ++i) found = f(found, a[i * stride]);
        *at[0] = found;
    });
}

}  // namespace lstmcore
