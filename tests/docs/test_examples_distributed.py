"""The examples of several processes."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.example_scripts import EXAMPLES, load, run
from helpers.peers import require


@pytest.fixture(autouse=True)
def one_thread(threads: None) -> None:
    lc.set_num_threads(1)


@contextlib.contextmanager
def started(*command: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program, which does not outlive the test, nor do the processes that it starts."""
    psutil = require("psutil")
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def torchrun(saved: Path, *options: str) -> list[str]:
    """Return the command that trains a small model with two processes, which save to a file."""
    # As a module: the script beside this Python may not be there.
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    script = str(EXAMPLES / "distributed" / "train_ddp.py")
    launch += ["--nproc-per-node", "2", *options, script]
    return [*launch, "--hidden", "16", "--batch", "90", "--checkpoint", str(saved)]


def assert_trained_like_one(saved: Path, epochs: int) -> None:
    """Compare a saved model with that of one process that nothing disturbed."""
    torch = require("torch")
    example = load("distributed/train_ddp")
    alone = example.Run(16, None)
    example.train(alone, epochs, 90)
    state = torch.load(saved, weights_only=True)
    assert state["epoch"] == epochs
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(state["model"][name], value, rtol=0, atol=2e-4)


def test_two_processes_train_like_one_and_go_on_where_a_run_ended(tmp_path: Path) -> None:
    require("torch")
    saved = tmp_path / "run.pt"
    epochs = []
    for last in ("2", "4"):
        with started(*torchrun(saved), "--epochs", last) as running:
            output, errors = running.communicate(timeout=300)
        assert running.returncode == 0, errors
        assert "2 processes: " in output
        epochs += [int(line.split()[1]) for line in output.splitlines() if line[:5] == "epoch"]
    assert epochs == [1, 2, 3, 4]
    assert_trained_like_one(saved, 4)


@pytest.mark.parametrize("rank", [0, 1])
def test_training_goes_on_after_a_process_was_killed(tmp_path: Path, rank: int) -> None:
    torch, psutil = require("torch"), require("psutil")
    saved = tmp_path / "run.pt"
    with started(*torchrun(saved, "--max-restarts", "1"), "--epochs", "20") as running:
        while running.poll() is None and not saved.exists():
            time.sleep(0.01)
        (victim,) = (
            child
            for child in psutil.Process(running.pid).children()
            if child.environ().get("RANK") == str(rank)
        )
        victim.suspend()  # and so the other waits
        assert torch.load(saved, weights_only=True)["epoch"] < 20
        victim.kill()
        output, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    epochs = [int(line.split()[1]) for line in output.splitlines() if line[:5] == "epoch"]
    assert epochs == sorted(set(epochs))  # none was computed again after it was saved
    assert_trained_like_one(saved, 20)


@pytest.fixture(scope="module")
def parquet() -> Any:
    require("distributed")
    require("pyarrow")
    return load("distributed/predict_parquet")


def results(folder: Path) -> dict[int, int]:
    """Return the class of each id, of which none may come twice."""
    import pyarrow.parquet

    tables = [pyarrow.parquet.read_table(path) for path in folder.glob("*.parquet")]
    ids = [i for table in tables for i in table["id"].to_pylist()]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, [c for table in tables for c in table["class"].to_pylist()], strict=True))


def test_files_of_a_killed_worker_are_computed_by_others(parquet: Any, tmp_path: Path) -> None:
    psutil = require("psutil")
    source, target = tmp_path / "files", tmp_path / "results"
    parquet.make(source, 30, 24)
    script = str(EXAMPLES / "distributed" / "predict_parquet.py")
    with started(sys.executable, script, str(source), str(target)) as running:
        while running.poll() is None and len(list(target.glob("*.parquet"))) < 3:
            time.sleep(0.01)
        workers = [
            child
            for child in psutil.Process(running.pid).children()
            if any("spawn_main" in word for word in child.cmdline())
        ]
        workers[0].suspend()  # whatever it computes now will never be written by it
        assert len(list(target.glob("*.parquet"))) < 30
        workers[0].kill()
        output, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    assert output.startswith("2 workers: 720 sequences, ") or "1 workers: 720" in output
    found = results(target)
    assert sorted(found) == list(range(720))

    # One row at a time, in this process.
    import pyarrow.parquet

    model = lc.load(source / "model.safetensors")
    table = pyarrow.parquet.read_table(source / "part-00017.parquet").to_pydict()
    for i, steps in list(zip(table["id"], table["steps"], strict=True))[:10]:
        x = np.array(steps, np.float32).reshape(-1, 1, 12)
        assert found[i] == model(x).argmax()
    assert len(set(found.values())) > 1

    half_written = list(target.glob("*.new"))  # by the worker that was killed in the midst of it
    assert len(half_written) <= 1
    run("distributed/predict_parquet", str(source), str(target))
    assert not list(target.glob("*.new"))
    assert results(target) == found


def test_what_is_there_is_not_computed_again(parquet: Any, tmp_path: Path) -> None:
    parquet.make(tmp_path, 1, 5)
    source, target = tmp_path / "part-00000.parquet", tmp_path / "there.parquet"
    target.write_bytes(b"kept")
    assert parquet.predict(source, target, tmp_path / "no model") == 5
    assert target.read_bytes() == b"kept"


def test_the_script_of_parquet_files(parquet: Any, tmp_path: Path) -> None:
    folders = str(tmp_path / "files"), str(tmp_path / "results")
    lines = run("distributed/predict_parquet", *folders, "--make", "--files", "3", "--rows", "20")
    assert lines[0].startswith("3 files of 20 sequences in ")
    assert lines[1].startswith("2 workers: 60 sequences, ")
    assert lines[2].startswith("one process: ")
    assert len(results(tmp_path / "results")) == 60
    assert not list((tmp_path / "results").glob("*.new"))


def test_nothing_is_lost_or_doubled_when_a_replica_is_killed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("ray.serve")
    psutil = require("psutil")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")  # of a cluster that lives in this test alone
    monkeypatch.setenv("RAY_worker_niceness", "0")  # not 15: they would starve on a busy machine
    script = str(EXAMPLES / "distributed" / "serve_pool.py")
    with started(sys.executable, script, "--callers", "8", "--steps", "120") as running:
        assert running.stdout is not None
        first = running.stdout.readline()
        assert first == "2 replicas are up\n", running.communicate()
        replicas = [
            child
            for child in psutil.Process(running.pid).children(recursive=True)
            if child.name().startswith("ray::ServeRepl")
        ]
        assert len(replicas) == 2
        while running.poll() is None and not running.stdout.readline().startswith("half of"):
            pass
        replicas[0].suspend()  # and so callers wait for replies that it will not send
        time.sleep(1)
        assert running.poll() is None
        replicas[0].kill()
        output, errors = running.communicate(timeout=300)
    assert running.returncode == 0, errors
    lines = output.splitlines()  # Ray's own among them
    assert "2 replicas, 8 callers: " in output
    assert "every output is that of a lone stream, to the bit" in lines
