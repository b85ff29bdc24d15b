"""What `from_onnx` does: a file becomes a layer, a dictionary of layers, a model or a graph."""

from __future__ import annotations

from typing import Any

from .._base import checks
from .._base.budget import BUDGET, Budget
from . import _description, _recurrent
from ._finding import find
from ._folding import fold
from ._graph import Graph, check_known
from ._model import Model, Tensor, all_nodes
from ._network import as_module
from ._order import whole
from ._reading import read
from ._recurrent import NotOurs, RecurrentNode
from ._simplify import simplify


def load(source: Any, name: str | None) -> Any:
    """Do what `from_onnx` says."""
    if name is not None:
        if not isinstance(name, str):
            raise TypeError(f"node is {checks.describe(name)}, expected the name of a node")
        return find(read(source, inputs=False), name)
    model = read(source)
    if _description.KEY in model.metadata:
        module = _description.restore(model)
        if module is not None:
            return module
    model = fold(whole(model))
    before = BUDGET.set(_budget(model))
    try:
        layers = _layers(model)
        if layers is not None:
            return layers
        check_known(model)
        model = simplify(model)
        module = as_module(model)
        return Graph(model) if module is None else module
    finally:
        BUDGET.reset(before)


def graph_of(source: Any) -> Graph:
    """Return a model as a Graph, whatever else it could be."""
    return Graph(simplify(fold(whole(read(source)))))


def _budget(model: Model) -> Budget:
    # A small file may use the same weights often: quantised they grow to four times their size.
    nodes = list(all_nodes(model.nodes))
    bodies = (body for node in nodes for body in node.bodies())
    graphs = (model.constants, *(body.constants for body in bodies))
    nbytes = sum(array.nbytes for constants in graphs for array in constants.values())
    return Budget(16 * len(nodes), 8 * nbytes)


def _layers(model: Model) -> Any:
    """Return the layer or layers of a model that is nothing else, or None."""
    found = [node for node in model.nodes if _recurrent.is_recurrent(node)]
    if not 0 < len(found) == len(model.nodes):
        return None
    inputs = {value.name for value in model.inputs}
    resolved = [_recurrent.resolve(node) for node in found]
    if not all(_alone(recurrent, inputs, model) for recurrent in resolved):
        return None
    try:
        layers = {one.node.name: _recurrent.layer_of(one, model.constants) for one in resolved}
    except NotOurs:
        return None
    return layers if len(layers) > 1 else layers[found[0].name]


def _alone(recurrent: RecurrentNode, inputs: set[str], model: Model) -> bool:
    """Whether a node has its weights, and all else from the model's inputs or not at all."""
    at_run_time = recurrent.at_run_time()
    return all(
        name in inputs or is_zero_state(role, model.constants.get(name))
        if role in at_run_time
        else name in model.constants
        for role, name in recurrent.given.items()
    )


def is_zero_state(role: str, value: Tensor | None) -> bool:
    """Whether an input is an initial state of zeros, which is what a layer starts from anyway."""
    return role.startswith("initial_") and value is not None and not value.any()
