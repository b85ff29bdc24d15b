"""What `from_onnx` makes of ONNX files, against those who define or run them."""

from __future__ import annotations

import copy
import io
import itertools
import logging
import pickle
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import onnx_models, peers
from helpers.onnx_models import CASES, DATA, Case, model, node, onnx, value, weights
from lstmcore._files.layouts import LAYOUTS
from lstmcore.onnx import _control, operators
from lstmcore.onnx import _recurrent as recurrent
from lstmcore.onnx._graph import Graph
from lstmcore.onnx._importing import graph_of

helper = onnx.helper


def run(layer: Any, inputs: dict[str, Any]) -> dict[str, Any]:
    """The outputs of a layer as ONNX has them; layout=0."""
    h, c = inputs.get("initial_h"), inputs.get("initial_c")
    state: Any = (h, c) if isinstance(layer, lc.LSTM) else h
    y, final = layer(inputs["X"], state, lengths=inputs.get("sequence_lens"))
    T, B, _ = y.shape
    final = final if isinstance(final, tuple) else (final,)
    y = y.reshape(T, B, -1, layer.hidden_size).transpose(0, 2, 1, 3)
    return dict(zip(onnx_models.OUTPUTS, (y, *final), strict=False))


def error(case: Case, found: dict[str, Any]) -> float:
    """The largest error, but for the final states of rows of length 0: there ONNX Runtime has 0."""
    lengths = case.inputs.get("sequence_lens")
    rows = slice(None) if lengths is None else lengths > 0
    worst = 0.0
    for name, expected in case.outputs.items():
        difference = found[name] - expected
        assert difference.shape == expected.shape
        part = difference if name == "Y" else difference[:, rows]
        worst = max(worst, float(np.abs(part).max(initial=0)))
    return worst


# Single nodes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_node_of_onnx_runtime_as_a_layer(case: Case) -> None:
    layer = lc.from_onnx(case.model)
    assert type(layer) is getattr(lc, case.op)
    assert error(case, run(layer, case.inputs)) < 2e-6


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_node_of_onnx_runtime_in_a_graph(case: Case) -> None:
    graph = graph_of(case.model)
    inputs = {n: a for n, a in case.inputs.items() if n not in onnx_models.WEIGHTS}
    found = dict(zip(case.outputs, graph(**inputs), strict=True))
    assert error(case, found) < 2e-6


def test_the_matrix_is_whole() -> None:
    assert len(CASES) == 150
    assert sum("clip" in case.attributes for case in CASES) == 15


def test_the_recurrent_node_tests_of_the_onnx_package() -> None:
    passed = []
    for test in onnx_models.backend_tests():
        if test.model.graph.node[0].op_type not in recurrent.LAYERS:
            continue
        for arrays, outputs in test.data_sets:
            proto, left = onnx_models.fixed(test.model, arrays)
            for model_, given in ((proto, left), (test.model, arrays)):  # as it is shipped, too
                found = graph_of(model_)(*given)
                found = found if isinstance(found, tuple) else (found,)
                for one, expected in zip(found, outputs, strict=True):
                    assert one.dtype == expected.dtype
                    assert one.shape == expected.shape
                    np.testing.assert_allclose(one, expected, rtol=1e-5, atol=1e-6)
            layer = lc.from_onnx(proto)
            assert isinstance(layer, (lc.RNN, lc.LSTM, lc.GRU))
            attributes = {a.name: a for a in proto.graph.node[0].attribute}
            assert layer.batch_first == bool("layout" in attributes and attributes["layout"].i)
            passed.append(test.name)
    assert len(passed) >= 18, passed


# Of which the onnx package has no test that we can read.
WITHOUT_TESTS = {"ConstantFill", "Scatter", "SequenceConstruct", "SimplifiedLayerNormalization"}
# Those of the package have sequences as inputs of the model; ours are in test_onnx_whole_files.py.
WITHOUT_TESTS |= {"SequenceErase", "SequenceAt", "SplitToSequence", "SequenceInsert"}
WITHOUT_TESTS |= {"ConcatFromSequence", "SequenceLength", "SequenceEmpty"}


def test_the_other_node_tests_of_the_onnx_package() -> None:
    """Each is right or refused when it is loaded, but for what is not inference."""
    # Where the largest numbers were is not found out.
    known = {f"test_maxpool_with_argmax_2d_precomputed_{kind}" for kind in ("pads", "strides")}
    known |= {"test_quantizelinear_blocked_symmetric"}  # to 4 bits
    passed: dict[str, int] = {}
    for test in onnx_models.backend_tests():
        op = test.model.graph.node[0].op_type
        named = op in operators.names() or op in _control.KINDS
        if not named or "training" in test.name or test.name in known:
            continue
        for arrays, outputs in test.data_sets:
            if not all(isinstance(a, (np.ndarray, np.generic)) for a in (*arrays, *outputs)):
                continue  # sequences, and types that NumPy does not have
            try:
                graph = graph_of(test.model)
            except ValueError as refusal:
                assert any(  # noqa: PT017
                    what in str(refusal)
                    for what in ("element type", "not a tensor", "of type", "opset 1,", "opset 8")
                ), refusal
                continue
            found = graph(*arrays)
            found = found if isinstance(found, tuple) else (found,)
            for one, expected in zip(found, outputs, strict=True):
                assert one.dtype == expected.dtype, test.name
                assert one.shape == expected.shape, test.name
                np.testing.assert_allclose(
                    one, expected, rtol=test.rtol, atol=test.atol, err_msg=test.name
                )
            passed[op] = passed.get(op, 0) + 1
    assert sum(passed.values()) >= 750
    untested = {name for name in operators.names() if "." not in name} - set(passed)
    assert untested <= {"Cast", "CastLike", "Not", *WITHOUT_TESTS}


