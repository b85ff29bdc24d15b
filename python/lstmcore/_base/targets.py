"""Predictions and their targets: which of them count, and how much.

Weights may be too large or too small for float32, so they come divided by the largest, with that
beside them as `scale`: 1.0 where no weights were given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from . import checks
from .checks import Array

__all__ = [
    "blank_class",
    "check_weights",
    "classified",
    "labelled",
    "paired",
    "parted",
    "scored_steps",
]


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
    shape, num_classes = scores.shape[:-1], scores.shape[-1]
    if getattr(target, "shape", None) == scores.shape:
        if num_classes == 1:
            way = "target[..., 0], or binary_cross_entropy for one score of two classes"
        else:
            way = "target.argmax(axis=-1) if it is one-hot, 1 where the class is and 0 elsewhere"
        raise ValueError(
            f"target has shape {scores.shape}, that of pred, expected integers of shape {shape}: "
            f"{way}"
        )
    given = checks.integers(target, "target")
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


def scored_steps(
    logits: ArrayLike, lengths: ArrayLike | None, batch_first: bool, name: str = "logits"
) -> tuple[Array, NDArray[np.int64] | None, bool, bool]:
    """Return scores of classes as (T, B, C), or (B, T, C) with `batch_first`, and the lengths.

    Beside them `batch_first`, and whether there is a batch; one row without becomes a batch of one.
    """
    batch_first = checks.boolean(batch_first, "batch_first")
    x = checks.floating(logits, name)
    batched = x.ndim == 3
    if x.ndim not in (2, 3) or x.shape[-1] == 0:
        axes = "(B, T, C)" if batch_first else "(T, B, C)"
        raise ValueError(
            f"{name} has shape {x.shape}, expected {axes}, or (T, C) without a batch, with C >= 1 "
            "classes"
        )
    if not batched:
        x = x[None] if batch_first else x[:, None]
    time, batch = x.shape[1::-1] if batch_first else x.shape[:2]
    ends = None
    if lengths is not None:
        ends = checks.lengths(lengths, batch, time, batched=batched, of=name)
    return checks.in_order(x), ends, batch_first, batched


def blank_class(value: object, classes: int) -> int:
    """Return the class that stands for no label, having checked that it is one of them."""
    blank = checks.integer(value, "blank", 0)
    if blank >= classes:
        raise ValueError(f"blank is {blank}, expected 0 to {classes - 1}, one of the classes")
    return blank


def labelled(
    targets: Any, target_lengths: ArrayLike | None, batch: int, classes: int, blank: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the labels of all rows, one after the other, and how many each row has.

    They are given as a list of a sequence for each row, or padded, (B, S), with the lengths beside
    them or ids below 0 as padding, or one after the other, with the lengths.
    """
    ids, counts = _rows_of_labels(targets, target_lengths, batch)
    if ids.size:
        wrong = ids[(ids < 0) | (ids >= classes)]
        if wrong.size:
            raise ValueError(f"targets has the label {wrong[0]}, expected 0 to {classes - 1}")
        if (ids == blank).any():
            raise ValueError(
                f"targets has the label {blank}, which is the blank, expected other classes"
            )
    return ids, counts


def _rows_of_labels(
    targets: Any, target_lengths: ArrayLike | None, batch: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    if isinstance(targets, (list, tuple)) and target_lengths is None:
        return _listed_labels(targets, batch)
    given = checks.integers(targets, "targets").astype(np.int64)
    if target_lengths is None:
        if given.ndim != 2 or len(given) != batch:
            raise ValueError(
                f"targets has shape {given.shape}, expected (B, S) with B = {batch} rows, or a "
                "list of a sequence of ids for each row"
            )
        counts = (given >= 0).cumprod(axis=1).sum(axis=1)  # ids below 0 are padding
        behind = np.arange(given.shape[1]) >= counts[:, None]
        if (given[behind] >= 0).any():
            row = int((behind & (given >= 0)).any(axis=1).argmax())
            raise ValueError(
                f"targets has ids below 0 in front of others in row {row}, expected such padding "
                "behind the labels"
            )
        return given[~behind], counts.astype(np.int64)
    if given.ndim == 1 and not (batch == 1 and np.ndim(target_lengths) == 0):
        counts = _counts(target_lengths, batch, given.size)
        if counts.sum() != given.size:
            raise ValueError(
                f"target_lengths are {counts.sum()} together, but targets has {given.size} ids, "
                "expected as many"
            )
        return given, counts
    given = given[None] if given.ndim == 1 else given
    if given.ndim != 2 or len(given) != batch:
        raise ValueError(
            f"targets has shape {given.shape}, expected (B, S) with B = {batch} rows, or (N,), all "
            "labels one after the other"
        )
    counts = _counts(target_lengths, batch, given.shape[1])
    return given[np.arange(given.shape[1]) < counts[:, None]], counts


def _listed_labels(targets: Any, batch: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = [checks.integers(row, f"targets[{i}]") for i, row in enumerate(targets)]
    if batch == 1 and all(row.ndim == 0 for row in rows):  # one row without a batch
        rows = [np.array(rows, np.int64).reshape(-1)]
    for i, row in enumerate(rows):
        if row.ndim != 1:
            raise ValueError(f"targets[{i}] has shape {row.shape}, expected (S,), ids of a row")
    if len(rows) != batch:
        raise ValueError(f"targets has {len(rows)} rows, expected {batch}, those of logits")
    if len({len(row) for row in rows}) == 1:  # perhaps padded
        return _rows_of_labels(np.array(rows, np.int64).reshape(batch, -1), None, batch)
    counts = np.array([len(row) for row in rows], np.int64)
    return np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int64), counts


def _counts(target_lengths: ArrayLike, batch: int, most: int) -> NDArray[np.int64]:
    counts = np.atleast_1d(checks.integers(target_lengths, "target_lengths"))
    if counts.shape != (batch,):
        raise ValueError(f"target_lengths has shape {counts.shape}, expected (B,) = ({batch},)")
    wrong = counts[(counts < 0) | (counts > most)]
    if wrong.size:
        raise ValueError(f"target_lengths has {wrong[0]}, expected 0 to {most}")
    return counts.astype(np.int64)


def _reshaped(shape: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """Say which simple expression has the expected shape, if one has."""
    forms = {
        "target[..., 0]": shape[:-1] if shape[-1:] == (1,) else None,
        "target[..., None]": (*shape, 1),
        "target.swapaxes(0, 1)": (*shape[1::-1], *shape[2:]),
        "target[..., 0].T": shape[-2::-1] if shape[-1:] == (1,) else None,
    }
    fits = [form for form, result in forms.items() if result == expected]
    return f"; {fits[0]} has that" if fits else ""


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
        hint = _reshaped(wanted.shape, values.shape)
        raise ValueError(
            f"target has shape {wanted.shape}, expected {values.shape}, that of pred{hint}"
        )
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
