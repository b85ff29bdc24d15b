"""What means are of: all targets together, whatever the batches, masks and weights are."""

from __future__ import annotations

import copy
import json
import pickle
import statistics
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore import losses, metrics
from lstmcore.losses import Mean, cross_entropy, mse

Array = np.ndarray[Any, np.dtype[Any]]

quiet = partial(lc.fit, progress=False)
T, B, C = 5, 12, 4


class Given:
    """A model that returns its x: predictions ready made."""

    batch_first = False

    def __init__(self) -> None:
        self.p = lc.Parameter("unused", np.zeros(1))

    def __call__(self, x: Array) -> Array:
        return x

    def forward(self, x: Array) -> tuple[Array, None]:
        return x, None

    def backward(self, tape: None, dy: Array) -> Array:
        return dy

    def parameters(self) -> list[Any]:
        return [self.p]

    def zero_grad(self) -> None:
        self.p.zero_grad()


def scores() -> tuple[Array, Array]:
    """Scores that always say class 0, and targets most of which are ignored."""
    target = np.full((4, 2), -100)
    target[0, 0] = 1
    target[:, 1] = 0
    z = np.zeros((4, 2, 3))
    z[..., 0] = 2.0
    return z, target


@pytest.mark.parametrize("batch_size", [1, 2])
def test_ignored_targets_do_not_weigh(batch_size: int) -> None:
    z, target = scores()
    found = lc.evaluate(
        Given(), (z, target), batch_size=batch_size, loss=cross_entropy,
        metrics={"accuracy": metrics.accuracy},
    )  # fmt: skip
    assert found["loss"] == pytest.approx(cross_entropy(z, target)[0], rel=1e-12)
    assert found["accuracy"] == 0.8


def data(kind: str, per_step: bool) -> tuple[Array, Array]:
    rng = np.random.default_rng(5)
    shape = (T, B, C)
    pred = rng.standard_normal(shape)
    if kind == "classes":
        target = rng.integers(0, C, shape[:2])
        target[rng.random(shape[:2]) < 0.4] = -100
    else:
        target = (rng.random(shape) < 0.5).astype(float)
    return (pred, target) if per_step else (pred[0], target[0])


NAN_MASK = (np.arange(C) % 2).astype(float)


def without_nan(pred: Array, target: Array, lengths: Any = None) -> Any:
    """A loss of one's own, which masks what is missing and returns what ours returns."""
    return mse(pred, target, lengths, weight=(target > 0.5).astype(float))


CLASSES = [
    cross_entropy,
    partial(cross_entropy, class_weight=[1.0, 10.0, 0.1, 3.0], label_smoothing=0.2),
    lambda pred, target, *lengths: cross_entropy(pred, target, *lengths, class_weight=[0, 1, 2, 3]),
    metrics.accuracy,
    partial(metrics.accuracy, top_k=2),
    metrics.perplexity,
    partial(metrics.bits_per_symbol, ignore_index=-100),
]
NUMBERS = [
    mse, losses.mae, losses.huber, losses.binary_cross_entropy,
    partial(losses.binary_cross_entropy, pos_weight=3.0), metrics.binary_accuracy, metrics.rmse,
    without_nan, partial(partial(losses.huber), delta=0.1),
]  # fmt: skip


@pytest.mark.parametrize("per_step", [False, True])
@pytest.mark.parametrize("with_lengths", [False, True])
@pytest.mark.parametrize(
    ("kind", "function"), [("classes", f) for f in CLASSES] + [("numbers", f) for f in NUMBERS],
)  # fmt: skip
def test_batches_change_no_mean(
    kind: str, function: Any, per_step: bool, with_lengths: bool
) -> None:
    pred, target = data(kind, per_step)
    lengths = np.random.default_rng(6).integers(0, T + 1, B) if per_step and with_lengths else None
    whole = function(pred, target) if lengths is None else function(pred, target, lengths)
    expected = whole[0] if isinstance(whole, tuple) else whole
    model = Given() if per_step else lc.Sequential(lc.Dropout(0.0))
    given = (pred, target) if lengths is None else (pred, target, lengths)
    for size in (1, 5, B):
        found = lc.evaluate(model, given, metrics={"m": function}, batch_size=size)
        assert found["m"] == pytest.approx(expected, rel=1e-12), size


