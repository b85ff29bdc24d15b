"""Losses: each returns its value and its gradient, which goes straight into ``backward``.

All but `ctc`, which is of whole rows, are weighted means, and take the same arguments:

Lengths
    Where `lengths` are given, the first two axes are time and batch, (T, B, ...), or (B, T, ...)
    with ``batch_first=True``. What is past the end of a sequence counts for nothing: predictions
    and targets there are never looked at, and their gradient is 0.
Weights
    With `weight` the loss is ``sum(weight * loss) / sum(weight)`` over all valid elements, so that
    weights of 0 and 1 mask as `lengths` do, and their scale does not matter. Elements of weight 0
    are not looked at. Weights are finite and at least 0.
Nothing to average
    Where no element is valid, or the weights sum to 0, the loss is 0.0 and the gradient 0.
What the mean stands for
    The loss is a `Mean`, a float whose ``weight`` is the sum of the weights, or how many valid
    elements there were: means of batches, so weighted, give the mean of all.
Types
    The gradient has the dtype of `pred`, float32 or float64 (integers and float16 are converted to
    one that holds them); sums are in float64. NaN and infinity give a loss that is NaN or infinite.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from . import _core
from ._base import checks
from ._base.checks import Array
from ._base.scoring import Mean, says
from ._base.targets import (
    blank_class,
    check_weights,
    classified,
    labelled,
    paired,
    parted,
    scored_steps,
)
from ._public.publish import publish

__all__ = [
    "Mean",
    "binary_cross_entropy",
    "cross_entropy",
    "ctc",
    "gaussian_nll",
    "huber",
    "mae",
    "mse",
    "quantile",
]


@says(mode="min", takes_scores=True)
def cross_entropy(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    class_weight: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    ignore_index: int | None = -100,
) -> tuple[float, Array]:
    """Cross-entropy of a softmax over the last axis, averaged over the valid targets.

    For each target k the loss is ``log(sum(exp(pred))) - pred[k]`` (Bishop, Pattern Recognition and
    Machine Learning, 2006, equation 4.108), in nats.

    Parameters
    ----------
    pred : array (..., C)
        Scores before the softmax. The classes are the last axis.
    target : integer array (...)
        Class of each prediction, 0 to C - 1.
    lengths : integer array (B,), optional
        Valid steps of each sequence, for `pred` (T, B, C) and `target` (T, B).
    weight : array, shape of `target`, optional
        Weight of each target.
    batch_first : bool, default False
        With `lengths`, `pred` is (B, T, C) and `target` (B, T).
    class_weight : array (C,), optional
        Weight of the targets of each class, PyTorch's `weight`: it multiplies `weight`.
    label_smoothing : float, default 0
        Share of each target, in [0, 1], that is spread evenly over all classes (C. Szegedy et al.,
        "Rethinking the Inception Architecture for Computer Vision", 2016).
    ignore_index : int or None, default -100
        Targets of this value are not valid; None for no such value.

    Returns
    -------
    loss : float
        The weighted mean; 0.0 if there is no valid target.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: (softmax - one-hot) / number of valid targets, without weights.

    Raises
    ------
    ValueError
        If the shapes do not fit, a valid target is not a class, or an option is out of range.
    TypeError
        If an argument is of the wrong type or dtype.

    Notes
    -----
    The numbers are those of PyTorch's cross_entropy. In PyTorch only `class_weight` exists; the
    mean is divided by the sum of the weights of the targets there too.

    Examples
    --------
    >>> loss, dpred = cross_entropy([[0.0, 0.0], [2.0, 0.0]], [1, 0])
    >>> round(loss, 4)
    0.41
    >>> dpred.round(2)
    array([[ 0.25, -0.25],
           [-0.06,  0.06]])
    """
    scores, classes, w, scale = classified(pred, target, lengths, weight, batch_first, ignore_index)
    smoothing = checks.number(label_smoothing, "label_smoothing")
    if not 0 <= smoothing <= 1:
        raise ValueError(f"label_smoothing is {label_smoothing}, expected 0 to 1")
    num_classes = scores.shape[-1]
    of_class = None if class_weight is None else _class_weight(class_weight, num_classes)
    dpred = _core.empty(scores.shape, scores.dtype)
    x, k, dx = scores.reshape(-1, num_classes), classes.ravel(), dpred.reshape(-1, num_classes)

    share = np.ones(k.size) if w is None else w.ravel()  # of each target in the mean
    picked = share if of_class is None else share * of_class[k]
    total = picked.sum()
    if total == 0:
        dpred.fill(0)
        return Mean(0.0, 0.0), dpred
    factor = hit = picked * ((1 - smoothing) / total)
    if smoothing:
        spread = share * (smoothing / num_classes / total)  # times each class's weight
        factor = hit + spread * (num_classes if of_class is None else of_class.sum())
    f = factor.astype(x.dtype)
    of_target = _core.cross_entropy(x, k, f, f if hit is factor else hit.astype(x.dtype), dx)
    with np.errstate(invalid="ignore", over="ignore"):  # what is not finite is the caller's
        terms = factor * of_target
        loss = float(terms.sum()) if picked is share and w is None else _sum(terms, factor)
        if smoothing:
            # The others' losses differ from that of the target by pred[k] - pred.
            others = x.sum(axis=-1) if of_class is None else np.einsum("nc,c->n", x, of_class)
            differences = (factor - hit) * x[np.arange(k.size), k] - spread * others
            loss += _sum(differences, spread)
            part = spread.astype(x.dtype)[:, None]
            dx -= part if of_class is None else part * of_class.astype(x.dtype)
    return Mean(loss, float(total) * scale), dpred


@says(mode="min")
def mse(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Mean squared error, averaged over every valid element.

    Parameters
    ----------
    pred : array (...)
        Predictions.
    target : array, shape of `pred`
        Nothing is broadcast.
    lengths : integer array (B,), optional
        Valid steps of each sequence, for `pred` and `target` (T, B, ...).
    weight : array, shape of `pred`, or that without its last axis, optional
        Weight of each element, or of each step.
    batch_first : bool, default False
        With `lengths`, `pred` and `target` are (B, T, ...).

    Returns
    -------
    loss : float
        In the squared unit of `pred`; 0.0 if there is no valid element.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: 2 (pred - target) / number of valid elements, without weights.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a weight is not finite or negative.
    TypeError
        If an argument is of the wrong type or dtype.

    Examples
    --------
    >>> mse([1.0, 2.0], [0.0, 2.0])
    (0.5, array([1., 0.]))
    >>> mse([[1.0, 2.0], [3.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]], weight=[1, 0])[0]
    2.5
    """
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    with np.errstate(invalid="ignore", over="ignore"):
        error = values - wanted
        return _mean(error * error, error, w, scale, 2.0)


