// The arguments of a call of a recurrent layer: arrays as the core wants them.
#pragma once

#include <array>
#include <initializer_list>
#include <memory>
#include <optional>
#include <vector>

#include "interrupt.h"
#include "lstmcore/memory.h"
#include "lstmcore/options.h"

/// Memory of one call. Small ones are kept by the thread for its next call.
class Workspace {
public:
    explicit Workspace(int64_t bytes) {
        if (bytes <= kKept) {
            thread_local Buffer kept;
            if (bytes > kept.bytes() || !kept.data()) kept = Buffer(bytes);
            data_ = kept.data();
        } else {
            own_ = Buffer(bytes);
            data_ = own_.data();
        }
    }
    void* data() const { return data_; }

private:
    static constexpr int64_t kKept = 4 << 20;

    Buffer own_;
    void* data_;
};

/// A (T, B, n) or (B, T, n) array of T as a view. Throws where it is not one.
template <class T>
View<T> view_of(const py::array& array, const char* name, bool batch_first, int64_t steps,
                int64_t batch, int64_t n) {
    const bool per_step = !std::is_floating_point_v<T>;  // (T, B): ids and resets
    require(is_of<std::remove_const_t<T>>(array), name, ": wrong dtype");
    require(array.ndim() == (per_step ? 2 : 3), name, ": wrong number of axes");
    const int time_axis = batch_first ? 1 : 0;
    const int64_t size = sizeof(T);
    require(array.shape(time_axis) == steps && array.shape(1 - time_axis) == batch, name,
            ": wrong shape");
    if (!per_step) require(array.shape(2) == n, name, ": the last axis has the wrong size");
    // The stride of an axis of one means nothing, as do all of an empty array.
    for (int axis = 0; array.size() > 0 && axis < array.ndim(); ++axis) {
        if (array.shape(axis) == 1) continue;
        require(array.strides(axis) % size == 0, name, ": not aligned");
        require(axis < 2 || array.strides(2) == size, name, ": the last axis is not contiguous");
    }
    require(reinterpret_cast<uintptr_t>(array.data()) % size == 0, name, ": not aligned");
    T* data = static_cast<T*>(const_cast<void*>(array.data()));
    return {data, array.strides(time_axis) / size, array.strides(1 - time_axis) / size};
}

/// Splits a flat list of parameters, in the order of the state dict, into one set for each layer
/// and direction: Parameters<Number>, or QuantizedParameters, whose matrices are two arrays each.
template <class Set, class Number>
std::vector<Set> split_sets(const Spec& spec, const std::vector<py::array>& arrays,
                            const char* name) {
    using Shape = std::initializer_list<int64_t>;
    const LayerSpec& layer = spec.layer;
    size_t used = 0;
    const auto next = [&]() -> const py::array& {
        require(used < arrays.size(), name, ": too few arrays");
        return arrays[used++];
    };
    const auto take = [&](const char*, Shape shape) {
        return numbers_or_null<Number>(next(), shape, name);
    };
    const auto matrix = [&](const char* part, Shape shape) {
        if constexpr (std::is_same_v<Set, QuantizedParameters>) {
            const int8_t* values = numbers_or_null<const int8_t>(next(), shape, name);
            return QuantizedMatrix{values,
                                   take(part, {*shape.begin()})};  // its scales are behind it
        } else {
            return take(part, shape);
        }
    };
    std::vector<Set> sets;
    for (int64_t s = 0; s < spec.states(); ++s)
        sets.push_back(take_parameters<Set>(layer, s / layer.directions(), take, matrix));
    require(used == arrays.size(), name, ": too many arrays");
    return sets;
}

/// Probabilities of dropout in training: between layers, of the input, of h into W_hh.
using Dropouts = std::array<double, 3>;

/// The arrays of a call, kept alive together with the views of them.
template <class T>
struct LayerCall {
    Spec spec;
    std::shared_ptr<const Weights<T>> weights;
    py::array x;
    std::optional<py::array> h0, c0, lengths, resets, lookup;
    bool batch_first;
    Sequences<T> in;

