"""Regular steps from irregular time stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array

__all__ = ["resample"]


def resample(
    times: npt.ArrayLike,
    values: npt.ArrayLike,
    step: Any,
    *,
    method: str = "linear",
    start: Any = None,
    stop: Any = None,
) -> tuple[npt.NDArray[Any], Array]:
    """Turn values at irregular times into values at regular ones.

    Parameters
    ----------
    times : array (N,), increasing
        When each value was measured: numbers of any unit, or ``datetime64``.
    values : array (N,) or (N, F)
        What was measured; float32 stays, all else becomes float64.
    step : number, or timedelta64 for datetime64
        From each of the new times to the next, in the unit of `times`.
    method : {"linear", "previous"}, default "linear"
        A straight line between the neighbours, which looks into the future by up to one gap; or
        the last value measured at or before that time, which is what was known then.
    start, stop : like a time, optional
        The first of the new times, and the one that none exceeds; by default the first and the
        last of `times`. They may not lie outside: nothing is extrapolated.

    Returns
    -------
    times : ndarray (M,)
        start, start + step, ...; float64 or datetime64.
    values : ndarray (M,) or (M, F)

    Raises
    ------
    ValueError, TypeError
        If the times do not increase, anything is not finite, or there is nothing to measure by.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.data.resample([0, 1, 5], [0.0, 2.0, 4.0], 2)
    (array([0., 2., 4.]), array([0. , 2.5, 3.5]))
    >>> lc.data.resample([0, 1, 5], [0.0, 2.0, 4.0], 2, method="previous")
    (array([0., 2., 4.]), array([0., 2., 2.]))
    """
    method = checks.choice(method, "method", ("linear", "previous"))
    when, measured = _measured(times, values)
    dated = when.dtype.kind == "M"
    _check_step(when, step)
    t = _steps_since(when[0], when, step, "times")
    backwards = np.flatnonzero(~(np.diff(t) > 0))
    if not np.isfinite(t).all():
        raise ValueError("times has NaN or infinity, expected finite numbers")
    if backwards.size:
        at = int(backwards[0])
        raise ValueError(f"times[{at + 1}] does not come after times[{at}], expected them to")
    first = 0.0 if start is None else float(_steps_since(when[0], start, step, "start"))
    last = float(t[-1] if stop is None else _steps_since(when[0], stop, step, "stop"))
    if not 0 <= first <= last <= t[-1]:
        raise ValueError(
            f"start and stop are {start} and {stop}, expected them in order and within "
            f"{when[0]} to {when[-1]}: nothing is extrapolated"
        )

    # A time that rounding puts just past a step, as 0.1 * 3 after 0.1 + 0.1 + 0.1, belongs to it.
    rounding = 1e-9
    grid = first + np.arange(int(np.floor(last - first + rounding)) + 1)
    left = np.clip(np.searchsorted(t, grid + rounding, "right") - 1, 0, len(t) - 1)
    taken = measured[left]
    if method == "linear":
        right = np.minimum(left + 1, len(t) - 1)
        share = (grid - t[left]) / np.where(right > left, t[right] - t[left], 1.0)
        share = share.reshape(-1, *[1] * (measured.ndim - 1)).astype(measured.dtype)
        taken = taken + share * (measured[right] - taken)
    if dated:
        begin = when[0] if start is None else np.asarray(start, "M8")
        return begin + np.arange(len(grid)) * step, taken
    begin = float(when[0] if start is None else start)
    return begin + np.arange(len(grid)) * float(step), taken


def _measured(times: Any, values: Any) -> tuple[Array, Array]:
    """Return times and values as arrays that belong together, or say what is wrong with them."""
    when, measured = checks._asarray(times, "times"), checks._asarray(values, "values")
    if when.ndim != 1 or not when.size or when.dtype.kind not in "Miuf":
        raise ValueError(f"times is {checks.describe(times)}, expected numbers or dates (N,)")
    if measured.ndim not in (1, 2) or len(measured) != len(when):
        raise ValueError(
            f"values has shape {measured.shape}, expected ({len(when)},) or ({len(when)}, F), "
            "a row for each time"
        )
    if measured.dtype.kind not in "biuf":
        raise TypeError(f"values has dtype {measured.dtype}, expected real numbers")
    measured = measured.astype(np.float32 if measured.dtype == np.float32 else np.float64)
    if not np.isfinite(measured).all():
        raise ValueError("values has NaN or infinity, expected finite numbers: drop them first")
    return when, measured


def _check_step(when: Array, step: Any) -> None:
    if when.dtype.kind == "M":
        if not isinstance(step, np.timedelta64):
            raise TypeError(f"step is {checks.describe(step)}, expected timedelta64 as of dates")
        if np.isnat(when).any() or np.isnat(step) or step <= np.timedelta64(0):
            raise ValueError("times has NaT, or step is not positive")
    elif checks.number(step, "step") <= 0:
        raise ValueError(f"step is {step}, expected more than 0")


def _steps_since(origin: Any, time: Any, step: Any, name: str) -> Any:
    """Return how many steps a time, or each of several, is after `origin`."""
    try:
        since = np.asarray(time, "M8" if isinstance(step, np.timedelta64) else np.float64) - origin
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} is {checks.describe(time)}, expected a time") from error
    try:
        return since / step
    except TypeError as error:  # months, say, which are no number of days
        what = f"step is {checks.describe(step)}"
        raise TypeError(f"{what}, expected a length that divides {since.dtype}") from error
