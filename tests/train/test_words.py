"""Losses and metrics by their names, and what other libraries call things."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore import losses, metrics

quiet = partial(lc.fit, progress=False)
X = np.random.default_rng(0).standard_normal((20, 3))
Y = X @ [[1.0], [-2.0], [0.5]]
LABELS = (Y[:, 0] > 0).astype(int)


def linear(size: int = 1) -> lc.Linear:
    return lc.Linear(3, size, dtype="float64", seed=0)


def trained(model: Any, target: Any, **options: Any) -> lc.History:
    return quiet(model, (X, target), optimizer=lc.optim.SGD(model.parameters(), 0.1), **options)


@pytest.mark.parametrize("name", ["mse", "mae", "huber", "binary_cross_entropy"])
def test_a_name_is_the_function(name: str) -> None:
    target = LABELS[:, None]
    one, two = linear(), linear()
    by_name = trained(one, target, loss=name, epochs=3, validation=(X, target))
    by_function = trained(two, target, loss=getattr(losses, name), epochs=3, validation=(X, target))
    assert one == two
    assert by_name.losses == by_function.losses
    found = lc.evaluate(one, (X, target), loss=name)
    assert found == lc.evaluate(one, (X, target), loss=getattr(losses, name))


@pytest.mark.parametrize(
    "given",
    [
        "accuracy",
        ["accuracy"],
        ("accuracy",),
        {"accuracy": "accuracy"},
        {"accuracy": metrics.accuracy},
    ],
)
def test_metrics_by_name(given: Any) -> None:
    model = linear(2)
    history = trained(model, LABELS, loss="cross_entropy", metrics=given, epochs=2)
    found = lc.evaluate(model, (X, LABELS), metrics=given)
    assert found == {"accuracy": metrics.accuracy(model(X), LABELS)}
    assert list(history.metrics) == ["accuracy"]
    assert len(history.metrics["accuracy"]) == 2


def test_several_metrics_by_name() -> None:
    found = lc.evaluate(linear(), (X, Y), metrics=["rmse", "mae"])
    pred = linear()(X)
    assert found == {"rmse": metrics.rmse(pred, Y), "mae": losses.mae(pred, Y)[0]}


def test_every_loss_and_metric_has_its_name() -> None:
    """None is left out for lack of a fact that the names are found by."""
    for home, option in ((losses, "loss"), (metrics, "metrics")):
        for name in home.__all__:
            if hasattr(getattr(home, name), "mode"):
                with pytest.raises((ValueError, TypeError)) as error:
                    lc.evaluate(linear(), (X, np.array(["a"] * 20)), **{option: name})
                assert "expected a function" not in str(error.value), name


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("sparse_categorical_crossentropy", "loss is 'sparse_.*here 'cross_entropy'$"),
        ("categorical_crossentropy", "here 'cross_entropy'; its targets are classes, target.argm"),
        ("CrossEntropyLoss", "here 'cross_entropy'$"),
        ("NLLLoss", "here 'cross_entropy'; it takes scores"),
        ("MSELoss", "here 'mse'"),
        ("mean_squared_error", "here 'mse'"),
        ("MeanAbsoluteError", "here 'mae'"),
        ("BCEWithLogitsLoss", "here 'binary_cross_entropy'$"),
        ("smooth_l1_loss", "here 'huber'"),
        ("MSE", "here 'mse'$"),
        ("Huber", "here 'huber'$"),
        ("CTCLoss", "here 'ctc'$"),
        ("GaussianNLLLoss", "here 'gaussian_nll'$"),
        ("pinball", "here 'quantile'$"),
        ("QuantileLoss", "here 'quantile'$"),
        ("cross_entrpy", "expected 'cross_entropy'"),
        ("xyz", "expected a function or one of 'binary_cross_entropy', 'cross_entropy'"),
        ("accuracy", "expected a function or one of 'binary_cross"),  # a metric is no loss
    ],
)
def test_other_names_of_losses(given: str, message: str) -> None:
    model = linear()
    with pytest.raises(ValueError, match=message):
        trained(model, Y, loss=given)
    assert model == linear()


def test_other_names_of_metrics() -> None:
    with pytest.raises(ValueError, match="acc is 'acc', here 'accuracy'"):
        lc.evaluate(linear(), (X, Y), metrics=["acc"])
    with pytest.raises(ValueError, match="here 'rmse'"):
        lc.evaluate(linear(), (X, Y), metrics={"r": "root_mean_squared_error"})
    with pytest.raises(TypeError, match=r"metrics is 3 .*, expected a dict of functions by name"):
        lc.evaluate(linear(), (X, Y), metrics=3)
    with pytest.raises(TypeError, match=r"or names of lc.metrics"):
        lc.evaluate(linear(), (X, Y), metrics=[metrics.rmse])
    with pytest.raises(ValueError, match="metrics has the name 'loss'"):
        lc.evaluate(linear(), (X, Y), metrics={"loss": "mse"})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"validation_data": (X, Y)}, r"no keyword validation_data=, here validation=\(x, tar"),
        ({"verbose": 0}, "verbose=, here progress=True or False"),
        ({"sample_weight": Y}, "sample_weight=, here weight="),
        ({"class_weight": [1, 2]}, r"here an option of the loss: functools.partial\("),
        ({"num_epochs": 2}, "num_epochs=, here epochs="),
        ({"criterion": "mse"}, "criterion=, here loss="),
        ({"lr": 0.1}, r"lr=, here an option of the optimizer: optimizer=lc.optim.Adam\("),
        ({"clipnorm": 1.0}, "clipnorm=, here clip_norm="),
        ({"scheduler": None}, "scheduler=, here schedule=, one of lc.optim"),
        ({"callback": []}, "there is no keyword callback=, expected callbacks="),
        ({"qqq": 1}, "no keyword qqq=, expected one of model, data, loss, optimizer"),
        ({"lr": 0.1, "verbose": 1}, "lr=.*; there is no keyword verbose="),
    ],
)
def test_other_words_for_keywords(options: dict[str, Any], message: str) -> None:
    model = linear()
    with pytest.raises(TypeError, match="fit: .*" + message):
        trained(model, Y, **{"loss": "mse", **options})
    assert model == linear()


def test_other_ways_of_calling() -> None:
    model, adam = linear(), lc.optim.Adam
    with pytest.raises(TypeError, match=r"fit: 3 arguments .*go into one tuple, \(x, target\)"):
        quiet(model, X, Y, loss="mse", optimizer=adam(model.parameters()))
    with pytest.raises(TypeError, match=r"evaluate: .*sample_weight=, here weight="):
        lc.evaluate(model, (X, Y), loss="mse", sample_weight=Y)
    with pytest.raises(TypeError, match=r"validation_data=, expected one of model, data, loss,"):
        lc.evaluate(model, (X, Y), loss="mse", validation_data=(X, Y))  # which has no validation=
    for given in ("adam", adam, None):
        with pytest.raises(TypeError, match=r"ready made: lc.optim.Adam\(model.parameters\(\), lr"):
            quiet(model, (X, Y), loss="mse", optimizer=given)
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'optimizer'"):
        quiet(model, (X, Y), loss="mse")
    with pytest.raises(TypeError, match="loss is None, expected a function or its name"):
        trained(model, Y, loss=None)


def test_objects_of_other_libraries() -> None:
    torch = require("torch")
    model = linear()
    for given in (torch.nn.CrossEntropyLoss(), torch.nn.CrossEntropyLoss):
        with pytest.raises(
            TypeError, match="loss is CrossEntropyLoss of torch, expected a function of NumPy "
            "arrays: here 'cross_entropy'",
        ):  # fmt: skip
            trained(model, Y, loss=given)
    with pytest.raises(TypeError, match=r"mse_loss of torch, .*here 'mse'$"):
        trained(model, Y, loss=torch.nn.functional.mse_loss)
    keras = require("keras")
    with pytest.raises(TypeError, match=r"MeanSquaredError of keras.*here 'mse'"):
        trained(model, Y, loss=keras.losses.MeanSquaredError())
    weights = [torch.nn.Parameter(torch.zeros(1))]
    with pytest.raises(TypeError, match=r"optimizer is Adam of torch, expected one of lstmcore.op"):
        quiet(model, (X, Y), loss="mse", optimizer=torch.optim.Adam(weights))


def test_an_error_of_a_metric_has_its_name() -> None:
    model = linear()
    with pytest.raises(ValueError, match=r"^metric 'accuracy': target has shape \(20, 1\), that o"):
        trained(model, LABELS[:, None], loss="binary_cross_entropy", metrics="accuracy", epochs=1)
    with pytest.raises(ValueError, match=r"^target has shape \(20,\), expected \(20, 1\), that"):
        trained(model, LABELS, loss="binary_cross_entropy", epochs=1)


def test_lengths_are_a_part_of_the_data() -> None:
    with pytest.raises(TypeError, match=r"lengths=, here the third and fourth of data, "):
        trained(linear(), Y, loss="mse", lengths=[1])
