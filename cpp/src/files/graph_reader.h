// Reads the graph of a Model: its inputs, calls and outputs.
#pragma once

#include <string>
#include <vector>

#include "files/json.h"
#include "network/part.h"

namespace lstmcore {

/// A module of a graph, and what messages call it.
template <class T>
struct NamedPart {
    std::string name;
    PartPointer<T> part;
};

/// Throws std::runtime_error where it is none, or its calls do not fit the modules.
template <class T>
PartPointer<T> read_graph(const Json& graph, const std::vector<NamedPart<T>>& modules);

}  // namespace lstmcore
