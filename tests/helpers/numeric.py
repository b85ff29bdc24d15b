"""Numbers compared: gradients by central differences, arrays to the bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def numeric_gradient(function: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    """Central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        moved = x.copy()
        moved[index] = x[index] + step
        above = function(moved)
        moved[index] = x[index] - step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient


def parameter_gradient(p: Any, loss: Callable[[], float]) -> Array:
    """The same with respect to a parameter, which has its numbers back afterwards."""
    before = p.data.copy()

    def of_values(values: Array) -> float:
        p.data = values
        return loss()

    gradient = numeric_gradient(of_values, before)
    p.data = before
    return gradient


def assert_same_bits(a: Any, b: Any) -> None:
    """Compare numbers, arrays, or tuples, lists, dicts of such, to the bit.

    +0 is another number than -0 here, and a NaN as good as any number.
    """
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for name in a:
            assert_same_bits(a[name], b[name])
    elif isinstance(a, (tuple, list)):
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            assert_same_bits(one, other)
    elif a is None or b is None:
        assert a is b
    else:
        a, b = np.asarray(a), np.asarray(b)
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if a.tobytes() != b.tobytes():
            np.testing.assert_array_equal(a, b)  # says where, if it sees the difference
            raise AssertionError("other bits, of zeros or NaN")
