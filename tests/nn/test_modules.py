"""Activations, LayerNorm, Dropout and pooling: against PyTorch, differences, the definitions."""

from __future__ import annotations

import copy
import json
import pickle
import pydoc
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient
from helpers.peers import require

Array = np.ndarray[Any, np.dtype[Any]]


def gradients(module: Any, x: Array, dy: Array, **options: Any) -> dict[str, Array]:
    """The gradients of x and of every parameter by name."""
    module.zero_grad()
    _, tape = module.forward(x, **options)
    dx = module.backward(tape, dy)
    return {"x": dx, **{name: p.grad.copy() for name, p in module.named_parameters()}}


def differences(module: Any, x: Array, dy: Array, **options: Any) -> dict[str, Array]:
    """The same by central differences, from calls for inference."""
    found = {"x": numeric_gradient(lambda x: float((module(x, **options) * dy).sum()), x)}
    for name, p in module.named_parameters():
        found[name] = parameter_gradient(p, lambda: float((module(x, **options) * dy).sum()))
    return found


def norm(shape: int | tuple[int, ...], **options: Any) -> lc.LayerNorm:
    """A LayerNorm in float64 with other parameters than 1 and 0."""
    module = lc.LayerNorm(shape, dtype="float64", **options)
    rng = np.random.default_rng(3)
    for p in module.parameters():
        p.data = rng.standard_normal(p.shape)
    return module


PLAIN: dict[str, Callable[[], Any]] = {
    "Tanh": lc.Tanh,
    "ReLU": lc.ReLU,
    "Sigmoid": lc.Sigmoid,
    "Softmax": lc.Softmax,
    "LogSoftmax": lc.LogSoftmax,
    "LayerNorm": lambda: norm(5),
    "LayerNorm over two axes": lambda: norm((4, 5)),
    "LayerNorm without bias": lambda: norm(5, bias=False, eps=1e-2),
    "LayerNorm without parameters": lambda: norm(5, elementwise_affine=False),
    "Linear": lambda: lc.Linear(5, 3, dtype="float64", seed=0),
}


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("leading", [(4,), (3, 4), (2, 3, 4), (0, 4)])
def test_gradients_are_those_of_differences(name: str, leading: tuple[int, ...]) -> None:
    module = PLAIN[name]()
    rng = np.random.default_rng(len(leading))
    x = rng.standard_normal((*leading, 5))
    y, tape = module.forward(x)
    assert_same_bits(module(x), y)
    assert y.dtype == np.float64
    dy = rng.standard_normal(y.shape)
    ours, expected = gradients(module, x, dy), differences(module, x, dy)
    assert ours.keys() == expected.keys()
    for key, gradient in ours.items():
        np.testing.assert_allclose(gradient, expected[key], rtol=1e-6, atol=1e-8, err_msg=key)
    module.backward(tape, dy)  # adds, and a tape serves twice
    for key, p in module.named_parameters():
        np.testing.assert_allclose(p.grad, 2 * ours[key], rtol=1e-12)


THEIRS = {
    "Tanh": lambda nn: nn.Tanh(),
    "ReLU": lambda nn: nn.ReLU(),
    "Sigmoid": lambda nn: nn.Sigmoid(),
    "Softmax": lambda nn: nn.Softmax(dim=-1),
    "LogSoftmax": lambda nn: nn.LogSoftmax(dim=-1),
    "LayerNorm": lambda nn: nn.LayerNorm(5),
    "LayerNorm over two axes": lambda nn: nn.LayerNorm((4, 5)),
    "LayerNorm without bias": lambda nn: nn.LayerNorm(5, bias=False, eps=1e-2),
    "LayerNorm without parameters": lambda nn: nn.LayerNorm(5, elementwise_affine=False),
    "Linear": lambda nn: nn.Linear(5, 3),
}


