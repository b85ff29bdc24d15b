"""The table of ONNX's operators that we know, and how a node finds its own.

Each is a function of the inputs of a node, None for one left out, and of its attributes by name
with ONNX's defaults; so its signature says which attributes and inputs there may be. What changed
between versions of ONNX is a function of its own with the version at which it begins.
"""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from ..._base.machine import memory_limit
from .._model import Node, Tensor
from .._reading import dtype_of

__all__ = [
    "FAILURES",
    "LIMIT",
    "MICROSOFT",
    "Function",
    "TooLarge",
    "bind",
    "growth",
    "in_room",
    "known",
    "names",
    "operator",
    "sizes",
    "too_large",
]

Function: TypeAlias = Callable[..., Any]

# What a node may raise if its inputs or attributes do not fit.
FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)

MICROSOFT = "com.microsoft"  # the domain of what ONNX Runtime makes of models


class TooLarge(ValueError):
    """What a file asks for is more than there is room for."""


class _Version(NamedTuple):
    since: int
    run: Function
    grows: int | str | None


# By domain and name: versions, the oldest first.
_OPERATORS: dict[tuple[str, str], list[_Version]] = {}

# How many bytes an operator may make while constants are computed, else None.
LIMIT: ContextVar[float | None] = ContextVar("LIMIT", default=None)
_SMALL = 2**26  # bytes that any process may use


def operator(
    name: str, since: int = 1, domain: str = "", grows: int | str | None = None
) -> Callable[[Function], Function]:
    """Register a function as what an operator does from a version of ONNX on.

    `grows` bounds its outputs, for constants that are computed once: so many times the bytes of its
    inputs; "pairs" if these are spread to one shape; "asks" if it calls `sizes` before it makes
    anything. Without, every element of an input might meet every one of the others.
    """

    def register(function: Function) -> Function:
        _OPERATORS.setdefault((domain, name), []).append(_Version(since, function, grows))
        return function

    return register


def names() -> list[str]:
    """Return the names of all operators, those of other domains as "domain.name"."""
    return sorted(f"{domain}.{name}" if domain else name for domain, name in _OPERATORS)


def in_room(module: str) -> list[str]:
    """Return the names of a module's operators, with the version they begin at if it is late."""
    found = []
    for (domain, name), versions in _OPERATORS.items():
        if versions[-1].run.__module__ == module:
            full = f"{domain}.{name}" if domain else name
            since = versions[0].since
            found.append(f"{full} (from {since})" if since > 7 else full)
    return sorted(found)


def _version(node: Node) -> _Version | None:
    versions = _OPERATORS.get((node.domain, node.op), ())
    fitting = [v for v in versions if v.since <= node.opset or node.domain]
    return fitting[-1] if fitting else None


def known(node: Node) -> bool:
    """Whether a node is an operator that we know, in its version."""
    return _version(node) is not None


def growth(node: Node, inputs: Sequence[Tensor | None]) -> float:
    """Return how many bytes the node can make of these inputs, at most; 0 if it asks before."""
    version = _version(node)
    given = [a for a in inputs if a is not None]
    if version is None:
        return math.inf
    if version.grows == "asks":
        return 0
    if version.grows == "pairs":
        shape = np.broadcast_shapes(*(a.shape for a in given))
        return 8 * math.prod(shape)
    if isinstance(version.grows, int):
        return version.grows * sum(a.nbytes for a in given)
    return 8.0 * math.prod(max(a.size, 1) for a in given)


_signature = functools.cache(inspect.signature)


def _zero(name: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if value != 0:
            raise ValueError(f"{name}={value} is not supported")

    return check


# Attributes that say so little or so much that they are looked at before anything runs.
_CHECKS: dict[str, Callable[[Any], Any]] = {
    "to": lambda number: dtype_of(number, "to"),
    "stash_type": lambda number: dtype_of(number, "stash_type"),
    "training_mode": _zero("training_mode"),
}


def bind(node: Node) -> Function:
    """Return a function of the inputs of a node.

    Raises
    ------
    ValueError
        If the node is no operator of ours, or has inputs or attributes that ours does not know.
    """
    version = _version(node)
    if version is None:
        raise ValueError(f"{node}: {node.kind} of opset {node.opset} is not supported")
    function = version.run
    attributes = dict(node.attributes)
    signature = _signature(function)
    if "num_outputs" in signature.parameters:
        attributes.setdefault("num_outputs", len(node.outputs))
    keywords = {
        name
        for name, parameter in signature.parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY
    }
    for name in attributes:
        if name not in keywords:
            raise ValueError(f"{node} has the attribute {name!r}, which is not supported")
    try:
        signature.bind(*node.inputs, **attributes)
        for name, check in _CHECKS.items():
            if name in attributes:
                check(attributes[name])
    except (TypeError, ValueError) as error:
        raise ValueError(f"{node} of opset {node.opset}: {error}") from error
    needed = [p.default is p.empty for p in signature.parameters.values()]
    if any(not name and need for name, need in zip(node.inputs, needed, strict=False)):
        raise ValueError(f"{node} of opset {node.opset} lacks an input that it needs")
    return functools.partial(function, **attributes) if attributes else function


def sizes(shape: Any, dtype: np.dtype[Any]) -> list[int]:
    """Return a shape that a file asks for, if an array of it can be."""
    found = [int(n) for n in (shape.tolist() if hasattr(shape, "tolist") else shape)]
    if min(found, default=0) < 0:
        raise ValueError(f"the shape is {found}, with a negative size")
    if too_large(math.prod(found) * dtype.itemsize):
        raise TooLarge(f"{dtype} of shape {found} is more than this process may use")
    return found


def too_large(nbytes: float) -> bool:
    """Whether an array is larger than it may be."""
    limit = LIMIT.get()
    # To ask how much memory there is takes longer than most operators.
    return nbytes > limit if limit is not None else nbytes > _SMALL and nbytes > memory_limit()
