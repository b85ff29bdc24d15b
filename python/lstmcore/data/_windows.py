"""Time series: windows that slide over them, of one series or of many in one table."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._base import checks
from ._batches import Batch
from ._tables import AnyArray, Table, columns_of, is_pandas, split, table

__all__ = ["windows"]

IntArray = npt.NDArray[np.int64]
Panels = list[tuple[int, int]]  # of each series in a table, its first row and the one after it


class _Part(NamedTuple):
    """What is taken of a table for each window: columns, and rows from its start on."""

    columns: list[int]
    first: int
    steps: int

    def cut(self, values: AnyArray, starts: IntArray, batch_first: bool) -> AnyArray:
        """Return (steps, W, F), or (W, steps, F) if batch_first."""
        steps = self.first + np.arange(self.steps)
        rows = starts[:, None] + steps if batch_first else starts + steps[:, None]
        taken: AnyArray = values[:, self.columns][rows]
        return taken

    def whole(self, gaps: npt.NDArray[np.bool_], starts: IntArray) -> npt.NDArray[np.bool_]:
        """Say which windows lack nothing of it."""
        before = np.concatenate([[0], np.cumsum(gaps[:, self.columns].any(axis=1))])
        begin = starts + self.first
        complete: npt.NDArray[np.bool_] = before[begin] == before[begin + self.steps]
        return complete


def windows(
    series: Any,
    size: int,
    *,
    steps: int | None = None,
    horizon: int = 1,
    stride: int = 1,
    target: Any = None,
    by: Any = None,
    known: Any = None,
    static: Any = None,
    previous: bool = False,
    missing: str = "raise",
    per_step: bool = False,
    batch_first: bool = False,
    dtype: Any = None,
) -> Any:
    """Cut a series into windows, each with what comes after it.

    Parameters
    ----------
    series : array (N,) or (N, F), or DataFrame or Series of pandas
        Values at N regular steps; (N,) has one feature. Columns of a frame may have nullable types.
        If its index has dates, they must be regular: see `resample`.
    size : int
        Steps of a window.
    steps : int, optional
        How many steps the target has; the first of them is `horizon` steps after the window. If
        not given, the target is the values of that step, and has no axis of steps.
    horizon : int, default 1
        How many steps after the end of the window the target lies, or begins.
    stride : int, default 1
        Steps from the start of one window to the next.
    target : column or list of columns, optional
        What the target consists of, by names or numbers; all columns if not given. As in pandas, a
        list keeps the axis of features, one column has none. It stays in the windows, too.
    by : column, or array (N,), optional
        Which series each row belongs to, of a table with several: numbers or names. No window
        crosses from one to the next. As a column it is taken out. The rows of a series are those
        of its name, in their order.
    known : column or list of columns, optional
        What is known of the future, as a calendar is. x is a dict then; `steps` are needed.
    static : column or list of columns, optional
        What does not change within a series. x is a dict then, and the windows lack them.
    previous : bool, default False
        Whether x, a dict then, has the target one step late, too: what a decoder reads in training,
        by teacher forcing (see `lstmcore.Seq2Seq.forecast`). `steps` are needed.
    missing : {"raise", "drop", "keep", "mask"}, default "raise"
        What to do with NaN: "raise" refuses them by column; "drop" leaves out windows that would
        have any; "keep" leaves them in. "mask" puts 0 in their places: behind the F features of a
        window there are F more, 1 where one was missing, and the target comes with weights, 0
        where it was missing. What is known or static may not be missing then, and in "previous"
        there is 0.
    per_step : bool, default False
        Whether every step of a window has its target, `horizon` steps after that step.
    batch_first : bool, default False
        Whether arrays with steps are (W, T, ...) rather than (T, W, ...).
    dtype : "float32" or "float64", optional
        Of what is returned. If not given, that of an array, and float32 for a frame.

    Returns
    -------
    x : ndarray (size, W, F), or dict
        All W windows, copied. With `known`, `static` or `previous` a dict: "past" (size, W, F),
        "known" (steps, W, K), "static" (W, S), "previous" like the target, with an axis of
        features.
    target : ndarray (W, F), (steps, W, F), or (size, W, F) if per_step
        Without the last axis where `target` is one column.

    With ``missing="mask"`` these are the first fields of a `Batch`, and its `weight` has the shape
    of the target.

    Raises
    ------
    ValueError, TypeError
        If there are too few steps for a window, values are missing, a column is not there or has no
        numbers, dates are not regular, or an option is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x, target = lc.data.windows([0.0, 1.0, 2.0, 3.0, 4.0], 3)
    >>> x[:, :, 0].T.tolist(), target.tolist()
    ([[0.0, 1.0, 2.0], [1.0, 2.0, 3.0]], [[3.0], [4.0]])

    Two series in one table, load and hour of the day; of the next two steps the hour is known:

    >>> load, hour = np.arange(10.0), np.arange(10.0) % 5
    >>> table = np.stack([load, hour], axis=1)
    >>> x, target = lc.data.windows(
    ...     table, 3, steps=2, target=0, known=[1], by=[7] * 5 + [8] * 5, batch_first=True
    ... )
    >>> {name: part.shape for name, part in x.items()}
    {'past': (2, 3, 2), 'known': (2, 2, 1)}
    >>> x["past"][:, :, 0].tolist(), target.tolist()
    ([[0.0, 1.0, 2.0], [5.0, 6.0, 7.0]], [[3.0, 4.0], [8.0, 9.0]])
    """
    size = checks.integer(size, "size", 1)
    horizon = checks.integer(horizon, "horizon", 1)
    stride = checks.integer(stride, "stride", 1)
    per_step = checks.boolean(per_step, "per_step")
    previous = checks.boolean(previous, "previous")
    count = _checked_steps(steps, per_step, known is not None, previous)
    batch_first = checks.boolean(batch_first, "batch_first")
    missing = checks.choice(missing, "missing", ("raise", "drop", "keep", "mask"))
    whole, panels = _panels(series, by)
    values = _numbers(whole, is_pandas(series), dtype)
    wanted = list(range(values.shape[1])) if target is None else whole.places(target, "target")
    ahead = [] if known is None else whole.places(known, "known")
    fixed = [] if static is None else whole.places(static, "static")
    _check_static(whole, fixed, panels)
    past = _Part([i for i in range(values.shape[1]) if i not in fixed], 0, size)
    if not past.columns:
        raise ValueError("static names all columns, expected one that changes")
    after = (horizon, size) if per_step else (size + horizon - 1, count or 1)
    later = _Part(wanted, *after)
    others = {"known": _Part(ahead, *after)} if ahead else {}
    others |= {"static": _Part(fixed, 0, 1)} if fixed else {}
    others |= {"previous": later._replace(first=later.first - 1)} if previous else {}
    text = "size + horizon" + (" + steps - 1" if count else "")
    starts = _starts(panels, size + horizon + (count or 1) - 1, stride, text)
    gaps = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    if gaps.any():
        starts = _without_gaps(whole, gaps, starts, missing, [past, later, *others.values()])
    if missing == "mask":
        _check_whole(whole, gaps, ahead + fixed, missing)
    x, y, weight = _taken(values, gaps, starts, past, later, missing == "mask", batch_first)
    if others:
        cut = {name: part.cut(values, starts, batch_first) for name, part in others.items()}
        x = {"past": x, **cut}
        if fixed:
            x["static"] = _shaped(x["static"], True, False, batch_first)
        if previous and missing == "mask":
            x["previous"] = np.nan_to_num(x["previous"])
    one = target is not None and not columns_of(target, whole.names)
    shape = (count is None and not per_step, one, batch_first)
    if weight is None:
        return x, _shaped(y, *shape)
    return Batch(x, _shaped(y, *shape), weight=_shaped(weight, *shape))


def _checked_steps(steps: Any, per_step: bool, known: bool, previous: bool) -> int | None:
    if steps is None:
        if known or previous:
            name = "known" if known else "previous"
            raise ValueError(f"{name} is given without steps, expected of how many steps it is")
        return None
    if per_step:
        raise ValueError(f"steps is {steps} and per_step is True, expected one of them")
    return checks.integer(steps, "steps", 1)


def _taken(
    values: AnyArray,
    gaps: npt.NDArray[np.bool_],
    starts: IntArray,
    past: _Part,
    later: _Part,
    masked: bool,
    batch_first: bool,
) -> tuple[Any, AnyArray, AnyArray | None]:
    """Return windows, targets and, where gaps are masked, their weights."""
    x, y = (part.cut(values, starts, batch_first) for part in (past, later))
    if not masked:
        return x, y, None
    lost, gone = (part.cut(gaps, starts, batch_first) for part in (past, later))
    x = np.concatenate([np.where(lost, 0, x), lost], axis=-1, dtype=values.dtype)
    return x, np.where(gone, values.dtype.type(0), y), 1.0 - gone


def _shaped(part: AnyArray, step: bool, column: bool, batch_first: bool) -> AnyArray:
    """Return targets without the axis of steps, or of columns, where there is one of them."""
    if step:
        part = part[:, 0] if batch_first else part[0]
    return part[..., 0] if column else part


def _panels(series: Any, by: Any) -> tuple[Table, Panels]:
    """Return the table with the rows of each series together, and where they are."""
    ids = None
    if by is not None and np.ndim(by) == 1 and not isinstance(by, tuple):
        ids = np.asarray(by)
    elif by is not None:
        series, (ids,) = split(series, [by], "by")
    whole = table(series, "series")
    total = len(whole.values)
    index = getattr(series, "index", None) if is_pandas(series) else None
    if ids is None:
        _check_dates(index, [(0, total)], None)
        return whole, [(0, total)]
    if ids.shape != (total,):
        raise ValueError(f"by has shape {ids.shape}, expected ({total},), the rows of series")
    missing = [_is_missing(one) for one in ids] if ids.dtype == object else ids != ids
    if np.any(missing):
        first_row = int(np.argmax(missing))
        raise ValueError(
            f"by has no value in {np.count_nonzero(missing)} of {total} rows, the first of them "
            f"{first_row}: expected the name of a series in each"
        )
    try:
        _, first, code = np.unique(ids, return_index=True, return_inverse=True)
    except TypeError as error:  # of several types
        raise TypeError(f"by has values that cannot be compared: {error}") from error
    rank = first[code]  # series come in the order of their first rows
    order = np.argsort(rank, kind="stable")
    ends = [*np.flatnonzero(np.diff(rank[order])) + 1, total]
    panels = [(int(a), int(b)) for a, b in zip([0, *ends[:-1]], ends)]
    _check_dates(index, panels, order)
    return whole._replace(values=whole.values[order]), panels


def _is_missing(one: Any) -> bool:
    return one is None or type(one).__name__ == "NAType" or bool(one != one)  # of pandas, or NaN


def _check_dates(index: Any, panels: Panels, order: IntArray | None) -> None:
    """Refuse dates of rows that are not regular: windows of them would jump."""
    if getattr(getattr(index, "dtype", None), "kind", "O") != "M":
        return
    if order is None and index.freq is not None:  # as months, which are of unequal lengths
        return
    when = index.to_numpy("datetime64[ns]")
    when = when if order is None else when[order]
    for begin, end in panels:
        apart = np.diff(when[begin:end])
        if not len(apart):
            continue
        wrong = (apart != apart.min()) | (apart <= np.timedelta64(0))
        if wrong.any():
            at = begin + int(wrong.argmax())
            raise ValueError(
                f"the index of series goes from {when[at]} to {when[at + 1]}, but others are "
                f"{apart.min()} apart: expected regular increasing dates, as lc.data.resample "
                "makes them, or frame.reset_index(drop=True) if rows are steps"
            )


def _numbers(whole: Table, of_pandas: bool, dtype: Any) -> AnyArray:
    if dtype is None:
        return whole.values.astype(np.float32) if of_pandas else whole.values
    return whole.values.astype(checks.dtype(dtype), copy=False)


def _check_static(whole: Table, fixed: list[int], panels: Panels) -> None:
    for column in fixed:
        for begin, end in panels:
            part = whole.values[begin:end, column]
            same = (part == part[0]) | ((part != part) & (part[0] != part[0]))
            if not same.all():
                raise ValueError(
                    f"static {whole.name(column)} has {part[0]} and {part[~same][0]} in one "
                    "series, expected the same in each of its rows"
                )


def _starts(panels: Panels, needed: int, stride: int, text: str) -> IntArray:
    """Return the first row of every window."""
    starts = [np.arange(begin, end - needed + 1, stride) for begin, end in panels]
    found = np.concatenate(starts)
    if not len(found):
        most = max(end - begin for begin, end in panels)
        which = "series has" if len(panels) == 1 else "the longest series has"
        raise ValueError(f"{which} {most} steps, expected at least {text} = {needed}")
    return found


def _without_gaps(
    whole: Table, gaps: npt.NDArray[np.bool_], starts: IntArray, missing: str, parts: list[_Part]
) -> IntArray:
    """Return the windows to take where values are missing, or refuse them."""
    if missing == "raise":
        _check_whole(whole, gaps, list(range(gaps.shape[1])), missing)
    if missing != "drop":
        return starts
    found = starts[np.all([part.whole(gaps, starts) for part in parts], axis=0)]
    if not len(found):
        raise ValueError(f"every window of {len(starts)} has NaN, and missing='drop' leaves none")
    return found


def _check_whole(
    whole: Table, gaps: npt.NDArray[np.bool_], columns: list[int], missing: str
) -> None:
    """Refuse columns that lack values."""
    for column in columns:
        lost = gaps[:, column]
        if lost.any():
            text = f"series has {lost.sum()} NaN of {len(lost)} in {whole.name(column)}, expected "
            if missing == "mask":
                raise ValueError(f"{text}none in what is known or static with missing='mask'")
            raise ValueError(
                f"{text}none: fill them, as lc.data.resample does, or say missing='drop', 'mask' "
                "or 'keep'"
            )
