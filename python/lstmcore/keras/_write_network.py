"""Networks of any shape become functional models of Keras.

Keras is batch-first, and has a state as one array (B, H) for each layer and direction: here a value
is a list of tensors, which has one entry but for states. Steps that were moved up stay where they
are: beside such a value is its mask, which Keras's layers are called with.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .._base.checks import Array
from .._base.module import Module
from .._base.symbolic import Axes
from .._base.tree import leaves, rebuilt
from .._network import arrays, masks
from .._network.model import Model
from .._network.operations import Affine, Binary, Concat, Index, Operation, Repeat, Stack
from .._network.plan import Plan, Step
from .._network.symbol import Input
from .._nn.activations import Activation
from .._nn.embedding import Embedding
from .._nn.pooling import BothEnds, LastStep, MeanPool
from .._nn.time_reversal import Flip
from ._model import major
from ._write import Writer, check, inexpressible
from ._write_attention import ATTENTION, check_attention, layers_of, write_attention

__all__ = ["unfolded", "write_network"]

Value = list[Any]


def unfolded(module: Any) -> Any:
    """Return a chain that begins with a network as one network of all; else the module."""
    first, *others = (part for _, part in module._chain())
    if module._network is not None or first._network is None or not others:
        return module
    axes, dtype = first._network.given[0]
    x = Input(
        axes.features, steps=axes.steps, ids=axes.features is None, dtype=dtype, inner=axes.inner
    )
    return Model(x, module(x))


def write_network(keras: Any, model: Any) -> Any:
    """Return the functional model for a model of ours that is no chain."""
    version = major(keras.__version__, "keras")
    if version < 3:
        raise ValueError("networks that are no chain are written to Keras 3, and this is Keras 2")
    for module in model._children.values():
        if type(module) in ATTENTION:
            check_attention(module)
            continue
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
        self.masks: dict[int, Any] = {}  # of values whose steps were moved up
        # The layers of each module, which its calls share, and their weights.
        self._layers: dict[int, list[tuple[Any, list[Array]]]] = {}
        self._steps: dict[int, list[Step]] = {}  # the calls of each module
        self._steps_of = _known_steps(self.plan)
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
        steps: tuple[int | None, ...] = (self._steps_of.get(slot),) * axes.steps
        names = self.plan.names
        inputs = self.plan.inputs
        by_key = isinstance(inputs, dict) and len(inputs) == len(names)
        name = (list(inputs) if by_key else self.plan.input_names or names)[slot]
        name = name if isinstance(name, str) and name.isidentifier() else None
        steps = (*steps, *axes.inner)
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
        if isinstance(module, Operation) and kind not in _OPERATIONS:
            raise inexpressible(module)
        if kind in _OPERATIONS:
            self.values[step.outs[0]] = _OPERATIONS[kind](self, module, step)
            if kind.__name__ not in masks.OPERATIONS:
                self._keep_mask(step)
            return set()
        if step.place is not None and not step.past:
            return self._recurrent(step)
        if kind in ATTENTION:
            self._attention(step)
            return set()
        (x,) = self.values[step.xs[0] or 0]
        mask = self.masks.get(step.xs[0] or 0)
        if mask is not None:
            x = self._masked(step, x, mask)
        elif kind is Activation and module.name in ("absolute", "square"):
            x = getattr(self.keras.ops, module.name)(x)
        elif kind is LastStep:
            x = x[:, -1]
        elif kind is Flip:
            x = self.keras.ops.flip(x, axis=1)
        elif kind is BothEnds:
            raise inexpressible(module, "it has to be all that takes a bidirectional layer's y")
        else:
            given = {} if kind is not MeanPool else self._mask_of(step.xs[0] or 0)
            for layer, _ in self._made(module):
                x = layer(x, **given)
        self.values[step.outs[0]] = [x]
        return set()

    def _mask_of(self, slot: int) -> dict[str, Any]:
        """Return the mask that a layer of Keras is called with.

        Where steps were not taken out, one that Keras hands on beside a tensor is overlooked.
        """
        mask, x = self.masks.get(slot), self.values[slot][0]
        if mask is None and getattr(x, "_keras_mask", None) is not None:
            there = self.keras.ops.ones_like(x, dtype="bool")
            mask = self.keras.ops.any(there, axis=-1)
        return {} if mask is None else {"mask": mask}

    def _attention(self, step: Step) -> None:
        module: Any = step.module
        query, key, value = (slot or 0 for slot in step.xs)
        given = [self.values[slot][0] for slot in (query, key, value)]
        moved = self.masks.get(query)
        alike = moved is None or (module.causal and moved is self.masks.get(key))
        if not alike or (value in self.masks) != (key in self.masks):
            raise inexpressible(module, "masked steps were taken out before it, of keys not alone")
        if id(module) not in self._layers:
            size = self.plan.axes[query].features or 1
            self._layers[id(module)] = layers_of(self.keras, module, size, self.dtype)
        made = self._layers[id(module)]
        mask, weights = self._mask_of(key).get("mask"), step.outs[1] in self._users
        found = write_attention(self.keras, module, made, given, (moved, mask), weights)
        self.values |= {slot: [one] for slot, one in zip(step.outs, found, strict=False)}
        if moved is not None:
            self.masks[step.outs[0]] = moved

    def _masked(self, step: Step, x: Any, mask: Any) -> Any:
        """Write a call with steps that were moved up, which stay where they are in Keras."""
        kind = type(step.module)
        if kind is MeanPool:
            ((layer, _),) = self._made(step.module)
            return layer(x, mask=mask)
        if kind is Flip:
            mask, x = (self.keras.ops.flip(one, axis=1) for one in (mask, x))
        elif kind is Embedding or not step.module._knows_time:  # each step by itself
            for layer, _ in self._made(step.module):
                x = layer(x)
        else:
            raise inexpressible(step.module, "masked steps were taken out before it")
        self.masks[step.outs[0]] = mask
        return x

    def _keep_mask(self, step: Step) -> None:
        """Give y the mask of what an operation takes, if it has one."""
        found = [self.masks.get(slot) for slot in step.xs if slot is not None]
        one = next((mask for mask in found if mask is not None), None)
        if one is None:
            return
        each = isinstance(step.module, (Affine, Binary, Concat, Index))
        if not each or any(mask is not one for mask in found):
            raise inexpressible(step.module, "masked steps were taken out before it")
        self.masks[step.outs[0]] = one

    def _made(
        self, module: Any, *after: Module, states: bool = False
    ) -> list[tuple[Any, list[Array]]]:
        """Return the layers of a module, and of the pooling after it, with their weights."""
        if id(module) not in self._layers:
            parts = [module, *after]
            slot = self._steps[id(module)][0].xs[0] or 0
            steps = self.plan.axes[slot].steps
            writer = Writer(self.keras, self._version, parts, self.dtype, states, steps)
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
        mask = self.masks.get(step.xs[0] or 0)
        given = self._mask_of(step.xs[0] or 0)
        initial, final = self._initial(step), []
        for layer, weights in made:
            if not weights:  # the dropout between layers
                x = layer(x)
                continue
            if mask is not None and self._fills_zeros(step):
                layer.zero_output_for_mask = True
            x = layer(x, initial_state=initial.pop(0), **given) if initial else layer(x, **given)
            if states:
                x, *parts = x
                final.append(parts)
        self._keep_states(step, final)
        if module.reverse and after is None:
            x = self.keras.ops.flip(x, axis=1)  # to where its inputs stand
        mine = next((pool for pool in pools if pool.xs[0] == step.outs[0]), None)
        y = step.outs[0] if mine is None else mine.outs[0]
        self.values[y] = [x]
        if mask is not None and mine is None:
            self.masks[y] = mask
        return set() if mine is None else {y}

    def masking_of(self, step: Step) -> Any:
        """Return the Masking layer for the product of a value and of its mask, if it is that.

        Of a value and another mask it is "mask".
        """
        by_mask = [one for one in self.plan.steps if step.xs[1] in one.outs]
        module = by_mask[0].module if by_mask else None
        if not isinstance(module, (masks.Valid, masks.Either)):
            return None
        if isinstance(module, masks.Valid) and by_mask[0].xs == step.xs[:1]:
            return self.keras.layers.Masking(module._given[0], dtype=self.dtype)
        return "mask"

    def _fills_zeros(self, step: Step) -> bool:
        """Whether outputs of masked steps are zeros, and not those before them."""
        users = [user.module for user in self._users.get(step.outs[0], []) if user is not None]
        return any(isinstance(m, masks.Spread) and m._given[0] == "zero" for m in users)

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


def _known_steps(plan: Plan) -> dict[int, int]:
    """Return how many steps inputs have, as far as modules say that need to know."""
    source = {slot: slot for slot, (axes, _) in enumerate(plan.given) if axes.steps}
    found: dict[int, int] = {}

    def learn(slot: int | None, size: Any) -> None:
        if slot in source and size is not None:
            found[source[slot]] = size

    for step in plan.steps:
        module = step.module
        given: Any = getattr(module, "given", None) or ()
        if len(given) > 1:
            learn(step.xs[0], given[0])
        options: Any = getattr(module, "_given", None)
        if isinstance(module, arrays.Dot) and options[:2] == (2, 2):
            for slot, size in zip(step.xs, options[-1], strict=False):
                learn(slot, size)
        along = [source[slot] for slot in step.along if slot in source]
        if along and not module._changes_lengths:
            source |= dict.fromkeys(step.timed, along[0])
    return found


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
    masking = w.masking_of(step)
    if masking == "mask":
        (x,), (mask,) = _given(w, step)
        there = w.keras.ops.expand_dims(w.keras.ops.cast(mask, w.dtype), -1)
        return [w.keras.ops.multiply(x, there)]
    if masking is not None:  # what is masked becomes 0
        return [masking(one) for one in _given(w, step)[0]]
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


def _stack(w: _NetworkWriter, module: Stack, step: Step) -> Value:
    return [part for (part,) in _given(w, step)]


# Along axes ---------------------------------------------------------------------------------------


def _softmax_over(w: _NetworkWriter, module: arrays.SoftmaxOver, step: Step) -> Value:
    ((x,),) = _given(w, step)
    return [w.keras.ops.softmax(x, axis=module._given[0])]


def _reduce(w: _NetworkWriter, module: arrays.Reduce, step: Step) -> Value:
    ((x,),) = _given(w, step)
    kind, axis, keep, *_ = module._given
    return [getattr(w.keras.ops, kind)(x, axis=axis, keepdims=keep)]


def _dot(w: _NetworkWriter, module: arrays.Dot, step: Step) -> Value:
    (a,), (b,) = _given(w, step)
    return [w.keras.layers.Dot(tuple(module._given[:2]), dtype=w.dtype)([a, b])]


def _unit_length(w: _NetworkWriter, module: arrays.UnitLength, step: Step) -> Value:
    axis, least, more = module._given[:3]
    if (least, more) != (1e-6, 0.0):
        raise inexpressible(module, "its UnitNormalization is by the length, at least 1e-6")
    ((x,),) = _given(w, step)
    return [w.keras.layers.UnitNormalization(axis, dtype=w.dtype)(x)]


def _join(w: _NetworkWriter, module: arrays.Join, step: Step) -> Value:
    parts = [one for (one,) in _given(w, step)]
    return [w.keras.layers.Concatenate(axis=module._given[0], dtype=w.dtype)(parts)]


def _take(w: _NetworkWriter, module: arrays.Take, step: Step) -> Value:
    ((x,),) = _given(w, step)
    return [x[module._key]]


def _extreme(w: _NetworkWriter, module: arrays.Extreme, step: Step) -> Value:
    (a,), (b,) = _given(w, step)
    kind = getattr(w.keras.layers, module._given[0].capitalize())
    return [kind(dtype=w.dtype)([a, b])]


# Masks --------------------------------------------------------------------------------------------


def _valid(w: _NetworkWriter, module: masks.Valid, step: Step) -> Value:
    ((x,),) = _given(w, step)
    there = w.keras.ops.not_equal(x, module._given[0])
    ids = w.plan.axes[step.xs[0] or 0].features is None
    return [there if ids else w.keras.ops.any(there, axis=-1)]


def _either(w: _NetworkWriter, module: masks.Either, step: Step) -> Value:
    (a,), (b,) = _given(w, step)
    return [w.keras.ops.logical_or(a, b)]


def _compact(w: _NetworkWriter, module: masks.Compact, step: Step) -> Value:
    x, (mask,) = _given(w, step)
    w.masks[step.outs[0]] = mask
    return x


def _unmoved(w: _NetworkWriter, module: Module, step: Step) -> Value:
    return _given(w, step)[0]


_OPERATIONS: dict[type[Module], Callable[[_NetworkWriter, Any, Step], Value]] = {
    Affine: _affine,
    Binary: _binary,
    Concat: _concat,
    Index: _index,
    Repeat: _repeat,
    Stack: _stack,
    arrays.Dot: _dot,
    arrays.Extreme: _extreme,
    arrays.Join: _join,
    arrays.Reduce: _reduce,
    arrays.SoftmaxOver: _softmax_over,
    arrays.Take: _take,
    arrays.UnitLength: _unit_length,
    masks.Compact: _compact,
    masks.Either: _either,
    masks.Marked: _unmoved,
    masks.Spread: _unmoved,
    masks.Valid: _valid,
}
