"""Losses and metrics as `fit` is given them: functions, or their names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

from .. import losses as _losses
from .. import metrics as _metrics
from .._base import checks
from .._base.structure import by_key, is_structure, mapped
from .._public.words import named, other_library

__all__ = ["Functions", "Loss", "Metrics", "Scored", "scored"]

Scored: TypeAlias = Callable[..., Any]  # a loss or a metric: (pred, target[, lengths])
Loss: TypeAlias = Scored | str | Mapping[Any, Scored | str | None] | tuple[Scored | str | None, ...]
Metrics: TypeAlias = Mapping[Any, Any] | Sequence[str]

_TAKEN = ("loss", "validation loss")  # what `History.last` calls the losses


def _public(home: Any) -> dict[str, Scored]:
    """Return the functions of a module that say which way is better: not classes or tables."""
    found = {name: getattr(home, name) for name in home.__all__}
    return {name: function for name, function in found.items() if hasattr(function, "mode")}


_LOSSES = _public(_losses)
_METRICS = _LOSSES | _public(_metrics)


class Functions(NamedTuple):
    """What to compute: losses and metrics, by the names under which they are reported."""

    by_name: dict[str, Scored]
    loss_weights: dict[
        str, float
    ]  # of the losses, which make "loss" together: its only one, or all
    output: dict[str, Any]  # of which output each is, of several; one that is not in it, of all
    outputs: dict[Any, bool] | None  # of several outputs, whether each has a loss

    def settings(self) -> dict[str, Any]:
        """Return what the losses are, and their weights, as a checkpoint keeps them.

        It knows losses of this library by their names, and others as somebody's own.
        """
        known = {id(function): name for name, function in _LOSSES.items()}
        losses = {
            name: known.get(id(self.by_name[name]), "a function of your own")
            for name in self.loss_weights
        }
        several = self.outputs is not None
        return {
            "loss": losses if several else losses.get("loss"),
            "loss_weights": dict(self.loss_weights) if several else None,
        }


def scored(loss: Any, metrics: Any, loss_weights: Any = None) -> Functions:
    """Return what to compute."""
    functions = Functions({}, {}, {}, None)
    loss = tuple(loss) if isinstance(loss, list) else loss
    if is_structure(loss):
        functions = _several_losses(loss, loss_weights)
    elif loss_weights is not None:
        raise ValueError("loss_weights are given, but loss is one function: expected a dict")
    elif loss is not None:
        functions = Functions({"loss": _function(loss, "loss", _LOSSES)}, {"loss": 1.0}, {}, None)
    for name, output, metric in _named_metrics(metrics, functions.outputs):
        if not isinstance(name, str) or name in _TAKEN or name in functions.by_name:
            raise ValueError(f"metrics has the name {name!r}, expected a str that no loss has")
        functions.by_name[name] = _function(metric, name, _METRICS)
        if output is not None:
            functions.output[name] = output
    return functions


def _several_losses(loss: Any, loss_weights: Any) -> Functions:
    """Return the losses of several outputs, by the name of the output and "_loss"."""
    functions = Functions({}, {}, {}, mapped(lambda one, _: one is not None, loss, "loss"))
    weights = _loss_weights(loss_weights, loss)
    for key, one in by_key(loss).items():
        if one is not None:
            name = f"{key}_loss"
            functions.by_name[name] = _function(one, f"loss[{key!r}]", _LOSSES)
            functions.loss_weights[name] = weights.get(key, 1.0)
            functions.output[name] = key
    if not functions.by_name:
        raise ValueError(f"loss is {loss!r}, expected a loss for one output at least")
    return functions


def _loss_weights(given: Any, loss: Any) -> dict[Any, float]:
    if given is None:
        return {}
    kind = dict if isinstance(loss, dict) else (tuple, list)
    if not isinstance(given, kind):
        expected = "dict" if isinstance(loss, dict) else "tuple"
        raise TypeError(f"loss_weights is {checks.describe(given)}, expected a {expected}, as loss")
    found, losses = by_key(given), by_key(loss)
    wrong = [key for key in found if losses.get(key) is None]
    if wrong or (kind is not dict and len(found) != len(losses)):
        names = ", ".join(repr(key) for key, one in losses.items() if one is not None)
        raise ValueError(
            f"loss_weights has {', '.join(map(repr, found))}, expected weights of {names}"
        )
    weights = {k: checks.number(w, f"loss_weights[{k!r}]") for k, w in found.items()}
    for key, weight in weights.items():
        if weight < 0:
            raise ValueError(f"loss_weights[{key!r}] is {weight}, expected at least 0")
    return weights


def _named_metrics(metrics: Any, outputs: Any) -> Iterator[tuple[Any, Any, Any]]:
    """Yield the name of each metric, the output that it is of or None, and what is given."""
    keys = () if outputs is None else by_key(outputs)
    for name, metric in _by_name(metrics, "metrics").items():
        several = isinstance(metric, (Mapping, list, tuple))
        if several or (isinstance(metric, str) and name in keys):
            if outputs is not None and name not in keys:
                raise ValueError(
                    f"metrics has the name {name!r}, expected one of the outputs that loss has, "
                    + ", ".join(map(repr, keys))
                )
            for own, one in _by_name(metric, f"metrics[{name!r}]").items():
                yield f"{name}_{own}", name, one
        else:
            yield name, None, metric


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
