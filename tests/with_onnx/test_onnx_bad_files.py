"""ONNX files that are damaged or hostile: a clear error, nothing done, little memory used.

The fuzz tests run 200 examples each; ``LSTMCORE_FUZZ=10000`` runs so many.
"""

from __future__ import annotations

import contextlib
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lstmcore as lc
from helpers.onnx_models import model, node, onnx, value, weights
from lstmcore.onnx import operators
from lstmcore.onnx._graph import Graph

helper = onnx.helper
EXAMPLES = int(os.environ.get("LSTMCORE_FUZZ", "200"))
fuzz = settings(
    max_examples=EXAMPLES,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def tensor(name: str, dims: list[int], kind: int = 1, **fields: Any) -> Any:
    proto = onnx.TensorProto(name=name, data_type=kind, dims=dims)
    for field, content in fields.items():
        if field == "raw_data":
            proto.raw_data = content
        else:
            getattr(proto, field).extend(content)
    return proto


def with_tensor(proto: Any) -> Any:
    """A model with this tensor as an initializer that is used."""
    nodes = [helper.make_node("Add", ["x", proto.name], ["y"])]
    found = model(nodes, [value("x", "f4", ["N"])], [value("y", "f4", ["N"])])
    found.graph.initializer.append(proto)
    return found


def corpus() -> list[bytes]:
    """Sound models of every kind, small."""
    model_ = lc.Sequential(lc.Embedding(5, 3), lc.LSTM(3, 2), lc.LayerNorm(2), lc.MeanPool())
    dequantised = model(
        [
            helper.make_node("DequantizeLinear", ["q", "s"], ["W"]),
            helper.make_node("RNN", ["x", "W", "R"], ["y"], hidden_size=2),
            helper.make_node("Squeeze", ["y", "one"], ["z"]),
        ],
        [value("x", "f4", ["T", "B", 3])],
        [value("z", "f4", None)],
        {
            "q": np.ones((1, 2, 3), np.int8),
            "s": np.float32(0.1),
            "R": np.ones((1, 2, 2), "f4"),
            "one": np.array([1]),
        },
    )
    protos = [
        node("LSTM", weights("LSTM", 2), direction="bidirectional", clip=1.0),
        node("GRU", weights("GRU"), activations=["HardSigmoid", "Tanh"], activation_alpha=[0.1]),
        lc.to_onnx(model_, states=True, lengths=True),
        dequantised,
    ]
    return [proto.SerializeToString() for proto in protos]


CORPUS = corpus()


def load(proto_or_bytes: Any, path: Path | None = None) -> Any:
    """Load it, and run it if it is a graph: whatever it is, only these errors may come."""
    proto = proto_or_bytes
    if isinstance(proto, bytes):
        assert path is not None
        path.write_bytes(proto)
        proto = path
    try:
        found = lc.from_onnx(proto)
    except (ValueError, MemoryError):
        return None
    if isinstance(found, Graph):
        inputs = []
        for entry in found._inputs:
            sizes = entry.shape or ()
            if any(size is not None and size > 100 for size in sizes):
                return found
            inputs.append(np.zeros([2 if n is None else n for n in sizes], entry.dtype))
        with contextlib.suppress(ValueError, MemoryError):
            found(*inputs)
    return found


# Single faults ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (tensor("w", [-1], raw_data=b""), "negative size"),
        (tensor("w", [2**40, 2**40], raw_data=b"abcd"), "has 4 bytes of data"),
        (tensor("w", [2**62, 2**62, 2**62], float_data=[1.0]), "has 1 values"),
        (tensor("w", [2], raw_data=b"abc"), "has 3 bytes of data, expected 8"),
        (tensor("w", [2], float_data=[1.0]), "has 1 values, expected 2"),
        (tensor("w", [0, 2**62], raw_data=b""), "negative size|shape"),
        (tensor("w", [1], 3, int32_data=[200]), "out of the range of int8"),
        (tensor("w", [1], 9, raw_data=b"\x07"), "bools other than 0 and 1"),
        (tensor("w", [1], 8, string_data=[b"text"]), "STRING"),
        (tensor("w", [1], 99, raw_data=b"\0"), "type 99"),
        (tensor("w", [2], 22, raw_data=b"\0"), "INT4"),
    ],
)
def test_a_bad_tensor(proto: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"'w'.*({message})"):
        lc.from_onnx(with_tensor(proto))
    made = helper.make_node("Constant", [], ["w"])
    made.attribute.add(name="value", type=onnx.AttributeProto.TENSOR).t.CopyFrom(proto)
    nodes = [made, helper.make_node("Add", ["x", "w"], ["y"])]
    with pytest.raises(ValueError, match=f"Constant 'w', attribute 'value',.*({message})"):
        lc.from_onnx(model(nodes, [value("x", "f4")], [value("y", "f4")]))


