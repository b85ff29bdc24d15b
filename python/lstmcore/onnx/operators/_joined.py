"""Nodes that run as one, found when a model is read: what they hand on is never made by itself.

A product with its bias is one call of the core. A recurrent node's y has an axis for directions,
which most models take away again at once: ours has none. A slice of one step is that step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

from ... import _core
from ..._base import checks
from ..._base.budget import affords
from .._model import Node, Tensor

__all__ = ["Joined", "Joiner", "Product"]


class Joined(NamedTuple):
    """What runs some nodes, of which `node` is the first."""

    node: Node
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Joiner:
    """Joins nodes of a graph with those behind them.

    Parameters
    ----------
    nodes : list of Node
        In an order in which they can run.
    outputs : collection of str
        The values that are needed in the end.
    constants : mapping of str to array
    """

    def __init__(
        self, nodes: Sequence[Node], outputs: Collection[str], constants: Mapping[str, Tensor]
    ) -> None:
        self._constants = constants
        self._outputs = frozenset(outputs)
        self._users: dict[str, list[Node]] = {}
        for node in nodes:
            for name in node.uses():
                self._users.setdefault(name, []).append(node)
        self._past: set[int] = set()
        self._packed: dict[tuple[str, str], _core.Linear] = {}

    def is_past(self, node: Node) -> bool:
        """Whether a node runs with one before it."""
        return id(node) in self._past

    def join(self, found: Joined) -> Joined:
        """Return what runs a node, with those behind it if there is a way."""
        if hasattr(found.run, "without_directions"):
            return self._recurrent(found)
        if found.node.domain:
            return found
        if found.node.op in ("MatMul", "Gemm"):
            return self._product(found)
        return self._place(found) if found.node.op == "Slice" else found

    def _constant(self, name: str) -> Tensor | None:
        return self._constants.get(name) if name else None

    def _behind(self, node: Node, op: str) -> Node | None:
        """Return the node that alone uses the first output of this one, if it is such an op."""
        name = node.outputs[0]
        users = self._users.get(name, []) if name not in self._outputs else []
        if len(users) != 1 or (users[0].op, users[0].domain) != (op, ""):
            return None
        return users[0] if users[0].inputs.count(name) == 1 else None

    def _recurrent(self, found: Joined) -> Joined:
        """Take away the axis of directions, where the nodes behind do so."""
        node, layer = found.node, found.run.without_directions()  # type: ignore[attr-defined]
        if layer is None:
            return found
        squeeze, turn = self._behind(node, "Squeeze"), self._behind(node, "Transpose")
        if squeeze and not layer.bidirectional and self._axes(squeeze) == [1]:
            past = [squeeze]
        elif turn and turn.attributes.get("perm") == [0, 2, 1, 3]:
            flat = self._behind(turn, "Reshape")
            if flat is None or not self._joins_last(flat, layer.features):
                return found
            past = [turn, flat]
        else:
            return found
        self._past |= {id(gone) for gone in past}
        return found._replace(run=layer, outputs=(past[-1].outputs[0], *found.outputs[1:]))

    def _axes(self, squeeze: Node) -> Any:
        if len(squeeze.inputs) < 2:
            return squeeze.attributes.get("axes")
        axes = self._constant(squeeze.inputs[1])
        return None if axes is None else axes.tolist()

    def _joins_last(self, node: Node, features: int) -> bool:
        shape = self._constant(node.inputs[1])
        zeros = not node.attributes.get("allowzero")
        return zeros and shape is not None and shape.tolist() in ([0, 0, -1], [0, 0, features])

    def _place(self, found: Joined) -> Joined:
        """Take one place of an axis, as of time, which is taken away behind."""
        given = [self._constant(name) for name in found.node.inputs[1:]]
        squeeze = self._behind(found.node, "Squeeze")
        if squeeze is None or len(given) < 3 or any(a is None or a.size != 1 for a in given):
            return found
        start, stop, axis, *step = (int(a.item()) for a in given if a is not None)
        if min(start, axis) < 0 or stop != start + 1 or step not in ([], [1]):
            return found
        if self._axes(squeeze) != [axis]:
            return found
        self._past.add(id(squeeze))
        where = (*[slice(None)] * axis, start, ...)
        inputs, outputs = found.node.inputs[:1], squeeze.outputs
        return found._replace(run=lambda x: x[where], inputs=inputs, outputs=outputs)

    def _product(self, found: Joined) -> Joined:
        """Make a product with a constant, and the bias that is added to it, one call."""
        node, said = found.node, found.node.attributes
        weight, bias = self._constant(node.inputs[1]), ""
        if weight is None or weight.ndim != 2 or weight.dtype.char not in "fd" or not weight.size:
            return found
        outputs, past = found.outputs, None
        if node.op == "Gemm":
            if said.get("alpha", 1) != 1 or said.get("beta", 1) != 1 or said.get("transA"):
                return found
            weight = weight if said.get("transB") else weight.T
            bias = node.inputs[2] if len(node.inputs) > 2 else ""
            if bias and not self._is_bias(bias, weight, (1, len(weight))):
                return found
        else:
            weight, past = weight.T, self._behind(node, "Add")
            added = [name for name in past.inputs if name != node.outputs[0]] if past else []
            if past and self._is_bias(added[0], weight):
                bias, outputs = added[0], past.outputs
            else:
                past = None
        core = self._pack(node.inputs[1], bias, weight)
        if core is None:
            return found
        if past is not None:
            self._past.add(id(past))
        run = Product(core, weight, node.op == "Gemm")
        return found._replace(run=run, inputs=node.inputs[:1], outputs=outputs)

    def _is_bias(self, name: str, weight: Tensor, *others: tuple[int, ...]) -> bool:
        b = self._constant(name)
        fits = b is not None and b.dtype == weight.dtype
        return fits and b.shape in ((len(weight),), *others)  # type: ignore[union-attr]

    def _pack(self, name: str, bias: str, weight: Tensor) -> _core.Linear | None:
        if (name, bias) not in self._packed:
            if not affords(weight.shape, weight.dtype):
                return None  # often used weights of a small file, which stay as they are
            b = self._constant(bias)
            ordered = None if b is None else checks.in_order(b.reshape(-1))
            self._packed[name, bias] = _core.pack_linear(checks.in_order(weight), ordered, False)
        return self._packed[name, bias]


class Product:
    """x W^T + b, as `Linear` computes it."""

    def __init__(self, core: _core.Linear, weight: Tensor, rows: bool) -> None:
        self.core, self._dtype = core, weight.dtype
        self._size, self._rows = weight.shape[1], rows

    def __call__(self, x: Tensor) -> Tensor:
        shape = x.shape
        if x.dtype != self._dtype:
            raise TypeError(f"it is given {x.dtype}, expected {self._dtype} as its weights")
        if not shape or shape[-1] != self._size or (self._rows and len(shape) != 2):
            axes = "n" if self._rows else "..."
            raise ValueError(f"it is given shape {shape}, expected ({axes}, {self._size})")
        return _core.linear_forward(self.core, checks.in_order(x))
