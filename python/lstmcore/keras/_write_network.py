"""Networks of any shape become functional models of Keras.

Keras is batch-first, and has a state as one array (B, H) for each layer and direction: here a value
is a list of tensors, which has one entry but for states.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._base.checks import Array
from .._base.module import Module
from .._base.symbolic import Axes
from .._base.tree import leaves, rebuilt
from .._network.operations import Affine, Binary, Concat, Index, Repeat
from .._network.plan import Plan, Step
from .._nn.pooling import BothEnds, LastStep
from .._nn.time_reversal import Flip
from ._model import major
from ._write import Writer, check, inexpressible

__all__ = ["write_network"]

Value = list[Any]


def write_network(keras: Any, model: Any) -> Any:
    """Return the functional model for a model of ours that is no chain."""
    version = major(keras.__version__, "keras")
    if version < 3:
        raise ValueError("networks that are no chain are written to Keras 3, and this is Keras 2")
    for module in model._children.values():
        check(module)
        if module._finds_lengths:
            raise inexpressible(module, "masks go through chains only")
    return _NetworkWriter(keras, version, model).write()


class _NetworkWriter:
    """Calls layers of Keras as a plan calls our modules."""

    def __init__(self, keras: Any, version: int, model: Any) -> None:
        self.keras, self._version = keras, version
        self.plan: Plan = model._network
        self._dtypes = [None if d is None else d.name for _, d in self.plan.given]
        given = (d for d in self._dtypes if d is not None)
        self.dtype: str = next(given, "float32") if model.dtype is None else model.dtype.name
        self.values: dict[int, Value] = {}
        # The layers of each module, which its calls share, and their weights.
        self._layers: dict[int, list[tuple[Any, list[Array]]]] = {}
        self._steps: dict[int, list[Step]] = {}  # the calls of each module
        self._users: dict[int, list[Step | None]] = {}  # of each value; None is the user
        for step in self.plan.steps:
            self._steps.setdefault(id(step.module), []).append(step)
            for x in filter(lambda slot: slot is not None, step.xs):
                self._users.setdefault(x, []).append(step)
        for slot in self.plan.last:
            self._users.setdefault(slot, []).append(None)

    def write(self) -> Any:
        """Return the model."""
        plan = self.plan
        inputs = rebuilt(plan.inputs, map(self._input, range(len(plan.given))))
        self.values = {slot: [x] for slot, x in enumerate(leaves(inputs))}
        done: set[int] = set()  # numbers of the calls that the one before them has in it
        for step in plan.steps:
            if step.outs[0] not in done:
                done |= self._call(step)
        outputs = rebuilt(plan.outputs, map(self._output, plan.last))
        model = self.keras.Model(_lists(inputs), _lists(outputs))
        for pairs in self._layers.values():
            for layer, weights in pairs:
                if weights:
                    layer.set_weights(weights)
        return model

    def _input(self, slot: int) -> Any:
        axes, _ = self.plan.given[slot]
        steps = (None,) * axes.steps
        names = dict.fromkeys(self.plan.names)
        inputs = self.plan.inputs
        name = list(inputs)[slot] if isinstance(inputs, dict) and len(inputs) == len(names) else ""
        name = name if isinstance(name, str) and name.isidentifier() else None
        if axes.features is None:
            return self.keras.layers.Input(steps, dtype="int32", name=name)
        dtype = self._dtypes[slot] or self.dtype
        return self.keras.layers.Input((*steps, axes.features), dtype=dtype, name=name)

    def _output(self, slot: int) -> Any:
        axes = self.plan.axes[slot]
        if axes.states:
            raise ValueError(
                f"an output is a state {axes}, of which Keras has one array for each layer: take "
                "h[0], h[1] and so on"
            )
        return self.values[slot][0]

    # Calls ----------------------------------------------------------------------------------------

    def _call(self, step: Step) -> set[int]:
        """Write a call, and return the slots of pooling that it has in it."""
        module = step.module
        kind = type(module)
        if kind in _OPERATIONS:
            self.values[step.outs[0]] = _OPERATIONS[kind](self, module, step)
            return set()
        if step.place is not None:
            return self._recurrent(step)
        (x,) = self.values[step.xs[0] or 0]
        if kind is LastStep:
            x = x[:, -1]
        elif kind is Flip:
            x = self.keras.ops.flip(x, axis=1)
        elif kind is BothEnds:
            raise inexpressible(module, "it has to be all that takes a bidirectional layer's y")
        else:
            for layer, _ in self._made(module):
                x = layer(x)
        self.values[step.outs[0]] = [x]
        return set()

    def _made(
        self, module: Any, *after: Module, states: bool = False
    ) -> list[tuple[Any, list[Array]]]:
        """Return the layers of a module, and of the pooling after it, with their weights."""
        if id(module) not in self._layers:
            parts = [module, *after]
            writer = Writer(self.keras, self._version, parts, self.dtype, states)
            writer.write()
            self._layers[id(module)] = writer.pairs
        return self._layers[id(module)]

    def _recurrent(self, step: Step) -> set[int]:
        module = step.module
        calls = self._steps[id(module)]
        states = any(slot in self._users for call in calls for slot in call.outs[1:])
        pools = self._pools(calls)
        after = pools[0].module if pools else None
        made = self._made(module, *([] if after is None else [after]), states=states)
        x = self.values[step.xs[0] or 0][0]
        initial, final = self._initial(step), []
        for layer, weights in made:
            if not weights:  # the dropout between layers
                x = layer(x)
                continue
            x = layer(x, initial_state=initial.pop(0)) if initial else layer(x)
            if states:
                x, *parts = x
                final.append(parts)
        self._keep_states(step, final)
        if module.reverse and after is None:
            x = self.keras.ops.flip(x, axis=1)  # to where its inputs stand
        mine = next((pool for pool in pools if pool.xs[0] == step.outs[0]), None)
        y = step.outs[0] if mine is None else mine.outs[0]
        self.values[y] = [x]
        return set() if mine is None else {y}

    def _pools(self, calls: list[Step]) -> list[Step]:
        """Return the pooling after the calls of a layer, if Keras's layer can have it in it."""
        pools: list[Step] = []
        for call in calls:
            users = self._users.get(call.outs[0], [])
            user = users[0] if len(users) == 1 else None
            layer = call.module
            both = user is not None and type(user.module) is BothEnds and layer.merge == "concat"
            last = user is not None and type(user.module) is LastStep
            if user is None or not (both if layer.bidirectional else last and not layer.reverse):
                return []
            pools.append(user)
        return pools if all(pool.module == pools[0].module for pool in pools) else []

    def _initial(self, step: Step) -> list[Any]:
        """Return the initial state of every layer of Keras; nothing if all begin with zeros."""
        if not step.wired:
            return []
        module = step.module
        given = [None if slot is None else self.values[slot] for slot in leaves(step.args[1])]
        one = next((part for part in given if part is not None), None)
        if one is None:
            return []
        zeros = [self.keras.ops.zeros_like(x) for x in one]  # no layer with a projection is here
        parts = [zeros if part is None else part for part in given]
        count = 1 + module.bidirectional
        whole = []
        for level in range(module.num_layers):
            rows = range(level * count, level * count + count)
            mine = [part[row] for row in rows for part in parts]
            whole.append(mine if len(mine) > 1 else mine[0])
        return whole

    def _keep_states(self, step: Step, final: list[list[Any]]) -> None:
        """Sort final states, [h, c] of every direction of every layer, into those of our parts."""
        if final:
            parts = [part for one in final for part in one]
            count = len(step.outs) - 1
            for i, slot in enumerate(step.outs[1:]):
                self.values[slot] = parts[i::count]


