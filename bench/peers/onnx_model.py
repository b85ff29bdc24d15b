"""Cases as ONNX models: one LSTM, GRU or RNN node per layer."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from cases import Case
from data import Array, Data

from .base import Unsupported, reordered

__all__ = ["build", "to_y"]


def build(case: Case, data: Data) -> onnx.ModelProto:
    """Return a model from x (T, B, I) to Y (T, D, B, H) of the last layer."""
    if case.proj_size or not case.forget_gate:
        raise Unsupported("no such variant")
    if case.denormal:
        raise Unsupported("compared with normal numbers only")
    element = TensorProto.FLOAT if case.dtype == "float32" else TensorProto.DOUBLE
    nodes: list[Any] = []
    constants: list[Any] = []

    def constant(name: str, value: Array) -> str:
        constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    lengths = ""
    if data.lengths is not None:
        lengths = constant("lengths", data.lengths.astype(np.int32))
    attributes: dict[str, Any] = {
        "hidden_size": case.H,
        "direction": "bidirectional" if case.D == 2 else "forward",
    }
    if case.coupled:
        attributes["input_forget"] = 1
    if case.cell == "gru":
        attributes["linear_before_reset"] = int(case.reset_after)

    source = "x"
    for layer in range(case.L):
        inputs = [
            source,
            constant(f"W{layer}", _stacked(case, data, layer, "weight_ih")),
            constant(f"R{layer}", _stacked(case, data, layer, "weight_hh")),
            constant(f"B{layer}", _stacked(case, data, layer, "bias_ih", "bias_hh")),
            lengths,
        ]
        if case.peephole:
            peepholes = _stacked(case, data, layer, "weight_ch", without="g").reshape(case.D, -1)
            inputs += ["", "", constant(f"P{layer}", peepholes)]
        while not inputs[-1]:
            inputs.pop()
        source = f"Y{layer}"
        nodes.append(helper.make_node(case.cell.upper(), inputs, [source], **attributes))
        if layer + 1 < case.L:  # (T, D, B, H) -> (T, B, D*H)
            if case.D == 2:
                nodes.append(
                    helper.make_node("Transpose", [source], [f"t{layer}"], perm=[0, 2, 1, 3])
                )
                source = f"t{layer}"
            shape = constant(f"shape{layer}", np.array([case.T, case.B, -1]))
            nodes.append(helper.make_node("Reshape", [source, shape], [f"x{layer + 1}"]))
            source = f"x{layer + 1}"

    x = helper.make_tensor_value_info("x", element, [case.T, case.B, case.I])
    y = helper.make_tensor_value_info(source, element, [case.T, case.D, case.B, case.H])
    graph = helper.make_graph(nodes, "layers", [x], [y], constants)
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    onnx.checker.check_model(model)
    return model


def _stacked(case: Case, data: Data, layer: int, *names: str, without: str = "") -> Array:
    """Each direction's parameters, one after the other, gates in ONNX's order."""
    directions = []
    for d in range(case.D):
        parts = [data.parameter(name, layer, d) for name in names]
        parts = [reordered(part, case, "onnx", without=without) for part in parts]
        directions.append(np.concatenate(parts))
    return np.stack(directions)


def to_y(value: Array) -> Array:
    """Return (T, D, B, H) as (T, B, D*H)."""
    steps, _, batch, _ = value.shape
    return value.transpose(0, 2, 1, 3).reshape(steps, batch, -1)
