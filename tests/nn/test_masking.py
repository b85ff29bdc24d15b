"""Masking: lengths found, gaps closed, gradients put back."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient

HOLES = np.array([[0, 3, 0, 4, 5], [1, 2, 0, 0, 0], [0, 0, 0, 0, 0], [1, 2, 3, 4, 5]])


@pytest.mark.parametrize("batch_first", [False, True])
def test_it_moves_valid_steps_to_the_front(batch_first: bool) -> None:
    ids = HOLES if batch_first else HOLES.T
    masking = lc.Masking(ids=True, batch_first=batch_first)
    moved, lengths = masking(ids)
    rows = moved if batch_first else moved.T
    assert lengths.tolist() == [3, 2, 0, 5]
    for row, length, given in zip(rows, lengths, HOLES):
        assert row[:length].tolist() == [i for i in given if i]
    features = np.stack([ids, -ids], axis=-1).astype("float32")
    moved_features, found = lc.Masking(batch_first=batch_first)(features)
    np.testing.assert_array_equal(moved_features[..., 0], moved)
    assert found.tolist() == lengths.tolist()
    _, cut = masking(ids, lengths=[3, 1, 5, 4])
    assert cut.tolist() == [1, 1, 0, 4]


def test_a_step_is_masked_by_all_its_features() -> None:
    x = np.array([[[7.0, 7.0]], [[7.0, 0.0]], [[7.0, 7.0]]])
    moved, lengths = lc.Masking(7.0)(x)
    assert lengths.tolist() == [1]
    assert moved[0, 0].tolist() == [7.0, 0.0]


@pytest.mark.parametrize("time", [17, 100, 1000])  # unstable sorts keep the order of a few only
@pytest.mark.parametrize("batch_first", [False, True])
def test_many_steps_stay_in_order(batch_first: bool, time: int) -> None:
    rng = np.random.default_rng(0)
    x = np.arange(1, time + 1)[:, None] * (rng.random((time, 5)) < 0.6)
    moved, lengths = lc.Masking(ids=True, batch_first=batch_first)(x.T if batch_first else x)
    for row, length, given in zip(moved if batch_first else moved.T, lengths, x.T):
        assert row[:length].tolist() == given[given > 0].tolist()


def test_what_has_no_gaps_is_not_copied() -> None:
    x = np.array([[1, 2, 0], [3, 0, 0]])
    y, lengths = lc.Masking(ids=True, gaps=False, batch_first=True)(x)
    assert y is x
    assert lengths.tolist() == [2, 1]


def test_unbatched() -> None:
    y, length = lc.Masking(ids=True)(HOLES[0])
    assert (y[:3].tolist(), length.shape, int(length)) == ([3, 4, 5], (), 3)
    model = lc.Sequential(lc.Masking(ids=True), lc.Embedding(6, 2), lc.GRU(2, 3), lc.LastStep())
    short = lc.Sequential(*list(model)[1:])
    assert_same_bits(model(HOLES[0]), short(HOLES[0][HOLES[0] > 0]))


@pytest.mark.parametrize("shape", [(0, 2, 3), (5, 0, 3), (5, 2, 0), (0, 3)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_nothing(shape: tuple[int, ...], batch_first: bool) -> None:
    y, lengths = lc.Masking(batch_first=batch_first)(np.zeros(shape))
    assert y.shape == shape
    rows = shape[:2][1 - batch_first] if len(shape) == 3 else ()
    assert lengths.tolist() == np.zeros(rows).tolist()


def model_of(kind: str) -> lc.Sequential:
    first: list[Any] = [lc.Masking(0.5, batch_first=True), lc.Linear(2, 3, dtype="float64", seed=0)]
    layer = getattr(lc, kind)
    options: dict[str, Any] = {"batch_first": True, "dtype": "float64", "seed": 1}
    return lc.Sequential(
        *first,
        layer(3, 2, bidirectional=True, **options),
        lc.Flip(),
        layer(4, 3, **options),
        lc.LastStep(),
    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_masked_steps_are_as_if_they_were_not_there(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((4, 5, 2))
    x[HOLES == 0] = 0.5
    model = model_of(kind)
    y = model(x)
    assert not y[2].any()
    for row in (0, 1, 3):
        alone = x[row][HOLES[row] > 0][None]
        np.testing.assert_allclose(y[row], model(alone)[0], atol=1e-15)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients(kind: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((4, 5, 2))
    x[HOLES == 0] = 0.5
    model = model_of(kind)
    y, tape = model.forward(x)
    dy = rng.standard_normal(y.shape)
    dx = model.backward(tape, dy)
    assert dx is not None
    expected = numeric_gradient(lambda v: float((model(v) * dy).sum()), x)
    expected[HOLES == 0] = 0  # there a moved feature is a step where there was none
    np.testing.assert_allclose(dx, expected, atol=1e-8)
    for p in model.parameters():
        expected = parameter_gradient(p, lambda: float((model(x) * dy).sum()))
        np.testing.assert_allclose(p.grad, expected, atol=1e-8)


def test_ids_have_no_gradient() -> None:
    model = lc.Sequential(
        lc.Masking(ids=True), lc.Embedding(6, 2, seed=0), lc.LSTM(2, 3), lc.LastStep()
    )
    y, tape = model.forward(HOLES.T)
    assert model.backward(tape, np.ones_like(y)) is None
    weight = model[1].parameters()[0]
    assert weight.rows is not None
    assert 0 not in weight.rows.tolist() or not weight.grad[0].any()
    assert weight.grad[1:].any()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.Masking("0"), TypeError, "value is '0'"),
        (lambda: lc.Masking(np.nan), ValueError, "value is nan"),
        (lambda: lc.Masking(ids=1), TypeError, "ids is 1"),
        (lambda: lc.Masking(gaps=None), TypeError, "gaps is None"),
        (lambda: lc.Masking(batch_first=1), TypeError, "batch_first is 1"),
        (lambda: lc.Masking(ids=True)(np.ones((2, 3))), TypeError, "dtype float64, expected int"),
        (lambda: lc.Masking(ids=True)([[1], [2, 3]]), TypeError, "x is not an array"),
        (lambda: lc.Masking(ids=True)(HOLES[None]), ValueError, r"expected \(T, B\) or \(T,\)"),
        (lambda: lc.Masking()(np.ones(3)), ValueError, r"expected \(T, B, F\) or \(T, F\)"),
        (lambda: lc.Masking(ids=True, gaps=False)(HOLES.T), ValueError, "before the end of a row"),
        (lambda: lc.Masking(ids=True)(HOLES, lengths=[9] * 5), ValueError, r"lengths\[0\] is 9"),
        (lambda: lc.Sequential(lc.Masking(), lc.Masking()), ValueError, "are Maskings"),
        (lambda: lc.Sequential(lc.LastStep(), lc.Masking()), ValueError, "needs time steps"),
        (
            lambda: lc.Sequential(lc.Masking(), lc.GRU(2, 3))(
                np.ones((5, 1, 2), "float32"), resets=np.zeros((5, 1), bool)
            ),
            ValueError,
            "moves steps",
        ),
    ],
)
def test_refuses(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_foreign_tape_is_refused() -> None:
    masking = lc.Masking()
    *_, tape = lc.Masking().forward(np.ones((3, 1, 2)))
    with pytest.raises(ValueError, match="another layer"):
        masking.backward(tape, np.ones((3, 1, 2)))


def test_copies(tmp_path: Any) -> None:
    model = lc.Sequential(lc.Masking(-1.0, gaps=False), lc.GRU(2, 3, seed=0), lc.BothEnds("sum"))
    lc.save(model, tmp_path / "model.safetensors")
    for other in (
        pickle.loads(pickle.dumps(model)),
        copy.deepcopy(model),
        lc.load(tmp_path / "model.safetensors"),
    ):
        assert other == model
        assert repr(other) == repr(model)
    assert lc.Masking(1.0) != lc.Masking(2.0)
    assert repr(lc.Masking(ids=True, gaps=False)) == "Masking(ids=True, gaps=False)"
