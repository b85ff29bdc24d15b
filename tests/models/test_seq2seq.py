"""Encoder-decoder: gradients by finite differences, searches by brute force, learning by doing."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient
from lstmcore.losses import cross_entropy

Array = np.ndarray[Any, np.dtype[Any]]
Attention: Any = lc.attention.ScaledDotProduct


def make(
    attention: str | None = "dot",
    *,
    kind: Any = lc.GRU,
    batch_first: bool = False,
    carry_state: bool = True,
    values: bool = False,
    dtype: str = "float64",
    dropout: float = 0.0,
    vocabulary: int = 5,
    hidden: int = 4,
    bidirectional: bool = False,
) -> lc.Seq2Seq:
    options: Any = {"batch_first": batch_first, "dtype": dtype}
    first = [] if values else [lc.Embedding(6, 3, dtype=dtype, seed=0)]
    size = hidden * (2 if bidirectional else 1)
    encoder = lc.Sequential(
        *first,
        lc.Dropout(dropout, seed=7),
        kind(3, hidden, bidirectional=bidirectional, seed=1, **options),
    )
    decoder = lc.Sequential(
        lc.Embedding(vocabulary, 3, dtype=dtype, seed=2), kind(3, size, seed=3, **options)
    )
    modules = {
        None: None,
        "dot": Attention(batch_first=batch_first),
        "heads": lc.attention.MultiHead(size, 2, batch_first=batch_first, dtype=dtype, seed=5),
    }
    wide = size if attention is None else 2 * size
    head = lc.Linear(wide, vocabulary, dtype=dtype, seed=4)
    return lc.Seq2Seq(encoder, decoder, head, modules[attention], carry_state=carry_state)


def batch(batch_first: bool = False, values: bool = False) -> tuple[Any, Array, Any]:
    rng = np.random.default_rng(0)
    source = rng.standard_normal((5, 3, 3)) if values else rng.integers(0, 6, (5, 3))
    previous, target = rng.integers(0, 5, (2, 4, 3))
    if batch_first:
        source, previous, target = (a.swapaxes(0, 1) for a in (source, previous, target))
    return (source, previous), target, (np.array([5, 2, 4]), np.array([4, 3, 1]))


# Gradients ------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"attention": None},
        {"attention": None, "kind": lc.LSTM, "values": True},
        {"attention": "dot"},
        {"attention": "dot", "kind": lc.LSTM, "values": True},
        {"attention": "heads"},
        {"attention": "dot", "bidirectional": True, "carry_state": False},
    ],
)
def test_gradients_are_those_of_finite_differences(
    options: dict[str, Any], batch_first: bool
) -> None:
    model = make(**options, batch_first=batch_first)
    x, target, lengths = batch(batch_first, options.get("values", False))

    def loss(source: Any = None) -> float:
        given = x if source is None else (source, x[1])
        scores = model(given, lengths=lengths)
        return cross_entropy(scores, target, lengths[1], batch_first=batch_first)[0]

    scores, tape = model.forward(x, lengths=lengths)
    assert_same_bits(scores, model(x, lengths=lengths))
    value, dscores = cross_entropy(scores, target, lengths[1], batch_first=batch_first)
    assert value == loss()
    dsource, dprevious = model.backward(tape, dscores)
    assert dprevious is None
    for name, p in model.named_parameters():
        expected = parameter_gradient(p, loss)
        np.testing.assert_allclose(p.grad, expected, atol=1e-8, err_msg=name)
        assert p.grad.any(), name
    if options.get("values"):
        expected = numeric_gradient(loss, x[0])
        np.testing.assert_allclose(dsource, expected, atol=1e-8)
    else:
        assert dsource is None


def test_the_padding_changes_nothing() -> None:
    model = make()
    (source, previous), _, lengths = batch()
    scores = model((source, previous), lengths=lengths)
    for row in range(3):
        n, m = lengths[0][row], lengths[1][row]
        alone = model((source[:n, row : row + 1], previous[:m, row : row + 1]))
        np.testing.assert_allclose(alone[:, 0], scores[:m, row], atol=1e-12)


def test_attention_weights_are_looked_at() -> None:
    x, _, lengths = batch()
    weights = make().attention_weights(x, lengths=lengths)
    assert weights.shape == (3, 4, 5)
    np.testing.assert_allclose(weights.sum(axis=-1), 1)
    assert not weights[1, :, 2:].any()


@pytest.mark.parametrize("batch_first", [False, True])
def test_attention_does_not_look_at_what_the_encoder_has_masked(batch_first: bool) -> None:
    plain = make(batch_first=batch_first)
    masking = lc.Masking(5, ids=True)
    masked = lc.Seq2Seq(
        lc.Sequential(masking, plain.encoder), plain.decoder, plain.head, plain.attention
    )
    (source, previous), _, lengths = batch(batch_first)
    rows = source if batch_first else source.T
    rows[rows == 5] = 4
    for row, n in zip(rows, lengths[0], strict=True):
        row[n:] = 5
    x = source, previous
    expected = plain(x, lengths=lengths)
    given = (None, lengths[1])
    assert_same_bits(masked(x, lengths=given), expected)
    assert_same_bits(masked.forward(x, lengths=given)[0], expected)
    for search in ("greedy", "beam_search"):
        options = {"start": 0, "end": 1, "max_steps": 4}
        found = getattr(masked, search)(source, **options)
        assert str(found) == str(getattr(plain, search)(source, **options, lengths=lengths[0]))


# Searches -------------------------------------------------------------------------------------


def log_probability(model: lc.Seq2Seq, source: Array, said: tuple[int, ...], start: int) -> float:
    """Of saying that, given the source (T,), by teacher forcing."""
    previous = np.array([start, *said[:-1]])[:, None]
    scores = model((source[:, None], previous))[:, 0]
    log_p = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return float(log_p[np.arange(len(said)), said].sum())


def everything(tokens: int, end: int, max_steps: int) -> list[tuple[int, ...]]:
    """All that can be said: texts that end, and texts that are cut."""
    others = [t for t in range(tokens) if t != end]
    texts = [
        (*text, end)
        for length in range(max_steps)
        for text in itertools.product(others, repeat=length)
    ]
    return texts + list(itertools.product(others, repeat=max_steps))


@pytest.mark.parametrize("attention", [None, "dot"])
@pytest.mark.parametrize("kind", [lc.GRU, lc.LSTM])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
def test_a_wide_beam_finds_what_brute_force_finds(
    attention: str | None, kind: Any, length_penalty: float
) -> None:
    model = make(attention, kind=kind, vocabulary=3)
    for name, p in model.named_parameters():  # far from uniform
        if name.startswith("head"):
            p.data *= 4
    source = np.random.default_rng(1).integers(0, 6, (4, 2))
    start, end = 1, 2
    found = model.beam_search(
        source, start=start, end=end, max_steps=4, beam_size=40, length_penalty=length_penalty
    )
    for row in range(2):
        expected = sorted(
            (
                (
                    log_probability(model, source[:, row], said, start)
                    / len(said) ** length_penalty,
                    said,
                )
                for said in everything(3, end, 4)
            ),
            reverse=True,
        )
        assert len(found[row]) == len(expected) == 31
        for hypothesis, (score, said) in zip(found[row], expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-10)
            assert hypothesis.ids.tolist() == [t for t in said if t != end]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [lc.GRU, lc.LSTM])
def test_greedy_takes_the_likeliest_at_each_step(kind: Any, batch_first: bool) -> None:
    model = make(kind=kind, batch_first=batch_first)
    source = np.random.default_rng(2).integers(0, 6, (6, 5))
    lengths = [6, 1, 3, 4, 2]
    found = model.greedy(
        source.T if batch_first else source, start=1, end=0, max_steps=7, lengths=lengths
    )
    for row, ids in enumerate(found):
        said = [1]
        while len(said) <= 7 and (said[-1] != 0 or len(said) == 1):
            one, previous = source[: lengths[row], row, None], np.array(said)[:, None]
            x = (one.T, previous.T) if batch_first else (one, previous)
            scores = model(x)
            last = scores[0, -1] if batch_first else scores[-1, 0]
            said.append(int(last.argmax()))
        assert ids.tolist() == [t for t in said[1:] if t != 0]


def beam_by_hand(
    model: lc.Seq2Seq, source: Array, start: int, end: int, max_steps: int, beam_size: int
) -> list[tuple[float, tuple[int, ...]]]:
    """Search a source (T,) by the definition: of all that goes on, the likeliest few."""
    tokens = model.head.out_features
    beam: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(max_steps):
        candidates = [(score, said) for score, said in beam if said[-1:] == (end,)]
        for _, said in beam:
            if said[-1:] != (end,):
                longer = [(*said, token) for token in range(tokens)]
                candidates += [(log_probability(model, source, s, start), s) for s in longer]
        beam = sorted(candidates, reverse=True)[:beam_size]
    return beam


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("attention", [None, "dot"])
@pytest.mark.parametrize("kind", [lc.GRU, lc.LSTM])
@pytest.mark.parametrize("beam_size", [1, 2, 3])
def test_a_narrow_beam_finds_what_the_definition_finds(
    beam_size: int, kind: Any, attention: str | None, batch_first: bool
) -> None:
    options: dict[str, Any] = {"kind": kind, "vocabulary": 4}
    model = make(attention, batch_first=batch_first, **options)
    alone = make(attention, **options)  # for one source (T,) at a time, time-major
    for p, q in zip(model.parameters(), alone.parameters(), strict=True):
        p.data *= 3  # far from uniform, and other texts for other sources
        q.data *= 3
    lengths = [5, 1, 3]
    source = np.random.default_rng(4).integers(0, 6, (5, 3))
    found = model.beam_search(
        source.T if batch_first else source,
        start=1, end=2, max_steps=5, beam_size=beam_size, lengths=lengths,
    )  # fmt: skip
    assert len({str(hypotheses) for hypotheses in found}) == 3
    for row, hypotheses in enumerate(found):
        expected = beam_by_hand(alone, source[: lengths[row], row], 1, 2, 5, beam_size)
        assert len(hypotheses) == len(expected) == beam_size
        for hypothesis, (score, said) in zip(hypotheses, expected, strict=True):
            assert hypothesis.score == pytest.approx(score, abs=1e-10)
            assert hypothesis.ids.tolist() == [t for t in said if t != 2]


def test_no_sources_say_nothing() -> None:
    assert make().greedy(np.zeros((5, 0), int), start=0, end=1, max_steps=3) == []


def test_a_wider_beam_is_never_worse_than_brute_force_allows() -> None:
    model = make(vocabulary=4)
    source = np.random.default_rng(3).integers(0, 6, (4, 3))
    for beam_size in (1, 2, 3, 8):
        found = model.beam_search(source, start=1, end=2, max_steps=5, beam_size=beam_size)
        for row, hypotheses in enumerate(found):
            assert len(hypotheses) == beam_size
            scores = [h.score for h in hypotheses]
            assert scores == sorted(scores, reverse=True)
            for ids, score in hypotheses:  # each score is that of its text
                said = (*ids.tolist(), *([2] if len(ids) < 5 else []))
                expected = log_probability(model, source[:, row], said, 1)
                assert score == pytest.approx(expected, abs=1e-10)


# Learning -------------------------------------------------------------------------------------


@pytest.mark.parametrize("attention", [None, "dot"])
def test_it_learns_to_reverse(attention: str | None) -> None:
    """Sequences of 1 to 4 digits backwards; short, so that both learn it."""
    rng = np.random.default_rng(0)
    sources = [rng.integers(3, 6, n) for n in rng.integers(1, 5, 300)]
    targets = [s[::-1] for s in sources]
    model = make(attention, vocabulary=6, hidden=32, dtype="float32")
    pairs = lc.data.Pairs(sources, targets, start=1, end=2, batch_size=30, seed=0)
    history = lc.fit(
        model, pairs, loss=cross_entropy, epochs=40, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    assert history.losses[-1] < 0.1 < history.losses[0]
    source = lc.data.pad(sources)
    said = model.greedy(source, start=1, end=2, max_steps=6, lengths=[len(s) for s in sources])
    right = [np.array_equal(a, b) for a, b in zip(said, targets, strict=True)]
    assert np.mean(right) > 0.95
    scores = lc.evaluate(model, pairs, loss=cross_entropy)
    assert scores["loss"] < 0.1


def test_dropout_acts_in_training_only_and_is_resumed(tmp_path: Any) -> None:
    model = make(dropout=0.5)
    x, _, lengths = batch()
    assert_same_bits(model(x, lengths=lengths), model(x, lengths=lengths))
    path = tmp_path / "model.safetensors"
    lc.save_checkpoint(path, model=model)
    first, _ = model.forward(x, lengths=lengths)
    second, _ = model.forward(x, lengths=lengths)
    assert not np.array_equal(first, second)
    lc.load_checkpoint(path, model=model)
    assert_same_bits(model.forward(x, lengths=lengths)[0], first)


def test_it_is_saved_like_any_model(tmp_path: Any) -> None:
    path = tmp_path / "model.safetensors"
    for attention in (None, "dot", "heads"):
        model = make(attention)
        lc.save(model, path)
        again = lc.load(path)
        assert again == model
        assert repr(again) == repr(model)


# Bad input ------------------------------------------------------------------------------------


E, D = lc.GRU(3, 4), lc.Sequential(lc.Embedding(5, 3), lc.GRU(3, 4))
HEAD = lc.Linear(4, 5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.Seq2Seq(None, D, HEAD), TypeError, "encoder is None"),  # type: ignore[arg-type]
        (lambda: lc.Seq2Seq(E, lc.Sequential(HEAD), HEAD), TypeError, "decoder is Sequential"),
        (lambda: lc.Seq2Seq(E, D, None), TypeError, "head is None"),  # type: ignore[arg-type]
        (lambda: lc.Seq2Seq(E, D, HEAD, HEAD), TypeError, "attention is Linear"),
        (
            lambda: lc.Seq2Seq(E, lc.GRU(3, 4, bidirectional=True), HEAD),
            ValueError,
            "decoder has GRU",
        ),
        (lambda: lc.Seq2Seq(lc.GRU(3, 5), D, HEAD), ValueError, "do not fit the decoder's"),
        (lambda: lc.Seq2Seq(lc.LSTM(3, 4), D, HEAD), ValueError, "do not fit the decoder's"),
        (
            lambda: lc.Seq2Seq(lc.GRU(3, 4, num_layers=2), D, HEAD),
            ValueError,
            "do not fit the decoder's",
        ),
        (
            lambda: lc.Seq2Seq(lc.GRU(3, 4, batch_first=True), D, HEAD),
            ValueError,
            "decoder has batch_first=False",
        ),
        (
            lambda: lc.Seq2Seq(E, D, HEAD, Attention(batch_first=True)),
            ValueError,
            "attention has batch_first=True",
        ),
        (lambda: lc.Seq2Seq(E, D, HEAD, carry_state=False), ValueError, "carry_state is False"),
        (
            lambda: lc.Seq2Seq(E, D, lc.Linear(9, 3)),
            ValueError,
            "head takes 9 features, expected 4, those of the decoder's y",
        ),
        (
            lambda: lc.Seq2Seq(E, D, HEAD, Attention()),
            ValueError,
            "head takes 4 features, expected 8, those of context and the decoder's y",
        ),
        (
            lambda: lc.Seq2Seq(E, D, lc.Linear(10, 5), lc.attention.MultiHead(6, 2)),
            ValueError,
            "attention is MultiHead.*queries of 4 features, the decoder's y, and keys of 4",
        ),
        (
            lambda: lc.Seq2Seq(lc.GRU(3, 5), D, lc.Linear(8, 5), Attention(), carry_state=False),
            ValueError,
            "attention is ScaledDotProduct.*keys of 5, the encoder's y",
        ),
        (
            lambda: lc.Seq2Seq(E, lc.GRU(3, 4, dtype="float64"), HEAD),
            ValueError,
            "decoder has dtype=float64, expected that of the encoder, float32",
        ),
        (
            lambda: lc.Seq2Seq(E, D, lc.Linear(4, 5, dtype="float64")),
            ValueError,
            "head has dtype=float64",
        ),
        (
            lambda: lc.Seq2Seq(lc.Sequential(E, lc.LastStep()), D, HEAD),
            ValueError,
            r"encoder has LastStep\(\), expected modules that keep the steps",
        ),
        (lambda: lc.Seq2Seq(E, E, HEAD), ValueError, "decoder has parameters of another part"),
        (lambda: lc.Seq2Seq(E, D, lc.Sequential(lc.GRU(4, 5))), TypeError, "head is Sequential"),
        (lambda: make()(np.zeros((3, 2), int)), TypeError, "x is a ndarray"),
        (lambda: make()(batch()[0], lengths=[1, 2, 3]), TypeError, r"lengths is \[1, 2, 3\]"),
        (lambda: make()(batch()[0], lengths=()), TypeError, r"lengths is \(\)"),
        (lambda: make()(batch()[0], lengths=np.ones((2, 3), int)), TypeError, "lengths is a ndarr"),
        (lambda: make(None).attention_weights(batch()[0]), ValueError, "has no attention"),
        (
            lambda: make().greedy(np.zeros(3, int), start=0, end=1, max_steps=3),
            ValueError,
            r"source has shape \(3,\), expected \(T, B, ...\)",
        ),
        (
            lambda: make().greedy(np.zeros((3, 1), int), start=0, end=1, max_steps=0),
            ValueError,
            "max_steps is 0",
        ),
        (
            lambda: make().beam_search(
                np.zeros((3, 1), int), start=0, end=1, max_steps=2, beam_size=0
            ),
            ValueError,
            "beam_size is 0",
        ),
        (
            lambda: make().backward(make().forward(batch()[0])[1], np.zeros(3)),
            ValueError,
            "made by another",
        ),
        (lambda: make().backward(None, np.zeros(3)), TypeError, "tape is None"),  # type: ignore[arg-type]
    ],
)
def test_bad_input_is_named(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Series of numbers ----------------------------------------------------------------------------


def numeric(
    kind: Any = lc.GRU, batch_first: bool = False, attention: bool = False, outputs: int = 2
) -> lc.Seq2Seq:
    """A model that reads 3 features, and 2 values beside 1 known."""
    options: Any = {"batch_first": batch_first, "dtype": "float64"}
    return lc.Seq2Seq(
        kind(3, 4, seed=0, **options),
        lc.Sequential(lc.Linear(3, 3, dtype="float64", seed=3), kind(3, 4, seed=1, **options)),
        lc.Linear(8 if attention else 4, outputs, dtype="float64", seed=2),
        Attention(batch_first=batch_first) if attention else None,
    )


@pytest.mark.parametrize("kind", [lc.RNN, lc.GRU, lc.LSTM])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("attention", [False, True])
def test_a_decoder_that_runs_free_reads_what_it_said(
    attention: bool, batch_first: bool, kind: Any
) -> None:
    model = numeric(kind, batch_first, attention)
    rng = np.random.default_rng(0)
    source, known, first = rng.random((6, 5, 3)), rng.random((4, 5, 1)), rng.random((5, 2))
    lengths = np.array([6, 1, 3, 6, 2])
    if batch_first:
        source, known = source.swapaxes(0, 1), known.swapaxes(0, 1)
    y = model.forecast(source, first, known=known, lengths=lengths)
    time = 1 if batch_first else 0
    said = np.concatenate([np.expand_dims(first, time), y.take(range(3), time)], time)
    forced = model((source, np.concatenate([said, known], -1)), lengths=(lengths, None))
    np.testing.assert_allclose(y, forced, rtol=1e-12)
    assert y.shape == ((5, 4, 2) if batch_first else (4, 5, 2))
    # A row alone says the same, and fewer steps are the first of more.
    row = [a[1:2] if batch_first else a[:, 1:2] for a in (source, known)]
    alone = model.forecast(row[0], first[1:2], known=row[1], lengths=lengths[1:2])
    np.testing.assert_allclose(alone, y[1:2] if batch_first else y[:, 1:2], rtol=1e-12)
    fewer = model.forecast(source, first, 2, known=known.take(range(2), time), lengths=lengths)
    np.testing.assert_allclose(fewer, y.take(range(2), time), rtol=1e-12)


def test_what_goes_back_may_be_made_of_the_output() -> None:
    """Of quantiles the middle ones, here of 3 for each of 2 values."""
    model = numeric(outputs=6)
    rng = np.random.default_rng(0)
    source, known, first = rng.random((6, 5, 3)), rng.random((4, 5, 1)), rng.random((5, 2))
    y = model.forecast(source, first, known=known, sample=lambda y: y[:, 2:4])
    said = np.concatenate([first[None], y[:3, :, 2:4]])
    np.testing.assert_allclose(y, model((source, np.concatenate([said, known], -1))), rtol=1e-12)


def test_teacher_forcing_trains_a_decoder_with_a_calendar() -> None:
    """What comes depends on what is known of it, so a model that reads it can run free."""
    rng = np.random.default_rng(1)
    calendar = rng.random(400)
    value = np.zeros(400)
    for t in range(1, 400):
        value[t] = 0.5 * value[t - 1] + calendar[t]
    table = np.stack([value, calendar], axis=1).astype("float32")
    x, target = lc.data.windows(table, 8, steps=6, target=[0], known=[1], previous=True)
    assert np.array_equal(x["previous"][1:], target[:-1])
    assert np.array_equal(x["previous"][0], x["past"][-1, :, :1])
    model = lc.Seq2Seq(lc.GRU(2, 16, seed=0), lc.GRU(2, 16, seed=1), lc.Linear(16, 1, seed=2))
    forced = np.concatenate([x["previous"], x["known"]], axis=-1)
    lc.fit(
        model, ((x["past"], forced), target), batch_size=32, seed=0, epochs=40, progress=False,
        loss=lc.losses.mse, optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    y = model.forecast(x["past"], x["previous"][0], known=x["known"])
    assert lc.metrics.nse(y, target) > 0.9
    assert lc.metrics.nse(y[-1], target[-1]) > 0.9  # six steps from the last value that it saw


F8 = np.zeros((6, 5, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: m.forecast(F8, F8[0, :, :2], 4), ValueError, "have 2 features, expected 3, as"),
        (lambda m: m.forecast(F8, F8[0], 0), ValueError, "steps is 0"),
        (lambda m: m.forecast(F8, F8[0]), TypeError, "steps is None"),
        (lambda m: m.forecast(F8, F8[0, 0], 4), ValueError, r"previous has shape \(3,\)"),
        (lambda m: m.forecast(F8, F8[0].astype("f4"), 4), TypeError, "previous has dtype float32"),
        (lambda m: m.forecast(F8[:, :4], F8[0], 4), ValueError, "expected a batch of 5, the rows"),
        (lambda m: m.forecast(F8[:, 0], F8[0], 4), ValueError, "expected a batch of 5"),
        (lambda m: m.forecast(F8, F8[0], 4), ValueError, r"has shape \(5, 2\), expected \(5, 3\)"),
        (lambda m: m.forecast(F8, F8[0], 4, sample=3), TypeError, "sample is 3"),
        (
            lambda m: m.forecast(F8, F8[0, :, :2], known=F8[0, :, :1]),
            ValueError,
            r"known has shape \(5, 1\), expected \(S, B, K\) for 5 rows",
        ),
        (
            lambda m: m.forecast(F8, F8[0, :, :2], 3, known=F8[..., :1]),
            ValueError,
            "steps is 3, but known has 6 steps",
        ),
        (lambda m: m.forecast(F8 * np.nan, F8[0], 4), ValueError, "the model gives NaN"),
        (lambda m: make().forecast([[1], [2]], F8[0], 4), TypeError, "the decoder reads ids"),
    ],
)
def test_forecast_refuses(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(numeric())


class Head(lc.Module):
    """Scores of one's own; `ahead` looks at the step after each."""

    def __init__(self, ahead: bool = False) -> None:
        self.linear, self.ahead = lc.Linear(4, 5, seed=4, dtype="float64"), ahead

    def forward(self, x: Any) -> Any:
        y, tape = self.linear.forward(x)
        return (np.concatenate([y[1:], y[-1:]]) if self.ahead else y), tape

    def backward(self, tape: Any, dy: Any) -> Any:
        return self.linear.backward(tape, dy)


