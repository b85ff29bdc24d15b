"""Files of the original tools, changed where their structure is, and read: refused by name or read.

    python tests/fuzz/mutate_files.py 30000

Changes go to what parsers read: members of archives, instructions of pickles, values of JSON,
fields of protocol buffers, numbers of HDF5; checksums are renewed, so that they do not stop a file
at the door. The argument is how many files are made; `--seconds` ends a run sooner, `--first` is
the number of the first, `--only` names a reader. A file fails that raises anything but ValueError,
OSError or MemoryError, takes more than twenty seconds, or more memory than a multiple of its size:
it is written to the working folder.
"""

from __future__ import annotations

import argparse
import copy
import io
import json
import pickletools
import random
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

TESTS = Path(__file__).parent.parent
sys.path.insert(0, str(TESTS))

import lstmcore as lc  # noqa: E402
from helpers import bad_files  # noqa: E402
from lstmcore._files import tensor_file  # noqa: E402
from lstmcore._files.source import opened  # noqa: E402

DATA = TESTS / "data"
NUMBERS = (
    0, 1, -1, 2, 7, 127, 128, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**63 - 1, -(2**63),
)  # fmt: skip
VALUES: tuple[Any, ...] = (None, True, "", "x", [], {}, [[]], 0.5, 1e308, "LSTM", *NUMBERS)

Dice = random.Random


# JSON ---------------------------------------------------------------------------------------------


def places(value: Any, found: list[tuple[Any, Any]] | None = None) -> list[tuple[Any, Any]]:
    """Every value within a structure: what holds it, and its key there."""
    found = [] if found is None else found
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    for key, part in list(parts):
        found.append((value, key))
        if isinstance(part, (dict, list)):
            places(part, found)
    return found


def change_json(text: bytes, dice: Dice) -> bytes:
    content = json.loads(text)
    if not isinstance(content, (dict, list)):
        return json.dumps(dice.choice(VALUES)).encode()
    for _ in range(dice.randint(1, 3)):
        found = places(content)
        if not found:
            break
        holder, key = dice.choice(found)
        how = dice.randrange(5)
        if how == 0:
            del holder[key]
        elif how == 1 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        elif how == 2:
            other, there = dice.choice(found)
            if there in other if isinstance(other, dict) else there < len(other):
                holder[key] = copy.deepcopy(other[there])
        elif how == 3 and isinstance(holder[key], int):
            holder[key] += dice.choice((-1, 1, 2, -holder[key] * 2, 10**6))
        else:
            holder[key] = copy.deepcopy(dice.choice(VALUES))  # later changes may be within it
    return json.dumps(content).encode()


# Bytes --------------------------------------------------------------------------------------------


def change_bytes(content: bytes, dice: Dice) -> bytes:
    data = bytearray(content)
    for _ in range(dice.randint(1, 3)):
        at = dice.randrange(len(data) + 1)
        how = dice.randrange(4)
        if how == 0:
            data[at : at + 1] = bytes([dice.randrange(256)])
        elif how == 1:
            size = dice.choice((1, 2, 4, 8))
            number = dice.choice(NUMBERS) % 256**size
            data[at : at + size] = number.to_bytes(size, dice.choice(("little", "big")))
        elif how == 2:
            del data[at : at + dice.choice((1, 4, 16, 1000))]
        else:
            other = dice.randrange(len(data) + 1)
            data[at:at] = data[other : other + dice.choice((1, 8, 64))]
    return bytes(data)


def change_fields(content: bytes, dice: Dice) -> bytes:
    """Change a number of HDF5 in its place: most are aligned to 4 or 8 bytes."""
    data = bytearray(content)
    for _ in range(dice.randint(1, 4)):
        size = dice.choice((1, 2, 4, 8))
        end = min(len(data), dice.choice((512, 8192, len(data))))  # most structure is in front
        at = dice.randrange(max(1, end - size)) // size * size
        number = int.from_bytes(data[at : at + size], "little")
        number = dice.choice((number + 1, number - 1, number * 2, dice.choice(NUMBERS)))
        data[at : at + size] = (number % 256**size).to_bytes(size, "little")
    return bytes(data)


