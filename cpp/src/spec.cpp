#include "lstmcore/spec.h"

#include <cmath>
#include <stdexcept>
#include <string>

namespace lstmcore {

void LayerSpec::check() const {
    const auto require = [](bool ok, const std::string& message) {
        if (!ok) throw std::invalid_argument(message);
    };
    const auto positive = [&](int64_t value, const char* name) {
        require(value > 0, std::string(name) + " is " + std::to_string(value) + ", expected > 0");
    };
    positive(input_size, "input_size");
    positive(hidden_size, "hidden_size");
    positive(num_layers, "num_layers");
    const bool lstm = cell.kind == CellKind::lstm;
    require(
        proj_size >= 0 && proj_size < hidden_size,
        "proj_size is " + std::to_string(proj_size) + ", expected 0 <= proj_size < hidden_size");
    require(lstm || proj_size == 0, "proj_size is an option of the LSTM only");
    require(lstm || (cell.forget_gate && !cell.coupled && !cell.peephole && cell.cell_clip == 0),
            "forget_gate, coupled, peephole and cell_clip are options of the LSTM only");
    require(cell.forget_gate || !cell.coupled, "coupled=True contradicts forget_gate=False");
    const auto clip = [&](double value, const char* name) {
        require(
            std::isfinite(value) && value >= 0,
            std::string(name) + " is " + std::to_string(value) + ", expected a finite number >= 0");
    };
    clip(cell.cell_clip, "cell_clip");
    clip(cell.gate_clip, "gate_clip");
    require(!(bidirectional && reverse), "reverse=True contradicts bidirectional=True");
    require(bidirectional || merge == Merge::concat,
            "merge other than \"concat\" needs bidirectional=True");
}

}  // namespace lstmcore
