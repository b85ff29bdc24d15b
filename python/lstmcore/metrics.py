"""Metrics: how good predictions are, in numbers for people.

They take the same first arguments as the losses, and leave out the same elements. All are 0.0 where
no element is valid, but for the perplexity and the Nash-Sutcliffe efficiency: these are 1.0 then. A
prediction of NaN is never right.

They return a `losses.Mean`: a float whose ``weight`` is what the mean stands for.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ._base import checks
from ._base.checks import Array
from ._base.scoring import Mean, says
from ._base.targets import classified, paired
from ._public.publish import publish
from .losses import cross_entropy, mse, quantile
from .losses import mae as absolute_error

__all__ = [
    "accuracy",
    "binary_accuracy",
    "bits_per_symbol",
    "confusion_matrix",
    "f1",
    "mae",
    "mape",
    "nse",
    "perplexity",
    "pinball",
    "rmse",
]


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


@says(mode="min")
def mae(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> float:
    """Mean absolute error, in the unit of `pred`: `losses.mae` without its gradient.

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
    >>> mae([1.0, 2.0], [3.0, 2.0])
    1.0
    """
    return absolute_error(pred, target, lengths, weight=weight, batch_first=batch_first)[0]


@says(mode="min")
def mape(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> float:
    """Mean absolute error as a share of the target: 0.1 is 10 percent.

    ``abs(pred - target) / abs(target)``, averaged over every valid target that is not 0: of 0 there
    is no share, so such targets are left out.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first
        As for `losses.mse`.

    Returns
    -------
    float
        At least 0. Its weight is that of the targets that are not 0.

    Raises
    ------
    ValueError, TypeError
        As `losses.mse`.

    Notes
    -----
    The number of scikit-learn's mean_absolute_percentage_error where no target is 0; that one
    divides by 2.2e-16 there.

    Examples
    --------
    >>> mape([75.0, 15.0, 1.0], [100.0, 10.0, 0.0])
    0.375
    """
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    weights = _of_each(w, values.shape)
    counts = (wanted != 0) & (weights != 0)
    t = wanted[counts].astype(np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return _weighted(np.abs((values[counts] - t) / t), weights[counts], scale)


@says(mode="max")
def nse(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> float:
    """Nash-Sutcliffe efficiency: 1 - mean squared error / variance of the targets.

    1 is right everywhere; 0 is as good as the mean of the targets, said every time (J. E. Nash,
    J. V. Sutcliffe, "River flow forecasting through conceptual models", Journal of Hydrology 10,
    1970). It is the coefficient of determination, R squared, of predictions as they are.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first
        As for `losses.mse`. All valid elements are one sample with one mean: of several features,
        or of several basins, take each by itself.

    Returns
    -------
    float
        At most 1. Where all targets are the same, 1.0 if every prediction is right, else -inf.

    Raises
    ------
    ValueError, TypeError
        As `losses.mse`.

    Notes
    -----
    The efficiency of several batches is no mean of theirs. Its `Mean` holds what can be averaged,
    the squared error, the target and the squared target, so that `fit` and `evaluate` give the
    efficiency of all targets together: the means over all batches first, then
    ``1 - error / (square - mean ** 2)``. They are in NumPy's longdouble, as this difference loses
    digits where targets vary little about a large mean.

    Examples
    --------
    >>> nse([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    0.5
    """
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    weights = _of_each(w, values.shape)
    counts = weights != 0
    w_, t = weights[counts].astype(np.longdouble), wanted[counts].astype(np.longdouble)
    with np.errstate(invalid="ignore", over="ignore"):
        error = (values[counts] - t) ** 2
        sums = np.array([(w_ * one).sum() for one in (error, t, t * t, np.ones_like(t))])
        total = float(sums[-1])
        means = sums / (total or 1.0)
    return Mean(_efficiency(means), total * scale, means, _efficiency)


def _efficiency(means: Array) -> float:
    """Return the efficiency of the means of squared error, target, squared target, and 1.

    The last is 1 but for the rounding of weights, which the others have too.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        error, mean, square = means[:3] / (means[3] or 1.0)
        variance = square - mean * mean
    if variance <= 8 * np.finfo(means.dtype).eps * square:  # nothing but rounding
        return 1.0 if error == 0 else -math.inf
    return float(1 - error / variance)


@says(mode="min")
def pinball(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    quantiles: ArrayLike = (0.1, 0.5, 0.9),
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> float:
    """Mean pinball loss of predicted quantiles: `losses.quantile` without its gradient.

    Parameters
    ----------
    pred, target, lengths, quantiles, weight, batch_first
        As for `losses.quantile`.

    Returns
    -------
    float
        In the unit of `pred`; half the mean absolute error for the median.

    Raises
    ------
    ValueError, TypeError
        As `losses.quantile`.

    Examples
    --------
    >>> pinball([1.0, 3.0], [2.0, 2.0], quantiles=0.9)
    0.5
    """
    return quantile(
        pred, target, lengths, quantiles=quantiles, weight=weight, batch_first=batch_first
    )[0]


def confusion_matrix(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    ignore_index: int | None = -100,
) -> Array:
    """Count how often each class was taken for each other one.

    It is a table, not a number, so `fit` does not take it as a metric: call it with the predictions
    of the model.

    Parameters
    ----------
    pred : array (..., C)
        Scores or probabilities. The classes are the last axis, and the highest is the prediction.
    target : integer array (...)
        Class of each prediction, 0 to C - 1.
    lengths, weight, batch_first, ignore_index
        As for `losses.cross_entropy`.

    Returns
    -------
    ndarray (C, C)
        In row i and column j how many valid targets of class i were predicted as j, or their
        weight; float64.

    Raises
    ------
    ValueError, TypeError
        As `losses.cross_entropy`, and if the scores of a valid target have NaN.

    Examples
    --------
    >>> confusion_matrix([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], [1, 0, 0])
    array([[1., 1.],
           [0., 1.]])
    """
    scores, classes, w, scale = classified(pred, target, lengths, weight, batch_first, ignore_index)
    counts = scale * _of_each(w, classes.shape).ravel()
    unknown = np.isnan(scores).any(axis=-1).ravel()
    if counts[unknown].any():
        raise ValueError("pred has NaN where there is a target, expected scores")
    size = scores.shape[-1]
    pairs = classes.ravel() * size + scores.argmax(axis=-1).ravel()
    found: Any = np.bincount(pairs, counts, size * size).reshape(size, size)
    return np.asarray(found, np.float64)


@says(mode="max")
def f1(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    ignore_index: int | None = -100,
    average: str = "macro",
    positive: int | None = None,
) -> float:
    """F1 score: the harmonic mean of precision and recall, 2 TP / (2 TP + FP + FN).

    Parameters
    ----------
    pred : array (..., C)
        Scores or probabilities. The classes are the last axis, and the highest is the prediction.
    target : integer array (...)
        Class of each prediction, 0 to C - 1.
    lengths, weight, batch_first, ignore_index
        As for `losses.cross_entropy`.
    average : {"macro", "weighted", "micro"}, default "macro"
        The mean over the classes that are targets or predictions, each alike, or each as often as
        it is a target; or that of all counts together, which is the accuracy.
    positive : int, optional
        The score of this class alone, in place of a mean.

    Returns
    -------
    float
        0 to 1.

    Raises
    ------
    ValueError, TypeError
        As `losses.cross_entropy`, and if an option is out of range.

    Notes
    -----
    In `fit` and `evaluate` it is that of all targets together, not a mean over batches.

    Examples
    --------
    >>> f1([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], [1, 0, 0])
    0.6666666666666666
    """
    average = checks.choice(average, "average", ("macro", "weighted", "micro"))
    scores, classes, w, scale = classified(pred, target, lengths, weight, batch_first, ignore_index)
    size = scores.shape[-1]
    if positive is not None and checks.integer(positive, "positive", 0) >= size:
        raise ValueError(f"positive is {positive}, expected a class, 0 to {size - 1}")
    each, true = _of_each(w, classes.shape).ravel(), classes.ravel()
    said = scores.argmax(axis=-1).ravel()
    known = each * ~np.isnan(scores).any(axis=-1).ravel()  # a prediction of NaN is no class
    right = np.bincount(true, known * (said == true), size)
    counts: Any = np.stack([right, np.bincount(true, each, size), np.bincount(said, known, size)])
    total = float(each.sum())
    finish = functools.partial(_f1, average=average, positive=positive)
    return Mean(finish(counts), total * scale, counts / total if total else counts, finish)


def _f1(counts: Array, average: str, positive: int | None) -> float:
    """Return the score for shares of what is right, of targets and of predictions, by class."""
    if average == "micro" and positive is None:
        counts = counts.sum(axis=1, keepdims=True)
    right, true, said = counts if positive is None else counts[:, positive, None]
    there = true + said > 0
    if not there.any():
        return 0.0
    scores = 2 * right[there] / (true + said)[there]
    shares = true[there] if average == "weighted" and positive is None else np.ones(len(scores))
    return float((scores * shares).sum() / shares.sum()) if shares.any() else 0.0


def _perplexity(nats: float) -> float:
    """Return the perplexity for a mean cross-entropy, infinite where no float is so large."""
    return math.inf if nats > 709 else math.exp(nats)


def _bits(nats: float) -> float:
    return nats / math.log(2)


def _of_mean(mean: float, finish: Callable[[float], float]) -> Mean:
    """Return a function of a mean, such that the mean over batches can be taken first."""
    assert isinstance(mean, Mean)
    return Mean(finish(mean), mean.weight, mean.mean, finish)


def _of_each(w: Array | None, shape: tuple[int, ...]) -> Array:
    """Return the weight of every element, from those of leading axes."""
    if w is None:
        return np.ones(shape)
    return np.broadcast_to(w.reshape(w.shape + (1,) * (len(shape) - w.ndim)), shape)


def _weighted(values: Array, weights: Array, scale: float) -> Mean:
    """Return the weighted mean of values that all count."""
    total = float(weights.sum())
    return Mean(float((values * weights).sum()) / total if total else 0.0, total * scale)


def _mean(right: NDArray[np.bool_], w: Array | None, scale: float) -> Mean:
    """Return the share of what is right, by weight."""
    if w is None:
        count = right.size
        return Mean(np.count_nonzero(right) / count if count else 0.0, count)
    along = np.broadcast_to(w.reshape(w.shape + (1,) * (right.ndim - w.ndim)), right.shape)
    total = float(along.sum())
    return Mean(float(along[right].sum()) / total if total else 0.0, total * scale)


publish(globals())
