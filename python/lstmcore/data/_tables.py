"""Tables of numbers: arrays as they are, and pandas frames, whose columns have names.

pandas is not imported: a frame is known by what it can do.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._base import checks

__all__ = ["Table", "columns_of", "is_pandas", "numbers", "remade", "split", "table"]

AnyArray = npt.NDArray[Any]


class Table(NamedTuple):
    """Columns of numbers, (N, F), and what they are called."""

    values: AnyArray
    names: tuple[Any, ...] | None  # of a frame

    def place(self, column: Any, argument: str) -> int:
        """Return which column that is, by its name or its number."""
        count = self.values.shape[1]
        if self.names is not None and isinstance(column, Hashable) and column in self.names:
            return int(self.names.index(column))
        number = isinstance(column, (int, np.integer)) and not isinstance(column, bool)
        if number and -count <= column < count:
            return int(column % count)
        known = f"{count} columns, 0 to {count - 1}"
        if self.names is not None:
            known = "the columns " + ", ".join(map(repr, self.names))
        raise ValueError(f"{argument} is {column!r}, expected one of {known}")

    def places(self, columns: Any, argument: str) -> list[int]:
        """Return which columns those are: one, or a list of several."""
        listed = columns_of(columns, self.names)
        if listed and not len(columns):
            raise ValueError(f"{argument} is empty, expected at least one column")
        found = [self.place(c, argument) for c in (columns if listed else [columns])]
        if len(set(found)) < len(found):
            raise ValueError(f"{argument} is {columns!r}, which names a column twice")
        return found

    def name(self, place: int) -> str:
        """Return what messages call a column."""
        return f"column {place if self.names is None else repr(self.names[place])}"


def columns_of(columns: Any, names: tuple[Any, ...] | None) -> bool:
    """Whether it is a list of columns, rather than one; a tuple may be the name of one."""
    one = isinstance(columns, tuple) and columns in (names or ())
    return isinstance(columns, (list, tuple)) and not one


def is_pandas(value: object) -> bool:
    """Whether it is a DataFrame or a Series of pandas, or behaves like one."""
    return _is_frame(value) or _is_series(value)


def _is_frame(value: object) -> bool:
    """Whether it is a pandas DataFrame, or behaves like one."""
    return all(hasattr(value, name) for name in ("columns", "iloc", "index"))


def _is_series(value: object) -> bool:
    """Whether it is a pandas Series, or behaves like one."""
    return all(hasattr(value, name) for name in ("iloc", "index", "to_frame"))


def split(series: Any, columns: Sequence[Any], name: str) -> tuple[Any, list[AnyArray]]:
    """Take columns of any type out of an array or a frame; return what is left, and them."""
    if _is_series(series) and not _is_frame(series):
        series = series.to_frame()
    if _is_frame(series):
        labels = list(series.columns)
        names = Table(np.empty((0, len(labels))), tuple(labels))
        taken = [names.place(column, name) for column in columns]
        left = [i for i in range(len(labels)) if i not in taken]
        return series.iloc[:, left], [np.asarray(series.iloc[:, i]) for i in taken]
    if not columns:
        return series, []
    array = checks._asarray(series, "series")
    if array.ndim != 2:
        raise ValueError(f"series is {checks.describe(series)}, expected (N, F), to have {name}")
    whole = Table(array, None)
    taken = [whole.place(column, name) for column in columns]
    return np.delete(array, taken, axis=1), [array[:, i] for i in taken]


def table(series: Any, name: str) -> Table:
    """Return an array (N,) or (N, F), or a frame or Series of pandas, as a table."""
    if _is_series(series) and not _is_frame(series):
        series = series.to_frame()
    if _is_frame(series):
        return _of_frame(series, name)
    values = checks._asarray(series, name)
    if values.ndim not in (1, 2) or values.dtype.kind not in "biuf":
        raise ValueError(f"{name} is {checks.describe(series)}, expected numbers (N,) or (N, F)")
    if not values.size:
        raise ValueError(f"{name} is empty, of shape {values.shape}, expected at least two steps")
    return Table(values.reshape(len(values), -1), None)


def _of_frame(frame: Any, name: str) -> Table:
    labels = tuple(frame.columns)
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ValueError(f"{name} has several columns {twice!r}, expected different names")
    if not labels or not len(frame):
        raise ValueError(f"{name} is empty, of shape {frame.shape}, expected rows and columns")
    columns = [numbers(frame.iloc[:, i], f"{name}[{label!r}]") for i, label in enumerate(labels)]
    return Table(np.stack(columns, axis=1), labels)


def numbers(column: Any, name: str) -> npt.NDArray[np.float64]:
    """Return a column of a frame as float64, NaN where it has none, also of nullable types."""
    checks.check_column(column, name)
    result: npt.NDArray[np.float64] = column.to_numpy(dtype=np.float64, na_value=np.nan)
    return result


def remade(like: Any, values: AnyArray, index: Any) -> Any:
    """Return a frame, or a Series, with the names of another and these values (N, F)."""
    if _is_frame(like):
        return type(like)(values, index=index, columns=like.columns)
    return type(like)(values[:, 0], index=index, name=like.name)
