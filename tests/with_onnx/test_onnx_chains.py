"""ONNX files that are a chain of our modules: they become a Sequential; others stay a Graph."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.onnx_models import model, onnx, value, weights
from lstmcore.onnx._graph import Graph
from lstmcore.onnx._importing import graph_of

torch = peers.require("torch")
helper = onnx.helper


class Classifier(torch.nn.Module):  # type: ignore[misc, name-defined]
    """Two recurrent layers, what `how` says of their outputs, and a head."""

    def __init__(self, kind: str, batch_first: bool, bidirectional: bool, how: str) -> None:
        super().__init__()
        kind_of = getattr(torch.nn, kind)
        self.recurrent = kind_of(
            6, 5, 2, batch_first=batch_first, bidirectional=bidirectional, dropout=0.2
        )
        self.head = torch.nn.Linear(5 * (1 + bidirectional), 3)
        self.how = how

    def forward(self, x: Any) -> Any:
        y, state = self.recurrent(x)
        time = 1 if self.recurrent.batch_first else 0
        h = state[0] if isinstance(state, tuple) else state
        last = torch.cat([h[-2], h[-1]], -1) if self.recurrent.bidirectional else h[-1]
        y = {
            "all": lambda: y,
            "last": lambda: y.select(time, -1),
            "mean": lambda: y.mean(time),
            "max": lambda: y.amax(time),
            "state": lambda: last,
        }[self.how]()
        return torch.softmax(torch.relu(self.head(y)), -1)


def exported(module: Any, *inputs: Any, names: tuple[str, ...] = ("x",)) -> Any:
    """What PyTorch makes of a module, for any time and batch."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), inputs, buffer, dynamo=False, opset_version=17, input_names=list(names),
            dynamic_axes={name: {0: "first", 1: "second"} for name in names},
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


POOLED = {
    "all": [],
    "last": [lc.LastStep],
    "mean": [lc.MeanPool],
    "max": [lc.MaxPool],
}