@pytest.mark.parametrize("name", THEIRS)
@pytest.mark.parametrize("scale", [1.0, 1e-3, 30.0])
def test_against_pytorch(name: str, scale: float) -> None:
    torch = require("torch")
    ours, theirs = PLAIN[name](), THEIRS[name](torch.nn).double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in ours.state_dict().items()})
    rng = np.random.default_rng(7)
    x = rng.standard_normal((6, 4, 5)) * scale
    tensor = torch.from_numpy(x).requires_grad_()
    expected = theirs(tensor)
    y, tape = ours.forward(x)
    np.testing.assert_allclose(y, expected.detach().numpy(), rtol=1e-12, atol=1e-13)
    dy = rng.standard_normal(y.shape)
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(
        ours.backward(tape, dy), tensor.grad.numpy(), rtol=1e-10, atol=1e-10 / scale
    )
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), rtol=1e-10, err_msg=key)


@pytest.mark.parametrize("name", ["Tanh", "ReLU", "Sigmoid", "Softmax", "Dropout"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_float_dtypes_are_kept(name: str, dtype: str) -> None:
    module = lc.Dropout(0.3, seed=0) if name == "Dropout" else getattr(lc, name)()
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(dtype)
    y, tape = module.forward(x)
    assert module(x).dtype == y.dtype == module.backward(tape, x).dtype == dtype
    assert module(x.astype(np.float16)).dtype == np.float32
    assert module(x.astype(np.int64)).dtype == np.float64
    assert module(x.tolist()).dtype == np.float64
    for value in (x.astype(complex), ["a"], np.array([None]), np.zeros(2, np.longdouble)):
        with pytest.raises(TypeError, match=r"x has dtype .*, expected float32 or float64"):
            module(value)


def test_activations_at_the_edges() -> None:
    """They are exact where they saturate; infinite and NaN pass, without a warning."""
    x = np.array([-np.inf, -1e4, -1e-300, 0.0, 1e4, np.inf, np.nan])
    np.testing.assert_array_equal(lc.Tanh()(x), [-1, -1, -1e-300, 0, 1, 1, np.nan])
    np.testing.assert_array_equal(lc.ReLU()(x), [0, 0, 0, 0, 1e4, np.inf, np.nan])
    np.testing.assert_array_equal(lc.Sigmoid()(x), [0, 0, 0.5, 0.5, 1, 1, np.nan])
    small = np.array([-700.0, -40.0])  # no digits are lost near 0
    np.testing.assert_allclose(lc.Sigmoid()(small), np.exp(small), rtol=1e-15)
    softmax = lc.Softmax()
    np.testing.assert_array_equal(softmax([-1e308, 1e308, 1e308]), [0, 0.5, 0.5])
    np.testing.assert_array_equal(softmax([-np.inf, 0.0]), [0, 1])
    assert np.isnan(softmax([np.inf, 0.0])).any()
    assert np.isnan(softmax([-np.inf, -np.inf])).all()
    assert np.isnan(softmax([[np.nan, 0.0], [0.0, 0.0]])[0]).all()
    assert softmax(np.zeros((3, 0))).shape == (3, 0)
    for module in (lc.Tanh(), lc.ReLU(), lc.Sigmoid(), softmax, norm(7), lc.Dropout(0.5, seed=1)):
        y, tape = module.forward(x)
        assert np.isnan(y[-1]) or y[-1] == 0
        assert module.backward(tape, np.ones(7)).shape == (7,)
    with pytest.raises(ValueError, match=r"x has shape \(\)"):
        softmax(1.0)
    y, tape = lc.Tanh().forward(0.5)
    assert y.shape == tape._owner.backward(tape, 1.0).shape == ()


def test_log_softmax_at_the_edges() -> None:
    log_softmax = lc.LogSoftmax()
    np.testing.assert_array_equal(log_softmax([-1e308, 1e308]), [-np.inf, 0])
    np.testing.assert_array_equal(log_softmax([-np.inf, 0.0]), [-np.inf, 0])
    np.testing.assert_allclose(log_softmax([0.0, 1000.0]), [-1000, 0])
    for wrong in ([np.inf, 0.0], [-np.inf, -np.inf], [np.nan, 0.0]):
        assert np.isnan(log_softmax(wrong)).any()
    assert log_softmax(np.zeros((3, 0))).shape == (3, 0)
    with pytest.raises(ValueError, match=r"x has shape \(\)"):
        log_softmax(1.0)
    scores = np.random.default_rng(0).standard_normal((4, 5))
    target = np.array([0, 3, 2, 4])
    loss, dscores = lc.losses.cross_entropy(scores, target)
    again, _ = lc.losses.cross_entropy(log_softmax(scores), target)
    assert again == pytest.approx(loss, rel=1e-14)
    _, tape = log_softmax.forward(scores)
    dy = np.zeros_like(scores)
    dy[np.arange(4), target] = -1 / 4
    np.testing.assert_allclose(log_softmax.backward(tape, dy), dscores, atol=1e-15)


def test_what_a_tape_shares_cannot_be_changed() -> None:
    for name in ("Tanh", "ReLU", "Sigmoid", "Softmax"):
        y, tape = getattr(lc, name)().forward(np.ones(4))
        with pytest.raises(ValueError, match="read-only"):
            y[0] = 7
        assert tape.nbytes == 0  # without x and y
    y, _ = lc.LayerNorm(4, elementwise_affine=False, dtype="float64").forward(np.ones(4))
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 7
    module = norm(4)
    x = np.arange(4.0)
    _, tape = module.forward(x)
    dx = module.backward(tape, [1.0, 0.0, 0.0, 0.0])
    module.parameters()[0].data *= 2
    x[:] = 0
    assert_same_bits(module.backward(tape, [1.0, 0.0, 0.0, 0.0]), dx)


# LayerNorm ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_of_large_offsets(dtype: str) -> None:
    """The variance is of what is left without the mean: no digits cancel."""
    x = np.array([1.0, 2.0, 3.0, 4.0], dtype) + 2048
    y = lc.LayerNorm(4, eps=0.0, dtype=dtype)(x)
    np.testing.assert_allclose(y, np.array([-3, -1, 1, 3]) / 5**0.5, rtol=1e-6)


def test_layer_norm_starts_as_identity_of_the_normal() -> None:
    module = lc.LayerNorm((2, 3))
    assert {n: p.shape for n, p in module.named_parameters()} == {"weight": (2, 3), "bias": (2, 3)}
    module.parameters()[0].data[...] = 7
    module.reset_parameters()
    np.testing.assert_array_equal(module.state_dict()["weight"], np.ones((2, 3)))
    np.testing.assert_array_equal(module.state_dict()["bias"], np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.LayerNorm(0), ValueError, "normalized_shape is 0, expected at least 1"),
        (lambda: lc.LayerNorm(()), ValueError, "normalized_shape is empty"),
        (lambda: lc.LayerNorm("4"), TypeError, "normalized_shape is '4'"),
        (lambda: lc.LayerNorm(4, eps=-1.0), ValueError, "eps is -1.0, expected at least 0"),
        (lambda: lc.LayerNorm(4, eps=1e-50), ValueError, "eps is 1e-50"),
        (lambda: lc.LayerNorm(4, bias=0), TypeError, "bias is 0"),
        (lambda: lc.LayerNorm(4, dtype="int8"), ValueError, "dtype is"),
        (lambda: lc.LayerNorm(4)(np.ones((4, 3), "f4")), ValueError, r"\(4, 3\), .*\(\.\.\., 4\)"),
        (lambda: lc.LayerNorm((2, 4))(np.ones(4, "f4")), ValueError, r"expected \(\.\.\., 2, 4\)"),
        (lambda: lc.LayerNorm(4)(np.ones(4)), TypeError, "x has dtype float64, expected float32"),
    ],
)
def test_layer_norm_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Dropout ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_dropout_by_its_numbers(p: float) -> None:
    x = np.random.default_rng(0).uniform(1, 2, (200, 500))
    module = lc.Dropout(p, seed=1)
    y, tape = module.forward(x)
    kept = y != 0
    assert abs(kept.mean() - (1 - p)) < 5e-3  # 3 standard deviations at p = 0.5
    np.testing.assert_allclose(y[kept], x[kept] / (1 - p))
    dy = np.random.default_rng(2).uniform(1, 2, x.shape)
    np.testing.assert_allclose(module.backward(tape, dy), np.where(kept, dy / (1 - p), 0))
    np.testing.assert_array_equal(module(x), x)


