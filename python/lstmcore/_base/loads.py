"""`load_state_dict` while other threads compute: what they give is of the old or of the new values.

A call notes how many loads there have been, computes, and looks again. If one has begun meanwhile
that wrote to its parameters, it computes anew. This costs a call nothing, but loads that follow
each other without a pause would leave it no time. So a call that found a load under way, or that
computed in vain a few times, keeps the next load out until it has ended. Loads take turns in the
order in which they came.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from .module import Module
    from .parameter import Parameter

__all__ = ["loading", "whole"]

Result = TypeVar("Result")

_TRIES = 3  # after so many, loads have to wait for the call


class _Loads:
    """All loads of this process, one at a time, and the calls that keep them out."""

    def __init__(self) -> None:
        self.count = 0
        self.renew()

    def renew(self) -> None:
        """Forget who is under way: after a fork, whose threads are not there any more."""
        self.changed = threading.Condition(threading.Lock())
        self.busy = False
        # Threads, by their numbers. The first load is under way if `busy`.
        self.loads: deque[int] = deque()
        self.waiting: set[int] = set()  # calls that wait for the load under way
        self.calls: set[int] = set()  # calls that loads wait for

    @contextlib.contextmanager
    def one(self) -> Iterator[None]:
        """Be the only load, in turn; within another load of this thread, be a part of it."""
        me, inside = threading.get_ident(), True
        try:
            with self.changed:
                inside = self._loads(me)
                if not inside:
                    self._leave_out(me)  # a call that loads itself does not wait for itself
                    self.loads.append(me)
                    self.changed.wait_for(lambda: self.loads[0] == me and not self.calls)
                    self.busy = True
            yield
        finally:
            if not inside:
                with self.changed:
                    self._end(me)

    @contextlib.contextmanager
    def none(self) -> Iterator[None]:
        """Let the load under way end, and no other begin; within one's own, do nothing."""
        me, inside = threading.get_ident(), True
        try:
            with self.changed:
                inside = self._loads(me) or me in self.calls
                if self.busy and not inside:
                    self.waiting.add(me)
                    self.changed.wait_for(lambda: me in self.calls)
                elif not inside:
                    self.calls.add(me)
            yield
        finally:
            if not inside:
                with self.changed:
                    self._leave_out(me)

    def _loads(self, thread: int) -> bool:
        return self.busy and self.loads[0] == thread

    def _end(self, load: int) -> None:
        if self._loads(load):
            self.busy = False
            # Here, not when those threads run again: the next load may be quicker than they are.
            self.calls |= self.waiting
            self.waiting.clear()
        if load in self.loads:  # neither after a fork
            self.loads.remove(load)
        self.changed.notify_all()

    def _leave_out(self, call: int) -> None:
        self.waiting.discard(call)
        self.calls.discard(call)
        self.changed.notify_all()


_LOADS = _Loads()
os.register_at_fork(after_in_child=_LOADS.renew)


@contextlib.contextmanager
def loading(parameters: Collection[Parameter]) -> Iterator[None]:
    """Write to parameters, one load at a time; calls that waited for the last one go first."""
    with _LOADS.one():  # who sees the new count has to see that the load goes on
        _LOADS.count += 1
        for p in parameters:
            p._watch.load = _LOADS.count
        yield


def whole(module: Module, compute: Callable[[], Result]) -> Result:
    """Return what ``compute()`` makes of the parameters of a module, of all before or after a load.

    It may be called again, so all that it may change is what it returns.
    """
    for _ in range(_TRIES):
        before = _LOADS.count
        if _LOADS.busy:
            break
        result = compute()
        if _LOADS.count == before or not _loaded_since(module, before):
            return result
    with _LOADS.none():
        return compute()


def _loaded_since(module: Module, count: int) -> bool:
    return any(p._watch.load > count for _, p in module._named())
