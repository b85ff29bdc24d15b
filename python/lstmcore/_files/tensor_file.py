"""Safetensors files of our own: written whole or not at all, and checked when read."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .._base import checks
from . import atomic

__all__ = ["read", "view", "widen_bfloat16", "write"]

_CHECKSUM = "\ncrc32:"  # what stands between a string and the checksum of the file
_MOST_HEADER = 2**24

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "BOOL": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str]
) -> None:
    """Write arrays and strings. A file that is there stays as it is until all is written."""
    from safetensors.numpy import save_file

    target = checks.path(path, "path")
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    # Behind the string, not beside it: safetensors writes several in any order.
    checksum = _checksum(whole, metadata)
    metadata = {key: f"{text}{_CHECKSUM}{checksum}" for key, text in metadata.items()}
    atomic.replace(target, lambda temporary: save_file(whole, temporary, metadata))


def read(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read what `write` wrote: copies, to be kept. Raises what `view` raises."""
    arrays, metadata = view(path)
    return {name: np.array(array, subok=False) for name, array in arrays.items()}, metadata


def view(path: str | os.PathLike[str]) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Return the arrays of a safetensors file as read-only views of the file, and its metadata.

    Nothing is read but what is looked at. They are meant to be copied from at once: a file that
    somebody cuts short takes the memory away under its views. bfloat16 is widened to float32.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no safetensors file, or not as it was written.
    """
    from safetensors import SafetensorError, safe_open

    path = checks.path(path, "path")
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > _MOST_HEADER:
                raise ValueError(f"its header has {size} bytes, expected at most {_MOST_HEADER}")
            with safe_open(path, framework="numpy") as checked:
                metadata = dict(checked.metadata() or {})
            header = json.loads(file.read(size))
            header.pop("__metadata__", None)
            empty = os.fstat(file.fileno()).st_size == 8 + size
            data = np.empty(0, np.uint8) if empty else np.memmap(file, np.uint8, "r", 8 + size)
        arrays = {name: _part(data, **entry) for name, entry in header.items()}
    except (SafetensorError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is damaged, or no safetensors file: {error}") from error
    parts = {key: text.rpartition(_CHECKSUM) for key, text in metadata.items()}
    metadata = {key: text if mark else last for key, (text, mark, last) in parts.items()}
    checksums = {last for _, mark, last in parts.values() if mark}
    if checksums and checksums != {_checksum(arrays, metadata)}:
        raise ValueError(f"{path} is damaged: it is not what was written (the checksum differs)")
    return arrays, metadata


def _part(
    data: npt.NDArray[Any], dtype: str, shape: list[int], data_offsets: list[int]
) -> npt.NDArray[Any]:
    """Return a tensor of a file; safetensors has checked that its bytes are there."""
    if dtype not in _DTYPES:
        raise ValueError(f"it has a tensor of {dtype}, expected one of {', '.join(_DTYPES)}")
    array = data[slice(*data_offsets)].view(np.ndarray).view(_DTYPES[dtype]).reshape(shape)
    if dtype == "BF16":
        return widen_bfloat16(array)
    return array != 0 if dtype == "BOOL" else array


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> npt.NDArray[np.float32]:
    """Return as float32 what bfloat16 numbers are, the upper halves of those."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


def _checksum(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Checksum of all there is, in the order of the names."""
    crc = zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"
