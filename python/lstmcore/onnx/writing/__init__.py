"""Writing models as ONNX: what `to_onnx` does."""
