// The tape of a forward call, and backward, which reads it.
#pragma once

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "layer_call.h"
#include "lstmcore/machine.h"

/// What is in arrays before a call that adds to them, for the case that it is stopped halfway.
class SavedArrays {
public:
    /// Copies them, if `save`. They must be contiguous.
    SavedArrays(const std::vector<py::array>& arrays, bool save) {
        for (const py::array& array : arrays) {
            if (!save) return;
            auto* const bytes = static_cast<char*>(const_cast<void*>(array.data()));
            saved_.emplace_back(bytes, std::vector<char>(bytes, bytes + array.nbytes()));
        }
    }
    void restore() const {
        for (const auto& [to, bytes] : saved_) std::copy(bytes.begin(), bytes.end(), to);
    }

private:
    std::vector<std::pair<char*, std::vector<char>>> saved_;
};

/// The tape of one dtype, with the arguments of the call that filled it.
template <class T>
class TapeOf final : public Tape {
public:
    TapeOf(LayerCall<T> call, py::array_t<T> y)
        : call_(std::move(call)),
          y_(std::move(y)),
          memory_(tape_size(call_.spec.layer, call_.in) * int64_t(sizeof(T))) {}

    T* data() const { return static_cast<T*>(memory_.data()); }
    const LayerCall<T>& call() const { return call_; }
    int64_t nbytes() const override { return memory_.bytes(); }
    uint64_t dropout_key() const override { return call_.in.dropout_key; }

    py::dict gates() const override {
        const CellSpec& cell = call_.spec.layer.cell;
        py::dict out;
        if (cell.kind == CellKind::rnn) return out;
        std::vector<const char*> names = {"r", "z", "n"};
        if (cell.kind == CellKind::lstm)
            names = cell.gates() == 4 ? std::vector<const char*>{"i", "f", "g", "o"}
                                      : std::vector<const char*>{"i", "g", "o"};
        for (size_t g = 0; g < names.size(); ++g)
            out[names[g]] = copy([&](int64_t layer, int d) {
                View<const T> view = tape_gates(call_.spec.layer, call_.in, data(), layer, d);
                view.data += g * call_.spec.layer.hidden_size;
                return view;
            });
        return out;
    }

    py::array cells() const override {
        if (call_.spec.layer.cell.kind != CellKind::lstm)
            throw py::type_error("cells(): only an LSTM has cells");
        return copy([&](int64_t layer, int d) {
            return tape_cells(call_.spec.layer, call_.in, data(), layer, d);
        });
    }

    py::tuple backward(const std::optional<py::array>& dy, const std::optional<py::array>& dh,
                       const std::optional<py::array>& dc, const std::vector<py::array>& gradients,
                       bool need_dx) const override {
        const Spec& spec = call_.spec;
        const LayerSpec& layer = spec.layer;
        Sequences<T> in = call_.in;
        const bool lstm = layer.cell.kind == CellKind::lstm, first = call_.batch_first;
        View<const T> dy_view;
        if (dy)
            dy_view = view_of<const T>(*dy, "dy", first, in.steps, in.batch, layer.feature_size());
        const T* dh_n =
            numbers_or_null<const T>(dh, {spec.states(), in.batch, layer.output_size()}, "dh");
        require(!dc || lstm, "dc: only the LSTM has a cell");
        const T* dc_n =
            numbers_or_null<const T>(dc, {spec.states(), in.batch, layer.hidden_size}, "dc");
        const auto into = split_sets<Parameters<T>, T>(spec, gradients, "gradients");
        call_.check_lookup();

        std::optional<py::array_t<T>> dx;
        View<T> dx_view;
        if (call_.lookup) {
            dx = empty_array<T>({in.table_rows, layer.input_size});
            dx_view = {dx->mutable_data(), 0, layer.input_size};
        } else if (need_dx) {
            dx = empty_array<T>(call_.sequence_shape(layer.input_size));
            dx_view = view_of<T>(*dx, "dx", first, in.steps, in.batch, layer.input_size);
        }
        auto dh0 = empty_array<T>({spec.states(), in.batch, layer.output_size()});
        std::optional<py::array_t<T>> dc0;
        if (lstm) dc0 = empty_array<T>({spec.states(), in.batch, layer.hidden_size});
        const auto y = view_of<const T>(y_, "y", first, in.steps, in.batch, layer.feature_size());
        T* dh0_data = dh0.mutable_data();
        T* dc0_data = dc0 ? dc0->mutable_data() : nullptr;
        const bool interruptible = is_interruptible(work_of(layer, in));
        const SavedArrays saved(gradients, interruptible);
        try {
            run_without_gil(interruptible, [&](const StopCheck& stop) {
                in.stop = stop;
                const CallThreads threads = backward_threads(layer, in, get_num_threads());
                const Workspace workspace(backward_workspace_bytes(layer, in, threads.count()));
                lstmcore::backward(*call_.weights, in, y, data(), dy_view, dh_n, dc_n, dx_view,
                                   dh0_data, dc0_data, into, workspace.data(), threads.count());
            });
        } catch (...) {
            saved.restore();
            throw;
        }
        return py::make_tuple(dx, dh0, dc0);
    }

private:
    /// (L*D, T, B, H), or (L*D, B, T, H), of what part_of(layer, direction) views; zero where a
    /// sequence has ended.
    template <class PartOf>
    py::array copy(PartOf part_of) const {
        const LayerSpec& layer = call_.spec.layer;
        const Sequences<T>& in = call_.in;
        const int64_t H = layer.hidden_size;
        std::vector<int64_t> shape = call_.sequence_shape(H);
        shape.insert(shape.begin(), call_.spec.states());
        py::array_t<T> out(shape);
        T* to = out.mutable_data();
        for (int64_t s = 0; s < call_.spec.states(); ++s) {
            const View<const T> part = part_of(s / layer.directions(), int(s % layer.directions()));
            for (int64_t i = 0; i < shape[1]; ++i)
                for (int64_t j = 0; j < shape[2]; ++j, to += H) {
                    const int64_t t = call_.batch_first ? j : i, b = call_.batch_first ? i : j;
                    const bool ended = in.lengths && in.first_step + t >= in.lengths[b];
                    for (int64_t u = 0; u < H; ++u) to[u] = ended ? T(0) : part.at(t, b)[u];
                }
        }
        return out;
    }

    const LayerCall<T> call_;
    const py::array_t<T> y_;
    Buffer memory_;
};
