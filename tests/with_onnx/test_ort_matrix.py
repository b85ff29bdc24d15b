"""Nodes that ONNX Runtime has run, in ONNX's own weight layout, against our layers.

The weights are put in our order by hand, so that this says nothing of an importer.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.paths import DATA

ARRAYS = np.load(DATA / "ort_matrix.npz")
CASES = json.loads((DATA / "ort_matrix.json").read_text())["cases"]
NAMES = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Softsign": "softsign",
    "HardSigmoid": "hard_sigmoid",
    "ScaledTanh": "scaled_tanh",
}
GATES = {"LSTM": (0, 2, 3, 1), "GRU": (1, 0, 2), "RNN": (0,)}  # ours, in ONNX's iofc, zrh, i


def activations_of(attrs: dict[str, Any]) -> list[Any]:
    """Those of one direction; alpha and beta go to the functions that take them, in order."""
    alphas, betas = (list(attrs.get(f"activation_{n}", [])) for n in ("alpha", "beta"))
    found: list[Any] = []
    for name in attrs.get("activations", []):
        if name in ("HardSigmoid", "ScaledTanh"):
            default = (0.2, 0.5) if name == "HardSigmoid" else (1.0, 1.0)
            pair = (alphas.pop(0) if alphas else default[0], betas.pop(0) if betas else default[1])
            found.append((NAMES[name], *pair))
        else:
            found.append(NAMES[name])
    directions = 2 if attrs["direction"] == "bidirectional" else 1
    each = len(found) // directions
    assert found[:each] * directions == found
    return found[:each]


def layer_of(case: dict[str, Any], dtype: str) -> Any:
    attrs, op = case["attrs"], case["op"]
    inputs = {n: ARRAYS[f"{case['i']}/in_{n}"] for n in case["inputs"]}
    H = attrs["hidden_size"]
    options: dict[str, Any] = {"dtype": dtype, "bias": "B" in inputs}
    if attrs["direction"] != "forward":
        options["bidirectional" if attrs["direction"] == "bidirectional" else "reverse"] = True
    activations = activations_of(attrs)
    order = GATES[op]
    if op == "RNN" and activations:
        options["nonlinearity"] = activations[0]
    elif activations:
        options["activations"] = tuple(activations)
    if "clip" in attrs:
        options["gate_clip"] = attrs["clip"]
    if op == "GRU":
        options["reset_after"] = bool(attrs.get("linear_before_reset", 0))
    if op == "LSTM":
        options["peephole"] = "P" in inputs
        if attrs.get("input_forget"):
            options["coupled"] = True
            order = (0, 3, 1)  # the forget gate's weights are not used
    layer = getattr(lc, op)(inputs["X"].shape[2], H, **options)

    state = {}
    for d, suffix in enumerate(("", "_reverse")[: len(inputs["W"])]):
        blocks = lambda a: np.concatenate([a[g * H : (g + 1) * H] for g in order])  # noqa: E731
        state[f"weight_ih_l0{suffix}"] = blocks(inputs["W"][d])
        state[f"weight_hh_l0{suffix}"] = blocks(inputs["R"][d])
        if "B" in inputs:
            half = len(inputs["B"][d]) // 2
            state[f"bias_ih_l0{suffix}"] = blocks(inputs["B"][d][:half])
            state[f"bias_hh_l0{suffix}"] = blocks(inputs["B"][d][half:])
        if "P" in inputs:  # ONNX: i, o, f
            i, o, f = inputs["P"][d].reshape(3, H)
            state[f"weight_ch_l0{suffix}"] = np.stack(
                [i, o] if options.get("coupled") else [i, f, o]
            )
    layer.load_state_dict({name: value.astype(dtype) for name, value in state.items()})
    return layer


def test_the_matrix_is_whole() -> None:
    assert len(CASES) == 150
    assert sum(case["ambiguous_zero_length"] for case in CASES) == 12


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "case", CASES, ids=lambda c: f"{c['i']}-{c['op']}-{c['attrs']['direction']}"
)
def test_node(isa: str, case: dict[str, Any], dtype: str) -> None:
    layer = layer_of(case, dtype)
    inputs = {n: ARRAYS[f"{case['i']}/in_{n}"] for n in case["inputs"]}
    lengths = inputs.get("sequence_lens")
    h0, c0 = inputs.get("initial_h"), inputs.get("initial_c")
    state: Any = None if h0 is None else h0.astype(dtype)
    if case["op"] == "LSTM" and h0 is not None:
        assert c0 is not None
        state = (state, c0.astype(dtype))
    y, last = layer(inputs["X"].astype(dtype), state, lengths=lengths)

    expected = ARRAYS[f"{case['i']}/out_Y"]  # (T, D, B, H)
    T, D, B, H = expected.shape
    ours = y.reshape(T, B, D, H).transpose(0, 2, 1, 3)
    np.testing.assert_allclose(ours, expected, atol=2e-6, rtol=0)
    # A row of length 0 ends where it began; ONNX Runtime gives zeros there.
    rows = np.ones(B, bool) if lengths is None else lengths > 0
    last = last if case["op"] == "LSTM" else (last,)
    for name, value in zip(("Y_h", "Y_c"), last, strict=False):
        truth = ARRAYS[f"{case['i']}/out_{name}"]
        np.testing.assert_allclose(value[:, rows], truth[:, rows], atol=2e-6, rtol=0)
    if case["ambiguous_zero_length"] and h0 is not None:
        np.testing.assert_array_equal(last[0][:, ~rows], h0[:, ~rows])
