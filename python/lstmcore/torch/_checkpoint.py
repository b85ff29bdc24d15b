"""Checkpoints of PyTorch, read without PyTorch."""

from __future__ import annotations

import io
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from .._files import tensor_file
from .._files.foreign import what_it_is
from .._files.small_floats import widen_bfloat16
from .._files.source import opened
from . import _archive
from ._archive import Place
from ._unpickling import Name, unpickle, unwanted

__all__ = ["load_torch"]

# What the storages of tensors are called, and the type of their numbers.
_STORAGES = {
    "torch.DoubleStorage": "float64",
    "torch.FloatStorage": "float32",
    "torch.HalfStorage": "float16",
    "torch.BFloat16Storage": "bfloat16",
    "torch.LongStorage": "int64",
    "torch.IntStorage": "int32",
    "torch.ShortStorage": "int16",
    "torch.CharStorage": "int8",
    "torch.ByteStorage": "uint8",
    "torch.BoolStorage": "bool",
    "torch.ComplexDoubleStorage": "complex128",
    "torch.ComplexFloatStorage": "complex64",
    "torch.storage.UntypedStorage": "",  # the tensor says
}
_DTYPES = {*_STORAGES.values(), "uint16", "uint32", "uint64"} - {""}

# A file that torch.save wrote before version 1.6 begins with a pickle of this number.
_LEGACY = 0x1950A86A20F9469CFC6C


def load_torch(path: str | os.PathLike[str]) -> Any:
    """Read what ``torch.save`` wrote, without PyTorch and without running anything in the file.

    It takes ``.pt``, ``.pth`` and ``.bin`` files, those from before PyTorch 1.6 too, and
    safetensors files.

    Parameters
    ----------
    path : str or path
        Of the file.

    Returns
    -------
    dict, or what else was saved
        With arrays for tensors: of the same type, but float32 for bfloat16; those that share a
        storage share memory.

    Raises
    ------
    ValueError
        If the file is damaged, or holds anything but tensors, numbers, strings, bytes, None, and
        lists, tuples and dicts of them. What it is, such as the class of a whole model, is named.
    OSError
        If the file cannot be read.

    Notes
    -----
    Nothing is decompressed, and every size is compared with the file's before memory is taken.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5)
    >>> weights = lc.load_torch("model.pt")  # doctest: +SKIP
    >>> lstm.load_state_dict(weights, prefix="encoder.")  # doctest: +SKIP
    """
    with opened(path) as source:
        start = source.file.read(512)
        source.file.seek(0)
        try:
            if start.startswith(b"PK\3\4"):
                return _load_zip(source.file, source.size)
            if start[:1] == b"\x80" and _LEGACY.to_bytes(10, "little") in start[:32]:
                return _load_legacy(source.file, source.size)
        except ValueError as error:
            raise ValueError(f"{source.name} is no sound checkpoint of PyTorch: {error}") from error
        if start[8:9] == b"{":  # where the header of a safetensors file begins
            return tensor_file.read(source)[0]
    raise ValueError(
        f"{source.name} is no checkpoint of PyTorch, nor a safetensors file, but "
        f"{what_it_is(start) or 'begins like neither'}"
    )


