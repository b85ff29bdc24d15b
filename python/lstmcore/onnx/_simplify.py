"""A model that computes the same with less, without what exporters write for any sizes.

States of zeros are left out, and so is all that makes them; shapes that are known are constants;
what does nothing in inference goes.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np

from . import _recurrent
from ._facts import Facts, axes_of
from ._model import Body, Model, Node, Tensor
from .operators import FAILURES

__all__ = ["needed", "simplify"]

_NOTHING = ("Identity", "Dropout")


def simplify(model: Model) -> Model:
    """Return a model with the same outputs, without what is not needed for them."""
    change = _Simplifier(model)
    for node in model.nodes:
        change.visit(node)
    made = model._replace(nodes=change.nodes, constants=change.constants)
    return needed(made)


def needed(model: Model) -> Model:
    """Return the model without the nodes that nobody needs."""
    wanted, kept = set(model.outputs), []
    for node in reversed(model.nodes):
        if wanted.isdisjoint(node.outputs):
            continue
        kept.append(node)
        wanted.update(node.uses())
    return model._replace(nodes=kept[::-1])


class _Simplifier:
    def __init__(self, model: Model) -> None:
        self.nodes: list[Node] = []
        self.constants: dict[str, Tensor] = dict(model.constants)
        self._facts = Facts(model._replace(constants=self.constants))
        self._outputs = set(model.outputs)
        self._same: dict[str, str] = {}  # names of values that are others
        self._parts: dict[str, tuple[list[str], Any]] = {}  # of joined values: parts, axis

    def visit(self, node: Node) -> None:
        """Add a node, or what it comes to."""
        node = self._renamed(node)
        if self._does_nothing(node):
            self._same[node.outputs[0]] = node.inputs[0]
            return
        with suppress(*FAILURES):  # a node that does not fit its inputs is refused later, by name
            node = self._simpler(node)
        self._facts.add(node)
        if node.op == "Concat" and not node.domain:
            self._parts[node.outputs[0]] = list(node.inputs), node.attributes.get("axis")
        self.nodes.append(node)

    def _renamed(self, node: Node) -> Node:
        if not self._same:
            return node
        inputs = tuple(self._same.get(name, name) for name in node.inputs)
        if not node.bodies():
            return node if inputs == node.inputs else node.replaced(inputs=inputs)
        attributes = {
            name: self._renamed_body(value) if isinstance(value, Body) else value
            for name, value in node.attributes.items()
        }
        return node.replaced(inputs=inputs, attributes=attributes)

    def _renamed_body(self, body: Body) -> Body:
        own = {*body.inputs, *body.constants, *(n for m in body.nodes for n in m.outputs)}
        hidden = {name: self._same.pop(name) for name in own if name in self._same}
        nodes = [self._renamed(node) for node in body.nodes]
        outputs = tuple(self._same.get(name, name) for name in body.outputs)
        self._same |= hidden
        return body._replace(nodes=nodes, outputs=outputs)

    def _does_nothing(self, node: Node) -> bool:
        """Whether the only output that is needed is the input."""
        if node.domain or node.outputs[0] in self._outputs or any(node.outputs[1:]):
            return False
        return node.op in _NOTHING and (node.op == "Identity" or len(node.inputs) < 3)

    def _constant(self, name: str, array: Any) -> str:
        name = f"{name} (constant)"
        self.constants[name] = array
        return name

    def _simpler(self, node: Node) -> Node:
        if _recurrent.is_recurrent(node):
            return self._without_zero_states(node)
        rule = None if node.domain else _RULES.get(node.op)
        return node if rule is None else rule(self, node)

    def _without_zero_states(self, node: Node) -> Node:
        roles = _recurrent.INPUTS.get(node.op, _recurrent.QUANTIZED)
        inputs = [
            "" if role.startswith("initial_") and name and self._facts[name].zeros else name
            for role, name in zip(roles, node.inputs, strict=False)
        ]
        if len(inputs) < len(node.inputs):  # more than it takes, which is refused later
            return node
        while inputs and not inputs[-1]:
            inputs.pop()
        return node.replaced(inputs=tuple(inputs))

    def reshape(self, node: Node) -> Node:
        """Make the shape a constant, if all but one of its sizes are known or as they were."""
        x, asked = self._facts[node.inputs[0]], self._facts[node.inputs[1]].numbers
        if x.shape is None or asked is None or node.inputs[1] in self.constants:
            return node
        if 0 in asked and node.attributes.get("allowzero"):
            return node
        shape: list[Any] = []
        for i, size in enumerate(asked):
            if isinstance(size, int):
                shape.append(size)
            else:
                shape.append(0 if i < len(x.shape) and x.shape[i] == size else -1)
        if shape.count(-1) > 1:
            return node
        name = self._constant(node.outputs[0], np.array(shape, np.int64))
        attributes = {k: v for k, v in node.attributes.items() if k != "allowzero"}
        return node.replaced(inputs=(node.inputs[0], name), attributes=attributes)

    def gather(self, node: Node) -> Node:
        """Take one part of values that have been joined, such as the state of one layer."""
        joined = self._parts.get(node.inputs[0])
        index = self._facts[node.inputs[1]]
        if joined is None or index.shape != () or index.numbers is None:
            return node
        parts, axis = joined
        shapes = [self._facts[part].shape for part in parts]
        at = index.numbers[0]
        if axis != node.attributes.get("axis", 0) or axis < 0 or not isinstance(at, int):
            return node
        sizes: Any = [None if shape is None else shape[axis] for shape in shapes]
        if not all(isinstance(size, int) for size in sizes):
            return node
        at += sum(sizes) if at < 0 else 0
        for part, size in zip(parts, sizes, strict=True):
            if 0 <= at < size:
                name = self._constant(node.outputs[0], np.array(at, np.int64))
                return node.replaced(inputs=(part, name))
            at -= size
        return node

    def squeeze(self, node: Node) -> Node:
        """Make the axes known, where they are left to the sizes and these are numbers."""
        x = self._facts[node.inputs[0]].shape
        if axes_of(self._facts, node) is not None or x is None or len(node.inputs) > 1:
            return node
        if not all(isinstance(size, int) for size in x):
            return node
        axes = [i for i, size in enumerate(x) if size == 1]
        if node.opset < 13:
            return node.replaced(attributes={"axes": axes})
        name = self._constant(node.outputs[0], np.array(axes, np.int64))
        return node.replaced(inputs=(node.inputs[0], name))


_RULES: dict[str, Callable[[_Simplifier, Node], Node]] = {
    "Gather": _Simplifier.gather,
    "Reshape": _Simplifier.reshape,
    "Squeeze": _Simplifier.squeeze,
}