@pytest.mark.parametrize("inside", [False, True])
def test_a_head_of_ones_own_is_stepped_where_it_says_so(inside: bool) -> None:
    """One that looks at other steps would be right in training, and wrong step by step."""
    options: dict[str, Any] = {"dtype": "float64"}
    parts = [
        lc.Sequential(lc.Embedding(6, 3, seed=s, **options), lc.GRU(3, 4, seed=s + 1, **options))
        for s in (0, 2)
    ]
    source = np.random.default_rng(0).integers(0, 6, (5, 3))
    says: dict[str, Any] = {"start": 1, "end": 9, "max_steps": 4}
    head = Head(ahead=True)
    model = lc.Seq2Seq(*parts, lc.Sequential(head) if inside else head)
    assert model((source, source)).shape == (5, 3, 5)
    with pytest.raises(ValueError, match=r"(?s)head is stepped here.* Head.* each_step is False"):
        model.greedy(source, **says)
    head = Head()
    head.each_step = True
    model = lc.Seq2Seq(*parts, lc.Sequential(head) if inside else head)
    plain = lc.Seq2Seq(*parts, head.linear)
    for ours, expected in zip(model.greedy(source, **says), plain.greedy(source, **says)):
        assert np.array_equal(ours, expected)
    numbers = [lc.GRU(1, 4, seed=0, **options), lc.GRU(5, 4, seed=1, **options)]
    forecaster = lc.Seq2Seq(*numbers, Head())
    with pytest.raises(ValueError, match=r"(?s)head is stepped here.* Head.* each_step is False"):
        forecaster.forecast(np.ones((5, 3, 1)), np.ones((3, 5)), 4)
