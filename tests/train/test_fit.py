"""The training loop: the same steps as a loop by hand, and all that it does around them."""

from __future__ import annotations

import builtins
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore.losses import cross_entropy, mse

Array = np.ndarray[Any, np.dtype[Any]]

quiet = partial(lc.fit, progress=False)


def classifier(seed: int = 0, **options: Any) -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(3, 5, seed=seed, **options), lc.LastStep(), lc.Linear(5, 4, seed=seed + 1)
    )


def tagger(seed: int = 0, dtype: str = "float32", **options: Any) -> lc.Sequential:
    return lc.Sequential(
        lc.LSTM(3, 5, seed=seed, dtype=dtype, **options), lc.Linear(5, 4, dtype=dtype, seed=seed)
    )


def sequences(rows: int = 6, time: int = 9, dtype: str = "float32") -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((time, rows, 3)).astype(dtype)
    return x, rng.integers(0, 4, (time, rows)), rng.integers(1, time + 1, rows)


def adam(model: Any, lr: float = 0.01) -> Any:
    return lc.optim.Adam(model.parameters(), lr=lr)


# The steps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
def test_fit_does_what_a_loop_by_hand_does(
    batch_first: bool, per_step: bool, with_lengths: bool
) -> None:
    make = tagger if per_step else classifier
    ours, theirs = make(batch_first=batch_first), make(batch_first=batch_first)
    batches = []
    for rows in (6, 3):
        x, target, lengths = sequences(rows)
        target = target if per_step else target[0]
        if batch_first:
            x = x.swapaxes(0, 1)
            target = target.swapaxes(0, 1) if per_step else target
        batches.append((x, target, lengths) if with_lengths else (x, target))
    history = quiet(ours, batches, loss=cross_entropy, optimizer=adam(ours), epochs=2)

    optimizer, losses = adam(theirs), []
    for _ in range(2):
        total, count = 0.0, 0
        for x, target, *rest in batches:
            given = {"lengths": rest[0]} if rest else {}
            y, tape = theirs.forward(x, **given)
            masked = given if per_step else {}
            order = {"batch_first": batch_first} if masked else {}
            loss, dy = cross_entropy(y, target, **masked, **order)
            optimizer.zero_grad()
            theirs.backward(tape, dy)
            optimizer.step()
            targets = int(rest[0].sum()) if masked else target.size
            total, count = total + loss * targets, count + targets
        losses.append(total / count)
    assert ours == theirs
    assert history.losses == losses
    assert history.epochs == len(history.time) == len(history.lr) == 2


@pytest.mark.parametrize("batch_first", [False, True])
def test_truncated_chunks_carry_the_state(batch_first: bool) -> None:
    ours, theirs = (tagger(dtype="float64", batch_first=batch_first) for _ in range(2))
    x, target, lengths = sequences(dtype="float64")
    lengths[0], lengths[1] = 9, 2  # one row goes through all chunks, one ends in the first
    resets = np.random.default_rng(4).random((9, 6)) < 0.2
    if batch_first:
        x, target, resets = x.swapaxes(0, 1), target.swapaxes(0, 1), resets.swapaxes(0, 1)
    quiet(
        ours, [(x, target, lengths, resets)], loss=cross_entropy, optimizer=adam(ours), truncate=4
    )
    optimizer, state = adam(theirs), None
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        part = (slice(None), slice(start, stop)) if batch_first else slice(start, stop)
        left = np.clip(lengths - start, 0, stop - start)
        y, tape = theirs.forward(x[part], state, lengths=left, resets=resets[part])
        state = tape.state
        _, dy = cross_entropy(y, target[part], left, batch_first=batch_first)
        optimizer.zero_grad()
        theirs.backward(tape, dy)
        optimizer.step()
    assert ours == theirs


@pytest.mark.parametrize("batch_first", [False, True])
def test_truncated_chunks_of_several_inputs(batch_first: bool) -> None:
    """What has steps is cut, of x, targets and weights; what has none goes to every chunk."""
    options: dict[str, Any] = {"dtype": "float64"}

    def network() -> lc.Model:
        x, ids, static = lc.Input(3), lc.Input(ids=True), lc.Input(2, steps=False)
        parts = [x, lc.Embedding(4, 3, seed=0, **options)(ids), lc.repeat(static, like=x)]
        y, _ = lc.LSTM(8, 5, batch_first=batch_first, seed=1, **options)(lc.concat(parts))
        heads = {name: lc.Linear(5, n, seed=n, **options)(y) for name, n in (("a", 2), ("b", 3))}
        return lc.Model({"x": x, "ids": ids, "static": static}, heads)

    rng, shape = np.random.default_rng(0), (6, 9) if batch_first else (9, 6)
    x = {"x": rng.standard_normal((*shape, 3)), "ids": rng.integers(0, 4, shape)}
    x["static"] = rng.standard_normal((6, 2))
    target = {"a": rng.standard_normal((*shape, 2)), "b": rng.integers(0, 3, shape)}
    weight = {"a": rng.random(shape), "b": None}
    lengths = np.array([9, 2, 5, 8, 0, 7])
    ours, theirs = network(), network()
    loss = {"a": "mse", "b": "cross_entropy"}
    data = [lc.data.Batch(x, target, lengths, weight=weight)]
    quiet(ours, data, loss=loss, optimizer=adam(ours), truncate=4)
    optimizer, state = adam(theirs), None
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        part = (slice(None), slice(start, stop)) if batch_first else slice(start, stop)
        left = np.clip(lengths - start, 0, stop - start)
        chunk = {name: array if name == "static" else array[part] for name, array in x.items()}
        y, tape = theirs.forward(chunk, state, lengths=left)
        state = tape.state
        first = {"batch_first": batch_first}
        _, da = mse(y["a"], target["a"][part], left, weight=weight["a"][part], **first)
        _, db = cross_entropy(y["b"], target["b"][part], left, **first)
        optimizer.zero_grad()
        theirs.backward(tape, {"a": da, "b": db})
        optimizer.step()
    assert ours == theirs
    whole, cut = (lc.evaluate(ours, data, loss=loss, truncate=k)["loss"] for k in (None, 4))
    assert cut == pytest.approx(whole, rel=1e-12)


