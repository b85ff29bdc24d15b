"""Flip: sequences read from their ends."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._base.checks import Array
from .._base.module import storable
from .over_time import OverTime

__all__ = ["Flip"]


@storable
class Flip(OverTime):
    """The steps of every sequence in the opposite order, respecting lengths.

    A layer after it reads sequences from their ends, and gives its outputs in the order in which
    it has read, as Keras does with ``go_backwards=True``. A layer with ``reverse=True`` also reads
    from the end, but leaves its outputs where their inputs are.

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
    >>> x = np.arange(1.0, 7).reshape(3, 2, 1)
    >>> lc.Flip()(x, lengths=[3, 2])[..., 0]
    array([[5., 4.],
           [3., 2.],
           [1., 0.]])
    """

    _moves_steps = True
    _needs_whole_sequence = True

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        return _flipped(x, ends), ends

    def _backward(self, dy: Array, dx: Array, ends: npt.NDArray[np.int64]) -> None:
        dx[...] = _flipped(dy, ends)


def _flipped(x: Array, ends: npt.NDArray[np.int64]) -> Array:
    """Return a copy of x (T, B, F) with the first `ends` steps of every row flipped, then 0."""
    source = ends - 1 - np.arange(len(x))[:, None]
    flipped = np.take_along_axis(x, np.maximum(source, 0)[..., None], axis=0)
    flipped[source < 0] = 0
    return flipped
