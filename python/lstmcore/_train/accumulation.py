"""Gradients of several batches, added up to that of all their rows in one batch."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .._base.parameter import Parameter
from .._base.scoring import Mean
from ..data._batches import Batch
from ..optim._clipping import scale
from .batch import Caller
from .scorer import Scorer, Total

__all__ = ["Accumulation", "groups"]


def groups(data: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Yield so many batches at a time; the last ones may be fewer."""
    items = iter(data)
    while group := list(itertools.islice(items, size)):
        yield group


class Accumulation:
    """One group of batches after the other.

    A loss is a mean, so its gradient for a batch counts by the weight that this mean stands for. Of
    one loss the sum of these weights is known at the end of the group, and the sum of the gradients
    is divided by it then. Several losses have sums of their own, which must be known before: the
    model is run once more for each batch, without a tape.
    """

    def __init__(self, scorer: Scorer, caller: Caller, parameters: list[Parameter]) -> None:
        self._scorer, self._caller, self._parameters = scorer, caller, parameters
        self._several = "loss" not in scorer.loss_weights
        self._shares: Iterator[dict[str, float]] = iter(())

    def begin(self, batches: list[Batch]) -> None:
        """Forget the last group."""
        self._total = Total(self._scorer)
        self._first = self._sum = 0.0
        if self._several:
            weights = [self._weights(batch) for batch in batches]
            sums = {name: sum(w[name] for w in weights) or 1.0 for name in weights[0]}
            self._shares = iter([{n: w[n] / sums[n] for n in sums} for w in weights])

    def _weights(self, batch: Batch) -> dict[str, float]:
        pred, ends = self._caller.predict(batch)
        targets = self._scorer.targets(pred, batch, ends)
        losses: dict[str, Any] = dict(self._scorer.loss(pred, targets))
        means = self._scorer.means(losses, pred, targets)
        return {name: mean.weight for name, mean in means.items()}

    def add(self, means: Mapping[str, Mean]) -> dict[str, float]:
        """Note the losses of a batch, and return what their gradients are to be multiplied by."""
        self._total.add(means)
        if self._several:
            return next(self._shares)
        weight = means["loss"].weight
        # By the first one, as weights may be too large or too small for the gradients' dtype.
        self._first = self._first or weight
        self._sum += weight
        return {"loss": weight / self._first if self._first else 0.0}

    def finish(self) -> float:
        """Bring the gradients to the scale of the whole group, and return its loss."""
        if not self._several and self._sum:
            scale(self._parameters, self._first / self._sum)
        return self._total.loss()
