"""How good a model is on some data: its loss and metrics, without training."""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from .._base import checks
from .batch import Caller, batches, chunks
from .functions import Loss, Metrics, scored
from .scorer import NoTargets, Scorer, Total

__all__ = ["evaluate", "measure", "measure_first"]


def evaluate(
    model: Any,
    data: Any,
    *,
    loss: Loss | None = None,
    loss_weights: Mapping[Any, float] | Sequence[float] | None = None,
    metrics: Metrics | None = None,
    batch_size: int | None = None,
    weight: Any = None,
    truncate: int | None = None,
) -> dict[str, float]:
    """Compute the loss and the metrics of a model on data, without dropout and without a tape.

    Parameters
    ----------
    model : Module, or one of `lstmcore.baselines`
        Or whatever is called as they are: ``model(x)``, with lengths, resets and state by name if
        it takes them.
    data, loss, loss_weights, metrics, batch_size, weight
        As of `fit`; the order of the data is kept.
    truncate : int, optional
        Run in chunks of so many steps, with the state carried across: the same numbers, less
        memory for long sequences.

    Returns
    -------
    dict of str to float
        "loss" and the metrics by their names: the numbers of all targets together, whatever the
        batches are. See `fit`.

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
        caller.check_truncate(truncate, train=False)
    whole = batches(data, "data", batch_size, caller, shuffle=False, seed=None, weight=weight)
    functions = scored(loss, metrics, loss_weights)
    if not functions.by_name:
        raise ValueError("neither loss nor metrics are given, expected something to compute")
    return measure(caller, whole, "data", Scorer(functions, caller), truncate, lambda: None)


def measure(
    caller: Caller,
    data: Any,
    name: str,
    scorer: Scorer,
    truncate: int | None,
    check: Callable[[], object],
) -> dict[str, float]:
    """Go through the data and return the means; `check` is called before every call."""
    total = Total(scorer)
    for number, item in enumerate(data):
        batch = caller.unpack(item, number, name)
        state = ends = None
        parts: Iterable[tuple[Any, float]] = [(batch, 1.0)]
        if truncate is not None:
            parts = chunks(scorer.scored_only(batch), truncate, caller)
        for chunk, _ in parts:
            check()
            if truncate is None:
                pred, ends = caller.predict(chunk)
            else:
                pred, state = caller.run(chunk, state)
            targets = scorer.targets(pred, chunk, ends)
            values = {n: scorer.score(n, pred, targets) for n in scorer.names}
            total.add(scorer.means(values, pred, targets))
    return total.means(name)


def measure_first(
    caller: Caller, data: Any, name: str, scorer: Scorer, truncate: int | None
) -> None:
    """Try `measure` on the first batch, and leave the data where they were."""
    state = data.state_dict() if hasattr(data, "load_state_dict") else None
    try:
        first = list(itertools.islice(data, 1))
        if not first:
            raise ValueError(f"{name} is empty, expected at least one batch")
        with contextlib.suppress(NoTargets):  # later batches may have some
            loss = measure(caller, first, name, scorer, truncate, lambda: None)["loss"]
            if not math.isfinite(loss):
                raise ValueError(f"the loss of the first batch of {name} is {loss} before training")
    finally:
        if state is not None:
            data.load_state_dict(state)
