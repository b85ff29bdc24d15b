"""Checkpoints of PyTorch, read without PyTorch."""

from __future__ import annotations

import io
import json
import os
import re
from typing import Any, BinaryIO

from .._files import tensor_file
from .._files.foreign import what_it_is
from .._files.source import Source, opened
from ._archive import Archive
from ._folding import fold_norms
from ._tensors import BUILDS, CALLS, Storage, Storages, tensor
from ._unpickling import Placeholder, unpickle

__all__ = ["load_torch"]

# A file that torch.save wrote before version 1.6 begins with a pickle of this number.
_LEGACY = 0x1950A86A20F9469CFC6C
_MOST_INDEX = 2**26  # bytes of a text that says which file holds which tensor


def load_torch(path: str | os.PathLike[str] | bytes | BinaryIO, *, fold: bool = False) -> Any:
    """Read what PyTorch wrote, without PyTorch and without running anything in the file.

    It takes the ``.pt``, ``.pth`` and ``.bin`` files of ``torch.save``, those from before PyTorch
    1.6 too; the tensors of TorchScript (``torch.jit.save``) and of ``.pt2`` files
    (``torch.export.save``); safetensors files; and the ``.index.json`` of weights that are spread
    over several files.

    Parameters
    ----------
    path : path, bytes-like, or file opened in binary mode
        The file's path, or what is in it. An index needs its path: the files lie beside it.
    fold : bool, default False
        Whether what ``weight_norm`` and ``spectral_norm`` split becomes one weight again; see
        `lstmcore.torch.fold_norms`.

    Returns
    -------
    dict, or what else was saved
        With arrays for tensors: of the same type, but float32 for bfloat16 and float8; those that
        share a storage share memory. A quantised tensor is a `lstmcore.torch.QuantizedArray`. What
        is neither plain nor a tensor is a `lstmcore.torch.Placeholder`, which says what it was. Of
        a file that holds a whole module, its state dict.

    Raises
    ------
    ValueError
        If the file is damaged, or of another kind, which is named.
    TypeError
        If `path` is none of these.
    OSError
        If the file, or one that an index names, cannot be read.

    Notes
    -----
    Nothing is decompressed, checksums are compared, and every size is compared with the file's
    before memory is taken. What ``torch.load(weights_only=True)`` takes is read, and all else that
    a pickle may hold.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5)
    >>> weights = lc.load_torch("model.pt")  # doctest: +SKIP
    >>> lstm.load_state_dict(weights, prefix="encoder.")  # doctest: +SKIP
    """
    with opened(path) as source:
        value = _read(source)
    return fold_norms(value) if fold else value


def _read(source: Source) -> Any:
    start = source.file.read(512)
    source.file.seek(0)
    try:
        if start.startswith(b"PK\3\4"):
            value = _load_zip(source.file, source.size)
        elif start[:1] == b"\x80" and _LEGACY.to_bytes(10, "little") in start[:32]:
            value = _load_legacy(source.file, source.size)
        elif start[8:9] == b"{":  # where the header of a safetensors file begins
            return tensor_file.read(source)[0]
        elif start.lstrip()[:1] == b"{":
            return _load_index(source)
        else:
            raise _Foreign(what_it_is(start) or "begins like neither")
    except _Foreign as error:
        raise ValueError(
            f"{source.name} is no checkpoint of PyTorch, nor a safetensors file, but {error}"
        ) from None
    except ValueError as error:
        raise ValueError(f"{source.name} is no sound checkpoint of PyTorch: {error}") from error
    return value


class _Foreign(ValueError):
    """It is a file of another kind."""


# The formats --------------------------------------------------------------------------------------


