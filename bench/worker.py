"""A worker process: one library, which prepares and times cases as it is told.

Started by workers.py. Messages are pickles on standard input and output: a method of `Worker` and
its arguments; ("ok", result), ("unsupported", why) or ("error", traceback).
"""

from __future__ import annotations

import gc
import os
import pickle
import statistics
import sys
import traceback
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import data
from cases import Case
from limits import Limits, NoCompiler
from peers import OURS, load
from peers.base import Unsupported, Way

LIMITS = "limits"


def series(run: Callable[[], Any], seconds: float, calls: int) -> list[float]:
    """Time batches of `calls` calls for `seconds`, at least one; return seconds per call of each.

    Calls before, for an eighth of the time, bring the data back into the caches.
    """
    end = perf_counter() + seconds / 8
    run()
    while perf_counter() < end:
        run()
    times = []
    end = perf_counter() + seconds
    while True:
        start = perf_counter()
        for _ in range(calls):
            run()
        stop = perf_counter()
        times.append((stop - start) / calls)
        if stop >= end:
            return times


class Worker:
    """A library and the cases that it has ready."""

    def __init__(self, name: str, threads: int) -> None:
        self._peer: Any = load(name, threads)
        self._threads = threads
        self._ready: dict[str, tuple[Way, int]] = {}

    def about(self) -> dict[str, str]:
        """Return the library's version and, of ours, the ISA level."""
        found = {"version": self._peer.version}
        if hasattr(self._peer, "isa"):
            found["isa"] = self._peer.isa
        return found

    def prepare(
        self, key: str, case: Case, threads: int | None, trial: float
    ) -> tuple[str, float, dict[str, data.Array]]:
        """Get a case ready under a key, and run it.

        Each way of running it is tried for `trial` seconds. Returns the name of the fastest, its
        seconds per call, and its outputs.
        """
        numbers = data.make(case)
        best: tuple[float, Way, Any] | None = None
        for way in self._ways(case, numbers, threads):
            way.enter()
            result = way.run()
            seconds = min(series(way.run, trial, 1))
            if best is None or seconds < best[0]:
                best = seconds, way, way.outputs(result)
        if best is None:
            raise Unsupported("no way")
        seconds, way, outputs = best
        self._ready[key] = way, max(1, int(2e-4 / seconds))
        return way.name, seconds, outputs

    def _ways(self, case: Case, numbers: data.Data, threads: int | None) -> Iterator[Way]:
        if threads is None:
            return iter(self._peer.ways(case, numbers))
        return iter(self._peer.ways_on(case, numbers, threads))

    def time(self, key: str, seconds: float) -> float:
        """Return the median seconds per call over `seconds` of calls."""
        way, calls = self._ready[key]
        way.enter()
        return statistics.median(series(way.run, seconds, calls))

    def samples(self, key: str, seconds: float) -> list[float]:
        """Return the seconds of every single call, over `seconds` of calls."""
        way, _ = self._ready[key]
        way.enter()
        return series(way.run, seconds, 1)

    def clear(self) -> None:
        """Forget all cases."""
        self._ready.clear()
        gc.collect()


class LimitsWorker:
    """The machine's limits, as a library like the others."""

    def __init__(self, isa: str) -> None:
        self._limits = Limits(isa)

    def about(self) -> dict[str, str]:
        """Return nothing to tell."""
        return {}

    def flops(self, threads: int, product: bool, seconds: float) -> float:
        """Return float32 operations per second, in registers or of a product."""
        return self._limits.flops(threads, product, seconds)

    def int8(self, threads: int, seconds: float) -> float:
        """Return operations of int8 per second."""
        return self._limits.int8(threads, seconds)

    def read(self, threads: int, size: int, seconds: float) -> float:
        """Return bytes per second, each thread reading `size` bytes of its own."""
        return self._limits.read(threads, size, seconds)


def die_with_parent() -> None:
    """Have Linux end this process, which may be stopped, when the parent is gone."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def serve(make: Callable[[str, str], Any]) -> None:
    """Make a worker from the two arguments, and answer messages until the input ends."""
    die_with_parent()
    name, argument = sys.argv[1:]
    requests, replies = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what libraries print is not a reply

    def reply(kind: str, value: object) -> None:
        pickle.dump((kind, value), replies, protocol=5)
        replies.flush()

    try:
        worker = make(name, argument)
        reply("ok", worker.about())
    except (ImportError, NoCompiler) as error:
        return reply("unsupported", str(error))
    except Exception:
        return reply("error", traceback.format_exc())
    gc.disable()
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return None
        try:
            reply("ok", getattr(worker, method)(*arguments))
        except Unsupported as error:
            reply("unsupported", str(error))
        except Exception:
            reply("error", traceback.format_exc())


def _make(name: str, argument: str) -> Any:
    return LimitsWorker(argument) if name == LIMITS else Worker(name, int(argument))


__all__ = ["LIMITS", "OURS", "Worker", "series", "serve"]

if __name__ == "__main__":
    serve(_make)
