"""What `fit` measured, epoch by epoch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from .._base import checks
from .._public.publish import explain
from ..plot import training

__all__ = ["History"]

_FIELDS = ("losses", "validation_losses", "metrics", "lr", "time")


class History:
    """What a run of `fit` measured. Each list has one entry per epoch that was completed.

    In a run that was resumed with other metrics, or with validation data or without, that is NaN
    for epochs in which something was not measured.

    Attributes
    ----------
    losses : list of float
        Mean training loss over the targets of the epoch, while the parameters were changing.
    validation_losses : list of float
        Mean loss over the validation data after the epoch; empty without such data.
    metrics : dict of str to list of float
        Of the validation data, or of the training data if there are none.
    lr : list of float
        Learning rate at the end of the epoch.
    time : list of float
        Seconds that the epoch took, validation included.
    best_epoch : int or None
        Which epoch was the best, from 1: that of `callbacks.BestWeights` or `EarlyStopping` if one
        ran, else the first with the lowest validation loss or, without any, training loss. None
        before the first.
    stopped : str or None
        Why the run ended before its last epoch: for instance "interrupted".

    Examples
    --------
    >>> import lstmcore as lc
    >>> history = lc.History()
    >>> history.record(0.5, 0.6, {"accuracy": 0.75}, 1e-3, 2.0)
    >>> history
    History of 1 epoch: loss 0.5, validation loss 0.6, accuracy 0.75
    >>> history.best_epoch
    1
    """

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.validation_losses: list[float] = []
        self.metrics: dict[str, list[float]] = {}
        self.lr: list[float] = []
        self.time: list[float] = []
        self.stopped: str | None = None
        self._marked: int | None = None
        self._left_out: list[str] = []  # what the last epoch did not measure

    @property
    def epochs(self) -> int:
        """How many epochs were completed."""
        return len(self.losses)

    @property
    def best_epoch(self) -> int | None:
        """Which epoch was the best."""
        if self._marked is not None or not self.losses:
            return self._marked
        values = self.validation_losses or self.losses
        return 1 + min(range(len(values)), key=lambda i: (math.isnan(values[i]), values[i]))

    def mark_best(self, epoch: int) -> None:
        """Say which epoch was the best, by another measure than the loss."""
        self._marked = epoch

    def __len__(self) -> int:
        return self.epochs

    def record(
        self,
        loss: float,
        validation_loss: float | None,
        metrics: Mapping[str, float],
        lr: float,
        seconds: float,
    ) -> None:
        """Add an epoch."""
        if validation_loss is not None:
            self.validation_losses.append(validation_loss)
        for name, value in metrics.items():
            self.metrics.setdefault(name, []).append(value)
        self.lr.append(lr)
        self.time.append(seconds)
        self.losses.append(loss)
        self._left_out = [name for name in self.metrics if name not in metrics]
        for name in self._left_out:
            self.metrics[name].append(math.nan)
        if validation_loss is None and self.validation_losses:
            self.validation_losses.append(math.nan)
            self._left_out.append("validation loss")
        self._fill()

    def _fill(self) -> None:
        """Put NaN for the epochs before something was measured."""
        for series in (*self.metrics.values(), self.validation_losses):
            if series:
                series[:0] = [math.nan] * (self.epochs - len(series))

    def last(self) -> dict[str, float]:
        """Return loss, validation loss and metrics of the last epoch, by name; {} before it."""
        values = {
            "loss": self.losses,
            "validation loss": self.validation_losses,
            **self.metrics,
        }
        measured = (name for name in values if values[name] and name not in self._left_out)
        return {name: values[name][-1] for name in measured}

    def state_dict(self) -> dict[str, Any]:
        """Return copies of all lists, for a checkpoint."""
        return {
            name: {k: list(v) for k, v in value.items()} if isinstance(value, dict) else list(value)
            for name, value in ((name, getattr(self, name)) for name in _FIELDS)
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned.

        Raises
        ------
        ValueError, TypeError
            If that is not what the state is; nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state is {checks.describe(state)}, expected a mapping")
        if set(state) != set(_FIELDS) or not isinstance(state["metrics"], Mapping):
            raise ValueError(f"state has the keys {sorted(state)}, expected {sorted(_FIELDS)}")
        copied: dict[str, Any] = {
            name: [float(v) for v in state[name]] for name in _FIELDS if name != "metrics"
        }
        copied["metrics"] = {k: [float(v) for v in vs] for k, vs in state["metrics"].items()}
        if not len(copied["losses"]) == len(copied["lr"]) == len(copied["time"]):
            raise ValueError("state has lists of different lengths, expected one entry per epoch")
        self.__dict__.update(copied, _left_out=[])
        self._fill()

    def plot(self, ax: Any = None) -> Any:
        """Draw the losses over the epochs, the best one marked, and the metrics, if there are any.

        Parameters
        ----------
        ax : matplotlib.axes.Axes, optional
            Where to draw; without it, in a new figure.

        Returns
        -------
        matplotlib.axes.Axes
            With the losses. A second y-axis has the metrics.

        Raises
        ------
        ImportError
            If matplotlib is not installed: ``pip install "lstmcore[train]"``.
        """
        return training(self, ax)

    def __repr__(self) -> str:
        text = ", ".join(f"{name} {value:.4g}" for name, value in self.last().items())
        plural = "" if self.epochs == 1 else "s"
        text = f"History of {self.epochs} epoch{plural}" + (f": {text}" if text else "")
        return text + (f"; {self.stopped}" if self.stopped else "")


explain(History)
