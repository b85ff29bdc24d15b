"""Nodes as one function: who takes what from where is found out once, when a model is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from . import _control, operators
from ._folding import around
from ._model import Body, Node, Tensor
from .operators._joined import Joined, Joiner
from .shaped import Changed, Unfit, plain, shaped

__all__ = ["Plan", "Special"]

# Makes the function of a node, and the names of what it is given; None for an operator.
Special: TypeAlias = Callable[
    [Node, Mapping[str, Tensor]], tuple[Callable[..., Any], tuple[str, ...]] | None
]


class Plan:
    """What turns inputs into outputs.

    Parameters
    ----------
    nodes : list of Node
        In an order in which they can run.
    inputs, outputs : sequence of str
    constants : mapping of str to array
    special : function
        For the nodes that are no simple operators.

    Raises
    ------
    ValueError
        Naming the first node that has what its operator does not.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: Mapping[str, Tensor],
        special: Special,
    ) -> None:
        self.constants, self._special = constants, special
        joiner = Joiner(nodes, outputs, constants)
        found = []
        for node in nodes:
            if not joiner.is_past(node):
                found.append(joiner.join(Joined(node, *self._function(node), node.outputs)))
        self.steps = _needed(found, set(outputs))
        self.inputs, self.outputs = inputs, outputs
        self._run = _Written(self.steps, inputs, outputs, constants)
        # By shapes and types of inputs; None where NumPy computes all.
        self._shaped: dict[Any, _Written | None] = {}
        self._seen: tuple[Any, ...] = ()  # those that have come once

    def _function(self, node: Node) -> tuple[Callable[..., Any], tuple[str, ...]]:
        made = self._special(node, self.constants)
        if made is not None:
            return made
        if node.bodies():
            return self._with_bodies(node)
        run = operators.bind(node)
        fixed = operators.fixed(node, self.constants)
        return (run, node.inputs) if fixed is None else (fixed, node.inputs[:1])

    def _with_bodies(self, node: Node) -> tuple[Callable[..., Any], tuple[str, ...]]:
        names = list(node.inputs)
        attributes = dict(node.attributes)
        for name, value in attributes.items():
            if isinstance(value, Body):
                attributes[name] = self._body(value, names)
        return _control.bind(node, attributes), tuple(names)

    def _body(self, body: Body, names: list[str]) -> _control.Part:
        """Return what runs a graph within a node; `names` grows by what it takes from around."""
        captured = [name for name in body.captured() if name not in self.constants]
        constants = around(self.constants, body)
        inputs = [*body.inputs, *captured]
        plan = Plan(body.nodes, inputs, body.outputs, constants, self._special)
        start = len(names)
        names += captured
        return _control.Part(plan, len(body.inputs), len(body.outputs), start, len(names))

    def __len__(self) -> int:
        return len(self.steps)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs; the caller has checked the inputs.

        Raises
        ------
        ValueError
            Naming the node that its inputs do not fit.
        """
        try:
            like = tuple([(array.shape, array.dtype) for array in inputs])
        except AttributeError:  # a sequence
            return self._run(inputs)
        run: _Written | None = self._shaped.get(like, _UNKNOWN)
        if run is _UNKNOWN:
            return self._new(like, inputs)
        if run is None:
            return self._run(inputs)
        try:
            return run([plain(array) for array in inputs])
        except Changed:
            self._shaped[like] = None
            return self._run(inputs)

    def _new(self, like: Any, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs for inputs of new shapes, which are planned when they come again."""
        if like not in self._seen:
            self._seen = (like, *self._seen[: _KEPT - 1])
            return self._run(inputs)
        run = None
        try:
            outputs, parts = shaped(self, [plain(array) for array in inputs])
            run = _Written(*parts)
        except (Unfit, *operators.FAILURES):
            outputs = self._run(inputs)
        if len(self._shaped) >= _KEPT:
            self._shaped.pop(next(iter(self._shaped)), None)
        self._shaped[like] = run
        return outputs


_KEPT = 8  # shapes of inputs that are planned for
_UNKNOWN: Any = object()
_FIRST_LINE = 2  # of the function that `_written` writes; each node has one


class _Written:
    """Nodes as a function."""

    def __init__(
        self,
        steps: Sequence[Joined],
        inputs: Sequence[str],
        outputs: Sequence[str],
        constants: Mapping[str, Tensor],
    ) -> None:
        self.steps = steps
        self._run = _written(steps, inputs, outputs, constants)

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        try:
            return self._run(*inputs)
        except operators.FAILURES as error:
            line = error.__traceback__.tb_next.tb_lineno  # type: ignore[union-attr]
            raise ValueError(f"{self.steps[line - _FIRST_LINE].node}: {error}") from error


def _written(
    steps: Sequence[Joined],
    inputs: Sequence[str],
    outputs: Sequence[str],
    constants: Mapping[str, Tensor],
) -> Callable[..., list[Any]]:
    """Return a function that calls what runs the nodes, each on a line of its own.

    Values are local variables with numbers: nothing of the file is in the text.
    """
    known: dict[str, Any] = {"first": _first, "several": _several}
    names = {"": "None"}

    def named(name: str) -> str:
        if name not in names:
            names[name] = f"v{len(names)}"
            if name in constants:
                known[names[name]] = constants[name]
        return names[name]

    for i, name in enumerate(inputs):
        names[name] = f"x{i}"
    lines = [f"def run({', '.join(names[name] for name in inputs)}):"]
    last = {name: i for i, step in enumerate(steps) for name in step.inputs}
    kept = {*outputs, *constants, ""}
    for i, step in enumerate(steps):
        known[f"f{i}"] = step.run
        call = f"f{i}({', '.join(map(named, step.inputs))})"
        made = [named(n) if n and (n in last or n in kept) else "_" for n in step.outputs]
        while made[-1:] == ["_"]:
            made.pop()
        if len(made) == 1:
            parts = [f"{made[0]} = first({call})"]
        else:
            parts = [f"{', '.join(made)} = several({call}, {len(made)})"]
        # What nobody needs after it is dropped, so that memory is free again.
        gone = [n for n in dict.fromkeys(step.inputs) if n not in kept and last[n] == i]
        lines.append("; ".join([*parts, *(f"{named(name)} = None" for name in gone)]))
    lines.append(f"return [{', '.join(map(named, outputs))}]")
    exec("\n ".join(lines), known)
    run: Callable[..., list[Any]] = known["run"]
    return run


def _first(result: Any) -> Any:
    """Return the first of what a node gives."""
    return result[0] if type(result) is tuple else result


def _several(result: Any, count: int) -> tuple[Any, ...]:
    """Return so many of what a node gives."""
    given = result if type(result) is tuple else (result,)
    if len(given) < count:
        raise ValueError(f"it has {len(given)} outputs here, not {count}")
    return given if len(given) == count else given[:count]


def _needed(found: Sequence[Joined], needed: set[str]) -> list[Joined]:
    """Return what makes the needed values."""
    kept = []
    for one in reversed(found):
        if needed.isdisjoint(one.outputs):
            continue
        needed = needed | {name for name in one.inputs if name}
        kept.append(one)
    return kept[::-1]


def arrays(values: Sequence[Any]) -> list[Any]:
    """Return values with NumPy's numbers as arrays without axes."""
    return [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
