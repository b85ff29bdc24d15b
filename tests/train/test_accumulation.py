"""A step after several batches is that of one batch of all their rows."""

from __future__ import annotations

from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore.callbacks import Callback, Checkpoint
from lstmcore.losses import cross_entropy, mse

Array = np.ndarray[Any, np.dtype[Any]]

quiet = partial(lc.fit, progress=False)
T, B = 5, 23
RNG = np.random.default_rng(7)
X = RNG.standard_normal((T, B, 3))
STEPS = RNG.integers(0, 4, (T, B))
ROWS = RNG.integers(0, 4, B)
LENGTHS = RNG.integers(0, T + 1, B)
LENGTHS[:4] = 0, 0, 5, 1  # the first batch has no target at all
WEIGHT = RNG.random(B) * 10 ** RNG.uniform(-3, 3, B)
CUTS = [0, 2, 3, 9, 12, 13, 20, 23]  # seven batches of unequal sizes


def model(per_step: bool, dtype: str = "float64") -> lc.Sequential:
    parts = [lc.GRU(3, 6, seed=0, dtype=dtype)] + ([] if per_step else [lc.LastStep()])
    return lc.Sequential(*parts, lc.Linear(6, 4, seed=1, dtype=dtype))


def rows(first: int, last: int, target: Array, weighted: bool, lengths: Any) -> lc.data.Batch:
    part = slice(first, last)
    return lc.data.Batch(
        X[:, part],
        target[:, part] if target.ndim > 1 else target[part],
        None if lengths is None else lengths[part],
        weight=WEIGHT[part] if weighted else None,
    )


def small_and_joined(size: int, *args: Any) -> tuple[list[Any], list[Any]]:
    small = [rows(a, b, *args) for a, b in pairwise(CUTS)]
    ends = [*CUTS[:-1:size], B]
    return small, [rows(a, b, *args) for a, b in pairwise(ends)]


