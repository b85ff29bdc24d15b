"""The estimators of lstmcore.sklearn: scikit-learn's own checks, and what they promise beside."""

from __future__ import annotations

import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore.datasets import japanese_vowels

require("sklearn")

from sklearn.base import clone  # noqa: E402
from sklearn.metrics import r2_score  # noqa: E402
from sklearn.model_selection import (  # noqa: E402
    GridSearchCV,
    TimeSeriesSplit,
    cross_val_score,
)
from sklearn.pipeline import make_pipeline  # noqa: E402
from sklearn.preprocessing import FunctionTransformer, StandardScaler  # noqa: E402
from sklearn.utils.estimator_checks import parametrize_with_checks  # noqa: E402

from lstmcore.sklearn import Forecaster, SequenceClassifier, SequenceRegressor  # noqa: E402
from lstmcore.sklearn._reading import Steps  # noqa: E402

RNG = np.random.default_rng(0)
# Sequences of two features: the first sums up to the number, whose sign is the label.
RAGGED = [RNG.standard_normal((n, 2)) for n in RNG.integers(3, 12, 60)]
SUMS = np.array([x[:, 0].sum() for x in RAGGED])
LABELS = np.where(SUMS > 0, "up", "down")
EQUAL = RNG.standard_normal((40, 6, 2))
SERIES = np.stack([np.sin(np.arange(200) / 4), np.cos(np.arange(200) / 4)], axis=1)


def classifier(**options: Any) -> SequenceClassifier:
    return SequenceClassifier(**{"hidden_size": 8, "epochs": 10, "seed": 0, **options})


def regressor(**options: Any) -> SequenceRegressor:
    return SequenceRegressor(**{"hidden_size": 8, "epochs": 10, "seed": 0, **options})


def forecaster(**options: Any) -> Forecaster:
    small = {"window": 8, "horizon": 3, "hidden_size": 8, "epochs": 5, "seed": 0}
    return Forecaster(**{**small, **options})


# scikit-learn's own checks -----------------------------------------------------------------------


def expected_failures(estimator: Any) -> dict[str, str]:
    """Name what does not apply."""
    if not isinstance(estimator, Forecaster):
        return {}
    reason = "rows are the steps of one series, which has one forecast, and not samples"
    return {
        "check_methods_sample_order_invariance": reason,
        "check_methods_subset_invariance": reason,
    }


@parametrize_with_checks(
    [
        SequenceClassifier(hidden_size=8, epochs=20, lr=0.03),
        SequenceRegressor("gru", 16, epochs=25, lr=0.03),
        Forecaster(window=4, hidden_size=8, epochs=5),
    ],
    expected_failed_checks=expected_failures,
)
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.SkipTestWarning")
def test_checks_of_scikit_learn(estimator: Any, check: Callable[[Any], None]) -> None:
    check(estimator)


# Training is that of lstmcore --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "pool"),
    [
        ({}, lc.LastStep()),
        ({"bidirectional": True}, lc.BothEnds()),
        ({"pooling": "mean"}, lc.MeanPool()),
        ({"pooling": "max", "bidirectional": True}, lc.MaxPool()),
    ],
)
def test_the_bits_of_fit(options: dict[str, Any], pool: Any) -> None:
    model = classifier(cell="gru", lr=0.02, weight_decay=0.1, clip_norm=0.5, **options)
    model.fit(RAGGED, LABELS)
    mean, deviation = (f(np.concatenate(RAGGED), axis=0) for f in (np.mean, np.std))
    both = options.get("bidirectional", False)
    by_hand = lc.Sequential(
        lc.GRU(2, 8, bidirectional=both, dtype="float64", seed=0),
        pool,
        lc.Linear(16 if both else 8, 2, dtype="float64", seed=1),
    )
    history = lc.fit(
        by_hand,
        lc.data.Buckets([(x - mean) / deviation for x in RAGGED], SUMS > 0, batch_size=32, seed=3),
        loss=lambda pred, target, **more: lc.losses.cross_entropy(pred, target.astype(int)),
        optimizer=lc.optim.AdamW(by_hand.parameters(), lr=0.02, weight_decay=0.1),
        epochs=10,
        clip_norm=0.5,
        progress=False,
    )
    np.testing.assert_allclose(model.history_.losses, history.losses, rtol=1e-9)
    x = [(x - mean) / deviation for x in RAGGED]
    scores = np.concatenate([by_hand(part[:, None]) for part in x])
    proba = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(model.predict_proba(RAGGED), proba, rtol=1e-7)
    assert model.n_iter_ == 10