def test_casts_and_not() -> None:
    kind = onnx.TensorProto
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=kind.INT32),
        helper.make_node("Cast", ["whole"], ["truth"], to=kind.BOOL),
        helper.make_node("Not", ["truth"], ["zero"]),
        helper.make_node("CastLike", ["whole", "x"], ["back"]),
    ]
    outputs = [value(n, t) for n, t in (("whole", "i4"), ("zero", "?"), ("back", "f4"))]
    graph = lc.from_onnx(model(nodes, [value("x", "f4")], outputs, opset=15))
    whole, zero, back = graph([-1.7, 0.4, 2.9])
    assert whole.dtype == np.int32
    np.testing.assert_array_equal(whole, [-1, 0, 2])
    np.testing.assert_array_equal(zero, [False, True, False])
    assert back.dtype == np.float32
    with pytest.raises(ValueError, match=r"Cast 'y'.*FLOAT8E4M3FN"):
        lc.from_onnx(
            model([helper.make_node("Cast", ["x"], ["y"], to=17)], [value("x", "f4")],
                  [value("y", "f4")], opset=19)
        )  # fmt: skip


def test_a_trained_voice_detector() -> None:
    with np.load(DATA / "silero_onnx.npz") as file:
        data = dict(file)
    arrays = {"X": data["lstm_in"], "W": data["W"], "R": data["R"], "B": data["B"]}
    layer = lc.from_onnx(node("LSTM", arrays, hidden_size=128))
    y, (h, c) = layer(data["lstm_in"])
    np.testing.assert_allclose(y, data["lstm_out"][:, 0], atol=2e-5, rtol=0)
    np.testing.assert_allclose(h, data["hn"], atol=2e-5, rtol=0)
    np.testing.assert_allclose(c, data["cn"], atol=2e-5, rtol=0)
    scores = np.maximum(y[:, 0], 0) @ data["output.weight"][0, :, 0] + data["output.bias"]
    np.testing.assert_allclose(1 / (1 + np.exp(-scores)), data["probs"], atol=2e-5, rtol=0)
    assert (scores > 0).sum() == (data["probs"] > 0.5).sum() == 135


@pytest.mark.parametrize(
    ("dtype", "ours"), [("float64", "float64"), ("float32", "float32"), ("float16", "float32")]
)
def test_dtypes(dtype: str, ours: str) -> None:
    arrays = weights("GRU", dtype=dtype)
    layer = lc.from_onnx(node("GRU", arrays))
    assert layer.dtype == ours
    wide = {name: a.astype(ours) for name, a in arrays.items()}
    expected = lc.from_onnx(node("GRU", wide))(wide["X"])[0]
    graph = graph_of(node("GRU", arrays))
    y, h = graph(arrays["X"])
    assert y.dtype == h.dtype == dtype
    np.testing.assert_array_equal(y[:, 0], expected.astype(dtype))


def test_bfloat16_weights() -> None:
    arrays = weights("RNN")
    exact = {n: (a.view(np.uint32) >> 16 << 16).view(np.float32) for n, a in arrays.items()}
    proto = node("RNN", exact)
    for tensor in proto.graph.initializer:
        bits = onnx.numpy_helper.to_array(tensor).view(np.uint32) >> 16
        tensor.raw_data = bits.astype(np.uint16).tobytes()
        tensor.data_type = onnx.TensorProto.BFLOAT16
    assert lc.from_onnx(proto) == lc.from_onnx(node("RNN", exact))


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_layout_1(op: str) -> None:
    arrays = weights(op, 2)
    rng = np.random.default_rng(1)
    states = ("initial_h", "initial_c")[: 2 if op == "LSTM" else 1]
    arrays |= {n: rng.standard_normal((2, 2, 3)).astype("f4") for n in states}
    plain = graph_of(node(op, arrays, direction="bidirectional"))
    batched = node(op, arrays, direction="bidirectional", layout=1)
    swapped = {n: arrays[n].swapaxes(0, 1) for n in ("X", *states)}
    Y, *finals = plain(**{n: arrays[n] for n in ("X", *states)})
    Y1, *finals1 = graph_of(batched)(**swapped)
    np.testing.assert_array_equal(Y1, Y.transpose(2, 0, 1, 3))  # (B, T, D, H)
    for one, other in zip(finals1, finals, strict=True):
        np.testing.assert_array_equal(one, other.swapaxes(0, 1))
    layer = lc.from_onnx(batched)
    assert layer.batch_first


def test_nodes_of_one_name() -> None:
    proto = two_nodes()
    proto.graph.node[1].name = "first"
    assert list(lc.from_onnx(proto)) == ["first", "GRU_Y"]


def test_nodes_with_the_same_weights_are_one_layer() -> None:
    arrays = weights("GRU")
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["a", "h"], name="once", hidden_size=3),
        helper.make_node("GRU", ["x", "W", "R", "", "", "h"], ["y"], name="again", hidden_size=3),
    ]
    constants = {name: arrays[name] for name in "WR"}
    graph = lc.from_onnx(model(nodes, [value("x", "f4")], [value("y", "f4")], constants))
    assert graph["once"] is graph["again"]
    layer, x = graph["once"], arrays["X"]
    np.testing.assert_array_equal(graph(x)[:, 0], layer(x, layer(x)[1])[0])


