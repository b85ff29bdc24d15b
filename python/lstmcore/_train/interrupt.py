"""Ctrl-C put off until a place where nothing is half done."""

from __future__ import annotations

import signal
import threading
from typing import Any

__all__ = ["Interrupt", "Interrupted"]


class Interrupted(Exception):
    """Ctrl-C was pressed, and this is a good place to stop."""


class Interrupt:
    """Within it, the first Ctrl-C only sets `pressed`; the second one acts as ever."""

    def __init__(self) -> None:
        self.pressed = False
        self._installed = False

    def __enter__(self) -> Interrupt:
        # Python allows handlers in the main thread alone, and the user's own handler stays.
        if (
            threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        ):
            signal.signal(signal.SIGINT, self._press)
            self._installed = True
        return self

    def _press(self, *_: Any) -> None:
        self.pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check(self) -> None:
        """Raise Interrupted if it was pressed."""
        if self.pressed:
            raise Interrupted

    def __exit__(self, *_: object) -> None:
        if self._installed:
            signal.signal(signal.SIGINT, signal.default_int_handler)
