#include "lstmcore/program.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <utility>

#include "kernel_table.h"
#include "lstmcore/memory.h"
#include "lstmcore/row_functions.h"
#include "machine/caches.h"
#include "machine/call_threads.h"
#include "machine/float_mode.h"
#include "machine/isa.h"
#include "network/loops.h"
#include "training/linear.h"

namespace lstmcore {
namespace {

/// The kernels may read so many numbers past the end of what they multiply: less than a register.
constexpr int64_t kPastEnd = 16;

[[noreturn]] void refuse(const std::string& what) {
    throw std::invalid_argument("operation: " + what);
}

bool is_mapped(Op op) {
    return op <= Op::maximum;
}
bool is_reduced(Op op) {
    return op == Op::sum || op == Op::least || op == Op::greatest;
}

int64_t count_of(const std::vector<int64_t>& shape) {
    int64_t count = 1;
    for (const int64_t n : shape) count = size_product(count, n);
    return count;
}

/// How many places an operation has, and how many axes; -1 is any number.
std::pair<size_t, int> form_of(Op op) {
    if (op == Op::fill) return {1, -1};
    if (op <= Op::reciprocal || is_reduced(op)) return {2, -1};
    if (op <= Op::maximum || op == Op::product) return {3, -1};
    if (op == Op::activate) return {2, 1};
    if (op == Op::softmax) return {2, 2};
    return {op == Op::linear ? 2 : 4, op == Op::linear ? 3 : 2};
}

/// Matrices of a product, each batch of them by itself.
struct Matrices {
    int64_t m = 0, k = 0, n = 0;
    int64_t a_row = 0, a_column = 0, b_row = 0, b_column = 0;
    bool a_as_is = false, b_as_is = false;  ///< as the kernel reads them

    int64_t room() const {
        return size_product(a_as_is ? 0 : m, k) + size_product(b_as_is ? 0 : k, n) + kPastEnd;
    }
};

template <class T>
struct Step {
    Operation<T> said;
    Loop loop;
    Matrices matrices;