def changed(change: Callable[[Any], Any]) -> Any:
    proto = node("GRU", weights("GRU"))
    change(proto)
    return proto


def a_body(proto: Any) -> None:
    body = helper.make_graph([], "body", [], [])
    made = helper.make_node("If", ["X"], ["z"], name="choice", then_branch=body)
    proto.graph.node.append(made)
    proto.graph.output[0].name = "z"


def two_of_one_name(proto: Any) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


@pytest.mark.parametrize(
    ("proto", "message"),
    [
        (onnx.ModelProto(), "no graph"),
        (changed(lambda p: p.graph.ClearField("output")), "no outputs"),
        (changed(lambda p: p.ClearField("opset_import")), "0 versions"),
        (changed(lambda p: p.opset_import.add(domain="", version=9)), "2 versions"),
        (changed(lambda p: setattr(p.opset_import[0], "version", 6)), "opset 6, expected 7"),
        (changed(lambda p: setattr(p.opset_import[0], "version", 2**40)), "opset 1099511627776"),
        (changed(a_body), "If 'choice' has no graph 'else_branch'"),
        (changed(two_of_one_name), "initializer 'W'"),
        (changed(lambda p: p.graph.sparse_initializer.add()), "sparse_initializer"),
        (changed(lambda p: p.graph.output.add(name="zz")), "'zz'.* made by no node"),
        (changed(lambda p: p.graph.input.append(p.graph.input[0])), "two inputs of one name"),
        (changed(lambda p: p.graph.input[0].type.Clear()), "'X' is not a tensor"),
        (changed(lambda p: p.graph.node[0].input.pop(2)), "shape"),
        (changed(lambda p: p.graph.node[0].ClearField("input")), "has no X"),
        (changed(lambda p: p.graph.node[0].input.extend("XX" * 4)), "inputs, expected 6"),
        (changed(lambda p: p.graph.node[0].ClearField("output")), "has no outputs"),
        (changed(lambda p: p.graph.node[0].output.__setitem__(1, "Y")), "'Y', which exists"),
        (changed(lambda p: p.graph.node[0].output.__setitem__(1, "W")), "'W', which exists"),
        (
            changed(lambda p: p.graph.node[0].input.__setitem__(0, "Y")),
            "GRU 'node' needs its own output",
        ),
        (changed(lambda p: setattr(p.graph.node[0], "domain", "evil")), "evil.GRU"),
    ],
)
def test_a_bad_model(proto: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.from_onnx(proto)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (helper.make_node("Reshape", ["x"], ["y"]), "Reshape 'y'.*'shape'"),
        (helper.make_node("Gather", ["x"], ["y"]), "Gather 'y'.*'indices'"),
        (helper.make_node("Concat", ["x", "x"], ["y"]), "Concat 'y'.*'axis'"),
        (helper.make_node("Gather", ["x", "i"], ["y"], axis="a"), "Gather 'y'"),
        (helper.make_node("Gather", ["s", "i"], ["y"]), "Gather 'y'"),
        (helper.make_node("Concat", ["x", "x"], ["y"], axis=7), "Concat 'y'"),
        (helper.make_node("ConstantOfShape", ["n"], ["y"], value=3), "ConstantOfShape 'y'"),
    ],
)
def test_a_node_that_does_not_fit(made: Any, message: str) -> None:
    """It is refused by name: when the model is read, or when it runs at the latest."""
    nodes = [
        helper.make_node("ReduceSum", ["x"], ["s"], keepdims=0),
        helper.make_node("Shape", ["x"], ["n"]),
        made,
        helper.make_node("Gather", ["y", "i"], ["z"], axis=7),
    ]
    proto = model(nodes, [value("x", "f4", [2, 3])], [value("z", "f4")], {"i": np.array(1)})
    with pytest.raises(ValueError, match=message):
        lc.from_onnx(proto)(np.ones((2, 3), "f4"))


