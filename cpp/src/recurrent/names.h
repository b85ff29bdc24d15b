// The names of options in files and in Python.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "lstmcore/spec.h"

namespace lstmcore {

template <class Value>
struct Named {
    const char* name;
    Value value;
};

inline constexpr Named<ActivationKind> kActivations[] = {
    {"sigmoid", ActivationKind::sigmoid},
    {"tanh", ActivationKind::tanh},
    {"relu", ActivationKind::relu},
    {"hard_sigmoid", ActivationKind::hard_sigmoid},
    {"scaled_tanh", ActivationKind::scaled_tanh},
    {"softsign", ActivationKind::softsign},
    {"identity", ActivationKind::identity}};
inline constexpr Named<Merge> kMerges[] = {
    {"concat", Merge::concat}, {"sum", Merge::sum}, {"mul", Merge::mul}, {"ave", Merge::ave}};

template <class Value, std::size_t N>
std::optional<Value> find_name(const Named<Value> (&all)[N], const std::string& name) {
    for (const Named<Value>& one : all)
        if (name == one.name) return one.value;
    return std::nullopt;
}

}  // namespace lstmcore
