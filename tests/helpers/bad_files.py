"""Files made to do harm: what loaders must refuse, without crash, hang or much memory."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import settings

# Each fuzzer tries so many inputs in a run of the tests, always the same ones; with this variable
# set, as many new ones as it says.
_ASKED = os.environ.get("LSTMCORE_FUZZ")
FUZZ = settings(
    max_examples=int(_ASKED or 600), derandomize=_ASKED is None, deadline=None, database=None
)


def load_or_refuse(load: Callable[[Path], Any], path: Path, content: bytes, allowance: int) -> None:
    """Write and load a file: refused by name if at all, within memory in proportion to it."""
    path.write_bytes(content)
    message = ""
    tracemalloc.start()
    try:
        load(path)
    except ValueError as error:
        message = str(error)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert not message or str(path) in message
    assert peak < allowance + 20 * len(content)


# Checkpoints of PyTorch ---------------------------------------------------------------------------


def op(name: str, argument: bytes = b"") -> bytes:
    """One instruction of a pickle."""
    return getattr(pickle, name) + argument


def text(value: str) -> bytes:
    encoded = value.encode()
    return op("BINUNICODE", struct.pack("<I", len(encoded)) + encoded)


def number(value: int) -> bytes:
    size = (value.bit_length() + 8) // 8
    return op("LONG1", bytes([size]) + value.to_bytes(size, "little", signed=True))


def name(value: str) -> bytes:
    return op("GLOBAL", value.replace(" ", "\n").encode() + b"\n")


def storage(
    kind: str = "torch FloatStorage", key: str = "0", count: int = 6, more: bytes = b""
) -> bytes:
    parts = [text("storage"), name(kind), text(key), text("cpu"), number(count), more]
    return op("MARK") + b"".join(parts) + op("TUPLE") + op("BINPERSID")


def numbers(values: Any) -> bytes:
    return op("MARK") + b"".join(map(number, values)) + op("TUPLE")


def tensor(
    size: Any = (2, 3), stride: Any = (3, 1), offset: int = 0, of: bytes | None = None
) -> bytes:
    parts = [of or storage(), number(offset), numbers(size), numbers(stride)]
    parts += [op("NEWFALSE"), name("collections OrderedDict"), op("EMPTY_TUPLE"), op("REDUCE")]
    return (
        name("torch._utils _rebuild_tensor_v2")
        + op("MARK")
        + b"".join(parts)
        + op("TUPLE")
        + op("REDUCE")
    )


def a_dict(value: bytes) -> bytes:
    return op("EMPTY_DICT") + text("a") + value + op("SETITEM")


def pickled(body: bytes) -> bytes:
    return op("PROTO", b"\x02") + body + op("STOP")


def checkpoint(
    body: bytes,
    records: dict[str, bytes] | None = None,
    compress: int = zipfile.ZIP_STORED,
    top: str = "archive",
) -> bytes:
    """A file as torch.save writes it, around a pickle of one's own."""
    file = io.BytesIO()
    if records is None:
        records = {"data/0": np.arange(6, dtype="<f4").tobytes()}
    with zipfile.ZipFile(file, "w", compress) as archive:
        archive.writestr(f"{top}/data.pkl", pickled(body))
        for path, content in records.items():
            archive.writestr(f"{top}/{path}", content)
    return file.getvalue()


def good_checkpoint() -> bytes:
    return checkpoint(a_dict(tensor()), {"byteorder": b"little", "data/0": bytes(24)})


def call(function: str, *arguments: bytes) -> bytes:
    return name(function) + op("MARK") + b"".join(arguments) + op("TUPLE") + op("REDUCE")


def rebuilt(*arguments: bytes) -> bytes:
    """A checkpoint of one tensor, rebuilt with these arguments behind storage and offset."""
    function = "torch._utils _rebuild_tensor_v2"
    return checkpoint(a_dict(call(function, storage(), number(0), *arguments)))


