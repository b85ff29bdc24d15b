"""Checkpoints: a resumed run is the same run, and a bad file changes nothing."""

from __future__ import annotations

import json
import os
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore._files import tensor_file
from lstmcore._files.source import opened
from lstmcore.losses import cross_entropy

quiet = partial(lc.fit, progress=False, loss=cross_entropy)


class Training:
    """All that a run consists of, made anew from the same seeds."""

    def __init__(self, kind: str = "Adam", **options: Any) -> None:
        rng = np.random.default_rng(0)
        self.model = lc.Sequential(
            lc.LSTM(3, 6, num_layers=2, dropout=0.3, seed=0),
            lc.Dropout(0.2, seed=1),
            lc.LastStep(),
            lc.Linear(6, 4, seed=2),
        )
        x = rng.standard_normal((7, 20, 3)).astype("float32")
        lengths = rng.integers(1, 8, 20)
        labels = rng.integers(0, 4, 20)
        self.data = lc.data.Batches(x, labels, lengths, batch_size=6, seed=3)
        self.validation = lc.data.Batches(x, labels, lengths, batch_size=7, seed=4)
        self.optimizer = getattr(lc.optim, kind)(self.model.parameters(), lr=0.01, **options)
        self.schedule = lc.optim.CosineLR(self.optimizer, 6)
        self.stopping = lc.callbacks.EarlyStopping(patience=50)

    def fit(self, epochs: int, callbacks: Any = (), **options: Any) -> lc.History:
        return quiet(
            self.model, self.data, optimizer=self.optimizer, schedule=self.schedule,
            epochs=epochs, callbacks=[self.stopping, *callbacks], validation=self.validation,
            **options,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("Adam", {}),
        ("AdamW", {"weight_decay": 0.1}),
        ("SGD", {"momentum": 0.9, "nesterov": True}),
        ("RMSprop", {}),
    ],
)
def test_a_resumed_run_is_the_same_to_the_last_bit(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    path = tmp_path / "run.safetensors"
    whole = Training(kind, **options)
    expected = whole.fit(6)

    first = Training(kind, **options)
    first.fit(3, [lc.callbacks.Checkpoint(path)])
    second = Training(kind, **options)
    second.model.reset_parameters(99)
    found = second.fit(6, [], resume=path)

    assert second.model == whole.model
    assert found.losses == expected.losses
    assert found.validation_losses == expected.validation_losses
    assert found.lr == expected.lr
    assert found.epochs == 6
    assert second.optimizer.steps == whole.optimizer.steps
    assert second.data.epoch == second.validation.epoch == 6
    assert (second.stopping.best, second.stopping.best_epoch) == (
        whole.stopping.best, whole.stopping.best_epoch,
    )  # fmt: skip
    # What comes after is the same, too.
    for training in (whole, second):
        x = next(iter(training.data))[0]
        training.last = training.model.forward(x)[0]  # type: ignore[attr-defined]
    assert_same_bits(whole.last, second.last)  # type: ignore[attr-defined]


def test_a_run_that_had_stopped_stays_so(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    first = Training()
    first.stopping = lc.callbacks.EarlyStopping(patience=1, min_delta=100.0)
    history = first.fit(6, [lc.callbacks.Checkpoint(path, every=5)])
    assert history.epochs == 2
    second = Training()
    second.stopping = lc.callbacks.EarlyStopping(patience=1, min_delta=100.0)
    history = second.fit(6, [], resume=path)
    assert history.epochs == 2
    assert second.model == first.model


def test_checkpoints_are_named_by_epoch(tmp_path: Path) -> None:
    Training().fit(5, [lc.callbacks.Checkpoint(tmp_path / "run-{epoch}.safetensors", every=2)])
    names = sorted(p.name for p in tmp_path.iterdir())
    assert names == ["run-2.safetensors", "run-4.safetensors", "run-5.safetensors"]


def test_a_checkpoint_needs_a_path() -> None:
    for path in (None, b"run.safetensors", 3):
        with pytest.raises(TypeError, match=r"path is .*, expected a path"):
            lc.callbacks.Checkpoint(path)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="path is '', expected the path of a file"):
        lc.callbacks.Checkpoint("")


def test_a_folder_is_no_checkpoint(tmp_path: Path) -> None:
    """Which is noticed before the first epoch."""
    training = Training()
    with pytest.raises(IsADirectoryError, match="is a folder, expected a file"):
        training.fit(2, [lc.callbacks.Checkpoint(tmp_path)])
    assert training.optimizer.steps == 0


def test_parts_by_hand(tmp_path: Path) -> None:
    path = tmp_path / "parts.safetensors"
    rng, other = np.random.default_rng(0), np.random.default_rng(1)
    training, twin = Training(), Training()
    training.fit(2)
    lc.save_checkpoint(path, model=training.model, optimizer=training.optimizer, rng=rng)
    lc.load_checkpoint(path, model=twin.model, optimizer=twin.optimizer, rng=other)
    assert twin.model == training.model
    assert rng.random() == other.random()
    # A part alone, of those there are.
    third = Training()
    lc.load_checkpoint(path, model=third.model)
    assert third.model == training.model
    assert third.optimizer.steps == 0


def test_the_file_is_safetensors_and_no_pickle(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    training = Training()
    training.fit(1, [lc.callbacks.Checkpoint(path)])
    arrays = load_file(path)
    for name, p in training.model.named_parameters():
        assert_same_bits(arrays[f"model.parameters.{name}"], p.data)
    header = path.read_bytes()[8 : 8 + int.from_bytes(path.read_bytes()[:8], "little")]
    assert "lstmcore.checkpoint" in json.loads(header)["__metadata__"]
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(path.read_bytes())


# Bad files ------------------------------------------------------------------------------------


def saved(tmp_path: Path) -> Path:
    path = tmp_path / "run.safetensors"
    training = Training()
    training.fit(1, [lc.callbacks.Checkpoint(path)])
    return path


def unchanged(training: Training, untouched: Training) -> bool:
    states = [
        {"model": t.model.state_dict(), "random": t.model._rng_state()}
        | {"optimizer": t.optimizer.state_dict(), "schedule": t.schedule.state_dict()}
        | {"data": t.data.state_dict(), "stopping": t.stopping.state_dict()}
        for t in (training, untouched)
    ]
    return repr(states[0]) == repr(states[1]) and training.model == untouched.model


@pytest.mark.parametrize("where", [0, 9, 60, 3000, -5])
def test_a_changed_byte_is_noticed(tmp_path: Path, where: int) -> None:
    path = saved(tmp_path)
    content = bytearray(path.read_bytes())
    content[where] ^= 1
    path.write_bytes(content)
    training = Training()
    with pytest.raises(ValueError, match=r"run\.safetensors is damaged"):
        training.fit(3, resume=path)
    assert unchanged(training, Training())


@pytest.mark.parametrize("size", [0, 4, 100, 5000])
def test_a_cut_file_is_noticed(tmp_path: Path, size: int) -> None:
    path = saved(tmp_path)
    path.write_bytes(path.read_bytes()[:size])
    training = Training()
    with pytest.raises(ValueError, match=rf"run\.safetensors is {'damaged' if size else 'empty'}"):
        training.fit(3, resume=path)
    assert unchanged(training, Training())


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"weight": np.zeros(3)}, path)
    with pytest.raises(ValueError, match="no checkpoint of lstmcore"):
        lc.load_checkpoint(path, model=Training().model)
    with pytest.raises(FileNotFoundError):
        lc.load_checkpoint(tmp_path / "nowhere", model=Training().model)
    future = json.dumps({"version": 2, "parts": {}})
    save_file({"weight": np.zeros(3)}, path, {"lstmcore.checkpoint": future})
    with pytest.raises(ValueError, match="version 2, expected 1"):
        lc.load_checkpoint(path)
    for broken in ("{", "[]", '{"version": 1, "parts": {"model": {"__array__": "gone"}}}'):
        save_file({"weight": np.zeros(3)}, path, {"lstmcore.checkpoint": broken})
        with pytest.raises(ValueError, match=r"is damaged: .* in its description"):
            lc.load_checkpoint(path, model=Training().model)


