"""What a pickle of PyTorch holds beside plain values: tensors as arrays, and arrays of NumPy."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .._files.small_floats import WIDENED
from ._unpickling import Placeholder

__all__ = ["BUILDS", "CALLS", "QuantizedArray", "Storage", "Storages", "tensor"]

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
    "torch.QInt8Storage": "int8",
    "torch.QUInt8Storage": "uint8",
    "torch.QInt32Storage": "int32",
    "torch.storage.UntypedStorage": "",  # the tensor says
}
_DTYPES = {*_STORAGES.values(), *WIDENED, "uint16", "uint32", "uint64"} - {""}
_NUMPY_TYPE = re.compile(r"[?bBhHiIlLqQefdFD]|[biufc]\d{1,2}|[SU]\d{1,6}")


@dataclass(frozen=True, eq=False)
class QuantizedArray:
    """A quantised tensor of PyTorch: integers, and what they stand for.

    ``np.asarray`` of it, and so `load_state_dict`, gives the real numbers,
    ``(values - zero_point) * scale`` in float32.
    """

    values: npt.NDArray[np.integer[Any]]
    """int8, uint8 or int32."""
    scale: npt.NDArray[np.floating[Any]]
    """Of all numbers, shape (), or one for each row along `axis`."""
    zero_point: npt.NDArray[Any]
    """Which integer stands for 0; shaped like `scale`."""
    axis: int | None = None
    """The axis of `values` whose rows have scales of their own."""

    def dequantize(self) -> npt.NDArray[np.float32]:
        """Return the numbers that it stands for, as PyTorch's method of that name does."""
        shape = [1] * self.values.ndim
        if self.axis is not None:
            shape[self.axis] = self.scale.size
        scale, zero = (a.astype(np.float32).reshape(shape) for a in (self.scale, self.zero_point))
        return (self.values.astype(np.float32) - zero) * scale

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the tensor."""
        return self.values.shape

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self.dequantize().astype(dtype or np.float32, copy=False)


class Storage(Placeholder):
    """What a pickle says of a storage."""

    __slots__ = ("count", "dtype", "key", "owner")

    key: str
    dtype: str | None
    """"" if the tensor says; None if it is one that NumPy has nothing like."""
    count: int
    owner: Storages | None

    @classmethod
    def named(cls, identity: Any, owner: Storages | None = None) -> Any:
        """Return the storage with that persistent id, ("storage", type, key, device, count).

        What refers to something else, as the code of a module, is a placeholder.
        """
        if isinstance(identity, tuple) and identity[:1] == ("module",) and len(identity) > 1:
            return identity[1]  # the class, of which the others are its code
        if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
            raise ValueError("it refers to something that is no storage")
        _, kind, key, _, count, *view = identity
        if not isinstance(kind, Placeholder) or not isinstance(key, str) or type(count) is not int:
            raise ValueError("it describes a storage wrongly")
        if any(part is not None for part in view):
            raise ValueError("it has a storage that is a view of another")
        storage = cls(kind.name, ())
        storage.dtype = _STORAGES.get(kind.name.replace("torch.cuda.", "torch."))
        storage.key, storage.count, storage.owner = key, count, owner
        return storage

    @property
    def itemsize(self) -> int:
        """Return how many bytes a number has, 1 if the tensor says of which type they are."""
        if self.dtype is None:
            known = ", ".join(_STORAGES)
            raise ValueError(f"it has a storage of type {self.name}, expected one of {known}")
        return _stored(self.dtype or "uint8").itemsize


class Storages:
    """The storages of a file, each read when a tensor first asks for it.

    Parameters
    ----------
    sizes : mapping of str to int
        How many bytes each has, by its key.
    read : callable
        Returns the bytes of one, writable.
    little : bool
        The order of the bytes in a number.
    """

    def __init__(
        self, sizes: Mapping[str, int], read: Callable[[str], bytearray], little: bool
    ) -> None:
        self._sizes, self._read, self._order = sizes, read, "<" if little else ">"
        self._known: dict[str, tuple[str, npt.NDArray[Any]]] = {}

    def find(self, identity: Any) -> Any:
        """Return what a persistent id stands for."""
        storage = Storage.named(identity, self)
        if not isinstance(storage, Storage) or storage.dtype is None:
            return storage
        size = self._sizes.get(storage.key)
        if size is None:
            raise ValueError(f"it lacks the storage {storage.key[:50]!r}")
        if size != storage.count * storage.itemsize:
            raise ValueError(
                f"its storage {storage.key!r} has {size} bytes, expected {storage.count} "
                f"numbers of {storage.itemsize} bytes"
            )
        return storage

    def numbers(self, key: str, dtype: str) -> npt.NDArray[Any]:
        """Return all numbers of a storage, in the machine's byte order."""
        if key not in self._known:
            stored = _stored(dtype).newbyteorder(self._order)  # type: ignore[arg-type]
            content = self._read(key)
            if len(content) % stored.itemsize:
                raise ValueError(f"its storage {key!r} has {len(content)} bytes, not of {dtype}")
            self._known[key] = dtype, _numbers(np.frombuffer(content, stored), dtype)
        known, numbers = self._known[key]
        if known != dtype:
            raise ValueError(f"its storage {key!r} is used as {known} and as {dtype}")
        return numbers


