#include "recurrent/weights.h"

#include <stdexcept>
#include <type_traits>
#include <vector>

#include "machine/isa.h"
#include "memory/pack.h"
#include "memory/quantize.h"

namespace lstmcore {

template <class T>
template <class Set>
Weights<T>::Weights(const LayerSpec& spec, const std::vector<Set>& parameters, bool train,
                    int num_threads, Precision precision)
    : spec_(spec),
      kernels_(kernel_table().of<T>()),
      train_(train),
      quantized_(std::is_same_v<Set, QuantizedParameters>),
      precision_(usable_precision(kernels_, precision)) {
    spec.check();
    if (int64_t(parameters.size()) != spec.num_layers * spec.directions())
        throw std::invalid_argument("parameters: one set for each layer and direction is expected");
    for (const Set& set : parameters) require_parameters(spec, set, "parameters");
    memory_ = pack_into_buffer(kernels_, precision_, train, num_threads,
                               [&](Packing<T>& packing) { lay_out(parameters, packing); });
}

namespace {

/// The columns of gates in panels as Packed says. There is no narrower panel without a full one
/// before, which it needs to hide its latency, nor for a GRU with reset before, which reads two
/// matrices together.
struct GateColumns {
    int64_t H;
    int lanes;
    bool may_be_narrow;
    bool in_order;  ///< no panels: one gate behind the other, for layer normalisation

    int vectors(int gates) const { return in_order || gates == 1 ? 4 : gates; }
    int64_t full() const { return H / lanes; }  ///< panels
    int64_t rest(int gates) const {             ///< columns behind them
        if (may_be_narrow) return round_up(gates * (H % lanes), lanes);
        return H % lanes == 0 ? 0 : int64_t(gates) * lanes;
    }
    int64_t count(int gates) const {
        return in_order ? round_up(gates * H, lanes) : full() * gates * lanes + rest(gates);
    }

