"""Sequences of arrays, which are lists."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._model import Tensor
from .._reading import dtype_of
from ._registry import operator


def _place(position: Tensor | None, last: int) -> int:
    """Return where in a sequence a position is, by default its end."""
    at = last if position is None else int(position.item())
    if not -last - 1 <= at <= last:
        raise ValueError(f"position is {at}, in a sequence of {last}")
    return at


@operator("SequenceConstruct", grows=1)
def _sequence_construct(*parts: Tensor) -> Any:
    return list(parts)


@operator("SequenceEmpty", grows=1)
def _sequence_empty(*, dtype: int = 1) -> Any:
    dtype_of(dtype, "dtype")
    return []


@operator("SequenceInsert", grows=1)
def _sequence_insert(sequence: Any, x: Tensor, position: Tensor | None = None) -> Any:
    at = _place(position, len(sequence))
    return [*sequence[:at], x, *sequence[at:]]


@operator("SequenceErase", grows=1)
def _sequence_erase(sequence: Any, position: Tensor | None = None) -> Any:
    at = _place(position, len(sequence) - 1) % len(sequence)
    return [*sequence[:at], *sequence[at + 1 :]]


@operator("SequenceAt", grows=1)
def _sequence_at(sequence: Any, position: Tensor) -> Any:
    return sequence[int(position.item())]


@operator("SequenceLength", grows=1)
def _sequence_length(sequence: Any) -> Any:
    return np.array(len(sequence), np.int64)


@operator("ConcatFromSequence", grows=1)
def _concat_from_sequence(sequence: Any, *, axis: int, new_axis: int = 0) -> Any:
    return np.stack(sequence, axis) if new_axis else np.concatenate(sequence, axis)


@operator("SplitToSequence", grows=1)
def _split_to_sequence(
    x: Tensor, split: Tensor | None = None, *, axis: int = 0, keepdims: int = 1
) -> Any:
    size = x.shape[axis]
    if split is None:
        parts = np.split(x, size, axis) if size else []
        return parts if keepdims else [part.squeeze(axis) for part in parts]
    if split.ndim:
        stops = np.cumsum(split).tolist()
        if stops[-1:] != [size] or split.min(initial=0) < 0:
            raise ValueError(f"split is {split.tolist()}, expected sizes of {size}")
    else:
        each = int(split)
        if each < 1:
            raise ValueError(f"split is {each}, expected at least 1")
        stops = [*range(each, size, each), size]
    return np.split(x, stops[:-1], axis)
