"""Optimizers, schedules and clipping against PyTorch, and what they promise beside that."""

from __future__ import annotations

import copy
import inspect
import json
import math
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore import optim

Array = np.ndarray[Any, np.dtype[Any]]

OPTIONS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.05}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.05, "nesterov": True}),
    ("RMSprop", {}),
    ("RMSprop", {"lr": 0.02, "alpha": 0.5, "eps": 1e-3, "weight_decay": 0.05}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8}),
    ("RMSprop", {"lr": 0.02, "centered": True, "eps": 1e-2}),
    ("RMSprop", {"lr": 0.02, "momentum": 0.8, "centered": True, "eps": 1e-2, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.02, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.05}),
    ("Adam", {"betas": (0.0, 0.0)}),
    ("Adam", {"lr": 0.02, "amsgrad": True, "weight_decay": 0.05}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.02, "betas": (0.5, 0.9), "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.02, "amsgrad": True}),
]
each_option = pytest.mark.parametrize(("name", "options"), OPTIONS)


def parameters(dtype: str = "float64") -> list[lc.Parameter]:
    rng = np.random.default_rng(11)
    shapes = {"w": (7, 11), "b": (3,), "one": (1,), "c": (2, 3, 4)}
    return [lc.Parameter(n, rng.standard_normal(s).astype(dtype)) for n, s in shapes.items()]


def set_gradients(params: list[lc.Parameter], seed: int) -> None:
    rng = np.random.default_rng(seed)
    for p in params:
        p.grad = rng.standard_normal(p.shape) * 10.0 ** rng.integers(-4, 3)


def run(optimizer: optim.Optimizer, steps: range) -> None:
    for step in steps:
        set_gradients(optimizer.parameters, step)
        optimizer.step()


# Against PyTorch ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_option
def test_optimizers_against_pytorch(name: str, options: dict[str, Any], dtype: str) -> None:
    torch = require("torch")
    ours = parameters(dtype)
    theirs = [torch.from_numpy(p.data.copy()).requires_grad_() for p in ours]
    optimizer = getattr(optim, name)(ours, **options)
    expected = getattr(torch.optim, name)(theirs, **options)
    rtol, atol = (1e-4, 1e-5) if dtype == "float32" else (1e-12, 1e-12)
    for step in range(50):
        set_gradients(ours, step)
        for p, t in zip(ours, theirs, strict=True):
            t.grad = torch.from_numpy(p.grad.copy())
        if step == 10:
            optimizer.lr *= 0.3
            expected.param_groups[0]["lr"] *= 0.3
        optimizer.step()
        expected.step()
        for p, t in zip(ours, theirs, strict=True):
            assert p.data.dtype == dtype
            np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_options_are_pytorchs(name: str) -> None:
    torch = require("torch")
    ours = inspect.signature(getattr(optim, name)).parameters
    ours = {n: p for n, p in ours.items() if p.kind is not p.KEYWORD_ONLY}  # those are Keras's
    theirs = inspect.signature(getattr(torch.optim, name)).parameters
    shared = list(theirs)[: len(ours)]
    if name == "RMSprop":  # PyTorch has others behind
        shared = ["params", "lr", "alpha", "eps", "weight_decay", "momentum", "centered"]
    for own, other in zip(list(ours)[1:], shared[1:], strict=True):
        assert own == other
        assert ours[own].default == theirs[other].default


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adam_against_the_paper(dtype: str) -> None:
    ours = parameters(dtype)
    w = [p.data.astype("float64") for p in ours]
    m, v = [0.0] * 4, [0.0] * 4
    optimizer = optim.Adam(ours, lr=0.01)
    for t in range(1, 6):
        set_gradients(ours, t)
        for i, p in enumerate(ours):
            g = p.grad.astype("float64")
            m[i] = 0.9 * m[i] + 0.1 * g
            v[i] = 0.999 * v[i] + 0.001 * g**2
            w[i] = w[i] - 0.01 * (m[i] / (1 - 0.9**t)) / (np.sqrt(v[i] / (1 - 0.999**t)) + 1e-8)
        optimizer.step()
    for p, expected in zip(ours, w, strict=True):
        np.testing.assert_allclose(p.data, expected, atol=1e-6 if dtype == "float32" else 1e-14)


@pytest.mark.parametrize("amsgrad", [False, True])
def test_adamw_is_adam_after_taking_its_share(amsgrad: bool) -> None:
    ours, theirs = parameters(), parameters()
    adamw = optim.AdamW(ours, lr=0.1, weight_decay=0.5, amsgrad=amsgrad)
    adam = optim.Adam(theirs, lr=0.1, amsgrad=amsgrad)
    for step in range(3):
        for params, optimizer in ((ours, adamw), (theirs, adam)):
            set_gradients(params, step)
            if optimizer is adam:
                for p in params:
                    p.data *= 1 - 0.1 * 0.5
            optimizer.step()
    for p, q in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=1e-14)
    by_default = optim.AdamW(parameters()).weight_decay
    assert (by_default, optim.Adam(parameters()).weight_decay) == (0.01, 0.0)


