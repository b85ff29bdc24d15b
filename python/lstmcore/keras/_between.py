"""What stands between the layers of a functional model: layers that merge, and functions of Keras.

Each takes what it is given, values, masks and numbers, and gives a value or a mask.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import reduce
from typing import Any

from .._base.checks import describe
from .._network.arrays import Dot, Extreme, Join, Reduce, SoftmaxOver, Take, UnitLength
from .._network.operations import Index
from .._network.symbol import concat, repeat
from .._nn.activations import Softmax
from .._nn.pooling import LastStep
from .._nn.time_reversal import Flip
from .._shapes.rows import Permute, Reshape
from ..attention import ScaledDotProduct
from ._chain import ACTIVATIONS
from ._layer import KerasLayer
from ._value import MaskOf, Ones, Scores, Shape, Value, Zeros, joined, value_of

__all__ = ["OPERATIONS"]

Given = list[Any]


def _number(one: Any) -> bool:
    return isinstance(one, (int, float)) and not isinstance(one, bool) and math.isfinite(one)


def _values(layer: KerasLayer, x: Given, count: int | None = None) -> Given:
    """Return values and numbers, at least one of them a value."""
    fits = count is None or len(x) == count
    known = all(isinstance(one, Value) or _number(one) for one in x)
    if not fits or not known or not any(isinstance(one, Value) for one in x):
        raise layer.error(f"is called with {describe(x)}, which is not imported")
    return x


def _one(layer: KerasLayer, x: Given) -> Value:
    if len(x) != 1:
        raise layer.error(f"is called with {describe(x)}, expected one tensor")
    return value_of(x[0], f"the input of {layer.where}")


def _mask(layer: KerasLayer, x: Given) -> Any:
    """Return the mask that goes on behind a layer that merges; functions leave none."""
    if layer.is_function:
        return None
    return joined([one.mask for one in x if isinstance(one, Value)])


# Arithmetic ---------------------------------------------------------------------------------------


def _aligned(layer: KerasLayer, a: Any, b: Any) -> tuple[Any, Any]:
    """Return two values with the same steps: one without is repeated over those of the other."""
    if not (isinstance(a, Value) and isinstance(b, Value)):
        return a, b
    if layer.is_function and len(a.shape) != len(b.shape):  # where axes meet from the last
        return a, b
    if _is_row(a, b):
        return _repeated(a, b), b
    if _is_row(b, a):
        return a, _repeated(b, a)
    return a, b


def _is_row(a: Value, b: Value) -> bool:
    """Whether a has no steps, or one alone, where b has several."""
    if len(b.shape) != 2:
        return False
    return len(a.shape) == 1 or (len(a.shape) == 2 and a.shape[0] == 1 and b.shape[0] != 1)


def _repeated(row: Value, like: Value) -> Value:
    symbol = repeat(_row(row), like=_source_of_part(like.symbol))
    return Value(symbol, (like.shape[0], row.shape[-1]), like.mask)


def _row(value: Value) -> Any:
    """Return the symbol of what has no steps, or one."""
    if len(value.shape) == 1:
        return value.symbol
    call = value.symbol.call
    if call is not None and type(call.module) is Reshape and len(call.module.given) == 1:
        return call.args[0]
    return LastStep(batch_first=True)(value.symbol)


def _shape_of(a: Any, b: Any) -> Shape:
    shapes = [one.shape for one in (a, b) if isinstance(one, Value)]
    if len(shapes) == 1:
        return shapes[0]
    longer = max(shapes, key=len)
    if len(shapes[0]) != len(shapes[1]):
        return longer
    pairs = zip(*shapes, strict=True)
    return tuple(m if n in (1, None) else n for n, m in pairs)


def _elementwise(function: Callable[[Any, Any], Any], layer: KerasLayer, x: Given) -> Value:
    def both(a: Any, b: Any) -> Any:
        a, b = _aligned(layer, a, b)
        left, right = (one.symbol if isinstance(one, Value) else one for one in (a, b))
        return Value(function(left, right), _shape_of(a, b))

    made: Value = reduce(both, _values(layer, x))
    return made._replace(mask=_mask(layer, x))


def _sum(layer: KerasLayer, x: Given) -> Value:
    return _elementwise(lambda a, b: a + b, layer, x)


def _difference(layer: KerasLayer, x: Given) -> Value:
    return _elementwise(lambda a, b: a - b, layer, _values(layer, x, 2))


def _product(layer: KerasLayer, x: Given) -> Value:
    ones = [one for one in x if isinstance(one, Ones)]
    if len(ones) == 1 and len(x) == 2:
        (value,) = (one for one in x if not isinstance(one, Ones))
        return _repeated(value_of(value, layer.where), ones[0].like)
    return _elementwise(lambda a, b: a * b, layer, x)


def _quotient(layer: KerasLayer, x: Given) -> Value:
    a, b = _values(layer, x, 2)
    if isinstance(b, Value) or not b:
        raise layer.error("divides by something else than a number, which is not imported")
    return Value(a.symbol * (1 / b), a.shape)


def _mean_of(layer: KerasLayer, x: Given) -> Value:
    made = _sum(layer, x)
    return made._replace(symbol=made.symbol * (1 / len(x)))


def _negative(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    return Value(-value.symbol, value.shape)


def _extreme(layer: KerasLayer, x: Given) -> Value:
    kind = layer.kind.lower()

    def both(a: Value, b: Value) -> Value:
        if a.symbol.axes != b.symbol.axes:
            raise layer.error(f"is of {a.symbol.axes} and {b.symbol.axes}, expected the same")
        made = Extreme(kind, _ranks(a, b), list(a.shape))._given_symbols(a.symbol, b.symbol)
        return Value(made, a.shape)

    values = [value_of(one, f"an input of {layer.where}") for one in x]
    return reduce(both, values)._replace(mask=_mask(layer, x))


def _rescaled(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    scale, offset = layer.number("scale", 1.0), layer.number("offset", 0.0)
    made = value.symbol * scale if scale != 1 else value.symbol
    return value._replace(symbol=made + offset if offset else made)


def _activated(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    names = {
        "abs": "absolute",
        "exp": "exponential",
        "hardsigmoid": "hard_sigmoid",
        "hardsilu": "hard_silu",
        "leakyrelu": "leaky_relu",
    }
    name = layer.kind.lower()
    if layer.config.get("approximate") is True:
        raise layer.error("has approximate=True, which is not imported")
    for option in ("approximate", "negative_slope", "alpha"):
        if layer.get(option) not in (None, False, 0.2, 1.0):
            raise layer.error(f"has {option}={layer.get(option)!r}, which is not imported")
    return Value(ACTIVATIONS[names.get(name, name)]()(value.symbol), value.shape)


# Along axes ---------------------------------------------------------------------------------------


def _ranks(*values: Value) -> list[int]:
    return [len(value.shape) for value in values]


def _axis(layer: KerasLayer, value: Value, axis: Any) -> int:
    """Return an axis counted from 1, that of the first behind the batch."""
    rank = len(value.shape)
    if isinstance(axis, (list, tuple)) and len(axis) == 1:
        axis = axis[0]
    if type(axis) is int and -rank <= axis <= rank and axis != 0:
        return axis if axis > 0 else rank + 1 + axis
    raise layer.error(f"has axis={axis!r}, expected one of 1 to {rank}")


def _softmax(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    axis = _axis(layer, value, layer.get("axis", -1))
    if axis == len(value.shape):
        made = Softmax()(value.symbol)
    else:
        made = SoftmaxOver(axis, _ranks(value), list(value.shape))._given_symbols(value.symbol)
    return value._replace(symbol=made, mask=None if layer.is_function else value.mask)


def _reduced(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    axis, keep = _axis(layer, value, layer.get("axis")), layer.flag("keepdims", False)
    layer.get("initial")
    shape = list(value.shape)
    shape[axis - 1 : axis] = [1] * keep
    if not shape:
        raise layer.error("leaves nothing of each row, which is not imported")
    kind = Reduce(layer.kind.lower(), axis, keep, _ranks(value), shape)
    return Value(kind._given_symbols(value.symbol), tuple(shape))


def _concatenated(layer: KerasLayer, x: Given) -> Any:
    if any(isinstance(one, MaskOf) for one in x):
        return _either(layer, x)
    values = [value_of(one, f"an input of {layer.where}") for one in x]
    if not values:
        raise layer.error("is called with nothing, expected tensors")
    axis = _axis(layer, values[0], layer.get("axis", -1))
    masks = [one.mask for one in values]
    mask = None if layer.is_function else joined(masks)
    first = values[0].shape
    if any(len(one.shape) != len(first) for one in values):
        raise layer.error(f"is of {', '.join(str(one.symbol.axes) for one in values)}")
    sizes = [one.shape[axis - 1] for one in values]
    total = None if None in sizes else sum(n or 0 for n in sizes)
    shape = (*first[: axis - 1], total, *first[axis:])
    symbols = [one.symbol for one in values]
    if axis == len(first):
        return Value(concat(symbols), shape, mask)
    if any(masks):
        raise layer.error("puts masked steps after each other, which is not imported")
    return Value(Join(axis, _ranks(*values), list(shape))._given_symbols(*symbols), shape)


def _attended(layer: KerasLayer, scores: Scores, value: Value, axes: Any) -> Value:
    """Return the means of values, weighted by a softmax of scores."""
    fits = scores.softmax and len(value.shape) == 2
    if not fits or axes[0] not in (2, -1) or axes[1] not in (1, -2):
        raise layer.error("is called with scores of any number of keys, which is not imported")
    symbols = (one.symbol for one in (scores.query, scores.key, value))
    made, _ = ScaledDotProduct(1.0, batch_first=True)(*symbols)
    return Value(made, (scores.query.shape[0], value.shape[-1]))


def _dot(layer: KerasLayer, x: Given) -> Any:
    axes = layer.need("axes")
    pair = axes if isinstance(axes, (list, tuple)) and len(axes) == 2 else [axes, axes]
    if len(x) == 2 and isinstance(x[0], Scores):
        return _attended(layer, x[0], value_of(x[1], f"an input of {layer.where}"), pair)
    a, b = (value_of(one, f"an input of {layer.where}") for one in _values(layer, x, 2))
    first, second = _axis(layer, a, pair[0]), _axis(layer, b, pair[1])
    if layer.flag("normalize", False):
        a, b = _unit_length(a, first, 1e-7), _unit_length(b, second, 1e-7)
    if len(a.shape) == len(b.shape) == first == second == 2 and b.shape[0] is None:
        return Scores(a, b)
    return _contracted(a, b, first, second)


def _unit_length(value: Value, axis: int, least: float) -> Value:
    """Return the value divided by its length along an axis, which counts as `least` at least."""
    made = UnitLength(axis, least, 0.0, _ranks(value), list(value.shape))
    return value._replace(symbol=made._given_symbols(value.symbol))


def _contracted(a: Value, b: Value, first: int, second: int) -> Value:
    shape = (*_without(a.shape, first), *_without(b.shape, second)) or (1,)
    kind = Dot(first, second, _ranks(a, b), list(shape))
    return Value(kind._given_symbols(a.symbol, b.symbol), shape)


def _to_unit_length(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    return _unit_length(value, _axis(layer, value, layer.get("axis", -1)), 1e-6)


def _without(shape: Shape, axis: int) -> Shape:
    return (*shape[: axis - 1], *shape[axis:])


def _matrix_product(layer: KerasLayer, x: Given) -> Value:
    a, b = (value_of(one, f"an input of {layer.where}") for one in _values(layer, x, 2))
    if len(a.shape) != 2 or len(b.shape) != 2:
        raise layer.error(f"is of {a.symbol.axes} and {b.symbol.axes}, expected rows of two axes")
    return _contracted(a, b, 2, 1)


# Parts and shapes ---------------------------------------------------------------------------------


def _part(layer: KerasLayer, x: Given) -> Value:
    """Return features, steps, or the last step."""
    given, key = x if len(x) == 2 else (None, None)
    value = value_of(given, f"the input of {layer.where}")
    key = list(key) if isinstance(key, list) else [key]
    rank, every = len(value.shape) + (not value.is_ids), slice(None)
    if ... in key:
        at = key.index(...)
        key[at : at + 1] = [every] * (rank - len(key) + 1)
    key += [every] * (rank - len(key))
    parts, known = key[1:], all(isinstance(n, (slice, int)) for n in key)
    if not known or len(key) != rank or key[0] != every or value.is_ids or bool in map(type, key):
        raise layer.error(f"takes {key}, which is not imported: parts of rows are")
    if rank == 3 and parts == [-1, every]:
        return Value(LastStep(batch_first=True)(value.symbol), value.shape[1:])
    shape = _part_shape(value.shape, parts)
    if parts[:-1] == [every] * (rank - 2) and isinstance(parts[-1], slice):
        return Value(value.symbol[..., parts[-1]], shape)
    written = [n if isinstance(n, int) else [n.start, n.stop, n.step] for n in parts]
    kind = Take(written, _ranks(value), list(shape))
    return Value(kind._given_symbols(value.symbol), shape)


def _part_shape(shape: Shape, parts: list[Any]) -> Shape:
    sizes = []
    for size, part in zip(shape, parts, strict=True):
        if isinstance(part, slice):
            whole = part == slice(None)
            sizes.append(size if whole or size is None else len(range(size)[part]))
            if size is None and not whole and None not in (part.stop, part.start or 0):
                start, stop = part.start or 0, part.stop
                if start >= 0 and stop >= 0 and part.step in (None, 1):
                    sizes[-1] = None  # rows may have fewer steps
    return tuple(sizes)


def _flipped(layer: KerasLayer, x: Given) -> Value:
    value = _one(layer, x)
    axis = _axis(layer, value, layer.get("axis"))
    if axis == len(value.shape):
        return Value(value.symbol[..., ::-1], value.shape)
    if axis == 1 and len(value.shape) == 2:
        return Value(Flip(batch_first=True)(value.symbol), value.shape)
    raise layer.error(f"has axis={axis!r}, expected that of the steps or of the features")


def _in_shape(value: Value, shape: Shape) -> Value:
    module = Reshape(value.shape, [-1 if n is None else n for n in shape], batch_first=True)
    return Value(module(value.symbol), shape)


def _expanded(layer: KerasLayer, x: Given) -> Any:
    if len(x) == 1 and isinstance(x[0], MaskOf):
        return x[0]._replace(wide=layer.get("axis") in (2, -1))
    value, axis = _one(layer, x), layer.get("axis")
    rank = len(value.shape) + 1
    if type(axis) is not int or axis == 0 or not -rank <= axis <= rank:
        raise layer.error(f"has axis={axis!r}, expected one of 1 to {rank}")
    axis = axis - 1 if axis > 0 else rank + axis
    return _in_shape(value, (*value.shape[:axis], 1, *value.shape[axis:]))


def _squeezed(layer: KerasLayer, x: Given) -> Any:
    if len(x) == 1 and isinstance(x[0], MaskOf):
        layer.get("axis")
        return x[0]._replace(wide=False)
    value = _one(layer, x)
    axis = _axis(layer, value, layer.get("axis"))
    if value.shape[axis - 1] != 1 or len(value.shape) == 1:
        raise layer.error(f"is of {value.symbol.axes}, expected one with axis {axis} of size 1")
    return _in_shape(value, _without(value.shape, axis))


def _reshaped(layer: KerasLayer, x: Given) -> Value:
    value, shape = _one(layer, x), layer.get("newshape")
    if not isinstance(shape, (list, tuple)) or len(shape) < 2 or shape[0] not in (-1, None):
        raise layer.error(f"has newshape={shape!r}, expected (-1, ...)")
    module = Reshape(value.shape, tuple(shape[1:]), batch_first=True)
    return Value(module(value.symbol), tuple(shape[1:]))


def _transposed(layer: KerasLayer, x: Given) -> Value:
    value, axes = _one(layer, x), layer.get("axes")
    if not isinstance(axes, (list, tuple)) or not axes or axes[0] != 0:
        raise layer.error(f"has axes={axes!r}, expected (0, ...)")
    module = Permute(value.shape, tuple(axes[1:]), batch_first=True)
    return Value(module(value.symbol), tuple(value.shape[n - 1] for n in axes[1:]))


# Masks, and what stands for ones and zeros --------------------------------------------------------


def _differs(layer: KerasLayer, x: Given) -> MaskOf:
    if len(x) != 2 or not isinstance(x[0], Value) or not _number(x[1]):
        raise layer.error(f"compares {describe(x)}, expected a tensor and a number")
    return MaskOf(frozenset({(x[0].symbol, float(x[1]))}), wide=not x[0].is_ids)


def _same_mask(layer: KerasLayer, x: Given) -> Any:
    for option in ("axis", "keepdims", "dtype", "sparse"):
        layer.get(option)
    if len(x) != 1 or not isinstance(x[0], (MaskOf, Value)):
        raise layer.error(f"is called with {describe(x)}, which is not imported")
    (given,) = x
    if isinstance(given, MaskOf):
        return given._replace(wide=False) if layer.kind == "Any" else given
    if layer.kind != "ConvertToTensor":
        raise layer.error("is imported of masks only")
    return given


def _either(layer: KerasLayer, x: Given) -> MaskOf:
    layer.get("axis")
    masks = [one.atoms for one in x if isinstance(one, MaskOf)]
    if len(masks) + sum(isinstance(one, Zeros) for one in x) != len(x) or not masks:
        raise layer.error(f"is called with {describe(x)}, expected masks")
    wide = any(isinstance(one, MaskOf) and one.wide for one in x)
    return MaskOf(joined(masks), wide and layer.kind == "LogicalOr")


def _ones(layer: KerasLayer, x: Given) -> Any:
    value = _one(layer, x)
    dtype = layer.get("dtype")
    if dtype == "bool":
        return MaskOf(None, wide=not value.is_ids, like=value)
    if len(value.shape) != 2 or dtype is not None:
        raise layer.error("is imported only of what has time steps, in its own dtype")
    return Ones(value._replace(symbol=_source_of_part(value.symbol)))


def _source_of_part(x: Any) -> Any:
    """Return what features were taken from, which has the same steps."""
    call = x.call
    taken = call is not None and isinstance(call.module, Index)
    return call.args[0] if taken and call.module._given[0] == "features" else x


def _zeros(layer: KerasLayer, x: Given) -> Zeros:
    layer.get("dtype")
    return Zeros()


_ACTIVATIONS = (
    "Abs", "Absolute", "Elu", "Exp", "Gelu", "HardSigmoid", "HardSilu", "LeakyRelu", "Mish", "Relu",
    "Relu6", "Selu", "Sigmoid", "Silu", "Softplus", "Softsign", "Square", "Tanh",
)  # fmt: skip
OPERATIONS: dict[str, Callable[[KerasLayer, Given], Any]] = {
    **dict.fromkeys(_ACTIVATIONS, _activated),
    "Add": _sum,
    "Any": _same_mask,
    "Average": _mean_of,
    "Cast": _same_mask,
    "Concatenate": _concatenated,
    "ConvertToTensor": _same_mask,
    "Dot": _dot,
    "ExpandDims": _expanded,
    "Flip": _flipped,
    "GetItem": _part,
    "LogicalOr": _either,
    "Matmul": _matrix_product,
    "Max": _reduced,
    "Maximum": _extreme,
    "Mean": _reduced,
    "Minimum": _extreme,
    "Multiply": _product,
    "Negative": _negative,
    "NotEqual": _differs,
    "OnesLike": _ones,
    "Rescaling": _rescaled,
    "Reshape": _reshaped,
    "Softmax": _softmax,
    "Squeeze": _squeezed,
    "Subtract": _difference,
    "Sum": _reduced,
    "Transpose": _transposed,
    "TrueDivide": _quotient,
    "UnitNormalization": _to_unit_length,
    "ZerosLike": _zeros,
}
