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
    assert found["mae"] == [None, None, *history.metrics["mae"][2:]]


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


def masked_crc(data: bytes) -> int:
    """CRC-32C (Castagnoli), turned and moved as in the record format of TensorFlow."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def events(path: Path) -> list[Any]:
    """Read an event file: records of a length, its checksum, an event, its checksum."""
    event_pb2 = require("tensorboardX").proto.event_pb2
    found, data = [], path.read_bytes()
    while data:
        size, of_size = struct.unpack("<QL", data[:12])
        record, (of_record,) = data[12 : 12 + size], struct.unpack("<L", data[12 + size :][:4])
        assert (of_size, of_record) == (masked_crc(data[:8]), masked_crc(record))
        found.append(event_pb2.Event.FromString(record))
        data = data[16 + size :]
    assert found[0].file_version == "brain.Event:2"
    return found


def scalars(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Steps and values by tag, as TensorBoard shows those of all files in a folder, by their names.

    Of the files before that of a resumed run it does not show what comes after its start.
    """
    start = require("tensorboardX").proto.event_pb2.SessionLog.START
    found: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        for event in events(path):
            if event.session_log.status == start:
                for tag, values in found.items():
                    found[tag] = [value for value in values if value[0] < event.step]
            for value in event.summary.value:
                found.setdefault(value.tag, []).append((event.step, value.simple_value))
    return found


def test_the_checksum_of_records() -> None:
    crc = masked_crc(b"123456789") - 0xA282EAD8 & 0xFFFFFFFF
    assert (crc >> 17 | crc << 15) & 0xFFFFFFFF == 0xE3069283  # of RFC 3720


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
    found = scalars(folder) | (scalars(folder / "steps") if steps else {})
    assert (folder / "steps").exists() == steps
    assert set(found) == set(expected)
    for tag, values in expected.items():
        assert [step for step, _ in found[tag]] == list(range(1, len(values) + 1))
        assert [value for _, value in found[tag]] == np.float32(values).tolist()


def agrees(found: list[tuple[int, float]], values: list[float]) -> bool:
    return found == list(enumerate(np.float32(values).tolist(), start=1))


def test_tensorboard_of_a_resumed_run_has_each_epoch_once(tmp_path: Path) -> None:
    require("tensorboardX")
    folder, saved = tmp_path / "run", tmp_path / "epoch-{epoch}.safetensors"
    run([TensorBoard(folder), Checkpoint(saved)], epochs=4)
    assert len(scalars(folder)["loss/training"]) == 4
    resume = tmp_path / "epoch-2.safetensors"
    history = run(TensorBoard(folder), epochs=5, resume=resume, metrics=["rmse", "mae"])
    found = scalars(folder)
    assert len(list(folder.iterdir())) == 2
    assert agrees(found["loss/training"], history.losses)
    assert agrees(found["metrics/rmse"], history.metrics["rmse"])
    assert agrees(found["lr"], history.lr)
    assert found["metrics/mae"] == list(
        zip([3, 4, 5], np.float32(history.metrics["mae"][2:]).tolist(), strict=True)
    )


def test_tensorboard_of_a_resumed_run_has_each_step_once(tmp_path: Path) -> None:
    require("tensorboardX")
    folder, saved = tmp_path / "run", tmp_path / "epoch-{epoch}.safetensors"
    losses: list[float] = []

    class Losses(lc.callbacks.Callback):
        def on_step(self, run: Any) -> None:
            losses[run.step - 1 :] = [run.loss]

    board = TensorBoard(folder, steps=True)
    run([board, Checkpoint(saved), Losses()], epochs=4)
    resume = tmp_path / "epoch-2.safetensors"
    history = run([board, Losses()], epochs=5, resume=resume)
    assert len(losses) > 5
    assert agrees(scalars(folder)["loss/training"], history.losses)
    assert agrees(scalars(folder / "steps")["loss/step"], losses)


def test_logs_of_several_losses(tmp_path: Path) -> None:
    """Each is there, and their sum, in both files, as in the history."""
    require("tensorboardX")
    x = lc.Input(3, dtype="float64")
    outputs = {name: lc.Linear(3, 1, dtype="float64", seed=i)(x) for i, name in enumerate("ab")}
    model = lc.Model(x, outputs)
    data = X[:, :], {"a": Y, "b": -Y}
    loggers = [CSVLogger(tmp_path / "run.csv"), TensorBoard(tmp_path / "run")]
    history = quiet(
        model, data, loss={"a": "mse", "b": "mae"}, loss_weights={"b": 0.5}, epochs=3,
        metrics={"a": ["rmse"]}, validation=data, callbacks=loggers,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.1),
    )  # fmt: skip
    assert set(history.metrics) == {"a_loss", "b_loss", "a_rmse"}
    found, by_name = scalars(tmp_path / "run"), table(tmp_path / "run.csv")
    expected = {"loss/training": history.losses, "loss/validation": history.validation_losses}
    expected |= {f"metrics/{name}": values for name, values in history.metrics.items()}
    assert set(found) == {*expected, "lr"}
    assert all(agrees(found[tag], values) for tag, values in expected.items())
    columns = {"loss": history.losses, "validation loss": history.validation_losses}
    columns |= history.metrics
    assert list(by_name) == ["epoch", *columns, "lr", "seconds"]
    assert all(by_name[name] == values for name, values in columns.items())
    total = np.add(history.metrics["a_loss"], 0.5 * np.array(history.metrics["b_loss"]))
    np.testing.assert_allclose(total, history.validation_losses, rtol=1e-12)


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