# Bits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@each_option
def test_the_same_bits_at_any_level_and_number_of_threads(
    name: str, options: dict[str, Any], dtype: str, threads: None
) -> None:
    rng = np.random.default_rng(0)
    data = [rng.standard_normal(s).astype(dtype) for s in ((300, 301), (5,), (70000,))]
    before, results = lc.isa(), []
    for isa in lc.available_isas():
        for count in (1, 2):
            lc.set_isa(isa)
            lc.set_num_threads(count)
            params = [lc.Parameter(f"p{i}", d) for i, d in enumerate(data)]
            optimizer = getattr(optim, name)(params, **options)
            run(optimizer, range(2))
            norm = lc.clip_grad_norm(params, 0.5)
            run(optimizer, range(2, 3))
            results.append((isa, norm, [p.data for p in params]))
    lc.set_isa(before)
    for isa, norm, values in results:
        assert norm == results[-1][1]
        for value, last in zip(values, results[-1][2], strict=True):
            if isa != "x86-64-v2":  # which lacks fused multiply-add
                assert_same_bits(value, last)
            np.testing.assert_allclose(value, last, rtol=1e-3, atol=1e-4)


@each_option
def test_resuming_gives_the_same_bits(name: str, options: dict[str, Any]) -> None:
    whole, parts = parameters("float32"), parameters("float32")
    kind = getattr(optim, name)
    run(kind(whole, **options), range(6))
    first = kind(parts, **options)
    run(first, range(3))
    saved = first.state_dict()
    as_saved = pickle.dumps(saved)
    values = [p.data.copy() for p in parts]
    run(first, range(3, 5))  # must not change what was saved
    for p, value in zip(parts, values, strict=True):
        p.data = value
    second = kind(parts)  # with other options
    second.load_state_dict(saved)
    assert (second.steps, repr(second)) == (3, repr(first))
    run(second, range(3, 6))
    for p, q in zip(whole, parts, strict=True):
        assert_same_bits(p.data, q.data)
    assert pickle.dumps(saved) == as_saved  # which neither of the two writes to
    arrays = [k for k, v in saved.items() if isinstance(v, list) and isinstance(v[0], np.ndarray)]
    json.dumps({k: v for k, v in saved.items() if k not in arrays})  # the rest is plain


# What a step does and does not ----------------------------------------------------------------


@each_option
def test_nothing_happens_without_gradients_and_decay(name: str, options: dict[str, Any]) -> None:
    ours = parameters()
    optimizer = getattr(optim, name)(ours, **{**options, "weight_decay": 0.0})
    optimizer.step()
    for p, q in zip(ours, parameters(), strict=True):
        assert_same_bits(p.data, q.data)
    ours[0].grad += 1.0
    optimizer.zero_grad()
    assert not ours[0].grad.any()


def test_parameters_of_both_types_in_one_optimizer() -> None:
    mixed = [*parameters("float32"), *parameters("float64")]
    alone = [parameters("float32"), parameters("float64")]
    for params in (mixed, *alone):
        for p in params:
            p.grad = np.sin(np.arange(p.size).reshape(p.shape))
        optim.Adam(params, lr=0.1).step()
    for p, q in zip(mixed, [*alone[0], *alone[1]], strict=True):
        assert_same_bits(p.data, q.data)
    norms = [lc.clip_grad_norm(params, math.inf) for params in (mixed, *alone)]
    assert norms[0] == pytest.approx(math.hypot(*norms[1:]), rel=1e-14)


@each_option
def test_nan_and_infinity_go_through(isa: str, name: str, options: dict[str, Any]) -> None:
    for bad in (math.nan, math.inf):
        p = lc.Parameter("p", np.ones(37))
        optimizer = getattr(optim, name)([p], **options)
        p.grad[5] = bad
        optimizer.step()
        others = np.delete(p.data, 5)
        assert not np.isfinite(p.data[5])
        assert (others == others[0]).all()
        assert np.isfinite(others).all()


def test_centered_rmsprop_survives_constant_gradients() -> None:
    p = lc.Parameter("p", np.zeros(1000, "float32"))
    optimizer = optim.RMSprop([p], alpha=0.5, centered=True, eps=1e-3)
    p.grad = np.random.default_rng(0).random(1000) * 1e3
    for _ in range(200):
        optimizer.step()
    assert np.isfinite(p.data).all()


@pytest.mark.parametrize("layer", ["RNN", "LSTM", "GRU"])
def test_layers_see_a_step(layer: str) -> None:
    model = getattr(lc, layer)(3, 4, seed=0)
    twin = getattr(lc, layer)(3, 4, seed=1)
    x = np.ones((5, 2, 3), "float32")
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    for _ in range(3):
        before, _, tape = model.forward(x)
        model.backward(tape, np.ones_like(before))
        optimizer.step()
        after, _ = model(x)
        twin.load_state_dict(model.state_dict())
        assert not np.array_equal(after, before)
        assert_same_bits(after, twin(x)[0])


# Sparse parameters ----------------------------------------------------------------------------


def sparse(rows: int = 9, sparse: bool = True) -> lc.Parameter:
    values = np.random.default_rng(1).standard_normal((rows, 5))
    p = lc.Parameter("embedding", values)
    p._keep_rows(sparse)
    return p


def touch(p: lc.Parameter, rows: list[int], seed: int) -> Array:
    """Give `p` a gradient in some rows, and return it whole."""
    p.zero_grad()
    values = np.random.default_rng(seed).standard_normal((len(rows), *p.shape[1:]))
    p._add_rows(np.array(rows, dtype=np.intp), values)
    whole = np.zeros(p.shape)
    whole[rows] = values
    return whole


TOUCHED = [[0, 3, 8], [3], [], [1, 2, 3], [8, 0]]


