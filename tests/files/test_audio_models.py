"""RTNeural's JSON and NAM's LSTMs, held to the loops of their own programs, written in NumPy."""

from __future__ import annotations

import contextlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lstmcore as lc
from helpers import bad_files

Array = Any
RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype("f4").astype("f8")


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


# RTNeural -----------------------------------------------------------------------------------------


def layer(kind: str, size: int, weights: list[Array], activation: str = "", **more: Any) -> Any:
    arrays = [w.tolist() for w in weights]
    return {"type": kind, "activation": activation, "shape": [None, None, size],
            "weights": arrays, **more}  # fmt: skip


def network() -> dict[str, Any]:
    """As a script of RTNeural writes it: a layer of every type."""
    return {
        "in_shape": [None, None, 2],
        "layers": [
            layer("time-distributed-dense", 3, [numbers(2, 3), numbers(3)], "tanh"),
            layer("conv1d", 4, [numbers(3, 3, 4), numbers(4)], "relu", kernel_size=[3],
                  dilation=[2]),
            layer("gru", 5, [numbers(4, 15), numbers(5, 15), numbers(2, 15)], "tanh"),
            layer("lstm", 3, [numbers(5, 12), numbers(3, 12), numbers(12)], "tanh"),
            layer("activation", 3, [], "elu"),
            layer("dense", 2, [numbers(3, 2), numbers(2)], "sigmoid"),
        ],
    }  # fmt: skip


def gru_sample(weights: Any, x: Array, h: Array) -> Array:
    """One sample: z, r and the candidate, whose h comes multiplied by r behind its bias."""
    w, u, b = map(np.asarray, weights)
    H = len(h)
    z = sigmoid(x @ w[:, :H] + b[0, :H] + h @ u[:, :H] + b[1, :H])
    r = sigmoid(x @ w[:, H : 2 * H] + b[0, H : 2 * H] + h @ u[:, H : 2 * H] + b[1, H : 2 * H])
    c = np.tanh(x @ w[:, 2 * H :] + b[0, 2 * H :] + r * (h @ u[:, 2 * H :] + b[1, 2 * H :]))
    return (1 - z) * c + z * h


def lstm_sample(w: Array, u: Array, b: Array, x: Array, h: Array, c: Array) -> tuple[Array, Array]:
    """One sample: gates in the order i, f, c, o."""
    i, f, g, o = np.split(x @ w + h @ u + b, 4)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def run_network(content: dict[str, Any], xs: Array) -> Array:
    """Sample by sample, as RTNeural does."""
    dense, conv, gru, lstm, _, last = (one["weights"] for one in content["layers"])
    past: list[Array] = []
    h, g, c = np.zeros(5), np.zeros(3), np.zeros(3)
    ys = []
    for x in xs:
        past.append(np.tanh(x @ np.asarray(dense[0]) + dense[1]))
        y = np.asarray(conv[1], "f8")
        for k in range(3):  # the last of the kernel meets the newest sample
            t = len(past) - 1 - 2 * (2 - k)
            y = y + (past[t] @ np.asarray(conv[0])[k] if t >= 0 else 0)
        h = gru_sample(gru, np.maximum(y, 0), h)
        g, c = lstm_sample(*map(np.asarray, lstm), h, g, c)
        bent = np.where(g > 0, g, np.expm1(g))
        ys.append(sigmoid(bent @ np.asarray(last[0]) + last[1]))
    return np.array(ys)


def test_rtneural(tmp_path: Path) -> None:
    content = network()
    path = tmp_path / "model.json"
    path.write_text(json.dumps(content, indent=4))
    model = lc.from_rtneural(path)
    assert [type(m).__name__ for m in model] == [
        "Linear", "Tanh", "Conv1D", "ReLU", "GRU", "LSTM", "ELU", "Linear", "Sigmoid",
    ]  # fmt: skip
    x = numbers(20, 2)
    expected = run_network(content, x)
    np.testing.assert_allclose(model(x[:, None].astype("f4"))[:, 0], expected, atol=2e-6)
    assert lc.from_rtneural(path.read_bytes()) == model
    assert lc.from_rtneural(io.BytesIO(path.read_bytes())) == model
    recurrent = lc.from_rtneural(
        json.dumps({**content, "in_shape": 4, "layers": content["layers"][2:4]}).encode()
    )
    y = recurrent.stream().process(numbers(9, 1, 4).astype("f4"))
    assert y.shape == (9, 1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.pop("in_shape"), "it has no 'in_shape'"),
        (lambda c: c.update(layers={}), "layers is .*expected a list"),
        (lambda c: c.update(layers=[]), "layers is empty"),
        (lambda c: c["layers"][2].update(type="prelu"), "layer 2: its type is 'prelu'"),
        (lambda c: c["layers"][0].update(activation="swish"), "layer 0: its activation is 'swish'"),
        (lambda c: c["layers"][3].update(shape=[None, 10**9]), "layer 3: shape is 1000000000"),
        (lambda c: c["layers"][3].update(shape=[None, 7]), r"\(5, 12\), expected \(5, 28\)"),
        (lambda c: c["layers"][0]["weights"].pop(), "it has 1 arrays of weights, expected 2"),
        (lambda c: c["layers"][0]["weights"][0][0].pop(), "rows of several lengths"),
        (lambda c: c["layers"][0].update(weights=["a", "b"]), "weights is 'a'.*expected a list"),
        (lambda c: c["layers"][1].update(groups=2), "layer 1: groups is 2, expected 1"),
        (lambda c: c["layers"].insert(0, 3), "layer 0: "),
    ],
)
def test_what_is_no_model_of_rtneural(change: Any, message: str) -> None:
    content = network()
    change(content)
    with pytest.raises(ValueError, match=message):
        lc.from_rtneural(json.dumps(content).encode())


