"""What a library has to offer to be compared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from cases import Case
from data import Array, Data

__all__ = ["Peer", "Unsupported", "Way", "blocks"]


class Unsupported(Exception):
    """The library, or the comparison with it, does not have this case."""


@dataclass
class Way:
    """One way of running a case; a library may have several, and its fastest is taken.

    Attributes
    ----------
    run : callable
        What is timed.
    outputs : callable
        Turns what `run` returned into y (T, B, D*P) and, in training, dx and a gradient for each
        parameter by its name.
    enter : callable, optional
        Called before a series of runs, for settings of the whole process.
    keep : object
        What the library reads and does not keep alive itself.
    """

    name: str
    run: Callable[[], Any]
    outputs: Callable[[Any], dict[str, Array]]
    enter: Callable[[], None] = lambda: None
    keep: object = None


class Peer(Protocol):
    """A library in its worker process."""

    version: str

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield the ways of running the case; raise Unsupported if there is none."""


def blocks(array: Array, hidden: int, order: tuple[int | None, ...]) -> Array:
    """Return the blocks of `hidden` rows (one per gate) in another order; None is zeros."""
    parts = array.reshape(-1, hidden, *array.shape[1:])
    return np.concatenate([np.zeros_like(parts[0]) if g is None else parts[g] for g in order])