def test_adam_of_sparse_parameters_against_pytorch() -> None:
    torch = require("torch")
    p = sparse()
    t = torch.from_numpy(p.data.copy()).requires_grad_()
    # PyTorch adds its epsilon at another place here; so small a one does nothing in both.
    optimizer = optim.Adam([p], lr=0.1, eps=1e-300)
    expected = torch.optim.SparseAdam([t], lr=0.1, eps=1e-300)
    for step, rows in enumerate(TOUCHED * 4):
        t.grad = torch.from_numpy(touch(p, rows, step)).to_sparse(1)
        optimizer.step()
        expected.step()
        np.testing.assert_allclose(p.data, t.detach().numpy(), rtol=1e-12)


@each_option
def test_sparse_parameters_change_only_where_touched(name: str, options: dict[str, Any]) -> None:
    p, first = sparse(), sparse().data
    optimizer = getattr(optim, name)([p], **options)
    for step, rows in enumerate(TOUCHED):
        before, state = p.data.copy(), pickle.dumps(optimizer.state_dict())
        touch(p, rows, step)
        optimizer.step()
        others = np.setdiff1d(np.arange(9), rows)
        assert_same_bits(p.data[others], before[others])
        assert (p.data[rows] != before[rows]).all()
        for key, old in pickle.loads(state).items():
            new = optimizer.state_dict()[key]
            if isinstance(new, list) and isinstance(new[0], np.ndarray):
                assert_same_bits(new[0][others], old[0][others])
    assert_same_bits(p.data[4:8], first[4:8])


@each_option
def test_a_sparse_parameter_that_is_all_touched_is_a_dense_one(
    name: str, options: dict[str, Any]
) -> None:
    p, q, tracked = sparse(), lc.Parameter("embedding", sparse().data), sparse(sparse=False)
    optimizers = [getattr(optim, name)([each], **options) for each in (p, q, tracked)]
    for step in range(4):
        q.grad = touch(p, list(range(9)), step)
        touch(tracked, list(range(9)), step)
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(p.data, q.data)
    assert_same_bits(tracked.data, q.data)


@each_option
def test_a_dense_parameter_with_rows_is_updated_whole(name: str, options: dict[str, Any]) -> None:
    p, q = sparse(sparse=False), lc.Parameter("embedding", sparse().data)
    optimizers = [getattr(optim, name)([each], **options) for each in (p, q)]
    for step, rows in enumerate(TOUCHED):
        q.grad = touch(p, rows, step)
        for optimizer in optimizers:
            optimizer.step()
    assert_same_bits(p.data, q.data)


def test_a_gradient_assigned_to_a_sparse_parameter_counts_whole() -> None:
    p = sparse()
    p.grad = np.ones((9, 5))
    before = p.data.copy()
    optim.SGD([p], lr=0.5).step()
    np.testing.assert_allclose(p.data, before - 0.5, rtol=1e-15)
    assert lc.clip_grad_norm([p], 1e9) == pytest.approx(math.sqrt(45))


