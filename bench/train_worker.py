"""A worker process that trains as it is told; started by train.py."""

from __future__ import annotations

import importlib
import statistics
from typing import Any

from loops.tasks import TASKS
from worker import series, serve

LIBRARIES = {"lstmcore": ("ours", "Ours"), "torch": ("pytorch", "PyTorch")}


class Loops:
    """A library and the tasks that it has ready."""

    def __init__(self, name: str, threads: int) -> None:
        module, loop = LIBRARIES[name]
        self._make: Any = getattr(importlib.import_module(f"loops.{module}"), loop)
        self._threads = threads
        self._ready: dict[str, Any] = {}

    def about(self) -> dict[str, str]:
        """Return the library's version."""
        return {"version": self._make.version}

    def prepare(self, name: str) -> float:
        """Get a task ready, train for an epoch and return its loss."""
        task = TASKS[name]
        self._ready[name] = self._make(task, self._threads, task.model().state_dict())
        return float(self._ready[name].epoch())

    def time(self, name: str, seconds: float) -> float:
        """Return the median seconds per epoch over `seconds` of epochs."""
        return statistics.median(series(self._ready[name].epoch, seconds, 1))


if __name__ == "__main__":
    serve(lambda name, argument: Loops(name, int(argument)))
