"""Pickles read without running them: plain values, and whatever the caller allows by name.

Python's own unpickler calls what the stream names, allocates what it announces, and recurses as it
asks. This one knows the instructions with which plain values are written, and no others.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, Protocol

__all__ = ["Name", "Reader", "unpickle", "unwanted"]

_PLAIN = (str, int, float, bytes, type(None))  # bool is an int
_DEPTH = 100
_BITS = 1024  # of an int
_MOST_ARGUMENTS = 10

_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_CONTAINERS = {
    *_TUPLES, "TUPLE", "EMPTY_TUPLE", "EMPTY_LIST", "APPEND", "APPENDS",
    "EMPTY_DICT", "SETITEM", "SETITEMS",
}  # fmt: skip
_MEMO = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
_OBJECTS = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "BINPERSID",
}  # fmt: skip
_KNOWN = {
    *_CONSTANTS, *_VALUES, *_CONTAINERS, *_MEMO, *_OBJECTS, "PROTO", "FRAME", "MARK", "STOP",
}  # fmt: skip
_MARK = object()


class Reader(Protocol):
    """Part of a file. It must not take memory for more than it has."""

    def read(self, n: int) -> bytes:
        """Return at most n bytes."""

    def readline(self) -> bytes:
        """Return a line, or the start of a long one."""


class Name:
    """A class or function that the stream names: its name, never the thing itself."""

    def __init__(self, name: str) -> None:
        self.name = name[:200]


def unpickle(
    stream: Reader,
    calls: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any],
    kind: type,
    most_steps: int,
) -> Any:
    """Return the value of a pickle.

    Parameters
    ----------
    stream : Reader
        At the start of the pickle; afterwards it is behind its end.
    calls : mapping of str to callable
        What may be called, by its full name.
    persistent : callable
        Returns what a persistent id stands for. `Name` is what it gets for names in it.
    kind : type
        Of values that `calls` makes, and that may be in the result.
    most_steps : int
        After how many instructions to give up; and how many values there may be.

    Raises
    ------
    ValueError
        If the stream is broken, too long, nests too deeply, or holds anything but bools, ints,
        floats, strings, bytes, None, lists, tuples, dicts and values of `kind`.
    """
    import pickletools  # large, and seldom needed

    known = {op.code.encode("latin-1"): op for op in pickletools.opcodes if op.name in _KNOWN}
    machine = _Machine(calls, persistent)
    steps = 0
    try:
        while machine.running:
            code = stream.read(1)
            if code not in known:
                raise ValueError(_unknown(code, pickletools.opcodes))
            name, form = known[code].name, known[code].arg
            if name == "GLOBAL":  # pickletools would take backslashes for escapes
                machine.step(name, f"{_line(stream)}.{_line(stream)}")
            else:
                machine.step(name, form and form.reader(stream))  # type: ignore[arg-type]
            steps += 1
            if steps > most_steps:
                raise ValueError(f"its pickle has more than {most_steps} instructions")
    except IndexError as error:
        raise ValueError("its pickle takes from an empty stack") from error
    if len(machine.stack) != 1 or machine.stack[0] is _MARK:
        raise ValueError("its pickle does not end with one value")
    _check(machine.stack[0], kind, most_steps)
    return machine.stack[0]


class _Machine:
    """A stack, with marks in it, and a memo."""

    def __init__(
        self, calls: Mapping[str, Callable[..., Any]], persistent: Callable[[Any], Any]
    ) -> None:
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.running = True

    def step(self, name: str, argument: Any) -> None:
        """Do what one instruction says."""
        if name in _VALUES:
            if isinstance(argument, int) and argument.bit_length() > _BITS:
                raise ValueError(f"its pickle has an int of more than {_BITS} bits")
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _CONTAINERS:
            self._container(name)
        elif name in _MEMO:
            self._remember(name, argument)
        elif name in _OBJECTS:
            self._object(name, argument)
        elif name == "MARK":
            self.stack.append(_MARK)
        elif name == "STOP":
            self.running = False

    def _remember(self, name: str, argument: Any) -> None:
        """Put a value into the memo, or on the stack from there."""
        if name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = self._top(object)
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = self._top(object)
        else:  # BINGET, LONG_BINGET
            if argument not in self.memo:
                raise ValueError(f"its pickle refers to value {argument}, which is not there")
            self.stack.append(self.memo[argument])

    def _container(self, name: str) -> None:
        """Make a tuple, list or dict, or add to one."""
        stack = self.stack
        if name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "APPEND":
            item = self._pop()
            self._top(list).append(item)
        elif name == "APPENDS":
            items = self._pop_to_mark()
            self._top(list).extend(items)
        elif name == "SETITEM":
            value, key = self._pop(), self._pop()
            self._set_items([key, value])
        else:  # SETITEMS
            self._set_items(self._pop_to_mark())

    def _object(self, name: str, argument: Any) -> None:
        """Make what is no plain value, if the caller allows it."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Name(argument))
        elif name == "STACK_GLOBAL":
            last, module = self._pop(), self._pop()
            if not (isinstance(module, str) and isinstance(last, str)):
                raise ValueError("a name in it is not a string")
            stack.append(Name(f"{module}.{last}"))
        elif name == "REDUCE":
            arguments, function = self._pop(), self._pop()
            stack.append(self._call(function, arguments))
        elif name == "BUILD":
            # PyTorch's OrderedDict of a state dict carries the versions of its modules.
            if not isinstance(self._pop(), (dict, type(None))):
                raise ValueError("its pickle sets a state that is no dict")
            self._top(OrderedDict)
        elif name in ("NEWOBJ", "NEWOBJ_EX"):
            kind = stack[-2 if name == "NEWOBJ" else -3]
            raise unwanted(kind.name if isinstance(kind, Name) else "an object without a name")
        else:  # BINPERSID
            stack.append(self.persistent(self._pop()))

    def _pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise ValueError("its pickle takes more than there is after a mark")
        return value

    def _pop_to_mark(self) -> list[Any]:
        start = len(self.stack) - 1
        while self.stack[start] is not _MARK:  # IndexError if there is none: start goes below 0
            start -= 1
            if start < 0:
                raise ValueError("its pickle lacks a mark")
        items = self.stack[start + 1 :]
        del self.stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        if not self.stack or self.stack[-1] is _MARK or not isinstance(self.stack[-1], kind):
            raise ValueError(f"its pickle lacks a {kind.__name__} where it changes one")
        return self.stack[-1]

    def _set_items(self, items: list[Any]) -> None:
        target = self._top(dict)
        if len(items) % 2:
            raise ValueError("a dict in it has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            if not isinstance(key, _PLAIN):
                kind = type(key).__name__
                raise ValueError(f"a dict in it has a key of type {kind}, expected str or number")
            target[key] = value

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Name) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what has no name")
        if function.name not in self.calls:
            raise unwanted(function.name)
        if len(arguments) <= _MOST_ARGUMENTS:
            try:
                return self.calls[function.name](*arguments)
            except TypeError:  # too few, or too many
                pass
        raise ValueError(f"its pickle gives {len(arguments)} arguments to {function.name}")