def test_activations_and_their_defaults() -> None:
    def layer(**attributes: Any) -> Any:
        return lc.from_onnx(node("LSTM", weights("LSTM"), **attributes))

    names = ["HardSigmoid", "ScaledTanh", "Affine"]
    full = layer(activations=names, activation_alpha=[0.1, 2.0, 1.0],
                 activation_beta=[0.4, 0.5, 0.0])  # fmt: skip
    assert full.activations == (("hard_sigmoid", 0.1, 0.4), ("scaled_tanh", 2.0, 0.5), "identity")
    default = layer(activations=["HardSigmoid", "softsign", "RELU"])
    assert default.activations == (("hard_sigmoid", 0.2, 0.5), "softsign", "relu")
    mixed = layer(activations=["Sigmoid", "HardSigmoid", "HardSigmoid"], activation_alpha=[0.3])
    assert mixed.activations[1:] == (("hard_sigmoid", 0.3, 0.5), ("hard_sigmoid", 0.2, 0.5))
    rnn = lc.from_onnx(node("RNN", weights("RNN"), activations=["Tanh", "Tanh"]))
    assert rnn.nonlinearity == "tanh"  # the two that ONNX calls the default


@pytest.mark.parametrize(
    ("op", "attributes", "named"),
    [
        ("LSTM", {"activations": ["Sigmoid", "Selu", "Tanh"]}, "'Selu'"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh"]}, "2 activations"),
        ("LSTM", {"activations": ["Sigmoid", "ScaledTanh", "Tanh"]}, "'ScaledTanh' without alpha"),
        ("LSTM", {"activations": ["Sigmoid", "Tanh", "Tanh"], "activation_alpha": [1.0]}, "alpha"),
        ("LSTM", {"activation_beta": [1.0]}, "activation_beta"),
        ("LSTM", {"direction": "sideways"}, "direction='sideways'"),
        ("LSTM", {"direction": "bidirectional"}, "W of shape"),
        ("LSTM", {"hidden_size": 5}, "hidden_size=5"),
        ("LSTM", {"input_forget": 2}, "input_forget=2"),
        ("LSTM", {"layout": 2}, "layout=2"),
        ("LSTM", {"clip": -1.0}, "clip=-1.0"),
        ("LSTM", {"clip": float("nan")}, "clip=nan"),
        ("LSTM", {"clip": 1}, "clip=1,"),
        ("LSTM", {"output_sequence": 1}, "'output_sequence'"),
        ("GRU", {"input_forget": 1}, "'input_forget'"),
        ("GRU", {"linear_before_reset": 3}, "linear_before_reset=3"),
        ("RNN", {"linear_before_reset": 1}, "'linear_before_reset'"),
    ],
)  # fmt: skip
def test_what_a_layer_cannot_say_is_refused_by_name(
    op: str, attributes: dict[str, Any], named: str
) -> None:
    with pytest.raises(ValueError, match=f"{op} 'node'.*{named}"):
        lc.from_onnx(node(op, weights(op), **attributes))


OURS = [
    ("LSTM", 1, {"activations": ["Sigmoid", "Elu", "Softplus"], "activation_alpha": [0.7]}),
    ("LSTM", 2, {"activations": ["HardSigmoid", "LeakyRelu", "Tanh"] * 2,
                 "activation_alpha": [0.3, 0.2, 0.3, 0.2], "activation_beta": [0.4, 0.4],
                 "input_forget": 1}),
    ("GRU", 1, {"activations": ["Sigmoid", "ThresholdedRelu"], "activation_alpha": [0.2],
                "linear_before_reset": 1, "clip": 0.4}),
    ("GRU", 1, {"activations": ["Sigmoid", "LeakyRelu"]}),
    ("RNN", 1, {"activations": ["Affine"], "activation_alpha": [0.5], "activation_beta": [0.1]}),
    ("RNN", 1, {"activations": ["Elu"]}),
    ("RNN", 2, {"activations": ["ThresholdedRelu"] * 2, "activation_alpha": [0.3, 0.3]}),
]  # fmt: skip
UNUSUAL = [
    ("LSTM", 1, {"activations": ["Sigmoid", "Elu", "Softplus"], "activation_alpha": [-0.7]}),
    ("LSTM", 2, {"activations": ["HardSigmoid", "LeakyRelu", "Tanh", "Sigmoid", "Affine", "Elu"],
                 "activation_alpha": [0.3, 0.2, 0.9, 1.5], "activation_beta": [0.4, 0.1],
                 "input_forget": 1}),
    ("GRU", 2, {"activations": ["Sigmoid", "Tanh", "Sigmoid", "Softsign"]}),
    ("GRU", 1, {"activations": ["Sigmoid", "ThresholdedRelu"], "activation_alpha": [-0.2],
                "linear_before_reset": 1, "clip": 0.4}),
    ("RNN", 2, {"activations": ["Tanh", "Relu"]}),
    ("RNN", 1, {"activations": ["LeakyRelu"], "activation_alpha": [-0.5]}),
]  # fmt: skip


@pytest.mark.parametrize(("op", "directions", "attributes"), OURS)
def test_activations_that_our_layers_have(
    op: str, directions: int, attributes: dict[str, Any]
) -> None:
    arrays = weights(op, directions)
    if directions == 2:
        attributes = {**attributes, "direction": "bidirectional"}
    proto = node(op, arrays, hidden_size=3, **attributes)
    assert type(lc.from_onnx(proto)).__name__ == op
    given = {"X": arrays["X"]}
    session = peers.require("onnxruntime").InferenceSession(proto.SerializeToString())
    for one, other in zip(graph_of(proto)(**given), session.run(None, given), strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)


@pytest.mark.parametrize(("op", "directions", "attributes"), UNUSUAL)
def test_activations_that_our_layers_lack(
    op: str, directions: int, attributes: dict[str, Any]
) -> None:
    rng = np.random.default_rng(3)
    arrays = weights(op, directions)
    arrays["sequence_lens"] = np.array([5, 3], "i4")
    for name in ("initial_h", "initial_c")[: 1 + (op == "LSTM")]:
        arrays[name] = rng.standard_normal((directions, 2, 3)).astype("f4")
    if op == "LSTM":
        arrays["P"] = rng.standard_normal((directions, 9)).astype("f4")
    if directions == 2:
        attributes = {**attributes, "direction": "bidirectional"}
    proto = node(op, arrays, hidden_size=3, **attributes)
    graph = lc.from_onnx(proto)
    assert isinstance(graph, Graph)
    given = {name: a for name, a in arrays.items() if name not in onnx_models.WEIGHTS}
    session = peers.require("onnxruntime").InferenceSession(proto.SerializeToString())
    found, expected = graph(**given), session.run(None, given)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=2e-6)
    with pytest.raises(ValueError, match=f"{op} 'node' has .*activation"):
        lc.from_onnx(proto, node="node")
    batched = node(op, arrays, hidden_size=3, layout=1, **attributes)
    swapped = {n: a if a.ndim == 1 else a.swapaxes(0, 1) for n, a in given.items()}
    again = graph_of(batched)(**swapped)
    np.testing.assert_array_equal(again[0], found[0].transpose(2, 0, 1, 3))
    for one, other in zip(again[1:], found[1:], strict=True):
        np.testing.assert_array_equal(one, other.swapaxes(0, 1))


