"""What is recorded while a plan runs: where values lie, and the operations that make them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import _core
from .._model import Node, Tensor
from ..operators._joined import Joined

__all__ = ["Buffer", "Recorder", "Unfit", "Value", "is_plain", "plain"]

_MOST_BYTES = 2**28  # that a recording may hold


class Unfit(Exception):
    """What is not recorded: values of no size, or too many of them."""


class Buffer:
    """Memory of its own: a whole array, or with `other` what is none.

    It is given, a constant (`fixed`), made by a Python function, or by a program (`home`). Level k
    is there before the programs of level k run.
    """

    def __init__(
        self,
        array: Any,
        level: int = 0,
        *,
        name: str = "",
        fixed: bool = False,
        home: _Segment | None = None,
    ) -> None:
        self.array, self.level, self.name, self.fixed, self.home = array, level, name, fixed, home


class Value(NamedTuple):
    """An array that is a buffer or a part of it."""

    array: Any
    buffer: Buffer

    @property
    def fixed(self) -> bool:
        """Whether it is a constant."""
        return self.buffer.fixed

    def part(self, array: Tensor) -> Value:
        """Return a view of it."""
        return Value(array, self.buffer)

    def whole(self) -> bool:
        """Whether it is all of its buffer, in its shape."""
        return self.array is self.buffer.array or (
            type(self.array) is np.ndarray
            and self.array.shape == self.buffer.array.shape
            and self.array.flags.c_contiguous
        )

    def place(self) -> tuple[int, tuple[int, ...]]:
        """Return where in its buffer it begins, and its strides, in numbers."""
        size = self.array.itemsize
        offset = _address(self.array) - _address(self.buffer.array)
        return offset // size, tuple(stride // size for stride in self.array.strides)


def is_plain(array: Tensor) -> bool:
    """Whether it lies in memory as programs of the core read it."""
    flags = array.flags
    return flags.c_contiguous and flags.aligned


def plain(array: Tensor) -> Tensor:
    """Return an array as programs of the core read it."""
    return array if is_plain(array) else np.array(array, order="C")


def _address(array: Tensor) -> int:
    return int(array.ctypes.data)


class _Segment:
    """Operations of one level and type, which become one program."""

    def __init__(self) -> None:
        self.operations: list[tuple[Any, ...]] = []
        self.node: Node | None = None
        self.results: dict[Any, tuple[str, Value]] = {}

    def foreign(self) -> list[Buffer]:
        """Return the buffers that others make, which it reads."""
        buffers = (p[0] for op in self.operations for p in op[2] if p is not None)
        return [b for b in dict.fromkeys(buffers) if b.home is not self and not b.fixed]


class _Level:
    def __init__(self) -> None:
        self.segments: dict[str, _Segment] = {}
        self.steps: list[Joined] = []


class Recorder:
    """Collects programs and the Python functions between them, each as early as it can run."""

    def __init__(self) -> None:
        self.constants: dict[str, Tensor] = {}
        self._levels: list[_Level] = []
        self._first: list[Joined] = []  # parts of what is given
        self._fixed: dict[int, Value] = {}
        self._kept: list[Any] = []  # whose ids those are
        self._parts: dict[Any, str] = {}
        self._count = self._bytes = 0
        self.node: Any = None  # which is recorded

    # Values -----------------------------------------------------------------------------------

    def name(self) -> str:
        """Return a new one."""
        self._count += 1
        return f"value {self._count}"

    def _held(self, array: Any) -> None:
        if isinstance(array, np.ndarray):
            self._bytes += array.nbytes
            if not array.size or self._bytes > _MOST_BYTES:
                raise Unfit

    def given(self, array: Any) -> Value:
        """Return the value of an argument."""
        self._held(array)
        return Value(array, Buffer(array, name=self.name()))

    def constant(self, array: Any) -> Value:
        """Return the value of a constant."""
        found = self._fixed.get(id(array))
        if found is None:
            own = plain(array) if isinstance(array, np.ndarray) else array
            found = self._fixed[id(array)] = Value(own, Buffer(own, fixed=True))
            self._kept.append(array)  # so that no id is used again
        return found

    def made(self, array: Any, level: int) -> Value:
        """Return the value of what a Python function has made."""
        self._held(array)
        return Value(array, Buffer(array, level, name=self.name()))

    def new(self, like: Tensor | Sequence[int], *after: Value, dtype: Any = None) -> Value:
        """Return an array for a program to write, which needs these values; not cleared."""
        array = np.empty(like, dtype) if dtype is not None else np.array(like, order="C")
        self._held(array)
        level = max((value.buffer.level for value in after), default=0)
        home = self._level(level).segments.setdefault(array.dtype.char, _Segment())
        home.node = home.node or self.node
        return Value(array, Buffer(array, level, home=home))

    def _level(self, k: int) -> _Level:
        while len(self._levels) <= k:
            self._levels.append(_Level())
        return self._levels[k]

    # Operations -------------------------------------------------------------------------------

    def apply(self, op: str, y: Value, *given: Value, value: float = 0.0) -> None:
        """Write y, number by number, from what is spread to its shape."""
        shape = y.array.shape
        places = [y, *(x.part(np.broadcast_to(x.array, shape)) for x in given)]
        self._write(op, shape, places, value=value)

    def reduce(self, op: str, y: Value, x: Value, axes: Iterable[int]) -> None:
        """Put together y, whose axes are those of x that are left, and x over some of its axes."""
        gone = list(axes)
        kept = [axis for axis in range(x.array.ndim) if axis not in gone]
        turned = x.part(x.array.transpose(kept + gone))
        found = y.array.reshape(turned.array.shape[: len(kept)] + (1,) * len(gone))
        spread = y.part(np.broadcast_to(found, turned.array.shape))
        self._write(op, turned.array.shape, [spread, turned], last=len(gone))

    def multiply(self, y: Value, a: Value, b: Value) -> None:
        """Add to y, (..., m, n), the products of matrices."""
        *batch, m, n = y.array.shape
        k = a.array.shape[-1]
        spread = [
            x.part(np.broadcast_to(x.array, (*batch, *x.array.shape[-2:])))
            for x in (Value(y.array, y.buffer), a, b)
        ]
        (oy, sy), (oa, sa), (ob, sb) = (x.place() for x in spread)
        places = [
            (y.buffer, oy, [*sy[:-2], 0, 0, 0]),
            (a.buffer, oa, [*sa, 0]),
            (b.buffer, ob, [*sb[:-2], 0, *sb[-2:]]),
        ]
        self._append(y, ("product", [*batch, m, k, n], places, 0, 0.0, None, None))

    def dense(self, x: Value) -> Value:
        """Return x in the order of its axes, with nothing between its numbers."""
        if x.array.flags.c_contiguous:
            return x
        y = self.new(x.array, x)
        self.apply("copy", y, x)
        return y

    def rows(
        self, op: str, y: Value, shape: Sequence[int], *given: Value | None, **how: Any
    ) -> None:
        """Write y from what is dense, as y is."""
        places = [y, *given]
        self._write(op, shape, places, flat=True, **how)

    def _write(
        self,
        op: str,
        shape: Sequence[int],
        values: Sequence[Value | None],
        *,
        last: int = 0,
        value: float = 0.0,
        f: tuple[str, float, float] | None = None,
        linear: _core.Linear | None = None,
        flat: bool = False,
    ) -> None:
        places: list[Any] = []
        for one in values:
            if one is None:
                places.append(None)
            else:
                offset, strides = one.place()
                places.append((one.buffer, offset, [] if flat else list(strides)))
        y: Any = values[0]
        self._append(y, (op, list(shape), places, last, value, f, linear))

    def _append(self, y: Value, operation: tuple[Any, ...]) -> None:
        home: Any = y.buffer.home
        home.operations.append(operation)

    # Python -----------------------------------------------------------------------------------

    def visible(self, value: Value) -> str:
        """Return the name of a variable that will have the value."""
        buffer = value.buffer
        if buffer.fixed:
            name = self._parts.setdefault(id(value.array), f"constant {len(self._parts)}")
            self.constants[name] = value.array
            return name
        whole = value.whole()
        if whole and buffer.home is None:
            return buffer.name
        offset, strides = value.place()
        key = (id(buffer), offset, value.array.shape, strides)
        if key not in self._parts:
            name = self._parts[key] = self.name()
            if buffer.home is not None:
                buffer.home.results[key] = (name, value)
            else:
                made = Joined(self.node, _part(value), (buffer.name,), (name,))
                steps = self._levels[buffer.level - 1].steps if buffer.level else self._first
                steps.append(made)
        return self._parts[key]

    def call(
        self,
        node: Node,
        run: Callable[..., Any],
        given: Sequence[Value | None],
        made: Sequence[Any],
    ) -> list[Value]:
        """Record a call of a Python function, and what it has made."""
        self.node = node
        names = tuple("" if x is None else self.visible(x) for x in given)
        level = max((x.buffer.level for x in given if x is not None), default=0)
        values = [self.made(one, level + 1) for one in made]
        outputs = tuple(value.buffer.name for value in values)
        self._level(level).steps.append(Joined(node, run, names, outputs))
        return values

    def steps(self, outputs: Sequence[Value]) -> tuple[list[Joined], list[str]]:
        """Return all that is to run, and the names of the outputs."""
        names = [self.visible(value) for value in outputs]
        segments = [s for level in self._levels for s in level.segments.values()]
        for segment in segments:
            for buffer in segment.foreign():
                self.visible(Value(buffer.array, buffer))
        found = list(self._first)
        for level in self._levels:
            found += [self._program(s) for s in level.segments.values() if s.operations]
            found += level.steps
        return found, names

    def _program(self, segment: _Segment) -> Joined:
        """Return a program that runs a segment."""
        inputs = segment.foreign()
        made = list(dict.fromkeys(value.buffer for _, value in segment.results.values()))
        own, room = _laid_out(segment, set(made))
        used = dict.fromkeys(p[0] for op in segment.operations for p in op[2] if p is not None)
        fixed = [buffer for buffer in used if buffer.fixed]
        memory = {b: 1 + i for i, b in enumerate([*inputs, *fixed, *made])}
        written = [
            (op, shape, [_at(place, memory, own) for place in places], *others)
            for op, shape, places, *others in segment.operations
        ]
        results = []
        for _, value in segment.results.values():
            offset, strides = value.place()
            part = None if value.whole() else (offset, list(value.array.shape), list(strides))
            results.append((made.index(value.buffer), part))
        program = _core.make_program(
            next(iter(used)).array.dtype.char == "d",
            written,
            room,
            [buffer.array.size for buffer in inputs],
            [buffer.array for buffer in fixed],
            [list(buffer.array.shape) for buffer in made],
            results,
        )
        names = tuple(self.visible(Value(buffer.array, buffer)) for buffer in inputs)
        outputs = tuple(name for name, _ in segment.results.values())
        return Joined(segment.node, program, names, outputs)  # type: ignore[arg-type]


def _part(value: Value) -> Callable[[Tensor], Tensor]:
    """Return a function of a buffer that gives a part of it."""
    array, buffer = value.array, value.buffer.array
    shape, dtype, strides = array.shape, array.dtype, array.strides
    offset = _address(array) - _address(buffer)
    if array.flags.c_contiguous and array.size == buffer.size:
        return lambda x: x.reshape(shape)
    return lambda x: np.ndarray(shape, dtype, x, offset, strides)


def _at(place: Any, memory: dict[Buffer, int], own: dict[Buffer, int]) -> tuple[Any, ...]:
    """Return a place as the core has it."""
    if place is None:
        return -1, 0, []
    buffer, offset, strides = place
    if buffer in own:
        return 0, own[buffer] + offset, strides
    return memory[buffer], offset, strides


def _laid_out(segment: _Segment, elsewhere: set[Buffer]) -> tuple[dict[Buffer, int], int]:
    """Return where in one room each buffer lies that the segment alone uses, and how long it is.

    Two that are never needed at the same time may lie in the same place.
    """
    last: dict[Buffer, int] = {}
    for i, operation in enumerate(segment.operations):
        for place in operation[2]:
            if place is not None and place[0].home is segment and place[0] not in elsewhere:
                last[place[0]] = i
    found: dict[Buffer, int] = {}
    free: list[tuple[int, int]] = []  # begin and end of what is not used below `end`
    end = 0
    for i, operation in enumerate(segment.operations):
        mine = [p[0] for p in operation[2] if p is not None and p[0] in last]
        for buffer in mine:
            if buffer in found:
                continue
            size = -(-buffer.array.size // 16) * 16
            hole = next((h for h in free if h[1] - h[0] >= size), None)
            if hole is None:
                found[buffer], end = end, end + size
            else:
                free.remove(hole)
                found[buffer] = hole[0]
                if hole[0] + size < hole[1]:
                    free.append((hole[0] + size, hole[1]))
        for buffer in dict.fromkeys(mine):
            if last[buffer] == i:
                begin = found[buffer]
                free = _joined([*free, (begin, begin + -(-buffer.array.size // 16) * 16)])
    return found, end


def _joined(holes: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return holes that touch as one."""
    found: list[tuple[int, int]] = []
    for begin, stop in sorted(holes):
        if found and found[-1][1] == begin:
            found[-1] = (found[-1][0], stop)
        else:
            found.append((begin, stop))
    return found
