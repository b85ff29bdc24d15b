"""Numbers of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import RegressorMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from .._base import checks
from ._network import SequenceEstimator, scaled
from ._reading import check_given, of_weight, read_sequences

__all__ = ["SequenceRegressor"]

Array = npt.NDArray[Any]


class SequenceRegressor(RegressorMixin, SequenceEstimator):
    """Predicts a number, or several, of each sequence, by a recurrent network.

    As `SequenceClassifier`, but for the loss and what it says.

    Parameters
    ----------
    cell, hidden_size, num_layers, bidirectional, pooling, dropout
        As of `SequenceClassifier`.
    standardize : bool, default True
        Whether to give each feature and each target mean 0 and standard deviation 1, by what `fit`
        saw. What it predicts is in the unit of y.
    epochs, batch_size, lr, weight_decay, clip_norm
        As of `SequenceClassifier`.
    loss : {"mse", "mae", "huber"}, default "mse"
        What is minimised, of `lstmcore.losses`, in standard deviations if standardised.
    early_stopping, validation_fraction, n_iter_no_change, seed, random_state, verbose
        As of `SequenceClassifier`.

    Attributes
    ----------
    target_scaler_ : StandardScaler or None
        What standardises y. The network says what it gives.
    model_, scaler_, history_, n_iter_, n_features_in_, feature_names_in_
        As of `SequenceClassifier`.

    See Also
    --------
    SequenceClassifier : For labels.
    Forecaster : For what follows a series.

    Examples
    --------
    >>> import numpy as np
    >>> from lstmcore.sklearn import SequenceRegressor
    >>> rng = np.random.default_rng(0)
    >>> sequences = [rng.standard_normal((n, 2)) for n in rng.integers(5, 15, 200)]
    >>> totals = np.array([x[:, 0].sum() for x in sequences])
    >>> model = SequenceRegressor("gru", 16, epochs=40, seed=0).fit(sequences[:150], totals[:150])
    >>> model.score(sequences[150:], totals[150:]) > 0.8  # R squared
    True
    """

    def __init__(
        self,
        cell: str = "lstm",
        hidden_size: int = 32,
        num_layers: int = 1,
        *,
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
        tags.target_tags.multi_output = True
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceRegressor:
        """Train a new network.

        Parameters
        ----------
        X : list of arrays or frames (T_i, F), or array (n, T, F), or array or frame (n, T)
            Sequences.
        y : array (n,) or (n, K)
            Their targets.
        sample_weight : array (n,), optional
            How much each sequence counts. A sequence of weight 0 is left out.

        Returns
        -------
        SequenceRegressor
            Itself.

        Raises
        ------
        ValueError, TypeError
            If X, y or an argument is not what is expected.
        """
        return self._learn(X, y, sample_weight, None)

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceRegressor:
        """Go on training, for one epoch of these sequences.

        Features and targets are standardised as the first call found them.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.

        Returns
        -------
        SequenceRegressor
            Itself.

        Raises
        ------
        ValueError, TypeError
            As of `fit`.
        """
        return self._learn(X, y, sample_weight, 1)

    def _learn(self, X: Any, y: Any, sample_weight: Any, epochs: int | None) -> SequenceRegressor:
        """Train a new network or, for a number of epochs, the one that is there."""
        loss = checks.choice(self.loss, "loss", ("mse", "mae", "huber"))
        go_on = epochs is not None and hasattr(self, "model_")
        steps = read_sequences(self, X, reset=not go_on)
        target = _numbers(y, self, steps.lengths)
        steps, target, weight = of_weight(steps, target, sample_weight)
        several = target.ndim > 1
        target = target.reshape(len(target), -1)
        if not go_on:
            self._make(steps, target.shape[1], weight)
            self._several = several
            self.target_scaler_ = self._fitted_scaler(target, weight)
        elif target.shape[1] != self.model_[-1].out_features:
            raise ValueError(
                f"y has {target.shape[1]} targets for each sequence, but an earlier call had "
                f"{self.model_[-1].out_features}"
            )
        target = scaled(self.target_scaler_, target).astype(steps.table.dtype)
        self._train(self._scaled(steps), target, weight, loss, epochs=epochs)
        return self

    def predict(self, X: Any) -> Array:
        """Return the target of each sequence.

        Parameters
        ----------
        X : as of `fit`
            Sequences.

        Returns
        -------
        ndarray (n,) or (n, K)
            As y was.

        Raises
        ------
        NotFittedError
            A ValueError: before `fit`.
        ValueError, TypeError
            If X is not what is expected, or other than what `fit` saw.
        """
        check_is_fitted(self)
        outputs = self._outputs(self._scaled(read_sequences(self, X, reset=False)))
        y = scaled(self.target_scaler_, outputs, back=True)
        return y if self._several else y[:, 0]


def _numbers(y: Any, estimator: Any, lengths: Array) -> Array:
    """Return y as (n,) or (n, K), in float64."""
    check_given(y, estimator)
    numbers = check_array(y, ensure_2d=False, dtype=np.float64, input_name="y")
    check_consistent_length(lengths, numbers)
    return np.asarray(numbers)
