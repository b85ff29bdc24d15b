"""Linear, the losses and Adam, each alone and all of them in whole training runs."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore.datasets import japanese_vowels
from lstmcore.losses import cross_entropy, mse
from peers import require

DATA = Path(__file__).parent / "data"

Array = np.ndarray[Any, np.dtype[Any]]


def numeric_gradient(function: Callable[[Array], float], x: Array, step: float = 1e-6) -> Array:
    """Central differences."""
    gradient = np.zeros_like(x)
    for index in np.ndindex(*x.shape):
        moved = x.copy()
        moved[index] = x[index] + step
        above = function(moved)
        moved[index] = x[index] - step
        gradient[index] = (above - function(moved)) / (2 * step)
    return gradient


# Linear ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("leading", [(), (1,), (4,), (3, 2), (0, 2), (2, 1, 3)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_linear_against_the_definition(leading: tuple[int, ...], bias: bool, dtype: str) -> None:
    rng = np.random.default_rng(1)
    linear = lc.Linear(5, 3, bias, dtype, seed=2)
    x = rng.standard_normal((*leading, 5)).astype(dtype)
    dy = rng.standard_normal((*leading, 3)).astype(dtype)
    w, *b = (p.data.astype("float64") for p in linear.parameters())
    tolerance = 1e-5 if dtype == "float32" else 1e-14

    y, tape = linear.forward(x)
    dx = linear.backward(tape, dy)

    assert y.dtype == dx.dtype == dtype
    assert np.array_equal(linear(x), y)
    np.testing.assert_allclose(y, np.einsum("oi,...i->...o", w, x) + sum(b), atol=tolerance)
    np.testing.assert_allclose(dx, np.einsum("oi,...o->...i", w, dy), atol=tolerance)
    dw = np.einsum("no,ni->oi", dy.reshape(-1, 3), x.reshape(-1, 5))
    gradients = [dw, dy.reshape(-1, 3).sum(axis=0)][: 1 + bias]
    for p, gradient in zip(linear.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad, gradient, atol=tolerance)
    linear.backward(tape, dy)
    for p, gradient in zip(linear.parameters(), gradients, strict=True):
        np.testing.assert_allclose(p.grad, 2 * gradient, atol=2 * tolerance)


def test_linear_starts_like_pytorch() -> None:
    linear = lc.Linear(16, 1000, seed=3)
    for p in linear.parameters():
        assert 0.24 < p.data.max() <= 0.25
        assert -0.25 <= p.data.min() < -0.24
        assert abs(p.data.mean()) < 0.02
    assert linear == lc.Linear(16, 1000, seed=3)
    assert linear != lc.Linear(16, 1000, seed=4)
    assert linear.num_parameters == 17000


def test_linear_takes_pytorchs_parameters() -> None:
    torch = require("torch")
    theirs = torch.nn.Linear(4, 3)
    ours = lc.Linear(4, 3)
    ours.load_state_dict(theirs.state_dict())
    x = np.random.default_rng(0).standard_normal((6, 4)).astype("float32")
    np.testing.assert_allclose(ours(x), theirs(torch.from_numpy(x)).detach(), atol=1e-6)
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_linear_tape_keeps_the_weights_of_its_forward_call() -> None:
    linear = lc.Linear(4, 3, dtype="float64", seed=0)
    _, tape = linear.forward(np.ones((2, 4)))
    dx = linear.backward(tape, np.ones((2, 3)))
    for p in linear.parameters():
        p.data[...] = 0
    assert np.array_equal(linear.backward(tape, np.ones((2, 3))), dx)
    assert not linear(np.ones((2, 4))).any()
    assert tape.nbytes == 12 * 8


def test_linear_copies() -> None:
    linear = lc.Linear(4, 3, bias=False, dtype="float64", seed=0)
    for twin in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
        assert twin == linear
        twin.parameters()[0].data += 1
        assert twin != linear
    assert repr(linear) == "Linear(4, 3, bias=False, dtype=float64)"
    assert repr(lc.Linear(4, 3)) == "Linear(4, 3)"


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda f: lc.Linear(0, 3), ValueError, "in_features is 0, expected at least 1"),
        (lambda f: lc.Linear(4, 2.5), TypeError, "out_features is 2.5"),
        (lambda f: lc.Linear(4, 3, bias=1), TypeError, "bias is 1"),
        (lambda f: lc.Linear(4, 3, dtype="int32"), ValueError, "dtype is .*int32"),
        (lambda f: lc.Linear(4, 3, seed=-1), ValueError, "seed is -1"),
        (lambda f: lc.Linear(10**9, 10**9), MemoryError, "1000000000"),
        (lambda f: f(np.ones((2, 5), "f4")), ValueError, r"x has shape \(2, 5\).*\(\.\.\., 4\)"),
        (lambda f: f(3.0), ValueError, r"x has shape \(\)"),
        (lambda f: f(np.ones((2, 4))), TypeError, "x has dtype float64, expected float32"),
        (lambda f: f(np.ones((2, 4), "c8")), TypeError, "x has dtype complex64"),
        (lambda f: f.backward(None, np.ones(3)), TypeError, "tape is None"),
        (
            lambda f: f.backward(lc.Linear(4, 3).forward(np.ones(4, "f4"))[1], np.ones(3, "f4")),
            ValueError,
            "tape was made by another layer",
        ),
        (
            lambda f: f.backward(f.forward(np.ones((2, 4), "f4"))[1], np.ones((1, 3), "f4")),
            ValueError,
            r"dy has shape \(1, 3\), expected \(2, 3\)",
        ),
        (
            lambda f: f.backward(f.forward(np.ones((2, 4), "f4"))[1], np.ones((2, 3))),
            TypeError,
            "dy has dtype float64",
        ),
        (lambda f: f.load_state_dict({"weight": np.ones((3, 4))}), ValueError, "missing: bias"),
    ],
)
def test_linear_refuses(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    linear = lc.Linear(4, 3, seed=0)
    before = linear.state_dict()
    with pytest.raises(error, match=message):
        call(linear)
    assert all(np.array_equal(before[name], p.data) for name, p in linear.named_parameters())
    assert not any(p.grad.any() for p in linear.parameters())


# Losses ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3,), (1, 1), (4, 3), (5, 2, 3), (2, 3, 2, 4)])
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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_cross_entropy_and_mse_against_pytorch(dtype: str) -> None:
    torch = require("torch")
    rng = np.random.default_rng(5)
    pred = (rng.standard_normal((50, 7)) * 30).astype(dtype)
    labels, values = rng.integers(0, 7, 50), rng.standard_normal((50, 7)).astype(dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-8} if dtype == "float32" else {"rtol": 1e-12}
    for ours, theirs, target in (
        (cross_entropy, torch.nn.functional.cross_entropy, labels),
        (mse, torch.nn.functional.mse_loss, values),
    ):
        tensor = torch.from_numpy(pred).requires_grad_()
        expected = theirs(tensor, torch.from_numpy(target))
        expected.backward()
        loss, dpred = ours(pred, target)
        assert isinstance(loss, float)
        assert dpred.dtype == dtype
        np.testing.assert_allclose(loss, expected.item(), **tolerance)
        np.testing.assert_allclose(dpred, tensor.grad.numpy(), **tolerance)


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


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [[4, 0, 1], [0, 0, 0], [4, 4, 4]])
@pytest.mark.parametrize("loss_function", [cross_entropy, mse])
def test_lengths_leave_the_padding_out(
    loss_function: Callable[..., tuple[float, Array]], lengths: list[int], batch_first: bool
) -> None:
    rng = np.random.default_rng(7)
    pred = rng.standard_normal((4, 3, 5))
    target = rng.integers(0, 5, (4, 3)) if loss_function is cross_entropy else pred[::-1] + 1.0
    valid = np.arange(4)[:, None] < lengths
    expected, drows = loss_function(pred[valid], target[valid])
    wanted = np.zeros_like(pred)
    wanted[valid] = drows

    pred[~valid] = np.nan  # the padding may be anything
    target[~valid] = -100
    if batch_first:
        pred, target, wanted = pred.swapaxes(0, 1), target.swapaxes(0, 1), wanted.swapaxes(0, 1)
    loss, dpred = loss_function(pred, target, lengths, batch_first=batch_first)
    assert loss == expected
    assert np.array_equal(dpred, wanted)
    assert np.isfinite(loss)


def test_losses_of_nothing() -> None:
    loss, dpred = cross_entropy(np.zeros((0, 3), "float32"), np.zeros(0, int))
    assert (loss, dpred.shape, dpred.dtype) == (0.0, (0, 3), np.float32)
    loss, dpred = mse(np.zeros((2, 0)), np.zeros((2, 0)))
    assert (loss, dpred.shape) == (0.0, (2, 0))


def test_mse_against_the_definition() -> None:
    rng = np.random.default_rng(8)
    pred, target = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 4))
    loss, dpred = mse(pred, target)
    assert loss == pytest.approx(((pred - target) ** 2).sum() / 24)
    np.testing.assert_allclose(
        dpred, numeric_gradient(lambda p: mse(p, target)[0], pred), atol=1e-8
    )
    assert mse(pred.astype("float32"), target)[1].dtype == np.float32


P = np.zeros((4, 3, 5))
K = np.zeros((4, 3), int)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: cross_entropy(P, K + 5), ValueError, "target has class 5, expected 0 to 4"),
        (lambda: cross_entropy(P, K - 1), ValueError, "target has class -1"),
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
        (lambda: mse(P, P[0]), ValueError, r"target has shape \(3, 5\), expected \(4, 3, 5\)"),
        (lambda: mse(P, P * 1j), TypeError, "target has dtype complex128"),
        (lambda: mse(P, P, [-1, 0, 0]), ValueError, r"lengths\[0\] is -1"),
    ],
)
def test_losses_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Adam -----------------------------------------------------------------------------------------


def parameters(dtype: str = "float64") -> list[lc.Parameter]:
    rng = np.random.default_rng(11)
    shapes = {"w": (3, 4), "b": (3,)}
    return [lc.Parameter(n, rng.standard_normal(s).astype(dtype)) for n, s in shapes.items()]


@pytest.mark.parametrize(
    "options",
    [{}, {"lr": 0.1}, {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3}, {"betas": (0.0, 0.0)}],
)
def test_adam_against_pytorch(options: dict[str, Any]) -> None:
    torch = require("torch")
    ours = parameters()
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    optimizer, expected = lc.optim.Adam(ours, **options), torch.optim.Adam(theirs, **options)
    rng = np.random.default_rng(12)
    for step in range(20):
        for p, t in zip(ours, theirs, strict=True):
            p.grad = rng.standard_normal(p.shape) * 10.0 ** rng.integers(-6, 3)
            t.grad = torch.from_numpy(p.grad.copy())
        if step == 10:
            optimizer.lr *= 0.3
            expected.param_groups[0]["lr"] *= 0.3
        optimizer.step()
        expected.step()
        for p, t in zip(ours, theirs, strict=True):
            np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_against_the_paper(dtype: str) -> None:
    ours = parameters(dtype)
    w = [p.data.astype("float64") for p in ours]
    m, v = [0.0, 0.0], [0.0, 0.0]
    optimizer = lc.optim.Adam(ours, lr=0.01)
    rng = np.random.default_rng(13)
    for t in range(1, 6):
        for i, p in enumerate(ours):
            p.grad = g = rng.standard_normal(p.shape).astype(dtype)
            m[i] = 0.9 * m[i] + 0.1 * g.astype("float64")
            v[i] = 0.999 * v[i] + 0.001 * g.astype("float64") ** 2
            w[i] = w[i] - 0.01 * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
        optimizer.step()
    for p, expected in zip(ours, w, strict=True):
        assert p.data.dtype == dtype
        np.testing.assert_allclose(p.data, expected, atol=1e-6 if dtype == "float32" else 1e-14)


def test_adam_resumes_where_it_was_saved() -> None:
    whole, parts = parameters("float32"), parameters("float32")
    gradients = np.random.default_rng(14).standard_normal((6, 3, 4))

    def run(optimizer: lc.optim.Adam, steps: range) -> None:
        for step in steps:
            for p in optimizer.parameters:
                p.grad = gradients[step] if p.name == "w" else gradients[step, :, 0]
            optimizer.step()

    run(lc.optim.Adam(whole, lr=0.1), range(6))
    first = lc.optim.Adam(parts, lr=0.1)
    run(first, range(3))
    saved = pickle.loads(pickle.dumps(first.state_dict()))
    run(first, range(3, 5))  # must not change what was saved
    for p, start in zip(parts, parameters("float32"), strict=True):
        p.data = start.data
    run(lc.optim.Adam(parts, lr=0.1), range(3))
    second = lc.optim.Adam(parts)
    second.load_state_dict(saved)
    assert second.lr == 0.1
    run(second, range(3, 6))
    for p, q in zip(whole, parts, strict=True):
        assert np.array_equal(p.data, q.data)


def test_adam_without_gradients_changes_nothing() -> None:
    ours = parameters()
    optimizer = lc.optim.Adam(ours)
    optimizer.step()
    for p, q in zip(ours, parameters(), strict=True):
        assert np.array_equal(p.data, q.data)
    ours[0].grad += 1.0
    optimizer.zero_grad()
    assert not ours[0].grad.any()


@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRU"])
def test_layers_see_a_step_of_adam(layer: str) -> None:
    model = getattr(lc, layer)(3, 4, seed=0)
    twin = getattr(lc, layer)(3, 4, seed=1)
    x = np.ones((5, 2, 3), "float32")
    optimizer = lc.optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        before, _, tape = model.forward(x)
        model.backward(tape, np.ones_like(before))
        optimizer.step()
        after, _ = model(x)
        twin.load_state_dict(model.state_dict())
        assert not np.array_equal(after, before)
        assert np.array_equal(after, twin(x)[0])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.optim.Adam([]), ValueError, "parameters is empty"),
        (lambda: lc.optim.Adam([np.ones(3)]), TypeError, "expected Parameters"),
        (lambda: lc.optim.Adam(parameters()[:1] * 2), ValueError, "one of them twice"),
        (lambda: lc.optim.Adam(parameters(), lr=-1.0), ValueError, "lr is -1.0"),
        (lambda: lc.optim.Adam(parameters(), lr=math.nan), ValueError, "lr is nan"),
        (lambda: lc.optim.Adam(parameters(), lr="fast"), TypeError, "lr is 'fast'"),
        (lambda: lc.optim.Adam(parameters(), betas=(0.9, 1.0)), ValueError, "betas is"),
        (lambda: lc.optim.Adam(parameters(), betas=0.9), TypeError, "betas is 0.9"),
        (lambda: lc.optim.Adam(parameters(), eps=-1e-8), ValueError, "eps is -1e-08"),
    ],
)
def test_adam_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps is -1"),
        ({"lr": -1.0}, "lr is -1.0"),
        ({"unknown": 0}, "unexpected keys .*unknown"),
        ({"exp_avg": []}, "exp_avg is not a list of 2 arrays"),
        ({"exp_avg_sq": [np.ones((3, 4)), np.ones(4)]}, r"exp_avg_sq\[1\] has shape \(4,\)"),
    ],
)
def test_adam_refuses_a_wrong_state_whole(change: dict[str, Any], message: str) -> None:
    optimizer = lc.optim.Adam(parameters(), lr=0.5)
    state = lc.optim.Adam(parameters(), lr=0.25).state_dict() | {"steps": 3} | change
    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)
    assert (optimizer.lr, optimizer.steps) == (0.5, 0)
    assert not any(m.any() for m in optimizer.state_dict()["exp_avg"])


# Whole runs -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("case", "options", "lr"),
    [
        ("LSTM_2l_bi_Adam", {"num_layers": 2, "bidirectional": True}, 0.005),
        ("RNN_2l_bi_Adam", {"num_layers": 2, "bidirectional": True}, 0.005),
        ("GRU_1l_uni_Adam", {}, 0.01),
    ],
)
def test_training_follows_a_recorded_run_of_pytorch(
    case: str, options: dict[str, Any], lr: float
) -> None:
    with np.load(DATA / "train_trajectory.npz") as arrays:
        record = {name[len(case) + 1 :]: arrays[name] for name in arrays if name.startswith(case)}
    vowels, _ = japanese_vowels()
    rows = slice(0, 256, 4)
    x, lengths = vowels.x[:, rows].astype("float64"), vowels.lengths[rows]
    layer = getattr(lc, case.split("_")[0])(12, 16, dtype="float64", **options)
    assert not layer.load_state_dict(record, strict=False, prefix="init.").missing_keys
    head = lc.Linear(record["init.head.weight"].shape[1], 9, dtype="float64")
    head.load_state_dict(record, prefix="init.head.")
    optimizer = lc.optim.Adam([*layer.parameters(), *head.parameters()], lr=lr)
    directions = 2 if options else 1

    for expected_loss, expected_norm in zip(record["loss"], record["gradnorm"], strict=True):
        _, state, tape = layer.forward(x, lengths=lengths)
        h = state[0] if case.startswith("LSTM") else state
        features = h[-directions:].swapaxes(0, 1).reshape(len(lengths), -1)
        scores, head_tape = head.forward(features)
        loss, dscores = cross_entropy(scores, vowels.labels[rows])
        optimizer.zero_grad()
        dh = np.zeros_like(h)
        dfeatures = head.backward(head_tape, dscores).reshape(len(lengths), directions, 16)
        dh[-directions:] = dfeatures.swapaxes(0, 1)
        layer.backward(tape, None, (dh, None) if case.startswith("LSTM") else dh)
        norm = math.sqrt(sum(float(np.square(p.grad).sum()) for p in optimizer.parameters))
        assert loss == pytest.approx(expected_loss, rel=1e-10)
        assert norm == pytest.approx(expected_norm, rel=1e-9)
        optimizer.step()

    named = layer.named_parameters() + [(f"head.{n}", p) for n, p in head.named_parameters()]
    for name, p in named:
        np.testing.assert_allclose(p.data, record[f"final.{name}"], rtol=1e-9, atol=1e-10)


# The data -------------------------------------------------------------------------------------


def test_japanese_vowels_are_whole() -> None:
    train, test = japanese_vowels()
    assert np.bincount(train.labels).tolist() == [30] * 9
    assert np.bincount(test.labels).tolist() == [31, 35, 88, 44, 29, 24, 40, 50, 29]
    for data in (train, test):
        assert data.x.dtype == np.float32
        assert data.lengths.dtype == data.labels.dtype == np.int64
        assert data.x.shape == (data.lengths.max(), len(data.labels), 12)
        valid = np.arange(len(data.x))[:, None] < data.lengths
        assert not data.x[~valid].any()
        assert data.x[valid].any(axis=1).all()
    # The first and the last frame of ae.train's first block, as the file of the source has them.
    assert train.x[0, 0, :3].tolist() == pytest.approx([1.860936, -0.207383, 0.261557])
    assert train.lengths[:3].tolist() == [20, 26, 22]
