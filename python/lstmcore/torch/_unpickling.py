"""Pickles read without running them: plain values, what the caller allows, and placeholders.

Python's own unpickler calls what the stream names, allocates what it announces, and recurses as it
asks. This one knows the instructions of protocols 2 to 5. What a stream names is never imported: an
object that is not plain becomes a `Placeholder`, which knows what the stream says of it.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import numpy as np

__all__ = ["Placeholder", "Reader", "unpickle"]

_PLAIN = (str, int, float, complex, bytes, bytearray, type(None))  # bool is an int
_DEPTH = 100
_BITS = 1024  # of an int
_MOST_IN_A_KEY = 100
_MOST_OF_ONE_HASH = 64

_CONSTANTS = {
    "NONE": None,
    "NEWTRUE": True,
    "NEWFALSE": False,
}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT",
    "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set,
}  # fmt: skip
_CONTAINERS = {
    *_TUPLES, *_EMPTY, "TUPLE", "FROZENSET", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS",
}  # fmt: skip
_MEMO = {"BINPUT", "LONG_BINPUT", "MEMOIZE", "BINGET", "LONG_BINGET"}
_OBJECTS = {
    "GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD", "NEWOBJ", "NEWOBJ_EX", "BINPERSID",
}  # fmt: skip
_KNOWN = {
    *_CONSTANTS, *_VALUES, *_CONTAINERS, *_MEMO, *_OBJECTS, "PROTO", "FRAME", "MARK", "STOP",
    "POP", "POP_MARK",
}  # fmt: skip
_MARK = object()

# What is called by these names is made here, of plain parts: the last argument, if it is a list.
_DICTS: dict[str, Callable[[], Any]] = {
    "collections.OrderedDict": OrderedDict,
    "collections.defaultdict": dict,
    "collections.Counter": Counter,
    "builtins.dict": dict,
    "__builtin__.dict": dict,
}
_SETS: dict[str, Callable[[Iterable[Any]], Any]] = {
    "builtins.set": set,
    "__builtin__.set": set,
    "builtins.frozenset": frozenset,
    "__builtin__.frozenset": frozenset,
}


class Reader(Protocol):
    """Part of a file. It must not take memory for more than it has."""

    def read(self, n: int) -> bytes:
        """Return at most n bytes."""

    def readline(self, n: int = ..., /) -> bytes:
        """Return a line, or the start of a long one."""


class Placeholder:
    """What `load_torch` gives for an object that it does not make: what the file says of it.

    Nothing of it was imported or run. It stands for a class or function itself, ``arguments`` being
    None then, or for what came of calling that.
    """

    __slots__ = ("arguments", "elements", "entries", "name", "state")

    name: str
    """The full name of the class or function, such as ``"argparse.Namespace"``."""
    arguments: tuple[Any, ...] | None
    """What it was called with."""
    state: Any
    """What it was given as its state: mostly a dict of its attributes."""
    entries: dict[Any, Any] | None
    """What was set in it by keys, as in a class derived from dict."""
    elements: list[Any] | None
    """What was appended to it, as to a class derived from list."""

    def __init__(self, name: str, arguments: tuple[Any, ...] | None = None) -> None:
        self.name = name[:200]
        self.arguments = arguments
        self.state = self.entries = self.elements = None

    def state_dict(self) -> dict[str, Any]:
        """Return the tensors of a module of PyTorch, by the names that its ``state_dict()`` has.

        Of any other object, those among its attributes. What the module does is not known.

        Raises
        ------
        ValueError
            If modules are in one another without end.
        """
        found: dict[str, Any] = {}
        waiting: list[tuple[str, int, Any]] = [("", 0, self)]
        for _ in range(100_000):
            if not waiting:
                return found
            prefix, depth, module = waiting.pop()
            arrays, children = _parts_of_module(module.state)
            found |= {prefix + name: array for name, array in arrays.items()}
            inner = [(f"{prefix}{n}.", depth + 1, child) for n, child in children.items()]
            if depth > _DEPTH:
                break
            waiting += reversed(inner)
        raise ValueError(f"the parts of the {self.name} are in one another without end")

    def __repr__(self) -> str:
        if self.arguments is None:
            return f"<{self.name} itself>"
        if len(self.arguments) < 4 and all(isinstance(a, (str, int)) for a in self.arguments):
            inside = ", ".join(repr(a)[:50] for a in self.arguments)
            return f"<{self.name}({inside})>"
        return f"<{self.name} object>"


def _parts_of_module(state: Any) -> tuple[dict[str, Any], dict[str, Placeholder]]:
    """Return the tensors and the modules among the attributes of a module."""
    if not isinstance(state, dict):
        return {}, {}
    parameters, buffers = state.get("_parameters"), state.get("_buffers")
    if isinstance(parameters, dict) and isinstance(buffers, dict):  # of torch.nn.Module
        children = state.get("_modules")
        passing = state.get("_non_persistent_buffers_set")
        passing = passing if isinstance(passing, set) else set()
        everything = {
            **parameters,
            **{name: array for name, array in buffers.items() if name not in passing},
            **(children if isinstance(children, dict) else {}),
        }
    else:  # of TorchScript
        everything = state
    named = {name: value for name, value in everything.items() if isinstance(name, str)}
    return (
        {n: v for n, v in named.items() if not isinstance(v, (Placeholder, *_PLAIN, *_HOLDING))},
        {n: v for n, v in named.items() if isinstance(v, Placeholder) and v.arguments is not None},
    )


_HOLDING = (tuple, list, dict, set, frozenset)


def unpickle(
    stream: Reader,
    calls: Mapping[str, Callable[..., Any]],
    builds: Mapping[str, Callable[[Placeholder, Any], Any]],
    persistent: Callable[[Any], Any],
    most_steps: int,
) -> Any:
    """Return the value of a pickle.

    Parameters
    ----------
    stream : Reader
        At the start of the pickle; afterwards it is behind its end.
    calls : mapping of str to callable
        What is called, by its full name; all else gives a `Placeholder`. NotImplemented does, too.
    builds : mapping of str to callable
        What takes the place of a placeholder of that name when it gets its state.
    persistent : callable
        Returns what a persistent id stands for. Placeholders are what it gets for names in it.
    most_steps : int
        After how many instructions to give up; and how many values there may be.

    Raises
    ------
    ValueError
        If the stream is broken, too long, or nests too deeply.
    """
    import pickletools  # large, and seldom needed

    known = {op.code.encode("latin-1"): op for op in pickletools.opcodes if op.name in _KNOWN}
    machine = _Machine(calls, builds, persistent)
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
    _check(machine.stack[0], most_steps)
    return machine.stack[0]


class _Machine:
    """A stack, with marks in it, and a memo."""

    def __init__(
        self,
        calls: Mapping[str, Callable[..., Any]],
        builds: Mapping[str, Callable[[Placeholder, Any], Any]],
        persistent: Callable[[Any], Any],
    ) -> None:
        self.calls, self.builds, self.persistent = calls, builds, persistent
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.places: dict[int, int] = {}  # of placeholders in the memo, by their id
        self.hashes: Counter[tuple[int, int]] = Counter()  # of keys, in which dict
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
        elif name == "POP":
            self.stack.pop()
        elif name == "POP_MARK":
            self._pop_to_mark()
        elif name == "STOP":
            self.running = False

    def _remember(self, name: str, argument: Any) -> None:
        """Put a value into the memo, or on the stack from there."""
        if name in ("BINGET", "LONG_BINGET"):
            if argument not in self.memo:
                raise ValueError(f"its pickle refers to value {argument}, which is not there")
            self.stack.append(self.memo[argument])
            return
        place = len(self.memo) if name == "MEMOIZE" else argument
        value = self._top(object)
        self.memo[place] = value
        if isinstance(value, Placeholder):
            self.places[id(value)] = place

    def _container(self, name: str) -> None:
        """Make a tuple, list, dict or set, or add to one."""
        stack = self.stack
        if name in _TUPLES:
            items = [self._pop() for _ in range(_TUPLES[name])]
            stack.append(tuple(reversed(items)))
        elif name in _EMPTY:
            stack.append(_EMPTY[name]())
        elif name == "TUPLE":
            stack.append(tuple(self._pop_to_mark()))
        elif name == "FROZENSET":
            stack.append(self._set(frozenset, self._pop_to_mark()))
        elif name in ("APPEND", "APPENDS"):
            items = [self._pop()] if name == "APPEND" else self._pop_to_mark()
            target = self._top((list, Placeholder))
            if isinstance(target, Placeholder):
                target.elements = target.elements or []
                target = target.elements
            target.extend(items)
        elif name == "ADDITEMS":
            items = self._pop_to_mark()
            target = self._top(set)
            for item in items:
                self._check_key(target, item)
                target.add(item)
        else:  # SETITEM, SETITEMS
            items = [self._pop(), self._pop()][::-1] if name == "SETITEM" else self._pop_to_mark()
            target = self._top((dict, Placeholder))
            if isinstance(target, Placeholder):
                target.entries = {} if target.entries is None else target.entries
                target = target.entries
            self._set_items(target, items)

    def _object(self, name: str, argument: Any) -> None:
        """Make what is no plain value."""
        stack = self.stack
        if name == "GLOBAL":
            stack.append(Placeholder(argument))
        elif name == "STACK_GLOBAL":
            last, module = self._pop(), self._pop()
            if not (isinstance(module, str) and isinstance(last, str)):
                raise ValueError("a name in it is not a string")
            stack.append(Placeholder(f"{module}.{last}"))
        elif name in ("REDUCE", "NEWOBJ"):
            arguments, function = self._pop(), self._pop()
            stack.append(self._call(function, arguments))
        elif name == "NEWOBJ_EX":
            options, arguments, function = self._pop(), self._pop(), self._pop()
            made = self._call(function, arguments)
            if isinstance(made, Placeholder):
                made.state = options
            stack.append(made)
        elif name == "BUILD":
            state = self._pop()
            target = self._top(object)
            if isinstance(target, Placeholder):
                self._build(target, state)
            elif not isinstance(target, (dict, np.ndarray)):
                # PyTorch's OrderedDict of a state dict carries the versions of its modules.
                raise ValueError(f"its pickle sets the state of a {type(target).__name__}")
        else:  # BINPERSID
            stack.append(self.persistent(self._pop()))

    def _build(self, target: Placeholder, state: Any) -> None:
        """Give a placeholder its state, or put something else in its place."""
        build = self.builds.get(target.name)
        made = NotImplemented if build is None else build(target, state)
        if made is NotImplemented:
            target.state = state
            return
        self.stack[-1] = made
        place = self.places.get(id(target))
        if place is not None and self.memo.get(place) is target:
            self.memo[place] = made

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

    def _top(self, kind: Any) -> Any:
        if not self.stack or self.stack[-1] is _MARK or not isinstance(self.stack[-1], kind):
            what = (kind[0] if isinstance(kind, tuple) else kind).__name__
            raise ValueError(f"its pickle lacks a {what} where it changes one")
        return self.stack[-1]

    def _set_items(self, target: dict[Any, Any], items: list[Any]) -> None:
        if len(items) % 2:
            raise ValueError("a dict in it has a key without a value")
        for key, value in zip(items[::2], items[1::2]):
            self._check_key(target, key)
            target[key] = value

    def _set(self, kind: Callable[[Iterable[Any]], Any], items: list[Any]) -> Any:
        for item in items:
            self._check_key(items, item)
        return kind(items)

    def _check_key(self, target: Any, key: Any) -> None:
        """Refuse what has no hash, and many keys that have the same: they take quadratic time.

        The hashes of strings differ from one process to the next, and those of ints below 2**60 are
        the ints.
        """
        if isinstance(key, (str, bytes, type(None))):
            return
        if isinstance(key, int) and key.bit_length() <= 60:
            return
        if not _is_key(key):
            kind = type(key).__name__
            raise ValueError(f"a dict in it has a key of type {kind}, expected str or number")
        place = id(target), hash(key)
        self.hashes[place] += 1
        if self.hashes[place] > _MOST_OF_ONE_HASH:
            raise ValueError("a dict in it has many keys of the same hash")

    def _call(self, function: Any, arguments: Any) -> Any:
        if not isinstance(function, Placeholder) or not isinstance(arguments, tuple):
            raise ValueError("its pickle calls what has no name")
        name = function.name
        last = arguments[-1] if arguments else None
        if name in _SETS and isinstance(last, (list, type(None))):
            return self._set(_SETS[name], last or [])
        if name in _DICTS:
            made = _DICTS[name]()
            if isinstance(last, dict):
                last = list(last.items())
            if isinstance(last, list):
                if not all(isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in last):
                    raise ValueError("a dict in it is made of something else than pairs")
                self._set_items(made, [part for pair in last for part in pair])
            return made
        if name in self.calls:
            try:
                made = self.calls[name](*arguments)
            except TypeError as error:  # too few, or too many
                count = len(arguments)
                raise ValueError(f"its pickle gives {count} arguments to {name}") from error
            if made is not NotImplemented:
                return made
        return Placeholder(name, arguments)


def _is_key(key: Any) -> bool:
    """Whether it can be the key of a dict: plain, or a tuple of little that is."""
    waiting, count = [key], 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > _MOST_IN_A_KEY:
            return False
        if isinstance(part, (tuple, frozenset)):
            waiting += list(part)[: _MOST_IN_A_KEY + 1]
        elif isinstance(part, bytearray) or not isinstance(
            part, (*_PLAIN, np.generic, Placeholder)
        ):
            return False
    return True


def _check(value: Any, most: int) -> None:
    """Refuse what nests too deeply, or unfolds to too much.

    A pickle can refer to one value many times, so that a short one unfolds to more than any memory
    holds: for whoever prints or compares it. Placeholders do neither with what is in them.
    """
    level, count = [value], 0
    for _ in range(_DEPTH):
        following: list[Any] = []
        for item in level:
            if isinstance(item, _HOLDING):
                following += item.values() if isinstance(item, dict) else item
                if count + len(following) > most:
                    raise ValueError(f"its pickle unfolds to more than {most} values")
        count += len(level)
        level = following
        if not level:
            return
    raise ValueError(f"its pickle nests deeper than {_DEPTH} levels")


def _line(stream: Reader) -> str:
    line = stream.readline(1024)  # the lines in a pickle are names
    if not line.endswith(b"\n"):
        raise ValueError("its pickle has a name that is too long, or cut short")
    return line[:-1].decode()


def _unknown(code: bytes, opcodes: list[Any]) -> str:
    if not code:
        return "its pickle has no end"
    names = [op.name for op in opcodes if op.code.encode("latin-1") == code]
    what = f"the instruction {names[0]}" if names else f"the unknown instruction {code!r}"
    return f"its pickle has {what}, which is not read"
