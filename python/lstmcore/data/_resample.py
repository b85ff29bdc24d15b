"""Regular steps from irregular time stamps."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from ._tables import is_pandas, remade, table

__all__ = ["resample"]


def resample(
    times: Any,
    values: Any = None,
    step: Any = None,
    *,
    method: str = "linear",
    start: Any = None,
    stop: Any = None,
    max_gap: Any = None,
    return_filled: bool = False,
) -> Any:
    """Turn values at irregular times into values at regular ones, and fill gaps.

    Parameters
    ----------
    times : array (N,), increasing; or DataFrame or Series of pandas
        When each value was measured: numbers of any unit, or ``datetime64``. A frame without
        `values` beside it brings its times as its index.
    values : array (N,) or (N, F)
        What was measured; float32 stays, all else becomes float64. NaN is no measurement: each
        column has its own gaps.
    step : number, or timedelta64 for datetime64
        From each of the new times to the next, in the unit of `times`. For a frame with dates also
        what pandas takes, as ``"1h"`` or ``"h"``.
    method : {"linear", "previous"}, default "linear"
        A straight line between the neighbours, which looks into the future by up to one gap; or
        the last value measured at or before that time, which is what was known then.
    start, stop : like a time, optional
        The first of the new times, and the one that none exceeds; by default the first and the
        last of `times`. They may not lie outside: nothing is extrapolated.
    max_gap : like step, optional
        The longest gap to fill: from one measurement to the next for a line, else how old a value
        may be. What lies in longer ones is NaN.
    return_filled : bool, default False
        Whether to say also which values were filled.

    Returns
    -------
    times : ndarray (M,)
        start, start + step, ...; float64 or datetime64. Not for a frame, which has its own.
    values : ndarray (M,) or (M, F), or frame
        NaN before the first measurement of a column and, for a line, after its last.
    filled : bools, like values
        With `return_filled`: where nothing was measured at that time, and the measurements around
        it are more than one step apart, or, for the previous value, it is a step old or more.

    Raises
    ------
    ValueError, TypeError
        If the times do not increase, a value is infinite, or there is nothing to measure by.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lc.data.resample([0, 1, 5], [0.0, 2.0, 4.0], 2)
    (array([0., 2., 4.]), array([0. , 2.5, 3.5]))
    >>> lc.data.resample([0, 1, 5], [0.0, 2.0, 4.0], 2, method="previous")
    (array([0., 2., 4.]), array([0., 2., 2.]))
    >>> lc.data.resample([0, 1, 2, 3], [0.0, np.nan, np.nan, 3.0], 1, return_filled=True)[1:]
    (array([0., 1., 2., 3.]), array([False,  True,  True, False]))
    """
    if is_pandas(times) and values is None:
        options = (method, start, stop, max_gap, checks.boolean(return_filled, "return_filled"))
        return _of_pandas(times, step, *options)
    if is_pandas(times) and step is None:
        raise TypeError(
            f"values is {checks.describe(values)} beside a frame, which has its own: expected "
            f"step={values!r}, by name"
            if np.ndim(values) == 0
            else "step is not given, expected the time from one step to the next"
        )
    method = checks.choice(method, "method", ("linear", "previous"))
    when, measured = _measured(times, values)
    _check_step(when, step)
    t = _steps_since(when[0], when, step, "times")
    if not np.isfinite(t).all():
        raise ValueError("times has NaN or infinity, expected finite numbers")
    backwards = np.flatnonzero(~(np.diff(t) > 0))
    if backwards.size:
        raise ValueError(_disorder(when, int(backwards[0]), frame=False))
    longest = np.inf
    if max_gap is not None:
        _check_step(when, max_gap, "max_gap")
        longest = float(max_gap / step)
    first = 0.0 if start is None else float(_steps_since(when[0], start, step, "start"))
    last = float(t[-1] if stop is None else _steps_since(when[0], stop, step, "stop"))
    if not 0 <= first <= last <= t[-1]:
        raise ValueError(
            f"start and stop are {start} and {stop}, expected them in order and within "
            f"{when[0]} to {when[-1]}: nothing is extrapolated"
        )
    grid = first + np.arange(int(np.floor(last - first + _ROUNDING)) + 1)
    columns = [_column(t, y, grid, method, longest) for y in measured.reshape(len(t), -1).T]
    taken, filled = (
        np.stack(part, axis=1).reshape(-1, *measured.shape[1:])
        for part in zip(*columns, strict=True)
    )
    if when.dtype.kind == "M":
        begin = when[0] if start is None else np.asarray(start, "M8")
        regular = begin + np.arange(len(grid)) * step
    else:
        regular = float(when[0] if start is None else start) + np.arange(len(grid)) * float(step)
    return (regular, taken, filled) if return_filled else (regular, taken)


def _disorder(times: Any, at: int, frame: bool) -> str:
    """Say which two times are not in order, and what puts them in order."""
    same = bool(times[at + 1] == times[at])
    name = "index" if frame else "times"
    if same:
        hint = "frame[~frame.index.duplicated()] keeps the first" if frame else "keep one of them"
        return f"{name}[{at}] and {name}[{at + 1}] are both {times[at]}, expected each once: {hint}"
    hint = "frame.sort_index()" if frame else "np.argsort(times)"
    return (
        f"{name}[{at + 1}] is {times[at + 1]}, before {name}[{at}], {times[at]}, expected them to "
        f"increase: {hint} puts them in order"
    )


# A time that rounding puts just past a step, as 0.1 * 3 after 0.1 + 0.1 + 0.1, belongs to it.
_ROUNDING = 1e-9


def _column(
    t: Array, y: Array, grid: Array, method: str, longest: float
) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return one column at the times of the grid, in steps, and which of its values are filled."""
    there = ~np.isnan(y)
    t, y = t[there], y[there]
    left = np.searchsorted(t, grid + _ROUNDING, "right") - 1
    lost = left < 0  # nothing has been measured yet
    left = np.maximum(left, 0)
    right = np.minimum(left + 1, len(t) - 1)
    taken, age = y[left], grid - t[left]
    measured = np.abs(age) <= _ROUNDING
    if method == "linear":
        lost |= ~measured & (right == left)  # nor is there a neighbour after the last
        apart = t[right] - t[left]
        share = (age / np.where(right > left, apart, 1.0)).astype(y.dtype)
        taken = taken + share * (y[right] - taken)
        filled = ~measured & (apart > 1 + _ROUNDING)
    else:
        apart = age
        filled = age > 1 - _ROUNDING
    lost |= filled & (apart > longest * (1 + _ROUNDING))
    return np.where(lost, y.dtype.type(np.nan), taken), filled & ~lost


