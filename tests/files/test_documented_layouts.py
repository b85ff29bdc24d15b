"""Weights of Equinox, as it was recorded; and of MATLAB, which is not run here.

Equinox's arrays and outputs are those of tests/data/record_equinox.py. MATLAB's are random and
follow the layouts in its documentation, whose equations are written out.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.paths import DATA

T, INPUTS, H = 6, 3, 5
rng = np.random.default_rng(0)


def sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def drawn(gates: int) -> tuple[Any, Any, Any]:
    """Weights of inputs, weights of h, and a bias."""
    rows = gates * H
    return rng.standard_normal((rows, INPUTS)), rng.standard_normal((rows, H)), rng.random(rows)


def lstm(x: Any, w: Any, r: Any, b: Any) -> Any:
    """The LSTM of MATLAB's lstmLayer: gates i, f, g, o, one bias."""
    h = c = np.zeros(H)
    outputs = []
    for step in x:
        i, f, g, o = np.split(w @ step + r @ h + b, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        outputs.append(h)
    return np.array(outputs)


def gru(x: Any, w: Any, r: Any, b: Any, of_h: Any, before: bool = False) -> Any:
    """A GRU with gates r, z, n; `of_h` is h's bias of n, and `before` whether r meets h itself."""
    h = np.zeros(H)
    outputs = []
    for step in x:
        reset, update, new = np.split(w @ step + b, 3)
        reset_h, update_h, new_h = np.split(r @ h, 3)
        reset, update = sigmoid(reset + reset_h), sigmoid(update + update_h)
        inner = r[2 * H :] @ (reset * h) if before else reset * (new_h + of_h)
        new = np.tanh(new + inner)
        h = (1 - update) * new + update * h
        outputs.append(h)
    return np.array(outputs)


X = rng.standard_normal((T, INPUTS))


@pytest.mark.parametrize("case", ["lstm", "lstm_plain", "gru", "gru_plain"])
def test_equinox(case: str) -> None:
    recorded = np.load(DATA / "equinox.npz")
    cell = {
        name.partition("/")[2]: recorded[name] for name in recorded if name.startswith(f"{case}/")
    }
    kind = case[:4].rstrip("_")
    biases: dict[str, Any] = {}
    if "bias" in cell:
        biases["bias"] = cell["bias"]
    if "bias_n" in cell:
        size = len(cell["bias_n"])
        biases["bias_hh"] = [np.zeros(2 * size), cell["bias_n"]]
    state = lc.convert_weights(
        "pytorch", kind, w_ih=cell["weight_ih"], w_hh=cell["weight_hh"], **biases
    )
    layer = (lc.LSTM if kind == "lstm" else lc.GRU).from_state_dict(state)
    np.testing.assert_allclose(layer(recorded["x"])[0], cell["y"], rtol=0, atol=1e-12)


def test_arrays_of_matlab() -> None:
    """InputWeights, RecurrentWeights, and Bias, which is a column."""
    w, r, b = drawn(4)
    column = b[:, None]
    state = lc.convert_weights("pytorch", "lstm", w_ih=w, w_hh=r, bias=column.ravel())
    np.testing.assert_allclose(lc.LSTM.from_state_dict(state)(X)[0], lstm(X, w, r, b), atol=1e-12)
    w, r, b = drawn(3)
    for before in (False, True):
        state = lc.convert_weights("pytorch", "gru", w_ih=w, w_hh=r, bias=b)
        layer = lc.GRU.from_state_dict(state, reset_after=not before)
        np.testing.assert_allclose(layer(X)[0], gru(X, w, r, b, 0, before), atol=1e-12)


@pytest.mark.parametrize("both", [False, True])
def test_networks_of_matlab_through_onnx(both: bool) -> None:
    """An lstmLayer or bilstmLayer, the last step, a fullyConnectedLayer, a softmaxLayer."""
    peers.require("onnx")
    from helpers.onnx_models import model, onnx, value

    def in_onnx(array: Any) -> Any:
        i, f, g, o = np.split(array, 4)
        return np.concatenate([i, o, f, g]).astype("f4")  # its order of gates

    directions = [drawn(4) for _ in range(1 + both)]
    head = rng.standard_normal((4, H * len(directions)))
    constants = {
        "W": np.stack([in_onnx(w) for w, _, _ in directions]),
        "R": np.stack([in_onnx(r) for _, r, _ in directions]),
        "B": np.stack([np.concatenate([in_onnx(b), 0 * in_onnx(b)]) for _, _, b in directions]),
        "head": head.T.astype("f4"), "bias": np.linspace(-1, 1, 4, dtype="f4"),
        "shape": np.array([0, -1]),
    }  # fmt: skip
    make = onnx.helper.make_node
    nodes = [
        make("LSTM", ["x", "W", "R", "B"], ["", "h"], hidden_size=H,
             direction="bidirectional" if both else "forward"),
        make("Transpose", ["h"], ["rows"], perm=[1, 0, 2]),
        make("Reshape", ["rows", "shape"], ["flat"]),
        make("Gemm", ["flat", "head", "bias"], ["scores"]),
        make("Softmax", ["scores"], ["p"], axis=1),
    ]  # fmt: skip
    proto = model(nodes, [value("x", "f4", ["T", "B", INPUTS])], [value("p", "f4")], constants)
    found = lc.from_onnx(proto)
    assert type(found) is lc.Sequential
    ends = [lstm(X[:: 1 - 2 * d], *parts)[-1] for d, parts in enumerate(directions)]
    scores = np.exp(head @ np.concatenate(ends) + constants["bias"])
    np.testing.assert_allclose(found(X[:, None].astype("f4"))[0], scores / scores.sum(), atol=2e-6)