def _lists(tree: Any) -> Any:
    """Return a structure with lists for its tuples, as Keras has them."""
    if isinstance(tree, dict):
        return {name: _lists(part) for name, part in tree.items()}
    return [_lists(part) for part in tree] if isinstance(tree, (tuple, list)) else tree


# Operations ---------------------------------------------------------------------------------------


def _given(w: _NetworkWriter, step: Step) -> list[Value]:
    return [w.values[slot] for slot in step.xs if slot is not None]


def _binary(w: _NetworkWriter, module: Binary, step: Step) -> Value:
    kinds = {"add": "Add", "subtract": "Subtract", "multiply": "Multiply"}
    kind = getattr(w.keras.layers, kinds[module._config.kind])
    return [kind(dtype=w.dtype)([a, b]) for a, b in zip(*_given(w, step), strict=True)]


def _affine(w: _NetworkWriter, module: Affine, step: Step) -> Value:
    # A layer, because Keras rounds numbers beside tensors to float32.
    scale, shift = module._given
    (x,) = _given(w, step)
    return [w.keras.layers.Rescaling(scale, shift, dtype=w.dtype)(one) for one in x]


def _concat(w: _NetworkWriter, module: Concat, step: Step) -> Value:
    given = _given(w, step)
    if len(given) == 1:
        return given[0]
    kind = w.keras.layers.Concatenate
    return [kind(axis=-1, dtype=w.dtype)(list(parts)) for parts in zip(*given, strict=True)]


def _repeat(w: _NetworkWriter, module: Repeat, step: Step) -> Value:
    (x,), (like,) = _given(w, step)
    axes: Axes = w.plan.axes[step.xs[1] or 0]
    if axes.features is None:
        raise inexpressible(module, "what it is like are ids; take what an Embedding gives")
    column, ones = w.keras.ops.expand_dims(x, 1), w.keras.ops.ones_like(like[..., :1])
    return [w.keras.ops.multiply(column, ones)]


def _index(w: _NetworkWriter, module: Index, step: Step) -> Value:
    (x,) = _given(w, step)
    kind, *bounds = module._given
    if kind == "new":
        return x
    if kind == "layer":
        return [x[bounds[0]]]
    if kind == "layers":
        return x[slice(*bounds)]
    size = w.plan.axes[step.xs[0] or 0].features or 0
    chosen = range(size)[slice(*bounds)]
    if chosen.step > 0:
        return [one[..., slice(*bounds)] for one in x]
    # Backends differ in what they make of negative steps.
    part = slice(chosen[-1], chosen[0] + 1, -chosen.step)
    return [w.keras.ops.flip(one[..., part], axis=-1) for one in x]


_OPERATIONS: dict[type[Module], Callable[[_NetworkWriter, Any, Step], Value]] = {
    Affine: _affine,
    Binary: _binary,
    Concat: _concat,
    Index: _index,
    Repeat: _repeat,
}
