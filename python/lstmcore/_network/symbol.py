"""Symbols: what a network is described with. Each knows the call that gives it."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.module import Module, check_own, overridden
from .._base.symbolic import Axes, Symbolic
from .._base.tree import leaves, rebuilt
from .operations import Affine, Binary, Concat, Index, Operation, Repeat

__all__ = ["Call", "Input", "Lengths", "Symbol", "concat", "repeat"]

_SERIAL = itertools.count()  # of calls, in the order in which they are written


class Call:
    """A call of a module with symbols."""

    __slots__ = ("along", "args", "given", "lengths", "module", "serial", "ys")

    ys: tuple[Any, ...]
    """The symbols that it gives, in the structure in which the module gives arrays."""

    def __init__(self, module: Module, args: tuple[Any, ...], lengths: Lengths | None) -> None:
        self.module, self.args, self.lengths = module, args, lengths
        self.serial = next(_SERIAL)
        timed = [s for s in leaves(args) if s is not None and s.axes.steps]

        def of(place: int) -> list[Symbol]:
            return [s for s in leaves(args[place]) if s is not None and s.axes.steps]

        # Whose steps are those of y, and of whose steps the module is told where rows end.
        everywhere = isinstance(module, Operation) and module._steps_of_all
        self.along = timed if everywhere else of(module._steps_of) or timed[:1]
        self.given: list[Symbol] = of(module._lengths_of) or timed[:1]
        if isinstance(module, Operation) and not module._knows_time:
            self.given = []
        if lengths is not None:
            self.given = [lengths.of]


class Lengths(Symbolic):
    """Stands for the lengths of a symbol, as a `Masking` finds them."""

    __slots__ = ("of",)

    def __init__(self, of: Symbol) -> None:
        self.of = of

    def _enter(
        self, module: Any, args: tuple[Any, ...], lengths: Any = None, resets: Any = None
    ) -> Any:
        raise TypeError(f"{module!r} is given lengths where it takes an array")


class Symbol(Symbolic):
    """Stands for an array in the description of a network, as `Input` does, and what comes of it.

    Modules that are called with symbols where they take arrays give symbols where they give arrays.
    Symbols of the same shape, or a symbol and a number, can be added, subtracted and multiplied,
    and a symbol be divided by a number;
    ``x[..., 2:5]`` takes features, ``h[-1]`` and ``h[0:2]`` take layers and directions of a state,
    and ``x[None]`` makes a state, (1, B, F), of (B, F). See `Model`.
    """

    __slots__ = ("axes", "call")

    # NumPy leaves sums to the symbol.
    __array_ufunc__ = None
    __iter__ = None

    def __init__(self, axes: Axes, call: Call | None) -> None:
        self.axes, self.call = axes, call

    def _enter(
        self, module: Any, args: tuple[Any, ...], lengths: Any = None, resets: Any = None
    ) -> Any:
        if resets is not None:
            raise TypeError(f"{module!r} has resets, expected them when the model is called")
        if not (lengths is None or isinstance(lengths, Lengths)):
            what = checks.describe(lengths)
            raise TypeError(
                f"lengths of {module!r} is {what}, expected what a Masking finds; those of inputs "
                "are given when the model is called"
            )
        _check(module, args)
        axes = rebuilt(args, (None if s is None else s.axes for s in leaves(args)))
        own = module._applies_own and overridden(module)
        try:
            made = _probe(module, axes) if own else module._axes(*axes)
        except ValueError as error:
            raise ValueError(f"{module!r}, given {_listed(args)}: {error}") from error
        call = Call(module, args, lengths)
        call.ys = rebuilt(made, iter([Symbol(one, call) for one in leaves(made)]))
        if module._finds_lengths:
            return call.ys[0], Lengths(call.ys[0])
        return call.ys[0] if len(call.ys) == 1 else call.ys

    def _binary(self, kind: str, other: Any, reverse: bool = False) -> Any:
        if isinstance(other, Symbol):
            return self._enter(Binary(kind), (self, other))
        checks.check_one(other, f"what is to {kind}")
        if isinstance(other, np.ndarray) and other.ndim:
            raise TypeError(
                f"what is to {kind} is {checks.describe(other)}, expected a number or a symbol: an "
                "array can be another input, or a Parameter of a module of your own"
            )
        number = checks.number(other, f"what is to {kind}")
        if kind == "multiply":
            return self._enter(Affine(number, 0.0), (self,))
        if kind == "subtract":
            scale, shift = (-1.0, number) if reverse else (1.0, -number)
            return self._enter(Affine(scale, shift), (self,))
        return self._enter(Affine(1.0, number), (self,))

    def __add__(self, other: Any) -> Any:
        return self._binary("add", other)

    def __sub__(self, other: Any) -> Any:
        return self._binary("subtract", other)

    def __mul__(self, other: Any) -> Any:
        return self._binary("multiply", other)

    def __rsub__(self, other: Any) -> Any:
        return self._binary("subtract", other, reverse=True)

    def __truediv__(self, other: Any) -> Any:
        if isinstance(other, Symbol):
            return self._refuse(other)
        number = checks.number(other, "what is to divide by")
        if not number:
            raise ZeroDivisionError(f"{self!r} is divided by 0")
        return self._enter(Affine(1 / number, 0.0), (self,))

    def _refuse(self, *_: Any) -> Any:
        raise TypeError(
            "symbols can be added, subtracted, multiplied, and divided by numbers; anything else "
            "is a module: one of lstmcore, or of your own, derived from lc.Module"
        )

    __rtruediv__ = __pow__ = __rpow__ = __matmul__ = __rmatmul__ = __abs__ = _refuse
    __floordiv__ = __mod__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse

    def __neg__(self) -> Any:
        return self._enter(Affine(-1.0, 0.0), (self,))

    __radd__, __rmul__ = __add__, __mul__

    def __getitem__(self, key: Any) -> Any:
        if key is None:
            return self._enter(Index("new"), (self,))
        if isinstance(key, (int, np.integer)) and not isinstance(key, bool):
            return self._enter(Index("layer", int(key)), (self,))
        if isinstance(key, slice):
            return self._enter(Index("layers", *_bounds(key)), (self,))
        features = isinstance(key, tuple) and len(key) == 2 and isinstance(key[0], EllipsisType)
        if features and isinstance(key[1], slice):
            return self._enter(Index("features", *_bounds(key[1])), (self,))
        raise TypeError(
            f"the index of a symbol is {key!r}, expected a layer of a state (h[-1], h[0:2]), "
            "features (x[..., 2:5]) or None"
        )

    def __repr__(self) -> str:
        return f"<Symbol {self.axes}{'' if self.call is None else f' of {self.call.module!r}'}>"


class Input(Symbol):
    """An input of a `Model`: a symbol that stands for the array given there.

    Parameters
    ----------
    features : int, optional
        Size of the last axis; ids have none.
    steps : bool, default True
        Whether there is a time axis: (T, B, features), or (B, T, features) if the model is
        batch_first; without, (B, features).
    ids : bool, default False
        Whether it holds integers, (T, B) or (B,), for an `Embedding`.
    dtype : {"float32", "float64"}, optional
        By default that of the model's parameters.
    inner : sequence of int or None, optional
        Sizes of axes between those of time and batch and that of the features, which `EachStep`
        takes: ``(T, B, *inner, features)``. None is any size. With steps only.
    name : str, optional
        What it is called in files. A model whose inputs all have names can also be called with a
        dict of arrays by these names.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> sequence, static = lc.Input(8), lc.Input(3, steps=False)
    >>> y, h = lc.GRU(8, 16)(sequence)
    >>> lc.concat([h[-1], static])
    <Symbol (B, 19) of concat>
    """

    __slots__ = ("dtype", "name")

    def __init__(
        self,
        features: int | None = None,
        *,
        steps: bool = True,
        ids: bool = False,
        dtype: npt.DTypeLike | None = None,
        inner: Sequence[int | None] = (),
        name: str | None = None,
    ) -> None:
        if checks.boolean(ids, "ids"):
            if features is not None or dtype is not None:
                raise ValueError("ids have no features and no dtype, expected neither")
        else:
            features = checks.integer(features, "features", 1)
        if inner and not steps:
            raise ValueError(f"inner is {inner!r} without steps, expected steps=True")
        sizes = tuple(n if n is None else checks.integer(n, "inner", 1) for n in inner)
        super().__init__(Axes(features, checks.boolean(steps, "steps"), inner=sizes), None)
        self.dtype: np.dtype[Any] | None = None if dtype is None else checks.dtype(dtype)
        if name is not None and (not isinstance(name, str) or not name):
            raise TypeError(f"name is {checks.describe(name)}, expected a name")
        self.name = name


def concat(arrays: Any) -> Any:
    """Put arrays side by side: their features, one after the other.

    Parameters
    ----------
    arrays : sequence of array_like, or of symbols
        All with the same axes but for the last.

    Returns
    -------
    ndarray or symbol

    Raises
    ------
    ValueError, TypeError
        If they do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lc.concat([np.zeros((5, 2, 3)), np.ones((5, 2, 1))]).shape
    (5, 2, 4)
    >>> lc.concat([lc.Input(3), lc.Input(1)])
    <Symbol (T, B, 4) of concat>
    """
    if not isinstance(arrays, (tuple, list)) or not arrays:
        what = checks.describe(arrays)
        raise TypeError(f"arrays is {what}, expected a list of them: lc.concat([a, b])")
    arrays = tuple(arrays)
    return _apply(Concat(), arrays)


def repeat(array: Any, like: Any, *, batch_first: bool | None = None) -> Any:
    """Repeat an array without steps over the steps of another.

    Parameters
    ----------
    array : array_like (B, F), or (F,) unbatched, or a symbol
    like : array_like (T, B, ...), or (B, T, ...) if batch_first, or (T, ...) unbatched, or a symbol
        What has the steps.
    batch_first : bool, optional
        Whether these are (B, T, ...). None, the default, is False, and in a `Model` what its
        recurrent layers have.

    Returns
    -------
    ndarray (T, B, F), or (B, T, F) if batch_first, or (T, F); or a symbol

    Raises
    ------
    ValueError, TypeError
        If they do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lc.repeat(np.ones((2, 3)), like=np.zeros((5, 2, 8))).shape
    (5, 2, 3)
    >>> lc.repeat(lc.Input(3, steps=False), like=lc.Input(8))
    <Symbol (T, B, 3) of repeat>
    """
    return _apply(Repeat(batch_first), (array, like))


def _apply(operation: Operation, args: tuple[Any, ...]) -> Any:
    for place, one in enumerate(args):
        checks.check_one(one, f"argument {place} of {operation!r}")
    for one in args:
        if isinstance(one, Symbol):
            return one._enter(operation, args)
    return operation.forward(*(checks._asarray(one, "array") for one in args))[0]


def _bounds(key: slice) -> tuple[Any, ...]:
    return tuple(None if b is None else int(b) for b in (key.start, key.stop, key.step))


def _listed(args: tuple[Any, ...]) -> str:
    return ", ".join("None" if s is None else repr(s) for s in leaves(args))


def _check(module: Any, args: tuple[Any, ...]) -> None:
    """Refuse what cannot stand in a network, and arguments that are no symbols."""
    check_own(module)
    if not module._applies_own and overridden(module):
        raise TypeError(
            f"{type(module).__qualname__} has its own {overridden(module)}, which a network does "
            "not call, expected a module that computes as lstmcore's do, or one derived from "
            "lc.Module"
        )
    for place, one in enumerate(args):
        # Where a state may be several arrays, only the first argument cannot.
        if not module._own and (place == 0 or not module._state_parts):
            checks.check_one(one, f"argument {place} of {module!r}")
    for one in leaves(args):
        if isinstance(one, Lengths):
            raise TypeError(f"{module!r} is given lengths where it takes an array")
        if one is not None and not isinstance(one, Symbol):
            what = checks.describe(one)
            raise TypeError(f"{module!r} is given {what}, expected symbols alone")
        if one is not None and one.axes.shown:
            raise TypeError(f"{module!r} is given {one!r}, which can only be an output of a model")


# Sizes that no features have, nor each other.
_TIME, _BATCH = 5, 3


def _probe(module: Module, axes: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return the axes that somebody else's module gives: those of what it gives for zeros."""
    batch_first = bool(getattr(module, "batch_first", False))
    dtype = next((p.dtype for p in module.parameters()), np.dtype(np.float64))
    grid = (_BATCH, _TIME) if batch_first else (_TIME, _BATCH)

    def zeros(a: Axes | None) -> Any:
        if a is None:
            return None
        lead = grid if a.steps else (a.states, _BATCH) if a.states else (_BATCH,)
        return (
            np.zeros(lead, np.int64) if a.features is None else np.zeros((*lead, a.features), dtype)
        )

    def axes_of(y: Any) -> Axes:
        shape = np.shape(y)
        if shape[:2] == grid and len(shape) == 3:
            return Axes(shape[2], steps=True)
        if len(shape) == 2 and shape[0] == _BATCH:
            return Axes(shape[1])
        if len(shape) == 3 and shape[1] == _BATCH:
            return Axes(shape[2], states=shape[0])
        what = ", ".join(map(str, (*grid, "F")))
        raise ValueError(f"it gives {checks.describe(y)}, expected ({what}) or ({_BATCH}, F)")

    args = rebuilt(axes, (zeros(a) for a in leaves(axes)))
    shapes = [np.shape(one) for one in leaves(args) if one is not None]
    try:
        with np.errstate(all="ignore"):
            ys = copy.deepcopy(module)(*args)  # a copy, whose random streams may move
    except Exception as error:
        raise ValueError(f"called with zeros of {shapes}: {error}") from error
    ys = ys if isinstance(ys, tuple) else (ys,)
    return tuple(rebuilt(ys, (axes_of(y) for y in leaves(ys))))
