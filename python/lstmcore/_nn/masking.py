"""Masking: the lengths of sequences that are padded with a value of their own."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.flow import Ends, Flow
from .._base.module import Module, storable
from .._base.symbolic import Symbolic
from .config import Option
from .tape import ModuleTape, check_owner

__all__ = ["Masking"]


@storable
class Masking(Module):
    """Find the steps that are there, so that the padding needs no lengths beside it.

    A step is masked if it has nothing but `value`: all its features, or, with `ids`, its id. In a
    `Sequential` the modules after this one get the lengths that it finds, and so do the losses and
    metrics of `fit` and `evaluate`; `lengths` given to the model cut further. A recurrent layer
    passes over masked steps wherever they are, as Keras does: those before the end of a row are
    taken out and the rest moved up to close the gap, if `gaps`.

    Parameters
    ----------
    value : float, default 0.0
        What masked steps hold.
    ids : bool, default False
        Whether x is of ids, (T, B), for an `Embedding`, and not of features, (T, B, F).
    gaps : bool, default True
        Whether steps may be masked before the end of a row, as in rows padded on the left. What
        comes after must not need to know where a step was: pooling does not, but in a model that
        gives an output for every step they would stand elsewhere than their inputs, and `fit`
        refuses targets for every step then.
    batch_first : bool, optional
        Whether x is (B, T) or (B, T, F). None, the default, is False, and in a `Sequential` what
        its recurrent layers have.

    Raises
    ------
    TypeError, ValueError
        If an option has a wrong type or value.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> masking = lc.Masking(ids=True, batch_first=True)
    >>> x, lengths = masking(np.array([[5, 6, 0, 0], [0, 0, 7, 8]]))
    >>> x
    array([[5, 6, 0, 0],
           [7, 8, 0, 0]])
    >>> lengths
    array([2, 2])
    """

    _knows_time = True
    _moves_steps = True
    _finds_lengths = True
    _needs_whole_sequence = True
    _applies_own = False
    value = Option[float]()
    ids = Option[bool]()
    gaps = Option[bool]()
    batch_first = Option["bool | None"]()

    def __init__(
        self,
        value: float = 0.0,
        ids: bool = False,
        gaps: bool = True,
        batch_first: bool | None = None,
    ) -> None:
        if batch_first is not None:
            batch_first = checks.boolean(batch_first, "batch_first")
        self._config = SimpleNamespace(
            value=checks.number(value, "value"),
            ids=checks.boolean(ids, "ids"),
            gaps=checks.boolean(gaps, "gaps"),
            batch_first=batch_first,
        )

    @property
    def _takes_ids(self) -> bool:  # type: ignore[override]
        return self.ids

    def _output_size(self, size: int | None) -> int | None:
        return size

    def __call__(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Find the lengths for inference: nothing remembered.

        Parameters
        ----------
        x : array_like, (T, B, F), or (B, T, F) if batch_first, or (T, F) unbatched
            Without F if ids. Of features, float32 and float64 are kept; of ids, any integers are.
        lengths : array_like of int, (B,), or an int unbatched, optional
            Where rows end at the latest.

        Returns
        -------
        y : ndarray, shaped like x
            x itself if it has no gaps.
        lengths : ndarray of int64, (B,), or () unbatched
            How many steps each row has that are not masked.

        Raises
        ------
        ValueError
            If x has gaps and they are not allowed, or has another shape.
        """
        if isinstance(x, Symbolic):
            made: tuple[Any, Any] = x._enter(self, (x,), lengths)
            return made
        return self._compute(x, lengths, bool(self.batch_first), False)[:2]

    def forward(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], ModuleTape]:
        """Find the lengths, and keep what `backward` needs.

        Parameters
        ----------
        x, lengths
            As when the module is called.

        Returns
        -------
        y, lengths
            As when the module is called.
        tape : ModuleTape
            For `backward`.
        """
        return self._compute(x, lengths, bool(self.batch_first), True)[:3]

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike | None) -> Array | None:
        """Return the gradient of x: that of y, moved back to where the steps were.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y, or None if of ids

        Returns
        -------
        dx : ndarray, shaped like x, or None if of ids
        """
        check_owner(tape, ModuleTape, self)
        order, time_axis = tape.saved
        if self.ids:
            return None
        gradient = tape.gradient(self, dy)
        if order is None:
            return gradient
        dx = np.empty_like(gradient)
        np.put_along_axis(dx, order, gradient, axis=time_axis)
        return dx

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Any, Any]:
        y, found, tape, moved = self._compute(x, flow.lengths, flow.batch_first, train)
        flow.ends = Ends(found, moved)
        flow.lengths = checks.Lengths(found)
        return y, tape

    def _compute(
        self, x: Any, lengths: Any, batch_first: bool, train: bool
    ) -> tuple[npt.NDArray[Any], npt.NDArray[np.int64], Any, bool]:
        """Return y, the lengths, the tape for training, and whether steps were moved."""
        x = self._input(x, batch_first)
        valid = x != self.value if self.ids else (x != self.value).any(axis=-1)
        time_axis = int(batch_first and valid.ndim == 2)
        grid = valid if valid.ndim == 2 else valid[:, None]
        rows = grid.swapaxes(0, 1) if time_axis else grid  # (T, B)
        time, batch = rows.shape
        if lengths is not None:
            ends = checks.lengths(lengths, batch, time, batched=valid.ndim == 2)
            rows &= np.arange(time)[:, None] < ends
        order = None
        y = x
        if (rows[1:] > rows[:-1]).any():
            if not self.gaps:
                raise ValueError(
                    f"x has steps of {self.value} before the end of a row, expected them only at "
                    "the end: this model has an output for every step, and none may move"
                )
            order = np.argsort(~valid, axis=time_axis, kind="stable")
            order = order if self.ids else order[..., None]
            y = np.take_along_axis(x, order, axis=time_axis)
        found = rows.sum(axis=0, dtype=np.int64).reshape(batch if valid.ndim == 2 else ())
        tape = ModuleTape(self, x, y, (order, time_axis)) if train else None
        return y, found, tape, order is not None

    def _input(self, x: Any, batch_first: bool) -> npt.NDArray[Any]:
        """Return x as an array of the right rank and kind."""
        array: npt.NDArray[Any]
        array = checks.integers(x, "x") if self.ids else checks.floating(x, "x")
        features = "" if self.ids else ", F"
        if array.ndim not in (2 - self.ids, 3 - self.ids):
            axes = "B, T" if batch_first else "T, B"
            raise ValueError(
                f"x has shape {array.shape}, expected ({axes}{features}) or (T{features or ','})"
            )
        return array
