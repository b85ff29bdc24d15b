"""Sequential: modules one after the other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.flow import BackwardFlow, Ends, Flow
from .._base.loads import whole
from .._base.low_precision import PrecisionOfParts
from .._base.module import Module, check_own, overridden, storable
from .._base.symbolic import Symbolic
from .streams.pool import StreamPool, open_pool
from .streams.stream import Stream, open_stream
from .tape import check_owner

__all__ = ["Sequential", "SequentialTape", "as_sequential"]


class SequentialTape:
    """What ``Sequential.forward`` remembers for ``backward``: the tapes of its modules.

    It can be used as often as those can, which is once if a `Model` that is no chain is among them.
    """

    __slots__ = ("__weakref__", "_ends", "_owner", "state", "tapes")

    state: tuple[Any, ...]
    """The final states, one per recurrent layer or causal Conv1D, in order."""
    tapes: tuple[Any, ...]
    """The tape of every module, in order, those of nested ones in their place."""

    def __init__(
        self,
        owner: Sequential,
        tapes: tuple[Any, ...],
        state: tuple[Any, ...],
        ends: Ends | None = None,
    ) -> None:
        self._owner = owner
        self._ends = ends  # where rows end, if a Masking has found out
        self.tapes = tapes
        self.state = state

    @property
    def nbytes(self) -> int:
        """The memory it holds, in bytes, without what goes from one module to the next."""
        # Tapes of modules that are not this library's may not say how large they are.
        return sum(getattr(tape, "nbytes", 0) for tape in self.tapes)

    def __repr__(self) -> str:
        return f"<SequentialTape of {len(self.tapes)} modules, {self.nbytes} bytes>"


@storable
class Sequential(PrecisionOfParts):
    """Modules one after the other: each gets what the one before it gives.

    Recurrent layers hand on their y; their states are a tuple beside it, one per recurrent layer
    in order, each as the layer itself takes and gives it. Among them is that of a causal `Conv1D`,
    the past steps that it needs, (steps, B, features). `lengths` and `resets` go to the modules
    that take them: recurrent layers, and `lengths` to pooling and `Flip`. A `Masking` finds lengths
    for the modules after it. Modules may be Sequentials themselves; cells and attention take more
    than one x and cannot stand here.

    Parameters
    ----------
    *modules : Module
        At least one. All with parameters have the same dtype, all recurrent layers the same
        batch_first, which pooling follows. An Embedding can only be the first, but for Masking.

    Raises
    ------
    ValueError
        If there is no module, or they cannot follow each other: sizes, dtypes or batch_first
        differ, or a module needs time steps where pooling has left none.
    TypeError
        If something is not a module that makes one y of one x, or is a recurrent layer, pooling,
        `Flip`, `Masking` or Sequential with a ``forward`` or ``__call__`` of your own.

    Notes
    -----
    Parameters have PyTorch's names, such as ``"0.weight_ih_l0"``. The modules are ``model[i]``, a
    slice is a Sequential of the same modules, and ``len(model)`` is how many there are.
    Classes derived from modules that know no time, such as Linear, Embedding or Tanh, may have a
    ``forward`` and ``__call__`` of their own, which are called.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.GRU(3, 8, seed=0), lc.LastStep(), lc.Linear(8, 2, seed=1))
    >>> model
    Sequential(
      (0): GRU(3, 8)
      (1): LastStep()
      (2): Linear(8, 2)
    )
    >>> x = np.ones((5, 4, 3), dtype="float32")
    >>> model(x, lengths=[5, 2, 1, 0]).shape
    (4, 2)
    >>> y, tape = model.forward(x)
    >>> model.backward(tape, np.ones_like(y)).shape, len(tape.state), tape.state[0].shape
    ((5, 4, 3), 1, (1, 4, 8))
    """

    _applies_own = False

    def __init__(self, *modules: Module) -> None:
        if not modules:
            raise ValueError("modules is empty, expected at least one")
        module: Any
        for i, module in enumerate(modules):
            if not isinstance(module, Module):
                what = checks.describe(module)
                listed = isinstance(module, (list, tuple))
                hint = ": of a list, Sequential(*modules)" if listed else ""
                raise TypeError(f"modules[{i}] is {what}, expected a module{hint}")
            if not module._takes_one_x and module._network is not None:
                raise TypeError(
                    f"modules[{i}] is a {type(module).__name__} of several inputs or outputs, "
                    "expected one of each: make an lc.Model of it and of what goes before and "
                    "behind, by calling them with symbols"
                )
            if not module._takes_one_x:
                raise TypeError(
                    f"modules[{i}] is {module!r}, which takes more than one x: call it in a loop "
                    "of your own, or take a layer (LSTM rather than LSTMCell)"
                )
            check_own(module)
            own = None if module._applies_own else overridden(module)
            if own:
                raise TypeError(
                    f"modules[{i}] is a {type(module).__qualname__}, whose own {own} a Sequential "
                    "does not call, expected a module that computes as lstmcore's do"
                )
        self._config = None
        self._children = {str(i): module for i, module in enumerate(modules)}
        self._steps: list[tuple[str, Any]] = list(_flat(self._children))  # without containers
        after = [module._takes_lookup for _, module in self._steps[1:]]
        # What follows in the network, and whether what it makes is the network's own: of modules
        # of this library it is, others may want to write to theirs again.
        self._plan = [
            (module, feeds, overridden(module) is None)
            for (_, module), feeds in zip(self._steps, [*after, False], strict=True)
        ]
        # The first that has something to train: backward of those before it would give nothing
        # but dx.
        trained = (i for i, (_, m) in enumerate(self._steps) if m._named() or overridden(m))
        self._first_trained = next(trained, len(self._steps))
        self._recurrent = [layer for _, m in self._steps for layer, _ in m._stateful()]
        self._check_twice()
        self._dtype: np.dtype[Any] | None = self._common("dtype")
        self._batch_first = bool(self._common("batch_first"))
        self._has_ids = any(module._takes_ids for _, module in self._steps)
        self._check_order()

    def _check_twice(self) -> None:
        owners: dict[int, str] = {}
        for path, module in self._steps:
            if module._named() and owners.setdefault(id(module), path) != path:
                raise ValueError(
                    f"modules {owners[id(module)]} and {path} are the same {module!r}, expected "
                    "every module with parameters once"
                )

    def _common(self, option: str) -> Any:
        """Return what all modules have that have the option; None if none has."""
        found: list[tuple[str, Module, Any]] = [
            (path, module, getattr(module, option))
            for path, module in self._steps
            if getattr(module, option, None) is not None
        ]
        for path, module, value in found:
            first_path, first, expected = found[0]
            if value != expected:
                raise ValueError(
                    f"module {path}, {module!r}, has {option}={value}, but module {first_path}, "
                    f"{first!r}, has {option}={expected}: expected the same"
                )
        return found[0][2] if found else None

    def _check_order(self) -> None:
        size: int | None = None  # of the last axis of what the modules so far give
        pooled = ""
        found = ""  # where lengths are found
        for i, (path, module) in enumerate(self._steps):
            if i > bool(found) and module._takes_ids:  # behind a Masking it is the second
                raise ValueError(f"module {path}, {module!r}, takes ids: expected it first")
            if module._finds_lengths:
                if found:
                    raise ValueError(f"modules {found} and {path} are Maskings, expected one")
                found = path
            if pooled and module._knows_time:
                raise ValueError(
                    f"module {path}, {module!r}, needs time steps, but module {pooled} leaves none"
                )
            if module._makes_time:
                pooled = ""
            elif not module._keeps_time:
                pooled = f"{path}, {module!r},"
            if size is not None and module._input_size not in (None, size):
                raise ValueError(
                    f"module {path}, {module!r}, takes {module._input_size} features, but the "
                    f"module before it gives {size}"
                )
            size = module._output_size(size)

    @property
    def _takes_ids(self) -> bool:  # type: ignore[override]
        return bool(self._steps[0][1]._takes_ids)

    @property
    def _knows_time(self) -> bool:  # type: ignore[override]
        return any(module._knows_time for _, module in self._steps)

    @property
    def _keeps_time(self) -> bool:  # type: ignore[override]
        last = [m._makes_time for _, m in self._steps if m._makes_time or not m._keeps_time]
        return not last or last[-1]

    @property
    def _moves_steps(self) -> bool:  # type: ignore[override]
        return any(module._moves_steps for _, module in self._steps)

    @property
    def _finds_lengths(self) -> bool:  # type: ignore[override]
        return any(m._finds_lengths or m._changes_lengths for _, m in self._steps)

    @property
    def _gives_probabilities(self) -> bool:  # type: ignore[override]
        # Pooling and Flip leave probabilities what they are.
        for _, module in reversed(self._steps):
            if module._gives_state or module._children or not module._knows_time:
                return bool(module._gives_probabilities)
        return False

    @property
    def _needs_whole_sequence(self) -> bool:  # type: ignore[override]
        return any(module._needs_whole_sequence for _, module in self._steps)

    def _chain(self) -> list[tuple[str, Any]]:
        return self._steps

    def _given_steps(self) -> Iterator[Module]:
        timed = True
        for _, module in self._steps:
            if timed:
                yield module
            timed = module._makes_time or (timed and module._keeps_time)

    @property
    def batch_first(self) -> bool:
        """Whether x and y are (B, T, ...): that of the recurrent layers."""
        return self._batch_first

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of all parameters; None if there are none."""
        return self._dtype

    @property
    def _input_size(self) -> int | None:
        size: int | None = self._steps[0][1]._input_size
        return size

    def _output_size(self, size: int | None) -> int | None:
        for _, module in self._steps:
            size = module._output_size(size)
        return size

    def __call__(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> Array:
        """Run for inference: no dropout, nothing remembered.

        Parameters
        ----------
        x : array_like
            As the first module takes it: (T, B, I), or (B, T, I) if batch_first, or (T, I)
            unbatched; ids without the last axis for an Embedding.
        state : sequence of states, optional
            One per recurrent layer or causal Conv1D, in order; None, for all or one of them, is
            zeros.
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many steps each row has, 0 to T.
        resets : array_like of bool, (T, B), or (B, T) if batch_first, or (T,) unbatched, optional
            Where an episode or document starts: no state crosses from the step before.

        Returns
        -------
        y : ndarray
            What the last module gives.
        """
        if isinstance(x, Symbolic):
            y: Array = self._describe(x, state, lengths, resets)[0]
            return y
        return self._infer(x, state, lengths, resets)[0]

    def _call_with_ends(self, x: Any, **options: Any) -> tuple[Any, Ends | None]:
        if overridden(self):
            return self(x, **options), None
        given = (options.get(name) for name in ("state", "lengths", "resets"))
        y, flow, _ = self._infer(x, *given)
        return y, flow.ends

    def run(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, tuple[Any, ...]]:
        """Run for inference as when called, and also return the final states.

        Returns
        -------
        y : ndarray
        state : tuple
            One per recurrent layer or causal Conv1D, in order.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> model = lc.Sequential(lc.GRU(3, 8, seed=0), lc.Linear(8, 2, seed=1))
        >>> x = np.ones((6, 4, 3), dtype="float32")
        >>> y, state = model.run(x[:2])
        >>> rest = model(x[2:], state)
        >>> np.allclose(rest, model(x)[2:], atol=1e-6)
        True
        """
        if isinstance(x, Symbolic):
            return self._describe(x, state, lengths, resets)
        y, flow, _ = self._infer(x, state, lengths, resets)
        return y, tuple(flow.final)

    def forward(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, SequentialTape]:
        """Run with dropout, and remember what `backward` needs.

        Parameters
        ----------
        x, state, lengths, resets
            As when the model is called.

        Returns
        -------
        y : ndarray
            What the last module gives; read-only if its tape shares it.
        tape : SequentialTape
            For `backward`. ``tape.state`` has the final states, to carry into the next call.
        """
        y, flow, tapes = self._compute(x, state, lengths, resets, True)
        return y, SequentialTape(self, tapes, tuple(flow.final), flow.ends)

    def backward(self, tape: SequentialTape, dy: npt.ArrayLike | None) -> Array | None:
        """Backpropagate through all modules: add to every parameter's gradient.

        Parameters
        ----------
        tape : SequentialTape
            From `forward` of this very model.
        dy : array_like, shaped like y
            Gradient with respect to y.

        Returns
        -------
        dx : ndarray, shaped like x
            Gradient with respect to x; None for a model that begins with an Embedding.
        """
        return self.backward_state(tape, dy)[0]

    def backward_state(
        self, tape: SequentialTape, dy: npt.ArrayLike | None, dstate: Any = None
    ) -> tuple[Array | None, tuple[Any, ...]]:
        """Backpropagate as `backward` does, through the states as well.

        Parameters
        ----------
        tape, dy
            As of `backward`. dy may be None, for zeros, if the last module is recurrent.
        dstate : sequence of states, optional
            Gradients with respect to ``tape.state``; None, for all or one of them, is zeros.

        Returns
        -------
        dx : ndarray, shaped like x, or None
        dstate : tuple
            Gradients with respect to the initial states.
        """
        return self._backpropagate(tape, dy, dstate, True)

    def _add_gradients(self, tape: SequentialTape, dy: Any) -> None:
        if type(self).backward is Sequential.backward:
            self._backpropagate(tape, dy, None, False)
        else:
            self.backward(tape, dy)

    def _backpropagate(
        self, tape: SequentialTape, dy: Any, dstate: Any, needs_dx: bool
    ) -> tuple[Any, tuple[Any, ...]]:
        check_owner(tape, SequentialTape, self)
        flow = BackwardFlow([None] * len(self._recurrent))
        if dstate is not None:
            flow.final = self._states(dstate, "dstate")
            self._check_dstate(flow.final, tape)
        for (_, module), t in zip(self._steps, tape.tapes, strict=True):
            module._check_tape(t)
        self._check_gradients()
        dx: Any = dy
        first = 0 if needs_dx else self._first_trained
        for i in range(len(self._steps) - 1, first - 1, -1):
            flow.needs_dx = needs_dx or i > first
            dx = self._steps[i][1]._apply_backward(tape.tapes[i], dx, flow)
        return dx, tuple(reversed(flow.initial))

    def _check_dstate(self, dstate: list[Any], tape: SequentialTape) -> None:
        """Refuse wrong gradients of states before any gradient is added to."""
        steps = zip(self._steps, tape.tapes, strict=True)
        tapes = [pair for (_, m), t in steps for pair in m._stateful(t)]
        for i, ((layer, t), part) in enumerate(zip(tapes, dstate, strict=True)):
            if part is not None:
                layer._check_dstate(part, t, i)

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a stream: the model one step at a time, with its states kept.

        Parameters
        ----------
        batch_size : int, default 1
            Rows of the batch, each with states of its own.

        Returns
        -------
        Stream
            In a state of zeros. It keeps the weights that the model has now. With an Embedding it
            takes ids, (B,) or (T, B), instead of features.

        Raises
        ------
        ValueError
            If a module needs the whole sequence: a bidirectional or reverse layer, pooling, `Flip`
            or `Masking`.
        TypeError
            If a module is of a class that computes in its own way.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> model = lc.Sequential(lc.GRU(2, 8, seed=0), lc.Linear(8, 3), lc.Softmax())
        >>> stream = model.stream(batch_size=4)
        >>> stream.step(np.ones((4, 2), dtype="float32")).shape
        (4, 3)
        """
        return open_stream(self, batch_size)

    def stream_pool(self, capacity: int) -> StreamPool:
        """Return a pool: streams that come and go, any of which take a step together.

        Parameters
        ----------
        capacity : int
            How many streams may be open at once.

        Returns
        -------
        StreamPool
            Without a stream yet. It keeps the weights that the model has now. With an Embedding
            x is ids, (n,), instead of features.

        Raises
        ------
        ValueError, TypeError
            As `stream` does, and if capacity is less than 1 or no int.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> pool = lc.Sequential(lc.GRU(2, 8, seed=0), lc.Linear(8, 3)).stream_pool(capacity=1000)
        >>> ids = [pool.open() for _ in range(5)]
        >>> pool.step(ids[2:], np.ones((3, 2), dtype="float32")).shape
        (3, 3)
        """
        return open_pool(self, capacity)

    def _infer(
        self, x: Any, state: Any, lengths: Any, resets: Any
    ) -> tuple[Array, Flow, tuple[Any, ...]]:
        return whole(self, lambda: self._compute(x, state, lengths, resets, False))

    def _compute(
        self, x: Any, state: Any, lengths: Any, resets: Any, train: bool
    ) -> tuple[Array, Flow, tuple[Any, ...]]:
        """Return y, the flow (with final states, and lengths as given or found) and the tapes."""
        states = [None] * len(self._recurrent) if state is None else self._states(state, "state")
        flow = Flow(states, lengths, resets, self._batch_first)
        if resets is not None and self._moves_steps:
            moves = next(module for _, module in self._steps if module._moves_steps)
            raise ValueError(f"resets cannot be given to a model with {moves!r}, which moves steps")
        if self._dtype is not None and not self._has_ids:
            x = checks.real(x, self._dtype, "x")
        tapes = []
        own = False  # whether x is an array that nobody else has
        for module, feeds_lookup, ours in self._plan:
            flow.feeds_lookup = feeds_lookup
            if train and own:
                x.flags.writeable = False  # so that no tape needs a copy of it
            y, tape = module._apply(x, flow, train)
            own = ours and (own or y is not x)
            x = y
            tapes.append(tape)
        return x, flow, tuple(tapes)

    def _describe(
        self, x: Any, state: Any, lengths: Any, resets: Any
    ) -> tuple[Any, tuple[Any, ...]]:
        """Do what `run` does, but of symbols."""
        states = iter(
            [None] * len(self._recurrent) if state is None else self._states(state, "state")
        )
        final = []
        for _, module in self._steps:
            mine = [next(states) for _ in module._stateful()]
            if module._gives_state:
                x, after = module(x, *mine, lengths=lengths, resets=resets)
                final.append(after)
            elif module._past_steps:
                if mine != [None]:
                    raise TypeError(f"state of {module!r} is given, expected None for a symbol")
                x = module(x, lengths=lengths)
                final.append(None)
            elif mine:
                x, after = module.run(x, mine, lengths=lengths, resets=resets)
                final += after
            else:
                x = module(x, lengths=lengths) if module._knows_time else module(x)
            if isinstance(x, tuple):  # of a Masking
                x, lengths = x
            elif module._changes_lengths:
                lengths = None  # its y has its own
        return x, tuple(final)

    def _states(self, state: Any, name: str) -> list[Any]:
        """Return the state, or None, of every module that has one."""
        count = len(self._recurrent)
        if not isinstance(state, (tuple, list)):
            what = checks.describe(state)
            raise TypeError(f"{name} is {what}, expected a tuple of {count}, one per layer")
        if len(state) != count:
            raise ValueError(
                f"{name} has {len(state)} entries, expected {count}, one per recurrent layer or "
                "causal Conv1D"
            )
        return list(state)

    def _options(self) -> dict[str, Any]:
        return {"modules": [child._description() for child in self._children.values()]}

    @classmethod
    def _from_options(cls, options: dict[str, Any]) -> Sequential:
        return cls(*options["modules"])

    def __len__(self) -> int:
        return len(self._children)

    def __iter__(self) -> Iterator[Module]:
        return iter(self._children.values())

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Sequential: ...
    def __getitem__(self, index: int | slice) -> Module:
        chosen = list(self._children.values())[index]
        return Sequential(*chosen) if isinstance(chosen, list) else chosen


def as_sequential(model: Any) -> Any:
    """Return a model that gives y alone: of a recurrent layer a Sequential, else the model."""
    return Sequential(model) if isinstance(model, Module) and model._gives_state else model


def _flat(children: Any) -> Iterator[tuple[str, Module]]:
    """Yield path and module of all that compute, those of nested Sequentials in their place."""
    for name, child in children.items():
        for path, module in child._chain():
            yield f"{name}.{path}" if path else name, module
