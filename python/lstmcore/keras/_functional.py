"""Models of Keras that are no chain of modules become networks of ours.

Calls of layers become calls of modules with symbols. Beside each symbol goes the mask that Keras
sends along: a layer that passes over masked steps gets them taken out (`Compact`), and its outputs
are put back to where they belong (`Spread`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from .._base.checks import describe
from .._base.module import Module
from .._network.arrays import Join, PadSame
from .._network.masks import Compact, Either, Marked, Spread, Valid
from .._network.model import Model
from .._network.operations import Index, Stack
from .._network.symbol import Input, Symbol, concat
from .._nn.embedding import Embedding
from .._nn.pooling import BothEnds, LastStep
from .._nn.sequential import Sequential
from .._nn.time_reversal import Flip
from .._shapes.each_step import EachStep
from . import _model
from ._attention import ATTENTION
from ._between import OPERATIONS
from ._chain import KINDS, Chain, not_imported, shape_after
from ._layer import FUNCTIONAL, KerasLayer, NoChain, freeze, layers_of, name_of, unstacked
from ._recurrent import LAYERS, both_ways, direction, make
from ._value import Atoms, MaskOf, Scores, Value, Zeros, value_of

__all__ = ["import_model"]

_MOST = 2000  # calls
_DEPTH = 16  # of models in models
_MODELS = ("Sequential", *FUNCTIONAL)
_RECURRENT = (*LAYERS, "RNN", "Bidirectional")

# Layers that leave the mask that comes with their input on their output; others lose it.
_KEEP_MASK = frozenset({
    "Activation", "ActivityRegularization", "AlphaDropout", "BatchNormalization", "Dense",
    "Dropout", "ELU", "GaussianDropout", "GaussianNoise", "Identity", "LayerNormalization",
    "LeakyReLU", "Normalization", "PReLU", "ReLU", "Rescaling", "Softmax", "SpatialDropout1D",
    "TimeDistributed",
})  # fmt: skip

Key = tuple[str, int, int]  # of a tensor: the layer, its call, which of what that gives


def import_model(source: _model.Source, name: str | None = None) -> Module:
    """Return our modules for a model, or for the layer of that name by itself."""
    if name is not None:
        return _model.import_model(source, name)
    try:
        if _is_network(source.model):
            return _Network(source).model()
        try:
            return _model.import_model(source)
        except NoChain:
            return _Network(source).model()
    except ValueError as error:
        raise ValueError(f"{error}{_hint(source, str(error))}") from error


def _hint(source: _model.Source, error: str) -> str:
    """Return which layers of a model that is refused can be had alone, but for the refused one."""
    names = [name_of(layer) for layer in layers_of(source.model) if _has_weights(layer)]
    names = [name for name in names if f"layer {name!r} " not in error]
    shown = ", ".join(map(repr, names[:20])) + (", ..." if len(names) > 20 else "")
    return f". What can be had alone: layer={shown}" if names else ""


def _has_weights(layer: Any) -> bool:
    plain = {"Embedding", "Dense", "Conv1D", "LayerNormalization", "BatchNormalization"}
    return layer["class_name"] in {*_RECURRENT, *plain}


def _is_network(model: Any) -> bool:
    """Whether it is a functional model that is no chain, as far as can be seen."""
    layers = {name_of(layer): layer for layer in layers_of(model)}
    if model["class_name"] == "Sequential":
        kinds = {layer["class_name"] for layer in layers.values()}
        return bool(kinds & (set(OPERATIONS) - set(KINDS)))
    nodes = {name: layer.get("inbound_nodes") or [] for name, layer in layers.items()}
    if not all(isinstance(calls, list) for calls in nodes.values()):
        return False
    ends = [_keys(model["config"].get(which)) for which in ("input_layers", "output_layers")]
    if any(len(end) != 1 for end in ends):
        return bool(ends[0]) and bool(ends[1])
    (first,), (at,) = ends
    for _ in layers:
        if at == first or at[0] not in layers:
            return False
        calls = nodes[at[0]]
        kind = layers[at[0]]["class_name"]
        between = (kind in OPERATIONS or kind in ATTENTION) and kind not in KINDS
        if at[1:] != (0, 0) or len(calls) != 1 or between or _is_operation(layers[at[0]]):
            return True
        call = _arguments(at[0], kind, calls[0])
        if call is None:
            return False
        args, kwargs = call
        found = _keys(args)
        others = any(one is not None for one in args[1:])
        if len(found) != 1 or others or kwargs.get("initial_state"):
            return True
        at = found[0]
    return False  # a circle, which the reader of chains refuses


def _is_operation(layer: Any) -> bool:
    """Whether it is a function of Keras and no layer, which may have the same name."""
    return str(layer.get("module", "")).startswith("keras.src.ops")


def _arguments(name: str, kind: str, node: Any) -> tuple[list[Any], dict[str, Any]] | None:
    """Return the arguments of a call as Keras 3 or Keras 2 has written them; None if neither."""
    if isinstance(node, dict):  # Keras 3
        args, kwargs = node.get("args"), node.get("kwargs") or {}
    elif isinstance(node, list) and node and all(isinstance(one, list) for one in node):
        # [[layer, call, output, kwargs], ...]
        kwargs = node[0][3] if len(node[0]) > 3 else {}
        args = [one[:3] for one in node]
        if kind in _RECURRENT and len(args) > 1:
            kwargs = {**kwargs, "initial_state": args[1:]} if isinstance(kwargs, dict) else None
            args = args[:1]
        args = args if len(args) == 1 else [args]
    else:
        return None
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        return None
    return args, kwargs


def _keys(tree: Any) -> list[Key]:
    """Return the tensors in a structure, as they were written down."""
    return [one for one in _leaves(_parsed(tree)) if _is_key(one)]


def _is_key(one: Any) -> bool:
    return type(one) is tuple


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


def _is_between(layer: Any) -> bool:
    """Whether `OPERATIONS` make what the layer computes, and not modules of a chain."""
    kind, config = layer["class_name"], layer["config"]
    if kind == "Rescaling":
        return all(isinstance(config.get(n, 1), (int, float)) for n in ("scale", "offset"))
    if kind == "Softmax" and isinstance(config, dict) and config.get("axis", -1) not in (-1, [-1]):
        return True
    return kind in OPERATIONS and (_is_operation(layer) or kind not in KINDS)


class _Call(NamedTuple):
    layer: str
    number: int
    args: list[Any]
    kwargs: dict[str, Any]


class _Recurrent(NamedTuple):
    """A recurrent layer, and what stands around it."""

    before: list[Module]
    layers: list[Any]  # several of StackedRNNCells
    after: list[Module]
    gives_state: bool
    fill: str  # what Spread puts where a step is masked
    parts: int  # 2 if each direction is an output of its own


class _Apart(NamedTuple):
    """A Bidirectional layer with several layers in each direction, or two that differ."""

    layers: list[Any]  # those of the forward direction, then the others
    forward: int  # how many of them are the forward ones
    merge: str | None
    sequences: bool
    gives_state: bool


class _Network:
    """Calls our modules with symbols as the model calls its layers."""

    def __init__(
        self, source: _model.Source, depth: int = _DEPTH, count: list[int] | None = None
    ) -> None:
        if depth == 0:
            raise ValueError(f"the model has more than {_DEPTH} models in each other")
        self._source, self._depth = source, depth
        self._count = [0] if count is None else count  # of calls, with those of models inside
        self._config = source.model["config"]
        self._layers = {name_of(layer): layer for layer in layers_of(source.model)}
        self._made: dict[str, Any] = {}  # modules of a layer, or the network of a model
        self._compacted: dict[tuple[int, int], Any] = {}
        self._mask_symbols: dict[Any, Any] = {}
        if source.model["class_name"] == "Sequential":
            self._as_chain()
        else:
            self._calls = self._listed_calls()
            self._inputs, self._outputs = (
                self._ends(which) for which in ("input_layers", "output_layers")
            )

    def _as_chain(self) -> None:
        """Write a Sequential model as the calls of a functional one."""
        names = list(self._layers)
        first = self._layers[names[0]] if names else None
        if first is None or first["class_name"] != "InputLayer":
            shape = None if first is None else _first_shape(first)
            if shape is None:
                raise ValueError("the model does not say what comes in: give it an Input layer")
            name = "input of the model"
            config = {"name": name, "batch_shape": shape}
            self._layers = {name: {"class_name": "InputLayer", "config": config}, **self._layers}
            names = [name, *names]
        pairs = zip(names[1:], names, strict=False)
        self._calls = [_Call(name, 0, [(before, 0, 0)], {}) for name, before in pairs]
        self._inputs, self._outputs = (names[0], 0, 0), (names[-1], 0, 0)

    def _ends(self, which: str) -> Any:
        ends = _parsed(self._config.get(which))
        return ends[0] if isinstance(ends, list) and len(ends) == 1 else ends

    def _listed_calls(self) -> list[_Call]:
        """Return all calls: the layer, the number of the call, positional and keyword arguments."""
        calls = []
        for name, layer in self._layers.items():
            nodes = layer.get("inbound_nodes") or []
            if not isinstance(nodes, list):
                raise ValueError(f"the layer {name!r} is called in a way that is not known")
            for number, node in enumerate(nodes):
                found = _arguments(name, layer["class_name"], node)
                if found is None or not found[0]:
                    raise ValueError(f"the layer {name!r} is called in a way that is not known")
                args, kwargs = _parsed(found[0]), _parsed(found[1])
                kwargs = {k: v for k, v in kwargs.items() if v is not None and k != "training"}
                calls.append(_Call(name, number, args, kwargs))
        if len(calls) > _MOST:
            raise ValueError(f"the model has {len(calls)} calls, expected {_MOST} at most")
        return calls

    # The model ------------------------------------------------------------------------------------

    def model(self) -> Module:
        """Return the network; of a chain, what follows its last steps by themselves is beside."""
        given = self._given()
        tail = self._tail()
        values = self.run(given)
        ends = self._calls[-1 - len(tail)].layer if tail else None
        outputs = self._outputs if ends is None else (ends, 0, 0)
        symbols = _mapped(self._inputs, lambda key: self._end(given, key, "inputs"))
        made = _mapped(outputs, lambda key: self._end(values, key, "outputs"))
        network = Model(symbols, made)
        modules = [module for name in tail for module in self._made[name]]
        return Sequential(network, *modules) if modules else network

    def _end(self, values: dict[Key, Any], key: Key, which: str) -> Any:
        if key not in values:
            raise ValueError(f"the model has {which} {describe(key)}, which nothing gives")
        value = value_of(values[key], f"one of the {which} of the model")
        if value.mask is None or len(value.shape) < 2 or which == "inputs":
            return value.symbol
        return Marked()._given_symbols(value.symbol, self.mask(value.mask))

    def _given(self) -> dict[Key, Any]:
        """Return values for the inputs, each with its Input."""
        found: dict[Key, Any] = {}
        wanted = set(_leaves(self._inputs))
        for name, layer in self._layers.items():
            called = any(call.layer == name for call in self._calls)
            if called and layer["class_name"] != "InputLayer":
                continue
            if (name, 0, 0) in wanted or layer["class_name"] == "InputLayer":
                found[name, 0, 0] = self._input(name, layer)
            elif layer.get("inbound_nodes") is not None and not layer["inbound_nodes"]:
                raise ValueError(f"the layer {name!r} is never called, which is not imported")
        return found

    def _input(self, name: str, layer: Any) -> Value:
        if layer["class_name"] != "InputLayer":
            raise ValueError(f"the layer {name!r} is never called, which is not imported")
        config = layer["config"]
        shape = config.get("batch_shape") or config.get("batch_input_shape")
        rows = tuple(shape[1:]) if isinstance(shape, (list, tuple)) else None
        if config.get("ragged") or config.get("sparse"):
            raise ValueError(f"the input {name!r} is ragged or sparse, which is not imported")
        if config.get("dtype") == "bool":
            raise ValueError(f"the input {name!r} is of bools, which is not imported")
        wrong = rows is None or not all(n is None or (type(n) is int and n > 0) for n in rows)
        if not wrong and rows is not None:
            if self.wants_ids(name):
                inner = rows[1:]
                return Value(Input(ids=True, steps=len(rows) > 0, inner=inner), rows)
            if rows and rows[-1] is not None:
                inner = rows[1:-1]
                return Value(Input(rows[-1], steps=len(rows) > 1, inner=inner), rows)
        raise ValueError(
            f"the input {name!r} has shape {describe(shape)}, expected (batch, time, features), "
            "(batch, features), or ids"
        )

    def wants_ids(self, name: str) -> bool:
        """Whether an input holds ids: what takes it is an Embedding, or a comparison."""
        dtype = self._layers[name]["config"].get("dtype")
        users = {
            call.layer
            for call in self._calls
            if (name, 0, 0) in set(filter(_is_key, _leaves(call.args)))
        }
        kinds = [self._takes_ids(self._layers[user]) for user in users]
        shape = self._layers[name]["config"].get("batch_shape")
        sized = isinstance(shape, (list, tuple)) and len(shape) > 1 and shape[-1] is not None
        return any(kinds) or (str(dtype).startswith(("int", "uint")) and not sized)

    def _takes_ids(self, layer: Any) -> bool:
        kind, config = layer["class_name"], layer["config"]
        inner = config.get("layer") if isinstance(config, dict) else None
        if kind == "TimeDistributed" and isinstance(inner, dict):
            name_of(inner)
            return self._takes_ids(inner)
        if kind in _MODELS:
            network = _Network(
                _model.Source(layer, self._source.version, _no_weights), self._depth - 1
            )
            return any(network.wants_ids(key[0]) for key in _leaves(network._inputs))
        return bool(kind == "Embedding")

    def _tail(self) -> list[str]:
        """Return the layers at the end of a chain that take each step, or row, by itself."""
        found: list[str] = []
        before = self._inputs
        for call in self._calls:
            if call.args != [before] or set(call.kwargs) - {"mask"}:
                return found
            before = (call.layer, 0, 0)
        if self._outputs != before:
            return found
        for call in reversed(self._calls[1:]):
            layer = self._layers[call.layer]
            if layer["class_name"] not in _TAIL or _is_operation(layer):
                break
            found.insert(0, call.layer)
        return found

    def run(self, given: dict[Key, Any]) -> dict[Key, Any]:
        """Make all calls, and return every value."""
        values = dict(given)
        calls = self._calls
        while calls:
            waiting = [call for call in calls if not self._try(call, values)]
            if len(waiting) == len(calls):
                name = waiting[0].layer
                raise ValueError(f"the layer {name!r} takes what nothing gives before it")
            calls = waiting
        return values

    def inside(self, args: list[Any]) -> list[Any]:
        """Return what the model gives for values, in the order of its outputs."""
        keys = [key for key in _leaves(self._inputs) if _is_key(key)]
        values = list(_leaves(args))
        if len(keys) != len(values):
            raise ValueError(f"a model is called with {len(values)} inputs, expected {len(keys)}")
        made = self.run(dict(zip(keys, values, strict=True)))
        outputs = [key for key in _leaves(self._outputs) if _is_key(key)]
        missing = [key for key in outputs if key not in made]
        if missing:
            raise ValueError(f"a model has the output {missing[0]}, which nothing gives")
        return [made[key] for key in outputs]

    # Calls ----------------------------------------------------------------------------------------

    def _try(self, call: _Call, values: dict[Key, Any]) -> bool:
        """Make a call if all that it takes is there."""
        needed = [key for key in _leaves([call.args, call.kwargs]) if _is_key(key)]
        if not all(key in values for key in needed):
            return False

        def filled(tree: Any) -> Any:
            if _is_key(tree):
                return values[tree]
            if isinstance(tree, dict):
                return {name: filled(part) for name, part in tree.items()}
            return [filled(part) for part in tree] if isinstance(tree, list) else tree

        name = call.layer
        self._count[0] += 1
        if self._count[0] > _MOST:
            raise ValueError(f"the model has more than {_MOST} calls, those inside counted")
        try:
            made = self._call(self._layers[name], filled(call.args), filled(call.kwargs))
        except NoChain as error:
            raise ValueError(f"the layer {name!r}: {error}") from error
        except (TypeError, ValueError) as error:
            if repr(name) in str(error):
                raise
            raise ValueError(f"the layer {name!r}: {error}") from error  # of what does not fit
        for i, one in enumerate(made):
            values[name, call.number, i] = one
        return True

    def _call(self, layer: Any, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        """Return all that a call gives."""
        kind, name = layer["class_name"], name_of(layer)
        if kind in ATTENTION:
            return self._attention(layer, args, kwargs)
        masks = kwargs.pop("mask", None)
        state = kwargs.pop("initial_state", None)
        if kwargs:
            raise ValueError(
                f"the layer {name!r} is called with {', '.join(kwargs)}, which is not imported"
            )
        if _is_between(layer):
            read = KerasLayer(layer, [], self._source.version)
            given = args[0] if len(args) == 1 and isinstance(args[0], list) else args
            made = self._between(kind, read, given)
            read.close()
            return [made]
        if kind in _MODELS:
            return self._nested(layer).inside(args)
        if kind not in KINDS:
            raise not_imported(KerasLayer(layer, [], self._source.version))
        if len(args) != 1 or isinstance(args[0], list):
            raise ValueError(f"the layer {name!r} is called with more than one input")
        if isinstance(args[0], Scores):
            return [_weights_of(layer, args[0])]
        x = value_of(args[0], f"the input of {name!r}")
        if masks is not None:
            if not isinstance(masks, MaskOf):
                raise ValueError(
                    f"the layer {name!r} is given a mask that is no comparison with a number, "
                    "which is not imported"
                )
            x = x._replace(mask=masks.atoms)
        if kind in _RECURRENT:
            # Keras 3 hands on a mask by itself only if a layer has one tensor for its arguments.
            overlooked = state is not None and masks is None and self._source.version > 2
            made = self._recurrent(layer, x._replace(mask=None) if overlooked else x, state)
            return [one._replace(mask=x.mask) if len(one.shape) > 1 else one for one in made]
        if state is not None:
            raise ValueError(f"the layer {name!r} is called with initial_state")
        return [self._plain(layer, x)]

    def _between(self, kind: str, read: KerasLayer, given: list[Any]) -> Any:
        """Return what stands between layers; of masks beside values what `OPERATIONS` cannot."""
        values = [one for one in given if isinstance(one, Value)]
        masks = [one for one in given if isinstance(one, MaskOf)]
        if kind == "Multiply" and len(values) == len(masks) == 1 and len(given) == 2:
            (x,), (mask,) = values, masks
            made = x.symbol if mask.atoms is None else x.symbol * self.mask(mask.atoms)
            return Value(made, x.shape)
        axis = read.config.get("axis", -1)
        if kind == "Concatenate" and len(masks) == len(given) > 0:
            wide = any(mask.wide for mask in masks)
            if axis in ((1, -2) if wide else (1, -1)):
                read.get("axis")
                return MaskOf(self._behind([(one.atoms, one.like) for one in masks]), wide)
        masked = len(values) == len(given) and any(one.mask is not None for one in values)
        if kind == "Concatenate" and masked and len(values[0].shape) == 2 and axis in (1, -2):
            whole = OPERATIONS[kind](read, [one._replace(mask=None) for one in values])
            mine = [(one.mask, one) for one in values]
            return whole._replace(mask=None if read.is_function else self._behind(mine))
        return OPERATIONS[kind](read, given)

    def _plain(self, layer: Any, x: Value) -> Value:
        """Return what a layer makes that takes one value and gives one."""
        kind, name = layer["class_name"], name_of(layer)
        if kind == "Masking":
            return self._masking(layer, x)
        if name not in self._made:
            self._made[name] = self._modules(layer, x)
        masked = kind == "GlobalAveragePooling1D" and x.mask is not None
        symbol, shape = (self.compact(x) if masked else x.symbol), x.shape
        for module in self._made[name]:
            symbol, shape = module(symbol), shape_after(module, shape)
        if kind == "Embedding":
            masks = layer["config"].get("mask_zero") is True and len(x.shape) == 1
            return Value(symbol, shape, frozenset({(x.symbol, 0.0)}) if masks else None)
        return Value(symbol, shape, x.mask if kind in _KEEP_MASK else None)

    def _masking(self, layer: Any, x: Value) -> Value:
        read = KerasLayer(layer, [], self._source.version)
        number = read.number("mask_value", 0.0)
        read.close()
        mask: Atoms = frozenset({(x.symbol, number)})
        symbol = x.symbol * self.mask(mask) if number else x.symbol
        return Value(symbol, x.shape, mask)

    def _modules(self, layer: Any, x: Value) -> list[Any]:
        """Return our modules for a layer, which its calls share."""
        name = name_of(layer)
        inner = layer["config"].get("layer") if layer["class_name"] == "TimeDistributed" else None
        if isinstance(inner, dict) and inner.get("class_name") in _MODELS:
            network = self._network_of(inner, name)
            return [EachStep(network.model(), batch_first=True)]
        weights = list(self._source.weights(name))
        chain = _NetworkChain(x.shape)
        chain.read(layer, weights, self._source.version)
        _model.check_taken(f"the layer {name!r}", weights)
        return chain.modules

    def _nested(self, layer: Any) -> _Network:
        name = name_of(layer)
        if name not in self._made:
            self._made[name] = self._network_of(layer, name)
        made: _Network = self._made[name]
        return made

    def _network_of(self, model: Any, name: str) -> _Network:
        def weights(*inside: str) -> Any:
            return self._source.weights(name, *inside)

        source = _model.Source(model, self._source.version, weights)
        return _Network(source, self._depth - 1, self._count)

    def _attention(self, layer: Any, args: list[Any], kwargs: dict[str, Any]) -> list[Any]:
        name = name_of(layer)
        weights = list(self._source.weights(name)) if name not in self._made else []
        read = KerasLayer(layer, weights, self._source.version)
        kind = ATTENTION[layer["class_name"]]
        kwargs = dict(kwargs)
        causal = kwargs.pop("use_causal_mask", False) is True
        arguments = kind.arguments(read, args, kwargs)
        if name not in self._made:
            self._made[name] = kind(read, *(value.shape[-1] for value in arguments), causal)
            read.close()
            _model.check_taken(f"the layer {name!r}", weights)
            if not read.trainable:
                freeze(self._made[name].modules)
        if self._made[name].causal != causal:
            raise read.error("is called with and without use_causal_mask, which is not imported")
        made: list[Any] = self._made[name].call(self, *arguments)
        return made

    # Masks ----------------------------------------------------------------------------------------

    def mask(self, atoms: Atoms) -> Any:
        """Return the symbol of a mask."""
        if atoms not in self._mask_symbols:
            parts = [
                symbol if value is None else Valid(value)._given_symbols(symbol)
                for symbol, value in sorted(atoms, key=lambda a: (id(a[0]), a[1] or 0.0))
            ]
            made = parts[0]
            for part in parts[1:]:
                made = Either()._given_symbols(made, part)
            self._mask_symbols[atoms] = made
        return self._mask_symbols[atoms]

    def _behind(self, masks: Sequence[tuple[Atoms | None, Value | None]]) -> Atoms:
        """Return the mask of steps behind each other; where there is none, all of a value."""
        there = []
        for atoms, like in masks:
            if atoms is None and like is None:
                raise ValueError("masks behind each other are imported of tensors that are known")
            known = frozenset({(like.symbol * 0.0, 1.0)}) if atoms is None and like else atoms
            there.append(self.mask(known or frozenset()))
        joined = Join(1, [2] * len(there), [None, 1])._given_symbols(*there)
        return frozenset({(joined, None)})

    def compact(self, x: Value) -> Any:
        """Return a symbol with the steps that the mask has, at the start of their rows."""
        if x.mask is None:
            return x.symbol
        mask, call = self.mask(x.mask), x.symbol.call
        if call is not None and isinstance(call.module, Spread) and call.args[1] is mask:
            return call.args[0]
        key = id(x.symbol), id(mask)
        if key not in self._compacted:
            if call is not None and type(call.module) is Embedding:
                ids = Compact()._given_symbols(call.args[0], mask)
                made = call.module(ids)
            else:
                made = Compact()._given_symbols(x.symbol, mask)
            self._compacted[key] = made
        return self._compacted[key]

    def spread(self, symbol: Any, mask: Atoms | None, fill: str) -> Any:
        """Return outputs of what was compacted where their inputs are."""
        return symbol if mask is None else Spread(fill)._given_symbols(symbol, self.mask(mask))

    # Recurrent layers -----------------------------------------------------------------------------

    def _recurrent(self, layer: Any, x: Value, state: Any) -> list[Any]:
        name = name_of(layer)
        if name not in self._made:
            if len(x.shape) != 2:
                raise ValueError(f"the layer {name!r} needs time steps, and its input has none")
            weights = list(self._source.weights(name))
            read = [KerasLayer(part, weights, self._source.version) for part in unstacked(layer)]
            self._made[name] = _stacked([_recurrent(one) for one in read])
            _model.check_taken(f"the layer {name!r}", weights)
            if not read[0].trainable:
                freeze(self._made[name].layers)
        made = self._made[name]
        symbol = self.compact(x)
        if isinstance(made, _Apart):
            return self._both_apart(made, symbol, state, x, name)
        for module in made.before:
            symbol = module(symbol)
        states: list[Any] = []
        given = state if isinstance(state, list) else [state]
        counts = [len(one._state_parts) * (1 + one.bidirectional) for one in made.layers]
        if state is not None and len(given) != sum(counts):
            raise ValueError(
                f"the layer {name!r} is called with an initial_state of {len(given)} parts, "
                f"expected {sum(counts)}"
            )
        for one, count in zip(made.layers, counts, strict=True):
            mine, given = given[:count], given[count:]
            symbol, final = one(symbol, None if state is None else _initial(one, mine, name))
            parts = final if isinstance(final, tuple) else (final,)
            states += [part[i] for i in range(1 + one.bidirectional) for part in parts]
        return self._outputs_of(made, symbol, states, x)

    def _both_apart(
        self, made: _Apart, symbol: Any, state: Any, x: Value, name: str
    ) -> list[Value]:
        """Return what a layer gives whose directions are layers of their own."""
        given = list(state) if isinstance(state, list) else []
        counts = [len(one._state_parts) for one in made.layers]
        if state is not None and len(given) != sum(counts):
            raise ValueError(
                f"the layer {name!r} is called with an initial_state of {len(given)} parts, "
                f"expected {sum(counts)}"
            )
        ends: list[Any] = []
        states: list[Any] = []
        for place, (one, count) in enumerate(zip(made.layers, counts, strict=True)):
            before = symbol if place in (0, made.forward) else ends.pop()[0]
            mine, given = given[:count], given[count:]
            y, final = one(before, None if state is None else _initial(one, mine, name))
            parts = final if isinstance(final, tuple) else (final,)
            states += [part[0] for part in parts]
            ends.append((y, parts[0][0]))
        if made.sequences:
            both = [self.spread(y, x.mask, "zero") for y, _ in ends]
        else:
            both = [h for _, h in ends]
        merged = both if made.merge is None else [_merged(made.merge, *both)]
        shape = (x.shape[0],) if made.sequences else ()
        values = [Value(one, (*shape, one.axes.features)) for one in merged]
        if made.gives_state:
            values += [Value(one, (one.axes.features,)) for one in states]
        return values

    def _outputs_of(self, made: _Recurrent, symbol: Any, states: list[Any], x: Value) -> list[Any]:
        sequences = not made.after
        if sequences:
            if x.mask is not None and made.before:
                raise ValueError(
                    "has go_backwards=True and return_sequences=True after a layer that masks "
                    "steps: Keras's outputs and its mask then run in opposite directions"
                )
            symbol = self.spread(symbol, x.mask, made.fill)
        for module in made.after:
            symbol = module(symbol)
        size = symbol.axes.features // made.parts

        def value(one: Any) -> Value:
            return Value(one, (x.shape[0], size) if sequences else (size,))

        ys = [symbol]
        if made.parts > 1:
            ys = [symbol[..., :size], symbol[..., size:]]
        after = [Value(one, (one.axes.features,)) for one in states] if made.gives_state else []
        return [*map(value, ys), *after]


# Layers at the end of a chain that a Sequential may have beside the network before them.
_TAIL = frozenset({"Activation", "Dense", "Dropout", "ELU", "LayerNormalization", "LeakyReLU",
                   "PReLU", "ReLU", "Softmax"})  # fmt: skip


class _NetworkChain(Chain):
    """A layer of a network: of its own steps a mask is kept apart."""

    def __init__(self, shape: Any) -> None:
        super().__init__(shape)
        self._inside = True

    def _pad_same(self, reach: int, stride: int) -> None:
        if self.shape[0] is None:
            padding: Any = _SamePadding(reach, stride)
            self._modules.append(padding)
        else:
            super()._pad_same(reach, stride)


class _SamePadding:
    """Calls `PadSame`, like a module of a chain."""

    module = None
    _network = None
    _takes_ids, _keeps_time, _changes_lengths = False, True, True

    def __init__(self, reach: int, stride: int) -> None:
        self._options = reach, stride

    def _output_size(self, size: int | None) -> int | None:
        return size

    def __call__(self, x: Symbol) -> Any:
        shape = [None, x.axes.features]
        return PadSame(*self._options, [2], shape)._given_symbols(x)


def _first_shape(layer: Any) -> Any:
    config = layer["config"]
    if not isinstance(config, dict):
        return None
    shape = config.get("batch_input_shape") or config.get("batch_shape")
    if shape is None and layer["class_name"] == "Embedding":
        return [None, config.get("input_length")]
    if shape is None and isinstance(config.get("layers"), list) and config["layers"]:
        name_of(config["layers"][0])
        return _first_shape(config["layers"][0])
    return shape


def _mapped(tree: Any, function: Any) -> Any:
    """Return a structure of tensors with what comes of each, and tuples for its lists."""
    if isinstance(tree, dict):
        return {name: _mapped(part, function) for name, part in tree.items()}
    if isinstance(tree, list):
        return tuple(_mapped(part, function) for part in tree)
    if not _is_key(tree):
        raise ValueError(f"the model has {describe(tree)} where a tensor should stand")
    return function(tree)


def _weights_of(layer: Any, scores: Scores) -> Scores:
    """Return the softmax of scores over the keys."""
    kind, config = layer["class_name"], layer["config"]
    softmax = kind == "Softmax" or (kind == "Activation" and config.get("activation") == "softmax")
    if not softmax or config.get("axis", -1) not in (-1, 2, [-1], [2]) or scores.softmax:
        raise ValueError("takes scores of any number of keys, which is imported for a softmax")
    return scores._replace(softmax=True)


def _no_weights(*names: str) -> list[Any]:
    return []


def _merged(merge: str, forward: Any, reverse: Any) -> Any:
    """Return the features of two directions as one."""
    if merge == "concat":
        return concat([forward, reverse])
    if merge == "mul":
        return forward * reverse
    return (forward + reverse) * (0.5 if merge == "ave" else 1.0)


def _stacked(parts: list[Any]) -> Any:
    """Return several layers that run one after the other as one."""
    if len(parts) == 1:
        return parts[0]
    first, last = parts[0], parts[-1]
    return last._replace(before=first.before, layers=[one for p in parts for one in p.layers])


def _recurrent(layer: KerasLayer) -> _Recurrent | _Apart:
    if layer.kind == "Bidirectional":
        inside = layer.config.get("layer")
        options = inside.get("config") if isinstance(inside, dict) else None
        gives_state = isinstance(options, dict) and bool(options.get("return_state"))
        (forward, *more), (reverse, *others), merge = both_ways(layer)
        for one in (forward, *more, reverse, *others):
            _check(layer, one.options)
        if more or not forward.same(reverse):
            made_forward = [make(one) for one in (forward, *more)]
            made_reverse = [make(one, reverse=True) for one in (reverse, *others)]
            last = (more or [forward])[-1]
            return _Apart(
                [*made_forward, *made_reverse], len(made_forward), merge, last.sequences,
                gives_state,
            )  # fmt: skip
        parts = 2 if merge is None else 1
        if forward.sequences:
            made = make(forward, reverse, merge=merge or "concat")
            return _Recurrent([], [made], [], gives_state, "zero", parts)
        pool: list[Module] = [BothEnds(merge or "concat", batch_first=True)]
        return _Recurrent([], [make(forward, reverse)], pool, gives_state, "zero", parts)
    gives_state = layer.flag("return_state", False)
    fill = "zero" if layer.config.get("zero_output_for_mask") is True else "repeat"
    only = direction(layer)
    _check(layer, only.options)
    before: list[Module] = [Flip(batch_first=True)] if only.backwards else []
    after: list[Module] = [] if only.sequences else [LastStep(batch_first=True)]
    return _Recurrent(before, [make(only)], after, gives_state, fill, 1)


def _check(layer: KerasLayer, options: dict[str, Any]) -> None:
    if not options["batch_first"]:
        raise layer.error("has time_major=True, which is imported for a layer alone only")


def _initial(layer: Any, given: list[Any], name: str) -> Any:
    """Return the initial state, whose parts are (B, H) for each direction in Keras."""
    count = len(layer._state_parts)
    parts = tuple(_directions(given[i::count], name) for i in range(count))
    return parts if len(parts) > 1 else parts[0]


def _directions(parts: list[Any], name: str) -> Any:
    """Return (D, B, H) of (B, H) for every direction, which may be parts of just that."""
    if all(isinstance(part, Zeros) for part in parts):
        return None
    symbols = [value_of(part, f"a state of {name!r}").symbol for part in parts]
    calls = [symbol.call for symbol in symbols]
    if all(call is not None and isinstance(call.module, Index) for call in calls):
        taken = [(call.args[0], *call.module._given) for call in calls]
        whole = taken[0][0]
        if whole.axes.states == len(symbols) and taken == [
            (whole, "layer", i) for i in range(len(symbols))
        ]:
            return whole
    return symbols[0][None] if len(symbols) == 1 else Stack()._given_symbols(*symbols)