def test_layout_is_unknown_before_opset_14() -> None:
    with pytest.raises(ValueError, match="'layout'"):
        lc.from_onnx(node("GRU", weights("GRU"), layout=0, opset=13))


@pytest.mark.parametrize("activations", [None, ["Elu", "Softsign"]])
def test_weights_that_are_given_at_the_call(activations: Any) -> None:
    arrays = weights("GRU")
    options = {} if activations is None else {"activations": activations}
    expected = graph_of(node("GRU", arrays, **options))(arrays["X"])
    proto = node("GRU", arrays, **options)
    kept = [t for t in proto.graph.initializer if t.name == "B"]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    proto.graph.input.extend([value("R", "f4"), value("W", "f4")])
    graph = lc.from_onnx(proto)
    assert isinstance(graph, Graph)
    assert graph.input_names == ("X", "R", "W")
    for _ in range(2):
        for one, other in zip(graph(arrays["X"], arrays["R"], arrays["W"]), expected, strict=True):
            np.testing.assert_array_equal(one, other)
    other = graph(arrays["X"], arrays["R"], 2 * arrays["W"])[0]
    assert not np.array_equal(other, expected[0])
    with pytest.raises(ValueError, match="W of shape"):
        graph(arrays["X"], arrays["R"], arrays["W"][:, 1:])
    with pytest.raises(ValueError, match="gets its W from 'W', expected a constant"):
        lc.from_onnx(proto, node="node")


# What comes out: a layer, layers, or a graph ------------------------------------------------------


def two_nodes() -> Any:
    nodes, inputs, outputs, constants = [], [], [], {}
    for name, op in (("first", "LSTM"), ("", "GRU")):
        arrays = weights(op)
        part = helper.make_node(
            op, [f"{op}_X", f"{op}_W", f"{op}_R"], [f"{op}_Y"], name=name, hidden_size=3
        )
        nodes.append(part)
        inputs.append(value(f"{op}_X", "f4"))
        outputs.append(value(f"{op}_Y", "f4"))
        constants |= {f"{op}_W": arrays["W"], f"{op}_R": arrays["R"]}
    return model(nodes, inputs, outputs, constants)


def test_several_nodes_are_a_dict_by_name() -> None:
    layers = lc.from_onnx(two_nodes())
    assert type(layers) is dict
    assert list(layers) == ["first", "GRU_Y"]  # one without a name has that of its first output
    assert isinstance(layers["first"], lc.LSTM)
    assert lc.from_onnx(two_nodes(), node="GRU_Y") == layers["GRU_Y"]
    with pytest.raises(ValueError, match=r"'third'.*expected one of: 'first', 'GRU_Y'"):
        lc.from_onnx(two_nodes(), node="third")
    with pytest.raises(TypeError, match="node is 3"):
        lc.from_onnx(two_nodes(), node=3)  # type: ignore[arg-type]


def test_a_node_is_had_alone_from_a_model_that_is_not_supported() -> None:
    proto = node("LSTM", weights("LSTM"))
    alone = lc.from_onnx(proto)
    other = helper.make_node("Resize", ["Y", "", "W"], ["z"], name="filter")
    proto.graph.node.add().CopyFrom(other)
    with pytest.raises(ValueError, match=r"needs Resize \(1 node\)"):
        lc.from_onnx(proto)
    assert lc.from_onnx(proto, node="node") == alone


def test_initial_states_that_are_constant() -> None:
    arrays = weights("GRU")
    state = np.full((1, 2, 3), 0.5, "f4")
    proto = node("GRU", {**arrays, "initial_h": state})
    free = lc.from_onnx(proto)
    assert isinstance(free, lc.GRU)  # its state is an input
    del proto.graph.input[1]
    proto.graph.initializer.append(onnx.numpy_helper.from_array(state, "initial_h"))
    graph = lc.from_onnx(proto)
    assert isinstance(graph, Graph)
    np.testing.assert_array_equal(graph(arrays["X"])[0][:, 0], free(arrays["X"], state)[0])
    with pytest.raises(ValueError, match="constant initial_h"):
        lc.from_onnx(proto, node="node")
    proto.graph.initializer[-1].CopyFrom(onnx.numpy_helper.from_array(0 * state, "initial_h"))
    assert lc.from_onnx(proto) == free  # zeros say nothing


