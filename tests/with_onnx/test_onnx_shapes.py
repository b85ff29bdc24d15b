"""Modules that reshape, pad, repeat and pool over windows as ONNX graphs, by ONNX Runtime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from lstmcore.onnx._importing import graph_of

onnx: Any = peers.require("onnx")
runtime: Any = peers.require("onnxruntime")

T, B = 7, 3
LENGTHS = np.array([7, 2, 5])
NAMES = (
    "absolute", "exponential", "hard_sigmoid", "hard_silu", "mish", "relu6", "selu", "softsign",
    "square",
)  # fmt: skip
WINDOWS: tuple[tuple[Any, ...], ...] = ((2,), (3, 2), (2, 3), (3, 1, "same"), (4, 3, "same"))


def keeping_lengths(first: bool) -> list[Any]:
    """Modules that know what becomes of lengths."""
    return [
        *(lc.Activation(name) for name in NAMES),
        lc.Pad1D(2, 1, first),
        lc.Pad1D(-1, 2, first),
        lc.UpSample1D(3, first),
        *(kind(*o, batch_first=first) for kind in (lc.MaxPool1D, lc.AvgPool1D) for o in WINDOWS),
    ]


def others(first: bool) -> list[Any]:
    return [
        lc.Pad1D(0, -2, first),
        lc.Permute((T, 4), (2, 1), first),
        lc.Reshape((T, 4), (-1,), first),
        lc.Reshape((None, 4), (-1, 2), first),
        lc.Sequential(
            lc.Reshape((T, 4), (4 * T,)), lc.RepeatVector(5), lc.GRU(28, 2, batch_first=first)
        ),
    ]


def check(model: Any, lengths: bool) -> None:
    """ONNX Runtime, the graph that is read again, and the model give the same."""
    rng = np.random.default_rng(0)
    first = bool(model.batch_first) if hasattr(model, "batch_first") else False
    x = rng.standard_normal((B, T, 4) if first else (T, B, 4)).astype("f4")
    proto = lc.to_onnx(model, lengths=lengths)
    onnx.checker.check_model(proto, full_check=True)
    feed = {"x": x} | ({"lengths": LENGTHS} if lengths else {})
    run = runtime.InferenceSession(proto.SerializeToString())
    expected = model(x, lengths=LENGTHS) if lengths else model(x)
    for y in (run.run(None, feed)[0], graph_of(proto)(**feed)):
        assert y.shape == expected.shape
        np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)
    assert lc.from_onnx(proto) == model


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("number", range(len(keeping_lengths(False))))
def test_alone_and_in_a_model(number: int, first: bool) -> None:
    module = keeping_lengths(first)[number]
    check(module, False)
    layer = lc.GRU(4, 4, batch_first=first, seed=0)
    model = lc.Sequential(layer, keeping_lengths(first)[number], lc.MeanPool())
    check(model, False)
    if getattr(module, "padding", "valid") == "valid":
        check(model, True)
    x = lc.Input(4)
    check(lc.Model(x, keeping_lengths(first)[number](layer(x)[0] + x)), False)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("number", range(len(others(False))))
def test_without_lengths(number: int, first: bool) -> None:
    check(others(first)[number], False)


@pytest.mark.parametrize("first", [False, True])
def test_rows_without_steps(first: bool) -> None:
    x = np.random.default_rng(0).standard_normal((B, 6)).astype("f4")
    for module in (lc.RepeatVector(5, first), lc.Reshape((6,), (3, 2), first)):
        proto = lc.to_onnx(module)
        run = runtime.InferenceSession(proto.SerializeToString())
        np.testing.assert_array_equal(run.run(None, {"x": x})[0], module(x))


@pytest.mark.parametrize("first", [False, True])
def test_an_autoencoder(first: bool) -> None:
    """Of lengths only what comes before RepeatVector has any."""
    encoder = lc.GRU(4, 5, batch_first=first, seed=0), lc.LastStep()
    decoder = lc.GRU(5, 5, batch_first=first, seed=1), lc.Linear(5, 4, seed=2)
    model = lc.Sequential(*encoder, lc.RepeatVector(T), *decoder)
    check(model, False)


def test_what_onnx_lacks() -> None:
    pool = lc.Sequential(lc.GRU(4, 4), lc.MaxPool1D(2, padding="same"))
    for model, lengths, message in (
        (pool, True, "module 1, MaxPool1D.*whose lengths are given"),
        (lc.Sequential(lc.GRU(4, 4), lc.Pad1D(0, -1)), True, "module 1, Pad1D.*leaves out steps"),
        (lc.Sequential(lc.GRU(4, 4), lc.Permute((7, 4), (2, 1))), True, "1, Permute.*lengths"),
        (lc.Reshape((6,), (3, 2, 1)), False, "Reshape.*axes between time and features"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.to_onnx(model, lengths=lengths)
