"""Batches for `fit`: things to go through once per epoch, in an order that a seed settles."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.structure import are_several, by_key, is_structure, leaves, mapped

__all__ = ["Batch", "Batches", "Buckets", "Pairs", "has_steps", "padded_labels"]

IntArray: TypeAlias = npt.NDArray[np.int64]
AnyArray: TypeAlias = npt.NDArray[Any]

_POOL = 50  # batches among which rows are sorted by length: more pads less, fewer mixes more


class Batch(NamedTuple):
    """What one step of `fit` takes, by name. A tuple ``(x, target, ...)`` is one in this order.

    x : array, or tuple or dict of arrays
        What the model takes as its x: (T, B, ...), or (B, T, ...) if it is batch_first. Several
        only for a `Seq2Seq` or a model of your own that takes them.
    target : array, or tuple or dict of arrays
        As the loss takes it; None for one of several outputs that nothing scores. A list of rows of
        ids that are not equally long, as for `losses.ctc`, is padded with -1.
    lengths : integer array (B,), optional
        Steps of each row; for a `Seq2Seq` a pair, of source and target; for a `Model` with several
        inputs also as many as these, in their structure, with None for those that have all steps.
    resets : bool array (T, B), or (B, T) if batch_first, optional
        As the layers take them.
    weight : array, optional
        How much each row (B,) counts, or each step (T, B), or (B, T) if batch_first, where there
        is a target per step; or, of the target's shape, each of its numbers. The loss gets it as
        its `weight`, and so do metrics that take one. With several targets it is of all of them, or
        a tuple or dict as they are, with None for those whose all count.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x, target = np.ones((5, 2, 3), "float32"), np.zeros((5, 2, 1), "float32")
    >>> batch = lc.data.Batch(x, target, weight=np.array([1.0, 0.5]))
    >>> model = lc.Sequential(lc.GRU(3, 4, seed=0), lc.Linear(4, 1, seed=1))
    >>> round(lc.evaluate(model, [batch], loss=lc.losses.mse)["loss"], 4)
    0.048
    """

    x: Any
    target: Any
    lengths: Any = None
    resets: Any = None
    weight: Any = None


def has_steps(part: AnyArray) -> bool:
    """Whether one of several x has steps: (T, B, F), or (T, B) of ids; but not (B, F) or (B,)."""
    return part.ndim > 2 or (part.ndim == 2 and part.dtype.kind in "iu")


class _Epochs:
    """The order of the rows in each epoch, from nothing but a seed and the number of the epoch."""

    def __init__(self, rows: int, batch_size: int, shuffle: bool, seed: int | None) -> None:
        if not rows:
            raise ValueError("the data are empty, expected at least one row")
        self._rows = rows
        self.batch_size = checks.integer(batch_size, "batch_size", 1)
        self.shuffle = checks.boolean(shuffle, "shuffle")
        self.given_seed = checks.seed(seed)
        entropy = np.random.SeedSequence(self.given_seed).entropy
        assert isinstance(entropy, int)
        self.seed = entropy
        self.epoch = 0

    def __len__(self) -> int:
        """How many batches an epoch has."""
        return -(-self._rows // self.batch_size)

    def _next_rng(self) -> np.random.Generator:
        """Return the source of the next epoch's order."""
        self.epoch += 1
        return np.random.default_rng([self.seed, self.epoch])

    def state_dict(self) -> dict[str, Any]:
        """Return what settles the order of the epochs to come."""
        return {"seed": self.seed, "epoch": self.epoch}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with the order of the epochs where `state_dict` was taken.

        Raises
        ------
        ValueError, TypeError
            If the state is not what `state_dict` returns; nothing is changed then.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state is {checks.describe(state)}, expected a mapping")
        if set(state) != {"seed", "epoch"}:
            raise ValueError(f"state has the keys {sorted(state)}, expected epoch, seed")
        seed = checks.integer(state["seed"], "seed", 0)
        self.epoch = checks.integer(state["epoch"], "epoch", 0)
        self.seed = seed