def encoder_decoder() -> tuple[Any, lc.GRU, lc.GRU, Any]:
    """Two GRUs, the second of which starts where the first ends, and scores of its outputs."""
    first, second = weights("GRU", seed=1), weights("GRU", inputs=2, seed=2)
    head = np.random.default_rng(0).standard_normal((3, 6)).astype("f4")
    nodes = [
        helper.make_node("GRU", ["x", "W1", "R1", "B1"], ["", "h"], name="encoder", hidden_size=3),
        helper.make_node(
            "GRU", ["z", "W2", "R2", "B2", "", "h"], ["Y"], name="decoder", hidden_size=3
        ),
        helper.make_node("Squeeze", ["Y", "one"], ["y"]),
        helper.make_node("MatMul", ["y", "head"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
    ]
    constants = {f"{n}{i}": a[n] for i, a in ((1, first), (2, second)) for n in "WRB"}
    constants |= {"head": head, "one": np.array([1])}
    inputs = [value("x", "f4", ["T", "B", 4]), value("z", "f4", ["T2", "B", 2])]
    outputs = [value("p", "f4", None), value("h", "f4", None)]
    proto = model(nodes, inputs, outputs, constants)
    return proto, lc.from_onnx(node("GRU", first)), lc.from_onnx(node("GRU", second)), head


def test_a_whole_model() -> None:
    proto, encoder, decoder, head = encoder_decoder()
    graph = graph_of(proto)
    assert isinstance(graph, Graph)
    assert dict(graph) == {"encoder": encoder, "decoder": decoder}
    assert (graph.input_names, graph.output_names) == (("x", "z"), ("p", "h"))
    assert "encoder" in repr(graph)
    rng = np.random.default_rng(3)
    x, z = rng.standard_normal((5, 2, 4)), rng.standard_normal((7, 2, 2))
    x, z = x.astype("f4"), z.astype("f4")
    h = encoder(x)[1]
    scores = np.exp(decoder(z, h)[0] @ head)
    p, last = graph(x, z=z)
    np.testing.assert_allclose(p, scores / scores.sum(-1, keepdims=True), atol=1e-6)
    np.testing.assert_array_equal(last, h)
    np.testing.assert_array_equal(graph(z=z, x=x)[0], p)
    for again in (pickle.loads(pickle.dumps(graph)), copy.deepcopy(graph)):
        np.testing.assert_array_equal(again(x, z)[0], p)
    session = peers.require("onnxruntime").InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": x, "z": z})[0], p, atol=1e-6)
    for parameter in graph["encoder"].parameters():
        parameter.data[...] = 0
    np.testing.assert_array_equal(graph(x, z)[1], 0)


def test_inputs_that_do_not_fit_a_graph() -> None:
    graph = graph_of(encoder_decoder()[0])
    x, z = np.zeros((5, 2, 4), "f4"), np.zeros((3, 2, 2), "f4")
    for args, named, wrong, message in (
        ((x,), {}, TypeError, "'z'.* missing"),
        ((x, z, z), {}, TypeError, "3 inputs"),
        ((x, z), {"x": x}, TypeError, "'x' is given twice"),
        ((x, z), {"w": x}, TypeError, "'w' is given twice or unknown"),
        ((x.astype("f8"), z), {}, TypeError, "x has dtype float64, expected float32"),
        ((x[0], z), {}, ValueError, r"x has shape \(2, 4\), expected \(any, any, 4\)"),
        ((z, z), {}, ValueError, r"x has shape \(3, 2, 2\)"),
        ((x, z[:, :1]), {}, ValueError, "GRU 'decoder': h0 has shape"),
    ):
        with pytest.raises(wrong, match=message):
            graph(*args, **named)
    assert graph(x.tolist(), z=np.zeros((3, 2, 2), np.int64))[0].shape == (3, 2, 6)


def test_without_the_onnx_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r"pip install 'lstmcore\[onnx\]'"):
        lc.from_onnx(tmp_path / "model.onnx")
    with pytest.raises(ImportError, match=r"pip install 'lstmcore\[onnx\]'"):
        lc.to_onnx(lc.GRU(2, 3))


def test_onnx_is_imported_only_when_used() -> None:
    code = (
        "import sys, lstmcore; print('onnx' in sys.modules, 'lstmcore.onnx._graph' in sys.modules)"
    )
    run = [sys.executable, "-c", code]
    out = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["False", "False"]


# Weights that other nodes make --------------------------------------------------------------------


def test_weights_put_together_by_nodes() -> None:
    arrays = weights("LSTM", hidden=3)
    expected = lc.from_onnx(node("LSTM", arrays))
    proto = node("LSTM", arrays)
    graph = proto.graph
    for name in ("W", "R"):
        whole = arrays[name][0]
        del graph.initializer[[t.name for t in graph.initializer].index(name)]
        for gate in range(4):
            part = np.ascontiguousarray(whole[gate * 3 : gate * 3 + 3].T)
            graph.initializer.append(onnx.numpy_helper.from_array(part, f"{name}{gate}"))
        axes = f"{name}_axes"
        graph.initializer.append(onnx.numpy_helper.from_array(np.array([0]), axes))
        parts = [f"{name}{gate}" for gate in range(4)]
        for at, made in enumerate(
            (
                helper.make_node("Concat", parts, [f"{name}_side"], axis=1),
                helper.make_node("Transpose", [f"{name}_side"], [f"{name}_whole"], perm=[1, 0]),
                helper.make_node("Unsqueeze", [f"{name}_whole", axes], [name]),
            )
        ):
            graph.node.insert(at, made)
    assert lc.from_onnx(proto) == expected


@pytest.mark.parametrize("per_row", [False, True])
def test_weights_dequantised_by_nodes(per_row: bool) -> None:
    arrays = weights("GRU")
    steps = np.random.default_rng(0).integers(-128, 128, arrays["W"].shape).astype(np.int8)
    scale = np.linspace(0.01, 0.03, 9, dtype="f4") if per_row else np.array(0.02, "f4")
    zero = np.arange(-4, 5, dtype=np.int8) if per_row else np.array(5, np.int8)
    spread = (1, 9, 1) if per_row else ()
    real = (steps.astype("i4") - zero.reshape(spread)) * scale.reshape(spread)
    expected = lc.from_onnx(node("GRU", {**arrays, "W": real.astype("f4")}))
    proto = node("GRU", arrays)
    proto.graph.node[0].input[1] = "real"
    made = helper.make_node("DequantizeLinear", ["steps", "scale", "zero"], ["real"], axis=1)
    proto.graph.node.insert(0, made)
    for name, array in (("steps", steps), ("scale", scale), ("zero", zero)):
        proto.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    assert lc.from_onnx(proto) == expected


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("signed", [False, True])
def test_dynamically_quantised_lstm(
    tmp_path: Path, bidirectional: bool, per_channel: bool, signed: bool
) -> None:
    runtime = peers.require("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic

    lstm = lc.LSTM(12, 16, bidirectional=bidirectional, seed=0)
    real = lc.Sequential(lstm, lc.Linear(16 * (1 + bidirectional), 5, seed=1))
    lc.to_onnx(real, tmp_path / "real.onnx", lengths=True)
    kind = QuantType.QInt8 if signed else QuantType.QUInt8
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable(logging.WARNING)
        quantize_dynamic(
            tmp_path / "real.onnx",
            tmp_path / "q.onnx",
            weight_type=kind,
            per_channel=per_channel,
            reduce_range=True,  # of 8 bits its sums saturate on processors without VNNI
        )
        logging.disable(logging.NOTSET)
    ops = {n.op_type for n in onnx.load(tmp_path / "q.onnx").graph.node}
    assert {"DynamicQuantizeLSTM", "MatMulInteger"} <= ops
    graph = lc.from_onnx(tmp_path / "q.onnx")
    layer = lc.from_onnx(tmp_path / "q.onnx", node="0.lstm_l0_quant")
    assert graph["0.lstm_l0_quant"] == layer
    theirs = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in onnx.load(tmp_path / "q.onnx").graph.initializer
    }
    zeros = [theirs[f"0.{which}_l0_zero_point"] for which in "WR"]
    kept = all((zero == (0 if zero.dtype == np.int8 else 128)).all() for zero in zeros)
    assert kept or not signed
    assert layer._quantized == kept
    state = layer.state_dict()
    if kept:
        for name in [name for name in state if name.endswith("_scale")]:
            steps, scale = state[name.removesuffix("_scale")], state.pop(name)
            assert steps.dtype == np.int8
            state[name.removesuffix("_scale")] = steps * scale[:, None]
    for name, weight in state.items():
        which = "W" if "_ih" in name else "R"
        half_a_step = theirs[f"0.{which}_l0_scale"].max() / 2
        allowed = 0 if name.startswith("bias") else half_a_step * 1.001
        assert np.abs(weight - lstm.state_dict()[name]).max() <= allowed
        if not name.startswith("bias"):
            assert not np.array_equal(weight, lstm.state_dict()[name])
    x = np.random.default_rng(0).standard_normal((6, 3, 12)).astype("f4")
    lengths = np.array([6, 2, 4])
    session = runtime.InferenceSession(str(tmp_path / "q.onnx"))
    expected = session.run(None, {"x": x, "lengths": lengths})[0]
    np.testing.assert_allclose(graph(x, lengths), expected, atol=0.02)
    np.testing.assert_allclose(graph(x, lengths), real(x, lengths=lengths), atol=0.02)


def quantised(options: dict[str, Any]) -> Any:
    layer = lc.LSTM(12, 16, seed=0, **options)
    width = 16 * (2 if options.get("bidirectional") else 1)
    return lc.quantize(lc.Sequential(layer, lc.Linear(width, 5, seed=1)))


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bidirectional": True, "peephole": True},
        {"num_layers": 2, "bidirectional": True},
        {"bias": False, "batch_first": True},
        {"reverse": True, "forget_gate": False},
    ],
    ids=str,
)
def test_int8_there_and_back(options: dict[str, Any], lengths: bool) -> None:
    """ONNX Runtime's own run of it, an equal model, and the integers of the nodes kept."""
    runtime = peers.require("onnxruntime")
    model = quantised(options)
    proto = lc.to_onnx(model, lengths=lengths)
    onnx.checker.check_model(proto)
    shape = (6, 3, 12) if options.get("batch_first") else (3, 6, 12)
    x = np.random.default_rng(0).standard_normal(shape).astype("f4")
    feed = {"x": x} | ({"lengths": np.array([3, 2, 1, 0, 3, 3])} if lengths else {})
    expected = model(**feed)
    session = runtime.InferenceSession(proto.SerializeToString())
    # It has one scale for all of x, and we one for each row.
    np.testing.assert_allclose(session.run(None, feed)[0], expected, atol=0.006)
    assert lc.from_onnx(proto) == model
    del proto.metadata_props[:]
    graph = lc.from_onnx(proto)
    np.testing.assert_allclose(graph(**feed), expected, atol=0.006)
    for level, layer in enumerate(graph.values()):
        assert layer._quantized
        for name in ("weight_ih", "weight_hh"):
            if options.get("forget_gate", True):
                kept = model[0].state_dict()[f"{name}_l{level}"]
                np.testing.assert_array_equal(layer.state_dict()[f"{name}_l0"], kept)


