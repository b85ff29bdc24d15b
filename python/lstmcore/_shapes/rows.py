"""Modules that take the whole array of each row of the batch: reshaped, permuted, repeated.

A row is (F,) without time, (T, F) with it, or (T, ..., F) with axes between, whatever the layout of
the batch is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.flow import Ends, Flow
from .._base.module import Module, storable
from .._base.symbolic import Axes, Symbolic
from .._nn.config import Option
from .._nn.tape import ModuleTape

__all__ = ["Permute", "RepeatVector", "Reshape", "Rows"]

Shape = tuple["int | None", ...]  # of a row; None where it may have any size


class Rows(Module):
    """What Reshape, Permute and RepeatVector share: one array in, one out, rows by themselves."""

    _applies_own = False
    _needs_whole_sequence = True

    batch_first = Option["bool | None"]()

    def _given(self, features: int | None) -> Shape:
        """Return the shape of a row of x, which has that many features if they are known."""
        raise NotImplementedError

    def _made(self, features: int | None) -> Shape:
        """Return the shape of a row of y."""
        raise NotImplementedError

    def _forward(self, rows: Array) -> Array:
        """Return y (B, ...) of x (B, ...)."""
        raise NotImplementedError

    def _backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        """Return dx (B, ...), of that shape."""
        raise NotImplementedError

    @property
    def _keeps_time(self) -> bool:  # type: ignore[override]
        return len(self._made(None)) > 1 or len(self._given(None)) < 2

    @property
    def _takes_time(self) -> bool:
        return len(self._given(None)) > 1

    @property
    def _makes_time(self) -> bool:  # type: ignore[override]
        return len(self._made(None)) > 1

    @property
    def _changes_lengths(self) -> bool:  # type: ignore[override]
        return self._makes_time

    @property
    def _input_size(self) -> int | None:
        return self._given(None)[-1]

    def _output_size(self, size: int | None) -> int | None:
        return self._made(size)[-1]

    def _axes(self, *args: Any) -> tuple[Any, ...]:
        x: Axes = args[0]
        given = self._given(x.features)
        have = (*([None] * x.steps), *x.inner, x.features)
        fits = len(have) == len(given) and all(
            n == m or None in (n, m) for n, m in zip(have, given, strict=True)
        )
        if x.features is None or x.states or not fits:
            raise ValueError(f"x is {x}, expected rows of shape {_text(given)}")
        *inner, features = self._made(x.features)
        return (Axes(features, steps=bool(inner), inner=tuple(inner[1:])),)

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Compute y for inference: nothing remembered.

        Parameters
        ----------
        x : array_like
            Rows with the axis of the batch: (B, F), or (T, B, ..., F), or (B, T, ..., F) if
            batch_first. Or one row without it.

        Returns
        -------
        y : ndarray
            In the same layout.
        """
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,))
            return result
        return self._compute(x, bool(self.batch_first), False)[0]

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
        return self._compute(x, bool(self.batch_first), True)

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> Array:
        """Return the gradient of x for that of y.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y

        Returns
        -------
        dx : ndarray, shaped like x
        """
        dy = ModuleTape.gradient(tape, self, dy)
        batched, batch_first, shape = tape.saved
        rows = dy if batched else dy[None]
        if batched and not batch_first and dy.ndim > 2:
            rows = rows.swapaxes(0, 1)
        dx = self._backward(rows, shape)
        if not batched:
            row: Array = dx[0]
            return row
        swaps = dx.ndim > 2 and not batch_first
        return dx.swapaxes(0, 1) if swaps else dx

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        made = self._compute(x, flow.batch_first, train)
        if self._makes_time:  # these steps are not those of x
            flow.lengths, flow.ends = None, Ends(None, False)
        return made

    def _compute(self, x: Any, batch_first: bool, train: bool) -> tuple[Array, Any]:
        x = checks.floating(x, "x")
        given = self._given(None)
        batched = x.ndim == len(given) + 1
        rows = x if batched else x[None]
        if batched and not batch_first and x.ndim > 2:
            rows = rows.swapaxes(0, 1)
        fits = rows.ndim == len(given) + 1 and all(
            n in (None, m) for n, m in zip(given, rows.shape[1:], strict=True)
        )
        if not fits:
            raise ValueError(f"x has shape {x.shape}, expected rows of shape {_text(given)}")
        y = self._forward(rows)
        if not batched:
            y = y[0]
        elif not batch_first and y.ndim > 2:
            y = y.swapaxes(0, 1)
        return y, ModuleTape(self, x, y, (batched, batch_first, rows.shape)) if train else None


