"""Rounding a matrix to int8 for what it will be multiplied with, of which there are examples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .checks import Array
from .module import Module

__all__ = ["moments_of", "rounded"]

_DAMPING = 0.01  # of the mean square of an input, added to that of each
_BLOCK = 128  # columns


def moments_of(model: Module, calibration: Any) -> dict[int, Array]:
    """Return the sums of x x' of what matrices are multiplied with, by the id of the parameter.

    The model is called with `calibration`, or that with the model if it can be called.
    """
    sums: dict[int, Array] = {}
    watched = [
        (f"module {path}" if path else repr(module), module)
        for path, module in model._modules()
        if module._watches_inputs and not module._quantized
    ]

    def noting(name: str, module: Module) -> Callable[[str, Array], None]:
        def note(key: str, rows: Array) -> None:
            given = rows.astype(np.float64)
            if not np.isfinite(given).all():
                raise ValueError(f"calibration gives {name} NaN or infinity, expected numbers")
            place = id(module._parameters[key])
            sums[place] = sums.get(place, 0) + given.T @ given

        return note

    for name, module in watched:
        module._watch_inputs(noting(name, module))
    try:
        if callable(calibration):
            calibration(model)
        else:
            model(calibration)
    finally:
        for _, module in watched:
            module._watch_inputs(None)
    for name, module in watched:
        if not any(sums.get(id(p), np.zeros(1)).any() for p in module._parameters.values()):
            raise ValueError(
                f"calibration gives {name} nothing but zeros, or does not call it: expected x of a "
                "call that reaches all of the model, or a function that makes such calls"
            )
    return sums


def rounded(matrix: Array, moments: Array | None) -> tuple[npt.NDArray[np.int8], Array] | None:
    """Return a matrix in int8 and the scales of its rows; None if it has NaN or infinity.

    With `moments`, the sum of x x' of rows x, each column is rounded after those before it, of
    which it makes up for what their rounding changes in the products with such x, as far as it
    can. The columns with the largest x come first.
    """
    nearest = _core.quantize(matrix)
    if moments is None or nearest is None:
        return nearest
    scales = np.where(nearest[1] > 0, nearest[1], 1).astype(np.float64)
    size = np.diag(moments)
    order = np.argsort(-size, kind="stable")
    damped = moments[np.ix_(order, order)] + np.eye(len(size)) * (_DAMPING * size.mean())
    # Row j of it tells how the columns after j make up for an error in j.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    left = matrix[:, order].astype(np.float64) / scales[:, None]
    values = np.empty_like(left)
    for start in range(0, len(size), _BLOCK):
        end = min(start + _BLOCK, len(size))
        errors = np.empty((len(matrix), end - start))
        for j in range(start, end):
            values[:, j] = np.clip(np.rint(left[:, j]), -127, 127)
            errors[:, j - start] = (left[:, j] - values[:, j]) / upper[j, j]
            left[:, j:end] -= np.outer(errors[:, j - start], upper[j, j:end])
        left[:, end:] -= errors @ upper[start:end, end:]
    nearest[0][:, order] = values
    return nearest
