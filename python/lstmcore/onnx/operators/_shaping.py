"""Constants, shapes and types; parts of arrays and how they are put together."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from operator import attrgetter
from typing import Any

import numpy as np

from .._model import Tensor
from .._reading import dtype_of
from ._registry import TooLarge, operator, sizes, too_large

# Constants, shapes and types ----------------------------------------------------------------------


@operator("Constant", grows="asks")
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


@operator("ConstantOfShape", grows="asks")
def _constant_of_shape(shape: Tensor, *, value: Tensor | None = None) -> Any:
    filler = np.zeros(1, np.float32) if value is None else value
    if filler.size != 1:
        raise ValueError(f"value has {filler.size} elements, expected one")
    return np.full(sizes(shape, filler.dtype), filler.reshape(()))


@operator("ConstantFill", grows="asks")
def _constant_fill(
    given: Tensor, *, dtype: int = 1, value: float = 0.0, input_as_shape: int = 0
) -> Any:
    """An experimental operator that PyTorch wrote before opset 9."""
    kind = dtype_of(dtype, "dtype")
    return np.full(sizes(given, kind) if input_as_shape else given.shape, value, kind)


@operator("Shape", grows="asks")
def _shape(x: Tensor, *, start: int = 0, end: int | None = None) -> Any:
    return np.array(x.shape[start:end], np.int64)


@operator("Size", grows="asks")
def _size(x: Tensor) -> Any:
    return np.array(x.size, np.int64)


@operator("Cast", grows=8)
def _cast(x: Tensor, *, to: int, saturate: int = 1, round_mode: str = "up") -> Any:
    return x.astype(dtype_of(to, "to"), copy=False)


@operator("CastLike", grows=8)
def _cast_like(x: Tensor, like: Tensor, *, saturate: int = 1, round_mode: str = "up") -> Any:
    return x.astype(like.dtype, copy=False)


@operator("Identity", grows=1)
def _identity(x: Any) -> Any:
    return x


@operator("Dropout", grows=2)
def _dropout_7(x: Tensor, *, ratio: float = 0.5) -> Any:
    return x, np.ones(x.shape, bool)


@operator("Dropout", since=12, grows=2)
def _dropout(
    x: Tensor, ratio: Tensor | None = None, training_mode: Tensor | None = None, *, seed: int = 0
) -> Any:
    if training_mode is not None and training_mode.any():
        raise ValueError("training_mode is on: only inference is supported")
    return x, np.ones(x.shape, bool)


@operator("Reshape", grows=1)
def _reshape(x: Tensor, shape: Tensor, *, allowzero: int = 0) -> Any:
    asked = shape.tolist()
    if x.size and 0 not in asked:
        return x.reshape(asked)
    copied = [i for i, n in enumerate(asked) if n == 0 and not allowzero]
    found = [x.shape[i] if i in copied else n for i, n in enumerate(asked)]
    if -1 in found and not x.size:  # what is 0 stands on both sides, and says nothing of the rest
        rest = math.prod(n for i, n in enumerate(x.shape) if i not in copied)
        by = math.prod(n for i, n in enumerate(found) if i not in copied and n != -1)
        found[found.index(-1)] = rest // by if by else 0
    return x.reshape(found)


@operator("Transpose", grows=1)
def _transpose(x: Tensor, *, perm: list[int] | None = None) -> Any:
    return x.transpose(perm)


@operator("Flatten", grows=1)
def _flatten(x: Tensor, *, axis: int = 1) -> Any:
    return x.reshape(flat(x.shape, axis))


@operator("Squeeze", grows=1)
def _squeeze_7(x: Tensor, *, axes: list[int] | None = None) -> Any:
    return np.squeeze(x, None if axes is None else tuple(axes))


@operator("Squeeze", since=13, grows=1)
def _squeeze(x: Tensor, axes: Tensor | None = None) -> Any:
    return x.squeeze(None if axes is None else tuple(axes.tolist()))


@operator("Unsqueeze", grows=1)
def _unsqueeze_7(x: Tensor, *, axes: list[int]) -> Any:
    return np.expand_dims(x, tuple(axes))


@operator("Unsqueeze", since=13, grows=1)
def _unsqueeze(x: Tensor, axes: Tensor) -> Any:
    at = axes.reshape(-1).tolist()
    return x[None] if at == [0] else np.expand_dims(x, tuple(at))


@operator("Expand", grows="asks")
def _expand(x: Tensor, shape: Tensor) -> Any:
    asked = sizes(shape, x.dtype)
    found = np.broadcast_shapes(x.shape, tuple(asked))
    sizes(found, x.dtype)
    return np.broadcast_to(x, found)


@operator("Tile", grows="asks")
def _tile(x: Tensor, repeats: Tensor) -> Any:
    if repeats.shape != (x.ndim,):
        raise ValueError(f"repeats has shape {repeats.shape}, expected ({x.ndim},)")
    times = repeats.tolist()
    sizes([n * by for n, by in zip(x.shape, times, strict=True)], x.dtype)
    return np.tile(x, times)


@operator("Range", grows="asks")
def _range(start: Tensor, limit: Tensor, delta: Tensor) -> Any:
    count = max(math.ceil((limit - start).item() / delta.item()), 0)
    sizes([count], np.dtype(np.int64))
    return (start + np.arange(count) * delta).astype(start.dtype)


@operator("EyeLike", grows=8)
def _eye_like(x: Tensor, *, dtype: int | None = None, k: int = 0) -> Any:
    rows, columns = x.shape
    return np.eye(rows, columns, k, x.dtype if dtype is None else dtype_of(dtype, "dtype"))


@operator("OneHot", grows="asks")
def _one_hot(indices: Tensor, depth: Tensor, values: Tensor, *, axis: int = -1) -> Any:
    count = int(depth.reshape(-1)[0])
    sizes([*indices.shape, count], values.dtype)
    at = np.asarray(indices).astype(np.int64)
    at = np.where(at < 0, at + count, at)
    off, on = values
    y = np.where(at[..., None] == np.arange(count), on, off).astype(values.dtype)
    return np.moveaxis(y, -1, axis)


@operator("Trilu", grows=1)
def _trilu(x: Tensor, k: Tensor | None = None, *, upper: int = 1) -> Any:
    by = 0 if k is None else int(k.item())
    return np.triu(x, by) if upper else np.tril(x, by)


_nbytes = attrgetter("nbytes")

# Parts and wholes ---------------------------------------------------------------------------------


@operator("Concat", grows=1)
def _concat(*parts: Tensor, axis: int) -> Any:
    if len(parts) > 1 and too_large(sum(map(_nbytes, parts))):
        raise TooLarge(f"{len(parts)} arrays together are more than this process may use")
    return np.concatenate(parts, axis)


@operator("Split", grows=1)
def _split_7(x: Tensor, *, axis: int = 0, split: list[int] | None = None, num_outputs: int) -> Any:
    return _split_13(
        x, None if split is None else np.array(split), axis=axis, num_outputs=num_outputs
    )


@operator("Split", since=13, grows=1)
def _split_13(x: Tensor, split: Tensor | None = None, *, axis: int = 0, num_outputs: int) -> Any:
    size = x.shape[axis]
    if split is None:
        each = -(-size // num_outputs)
        stops = [min(each * (i + 1), size) for i in range(num_outputs)]
    else:
        stops = list(accumulate(split.tolist()))
        if len(stops) != num_outputs or stops[-1:] != [size] or split.min() < 0:
            raise ValueError(f"split is {split.tolist()}, expected {num_outputs} sizes of {size}")
    before = (slice(None),) * (axis % x.ndim)
    return tuple(x[(*before, slice(*ends))] for ends in pairwise([0, *stops]))


@operator("Slice", grows=1)
def _slice_7(
    x: Tensor, *, starts: list[int], ends: list[int], axes: list[int] | None = None
) -> Any:
    at = None if axes is None else np.array(axes)
    return _slice_10(x, np.array(starts), np.array(ends), at)


@operator("Slice", since=10, grows=1)
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


@operator("Pad", grows="asks")
def _pad_7(x: Tensor, *, pads: list[int], mode: str = "constant", value: float = 0.0) -> Any:
    return _pad(x, np.array(pads), np.array(value, x.dtype), mode=mode)


@operator("Pad", since=11, grows="asks")
def _pad(
    x: Tensor,
    pads: Tensor,
    value: Tensor | None = None,
    axes: Tensor | None = None,
    *,
    mode: str = "constant",
) -> Any:
    at = list(range(x.ndim)) if axes is None else [int(a) % x.ndim for a in axes]
    if pads.shape != (2 * len(at),):
        raise ValueError(f"pads has shape {pads.shape}, expected ({2 * len(at)},)")
    around = dict(zip(at, pads.reshape(2, -1).T.tolist(), strict=True))
    every = [around.get(i, [0, 0]) for i in range(x.ndim)]
    sizes([n + before + after for n, (before, after) in zip(x.shape, every, strict=True)], x.dtype)
    cut = tuple(
        slice(max(-before, 0), n - max(-after, 0))
        for n, (before, after) in zip(x.shape, every, strict=True)
    )
    known = {"constant": "constant", "reflect": "reflect", "edge": "edge", "wrap": "wrap"}
    if mode not in known:
        raise ValueError(f"mode is {mode!r}, expected one of {', '.join(known)}")
    options = (
        {"constant_values": 0 if value is None else value.item()} if mode == "constant" else {}
    )
    wide = [(max(before, 0), max(after, 0)) for before, after in every]
    return np.pad(x[cut], wide, known[mode], **options)  # type: ignore[call-overload]


# Places -------------------------------------------------------------------------------------------


@operator("Gather")
def _gather(x: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    return x.take(indices, axis)


@operator("GatherElements")
def _gather_elements(x: Tensor, indices: Tensor, *, axis: int = 0) -> Any:
    return x[_elements(x, indices, axis)]


def _elements(x: Tensor, indices: Tensor, axis: int) -> tuple[Any, ...]:
    """Return the places that indices along an axis mean."""
    if indices.ndim != x.ndim:
        raise ValueError(f"indices has shape {indices.shape}, expected {x.ndim} axes")
    where: list[Any] = list(np.indices(indices.shape, sparse=True))
    where[axis] = indices
    return tuple(where)


@operator("GatherND")
def _gather_nd(x: Tensor, indices: Tensor, *, batch_dims: int = 0) -> Any:
    if not batch_dims:
        return x[tuple(indices[..., i] for i in range(indices.shape[-1]))]
    outer: Any = np.indices(indices.shape[:batch_dims], sparse=True)
    ones = (1,) * (indices.ndim - 1 - batch_dims)
    batch = [index.reshape(index.shape + ones) for index in outer]
    return x[(*batch, *np.moveaxis(indices, -1, 0))]


# How what is there already meets what is written.
_MEETING: dict[str, Any] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum
}  # fmt: skip


def _written(x: Tensor, where: Any, updates: Tensor, reduction: str) -> Tensor:
    y = x.copy()
    if reduction == "none":
        y[where] = updates
    elif reduction in _MEETING:
        _MEETING[reduction].at(y, where, updates)
    else:
        raise ValueError(f"reduction is {reduction!r}, expected one of none, add, mul, max, min")
    return y


@operator("Scatter", grows=1)
@operator("ScatterElements", since=11, grows=1)
def _scatter_elements(
    x: Tensor, indices: Tensor, updates: Tensor, *, axis: int = 0, reduction: str = "none"
) -> Any:
    return _written(x, _elements(x, indices, axis), updates, reduction)


@operator("ScatterND", since=11, grows=1)
def _scatter_nd(x: Tensor, indices: Tensor, updates: Tensor, *, reduction: str = "none") -> Any:
    return _written(x, tuple(np.moveaxis(indices, -1, 0)), updates, reduction)


@operator("Compress", grows=1)
def _compress(x: Tensor, condition: Tensor, *, axis: int | None = None) -> Any:
    return np.compress(condition, x, axis)


@operator("NonZero", grows="asks")
def _non_zero(x: Tensor) -> Any:
    sizes([x.ndim, x.size], np.dtype(np.int64))
    return np.array(np.nonzero(np.atleast_1d(x)), np.int64)[: max(x.ndim, 1)]


@operator("TopK", grows=16)
def _top_k_7(x: Tensor, *, axis: int = -1, k: int) -> Any:
    return _top_k(x, np.array(k), axis=axis)


@operator("TopK", since=10, grows=16)
def _top_k(x: Tensor, k: Tensor, *, axis: int = -1, largest: int = 1, sorted: int = 1) -> Any:
    count = int(k.item())
    if not 0 <= count <= x.shape[axis]:
        raise ValueError(f"K is {count}, expected 0 to {x.shape[axis]}, the size of axis {axis}")
    along = np.moveaxis(x, axis, -1)
    if largest:  # of equal numbers the first comes first, so all is turned around twice
        order = along.shape[-1] - 1 - np.argsort(along[..., ::-1], -1, kind="stable")[..., ::-1]
    else:
        order = np.argsort(along, -1, kind="stable")
    order = order[..., :count]
    y = np.take_along_axis(along, order, -1)
    return np.moveaxis(y, -1, axis), np.moveaxis(order.astype(np.int64), -1, axis)


@operator("ReverseSequence", grows=1)
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


# --------------------------------------------------------------------------------------------------


def flat(shape: tuple[int, ...], axis: int) -> tuple[int, int]:
    """Return the shape with the axes before `axis` as one, and the others as another."""
    if axis < 0:
        axis += len(shape)
    return math.prod(shape[:axis]), math.prod(shape[axis:])


def along(x: Tensor, axis: int) -> tuple[int, ...]:
    """Return the shape in which one number for each index of an axis meets x."""
    return tuple(n if i == axis % x.ndim else 1 for i, n in enumerate(x.shape))
