"""One batch of `fit`: what it holds, how it is cut along time, how model and loss are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._base import checks
from .._base.module import Module, overridden
from .._nn.sequential import as_sequential
from ..data._batches import Batches

__all__ = ["Batch", "Caller", "batches", "chunks"]

Scored: TypeAlias = Callable[..., Any]  # a loss or a metric: (pred, target[, lengths])


class Batch(NamedTuple):
    """What one call of the model takes, and the target of it.

    For an encoder-decoder, x and lengths are pairs; the second of each is the decoder's.
    """

    x: Any
    target: Any
    lengths: Any
    resets: Any


def batches(
    data: Any,
    name: str,
    batch_size: int | None,
    caller: Caller,
    *,
    shuffle: bool,
    seed: int | None,
) -> Iterable[Any]:
    """Return something to go through once per epoch: `data`, or batches of its arrays."""
    if isinstance(data, tuple):
        if not 2 <= len(data) <= 4:
            raise ValueError(
                f"{name} has {len(data)} arrays, expected x, target and perhaps lengths and "
                "resets; batches come in a list"
            )
        batch = caller.unpack(data, 0, name)
        if batch_size is None:
            first = batch.x[0] if isinstance(batch.x, tuple) and batch.x else batch.x
            if not np.size(first):
                raise ValueError(f"{name} is empty, expected at least one row")
            return [batch]
        if isinstance(batch.x, tuple):
            raise ValueError(
                f"batch_size is {batch_size}, but x of {name} is a pair: cut it with lc.data.Pairs"
            )
        return Batches(
            *batch,
            batch_size=batch_size,
            shuffle=shuffle,
            seed=seed,
            batch_first=caller.batch_first,
            per_step=False if caller.pools else None,
        )
    for option, value in (("batch_size", batch_size), ("seed", seed)):
        if value is not None:
            raise ValueError(f"{option} is {value}, but {name} is no tuple of arrays to cut")
    if not isinstance(data, Iterable):
        raise TypeError(f"{name} is {checks.describe(data)}, expected batches or a tuple of arrays")
    if isinstance(data, Iterator):
        raise TypeError(
            f"{name} is {checks.describe(data)}, which can be gone through once only, expected "
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
        lengths = checks.lengths(lengths, grid[1 - axis], grid[axis], batched=True)
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
            if isinstance(model, type) or not callable(getattr(model, name, None)):
                what = checks.describe(model)
                made = "it is not made yet" if isinstance(model, type) else f"it has no {name}()"
                raise TypeError(f"model is {what}, expected a module: {made}")
        # A layer by itself gives its state beside y; in a Sequential it does not.
        self.model: Any = as_sequential(model)
        # A module that writes no call of its own is called as its forward is.
        forward = train or (isinstance(model, Module) and type(model).__call__ is Module.__call__)
        taken = inspect.signature(self.model.forward if forward else self.model).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        self._taken = [n for n in ("state", "lengths", "resets") if anything or n in taken]
        parts = [m for _, m in model._modules()] if isinstance(model, Module) else []
        self.pools = not all(m._keeps_time for m in parts)
        # Where nothing knows of time steps, rows come first.
        timed = not parts or any(m._knows_time for m in parts)
        self.batch_first = bool(getattr(model, "batch_first", False)) if timed else True
        # Whether x must be one array. A forward of the user's own may take a pair.
        self._one_x = isinstance(model, Module) and model._takes_one_x and not overridden(model)
        self._dtype = getattr(self.model, "dtype", None)

    def unpack(self, item: Any, number: int, name: str = "data") -> Batch:
        """Return the parts of a batch: arrays, and what is missing as None."""
        # A list as PyTorch's DataLoader makes it; one of numbers could be anything.
        listed = isinstance(item, list) and any(hasattr(p, "shape") for p in item)
        if not (isinstance(item, tuple) or listed) or not 2 <= len(item) <= 4:
            raise TypeError(
                f"batch {number} of {name} is {checks.describe(item)}, "
                "expected (x, target), (x, target, lengths) or (x, target, lengths, resets)"
            )
        of = f"of batch {number} of {name}"
        x, target, *rest = item
        lengths, resets = (*rest, None, None)[:2]
        if self._one_x and isinstance(x, tuple):
            if any(hasattr(part, "shape") for part in x):
                raise TypeError(f"x {of} is a tuple, expected an array; batches come in a list")
            x = list(x)
        if not isinstance(x, tuple):
            x = _array(x, f"x {of}", self._dtype)
        if lengths is not None and not isinstance(lengths, tuple):
            lengths = _array(lengths, f"lengths {of}")
        return Batch(x, _array(target, f"target {of}"), lengths, resets)

    def check_truncate(self, truncate: int) -> None:
        """Refuse models whose state cannot be carried from one chunk to the next."""
        model = self.model
        whole = model._part_reading_ahead() if isinstance(model, Module) else None
        if whole is not None:
            raise ValueError(
                f"truncate={truncate} carries the state forward in time, but {whole!r} needs the "
                "whole sequence"
            )
        if "state" not in self._taken:
            raise ValueError(f"truncate={truncate}, but the forward of the model takes no state")

    def options(self, state: Any, lengths: Any, resets: Any) -> dict[str, Any]:
        """Return the keyword arguments of a call: those that are given and that it takes."""
        options = {}
        for name, value in (("state", state), ("lengths", lengths), ("resets", resets)):
            if value is not None and name in self._taken:
                options[name] = value
        return options

    def targets(self, pred: Any, batch: Batch) -> tuple[Any, int]:
        """Return the lengths of the predictions, and how many targets count.

        The lengths are None if all steps count, or if there is one prediction per sequence.
        """
        x, target, lengths, _ = batch
        per_step = self._per_step(pred, x)
        if lengths is not None and per_step:
            lengths = lengths[-1] if isinstance(x, tuple) else lengths
            if lengths is not None:
                return lengths, int(np.asarray(lengths).sum())
        if per_step:
            steps, rows = _shape(pred)[:2]
            return None, steps * rows
        return None, int(target.shape[0]) if target.ndim else 1

    def _per_step(self, pred: Any, x: Any) -> bool:
        """Whether there is a prediction for each step; what can be (B, C) is one per sequence."""
        paired = isinstance(x, tuple)
        if self.pools and not paired:  # even if the sizes look like steps
            return False
        shape, grid = _shape(pred), _shape(x[-1] if paired else x)[:2]
        if len(grid) < 2 or shape[:2] != grid:
            return False
        return len(shape) > 2 or shape[0] != grid[0 if self.batch_first else 1]

    def score(self, function: Scored, pred: Any, target: Any, lengths: Any) -> Any:
        """Call a loss or a metric, with what `lengths` returned."""
        if lengths is None:
            return function(pred, target)
        if self.batch_first:
            return function(pred, target, lengths, batch_first=True)
        return function(pred, target, lengths)


def _shape(value: Any) -> tuple[int, ...]:
    return value.shape if type(value) is np.ndarray else np.shape(value)


def _array(value: Any, name: str, dtype: Any = None) -> Any:
    """Return an array; numbers that have no dtype yet get that one, if they are no integers."""
    if hasattr(value, "shape"):
        return value
    array = checks._asarray(value, name)
    return array if dtype is None or array.dtype.kind != "f" else array.astype(dtype)
