"""OpenVINO: its own sequence operations, batch first as it likes them, or an ONNX model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from cases import Case
from data import Array, Data

from .base import Unsupported, Way, reordered

# Else the import starts processes that report its use to Intel, and run beside the others.
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
import openvino  # noqa: E402
from openvino import opset13 as ops  # noqa: E402


class OpenVino:
    """OpenVINO on the CPU, for latency, in float32; for cases in bfloat16 in what it chooses."""

    def __init__(self, threads: int) -> None:
        self.version = openvino.__version__.partition("-")[0]
        self._core = openvino.Core()
        self._settings: dict[str, Any] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "PERFORMANCE_HINT": "LATENCY",
        }

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield both models, each run in both ways of the API."""
        if case.mode == "train":
            raise Unsupported("no training")
        if case.peephole or case.coupled or not case.forget_gate or case.proj_size:
            raise Unsupported("no such variant")
        if case.dtype != "float32" or case.int8:
            raise Unsupported("computes in float32 and bfloat16")
        if case.denormal:
            raise Unsupported("compared with normal numbers only")
        settings = dict(self._settings)
        if not case.bfloat16:  # which it takes by itself where the processor has it
            settings["INFERENCE_PRECISION_HINT"] = "f32"
        x = np.ascontiguousarray(data.x.transpose(1, 0, 2))
        sequence = _sequence_model(case, data)
        yield from self._runs("sequence", sequence, settings, x, _from_batch_first)
        try:
            from . import onnx_model
        except ImportError:  # no onnx
            return
        model = self._core.read_model(onnx_model.build(case, data).SerializeToString())
        yield from self._runs("ONNX", model, settings, data.x, onnx_model.to_y)

    def _runs(
        self,
        name: str,
        model: Any,
        settings: dict[str, Any],
        x: Array,
        to_y: Callable[[Array], Array],
    ) -> Iterator[Way]:
        request = self._core.compile_model(model, "CPU", settings).create_infer_request()
        tensor = openvino.Tensor(x, shared_memory=True)
        request.set_input_tensor(tensor)
        keep = model, x, tensor

        def synchronous() -> None:
            request.infer(share_outputs=True)

        def asynchronous() -> None:
            request.start_async()
            request.wait()

        def outputs(_: None) -> dict[str, Array]:
            return {"y": to_y(request.get_output_tensor().data)}

        yield Way(f"{name}, infer", synchronous, outputs, keep=keep)
        yield Way(f"{name}, start and wait", asynchronous, outputs, keep=keep)


def _sequence_model(case: Case, data: Data) -> openvino.Model:
    """Return a model from x (B, T, I) to (B, D, T, H)."""
    lengths = data.lengths if data.lengths is not None else np.full(case.B, case.T)
    parameter = value = ops.parameter([case.B, case.T, case.I], np.float32, name="x")
    zeros = ops.constant(np.zeros((case.B, case.D, case.H), np.float32))
    direction = "bidirectional" if case.D == 2 else "forward"
    steps = ops.constant(lengths.astype(np.int32))
    for layer in range(case.L):

        def stacked(name: str, layer: int = layer) -> Array:
            """A parameter of each direction, gates in OpenVINO's order."""
            each = (data.parameter(name, layer, d) for d in range(case.D))
            return np.stack([reordered(array, case, "openvino") for array in each])

        w, r = ops.constant(stacked("weight_ih")), ops.constant(stacked("weight_hh"))
        b_ih, b_hh = stacked("bias_ih"), stacked("bias_hh")
        b = ops.constant(b_ih + b_hh)
        if case.cell == "lstm":
            node = ops.lstm_sequence(value, zeros, zeros, steps, w, r, b, case.H, direction)
        elif case.cell == "gru":
            if case.reset_after:  # the reset gate stands between n's two
                n = 2 * case.H
                parts = [b_ih[:, :n] + b_hh[:, :n], b_ih[:, n:], b_hh[:, n:]]
                b = ops.constant(np.concatenate(parts, axis=1))
            node = ops.gru_sequence(
                value, zeros, steps, w, r, b, case.H, direction,
                linear_before_reset=case.reset_after,
            )  # fmt: skip
        else:
            node = ops.rnn_sequence(
                value, zeros, steps, w, r, b, case.H, direction, activations=["tanh"]
            )
        value = node.output(0)
        if layer + 1 < case.L:  # (B, D, T, H) -> (B, T, D*H)
            value = ops.transpose(value, ops.constant(np.array([0, 2, 1, 3]))).output(0)
            shape = ops.constant(np.array([case.B, case.T, case.D * case.H]))
            value = ops.reshape(value, shape, special_zero=False).output(0)
    return openvino.Model([ops.result(value)], [parameter])


def _from_batch_first(value: Array) -> Array:
    batch, _, steps, _ = value.shape
    return value.transpose(2, 0, 1, 3).reshape(steps, batch, -1)


def make(threads: int) -> OpenVino:
    """Return the library, set to this many threads."""
    return OpenVino(threads)
