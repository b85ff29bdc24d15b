"""Streams: a layer or a model that is given one step at a time and keeps its state."""

from __future__ import annotations

import contextlib
import copy
import itertools
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.machine import memory_limit
from .._base.module import Module, overridden
from .._base.parameter import settled

__all__ = [
    "MOST_ROWS",
    "PythonStage",
    "Stream",
    "check_entries",
    "chosen_rows",
    "open_stream",
    "state_parts",
]

MOST_ROWS = 2**31 - 1


class Stream(_core.Stream):
    """A layer or model, one step after the other, for a batch of independent rows.

    Made by ``layer.stream(batch_size)`` or ``model.stream(batch_size)``. The outputs of a layer are
    those of the layer over the whole sequence, to the bit, however it is cut into `step` and
    `process`. So are those of a Sequential.

    A stream keeps the weights that its layer had when it was made, and shares them with the other
    streams made since they changed; later changes are for later streams. It computes on the calling
    thread alone, and is for one thread at a time: a call while another one runs is a RuntimeError.
    Calls longer than a few microseconds release the GIL.

    Modules that the core does not know, such as `GELU` and `Conv1D`, run in Python between streams
    of the core. A step then allocates, and each of them costs it some microseconds more.

    x and y are time-major, **(T, B, features), whatever batch_first says**. Streams pickle and
    deep-copy, weights and state included.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5, seed=0)
    >>> x = np.random.default_rng(0).standard_normal((7, 1, 3)).astype("float32")
    >>> stream = lstm.stream()
    >>> y = np.concatenate([stream.step(x[0])[None], stream.process(x[1:])])
    >>> np.array_equal(y, lstm(x)[0])
    True
    """

    def __init__(self, module: Module, batch_size: int = 1) -> None:
        frozen = _freeze(module, batch_size)
        if any(f.in_python for f in frozen):
            raise TypeError(f"module is {module!r}, of which module.stream() makes a stream")
        self._open(frozen, module._gives_state, batch_size)

    def _open(self, frozen: list[_Frozen], bare: bool, batch_size: int) -> None:
        """Make the stream of the core. `bare`: the state is that of one layer, not a tuple."""
        if "_frozen" in self.__dict__:
            raise RuntimeError("this stream is made already, expected a new one")
        modules = [f.module for f in frozen]
        layers = [m for m in modules if m._gives_state]
        sized = [m for m in modules if m._input_size is not None]
        if not sized:
            raise ValueError("a stream needs a recurrent layer, a Linear or a LayerNorm")
        dtype: np.dtype[Any] = sized[0].dtype
        try:
            # The size of states and gates, roughly. A large allocation may succeed, and have the
            # process killed when it is written to.
            row = sum(6 * m.num_layers * m._hidden for m in layers) * dtype.itemsize
            size = batch_size * row
            if size > 2**28 and size > memory_limit():
                raise MemoryError
            self._start(frozen, batch_size, dtype)
        except MemoryError:
            raise MemoryError(
                f"batch_size is {batch_size}, which needs more memory than this process may use"
            ) from None
        self._frozen = frozen
        self._bare = bare
        self._layers: list[Any] = [f.state_of for f in frozen if f.state_of is not None]
        self._dtype = dtype

    def _start(self, frozen: list[_Frozen], batch_size: int, dtype: np.dtype[Any]) -> None:
        stages = [f.stage for f in frozen if f.stage is not None]
        super().__init__(stages, batch_size, dtype == np.float64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of x and y."""
        return self._dtype

    @property
    def state(self) -> Any:
        """The state, as a copy; assigning sets it.

        As the layer takes and gives it: h, (num_layers, B, P), and of an LSTM a pair (h, c), c
        (num_layers, B, H); of a model a tuple of these, one per recurrent layer. None, for all or a
        part, is zeros.
        """
        states = self._get_states()
        found = [
            (h, c) if len(layer._state_parts) == 2 else h
            for layer, (h, c) in zip(self._layers, states, strict=True)
        ]
        return found[0] if self._bare else tuple(found)

    @state.setter
    def state(self, value: Any) -> None:
        if self._bare:
            self._set_states(
                [state_parts(self._layers[0], value, self.batch_size, "state", self._dtype)]
            )
            return
        count = len(self._layers)
        if value is None:
            value = [None] * count
        check_entries(value, count, "state", f"a tuple of {count}, one per layer")
        self._set_states(
            [
                state_parts(layer, v, self.batch_size, f"state[{i}]", self._dtype)
                for i, (layer, v) in enumerate(zip(self._layers, value, strict=True))
            ]
        )

    def reset(self, rows: int | Sequence[int] | npt.NDArray[Any] | None = None) -> None:
        """Set the state to zeros.

        Parameters
        ----------
        rows : int, sequence of int or (B,) of bool, optional
            Of which rows of the batch; of all if not given.
        """
        return self._reset_rows(chosen_rows(rows, self.batch_size))

    def copy(self) -> Stream:
        """Return a stream that goes on from the same state by itself; the weights are shared."""
        other = type(self).__new__(type(self))
        _core.Stream.__init__(other, self)
        other.__dict__.update(self.__dict__)
        return other

    def __copy__(self) -> Stream:
        return self.copy()

    def __deepcopy__(self, memo: object) -> Stream:
        return self.copy()

    def __reduce__(self) -> tuple[Any, ...]:
        states = self._get_states()
        return _restore, (type(self), self._frozen, self._bare, self.batch_size, states)

    def __repr__(self) -> str:
        modules = ", ".join(repr(f.module) for f in self._frozen)
        return f"<Stream of {modules}, batch_size={self.batch_size}>"

    def _convert(self, x: Any, out: Any, blocks: bool) -> tuple[Array, Array | None]:
        """Return x and out as the core takes them: of `process` if `blocks`, else of `step`."""
        lead, time = (1, "T, ") if blocks else (0, "")  # axes in front of the batch
        x = checks.real(x, self._dtype, "x")
        batch, inputs = self.batch_size, self.input_size
        unbatched = batch == 1 and x.shape[lead:] == (inputs,)
        if x.ndim < lead or not (unbatched or x.shape[lead:] == (batch, inputs)):
            expected = f"({time}{batch}, {inputs})"
            if batch == 1:
                expected += f" or ({time}{inputs}{'' if blocks else ','})"
            raise ValueError(f"x has shape {x.shape}, expected {expected}")
        if not (x.flags.c_contiguous and x.flags.aligned):
            x = x.copy(order="C")
        if out is not None:
            x = self._convert_out(x, out)
        return x, out

    def _convert_out(self, x: Array, out: Any) -> Array:
        shape = (*x.shape[:-1], self.output_size)
        if not isinstance(out, np.ndarray):
            raise TypeError(f"out is {checks.describe(out)}, expected an ndarray")
        if out.dtype != self._dtype:
            raise TypeError(f"out has dtype {out.dtype}, expected {self._dtype}")
        if out.shape != shape:
            raise ValueError(f"out has shape {out.shape}, expected {shape}")
        flags = out.flags
        if not (flags.c_contiguous and flags.aligned and flags.writeable):
            raise ValueError("out is read-only or not contiguous, expected an array to write to")
        return x.copy() if np.may_share_memory(x, out) else x


class PythonStage:
    """What a module that the core does not know does in a stream.

    Parameters
    ----------
    function : callable
        Is called with steps. One whose y at a step needs `past` steps of x before it is called with
        these in front of the others, and gives y for the others alone.
    past : int, default 0
        How many; zeros at first.
    features : int, default 0
        Of x, if there are past steps.
    """

    _state_parts = ("h",)  # of the past steps, (past, B, features), as of a recurrent layer

    def __init__(self, function: Any, past: int = 0, features: int = 0) -> None:
        self.function = function
        self.past = self.num_layers = past
        self._outputs = self._hidden = features


class _PythonPart:
    """A stage in Python at work: between streams of the core, and used as one."""

    def __init__(self, stage: PythonStage, batch_size: int, dtype: np.dtype[Any]) -> None:
        self._stage = stage
        self._past = np.zeros((stage.past, batch_size, stage._outputs), dtype)

    def process(self, x: Array) -> Array:
        if self._stage.past:
            x = np.concatenate([self._past, x])
            self._past = x[len(x) - self._stage.past :].copy()
        y: Array = self._stage.function(x)
        return y

    def copy(self) -> _PythonPart:
        """Return a part that goes on from the same state by itself."""
        return copy.copy(self)  # `process` replaces the past, and writes into none

    def _get_states(self) -> list[tuple[Array, None]]:
        return [(self._past.copy(), None)] if self._stage.past else []

    def _set_states(self, states: list[tuple[Array | None, None]]) -> None:
        for past, _ in states:
            self._past = np.zeros_like(self._past) if past is None else past.copy()

    def _reset_rows(self, rows: list[int]) -> None:
        self._past = self._past.copy()
        self._past[:, rows] = 0


class _CorePart(_core.Stream):
    """A stream of the core for some of the modules."""

    def copy(self) -> _CorePart:
        """Return a stream that goes on from the same state by itself."""
        return _CorePart(self)


class _PartedStream(Stream):
    """A stream of which some modules run in Python. It has parts, and is no stream of the core."""

    def _start(self, frozen: list[_Frozen], batch_size: int, dtype: np.dtype[Any]) -> None:
        self._busy = threading.Lock()
        self._rows = batch_size
        self._sections = _sections([f for f in frozen if f.stage is not None], batch_size, dtype)
        size: int | None = next(f.module._input_size for f in frozen if f.module._input_size)
        self._sizes: list[Any] = [size]
        for f in frozen:
            size = f.module._output_size(size)
        self._sizes.append(size)

    @property
    def batch_size(self) -> int:
        """Rows of the batch."""
        return self._rows

    @property
    def input_size(self) -> int:
        """Features of x."""
        size: int = self._sizes[0]
        return size

    @property
    def output_size(self) -> int:
        """Features of y."""
        size: int = self._sizes[1]
        return size

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        given, out = self._convert(x, out, False)
        return self._run(given, given[None], out)

    def process(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        given, out = self._convert(x, out, True)
        return self._run(given, given, out)

    def _run(self, x: Array, steps: Array, out: Array | None) -> Array:
        steps = steps.reshape(len(steps), self._rows, self.input_size)
        with self._turn():
            for section in self._sections:
                steps = section.process(steps)
        y = steps.reshape(*x.shape[:-1], self.output_size)
        if out is None:
            return y
        out[...] = y
        return out

    @contextlib.contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise RuntimeError(
                "the stream is in use by another thread, expected one for each thread"
            )
        try:
            yield
        finally:
            self._busy.release()

    def _get_states(self) -> list[tuple[Array, Array | None]]:
        with self._turn():
            return [state for section in self._sections for state in section._get_states()]

    def _set_states(self, states: Sequence[tuple[Array | None, Array | None]]) -> None:
        rest = list(states)
        with self._turn():
            for section in self._sections:
                count = len(section._get_states())
                section._set_states(rest[:count])
                del rest[:count]

    def _reset_rows(self, rows: Sequence[int]) -> None:
        with self._turn():
            for section in self._sections:
                section._reset_rows(rows)

    def copy(self) -> Stream:
        other = type(self).__new__(type(self))
        with self._turn():
            sections = [section.copy() for section in self._sections]
        other.__dict__.update(self.__dict__, _busy=threading.Lock(), _sections=sections)
        return other


def _sections(frozen: list[_Frozen], batch_size: int, dtype: np.dtype[Any]) -> list[Any]:
    """Return streams of the core for the modules that it knows, and what runs between them."""
    found: list[Any] = []
    for in_python, some in itertools.groupby(frozen, lambda f: f.in_python):
        group = list(some)
        if not in_python and any(f.module._input_size is not None for f in group):
            found.append(_CorePart([f.stage for f in group], batch_size, dtype == np.float64))
            continue
        # Activations alone fit any size, of which the core makes no stream.
        stages = [f.stage if in_python else PythonStage(f.module) for f in group]
        found += [_PythonPart(stage, batch_size, dtype) for stage in stages]
    return found


class _TakesIds(Stream):
    """A stream of a model that begins with an Embedding: of ids, (B,) or (T, B)."""

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        return super().step(self._vectors(x, 0, ""), out)

    def process(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        return super().process(self._vectors(x, 1, "T, "), out)

    def _vectors(self, x: npt.ArrayLike, lead: int, time: str) -> Array:
        embedding: Any = self._frozen[0].module
        shape, batch = checks._asarray(x, "x").shape, self.batch_size
        unbatched = batch == 1 and len(shape) == lead
        if not (unbatched or (len(shape) == lead + 1 and shape[lead] == batch)):
            expected = f"({time}{batch}{'' if lead else ','})"
            if batch == 1:
                expected += " or (T,)" if lead else " or ()"
            raise ValueError(f"x has shape {shape}, expected ids, {expected}")
        vectors: Array = embedding(x)
        return vectors


def chosen_rows(rows: Any, batch_size: int) -> list[int]:
    """Return the rows of a batch that are meant: numbers, or bools for each; None is all."""
    if rows is None:
        return list(range(batch_size))
    chosen = np.atleast_1d(checks._asarray(rows, "rows"))
    if chosen.dtype == np.bool_ and chosen.shape == (batch_size,):
        chosen = np.flatnonzero(chosen)
    elif chosen.size == 0:
        chosen = np.empty(0, np.int64)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        what = f"dtype {chosen.dtype} and shape {chosen.shape}"
        raise TypeError(f"rows has {what}, expected integers, or ({batch_size},) bools")
    if ((chosen < 0) | (chosen >= batch_size)).any():
        raise ValueError(f"rows is {rows}, expected 0 to {batch_size - 1}")
    found: list[int] = chosen.tolist()
    return found


def state_parts(
    layer: Any, value: Any, batch_size: int, name: str, dtype: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return h and c of the state of a layer, as the core wants them."""
    rows = (layer.num_layers, batch_size)

    def part(value: Any, size: int, name: str) -> Array | None:
        if value is None:
            return None
        axes = f"(num_layers, B, {'H' if size == layer._hidden else 'P'})"
        return checks.contiguous(value, (*rows, size), dtype, name, axes)

    if len(layer._state_parts) == 1:
        return part(value, layer._outputs, name), None
    if value is None:
        return None, None
    check_entries(value, 2, name, "a pair (h, c)")
    h, c = value
    return part(h, layer._outputs, f"h of {name}"), part(c, layer._hidden, f"c of {name}")


def check_entries(value: Any, count: int, name: str, expected: str) -> None:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} is {checks.describe(value)}, expected {expected}")
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries, expected {expected}")


