"""ONNX Runtime: a session of recurrent nodes, inputs and outputs bound beforehand."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnxruntime

from cases import Case
from data import Array, Data

from . import onnx_model
from .base import Unsupported, Way


class OnnxRuntime:
    """ONNX Runtime on its CPU provider."""

    def __init__(self, threads: int) -> None:
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


def make(threads: int) -> OnnxRuntime:
    """Return the library, set to this many threads."""
    return OnnxRuntime(threads)
