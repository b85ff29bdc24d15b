"""Metrics: how good predictions are, in numbers for people.

They take the same first arguments as the losses, and leave out the same elements. All are 0.0 where
no element is valid, but for the perplexity: that is 1.0 then. A prediction of NaN is never right.

They return a `losses.Mean`: a float whose ``weight`` is what the mean stands for.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._base import checks
from ._base.checks import Array
from ._base.scoring import Mean, says
from ._base.targets import classified, paired
from .losses import cross_entropy, mse

__all__ = ["accuracy", "binary_accuracy", "bits_per_symbol", "perplexity", "rmse"]


def __dir__() -> list[str]:
    return __all__


@says(mode="max")
def accuracy(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    ignore_index: int | None = -100,
    top_k: int = 1,
) -> float:
    """Share of the valid targets that are the class of the highest score.

    Parameters
    ----------
    pred : array (..., C)
        Scores or probabilities. The classes are the last axis.
    target : integer array (...)
        Class of each prediction, 0 to C - 1.
    lengths, weight, batch_first, ignore_index
        As for `losses.cross_entropy`.
    top_k : int, default 1
        Count a target if fewer than this many classes have a higher score; of equal scores that of
        the first class counts as the higher.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError, TypeError
        As `losses.cross_entropy`.

    Examples
    --------
    >>> accuracy([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], [1, 0, 0])
    0.6666666666666666
    """
    k = checks.integer(top_k, "top_k", 1)
    scores, classes, w, scale = classified(pred, target, lengths, weight, batch_first, ignore_index)
    picked = np.take_along_axis(scores, classes[..., None], axis=-1)
    if k == 1:
        right = scores.argmax(axis=-1) == classes
    else:
        before = np.arange(scores.shape[-1]) < classes[..., None]
        higher = (scores > picked) | (before & (scores == picked))
        right = higher.sum(axis=-1) < k
    right &= ~np.isnan(picked[..., 0])
    return _mean(right, w, scale)


@says(mode="max", takes_scores="threshold")
def binary_accuracy(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    threshold: float = 0.0,
) -> float:
    """Share of the valid elements that are on the right side of the threshold.

    Parameters
    ----------
    pred : array (...)
        Scores; those above `threshold` mean a positive.
    target : array, shape of `pred`
        True or above 0.5 for a positive.
    lengths, weight, batch_first
        As for `losses.binary_cross_entropy`.
    threshold : float, default 0
        0 for scores before a sigmoid; 0.5 for probabilities.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError, TypeError
        As `losses.mse`.

    Examples
    --------
    >>> binary_accuracy([-2.0, 0.5, 3.0, 1.0], [0, 1, 1, 0])
    0.75
    """
    limit = checks.number(threshold, "threshold")
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    right = ((values > limit) == (wanted > 0.5)) & ~np.isnan(values)
    return _mean(right, w, scale)


@says(mode="min", takes_scores=True)
def perplexity(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    ignore_index: int | None = -100,
) -> float:
    """Exponential of the mean cross-entropy: among how many classes the model hesitates.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first, ignore_index
        As for `losses.cross_entropy`.

    Returns
    -------
    float
        1 for certainty, C for equal scores.

    Raises
    ------
    ValueError, TypeError
        As `losses.cross_entropy`.

    Examples
    --------
    >>> round(perplexity([[0.0, 0.0, 0.0, 0.0]], [2]), 6)
    4.0
    """
    nats, _ = cross_entropy(
        pred, target, lengths, weight=weight, batch_first=batch_first, ignore_index=ignore_index
    )
    return _of_mean(nats, _perplexity)


@says(mode="min", takes_scores=True)
def bits_per_symbol(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    ignore_index: int | None = -100,
) -> float:
    """Mean cross-entropy in bits: bits per character of a character model.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first, ignore_index
        As for `losses.cross_entropy`.

    Returns
    -------
    float
        0 for certainty, log2(C) for equal scores.

    Raises
    ------
    ValueError, TypeError
        As `losses.cross_entropy`.

    Examples
    --------
    >>> round(bits_per_symbol([[0.0, 0.0, 0.0, 0.0]], [2]), 6)
    2.0
    """
    nats, _ = cross_entropy(
        pred, target, lengths, weight=weight, batch_first=batch_first, ignore_index=ignore_index
    )
    return _of_mean(nats, _bits)


@says(mode="min")
def rmse(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> float:
    """Root of the mean squared error, in the unit of `pred`.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first
        As for `losses.mse`.

    Returns
    -------
    float

    Raises
    ------
    ValueError, TypeError
        As `losses.mse`.

    Examples
    --------
    >>> rmse([1.0, 2.0], [1.0, 4.0])
    1.4142135623730951
    """
    squared, _ = mse(pred, target, lengths, weight=weight, batch_first=batch_first)
    return _of_mean(squared, math.sqrt)


def _perplexity(nats: float) -> float:
    """Return the perplexity for a mean cross-entropy, infinite where no float is so large."""
    return math.inf if nats > 709 else math.exp(nats)


def _bits(nats: float) -> float:
    return nats / math.log(2)


def _of_mean(mean: float, finish: Callable[[float], float]) -> Mean:
    """Return a function of a mean, such that the mean over batches can be taken first."""
    assert isinstance(mean, Mean)
    return Mean(finish(mean), mean.weight, mean.mean, finish)


def _mean(right: NDArray[np.bool_], w: Array | None, scale: float) -> Mean:
    """Return the share of what is right, by weight."""
    if w is None:
        count = right.size
        return Mean(np.count_nonzero(right) / count if count else 0.0, count)
    along = np.broadcast_to(w.reshape(w.shape + (1,) * (right.ndim - w.ndim)), right.shape)
    total = float(along.sum())
    return Mean(float(along[right].sum()) / total if total else 0.0, total * scale)
