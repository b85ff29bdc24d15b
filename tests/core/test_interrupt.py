"""Long calls end when the handler of a signal raises, and leave nothing changed."""

import signal
from collections.abc import Callable
from typing import NoReturn

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits

# A call of several seconds, of little memory.
UNITS, STEPS = 1536, 12000


class Alarm(Exception):
    """What the handler raises."""


def interrupted(call: Callable[[], object]) -> None:
    """Run a call while an alarm rings, whose handler raises the third time.

    Where handlers run only after the call, the many alarms during it are handled as one.
    """
    rung = 0

    def handle(*_: object) -> None:
        nonlocal rung
        rung += 1
        if rung == 3:
            signal.setitimer(signal.ITIMER_REAL, 0)
            raise Alarm

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05, 0.05)
        with pytest.raises(Alarm):
            call()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def small_input(steps: int = 3, batch: int = 1) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((steps, batch, 2), np.float32)


@pytest.mark.parametrize("bidirectional", [False, True], ids=["one direction", "two directions"])
@pytest.mark.parametrize("batch", [1, 3], ids=["one row", "three rows"])
def test_inference(bidirectional: bool, batch: int) -> None:
    """One row is shared by units, three rows by rows."""
    lstm = lc.LSTM(2, UNITS, bidirectional=bidirectional, seed=0)
    before = lstm(small_input(batch=batch))[0]
    interrupted(lambda: lstm(small_input(STEPS // batch, batch)))
    assert_same_bits(lstm(small_input(batch=batch))[0], before)


@pytest.mark.parametrize("kind", [lc.LSTM, lc.GRU], ids=["LSTM", "GRU"])
def test_training(kind: type[lc.LSTM | lc.GRU]) -> None:
    layer = kind(2, UNITS, seed=0)
    x = small_input(STEPS // 8)
    interrupted(lambda: layer.forward(small_input(STEPS)))
    y, _, tape = layer.forward(x)
    for parameter in layer.parameters():
        parameter.grad[...] = 0.5
    interrupted(lambda: layer.backward(tape, np.ones_like(y)))
    for parameter in layer.parameters():
        assert (parameter.grad == 0.5).all(), parameter.name


def test_a_stream() -> None:
    stream = lc.LSTM(2, UNITS, seed=0).stream()
    stream.process(small_input()[:, 0])
    before = [np.copy(part) for part in stream.state]
    interrupted(lambda: stream.process(small_input(STEPS)[:, 0]))
    for now, part in zip(stream.state, before, strict=True):
        assert_same_bits(now, part)


def test_a_handler_that_returns_changes_nothing() -> None:
    lstm = lc.LSTM(2, 256, seed=0)
    x = small_input(20000)
    expected, rung = lstm(x)[0], 0

    def handle(*_: object) -> None:
        nonlocal rung
        rung += 1

    before = signal.signal(signal.SIGALRM, handle)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        y = lstm(x)[0]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert_same_bits(y, expected)
    assert rung > 0


def test_exceptions_of_handlers_come_through() -> None:
    lstm = lc.LSTM(2, UNITS, seed=0)

    def fail(*_: object) -> NoReturn:
        raise RuntimeError("from the handler")

    before = signal.signal(signal.SIGALRM, fail)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(RuntimeError, match="from the handler"):
            lstm(small_input(STEPS))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
