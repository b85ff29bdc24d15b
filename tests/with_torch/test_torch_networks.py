"""Networks and modules that torch.nn lacks, written to PyTorch as graphs of its functions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.networks import NETWORKS, values_of
from helpers.peers import require
from lstmcore._base.tree import leaves

torch = require("torch")

T, B = 7, 3


def flat(value: Any) -> list[Any]:
    return [np.asarray(part) for part in leaves(value)]


def run(theirs: Any, x: Any) -> list[Any]:
    with torch.no_grad():
        if isinstance(x, dict):
            return flat(theirs(**{name: torch.from_numpy(part) for name, part in x.items()}))
        return flat(theirs(*map(torch.from_numpy, leaves(x))))


def assert_close(got: list[Any], expected: list[Any], tolerance: float = 1e-6) -> None:
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", list(NETWORKS))
def test_networks_there_and_back(name: str, first: bool) -> None:
    mine, _ = NETWORKS[name](first)
    x = values_of(mine)
    expected = flat(mine(x))
    theirs = lc.to_torch(mine).eval()
    assert list(theirs.state_dict()) == list(mine.state_dict())
    assert_close(run(theirs, x), expected)
    assert_close(run(pickle.loads(pickle.dumps(theirs)), x), expected)
    given = [
        lc.Input(a.features, steps=a.steps, ids=a.features is None) for a, _ in mine._plan.given
    ]
    again = lc.from_torch(theirs, inputs=given)
    values = leaves(x)
    assert_close(flat(again(values[0] if len(values) == 1 else values)), expected, 0)


def test_gradients() -> None:
    mine, _ = NETWORKS["two_heads"](True)
    theirs = lc.to_torch(mine)
    x = values_of(mine)
    y, tape = mine.forward(x)
    dx = mine.backward(tape, {name: np.ones_like(part) for name, part in y.items()})
    given = torch.from_numpy(x).requires_grad_()
    sum(part.sum() for part in theirs(given).values()).backward()
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=0, atol=1e-5)
    for (_, p), q in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=0, atol=1e-4)


def modules(first: bool) -> list[Any]:
    """Modules that torch.nn has not, or not with the features last."""
    names = (
        "absolute", "exponential", "hard_sigmoid", "hard_silu", "mish", "relu6", "selu", "softsign",
        "square",
    )  # fmt: skip
    return [
        *(lc.Activation(name) for name in names),
        lc.Permute((T, 4), (2, 1), batch_first=first),
        lc.Reshape((T, 4), (-1,), batch_first=first),
        lc.Reshape((None, 4), (-1, 2), batch_first=first),
        lc.Pad1D(2, 1, batch_first=first),
        lc.Pad1D(-1, 2, batch_first=first),
        lc.UpSample1D(3, batch_first=first),
        lc.Flip(batch_first=first),
        *(
            kind(*options, batch_first=first)
            for kind in (lc.MaxPool1D, lc.AvgPool1D)
            for options in ((2,), (3, 2), (3, 1, "same"), (4, 1, "same"))
        ),
        lc.EachStep(lc.Sequential(lc.Linear(4, 5, seed=1), lc.Tanh()), batch_first=first),
        lc.Sequential(lc.Linear(4, 4), lc.Activation("mish"), lc.UpSample1D(2, batch_first=first)),
    ]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("number", range(len(modules(False))))
def test_modules(number: int, first: bool) -> None:
    mine = modules(first)[number]
    x = np.random.default_rng(0).standard_normal((B, T, 4) if first else (T, B, 4)).astype("f4")
    theirs = lc.to_torch(mine).eval()
    assert list(theirs.state_dict()) == list(mine.state_dict())
    assert_close(run(copy.deepcopy(theirs), x), flat(mine(x)))


@pytest.mark.parametrize("inner", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_sequences_in_each_step(first: bool, inner: bool) -> None:
    letters = lc.Embedding(9, 4, seed=0), lc.GRU(4, 3, batch_first=inner, seed=1)
    for pool in ((lc.LastStep(),), (lc.Linear(3, 2, seed=2),)):
        mine = lc.EachStep(lc.Sequential(*letters, *pool), batch_first=first)
        ids = np.random.default_rng(0).integers(0, 9, (T, B, 5))
        theirs = lc.to_torch(mine)
        assert list(theirs.state_dict()) == list(mine.state_dict())
        assert_close(run(theirs, ids), flat(mine(ids)))


def test_rows_without_steps() -> None:
    x = np.random.default_rng(0).standard_normal((B, 6)).astype("f4")
    for first in (False, True):
        for mine in (lc.RepeatVector(5, first), lc.Reshape((6,), (3, 2), first)):
            assert_close(run(lc.to_torch(mine), x), flat(mine(x)), 0)


@pytest.mark.parametrize("first", [False, True])
def test_attention(first: bool) -> None:
    rng = np.random.default_rng(0)
    shapes = [(B, n, 4) if first else (n, B, 4) for n in (3, T, T)]
    x = tuple(rng.standard_normal(shape).astype("f4") for shape in shapes)
    for mine in (
        lc.attention.Additive(4, batch_first=first, seed=0),
        lc.attention.Additive(4, scale=False, batch_first=first),
        lc.attention.ScaledDotProduct(batch_first=first),
        lc.attention.ScaledDotProduct(0.3, batch_first=first),
    ):
        theirs = lc.to_torch(mine)
        assert list(theirs.state_dict()) == list(mine.state_dict())
        assert_close(run(theirs, x), flat(mine(*x)))


@pytest.mark.parametrize("first", [False, True])
def test_a_network_of_them(first: bool) -> None:
    x = lc.Input(4)
    y = lc.BatchNorm(4)(lc.Conv1D(4, 4, 3, padding="same", seed=0, batch_first=first)(x))
    query, _ = lc.GRU(4, 4, batch_first=first, seed=1)(y)
    seen, _ = lc.attention.Additive(4, batch_first=first, seed=2)(query, y, y)
    pooled = lc.MaxPool1D(2)(lc.concat([seen, query]))
    mine = lc.Model(x, lc.EachStep(lc.Linear(8, 2, seed=3))(pooled))
    given = values_of(mine)
    theirs = lc.to_torch(mine).eval()
    assert list(theirs.state_dict()) == list(mine.state_dict())
    assert_close(run(theirs, given), flat(mine(given)))


def test_convolutions_and_pooling_there_and_back() -> None:
    nn = torch.nn
    theirs = nn.Sequential(
        nn.Conv1d(4, 6, 3), nn.Mish(), nn.MaxPool1d(2), nn.Conv1d(6, 5, 1), nn.AvgPool1d(3, 1)
    )
    x = torch.randn(B, 4, 12)
    mine = lc.from_torch(theirs)
    assert [type(m).__name__ for m in mine] == [
        "Conv1D", "Activation", "MaxPool1D", "Conv1D", "AvgPool1D",
    ]  # fmt: skip
    with torch.no_grad():
        expected = theirs(x).numpy()
    rows = np.ascontiguousarray(x.numpy().transpose(2, 0, 1))
    np.testing.assert_allclose(mine(rows).transpose(1, 2, 0), expected, rtol=0, atol=1e-6)
    again = lc.to_torch(mine)
    assert [type(m).__name__ for m in again] == [type(m).__name__ for m in theirs]
    with torch.no_grad():
        assert torch.equal(again(x), theirs(x))


@pytest.mark.parametrize("name", ["Hardsigmoid", "Hardswish", "Mish", "ReLU6", "SELU", "Softsign"])
def test_activations_there_and_back(name: str) -> None:
    theirs = getattr(torch.nn, name)()
    x = torch.linspace(-9, 9, 101, dtype=torch.float64)
    mine = lc.from_torch(theirs)
    np.testing.assert_allclose(mine(x.numpy()), theirs(x).numpy(), rtol=0, atol=1e-12)
    assert type(lc.to_torch(mine)) is type(theirs)


def test_what_pytorch_lacks() -> None:
    x = lc.Input(3)
    y, lengths = lc.Masking(0.0)(x)
    for module, error, message in (
        (
            lc.MaxPool1D(2, padding="same"),
            ValueError,
            "padding='same' cannot be written",
        ),
        (lc.Model(x, lc.GRU(3, 4)(y, lengths=lengths)[0]), TypeError, "Masking.* no counterpart"),
        (lc.Model(x, lc.GRU(3, 4, reset_after=False)(x)[0]), ValueError, "reset_after=False"),
        (lc.quantize(lc.Model(x, lc.GRU(3, 4)(x)[1][0])), ValueError, "int8 cannot be written"),
        (lc.EachStep(lc.LSTM(3, 4, peephole=True)), ValueError, "peephole=True"),
    ):
        with pytest.raises(error, match=message):
            lc.to_torch(module)
    for theirs, message in (
        (torch.nn.MaxPool1d(2, padding=1), "padding=1, expected 0"),
        (torch.nn.MaxPool1d(2, dilation=2), "dilation=2, expected 1"),
        (torch.nn.AvgPool1d(2, ceil_mode=True), "ceil_mode=True, expected False"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.from_torch(theirs)
