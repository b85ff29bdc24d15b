"""Predictions and their targets: which of them count, and how much.

Weights may be too large or too small for float32, so they come divided by the largest, with that
beside them as `scale`: 1.0 where no weights were given.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .checks import Array

__all__ = ["check_weights", "classified", "paired", "parted"]


def classified(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None,
    weight: ArrayLike | None,
    batch_first: bool,
    ignore_index: int | None,
) -> tuple[Array, NDArray[np.int64], Array | None, float]:
    """Return contiguous scores (..., C), classes (...), their weights or None, and the scale.

    Classes that are not valid are 0 and have the weight 0.
    """
    scores = checks.floating(pred, "pred")
    if scores.ndim == 0 or scores.shape[-1] == 0:
        raise ValueError(f"pred has shape {scores.shape}, expected (..., C) with C >= 1 classes")
    given = checks.integers(target, "target")
    shape, num_classes = scores.shape[:-1], scores.shape[-1]
    if given.shape != shape:
        raise ValueError(
            f"target has shape {given.shape}, expected {shape}, that of pred without its last axis"
        )
    w, scale = _weights(shape, lengths, weight, batch_first, (shape,))
    valid = None if w is None else w != 0
    if ignore_index is not None:
        ignored = given == checks.integer(ignore_index, "ignore_index", -(2**63))
        if ignored.any():
            valid = ~ignored if valid is None else valid & ~ignored
            w = valid.astype(np.float64) if w is None else w * ~ignored
    known = given if valid is None else np.where(valid, given, 0)
    if known.size and not (known.min() >= 0 and known.max() < num_classes):
        wrong = known[(known < 0) | (known >= num_classes)]
        raise ValueError(f"target has class {wrong[0]}, expected 0 to {num_classes - 1}")
    return np.ascontiguousarray(scores), known.astype(np.int64, order="C"), w, scale


def paired(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None,
    weight: ArrayLike | None,
    batch_first: bool,
) -> tuple[Array, Array, Array | None, float]:
    """Return predictions, targets like them, weights of leading axes or None, and the scale."""
    values = checks.floating(pred, "pred")
    wanted = checks.real(target, values.dtype, "target", cast=True)
    if wanted.shape != values.shape:
        raise ValueError(f"target has shape {wanted.shape}, expected {values.shape}, that of pred")
    shapes = (values.shape, values.shape[:-1])
    return values, wanted, *_weights(values.shape, lengths, weight, batch_first, shapes)


def parted(
    pred: ArrayLike,
    target: ArrayLike,
    lengths: ArrayLike | None,
    weight: ArrayLike | None,
    batch_first: bool,
    parts: int,
    what: str,
) -> tuple[Array, Array, Array | None, float]:
    """Return predictions of several numbers for each target: (..., parts, F), one part an F wide.

    Beside them targets (..., 1, F), weights of the leading axes or of all or None, and the scale.
    """
    values = checks.floating(pred, "pred")
    wanted = checks.real(target, values.dtype, "target", cast=True)
    leading = values.shape[:-1]
    alone = values.ndim > 0 and wanted.shape == leading and values.shape[-1] == parts
    features = 1 if alone else wanted.shape[-1] if wanted.ndim else 0
    if not alone and (values.ndim == 0 or values.shape != (*wanted.shape[:-1], features * parts)):
        raise ValueError(
            f"pred has shape {values.shape} and target {wanted.shape}, expected pred "
            f"(..., {parts}) for target (...), or pred (..., {parts} * F) for target (..., F): "
            f"{what}"
        )
    shapes = (leading,) if alone else (wanted.shape, leading)
    w, scale = _weights(wanted.shape, lengths, weight, batch_first, shapes)
    shape = (*leading, parts, features)
    if w is not None and not alone and w.ndim == wanted.ndim:
        w = np.broadcast_to(w[..., None, :], shape)
    return values.reshape(shape), wanted.reshape(*leading, 1, features), w, scale


def _weights(
    shape: tuple[int, ...],
    lengths: ArrayLike | None,
    weight: ArrayLike | None,
    batch_first: bool,
    shapes: tuple[tuple[int, ...], ...],
) -> tuple[Array | None, float]:
    """Return what targets of this shape weigh, 0 if they are not valid; None if all are alike.

    Beside it the scale. Of the leading axes only, where all along the others weigh the same.
    `shapes` are those that `weight` may have.
    """
    batch_first = checks.boolean(batch_first, "batch_first")
    valid = None if lengths is None else _valid(shape, lengths, batch_first)
    if weight is None:
        return (None if valid is None else valid.astype(np.float64)), 1.0
    w = checks.real(weight, np.dtype(np.float64), "weight", cast=True)
    if w.shape not in shapes:
        expected = " or ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(f"weight has shape {w.shape}, expected {expected}")
    if valid is not None:
        w = np.where(valid.reshape(valid.shape + (1,) * (w.ndim - valid.ndim)), w, 0)
    check_weights(w, "weight")
    highest = float(w.max(initial=0))
    return (w / highest, highest) if highest > 0 else (w, 1.0)


def check_weights(w: Array, name: str) -> None:
    if w.size and not (w.min() >= 0 and np.isfinite(w.max())):  # also true for NaN
        wrong = w[~((w >= 0) & np.isfinite(w))]
        raise ValueError(f"{name} has {wrong[0]}, expected finite numbers, at least 0")


def _valid(shape: tuple[int, ...], lengths: ArrayLike, batch_first: bool) -> NDArray[np.bool_]:
    """Say which elements of an array of this shape are valid, over time and batch."""
    if len(shape) < 2:
        raise ValueError(f"lengths need a time and a batch axis, target has shape {shape}")
    time, batch = shape[1::-1] if batch_first else shape[:2]
    ends = checks.lengths(lengths, batch, time, batched=True, of="pred")
    steps = np.arange(time)
    return steps < ends[:, None] if batch_first else steps[:, None] < ends
