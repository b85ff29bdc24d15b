"""What the three estimators share: a recurrent network with a linear layer behind it, trained."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from sklearn.utils import check_random_state

from .._base import checks
from .._nn.dropout import Dropout
from .._nn.layers import GRU, LSTM, RNN
from .._nn.linear import Linear
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.sequential import Sequential
from .._train.fit import fit
from ..callbacks import EarlyStopping
from ..data import Buckets
from ..optim import AdamW
from ._reading import Steps

__all__ = ["SequenceEstimator", "scaled"]

Array = npt.NDArray[Any]

_CELLS = {"lstm": LSTM, "gru": GRU, "rnn": RNN}
_POOLS: dict[str, Any] = {"mean": MeanPool, "max": MaxPool}
_ROWS = 256  # sequences per call of the trained network: what it needs of memory goes by them


class SequenceEstimator(BaseEstimator):
    """The arguments of the network and of its training, and both."""

    cell: str
    hidden_size: int
    num_layers: int
    bidirectional: bool
    pooling: str
    dropout: float
    standardize: bool
    epochs: int
    batch_size: int
    lr: float
    weight_decay: float
    clip_norm: float | None
    early_stopping: bool
    validation_fraction: float
    n_iter_no_change: int
    seed: int | None
    random_state: Any
    verbose: bool
    model_: Any  # a Sequential, which ends in a Linear

    def _take(self, arguments: dict[str, Any]) -> None:
        """Keep the arguments of __init__ as they are, which is what `clone` goes by."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    # The network ---------------------------------------------------------------------------------

    def _make(self, steps: Steps, outputs: int, weight: Array | None = None) -> None:
        """Make the network for such sequences anew, what scales them, and its optimizer."""
        each = None if weight is None else np.repeat(weight, steps.lengths)
        self.scaler_ = self._fitted_scaler(steps.table, each)
        kind = _CELLS[checks.choice(self.cell, "cell", tuple(_CELLS))]
        pooling = checks.choice(self.pooling, "pooling", ("last", *_POOLS))
        last = BothEnds if self.bidirectional else LastStep
        dtype = steps.table.dtype.name
        seed = self._drawn_seed()
        layer = kind(
            steps.table.shape[1],
            self.hidden_size,
            self.num_layers,
            bidirectional=self.bidirectional,
            dropout=self.dropout if self.num_layers > 1 else 0.0,
            dtype=dtype,
            seed=seed,
        )
        width = layer.hidden_size * (2 if layer.bidirectional else 1)
        head = Linear(width, outputs, dtype=dtype, seed=seed + 1)
        dropout = [Dropout(self.dropout, seed=seed + 2)] if self.dropout else []
        self.model_ = Sequential(layer, _POOLS.get(pooling, last)(), *dropout, head)
        self._optimizer = AdamW(
            self.model_.parameters(), lr=self.lr, weight_decay=self.weight_decay
        )
        self._order = seed + 3
        self.n_iter_ = 0

    def _drawn_seed(self) -> int:
        """Return the seed of this fit; scikit-learn's tools set the random_state."""
        if self.random_state is None and self.seed is not None:
            return checks.integer(self.seed, "seed", 0)
        return int(check_random_state(self.random_state).randint(2**31 - 8))

    # Training ------------------------------------------------------------------------------------

    def _train(
        self,
        sequences: list[Array],
        target: Array,
        weight: Array | None,
        loss: str,
        *,
        epochs: int | None = None,
        classes: Array | None = None,
    ) -> None:
        """Train for the epochs asked for, or for so many; with early stopping on a part."""
        validation: Any = None
        callbacks = []
        rows = np.arange(len(sequences))
        stopping = checks.boolean(self.early_stopping, "early_stopping")
        if stopping and epochs is None:
            rows, held = self._held_out(len(rows), classes)
            validation = self._batches(sequences, target, weight, held, shuffle=False)
            callbacks.append(EarlyStopping(self.n_iter_no_change))
        self.history_ = fit(
            self.model_,
            self._batches(sequences, target, weight, rows),
            loss=loss,
            optimizer=self._optimizer,
            epochs=self.epochs if epochs is None else epochs,
            clip_norm=self.clip_norm,
            validation=validation,
            callbacks=callbacks,
            progress=self.verbose,
        )
        self.n_iter_ += self.history_.epochs
        if self.history_.stopped == "interrupted":
            warnings.warn("Training interrupted by user.", stacklevel=3)

    def _held_out(self, count: int, classes: Array | None) -> Any:
        """Return which of so many sequences to train with, and which to hold out."""
        return train_test_split(
            np.arange(count),
            test_size=self.validation_fraction,
            stratify=classes,
            random_state=self._order,
        )

    def _batches(
        self,
        sequences: list[Array],
        target: Array,
        weight: Array | None,
        rows: npt.NDArray[np.int64],
        *,
        shuffle: bool = True,
    ) -> Buckets:
        """Return what an epoch goes through of these sequences."""
        return Buckets(
            [sequences[i] for i in rows],
            target[rows],
            weight=None if weight is None else weight[rows],
            batch_size=self.batch_size,
            shuffle=shuffle,
            seed=self._order + self.n_iter_,
        )

    # Use -----------------------------------------------------------------------------------------

    def _outputs(self, sequences: list[Array]) -> Array:
        """Return what the network says of each sequence, (n, outputs)."""
        rows = np.arange(len(sequences))
        found = np.empty((len(rows), self.model_[-1].out_features), self.model_[-1].dtype)
        for batch in Buckets(sequences, rows, batch_size=_ROWS, shuffle=False):
            x, row, lengths = batch[:3]
            found[row] = self.model_(x, lengths=lengths)
        return found

    # Scaling -------------------------------------------------------------------------------------

    def _fitted_scaler(self, table: Array, weight: Array | None = None) -> Any:
        """Return what standardises the columns of a table, or None if that is not wanted."""
        if not checks.boolean(self.standardize, "standardize"):
            return None
        return StandardScaler().fit(table, sample_weight=weight)

    def _scaled(self, steps: Steps) -> list[Array]:
        """Return the sequences as the network gets them."""
        table = scaled(self.scaler_, steps.table)
        return steps._replace(table=table.astype(self.model_[-1].dtype, copy=False)).sequences()


def scaled(scaler: Any, table: Array, *, back: bool = False) -> Array:
    """Standardise the columns of a table or, back, undo it; without a scaler it stays as it is."""
    if scaler is None:
        return table
    return np.asarray(scaler.inverse_transform(table) if back else scaler.transform(table))
