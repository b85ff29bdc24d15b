"""What is done with values between modules: sums, products, parts, side by side, repeated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._base.flow import BackwardFlow, Flow
from .._base.module import Module
from .._base.symbolic import Axes

__all__ = ["OPERATIONS", "Affine", "Binary", "Concat", "Index", "Operation", "Repeat", "Stack"]


class Operation(Module):
    """An operation: a module without parameters, whose options are what it was made with."""

    _takes_one_x = False
    _options_in_order: ClassVar[tuple[str, ...]] = ()
    _steps_of_all: ClassVar[bool] = True  # whether y has the steps that all arguments share

    def __init__(self, *options: Any) -> None:
        self._config = SimpleNamespace(**dict(zip(self._options_in_order, options, strict=False)))
        self._given = options

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        with np.errstate(all="ignore"):
            y, tape = self.forward(*args)
        return y, tape

    def _apply_all_backward(self, tape: Any, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        with np.errstate(all="ignore"):
            return self.backward(tape, *dy)

    def _given_symbols(self, *args: Any) -> Any:
        """Return what stands for its y, without lengths that it may find."""
        made = args[0]._enter(self, args)
        return made[0] if self._finds_lengths else made

    def __repr__(self) -> str:
        return type(self).__name__.lower()


class Binary(Operation):
    """a + b, a - b or a * b, of the same shape, or one of them with a single feature."""

    _options_in_order = ("kind",)

    def _axes(self, a: Axes, b: Axes) -> tuple[Axes, ...]:
        _check_features(a, b)
        if a.sized(1) != b.sized(1) or (
            a.features != b.features and 1 not in (a.features, b.features)
        ):
            hint = "; lc.repeat(a, like=b) gives steps" if a.steps != b.steps else ""
            raise ValueError(f"their shapes are {a} and {b}, expected the same{hint}")
        return (a.sized(max(a.features or 0, b.features or 0)),)

    def forward(self, a: Array, b: Array) -> tuple[Array, Any]:
        if a.shape[:-1] != b.shape[:-1]:
            raise ValueError(f"{self!r} has {a.shape} and {b.shape}, expected the same steps")
        kind = self._config.kind
        y = a * b if kind == "multiply" else a - b if kind == "subtract" else a + b
        return y, (a.shape, b.shape, *((a, b) if kind == "multiply" else ()))

    def backward(self, tape: Any, dy: Array) -> tuple[Array, Array]:
        kind = self._config.kind
        if kind == "multiply":
            da, db = dy * tape[3], dy * tape[2]
        else:
            da, db = dy, -dy if kind == "subtract" else dy
        return _summed(da, tape[0]), _summed(db, tape[1])

    def __repr__(self) -> str:
        return f"a {_SIGNS[self._config.kind]} b"


class Affine(Operation):
    """scale * x + shift, of two numbers."""

    _options_in_order = ("scale", "shift")

    def _axes(self, x: Axes) -> tuple[Axes, ...]:
        _check_features(x)
        return (x,)

    def forward(self, x: Array) -> tuple[Array, Any]:
        scale, shift = self._given
        y = x * scale if scale != 1 else x
        return (y + shift if shift else y), None

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        return (dy * self._given[0] if self._given[0] != 1 else dy,)

    def __repr__(self) -> str:
        return f"{self._given[0]:g} * x + {self._given[1]:g}"


class Concat(Operation):
    """Features side by side."""

    def _axes(self, *x: Axes) -> tuple[Axes, ...]:
        _check_features(*x)
        first = x[0]
        for other in x:
            if other.sized(1) != first.sized(1):
                hint = "; lc.repeat(a, like=b) gives steps" if other.steps != first.steps else ""
                if first.states != other.states:
                    hint = "; of (y, state), which a recurrent layer returns, [0] is y"
                raise ValueError(
                    f"their shapes are {first} and {other}, expected the same but for the "
                    f"features{hint}"
                )
        return (first.sized(sum(a.features or 0 for a in x)),)

    def forward(self, *x: Array) -> tuple[Array, Any]:
        for other in x:
            if other.shape[:-1] != x[0].shape[:-1] or not other.ndim:
                raise ValueError(
                    f"arrays have the shapes {x[0].shape} and {other.shape}, expected the same but "
                    "for the features"
                )
        return np.concatenate(x, axis=-1), [a.shape[-1] for a in x]

    def backward(self, tape: Any, dy: Array) -> tuple[Array, ...]:
        return tuple(np.split(dy, np.cumsum(tape)[:-1], axis=-1))


class Repeat(Operation):
    """(B, F) over the steps of another value."""

    _options_in_order = ("batch_first",)
    _steps_of_all, _steps_of = False, 1

    def __init__(self, batch_first: bool | None = None) -> None:
        if batch_first is not None:
            batch_first = checks.boolean(batch_first, "batch_first")
        super().__init__(batch_first)
        self.batch_first = batch_first

    def _axes(self, x: Axes, like: Axes) -> tuple[Axes, ...]:
        _check_features(x)
        if x.steps or x.states or not like.steps:
            raise ValueError(f"their shapes are {x} and {like}, expected (B, F) and time steps")
        return (Axes(x.features, steps=True),)

    def forward(self, x: Array, like: Any) -> tuple[Array, Any]:
        return self._over(x, like, bool(self.batch_first))

    def _over(self, x: Array, like: Any, first: bool) -> tuple[Array, Any]:
        axis = int(first and x.ndim == 2)
        rows = like.shape[1 - axis : 2 - axis] if x.ndim == 2 else x.shape[:1]
        if x.ndim not in (1, 2) or like.ndim < x.ndim or rows != x.shape[:1]:
            raise ValueError(
                f"array has shape {x.shape} and like {like.shape}, expected (B, F) and "
                f"{'(B, T, ...)' if first else '(T, B, ...)'}"
            )
        y = np.repeat(np.expand_dims(x, axis), like.shape[axis], axis)
        return y, axis

    def backward(self, tape: Any, dy: Array) -> tuple[Array, None]:
        return dy.sum(axis=tape), None

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        x, like = args
        return self._over(x, like, flow.batch_first)


class Index(Operation):
    """A part of a value: ``layer`` and ``layers`` of a state, ``features``; or a ``new`` axis."""

    _options_in_order = ("kind", "start", "stop", "step")

    @property
    def _key(self) -> Any:
        kind, *bounds = self._given
        if kind == "new":
            return None
        if kind == "layer":
            return bounds[0]
        return slice(*bounds) if kind == "layers" else (..., slice(*bounds))

    def _axes(self, x: Axes) -> tuple[Axes, ...]:
        _check_features(x)
        kind, *bounds = self._given
        if kind == "features":
            size = len(range(x.features or 0)[slice(*bounds)])
            if not size:
                raise ValueError(f"nothing of {x} is in [{_text(bounds)}]")
            return (x.sized(size),)
        if kind == "new":
            if x.steps or x.states:
                raise ValueError(f"x is {x}, expected (B, F)")
            return (replace(x, states=1),)
        if not x.states:
            raise ValueError(
                f"x is {x}, of which no step or row can be taken; lc.LastStep() takes the last "
                "valid step"
            )
        if kind == "layer":
            if not -x.states <= bounds[0] < x.states:
                raise ValueError(f"the index is {bounds[0]}, but x is {x}")
            return (replace(x, states=0),)
        count = len(range(x.states)[slice(*bounds)])
        if not count:
            raise ValueError(f"nothing of {x} is in [{_text(bounds)}]")
        return (replace(x, states=count),)

    def forward(self, x: Array) -> tuple[Array, Any]:
        return x[self._key], (x.shape, x.dtype)

    def backward(self, tape: Any, dy: Array) -> tuple[Array]:
        if self._given[0] == "new":
            return (dy[0],)
        dx = np.zeros(*tape)
        dx[self._key] = dy
        return (dx,)

    def __repr__(self) -> str:
        kind, *bounds = self._given
        if kind in ("new", "layer"):
            return f"x[{self._key}]"
        return f"x[{_text(bounds)}]" if kind == "layers" else f"x[..., {_text(bounds)}]"


class Stack(Operation):
    """A state (n, B, F) of n arrays (B, F)."""

    def _axes(self, *x: Axes) -> tuple[Axes, ...]:
        _check_features(*x)
        for one in x:
            if one.steps or one.states or one != x[0]:
                raise ValueError(f"their shapes are {x[0]} and {one}, expected (B, F) of the same")
        return (replace(x[0], states=len(x)),)

    def forward(self, *x: Array) -> tuple[Array, Any]:
        return np.stack(x), None

    def backward(self, tape: Any, dy: Array) -> tuple[Array, ...]:
        return tuple(dy)


OPERATIONS: dict[str, type[Operation]] = {
    kind.__name__: kind for kind in (Affine, Binary, Concat, Index, Repeat, Stack)
}


_SIGNS = {"add": "+", "subtract": "-", "multiply": "*"}


def _text(bounds: list[Any]) -> str:
    shown = bounds if bounds[2] is not None else bounds[:2]
    return ":".join("" if b is None else str(b) for b in shown)


def _check_features(*x: Axes) -> None:
    for one in x:
        if one.features is None:
            raise ValueError(f"x is {one}, expected features")


def _summed(dy: Array, shape: tuple[int, ...]) -> Array:
    """Return the gradient of what had that shape before a single feature met all."""
    if dy.shape == shape:
        return dy
    total: Array = dy.sum(axis=-1, keepdims=True)
    return total
