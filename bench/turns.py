"""Calls that are measured in turns, so that a machine whose speed changes favours none of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from time import perf_counter, process_time
from typing import Any

import numpy as np

__all__ = ["in_turns"]


def in_turns(
    calls: Mapping[str, Callable[[], Any]], rounds: int, least: float = 0.1, *, threads: int = 0
) -> dict[str, Any]:
    """Return the seconds of each call in each round; it is repeated for `least` seconds there.

    The next round begins with the next call. Of one thread they are seconds of processor time, to
    which nothing counts that others do meanwhile.
    """
    clock = process_time if threads == 1 else perf_counter
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for i in range(rounds):
        first = i % len(names)
        for name in names[first:] + names[:first]:
            count, start = 0, clock()
            while count == 0 or clock() - start < least:
                calls[name]()
                count += 1
            found[name].append((clock() - start) / count)
    return {name: np.array(seconds) for name, seconds in found.items()}