def test_a_seed_gives_the_same_bits_and_another_others() -> None:
    first, second, other = (classifier(seed=s, dropout=0.2).fit(RAGGED, LABELS) for s in (1, 1, 2))
    assert np.array_equal(first.predict_proba(RAGGED), second.predict_proba(RAGGED))
    assert not np.array_equal(first.predict_proba(RAGGED), other.predict_proba(RAGGED))
    said = [
        classifier(seed=seed, random_state=state).fit(RAGGED, LABELS).predict_proba(RAGGED)
        for seed, state in [(None, 4), (9, 4), (9, np.random.RandomState(4))]
    ]
    assert np.array_equal(said[0], said[1])  # random_state counts
    assert np.array_equal(said[0], said[2])


def test_float32_stays_and_all_else_is_float64() -> None:
    for x, dtype in [
        (EQUAL.astype("float32"), "float32"),
        (EQUAL, "float64"),
        (EQUAL > 0, "float64"),
    ]:
        model = regressor(epochs=1).fit(x, EQUAL.sum((1, 2)))
        assert model.model_[0].dtype == dtype
    assert regressor(epochs=1).fit(EQUAL.astype("float32"), EQUAL[:, 0]).predict(EQUAL).shape == (
        40,
        2,
    )


def test_it_is_verbose_if_asked(capsys: pytest.CaptureFixture[str]) -> None:
    classifier(epochs=2).fit(RAGGED, LABELS)
    assert capsys.readouterr().out == ""
    classifier(epochs=2, verbose=True).fit(RAGGED, LABELS)
    assert "epoch 2/2" in capsys.readouterr().out


# What X may be -----------------------------------------------------------------------------------


def test_the_same_sequences_in_any_dress() -> None:
    pandas = require("pandas")
    y = EQUAL.sum((1, 2))
    frames = [pandas.DataFrame(x, columns=["a", "b"]) for x in EQUAL]
    ragged = np.empty(40, object)
    ragged[:] = list(EQUAL)
    expected = regressor().fit(EQUAL, y).predict(EQUAL)
    for x in (list(EQUAL), tuple(EQUAL), EQUAL.tolist(), ragged, np.asfortranarray(EQUAL), frames):
        model = regressor().fit(x, y)
        assert np.array_equal(model.predict(x), expected)
        assert model.n_features_in_ == 2
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match=r"X\[1\] has other columns than X\[0\]"):
        model.predict([frames[0], frames[1][["b", "a"]]])
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict([frames[0][["b", "a"]]])


def test_columns_are_steps_of_one_feature() -> None:
    pandas = require("pandas")
    x, y = EQUAL[:, :, 0], EQUAL[:, :, 0].sum(1)
    steps = regressor().fit(x[:, :, None], y)
    columns = regressor().fit(x, y)
    assert steps.n_features_in_, columns.n_features_in_ == (1, 6)
    expected = steps.predict(x[:, :, None])
    assert np.array_equal(columns.predict(x), expected)
    assert np.array_equal(columns.predict(x[:, :, None]), expected)
    assert np.array_equal(steps.predict(x), expected)
    some = [row[:n] for n, row in enumerate(x[:5], 1)]
    assert np.array_equal(columns.predict(some), steps.predict([row[:, None] for row in some]))
    with pytest.raises(ValueError, match="X has 5 features, but SequenceRegressor is expecting 6"):
        columns.predict(x[:, :5])
    with pytest.raises(ValueError, match=r"X has 2 features, but .* sequences of 1 feature"):
        columns.predict(EQUAL)
    with pytest.raises(ValueError, match=r"sequences of 1 feature, but .* expecting 2 features"):
        regressor(epochs=1).fit(EQUAL, y).predict(x)
    frame = pandas.DataFrame(x, columns=list("abcdef"))
    assert regressor(epochs=1).fit(frame, y).feature_names_in_.tolist() == list("abcdef")


