"""If, Loop and Scan: nodes with graphs within them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ._model import Node, Tensor
from .operators import sizes

__all__ = ["KINDS", "Part", "bind", "known"]


class Part(NamedTuple):
    """A graph within a node, as it runs."""

    plan: Any  # whose inputs are its own, then what it takes from around
    inputs: int  # how many it has of its own
    outputs: int
    start: int  # where what it takes from around is among the inputs of the node
    stop: int

    def run(self, values: Sequence[Any]) -> list[Any]:
        """Return the outputs."""
        found: list[Any] = self.plan.run(values)
        return found


def known(node: Node) -> bool:
    """Whether it is one of these, in its version."""
    return not node.domain and node.op in KINDS and node.opset >= KINDS[node.op][0]


def bind(node: Node, attributes: dict[str, Any]) -> Callable[..., Any]:
    """Return a function of the inputs of a node, and of what the graphs within it take as well."""
    if not known(node):
        raise ValueError(f"{node}: {node.kind} of opset {node.opset} is not supported")
    _, function, allowed = KINDS[node.op]
    for name in attributes:
        if name not in allowed:
            raise ValueError(f"{node} has the attribute {name!r}, which is not supported")
    wanted = [name for name, kind in allowed.items() if kind is Part]
    for name in wanted:
        if not isinstance(attributes.get(name), Part):
            raise ValueError(f"{node} has no graph {name!r}")
    run = functools.partial(function, len(node.inputs), **attributes)
    return run() if isinstance(function, type) else run


def _truth(value: Tensor, name: str) -> bool:
    if value.size != 1:
        raise ValueError(f"{name} has shape {value.shape}, expected one truth value")
    return bool(value.reshape(())[()])


class If:
    """Which of two graphs runs, says a truth value."""

    def __init__(self, count: int, *, then_branch: Part, else_branch: Part) -> None:
        self._branches = else_branch, then_branch

    def taken(self, condition: Tensor) -> Part:
        """Return the graph that runs."""
        return self._branches[_truth(condition, "cond")]

    def __call__(self, condition: Tensor, *outer: Any) -> Any:
        part = self.taken(condition)
        return tuple(part.run(outer[part.start - 1 : part.stop - 1]))


def _loop(count: int, *given: Any, body: Part) -> Any:
    trips, condition, *carried = given[:count]
    outer = given[body.start : body.stop]
    if len(carried) != body.inputs - 2 or body.outputs < 1 + len(carried):
        raise ValueError(
            f"it carries {len(carried)} values, but its graph has {body.inputs} inputs and "
            f"{body.outputs} outputs"
        )
    n = None if trips is None else int(trips.item())
    going = condition is None or _truth(condition, "cond")
    collected = _Collected(body.outputs - 1 - len(carried))
    i = 0
    while going and (n is None or i < n):
        going, *made = _trip(body, i, going, carried, outer)
        carried = made[: len(carried)]
        collected.add(made[len(carried) :])
        i += 1
    if not i and collected.parts:  # of what is collected, only what it would be like is known
        collected.empty(_trip(body, 0, True, carried, outer)[1 + len(carried) :])
    return (*carried, *collected.stacked([0] * len(collected.parts)))


def _trip(body: Part, i: int, going: bool, carried: Sequence[Any], outer: Any) -> list[Any]:
    made = body.run([np.array(i, np.int64), np.array(going), *carried, *outer])
    return [_truth(np.asarray(made[0]), "cond"), *made[1:]]


def _scan(
    count: int,
    *given: Any,
    body: Part,
    num_scan_inputs: int,
    scan_input_axes: list[int] | None = None,
    scan_input_directions: list[int] | None = None,
    scan_output_axes: list[int] | None = None,
    scan_output_directions: list[int] | None = None,
) -> Any:
    states = count - num_scan_inputs
    carried, scanned = list(given[:states]), given[states:count]
    outer = given[body.start : body.stop]
    if body.inputs != count or not 0 < num_scan_inputs <= count or body.outputs < states:
        raise ValueError(f"it has {count} inputs, but its graph {body.inputs}")
    axes = scan_input_axes or [0] * num_scan_inputs
    back = scan_input_directions or [0] * num_scan_inputs
    rows = [np.moveaxis(x, axis, 0) for x, axis in zip(scanned, axes, strict=True)]
    lengths = {len(x) for x in rows}
    if len(lengths) != 1:
        raise ValueError(f"what it scans has {sorted(lengths)} steps, expected the same")
    rows = [x[::-1] if b else x for x, b in zip(rows, back, strict=True)]
    collected = _Collected(body.outputs - states)
    for parts in zip(*rows, strict=True):
        made = body.run([*carried, *parts, *outer])
        carried = made[:states]
        collected.add(made[states:])
    if not len(rows[0]) and collected.parts:
        zeros = [np.zeros(x.shape[1:], x.dtype) for x in rows]
        collected.empty(body.run([*carried, *zeros, *outer])[states:])
    each = scan_output_axes or [0] * len(collected.parts)
    return (*carried, *collected.stacked(each, scan_output_directions))


class _Collected:
    """What each trip gives, one array after the other."""

    def __init__(self, count: int) -> None:
        self.parts: list[list[Any]] = [[] for _ in range(count)]
        self._nbytes, self._asked = 0, 2**20

    def add(self, made: Sequence[Any]) -> None:
        for part, array in zip(self.parts, made, strict=True):
            part.append(np.asarray(array))
            self._nbytes += part[-1].nbytes
        if self._nbytes > self._asked:  # now and then, whether there is memory for as much again
            sizes([2 * self._nbytes], np.dtype(np.uint8))
            self._asked = 2 * self._nbytes

    def empty(self, like: Sequence[Any]) -> None:
        """Say what the arrays would have been like, of which there is none."""
        self.parts = [[np.asarray(array)] for array in like]
        self._none = True

    _none = False

    def stacked(self, axes: Sequence[int], directions: Sequence[int] | None = None) -> list[Tensor]:
        back = directions or [0] * len(self.parts)
        found = []
        for part, axis, b in zip(self.parts, axes, back, strict=True):
            y = np.stack(part[::-1] if b else part, axis)
            found.append(y.take(range(0), axis) if self._none else y)
        return found


# By name: since which version, the function, its attributes and what they are.
KINDS: dict[str, tuple[int, Callable[..., Any], dict[str, Any]]] = {
    "If": (1, If, {"then_branch": Part, "else_branch": Part}),
    "Loop": (1, _loop, {"body": Part}),
    "Scan": (
        9,
        _scan,
        {
            "body": Part,
            "num_scan_inputs": int,
            **dict.fromkeys(
                [
                    "scan_input_axes",
                    "scan_input_directions",
                    "scan_output_axes",
                    "scan_output_directions",
                ],
                list,
            ),
        },
    ),
}
