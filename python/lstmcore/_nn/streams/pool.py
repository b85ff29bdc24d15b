"""Pools: streams that come and go, any of which take a step together."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from ... import _core
from ..._base import checks
from ..._base.checks import Array
from ..._base.module import Module
from .chain import Chained
from .frozen import Frozen, PythonStage, counted, embedded, freeze, sections, sizes_of

__all__ = ["InPython", "Pool", "StreamPool", "open_pool"]

Ids = npt.NDArray[np.int64]


class Pool:
    """What all pools share: streams with numbers and states, which are opened and closed."""

    def open(self, state: Any = None) -> int:
        """Begin a new stream.

        Parameters
        ----------
        state : as `state` gives it, optional
            From which it goes on; None, for all or a part, is zeros.

        Returns
        -------
        id : int
            The number of the stream. No other stream of this pool has it, before or after.

        Raises
        ------
        RuntimeError
            If as many streams are open as the capacity.
        ValueError, TypeError
            If state does not fit; no stream is opened then.
        """
        states = None if state is None else self._split(state)
        id = self._open()
        if states is not None:
            self._set_states(id, states)
        return id

    def close(self, id: int) -> None:
        """End a stream: its place is free for another one, and its id is refused from now on.

        One that is in a step of another thread takes it to the end, and its place is free then.

        Parameters
        ----------
        id : int
            From `open`.

        Raises
        ------
        ValueError, TypeError
            If no open stream has this id.
        """
        self._close(_one_id(id))

    def state(self, id: int) -> Any:
        """Return a copy of the state of a stream, as ``stream(batch_size=1).state`` gives it.

        Parameters
        ----------
        id : int
            From `open`.

        Returns
        -------
        state : ndarray, or tuple
            Of a layer, h (num_layers, 1, P) and of an LSTM a pair (h, c), c (num_layers, 1, H); of
            a model a tuple of these, one per recurrent layer.

        Raises
        ------
        ValueError, TypeError
            If no open stream has this id.
        RuntimeError
            If another thread works with this stream now, as in a step.
        """
        return self._joined(self._get_states(_one_id(id)))

    def reset(self, ids: npt.ArrayLike) -> None:
        """Begin streams anew: their states become zero.

        Parameters
        ----------
        ids : int or array_like of int, (n,)
            From `open`, each once.

        Raises
        ------
        ValueError, TypeError
            If an id is of no open stream, or comes twice; none is reset then.
        RuntimeError
            If another thread works with one of these streams now; none is reset then.
        """
        self._reset(stream_ids(np.atleast_1d(checks.integers(ids, "ids"))))

    def _open(self) -> int:
        raise NotImplementedError

    def _close(self, id: int) -> None:
        raise NotImplementedError

    def _reset(self, ids: Ids) -> None:
        raise NotImplementedError

    def _get_states(self, id: int) -> list[Any]:
        raise NotImplementedError

    def _set_states(self, id: int, states: Sequence[Any]) -> None:
        raise NotImplementedError

    def _split(self, state: Any) -> list[Any]:
        """Return the states of the layers, having checked what a user gives."""
        raise NotImplementedError

    def _joined(self, states: list[Any]) -> Any:
        raise NotImplementedError

    def __bool__(self) -> bool:  # there is a length, of 0 before the first stream
        return True

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"a {type(self).__name__} is neither copied nor pickled: make another one, and open "
            "its streams with the states of this one's, open(state=pool.state(id))"
        )


class InPython(Pool):
    """What pools share that compute in Python: the numbers, and who works with which stream."""

    def _begin(self, capacity: int) -> None:
        self._ids = _core.StreamIds(capacity)
        self._stepping = threading.Lock()

    @property
    def capacity(self) -> int:
        """How many streams may be open."""
        return self._ids.capacity

    def __len__(self) -> int:
        return self._ids.count

    def _open(self) -> int:
        id, place = self._ids.open()
        try:
            self._clear(np.array([place]))
        finally:
            self._ids.release(place)
        return id

    def _close(self, id: int) -> None:
        self._ids.close(id)

    def _reset(self, ids: Ids) -> None:
        with self._claimed(ids) as places:
            self._clear(places)

    def _get_states(self, id: int) -> list[Any]:
        with self._claimed(id) as place:
            return self._states_at(int(place[0]))

    def _set_states(self, id: int, states: Sequence[Any]) -> None:
        with self._claimed(id) as place:
            self._put_states_at(int(place[0]), states)

    @contextlib.contextmanager
    def _claimed(self, ids: Ids | int) -> Iterator[Ids]:
        """Have streams alone, all or none: gives their places."""
        if isinstance(ids, int):
            places = np.array([self._ids.claim_one(ids)])
        else:
            places = self._ids.claim(ids)
        try:
            yield places
        finally:
            self._ids.release(int(places[0]) if len(places) else -1)

    @contextlib.contextmanager
    def _step(self, ids: Ids) -> Iterator[Ids]:
        """Have the streams of a step alone, one step at a time."""
        if not self._stepping.acquire(blocking=False):
            raise RuntimeError(
                "another thread takes a step of this pool now, expected one at a time"
            )
        try:
            with self._claimed(ids) as places:
                yield places
        finally:
            self._stepping.release()

    def _clear(self, places: Ids) -> None:
        raise NotImplementedError

    def _states_at(self, place: int) -> list[Any]:
        raise NotImplementedError

    def _put_states_at(self, place: int, states: Sequence[Any]) -> None:
        raise NotImplementedError


class StreamPool(_core.StreamPool, Chained, Pool):
    """Streams of one layer or model that come and go, any of which take a step together.

    Made by ``layer.stream_pool(capacity)`` or ``model.stream_pool(capacity)``, for servers: a
    connection has a stream, and those that have something to say step as one batch. Each stream has
    the bits of a lone one, ``layer.stream()``, whatever others step with it.

    All memory is taken when the pool is made. It keeps the weights that its layer had then, as
    streams do. It computes on the calling thread alone; steps longer than a few microseconds
    release the GIL.

    **Threads.** Any thread may call anything at any time. While one takes a step, others may open
    and close streams, and reset and read those that are not in the step. What cannot be done now is
    refused by a RuntimeError, and nothing waits: a second step, and `reset` and `state` of a stream
    that is in the step. A stream that is closed while it is in the step takes it to the end.

    ``len(pool)`` says how many streams are open.

    Modules that the core does not know, such as `GELU` and `Conv1D`, run in Python as they do in
    streams; a step then allocates.

    Parameters
    ----------
    module : layer, Sequential or Model
        Of which there can be a `Stream`.
    capacity : int
        How many streams may be open at once.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5, seed=0)
    >>> pool = lstm.stream_pool(capacity=1000)
    >>> a, b, c = pool.open(), pool.open(), pool.open()
    >>> x = np.random.default_rng(0).standard_normal((3, 3)).astype("float32")
    >>> y = pool.step([a, b, c], x)
    >>> y = pool.step([c, a], x[:2])  # b has nothing to say now
    >>> stream = lstm.stream()  # a lone one
    >>> y_of_a = stream.step(x[:1]), stream.step(x[1:2])
    >>> np.array_equal(y[1:], y_of_a[1])
    True
    >>> pool.close(a)
    >>> pool.step([a], x[:1])
    Traceback (most recent call last):
    ValueError: ids[0] is 0, a stream that is closed
    >>> pool
    <StreamPool of LSTM(3, 5), 2 of 1000 streams open>
    """

    _KIND = "pool"
    _COUNT = "capacity"

    def __init__(self, module: Module, capacity: int) -> None:
        capacity = counted(capacity, "capacity")
        frozen = freeze(module)
        if any(f.in_python for f in frozen) or module._takes_ids:
            raise TypeError(f"module is {module!r}, of which module.stream_pool() makes a pool")
        self._make(frozen, module._gives_state, capacity)

    def _start(self, frozen: list[Frozen], capacity: int, dtype: np.dtype[Any]) -> None:
        stages = [f.stage for f in frozen if f.stage is not None]
        _core.StreamPool.__init__(self, stages, capacity, dtype == np.float64)

    def _split(self, state: Any) -> list[Any]:
        return self._split_rows(state, 1)

    def _convert(self, ids: Any, x: Any, out: Any) -> tuple[Ids, Array, Array | None]:
        """Return the arguments of `step` as the core takes them."""
        ids = stream_ids(checks.integers(ids, "ids"))
        x = checks.real(x, self._dtype, "x")
        shape = len(ids), self.input_size
        if x.shape != shape:
            raise ValueError(f"x has shape {x.shape}, expected {shape}, a row for each of the ids")
        x = checks.in_order(x)
        if out is not None:
            x = checks.out(x, out, (len(ids), self.output_size), self._dtype)
        return ids, x, out

    def __repr__(self) -> str:
        modules = ", ".join(repr(f.module) for f in self._frozen)
        return f"<StreamPool of {modules}, {len(self)} of {self.capacity} streams open>"


class _PythonPart:
    """A stage in Python, with the past steps of every stream that it needs."""

    def __init__(self, stage: PythonStage, capacity: int, dtype: np.dtype[Any]) -> None:
        self._stage = stage
        self._past = np.zeros((stage.past, capacity, stage._outputs), dtype)

    def step(self, places: Ids, x: Array) -> Array:
        steps = x[None]
        if self._stage.past:
            steps = np.concatenate([self._past[:, places], steps])
            self._past[:, places] = steps[1:]
        y: Array = self._stage.function(steps)[0]
        return y

    def _get_states(self, place: int) -> list[tuple[Array, None]]:
        return [(self._past[:, [place]], None)] if self._stage.past else []

    def _set_states(self, place: int, states: list[tuple[Array | None, None]]) -> None:
        for past, _ in states:
            self._past[:, [place]] = 0 if past is None else past

    def _reset(self, places: Ids) -> None:
        self._past[:, places] = 0


def _core_part(stages: list[Any], capacity: int, dtype: np.dtype[Any]) -> _core.StreamPool:
    """Return a pool of the core in which all streams are open: their ids are their places."""
    pool = _core.StreamPool(stages, capacity, dtype == np.float64)
    for _ in range(capacity):
        pool._open()
    return pool


class _PartedPool(InPython, StreamPool):
    """A pool of which some modules run in Python. It has parts, and is no pool of the core."""

    def _start(self, frozen: list[Frozen], capacity: int, dtype: np.dtype[Any]) -> None:
        self._begin(capacity)
        self._sections = sections(
            frozen,
            lambda stages: _core_part(stages, capacity, dtype),
            lambda stage: _PythonPart(stage, capacity, dtype),
        )
        self._sizes = sizes_of(frozen)
        self._counts = [len(section._get_states(0)) for section in self._sections]

    @property
    def input_size(self) -> int:
        """Features of x."""
        return self._sizes[0]

    @property
    def output_size(self) -> int:
        """Features of y."""
        return self._sizes[1]

    def step(self, ids: npt.ArrayLike, x: npt.ArrayLike, out: Array | None = None) -> Array:
        given, rows, out = self._convert(ids, x, out)
        with self._step(given) as places:
            for section in self._sections:
                rows = checks.in_order(section.step(places, rows))
        if out is None:
            return rows
        out[...] = rows
        return out

    def _clear(self, places: Ids) -> None:
        for section in self._sections:
            section._reset(places)

    def _states_at(self, place: int) -> list[Any]:
        return [state for section in self._sections for state in section._get_states(place)]

    def _put_states_at(self, place: int, states: Sequence[Any]) -> None:
        rest = list(states)
        for section, count in zip(self._sections, self._counts, strict=True):
            section._set_states(place, rest[:count])
            del rest[:count]


class _TakesIds(StreamPool):
    """A pool of a model that begins with an Embedding: x is ids of it, (n,)."""

    def step(self, ids: npt.ArrayLike, x: npt.ArrayLike, out: Array | None = None) -> Array:
        numbers = stream_ids(checks.integers(ids, "ids"))
        shape = checks._asarray(x, "x").shape
        if shape != numbers.shape:
            raise ValueError(
                f"x has shape {shape}, expected ids, ({len(numbers)},), one for each stream"
            )
        return super().step(numbers, embedded(self._frozen, x), out)


class _IdPool(_TakesIds):
    pass


class _PartedIdPool(_TakesIds, _PartedPool):
    pass


def open_pool(module: Any, capacity: int) -> StreamPool:
    """Return a pool of streams of a layer or of a model."""
    capacity = counted(capacity, "capacity")
    frozen = freeze(module)
    kind: type[StreamPool]
    if any(f.in_python for f in frozen):
        kind = _PartedIdPool if module._takes_ids else _PartedPool
    else:
        kind = _IdPool if module._takes_ids else StreamPool
    pool = kind.__new__(kind)
    pool._make(frozen, module._gives_state, capacity)
    return pool


def stream_ids(ids: npt.NDArray[np.integer[Any]]) -> Ids:
    """Return ids as the core takes them."""
    if ids.ndim != 1:
        raise ValueError(f"ids has shape {ids.shape}, expected (n,)")
    if ids.dtype == np.uint64:  # no stream has one of those that int64 does not hold
        ids = np.minimum(ids, np.uint64(2**63 - 1))
    return np.ascontiguousarray(ids, np.int64)


def _one_id(id: Any) -> int:
    number = checks.integer(id, "id", 0)
    if number >= 2**63:
        raise ValueError(f"id is {number}, which no stream of this pool has had")
    return number
