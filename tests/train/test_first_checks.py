"""What a run needs is checked before its first step; a resumed run is the one that was begun."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore import metrics
from lstmcore.callbacks import BestWeights, Checkpoint, EarlyStopping
from lstmcore.losses import mse

Array = np.ndarray[Any, np.dtype[Any]]

quiet = partial(lc.fit, progress=False)
X = np.random.default_rng(0).standard_normal((20, 3))
Y = X @ [[1.0], [-2.0], [0.5]]


def linear() -> lc.Linear:
    return lc.Linear(3, 1, dtype="float64", seed=0)


class Duck:
    """No more than what fit asks for."""

    def __init__(self) -> None:
        self.inner = linear()

    def forward(self, x: Array) -> Any:
        return self.inner.forward(x)

    def backward(self, tape: Any, dy: Array) -> Any:
        return self.inner.backward(tape, dy)

    def parameters(self) -> list[Any]:
        return self.inner.parameters()

    def zero_grad(self) -> None:
        self.inner.zero_grad()


class Stateful(Duck):
    def __call__(self, x: Array) -> Array:
        return self.inner(x)

    def state_dict(self) -> Any:
        return self.inner.state_dict()

    def load_state_dict(self, state: Any) -> None:
        self.inner.load_state_dict(state)


def sgd(model: Any, lr: float = 0.1) -> Any:
    return lc.optim.SGD(model.parameters(), lr=lr)


# Which way is better ------------------------------------------------------------------------------


def own(pred: Array, target: Array) -> float:
    return float(np.abs(pred - target).max())


def said(pred: Array, target: Array) -> float:
    return own(pred, target)


said.mode = "min"  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("metric", "options"),
    [
        (metrics.rmse, {}),
        (partial(metrics.rmse, weight=np.ones((20, 1))), {}),
        (lc.losses.mae, {}),
        (partial(partial(lc.losses.huber), delta=0.5), {}),
        (said, {}),
        (partial(said), {}),
        (own, {"mode": "min"}),
    ],
)
def test_less_of_an_error_is_better(metric: Any, options: dict[str, str]) -> None:
    model = linear()
    stopping = EarlyStopping(patience=3, monitor="rmse", **options)
    history = quiet(
        model, (X, Y), loss=mse, optimizer=sgd(model), epochs=12, metrics={"rmse": metric},
        callbacks=stopping,
    )  # fmt: skip
    assert history.epochs == 12
    assert stopping.best_epoch == 12
    assert stopping.best == min(history.metrics["rmse"])


def test_more_of_a_share_is_better() -> None:
    model, best = linear(), BestWeights("right")
    labels = (Y > 0).astype(float)
    metric = partial(metrics.binary_accuracy, threshold=0.0)
    history = quiet(
        model, (X, labels), loss=lc.losses.binary_cross_entropy, optimizer=sgd(model, 3.0),
        epochs=12, metrics={"right": metric}, callbacks=best,
    )  # fmt: skip
    assert best.best == max(history.metrics["right"]) > history.metrics["right"][0]


def test_every_metric_says_which_way_is_better() -> None:
    for home in (lc.losses, metrics):
        for name in home.__all__:
            function = getattr(home, name)
            if not isinstance(function, type):
                highest = "accuracy" in name or name in ("nse", "f1")
                if name == "confusion_matrix":
                    continue  # more than one number
                assert function.mode == ("max" if highest else "min"), name


# Before the first step ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"callbacks": EarlyStopping()}, TypeError, r"no state_dict\(\): EarlyStopping needs it"),
        ({"callbacks": [BestWeights()]}, TypeError, r"no state_dict\(\): BestWeights needs it"),
        ({"callbacks": Checkpoint("x")}, TypeError, r"no state_dict\(\): Checkpoint needs it"),
        ({"validation": (X, Y)}, TypeError, "expected one that can be called, for validation"),
        ({"callbacks": EarlyStopping(monitor="f1", restore_best=False)}, ValueError, "'f1', exp"),
        (
            {"callbacks": EarlyStopping(monitor="validation loss", restore_best=False)},
            ValueError, "expected one of 'loss'",
        ),
        (
            {
                "callbacks": EarlyStopping(monitor="own", restore_best=False),
                "metrics": {"own": own},
            },
            ValueError, "of which it is not known whether less or more is better",
        ),
    ],
)  # fmt: skip
def test_what_a_run_lacks_is_noticed_before_its_first_step(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = Duck()
    with pytest.raises(error, match=message):
        quiet(model, (X, Y), loss=mse, optimizer=sgd(model), epochs=3, **options)
    assert model.inner == linear()


def test_a_duck_type_with_a_state_has_all_callbacks(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    model = Stateful()
    history = quiet(
        model, (X, Y), loss=mse, optimizer=sgd(model), epochs=3, validation=(X, Y),
        callbacks=[EarlyStopping(), Checkpoint(path)],
    )  # fmt: skip
    again = Stateful()
    resumed = quiet(
        again, (X, Y), loss=mse, optimizer=sgd(again), epochs=3, validation=(X, Y),
        callbacks=[EarlyStopping()], resume=path,
    )  # fmt: skip
    assert resumed.losses == history.losses
    assert again.inner == model.inner
    stateless = Duck()
    with pytest.raises(TypeError, match="expected something with"):
        quiet(stateless, (X, Y), loss=mse, optimizer=sgd(stateless), epochs=3, resume=path)


def test_a_checkpoint_asks_for_the_state_of_the_optimizer() -> None:
    model = linear()

    class Plain:
        parameters = model.parameters()

        def step(self) -> None:
            raise AssertionError("a step was made")

    with pytest.raises(TypeError, match=r"optimizer is .* no state_dict\(\): Checkpoint"):
        quiet(model, (X, Y), loss=mse, optimizer=Plain(), callbacks=Checkpoint("x"))


def test_an_optimizer_of_other_things_than_parameters() -> None:
    class Odd(Duck):
        def parameters(self) -> list[Any]:
            return [np.zeros(3)]

    class Plain:
        parameters: list[Any]

        def step(self) -> None:
            raise AssertionError("a step was made")

    model, optimizer = Odd(), Plain()
    optimizer.parameters = model.parameters()
    with pytest.raises(TypeError, match="expected Parameters only"):
        quiet(model, (X, Y), loss=mse, optimizer=optimizer)


def test_a_tape_without_a_state_is_noticed_before_the_step() -> None:
    class Carrying(Duck):
        def forward(self, x: Array, state: Any = None) -> Any:
            return self.inner.forward(x)

    model = Carrying()
    x, y = np.zeros((4, 2, 3)), np.ones((4, 2, 1))
    with pytest.raises(TypeError, match="expected a `state` to carry on"):
        quiet(model, (x, y), loss=mse, optimizer=sgd(model), truncate=2)
    assert model.inner == linear()


def test_a_validation_loss_that_is_not_finite(tmp_path: Path) -> None:
    model, bad = linear(), Y.copy()
    bad[3] = np.nan
    with pytest.raises(ValueError, match="the first batch of validation is nan before training"):
        quiet(model, (X, Y), loss=mse, optimizer=sgd(model), validation=(X, bad))
    assert model == linear()
    path = tmp_path / "run.safetensors"
    later = [(X, Y), (X, bad)]
    with pytest.raises(lc.NonFiniteError, match="the validation loss is nan in epoch 1, step 1"):
        quiet(
            model, (X, Y), loss=mse, optimizer=sgd(model), validation=later,
            callbacks=[Checkpoint(path)],
        )  # fmt: skip
    assert not path.exists()


def test_a_metric_that_is_nan_is_said_to_be() -> None:
    model = linear()

    def metric(pred: Array, target: Array) -> float:
        return np.nan

    history = quiet(
        model, (X, Y), loss=mse, optimizer=sgd(model), epochs=5, metrics={"r": metric},
        callbacks=EarlyStopping(2, monitor="r", mode="max"),
    )  # fmt: skip
    assert history.stopped == "no better r for 2 epochs, which is nan"


# Resuming -----------------------------------------------------------------------------------------


def begun(path: Path, **options: Any) -> None:
    model = linear()
    given = {"optimizer": lc.optim.Adam(model.parameters(), lr=0.1), "batch_size": 6, "seed": 1}
    quiet(model, (X, Y), loss=mse, epochs=2, callbacks=Checkpoint(path), **(given | options))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"lr": 0.01}, "lr is 0.01, and was 0.1: expected the same"),
        ({"batch_size": 7}, "batch_size is 7, and was 6"),
        ({"seed": 2}, "seed is 2, and was 1"),
        ({"shuffle": False}, "shuffle is False, and was True"),
        ({"clip_norm": 1.0}, "clip_norm is 1.0, and was None"),
        ({"beta": 0.5}, r"betas of the optimizer is \[0.5, 0.999\], and was"),
        ({"lr": 0.3, "seed": 3}, "lr is 0.3, and was 0.1; seed is 3, and was 1"),
        ({"loss": "mae"}, "loss is mae, and was (mse|None)"),
    ],
)
def test_resuming_with_other_settings_is_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "run.safetensors"
    begun(path)
    model = lc.Linear(3, 1, dtype="float64", seed=9)
    given: dict[str, Any] = {"lr": 0.1, "beta": 0.9, "batch_size": 6, "seed": 1, **change}
    lr, beta = given.pop("lr"), given.pop("beta")
    optimizer = lc.optim.Adam(model.parameters(), lr=lr, betas=(beta, 0.999))
    with pytest.raises(ValueError, match=r"run\.safetensors does not fit run: .*" + message):
        quiet(model, (X, Y), **{"loss": mse, **given}, epochs=4, optimizer=optimizer, resume=path)
    assert model == lc.Linear(3, 1, dtype="float64", seed=9)
    assert (optimizer.lr, optimizer.steps) == (lr, 0)


def test_what_may_differ_when_resuming(tmp_path: Path) -> None:
    """A seed not given, more epochs, objects that have been used already, a rate set by hand."""
    path = tmp_path / "run.safetensors"
    begun(path)
    model = linear()
    optimizer = lc.optim.Adam(model.parameters(), lr=0.1)
    history = quiet(
        model, (X, Y), loss=mse, epochs=5, batch_size=6, optimizer=optimizer, resume=path
    )
    assert history.epochs == 5

    model = linear()
    optimizer = lc.optim.SGD(model.parameters(), lr=0.1)
    schedule = lc.optim.StepLR(optimizer, 1, gamma=0.5)
    options = {"loss": mse, "optimizer": optimizer, "schedule": schedule, "batch_size": 6}
    quiet(model, (X, Y), **options, epochs=3, callbacks=Checkpoint(path))
    assert optimizer.lr < 0.1
    assert quiet(model, (X, Y), **options, epochs=4, resume=path).epochs == 4

    def slower(run: Any) -> None:
        run.optimizer.lr = 0.05

    model = linear()
    optimizer = lc.optim.SGD(model.parameters(), lr=0.1)
    options = {"loss": mse, "optimizer": optimizer, "batch_size": 6}
    quiet(model, (X, Y), **options, epochs=3, callbacks=[slower, Checkpoint(path)])
    assert quiet(model, (X, Y), **options, epochs=4, resume=path).lr[-1] == 0.05


def test_the_way_out_of_the_message(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    begun(path)

    class Slower(lc.callbacks.Callback):
        def on_start(self, run: Any) -> None:
            run.optimizer.lr = 0.01

    model = linear()
    optimizer = lc.optim.Adam(model.parameters(), lr=0.1)
    history = quiet(
        model, (X, Y), loss=mse, epochs=3, batch_size=6, seed=1, optimizer=optimizer,
        callbacks=Slower(), resume=path,
    )  # fmt: skip
    assert history.lr == [0.1, 0.1, 0.01]


# Scores and probabilities -------------------------------------------------------------------------

LABELS = (Y > 0).astype(int)


def classifier(*last: Any) -> lc.Sequential:
    return lc.Sequential(lc.Linear(3, 2, dtype="float64", seed=0), *last)


@pytest.mark.parametrize("last", [[lc.Softmax()], [lc.Sigmoid()], [lc.Sequential(lc.Softmax())]])
@pytest.mark.parametrize(
    "loss", [lc.losses.cross_entropy, partial(lc.losses.cross_entropy, label_smoothing=0.1)]
)
def test_probabilities_are_no_scores(last: list[Any], loss: Any) -> None:
    model, labels = classifier(*last), LABELS[:, 0]
    with pytest.raises(ValueError, match=r"but loss takes the scores before it: .* model\[:-1\]"):
        quiet(model, (X, labels), loss=loss, optimizer=sgd(model))
    with pytest.raises(ValueError, match="but loss takes the scores"):
        lc.evaluate(model, (X, labels), loss=loss)
    for metric in (lc.metrics.perplexity, lc.metrics.bits_per_symbol):
        with pytest.raises(ValueError, match="but p takes the scores"):
            lc.evaluate(model, (X, labels), metrics={"p": metric})
    assert model[0] == classifier()[0]
    metric = {"accuracy": lc.metrics.accuracy}
    trained = model[:-1]
    quiet(trained, (X, labels), loss=loss, optimizer=sgd(trained), epochs=50)
    assert model[0] == trained[0] != classifier()[0]
    assert lc.evaluate(model, (X, labels), metrics=metric)["accuracy"] > 0.8


def test_probabilities_of_two_classes() -> None:
    model = lc.Sequential(lc.Linear(3, 1, dtype="float64", seed=0), lc.Sigmoid())
    with pytest.raises(ValueError, match="but loss takes the scores"):
        quiet(model, (X, LABELS), loss=lc.losses.binary_cross_entropy, optimizer=sgd(model))
    right = lc.metrics.binary_accuracy
    with pytest.raises(ValueError, match=r"but right \(without threshold=\) takes the scores"):
        lc.evaluate(model, (X, LABELS), metrics={"right": right})
    halved = lc.evaluate(model, (X, LABELS), metrics={"right": partial(right, threshold=0.5)})
    assert halved == lc.evaluate(model[:-1], (X, LABELS), metrics={"right": right})
    assert lc.evaluate(model, (X, LABELS), loss=mse)["loss"] > 0


def test_probabilities_of_sequences() -> None:
    steps = lc.Sequential(lc.GRU(3, 2, seed=0), lc.Softmax(), lc.MeanPool())
    x = np.zeros((4, 5, 3), "f4")
    with pytest.raises(ValueError, match="takes the scores"):
        lc.evaluate(steps, (x, np.zeros(5, int)), loss=lc.losses.cross_entropy)
    inside = lc.Sequential(lc.Linear(3, 2, seed=0), lc.Softmax(), lc.GRU(2, 2, seed=1))
    lc.evaluate(inside, (x, np.zeros((4, 5), int)), loss=lc.losses.cross_entropy)
    says = lc.Sequential(lc.Embedding(5, 3, seed=0), lc.GRU(3, 5, seed=1), lc.Softmax())
    assert lc.generate(says, [1, 2], 3).shape == (3,)  # the likeliest, whatever the scale
    with pytest.raises(ValueError, match="but sample takes the scores"):
        lc.generate(says, [1, 2], 3, lc.sampling.temperature(seed=0))
