"""The training loop of lstmcore: `lstmcore.fit`."""

from __future__ import annotations

from typing import Any

import lstmcore as lc

from .tasks import CLIP, LR, Task

__all__ = ["Ours"]


class Ours:
    """A task that is trained by lstmcore."""

    version = lc.__version__

    def __init__(self, task: Task, threads: int, weights: Any) -> None:
        lc.set_num_threads(threads)
        self._task, self._batches = task, task.batches()
        self._model = task.model()
        self._model.load_state_dict(weights)
        self._optimizer = lc.optim.Adam(self._model.parameters(), lr=LR)

    def epoch(self) -> float:
        """Train for one epoch and return the mean loss."""
        history = lc.fit(
            self._model,
            self._batches,
            loss=getattr(lc.losses, self._task.loss),
            optimizer=self._optimizer,
            truncate=self._task.truncate,
            clip_norm=CLIP,
            progress=False,
        )
        return history.losses[0]
