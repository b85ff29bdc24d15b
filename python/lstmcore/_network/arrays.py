"""Operations along any axis of the rows of a batch, of which imported networks are made.

A row is (F,) or (T, ..., F), and arrays are (B, ...) here, whatever their layout is outside. The
options of each end with the ranks of the rows that it takes and with the shape of a row that it
gives, in which None is any size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .._base.checks import Array
from .._base.flow import BackwardFlow, Ends, Flow
from .._base.symbolic import Axes
from .._nn.activations import softmax, softmax_backward
from .operations import Operation

__all__ = [
    "OPERATIONS", "Dot", "Extreme", "Join", "OnRows", "PadSame", "Reduce", "SoftmaxOver", "Take",
    "UnitLength", "axes_of",
]  # fmt: skip


def axes_of(shape: Sequence[int | None]) -> Axes:
    """Return the axes of an array whose rows have that shape."""
    *steps, features = shape
    if features is None:
        raise ValueError("its last axis has no fixed size, which is not imported")
    return Axes(features, steps=bool(steps), inner=tuple(steps[1:]))


class OnRows(Operation):
    """What they share: the layout, and the axes of y."""

    _needs_whole_sequence = True

    @property
    def batch_first(self) -> bool | None:
        """Where there is time: networks with these are batch-first, as what they come from."""
        *_, ranks, made = self._given
        return True if max(*ranks, len(made)) > 1 else None

    @property
    def _changes_lengths(self) -> bool:  # type: ignore[override]
        return len(self._given[-1]) > 1

    def _axes(self, *x: Axes) -> tuple[Axes, ...]:
        for one in x:
            if one.features is None:
                raise ValueError(f"x is {one}, expected features")
        return (axes_of(self._given[-1]),)

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        ranks = self._given[-2]
        batched = args[0].ndim == ranks[0] + 1
        rows = [x if batched else x[None] for x in args]
        with np.errstate(all="ignore"):
            y, tape = self.forward(*rows)
        if self._changes_lengths:
            flow.lengths, flow.ends = None, Ends(None, False)
        return (y if batched else y[0]), (batched, tape)

    def _apply_all_backward(self, tape: Any, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        batched, saved = tape
        with np.errstate(all="ignore"):
            dx = self.backward(saved, dy[0] if batched else dy[0][None])
        return dx if batched else tuple(d[0] for d in dx)


class SoftmaxOver(OnRows):
    """The softmax over an axis, counted from 1."""

    _options_in_order = ("axis",)

    def forward(self, x: Array) -> tuple[Array, Any]:
        y = softmax(x.swapaxes(self._config.axis, -1))
        return y.swapaxes(self._config.axis, -1), y

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        dx = softmax_backward(dy.swapaxes(self._config.axis, -1), tape)
        return (dx.swapaxes(self._config.axis, -1),)


class Reduce(OnRows):
    """The "sum", "mean" or "max" over an axis, which is left out or stays with size 1."""

    _options_in_order = ("kind", "axis", "keep")

    def forward(self, x: Array) -> tuple[Array, Any]:
        axis, keep = self._config.axis, self._config.keep
        if self._config.kind == "max":
            place = np.expand_dims(x.argmax(axis=axis), axis)
            y = np.take_along_axis(x, place, axis)
            return (y if keep else y.squeeze(axis)), (x.shape, place)
        made = x.sum if self._config.kind == "sum" else x.mean
        return made(axis=axis, keepdims=keep), (x.shape, None)

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        shape, place = tape
        axis = self._config.axis
        dy = dy if self._config.keep else np.expand_dims(dy, axis)
        if place is not None:
            dx = np.zeros(shape, dy.dtype)
            np.put_along_axis(dx, place, dy, axis)
            return (dx,)
        share = 1 / shape[axis] if self._config.kind == "mean" else 1
        return (np.broadcast_to(dy * dy.dtype.type(share), shape),)


class Dot(OnRows):
    """The products of two arrays, summed over one axis of each, for each row of the batch."""

    _options_in_order = ("first", "second")

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        a_shape, b_shape = a.shape, b.shape
        left = np.moveaxis(a, self._config.first, -1)
        right = np.moveaxis(b, self._config.second, -1)
        lead, other = left.shape[1:-1], right.shape[1:-1]
        left = left.reshape(len(a), -1, left.shape[-1])
        right = right.reshape(len(b), -1, right.shape[-1])
        y = left @ right.swapaxes(1, 2)
        y = y.reshape(len(a), *((*lead, *other) or (1,)))
        return y, (left, right, a_shape, b_shape, lead, other)

    def backward(self, tape: Any, dy: Array) -> tuple[Array, Array]:
        left, right, a_shape, b_shape, lead, other = tape
        dy = dy.reshape(len(left), left.shape[1], right.shape[1])
        da = (dy @ right).reshape(a_shape[0], *lead, left.shape[-1])
        db = (dy.swapaxes(1, 2) @ left).reshape(b_shape[0], *other, right.shape[-1])
        return np.moveaxis(da, -1, self._config.first), np.moveaxis(db, -1, self._config.second)


class Join(OnRows):
    """Arrays one after the other along an axis, counted from 1."""

    _options_in_order = ("axis",)

    def forward(self, *x: Array) -> tuple[Array, Any]:
        axis = self._config.axis
        return np.concatenate(x, axis=axis), [a.shape[axis] for a in x]

    def backward(self, tape: Any, dy: Array) -> tuple[Array, ...]:
        return tuple(np.split(dy, np.cumsum(tape)[:-1], axis=self._config.axis))


class Take(OnRows):
    """A part of each row: for each of its axes a number, or start, stop and step."""

    _options_in_order = ("key",)

    @property
    def _key(self) -> tuple[Any, ...]:
        parts = (n if isinstance(n, int) else slice(*n) for n in self._config.key)
        return slice(None), *parts

    def forward(self, x: Array) -> tuple[Array, Any]:
        step, time = self._config.key[0], x.shape[1]
        if isinstance(step, int) and x.ndim > 2 and not -time <= step < time:
            raise ValueError(f"x has {time} steps, and step {step} is taken of it")
        return x[self._key], x.shape

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        dx = np.zeros(tape, dy.dtype)
        dx[self._key] = dy
        return (dx,)


class Extreme(OnRows):
    """The larger or the smaller of two numbers, which share the gradient where they are equal."""

    _options_in_order = ("kind",)

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        larger = self._config.kind == "maximum"
        y = np.maximum(a, b) if larger else np.minimum(a, b)
        first, second = y == a, y == b
        return y, np.where(first & second, 0.5, first).astype(y.dtype)

    def backward(self, tape: Any, dy: Array) -> tuple[Array, Array]:
        return dy * tape, dy * (1 - tape)


class PadSame(OnRows):
    """Zeros around the steps, so that windows of `reach` steps give one for each stride begun."""

    _options_in_order = ("reach", "stride")

    def _pads(self, time: int) -> tuple[int, int]:
        reach, stride = self._config.reach, self._config.stride
        total = max((-(-time // stride) - 1) * stride + reach - time, 0)
        return total // 2, total - total // 2

    def forward(self, x: Array) -> tuple[Array, Any]:
        left, right = self._pads(x.shape[1])
        return np.pad(x, ((0, 0), (left, right), (0, 0))), (left, x.shape[1])

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        left, time = tape
        return (dy[:, left : left + time],)


class UnitLength(OnRows):
    """x over its length along an axis, or over `least` where it is shorter, and `more` added."""

    _options_in_order = ("axis", "least", "more")

    def forward(self, x: Array) -> tuple[Array, Any]:
        length = np.sqrt(np.square(x).sum(axis=self._config.axis, keepdims=True))
        divisor = np.maximum(length, x.dtype.type(self._config.least))
        divisor += x.dtype.type(self._config.more)
        y = x / divisor
        return y, (y, x, length, divisor)

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        y, x, length, divisor = tape
        along = (dy * y).sum(axis=self._config.axis, keepdims=True)
        varies = (length > self._config.least) & (length > 0)
        slope = np.where(varies, x * along / np.where(varies, length, 1), 0)
        return ((dy - slope) / divisor,)


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind
    for kind in (Dot, Extreme, Join, PadSame, Reduce, SoftmaxOver, Take, UnitLength)
}
