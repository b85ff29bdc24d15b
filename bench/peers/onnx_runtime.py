"""ONNX Runtime: a session of recurrent nodes, inputs and outputs bound beforehand."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnxruntime.quantization import QuantType, quantize_dynamic

from cases import Case
from data import Array, Data

from . import onnx_model
from .base import Unsupported, Way


class OnnxRuntime:
    """ONNX Runtime on its CPU provider."""

    def __init__(self, threads: int) -> None:
        logging.getLogger().setLevel(logging.ERROR)  # advice of quantize_dynamic
        self.version = onnxruntime.__version__
        self._options = onnxruntime.SessionOptions()
        self._options.intra_op_num_threads = threads
        self._options.inter_op_num_threads = 1
        self._options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        self._options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        self._options.log_severity_level = 3

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield the bound session."""
        if case.mode == "train":
            raise Unsupported("no training")
        if case.dtype != "float32":
            raise Unsupported("computes in float32")
        model = onnx_model.build(case, data)
        if case.int8:
            model = _quantized(case, model)
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), self._options, providers=["CPUExecutionProvider"]
        )
        x = onnxruntime.OrtValue.ortvalue_from_numpy(data.x)
        y = onnxruntime.OrtValue.ortvalue_from_numpy(
            np.empty((case.T, case.D, case.B, case.H), case.dtype)
        )
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", x)
        binding.bind_ortvalue_output(session.get_outputs()[0].name, y)

        def run() -> None:
            session.run_with_iobinding(binding)

        def outputs(_: None) -> dict[str, Array]:
            return {"y": onnx_model.to_y(y.numpy())}

        yield Way("bound", run, outputs, keep=(x, y, data.x))


def _quantized(case: Case, model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the model as `quantize_dynamic` makes it, whose LSTM nodes are then in int8."""
    if case.cell != "lstm":
        raise Unsupported("quantises LSTMs alone")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_dynamic(model, path, weight_type=QuantType.QInt8)
        return onnx.load(path)


def make(threads: int) -> OnnxRuntime:
    """Return the library, set to this many threads."""
    return OnnxRuntime(threads)