def test_a_sequence_is_the_same_alone_and_among_longer_ones() -> None:
    model = classifier(bidirectional=True).fit(RAGGED, LABELS)
    alone = np.concatenate([model.predict_proba([x]) for x in RAGGED])
    assert np.array_equal(model.predict_proba(RAGGED), alone)
    assert np.array_equal(model.predict_proba(RAGGED[::-1]), alone[::-1])
    many = RAGGED * 10  # more than are in one call
    assert np.array_equal(model.predict_proba(many), np.concatenate([alone] * 10))


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([], r"0 sample\(s\)|Expected 2D array"),
        ([np.zeros((0, 2)), np.ones((3, 2))], r"X\[0\] is empty, expected at least one step"),
        ([np.zeros((2, 2)), np.ones((3, 1))], r"X has sequences of \[1, 2\] features"),
        ([np.full((2, 2), np.nan)] * 2, "Input X contains NaN"),
        (np.zeros((2, 2, 2, 2)), "dim 4"),
        (np.zeros(2), "Reshape your data"),
        (np.zeros((2, 0, 3)), "X.0. is empty"),
    ],
)
def test_what_x_may_not_be(x: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        classifier().fit(x, [0, 1])


# Weights and classes -----------------------------------------------------------------------------


def test_weights_count_as_copies_do() -> None:
    weight = np.random.default_rng(1).integers(0, 3, 60)
    options: dict[str, Any] = {"batch_size": 1000, "epochs": 5}
    copies = [x for x, w in zip(RAGGED, weight) for _ in range(w)]
    weighted = classifier(**options).fit(RAGGED, LABELS, sample_weight=weight)
    copied = classifier(**options).fit(copies, LABELS.repeat(weight))
    np.testing.assert_allclose(weighted.scaler_.mean_, copied.scaler_.mean_, rtol=1e-12)
    np.testing.assert_allclose(
        weighted.predict_proba(RAGGED), copied.predict_proba(RAGGED), rtol=1e-6
    )
    plain = classifier(**options).fit(RAGGED, LABELS)
    assert np.abs(weighted.predict_proba(RAGGED) - plain.predict_proba(RAGGED)).max() > 1e-4
    number = regressor(**options).fit(RAGGED, SUMS, weight).predict(RAGGED)
    np.testing.assert_allclose(
        number, regressor(**options).fit(copies, SUMS.repeat(weight)).predict(RAGGED), rtol=1e-6
    )


def test_weights_of_classes() -> None:
    y = np.where(SUMS > 1.5, 1, 0)  # fewer
    balanced = classifier(class_weight="balanced", standardize=False).fit(RAGGED, y)
    weight = np.where(y, 60 / (2 * y.sum()), 60 / (2 * (60 - y.sum())))
    by_hand = classifier(standardize=False).fit(RAGGED, y, weight)
    np.testing.assert_allclose(balanced.predict_proba(RAGGED), by_hand.predict_proba(RAGGED))
    both = classifier(class_weight={0: 1, 1: 3}, standardize=False).fit(RAGGED, y, weight)
    by_hand = classifier(standardize=False).fit(RAGGED, y, weight * np.where(y, 3, 1))
    np.testing.assert_allclose(both.predict_proba(RAGGED), by_hand.predict_proba(RAGGED))


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        (np.ones(3), r"sample_weight has shape \(3,\), expected \(60,\)"),
        (-np.ones(60), "sample_weight has numbers that are negative"),
        (np.full(60, np.nan), "not finite"),
        (np.zeros(60), "sample_weight is zero for every sequence"),
    ],
)
def test_weights_that_are_refused(weight: Any, message: str) -> None:
    for model, y in ((classifier(), LABELS), (regressor(), SUMS)):
        with pytest.raises(ValueError, match=message):
            model.fit(RAGGED, y, sample_weight=weight)