def test_what_has_no_steps_is_not_cut_whatever_its_size() -> None:
    """As many features as rows, and as many rows as steps."""
    x, static = lc.Input(3), lc.Input(4, steps=False)
    y, _ = lc.GRU(7, 2, seed=0)(lc.concat([x, lc.repeat(static, like=x)]))
    model, rng = lc.Model([x, static], y), np.random.default_rng(0)
    values = rng.standard_normal((4, 4, 3)).astype("f4"), rng.standard_normal((4, 4)).astype("f4")
    target = rng.standard_normal((4, 4, 2)).astype("f4")
    whole, cut = (
        lc.evaluate(model, [(values, target)], loss="mse", truncate=k)["loss"] for k in (None, 3)
    )
    assert cut == pytest.approx(whole, rel=1e-6)


def test_what_chunks_of_several_inputs_cannot_be() -> None:
    x, other, static = lc.Input(3), lc.Input(3), lc.Input(4, steps=False)
    y, h = lc.GRU(3, 4, seed=0)(x)
    z, _ = lc.GRU(3, 4, seed=1)(other)
    fits = np.zeros((9, 6, 3), "f4"), np.zeros((9, 6, 4), "f4")
    options: dict[str, Any] = {"loss": "mse", "truncate": 3}

    # Each chunk would begin with that state again.
    wired = lc.Model([x, static], lc.GRU(3, 4, seed=0)(x, static[None])[0])
    around = lc.Model([x, static], 2 * wired([x, static]))
    for model in (wired, around):
        with pytest.raises(ValueError, match=r"truncate=3 .* that of GRU\(3, 4\) is made within"):
            lc.evaluate(model, [((fits[0], np.zeros((6, 4), "f4")), fits[1])], **options)
    two = lc.Model({"x": x, "other": other}, {"y": y, "z": z})
    losses = options | {"loss": {"y": "mse", "z": "mse"}}
    shorter = np.zeros((8, 6, 3), "f4")
    data: Any = {"x": fits[0], "other": shorter}, {"y": fits[1], "z": fits[1][:8]}
    with pytest.raises(ValueError, match=r"x has shape \[\(9, 6, 3\), \(8, 6, 3\)\] and target"):
        lc.evaluate(two, [data], **losses)
    data = {"x": fits[0], "other": fits[0]}, {"y": fits[1], "z": fits[1]}
    batch = lc.data.Batch(*data, {"x": [1] * 6, "other": [2] * 6})
    with pytest.raises(ValueError, match="needs the same lengths for every input with steps"):
        lc.evaluate(two, [batch], **losses)
    last = lc.Model(x, {"y": y, "h": h[-1]})
    data = fits[0], {"y": fits[1], "h": fits[1][0]}
    with pytest.raises(ValueError, match=r"needs a target for each step, but x has shape \(9, 6"):
        lc.evaluate(last, [data], **options | {"loss": {"y": "mse", "h": "mse"}})


def test_the_state_is_not_carried_to_the_next_batch() -> None:
    model = tagger(dtype="float64")
    data = [sequences(dtype="float64")] * 2
    history = quiet(
        model, data, loss=cross_entropy, optimizer=lc.optim.SGD(model.parameters(), lr=0.0),
        truncate=4,
    )  # fmt: skip
    assert history.losses == pytest.approx([lc.evaluate(model, data, loss=cross_entropy)["loss"]])


def test_a_target_for_each_row_is_not_truncated() -> None:
    x, target, _ = sequences(rows=9)  # so many rows as steps
    model = tagger()
    with pytest.raises(
        ValueError, match=r"truncate=3 needs a target for each step, but x has shape"
    ):
        quiet(model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model), truncate=3)


def test_truncating_nowhere_is_not_truncating() -> None:
    ours, theirs = tagger(), tagger()
    x, target, lengths = sequences()
    first = quiet(ours, [(x, target, lengths)], loss=cross_entropy, optimizer=adam(ours), epochs=3)
    second = quiet(
        theirs, [(x, target, lengths)], loss=cross_entropy, optimizer=adam(theirs), epochs=3,
        truncate=9,
    )  # fmt: skip
    assert ours == theirs
    assert first.losses == second.losses


def test_clip_norm_clips_all_gradients_together() -> None:
    ours, theirs = tagger(), tagger()
    batch = sequences()
    quiet(ours, [batch], loss=cross_entropy, optimizer=adam(ours), clip_norm=0.01, epochs=4)
    optimizer = adam(theirs)
    for _ in range(4):
        x, target, lengths = batch
        y, tape = theirs.forward(x, lengths=lengths)
        _, dy = cross_entropy(y, target, lengths)
        optimizer.zero_grad()
        theirs.backward(tape, dy)
        assert lc.clip_grad_norm(theirs.parameters(), 0.01) > 0.01
        optimizer.step()
    assert ours == theirs


