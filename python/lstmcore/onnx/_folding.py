"""Constants that nodes make of constants: computed once, when a model is read."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any

import numpy as np

from . import operators
from ._model import Body, Model, Node, Tensor, all_nodes

__all__ = ["Allowance", "around", "computed", "fold"]


class Allowance:
    """How many bytes constants that are computed may still have: some times those of a file."""

    def __init__(self, arrays: Sequence[Tensor]) -> None:
        self.left = 8 * sum(a.nbytes for a in arrays) + 2**20


def computed(node: Node, inputs: Sequence[Any], allowance: Allowance) -> tuple[Any, ...] | None:
    """Return what a node makes of constants, None if it is too large or no operator of ours."""
    if not operators.known(node) or node.bodies():
        return None
    if any(isinstance(a, list) for a in inputs):  # sequences
        return None
    run = operators.bind(node)
    try:
        if operators.growth(node, inputs) > allowance.left:
            return None
        before = operators.LIMIT.set(allowance.left)
        try:
            with np.errstate(all="ignore"):
                results = run(*inputs)
        except operators.TooLarge:
            return None
        finally:
            operators.LIMIT.reset(before)
    except operators.FAILURES as error:
        raise ValueError(f"{node}: {error}") from error
    results = results if isinstance(results, tuple) else (results,)
    results = tuple(np.asarray(a) if isinstance(a, np.generic) else a for a in results)
    for result in results:
        if not isinstance(result, np.ndarray):
            return None
        if not any(a is not None and np.may_share_memory(a, result) for a in inputs):
            allowance.left -= result.nbytes
    return results


def fold(model: Model) -> Model:
    """Return the model with the values that come of constants alone as constants themselves.

    Exporters leave weights to be sliced, joined, transposed, dequantised or computed by nodes. What
    would make much more of a file than it holds is left to be computed when the model runs.
    """
    constants = dict(model.constants)
    tensors = [
        a
        for n in all_nodes(model.nodes)
        for a in n.attributes.values()
        if isinstance(a, np.ndarray)
    ]
    allowance = Allowance([*constants.values(), *tensors])
    nodes = _folded(model.nodes, constants, allowance)
    return model._replace(nodes=nodes, constants=constants)


def around(constants: Mapping[str, Tensor], body: Body) -> ChainMap[str, Tensor]:
    """Return the constants that a graph within a node can use: its own, and those around it."""
    hidden = [name for name in body.inputs if name in constants]
    outer = {n: a for n, a in constants.items() if n not in hidden} if hidden else constants
    return ChainMap(dict(body.constants), outer)  # type: ignore[arg-type]


def _folded(
    nodes: list[Node], constants: MutableMapping[str, Tensor], allowance: Allowance
) -> list[Node]:
    """Return the nodes that are left; the values of the others are new constants."""
    left = []
    for node in nodes:
        if any(name and name not in constants for name in node.inputs):
            left.append(_with_bodies(node, constants, allowance))
            continue
        results = computed(node, [constants.get(name) for name in node.inputs], allowance)
        if results is None:
            left.append(_with_bodies(node, constants, allowance))
            continue
        made = zip(node.outputs, results, strict=False)
        constants.update((name, result) for name, result in made if name)
    return left


def _with_bodies(node: Node, constants: Mapping[str, Tensor], allowance: Allowance) -> Node:
    """Return the node with the constants of the graphs within it computed."""
    if not node.bodies():
        return node
    attributes = dict(node.attributes)
    for name, value in attributes.items():
        if isinstance(value, Body):
            inside = around(constants, value)
            nodes = _folded(value.nodes, inside, allowance)
            attributes[name] = value._replace(nodes=nodes, constants=dict(inside.maps[0]))
    return node.replaced(attributes=attributes)
