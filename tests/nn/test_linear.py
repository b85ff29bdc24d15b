"""Linear: against the definition, and the bits, which depend on nothing else."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits


def arrays(shape: tuple[int, ...], outputs: int, dtype: str) -> tuple[Any, Any]:
    """Return x and dy."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(dtype)
    return x, rng.standard_normal((*shape[:-1], outputs)).astype(dtype)


def results(x: Any, dy: Any, bias: bool = True) -> list[Any]:
    """Return y, dx and the gradients of the parameters."""
    module = lc.Linear(x.shape[-1], dy.shape[-1], bias=bias, dtype=x.dtype, seed=0)
    y, tape = module.forward(x)
    dx = module.backward(tape, dy)
    assert_same_bits(module(x), y)
    return [y, dx, *(p.grad for p in module.parameters())]


@pytest.mark.parametrize("shape", [(3,), (0, 5), (1, 7), (300, 70), (11, 6, 33), (2, 3, 4, 130)])
@pytest.mark.parametrize("outputs", [1, 9, 67])
@pytest.mark.parametrize("bias", [True, False])
def test_against_the_definition(shape: tuple[int, ...], outputs: int, bias: bool, isa: str) -> None:
    for dtype, tolerance in (("float32", 1e-4), ("float64", 1e-12)):
        x, dy = arrays(shape, outputs, dtype)
        module = lc.Linear(shape[-1], outputs, bias=bias, dtype=dtype, seed=0)
        parameters = {n: p.astype("float64") for n, p in module.state_dict().items()}
        w, b = parameters["weight"], parameters.get("bias", 0.0)
        rows, drows = (a.reshape(-1, a.shape[-1]).astype("float64") for a in (x, dy))
        expected = [x @ w.T + b, dy @ w, drows.T @ rows, drows.sum(axis=0)]
        found = results(x, dy, bias)
        assert len(found) == 3 + bias
        for ours, theirs in zip(found, expected, strict=False):
            assert ours.dtype == dtype
            np.testing.assert_allclose(ours, theirs, tolerance, tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_on_nothing_else(dtype: str, isa: str) -> None:
    """Neither on threads, nor on the other rows, nor on how the arrays lie in memory."""
    x, dy = arrays((700, 2, 90), 70, dtype)
    before = lc.get_num_threads()
    found = []
    for threads in (1, 2):
        lc.set_num_threads(threads)
        found.append(results(x, dy))
    lc.set_num_threads(before)
    unaligned = np.frombuffer(b" " + x.tobytes(), "u1")[1:].view(dtype).reshape(x.shape)
    found.append(results(unaligned, np.asfortranarray(dy)))
    found.append(results(x[::-1].copy()[::-1], dy))
    for other in found[1:]:
        for one, two in zip(found[0], other, strict=True):
            assert_same_bits(one, two)
    y, dx = results(x[5, 1], dy[5, 1])[:2]
    assert_same_bits(y, found[0][0][5, 1])
    assert_same_bits(dx, found[0][1][5, 1])


def test_changed_weights_are_packed_anew(isa: str) -> None:
    module = lc.Linear(3, 2, seed=0)
    x = np.ones((4, 3), "float32")
    y, tape = module.forward(x)
    dx = module.backward(tape, np.ones_like(y))
    weight = module.parameters()[0].data
    for twin in (module, copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert_same_bits(twin(x), y)
    weight *= 2  # through an array that was handed out before
    assert not np.array_equal(module(x), y)
    assert_same_bits(module.backward(tape, np.ones_like(y)), dx)


def test_a_gradient_that_cannot_be_added_to() -> None:
    module = lc.Linear(3, 2, seed=0)
    y, tape = module.forward(np.ones((4, 3), "float32"))
    weight, bias = module.parameters()
    bias.grad.flags.writeable = False
    with pytest.raises(ValueError, match=r"^bias\.grad is read-only"):
        module.backward(tape, y)
    assert not weight.grad.any()