def test_dropout_is_reproducible() -> None:
    x = np.ones((3, 50))
    module, twin = lc.Dropout(seed=5), lc.Dropout(seed=5)
    first, second = module.forward(x)[0], module.forward(x)[0]
    assert not np.array_equal(first, second)
    twin(x)  # inference draws nothing
    assert_same_bits(twin.forward(x)[0], first)
    assert_same_bits(twin.forward(x.astype("float32"))[0], second.astype("float32"))
    assert not np.array_equal(lc.Dropout(seed=6).forward(x)[0], first)
    for again in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        assert again == module
        assert_same_bits(again.forward(x)[0], twin.forward(x)[0])
        twin._set_rng_state(module._rng_state())


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.Dropout(1.0), ValueError, "p is 1.0, expected 0 <= p < 1"),
        (lambda: lc.Dropout(-0.1), ValueError, "p is -0.1"),
        (lambda: lc.Dropout(np.nan), ValueError, "p is nan"),
        (lambda: lc.Dropout("a"), TypeError, "p is 'a'"),
        (lambda: lc.Dropout(0.5, seed=-1), ValueError, "seed is -1"),
    ],
)
def test_dropout_refuses(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Random streams -----------------------------------------------------------------------------------


def dropping() -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(3, 4, num_layers=2, dropout=0.5, seed=0),
        lc.Sequential(lc.Dropout(0.5, seed=1), lc.Linear(4, 2, seed=2)),
    )


