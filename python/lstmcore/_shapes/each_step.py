"""EachStep: a module for every step by itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.flow import Flow
from .._base.module import Module, check_own, split_forward, storable
from .._base.symbolic import Axes, Symbolic
from .._nn.config import Option
from .._nn.sequential import as_sequential
from .._nn.tape import ModuleTape

__all__ = ["EachStep"]


@storable
class EachStep(Module):
    """A module for every step of a sequence, each by itself, as if steps were rows of the batch.

    Where steps are sequences themselves, such as the letters of each word, x has an axis more, and
    the module takes that for time: (T, B, N, F) goes to it as (N, T B, F), or (T B, N, F) if it is
    batch_first.

    Parameters
    ----------
    module : Module
        What makes one y of one x. A recurrent layer begins each step with zeros.
    batch_first : bool, optional
        Whether x is (B, T, ...). None, the default, is False, and in a `Sequential` or `Model` what
        its recurrent layers have, but for those in `module`.

    Raises
    ------
    TypeError
        If `module` is no module, or takes more than one x.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> words = lc.EachStep(lc.Sequential(lc.Embedding(26, 4), lc.LSTM(4, 8), lc.LastStep()))
    >>> letters = np.zeros((7, 2, 5), dtype=int)  # 7 words of 5 letters, in 2 sentences
    >>> words(letters).shape
    (7, 2, 8)
    >>> x = lc.Input(ids=True, inner=[5])
    >>> y, _ = lc.GRU(8, 3)(words(x))
    >>> lc.Model(x, y)(letters).shape
    (7, 2, 3)
    """

    _applies_own = False

    def _given_steps(self) -> tuple[Module, ...]:
        return ()  # the module is given one step at a time

    module = Option[Module]()
    batch_first = Option["bool | None"]()

    def __init__(self, module: Module, batch_first: bool | None = None) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"module is {checks.describe(module)}, expected a module")
        check_own(module)
        module = as_sequential(module)
        if not module._takes_one_x:
            raise TypeError(f"module is {module!r}, expected one that makes one y of one x")
        if batch_first is not None:
            batch_first = checks.boolean(batch_first, "batch_first")
        self._config = SimpleNamespace(module=module, batch_first=batch_first)
        self._children = {"module": module}

    @property
    def _takes_ids(self) -> bool:  # type: ignore[override]
        return self.module._takes_ids

    @property
    def _gives_probabilities(self) -> bool:  # type: ignore[override]
        return self.module._gives_probabilities

    @property
    def dtype(self) -> Any:
        """Of all parameters; None if there are none."""
        return getattr(self.module, "dtype", None)

    @property
    def _input_size(self) -> int | None:
        return self.module._input_size

    def _output_size(self, size: int | None) -> int | None:
        return self.module._output_size(size)

    def _axes(self, *args: Any) -> tuple[Any, ...]:
        x: Axes = args[0]
        if not x.steps:
            raise ValueError(f"x is {x}, expected time steps")
        inside = Axes(x.features, steps=bool(x.inner), inner=x.inner[1:])
        made = self._describe(inside)
        inner = (*([None] * made.steps), *made.inner)
        return (Axes(made.features, steps=True, inner=inner),)

    def _describe(self, inside: Axes) -> Axes:
        for _, part in self.module._chain():
            if part._finds_lengths:
                raise ValueError(f"{part!r} cannot be in it: it finds other lengths for each step")
            plan = part._network
            inside = part._axes(inside)[0] if plan is None else plan.axes[plan.outputs]
        return inside

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Compute y for inference: nothing remembered.

        Parameters
        ----------
        x : array_like, (T, B, ..., F), or (B, T, ..., F) if batch_first, or (T, ..., F) unbatched
            Without F for ids.

        Returns
        -------
        y : ndarray
            With steps as x has them.
        """
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,))
            return result
        return self._compute(x, False)[0]

    def forward(self, x: npt.ArrayLike) -> tuple[Array, ModuleTape]:
        """Compute y, and keep what `backward` needs.

        Parameters
        ----------
        x : array_like
            As when the module is called.

        Returns
        -------
        y : ndarray
        tape : ModuleTape
            For `backward`.
        """
        return self._compute(x, True)

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> Array | None:
        """Add the gradients of the parameters to their `grad`, and return that of x.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y

        Returns
        -------
        dx : ndarray, shaped like x; None for ids
        """
        dy = ModuleTape.gradient(tape, self, dy)
        inside, lead, batched = tape.saved
        whole = dy if batched else dy[:, None]
        dx = self.module.backward(inside, self._inside(whole, lead))
        return None if dx is None else self._outside(dx, lead).reshape(tape.x_shape)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        return self._compute(x, train)

    def _compute(self, x: Any, train: bool) -> tuple[Array, Any]:
        x = checks.integers(x, "x") if self._takes_ids else checks.floating(x, "x")
        rank = 3 + self.module._knows_time - self._takes_ids
        if x.ndim < rank - 1:
            raise ValueError(f"x has shape {x.shape}, expected (T, B, ..., F), without F for ids")
        batched = x.ndim >= rank
        whole = x if batched else x[:, None]
        lead = whole.shape[:2]
        inside, tape = self._inside(whole, lead), None
        if train:
            (y, *_), tape = split_forward(self.module, self.module.forward(inside))
        else:
            y = self.module(inside)
        y = self._outside(y, lead)
        y = y if batched else y[:, 0]
        return y, ModuleTape(self, x, y, (tape, lead, batched)) if train else None

    def _inside(self, x: npt.NDArray[Any], lead: tuple[int, ...]) -> npt.NDArray[Any]:
        """Return an array as the module takes or gives it: with all steps as rows."""
        rows = x.reshape(lead[0] * lead[1], *x.shape[2:])
        return rows if self._rows_first(rows) else rows.swapaxes(0, 1)

    def _outside(self, y: npt.NDArray[Any], lead: tuple[int, ...]) -> npt.NDArray[Any]:
        rows = y if self._rows_first(y) else y.swapaxes(0, 1)
        return np.ascontiguousarray(rows).reshape(*lead, *rows.shape[1:])

    def _rows_first(self, x: npt.NDArray[Any]) -> bool:
        has_time = x.ndim > 2 - (x.dtype.kind in "iu")
        return not has_time or bool(getattr(self.module, "batch_first", False))

    def _options(self) -> dict[str, Any]:
        return {"module": self.module._description(), "batch_first": self.batch_first}
