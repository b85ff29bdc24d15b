"""Reading ONNX files: out of protocol buffers into plain Python and NumPy, every part checked.

Nothing of a file is believed: names must exist before they are used, sizes must agree with the
bytes that are there, and external data must lie in the model's own folder.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from .._base import checks

Tensor: TypeAlias = npt.NDArray[Any]

OPSETS = (7, 28)  # the oldest and newest versions of ONNX's operators that we know

# ONNX's numbers for element types: NumPy's dtype, and the field that holds the values of a tensor
# if `raw_data` does not.
_DTYPES: dict[int, tuple[str, str]] = {
    1: ("float32", "float_data"),
    2: ("uint8", "int32_data"),
    3: ("int8", "int32_data"),
    4: ("uint16", "int32_data"),
    5: ("int16", "int32_data"),
    6: ("int32", "int32_data"),
    7: ("int64", "int64_data"),
    9: ("bool", "int32_data"),
    10: ("float16", "int32_data"),
    11: ("float64", "double_data"),
    12: ("uint32", "uint64_data"),
    13: ("uint64", "uint64_data"),
    16: ("bfloat16", "int32_data"),
}


@dataclass(frozen=True)
class Node:
    """One operator at work; "" among inputs and outputs is one that was left out."""

    op: str
    domain: str
    name: str  # its own, or if it has none, or that of another one, that of its first output
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.op} {self.name!r}"


@dataclass(frozen=True)
class Value:
    """An input of the model: its shape has None where any size fits, and is None for any rank."""

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int | None, ...] | None


class Model(NamedTuple):
    """What a file says."""

    opset: int
    nodes: list[Node]
    inputs: list[Value]
    outputs: list[str]
    constants: dict[str, Tensor]
    metadata: dict[str, str]


def require() -> Any:
    """Return the onnx package."""
    try:
        import onnx
    except ImportError as error:
        raise ImportError(
            "ONNX models need the onnx package: pip install 'lstmcore[onnx]'"
        ) from error
    return onnx


def dtype_of(number: int, name: str) -> np.dtype[Any]:
    """Return the NumPy dtype of one of ONNX's element types."""
    if number in _DTYPES and number != 16:
        return np.dtype(_DTYPES[number][0])
    kind = require().TensorProto.DataType
    known = kind.Name(number) if number in kind.values() else number
    raise ValueError(f"{name} has the element type {known}, which is not supported")


def read(source: Any) -> Model:
    """Read a model from a path, or from an ``onnx.ModelProto``.

    Raises
    ------
    ValueError
        If it is no sound model, naming what is wrong.
    """
    onnx = require()
    if isinstance(source, onnx.ModelProto):
        return _Reader(None).model(source)
    try:
        path = Path(source)
    except TypeError:
        what = checks.describe(source)
        raise TypeError(f"model is {what}, expected a path or an onnx.ModelProto") from None
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(path.read_bytes())
    except Exception as error:
        if isinstance(error, OSError):
            raise
        raise ValueError(f"{path} is not an ONNX model, or only a part of one: {error}") from error
    return _Reader(path.parent).model(proto)