def test_what_does_not_fit_changes_nothing(tmp_path: Path) -> None:
    """The model fits, the optimizer, which comes after it, does not."""
    path = saved(tmp_path)
    training = Training("SGD", momentum=0.5)
    with pytest.raises(ValueError, match=r"run.safetensors does not fit optimizer: .*'Adam'"):
        training.fit(3, resume=path)
    assert unchanged(training, Training("SGD", momentum=0.5))

    other = lc.Sequential(lc.GRU(3, 6, seed=0))
    before = other.state_dict()
    with pytest.raises(ValueError, match=r"run\.safetensors does not fit model: state_dict"):
        lc.load_checkpoint(path, model=other)
    assert_same_bits(other.state_dict(), before)

    with pytest.raises(ValueError, match="lacks rng; it has run, model, optimizer"):
        lc.load_checkpoint(path, rng=np.random.default_rng())


GENERATORS: list[tuple[str, list[str], Any]] = [
    ("PCG64", ["state", "state"], -1),
    ("PCG64", ["state", "inc"], 2**200),
    ("PCG64", ["has_uint32"], 2**200),
    ("PCG64", ["uinteger"], -1),
    ("PCG64", ["uinteger"], "x"),
    ("PCG64", ["bit_generator"], "MT19937"),
    ("PCG64", ["state"], {}),
    ("PCG64", ["state"], None),
    ("SFC64", ["uinteger"], -1),
    ("MT19937", ["state", "key"], []),
    ("MT19937", ["state", "pos"], 2**31 - 1),
    ("MT19937", ["state", "pos"], -5),
    ("Philox", ["state", "counter"], []),
    ("Philox", ["buffer_pos"], -(2**31)),
    ("Philox", ["buffer_pos"], 5),
]


