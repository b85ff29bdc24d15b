"""Model: a network of any shape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from .._base import checks
from .._base.checks import Array, Lengths
from .._base.flow import BackwardFlow, Ends, Flow
from .._base.loads import whole
from .._base.low_precision import PrecisionOfParts
from .._base.module import Module, overridden, storable
from .._base.symbolic import Axes, Symbolic
from .._base.tree import leaves, matched, rebuilt
from .._nn.streams.pool import StreamPool, open_pool
from .._nn.streams.stream import Stream, open_stream
from .._nn.tape import check_owner
from . import executor
from .operations import Operation
from .plan import Plan, replay
from .pool import ModelStreamPool
from .stream import ModelStream
from .summary import table

__all__ = ["Model", "ModelTape"]


class ModelTape:
    """What ``Model.forward`` remembers for one `backward`, which uses it up."""

    __slots__ = ("__weakref__", "_found", "_given", "_made", "_owner", "state", "tapes")

    state: tuple[Any, ...]
    """The final states, one per recurrent layer whose initial state is not wired, or Conv1D."""
    tapes: list[Any]
    """The tape of every call, in order, until `backward` has used them."""

    def __init__(
        self,
        owner: Model,
        tapes: list[Any],
        state: tuple[Any, ...],
        found: list[Ends],
        given: list[Any],
        made: list[Any],
    ) -> None:
        self._owner, self.tapes, self.state, self._found = owner, tapes, state, found
        self._given = [(a.shape, a.dtype) for a in given]
        self._made = [(a.shape, a.dtype) for a in made]

    @property
    def lengths(self) -> Any:
        """Where the rows of each output end, in their structure; None where they have all steps."""
        return rebuilt(self._owner._plan.outputs, (ends.lengths for ends in self._found))

    @property
    def _ends(self) -> Any:
        return self._owner._ends(self._found)

    @property
    def nbytes(self) -> int:
        """The memory it holds, in bytes, without what goes from one module to the next."""
        return sum(getattr(tape, "nbytes", 0) for tape in self.tapes)

    def __repr__(self) -> str:
        return f"<ModelTape of {len(self.tapes)} calls, {self.nbytes} bytes>"


@storable
class Model(PrecisionOfParts):
    """A network of any shape, described by calling modules with symbols.

    The same expressions that compute with arrays describe a network when they are given `Input`
    symbols: calls of modules, ``y, (h, c) = lstm(x, state)``, sums, differences and products,
    parts of states and features, `concat` and `repeat`. A model of the inputs and of what came of
    them is a module like any other.

    Parameters
    ----------
    inputs : Input, or list or dict of them
    outputs : symbol, or list or dict of them
        What comes of the inputs. All of these are needed for it.
    output_names : sequence of str, optional
        Of a list of outputs: what each is called in files. Those of a dict have its names.

    Raises
    ------
    ValueError
        If an input is missing or not needed, dtypes or batch_first of modules differ, or names do
        not fit.
    TypeError
        If something is no symbol.

    Notes
    -----
    Arrays are given and returned in the structures of inputs and outputs; where all inputs have a
    ``name``, a dict by these names will do, for lengths and resets too. Lengths, resets and what
    a `Masking` finds go with the values that they belong to; where values meet, they must be the
    same. States are those of the recurrent layers whose initial state the network does not give,
    in the order of their calls; those whose initial state it gives begin with that in every call,
    and go on in a `stream` alone. Among them are those of causal `Conv1D`, the past steps that
    they need. A module that is called several times has its parameters once, and
    adds its gradients. `backward` lets go of a tape as it uses it, so it can be used once.

    Parameters are named after the modules in the order of their first calls: "lstm.weight_ih_l0",
    "linear.weight", "linear_1.weight". A chain, in which each call takes what the one before gives,
    streams and exports as a `Sequential` does; `stream` says which other models stream.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> sequence, static = lc.Input(8), lc.Input(3, steps=False)
    >>> y, h = lc.GRU(8, 16, seed=0)(sequence)
    >>> summary = lc.concat([h[-1], static])
    >>> outputs = {"label": lc.Linear(19, 4, seed=1)(summary), "next": lc.Linear(16, 8, seed=2)(y)}
    >>> model = lc.Model([sequence, static], outputs)
    >>> x = [np.ones((5, 2, 8), "float32"), np.ones((2, 3), "float32")]
    >>> y, tape = model.forward(x, lengths=[5, 3])
    >>> y["label"].shape, y["next"].shape
    ((2, 4), (5, 2, 8))
    >>> dx = model.backward(tape, {"label": np.ones((2, 4), "float32"), "next": None})
    >>> [part.shape for part in dx]
    [(5, 2, 8), (2, 3)]
    """

    _applies_own = False

    def __init__(
        self, inputs: Any, outputs: Any, *, output_names: Sequence[str] | None = None
    ) -> None:
        self._plan = Plan(inputs, outputs)
        self._plan.output_names = self._names_of_outputs(output_names)
        modules: dict[int, Module] = {}
        for step in self._plan.steps:
            if not isinstance(step.module, Operation):
                modules[id(step.module)] = step.module
        self._children = _named(list(modules.values()))
        graph = self._plan.description(list(modules.values()))
        self._config = SimpleNamespace(graph=graph)
        self._dtype: np.dtype[Any] | None = self._common("dtype")
        self._batch_first = bool(self._common("batch_first"))
        self._whole = self._plan.reading_ahead is not None
        # The copy that streams share, and what the parameters were then; see stream.py.
        self._streamed: Any = None

    def _names_of_outputs(self, given: Any) -> list[str] | None:
        """Return what the outputs are called by the user."""
        if given is None:
            return None
        if isinstance(given, str) or not isinstance(given, Sequence):
            what = checks.describe(given)
            raise TypeError(f"output_names is {what}, expected a list of names")
        count = len(self._plan.last)
        proper = all(isinstance(name, str) and name for name in given)
        if not proper or len(given) != count or len(set(given)) < count:
            raise ValueError(
                f"output_names is {list(given)!r}, expected {count} names that differ, one for "
                "each output"
            )
        return list(given)

    @property
    def input_names(self) -> tuple[str, ...] | None:
        """What the inputs are called, in order; None if they have no names.

        Those of a model that `from_onnx` has made are the file's.
        """
        names = self._plan.input_names
        return None if names is None else tuple(names)

    @property
    def output_names(self) -> tuple[str, ...] | None:
        """What the outputs are called, in order, as `output_names` or a file said."""
        names = self._plan.output_names
        return None if names is None else tuple(names)

    def _common(self, option: str) -> Any:
        """Return what all modules have that have the option; None if none has."""
        found: list[tuple[str, Any]] = [
            (f"inputs{name[1:]}", dtype)
            for name, (_, dtype) in zip(self._plan.names, self._plan.given, strict=True)
            if option == "dtype" and dtype is not None
        ]
        names = {id(module): name for name, module in self._children.items()}
        for step in self._plan.steps:
            value = getattr(step.module, option, None)
            if value is None and option == "dtype":
                value = next((p.dtype for p in step.module.parameters()), None)
            if value is not None:
                name = names.get(id(step.module))
                what = f"module {name}, {step.module!r}," if name else repr(step.module)
                found.append((what, value))
        for what, value in found:
            if value != found[0][1]:
                raise ValueError(
                    f"{what} has {option}={value}, but {found[0][0]} has "
                    f"{option}={found[0][1]}: expected the same"
                )
        return found[0][1] if found else None

    # What the library asks of a module ------------------------------------------------------------

    @property
    def _takes_one_x(self) -> bool:  # type: ignore[override]
        return self._plan.inputs == 0 and self._one_y

    @property
    def _one_y(self) -> bool:
        return isinstance(self._plan.outputs, int)

    @property
    def _takes_ids(self) -> bool:  # type: ignore[override]
        return self._takes_one_x and self._plan.given[0][0].features is None

    @property
    def _knows_time(self) -> bool:  # type: ignore[override]
        return any(a.steps for a, _ in self._plan.given)

    @property
    def _keeps_time(self) -> bool:  # type: ignore[override]
        return any(self._plan.axes[y].steps for y in self._plan.last)

    @property
    def _moves_steps(self) -> bool:  # type: ignore[override]
        return any(step.module._moves_steps for step in self._plan.steps)

    @property
    def _finds_lengths(self) -> bool:  # type: ignore[override]
        several = len(self._plan.given) > 1  # whose lengths are those of y, only the model knows
        return several or self._plan.finds

    @property
    def _gives_probabilities(self) -> bool:  # type: ignore[override]
        return self._plan.outputs in self._plan.probabilities if self._one_y else False

    def _output_gives_probabilities(self, output: Any) -> bool:
        if output is None:
            return self._gives_probabilities
        outputs = self._plan.outputs
        names = outputs if isinstance(outputs, dict) else range(len(leaves(outputs)))
        return output in names and outputs[output] in self._plan.probabilities

    @property
    def _needs_whole_sequence(self) -> bool:  # type: ignore[override]
        return self._whole or any(step.module._needs_whole_sequence for step in self._plan.steps)

    @property
    def _network(self) -> Plan | None:
        return self._plan if self._plan.chain is None else None

    @property
    def _input_size(self) -> int | None:
        return self._plan.given[0][0].features if self._takes_one_x else None

    def _output_size(self, size: int | None) -> int | None:
        return self._plan.axes[self._plan.outputs].features if self._takes_one_x else None

    def _chain(self) -> list[tuple[str, Any]]:
        steps = self._plan.chain
        if steps is None:
            return [("", self)]
        names = {id(module): name for name, module in self._children.items()}
        return [(names[id(step.module)], step.module) for step in steps]

    def _given_steps(self) -> list[Module]:
        axes = self._plan.axes
        timed = (s for s in self._plan.steps if any(x is not None and axes[x].steps for x in s.xs))
        return [step.module for step in timed if not isinstance(step.module, Operation)]

    def _part_begun_within(self) -> Module | None:
        wired = next((step.module for step in self._plan.stateful if step.wired), None)
        return super()._part_begun_within() if wired is None else wired

    def _stateful(self, tape: Any = None) -> list[tuple[Any, Any]]:
        steps = self._plan.steps
        tapes = [None] * len(steps) if tape is None else self._unused(tape).tapes
        return [
            (step.module, one)
            for step, one in zip(steps, tapes, strict=True)
            if step.place is not None and not step.wired
        ]

    def _stream_stage(self, name: str) -> Any:
        raise ValueError(
            f"{name} is a Model that is no chain of modules, which a Sequential does not stream: "
            "call the Sequential with a lc.Input, and stream the lc.Model of what comes of it"
        )

    @property
    def batch_first(self) -> bool:
        """Whether arrays with steps are (B, T, ...): that of the modules."""
        return self._batch_first

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of all parameters; None if there are none."""
        return self._dtype

    # Forward and backward -------------------------------------------------------------------------

    def __call__(
        self,
        x: Any,
        state: Any = None,
        *others: Any,
        lengths: Any = None,
        resets: Any = None,
    ) -> Any:
        """Run for inference: no dropout, nothing remembered.

        Parameters
        ----------
        x : array_like, or tuple or dict of them
            In the structure of the inputs; if that is a list, and no state is given, they may be
            given one by one: ``model(x1, x2)``. Of what has steps, (T, B, F), or (B, T, F) if
            batch_first, or (T, F) unbatched; of ids, without the last axis; else (B, F), or (F,).
        state : sequence of states, optional
            One per recurrent layer whose initial state is not wired, or causal Conv1D, in order;
            None, for all or one of them, is zeros.
        *others : array_like
            Inputs from the third on, where they are given one by one.
        lengths : array_like of int, (B,), or a tuple or dict of them, optional
            How many steps each row has: of all inputs with steps, or in the structure of the
            inputs, with None for those that have all.
        resets : ndarray of bool, (T, B), or (B, T) if batch_first, or a tuple or dict, optional
            Where an episode or document starts; of all inputs with steps, or of each.

        Returns
        -------
        y : ndarray, or tuple or dict of them
            In the structure of the outputs.

        Raises
        ------
        ValueError, TypeError
            If an argument has another shape, dtype or range than it should, or lengths or resets
            are of no use to any module; it is named.
        """
        several = isinstance(self._plan.inputs, tuple) and not isinstance(x, (tuple, list))
        if others and not several:
            raise TypeError("more than x and state is given, expected the inputs one by one")
        if several and state is not None:
            x, state = (x, state, *others), None
        return self.run(x, state, lengths=lengths, resets=resets)[0]

    def _call_with_ends(self, x: Any, **options: Any) -> tuple[Any, Any]:
        state, lengths, resets = (options.get(name) for name in ("state", "lengths", "resets"))
        y, _, _, found, _ = self._infer(x, state, lengths, resets)
        return y, self._ends(found)

    def _ends(self, found: list[Ends]) -> Any:
        """Return where the rows of each output end, in their structure; None without steps."""
        slots = self._plan.last
        stepped = (self._plan.axes[slot].steps for slot in slots)
        return rebuilt(
            self._plan.outputs,
            iter([e if s else None for e, s in zip(found, stepped, strict=True)]),
        )

    def run(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """Run for inference as when called, and also return the final states.

        Returns
        -------
        y : ndarray, or tuple or dict of them
        state : tuple
            One per recurrent layer whose initial state is not wired, or causal Conv1D, in order.
        """
        if type(x) is not np.ndarray and any(isinstance(one, Symbolic) for one in leaves(x)):
            return self._describe(x, state, lengths, resets)
        y, flow, _, _, _ = self._infer(x, state, lengths, resets)
        return y, self._final(flow)

    def forward(
        self, x: Any, state: Any = None, *, lengths: Any = None, resets: Any = None
    ) -> tuple[Any, ModelTape]:
        """Run with dropout, and remember what `backward` needs.

        Parameters
        ----------
        x, state, lengths, resets
            As when the model is called.

        Returns
        -------
        y : ndarray, or tuple or dict of them
            In the structure of the outputs; read-only where a tape shares it.
        tape : ModelTape
            For `backward`. ``tape.state`` has the final states, to carry into the next call.
        """
        y, flow, tapes, found, given = self._compute(x, state, lengths, resets, True)
        return y, ModelTape(self, tapes, self._final(flow), found, given, leaves(y))

    def backward(self, tape: ModelTape, dy: Any) -> Any:
        """Backpropagate through the network: add to every parameter's gradient.

        Parameters
        ----------
        tape : ModelTape
            From `forward` of this very model; it is used up.
        dy : array_like, or tuple or dict of them
            Gradients with respect to y, in the structure of the outputs; None, for one or a whole
            part, is zeros.

        Returns
        -------
        dx : ndarray, or tuple or dict of them
            Gradients with respect to x, in the structure of the inputs; None for ids.
        """
        return self.backward_state(tape, dy)[0]

    def backward_state(
        self, tape: ModelTape, dy: Any, dstate: Any = None
    ) -> tuple[Any, tuple[Any, ...]]:
        """Backpropagate as `backward` does, through the states as well.

        Parameters
        ----------
        tape, dy
            As of `backward`.
        dstate : sequence of states, optional
            Gradients with respect to ``tape.state``; None, for all or one of them, is zeros.

        Returns
        -------
        dx : ndarray, or tuple or dict of them
        dstate : tuple
            Gradients with respect to the initial states; None for a layer that no gradient reached.
        """
        return self._backpropagate(tape, dy, dstate, True)

    def _add_gradients(self, tape: ModelTape, dy: Any) -> None:
        if type(self).backward is Model.backward:
            self._backpropagate(tape, dy, None, False)
        else:
            self.backward(tape, dy)

    def _backpropagate(
        self, tape: ModelTape, dy: Any, dstate: Any, needs_dx: bool
    ) -> tuple[Any, tuple[Any, ...]]:
        self._unused(tape)
        past: dict[Any, Any] = dict.fromkeys(s.place for s in self._plan.stateful if s.past)
        gradients = self._gradients(tape, dy, dstate, past)
        self._check_gradients()
        flow = BackwardFlow(list(past.values()))
        dx, states = executor.backward(self._plan, tape.tapes, gradients, flow, needs_dx)
        for i, ((axes, _), made) in enumerate(zip(self._plan.given, tape._given, strict=True)):
            if needs_dx and dx[i] is None and axes.features is not None:
                dx[i] = np.zeros(*made)
        return rebuilt(self._plan.inputs, iter(dx)), tuple(states)

    def _unused(self, tape: ModelTape) -> ModelTape:
        check_owner(tape, ModelTape, self)
        if len(tape.tapes) != len(self._plan.steps):
            raise ValueError("tape was used by backward already, expected one from a new forward")
        return tape

    def _gradients(self, tape: ModelTape, dy: Any, dstate: Any, past: dict[Any, Any]) -> list[Any]:
        """Return the gradients that are given, by slot; those of past steps are put into `past`."""
        gradients: list[Any] = [None] * self._plan.count

        def add(slot: int, given: Array) -> None:
            before = gradients[slot]
            gradients[slot] = given if before is None else before + given

        found = matched(self._plan.outputs, dy, "dy", none=True)
        slots = self._plan.last
        for slot, (shape, dtype), (name, one) in zip(slots, tape._made, found, strict=True):
            if one is None:
                continue
            if self._plan.axes[slot].shown:
                raise ValueError(f"{name} is of {self._plan.axes[slot]}, expected None")
            array = checks.real(one, dtype, name)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, expected {shape}, that of y")
            add(slot, array)
        if dstate is None:
            return gradients
        parts = self._states(dstate, "dstate")
        stateful = self._stateful(tape)
        for i, (step, (layer, one), part) in enumerate(
            zip(self._plan.free, stateful, parts, strict=False)
        ):
            if part is None:
                continue
            layer._check_dstate(part, one, i)
            if step.past:
                past[step.place] = part
                continue
            for slot, given in zip(leaves(step.ys[1]), leaves(part), strict=True):
                if given is not None:
                    add(slot, checks.real(given, layer.dtype, "dstate"))
        return gradients

    def _infer(
        self, x: Any, state: Any, lengths: Any, resets: Any
    ) -> tuple[Any, Flow, list[Any], list[Ends], list[Any]]:
        return whole(self, lambda: self._compute(x, state, lengths, resets, False))

    def _compute(
        self, x: Any, state: Any, lengths: Any, resets: Any, train: bool
    ) -> tuple[Any, Flow, list[Any], list[Ends], list[Any]]:
        """Return y, the flow, the tapes, where the rows of each y end, and the arrays of x."""
        plan = self._plan
        given = self._arrays(x)
        states: list[Any] = [None] * len(plan.stateful)
        if state is not None:
            states = plan.placed(self._states(state, "state"))
        ends = None if lengths is None else self._lengths(lengths, given)
        starts = None if resets is None else self._resets(resets, given)
        flow = Flow(states, None, None, self._batch_first)
        values, found, tapes = executor.forward(plan, given, ends, starts, flow, train)
        return rebuilt(plan.outputs, iter(values)), flow, tapes, found, given

    def _final(self, flow: Flow) -> tuple[Any, ...]:
        return tuple([flow.final[place] for place in self._plan.free_places])

    def _states(self, state: Any, name: str) -> list[Any]:
        """Return the state, or None, of every module that has one which is not wired."""
        count = len(self._plan.free)
        if not isinstance(state, (tuple, list)):
            what = checks.describe(state)
            raise TypeError(f"{name} is {what}, expected a tuple of {count}, one per layer")
        if len(state) != count:
            raise ValueError(
                f"{name} has {len(state)} entries, expected {count}, one per recurrent layer or "
                "causal Conv1D"
            )
        return list(state)

    def _arrays(self, x: Any, what: str = "x") -> list[Any]:
        """Return the inputs as arrays of the right dtypes and shapes; messages call them `what`."""
        arrays: list[Any] = []
        sizes: dict[str, tuple[str, int]] = {}  # what must be the same: of which input it is known
        for (name, one), (axes, dtype), last in zip(
            self._plan.arrays(x, what), self._plan.given, self._plan.tails, strict=True
        ):
            array = self._array(one, name, axes, dtype)
            rank = axes.steps + 1 + len(last)
            tail = array.shape[array.ndim - len(last) :]
            wrong = tail != last and any(
                n not in (None, m) for n, m in zip(last, tail, strict=False)
            )
            if array.ndim not in (rank, rank - 1) or wrong:
                raise ValueError(f"{name} has shape {array.shape}, expected {self._text(axes)}")
            batch = (
                -1 if array.ndim < rank else array.shape[int(axes.steps and not self._batch_first)]
            )
            first, expected = sizes.setdefault("batch", (name, batch))
            if batch != expected:
                have, want = (f"{n} rows" if n >= 0 else "no batch" for n in (batch, expected))
                raise ValueError(f"{name} has {have}, expected {want}, as {first} has")
            arrays.append(array)
        return arrays

    def _array(self, x: Any, name: str, axes: Axes, dtype: np.dtype[Any] | None) -> Any:
        """Return what is given for an input as an array of its dtype."""
        if axes.features is None:
            return checks.integers(x, name)
        dtype = dtype or self._dtype
        return checks.floating(x, name) if dtype is None else checks.real(x, dtype, name)

    def _text(self, axes: Axes) -> str:
        text, time = str(axes), "T, B"
        if axes.steps and self._batch_first:
            text = text.replace(time, "B, T")
        return f"{text}, or without B"

    def _lengths(self, lengths: Any, given: list[Any]) -> list[Lengths | None]:
        """Return where the rows of every input end."""
        made: dict[tuple[int, int], Lengths] = {}  # inputs with the same share one
        found: list[Lengths | None] = []
        for i, one in enumerate(self._of_inputs(lengths, "lengths", self._plan.lengths_used)):
            if one is None:
                found.append(None)
                continue
            time, batch, batched = self._grid(i, given[i])
            if (id(one), time) not in made:
                rows = Lengths(one)
                try:
                    checked = rows.checked(batch, time, batched, self._plan.names[i])
                except ValueError as error:
                    if one is not lengths or len(self._plan.given) == 1:
                        raise
                    hint = "one array is for all inputs; in their structure each has its own"
                    raise ValueError(f"{error}: {hint}") from error
                made[id(one), time] = rows if batched else Lengths(checked.reshape(()))
            found.append(made[id(one), time])
        return found

    def _resets(self, resets: Any, given: list[Any]) -> list[Any]:
        """Return the resets of every input."""
        found = self._of_inputs(resets, "resets", self._plan.resets_used)
        for i, one in enumerate(found):
            if one is not None:
                time, batch, batched = self._grid(i, given[i])
                grid = (batch, time) if self._batch_first else (time, batch)
                text = ("(B, T)" if self._batch_first else "(T, B)") if batched else "(T,)"
                found[i] = checks.resets(one, grid if batched else (time,), text)
        return found

    def _grid(self, i: int, array: Any) -> tuple[int, int, bool]:
        """Return T and B of an input with steps, and whether it is batched."""
        axes = self._plan.given[i][0]
        batched = array.ndim == 2 + (axes.features is not None) + len(axes.inner)
        if not batched:
            return array.shape[0], 1, False
        time, batch = array.shape[1::-1] if self._batch_first else array.shape[:2]
        return time, batch, True

    def _of_inputs(self, value: Any, name: str, used: set[int]) -> list[Any]:
        """Return lengths or resets of every input, and refuse those that nothing uses."""
        plan = self._plan
        found: list[Any] = [None] * len(plan.given)
        if value is None:
            return found
        several = not isinstance(plan.inputs, int) or isinstance(value, Mapping)
        bare = not isinstance(value, (tuple, list, dict)) or (
            not isinstance(value, dict) and all(isinstance(n, (int, np.integer)) for n in value)
        )
        if not several or bare:
            if not used:
                raise ValueError(f"{name} is given, but nothing in the model uses it")
            return [value if axes.steps else None for axes, _ in plan.given]
        for i, (where, one) in enumerate(plan.arrays(value, name, none=True)):
            if one is not None and i not in used:
                steps = "" if plan.given[i][0].steps else ": it has no steps"
                raise ValueError(
                    f"{where} is given, but nothing in the model uses it for {plan.names[i]}{steps}"
                )
            found[i] = one
        return found

    # In another network ---------------------------------------------------------------------------

    def _describe(
        self, x: Any, state: Any, lengths: Any, resets: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Do what `run` does, but of symbols: call the same modules with them."""
        for name, one in (("lengths", lengths), ("resets", resets)):
            if one is not None:
                raise TypeError(f"{name} is given, expected it when the whole model is called")
        given = []
        for (name, one), (axes, _) in zip(self._plan.arrays(x, "x"), self._plan.given, strict=True):
            checks.check_one(one, name)
            if getattr(one, "axes", None) != axes:
                raise ValueError(f"{name} is {one!r}, expected {axes}")
            given.append(one)
        states = [None] * len(self._plan.free) if state is None else self._states(state, "state")
        y, final = replay(self._plan, given, states)
        return y, tuple(final)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Any, Any]:
        count, place = len(self._plan.free), len(flow.final)
        states = self._plan.placed(flow.states[place : place + count])
        inside = Flow(states, None, None, flow.batch_first)
        given = self._arrays(x)
        values, found, tapes = executor.forward(
            self._plan, given, [flow.lengths], [flow.resets], inside, train
        )
        (y,) = values
        final = self._final(inside)
        flow.final += final
        if self._finds_lengths:
            flow.ends = found[0]
            flow.lengths = Lengths(flow.ends.lengths)
        if not train:
            return y, None
        return y, ModelTape(self, tapes, final, [], given, [y])

    def _check_tape(self, tape: Any) -> None:
        self._unused(tape)

    def _apply_backward(self, tape: Any, dy: Any, flow: BackwardFlow) -> Any:
        count = len(self._plan.free)
        dstate = flow.final[len(flow.final) - count :]
        del flow.final[len(flow.final) - count :]
        dx, initial = self.backward_state(tape, dy, dstate)
        flow.initial += reversed(initial)
        return dx

    def stream(self, batch_size: int = 1) -> Stream | ModelStream:
        """Return a stream: the model one step at a time, with its states kept.

        Parameters
        ----------
        batch_size : int, default 1
            Rows of the batch, each with states of its own.

        Returns
        -------
        Stream or ModelStream
            Of a chain the stream of a `Sequential`, which the core computes alone. Else one that
            takes and gives what the model does, without T: ``stream.step(x1, x2)``.

        Raises
        ------
        ValueError
            If a module needs the whole sequence: a bidirectional or reverse layer, pooling, `Flip`
            or `Masking`, or one that takes what comes of all steps back into them, as a decoder
            takes an encoder's final state. It is named.
        TypeError
            If a module may need other steps than the one that it is given, as an attention does,
            or one of your own whose ``each_step`` is not True.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> x = lc.Input(3)
        >>> model = lc.Model(x, x + lc.GRU(3, 3, seed=0)(x)[0])
        >>> stream = model.stream(batch_size=2)
        >>> values = np.ones((4, 2, 3), dtype="float32")
        >>> y = [stream.step(one) for one in values]
        >>> np.array_equal(y, model(values))
        True
        """
        return (
            open_stream(self, batch_size)
            if self._streams_as_chain
            else ModelStream(self, batch_size)
        )

    def stream_pool(self, capacity: int) -> StreamPool | ModelStreamPool:
        """Return a pool: streams that come and go, any of which take a step together.

        Parameters
        ----------
        capacity : int
            How many streams may be open at once.

        Returns
        -------
        StreamPool or ModelStreamPool
            Of a chain the pool of a `Sequential`, which the core computes alone. Else one that
            takes and gives what the model does, without T: ``pool.step(ids, x1, x2)``.

        Raises
        ------
        ValueError, TypeError
            As `stream` does, and if capacity is less than 1 or no int.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> x = lc.Input(3)
        >>> pool = lc.Model(x, x + lc.GRU(3, 3, seed=0)(x)[0]).stream_pool(capacity=1000)
        >>> ids = [pool.open() for _ in range(5)]
        >>> pool.step(ids[2:], np.ones((3, 3), dtype="float32")).shape
        (3, 3)
        """
        return (
            open_pool(self, capacity) if self._streams_as_chain else ModelStreamPool(self, capacity)
        )

    @property
    def _streams_as_chain(self) -> bool:
        chain = self._plan.chain
        return chain is not None and not any(overridden(step.module) for step in chain)

    def summary(self) -> None:
        """Print a table of the calls: module, shape of its y, number of parameters, what it takes.

        Examples
        --------
        >>> import lstmcore as lc
        >>> x = lc.Input(8)
        >>> y, h = lc.GRU(8, 16)(x)
        >>> lc.Model(x, lc.Linear(16, 8)(y) + x).summary()
        name    module         gives                   parameters  takes
        x                      (T, B, 8)
        gru     GRU(8, 16)     (T, B, 16), (1, B, 16)        1248  x
        linear  Linear(16, 8)  (T, B, 8)                      136  gru
        binary  a + b          (T, B, 8)                           linear, x
        1384 parameters
        """
        print(table(self._plan, self._children, self.num_parameters))

    def __repr__(self) -> str:
        return self._nested()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_streamed": None}

    # Files ----------------------------------------------------------------------------------------

    def _options(self) -> dict[str, Any]:
        modules = [child._description() for child in self._children.values()]
        made = {"modules": modules, "graph": self._config.graph}
        names = [self._plan.input_names, self._plan.output_names]
        return made if names == [None, None] else {**made, "names": names}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Model:
        names = options.get("names")
        if names is None:
            names = None, None
        elif not isinstance(names, list) or len(names) != 2:
            raise ValueError(f"names are {names!r}, expected those of inputs and of outputs")
        inputs, outputs = Plan.symbols(options["graph"], options["modules"], names[0])
        return cls(inputs, outputs, output_names=names[1])


def _named(modules: list[Module]) -> dict[str, Module]:
    """Name modules after their classes: linear, linear_1, linear_2."""
    named: dict[str, Module] = {}
    for module in modules:
        kind = name = type(module).__name__.lower()
        count = 0
        while name in named:
            count += 1
            name = f"{kind}_{count}"
        named[name] = module
    return named