class Batches(_Epochs):
    """Batches of rows of arrays that are padded already.

    Parameters
    ----------
    x : array (T, B, ...), or (B, T, ...) if batch_first; or tuple or dict of arrays
        Inputs, B rows. With `batch_first` also (B, F): rows without a time axis. Of several arrays
        those with three axes, and ids with two, have steps; others are (B, F) or (B,).
    target : array, or tuple or dict of arrays
        One per step, with the first two axes of x, or one per sequence, (B, ...). One per step of
        a model that gives other steps than x has needs ``per_step=True``.
    lengths : integer array (B,), or tuple or dict of them, optional
        Steps of each row; or, in the structure of x, those of each input, None for all.
    resets : bool array (T, B), or (B, T) if batch_first, optional
        As the layers take them.
    weight : array (B,), or (T, B), or (B, T) if batch_first, or of the shape of target, optional
        How much each row, step or number counts; or, as for `Batch`, one for each of several
        targets.
    batch_size : int
        Rows per batch; the last batch has what is left.
    shuffle : bool, default True
        Whether every epoch has an order of its own.
    seed : int, optional
        Of the orders.
    batch_first : bool, default False
        Which axis of x is the rows'.
    per_step : bool, or tuple or dict of them, optional
        Whether there is a target per step, (S, B, ...), or (B, S, ...) if batch_first, whatever S
        is; of all targets or, in their structure, of each. If not given, whether target and x
        share their first two axes.

    Yields
    ------
    (x, target), (x, target, lengths) or (x, target, lengths, resets)
        Or a `Batch`, with `weight`.

    Raises
    ------
    ValueError, TypeError
        If the arrays do not fit together or are empty.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x, labels = np.zeros((7, 5, 3), "float32"), np.arange(5)
    >>> batches = lc.data.Batches(x, labels, batch_size=2, seed=0)
    >>> [(x.shape, target.shape) for x, target in batches]
    [((7, 2, 3), (2,)), ((7, 2, 3), (2,)), ((7, 1, 3), (1,))]
    """

    def __init__(
        self,
        x: Any,
        target: Any,
        lengths: Any = None,
        resets: npt.ArrayLike | None = None,
        weight: Any = None,
        *,
        batch_size: int,
        shuffle: bool = True,
        seed: int | None = None,
        batch_first: bool = False,
        per_step: bool | tuple[bool | None, ...] | dict[Any, bool | None] | None = None,
    ) -> None:
        self.batch_first = checks.boolean(batch_first, "batch_first")
        self._axis = 0 if self.batch_first else 1
        self._x, self._x_axes = self._inputs(x)
        shapes = [np.shape(part) for part in leaves(self._x)]
        axes = leaves(self._x_axes)
        rows = shapes[0][axes[0]]
        if any(shape[axis] != rows for shape, axis in zip(shapes, axes, strict=True)):
            raise ValueError(f"x has parts of shapes {shapes}, expected the same rows in each")
        super().__init__(rows, batch_size, shuffle, seed)
        stepped = [s for s in shapes if len(s) > 1] if len(shapes) == 1 else self._grids()
        grid = stepped[0][:2] if stepped else (rows,)
        grids = [shape[:2] for shape in stepped] or [grid]
        several = is_structure(target)
        self._target = mapped(
            lambda part, name: None if several and part is None else checks._asarray(part, name),
            target,
            "target",
        )
        said = iter(leaves(_spread(per_step, self._target, "per_step")))
        self._target_axes = mapped(
            lambda part, name: self._target_axis(part, name, rows, grids, next(said)),
            self._target,
            "target",
        )
        self._lengths = None
        if are_several(lengths):
            self._lengths = self._several_lengths(lengths, rows)
        elif lengths is not None:
            time = grid[1 - self._axis] if len(grid) == 2 else 0
            self._lengths = checks.lengths(lengths, rows, time, batched=True)
        self._resets = None
        axes_text = "(B, T)" if self.batch_first else "(T, B)"
        if resets is not None:
            self._resets = checks.resets(resets, grid, axes_text)
        self._weight = None
        if weight is not None:
            self._weight, self._weight_axes = self._weights(weight, (rows,), grids)

    # Whether nobody writes to an x that it has made, so that no tape needs a copy of it.
    _read_only = False

    def _inputs(self, x: Any) -> tuple[Any, Any]:
        """Return x as arrays, and the axis of the rows of each."""
        several = is_structure(x)
        if several and not len(x):
            raise ValueError(f"x is {x!r}, expected at least one array")
        arrays = mapped(checks._asarray, x, "x")

        def axis(part: AnyArray, name: str) -> int:
            axis = 0 if several and not has_steps(part) else self._axis
            if part.ndim <= axis:
                axes = "(B, ...)" if axis == 0 else "(T, B, ...)"
                raise ValueError(f"{name} has shape {part.shape}, expected {axes}")
            return axis

        return arrays, mapped(axis, arrays, "x")

    def _weights(self, weight: Any, rows: tuple[int], grids: list[tuple[int, ...]]) -> Any:
        """Return weights as arrays, one or as several targets are, and the axis of rows of each."""
        axes = "(B, T)" if self.batch_first else "(T, B)"

        def one(weight: Any, name: str, target: Any, target_axis: Any) -> tuple[Any, Any]:
            if weight is None:
                return None, 0
            w = checks._asarray(weight, name)
            of_target = None if is_structure(target) or target is None else target.shape
            # Those of a target of other steps than x has.
            steps = target.shape[:2] if of_target and target_axis == self._axis else None
            if w.shape not in (rows, *grids, of_target, steps):
                raise ValueError(
                    f"{name} has shape {w.shape}, expected (B,) = {rows}, or {axes} = "
                    f"{' or '.join(map(str, grids))}, or that of the target"
                )
            alike = w.ndim > 1 and w.shape == of_target
            return w, target_axis if alike else int(w.ndim > 1) and self._axis

        if not (is_structure(weight) and is_structure(self._target)):
            return one(weight, "weight", self._target, self._target_axes)
        targets, target_axes = by_key(self._target), by_key(self._target_axes)
        wrong = [key for key in by_key(weight) if key not in targets]
        if wrong:
            names = ", ".join(map(repr, targets))
            raise ValueError(f"weight has {wrong[0]!r}, expected those of the target, {names}")
        pairs = {
            key: one(w, f"weight[{key!r}]", targets[key], target_axes[key])
            for key, w in by_key(weight).items()
        }
        if isinstance(weight, dict):
            return tuple({key: pair[i] for key, pair in pairs.items()} for i in (0, 1))
        return tuple(tuple(pair[i] for pair in pairs.values()) for i in (0, 1))

    def _several_lengths(self, lengths: Any, rows: int) -> Any:
        """Return the lengths of several inputs, in their structure."""
        inputs = by_key(self._x) if is_structure(self._x) else {}
        wrong = [key for key in by_key(lengths) if key not in inputs]
        if wrong:
            names = ", ".join(map(repr, inputs))
            expected = f"those of the inputs, {names}" if inputs else f"(B,) = ({rows},)"
            raise ValueError(f"lengths has {wrong[0]!r}, expected {expected}")

        def one(given: Any, key: Any) -> Any:
            if given is None:
                return None
            x = inputs[key]
            name = f"x[{key!r}]"
            if not has_steps(x):
                raise ValueError(f"lengths[{key!r}] is given, but {name} has no steps")
            return checks.lengths(given, rows, x.shape[1 - self._axis], batched=True, of=name)

        found = {key: one(given, key) for key, given in by_key(lengths).items()}
        return found if isinstance(lengths, dict) else tuple(found.values())

    def _grids(self) -> list[tuple[int, ...]]:
        """Return the shapes of those of several x that have steps."""
        return [part.shape for part in leaves(self._x) if has_steps(part)]

    def _target_axis(
        self,
        target: AnyArray | None,
        name: str,
        rows: int,
        grids: list[tuple[int, ...]],
        per_step: bool | None,
    ) -> int:
        """Return the axis of the rows of a target."""
        if target is None:
            return 0
        gridded = target.ndim > 1 and target.shape[:2] in grids
        stepped = target.ndim > 1 and target.shape[self._axis] == rows
        both = self._axis == 1 and target.ndim > 2 and target.shape[:2] == (rows, rows)
        if per_step is None and both and grids and not gridded:
            raise ValueError(
                f"{name} has shape {target.shape}, of which either axis may be that of the {rows} "
                "rows of x: expected per_step=False if it is the first, per_step=True if the second"
            )
        steps = gridded if per_step is None else checks.boolean(per_step, "per_step")
        if not (stepped if steps else target.shape[:1] == (rows,)):
            swapped = self._axis == 1 and any(target.shape[:1] == grid[:1] for grid in grids)
            hint = "; where x is (B, T, ...), its layers are made with batch_first=True" * swapped
            if stepped and self._axis == 1 and per_step is None:
                hint = "; Batches(..., per_step=True) takes those of a model with other steps"
            raise ValueError(
                f"{name} has shape {target.shape}, expected ({rows}, ...), one for each row of x, "
                f"or {' or '.join(map(str, grids))} and whatever follows, one for each step{hint}"
            )
        return self._axis if steps else 0

    def __iter__(self) -> Iterator[Any]:
        """Go through one epoch."""
        rng = self._next_rng()
        order = rng.permutation(self._rows) if self.shuffle else np.arange(self._rows)
        for start in range(0, self._rows, self.batch_size):
            batch = self._take(order[start : start + self.batch_size])
            fields = len(batch)
            while fields > 2 and batch[fields - 1] is None:
                fields -= 1
            yield batch if fields == len(batch) else batch[:fields]

    def _take(self, rows: IntArray) -> Batch:
        """Return the batch of these rows."""
        if not is_structure(self._x) and not is_structure(self._target):
            x = np.take(self._x, rows, self._x_axes)
            x.flags.writeable = not self._read_only
            target = np.take(self._target, rows, self._target_axes)
        else:
            x = _taken(self._x, rows, self._x_axes)
            target = _taken(self._target, rows, self._target_axes)
        lengths = _taken(self._lengths, rows, 0)
        resets = None if self._resets is None else np.take(self._resets, rows, self._axis)
        weight = None
        if self._weight is not None:
            weight = _taken(self._weight, rows, self._weight_axes)
        return Batch(x, target, lengths, resets, weight)

    def _split(self, fraction: float) -> tuple[Batch, Batch]:
        """Return all but the last rows, and the last, that fraction of them."""
        first = math.floor(self._rows * (1 - fraction))
        if not 0 < first < self._rows:
            raise ValueError(
                f"validation_split is {fraction}, which leaves {first} of {self._rows} rows to "
                "train with, expected some, and some for validation"
            )
        rows = np.arange(self._rows)
        return self._take(rows[:first]), self._take(rows[first:])


