"""Files of every opset from 7 to the newest; nodes whose directions have different activations."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import onnx_models, peers
from helpers.onnx_models import model, value, weights

onnx = peers.require("onnx")
from onnx import helper  # noqa: E402

from lstmcore.onnx._reading import OPSETS  # noqa: E402

LAYERS = [(kind, both) for kind in ("LSTM", "GRU", "RNN") for both in (False, True)]
T, B = 7, 2


def exported(kind: str, both: bool, opset: int, free: bool = True) -> tuple[Any, Any, Any]:
    """What PyTorch writes of a tagger, its input, and its output."""
    torch = peers.require("torch")
    nn = torch.nn

    class Tagger(nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(4, 5, 2, bidirectional=both, batch_first=True)
            self.head = nn.Linear(10 if both else 5, 3)

        def forward(self, x: Any) -> Any:
            return torch.softmax(self.head(torch.relu(self.layer(x)[0])), -1)

    torch.manual_seed(0)
    tagger, x, buffer = Tagger().eval(), torch.randn(B, T, 4), io.BytesIO()
    axes = {"x": {0: "rows", 1: "steps"}} if free else None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            tagger, (x,), buffer, dynamo=False, opset_version=opset, input_names=["x"],
            dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue()), x.numpy(), tagger(x).detach().numpy()


@pytest.mark.parametrize(("kind", "both"), LAYERS)
@pytest.mark.parametrize("opset", range(7, 21))
def test_what_pytorch_writes(kind: str, both: bool, opset: int) -> None:
    proto, x, expected = exported(kind, both, opset)
    assert {o.version for o in proto.opset_import if not o.domain} == {opset}
    found = lc.from_onnx(proto)
    assert type(found) is lc.Sequential
    np.testing.assert_allclose(found(x), expected, atol=1e-6)
    assert found(x[:1, :3]).shape == (1, 3, 3)


@pytest.mark.parametrize(("kind", "both"), LAYERS)
def test_what_the_version_converter_makes(kind: str, both: bool) -> None:
    from onnx import version_converter

    proto, x, expected = exported(kind, both, 17, free=False)
    newest = min(OPSETS[1], onnx.defs.onnx_opset_version())
    done = []
    for opset in (15, 16, *range(18, newest + 1)):
        try:
            made = version_converter.convert_version(proto, opset)
        except RuntimeError:  # it does not know the version, or cannot convert to it
            continue
        found = lc.from_onnx(made)
        assert type(found) is lc.Sequential
        np.testing.assert_allclose(found(x), expected, atol=1e-6)
        done.append(opset)
    assert done[:2] == [15, 16]
    assert max(done) >= 22


def test_every_opset_of_the_nodes_themselves() -> None:
    """The same node, as each version that knows it has it."""
    newest = min(OPSETS[1], onnx.defs.onnx_opset_version())
    for op in ("LSTM", "GRU", "RNN"):
        arrays = weights(op, 2)
        expected = None
        for opset in range(OPSETS[0], newest + 1):
            layer = lc.from_onnx(
                onnx_models.node(op, arrays, opset=opset, direction="bidirectional", hidden_size=3)
            )
            expected = layer if expected is None else expected
            assert layer == expected


# Different activations in each direction ----------------------------------------------------------


CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": (
        "LSTM",
        {
            "activations": ["Sigmoid", "Tanh", "Relu", "HardSigmoid", "Softsign", "Tanh"],
            "activation_alpha": [0.3],
            "activation_beta": [0.4],
        },
    ),
    "GRU": ("GRU", {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Relu"]}),
    "GRU after": (
        "GRU",
        {"activations": ["Sigmoid", "Softsign", "Sigmoid", "Tanh"], "linear_before_reset": 1},
    ),
    "RNN": ("RNN", {"activations": ["Tanh", "Relu"], "clip": 2.0}),
}


def split(name: str, states: bool, layout: int) -> tuple[Any, Any]:
    """A node, with a matrix behind it, its final states as outputs; and what goes in."""
    op, attributes = CASES[name]
    arrays = weights(op, 2)
    x = arrays.pop("X")
    letters = "hc" if op == "LSTM" else "h"
    head = np.random.default_rng(5).standard_normal((6, 2)).astype("f4")
    given = [f"initial_{n}" for n in letters] if states else []
    made = helper.make_node(
        op, ["x", "W", "R", "B", "", *given], ["Y", *(f"Y_{n}" for n in letters)], name="node",
        direction="bidirectional", hidden_size=3, layout=layout, **attributes,
    )  # fmt: skip
    turn = [1, 0, 2] if layout else [0, 1, 2]
    order = [0, 1, 2, 3] if layout else [0, 2, 1, 3]
    nodes = [
        made,
        helper.make_node("Transpose", ["Y"], ["turned"], perm=order),
        helper.make_node("Reshape", ["turned", "shape"], ["beside"]),
        helper.make_node("MatMul", ["beside", "head"], ["scores"]),
        *(helper.make_node("Transpose", [f"Y_{n}"], [n], perm=turn) for n in letters),
    ]
    constants = {**arrays, "head": head, "shape": np.array([0, 0, 6])}
    proto = model(
        nodes,
        [value("x", "f4", ["a", "b", 4]), *(value(n, "f4", [2, "B", 3]) for n in given)],
        [value("scores", "f4"), *(value(n, "f4") for n in letters)],
        constants,
        17,
    )
    return proto, x.swapaxes(0, 1).copy() if layout else x


@pytest.mark.parametrize("name", list(CASES))
@pytest.mark.parametrize("layout", [0, 1])
def test_different_activations_become_two_layers(name: str, layout: int) -> None:
    from lstmcore.onnx._importing import graph_of

    proto, x = split(name, False, layout)
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    expected = graph_of(proto)(x)
    runtime = peers.require("onnxruntime")
    if not layout:  # which ONNX Runtime lacks
        session = runtime.InferenceSession(proto.SerializeToString())
        for one, other in zip(expected, session.run(None, {"x": x}), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
    got, tape = found.forward(x)
    states = got[1:]
    np.testing.assert_allclose(got[0], expected[0], atol=2e-6)
    for one, other in zip(states, expected[1:], strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    found.backward(tape, tuple(np.ones_like(y) for y in got))
    assert all(np.abs(p.grad).sum() > 0 for p in found.parameters() if "bias_hh" not in p.name)
    again = lc.from_onnx(lc.to_onnx(found))
    np.testing.assert_allclose(again(x)[0], expected[0], atol=2e-6)
    with pytest.raises(ValueError, match=r"other activations in each direction.* two layers"):
        lc.from_onnx(proto, node="node")


def test_their_states_come_from_elsewhere() -> None:
    """The states of a layer before them, as in an encoder and a decoder."""
    op, attributes = CASES["GRU"]
    arrays, first = weights(op, 2), weights(op, 2, seed=3)
    nodes = [
        helper.make_node("GRU", ["x", "W1", "R1"], ["", "h"], name="one", hidden_size=3,
                         direction="bidirectional"),
        helper.make_node("GRU", ["x", "W", "R", "", "", "h"], ["y", "last"], name="two",
                         hidden_size=3, direction="bidirectional", **attributes),
        helper.make_node("Identity", ["last"], ["out"]),
    ]  # fmt: skip
    constants = {"W": arrays["W"], "R": arrays["R"], "W1": first["W"], "R1": first["R"]}
    proto = model(
        nodes, [value("x", "f4", ["T", "B", 4])], [value("out", "f4")], constants, 17
    )  # fmt: skip
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    x = arrays["X"]
    session = peers.require("onnxruntime").InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(found(x), session.run(None, {"x": x})[0], atol=2e-6)


def test_constant_fill() -> None:
    from lstmcore.onnx._importing import graph_of

    node = helper.make_node("ConstantFill", ["x"], ["y"], value=2.5)
    proto = model([node], [value("x", "f4")], [value("y", "f4")], {}, 8)
    found = graph_of(proto)(np.zeros((2, 3), "f4"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, np.full((2, 3), 2.5))
