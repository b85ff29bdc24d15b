"""Forecasts of time series."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import r2_score
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from .._base import checks
from ..data import windows
from ..data._tables import Table, columns_of, is_pandas
from ._network import SequenceEstimator, scaled
from ._reading import Steps, read_series

__all__ = ["Forecaster"]

Array = npt.NDArray[Any]


class Forecaster(SequenceEstimator):
    """Forecasts a time series, by a recurrent network that reads its last steps.

    The network reads `window` steps and gives all of the next `horizon` at once; it is trained on
    all windows of the series. Rows are steps here, in the order of time, and not independent: cut
    them by ``sklearn.model_selection.TimeSeriesSplit`` for grid searches and cross-validation.

    X is a series: a DataFrame, whose dates, if it has some, must be regular (see
    `lstmcore.data.resample`), or an array (N, F); or several, in a list or an array (n, N, F), of
    which windows do not cross from one to the next. NaN is refused. A network that also reads what
    is known of the future, such as a calendar, has to be built from layers.

    Parameters
    ----------
    window : int, default 8
        Steps that the network reads.
    horizon : int, default 1
        Steps that it forecasts.
    target : column or list of columns, optional
        What to forecast, by names or numbers; all columns if not given. As in pandas, a list keeps
        the axis of columns, one column has none.
    cell, hidden_size, num_layers, bidirectional, pooling, dropout
        As of `SequenceClassifier`.
    standardize : bool, default True
        Whether to give each column mean 0 and standard deviation 1, by the steps that `fit` saw.
        Forecasts are in the unit of the series.
    epochs, batch_size, lr, weight_decay, clip_norm
        As of `SequenceClassifier`.
    loss : {"mse", "mae", "huber"}, default "mse"
        What is minimised, in standard deviations if standardised.
    early_stopping, validation_fraction, n_iter_no_change
        As of `SequenceClassifier`, but it is the last windows that are held out.
    seed, random_state, verbose
        As of `SequenceClassifier`.

    Attributes
    ----------
    target_scaler_ : StandardScaler or None
        What standardises the targets.
    model_, scaler_, history_, n_iter_, n_features_in_, feature_names_in_
        As of `SequenceClassifier`.

    See Also
    --------
    lstmcore.data.windows : What cuts the windows, for networks of any shape.

    Examples
    --------
    >>> import numpy as np
    >>> from lstmcore.sklearn import Forecaster
    >>> series = np.sin(np.arange(300) / 5)[:, None]
    >>> model = Forecaster(window=20, horizon=10, epochs=20, seed=0).fit(series[:250])
    >>> said = model.predict(series[:250])  # the ten steps after them
    >>> said.shape, bool(np.abs(said - series[250:260]).max() < 0.2)
    ((10, 1), True)
    >>> model.score(series[250:]) > 0.95  # R squared over all windows of these
    True
    """

    def __init__(
        self,
        window: int = 8,
        horizon: int = 1,
        target: Any = None,
        *,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        bidirectional: bool = False,
        pooling: str = "last",
        dropout: float = 0.0,
        standardize: bool = True,
        epochs: int = 100,
        batch_size: int = 32,
        lr: float = 0.01,
        weight_decay: float = 0.0,
        clip_norm: float | None = 1.0,
        loss: str = "mse",
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        seed: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self._take(locals())

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.required = False
        return tags

    def fit(self, X: Any, y: Any = None) -> Forecaster:
        """Train a new network with all windows of the series.

        Parameters
        ----------
        X : DataFrame, or array (N, F), or a list of them, or array (n, N, F)
            A series, or several.
        y : array (N,) or (N, K), or Series or DataFrame, or a list of them, optional
            What to forecast, if it is not in X: the network reads X alone, and learns what y is
            after it. The rows are those of X.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError, TypeError
            If X, y or an argument is not what is expected, or no series has as many steps as
            ``window + horizon``.
        """
        return self._learn(X, y, None)

    def partial_fit(self, X: Any, y: Any = None) -> Forecaster:
        """Go on training, for one epoch of the windows of this series.

        Columns are standardised as the first call found them.

        Parameters
        ----------
        X, y
            As of `fit`.

        Returns
        -------
        Forecaster
            Itself.

        Raises
        ------
        ValueError, TypeError
            As of `fit`.
        """
        return self._learn(X, y, 1)

    def _learn(self, X: Any, y: Any, epochs: int | None) -> Forecaster:
        """Train a new network or, for a number of epochs, the one that is there."""
        loss = checks.choice(self.loss, "loss", ("mse", "mae", "huber"))
        go_on = epochs is not None and hasattr(self, "model_")
        whole, steps, several = read_series(self, X, reset=not go_on)
        x, target = self._windows(whole, steps, y, several)
        shape = target.shape[1:]
        columns = target.reshape(len(target) * shape[0], -1)
        if not go_on:
            self._make(steps, math.prod(shape))
            self._shape = shape
            self._names = _names(whole if y is None else y, self.target if y is None else None)
            self.target_scaler_ = self._fitted_scaler(columns)
        elif shape != self._shape:
            raise ValueError(
                f"targets of a window are {shape}, but in an earlier call {self._shape}"
            )
        target = scaled(self.target_scaler_, columns).reshape(len(target), -1)
        self._ends = np.cumsum(self._counts(steps.lengths))
        self._train(self._scaled(_of_windows(x)), target, None, loss, epochs=epochs)
        return self

    def _counts(self, lengths: Array) -> Array:
        """Return how many windows each series has."""
        return np.asarray(np.maximum(lengths - self.window - self.horizon + 1, 0))

    def _windows(self, whole: Any, steps: Steps, y: Any, several: bool) -> tuple[Array, Array]:
        """Return windows (W, window, F), and what follows them, (W, horizon) or with columns."""
        window = checks.integer(self.window, "window", 1)
        horizon = checks.integer(self.horizon, "horizon", 1)
        longest = steps.lengths.max()
        if longest < window + horizon:
            raise ValueError(
                f"X has {longest} steps (n_samples={longest}), expected at least window + horizon "
                f"= {window + horizon}"
            )
        ids = np.repeat(np.arange(len(steps.lengths)), steps.lengths)
        options: dict[str, Any] = {
            "steps": horizon,
            "by": ids if several else None,
            "batch_first": True,
            "dtype": steps.table.dtype.name,
        }
        if y is None:
            x, target = windows(whole, window, target=self.target, **options)
            return x, target
        if self.target is not None:
            raise ValueError(
                f"target is {self.target!r}, columns of X, and y is given, expected one of them"
            )
        x, _ = windows(whole, window, **options)
        if several:
            y = np.concatenate([np.asarray(part) for part in y])
        y = check_array(y, ensure_2d=False, dtype=steps.table.dtype, input_name="y")
        check_consistent_length(steps.table, y)
        column = 0 if y.ndim == 1 else None
        return x, windows(y, window, target=column, **options)[1]

    def _held_out(self, count: int, classes: Array | None) -> tuple[Array, Array]:
        """Return the windows to train with, and the last ones of each series."""
        fraction = checks.probability(self.validation_fraction, "validation_fraction")
        last = np.zeros(count, bool)
        for begin, end in zip([0, *self._ends[:-1]], self._ends):
            last[end - round(fraction * (end - begin)) : end] = True
        if not 0 < last.sum() < count:
            raise ValueError(
                f"validation_fraction is {fraction}, which holds out {last.sum()} of {count} "
                "windows, expected some and not all"
            )
        return np.flatnonzero(~last), np.flatnonzero(last)

    def predict(self, X: Any) -> Any:
        """Return what follows the series.

        Parameters
        ----------
        X : as of `fit`
            A series of at least one step, or several. The last `window` steps of each are read, or
            as many as there are.

        Returns
        -------
        ndarray (horizon,) or (horizon, K), or Series or DataFrame
            K columns, or none where `target` is one column. Of a frame, if `fit` saw one too, it
            is a Series or frame whose index goes on from that of X. Of several series it is
            an array with a first axis for them or, of frames, a list.

        Raises
        ------
        NotFittedError
            A ValueError: before `fit`.
        ValueError, TypeError
            If X is not what is expected, or other than what `fit` saw.
        """
        check_is_fitted(self)
        whole, steps, several = read_series(self, X, reset=False)
        last = [series[-self.window :] for series in steps.sequences()]
        said = self._said(Steps(np.concatenate(last), np.array([len(s) for s in last])))
        if self._names is not None and is_pandas(whole):
            ends = np.cumsum(steps.lengths)
            indices = [whole.index[end - len(s) : end] for end, s in zip(ends, last, strict=True)]
            frames = [self._frame(*each) for each in zip(said, indices, strict=True)]
            return frames if several else frames[0]
        return said if several else said[0]

    def score(self, X: Any, y: Any = None) -> float:
        """Return R squared of the forecasts of all windows of the series.

        It is the mean over the steps of the horizon and the columns: 1 is perfect, 0 as good as
        their means.

        Parameters
        ----------
        X, y : as of `fit`
            A series of at least ``window + horizon`` steps, or several.

        Returns
        -------
        float

        Raises
        ------
        ValueError, TypeError
            As of `predict`; or if the series is too short.
        """
        check_is_fitted(self)
        whole, steps, several = read_series(self, X, reset=False)
        x, target = self._windows(whole, steps, y, several)
        rows = len(target)
        return float(
            r2_score(target.reshape(rows, -1), self._said(_of_windows(x)).reshape(rows, -1))
        )

    def _said(self, steps: Steps) -> Array:
        """Return forecasts (n, horizon) or (n, horizon, K), in the unit of the series."""
        outputs = self._outputs(self._scaled(steps))
        columns = outputs.reshape(len(outputs) * self._shape[0], -1)
        return scaled(self.target_scaler_, columns, back=True).reshape(-1, *self._shape)

    def _frame(self, said: Array, index: Any) -> Any:
        """Return a forecast as a Series or frame that goes on from an index."""
        import pandas

        later = _later(index, len(said))
        if said.ndim == 1:
            return pandas.Series(said, later, name=self._names)
        return pandas.DataFrame(said, later, self._names)


def _of_windows(x: Array) -> Steps:
    """Return windows (W, T, F) as sequences."""
    return Steps(x.reshape(-1, x.shape[2]), np.full(len(x), x.shape[1]))


def _names(table: Any, target: Any) -> Any:
    """Return the names of the targets, of one its name; None if they have none."""
    if isinstance(table, (list, tuple)):
        table = table[0]
    if not is_pandas(table):
        return None
    if not hasattr(table, "columns"):
        return table.name
    names = tuple(table.columns)
    if target is None:
        return list(names)
    whole = Table(np.empty((0, len(names))), names)
    places = whole.places(target, "target")
    return [names[i] for i in places] if columns_of(target, names) else names[places[0]]


def _later(index: Any, steps: int) -> Any:
    """Return the index of so many rows after these."""
    import pandas

    if isinstance(index, pandas.PeriodIndex):
        return pandas.period_range(index[-1] + 1, periods=steps)
    apart = index[1:] - index[:-1] if index.dtype.kind in "iuM" else []
    if index.dtype.kind == "M":
        if index.freq is not None:
            return pandas.date_range(index[-1], periods=steps + 1, freq=index.freq)[1:]
        if len(apart) and (apart == apart[0]).all():
            return pandas.date_range(index[-1], periods=steps + 1, freq=apart[0])[1:]
    elif len(apart) and (apart == apart[0]).all():
        return index[-1] + apart[0] * pandas.RangeIndex(1, steps + 1)
    return pandas.RangeIndex(1, steps + 1)
