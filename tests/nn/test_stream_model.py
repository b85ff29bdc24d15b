"""Streams of Sequential models."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits

MODELS: list[tuple[str, Any]] = [
    ("tagger", lambda d: [lc.LSTM(3, 9, dtype=d), lc.Linear(9, 4, dtype=d), lc.Softmax()]),
    ("functions", lambda d: [lc.Tanh(), lc.GRU(3, 5, dtype=d), lc.ReLU(), lc.Sigmoid()]),
    (
        "deep",
        lambda d: [
            lc.Linear(3, 6, bias=False, dtype=d),
            lc.LayerNorm(6, eps=0.01, dtype=d),
            lc.LSTM(6, 8, num_layers=2, proj_size=3, dtype=d),
            lc.Dropout(0.5),
            lc.Sequential(lc.GRU(3, 33, dtype=d), lc.LayerNorm(33, dtype=d)),
            lc.RNN(33, 4, dtype=d),
        ],
    ),
    (
        "plain norm",
        lambda d: [lc.LayerNorm(3, elementwise_affine=False, dtype=d), lc.GRU(3, 2, dtype=d)],
    ),
    ("no state", lambda d: [lc.Linear(3, 2, dtype=d)]),
]


def make(number: int, dtype: str) -> Any:
    model = lc.Sequential(*MODELS[number][1](dtype))
    model.reset_parameters(0)
    for name, p in model.named_parameters():  # norms, too
        if p.data.ndim == 1:
            p.data += np.random.default_rng(len(name)).uniform(-0.5, 0.5, p.shape)
    return model


def numbers(*shape: int, dtype: Any = "float32") -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("number", range(len(MODELS)), ids=lambda i: MODELS[i][0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_outputs_are_those_of_the_model(isa: str, number: int, dtype: str) -> None:
    model = make(number, dtype)
    for batch in (1, 3):
        x = numbers(40, batch, 3, dtype=dtype)
        expected, last = model.run(x)
        stream = model.stream(batch)
        whole = stream.process(x)
        assert_same_bits(whole, expected)
        assert isinstance(stream.state, tuple)
        assert len(stream.state) == len(last)
        for ours, theirs in zip(stream.state, last, strict=True):
            for one, other in zip(ours, theirs, strict=True):  # h and c, or the layers of h
                assert_same_bits(one, other)
        # The same bits however it is cut.
        stream.reset()
        steps = [stream.step(frame)[None] for frame in x[:7]]
        blocks = [stream.process(x[7:9]), stream.process(x[9:])]
        assert_same_bits(np.concatenate(steps + blocks), whole)


def test_a_model_of_recurrent_and_linear_layers_has_the_bits_of_the_model(isa: str) -> None:
    model = lc.Sequential(
        lc.LSTM(3, 9, seed=0), lc.Linear(9, 7), lc.GRU(7, 5, num_layers=2, seed=1), lc.Linear(5, 2)
    )
    x = numbers(40, 2, 3)
    assert_same_bits(model.stream(2).process(x), model(x))


def test_a_model_that_begins_with_an_embedding_takes_ids() -> None:
    model = lc.Sequential(lc.Embedding(11, 4, seed=0), lc.GRU(4, 6, seed=1), lc.Linear(6, 11))
    ids = np.random.default_rng(0).integers(0, 11, (9, 2))
    expected = model(ids)
    stream = model.stream(2)
    assert isinstance(stream, lc.Stream)
    y = np.concatenate([stream.process(ids[:4]), *(stream.step(i)[None] for i in ids[4:])])
    np.testing.assert_allclose(y, expected, atol=1e-6)
    out = np.empty((2, 11), "float32")
    assert stream.step([3, 4], out=out) is out
    one = model.stream()
    one.step(ids[0, 0])
    one.step(ids[1, :1])
    np.testing.assert_allclose(one.step(int(ids[2, 0])), expected[2, 0], atol=1e-6)
    for other in (stream.copy(), copy.deepcopy(stream), pickle.loads(pickle.dumps(stream))):
        assert_same_bits(other.step([1, 2]), stream.copy().step([1, 2]))
    for bad, error, message in [
        (np.zeros((2, 4), "float32"), ValueError, r"x has shape \(2, 4\), expected ids, \(2,\)"),
        (np.zeros(2, "float32"), TypeError, "integers"),
        ([0, 11], ValueError, "11"),
        ([0], ValueError, "x has shape"),
        ([[0], [1, 2]], TypeError, "x is not an array"),
    ]:
        before = stream.state
        with pytest.raises(error, match=message):
            stream.step(bad)
        assert_same_bits(stream.state[0], before[0])
    for ids in (3, [[1, 2]]):
        with pytest.raises(ValueError, match=r"x has shape .*, expected ids, \(T, 1\) or \(T,\)"):
            one.process(ids)
    with pytest.raises(ValueError, match=r"x has shape \(1, 1\), expected ids, \(1,\) or \(\)"):
        one.step([[1]])


def test_states_are_a_tuple() -> None:
    model = make(2, "float32")
    x = numbers(9, 2, 3)
    stream = model.stream(2)
    stream.process(x[:5])
    (h, c), gru, rnn = stream.state
    assert (h.shape, c.shape, gru.shape, rnn.shape) == (
        (2, 2, 3), (2, 2, 8), (1, 2, 33), (1, 2, 4),
    )  # fmt: skip
    rest = stream.process(x[5:])
    other = model.stream(2)
    other.state = ((h, c), gru, rnn)
    assert_same_bits(other.process(x[5:]), rest)
    other.state = [None, gru, None]
    assert not other.state[0][0].any()
    assert_same_bits(other.state[1], gru)
    other.state = None
    assert_same_bits(other.process(x), model.stream(2).process(x))
    before = other.state
    for bad, error, message in [
        ((h, c), ValueError, r"state has 2 entries, expected a tuple of 3"),
        (h, TypeError, r"state is a ndarray .*, expected a tuple of 3"),
        (1, TypeError, r"state is 1 \(int\), expected a tuple of 3"),
        ((1, gru, rnn), TypeError, r"state\[0\] is 1 \(int\), expected a pair"),
        (((h, c), gru, rnn[:, :1]), ValueError, r"state\[2\] has shape \(1, 1, 4\)"),
        (((h, h), gru, rnn), ValueError, r"c of state\[0\] has shape"),
    ]:
        with pytest.raises(error, match=message):
            other.state = bad
        for one, same in zip(other.state[1:], before[1:], strict=True):
            assert_same_bits(one, same)


def test_the_weights_are_those_of_when_it_was_made() -> None:
    model = make(0, "float32")
    x = numbers(5, 1, 3)
    stream = model.stream()
    expected = model.stream().process(x)
    for p in model.parameters():
        p.data *= 2
    restored = pickle.loads(pickle.dumps(stream))
    assert_same_bits(stream.process(x), expected)
    assert_same_bits(restored.process(x), expected)
    assert not np.allclose(model.stream().process(x), expected)


@pytest.mark.parametrize(
    "module",
    [
        lc.LastStep(), lc.MeanPool(), lc.Flip(), lc.LSTM(4, 3, bidirectional=True),
        lc.GRU(4, 3, reverse=True),
    ],
    ids=repr,
)  # fmt: skip
def test_what_needs_the_whole_sequence_is_refused(module: Any) -> None:
    model = lc.Sequential(lc.GRU(3, 4), module)
    with pytest.raises(ValueError, match=r"module 1, .* needs the whole sequence"):
        model.stream()


def test_models_without_sizes_are_refused() -> None:
    for modules in ([lc.Tanh()], [lc.Embedding(3, 4)], [lc.Embedding(3, 4), lc.Tanh()]):
        with pytest.raises(ValueError, match="stream"):
            lc.Sequential(*modules).stream()
    with pytest.raises(ValueError, match=r"LayerNorm\(\(2, 3\)\), is over more than the features"):
        lc.Sequential(lc.LayerNorm((2, 3))).stream()


class Named(lc.Tanh):
    """A class of a user's that computes as Tanh does."""