class Counting(lc.callbacks.Callback):
    """Notes the steps, and stops the run in one of them."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.steps: list[int] = []
        self.stop_at = stop_at

    def on_step(self, run: Any) -> None:
        self.steps.append(run.step)
        if run.step == self.stop_at:
            run.stop("enough")


def test_chunks_end_with_the_longest_row() -> None:
    """Where all rows of a batch have ended there is no step of the optimizer."""
    x, target, _ = sequences(6, 9)
    for longest, steps in ((3, 2), (2, 1), (9, 5), (0, 0)):
        model, counting = tagger(), Counting()
        lengths = np.full(6, longest)
        lengths[1:] //= 2
        given = [(x, target, lengths), (x, target, np.full(6, 9))]
        history = quiet(
            model, given, loss=cross_entropy, optimizer=adam(model), truncate=2,
            callbacks=[counting],
        )  # fmt: skip
        assert counting.steps == list(range(1, steps + 6))
        assert history.epochs == 1


@pytest.mark.parametrize("truncate", [None, 4])
def test_a_run_stops_after_the_step_that_asks_for_it(truncate: int | None) -> None:
    model, counting = tagger(), Counting(stop_at=2)
    x, target, lengths = sequences()
    history = quiet(
        model, [(x, target, lengths)] * 3, loss=cross_entropy, optimizer=adam(model), epochs=5,
        callbacks=[counting], truncate=truncate,
    )  # fmt: skip
    assert counting.steps == [1, 2]
    assert (history.stopped, history.epochs) == ("enough", 0)


def test_clip_norm_is_that_of_what_the_optimizer_has() -> None:
    """The gradients of other parameters count for nothing, and stay as they are."""
    ours, theirs = tagger(), tagger()
    x, target, lengths = sequences()
    quiet(
        ours, [(x, target, lengths)], loss=cross_entropy, clip_norm=0.01,
        optimizer=lc.optim.SGD(ours[1].parameters(), lr=1.0),
    )  # fmt: skip
    y, tape = theirs.forward(x, lengths=lengths)
    theirs.backward(tape, cross_entropy(y, target, lengths)[1])
    assert lc.clip_grad_norm(theirs[1].parameters(), 0.01) > 0.01
    lc.optim.SGD(theirs[1].parameters(), lr=1.0).step()
    assert ours == theirs
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert_same_bits(p.grad, q.grad)


def test_parameters_that_the_optimizer_lacks_stay() -> None:
    model = classifier()
    before = model[0].state_dict()
    x, target, _ = sequences()
    optimizer = lc.optim.Adam(model[2].parameters())
    quiet(model, [(x, target[0])], loss=cross_entropy, optimizer=optimizer, epochs=3)
    assert_same_bits(model[0].state_dict(), before)
    assert model[2] != classifier()[2]


@pytest.mark.parametrize("make", [lambda: lc.GRU(3, 4, seed=0), lambda: lc.Linear(3, 4, seed=0)])
def test_a_single_module_is_a_model(make: Callable[[], Any]) -> None:
    model = make()
    x, _, lengths = sequences()
    target = np.zeros((9, 6, 4), "float32")
    batch = (x, target, lengths) if isinstance(model, lc.GRU) else (x, target)
    history = quiet(model, [batch], loss=mse, optimizer=adam(model), epochs=20)
    assert history.losses[-1] < history.losses[0]
    assert model != make()


def test_a_model_of_ones_own() -> None:
    class Mine:
        def __init__(self) -> None:
            self.head = lc.Linear(3, 4, seed=0)

        def forward(self, x: Array) -> Any:
            return self.head.forward(x)

        def backward(self, tape: Any, dy: Array) -> Any:
            return self.head.backward(tape, dy)

        def parameters(self) -> Any:
            return self.head.parameters()

        def zero_grad(self) -> None:
            self.head.zero_grad()

    mine, ours = Mine(), lc.Linear(3, 4, seed=0)
    x, target, _ = sequences()
    for model in (mine, ours):
        quiet(model, [(x, target)], loss=cross_entropy, optimizer=adam(model), epochs=3)
    assert mine.head == ours


def test_arrays_are_cut_into_shuffled_batches() -> None:
    x, target, lengths = sequences(7)
    results = []
    for seed in (0, 0, 1):
        model = classifier()
        quiet(
            model, (x, target[0], lengths), batch_size=3, seed=seed, loss=cross_entropy,
            optimizer=adam(model), epochs=2,
        )  # fmt: skip
        results.append(model)
    assert results[0] == results[1] != results[2]
    by_hand = classifier()
    batches = lc.data.Batches(x, target[0], lengths, batch_size=3, seed=1)
    quiet(by_hand, batches, loss=cross_entropy, optimizer=adam(by_hand), epochs=2)
    assert by_hand == results[2]


# Validation, metrics, schedules ------------------------------------------------------------------


def accuracy(pred: Array, target: Array) -> float:
    return float((pred.argmax(axis=-1) == target).mean())


def test_validation_and_metrics() -> None:
    model = classifier()
    x, target, lengths = sequences(7)
    test_x, test_target, test_lengths = sequences(5)
    epochs = []

    def on_epoch(run: Any) -> None:
        pred = run.model(test_x, lengths=test_lengths)
        loss = cross_entropy(pred, test_target[1])[0]
        epochs.append((loss, accuracy(pred, test_target[1])))

    history = quiet(
        model,
        (x, target[0], lengths),
        batch_size=2,
        loss=cross_entropy,
        optimizer=adam(model),
        epochs=3,
        validation=(test_x, test_target[1], test_lengths),
        metrics={"accuracy": accuracy},
        callbacks=[on_epoch],
    )
    # The means over batches of 2, 2 and 1 are those over all rows.
    np.testing.assert_allclose(history.validation_losses, [e[0] for e in epochs], rtol=1e-6)
    np.testing.assert_allclose(history.metrics["accuracy"], [e[1] for e in epochs])
    # Without validation data they are of the training data, while training.
    alone = quiet(
        model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model, lr=0.0),
        metrics={"accuracy": accuracy},
    )  # fmt: skip
    assert alone.metrics == {"accuracy": [accuracy(model(x), target[0])]}
    assert alone.validation_losses == []


def test_metrics_are_of_the_validation_data_alone() -> None:
    model = classifier()
    x, target, _ = sequences()
    rows: list[int] = []

    def metric(pred: Array, target: Array) -> float:
        rows.append(len(pred))
        return 0.5

    quiet(
        model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model),
        validation=[(x[:, :2], target[0, :2])], metrics={"metric": metric},
    )  # fmt: skip
    assert set(rows) == {2}


def test_evaluate_in_chunks_is_evaluate() -> None:
    model = tagger(dtype="float64")
    x, target, lengths = sequences(dtype="float64")
    whole = lc.evaluate(model, [(x, target, lengths)], loss=cross_entropy)
    parts = lc.evaluate(model, [(x, target, lengths)], loss=cross_entropy, truncate=2)
    assert parts["loss"] == pytest.approx(whole["loss"], rel=1e-12)
    assert whole["loss"] == pytest.approx(
        cross_entropy(model(x, lengths=lengths), target, lengths)[0], rel=1e-12
    )


def test_a_target_per_sequence_has_no_lengths_whatever_the_sizes() -> None:
    """Here as many classes as steps, so that the shapes alone could be those of a target per step.

    And rows weigh alike in the mean over batches, however long those are.
    """
    model = classifier(batch_first=True)
    x, _, lengths = sequences(6, 4)
    x, values = x.swapaxes(0, 1), np.random.default_rng(0).standard_normal((6, 4))
    expected = mse(model(x, lengths=lengths), values)[0]
    batches = [
        (x[:4], values[:4], lengths[:4]),
        (np.pad(x[4:], ((0, 0), (0, 3), (0, 0))), values[4:], lengths[4:]),
    ]
    for data in [(x, values, lengths)], batches:
        assert lc.evaluate(model, data, loss=mse)["loss"] == pytest.approx(expected, rel=1e-6)
        history = quiet(model, data, loss=mse, optimizer=adam(model, lr=0.0))
        assert history.losses == [pytest.approx(expected, rel=1e-6)]


class OwnClassifier:
    """A class of a user's: (B, T, 3) to (B, 4)."""

    batch_first = True

    def __init__(self) -> None:
        self._gru = lc.GRU(3, 5, batch_first=True, seed=0)
        self._head = lc.Linear(5, 4, seed=1)

    def __call__(self, x: Any, lengths: Any = None) -> Any:
        return self._head(self._gru(x, lengths=lengths)[1][0])