def _stored(dtype: str) -> np.dtype[Any]:
    """Return the type of the bytes of numbers."""
    if dtype in WIDENED:
        return np.dtype(WIDENED[dtype][0])
    return np.dtype("uint8" if dtype == "bool" else dtype)


def _numbers(stored: npt.NDArray[Any], dtype: str) -> npt.NDArray[Any]:
    if dtype in WIDENED:
        return WIDENED[dtype][1](stored)
    if dtype == "bool":
        truths: npt.NDArray[np.bool_] = stored != 0
        return truths
    native: npt.NDArray[Any] = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native


# Tensors ------------------------------------------------------------------------------------------


def tensor(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any = False,
    hooks: Any = None,
    metadata: Any = None,
    *,
    dtype: str = "",
) -> Any:
    """Return a view of a storage; offset and strides are counted in numbers."""
    if not isinstance(storage, Storage) or storage.owner is None:
        raise ValueError("it has a tensor without a storage")
    if storage.dtype is None:
        return NotImplemented
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
    array = np.ndarray(size, numbers.dtype, numbers, offset * numbers.itemsize, strides)
    return _resolved(array, metadata) if metadata else array


def _resolved(array: npt.NDArray[Any], metadata: Any) -> npt.NDArray[Any]:
    """Return the numbers of a tensor that is to be conjugated, or negated, when it is used."""
    if not isinstance(metadata, dict) or array.size > np.asarray(array.base).size:
        raise ValueError("it has a tensor that is a lazy conjugate or negative, and expanded")
    result = array.conj() if metadata.get("conj") else array
    return -result if metadata.get("neg") else result


def _tensor_of_type(
    storage: Any,
    offset: Any,
    size: Any,
    stride: Any,
    requires_grad: Any,
    hooks: Any,
    dtype: Any,
    metadata: Any = None,
) -> Any:
    """Return a tensor that says of which type its numbers are."""
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Placeholder) else ""
    if name not in _DTYPES:
        return NotImplemented
    return tensor(storage, offset, size, stride, metadata=metadata, dtype=name)


def _quantized(
    storage: Any, offset: Any, size: Any, stride: Any, parameters: Any, *others: Any
) -> Any:
    """Return the integers of a quantised tensor with what they stand for."""
    values = tensor(storage, offset, size, stride)
    if not isinstance(parameters, tuple) or len(parameters) not in (3, 4):
        return NotImplemented
    _, *given, axis = parameters if len(parameters) == 4 else (*parameters, None)
    if not all(isinstance(a, (float, int, np.ndarray)) for a in given):
        return NotImplemented
    scale, zero = map(np.asarray, given)
    wanted: tuple[int, ...] = ()
    if axis is not None:
        if type(axis) is not int or not 0 <= axis < values.ndim:
            raise ValueError("it has a quantised tensor whose axis is not there")
        wanted = (values.shape[axis],)
    real = {scale.dtype.kind, zero.dtype.kind} <= {*"if"}
    if values.dtype.kind not in "iu" or not real or not scale.shape == zero.shape == wanted:
        raise ValueError("it has a quantised tensor whose scale and zero_point do not fit")
    return QuantizedArray(values, scale, zero, axis)


def _parameter(data: Any, *_: Any) -> Any:
    return data