def test_clipping_of_sparse_gradients() -> None:
    p, dense = sparse(), lc.Parameter("dense", np.ones(3))
    whole = touch(p, [1, 4], 0)
    dense.grad = [1.0, 2.0, 3.0]
    norm = math.sqrt(np.square(whole).sum() + 14)
    assert lc.clip_grad_norm([p, dense], 0.5) == pytest.approx(norm, rel=1e-14)
    assert p.rows.tolist() == [1, 4]
    factor = 0.5 / (norm + 1e-6)
    np.testing.assert_allclose(p._gradient(), whole * factor, rtol=1e-14)
    np.testing.assert_allclose(dense.grad, np.array([1, 2, 3]) * factor, rtol=1e-14)
    lc.clip_grad_value([p, dense], 0.02)
    assert p.rows.tolist() == [1, 4]
    np.testing.assert_allclose(p._gradient(), np.clip(whole * factor, -0.02, 0.02), rtol=1e-14)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: optim.Adam([]), ValueError, "parameters is empty"),
        (lambda: optim.SGD(3), TypeError, r"parameters is 3 \(int\), expected a list"),
        (lambda: optim.SGD({"w": parameters()[0]}), TypeError, "parameters is .*dict"),
        (lambda: optim.RMSprop([np.ones(3)]), TypeError, "expected Parameters"),
        (lambda: optim.AdamW(parameters()[:1] * 2), ValueError, "one of them twice"),
        (lambda: optim.Adam(parameters(), lr=-1.0), ValueError, "lr is -1.0"),
        (lambda: optim.Adam(parameters(), lr=math.nan), ValueError, "lr is nan"),
        (lambda: optim.Adam(parameters(), lr="fast"), TypeError, "lr is 'fast'"),
        (lambda: optim.Adam(parameters(), betas=(0.9, 1.0)), ValueError, "betas is"),
        (lambda: optim.Adam(parameters(), betas=0.9), TypeError, "betas is 0.9"),
        (lambda: optim.Adam(parameters(), eps=-1e-8), ValueError, "eps is -1e-08"),
        (lambda: optim.Adam(parameters(), amsgrad=1), TypeError, "amsgrad is 1"),
        (lambda: optim.AdamW(parameters(), weight_decay=-1), ValueError, "weight_decay is -1"),
        (lambda: optim.SGD(parameters(), momentum=-0.1), ValueError, "momentum is -0.1"),
        (lambda: optim.SGD(parameters(), nesterov=True), ValueError, "expected momentum > 0"),
        (
            lambda: optim.SGD(parameters(), momentum=0.9, dampening=0.1, nesterov=True),
            ValueError,
            "dampening 0.1, expected momentum > 0 and dampening = 0",
        ),
        (lambda: optim.RMSprop(parameters(), alpha=1.5), ValueError, "alpha is 1.5"),
        (lambda: optim.RMSprop(parameters(), centered="yes"), TypeError, "centered is 'yes'"),
        (lambda: lc.clip_grad_norm([], 1.0), ValueError, "parameters is empty"),
        (lambda: lc.clip_grad_norm(parameters(), -1.0), ValueError, "max_norm is -1.0"),
        (lambda: lc.clip_grad_norm(parameters(), math.nan), ValueError, "max_norm is nan"),
        (lambda: lc.clip_grad_norm(parameters(), None), TypeError, "max_norm is None"),
        (lambda: lc.clip_grad_norm(np.ones(3), 1.0), TypeError, "parameters has"),
        (lambda: lc.clip_grad_value(parameters(), 0), ValueError, "value is 0, expected above 0"),
        (lambda: optim.StepLR(None, 3), TypeError, "optimizer is None"),
        (lambda: optim.StepLR(sgd(), 0), ValueError, "step_size is 0"),
        (lambda: optim.StepLR(sgd(), 3, gamma=-1), ValueError, "gamma is -1"),
        (lambda: optim.CosineLR(sgd(), 2.5), TypeError, "total_steps is 2.5"),
        (lambda: optim.CosineLR(sgd(), 3, minimum=-1), ValueError, "minimum is -1"),
        (lambda: optim.Plateau(sgd(), factor=1.0), ValueError, "factor is 1.0, expected below 1"),
        (lambda: optim.Plateau(sgd(), mode="up"), ValueError, "mode is 'up'"),
        (lambda: optim.Plateau(sgd(), patience=-1), ValueError, "patience is -1"),
        (lambda: optim.Plateau(sgd()).step(), TypeError, "metric is None .*, expected a number"),
        (lambda: optim.Plateau(sgd()).step("low"), TypeError, "metric is 'low'"),
        (lambda: optim.WarmUp(3, 3), TypeError, "schedule is 3"),
        (lambda: optim.WarmUp(sgd(), 0), ValueError, "warmup_steps is 0"),
        (lambda: optim.WarmUp(sgd(), 3, start=2), ValueError, "start is 2, expected 0 to 1"),
    ],
)
def test_bad_input_is_refused(
    call: Callable[[], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        call()


def sgd(lr: float = 1.0) -> optim.SGD:
    return optim.SGD(parameters(), lr=lr)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"steps": None}, TypeError, "steps is None"),
        ({"lr": -1.0}, ValueError, "lr is -1.0"),
        ({"unknown": 0, "other": 1}, ValueError, "unexpected: unknown, other"),
        ({"type": "SGD"}, ValueError, "state_dict is of 'SGD', expected 'Adam'"),
        ({"exp_avg": []}, ValueError, "exp_avg has 0 arrays, expected 4"),
        ({"exp_avg": None}, TypeError, "exp_avg is None"),
        ({"exp_avg_sq": [np.ones((7, 11)), np.ones(4)] * 2}, ValueError, r"exp_avg_sq\[1\] has sh"),
        ({"parameters": ["w", "x", "one", "d"]}, ValueError, "x in the place of b\n  d in the pl"),
        ({"parameters": ["w"], "shapes": [[7, 11]]}, ValueError, "it has 1, expected 4"),
        ({"shapes": 3}, TypeError, "shapes is 3"),
        ({"shapes": [[7, 11], 3, 4, 5]}, TypeError, r"shapes\[1\] is 3 \(int\), expected a list"),
        (
            {"shapes": [[7, 12], [3], [1], [2, 3, 4]]},
            ValueError,
            r"w has shape \(7, 12\), expected \(7, 11\)",
        ),
        ({"amsgrad": True}, ValueError, "missing: max_exp_avg_sq"),
    ],
)
def test_a_wrong_state_is_refused_whole(
    change: dict[str, Any], error: type[Exception], message: str
) -> None:
    optimizer = optim.Adam(parameters(), lr=0.5)
    run(optimizer, range(1))
    before = pickle.dumps(optimizer.state_dict())
    other = optim.Adam(parameters(), lr=0.25)
    run(other, range(3))
    with pytest.raises(error, match=message):
        optimizer.load_state_dict(other.state_dict() | change)
    assert pickle.dumps(optimizer.state_dict()) == before
    optimizer.load_state_dict(other.state_dict())
    assert optimizer.steps == 3


def test_missing_keys_of_a_state_are_named() -> None:
    state = optim.Adam(parameters()).state_dict()
    del state["lr"], state["exp_avg"], state["shapes"]
    with pytest.raises(ValueError, match=r"missing: lr, shapes, exp_avg$"):
        optim.Adam(parameters()).load_state_dict(state)
    with pytest.raises(TypeError, match=r"state_dict is None .*, expected a mapping"):
        optim.Adam(parameters()).load_state_dict(None)
    state = optim.SGD(lc.LSTM(2, 3).parameters()).state_dict()
    with pytest.raises(ValueError, match="state_dict is of other parameters than SGD's"):
        optim.SGD(lc.GRU(2, 3).parameters()).load_state_dict(state)