class Hostile:
    """What pickle runs when it reads it."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def shared_zip(count: int) -> bytes:
    """A directory whose entries all point at the same record."""
    whole = checkpoint(a_dict(tensor()), {"data/0": bytes(100_000)})
    end = whole.rindex(b"PK\5\6")
    _, _, _, _, _, length, start, _ = struct.unpack("<4s4H2LH", whole[end : end + 22])
    directory = whole[start : start + length]
    last = directory.rindex(b"PK\1\2")
    entry = directory[last:]
    entries = [directory[:last]]
    for i in range(count):
        path = f"archive/data/{i}".encode()
        head = bytearray(entry[:46])
        head[28:30] = struct.pack("<H", len(path))
        entries.append(bytes(head) + path)
    text = b"".join(entries)
    total = directory.count(b"PK\1\2") - 1 + count
    return (
        whole[:start]
        + text
        + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, total, total, len(text), start, 0)
    )


def patched(content: bytes, at: int, value: bytes) -> bytes:
    return content[:at] + value + content[at + len(value) :]


def with_directory(change: Callable[[list[int]], None]) -> bytes:
    """A good checkpoint whose end record has other numbers."""
    whole = good_checkpoint()
    end = whole.rindex(b"PK\5\6")
    values = list(struct.unpack("<4s4H2LH", whole[end : end + 22]))
    change(values)
    return whole[:end] + struct.pack("<4s4H2LH", *values)


def legacy(*parts: bytes) -> bytes:
    return b"".join(parts)


_MAGIC = pickled(number(0x1950A86A20F9469CFC6C))
_VERSION = pickled(number(1001))
_SYSTEM = pickled(op("EMPTY_DICT"))


def keys(*names: str) -> bytes:
    return pickled(op("EMPTY_LIST") + b"".join(text(n) + op("APPEND") for n in names))


def bad_checkpoints() -> dict[str, tuple[bytes, str]]:
    """File and what the error must say, by what is wrong."""
    deep = op("EMPTY_LIST") * 5000 + op("APPEND") * 4999
    bomb = checkpoint(a_dict(tensor()), {"data/0": bytes(50_000_000)}, zipfile.ZIP_DEFLATED)
    wide = {f"a{i}": 1 for i in range(3)}
    good = good_checkpoint()
    header = good.index(b"PK\3\4", 4)

    def tensor_of(**options: Any) -> bytes:
        return checkpoint(a_dict(tensor(**options)))

    return {
        "empty": (b"", "no checkpoint"),
        "a few bytes": (b"PK\3\4", "not whole"),
        "text": (b"hello, world\n" * 10, "no checkpoint"),
        "a pickle": (pickle.dumps(wide), "no checkpoint"),
        "no directory": (good[: good.index(b"PK\1\2")], "zip directory"),
        "cut in the directory": (good[:-30], "zip directory"),
        "cut before the end": (good[:-1], "not whole"),
        "no data.pkl": (checkpoint(op("NONE"), top="a/b"), "a zip archive"),
        "inst": (checkpoint(op("MARK") + op("INST", b"os\nsystem\n")), "INST"),
        "extension": (checkpoint(op("EXT1", b"\x01")), "EXT1"),
        "a long name": (checkpoint(name("x" * 5000)), "too long"),
        "calls a tensor": (checkpoint(tensor() + op("EMPTY_TUPLE") + op("REDUCE")), "no name"),
        "too few arguments": (checkpoint(call("torch._utils _rebuild_tensor_v2")), "0 arguments"),
        "many arguments": (
            checkpoint(call("torch Size", *[number(1)] * 1000)),
            "1000 arguments to torch.Size",
        ),
        "empty pickle": (checkpoint(b""), "one value"),
        "stack underflow": (checkpoint(op("APPEND")), "empty stack"),
        "two values": (checkpoint(op("NONE") * 2), "one value"),
        "no mark": (checkpoint(op("TUPLE")), "mark"),
        "a mark as a value": (checkpoint(op("MARK")), "one value"),
        "takes a mark": (checkpoint(op("MARK") + op("TUPLE1")), "mark"),
        "unknown memo": (checkpoint(op("BINGET", b"\x05")), "value 5"),
        "memo of nothing": (checkpoint(op("BINPUT", b"\x05")), "lacks a object"),
        "large memo index": (
            checkpoint(
                op("NONE")
                + op("LONG_BINPUT", b"\xff\xff\xff\x7f")
                + op("LONG_BINGET", b"\xfe\xff\xff\x7f")
            ),
            "value 2147483646",
        ),
        "long bytes announced": (
            checkpoint(op("BINBYTES8", struct.pack("<Q", 2**62)) + b"x"),
            "expected 4611686018427387904",
        ),
        "bytearray announced": (
            checkpoint(b"\x96" + struct.pack("<Q", 2**40) + b"x"),
            "expected 1099511627776",
        ),
        "long text announced": (
            checkpoint(op("BINUNICODE", struct.pack("<I", 2**32 - 1))),
            "expected",
        ),
        "negative long": (checkpoint(op("LONG4", struct.pack("<i", -1))), "negative"),
        "a huge int": (
            checkpoint(op("LONG4", struct.pack("<i", 10_000)) + b"\x01" * 10_000),
            "1024 bits",
        ),
        "invalid text": (checkpoint(op("BINUNICODE", struct.pack("<I", 2)) + b"\xff\xfe"), "utf-8"),
        "unknown instruction": (checkpoint(b"\xfa"), "unknown"),
        "deep lists": (checkpoint(deep), "nests deeper than 100"),
        "billion laughs": (checkpoint(_laughs(60)), "unfolds to more than"),
        "a cycle": (
            checkpoint(op("EMPTY_LIST") + op("BINPUT", b"\0") + op("BINGET", b"\0") + op("APPEND")),
            "nests deeper than 100",
        ),
        "doubled lists": (
            checkpoint(
                op("EMPTY_LIST")
                + b"".join(
                    op("BINPUT", bytes([i]))
                    + op("EMPTY_LIST")
                    + op("BINGET", bytes([i]))
                    + op("APPEND")
                    + op("BINGET", bytes([i]))
                    + op("APPEND")
                    for i in range(90)
                )
            ),
            "one value|unfolds to more than",
        ),
        "laughs as a key": (
            checkpoint(op("EMPTY_DICT") + _laughs(60) + op("NONE") + op("SETITEM")),
            "key of type tuple",
        ),
        "a list as a key": (
            checkpoint(op("EMPTY_DICT") + op("EMPTY_LIST") + op("NONE") + op("SETITEM")),
            "key of type list",
        ),
        "odd items": (
            checkpoint(op("EMPTY_DICT") + op("MARK") + op("NONE") + op("SETITEMS")),
            "without a value",
        ),
        "items of a list": (
            checkpoint(op("EMPTY_LIST") + op("NONE") * 2 + op("SETITEM")),
            "lacks a dict",
        ),
        "append to a dict": (
            checkpoint(op("EMPTY_DICT") + op("NONE") + op("APPEND")),
            "lacks a list",
        ),
        "refers to no storage": (checkpoint(text("x") + op("BINPERSID")), "no storage"),
        "quantised storage too large": (
            tensor_of(of=storage("torch QInt8Storage")),
            "24 bytes, expected 6 numbers of 1",
        ),
        "another checksum": (
            patched(good, good.index(bytes(24)), b"1"),
            "data/0' is not what was written",
        ),
        "keys of one hash": (
            checkpoint(
                op("EMPTY_DICT")
                + b"".join(
                    number(i * (2**61 - 1)) + op("NONE") + op("SETITEM") for i in range(1, 100_000)
                )
            ),
            "many keys of the same hash",
        ),
        "items of one hash": (
            checkpoint(
                op("EMPTY_SET")
                + op("MARK")
                + b"".join(number(i * (2**61 - 1)) for i in range(1, 100_000))
                + op("ADDITEMS")
            ),
            "many keys of the same hash",
        ),
        "an expanded conjugate": (
            rebuilt(
                numbers([2**20, 2**20]),
                numbers([0, 0]),
                op("NEWFALSE"),
                op("NONE"),
                op("EMPTY_DICT") + text("conj") + op("NEWTRUE") + op("SETITEM"),
            ),
            "conjugate",
        ),
        "quantised along no axis": (quantised(number(2)), "axis is not there"),
        "quantised by too few": (quantised(number(1)), "scale and zero_point do not fit"),
        "an array of another size": (
            checkpoint(numpy_array(numbers([2]), op("BINBYTES", struct.pack("<I", 4)) + bytes(4))),
            r"shape \(2,\) with 4 bytes",
        ),
        "no name that is called": (
            checkpoint(text("os.system") + op("EMPTY_TUPLE") + op("REDUCE")),
            "no name",
        ),
        "storage of no type": (
            tensor_of(
                of=op("MARK") + text("storage") * 4 + number(1) + op("TUPLE") + op("BINPERSID")
            ),
            "wrongly",
        ),
        "storage missing": (tensor_of(of=storage(key="1")), "lacks the storage '1'"),
        "storage path": (tensor_of(of=storage(key="../data.pkl")), "lacks the storage"),
        "storage too small": (tensor_of(of=storage(count=7)), "24 bytes, expected 7"),
        "storage too large": (tensor_of(of=storage(count=5)), "24 bytes, expected 5"),
        "storage size overflows": (tensor_of(of=storage(count=2**62 + 6)), "24 bytes"),
        "storage size negative": (tensor_of(of=storage(count=-6)), "24 bytes|wrongly"),
        "storage as two types": (
            checkpoint(
                op("EMPTY_LIST")
                + tensor()
                + op("APPEND")
                + tensor(of=storage("torch IntStorage"))
                + op("APPEND")
            ),
            "float32 and as int32",
        ),
        "negative offset": (tensor_of(offset=-1), "none below 0"),
        "negative stride": (tensor_of(stride=(3, -1)), "none below 0"),
        "negative size": (tensor_of(size=(-2, 3)), "none below 0"),
        "offset beyond": (tensor_of(offset=1), "beyond its storage"),
        "offset far beyond": (tensor_of(offset=2**70), "beyond its storage"),
        "stride beyond": (tensor_of(stride=(4, 1)), "beyond its storage"),
        "stride overflows": (tensor_of(stride=(2**64 - 3, 1)), "beyond its storage"),
        "size overflows": (tensor_of(size=(2**62, 4), stride=(1, 1)), "beyond its storage"),
        "size overflows without strides": (
            tensor_of(size=(2**62, 2**62), stride=(0, 0)),
            "too big|large|maximum",
        ),
        "sizes and no strides": (tensor_of(stride=()), "sizes and strides"),
        "too many dimensions": (tensor_of(size=(1,) * 99, stride=(1,) * 99), "too many"),
        "empty and huge": (
            tensor_of(size=(0, 2**62, 2**62), stride=(1, 1, 1)),
            "too big|large|maximum",
        ),
        "size as text": (
            rebuilt(
                op("MARK") + text("2") + op("TUPLE"),
                numbers([1]),
            ),
            "no numbers",
        ),
        "size of laughs": (
            rebuilt(
                _laughs(60),
                numbers([1, 1]),
            ),
            "no numbers|sizes",
        ),
        "untyped": (tensor_of(of=storage("torch.storage UntypedStorage", count=24)), "no type"),
        "zip bomb": (bomb, "compressed"),
        "entries that overlap": (shared_zip(50), "overlaps|two records"),
        "many entries": (
            with_directory(lambda v: v.__setitem__(slice(3, 5), [65535] * 2)),
            "damaged",
        ),
        "directory outside": (with_directory(lambda v: v.__setitem__(6, 2**32 - 2)), "outside"),
        "directory too long": (with_directory(lambda v: v.__setitem__(5, 2**31)), "outside"),
        "record elsewhere": (patched(good, header, b"XXXX"), "not where"),
        "byte order": (
            checkpoint(a_dict(tensor()), {"byteorder": b"middle", "data/0": bytes(24)}),
            "byte order",
        ),
        "legacy, cut": (legacy(_MAGIC, _VERSION), "pickle|opcode|STOP"),
        "legacy, version": (
            legacy(_MAGIC, pickled(number(7)), _SYSTEM, pickled(op("NONE")), keys()),
            "1001",
        ),
        "legacy, storage cut": (
            legacy(
                _MAGIC,
                _VERSION,
                _SYSTEM,
                pickled(tensor()),
                keys("0"),
                struct.pack("<Q", 6),
                bytes(8),
            ),
            "not whole",
        ),
        "legacy, storage huge": (
            legacy(
                _MAGIC, _VERSION, _SYSTEM, pickled(tensor()), keys("0"), struct.pack("<Q", 2**63)
            ),
            "not whole",
        ),
        "legacy, no storage": (
            legacy(_MAGIC, _VERSION, _SYSTEM, pickled(tensor()), keys()),
            "lacks the storage",
        ),
        "legacy, other storage": (
            legacy(_MAGIC, _VERSION, _SYSTEM, pickled(tensor()), keys("1"), struct.pack("<Q", 0)),
            "no tensor uses",
        ),
    }


def quantised(axis: bytes) -> bytes:
    """A quantised tensor of shape (2, 3) with two scales along an axis."""
    two = call(
        "torch._utils _rebuild_tensor_v2",
        storage("torch DoubleStorage", "1", 2),
        number(0),
        numbers([2]),
        numbers([1]),
        op("NEWFALSE"),
        op("NONE"),
    )
    parameters = op("MARK") + name("torch per_channel_affine") + two + two + axis + op("TUPLE")
    body = call(
        "torch._utils _rebuild_qtensor",
        storage("torch QInt8Storage"),
        number(0),
        numbers([2, 3]),
        numbers([3, 1]),
        parameters,
        op("NEWFALSE"),
        op("NONE"),
    )
    return checkpoint(a_dict(body), {"data/0": bytes(6), "data/1": bytes(16)})


def numpy_array(shape: bytes, content: bytes) -> bytes:
    """An array of float64 as NumPy pickles it."""
    dtype = call("numpy dtype", text("f8"), op("NEWFALSE"), op("NEWTRUE"))
    state = [number(1), shape, dtype, op("NEWFALSE"), content]
    return (
        call("numpy._core.multiarray _reconstruct", name("numpy ndarray"), numbers([0]), text("b"))
        + op("MARK")
        + b"".join(state)
        + op("TUPLE")
        + op("BUILD")
    )


def inert_checkpoints() -> dict[str, bytes]:
    """Files that name what must not be run: it becomes placeholders, beside the tensor in them."""

    def beside(body: bytes) -> bytes:
        return checkpoint(a_dict(tensor()) + text("b") + body + op("SETITEM"))

    made = op("EMPTY_TUPLE") + op("REDUCE")
    ordered = name("collections OrderedDict") + made
    flagged = op("EMPTY_DICT") + text("conj") + op("NEWTRUE") + op("SETITEM")
    cycle = op("BINPUT", b"\7") + op("EMPTY_DICT") + text("self") + op("BINGET", b"\7")
    old = op("EMPTY_DICT") + text("a") + tensor() + op("SETITEM") + text("b")
    old += call("os system", text("touch HACKED")) + op("SETITEM")
    return {
        "os.system": beside(call("posix system", text("touch HACKED"))),
        "eval": beside(call("builtins eval", text("open('HACKED', 'w')"))),
        "pickled": beside(pickle.dumps(Hostile(eval, "open('HACKED', 'w')"), 2)[2:-1]),
        "stack global": beside(text("os") + text("system") + op("STACK_GLOBAL") + made),
        "getattr": beside(
            op("MARK")
            + call("builtins getattr", name("os path"), text("join"))
            + op("POP_MARK")
            + call("builtins getattr", name("os path"), text("join"))
            + made
        ),
        "a class": beside(name("torch.nn.modules.rnn LSTM")),
        "newobj": beside(name("argparse Namespace") + op("EMPTY_TUPLE") + op("NEWOBJ")),
        "newobj_ex": beside(
            name("argparse Namespace") + op("EMPTY_TUPLE") + op("EMPTY_DICT") + op("NEWOBJ_EX")
        ),
        "build of a name": beside(name("os environ") + op("EMPTY_DICT") + op("BUILD")),
        "entries of a name": beside(name("os environ") + text("PATH") + text("x") + op("SETITEM")),
        "elements of a name": beside(name("sys path") + text("x") + op("APPEND")),
        "laughs in a call": beside(name("x y") + _laughs(60) + op("REDUCE")),
        "a state that has itself": beside(
            name("x y") + op("EMPTY_TUPLE") + op("NEWOBJ") + cycle + op("SETITEM") + op("BUILD")
        ),
        "a state that is no dict": beside(ordered + op("EMPTY_LIST") + op("BUILD")),
        "an unknown storage": beside(storage("torch.cuda StrangeStorage")),
        "a tensor of an unknown storage": beside(tensor(of=storage("torch QUInt4x2Storage"))),
        "a tensor of an unknown type": beside(
            call(
                "torch._utils _rebuild_tensor_v3",
                storage("torch.storage UntypedStorage", "0", 24),
                *(numbers([n]) if n else number(0) for n in (0, 2, 1)),
                op("NEWFALSE"),
                op("NONE"),
                name("torch float4_e2m1fn_x2"),
            )
        ),
        "a lazy conjugate of real numbers": beside(
            tensor()[: -len(op("TUPLE") + op("REDUCE"))] + flagged + op("TUPLE") + op("REDUCE")
        ),
        "an array of objects": beside(
            call("numpy._core.multiarray scalar", call("numpy dtype", text("O8")), text("x"))
        ),
        "a module": beside(op("MARK") + text("module") + name("os system") + op("TUPLE") + b"Q"),
        "legacy": legacy(
            _MAGIC, _VERSION, _SYSTEM, pickled(old), keys("0"), struct.pack("<Q", 6), bytes(24)
        ),
    }


def _laughs(levels: int) -> bytes:
    """A tuple of two of the same tuple of two, and so on: 2**levels leaves."""
    body = op("EMPTY_TUPLE")
    for i in range(levels):
        body += op("BINPUT", bytes([i])) + op("BINGET", bytes([i])) + op("TUPLE2")
    return body


# Safetensors --------------------------------------------------------------------------------------


def safetensors(header: Any, data: bytes = b"", size: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if size is None else size) + encoded + data


def entry(start: int, end: int, shape: Any = (2,), dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def bad_safetensors() -> dict[str, bytes]:
    """Files by what is wrong with them."""
    one = {"a": entry(0, 8)}
    return {
        "empty": b"",
        "seven bytes": bytes(7),
        "length alone": struct.pack("<Q", 0),
        "header longer than the file": safetensors(one, bytes(8), 10**6),
        "header length overflows": safetensors(one, bytes(8), 2**64 - 1),
        "header of 100 MB announced": safetensors(one, bytes(8), 10**8),
        "no JSON": safetensors(b"hello"),
        "a list": safetensors([]),
        "no UTF-8": safetensors(b'{"\xff": 1}'),
        "deep": safetensors(b"[" * 200_000 + b"]" * 200_000),
        "deep inside": safetensors(b'{"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
        "cut": safetensors(one, bytes(4)),
        "trailing": safetensors(one, bytes(16)),
        "negative offset": safetensors({"a": entry(-8, 0)}, bytes(8)),
        "backwards": safetensors({"a": entry(8, 0)}, bytes(8)),
        "overlapping": safetensors({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)),
        "the same bytes": safetensors({"a": entry(0, 8), "b": entry(0, 8)}, bytes(8)),
        "a hole": safetensors({"a": entry(0, 8), "b": entry(16, 24)}, bytes(24)),
        "offset beyond": safetensors({"a": entry(0, 2**40)}, bytes(8)),
        "negative size": safetensors({"a": entry(0, 8, (-2,))}, bytes(8)),
        "wrong size": safetensors({"a": entry(0, 8, (3,))}, bytes(8)),
        "size overflows": safetensors({"a": entry(0, 8, (2**62, 4, 2))}, bytes(8)),
        "size overflows to 0": safetensors({"a": entry(0, 0, (2**62, 8))}),
        "empty and huge": safetensors({"a": entry(0, 0, (0, 2**62))}),
        "too many dimensions": safetensors({"a": entry(0, 8, [1] * 99 + [2])}, bytes(8)),
        "wrong dtype": safetensors({"a": entry(0, 8, dtype="X9")}, bytes(8)),
        "dtype that NumPy lacks": safetensors({"a": entry(0, 2, dtype="F8_E9M9")}, bytes(2)),
        "dtype of another size": safetensors({"a": entry(0, 8, dtype="F64")}, bytes(8)),
        "metadata of numbers": safetensors({"__metadata__": {"x": 1}, **one}, bytes(8)),
        "metadata twice": safetensors(
            b'{"__metadata__": {}, "__metadata__": {}, "a": '
            b'{"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
            bytes(8),
        ),
        "entries unknown": safetensors({"a": {**entry(0, 8), "code": "1"}}, bytes(8)),
    }


def described(model: Any, tensors: dict[str, Any], version: Any = 1) -> bytes:
    """A safetensors file with a description of a model."""
    text = model if isinstance(model, str) else json.dumps({"version": version, "model": model})
    header: dict[str, Any] = {"__metadata__": {"lstmcore.model": text}}
    data = b""
    names = {"float32": "F32", "float64": "F64", "float16": "F16", "int32": "I32"}
    for key, array in tensors.items():
        content = np.ascontiguousarray(array).tobytes()
        shape = np.shape(array)
        header[key] = entry(len(data), len(data) + len(content), shape, names[array.dtype.name])
        data += content
    return safetensors(header, data)


def bad_descriptions() -> dict[str, tuple[bytes, str]]:
    """Sound safetensors files that describe no model, or another one than they hold."""
    tiny = {"a": np.zeros(1, "float32")}
    linear = {"weight": np.zeros((2, 3), "float32"), "bias": np.zeros(2, "float32")}
    good = {"type": "Linear", "in_features": 3, "out_features": 2}
    nested: Any = good
    for _ in range(100):
        nested = {"type": "Sequential", "modules": [nested]}

    def lstm(**options: Any) -> dict[str, Any]:
        return {"type": "LSTM", "input_size": 3, "hidden_size": 4, **options}

    return {
        "no JSON": (described("hello", tiny), "damaged"),
        "deep JSON": (described("[" * 100_000, tiny), "damaged"),
        "long JSON": (described(" " * 2_000_000, tiny), "2000000 long"),
        "a number": (described("7", tiny), "version is unknown"),
        "version missing": (described(json.dumps({"model": good}), linear), "version is unknown"),
        "version 2": (described(good, linear, 2), "version is 2, expected 1"),
        "no model": (described(None, tiny), "no module"),
        "type missing": (described({}, tiny), "no module"),
        "type of a list": (described({"type": []}, tiny), "no module"),
        "type unknown": (described({"type": "Conv1d"}, tiny), "'Conv1d'"),
        "type of Python": (
            described({"type": "os.system", "command": "touch HACKED"}, tiny),
            "os.system",
        ),
        "type not public": (described({"type": "Module"}, tiny), "'Module'"),
        "function": (described({"type": "load", "path": "x"}, tiny), "'load'"),
        "option unknown": (described({**good, "code": "1"}, linear), "no keyword code="),
        "option missing": (described({"type": "Linear"}, linear), "missing"),
        "option of another type": (described({**good, "in_features": "3"}, linear), "in_features"),
        "option out of range": (described({**good, "in_features": 0}, linear), "in_features"),
        "dtype": (described({**good, "dtype": "O"}, linear), "dtype"),
        "huge Linear": (
            described({**good, "in_features": 10**9}, linear),
            "larger than its parameters",
        ),
        "huge LSTM": (described(lstm(hidden_size=10**7), tiny), "larger than|memory|GiB"),
        "large LSTM": (described(lstm(hidden_size=10**4), tiny), "larger than its parameters"),
        "many layers": (described(lstm(num_layers=10**6), tiny), "larger than|memory|GiB"),
        "number without end": (described(lstm(hidden_size=10**400), tiny), "memory|GiB|larger"),
        "huge Embedding": (
            described({"type": "Embedding", "num_embeddings": 10**9, "embedding_dim": 100}, tiny),
            "larger than its parameters",
        ),
        "many modules": (
            described({"type": "Sequential", "modules": [good] * 20_000}, linear),
            "larger than its parameters|long",
        ),
        "nested modules": (
            described(nested, {"0." * 100 + k: v for k, v in linear.items()}),
            "30 deep",
        ),
        "nested lists": (described({"type": "Sequential", "modules": [[[good]]]}, linear), "list"),
        "modules of strings": (
            described({"type": "Sequential", "modules": "abc"}, linear),
            "modules",
        ),
        "no modules": (described({"type": "Sequential", "modules": []}, tiny), "empty"),
        "self": (described({**good, "self": 1}, linear), "no keyword self="),
        "tensor missing": (
            described(good, {"weight": linear["weight"]}),
            "missing: bias|larger than",
        ),
        "tensor unexpected": (described(good, {**linear, "x": tiny["a"]}), "unexpected: x"),
        "tensor misshapen": (
            described(good, {**linear, "weight": np.zeros((3, 2), "float32")}),
            r"shape \(3, 2\)",
        ),
        "tensor of another dtype": (
            described(good, {k: v.astype("float64") for k, v in linear.items()}),
            "weight is float64, expected float32",
        ),
        "tensor of integers": (
            described(good, {k: v.astype("int32") for k, v in linear.items()}),
            "weight is int32",
        ),
    }
