"""Graphs that are a chain of our modules: they become a Sequential.

The axes of the value that goes from node to node are followed by what they are: "a" and "b" for the
first two of the input, one of which is time and the other rows, "F" for features, "D" for two
directions, and "=" for an axis of size 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from .._base.module import Module
from .._nn.activations import ELU, GELU, LeakyReLU, ReLU, Sigmoid, Softmax, Softplus, Tanh
from .._nn.embedding import Embedding
from .._nn.linear import Linear
from .._nn.normalization import LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from . import _recurrent
from ._facts import Facts, axes_of, bounds_of
from ._model import Model, Node, Tensor
from .operators import FAILURES

__all__ = ["as_sequential"]

_MOST = 1000  # nodes; a chain is short


class _NoChain(Exception):
    """What is no chain of our modules."""


def as_sequential(model: Model) -> Sequential | None:
    """Return the Sequential that a simplified model is, or None."""
    if len(model.inputs) != 1 or len(model.outputs) != 1 or len(model.nodes) > _MOST:
        return None
    recurrent = [node for node in model.nodes if _recurrent.is_recurrent(node)]
    shape = model.inputs[0].shape
    if not recurrent or shape is None:
        return None
    try:
        return _Chain(model, shape).whole()
    except (_NoChain, *FAILURES):  # what does not fit is refused by the graph, by name
        return None


class _Chain:
    def __init__(self, model: Model, shape: tuple[int | None, ...]) -> None:
        self._model, self._facts = model, Facts(model)
        for node in model.nodes:
            self._facts.add(node)
        self._users: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.uses():
                self._users.setdefault(name, []).append(node)
        self.left = len(model.nodes)  # how many are still to be visited
        value = model.inputs[0]
        ids = value.dtype.kind in "iu"
        if len(shape) != (2 if ids else 3):
            raise _NoChain
        self.axes = ["a", "b"] if ids else ["a", "b", "F"]
        self.ids, self.dtype = ids, value.dtype
        self.time: str | None = None  # which axis of the input it is
        self.modules: list[Callable[[bool], Module]] = []  # each made once batch_first is known
        self.name = value.name

    def whole(self) -> Sequential:
        """Go from the input to the output."""
        end = self._model.outputs[0]
        while self.name != end:
            if self.axes[0] == "D" and len(self._users.get(self.name, [])) == 2:
                self._two_ends()
            else:
                self._node(self._only_user(self.name))
        rows = "b" if self.time == "a" else "a"
        whole = self.axes in (["a", "b", "F"], [rows, "F"])
        if self.left or self._users.get(end) or self.time is None or not whole:
            raise _NoChain
        batch_first = self.time == "b"
        return Sequential(*(make(batch_first) for make in self.modules))

    def _only_user(self, name: str) -> Node:
        """Return the node that takes a value; it counts as visited then."""
        users = self._users.get(name, [])
        if len(users) != 1 or not self.left:
            raise _NoChain
        self.left -= 1
        return users[0]

    def _two_ends(self) -> None:
        """Put the last states of two directions beside each other, taken one by one."""
        parts: dict[int, str] = {}
        for node in self._users[self.name]:
            axis = node.attributes.get("axis", 0)
            if node.op != "Gather" or node.domain or axis or self.name != node.inputs[0]:
                raise _NoChain
            at = self._facts.list_of(node.inputs[1])
            if at is None or len(at) != 1 or self._facts[node.inputs[1]].shape != ():
                raise _NoChain
            parts[at[0] % 2] = node.outputs[0]
            self.left -= 1
        if len(parts) != 2:
            raise _NoChain
        joined = self._only_user(parts[0])
        beside = joined.op == "Concat" and joined.attributes.get("axis") in (-1, 1)
        if not beside or joined.inputs != (parts[0], parts[1]) or len(self._users[parts[1]]) != 1:
            raise _NoChain
        self.name, self.axes = joined.outputs[0], self.axes[1:]

    def _node(self, node: Node) -> None:
        if _recurrent.is_recurrent(node):
            self._recurrent(node)
            return
        rule = None if node.domain else _NODES.get(node.op)
        if rule is None:
            raise _NoChain
        if any(map(self._is_used, filter(None, node.outputs[1:]))):
            raise _NoChain
        self.made = node.outputs[0]
        rule(self, node)
        self.name = self.made

    def constant(self, node: Node, place: int) -> Tensor:
        """Return an input that is a constant."""
        if place >= len(node.inputs) or node.inputs[place] not in self._model.constants:
            raise _NoChain
        return self._model.constants[node.inputs[place]]

    def own(self, node: Node, place: int = 0) -> None:
        """Check that the value of the chain is that input, and no other one."""
        if node.inputs[place] != self.name or node.inputs.count(self.name) > 1:
            raise _NoChain

    def features(self, array: Tensor) -> None:
        """Check that what meets the features is of the dtype of the chain."""
        if self.axes[-1:] != ["F"] or array.dtype != self.dtype:
            raise _NoChain

    def add(self, make: Callable[[bool], Module]) -> None:
        """Add a module, made with batch_first."""
        self.modules.append(make)

    # Nodes ----------------------------------------------------------------------------------------

    def _recurrent(self, node: Node) -> None:
        recurrent = _recurrent.resolve(node)
        self.own(node)
        if set(recurrent.at_run_time()) != {"X"} or len(self.axes) != 3 or self.axes[2] != "F":
            raise _NoChain
        layer = _recurrent.layer_of(recurrent, self._model.constants)
        first = layer.batch_first
        time, rows = (self.axes[1], self.axes[0]) if first else (self.axes[0], self.axes[1])
        if self.time not in (None, time) or layer.dtype != self.dtype:
            raise _NoChain
        self.time = time
        used = [i for i, name in enumerate(node.outputs) if name and self._is_used(name)]
        if len(used) != 1 or used[0] > 1:  # c is no output of a module
            raise _NoChain
        self.add(lambda batch_first: _with_layout(layer, batch_first))
        both = "D" if layer.bidirectional else "="
        self.name = node.outputs[used[0]]
        if used[0] == 0:
            self.axes = [rows, time, both, "F"] if first else [time, both, rows, "F"]
            return
        if layer.reverse:  # its last step in time is not the end it comes to
            raise _NoChain
        self.axes = [rows, both, "F"] if first else [both, rows, "F"]
        pool = BothEnds if layer.bidirectional else LastStep
        self.add(lambda batch_first: pool(batch_first=batch_first))

    def _is_used(self, name: str) -> bool:
        return name in self._users or name in self._model.outputs

    def transpose(self, node: Node) -> None:
        perm = node.attributes.get("perm") or list(range(len(self.axes)))[::-1]
        self.axes = [self.axes[i] for i in perm]

    def squeeze(self, node: Node) -> None:
        self.own(node)
        axes = axes_of(self._facts, node)
        if axes is None:
            raise _NoChain
        gone = {axis % len(self.axes) for axis in axes}
        if any(self.axes[i] != "=" for i in gone):
            raise _NoChain
        self.axes = [axis for i, axis in enumerate(self.axes) if i not in gone]

    def reshape(self, node: Node) -> None:
        """Take away a direction that is alone, or put two beside each other."""
        self.own(node)
        asked = self.constant(node, 1).tolist()
        sizes = self._facts[self.name].shape
        for i, axis in enumerate(self.axes):
            left = [a for k, a in enumerate(self.axes) if k != i]
            merged = axis == "D" and self.axes[i + 1 : i + 2] == ["F"]
            if not (merged or axis == "=") or len(asked) != len(left) or sizes is None:
                continue
            kept = [s for k, s in enumerate(sizes) if k != i]
            last = kept[-1]
            if merged and isinstance(last, int):
                kept[-1] = 2 * last
            if _asks_for(asked, kept, sizes):
                self.axes = left
                return
        raise _NoChain

    def gather(self, node: Node) -> None:
        index = self.constant(node, 1) if node.inputs[0] == self.name else None
        axis = node.attributes.get("axis", 0)
        if index is None:  # a table, looked up by ids
            table = self.constant(node, 0)
            if axis or not self.ids or self.modules or table.ndim != 2:
                raise _NoChain
            self.dtype = table.dtype
            count, size = table.shape
            self.add(lambda _: _loaded(Embedding(count, size, dtype=table.dtype), weight=table))
            self.axes.append("F")
            return
        axis %= len(self.axes)
        if index.shape != ():
            raise _NoChain
        if self.axes[axis] == "=" and index in (0, -1):
            del self.axes[axis]
            return
        if self.axes[axis] != self.time or index != -1:
            raise _NoChain
        del self.axes[axis]
        self.add(lambda batch_first: LastStep(batch_first=batch_first))

    def slice(self, node: Node) -> None:
        """Take the last step, and leave its axis."""
        self.own(node)
        bounds = bounds_of(self._facts, node)
        if bounds is None or len(bounds) != 1:
            raise _NoChain
        ((axis, (start, stop, step)),) = bounds.items()
        if self.axes[axis] != self.time or (start, step) != (-1, 1) or stop < 2**31 - 1:
            raise _NoChain
        self.axes[axis] = "="
        self.add(lambda batch_first: LastStep(batch_first=batch_first))

    def reduce(self, node: Node) -> None:
        self.own(node)
        axes = axes_of(self._facts, node)
        if axes is None or len(axes) != 1 or self.axes[axes[0] % len(self.axes)] != self.time:
            raise _NoChain
        axis = axes[0] % len(self.axes)
        if node.attributes.get("keepdims", 1):
            self.axes[axis] = "="
        else:
            del self.axes[axis]
        pool: Any = MeanPool if node.op == "ReduceMean" else MaxPool
        self.add(lambda batch_first: pool(batch_first=batch_first))

    def matmul(self, node: Node) -> None:
        self.own(node)
        weight = self.constant(node, 1)
        self.features(weight)
        if weight.ndim != 2:
            raise _NoChain
        self._linear(weight.T, self._bias_after(node, weight.shape[1]))

    def _bias_after(self, node: Node, size: int) -> Tensor | None:
        """Return the bias that the next node adds, and go past that; None if it does not."""
        users = self._users.get(node.outputs[0], [])
        if len(users) != 1 or users[0].op != "Add" or users[0].domain:
            return None
        for name in users[0].inputs:
            bias = self._model.constants.get(name)
            if bias is not None and bias.shape == (size,):
                self.made = self._only_user(node.outputs[0]).outputs[0]
                return bias
        return None

    def gemm(self, node: Node) -> None:
        self.own(node)
        weight = self.constant(node, 1)
        self.features(weight)
        said = node.attributes
        plain = said.get("alpha", 1.0) == 1 and said.get("beta", 1.0) == 1
        if said.get("transA") or not plain or len(self.axes) != 2:
            raise _NoChain
        weight = weight if said.get("transB") else weight.T
        bias = None
        if len(node.inputs) > 2 and node.inputs[2]:
            bias = self.constant(node, 2)
            if bias.shape not in ((len(weight),), (1, len(weight))):
                raise _NoChain
        self._linear(weight, bias)

    def _linear(self, weight: Tensor, bias: Tensor | None) -> None:
        out, size = weight.shape
        if not size or not out or (bias is not None and bias.dtype != weight.dtype):
            raise _NoChain
        arrays = {"weight": weight}
        if bias is not None:
            arrays["bias"] = bias.reshape(-1)
        self.add(
            lambda _: _loaded(
                Linear(size, out, bias=bias is not None, dtype=weight.dtype), **arrays
            )
        )

    def layer_norm(self, node: Node) -> None:
        self.own(node)
        scale = self.constant(node, 1)
        self.features(scale)
        bias = self.constant(node, 2) if len(node.inputs) > 2 and node.inputs[2] else None
        axis = node.attributes.get("axis", -1)
        if scale.ndim != 1 or axis not in (-1, len(self.axes) - 1):
            raise _NoChain
        if node.attributes.get("stash_type", 1) != 1:
            raise _NoChain
        arrays = {"weight": scale} if bias is None else {"weight": scale, "bias": bias}
        epsilon = node.attributes.get("epsilon", 1e-5)
        self.add(
            lambda _: _loaded(
                LayerNorm(len(scale), eps=epsilon, bias=bias is not None, dtype=scale.dtype),
                **arrays,
            )
        )

    def softmax(self, node: Node) -> None:
        self.own(node)
        axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
        if axis not in (-1, len(self.axes) - 1) or self.axes[-1] != "F":
            raise _NoChain
        self.add(lambda _: Softmax())

    def activation(self, node: Node) -> None:
        self.own(node)
        said = dict(node.attributes)
        self.add(lambda _: _ACTIVATIONS[node.op](said))


_Rule: TypeAlias = Callable[[_Chain, Node], None]
_ACTIVATIONS: dict[str, Callable[[Mapping[str, Any]], Module]] = {
    "Relu": lambda said: ReLU(),
    "Tanh": lambda said: Tanh(),
    "Sigmoid": lambda said: Sigmoid(),
    "Softplus": lambda said: Softplus(threshold=1e30),
    "Elu": lambda said: ELU(said.get("alpha", 1.0)),
    "LeakyRelu": lambda said: LeakyReLU(said.get("alpha", 0.01)),
    "Gelu": lambda said: GELU(said.get("approximate", "none")),
}
_NODES: dict[str, _Rule] = {
    "Identity": _Chain.own,
    "Transpose": _Chain.transpose,
    "Squeeze": _Chain.squeeze,
    "Reshape": _Chain.reshape,
    "Gather": _Chain.gather,
    "Slice": _Chain.slice,
    "ReduceMean": _Chain.reduce,
    "ReduceMax": _Chain.reduce,
    "MatMul": _Chain.matmul,
    "Gemm": _Chain.gemm,
    "LayerNormalization": _Chain.layer_norm,
    "Softmax": _Chain.softmax,
    **dict.fromkeys(_ACTIVATIONS, _Chain.activation),
}


def _loaded(module: Module, **arrays: Tensor) -> Module:
    module.load_state_dict({name: np.ascontiguousarray(a) for name, a in arrays.items()})
    return module


def _with_layout(layer: Any, batch_first: bool) -> Module:
    """Return an equal layer whose sequences are laid out as the model has them."""
    if layer.batch_first == batch_first:
        return layer  # type: ignore[no-any-return]
    options = {**layer._options(), "batch_first": batch_first}
    made = type(layer)._from_options(options)
    made.load_state_dict(layer.state_dict())
    return made  # type: ignore[no-any-return]


def _asks_for(asked: list[int], kept: list[Any], before: Any) -> bool:
    """Whether a Reshape asks for the sizes that are kept; one of them may be left to it."""
    if asked.count(-1) > 1:
        return False
    return all(
        n == -1 or n == size or (n == 0 and i < len(before) and before[i] == size)
        for i, (n, size) in enumerate(zip(asked, kept, strict=True))
    )