def test_labels_of_weight_zero_are_no_class() -> None:
    model = classifier(epochs=1).fit(RAGGED, LABELS, sample_weight=LABELS == "up")
    assert model.classes_.tolist() == ["up"]
    assert set(model.predict(RAGGED)) == {"up"}


# partial_fit, pickles ----------------------------------------------------------------------------


def test_partial_fit_goes_on_also_after_a_pickle() -> None:
    classes = ["down", "up"]
    once = classifier(dropout=0.2).partial_fit(RAGGED, LABELS, classes)
    again = pickle.loads(pickle.dumps(once))
    for model in (once, again):
        for _ in range(20):
            model.partial_fit(RAGGED, LABELS)
    assert once.n_iter_ == 21
    assert np.array_equal(once.predict_proba(RAGGED), again.predict_proba(RAGGED))
    assert once.score(RAGGED, LABELS) > 0.85
    first = once.history_.losses
    once.fit(RAGGED, LABELS)
    assert once.n_iter_ == 10  # anew
    assert once.history_.losses[0] > first[0]


def test_partial_fit_of_numbers() -> None:
    model = regressor(lr=0.02)
    for _ in range(30):
        model.partial_fit(RAGGED, SUMS)
    assert model.score(RAGGED, SUMS) > 0.8
    mean = model.scaler_.mean_.copy()
    model.partial_fit([x + 5 for x in RAGGED], SUMS)
    assert np.array_equal(model.scaler_.mean_, mean)
    with pytest.raises(ValueError, match="y has 2 targets for each sequence, but an earlier call"):
        model.partial_fit(RAGGED, np.stack([SUMS, SUMS], axis=1))
    with pytest.raises(ValueError, match="1 features, but SequenceRegressor is expecting 2"):
        model.partial_fit([x[:, :1] for x in RAGGED], SUMS)


def test_partial_fit_needs_to_know_the_classes() -> None:
    with pytest.raises(ValueError, match="classes must be passed on the first call"):
        classifier().partial_fit(RAGGED, LABELS)
    model = classifier().partial_fit(RAGGED[:3], ["b", "b", "d"], classes=["d", "b", "c"])
    assert model.classes_.tolist() == ["b", "c", "d"]
    for strange in ("a", "e"):
        with pytest.raises(ValueError, match=f"y has the labels .'{strange}'., expected those of"):
            model.partial_fit(RAGGED[:3], ["b", strange, "d"])
    with pytest.raises(ValueError, match="an earlier call had"):
        model.partial_fit(RAGGED[:3], ["b", "b", "d"], classes=["b", "d"])
    with pytest.raises(ValueError, match="class_weight is 'balanced', but partial_fit"):
        classifier(class_weight="balanced").partial_fit(RAGGED, LABELS, ["up", "down"])


def test_pickles_and_clones() -> None:
    for model, y in ((classifier(), LABELS), (regressor(), SUMS)):
        assert clone(model).get_params() == model.get_params()
        model.fit(RAGGED, y)
        assert not hasattr(clone(model), "model_")
        assert np.array_equal(
            pickle.loads(pickle.dumps(model)).predict(RAGGED), model.predict(RAGGED)
        )
    assert b"lstmcore.sklearn._" not in pickle.dumps(model)
    model = classifier().set_params(hidden_size=3, cell="rnn")
    assert model.fit(RAGGED, LABELS).model_[0].hidden_size == 3


# Early stopping ----------------------------------------------------------------------------------


