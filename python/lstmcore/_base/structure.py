"""Values that are one array, or a tuple or dict of arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ["are_several", "by_key", "is_structure", "leaves", "mapped"]


def is_structure(value: Any) -> bool:
    """Whether it is several arrays: a tuple or a dict of them."""
    return isinstance(value, (tuple, dict))


def are_several(lengths: Any) -> bool:
    """Whether these are lengths of several inputs, and not those of the rows in a tuple."""
    if isinstance(lengths, tuple):
        return not all(isinstance(n, (int, np.integer)) for n in lengths)
    return isinstance(lengths, dict)


def leaves(value: Any) -> list[Any]:
    """Return the arrays: one, those of a tuple, or those of a dict."""
    if isinstance(value, dict):
        return list(value.values())
    return list(value) if isinstance(value, tuple) else [value]


def by_key(value: Any) -> dict[Any, Any]:
    """Return the arrays of a dict by their names, or those of a tuple by their numbers."""
    return dict(value) if isinstance(value, dict) else dict(enumerate(value))


def mapped(function: Callable[[Any, str], Any], value: Any, name: str) -> Any:
    """Return the same structure of what the function makes of each array and of its name."""
    if isinstance(value, dict):
        return {key: function(part, f"{name}[{key!r}]") for key, part in value.items()}
    if isinstance(value, tuple):
        return tuple(function(part, f"{name}[{i}]") for i, part in enumerate(value))
    return function(value, name)
