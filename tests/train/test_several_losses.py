"""A loss for each of several outputs, with weights, counted each over its own targets."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore import losses, metrics
from lstmcore.callbacks import BestWeights, Checkpoint

Array = np.ndarray[Any, np.dtype[Any]]

quiet = partial(lc.fit, progress=False)
T, B = 6, 10
RNG = np.random.default_rng(3)
X = RNG.standard_normal((T, B, 4))
NEXT = RNG.standard_normal((T, B, 2))
LABEL = RNG.integers(0, 3, B)
LENGTHS = np.array([6, 1, 3, 0, 6, 2, 5, 4, 1, 6])
TARGET = {"next": NEXT, "label": LABEL}
LOSS = {"next": "mse", "label": "cross_entropy"}


def two_heads(as_tuple: bool = False) -> lc.Model:
    x = lc.Input(4)
    y, h = lc.GRU(4, 5, seed=0, dtype="float64")(x)
    steps = lc.Linear(5, 2, seed=1, dtype="float64")(y)
    label = lc.Linear(5, 3, seed=2, dtype="float64")(h[-1])
    return lc.Model(x, (steps, label) if as_tuple else {"next": steps, "label": label})


def by_hand(weights: tuple[float, float]) -> Any:
    """The same loss as one function, which only knows its number of all targets at once."""

    def loss(pred: Any, target: Any, lengths: Any = None) -> Any:
        a, da = losses.mse(pred["next"], target["next"], lengths)
        b, db = losses.cross_entropy(pred["label"], target["label"])
        value = weights[0] * a + weights[1] * b
        return value, {"next": weights[0] * da, "label": weights[1] * db}

    return loss


def sgd(model: Any, lr: float = 0.1) -> Any:
    return lc.optim.SGD(model.parameters(), lr=lr)


@pytest.mark.parametrize("weights", [None, (1.0, 1.0), (0.25, 3.0), (0.0, 1.0)])
def test_the_sum_of_the_losses_is_trained(weights: Any) -> None:
    one, two = two_heads(), two_heads()
    options: dict[str, Any] = {"epochs": 4}
    data = [(X, TARGET, LENGTHS)]
    given = None if weights is None else dict(zip(("next", "label"), weights, strict=True))
    history = quiet(one, data, loss=LOSS, loss_weights=given, optimizer=sgd(one), **options)
    expected = quiet(two, data, loss=by_hand(weights or (1, 1)), optimizer=sgd(two), **options)
    assert one == two
    assert history.losses == pytest.approx(expected.losses, rel=1e-13)
    assert list(history.metrics) == ["next_loss", "label_loss"]
    w = weights or (1, 1)
    parts = np.array([history.metrics["next_loss"], history.metrics["label_loss"]])
    np.testing.assert_allclose(w @ parts, history.losses, rtol=1e-13)


def test_against_pytorch() -> None:
    torch = require("torch")
    model = two_heads()
    gru, steps, label = (m for m in model._children.values())
    theirs = torch.nn.ModuleList([lc.to_torch(gru), torch.nn.Linear(5, 2), torch.nn.Linear(5, 3)])
    theirs = theirs.double()
    for ours, other in ((steps, theirs[1]), (label, theirs[2])):
        other.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    adam = torch.optim.Adam(theirs.parameters(), lr=0.05)
    values = []
    for _ in range(6):
        y, h = theirs[0](torch.from_numpy(X))
        total = 0.5 * torch.nn.functional.mse_loss(theirs[1](y), torch.from_numpy(NEXT))
        total = total + 2 * torch.nn.functional.cross_entropy(
            theirs[2](h[-1]), torch.from_numpy(LABEL)
        )
        adam.zero_grad()
        total.backward()
        adam.step()
        values.append(total.item())
    history = quiet(
        model, [(X, TARGET)], loss=LOSS, loss_weights={"next": 0.5, "label": 2}, epochs=6,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.05),
    )  # fmt: skip
    np.testing.assert_allclose(history.losses, values, rtol=1e-10)
    np.testing.assert_allclose(
        label.state_dict()["weight"], theirs[2].weight.detach().numpy(), rtol=1e-9, atol=1e-12
    )


@pytest.mark.parametrize("batch_size", [1, 3, 7, None])
@pytest.mark.parametrize("weighted", [False, True])
def test_each_is_a_mean_over_all_its_targets(batch_size: Any, weighted: bool) -> None:
    """Steps are counted by lengths, labels by rows, whatever the batches are."""
    model = two_heads()
    weight = np.arange(B) * 0.5 if weighted else None
    found = lc.evaluate(
        model, (X, TARGET, LENGTHS), batch_size=batch_size, loss=LOSS, weight=weight,
        loss_weights={"next": 0.5, "label": 3.0},
        metrics={"next": ["rmse"], "label": {"right": metrics.accuracy}},
    )  # fmt: skip
    pred = model(X, lengths=LENGTHS)
    per_step = None if weight is None else np.tile(weight, (T, 1))
    steps, _ = losses.mse(pred["next"], NEXT, LENGTHS, weight=per_step)
    label, _ = losses.cross_entropy(pred["label"], LABEL, weight=weight)
    expected = {
        "loss": 0.5 * steps + 3.0 * label,
        "next_loss": steps,
        "label_loss": label,
        "next_rmse": np.sqrt(steps),
        "label_right": metrics.accuracy(pred["label"], LABEL, weight=weight),
    }
    assert list(found) == list(expected)
    assert found == pytest.approx(expected, rel=1e-12)
    model, lr0 = two_heads(), 0.0
    history = quiet(
        model, (X, TARGET, LENGTHS), batch_size=batch_size, loss=LOSS, weight=weight,
        loss_weights={"next": 0.5, "label": 3.0}, optimizer=sgd(model, lr0),
        metrics={"next": ["rmse"], "label": {"right": metrics.accuracy}},
    )  # fmt: skip
    assert {"loss": history.losses[0], **{k: v[0] for k, v in history.metrics.items()}} == (
        pytest.approx(expected, rel=1e-12)
    )


def test_a_tuple_of_outputs_and_a_loss_that_is_none(tmp_path: Path) -> None:
    model = two_heads(as_tuple=True)
    before = model.state_dict()
    best = BestWeights("1_loss")
    history = quiet(
        model, (X, (NEXT, LABEL), LENGTHS), loss=(None, "cross_entropy"), batch_size=4, seed=0,
        optimizer=sgd(model), epochs=3, validation=(X, (NEXT, LABEL), LENGTHS), callbacks=best,
    )  # fmt: skip
    assert list(history.metrics) == ["1_loss"]
    assert history.validation_losses == history.metrics["1_loss"]
    assert best.best == min(history.metrics["1_loss"])
    after = model.state_dict()
    changed = {name for name in before if not np.array_equal(before[name], after[name])}
    assert "linear.weight" not in changed  # the head that has no loss
    assert {"gru.weight_hh_l0", "linear_1.weight"} <= changed
    both = (X, (NEXT, LABEL), LENGTHS)
    found = lc.evaluate(model, both, loss=["mse", "cross_entropy"], loss_weights=[1, 2])
    assert found["loss"] == pytest.approx(found["0_loss"] + 2 * found["1_loss"], rel=1e-13)
    lonely = {"label": LABEL}  # no target for what has no loss
    lc.evaluate(two_heads(), (X, lonely), loss={"next": None, "label": "cross_entropy"})


def test_outputs_whose_rows_end_elsewhere() -> None:
    """An encoder's and a decoder's steps are counted apart."""
    source, previous = lc.Input(3), lc.Input(2)
    y, state = lc.GRU(3, 4, seed=0, dtype="float64")(source)
    z, _ = lc.GRU(2, 4, seed=1, dtype="float64")(previous, state)
    model = lc.Model([source, previous], {"y": y, "z": z})
    x = RNG.standard_normal((5, 2, 3)), RNG.standard_normal((3, 2, 2))
    target = {"y": np.zeros((5, 2, 4)), "z": np.zeros((3, 2, 4))}
    lengths = (np.array([5, 2]), np.array([1, 3]))
    batch = [lc.data.Batch(x, target, lengths)]
    found = lc.evaluate(model, batch, loss={"y": "mse", "z": "mse"})
    pred = model(x, lengths=lengths)
    for name, own in zip(("y", "z"), lengths, strict=True):
        expected = losses.mse(pred[name], target[name], own)[0]
        assert found[f"{name}_loss"] == pytest.approx(expected, rel=1e-13)
    with pytest.raises(ValueError, match=r"end at other steps.*a loss for each output scores them"):
        lc.evaluate(model, batch, metrics={"m": lambda pred, target, lengths=None: 0.0})


def test_resuming_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "run.safetensors"
    options: dict[str, Any] = {"loss": LOSS, "batch_size": 4, "seed": 0}
    data = (X, TARGET, LENGTHS)
    whole, model, again = two_heads(), two_heads(), two_heads()
    expected = quiet(whole, data, optimizer=sgd(whole), epochs=4, **options)
    quiet(model, data, optimizer=sgd(model), epochs=2, callbacks=Checkpoint(path), **options)
    history = quiet(again, data, optimizer=sgd(again), epochs=4, resume=path, **options)
    assert again == whole
    assert history.metrics == expected.metrics
    for changed, message in (
        ({"loss": {"next": "mae", "label": "cross_entropy"}}, "next_loss': 'mae'.*and was"),
        ({"loss_weights": {"label": 50.0}}, "loss_weights is .*50.0}, and was"),
    ):
        given = {**options, **changed, "resume": path}
        with pytest.raises(ValueError, match=message):
            quiet(again, data, optimizer=sgd(again), epochs=6, **given)


def test_probabilities_of_one_output() -> None:
    x = lc.Input(4)
    y, h = lc.GRU(4, 3, seed=0, dtype="float64")(x)
    model = lc.Model(x, {"next": y, "label": lc.Softmax()(h[-1])})
    with pytest.raises(ValueError, match="but label_loss takes the scores before it"):
        lc.evaluate(model, (X, {**TARGET, "next": X[..., :3]}), loss=LOSS)
    swapped = {"next": "binary_cross_entropy", "label": "mse"}
    target = {"next": np.zeros((T, B, 3)), "label": np.eye(3)[LABEL]}
    assert lc.evaluate(model, (X, target), loss=swapped)["loss"] > 0


@pytest.mark.parametrize("as_tuple", [False, True])
@pytest.mark.parametrize("batch_size", [None, 3])
def test_weights_of_each_output(as_tuple: bool, batch_size: int | None) -> None:
    """Of steps for one, of rows for the other, or none for it."""
    model, pred = two_heads(as_tuple), two_heads()(X, lengths=LENGTHS)
    steps, rows = RNG.random((T, B)), RNG.random(B)
    for weights in ((steps, rows), (steps, None), (None, rows)):
        a = losses.mse(pred["next"], NEXT, LENGTHS, weight=weights[0])[0]
        b = losses.cross_entropy(pred["label"], LABEL, weight=weights[1])[0]
        weight: Any = weights if as_tuple else dict(zip(TARGET, weights, strict=True))
        target, loss = (tuple(given.values()) if as_tuple else given for given in (TARGET, LOSS))
        options: dict[str, Any] = {"loss": loss, "weight": weight, "batch_size": batch_size}
        found = lc.evaluate(model, (X, target, LENGTHS), **options)
        assert list(found.values()) == pytest.approx([a + b, a, b], rel=1e-12)
        history = quiet(
            model, (X, target, LENGTHS), optimizer=sgd(model, 0.0), validation_split=0.3, **options
        )
        both = np.array([*history.losses, *history.validation_losses])
        assert both.shape == (2,)
        assert not np.allclose(both, a + b)
        if not as_tuple:
            weight = {name: w for name, w in weight.items() if w is not None}
            assert lc.evaluate(model, (X, target, LENGTHS), **options | {"weight": weight}) == found


def test_weights_of_each_output_for_all_of_them() -> None:
    """A metric of all outputs gets them as they are."""
    weight = {"next": np.full((T, B), 2.0), "label": np.full(B, 3.0)}
    seen = []

    def both(pred: Any, target: Any, weight: Any) -> float:
        seen.append({name: w.shape for name, w in weight.items()})
        return 1.0

    lc.evaluate(two_heads(), (X, TARGET), weight=weight, metrics={"both": both}, batch_size=5)
    assert seen == [{"next": (T, 5), "label": (5,)}] * 2


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"loss": {"next": "mse"}}, ValueError, "gives 'next', 'label', but loss is of the outp"),
        ({"loss": {**LOSS, "c": "mse"}}, ValueError, "but loss is of the outputs 'next', 'lab"),
        ({"loss": ("mse", "cross_entropy")}, ValueError, "the model gives 'next', 'label', but lo"),
        ({"target": {"next": NEXT}}, ValueError, "target is 'next', but loss is of the outputs"),
        ({"target": {**TARGET, "c": LABEL}}, ValueError, "target is 'next', 'label', 'c', but"),
        ({"target": NEXT}, TypeError, "target is an? .*, but loss is of the outputs"),
        ({"loss": {"next": None, "label": None}}, ValueError, "expected a loss for one output"),
        ({"loss": {"next": "mse", "label": "ce"}}, ValueError, r"loss\['label'\] is 'ce', expect"),
        ({"loss": {"next": 3, "label": "mse"}}, TypeError, r"loss\['next'\] is 3"),
        ({"loss_weights": {"c": 1}}, ValueError, "loss_weights has 'c', expected weights of 'nex"),
        ({"loss_weights": {"next": -1}}, ValueError, r"loss_weights\['next'\] is -1.0, exp"),
        ({"loss_weights": {"next": "1"}}, TypeError, r"loss_weights\['next'\] is '1'"),
        ({"loss_weights": (1, 2)}, TypeError, "loss_weights is .*, expected a dict, as loss"),
        ({"loss": "mse", "loss_weights": {"a": 1}}, ValueError, "but loss is one function"),
        ({"loss": "mse"}, TypeError, "gives several outputs, 'next', 'label', but loss is of one"),
        ({"metrics": ["rmse"]}, TypeError, r"rmse is of one: .* such as {'next': \['rmse'\]}"),
        ({"weight": {"c": np.ones(B)}}, ValueError, "weight .* is for 'c', expected a dict for 'n"),
        ({"weight": (None, np.ones(B))}, ValueError, "weight .* is for 0, 1, expected a dict"),
        ({"weight": {"next": np.ones(3)}}, ValueError, r"weight has shape \(3,\), expected \(10,"),
        ({"metrics": {"c": ["rmse"]}}, ValueError, "metrics has the name 'c', expected one of the"),
        ({"metrics": {"next_loss": metrics.rmse}}, ValueError, "the name 'next_loss'"),
        ({"metrics": {"label": "acc"}}, ValueError, "label_acc is 'acc', here 'accuracy'"),
        ({"loss": {"next": lambda p, t, lengths=None: (0.0, p), "label": "cross_entropy"},
          "weight": np.ones(B)}, ValueError, "weight is given, but next_loss takes no argument"),
        ({"loss": {"next": lambda p, t, lengths=None: 0.0, "label": "cross_entropy"}}, TypeError,
         "next_loss returned 0.0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    options: dict[str, Any], error: type[Exception], message: str
) -> None:
    model = two_heads()
    given: dict[str, Any] = {"loss": LOSS, **options}
    data = (X, given.pop("target", TARGET), LENGTHS)
    with pytest.raises(error, match=message):
        quiet(model, [lc.data.Batch(*data, weight=given.pop("weight", None))],
              optimizer=sgd(model), **given)  # fmt: skip
    assert model == two_heads()


def test_a_loss_for_outputs_that_are_not_there() -> None:
    model = lc.Linear(4, 2, seed=0, dtype="float64")
    with pytest.raises(TypeError, match=r"the model gives .*, but loss is of the outputs 'a'"):
        lc.evaluate(model, (X[0], {"a": NEXT[0]}), loss={"a": "mse"})
    with pytest.raises(ValueError, match=r"the output is .*, expected one for 'a', which a loss"):
        lc.evaluate(model, (X[0], NEXT[0]), metrics={"a": ["rmse"]})


def test_metrics_of_outputs_without_a_loss() -> None:
    found = lc.evaluate(two_heads(), (X, TARGET), metrics={"label": ["accuracy"]})
    assert found == {"label_accuracy": metrics.accuracy(two_heads()(X)["label"], LABEL)}


@pytest.mark.parametrize("as_tuple", [False, True])
def test_an_output_that_is_not_trained_needs_no_target(as_tuple: bool) -> None:
    """Nor one for each step, where rows are cut along time."""
    one = two_heads(as_tuple)
    loss: Any = ("mse", None) if as_tuple else {"next": "mse", "label": None}
    found = []
    for label in (LABEL, None):
        target: Any = (NEXT, label) if as_tuple else {"next": NEXT, "label": label}
        for data in ([(X, target, LENGTHS)], (X, target, LENGTHS)):
            for options in ({}, {"truncate": 2}, {"truncate": 4}):
                size = {"batch_size": 3} if isinstance(data, tuple) else {}
                found.append(lc.evaluate(one, data, loss=loss, **size, **options)["loss"])
    y = one(X, lengths=LENGTHS)[0 if as_tuple else "next"]
    assert found == pytest.approx([losses.mse(y, NEXT, LENGTHS)[0]] * len(found), rel=1e-12)
    trained = []
    for label in (LABEL, None):
        other = two_heads(as_tuple)
        target = (NEXT, label) if as_tuple else {"next": NEXT, "label": label}
        quiet(other, [(X, target, LENGTHS)], loss=loss, truncate=2, epochs=2, optimizer=sgd(other))
        trained.append(other)
    assert trained[0] == trained[1]
    assert trained[0] != two_heads(as_tuple)


def test_targets_that_are_needed_are_named() -> None:
    model = two_heads()
    with pytest.raises(ValueError, match=r"target is for 'next', expected one for 'label', which"):
        lc.evaluate(model, [(X, {"next": NEXT, "label": None})], loss=LOSS)
    with pytest.raises(ValueError, match=r"needs a target for each step, .*trained by is None"):
        lc.evaluate(model, [(X, TARGET)], loss=LOSS, truncate=2)


def test_messages_say_which_output_they_are_about() -> None:
    model = two_heads()
    for target, message in (
        ({"label": np.eye(3)[LABEL]}, r"loss of 'label': target has shape \(10, 3\), .* one-hot"),
        ({"label": LABEL + 1}, "loss of 'label': target has class 3, expected 0 to 2"),
        ({"next": NEXT[..., :1]}, r"loss of 'next': target has shape \(6, 10, 1\)"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.evaluate(model, [(X, {**TARGET, **target})], loss=LOSS)
    weight = np.ones((T, B))
    hint = (
        r"for 'label': weight has shape .*; \{'next': \.\.\., 'label': \.\.\.\} gives each its own"
    )
    with pytest.raises(ValueError, match=hint):
        lc.evaluate(model, (X, TARGET), loss=LOSS, weight=weight)
    with pytest.raises(ValueError, match=r"for 'label': weight has shape .*for each row$"):
        lc.evaluate(model, (X, TARGET), loss=LOSS, weight={"next": weight, "label": weight})
    pair = two_heads(as_tuple=True)
    with pytest.raises(ValueError, match=r"for 1: weight has .*; a tuple of 2 gives each its own"):
        lc.evaluate(pair, (X, (NEXT, LABEL)), loss=("mse", "cross_entropy"), weight=weight)


def test_several_targets_of_one_output_are_refused() -> None:
    model = lc.Sequential(lc.GRU(4, 2, dtype="float64", seed=0))
    for target, kind in (({"y": NEXT}, "dict of 'y'"), ((NEXT, NEXT), "tuple of 0, 1")):
        message = f"target is a {kind}, expected an array: the model gives one output"
        with pytest.raises(TypeError, match=message):
            lc.evaluate(model, [(X, target)], loss="mse")
