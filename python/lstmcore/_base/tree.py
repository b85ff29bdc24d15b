"""Structures of values: one value, or tuples, lists and dicts of them, however deep."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .checks import describe

__all__ = ["leaves", "matched", "rebuilt"]


def leaves(tree: Any) -> list[Any]:
    """Return the values of a structure, in order; None is one."""
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def rebuilt(tree: Any, values: Iterator[Any]) -> Any:
    """Return a structure of the same shape with these values instead of its own."""
    if isinstance(tree, dict):
        return {name: rebuilt(part, values) for name, part in tree.items()}
    if isinstance(tree, (tuple, list)):
        return type(tree)(rebuilt(part, values) for part in tree)
    return next(values)


def matched(tree: Any, given: Any, name: str, none: bool = False) -> Iterator[tuple[str, Any]]:
    """Yield what messages call each leaf of `tree`, and what stands there in `given`.

    Lists may be given as tuples and the other way. With `none`, None may stand for any part, and
    for all that is in it.
    """
    if given is None and none:
        for _ in leaves(tree):
            yield name, None
    elif isinstance(tree, dict):
        if not isinstance(given, Mapping) or given.keys() != tree.keys():
            names = ", ".join(map(repr, tree))
            what = describe(list(given) if isinstance(given, Mapping) else given)
            has = "has the names" if isinstance(given, Mapping) else "is"
            raise _error(given, Mapping)(f"{name} {has} {what}, expected a dict of {names}")
        for key, part in tree.items():
            yield from matched(part, given[key], f"{name}[{key!r}]", none)
    elif isinstance(tree, (tuple, list)):
        if not isinstance(given, (tuple, list)):
            raise TypeError(f"{name} is {describe(given)}, expected a tuple of {len(tree)}")
        if len(given) != len(tree):
            raise ValueError(f"{name} has {len(given)} entries, expected {len(tree)}")
        for i, (part, value) in enumerate(zip(tree, given, strict=True)):
            yield from matched(part, value, f"{name}[{i}]", none)
    else:
        yield name, given


def _error(given: Any, kind: type) -> type[Exception]:
    return ValueError if isinstance(given, kind) else TypeError
