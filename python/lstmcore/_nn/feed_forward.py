"""Modules that make y from x alone."""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.module import Module
from .._base.symbolic import Symbolic
from .tape import ModuleTape

__all__ = ["FeedForward"]


class FeedForward(Module):
    """What Linear, LayerNorm, Dropout and the activations share: one array in, one out."""

    each_step = True

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Compute y for inference: no dropout, nothing remembered."""
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,))
            return result
        return self._forward(self._input(x), False)[0]

    def forward(self, x: npt.ArrayLike) -> tuple[Array, ModuleTape]:
        """Compute y, and keep what `backward` needs.

        Parameters
        ----------
        x : array_like
            As when the module is called.

        Returns
        -------
        y : ndarray
            Read-only where the tape shares it.
        tape : ModuleTape
            For `backward`. It may keep x, as a copy unless that is read-only.

        Raises
        ------
        ValueError, TypeError
            If x has another shape or dtype than the module takes.
        """
        x = self._input(x)
        y, saved = self._forward(x, True)
        return y, ModuleTape(self, x, y, saved)

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> Array:
        """Add the gradients of the parameters to their `grad`, and return that of x.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y
            Gradient with respect to y.

        Returns
        -------
        dx : ndarray, shaped like x

        Raises
        ------
        ValueError, TypeError
            If the tape is of another module, or dy is not like y; no gradient is changed then.
        """
        dy = ModuleTape.gradient(tape, self, dy)  # called on the class: `tape` may be anything
        return self._backward(dy, *tape.saved)

    def _input(self, x: npt.ArrayLike) -> Array:
        """Return x as an array of the right shape and dtype."""
        return checks.floating(x, "x")

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        """Return y and, for training, what `_backward` takes after dy.

        Infinity and NaN are computed with: nothing warns.
        """
        raise NotImplementedError

    def _backward(self, dy: Array, *saved: Any) -> Array:
        """Return dx."""
        raise NotImplementedError
