// The order of a layer's parameters in state dicts and files.
#pragma once

#include <cstdint>

#include "lstmcore/layer.h"

namespace lstmcore {

/// The parameters of one direction of a layer, each from take(name, {its sizes}).
template <class T, class Take>
Parameters<T> take_parameters(const LayerSpec& spec, int64_t layer, Take take) {
    const int64_t H = spec.hidden_size, P = spec.output_size(), rows = spec.cell.gates() * H;
    Parameters<T> set;
    set.w_ih = take("weight_ih", {rows, spec.layer_input_size(layer)});
    set.w_hh = take("weight_hh", {rows, P});
    if (spec.bias) {
        set.b_ih = take("bias_ih", {rows});
        set.b_hh = take("bias_hh", {rows});
    }
    if (spec.cell.peephole) set.w_ch = take("weight_ch", {spec.cell.peepholes(), H});
    if (spec.proj_size > 0) set.w_hr = take("weight_hr", {P, H});
    return set;
}

}  // namespace lstmcore
