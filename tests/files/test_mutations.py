"""Some of the changed files of which tests/fuzz/mutate_files.py makes 30,000."""

from __future__ import annotations

import importlib
import json
import os
import random
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from helpers.paths import ROOT
from helpers.peers import require

SCRIPT = ROOT / "tests" / "fuzz" / "mutate_files.py"


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPT), *arguments]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def mutate_files(monkeypatch: pytest.MonkeyPatch) -> Any:
    require("h5py")
    require("onnx")
    monkeypatch.syspath_prepend(str(SCRIPT.parent))
    return importlib.import_module("mutate_files")


def test_changed_files_are_read_or_refused(tmp_path: Path) -> None:
    require("h5py")
    require("onnx")
    done = run(tmp_path, "180")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("180 files: ")
    assert not list(tmp_path.iterdir())


def test_changes_go_beyond_the_door(mutate_files: Any) -> None:
    """Many files are still read, and most of the others are refused behind their checksums."""
    for name, reader in mutate_files.readers().items():
        told: list[str] = []
        for number in range(60):
            dice = random.Random(number)
            content = reader.change(dice.choice(reader.seeds), dice)
            try:
                reader.read(content)
                told.append("")
            except (ValueError, OSError) as error:
                told.append(str(error))
        assert 0 < told.count("") < 60, name
        assert sum("checksum" in one or "CRC" in one for one in told) < 15, name
        assert len(set(told)) > 4, name


def test_a_fault_is_told(mutate_files: Any) -> None:
    def broken(content: bytes) -> None:
        raise KeyError("x")

    assert "KeyError" in mutate_files.fault_of(mutate_files.Reader(broken, None, []), b"")
    greedy = mutate_files.Reader(lambda content: bytearray(30_000_000), None, [])
    tracemalloc.start()
    try:
        assert "30000" in mutate_files.fault_of(greedy, b"x")
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("in_int8", [False, True])
def test_layers_by_the_million_are_refused_at_the_first_that_is_not_there(
    in_int8: bool, tmp_path: Path
) -> None:
    """They are not all described first, which takes a minute and gigabytes."""
    import lstmcore as lc
    from helpers import bad_files

    model = lc.LSTM(2, 3)
    lc.save(lc.quantize(model) if in_int8 else model, tmp_path / "model.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    size = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + size])
    (name,) = header["__metadata__"]
    text = header["__metadata__"][name].rpartition("\ncrc32:")[0]
    assert '"num_layers": 1,' in text
    header["__metadata__"][name] = text.replace('"num_layers": 1,', '"num_layers": 1000000,')
    changed = bad_files.safetensors(header, content[8 + size :])
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="larger than its parameters"):
            lc.load(changed)
        assert tracemalloc.get_traced_memory()[1] < 10**6
    finally:
        tracemalloc.stop()
