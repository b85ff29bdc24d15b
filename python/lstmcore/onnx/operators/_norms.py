"""Reductions, softmax and normalisations."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._nn.activations import softmax
from .._model import Tensor
from .._reading import dtype_of
from ._registry import MICROSOFT, Function, operator
from ._shaping import along, flat

# Softmax ------------------------------------------------------------------------------------------


@operator("Softmax", grows=1)
def _softmax_7(x: Tensor, *, axis: int = 1) -> Any:
    return _softmax(x.reshape(flat(x.shape, axis))).reshape(x.shape)


@operator("Softmax", since=13, grows=1)
def _softmax(x: Tensor, *, axis: int = -1) -> Any:
    if axis in (-1, x.ndim - 1) and x.dtype.char in "fd":
        return softmax(x)
    e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    return np.asarray(e / e.sum(axis, keepdims=True))


@operator("LogSoftmax", grows=1)
def _log_softmax_7(x: Tensor, *, axis: int = 1) -> Any:
    return _log_softmax(x.reshape(flat(x.shape, axis))).reshape(x.shape)


@operator("LogSoftmax", since=13, grows=1)
def _log_softmax(x: Tensor, *, axis: int = -1) -> Any:
    y = x - x.max(axis, keepdims=True, initial=-np.inf)
    return np.asarray(y - np.log(np.exp(y).sum(axis, keepdims=True)))


@operator("Hardmax", grows=1)
def _hardmax_7(x: Tensor, *, axis: int = 1) -> Any:
    return _hardmax(x.reshape(flat(x.shape, axis))).reshape(x.shape)


@operator("Hardmax", since=13, grows=1)
def _hardmax(x: Tensor, *, axis: int = -1) -> Any:
    y = np.zeros_like(x)
    np.put_along_axis(y, np.expand_dims(x.argmax(axis), axis), x.dtype.type(1), axis)
    return y


# Normalisations -----------------------------------------------------------------------------------


@operator("LayerNormalization", grows=4)
def _layer_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Any:
    axes = tuple(range(axis % x.ndim, x.ndim))
    wide = x.astype(dtype_of(stash_type, "stash_type")) if x.dtype == np.float16 else x
    mean = wide.mean(axes, keepdims=True)
    centred = wide - mean
    inverse = 1 / np.sqrt((centred * centred).mean(axes, keepdims=True) + wide.dtype.type(epsilon))
    y = (centred * inverse).astype(x.dtype) * scale
    return (y if bias is None else y + bias), mean, inverse


@operator("SkipLayerNormalization", domain=MICROSOFT, grows=4)
def _skip_layer_normalization(
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    epsilon: float = 1e-12,
) -> Any:
    total = x + skip if bias is None else x + skip + bias
    y, mean, inverse = _layer_normalization(total, scale, beta, epsilon=epsilon)
    return y, mean, inverse, total


@operator("RMSNormalization", since=23, grows=2)
@operator("SimplifiedLayerNormalization", grows=2)
def _rms_normalization(
    x: Tensor, scale: Tensor, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    axes = tuple(range(axis % x.ndim, x.ndim))
    wide = x.astype(dtype_of(stash_type, "stash_type")) if x.dtype == np.float16 else x
    mean = (wide * wide).mean(axes, keepdims=True)
    return (wide / np.sqrt(mean + wide.dtype.type(epsilon))).astype(x.dtype) * scale


@operator("BatchNormalization", grows=2)
def _batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    spatial: int = 1,
    training_mode: int = 0,  # which is 0: see _CHECKS
) -> Any:
    spread = along(x, 1) if spatial else (1, *x.shape[1:])
    mean, variance = mean.reshape(spread), variance.reshape(spread)
    inverse = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    y = (x - mean) * inverse * scale.reshape(spread) + bias.reshape(spread)
    return y.astype(x.dtype, copy=False)


@operator("InstanceNormalization", grows=2)
def _instance_normalization(
    x: Tensor, scale: Tensor, bias: Tensor, *, epsilon: float = 1e-5
) -> Any:
    spread = along(x, 1)
    return _normalized(x, tuple(range(2, x.ndim)), epsilon) * scale.reshape(spread) + bias.reshape(
        spread
    )


@operator("GroupNormalization", since=21, grows=2)
def _group_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    *,
    num_groups: int,
    epsilon: float = 1e-5,
    stash_type: int = 1,
) -> Any:
    spread = along(x, 1)
    groups = x.reshape(len(x), num_groups, -1)
    y = _normalized(groups, (2,), epsilon).reshape(x.shape)
    return y * scale.reshape(spread) + bias.reshape(spread)


@operator("MeanVarianceNormalization", since=9, grows=2)
def _mean_variance_normalization(x: Tensor, *, axes: list[int] | None = None) -> Any:
    return _normalized(x, tuple(axes or (0, 2, 3)), 1e-9)


def _normalized(x: Tensor, axes: tuple[int, ...], epsilon: float) -> Tensor:
    centred = x - x.mean(axes, keepdims=True)
    variance = (centred * centred).mean(axes, keepdims=True)
    found: Tensor = centred / np.sqrt(variance + x.dtype.type(epsilon))
    return found


@operator("LpNormalization", grows=2)
def _lp_normalization(x: Tensor, *, axis: int = -1, p: int = 2) -> Any:
    size = (
        np.sqrt((x * x).sum(axis, keepdims=True)) if p == 2 else np.abs(x).sum(axis, keepdims=True)
    )
    return np.where(size == 0, x.dtype.type(0), x / np.where(size == 0, x.dtype.type(1), size))


# Reductions ---------------------------------------------------------------------------------------


def _extreme(function: Function, upper: bool) -> Function:
    """Return a maximum or minimum, of nothing too: what any number is above, or below."""

    def call(x: Tensor, *, axis: Any, keepdims: bool) -> Any:
        if x.dtype.kind == "f":
            worst: Any = x.dtype.type(-np.inf if upper else np.inf)
        elif x.dtype.kind == "b":
            worst = not upper
        else:
            limits = np.iinfo(x.dtype)
            worst = limits.min if upper else limits.max
        return function(x, axis=axis, keepdims=keepdims, initial=worst)

    return call


def _log_sum_exp(x: Tensor, *, axis: Any, keepdims: bool) -> Any:
    most = x.max(axis, keepdims=True, initial=-np.inf)
    most = np.where(np.isfinite(most), most, x.dtype.type(0))
    total = np.log(np.exp(x - most).sum(axis, keepdims=True)) + most
    return total if keepdims else np.squeeze(total, axis)


def _sum(x: Tensor, **options: Any) -> Any:
    return np.sum(x, dtype=x.dtype, **options)


def _mean(x: Tensor, **options: Any) -> Any:
    if x.dtype.kind != "f" or x.dtype.itemsize < 4:
        return np.mean(x, **options)
    total = np.add.reduce(x, **options)  # as np.mean does, which takes three times as long to begin
    return total / x.dtype.type(x.size // (total.size or 1))


_REDUCTIONS: tuple[tuple[str, Function, int], ...] = (  # with the version whose axes are an input
    ("ReduceSum", _sum, 13),
    ("ReduceMean", _mean, 18),
    ("ReduceMax", _extreme(np.max, True), 18),
    ("ReduceMin", _extreme(np.min, False), 18),
    ("ReduceProd", np.prod, 18),
    ("ReduceL1", lambda x, **options: _sum(np.abs(x), **options), 18),
    ("ReduceL2", lambda x, **options: np.sqrt(_sum(x * x, **options)), 18),
    ("ReduceLogSum", lambda x, **options: np.log(_sum(x, **options)), 18),
    ("ReduceLogSumExp", _log_sum_exp, 18),
    ("ReduceSumSquare", lambda x, **options: _sum(x * x, **options), 18),
)


def _reductions(function: Function) -> tuple[Function, Function]:
    """Return a reduction with its axes as an attribute, and as an input."""

    def old(x: Tensor, *, axes: list[int] | None = None, keepdims: int = 1) -> Tensor:
        where = tuple(axes) if axes else tuple(range(x.ndim))
        return np.asarray(function(x, axis=where, keepdims=bool(keepdims)), x.dtype)

    def new(
        x: Tensor,
        axes: Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        where = None if axes is None else axes.tolist()
        if noop_with_empty_axes and not where:
            return np.asarray(function(x, axis=(), keepdims=True), x.dtype)
        return old(x, axes=where, keepdims=keepdims)

    return old, new


for _name, _function, _since in _REDUCTIONS:
    _old, _new = _reductions(_function)
    operator(_name, grows=2)(_old)
    operator(_name, since=_since, grows=2)(_new)


def _argument(function: Function) -> Function:
    def call(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis)
        else:
            found = function(x, axis)
        return np.asarray(np.expand_dims(found, axis) if keepdims else found, np.int64)

    return call


operator("ArgMax", grows=8)(_argument(np.argmax))
operator("ArgMin", grows=8)(_argument(np.argmin))


@operator("CumSum", grows=1)
def _cumsum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Any:
    where = int(axis.item())
    y = np.flip(x, where) if reverse else x
    total = np.cumsum(y, where, dtype=x.dtype)
    if exclusive:
        total = total - y
    return np.flip(total, where) if reverse else total
