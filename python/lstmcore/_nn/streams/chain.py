"""What streams and pools of a chain of modules share: how they are made, and their states."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from .frozen import Frozen, dtype_of, too_large
from .states import joined_state, split_state

__all__ = ["Chained"]


class Chained:
    """What `Stream` and `StreamPool` share."""

    _KIND: ClassVar[str]  # what messages call it
    _COUNT: ClassVar[str]  # what its user calls the number of its streams

    def _make(self, frozen: list[Frozen], bare: bool, count: int) -> None:
        """Make what the core has of it. `bare`: a state is that of one layer, not a tuple."""
        if "_frozen" in self.__dict__:
            raise RuntimeError(f"this {self._KIND} is made already, expected a new one")
        dtype = dtype_of(frozen, count, self._COUNT)
        try:
            self._start(frozen, count, dtype)
        except MemoryError:
            raise too_large(count, self._COUNT) from None
        self._frozen = frozen
        self._bare = bare
        self._layers: list[Any] = [f.state_of for f in frozen if f.state_of is not None]
        self._dtype = dtype

    def _start(self, frozen: list[Frozen], count: int, dtype: np.dtype[Any]) -> None:
        raise NotImplementedError

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of x and y."""
        return self._dtype

    def _split_rows(self, state: Any, rows: int) -> list[Any]:
        """Return the states of the layers, having checked what a user gives for so many rows."""
        return split_state(self._layers, state, rows, self._dtype, self._bare)

    def _joined(self, states: list[Any]) -> Any:
        return joined_state(self._layers, states, self._bare)
