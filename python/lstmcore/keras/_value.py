"""What goes from layer to layer while a model of Keras becomes a network of ours."""

from __future__ import annotations

from typing import Any, NamedTuple

from .._base.checks import describe
from .._network.symbol import Symbol

__all__ = ["Atoms", "MaskOf", "Ones", "Scores", "Shape", "Value", "Zeros", "joined", "value_of"]

Shape = tuple["int | None", ...]  # of a row; None is not known
# A step is there if one of these symbols is not the number; or, with None, is what says so.
Atoms = frozenset[tuple[Symbol, "float | None"]]


class Value(NamedTuple):
    """A tensor of Keras, and the mask that goes with it."""

    symbol: Any
    shape: Shape  # of a row: (time, features), or (time,) of ids
    mask: Atoms | None = None

    @property
    def is_ids(self) -> bool:
        """Whether these are integers, which have no axis of features."""
        return self.symbol.axes.features is None


class MaskOf(NamedTuple):
    """A tensor of bools that is a mask; with None, all steps are there, those of `like`."""

    atoms: Atoms | None
    wide: bool = False  # whether it has an axis of features, too
    like: Value | None = None


class Ones(NamedTuple):
    """Ones shaped like a value."""

    like: Value


class Scores(NamedTuple):
    """Products of queries and keys, of which there may be any number; or the softmax of that."""

    query: Value
    key: Value
    softmax: bool = False


class Zeros(NamedTuple):
    """Zeros, as an initial state or a mask."""


def value_of(given: Any, where: str) -> Value:
    """Return a value, or say that it is something else."""
    if not isinstance(given, Value):
        raise ValueError(f"{where} is {describe(given)}, which is not imported there")
    return given


def joined(masks: list[Atoms | None]) -> Atoms | None:
    """Return the mask of the steps that one of the masks has; without one, all are there."""
    known = [mask for mask in masks if mask is not None]
    return frozenset().union(*known) if len(known) == len(masks) and masks else None
