"""What a network trained by `losses.ctc` says: the labels that its scores stand for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.targets import blank_class, scored_steps

__all__ = ["LabelHypothesis", "ctc_beam_search", "ctc_decode"]

Ids = npt.NDArray[np.int64]


class LabelHypothesis(NamedTuple):
    """What `ctc_beam_search` found: labels, and their log-probability."""

    ids: Ids
    score: float


def ctc_decode(
    logits: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    blank: int = 0,
    batch_first: bool = False,
) -> Any:
    """Read the labels off the likeliest class of each step: equal ones become one, blanks none.

    That is the likeliest way to say labels, not always the likeliest labels: these are what
    `ctc_beam_search` looks for.

    Parameters
    ----------
    logits : array (T, B, C), or (T, C) without a batch
        Scores as `lstmcore.losses.ctc` takes them, or probabilities.
    lengths : integer array (B,), optional
        Valid steps of each row.
    blank : int, default 0
        The class that stands for no label.
    batch_first : bool, default False
        `logits` are (B, T, C).

    Returns
    -------
    list of B ndarrays (S_b,), int64; without a batch one ndarray (S,)

    Raises
    ------
    ValueError
        If the shapes do not fit, blank is no class, or a valid step has a NaN.
    TypeError
        If an argument is of the wrong type or dtype.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> best = [0, 3, 3, 0, 3, 1]  # 0 is the blank
    >>> lc.ctc_decode(np.eye(4)[best])
    array([3, 3, 1])
    """
    x, ends, batch_first, batched = scored_steps(logits, lengths, batch_first)
    rows = x if batch_first else x.swapaxes(0, 1)
    blank = blank_class(blank, rows.shape[-1])
    ends = np.full(len(rows), rows.shape[1]) if ends is None else ends
    best = rows.argmax(axis=-1)
    _check_known(rows, best, ends)
    found = []
    for row, end in zip(best, ends, strict=True):
        row = row[:end]
        begins = np.ones(end, bool)
        begins[1:] = row[1:] != row[:-1]
        found.append(row[begins & (row != blank)].astype(np.int64))
    return found if batched else found[0]


def ctc_beam_search(
    logits: npt.ArrayLike,
    lengths: npt.ArrayLike | None = None,
    *,
    beam_size: int = 8,
    blank: int = 0,
    batch_first: bool = False,
) -> Any:
    """Search for the likeliest labels: all ways to say them count together.

    A prefix beam search, which keeps so many beginnings after each step (A. Hannun et al.,
    "First-pass large vocabulary continuous speech recognition using bi-directional recurrent DNNs",
    2014, algorithm 1, without a language model).

    Parameters
    ----------
    logits : array (T, B, C), or (T, C) without a batch
        Scores before the softmax, or their logarithms after it.
    lengths : integer array (B,), optional
        Valid steps of each row.
    beam_size : int, default 8
        How many beginnings are kept.
    blank, batch_first
        As of `ctc_decode`.

    Returns
    -------
    list of B lists of (ids, score); without a batch one list
        Up to `beam_size` of them, the best first: ids are labels (S,), int64, and the score is the
        logarithm of their probability, of the ways that the search has followed.

    Raises
    ------
    ValueError, TypeError
        As `ctc_decode`, and if `beam_size` is below 1.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> logits = np.log([[0.6, 0.4], [0.6, 0.4]])  # saying nothing has 0.36, but [1] has 0.64
    >>> lc.ctc_decode(logits)
    array([], dtype=int64)
    >>> best, second = lc.ctc_beam_search(logits)
    >>> best.ids, round(float(np.exp(best.score)), 2)
    (array([1]), 0.64)
    """
    x, ends, batch_first, batched = scored_steps(logits, lengths, batch_first)
    blank = blank_class(blank, x.shape[-1])
    beam_size = checks.integer(beam_size, "beam_size", 1)
    rows = x if batch_first else x.swapaxes(0, 1)
    _check_known(rows, rows.argmax(axis=-1), ends)
    beams = _core.ctc_beam_search(x, ends, blank, batch_first, beam_size)
    found = [[LabelHypothesis(*one) for one in beam] for beam in beams]
    return found if batched else found[0]


def _check_known(rows: npt.NDArray[Any], best: npt.NDArray[Any], ends: Any) -> None:
    """Refuse a NaN in a valid step: NumPy takes it for the best class."""
    known = np.take_along_axis(rows, best[..., None], axis=-1)[..., 0]
    wrong = np.isnan(known)
    if ends is not None:
        wrong &= np.arange(rows.shape[1]) < np.asarray(ends)[:, None]
    if wrong.any():
        row, step = np.argwhere(wrong)[0]
        raise ValueError(f"logits has a NaN in step {step} of row {row}, expected numbers")