def _load_zip(file: BinaryIO, size: int) -> Any:
    archive = Archive(file, size)
    tops = [name for name in archive if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(tops) != 1:
        exported = _load_exported(archive)
        if exported is not None:
            return exported
        file.seek(0)
        what = what_it_is(file.read(512))
        if not tops and what and "PyTorch" not in what:
            raise _Foreign(what)
        raise ValueError(f"it has {len(tops)} records called data.pkl, expected one")
    top = tops[0].removesuffix("data.pkl")
    little = _is_little(archive, top)
    data = f"{top}data/"
    sizes = {n.removeprefix(data): archive.size(n) for n in archive if n.startswith(data)}
    storages = Storages(sizes, lambda key: archive.read(data + key), little)
    text = io.BytesIO(archive.read(tops[0]))
    return _whole(unpickle(text, CALLS, BUILDS, storages.find, _most_steps(size)))


def _is_little(archive: Archive, top: str) -> bool:
    name = f"{top}byteorder"
    if name not in archive:
        return True
    order = archive.read(name) if archive.size(name) < 10 else b""
    if order not in (b"little", b"big"):
        raise ValueError("its byte order is neither little nor big")
    return order == b"little"


def _whole(value: Any) -> Any:
    """Return the state dict of a whole module, and any other value as it is."""
    if isinstance(value, Placeholder) and value.arguments is not None:
        return value.state_dict() or value
    return value


def _load_legacy(file: BinaryIO, size: int) -> Any:
    """Read number, version, system, value, and keys of the storages, all pickled; the storages.

    The value is read twice, because what its storages are is said in it, but where after it.
    """
    text = _Text(file, size)
    known: dict[str, Storage] = {}

    def note(identity: Any) -> Any:
        storage = Storage.named(identity)
        if isinstance(storage, Storage):
            known[storage.key] = storage
        return storage

    starts, values = [], []
    for _ in range(5):
        starts.append(file.tell())
        values.append(unpickle(text, {}, {}, note, _most_steps(size)))
    number, version, _, _, keys = values
    if number != _LEGACY or version != 1001 or not isinstance(keys, list):
        raise ValueError("it is of another version than 1001")
    places: dict[str, tuple[int, int]] = {}
    for key in keys:
        if not isinstance(key, str) or key not in known:
            raise ValueError("it has a storage that no tensor uses")
        count = int.from_bytes(text.read(8), "little")
        places[key] = file.tell(), count * known[key].itemsize
        if sum(places[key]) > size:
            raise ValueError(f"its storage {key!r} is not whole")
        file.seek(places[key][1], io.SEEK_CUR)

    def read(key: str) -> bytearray:
        here = file.tell()  # in the pickle, which is being read
        file.seek(places[key][0])
        content = bytearray(file.read(places[key][1]))
        file.seek(here)
        return content

    file.seek(starts[3])
    storages = Storages({key: nbytes for key, (_, nbytes) in places.items()}, read, True)
    return _whole(unpickle(text, CALLS, BUILDS, storages.find, _most_steps(size)))


def _most_steps(size: int) -> int:
    """How many instructions a pickle may have; each of them can take some 100 bytes of memory."""
    return 1_000_000 + size // 8


class _Text:
    """The part of a file that holds pickles, up to some position."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.file = file
        self.end = end

    def read(self, n: int) -> bytes:
        return self.file.read(max(0, min(n, self.end - self.file.tell())))

    def readline(self, n: int = 1024, /) -> bytes:
        return self.file.readline(n)


# The numbers by which torch.export calls the types of tensors.
_TYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16", 28: "uint16",
    29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz", 32: "float8_e5m2fnuz",
    33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
_CONFIG = re.compile(r"(?:[^/]+/)?data/weights/([^/]+)_weights_config\.json")


def _load_exported(archive: Archive) -> Any:
    """Return the weights in a file of torch.export.save, of several models by their names.

    Of any other archive, None.
    """
    for name in archive:  # as it wrote them before PyTorch 2.8
        if name.rpartition("/")[2] in ("serialized_state_dict.pt", "serialized_state_dict.json"):
            content = archive.read(name)
            return _load_zip(io.BytesIO(content), len(content))
    models = {m[1]: name for name in archive if (m := _CONFIG.fullmatch(name))}
    found = {}
    for model, name in models.items():
        folder = name.rpartition("/")[0]
        config = _json(bytes(archive.read(name))).get("config")
        if not isinstance(config, dict):
            raise ValueError(f"its record {name!r} has no config")
        top = folder.removesuffix("data/weights")
        little = _is_little(archive, top)
        found[model] = {n: _exported(archive, folder, e, little) for n, e in config.items()}
    if not found:
        return None
    return found if len(found) > 1 else next(iter(found.values()))


def _exported(archive: Archive, folder: str, entry: Any, little: bool) -> Any:
    """Return one of its tensors."""
    try:
        path, meta = entry["path_name"], entry["tensor_meta"]
        if not isinstance(path, str) or f"{folder}/{path}" not in archive:
            raise ValueError(f"it lacks the record {str(path)[:50]!r}")
        path = f"{folder}/{path}"
        if entry["use_pickle"]:
            content = archive.read(path)
            return _load_zip(io.BytesIO(content), len(content))
        dtype = _TYPES.get(meta["dtype"])
        if dtype is None:
            raise ValueError(f"it has a tensor of type {str(meta['dtype'])[:20]}")
        size, stride = (tuple(n["as_int"] for n in meta[k]) for k in ("sizes", "strides"))
        offset = meta["storage_offset"]["as_int"]
    except (KeyError, TypeError) as error:
        raise ValueError(f"it describes a tensor wrongly: {error!r}") from error
    storage = Storage("torch.storage.UntypedStorage", ())
    storage.key, storage.dtype, storage.count = path, "", archive.size(path)
    storage.owner = Storages({path: storage.count}, archive.read, little)
    return tensor(storage, offset, size, stride, dtype=dtype)


def _json(text: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError("a text in JSON in it nests too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("a text in JSON in it is no object")
    return value


def _load_index(source: Source) -> dict[str, Any]:
    """Return all tensors of the files that an index names, which lie beside it."""
    if source.size > _MOST_INDEX:
        raise _Foreign("a text in JSON")
    places = _json(source.file.read()).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise _Foreign('a text in JSON without a "weight_map"')
    if source.folder is None:
        raise ValueError("it is the index of files that lie beside it, expected its path")
    names = list(places.values())
    for name in names:
        if not isinstance(name, str) or not name or name != os.path.basename(name) or "\0" in name:
            raise ValueError(f"it names the file {str(name)[:100]!r}, expected one beside it")
    found: dict[str, Any] = {}
    for name in dict.fromkeys(names):
        part = load_torch(source.folder / name)
        wanted = [t for t, place in places.items() if place == name]
        missing = [t for t in wanted if not isinstance(part, dict) or t not in part]
        if missing:
            raise ValueError(f"{name} lacks {', '.join(missing)[:200]}")
        found |= {t: part[t] for t in wanted}
    return {t: found[t] for t in places}
