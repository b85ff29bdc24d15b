#include "lstmcore/spec.h"

#include <cmath>
#include <stdexcept>
#include <string>
#include <variant>

#include "lstmcore/options.h"
#include "memory/sizes.h"

namespace lstmcore {
namespace {

void require(bool ok, const std::string& message) {
    if (!ok) throw std::invalid_argument(message);
}

// The check of a value by itself, for each type of option.
void check_value(const char* name, int64_t size) {
    if (std::string(name) != "proj_size") check_size(size, name);  // that may be 0, for none
}
void check_value(const char* name, double limit) {
    require(std::isfinite(limit) && limit >= 0,
            std::string(name) + " is " + std::to_string(limit) + ", expected a finite number >= 0");
}
void check_value(const char* name, const Activation& a) {
    require(std::isfinite(a.alpha) && std::isfinite(a.beta),
            std::string(name) + " has an alpha or beta that is not finite");
    require(a.kind != ActivationKind::scaled_tanh || a.alpha != 0,
            std::string(name) + " is a scaled_tanh of alpha 0, which is always 0");
    require(!a.has_slope() || a.alpha >= 0,
            std::string(name) + " has alpha " + std::to_string(a.alpha) + ", expected at least 0");
}
void check_value(const char* name, const Zoneout& zoneout) {
    for (const double p : {zoneout.h, zoneout.c})
        require(p >= 0 && p < 1,
                std::string(name) + " is " + std::to_string(p) + ", expected 0 <= zoneout < 1");
}
void check_value(const char*, bool) {}
void check_value(const char*, Merge) {}

bool equal(const Activation& a, const Activation& b) {
    return a.kind == b.kind;
}
bool equal(const Zoneout& a, const Zoneout& b) {
    return a.h == b.h && a.c == b.c;
}
template <class Value>
bool equal(const Value& a, const Value& b) {
    return a == b;
}

std::string cells_of(const Option& option) {
    std::string cells;
    for (const Named<CellKind>& cell : kCellNames)
        if (option.allowed(cell.value))
            cells += (cells.empty() ? "" : ", ") + std::string(cell.name);
    return cells;
}

}  // namespace

void LayerSpec::check() const {
    LayerSpec given = *this, defaults;
    for (const Option& option : kOptions)
        std::visit(
            [&](auto* value) {
                check_value(option.name, *value);
                const auto& standard = *std::get<decltype(value)>(option.field(defaults));
                require(option.allowed(cell.kind) || equal(*value, standard),
                        std::string(option.name) +
                            " is an option of these cells only: " + cells_of(option));
            },
            option.field(given));
    require(
        proj_size >= 0 && proj_size < hidden_size,
        "proj_size is " + std::to_string(proj_size) + ", expected 0 <= proj_size < hidden_size");
    require(cell.kind == CellKind::lstm || cell.zoneout.c == 0,
            "zoneout of c is an option of the LSTM, which alone has a c");
    require(cell.forget_gate || !cell.coupled, "coupled=True contradicts forget_gate=False");
    require(!cell.layer_norm || cell.kind != CellKind::gru || cell.reset_after,
            "layer_norm=True contradicts reset_after=False, expected reset_after=True");
    require(!(bidirectional && reverse), "reverse=True contradicts bidirectional=True");
    require(bidirectional || merge == Merge::concat,
            "merge other than \"concat\" needs bidirectional=True");
}

}  // namespace lstmcore
