"""Tied parameters: one that several modules have, under a name in each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from . import checks
from .parameter import Parameter

__all__ = ["other_names", "share_watch", "under_first_names", "use_parameter"]


def use_parameter(module: Any, name: str, other: Any, other_name: str) -> None:
    """Put a parameter of `other` in the place of that of `module`."""
    home = _home(module, name)
    own, given = home[name], _home(other, other_name)[other_name]
    if (own.shape, own.dtype) != (given.shape, given.dtype):
        raise ValueError(
            f"{other_name} of {other!r} has shape {given.shape} and dtype {given.dtype}, expected "
            f"{own.shape} and {own.dtype}, as {name} of {module!r} has"
        )
    if given.sparse:
        raise ValueError(f"{other!r} has sparse=True, expected False: all rows get a gradient now")
    twice = next((one for one, p in home.items() if p is given and one != name), None)
    if twice is not None:
        raise ValueError(f"{module!r} has that as {twice} already, expected it once in a module")
    watch = given._watch
    if module._watch is not watch and module._watch.shared:
        raise ValueError(
            f"{module!r} is tied to another module already, expected to tie others to it: "
            f"other.tie({other_name!r}, module)"
        )
    # Whatever has a parameter of a module has to learn when it may have changed, so all have one
    # Watch.
    home[name] = given
    share_watch([other, module])
    given._keep_all_rows()
    watch.token = object()


def share_watch(modules: list[Any]) -> None:
    """Give modules one Watch, as tied ones have."""
    watch = modules[0]._watch
    watch.shared = watch.shared or len(modules) > 1
    for module in modules:
        module._watch = watch
        for p in (*module._parameters.values(), *module._buffers.values()):
            p._watch = watch


def _home(module: Any, name: Any) -> dict[str, Parameter]:
    """Return the dict in which a module has a parameter, or what is stored beside them."""
    if not hasattr(module, "_watch"):
        raise TypeError(
            f"{checks.describe(module)} has no parameters of its own, expected a layer, a Linear, "
            "an Embedding or the like (in a module of your own, set the attribute)"
        )
    for home in (module._parameters, module._buffers):
        if name in home:
            found: dict[str, Parameter] = home
            return found
    names = ", ".join(module._parameters)
    raise ValueError(f"{module!r} has no parameter {name!r}, expected one of {names}")


def other_names(module: Any) -> dict[str, str]:
    """Return the further names of all that is in several places: for each its first name."""
    first: dict[int, str] = {}
    others: dict[str, str] = {}
    for path, part in module._modules():
        for name, p in (*part._parameters.items(), *part._buffers.items()):
            full = f"{path}.{name}" if path else name
            known = first.setdefault(id(p), full)
            if known != full:
                others[full] = known
    return others


def under_first_names(
    state_dict: Mapping[str, Any], others: Mapping[str, str]
) -> tuple[Mapping[str, Any], list[str]]:
    """Return a state dict without those further names, and what is wrong with their values."""
    if not any(name in state_dict for name in others):
        return state_dict, []
    complaints = []
    found = {key: value for key, value in state_dict.items() if key not in others}
    for name, first in others.items():
        if name in state_dict:
            given = found.setdefault(first, state_dict[name])
            try:
                if given is not state_dict[name] and not _same(given, state_dict[name], name):
                    complaints.append(f"{name} is not {first}, expected the same: they are tied")
            except TypeError as error:
                complaints.append(str(error))
    return found, complaints


def _same(a: Any, b: Any, name: str) -> bool:
    one, two = (checks.plain(x, name) for x in (a, b))
    return np.array_equal(one, two, equal_nan=one.dtype.kind == two.dtype.kind == "f")
