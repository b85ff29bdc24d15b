"""Modules that make other steps of those of a sequence: more, fewer, or one of several."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.flow import Ends, Flow
from .._base.module import storable
from .._nn.config import Option
from .._nn.over_time import OverTime

__all__ = ["AvgPool1D", "MaxPool1D", "Pad1D", "UpSample1D"]

Ints = npt.NDArray[np.int64]


class OtherSteps(OverTime):
    """What they share: y has other steps than x, and its rows other lengths."""

    _changes_lengths = True
    _needs_whole_sequence = True

    def _ends(self, ends: Ints) -> Ints:
        """Return how many steps of y there are for so many of x."""
        raise NotImplementedError

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        if flow.resets is not None:
            raise ValueError(f"resets cannot be given to a model with {self!r}, which moves steps")
        y, tape = super()._apply(x, flow, train)
        if flow.lengths is not None:
            found = self._ends(np.asarray(flow.lengths.rows))
            flow.ends = Ends(found, flow.ends is not None and flow.ends.moved)
            flow.lengths = checks.Lengths(found)
        return y, tape


class Gathered(OtherSteps):
    """What Pad1D and UpSample1D share: each step of y is a step of x, or zeros."""

    def _source(self, ends: Ints, count: int) -> Ints:
        """Return which step of x each of `count` steps of y is, (count, B); others are zeros."""
        raise NotImplementedError

    def _forward(self, x: Array, ends: Ints) -> tuple[Any, ...]:
        count = int(self._ends(np.asarray(len(x))))
        source = self._source(ends, count)
        there = (source >= 0) & (source < ends)
        there &= np.arange(count)[:, None] < self._ends(ends)
        step, row = np.nonzero(there)
        y = np.zeros((count, *x.shape[1:]), x.dtype)
        y[step, row] = x[source[step, row], row]
        return y, step, row, source[step, row]

    def _backward(self, dy: Array, dx: Array, step: Ints, row: Ints, source: Ints) -> None:
        np.add.at(dx, (source, row), dy[step, row])


@storable
class Pad1D(Gathered):
    """Steps of zeros before and after every sequence, or fewer steps.

    Parameters
    ----------
    left, right : int
        How many steps of zeros come before the first and after the last step of a row; so many
        steps are left out there if it is below 0.
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.Pad1D(1, 0)([[1.0], [2.0]]).ravel(), lc.Pad1D(-1, 1)([[1.0], [2.0]]).ravel()
    (array([0., 1., 2.]), array([2., 0.]))
    """

    left = Option[int]()
    right = Option[int]()

    def __init__(self, left: int, right: int, batch_first: bool | None = None) -> None:
        super().__init__(batch_first)
        self._config.left = checks.integer(left, "left", -(2**31))
        self._config.right = checks.integer(right, "right", -(2**31))

    def _ends(self, ends: Ints) -> Ints:
        return np.maximum(ends + self.left + self.right, 0)

    def _source(self, ends: Ints, count: int) -> Ints:
        return np.repeat(np.arange(count)[:, None] - self.left, len(ends), axis=1)


@storable
class UpSample1D(Gathered):
    """Every step several times, one after the other.

    Parameters
    ----------
    size : int
        How often, at least 1.
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.UpSample1D(2)([[1.0], [2.0]]).ravel()
    array([1., 1., 2., 2.])
    """

    size = Option[int]()

    def __init__(self, size: int, batch_first: bool | None = None) -> None:
        super().__init__(batch_first)
        self._config.size = checks.integer(size, "size", 1)

    def _ends(self, ends: Ints) -> Ints:
        return ends * self.size

    def _source(self, ends: Ints, count: int) -> Ints:
        return np.repeat(np.arange(count)[:, None] // self.size, len(ends), axis=1)


# Pooling over windows -----------------------------------------------------------------------------


class WindowPool(OtherSteps):
    """What MaxPool1D and AvgPool1D share: windows of so many steps, so many apart."""

    size = Option[int]()
    stride = Option[int]()
    padding = Option[str]()

    def __init__(
        self,
        size: int,
        stride: int | None = None,
        padding: str = "valid",
        batch_first: bool | None = None,
    ) -> None:
        super().__init__(batch_first)
        self._config.size = checks.integer(size, "size", 1)
        self._config.stride = checks.integer(size if stride is None else stride, "stride", 1)
        self._config.padding = checks.choice(padding, "padding", ("valid", "same"))

    def _ends(self, ends: Ints) -> Ints:
        least = 1 if self.padding == "same" else self.size
        found: Ints = np.maximum(ends - least + self.stride, 0) // self.stride
        return found

    def _windows(self, ends: Ints, count: int) -> tuple[Ints, npt.NDArray[np.bool_]]:
        """Return which step of x each part of a window is, (size, count, B), and which is there."""
        steps = self._ends(ends)
        reach = (steps - 1) * self.stride + self.size
        left = np.maximum(reach - ends, 0) // 2 if self.padding == "same" else np.zeros_like(ends)
        start = np.arange(count)[:, None] * self.stride - left
        source = start + np.arange(self.size)[:, None, None]
        there = (source >= 0) & (source < ends) & (np.arange(count)[:, None] < steps)
        return np.where(there, source, 0), there


@storable
class MaxPool1D(WindowPool):
    """The maximum of each feature over windows of steps.

    Parameters
    ----------
    size : int
        Steps of a window, at least 1.
    stride : int, optional
        Steps from one window to the next; `size` if not given.
    padding : {"valid", "same"}, default "valid"
        "valid" takes windows whose steps are all there; "same" as many as there are strides begun,
        with the first and last window reaching over the ends by the same, or the last by one more.
        What is not there does not count.
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    Of equal maxima the first gets the gradient. Lengths of rows follow, and a row gives what it
    would give without its padding.

    Examples
    --------
    >>> import lstmcore as lc
    >>> x = [[1.0], [3.0], [2.0], [5.0], [4.0]]
    >>> lc.MaxPool1D(2)(x).ravel(), lc.MaxPool1D(2, padding="same")(x).ravel()
    (array([3., 5.]), array([3., 5., 4.]))
    """

    def _forward(self, x: Array, ends: Ints) -> tuple[Any, ...]:
        count = int(self._ends(np.asarray(len(x))))
        source, there = self._windows(ends, count)
        rows = np.arange(x.shape[1])
        y = np.zeros((count, *x.shape[1:]), x.dtype)
        best = np.zeros(y.shape, np.int64)
        seen = np.zeros(there.shape[1:], np.bool_)
        for steps, valid in zip(source, there, strict=True):
            here = x[steps, rows] if len(x) else y
            better = valid[..., None] & (~seen[..., None] | (here > y) | np.isnan(here))
            y = np.where(better, here, y)
            best = np.where(better, steps[..., None], best)
            seen |= valid
        return y, best, seen

    def _backward(self, dy: Array, dx: Array, best: Ints, seen: npt.NDArray[np.bool_]) -> None:
        row, feature = np.arange(dx.shape[1])[:, None], np.arange(dx.shape[2])
        if best.size:
            np.add.at(dx, (best, row, feature), np.where(seen[..., None], dy, 0))


@storable
class AvgPool1D(WindowPool):
    """The mean of each feature over windows of steps.

    Parameters
    ----------
    size : int
        Steps of a window, at least 1.
    stride : int, optional
        Steps from one window to the next; `size` if not given.
    padding : {"valid", "same"}, default "valid"
        As of `MaxPool1D`: the mean is over the steps that are there.
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> x = [[1.0], [3.0], [2.0], [5.0], [4.0]]
    >>> lc.AvgPool1D(2)(x).ravel(), lc.AvgPool1D(2, padding="same")(x).ravel()
    (array([2. , 3.5]), array([2. , 3.5, 4. ]))
    """

    def _forward(self, x: Array, ends: Ints) -> tuple[Any, ...]:
        count = int(self._ends(np.asarray(len(x))))
        source, there = self._windows(ends, count)
        rows = np.arange(x.shape[1])
        share = (1 / np.maximum(there.sum(axis=0), 1)[..., None]).astype(x.dtype)
        y = np.zeros((count, *x.shape[1:]), x.dtype)
        for steps, valid in zip(source, there, strict=True):
            if len(x):
                y += np.where(valid[..., None], x[steps, rows], 0)
        return y * share, source, there, share

    def _backward(
        self, dy: Array, dx: Array, source: Ints, there: npt.NDArray[np.bool_], share: Array
    ) -> None:
        rows = np.broadcast_to(np.arange(dx.shape[1]), source.shape[1:])
        for steps, valid in zip(source, there, strict=True):
            if len(dx):
                np.add.at(dx, (steps, rows), np.where(valid[..., None], dy * share, 0))
