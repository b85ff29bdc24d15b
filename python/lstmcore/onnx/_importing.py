"""What `from_onnx` does: a file becomes a layer, a dictionary of layers, or a graph that runs."""

from __future__ import annotations

from typing import Any

from .._base import checks
from .._base.budget import BUDGET, Budget
from . import _description, _recurrent
from ._graph import Graph, Layer, fold
from ._reading import Model, Node, read


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
            return _layer(_named(name, found), model)
        inputs = {value.name for value in model.inputs}
        if 0 < len(found) == len(model.nodes) and all(_alone(n, inputs, model) for n in found):
            layers = {node.name: _layer(node, model) for node in found}
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


def _alone(node: Node, inputs: set[str], model: Model) -> bool:
    """Whether a node takes what it needs at run time from the model's inputs, or not at all."""
    given = _recurrent.inputs_of(node)
    for role in _recurrent.AT_RUN_TIME:
        if role in given and given[role] not in inputs and not _is_zero_state(role, node, model):
            return False
    return True


def _is_zero_state(role: str, node: Node, model: Model) -> bool:
    """Whether an input is an initial state of zeros, which is what a layer starts from anyway."""
    value = model.constants.get(_recurrent.inputs_of(node)[role])
    return role.startswith("initial_") and value is not None and not value.any()


def _layer(node: Node, model: Model) -> Layer:
    """Return the layer of a node, unless it has constants that no layer keeps."""
    given = _recurrent.inputs_of(node)
    for role in _recurrent.AT_RUN_TIME:
        constant = given.get(role) in model.constants
        if constant and not _is_zero_state(role, node, model):
            raise ValueError(
                f"{node} has a constant {role}, which a layer does not keep: import the whole "
                "model, without node="
            )
    return _recurrent.layer_of(node, model.constants, model.opset)