def _of_pandas(
    frame: Any, step: Any, method: str, start: Any, stop: Any, max_gap: Any, told: bool
) -> Any:
    """Resample a frame or a Series, each column by itself."""
    import pandas  # it is there, as somebody has made the frame with it

    whole, index = table(frame, "values"), frame.index
    dated = index.dtype.kind == "M"
    if index.dtype.kind not in "Miuf":
        raise TypeError(
            f"the index of the frame has dtype {index.dtype}, expected its times: dates, as "
            "pandas.to_datetime makes them, or numbers"
        )
    if not (index.is_monotonic_increasing and index.is_unique) and not index.hasnans:
        later = index[1:] > index[:-1]
        raise ValueError(_disorder(index, int(np.argmin(later)), frame=True))
    zone = index.tz if dated else None

    def moment(time: Any) -> Any:
        if time is None or not dated:
            return time
        stamp = pandas.Timestamp(time)
        stamp = stamp.tz_localize(zone) if zone and stamp.tz is None else stamp
        return (stamp.tz_convert(None) if stamp.tz else stamp).to_datetime64()

    def length(time: Any) -> Any:
        if not dated or time is None:
            return time
        if isinstance(time, str):
            _check_fixed(time)
            time = "1" + time if time[:1].isalpha() else time  # frequencies of pandas: "h", "D"
        return pandas.Timedelta(time).to_timedelta64()

    regular, taken, filled = resample(
        index.to_numpy("datetime64[ns]") if dated else index.to_numpy(),
        whole.values,
        length(step),
        method=method,
        start=moment(start),
        stop=moment(stop),
        max_gap=length(max_gap),
        return_filled=True,
    )
    regular = pandas.DatetimeIndex(regular, tz="UTC").tz_convert(zone) if zone else regular
    new = pandas.Index(regular, name=index.name)
    results = tuple(remade(frame, part, new) for part in (taken, filled))
    return results if told else results[0]


def _check_fixed(step: str) -> None:
    """Refuse months and the like, of which "MS" is also what pandas calls milliseconds."""
    from pandas.tseries import frequencies, offsets

    try:
        offset = frequencies.to_offset(step)
    except ValueError:  # perhaps a Timedelta, which says what is wrong with it
        return
    if not isinstance(offset, (offsets.Tick, offsets.Day)):
        raise ValueError(
            f"the step {step!r} is {offset.base!r}, which is not always of the same length: "
            "expected a fixed time, as '1h' or '7D'"
        )


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
    if np.isinf(measured).any():
        raise ValueError("values has infinity, expected finite numbers, and NaN in gaps")
    empty = np.isnan(measured).all(axis=0)
    if empty.any():
        where = f" in column {int(np.argmax(empty))}" if measured.ndim == 2 else ""
        raise ValueError(f"values has nothing but NaN{where}, expected a measurement")
    return when, measured


def _check_step(when: Array, step: Any, name: str = "step") -> None:
    if when.dtype.kind == "M":
        if not isinstance(step, np.timedelta64):
            raise TypeError(f"{name} is {checks.describe(step)}, expected timedelta64 as of dates")
        if np.isnat(when).any() or np.isnat(step) or step <= np.timedelta64(0):
            raise ValueError(f"times has NaT, or {name} is not positive")
    elif checks.number(step, name) <= 0:
        raise ValueError(f"{name} is {step}, expected more than 0")


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