def test_random_streams_are_saved_and_restored() -> None:
    x = np.ones((5, 2, 3), "float32")
    model, other = dropping(), dropping()
    model.forward(x)
    state = json.loads(json.dumps(model._rng_state()))
    assert set(state) == {"0", "1.0"}
    after = [model.forward(x)[0] for _ in range(3)]
    assert not np.array_equal(other.forward(x)[0], after[0])
    other._set_rng_state(state)
    for y in after:
        assert_same_bits(other.forward(x)[0], y)


@pytest.mark.parametrize(
    "damage",
    [
        lambda state: None,
        lambda state: {"0": state["0"]},
        lambda state: {**state, "1.0": None},
        lambda state: {**state, "1.0": {**state["1.0"], "bit_generator": "MT19937"}},
        lambda state: {**state, "1.0": {**state["1.0"], "state": {}}},
    ],
)
def test_damaged_random_states_change_nothing(damage: Callable[[Any], Any]) -> None:
    model, twin = dropping(), dropping()
    x = np.ones((5, 2, 3), "float32")
    model.forward(x)
    state = model._rng_state()
    with pytest.raises(ValueError, match="random state"):
        twin._set_rng_state(damage(state))
    assert_same_bits(twin.forward(x)[0], dropping().forward(x)[0])


# Pooling ------------------------------------------------------------------------------------------


def pooled(kind: str, x: Array, lengths: list[int]) -> Array:
    """By the definition, row by row."""
    rows = []
    for row, length in zip(np.moveaxis(x, 1, 0), lengths, strict=True):
        steps = row[:length]
        if not length:
            rows.append(np.zeros(x.shape[2]))
        elif kind == "LastStep":
            rows.append(steps[-1])
        elif kind == "MeanPool":
            rows.append(steps.mean(axis=0))
        else:
            rows.append(steps.max(axis=0))
    return np.array(rows)


POOLS = ["LastStep", "MeanPool", "MaxPool"]


