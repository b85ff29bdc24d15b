"""Reading ONNX files: out of protocol buffers into plain Python and NumPy, every part checked.

Nothing of a file is believed: sizes must agree with the bytes that are there, and external data
must lie in the model's own folder. Calls of the file's own functions become the nodes of these.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from .._base import checks
from .._files.foreign import what_it_is
from ._model import Body, Lazy, Model, Node, Tensor, Value

OPSETS = (7, 28)  # the oldest and newest versions of ONNX's operators that we know
_DEPTH = 30  # of graphs in graphs, and of functions that call functions

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


def read(source: Any, inputs: bool = True) -> Model:
    """Read a model from a path, bytes, an open file, or an ``onnx.ModelProto``.

    Its nodes and constants are not looked at before somebody asks for them; its inputs are, unless
    they are left out.

    Raises
    ------
    ValueError
        If it is no model, naming what is wrong.
    """
    onnx = require()
    if isinstance(source, onnx.ModelProto):
        return _Reader(source, None).model(inputs)
    content, folder, name = _content(source)
    proto = onnx.ModelProto()
    try:
        proto.ParseFromString(content)
        broken: Exception | None = None
    except Exception as error:
        broken = error
    what = what_it_is(bytes(content[:512]))
    if what and "lc.from_onnx reads" not in what and not proto.HasField("graph"):
        raise ValueError(f"{name} is {what}; expected an ONNX model")
    if broken is not None:
        text = f"{name} is not an ONNX model, or only a part of one: {broken}"
        raise ValueError(text) from broken
    return _Reader(proto, folder).model(inputs)


def _content(source: Any) -> tuple[bytes, Path | None, str]:
    """Return the bytes of a model, the folder that it is in, and what messages call it."""
    if isinstance(source, (bytes, bytearray, memoryview)):
        return bytes(source), None, "model"
    if callable(getattr(source, "read", None)):
        content = source.read()
        if not isinstance(content, (bytes, bytearray, memoryview)):
            what = checks.describe(source)
            raise TypeError(f"model is {what}, opened for text, expected a file opened for bytes")
        return bytes(content), None, "model"
    try:
        path = Path(source)
    except TypeError:
        what = checks.describe(source)
        raise TypeError(
            f"model is {what}, expected a path, bytes, an open file or an onnx.ModelProto"
        ) from None
    return path.read_bytes(), path.parent, str(path)


class _Scope(NamedTuple):
    """Where nodes stand: what their names and attributes refer to."""

    opset: int
    prefix: str = ""  # of all names
    names: Mapping[str, str] = {}  # those of a function's inputs and outputs, as its caller has it
    given: Mapping[str, Callable[[], Any]] = {}  # a function's attributes

    def name(self, name: str) -> str:
        if not isinstance(name, str):  # protobuf gives the bytes of what is no UTF-8
            raise ValueError(f"the name {name!r} is no text in UTF-8")
        return self.names.get(name, self.prefix + name) if name else ""


class _Attributes(Lazy[Any]):
    """The attributes of a node; `graphs` are the names of those that are graphs."""

    def __init__(self, makers: Mapping[str, Callable[[], Any]], graphs: list[str]) -> None:
        super().__init__(makers)
        self.graphs = graphs


class _Reader:
    def __init__(self, proto: Any, folder: Path | None) -> None:
        self._proto, self._folder = proto, folder
        self._named: Counter[str] = Counter()  # names of nodes, and how many were made of each
        self._calls: Counter[str] = Counter()  # the same of calls of functions
        self._files: dict[Path, int] = {}  # of external data, and how many bytes were not yet used
        self._functions = {(f.domain, f.name): f for f in proto.functions}
        self._count = 0  # of nodes, and how many there may be
        written = len(proto.graph.node) + sum(len(f.node) for f in proto.functions)
        self._most = 64 * written + 1000
        self._kinds = require().AttributeProto.AttributeType

    def model(self, inputs: bool) -> Model:
        proto = self._proto
        if not proto.HasField("graph"):
            raise ValueError("the model has no graph, expected an ONNX model")
        scope = _Scope(_opset(proto.opset_import))
        graph = proto.graph
        constants = self._constants(graph, scope)
        free = [value for value in graph.input if value.name not in constants]
        given = [_value(value) for value in free] if inputs else []
        if len({value.name for value in given}) < len(given):
            raise ValueError("the model has two inputs of one name")
        nodes = self._nodes(graph.node, scope, 0)
        outputs = [value.name for value in graph.output]
        metadata = {entry.key: entry.value for entry in proto.metadata_props}
        return Model(scope.opset, nodes, given, outputs, constants, metadata, proto.producer_name)

    def _constants(self, graph: Any, scope: _Scope) -> Lazy[Tensor]:
        makers: dict[str, Callable[[], Tensor]] = {}
        for tensor in graph.initializer:
            name = scope.name(tensor.name)
            what = f"initializer {name!r}"
            if not name or name in makers:
                makers[name] = partial(_refuse, f"{what} has no name, or that of another one")
            else:
                makers[name] = partial(self.tensor, tensor, what)
        for sparse in graph.sparse_initializer:
            name = scope.name(sparse.values.name)
            message = f"initializer {name!r} is a sparse_initializer, which is not supported"
            makers[name] = partial(_refuse, message)
        return Lazy(makers)

    def _body(self, graph: Any, scope: _Scope, depth: int) -> Body:
        if depth > _DEPTH:
            raise ValueError(f"it has graphs within graphs, more than {_DEPTH} deep")
        inputs = tuple(scope.name(value.name) for value in graph.input)
        outputs = tuple(scope.name(value.name) for value in graph.output)
        nodes = self._nodes(graph.node, scope, depth)
        return Body(nodes, inputs, outputs, self._constants(graph, scope))

    def _nodes(self, protos: Iterable[Any], scope: _Scope, depth: int) -> list[Node]:
        nodes: list[Node] = []
        for proto in protos:
            self._count += 1
            if self._count > self._most:
                raise ValueError("the functions of the model make too many nodes of few")
            function = self._functions.get((proto.domain, proto.op_type))
            if function is None:
                nodes.append(self._node(proto, scope, depth))
            else:
                nodes += self._call(proto, function, scope, depth)
        return nodes

    def _call(self, proto: Any, function: Any, scope: _Scope, depth: int) -> list[Node]:
        """Return the nodes of a function, with the names and attributes of its caller."""
        name = self._name_of(proto, scope, self._calls)
        if depth > _DEPTH:
            raise ValueError(f"function {name!r} calls functions more than {_DEPTH} deep")
        if len(proto.input) > len(function.input) or len(proto.output) > len(function.output):
            raise ValueError(f"{proto.op_type} {name!r} has more inputs or outputs than it takes")
        names = dict.fromkeys(function.input, "")
        names |= dict(zip(function.input, map(scope.name, proto.input), strict=False))
        made = zip(function.output, map(scope.name, proto.output), strict=False)
        names |= {inner: outer for inner, outer in made if outer and inner not in names}
        given = {a.name: self._maker(a, name, scope, depth) for a in proto.attribute}
        inside = _Scope(scope.opset, f"{name}/", names)
        if any(entry.domain in ("", "ai.onnx") for entry in function.opset_import):
            inside = inside._replace(opset=_opset(function.opset_import))
        defaults = {a.name: self._maker(a, name, inside, depth) for a in function.attribute_proto}
        inside = inside._replace(given={**defaults, **given})
        nodes = self._nodes(function.node, inside, depth + 1)
        straight = [n for n in function.output if n in function.input and names[n]]
        for inner, outer in zip(function.output, map(scope.name, proto.output), strict=False):
            if inner in straight and outer:  # an input that is an output as well
                nodes.append(Node("Identity", "", outer, (names[inner],), (outer,), {}, 14))
        return nodes

    @staticmethod
    def _name_of(proto: Any, scope: _Scope, taken: Counter[str]) -> str:
        """Return a name for a node that none has of those, in whatever graph it is; take it."""
        for text in (proto.name, proto.op_type, proto.domain):
            if not isinstance(text, str):
                raise ValueError(f"the name {text!r} of a node is no text in UTF-8")
        own = scope.prefix + proto.name if proto.name else ""
        names = [name for name in (own, *map(scope.name, proto.output)) if name] or [proto.op_type]
        name = next((name for name in names if name not in taken), names[0])
        while name in taken:
            taken[names[0]] += 1
            name = f"{names[0]}_{taken[names[0]]}"
        taken[name] = 1
        return name

    def _node(self, proto: Any, scope: _Scope, depth: int) -> Node:
        outputs = tuple(map(scope.name, proto.output))
        name = self._name_of(proto, scope, self._named)
        domain = "" if proto.domain == "ai.onnx" else proto.domain
        inputs = tuple(map(scope.name, proto.input))
        makers: dict[str, Callable[[], Any]] = {}
        graphs = []
        what = f"{proto.op_type} {name!r}"
        for attribute in proto.attribute:
            key = attribute.name
            if attribute.ref_attr_name and attribute.ref_attr_name not in scope.given:
                continue  # one that the caller of the function has left out
            if not key or key in makers:
                makers[key] = partial(_refuse, f"{what} has two attributes named {key!r}")
                continue
            makers[key] = self._maker(attribute, what, scope, depth)
            if attribute.type in (self._kinds.GRAPH, self._kinds.GRAPHS):
                graphs.append(key)
        attributes = _Attributes(makers, graphs)
        return Node(proto.op_type, domain, name, inputs, outputs, attributes, scope.opset)

    def _maker(self, proto: Any, node: str, scope: _Scope, depth: int) -> Callable[[], Any]:
        if proto.ref_attr_name:
            return scope.given.get(
                proto.ref_attr_name,
                lambda: _refuse(f"{node} refers to {proto.ref_attr_name!r}, which is not there"),
            )
        name = f"{node}, attribute {proto.name!r},"
        if proto.type == self._kinds.GRAPH:
            body = self._body(proto.g, scope, depth + 1)
            return lambda: body
        return lambda: self._attribute(proto, name)

    def _attribute(self, proto: Any, name: str) -> Any:
        kind = self._kinds
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
        found = path.stat()
        if found.st_nlink > 1:  # it lies in another folder, too: nobody can tell in which
            raise ValueError(
                f"{name} has its data in {location!r}, a file of {found.st_nlink} hard links, "
                "expected one that is in the model's folder alone: copy it there"
            )
        return path, found.st_size


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


def _opset(imports: Iterable[Any]) -> int:
    found = {entry.version for entry in imports if entry.domain in ("", "ai.onnx")}
    if len(found) != 1:
        raise ValueError(f"the model names {len(found)} versions of ONNX's operators, not one")
    (version,), (oldest, newest) = found, OPSETS
    if not oldest <= version <= newest:
        raise ValueError(f"the model is of opset {version}, expected {oldest} to {newest}")
    return int(version)


def _value(proto: Any) -> Value:
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


def _refuse(message: str) -> Any:
    raise ValueError(message)


def _decimal(value: float) -> float:
    """Return a float32 as its writer probably meant it: the shortest decimal that rounds to it."""
    return float(str(np.float32(value)))


def _text(value: bytes, name: str) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"{name} is not text: {error}") from error
