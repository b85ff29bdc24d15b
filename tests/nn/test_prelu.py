"""PReLU: against PyTorch; in networks, streams, files and other libraries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.numeric import assert_same_bits

T, B, F = 7, 3, 4


def numbers(*shape: int, seed: int = 0, dtype: str = "float32") -> Any:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def made(count: int, dtype: str = "float32") -> lc.PReLU:
    module = lc.PReLU(count, dtype=dtype)
    module.load_state_dict({"weight": numbers(count, seed=3, dtype=dtype)})
    return module


@pytest.mark.parametrize("count", [1, F])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_and_gradients_are_pytorchs(count: int, dtype: str) -> None:
    torch = peers.require("torch")
    module = made(count, dtype)
    x, dy = (numbers(B, T, F, seed=i, dtype=dtype) for i in (0, 1))
    x[0, :4, 0] = 0, -0.0, np.inf, -np.inf
    given = torch.tensor(x, requires_grad=True)
    theirs = torch.nn.PReLU(count, dtype=given.dtype)
    theirs.load_state_dict({"weight": torch.tensor(module.state_dict()["weight"])})
    expected = theirs(given.transpose(1, 2)).transpose(1, 2)
    expected.backward(torch.tensor(dy))
    y, tape = module.forward(x)
    assert_same_bits(module(x), y)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected.detach().numpy())
    before = x.copy()
    x[...] = 5.0  # the tape has its own
    dx = module.backward(tape, dy)
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=1e-6)
    found, wanted = module.parameters()[0].grad, theirs.weight.grad.numpy()
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    finite = np.where(np.isfinite(before), before, 1)
    lc.gradcheck(made(count, "float64"), finite.astype("float64") + 1e-3)


@pytest.mark.parametrize("count", [1, F])
def test_pytorch_there_and_back(count: int) -> None:
    torch = peers.require("torch")
    nn = torch.nn
    module = made(count)
    chain = lc.Sequential(lc.Linear(5, F, seed=0), module)
    beside = lc.Sequential(lc.Conv1D(5, F, 3, seed=0), module)
    for ours in (chain, beside):
        theirs = lc.to_torch(ours)
        assert lc.from_torch(theirs) == ours
        x = numbers(B, 6, 5) if ours is beside else numbers(B, 5)
        with torch.no_grad():
            if ours is beside:
                expected = theirs(torch.tensor(x).transpose(1, 2)).transpose(1, 2).numpy()
            else:
                expected = theirs(torch.tensor(x)).numpy()
        found = ours(x.swapaxes(0, 1)).swapaxes(0, 1) if ours is beside else ours(x)
        np.testing.assert_allclose(found, expected, atol=1e-6)
    x = lc.Input(F)
    network = lc.Model(x, module(x) + x)
    with torch.no_grad():
        expected = lc.to_torch(network)(torch.tensor(numbers(T, B, F))).numpy()
    np.testing.assert_allclose(network(numbers(T, B, F)), expected, atol=1e-6)
    after = nn.Sequential(nn.Embedding(9, 5), nn.PReLU(count))
    if count == 1:
        assert [type(m).__name__ for m in lc.from_torch(after)] == ["Embedding", "PReLU"]
    else:
        with pytest.raises(ValueError, match="takes features as the second axis there"):
            lc.from_torch(after)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("count", [1, F])
@pytest.mark.parametrize("steps", [False, True])
def test_keras_there_and_back(count: int, steps: bool) -> None:
    keras = peers.require("keras")
    gru = [lc.GRU(5, F, batch_first=True, seed=1)] if steps else [lc.Linear(5, F, seed=1)]
    model = lc.Sequential(*gru, made(count), lc.Linear(F, 2, seed=2))
    x = numbers(B, T, 5) if steps else numbers(B, 5)
    symbol = lc.Input(5, steps=steps)
    first = gru[0](symbol)
    y = first[0] if steps else first
    for ours in (model, lc.Model(symbol, model[2](model[1](y)) + 1.0)):
        theirs = lc.to_keras(ours)
        expected = keras.ops.convert_to_numpy(theirs(x))
        np.testing.assert_allclose(ours(x), expected, atol=1e-6)
        np.testing.assert_allclose(lc.from_keras(theirs)(x), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_slopes_of_each_step_are_refused() -> None:
    keras = peers.require("keras")
    layers = keras.layers
    rows = [layers.Input((T, F)), layers.GRU(F, return_sequences=True)]
    with pytest.raises(ValueError, match=r"slopes of shape \(7, 4\).*shared_axes=\[1\]"):
        lc.from_keras(keras.Sequential([*rows, layers.PReLU()]))
    each = keras.Sequential([*rows, layers.TimeDistributed(layers.PReLU())])
    x = numbers(B, T, F)
    np.testing.assert_allclose(
        lc.from_keras(each)(x), keras.ops.convert_to_numpy(each(x)), atol=1e-6
    )


@pytest.mark.parametrize("count", [1, F])
def test_onnx_there_and_back(count: int) -> None:
    peers.require("onnx")
    runtime = peers.require("onnxruntime")
    model = lc.Sequential(
        lc.GRU(5, F, seed=1), made(count), lc.Conv1D(F, F, 2, seed=2), made(count)
    )
    proto = lc.to_onnx(model)
    assert lc.from_onnx(proto) == model
    x = numbers(T, B, 5)
    del proto.metadata_props[:]
    read = lc.from_onnx(proto)
    assert type(read) is lc.Sequential
    expected = runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})[0]
    np.testing.assert_allclose(model(x), expected, atol=1e-6)
    np.testing.assert_allclose(read(x), expected, atol=1e-6)


@pytest.mark.filterwarnings("ignore")  # of the exporter
def test_pytorchs_own_export_becomes_a_model(tmp_path: Path) -> None:
    """Its slopes of channels are (F, 1), before the axis of steps."""
    torch = peers.require("torch")
    peers.require("onnx")
    nn = torch.nn

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.front = nn.Sequential(
                nn.Conv1d(4, 8, 3, padding=3, groups=2, stride=2), nn.PReLU(8), nn.PReLU()
            )
            self.gru = nn.GRU(8, 3, batch_first=True)

        def forward(self, x: Any) -> Any:
            return self.gru(self.front(x.transpose(1, 2)).transpose(1, 2))[0]

    theirs = Net().eval()
    nn.init.normal_(theirs.front[1].weight)
    x = torch.randn(2, 12, 4)
    torch.onnx.export(
        theirs, (x,), tmp_path / "net.onnx", dynamo=False, opset_version=17, input_names=["x"],
        dynamic_axes={"x": {0: "rows", 1: "steps"}},
    )  # fmt: skip
    expected = theirs(x).detach().numpy()
    for ours in (lc.from_onnx(tmp_path / "net.onnx"), lc.from_torch(theirs)):
        assert type(ours) in (lc.Model, lc.Sequential)
        np.testing.assert_allclose(ours(x.numpy()), expected, atol=1e-6)


def test_streams_and_files(tmp_path: Path) -> None:
    model = lc.Sequential(lc.GRU(5, F, seed=1), made(F), lc.Linear(F, 2, seed=2), made(1))
    x = numbers(T, B, 5)
    assert_same_bits(model.stream(B).process(x), model(x))
    lc.save(model, tmp_path / "m.safetensors")
    assert lc.load(tmp_path / "m.safetensors") == model


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="num_parameters is 0"):
        lc.PReLU(0)
    with pytest.raises(ValueError, match=r"x has shape \(2, 3\), expected \(..., 4\)"):
        lc.PReLU(4)(np.ones((2, 3), "f4"))
    with pytest.raises(TypeError, match="x has dtype float64"):
        lc.PReLU(4)(np.ones((2, 4)))
