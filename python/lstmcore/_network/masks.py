"""Masks as values of a network: which steps are there, wherever in a row those that are not stand.

A mask is (T, B, 1) of bools. A layer that passes over masked steps is called with what `Compact`
makes of its x, and `Spread` puts its outputs back to where their inputs are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.checks import Array, Lengths
from .._base.flow import Ends, Flow
from .._base.symbolic import Axes
from .operations import Operation

__all__ = ["OPERATIONS", "Compact", "Either", "Marked", "Spread", "Valid"]

Mask = npt.NDArray[np.bool_]


class Valid(Operation):
    """The mask of the steps that have something else than a value: of features, or of ids."""

    _options_in_order = ("value",)

    def _axes(self, x: Axes) -> tuple[Axes, ...]:
        if not x.steps or x.inner:
            raise ValueError(f"x is {x}, expected time steps")
        return (Axes(1, steps=True),)

    def forward(self, x: npt.NDArray[Any]) -> tuple[Mask, Any]:
        there = x != self._config.value
        features = x.dtype.kind == "f"
        return (there.any(axis=-1, keepdims=True) if features else there[..., None]), None

    def backward(self, tape: Any, dy: Any) -> tuple[None]:
        return (None,)

    def __repr__(self) -> str:
        return f"x != {self._config.value:g}"


class Either(Operation):
    """The steps that one of two masks has."""

    def _axes(self, a: Axes, b: Axes) -> tuple[Axes, ...]:
        return (a,)

    def forward(self, a: Mask, b: Mask) -> tuple[Mask, Any]:
        return a | b, None

    def backward(self, tape: Any, dy: Any) -> tuple[None, None]:
        return None, None


class _OfMask(Operation):
    """What takes a value and a mask for its steps, and lengths that cut further."""

    _knows_time = True
    _needs_whole_sequence = True
    _steps_of_all, _steps_of, _lengths_of = False, 1, 1

    def _axes(self, x: Axes, mask: Axes) -> tuple[Axes, ...]:
        if not x.steps or x.inner:
            raise ValueError(f"x is {x}, expected time steps")
        return (x,)

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        x, mask = args
        there = mask[..., 0]
        axis = int(flow.batch_first and there.ndim == 2)
        if flow.lengths is not None:
            time = np.arange(there.shape[axis])
            steps = time[:, None] if there.ndim == 2 and not axis else time
            rows = np.asarray(flow.lengths.rows)
            there = there & (steps < (rows[:, None] if axis else rows))
        if x.shape[: there.ndim] != there.shape:
            raise ValueError(f"{self!r} has {x.shape} and {there.shape}, expected the same steps")
        return self._compute(x, there, axis, flow)

    def _compute(self, x: Any, there: Mask, axis: int, flow: Flow) -> tuple[Any, Any]:
        raise NotImplementedError


def _ends_first(there: Mask, axis: int) -> bool:
    """Whether all that is masked stands behind what is not."""
    rows = there.swapaxes(0, axis)
    return not (rows[1:] > rows[:-1]).any()


class Compact(_OfMask):
    """The steps that are there, moved up to the start of their rows, and how many there are."""

    _moves_steps = True
    _finds_lengths = True

    def _compute(self, x: Any, there: Mask, axis: int, flow: Flow) -> tuple[Any, Any]:
        found = there.sum(axis=axis, dtype=np.int64)
        order = None
        if not _ends_first(there, axis):
            order = np.argsort(~there, axis=axis, kind="stable")
            order = order.reshape(order.shape + (1,) * (x.ndim - order.ndim))
            x = np.take_along_axis(x, order, axis=axis)
        flow.lengths = Lengths(found)
        flow.ends = Ends(found, order is not None)
        return x, (order, axis)

    def backward(self, tape: Any, dy: Array) -> tuple[Any, None]:
        order, axis = tape
        if order is None:
            return dy, None
        dx = np.zeros_like(dy)
        np.put_along_axis(dx, order, dy, axis=axis)
        return dx, None


class Spread(_OfMask):
    """The opposite of `Compact`: outputs where their inputs are.

    Where a step is masked, there is the output before it with fill="repeat", zeros before the first
    and with fill="zero".
    """

    _options_in_order = ("fill",)

    def _compute(self, x: Any, there: Mask, axis: int, flow: Flow) -> tuple[Any, Any]:
        place = np.cumsum(there, axis=axis)[..., None] - 1
        there = (place >= 0) & (there[..., None] | (self._config.fill == "repeat"))
        place = np.maximum(place, 0)
        y = np.where(there, np.take_along_axis(x, place, axis=axis), x.dtype.type(0))
        return y, (place, there, axis)

    def backward(self, tape: Any, dy: Array) -> tuple[Array, None]:
        place, there, axis = tape
        dx = np.zeros_like(dy)
        index: list[Any] = list(np.indices(dy.shape, sparse=True))
        index[axis] = place
        np.add.at(dx, tuple(index), np.where(there, dy, 0))
        return dx, None


class Marked(_OfMask):
    """y itself, and for whoever scores it which of its steps count."""

    _finds_lengths = True
    _needs_whole_sequence = False

    def _compute(self, x: Any, there: Mask, axis: int, flow: Flow) -> tuple[Any, Any]:
        if _ends_first(there, axis):
            flow.lengths = Lengths(there.sum(axis=axis, dtype=np.int64))
        else:
            count = np.full(np.delete(there.shape, axis), there.shape[axis])
            flow.lengths = Lengths(count, there)
        flow.ends = Ends(flow.lengths.rows, False, flow.lengths.there)
        return x, None

    def backward(self, tape: Any, dy: Array) -> tuple[Array, None]:
        return dy, None


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind for kind in (Compact, Either, Marked, Spread, Valid)
}