def test_early_stopping_keeps_the_best_weights() -> None:
    y = np.random.default_rng(5).integers(0, 3, 60)  # nothing to learn: it only gets worse
    model = classifier(early_stopping=True, n_iter_no_change=3, epochs=500, lr=0.05)
    model.fit(RAGGED, y)
    history = model.history_
    assert history.stopped == "no better validation loss for 3 epochs"
    assert model.n_iter_ == history.epochs < 100
    assert history.best_epoch == history.epochs - 3
    rows, held = model._held_out(60, y)
    assert len(held) == 6
    assert np.bincount(y[held]).min() > 0  # stratified
    x = [RAGGED[i] for i in held]
    loss = -np.log(model.predict_proba(x)[np.arange(6), y[held]]).mean()
    assert loss == pytest.approx(min(history.validation_losses), rel=1e-6)
    assert sorted([*rows, *held]) == list(range(60))


def test_ctrl_c_keeps_what_was_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    step, steps = lc.optim.AdamW.step, []

    def interrupted(self: Any) -> None:
        steps.append(1)
        if len(steps) == 3:
            signal.raise_signal(signal.SIGINT)
        step(self)

    monkeypatch.setattr(lc.optim.AdamW, "step", interrupted)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        model = classifier(epochs=1000).fit(RAGGED, LABELS)
    assert model.n_iter_ == 1
    assert len(model.predict(RAGGED)) == 60


# Arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cell": "LSTM"}, "cell is 'LSTM', expected one of 'lstm', 'gru', 'rnn'"),
        ({"pooling": "first"}, "pooling is 'first', expected one of 'last', 'mean', 'max'"),
        ({"hidden_size": 0}, "hidden_size is 0, expected at least 1"),
        ({"num_layers": 0}, "num_layers is 0"),
        ({"dropout": 1.0}, "p is 1.0|dropout is 1.0"),
        ({"standardize": 1}, r"standardize is 1 \(int\), expected a bool"),
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"clip_norm": 0.0}, "clip_norm is 0.0"),
        ({"seed": -1}, "seed is -1"),
        ({"early_stopping": 1}, "early_stopping is 1"),
        ({"early_stopping": True, "n_iter_no_change": 0}, "is 0, expected at least 1"),
        ({"early_stopping": True, "validation_fraction": 1.5}, "1.5"),
    ],
)
def test_arguments_that_are_refused(options: dict[str, Any], message: str) -> None:
    for model, y in ((classifier(**options), LABELS), (regressor(**options), SUMS)):
        with pytest.raises((ValueError, TypeError), match=message):
            model.fit(RAGGED, y)


def test_targets_that_are_refused() -> None:
    with pytest.raises(ValueError, match="loss is 'crps', expected one of 'mse', 'mae', 'huber'"):
        regressor(loss="crps").fit(RAGGED, SUMS)
    with pytest.raises(ValueError, match="SequenceClassifier requires y to be passed"):
        classifier().fit(RAGGED, None)
    with pytest.raises(ValueError, match="Input y contains NaN"):
        regressor().fit(RAGGED, np.where(SUMS > 1, np.nan, SUMS))
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        regressor().fit(RAGGED, SUMS[1:])
    with pytest.raises(ValueError, match="Unknown label type"):
        classifier().fit(RAGGED, SUMS)


@pytest.mark.parametrize("loss", ["mse", "mae", "huber"])
def test_losses_and_scales_of_numbers(loss: str) -> None:
    y = 1e6 + 1000 * np.stack([SUMS, -SUMS], axis=1)
    model = regressor(loss=loss, epochs=60, lr=0.02).fit(RAGGED, y)
    assert model.predict(RAGGED).shape == (60, 2)
    assert model.score(RAGGED, y) > 0.8
    plain = regressor(loss=loss, standardize=False, epochs=60, lr=0.02).fit(RAGGED, SUMS)
    assert plain.scaler_ is plain.target_scaler_ is None
    assert plain.score(RAGGED, SUMS) > 0.7


# In scikit-learn's tools -------------------------------------------------------------------------


