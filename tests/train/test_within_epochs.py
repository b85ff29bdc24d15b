"""Checkpoints within an epoch: a run that goes on from one is the run that was never ended."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore.callbacks import BestWeights, Callback, Checkpoint, CSVLogger

quiet = partial(lc.fit, progress=False)
RNG = np.random.default_rng(0)
X = RNG.standard_normal((7, 26, 3)).astype("float32")
STEPS = RNG.standard_normal((7, 26, 2)).astype("float32")
LENGTHS = RNG.integers(1, 8, 26)


class Training:
    """All that a run consists of, made anew from the same seeds: five batches an epoch."""

    def __init__(self, data: str = "Batches", seed: int = 0) -> None:
        self.model = lc.Sequential(
            lc.LSTM(3, 6, num_layers=2, dropout=0.3, seed=seed),
            lc.Dropout(0.2, seed=seed + 1),
            lc.Linear(6, 2, seed=seed + 2),
        )
        options: dict[str, Any] = {"batch_size": 6, "seed": 3}
        self.data: Any = {
            "Batches": lambda: lc.data.Batches(X, STEPS, LENGTHS, **options),
            "Buckets": lambda: lc.data.Buckets(
                [X[:n, i] for i, n in enumerate(LENGTHS)],
                [STEPS[:n, i] for i, n in enumerate(LENGTHS)], **options,
            ),
            "list": lambda: list(lc.data.Batches(X, STEPS, LENGTHS, **options)),
        }[data]()  # fmt: skip
        self.optimizer = lc.optim.Adam(self.model.parameters(), lr=0.02)
        self.schedule = lc.optim.CosineLR(self.optimizer, 40)
        self.best = BestWeights()

    def fit(self, callbacks: Any = (), **options: Any) -> lc.History:
        validation = (X[:, :6], STEPS[:, :6], LENGTHS[:6]) if options.pop("validated", 0) else None
        return quiet(
            self.model, self.data, loss="mse", metrics=["rmse", "mae", "nse"],
            optimizer=self.optimizer,
            schedule=self.schedule, schedule_by="step", epochs=3, validation=validation,
            callbacks=[self.best, *callbacks], **options,
        )  # fmt: skip


def measured(history: lc.History) -> Any:
    return history.losses, history.validation_losses, history.metrics, history.lr


@pytest.mark.parametrize(
    ("data", "options"),
    [
        ("Batches", {}),
        ("Buckets", {"clip_norm": 0.1}),
        ("list", {"validated": True}),
        ("Batches", {"accumulate": 2}),
        ("Batches", {"truncate": 3}),
    ],
)
def test_from_any_step_to_the_same_bits(tmp_path: Path, data: str, options: Any) -> None:
    whole, saving = Training(data), Training(data)
    expected = whole.fit(**options)
    path = tmp_path / "{step}.safetensors"
    saving.fit([Checkpoint(path, every=100, every_steps=1)], **options)
    saved = sorted(tmp_path.iterdir(), key=lambda path: int(path.stem))
    assert len(saved) == (9 if "accumulate" in options else 15)
    for path in saved[:6] + saved[-2:]:
        again = Training(data, seed=50)
        history = again.fit(**options, resume=path)
        assert again.model == whole.model, path.name
        assert measured(history) == measured(expected), path.name
        assert again.optimizer.steps == whole.optimizer.steps
        assert again.schedule.state_dict() == whole.schedule.state_dict()
        assert again.best.best_epoch == whole.best.best_epoch
        if data != "list":
            assert again.data.state_dict() == whole.data.state_dict()


def test_a_run_that_dies_goes_on_from_its_file(tmp_path: Path) -> None:
    """One file, replaced; the epoch's time counts what was before."""
    path, table = tmp_path / "run.safetensors", tmp_path / "run.csv"
    whole, first, second = Training(), Training(), Training(seed=9)
    expected = whole.fit()

    class Dies(Callback):
        def on_step(self, run: Any) -> None:
            if run.step == 9:  # the fourth batch of the second epoch
                raise RuntimeError("the lights went out")

    with pytest.raises(RuntimeError, match="lights"):
        first.fit([Dies(), Checkpoint(path, every_steps=3)])
    assert first.model != whole.model
    seen = []

    class Sees(Callback):
        def on_start(self, run: Any) -> None:
            seen.append((run.epoch, run.step, run.batch, run.seconds > 0))

    history = second.fit([Sees(), CSVLogger(table)], resume=path)
    assert seen == [(1, 6, 1, True)]
    assert second.model == whole.model
    assert measured(history) == measured(expected)
    assert len(table.read_text().splitlines()) == 4


def test_when_it_saves(tmp_path: Path) -> None:
    """Between batches only; what is due at the end of an epoch is saved with the epoch."""
    at: list[tuple[int, int]] = []

    class Spy(Checkpoint):
        def _save(self, run: Any, epoch: int) -> None:
            super()._save(run, epoch)
            at.append((run.epoch, run.step))

    for every, steps, expected in (
        (1, None, [(1, 5), (2, 10), (3, 15)]),
        (1, 2, [(0, 2), (0, 4), (1, 5), (1, 6), (1, 8), (2, 10), (2, 12), (2, 14), (3, 15)]),
        (9, 5, [(1, 5), (2, 10), (3, 15)]),
        (9, 7, [(1, 7), (2, 14), (3, 15)]),
    ):
        at.clear()
        Training().fit([Spy(tmp_path / "a.safetensors", every=every, every_steps=steps)])
        assert at == expected, (every, steps)
    names = tmp_path / "run-{epoch}-{step}.safetensors"
    Training().fit([Checkpoint(names, every=9, every_steps=7)])
    assert {p.stem for p in tmp_path.iterdir()} == {"a", "run-2-7", "run-3-14", "run-3-15"}


def test_batches_of_ones_own(tmp_path: Path) -> None:
    """Without a length, and with a state: what it is at the beginning of the epoch counts."""

    class Own:
        def __init__(self) -> None:
            self.rng = np.random.default_rng(1)

        def __iter__(self) -> Iterator[Any]:
            for _ in range(4):
                rows = self.rng.integers(0, 26, 5)
                yield X[:, rows], STEPS[:, rows], LENGTHS[rows]

        def state_dict(self) -> Any:
            return self.rng.bit_generator.state

        def load_state_dict(self, state: Any) -> None:
            self.rng.bit_generator.state = state

    path = tmp_path / "{step}.safetensors"
    runs = [Training() for _ in range(3)]
    for run in runs:
        run.data = Own()
    expected = runs[0].fit()
    runs[1].fit([Checkpoint(path, every_steps=1)])
    history = runs[2].fit(resume=tmp_path / "7.safetensors")
    assert runs[2].model == runs[0].model
    assert measured(history) == measured(expected)


def test_other_data_than_before_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "{step}.safetensors"
    Training("list").fit([Checkpoint(path, every_steps=1)])
    again = Training("list", seed=4)
    again.data = again.data[:3]
    with pytest.raises(ValueError, match="saved after 4 batches of an epoch, but data has no more"):
        again.fit(resume=tmp_path / "9.safetensors")


@pytest.mark.parametrize("every_steps", [0, -1, 1.5, "x"])
def test_bad_options_are_refused(every_steps: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="every_steps is"):
        Checkpoint("a", every_steps=every_steps)
