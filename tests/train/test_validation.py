"""The share of the rows that is kept for validation, and which epoch was the best."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore.callbacks import BestWeights, Checkpoint, EarlyStopping

quiet = partial(lc.fit, progress=False)
RNG = np.random.default_rng(1)
X = RNG.standard_normal((20, 3))
Y = X @ [[1.0], [-2.0], [0.5]] + RNG.standard_normal((20, 1))


def linear() -> lc.Linear:
    return lc.Linear(3, 1, dtype="float64", seed=0)


def sgd(model: Any, lr: float = 0.1) -> Any:
    return lc.optim.SGD(model.parameters(), lr=lr)


def test_the_split_is_that_of_keras() -> None:
    keras = require("keras")
    ours = lc.Sequential(lc.Linear(3, 1, seed=0))
    theirs = lc.to_keras(ours)
    theirs.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse")
    x, y = X.astype("f4"), Y.astype("f4")
    options: dict[str, Any] = {"epochs": 4, "batch_size": 5, "shuffle": False}
    expected = theirs.fit(x, y, validation_split=0.33, verbose=0, **options).history
    history = quiet(ours, (x, y), loss="mse", optimizer=sgd(ours), validation_split=0.33, **options)
    np.testing.assert_allclose(history.losses, expected["loss"], rtol=1e-5)
    np.testing.assert_allclose(history.validation_losses, expected["val_loss"], rtol=1e-5)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("fraction", "kept"), [(0.25, 2), (0.3, 3), (0.5, 4), (7 / 8, 7)])
def test_the_last_rows_are_kept(batch_first: bool, fraction: float, kept: int) -> None:
    """With lengths, resets and weights, which belong to their rows."""
    layer = lc.GRU(2, 3, seed=0, dtype="float64", batch_first=batch_first)
    model = lc.Sequential(layer, lc.Linear(3, 1, seed=1, dtype="float64"))
    x, target = RNG.standard_normal((8, 4, 2)), RNG.standard_normal((8, 4, 1))
    lengths = np.array([4, 2, 1, 3, 4, 4, 2, 3])
    resets, weight = RNG.random((8, 4)) < 0.2, np.arange(8.0) + 1
    fields = [x, target, lengths, resets]

    def rows(part: slice) -> lc.data.Batch:
        cut = [array[part] for array in fields]
        if not batch_first:
            cut = [a if a.ndim == 1 else a.swapaxes(0, 1) for a in cut]
        return lc.data.Batch(*cut, weight=weight[part])

    whole = rows(slice(None))
    history = quiet(
        model, tuple(whole[:4]), weight=weight, loss="mse", validation_split=fraction,
        optimizer=sgd(model, 0.0),
    )  # fmt: skip
    for values, part in (
        (history.losses, slice(0, 8 - kept)),
        (history.validation_losses, slice(8 - kept, 8)),
    ):
        expected = lc.evaluate(model, [rows(part)], loss="mse")["loss"]
        assert values[0] == pytest.approx(expected, rel=1e-13)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_split": 0.0}, "validation_split is 0.0, expected a number between 0 and 1"),
        ({"validation_split": 1}, "validation_split is 1, expected a number between"),
        ({"validation_split": 0.99}, r"validation_split is 0\.99, which leaves 0 of 20 rows"),
        ({"validation_split": 0.2, "validation": (X, Y)}, "validation and validation_split are g"),
        ({"validation_split": 0.2, "data": [(X, Y)]}, "but data is no tuple of arrays to split"),
        ({"validation_split": 0.2, "data": (X, Y, None, None, Y), "weight": Y}, "given twice"),
    ],
)
def test_bad_splits_are_refused(options: dict[str, Any], message: str) -> None:
    model = linear()
    options = {"data": (X, Y), **options}
    data = options.pop("data")
    with pytest.raises(ValueError, match=message):
        quiet(model, data, loss="mse", optimizer=sgd(model), **options)
    assert model == linear()


def test_lengths_of_an_x_without_steps_are_refused() -> None:
    class Pair(lc.Module):
        def __init__(self) -> None:
            self.p = lc.Parameter("p", np.zeros(1))

        def forward(self, x: Any, lengths: Any = None) -> Any:
            return x[0], None

        def backward(self, tape: Any, dy: Any) -> Any:
            return dy, None

    model = Pair()
    lengths = np.ones(4, int), np.ones(4, int)
    data = ((X[:4], X[:4]), X[:4], lengths)
    with pytest.raises(ValueError, match=r"lengths\[0\] is given, but x\[0\] has no steps"):
        quiet(model, data, loss="mse", optimizer=sgd(model), validation_split=0.5)


def test_another_split_than_the_checkpoints_is_refused(tmp_path: Path) -> None:
    path, model = tmp_path / "run.safetensors", linear()
    given: dict[str, Any] = {"loss": "mse", "optimizer": sgd(model), "batch_size": 4}
    quiet(model, (X, Y), **given, validation_split=0.2, callbacks=Checkpoint(path))
    with pytest.raises(ValueError, match=r"validation_split is 0\.3, and was 0\.2"):
        quiet(model, (X, Y), **given, validation_split=0.3, resume=path, epochs=2)
    history = quiet(model, (X, Y), **given, validation_split=0.2, resume=path, epochs=2)
    assert history.epochs == 2


# The best epoch -----------------------------------------------------------------------------------


def test_the_best_epoch_has_the_lowest_loss() -> None:
    history = lc.History()
    assert history.best_epoch is None
    for loss in (3.0, 1.0, 2.0, 1.0):
        history.record(loss, None, {}, 0.1, 1.0)
    assert history.best_epoch == 2
    for loss in (5.0, 6.0, 4.0):  # a resumed run may measure more than before
        history.record(0.5, loss, {}, 0.1, 1.0)
    assert history.best_epoch == 7
    again = lc.History()
    again.load_state_dict(history.state_dict())
    assert again.best_epoch == 7


def test_the_best_epoch_is_that_of_the_callback(tmp_path: Path) -> None:
    """Also behind a checkpoint."""
    values = iter([0.1, 0.9, 0.5, 0.4, 0.3, 0.2])
    path = tmp_path / "run.safetensors"

    def options(model: Any) -> dict[str, Any]:
        return {
            "loss": "mse",
            "optimizer": sgd(model),
            "metrics": {"score": lambda pred, target: next(values)},
        }

    model = linear()
    best = BestWeights("score", mode="max")
    history = quiet(model, [(X, Y)], **options(model), epochs=4, callbacks=[best, Checkpoint(path)])
    assert history.losses[3] == min(history.losses)
    assert history.best_epoch == best.best_epoch == 2
    again = linear()
    stopping = EarlyStopping(2, monitor="score", mode="max")
    given = {**options(again), "callbacks": [stopping], "resume": path}
    history = quiet(again, [(X, Y)], **given, epochs=6)
    assert history.stopped is not None
    assert history.best_epoch == stopping.best_epoch == 2


MEASURES: list[dict[str, Any]] = [
    {},
    {"metrics": ["mae"]},
    {"metrics": ["rmse", "mae"]},
    {"metrics": ["mae"], "validation": (X, Y)},
    {"validation": (X, Y)},
]


@pytest.mark.parametrize("first", range(len(MEASURES)))
@pytest.mark.parametrize("second", range(len(MEASURES)))
def test_a_resumed_run_that_measures_other_things_says_when(
    first: int, second: int, tmp_path: Path
) -> None:
    path, log = tmp_path / "run.safetensors", tmp_path / "run.csv"
    model = linear()
    given: dict[str, Any] = {"data": (X, Y), "loss": "mse"}
    quiet(model, **given, optimizer=sgd(model), epochs=2, callbacks=Checkpoint(path),
          **MEASURES[first])  # fmt: skip
    model = linear()
    history = quiet(
        model, **given, optimizer=sgd(model), epochs=5, resume=path, **MEASURES[second],
        callbacks=lc.callbacks.CSVLogger(log),
    )  # fmt: skip
    for name in ("rmse", "mae", "validation"):
        then, now = (
            name in options.get("metrics", ()) or name in options
            for options in (MEASURES[first], MEASURES[second])
        )
        values = history.validation_losses if name == "validation" else history.metrics.get(name)
        expected = [then, then, now, now, now]
        assert [not np.isnan(v) for v in values or []] == (expected if then or now else [])
        shown = "validation loss" if name == "validation" else name
        assert (shown in history.last()) == now
        if then or now:
            column = np.genfromtxt(log, delimiter=",", names=True)[shown.replace(" ", "_")]
            np.testing.assert_array_equal(column, values or [])
    scored = history.validation_losses or history.losses
    assert history.best_epoch == 1 + int(np.nanargmin(scored))


def test_older_checkpoints_have_shorter_lists() -> None:
    history = lc.History()
    state = {"losses": [3.0, 2.0, 1.0], "lr": [0.1] * 3, "time": [1.0] * 3}
    history.load_state_dict({**state, "metrics": {"mae": [5.0]}, "validation_losses": [4.0, 6.0]})
    np.testing.assert_array_equal(history.metrics["mae"], [np.nan, np.nan, 5.0])
    assert history.best_epoch == 2
