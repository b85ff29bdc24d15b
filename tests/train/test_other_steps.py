"""Rows cut by `batch_size` where the model gives other steps than x has."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

quiet = partial(lc.fit, progress=False)
OUT = 5  # steps of the repeated ones


def autoencoder(first: bool = False) -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(3, 6, batch_first=first, seed=0), lc.LastStep(), lc.RepeatVector(OUT),
        lc.GRU(6, 6, batch_first=first, seed=1), lc.Linear(6, 2, seed=2),
    )  # fmt: skip


def network(first: bool = False) -> lc.Model:
    """The same, with symbols."""
    x = lc.Input(3)
    _, h = lc.GRU(3, 6, batch_first=first, seed=0)(x)
    y, _ = lc.GRU(6, 6, batch_first=first, seed=1)(lc.RepeatVector(OUT)(h[-1]))
    return lc.Model(x, lc.Linear(6, 2, seed=2)(y))


def convolution(first: bool = False, **options: Any) -> lc.Sequential:
    return lc.Sequential(
        lc.Conv1D(3, 6, 3, seed=0, **options),
        lc.GRU(6, 6, batch_first=first, seed=1),
        lc.Linear(6, 2, seed=2),
    )


MODELS: list[Callable[..., Any]] = [
    autoencoder, network, convolution, partial(convolution, stride=2),
    partial(convolution, padding=3),
]  # fmt: skip


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape, "float32")


@pytest.mark.parametrize("make", MODELS)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("time", [7, 8])
@pytest.mark.parametrize("rows", [5, 7, 8])
@pytest.mark.parametrize("extra", ["", "lengths", "rows weigh", "steps weigh"])
def test_batch_size_changes_no_number(
    make: Any, first: bool, time: int, rows: int, extra: str
) -> None:
    """Also where there are as many rows as steps of x or of y."""
    model = make(first)
    x = numbers(time, rows, 3)
    steps = make()(x).shape[0]
    target = numbers(steps, rows, 2, seed=1)
    swap = (lambda a: a.swapaxes(0, 1)) if first else (lambda a: a)
    data: tuple[Any, ...] = swap(x), swap(target)
    options: dict[str, Any] = {}
    rng = np.random.default_rng(2)
    if extra == "lengths":
        data = (*data, rng.integers(time // 2, time + 1, rows))
    elif extra == "rows weigh":
        options["weight"] = rng.random(rows)
    elif extra == "steps weigh":
        options["weight"] = swap(rng.random((steps, rows)))
    evaluate = partial(lc.evaluate, model, data, loss="mse", metrics=["mae"], **options)
    whole = evaluate()
    for size in (1, 3):
        assert evaluate(batch_size=size) == pytest.approx(whole, rel=1e-6)


def test_the_whole_is_the_mean_of_its_rows() -> None:
    model, x, target = autoencoder(), numbers(7, 5, 3), numbers(OUT, 5, 2, seed=1)
    expected = np.mean([np.mean((model(x[:, i]) - target[:, i]) ** 2) for i in range(5)])
    for size in (None, 2):
        found = lc.evaluate(model, (x, target), loss="mse", batch_size=size)
        assert found["loss"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("make", MODELS)
def test_trains_with_validation_split(make: Any) -> None:
    model, x = make(), numbers(8, 8, 3)
    target = numbers(model(x).shape[0], 8, 2, seed=1)
    history = quiet(
        model, (x, target, np.full(8, 8)), loss="mse", batch_size=3, validation_split=0.25,
        epochs=3, seed=0, optimizer=lc.optim.SGD(model.parameters(), lr=0.05),
    )  # fmt: skip
    other = make()
    expected = quiet(
        other, (x[:, :6], target[:, :6]), loss="mse", batch_size=3, epochs=3, seed=0,
        validation=(x[:, 6:], target[:, 6:]),
        optimizer=lc.optim.SGD(other.parameters(), lr=0.05),
    )  # fmt: skip
    assert history.losses == pytest.approx(expected.losses)
    assert history.validation_losses == pytest.approx(expected.validation_losses)


def test_each_of_several_outputs_has_its_own_steps() -> None:
    x = lc.Input(3)
    y, h = lc.GRU(3, 6, seed=0)(x)
    later, _ = lc.GRU(6, 6, seed=1)(lc.RepeatVector(OUT)(h[-1]))
    outputs = {"later": lc.Linear(6, 2, seed=2)(later), "same": lc.Linear(6, 3, seed=3)(y),
               "label": lc.Linear(6, 4, seed=4)(h[-1])}  # fmt: skip
    model = lc.Model(x, outputs)
    values = numbers(8, 8, 3)
    target = {"label": np.arange(8) % 4, "same": values, "later": numbers(OUT, 8, 2, seed=1)}
    data = (values, target, np.arange(1, 9))
    losses = {"later": "mse", "same": "mse", "label": "cross_entropy"}
    whole = lc.evaluate(model, data, loss=losses)
    for size in (1, 3):
        found = lc.evaluate(model, data, loss=losses, batch_size=size)
        assert found == pytest.approx(whole, rel=1e-6)


def test_targets_that_fit_no_step_of_the_output_are_refused() -> None:
    model, x = autoencoder(), numbers(7, 8, 3)
    for target in (numbers(4, 8, 2), numbers(OUT, 4, 2), numbers(7, 8, 3)):
        with pytest.raises(ValueError, match=r"expected \(5, 8\) and whatever follows, one for ea"):
            lc.evaluate(model, (x, target), loss="mse", batch_size=2)


def test_an_x_that_does_not_fit_is_refused_with_its_own_shape() -> None:
    with pytest.raises(ValueError, match=r"x has shape \(7, 8, 4\), expected \(T, B, 3\)"):
        lc.evaluate(autoencoder(), (numbers(7, 8, 4), numbers(OUT, 8, 2)), loss="mse", batch_size=2)


def test_batches_of_ones_own_take_any_steps() -> None:
    x, target = numbers(8, 8, 3), numbers(OUT, 8, 2, seed=1)
    with pytest.raises(ValueError, match=r"per_step=True\) takes those of a model with other"):
        lc.data.Batches(x, target, batch_size=3)
    found = list(lc.data.Batches(x, target, batch_size=3, shuffle=False, per_step=True))
    assert np.array_equal(np.concatenate([target for _, target in found], axis=1), target)
    several = {"a": target, "b": np.arange(8)}
    batches = lc.data.Batches(x, several, batch_size=3, per_step={"b": False, "a": True})
    first = next(iter(batches))[1]
    assert (first["a"].shape, first["b"].shape) == ((OUT, 3, 2), (3,))
    with pytest.raises(ValueError, match="expected one for each target, 'a', 'b'"):
        lc.data.Batches(x, several, batch_size=3, per_step={"a": True})


def translator() -> tuple[lc.Model, Any]:
    past, known = lc.Input(3), lc.Input(2)
    _, h = lc.GRU(3, 6, seed=0)(past)
    y, _ = lc.GRU(2, 6, seed=1)(known, h)
    model = lc.Model({"past": past, "known": known}, lc.Linear(6, 1, seed=2)(y))
    return model, {"past": numbers(7, 6, 3), "known": numbers(4, 6, 2, seed=1)}


def test_lengths_of_each_input_are_cut() -> None:
    model, x = translator()
    target, lengths = numbers(4, 6, 1), {"past": np.arange(1, 7), "known": [4, 3, 2, 1, 4, 4]}
    for given in (lengths, {**lengths, "known": None}):
        whole = lc.evaluate(model, (x, target, given), loss="mse")
        for size in (1, 4):
            found = lc.evaluate(model, (x, target, given), loss="mse", batch_size=size)
            assert found == pytest.approx(whole, rel=1e-6)
    for wrong, message in (
        ({"past": lengths["past"], "other": None}, "lengths has 'other', expected those of the in"),
        ({"past": [8] * 6}, r"lengths\[0\] is 8, expected 0 to 7, the time steps of x\['past'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.evaluate(model, (x, target, wrong), loss="mse", batch_size=2)


def test_lengths_in_a_tuple_are_those_of_rows() -> None:
    model = lc.Sequential(lc.GRU(3, 6, seed=0), lc.Linear(6, 3, seed=1))
    x, lengths = numbers(7, 3, 3), (7, 2, 5)
    whole = lc.evaluate(model, (x, x, np.array(lengths)), loss="mse")
    for size in (None, 2):
        assert lc.evaluate(model, (x, x, lengths), loss="mse", batch_size=size) == whole


def test_pairs_of_a_seq2seq_are_cut() -> None:
    """What `Pairs` gives at once, cut by `fit`."""
    model = lc.Seq2Seq(
        lc.Sequential(lc.Embedding(9, 4, seed=0), lc.GRU(4, 6, seed=1)),
        lc.Sequential(lc.Embedding(9, 4, seed=2), lc.GRU(4, 6, seed=3)),
        lc.Linear(6, 9, seed=4),
    )
    rng = np.random.default_rng(0)
    ids = [rng.integers(3, 9, n) for n in (4, 6, 2, 5)]
    (whole,) = lc.data.Pairs(ids, ids[::-1], start=1, end=2, batch_size=4, shuffle=False)
    expected = lc.evaluate(model, [whole], loss="cross_entropy")
    found = lc.evaluate(model, whole, loss="cross_entropy", batch_size=3)
    assert found == pytest.approx(expected, rel=1e-6)


def test_an_x_of_another_structure_is_refused_as_such() -> None:
    """And not for the shape of its target."""
    model, x = translator()
    target = numbers(4, 6, 1)
    for wrong, error, message in (
        (x["past"], TypeError, "x of data is a ndarray .*, expected a dict of 'past', 'known'"),
        ({"past": x["past"]}, ValueError, "x of data has the names .*expected a dict of 'past'"),
        (
            (x["past"], x["known"]),
            TypeError,
            "x of data is a tuple of 2 arrays, expected",
        ),
    ):
        with pytest.raises(error, match=message):
            lc.evaluate(model, (wrong, target), loss="mse", batch_size=2)


def test_lists_and_names_are_as_good_as_tuples_and_dicts() -> None:
    long, short = lc.Input(3, name="long"), lc.Input(2, name="short")
    outputs = [
        lc.Linear(4, 2, seed=2)(lc.GRU(3, 4, seed=0)(long)[0]),
        lc.Linear(4, 3, seed=3)(lc.LastStep()(lc.GRU(2, 4, seed=1)(short)[0])),
    ]
    model = lc.Model([long, short], outputs)
    x, target = [numbers(7, 6, 3), numbers(4, 6, 2)], [numbers(7, 6, 2), np.arange(6) % 3]
    lengths: list[Any] = [np.arange(2, 8), np.array([4, 3, 2, 1, 4, 4])]
    by_name = [{"long": one[0], "short": one[1]} for one in (x, lengths)]
    losses = ["mse", "cross_entropy"]
    whole = lc.evaluate(model, (tuple(x), tuple(target), tuple(lengths)), loss=losses)
    for size in (None, 2):
        for data in (
            (x, target, tuple(lengths)), (x, target, by_name[1]), (tuple(x), target, by_name[1]),
            (by_name[0], target, by_name[1]),
        ):  # fmt: skip
            found = lc.evaluate(model, data, loss=losses, batch_size=size)
            assert found == pytest.approx(whole, rel=1e-6)


class Difference(lc.Module):
    """A module of one's own that gives a step less than it takes."""

    def forward(self, x: Any) -> Any:
        return x[1:] - x[:-1], x.shape

    def backward(self, tape: Any, dy: Any) -> Any:
        dx = np.zeros(tape, dy.dtype)
        dx[1:] += dy
        dx[:-1] -= dy
        return dx