def _load_zip(file: BinaryIO, size: int) -> Any:
    places = _archive.directory(file, size)
    tops = [name for name in places if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(tops) != 1:
        raise ValueError(f"it has {len(tops)} records called data.pkl, expected one")
    top = tops[0].removesuffix("data.pkl")
    if f"{top}constants.pkl" in places:
        raise ValueError("it is a TorchScript program, expected what torch.save writes")
    order = places.get(f"{top}byteorder")
    if order is None:
        little = True
    else:
        file.seek(order.start)
        name = file.read(min(order.size, 6))
        if name not in (b"little", b"big"):
            raise ValueError("its byte order is neither little nor big")
        little = name == b"little"
    data = f"{top}data/"
    found = {n.removeprefix(data): place for n, place in places.items() if n.startswith(data)}
    storages = _Storages(file, found, "<" if little else ">")
    file.seek(places[tops[0]].start)
    text = _Text(file, places[tops[0]].start + places[tops[0]].size)
    return unpickle(text, _CALLS, storages.find, np.ndarray, _most_steps(size))


def _load_legacy(file: BinaryIO, size: int) -> Any:
    """Read number, version, system, value, and keys of the storages, all pickled; the storages.

    The value is read twice, because what its storages are is said in it, but where after it.
    """
    text = _Text(file, size)
    known: dict[str, _Storage] = {}

    def note(identity: Any) -> None:
        storage = _Storage.named(identity)
        known[storage.key] = storage

    starts, values = [], []
    for _ in range(5):
        starts.append(file.tell())
        values.append(unpickle(text, _SKIM, note, type(None), _most_steps(size)))
    number, version, _, _, keys = values
    if number != _LEGACY or version != 1001 or not isinstance(keys, list):
        raise ValueError("it is of another version than 1001")
    places: dict[str, Place] = {}
    for key in keys:
        if not isinstance(key, str) or key not in known:
            raise ValueError("it has a storage that no tensor uses")
        count = int.from_bytes(text.read(8), "little")
        places[key] = Place(file.tell(), count * known[key].itemsize)
        if file.tell() + places[key].size > size:
            raise ValueError(f"its storage {key!r} is not whole")
        file.seek(places[key].size, io.SEEK_CUR)
    file.seek(starts[3])
    storages = _Storages(file, places, "<")
    return unpickle(text, _CALLS, storages.find, np.ndarray, _most_steps(size))


def _most_steps(size: int) -> int:
    """How many instructions a pickle may have; each of them can take some 100 bytes of memory."""
    return 1_000_000 + size // 8


class _Text:
    """The part of a file that holds a pickle, up to some position."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file = file
        self.end = end

    def read(self, n: int) -> bytes:
        return self.file.read(max(0, min(n, self.end - self.file.tell())))

    def readline(self) -> bytes:
        return self.file.readline(1024)  # the lines in a pickle are names


# Storages and tensors -----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Storage:
    """What a pickle says of a storage."""

    key: str
    dtype: str  # "" if the tensor says
    count: int
    owner: _Storages | None = None

    @classmethod
    def named(cls, identity: Any, owner: _Storages | None = None) -> _Storage:
        """Return the storage with that persistent id, ("storage", type, key, device, count)."""
        if isinstance(identity, tuple) and identity[:1] == ("module",):  # of a whole model
            kind = identity[1] if len(identity) > 1 else None
            raise unwanted(kind.name if isinstance(kind, Name) else "a module")
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise ValueError("it refers to something that is no storage")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, Name) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("it describes a storage wrongly")
        if kind.name not in _STORAGES:
            raise ValueError(
                f"it has a storage of type {kind.name}, expected one of {', '.join(_STORAGES)}"
            )
        if any(part is not None for part in view):
            raise ValueError("it has a storage that is a view of another")
        return cls(key, _STORAGES[kind.name], count, owner)

    @property
    def itemsize(self) -> int:
        return _itemsize(self.dtype or "uint8")


class _Storages:
    """The storages of a file, each read when a tensor first asks for it."""

    def __init__(self, file: BinaryIO, places: dict[str, Place], order: Literal["<", ">"]) -> None:
        self.file = file
        self.places = places
        self.order = order
        self.read: dict[str, tuple[str, npt.NDArray[Any]]] = {}

    def find(self, identity: Any) -> _Storage:
        storage = _Storage.named(identity, self)
        place = self.places.get(storage.key)
        if place is None:
            raise ValueError(f"it lacks the storage {storage.key[:50]!r}")
        if place.size != storage.count * storage.itemsize:
            raise ValueError(
                f"its storage {storage.key!r} has {place.size} bytes, expected {storage.count} "
                f"numbers of {storage.itemsize} bytes"
            )
        return storage

    def numbers(self, key: str, dtype: str) -> npt.NDArray[Any]:
        """Return all numbers of a storage, in the machine's byte order."""
        if key not in self.read:
            self.read[key] = dtype, self._numbers(self.places[key], dtype)
        known, numbers = self.read[key]
        if known != dtype:
            raise ValueError(f"its storage {key!r} is used as {known} and as {dtype}")
        return numbers

    def _numbers(self, place: Place, dtype: str) -> npt.NDArray[Any]:
        stored = {"bfloat16": "uint16", "bool": "uint8"}.get(dtype, dtype)
        kind = np.dtype(stored).newbyteorder(self.order)
        here = self.file.tell()  # in the pickle, which is being read
        self.file.seek(place.start)
        numbers = np.frombuffer(bytearray(self.file.read(place.size)), kind)
        self.file.seek(here)
        if numbers.nbytes != place.size:
            raise ValueError("a storage of it is not whole")
        if dtype == "bfloat16":
            return widen_bfloat16(numbers)
        if dtype == "bool":
            truths: npt.NDArray[np.bool_] = numbers != 0
            return truths
        native: npt.NDArray[Any] = numbers.astype(kind.newbyteorder("="), copy=False)
        return native


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    *,
    dtype: str = "",
) -> npt.NDArray[Any]:
    """Return a view of a storage; offset and strides are counted in numbers."""
    if not isinstance(storage, _Storage) or storage.owner is None:
        raise ValueError("it has a tensor without a storage")
    if metadata:
        raise ValueError("it has a tensor that is a lazy conjugate or negative: resolve it")
    if not (isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)):
        raise ValueError("it has a tensor without sizes and strides")
    if len(size) > 32 or not all(type(n) is int for n in (offset, *size, *stride)):
        raise ValueError("it has a tensor with sizes and strides that are no numbers, or too many")
    if min((offset, *size, *stride)) < 0:
        raise ValueError(
            f"it has a tensor with offset {offset}, sizes {size} and strides {stride}, expected "
            "none below 0"
        )
    if not (dtype or storage.dtype):
        raise ValueError("it has a tensor of no type")
    numbers = storage.owner.numbers(storage.key, dtype or storage.dtype)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and last >= numbers.size:
        raise ValueError(
            f"it has a tensor with offset {offset}, sizes {size} and strides {stride}, which "
            f"reaches beyond its storage of {numbers.size} numbers"
        )
    if 0 in size:
        return np.zeros(size, numbers.dtype)
    strides = [
        step * numbers.itemsize if n > 1 else 0 for n, step in zip(size, stride, strict=True)
    ]
    return np.ndarray(size, numbers.dtype, numbers, offset * numbers.itemsize, strides)


def _tensor_of_type(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> npt.NDArray[Any]:
    """Return a tensor that says of which type its numbers are."""
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Name) else ""
    if name not in _DTYPES:
        raise ValueError(f"it has a tensor of {name or 'no type'}, expected {', '.join(_DTYPES)}")
    return _tensor(storage, offset, size, stride, metadata=metadata, dtype=name)


def _parameter(data: Any, *_: Any) -> npt.NDArray[Any]:
    if not isinstance(data, np.ndarray):
        raise ValueError("it has a parameter that is no tensor")
    return data


def _size(sizes: Any) -> tuple[Any, ...]:
    if not isinstance(sizes, tuple):
        raise ValueError("it has a size that is no tuple")
    return sizes


def _ordered_dict() -> OrderedDict[Any, Any]:
    return OrderedDict()


_CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.Size": _size,
    "collections.OrderedDict": _ordered_dict,
}
_SKIM: dict[str, Callable[..., Any]] = {
    **dict.fromkeys(_CALLS, lambda *_: None),
    "collections.OrderedDict": _ordered_dict,
}