class _Reader:
    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._names: set[str] = set()  # of nodes
        self._files: dict[Path, int] = {}  # of external data, and how many bytes were not yet used

    def model(self, proto: Any) -> Model:
        if not proto.HasField("graph"):
            raise ValueError("the model has no graph, expected an ONNX model")
        opset = self._opset(proto)
        graph = proto.graph
        if graph.sparse_initializer:
            raise ValueError("the model has sparse_initializer, which is not supported")
        constants: dict[str, Tensor] = {}
        for tensor in graph.initializer:
            if not tensor.name or tensor.name in constants:
                raise ValueError(f"initializer {tensor.name!r} has no name, or that of another one")
            constants[tensor.name] = self.tensor(tensor, f"initializer {tensor.name!r}")
        inputs = [self._value(value) for value in graph.input if value.name not in constants]
        if len({value.name for value in inputs}) < len(inputs):
            raise ValueError("the model has two inputs of one name")
        nodes = [self._node(node) for node in graph.node]
        outputs = [value.name for value in graph.output]
        _check_order(nodes, {value.name for value in inputs} | set(constants), outputs)
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        return Model(opset, nodes, inputs, outputs, constants, metadata)

    def _opset(self, proto: Any) -> int:
        found = [entry.version for entry in proto.opset_import if entry.domain in ("", "ai.onnx")]
        if len(found) != 1:
            raise ValueError(f"the model names {len(found)} versions of ONNX's operators, not one")
        oldest, newest = OPSETS
        if not oldest <= found[0] <= newest:
            raise ValueError(f"the model is of opset {found[0]}, expected {oldest} to {newest}")
        return int(found[0])

    def _value(self, proto: Any) -> Value:
        name = f"input {proto.name!r}"
        if proto.type.WhichOneof("value") != "tensor_type":
            raise ValueError(f"{name} is not a tensor")
        tensor = proto.type.tensor_type
        dtype = dtype_of(tensor.elem_type, name)
        if not tensor.HasField("shape"):
            return Value(proto.name, dtype, None)
        shape = [
            d.dim_value if d.WhichOneof("value") == "dim_value" else None for d in tensor.shape.dim
        ]
        if any(size is not None and size < 0 for size in shape):
            raise ValueError(f"{name} has the shape {shape}, with a negative size")
        return Value(proto.name, dtype, tuple(shape))

    def _node(self, proto: Any) -> Node:
        outputs = tuple(proto.output)
        names = [name for name in (proto.name, *outputs) if name and name not in self._names]
        if not any(outputs) or not names:
            raise ValueError(f"{proto.op_type} {proto.name!r} has no outputs, or none of its own")
        self._names.add(names[0])
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        node = Node(proto.op_type, domain, names[0], tuple(proto.input), outputs, {})
        for attribute in proto.attribute:
            if not attribute.name or attribute.name in node.attributes:
                raise ValueError(f"{node} has two attributes named {attribute.name!r}")
            node.attributes[attribute.name] = self._attribute(attribute, node)
        return node

    def _attribute(self, proto: Any, node: Node) -> Any:
        name = f"{node}, attribute {proto.name!r},"
        onnx = require()
        kind = onnx.AttributeProto.AttributeType
        if proto.ref_attr_name:
            raise ValueError(f"{name} refers to one of a function, which is not supported")
        if proto.type in (kind.GRAPH, kind.GRAPHS):
            raise ValueError(f"{name} is a graph within the graph, which is not supported")
        if proto.type == kind.TENSOR:
            return self.tensor(proto.t, name)
        plain: dict[Any, Callable[[], Any]] = {
            kind.FLOAT: lambda: _decimal(proto.f),
            kind.FLOATS: lambda: [_decimal(f) for f in proto.floats],
            kind.INT: lambda: proto.i,
            kind.INTS: lambda: list(proto.ints),
            kind.STRING: lambda: _text(proto.s, name),
            kind.STRINGS: lambda: [_text(s, name) for s in proto.strings],
        }
        if proto.type not in plain:
            raise ValueError(f"{name} is of type {proto.type}, which is not supported")
        return plain[proto.type]()

    def tensor(self, proto: Any, name: str) -> Tensor:
        """Return the array that a TensorProto holds; bfloat16 comes out as float32."""
        if proto.data_type not in _DTYPES:
            dtype_of(proto.data_type, name)
        kind, data = _DTYPES[proto.data_type]
        shape = tuple(proto.dims)
        if min(shape, default=0) < 0:
            raise ValueError(f"{name} has the shape {shape}, with a negative size")
        if proto.HasField("segment"):
            raise ValueError(f"{name} is a segment of a tensor, which is not supported")
        stored = np.dtype("uint16" if kind == "bfloat16" else kind).newbyteorder("<")
        count = math.prod(shape)
        if proto.data_location == proto.EXTERNAL:
            flat = self._external(proto, stored, count, name)
        elif proto.HasField("raw_data"):
            raw = proto.raw_data
            if len(raw) != count * stored.itemsize:
                raise ValueError(
                    f"{name} has {len(raw)} bytes of data, expected {count * stored.itemsize} for "
                    f"{kind} of shape {shape}"
                )
            flat = np.frombuffer(raw, stored)
        else:
            flat = _listed(getattr(proto, data), stored, count, kind, name)
        if kind == "bool" and flat.size and flat.view(np.uint8).max() > 1:
            raise ValueError(f"{name} has bools other than 0 and 1")
        if kind == "bfloat16":
            flat = (flat.astype(np.uint32) << 16).view(np.float32)
        try:
            return flat.reshape(shape).astype(flat.dtype.newbyteorder("="), copy=False)
        except ValueError as error:  # an empty one whose other sizes are too large for NumPy
            raise ValueError(f"{name} has the shape {shape}: {error}") from error

    def _external(self, proto: Any, dtype: np.dtype[Any], count: int, name: str) -> Tensor:
        """Return the flat values of a tensor whose data is in a file beside the model."""
        if self._folder is None:
            raise ValueError(
                f"{name} has its data in another file: pass the model's path, or load the data "
                "into it first"
            )
        entries = {entry.key: entry.value for entry in proto.external_data}
        path, size = self._locate(entries.get("location", ""), name)
        nbytes = count * dtype.itemsize
        try:
            offset = int(entries.get("offset", 0))
            length = int(entries.get("length", nbytes))
        except ValueError as error:
            raise ValueError(f"{name} has external data at {entries}: {error}") from error
        if length != nbytes or not 0 <= offset <= size - length:
            raise ValueError(
                f"{name} has {length} bytes at {offset} of {entries['location']!r}, which has "
                f"{size}; expected {nbytes} bytes within it"
            )
        # A small model may refer to the same large file often, so all of it is read once at most.
        left = self._files.setdefault(path, size) - nbytes
        if left < 0:
            raise ValueError(f"{name} overlaps other tensors in {entries['location']!r}")
        self._files[path] = left
        return np.fromfile(path, dtype, count, offset=offset)

    def _locate(self, location: str, name: str) -> tuple[Path, int]:
        assert self._folder is not None
        folder = self._folder.resolve()
        try:
            path = (folder / location).resolve()
            inside = path.is_relative_to(folder) and path.is_file()
        except (ValueError, OSError, RuntimeError):  # a null byte, too long, links in a circle
            inside = False
        if not inside or Path(location).is_absolute():
            raise ValueError(
                f"{name} has its data in {location!r}, expected a file in the model's folder"
            )
        return path, os.path.getsize(path)