def test_modules_of_ones_own_may_change_steps() -> None:
    """Where the axis of rows of the target is clear; means are those of all targets."""
    model = lc.Sequential(Difference(), lc.GRU(3, 4, seed=0), lc.Linear(4, 1, seed=1))
    x, target = numbers(9, 5, 3), numbers(8, 5, 1, seed=1)

    def error(pred: Any, target: Any) -> float:
        return float(np.abs(pred - target).mean())

    for weight in (None, np.arange(5.0), np.arange(40.0).reshape(8, 5)):
        metrics = {} if weight is not None else {"own": error}
        evaluate = partial(
            lc.evaluate, model, (x, target), loss="mse", metrics=metrics, weight=weight
        )
        whole = evaluate()
        for size in (1, 2):
            assert evaluate(batch_size=size) == pytest.approx(whole, rel=1e-5)
    assert evaluate()["loss"] != pytest.approx(lc.evaluate(model, (x, target), loss="mse")["loss"])
    with pytest.raises(ValueError, match="the model gives 8 steps for it, in a module of your own"):
        lc.evaluate(model, [(x, target, [8, 3, 2, 1, 4])], loss="mse")
    with pytest.raises(ValueError, match=r"of which either axis may be that of the 8 rows of x"):
        lc.evaluate(model, (numbers(9, 8, 3), numbers(8, 8, 1)), loss="mse", batch_size=2)


