"""Gradients held against finite differences."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.module import Module, check_hidden, check_own, overridden, split_forward, wrong_number
from .._base.tree import leaves, matched, rebuilt

__all__ = ["gradcheck"]

_STEP = 1e-6


def gradcheck(
    module: Module, *x: Any, lengths: npt.ArrayLike | None = None, tol: float = 1e-6
) -> None:
    """Check ``backward`` of a module against central differences of ``forward``, in float64.

    All gradients are checked: of every entry of every parameter and of every x that holds floats,
    for a random sum of all that `forward` returns. So is that `forward` and `backward` change
    nothing that they are given, and that what `backward` needs is in the tape: it gives the same
    after another `forward`, with the numbers of x in another order, where that takes them. The
    module itself is left as it is.

    Parameters
    ----------
    module : Module
        Of this library or your own, with parameters of float64. Where it drops at random, it drops
        the same in every call.
    *x : array_like, or tuple, list or dict of them
        What `forward` takes; float64 where it is not of integers.
    lengths : optional
        Given to `forward` by name.
    tol : float, default 1e-6
        Largest difference, beside 1 or the size of the gradient if that is more.

    Raises
    ------
    AssertionError
        If a gradient is wrong: it names the parameter or the input, and the entry.
    TypeError, ValueError
        If a parameter is not of float64, an argument does not fit, or the module lacks a method.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lc.gradcheck(lc.GRU(2, 3, dtype="float64", seed=0), np.ones((4, 1, 2)), lengths=[3])
    >>> class Wrong(lc.Module):
    ...     def forward(self, x):
    ...         return x**3, x
    ...
    ...     def backward(self, x, dy):
    ...         return 2 * x * dy
    >>> lc.gradcheck(Wrong(), np.array([0.0, 1.0]))
    Traceback (most recent call last):
    AssertionError: the gradient of x[0] at (1,) is ..., expected ...
    """
    if not isinstance(module, Module):
        raise TypeError(f"module is {checks.describe(module)}, expected a module")
    tol = checks.number(tol, "tol")
    check_own(module, least=min(len(x), 1))
    check_hidden(module)
    for name, p in module.named_parameters():
        if p.dtype != np.float64:
            raise TypeError(
                f"parameter {name} has dtype {p.dtype}, expected float64: float32 is too coarse "
                "for differences, so check a module that is made with float64"
            )
    options = {} if lengths is None else {"lengths": lengths}
    _Check(copy.deepcopy(module), x, options, tol).run()


class _Check:
    def __init__(
        self, module: Module, x: tuple[Any, ...], options: dict[str, Any], tol: float
    ) -> None:
        self._module, self._options, self._tol = module, options, tol
        self._x = rebuilt(x, (_input(one) for one in leaves(x)))
        self._random = module._rng_state()
        taken = inspect.signature(module.backward).parameters.values()
        anything = any(p.kind is p.VAR_POSITIONAL for p in taken)
        most = None if anything else len(taken) - 1
        self._ys = slice(0, most)  # those of y that backward takes a gradient of
        rng = np.random.default_rng(0)
        given = copy.deepcopy(self._x)
        ys = self._forward(self._x)[0][self._ys]
        _check_unchanged("forward", "x", given, self._x)
        self._dy = [rebuilt(y, (_draw(rng, one) for one in leaves(y))) for y in ys]

    def run(self) -> None:
        checked = list(self._checked())
        gradients = list(self._gradients())
        for (name, array, touch), found in zip(checked, gradients, strict=True):
            if _has_gradient(array):
                self._compare(name, array, touch, found)
        another = rebuilt(self._x, map(_flipped, leaves(self._x)))
        try:
            self._forward(another)
        except Exception:  # it may want them in this order, such as times that increase
            return
        again = self._gradients(after=another)
        for (name, array, _), one, other in zip(checked, gradients, again, strict=True):
            if _has_gradient(array) and not np.allclose(one, other, atol=self._tol):
                raise AssertionError(
                    f"the gradient of {name} is another after forward was called once more, with "
                    "another x: expected backward to go by its tape, and not by attributes that "
                    "forward sets"
                )

    def _forward(self, x: Any) -> tuple[tuple[Any, ...], Any]:
        self._module._set_rng_state(self._random)
        return split_forward(self._module, self._module.forward(*x, **self._options))

    def _value(self) -> float:
        """The sum whose gradients are checked."""
        y = self._forward(self._x)[0][self._ys]
        pairs = zip(leaves(y), leaves(self._dy), strict=True)
        return float(sum((one * d).sum() for one, d in pairs if d is not None))

    def _gradients(self, after: Any = None) -> Iterator[Any]:
        """Yield what backward gives: for every parameter, then for every x; None for no floats.

        With `after`, forward is called with that as well before.
        """
        before = []
        for _, p in self._module.named_parameters():
            p.grad = self._given(p.shape)
            before.append(self._given(p.shape))
        _, tape = self._forward(self._x)
        if after is not None:
            self._forward(after)
        given = copy.deepcopy((self._x, self._dy))
        dx = self._module.backward(tape, *self._dy)
        _check_unchanged("backward", "x", given[0], self._x)
        _check_unchanged("backward", "dy", given[1], self._dy)
        for p, start in zip(self._module.parameters(), before, strict=True):
            yield p.grad - start
        dx = () if dx is None and not self._x else dx
        # The gradient of one x may be a structure like that; else a tuple has one for each.
        whole = len(self._x) == 1 and isinstance(self._x[0], (tuple, list, dict))
        several = isinstance(dx, tuple) and not whole
        dx = dx if several else (dx,)
        # Our layers also give those of states that forward was not given.
        if len(dx) < len(self._x) or (len(dx) > len(self._x) and overridden(self._module)):
            raise AssertionError(f"backward returned {wrong_number(dx, len(self._x))}")
        for one, d in zip(self._x, dx, strict=False):
            if isinstance(one, np.ndarray):
                yield d
            else:
                yield from leaves(d) if d is not None else [None] * len(leaves(one))

    def _given(self, shape: tuple[int, ...]) -> Array:
        """Return the gradient that a parameter has before: backward adds to it."""
        return np.random.default_rng(1).standard_normal(shape)

    def _checked(self) -> Iterator[tuple[str, Array, Callable[[], None]]]:
        for name, p in self._module.named_parameters():
            yield f"parameter {name}", p._storage.view(np.ndarray), p._touch
        for i, one in enumerate(self._x):
            for name, part in matched(one, one, f"x[{i}]"):
                yield name, part, lambda: None

    def _compare(self, name: str, array: Array, touch: Callable[[], None], found: Any) -> None:
        found = np.asarray(found) if isinstance(found, np.generic) else found  # NumPy's of shape ()
        if not isinstance(found, np.ndarray):
            raise AssertionError(
                f"the gradient of {name} is {checks.describe(found)}, expected an array of shape "
                f"{array.shape}"
            )
        if found.shape != array.shape:
            raise AssertionError(
                f"the gradient of {name} has shape {found.shape}, expected {array.shape}"
            )
        for index in np.ndindex(*array.shape):
            value = float(array[index])
            step = _STEP * max(1.0, abs(value))
            sides = []
            for moved in (value + step, value - step):
                array[index] = moved
                touch()
                sides.append(self._value())
            array[index] = value
            touch()
            expected = (sides[0] - sides[1]) / (2 * step)
            if not abs(found[index] - expected) <= self._tol * max(1.0, abs(expected)):
                whole = found[index] + self._given(array.shape)[index]
                put = name.startswith("parameter") and abs(whole - expected) <= self._tol
                raise AssertionError(
                    f"the gradient of {name} at {index} is {found[index]}, expected {expected}"
                    + ": backward replaces what was there, expected it to add to it" * bool(put)
                    + ": backward gives 0 everywhere" * (not found.any())
                )


def _input(value: Any) -> Any:
    """Return a copy to write to, of float64 if it is of floats."""
    if value is None:
        return None
    array = checks._asarray(value, "x")
    return array.astype(np.float64) if array.dtype.kind == "f" else array.copy()


def _has_gradient(array: Any) -> bool:
    return array is not None and array.dtype == np.float64


def _flipped(x: Any) -> Any:
    """Return another x whose numbers are as likely to be allowed: the same in another order."""
    return np.flip(x).copy() if x is not None and x.dtype.kind == "f" else x


def _check_unchanged(by: str, name: str, before: Any, now: Any) -> None:
    """Refuse a method that writes to what it is given."""
    for (path, one), other in zip(matched(before, before, name), leaves(now), strict=True):
        if one is not None and not np.array_equal(one, other, equal_nan=one.dtype.kind == "f"):
            raise AssertionError(f"{by} changes {path} in place, expected it to leave it as it is")


def _draw(rng: np.random.Generator, y: Any) -> Any:
    """Return a random gradient of y; None for what is not of floats."""
    y = np.asarray(y)
    return rng.standard_normal(y.shape) if y.dtype == np.float64 else None
