"""Data sets small enough to ship: real input for the demo, the examples and the tests."""

from __future__ import annotations

from importlib.resources import files
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ._public.publish import publish

__all__ = ["Sequences", "japanese_vowels"]


class Sequences(NamedTuple):
    """Labelled sequences of unequal lengths, padded with zeros to the longest of them.

    Attributes
    ----------
    x : ndarray (T, B, I), float32
        The sequences, time-major; ``x[t, b]`` is 0 for ``t >= lengths[b]``.
    lengths : ndarray (B,), int64
        Steps of each sequence.
    labels : ndarray (B,), int64
        Class of each sequence.
    """

    x: NDArray[np.float32]
    lengths: NDArray[np.int64]
    labels: NDArray[np.int64]


def japanese_vowels() -> tuple[Sequences, Sequences]:
    """Nine speakers saying /ae/: the training and the test set of the Japanese Vowels data.

    Each sequence is one utterance of 7 to 29 frames (6.4 ms apart) of 12 LPC cepstrum coefficients
    (no unit); the label is the speaker, 0 to 8. 270 sequences for training, 370 for testing.

    Returns
    -------
    train, test : Sequences
        ``train.x`` is (26, 270, 12), ``test.x`` is (29, 370, 12).

    Notes
    -----
    Source: M. Kudo, J. Toyama and M. Shimbo, "Multidimensional curve classification using
    passing-through regions", Pattern Recognition Letters 20, 1999; UCI Machine Learning Repository,
    https://doi.org/10.24432/C5NS47, licence CC BY 4.0.

    Examples
    --------
    >>> from lstmcore.datasets import japanese_vowels
    >>> train, test = japanese_vowels()
    >>> train.x.shape, test.x.shape
    ((26, 270, 12), (29, 370, 12))
    >>> int(train.lengths.min()), int(test.lengths.max())
    (7, 29)
    """
    path = files(__package__) / "_datasets" / "japanese_vowels.npz"
    with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
        train, test = (
            _pad(
                arrays[f"{split}_steps"],
                arrays[f"{split}_lengths"].astype(np.int64),
                arrays[f"{split}_labels"].astype(np.int64),
            )
            for split in ("train", "test")
        )
    return train, test


def _pad(
    steps: NDArray[np.float32], lengths: NDArray[np.int64], labels: NDArray[np.int64]
) -> Sequences:
    # A (B, T) mask, row by row, meets the steps in the order in which they are stored.
    valid = np.arange(lengths.max()) < lengths[:, None]
    x = np.zeros((*valid.shape, steps.shape[1]), dtype=steps.dtype)
    x[valid] = steps
    return Sequences(np.ascontiguousarray(x.swapaxes(0, 1)), lengths, labels)


publish(globals())
