"""The libraries that are compared, one file each; a worker process loads one of them."""

from __future__ import annotations

import importlib
from typing import Any

from .base import Peer

__all__ = ["LABELS", "OURS", "load"]

OURS = "lstmcore"
# The name on the command line: the module here, and the name in tables.
_MODULES = {
    OURS: ("ours", "lstmcore"),
    "torch": ("pytorch", "PyTorch"),
    "onnxruntime": ("onnx_runtime", "ONNX Runtime"),
    "openvino": ("open_vino", "OpenVINO"),
    "jax": ("jax_scan", "JAX"),
}
LABELS = {name: label for name, (_, label) in _MODULES.items()}


def load(name: str, threads: int) -> Peer:
    """Import a library and set its threads. Raises ImportError if it is not installed."""
    module: Any = importlib.import_module(f"peers.{_MODULES[name][0]}")
    peer: Peer = module.make(threads)
    return peer