def test_a_prediction_per_sequence_of_a_users_own_model_has_no_lengths() -> None:
    """Here with as many classes as steps, and in the second batch with others."""
    model = OwnClassifier()
    x, _, lengths = sequences(6, 7)
    x, lengths = x.swapaxes(0, 1), np.minimum(lengths, 4)
    values = np.random.default_rng(0).standard_normal((6, 4))
    labels = values.argmax(1)
    pred = model(x, lengths=lengths)
    for loss, target in ((mse, values), (cross_entropy, labels)):
        batches = [(x[:4, :4], target[:4], lengths[:4]), (x[4:], target[4:], lengths[4:])]
        found = lc.evaluate(model, batches, loss=loss)["loss"]
        assert found == pytest.approx(loss(pred, target)[0], rel=1e-6)


def test_targets_of_a_model_that_pools_are_per_sequence_whatever_the_sizes() -> None:
    """Rows of x and target stay together, even if their first two axes are alike."""
    rng = np.random.default_rng(0)
    x, values = rng.standard_normal((4, 4, 3)).astype("f4"), rng.standard_normal((4, 4))
    seen = []

    def loss(pred: Array, target: Array) -> Any:
        seen.append(target)
        return mse(pred, target)

    model = classifier()
    quiet(model, (x, values), loss=loss, optimizer=adam(model), batch_size=4, seed=0)
    assert sorted(seen[0].tolist()) == sorted(values.tolist())


def test_pooling_says_where_the_rows_are() -> None:
    ids, labels = np.arange(35).reshape(7, 5), np.arange(5) % 2
    for batch_first in (False, True):
        model = lc.Sequential(
            lc.Embedding(35, 4, seed=0), lc.MeanPool(batch_first), lc.Linear(4, 2, seed=0)
        )
        x = ids.T if batch_first else ids
        expected = cross_entropy(model(x), labels)[0]
        found = lc.evaluate(model, (x, labels), loss=cross_entropy, batch_size=2)
        assert found == {"loss": pytest.approx(expected, rel=1e-6)}


def test_a_tuple_of_lists_is_x_and_target() -> None:
    x, target, lengths = sequences(2, 2)
    model = classifier()
    arrays = (x, target[0], lengths)
    for batch_size in (None, 1):
        expected = lc.evaluate(model, arrays, loss=cross_entropy, batch_size=batch_size)
        lists: Any = tuple(array.tolist() for array in arrays)
        nested = (tuple(map(tuple, x.tolist())), *lists[1:])
        for data in lists, nested:
            found = lc.evaluate(model, data, loss=cross_entropy, batch_size=batch_size)
            assert found == expected


def test_evaluate_takes_baselines() -> None:
    ids = np.array([[0, 1], [1, 2], [2, 0], [0, 1]])
    chain = lc.baselines.Markov(3).fit(ids)
    found = lc.evaluate(
        chain, [(ids[:-1], ids[1:])], loss=cross_entropy, metrics={"accuracy": lc.metrics.accuracy}
    )
    assert found == {"loss": cross_entropy(chain(ids[:-1]), ids[1:])[0], "accuracy": 1.0}
    series = np.arange(12.0).reshape(6, 2, 1)
    naive = lc.baselines.SeasonalNaive()
    data = (series[:-1], series[1:])
    assert lc.evaluate(naive, data, loss=mse) == {"loss": 4.0}
    assert lc.evaluate(naive, data, loss=mse, truncate=2) == {"loss": 4.0}


def test_perplexity_and_rmse_are_those_of_all_batches_together() -> None:
    model = tagger(dtype="float64")
    x, target, _ = sequences(dtype="float64")
    values = np.random.default_rng(5).standard_normal((9, 6, 4))
    ids = [(x[:, :1], target[:, :1]), (x[:, 1:], target[:, 1:])]
    found = lc.evaluate(model, ids, metrics={"perplexity": lc.metrics.perplexity})
    expected = lc.metrics.perplexity(model(x), target)
    assert found["perplexity"] == pytest.approx(expected, rel=1e-12)
    pieces = [(x[:, :1], values[:, :1]), (x[:, 1:], values[:, 1:])]
    found = lc.evaluate(model, pieces, metrics={"error": lc.metrics.rmse})
    assert found["error"] == pytest.approx(lc.metrics.rmse(model(x), values), rel=1e-12)
    wrong = [(np.full_like(x, np.nan), target)]
    assert np.isnan(lc.evaluate(model, wrong, metrics={"p": lc.metrics.perplexity})["p"])