def test_constants_that_are_not_computed_stay_nodes() -> None:
    """The first is larger than what a file may make constant; so nothing is left for the other."""
    nodes = [
        helper.make_node("Constant", [], ["a"], value_floats=[1.0] * 300_000),
        helper.make_node("Constant", [], ["b"], value_float=2.0),
        helper.make_node("Mul", ["x", "a"], ["y"]),
        helper.make_node("Add", ["x", "b"], ["z"]),
    ]
    proto = model(nodes, [value("x", "f4", [1])], [value("y", "f4"), value("z", "f4")])
    y, z = lc.from_onnx(proto)(np.ones(1, "f4"))
    assert y.shape == (300_000,)
    np.testing.assert_array_equal(z, [3])


def test_a_cycle() -> None:
    nodes = [helper.make_node("Neg", ["b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])]
    with pytest.raises(ValueError, match="needs its own output: nodes stand in a circle"):
        lc.from_onnx(model(nodes, [], [value("b", "f4")]))


def test_what_is_no_model_at_all(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(FileNotFoundError):
        lc.from_onnx(path)
    with pytest.raises(TypeError, match="model is 3"):
        lc.from_onnx(3)
    for content in (b"", b"\x08", b"garbage" * 100, b"\x80\x04\x95", bytes(1000)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="model"):
            lc.from_onnx(path)


def test_every_truncation(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    for content in CORPUS:
        for size in range(0, len(content), 7):
            load(content[:size], path)
    whole = CORPUS[0]
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="not an ONNX model, or only a part"):
        lc.from_onnx(path)


def test_deep_nesting(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        size, varint = len(content), b""
        while size > 127:
            varint, size = varint + bytes([size & 127 | 128]), size >> 7
        return bytes([number << 3 | 2]) + varint + bytes([size]) + content

    graph = b""
    for _ in range(2000):  # a graph in an attribute of a node of a graph in ...
        graph = field(1, field(5, field(6, graph)))
    path = tmp_path / "model.onnx"
    path.write_bytes(field(7, graph))
    with pytest.raises(ValueError, match="model"):
        lc.from_onnx(path)


# External data ------------------------------------------------------------------------------------


def external(**entries: str) -> Any:
    proto = tensor("w", [4])
    proto.data_location = onnx.TensorProto.EXTERNAL
    for key, content in entries.items():
        proto.external_data.add(key=key, value=content)
    return with_tensor(proto)


def test_external_data(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    numbers = np.arange(1, 9, dtype="<f4")
    (folder / "data.bin").write_bytes(numbers.tobytes())
    (tmp_path / "secret.bin").write_bytes(numbers.tobytes())
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    (folder / "hard.bin").hardlink_to(tmp_path / "secret.bin")
    (folder / "sub").mkdir()
    os.mkfifo(folder / "pipe")
    path = folder / "model.onnx"

    def written(**entries: str) -> Path:
        path.write_bytes(external(**entries).SerializeToString())
        return path

    graph = lc.from_onnx(written(location="data.bin", offset="16", length="16"))
    np.testing.assert_array_equal(graph(np.zeros(4, "f4")), numbers[4:])
    graph = lc.from_onnx(written(location="data.bin"))
    np.testing.assert_array_equal(graph(np.zeros(4, "f4")), numbers[:4])
    for entries, message in (
        ({"location": "../secret.bin"}, "in the model's folder"),
        ({"location": "sub/../../secret.bin"}, "in the model's folder"),
        ({"location": str(tmp_path / "secret.bin")}, "in the model's folder"),
        ({"location": str(folder / "data.bin")}, "in the model's folder"),
        ({"location": "link.bin"}, "in the model's folder"),
        ({"location": "hard.bin"}, "a file of 2 hard links.*copy it there"),
        ({"location": "missing.bin"}, "in the model's folder"),
        ({"location": "sub"}, "in the model's folder"),
        ({"location": "pipe"}, "in the model's folder"),
        ({"location": "/dev/zero"}, "in the model's folder"),
        ({"location": "a\0b"}, "in the model's folder"),
        ({"location": "x" * 5000}, "in the model's folder"),
        ({"location": ""}, "in the model's folder"),
        ({}, "in the model's folder"),
        ({"location": "data.bin", "offset": "17"}, "expected 16 bytes within it"),
        ({"location": "data.bin", "offset": "-16"}, "expected 16 bytes within it"),
        ({"location": "data.bin", "offset": "9" * 30}, "expected 16 bytes within it"),
        ({"location": "data.bin", "length": "12"}, "expected 16 bytes within it"),
        ({"location": "data.bin", "length": "-1"}, "expected 16 bytes within it"),
        ({"location": "data.bin", "offset": "zero"}, "invalid literal"),
    ):
        with pytest.raises(ValueError, match=f"'w'.*{message}"):
            lc.from_onnx(written(**entries))
    with pytest.raises(ValueError, match="'w' has its data in another file"):
        lc.from_onnx(external(location="data.bin"))


def test_external_data_is_read_once_at_most(tmp_path: Path) -> None:
    (tmp_path / "data.bin").write_bytes(bytes(16))
    proto = external(location="data.bin")
    again = proto.graph.initializer.add()
    again.CopyFrom(proto.graph.initializer[0])
    again.name = "v"
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    with pytest.raises(ValueError, match=r"'v' overlaps other tensors in 'data.bin'"):
        lc.from_onnx(tmp_path / "model.onnx")


# Memory -------------------------------------------------------------------------------------------


def peak(proto: Any, path: Path) -> int:
    path.write_bytes(proto.SerializeToString())
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    load(path.read_bytes(), path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return most


def test_constants_that_grow_by_doubling(tmp_path: Path) -> None:
    nodes = [helper.make_node("Concat", ["c0", "c0"], ["c1"], axis=0)]
    nodes += [
        helper.make_node("Concat", [f"c{i}"] * 2, [f"c{i + 1}"], axis=0) for i in range(1, 60)
    ]
    nodes.append(helper.make_node("RNN", ["x", "c60", "R"], ["y"], hidden_size=2))
    constants = {"c0": np.zeros((1, 2, 2), "f4"), "R": np.zeros((1, 2, 2), "f4")}
    proto = model(nodes, [value("x", "f4", [2])], [value("y", "f4")], constants)
    assert peak(proto, tmp_path / "m.onnx") < 16 * 2**20
    with pytest.raises(ValueError, match="gets its W from 'c60', expected a constant"):
        lc.from_onnx(proto)


def test_many_nodes_of_the_same_weights(tmp_path: Path) -> None:
    constants = {"W": np.zeros((1, 64, 64), "f4"), "R": np.zeros((1, 64, 64), "f4")}
    nodes = [
        helper.make_node("RNN", ["x", "W", "R"], [f"y{i}"], hidden_size=64, clip=1.0 + i)
        for i in range(2000)
    ]
    proto = model(nodes, [value("x", "f4")], [value("y0", "f4")], constants)
    assert peak(proto, tmp_path / "m.onnx") < 16 * 2**20  # they would be 64 MiB
    with pytest.raises(ValueError, match="larger"):
        lc.from_onnx(proto)


@pytest.mark.parametrize("op", ["ConstantOfShape", "Expand", "Tile", "Range"])
def test_shapes_that_a_file_asks_for(tmp_path: Path, op: str) -> None:
    huge = np.array([2**40, 2**20])
    inputs = {
        "ConstantOfShape": ["huge"],
        "Expand": ["one", "huge"],
        "Tile": ["one", "huge"],
        "Range": ["zero", "limit", "step"],
    }[op]
    constants = {
        "huge": huge, "one": np.ones((1, 1), "f4"), "zero": np.array(0),
        "limit": np.array(2**60), "step": np.array(1),
    }  # fmt: skip
    proto = model([helper.make_node(op, inputs, ["y"])], [], [value("y", "f4")], constants)
    assert peak(proto, tmp_path / "m.onnx") < 16 * 2**20
    with pytest.raises(ValueError, match=f"{op} 'y': .*more than this process may use"):
        lc.from_onnx(proto)()


@pytest.mark.parametrize(
    "options",
    [
        {"hidden_size": 10**6},
        {"num_layers": 10**9},
        {"input_size": -1},
        {"type": "Embedding", "num_embeddings": 10**12, "embedding_dim": 10},
        {"type": "Sequential", "modules": "x"},
        {"type": "os.system"},
        {"dtype": "object"},
    ],
)
def test_a_description_that_asks_for_much(tmp_path: Path, options: dict[str, Any]) -> None:
    """It is not believed: the graph counts."""
    import json

    proto = lc.to_onnx(lc.GRU(3, 4))
    content = json.loads(proto.metadata_props[0].value)
    content["model"] |= options
    proto.metadata_props[0].value = json.dumps(content)
    assert peak(proto, tmp_path / "m.onnx") < 16 * 2**20
    expected = [type(part) for part in lc.from_onnx(proto)]
    assert expected == [lc.GRU]
    for text in ("", "[" * 100_000, "null", "{}", '{"version": 1}', "\0"):
        proto.metadata_props[0].value = text
        assert [type(part) for part in lc.from_onnx(proto)] == expected


# Fuzz ---------------------------------------------------------------------------------------------


@fuzz
@given(content=st.binary(max_size=300))
def test_random_bytes(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    load(content, tmp_path_factory.getbasetemp() / "random.onnx")


@fuzz
@given(
    content=st.sampled_from(CORPUS),
    edits=st.lists(
        st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255), st.integers(0, 3)),
        min_size=1,
        max_size=8,
    ),
)
def test_changed_bytes(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, edits: list[tuple[float, int, int]]
) -> None:
    """Bytes of a sound model replaced, removed, doubled or set to a length."""
    data = bytearray(content)
    for where, byte, kind in edits:
        at = int(where * len(data))
        if kind == 0:
            data[at : at + 1] = bytes([byte])
        elif kind == 1:
            del data[at : at + byte % 16]
        elif kind == 2:
            data[at:at] = data[at : at + byte % 16]
        else:
            data[at : at + 1] = b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f"
        data = data or bytearray(b"\0")
    load(bytes(data), tmp_path_factory.getbasetemp() / "changed.onnx")


OPS = sorted({*operators.names(), "LSTM", "GRU", "RNN", "Loop", "Scan", "Resize"})
ATTRIBUTES = ["axis", "axes", "perm", "to", "value", "split", "num_outputs", "hidden_size",
              "direction", "activations", "clip", "layout", "keepdims", "start", "end", "alpha",
              "starts", "ends", "batch_dims", "transA", "beta", "epsilon"]  # fmt: skip
NUMBERS = st.one_of(st.integers(-3, 3), st.integers(-(2**63), 2**63 - 1))
ATTRIBUTE_VALUES = st.one_of(
    NUMBERS,
    st.lists(NUMBERS, min_size=1, max_size=3),
    st.floats(width=32),
    st.lists(st.floats(width=32), min_size=1, max_size=3),
    st.sampled_from(["forward", "reverse", "bidirectional", "Tanh"]),
    st.lists(st.sampled_from(["Sigmoid", "Tanh", "Elu"]), min_size=1, max_size=3),
)
ARRAYS = st.sampled_from(
    [
        np.ones((1, 2, 3), "f4"), np.ones((1, 2, 2), "f4"), np.ones((1, 8, 3), "f4"),
        np.ones((1, 8, 2), "f4"), np.ones((2, 3), "f4"), np.zeros((0, 3), "f4"),
        np.array([1, 0]), np.array(0), np.array([-1]), np.array([2**62, 2**62]),
        np.array([2**45]), np.array([True, False]), np.ones(3, "f2"), np.ones((1, 2, 3), np.int8),
        np.float32(np.nan), np.array([], np.int64),
    ]
)  # fmt: skip


@fuzz
@given(data=st.data())
def test_random_graphs(data: Any) -> None:
    """Sound protocol buffers, senseless models."""
    constants = {f"c{i}": data.draw(ARRAYS) for i in range(data.draw(st.integers(1, 4)))}
    names = ["", "x", *constants]
    nodes = []
    for i in range(data.draw(st.integers(1, 6))):
        inputs = data.draw(st.lists(st.sampled_from(names), max_size=5))
        outputs = [f"v{i}_{k}" for k in range(data.draw(st.integers(1, 2)))]
        attributes = data.draw(
            st.dictionaries(st.sampled_from(ATTRIBUTES), ATTRIBUTE_VALUES, max_size=2)
        )
        nodes.append(
            helper.make_node(data.draw(st.sampled_from(OPS)), inputs, outputs, **attributes)
        )
        names += outputs
    outputs = data.draw(st.lists(st.sampled_from(names[1:]), min_size=1, max_size=2))
    shape = data.draw(st.sampled_from([None, ["T", 1, 3], [2, 3], [0], [-1]]))
    load(
        model(
            nodes,
            [value("x", data.draw(st.sampled_from(["f4", "i8", "?"])), shape)],
            [value(name, "f4") for name in outputs],
            constants,
            data.draw(st.integers(6, 29)),
        )
    )
