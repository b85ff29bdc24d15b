"""What is trained: the models of examples/ and two more, with their batches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc
from lstmcore.datasets import japanese_vowels

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "examples"))
import adding_problem
import char_language_model
import forecast
import translation

__all__ = ["CLIP", "LR", "TASKS", "Task"]

CLIP = 1.0  # the largest norm of all gradients
LR = 0.001


@dataclass
class Task:
    """A model, and what it is trained with, by Adam.

    Attributes
    ----------
    model : callable
        Makes it, ours; PyTorch gets its numbers.
    batches : callable
        Makes what an epoch goes through, for both libraries.
    loss : str
        "cross_entropy" or "mse".
    truncate : int, optional
        As of `lstmcore.fit`.
    """

    cell: str
    hidden: int
    model: Callable[[], Any]
    batches: Callable[[], Any]
    loss: str = "cross_entropy"
    truncate: int | None = None


def _characters(cell: str, hidden: int) -> Task:
    def text() -> Any:
        return char_language_model.Text(50_000)  # characters, for epochs of a second at most

    def model() -> Any:
        return char_language_model.make(len(text().letters), cell, hidden, 0)

    return Task(cell, hidden, model, lambda: [text().train], truncate=char_language_model.CHUNK)


def _forecast(cell: str, hidden: int) -> Task:
    def batches() -> Any:
        series = (forecast.SPOTS[:, None] / forecast.SPOTS.max()).astype(np.float32)
        windows = lc.data.windows(series, forecast.WINDOW, per_step=True)
        return lc.data.Batches(*windows, batch_size=32, seed=0)

    return Task(cell, hidden, partial(_chain, cell, 1, hidden, 1, False), batches, loss="mse")


def _translation(hidden: int) -> Task:
    def batches() -> Any:
        return translation.draw(1280, 1, 0)[0].batches(64, 0)

    return Task("gru", hidden, partial(translation.make, hidden, 0), batches)


def _vowels(cell: str, hidden: int) -> Task:
    def batches() -> Any:
        train, _ = japanese_vowels()
        return lc.data.Batches(train.x, train.labels, train.lengths, batch_size=30, seed=0)

    return Task(cell, hidden, partial(_chain, cell, 12, hidden, 9, True), batches)


def _adding(cell: str, hidden: int) -> Task:
    def batches() -> Any:
        drawn = adding_problem.draw(np.random.default_rng(0), 1000, 100)
        return lc.data.Batches(*drawn, batch_size=50, seed=0)

    return Task(cell, hidden, partial(_chain, cell, 2, hidden, 1, True), batches, loss="mse")


def _chain(cell: str, inputs: int, hidden: int, outputs: int, last: bool) -> Any:
    layer = {"gru": lc.GRU, "lstm": lc.LSTM}[cell](inputs, hidden, seed=0)
    head = lc.Linear(hidden, outputs, seed=1)
    return lc.Sequential(layer, *[lc.LastStep()] * last, head)


TASKS = {
    f"{name}/{task.cell}/H{task.hidden}": task
    for name, task in [
        ("characters", _characters("gru", 128)),
        ("characters", _characters("lstm", 128)),
        ("characters", _characters("gru", 64)),
        ("characters", _characters("lstm", 64)),
        ("forecast", _forecast("gru", 16)),
        ("translation", _translation(64)),
        ("vowels", _vowels("gru", 32)),
        ("vowels", _vowels("lstm", 32)),
        ("adding", _adding("lstm", 16)),
        ("adding", _adding("lstm", 64)),
    ]
}