@pytest.mark.parametrize("by", ["epoch", "step"])
def test_schedules_count_epochs_or_steps(by: str) -> None:
    model = classifier()
    x, target, _ = sequences()
    optimizer = adam(model, lr=1.0)
    seen: list[float] = []

    class Rates(lc.callbacks.Callback):
        def on_step(self, run: Any) -> None:
            seen.append(optimizer.lr)

    history = quiet(
        model, [(x, target[0])] * 2, loss=cross_entropy, optimizer=optimizer, epochs=2,
        schedule=lc.optim.StepLR(optimizer, step_size=1, gamma=0.5), schedule_by=by,
        callbacks=[Rates()],
    )  # fmt: skip
    # The rates after each of the four steps, and those that the epochs ended with.
    assert seen == ([1.0, 1.0, 0.5, 0.5] if by == "epoch" else [0.5, 0.25, 0.125, 0.0625])
    assert history.lr == ([1.0, 0.5] if by == "epoch" else [0.25, 0.0625])


def test_plateau_is_told_the_validation_loss() -> None:
    model = classifier()
    x, target, _ = sequences()
    told: list[float] = []

    class Listening:
        def step(self, metric: float) -> None:
            told.append(metric)

    data = [(x, target[0])]
    history = quiet(
        model, data, loss=cross_entropy, optimizer=adam(model), epochs=3,
        validation=[(x, target[1])], schedule=Listening(),
    )  # fmt: skip
    assert told == history.validation_losses


def test_plateau_by_steps_is_told_the_loss_of_each() -> None:
    model = classifier()
    told: list[float] = []
    losses = iter([5.0, 4.0, 4.0, 4.0, 3.0, 3.0])
    optimizer = lc.optim.SGD(model.parameters(), lr=8.0)
    plateau = lc.optim.Plateau(optimizer, factor=0.5, patience=0)

    class Listening(lc.callbacks.Callback):
        def on_step(self, run: Any) -> None:
            told.append(optimizer.lr)

    x, target, _ = sequences()
    history = quiet(
        model, [(x, target[0])] * 3, optimizer=optimizer, epochs=2, schedule=plateau,
        loss=lambda pred, target: (next(losses), np.zeros_like(pred)), schedule_by="step",
        callbacks=[Listening()],
    )  # fmt: skip
    assert told == [8.0, 8.0, 4.0, 2.0, 2.0, 1.0]
    assert history.lr == [4.0, 1.0]
    assert plateau.best == 3.0


# Callbacks ------------------------------------------------------------------------------------


def falling_then_rising(more: float = 0.0) -> tuple[list[Any], Callable[[Array, Array], Any]]:
    """Data, and a loss that falls for three epochs of one step and then rises."""
    values = iter([5.0, 4.0, 3.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0])
    x, target, _ = sequences()
    return [(x, target[0])], lambda pred, target: (next(values) + more, np.ones_like(pred))


@pytest.mark.parametrize("restore", [True, False])
def test_early_stopping_restores_the_best_weights(restore: bool) -> None:
    model = classifier()
    data, loss = falling_then_rising()
    states: list[Any] = []
    stopping = lc.callbacks.EarlyStopping(patience=2, restore_best=restore)
    history = quiet(
        model, data, loss=loss, optimizer=adam(model), epochs=9,
        callbacks=[lambda run: states.append(run.model.state_dict()), stopping],
    )  # fmt: skip
    assert history.losses == [5.0, 4.0, 3.0, 6.0, 7.0]
    assert history.stopped == "no better loss for 2 epochs"
    assert (stopping.best, stopping.best_epoch) == (3.0, 3)
    kept = states[2] if restore else states[4]
    assert_same_bits(model.state_dict(), kept)
    other = "bias"
    assert not np.array_equal(states[2][f"2.{other}"], states[4][f"2.{other}"])


def test_early_stopping_serves_one_run_after_another() -> None:
    stopping = lc.callbacks.EarlyStopping(patience=2)
    for more in (0.0, 10.0):  # no epoch of the second run is as good as one of the first
        model = classifier()
        data, loss = falling_then_rising(more)
        history = quiet(
            model, data, loss=loss, optimizer=adam(model), epochs=9, callbacks=[stopping]
        )
        assert history.losses == [5.0 + more, 4.0 + more, 3.0 + more, 6.0 + more, 7.0 + more]
        assert (stopping.best, stopping.best_epoch) == (3.0 + more, 3)


def test_the_validation_loss_tells_which_epoch_was_best() -> None:
    model = classifier()
    data, falling = falling_then_rising()
    validation = iter([2.0, 0.5, 1.0, 1.5])  # the first is from before the run, to try it

    def loss(pred: Array, target: Array) -> Any:
        return falling(pred, target) if len(pred) == 6 else (next(validation), None)

    x, target, _ = sequences(rows=2)
    best = lc.callbacks.BestWeights()
    history = quiet(
        model, data, loss=loss, optimizer=adam(model), epochs=3, callbacks=[best],
        validation=[(x, target[0])],
    )  # fmt: skip
    assert (history.losses, history.validation_losses) == ([5.0, 4.0, 3.0], [0.5, 1.0, 1.5])
    assert (best.best, best.best_epoch) == (0.5, 1)


def test_metrics_are_better_when_higher() -> None:
    model = classifier()
    values = iter([0.1, 0.9, 0.5])
    x, target, _ = sequences()
    best = lc.callbacks.BestWeights("accuracy", mode="max")
    quiet(
        model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model), epochs=3,
        metrics={"accuracy": lambda pred, target: next(values)}, callbacks=[best],
    )  # fmt: skip
    assert (best.best, best.best_epoch) == (0.9, 2)


