"""Generating, the samplers, the baselines that generate too, and the state-space view."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore.baselines import AR, Markov, SeasonalNaive
from lstmcore.sampling import greedy, temperature, top_k

Array = np.ndarray[Any, np.dtype[Any]]


def language(batch_first: bool = False, dtype: str = "float64") -> lc.Sequential:
    """Return a model that says something else after each prompt: its weights are large."""
    model = lc.Sequential(
        lc.Embedding(7, 4, dtype=dtype, seed=5),
        lc.LSTM(4, 6, num_layers=2, batch_first=batch_first, dtype=dtype, seed=6),
        lc.Linear(6, 7, dtype=dtype, seed=7),
    )
    for p in model.parameters():
        p.data *= 4
    return model


def assert_all_differ(rows: Array) -> None:
    """Else a test could not tell whose row it sees."""
    assert len({row.tobytes() for row in np.ascontiguousarray(rows)}) == len(rows)


def series(batch_first: bool = False) -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(2, 6, batch_first=batch_first, dtype="float64", seed=0),
        lc.Linear(6, 2, dtype="float64", seed=1),
    )


# Generating -----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_tokens_are_those_of_reading_everything_again(batch_first: bool) -> None:
    model = language(batch_first)
    prompt = np.random.default_rng(0).integers(0, 7, (3, 4) if batch_first else (4, 3))
    axis = 1 if batch_first else 0
    text = prompt
    for _ in range(6):
        y = model(text)
        text = np.concatenate([text, y.take([-1], axis).argmax(axis=-1)], axis)
    found = lc.generate(model, prompt, 6)
    assert_all_differ(found if batch_first else found.T)
    assert found.dtype == np.int64
    assert np.array_equal(found, text.take(range(4, 10), axis))
    assert np.array_equal(lc.generate(model, prompt, 6, "greedy"), found)
    one = lc.generate(model, prompt[0] if batch_first else prompt[:, 0], 6)
    assert np.array_equal(one, found[0] if batch_first else found[:, 0])


@pytest.mark.parametrize("batch_first", [False, True])
def test_values_are_fed_back(batch_first: bool) -> None:
    model = series(batch_first)
    prompt = np.random.default_rng(1).standard_normal((3, 5, 2) if batch_first else (5, 3, 2))
    axis = 1 if batch_first else 0
    whole = prompt
    for _ in range(4):
        whole = np.concatenate([whole, model(whole).take([-1], axis)], axis)
    found = lc.generate(model, prompt, 4)
    np.testing.assert_allclose(found, whole.take(range(5, 9), axis), atol=1e-12)
    one = lc.generate(model, prompt[0] if batch_first else prompt[:, 0], 4)
    np.testing.assert_allclose(one, found[0] if batch_first else found[:, 0], atol=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_prompts_of_different_lengths(batch_first: bool) -> None:
    model = language(batch_first)
    rng = np.random.default_rng(2)
    prompts = [rng.integers(0, 7, n) for n in (5, 1, 3)]
    padded = lc.data.pad(prompts, padding=6, batch_first=batch_first)
    found = lc.generate(model, padded, 5, lengths=[5, 1, 3])
    assert_all_differ(found if batch_first else found.T)
    whole = lc.generate(model, padded, 5)
    for i, prompt in enumerate(prompts):
        row, unmasked = (a[i] if batch_first else a[:, i] for a in (found, whole))
        assert np.array_equal(row, lc.generate(model, prompt, 5))
        assert np.array_equal(row, unmasked) == (len(prompt) == 5)


def test_the_last_step_of_a_pooling_model_is_enough() -> None:
    pooled = lc.Sequential(*series()[:1], lc.LastStep(), series()[1])
    prompt = np.random.default_rng(3).standard_normal((5, 3, 2))
    expected = lc.generate(series(), prompt, 4)
    np.testing.assert_allclose(lc.generate(pooled, prompt, 4), expected, atol=1e-12)


def test_one_hot_tokens() -> None:
    model = lc.Sequential(lc.GRU(5, 8, seed=0), lc.Linear(8, 5, seed=1))
    prompt = np.array([[1, 2], [4, 0]])
    text = prompt
    for _ in range(3):
        y = model(np.eye(5, dtype="float32")[text])
        text = np.concatenate([text, y[-1:].argmax(axis=-1)])
    assert np.array_equal(lc.generate(model, prompt, 3), text[2:])


def test_the_state_before_the_prompt_counts() -> None:
    model = language()
    prompt = np.array([1, 2, 3, 4, 5])
    _, state = model.run(prompt[:3])
    expected = lc.generate(model, prompt, 4)
    assert np.array_equal(lc.generate(model, prompt[3:], 4, state=state), expected)
    assert not np.array_equal(lc.generate(model, prompt[3:], 4), expected)


def test_a_sampler_of_ones_own() -> None:
    model = language()
    seen = []

    def sample(scores: Array) -> Array:
        seen.append(scores.shape)
        return np.array([3])

    assert lc.generate(model, [1, 2], 4, sample).tolist() == [3, 3, 3, 3]
    assert seen == [(1, 7)] * 4
    doubled = lc.generate(series(), np.ones((3, 2)), 1, lambda y: 2 * y)
    np.testing.assert_allclose(doubled, 2 * lc.generate(series(), np.ones((3, 2)), 1))


def test_values_may_be_lists_and_samplers_may_change_the_dtype() -> None:
    model = lc.Sequential(lc.GRU(2, 8, seed=4), lc.Linear(8, 2, seed=5))
    prompt = [[0.5, 1.0], [1.5, 2.0]]
    expected = lc.generate(model, np.array(prompt, "f4"), 3)
    assert np.array_equal(lc.generate(model, prompt, 3), expected)
    noise = np.random.default_rng(0)
    found = lc.generate(model, prompt, 3, lambda y: y + 0 * noise.standard_normal(y.shape))
    assert found.dtype == np.float32
    assert np.array_equal(found, expected)


def test_stopping() -> None:
    tokens = iter([[1, 2], [0, 3], [4, 0], [5, 5]])
    prompt = np.ones((2, 2), int)
    found = lc.generate(language(), prompt, 9, lambda scores: np.array(next(tokens)), stop=0)
    assert found.T.tolist() == [[1, 0, 0], [2, 3, 0]]


# Sampling -------------------------------------------------------------------------------------


@pytest.mark.parametrize("t", [0.5, 1.0, 2.0])
@pytest.mark.parametrize("k", [None, 2])
def test_samplers_draw_from_their_distribution(t: float, k: int | None) -> None:
    scores = np.array([0.0, 1.0, -1.0, 2.0])
    p = np.exp(scores / t)
    if k is not None:
        p[[0, 2]] = 0
    p /= p.sum()
    sampler = temperature(t, seed=0) if k is None else top_k(k, t, seed=0)
    draws = sampler(np.tile(scores, (20000, 1)))
    found = np.bincount(draws, minlength=4) / 20000
    np.testing.assert_allclose(found, p, atol=5 * np.sqrt(0.25 / 20000))


def test_samplers_repeat_themselves_with_a_seed() -> None:
    scores = np.random.default_rng(0).standard_normal((50, 9))
    assert np.array_equal(temperature(seed=3)(scores), temperature(seed=3)(scores))
    assert not np.array_equal(temperature(seed=3)(scores), temperature(seed=4)(scores))
    assert np.array_equal(top_k(1)(scores), greedy()(scores))
    assert np.array_equal(top_k(99, seed=1)(scores), temperature(seed=1)(scores))
    assert np.array_equal(temperature(1e-9)(scores.astype("float32")), greedy()(scores))


# Baselines ------------------------------------------------------------------------------------


def test_ar_finds_the_coefficients() -> None:
    rng = np.random.default_rng(0)
    a = np.array([[[0.5, 0.1], [-0.2, 0.3]], [[0.2, 0.0], [0.1, -0.4]]])
    x = np.zeros((400, 2))
    for t in range(2, 400):
        x[t] = a[0] @ x[t - 1] + a[1] @ x[t - 2] + [1.0, -1.0] + 1e-3 * rng.standard_normal(2)
    ar = AR(2).fit(x)
    assert ar.coefficients is not None
    np.testing.assert_allclose(ar.coefficients, a, atol=0.05)
    y = ar(x)
    assert np.isnan(y[:1]).all()
    expected = [ar.coefficients[0] @ x[t] + ar.coefficients[1] @ x[t - 1] for t in range(1, 400)]
    np.testing.assert_allclose(y[1:], expected + ar.intercept, atol=1e-12)
    assert np.abs(y[1:-1] - x[2:]).max() < 0.01


@pytest.mark.parametrize("shape", [(40, 2), (40, 3, 2)])
def test_windows_remember_what_they_need(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(1).standard_normal(shape)
    for model in (AR(3).fit(x), SeasonalNaive(5)):
        whole = model(x)
        state, parts = None, []
        for part in np.split(x, [1, 2, 9, 30]):
            y, state = model.run(part, state)
            parts.append(y)
        np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-12)
        assert not np.isnan(whole[model.size - 1 :]).any()


def test_seasonal_naive_repeats_the_season() -> None:
    x = np.random.default_rng(2).standard_normal((12, 2, 1))
    found = lc.generate(SeasonalNaive(4), x, 6)
    assert np.array_equal(found, np.concatenate([x[-4:], x[-4:-2]]))
    assert np.array_equal(SeasonalNaive()(x), x)


def test_markov_counts_pairs() -> None:
    text = np.array([0, 1, 0, 2, 1, 0, 1])
    chain = Markov(3, smoothing=0.5).fit(text)
    counts = np.zeros((3, 3))
    for i, j in itertools.pairwise(text):
        counts[i, j] += 1
    expected = (counts + 0.5) / (counts.sum(axis=1, keepdims=True) + 1.5)
    np.testing.assert_allclose(np.exp(chain.log_probabilities), expected, rtol=1e-12)
    assert chain(text[:, None]).shape == (7, 1, 3)
    loss = lc.losses.cross_entropy(chain(text[:-1]), text[1:])[0]
    assert loss == pytest.approx(-np.log(expected[text[:-1], text[1:]]).mean())
    columns = Markov(3).fit(np.stack([text, text[::-1]], axis=1))
    assert columns.log_probabilities.shape == (3, 3)
    assert lc.generate(chain, [[0, 1]], 3).shape == (3, 2)


# State space ----------------------------------------------------------------------------------


MODELS: dict[str, Callable[[], Any]] = {
    "lstm": lambda: lc.LSTM(3, 4, num_layers=2, dtype="float64", seed=0),
    "projected": lambda: lc.LSTM(3, 4, num_layers=2, proj_size=2, dtype="float64", seed=0),
    "gru": lambda: lc.GRU(3, 4, dtype="float64", seed=0),
    "rnn": lambda: lc.RNN(3, 4, num_layers=3, dtype="float64", seed=0),
    "sequential": lambda: lc.Sequential(
        lc.Linear(3, 5, dtype="float64", seed=0),
        lc.GRU(5, 4, dtype="float64", seed=1),
        lc.Tanh(),
        lc.LSTM(4, 6, num_layers=2, dtype="float64", seed=2),
        lc.Linear(6, 2, dtype="float64", seed=3),
    ),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("shape", [(9, 3), (9, 2, 3)])
def test_a_state_space_view_is_the_model(name: str, shape: tuple[int, ...]) -> None:
    model = MODELS[name]()
    u = np.random.default_rng(0).standard_normal(shape)
    whole = model(u) if name == "sequential" else model(u)[0]
    system = lc.StateSpace.of(model)
    x, y = system.simulate(u)
    np.testing.assert_allclose(y, whole, atol=1e-12)
    assert x.shape == (10, *shape[1:-1], system.size)
    # From the middle on, with the state that it had there.
    _, rest = system.simulate(u[4:], x[4])
    np.testing.assert_allclose(rest, whole[4:], atol=1e-12)
    np.testing.assert_allclose(system.f(x[4], u[4]), x[5], atol=1e-12)


def test_a_state_space_view_takes_lists() -> None:
    u = [[0.5, 1.0], [1.5, 2.0]]
    system = lc.StateSpace.of(lc.GRU(2, 3, seed=0))
    for found, expected in zip(system.simulate(u), system.simulate(np.array(u, "f4"))):
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, expected)


def test_a_state_space_view_has_the_layers_states() -> None:
    lstm = MODELS["lstm"]()
    u = np.random.default_rng(1).standard_normal((5, 2, 3))
    _, (h, c) = lstm(u)
    x, _ = lc.StateSpace.of(lstm).simulate(u)
    expected = np.concatenate([h[0], h[1], c[0], c[1]], axis=-1)
    np.testing.assert_allclose(x[-1], expected, atol=1e-12)


@pytest.mark.parametrize("kind", [lc.RNNCell, lc.GRUCell, lc.LSTMCell])
def test_a_state_space_view_of_a_cell(kind: Any) -> None:
    cell = kind(3, 4, dtype="float64", seed=0)
    layer = getattr(lc, kind.__name__.removesuffix("Cell"))(3, 4, dtype="float64", seed=0)
    layer.load_state_dict({f"{name}_l0": w for name, w in cell.state_dict().items()})
    u = np.random.default_rng(2).standard_normal((6, 2, 3))
    _, y = lc.StateSpace.of(cell).simulate(u)
    np.testing.assert_allclose(y, layer(u)[0], atol=1e-12)


def test_linear_systems() -> None:
    rng = np.random.default_rng(3)
    a, b, c = rng.random((3, 3)) * 0.3, rng.random((3, 2)), rng.random((1, 3))
    u = rng.random((8, 2))
    x, y = lc.StateSpace.linear(a, b, c).simulate(u)
    state = np.zeros(3)
    for t in range(8):
        state = a @ state + b @ u[t]
        np.testing.assert_allclose(x[t + 1], state)
        np.testing.assert_allclose(y[t], c @ state)


# Bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.generate(None, [1], 2), TypeError, "model is None"),
        (lambda: lc.generate(language(), [1], 0), ValueError, "steps is 0"),
        (lambda: lc.generate(language(), [1.0], 2), TypeError, "prompt has dtype float64"),
        (lambda: lc.generate(language(), np.zeros(0, int), 2), ValueError, "prompt is empty"),
        (lambda: lc.generate(language(), [], 2), ValueError, "prompt is empty"),
        (lambda: lc.generate(language(), [7], 2), ValueError, "7"),
        (lambda: lc.generate(language(), [1], 2, "random"), TypeError, "sample is 'random'"),
        (
            lambda: lc.generate(language(), [1], 2, lambda s: s),
            ValueError,
            "sample gives .* expected ids",
        ),
        (
            lambda: lc.generate(language(), [[1, 2]], 2, lengths=[1, 0]),
            ValueError,
            "lengths has 0",
        ),
        (lambda: lc.generate(language(), [1], 2, lengths=[1]), ValueError, "has no batch"),
        (
            lambda: lc.generate(series(), np.ones((3, 2), "f4"), 2),
            TypeError,
            "prompt has dtype float32, expected float64",
        ),
        (
            lambda: lc.generate(series(), np.ones((3, 2)), 2, lambda y: np.ones((7, 2))),
            ValueError,
            r"sample gives a ndarray of shape \(7, 2\) of dtype float64, expected numbers \(1, F\)",
        ),
        (lambda: lc.generate(series(), np.ones((3, 2)), 2, stop=1), ValueError, "stop is 1"),
        (lambda: lc.generate(series(), np.ones(3), 2), ValueError, r"prompt has shape \(3,\)"),
        (lambda: lc.generate(series(), [2, 3], 2), ValueError, "the token 2 has no place in 2"),
        (
            lambda: lc.generate(lc.GRU(2, 2, bidirectional=True), np.ones((3, 2), "f4"), 2),
            ValueError,
            "needs the whole sequence",
        ),
        (
            lambda: lc.generate(
                lc.Sequential(lc.GRU(2, 2), lc.MeanPool()), np.ones((3, 2), "f4"), 2
            ),
            ValueError,
            r"MeanPool\(\) needs the whole sequence",
        ),
        (lambda: lc.generate(SeasonalNaive(4), np.ones((3, 1)), 2), ValueError, "too short"),
        (lambda: lc.generate(Markov(3).fit([1, 2]), [1], 2, stop="x"), TypeError, "stop is 'x'"),  # type: ignore[arg-type]
        (lambda: lc.generate(Markov(3).fit([1, 2]), [1], 2, stop=-1), ValueError, "stop is -1"),
        (lambda: lc.generate(Markov(3).fit([1, 2]), [[1], [1, 2]], 2), TypeError, "prompt is not"),
        (
            lambda: lc.generate(Markov(3).fit([1, 2]), [[1], [1]], 2, lengths=[3]),
            ValueError,
            r"lengths\[0\] is 3, expected 0 to 2, the time steps of prompt",
        ),
        (lambda: lc.generate(lc.Sequential, [1], 2), TypeError, "model is <class"),
        (lambda: greedy()([[1.0], [1.0, 2.0]]), TypeError, "scores is not an array"),
        (lambda: temperature(0), ValueError, "t is 0"),
        (lambda: top_k(0), ValueError, "k is 0"),
        (lambda: AR(0), ValueError, "order is 0"),
        (lambda: AR(3)(np.ones((5, 1))), ValueError, "call fit first"),
        (lambda: AR(3).fit(np.ones(5)), ValueError, "2 windows of 3 .* at least 4"),
        (lambda: AR(1).fit([0.0, np.nan, 1.0, 2.0]), ValueError, "x has NaN"),
        (lambda: AR(1).fit(np.ones(9))(np.ones((5, 2))), ValueError, "x has 2 features"),
        (lambda: AR(1).fit(["a"]), ValueError, "x is"),
        (
            lambda: SeasonalNaive(2).run([[1.0]], [[2.0, 3.0]]),
            ValueError,
            r"state has shape \(1, 2\), expected \(T, 1\), like x",
        ),
        (lambda: SeasonalNaive(0), ValueError, "period is 0"),
        (lambda: Markov(0), ValueError, "num_tokens is 0"),
        (lambda: Markov(3, smoothing=0), ValueError, "smoothing is 0"),
        (lambda: Markov(3).fit([1]), ValueError, "expected at least two steps"),
        (lambda: Markov(3).fit([1, 3]), ValueError, "x has id 3, expected 0 to 2"),
        (lambda: Markov(3)([0.5]), TypeError, "x has dtype float64"),
        (lambda: lc.StateSpace(3), TypeError, "f is 3"),  # type: ignore[arg-type]
        (lambda: lc.StateSpace(max).simulate([[1.0]]), ValueError, "x0 is not given"),
        (lambda: lc.StateSpace(max, size=2).simulate([]), ValueError, "u has shape"),
        (lambda: lc.StateSpace.linear([[1.0]], [[1.0], [2.0]]), ValueError, "a, b, c have shapes"),
        (lambda: lc.StateSpace.linear(1.0, 1.0), ValueError, "a, b, c have shapes"),
        (lambda: lc.StateSpace.of(lc.Linear(2, 2)), TypeError, "model is Linear"),
        (
            lambda: lc.StateSpace.of(lc.Sequential(lc.GRU(2, 2), lc.LastStep())),
            ValueError,
            r"LastStep\(\) needs the whole sequence",
        ),
        (
            lambda: lc.StateSpace.of(lc.Sequential(lc.Linear(2, 2))),
            ValueError,
            "has no recurrent layer",
        ),
        (
            lambda: lc.StateSpace.of(lc.GRU(2, 2, reverse=True)),
            ValueError,
            "needs the whole sequence",
        ),
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
