"""Losses against their definitions, finite differences and PyTorch; metrics; bad input."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient
from helpers.peers import require
from lstmcore import metrics
from lstmcore.losses import binary_cross_entropy, cross_entropy, huber, mae, mse

Array = np.ndarray[Any, np.dtype[Any]]
Loss = Callable[..., tuple[float, Array]]

ELEMENTWISE: dict[str, Loss] = {
    "mse": mse,
    "mae": mae,
    "huber": partial(huber, delta=0.7),
    "binary_cross_entropy": binary_cross_entropy,
    "pos_weight": partial(binary_cross_entropy, pos_weight=[0.5, 3.0, 1.0, 0.0, 2.0]),
}
CLASSIFYING: dict[str, Loss] = {
    "cross_entropy": cross_entropy,
    "smoothed": partial(cross_entropy, label_smoothing=0.2),
    "class_weight": partial(cross_entropy, class_weight=[0.5, 3.0, 1.0, 0.0, 2.0]),
    "both": partial(
        cross_entropy, class_weight=[0.5, 3.0, 1.0, 0.0, 2.0], label_smoothing=0.2, ignore_index=2
    ),
}
ALL = ELEMENTWISE | CLASSIFYING


def targets(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> Array:
    """Return targets for predictions of this shape."""
    if name in CLASSIFYING:
        return rng.integers(0, shape[-1], shape[:-1])
    if name in ("binary_cross_entropy", "pos_weight"):
        return rng.random(shape)
    return rng.standard_normal(shape)


# Definitions and gradients --------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (1, 1), (4, 3), (5, 2, 3), (2, 3, 2, 4), (3, 40)])
def test_cross_entropy_against_the_definition(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(len(shape))
    pred = rng.standard_normal(shape) * 3
    target = rng.integers(0, shape[-1], shape[:-1])
    loss, dpred = cross_entropy(pred, target)
    softmax = np.exp(pred) / np.exp(pred).sum(axis=-1, keepdims=True)
    right = np.take_along_axis(softmax, target[..., None], axis=-1)
    assert loss == pytest.approx(-np.log(right).mean(), rel=1e-12)
    expected = numeric_gradient(lambda p: cross_entropy(p, target)[0], pred)
    np.testing.assert_allclose(dpred, expected, atol=1e-8)


@pytest.mark.parametrize("of_class", [None, [0.5, 3.0, 1.0, 0.0, 2.0]], ids=["plain", "weighted"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2, 1.0])
def test_smoothed_cross_entropy_against_the_definition(
    smoothing: float, of_class: list[float] | None
) -> None:
    rng = np.random.default_rng(2)
    pred, target = rng.standard_normal((8, 5)), rng.integers(0, 5, 8)
    w = np.ones(5) if of_class is None else np.array(of_class)
    each = w * (np.log(np.exp(pred).sum(axis=-1, keepdims=True)) - pred)  # (8, 5), of every class
    total = (1 - smoothing) * each[np.arange(8), target] + smoothing / 5 * each.sum(axis=-1)
    loss, _ = cross_entropy(pred, target, label_smoothing=smoothing, class_weight=of_class)
    assert loss == pytest.approx(total.sum() / w[target].sum(), rel=1e-12)


def test_elementwise_losses_against_their_definitions() -> None:
    rng = np.random.default_rng(8)
    pred, target = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    error = np.abs(pred - target)
    assert mse(pred, target)[0] == pytest.approx((error**2).mean(), rel=1e-14)
    assert mae(pred, target)[0] == pytest.approx(error.mean(), rel=1e-14)
    expected = np.where(error <= 0.5, error**2 / 2, 0.5 * (error - 0.25))
    assert (error <= 0.5).any()
    assert (error > 0.5).any()
    assert huber(pred, target, delta=0.5)[0] == pytest.approx(expected.mean(), rel=1e-14)
    share = rng.random((2, 3, 4))
    p = 1 / (1 + np.exp(-pred))
    expected = -share * np.log(p) - (1 - share) * np.log(1 - p)
    assert binary_cross_entropy(pred, share)[0] == pytest.approx(expected.mean(), rel=1e-13)


@pytest.mark.parametrize("masked", ["plain", "lengths", "weight", "lengths and weight"])
@pytest.mark.parametrize("name", ALL)
def test_gradients_are_exact(name: str, masked: str) -> None:
    rng = np.random.default_rng(3)
    pred = rng.standard_normal((4, 3, 5)) * 2
    target = targets(name, pred.shape, rng)
    loss: Loss = ALL[name]
    if "lengths" in masked:
        loss = partial(loss, lengths=[4, 0, 2])
    if "weight" in masked:
        loss = partial(loss, weight=rng.random(target.shape) * (rng.random(target.shape) > 0.3))
    expected = numeric_gradient(lambda p: loss(p, target)[0], pred)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(loss(pred, target)[1], expected, atol=1e-8)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", ALL)
def test_losses_against_pytorch(name: str, dtype: str) -> None:
    torch = require("torch")
    rng = np.random.default_rng(5)
    pred = (rng.standard_normal((50, 5)) * 10).astype(dtype)
    target = targets(name, pred.shape, rng)
    if target.dtype == np.float64:
        target = target.astype(dtype)
    f = torch.nn.functional
    of_class = torch.tensor([0.5, 3.0, 1.0, 0.0, 2.0], dtype=getattr(torch, dtype))
    theirs = {
        "mse": f.mse_loss,
        "mae": f.l1_loss,
        "huber": partial(f.huber_loss, delta=0.7),
        "binary_cross_entropy": f.binary_cross_entropy_with_logits,
        "pos_weight": partial(f.binary_cross_entropy_with_logits, pos_weight=of_class),
        "cross_entropy": f.cross_entropy,
        "smoothed": partial(f.cross_entropy, label_smoothing=0.2),
        "class_weight": partial(f.cross_entropy, weight=of_class),
        "both": partial(f.cross_entropy, weight=of_class, label_smoothing=0.2, ignore_index=2),
    }[name]
    tensor = torch.from_numpy(pred).requires_grad_()
    expected = theirs(tensor, torch.from_numpy(target))
    expected.backward()
    loss, dpred = ALL[name](pred, target)
    assert isinstance(loss, float)
    assert dpred.dtype == dtype
    tolerance = {"rtol": 2e-5, "atol": 1e-8} if dtype == "float32" else {"rtol": 1e-12}
    np.testing.assert_allclose(loss, expected.item(), **tolerance)
    tolerance = {"atol": 1e-7} if dtype == "float32" else {"atol": 1e-15}
    np.testing.assert_allclose(dpred, tensor.grad.numpy(), rtol=1e-5, **tolerance)


def test_weighted_losses_against_pytorch() -> None:
    torch = require("torch")
    rng = np.random.default_rng(6)
    pred, w = rng.standard_normal((4, 3, 5)), rng.random((4, 3, 5))
    f = torch.nn.functional
    for loss, theirs, averaged in (
        (mse, f.mse_loss, True),
        (mae, f.l1_loss, True),
        (huber, f.huber_loss, False),
        (binary_cross_entropy, f.binary_cross_entropy_with_logits, False),
    ):
        target = rng.random((4, 3, 5))
        each = theirs(torch.from_numpy(pred), torch.from_numpy(target), reduction="none").numpy()
        value = loss(pred, target, weight=w)[0]
        assert value == pytest.approx((w * each).sum() / w.sum(), rel=1e-13)
        tensors = (torch.from_numpy(pred), torch.from_numpy(target))
        built_in = theirs(*tensors, weight=torch.from_numpy(w)).item()
        # Ours is a weighted mean throughout. PyTorch divides some by the number of elements.
        assert value == pytest.approx(built_in if averaged else built_in / w.mean(), rel=1e-13)


def test_float32_losses_of_many_are_exact() -> None:
    pred = np.full((1000, 1000), 0.1, "float32")
    value = float(np.float32(0.1))
    assert mae(pred, np.zeros_like(pred))[0] == pytest.approx(value, rel=1e-12)
    assert mse(pred, np.zeros_like(pred))[0] == pytest.approx(value**2, rel=1e-7)


# What is not finite, or nothing ---------------------------------------------------------------


def test_cross_entropy_does_not_overflow() -> None:
    for dtype, huge in (("float32", 3e38), ("float64", 1e308)):
        pred = np.array([[huge, -huge], [huge, huge]], dtype)
        loss, dpred = cross_entropy(pred, [0, 1])
        assert loss == pytest.approx(math.log(2) / 2)
        assert np.array_equal(dpred, np.array([[0, 0], [0.25, -0.25]], dtype))
    assert cross_entropy([0.0, -math.inf], 1)[0] == math.inf
    loss, dpred = cross_entropy([[math.nan, 0.0], [0.0, 0.0]], [0, 0])
    assert math.isnan(loss)
    assert np.isnan(dpred[0]).all()
    assert np.array_equal(dpred[1], [-0.25, 0.25])


def test_binary_cross_entropy_is_exact_for_large_scores() -> None:
    x = np.array([-1000.0, -50.0, 50.0, 1000.0, -1000.0, -50.0, 50.0, 1000.0])
    t = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    for score, label in zip(x, t, strict=True):
        against = score if label == 0 else -score  # > 0: the score is wrong
        loss, dpred = binary_cross_entropy([score], [label])
        assert loss == pytest.approx(np.logaddexp(0, against), rel=1e-14)
        share = math.exp(min(against, 0)) / (1 + math.exp(-abs(against)))
        assert dpred[0] == pytest.approx(share if label == 0 else -share, rel=1e-14)


@pytest.mark.parametrize("name", ALL)
def test_what_is_not_finite_is_seen(name: str) -> None:
    rng = np.random.default_rng(1)
    pred = rng.standard_normal((4, 5))
    target = targets(name, pred.shape, rng)
    target.flat[:4] = 0  # a class of weight
    pred[1, 0] = math.nan
    loss, dpred = ALL[name](pred, target)
    assert math.isnan(loss)
    assert np.isnan(dpred[1, 0])
    assert np.isfinite(dpred[[0, 2, 3]]).all()


@pytest.mark.parametrize("name", ALL)
def test_losses_of_nothing(name: str) -> None:
    for shape in ((0, 5), (0, 2, 5), (3, 0, 5)):
        pred = np.zeros(shape, "float32")
        loss, dpred = ALL[name](pred, targets(name, shape, np.random.default_rng(0)))
        assert (loss, dpred.shape, dpred.dtype) == (0.0, shape, np.float32)
    pred = np.full((2, 3, 5), math.nan)
    target = targets(name, pred.shape, np.random.default_rng(0))
    for options in ({"lengths": [0, 0, 0]}, {"weight": np.zeros(target.shape)}):
        loss, dpred = ALL[name](pred, target, **options)
        assert loss == 0.0
        assert not dpred.any()
    assert mse(np.zeros((2, 0)), np.zeros((2, 0)))[0] == 0.0


# Lengths and weights --------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[4, 0, 1], [0, 0, 0], [4, 4, 4]])
@pytest.mark.parametrize("name", ALL)
def test_lengths_leave_the_padding_out(name: str, lengths: list[int], batch_first: bool) -> None:
    rng = np.random.default_rng(7)
    pred = rng.standard_normal((4, 3, 5))
    target = targets(name, pred.shape, rng)
    valid = np.arange(4)[:, None] < lengths
    expected, drows = ALL[name](pred[valid], target[valid])
    wanted = np.zeros_like(pred)
    wanted[valid] = drows

    pred[~valid] = np.nan  # the padding may be anything
    target[~valid] = -77
    if batch_first:
        pred, target, wanted = pred.swapaxes(0, 1), target.swapaxes(0, 1), wanted.swapaxes(0, 1)
        valid = valid.T
    loss, dpred = ALL[name](pred, target, lengths, batch_first=batch_first)
    assert loss == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(dpred, wanted, rtol=1e-15)
    assert not dpred[~valid].any()
    # Weights of 0 and 1 say the same, whatever their scale and type.
    for one in (True, 1, 1e-3, 1e300):
        loss, dpred = ALL[name](pred, target, weight=valid * one)
        assert loss == pytest.approx(expected, rel=1e-14)
        np.testing.assert_allclose(dpred, wanted, rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-300, 1e-40, 1e40, 1e300])
@pytest.mark.parametrize("name", ALL)
def test_the_scale_of_weights_does_not_matter(name: str, scale: float) -> None:
    """Also one that float32, in which the predictions are, does not have."""
    rng = np.random.default_rng(7)
    pred = rng.standard_normal((4, 3, 5)).astype("float32")
    target = targets(name, pred.shape, rng)
    w = rng.random(target.shape)
    expected, dexpected = ALL[name](pred, target, weight=w)
    loss, dpred = ALL[name](pred, target, weight=w * scale)
    assert loss == pytest.approx(expected, rel=1e-6)
    np.testing.assert_allclose(dpred, dexpected, rtol=1e-5)
    assert dpred.any()


def test_weights_of_steps_and_of_elements() -> None:
    rng = np.random.default_rng(2)
    pred, target = rng.standard_normal((4, 3, 5)), rng.standard_normal((4, 3, 5))
    w = rng.random((4, 3))
    for loss in ELEMENTWISE.values():
        if loss is not mse:
            target = rng.random((4, 3, 5))
        once = loss(pred, target, [4, 2, 1], weight=w)
        each = loss(pred, target, [4, 2, 1], weight=np.repeat(w[..., None], 5, axis=2))
        assert once[0] == pytest.approx(each[0], rel=1e-14)
        np.testing.assert_allclose(once[1], each[1], rtol=1e-14)
    doubled = cross_entropy(pred[:, 0], [0, 1, 2, 3], weight=[2, 1, 1, 0])
    repeated = cross_entropy(pred[[0, 0, 1, 2], 0], [0, 0, 1, 2])
    assert doubled[0] == pytest.approx(repeated[0], rel=1e-14)


def test_weights_multiply_those_of_classes() -> None:
    rng = np.random.default_rng(2)
    pred, target = rng.standard_normal((6, 3)), np.array([0, 1, 2, 2, 1, 0])
    w, of_class = rng.random(6), np.array([1.0, 0.2, 5.0])
    loss, dpred = cross_entropy(pred, target, weight=w, class_weight=of_class)
    same, dsame = cross_entropy(pred, target, weight=w * of_class[target])
    assert loss == pytest.approx(same, rel=1e-14)
    np.testing.assert_allclose(dpred, dsame, rtol=1e-13)


def test_ignored_targets() -> None:
    rng = np.random.default_rng(4)
    pred = rng.standard_normal((4, 3))
    loss, dpred = cross_entropy(pred, [0, -100, 2, -100])
    assert loss == pytest.approx(cross_entropy(pred[::2], [0, 2])[0], rel=1e-15)
    assert not dpred[1::2].any()
    assert cross_entropy(pred, [0, 1, 2, 1], ignore_index=1)[0] == loss
    assert cross_entropy(pred, np.array([0, 1, 2, 1], "u1"), ignore_index=1)[0] == loss
    # Beside weights and lengths: neither brings them back, and what they leave out may be anything.
    target, w = [[0, -100], [-100, 1], [2, 99]], np.array([[1.0, 2.0], [0.5, 3.0], [2.0, 1.0]])
    rows = rng.standard_normal((3, 2, 3))
    loss, dpred = cross_entropy(rows, target, [3, 2], weight=w)
    picked = rows[[0, 1, 2], [0, 1, 0]]
    expected, dpicked = cross_entropy(picked, [0, 1, 2], weight=[1.0, 3.0, 2.0])
    assert loss == pytest.approx(expected, rel=1e-15)
    np.testing.assert_allclose(dpred[[0, 1, 2], [0, 1, 0]], dpicked, rtol=1e-15)
    assert not dpred[[0, 1, 2], [1, 0, 1]].any()
    assert cross_entropy(rows, target, [3, 2])[0] == pytest.approx(
        cross_entropy(picked, [0, 1, 2])[0], rel=1e-15
    )
    with pytest.raises(ValueError, match="target has class -100, expected 0 to 2"):
        cross_entropy(pred, [0, -100, 2, -100], ignore_index=None)


@pytest.mark.parametrize("name", ALL)
def test_arguments_are_left_alone(name: str) -> None:
    rng = np.random.default_rng(9)
    pred = rng.standard_normal((4, 3, 5)).astype("float32")
    target = targets(name, pred.shape, rng)
    w = rng.random(target.shape)
    before = pred.copy(), target.copy(), w.copy()
    strided = np.asfortranarray(pred)
    results = [ALL[name](p, target, [4, 0, 1], weight=w) for p in (pred, strided, pred.tolist())]
    for array, copy in zip((pred, target, w), before, strict=True):
        assert_same_bits(array, copy)
    assert results[0][0] == results[1][0] == pytest.approx(results[2][0], rel=1e-5)
    assert_same_bits(results[0][1], results[1][1])
    assert results[2][1].dtype == np.float64


def test_cross_entropy_has_the_same_bits_everywhere(threads: None) -> None:
    rng = np.random.default_rng(9)
    pred = rng.standard_normal((2000, 65)).astype("float32") * 5
    target = rng.integers(0, 65, 2000)
    before, results = lc.isa(), []
    for isa in lc.available_isas():
        for count in (1, 2):
            lc.set_isa(isa)
            lc.set_num_threads(count)
            results.append((isa, *cross_entropy(pred, target, label_smoothing=0.1)))
    lc.set_isa(before)
    for isa, loss, dpred in results:
        assert loss == pytest.approx(results[-1][1], rel=1e-6)
        if isa != "x86-64-v2":  # which lacks fused multiply-add
            assert loss == results[-1][1]
            assert_same_bits(dpred, results[-1][2])


# Metrics --------------------------------------------------------------------------------------


def test_accuracy() -> None:
    scores = np.array([[[0.1, 0.5, 0.4], [0.7, 0.2, 0.1]], [[0.2, 0.3, 0.5], [0.0, 0.1, 1.0]]])
    labels = np.array([[1, 1], [2, 0]])
    assert metrics.accuracy(scores, labels) == 0.5
    assert metrics.accuracy(scores, labels, [2, 0]) == 1.0
    assert metrics.accuracy(scores, labels, [1, 1]) == 0.5
    assert metrics.accuracy(scores, labels, [2, 0], batch_first=True) == 0.5
    assert metrics.accuracy(scores, [[1, -100], [2, -100]]) == 1.0
    assert metrics.accuracy(scores, labels, top_k=2) == 0.75
    assert metrics.accuracy(scores, labels, top_k=3) == 1.0
    assert metrics.accuracy(scores, labels, [0, 0]) == 0.0
    assert metrics.accuracy([0.1, 0.9], 1) == 1.0
    assert metrics.accuracy([[math.nan, 0.0]], [1], top_k=2) == 1.0
    assert metrics.accuracy([[math.nan, 0.0]], [0], top_k=2) == 0.0
    assert metrics.accuracy([[math.nan, 0.0]], [0]) == 0.0
    for top_k in (1, 2):  # of equal scores the first are the highest
        hits = [metrics.accuracy([[1.0, 1.0, 1.0]], [k], top_k=top_k) for k in range(3)]
        assert hits == [1.0, float(top_k == 2), 0.0]
    assert metrics.binary_accuracy([math.nan, math.nan], [0, 1]) == 0.0


def test_binary_accuracy() -> None:
    scores, labels = [[-1.0, 2.0], [0.3, 4.0]], [[0, 1], [0, 0]]
    assert metrics.binary_accuracy(scores, labels) == 0.5
    assert metrics.binary_accuracy(scores, labels, threshold=0.5) == 0.75
    assert metrics.binary_accuracy(scores, labels, [1, 1]) == 1.0
    assert metrics.binary_accuracy(scores, np.array(labels, bool), [0, 2]) == 0.5


def test_metrics_that_come_from_losses() -> None:
    rng = np.random.default_rng(0)
    pred, target = rng.standard_normal((4, 3, 5)), rng.integers(0, 5, (4, 3))
    nats = cross_entropy(pred, target, [4, 1, 0])[0]
    assert metrics.perplexity(pred, target, [4, 1, 0]) == pytest.approx(math.exp(nats))
    assert metrics.bits_per_symbol(pred, target, [4, 1, 0]) == pytest.approx(nats / math.log(2))
    assert metrics.perplexity([[0.0, -1e4]], [1]) == math.inf
    assert math.isnan(metrics.perplexity([[math.nan, 0.0]], [1]))
    values = rng.standard_normal((4, 3, 5))
    assert metrics.rmse(pred, values, [1, 2, 3]) == pytest.approx(
        math.sqrt(mse(pred, values, [1, 2, 3])[0])
    )


# Bad input ------------------------------------------------------------------------------------

P = np.zeros((4, 3, 5))
K = np.zeros((4, 3), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cross_entropy(P, K + 5), ValueError, "target has class 5, expected 0 to 4"),
        (lambda: cross_entropy(P, K - 1), ValueError, "target has class -1, expected 0 to 4"),
        (lambda: cross_entropy(P, K[0]), ValueError, r"target has shape \(3,\), expected \(4, 3\)"),
        (lambda: cross_entropy(P, K * 1.0), TypeError, "target has dtype float64"),
        (lambda: cross_entropy(P * 1j, K), TypeError, "pred has dtype complex128"),
        (lambda: cross_entropy(P.astype(object), K), TypeError, "pred has dtype object"),
        (lambda: cross_entropy(1.0, 0), ValueError, r"pred has shape \(\)"),
        (lambda: cross_entropy(np.zeros((2, 0)), [0, 0]), ValueError, r"pred has shape \(2, 0\)"),
        (lambda: cross_entropy(P, K, [5, 0, 0]), ValueError, r"lengths\[0\] is 5"),
        (lambda: cross_entropy(P, K, [1, 1]), ValueError, r"lengths has shape \(2,\)"),
        (lambda: cross_entropy(P, K, [1.0, 1, 1]), TypeError, "lengths has dtype float64"),
        (lambda: cross_entropy(P[0, 0], 0, [1]), ValueError, "lengths need a time"),
        (lambda: cross_entropy(P, K, batch_first=1), TypeError, "batch_first is 1"),
        (
            lambda: cross_entropy(P, np.eye(5)[np.zeros(P.shape[:-1], int)]),
            ValueError,
            r"target has shape .*, that of pred, expected .* target.argmax\(axis=-1\)",
        ),
        (lambda: cross_entropy(P, K, label_smoothing=1.5), ValueError, "label_smoothing is 1.5"),
        (lambda: cross_entropy(P, K, label_smoothing="a"), TypeError, "label_smoothing is 'a'"),
        (lambda: cross_entropy(P, K, ignore_index=0.5), TypeError, "ignore_index is 0.5"),
        (
            lambda: cross_entropy(P, K, class_weight=[1, 2]),
            ValueError,
            r"class_weight has shape \(2,\), expected \(5,\)",
        ),
        (
            lambda: cross_entropy(P, K, class_weight=[1, 1, 1, 1, -1]),
            ValueError,
            "class_weight has -1.0, expected finite",
        ),
        (
            lambda: cross_entropy(P, K, weight=np.ones(5)),
            ValueError,
            r"weight has shape \(5,\), expected \(4, 3\)",
        ),
        (lambda: cross_entropy(P, K, weight=K * math.nan), ValueError, "weight has nan"),
        (lambda: cross_entropy(P, K, weight=K - 2.0), ValueError, "weight has -2.0"),
        (lambda: mse(P, P[0]), ValueError, r"target has shape \(3, 5\), expected \(4, 3, 5\)"),
        (lambda: mse(P, P * 1j), TypeError, "target has dtype complex128"),
        (lambda: mse(P, P, [-1, 0, 0]), ValueError, r"lengths\[0\] is -1.* time steps of pred"),
        (
            lambda: mae(P, P, weight=np.ones(3)),
            ValueError,
            r"weight has shape \(3,\), expected \(4, 3, 5\) or \(4, 3\)",
        ),
        (lambda: mse(P, P, weight=P + math.inf), ValueError, "weight has inf"),
        (lambda: mse(P, P, weight="heavy"), TypeError, "weight has dtype <U5"),
        (lambda: huber(P, P, delta=0), ValueError, "delta is 0, expected above 0"),
        (lambda: huber(P, P, delta=math.inf), ValueError, "delta is inf"),
        (lambda: binary_cross_entropy(P, P + 2), ValueError, "target has 2.0, expected 0 to 1"),
        (lambda: binary_cross_entropy(P, P - 1), ValueError, "target has -1.0, expected 0 to 1"),
        (lambda: binary_cross_entropy(P, P * math.nan), ValueError, "target has nan"),
        (lambda: binary_cross_entropy(P, P, pos_weight=-1), ValueError, "pos_weight has -1.0"),
        (
            lambda: binary_cross_entropy(P, P, pos_weight=[1, 2]),
            ValueError,
            r"pos_weight has shape \(2,\), expected one number or \(5,\)",
        ),
        (lambda: metrics.accuracy(P, K + 5), ValueError, "target has class 5, expected 0 to 4"),
        (lambda: metrics.accuracy(P, K, top_k=0), ValueError, "top_k is 0"),
        (lambda: metrics.accuracy(P, K, [9, 0, 0]), ValueError, r"lengths\[0\] is 9"),
        (lambda: metrics.perplexity(P, K - 1), ValueError, "target has class -1"),
        (lambda: metrics.rmse(P, P[0]), ValueError, r"target has shape \(3, 5\)"),
        (lambda: metrics.binary_accuracy(P, P, threshold="x"), TypeError, "threshold is 'x'"),
    ],
)
def test_losses_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("pred", "target", "hint"),
    [
        ((4, 1), (4,), r"; target\[\.\.\., None\] has that"),
        ((4,), (4, 1), r"; target\[\.\.\., 0\] has that"),
        ((3, 4, 1), (4, 3, 1), r"; target\.swapaxes\(0, 1\) has that"),
        ((9, 7), (7, 9, 1), r"; target\[\.\.\., 0\]\.T has that"),
        ((3, 4), (5,), "that of pred"),
    ],
    ids=str,
)
def test_a_shape_that_is_nearly_right(pred: Any, target: Any, hint: str) -> None:
    with pytest.raises(ValueError, match=f"target has shape .*, that of pred{hint}$|{hint}$"):
        mse(np.zeros(pred), np.zeros(target))


def test_classes_in_other_forms_are_told_how_to_become_numbers() -> None:
    scores = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"expected integers of shape \(3,\): target\.argmax"):
        cross_entropy(scores, np.eye(2)[[0, 1, 0]])
    with pytest.raises(ValueError, match=r"\(3,\): target\[\.\.\., 0\], or binary_cross_entropy"):
        cross_entropy(scores[:, :1], np.ones((3, 1), int))
    with pytest.raises(TypeError, match=r"expected integers: np\.unique\(\.\.\., return_inverse"):
        cross_entropy(scores, np.array(["pos", "neg", "pos"]))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"inhomogeneous .*; rows of several lengths .*data\.pad"):
        mse([[1.0, 2.0], [3.0]], [1.0])  # type: ignore[list-item]
