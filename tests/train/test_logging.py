"""Callbacks that write down what a run measures."""

from __future__ import annotations

import builtins
import csv
import struct
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore.callbacks import Checkpoint, CSVLogger, TensorBoard

quiet = partial(lc.fit, progress=False)
X = np.random.default_rng(0).standard_normal((12, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


def run(callbacks: Any, epochs: int = 3, **options: Any) -> lc.History:
    model = lc.Linear(3, 1, dtype="float64", seed=0)
    optimizer = lc.optim.Adam(model.parameters(), lr=0.1)
    given: dict[str, Any] = {"loss": "mse", "metrics": ["rmse"], "seed": 0, "batch_size": 5}
    given["schedule"] = lc.optim.StepLR(optimizer, 1, 0.5)
    return quiet(model, (X, Y), optimizer=optimizer, epochs=epochs, callbacks=callbacks,
                 **{**given, **options})  # fmt: skip


def table(path: Path) -> dict[str, list[float | None]]:
    with path.open(newline="") as file:
        names, *rows = csv.reader(file)
    columns = zip(*rows, strict=True)
    return {
        name: [None if value == "" else float(value) for value in values]
        for name, values in zip(names, columns, strict=True)
    }


# CSV ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("validated", [False, True])
def test_a_table_has_the_numbers_of_the_history(tmp_path: Path, validated: bool) -> None:
    path = tmp_path / "run.csv"
    path.write_text("of an older run")
    options = {"validation": (X[:4], Y[:4])} if validated else {}
    history = run(CSVLogger(path), **options)
    expected = {"epoch": [1, 2, 3], "loss": history.losses}
    expected |= {"validation loss": history.validation_losses} if validated else {}
    expected |= {"rmse": history.metrics["rmse"], "lr": history.lr, "seconds": history.time}
    assert list(table(path)) == list(expected)
    assert table(path) == expected  # to the bit
    assert history.lr == [0.1, 0.05, 0.025]


def test_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    """Also where it was saved before the last epoch, and measures more than before."""
    path, saved = tmp_path / "run.csv", tmp_path / "epoch-{epoch}.safetensors"
    run([CSVLogger(path), Checkpoint(saved)], epochs=4)
    history = run(
        CSVLogger(str(path)), epochs=5, resume=tmp_path / "epoch-2.safetensors",
        metrics=["rmse", "mae"],
    )  # fmt: skip
    found = table(path)
    assert found["epoch"] == [1, 2, 3, 4, 5]
    assert found["loss"] == history.losses
    assert found["rmse"] == history.metrics["rmse"]
    assert found["mae"] == [None, None, *history.metrics["mae"]]


def test_the_table_is_there_while_the_run_goes_on(tmp_path: Path) -> None:
    path, seen = tmp_path / "run.csv", []
    run([CSVLogger(path), lambda run: seen.append(table(path)["epoch"])])
    assert seen == [[1], [1, 2], [1, 2, 3]]


def test_names_with_commas(tmp_path: Path) -> None:
    path = tmp_path / "run.csv"
    run(CSVLogger(path), metrics={'a,"b"': "mae"})
    assert 'a,"b"' in table(path)


def test_a_table_that_cannot_be_written_is_noticed_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is no folder, expected one to save logs in"):
        run(CSVLogger(tmp_path / "no" / "run.csv"))
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file to save logs in"):
        run(CSVLogger(tmp_path))
    with pytest.raises(TypeError, match="path is 3"):
        CSVLogger(3)  # type: ignore[arg-type]


# TensorBoard --------------------------------------------------------------------------------------


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Read the event files: records of a length, its checksum, an event, its checksum."""
    event_pb2 = require("tensorboardX").proto.event_pb2
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            event = event_pb2.Event.FromString(data[12 : 12 + size])
            data = data[16 + size :]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


@pytest.mark.parametrize("steps", [False, True])
def test_tensorboard_has_the_numbers_of_the_history(tmp_path: Path, steps: bool) -> None:
    require("tensorboardX")
    folder = tmp_path / "runs" / "first"
    losses: list[float] = []

    class Losses(lc.callbacks.Callback):
        def on_step(self, run: Any) -> None:
            losses.append(run.loss)

    history = run([TensorBoard(folder, steps=steps), Losses()], validation=(X[:4], Y[:4]))
    expected = {
        "loss/training": history.losses,
        "loss/validation": history.validation_losses,
        "metrics/rmse": history.metrics["rmse"],
        "lr": history.lr,
        **({"loss/step": losses} if steps else {}),
    }
    found = scalars(folder)
    assert set(found) == set(expected)
    for tag, values in expected.items():
        assert [step for step, _ in found[tag]] == list(range(1, len(values) + 1))
        assert [value for _, value in found[tag]] == np.float32(values).tolist()


def test_tensorboard_closes_its_file_whatever_ends_the_run(tmp_path: Path) -> None:
    require("tensorboardX")
    board = TensorBoard(tmp_path)
    bad = Y.copy()
    bad[0] = np.nan
    with pytest.raises(lc.NonFiniteError):
        run(board, loss=lambda pred, target: lc.losses.mse(pred, bad[: len(pred)]), metrics={})
    assert board._writer is None


def test_without_tensorboardx_it_is_said_before_the_first_epoch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "tensorboardX":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'tensorboardX: pip install "lstmcore\[tensorboard\]"'):
        run(TensorBoard(tmp_path / "a"))
    assert not (tmp_path / "a").exists()
    with pytest.raises(TypeError, match="steps is 3"):
        TensorBoard("a", steps=3)  # type: ignore[arg-type]
