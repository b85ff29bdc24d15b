"""Streams of networks of any shape."""

from __future__ import annotations

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore._base.tree import leaves, rebuilt

T, B = 9, 3


def numbers(*shape: int, dtype: Any = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


class Tied(lc.Module):
    """Scores of all words from the vectors that an Embedding has for them."""

    each_step = True

    def __init__(self, embedding: lc.Embedding) -> None:
        self.embedding = embedding

    def forward(self, x: Any) -> Any:
        # Row by row, as the bits of a product by BLAS depend on the number of rows.
        weight = self.embedding.parameters()[0].data.copy()
        return (x[..., None, :] * weight).sum(axis=-1), None


def residual_stack(**d: Any) -> tuple[Any, Any]:
    x = y = lc.Input(4)
    for i in range(3):
        inside = lc.Tanh()(lc.LSTM(4, 4, seed=i, **d)(lc.LayerNorm(4, **norm(d))(y))[0])
        y = y + lc.Dropout(0.5)(inside)
    return lc.Model(x, y), 4


def norm(d: dict[str, Any]) -> dict[str, Any]:
    return {"dtype": d.get("dtype", "float32")}


def two_inputs(**d: Any) -> tuple[Any, Any]:
    sequence, static = lc.Input(3), lc.Input(2, steps=False)
    x = lc.concat([sequence, lc.repeat(lc.ReLU()(static), like=sequence)])
    y, h = lc.GRU(5, 6, 2, seed=0, **d)(x)
    y = lc.Linear(6, 3, seed=1, **norm(d))(y) * sequence - 0.5 * y[..., :3] + 1
    outputs = {"steps": y, "rows": lc.Linear(6, 2, seed=2, **norm(d))(h[-1]), "states": h}
    return lc.Model([sequence, static], outputs), [3, (2,)]


def three_inputs(**d: Any) -> tuple[Any, Any]:
    """Words and numbers in a dict; a layer that two inputs share; a projection; the last step."""
    words, a, b = lc.Input(ids=True), lc.Input(3), lc.Input(3)
    embedding = lc.Embedding(7, 3, seed=0, **norm(d))
    shared = lc.LSTM(3, 5, proj_size=2, seed=1, **d)
    vectors = embedding(words)
    y = [shared(one)[0] for one in (vectors, a, b)]
    last = lc.LastStep()(lc.RNN(6, 4, seed=2, **d)(lc.concat(y))[0])
    scores = Tied(embedding)(y[0][..., :1] * vectors)
    return lc.Model({"words": words, "a": a, "b": b}, [scores, last]), {"words": 0, "a": 3, "b": 3}


def caption(**d: Any) -> tuple[Any, Any]:
    """The network gives the initial states, of what has no steps."""
    image, previous = lc.Input(4, steps=False), lc.Input(3)
    h = lc.Linear(4, 5, seed=0, **norm(d))(image)
    y, _ = lc.LSTM(3, 5, seed=1, **d)(previous, (h[None], None))
    y, _ = lc.GRU(5, 5, seed=2, **d)(y, lc.Tanh()(h)[None])
    y, _ = lc.RNN(5, 2, seed=3, **d)(y)
    return lc.Model([image, previous], y), [(4,), 3]


def convolutions(**d: Any) -> tuple[Any, Any]:
    """A residual network of causal ones, one of which is called twice; a layer between them."""
    x = lc.Input(4)
    conv = lc.Conv1D(4, 4, 3, padding="causal", dilation=2, seed=0, **norm(d))
    y = x + lc.GELU()(conv(x))
    y = lc.GRU(4, 4, seed=1, **d)(lc.BatchNorm(4, **norm(d))(y + conv(y)))[0]
    return lc.Model(x, y + lc.Conv1D(4, 4, 1, seed=2, **norm(d))(x)), 4


MODELS: dict[str, Callable[..., tuple[Any, Any]]] = {
    f.__name__: f for f in (residual_stack, two_inputs, three_inputs, caption, convolutions)
}
models = pytest.mark.parametrize("name", MODELS)


def given(sizes: Any, batch: int, dtype: Any = "float32") -> Any:
    """Time-major values for inputs of these sizes; tuples have no steps, 0 is ids."""
    if isinstance(sizes, dict):
        return {key: given(one, batch, dtype) for key, one in sizes.items()}
    if isinstance(sizes, list):
        return tuple(given(one, batch, dtype) for one in sizes)
    if sizes == 0:
        return np.random.default_rng(0).integers(0, 7, (T, batch))
    shape = (batch, *sizes) if isinstance(sizes, tuple) else (T, batch, sizes)
    return numbers(*shape, dtype=dtype, seed=len(shape))


def cut(x: Any, part: Any) -> Any:
    """Those steps of all that has steps: (T, ...)."""
    return rebuilt(x, (one[part] if len(one) == T else one for one in leaves(x)))


def swapped(x: Any, timed: list[bool]) -> Any:
    """(B, T, ...) of (T, B, ...), and the other way, of what is timed."""
    pairs = zip(leaves(x), timed, strict=True)
    return rebuilt(x, (one.swapaxes(0, 1) if steps else one for one, steps in pairs))


@models
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_outputs_are_those_of_the_model(isa: str, name: str, dtype: str, batch_first: bool) -> None:
    model, sizes = MODELS[name](dtype=dtype, batch_first=batch_first)

    plan = model._plan
    inputs = [axes.steps and batch_first for axes, _ in plan.given]
    outputs = [plan.axes[y].steps and batch_first for y in plan.last]

    def whole(x: Any) -> Any:
        y, state = model.run(swapped(x, inputs))
        return leaves(swapped(y, outputs)), state

    for batch in (1, B):
        x = given(sizes, batch, dtype)
        expected, final = whole(x)
        stream = model.stream(batch)
        for one, want in zip(leaves(stream.process(x)), expected, strict=True):
            assert_same_bits(one, want)
        states = [
            state
            for state, (step, _) in zip(stream.state, stream._calls, strict=True)
            if step.place is not None and not step.wired
        ]
        for one, want in zip(leaves(states), leaves(final), strict=True):
            assert_same_bits(one, want)
        stream.reset()
        done = 0
        for size in (1, 1, 3, 1, 0, 3):  # the same bits however it is cut
            block = cut(x, slice(done, done + size))
            y = stream.step(cut(x, done)) if size == 1 else stream.process(block)
            so_far = whole(cut(x, slice(0, done + size)))[0]
            for one, all_steps, till_now in zip(leaves(y), expected, so_far, strict=True):
                if len(all_steps) == T:
                    want = all_steps[done] if size == 1 else all_steps[done : done + size]
                elif size:
                    want = till_now
                else:
                    continue
                assert_same_bits(one, want)
            done += size
        assert done == T


@models
def test_rows_states_and_copies(name: str) -> None:
    model, sizes = MODELS[name]()
    x = given(sizes, B)
    stream, other = model.stream(B), model.stream(B)
    expected = [leaves(stream.process(cut(x, slice(0, 4)))), leaves(stream.step(cut(x, 4)))]
    other.process(cut(x, slice(0, 4)))
    saved = other.state
    copies = [other.copy(), copy.deepcopy(other), pickle.loads(pickle.dumps(other))]
    other.reset([1])
    y = leaves(other.step(cut(x, 4)))
    fresh = leaves(model.stream(B).step(cut(x, 4)))
    for one, went_on, began in zip(y, expected[1], fresh, strict=True):
        row = one.ndim - 2  # states have layers in front
        for r, want in enumerate((went_on, began, went_on)):
            assert_same_bits(one.take(r, row), want.take(r, row))
    for again in copies:
        assert_same_bits(leaves(again.step(cut(x, 4))), expected[1])
    other.state = saved
    assert_same_bits(leaves(other.step(cut(x, 4))), expected[1])
    other.state = None
    assert_same_bits(leaves(other.process(cut(x, slice(0, 4)))), expected[0])
    other.state = saved
    other.reset(np.array([True, True, True]))
    assert_same_bits(leaves(other.process(cut(x, slice(0, 4)))), expected[0])


def test_states_that_the_network_gives() -> None:
    model, sizes = caption()
    x = given(sizes, B)
    stream = model.stream(B)
    assert [None if s is None else np.shape(s) for s in stream.state] == [None, None, (1, B, 2)]
    stream.step(cut(x, 0))
    (h, c), gru, rnn = stream.state
    assert (h.shape, c.shape, gru.shape, rnn.shape) == ((1, B, 5),) * 3 + ((1, B, 2),)
    other = model.stream(B)
    other.state = [(h, c), gru, None]
    mixed = other.step(cut(x, 1))
    other.state = [(h, c), gru, rnn]
    assert_same_bits(other.step(cut(x, 1)), stream.copy().step(cut(x, 1)))
    assert not np.array_equal(mixed, stream.step(cut(x, 1)))
    stream.reset(2)
    with pytest.raises(RuntimeError, match=r"state\[0\] is not known for rows \[2\]"):
        _ = stream.state
    again = pickle.loads(pickle.dumps(stream))
    assert_same_bits(again.step(cut(x, 2)), stream.step(cut(x, 2)))


def test_a_batch_of_one_without_its_axis() -> None:
    for make in MODELS.values():
        model, sizes = make()
        x = given(sizes, 1)
        alone = rebuilt(x, (a[:, 0] if a.shape[0] == T else a[0] for a in leaves(x)))
        expected = leaves(model.stream().process(x))
        stream = model.stream()
        blocks = leaves(stream.process(alone))
        stream.reset()
        steps = [leaves(stream.step(cut(alone, t))) for t in range(T)]
        for i, want in enumerate(expected):
            want = want[:, 0] if len(want) == T or want.ndim == 3 else want[0]
            assert_same_bits(blocks[i], want)
            if len(expected[i]) == T:
                assert_same_bits(np.stack([one[i] for one in steps]), want)
            else:
                assert_same_bits(steps[-1][i], want)


def test_inputs_one_by_one_and_as_a_structure() -> None:
    model, sizes = two_inputs()
    a, b = given(sizes, B)
    streams = [model.stream(B) for _ in range(3)]
    y = [streams[0].step(a[0], b), streams[1].step((a[0], b)), streams[2].step([a[0], b])]
    assert y[0].keys() == {"steps", "rows", "states"}
    for other in y[1:]:
        assert_same_bits(leaves(y[0]), leaves(other))
    assert isinstance(streams[0].process(a, b)["steps"], np.ndarray)


def test_errors_change_nothing() -> None:
    model, sizes = three_inputs()
    x = given(sizes, B)
    stream = model.stream(B)
    stream.process(cut(x, slice(0, 2)))
    before = stream.state
    first = cut(x, 2)
    for bad, error, message in [
        ({**first, "words": np.array([0, 7, 1])}, ValueError, "7"),  # b has been read by then
        (
            {**first, "a": numbers(B, 4)},
            ValueError,
            r"x\['a'\] has shape \(3, 4\), expected \(3, 3\)",
        ),
        ({**first, "a": numbers(2, 3)}, ValueError, r"x\['a'\] has shape \(2, 3\)"),
        ({**first, "words": np.zeros((1, B), int)}, ValueError, r"expected ids, \(3,\)"),
        ({**first, "words": np.zeros(B)}, TypeError, "integers"),
        ({**first, "a": numbers(B, 3, dtype="float64")}, TypeError, "float64"),
        ({"a": first["a"]}, ValueError, "expected a dict of 'words', 'a', 'b'"),
    ]:
        with pytest.raises(error, match=message):
            stream.step(bad)
        assert_same_bits(leaves(stream.state), leaves(before))
    with pytest.raises(ValueError, match=r"x\['a'\] has 2 steps, expected 3, as x\['words'\]"):
        stream.process({**cut(x, slice(0, 3)), "a": x["a"][:2]})
    with pytest.raises(ValueError, match=r"x\['words'\] .* \(9, 2\), expected ids, \(T, 3\)"):
        stream.process({**x, "words": x["words"][:, :2]})
    one = model.stream()
    with pytest.raises(ValueError, match=r"x\['a'\] has shape \(1, 3\), expected \(3,\)"):
        one.step({"words": 1, "a": numbers(1, 3), "b": numbers(3)})
    for state, error, message in [
        (before[0], ValueError, "state has 2 entries, expected a tuple of 4, one per layer"),
        (1, TypeError, "state is 1"),
        ((before[0], before[1], before[2], before[3][:, :1]), ValueError, r"state\[3\] has shape"),
    ]:
        with pytest.raises(error, match=message):
            stream.state = state
        assert_same_bits(leaves(stream.state), leaves(before))
    with pytest.raises(ValueError, match="rows is 3, expected 0 to 2"):
        stream.reset(3)
    for size, error in ((0, ValueError), (2**31, ValueError), ("3", TypeError)):
        with pytest.raises(error, match="batch_size is"):
            model.stream(size)


def test_what_it_gives_is_the_callers() -> None:
    x = lc.Input(3)
    y, h = lc.GRU(3, 4, seed=0)(x)
    model = lc.Model(x, [y, h])
    values = numbers(T, B, 3)
    stream, other = model.stream(B), model.stream(B)
    for t in range(3):
        expected = other.step(values[t])
        got = stream.step(values[t])
        assert_same_bits(got, expected)
        for one in (*got, *leaves(stream.state)):
            one[...] = 7


def test_the_weights_are_those_of_when_it_was_made() -> None:
    for name, make in MODELS.items():
        model, sizes = make()
        x = given(sizes, B)
        stream, second = model.stream(B), model.stream(B)
        shared = stream._model is second._model  # type: ignore[union-attr]
        assert shared == (name != "three_inputs")  # a module of somebody else's may change unseen
        expected = leaves(model.stream(B).process(x))
        before = model.state_dict()
        for p in model.parameters():
            p.data *= 2
        assert_same_bits(leaves(stream.process(x)), expected)
        later = leaves(model.stream(B).process(x))
        assert not all(np.array_equal(a, b) for a, b in zip(later, expected, strict=True))
        model.load_state_dict(before)
        assert_same_bits(leaves(model.stream(B).process(x)), expected)
        held = model.parameters()[0].data  # who holds it may write to it
        kept = model.stream(B)
        held += 1
        assert_same_bits(leaves(kept.process(x)), expected)
        changed = leaves(model.stream(B).process(x))
        assert not all(np.array_equal(a, b) for a, b in zip(changed, expected, strict=True))
        assert pickle.loads(pickle.dumps(model)) == copy.deepcopy(model) == model


def test_one_thread_at_a_time() -> None:
    inside, go = threading.Event(), threading.Event()

    class Waits(lc.Module):
        each_step = True

        def __call__(self, x: Any) -> Any:
            inside.set()
            assert go.wait(60)
            return x

        def forward(self, x: Any) -> Any:
            return x, None

        def __deepcopy__(self, memo: Any) -> Any:
            return self

    x = lc.Input(2)
    waits = Waits()
    waits_of = lc.Linear(2, 2, seed=0)(x)
    go.set()
    model = lc.Model(x, waits(waits_of) + x)
    stream = model.stream()
    go.clear()
    inside.clear()
    thread = threading.Thread(target=lambda: stream.step(np.ones(2, "float32")))
    thread.start()
    assert inside.wait(60)
    for call in (
        lambda: stream.step(np.ones(2, "float32")),
        stream.reset,
        lambda: setattr(stream, "state", None),
    ):
        with pytest.raises(RuntimeError, match="in use by another thread"):
            call()
    go.set()
    thread.join(60)
    stream.step(np.ones(2, "float32"))


def test_chains_with_modules_of_your_own() -> None:
    embedding = lc.Embedding(7, 4, seed=0)
    ids = lc.Input(ids=True)
    model = lc.Model(ids, Tied(embedding)(lc.GRU(4, 4, seed=1)(embedding(ids))[0]))
    values = given(0, B)
    stream = model.stream(B)
    assert_same_bits(np.stack([stream.step(one) for one in values]), model(values))

    class Same(lc.Linear):
        each_step = True

        def forward(self, x: Any) -> Any:
            return super().forward(x)

    class Other(Same):
        def __call__(self, x: Any) -> Any:  # type: ignore[override]
            return super().__call__(x)

    x = lc.Input(4)
    y, _ = lc.GRU(4, 4, seed=1)(x)
    model = lc.Model(x, Same(4, 2, seed=0)(y))
    assert_same_bits(model.stream(B).process(numbers(T, B, 4)), model(numbers(T, B, 4)))
    with pytest.raises(TypeError, match=r"module other, Other\(4, 2\), cannot be streamed"):
        lc.Model(x, Other(4, 2)(y)).stream()


REFUSED: dict[str, tuple[Callable[[Any], Any], type[Exception], str]] = {
    "bidirectional": (
        lambda x: x + lc.GRU(3, 3, bidirectional=True, merge="sum")(x)[0],
        ValueError,
        r"module gru, GRU\(3, 3, .*\), needs the whole sequence",
    ),
    "flip": (
        lambda x: x + lc.Flip()(x), ValueError, r"module flip, Flip\(\), needs the whole sequence"
    ),
    "mean": (
        lambda x: [lc.MeanPool()(x), x + 1],
        ValueError,
        r"module meanpool, MeanPool\(\), needs the whole sequence",
    ),
    "masking": (
        lambda x: x + lc.GRU(3, 3)(lc.Masking()(x)[0])[0],
        ValueError,
        r"module masking, Masking\(\), needs the whole sequence",
    ),
    "repeat": (
        lambda x: x + lc.repeat(lc.GRU(3, 3)(x)[1][-1], like=x),
        ValueError,
        "repeat takes what comes of all steps back into them",
    ),
    "last step": (
        lambda x: x + lc.repeat(lc.LastStep()(x), like=x),
        ValueError,
        "repeat takes what comes of all steps",
    ),
    "decoder": (
        lambda x: lc.LSTM(3, 4)(x, lc.LSTM(3, 4)(x)[1])[0],
        ValueError,
        r"module lstm_1, LSTM\(3, 4\), takes what comes of all steps back into them",
    ),
    "attention": (
        lambda x: lc.attention.ScaledDotProduct()(x, x, x)[0] + x,
        TypeError,
        r"module scaleddotproduct, ScaledDotProduct\(\), cannot be streamed: it may need other",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_reads_ahead_is_refused_by_name(name: str) -> None:
    make, error, message = REFUSED[name]
    x = lc.Input(3)
    with pytest.raises(error, match=message):
        lc.Model(x, make(x)).stream()


def test_the_past_steps_of_a_convolution() -> None:
    """They are a state that can be read, set and reset."""
    x = lc.Input(2)
    model = lc.Model(x, x + lc.Conv1D(2, 2, 3, padding="causal", dilation=2, seed=0)(x))
    values = numbers(T, B, 2)
    stream = model.stream(B)
    stream.process(values[:5])
    (past,) = stream.state
    assert_same_bits(past, values[1:5])
    other = model.stream(B)
    other.state = (past,)
    expected = model(values)[5:]
    assert_same_bits(other.process(values[5:]), expected)
    stream.reset([1])
    y = stream.process(values[5:])
    assert_same_bits(y[:, 0], expected[:, 0])
    assert_same_bits(y[:, 1], model(values[5:])[:, 1])
    with pytest.raises(ValueError, match=r"state\[0\] has shape \(3, 3, 2\), expected"):
        stream.state = (past[1:],)
    with pytest.raises(ValueError, match=r"module conv1d, Conv1D\(2, 2, 3\), needs the whole"):
        lc.Model(x, [x + 1, lc.Conv1D(2, 2, 3)(x)]).stream()


def test_norms_over_more_than_features_are_refused() -> None:
    x = lc.Input(3)
    model = lc.Model(x, x + lc.LayerNorm((B, 3))(x))
    with pytest.raises(TypeError, match=r"LayerNorm\(\(3, 3\)\), cannot be streamed"):
        model.stream(B)


def test_a_sequential_with_such_a_model_says_how() -> None:
    x = lc.Input(3)
    block = lc.Model(x, x + lc.GRU(3, 3, seed=0)(x)[0])
    sequential = lc.Sequential(block, lc.LSTM(3, 2, seed=1))
    with pytest.raises(ValueError, match=r"stream the lc\.Model of what comes of it"):
        sequential.stream()
    values = numbers(T, B, 3)
    stream = lc.Model(x, sequential(x)).stream(B)
    assert_same_bits(stream.process(values), sequential(values))
