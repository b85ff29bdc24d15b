"""Numbers at the edges: huge, NaN, infinite, denormal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.variants import CELLS, Cell, cells, dtypes, make, states_of, train_step

SATURATING = [
    (kind, options)
    for kind, options in CELLS
    if options.get("nonlinearity") != "relu" and "identity" not in options.get("activations", ())
]


def outputs(layer: Any, x: np.ndarray) -> list[np.ndarray]:
    y, last = layer(x)
    return [y, *(last if isinstance(layer, lc.LSTM) else (last,))]


@dtypes
@pytest.mark.parametrize("cell", SATURATING)
def test_huge_inputs_saturate(isa: str, cell: Cell, dtype: str) -> None:
    kind, options = cell
    layer = make(kind, 3, 9, dtype=dtype, **options)
    big = np.finfo(dtype).max / 8
    for value in (big, -big):
        for y in outputs(layer, np.full((4, 2, 3), value, dtype)):
            assert np.isfinite(y).all()


@dtypes
@cells
def test_nan_stays_in_its_row(isa: str, cell: Cell, dtype: str) -> None:
    """A NaN reaches all later outputs of its row and nothing of the others."""
    kind, options = cell
    layer = make(kind, 3, 9, dtype=dtype, **options)
    x = np.random.default_rng(0).standard_normal((5, 3, 3)).astype(dtype)
    clean, _ = layer(x)
    x[2, 1, 0] = np.nan
    y, _ = layer(x)
    assert_same_bits(y[:, [0, 2]], clean[:, [0, 2]])
    assert_same_bits(y[:2], clean[:2])
    assert np.isnan(y[2:, 1]).all()


@dtypes
@cells
def test_padding_is_never_read(isa: str, cell: Cell, dtype: str) -> None:
    """NaN and infinity behind the ends of x and dy change nothing, forward or backward."""
    kind, options = cell
    for stack in ({}, {"bidirectional": True, "num_layers": 2}):
        layer = make(kind, 3, 9, dtype=dtype, **options, **stack)
        rng = np.random.default_rng(0)
        lengths = np.array([5, 0, 2, 4])
        x = rng.standard_normal((5, 4, 3)).astype(dtype)
        state = states_of(layer, 4, rng)
        y, _ = layer(x)
        dy = rng.standard_normal(y.shape).astype(dtype)
        padding = np.arange(5)[:, None] >= lengths
        clean = train_step(layer, x, state, dy, state, lengths=lengths)
        x[padding] = np.nan
        dy[padding] = np.inf
        dirty = train_step(layer, x, state, dy, state, lengths=lengths)
        for name, value in {**clean.outputs, **clean.gradients}.items():
            np.testing.assert_array_equal(value, {**dirty.outputs, **dirty.gradients}[name], name)


@dtypes
@cells
def test_reset_drops_nan_states(isa: str, cell: Cell, dtype: str) -> None:
    kind, options = cell
    layer = make(kind, 3, 9, dtype=dtype, **options)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 2, 3)).astype(dtype)
    state = tuple(np.full_like(s, np.nan) for s in states_of(layer, 2, rng))
    resets = np.zeros((6, 2), bool)
    resets[[0, 3]] = True
    y, _, tape = layer.forward(x, state if kind == "LSTM" else state[0], resets=resets)
    assert np.isfinite(y).all()
    dy = np.zeros_like(y)
    dy[4] = 1
    dx, dstate = layer.backward(tape, dy)
    assert dx[3:5].any()
    assert not dx[:3].any()
    for d in dstate if kind == "LSTM" else (dstate,):
        assert not d.any()
    x[2] = np.nan
    y, _ = layer(x, resets=resets)
    assert_same_bits(y[3:], layer(x[3:])[0])


# Denormals: whoever computes must find 0 where a product of normal numbers is below the normal
# ones, and the caller still has denormals afterwards. Where nothing is flushed each number below is
# not 0 but about as large as the smallest normal number.


@pytest.fixture
def callers_denormals() -> Iterator[None]:
    """Check that denormals of the caller are what they were."""
    yield
    tiny = np.full(100, np.finfo("float32").tiny)
    assert (tiny * np.float32(0.5) > 0).all()


def tiny_candidate(kind: str, dtype: str, **options: Any) -> Any:
    """Return a layer of one input whose candidate is tiny * x: half of it is to be 0."""
    layer = make(kind, 1, 9, bias=False, dtype=dtype, **options)
    for p in layer.parameters():
        p.data[...] = 0
    w_ih, w_hh = layer.parameters()[:2]
    place = {"RNN": 0, "LSTM": 2, "GRU": 2}[kind]
    w_ih.data[9 * place : 9 * place + 9] = np.finfo(dtype).tiny
    w_hh.data[9 * place : 9 * place + 9] = np.eye(9) / 2
    return layer


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@dtypes
def test_denormals_are_flushed_forward(
    isa: str, kind: str, dtype: str, callers_denormals: None
) -> None:
    layer = tiny_candidate(kind, dtype)
    for batch in (1, 3):
        x = np.zeros((2, batch, 1), dtype)
        x[0] = 1  # the RNN flushes what it multiplies in the second step
        for y in (layer(x)[0], layer.forward(x)[0], layer.stream(batch).process(x)):
            assert not y[1].any()
            if kind != "RNN":
                assert not y.any()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@dtypes
def test_denormals_are_flushed_backward(
    isa: str, kind: str, dtype: str, callers_denormals: None
) -> None:
    layer = make(kind, 3, 9, dtype=dtype)
    for p in layer.parameters():
        p.data[...] = 0
    layer.parameters()[0].data[...] = 0.25
    x = np.zeros((1, 2, 3), dtype)
    y, _, tape = layer.forward(x)
    dx, _ = layer.backward(tape, np.full_like(y, np.finfo(dtype).tiny))
    assert not dx.any()
    if kind != "RNN":  # whose derivative is 1 here
        assert not any(p.grad.any() for p in layer.parameters())


@dtypes
def test_denormals_are_flushed_by_linear(isa: str, dtype: str, callers_denormals: None) -> None:
    linear = lc.Linear(3, 5, bias=False, dtype=dtype)
    tiny = np.finfo(dtype).tiny
    linear.parameters()[0].data[...] = 0.25
    for rows in (1, 20):
        x = np.zeros((rows, 3), dtype)
        x[:, 0] = tiny
        y, tape = linear.forward(x)
        assert not y.any()
        assert not linear(x).any()
        dy = np.zeros_like(y)
        dy[:, 0] = tiny
        assert not linear.backward(tape, dy).any()
        assert not linear.parameters()[0].grad.any()


@dtypes
@pytest.mark.parametrize("name", ["SGD", "RMSprop", "Adam", "AdamW"])
def test_denormals_are_flushed_by_optimizers(
    isa: str, name: str, dtype: str, callers_denormals: None
) -> None:
    tiny = np.finfo(dtype).tiny
    p = lc.Parameter("p", np.zeros(37, dtype))
    options: dict[str, Any] = {}
    if name == "AdamW":  # which takes a share of the parameter away
        options = {"weight_decay": 0.5}
        p.data = np.full(37, tiny)
    else:  # a step of tiny / 2 or less
        options = {} if name == "SGD" else {"eps": 1.0}
        p.grad = np.full(37, tiny)
    getattr(lc.optim, name)([p], lr=0.5, **options).step()
    assert not p.data.any()


@dtypes
def test_denormals_are_flushed_by_the_cross_entropy(
    isa: str, dtype: str, callers_denormals: None
) -> None:
    """Ten thousand rows, each with a class that is hardly ever right."""
    pred = np.zeros((10_000, 3), dtype)
    pred[:, 1] = np.log(np.finfo(dtype).tiny) + 2
    dpred = lc.losses.cross_entropy(pred, np.zeros(10_000, int))[1]
    assert (pred[:, 1] > np.log(np.finfo(dtype).tiny)).all()
    assert not dpred[:, 1].any()
    assert dpred[:, 2].all()


@dtypes
def test_denormals_that_are_given_count_as_zeros(isa: str, dtype: str) -> None:
    denormal = np.finfo(dtype).smallest_subnormal
    layer = make("RNN", 3, 9, nonlinearity="relu", bias=False, dtype=dtype)
    for p in layer.parameters():
        p.data[...] = np.finfo(dtype).max / 100
    x = np.full((4, 2, 3), denormal, dtype)
    y, _, tape = layer.forward(x, np.full((1, 2, 9), denormal, dtype))
    assert not y.any()
    layer.backward(tape, np.full_like(y, denormal))
    assert not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_add_up(isa: str, kind: str) -> None:
    layer = make(kind, 3, 5, dtype="float64")
    x = np.random.default_rng(0).standard_normal((4, 2, 3))
    y, _, tape = layer.forward(x)
    dy = np.ones_like(y)
    layer.backward(tape, dy)
    once = [p.grad.copy() for p in layer.parameters()]
    layer.backward(tape, dy)
    for p, g in zip(layer.parameters(), once, strict=True):
        np.testing.assert_allclose(p.grad, 2 * g, rtol=1e-12)
    layer.zero_grad()
    assert not any(p.grad.any() for p in layer.parameters())


def test_long_sequences_do_not_lose_their_way(isa: str) -> None:
    """Ten thousand steps, forward and back, against float64."""
    narrow, wide = (make("GRU", 2, 8, 3, dtype=d) for d in ("float32", "float64"))
    wide.load_state_dict({k: v.astype("float64") for k, v in narrow.state_dict().items()})
    x = np.random.default_rng(0).standard_normal((10_000, 1, 2))
    y32, _, tape = narrow.forward(x.astype("float32"))
    y64, _, tape64 = wide.forward(x.astype("float32").astype("float64"))
    assert np.abs(y32 - y64).max() < 2e-5
    dx32, _ = narrow.backward(tape, np.ones_like(y32))
    dx64, _ = wide.backward(tape64, np.ones_like(y64))
    np.testing.assert_allclose(dx32, dx64, atol=1e-4)
