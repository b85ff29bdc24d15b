"""One batch of `fit`: what it holds, how it is cut along time, how the model is called with it."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Sized
from typing import Any

import numpy as np

from .._base import checks
from .._base.module import (
    Module,
    check_hidden,
    check_own,
    needed_steps,
    overridden,
    split_forward,
)
from .._base.structure import are_several, by_key, is_structure, leaves, mapped
from .._nn.sequential import as_sequential
from ..data._batches import Batch, Batches, has_steps, padded_labels

__all__ = ["Caller", "batches", "chunks", "split"]

_FIELDS = "(x, target), (x, target, lengths), (x, target, lengths, resets) or lc.data.Batch(...)"


def batches(
    data: Any,
    name: str,
    batch_size: int | None,
    caller: Caller,
    *,
    shuffle: bool,
    seed: int | None,
    weight: Any = None,
) -> Iterable[Any]:
    """Return something to go through once per epoch: `data`, or batches of its arrays."""
    if isinstance(data, tuple):
        batch = _arrays(data, name, caller, weight)
        if batch_size is None:
            if seed is not None:
                raise ValueError(
                    f"seed is {seed}, but {name} is one batch, which has no order: expected "
                    "batch_size= beside it, or none"
                )
            if not all(np.size(part) for part in leaves(batch.x)):
                raise ValueError(f"{name} is empty, expected at least one row")
            return [batch]
        return _cut(batch, name, caller, f"batch_size is {batch_size}", batch_size, shuffle, seed)
    for option, value in (("batch_size", batch_size), ("seed", seed), ("weight", weight)):
        if value is not None:
            what = "given" if option == "weight" else value
            more = "; each may be lc.data.Batch(..., weight=...)" if option == "weight" else ""
            raise ValueError(f"{option} is {what}, but {name} is no tuple of arrays to cut{more}")
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


def split(data: Any, fraction: float, caller: Caller, weight: Any) -> tuple[Batch, Batch]:
    """Return the arrays of all but the last rows, and of the last, that fraction of them."""
    if not 0 < checks.number(fraction, "validation_split") < 1:
        raise ValueError(f"validation_split is {fraction}, expected a number between 0 and 1")
    if not isinstance(data, tuple):
        raise ValueError(
            f"validation_split is {fraction}, but data is no tuple of arrays to split: expected "
            "validation= with batches of its own"
        )
    batch = _arrays(data, "data", caller, weight)
    return _cut(batch, "data", caller, f"validation_split is {fraction}")._split(fraction)


def _arrays(data: tuple[Any, ...], name: str, caller: Caller, weight: Any) -> Batch:
    """Return a tuple of arrays, with the weight given beside it."""
    if not 2 <= len(data) <= len(Batch._fields):
        raise ValueError(
            f"{name} has {len(data)} arrays, expected x, target and perhaps lengths, resets "
            "and weight; batches come in a list"
        )
    batch = caller.unpack(data, 0, name)
    if weight is None:
        return batch
    if batch.weight is not None:
        raise ValueError(f"weight is given twice, beside {name} and in it")
    return batch._replace(weight=_weight(weight, batch.target, "weight"))


def _cut(
    batch: Batch,
    name: str,
    caller: Caller,
    why: str,
    batch_size: int = 1,
    shuffle: bool = False,
    seed: int | None = None,
) -> Batches:
    batch = caller.structured(batch, name)
    if caller.unsure is not None and np.ndim(batch.x) + caller.unsure._takes_ids >= 3:
        raise ValueError(
            f"{why}, but nothing in the model says which axis of x {np.shape(batch.x)} of {name} "
            f"are rows: set batch_first of {caller.unsure!r}, to False where it takes (T, B, ...), "
            "to True where (B, ...)"
        )
    cut = Batches(
        *batch,
        batch_size=batch_size,
        shuffle=shuffle,
        seed=seed,
        batch_first=caller.batch_first,
        per_step=False if caller.pools else caller.targets_per_step(batch),
    )
    cut._read_only = caller.ours  # a model of the user's own may write to its x
    return cut


def chunks(batch: Batch, size: int, caller: Caller) -> Iterator[tuple[Batch, float]]:
    """Cut a batch into chunks of so many steps; with each, the share of the batch then done."""
    axis = int(caller.batch_first)
    x, target, lengths, resets, weight = batch
    grid = _grid(x, target, size)
    if is_structure(lengths):
        raise ValueError(
            f"truncate={size} needs the same lengths for every input with steps, but lengths is "
            f"{checks.describe(lengths)}"
        )
    if lengths is not None:
        lengths = checks.lengths(lengths, grid[1 - axis], grid[axis], batched=True)
    time = grid[axis] if lengths is None else int(lengths.max(initial=0))

    def cut(value: Any) -> Any:
        """Return these steps of what has steps, and the rest as it is."""
        steps = (slice(None),) * axis + (slice(start, stop),)
        return mapped(lambda v, _: v[steps] if np.shape(v)[:2] == grid else v, value, "")

    for start in range(0, time, size):
        stop = min(start + size, time)
        part = Batch(
            mapped(lambda v, _: cut(v) if _stepped(v, x) else v, x, "x"),
            cut(target),
            None if lengths is None else np.clip(lengths - start, 0, stop - start),
            None if resets is None else cut(np.asarray(resets)),
            cut(weight),
        )
        yield part, stop / time


def _grid(x: Any, target: Any, size: int) -> tuple[int, ...]:
    """Return the axes of time and rows that all inputs with steps and all targets share."""
    stepped = [v for v in leaves(x) if _stepped(v, x)]
    targets = [v for v in leaves(target) if v is not None]
    grid: tuple[int, ...] = np.shape(stepped[0])[:2] if stepped else ()
    if len(grid) < 2 or any(np.shape(v)[:2] != grid for v in [*stepped, *targets]):
        shapes = [[np.shape(v) for v in values] for values in (leaves(x), targets)]
        of_x, of_target = (s if len(s) > 1 else s[0] for s in shapes)
        hint = (
            "; the loss of an output that is not trained by is None" if len(shapes[1]) > 1 else ""
        )
        raise ValueError(
            f"truncate={size} needs a target for each step, but x has shape {of_x} and target "
            f"{of_target}{hint}"
        )
    return grid


def _stepped(part: Any, x: Any) -> bool:
    """Whether that part of x has steps; an x by itself has some."""
    return part is x or (part is not None and has_steps(part))


class Caller:
    """How a model is called, whatever it takes.

    Attributes
    ----------
    pools : bool
        Whether the model says that it has no steps in its output.
    uses_lengths : bool
        Whether lengths change what it computes.
    ours : bool
        Whether it computes as modules of this library do.
    batch_first : bool
    unsure : Module or None
        A module of the user's own that leaves it open whether rows or steps come first.
    """

    def __init__(self, model: Any, train: bool = True) -> None:
        needed = ("forward", "backward", "parameters", "zero_grad") if train else ("__call__",)
        for name in needed:
            if isinstance(model, type) or not callable(getattr(model, name, None)):
                what = checks.describe(model)
                made = "it is not made yet" if isinstance(model, type) else f"it has no {name}()"
                raise TypeError(f"model is {what}, expected a module: {made}")
        if train and isinstance(model, Module):
            check_own(model)
            check_hidden(model)
        # A layer by itself gives its state beside y; in a Sequential it does not.
        self.model: Any = as_sequential(model)
        # A module that writes no call of its own is called as its forward is.
        ours = isinstance(self.model, Module)
        forward = train or (ours and type(self.model).__call__ is Module.__call__)
        taken = inspect.signature(self.model.forward if forward else self.model).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
        self._taken = [n for n in ("state", "lengths", "resets") if anything or n in taken]
        parts = [m for _, m in model._modules()] if isinstance(model, Module) else []
        own = overridden(self.model) if ours else "forward"
        self.pools = ours and not own and not self.model._keeps_time
        # Whether y may have other steps than x.
        self.changes_steps = ours and any(m._changes_lengths for m in parts)
        # Where nothing knows of time steps, rows come first.
        others = [m for m in parts if overridden(m) and not m.each_step]
        # Of modules of the user's own that is not known.
        self.may_change_steps = ours and bool(others)
        timed = not parts or any(m._knows_time for m in parts)
        timed = timed or any(getattr(m, "batch_first", None) is not None for m in others)
        self.unsure = None if timed or not others else others[0]
        self.batch_first = bool(getattr(model, "batch_first", False)) if timed else True
        # Whether x must be one array. A forward of the user's own may take several.
        self._one_x = ours and self.model._takes_one_x and not own
        self._several_x = ours and not self.model._takes_one_x
        self._several_y = ours and not getattr(self.model, "_one_y", True)
        self.ours = ours and not own
        self.uses_lengths = "lengths" in self._taken and (bool(own) or timed)
        keeps_state = not parts or any(m._gives_state for m in parts)
        self._uses_resets = "resets" in self._taken and (bool(own) or keeps_state)
        self.finds_lengths = ours and self.model._finds_lengths
        self._dtype = getattr(self.model, "dtype", None)

    def structured(self, batch: Batch, name: str) -> Batch:
        """Refuse an x that is not structured as the inputs of a network are.

        Lengths by the names of these inputs are put in the order of an x without names.
        """
        plan: Any = getattr(self.model, "_plan", None)
        if not (self._several_x and hasattr(plan, "arrays")):
            return batch
        list(plan.arrays(batch.x, f"x of {name}"))
        if isinstance(batch.lengths, dict) and isinstance(batch.x, tuple):
            found = plan.arrays(batch.lengths, f"lengths of {name}", none=True)
            batch = batch._replace(lengths=tuple(one for _, one in found))
        return batch

    def targets_per_step(self, batch: Batch) -> Any:
        """Return whether each target is per step, where the model gives other steps than x has.

        Which steps it gives is found by its output for the first row; where a module of the user's
        own may change them, by targets whose axis of rows is clear. None where they are those of
        x, or all rows come first.
        """
        if self.batch_first or not (self.changes_steps or self.may_change_steps):
            return None
        several, rows = is_structure(batch.x), 0

        def first_row(part: Any, name: str) -> Any:
            nonlocal rows
            array = checks._asarray(part, name)
            axis = 0 if several and not has_steps(array) else 1
            rows = array.shape[axis] if array.ndim > axis else 0
            return array[:1] if axis == 0 else array[:, :1]

        row = mapped(first_row, batch.x, "x")
        if not self.changes_steps:

            def clear(target: Any, name: str) -> bool | None:
                first, second = (*np.shape(target), None, None)[:2]
                return True if second == rows != first else None

            return mapped(clear, batch.target, "target")
        try:
            pred, _ = self.predict(Batch(row, None))
        except (ValueError, TypeError):
            self.predict(Batch(batch.x, None))  # which says the same of all rows
            raise

        def per_step(target: Any, key: Any = None) -> bool | None:
            if target is None or (is_structure(pred) and key not in by_key(pred)):
                return None
            made, shape = (pred[key] if is_structure(pred) else pred), np.shape(target)
            grid = (made.shape[0], rows) if made.ndim > 2 else None
            if shape[:1] == (rows,) or grid is None or shape[:2] == grid:
                return grid is not None and shape[:2] == grid
            name = "target" if key is None else f"target[{key!r}]"
            raise ValueError(
                f"{name} has shape {shape}, expected {grid} and whatever follows, one for each "
                f"step that the model gives, or ({rows}, ...), one for each row of x"
            )

        target = batch.target
        if not is_structure(target):
            return per_step(target)
        found = {key: per_step(part, key) for key, part in by_key(target).items()}
        return found if isinstance(target, dict) else tuple(found.values())

    def unpack(self, item: Any, number: int, name: str = "data") -> Batch:
        """Return a batch with arrays in its fields, and what is missing as None."""
        # A list as PyTorch's DataLoader makes it; one of numbers could be anything.
        listed = isinstance(item, list) and any(hasattr(p, "shape") for p in item)
        if not (isinstance(item, tuple) or listed) or not 2 <= len(item) <= len(Batch._fields):
            raise TypeError(
                f"batch {number} of {name} is {checks.describe(item)}, expected {_FIELDS}"
            )
        x, target, lengths, resets, weight = (*item, None, None, None)[:5]
        if type(x) is type(target) is np.ndarray:  # as most are: nothing to do
            optional = (np.ndarray, type(None))
            if type(lengths) in optional and type(weight) in optional:
                return Batch(x, target, lengths, resets, weight)
        of = f"of batch {number} of {name}"
        if isinstance(x, list) and self._several_x:
            x = tuple(x)
        if isinstance(target, list) and self._several_y:
            target = tuple(target)
        x = self._several(x, target, of) if is_structure(x) else _array(x, f"x {of}", self._dtype)
        if is_structure(target):
            target = mapped(
                lambda part, name: None if part is None else _array(part, f"{name} {of}"),
                target,
                "target",
            )
        else:
            target = _array(padded_labels(target), f"target {of}")
        if lengths is not None and not are_several(lengths):
            lengths = _array(lengths, f"lengths {of}")
        if weight is not None:
            weight = _weight(weight, target, f"weight {of}")
        return Batch(x, target, lengths, resets, weight)

    def _several(self, x: Any, target: Any, of: str) -> Any:
        """Return an x that is a tuple or dict, if the model may take it."""
        if not self._one_x:

            def one(part: Any, name: str) -> Any:  # looked at, and not only handed on
                if part is None or type(part) is np.ndarray:
                    return part
                array = _array(part, f"{name} {of}", self._dtype)
                return checks.plain(array, f"{name} {of}") if self.ours else array

            return self._with_features(mapped(one, x, "x"), of)
        if not is_structure(target):  # else it looks like batches
            checks.check_one(x, f"x {of}")
        if isinstance(x, dict) or any(hasattr(part, "shape") for part in x):
            raise TypeError(
                f"x {of} is a {type(x).__name__}, expected an array; batches come in a list"
            )
        return _array(list(x), f"x {of}", self._dtype)

    def _with_features(self, x: Any, of: str) -> Any:
        """Return x with floats in the place of integers that a network does not take for ids.

        Else (B, F) of integers would look like (T, B) of ids.
        """
        plan: Any = getattr(self.model, "_plan", None)
        if not (self.ours and self._several_x and hasattr(plan, "arrays")):
            return x
        if not any(part is not None and part.dtype.kind in "iu" for part in leaves(x)):
            return x
        features = {
            id(part)
            for (_, part), (axes, _) in zip(plan.arrays(x, f"x {of}"), plan.given, strict=True)
            if axes.features is not None and part.dtype.kind in "iu"
        }
        dtype = self._dtype or np.float64
        return mapped(lambda part, _: part.astype(dtype) if id(part) in features else part, x, "x")

    def check_truncate(self, truncate: int, train: bool) -> None:
        """Refuse models whose state cannot be carried from one chunk to the next."""
        model = self.model
        whole = model._part_reading_ahead() if isinstance(model, Module) else None
        if whole is not None:
            raise ValueError(
                f"truncate={truncate} carries the state forward in time, but {needed_steps(whole)}"
            )
        begun = model._part_begun_within() if isinstance(model, Module) else None
        if begun is not None:
            raise ValueError(
                f"truncate={truncate} carries the state forward in time, but that of {begun!r} is "
                "made within the model, which would begin with it again in every chunk: expected "
                "none, and shorter rows where that takes too much memory"
            )
        if "state" not in self._taken:
            raise ValueError(f"truncate={truncate}, but the forward of the model takes no state")
        if not train and not callable(getattr(model, "run", None)):
            raise ValueError(
                f"truncate={truncate}, but the model has no run(), which would give its state"
            )

    def forward(self, batch: Batch, state: Any) -> tuple[Any, Any, Any]:
        """Return predictions, tape, and where rows end if the model has found out."""
        made = self.model.forward(batch.x, **self._options(state, batch))
        if not self.ours:
            y, tape = split_forward(self.model, made)
            if len(y) > 1:
                raise TypeError(
                    f"{type(self.model).__qualname__}.forward returned {len(y)} arrays and a tape, "
                    "expected one: several that a loss takes are one tuple or dict"
                )
            return y[0], tape, None
        pred, tape = made
        return pred, tape, getattr(tape, "_ends", None) if self.finds_lengths else None

    def predict(self, batch: Batch) -> tuple[Any, Any]:
        """Return predictions without a tape, and where rows end if the model has found out."""
        options = self._options(None, batch)
        if self.finds_lengths:
            pred, ends = self.model._call_with_ends(batch.x, **options)
            return pred, ends
        return self.model(batch.x, **options), None

    def run(self, batch: Batch, state: Any) -> tuple[Any, Any]:
        """Return predictions without a tape, and the final state."""
        pred, state = self.model.run(batch.x, **self._options(state, batch))
        return pred, state

    def _options(self, state: Any, batch: Batch) -> dict[str, Any]:
        """Return the keyword arguments of a call: those that are given and that it takes."""
        options = {}
        if state is not None:
            options["state"] = state
        if batch.lengths is not None and "lengths" in self._taken:
            options["lengths"] = batch.lengths
        if batch.resets is not None:
            if not self._uses_resets:
                raise ValueError("resets are given, but the model has no state, expected none")
            options["resets"] = batch.resets
        return options


def _weight(weight: Any, target: Any, name: str) -> Any:
    """Return an array, or those of several targets in their structure; None where all count."""
    if is_structure(weight) and is_structure(target):
        extra = by_key(weight).keys() - by_key(target).keys()
        if extra or type(weight) is not type(target):
            raise ValueError(
                f"{name} is for {', '.join(map(repr, by_key(weight)))}, expected a "
                f"{type(target).__name__} for {', '.join(map(repr, by_key(target)))}, as target"
            )
        return mapped(lambda w, of: w if w is None else _array(w, of), weight, name)
    if isinstance(weight, dict):
        raise TypeError(f"{name} is {checks.describe(weight)}, expected an array, as target is one")
    return _array(weight, name)


def _array(value: Any, name: str, dtype: Any = None) -> Any:
    """Return an array; numbers that have no dtype yet get that one, if they are no integers."""
    if hasattr(value, "shape"):
        return value
    array = checks._asarray(value, name)
    return array if dtype is None or array.dtype.kind != "f" else array.astype(dtype)