# NAM ----------------------------------------------------------------------------------------------


def amplifier(inputs: int, units: int, layers: int) -> dict[str, Any]:
    """As the trainer writes it: for each cell matrix, bias, h and c; then the head."""
    weights: list[Array] = []
    for level in range(layers):
        size = units if level else inputs
        weights += [numbers(4 * units * (size + units)), numbers(4 * units), numbers(2 * units)]
    weights += [numbers(units), numbers(1)]
    return {
        "version": "0.5.4",
        "architecture": "LSTM",
        "config": {"input_size": inputs, "hidden_size": units, "num_layers": layers},
        "weights": np.concatenate(weights).tolist(),
        "sample_rate": 48000,
    }


def run_amplifier(content: dict[str, Any], xs: Array) -> Array:
    """The program's own loop over samples, reading the weights one after the other."""
    left = iter(content["weights"])
    H, count = content["config"]["hidden_size"], content["config"]["num_layers"]

    def take(*shape: int) -> Array:
        return np.array([next(left) for _ in range(int(np.prod(shape)))]).reshape(shape)

    cells = []
    for level in range(count):
        size = H if level else content["config"]["input_size"]
        cells.append([take(4 * H, size + H), take(4 * H), take(H), take(H)])
    head, bias = take(H), take(1)
    assert next(left, None) is None
    ys = []
    for x in xs:
        for cell in cells:
            w, b, h, c = cell
            gates = w @ np.concatenate([x, h]) + b
            i, f, g, o = np.split(gates, 4)
            c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
            x = sigmoid(o) * np.tanh(c)
            cell[2:] = x, c
        ys.append(head @ x + bias)
    return np.array(ys)


@pytest.mark.parametrize(("inputs", "units", "layers"), [(1, 3, 1), (1, 4, 3), (2, 1, 2)])
def test_nam(tmp_path: Path, inputs: int, units: int, layers: int) -> None:
    content = amplifier(inputs, units, layers)
    path = tmp_path / "amplifier.nam"
    path.write_text(json.dumps(content))
    model, state = lc.from_nam(path)
    x = numbers(30, inputs)
    expected = run_amplifier(content, x)
    y, _ = model.run(x[:, None].astype("f4"), state)
    np.testing.assert_allclose(y[:, 0], expected, atol=2e-5, rtol=1e-5)
    stream = model.stream()
    stream.state = state
    np.testing.assert_array_equal(stream.process(x[:, None].astype("f4")), y)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "WaveNet"}, "its architecture is 'WaveNet'.*expected 'LSTM'"),
        ({"config": {"input_size": 1, "hidden_size": 3}}, "it has no 'num_layers'"),
        ({"config": {"input_size": 1, "hidden_size": 0, "num_layers": 1}}, "hidden_size is 0"),
        (
            {"config": {"input_size": 1, "hidden_size": 10**6, "num_layers": 10**6}},
            "there are 70 weights, expected",
        ),
        ({"weights": [[1.0]]}, "no list of real numbers with 1 axes"),
        ({"weights": ["1"]}, "no list of real numbers"),
        ({"weights": [1.0] * 69}, "there are 69 weights, expected 70"),
    ],
)
def test_what_is_no_lstm_of_nam(change: dict[str, Any], message: str) -> None:
    content = amplifier(1, 3, 1) | change
    with pytest.raises(ValueError, match=message):
        lc.from_nam(json.dumps(content).encode())


def test_what_is_no_json() -> None:
    for read in (lc.from_nam, lc.from_rtneural):
        for content in (b"", b"\xff\xfe", b"[1]", b"[" * 10**5):
            with pytest.raises(ValueError, match=r"^the content given as file"):
                read(content)
        with pytest.raises(TypeError, match="file is 3"):
            read(3)


TEXTS = [json.dumps(network()).encode(), json.dumps(amplifier(1, 3, 2)).encode()]


@bad_files.FUZZ
@given(st.data())
def test_changed_texts_are_read_or_refused(data: Any) -> None:
    text = bytearray(data.draw(st.sampled_from(TEXTS)))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(text) - 1))
        with_what = data.draw(st.sampled_from([b"", b"[", b"]", b"9", b"-", b"e9", b",", b"null"]))
        text[at : at + data.draw(st.integers(0, 3))] = with_what
    for read in (lc.from_rtneural, lc.from_nam):
        with contextlib.suppress(ValueError):
            read(bytes(text))