    /// The row of the parameters, from gate `first` on, that a column is; negative for padding.
    auto row_of(int first, int gates) const {
        return [=, H = H, L = lanes, full = full(), width = int64_t(gates) * lanes,
                rest = rest(gates), in_order = in_order](int64_t column) {
            if (in_order) return column < gates * H ? first * H + column : int64_t(-1);
            const int64_t panel = column / width;
            const int64_t pitch = (panel < full ? width : rest) / gates;
            const int64_t gate = column % width / pitch;
            const int64_t unit = panel * L + column % width % pitch;
            return gate < gates && unit < H ? (first + gate) * H + unit : -1;
        };
    }
};

}  // namespace

template <class T>
template <class Set>
void Weights<T>::lay_out(const std::vector<Set>& parameters, Packing<T>& packing) {
    directions_.clear();
    for (size_t i = 0; i < parameters.size(); ++i) {
        const int64_t inputs = spec_.layer_input_size(int64_t(i) / spec_.directions());
        PackedDirection<T> to{};
        lay_out_forward(parameters[i], inputs, packing, to);
        if constexpr (std::is_same_v<Set, Parameters<const T>>) {
            if (train_) lay_out_backward(parameters[i], inputs, packing, to);
        }
        directions_.push_back(to);
    }
}

template <class T>
template <class Set>
void Weights<T>::lay_out_forward(const Set& from, int64_t inputs, Packing<T>& packing,
                                 PackedDirection<T>& to) const {
    const CellSpec& cell = spec_.cell;
    const int L = kernels_.lanes, G = cell.gates();
    const int64_t H = spec_.hidden_size, P = spec_.output_size();
    const bool gru = cell.kind == CellKind::gru, reset_before = gru && !cell.reset_after;
    const GateColumns columns{H, L, H > L && !reset_before, cell.layer_norm};
    const auto pack_gates = [&](int first, int gates, int64_t K, auto source) {
        return packing.transposed(columns.vectors(gates), K, columns.count(gates), source,
                                  columns.row_of(first, gates));
    };
    to.w_ih = pack_gates(0, G, inputs, from.w_ih);
    to.w_hh = pack_gates(0, reset_before ? 2 : G, P, from.w_hh);
    if (reset_before) to.w_n = pack_gates(2, 1, P, from.w_hh);
    // The GRU's n keeps its hidden bias apart if r comes after the product.
    const bool apart = gru && !reset_before;
    to.bias = packing.vector(columns.count(G), [&](int64_t column) {
        const int64_t row = columns.row_of(0, G)(column);
        if (row < 0 || !from.b_ih) return T(0);
        return apart && row >= 2 * H ? from.b_ih[row] : from.b_ih[row] + from.b_hh[row];
    });
    if (apart)
        to.b_hn = packing.vector(columns.count(1), [&](int64_t column) {
            const int64_t row = columns.row_of(2, 1)(column);
            return row < 0 || !from.b_hh ? T(0) : from.b_hh[row];
        });
    if (cell.peephole) {
        const int64_t padded = round_up(H, L);
        to.peephole = packing.vector(cell.peepholes() * padded, [&](int64_t i) {
            return i % padded < H ? from.w_ch[i / padded * H + i % padded] : T(0);
        });
    }
    const auto pack_norm = [&](int64_t n, const auto* norm) {
        return packing.vector(round_up(n, L), [=](int64_t i) { return i < n ? T(norm[i]) : T(0); });
    };
    to.start = to.bias;
    if (cell.layer_norm) {
        to.ln_ih = pack_norm(G * H, from.ln_ih);
        to.ln_hh = pack_norm(G * H, from.ln_hh);
        to.start = packing.vector(columns.count(G), [](int64_t) { return T(0); });
    }
    if (cell.normalizes_c()) {
        to.ln_c = pack_norm(H, from.ln_c);
        to.ln_c_bias = pack_norm(H, from.ln_c_bias);
    }
    if (spec_.proj_size > 0)
        to.w_hr = packing.transposed(4, H, P, from.w_hr,
                                     [=](int64_t column) { return column < P ? column : -1; });
}

template <class T>
void Weights<T>::lay_out_backward(const Parameters<const T>& from, int64_t inputs,
                                  Packing<T>& packing, PackedDirection<T>& to) const {
    const int64_t G = spec_.cell.gates(), H = spec_.hidden_size, P = spec_.output_size();
    const bool gru = spec_.cell.kind == CellKind::gru;
    const bool reset_before = gru && !spec_.cell.reset_after;
    const bool in_order = spec_.cell.layer_norm;
    const auto same = [](int64_t k) { return k; };
    // The GRU's dgates are n, r, z in front of what multiplies W_hh; see GruBackwardRow.
    to.w_ih_t = packing.in_rows(G * H, inputs, from.w_ih, [=](int64_t k) {
        return !gru || in_order ? k : k < H ? 2 * H + k : k - H;
    });
    const int64_t gates = (reset_before ? 2 : G) * H;
    to.w_hh_t = packing.in_rows(gates, P, from.w_hh, same);
    if (reset_before)
        to.w_n_t = packing.in_rows(H, H, from.w_hh, [=](int64_t k) { return 2 * H + k; }, gates);
    if (spec_.proj_size > 0) to.w_hr_t = packing.in_rows(P, H, from.w_hr, same);
}

template <class T>
std::shared_ptr<const Weights<T>> pack(const LayerSpec& spec,
                                       const std::vector<Parameters<const T>>& parameters,
                                       bool train, int num_threads, Precision precision) {
    return std::make_shared<const Weights<T>>(spec, parameters, train, num_threads, precision);
}

std::shared_ptr<const Weights<float>> pack(const LayerSpec& spec,
                                           const std::vector<QuantizedParameters>& parameters,
                                           int num_threads) {
    spec.check();
    const int64_t G = spec.cell.gates(), H = spec.hidden_size, P = spec.output_size();
    for (size_t i = 0; i < parameters.size(); ++i) {
        const QuantizedParameters& set = parameters[i];
        const int64_t inputs = spec.layer_input_size(int64_t(i) / spec.directions());
        if (set.w_ih) check_quantized(set.w_ih, G * H, inputs, "w_ih");
        if (set.w_hh) check_quantized(set.w_hh, G * H, P, "w_hh");
        if (set.w_hr) check_quantized(set.w_hr, P, H, "w_hr");
    }
    return std::make_shared<const Weights<float>>(spec, parameters, false, num_threads,
                                                  Precision::own);
}

template <class T>
int64_t packed_bytes(const Weights<T>& weights) {
    return weights.bytes();
}

template class Weights<float>;
template class Weights<double>;
template std::shared_ptr<const Weights<float>> pack(const LayerSpec&,
                                                    const std::vector<Parameters<const float>>&,
                                                    bool, int, Precision);
template std::shared_ptr<const Weights<double>> pack(const LayerSpec&,
                                                     const std::vector<Parameters<const double>>&,
                                                     bool, int, Precision);
template int64_t packed_bytes(const Weights<float>&);
template int64_t packed_bytes(const Weights<double>&);

}  // namespace lstmcore
