"""A run of `fit`, as callbacks and checkpoints see it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import checks
from .functions import Functions
from .history import History
from .resuming import check_settings

if TYPE_CHECKING:
    from ..callbacks import Callback

__all__ = ["Run"]


class Run:
    """A run of `fit`, as callbacks see it.

    Attributes
    ----------
    model, optimizer, schedule, data, validation
        What `fit` was given, data and validation as batches.
    history : History
        Of the epochs completed so far.
    epochs, epoch, step : int
        How many epochs there shall be; how many are complete; how many steps the optimizer made.
    batch : int
        How many batches of the present epoch are complete; 0 between epochs.
    loss : float
        Of the last step.
    functions : dict of str to function
        The loss, as "loss", or all of several, as "a_loss" and so on; and the metrics.
    callbacks : list of Callback
    """

    def __init__(
        self,
        model: Any,
        optimizer: Any,
        schedule: Any,
        data: Any,
        validation: Any,
        epochs: int,
        callbacks: list[Callback],
        functions: Functions,
        settings: dict[str, Any],
    ) -> None:
        self.model, self.optimizer, self.schedule = model, optimizer, schedule
        self.data, self.validation = data, validation
        self.epochs, self.callbacks = epochs, callbacks
        self.functions = functions.by_name
        self._settings = settings
        self.history = History()
        self.epoch = self.step = self.batch = 0
        # Of the present epoch: the sums that its means are made of, the seconds that it took before
        # the run was resumed, and where the data stood when it began.
        self.sums: Mapping[str, Any] = {}
        self.seconds = 0.0
        self._data_before: Any = None
        self.loss = math.nan

    def stop(self, reason: str) -> None:
        """End the run after the current step, or after the epoch if called at its end."""
        self.history.stopped = reason

    def begin_epoch(self) -> None:
        """Note where the data stand before they are gone through."""
        if hasattr(self.data, "state_dict"):
            self._data_before = self.data.state_dict()

    def end_epoch(self) -> None:
        """Count the epoch."""
        self.epoch += 1
        self.batch, self.sums, self.seconds = 0, {}, 0.0

    def parts(self) -> dict[str, Any]:
        """Return all that has a state, by name: what a checkpoint of the run holds."""
        parts = {"run": self, "model": self.model, "optimizer": self.optimizer}
        parts |= {"history": self.history}
        within = self.batch and self._data_before is not None
        data = _Begun(self._data_before) if within else self.data
        optional = {"schedule": self.schedule, "data": data, "validation": self.validation}
        optional |= {f"callbacks[{i}]": callback for i, callback in enumerate(self.callbacks)}
        return parts | {
            name: part for name, part in optional.items() if hasattr(part, "state_dict")
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the counters, and what the run was begun with."""
        lr = [*self._settings["lr"], getattr(self.optimizer, "lr", None)]
        settings = {**self._settings, "lr": lr}
        state = {"epoch": self.epoch, "step": self.step, "settings": settings}
        if self.batch:
            sums = {
                kind: {name: _stored(value) for name, value in values.items()}
                for kind, values in self.sums.items()
            }
            state |= {"batch": self.batch, "sums": sums, "seconds": self.seconds}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the counters, if the run was begun with the same settings."""
        check_settings(state.get("settings", {}), self._settings)
        epoch, step = (checks.integer(state[name], name, 0) for name in ("epoch", "step"))
        batch = checks.integer(state.get("batch", 0), "batch", 0)
        sums = state.get("sums", {})
        if not isinstance(sums, Mapping) or (batch and set(sums) != {"sums", "weights"}):
            raise ValueError(f"sums is {checks.describe(sums)}, expected those of the means")
        sums = {
            kind: {name: _restored(value) for name, value in values.items()}
            for kind, values in sums.items()
        }
        self.seconds = checks.number(state.get("seconds", 0.0), "seconds")
        self.epoch, self.step, self.batch, self.sums = epoch, step, batch, sums


def _stored(value: Any) -> Any:
    """Return a sum as JSON can hold it: a longdouble as what is in float64, and the rest."""
    if not isinstance(value, np.ndarray):
        return value
    most = value.astype(np.float64)
    return [most.tolist(), (value - most).astype(np.float64).tolist()]


def _restored(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    most, rest = value
    return np.asarray(most, np.longdouble) + np.asarray(rest, np.longdouble)


class _Begun:
    """The data as they were when the present epoch began, for a checkpoint within it."""

    def __init__(self, state: Any) -> None:
        self._state = state

    def state_dict(self) -> Any:
        return self._state