@storable
class Reshape(Rows):
    """The numbers of each row in another shape, in the order of its steps, then its features.

    So ``Reshape((T, F), (T * F,))`` flattens a sequence, and ``Reshape((6,), (3, 2))`` makes three
    steps of two features.

    Parameters
    ----------
    given : sequence of int or None
        Shape of a row of x: (F,) without time, (T, F) with it, (T, ..., F) with axes between. None
        is any size.
    shape : sequence of int
        Shape of a row of y. One of them may be -1, which is what is left.
    batch_first : bool, optional
        Whether arrays with time are (B, T, ...). None, the default, is False, and in a `Sequential`
        or `Model` what its recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If the shapes do not fit each other, or an option has a wrong value or type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> flat = lc.Reshape((2, 3), (-1,), batch_first=True)
    >>> flat(np.arange(12.0).reshape(2, 2, 3))
    array([[ 0.,  1.,  2.,  3.,  4.,  5.],
           [ 6.,  7.,  8.,  9., 10., 11.]])
    """

    given = Option[Shape]()
    shape = Option[tuple[int, ...]]()

    def __init__(
        self,
        given: Sequence[int | None],
        shape: Sequence[int],
        batch_first: bool | None = None,
    ) -> None:
        sizes = _sizes(given, "given")
        made = tuple(checks.integer(n, "shape", -1) for n in _sequence(shape, "shape"))
        if made.count(-1) > 1 or 0 in made:
            raise ValueError(f"shape is {made}, expected sizes above 0, one of them -1 at most")
        self._config = SimpleNamespace(given=sizes, shape=made, batch_first=_first(batch_first))
        rest = math.prod(n for n in made if n != -1)
        if None not in sizes:
            total = math.prod(n or 0 for n in sizes)
            if total % rest or (-1 not in made and total != rest):
                raise ValueError(f"shape is {made}, but rows of shape {sizes} have {total} numbers")
        if made[-1] == -1 and None in sizes:
            raise ValueError(
                f"shape is {made} and given {_text(sizes)}, expected the last size of shape, "
                "or all of given"
            )

    def _given(self, features: int | None) -> Shape:
        return self.given

    def _made(self, features: int | None) -> Shape:
        if -1 not in self.shape:
            return self.shape
        total = None if None in self.given else math.prod(n or 0 for n in self.given)
        rest = math.prod(n for n in self.shape if n != -1)
        return tuple((total and total // rest) if n == -1 else n for n in self.shape)

    def _forward(self, rows: Array) -> Array:
        total, rest = math.prod(rows.shape[1:]), math.prod(n for n in self.shape if n != -1)
        if total % rest or (-1 not in self.shape and total != rest):
            raise ValueError(
                f"x has rows of shape {rows.shape[1:]}, which do not fit into {self.shape}"
            )
        shape = tuple(total // rest if n == -1 else n for n in self.shape)
        return rows.reshape(len(rows), *shape)

    def _backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        return dy.reshape(shape)


@storable
class Permute(Rows):
    """The axes of each row in another order.

    Parameters
    ----------
    given : sequence of int or None
        Shape of a row of x, as of `Reshape`. The axis that becomes the features has to have a size.
    order : sequence of int
        Which axis of a row of x each axis of a row of y is, counted from 1: (2, 1) makes of T steps
        of F features F steps of T features.
    batch_first : bool, optional
        Whether arrays with time are (B, T, ...). None, the default, is False, and in a `Sequential`
        or `Model` what its recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.Permute((2, 3), (2, 1))([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    array([[1., 4.],
           [2., 5.],
           [3., 6.]])
    """

    given = Option[Shape]()
    order = Option[tuple[int, ...]]()

    def __init__(
        self,
        given: Sequence[int | None],
        order: Sequence[int],
        batch_first: bool | None = None,
    ) -> None:
        sizes = _sizes(given, "given")
        axes = tuple(checks.integer(n, "order", 1) for n in _sequence(order, "order"))
        if sorted(axes) != list(range(1, len(sizes) + 1)):
            expected = ", ".join(map(str, range(1, len(sizes) + 1)))
            raise ValueError(f"order is {axes}, expected {expected} in some order")
        if sizes[axes[-1] - 1] is None:
            raise ValueError(
                f"given is {_text(sizes)}, expected the size of axis {axes[-1]}, which becomes "
                "that of the features"
            )
        self._config = SimpleNamespace(given=sizes, order=axes, batch_first=_first(batch_first))

    def _given(self, features: int | None) -> Shape:
        return self.given

    def _made(self, features: int | None) -> Shape:
        return tuple(self.given[axis - 1] for axis in self.order)

    def _forward(self, rows: Array) -> Array:
        y: Array = rows.transpose(0, *self.order)
        return y

    def _backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        dx: Array = dy.transpose(np.argsort((0, *self.order)))
        return dx


@storable
class RepeatVector(Rows):
    """Every row as each of so many steps: (B, F) becomes (steps, B, F).

    An autoencoder hands what the encoder has made of a sequence to its decoder so. `repeat` takes
    the number of steps from another array.

    Parameters
    ----------
    steps : int
        How many steps y has, at least 1.
    batch_first : bool, optional
        Whether y is (B, steps, F). None, the default, is False, and in a `Sequential` or `Model`
        what its recurrent layers have.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> encoder = lc.GRU(3, 8), lc.LastStep()
    >>> model = lc.Sequential(*encoder, lc.RepeatVector(5), lc.GRU(8, 8), lc.Linear(8, 3))
    >>> model(np.zeros((5, 2, 3), "float32")).shape
    (5, 2, 3)
    """

    steps = Option[int]()

    def __init__(self, steps: int, batch_first: bool | None = None) -> None:
        self._config = SimpleNamespace(
            steps=checks.integer(steps, "steps", 1), batch_first=_first(batch_first)
        )

    def _given(self, features: int | None) -> Shape:
        return (features,)

    def _made(self, features: int | None) -> Shape:
        return self.steps, features

    def _forward(self, rows: Array) -> Array:
        return np.repeat(rows[:, None], self.steps, axis=1)

    def _backward(self, dy: Array, shape: tuple[int, ...]) -> Array:
        dx: Array = dy.sum(axis=1)
        return dx


def _first(batch_first: Any) -> bool | None:
    return None if batch_first is None else checks.boolean(batch_first, "batch_first")


def _sequence(value: Any, name: str) -> Sequence[Any]:
    if not isinstance(value, (tuple, list)) or not value:
        raise TypeError(f"{name} is {checks.describe(value)}, expected a tuple of sizes")
    return value


def _sizes(value: Any, name: str) -> Shape:
    sizes = _sequence(value, name)
    return tuple(None if n is None else checks.integer(n, name, 1) for n in sizes)


def _text(shape: Shape) -> str:
    return f"({', '.join('any' if n is None else str(n) for n in shape)}{',' * (len(shape) < 2)})"
