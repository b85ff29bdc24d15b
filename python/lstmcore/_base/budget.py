"""The limit on models that are made from a file: they may be no larger than the file's parameters.

A damaged or hostile file can describe a model of any size. While such a model is made, `BUDGET`
stops it, and parameters are left without random numbers, since the file's come next.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["BUDGET", "Budget", "affords"]


class Budget:
    """How many arrays and bytes of parameters may still be made."""

    def __init__(self, arrays: int, nbytes: int) -> None:
        self.arrays = arrays
        self.nbytes = nbytes

    def take(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: np.dtype[Any]
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Yield the names and shapes of parameters, and refuse those that are too many."""
        for name, shape in shapes:
            self.arrays -= 1
            self.nbytes -= math.prod(shape) * dtype.itemsize
            if self.arrays < 0 or self.nbytes < 0:
                raise ValueError("it describes a model that is larger than its parameters")
            yield name, shape


def affords(shape: tuple[int, ...], dtype: np.dtype[Any]) -> bool:
    """Whether a copy of an array may still be made; if so, it counts as made."""
    budget = BUDGET.get()
    try:
        if budget is not None:
            list(budget.take([("", shape)], dtype))
    except ValueError:
        return False
    return True


# Set while a model is being made from a file, else None.
BUDGET: ContextVar[Budget | None] = ContextVar("BUDGET", default=None)