# Clipping -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_norm", [4.9, 4.0, 1.0, 0.0])
def test_clipping_by_hand(max_norm: float) -> None:
    p, q = lc.Parameter("p", np.zeros(2)), lc.Parameter("q", np.zeros(1))
    p.grad, q.grad = [3.0, 0.0], [-4.0]
    assert lc.clip_grad_norm([p, q], 6.0) == lc.clip_grad_norm([p, q], math.inf) == 5.0
    assert (p.grad.tolist(), q.grad.tolist()) == ([3.0, 0.0], [-4.0])
    assert lc.clip_grad_norm([p, q], max_norm) == 5.0
    factor = max_norm / (5 + 1e-6)
    np.testing.assert_allclose([*p.grad, *q.grad], [3 * factor, 0, -4 * factor], rtol=1e-14)
    p.grad, q.grad = [3.0, -0.5], [-4.0]
    lc.clip_grad_value([p, q], 2.0)
    assert (p.grad.tolist(), q.grad.tolist()) == ([2.0, -0.5], [-2.0])


@pytest.mark.parametrize("max_norm", [0.0, 0.5, 3.0, 1e9, math.inf])
def test_clipping_against_pytorch(max_norm: float) -> None:
    torch = require("torch")
    ours = parameters()
    for p in ours:
        p.grad = p.data
    theirs = [torch.zeros(p.shape, dtype=torch.float64).requires_grad_() for p in ours]
    for p, t in zip(ours, theirs, strict=True):
        t.grad = torch.from_numpy(p.grad.copy())
    norm = lc.clip_grad_norm(ours, max_norm)
    expected = torch.nn.utils.clip_grad_norm_(theirs, max_norm)
    assert type(norm) is float
    assert norm == pytest.approx(expected.item(), rel=1e-14)
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-14)

    lc.clip_grad_value(ours, 0.1)
    torch.nn.utils.clip_grad_value_(theirs, 0.1)
    for p, t in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(p.grad, t.grad.numpy(), rtol=1e-14)


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("float32", 3e38), ("float32", 1e-45), ("float64", 1e307), ("float64", 1e-300)],
)
def test_norms_neither_overflow_nor_underflow(isa: str, dtype: str, size: float) -> None:
    p = lc.Parameter("p", np.zeros(100, dtype))
    p.grad = np.full(100, size, dtype)
    expected = 10 * float(p.grad[0])
    assert lc.clip_grad_norm([p], math.inf) == pytest.approx(expected, rel=1e-14)
    if size > 1:
        lc.clip_grad_norm([p], 1.0)
        np.testing.assert_allclose(p.grad, 0.1, rtol=1e-6)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_norms_that_are_not_finite_change_nothing(bad: float) -> None:
    ours = parameters()
    set_gradients(ours, 0)
    ours[1].grad[2] = bad
    before = [p.grad.copy() for p in ours]
    norm = lc.clip_grad_norm(ours, 1.0)
    assert math.isnan(norm) if math.isnan(bad) else norm == math.inf
    with pytest.raises(ValueError, match=f"is {norm}, expected .*: see the gradient of b"):
        lc.clip_grad_norm(ours, 1.0, error_if_nonfinite=True)
    for p, grad in zip(ours, before, strict=True):
        assert np.array_equal(p.grad, grad, equal_nan=True)
    lc.clip_grad_value(ours, 1.0)
    assert np.array_equal(ours[1].grad[2], np.clip(bad, -1, 1), equal_nan=True)


# Schedules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (lambda o: optim.StepLR(o, 3), lambda s, o: s.StepLR(o, 3)),
        (lambda o: optim.StepLR(o, 1, gamma=0.9), lambda s, o: s.StepLR(o, 1, gamma=0.9)),
        (lambda o: optim.CosineLR(o, 30), lambda s, o: s.CosineAnnealingLR(o, 30)),
        (
            lambda o: optim.CosineLR(o, 31, minimum=0.2),
            lambda s, o: s.CosineAnnealingLR(o, 31, eta_min=0.2),
        ),
        (
            lambda o: optim.WarmUp(o, 7, start=0.25),
            lambda s, o: s.LinearLR(o, start_factor=0.25, total_iters=7),
        ),
        (
            lambda o: optim.WarmUp(optim.CosineLR(o, 23), 7, start=0.25),
            lambda s, o: s.SequentialLR(
                o,
                [s.LinearLR(o, start_factor=0.25, total_iters=7), s.CosineAnnealingLR(o, 23)],
                milestones=[7],
            ),
        ),
        (lambda o: optim.CosineRestarts(o, 7), lambda s, o: s.CosineAnnealingWarmRestarts(o, 7)),
        (
            lambda o: optim.CosineRestarts(o, 3, factor=2, minimum=0.1),
            lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, T_mult=2, eta_min=0.1),
        ),
        (
            lambda o: optim.LambdaLR(o, lambda t: 0.95**t),
            lambda s, o: s.LambdaLR(o, lambda t: 0.95**t),
        ),
        (
            lambda o: optim.WarmUp(optim.CosineRestarts(o, 5, factor=2), 7, start=0.25),
            lambda s, o: s.SequentialLR(
                o,
                [
                    s.LinearLR(o, start_factor=0.25, total_iters=7),
                    s.CosineAnnealingWarmRestarts(o, 5, T_mult=2),
                ],
                milestones=[7],
            ),
        ),
        *(
            (
                partial(lambda ours, o: optim.OneCycle(o, 0.9, 31, **ours), ours),
                partial(
                    lambda more, s, o: s.OneCycleLR(o, 0.9, 31, cycle_momentum=False, **more), more
                ),
            )
            for ours, more in (
                ({}, {}),
                (
                    {"rise": 0.5, "anneal": "linear"},
                    {"pct_start": 0.5, "anneal_strategy": "linear"},
                ),
                ({"three_phase": True}, {"three_phase": True}),
                (
                    {"rise": 0.17, "div_factor": 3.0, "final_div_factor": 7.0},
                    {"pct_start": 0.17, "div_factor": 3.0, "final_div_factor": 7.0},
                ),
                (
                    {"rise": 0.4, "three_phase": True, "anneal": "linear"},
                    {"pct_start": 0.4, "three_phase": True, "anneal_strategy": "linear"},
                ),
            )
        ),
    ],
)
def test_schedules_against_pytorch(
    ours: Callable[[Any], optim.Schedule], theirs: Callable[[Any, Any], Any]
) -> None:
    torch = require("torch")
    optimizer = sgd(lr=0.7)
    other = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.7)
    schedule, expected = ours(optimizer), theirs(torch.optim.lr_scheduler, other)
    rates = []
    for _ in range(30):
        assert optimizer.lr == schedule.lr == pytest.approx(other.param_groups[0]["lr"], rel=1e-12)
        rates.append(optimizer.lr)
        optimizer.step()
        other.step()
        schedule.step()
        expected.step()
    assert schedule.steps == 30
    assert len(set(rates)) > 5