def test_callbacks_are_called_in_order() -> None:
    calls: list[str] = []

    class Noting(lc.callbacks.Callback):
        def on_start(self, run: Any) -> None:
            calls.append("start")

        def on_step(self, run: Any) -> None:
            calls.append(f"step {run.step} {run.loss > 0}")

        def on_epoch(self, run: Any) -> None:
            calls.append(f"epoch {run.epoch}")

        def on_end(self, run: Any) -> None:
            calls.append("end")

    model = classifier()
    x, target, _ = sequences()
    quiet(
        model, [(x, target[0])] * 2, loss=cross_entropy, optimizer=adam(model), epochs=2,
        callbacks=[Noting()],
    )  # fmt: skip
    assert calls == [
        "start", "step 1 True", "step 2 True", "epoch 1", "step 3 True", "step 4 True", "epoch 2",
        "end",
    ]  # fmt: skip


# What is shown --------------------------------------------------------------------------------


def test_a_line_per_epoch_without_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name.split(".")[0] == "tqdm":
            raise ImportError(name)
        return real(name, *rest, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    model = classifier()
    x, target, _ = sequences()
    data = [(x, target[0])]
    history = lc.fit(
        model, data, loss=cross_entropy, optimizer=adam(model), epochs=2, validation=data
    )
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(f"epoch 2/2  loss {history.losses[1]:.4g}  validation loss ")
    assert lines[1].endswith("0 s left)")


def test_a_bar_with_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    model = classifier()
    x, target, _ = sequences()
    history = lc.fit(
        model, [(x, target[0])] * 3, loss=cross_entropy, optimizer=adam(model), epochs=2,
        metrics={"accuracy": accuracy},
    )  # fmt: skip
    shown = capsys.readouterr()
    assert shown.out == ""
    last = shown.err.rstrip().rsplit("\r", 1)[-1]
    assert "epoch 2/2" in last
    assert "100%" in last
    assert f"loss {history.losses[-1]:.4g}" in last
    assert "accuracy" in last


def test_lines_where_stderr_is_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("tqdm")
    model = classifier()
    x, target, _ = sequences()
    options = {"loss": cross_entropy, "optimizer": adam(model), "epochs": 3}
    lc.fit(model, [(x, target[0])], **options)
    shown = capsys.readouterr()
    assert shown.err == ""
    assert [line.split("  ")[0] for line in shown.out.splitlines()] == [
        "epoch 1/3", "epoch 2/3", "epoch 3/3",
    ]  # fmt: skip
    monkeypatch.setattr(sys, "stderr", None)  # as under pythonw
    lc.fit(model, [(x, target[0])], **options)
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_history_plots_itself() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    history = lc.History()
    history.record(2.0, 3.0, {"accuracy": 0.5}, 0.1, 1.0)
    history.record(1.0, 2.5, {"accuracy": 0.75}, 0.1, 1.0)
    axes = history.plot()
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}
    best = {"best epoch, 2": [0, 1]}  # from the bottom to the top
    assert lines == {"training loss": [2.0, 1.0], "validation loss": [3.0, 2.5], **best}
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["training loss", "validation loss", "best epoch, 2", "accuracy"]
    pyplot.close("all")


def test_plotting_names_the_command_without_matplotlib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'pip install "lstmcore\[train\]"'):
        lc.History().plot()


# Interruptions --------------------------------------------------------------------------------


class PressCtrlC(lc.callbacks.Callback):
    def __init__(self, step: int, times: int = 1) -> None:
        self.step, self.times = step, times

    def on_step(self, run: Any) -> None:
        if run.step == self.step:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def can_interrupt() -> Iterator[None]:
    """Ctrl-C is heard even where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_returns_the_history_and_a_whole_model(can_interrupt: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    model, expected = classifier(), classifier()
    x, target, _ = sequences()
    data = [(x, target[0]), (x, target[1])]
    history = quiet(
        model, data, loss=cross_entropy, optimizer=adam(model), epochs=5,
        callbacks=[PressCtrlC(3)],
    )  # fmt: skip
    assert history.stopped == "interrupted"
    assert history.epochs == 1
    assert signal.getsignal(signal.SIGINT) is before
    # The model has made the three steps, each as a whole.
    optimizer = adam(expected)
    for batch in (*data, data[0]):
        y, tape = expected.forward(batch[0])
        _, dy = cross_entropy(y, batch[1])
        optimizer.zero_grad()
        expected.backward(tape, dy)
        optimizer.step()
    assert model == expected
    assert np.isfinite(model(x)).all()


def test_a_second_ctrl_c_is_a_keyboard_interrupt(can_interrupt: None) -> None:
    before = signal.getsignal(signal.SIGINT)
    model = classifier()
    x, target, _ = sequences()
    with pytest.raises(KeyboardInterrupt):
        quiet(
            model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model), epochs=5,
            callbacks=[PressCtrlC(2, times=2)],
        )  # fmt: skip
    assert signal.getsignal(signal.SIGINT) is before


def test_an_interrupt_of_the_data_is_one_too() -> None:
    class Data:
        def __init__(self) -> None:
            self.given = 0

        def __iter__(self) -> Iterator[Any]:
            x, target, _ = sequences()
            for _ in range(2):
                self.given += 1
                if self.given == 4:
                    raise KeyboardInterrupt
                yield x, target[0]

    model = classifier()
    history = quiet(model, Data(), loss=cross_entropy, optimizer=adam(model), epochs=9)
    assert (history.epochs, history.stopped) == (1, "interrupted")


@pytest.mark.skipif(os.name == "nt", reason="no such signals there")
def test_ctrl_c_from_outside() -> None:
    """As a user presses it: at any moment, in a process of its own."""
    code = """
import signal, numpy as np, lstmcore as lc
signal.signal(signal.SIGINT, signal.default_int_handler)
model = lc.Sequential(lc.LSTM(8, 32, seed=0), lc.Linear(32, 4, seed=1))
x, target = np.ones((20, 8, 8), "f4"), np.zeros((20, 8), int)
history = lc.fit(
    model, [(x, target)], loss=lc.losses.cross_entropy, epochs=10**9,
    optimizer=lc.optim.Adam(model.parameters()), progress=False,
    callbacks=[lambda run: print("epoch", flush=True) if run.epoch == 1 else None],
)
print(history.stopped, history.epochs > 0, bool(np.isfinite(model(x)).all()))
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "epoch\n"
    process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert out.split() == ["interrupted", "True", "True"]
    assert process.returncode == 0


