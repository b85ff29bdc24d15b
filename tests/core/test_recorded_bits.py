"""The bits that every level with fused multiply-add gives, of any processor: recorded once.

Levels that one machine has are compared with each other elsewhere; these are those of x86-64-v3,
and what NEON is held to. ``python -m core.test_recorded_bits`` in tests/ records them again, for a
new variant; the lines of the others must not change.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.paths import DATA
from helpers.variants import CELLS, Options, make, name_of, states_of, train_step

FILE = DATA / "bits.txt"
LEVELS = [level for level in lc.available_isas() if level != "x86-64-v2"]  # which has none
WIDE: list[Options] = [{}, {"reverse": True}, {"bidirectional": True, "num_layers": 2}]


def digest(arrays: Any) -> str:
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def of_variant(kind: str, options: Options, dtype: str) -> str:
    """The digests of the outputs and of the gradients of a training step."""
    outputs: list[Any] = []
    gradients: list[Any] = []
    for stack in WIDE:
        rng = np.random.default_rng(0)
        layer = make(kind, 5, 19, dtype=dtype, **options, **stack)
        x = rng.standard_normal((6, 4, 5)).astype(dtype)
        state, dstate = states_of(layer, 4, rng), states_of(layer, 4, rng)
        dy = rng.standard_normal(layer(x)[0].shape).astype(dtype)
        result = train_step(layer, x, state, dy, dstate, lengths=[6, 1, 0, 4])
        outputs += result.outputs.values()
        gradients += result.gradients.values()
    return f"{digest(outputs)} {digest(gradients)}"


def of_linear(dtype: str) -> str:
    layer = lc.Linear(40, 33, dtype=dtype, seed=0)
    x = np.random.default_rng(0).standard_normal((7, 40)).astype(dtype)
    y, tape = layer.forward(x)
    dx = layer.backward(tape, y)
    return f"{digest([y])} {digest([dx, *(p.grad for p in layer.parameters())])}"


def of_int8() -> str:
    model = lc.quantize(lc.Sequential(lc.LSTM(40, 33, seed=0), lc.Linear(33, 7, seed=1)))
    x = np.random.default_rng(0).standard_normal((6, 20, 40)).astype("float32")
    return digest([model(x)])


def computed() -> Iterator[tuple[str, str]]:
    for dtype in ("float32", "float64"):
        for kind, options in CELLS:
            yield f"{kind} {name_of(options)} {dtype}", of_variant(kind, options, dtype)
        yield f"Linear {dtype}", of_linear(dtype)
    yield "LSTM and Linear in int8", of_int8()


@pytest.mark.parametrize("level", LEVELS)
def test_bits_are_those_recorded(level: str) -> None:
    before = lc.isa()
    lc.set_isa(level)
    try:
        found = [f"{name}: {bits}" for name, bits in computed()]
    finally:
        lc.set_isa(before)
    assert found == FILE.read_text().splitlines()


if __name__ == "__main__":
    lc.set_isa("x86-64-v3")
    FILE.write_text("".join(f"{name}: {bits}\n" for name, bits in computed()))