@pytest.mark.parametrize("batch_first", [False, True])
def test_the_last_step_without_lengths_is_a_copy(batch_first: bool) -> None:
    last, x = lc.LastStep(batch_first), np.random.default_rng(0).standard_normal((3, 3, 2))
    y = last(x)
    assert np.array_equal(y, last(x, lengths=[3, 3, 3]))
    assert not np.shares_memory(y, x)
    assert np.array_equal(last(x[0]), x[0, -1])  # unbatched
    none = x[:, :0] if batch_first else x[:0]
    assert np.array_equal(last(none), np.zeros((3, 2)))
    assert np.array_equal(last(x[0, :0]), np.zeros(2))


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("lengths", [None, [5, 3, 1, 0], [0, 0, 0, 0]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pooling_against_the_definition(
    kind: str, lengths: list[int] | None, batch_first: bool
) -> None:
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((5, 4, 3)), rng.standard_normal((4, 3))
    ends = lengths or [5] * 4
    expected = pooled(kind, x, ends)
    past = np.arange(5)[:, None] >= ends
    wanted = numeric_gradient(lambda x: float((pooled(kind, x, ends) * dy).sum()), x)
    x[past] = np.nan  # what is past the end may be anything
    if batch_first:
        x, wanted, past = (a.swapaxes(0, 1) for a in (x, wanted, past))
    pool = getattr(lc, kind)(batch_first=batch_first)
    y, tape = pool.forward(x, lengths=lengths)
    assert_same_bits(pool(x, lengths=lengths), y)
    np.testing.assert_allclose(y, expected, rtol=1e-14)
    dx = pool.backward(tape, dy)
    assert not dx[past].any()
    np.testing.assert_allclose(dx, wanted, atol=1e-8)


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("length", [None, 3, 0, [2]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_pooling_unbatched(kind: str, length: Any, batch_first: bool) -> None:
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32")
    pool = getattr(lc, kind)(batch_first=batch_first)
    y, tape = pool.forward(x, lengths=length)
    batched = getattr(lc, kind)()
    lengths = None if length is None else [length] if isinstance(length, int) else length
    expected, whole = batched.forward(x[:, None], lengths=lengths)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, expected[0])
    assert_same_bits(pool.backward(tape, y), batched.backward(whole, expected)[:, 0])


@pytest.mark.parametrize("kind", POOLS)
@pytest.mark.parametrize("shape", [(0, 4, 3), (5, 0, 3), (5, 4, 0), (0, 3)])
def test_pooling_of_nothing(kind: str, shape: tuple[int, ...]) -> None:
    pool = getattr(lc, kind)()
    y, tape = pool.forward(np.zeros(shape, "float32"))
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, np.zeros(shape[1:]))
    assert pool.backward(tape, y).shape == shape


@pytest.mark.parametrize("shape", [(0, 4, 2), (5, 0, 2), (5, 4, 0), (0, 2)])
def test_both_ends_of_nothing(shape: tuple[int, ...]) -> None:
    pool = lc.BothEnds()
    y, tape = pool.forward(np.zeros(shape))
    np.testing.assert_array_equal(y, np.zeros(shape[1:]))
    assert pool.backward(tape, y).shape == shape


@pytest.mark.parametrize("merge", ["concat", "sum", "mul", "ave"])
@pytest.mark.parametrize("lengths", [None, [5, 3, 1, 0]])
def test_both_ends_are_those_of_a_bidirectional_layer(merge: str, lengths: Any) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 3))
    layer = lc.GRU(3, 2, bidirectional=True, dtype="float64", seed=0)
    states, h = layer(x, lengths=lengths)
    forward, reverse = h * (np.array(lengths or [5] * 4) > 0)[:, None]
    expected = {
        "concat": np.concatenate([forward, reverse], axis=1),
        "sum": forward + reverse,
        "mul": forward * reverse,
        "ave": (forward + reverse) / 2,
    }[merge]
    pool = lc.BothEnds(merge)
    np.testing.assert_allclose(pool(states, lengths=lengths), expected, rtol=1e-14)
    dy = np.random.default_rng(1).standard_normal(expected.shape)
    ours = gradients(pool, states, dy, lengths=lengths)
    wanted = differences(pool, states, dy, lengths=lengths)
    np.testing.assert_allclose(ours["x"], wanted["x"], atol=1e-8)