class _IdStream(_TakesIds):
    pass


class _PartedIdStream(_TakesIds, _PartedStream):
    pass


def open_stream(module: Any, batch_size: int) -> Stream:
    """Return a stream of a layer or of a model."""
    frozen = _freeze(module, batch_size)
    if any(f.in_python for f in frozen):
        kind: type[Stream] = _PartedIdStream if module._takes_ids else _PartedStream
    else:
        kind = _IdStream if module._takes_ids else Stream
    return _opened(kind, frozen, module._gives_state, batch_size)


def _opened(cls: type[Stream], frozen: list[_Frozen], bare: bool, batch_size: int) -> Stream:
    stream = cls.__new__(cls)
    stream._open(frozen, bare, batch_size)
    return stream


def _restore(
    cls: type[Stream], frozen: list[_Frozen], bare: bool, batch_size: int, states: Any
) -> Stream:
    stream = _opened(cls, frozen, bare, batch_size)
    stream._set_states(states)
    return stream


class _Frozen:
    """A copy of a module that nobody changes, and what the core does for it."""

    __slots__ = ("__weakref__", "module", "stage")

    def __init__(self, module: Any, name: str) -> None:
        self.module = module
        self.stage = module._stream_stage(name)

    @property
    def in_python(self) -> bool:
        """Whether it is something that the core does not know."""
        return isinstance(self.stage, PythonStage)

    @property
    def state_of(self) -> Any:
        """What has a state, as a recurrent layer has; None for nothing."""
        if self.module._gives_state:
            return self.module
        return self.stage if self.in_python and self.stage.past else None

    def __reduce__(self) -> tuple[Any, ...]:
        return _Frozen, (self.module, repr(self.module))


