"""`load_state_dict` while other threads compute: what they give is of the old or of the new values.

A call notes how many loads there have been, computes, and looks again. If one has begun meanwhile
that wrote to its parameters, it computes anew.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .module import Module
    from .parameter import Parameter

__all__ = ["loading", "whole"]

Result = TypeVar("Result")

_TRIES = 3  # after so many, loads have to wait for the call


class _Loads:
    """All loads of this process."""

    def __init__(self) -> None:
        self.count = 0
        self.renew()

    def renew(self) -> None:
        """Forget a load under way: after a fork, whose thread is not there any more."""
        self.lock = threading.RLock()
        self.busy = False


_LOADS = _Loads()
os.register_at_fork(after_in_child=_LOADS.renew)


@contextlib.contextmanager
def loading(parameters: Collection[Parameter]) -> Iterator[None]:
    """Write to parameters, one load at a time."""
    with _LOADS.lock:
        before = _LOADS.busy
        _LOADS.busy = True  # first: who sees the new count has to see that the load goes on
        _LOADS.count += 1
        for p in parameters:
            p._watch.load = _LOADS.count
        try:
            yield
        finally:
            _LOADS.busy = before


def whole(module: Module, compute: Callable[[], Result]) -> Result:
    """Return what ``compute()`` makes of the parameters of a module, of all before or after a load.

    It may be called again, so all that it may change is what it returns.
    """
    for _ in range(_TRIES):
        before = _LOADS.count
        if _LOADS.busy:
            with _LOADS.lock:  # wait
                continue
        result = compute()
        if _LOADS.count == before or not _loaded_since(module, before):
            return result
    with _LOADS.lock:
        return compute()


def _loaded_since(module: Module, count: int) -> bool:
    return any(p._watch.load > count for _, p in module._named())