class Losses(Callback):
    """What on_step sees."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_step(self, run: Any) -> None:
        self.seen.append((run.step, run.loss))


@pytest.mark.parametrize("size", [2, 3, 4, 7, 100])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("clip_norm", [None, 0.05])
def test_a_step_is_that_of_the_joined_batch(
    size: int, weighted: bool, per_step: bool, clip_norm: Any
) -> None:
    target = STEPS if per_step else ROWS
    small, joined = small_and_joined(size, target, weighted, LENGTHS)
    found, expected = [], []
    for data, group, seen in ((small, size, found), (joined, 1, expected)):
        one, losses = model(per_step), Losses()
        optimizer = lc.optim.SGD(one.parameters(), lr=0.5, momentum=0.9)
        schedule = lc.optim.StepLR(optimizer, 2, gamma=0.7)
        history = quiet(
            one, data, loss=cross_entropy, optimizer=optimizer, epochs=3, clip_norm=clip_norm,
            accumulate=group, schedule=schedule, schedule_by="step", callbacks=losses,
            metrics=["accuracy"],
        )  # fmt: skip
        assert optimizer.steps == schedule.steps == 3 * len(joined)
        seen += [one.state_dict(), losses.seen, history.losses, history.metrics, history.lr]
    for name, value in expected[0].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-10)
    # Means of a whole epoch are of the parameters at each batch, which are the same ones here.
    np.testing.assert_allclose(found[2], expected[2], rtol=1e-10)
    np.testing.assert_allclose(found[3]["accuracy"], expected[3]["accuracy"], rtol=1e-12)
    assert found[4] == expected[4]


def test_float32_and_targets_that_are_ignored() -> None:
    """As many targets as are not ignored, in weights too large for float32."""
    target = np.where(RNG.random((T, B)) < 0.7, -100, STEPS)
    target[:, :3] = -100
    args = (target, True, None)
    found = []
    for scale in (1.0, 1e60, 1e-60):
        small, joined = ([b._replace(weight=b.weight * scale, x=b.x.astype("f4")) for b in data]
                         for data in small_and_joined(3, *args))  # fmt: skip
        for data, group in ((small, 3), (joined, 1)):
            one = model(True, "float32")
            quiet(one, data, loss=cross_entropy, accumulate=group, epochs=2,
                  optimizer=lc.optim.SGD(one.parameters(), lr=0.5))  # fmt: skip
            found.append(np.concatenate([p.ravel() for p in one.state_dict().values()]))
    for other in found[1:]:
        np.testing.assert_allclose(other, found[0], rtol=2e-4, atol=2e-6)


def test_several_losses_that_weigh_differently() -> None:
    """Steps by lengths, labels by rows: in other proportions in every batch."""

    def two_heads() -> lc.Model:
        x = lc.Input(3)
        y, h = lc.GRU(3, 6, seed=0, dtype="float64")(x)
        head = lc.Linear(6, 4, seed=1, dtype="float64")
        return lc.Model(x, (head(y), lc.Dropout(0.0)(head(h[-1]))))

    parts = small_and_joined(3, STEPS, False, LENGTHS), small_and_joined(3, ROWS, False, LENGTHS)
    data = [
        [s._replace(target=(s.target, r.target)) for s, r in zip(steps, labels, strict=True)]
        for steps, labels in zip(*parts, strict=True)
    ]
    found = []
    for batches, group in zip(data, (3, 1), strict=True):
        one, losses = two_heads(), Losses()
        history = quiet(
            one, batches, loss=("cross_entropy", "cross_entropy"), loss_weights=(1, 0.3), epochs=2,
            optimizer=lc.optim.SGD(one.parameters(), lr=0.5), accumulate=group, callbacks=losses,
        )  # fmt: skip
        values = np.concatenate([p.ravel() for p in one.state_dict().values()])
        found.append((values, losses.seen, history.losses, list(history.metrics.values())))
    for one_part, other in zip(*found, strict=True):
        np.testing.assert_allclose(one_part, other, rtol=1e-10)


def test_against_pytorch() -> None:
    """Its idiom, the sum of backward passes, each divided by how many targets all have."""
    torch = require("torch")
    ours = lc.Linear(3, 2, dtype="float64", seed=0)
    theirs = torch.nn.Linear(3, 2).double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    x, y = X[0], X[1][:, :2]
    data = [(x[a:b], y[a:b]) for a, b in pairwise(CUTS)]
    adam = torch.optim.Adam(theirs.parameters(), lr=0.1)
    for start in (0, 3, 6):
        group = data[start : start + 3]
        adam.zero_grad()
        for one, target in group:
            loss = torch.nn.functional.mse_loss(
                theirs(torch.from_numpy(one)), torch.from_numpy(target), reduction="sum"
            )
            (loss / sum(target.size for _, target in group)).backward()
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        adam.step()
    quiet(ours, data, loss=mse, optimizer=lc.optim.Adam(ours.parameters(), lr=0.1), accumulate=3,
          clip_norm=0.5)  # fmt: skip
    for name, value in ours.state_dict().items():
        np.testing.assert_allclose(value, theirs.state_dict()[name].numpy(), rtol=1e-9)


def test_one_by_one_has_the_same_bits_as_ever() -> None:
    small, _ = small_and_joined(1, ROWS, True, LENGTHS)
    one, two = model(False), model(False)
    quiet(one, small, loss=cross_entropy, optimizer=lc.optim.Adam(one.parameters()))
    quiet(two, small, loss=cross_entropy, optimizer=lc.optim.Adam(two.parameters()), accumulate=1)
    assert one == two


def test_sparse_gradients_are_scaled_where_they_are() -> None:
    ids = RNG.integers(0, 9, (T, B))
    small, joined = (
        [(ids[:, a:b], ROWS[a:b]) for a, b in pairwise(ends)] for ends in (CUTS, [0, 9, 20, 23])
    )
    found = []
    for data, group in ((small, 3), (joined, 1)):
        one = lc.Sequential(
            lc.Embedding(50, 3, seed=2, dtype="float64", sparse=True), *model(False)
        )
        quiet(one, data, loss=cross_entropy, accumulate=group, epochs=2,
              optimizer=lc.optim.SGD(one.parameters(), lr=0.5))  # fmt: skip
        found.append(one.state_dict())
    for name, value in found[1].items():
        np.testing.assert_allclose(found[0][name], value, rtol=1e-9, atol=1e-13)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"accumulate": 0}, ValueError, "accumulate is 0, expected at least 1"),
        ({"accumulate": 1.5}, TypeError, r"accumulate is 1\.5"),
        ({"accumulate": 2, "truncate": 3}, ValueError, "accumulate=2 makes a step after several"),
        ({"gradient_accumulation_steps": 2}, TypeError, "_steps=, here accumulate="),
    ],
)
def test_what_is_refused(options: Any, error: type[Exception], message: str) -> None:
    one = model(True)
    with pytest.raises(error, match=message):
        quiet(one, (X, STEPS), loss=cross_entropy, optimizer=lc.optim.SGD(one.parameters()),
              **options)  # fmt: skip
    assert one == model(True)


def test_resuming_with_another_number_is_refused(tmp_path: Path) -> None:
    path, one = tmp_path / "run.safetensors", model(False)
    given: dict[str, Any] = {"loss": cross_entropy, "batch_size": 4, "seed": 0}
    given["optimizer"] = lc.optim.SGD(one.parameters())
    quiet(one, (X, ROWS), **given, accumulate=2, callbacks=Checkpoint(path))
    with pytest.raises(ValueError, match="accumulate is 3, and was 2"):
        quiet(one, (X, ROWS), **given, accumulate=3, epochs=2, resume=path)
    assert quiet(one, (X, ROWS), **given, accumulate=2, epochs=2, resume=path).epochs == 2


def test_a_run_that_stops_between_steps() -> None:
    """An error in the second batch of a group leaves the parameters of the last step."""
    one = model(False)
    bad = X[:, :4].copy()
    bad[0, 0, 0] = np.nan
    data = [(X[:, :4], ROWS[:4]), (bad, ROWS[:4])]
    with pytest.raises(lc.NonFiniteError, match="the loss is nan in epoch 1, step 1"):
        quiet(one, data, loss=cross_entropy, accumulate=2,
              optimizer=lc.optim.SGD(one.parameters()))  # fmt: skip
    assert one == model(False)