    LayerCall(const PyWeights& packed, const py::array& x_, const std::optional<py::array>& h0_,
              const std::optional<py::array>& c0_, const std::optional<py::array>& lengths_,
              const std::optional<py::array>& resets_, bool batch_first_, const Dropouts& dropouts,
              uint64_t dropout_key, const std::optional<py::array>& lookup_, int64_t first_step,
              int64_t whole_steps)
        : spec(packed.spec),
          weights(packed.of<T>()),
          x(x_),
          h0(h0_),
          c0(c0_),
          lengths(lengths_),
          resets(resets_),
          lookup(lookup_),
          batch_first(batch_first_) {
        const LayerSpec& layer = spec.layer;
        const py::array& grid = lookup ? *lookup : x;
        require(grid.ndim() == (lookup ? 2 : 3),
                lookup ? "lookup: 2 axes expected" : "x: 3 axes expected");
        in.steps = grid.shape(batch_first ? 1 : 0);
        in.batch = grid.shape(batch_first ? 0 : 1);
        if (lookup) {
            require(x.ndim() == 2, "x: 2 axes expected of a table");
            in.table_rows = x.shape(0);
            in.table = numbers_or_null<const T>(x, {in.table_rows, layer.input_size}, "x");
            in.lookup = view_of<const int64_t>(grid, "lookup", batch_first, in.steps, in.batch, 0);
            check_lookup();
        } else {
            in.x = view_of<const T>(x, "x", batch_first, in.steps, in.batch, layer.input_size);
        }
        in.h0 = numbers_or_null<const T>(h0, {spec.states(), in.batch, layer.output_size()}, "h0");
        require(!c0 || layer.cell.kind == CellKind::lstm, "c0: only the LSTM has a cell");
        in.c0 = numbers_or_null<const T>(c0, {spec.states(), in.batch, layer.hidden_size}, "c0");
        in.lengths = numbers_or_null<const int64_t>(lengths, {in.batch}, "lengths");
        if (resets)
            in.resets = view_of<const bool>(*resets, "resets", batch_first, in.steps, in.batch, 0);
        for (const double p : dropouts)
            require(p >= 0 && p < 1, "dropouts: expected 0 <= dropout < 1");
        in.dropout = dropouts[0];
        in.input_dropout = dropouts[1];
        in.recurrent_dropout = dropouts[2];
        in.dropout_key = dropout_key;
        in.first_step = first_step;
        in.whole_steps = whole_steps;
        require(first_step >= 0 && (whole_steps < 0 || first_step + in.steps <= whole_steps),
                "first_step: not within the whole");
    }

    /// For each use of the ids, because the caller may have written to them since the last.
    void check_lookup() const {
        bool known = true;
        for (int64_t t = 0; in.lookup && t < in.steps; ++t)
            for (int64_t b = 0; b < in.batch; ++b) {
                const int64_t id = *in.lookup.at(t, b);
                known = known && id >= 0 && id < in.table_rows;
            }
        require(known, "lookup: not of the table");
    }

    std::vector<int64_t> sequence_shape(int64_t n) const {
        if (batch_first) return {in.batch, in.steps, n};
        return {in.steps, in.batch, n};
    }
};

/// Multiply-adds of a forward pass, were all rows as long as the longest.
template <class T>
double work_of(const LayerSpec& spec, const Sequences<T>& in) {
    return spec.multiply_adds() * double(in.steps) * double(in.batch);
}

/// What forward keeps for backward, of either dtype.
class Tape {
public:
    virtual ~Tape() = default;
    virtual int64_t nbytes() const = 0;
    virtual uint64_t dropout_key() const = 0;
    virtual py::dict gates() const = 0;
    virtual py::array cells() const = 0;
    virtual py::tuple backward(const std::optional<py::array>& dy,
                               const std::optional<py::array>& dh,
                               const std::optional<py::array>& dc,
                               const std::vector<py::array>& gradients, bool need_dx) const = 0;
};

template <>
struct py::detail::type_caster<Tape> : InitializedCaster<Tape> {};
