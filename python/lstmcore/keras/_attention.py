"""Keras's attention layers become attention of ours, between projections where there are some."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._base.checks import Array
from .._base.module import Module
from .._network.symbol import concat, repeat
from .._nn.linear import Linear
from .._nn.pooling import MeanPool
from ..attention import Additive, ScaledDotProduct
from ._layer import KerasLayer, freeze
from ._value import MaskOf, Value, value_of

__all__ = ["ATTENTION"]


class _Attention:
    """What the kinds share: `modules`, and one call of them for values."""

    modules: list[Module]
    causal: bool  # whether queries look back alone

    @staticmethod
    def arguments(layer: KerasLayer, args: list[Any], kwargs: dict[str, Any]) -> list[Value]:
        """Return query, value and key of a call."""
        raise NotImplementedError

    def call(self, network: Any, query: Value, value: Value, key: Value) -> list[Value]:
        """Return what the layer gives."""
        raise NotImplementedError


def _checked(layer: KerasLayer, values: list[Any], masks: list[Any] | None) -> list[Value]:
    """Return query, value and key, which is the value if it is not given; with their masks."""
    if len(values) not in (2, 3):
        raise layer.error(f"is called with {len(values)} inputs, expected query, value and key")
    found = [value_of(one, f"an input of {layer.where}") for one in values]
    for value in found:
        if len(value.shape) != 2 or value.is_ids:
            raise layer.error(f"is given {value.symbol.axes}, expected time steps of features")
    for i, mask in enumerate(masks or []):
        if mask is not None:
            if not isinstance(mask, MaskOf) or i >= len(found):
                raise layer.error("is given a mask of its own, which is not imported")
            found[i] = found[i]._replace(mask=mask.atoms)
    query, value, *key = found
    return [query, value, key[0] if key else value]


def _refuse(layer: KerasLayer, kwargs: dict[str, Any]) -> None:
    for name, value in kwargs.items():
        if value is not None and value is not False:
            raise layer.error(f"is called with {name}, which is not imported")


def _given(kind: _Attention, network: Any, query: Value, value: Value, key: Value) -> Any:
    """Return symbols of query, key and value with the steps that are there.

    And how what comes of them is put back. Queries that look back alone are moved up as their keys
    are, so that the order stays what it is.
    """
    if key.mask is None:
        key = key._replace(mask=value.mask)
    keys = network.compact(key), network.compact(value._replace(mask=key.mask))
    if not kind.causal or key.mask is None:
        return (query.symbol, *keys), lambda y: y
    if query.mask != key.mask:
        raise ValueError(
            "has use_causal_mask=True and masked keys whose queries are not masked alike, which is "
            "not imported"
        )
    return (network.compact(query), *keys), lambda y: network.spread(y, query.mask, "zero")


class _Scores(_Attention):
    """Attention and AdditiveAttention, which have one scale at most."""

    _scale = 1.0  # of query and key

    def __init__(
        self, layer: KerasLayer, query: int, value: int, key: int, causal: bool = False
    ) -> None:
        self.causal = causal
        for name in ("dropout", "seed"):
            layer.get(name)
        use_scale = layer.flag("use_scale", layer.kind == "AdditiveAttention")
        mode = layer.get("score_mode", "dot")
        if layer.kind == "AdditiveAttention":
            weight = layer.take("scale", (query,)) if use_scale else None
            attention: Module = _additive(layer, query, weight, causal)
        elif mode in ("dot", "concat"):
            scale = float(layer.take("scale", ())) if use_scale else 1.0
            if mode == "dot":
                attention = ScaledDotProduct(scale, batch_first=True, causal=causal)
            else:  # tanh of scale times query + key, with one weight for all features
                self._scale = scale
                one = layer.take("concat_score_weight", ())
                attention = _additive(layer, query, np.full(query, one, one.dtype), causal)
                freeze([attention])
        else:
            raise layer.error(f"has score_mode={mode!r}, expected 'dot' or 'concat'")
        self.modules = [attention]

    @staticmethod
    def arguments(layer: KerasLayer, args: list[Any], kwargs: dict[str, Any]) -> list[Value]:
        masks = kwargs.pop("mask", None)
        _refuse(layer, kwargs)
        given = args[0] if len(args) == 1 and isinstance(args[0], list) else args
        return _checked(layer, given, masks if isinstance(masks, list) else None)

    def call(self, network: Any, query: Value, value: Value, key: Value) -> list[Value]:
        attention: Any = self.modules[0]
        (asked, keys, values), back = _given(self, network, query, value, key)
        if self._scale != 1:
            asked, keys = asked * self._scale, keys * self._scale
        symbol, _ = attention(asked, keys, values)
        symbol = back(symbol)
        if query.mask is not None:  # masked queries give zeros
            symbol = symbol * network.mask(query.mask)
        return [Value(symbol, (query.shape[0], value.shape[-1]), query.mask)]


class _MultiHead(_Attention):
    """MultiHeadAttention: heads of any size, each with its part of the projections."""

    def __init__(
        self, layer: KerasLayer, query: int, value: int, key: int, causal: bool = False
    ) -> None:
        self.causal = causal
        for name in ("dropout", "seed", "flash_attention", "output_shape"):
            layer.get(name)
        self._heads, self._key_dim = layer.size("num_heads"), layer.size("key_dim")
        if self._heads > 256:
            raise layer.error(f"has num_heads={self._heads}, expected 256 at most")
        self._value_dim = self._key_dim
        if layer.get("value_dim") is not None:
            self._value_dim = layer.size("value_dim")
        bias = layer.flag("use_bias", True)
        if layer.get("attention_axes") not in (None, [1], (1,), 1):
            raise layer.error("has attention_axes, which is not imported")
        shapes = [(query, self._key_dim), (key, self._key_dim), (value, self._value_dim)]
        self._parts = [
            self._projection(layer, rows, (rows, self._heads, size), size, bias)
            for rows, size in shapes
        ]
        kernel = layer.take("output kernel", (self._heads, self._value_dim, None))
        weights = {"weight": kernel.reshape(-1, kernel.shape[-1]).T}
        if bias:
            weights["bias"] = layer.take("output bias", (kernel.shape[-1],))
        self._out = _linear(weights)
        self._attention = ScaledDotProduct(self._key_dim**-0.5, batch_first=True, causal=causal)
        self.modules = [*self._parts, self._out]

    def _projection(
        self, layer: KerasLayer, rows: int, shape: tuple[int, ...], size: int, bias: bool
    ) -> Linear:
        kernel = layer.take("kernel", shape)
        weights: dict[str, Array] = {"weight": kernel.reshape(rows, -1).T}
        if bias:
            weights["bias"] = layer.take("bias", (self._heads, size)).reshape(-1)
        return _linear(weights)

    @staticmethod
    def arguments(layer: KerasLayer, args: list[Any], kwargs: dict[str, Any]) -> list[Value]:
        kwargs = dict(kwargs)
        names = ("query", "value", "key")
        given = dict(zip(names, args, strict=False)) | {
            name: kwargs.pop(name) for name in names if kwargs.get(name) is not None
        }
        masks = [kwargs.pop(f"{name}_mask", None) for name in names]
        _refuse(layer, kwargs)
        found = [given[name] for name in names if name in given]
        return _checked(layer, found, masks[: len(found)])

    def call(self, network: Any, query: Value, value: Value, key: Value) -> list[Value]:
        given, back = _given(self, network, query, value, key)
        q, k, v = (p(x) for p, x in zip(self._parts, given, strict=True))
        heads = []
        for i in range(self._heads):
            part = slice(i * self._key_dim, (i + 1) * self._key_dim)
            mine = slice(i * self._value_dim, (i + 1) * self._value_dim)
            heads.append(self._attention(q[..., part], k[..., part], v[..., mine])[0])
        mixed = back(concat(heads))
        if query.mask is not None:  # masked queries look at all steps alike, masked or not
            there = network.mask(query.mask)
            all_steps = repeat(MeanPool(batch_first=True)(self._parts[2](value.symbol)), like=mixed)
            mixed = all_steps + (mixed - all_steps) * there
        symbol: Any = self._out(mixed)
        return [Value(symbol, (query.shape[0], symbol.axes.features), query.mask)]


def _additive(layer: KerasLayer, size: int, weight: Array | None, causal: bool) -> Additive:
    dtype = layer.dtype if weight is None else weight.dtype
    attention = Additive(size, weight is not None, batch_first=True, dtype=dtype, causal=causal)
    if weight is not None:
        attention.load_state_dict({"weight": weight})
    return attention


def _linear(weights: dict[str, Array]) -> Linear:
    rows, columns = weights["weight"].shape
    linear = Linear(columns, rows, "bias" in weights, weights["weight"].dtype)
    linear.load_state_dict(weights)
    return linear


ATTENTION: dict[str, Any] = {
    "AdditiveAttention": _Scores,
    "Attention": _Scores,
    "MultiHeadAttention": _MultiHead,
}