@pytest.mark.parametrize("how", ["all", "last", "mean", "max", "state"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("kind", "bidirectional"), [("LSTM", False), ("GRU", True)])
def test_what_pytorch_exports_becomes_a_sequential(
    kind: str, bidirectional: bool, batch_first: bool, how: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    module = Classifier(kind, batch_first, bidirectional, how)
    proto = exported(module, torch.randn(4, 3, 6))
    found = lc.from_onnx(proto)
    assert type(found) is lc.Sequential
    layer = getattr(lc, kind)
    pool = POOLED.get(how, [lc.BothEnds if bidirectional else lc.LastStep])
    kinds = [layer, layer, *pool, lc.Linear, lc.ReLU, lc.Softmax]
    assert [type(part) for part in found] == kinds
    assert found.batch_first == batch_first
    for shape in ((4, 3), (1, 1), (9, 2)):  # other sizes than exported
        x = torch.randn(*shape, 6)
        np.testing.assert_allclose(found(x.numpy()), module(x).detach().numpy(), atol=2e-6)
        np.testing.assert_allclose(graph_of(proto)(x.numpy()), found(x.numpy()), atol=2e-6)
    lc.save(found, tmp_path / "model.safetensors")
    assert lc.load(tmp_path / "model.safetensors") == found


def test_such_a_chain_streams() -> None:
    torch.manual_seed(0)
    proto = exported(Classifier("LSTM", False, False, "all"), torch.randn(4, 1, 6))
    found = lc.from_onnx(proto)
    x = np.random.default_rng(0).standard_normal((7, 1, 6)).astype("f4")
    stream = found.stream()
    np.testing.assert_array_equal(np.stack([stream.step(step) for step in x]), found(x))


def test_an_embedding_in_front() -> None:
    class Tagger(torch.nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = torch.nn.Embedding(9, 4)
            self.recurrent = torch.nn.GRU(4, 5, batch_first=True)
            self.norm = torch.nn.LayerNorm(5)
            self.head = torch.nn.Linear(5, 3, bias=False)

        def forward(self, ids: Any) -> Any:
            return torch.tanh(self.head(self.norm(self.recurrent(self.embedding(ids))[0])))

    torch.manual_seed(0)
    module, ids = Tagger(), torch.randint(0, 9, (3, 6))
    found = lc.from_onnx(exported(module, ids, names=("ids",)))
    kinds = [lc.Embedding, lc.GRU, lc.LayerNorm, lc.Linear, lc.Tanh]
    assert [type(part) for part in found] == kinds
    np.testing.assert_allclose(found(ids.numpy()), module(ids).detach().numpy(), atol=2e-6)


def chain(*nodes: Any, output: str, opset: int = 17, **constants: Any) -> Any:
    """A GRU of the input x, whose outputs are Y and h, and nodes behind it."""
    arrays = weights("GRU")
    first = helper.make_node("GRU", ["x", "W", "R"], ["Y", "h"], hidden_size=3)
    given = {"W": arrays["W"], "R": arrays["R"], "one": np.array([1]), **constants}
    inputs = [value("x", "f4", ["T", "B", 4])]
    return model([first, *nodes], inputs, [value(output, "f4")], given, opset)


SQUEEZE = helper.make_node("Squeeze", ["Y", "one"], ["y"])


@pytest.mark.parametrize(
    "nodes",
    [
        # Not over the features, in another layout, over rows, of something twice, rows as steps.
        [helper.make_node("Softmax", ["y"], ["z"], axis=1)],
        [helper.make_node("Transpose", ["y"], ["z"], perm=[1, 0, 2])],
        [helper.make_node("ReduceMean", ["y"], ["z"], axes=[1])],
        [helper.make_node("Gather", ["y", "first"], ["z"], axis=1)],
        [helper.make_node("MatMul", ["square", "y"], ["z"])],
        [helper.make_node("Div", ["y", "y"], ["z"])],
        [helper.make_node("Sub", ["y", "negative"], ["u"]), helper.make_node(
            "Div", ["u", "negative"], ["z"])],
        [helper.make_node("Reshape", ["y", "flat"], ["z"])],
        [helper.make_node("Concat", ["y", "y"], ["z"], axis=0)],
        [helper.make_node("Identity", ["Y"], ["z"])],
    ],
)  # fmt: skip
def test_what_modules_do_not_compute_is_a_graph(nodes: list[Any]) -> None:
    constants = {
        "first": np.array(0), "square": np.eye(3, dtype="f4") * 2, "flat": np.array([-1, 3]),
        "negative": np.array([1, -2, 3], "f4"),
    }  # fmt: skip
    proto = chain(SQUEEZE, *nodes, output="z", **constants)
    found = lc.from_onnx(proto)
    assert isinstance(found, Graph)
    x = np.random.default_rng(1).standard_normal((3, 3, 4)).astype("f4")
    session = peers.require("onnxruntime").InferenceSession(proto.SerializeToString())
    np.testing.assert_allclose(found(x), session.run(None, {"x": x})[0], atol=2e-6)


def test_a_head_of_one_gemm_without_bias() -> None:
    gemm = helper.make_node("Gemm", ["u", "w"], ["z"], transB=1)
    zeroth = helper.make_node("Squeeze", ["h", "zero"], ["u"])
    w = np.random.default_rng(0).standard_normal((2, 3)).astype("f4")
    found = lc.from_onnx(chain(zeroth, gemm, output="z", w=w, zero=np.array([0])))
    assert [type(part) for part in found] == [lc.GRU, lc.LastStep, lc.Linear]
    x = np.ones((3, 2, 4), "f4")
    np.testing.assert_allclose(found(x), found[0](x)[1][0] @ w.T, atol=1e-6)


def test_sizes_that_are_written_out_when_they_are_known() -> None:
    """As PyTorch's newer exporter has it: the shape is put together at every call."""
    nodes = [
        helper.make_node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Shape", ["t"], ["sizes"]),
        helper.make_node("Slice", ["sizes", "zero", "two"], ["lead"]),
        helper.make_node("Slice", ["sizes", "two", "three"], ["directions"]),
        helper.make_node("Slice", ["sizes", "three", "four"], ["hidden"]),
        helper.make_node("Mul", ["directions", "hidden"], ["features"]),
        helper.make_node("Concat", ["lead", "features"], ["shape"], axis=0),
        helper.make_node("Reshape", ["t", "shape"], ["z"]),
    ]
    constants = {n: np.array([i]) for i, n in ((0, "zero"), (2, "two"), (3, "three"), (4, "four"))}
    proto = chain(*nodes, output="z", **constants)
    assert [type(part) for part in lc.from_onnx(proto)] == [lc.GRU]
    assert len(graph_of(proto)._plan) == 1  # and the axis of directions is never there
    x = np.ones((0, 2, 4), "f4")
    assert graph_of(proto)(x).shape == (0, 2, 3)
    assert graph_of(proto)(x.reshape(2, 0, 4)).shape == (2, 0, 3)


# What a graph runs as one -------------------------------------------------------------------------


def products(out: int = 2) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "w": rng.standard_normal((3, out)).astype("f4"), "b": rng.standard_normal(out).astype("f4"),
        "row": rng.standard_normal((1, out)).astype("f4"),
    }  # fmt: skip


def test_a_product_and_its_bias_are_one_and_have_the_bits_of_linear() -> None:
    constants = products()
    used = {name: constants[name] for name in ("w", "b")}
    add = helper.make_node("Add", ["b", "p"], ["z"])
    proto = chain(SQUEEZE, helper.make_node("MatMul", ["y", "w"], ["p"]), add, output="z", **used)
    graph, x = graph_of(proto), np.random.default_rng(1).standard_normal((5, 2, 4)).astype("f4")
    assert len(graph._plan) == 2  # with the squeeze, too
    linear = lc.Linear(3, 2)
    linear.load_state_dict({"weight": constants["w"].T, "bias": constants["b"]})
    assert np.array_equal(graph(x), linear(graph["Y"](x)[0]))
    assert np.array_equal(graph(x), lc.from_onnx(proto)(x))


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("bias", ["", "b", "row"])
def test_gemm_is_one_call(transposed: bool, bias: str) -> None:
    constants = products()
    used = {"w": constants["w"]} | ({bias: constants[bias]} if bias else {})
    if transposed:
        used["w"] = np.ascontiguousarray(used["w"].T)
    inputs = ["x", "w", *[bias] * bool(bias)]
    gemm = helper.make_node("Gemm", inputs, ["z"], transB=int(transposed))
    proto = model([gemm], [value("x", "f4", ["B", 3])], [value("z", "f4")], used)
    x = np.random.default_rng(1).standard_normal((4, 3)).astype("f4")
    expected = x @ constants["w"] + (constants[bias] if bias else 0)
    np.testing.assert_allclose(lc.from_onnx(proto)(x), expected, atol=1e-6)


@pytest.mark.parametrize("shape", [[4, 2], [3, 4, 3], [3]])
def test_what_does_not_fit_a_product_is_refused_by_the_name_of_its_node(shape: list[int]) -> None:
    constants = products()
    gemm = helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="head")
    used = {name: constants[name] for name in ("w", "b")}
    proto = model([gemm], [value("x", "f4")], [value("z", "f4")], used)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    with pytest.raises(ValueError, match=r"Gemm 'head': it is given shape .*, expected \(n, 3\)"):
        lc.from_onnx(proto)(np.zeros(shape, "f4"))


def test_values_that_others_need_are_made_though_a_product_could_hide_them() -> None:
    constants = products()
    product = helper.make_node("MatMul", ["y", "w"], ["p"])
    add = helper.make_node("Add", ["p", "b"], ["q"])
    both = helper.make_node("Mul", ["p", "q"], ["z"])
    used = {name: constants[name] for name in ("w", "b")}
    squeezed = helper.make_node("Shape", ["Y"], ["sizes"])
    again = helper.make_node("Expand", ["z", "sizes"], ["wide"])
    x = np.random.default_rng(1).standard_normal((5, 2, 4)).astype("f4")
    y = graph_of(chain(SQUEEZE, output="y"))(x)
    p = y @ constants["w"]
    proto = chain(SQUEEZE, product, add, both, output="z", **used)
    np.testing.assert_allclose(graph_of(proto)(x), p * (p + constants["b"]), atol=1e-6)
    proto = chain(SQUEEZE, product, add, output="p", **used)  # an output of the model
    np.testing.assert_allclose(graph_of(proto)(x), p, atol=1e-6)
    used = products(out=3) | {"one": np.array([1])}
    del used["row"]
    proto = chain(SQUEEZE, product, add, both, squeezed, again, output="wide", **used)
    assert graph_of(proto)(x).shape == (5, 5, 2, 3)  # Y itself is asked for its shape


@pytest.mark.parametrize("shape", [[0, 0, -1], [0, 0, 6], [-1, 2, 6]])
@pytest.mark.parametrize("shared", [False, True])
def test_two_directions_side_by_side(shape: list[int], shared: bool) -> None:
    rng = np.random.default_rng(0)
    arrays = {
        "W": rng.standard_normal((2, 9, 4)).astype("f4"),
        "R": rng.standard_normal((2, 9, 3)).astype("f4"), "shape": np.array(shape),
    }  # fmt: skip
    options = {"hidden_size": 3, "direction": "bidirectional"}
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["Y", "h"], **options),
        helper.make_node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["z"]),
    ]
    outputs = ["z", "t"] if shared else ["z"]
    values = [value(name, "f4") for name in outputs]
    proto = model(nodes, [value("x", "f4", ["T", "B", 4])], values, arrays)
    graph, x = graph_of(proto), rng.standard_normal((5, 2, 4)).astype("f4")
    found = graph(x) if shared else (graph(x),)
    assert np.array_equal(found[0], graph["Y"](x)[0])
    if shared:
        assert found[1].shape == (5, 2, 2, 3)
    assert len(graph._plan) == (1 if not shared and shape[0] == 0 else 3)