def test_a_model_of_ones_own_may_change_steps_and_take_lengths() -> None:
    """Its lengths are those of x, and say nothing of y."""

    class Own(lc.Module):
        batch_first = False

        def __init__(self) -> None:
            self.inner = autoencoder()

        def forward(self, x: Any, lengths: Any = None) -> Any:
            return self.inner.forward(x, lengths=lengths)

        def backward(self, tape: Any, dy: Any) -> Any:
            return self.inner.backward(tape, dy)

    x, target, lengths = numbers(7, 6, 3), numbers(OUT, 6, 2, seed=1), [7, 1, 2, 3, 4, 6]
    for extra in ((), (lengths,)):
        expected = lc.evaluate(autoencoder(), (x, target, *extra), loss="mse")
        for size in (None, 2):
            found = lc.evaluate(Own(), (x, target, *extra), loss="mse", batch_size=size)
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("rows", [3, 6])
@pytest.mark.parametrize("named", [False, True])
def test_static_features_may_be_integers(rows: int, named: bool) -> None:
    """Also where they are as many as rows: (B, F) looks like (T, B) of ids then."""
    x, static = lc.Input(2, name="x"), lc.Input(3, steps=False, name="static")
    y, _ = lc.GRU(5, 4, seed=0)(lc.concat([x, lc.repeat(static, like=x)]))
    model = lc.Model([x, static], lc.Linear(4, 1, seed=1)(y))
    values, target = numbers(7, rows, 2), numbers(7, rows, 1, seed=1)
    counts = np.random.default_rng(0).integers(0, 9, (rows, 3))
    given: Any = {"static": counts, "x": values} if named else (values, counts)
    expected = lc.evaluate(model, ((values, counts.astype("float32")), target), loss="mse")
    for size in (None, 1, 2):
        for options in ({}, {"truncate": 3}):
            found = lc.evaluate(model, (given, target), loss="mse", batch_size=size, **options)
            assert found == pytest.approx(expected, rel=1e-5)


def test_inputs_may_be_tensors_frames_and_lists() -> None:
    torch, pandas = require("torch"), require("pandas")
    x, static = lc.Input(2), lc.Input(3, steps=False)
    y, _ = lc.GRU(5, 4, seed=0)(lc.concat([x, lc.repeat(static, like=x)]))
    model = lc.Model([x, static], lc.Linear(4, 1, seed=1)(y))
    values, fixed, target = numbers(7, 6, 2), numbers(6, 3, seed=1), numbers(7, 6, 1, seed=2)
    expected = lc.evaluate(model, ((values, fixed), target), loss="mse")
    for given in (
        (torch.tensor(values), torch.tensor(fixed)), (values, pandas.DataFrame(fixed)),
        (values.tolist(), fixed.tolist()), [values.tolist(), fixed],
    ):  # fmt: skip
        for size in (None, 4):
            found = lc.evaluate(model, (given, target), loss="mse", batch_size=size)
            assert found == pytest.approx(expected, rel=1e-6)