@pytest.mark.parametrize(("kind", "path_in_state", "value"), GENERATORS)
def test_damaged_generators_change_nothing(
    tmp_path: Path, kind: str, path_in_state: list[str], value: Any
) -> None:
    path = tmp_path / "run.safetensors"
    rng = np.random.Generator(getattr(np.random, kind)(0))
    rng.integers(5, dtype=np.uint32)
    dropout = lc.Dropout(0.5, seed=0)
    lc.save_checkpoint(path, dropout=dropout, rng=rng)
    with opened(path) as source:
        arrays, metadata = tensor_file.read(source)
    content = json.loads(metadata["lstmcore.checkpoint"])
    damaged = [(content["parts"]["rng"], "rng: ")]
    if kind == "PCG64":
        damaged.append((content["parts"]["dropout"]["random"][""], "dropout: the random state of"))
    sound = json.dumps(content)
    for state, message in damaged:
        place = state
        for name in path_in_state[:-1]:
            place = place[name]
        before, place[path_in_state[-1]] = place[path_in_state[-1]], value
        save_file(arrays, path, {"lstmcore.checkpoint": json.dumps(content)})
        place[path_in_state[-1]] = before
        state_before = rng.bit_generator.state, dropout._rng_state()
        with pytest.raises(ValueError, match=f"does not fit {message}"):
            lc.load_checkpoint(path, dropout=dropout, rng=rng)
        assert repr((rng.bit_generator.state, dropout._rng_state())) == repr(state_before)
    assert json.dumps(content) == sound


def test_what_cannot_be_saved_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = saved(tmp_path)
    before = path.read_bytes()

    class Strange:
        def state_dict(self) -> Any:
            return {"what": object()}

    with pytest.raises(TypeError, match=r"strange.what is <object"):
        lc.save_checkpoint(path, model=Training().model, strange=Strange())
    with pytest.raises(TypeError, match=r"lr is 0\.1"):
        lc.save_checkpoint(path, lr=0.1)

    def fail(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        lc.save_checkpoint(path, model=Training().model)
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["run.safetensors"]
