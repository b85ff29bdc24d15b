"""Losses and metrics as `fit` is given them: functions, or their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from .. import losses as _losses
from .. import metrics as _metrics
from .._base import checks
from .words import named, other_library

__all__ = ["Scored", "scored"]

Scored: TypeAlias = Callable[..., Any]  # a loss or a metric: (pred, target[, lengths])

_TAKEN = ("loss", "validation loss")  # what `History.last` calls the losses


def _public(home: Any) -> dict[str, Scored]:
    """Return the functions of a module that say which way is better: not classes or tables."""
    found = {name: getattr(home, name) for name in home.__all__}
    return {name: function for name, function in found.items() if hasattr(function, "mode")}


_LOSSES = _public(_losses)
_METRICS = _LOSSES | _public(_metrics)


def scored(loss: Any, metrics: Any) -> dict[str, Scored]:
    """Return what to compute, by name."""
    functions = {} if loss is None else {"loss": _function(loss, "loss", _LOSSES)}
    for name, metric in _by_name(metrics, "metrics").items():
        if not isinstance(name, str) or name in _TAKEN:
            raise ValueError(f"metrics has the name {name!r}, expected a str that no loss has")
        functions[name] = _function(metric, name, _METRICS)
    return functions


def _by_name(metrics: Any, name: str) -> dict[Any, Any]:
    """Return metrics by what they are called: one that is given by its name is called so."""
    if metrics is None:
        return {}
    if isinstance(metrics, Mapping):
        return dict(metrics)
    names = [metrics] if isinstance(metrics, str) else metrics
    if not isinstance(names, (list, tuple)) or not all(isinstance(n, str) for n in names):
        what = checks.describe(metrics)
        raise TypeError(
            f"{name} is {what}, expected a dict of functions by name, or names of lc.metrics"
        )
    return {n: n for n in names}


def _function(given: Any, name: str, known: Mapping[str, Scored]) -> Scored:
    """Return the function that is given, perhaps by its name."""
    if isinstance(given, str):
        if given not in known:
            raise ValueError(f"{name} is {given!r}, {named(given, known)}")
        return known[given]
    other = other_library(given)
    if other is not None:
        ours = named(other.partition(" ")[0], known)
        raise TypeError(f"{name} is {other}, expected a function of NumPy arrays: {ours}")
    if not callable(given) or isinstance(given, type):
        raise TypeError(f"{name} is {checks.describe(given)}, expected a function or its name")
    return given  # type: ignore[no-any-return]
