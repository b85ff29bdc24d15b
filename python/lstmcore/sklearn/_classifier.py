"""Labels of sequences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, column_or_1d
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from .._nn.activations import Softmax
from ._network import SequenceEstimator
from ._reading import check_given, of_weight, read_sequences

__all__ = ["SequenceClassifier"]

Array = npt.NDArray[Any]


class SequenceClassifier(ClassifierMixin, SequenceEstimator):
    """Tells to which class a sequence belongs, by a recurrent network.

    The network is a recurrent layer, what is taken of its outputs, and a linear layer, trained by
    `lstmcore.fit` with the cross-entropy, AdamW and clipped gradients. Everything of scikit-learn
    works with it: pipelines, grid searches with ``n_jobs``, cross-validation, `clone`, pickles.

    X is a list of arrays or frames (T_i, F), whose lengths may differ; or an array (n, T, F); or an
    array or frame (n, T), whose columns are the steps of one feature. NaN is refused. It computes
    in float32 if X is, which is faster, and else in float64, as scikit-learn's estimators do.

    Parameters
    ----------
    cell : {"lstm", "gru", "rnn"}, default "lstm"
        Kind of the recurrent layer.
    hidden_size : int, default 32
        Its units.
    num_layers : int, default 1
        How many such layers are stacked.
    bidirectional : bool, default False
        Whether it reads in both directions.
    pooling : {"last", "mean", "max"}, default "last"
        What the linear layer gets: the output at the last step (of each direction: where it has
        seen all), or the mean or the maximum over all steps.
    dropout : float, default 0.0
        Between stacked layers and before the linear layer.
    standardize : bool, default True
        Whether to give each feature mean 0 and standard deviation 1, by the steps that `fit` saw.
    epochs : int, default 100
        How often to go through the sequences; what scikit-learn calls ``max_iter``.
    batch_size : int, default 32
        Sequences per step of the optimizer. Those of about the same length come together.
    lr : float, default 0.01
        Learning rate.
    weight_decay : float, default 0.0
        Of AdamW.
    clip_norm : float or None, default 1.0
        Largest norm of all gradients together.
    early_stopping : bool, default False
        Whether to hold out a part of the sequences, to stop when the loss of that part does not
        become lower any more, and to take the weights of the best epoch.
    validation_fraction : float, default 0.1
        The share that is held out; of each class.
    n_iter_no_change : int, default 10
        After how many epochs without a lower loss it stops.
    class_weight : dict or "balanced", optional
        Weights of the classes, 1 by default; "balanced" makes up for their frequencies.
    seed : int, optional
        Of weights, order and dropout: the same seed gives the same model, to the bit.
    random_state : int or RandomState, optional
        The same in scikit-learn's words. It counts if both are given, as scikit-learn's tools
        set it.
    verbose : bool, default False
        Whether to show progress.

    Attributes
    ----------
    classes_ : ndarray (C,)
        The labels, sorted.
    model_ : Sequential
        The network, for `lstmcore.save`, streams and exporters. It reads what `scaler_` gives.
    scaler_ : StandardScaler or None
        What standardises the features.
    history_ : History
        Losses of the last call of `fit` or `partial_fit`.
    n_iter_ : int
        Epochs since the last `fit`.
    n_features_in_ : int
        F, or T where X was (n, T).
    feature_names_in_ : ndarray of str
        Names of the columns, where X was of frames.

    See Also
    --------
    SequenceRegressor : For numbers.
    Forecaster : For what follows a series.

    Examples
    --------
    >>> from lstmcore.datasets import japanese_vowels
    >>> from lstmcore.sklearn import SequenceClassifier
    >>> train, test = japanese_vowels()
    >>> sequences = [train.x[:n, i] for i, n in enumerate(train.lengths)]
    >>> others = [test.x[:n, i] for i, n in enumerate(test.lengths)]
    >>> speakers = SequenceClassifier("gru", epochs=20, seed=0).fit(sequences, train.labels)
    >>> speakers.score(others, test.labels) > 0.9
    True
    >>> speakers.predict_proba(others[:2]).shape
    (2, 9)
    """

    classes_: Array

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
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        n_iter_no_change: int = 10,
        class_weight: Any = None,
        seed: int | None = None,
        random_state: Any = None,
        verbose: bool = False,
    ) -> None:
        self._take(locals())

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> SequenceClassifier:
        """Train a new network.

        Parameters
        ----------
        X : list of arrays or frames (T_i, F), or array (n, T, F), or array or frame (n, T)
            Sequences.
        y : array (n,)
            Their labels, of any type.
        sample_weight : array (n,), optional
            How much each sequence counts. A sequence of weight 0 is left out.

        Returns
        -------
        SequenceClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            If X, y or an argument is not what is expected.
        """
        return self._learn(X, y, sample_weight, None)

    def partial_fit(
        self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None
    ) -> SequenceClassifier:
        """Go on training, for one epoch of these sequences.

        Features are standardised as the first call found them.

        Parameters
        ----------
        X, y, sample_weight
            As of `fit`.
        classes : array (C,)
            All labels that will ever come. Needed in the first call, or after `fit` not at all.

        Returns
        -------
        SequenceClassifier
            Itself.

        Raises
        ------
        ValueError, TypeError
            As of `fit`; or if labels are not among the classes.
        """
        if not hasattr(self, "model_") and classes is None:
            raise ValueError("classes must be passed on the first call to partial_fit")
        known = self.classes_ if hasattr(self, "model_") else np.unique(column_or_1d(classes))
        if classes is not None and not np.array_equal(known, np.unique(classes)):
            raise ValueError(f"classes is {classes}, but an earlier call had {known}")
        return self._learn(X, y, sample_weight, known)

    def _learn(
        self, X: Any, y: Any, sample_weight: Any, classes: Array | None
    ) -> SequenceClassifier:
        """Train a new network or, where the classes are known, go on for one epoch."""
        go_on = classes is not None and hasattr(self, "model_")
        steps = read_sequences(self, X, reset=not go_on)
        labels = _labels(y, self, steps.lengths)
        steps, labels, weight = of_weight(steps, labels, sample_weight)
        known = np.unique(labels) if classes is None else classes
        target = np.searchsorted(known, labels).clip(max=len(known) - 1)
        if (known[target] != labels).any():
            strange = np.setdiff1d(labels, known)
            raise ValueError(f"y has the labels {strange}, expected those of classes, {known}")
        if not go_on:
            self._make(steps, len(known), weight)
            self.classes_ = known
        if self.class_weight is not None:
            if classes is not None and self.class_weight == "balanced":
                raise ValueError(
                    "class_weight is 'balanced', but partial_fit does not see all sequences: "
                    "expected a dict"
                )
            of_class = compute_sample_weight(self.class_weight, labels)
            weight = of_class if weight is None else weight * of_class
        self._train(
            self._scaled(steps),
            target,
            weight,
            "cross_entropy",
            epochs=None if classes is None else 1,
            classes=target,
        )
        return self

    def predict_proba(self, X: Any) -> Array:
        """Return the probability of each class.

        Parameters
        ----------
        X : as of `fit`
            Sequences.

        Returns
        -------
        ndarray (n, C)
            In the order of `classes_`.

        Raises
        ------
        NotFittedError
            A ValueError: before `fit`.
        ValueError, TypeError
            If X is not what is expected, or other than what `fit` saw.
        """
        check_is_fitted(self)
        scores = self._outputs(self._scaled(read_sequences(self, X, reset=False)))
        return np.asarray(Softmax()(scores))

    def predict(self, X: Any) -> Array:
        """Return the most probable class of each sequence.

        Parameters
        ----------
        X : as of `fit`
            Sequences.

        Returns
        -------
        ndarray (n,)
            Labels.

        Raises
        ------
        ValueError, TypeError
            As of `predict_proba`.
        """
        proba = self.predict_proba(X)
        return np.asarray(self.classes_[proba.argmax(axis=1)])


def _labels(y: Any, estimator: Any, lengths: Array) -> Array:
    """Return y as (n,)."""
    check_given(y, estimator)
    labels = column_or_1d(y, warn=True)
    if labels.dtype.kind in "fc":
        check_array(labels, ensure_2d=False, input_name="y")  # for NaN
    check_classification_targets(labels)
    check_consistent_length(lengths, labels)
    return np.asarray(labels)
