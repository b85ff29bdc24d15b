"""Safetensors files: written whole or not at all, and checked when read.

The package safetensors is not used: given a path it opens the file again, which may be another one
by then, and given bytes it copies them all. Here a file is opened once and mapped. In the tests
that package reads what is written here, and writes what is read here.
"""

from __future__ import annotations

import json
import math
import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from .foreign import what_it_is
from .replacing import replacing
from .small_floats import WIDENED
from .source import Source

__all__ = ["read", "view", "write"]

_CHECKSUM = "\ncrc32:"  # what stands between a string and the checksum of the file
_MOST_HEADER = 2**24
_METADATA = "__metadata__"

_DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "C64": "<c8", "BOOL": "u1",
    "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "u1",
}  # fmt: skip
# By NumPy's names.
_NAMES = {np.dtype(t).str: name for name, t in _DTYPES.items() if name not in ("BF16", "BOOL")}
_NAMES["|b1"] = "BOOL"
_DTYPES |= {"F8_E4M3": "u1", "F8_E5M2": "u1", "F8_E8M0": "u1"}
# What NumPy lacks becomes float32.
_WIDENED = {
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
}


def write(path: Any, arrays: Mapping[str, npt.NDArray[Any]], metadata: dict[str, str]) -> None:
    """Write arrays and strings. A file that is there stays as it is until all is written."""
    whole = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    checksum = _checksum(whole, metadata)
    metadata = {key: f"{text}{_CHECKSUM}{checksum}" for key, text in metadata.items()}
    header: dict[str, Any] = {_METADATA: metadata} if metadata else {}
    # The widest first, so that each stands where its type may stand in memory.
    ordered = sorted(whole.items(), key=lambda item: (-item[1].itemsize, item[0]))
    end = 0
    for name, array in ordered:
        kind = _NAMES.get(array.dtype.newbyteorder("<").str)
        if kind is None:
            known = ", ".join(np.dtype(dtype).name for dtype in _NAMES)
            raise TypeError(f"{name} has dtype {array.dtype}, expected one of {known}")
        start, end = end, end + array.nbytes
        header[name] = {"dtype": kind, "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for _, array in ordered:
            little = array.astype(array.dtype.newbyteorder("<"), copy=False)
            file.write(little.reshape(-1).view(np.uint8).data)


def read(source: Source) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Read what `write` wrote: copies, to be kept. Raises what `view` does."""
    arrays, metadata = view(source)
    return {name: np.array(array, subok=False) for name, array in arrays.items()}, metadata


def view(source: Source) -> tuple[dict[str, npt.NDArray[Any]], dict[str, str]]:
    """Return the arrays of a safetensors file as read-only views of the file, and its metadata.

    Of a path nothing is read but what is looked at. They are meant to be copied from at once: a
    file that somebody cuts short takes the memory away under its views. What NumPy has no type for
    is widened to float32.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is no safetensors file, or not as it was written.
    """
    try:
        header, metadata, start = _header(source)
        data = _data(source, start)
        _check_places(header, len(data))
        arrays = {name: _part(data, **entry) for name, entry in header.items()}
    except (TypeError, ValueError, RecursionError) as error:
        found = _foreign(source)
        if found:
            raise ValueError(f"{source.name} is {found}") from error
        raise ValueError(f"{source.name} is damaged, or no safetensors file: {error}") from error
    parts = {key: text.rpartition(_CHECKSUM) for key, text in metadata.items()}
    metadata = {key: text if mark else last for key, (text, mark, last) in parts.items()}
    checksums = {last for _, mark, last in parts.values() if mark}
    if checksums and checksums != {_checksum(arrays, metadata)}:
        raise ValueError(
            f"{source.name} is damaged: it is not what was written (the checksum differs)"
        )
    return arrays, metadata


def _foreign(source: Source) -> str:
    """Return what it is, if it is some other kind of file."""
    source.file.seek(0)
    start = source.file.read(512)
    return "" if start[8:9] == b"{" else what_it_is(start)


def _header(source: Source) -> tuple[dict[str, Any], dict[str, str], int]:
    """Return what a file says of its tensors, its strings, and where the numbers begin."""
    size = int.from_bytes(source.file.read(8), "little")
    if size > _MOST_HEADER:
        raise ValueError(f"its header has {size} bytes, expected at most {_MOST_HEADER}")
    if not 0 < size <= source.size - 8:
        raise ValueError("it ends within its header")
    text = source.file.read(size)
    header = json.loads(text, object_pairs_hook=_once)
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError(f"{_METADATA} in its header holds something else than strings")
    return header, metadata, 8 + size


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("its header has a name twice")
    return result


def _data(source: Source, start: int) -> npt.NDArray[np.uint8]:
    """Return the bytes behind the header: of a path mapped, so that they are read when needed."""
    if start == source.size:
        return np.empty(0, np.uint8)
    if source.folder is None:
        return np.frombuffer(source.file.getbuffer(), np.uint8, offset=start)  # type: ignore[attr-defined]
    mapped: npt.NDArray[np.uint8] = np.memmap(source.file, np.uint8, "r", start)
    return mapped


def _check_places(header: dict[str, Any], size: int) -> None:
    """Refuse tensors that are not one after the other, from the first byte to the last."""
    places = []
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
            raise ValueError(f"what it says of {name[:100]!r} is not dtype, shape and data_offsets")
        dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
        if not (_counts(shape) and _counts(offsets) and len(offsets) == 2):
            raise ValueError(f"the shape or the data_offsets of {name[:100]!r} are no counts")
        if not isinstance(dtype, str) or dtype not in _DTYPES:
            known = ", ".join(_DTYPES)
            raise ValueError(f"it has a tensor of {str(dtype)[:20]}, expected one of {known}")
        if offsets[1] - offsets[0] != math.prod(shape) * np.dtype(_DTYPES[dtype]).itemsize:
            raise ValueError(f"{name[:100]!r} has not as many bytes as its shape says")
        places.append((*offsets, name))
    end = 0
    for first, last, name in sorted(places):
        if first != end:
            raise ValueError(f"{name[:100]!r} does not begin where the tensor before it ends")
        end = last
    if end != size:
        raise ValueError(f"its tensors have {end} bytes, and {size} are there")


def _counts(value: Any) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 2**63 for n in value)


def _part(
    data: npt.NDArray[Any], dtype: str, shape: list[int], data_offsets: list[int]
) -> npt.NDArray[Any]:
    """Return a tensor of a file whose bytes are there."""
    array = data[slice(*data_offsets)].view(np.ndarray).view(_DTYPES[dtype]).reshape(shape)
    if dtype in _WIDENED:
        return WIDENED[_WIDENED[dtype]][1](array)
    if dtype == "BOOL":
        truths: npt.NDArray[np.bool_] = array != 0
        return truths
    array.flags.writeable = False
    return array


def _checksum(arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str]) -> str:
    """Checksum of all there is, in the order of the names."""
    crc = zlib.crc32(json.dumps(dict(metadata), sort_keys=True).encode())
    for name in sorted(arrays):
        array = arrays[name]
        crc = zlib.crc32(f"{name} {array.dtype.str} {array.shape}".encode(), crc)
        crc = zlib.crc32(array.reshape(-1).view(np.uint8).data, crc)
    return f"{crc:08x}"
