"""Features with mean 0 and standard deviation 1, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from .._base import checks
from .._base.checks import Array
from ._tables import AnyArray, Table, columns_of, is_pandas, remade, table

__all__ = ["Standardizer"]


class Standardizer:
    """Subtracts the mean of each column and divides by its standard deviation, and back.

    Fit it to the training data alone. NaN is left out of the statistics and stays NaN. A column
    that is constant is only shifted, to 0. Its numbers are kept with a model by
    ``lc.save(model, path, extra={"scaler": scaler.state_dict()})``.

    Attributes
    ----------
    mean, scale : ndarray (F,), float64, or None before `fit`
        ``x = mean + scale * z``. The scale is the standard deviation, with N in its denominator as
        in scikit-learn's StandardScaler, or 1 for a constant column.
    names : tuple or None
        Those of the columns, where it was fitted to a frame.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = np.array([[1.0, 5.0], [3.0, 5.0], [np.nan, 5.0]])
    >>> scaler = lc.data.Standardizer().fit(x)
    >>> z = scaler.transform(x)
    >>> z
    array([[-1.,  0.],
           [ 1.,  0.],
           [nan,  0.]])
    >>> scaler.inverse(z).tolist()
    [[1.0, 5.0], [3.0, 5.0], [nan, 5.0]]
    >>> scaler.inverse([0.5, 1.5], columns=0)  # of predictions of that column
    array([2.5, 3.5])
    >>> lc.data.Standardizer.from_state_dict(scaler.state_dict()) == scaler
    True
    """

    def __init__(self) -> None:
        self.mean: Array | None = None
        self.scale: Array | None = None
        self.names: tuple[Any, ...] | None = None

    def fit(self, x: Any) -> Standardizer:
        """Take mean and standard deviation of each column.

        Parameters
        ----------
        x : array (N,), or (..., F), or DataFrame or Series of pandas
            All axes but the last are counted together; (N,) is one column.

        Returns
        -------
        Standardizer
            Itself.

        Raises
        ------
        ValueError, TypeError
            If x has no numbers, a column has nothing but NaN, or one is infinite.
        """
        if is_pandas(x):
            whole = table(x, "x")
        else:
            array = _array(x)
            whole = Table(array.reshape(-1, array.shape[-1] if array.ndim > 1 else 1), None)
        values = whole.values.astype(np.float64)
        for column in range(values.shape[1]):
            some = values[:, column]
            if np.isinf(some).any():
                raise ValueError(f"x has infinity in {whole.name(column)}, expected finite numbers")
            if np.isnan(some).all():
                raise ValueError(f"x has no number in {whole.name(column)}, expected some")
        least = np.nanmin(values, axis=0)
        constant = least == np.nanmax(values, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.where(constant, least, np.nanmean(values, axis=0))
            scale = np.where(constant, 1.0, np.sqrt(np.nanmean((values - mean) ** 2, axis=0)))
        if not (np.isfinite(scale).all() and scale.min() > 0):
            raise ValueError("x has numbers too large or too close for a standard deviation")
        self.mean, self.scale, self.names = mean, scale, whole.names
        return self

    def transform(self, x: Any, columns: Any = None) -> Any:
        """Return ``(x - mean) / scale``.

        Parameters
        ----------
        x : array (..., F), or DataFrame or Series of pandas
            The columns of a frame are found by name, in any order; some may be missing.
        columns : column or list of columns, optional
            Which ones an array consists of, by names or numbers: of a list they are the last axis,
            of one column x may have any shape. All if not given.

        Returns
        -------
        ndarray or frame
            Of the shape of x; float32 stays, all else becomes float64. Of float32, too, it is
            computed in float64.

        Raises
        ------
        ValueError, TypeError
            If it is not fitted, or the columns do not fit.
        """
        return self._changed(x, columns, lambda values, mean, scale: (values - mean) / scale)

    def inverse(self, z: Any, columns: Any = None) -> Any:
        """Return ``mean + scale * z``: what `transform` was given, but for rounding.

        Parameters
        ----------
        z, columns
            As of `transform`.

        Returns
        -------
        ndarray or frame
            As of `transform`.
        """
        return self._changed(z, columns, lambda values, mean, scale: mean + scale * values)

    def _changed(self, x: Any, columns: Any, change: Any) -> Any:
        if self.mean is None or self.scale is None:
            raise ValueError("this Standardizer has no mean yet: call fit first")
        own = Table(self.mean[None], self.names)
        if is_pandas(x):
            whole = table(x, "x")
            if columns is not None:
                raise ValueError("columns is given beside a frame, which has its own")
            labels: Any = whole.names if self.names is not None else range(whole.values.shape[1])
            places = [own.place(label, "a column of x") for label in labels]
            return remade(x, change(whole.values, self.mean[places], self.scale[places]), x.index)
        array = _array(x)
        places = list(range(len(self.mean))) if columns is None else own.places(columns, "columns")
        alone = columns is not None and not columns_of(columns, self.names)
        alone |= array.ndim == 1 and columns is None and len(places) == 1
        if not alone and array.shape[-1:] != (len(places),):
            raise ValueError(
                f"x has shape {array.shape}, expected (..., {len(places)}), the columns"
            )
        some: Any = places[0] if alone else places
        changed = change(array.astype(np.float64), self.mean[some], self.scale[some])
        return np.asarray(changed, array.dtype)

    def state_dict(self) -> dict[str, Any]:
        """Return its numbers and names as plain lists, for `lstmcore.save` or JSON."""
        if self.mean is None or self.scale is None:
            raise ValueError("this Standardizer has no mean yet: call fit first")
        names = None if self.names is None else list(self.names)
        return {"mean": self.mean.tolist(), "scale": self.scale.tolist(), "names": names}

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Standardizer:
        """Make one of what `state_dict` returned: the same, to the bit.

        Raises
        ------
        ValueError, TypeError
            If it is not what `state_dict` returns.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state is {checks.describe(state)}, expected a mapping")
        if set(state) != {"mean", "scale", "names"}:
            raise ValueError(f"state has the keys {sorted(state)}, expected mean, names, scale")
        mean, scale = (
            checks.real(state[key], np.dtype(np.float64), key, cast=True)
            for key in ("mean", "scale")
        )
        names = None if state["names"] is None else tuple(state["names"])
        sizes = {mean.shape, scale.shape, mean.shape if names is None else (len(names),)}
        if len(sizes) > 1 or mean.ndim != 1:
            raise ValueError(f"state has mean, scale and names of sizes {sizes}, expected one")
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("state has a mean that is not finite, or a scale that is not above 0")
        made = cls()
        made.mean, made.scale, made.names = mean, scale, names
        return made

    def __eq__(self, other: object) -> bool:
        """Whether both have the same numbers, to the bit, and names."""
        if not isinstance(other, Standardizer):
            return NotImplemented
        return (
            np.array_equal(self.mean, other.mean)  # type: ignore[arg-type]
            and np.array_equal(self.scale, other.scale)  # type: ignore[arg-type]
            and self.names == other.names
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.mean is None:
            return "Standardizer()"
        columns = (
            f"{len(self.mean)} columns" if self.names is None else ", ".join(map(repr, self.names))
        )
        return f"<Standardizer of {columns}>"


def _array(x: Any) -> AnyArray:
    array = checks._asarray(x, "x")
    if array.dtype.kind not in "biuf":
        raise TypeError(f"x is {checks.describe(x)}, expected numbers")
    small = array.dtype.kind == "f" and array.dtype.itemsize <= 4
    return array.astype(np.float32 if small else np.float64, copy=False)