def test_a_grid_search_in_two_processes() -> None:
    train, _ = japanese_vowels()
    x = [train.x[:n, i] for i, n in enumerate(train.lengths)][:90]  # three of nine speakers
    y = train.labels[:90]
    search = GridSearchCV(
        classifier(cell="gru", lr=0.02, epochs=8), {"hidden_size": [1, 16]}, cv=2, n_jobs=2
    )
    search.fit(x, y)
    assert search.best_params_ == {"hidden_size": 16}
    assert search.best_score_ > 0.7
    here = [
        cross_val_score(classifier(cell="gru", lr=0.02, epochs=8, hidden_size=n), x, y, cv=2)
        for n in (1, 16)
    ]
    np.testing.assert_array_equal(search.cv_results_["mean_test_score"], np.mean(here, axis=1))


def test_in_a_pipeline() -> None:
    def differences(x: Any) -> Any:
        return np.diff(x, axis=1)

    pipeline = make_pipeline(FunctionTransformer(differences), regressor())
    y = EQUAL.sum((1, 2))
    said = pipeline.fit(EQUAL, y).predict(EQUAL)
    assert np.array_equal(
        said, regressor().fit(np.diff(EQUAL, axis=1), y).predict(np.diff(EQUAL, axis=1))
    )
    columns = make_pipeline(StandardScaler(), classifier(epochs=1))
    assert columns.fit(EQUAL[:, :, 0], y > 0).predict_proba(EQUAL[:, :, 0]).shape == (40, 2)
    weight = np.arange(40.0)
    pipeline.fit(EQUAL, y, sequenceregressor__sample_weight=weight)
    assert not np.array_equal(pipeline.predict(EQUAL), said)


# Forecaster --------------------------------------------------------------------------------------


def test_forecasts_of_a_series() -> None:
    model = forecaster(window=12, epochs=60, target=0).fit(SERIES[:150])
    said = model.predict(SERIES[:150])
    assert said.shape == (3,)
    assert np.abs(said - SERIES[150:153, 0]).max() < 0.1
    assert model.score(SERIES[150:]) > 0.98
    assert np.array_equal(model.predict(SERIES[138:150]), said)  # it reads 12 steps
    assert not np.array_equal(model.predict(SERIES[139:150]), said)
    several = model.predict([SERIES[:150], SERIES[:5], SERIES[:1]])
    assert several.shape == (3, 3)
    assert np.array_equal(several[0], said)
    assert np.array_equal(several[1], model.predict(SERIES[:5]))
    assert np.array_equal(model.predict(SERIES[None, :150]), said[None])


def test_it_learns_from_the_windows_of_data() -> None:
    model = forecaster(target=[1, 0]).fit(SERIES)
    scaled = StandardScaler().fit(SERIES).transform(SERIES)
    x, _ = lc.data.windows(scaled, 8, steps=3, batch_first=True)
    _, target = lc.data.windows(SERIES[:, ::-1], 8, steps=3, batch_first=True)
    target = target.reshape(-1, 2)
    mean, deviation = target.mean(0), target.std(0)
    by_hand = regressor(epochs=5, standardize=False)
    by_hand.fit(x, ((target - mean) / deviation).reshape(len(x), 6))
    np.testing.assert_allclose(model.history_.losses, by_hand.history_.losses, rtol=1e-9)
    said = by_hand.predict(x).reshape(-1, 2) * deviation + mean
    last = by_hand.predict(scaled[None, -8:]).reshape(3, 2) * deviation + mean
    np.testing.assert_allclose(model.predict(SERIES), last, rtol=1e-8)
    shapes = (len(x), 6)
    expected = r2_score(target.reshape(shapes), said.reshape(shapes))
    assert model.score(SERIES) == pytest.approx(expected, rel=1e-9)


