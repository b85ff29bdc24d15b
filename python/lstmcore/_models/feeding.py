"""Generating with networks of several inputs or outputs: which input gets what the network says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._base.scoring import check_scores
from .._base.structure import are_several
from .._base.tree import rebuilt
from .._network.stream import ModelStream, SourcedStream, stepping

__all__ = ["continued", "is_fed", "only_input"]


def is_fed(model: Any, feed: Any) -> bool:
    """Whether `generate` leaves a model to this file, as it does with several inputs or outputs.

    Raises a ValueError if `feed` is missing there, or is given where there is nothing to say.
    """
    plan: Any = getattr(model, "_plan", None)
    if not hasattr(plan, "given"):  # no Model
        if feed is not None:
            raise ValueError("feed is given, but model is no lc.Model, whose output is its input")
        return False
    inputs, outputs = _keys(plan.inputs), _keys(plan.outputs)
    if inputs is None and outputs is None:
        if feed is not None:
            raise ValueError(
                "feed is given, but model has one input and one output, which needs none: "
                "sample= makes the next input of the output"
            )
        return False
    if feed is not None:
        return True
    called = list(plan.input_names or inputs or ()), list(plan.output_names or outputs or ())
    if inputs is None:
        names, example = _listed(called[1]), repr(called[1][0])
        what = f"the outputs {names}: expected the one that is the next input, as feed={example}"
    else:
        first = called[0][0]
        example = repr(first) if outputs is None else f"{{{first!r}: {called[1][0]!r}}}"
        what = (
            f"the inputs {_listed(called[0])}: expected which of them get what, as feed={example}"
        )
    raise ValueError(f"feed is not given, and model has {what}")


def only_input(model: Any, prompt: Any) -> None:
    """Refuse a dict of inputs for a model that takes one."""
    if isinstance(prompt, Mapping):
        names = _listed(prompt)
        raise TypeError(f"prompt is a dict of {names}, expected an array: model takes one input")


class _Feed(NamedTuple):
    """What makes the next values of inputs, by slot, of the outputs of a step, (B, ...) each."""

    slots: list[int] | None  # which inputs get them; None: it is known after the first step
    values: Callable[[list[Array]], dict[int, Array]]
    structure: Callable[[dict[int, Array]], Any]  # what is returned, of that by slot


def continued(
    model: Any,
    prompt: Any,
    steps: int,
    sample: Any,
    feed: Any,
    chooser: Callable[[Any, bool], Any],
    *,
    state: Any,
    lengths: Any,
    stop: Any,
) -> Any:
    """Return what `generate` does for a network of several inputs or outputs."""
    fed = _from_function(model, feed, sample) if callable(feed) else None
    fed = fed or _from_names(model, feed, sample, chooser)
    if stop is not None:
        stop = checks.integer(stop, "stop", 0)
        ids = [model._plan.given[slot][0].features is None for slot in fed.slots or ()]
        if ids != [True]:
            raise ValueError(f"stop is {stop}, expected it where one input of ids is fed alone")
    given = _Given(model, prompt, fed.slots, lengths)
    stream = given.stream(model)
    if state is not None:
        stream.state = state
    values = fed.values(_read(stream, given))
    given.check_known(sorted(values), steps)
    made = [values]
    ended = np.zeros(given.rows, bool)
    for step in range(steps):
        if stop is not None:
            (slot,) = values
            values[slot] = np.where(ended, stop, values[slot])
            ended |= values[slot] == stop
        if step == steps - 1 or (stop is not None and ended.all()):
            break
        values = fed.values(_outputs(stream, given.step(step, values)))
        made.append(values)
    axis = int(model.batch_first)
    series: dict[int, Any] = {slot: np.stack([one[slot] for one in made], axis) for slot in made[0]}
    if not given.batched:
        series = {slot: one.take(0, 1 - axis) for slot, one in series.items()}
    return fed.structure(series)


class _Given:
    """The inputs of a prompt, (T, B, ...) or (B, ...), by slot."""

    def __init__(self, model: Any, prompt: Any, fed: list[int] | None, lengths: Any) -> None:
        plan = self._plan = model._plan
        going = stepping(plan)
        # Without any, or where one of the others is fed, a stream says why there is none.
        self._sources = plan.sources if going and going.issuperset(fed or going) else set()
        self._names = ["prompt" + name[1:] for name in plan.names]
        arrays = model._arrays(prompt, "prompt")
        timed = [axes.steps for axes, _ in plan.given]
        if not any(timed):
            raise ValueError("model has no input with steps, expected one to continue")
        first = timed.index(True)
        axes = plan.given[first][0]
        rank = 2 + (axes.features is not None) + len(axes.inner)
        self.batched = arrays[first].ndim == rank
        if not self.batched:
            arrays = [a[:, None] if t else a[None] for a, t in zip(arrays, timed, strict=True)]
        elif model.batch_first:
            arrays = [a.swapaxes(0, 1) if t else a for a, t in zip(arrays, timed, strict=True)]
        self._arrays = arrays
        self._timed = [t and slot not in self._sources for slot, t in enumerate(timed)]
        self.rows = arrays[first].shape[1]
        if lengths is not None and not self.batched:
            raise ValueError("lengths is given, but the prompt has no batch")
        self._source_lengths: Any = None
        if lengths is not None and (self._sources or are_several(lengths)):
            lengths = self._without_sources(model, lengths, fed)
        told = [slot for slot, t in enumerate(self._timed) if t] if fed is None else fed
        self._time = min(len(arrays[slot]) for slot in told)
        if not self._time or not self.rows:
            raise ValueError(f"{self._names[told[0]]} is empty, expected at least one step and row")
        if lengths is None:
            self.lengths = np.full(self.rows, self._time)
            return
        self.lengths = checks.lengths(lengths, self.rows, self._time, batched=True, of="prompt")
        if not self.lengths.all():
            raise ValueError("lengths has 0, expected at least one step for each row")

    def _without_sources(self, model: Any, lengths: Any, fed: list[int] | None) -> Any:
        """Return the lengths of what is continued, and keep those of what is read whole.

        What is known ahead need not have any: it follows the ends of what is continued.
        """
        plan = self._plan
        if not are_several(lengths):
            keys = plan.input_names or list(_keys(plan.inputs) or {})
            names = _listed(key for slot, key in enumerate(keys) if slot in self._sources)
            raise TypeError(
                f"lengths is {checks.describe(lengths)}, but of the inputs {names} is read whole: "
                "expected a dict or tuple, as the inputs are, with None for those without"
            )
        found = model._of_inputs(lengths, "lengths", plan.lengths_used)
        whole = [one if slot in self._sources else None for slot, one in enumerate(found)]
        self._source_lengths = rebuilt(plan.inputs, iter(whole))
        others = [
            one
            for slot, one in enumerate(found)
            if self._timed[slot] and (fed is None or slot in fed or one is not None)
        ]
        if any(not np.array_equal(one, others[0]) for one in others):
            raise ValueError("lengths of the inputs that are continued differ, expected the same")
        return others[0] if others else None

    def stream(self, model: Any) -> ModelStream:
        """Return the stream that goes on with the inputs, behind its sources if it has any."""
        if not self._sources:
            return ModelStream(model, self.rows)
        swap = model.batch_first
        pairs = zip(self._arrays, self._plan.given, strict=True)
        x = [a.swapaxes(0, 1) if swap and axes.steps else a for a, (axes, _) in pairs]
        return SourcedStream(model, x, self._source_lengths, self.rows)

    def check_known(self, fed: list[int], steps: int) -> None:
        """Refuse inputs that have other steps than they need."""
        need = self._time + steps - 1
        for slot, (array, name) in enumerate(zip(self._arrays, self._names, strict=True)):
            if not self._timed[slot]:
                continue
            if slot in fed and len(array) != self._time:
                raise ValueError(
                    f"{name} has {len(array)} steps, expected {self._time}, as the other inputs "
                    "that are fed"
                )
            if slot not in fed and len(array) not in (need, need + 1):
                raise ValueError(
                    f"{name} has {len(array)} steps, but nothing is fed to it: expected {need} "
                    f"that are known, {self._time} of the prompt and {steps - 1} ahead, or one more"
                )

    def prompt(self, start: int, stop: int) -> list[Array]:
        """Return steps of the prompt, as the model takes them with a batch of all rows."""
        pairs = zip(self._arrays, self._timed, strict=True)
        return [array[start:stop] if timed else array for array, timed in pairs]

    def step(self, number: int, values: dict[int, Array]) -> list[Array]:
        """Return the inputs of a step ahead, of which some are fed; each row has its own end."""
        at, rows = self.lengths + number, np.arange(self.rows)
        return [
            values[slot][None] if slot in values else array[at, rows][None] if timed else array
            for slot, (array, timed) in enumerate(zip(self._arrays, self._timed, strict=True))
        ]


def _read(stream: ModelStream, given: _Given) -> list[Array]:
    """Read the prompt, each row to its own end; return the outputs of the last steps."""
    last: list[Array] = []
    states: list[tuple[Array, ...]] = []
    start = 0
    for stop in np.unique(given.lengths).tolist():
        outputs, start = _outputs(stream, given.prompt(start, stop)), stop
        going = given.lengths >= stop  # to this end, or on from here
        last = outputs if not last else [_mixed(0, going, *p) for p in zip(outputs, last)]
        states = [
            new if not states else tuple(_mixed(1, going, *p) for p in zip(new, states[i]))
            for i, new in enumerate(stream._states)
        ]
    stream._states = states
    return last


def _mixed(axis: int, chosen: Array, new: Array, old: Array) -> Array:
    """Return the chosen rows of the new array, and the others of the old one."""
    shape = [1] * new.ndim
    shape[axis] = len(chosen)
    return np.where(chosen.reshape(shape), new, old)


def _outputs(stream: ModelStream, x: list[Array]) -> list[Array]:
    """Return the outputs of the last of some steps, (B, ...) each."""
    plan = stream._plan
    swap = stream._model.batch_first
    pairs = zip(x, plan.given, strict=True)
    x = [one.swapaxes(0, 1) if swap and axes.steps else one for one, (axes, _) in pairs]
    made = stream._run(x)
    return [
        y.take(-1, int(swap)) if plan.axes[slot].steps else y
        for slot, y in zip(plan.last, made, strict=True)
    ]


# What feed says -----------------------------------------------------------------------------------


def _from_names(model: Any, feed: Any, sample: Any, chooser: Any) -> _Feed:
    """Return what a mapping from inputs to outputs says, or the name of the only choice."""
    plan = model._plan
    inputs, outputs = _keys(plan.inputs), _keys(plan.outputs)
    alone = not isinstance(feed, Mapping)
    if alone and inputs is None:
        pairs = {None: feed}
    elif alone and outputs is None:
        pairs = {feed: None}
    elif alone or not feed:
        first = next(iter(plan.input_names or inputs or ()), None)
        output = next(iter(plan.output_names or outputs or ()), None)
        raise TypeError(
            f"feed is {checks.describe(feed)}, expected a dict from inputs to outputs, such as "
            f"{{{first!r}: {output!r}}}, or a function"
        )
    else:
        pairs = dict(feed)
    places: dict[int, int] = {}
    keys: dict[int, Any] = {}
    for key, output in pairs.items():
        slot = _place(inputs, key, "input", plan.input_names)
        if slot in places:
            raise ValueError(f"feed has {keys[slot]!r} and {key!r}, which are the same input")
        places[slot], keys[slot] = _place(outputs, output, "output", plan.output_names), key
    given = sample if isinstance(sample, Mapping) else dict.fromkeys(keys.values(), sample)
    unknown = [key for key in given if key not in keys.values()]
    if unknown:
        raise ValueError(f"sample has {_listed(unknown)}, which no output is fed to")
    if sample is not None and not isinstance(sample, Mapping) and len(keys) > 1:
        raise ValueError(f"sample is one, but feed has {len(keys)} inputs: expected a dict of them")
    makers = {
        slot: _maker(model, slot, place, pairs[keys[slot]], given.get(keys[slot]), chooser)
        for slot, place in places.items()
    }

    def values(y: list[Array]) -> dict[int, Array]:
        return {slot: make(y[places[slot]]) for slot, make in makers.items()}

    def structure(made: dict[int, Array]) -> Any:
        return next(iter(made.values())) if alone else {keys[s]: one for s, one in made.items()}

    return _Feed(list(places), values, structure)


def _maker(model: Any, slot: int, place: int, output: Any, sample: Any, chooser: Any) -> Any:
    """Return what makes the next values of an input of an output, having checked that they fit."""
    plan = model._plan
    axes = _checked_input(plan, slot)
    source = plan.axes[plan.last[place]]
    name = "the output" if output is None else f"output {output!r}"
    if source.states or source.shown:
        raise ValueError(f"feed takes {name}, which is {source}, expected one of (B, F)")
    ids = axes.features is None
    check_scores(model, "sample", sample, output)
    if not ids and sample is None and source.features != axes.features:
        raise ValueError(
            f"feed gives {name} of {source.features} features to {_called(plan, slot)}, expected "
            f"{axes.features}: sample= or a function as feed makes the input of it"
        )
    choose = chooser(sample, ids)
    return lambda y: _fitting(model, slot, choose(y), len(y))


def _from_function(model: Any, feed: Any, sample: Any) -> _Feed:
    """Return what a function says: of the outputs of a step, the next values of inputs."""
    plan = model._plan
    inputs = _keys(plan.inputs)
    if sample is not None:
        raise ValueError("sample is given, but feed is a function, which makes inputs by itself")
    names: dict[int, Any] = {}

    def values(y: list[Array]) -> dict[int, Array]:
        rows = len(y[0])
        made = feed(rebuilt(plan.outputs, iter(y)))
        if inputs is None:
            made = {None: made}
        elif not isinstance(made, Mapping) or not made:
            raise TypeError(f"feed gives {checks.describe(made)}, expected a dict of inputs")
        found = {
            _place(inputs, key, "input", plan.input_names): (key, one) for key, one in made.items()
        }
        if names and found.keys() != names.keys():
            raise ValueError(f"feed gives {_listed(made)}, expected what it gave at first")
        names.update({slot: key for slot, (key, _) in found.items()})
        for slot in found:
            _checked_input(plan, slot)
        return {slot: _fitting(model, slot, one, rows) for slot, (_, one) in found.items()}

    def structure(made: dict[int, Array]) -> Any:
        return made[0] if inputs is None else {names[slot]: one for slot, one in made.items()}

    return _Feed(None, values, structure)


def _checked_input(plan: Any, slot: int) -> Any:
    axes = plan.given[slot][0]
    if not axes.steps:
        raise ValueError(f"feed has {_called(plan, slot)}, which has no steps to continue")
    return axes


def _fitting(model: Any, slot: int, value: Any, rows: int) -> Array:
    """Return what is fed to an input as an array (B, F), or (B,) of ids, of its dtype."""
    plan = model._plan
    axes, dtype = plan.given[slot]
    array = checks._asarray(value, "what feed gives")
    ids = axes.features is None
    shape = (rows,) if ids else (rows, *axes.inner, axes.features)
    if array.shape != shape or array.dtype.kind not in ("iu" if ids else "biuf"):
        raise ValueError(
            f"feed gives {_called(plan, slot)} {checks.describe(array)} of dtype {array.dtype}, "
            f"expected {'integers' if ids else 'numbers'} {shape}"
        )
    if not ids and np.isnan(array).any():
        raise ValueError(f"feed gives {_called(plan, slot)} NaN: has the model diverged?")
    return array.astype(np.int64 if ids else dtype or model.dtype or array.dtype, copy=False)


def _called(plan: Any, slot: int) -> str:
    name = plan.names[slot][1:]
    return f"input {name[1:-1]}" if name else "the input"


def _keys(tree: Any) -> dict[Any, Any] | None:
    """Return the parts of a structure by name or number; None of one that has no parts."""
    if isinstance(tree, dict):
        return tree
    return dict(enumerate(tree)) if isinstance(tree, tuple) else None


def _place(parts: dict[Any, Any] | None, key: Any, kind: str, names: list[str] | None) -> int:
    """Return the number of an input or output among all: by its key there, or by its own name."""
    if parts is None:
        if key is not None and [key] != names:
            expected = "None" if names is None else repr(names[0])
            raise ValueError(
                f"feed has the {kind} {key!r}, but model has one {kind}: expected {expected}"
            )
        return 0
    if key not in parts and key in (names or ()):
        key = list(parts)[(names or []).index(key)]
    if key not in parts:
        raise ValueError(f"feed has the {kind} {key!r}, expected one of {_listed(names or parts)}")
    if not all(isinstance(part, int) for part in parts.values()):
        raise TypeError(f"model has a structure of {kind}s in another, expected a list or dict")
    return list(parts).index(key)


def _listed(keys: Any) -> str:
    return ", ".join(map(repr, keys))
