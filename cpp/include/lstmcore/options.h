// Options and parameters by name: for what reads descriptions of layers (model files) or makes the
// layers known to another language (the Python binding). An option is listed here once.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <variant>

#include "lstmcore/api.h"
#include "lstmcore/layer.h"
#include "lstmcore/precision.h"
#include "lstmcore/spec.h"

namespace LSTMCORE_API lstmcore {

template <class Value>
struct Named {
    const char* name;
    Value value;
};

inline constexpr Named<CellKind> kCellNames[] = {
    {"rnn", CellKind::rnn}, {"lstm", CellKind::lstm}, {"gru", CellKind::gru}};
inline constexpr Named<ActivationKind> kActivationNames[] = {
    {"sigmoid", ActivationKind::sigmoid},
    {"tanh", ActivationKind::tanh},
    {"relu", ActivationKind::relu},
    {"hard_sigmoid", ActivationKind::hard_sigmoid},
    {"scaled_tanh", ActivationKind::scaled_tanh},
    {"softsign", ActivationKind::softsign},
    {"identity", ActivationKind::identity},
    {"affine", ActivationKind::affine},
    {"leaky_relu", ActivationKind::leaky_relu},
    {"thresholded_relu", ActivationKind::thresholded_relu},
    {"elu", ActivationKind::elu},
    {"selu", ActivationKind::selu},
    {"softplus", ActivationKind::softplus},
    {"exponential", ActivationKind::exponential},
    {"gelu", ActivationKind::gelu},
    {"silu", ActivationKind::silu},
    {"mish", ActivationKind::mish},
    {"hard_silu", ActivationKind::hard_silu}};
inline constexpr Named<Merge> kMergeNames[] = {
    {"concat", Merge::concat}, {"sum", Merge::sum}, {"mul", Merge::mul}, {"ave", Merge::ave}};

inline constexpr Named<Precision> kPrecisionNames[] = {{"float32", Precision::own},
                                                       {"float64", Precision::own},
                                                       {"bfloat16", Precision::bfloat16},
                                                       {"bfloat16x3", Precision::bfloat16x3}};

/// The value of this name, if there is one.
template <class Value, std::size_t N>
std::optional<Value> find_name(const Named<Value> (&all)[N], const std::string& name) {
    for (const Named<Value>& one : all)
        if (name == one.name) return one.value;
    return std::nullopt;
}

/// Where an option of a spec is kept; its type says what values it takes: a size, a switch, a limit
/// (0 = none), an activation, a merge, probabilities.
using OptionField = std::variant<int64_t*, bool*, double*, Activation*, Merge*, Zoneout*>;

/// One option of a layer. Its default is what LayerSpec() has.
struct Option {
    const char* name;
    bool rnn, lstm, gru;  ///< which cells have it; in the others it keeps its default
    OptionField (*field)(LayerSpec& spec);
    bool may_lack = false;  ///< whether a file may be without it, which then means the default

    bool allowed(CellKind kind) const {
        return kind == CellKind::rnn ? rnn : kind == CellKind::lstm ? lstm : gru;
    }
};

/// All options but the kind of the cell. The activations stand in the order of `activations=(...)`.
inline constexpr Option kOptions[] = {
    {"input_size", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.input_size; }},
    {"hidden_size", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.hidden_size; }},
    {"num_layers", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.num_layers; }},
    {"bias", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.bias; }},
    {"bidirectional", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.bidirectional; }},
    {"reverse", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.reverse; }},
    {"merge", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.merge; }},
    {"gate_clip", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.cell.gate_clip; }},
    {"zoneout", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.cell.zoneout; }, true},
    {"layer_norm", 1, 1, 1, [](LayerSpec& s) -> OptionField { return &s.cell.layer_norm; }, true},
    {"gate_activation", 0, 1, 1, [](LayerSpec& s) -> OptionField { return &s.cell.gate; }},
    {"candidate_activation", 1, 1, 1,
     [](LayerSpec& s) -> OptionField { return &s.cell.candidate; }},
    {"output_activation", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.cell.output; }},
    {"proj_size", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.proj_size; }},
    {"forget_gate", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.cell.forget_gate; }},
    {"coupled", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.cell.coupled; }},
    {"peephole", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.cell.peephole; }},
    {"cell_clip", 0, 1, 0, [](LayerSpec& s) -> OptionField { return &s.cell.cell_clip; }},
    {"reset_after", 0, 0, 1, [](LayerSpec& s) -> OptionField { return &s.cell.reset_after; }},
};

/// The parameters of one direction of a layer, in the order of state dicts and files: matrices from
/// matrix(name, {its sizes}), vectors and peepholes from take(name, {its sizes}). The names lack
/// their suffix, "_l0" or "_l0_reverse". Set is Parameters<T> or QuantizedParameters.
template <class Set, class Take, class Matrix>
Set take_parameters(const LayerSpec& spec, int64_t layer, Take take, Matrix matrix) {
    const int64_t H = spec.hidden_size, P = spec.output_size(), rows = spec.cell.gates() * H;
    Set set;
    set.w_ih = matrix("weight_ih", {rows, spec.layer_input_size(layer)});
    set.w_hh = matrix("weight_hh", {rows, P});
    if (spec.bias) {
        set.b_ih = take("bias_ih", {rows});
        set.b_hh = take("bias_hh", {rows});
    }
    if (spec.cell.peephole) set.w_ch = take("weight_ch", {spec.cell.peepholes(), H});
    if (spec.proj_size > 0) set.w_hr = matrix("weight_hr", {P, H});
    if (spec.cell.layer_norm) {
        set.ln_ih = take("weight_ln_ih", {rows});
        set.ln_hh = take("weight_ln_hh", {rows});
    }
    if (spec.cell.normalizes_c()) {
        set.ln_c = take("weight_ln_c", {H});
        set.ln_c_bias = take("bias_ln_c", {H});
    }
    return set;
}

/// The same where both come from one function.
template <class T, class Take>
Parameters<T> take_parameters(const LayerSpec& spec, int64_t layer, Take take) {
    return take_parameters<Parameters<T>>(spec, layer, take, take);
}

}  // namespace LSTMCORE_API lstmcore
