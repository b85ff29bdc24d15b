#include "lstmcore/spec.h"

#include <cmath>
#include <stdexcept>
#include <string>

#include "memory/sizes.h"

namespace lstmcore {

void LayerSpec::check() const {
    const auto require = [](bool ok, const std::string& message) {
        if (!ok) throw std::invalid_argument(message);
    };
    check_size(input_size, "input_size");
    check_size(hidden_size, "hidden_size");
    check_size(num_layers, "num_layers");
    const bool rnn = cell.kind == CellKind::rnn, lstm = cell.kind == CellKind::lstm;
    require(
        proj_size >= 0 && proj_size < hidden_size,
        "proj_size is " + std::to_string(proj_size) + ", expected 0 <= proj_size < hidden_size");
    require(lstm || proj_size == 0, "proj_size is an option of the LSTM only");
    require(lstm || (cell.forget_gate && !cell.coupled && !cell.peephole && cell.cell_clip == 0),
            "forget_gate, coupled, peephole and cell_clip are options of the LSTM only");
    require(cell.kind == CellKind::gru || cell.reset_after,
            "reset_after is an option of the GRU only");
    require(!rnn || cell.gate.kind == ActivationKind::sigmoid, "the RNN has no gate");
    require(lstm || cell.output.kind == ActivationKind::tanh,
            "output is an option of the LSTM only");
    require(cell.forget_gate || !cell.coupled, "coupled=True contradicts forget_gate=False");
    const auto clip = [&](double value, const char* name) {
        require(
            std::isfinite(value) && value >= 0,
            std::string(name) + " is " + std::to_string(value) + ", expected a finite number >= 0");
    };
    clip(cell.cell_clip, "cell_clip");
    clip(cell.gate_clip, "gate_clip");
    const auto activation = [&](const Activation& a, const char* name) {
        require(std::isfinite(a.alpha) && std::isfinite(a.beta),
                std::string(name) + " has an alpha or beta that is not finite");
        require(a.kind != ActivationKind::scaled_tanh || a.alpha != 0,
                std::string(name) + " is a scaled_tanh of alpha 0, which is always 0");
    };
    activation(cell.gate, "gate");
    activation(cell.candidate, "candidate");
    activation(cell.output, "output");
    require(!(bidirectional && reverse), "reverse=True contradicts bidirectional=True");
    require(bidirectional || merge == Merge::concat,
            "merge other than \"concat\" needs bidirectional=True");
}

}  // namespace lstmcore