def _of_a_class(function: Any, kind: Any, arguments: Any, *_: Any) -> Any:
    """Return the tensor of a class derived from Tensor, or with attributes of its own."""
    call = CALLS.get(function.name) if isinstance(function, Placeholder) else None
    if call is None or call is _of_a_class or not isinstance(arguments, tuple):
        return NotImplemented
    return call(*arguments)


def _size(sizes: Any) -> tuple[Any, ...]:
    if not isinstance(sizes, (tuple, list)):
        raise ValueError("it has a size that is no tuple")
    return tuple(sizes)


# NumPy and Python ---------------------------------------------------------------------------------


def _numpy_dtype(given: Any) -> np.dtype[Any] | None:
    """Return the type of numbers that a placeholder of one stands for; None for other types."""
    if not isinstance(given, Placeholder) or given.name != "numpy.dtype" or not given.arguments:
        return None
    text, state = given.arguments[0], given.state
    if not isinstance(text, str) or not _NUMPY_TYPE.fullmatch(text):
        return None
    order: Any = state[1] if isinstance(state, tuple) and len(state) > 1 else "="
    try:
        kind = np.dtype(text)
    except TypeError:
        return None
    return kind.newbyteorder(order) if order in ("<", ">") else kind


def _filled(dtype: Any, shape: Any, order: Any, content: Any) -> Any:
    """Return an array of NumPy's, if it is one of numbers or text whose bytes are there."""
    kind = _numpy_dtype(dtype)
    if kind is None or not isinstance(content, (bytes, bytearray)) or not kind.itemsize:
        return NotImplemented
    if not isinstance(shape, tuple) or not all(type(n) is int and n >= 0 for n in shape):
        return NotImplemented
    if math.prod(shape) * kind.itemsize != len(content):
        raise ValueError(f"it has an array of shape {shape} with {len(content)} bytes")
    return np.frombuffer(bytearray(content), kind).reshape(shape, order="F" if order else "C")


def _scalar(dtype: Any, content: Any = b"") -> Any:
    array = _filled(dtype, (), False, content)
    return array if array is NotImplemented else array[()]


def _array(_: Placeholder, state: Any) -> Any:
    """Return an array from what NumPy gives its constructor as its state."""
    if not isinstance(state, tuple) or len(state) != 5:
        return NotImplemented
    return _filled(state[2], state[1], state[3], state[4])


def _from_buffer(content: Any, dtype: Any, shape: Any, order: Any = "C", *_: Any) -> Any:
    return _filled(dtype, shape, order == "F", content)


def _encoded(text: Any, encoding: Any) -> Any:
    """Return bytes, as protocol 2 writes them."""
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        return NotImplemented
    return text.encode("latin-1")


def _bytes(*arguments: Any) -> Any:
    return NotImplemented if arguments else b""


def _bytearray(content: Any = b"", encoding: Any = None) -> Any:
    if isinstance(content, str):
        content = _encoded(content, encoding)
    return bytearray(content) if isinstance(content, (bytes, bytearray)) else NotImplemented


def _complex(real: Any, imaginary: Any = 0) -> Any:
    return complex(real, imaginary) if type(real) is type(imaginary) is float else NotImplemented


def _listed(items: Any, *_: Any) -> Any:
    return items


CALLS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": tensor,
    "torch._utils._rebuild_tensor_v2": tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_qtensor": _quantized,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch._utils._rebuild_device_tensor_from_cpu_tensor": _parameter,
    "torch._utils._rebuild_device_tensor_from_numpy": _parameter,
    "torch._tensor._rebuild_from_type_v2": _of_a_class,
    "torch.Size": _size,
    "_codecs.encode": _encoded,
    **{f"torch.jit._pickle.build_{k}list": _listed for k in ("int", "double", "bool", "tensor")},
    "torch.jit._pickle.restore_type_tag": _listed,
    **{f"{home}.bytes": _bytes for home in ("builtins", "__builtin__")},
    **{f"{home}.bytearray": _bytearray for home in ("builtins", "__builtin__")},
    **{f"{home}.complex": _complex for home in ("builtins", "__builtin__")},
    **{f"numpy.{core}.multiarray.scalar": _scalar for core in ("core", "_core")},
    **{f"numpy.{core}.numeric._frombuffer": _from_buffer for core in ("core", "_core")},
}  # fmt: skip
BUILDS: dict[str, Callable[[Placeholder, Any], Any]] = {
    f"numpy.{core}.multiarray._reconstruct": _array for core in ("core", "_core")
}
