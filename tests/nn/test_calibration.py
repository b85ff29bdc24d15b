"""quantize with calibration: rounding for what matrices will be multiplied with."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.variants import CELLS, STACKS, Cell, Options, cells, stacks
from lstmcore._base.calibration import moments_of, rounded


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def correlated(*shape: int, seed: int = 0) -> np.ndarray:
    """Return rows of numbers of which a few things make the most."""
    mixing = numbers(max(shape[-1] // 4, 1), shape[-1], seed=9)
    rng = np.random.default_rng(seed)
    few = rng.standard_normal((*shape[:-1], len(mixing)))
    return (few @ mixing + 0.1 * rng.standard_normal(shape)).astype(np.float32)


@pytest.mark.parametrize("size", [1, 3, 130, 300])
def test_it_is_what_the_paper_defines(size: int) -> None:
    """Algorithm 1 of GPTQ, in float64, one column at a time, by solving in place of a factor."""
    matrix, x = numbers(7, size), correlated(400, size, seed=1).astype(np.float64)
    moments = x.T @ x
    result = rounded(matrix, moments)
    assert result is not None
    values, scales = result
    order = np.argsort(-np.diag(moments), kind="stable")
    damped = (moments + np.eye(size) * 0.01 * np.diag(moments).mean())[np.ix_(order, order)]
    left = matrix[:, order] / scales[:, None].astype(np.float64)
    inverse = np.linalg.inv(damped)
    for j in range(size):
        whole = np.clip(np.rint(left[:, j]), -127, 127)
        # An ulp may decide between two neighbours, and then what comes after is another thing.
        assert (np.abs(left[:, j] - values[:, order[j]]) <= 0.5 + 1e-6).all() or (
            np.abs(left[:, j]).max() > 127
        )
        error = (left[:, j] - whole) / inverse[j, j]
        left -= np.outer(error, inverse[j])
        left[:, j] = whole
        inverse -= np.outer(inverse[:, j], inverse[j]) / inverse[j, j]
    np.testing.assert_allclose(scales * 127, np.abs(matrix).max(axis=1), rtol=1e-6)
    assert (values[:, order] == np.rint(left)).mean() > 0.99


def test_inputs_that_do_not_go_together_change_nothing() -> None:
    matrix = numbers(5, 40)
    for moments in (np.eye(40), np.diag(np.arange(40.0) + 1)):
        for one, other in zip(
            rounded(matrix, moments) or (), rounded(matrix, None) or (), strict=True
        ):
            assert_same_bits(one, other)


def test_products_with_other_rows_of_the_kind_change_less() -> None:
    linear = lc.Linear(64, 50, seed=0)
    x, new = correlated(500, 64, seed=1), correlated(500, 64, seed=2)
    plain, better = lc.quantize(linear), lc.quantize(linear, calibration=x)
    # By their weights alone, as x is rounded alike.
    scale = linear.state_dict()["weight"]
    errors = []
    for small in (plain, better):
        state = small.state_dict()
        weight = state["weight"] * state["weight_scale"][:, None]
        assert np.abs(weight - scale).max() < 3 * state["weight_scale"].max()
        errors.append(float(np.square(new @ (weight - scale).T).mean()))
    assert errors[1] < 0.2 * errors[0]
    assert_same_bits(better.state_dict()["bias"], linear.state_dict()["bias"])


@cells
@stacks
def test_layers_of_all_variants_see_what_they_multiply(cell: Cell, stack: Options) -> None:
    kind, own = cell
    layer = getattr(lc, kind)(7, 12, seed=0, **own, **stack)
    x, lengths = numbers(9, 4, 7), np.array([9, 0, 3, 7])
    sums = moments_of(layer, lambda model: model(x, lengths=lengths))
    parameters = layer._parameters
    there = np.arange(9)[:, None] < lengths
    rows = x[there].astype(np.float64)
    names = [name for name in parameters if name.startswith("weight_ih")]
    for name in names:
        if name.startswith("weight_ih_l0"):
            np.testing.assert_allclose(sums[id(parameters[name])], rows.T @ rows, rtol=1e-9)
    for name in names:
        assert sums[id(parameters[name])].shape == (parameters[name].shape[1],) * 2
        hidden = parameters[name.replace("_ih", "_hh")]
        assert sums[id(hidden)].shape == (hidden.shape[1],) * 2
    if len(names) == 1 and not layer.reverse:
        y, _ = layer(x, lengths=lengths)
        before = np.concatenate([0 * y[:1], y[:-1]])[there].astype(np.float64)
        found = sums[id(parameters["weight_hh_l0"])]
        np.testing.assert_allclose(found, before.T @ before, atol=1e-9)
    if len(names) > 1 and layer.num_layers > 1:  # what the second layer reads is y of the first
        first = getattr(lc, kind)(7, 12, seed=0, **own, **{**stack, "num_layers": 1})
        first.load_state_dict(layer.state_dict(), strict=False)
        y = first(x, lengths=lengths)[0][there].astype(np.float64)
        np.testing.assert_allclose(
            sums[id(parameters["weight_ih_l1"])], y.T @ y, rtol=1e-5, atol=1e-6
        )
    assert "_forward" not in layer.__dict__
    assert "_infer" not in layer.__dict__


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_states_resets_and_axes(kind: str) -> None:
    layer = getattr(lc, kind)(3, 5, seed=0, batch_first=True)
    x, h = numbers(2, 6, 3), numbers(1, 2, 5, seed=1)
    state = (h, numbers(1, 2, 5, seed=2)) if kind == "LSTM" else h
    resets = np.zeros((2, 6), bool)
    resets[1, 3] = True
    sums = moments_of(layer, lambda model: model(x, state, resets=resets))
    y, _ = layer(x, state, resets=resets)
    before = np.concatenate([h[0][:, None], y[:, :-1]], axis=1).reshape(-1, 5).astype(np.float64)
    np.testing.assert_allclose(
        sums[id(layer._parameters["weight_hh_l0"])], before.T @ before, rtol=1e-5, atol=1e-6
    )
    cell = getattr(lc, f"{kind}Cell")(3, 5, seed=0)
    given = tuple(s[0] for s in state) if kind == "LSTM" else h[0]
    sums = moments_of(cell, lambda model: model(x[:, 0], given))
    rows = h[0].astype(np.float64)
    np.testing.assert_allclose(sums[id(cell._parameters["weight_hh"])], rows.T @ rows)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_models_change_less_on_other_sequences_of_the_kind(kind: str) -> None:
    exact = lc.Sequential(
        getattr(lc, kind)(24, 32, num_layers=2, seed=0), lc.Tanh(), lc.Linear(32, 8, seed=1)
    )
    x, new = correlated(100, 4, 24, seed=1), correlated(100, 4, 24, seed=2)
    plain, better = lc.quantize(exact), lc.quantize(exact, calibration=x)
    errors = [float(np.square(small(new) - exact(new)).mean()) for small in (plain, better)]
    assert errors[1] < 0.8 * errors[0]
    assert exact == pickle.loads(pickle.dumps(exact))
    assert pickle.loads(pickle.dumps(better)) == better
    assert better.stream(4).process(new).tobytes() == better(new).tobytes()


def test_examples_of_several_calls() -> None:
    x, model = numbers(6, 4, 3), lc.Sequential(lc.GRU(3, 5, seed=0), lc.Linear(5, 2, seed=1))
    together = moments_of(model, x)
    found = moments_of(model, lambda m: [m(x[:, :1]), m(x[:, 1:])])
    assert found.keys() == together.keys()
    for key, value in found.items():
        np.testing.assert_allclose(value, together[key], atol=1e-6)


def test_models_with_ids_and_tied_weights() -> None:
    embedding = lc.Embedding(30, 16, seed=0)
    head = lc.Linear(16, 30, seed=2).tie("weight", embedding)
    x = lc.Input(ids=True)
    vectors = embedding(x)
    model = lc.Model(x, head(vectors + lc.GRU(16, 16, seed=1)(vectors)[0]))
    ids = np.random.default_rng(0).integers(30, size=(80, 4))
    small = lc.quantize(model, calibration=ids)
    assert small(ids).shape == (80, 4, 30)
    assert len(small.parameters()) == len(lc.quantize(model).parameters())
    assert small != lc.quantize(model)
    chain = lc.Sequential(lc.Embedding(5, 8, seed=0), lc.GRU(8, 9, seed=1))  # with a lookup
    ids, lengths = np.random.default_rng(0).integers(5, size=(40, 3)), np.array([40, 3, 0])
    sums = moments_of(chain, lambda model: model(ids, lengths=lengths))
    rows = chain[0](ids)[np.arange(40)[:, None] < lengths].astype(np.float64)
    np.testing.assert_allclose(sums[id(chain[1]._parameters["weight_ih_l0"])], rows.T @ rows)


def test_bad_input_is_refused_by_name() -> None:
    model = lc.Sequential(lc.GRU(3, 5, seed=0), lc.Linear(5, 2, seed=1))
    x: Any = numbers(6, 2, 3)
    before = pickle.dumps(model)
    with pytest.raises(ValueError, match="module 1 nothing but zeros, or does not call it"):
        lc.quantize(model, calibration=lambda m: m[0](x))
    with pytest.raises(ValueError, match="module 0 nothing but zeros"):
        lc.quantize(model, calibration=np.zeros((0, 2, 3), "f4"))
    with pytest.raises(ValueError, match="x has shape"):
        lc.quantize(model, calibration=x[..., :2])
    x[2, 1, 0] = np.nan
    with pytest.raises(ValueError, match="calibration gives module 0 NaN or infinity"):
        lc.quantize(model, calibration=x)
    assert pickle.dumps(model) == before
    small = lc.quantize(model)
    assert lc.quantize(small, calibration=numbers(6, 2, 3)) == small


def test_cases_have_names() -> None:
    assert CELLS
    assert STACKS
