"""Streams of networks of any shape: one step at a time, with the states kept."""

from __future__ import annotations

import copy
import threading
import weakref
from collections.abc import Iterable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._base.checks import Array, Lengths
from .._base.flow import Flow
from .._base.loads import whole
from .._base.module import overridden
from .._base.parameter import settled
from .._base.tree import leaves, rebuilt
from .._nn.streams.frozen import counted
from .._nn.streams.states import check_entries, chosen_rows, state_parts
from . import executor
from .operations import Operation

if TYPE_CHECKING:
    from .model import Model
    from .plan import Plan, Step

__all__ = [
    "ModelStream",
    "SourcedStream",
    "calls_with_states",
    "check_streamable",
    "frozen",
    "restored",
    "stepping",
]


class StatefulCall(NamedTuple):
    """A call that goes on from a state: of a layer, or of the past steps of a causal convolution.

    `owner` says how many numbers the state has: the layer, or what a stream does for the module.
    """

    step: Step
    owner: Any

    def zeros(self, batch_size: int) -> tuple[Array, ...]:
        """Return the state of new streams."""
        owner, dtype = self.owner, self.step.module.dtype
        sizes = [owner._outputs, owner._hidden][: len(owner._state_parts)]
        return tuple(np.zeros((owner.num_layers, batch_size, size), dtype) for size in sizes)


def calls_with_states(steps: Iterable[Step]) -> list[StatefulCall]:
    """Return those of some calls of a network that go on from a state in a stream, in order."""
    found = []
    for step in steps:
        if step.place is not None:
            owner = step.module._stream_stage(repr(step.module)) if step.past else step.module
            found.append(StatefulCall(step, owner))
    return found


