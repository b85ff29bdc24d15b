"""Dropout between modules."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._base.module import storable
from .config import Option
from .feed_forward import FeedForward

__all__ = ["Dropout"]


@storable
class Dropout(FeedForward):
    """In `forward`, set each number to 0 with probability p, and divide the others by 1 - p.

    Called for inference it returns x as it is. Every `forward` draws anew from a random stream of
    the module's own, which `seed` starts; pickling and copying keep where it is.

    Parameters
    ----------
    p : float, default 0.5
        Probability in [0, 1).
    seed : int, optional
        Of the random stream.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    N. Srivastava et al., "Dropout: a simple way to prevent neural networks from overfitting", JMLR
    15, 2014.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> dropout = lc.Dropout(0.5, seed=0)
    >>> y, tape = dropout.forward(np.ones(8))
    >>> y
    array([2., 2., 2., 0., 0., 0., 0., 0.])
    >>> dropout(np.ones(4))
    array([1., 1., 1., 1.])
    """

    p = Option[float]()
    _dropout_rng: np.random.Generator

    def __init__(self, p: float = 0.5, seed: int | None = None) -> None:
        self._config = SimpleNamespace(p=checks.probability(p, "p"))
        self._dropout_rng = np.random.default_rng(checks.seed(seed))

    def _output_size(self, size: int | None) -> int | None:
        return size

    def _stream_stage(self, name: str) -> Any:
        return None

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        if not (train and self.p):
            return x, (None,)
        scale = dropout_scale(self._dropout_rng, x.shape, self.p, x.dtype)
        return x * scale, (scale,)

    def _backward(self, dy: Array, scale: Array | None) -> Array:
        return dy if scale is None else np.asarray(dy * scale)


def dropout_scale(
    rng: np.random.Generator, shape: tuple[int, ...], p: float, dtype: np.dtype[Any]
) -> Array:
    """Return 0 with probability p, else 1 / (1 - p), the same numbers in float32 and float64."""
    kept = rng.random(shape, np.float32) >= p
    scale: Array = kept * dtype.type(1 / (1 - p))
    return scale