@pytest.mark.parametrize(
    ("schedule", "rates"),
    [
        (lambda o: optim.StepLR(o, 2, gamma=0.5), [8, 8, 4, 4, 2, 2, 1, 1]),
        (lambda o: optim.CosineLR(o, 4), [8, 6.82842712, 4, 1.17157288, 0, 0, 0, 0]),
        (lambda o: optim.CosineLR(o, 2, minimum=2.0), [8, 5, 2, 2, 2, 2, 2, 2]),
        (lambda o: optim.WarmUp(o, 4, start=0.5), [4, 5, 6, 7, 8, 8, 8, 8]),
        (
            lambda o: optim.WarmUp(optim.StepLR(o, 1, gamma=0.5), 2, start=0.25),
            [2, 5, 8, 4, 2, 1, 0.5, 0.25],
        ),
    ],
    ids=["step", "cosine", "cosine-minimum", "warm-up", "warm-up-step"],
)
def test_schedules_by_hand(
    schedule: Callable[[optim.Optimizer], optim.Schedule], rates: list[float]
) -> None:
    optimizer = sgd(lr=8.0)
    made = schedule(optimizer)
    found = []
    for _ in rates:
        found.append(optimizer.lr)
        made.step()
    np.testing.assert_allclose(found, rates, atol=1e-8)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.5, "patience": 0},
        {"factor": 0.5, "patience": 2, "cooldown": 3, "min_lr": 0.01},
        {"mode": "max", "patience": 1, "threshold": 0.05},
        {"threshold_mode": "abs", "threshold": 0.3, "patience": 1, "factor": 0.9},
        {"mode": "max", "threshold_mode": "abs", "threshold": 0.3, "patience": 1, "eps": 0.05},
    ],
)
def test_plateau_against_pytorch(options: dict[str, Any]) -> None:
    torch = require("torch")
    optimizer = sgd(lr=0.7)
    other = torch.optim.SGD([torch.zeros(3, requires_grad=True)], lr=0.7)
    schedule = optim.Plateau(optimizer, **options)
    expected = torch.optim.lr_scheduler.ReduceLROnPlateau(other, **options)
    rng = np.random.default_rng(0)
    metrics = [3.0, math.nan, *(2 / (1 + np.arange(60.0)) + 0.2 * rng.random(60)), math.inf, 1.0]
    if options.get("mode") == "max":  # those that rise, by much, by little, and not at all
        metrics = [-5.0, math.nan, *(3 - 2 / (1 + np.arange(60.0)) + 0.2 * rng.random(60)), 2.0]
    for metric in metrics:
        schedule.step(metric)
        expected.step(metric)
        assert optimizer.lr == pytest.approx(other.param_groups[0]["lr"], rel=1e-12)
    assert optimizer.lr < 0.7


@pytest.mark.parametrize(
    ("options", "metrics", "bad_steps"),
    [  # how many steps in a row were without improvement, after each of the metrics
        ({}, [4.0, 3.7, 3.5, 3.3, -1.0], [0, 1, 0, 1, 0]),
        ({"threshold_mode": "abs"}, [4.0, 3.95, 3.85, 3.8, -1.0], [0, 1, 0, 1, 0]),
        ({"mode": "max"}, [4.0, 4.3, 4.5, 4.9, 5.0], [0, 1, 0, 1, 0]),
        ({"mode": "max", "threshold_mode": "abs"}, [4.0, 4.05, 4.15, 4.2, -1.0], [0, 1, 0, 1, 2]),
        ({"mode": "max"}, [1.0, 0.95, 0.5, math.nan, 1.2], [0, 1, 2, 3, 0]),
    ],
    ids=["min-rel", "min-abs", "max-rel", "max-abs", "max-falling"],
)
def test_plateau_counts_what_beats_the_best_by_the_threshold(
    options: dict[str, Any], metrics: list[float], bad_steps: list[int]
) -> None:
    schedule = optim.Plateau(sgd(), threshold=0.1, **options)
    found = []
    for metric in metrics:
        schedule.step(metric)
        found.append(schedule.bad_steps)
    assert found == bad_steps


