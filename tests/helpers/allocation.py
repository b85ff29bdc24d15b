"""What Python allocates."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest


def peak_of(work: Callable[[], Any]) -> int:
    """Bytes that Python has allocated at most, beside what was there."""
    if sys.gettrace() is not None:
        pytest.skip("what follows the lines, for coverage, allocates")
    work()
    tracemalloc.start()
    try:
        work()
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
