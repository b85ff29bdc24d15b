"""Recomputed tapes: the same bits as one long tape, in the memory of a few steps."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import variants
from helpers.numeric import assert_same_bits


def results(layer: Any, x: np.ndarray, recompute: bool, **sequences: Any) -> list[np.ndarray]:
    """Outputs, every gradient and what the tape shows, with random states and gradients."""
    rng = np.random.default_rng(1)
    batch = x.shape[0 if layer.batch_first else 1]
    state = variants.states_of(layer, batch, rng)
    dstate = variants.states_of(layer, batch, rng)
    wrap = (lambda s: s) if isinstance(layer, lc.LSTM) else (lambda s: s[0])
    layer.zero_grad()
    y, last, tape = layer.forward(x, wrap(state), recompute=recompute, **sequences)
    dy = rng.standard_normal(y.shape).astype(y.dtype)
    dx, first = layer.backward(tape, dy, wrap(dstate))
    found = [y, dx, *(p.grad.copy() for p in layer.parameters()), *tape.gates().values()]
    for states in (last, first):
        found += states if isinstance(states, tuple) else [states]
    return found + ([tape.cells()] if isinstance(layer, lc.LSTM) else [])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kind", "options"), variants.CELLS)
def test_same_bits(isa: str, kind: str, options: dict[str, Any], batch_first: bool) -> None:

    def made() -> Any:  # anew for each, as masks are others in the next call
        return variants.make(kind, 5, 7, num_layers=2, batch_first=batch_first, **options)

    rng = np.random.default_rng(0)
    shape = (4, 23) if batch_first else (23, 4)
    x = rng.standard_normal((*shape, 5)).astype(made().dtype)
    for sequences in (
        {},
        {"lengths": [3, 23, 0, 11], "resets": rng.random(shape) < 0.2},
    ):
        whole = results(made(), x, False, **sequences)
        for mine, other in zip(results(made(), x, True, **sequences), whole, strict=True):
            assert_same_bits(mine, other)


@pytest.mark.parametrize("time", [0, 1, 2, 4, 5, 9, 10, 100])
def test_any_number_of_steps(time: int) -> None:
    layer = lc.GRU(3, 4, seed=0)
    x = np.random.default_rng(0).standard_normal((time, 2, 3)).astype("float32")
    for mine, other in zip(results(layer, x, True), results(layer, x, False), strict=True):
        assert_same_bits(mine, other)


def test_dropout_keeps_its_masks() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 6, 3)).astype("float32")
    both = []
    for recompute in (False, True):
        layer = lc.LSTM(3, 8, num_layers=3, dropout=0.4, seed=5)
        both.append(results(layer, x, recompute, lengths=[30, 2, 17, 0, 29, 16]))
    for mine, other in zip(*both, strict=True):
        assert_same_bits(mine, other)


def test_memory_grows_with_the_root() -> None:
    layer = lc.LSTM(8, 16, seed=0)

    def held(time: int) -> int:
        x = np.zeros((time, 2, 8), "float32")
        return layer.forward(x, recompute=True)[2].nbytes

    one, hundred = held(100), held(10_000)
    assert one <= hundred <= 11 * one
    x = np.zeros((10_000, 2, 8), "float32")
    assert 50 * hundred < layer.forward(x)[2].nbytes


def test_backward_needs_no_whole_tape() -> None:
    layer = lc.LSTM(1, 64, seed=0)
    x = np.zeros((10_000, 1, 1), "float32")
    y, _, tape = layer.forward(x, recompute=True)
    tracemalloc.start()  # sees NumPy's arrays
    layer.backward(tape, np.ones_like(y))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * y.nbytes


def test_only_for_layers_that_read_forward() -> None:
    x = np.zeros((3, 1, 2), "float32")
    for layer in (lc.GRU(2, 3, bidirectional=True), lc.GRU(2, 3, reverse=True)):
        with pytest.raises(ValueError, match="recompute is True, expected False"):
            layer.forward(x, recompute=True)
    with pytest.raises(TypeError, match="recompute is 1"):
        lc.GRU(2, 3).forward(x, recompute=1)  # type: ignore[arg-type]
