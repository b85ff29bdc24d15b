"""Writers keep the old file until the new one is complete; readers read what is given once."""

from __future__ import annotations

import errno
import gzip
import io
import os
import re
import stat
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

# Writers ------------------------------------------------------------------------------------------

LAYER = lc.GRU(3, 40, seed=0)


WRITERS: dict[str, Callable[[Any], None]] = {
    "save": lambda path: lc.save(LAYER, path),
    "save of arrays": lambda path: lc.save(LAYER.state_dict(), path),
    "save_checkpoint": lambda path: lc.save_checkpoint(path, layer=LAYER),
    "to_onnx": lambda path: lc.to_onnx(LAYER, path),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    if request.param == "to_onnx":
        require("onnx")  # here: a test that is skipped in its middle may leave a thread that waits
    return WRITERS[request.param]


def test_what_fails_leaves_the_old_file(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")

    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "the disk is broken")

    for name in ("fsync", "replace"):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, fail)
            with pytest.raises(OSError, match="the disk is broken"):
                write(path)
        assert path.read_bytes() == b"old"
        assert [p.name for p in tmp_path.iterdir()] == ["model"]
    write(path)
    assert path.read_bytes() != b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_what_is_no_plain_file_is_written_to(write: Any, tmp_path: Path) -> None:
    """And not replaced: here a pipe with a name, whose other end is read meanwhile."""
    pipe, plain = tmp_path / "pipe", tmp_path / "plain"
    os.mkfifo(pipe)
    found = []
    thread = threading.Thread(target=lambda: found.append(pipe.read_bytes()), daemon=True)
    thread.start()
    write(pipe)
    thread.join()
    write(plain)
    assert found == [plain.read_bytes()]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


FULL = """
import resource, sys
import lstmcore as lc
path, kind = sys.argv[1:]
write = {
    "save": lambda layer: lc.save(layer, path),
    "save of arrays": lambda layer: lc.save(layer.state_dict(), path),
    "save_checkpoint": lambda layer: lc.save_checkpoint(path, layer=layer),
    "to_onnx": lambda layer: lc.to_onnx(layer, path),
}[kind]
write(lc.GRU(3, 4, seed=0))
old = open(path, "rb").read()
large = lc.GRU(3, 200, seed=1)
lc.to_onnx(large) if kind == "to_onnx" else None  # what has to be imported is
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
try:
    write(large)
except OSError as error:
    print(error.errno)
assert open(path, "rb").read() == old
"""


@pytest.mark.parametrize("kind", WRITERS)
def test_a_disk_that_gets_full(kind: str, tmp_path: Path) -> None:
    """A real limit, in a process of its own: OSError, the old file stays, nothing else is left."""
    if kind == "to_onnx":
        require("onnx")
    path = tmp_path / "model"
    command = [sys.executable, "-c", FULL, str(path), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{errno.EFBIG}\n"
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_the_folder_is_written_to_the_disk_after_the_file(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = []
    fsync, replace = os.fsync, os.replace

    def noted(handle: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")
        fsync(handle)

    def renamed(*args: Any, **options: Any) -> None:
        events.append("rename")
        replace(*args, **options)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(os, "replace", renamed)
    write(tmp_path / "model")
    assert events == ["file", "rename", "folder"]


def test_a_link_stays_a_link(write: Any, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    real = tmp_path / "elsewhere" / "model"
    link = tmp_path / "link"
    link.symlink_to(real)
    write(link)  # that leads nowhere yet
    first = real.read_bytes()
    real.write_bytes(b"old")
    write(link)
    assert link.is_symlink()
    assert real.read_bytes() == first


def test_folders_are_refused(write: Any, tmp_path: Path) -> None:
    with pytest.raises(IsADirectoryError, match="it is a folder"):
        write(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"no folder to write it to: .*nowhere/model'"):
        write(tmp_path / "nowhere" / "model")
    assert list(tmp_path.iterdir()) == []


# Readers ------------------------------------------------------------------------------------------


def checkpointed(given: Any) -> Any:
    layer = lc.GRU(3, 40, seed=1)
    lc.load_checkpoint(given, layer=layer)
    return layer.state_dict()


READERS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "load": ("save", lambda given: lc.load(given).state_dict()),
    "load_torch": ("save of arrays", lc.load_torch),
    "load_checkpoint": ("save_checkpoint", checkpointed),
}


@pytest.mark.parametrize("reader", READERS)
def test_paths_bytes_and_open_files(reader: str, tmp_path: Path) -> None:
    writer, read = READERS[reader]
    path = tmp_path / "model"
    WRITERS[writer](path)
    content = path.read_bytes()
    packed = tmp_path / "model.gz"
    packed.write_bytes(gzip.compress(content))
    behind = io.BytesIO(b"before" + content)
    behind.seek(6)
    expected = LAYER.state_dict()
    with path.open("rb") as file, gzip.open(packed) as unpacked:
        for given in (
            path, str(path), content, bytearray(content), memoryview(content), io.BytesIO(content),
            file, unpacked, behind,
        ):  # fmt: skip
            found = read(given)
            assert found.keys() == expected.keys()
            for name, array in expected.items():
                np.testing.assert_array_equal(found[name], array)
        assert not file.closed
    for wrong, message in (
        (None, r"path is None \(NoneType\), expected a path, bytes, or an open binary file"),
        (3, r"path is 3 \(int\), expected a path"),
        (io.StringIO("text"), "path is a file of text, expected one opened in binary mode"),
    ):
        with pytest.raises(TypeError, match=message):
            read(wrong)
    with pytest.raises(ValueError, match="the content given as path is"):
        read(content[:-1])
    with path.open("rb") as file:
        file.seek(3)
        with pytest.raises(ValueError, match=re.escape(str(path))):
            read(file)


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_is_replaced_while_it_is_read(reader: str, tmp_path: Path) -> None:
    """It is opened once: what is read is the old file or the new one."""
    writer, read = READERS[reader]
    path = tmp_path / "model"
    WRITERS[writer](path)
    content = [path.read_bytes()]
    layer = LAYER
    try:
        globals()["LAYER"] = lc.GRU(3, 40, seed=7)
        if reader == "load":
            globals()["LAYER"] = lc.GRU(5, 30, seed=7)
        WRITERS[writer](path)
    finally:
        globals()["LAYER"] = layer
    content.append(path.read_bytes())
    done = threading.Event()

    def replace() -> None:
        turn = 0
        while not done.is_set():
            turn += 1
            other = tmp_path / "other"
            other.write_bytes(content[turn % 2])
            other.replace(path)

    thread = threading.Thread(target=replace)
    thread.start()
    try:
        for _ in range(300):
            read(path)
    finally:
        done.set()
        thread.join()


# What is another reader's -------------------------------------------------------------------------


def scripted() -> bytes:
    """A TorchScript archive, as far as it is told by its beginning."""
    torch, file = require("torch"), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)), file)
    return file.getvalue()


