// Programs: simple operations on arrays of known shapes, one after the other, such as those between
// the layers of a model that another library has written.
//
// What runs is found out once: where every number lies, in which order the axes are gone through.
// Running allocates nothing. T is float or double.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lstmcore/api.h"
#include "lstmcore/linear.h"
#include "lstmcore/spec.h"

namespace LSTMCORE_API lstmcore {

/// What an operation does; y is what it writes, a and b what it reads, in this order.
enum class Op {
    fill,        ///< y = value
    copy,        ///< y = a
    negative,    ///< y = -a
    absolute,    ///< y = |a|
    root,        ///< y = sqrt(a)
    reciprocal,  ///< y = 1 / a
    add,         ///< y = a + b
    subtract,    ///< y = a - b
    multiply,    ///< y = a b
    divide,      ///< y = a / b
    minimum,     ///< y = min(a, b), NaN if one is
    maximum,     ///< y = max(a, b), NaN if one is
    sum,         ///< y += the sum of a over the last axes
    least,       ///< y = min(y, the least a over the last axes)
    greatest,    ///< y = max(y, the greatest a over the last axes)
    product,     ///< y += a b, matrices; the shape ends in (m, k, n): y (m, n), a (m, k), b (k, n)
    activate,    ///< y = f(a); the shape is (n)
    linear,      ///< y = W a + b, see linear.h; the shape is (rows, inputs, outputs)
    softmax,     ///< see row_functions.h; the shape is (rows, classes)
    layer_norm,  ///< the same, value is eps; the shape is (rows, features); a, weight, bias
};

/// Where an array lies in one of the memories that a program is given.
struct Place {
    int64_t memory = 0;  ///< -1 where there is none, as a layer_norm without a bias
    int64_t offset = 0;  ///< in numbers
    /// From one number to the next of each axis of the operation; 0 where it has no such axis. Not
    /// read of activate, linear, softmax and layer_norm, whose arrays are contiguous, nor of the
    /// last two axes of the y of a product.
    std::vector<int64_t> strides;
};

template <class T>
struct Operation {
    Op op = Op::copy;
    std::vector<int64_t> shape;
    std::vector<Place> places;  ///< y first
    int64_t last = 0;           ///< how many axes sum, least and greatest go over
    double value = 0;
    Activation f{};
    std::shared_ptr<const Linear<T>> linear{};
};

/// Immutable. What an operation writes may only meet what it reads where both are the same numbers.
template <class T>
class LSTMCORE_API Program {
public:
    /// `sizes` are those of the memories, in numbers; that of the first, which is the program's own
    /// room, is made larger as it needs. Throws std::invalid_argument where an operation does not
    /// fit into them; std::bad_alloc.
    Program(std::vector<Operation<T>> operations, std::vector<int64_t> sizes);
    ~Program();
    Program(const Program&) = delete;
    Program& operator=(const Program&) = delete;

    /// How many numbers a call needs as memories[0], which need not be cleared.
    int64_t room() const;

    /// Results depend neither on num_threads nor on what was in the room, to the bit.
    void run(T* const* memories, int num_threads) const;

private:
    struct Plan;
    std::unique_ptr<const Plan> plan_;
};

}  // namespace LSTMCORE_API lstmcore