def test_windows_do_not_cross_from_one_series_to_the_next() -> None:
    constant = [np.full((n, 1), value) for n, value in [(30, 0.0), (20, 5.0), (9, 9.0)]]
    model = forecaster(epochs=60, lr=0.02).fit(constant)
    table = np.concatenate(constant)
    steps = Steps(table, np.array([30, 20, 9]))
    x, target = model._windows(table, steps, None, True)
    assert len(x) == 20 + 10  # the third is too short
    assert (np.ptp(x, axis=(1, 2)) == 0).all()
    assert (target[:, :, 0] == x[:, :1, 0]).all()
    assert np.abs(model.predict(constant[:2]) - [[[0.0]], [[5.0]]]).max() < 0.5
    equal = np.stack([constant[0][:20], constant[1]])
    assert np.array_equal(
        forecaster().fit(equal).predict(equal), forecaster().fit(list(equal)).predict(list(equal))
    )


def test_what_is_forecast_may_be_another_table() -> None:
    y = SERIES[:, 0] * 2 + SERIES[:, 1]
    model = forecaster(window=12, epochs=60).fit(SERIES[:150], y[:150])
    assert np.abs(model.predict(SERIES[:150]) - y[150:153]).max() < 0.2
    assert model.score(SERIES[150:], y[150:]) > 0.97
    parts = [SERIES[:70], SERIES[70:150]]
    several = forecaster(epochs=1).fit(parts, [y[:70], y[70:150]])
    assert several.predict(parts).shape == (2, 3)
    alone = forecaster(epochs=1).fit(SERIES, y).predict(SERIES)
    assert np.array_equal(forecaster(epochs=1).fit([SERIES], [y]).predict([SERIES]), alone[None])
    assert forecaster(epochs=1).fit(SERIES, SERIES).predict(SERIES).shape == (3, 2)
    with pytest.raises(ValueError, match="target is 0, columns of X, and y is given"):
        forecaster(target=0).fit(SERIES, y)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        forecaster().fit(SERIES, y[1:])


def frame(index: Any) -> Any:
    return require("pandas").DataFrame(SERIES[: len(index)], index, columns=["load", "wind"])


@pytest.mark.parametrize(
    ("index", "later"),
    [
        (
            "pandas.date_range('2024-01-01', periods=60, freq='h')",
            ["2024-01-03 12:00:00", "2024-01-03 14:00:00"],
        ),
        (
            "pandas.date_range('2020-01-31', periods=60, freq='ME')",
            ["2025-01-31 00:00:00", "2025-03-31 00:00:00"],
        ),
        (
            "pandas.DatetimeIndex(list(pandas.date_range('2024-01-01', periods=60, freq='2D')))",
            ["2024-04-30 00:00:00", "2024-05-04 00:00:00"],
        ),
        ("pandas.period_range('2020-01', periods=60, freq='M')", ["2025-01", "2025-03"]),
        ("pandas.RangeIndex(100, 700, 10)", ["700", "720"]),
        ("pandas.Index([f'day {i}' for i in range(60)])", ["1", "3"]),
    ],
)
def test_frames_go_on(index: str, later: list[str]) -> None:
    pandas = require("pandas")
    table = frame(eval(index, {"pandas": pandas}))
    values = forecaster(epochs=1).fit(table.to_numpy())
    model = forecaster(epochs=1).fit(table)
    said = model.predict(table)
    assert list(said.columns) == ["load", "wind"]
    assert np.array_equal(said.to_numpy(), values.predict(table.to_numpy()))
    assert [str(said.index[0]), str(said.index[2])] == later
    assert len(said.index) == 3


def test_names_of_frames() -> None:
    pandas = require("pandas")
    table = frame(pandas.date_range("2024-01-01", periods=60, freq="h"))
    one = forecaster(epochs=1, target="wind").fit(table).predict(table)
    assert (one.name, one.shape) == ("wind", (3,))
    listed = forecaster(epochs=1, target=["wind"]).fit(table).predict(table)
    assert list(listed.columns) == ["wind"]
    assert np.array_equal(listed["wind"].to_numpy(), one.to_numpy())
    beside = forecaster(epochs=1).fit(table, table["load"]).predict(table)
    assert beside.name == "load"
    series = forecaster(epochs=1).fit(table["load"]).predict(table["load"])
    assert list(series.columns) == ["load"]
    model = forecaster(epochs=1).fit([table[:30], table[30:]])
    first, second = model.predict([table[:30], table[30:]])
    assert first.index[0] == pandas.Timestamp("2024-01-02 06:00")
    assert np.array_equal(second, model.predict(table))
    assert model.feature_names_in_.tolist() == ["load", "wind"]
    with pytest.raises(ValueError, match="target is 'sun', expected one of the columns"):
        forecaster(target="sun").fit(table)
    with pytest.raises(ValueError, match="expected regular increasing dates"):
        forecaster().fit(table.drop(table.index[10]))
    with pytest.raises(ValueError, match="Input X contains NaN"):
        forecaster().fit(table.where(table > 0))
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(table[["wind", "load"]])


