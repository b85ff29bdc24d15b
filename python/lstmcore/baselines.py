"""Models without hidden units that any other should beat: AR(p), Markov chain, seasonal naive.

They are called like a `Sequential`: ``model(x)`` predicts at every step what comes next, from that
step and those before it; ``model.run(x, state)`` also returns what it remembers; `generate` and
`evaluate` take them. They are fitted at once: ``model.fit(x)``. Their opposite is the latent
autoregressive model, which remembers more than a window: a recurrent layer.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ._base import checks
from ._base.checks import Array
from ._public.publish import publish

__all__ = ["AR", "Markov", "SeasonalNaive"]


class _Window:
    """What AR and SeasonalNaive share: a prediction from the last `size` values of a series.

    Before so many have been seen there is none: it is NaN, and so is a loss that counts it.
    """

    size: int

    def __call__(self, x: npt.ArrayLike, state: Array | None = None) -> Array:
        """Predict the next value at every step.

        Parameters
        ----------
        x : array (T, F) or (T, B, F)
        state : ndarray, optional
            What `run` returned: the values before x.

        Returns
        -------
        y : ndarray, shaped like x
            ``y[t]`` predicts what follows ``x[t]``; NaN where too little has been seen.
        """
        return self.run(x, state)[0]

    def run(self, x: npt.ArrayLike, state: Array | None = None) -> tuple[Array, Array]:
        """Predict as when called, and return the values to remember, at most `size` of them."""
        values = _series(x, "x")
        steps = len(values)
        if state is not None:
            before = _series(state, "state")
            if before.shape[1:] != values.shape[1:]:
                expected = ", ".join(map(str, ("T", *values.shape[1:])))
                raise ValueError(f"state has shape {before.shape}, expected ({expected}), like x")
            values = np.concatenate([before, values])
        y = np.full(values.shape, np.nan)
        if len(values) >= self.size:
            view = np.lib.stride_tricks.sliding_window_view(values, self.size, axis=0)
            y[self.size - 1 :] = self._predict(view)
        return y[len(values) - steps :], values[-self.size :].copy()

    def _predict(self, windows: Array) -> Array:
        """Predict (N, ..., F) from windows (N, ..., F, size)."""
        raise NotImplementedError


class AR(_Window):
    """A linear autoregressive model of order p, by least squares.

    y_t = b + A_1 x_t + ... + A_p x_{t-p+1}, which predicts x_{t+1}; with more than one feature it
    is a vector autoregression.

    Parameters
    ----------
    order : int
        p, at least 1.

    Attributes
    ----------
    coefficients : ndarray (p, F, F) or None
        ``coefficients[k]`` is A_{k+1}, after `fit`.
    intercept : ndarray (F,) or None
        b.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    G. E. P. Box, G. M. Jenkins, "Time Series Analysis: Forecasting and Control", 1970; fitted to
    all windows of the series by least squares (conditional maximum likelihood).

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> wave = np.sin(0.3 * np.arange(50.0))[:, None]
    >>> ar = lc.baselines.AR(2).fit(wave)
    >>> ar.coefficients.round(4).ravel()  # 2 cos 0.3 and -1
    array([ 1.9107, -1.    ])
    >>> forecast = lc.generate(ar, wave, 20)
    >>> bool(np.allclose(forecast[:, 0], np.sin(0.3 * np.arange(50, 70))))
    True
    """

    def __init__(self, order: int) -> None:
        self.size = self.order = checks.integer(order, "order", 1)
        self.coefficients: Array | None = None
        self.intercept: Array | None = None

    def fit(self, x: npt.ArrayLike) -> AR:
        """Fit to a series (T,) or (T, F), or to several of the same length, (T, B, F).

        Raises
        ------
        ValueError, TypeError
            If there are fewer windows than coefficients for each feature, or x is not finite.
        """
        values = _series(x, "x")
        features = values.shape[-1]
        rows = max(len(values) - self.order, 0) * (values.shape[1] if values.ndim == 3 else 1)
        unknown = self.order * features + 1
        if rows < unknown:
            raise ValueError(
                f"x has shape {values.shape}: {rows} windows of {self.order} and the value after "
                f"them, expected at least {unknown}, as many as coefficients of a feature"
            )
        if not np.isfinite(values).all():
            raise ValueError("x has NaN or infinity, expected finite numbers")
        view = np.lib.stride_tricks.sliding_window_view(values[:-1], self.order, axis=0)
        matrix = np.concatenate([_flat(view), np.ones((rows, 1))], axis=1)
        solution = np.linalg.lstsq(
            matrix, values[self.order :].reshape(rows, features), rcond=None
        )[0]
        # (p, F from, F to), the newest first, each turned to (F to, F from).
        lags = solution[:-1].reshape(self.order, features, features)[::-1]
        self.coefficients = np.ascontiguousarray(lags.swapaxes(1, 2))
        self.intercept = solution[-1]
        return self

    def _predict(self, windows: Array) -> Array:
        if self.coefficients is None or self.intercept is None:
            raise ValueError("this AR has no coefficients yet: call fit first")
        features = len(self.intercept)
        if windows.shape[-2] != features:
            raise ValueError(f"x has {windows.shape[-2]} features, expected {features}, as fitted")
        weights = self.coefficients.swapaxes(1, 2)[::-1].reshape(-1, features)
        y = _flat(windows) @ weights + self.intercept
        return y.reshape(windows.shape[:-1])

    def __repr__(self) -> str:
        return f"AR({self.order})"


class SeasonalNaive(_Window):
    """The value one period ago: y_t = x_{t-period+1} predicts x_{t+1}. There is nothing to fit.

    Parameters
    ----------
    period : int, default 1
        Steps of a season; 1 is the naive forecast, that all stays as it is.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    R. J. Hyndman, G. Athanasopoulos, "Forecasting: Principles and Practice", section 5.2.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.generate(lc.baselines.SeasonalNaive(3), [[1.0], [2.0], [3.0]], 5).ravel()
    array([1., 2., 3., 1., 2.])
    """

    def __init__(self, period: int = 1) -> None:
        self.size = self.period = checks.integer(period, "period", 1)

    def fit(self, x: npt.ArrayLike) -> SeasonalNaive:
        """Do nothing; it is here so that all baselines can be fitted alike."""
        return self

    def _predict(self, windows: Array) -> Array:
        return windows[..., 0]

    def __repr__(self) -> str:
        return f"SeasonalNaive({self.period})"


class Markov:
    """A first-order Markov chain over tokens: the bigram model.

    p(next = j | this = i) = (count of i then j + smoothing) / (count of i + N smoothing)

    Parameters
    ----------
    num_tokens : int
        N: ids are 0 to N - 1.
    smoothing : float, default 1.0
        Added to every count (Laplace's rule); more than 0, so that nothing is impossible.

    Attributes
    ----------
    log_probabilities : ndarray (N, N)
        Of the next token given this one; uniform before `fit`.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> chain = lc.baselines.Markov(3, smoothing=0.01).fit([0, 1, 2, 0, 1, 2, 0])
    >>> np.exp(chain([1])).round(2)
    array([[0.  , 0.  , 0.99]])
    >>> lc.generate(chain, [0], 4)
    array([1, 2, 0, 1])
    """

    takes_ids = True

    def __init__(self, num_tokens: int, smoothing: float = 1.0) -> None:
        self.num_tokens = checks.integer(num_tokens, "num_tokens", 1)
        self.smoothing = checks.number(smoothing, "smoothing")
        if self.smoothing <= 0:
            raise ValueError(f"smoothing is {smoothing}, expected more than 0")
        shape = (self.num_tokens, self.num_tokens)
        self.log_probabilities: Array = np.full(shape, -np.log(self.num_tokens))

    def fit(self, x: npt.ArrayLike) -> Markov:
        """Count pairs of neighbours in ids (T,), or in several texts (T, B).

        Raises
        ------
        ValueError, TypeError
            If there are no pairs, or an id is out of range.
        """
        ids = self._ids(x)
        if len(ids) < 2 or not ids.size:
            raise ValueError(f"x has shape {ids.shape}, expected at least two steps")
        pairs = ids[:-1].ravel() * self.num_tokens + ids[1:].ravel()
        counts = np.bincount(pairs, minlength=self.num_tokens**2).reshape(self.num_tokens, -1)
        smooth = counts + self.smoothing
        self.log_probabilities = np.log(smooth / smooth.sum(axis=1, keepdims=True))
        return self

    def __call__(self, x: npt.ArrayLike, state: tuple[()] | None = None) -> Array:
        """Return the log-probabilities (..., N) of the token after each of x (...).

        They are scores for `lstmcore.losses.cross_entropy` and for sampling.
        """
        return self.run(x, state)[0]

    def run(self, x: npt.ArrayLike, state: tuple[()] | None = None) -> tuple[Array, tuple[()]]:
        """Predict as when called; there is nothing to remember."""
        return self.log_probabilities[self._ids(x)], ()

    def _ids(self, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
        ids = np.asarray(x)
        if ids.dtype.kind not in "iu":
            raise TypeError(f"x has dtype {ids.dtype}, expected integers, ids of tokens")
        wrong = ids[(ids < 0) | (ids >= self.num_tokens)]
        if wrong.size:
            raise ValueError(f"x has id {wrong[0]}, expected 0 to {self.num_tokens - 1}")
        return ids.astype(np.int64)

    def __repr__(self) -> str:
        return f"Markov({self.num_tokens}, smoothing={self.smoothing})"


def _series(x: npt.ArrayLike, name: str) -> Array:
    """Return a series as float64 (T, F) or (T, B, F)."""
    values = np.asarray(x)
    if values.dtype.kind not in "biuf" or values.ndim not in (1, 2, 3):
        raise ValueError(
            f"{name} is {checks.describe(x)}, expected numbers (T,), (T, F) or (T, B, F)"
        )
    return (values[:, None] if values.ndim == 1 else values).astype(np.float64)


def _flat(windows: Array) -> Array:
    """Turn (N, ..., F, p) into rows (N * ..., p * F), the oldest first."""
    features, size = windows.shape[-2:]
    return windows.swapaxes(-1, -2).reshape(-1, size * features)


publish(globals())
