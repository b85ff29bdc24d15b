"""How predictions are scored: which lengths and weights belong to them, and means over batches."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._base import checks
from .._base.flow import Ends
from .._base.scoring import Mean, check_scores
from .._base.structure import is_structure, leaves
from ..data._batches import Batch, has_steps
from .batch import Caller

__all__ = ["NoTargets", "Scored", "Scorer", "Total", "scored"]

Scored: TypeAlias = Callable[..., Any]  # a loss or a metric: (pred, target[, lengths])

_TAKEN = ("loss", "validation loss")  # what `History.last` calls the losses


def scored(loss: Any, metrics: Any) -> dict[str, Scored]:
    """Return what to compute, by name."""
    if metrics is not None and not isinstance(metrics, Mapping):
        what = checks.describe(metrics)
        raise TypeError(f"metrics is {what}, expected a dict of functions by name")
    functions = {**({} if loss is None else {"loss": loss}), **(metrics or {})}
    for name, function in functions.items():
        if name in (metrics or ()) and (not isinstance(name, str) or name in _TAKEN):
            raise ValueError(f"metrics has the name {name!r}, expected a str that no loss has")
        if not callable(function):
            raise TypeError(f"{name} is {checks.describe(function)}, expected a function")
    return functions


class Targets(NamedTuple):
    """What the targets of one batch are, beside their values."""

    values: Any
    lengths: Any  # None if all steps count, or if there is one target per sequence
    weight: Any  # like the values, or None
    per_step: bool


class Scorer:
    """The losses and metrics of a run, and how they are called for a model."""

    def __init__(self, functions: Mapping[str, Scored], caller: Caller) -> None:
        self.functions = functions
        self._caller = caller
        for name, function in functions.items():
            check_scores(caller.model, name, function)
        self._weighted = {name: _takes_weight(f) for name, f in functions.items()}

    def targets(self, pred: Any, batch: Batch, ends: Ends | None) -> Targets:
        """Return the targets of predictions; `ends` is what the model found of its rows."""
        lengths = batch.lengths
        if type(pred) is np.ndarray:
            per_step = self._per_step(pred, batch)
        else:
            per_step = any(self._per_step(np.asarray(part), batch) for part in leaves(pred))
        if per_step:
            if ends is not None:
                if ends.moved:
                    raise ValueError(
                        "x has masked steps before the end of a row: the model gives an output for "
                        "every step, and these stand elsewhere than their targets then; expected "
                        "padding at the end of rows only"
                    )
                lengths = ends.lengths
            elif isinstance(lengths, tuple):  # of an encoder-decoder; the last is the decoder's
                lengths = lengths[-1]
        elif lengths is not None:
            if not self._caller.uses_lengths:
                raise ValueError(
                    "lengths are given, but the model does not look at them and there is one "
                    "target per sequence: expected none; weights are given by name, in "
                    "lc.data.Batch(x, target, weight=...)"
                )
            lengths = None
        weight = batch.weight
        if weight is not None:
            weight = self._weight(weight, batch.target, per_step)
        return Targets(batch.target, lengths, weight, per_step)

    def _per_step(self, pred: Any, batch: Batch) -> bool:
        """Whether there is a prediction for each step; what can be (B, C) is one per sequence."""
        if self._caller.pools:  # even if the sizes look like steps
            return False
        shape = pred.shape
        if len(shape) < 2:
            return False
        if self._caller.changes_steps:
            return len(shape) > 2
        x = batch.x
        if type(x) is not np.ndarray and is_structure(x):
            grids = [part.shape[:2] for part in leaves(x) if part is not None and has_steps(part)]
        else:
            grids = [x.shape[:2]]
        if shape[:2] not in grids:
            return False
        return len(shape) > 2 or shape[0] != shape[0 if self._caller.batch_first else 1]

    def _weight(self, weight: Any, target: Any, per_step: bool) -> Any:
        """Return the weight of each element of the target, from that of each row or step."""
        if "loss" in self._weighted and not self._weighted["loss"]:
            raise ValueError("weight is given, but the loss takes no argument of that name")
        if not any(self._weighted.values()):
            raise ValueError("weight is given, but no metric takes an argument of that name")
        if is_structure(target) or weight.shape == target.shape:
            return weight
        axis = int(per_step and not self._caller.batch_first)
        rows, grid = target.shape[axis : axis + 1], target.shape[:2]
        if weight.shape == rows:
            leading = weight.reshape((1,) * axis + rows)
        elif per_step and weight.shape == grid:
            leading = weight
        else:
            expected = f"{rows}, one for each row"
            expected += f", or {grid}, one for each step" if per_step else ""
            raise ValueError(f"weight has shape {weight.shape}, expected {expected}")
        leading = leading.reshape(leading.shape + (1,) * (target.ndim - leading.ndim))
        return np.broadcast_to(leading, target.shape)

    def score(self, name: str, pred: Any, targets: Targets) -> Any:
        """Return what the function of that name returns."""
        function, options = self.functions[name], {}
        if targets.weight is not None and self._weighted[name]:
            options["weight"] = targets.weight
        if targets.lengths is None:
            return function(pred, targets.values, **options)
        if self._caller.batch_first:
            options["batch_first"] = True
        return function(pred, targets.values, targets.lengths, **options)

    def means(self, values: dict[str, Any], pred: Any, targets: Targets) -> dict[str, Mean]:
        """Return what functions returned as means: of one that does not say, over all targets."""
        for name, value in values.items():
            if isinstance(value, tuple):  # a loss comes with its gradient
                value = values[name] = value[0]
            if type(value) is not Mean:
                weight = targets.weight if self._weighted[name] else None
                values[name] = Mean(float(value), self._count(pred, targets, weight))
        return values

    def _count(self, pred: Any, targets: Targets, weight: Any) -> float:
        """Return how many targets there are, or the sum of their weights."""
        first = leaves(targets.values)[0]
        if weight is None:
            if targets.lengths is not None:
                return float(np.sum(targets.lengths))
            if targets.per_step:
                return float(np.prod(np.shape(leaves(pred)[0])[:2]))
            return float(len(first)) if first.ndim else 1.0
        if targets.lengths is None or is_structure(targets.values):
            return float(weight.sum())
        time, steps = (1, 0) if self._caller.batch_first else (0, 1)
        valid = np.arange(first.shape[time])[:, None] < targets.lengths
        valid = valid if steps else valid.T
        return float(weight[valid].sum())


class Total:
    """Sums over batches of several means, each with the weight that it stands for."""

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._weights: dict[str, float] = {}
        self._finish: dict[str, Callable[[float], float]] = {}

    def add(self, means: Mapping[str, Mean]) -> None:
        """Add those of a batch."""
        for name, mean in means.items():
            weight = mean.weight
            total = weight * mean.mean if weight else 0.0  # also where the mean is not finite
            self._sums[name] = self._sums.get(name, 0.0) + total
            self._weights[name] = self._weights.get(name, 0.0) + weight
            if mean.finish is not None:
                self._finish[name] = mean.finish

    def means(self, name: str) -> dict[str, float]:
        """Return the mean of each over all of `name`, or what is made of the mean."""
        if not any(self._weights.values()):
            raise NoTargets(f"{name} is empty, expected at least one target")
        means = {n: s / (self._weights[n] or 1.0) for n, s in self._sums.items()}
        return means | {n: finish(means[n]) for n, finish in self._finish.items()}


class NoTargets(ValueError):
    """There is nothing to average."""


def _takes_weight(function: Scored) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (TypeError, ValueError):  # of one that is not written in Python
        return True
    partial = getattr(function, "keywords", {})  # a weight that is set already is another one
    return "weight" not in partial and (
        "weight" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    )