@says(mode="min")
def mae(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Mean absolute error, averaged over every valid element. The gradient is 0 where it is 0.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first
        As for `mse`.

    Returns
    -------
    loss : float
        In the unit of `pred`; 0.0 if there is no valid element.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: sign(pred - target) / number of valid elements, without weights.

    Raises
    ------
    ValueError, TypeError
        As `mse`.

    Examples
    --------
    >>> mae([1.0, 2.0], [3.0, 2.0])
    (1.0, array([-0.5,  0. ]))
    """
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    with np.errstate(invalid="ignore", over="ignore"):
        error = values - wanted
        return _mean(np.abs(error), np.sign(error), w, scale)


@says(mode="min")
def huber(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    delta: float = 1.0,
) -> tuple[float, Array]:
    """The Huber loss: squared for small errors, absolute for large ones.

    With e = pred - target it is ``e^2 / 2`` where ``|e| <= delta``, else ``delta (|e| - delta/2)``
    (P. J. Huber, "Robust Estimation of a Location Parameter", 1964), averaged over every valid
    element.

    Parameters
    ----------
    pred, target, lengths, weight, batch_first
        As for `mse`. (PyTorch divides by the number of elements, not by the sum of the weights.)
    delta : float, default 1.0
        Where the two meet, in the unit of `pred`; above 0.

    Returns
    -------
    loss : float
        0.0 if there is no valid element.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: e held to [-delta, delta], by the number of valid elements, without
        weights.

    Raises
    ------
    ValueError, TypeError
        As `mse`, and if `delta` is not above 0.

    Examples
    --------
    >>> huber([0.5, 3.0], [0.0, 0.0])
    (1.3125, array([0.25, 0.5 ]))
    """
    values, wanted, w, scale = paired(pred, target, lengths, weight, batch_first)
    bound = checks.number(delta, "delta")
    if bound <= 0:
        raise ValueError(f"delta is {delta}, expected above 0")
    with np.errstate(invalid="ignore", over="ignore"):
        error = values - wanted
        held = np.clip(error, -bound, bound)
        error -= held / 2
        error *= held
        return _mean(error, held, w, scale)


@says(mode="min", takes_scores=True)
def binary_cross_entropy(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
    pos_weight: ArrayLike | None = None,
) -> tuple[float, Array]:
    """Cross-entropy of a sigmoid, of scores **before** it, averaged over every valid element.

    For the score x and the target t it is ``t log(1 + exp(-x)) + (1 - t) log(1 + exp(x))`` (Bishop,
    Pattern Recognition and Machine Learning, 2006, equation 4.90), in nats: PyTorch's
    binary_cross_entropy_with_logits.

    Parameters
    ----------
    pred : array (...)
        Scores before the sigmoid, also called logits.
    target : array, shape of `pred`
        The probability of a positive, 0 to 1; bools and integers too.
    lengths, weight, batch_first
        As for `mse`. (PyTorch divides by the number of elements, not by the sum of the weights.)
    pos_weight : float or array (shape of the last axis), optional
        Factor of the first term, at least 0: above 1 it favours recall, below 1 precision. It does
        not count in the sum that the mean is divided by, as in PyTorch.

    Returns
    -------
    loss : float
        0.0 if there is no valid element.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: (sigmoid(pred) - target) / number of valid elements, without weights.

    Raises
    ------
    ValueError
        If the shapes do not fit, a valid target is not within 0 to 1, or a weight is not finite or
        negative.
    TypeError
        If an argument is of the wrong type or dtype.

    Examples
    --------
    >>> loss, dpred = binary_cross_entropy([0.0, 2.0], [0, 1])
    >>> round(loss, 4), dpred.round(2)
    (0.41, array([ 0.25, -0.06]))
    """
    x, t, w, scale = paired(pred, target, lengths, weight, batch_first)
    valid = t if w is None else t[w != 0]
    if valid.size and not (valid.min() >= 0 and valid.max() <= 1):  # also true for NaN
        wrong = valid[~((valid >= 0) & (valid <= 1))]
        raise ValueError(f"target has {wrong[0]}, expected 0 to 1")
    p = None if pos_weight is None else _pos_weight(pos_weight, x)
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = np.minimum(x, 0), np.minimum(-x, 0)  # one of which is 0
        a, b = np.exp(low), np.exp(high)  # and one of which is 1
        e = a * b  # exp(-|x|)
        log = np.log1p(e)
        negative, positive = 1 - t, t if p is None else p * t
        losses = negative * (log - high) + positive * (log - low)
        return _mean(losses, (negative * a - positive * b) / (1 + e), w, scale)


@says(mode="min")
def quantile(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    quantiles: ArrayLike = (0.1, 0.5, 0.9),
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Array]:
    """Quantile loss, also called pinball loss, of several quantiles at once.

    For the quantile q and e = target - pred it is ``max(q e, (q - 1) e)``: least where a share q of
    the targets is below the prediction (R. Koenker, G. Bassett, "Regression Quantiles",
    Econometrica 46, 1978). Averaged over the quantiles and over every valid target.

    Parameters
    ----------
    pred : array (..., Q), or (..., Q * F)
        The Q quantiles of each target. For targets of F features, F wide for each quantile: first
        the first quantile of all features.
    target : array (...), or (..., F)
    lengths : integer array (B,), optional
        Valid steps of each sequence, for `pred` and `target` (T, B, ...).
    quantiles : float or array (Q,), default (0.1, 0.5, 0.9)
        Above 0 and below 1, in any order; 0.5 is the median.
    weight : array, shape of `target`, or of `pred` without its last axis, optional
        Weight of each target, or of each step.
    batch_first : bool, default False
        With `lengths`, `pred` and `target` are (B, T, ...).

    Returns
    -------
    loss : float
        In the unit of `pred`; 0.0 if there is no valid target.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: 1 - q where pred is above the target, -q below, 0 where they are
        equal, by the number of quantiles and of valid targets, without weights.

    Raises
    ------
    ValueError
        If the shapes do not fit, a quantile is not within 0 and 1, or a weight is not finite or
        negative.
    TypeError
        If an argument is of the wrong type or dtype.

    Notes
    -----
    The mean over the quantiles of scikit-learn's mean_pinball_loss.

    Examples
    --------
    >>> pred, target = [[1.0, 2.0, 3.0], [1.0, 2.0, 3.0]], [2.5, 0.0]
    >>> loss, dpred = quantile(pred, target, quantiles=[0.1, 0.5, 0.9])
    >>> round(loss, 4)
    0.4417
    >>> (dpred * 6).round(2)
    array([[-0.1, -0.5,  0.1],
           [ 0.9,  0.5,  0.1]])
    """
    shares = _quantiles(quantiles)
    values, wanted, w, scale = parted(
        pred, target, lengths, weight, batch_first, shares.size, "a prediction for each quantile"
    )
    below = shares.astype(values.dtype)[:, None]
    with np.errstate(invalid="ignore", over="ignore"):
        error = values - wanted
        # NaN where the error is NaN, 0 where it is 0.
        slope = np.sign(error) * np.where(error > 0, 1 - below, below)
        loss, grad = _mean(slope * error, slope, w, scale)
    return Mean(loss, loss.weight / shares.size), grad.reshape(np.shape(pred))


@says(mode="min", takes_parts=True)
def gaussian_nll(
    pred: ArrayLike | tuple[ArrayLike, ArrayLike],
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    log_variance: bool = True,
    full: bool = False,
    eps: float = 1e-6,
    weight: ArrayLike | None = None,
    batch_first: bool = False,
) -> tuple[float, Any]:
    """Negative log-likelihood of a normal distribution whose mean and variance are predicted.

    For the mean m and the variance v it is ``(log(v) + (m - target)^2 / v) / 2``, with
    ``log(2 pi) / 2`` more if `full` (D. A. Nix, A. S. Weigend, "Estimating the mean and variance of
    the target probability distribution", 1994), averaged over every valid target, in nats.

    Parameters
    ----------
    pred : array (..., 2) or (..., 2 * F), or a tuple of two arrays (..., F)
        Mean and log-variance, or variance: first the means of all F features, then the others.
    target : array (...), or (..., F); of the shape of each of two
    lengths : integer array (B,), optional
        Valid steps of each sequence, for `pred` and `target` (T, B, ...).
    log_variance : bool, default True
        Whether the second is log(v), which may be any number, as a Linear gives it, rather than v,
        which is at least 0, as a Softplus gives it.
    full : bool, default False
        Whether to add the constant.
    eps : float, default 1e-6
        Lower variances count as this one, in the squared unit of the target; above 0. The gradient
        is that of this variance then, not 0, so that it can grow again.
    weight : array, shape of `target`, or of `pred` without its last axis, optional
        Weight of each target, or of each step.
    batch_first : bool, default False
        With `lengths`, `pred` and `target` are (B, T, ...).

    Returns
    -------
    loss : float
        0.0 if there is no valid target.
    dpred : ndarray, or tuple of two, shape and dtype of `pred`
        Gradient of the loss.

    Raises
    ------
    ValueError
        If the shapes do not fit, a valid variance is negative, `eps` is not above 0, or a weight is
        not finite or negative.
    TypeError
        If an argument is of the wrong type or dtype.

    Notes
    -----
    The numbers are those of PyTorch's GaussianNLLLoss, which takes variances.

    Examples
    --------
    >>> loss, dpred = gaussian_nll([[0.0, 0.0], [1.0, 0.0]], [0.0, 3.0])  # of variance 1
    >>> loss
    1.0
    >>> dpred
    array([[ 0.  ,  0.25],
           [-1.  , -0.75]])
    >>> gaussian_nll(([0.0, 1.0], [1.0, 1.0]), [0.0, 3.0], log_variance=False)[0]
    1.0
    """
    pair = isinstance(pred, tuple)
    both: Any = _side_by_side(pred) if pair else pred
    logarithmic = checks.boolean(log_variance, "log_variance")
    full = checks.boolean(full, "full")
    least = checks.number(eps, "eps")
    if least <= 0:
        raise ValueError(f"eps is {eps}, expected above 0")
    values, wanted, w, scale = parted(
        both, target, lengths, weight, batch_first, 2, "mean and variance of each target"
    )
    mean, spread = values[..., :1, :], values[..., 1:, :]
    if not logarithmic:
        counts = spread if w is None else spread[_like(w, spread) != 0]
        if counts.size and counts.min() < 0:
            raise ValueError(f"pred has the variance {counts.min()}, expected at least 0")
    with np.errstate(invalid="ignore", over="ignore"):
        if logarithmic:
            log = np.maximum(spread, math.log(least))
            precision = np.exp(-log)
        else:
            held = np.maximum(spread, least)
            log, precision = np.log(held), 1 / held
        error = mean - wanted
        pull = error * precision
        square = error * pull
        dspread = (1 - square) / 2 if logarithmic else (1 - square) * precision / 2
        terms = np.concatenate([log, square], axis=-2)
        # Their mean is that of half of their sum, which the loss is.
        loss, grad = _mean(terms, np.concatenate([pull, dspread], axis=-2), w, scale, 2.0)
    value = float(loss) + (math.log(2 * math.pi) / 2 if full and loss.weight else 0.0)
    grad = grad.reshape(np.shape(both))
    gradient = tuple(np.split(grad, 2, axis=-1)) if pair else grad
    return Mean(value, loss.weight / 2), gradient


@says(mode="min", takes_scores=True)
def ctc(
    logits: ArrayLike,
    targets: Any,
    lengths: ArrayLike | None = None,
    *,
    target_lengths: ArrayLike | None = None,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
    batch_first: bool = False,
) -> tuple[Any, Array]:
    """Connectionist temporal classification: labels without saying at which steps they are.

    Each step says a label or the blank; a label may last several steps, and between two that are
    equal there is a blank at least. The loss of a row is -log of the probability of its labels:
    that of all ways to say them together (A. Graves et al., "Connectionist temporal classification:
    labelling unsegmented sequence data with recurrent neural networks", ICML 2006, equations 6 to
    8), in nats. `lstmcore.ctc_decode` and `lstmcore.ctc_beam_search` turn scores into labels.

    Parameters
    ----------
    logits : array (T, B, C), or (T, C) without a batch
        Scores of the C classes before the softmax; their logarithms after it do as well.
    targets : list of B integer arrays (S_b,), or integer array (B, S)
        Labels of each row, 0 to C - 1 without the blank; a row may have none. A padded array has
        `target_lengths` beside it, or ids below 0 as padding behind the labels, as batches for
        `fit` have. With `target_lengths` also (N,), the labels of all rows one after the other.
        Without a batch, (S,).
    lengths : integer array (B,), optional
        Valid steps of each row of `logits`.
    target_lengths : integer array (B,), optional
        How many labels each row has.
    blank : int, default 0
        The class that stands for no label.
    reduction : {"mean", "sum", "none"}, default "mean"
        "mean" divides the loss of each row by the number of its labels (1 if there are none), and
        takes the mean over the rows; "sum" adds those of the rows up; "none" leaves one for each
        row, and the gradient is that of their sum.
    zero_infinity : bool, default False
        Whether infinite losses count as 0. Where the labels of a row, and a blank between equal
        ones, do not fit into its steps, the probability is 0 and the loss infinite.
    batch_first : bool, default False
        `logits` are (B, T, C).

    Returns
    -------
    loss : float, or ndarray (B,) in float64 with reduction "none"
        0.0 without rows.
    dlogits : ndarray, shape and dtype of `logits`
        Gradient of the loss. It is 0 past the end of a row, and in rows whose loss is infinite,
        whatever `zero_infinity` is; NaN in rows that have a NaN.

    Raises
    ------
    ValueError
        If the shapes do not fit, a label is no class or the blank, or an option is out of range.
    TypeError
        If an argument is of the wrong type or dtype.

    Notes
    -----
    The numbers are those of PyTorch's ``ctc_loss(log_softmax(logits), ...)``, with its `reduction`
    and `zero_infinity`, but that infinite losses have NaN as gradient there without the latter. In
    `evaluate` the mean of several batches is that of all rows.

    Examples
    --------
    >>> import numpy as np
    >>> loss, dlogits = ctc(np.zeros((3, 2, 4)), [[1, 2], [3]], lengths=[3, 2])
    >>> round(loss, 4), dlogits.shape
    (1.4743, (3, 2, 4))
    >>> ctc(np.zeros((1, 1, 4)), [[1, 2]])[0]
    inf
    """
    x, ends, batch_first, batched = scored_steps(logits, lengths, batch_first)
    classes, rows = x.shape[-1], x.shape[0 if batch_first else 1]
    blank = blank_class(blank, classes)
    reduction = checks.choice(reduction, "reduction", ("mean", "sum", "none"))
    zero_infinity = checks.boolean(zero_infinity, "zero_infinity")
    ids, counts = labelled(targets, target_lengths, rows, classes, blank)
    factor = np.ones(rows)
    if reduction == "mean":
        factor /= np.maximum(counts, 1) * max(rows, 1)
    dlogits = _core.empty(x.shape, x.dtype)
    losses = _core.ctc(x, ids, counts, ends, blank, batch_first, factor, dlogits)
    if zero_infinity:
        losses[np.isinf(losses)] = 0
    dlogits = dlogits.reshape(np.shape(logits))
    if reduction == "none":
        return (losses if batched else losses[0]), dlogits
    loss = float((losses * factor).sum())
    return Mean(loss, rows if reduction == "mean" else 1), dlogits


def _quantiles(value: ArrayLike) -> Array:
    shares = checks.real(value, np.dtype(np.float64), "quantiles", cast=True).reshape(-1)
    if not shares.size or not (shares.min() > 0 and shares.max() < 1):  # also true for NaN
        raise ValueError(f"quantiles is {value!r}, expected numbers above 0 and below 1")
    return shares


def _side_by_side(pair: Any) -> Array:
    if len(pair) != 2:
        raise ValueError(f"pred is a tuple of {len(pair)}, expected (mean, variance)")
    mean, spread = (checks.floating(part, f"pred[{i}]") for i, part in enumerate(pair))
    if mean.shape != spread.shape or mean.ndim == 0 or mean.dtype != spread.dtype:
        raise ValueError(
            f"pred has mean and variance of shapes {mean.shape} and {spread.shape}, {mean.dtype} "
            f"and {spread.dtype}, expected the same, with an axis of features"
        )
    return np.concatenate([mean, spread], axis=-1)


def _like(w: Array, part: Array) -> Array:
    """Return weights of leading axes, or of all, in the shape of one part of predictions."""
    if w.ndim == part.ndim:
        return w[..., :1, :]
    return np.broadcast_to(w.reshape(w.shape + (1,) * (part.ndim - w.ndim)), part.shape)


def _mean(
    losses: Array, grad: Array, w: Array | None, scale: float, factor: float = 1.0
) -> tuple[Mean, Array]:
    """Return the weighted mean of `losses`, and its gradient from theirs, `factor` times `grad`."""
    if w is None:
        count = losses.size
        if count:
            grad *= grad.dtype.type(factor / count)
            return Mean(losses.mean(dtype=np.float64), count), grad
        return Mean(0.0, 0.0), grad
    total = float(w.sum()) * math.prod(losses.shape[w.ndim :])
    if total == 0:
        return Mean(0.0, 0.0), np.zeros_like(grad)
    along = w.reshape(w.shape + (1,) * (losses.ndim - w.ndim)).astype(grad.dtype)
    grad[w == 0] = 0  # also where it is NaN
    grad *= along * grad.dtype.type(factor / total)
    losses *= along
    return Mean(_sum(losses, w) / total, total * scale), grad


def _sum(terms: Array, w: Array) -> float:
    """Sum in float64 the terms whose weight is not 0, as if there were no others."""
    return float(terms[w != 0].sum(dtype=np.float64))


def _class_weight(value: ArrayLike, num_classes: int) -> Array:
    w = checks.real(value, np.dtype(np.float64), "class_weight", cast=True)
    if w.shape != (num_classes,):
        raise ValueError(f"class_weight has shape {w.shape}, expected ({num_classes},)")
    check_weights(w, "class_weight")
    return w


def _pos_weight(value: ArrayLike, x: Array) -> Array:
    w = checks.real(value, x.dtype, "pos_weight", cast=True)
    if w.shape not in ((), x.shape[-1:]):
        raise ValueError(
            f"pos_weight has shape {w.shape}, expected one number or {x.shape[-1:]}, "
            f"the last axis of pred"
        )
    check_weights(w, "pos_weight")
    return w


publish(globals())
