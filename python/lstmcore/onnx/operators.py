"""ONNX's simple operators in NumPy: what stands between the recurrent nodes of a model.

Each function takes the inputs of a node, None for one left out, and its attributes by name with
ONNX's defaults; so its signature says which attributes and inputs there may be. What changed
between versions of ONNX is a function of its own with the version at which it begins.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from .._base.machine import memory_limit
from .._nn.activations import GELU, normal_distribution
from ._reading import Node, Tensor, dtype_of

Operator: TypeAlias = Callable[..., Any]

_OPERATORS: dict[str, list[tuple[int, Operator]]] = {}  # by name: versions, the oldest first

# Operators that only rearrange, and how many times larger than its inputs an output can be: on
# constants they can be carried out once, whoever wrote the file.
REARRANGING = {
    **dict.fromkeys(
        [
            "Concat",
            "Constant",
            "Flatten",
            "Identity",
            "Reshape",
            "Slice",
            "Split",
            "Squeeze",
            "Transpose",
            "Unsqueeze",
        ],
        1,
    ),
    "Cast": 8,
    "DequantizeLinear": 4,
}


def operator(name: str, since: int = 1) -> Callable[[Operator], Operator]:
    """Register a function as what an operator does from a version of ONNX on."""

    def register(function: Operator) -> Operator:
        _OPERATORS.setdefault(name, []).append((since, function))
        return function

    return register


def names() -> list[str]:
    """Return the names of all operators."""
    return sorted(_OPERATORS)


_signature = functools.cache(inspect.signature)


def _zero(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value != 0:
            raise ValueError(f"{name}={value} is not supported")

    return check


# Attributes that say so little or so much that they are looked at before anything runs.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "to": lambda number: dtype_of(number, "to"),
    "stash_type": lambda number: dtype_of(number, "stash_type"),
    "training_mode": _zero("training_mode"),
}


def bind(node: Node, opset: int) -> Operator:
    """Return a function of the inputs of a node.

    Raises
    ------
    ValueError
        If the node is no operator of ours, or has inputs or attributes that ours does not know.
    """
    versions = [f for since, f in _OPERATORS.get(node.op, ()) if since <= opset]
    if node.domain or not versions:
        kind = f"{node.domain}.{node.op}" if node.domain else node.op
        raise ValueError(
            f"{node} is an operator that is not supported: {kind} of opset {opset}. Pass node= the "
            "name of a recurrent node to get that one alone"
        )
    function = versions[-1]
    attributes = dict(node.attributes)
    signature = _signature(function)
    if "num_outputs" in signature.parameters:
        attributes.setdefault("num_outputs", len(node.outputs))
    keywords = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name in attributes:
        if name not in keywords:
            raise ValueError(f"{node} has the attribute {name!r}, which is not supported")
    try:
        signature.bind(*node.inputs, **attributes)
        for name, check in _CHECKS.items():
            if name in attributes:
                check(attributes[name])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{node} of opset {opset}: {error}") from error
    needed = [p.default is p.empty for p in signature.parameters.values()]
    if any(not name and need for name, need in zip(node.inputs, needed, strict=False)):
        raise ValueError(f"{node} of opset {opset} lacks an input that it needs")
    return functools.partial(function, **attributes)


# Constants, shapes and types ----------------------------------------------------------------------


@operator("Constant")
def _constant(
    *,
    value: Tensor | None = None,
    value_float: float | None = None,
    value_floats: list[float] | None = None,
    value_int: int | None = None,
    value_ints: list[int] | None = None,
) -> Any:
    for one, dtype in (
        (value, None),
        (value_float, np.float32),
        (value_floats, np.float32),
        (value_int, np.int64),
        (value_ints, np.int64),
    ):
        if one is not None:
            return np.asarray(one, dtype)
    raise ValueError("it has no value")


@operator("ConstantOfShape")
def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Any:
    filler = np.zeros(1, np.float32) if value is None else value
    if filler.size != 1:
        raise ValueError(f"value has {filler.size} elements, expected one")
    return np.full(_sizes(shape, filler.dtype), filler.reshape(()))


@operator("Shape")
def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Any:
    return np.array(x.shape[start:end], np.int64)


@operator("Size")
def _size(x: Tensor) -> Any:
    return np.array(x.size, np.int64)


@operator("Cast")
def _cast(x: Tensor, *, to: int, saturate: int = 1) -> Any:
    return x.astype(dtype_of(to, "to"), copy=False)


@operator("CastLike")
def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1) -> Any:
    return x.astype(like.dtype, copy=False)


@operator("Identity")
def _identity(x: Tensor) -> Any:
    return x


@operator("Dropout")
def _dropout_7(x: Tensor, *, ratio: float = 0.5) -> Any:
    return x, np.ones(x.shape, bool)


@operator("Dropout", since=12)
def _dropout(
    x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int = 0
) -> Any:
    if training_mode is not None and training_mode.any():
        raise ValueError("training_mode is on: only inference is supported")
    return x, np.ones(x.shape, bool)


@operator("Reshape")
def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Any:
    sizes = shape.tolist()
    if not allowzero:
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Transpose")
def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Any:
    return x.transpose(perm)


@operator("Flatten")
def _flatten(x: Tensor, *, axis: int = 1) -> Any:
    return x.reshape(_flat(x.shape, axis))


@operator("Squeeze")
def _squeeze_7(x: Tensor, *, axes: list[int] | None = None) -> Any:
    return np.squeeze(x, None if axes is None else tuple(axes))


@operator("Squeeze", since=13)
def _squeeze(x: Tensor, axes: Tensor | None = None) -> Any:
    return np.squeeze(x, None if axes is None else tuple(axes.tolist()))


@operator("Unsqueeze")
def _unsqueeze_7(x: Tensor, *, axes: list[int]) -> Any:
    return np.expand_dims(x, tuple(axes))


@operator("Unsqueeze", since=13)
def _unsqueeze(x: Tensor, axes: Tensor) -> Any:
    return np.expand_dims(x, tuple(axes.reshape(-1).tolist()))


@operator("Expand")
def _expand(x: Tensor, shape: Tensor) -> Any:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, _sizes(shape, x.dtype)))


@operator("Tile")
def _tile(x: Tensor, repeats: Tensor) -> Any:
    if repeats.shape != (x.ndim,):
        raise ValueError(f"repeats has shape {repeats.shape}, expected ({x.ndim},)")
    _sizes(np.array(x.shape, object) * repeats.astype(object), x.dtype)
    return np.tile(x, repeats.tolist())


@operator("Range")
def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Any:
    count = max(math.ceil((limit - start).item() / delta.item()), 0)
    _sizes(np.array([count], object), start.dtype)
    return (start + np.arange(count) * delta).astype(start.dtype)


# Parts and wholes ---------------------------------------------------------------------------------


@operator("Concat")
def _concat(*parts: Tensor, axis: int) -> Any:
    return np.concatenate(parts, axis)


@operator("Split")
def _split_7(x: Tensor, *, axis: int = 0, split: list[int] | None = None, num_outputs: int) -> Any:
    return _split_13(
        x, None if split is None else np.array(split), axis=axis, num_outputs=num_outputs
    )


@operator("Split", since=13)
def _split_13(x: Tensor, split: Tensor | None = None, *, axis: int = 0, num_outputs: int) -> Any:
    size = x.shape[axis]
    if split is None:
        each = -(-size // num_outputs)
        stops = [min(each * (i + 1), size) for i in range(num_outputs)]
    else:
        stops = np.cumsum(split).tolist()
        if len(stops) != num_outputs or stops[-1:] != [size] or split.min() < 0:
            raise ValueError(f"split is {split.tolist()}, expected {num_outputs} sizes of {size}")
    return tuple(np.split(x, stops[:-1], axis))


@operator("Slice")
def _slice_7(
    x: Tensor, *, starts: list[int], ends: list[int], axes: list[int] | None = None
) -> Any:
    at = None if axes is None else np.array(axes)
    return _slice_10(x, np.array(starts), np.array(ends), at)


@operator("Slice", since=10)
def _slice_10(
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Any:
    at = range(len(starts)) if axes is None else axes.tolist()
    by = [1] * len(starts) if steps is None else steps.tolist()
    where = [slice(None)] * x.ndim
    for axis, start, end, step in zip(at, starts.tolist(), ends.tolist(), by, strict=True):
        low = end if end >= 0 else end + x.shape[axis]
        # Backwards to the very beginning, which Python cannot say with a number.
        where[axis] = slice(start, None if step < 0 and low < 0 else end, step)
        if step < 0 and start < -x.shape[axis]:
            where[axis] = slice(0, None if low < 0 else end, step)
    return x[tuple(where)]


@operator("Gather")
def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    return np.take(x, indices, axis)


@operator("GatherElements")
def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    where: list[Any] = list(np.indices(indices.shape, sparse=True))
    where[axis] = indices
    return x[tuple(where)]


@operator("GatherND")
def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Any:
    outer: Any = np.indices(indices.shape[:batch_dims], sparse=True)
    ones = (1,) * (indices.ndim - 1 - batch_dims)
    batch = [index.reshape(index.shape + ones) for index in outer]
    return x[(*batch, *np.moveaxis(indices, -1, 0))]


@operator("ReverseSequence")
def _reverse_sequence(
    x: Tensor, lengths: Tensor, *, batch_axis: int = 1, time_axis: int = 0
) -> Any:
    y = np.moveaxis(x, (batch_axis, time_axis), (0, 1)).copy()
    if lengths.shape != y.shape[:1] or (lengths < 0).any() or (lengths > y.shape[1]).any():
        raise ValueError(
            f"sequence_lens is {lengths.tolist()}, expected {len(y)} of up to {y.shape[1]}"
        )
    for row, length in zip(y, lengths.tolist(), strict=True):
        row[:length] = row[:length][::-1].copy()
    return np.moveaxis(y, (0, 1), (batch_axis, time_axis))


# Arithmetic and logic -----------------------------------------------------------------------------


def _pair(function: Operator) -> Operator:
    """Return a function of two arrays of one type, as ONNX wants it; NumPy would convert."""

    def call(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype != b.dtype:
            raise ValueError(f"it is given {a.dtype} and {b.dtype}, expected one type")
        return np.asarray(function(a, b))

    return call


def _divide(a: Tensor, b: Tensor) -> Any:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    quotient: Tensor = np.floor_divide(a, b)  # which rounds down, where ONNX rounds to 0
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)


_PAIRS: dict[str, Operator] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
}
for _name, _function in _PAIRS.items():
    operator(_name)(_pair(_function))


@operator("Pow")
def _power(x: Tensor, exponent: Tensor) -> Any:
    return np.power(x, exponent).astype(x.dtype)


@operator("Mod")
def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Any:
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


def _fold(function: Operator) -> Operator:
    def call(first: Tensor, *others: Tensor) -> Tensor:
        return np.asarray(functools.reduce(function, others, first))

    return call


for _name, _function in {"Min": np.minimum, "Max": np.maximum, "Sum": np.add}.items():
    operator(_name)(_fold(_function))


@operator("Mean")
def _mean(*parts: Tensor) -> Any:
    return np.asarray(functools.reduce(np.add, parts) / np.array(len(parts), parts[0].dtype))


@operator("Where")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Any:
    return np.where(condition, a, b)


def _one(function: Operator) -> Operator:
    def call(x: Tensor) -> Tensor:
        return np.asarray(function(x))

    return call


def _sigmoid(x: Tensor) -> Any:
    e = np.exp(-np.abs(x))
    return np.where(x >= 0, x.dtype.type(1), e) / (1 + e)


def _softplus(x: Tensor) -> Tensor:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


_ONES: dict[str, Operator] = {
    "Abs": np.abs,
    "Ceil": np.ceil,
    "Exp": np.exp,
    "Floor": np.floor,
    "Log": np.log,
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Sigmoid": _sigmoid,
    "Softplus": _softplus,
    "Softsign": lambda x: x / (1 + np.abs(x)),
    "Sqrt": np.sqrt,
    "Tanh": np.tanh,
}
for _name, _function in _ONES.items():
    operator(_name)(_one(_function))


@operator("Erf")
def _erf(x: Tensor) -> Any:
    kind = x.dtype if x.dtype.kind == "f" and x.dtype.itemsize > 2 else np.dtype(np.float32)
    wide = x.astype(kind, copy=False)
    return (2 * normal_distribution(wide * kind.type(2**0.5)) - 1).astype(x.dtype)


@operator("Gelu", since=20)
def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    return GELU(approximate)(x).astype(x.dtype, copy=False)


@operator("Swish", since=24)
def _swish(x: Tensor, *, alpha: float = 1.0) -> Any:
    return x * _sigmoid(x * x.dtype.type(alpha))


@operator("LeakyRelu")
def _leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Any:
    return np.where(x < 0, x * x.dtype.type(alpha), x)


@operator("Elu")
def _elu(x: Tensor, *, alpha: float = 1.0) -> Any:
    return np.where(x < 0, x.dtype.type(alpha) * np.expm1(np.minimum(x, 0)), x)


@operator("HardSigmoid")
def _hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    kind = x.dtype.type
    return np.clip(x * kind(alpha) + kind(beta), kind(0), kind(1))


@operator("Clip")
def _clip_7(x: Tensor, *, min: float | None = None, max: float | None = None) -> Any:
    kind = x.dtype.type
    return _clip(x, None if min is None else kind(min), None if max is None else kind(max))


@operator("Clip", since=11)
def _clip(x: Tensor, low: Any = None, high: Any = None) -> Any:
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.asarray(np.minimum(x, high))


# Products, norms and reductions -------------------------------------------------------------------


@operator("MatMul")
def _matmul(a: Tensor, b: Tensor) -> Any:
    return np.asarray(np.matmul(a, b))


@operator("Gemm")
def _gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    kind = a.dtype.type
    y: Tensor = np.matmul(a.T if transA else a, b.T if transB else b)
    if alpha != 1:
        y = y * kind(alpha)
    return y if c is None else y + (c if beta == 1 else c * kind(beta))


@operator("Conv")
def _conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    dims = x.ndim - 2
    steps, gaps = strides or [1] * dims, dilations or [1] * dims
    reach = [1 + gap * (n - 1) for gap, n in zip(gaps, w.shape[2:], strict=True)]
    around = _pads(x.shape[2:], reach, steps, auto_pad, pads)
    if min(map(min, around), default=0) < 0 or x.shape[1] != group * w.shape[1]:
        raise ValueError(f"x is {x.shape} and w {w.shape}, in {group} groups, padded {around}")
    if min([*steps, *gaps], default=1) < 1:
        raise ValueError(f"strides are {steps} and dilations {gaps}, expected at least 1")
    wide = [n + sum(pad) for n, pad in zip(x.shape[2:], around, strict=True)]
    _sizes(np.array([*x.shape[:2], *wide], object), x.dtype)
    padded = np.pad(x, [(0, 0), (0, 0), *around])
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, tuple(range(2, 2 + dims)))
    every: Any = [slice(None)] * 2 + [slice(None, None, n) for n in (*steps, *gaps)]
    windows = windows[tuple(every)]
    inside = range(2 + dims, 2 + 2 * dims)
    parts = [
        np.tensordot(some, weight, ([1, *inside], list(range(1, 2 + dims))))
        for some, weight in zip(np.split(windows, group, 1), np.split(w, group, 0), strict=True)
    ]
    y = np.moveaxis(np.concatenate(parts, -1), -1, 1)
    return y if b is None else y + b.reshape(-1, *[1] * dims)


def _pads(
    sizes: tuple[int, ...], reach: list[int], steps: list[int], auto: str, pads: list[int] | None
) -> list[tuple[int, int]]:
    """Return how many zeros stand before and after each axis."""
    dims = len(sizes)
    if auto in ("NOTSET", "VALID"):
        given = pads if pads and auto == "NOTSET" else [0] * 2 * dims
        return list(zip(given[:dims], given[dims:], strict=True))
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad is {auto!r}, which is not known")
    found = []
    for size, wide, step in zip(sizes, reach, steps, strict=True):
        more = max((-(-size // step) - 1) * step + wide - size, 0)
        sides = more // 2, more - more // 2
        found.append(sides if auto == "SAME_UPPER" else sides[::-1])
    return found


@operator("GlobalAveragePool")
def _global_average_pool(x: Tensor) -> Any:
    return x.mean(tuple(range(2, x.ndim)), keepdims=True, dtype=x.dtype)


@operator("GlobalMaxPool")
def _global_max_pool(x: Tensor) -> Any:
    return x.max(tuple(range(2, x.ndim)), keepdims=True)


@operator("MatMulInteger")
def _matmul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Any:
    a, b = a.astype(np.int32), b.astype(np.int32)
    if a_zero is not None:
        a = a - (a_zero[..., None] if a_zero.ndim else a_zero).astype(np.int32)
    if b_zero is not None:
        b = b - (b_zero[..., None, :] if b_zero.ndim else b_zero).astype(np.int32)
    return np.asarray(np.matmul(a, b))


@operator("DequantizeLinear")
def _dequantize_linear(
    x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1
) -> Any:
    if scale.ndim > 1:
        raise ValueError("blocks of values with a scale each are not supported")
    spread = _along(x, axis) if scale.ndim else ()
    steps = x.astype(np.int32)
    if zero is not None:
        steps = steps - zero.reshape(spread).astype(np.int32)
    return np.asarray((steps * scale.reshape(spread)).astype(scale.dtype))


@operator("QuantizeLinear")
def _quantize_linear(x: Tensor, scale: Tensor, zero: Tensor | None = None, *, axis: int = 1) -> Any:
    if scale.ndim > 1:
        raise ValueError("blocks of values with a scale each are not supported")
    spread = _along(x, axis) if scale.ndim else ()
    zero = np.zeros(scale.shape, np.uint8) if zero is None else zero
    steps = np.rint(x / scale.reshape(spread)) + zero.reshape(spread).astype(x.dtype)
    limits = np.iinfo(zero.dtype)
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(zero.dtype))


@operator("DynamicQuantizeLinear")
def _dynamic_quantize_linear(x: Tensor) -> Any:
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.asarray((high - low) / np.float32(255), np.float32)
    if scale == 0:
        scale = np.asarray(1, np.float32)
    zero = np.asarray(np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8))
    return _quantize_linear(x, scale, zero), scale, zero


@operator("Softmax")
def _softmax_7(x: Tensor, *, axis: int = 1) -> Any:
    return _softmax(x.reshape(_flat(x.shape, axis))).reshape(x.shape)


@operator("Softmax", since=13)
def _softmax(x: Tensor, *, axis: int = -1) -> Any:
    e = np.exp(x - x.max(axis, keepdims=True, initial=-np.inf))
    return np.asarray(e / e.sum(axis, keepdims=True))


@operator("LogSoftmax")
def _log_softmax_7(x: Tensor, *, axis: int = 1) -> Any:
    return _log_softmax(x.reshape(_flat(x.shape, axis))).reshape(x.shape)


@operator("LogSoftmax", since=13)
def _log_softmax(x: Tensor, *, axis: int = -1) -> Any:
    y = x - x.max(axis, keepdims=True, initial=-np.inf)
    return np.asarray(y - np.log(np.exp(y).sum(axis, keepdims=True)))


@operator("LayerNormalization")
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


@operator("BatchNormalization")
def _batch_normalization(
    x: Tensor,
    scale: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,  # which is 0: see _CHECKS
) -> Any:
    spread = _along(x, 1)
    mean, variance = mean.reshape(spread), variance.reshape(spread)
    inverse = 1 / np.sqrt(variance + variance.dtype.type(epsilon))
    y = (x - mean) * inverse * scale.reshape(spread) + bias.reshape(spread)
    return y.astype(x.dtype, copy=False)


def _reductions(function: Operator) -> tuple[Operator, Operator]:
    """Return a reduction with its axes as an attribute, and as an input."""

    def old(x: Tensor, *, axes: list[int] | None = None, keepdims: int = 1) -> Tensor:
        where = None if not axes else tuple(axes)
        return np.asarray(function(x, axis=where, keepdims=bool(keepdims)), x.dtype)

    def new(
        x: Tensor,
        axes: Tensor | None = None,
        *,
        keepdims: int = 1,
        noop_with_empty_axes: int = 0,
    ) -> Tensor:
        where = None if axes is None else axes.tolist()
        return x if noop_with_empty_axes and not where else old(x, axes=where, keepdims=keepdims)

    return old, new


for _name, _function, _since in (
    ("ReduceSum", np.sum, 13),
    ("ReduceMean", np.mean, 18),
    ("ReduceMax", np.max, 18),
    ("ReduceMin", np.min, 18),
    ("ReduceProd", np.prod, 18),
):
    _old, _new = _reductions(_function)
    operator(_name)(_old)
    operator(_name, since=_since)(_new)


def _argument(function: Operator) -> Operator:
    def call(x: Tensor, *, axis: int = 0, keepdims: int = 1, select_last_index: int = 0) -> Tensor:
        if select_last_index:
            found = x.shape[axis] - 1 - function(np.flip(x, axis), axis)
        else:
            found = function(x, axis)
        return np.asarray(np.expand_dims(found, axis) if keepdims else found, np.int64)

    return call


operator("ArgMax")(_argument(np.argmax))
operator("ArgMin")(_argument(np.argmin))


@operator("CumSum")
def _cumsum(x: Tensor, axis: Tensor, *, exclusive: int = 0, reverse: int = 0) -> Any:
    along = int(axis.item())
    y = np.flip(x, along) if reverse else x
    total = np.cumsum(y, along, dtype=x.dtype)
    if exclusive:
        total = total - y
    return np.flip(total, along) if reverse else total


# --------------------------------------------------------------------------------------------------


def _sizes(shape: Tensor, dtype: np.dtype[Any]) -> list[int]:
    """Return a shape that a file asks for, if an array of it can be."""
    sizes = [int(n) for n in shape.tolist()]
    if any(n < 0 for n in sizes):
        raise ValueError(f"the shape is {sizes}, with a negative size")
    if math.prod(sizes) * dtype.itemsize > memory_limit():
        raise ValueError(f"{dtype} of shape {sizes} is more than this process may use")
    return sizes


def _flat(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Return the shape with the axes before `axis` as one, and the others as another."""
    if axis < 0:
        axis += len(shape)
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def _along(x: Tensor, axis: int) -> tuple[int, ...]:
    """Return the shape in which one number for each index of an axis meets x."""
    return tuple(n if i == axis % x.ndim else 1 for i, n in enumerate(x.shape))
