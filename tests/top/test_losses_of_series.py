"""Losses of forecasts and metrics of them: definitions, PyTorch, scikit-learn, and batches."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import numeric_gradient
from helpers.peers import require
from lstmcore import metrics
from lstmcore.losses import gaussian_nll, quantile

Array = np.ndarray[Any, np.dtype[Any]]

SHARES = (0.1, 0.5, 0.75, 0.9)
LOSSES: dict[str, Callable[..., Any]] = {
    "quantile": partial(quantile, quantiles=SHARES),
    "log_variance": gaussian_nll,
    "variance": partial(gaussian_nll, log_variance=False, full=True),
}


def example(name: str, features: int | None) -> tuple[Array, Array]:
    """Predictions (4, 3, parts * features), and targets (4, 3) or (4, 3, features)."""
    rng = np.random.default_rng(11)
    parts = len(SHARES) if name == "quantile" else 2
    pred = rng.standard_normal((4, 3, parts * (features or 1)))
    if name == "variance":
        pred[..., pred.shape[-1] // 2 :] = rng.uniform(0.2, 3.0, (4, 3, features or 1))
    return pred, rng.standard_normal((4, 3) if features is None else (4, 3, features))


# Definitions and gradients --------------------------------------------------------------------


def test_quantile_against_scikit_learn() -> None:
    require("sklearn")
    from sklearn.metrics import mean_pinball_loss

    pred, target = example("quantile", 5)
    w = np.random.default_rng(0).random((4, 3))
    parts = pred.reshape(12, 4, 5)
    for weight, theirs in ((None, None), (w, w.ravel())):
        each = [
            mean_pinball_loss(target.reshape(12, 5), parts[:, i], alpha=q, sample_weight=theirs)
            for i, q in enumerate(SHARES)
        ]
        loss, _ = quantile(pred, target, quantiles=SHARES, weight=weight)
        assert loss == pytest.approx(np.mean(each), rel=1e-13)
        value = metrics.pinball(pred, target, quantiles=SHARES, weight=weight)
        assert (value, value.weight) == (loss, loss.weight)


def test_quantile_is_least_at_the_quantile() -> None:
    target = np.random.default_rng(1).standard_normal(10001)
    for q in (0.05, 0.5, 0.9):
        at = np.quantile(target, q)
        losses = [
            quantile(np.full(10001, v), target, quantiles=q)[0] for v in (at, at - 0.1, at + 0.1)
        ]
        assert losses[0] == min(losses)
    assert quantile([1.0, 5.0], [2.0, 2.0], quantiles=0.5)[0] == 1.0  # half the absolute error


def test_the_gradient_of_quantile_where_it_is_right() -> None:
    assert quantile([1.0, 2.0], [1.0, 1.0], quantiles=0.9)[1].tolist() == [0.0, pytest.approx(0.05)]


@pytest.mark.parametrize("features", [None, 1, 3])
@pytest.mark.parametrize("masked", ["plain", "lengths", "weight", "weight of steps", "both"])
@pytest.mark.parametrize("name", LOSSES)
def test_gradients_are_exact(name: str, masked: str, features: int | None) -> None:
    rng = np.random.default_rng(3)
    pred, target = example(name, features)
    loss = LOSSES[name]
    if masked in ("lengths", "both"):
        loss = partial(loss, lengths=[4, 0, 2])
    if masked in ("weight", "both"):
        loss = partial(loss, weight=rng.random(target.shape) * (rng.random(target.shape) > 0.3))
    if masked == "weight of steps":
        loss = partial(loss, weight=rng.random((4, 3)))
    expected = numeric_gradient(lambda p: loss(p, target)[0], pred)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(loss(pred, target)[1], expected, atol=1e-8)


@pytest.mark.parametrize("features", [None, 3])
@pytest.mark.parametrize("name", LOSSES)
def test_what_does_not_count_may_be_anything(name: str, features: int | None) -> None:
    pred, target = example(name, features)
    loss, lengths = LOSSES[name], [4, 0, 2]
    valid = np.arange(4)[:, None] < np.array(lengths)
    expected, drows = loss(pred[valid], target[valid])
    wanted = np.zeros_like(pred)
    wanted[valid] = drows
    pred[~valid], target[~valid] = np.nan, -np.inf
    value, dpred = loss(pred, target, lengths)
    assert value == pytest.approx(expected, rel=1e-14)
    assert value.weight == valid.sum() * (features or 1) == expected.weight
    np.testing.assert_allclose(dpred, wanted, rtol=1e-13)
    swapped, dswapped = loss(pred.swapaxes(0, 1), target.swapaxes(0, 1), lengths, batch_first=True)
    assert swapped == pytest.approx(value, rel=1e-14)
    np.testing.assert_allclose(dswapped.swapaxes(0, 1), dpred, rtol=1e-14)
    for scale in (1e-300, 1.0, 1e300):
        value, dpred = loss(pred, target, weight=valid * scale)
        assert value == pytest.approx(expected, rel=1e-13)
        np.testing.assert_allclose(dpred, wanted, rtol=1e-13)
    value, dpred = loss(pred, target, [0, 0, 0])
    assert (value, value.weight) == (0.0, 0.0)
    assert not dpred.any()
    pred, target = example(name, features)
    pred[0, 0, 0] = np.nan
    value, dpred = loss(pred, target)
    assert math.isnan(value)
    assert np.isnan(dpred[0, 0, 0])
    assert np.isfinite(dpred[1:]).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("full", [False, True])
def test_gaussian_nll_against_pytorch(full: bool, dtype: str) -> None:
    torch = require("torch")
    rng = np.random.default_rng(5)
    mean, target = rng.standard_normal((2, 6, 3, 4)).astype(dtype)
    log = rng.standard_normal((6, 3, 4)).astype(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-7} if dtype == "float32" else {"rtol": 1e-12}
    m, s = (torch.from_numpy(a).requires_grad_() for a in (mean, log))
    expected = torch.nn.GaussianNLLLoss(full=full)(m, torch.from_numpy(target), s.exp())
    expected.backward()
    loss, dpred = gaussian_nll(np.concatenate([mean, log], axis=-1), target, full=full)
    assert loss == pytest.approx(expected.item(), rel=tolerance["rtol"])
    assert dpred.dtype == dtype
    np.testing.assert_allclose(dpred[..., :4], m.grad.numpy(), **tolerance)
    np.testing.assert_allclose(dpred[..., 4:], s.grad.numpy(), **tolerance)
    # Variances, of which some are lower than eps: their gradient is PyTorch's there too.
    variance = (np.abs(log) * (rng.random(log.shape) > 0.3)).astype(dtype)
    m, v = (torch.from_numpy(a).requires_grad_() for a in (mean, variance))
    expected = torch.nn.GaussianNLLLoss(full=full, eps=0.01)(m, torch.from_numpy(target), v)
    expected.backward()
    options = {"log_variance": False, "full": full, "eps": 0.01}
    loss, (dmean, dvariance) = gaussian_nll((mean, variance), target, **options)
    assert loss == pytest.approx(expected.item(), rel=tolerance["rtol"])
    assert dmean.shape == dvariance.shape == mean.shape
    np.testing.assert_allclose(dmean, m.grad.numpy(), **tolerance)
    np.testing.assert_allclose(dvariance, v.grad.numpy(), **tolerance)


def test_a_variance_that_is_too_small_can_grow_again() -> None:
    _, dpred = gaussian_nll([[0.0, -100.0], [0.0, -100.0]], [1.0, 0.0], eps=1e-3)
    assert dpred[0, 1] < -100  # the error is larger than the variance
    assert dpred[1, 1] == 0.25  # and here it is 0
    for full, constant in ((False, 0.0), (True, math.log(2 * math.pi) / 2)):
        loss, _ = gaussian_nll([[0.0, -100.0]], [0.1], eps=1e-2, full=full)
        assert loss == pytest.approx((math.log(1e-2) + 1.0) / 2 + constant, rel=1e-14)
    loss, dpred = gaussian_nll(np.array([[1e30, 500.0]], "f4"), np.array([0.0], "f4"))
    assert math.isfinite(loss)
    assert np.isfinite(dpred).all()


def test_the_gaussian_finds_mean_and_variance() -> None:
    rng = np.random.default_rng(2)
    x = np.ones((4000, 1))
    y = (3.0 + 0.5 * rng.standard_normal(4000))[:, None]
    model = lc.Linear(1, 2, bias=False, dtype="float64", seed=0)
    optimizer = lc.optim.Adam(model.parameters(), lr=0.05)
    lc.fit(model, (x, y), loss=gaussian_nll, optimizer=optimizer, epochs=400, progress=False)
    mean, log = model.state_dict()["weight"][:, 0]
    assert mean == pytest.approx(y.mean(), abs=1e-3)
    assert math.exp(log) == pytest.approx(y.var(), rel=1e-2)


# Metrics --------------------------------------------------------------------------------------


def test_metrics_against_scikit_learn() -> None:
    require("sklearn")
    from sklearn import metrics as theirs

    rng = np.random.default_rng(0)
    pred, target, w = rng.standard_normal(50), rng.standard_normal(50) + 3, rng.random(50)
    for weight in (None, w):
        for ours, other in (
            (metrics.mae, theirs.mean_absolute_error),
            (metrics.mape, theirs.mean_absolute_percentage_error),
            (metrics.nse, theirs.r2_score),
        ):
            expected = other(target, pred, sample_weight=weight)
            assert ours(pred, target, weight=weight) == pytest.approx(expected, rel=1e-13)


def test_shares_of_nothing_are_left_out() -> None:
    assert metrics.mape([1.0, 3.0], [0.0, 2.0]) == 0.5
    assert metrics.mape([1.0, 3.0], [0.0, 2.0]).weight == 1.0
    assert metrics.mape([1.0], [0.0]) == 0.0
    assert metrics.mape(np.array([[3e38]], "f4"), np.array([[-3e38]], "f4")) == 2.0
    assert math.isnan(metrics.mape([math.nan, 1.0], [1.0, 1.0]))


def test_nse_where_targets_are_all_the_same() -> None:
    assert metrics.nse([0.1] * 3, [0.1] * 3) == 1.0
    assert metrics.nse([0.1, 0.1, 0.2], [0.1] * 3) == -math.inf
    assert metrics.nse([], []) == 1.0
    target = [1.0, 2.0, 6.0]
    assert metrics.nse([3.0] * 3, target) == pytest.approx(0.0, abs=1e-15)
    assert metrics.nse(target, target) == 1.0
    assert math.isnan(metrics.nse([math.nan, 1.0, 2.0], target))


def test_an_efficiency_can_be_copied() -> None:
    value = metrics.nse([1.0, 2.0, 4.0], [1.0, 2.0, 3.0])
    for again in (pickle.loads(pickle.dumps(value)), copy.deepcopy(value)):
        assert (again, again.weight) == (0.5, 3.0)
        assert again.finish(again.mean) == 0.5


SERIES: dict[str, Any] = {
    "mae": metrics.mae,
    "mape": metrics.mape,
    "nse": metrics.nse,
    "pinball": partial(metrics.pinball, quantiles=0.9),
    "gaussian_nll": lambda pred, target, *lengths, **more: gaussian_nll(
        np.concatenate([pred, pred], axis=-1), target, *lengths, **more
    ),
}


@pytest.mark.parametrize("offset", [0.0, 1e4])
@pytest.mark.parametrize("name", SERIES)
def test_batches_of_any_size_give_the_number_of_the_whole(name: str, offset: float) -> None:
    rng = np.random.default_rng(4)
    pred, target = rng.standard_normal((2, 7, 13, 2)) + np.array([0.0, 1.0])
    pred, target = pred + offset, target + offset
    target[rng.random(target.shape) < 0.2] = 0.0 if name == "mape" else offset
    lengths, weight = rng.integers(0, 8, 13), rng.random((7, 13))
    lengths[:4] = 0  # so that a batch has nothing
    function = SERIES[name]
    rtol = 1e-10 if offset else 1e-13
    for more in ({}, {"weight": weight}):
        each = {"weight": np.repeat(weight[..., None], 2, axis=-1)} if more else {}
        expected = function(pred, target, lengths, **each)
        expected = expected[0] if isinstance(expected, tuple) else expected
        batch = lc.data.Batch(pred, target, lengths, weight=more.get("weight"))
        for size in (1, 4, 13):
            found = lc.evaluate(_Given(), batch, metrics={"m": function}, batch_size=size)
            assert found["m"] == pytest.approx(expected, rel=rtol), size


class _Given:
    """A model that returns its x: predictions ready made."""

    batch_first = False

    def __call__(self, x: Array) -> Array:
        return x


def test_a_batch_without_targets_of_nse_beside_a_loss() -> None:
    pred = np.arange(6.0).reshape(1, 3, 2)

    def ignoring(pred: Array, target: Array) -> Any:
        return metrics.nse(pred, target, weight=np.zeros(target.shape))

    found = lc.evaluate(_Given(), (pred, pred), loss=lc.losses.mse, metrics={"nse": ignoring})
    assert found == {"loss": 0.0, "nse": 1.0}


def test_which_way_is_better() -> None:
    assert metrics.nse.mode == "max"
    assert all(f.mode == "min" for f in (metrics.mae, metrics.mape, metrics.pinball, quantile))


# Bad input ------------------------------------------------------------------------------------

P = np.zeros((4, 3, 6))
K = np.zeros((4, 3, 2))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: quantile(P, K[..., :1]), ValueError, r"pred has shape \(4, 3, 6\) and target"),
        (lambda: quantile(P, K[..., 0]), ValueError, r"\(\.\.\., 3\) for target \(\.\.\.\)"),
        (lambda: quantile(1.0, 1.0), ValueError, "a prediction for each quantile"),
        (lambda: quantile(P, K, quantiles=[0.1, 0.5, 1.0]), ValueError, r"quantiles is \[0.1"),
        (lambda: quantile(P, K, quantiles=[]), ValueError, r"quantiles is \[\]"),
        (lambda: quantile(P, K, quantiles=math.nan), ValueError, "quantiles is nan"),
        (lambda: quantile(P, K, quantiles="0.5"), TypeError, "quantiles has dtype"),
        (lambda: quantile(P, K, [5, 0, 0]), ValueError, r"lengths\[0\] is 5"),
        (lambda: quantile(P, K, weight=np.ones(3)), ValueError, r"expected \(4, 3, 2\) or \(4, 3"),
        (lambda: quantile(P[..., :3], K[..., 0], weight=K), ValueError, r"expected \(4, 3\)$"),
        (lambda: gaussian_nll(P, K), ValueError, "mean and variance of each target"),
        (lambda: gaussian_nll((K, K, K), K), ValueError, "pred is a tuple of 3"),
        (lambda: gaussian_nll((K, P), K), ValueError, r"shapes \(4, 3, 2\) and \(4, 3, 6\)"),
        (lambda: gaussian_nll((K, K), K, eps=0), ValueError, "eps is 0, expected above 0"),
        (lambda: gaussian_nll((K, K), K, full=1), TypeError, "full is 1"),
        (lambda: gaussian_nll((K, K), K, log_variance=None), TypeError, "log_variance is None"),
        (
            lambda: gaussian_nll((K, K - 0.5), K, log_variance=False),
            ValueError,
            "pred has the variance -0.5, expected at least 0",
        ),
        (lambda: metrics.mape(K, P), ValueError, r"target has shape \(4, 3, 6\)"),
        (lambda: metrics.nse(K, K * 1j), TypeError, "target has dtype complex128"),
    ],
)
def test_they_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_negative_variance_that_does_not_count_is_not_seen() -> None:
    variance = np.array([[1.0], [-1.0]])
    for weight in ([1, 0], [[1], [0]]):
        loss, _ = gaussian_nll(
            (np.zeros((2, 1)), variance), np.zeros((2, 1)), log_variance=False, weight=weight
        )
        assert loss == 0.0