@pytest.mark.parametrize("lengths", [None, [5, 3, 1, 0]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_flip_against_the_definition(lengths: list[int] | None, batch_first: bool) -> None:
    x = np.random.default_rng(0).standard_normal((5, 4, 3))
    expected = np.zeros_like(x)
    for row, length in enumerate(lengths or [5] * 4):
        expected[:length, row] = x[:length, row][::-1]
    flip = lc.Flip(batch_first=batch_first)
    if batch_first:
        x, expected = x.swapaxes(0, 1), expected.swapaxes(0, 1)
    y, tape = flip.forward(x, lengths=lengths)
    assert_same_bits(y, expected)
    dy = np.random.default_rng(1).standard_normal(y.shape)
    dx = flip.backward(tape, dy)
    assert_same_bits(dx, flip(dy, lengths=lengths))  # it is its own inverse
    row = x[0] if batch_first else x[:, 0]
    np.testing.assert_array_equal(flip(row), row[::-1])
    y, tape = flip.forward(row, lengths=2)
    np.testing.assert_array_equal(flip.backward(tape, y)[:2], row[:2])
    assert flip(x[:0] if not batch_first else x[:, :0]).size == 0


def test_pooling_passes_nan_and_infinity() -> None:
    x = np.array([[[1.0, -np.inf, 2.0]], [[np.nan, -np.inf, np.inf]], [[3.0, -np.inf, 0.0]]])
    np.testing.assert_array_equal(lc.MaxPool()(x), [[np.nan, -np.inf, np.inf]])
    np.testing.assert_array_equal(lc.MeanPool()(x), [[np.nan, -np.inf, np.inf]])


def test_the_first_of_equal_maxima_gets_the_gradient() -> None:
    pool = lc.MaxPool()
    _, tape = pool.forward([[1.0], [2.0], [2.0]])
    np.testing.assert_array_equal(pool.backward(tape, [1.0]), [[0], [1], [0]])


@pytest.mark.parametrize("kind", POOLS)
def test_pooling_refuses(kind: str) -> None:
    make = getattr(lc, kind)
    pool, x = make(), np.zeros((5, 4, 3))
    _, tape = pool.forward(x)
    for call, error, message in (
        (lambda: make(1), TypeError, "batch_first is 1"),
        (lambda: pool(np.zeros(3)), ValueError, r"x has shape \(3,\), expected \(T, B, F\)"),
        (lambda: make(True)(np.zeros(3)), ValueError, r"expected \(B, T, F\) or \(T, F\)"),
        (lambda: pool(x * 1j), TypeError, "x has dtype complex128"),
        (lambda: pool(x, lengths=[6, 0, 0, 0]), ValueError, r"lengths\[0\] is 6"),
        (lambda: pool(x, lengths=[1, 1]), ValueError, r"lengths has shape \(2,\)"),
        (lambda: pool(x, lengths=[1.0] * 4), TypeError, "lengths has dtype float64"),
        (lambda: pool.backward(tape, np.zeros(3)), ValueError, r"dy has shape \(3,\)"),
        (lambda: pool.backward(None, np.zeros(3)), TypeError, "tape is None"),
        (lambda: make().backward(tape, np.zeros((4, 3))), ValueError, "made by another layer"),
    ):
        with pytest.raises(error, match=message):
            call()


# All of them --------------------------------------------------------------------------------------

REPRS = {
    "Tanh()": lc.Tanh,
    "ReLU()": lc.ReLU,
    "Sigmoid()": lc.Sigmoid,
    "Softmax()": lc.Softmax,
    "LogSoftmax()": lc.LogSoftmax,
    "Dropout()": lc.Dropout,
    "Dropout(p=0.25)": lambda: lc.Dropout(0.25),
    "LayerNorm((4,))": lambda: lc.LayerNorm(4),
    "LayerNorm((2, 4), eps=0.001, dtype=float64)": lambda: lc.LayerNorm(
        (2, 4), 1e-3, dtype="float64"
    ),
    "Linear(4, 3, bias=False)": lambda: lc.Linear(4, 3, bias=False),
    "LastStep()": lc.LastStep,
    "MeanPool(batch_first=True)": lambda: lc.MeanPool(batch_first=True),
    "MaxPool(batch_first=False)": lambda: lc.MaxPool(batch_first=False),
    "Embedding(9, 4, padding_idx=8, sparse=True)": lambda: lc.Embedding(9, 4, -1, sparse=True),
    "MultiHead(8, 2, dropout=0.1, vdim=3)": lambda: lc.attention.MultiHead(8, 2, 0.1, vdim=3),
    "ScaledDotProduct(scale=1.0)": lambda: lc.attention.ScaledDotProduct(scale=1.0),
}


@pytest.mark.parametrize("text", REPRS)
def test_copies_options_and_repr(text: str) -> None:
    module = REPRS[text]()
    assert repr(module) == text
    options = module._options()
    assert json.loads(json.dumps(options)) == options
    remade = type(module)(**options)
    remade.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), remade):
        assert twin == module
        assert repr(twin) == text
        assert twin._options() == options
        for p in twin.parameters():
            p.data += 1
            assert twin != module
            p.data -= 1
    assert module != lc.RNN(2, 2)
    assert module != 7