# Archives -----------------------------------------------------------------------------------------


def change_pickle(content: bytes, dice: Dice) -> bytes:
    """Leave out, repeat, exchange or change whole instructions."""
    try:
        starts = [at for _, _, at in pickletools.genops(content) if at is not None]
    except ValueError:
        return change_bytes(content, dice)
    ops = [content[a:b] for a, b in zip(starts, [*starts[1:], len(content)], strict=True)]
    for _ in range(dice.randint(1, 3)):
        at, other = dice.randrange(len(ops)), dice.randrange(len(ops))
        how = dice.randrange(5)
        if how == 0 and len(ops) > 1:
            del ops[at]
        elif how == 1:
            ops.insert(at, ops[other])
        elif how == 2:
            ops[at], ops[other] = ops[other], ops[at]
        elif ops[at][:1] in b"KMJ\x8a" and len(ops[at]) > 1:
            ops[at] = bad_files.number(dice.choice(NUMBERS))
        else:
            ops[at] = change_bytes(ops[at], dice) or b"N"
    return b"".join(ops)


def change_zip(content: bytes, dice: Dice) -> bytes:
    """Change members, and write the archive anew: its checksums fit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = [(info.filename, archive.read(info)) for info in archive.infolist()]
    likely = [i for i, (name, _) in enumerate(members) if name.endswith(("pkl", "json", "h5"))]
    at = dice.choice(likely) if likely and dice.random() < 0.8 else dice.randrange(len(members))
    name, inside = members[at]
    how = dice.randrange(12)
    if how == 0:
        del members[at]
    elif how == 1:
        members[at] = (change_bytes(name.encode(), dice).decode("latin-1") or "x", inside)
    elif how == 2:
        members.append((name, change_inside(name, inside, dice)))
    else:
        members[at] = (name, change_inside(name, inside, dice))
    file = io.BytesIO()
    with (
        warnings.catch_warnings(),
        zipfile.ZipFile(file, "w", dice.choice((0, 0, 0, 8))) as archive,
    ):
        warnings.filterwarnings("ignore", "Duplicate name")  # as damaged archives have
        for name, inside in members:
            archive.writestr(zipfile.ZipInfo(name.replace("\0", "0")), inside)
    return file.getvalue()


def change_inside(name: str, content: bytes, dice: Dice) -> bytes:
    if name.endswith("pkl"):
        return change_pickle(content, dice)
    if name.endswith("json"):
        return change_json(content, dice)
    return change_fields(content, dice) if name.endswith("h5") else change_bytes(content, dice)


# safetensors --------------------------------------------------------------------------------------


def change_safetensors(content: bytes, dice: Dice) -> bytes:
    size = int.from_bytes(content[:8], "little")
    header, data = json.loads(content[8 : 8 + size]), content[8 + size :]
    notes = header.get("__metadata__", {})
    for name, text in notes.items():
        notes[name] = text.rpartition("\ncrc32:")[0] or text
    described = [name for name, text in notes.items() if text[:1] == "{"]
    if described and dice.random() < 0.7:
        name = dice.choice(described)
        notes[name] = change_json(notes[name].encode(), dice).decode()
    elif dice.random() < 0.8:
        header = json.loads(change_json(json.dumps(header).encode(), dice))
    else:
        data = change_bytes(data, dice)
    return _sealed(header, data)


def _sealed(header: Any, data: bytes) -> bytes:
    """Return the file with the checksum that fits, or without where it cannot be read."""
    content = bad_files.safetensors(header, data)
    try:
        with opened(content) as source:
            arrays, notes = tensor_file.view(source)
    except ValueError:
        return content
    for name in list(notes)[-1:]:
        crc = tensor_file._checksum(arrays, notes)
        header["__metadata__"][name] += f"\ncrc32:{crc}"
    return bad_files.safetensors(header, data)


# Protocol buffers ---------------------------------------------------------------------------------


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise IndexError


def _encoded(value: int) -> bytes:
    value %= 2**64
    made = bytearray()
    while value > 127:
        made.append(value & 127 | 128)
        value >>= 7
    return bytes([*made, value])


def _fields(content: bytes) -> list[tuple[int, Any]] | None:
    """The fields of a message: (tag, value); None if it is none."""
    found: list[tuple[int, Any]] = []
    at = 0
    try:
        while at < len(content):
            tag, at = _varint(content, at)
            kind = tag & 7
            if kind == 0:
                value: Any
                value, at = _varint(content, at)
            elif kind == 2:
                size, at = _varint(content, at)
                value, at = content[at : at + size], at + size
            elif kind in (1, 5):
                size = 8 if kind == 1 else 4
                value, at = content[at : at + size], at + size
            else:
                return None
            if at > len(content) or not tag >> 3:
                return None
            found.append((tag, value))
    except IndexError:
        return None
    return found


def change_message(content: bytes, dice: Dice) -> bytes:
    """Change a field somewhere in a message; the lengths of what is around it follow."""
    fields = _fields(content)
    if not fields or dice.random() < 0.03:
        return change_bytes(content, dice)
    at = dice.randrange(len(fields))
    tag, value = fields[at]
    how = dice.random()
    if isinstance(value, bytes) and tag & 7 == 2 and how < 0.75:
        fields[at] = (tag, change_message(value, dice))
    elif how < 0.8:
        del fields[at]
    elif how < 0.85:
        fields.insert(at, dice.choice(fields))
    elif isinstance(value, int):
        fields[at] = (tag, dice.choice((value + 1, value - 1, value ^ 1, *NUMBERS)))
    else:
        fields[at] = (tag, change_bytes(value, dice)[: len(value) if tag & 7 != 2 else None])
    return b"".join(
        _encoded(tag)
        + (_encoded(v) if isinstance(v, int) else v if tag & 7 != 2 else _encoded(len(v)) + v)
        for tag, v in fields
    )


# Readers ------------------------------------------------------------------------------------------


class Reader(NamedTuple):
    """What is read, how it is changed, and how often next to others."""

    read: Callable[[bytes], object]
    change: Callable[[bytes, Dice], bytes]
    seeds: list[bytes]


def _saved() -> list[bytes]:
    """What `save` writes: models of several kinds."""
    x = lc.Input(2)
    y, h = lc.GRU(2, 3)(x)
    models = [
        lc.Sequential(lc.Embedding(5, 2), lc.LSTM(2, 3, peephole=True), lc.LayerNorm(3)),
        lc.Model(x, [lc.Linear(3, 2)(y), h[-1]]),
        lc.quantize(
            lc.Sequential(lc.Embedding(5, 2), lc.LSTM(2, 3), lc.LastStep(), lc.Linear(3, 2))
        ),
    ]
    contents = []
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            lc.save(model, Path(folder) / "model.safetensors")
            contents.append((Path(folder) / "model.safetensors").read_bytes())
    return contents


def _onnx() -> list[bytes]:
    x = lc.Input(2)
    models: list[lc.Module] = [
        lc.Sequential(layer, lc.LastStep())
        for layer in (lc.LSTM(2, 3, bidirectional=True), lc.GRU(2, 3, 2), lc.RNN(2, 3))
    ]
    models += [
        lc.quantize(lc.Sequential(lc.Embedding(5, 2), lc.LSTM(2, 3), lc.Linear(3, 2))),
        lc.Model(x, lc.Linear(2, 3)(x) + lc.GRU(2, 3)(x)[0]),
    ]
    contents = []
    for model in models:
        proto = lc.to_onnx(model, lengths=True)
        contents.append(proto.SerializeToString())
        del proto.metadata_props[:]  # by which it would be known for one of ours
        contents.append(proto.SerializeToString())
    return contents


def _torch() -> list[bytes]:
    """What torch.save wrote, shortened: the numbers of large tensors are not what is read."""
    seeds = [bad_files.good_checkpoint()]
    try:
        import torch
    except ModuleNotFoundError:
        return seeds
    for module in (torch.nn.GRU(2, 3), torch.nn.Sequential(torch.nn.Linear(2, 3))):
        for old in (False, True):
            file = io.BytesIO()
            torch.save(
                {"model": module.state_dict(), "epoch": 3, "names": ["a", None, 1.5]},
                file,
                _use_new_zipfile_serialization=not old,
            )
            seeds.append(file.getvalue())
    return seeds


def change_torch(content: bytes, dice: Dice) -> bytes:
    return (change_zip if content[:2] == b"PK" else change_pickle)(content, dice)


def _texts() -> list[bytes]:
    dense = {"type": "dense", "activation": "tanh", "shape": [None, None, 1],
             "weights": [[[0.5], [2.0]], [0.25]]}  # fmt: skip
    lstm = {"type": "lstm", "activation": "tanh", "shape": [None, 1],
            "weights": [[[1.0] * 4], [[1.0] * 4], [0.0] * 4]}  # fmt: skip
    nam = {"version": "0.5.4", "architecture": "LSTM", "weights": [0.1] * 39,
           "config": {"input_size": 1, "hidden_size": 2, "num_layers": 1}}  # fmt: skip
    return [json.dumps(one).encode() for one in ({"in_shape": [2], "layers": [dense, lstm]}, nam)]


def readers() -> dict[str, Reader]:
    data = {
        path.name: path.read_bytes() for path in DATA.iterdir() if path.suffix in (".h5", ".keras")
    }
    small = [
        content for name, content in data.items() if name.endswith("h5") and len(content) < 10**5
    ]
    config, weights = (DATA / "keras2_ids.json").read_bytes(), data["keras2_ids_weights.h5"]
    return {
        "torch": Reader(lc.load_torch, change_torch, _torch()),
        "lstmcore": Reader(lc.load, change_safetensors, _saved()),
        "safetensors": Reader(lc.load_torch, change_safetensors, _saved()),
        "keras": Reader(lc.from_keras, change_zip, [data["keras2_ids.keras"]]),
        "hdf5": Reader(lc.from_keras, change_fields, small),
        "config": Reader(
            lambda text: lc.from_keras(weights, config=text.decode()), change_json, [config]
        ),
        "onnx": Reader(lc.from_onnx, change_message, _onnx()),
        "rtneural": Reader(lc.from_rtneural, change_json, _texts()[:1]),
        "nam": Reader(lc.from_nam, change_json, _texts()[1:]),
    }  # fmt: skip


def fault_of(reader: Reader, content: bytes) -> str:
    """What is wrong with how a file is read; "" if nothing is."""
    before, _ = tracemalloc.get_traced_memory()
    tracemalloc.reset_peak()
    start = time.process_time()
    try:
        reader.read(content)
    except (ValueError, OSError, MemoryError):
        pass
    except BaseException:
        return traceback.format_exc()
    seconds = time.process_time() - start
    nbytes = tracemalloc.get_traced_memory()[1] - before
    if seconds > 20:
        return f"it took {seconds:.0f} s"
    if nbytes > 20_000_000 + 50 * len(content):
        return f"it took {nbytes} bytes for {len(content)}"
    return ""


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("count", type=int, nargs="?", default=30_000)
    arguments.add_argument("--seconds", type=float, default=float("inf"))
    arguments.add_argument("--first", type=int, default=0)
    arguments.add_argument("--only", default="")
    given = arguments.parse_args()
    table = {name: one for name, one in readers().items() if not given.only or name == given.only}
    names = list(table)
    end = time.monotonic() + given.seconds
    tried = dict.fromkeys(names, 0)
    faults: dict[str, str] = {}
    tracemalloc.start()
    for number in range(given.first, given.first + given.count):
        if time.monotonic() > end:
            break
        dice = random.Random(number)
        name = names[number % len(names)]
        content = table[name].change(dice.choice(table[name].seeds), dice)
        tried[name] += 1
        fault = fault_of(table[name], content)
        kind = "\n".join(fault.strip().splitlines()[-3:])
        if fault and kind not in faults:
            faults[kind] = fault
            Path(f"fault-{name}-{number}").write_bytes(content)
            print(f"{name} {number}: {fault}", flush=True)
    print(f"{sum(tried.values())} files: {tried}; {len(faults)} faults")
    sys.exit(bool(faults))


if __name__ == "__main__":
    main()