def foreign_files() -> dict[str, tuple[bytes, str]]:
    """Files by what they are, and what the message must say."""
    arrays, tensors = io.BytesIO(), io.BytesIO()
    np.savez(arrays, a=np.ones(3))
    torch = require("torch")
    torch.save({"a": torch.ones(3)}, tensors)
    old = io.BytesIO()
    torch.save({"a": torch.ones(3)}, old, _use_new_zipfile_serialization=False)
    onnx = require("onnx")
    assert onnx
    return {
        "npz": (arrays.getvalue(), r"\.npz.*np\.load"),
        "pt": (tensors.getvalue(), r"of PyTorch, which lc\.load_torch reads"),
        "old pt": (old.getvalue(), r"of PyTorch, which lc\.load_torch reads"),
        "onnx": (lc.to_onnx(LAYER).SerializeToString(), r"ONNX, which lc\.from_onnx reads"),
        "keras": (
            (Path(__file__).parents[1] / "data" / "netra.keras").read_bytes(),
            r"of Keras, which lc\.from_keras reads",
        ),
        "h5": (
            (Path(__file__).parents[1] / "data" / "chars2vec_50.h5").read_bytes(),
            r"HDF5 file, which lc\.from_keras reads",
        ),
        "pickle": (b"\x80\x04\x95\x0a\x00", "a pickle, which could run anything"),
        "frozen graph": (b"\n\x28\n\x01x\x12\x0bPlaceholder*\x0b", r"TensorFlow.*convert_weights"),
        "saved model": (b"\x08\x01\x12\xba\x08\n", r"TensorFlow.*convert_weights"),
        "TorchScript": (scripted(), r"of PyTorch, which lc\.load_torch reads"),
        "nothing": (b"", "empty"),
        "index": (
            b'{"metadata": {"total_size": 9}, "weight_map": {"a": "b.safetensors"}}',
            "index of several files of weights",
        ),
    }


@pytest.mark.parametrize("reader", READERS)
def test_messages_name_the_right_reader(reader: str, tmp_path: Path) -> None:
    _, read = READERS[reader]
    for kind, (content, message) in foreign_files().items():
        own = {"keras", "npz", "pt", "old pt", "index", "TorchScript"}
        if reader == "load_torch" and kind in own:
            continue  # the first two: see test_torch_files.py
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            read(path)
        assert str(path) in str(caught.value), kind


@pytest.mark.parametrize("reader", ["from_keras", "from_onnx"])
def test_readers_of_models_name_the_right_reader(reader: str, tmp_path: Path) -> None:
    require({"from_keras": "keras", "from_onnx": "onnx"}[reader])
    lc.save(LAYER, tmp_path / "saved")
    ours = (tmp_path / "saved").read_bytes(), r"safetensors file: lc\.load reads"
    for kind, (content, message) in (foreign_files() | {"ours": ours}).items():
        if kind in {"from_keras": ("keras", "h5"), "from_onnx": ("onnx",)}[reader]:
            continue
        path = tmp_path / "file"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=message) as caught:
            getattr(lc, reader)(path)
        assert str(path) in str(caught.value), kind
        with pytest.raises(ValueError, match=message):
            getattr(lc, reader)(content)