    T* at(T* const* memories, size_t place) const {
        const Place& p = said.places[place];
        return p.memory < 0 ? nullptr : memories[p.memory] + p.offset;
    }
    /// Of all places, of which there may be fewer.
    std::array<T*, kLoopArrays> starts(T* const* memories) const {
        std::array<T*, kLoopArrays> found{};
        const size_t n = std::min(said.places.size(), size_t(kLoopArrays));
        for (size_t i = 0; i < kLoopArrays; ++i) found[i] = at(memories, i < n ? i : 0);
        return found;
    }
};

/// Refuses what does not lie in its memory.
void check_place(const Place& place, const std::vector<int64_t>& shape,
                 const std::vector<int64_t>& strides, const std::vector<int64_t>& sizes) {
    if (place.memory < 0 || place.memory >= int64_t(sizes.size())) refuse("no such memory");
    int64_t first = place.offset, last = place.offset;
    for (size_t axis = 0; axis < shape.size(); ++axis) {
        if (shape[axis] == 0) return;
        const int64_t reach = strides[axis] < 0 ? -size_product(shape[axis] - 1, -strides[axis])
                                                : size_product(shape[axis] - 1, strides[axis]);
        (reach < 0 ? first : last) += reach;
    }
    if (first < 0 || last >= sizes[place.memory]) refuse("it leaves its memory");
}

/// Refuses an operation whose arrays are contiguous, with one of them outside its memory.
template <class T>
void check_dense(const Operation<T>& said, const std::vector<int64_t>& sizes) {
    std::vector<int64_t> counts(4, count_of(said.shape));
    if (said.op == Op::linear) {
        const auto& linear = said.linear;
        if (!linear || linear->inputs() != said.shape[1] || linear->outputs() != said.shape[2])
            refuse("linear of other sizes");
        counts[0] = size_product(said.shape[0], said.shape[2]);
        counts[1] = size_product(said.shape[0], said.shape[1]);
    }
    if (said.op == Op::layer_norm) counts[2] = counts[3] = said.shape[1];
    for (size_t i = 0; i < said.places.size(); ++i)
        if (i < 2 || said.places[i].memory >= 0)
            check_place(said.places[i], {counts[i]}, {1}, sizes);
}

template <class T>
void check(const Operation<T>& said, const std::vector<int64_t>& sizes) {
    const auto [places, axes] = form_of(said.op);
    const int64_t count = int64_t(said.shape.size());
    if (said.places.size() != places || (axes >= 0 && count != axes) || count > 60)
        refuse("wrong number of places or axes");
    for (const int64_t n : said.shape)
        if (n < 0) refuse("a size below 0");
    if (!is_mapped(said.op) && !is_reduced(said.op) && said.op != Op::product)
        return check_dense(said, sizes);
    if (said.op == Op::product && count < 3) refuse("a product of no matrices");
    if (is_reduced(said.op) && (said.last < 0 || said.last > count)) refuse("last out of range");
    for (size_t i = 0; i < places; ++i) {
        std::vector<int64_t> strides = said.places[i].strides;
        if (strides.size() != said.shape.size()) refuse("wrong number of strides");
        if (said.op == Op::product && i == 0) {
            strides[count - 3] = said.shape[count - 1];
            strides[count - 2] = 0;
            strides[count - 1] = 1;
        }
        check_place(said.places[i], said.shape, strides, sizes);
    }
}

template <class T>
std::vector<LoopAxis> axes_of(const Operation<T>& said, size_t first, size_t last) {
    std::vector<LoopAxis> axes;
    for (size_t axis = first; axis < last; ++axis) {
        LoopAxis one{said.shape[axis], {}};
        for (size_t i = 0; i < std::min(said.places.size(), size_t(kLoopArrays)); ++i)
            one.strides[i] = said.places[i].strides[axis];
        axes.push_back(one);
    }
    return axes;
}

/// The loop of a reduction: the axes gone over last if one of them is dense, else first, so that
/// the innermost one is one of y.
template <class T>
Loop reduced_loop(const Operation<T>& said) {
    const size_t count = said.shape.size(), kept = count - size_t(said.last);
    std::vector<LoopAxis> outer = axes_of(said, 0, kept), inner = axes_of(said, kept, count);
    for (LoopAxis& axis : inner) axis.strides[0] = 0;
    const Loop within(inner);
    const bool rows = within.inner().strides[1] == 1 || Loop(outer).inner().size == 1;
    std::vector<LoopAxis>& first = rows ? outer : inner;
    first.insert(first.end(), (rows ? inner : outer).begin(), (rows ? inner : outer).end());
    return Loop(first);
}

template <class T>
Matrices matrices_of(const Operation<T>& said) {
    const size_t rows = said.shape.size() - 3;
    const Place &a = said.places[1], &b = said.places[2];
    Matrices found{said.shape[rows],    said.shape[rows + 1], said.shape[rows + 2], a.strides[rows],
                   a.strides[rows + 1], b.strides[rows + 1],  b.strides[rows + 2]};
    found.a_as_is = found.a_row == 1 && found.a_column == found.m;
    // What is in the program's own room has others behind it, or the end of the room.
    const bool safe = b.memory == 0 || found.n % kPastEnd == 0;
    found.b_as_is = found.b_column == 1 && found.b_row >= found.n && safe;
    return found;
}

// Running ------------------------------------------------------------------------------------

template <class T>
void run_mapped(const Step<T>& step, const std::array<T*, kLoopArrays>& at) {
    const Loop& loop = step.loop;
    switch (step.said.op) {
        case Op::fill:
            return fill_all(loop, at, T(step.said.value));
        case Op::copy:
            return copy_all(loop, at);
        case Op::negative:
            return map_each(loop, at, [](T a) { return -a; });
        case Op::absolute:
            return map_each(loop, at, [](T a) { return std::abs(a); });
        case Op::root:
            return map_each(loop, at, [](T a) { return std::sqrt(a); });
        case Op::reciprocal:
            return map_each(loop, at, [](T a) { return T(1) / a; });
        case Op::add:
            return map_pairs(loop, at, [](T a, T b) { return a + b; });
        case Op::subtract:
            return map_pairs(loop, at, [](T a, T b) { return a - b; });
        case Op::multiply:
            return map_pairs(loop, at, [](T a, T b) { return a * b; });
        case Op::divide:
            return map_pairs(loop, at, [](T a, T b) { return a / b; });
        case Op::minimum:
            return map_pairs(loop, at, [](T a, T b) { return a < b || a != a ? a : b; });
        default:
            return map_pairs(loop, at, [](T a, T b) { return a > b || a != a ? a : b; });
    }
}

/// Along rows of a, or, where the innermost axis is one of y, number by number.
template <class T, class F>
void reduce(const Loop& loop, std::array<T*, kLoopArrays> at, F f) {
    if (loop.inner().strides[0] == 0) return reduce_rows(loop, at, f);
    const int64_t n = loop.inner().size;
    const int64_t sy = loop.inner().strides[0], sa = loop.inner().strides[1];
    loop.each(at, [=](const auto& here) {
        T* const y = here[0];
        const T* const a = here[1];
        if (sy == 1 && sa == 1)
            for (int64_t i = 0; i < n; ++i) y[i] = f(y[i], a[i]);
        else
            for (int64_t i = 0; i < n; ++i) y[i * sy] = f(y[i * sy], a[i * sa]);
    });
}

template <class T>
void run_reduced(const Step<T>& step, const std::array<T*, kLoopArrays>& at) {
    switch (step.said.op) {
        case Op::sum:
            return reduce(step.loop, at, [](T a, T b) { return a + b; });
        case Op::least:
            return reduce(step.loop, at, [](T a, T b) { return a < b || a != a ? a : b; });
        default:
            return reduce(step.loop, at, [](T a, T b) { return a > b || a != a ? a : b; });
    }
}

/// Writes a matrix with its rows one behind the other.
template <class T>
T* copied(T* from, int64_t rows, int64_t columns, int64_t row, int64_t column, T* to) {
    const Loop loop({{rows, {columns, row, 0}}, {columns, {1, column, 0}}});
    copy_all<T>(loop.fastest(), {to, from, to});
    return to;
}

template <class T>
void run_product(const Step<T>& step, const std::array<T*, kLoopArrays>& start, T* scratch,
                 int num_threads) {
    const int64_t m = step.matrices.m, k = step.matrices.k, n = step.matrices.n;
    if (m == 0 || n == 0 || k == 0) return;
    const Kernels<T>& kernels = kernel_table().of<T>();
    const double useful = 1 + double(m) * double(k) * double(n) / kWorkOfThread;
    const int team = int(std::min({double(num_threads), useful, double(m)}));
    step.loop.each(start, [&](const auto& at) {
        T* a = at[1];
        T* b = at[2];
        T* room = scratch;
        if (!step.matrices.a_as_is) {
            a = copied(a, k, m, step.matrices.a_column, step.matrices.a_row, room);
            room += m * k;
        }
        int64_t width = step.matrices.b_row;
        if (!step.matrices.b_as_is) {
            b = copied(b, k, n, step.matrices.b_row, step.matrices.b_column, room);
            width = n;
        }
        run_fast_team(CallKind({'m', m, k, n, sizeof(T)}), team, [&](Team& members) noexcept {
            const FlushDenormals mode;
            const int64_t first = m * members.rank / members.size;
            const int64_t last = m * (members.rank + 1) / members.size;
            if (first < last)
                kernels.outer(
                    {{a, m, k}, first, {b, width, k}, at[0] + first * n, k, last - first, n});
        });
    });
}

template <class T>
void run_dense(const Step<T>& step, T* const* memories, int num_threads) {
    const Operation<T>& said = step.said;
    const std::vector<int64_t>& shape = said.shape;
    T *y = step.at(memories, 0), *a = step.at(memories, 1);
    if (said.op == Op::activate) return activate(said.f, a, shape[0], y, num_threads);
    if (said.op == Op::linear) return linear_forward(*said.linear, a, shape[0], y, num_threads);
    if (said.op == Op::softmax) return softmax(a, shape[0], shape[1], y, num_threads);
    LayerNormArgs<T> args;
    args.features = shape[1];
    args.eps = said.value;
    args.weight = step.at(memories, 2);
    args.bias = step.at(memories, 3);
    layer_norm(args, a, shape[0], y, num_threads);
}

}  // namespace

template <class T>
struct Program<T>::Plan {
    std::vector<Step<T>> steps;
    int64_t scratch = 0;  ///< where in the room products copy matrices to
    int64_t room = 0;
};

template <class T>
Program<T>::Program(std::vector<Operation<T>> operations, std::vector<int64_t> sizes) {
    auto plan = std::make_unique<Plan>();
    if (sizes.empty() || *std::min_element(sizes.begin(), sizes.end()) < 0)
        refuse("memories of no size");
    int64_t most = kPastEnd;
    for (Operation<T>& said : operations) {
        check(said, sizes);
        Step<T> step{std::move(said), {}, {}};
        if (is_mapped(step.said.op)) {
            step.loop = Loop(axes_of(step.said, 0, step.said.shape.size())).fastest();
        } else if (is_reduced(step.said.op)) {
            step.loop = reduced_loop(step.said);
        } else if (step.said.op == Op::product) {
            step.loop = Loop(axes_of(step.said, 0, step.said.shape.size() - 3)).single();
            step.matrices = matrices_of(step.said);
            most = std::max(most, step.matrices.room());
        }
        plan->steps.push_back(std::move(step));
    }
    plan->scratch = sizes[0];
    plan->room = sizes[0] + most;
    plan_ = std::move(plan);
}

template <class T>
Program<T>::~Program() = default;

template <class T>
int64_t Program<T>::room() const {
    return plan_->room;
}

template <class T>
void Program<T>::run(T* const* memories, int num_threads) const {
    const FlushDenormals mode;
    for (const Step<T>& step : plan_->steps) {
        const Op op = step.said.op;
        if (is_mapped(op))
            run_mapped(step, step.starts(memories));
        else if (is_reduced(op))
            run_reduced(step, step.starts(memories));
        else if (op == Op::product)
            run_product(step, step.starts(memories), memories[0] + plan_->scratch, num_threads);
        else
            run_dense(step, memories, num_threads);
    }
}

template class LSTMCORE_API Program<float>;
template class LSTMCORE_API Program<double>;

}  // namespace lstmcore
