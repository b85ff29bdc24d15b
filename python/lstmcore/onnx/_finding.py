"""One recurrent node out of a model: what it needs is read, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from .._base.budget import BUDGET, Budget
from . import _recurrent
from ._folding import Allowance, computed
from ._model import Body, Model, Node, Tensor
from ._recurrent import AT_RUN_TIME, RecurrentNode

__all__ = ["find"]

_DEEPEST = 100  # nodes that make constants of what other nodes have made


class _Scope:
    """A graph, and the graphs around it: where names are looked up, the innermost first."""

    def __init__(
        self, nodes: Sequence[Node], constants: Mapping[str, Tensor], inputs: Iterable[str],
        outer: _Scope | None,
    ) -> None:  # fmt: skip
        self.nodes, self._constants, self._outer = nodes, constants, outer
        self._inputs = frozenset(inputs)
        self._makers: dict[str, Node] | None = None
        self._made: dict[str, Tensor] = {}

    def constant(self, name: str, allowance: Allowance, depth: int = 0) -> Tensor | None:
        """Return a value that does not depend on the model's inputs, else None."""
        if self._makers is None:
            self._makers = {name: node for node in self.nodes for name in node.outputs}
        if name in self._made:
            return self._made[name]
        if name in self._constants:
            return self._constants[name]
        if name in self._makers and depth < _DEEPEST:
            self._compute(self._makers[name], allowance, depth)
            return self._made.get(name)
        if name in self._makers or name in self._inputs or self._outer is None:
            return None
        return self._outer.constant(name, allowance, depth)

    def _compute(self, node: Node, allowance: Allowance, depth: int) -> None:
        """Add what a node makes to the constants, if it makes constants."""
        inputs = []
        for name in node.inputs:
            value = self.constant(name, allowance, depth + 1) if name else None
            if name and value is None:
                return
            inputs.append(value)
        results = computed(node, inputs, allowance)
        for name, result in zip(node.outputs, results or (), strict=False):
            self._made[name] = result


def _every(scope: _Scope) -> Iterator[tuple[Node, _Scope]]:
    """Yield every recurrent node, those within other nodes too, with where it stands."""
    for node in scope.nodes:
        if _recurrent.is_recurrent(node):
            yield node, scope
        for body in node.bodies():
            yield from _every(_inside(body, scope))


def _inside(body: Body, outer: _Scope) -> _Scope:
    return _Scope(body.nodes, body.constants, body.inputs, outer)


def find(model: Model, name: str) -> _recurrent.Layer:
    """Return the layer of the recurrent node of that name.

    Raises
    ------
    ValueError
        If there is none, or several, or no layer of ours is what it is.
    """
    every = list(_every(_Scope(model.nodes, model.constants, (), None)))
    found = [(node, scope) for node, scope in every if node.name == name]
    # In a function, its own name will do if it is the only one.
    found = found or [(n, s) for n, s in every if n.name.rpartition("/")[2] == name]
    if len(found) != 1:
        names = ", ".join(repr(node.name) for node, _ in every) or "none"
        raise ValueError(
            f"node is {name!r}, which {len(found)} recurrent nodes have, expected one of: {names}"
        )
    node, scope = found[0]
    recurrent = _recurrent.resolve(node)
    constants = _constants(recurrent, scope)
    nbytes = sum(array.nbytes for array in constants.values())
    before = BUDGET.set(Budget(16, 8 * nbytes))
    try:
        return _recurrent.layer_of(recurrent, constants)
    finally:
        BUDGET.reset(before)


def _constants(recurrent: RecurrentNode, scope: _Scope) -> dict[str, Tensor]:
    """Return what the node is given that is constant, by name, and refuse what no layer keeps."""
    allowance = Allowance([np.empty(0)])
    found = {}
    for role, name in recurrent.given.items():
        allowance.left += 2**24
        value = scope.constant(name, allowance)
        if value is None:
            continue
        allowance.left += 8 * value.nbytes
        if role not in AT_RUN_TIME:
            found[name] = value
        elif role != "X" and (role == "sequence_lens" or value.any()):
            raise ValueError(
                f"{recurrent.node} has a constant {role}, which a layer does not keep: import the "
                "whole model, without node="
            )
    return found
