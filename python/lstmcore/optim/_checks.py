"""Checks of what users hand to optimizers, schedules and clipping."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from .._base.checks import describe, number
from .._base.parameter import Parameter

__all__ = ["at_least_0", "keys", "parameters"]


def parameters(values: Iterable[Parameter]) -> list[Parameter]:
    """Return the parameters that are trainable, at least one and none of them twice."""
    if callable(getattr(values, "parameters", None)):
        raise TypeError(
            f"parameters is a {type(values).__name__}, expected what its parameters() returns"
        )
    if not isinstance(values, Iterable) or isinstance(values, (str, Mapping)):
        raise TypeError(f"parameters is {describe(values)}, expected a list of Parameters")
    result = list(values)
    if not result:
        raise ValueError(
            "parameters is empty, expected at least one: a module of your own has those Parameters "
            "and modules that are attributes of it, and not those in a list or dict"
        )
    for p in result:
        if not isinstance(p, Parameter):
            raise TypeError(f"parameters has {describe(p)}, expected Parameters only")
    if len({id(p) for p in result}) < len(result):
        raise ValueError("parameters has one of them twice")
    trainable = [p for p in result if p.trainable]
    if not trainable:
        raise ValueError("parameters has none that is trainable, expected at least one")
    return trainable


def at_least_0(value: object, name: str) -> float:
    """Return a finite float that is not negative."""
    result = number(value, name)
    if result < 0:
        raise ValueError(f"{name} is {value}, expected at least 0")
    return result


def keys(state_dict: Mapping[str, Any], expected: Iterable[str]) -> None:
    """Refuse a state dict that lacks one of these keys or has others."""
    wanted = list(expected)
    complaints = {
        "missing": [k for k in wanted if k not in state_dict],
        "unexpected": [str(k) for k in state_dict if k not in wanted],
    }
    text = "\n  ".join(f"{what}: {', '.join(names)}" for what, names in complaints.items() if names)
    if text:
        raise ValueError(f"state_dict has other keys than expected:\n  {text}")