class Twice(lc.Tanh):
    def __call__(self, x: Any) -> Any:
        return super().__call__(super().__call__(x))


class Half(lc.Linear):
    def forward(self, x: Any) -> Any:
        y, tape = super().forward(x)
        return y / 2, tape


class Whole(lc.Sequential):
    def __call__(self, x: Any) -> Any:  # type: ignore[override]
        return -super().__call__(x)


class Backwards(lc.GRU):
    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return super().forward(x[::-1])


def test_a_class_of_a_users_own_computes_as_its_base_does_or_is_refused() -> None:
    x, gru = numbers(5, 1, 3), lc.GRU(3, 4, seed=0)
    found = lc.Sequential(gru, Named()).stream().process(x)
    assert_same_bits(found, lc.Sequential(gru, lc.Tanh()).stream().process(x))
    for module, own in ((Twice(), "__call__"), (Half(4, 4), "forward")):
        with pytest.raises(TypeError, match=f"module 1, .* whose own {own} a stream does not call"):
            lc.Sequential(gru, module).stream()
    for whole in (Whole(gru), Backwards(3, 4)):
        with pytest.raises(TypeError, match=r"module is a .* a stream does not call"):
            whole.stream()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("largest", [1.0, 88.0, 90.0, 700.0, 720.0, 1e4])
def test_a_softmax_of_large_scores(dtype: str, largest: float) -> None:
    """Whose exponentials overflow, or all vanish, unless the largest is taken off first."""
    model = lc.Sequential(lc.Linear(5, 5, bias=False, dtype=dtype), lc.Softmax())
    model.parameters()[0].data = np.eye(5)
    scores = np.array([0.0, -2.0, 0.5, -0.25, -1e4])
    for shift in (largest, -largest):
        expected = np.exp(scores) / np.exp(scores).sum()
        y = model.stream().step((scores + shift)[None].astype(dtype))[0]
        # Near 1e4 the scores themselves have few digits after the point.
        np.testing.assert_allclose(y, expected, atol=1e-3 if dtype == "float32" else 1e-11)
        assert y.sum() == pytest.approx(1, abs=1e-6)
    assert_same_bits(
        model.stream(2).step(np.full((2, 5), largest, dtype)), np.full((2, 5), 0.2, dtype)
    )
