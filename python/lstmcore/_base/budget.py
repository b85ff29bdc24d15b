"""Models that are made for the parameters of a file: no larger than they, without numbers yet."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from typing import Any

import numpy as np

__all__ = ["BUDGET", "Budget"]


class Budget:
    """How much a model may hold that is made from a description: no more than its file does."""

    def __init__(self, arrays: int, nbytes: int) -> None:
        self.arrays = arrays
        self.nbytes = nbytes

    def take(
        self, shapes: Iterable[tuple[str, tuple[int, ...]]], dtype: np.dtype[Any]
    ) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Pass on names and shapes as long as the budget lasts."""
        for name, shape in shapes:
            self.arrays -= 1
            self.nbytes -= math.prod(shape) * dtype.itemsize
            if self.arrays < 0 or self.nbytes < 0:
                raise ValueError("it describes a model that is larger than its parameters")
            yield name, shape


# While a model is being made for the parameters of a file: None otherwise.
BUDGET: ContextVar[Budget | None] = ContextVar("BUDGET", default=None)
