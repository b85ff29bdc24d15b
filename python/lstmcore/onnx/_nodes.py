"""The nodes of a graph, followed in their order with symbols in place of arrays.

What becomes of a node of each kind is said in `_network`; here is what recurrent nodes become, and
what the others ask for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._base.module import Module
from .._network.model import Model as Network
from .._network.operations import Stack
from .._network.symbol import Input, Symbol, concat
from .._nn.pooling import LastStep
from .._nn.sequential import Sequential
from . import _recurrent
from ._facts import Facts, Size
from ._model import Model, Node, Tensor, Value

__all__ = ["Axed", "Nodes", "Unlike", "loaded"]


class Unlike(Exception):
    """What no module of ours is."""


class Axed(NamedTuple):
    """A symbol, and what the axes of the ONNX value are that it stands for, a letter for each.

    T: steps. B: rows. F: features. L: layers and directions of a state. D: two directions, which
    are side by side in the features of the symbol. =: an axis of size 1. A single feature may have
    no axis. N: the rows and steps of (B, T, ...) in one axis, M: the steps and rows of (T, B, ...);
    `joined` has their sizes then.
    """

    symbol: Any
    axes: str
    joined: tuple[Size, ...] = ()

    @property
    def features(self) -> int:
        """The size of the last axis of the symbol."""
        return int(self.symbol.axes.features or 0)

    def without(self, place: int) -> Axed:
        """Return it without one of its axes, which says nothing."""
        return self._replace(axes=self.axes[:place] + self.axes[place + 1 :])


class Nodes:
    """The nodes of a model, one after the other.

    Parameters
    ----------
    model : Model
    first : bool
        Whether arrays with steps are (B, T, F).
    made : dict
        Modules with parameters that were made before, by what they were made of.
    rules : dict
        By operators: the function that gives what a node gives, from this and the node.
    """

    def __init__(
        self, model: Model, first: bool, made: dict[str, Any], rules: dict[str, Any]
    ) -> None:
        self.first, self.constants = first, model.constants
        self._model, self._made, self._rules = model, made, rules
        self.facts = Facts(model)
        for node in model.nodes:
            self.facts.add(node)
        self._users: dict[str, list[Node]] = {}
        for node in model.nodes:
            for name in node.uses():
                self._users.setdefault(name, []).append(node)
        self._values: dict[str, Axed] = {}
        self._past: set[int] = set()  # nodes that are a part of what another one became
        self._steps: list[tuple[Size, Symbol]] = []  # whose steps are known by which size
        # Of the final states of layers that begin with zeros and read forward: their y.
        self.ends: dict[Symbol, Symbol] = {}

    def whole(self) -> Module:
        """Return what all nodes compute."""
        inputs = [self._input(value) for value in self._model.inputs]
        for node in self._model.nodes:
            if id(node) not in self._past:
                self._node(node)
        outputs = [self._output(name) for name in self._model.outputs]
        made = Network(
            inputs if len(inputs) > 1 else inputs[0],
            outputs if len(outputs) > 1 else outputs[0],
            output_names=self._model.outputs,
        )
        for value in self._model.inputs:
            if value.dtype.kind == "f" and value.dtype != made.dtype:
                raise Unlike
        if made._network is None:
            return Sequential(*(module for _, module in made._chain()))
        return made

    # Inputs and outputs ---------------------------------------------------------------------------

    def _input(self, value: Value) -> Input:
        ids = value.dtype.kind in "iu"
        if value.shape is None or value.dtype.kind not in "iuf":
            raise Unlike
        rank = len(value.shape) + ids
        if rank not in (2, 3):
            raise Unlike
        features = None if ids else value.shape[-1] or self._size_asked(value.name)
        symbol = Input(features, steps=rank == 3, ids=ids, name=value.name)
        axes = self.sequence if rank == 3 else "BF"
        self._keep(value.name, Axed(symbol, axes.replace("F", "") if ids else axes))
        return symbol

    def _size_asked(self, name: str) -> int:
        """Return how many features the first node has that tells, of a value of any."""
        for node in self._users.get(name, []):
            if _recurrent.is_recurrent(node):
                return int(self.layer(node).input_size)
            if node.op == "MatMul" and node.inputs[1] in self.constants:
                return len(self.constants[node.inputs[1]])
            if node.op in ("Transpose", "Relu", "Tanh", "LayerNormalization"):
                return self._size_asked(node.outputs[0])
        raise Unlike

    def _output(self, name: str) -> Symbol:
        x = self._values[name]
        if x.symbol.call is None or x.axes not in ("BF", "LBF", self.sequence):
            raise Unlike
        symbol: Symbol = x.symbol
        return symbol

    @property
    def sequence(self) -> str:
        """The axes of a sequence."""
        return "BTF" if self.first else "TBF"

    # What the rules ask for -----------------------------------------------------------------------

    def value(self, node: Node, place: int = 0) -> Axed:
        """Return an input that comes of the model's inputs."""
        return self._values[node.inputs[place]]

    def is_value(self, node: Node, place: int) -> bool:
        """Whether an input comes of the model's inputs."""
        return node.inputs[place] in self._values

    def constant(self, node: Node, place: int) -> Tensor:
        """Return an input that is a constant."""
        return self.constants[node.inputs[place]]

    def shared(self, node: Node, names: tuple[str | None, ...], make: Callable[[], Any]) -> Any:
        """Return what `make` gives; nodes with constants of the same names have it together."""
        return self._once(repr((node.op, names, dict(node.attributes))), make)

    def _once(self, key: str, make: Callable[[], Any]) -> Any:
        if key not in self._made:
            self._made[key] = make()
        return self._made[key]

    def steps_like(self, size: Size) -> Symbol | None:
        """Return a symbol that has so many steps."""
        return next((symbol for known, symbol in self._steps if known == size), None)

    def without_layers(self, x: Axed) -> Axed:
        """Return the state of one layer with an axis of size 1 for it."""
        if "L" not in x.axes or x.symbol.axes.states != 1:
            return x
        y = self.ends.get(x.symbol)
        symbol = x.symbol[0] if y is None else LastStep(batch_first=self.first)(y)
        return Axed(symbol, x.axes.replace("L", "="))

    def bias_after(self, node: Node, size: int) -> str | None:
        """Return the name of the bias that the next node adds, which is done then; None if none."""
        users = self._users.get(node.outputs[0], [])
        if len(users) != 1 or users[0].op != "Add" or users[0].domain:
            return None
        if node.outputs[0] in self._model.outputs:
            return None
        for name in users[0].inputs:
            if name in self.constants and self.constants[name].shape == (size,):
                self._past.add(id(users[0]))
                return name
        return None

    def keep_past(self, node: Node, x: Axed) -> None:
        """Say what a node behind this one gives, which is done with it."""
        (after,) = self._users[node.outputs[0]]
        self._keep(after.outputs[0], x)

    # Nodes ----------------------------------------------------------------------------------------

    def _keep(self, name: str, x: Axed) -> None:
        self._values[name] = x
        shape = self.facts[name].shape
        if "T" in x.axes and shape is not None and len(shape) == len(x.axes):
            self._steps.append((shape[x.axes.index("T")], x.symbol))

    def _node(self, node: Node) -> None:
        if self.facts[node.outputs[0]].numbers is not None:  # sizes
            return
        if _recurrent.is_recurrent(node):
            made = self._recurrent(node)
        elif node.domain or node.op not in self._rules:
            raise Unlike
        else:
            made = self._rules[node.op](self, node)
            made = made if type(made) is list else [made]
        for name, x in zip(node.outputs, made, strict=False):
            if name:
                self._keep(name, x)

    def _resolved(self, node: Node) -> Any:
        return self._once(f"given to {node.outputs}", lambda: _recurrent.resolve(node))

    def layer(self, node: Node) -> Any:
        """Return the layer that a recurrent node is."""
        recurrent = self._resolved(node)
        at_run_time = recurrent.at_run_time()
        own = {role: name for role, name in recurrent.given.items() if role not in at_run_time}
        key = repr((node.op, own, dict(node.attributes)))
        layer = self._once(key, lambda: _recurrent.layer_of(recurrent, self.constants))
        if layer.batch_first == self.first:
            return layer
        return self._once(f"{key} {self.first}", lambda: _laid_out(layer, self.first))

    def _recurrent(self, node: Node) -> list[Axed]:
        given = self._resolved(node).at_run_time()
        x, rows_first = self.value(node), bool(node.attributes.get("layout"))
        if "sequence_lens" in given or x.axes != ("BTF" if rows_first else "TBF"):
            raise Unlike
        if self._differs(node):
            return self._apart(node, rows_first)
        layer = self.layer(node)
        roles = ("initial_h", "initial_c")[: len(layer._state_parts)]
        parts = tuple(self._state(given.get(role), layer, rows_first) for role in roles)
        free = not any(parts)
        state: Any = parts if len(parts) > 1 else parts[0]
        y, final = layer(x.symbol) if free else layer(x.symbol, state)
        final = final if isinstance(final, tuple) else (final,)
        if free and not layer.reverse:
            self.ends[final[0]] = y
        axis = "D" if layer.bidirectional else "="
        axes = ("BT" + axis + "F", "BLF") if rows_first else ("T" + axis + "BF", "LBF")
        return [Axed(y, axes[0]), *(Axed(part, axes[1]) for part in final)]

    def _differs(self, node: Node) -> bool:
        """Whether the two directions have different activations."""
        said = _recurrent.attributes(node, self._resolved(node).kind)
        return len(set(said.activations)) > 1

    def _apart(self, node: Node, rows_first: bool) -> list[Axed]:
        """Return the two directions of a node as layers side by side."""
        recurrent = self._resolved(node)
        given = recurrent.at_run_time()
        key = repr(("apart", node.outputs, self.first))
        layers: list[Any] = self._once(
            key,
            lambda: [
                _laid_out(layer, self.first)
                for layer in _recurrent.both_directions(recurrent, self.constants)
            ],
        )
        x = self.value(node).symbol
        roles = ("initial_h", "initial_c")[: len(layers[0]._state_parts)]
        parts = [self._state(given.get(role), layers[0], rows_first) for role in roles]
        ys, finals = [], []
        for place, layer in enumerate(layers):
            mine = tuple(None if part is None else part[place : place + 1] for part in parts)
            state: Any = mine if len(mine) > 1 else mine[0]
            y, final = layer(x, state) if any(mine) else layer(x)
            ys.append(y)
            finals.append(final if isinstance(final, tuple) else (final,))
        whole = [
            rows[0][0]._enter(Stack(), tuple(row[0] for row in rows))
            for rows in zip(*finals, strict=True)
        ]
        axes = ("BTDF", "BLF") if rows_first else ("TDBF", "LBF")
        return [Axed(concat(ys), axes[0]), *(Axed(h, axes[1]) for h in whole)]

    def _state(self, name: str | None, layer: Any, rows_first: bool) -> Symbol | None:
        """Return the symbol of an initial state."""
        if name is None:
            return None
        x = self._values[name]
        source = x.symbol
        while source.call is not None and not source.call.module.parameters():
            source = source.call.args[0]
        if source.call is None and source.axes.steps:
            raise Unlike  # the states that the model is called with are no sequence
        if not x.symbol.axes.states and x.axes == ("B=F" if rows_first else "=BF"):
            return x.symbol[None]  # type: ignore[no-any-return]
        if x.axes != ("BLF" if rows_first else "LBF"):
            raise Unlike
        return x.symbol  # type: ignore[no-any-return]


def _laid_out(layer: Any, batch_first: bool) -> Any:
    """Return an equal layer whose sequences are laid out as the model has them."""
    options = {**layer._options(), "batch_first": batch_first}
    made = type(layer)._from_options(options)
    made.load_state_dict(layer.state_dict())
    return made


def loaded(module: Module, **arrays: Tensor) -> Module:
    """Return a module with these arrays in it."""
    module.load_state_dict({name: np.asarray(a, order="C") for name, a in arrays.items()})
    return module