def _freeze(module: Any, batch_size: Any) -> list[_Frozen]:
    """Return copies of the modules of a layer or model, having checked what a stream is made of."""
    if checks.integer(batch_size, "batch_size", 1) > MOST_ROWS:
        raise ValueError(f"batch_size is {batch_size}, expected at most {MOST_ROWS}")
    if not (isinstance(module, Module) and callable(getattr(module, "stream", None))):
        what = checks.describe(module)
        raise TypeError(f"module is {what}, expected a recurrent layer or a Sequential")
    _check_own(module, "module")
    return [
        _frozen(m, f"module {path}, {m!r}," if path else f"{m!r}") for path, m in module._chain()
    ]


def _frozen(module: Any, name: str) -> _Frozen:
    """Return a copy of a module as it is now; streams share the copy until the module changes."""
    if module._needs_whole_sequence or not module._keeps_time:
        raise ValueError(f"{name} needs the whole sequence, which a stream does not have")
    if not module._takes_ids:  # an Embedding is called, so it may compute in its own way
        _check_own(module, name)
    if not (module._parameters or module._buffers):
        return _Frozen(module, name)
    watch = module._watch
    isa = _core.isa_version()
    token, version, made = watch.frozen
    found: _Frozen | None = made()
    if found is not None and token is watch.token and isa == version:
        return found
    # As in PacksWeights: read the token before the copy is made, and keep no copy while somebody
    # holds an array through which the weights can change.
    token = watch.token
    keep = settled(p for _, p in module._named())
    found = _Frozen(copy.deepcopy(module), name)
    if keep:
        watch.frozen = (token, isa, weakref.ref(found))
    return found


def _check_own(module: Module, name: str) -> None:
    own = overridden(module)
    if own:
        raise TypeError(
            f"{name} is a {type(module).__qualname__}, whose own {own} a stream does not call"
        )