def _check(value: Any, kind: type, most: int) -> None:
    """Refuse what is neither plain nor of that kind, nests too deeply, or unfolds to too much.

    A pickle can refer to one value many times, so that a short one unfolds to more than any memory
    holds: for whoever prints or compares it.
    """
    level, count = [value], 0
    for _ in range(_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, (list, tuple, dict)):
                following += item.values() if isinstance(item, dict) else item
                if count + len(following) > most:
                    raise ValueError(f"its pickle unfolds to more than {most} values")
            elif not isinstance(item, (*_PLAIN, kind)):
                raise unwanted(item.name if isinstance(item, Name) else type(item).__name__)
        count += len(level)
        level = following
        if not level:
            return
    raise ValueError(f"its pickle nests deeper than {_DEPTH} levels")


def _line(stream: Reader) -> str:
    line = stream.readline()
    if not line.endswith(b"\n"):
        raise ValueError("its pickle has a name that is too long, or cut short")
    return line[:-1].decode()


def _unknown(code: bytes, opcodes: list[Any]) -> str:
    if not code:
        return "its pickle has no end"
    names = [op.name for op in opcodes if op.code.encode("latin-1") == code]
    what = f"the instruction {names[0]}" if names else f"the unknown instruction {code!r}"
    return f"its pickle has {what}, which plain values do not need"


def unwanted(name: str) -> ValueError:
    """Return the error for something that is neither plain nor a tensor."""
    return ValueError(
        f"it holds {name}, but only tensors and plain values are read: save a state dict"
    )
