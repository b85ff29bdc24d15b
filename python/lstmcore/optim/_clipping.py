"""Clipping of gradients, against exploding ones."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from .. import _core
from .._base import checks
from .._base.parameter import Parameter, gradients
from ._checks import at_least_0
from ._checks import parameters as checked_parameters

__all__ = ["clip_grad_norm", "clip_grad_value", "limit_norm", "scale"]


def clip_grad_norm(
    parameters: Iterable[Parameter], max_norm: float, *, error_if_nonfinite: bool = False
) -> float:
    """Scale the gradients of all parameters so that their common norm is at most `max_norm`.

    All are multiplied by ``max_norm / (norm + 1e-6)`` if that is below 1, as PyTorch does (R.
    Pascanu et al., "On the difficulty of training recurrent neural networks", ICML 2013).

    Parameters
    ----------
    parameters : iterable of Parameter
        Usually those of the optimizer. Of a gradient that says which rows it has touched, the
        others, which are 0, are not looked at.
    max_norm : float
        At least 0; infinity only measures.
    error_if_nonfinite : bool, default False
        Whether to raise an error where the norm is NaN or infinite. Otherwise the gradients are
        left as they are (PyTorch makes them NaN or 0), and the returned norm tells.

    Returns
    -------
    norm : float
        The Euclidean norm of all gradients as one vector, before clipping. It is summed in float64
        and overflows only if it is itself too large for that; the same bits at any number of
        threads.

    Raises
    ------
    ValueError
        If an argument is out of range, or, with `error_if_nonfinite`, the norm is not finite; the
        first parameter to blame is named.
    TypeError
        If something else than a Parameter is given.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [0.0, 0.0])
    >>> p.grad = [3.0, 4.0]
    >>> clip_grad_norm([p], max_norm=1.0)
    5.0
    >>> p.grad.round(4)
    array([0.6, 0.8])
    """
    params = checked_parameters(parameters)
    limit = math.inf if max_norm == math.inf else at_least_0(max_norm, "max_norm")
    strict = checks.boolean(error_if_nonfinite, "error_if_nonfinite")
    norm = limit_norm(params, limit)
    if strict and not math.isfinite(norm):
        bad = (p.name for p in params if not np.isfinite(p._gradient()).all())
        raise ValueError(
            f"the norm of the gradients is {norm}, expected a finite number: "
            f"see the gradient of {next(bad, 'all together')}"
        )
    return norm


def limit_norm(parameters: list[Parameter], limit: float) -> float:
    """Do what `clip_grad_norm` does, with arguments that are checked."""
    grads = gradients(parameters)
    # A gradient that was lent out as a whole may have more rows than `backward` has added to.
    rows = [None if p._rows is None or p._lent else p._rows for p in parameters]
    norm = _core.gradient_norm(grads, rows)
    if math.isfinite(norm) and norm + 1e-6 > limit:
        _core.scale_gradients(limit / (norm + 1e-6), grads, rows)
    return norm


def scale(parameters: list[Parameter], factor: float) -> None:
    """Multiply the gradients by a factor."""
    rows = [None if p._rows is None or p._lent else p._rows for p in parameters]
    _core.scale_gradients(factor, gradients(parameters), rows)


def clip_grad_value(parameters: Iterable[Parameter], value: float) -> None:
    """Hold every number of the gradients within [-value, value]. NaN stays NaN.

    Parameters
    ----------
    parameters : iterable of Parameter
        Usually those of the optimizer.
    value : float
        Above 0.

    Raises
    ------
    ValueError
        If `value` is not above 0.
    TypeError
        If something else than a Parameter is given.

    Examples
    --------
    >>> import lstmcore as lc
    >>> p = lc.Parameter("w", [0.0, 0.0])
    >>> p.grad = [3.0, -0.25]
    >>> clip_grad_value([p], 1.0)
    >>> p.grad
    array([ 1.  , -0.25])
    """
    params = checked_parameters(parameters)
    limit = checks.number(value, "value")
    if limit <= 0:
        raise ValueError(f"value is {value}, expected above 0")
    for p in params:
        grad, rows = p._gradient(), None if p._rows is None or p._lent else p._rows
        if rows is None:
            np.clip(grad, -limit, limit, out=grad)
        else:
            grad[rows] = np.clip(grad[rows], -limit, limit)
