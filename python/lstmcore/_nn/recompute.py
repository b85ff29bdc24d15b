"""Training in the memory of a few steps: what backward needs is computed a second time.

Forward keeps the state in front of every segment of about sqrt(T) steps and nothing else; backward
takes the segments from the last to the first, each forward again, now with a tape, and back
(Chen, Xu, Zhang, Guestrin, "Training deep nets with sublinear memory cost", 2016). Every sum goes
on across segments in the order it would have had, so the bits are those of one long tape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np

from .. import _core
from .._base.checks import Array

__all__ = ["Segments", "forward_segments"]


@dataclass(eq=False)
class Segments:
    """Stands for a `_core.Tape`: the arguments of the call, and the states between segments."""

    weights: _core.Weights
    x: Array
    lengths: Any
    resets: Any
    batch_first: bool
    dropouts: tuple[float, float, float]
    key: int
    draws: bool  # whether training is random
    states: list[tuple[Array | None, Array | None]]  # h and c in front of each segment

    @property
    def time_axis(self) -> int:
        return 1 if self.batch_first else 0

    @property
    def steps(self) -> int:
        return int(self.x.shape[self.time_axis])

    @property
    def length(self) -> int:
        """Steps of a segment."""
        return isqrt(max(self.steps - 1, 0)) + 1

    @property
    def nbytes(self) -> int:
        return sum(part.nbytes for state in self.states for part in state if part is not None)

    def of(self, array: Any, segment: int) -> Any:
        """The steps of a segment, as a view."""
        steps = slice(segment * self.length, (segment + 1) * self.length)
        return array[:, steps] if self.batch_first else array[steps]

    def forward(
        self, segment: int, state: tuple[Array | None, Array | None], train: bool
    ) -> tuple[Array, Array, Array | None, _core.Tape | None]:
        return _core.forward(
            self.weights, self.of(self.x, segment), *state, self.lengths,
            self.resets if self.resets is None else self.of(self.resets, segment), self.batch_first,
            train, self.dropouts, self.key, None, segment * self.length, self.steps,
        )  # fmt: skip

    def backward(
        self, dy: Array | None, dh: Array | None, dc: Array | None, gradients: Sequence[Array]
    ) -> tuple[Array, Array, Array | None]:
        """Do what `_core.backward` does with a tape."""
        dx = np.empty_like(self.x, order="C")
        for segment, state in reversed([*enumerate(self.states)]):
            tape = self.tape(segment, state)
            dy_part = None if dy is None else self.of(dy, segment)
            dx_part, dh, dc = _core.backward(tape, dy_part, dh, dc, gradients)
            self.of(dx, segment)[...] = dx_part
        assert dh is not None
        return dx, dh, dc

    def tape(self, segment: int, state: tuple[Array | None, Array | None]) -> _core.Tape:
        tape = self.forward(segment, state, True)[-1]
        assert tape is not None
        return tape

    def gates(self) -> dict[str, Array]:
        parts = [self.tape(*at).gates() for at in enumerate(self.states)]
        axis = 1 + self.time_axis
        return {name: np.concatenate([p[name] for p in parts], axis) for name in parts[0]}

    def cells(self) -> Array:
        parts = [self.tape(*at).cells() for at in enumerate(self.states)]
        return np.concatenate(parts, 1 + self.time_axis)


def forward_segments(
    weights: _core.Weights,
    x: Array,
    h: Array | None,
    c: Array | None,
    lengths: Any,
    resets: Any,
    batch_first: bool,
    dropouts: tuple[float, float, float],
    key: int,
    draws: bool,
) -> tuple[Array, Array, Array | None, Segments]:
    """Do what `_core.forward` does in training, but keep `Segments` instead of a tape."""
    segments = Segments(weights, x, lengths, resets, batch_first, dropouts, key, draws, [])
    y = None
    for segment in range(max(1, -(-segments.steps // segments.length))):
        segments.states.append((h, c))
        # Inference gives the same bits as training, where that is not random.
        part, h, c, _ = segments.forward(segment, (h, c), draws)
        if y is None:
            y = np.empty((*x.shape[:2], part.shape[2]), part.dtype)
        segments.of(y, segment)[...] = part
    assert y is not None
    assert h is not None
    return y, h, c, segments
