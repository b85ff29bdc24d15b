"""Modules that know of time steps and of where sequences end."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.flow import Flow
from .._base.module import Module
from .._base.symbolic import Symbolic
from .config import Option
from .tape import ModuleTape

__all__ = ["OverTime", "time_major", "valid_steps"]


class OverTime(Module):
    """What pooling, Flip and Conv1D share: steps in, respecting lengths."""

    _knows_time = True
    _applies_own = False

    batch_first = Option["bool | None"]()

    def __init__(self, batch_first: bool | None = None) -> None:
        if batch_first is not None:
            batch_first = checks.boolean(batch_first, "batch_first")
        self._config = SimpleNamespace(batch_first=batch_first)

    def _output_size(self, size: int | None) -> int | None:
        return size

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Run for inference: nothing remembered.

        Parameters
        ----------
        x : array_like, (T, B, F), or (B, T, F) if batch_first, or (T, F) unbatched
            float32 and float64 are kept.
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many steps each row has, 0 to T, the default. What is past its end is not looked at.

        Returns
        -------
        y : ndarray
            Without the time axis, and 0 for rows of length 0, if the module pools; else with steps
            as x has them, and 0 past the end of a row.
        """
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,), lengths)
            return result
        return self._compute(x, lengths, bool(self.batch_first), False)[0]

    def forward(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, ModuleTape]:
        """Run, and keep what `backward` needs.

        Parameters
        ----------
        x, lengths
            As when the module is called.

        Returns
        -------
        y : ndarray
            As when the module is called.
        tape : ModuleTape
            For `backward`.
        """
        return self._compute(x, lengths, bool(self.batch_first), True)

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> Array:
        """Return the gradient of x, 0 past the end of a row, for that of y.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y

        Returns
        -------
        dx : ndarray, shaped like x
        """
        return self._differentiate(tape, dy)[0]

    def _differentiate(self, tape: ModuleTape, dy: Any, *beside: Any) -> tuple[Array, Any]:
        """Return dx, and what `_backward` returns, which is given what is `beside`."""
        dy = ModuleTape.gradient(tape, self, dy)
        batch_first, *saved = tape.saved
        dx = _core.empty(tape.x_shape, dy.dtype)
        dx.fill(0)
        batched = dx.ndim == 3
        if self._keeps_time:
            dy = time_major(dy, batch_first)
        elif not batched:
            dy = dy[None]
        return dx, self._backward(dy, time_major(dx, batch_first), *saved, *beside)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        return self._compute(x, flow.lengths, flow.batch_first, train)

    def _compute(
        self, x: Any, lengths: Any, batch_first: bool, train: bool, *beside: Any
    ) -> tuple[Array, Any]:
        """Return y and, for training, the tape. `_forward` is given what is `beside`."""
        x = self._input(x, batch_first)
        batched = x.ndim == 3
        steps = time_major(x, batch_first)
        time, batch, _ = steps.shape
        if lengths is None:
            ends = np.full(batch, time)
        else:
            ends = checks.lengths(lengths, batch, time, batched=batched)
        with np.errstate(all="ignore"):  # infinity and NaN in x are no error
            y, *saved = self._forward(steps, ends, *beside)
        if not batched:
            y = y[:, 0] if self._keeps_time else y[0]
        elif self._keeps_time and batch_first:
            y = y.swapaxes(0, 1)
        return y, ModuleTape(self, x, y, (batch_first, *saved)) if train else None

    def _input(self, x: Any, batch_first: bool) -> Array:
        """Return x as an array of the right shape and dtype."""
        array = checks.floating(x, "x")
        if array.ndim not in (2, 3):
            axes = "B, T" if batch_first else "T, B"
            raise ValueError(f"x has shape {array.shape}, expected ({axes}, F) or (T, F)")
        return array

    def _forward(self, x: Array, ends: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        """Return y, (T, B, F) or (B, F), and what `_backward` needs, for x (T, B, F)."""
        raise NotImplementedError

    def _backward(self, dy: Array, dx: Array, *saved: Any) -> Any:
        """Write into dx, (T, B, F) and full of zeros."""
        raise NotImplementedError


def valid_steps(time: int, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Return a mask (T, B) of the steps before the ends."""
    mask: npt.NDArray[np.bool_] = np.arange(time)[:, None] < ends
    return mask


def time_major(x: Array, batch_first: bool) -> Array:
    """Return a view (T, B, F) of x."""
    if x.ndim == 2:
        return x[:, None]
    return x.swapaxes(0, 1) if batch_first else x
