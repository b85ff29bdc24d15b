"""Threads that run at the same time."""

from __future__ import annotations

import threading
from collections.abc import Callable


def in_threads(work: Callable[[int], object], count: int) -> None:
    """Call work(0), work(1) and so on, each in a thread of its own, and wait for all.

    pytest fails a test in one of whose threads something is raised.
    """
    threads = [threading.Thread(target=work, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
