"""Losses: each returns its value and its gradient, which goes straight into ``backward``.

Where `lengths` are given, the first two axes are time and batch, (T, B, ...), or (B, T, ...) with
``batch_first=True``. The steps past the end of a sequence then count for nothing: their predictions
and targets are never looked at, and their gradient is 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import _checks

__all__ = ["cross_entropy", "mse"]


def cross_entropy(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    batch_first: bool = False,
) -> tuple[float, NDArray[Any]]:
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
    batch_first : bool, default False
        With `lengths`, `pred` is (B, T, C) and `target` (B, T).

    Returns
    -------
    loss : float
        0.0 if there is no valid target.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: (softmax - one-hot) / number of valid targets.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a valid target is not a class.
    TypeError
        If `pred` is not real or `target` not integer.

    Examples
    --------
    >>> loss, dpred = cross_entropy([[0.0, 0.0], [2.0, 0.0]], [1, 0])
    >>> round(loss, 4)
    0.41
    >>> dpred.round(2)
    array([[ 0.25, -0.25],
           [-0.06,  0.06]])
    """
    scores = _real("pred", pred)
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"pred has shape {scores.shape}, expected (..., C) with C >= 1 classes")
    classes = np.asarray(target)
    if classes.dtype.kind not in "iu" and classes.size:
        raise TypeError(f"target has dtype {classes.dtype}, expected integers, a class each")
    if classes.shape != scores.shape[:-1]:
        raise ValueError(
            f"target has shape {classes.shape}, expected {scores.shape[:-1]}, "
            f"that of pred without its last axis"
        )
    num_classes = scores.shape[-1]
    valid = _valid(classes.shape, lengths, batch_first)
    kept = scores[valid]
    rows, k = kept.reshape(-1, num_classes), classes[valid].ravel().astype(np.intp)
    wrong = k[(k < 0) | (k >= num_classes)]
    if wrong.size:
        raise ValueError(f"target has class {wrong[0]}, expected 0 to {num_classes - 1}")

    dpred = np.zeros_like(scores)
    if not k.size:
        return 0.0, dpred
    n = np.arange(k.size)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite scores give inf or NaN, quietly
        shifted = rows - rows.max(axis=-1, keepdims=True)  # the largest exponent is 0: no overflow
        exponentials = np.exp(shifted)
        sums = exponentials.sum(axis=-1, keepdims=True)
        losses = np.log(sums[:, 0]) - shifted[n, k]
        grad = exponentials / sums
    grad[n, k] -= 1
    dpred[valid] = (grad / k.size).reshape(kept.shape)
    return float(losses.mean(dtype=np.float64)), dpred


def mse(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None = None,
    *,
    batch_first: bool = False,
) -> tuple[float, NDArray[Any]]:
    """Mean squared error, averaged over every valid element.

    Parameters
    ----------
    pred : array (...)
        Predictions.
    target : array, shape of `pred`
        Nothing is broadcast.
    lengths : integer array (B,), optional
        Valid steps of each sequence, for `pred` and `target` (T, B, ...).
    batch_first : bool, default False
        With `lengths`, `pred` and `target` are (B, T, ...).

    Returns
    -------
    loss : float
        In the squared unit of `pred`; 0.0 if there is no valid element.
    dpred : ndarray, shape and dtype of `pred`
        Gradient of the loss: 2 (pred - target) / number of valid elements.

    Raises
    ------
    ValueError
        If the shapes do not fit.
    TypeError
        If `pred` or `target` is not real.

    Examples
    --------
    >>> mse([1.0, 2.0], [0.0, 2.0])
    (0.5, array([1., 0.]))
    """
    values = _real("pred", pred)
    wanted = _checks.real(target, values.dtype, "target", cast=True)
    if wanted.shape != values.shape:
        raise ValueError(f"target has shape {wanted.shape}, expected {values.shape}, that of pred")
    valid = _valid(values.shape, lengths, batch_first)
    error = values[valid] - wanted[valid]
    dpred = np.zeros_like(values)
    if not error.size:
        return 0.0, dpred
    dpred[valid] = error * (2 / error.size)
    return float(np.square(error).mean(dtype=np.float64)), dpred


def _real(name: str, value: ArrayLike) -> NDArray[Any]:
    """`value` as float32 or float64, whichever holds it."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise TypeError(f"{name} has dtype {array.dtype}, expected float32 or float64")
    return array.astype(np.result_type(array.dtype, np.float32), copy=False)


def _valid(shape: tuple[int, ...], lengths: ArrayLike | None, batch_first: bool) -> Any:
    """Index the valid elements of an array of this shape: all, or a mask over time and batch."""
    if lengths is None:
        return ...
    if len(shape) < 2:
        raise ValueError(f"lengths need a time and a batch axis, target has shape {shape}")
    time, batch = shape[1::-1] if batch_first else shape[:2]
    ends = _checks.lengths(lengths, batch, time, batched=True)
    steps = np.arange(time)
    return steps < ends[:, None] if batch_first else steps[:, None] < ends