def test_small_files_that_use_a_matrix_often_stay_small() -> None:
    """Each pair of a matrix and a bias would be packed: these are no more than the file allows."""
    count = 200
    biases = {f"b{i}": np.full(64, i, "f4") for i in range(count)}
    nodes = []
    for i in range(count):
        nodes.append(helper.make_node("MatMul", [f"y{i}", "w"], [f"p{i}"]))
        nodes.append(helper.make_node("Add", [f"p{i}", f"b{i}"], [f"y{i + 1}"]))
    inputs, outputs = [value("y0", "f4", ["B", 64])], [value(f"y{count}", "f4")]
    graph = lc.from_onnx(model(nodes, inputs, outputs, {"w": np.eye(64, dtype="f4"), **biases}))
    assert count < len(graph._plan) < 2 * count
    expected = np.full((1, 64), sum(range(count)))
    np.testing.assert_allclose(graph(np.zeros((1, 64), "f4")), expected)


@pytest.mark.parametrize(
    ("shape", "bounds", "squeezed", "count"),
    [
        ((5, 2, 3), (1, 2, 0, 1), 0, 1),
        ((5, 2, 3), (2, 3, 2, 1), 2, 1),
        ((1,), (0, 1, 0, 1), 0, 1),
        ((5, 1, 3), (1, 3, 0, 1), 1, 2),
        ((5, 2, 3), (-2, -1, 0, 1), 0, 2),
        ((5, 2, 3), (1, 0, 0, -1), 0, 2),
    ],
)
def test_a_slice_of_one_step_is_that_step(
    shape: tuple[int, ...], bounds: tuple[int, ...], squeezed: int, count: int
) -> None:
    constants = {f"s{i}": np.array([n]) for i, n in enumerate(bounds)}
    nodes = [
        helper.make_node("Slice", ["x", *constants], ["part"], name="part"),
        helper.make_node("Squeeze", ["part", "axis"], ["z"]),
    ]
    constants["axis"] = np.array([squeezed])
    proto = model(nodes, [value("x", "f4")], [value("z", "f4")], constants, 17)
    proto.graph.input[0].type.tensor_type.ClearField("shape")
    graph, x = graph_of(proto), np.random.default_rng(0).standard_normal(shape).astype("f4")
    start, stop, axis, step = bounds
    where: list[Any] = [slice(None)] * x.ndim
    where[axis] = slice(start, stop, step)
    y = graph(x)
    assert isinstance(y, np.ndarray)
    assert np.array_equal(y, x[tuple(where)].squeeze(squeezed))
    assert len(graph._plan) == count
    if count == 1:
        with pytest.raises(ValueError, match="Slice 'part': "):
            graph(x[tuple(slice(0) for _ in shape)])
