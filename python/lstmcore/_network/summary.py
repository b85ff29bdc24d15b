"""A network as a list of its inputs and calls, as a table, and where a drawing has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from .._base.module import Module
from .._base.tree import matched
from .plan import Plan

__all__ = ["Node", "layout", "nodes", "table"]


class Node(NamedTuple):
    """An input, a call or an output."""

    name: str
    module: str  # what is called; "" of inputs and outputs
    gives: str  # the axes of what it gives
    parameters: int
    takes: list[int]  # the numbers of the nodes that it takes something of, each once


def nodes(plan: Plan, children: Mapping[str, Module]) -> list[Node]:
    """Return inputs, calls in their order, and outputs. A module's parameters are counted once."""
    names = {id(module): name for name, module in children.items()}
    called = plan.input_names or plan.names
    found = [
        Node(name, "", str(axes), 0, []) for name, (axes, _) in zip(called, plan.given, strict=True)
    ]
    calls: dict[str, int] = {}  # how many there were, of each name
    source = dict(enumerate(range(len(found))))  # of every slot: the node that gives it
    seen: set[int] = set()
    for step in plan.steps:
        module: Any = step.module
        gives = ", ".join(str(plan.axes[y]) for y in step.outs)
        takes = list(dict.fromkeys(source[x] for x in step.xs if x is not None))
        count = 0 if id(module) in seen else module.num_parameters
        seen.add(id(module))
        name = names.get(id(module)) or type(module).__name__.lower()
        calls[name] = calls.get(name, 0) + 1
        if calls[name] > 1:
            name = f"{name} ({calls[name]})"
        source |= dict.fromkeys(step.outs, len(found))
        found.append(Node(name, repr(module).replace("\n", " "), gives, count, takes))
    outputs = list(matched(plan.outputs, plan.outputs, "y"))
    for i, (place, slot) in enumerate(outputs):
        name = plan.output_names[i] if plan.output_names else place
        found.append(Node(name, "", str(plan.axes[slot]), 0, [source[slot]]))
    return found


def table(plan: Plan, children: Mapping[str, Module], total: int) -> str:
    """Return a row for each input and call of a plan, and the number of all parameters."""
    listed = nodes(plan, children)[: len(plan.given) + len(plan.steps)]
    rows = [("name", "module", "gives", "parameters", "takes")]
    for node in listed:
        takes = ", ".join(dict.fromkeys(listed[i].name for i in node.takes))
        count = str(node.parameters) if node.parameters else ""
        rows.append((node.name, node.module, node.gives, count, takes))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        cells = [
            text.rjust(w) if i == 3 else text.ljust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, f"{total} parameters"])


def layout(listed: list[Node]) -> tuple[list[tuple[float, int]], list[list[tuple[float, int]]]]:
    """Return where the nodes stand, across and from the top, and the edges between them.

    An edge, as the points where it begins, bends and ends, goes round the nodes in between: at each
    level that it passes it has a place of its own. Edges are in the order of the nodes that take.
    """
    levels: list[int] = []
    for node in listed:
        levels.append(1 + max((levels[i] for i in node.takes), default=-1))
    for i, node in reversed(list(enumerate(listed))):
        users = [levels[j] for j, other in enumerate(listed) if i in other.takes]
        if not node.takes and users:
            levels[i] = min(users) - 1  # an input next to what takes it first
        elif not users:
            levels[i] = max(levels)  # all outputs at the bottom
    # Places: the nodes, then those where edges pass. `before` has the places one level up.
    depth = list(levels)
    before: list[list[int]] = [[] for _ in listed]
    paths = []
    for i, node in enumerate(listed):
        for source in node.takes:
            path = [source]
            for level in range(levels[source] + 1, levels[i]):
                before.append([path[-1]])
                path.append(len(depth))
                depth.append(level)
            before[i].append(path[-1])
            paths.append([*path, i])
    across = _across(depth, before)
    places = list(zip(across, depth, strict=True))
    return places[: len(listed)], [[places[i] for i in path] for path in paths]


def _across(depth: list[int], before: list[list[int]]) -> list[float]:
    """Return how far to the right each place is: near what it takes, and 1 or more from others."""
    across = [0.0] * len(depth)
    for level in range(max(depth) + 1):
        row = [i for i, one in enumerate(depth) if one == level]
        mean = {i: sum(across[j] for j in before[i]) / len(before[i]) for i in row if before[i]}
        right = max(mean.values(), default=-1.0) + 1  # for an input, which takes nothing
        row.sort(key=lambda i: (mean.get(i, right), i))
        for n, i in enumerate(row):
            across[i] = max(mean.get(i, right), across[row[n - 1]] + 1 if n else -np.inf)
        # What was pushed to the right moves all of them to the left by as much, on the average.
        shift = sum(across[i] - mean.get(i, across[i]) for i in row) / max(len(row), 1)
        for i in row:
            across[i] -= shift
    return across
