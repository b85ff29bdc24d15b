"""ONNX files as tools write them: unsorted, quantised, fused, with branches, loops, functions."""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.onnx_models import model, node, onnx, value, weights
from lstmcore.onnx._graph import Graph
from lstmcore.onnx._importing import graph_of

runtime = peers.require("onnxruntime")
helper = onnx.helper
rng = np.random.default_rng(0)


def theirs(proto: Any, feed: dict[str, Any], optimised: bool = True) -> list[Any]:
    """What ONNX Runtime makes of inputs."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = runtime.InferenceSession(proto.SerializeToString(), options)
    found: list[Any] = session.run(None, feed)
    return found


def compare(proto: Any, feed: dict[str, Any], atol: float = 2e-6) -> None:
    """Hold a graph to ONNX Runtime."""
    found = graph_of(proto)(**feed)
    found = found if isinstance(found, tuple) else (found,)
    for one, other in zip(found, theirs(proto, feed), strict=True):
        assert one.dtype == other.dtype
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=atol)


# A node alone -------------------------------------------------------------------------------------


def gru(name: str, output: str, x: str = "x") -> Any:
    return helper.make_node("GRU", [x, "W", "R"], [output], name=name, hidden_size=3)


def constants() -> dict[str, Any]:
    arrays = weights("GRU")
    return {"W": arrays["W"], "R": arrays["R"]}


def info(name: str, shape: Any = None, dtype: Any = "f4") -> Any:
    return value(name, dtype, shape)


def branches() -> Any:
    """A GRU in each branch of an If; the second has its weights in the branch itself."""
    own = {name: 2 * a for name, a in constants().items()}
    tensors = [onnx.numpy_helper.from_array(a, f"own_{n}") for n, a in own.items()]
    first = helper.make_graph([gru("one", "y1")], "then", [], [info("y1")])
    second_gru = helper.make_node("GRU", ["x", "own_W", "own_R"], ["y2"], name="two", hidden_size=3)
    second = helper.make_graph([second_gru], "else", [], [info("y2")], tensors)
    made = helper.make_node("If", ["c"], ["y"], then_branch=first, else_branch=second)
    inputs = [info("x", ["T", "B", 4]), info("c", [], "?")]
    return model([made], inputs, [info("y")], constants())


def loop() -> Any:
    """A GRU over the same x, again and again, whose states are collected."""
    step = helper.make_node(
        "GRU", ["x", "W", "R", "", "", "before"], ["", "after"], name="inner", hidden_size=3
    )
    nodes = [
        step,
        helper.make_node("Identity", ["going"], ["goes_on"]),
        helper.make_node("Identity", ["after"], ["seen"]),
    ]
    inputs = [info("i", [], "i8"), info("going", [], "?"), info("before", [1, "B", 3])]
    outputs = [info("goes_on", [], "?"), info("after", [1, "B", 3]), info("seen", [1, "B", 3])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node("Loop", ["n", "", "h0"], ["h", "all"], body=body)
    given = [info("x", ["T", "B", 4]), info("n", [], "i8"), info("h0", [1, "B", 3])]
    return model([made], given, [info("h"), info("all")], constants())


def scan() -> Any:
    """A cell step by step."""
    nodes = [
        helper.make_node("Unsqueeze", ["step", "zero"], ["x1"]),
        helper.make_node(
            "GRU", ["x1", "W", "R", "", "", "before"], ["", "after"], name="inner", hidden_size=3
        ),
        helper.make_node("Identity", ["after"], ["seen"]),
    ]
    inputs = [info("before", [1, "B", 3]), info("step", ["B", 4])]
    outputs = [info("after", [1, "B", 3]), info("seen", [1, "B", 3])]
    body = helper.make_graph(nodes, "body", inputs, outputs)
    made = helper.make_node(
        "Scan", ["h0", "x"], ["h", "all"], body=body, num_scan_inputs=1, scan_input_directions=[1],
        scan_output_axes=[1],
    )  # fmt: skip
    given = [info("x", ["T", "B", 4]), info("h0", [1, "B", 3])]
    return model([made], given, [info("h"), info("all")], {**constants(), "zero": np.array([0])})


def function() -> Any:
    """A function that holds a GRU, called twice."""
    inner = helper.make_node("GRU", ["a", "w", "r"], ["all"], name="inside")
    inner.attribute.add(name="hidden_size", type=2, ref_attr_name="size")
    nodes = [inner, helper.make_node("Relu", ["all"], ["b"])]
    made = helper.make_function(
        "own", "Layer", ["a", "w", "r"], ["b"], nodes, [helper.make_opsetid("", 14)], ["size"]
    )
    calls = [
        helper.make_node("Layer", ["x", "W", "R"], ["y"], name="one", domain="own", size=3),
        helper.make_node("Squeeze", ["y", "axis"], ["z"]),
        helper.make_node("Layer", ["z", "W2", "R"], ["v"], name="two", domain="own", size=3),
    ]
    arrays = {**constants(), "W2": weights("GRU", inputs=3)["W"], "axis": np.array([1])}
    proto = model(calls, [info("x", ["T", "B", 4])], [info("v")], arrays)
    proto.functions.append(made)
    proto.opset_import.append(helper.make_opsetid("own", 1))
    return proto


X = rng.standard_normal((5, 2, 4)).astype("f4")
H = rng.standard_normal((1, 2, 3)).astype("f4")


def test_branches() -> None:
    for choice in (True, False):
        compare(branches(), {"x": X, "c": np.array(choice)})
    plain = lc.from_onnx(node("GRU", {**constants(), "X": X}))
    assert lc.from_onnx(branches(), node="one") == plain
    assert lc.from_onnx(branches(), node="two") != plain
    assert set(lc.from_onnx(branches())) == {"one", "two"}


@pytest.mark.parametrize("names", [("one", "two"), ("same", "same"), ("", "")])
def test_branches_that_give_their_own_weights_the_same_names(names: tuple[str, str]) -> None:
    bodies = []
    for name, factor in zip(names, (1, 2), strict=True):
        tensors = [onnx.numpy_helper.from_array(factor * a, n) for n, a in constants().items()]
        made = gru(name, "y0")
        bodies.append(helper.make_graph([made], "body", [], [info("y0")], tensors))
    made = helper.make_node("If", ["c"], ["y"], then_branch=bodies[0], else_branch=bodies[1])
    proto = model([made], [info("x", ["T", "B", 4]), info("c", [], "?")], [info("y")])
    for choice in (True, False):
        compare(proto, {"x": X, "c": np.array(choice)})
    graph = lc.from_onnx(proto)  # within the limit on its size: all weights are in the branches
    first, second = graph.values()
    assert first != second
    assert lc.from_onnx(proto, node=list(graph)[1]) == second
    compare(proto, {"x": X, "c": np.array(False)})


@pytest.mark.parametrize("trips", [3, 1])
def test_a_loop(trips: int) -> None:
    compare(loop(), {"x": X, "n": np.array(trips), "h0": H})
    h, none = graph_of(loop())(X, np.array(0), H)
    np.testing.assert_array_equal(h, H)
    assert none.shape == (0, 1, 2, 3)
    plain = lc.from_onnx(node("GRU", {**constants(), "X": X}))
    assert lc.from_onnx(loop(), node="inner") == plain


@pytest.mark.parametrize("steps", [5, 1])
def test_a_scan(steps: int) -> None:
    compare(scan(), {"x": X[:steps], "h0": H})
    _, all_ = graph_of(scan())(X[:0], H)
    assert all_.shape == (1, 0, 2, 3)


def test_functions() -> None:
    proto = function()
    compare(proto, {"x": X})
    assert list(graph_of(proto)) == ["one/inside", "two/inside"]
    assert lc.from_onnx(proto, node="one/inside").input_size == 4
    assert lc.from_onnx(proto, node="two/inside").input_size == 3
    with pytest.raises(ValueError, match="'inside', which 2 recurrent nodes have"):
        lc.from_onnx(proto, node="inside")
    del proto.graph.node[1:]
    proto.graph.output[0].name = "y"
    assert lc.from_onnx(proto, node="inside").input_size == 4


def test_functions_that_multiply() -> None:
    """Each calls the one before it twice."""
    proto = model([helper.make_node("f40", ["x"], ["y"], domain="own")], [info("x")], [info("y")])
    ids = [helper.make_opsetid("", 14), helper.make_opsetid("own", 1)]
    for i in range(41):
        op, domain = (f"f{i - 1}", "own") if i else ("Relu", "")
        nodes = [
            helper.make_node(op, ["a"], ["b"], domain=domain),
            helper.make_node(op, ["b"], ["c"], domain=domain),
        ]
        proto.functions.append(helper.make_function("own", f"f{i}", ["a"], ["c"], nodes, ids))
    with pytest.raises(ValueError, match=r"too many nodes|more than 30 deep"):
        lc.from_onnx(proto)


def test_a_node_is_had_whatever_stands_beside_it() -> None:
    """Strings, sparse tensors, circles, unknown operators and inputs: nobody looks at them."""
    proto = node("GRU", weights("GRU"), name="wanted")
    alone = lc.from_onnx(proto)
    graph = proto.graph
    graph.initializer.append(onnx.TensorProto(name="text", data_type=8, string_data=[b"a"]))
    graph.initializer.append(onnx.TensorProto(name="broken", data_type=1, dims=[7]))
    graph.sparse_initializer.add().values.name = "sparse"
    graph.node.append(helper.make_node("Neg", ["b"], ["a"]))
    graph.node.append(helper.make_node("Neg", ["a"], ["b"]))
    graph.node.append(helper.make_node("Unheard", ["text", "nobody"], ["c"], domain="x"))
    graph.input.append(helper.make_tensor_sequence_value_info("list", 1, None))
    graph.node.append(helper.make_node("GRU", ["X", "broken", "sparse"], ["d"], name="other"))
    assert lc.from_onnx(proto, node="wanted") == alone
    with pytest.raises(ValueError, match=r"sparse|broken"):
        lc.from_onnx(proto, node="other")
    with pytest.raises(ValueError, match=r"'third', which 0 .*: 'wanted', 'other'"):
        lc.from_onnx(proto, node="third")


def test_a_node_whose_weights_are_computed() -> None:
    proto = node("GRU", weights("GRU"), name="wanted")
    expected = lc.from_onnx(proto)
    half = {t.name: onnx.numpy_helper.to_array(t) / 2 for t in proto.graph.initializer}
    proto.graph.initializer[0].CopyFrom(onnx.numpy_helper.from_array(half["W"], "half"))
    proto.graph.node.append(helper.make_node("Add", ["half", "half"], ["W"]))
    assert lc.from_onnx(proto, node="wanted") == expected
    assert lc.from_onnx(proto) == expected


# Files --------------------------------------------------------------------------------------------


def test_nodes_in_any_order() -> None:
    proto = node("GRU", weights("GRU"))
    for op, given, made in (("Relu", "b", "c"), ("Neg", "a", "b"), ("Tanh", "Y", "a")):
        proto.graph.node.append(helper.make_node(op, [given], [made]))
    del proto.graph.output[:]
    proto.graph.output.append(info("c"))
    x = weights("GRU")["X"]
    found = graph_of(proto)(x)
    expected = np.maximum(-lc.Tanh()(graph_of(node("GRU", weights("GRU")))(x)[0]), 0)
    np.testing.assert_array_equal(found, expected)


def test_bytes_and_open_files(tmp_path: Path) -> None:
    lstm = lc.LSTM(3, 4, seed=0)
    content = lc.to_onnx(lstm, tmp_path / "m.onnx").SerializeToString()
    assert (tmp_path / "m.onnx").read_bytes() == content
    with (tmp_path / "m.onnx").open("rb") as file:
        sources = [content, bytearray(content), memoryview(content), io.BytesIO(content), file]
        for source in sources:
            assert lc.from_onnx(source) == lstm
    with pytest.raises(TypeError, match="opened for text"):
        lc.from_onnx(io.StringIO("text"))
    with pytest.raises(ValueError, match="model is not an ONNX model, or only a part"):
        lc.from_onnx(content[: len(content) // 2])


def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    lc.to_onnx(lc.GRU(2, 3, seed=0), path)
    path.chmod(0o640)
    before = path.read_bytes()

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:10])
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_bytes", full)
        with pytest.raises(OSError, match="No space left"):
            lc.to_onnx(lc.GRU(2, 3, seed=1), path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["model.onnx"]
    lc.to_onnx(lc.GRU(2, 3, seed=1), path)
    assert lc.from_onnx(path) == lc.GRU(2, 3, seed=1)
    assert path.stat().st_mode & 0o777 == 0o640


def test_what_is_missing_is_listed_whole() -> None:
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["y"], name="gru", hidden_size=3),
        *(helper.make_node("Resize", ["y", "", "W"], [f"a{i}"]) for i in range(3)),
        helper.make_node("NonMaxSuppression", ["y", "y"], ["b"]),
    ]
    proto = model(nodes, [info("x")], [info("b")], constants())
    message = r"needs Resize \(3 nodes\), NonMaxSuppression \(1\).*opset 14.*pass node="
    with pytest.raises(ValueError, match=message):
        lc.from_onnx(proto)
    proto.producer_name = "tf2onnx"
    with pytest.raises(ValueError, match="from_keras"):
        lc.from_onnx(proto)


def test_empty_batches_and_no_steps() -> None:
    torch = peers.require("torch")

    class Steps(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 3, 2, bidirectional=True)
            self.head = torch.nn.Linear(6, 2)

        def forward(self, x: Any, h: Any, c: Any) -> Any:
            y, state = self.lstm(x, (h, c))
            return (torch.log_softmax(self.head(y), -1), *state)

    buffer = io.BytesIO()
    state = torch.zeros(4, 2, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Steps().eval(), (torch.zeros(5, 2, 4), state, state), buffer, dynamo=False,
            input_names=["x", "h", "c"], opset_version=17,
            dynamic_axes={"x": {0: "t", 1: "b"}, "h": {1: "b"}, "c": {1: "b"}},
        )  # fmt: skip
    graph = lc.from_onnx(buffer.getvalue())
    assert isinstance(graph, Graph)
    h = rng.standard_normal((4, 2, 3)).astype("f4")
    y, last, _ = graph(np.zeros((0, 2, 4), "f4"), h, h)
    assert y.shape == (0, 2, 2)
    np.testing.assert_array_equal(last, h)
    y, last, _ = graph(np.zeros((5, 0, 4), "f4"), h[:, :0], h[:, :0])
    assert y.shape == (5, 0, 2)
    assert last.shape == (4, 0, 3)


# Quantised, fused ---------------------------------------------------------------------------------


def test_one_scale_with_an_axis_of_its_own() -> None:
    made = helper.make_node("DequantizeLinear", ["q", "s"], ["y"])
    proto = model([made], [info("q", None, "i4")], [info("y")], {"s": np.array([0.5], "f4")})
    found = graph_of(proto)(np.array([1, 2, 3, 4], "i4"))
    np.testing.assert_array_equal(found, np.array([0.5, 1, 1.5, 2], "f4"))


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "one axis": ((2, 3, 9), (4, 3, 3), {}),
    "overlapping windows of one channel": ((1, 1, 40), (6, 1, 16), {"strides": [5]}),
    "a kernel of 1": ((2, 3, 9), (4, 3, 1), {}),
    "padded, strided, dilated": (
        (2, 3, 9), (4, 3, 3), {"pads": [2, 1], "strides": [2], "dilations": [2]}),
    "two axes": ((2, 3, 7, 6), (4, 3, 3, 2), {"pads": [1, 0, 1, 2], "strides": [2, 1]}),
    "same, the rest before": ((2, 3, 8, 6), (4, 3, 3, 2), {"auto_pad": "SAME_LOWER"}),
    "three axes": ((1, 2, 4, 5, 6), (3, 2, 2, 3, 2), {}),
    "groups": ((2, 4, 9), (6, 2, 3), {"group": 2, "pads": [1, 1]}),
    "depthwise": ((2, 4, 7, 6), (4, 1, 3, 3), {"group": 4}),
}  # fmt: skip


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("case", CONVOLUTIONS)
def test_convolutions(case: str, bias: bool) -> None:
    shape, kernel, attributes = CONVOLUTIONS[case]
    arrays = {"w": rng.standard_normal(kernel).astype("f4")}
    if bias:
        arrays["b"] = rng.standard_normal(kernel[0]).astype("f4")
    made = helper.make_node("Conv", ["x", *arrays], ["y"], **attributes)
    x, other = (rng.standard_normal((batch, *shape[1:])).astype("f4") for batch in (shape[0], 3))
    sizes = ["B", *(f"n{i}" for i in range(len(shape) - 2))]
    free = [info("x", [sizes[0], shape[1], *sizes[1:]])]
    constant = model([made], free, [info("y")], arrays)
    given = model([made], [*free, *(info(n) for n in arrays)], [info("y")])
    graph = graph_of(constant)
    for one in (x, other, x[..., ::-1], other[..., :-1], x[:0]):
        expected = theirs(constant, {"x": one})[0]
        np.testing.assert_allclose(graph(one), expected, atol=5e-6)
        assert graph(one).shape == expected.shape
    compare(given, {"x": x, **arrays}, 5e-6)
    short = np.zeros((*shape[:2], *[0] * len(kernel[2:])), "f4")
    with pytest.raises(ValueError, match=r"Conv 'y': x is \(.*too short for a kernel"):
        graph(short)


def test_a_version_that_is_named_twice() -> None:
    proto = branches()
    proto.opset_import.append(helper.make_opsetid("ai.onnx", 14))  # as merged models have it
    assert lc.from_onnx(proto, node="one") == lc.from_onnx(branches(), node="one")
    proto.opset_import.append(helper.make_opsetid("", 13))
    with pytest.raises(ValueError, match="names 2 versions"):
        lc.from_onnx(proto)


@pytest.mark.parametrize("mode", ["reflect", "edge", "wrap", "constant"])
def test_padding_by_constants(mode: str) -> None:
    made = helper.make_node("Pad", ["x", "pads"], ["y"], mode=mode)
    for pads in ([0, 2, 0, 1], [1, 2, 0, 1], [0, 0, 0, 0], [0, -1, 0, 2]):
        proto = model([made], [info("x")], [info("y")], {"pads": np.array(pads)}, 19)
        graph = graph_of(proto)
        for x in (A, A[:, ::-1], A.T):
            np.testing.assert_array_equal(graph(x), theirs(proto, {"x": x})[0])
    with pytest.raises(ValueError, match="Pad 'y'"):
        graph(X)


def test_inputs_in_a_dictionary_are_explained() -> None:
    with pytest.raises(TypeError, match=r"x is .*expected an array of float32: write model\("):
        graph_of(branches())({"x": X}, np.array(True))


A = rng.standard_normal((5, 4)).astype("f4")
# Of 7 bits: of 8, ONNX Runtime's sums saturate on processors without VNNI.
W8 = rng.integers(-63, 64, (4, 3)).astype(np.int8)
A8 = rng.integers(0, 256, (5, 4)).astype(np.uint8)
S, Z, ZI = np.float32(0.02), np.array(120, np.uint8), np.array(0, np.int8)


@pytest.mark.parametrize(
    ("op", "inputs", "attributes", "dtype"),
    [
        ("FusedGemm", [A, A[:3], A[0, :3]], {"transB": 1, "activation": "Relu"}, "f4"),
        ("FusedGemm", [A, A[:3]], {"transB": 1, "activation": "LeakyRelu",
                                   "activation_alpha": 0.2}, "f4"),
        ("FusedMatMul", [A, A[:3]], {"transB": 1, "alpha": 0.5}, "f4"),
        ("FusedConv", [A[None], A[:3, :, None].repeat(2, 2).transpose(0, 1, 2)[:, :4].repeat(
            2, 1)[:, :5]], {"activation": "Tanh"}, "f4"),
        ("Gelu", [A], {}, "f4"),
        ("BiasGelu", [A, A[0]], {}, "f4"),
        ("FastGelu", [A, A[0]], {}, "f4"),
        ("QuickGelu", [A], {"alpha": 1.5}, "f4"),
        ("SkipLayerNormalization", [A[None], A[None] * 2, A[0], A[1], A[2]],
         {"epsilon": 1e-5}, "f4"),
        ("DynamicQuantizeMatMul", [A, W8, np.float32([0.1, 0.2, 0.3]), ZI.repeat(3), A[0, :3]],
         {}, "f4"),
        ("MatMulIntegerToFloat", [A8, W8, S, np.float32(0.1), Z, ZI, A[0, :3]], {}, "f4"),
        ("QGemm", [A8, S, Z, W8, np.float32(0.1), ZI, np.arange(3, dtype="i4"), S, Z], {}, "u1"),
        ("QLinearAdd", [A8, S, Z, A8[:1], S, Z, S, Z], {}, "u1"),
        ("QLinearMul", [A8, S, Z, A8[:1], S, Z, S, Z], {}, "u1"),
        ("QLinearSigmoid", [A8, S, Z, S, Z], {}, "u1"),
        ("QLinearLeakyRelu", [A8, S, Z, S, Z], {"alpha": 0.3}, "u1"),
        ("QLinearSoftmax", [A8, S, Z, np.float32(1 / 256), np.uint8(0)],
         {"axis": -1, "opset": 13}, "u1"),
        ("QLinearConcat", [S, Z, A8, S, Z, A8, S, Z], {"axis": 1}, "u1"),
        ("QLinearGlobalAveragePool", [A8.reshape(1, 5, 2, 2), S, Z, S, Z], {}, "u1"),
        ("QuantizeLinear", [A, S, Z], {}, "u1"),
        ("DequantizeLinear", [A8, S, Z], {}, "f4"),
    ],
)  # fmt: skip
def test_what_onnx_runtime_makes_of_models(
    op: str, inputs: list[Any], attributes: dict[str, Any], dtype: str
) -> None:
    names = [f"x{i}" for i in range(len(inputs))]
    made = helper.make_node(op, names, ["y"], domain="com.microsoft", **attributes)
    arrays = dict(zip(names, map(np.asarray, inputs), strict=True))
    first = "x2" if op == "QLinearConcat" else "x0"
    given = info(first, list(arrays[first].shape), arrays[first].dtype)
    rest = {name: a for name, a in arrays.items() if name != first}
    proto = model([made], [given], [info("y", None, dtype)], rest)
    expected = theirs(proto, {first: arrays[first]})[0]
    found = graph_of(proto)(arrays[first])
    found = found[0] if isinstance(found, tuple) else found
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    off = np.abs(found.astype("f8") - expected.astype("f8"))
    # Where a number lies between two whole ones, a last bit decides which it becomes.
    assert off.max() <= (1 if dtype == "u1" else 1e-5)
    assert (off == 0).mean() > 0.9 or dtype == "f4"


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_a_model_that_onnx_runtime_has_optimised(tmp_path: Path, level: str) -> None:
    path, optimised = tmp_path / "m.onnx", tmp_path / "o.onnx"
    parts = (lc.GRU(4, 5, seed=0), lc.LastStep(), lc.Linear(5, 6, seed=1), lc.ReLU())
    net = lc.Sequential(*parts, lc.Linear(6, 2, seed=2), lc.Softmax())
    proto = lc.to_onnx(net)
    del proto.metadata_props[:]
    path.write_bytes(proto.SerializeToString())
    options = runtime.SessionOptions()
    kinds = runtime.GraphOptimizationLevel
    options.graph_optimization_level = getattr(kinds, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = str(optimised)
    runtime.InferenceSession(str(path), options)
    found = lc.from_onnx(optimised)
    np.testing.assert_allclose(found(X), net(X), atol=2e-6)


def tagger(tmp_path: Path) -> tuple[Path, Any]:
    """A file of a network with two heads, without our description, and x for it."""
    x = lc.Input(4)
    y, h = lc.GRU(4, 5, 2, bidirectional=True, batch_first=True, seed=0)(x)
    steps = lc.Linear(10, 3, seed=1)(lc.LayerNorm(10)(lc.GELU()(lc.Linear(10, 10, seed=2)(y))))
    rows = lc.Softmax()(lc.Linear(10, 2, seed=3)(lc.concat([h[2], h[3]])))
    proto = lc.to_onnx(lc.Model(x, [steps, rows]))
    del proto.metadata_props[:]
    path = tmp_path / "float.onnx"
    onnx.save(proto, path)
    return path, rng.standard_normal((3, 7, 4)).astype("f4")


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("format_", ["QDQ", "QOperator"])
def test_what_static_quantisation_writes(tmp_path: Path, format_: str, per_channel: bool) -> None:
    quantization = peers.require("onnxruntime.quantization")
    path, x = tagger(tmp_path)

    class Examples(quantization.CalibrationDataReader):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self._left = [{"x": x}, {"x": -x}]

        def get_next(self) -> Any:
            return self._left.pop() if self._left else None

    quantised = tmp_path / "int.onnx"
    quantization.quantize_static(
        path, quantised, Examples(), quant_format=quantization.QuantFormat[format_],
        per_channel=per_channel, reduce_range=True,
    )  # fmt: skip
    proto = onnx.load(quantised)
    kinds = {node.op_type for node in proto.graph.node}
    assert "QuantizeLinear" in kinds
    assert ("QLinearMatMul" in kinds) == (format_ == "QOperator")
    # Optimised, it has a softmax of integers from a table, which is another one.
    expected = theirs(proto, {"x": x}, optimised=False)
    for ours, truth in zip(graph_of(proto)(x), expected, strict=True):
        assert ours.shape == truth.shape
        # Where a number lies between two whole ones, a last bit decides which it becomes.
        off = np.abs(ours - truth)
        assert (off < 1e-5).mean() > 0.9
        assert off.max() < 0.05
        assert np.ptp(truth) > 0.2


@pytest.mark.parametrize("whole", [False, True])
def test_what_the_converter_to_float16_writes(tmp_path: Path, whole: bool) -> None:
    """Nodes are not sorted there; recurrent nodes stay as they are, as ONNX Runtime needs them."""
    convert = peers.require("onnxruntime.transformers.float16").convert_float_to_float16
    path, x = tagger(tmp_path)
    proto = convert(onnx.load(path), keep_io_types=not whole, op_block_list=["GRU"])
    kind = onnx.TensorProto.FLOAT16
    assert any(tensor.data_type == kind for tensor in proto.graph.initializer)
    x = x.astype("f2") if whole else x
    for ours, truth in zip(graph_of(proto)(x), theirs(proto, {"x": x}), strict=True):
        assert ours.dtype == truth.dtype
        np.testing.assert_allclose(ours.astype("f4"), truth.astype("f4"), atol=4e-3)
    found = lc.from_onnx(proto)
    assert isinstance(found, Graph)  # of two types of numbers, which no Model is


@pytest.mark.parametrize("level", ["basic", "extended", "all"])
def test_a_network_that_onnx_runtime_has_optimised(tmp_path: Path, level: str) -> None:
    path, x = tagger(tmp_path)
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    kinds = runtime.GraphOptimizationLevel
    options.graph_optimization_level = getattr(kinds, f"ORT_ENABLE_{level.upper()}")
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    runtime.InferenceSession(str(path), options)
    found = lc.from_onnx(tmp_path / "optimised.onnx")
    for ours, truth in zip(found(x), theirs(onnx.load(path), {"x": x}), strict=True):
        np.testing.assert_allclose(ours, truth, atol=3e-6)


def test_a_statically_quantised_head() -> None:
    """Quantised and back around a product, as static quantisation writes it."""
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["Y"], name="gru", hidden_size=3),
        helper.make_node("Squeeze", ["Y", "one"], ["y"]),
        helper.make_node("QuantizeLinear", ["y", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["w"]),
        helper.make_node("DequantizeLinear", ["bq", "bs"], ["b"]),
        helper.make_node("MatMul", ["r", "w"], ["u"]),
        helper.make_node("Add", ["u", "b"], ["v"]),
    ]
    arrays = {
        **constants(), "one": np.array([1]), "s": S, "z": Z, "wq": W8[:3], "wz": ZI.repeat(3),
        "ws": np.array([0.01, 0.02, 0.03], "f4"), "bq": np.array([3, -4, 5], "i4"),
        "bs": np.array([0.5], "f4"),
    }  # fmt: skip
    proto = model(nodes, [info("x", ["T", "B", 4])], [info("v")], arrays)
    compare(proto, {"x": X}, atol=1e-5)
    assert list(lc.from_onnx(proto)) == ["gru"]


def test_packed_rows_of_any_length() -> None:
    """Sorted by length, put back: other batches and lengths than what was exported."""
    nodes = [
        helper.make_node("Shape", ["lengths"], ["count"]),
        helper.make_node("TopK", ["lengths", "count"], ["sorted", "order"], axis=0),
        helper.make_node("Gather", ["x", "order"], ["rows"], axis=1),
        helper.make_node("Cast", ["sorted"], ["short"], to=onnx.TensorProto.INT32),
        helper.make_node("GRU", ["rows", "W", "R", "", "short"], ["Y"], name="gru", hidden_size=3),
        helper.make_node("Squeeze", ["Y", "one"], ["y"]),
        helper.make_node("Shape", ["order"], ["n"]),
        helper.make_node("Squeeze", ["n", "zero"], ["n0"]),
        helper.make_node("Range", ["start", "n0", "step"], ["places"]),
        helper.make_node("ScatterElements", ["places", "order", "places"], ["back"], axis=0),
        helper.make_node("Gather", ["y", "back"], ["z"], axis=1),
    ]
    arrays = {
        **constants(), "one": np.array([1]), "zero": np.array([0]), "start": np.array(0),
        "step": np.array(1),
    }  # fmt: skip
    inputs = [info("x", ["T", "B", 4]), info("lengths", ["B"], "i8")]
    proto = model(nodes, inputs, [info("z")], arrays)
    for lengths in ([2, 5, 3], [1, 4], [3, 3, 5, 1]):
        x = rng.standard_normal((5, len(lengths), 4)).astype("f4")
        compare(proto, {"x": x, "lengths": np.array(lengths)})
        plain = lc.from_onnx(proto, node="gru")(x, lengths=lengths)[0]
        np.testing.assert_array_equal(graph_of(proto)(x, np.array(lengths)), plain)


def test_packed_rows_that_pytorch_exports() -> None:
    """Of lengths in any order, at other sizes than exported; the longest row has all steps."""
    torch = peers.require("torch")
    rnn = torch.nn.utils.rnn

    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(4, 5, bidirectional=True, batch_first=True)
            self.head = torch.nn.Linear(10, 3)

        def forward(self, x: Any, lengths: Any) -> Any:
            packed = rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
            y, (h, _) = self.lstm(packed)
            y, _ = rnn.pad_packed_sequence(y, batch_first=True)
            return self.head(y), torch.cat([h[-2], h[-1]], 1)

    torch.manual_seed(0)
    module, buffer = Tagger().eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (torch.randn(3, 7, 4), torch.tensor([3, 7, 5])), buffer, dynamo=False,
            input_names=["x", "lengths"], opset_version=17,
            dynamic_axes={"x": {0: "b", 1: "t"}, "lengths": {0: "b"}},
        )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    assert isinstance(lc.from_onnx(proto), Graph)
    for lengths in ([3, 7, 5], [7, 1], [2, 9, 4, 9], [1]):
        x = rng.standard_normal((len(lengths), max(lengths), 4)).astype("f4")
        compare(proto, {"x": x, "lengths": np.array(lengths)})
        expected = module(torch.from_numpy(x), torch.tensor(lengths))
        found = graph_of(proto)(x, np.array(lengths))
        for ours, truth in zip(found, expected, strict=True):
            np.testing.assert_allclose(ours, truth.detach().numpy(), atol=2e-6)


def test_sequences() -> None:
    """Split, put together, changed and counted, as exporters of loops do."""
    x = rng.standard_normal((4, 3)).astype("float32")
    nodes = [
        helper.make_node("SplitToSequence", ["x"], ["rows"], axis=0, keepdims=1),
        helper.make_node("SequenceAt", ["rows", "one"], ["second"]),
        helper.make_node("SequenceErase", ["rows", "zero"], ["shorter"]),
        helper.make_node("SequenceInsert", ["shorter", "second", "zero"], ["changed"]),
        helper.make_node("ConcatFromSequence", ["changed"], ["joined"], axis=0),
        helper.make_node("SequenceLength", ["shorter"], ["count"]),
        helper.make_node("SequenceEmpty", [], ["none"]),
        helper.make_node("SequenceInsert", ["none", "second"], ["only"]),
        helper.make_node("ConcatFromSequence", ["only"], ["single"], axis=1),
        helper.make_node("SequenceConstruct", ["second", "x"], ["pair"]),
        helper.make_node("ConcatFromSequence", ["pair"], ["stacked"], axis=0),
    ]
    outputs = [info(name) for name in ("second", "joined", "single", "stacked")]
    constants_ = [
        onnx.numpy_helper.from_array(np.array(i), name) for i, name in enumerate(("zero", "one"))
    ]
    graph = helper.make_graph(
        nodes, "test", [info("x", (4, 3))], [*outputs, info("count", (), "i8")], constants_
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    compare(proto, {"x": x})
