"""What `from_onnx` does: a file becomes a layer, a dictionary of layers, or a graph that runs."""

from __future__ import annotations

from typing import Any

from .._base import checks
from .._base.budget import BUDGET, Budget
from . import _description, _recurrent
from ._graph import Graph, Layer, fold
from ._reading import Model, Node, Tensor, read
from ._recurrent import RecurrentNode


def load(source: Any, name: str | None) -> Any:
    """Do what `from_onnx` says."""
    if name is not None and not isinstance(name, str):
        raise TypeError(f"node is {checks.describe(name)}, expected the name of a node")
    model = read(source)
    if name is None and _description.KEY in model.metadata:
        module = _description.restore(model)
        if module is not None:
            return module
    model = fold(model)
    found = [node for node in model.nodes if _recurrent.is_recurrent(node)]
    # A small file may use the same weights often: quantised they grow to four times their size.
    nbytes = sum(array.nbytes for array in model.constants.values())
    before = BUDGET.set(Budget(16 * len(model.nodes), 8 * nbytes))
    try:
        if name is not None:
            return _layer(_recurrent.resolve(_named(name, found)), model)
        if 0 < len(found) == len(model.nodes):
            inputs = {value.name for value in model.inputs}
            resolved = [_recurrent.resolve(node) for node in found]
            if all(_alone(recurrent, inputs, model) for recurrent in resolved):
                layers = {one.node.name: _layer(one, model) for one in resolved}
                return layers if len(layers) > 1 else layers[found[0].name]
        return Graph(model)
    finally:
        BUDGET.reset(before)


def _named(name: str, found: list[Node]) -> Node:
    """Return the recurrent node of that name."""
    matches = [node for node in found if node.name == name]
    if len(matches) != 1:
        names = ", ".join(repr(node.name) for node in found) or "none"
        raise ValueError(
            f"node is {name!r}, which {len(matches)} recurrent nodes have, expected one of: {names}"
        )
    return matches[0]


def _alone(recurrent: RecurrentNode, inputs: set[str], model: Model) -> bool:
    """Whether a node takes what it needs at run time from the model's inputs, or not at all."""
    return all(
        name in inputs or _is_zero_state(role, model.constants.get(name))
        for role, name in recurrent.at_run_time().items()
    )


def _is_zero_state(role: str, value: Tensor | None) -> bool:
    """Whether an input is an initial state of zeros, which is what a layer starts from anyway."""
    return role.startswith("initial_") and value is not None and not value.any()


def _layer(recurrent: RecurrentNode, model: Model) -> Layer:
    """Return the layer of a node, unless it has constants that no layer keeps."""
    for role, name in recurrent.at_run_time().items():
        if name in model.constants and not _is_zero_state(role, model.constants[name]):
            raise ValueError(
                f"{recurrent.node} has a constant {role}, which a layer does not keep: import the "
                "whole model, without node="
            )
    return _recurrent.layer_of(recurrent, model.constants, model.opset)