@pytest.mark.parametrize(
    ("options", "rates"),
    [  # after each of eight steps without improvement, and the first, which is one
        ({"patience": 0}, [8, 4, 2, 1, 0.5, 0.25, 0.125, 0.0625, 0.03125]),
        ({"patience": 2}, [8, 8, 8, 4, 4, 4, 2, 2, 2]),
        ({"patience": 1, "cooldown": 2}, [8, 8, 4, 4, 4, 4, 2, 2, 2]),
        ({"patience": 0, "min_lr": 3.0}, [8, 4, 3, 3, 3, 3, 3, 3, 3]),
        ({"patience": 0, "eps": 1.5}, [8, 4, 2, 2, 2, 2, 2, 2, 2]),
    ],
)
def test_plateau_by_hand(options: dict[str, Any], rates: list[float]) -> None:
    optimizer = sgd(lr=8.0)
    schedule = optim.Plateau(optimizer, factor=0.5, **options)
    found = []
    for _ in rates:
        schedule.step(1.0)
        found.append(optimizer.lr)
    assert found == rates


SCHEDULES: dict[str, Callable[[optim.Optimizer], optim.Schedule]] = {
    "StepLR": lambda o: optim.StepLR(o, 3, gamma=0.5),
    "CosineLR": lambda o: optim.CosineLR(o, 9, minimum=0.1),
    "Plateau": lambda o: optim.Plateau(o, factor=0.5, patience=1),
    "WarmUp": lambda o: optim.WarmUp(o, 4),
    "WarmUp of CosineLR": lambda o: optim.WarmUp(optim.CosineLR(o, 9), 4),
    "CosineRestarts": lambda o: optim.CosineRestarts(o, 3, factor=2),
    "OneCycle": lambda o: optim.OneCycle(o, 0.9, 13, div_factor=5.0),
    "LambdaLR": lambda o: optim.LambdaLR(o, lambda t: 1 / (1 + t)),
    "WarmUp of OneCycle": lambda o: optim.WarmUp(optim.OneCycle(o, 0.9, 9), 4),
    "WarmUp of Plateau": lambda o: optim.WarmUp(optim.Plateau(o, factor=0.5, patience=1), 4),
}