def test_a_table_in_int8_there_and_back() -> None:
    runtime = peers.require("onnxruntime")
    table = lc.Embedding(9, 12, seed=0)
    model = lc.quantize(lc.Sequential(table, lc.LSTM(12, 16, seed=1), lc.Linear(16, 5, seed=2)))
    proto = lc.to_onnx(model)
    onnx.checker.check_model(proto)
    ids = np.random.default_rng(0).integers(9, size=(7, 3))
    session = runtime.InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(session.run(None, {"x": ids})[0], model(ids), atol=0.006)
    (held,) = (i for i in proto.graph.initializer if i.name.endswith("0.weight"))
    assert held.data_type == onnx.TensorProto.INT8
    assert lc.from_onnx(proto) == model
    del proto.metadata_props[:]
    np.testing.assert_allclose(lc.from_onnx(proto)(ids), model(ids), atol=0.006)


def test_int8_in_a_chain_and_what_is_refused() -> None:
    layer = lc.quantize(lc.LSTM(3, 4, seed=0))
    proto = lc.to_onnx(lc.Sequential(layer, lc.LastStep(), lc.Linear(4, 2, seed=1)))
    del proto.metadata_props[:]
    again = lc.from_onnx(proto)
    assert isinstance(again, lc.Sequential)
    assert again[0] == layer
    for module, message in (
        (
            lc.quantize(lc.GRU(3, 4)),
            "GRU.*in int8, which ONNX has in Linear, Embedding and LSTM alone",
        ),
        (lc.quantize(lc.LSTM(3, 4, proj_size=2)), "in int8, .*without .*, proj_size and"),
        (lc.quantize(lc.LSTM(3, 4, layer_norm=True)), "in int8, .*without layer_norm"),
        (lc.quantize(lc.LSTM(3, 4, zoneout=0.1)), "in int8, .*without .* zoneout"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.to_onnx(module)


def test_integers_that_are_not_symmetric_become_real_numbers() -> None:
    rng = np.random.default_rng(0)
    W, R = (rng.integers(-127, 128, (1, n, 12)).astype(np.int8) for n in (4, 3))

    def layer(**changed: Any) -> Any:
        arrays = {
            "W": W, "R": R, "W_scale": np.ones(1, "f4"), "W_zero_point": np.zeros(1, np.int8),
            "R_scale": np.ones(1, "f4"), "R_zero_point": np.zeros(1, np.int8),
        } | changed  # fmt: skip
        names = [n if n in arrays or n == "X" else "" for n in recurrent.QUANTIZED]
        one = helper.make_node("DynamicQuantizeLSTM", names, ["Y"], name="q", hidden_size=3,
                               domain="com.microsoft")  # fmt: skip
        return lc.from_onnx(model([one], [value("X", "f4")], [value("Y", "f4")], arrays))

    assert layer()._quantized
    unsigned = (W.astype(np.int16) + 128).astype(np.uint8)
    assert layer(W=unsigned, W_zero_point=np.full(1, 128, np.uint8)) == layer()
    least = W.copy()
    least[0, 0, 0] = -128
    for changed in (
        {"W": least},
        {"W_zero_point": np.ones(1, np.int8)},
        {"R_scale": -np.ones(1, "f4")},
        {"W": unsigned, "W_zero_point": np.full(1, 127, np.uint8)},
    ):
        found = layer(**changed)
        assert not found._quantized
        assert found.dtype == np.float32


def test_bad_quantised_weights_are_refused() -> None:
    def proto(**changed: Any) -> Any:
        arrays = {
            "W": np.zeros((1, 4, 12), np.int8), "R": np.zeros((1, 3, 12), np.int8),
            "W_scale": np.ones(1, "f4"), "W_zero_point": np.zeros(1, np.int8),
            "R_scale": np.ones((1, 12), "f4"), "R_zero_point": np.zeros((1, 12), np.int8),
        } | changed  # fmt: skip
        names = [n if n in arrays or n == "X" else "" for n in recurrent.QUANTIZED]
        one = helper.make_node("DynamicQuantizeLSTM", names, ["Y"], name="q", hidden_size=3,
                               domain="com.microsoft")  # fmt: skip
        given = {name: a for name, a in arrays.items() if a is not None}
        return model([one], [value("X", "f4")], [value("Y", "f4")], given)

    assert lc.from_onnx(proto()).hidden_size == 3
    for changed, message in (
        ({"W_scale": np.ones((1, 11), "f4")}, "W of shape"),
        ({"W_zero_point": np.zeros(1, np.uint8)}, "expected both int8 or both uint8"),
        ({"R": np.zeros((1, 3, 12), "f4")}, "R of float32"),
        ({"R_scale": np.ones((1, 12), "f8")}, "expected float32"),
        ({"W": np.zeros((1, 4, 16), np.int8)}, "W of shape"),
    ):
        with pytest.raises(ValueError, match=f"DynamicQuantizeLSTM 'q'.*{message}"):
            lc.from_onnx(proto(**changed))


# PyTorch's exports --------------------------------------------------------------------------------

torch = peers.require("torch")


class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        features = 7 * (2 if options["bidirectional"] else 1)
        self.embedding = torch.nn.Embedding(20, 6)
        self.recurrent = kind(6, 7, **options)
        self.norm = torch.nn.LayerNorm(features)
        self.head = torch.nn.Linear(features, 3)

    def forward(self, ids: Any, *state: Any) -> Any:
        y, final = self.recurrent(self.embedding(ids), *state)
        y = torch.nn.functional.dropout(self.norm(y), training=self.training)
        y = y[:, -1] if self.recurrent.batch_first else y[-1]
        return torch.log_softmax(self.head(y), -1), final


def flat(values: Any) -> list[Any]:
    if isinstance(values, tuple):
        return [array for part in values for array in flat(part)]
    return [values.detach().numpy() if hasattr(values, "detach") else values]


@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_models_that_pytorch_exports(kind: str, num_layers: int, bidirectional: bool) -> None:
    torch.manual_seed(0)
    for batch_first, folding, given in itertools.product((False, True), (False, True), (0, 1)):
        tagger = Tagger(
            getattr(torch.nn, kind),
            num_layers=num_layers,
            bidirectional=bidirectional,
            batch_first=batch_first,
        ).eval()
        state: tuple[Any, ...] = ()
        if given:
            h = torch.randn(num_layers * (1 + bidirectional), 5, 7)
            state = ((h, h / 2),) if kind == "LSTM" else (h,)
        ids = torch.randint(0, 20, (5, 4) if batch_first else (4, 5))
        buffer = io.BytesIO()
        names = ["ids", "h0", "c0"][: 1 + len(flat(state))]
        axes = {"ids": {0: "first", 1: "second"}, "h0": {1: "batch"}, "c0": {1: "batch"}}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                tagger, (ids, *state), buffer, dynamo=False, opset_version=17, input_names=names,
                dynamic_axes={n: axes[n] for n in names}, do_constant_folding=folding,
            )  # fmt: skip
        graph = lc.from_onnx(onnx.load_from_string(buffer.getvalue()))
        assert isinstance(graph, lc.Model) or len(graph) == num_layers
        expected = flat(tagger(ids, *state))
        found = graph(*flat((ids, *state)))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
        if not given:
            longer = torch.randint(0, 20, (3, 9))
            for one, other in zip(graph(longer.numpy()), flat(tagger(longer)), strict=True):
                np.testing.assert_allclose(one, other, atol=2e-6)


def test_what_a_node_is_given_is_found_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    right, resolved = recurrent.resolve, []

    def noted(node: Any) -> Any:
        resolved.append(node.name)
        return right(node)

    monkeypatch.setattr(recurrent, "resolve", noted)
    proto = lc.to_onnx(lc.LSTM(3, 4, 2, seed=0))
    del proto.metadata_props[:]
    assert len(lc.from_onnx(proto)) == 2
    assert resolved == ["lstm_l0", "lstm_l1"]
    del resolved[:]
    lc.from_onnx(proto, node="lstm_l1")
    assert resolved == ["lstm_l1"]
    del resolved[:]
    op, case = next((c.op, c) for c in CASES)
    assert isinstance(lc.from_onnx(case.model), getattr(lc, op))
    assert len(resolved) == 1


# What these tests notice --------------------------------------------------------------------------


def worst(op: str) -> float:
    cases = [case for case in CASES if case.op == op]
    return max(error(case, run(lc.from_onnx(case.model), case.inputs)) for case in cases)


@pytest.mark.parametrize(
    ("op", "order"),
    [("LSTM", (a, b)) for a, b in itertools.combinations(range(4), 2)]
    + [("GRU", (a, b)) for a, b in itertools.combinations(range(3), 2)],
)
def test_swapped_gates_are_noticed(
    monkeypatch: pytest.MonkeyPatch, op: str, order: tuple[int, int]
) -> None:
    gates = list(LAYOUTS["onnx"].order(op.lower()))
    a, b = order
    gates[a], gates[b] = gates[b], gates[a]
    wrong: Any = {op.lower(): "".join(gates)}
    monkeypatch.setitem(LAYOUTS, "onnx", LAYOUTS["onnx"]._replace(**wrong))
    assert worst(op) > 1e-2


@pytest.mark.parametrize(
    ("op", "dropped"),
    [
        *itertools.product(
            ("LSTM", "GRU", "RNN"), ("bias_ih", "bias_hh", "weight_ih", "weight_hh")
        ),
        ("LSTM", "weight_ch"),
    ],
)
def test_dropped_parameters_are_noticed(
    monkeypatch: pytest.MonkeyPatch, op: str, dropped: str
) -> None:
    right = recurrent.to_state

    def wrong(*args: Any) -> Any:
        return {n: 0 * a if n.startswith(dropped) else a for n, a in right(*args).items()}

    monkeypatch.setattr(recurrent, "to_state", wrong)
    assert worst(op) > 1e-2


@pytest.mark.parametrize("op", ["LSTM", "GRU", "RNN"])
def test_a_transposed_matrix_is_noticed(monkeypatch: pytest.MonkeyPatch, op: str) -> None:
    right = recurrent.to_state

    def wrong(config: Any, nodes: Any) -> Any:
        H = config.hidden_size
        return {
            n: a.reshape(-1, H, H).swapaxes(1, 2).reshape(-1, H) if "_hh" in n and a.ndim > 1 else a
            for n, a in right(config, nodes).items()
        }

    monkeypatch.setattr(recurrent, "to_state", wrong)
    assert worst(op) > 1e-2


@pytest.mark.parametrize(
    ("op", "ignored"),
    [
        ("LSTM", "gate_clip"), ("LSTM", "coupled"), ("LSTM", "activations"), ("LSTM", "reverse"),
        ("GRU", "gate_clip"), ("GRU", "reset_after"), ("GRU", "activations"), ("GRU", "reverse"),
        ("RNN", "gate_clip"), ("RNN", "nonlinearity"), ("RNN", "reverse"),
    ],
)  # fmt: skip
def test_ignored_attributes_are_noticed(
    monkeypatch: pytest.MonkeyPatch, op: str, ignored: str
) -> None:
    right = recurrent._options

    def wrong(*args: Any) -> Any:
        return {name: v for name, v in right(*args).items() if name != ignored}

    monkeypatch.setattr(recurrent, "_options", wrong)
    assert worst(op) > 1e-2


def test_the_table_of_operators_is_that_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "onnx.md").read_text("utf-8")
    table = operators.table()
    assert table in text
    assert all(name in table for name in operators.names())
    assert len(operators.names()) > 150
