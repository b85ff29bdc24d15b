"""Linear, and the data set of the demo."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore.datasets import japanese_vowels

# Linear ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (1,), (4,), (3, 2), (0, 2), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_against_the_definition(leading: tuple[int, ...], bias: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    linear = lc.Linear(5, 3, bias, dtype, seed=2)
    x = rng.standard_normal((*leading, 5)).astype(dtype)
    dy = rng.standard_normal((*leading, 3)).astype(dtype)
    w, *b = (p.data.astype("float64") for p in linear.parameters())
    tolerance = 1e-5 if dtype == "float32" else 1e-14

    y, tape = linear.forward(x)
    dx = linear.backward(tape, dy)

    assert y.dtype == dx.dtype == dtype
    assert_same_bits(linear(x), y)
    np.testing.assert_allclose(y, np.einsum("oi,...i->...o", w, x) + sum(b), atol=tolerance)
    np.testing.assert_allclose(dx, np.einsum("oi,...o->...i", w, dy), atol=tolerance)
    dw = np.einsum("no,ni->oi", dy.reshape(-1, 3), x.reshape(-1, 5))
    gradients = [dw, dy.reshape(-1, 3).sum(axis=0)][: 1 + bias]
    for p, gradient in zip(linear.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad, gradient, atol=tolerance)
    linear.backward(tape, dy)
    for p, gradient in zip(linear.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad, 2 * gradient, atol=2 * tolerance)


def test_linear_starts_like_pytorch() -> None:
    linear = lc.Linear(16, 1000, seed=3)
    for p in linear.parameters():
        assert 0.24 < p.data.max() <= 0.25
        assert -0.25 <= p.data.min() < -0.24
        assert abs(p.data.mean()) < 0.02
    assert linear == lc.Linear(16, 1000, seed=3)
    assert linear != lc.Linear(16, 1000, seed=4)
    assert linear.num_parameters == 17000


def test_linear_takes_pytorchs_parameters() -> None:
    torch = require("torch")
    theirs = torch.nn.Linear(4, 3)
    ours = lc.Linear(4, 3)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), atol=1e-6)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_linear_tape_keeps_the_weights_of_its_forward_call() -> None:
    linear = lc.Linear(4, 3, dtype="float64", seed=0)
    _, tape = linear.forward(np.ones((2, 4)))
    dx = linear.backward(tape, np.ones((2, 3)))
    for p in linear.parameters():
        p.data[...] = 0
    assert_same_bits(linear.backward(tape, np.ones((2, 3))), dx)
    assert not linear(np.ones((2, 4))).any()
    assert tape.nbytes == 2 * 4 * 8  # a copy of x; the packed weights are those of the module


def test_linear_copies() -> None:
    linear = lc.Linear(4, 3, bias=False, dtype="float64", seed=0)
    for twin in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
        assert twin == linear
        twin.parameters()[0].data += 1
        assert twin != linear
    assert repr(linear) == "Linear(4, 3, bias=False, dtype=float64)"
    assert repr(lc.Linear(4, 3)) == "Linear(4, 3)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: lc.Linear(0, 3), ValueError, "in_features is 0, expected at least 1"),
        (lambda f: lc.Linear(4, 2.5), TypeError, "out_features is 2.5"),
        (lambda f: lc.Linear(4, 3, bias=1), TypeError, "bias is 1"),
        (lambda f: lc.Linear(4, 3, dtype="int32"), ValueError, "dtype is .*int32"),
        (lambda f: lc.Linear(4, 3, seed=-1), ValueError, "seed is -1"),
        (lambda f: lc.Linear(10**9, 10**9), MemoryError, "1000000000"),
        (lambda f: f(np.ones((2, 5), "f4")), ValueError, r"x has shape \(2, 5\).*\(\.\.\., 4\)"),
        (lambda f: f(3.0), ValueError, r"x has shape \(\)"),
        (lambda f: f(np.ones((2, 4))), TypeError, "x has dtype float64, expected float32"),
        (lambda f: f(np.ones((2, 4), "c8")), TypeError, "x has dtype complex64"),
        (lambda f: f.backward(None, np.ones(3)), TypeError, "tape is None"),
        (
            lambda f: f.backward(lc.Linear(4, 3).forward(np.ones(4, "f4"))[1], np.ones(3, "f4")),
            ValueError,
            "tape was made by another layer",
        ),
        (
            lambda f: f.backward(f.forward(np.ones((2, 4), "f4"))[1], np.ones((1, 3), "f4")),
            ValueError,
            r"dy has shape \(1, 3\), expected \(2, 3\)",
        ),
        (
            lambda f: f.backward(f.forward(np.ones((2, 4), "f4"))[1], np.ones((2, 3))),
            TypeError,
            "dy has dtype float64",
        ),
        (lambda f: f.load_state_dict({"weight": np.ones((3, 4))}), ValueError, "missing: bias"),
    ],
)
def test_linear_refuses(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    linear = lc.Linear(4, 3, seed=0)
    before = linear.state_dict()
    with pytest.raises(error, match=message):
        call(linear)
    assert_same_bits(linear.state_dict(), before)
    assert not any(p.grad.any() for p in linear.parameters())


# The data -------------------------------------------------------------------------------------


def test_japanese_vowels_are_whole() -> None:
    train, test = japanese_vowels()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    for data in (train, test):
        assert data.x.dtype == np.float32
        assert data.lengths.dtype == data.labels.dtype == np.int64
        assert data.x.shape == (data.lengths.max(), len(data.labels), 12)
        valid = np.arange(len(data.x))[:, None] < data.lengths
        assert not data.x[~valid].any()
        assert data.x[valid].any(axis=1).all()
    # The first and the last frame of ae.train's first block, as the file of the source has them.
    assert train.x[0, 0, :3].tolist() == pytest.approx([1.860936, -0.207383, 0.261557])
    assert train.lengths[:3].tolist() == [20, 26, 22]
