"""Pooling over time: the last step, the mean or the maximum of every sequence."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.module import storable
from .config import MERGES, Option
from .over_time import OverTime, valid_steps

__all__ = ["BothEnds", "LastStep", "MaxPool", "MeanPool", "Pool"]


class Pool(OverTime):
    """What LastStep, BothEnds, MeanPool and MaxPool share: (T, B, F) to (B, F)."""

    _keeps_time = False
    _needs_whole_sequence = True


@storable
class LastStep(Pool):
    """The last valid step of every sequence.

    In a bidirectional layer's y the reverse direction has by then seen one step only: its summary
    of the whole sequence is in y at step 0. `BothEnds` takes each where it has seen all.

    Parameters
    ----------
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    TypeError
        If an option has a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = np.arange(6.0).reshape(3, 2, 1)
    >>> lc.LastStep()(x, lengths=[3, 1])
    array([[4.],
           [1.]])
    """

    _needs_whole_sequence = False  # the last step of those so far is there at every step
    each_step = True

    def _compute(
        self, x: Any, lengths: Any, batch_first: bool, train: bool, *beside: Any
    ) -> tuple[Array, Any]:
        if lengths is None and not train:  # the same step of all rows
            x = self._input(x, batch_first)
            steps = x.swapaxes(0, 1) if batch_first and x.ndim == 3 else x
            if len(steps):
                return steps[-1].copy(), None
        return super()._compute(x, lengths, batch_first, train, *beside)

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        rows = np.flatnonzero(ends)
        last = ends[rows] - 1
        y = np.zeros(x.shape[1:], x.dtype)
        y[rows] = x[last, rows]
        return y, last, rows

    def _backward(
        self, dy: Array, dx: Array, last: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> None:
        dx[last, rows] = dy[rows]


@storable
class BothEnds(Pool):
    """The summary of each direction of a bidirectional layer: where it has seen all steps.

    That is the last valid step of the forward direction, the first half of the features, and step
    0 of the reverse one, the second half. So a bidirectional layer of Keras pools with
    ``return_sequences=False``.

    Parameters
    ----------
    merge : {"concat", "sum", "mul", "ave"}, default "concat"
        What becomes of the two: side by side (B, F), or their sum, product or average (B, F/2).
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    TypeError, ValueError
        If an option has a wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = np.arange(12.0).reshape(3, 2, 2)
    >>> lc.BothEnds()(x, lengths=[3, 1])
    array([[8., 1.],
           [2., 3.]])
    """

    merge = Option[str]()

    def __init__(self, merge: str = "concat", batch_first: bool | None = None) -> None:
        super().__init__(batch_first)
        self._config.merge = checks.choice(merge, "merge", MERGES)

    def _output_size(self, size: int | None) -> int | None:
        return size if size is None or self.merge == "concat" else size // 2

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        features = x.shape[2]
        if features % 2:
            raise ValueError(f"x has {features} features, expected two halves of the same size")
        rows = np.flatnonzero(ends)
        last = ends[rows] - 1
        forward, reverse = np.zeros((2, x.shape[1], features // 2), x.dtype)
        forward[rows] = x[last, rows, : features // 2]
        reverse[rows] = x[np.zeros_like(rows), rows, features // 2 :]
        if self.merge == "concat":
            y = np.concatenate([forward, reverse], axis=1)
        elif self.merge == "mul":
            y = forward * reverse
        else:
            y = forward + reverse
            if self.merge == "ave":
                y /= 2
        return y, last, rows, forward, reverse

    def _backward(
        self,
        dy: Array,
        dx: Array,
        last: npt.NDArray[np.int64],
        rows: npt.NDArray[np.int64],
        forward: Array,
        reverse: Array,
    ) -> None:
        half = forward.shape[1]
        if self.merge == "concat":
            dforward, dreverse = dy[:, :half], dy[:, half:]
        elif self.merge == "mul":
            dforward, dreverse = dy * reverse, dy * forward
        else:
            dforward = dreverse = dy / 2 if self.merge == "ave" else dy
        dx[last, rows, :half] = dforward[rows]
        dx[np.zeros_like(rows), rows, half:] += dreverse[rows]


@storable
class MeanPool(Pool):
    """The mean over the valid steps of every sequence.

    Parameters
    ----------
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    TypeError
        If an option has a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = np.arange(6.0).reshape(3, 2, 1)
    >>> lc.MeanPool()(x, lengths=[3, 1])
    array([[2.],
           [1.]])
    """

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        valid = valid_steps(len(x), ends)[..., None]
        share = (1 / np.maximum(ends, 1)[:, None]).astype(x.dtype)
        y = np.where(valid, x, x.dtype.type(0)).sum(axis=0) * share
        return y, valid, share

    def _backward(self, dy: Array, dx: Array, valid: npt.NDArray[np.bool_], share: Array) -> None:
        np.copyto(dx, dy * share, where=valid)


@storable
class MaxPool(Pool):
    """The maximum over the valid steps of every sequence, of each feature by itself.

    Of equal maxima the first gets the gradient.

    Parameters
    ----------
    batch_first : bool, optional
        Whether x is (B, T, F). None, the default, is False, and in a `Sequential` what its
        recurrent layers have.

    Raises
    ------
    TypeError
        If an option has a wrong type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = np.arange(6.0).reshape(3, 2, 1)
    >>> lc.MaxPool()(x, lengths=[3, 1])
    array([[4.],
           [1.]])
    """

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        some = ends[:, None] > 0
        if not len(x):
            return np.zeros(x.shape[1:], x.dtype), None, some
        step = np.where(valid_steps(len(x), ends)[..., None], x, -np.inf).argmax(axis=0)[None]
        y = np.where(some, np.take_along_axis(x, step, axis=0)[0], x.dtype.type(0))
        return y, step, some

    def _backward(
        self,
        dy: Array,
        dx: Array,
        step: npt.NDArray[np.int64] | None,
        some: npt.NDArray[np.bool_],
    ) -> None:
        if step is not None:
            np.put_along_axis(dx, step, np.where(some, dy, 0)[None], axis=0)
