"""What stands for arrays while a network is described."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy.typing as npt

__all__ = ["Axes", "Symbolic"]


@dataclass(frozen=True)
class Axes:
    """Which axes an array has; time and batch have any size."""

    features: int | None  # the size of the last axis; None for ids, which have no such axis
    steps: bool = False  # whether there is a time axis
    states: int = 0  # of a recurrent state: how many of layers and directions stand in front
    shown: str = ""  # of what no module takes, such as the weights of an attention: its axes
    inner: tuple[int | None, ...] = ()  # axes between time and features; None where of any size

    def sized(self, features: int | None) -> Axes:
        """Return the same axes but for the number of features."""
        return replace(self, features=features)

    def __str__(self) -> str:
        if self.shown:
            return self.shown
        lead = "T, B" if self.steps else f"{self.states}, B" if self.states else "B"
        lead = ", ".join([lead, *("any" if n is None else str(n) for n in self.inner)])
        return f"({lead}) of ids" if self.features is None else f"({lead}, {self.features})"


class Symbolic:
    """What stands for an array. A module that is called with one calls `_enter`."""

    __slots__ = ()

    def _enter(
        self, module: Any, args: tuple[Any, ...], lengths: Any = None, resets: Any = None
    ) -> Any:
        """Return what stands for the arrays that the module would give."""
        raise NotImplementedError

    def __array__(self, *args: Any, **options: Any) -> npt.NDArray[Any]:
        raise TypeError("it is a symbol, which has no numbers: make a lc.Model of it and call that")
