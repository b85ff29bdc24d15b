"""How good a model is on some data: its loss and metrics, without training."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any

from .. import metrics
from .._base import checks
from .batch import Caller, Scored, batches, chunks

__all__ = ["evaluate"]

_TAKEN = ("loss", "validation loss")  # what `History.last` calls the losses


def evaluate(
    model: Any,
    data: Any,
    *,
    loss: Scored | None = None,
    metrics: Mapping[str, Scored] | None = None,
    batch_size: int | None = None,
    truncate: int | None = None,
) -> dict[str, float]:
    """Compute the loss and the metrics of a model on data, without dropout and without a tape.

    Parameters
    ----------
    model : Module, or one of `lstmcore.baselines`
        Or whatever is called as they are: ``model(x)``, with lengths, resets and state by name if
        it takes them.
    data, loss, metrics, batch_size
        As of `fit`; the order of the data is kept.
    truncate : int, optional
        Run in chunks of so many steps, with the state carried across: the same numbers, less
        memory for long sequences.

    Returns
    -------
    dict of str to float
        "loss" and the metrics by their names: means over the targets, that is over all valid steps
        if there is a target per step, else over all sequences. Of `lstmcore.metrics`, perplexity
        and rmse are those of all targets together, too.

    Raises
    ------
    ValueError, TypeError
        As of `fit`.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.GRU(2, 4, seed=0), lc.LastStep(), lc.Linear(4, 3, seed=1))
    >>> x, labels = np.zeros((5, 7, 2), "float32"), np.zeros(7, int)
    >>> scores = lc.evaluate(model, (x, labels), loss=lc.losses.cross_entropy)
    >>> round(scores["loss"], 3) == round(lc.losses.cross_entropy(model(x), labels)[0], 3)
    True
    """
    caller = Caller(model, train=False)
    if truncate is not None:
        truncate = checks.integer(truncate, "truncate", 1)
        caller.check_truncate(truncate)
    whole = batches(data, "data", batch_size, caller, shuffle=False, seed=None)
    functions = scored(loss, metrics)
    if not functions:
        raise ValueError("neither loss nor metrics are given, expected something to compute")
    return measure(caller, whole, "data", functions, truncate, lambda: None)


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


def measure(
    caller: Caller,
    data: Any,
    name: str,
    functions: Mapping[str, Scored],
    truncate: int | None,
    check: Callable[[], object],
) -> dict[str, float]:
    """Go through the data and return the means; `check` is called before every call."""
    total = Total(functions)
    for number, item in enumerate(data):
        batch = caller.unpack(item, number, name)
        state = None
        for chunk, _ in [(batch, 1.0)] if truncate is None else chunks(batch, truncate, caller):
            check()
            options = caller.options(state, chunk.lengths, chunk.resets)
            if truncate is None:
                pred = caller.model(chunk.x, **options)
            else:
                pred, state = caller.model.run(chunk.x, **options)
            lengths, count = caller.targets(pred, chunk)
            total.add(
                count,
                {n: caller.score(f, pred, chunk.target, lengths) for n, f in functions.items()},
            )
    return total.means(name)


def measure_first(
    caller: Caller, data: Any, name: str, functions: Mapping[str, Scored], truncate: int | None
) -> None:
    """Try `measure` on the first batch, and leave the data where they were."""
    state = data.state_dict() if hasattr(data, "load_state_dict") else None
    try:
        first = list(itertools.islice(data, 1))
        if not first:
            raise ValueError(f"{name} is empty, expected at least one batch")
        with contextlib.suppress(_NoTargets):  # later batches may have some
            measure(caller, first, name, functions, truncate, lambda: None)
    finally:
        if state is not None:
            data.load_state_dict(state)


# Those of lstmcore.metrics that are functions of a mean: what is averaged, what is made of it.
_OF_MEAN: dict[str, tuple[Callable[[float], float], Callable[[float], float]]] = {
    "perplexity": (math.log, metrics.perplexity_of),
    "rmse": (lambda root: root * root, math.sqrt),
}


class _NoTargets(ValueError):
    pass


class Total:
    """Sums over batches, each counted as often as it has targets."""

    def __init__(self, functions: Mapping[str, Scored]) -> None:
        self._of_mean = {
            name: _OF_MEAN[function.__name__]
            for name, function in functions.items()
            if getattr(function, "__module__", "") == metrics.__name__
            and function.__name__ in _OF_MEAN
        }
        self._sums: dict[str, float] = {}
        self._count = 0

    def add(self, count: int, values: Mapping[str, Any]) -> None:
        """Add a batch with so many targets."""
        if not count:
            return
        for name, value in values.items():
            if isinstance(value, tuple):  # a loss comes with its gradient
                value = value[0]
            if name in self._of_mean:
                value = self._of_mean[name][0](value)
            self._sums[name] = self._sums.get(name, 0.0) + count * float(value)
        self._count += count

    def means(self, name: str) -> dict[str, float]:
        """Return the mean of each."""
        if not self._count:
            raise _NoTargets(f"{name} is empty, expected at least one target")
        means = {name: total / self._count for name, total in self._sums.items()}
        return {
            name: self._of_mean[name][1](mean) if name in self._of_mean else mean
            for name, mean in means.items()
        }
