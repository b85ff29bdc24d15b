"""What users hand in: sequences, as one table of all steps and their lengths; what they weigh."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from sklearn.utils.validation import check_array, validate_data

from .._base import checks
from ..data._tables import is_pandas

__all__ = ["Steps", "check_given", "of_weight", "read_sequences", "read_series"]

Array = npt.NDArray[Any]
# float32 stays, all else becomes float64.
_CHECKED: dict[str, Any] = {"dtype": [np.float64, np.float32], "order": "C"}


class Steps(NamedTuple):
    """The steps of all sequences, one after the other, and where each ends."""

    table: Array  # (N, F)
    lengths: npt.NDArray[np.int64]  # (n,)

    def sequences(self) -> list[Array]:
        """Return each sequence (T_i, F)."""
        return np.split(self.table, np.cumsum(self.lengths)[:-1])

    def kept(self, which: npt.NDArray[np.bool_]) -> Steps:
        """Return some of the sequences alone."""
        return Steps(self.table[np.repeat(which, self.lengths)], self.lengths[which])


def read_sequences(estimator: Any, X: Any, *, reset: bool) -> Steps:
    """Read a list of (T_i, F), or (n, T, F), or (n, T), whose columns are steps of one feature.

    `reset` is for `fit`, which notes in the estimator what it saw; otherwise X must fit that.
    """
    parts = _parts(X)
    if parts is None:  # (n, T), or what is refused
        return _of_columns(estimator, X, reset)
    table, lengths = _joined(parts)
    if not reset and estimator._by_columns:
        if table.shape[1] != 1:
            raise ValueError(
                f"X has {table.shape[1]} features, but {type(estimator).__name__} was fitted to "
                f"an array (n, T), sequences of 1 feature"
            )
        return Steps(check_array(table, estimator=estimator, **_CHECKED), lengths)
    table = validate_data(estimator, table, reset=reset, **_CHECKED)
    if reset:
        estimator._by_columns = False
    return Steps(table, lengths)


def read_series(estimator: Any, X: Any, *, reset: bool) -> tuple[Any, Steps, bool]:
    """Read one series (N, F), or several, in a list or (n, N, F), and say whether it is several.

    They are returned in one table, too, which is a frame if they came as frames: its names and
    dates are of use.
    """
    if is_pandas(X) and not hasattr(X, "columns"):
        X = X.to_frame()
    parts = _parts(X)
    whole, lengths = (X, None) if parts is None else _joined(parts)
    table = validate_data(estimator, whole, reset=reset, **_CHECKED)
    steps = Steps(table, np.array([len(table)]) if lengths is None else lengths)
    return whole if is_pandas(whole) else table, steps, parts is not None


def check_given(y: Any, estimator: Any) -> None:
    """Refuse a y that is missing, in scikit-learn's words."""
    if y is None:
        name = type(estimator).__name__
        raise ValueError(f"{name} requires y to be passed, but the target y is None")


def of_weight(steps: Steps, target: Array, sample_weight: Any) -> tuple[Steps, Array, Array | None]:
    """Leave out the sequences of weight 0; return the others with their targets and weights."""
    if sample_weight is None:
        return steps, target, None
    count = len(steps.lengths)
    weight = checks.real(sample_weight, np.dtype(np.float64), "sample_weight", cast=True)
    if weight.shape != (count,):
        raise ValueError(
            f"sample_weight has shape {weight.shape}, expected ({count},), one for each sequence"
        )
    if not np.isfinite(weight).all() or weight.min() < 0:
        raise ValueError("sample_weight has numbers that are negative or not finite, expected none")
    if not weight.any():
        raise ValueError("sample_weight is zero for every sequence, expected some above zero")
    counts = weight > 0
    return steps.kept(counts), target[counts], weight[counts]


def _of_columns(estimator: Any, X: Any, reset: bool) -> Steps:
    """Read (n, T): as many sequences of one feature as there are rows."""
    if reset or estimator._by_columns:
        array = validate_data(estimator, X, reset=reset, **_CHECKED)
    else:
        array = check_array(X, estimator=estimator, **_CHECKED)
        if estimator.n_features_in_ != 1:
            raise ValueError(
                f"X has shape {array.shape}, sequences of 1 feature, but "
                f"{type(estimator).__name__} is expecting {estimator.n_features_in_} features as "
                "input"
            )
    if reset:
        estimator._by_columns = True
    rows, steps = array.shape
    return Steps(array.reshape(-1, 1), np.full(rows, steps))


def _parts(X: Any) -> list[Any] | None:
    """Return X as a list if it is several sequences of steps, and None if it is anything else."""
    if isinstance(X, np.ndarray) and X.dtype == object and X.ndim == 1:
        X = list(X)
    if getattr(X, "ndim", None) == 3:
        return list(np.asarray(X))
    if not isinstance(X, (list, tuple)) or not X:
        return None
    if any(is_pandas(part) for part in X):
        return [part if hasattr(part, "columns") else np.asarray(part)[:, None] for part in X]
    if not all(map(_is_regular, X)):
        return None
    arrays = [np.asarray(part) for part in X]
    ndims = {array.ndim for array in arrays}
    if ndims == {1} and len({len(array) for array in arrays}) > 1:
        return [array[:, None] for array in arrays]  # of one feature
    return arrays if ndims == {2} else None


def _is_regular(part: Any) -> bool:
    try:
        return np.asarray(part).dtype != object
    except ValueError:
        return False


def _joined(parts: Any) -> tuple[Any, npt.NDArray[np.int64]]:
    """Return all steps in one table, a frame if the parts are frames, and their lengths."""
    lengths = np.array([len(part) for part in parts])
    if not lengths.all():
        raise ValueError(f"X[{int(lengths.argmin())}] is empty, expected at least one step")
    shapes = {np.shape(part)[1:] for part in parts}
    if len(shapes) > 1:
        raise ValueError(
            f"X has sequences of {sorted(shape[0] for shape in shapes)} features, expected one "
            "number of features in all"
        )
    if not is_pandas(parts[0]):
        return np.concatenate([np.asarray(part) for part in parts]), lengths
    import pandas

    names = list(parts[0].columns)
    for i, part in enumerate(parts):
        if not hasattr(part, "columns") or list(part.columns) != names:
            raise ValueError(f"X[{i}] has other columns than X[0], expected {names}")
    return pandas.concat(parts), lengths