def test_options_are_read_only() -> None:
    module = lc.Dropout(0.25)
    with pytest.raises(AttributeError, match="p is fixed when the Dropout is made"):
        module.p = 0.5
    assert module.p == 0.25


@pytest.mark.parametrize("name", [*PLAIN, "Dropout"])
def test_tapes_of_others_and_wrong_gradients(name: str) -> None:
    make = PLAIN.get(name, lambda: lc.Dropout(seed=0))
    module = make()
    x = np.ones((4, 5))
    y, tape = module.forward(x)
    for wrong_tape, dy, error, message in (
        (None, y, TypeError, "tape is None"),
        (y, y, TypeError, r"tape is a ndarray .*, expected a ModuleTape from forward"),
        (make().forward(x)[1], y, ValueError, "tape was made by another layer"),
        (tape, y[:2], ValueError, r"dy has shape \(2, .\), expected"),
        (tape, y.astype("float32"), TypeError, "dy has dtype float32, expected float64"),
        (tape, None, TypeError, "dy has dtype object"),
    ):
        with pytest.raises(error, match=message):
            module.backward(wrong_tape, dy)
    assert not any(p.grad.any() for p in module.parameters())
    assert repr(tape).startswith("<ModuleTape of ")


@pytest.mark.parametrize("name", ["Tanh", "ReLU", "Sigmoid"])
def test_gradients_that_are_not_finite_are_pytorchs(name: str) -> None:
    torch = require("torch")
    x, dy = np.meshgrid(
        [-np.inf, -1.0, -0.0, 0.0, 0.5, np.inf, np.nan], [-np.inf, -2.0, 0.0, 3.0, np.inf, np.nan]
    )
    module = getattr(lc, name)()
    _, tape = module.forward(x)
    given = torch.tensor(x, requires_grad=True)
    getattr(torch.nn, name)()(given).backward(torch.tensor(dy))
    np.testing.assert_allclose(module.backward(tape, dy), given.grad.numpy(), rtol=1e-12)


# Inputs that change between forward and backward --------------------------------------------------

