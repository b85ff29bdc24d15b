"""The memory of large results, which the core keeps for the next ones."""

from __future__ import annotations

import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore import _core


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (7, 5), (300, 200), (1000, 2, 600)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_empty(shape: tuple[int, ...], dtype: str) -> None:
    array = _core.empty(shape, pickle.loads(pickle.dumps(np.dtype(dtype))))
    assert array.shape == shape
    assert array.dtype == dtype
    assert array.flags.writeable
    assert array.flags.c_contiguous
    array[...] = 3
    copy = array.copy()
    other = _core.empty(shape, np.dtype(dtype))
    other[...] = 4
    assert_same_bits(array, copy)  # which are not the same memory


def test_empty_refuses() -> None:
    with pytest.raises(MemoryError):
        _core.empty((2**40, 2**40), np.dtype("float32"))
    with pytest.raises(ValueError, match="dtype"):
        _core.empty((2,), np.dtype("int32"))


def test_results_outlive_what_made_them() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 32, 16)).astype("float32")

    def results(seed: int) -> list[Any]:
        model = lc.Sequential(lc.LSTM(16, 64, seed=seed), lc.Linear(64, 16, seed=seed))
        y, tape = model.forward(x)
        dx = model.backward(tape, y)
        return [y, tape.tapes[0]._core.cells(), dx]

    first = results(0)
    copies = [array.copy() for array in first]
    for seed in range(1, 6):
        results(seed)
    for array, copy in zip(first, copies, strict=True):
        assert_same_bits(array, copy)
    for array, again in zip(first, results(0), strict=True):
        assert_same_bits(array, again)


PAGES = """
import resource
import numpy as np
import lstmcore as lc

model = lc.Sequential(
    lc.Embedding(50, 64, seed=0), lc.LSTM(64, 64, seed=0), lc.Linear(64, 50, seed=0)
)
ids = np.random.default_rng(0).integers(0, 50, (400, 32))

def pages(steps):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(steps):
        scores, tape = model.forward(ids)
        loss, dscores = lc.losses.cross_entropy(scores, ids)
        model.zero_grad()
        model.backward(tape, dscores)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

pages(3)
print(pages(10))
"""


def test_training_is_not_given_new_pages_in_every_step() -> None:
    run = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True)
    assert int(run.stdout) < 10 * 500  # of some 8000 that the arrays of a step have