def _taken(value: Any, rows: IntArray, axes: Any) -> Any:
    """Return those rows of an array, or of each in a tuple or dict; of None, None."""
    if is_structure(value):
        axes = _spread(axes, value, "axes")
    if isinstance(value, dict):
        return {key: _taken(part, rows, axes[key]) for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(_taken(part, rows, axis) for part, axis in zip(value, axes, strict=True))
    return None if value is None else np.take(value, rows, axes)


def _spread(given: Any, like: Any, name: str) -> Any:
    """Return one value for each in the structure `like`: those given there, or the one for all."""
    if not is_structure(given):
        return mapped(lambda _, __: given, like, name)
    if not is_structure(like) or by_key(given).keys() != by_key(like).keys():
        expected = ", ".join(map(repr, by_key(like))) if is_structure(like) else "one"
        raise ValueError(f"{name} is {given!r}, expected one for each target, {expected}")
    return {key: given[key] for key in like} if isinstance(like, dict) else given


class _Bucketed(_Epochs):
    """Batches of rows of about the same length, so that little is padded."""

    def __init__(
        self,
        lengths: IntArray,
        batch_size: int,
        shuffle: bool,
        seed: int | None,
        batch_first: bool,
    ) -> None:
        super().__init__(len(lengths), batch_size, shuffle, seed)
        self.batch_first = checks.boolean(batch_first, "batch_first")
        self._sort_by = lengths

    def _row_batches(self) -> Iterator[IntArray]:
        """Yield the rows of every batch of one epoch."""
        rng = self._next_rng()
        if not self.shuffle:
            order = np.argsort(self._sort_by, kind="stable")
            for start in range(0, self._rows, self.batch_size):
                yield order[start : start + self.batch_size]
            return
        order = rng.permutation(self._rows)
        pool = _POOL * self.batch_size
        for start in range(0, self._rows, pool):  # only the last pool has a batch that is not full
            rows = order[start : start + pool]
            rows = rows[np.argsort(self._sort_by[rows], kind="stable")]
            batches = [
                rows[first : first + self.batch_size]
                for first in range(0, len(rows), self.batch_size)
            ]
            for i in rng.permutation(len(batches)):
                yield batches[i]


class Buckets(_Bucketed):
    """Batches of sequences of unequal lengths: those of about the same length meet in a batch.

    Each batch is padded to its own longest sequence, and its lengths are handed on.

    Parameters
    ----------
    sequences : list of arrays, (T_i, ...) each
        For instance (T_i, F), or ids (T_i,).
    targets : array (B, ...), or list of arrays (T_i, ...), or list of integer arrays (S_i,)
        One per sequence or, as a list of arrays as long as the sequences, one per step. With
        ``per_step=False`` also labels of each sequence, as many as it has, as for `losses.ctc`:
        the target is (B, S) then, padded with -1.
    weight : array (B,), optional
        How much each sequence counts.
    batch_size : int
        Sequences per batch; one batch has what is left.
    shuffle : bool, default True
        Whether every epoch has an order of its own; without it the shortest come first.
    seed : int, optional
        Of the orders.
    batch_first : bool, default False
        Whether x is (B, T, ...) rather than (T, B, ...), and a target per step likewise.
    padding : number, default 0
        What x is padded with. Targets per step are padded with 0; losses with lengths never look
        there.
    per_step : bool, optional
        Whether there is a target per step; if not given, whether all targets are as long as their
        sequences.

    Yields
    ------
    x : ndarray (T, B, ...)
    target : ndarray (B, ...) or (T, B, ...)
    lengths : ndarray (B,), int64
        With `weight`, they are in a `Batch`.

    Raises
    ------
    ValueError, TypeError
        If the data are empty or do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> sequences = [np.ones((n, 2), "float32") for n in (3, 9, 4, 8)]
    >>> buckets = lc.data.Buckets(sequences, [0, 1, 0, 1], batch_size=2, shuffle=False)
    >>> [(x.shape, target.tolist(), lengths.tolist()) for x, target, lengths in buckets]
    [((4, 2, 2), [0, 0], [3, 4]), ((9, 2, 2), [1, 1], [8, 9])]
    """

    def __init__(
        self,
        sequences: Sequence[npt.ArrayLike],
        targets: npt.ArrayLike | Sequence[npt.ArrayLike],
        *,
        weight: npt.ArrayLike | None = None,
        batch_size: int,
        shuffle: bool = True,
        seed: int | None = None,
        batch_first: bool = False,
        padding: float = 0,
        per_step: bool | None = None,
    ) -> None:
        self._sequences = _ragged(sequences, "sequences")
        self._lengths = np.array([len(s) for s in self._sequences], np.int64)
        super().__init__(self._lengths, batch_size, shuffle, seed, batch_first)
        self._padding = checks.number(padding, "padding")
        _check_padding(padding, self._sequences)
        _check_count(targets, self._rows, "sequence")
        self._weight = None
        if weight is not None:
            self._weight = checks._asarray(weight, "weight")
            if self._weight.shape != (self._rows,):
                raise ValueError(
                    f"weight has shape {self._weight.shape}, expected ({self._rows},), one for "
                    "each sequence"
                )
        self._steps: list[AnyArray] | None = None
        self._labels: AnyArray | None = None
        self._rows_of_labels: list[AnyArray] | None = None
        if per_step is not None:
            per_step = checks.boolean(per_step, "per_step")
        if isinstance(targets, (list, tuple)) and checks._asarray(targets[0], "targets[0]").ndim:
            steps = [checks._asarray(t, f"targets[{i}]") for i, t in enumerate(targets)]
            fits = all(t.ndim and len(t) == n for t, n in zip(steps, self._lengths, strict=True))
            if fits and per_step is not False:
                self._steps = _ragged(steps, "targets")
                return
            if per_step is False and _are_labels(steps):
                self._rows_of_labels = [labels.astype(np.int64) for labels in steps]
                return
        if per_step:
            raise ValueError("targets are not as long as the sequences, expected one per step")
        try:
            self._labels = np.asarray(targets)
        except ValueError as error:
            raise ValueError(
                "targets are neither as long as the sequences, one per step, nor all of one shape, "
                "one per sequence"
            ) from error

    def __iter__(self) -> Iterator[Any]:
        """Go through one epoch."""
        for rows in self._row_batches():
            x = _padded([self._sequences[i] for i in rows], self._padding, self.batch_first)
            if self._labels is not None:
                target = self._labels[rows]
            elif self._rows_of_labels is not None:
                target = _padded([self._rows_of_labels[i] for i in rows], -1, True)
            else:
                assert self._steps is not None
                target = _padded([self._steps[i] for i in rows], 0, self.batch_first)
            lengths = self._lengths[rows]
            if self._weight is None:
                yield x, target, lengths
            else:
                yield Batch(x, target, lengths, weight=self._weight[rows])


class Pairs(_Bucketed):
    """Batches of pairs of sequences, bucketed by length: what trains a `Seq2Seq`.

    Parameters
    ----------
    sources : list of arrays, (T_i,) ids or (T_i, F)
        What the encoder reads.
    targets : list of integer arrays, (S_i,)
        What the decoder shall say, without `start` and `end`.
    start, end : int
        Ids that begin what the decoder reads and end what it says.
    batch_size, shuffle, seed, batch_first
        As of `Buckets`.
    padding : int, default 0
        Id that sources and targets are padded with.

    Yields
    ------
    (source, previous) : pair of ndarray
        (T, B, ...), and (S + 1, B): the target behind `start`, for teacher forcing.
    target : ndarray (S + 1, B)
        The target before `end`.
    (source_lengths, target_lengths) : pair of ndarray (B,), int64

    Raises
    ------
    ValueError, TypeError
        If the data are empty or do not fit together.

    Examples
    --------
    >>> import lstmcore as lc
    >>> pairs = lc.data.Pairs([[5, 6]], [[7, 8, 9]], start=1, end=2, batch_size=1)
    >>> for (source, previous), target, lengths in pairs:
    ...     print(source[:, 0], previous[:, 0], target[:, 0], lengths)
    [5 6] [1 7 8 9] [7 8 9 2] (array([2]), array([4]))
    """

    def __init__(
        self,
        sources: Sequence[npt.ArrayLike],
        targets: Sequence[npt.ArrayLike],
        *,
        start: int,
        end: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int | None = None,
        batch_first: bool = False,
        padding: int = 0,
    ) -> None:
        self._sources = _ragged(sources, "sources")
        _check_count(targets, len(self._sources), "source")
        start = checks.integer(start, "start", 0)
        end = checks.integer(end, "end", 0)
        self._padding = checks.integer(padding, "padding", 0)
        ids = []
        for i, target in enumerate(targets):
            array = checks._asarray(target, f"targets[{i}]")
            if array.ndim != 1 or (array.dtype.kind not in "iu" and array.size):
                raise TypeError(
                    f"targets[{i}] is {checks.describe(target)}, expected a sequence of ids"
                )
            ids.append(array.astype(np.int64))
        self._previous = [np.concatenate([[start], t]) for t in ids]
        self._targets = [np.concatenate([t, [end]]) for t in ids]
        self._source_lengths = np.array([len(s) for s in self._sources], np.int64)
        self._target_lengths = np.array([len(t) for t in self._targets], np.int64)
        total = self._source_lengths + self._target_lengths
        super().__init__(total, batch_size, shuffle, seed, batch_first)
        _check_padding(padding, self._sources)
        _check_padding(padding, self._targets)

    def __iter__(
        self,
    ) -> Iterator[tuple[tuple[AnyArray, AnyArray], AnyArray, tuple[IntArray, IntArray]]]:
        """Go through one epoch."""
        for rows in self._row_batches():
            source, previous, target = (
                _padded([some[i] for i in rows], self._padding, self.batch_first)
                for some in (self._sources, self._previous, self._targets)
            )
            lengths = self._source_lengths[rows], self._target_lengths[rows]
            yield (source, previous), target, lengths


def pad(
    sequences: Sequence[npt.ArrayLike], padding: float = 0, batch_first: bool = False
) -> AnyArray:
    """Put sequences of unequal lengths into one array, padded at their ends.

    Parameters
    ----------
    sequences : list of arrays, (T_i, ...) each
        At least one.
    padding : number, default 0
        What follows the shorter ones.
    batch_first : bool, default False
        Whether the result is (B, T, ...) rather than (T, B, ...).

    Returns
    -------
    ndarray (T, B, ...), T the longest

    Raises
    ------
    ValueError, TypeError
        If there is no sequence, they differ in all but their first axis, or integers are to be
        padded with what is none.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.data.pad([[1, 2, 3], [4]], padding=-1, batch_first=True)
    array([[ 1,  2,  3],
           [ 4, -1, -1]])
    """
    arrays = _ragged(sequences, "sequences")
    if not arrays:
        raise ValueError("sequences is empty, expected at least one")
    _check_padding(padding, arrays)
    return _padded(arrays, padding, checks.boolean(batch_first, "batch_first"))


def padded_labels(rows: Any) -> Any:
    """Return a list of rows of ids, of which some are longer, as (B, S), padded with -1.

    What is anything else is returned as it is.
    """
    if not isinstance(rows, list) or not rows or not hasattr(rows[0], "__len__"):
        return rows
    try:
        arrays = [np.asarray(row) for row in rows]
    except (ValueError, TypeError):
        return rows
    if not _are_labels(arrays):
        return rows
    return _padded([row.astype(np.int64) for row in arrays], -1, True)


def _are_labels(rows: list[AnyArray]) -> bool:
    """Whether these are rows of ids of unequal lengths."""
    ids = all(row.ndim == 1 and (row.dtype.kind in "iu" or not row.size) for row in rows)
    return ids and len({len(row) for row in rows}) > 1


def _padded(arrays: list[AnyArray], padding: float, batch_first: bool) -> AnyArray:
    time = max(len(a) for a in arrays)
    shape = (len(arrays), time) if batch_first else (time, len(arrays))
    padded = np.full((*shape, *arrays[0].shape[1:]), padding, _common_dtype(arrays))
    rows = padded if batch_first else padded.swapaxes(0, 1)
    for row, array in zip(rows, arrays, strict=True):
        row[: len(array)] = array
    return padded


def _common_dtype(arrays: list[AnyArray]) -> np.dtype[Any]:
    return np.result_type(*{a.dtype for a in arrays})


def _check_padding(padding: object, arrays: list[AnyArray]) -> None:
    """Refuse what is no number, or would become another one among integers or bools."""
    dtype = _common_dtype(arrays)
    floats = dtype.kind == "f"
    if floats and isinstance(padding, (float, np.floating)):  # NaN, too
        return
    value = checks.number(padding, "padding")
    if floats:
        return
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if not (value.is_integer() and least <= value <= most):
        raise ValueError(f"padding is {padding}, expected a number that {dtype} can hold")


def _check_count(targets: Any, rows: int, what: str) -> None:
    if not isinstance(targets, Sized):
        raise TypeError(f"targets is {checks.describe(targets)}, expected one for each {what}")
    if len(targets) != rows:
        raise ValueError(
            f"targets has {len(targets)} entries, expected {rows}, one for each {what}"
        )


def _ragged(sequences: Sequence[npt.ArrayLike], name: str) -> list[AnyArray]:
    """Return the sequences as arrays that agree in all but their first axis."""
    if not isinstance(sequences, Iterable):
        raise TypeError(f"{name} is {checks.describe(sequences)}, expected a list of arrays")
    arrays = []
    for i, sequence in enumerate(sequences):
        array = checks._asarray(sequence, f"{name}[{i}]")
        arrays.append(array)
        if array.ndim == 0 or array.dtype.kind not in "biuf":
            raise TypeError(
                f"{name}[{i}] is {checks.describe(sequence)}, expected an array with a time axis"
            )
        if array.shape[1:] != arrays[0].shape[1:]:
            raise ValueError(
                f"{name}[{i}] has shape {array.shape}, expected (T, ...) with the features of "
                f"{name}[0], {arrays[0].shape}"
            )
    return arrays
