"""Nodes as a list of calls: who takes what from where is found out once, when a model is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from . import _control, operators
from ._folding import around
from ._model import Body, Node, Tensor

__all__ = ["Plan", "Special"]

# Makes the function of a node, and the names of what it is given; None for an operator.
Special: TypeAlias = Callable[
    [Node, Mapping[str, Tensor]], tuple[Callable[..., Any], tuple[str, ...]] | None
]

_ABSENT, _UNUSED = 0, 1  # where an input is that was left out, and an output that nobody takes


class _Step(NamedTuple):
    run: Callable[..., Any]
    take: Callable[[list[Any]], Sequence[Any]]  # what it is given, of all values
    outputs: tuple[int, ...]
    drop: tuple[int, ...]  # the values that nobody needs after it
    node: Node


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
        self._constants, self._special = constants, special
        found = []
        for node in nodes:
            run, names = self._function(node)
            found.append((node, run, names))
        kept = _needed(found, set(outputs))
        self._places: dict[str, int] = {}
        self._values: list[Any] = [None, None]  # before a call: constants, and what comes
        for name in inputs:
            self._place(name)
        self._count = len(inputs)
        used = {name for _, _, names in kept for name in names} | set(outputs)
        steps = []
        for node, run, names in kept:
            given = tuple(self._place(name) for name in names)
            steps.append((node, run, given, self._outputs_of(node, used)))
        self._outputs = tuple(self._place(name) for name in outputs)
        self._steps = self._with_drops(steps)

    def _function(self, node: Node) -> tuple[Callable[..., Any], tuple[str, ...]]:
        made = self._special(node, self._constants)
        if made is not None:
            return made
        if node.bodies():
            return self._with_bodies(node)
        run = operators.bind(node)
        fixed = operators.fixed(node, self._constants)
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
        captured = [name for name in body.captured() if name not in self._constants]
        constants = around(self._constants, body)
        inputs = [*body.inputs, *captured]
        plan = Plan(body.nodes, inputs, body.outputs, constants, self._special)
        start = len(names)
        names += captured
        return _control.Part(plan.run, len(body.inputs), len(body.outputs), start, len(names))

    def _place(self, name: str) -> int:
        if not name:
            return _ABSENT
        if name not in self._places:
            self._places[name] = len(self._values)
            self._values.append(self._constants.get(name))
        return self._places[name]

    def _outputs_of(self, node: Node, used: set[str]) -> tuple[int, ...]:
        places = [self._place(n) if n and n in used else _UNUSED for n in node.outputs]
        while places and places[-1] == _UNUSED:
            places.pop()
        return tuple(places)

    def _with_drops(self, steps: Sequence[Any]) -> list[_Step]:
        """Return the steps, knowing what to drop after each, so that memory is free again."""
        kept = {*self._outputs, _ABSENT}
        kept |= {self._places[n] for n in self._places if n in self._constants}
        found = []
        for node, run, given, made in reversed(steps):
            last = {place for place in given if place not in kept}
            kept |= last
            found.append(_Step(run, _taking(given), made, tuple(last), node))
        return found[::-1]

    def __len__(self) -> int:
        return len(self._steps)

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """Return the outputs; the caller has checked the inputs.

        Raises
        ------
        ValueError
            Naming the node that its inputs do not fit.
        """
        values = self._values.copy()
        values[2 : 2 + self._count] = inputs
        for run, take, made, drop, node in self._steps:
            try:
                results = run(*take(values))
                if type(results) is not tuple:
                    if len(made) == 1:  # as nearly all have
                        values[made[0]] = results
                    elif made:
                        raise ValueError(f"it has 1 outputs here, not {len(made)}")
                elif len(made) > len(results):
                    raise ValueError(f"it has {len(results)} outputs here, not {len(made)}")
                else:
                    for place, result in zip(made, results, strict=False):
                        values[place] = result
            except operators.FAILURES as error:
                raise ValueError(f"{node}: {error}") from error
            for place in drop:
                values[place] = None
        return [values[place] for place in self._outputs]


def _taking(places: tuple[int, ...]) -> Callable[[list[Any]], Sequence[Any]]:
    """Return what takes the values at these places, as a list or a tuple."""
    if len(places) > 1:
        return itemgetter(*places)
    return itemgetter(slice(places[0], places[0] + 1) if places else slice(0))


def _needed(found: Sequence[Any], needed: set[str]) -> list[Any]:
    """Return the nodes that the needed values come from."""
    kept = []
    for node, run, names in reversed(found):
        if needed.isdisjoint(node.outputs):
            continue
        needed = needed | {name for name in names if name}
        kept.append((node, run, names))
    return kept[::-1]


def arrays(values: Sequence[Any]) -> list[Any]:
    """Return values with NumPy's numbers as arrays without axes."""
    return [np.asarray(v) if isinstance(v, np.generic) else v for v in values]
