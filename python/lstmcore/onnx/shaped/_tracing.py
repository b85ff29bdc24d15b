"""Recording a plan while it runs: what depends on shapes alone is worked out, the rest is noted."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .._model import Node, Tensor
from ..operators._joined import Joined
from ._recording import Recorder, Value, plain
from ._rules import Call, NoRule, rule_of

__all__ = ["Changed", "Shaped", "shaped"]


class Changed(Exception):
    """A node has made arrays of other shapes than before, from others of the same shapes."""


# Operators that give a part of their first input, or all of it with other axes; or a copy.
_VIEWS = frozenset(
    ["Cast", "Dropout", "Expand", "Flatten", "Gather", "Identity", "Reshape", "Slice", "Split",
     "Squeeze", "Transpose", "Unsqueeze"]
)  # fmt: skip
# Those whose outputs have shapes that depend on nothing but those of their inputs.
_CERTAIN = frozenset(
    ["Add", "And", "ArgMax", "ArgMin", "Cast", "Cos", "CumSum", "Div", "Equal", "Erf", "Exp", "GRU",
     "Gather", "GatherElements", "Greater", "GreaterOrEqual", "LSTM", "Less", "LessOrEqual", "Log",
     "LogSoftmax", "Mod", "Mul", "Not", "Or", "PRelu", "Pow", "RNN", "ReverseSequence", "ScatterND",
     "Sin", "Sub", "Where", "Xor"]
)  # fmt: skip
# What Plan keeps of nodes that were recorded: the steps, names of inputs and outputs, constants.
Shaped = tuple[list[Joined], list[str], list[str], dict[str, Tensor]]


def shaped(plan: Any, inputs: Sequence[Any]) -> tuple[list[Any], Shaped]:
    """Run a plan, and return its outputs and what runs it for inputs of these shapes and types.

    Raises
    ------
    Unfit
        If there is no such thing. So may whatever a node raises, which says nothing about it.
    """
    recorder = Recorder()
    given = [recorder.given(array) for array in inputs]
    outputs = _Walk(recorder).plan(plan, given)
    names = [value.buffer.name for value in given]
    steps, results = recorder.steps(outputs)
    return [value.array for value in outputs], (steps, names, results, recorder.constants)


class _Walk:
    """Goes through the nodes of a plan, and of the branches that are taken whatever is given."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    def plan(self, plan: Any, given: Sequence[Value]) -> list[Value]:
        """Return the outputs of a plan."""
        known = dict(zip(plan.inputs, given, strict=True))
        for step in plan.steps:
            made = self._step(step, known, plan.constants)
            known.update(zip(step.outputs, made, strict=False))
        return [self._value(name, known, plan.constants) for name in plan.outputs]  # type: ignore[misc]

    def _value(
        self, name: str, known: Mapping[str, Value], constants: Mapping[str, Tensor]
    ) -> Value | None:
        if not name:
            return None
        return known[name] if name in known else self._recorder.constant(constants[name])

    def _step(
        self, step: Joined, known: Mapping[str, Value], constants: Mapping[str, Tensor]
    ) -> list[Value]:
        recorder, node = self._recorder, step.node
        recorder.node = node
        given = [self._value(name, known, constants) for name in step.inputs]
        if node.op == "If" and not node.domain and given[0] is not None and given[0].fixed:
            part = step.run.taken(given[0].array)  # type: ignore[attr-defined]
            return self.plan(part.plan, given[part.start : part.stop])  # type: ignore[arg-type]
        results = step.run(*(None if x is None else x.array for x in given))
        made = [
            np.asarray(array) if isinstance(array, np.generic) else array
            for array in (results if type(results) is tuple else (results,))[: len(step.outputs)]
        ]
        arrays = all(type(array) is np.ndarray for array in made)
        known_shape = node.op in ("Shape", "Size") and not node.domain
        if arrays and (known_shape or all(x is None or x.fixed for x in given)):
            return [recorder.constant(array) for array in made]
        if arrays and all(x is None or type(x.array) is np.ndarray for x in given):
            found = self._view(node, given, made) or self._rule(step, known, constants, made)
            if found is not None:
                return found
        straight = [plain(array) if type(array) is np.ndarray else array for array in made]
        certain = _is_certain(node) and all(map(operator.is_, made, straight))
        run = step.run if certain else _checked(step.run, straight)
        return recorder.call(node, run, given, straight)

    def _view(
        self, node: Node, given: Sequence[Value | None], made: Sequence[Tensor]
    ) -> list[Value] | None:
        """Return parts of the first input; or in a new order, where that needs a copy."""
        if node.domain or node.op not in _VIEWS or given[0] is None:
            return None
        if not all(x is None or x.fixed for x in given[1:]):
            return None
        x = given[0]
        if all(_lies_in(array, x.buffer.array) for array in made):
            return [x.part(array) for array in made]
        if node.op != "Reshape" or x.array.dtype.char not in "fd":
            return None
        y = self._recorder.new(made[0], x)
        self._recorder.apply("copy", y.part(y.array.reshape(x.array.shape)), x)
        return [y]

    def _rule(
        self,
        step: Joined,
        known: Mapping[str, Value],
        constants: Mapping[str, Tensor],
        made: Sequence[Tensor],
    ) -> list[Value] | None:
        """Return what operations of the core make, if they can."""
        rule = rule_of(step)
        if rule is None or made[0].dtype.char not in "fd":
            return None
        node = step.node

        def value(name: str) -> Value | None:
            return self._value(name, known, constants)

        call = Call(self._recorder, node, step.run, value, made[0])
        try:
            found = rule(call)
        except NoRule:
            return None
        np.copyto(found.array, made[0])  # for those behind it, which run now
        return [found]


def _is_certain(node: Node) -> bool:
    return not node.domain and node.op in _CERTAIN


def _lies_in(array: Tensor, buffer: Tensor) -> bool:
    # NumPy compares where they begin and end. What is new is nowhere within the other.
    return np.may_share_memory(array, buffer) and array.dtype == buffer.dtype


def _checked(run: Callable[..., Any], like: Sequence[Any]) -> Callable[..., Any]:
    """Return a function that refuses to give anything but contiguous arrays like these."""
    asked = [(a.shape, a.dtype) if type(a) is np.ndarray else None for a in like]

    def call(*given: Any) -> Any:
        made = run(*given)
        found = []
        for array, shape in zip(made if type(made) is tuple else (made,), asked, strict=False):
            if shape is not None:
                if type(array) is not np.ndarray:
                    array = np.asarray(array)
                if (array.shape, array.dtype) != shape:
                    raise Changed
                if not array.flags.c_contiguous:
                    array = array.copy("C")
            found.append(array)
        return tuple(found)

    return call