KEEPERS: dict[str, Callable[[], Any]] = {
    "Linear": lambda: lc.Linear(3, 3, dtype="float64", seed=0),
    "LSTM": lambda: lc.LSTM(3, 3, dtype="float64", seed=0),
    "unbatched": lambda: lc.GRU(3, 3, dtype="float64", seed=0),
    "batch_first": lambda: lc.RNN(3, 3, dtype="float64", batch_first=True, seed=0),
    "GRUCell": lambda: lc.GRUCell(3, 3, dtype="float64", seed=0),
    "LayerNorm": lambda: lc.LayerNorm(3, dtype="float64"),
    "MaxPool": lambda: lc.MaxPool(),
    "Softmax": lambda: lc.Softmax(),
    "Sequential": lambda: lc.Sequential(
        lc.Dropout(0.0), lc.Linear(3, 4, dtype="float64", seed=0), lc.ReLU(),
        lc.LSTM(4, 2, dtype="float64", seed=1), lc.MeanPool(), lc.Linear(2, 2, dtype="float64"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", ["own", "view", "strided", "read-only view"])
@pytest.mark.parametrize("name", KEEPERS)
def test_x_may_be_overwritten_before_backward(name: str, kind: str) -> None:
    rng = np.random.default_rng(3)
    shape = (4, 3) if name in ("GRUCell", "unbatched") else (5, 4, 3)
    memory = rng.standard_normal((2, *shape) if kind != "strided" else (*shape[:-1], 6))
    x: Any = {"own": memory[0].copy(), "strided": memory[..., ::2]}.get(kind, memory[1])
    if kind == "read-only view":
        x = x.view()
        x.flags.writeable = False
    module = KEEPERS[name]()

    def gradients(overwrite: bool) -> list[Any]:
        module.zero_grad()
        y, *_, tape = module.forward(x)
        dy = np.cos(np.arange(y.size)).reshape(y.shape)
        if overwrite:
            (x if kind == "own" else memory)[...] = np.nan
        dx = module.backward(tape, dy)
        dx = dx[0] if isinstance(dx, tuple) else dx
        return [np.array(dx), *(p.grad.copy() for p in module.parameters())]

    before = x.copy()
    expected = gradients(False)
    assert x.flags.writeable == (kind != "read-only view")
    np.testing.assert_array_equal(x, before)
    for found, wanted in zip(gradients(True), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_queries_and_keys_may_be_overwritten_before_backward() -> None:
    several = lc.attention.MultiHead(3, 1, dtype="float64", seed=0)
    for module in (lc.attention.ScaledDotProduct(), several):
        runs = []
        for overwrite in (False, True):
            module.zero_grad()
            query, key = np.random.default_rng(5).standard_normal((2, 4, 2, 3))
            y, _, tape = module.forward(query, key, key)
            if overwrite:
                query[...] = key[...] = np.nan
            dy = np.cos(np.arange(y.size)).reshape(y.shape)
            runs.append([*module.backward(tape, dy), *(p.grad.copy() for p in module.parameters())])
        for found, wanted in zip(*runs, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_what_is_read_only_is_not_copied() -> None:
    """What goes from module to module is kept as it is, and so is what nobody can write to."""
    first, second = lc.LSTM(3, 3, seed=0), lc.Linear(3, 2, seed=1)
    y, _, _ = first.forward(np.ones((5, 4, 3), "f4"))
    _, tape = second.forward(y)
    assert tape.saved[0] is y
    _, tape = second.forward(y[-1])
    assert np.shares_memory(tape.saved[0], y)
    model = lc.Sequential(lc.Linear(3, 3, seed=0), lc.LayerNorm(3), lc.Linear(3, 2, seed=1))
    x = np.ones((4, 3), "f4")
    y, tape = model.forward(x)
    assert y.flags.writeable
    assert not np.shares_memory(tape.tapes[0].saved[0], x)
    x.flags.writeable = False
    _, tape = model.forward(x)
    assert tape.tapes[0].saved[0] is x


def test_words_of_other_libraries_are_explained() -> None:
    model: Any = lc.Sequential(lc.Linear(3, 2))
    for name, said in (
        ("fit", r"here it is lstmcore\.fit\(module, "),
        ("predict", r"here it is a call, module\(x\)"),
        ("eval", "not needed: a call never drops"),
    ):
        with pytest.raises(AttributeError, match=rf"'Sequential' .* {name!r}: {said}"):
            getattr(model, name)
    with pytest.raises(AttributeError, match=r"state_dict\(\) has copies by name"):
        _ = model[0].weight
    with pytest.raises(AttributeError, match=r"type object 'LSTM' has no attribute 'fit': here "):
        _ = lc.LSTM.fit  # type: ignore[attr-defined]
    assert not hasattr(lc.LSTM, "fit")
    assert not hasattr(lc.Parameter, "T")
    shown = pydoc.render_doc(lc.LSTM, renderer=pydoc.plaintext)
    assert "Elsewhere" not in shown
    assert "No attribute: here it is lstmcore.save(module, path)." in shown
    with pytest.raises(AttributeError, match=r"no attribute 'spam'$"):
        _ = model.spam
    assert not hasattr(model, "fit")
    assert "fit" not in dir(model)
    assert "forward" in dir(model)

    class Own(lc.Module):
        def __init__(self) -> None:
            self.weight = 3

        def fit(self) -> int:
            return self.weight

    assert Own().fit() == 3
    assert {"fit", "weight"} <= set(dir(Own()))
    assert "fit" in dir(Own)


def test_an_abstract_class_can_be_a_module() -> None:
    class Scale(lc.Module, ABC):
        @abstractmethod
        def factor(self) -> float: ...

    class Twice(Scale):
        def factor(self) -> float:
            return 2.0

    assert isinstance(Twice(), lc.Module)
    assert not isinstance(Twice(), lc.LSTM)
    with pytest.raises(TypeError, match="abstract"):
        Scale()  # type: ignore[abstract]