# Bad input ------------------------------------------------------------------------------------


def test_a_nan_loss_is_named() -> None:
    model = classifier()
    x, target, _ = sequences()
    bad = x.copy()
    bad[2, 1, 0] = np.nan
    before: list[Any] = []
    with pytest.raises(
        lc.NonFiniteError,
        match=r"the loss is nan in epoch 1, step 2; not finite: gradient of '0.weight_ih_l0', x",
    ):
        quiet(
            model, [(x, target[0]), (bad, target[0])], loss=cross_entropy, optimizer=adam(model),
            callbacks=[StateAfterStep(before)],
        )  # fmt: skip
    # The step was not made.
    assert_same_bits(model.state_dict(), before[0])


class StateAfterStep(lc.callbacks.Callback):
    def __init__(self, states: list[Any]) -> None:
        self.states = states

    def on_step(self, run: Any) -> None:
        self.states.append(run.model.state_dict())


def test_a_nan_parameter_is_named() -> None:
    model = classifier()
    dict(model.named_parameters())["2.bias"].data[1] = np.inf
    x, target, _ = sequences()
    with pytest.raises(ValueError, match=r"epoch 1, step 1; not finite: parameter '2.bias'"):
        quiet(model, [(x, target[0])], loss=cross_entropy, optimizer=adam(model))


def test_spoilt_parameters_are_not_saved(tmp_path: Any) -> None:
    """The last step of an epoch may spoil them while its loss was still finite."""
    model = classifier()
    x, target, _ = sequences()
    path = tmp_path / "run.safetensors"

    def loss(pred: Array, target: Array) -> Any:
        return 1.0, np.full_like(pred, np.nan)

    with pytest.raises(lc.NonFiniteError, match="the parameters are spoilt in epoch 1, step 1; "):
        quiet(
            model, [(x, target[0])], loss=loss, optimizer=adam(model),
            callbacks=[lc.callbacks.Checkpoint(path)],
        )  # fmt: skip
    assert not path.exists()


def test_clipping_notices_gradients_that_are_not_finite() -> None:
    model = classifier()
    x, target, _ = sequences()

    def loss(pred: Array, target: Array) -> Any:
        return 1.0, np.full_like(pred, np.inf)

    with pytest.raises(lc.NonFiniteError, match=r"the norm of the gradients is (nan|inf) in"):
        quiet(model, [(x, target[0])], loss=loss, optimizer=adam(model), clip_norm=1.0)
    assert model == classifier()


def wrong(pred: Array, target: Array) -> float:
    raise ValueError("no such metric")


X, K, N = sequences()
ONE = [(X, K[0])]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": []}, ValueError, "data is empty"),
        ({"data": (X[:, :0], K[0, :0])}, ValueError, "data is empty"),
        ({"data": (X[:, :0], K[0, :0]), "batch_size": 2}, ValueError, "the data are empty"),
        ({"data": iter(ONE)}, TypeError, "which can be gone through once only"),
        ({"data": 3}, TypeError, r"data is 3 \(int\)"),
        ({"data": [X]}, TypeError, "batch 0 of data is a ndarray of shape"),
        ({"data": [(X,)]}, TypeError, "batch 0 of data is"),
        ({"data": (X,)}, ValueError, "data has 1 arrays"),
        ({"data": (*ONE, *ONE)}, TypeError, "x of batch 0 of data is a tuple, .* in a list"),
        ({"data": (*ONE,) * 6}, ValueError, "data has 6 arrays, .* batches come in a list"),
        ({"data": [X.tolist(), K.tolist()]}, TypeError, r"batch 0 of data is \[.* \(list\)"),
        ({"data": ([[1.0], [2.0, 3.0]], K)}, TypeError, "x of batch 0 of data is not an array"),
        ({"data": (X, [[1], [2, 3]])}, ValueError, r"target has shape \(2, 2\)"),  # as CTC's
        ({"batch_size": 2}, ValueError, "batch_size is 2, but data is no tuple"),
        ({"data": (X, K[0]), "batch_size": 0}, ValueError, "batch_size is 0"),
        ({"data": (X, K[0][:3]), "batch_size": 2}, ValueError, r"target has shape \(3,\)"),
        ({"data": [(X, K[0] + 4)]}, ValueError, "class [4-7], expected 0 to 3"),
        ({"data": [(X, K[0], N + 9)]}, ValueError, r"lengths\[0\] is"),
        ({"data": [(X.astype("f8"), K[0])]}, TypeError, "x has dtype float64"),
        ({"validation": []}, ValueError, "validation is empty"),
        ({"validation": [X]}, TypeError, "batch 0 of validation is a ndarray of shape"),
        ({"validation": (X[..., :2], K[0])}, ValueError, "x has shape .*, expected .*3"),
        ({"validation": (X, K[0] + 4), "epochs": 2}, ValueError, "class [4-7], expected 0 to 3"),
        ({"validation": (X, K)}, ValueError, "target has shape"),
        ({"validation": (X, K[0]), "metrics": {"wrong": wrong}}, ValueError, "no such metric"),
        ({"metrics": {"wrong": wrong}}, ValueError, "no such metric"),
        ({"optimizer": lc.optim.Adam(classifier().parameters())}, ValueError, "not a parameter of"),
        ({"optimizer": lc.optim.Adam}, TypeError, "optimizer is"),
        ({"optimizer": None}, TypeError, "optimizer is None"),
        ({"schedule": 3}, TypeError, "schedule is 3"),
        ({"schedule_by": "batch"}, ValueError, "schedule_by is 'batch'"),
        ({"loss": 3}, TypeError, "loss is 3"),
        ({"loss": accuracy}, TypeError, "loss returned 0.* expected the loss and its gradient"),
        ({"metrics": [accuracy]}, TypeError, "metrics is"),
        ({"metrics": {"accuracy": 1}}, TypeError, "accuracy is 1"),
        ({"metrics": {"loss": accuracy}}, ValueError, "metrics has the name 'loss'"),
        ({"metrics": {1: accuracy}}, ValueError, "metrics has the name 1"),
        ({"epochs": 0}, ValueError, "epochs is 0"),
        ({"truncate": 0}, ValueError, "truncate is 0"),
        ({"truncate": 3}, ValueError, "truncate=3 needs a target for each step"),
        ({"clip_norm": 0}, ValueError, "clip_norm is 0"),
        ({"callbacks": [3]}, TypeError, r"callbacks\[0\] is 3"),
        ({"callbacks": lc.callbacks.EarlyStopping}, TypeError, r"callbacks\[0\] is <class"),
        (
            {"callbacks": lc.callbacks.Checkpoint("nowhere/run.safetensors")},
            FileNotFoundError,
            "nowhere is no folder",
        ),
        ({"callbacks": 3}, TypeError, r"callbacks is 3 \(int\), expected a Callback"),
        ({"progress": "x"}, TypeError, r"progress is 'x' \(str\), expected a bool"),
        ({"seed": "x"}, TypeError, r"seed is 'x' \(str\), expected an int"),
        ({"seed": 3}, ValueError, "seed is 3, but data is no tuple"),
        ({"shuffle": "x"}, TypeError, r"shuffle is 'x' \(str\), expected a bool"),
        ({"resume": 3}, TypeError, r"resume is 3 \(int\), expected a path"),
        ({"resume": "nowhere.safetensors"}, FileNotFoundError, "nowhere"),
        ({"model": None}, TypeError, "model is None"),
        ({"model": lc.GRU}, TypeError, "model is <class .*, expected a module: it is not made yet"),
    ],
)
def test_fit_refuses(change: dict[str, Any], error: type[Exception], message: str) -> None:
    model = classifier()
    arguments = {"data": ONE, "loss": cross_entropy, "optimizer": adam(model), **change}
    with pytest.raises(error, match=message):
        lc.fit(
            arguments.pop("model", model), arguments.pop("data"), **{"progress": False, **arguments}
        )
    assert model == classifier()


