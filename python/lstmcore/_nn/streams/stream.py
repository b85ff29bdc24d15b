"""Streams: a layer or a model that is given one step at a time and keeps its state."""

from __future__ import annotations

import contextlib
import copy
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ... import _core
from ..._base import checks
from ..._base.checks import Array
from ..._base.module import Module
from .chain import Chained
from .frozen import Frozen, PythonStage, counted, embedded, freeze, sections, sizes_of
from .states import chosen_rows

__all__ = ["Stream", "open_stream"]


class Stream(_core.Stream, Chained):
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

    _KIND = "stream"
    _COUNT = "batch_size"

    def __init__(self, module: Module, batch_size: int = 1) -> None:
        batch_size = counted(batch_size, "batch_size")
        frozen = freeze(module)
        if any(f.in_python for f in frozen):
            raise TypeError(f"module is {module!r}, of which module.stream() makes a stream")
        self._make(frozen, module._gives_state, batch_size)

    def _start(self, frozen: list[Frozen], batch_size: int, dtype: np.dtype[Any]) -> None:
        stages = [f.stage for f in frozen if f.stage is not None]
        _core.Stream.__init__(self, stages, batch_size, dtype == np.float64)

    @property
    def state(self) -> Any:
        """The state, as a copy; assigning sets it.

        As the layer takes and gives it: h, (num_layers, B, P), and of an LSTM a pair (h, c), c
        (num_layers, B, H); of a model a tuple of these, one per recurrent layer. None, for all or a
        part, is zeros.
        """
        return self._joined(self._get_states())

    @state.setter
    def state(self, value: Any) -> None:
        self._set_states(self._split_rows(value, self.batch_size))

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
            shape = (*x.shape[:-1], self.output_size)
            x = checks.out(x, out, shape, self._dtype)
        return x, out


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

    def _start(self, frozen: list[Frozen], batch_size: int, dtype: np.dtype[Any]) -> None:
        self._busy = threading.Lock()
        self._rows = batch_size
        self._sections = sections(
            frozen,
            lambda stages: _CorePart(stages, batch_size, dtype == np.float64),
            lambda stage: _PythonPart(stage, batch_size, dtype),
        )
        self._sizes = sizes_of(frozen)

    @property
    def batch_size(self) -> int:
        """Rows of the batch."""
        return self._rows

    @property
    def input_size(self) -> int:
        """Features of x."""
        return self._sizes[0]

    @property
    def output_size(self) -> int:
        """Features of y."""
        return self._sizes[1]

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


class _TakesIds(Stream):
    """A stream of a model that begins with an Embedding: of ids, (B,) or (T, B)."""

    def step(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        return super().step(self._vectors(x, 0, ""), out)

    def process(self, x: npt.ArrayLike, out: Array | None = None) -> Array:
        return super().process(self._vectors(x, 1, "T, "), out)

    def _vectors(self, x: npt.ArrayLike, lead: int, time: str) -> Array:
        shape, batch = checks._asarray(x, "x").shape, self.batch_size
        unbatched = batch == 1 and len(shape) == lead
        if not (unbatched or (len(shape) == lead + 1 and shape[lead] == batch)):
            expected = f"({time}{batch}{'' if lead else ','})"
            if batch == 1:
                expected += " or (T,)" if lead else " or ()"
            raise ValueError(f"x has shape {shape}, expected ids, {expected}")
        return embedded(self._frozen, x)


class _IdStream(_TakesIds):
    pass


class _PartedIdStream(_TakesIds, _PartedStream):
    pass


def open_stream(module: Any, batch_size: int) -> Stream:
    """Return a stream of a layer or of a model."""
    batch_size = counted(batch_size, "batch_size")
    frozen = freeze(module)
    if any(f.in_python for f in frozen):
        kind: type[Stream] = _PartedIdStream if module._takes_ids else _PartedStream
    else:
        kind = _IdStream if module._takes_ids else Stream
    return _opened(kind, frozen, module._gives_state, batch_size)


def _opened(cls: type[Stream], frozen: list[Frozen], bare: bool, batch_size: int) -> Stream:
    stream = cls.__new__(cls)
    stream._make(frozen, bare, batch_size)
    return stream


def _restore(
    cls: type[Stream], frozen: list[Frozen], bare: bool, batch_size: int, states: Any
) -> Stream:
    stream = _opened(cls, frozen, bare, batch_size)
    stream._set_states(states)
    return stream