def _listed(values: Any, dtype: np.dtype[Any], count: int, kind: str, name: str) -> Tensor:
    """Return the flat values of a tensor that lists them one by one."""
    if len(values) != count:
        raise ValueError(f"{name} has {len(values)} values, expected {count}")
    if dtype.kind == "f" and dtype.itemsize > 2:
        return np.fromiter(values, dtype, count)
    wide = np.fromiter(values, np.uint64 if dtype == np.uint64 else np.int64, count)
    bits = np.dtype("<u2") if kind == "float16" else dtype
    narrow = wide.astype(bits)
    if not np.array_equal(narrow.astype(wide.dtype), wide):
        raise ValueError(f"{name} has values out of the range of {kind}")
    return narrow.view(dtype)


def _check_order(nodes: list[Node], known: set[str], outputs: list[str]) -> None:
    """Check that every value is made once, and before it is used: so there are no cycles."""
    for node in nodes:
        for name in node.inputs:
            if name and name not in known:
                raise ValueError(f"{node} uses {name!r}, which nothing before it makes")
        for name in filter(None, node.outputs):
            if name in known:
                raise ValueError(f"{node} makes {name!r}, which exists already")
            known.add(name)
    if not outputs:
        raise ValueError("the model has no outputs")
    for name in outputs:
        if name not in known:
            raise ValueError(f"output {name!r} of the model is made by no node")


def _decimal(value: float) -> float:
    """Return a float32 as its writer probably meant it: the shortest decimal that rounds to it."""
    return float(str(np.float32(value)))


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not text: {error}") from error