def test_too_few_steps() -> None:
    with pytest.raises(ValueError, match=r"X has 10 steps .* at least window \+ horizon = 11"):
        forecaster().fit(SERIES[:10])
    model = forecaster(epochs=1).fit(SERIES[:11])
    with pytest.raises(ValueError, match="X has 10 steps"):
        model.score(SERIES[:10])


@pytest.mark.parametrize("name", ["window", "horizon"])
def test_sizes_that_are_refused(name: str) -> None:
    for value, error in ((0, ValueError), (2.0, TypeError)):
        with pytest.raises(error, match=f"{name} is {value}"):
            forecaster(**{name: value}).fit(SERIES)


def test_the_last_windows_are_held_out() -> None:
    parts = [SERIES[:110], SERIES[:60]]  # 100 windows, and 50
    model = forecaster(early_stopping=True, validation_fraction=0.2, epochs=3).fit(parts)
    assert len(model.history_.validation_losses) == 3
    rows, held = model._held_out(150, None)
    assert held.tolist() == [*range(80, 100), *range(140, 150)]
    assert sorted([*rows, *held]) == list(range(150))
    with pytest.raises(ValueError, match=r"validation_fraction is 0\.1, which holds out 0 of 3"):
        forecaster(early_stopping=True).fit(SERIES[:13])


def test_the_split_of_time_series() -> None:
    search = GridSearchCV(
        forecaster(epochs=12, lr=0.02), {"window": [1, 8]}, cv=TimeSeriesSplit(2, test_size=40)
    )
    pandas = require("pandas")
    table = frame(pandas.date_range("2024-01-01", periods=200, freq="h"))
    search.fit(table[["load"]])  # whose direction one step does not show
    assert search.best_params_ == {"window": 8}
    assert search.best_score_ > 0.8


def test_forecasts_by_partial_fit() -> None:
    model = forecaster(lr=0.02)
    for _ in range(20):
        model.partial_fit(SERIES[:150])
    again = pickle.loads(pickle.dumps(model))
    assert np.array_equal(again.predict(SERIES), model.predict(SERIES))
    assert model.score(SERIES[150:]) > 0.9
    with pytest.raises(ValueError, match="is expecting 2 features"):
        model.partial_fit(SERIES[:, :1])
    with pytest.raises(ValueError, match=r"targets of a window are \(3,\), but in an earlier call"):
        model.partial_fit(SERIES, SERIES[:, 0])


# Where scikit-learn is not imported --------------------------------------------------------------


def test_it_is_imported_when_it_is_asked_for() -> None:
    code = (
        "import sys, lstmcore as lc; assert not {'sklearn', 'lstmcore.sklearn'} & set(sys.modules);"
        "print(lc.sklearn.Forecaster.__module__, hasattr(lc, 'sklern'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["lstmcore.sklearn", "False"]


def test_without_scikit_learn() -> None:
    code = """
import sys
sys.modules["sklearn"] = None
import lstmcore as lc
assert not hasattr(lc, "sklearn")
try:
    from lstmcore import sklearn
except ImportError as error:
    print(error)
try:
    from lstmcore.sklearn import Forecaster
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (
        done.stdout == 'lstmcore.sklearn needs scikit-learn: pip install "lstmcore[sklearn]"\n' * 2
    )
