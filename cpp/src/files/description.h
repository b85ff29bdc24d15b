// What files say of a module: its options, each of which has a use.
#pragma once

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "files/json.h"
#include "lstmcore/spec.h"

namespace lstmcore {

/// The options of one module, each of which must be asked for: what is unknown is refused, never
/// ignored.
class Options {
public:
    explicit Options(const Json& description) {
        for (const auto& [name, value] : description.object("the description of a module"))
            values_.push_back({&name, &value, false});
    }

    const Json& get(const std::string& name) {
        for (Value& value : values_)
            if (*value.name == name) {
                value.used = true;
                return *value.value;
            }
        throw std::runtime_error("the description lacks " + name);
    }
    bool has(const std::string& name) const {
        return std::any_of(values_.begin(), values_.end(),
                           [&](const Value& value) { return *value.name == name; });
    }
    /// A name, or "" if there is none.
    std::string name_or_none(const std::string& name) {
        return has(name) ? get(name).string(name) : "";
    }
    bool boolean(const std::string& name) { return get(name).boolean(name); }
    int64_t size(const std::string& name) { return get(name).integer(name); }
    /// null is 0
    double clip(const std::string& name) {
        const Json& value = get(name);
        return value.is_null() ? 0 : value.number(name);
    }
    /// Of no meaning to inference.
    void ignore(const std::string& name) { get(name); }
    void ignore_if_any(const std::string& name) {
        if (has(name)) get(name);
    }

    void check_all_used(const std::string& type) const {
        for (const Value& value : values_)
            if (!value.used)
                throw std::runtime_error("the option " + *value.name + " of " + type +
                                         " is unknown");
    }

private:
    struct Value {
        const std::string* name;
        const Json* value;
        bool used;
    };
    std::vector<Value> values_;
};

Merge parse_merge(const Json& json);

/// Takes the options of a layer as Python writes them: those that its cell has, with the
/// activations in one list, or, of the RNN, as `nonlinearity`.
LayerSpec read_layer(CellKind kind, Options& options);

}  // namespace lstmcore
