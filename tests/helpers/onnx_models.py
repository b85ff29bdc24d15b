"""ONNX models that several test files need."""

from __future__ import annotations

import json
import warnings
from typing import Any

import numpy as np

from helpers import peers
from helpers.paths import DATA

onnx: Any = peers.require("onnx")
runtime: Any = peers.require("onnxruntime")

WEIGHTS = ("W", "R", "B", "P")
INPUTS = ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P")
OUTPUTS = ("Y", "Y_h", "Y_c")


with np.load(DATA / "ort_matrix.npz") as _file:
    ARRAYS = dict(_file)


def session(proto: Any) -> Any:
    """A model as ONNX Runtime runs it, which is sound and has no initializer that nothing uses."""
    onnx.checker.check_model(proto, full_check=True)
    unused = {one.name for one in proto.graph.initializer} - _used(proto.graph)
    assert not unused  # ONNX Runtime warns of these
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(proto.SerializeToString(), options)


def _used(graph: Any) -> set[str]:
    """What nodes take, those of graphs within nodes as well."""
    names = {name for node in graph.node for name in node.input}
    inside = [a.g for node in graph.node for a in node.attribute if a.HasField("g")]
    return names.union(*map(_used, inside))


def value(name: str, dtype: Any, shape: Any = None) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    return onnx.helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Any] | None = None,
    opset: int = 14,
) -> Any:
    """A model; constants are its initializers."""
    tensors = [onnx.numpy_helper.from_array(a, name) for name, a in (constants or {}).items()]
    graph = onnx.helper.make_graph(nodes, "test", inputs, outputs, tensors)
    imports = [
        onnx.helper.make_opsetid("", opset),
        onnx.helper.make_opsetid("com.microsoft", 1),
    ]
    return onnx.helper.make_model(graph, opset_imports=imports, ir_version=8)


def node(
    op: str, arrays: dict[str, Any], *, name: str = "node", opset: int = 14, **attributes: Any
) -> Any:
    """A model that is one recurrent node: weights are constants, the others inputs."""
    names = [n if n in arrays else "" for n in INPUTS[: 8 if op == "LSTM" else 6]]
    while not names[-1]:
        names.pop()
    outputs = list(OUTPUTS[: 3 if op == "LSTM" else 2])
    single = onnx.helper.make_node(op, names, outputs, name=name, **attributes)
    return model(
        [single],
        [value(n, a.dtype) for n, a in arrays.items() if n not in WEIGHTS],
        [value(n, arrays["X"].dtype) for n in outputs],
        {n: a for n, a in arrays.items() if n in WEIGHTS},
        opset,
    )


def weights(op: str, directions: int = 1, inputs: int = 4, hidden: int = 3, **options: Any) -> Any:
    """Random W, R, B and an X of 5 steps and 2 rows."""
    rng = np.random.default_rng(options.get("seed", 0))
    rows = {"LSTM": 4, "GRU": 3, "RNN": 1}[op] * hidden
    shapes = {
        "X": (5, 2, inputs),
        "W": (directions, rows, inputs),
        "R": (directions, rows, hidden),
        "B": (directions, 2 * rows),
    }
    dtype = options.get("dtype", "float32")
    return {name: (rng.standard_normal(s) / 2).astype(dtype) for name, s in shapes.items()}


class Case:
    """One of the nodes that ONNX Runtime has run."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.op, self.attributes = case["op"], case["attrs"]
        self.name = f"{case['i']}-{case['op']}-{case['attrs']['direction']}"
        self._prefix = case["i"]
        self._inputs = case["inputs"]

    def _array(self, name: str) -> Any:
        return ARRAYS[f"{self._prefix}/{name}"]

    @property
    def inputs(self) -> dict[str, Any]:
        return {name: self._array(f"in_{name}") for name in self._inputs}

    @property
    def outputs(self) -> dict[str, Any]:
        return {
            name: self._array(f"out_{name}") for name in OUTPUTS[: 3 if self.op == "LSTM" else 2]
        }

    @property
    def model(self) -> Any:
        return node(self.op, self.inputs, **self.attributes)


CASES = [Case(case) for case in json.loads((DATA / "ort_matrix.json").read_text())["cases"]]


def backend_tests() -> list[Any]:
    """The tests of single nodes that come with the onnx package."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [t for t in load_model_tests(kind="node") if len(t.model.graph.node) == 1]


def fixed(test_model: Any, arrays: list[Any]) -> tuple[Any, list[Any]]:
    """The model with its weights as constants, and the inputs that are left."""
    copy = onnx.ModelProto.FromString(test_model.SerializeToString())
    graph = copy.graph
    kept, left = [], []
    for info, array in zip(list(graph.input), arrays, strict=True):
        if info.name in WEIGHTS:
            graph.initializer.append(onnx.numpy_helper.from_array(array, info.name))
        else:
            kept.append(info)
            left.append(array)
    del graph.input[:]
    graph.input.extend(kept)
    return copy, left
