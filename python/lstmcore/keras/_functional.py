"""Functional models of Keras that are no chain of layers become networks of ours.

A mask goes through a chain alone: here every layer that masks, or is given a mask, is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import reduce
from typing import Any, NamedTuple

from .._base.checks import describe
from .._base.module import Module
from .._network.model import Model
from .._network.operations import Index
from .._network.symbol import Input, Symbol, concat, repeat
from .._nn.pooling import BothEnds, LastStep
from .._nn.time_reversal import Flip
from . import _model
from ._chain import Chain, freeze
from ._layer import KerasLayer, name_of
from ._recurrent import LAYERS, both_directions, direction, make

__all__ = ["import_model"]

_MOST = 2000  # calls

Key = tuple[str, int, int]  # of a tensor: the layer, its call, which of what that gives


def import_model(source: _model.Source, name: str | None = None) -> Module:
    """Return our modules for a model, or for the layer of that name by itself."""
    if name is None and _is_network(source.model):
        return _Network(source).model()
    return _model.import_model(source, name)


def _is_network(model: Any) -> bool:
    """Whether it is a functional model of Keras 3 that is no chain, as far as can be seen."""
    layers = {name_of(layer): layer for layer in _model.layers_of(model)}
    if model["class_name"] == "Sequential":
        return False
    nodes = {name: layer.get("inbound_nodes") or [] for name, layer in layers.items()}
    if not all(
        isinstance(calls, list) and all(isinstance(node, dict) for node in calls)
        for calls in nodes.values()
    ):
        return False
    ends = [_keys(model["config"].get(which)) for which in ("input_layers", "output_layers")]
    if any(len(end) != 1 for end in ends):
        return True
    (first,), (at,) = ends
    for _ in layers:
        if at == first or at[0] not in layers:
            return False
        calls = nodes[at[0]]
        if at[1:] != (0, 0) or len(calls) != 1 or layers[at[0]]["class_name"] in _OPERATIONS:
            return True
        args, kwargs = calls[0].get("args"), calls[0].get("kwargs")
        if not isinstance(args, list) or not isinstance(kwargs, dict):
            return False
        found = _keys(args)
        others = any(one is not None for one in args[1:])
        if len(found) != 1 or others or kwargs.get("initial_state"):
            return True
        at = found[0]
    return False  # a circle, which the reader of chains refuses


def _keys(tree: Any) -> list[Key]:
    """Return the tensors in a structure, as they were written down."""
    return [one for one in _leaves(_parsed(tree)) if isinstance(one, tuple)]


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, (list, dict)):
        for part in tree.values() if isinstance(tree, dict) else tree:
            yield from _leaves(part)
    else:
        yield tree


def _parsed(tree: Any) -> Any:
    """Return a structure with tuples for its tensors, lists for lists, and the rest as it is."""
    if isinstance(tree, dict):
        kind, config = tree.get("class_name"), tree.get("config")
        if kind == "__keras_tensor__" and isinstance(config, dict):
            return _parsed(config.get("keras_history"))
        if kind == "__slice__" and isinstance(config, dict):
            return slice(*(config.get(name) for name in ("start", "stop", "step")))
        if kind == "__ellipsis__":
            return ...
        return {name: _parsed(part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        parts = list(tree)
        if len(parts) == 3 and isinstance(parts[0], str):
            if all(isinstance(n, int) and not isinstance(n, bool) for n in parts[1:]):
                return parts[0], parts[1], parts[2]
            raise ValueError(f"{describe(tree)} stands where a tensor should")
        return [_parsed(part) for part in parts]
    return tree


class _Column(NamedTuple):
    """(B, 1, F) of (B, F), which the product with ones repeats over the steps."""

    of: Symbol


class _Ones(NamedTuple):
    """Ones with the steps of a value."""

    like: Symbol


class _Zeros(NamedTuple):
    """Zeros, as an initial state."""


class _Recurrent(NamedTuple):
    """A recurrent layer, and what stands around it."""

    before: list[Module]
    layer: Any
    after: list[Module]
    gives_state: bool


class _Network:
    """Calls our modules with symbols as the model calls its layers."""

    def __init__(self, source: _model.Source) -> None:
        self._source = source
        self._config = source.model["config"]
        self._layers = {name_of(layer): layer for layer in _model.layers_of(source.model)}
        self._values: dict[Key, Any] = {}
        self._made: dict[str, _Recurrent | list[Module]] = {}
        self._modules: list[Module] = []

    def model(self) -> Module:
        """Return the network."""
        calls = self._calls()
        ids = {
            key[0]
            for name, _, args, _ in calls
            if self._layers[name]["class_name"] == "Embedding"
            for key in _leaves(args)
            if isinstance(key, tuple)
        }
        for name, layer in self._layers.items():
            if not layer.get("inbound_nodes"):
                self._values[name, 0, 0] = self._input(name, layer, name in ids)
        while calls:
            waiting = [call for call in calls if not self._try(*call)]
            if len(waiting) == len(calls):
                raise ValueError(f"the layer {waiting[0][0]!r} takes what nothing gives before it")
            calls = waiting
        ends = (self._structure(which) for which in ("input_layers", "output_layers"))
        return Model(*ends)

    def _calls(self) -> list[tuple[str, int, list[Any], dict[str, Any]]]:
        """Return all calls: the layer, the number of the call, positional and keyword arguments."""
        calls = []
        for name, layer in self._layers.items():
            for number, node in enumerate(layer.get("inbound_nodes") or []):
                args = _parsed(node.get("args"))
                kwargs = _parsed(node.get("kwargs") or {})
                if not isinstance(args, list) or not args or not isinstance(kwargs, dict):
                    raise ValueError(f"the layer {name!r} is called in a way that is not known")
                kwargs = {k: v for k, v in kwargs.items() if v is not None and k != "training"}
                if "mask" in kwargs:
                    raise ValueError(
                        f"the layer {name!r} is given a mask, which is imported in chains of "
                        "layers only"
                    )
                calls.append((name, number, args, kwargs))
        if len(calls) > _MOST:
            raise ValueError(f"the model has {len(calls)} calls, expected {_MOST} at most")
        return calls

    def _structure(self, which: str) -> Any:
        """Return the symbols where the model starts or ends, in its structure."""

        def symbols(tree: Any) -> Any:
            if isinstance(tree, dict):
                return {name: symbols(part) for name, part in tree.items()}
            if isinstance(tree, list):
                return tuple(map(symbols, tree))
            if not isinstance(tree, tuple) or tree not in self._values:
                raise ValueError(f"the model has {which}={describe(tree)}, which nothing gives")
            return _symbol(self._values[tree], f"{which} of the model")

        ends = _parsed(self._config.get(which))
        return symbols(ends[0] if isinstance(ends, list) and len(ends) == 1 else ends)

    def _input(self, name: str, layer: Any, ids: bool) -> Input:
        if layer["class_name"] != "InputLayer":
            raise ValueError(f"the layer {name!r} is never called, which is not imported")
        config = layer["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        rank = len(shape) if isinstance(shape, (list, tuple)) else 0
        if config.get("ragged") or config.get("sparse"):
            raise ValueError(f"the input {name!r} is ragged or sparse, which is not imported")
        if ids and rank in (1, 2):
            return Input(ids=True, steps=rank == 2)
        if not ids and rank in (2, 3) and isinstance(shape[-1], int):
            return Input(shape[-1], steps=rank == 3)
        raise ValueError(
            f"the input {name!r} has shape {describe(shape)}, expected (batch, time, features), "
            "(batch, features), or ids"
        )

    # Calls ----------------------------------------------------------------------------------------

    def _try(self, name: str, number: int, args: list[Any], kwargs: dict[str, Any]) -> bool:
        """Make a call if all that it takes is there."""
        needed = [key for key in _leaves([args, kwargs]) if isinstance(key, tuple)]
        if not all(key in self._values for key in needed):
            return False

        def filled(tree: Any) -> Any:
            if isinstance(tree, tuple):
                return self._values[tree]
            return [filled(part) for part in tree] if isinstance(tree, list) else tree

        args = filled(args)
        state = filled(kwargs.pop("initial_state", None))
        layer = self._layers[name]
        if kwargs:
            raise ValueError(f"the layer {name!r} is called with {', '.join(kwargs)}, which is not "
                             "imported")  # fmt: skip
        try:
            made = self._call(layer, args, state)
        except (TypeError, ValueError) as error:
            if repr(name) in str(error):
                raise
            raise ValueError(f"the layer {name!r}: {error}") from error  # of what does not fit
        self._values |= {(name, number, i): one for i, one in enumerate(made)}
        return True

    def _call(self, layer: Any, args: list[Any], state: Any) -> list[Any]:
        """Return all that a call gives."""
        kind, name = layer["class_name"], name_of(layer)
        if kind in _OPERATIONS:
            read = KerasLayer(layer, [], self._source.version)
            given = args[0] if len(args) == 1 and isinstance(args[0], list) else args
            made = _OPERATIONS[kind](read, given)
            read.close()
            return [made]
        if len(args) != 1 or isinstance(args[0], list):
            raise ValueError(f"the layer {name!r} is called with more than one input")
        x = _symbol(args[0], f"the input of {name!r}")
        if name not in self._made:
            self._made[name] = self._make(layer, x.axes.steps)
        made = self._made[name]
        if isinstance(made, _Recurrent):
            return _run(made, x, state, name)
        if state is not None:
            raise ValueError(f"the layer {name!r} is called with initial_state")
        for module in made:
            x = module(x)
            x = x[0] if module._gives_state else x
        return [x]

    def _make(self, layer: Any, has_steps: bool) -> _Recurrent | list[Module]:
        """Return our modules for a layer, which its calls share."""
        name = name_of(layer)
        weights = list(self._source.weights(name))
        made: _Recurrent | list[Module]
        if layer["class_name"] in (*LAYERS, "RNN", "Bidirectional"):
            if not has_steps:
                raise ValueError(f"the layer {name!r} needs time steps, and its input has none")
            read = KerasLayer(layer, weights, self._source.version)
            made = _recurrent(read)
            if not read.trainable:
                freeze([made.layer])
        else:
            chain = Chain(has_steps)
            _model.add_to(chain, layer, weights, self._source.version)
            if chain.masks:
                raise ValueError(
                    f"the layer {name!r} masks steps, which is imported in chains of layers only"
                )
            made = chain.modules
        _model.check_taken(f"the layer {name!r}", weights)
        return made


def _symbol(value: Any, where: str) -> Symbol:
    if not isinstance(value, Symbol):
        raise ValueError(f"{where} is {describe(value)}, which is not imported there")
    return value


# Recurrent layers ---------------------------------------------------------------------------------


def _recurrent(layer: KerasLayer) -> _Recurrent:
    gives_state = False
    if layer.kind == "Bidirectional":
        inside = layer.config.get("layer")
        gives_state = bool(isinstance(inside, dict) and inside["config"].get("return_state"))
        forward, reverse, merge = both_directions(layer)
        _check(layer, forward.options)
        if forward.sequences:
            return _Recurrent([], make(forward, reverse, merge=merge), [], gives_state)
        pool: list[Module] = [BothEnds(merge, batch_first=True)]
        return _Recurrent([], make(forward, reverse), pool, gives_state)
    gives_state = layer.flag("return_state", False)
    only = direction(layer)
    _check(layer, only.options)
    before: list[Module] = [Flip(batch_first=True)] if only.backwards else []
    after: list[Module] = [] if only.sequences else [LastStep(batch_first=True)]
    return _Recurrent(before, make(only), after, gives_state)


def _check(layer: KerasLayer, options: dict[str, Any]) -> None:
    if not options["batch_first"]:
        raise layer.error("has time_major=True, which is imported for a layer alone only")


def _run(made: _Recurrent, x: Any, state: Any, name: str) -> list[Any]:
    layer = made.layer
    for module in made.before:
        x = module(x)
    y, final = layer(x, None if state is None else _initial(layer, state, name))
    for module in made.after:
        y = module(y)
    if not made.gives_state:
        return [y]
    parts = final if isinstance(final, tuple) else (final,)
    return [y, *(part[i] for i in range(1 + layer.bidirectional) for part in parts)]


def _initial(layer: Any, state: Any, name: str) -> Any:
    """Return the initial state, whose parts are (B, H) for each direction in Keras."""
    given = state if isinstance(state, list) else [state]
    count = len(layer._state_parts)
    if len(given) != count * (1 + layer.bidirectional):
        raise ValueError(
            f"the layer {name!r} is called with an initial_state of {len(given)} parts, expected "
            f"{count * (1 + layer.bidirectional)}"
        )
    parts = tuple(_stacked(given[i::count], name) for i in range(count))
    return parts if len(parts) > 1 else parts[0]


def _stacked(parts: list[Any], name: str) -> Any:
    """Return (D, B, H) of (B, H) for every direction, which may be parts of just that."""
    if all(isinstance(part, _Zeros) for part in parts):
        return None
    parts = [_symbol(part, f"a state of {name!r}") for part in parts]
    calls = [part.call for part in parts]
    if all(call is not None and isinstance(call.module, Index) for call in calls):
        taken = [(call.args[0], *call.module._given) for call in calls]
        whole = taken[0][0]
        if whole.axes.states == len(parts) and taken == [
            (whole, "layer", i) for i in range(len(parts))
        ]:
            return whole
    if len(parts) > 1:
        raise ValueError(
            f"the layer {name!r} has an initial_state of two directions, which is imported only "
            "if it is the final state of such a layer"
        )
    return parts[0][None]


# What stands between layers -----------------------------------------------------------------------


def _sum(layer: KerasLayer, x: list[Any]) -> Any:
    return reduce(lambda a, b: a + b, _values(layer, x))


def _difference(layer: KerasLayer, x: list[Any]) -> Any:
    a, b = _values(layer, x, 2)
    return a - b


def _product(layer: KerasLayer, x: list[Any]) -> Any:
    kinds = [type(one) for one in x]
    if kinds == [_Column, _Ones]:
        return repeat(x[0].of, like=x[1].like)
    if kinds == [_Ones, _Column]:
        return repeat(x[1].of, like=x[0].like)
    return reduce(lambda a, b: a * b, _values(layer, x))


def _quotient(layer: KerasLayer, x: list[Any]) -> Any:
    a, b = _values(layer, x, 2)
    if isinstance(b, Symbol) or not b:
        raise layer.error("divides by something else than a number, which is not imported")
    return a * (1 / b)


def _mean(layer: KerasLayer, x: list[Any]) -> Any:
    return _sum(layer, x) * (1 / len(x))


def _negative(layer: KerasLayer, x: list[Any]) -> Any:
    return -_values(layer, x, 1)[0]


def _rescaled(layer: KerasLayer, x: list[Any]) -> Any:
    (value,) = _values(layer, x, 1)
    scale, offset = layer.number("scale", 1.0), layer.number("offset", 0.0)
    value = value * scale if scale != 1 else value
    return value + offset if offset else value


def _concatenated(layer: KerasLayer, x: list[Any]) -> Any:
    x = [_symbol(one, f"an input of {layer.where}") for one in x]
    axis = layer.get("axis", -1)
    if axis not in (-1, 1 + x[0].axes.steps):
        raise layer.error(f"has axis={axis!r}, expected that of the features")
    return concat(x)


def _part(layer: KerasLayer, x: list[Any]) -> Any:
    """Return features, or the last step."""
    value, key = x if len(x) == 2 else (None, None)
    value = _symbol(value, f"the input of {layer.where}")
    key = key if isinstance(key, list) else [key]
    steps, every = value.axes.steps, slice(None)
    if steps and key in ([every, -1], [every, -1, every]):
        return LastStep(batch_first=True)(value)
    axes = [...] if key[:1] == [...] else [every] * (1 + steps)
    if key[:-1] == axes and isinstance(key[-1], slice):
        return value[..., key[-1]]
    raise layer.error(f"takes {key}, which is not imported: features and the last step are")


def _flipped(layer: KerasLayer, x: list[Any]) -> Any:
    value = _symbol(x[0], f"the input of {layer.where}")
    axis = layer.get("axis")
    if value.axes.steps and axis in (1, -2):
        return Flip(batch_first=True)(value)
    if axis in (-1, 1 + value.axes.steps):
        return value[..., ::-1]
    raise layer.error(f"has axis={axis!r}, expected that of the steps or of the features")


def _column(layer: KerasLayer, x: list[Any]) -> Any:
    value = _symbol(x[0], f"the input of {layer.where}")
    if value.axes.steps or value.axes.features is None or layer.get("axis") != 1:
        raise layer.error("is imported only as a time axis of what has none")
    return _Column(value)


def _ones(layer: KerasLayer, x: list[Any]) -> Any:
    value = _symbol(x[0], f"the input of {layer.where}")
    if not value.axes.steps or layer.get("dtype") is not None:
        raise layer.error("is imported only of what has time steps, in its own dtype")
    return _Ones(_source_of_part(value))


def _source_of_part(x: Symbol) -> Symbol:
    """Return what features were taken from, which has the same steps."""
    call = x.call
    if call is not None and isinstance(call.module, Index) and call.module._given[0] == "features":
        source: Symbol = call.args[0]
        return source
    return x


def _zeros(layer: KerasLayer, x: list[Any]) -> Any:
    layer.get("dtype")
    return _Zeros()


def _values(layer: KerasLayer, x: list[Any], count: int | None = None) -> list[Any]:
    """Return symbols and numbers, at least one of them a symbol."""
    fits = count is None or len(x) == count
    known = all(
        isinstance(one, (Symbol, int, float)) and not isinstance(one, bool) for one in x
    ) and any(isinstance(one, Symbol) for one in x)
    if not fits or not known:
        raise layer.error(f"is called with {describe(x)}, which is not imported")
    return x


_OPERATIONS: dict[str, Callable[[KerasLayer, list[Any]], Any]] = {
    "Add": _sum,
    "Average": _mean,
    "Concatenate": _concatenated,
    "ExpandDims": _column,
    "Flip": _flipped,
    "GetItem": _part,
    "Multiply": _product,
    "Negative": _negative,
    "OnesLike": _ones,
    "Rescaling": _rescaled,
    "Subtract": _difference,
    "TrueDivide": _quotient,
    "ZerosLike": _zeros,
}
