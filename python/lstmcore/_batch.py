"""One batch of `fit`: what it holds, how it is cut along time, how model and loss are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from . import _checks
from ._module import Module
from ._stepwise import whole_sequence
from .batches import Batches
from .layers import Layer
from .pooling import Pool
from .sequential import Sequential

__all__ = ["Batch", "Caller", "batches", "chunks", "unpack"]

Scored: TypeAlias = Callable[..., Any]  # a loss or a metric: (pred, target[, lengths])


class Batch(NamedTuple):
    """What one call of the model takes, and the target of it.

    For an encoder-decoder, x and lengths are pairs; the second of each is the decoder's.
    """

    x: Any
    target: Any
    lengths: Any
    resets: Any


def unpack(item: Any, number: int, name: str = "data") -> Batch:
    """Return the parts of a batch: arrays, and what is missing as None."""
    if not isinstance(item, (tuple, list)) or not 2 <= len(item) <= 4:
        raise TypeError(
            f"batch {number} of {name} is {_checks.describe(item)}, "
            "expected (x, target), (x, target, lengths) or (x, target, lengths, resets)"
        )
    x, target, *rest = item
    lengths, resets = (*rest, None, None)[:2]
    if not isinstance(x, tuple):
        x = _array(x)
    if lengths is not None and not isinstance(lengths, tuple):
        lengths = _array(lengths)
    return Batch(x, _array(target), lengths, resets)


def _array(value: Any) -> Any:
    return value if hasattr(value, "shape") else np.asarray(value)


def batches(
    data: Any,
    name: str,
    batch_size: int | None,
    *,
    batch_first: bool,
    shuffle: bool,
    seed: int | None,
) -> Iterable[Any]:
    """Return something to go through once per epoch: `data`, or batches of its arrays."""
    if isinstance(data, tuple) and data and not isinstance(data[0], (tuple, list)):
        if not 2 <= len(data) <= 4:
            raise ValueError(
                f"{name} has {len(data)} arrays, expected x, target and perhaps lengths and resets"
            )
        if batch_size is None:
            batch = unpack(data, 0, name)
            if not np.size(batch.x):
                raise ValueError(f"{name} is empty, expected at least one row")
            return [data]
        return Batches(
            *data, batch_size=batch_size, shuffle=shuffle, seed=seed, batch_first=batch_first
        )
    for option, value in (("batch_size", batch_size), ("seed", seed)):
        if value is not None:
            raise ValueError(f"{option} is {value}, but {name} is no tuple of arrays to cut")
    if not isinstance(data, Iterable):
        raise TypeError(
            f"{name} is {_checks.describe(data)}, expected batches or a tuple of arrays"
        )
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} is {_checks.describe(data)}, which can be gone through once only, expected "
            "something for every epoch: a list, or lc.data.Batches"
        )
    if isinstance(data, Sized) and not len(data):
        raise ValueError(f"{name} is empty, expected at least one batch")
    return data


def chunks(batch: Batch, size: int, caller: Caller) -> Iterator[tuple[Batch, float]]:
    """Cut a batch into chunks of so many steps; with each, the share of the batch then done."""
    axis = int(caller.batch_first)
    x, target, lengths, resets = batch
    grid = np.shape(x)[:2]
    if len(grid) < 2 or target.shape[:2] != grid:
        raise ValueError(
            f"truncate={size} needs a target for each step, but x has shape {np.shape(x)} and "
            f"target {target.shape}"
        )
    if lengths is not None:
        lengths = _checks.lengths(lengths, grid[1 - axis], grid[axis], batched=True)
    time = grid[axis] if lengths is None else int(lengths.max(initial=0))
    before = (slice(None),) * axis
    for start in range(0, time, size):
        stop = min(start + size, time)
        part = (*before, slice(start, stop))
        yield (
            Batch(
                x[part],
                target[part],
                None if lengths is None else np.clip(lengths - start, 0, stop - start),
                None if resets is None else np.asarray(resets)[part],
            ),
            stop / time,
        )


class Caller:
    """How a model is called, whatever it takes, and how its output is scored."""

    def __init__(self, model: Any, train: bool = True) -> None:
        needed = ("forward", "backward", "parameters", "zero_grad") if train else ("__call__",)
        for name in needed:
            if not callable(getattr(model, name, None)):
                what = _checks.describe(model)
                raise TypeError(f"model is {what}, expected a module: it has no {name}()")
        # A layer by itself gives its state beside y; in a Sequential it does not.
        self.model: Any = Sequential(model) if isinstance(model, Layer) else model
        taken = inspect.signature(self.model.forward if train else self.model).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        self._taken = [n for n in ("state", "lengths", "resets") if anything or n in taken]
        parts = [m for _, m in model._modules()] if isinstance(model, Module) else []
        self._pools = any(isinstance(m, Pool) for m in parts)
        # Without a layer that says where time is, rows come first.
        recurrent = not parts or any(isinstance(m, Layer) for m in parts)
        self.batch_first = bool(getattr(model, "batch_first", False)) if recurrent else True

    def check_truncate(self, truncate: int) -> None:
        """Refuse models whose state cannot be carried from one chunk to the next."""
        whole = whole_sequence(self.model)
        if whole is not None:
            raise ValueError(
                f"truncate={truncate} carries the state forward in time, but {whole!r} needs the "
                "whole sequence"
            )
        if "state" not in self._taken:
            raise ValueError(f"truncate={truncate}, but the forward of the model takes no state")

    def options(self, state: Any, lengths: Any, resets: Any) -> dict[str, Any]:
        """Return the keyword arguments of a call: those that are given and that it takes."""
        given = {"state": state, "lengths": lengths, "resets": resets}
        return {n: given[n] for n in self._taken if given[n] is not None}

    def lengths(self, pred: Any, batch: Batch) -> Any:
        """Return the lengths of the predictions; None if there is one per sequence."""
        lengths = batch.lengths
        if lengths is None:
            return None
        paired = isinstance(batch.x, tuple)
        grid = (batch.x[-1] if paired else batch.x).shape[:2]
        if self._pools and not paired:  # whatever the sizes happen to be
            return None
        if pred.shape[:2] != grid or (pred.ndim == 2 and grid[0] == grid[1]):
            return None
        return lengths[-1] if paired else lengths

    def score(self, function: Scored, pred: Any, target: Any, lengths: Any) -> Any:
        """Call a loss or a metric, with what `lengths` returned."""
        if lengths is None:
            return function(pred, target)
        if self.batch_first:
            return function(pred, target, lengths, batch_first=True)
        return function(pred, target, lengths)

    def count(self, batch: Batch, lengths: Any) -> int:
        """Return how many targets a batch has: valid steps, or sequences."""
        if lengths is not None:
            return int(np.sum(lengths))
        target, x = batch.target, batch.x
        per_step = target.ndim > 1 and not isinstance(x, tuple) and target.shape[:2] == x.shape[:2]
        if per_step and not self._pools:
            return int(target.shape[0] * target.shape[1])
        return int(target.shape[0]) if target.ndim else 1
