// Where everything lies on the tape: what forward leaves for backward, and nothing else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "lstmcore/layer.h"
#include "memory/arena.h"

namespace lstmcore {

/// One layer's part, each (T, B, n) with rows packed; absent views are null.
template <class T>
struct LayerTape {
    View<T> hidden;  ///< n = D*P, every h_t of both directions, unless y is just that
    View<T> output;  ///< n = feature_size, after merge and dropout, unless the same as hidden or y
    View<T> gates[2];        ///< n = gates_on_tape * H, by direction
    View<T> cells[2];        ///< n = H, LSTM
    View<T> made_cells[2];   ///< the same before zoneout, where c has that
    View<T> norms[2];        ///< n = norms_on_tape, see NormPlaces
    View<uint8_t> zones[2];  ///< n = zones_on_tape, see ZonePlaces
};

/// Rows of H that a step keeps: the gates, the GRU's W_hn h + b_hn (reset after), and the sums that
/// entered the gates if backward needs them. An RNN has its activation in y, unless zoneout changes
/// that; if backward needs the sum, it keeps that instead.
inline int gates_on_tape(const CellSpec& cell) {
    if (cell.kind == CellKind::rnn) return cell.zoneout || cell.needs_sums() ? 1 : 0;
    const int sums = cell.needs_sums() ? cell.gates() : 0;
    return cell.gates() + (cell.kind == CellKind::gru && cell.reset_after) + sums;
}

/// Where the numbers of layer normalisation are that a step keeps: W_ih x, W_hh h and, of an LSTM,
/// c, each normalised, without gain and bias, and the scales that made them so.
template <class T>
struct NormPlaces {
    T *input, *hidden, *c;  ///< (G*H), (G*H), (H)
    T* scales;              ///< (3)

    NormPlaces(const LayerSpec& spec, T* at)
        : input(at),
          hidden(input + spec.cell.gates() * spec.hidden_size),
          c(hidden + spec.cell.gates() * spec.hidden_size),
          scales(c + (spec.cell.normalizes_c() ? spec.hidden_size : 0)) {}
};
inline int64_t norms_on_tape(const LayerSpec& spec) {
    return (2 * spec.cell.gates() + spec.cell.normalizes_c()) * spec.hidden_size + 3;
}

/// Where it is kept which units take their new state, where zoneout is.
struct ZonePlaces {
    uint8_t *h = nullptr, *c = nullptr;  ///< (P), (H); null without zoneout of it

    ZonePlaces() = default;
    ZonePlaces(const LayerSpec& spec, uint8_t* at)
        : h(spec.cell.zoneout.h > 0 ? at : nullptr),
          c(spec.cell.zoneout.c > 0 ? at + spec.output_size() : nullptr) {}
};
inline int64_t zones_on_tape(const LayerSpec& spec) {
    return spec.output_size() + (spec.cell.zoneout.c > 0 ? spec.hidden_size : 0);
}

inline int64_t widest_input(const LayerSpec& spec) {
    return std::max(spec.input_size, spec.layer_input_size(spec.num_layers - 1));
}

/// Whether a layer's output is something else than its directions' h side by side.
inline bool has_join(const LayerSpec& spec, int64_t layer, double dropout) {
    return spec.merge != Merge::concat || (dropout > 0 && layer + 1 < spec.num_layers);
}

template <class T>
View<T> take_view(Arena& arena, int64_t steps, int64_t batch, int64_t n) {
    return {arena.take<T>(size_product(steps, batch, n)), batch * n, n};
}

template <class T>
std::vector<LayerTape<T>> lay_out_tape(const LayerSpec& spec, const Sequences<T>& in,
                                       Arena& arena) {
    std::vector<LayerTape<T>> layers(spec.num_layers);
    const int64_t hidden = spec.directions() * spec.output_size();
    for (int64_t l = 0; l < spec.num_layers; ++l) {
        LayerTape<T>& layer = layers[l];
        const bool last = l + 1 == spec.num_layers, join = has_join(spec, l, in.dropout);
        if (!last || join) layer.hidden = take_view<T>(arena, in.steps, in.batch, hidden);
        if (!last && join)
            layer.output = take_view<T>(arena, in.steps, in.batch, spec.feature_size());
        for (int d = 0; d < spec.directions(); ++d) {
            if (const int64_t rows = gates_on_tape(spec.cell); rows > 0)
                layer.gates[d] = take_view<T>(arena, in.steps, in.batch, rows * spec.hidden_size);
            if (spec.cell.kind == CellKind::lstm)
                layer.cells[d] = take_view<T>(arena, in.steps, in.batch, spec.hidden_size);
            if (spec.cell.zoneout.c > 0)
                layer.made_cells[d] = take_view<T>(arena, in.steps, in.batch, spec.hidden_size);
            if (spec.cell.layer_norm)
                layer.norms[d] = take_view<T>(arena, in.steps, in.batch, norms_on_tape(spec));
            if (spec.cell.zoneout)
                layer.zones[d] = take_view<uint8_t>(arena, in.steps, in.batch, zones_on_tape(spec));
        }
    }
    return layers;
}

/// The tape over memory that forward filled.
template <class T>
std::vector<LayerTape<const T>> read_tape(const LayerSpec& spec, const Sequences<T>& in,
                                          const T* tape) {
    Arena arena(const_cast<T*>(tape));
    std::vector<LayerTape<const T>> layers;
    const auto read = [](const View<T>& view) {
        return View<const T>{view.data, view.step, view.row};
    };
    for (const LayerTape<T>& l : lay_out_tape(spec, in, arena))
        layers.push_back({read(l.hidden),
                          read(l.output),
                          {read(l.gates[0]), read(l.gates[1])},
                          {read(l.cells[0]), read(l.cells[1])},
                          {read(l.made_cells[0]), read(l.made_cells[1])},
                          {read(l.norms[0]), read(l.norms[1])},
                          {l.zones[0], l.zones[1]}});
    return layers;
}

}  // namespace lstmcore