def test_validation_is_tried_without_a_trace() -> None:
    """The order of its own batches, dropout and the training are those of a run without it."""

    def run(validate: bool) -> tuple[Any, list[float], Any]:
        model = classifier(num_layers=2, dropout=0.5)
        batches = lc.data.Batches(X, K[0], batch_size=2, seed=5)
        tested = lc.data.Batches(X, K[1], batch_size=4, seed=6)
        history = quiet(
            model, batches, loss=cross_entropy, optimizer=adam(model), epochs=2,
            validation=tested if validate else None,
        )  # fmt: skip
        assert tested.epoch == 2 * validate
        return model, history.losses, batches.state_dict()

    assert run(True) == run(False)


def test_validation_may_begin_with_an_empty_row() -> None:
    model = tagger()
    nothing = np.zeros(len(N), int)
    history = quiet(
        model, [(X, K, N)], loss=cross_entropy, optimizer=adam(model),
        validation=[(X, K, nothing), (X, K, N)],
    )  # fmt: skip
    assert history.validation_losses == [cross_entropy(model(X, lengths=N), K, N)[0]]


def test_one_callback_needs_no_list() -> None:
    epochs: list[int] = []
    model = classifier()
    options: dict[str, Any] = {"loss": cross_entropy, "optimizer": adam(model), "epochs": 2}
    quiet(model, ONE, **options, callbacks=lambda run: epochs.append(run.epoch))
    assert epochs == [1, 2]
    best = lc.callbacks.BestWeights()
    quiet(model, ONE, **options, callbacks=best)
    assert best.best_epoch == 2


def test_a_schedule_of_another_optimizer_is_refused() -> None:
    model = classifier()
    other = lc.optim.StepLR(adam(model), step_size=1)
    with pytest.raises(ValueError, match="schedule is of another optimizer"):
        quiet(model, ONE, loss=cross_entropy, optimizer=adam(model), schedule=other)


@pytest.mark.parametrize(
    "options", [{"bidirectional": True}, {"reverse": True}], ids=["bidirectional", "reverse"]
)
def test_what_reads_backwards_is_not_truncated(options: dict[str, bool]) -> None:
    model = lc.Sequential(lc.GRU(3, 2, **options))
    with pytest.raises(ValueError, match="truncate=3 carries the state forward in time, but GRU"):
        quiet(model, ONE, loss=mse, optimizer=adam(model), truncate=3)


def test_an_iterable_that_gives_nothing_is_empty() -> None:
    class Nothing:
        def __iter__(self) -> Iterator[Any]:
            return iter(())

    model = classifier()
    with pytest.raises(ValueError, match="data is empty"):
        quiet(model, Nothing(), loss=cross_entropy, optimizer=adam(model))


def test_a_step_takes_a_short_way() -> None:
    """Calls of our own Python functions in a step of a small model: each costs as much as math."""
    model = lc.Sequential(lc.LSTM(8, 16, seed=0), lc.Linear(16, 4, seed=1))
    x, target = np.zeros((12, 4, 8), "float32"), np.zeros((12, 4), int)
    home = str(Path(lc.__file__).parent)
    counts: list[int] = []

    def profile(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(home):
            if frame.f_code.co_name == "_step":
                counts.append(0)
            elif counts:
                counts[-1] += 1

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        lc.fit(
            model, (x, target, [12, 3, 4, 5]), loss=lc.losses.cross_entropy, epochs=3,
            optimizer=lc.optim.Adam(model.parameters()), clip_norm=1.0, progress=False,
        )  # fmt: skip
    finally:
        sys.setprofile(before)
    assert len(counts) == 3
    assert 20 < counts[1] < 140