class ModelStream:
    """A network of any shape, one step after the other, for a batch of independent rows.

    Made by ``model.stream(batch_size)``. Outputs with steps have the bits that the model gives for
    the whole sequence, however that is cut into `step` and `process`. Outputs without steps, such
    as those of a final state, are what the model would give for the steps so far.

    It keeps the weights that the model had when it was made, and shares them with the other
    streams made since they changed. It is for one thread at a time: a call while another one runs
    is a RuntimeError. Streams pickle and deep-copy, weights and states included.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> a, b = lc.Input(3), lc.Input(2)
    >>> y, h = lc.GRU(5, 4, seed=0)(lc.concat([a, b]))
    >>> model = lc.Model([a, b], {"next": lc.Linear(4, 3, seed=1)(y) + a, "state": h[-1]})
    >>> stream = model.stream(batch_size=2)
    >>> y = stream.step(np.ones((2, 3), "float32"), np.ones((2, 2), "float32"))
    >>> y["next"].shape, y["state"].shape
    ((2, 3), (2, 4))
    """

    def __init__(self, model: Model, batch_size: int = 1) -> None:
        batch_size = counted(batch_size, "batch_size")
        check_streamable(model, model._plan.steps)
        self._open(frozen(model), batch_size)

    def _open(self, model: Model, batch_size: int) -> None:
        self._model, self._batch_size = model, batch_size
        self._may_lack_batch = batch_size == 1
        self._plan = model._plan
        self._steps = self._plan.steps  # the calls that are made at every step
        # Values that are there without them, by slot, and where the rows of those end.
        self._known: dict[int, Any] = {}
        self._ends: dict[int, Lengths | None] = {}
        self._begin(batch_size)

    def _begin(self, batch_size: int) -> None:
        """Set the states before the first step."""
        self._calls = calls_with_states(self._steps)
        self._places = {id(call.step): place for place, call in enumerate(self._calls)}
        # Of these calls. Arrays of states are replaced and never written to, so that copies can
        # share them.
        self._states: list[tuple[Array, ...]] = [call.zeros(batch_size) for call in self._calls]
        # Which rows have taken a step since their reset, where the network gives the initial state.
        self._begun: list[npt.NDArray[np.bool_] | None] = [
            np.zeros(batch_size, np.bool_) if step.wired else None for step, _ in self._calls
        ]
        self._lock = threading.Lock()

    @property
    def batch_size(self) -> int:
        """How many rows the batch has."""
        return self._batch_size

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the parameters; None if there are none."""
        return self._model.dtype

    def step(self, *x: Any) -> Any:
        """Take one step.

        Parameters
        ----------
        *x : array_like, or tuple or dict of them
            In the structure of the model's inputs; if that is a list, they may be given one by one.
            Each is (B, F), or (B,) of ids; with a batch of 1, all may be given without B.

        Returns
        -------
        y : ndarray, or tuple or dict of them
            In the structure of the model's outputs, each (B, F).

        Raises
        ------
        ValueError, TypeError
            If x does not fit; nothing has changed then.
        """
        return self._call(x, False)

    def process(self, *x: Any) -> Any:
        """Take several steps at once.

        Parameters
        ----------
        *x : array_like, or tuple or dict of them
            As of `step`, with (T, B, F) for inputs with steps, **whatever batch_first says**.

        Returns
        -------
        y : ndarray, or tuple or dict of them
            (T, B, F) for outputs with steps; others are those of the last step.

        Raises
        ------
        ValueError, TypeError
            If x does not fit; nothing has changed then.
        """
        return self._call(x, True)

    @property
    def state(self) -> Any:
        """The states, as copies; assigning sets them.

        A tuple with that of every recurrent layer in the order of the calls, as the layer takes and
        gives it: h, (num_layers, B, P), and of an LSTM a pair (h, c); of a causal `Conv1D` the past
        steps that it needs, (steps, B, features). None, for all or one of them,
        is that of a new stream: zeros, or what the network gives at the next step. So it is None
        for a layer whose initial state the network gives, before its first step.
        """
        found: list[Any] = []
        for i, (parts, begun) in enumerate(zip(self._states, self._begun, strict=True)):
            if begun is not None and not begun.all():
                if begun.any():
                    raise RuntimeError(
                        f"state[{i}] is not known for rows {np.flatnonzero(~begun).tolist()}: the "
                        "network gives it at their next step"
                    )
                found.append(None)
                continue
            copies = tuple(part.copy() for part in parts)
            found.append(copies if len(copies) > 1 else copies[0])
        return tuple(found)

    @state.setter
    def state(self, value: Any) -> None:
        count = len(self._states)
        value = [None] * count if value is None else value
        check_entries(value, count, "state", f"a tuple of {count}, one per layer")
        made = []
        for i, (call, one) in enumerate(zip(self._calls, value, strict=True)):
            dtype = call.step.module.dtype
            given = state_parts(call.owner, one, self._batch_size, f"state[{i}]", dtype)
            pairs = zip(call.zeros(self._batch_size), given, strict=False)
            made.append(tuple(z if part is None else part.copy() for z, part in pairs))
        with self._alone():
            self._states = made
            self._begun = [
                None if begun is None else np.full_like(begun, one is not None)
                for begun, one in zip(self._begun, value, strict=True)
            ]

    def reset(self, rows: Any = None) -> None:
        """Begin anew.

        Parameters
        ----------
        rows : int, sequence of int or (B,) of bool, optional
            Of which rows of the batch; of all if not given.
        """
        chosen = chosen_rows(rows, self._batch_size)
        with self._alone():
            self._states = [
                tuple(_cleared(part, chosen) for part in parts) for parts in self._states
            ]
            for begun in self._begun:
                if begun is not None:
                    begun[chosen] = False

    def copy(self) -> ModelStream:
        """Return a stream that goes on from the same states by itself; the weights are shared."""
        return restored(type(self), *self._content())

    def __copy__(self) -> ModelStream:
        return self.copy()

    def __deepcopy__(self, memo: object) -> ModelStream:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        return restored, (type(self), *self._content())

    def _content(self) -> tuple[Any, ...]:
        begun = [None if one is None else one.copy() for one in self._begun]
        return self._model, self._batch_size, list(self._states), begun

    def __repr__(self) -> str:
        return f"<ModelStream of {self._model!r}, batch_size={self._batch_size}>"

    # One call -------------------------------------------------------------------------------------

    def _alone(self) -> _Alone:
        return _Alone(self._lock)

    def _call(self, x: tuple[Any, ...], blocks: bool) -> Any:
        with self._alone():
            arrays, batched = self._arrays(x[0] if len(x) == 1 else x, blocks)
            swap = self._model.batch_first
            values: list[Any] = []
            for array, (axes, _) in zip(arrays, self._plan.given, strict=True):
                array = array if batched else np.expand_dims(array, int(blocks and axes.steps))
                if axes.steps:
                    array = array if blocks else array[None]
                    array = array.swapaxes(0, 1) if swap else array
                values.append(array)
            made = self._run(values)
        outputs = []
        for slot, y in zip(self._plan.last, made, strict=True):
            axes = self._plan.axes[slot]
            if axes.steps:
                y = y.swapaxes(0, 1) if swap else y
                y = y if blocks else y[0]
            else:
                y = y.copy()  # it may be a state
            lead = bool(axes.states) or (blocks and axes.steps)
            outputs.append(y if batched else y.take(0, int(lead)))
        return rebuilt(self._plan.outputs, iter(outputs))

    def _run(self, values: list[Any]) -> list[Any]:
        """Compute all calls for values laid out as the model takes them, and go on from there."""
        plan = self._plan
        values = [*values, *[None] * (plan.count - len(values))]
        for slot, value in self._known.items():
            values[slot] = value
        flow = Flow([None] * len(self._calls), None, None, self._model.batch_first)
        states = list(self._states)
        for step in self._steps:
            args = rebuilt(step.args, (None if x is None else values[x] for x in step.xs))
            if self._ends:
                flow.lengths = self._ends.get(step.given[0]) if step.given else None
            place = self._places.get(id(step))
            if place is not None and step.past:
                (flow.states[place],) = states[place]
            elif place is not None:
                args = (args[0], self._initial(place, args[1]))
            y, _ = step.module._apply_all(args, flow, False)
            if place is not None:
                states[place] = tuple(leaves(flow.final[-1]))
            made = [y] if len(step.outs) == 1 else leaves(y)
            for slot, value in zip(step.outs, made, strict=True):
                values[slot] = value
            for slot in step.frees:
                values[slot] = None
        self._states = states
        for begun in self._begun:
            if begun is not None:
                begun.fill(True)
        return [values[slot] for slot in plan.last]

    def _initial(self, place: int, wired: Any) -> Any:
        """Return the state from which a layer goes on, given what the network says it begins with.

        That counts for rows that have not begun.
        """
        parts, begun = self._states[place], self._begun[place]
        if begun is not None and not begun.all():
            given = leaves(wired) if isinstance(wired, (tuple, list)) else [wired]
            parts = tuple(
                np.where(begun[:, None], part, 0 if one is None else one)
                for part, one in zip(parts, given, strict=True)
            )
        return parts if len(parts) > 1 else parts[0]

    def _arrays(self, x: Any, blocks: bool) -> tuple[list[Any], bool]:
        """Return the inputs as arrays, and whether they have the axis of the batch."""
        arrays: list[Any] = []
        all_batched = True
        first_time: tuple[str, int] | None = None
        for (name, one), (axes, dtype) in zip(
            self._plan.arrays(x, "x"), self._plan.given, strict=True
        ):
            array = self._model._array(one, name, axes, dtype)
            timed = blocks and axes.steps
            features = () if axes.features is None else (axes.features,)
            lead: tuple[int, ...] = array.shape[:1] if timed else ()
            batched = array.shape == (*lead, self._batch_size, *features)
            alone = self._may_lack_batch and array.shape == (*lead, *features)
            if not arrays:
                all_batched = batched
            if not (batched or alone) or (timed and not array.ndim) or batched != all_batched:
                text = self._shape_text(features, timed, all_batched or not arrays)
                raise ValueError(f"{name} has shape {array.shape}, expected {text}")
            if timed:
                first_time = first_time or (name, lead[0])
                if lead[0] != first_time[1]:
                    before, steps = first_time
                    raise ValueError(f"{name} has {lead[0]} steps, expected {steps}, as {before}")
            arrays.append(array)
        return arrays, all_batched

    def _shape_text(self, features: tuple[int, ...], timed: bool, batched: bool) -> str:
        """Return what messages say is expected of an input."""
        sizes = ["T"] * timed + [str(self._batch_size)] * batched + [str(n) for n in features]
        text = f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
        text = text if features else f"ids, {text}"
        return f"{text}, or without the batch" if batched and self._may_lack_batch else text


class SourcedStream(ModelStream):
    """A network of which some inputs are read whole, before the others take their first step.

    So the decoder of an encoder-decoder that is wired by its states goes on from the encoder's.

    Parameters
    ----------
    model : Model
    x : list of arrays
        All inputs, batched; of those with steps, only the sources are read.
    lengths : structure of integer arrays
        As the model takes it, of the sources.
    batch_size : int
    """

    def __init__(self, model: Model, x: list[Any], lengths: Any, batch_size: int) -> None:
        going = stepping(model._plan)
        before, after = model._plan.apart(going)
        made = frozenset(y for step in before for y in step.outs)
        check_streamable(model, after, made | model._plan.sources)
        self._open(frozen(model), batch_size)
        plan = self._plan
        before, self._steps = plan.apart(going)
        self._begin(batch_size)
        before = [copy.copy(step) for step in before]
        for step in before:
            step.frees = []  # what the others need, which may stand in front of it
        needed = {x for step in self._steps for x in step.xs} | set(plan.last)
        slots = sorted(made & needed)
        flow = Flow([None] * len(plan.stateful), None, None, self._model.batch_first)
        part = SimpleNamespace(steps=before, last=slots, count=plan.count, finds=plan.finds)
        none: list[Any] = [None] * len(x)
        ends = none if lengths is None else self._model._lengths(lengths, x)
        values, found, _ = executor.forward(part, x, ends, none, flow, False)  # type: ignore[arg-type]
        self._known = dict(zip(slots, values, strict=True))
        for slot, end in zip(slots, found, strict=True):
            self._ends[slot] = None if end.lengths is None else Lengths(end.lengths)
        self._ends |= {slot: ends[slot] for slot in plan.sources}


def stepping(plan: Plan) -> set[int]:
    """The inputs with steps that a `SourcedStream` takes step by step."""
    return {i for i, (axes, _) in enumerate(plan.given) if axes.steps} - plan.sources


class _Alone:
    """Lets one thread in, and refuses others meanwhile."""

    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("the stream is in use by another thread, expected one for each")

    def __exit__(self, *error: object) -> None:
        self._lock.release()


def restored(
    cls: type[ModelStream], model: Model, batch_size: int, states: Any = None, begun: Any = None
) -> ModelStream:
    """Return a stream of a model that nobody changes, from these states or from zeros."""
    stream = cls.__new__(cls)
    stream._open(model, batch_size)
    if states is not None:
        stream._states, stream._begun = states, begun
    return stream


def _cleared(part: Array, rows: list[int]) -> Array:
    part = part.copy()
    part[:, rows] = 0
    return part


def check_streamable(model: Model, steps: list[Step], known: frozenset[int] = frozenset()) -> None:
    """Refuse a model with one of these calls that needs other steps than those so far.

    `known` are the slots of values that are there before the first.
    """
    plan = model._plan
    names = {id(module): name for name, module in model._children.items()}

    def called(step: Step) -> str:
        name = names.get(id(step.module))
        return f"module {name}, {step.module!r}," if name else repr(step.module)

    for step in steps:
        if step.module._needs_whole_sequence:
            raise ValueError(f"{called(step)} needs the whole sequence, which a stream lacks")
        timed = any(x is not None and plan.axes[x].steps for x in step.xs)
        stepped = [x for x in step.xs if x is not None and plan.axes[x].steps]
        if not known.isdisjoint(stepped):
            query = step.module._steps_of if step.module._each_query else None
            if query is None or [x for x in stepped if x not in known] != [step.xs[query]]:
                raise TypeError(
                    f"{called(step)} takes all steps of one input beside single ones of another, "
                    "expected an attention that asks the first with a query for each of the second"
                )
            continue
        single = step.place is not None or isinstance(step.module, Operation)
        if timed and step.module._looks_back:
            step.module._stream_stage(called(step))  # refuses where nothing carries the past steps
        elif timed and not (single or step.module.each_step):
            raise TypeError(
                f"{called(step)} cannot be streamed: it may need other steps than the one it is "
                "given: its each_step is False; set it to True if each step of y comes of the same "
                "step of x alone"
            )
    ahead = plan.ahead_in(steps)
    if ahead is not None:
        raise ValueError(
            f"{called(ahead)} takes what comes of all steps back into them, so it needs the whole "
            "sequence, which a stream lacks"
        )


def frozen(model: Model) -> Model:
    """Return a copy of a model as it is now; streams share it until the parameters change."""
    return whole(model, lambda: _frozen(model))


def _frozen(model: Model) -> Model:
    parameters = model.parameters()
    # As in PacksWeights: the tokens are read before the copy is made, and no copy is kept while
    # somebody holds an array through which a parameter can change.
    tokens = [p._watch.token for p in parameters]
    found: Model | None = model._streamed and model._streamed[1]()
    if found is not None and all(a is b for a, b in zip(tokens, model._streamed[0], strict=True)):
        return found
    # Modules of somebody else's may have more than parameters that can change.
    own = any(overridden(step.module) for step in model._plan.steps)
    keep = settled(parameters) and not own
    made = copy.deepcopy(model)
    model._streamed = (tokens, weakref.ref(made)) if keep else None
    return made
