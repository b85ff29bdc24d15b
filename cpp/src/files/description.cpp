#include "files/description.h"

#include <stdexcept>

#include "lstmcore/options.h"

namespace lstmcore {
namespace {

Activation parse_activation(const Json& json) {
    const Json::Array* parts = json.is_string() ? nullptr : &json.array("an activation");
    if (parts && parts->empty()) throw std::runtime_error("an activation has no name");
    const std::string& name = (parts ? (*parts)[0] : json).string("an activation");
    const auto kind = find_name(kActivationNames, name);
    if (!kind) throw std::runtime_error("the activation " + name + " is unknown");
    Activation f{*kind};
    const size_t size = parts ? parts->size() : 1, expected = 1 + f.parameters();
    if (size != expected)
        throw std::runtime_error("the activation " + name + " has " + std::to_string(size) +
                                 " parts, expected " + std::to_string(expected));
    if (size > 1) f.alpha = (*parts)[1].number("alpha");
    if (size > 2) f.beta = (*parts)[2].number("beta");
    return f;
}

/// Two numbers, of h and c, or one, of all states that the cell has.
Zoneout parse_zoneout(const Json& json, CellKind kind) {
    if (!json.is_array()) {
        const double both = json.number("zoneout");
        return {both, kind == CellKind::lstm ? both : 0};
    }
    const Json::Array& parts = json.array("zoneout");
    if (parts.size() != 2)
        throw std::runtime_error("zoneout has " + std::to_string(parts.size()) +
                                 " parts, expected 2");
    return {parts[0].number("zoneout"), parts[1].number("zoneout")};
}

}  // namespace

Merge parse_merge(const Json& json) {
    const std::string& name = json.string("merge");
    if (const auto merge = find_name(kMergeNames, name)) return *merge;
    throw std::runtime_error("merge is " + name + ", which is unknown");
}

LayerSpec read_layer(CellKind kind, Options& options) {
    LayerSpec spec;
    spec.cell.kind = kind;
    std::vector<Activation*> activations;
    for (const Option& option : kOptions) {
        if (!option.allowed(kind) || (option.may_lack && !options.has(option.name))) continue;
        const OptionField field = option.field(spec);
        if (const auto* size = std::get_if<int64_t*>(&field)) **size = options.size(option.name);
        if (const auto* on = std::get_if<bool*>(&field)) **on = options.boolean(option.name);
        if (const auto* limit = std::get_if<double*>(&field)) **limit = options.clip(option.name);
        if (const auto* merge = std::get_if<Merge*>(&field))
            **merge = parse_merge(options.get(option.name));
        if (const auto* zoneout = std::get_if<Zoneout*>(&field))
            **zoneout = parse_zoneout(options.get(option.name), kind);
        if (const auto* f = std::get_if<Activation*>(&field)) activations.push_back(*f);
    }
    if (kind == CellKind::rnn) {
        *activations[0] = parse_activation(options.get("nonlinearity"));
    } else {
        const Json::Array& given = options.get("activations").array("activations");
        if (given.size() != activations.size())
            throw std::runtime_error("activations has the wrong length");
        for (size_t i = 0; i < given.size(); ++i) *activations[i] = parse_activation(given[i]);
    }
    // Of no meaning to inference.
    options.ignore("batch_first");
    options.ignore("dropout");
    for (const char* name : {"input_dropout", "recurrent_dropout", "weight_dropout"})
        options.ignore_if_any(name);
    if (kind == CellKind::lstm) options.ignore("forget_bias");
    spec.check();
    return spec;
}

}  // namespace lstmcore
