"""How public names say where they live, and errors what other names and keywords are here."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any

from .words import ATTRIBUTES, NAMES, of_keyword, too_many

__all__ = ["Elsewhere", "explain", "publish", "where_else"]

_HOME = __name__.partition(".")[0]

# What each call makes and nobody by hand: their constructors are left as fast as they are.
_RESULTS = ("AttentionTape", "Mean", "Tape")


def where_else(name: str) -> str:
    """Say where the package has a name that is looked for in one of its modules, or its own for it.

    Parameters
    ----------
    name : str
    """
    if name in NAMES:
        ours = NAMES[name]
        return f": {ours}" if ours.startswith("not needed") else f": here it is {_HOME}.{ours}"
    package = sys.modules[_HOME]
    public = getattr(package, "__all__", ())
    for module in ("", *public):
        inside = vars(package).get(module) if module else package
        if not name.startswith("_") and name in getattr(inside, "__all__", ()):
            return ": it is " + ".".join(filter(None, (_HOME, module, name)))
    return ""


def publish(namespace: dict[str, Any]) -> None:
    """Make a module a public one: what it shows, where that is from, and what is said of the rest.

    What it shows is `__all__`, and says that it is of this module, not of the file it is in: so
    tracebacks, pickles and documentation name a place that users can import from, and files can
    move without breaking pickles. A name that is not there, and a keyword that a class or function
    does not take, are errors that say what is meant, in the words of other libraries, too.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the public module; its ``__all__`` names what is public.
    """
    module = namespace["__name__"]
    for name in namespace["__all__"]:
        thing = namespace.get(name)
        if "._" in (getattr(thing, "__module__", None) or ""):
            thing.__module__ = module
        if isinstance(thing, FunctionType):
            namespace[name] = _explaining(thing)
        elif isinstance(thing, type) and name not in _RESULTS:
            _explain_constructor(thing)

    def missing(name: str) -> Any:
        raise AttributeError(f"module {module!r} has no attribute {name!r}{where_else(name)}")

    namespace["__dir__"] = lambda: namespace["__all__"]
    namespace["__getattr__"] = missing


def _explain_constructor(kind: type) -> None:
    """Let the constructor of a class say what is meant, wherever in this library it is written."""
    for name in ("__new__", "__init__"):
        owner = next(k for k in kind.__mro__ if name in vars(k))
        if not _is_ours(owner):
            continue
        method = vars(owner)[name]
        if isinstance(method, staticmethod):  # as __new__ is
            setattr(owner, name, staticmethod(_explaining(method.__func__)))
        elif isinstance(method, FunctionType):
            setattr(owner, name, _explaining(method))


def _explaining(function: Any) -> Any:
    """Return a function that says in its error what is meant by a keyword it does not take."""
    if hasattr(function, "_explains"):
        return function

    @functools.wraps(function)
    def checked(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except TypeError:
            complaint = _complaint(function, args, options)
            if complaint is None:
                raise
        raise TypeError(complaint)

    checked._explains = True  # type: ignore[attr-defined]
    return checked


def _complaint(function: Any, args: tuple[Any, ...], options: Iterable[str]) -> str | None:
    """Say which arguments a function does not take; None if it takes all these."""
    parameters = list(inspect.signature(function).parameters.values())
    name, of, given = function.__name__, function.__module__.rpartition(".")[2], len(args)
    names = [name, of]
    if name in ("__init__", "__new__"):
        mro = (args[0] if isinstance(args[0], type) else type(args[0])).__mro__
        names = [kind.__name__ for kind in mro if _is_ours(kind)]
        name, parameters, given = names[0], parameters[1:], given - 1
    kinds = {p.kind for p in parameters}
    keywords = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    unnamed = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    complaints = []
    if inspect.Parameter.VAR_KEYWORD not in kinds:
        complaints = [of_keyword(word, names, keywords) for word in options if word not in keywords]
    if inspect.Parameter.VAR_POSITIONAL not in kinds and given > len(unnamed):
        complaints.append(too_many(given, names, unnamed))
    return f"{name}: " + "; ".join(complaints) if complaints else None


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == _HOME


class Elsewhere:
    """An attribute that instances do not have, whose error says what does it here.

    A ``__getattr__`` would say so, too, but every other attribute would be slower for it.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self.__doc__ = f"No attribute: {hint}."  # which ``help`` of the class shows

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        who = (
            f"type object {owner.__name__!r}" if instance is None else f"{owner.__name__!r} object"
        )
        raise AttributeError(
            f"{who} has no attribute {self._name!r}: {self._hint}",
            name=self._name,
            obj=owner if instance is None else instance,
        )


def explain(kind: type, hints: dict[str, str] | None = None) -> None:
    """Give a class an `Elsewhere` for each name, by default for what its words are elsewhere."""
    words = ATTRIBUTES[kind.__name__] if hints is None else hints
    for name, hint in words.items():
        attribute = Elsewhere(hint)
        attribute.__set_name__(kind, name)
        setattr(kind, name, attribute)

    def names(self: Any) -> list[str]:
        return [name for name in object.__dir__(self) if name not in words or hasattr(self, name)]

    kind.__dir__ = names  # type: ignore[assignment]
