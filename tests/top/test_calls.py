"""How many calls within the library a step takes: what is known once is not found out again.

Counts do not depend on the machine. Where a change needs more of them, look at whether it needs
them in each call, or once, before the limit is raised.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc

HOME = str(Path(lc.__file__).parent)
T, B = 6, 3
X = np.random.default_rng(0).standard_normal((T, B, 4)).astype("float32")
LENGTHS = np.array([6, 4, 1])
TARGET = np.array([0, 1, 1])


def calls_of(step: Callable[[], Any]) -> int:
    """Count the calls of functions of the library, comprehensions among them."""
    count = 0

    def profile(frame: Any, event: str, _: Any) -> None:
        nonlocal count
        count += event == "call" and frame.f_code.co_filename.startswith(HOME)

    step()  # what is made once
    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        step()
    finally:
        sys.setprofile(before)
    return count


def inference() -> Callable[[], Any]:
    layer = lc.LSTM(4, 8, seed=0)
    return lambda: layer(X)


def training() -> Callable[[], Any]:
    layer = lc.LSTM(4, 8, seed=0)

    def step() -> None:
        y, _, tape = layer.forward(X)
        layer.backward(tape, np.ones_like(y))

    return step


def parts() -> tuple[Any, Any, Any]:
    return lc.GRU(4, 8, seed=0), lc.LastStep(), lc.Linear(8, 2, seed=1)


def by_hand() -> Callable[[], Any]:
    layer, last, head = parts()

    def step() -> None:
        y, _, tape = layer.forward(X, lengths=LENGTHS)
        row, row_tape = last.forward(y, lengths=LENGTHS)
        scores, head_tape = head.forward(row)
        dy = last.backward(row_tape, head.backward(head_tape, np.ones_like(scores)))
        layer.backward(tape, dy)

    return step


def network() -> Callable[[], Any]:
    layer, last, head = parts()
    x = lc.Input(4)
    return trained(lc.Model(x, head(last(layer(x)[0]))))


def sequential() -> Callable[[], Any]:
    return trained(lc.Sequential(*parts()))


def trained(model: Any) -> Callable[[], Any]:
    def step() -> None:
        y, tape = model.forward(X, lengths=LENGTHS)
        model.backward(tape, np.ones_like(y))

    return step


@pytest.mark.parametrize(
    ("make", "limit"),
    [(inference, 3), (training, 14), (by_hand, 52), (sequential, 74), (network, 125)],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_calls_of_a_step(make: Any, limit: int) -> None:
    assert 0 < calls_of(make()) <= limit


def test_calls_of_a_step_of_fit() -> None:
    def fit(steps: int) -> int:
        model = lc.Sequential(*parts())
        adam = lc.optim.Adam(model.parameters())
        data = [(X, TARGET, LENGTHS)] * steps
        options: dict[str, Any] = {"clip_norm": 1.0, "progress": False, "optimizer": adam}
        return calls_of(lambda: lc.fit(model, data, loss="cross_entropy", **options))

    assert 0 < (fit(12) - fit(2)) / 10 <= 137
