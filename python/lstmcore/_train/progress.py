"""What `fit` shows: a bar on a terminal if tqdm is there, else a line per epoch."""

from __future__ import annotations

import sys
import time
from typing import Any

from .history import History

__all__ = ["Progress"]

_SECONDS = 0.1  # between two updates of the bar


class Progress:
    """The bar counts epochs, in fractions, so that its time left is that of the whole run."""

    def __init__(self, show: bool, epochs: int, done: int) -> None:
        self._show, self._epochs, self._at = show, epochs, float(done)
        self._due = float("inf")
        self._bar: Any = None
        if not show or sys.stderr is None or not sys.stderr.isatty():
            return  # in a file or a log, a bar would be a line of thousands of bars
        try:
            from tqdm import tqdm  # type: ignore[import-untyped]
        except ImportError:
            return
        layout = "{desc}{percentage:3.0f}%|{bar}| {elapsed}<{remaining}{postfix}"
        self._bar = tqdm(
            total=epochs, initial=done, bar_format=layout, smoothing=0, mininterval=0, miniters=0
        )
        self._due = 0.0

    def step(self, epochs: float, loss: float, history: History) -> None:
        """Note so many epochs as done; cheap, because it shows them only now and then."""
        now = time.perf_counter()
        if now >= self._due:
            self._due = now + _SECONDS
            self._draw(epochs, {**history.last(), "loss": loss})

    def epoch(self, history: History) -> None:
        """Show the results of an epoch."""
        if self._bar is not None:
            self._draw(history.epochs, history.last())
        elif self._show:
            line = f"epoch {history.epochs}/{self._epochs}  {_text(history.last())}"
            left = sum(history.time) / history.epochs * (self._epochs - history.epochs)
            print(f"{line}  ({history.time[-1]:.1f} s, {left:.0f} s left)", flush=True)

    def _draw(self, epochs: float, values: dict[str, float]) -> None:
        self._bar.set_description(
            f"epoch {min(int(epochs) + 1, self._epochs)}/{self._epochs}", False
        )
        self._bar.set_postfix_str(_text(values), False)
        self._bar.update(epochs - self._at)
        self._at = epochs

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()


def _text(values: dict[str, float]) -> str:
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())
