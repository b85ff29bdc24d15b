"""What a file is that was given to another reader than its own, told by how it begins."""

from __future__ import annotations

import struct

__all__ = ["what_it_is"]

_TORCH = "a file of PyTorch, which lc.load_torch reads"
_KERAS = "a file of Keras, which lc.from_keras reads"
_SAFETENSORS = (
    "a safetensors file: lc.load reads those of lc.save, and lc.load_torch the arrays in any"
)
_TENSORFLOW = (
    "a file of TensorFlow: variables taken from it as arrays go through lc.convert_weights, whole "
    "models through tf2onnx and lc.from_onnx"
)


def what_it_is(start: bytes) -> str:
    r"""Return what a file that begins like this is, and who reads it; "" if that is not known.

    Parameters
    ----------
    start : bytes
        Its first hundred bytes or more.

    Examples
    --------
    >>> what_it_is(b"\x89HDF\r\n")
    'an HDF5 file, which lc.from_keras reads if Keras has written it'
    """
    if not start:
        return "empty"
    if start[:4] == b"PK\3\4":
        return _zip(start)
    if start[:4] == b"\x89HDF":
        return "an HDF5 file, which lc.from_keras reads if Keras has written it"
    if start[:6] == b"\x93NUMPY":
        return "an array of NumPy, which np.load reads"
    if start[:1] == b"\x80" and b"l\xfc\x9cF\xf9 j\xa8P\x19" in start[:32]:
        return _TORCH
    if start[:1] == b"\x80" and start[1:2] in b"\2\3\4\5":
        return "a pickle, which could run anything: save the arrays, by lc.save"
    if start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] < 2**40:
        return _SAFETENSORS
    if b'"weight_map"' in start or b'"metadata": {"total_size"' in start:
        return "the index of several files of weights, which lc.load_torch reads, given its path"
    if start.lstrip()[:1] == b"{":
        return "a text in JSON"
    if start[4:8] == b"TFL3" or start[:3] == b"\x08\x01\x12":
        return _TENSORFLOW
    if start[:1] == b"\x08" and start[1:2] <= b"\x20" and start[2:3] in b"\x12\x1a\x22\x3a\x42":
        return "a file of ONNX, which lc.from_onnx reads"
    if start[:1] == b"\n" and b"\x12" in start[:100]:  # the first node of a graph, and its operator
        return _TENSORFLOW
    return ""


def _zip(start: bytes) -> str:
    """Go by the name of the first record."""
    size = int.from_bytes(start[26:28], "little")
    name = start[30 : 30 + size].decode("utf-8", "replace")
    if name.endswith(".npy"):
        return "arrays of NumPy (.npz), which np.load reads"
    if name in ("metadata.json", "config.json", "model.weights.h5"):
        return _KERAS
    inside = name.partition("/")[2]
    if inside in ("data.pkl", "constants.pkl", ".format_version", "archive_format", "byteorder"):
        return _TORCH
    if inside.startswith(("data/", "code/", ".data/")):  # of TorchScript
        return _TORCH
    return "a zip archive"