def test_weights_count_across_batches() -> None:
    pred, target = data("numbers", per_step=False)
    weight = 10.0 ** np.random.default_rng(7).integers(-3, 4, B)
    model = lc.Sequential(lc.Dropout(0.0))
    functions = {"rmse": metrics.rmse, "right": metrics.binary_accuracy}
    found = lc.evaluate(
        model, (pred, target), weight=weight, batch_size=5, loss=mse, metrics=functions
    )
    assert found["loss"] == pytest.approx(mse(pred, target, weight=weight)[0], rel=1e-12)
    assert found["rmse"] == pytest.approx(found["loss"] ** 0.5, rel=1e-12)
    right = metrics.binary_accuracy(pred, target, weight=weight)
    assert found["right"] == pytest.approx(right, rel=1e-12)
    assert right == pytest.approx(
        np.average(((pred > 0) == (target > 0.5)).mean(axis=1), weights=weight)
    )
    kept = np.flatnonzero(weight >= 1)
    masked = lc.evaluate(model, (pred, target), weight=(weight >= 1) * 1, batch_size=5, loss=mse)
    assert masked["loss"] == pytest.approx(mse(pred[kept], target[kept])[0], rel=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_weights_of_rows_and_of_steps_and_lengths(batch_first: bool) -> None:
    model = lc.Sequential(
        lc.GRU(C, 3, batch_first=batch_first, dtype="float64", seed=0),
        lc.Linear(3, C, dtype="float64", seed=1),
    )
    x, target = data("numbers", per_step=True)
    rng = np.random.default_rng(8)
    lengths, of_rows, of_steps = rng.integers(0, T + 1, B), rng.random(B), rng.random((T, B))
    classes = rng.integers(0, C, (T, B))
    if batch_first:
        x, target, of_steps, classes = (a.swapaxes(0, 1) for a in (x, target, of_steps, classes))
    rows = np.broadcast_to(of_rows[:, None] if batch_first else of_rows, of_steps.shape)
    y = model(x, lengths=lengths)
    options = {"lengths": lengths, "batch_first": batch_first}
    for loss, wanted in ((mse, target), (cross_entropy, classes)):
        for weight, each in ((of_rows, rows), (of_steps, of_steps)):
            expected = loss(y, wanted, weight=each, **options)[0]
            batch = lc.data.Batch(x, wanted, lengths, weight=weight)
            alone = lc.evaluate(model, [batch], loss=loss)["loss"]
            assert alone == pytest.approx(expected, rel=1e-12)
            cut = lc.evaluate(model, batch, loss=loss, batch_size=5)["loss"]
            assert cut == pytest.approx(expected, rel=1e-12)
            pieces = lc.evaluate(model, [batch], loss=loss, truncate=2)["loss"]
            assert pieces == pytest.approx(expected, rel=1e-12)


def test_fit_weighs_the_gradient_and_the_mean() -> None:
    def make() -> Any:
        return lc.Linear(C, C, dtype="float64", seed=0)

    x, target = data("numbers", per_step=False)
    weight = np.random.default_rng(9).random(B)
    ours, theirs = make(), make()
    history = quiet(
        ours, (x, target), weight=weight, loss=mse, optimizer=lc.optim.SGD(ours.parameters(), 0.1)
    )
    y, tape = theirs.forward(x)
    loss, dy = mse(y, target, weight=weight)
    theirs.backward(tape, dy)
    lc.optim.SGD(theirs.parameters(), 0.1).step()
    assert history.losses == [loss]
    np.testing.assert_allclose(ours.state_dict()["weight"], theirs.state_dict()["weight"])
    validated = quiet(
        ours, (x, target), loss=mse, optimizer=lc.optim.SGD(ours.parameters(), lr=0.0),
        validation=lc.data.Batch(x, target, weight=weight), batch_size=5,
    )  # fmt: skip
    expected = mse(ours(x), target, weight=weight)[0]
    assert validated.validation_losses == [pytest.approx(expected, rel=1e-12)]


def test_an_epoch_has_the_loss_of_all_its_targets() -> None:
    pred, target = data("classes", per_step=False)
    model = lc.Sequential(lc.Linear(C, C, dtype="float64", seed=0))
    history = quiet(
        model, (pred, target), loss=cross_entropy, batch_size=5, seed=0,
        optimizer=lc.optim.SGD(model.parameters(), lr=0.0), metrics={"p": metrics.perplexity},
    )  # fmt: skip
    expected = cross_entropy(model(pred), target)[0]
    assert history.losses == [pytest.approx(expected, rel=1e-12)]
    assert history.metrics["p"] == [pytest.approx(np.exp(expected), rel=1e-12)]


def test_functions_of_ones_own_count_their_targets() -> None:
    seen = np.array([3.0, 3.0, 6.0])[:, None]
    model = lc.Sequential(lc.Dropout(0.0))

    def plain(pred: Array, target: Array) -> float:
        return float(pred.mean())

    batches = [(seen[:2], seen[:2]), (seen[2:], seen[2:])]
    assert lc.evaluate(model, batches, metrics={"m": plain}) == {"m": 4.0}

    def said(pred: Array, target: Array) -> Mean:
        return Mean(plain(pred, target), 10.0 if len(pred) == 1 else 0.0)

    assert lc.evaluate(model, batches, metrics={"m": said}) == {"m": 6.0}

    def weighted(pred: Array, target: Array, weight: Any = None) -> float:
        return float(np.average(pred[:, 0], weights=None if weight is None else weight[:, 0]))

    each = [lc.data.Batch(*b, weight=np.full(len(b[0]), w)) for b, w in zip(batches, (1, 4))]
    assert lc.evaluate(model, each, metrics={"m": weighted}) == {"m": 5.0}
    assert lc.evaluate(model, each, metrics={"m": plain, "w": weighted})["m"] == 4.0


def test_a_mean_is_a_float() -> None:
    loss, _ = mse([1.0, 3.0], [0.0, 0.0], weight=[4.0, 2.0])
    assert isinstance(loss, Mean)
    assert repr(loss) == repr(float(loss))
    assert (loss.weight, loss.mean, loss.finish) == (6.0, loss, None)
    root = metrics.rmse([1.0, 3.0], [0.0, 0.0])
    for again in (pickle.loads(pickle.dumps(root)), copy.deepcopy(root)):
        assert (again, again.weight, again.mean) == (root, 2.0, 5.0)
        assert again.finish(again.mean) == again
    assert type(loss * 2) is float


# Masks that the model finds -----------------------------------------------------------------------


def padded(ids: bool, batch_first: bool) -> tuple[Any, Array, Array, Array]:
    rng = np.random.default_rng(2)
    lengths = rng.integers(1, T + 1, B)
    valid = np.arange(T)[:, None] < lengths
    if ids:
        x = rng.integers(1, 7, (T, B)) * valid
        first = [lc.Masking(ids=True), lc.Embedding(7, 3, seed=4)]
    else:
        x = (rng.standard_normal((T, B, 3)) * valid[..., None]).astype("f4")
        first = [lc.Masking()]
    target = rng.integers(0, C, (T, B))
    model = lc.Sequential(
        *first, lc.LSTM(3, 8, batch_first=batch_first, seed=0), lc.Linear(8, C, seed=1)
    )
    return (model, x.swapaxes(0, 1), target.T, lengths) if batch_first else (
        model, x, target, lengths
    )  # fmt: skip


@pytest.mark.parametrize("ids", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_masks_that_the_model_finds_reach_the_scorer(ids: bool, batch_first: bool) -> None:
    model, x, target, lengths = padded(ids, batch_first)
    options: dict[str, Any] = {"loss": cross_entropy, "metrics": {"accuracy": metrics.accuracy}}
    found = lc.evaluate(model, (x, target), **options)
    y = model(x, lengths=lengths)
    assert found["loss"] == cross_entropy(y, target, lengths, batch_first=batch_first)[0]
    assert found == lc.evaluate(model, (x, target, lengths), **options)
    given = copy.deepcopy(model)
    runs = []
    for one, more in ((model, ()), (given, (lengths,))):
        optimizer = lc.optim.Adam(one.parameters(), 0.01)
        runs.append(quiet(one, (x, target, *more), optimizer=optimizer, epochs=3, **options))
    assert runs[0].losses == runs[1].losses
    assert runs[0].metrics == runs[1].metrics
    assert model == given


def test_lengths_cut_what_a_mask_found() -> None:
    model, x, target, lengths = padded(False, False)
    shorter = np.maximum(lengths - 1, 0)
    found = lc.evaluate(model, (x, target, shorter), loss=cross_entropy)
    assert found["loss"] == cross_entropy(model(x, lengths=shorter), target, shorter)[0]
    longer = np.full(B, T)
    found = lc.evaluate(model, (x, target, longer), loss=cross_entropy)
    assert found["loss"] == cross_entropy(model(x), target, lengths)[0]


def test_steps_that_a_mask_moves_have_no_targets() -> None:
    model, x, target, _ = padded(False, False)
    x[0] = 0
    before = copy.deepcopy(model)
    optimizer = lc.optim.SGD(model.parameters())
    with pytest.raises(ValueError, match="expected padding at the end of rows only"):
        quiet(model, (x, target), loss=cross_entropy, optimizer=optimizer)
    with pytest.raises(ValueError, match="expected padding at the end of rows only"):
        lc.evaluate(model, (x, target), loss=cross_entropy)
    assert model == before
    pooled = lc.Sequential(lc.Masking(), lc.GRU(3, 4, seed=0), lc.LastStep(), lc.Linear(4, C))
    assert lc.evaluate(pooled, (x, target[0]), loss=cross_entropy)["loss"] > 0


def test_gaps_reach_what_knows_of_weights_and_nothing_else() -> None:
    """Masked steps in front, over which Keras's layers pass: no metric counts them in silence."""
    keras = require("keras")
    inputs = keras.Input((T, 3))
    y = keras.layers.LSTM(4, return_sequences=True)(keras.layers.Masking()(inputs))
    two = {"steps": keras.layers.Dense(2)(y), "rows": keras.layers.Dense(2)(inputs[:, 0])}
    model = lc.from_keras(keras.Model(inputs, two))
    rng = np.random.default_rng(0)
    x = rng.standard_normal((B, T, 3)).astype("f4")
    x[0, :2] = x[1, 1] = x[2, 3:] = 0
    target = {"steps": rng.standard_normal((B, T, 2)), "rows": rng.standard_normal((B, 2))}
    there = (x != 0).any(axis=-1)

    def plain(pred: Array, target: Array) -> float:
        return float(((pred - target) ** 2).mean())

    def weighing(*given: Any, weight: Any = None, **options: Any) -> float:
        return mse(*given, weight=weight, **options)[0]

    options: dict[str, Any] = {"loss": {"steps": "mse", "rows": "mse"}, "batch_size": 5}
    found = lc.evaluate(
        model, (x, target), metrics={"steps": {"own": weighing}, "rows": {"own": plain}}, **options
    )
    pred = model(x)
    expected = mse(pred["steps"], target["steps"], weight=there)[0]
    assert found["steps_loss"] == pytest.approx(expected, rel=1e-6)
    assert found["steps_own"] == pytest.approx(expected, rel=1e-6)
    assert found["rows_own"] == pytest.approx(mse(pred["rows"], target["rows"])[0], rel=1e-6)
    with pytest.raises(
        ValueError, match=r"masks steps between others, which only .*, but steps_own takes no arg"
    ):
        lc.evaluate(model, (x, target), metrics={"steps": {"own": plain}}, **options)


@pytest.mark.parametrize("batch_first", [False, True])
def test_functions_of_ones_own_that_cannot_count(batch_first: bool) -> None:
    model, x, target, lengths = padded(False, batch_first)
    data = (x, target, lengths)
    call = r"function\(pred, target, lengths" + r", batch_first=True" * batch_first

    def blind(pred: Array, target: Array) -> float:
        return 0.0

    with pytest.raises(TypeError, match=f"blind takes no lengths, but the rows have .*{call}"):
        lc.evaluate(model, data, metrics={"blind": blind})

    def weighted(pred: Array, target: Array, lengths: Any, *, weight: Any, **options: Any) -> float:
        return float(np.sum(weight))

    rows = lc.data.Batch(x, target, lengths, weight=np.ones(len(lengths)))
    assert lc.evaluate(model, [rows], metrics={"weighted": weighted})["weighted"] == 60
    with pytest.raises(TypeError, match="loss takes no lengths"):
        lc.evaluate(model, data, loss=lambda pred, target: (0.0, pred))
    for returned in (np.zeros(2), None, "1", [1.0]):
        with pytest.raises(TypeError, match=r"own returned .*, expected a number"):
            lc.evaluate(model, data, metrics={"own": lambda *_, **__: returned})  # noqa: B023
        with pytest.raises(TypeError, match=r"loss returned .*, expected a number"):
            quiet(
                model, data, optimizer=lc.optim.SGD(model.parameters()),
                loss=lambda pred, *_, **__: (returned, pred),  # noqa: B023
            )  # fmt: skip
    for returned in (1, 1.0, np.float32(1), np.array(1.0), True):
        found = lc.evaluate(model, data, metrics={"own": lambda *_, **__: returned})  # noqa: B023
        assert found == {"own": 1.0}


def test_masks_count_as_in_keras() -> None:
    keras = require("keras")
    model, x, target, _ = padded(False, True)
    theirs = lc.to_keras(model)
    theirs.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    ours = lc.evaluate(model, (x, target), loss=cross_entropy)["loss"]
    assert theirs.evaluate(x, target, verbose=0, batch_size=B) == pytest.approx(ours, rel=1e-5)


# Fields ---------------------------------------------------------------------------------------


class TwoInputs:
    """A model of one's own with x = (sequence, static features), and a target per step."""

    batch_first = False

    def __init__(self) -> None:
        self.gru, self.side = lc.GRU(3, 4, seed=0), lc.Linear(2, 4, seed=1)
        self.head = lc.Linear(4, C, seed=2)
        self.keys: tuple[Any, Any] = (0, 1)

    def parameters(self) -> list[Any]:
        return [*self.gru.parameters(), *self.side.parameters(), *self.head.parameters()]

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.zero_grad()

    def forward(self, x: Any, *, lengths: Any = None) -> Any:
        sequence, static = (x[key] for key in self.keys)
        y, _, first = self.gru.forward(sequence, lengths=lengths)
        s, second = self.side.forward(static)
        z, third = self.head.forward(y + s)
        return z, (first, second, third)

    def __call__(self, x: Any, *, lengths: Any = None) -> Any:
        return self.forward(x, lengths=lengths)[0]

    def backward(self, tapes: Any, dz: Array) -> None:
        dy = self.head.backward(tapes[2], dz)
        self.gru.backward(tapes[0], dy)
        self.side.backward(tapes[1], dy.sum(axis=0))


def two_inputs(as_dict: bool) -> tuple[TwoInputs, Any, Array, Array]:
    rng = np.random.default_rng(1)
    model = TwoInputs()
    x: Any = (
        rng.standard_normal((T, B, 3)).astype("f4"), rng.standard_normal((B, 2)).astype("f4"),
    )  # fmt: skip
    if as_dict:
        model.keys = ("sequence", "static")
        x = dict(zip(model.keys, x, strict=True))
    return model, x, rng.integers(0, C, (T, B)), rng.integers(0, T + 1, B)


@pytest.mark.parametrize("as_dict", [False, True])
def test_an_x_of_several_arrays(as_dict: bool) -> None:
    model, x, target, lengths = two_inputs(as_dict)
    expected = cross_entropy(model(x, lengths=lengths), target, lengths)[0]
    data = lc.data.Batch(x, target, lengths)
    for batches, options in ((data, {}), ([data], {}), (data, {"batch_size": 5})):
        found = lc.evaluate(model, batches, loss=cross_entropy, **options)["loss"]
        assert found == pytest.approx(expected, rel=1e-6)
    history = quiet(
        model, (x, target, lengths), loss=cross_entropy, batch_size=5, epochs=30, seed=0,
        optimizer=lc.optim.Adam(model.parameters(), 0.05),
    )  # fmt: skip
    assert history.losses[0] == pytest.approx(expected, rel=0.2)
    assert history.losses[-1] < 0.8 * expected


def test_batches_of_several_arrays_keep_rows_together() -> None:
    rows = np.arange(7)
    x = {"seq": np.tile(rows, (3, 1)), "static": np.stack([rows, rows], 1) * 0.5, "id": rows}
    target = (rows * 10, np.tile(rows, (3, 1))[..., None] * 100.0)
    seen = []
    for b in lc.data.Batches(x, target, rows % 4, weight=rows * 2, batch_size=3, seed=0):
        assert isinstance(b, lc.data.Batch)
        ids = b.x["id"]
        assert b.resets is None
        for found, expected in (
            (b.x["seq"], np.tile(ids, (3, 1))),
            (b.x["static"], np.stack([ids, ids], 1) * 0.5),
            (b.target[0], ids * 10),
            (b.target[1], np.tile(ids, (3, 1))[..., None] * 100.0),
            (b.lengths, ids % 4),
            (b.weight, ids * 2),
        ):
            np.testing.assert_array_equal(found, expected)
        seen += ids.tolist()
    assert sorted(seen) == rows.tolist() != seen


def test_targets_of_several_arrays() -> None:
    model = lc.Linear(C, 2, dtype="float64", seed=0)
    x, _ = data("numbers", per_step=False)
    target = {"a": x[:, 0], "b": x[:, 1] * 2}

    def loss(pred: Array, target: Any) -> tuple[float, Array]:
        wanted = np.stack([target["a"], target["b"]], axis=1)
        return mse(pred, wanted)

    history = quiet(
        model, (x, target), loss=loss, optimizer=lc.optim.Adam(model.parameters(), 0.05),
        epochs=60, batch_size=5, seed=0, validation=(x, target),
    )  # fmt: skip
    assert history.validation_losses[-1] < 0.1 * history.validation_losses[0]


def test_the_fifth_of_a_tuple_is_the_weight() -> None:
    pred, target = data("numbers", per_step=False)
    weight = np.arange(B)
    model = lc.Sequential(lc.Dropout(0.0))
    expected = mse(pred, target, weight=weight)[0]
    given = (pred, target, None, None, weight)
    assert lc.evaluate(model, given, loss=mse)["loss"] == expected
    assert lc.evaluate(model, [given], loss=mse)["loss"] == expected


X, K = data("classes", per_step=True)
X, K = X.astype("f4"), abs(K) % C
W = np.arange(B) % 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": (X[0], K[0], W)}, r"lengths are given, but .*Batch\(x, target, weight="),
        ({"data": [(X[0], K[0], W)]}, "lengths are given, but the model does not look at them"),
        ({"data": (X[0], K[0], None, K > 1)}, "resets are given, but the model has no state"),
        ({"data": (X[0], K[0]), "weight": W[1:]}, r"weight has shape \(11,\), expected \(12,\)"),
        ({"data": (X[0], K[0]), "weight": W[1:], "batch_size": 2}, r"expected \(B,\) = \(12,\)"),
        ({"data": (X[0], K[0]), "weight": -W}, "weight has -[12]"),
        ({"data": [(X[0], K[0])], "weight": W}, r"weight is given, but .* may be lc.data.Batch"),
        ({"data": lc.data.Batch(X[0], K[0], weight=W), "weight": W}, "weight is given twice"),
        ({"data": (X[0], K[0]), "seed": 1}, "seed is 1, but data is one batch, which has no order"),
        ({"data": (X[0], K[0]), "schedule_by": "step"}, "schedule_by is 'step', but there is no"),
        ({"data": (X[0], K[0]), "weight": {"a": W}}, "weight is a dict of 'a', expected an array"),
        (
            {"data": (X[0], K[0]), "weight": {"a": W}, "batch_size": 2},
            "weight is a dict of 'a', expected an a",
        ),
        (
            {"data": (X[0], K[0]), "weight": W, "loss": lambda p, t: cross_entropy(p, t)},
            "the loss takes no argument of that name",
        ),
        (
            {"data": (X[0], K[0]), "weight": W, "loss": partial(cross_entropy, weight=W)},
            "the loss takes no argument of that name",
        ),
        ({"data": ((X, X[0]), K)}, "x of batch 0 of data is a tuple of 2, .*, expected one array"),
        ({"data": {"x": X}}, "batch 0 of data is 'x'"),
        ({"data": ({"x": X}, K)}, "x of batch 0 of data is a dict, expected an array"),
        ({"data": [({"x": X}, K)]}, "x of batch 0 of data is a dict, expected an array"),
    ],
)
def test_what_finds_no_use_is_refused(change: dict[str, Any], message: str) -> None:
    model = lc.Sequential(lc.Linear(C, C, seed=0))
    before = copy.deepcopy(model)
    options = {"loss": cross_entropy, "optimizer": lc.optim.SGD(model.parameters())}
    with pytest.raises((ValueError, TypeError), match=message):
        quiet(model, **(options | change))
    assert model == before


def test_a_list_of_inputs_is_a_tuple_of_them() -> None:
    """As Keras takes them."""
    a, b = lc.Input(3), lc.Input(2, steps=False)
    y, _ = lc.GRU(5, 4, seed=0)(lc.concat([a, lc.repeat(b, like=a)]))
    model = lc.Model([a, b], lc.Linear(4, C, seed=1)(y))
    x = X[..., :3], np.ones((B, 2), "f4")
    expected = lc.evaluate(model, (x, K), loss=cross_entropy, batch_size=5)
    assert lc.evaluate(model, (list(x), K), loss=cross_entropy, batch_size=5) == expected
    assert lc.evaluate(model, [(list(x), K)], loss=cross_entropy) == pytest.approx(expected)


def test_integer_weights_of_a_model_that_takes_lengths() -> None:
    model = lc.Sequential(lc.GRU(C, 4, seed=0), lc.Linear(4, C, seed=1))
    with pytest.raises(ValueError, match="lengths has shape"):
        lc.evaluate(model, (X, K, K), loss=cross_entropy)
    for weight in (W, K):
        found = lc.evaluate(model, (X, K), weight=weight, loss=cross_entropy, batch_size=5)["loss"]
        each = np.broadcast_to(weight, K.shape)
        assert found == pytest.approx(cross_entropy(model(X), K, weight=each)[0], rel=1e-6)


def test_a_mean_is_a_number_for_others() -> None:
    """What makes a number of the type that it was given, as the module statistics does."""
    values = [mse(np.full(3, v), np.zeros(3))[0] for v in (1.0, 2.0)]
    assert statistics.mean(values) == 2.5
    assert json.dumps(values) == "[1.0, 4.0]"