@pytest.mark.parametrize("stop", [0, 2, 4, 6, 11])
@pytest.mark.parametrize("name", SCHEDULES)
def test_schedules_resume(name: str, stop: int) -> None:
    def rates(schedule: optim.Schedule, steps: range) -> list[float]:
        result = []
        for step in steps:
            schedule.step(metric=math.cos(step))
            result.append(schedule.optimizer.lr)
        return result

    whole = rates(SCHEDULES[name](sgd(0.7)), range(15))
    assert len(set(whole)) > 2
    first = SCHEDULES[name](sgd(0.7))
    assert rates(first, range(stop)) == whole[:stop]
    state = json.loads(json.dumps(first.state_dict()))
    second = SCHEDULES[name](sgd(0.123))
    optimizer = second.optimizer
    second.load_state_dict(state)
    assert second.optimizer is optimizer
    assert optimizer.lr == first.lr
    assert repr(second) == repr(first)
    assert rates(second, range(stop, 15)) == whole[stop:]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"type": "Other"}, ValueError, "state_dict is of 'Other', expected"),
        ({"steps": -1}, ValueError, "steps is -1"),
        ({"lr": "x"}, TypeError, "lr is 'x'"),
        ({"more": 1}, ValueError, "unexpected: more"),
    ],
)
def test_a_wrong_state_of_a_schedule_is_refused_whole(
    name: str, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    schedule = SCHEDULES[name](sgd(0.7))
    for step in range(6):
        schedule.step(float(step))
    before = pickle.dumps(schedule.state_dict())
    lr = schedule.optimizer.lr
    with pytest.raises(error, match=message):
        schedule.load_state_dict({**SCHEDULES[name](sgd(0.3)).state_dict(), **change})
    assert pickle.dumps(schedule.state_dict()) == before
    assert schedule.optimizer.lr == lr


def test_a_warm_up_refuses_the_state_of_another() -> None:
    alone = optim.WarmUp(sgd(), 4)
    with_schedule = optim.WarmUp(optim.StepLR(sgd(), 3), 4)
    before = pickle.dumps(with_schedule.state_dict())
    with pytest.raises(ValueError, match="has a schedule after the warm-up, expected none"):
        alone.load_state_dict(with_schedule.state_dict())
    with pytest.raises(TypeError, match=r"state_dict is None .*, expected a mapping"):
        with_schedule.load_state_dict(alone.state_dict())
    other = optim.WarmUp(optim.CosineLR(sgd(), 3), 4)
    with pytest.raises(ValueError, match="state_dict is of 'CosineLR', expected 'StepLR'"):
        with_schedule.load_state_dict(other.state_dict())
    assert pickle.dumps(with_schedule.state_dict()) == before
    assert with_schedule.optimizer.lr == with_schedule.lr == 0.1


def test_a_warm_up_hands_the_metric_on() -> None:
    schedule = optim.WarmUp(optim.Plateau(sgd()), 1)
    schedule.step()
    with pytest.raises(TypeError, match="metric is None"):
        schedule.step()
    assert schedule.steps == 1


# Keras's Adam, and what is not trained ------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Adam", "AdamW"])
@pytest.mark.parametrize("amsgrad", [False, True])
def test_eps_hat_is_added_before_the_correction(kind: str, amsgrad: bool) -> None:
    rng = np.random.default_rng(3)
    p, w = lc.Parameter("w", np.ones(4)), np.ones(4)
    lr, (b1, b2), eps, decay = 0.1, (0.8, 0.9), 0.05, 0.01
    optimizer = getattr(optim, kind)([p], lr, (b1, b2), eps, decay, amsgrad, eps_hat=True)
    m, v, top = np.zeros(4), np.zeros(4), np.zeros(4)
    for t in range(1, 8):
        gradient = rng.standard_normal(4) * 0.1
        p.grad = gradient
        optimizer.step()
        g = gradient + decay * w if kind == "Adam" else gradient
        w = w if kind == "Adam" else w - lr * decay * w
        m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
        top = np.maximum(top, v) if amsgrad else v
        w = w - lr * np.sqrt(1 - b2**t) / (1 - b1**t) * m / (np.sqrt(top) + eps)
        np.testing.assert_allclose(p.data, w, rtol=1e-12)
    again = getattr(optim, kind)([p], eps_hat=True)
    again.load_state_dict(optimizer.state_dict())
    assert again.state_dict()["eps_hat"] is True
    assert again.eps == eps
    plain = getattr(optim, kind)([p])
    with pytest.raises(ValueError, match="unexpected: eps_hat"):
        plain.load_state_dict(optimizer.state_dict())
    assert "eps_hat" not in plain.state_dict()


def test_what_is_not_trainable_stays() -> None:
    model = lc.Sequential(lc.GRU(3, 4, seed=0), lc.Linear(4, 2, seed=1))
    frozen = [p for name, p in model.named_parameters() if name.startswith("0.")]
    for p in frozen:
        p.trainable = False
        p.grad = np.full(p.shape, 3.0)
    trained = model[1].parameters()
    for p in trained:
        p.grad = np.full(p.shape, 0.5)
    norm = np.sqrt(sum(p.grad.size for p in trained)) * 0.5
    assert lc.clip_grad_norm(model.parameters(), np.inf) == pytest.approx(norm)
    lc.optim.clip_grad_value(model.parameters(), 0.25)
    assert all((p.grad == 3.0).all() for p in frozen)
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    assert [id(p) for p in optimizer.parameters] == [id(p) for p in trained]
    before = model.state_dict()
    optimizer.step()
    for name, value in model.state_dict().items():
        assert np.array_equal(value, before[name]) == name.startswith("0."), name
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert [p.trainable for p in again.parameters()] == [False] * 4 + [True] * 2
    with pytest.raises(ValueError, match="none that is trainable"):
        optim.SGD(frozen)
    trained[0].trainable = False
    optimizer.load_state_dict(optimizer.state_dict())
    assert [id(p) for p in optimizer.parameters] == [id(p) for p in trained]


# Cycles and functions ---------------------------------------------------------------------------


@pytest.mark.parametrize("total", [1, 2, 3, 4])
@pytest.mark.parametrize("options", [{}, {"rise": 0.0}, {"rise": 1.0}, {"rise": 0.5}])
def test_short_cycles_end_where_they_should(total: int, options: dict[str, float]) -> None:
    optimizer = sgd()
    schedule = optim.OneCycle(optimizer, 1.0, total, **options)
    rates = []
    for _ in range(total + 3):
        rates.append(optimizer.lr)
        schedule.step()
    assert all(0 < rate <= 1 for rate in rates)
    assert rates[total:] == [1 / 25 / 1e4] * 3
    if 1 < options.get("rise", 0.3) * total < total:
        assert rates[0] == pytest.approx(1 / 25)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda o: optim.OneCycle(o, 0.0, 5), ValueError, "max_lr is 0.0, expected above 0"),
        (lambda o: optim.OneCycle(o, [1.0, 2.0], 5), TypeError, r"max_lr is \[1\.0, 2"),
        (lambda o: optim.OneCycle(o, 1.0, 0), ValueError, "total_steps is 0"),
        (lambda o: optim.OneCycle(o, 1.0, 5, rise=1.5), ValueError, "rise is 1.5, expected 0 to 1"),
        (lambda o: optim.OneCycle(o, 1.0, 5, anneal="x"), ValueError, "anneal is 'x'"),
        (lambda o: optim.OneCycle(o, 1.0, 5, div_factor=0), ValueError, "div_factor is 0.0, exp"),
        (lambda o: optim.OneCycle("x", 1.0, 5), TypeError, "optimizer is 'x'"),
        (lambda o: optim.CosineRestarts(o, 0), ValueError, "first_steps is 0"),
        (lambda o: optim.CosineRestarts(o, 2, factor=0), ValueError, "factor is 0"),
        (lambda o: optim.LambdaLR(o, 3), TypeError, "function is 3"),
        (lambda o: optim.LambdaLR(o, [abs, abs]), ValueError, "function has 2, expected 1, one"),
        (lambda o: optim.LambdaLR(o, lambda t: -1), ValueError, r"function\(0\) is -1, expected"),
        (lambda o: optim.LambdaLR(o, lambda t: "a"), TypeError, r"function\(0\) is 'a'"),
    ],
)
def test_bad_schedules_are_refused(
    make: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        make(sgd())


def test_a_late_restart_is_found_at_once() -> None:
    schedule = optim.CosineRestarts(sgd(), 3)
    assert schedule._rate(3 * 10**15, 1.0) == 1.0


@pytest.mark.parametrize("model", [lc.Linear(3, 2), lc.Sequential(lc.Linear(3, 2))], ids=repr)
def test_a_model_is_not_its_parameters(model: Any) -> None:
    with pytest.raises(TypeError, match=r"parameters is a (Linear|Sequential), expected what its"):
        optim.Adam(model)
