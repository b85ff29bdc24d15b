"""Generating with networks of several inputs and outputs: what is fed, known ahead and static."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc

Array = np.ndarray[Any, np.dtype[Any]]
T, B, STEPS = 5, 3, 4


def forecaster(first: bool = False) -> lc.Model:
    """Demand and its quantiles, from demand, a calendar and a place; the latter wires a state."""
    demand, calendar, place = lc.Input(1), lc.Input(2), lc.Input(3, steps=False)
    x = lc.Conv1D(3, 4, 3, padding="causal", dilation=2, seed=0)(lc.concat([demand, calendar]))
    y, _ = lc.GRU(4, 5, batch_first=first, seed=1)(x, lc.Linear(3, 5, seed=2)(place)[None])
    z, _ = lc.LSTM(5, 5, batch_first=first, seed=3)(y)
    outputs = {"next": 2 * lc.Linear(5, 1, seed=4)(y + z), "levels": lc.Linear(5, 3, seed=5)(z)}
    return lc.Model({"demand": demand, "calendar": calendar, "place": place}, outputs)


def prompt_of(first: bool = False, ahead: int = STEPS - 1, batch: int = B) -> dict[str, Array]:
    rng = np.random.default_rng(0)

    def series(steps: int, size: int) -> Array:
        shape = (batch, steps, size) if first else (steps, batch, size)
        return rng.standard_normal(shape).astype("f4")

    place = rng.standard_normal((batch, 3)).astype("f4")
    return {"demand": series(T, 1), "calendar": series(T + ahead, 2), "place": place}


def read_again(model: lc.Model, prompt: dict[str, Array]) -> Array:
    """Return what is generated if the whole series is read again for each value."""
    axis = int(model.batch_first)
    series = prompt["demand"]
    for _ in range(STEPS):
        calendar = prompt["calendar"].take(range(series.shape[axis]), axis)
        y = model({**prompt, "demand": series, "calendar": calendar})["next"]
        series = np.concatenate([series, y.take([-1], axis)], axis)
    return series.take(range(T, T + STEPS), axis)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("ahead", [STEPS - 1, STEPS])
def test_what_is_fed_is_what_reading_everything_again_gives(first: bool, ahead: int) -> None:
    model, prompt = forecaster(first), prompt_of(first, ahead)
    found = lc.generate(model, prompt, STEPS, feed={"demand": "next"})
    assert list(found) == ["demand"]
    assert np.array_equal(found["demand"], read_again(model, prompt))
    assert np.ptp(found["demand"], axis=int(first)).min() > 0  # every step is another one


@pytest.mark.parametrize("first", [False, True])
def test_the_bits_are_those_of_a_stream(first: bool) -> None:
    model, prompt = forecaster(first), prompt_of(first)
    found = lc.generate(model, prompt, STEPS, feed={"demand": "next"})["demand"]
    demand, calendar = (prompt[n].swapaxes(0, 1) if first else prompt[n] for n in list(prompt)[:2])
    stream, y = model.stream(batch_size=B), {}
    for t in range(T + STEPS - 1):
        x = demand[t] if t < T else y["next"]
        y = stream.step({"demand": x, "calendar": calendar[t], "place": prompt["place"]})
        if t >= T - 1:
            assert np.array_equal(found.take(t - T + 1, int(first)), y["next"])


@pytest.mark.parametrize("first", [False, True])
def test_without_a_batch(first: bool) -> None:
    model, prompt = forecaster(first), prompt_of(first)
    every = lc.generate(model, prompt, STEPS, feed={"demand": "next"})["demand"]
    row = {
        name: array.take(1, int(array.ndim == 3 and not first)) for name, array in prompt.items()
    }
    found = lc.generate(model, row, STEPS, feed={"demand": "next"})["demand"]
    assert np.array_equal(found, every.take(1, int(not first)))


@pytest.mark.parametrize("first", [False, True])
def test_each_row_goes_on_from_its_own_end(first: bool) -> None:
    model, prompt = forecaster(first), prompt_of(first)
    lengths = [3, 5, 1]
    found = lc.generate(model, prompt, STEPS, feed={"demand": "next"}, lengths=lengths)["demand"]
    for b, n in enumerate(lengths):
        row = {
            name: array.take(b, int(array.ndim == 3 and not first))
            for name, array in prompt.items()
        }
        row |= {"demand": row["demand"][:n], "calendar": row["calendar"][: n + STEPS - 1]}
        alone = lc.generate(model, row, STEPS, feed={"demand": "next"})["demand"]
        assert np.array_equal(found.take(b, int(not first)), alone)


def test_a_function_makes_the_next_input_of_all_outputs() -> None:
    model, prompt = forecaster(), prompt_of()
    seen = []

    def median(y: dict[str, Array]) -> dict[str, Array]:
        seen.append({name: one.shape for name, one in y.items()})
        return {"demand": y["levels"][:, 1:2].astype("f8")}

    found = lc.generate(model, prompt, STEPS, feed=median)["demand"]
    assert seen == [{"next": (B, 1), "levels": (B, 3)}] * STEPS
    assert found.dtype == np.float32
    feed = {"demand": "levels"}
    assert np.array_equal(
        found, lc.generate(model, prompt, STEPS, lambda y: y[:, 1:2], feed=feed)["demand"]
    )
    with pytest.raises(ValueError, match="of 3 features to input 'demand', expected 1"):
        lc.generate(model, prompt, STEPS, feed=feed)


def test_the_state_before_the_prompt_counts() -> None:
    model, prompt = forecaster(), prompt_of()
    stream = model.stream(batch_size=B)
    stream.process({**prompt, **{name: prompt[name][:2] for name in ("demand", "calendar")}})
    rest = {**prompt, **{name: prompt[name][2:] for name in ("demand", "calendar")}}
    expected = lc.generate(model, prompt, STEPS, feed={"demand": "next"})["demand"]
    found = lc.generate(model, rest, STEPS, feed={"demand": "next"}, state=stream.state)["demand"]
    assert np.array_equal(found, expected)
    fresh = lc.generate(model, rest, STEPS, feed={"demand": "next"})["demand"]
    assert not np.array_equal(fresh, expected)


def test_one_output_or_one_input_needs_no_dict() -> None:
    a, b = lc.Input(1), lc.Input(2)
    y, _ = lc.GRU(3, 4, seed=0)(lc.concat([a, b]))
    y = lc.Linear(4, 1, seed=1)(y)
    values = [np.ones((T, B, 1), "f4"), np.ones((T + STEPS, B, 2), "f4")]
    listed = lc.generate(lc.Model([a, b], y), values, STEPS, feed=0)
    named = lc.Model({"a": a, "b": b}, y)
    both = {"a": values[0], "b": values[1]}
    assert np.array_equal(listed, lc.generate(named, both, STEPS, feed="a"))
    assert np.array_equal(listed, lc.generate(named, both, STEPS, feed={"a": None})["a"])
    assert listed.shape == (STEPS, B, 1)

    x = lc.Input(2)
    y, h = lc.GRU(2, 4, seed=0)(x)
    y = lc.Linear(4, 2, seed=1)(y)
    one, two = lc.Model(x, y), lc.Model(x, {"y": y, "last": lc.Linear(4, 3)(h[-1])})
    values = np.ones((T, 2), "f4")
    expected = lc.generate(one, values, STEPS)
    assert np.array_equal(lc.generate(two, values, STEPS, feed="y"), expected)
    assert np.array_equal(lc.generate(two, values, STEPS, feed=lambda y: y["y"]), expected)


def test_several_inputs_are_fed_tokens_too() -> None:
    """A letter by its scores, drawn or the best, and how loud it is: each goes into its input."""
    ids, loud = lc.Input(ids=True), lc.Input(1)
    x = lc.concat([lc.Embedding(6, 4, seed=0)(ids), loud])
    y, _ = lc.GRU(5, 8, seed=1)(x)
    model = lc.Model([ids, loud], [lc.Linear(8, 6, seed=2)(4 * y), lc.Linear(8, 1, seed=3)(y)])
    prompt = [np.array([[1, 2], [3, 0]]), np.ones((2, 2, 1), "f4")]
    found = lc.generate(model, prompt, 6, feed={0: 0, 1: 1})
    stream, y = model.stream(2), None
    for t in range(7):
        y = stream.step(*([p[t] for p in prompt] if t < 2 else [y[0].argmax(1), y[1]]))
        if t > 0:
            assert np.array_equal(found[0][t - 1], y[0].argmax(1))
            assert np.array_equal(found[1][t - 1], y[1])
    assert found[0].dtype == np.int64
    sample = {0: lambda scores: np.full(len(scores), 5), 1: lambda y: 0 * y}
    drawn = lc.generate(model, prompt, 3, sample, feed={0: 0, 1: 1})
    assert (drawn[0] == 5).all()
    assert not drawn[1].any()
    with pytest.raises(ValueError, match="sample is one, but feed has 2 inputs"):
        lc.generate(model, prompt, 3, lc.sampling.greedy(), feed={0: 0, 1: 1})
    with pytest.raises(ValueError, match="stop is 2, expected it where one input of ids"):
        lc.generate(model, prompt, 3, feed={0: 0, 1: 1}, stop=2)
    known = [prompt[0], np.ones((9, 2, 1), "f4")]
    said = iter([[1, 2], [0, 3], [4, 0], [5, 5]])
    stopped = lc.generate(model, known, 8, lambda scores: np.array(next(said)), feed={0: 0}, stop=0)
    assert stopped[0].T.tolist() == [[1, 0, 0], [2, 3, 0]]


def encoder_decoder(attention: Any = None, first: bool = False) -> lc.Model:
    """Numbers in, numbers out; a calendar of the decoder, and a place, stand beside them."""
    source, value, calendar = lc.Input(2), lc.Input(1), lc.Input(2)
    options = {"batch_first": first}
    keys, state = lc.LSTM(2, 5, 2, seed=0, **options)(source)
    y, _ = lc.LSTM(3, 5, 2, seed=1, **options)(lc.concat([value, calendar]), state)
    if attention is not None:
        context, _ = attention(y, keys, keys)
        y = lc.concat([context, y])
    outputs = {"next": 4 * lc.Linear(5 if attention is None else 10, 1, seed=2)(y)}
    outputs["said"] = lc.Linear(5, 2, seed=3)(state[0][-1])  # of the encoder alone
    return lc.Model({"source": source, "value": value, "calendar": calendar}, outputs)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("lengths", [None, [7, 2, 4]])
@pytest.mark.parametrize("kind", [None, "dot", "heads"])
def test_a_decoder_goes_on_from_an_encoder(kind: Any, lengths: Any, first: bool) -> None:
    attention = {
        None: None,
        "dot": lc.attention.ScaledDotProduct(batch_first=first),
        "heads": lc.attention.MultiHead(5, 5, batch_first=first, seed=4),
    }[kind]
    model, rng = encoder_decoder(attention, first), np.random.default_rng(1)
    axis = int(first)

    def series(steps: int, size: int) -> Array:
        shape = (B, steps, size) if first else (steps, B, size)
        return rng.standard_normal(shape).astype("f4")

    prompt = {"source": series(7, 2), "value": series(2, 1), "calendar": series(1 + STEPS, 2)}
    ends = None if lengths is None else {"source": lengths, "value": None, "calendar": None}
    said, values = [], prompt["value"]
    for _ in range(STEPS):
        calendar = prompt["calendar"].take(range(values.shape[axis]), axis)
        y = model({**prompt, "value": values, "calendar": calendar}, lengths=ends)
        said.append(y["said"])
        values = np.concatenate([values, y["next"].take([-1], axis)], axis)
    seen = []

    def feed(y: dict[str, Array]) -> dict[str, Array]:
        seen.append(y["said"])
        return {"value": y["next"]}

    expected = values.take(range(2, 2 + STEPS), axis)
    for given in ({"value": "next"}, feed):
        found = lc.generate(model, prompt, STEPS, feed=given, lengths=ends)["value"]
        if attention is None:
            assert np.array_equal(found, expected)
        np.testing.assert_allclose(found, expected, rtol=1e-5)  # of an attention within rounding
    assert np.array_equal(seen, said)
    row = {name: array.take(1, 1 - axis) for name, array in prompt.items()}
    if lengths is not None:
        row["source"] = row["source"][: lengths[1]]
    alone = lc.generate(model, row, STEPS, feed={"value": "next"})["value"]
    np.testing.assert_allclose(alone, expected.take(1, 1 - axis), rtol=1e-5)


def test_what_an_encoder_and_a_decoder_cannot() -> None:
    model, feed = encoder_decoder(), {"value": "next"}
    prompt = {"source": np.ones((7, B, 2), "f4"), "value": np.ones((1, B, 1), "f4")}
    prompt["calendar"] = np.ones((STEPS, B, 2), "f4")
    with pytest.raises(TypeError, match="'source' is read whole: expected a dict or tuple"):
        lc.generate(model, prompt, STEPS, feed=feed, lengths=[1, 1, 1])
    lengths = {"source": [1, 8, 1], "value": None, "calendar": None}
    with pytest.raises(ValueError, match=r"lengths\[1\] is 8, expected 0 to 7"):
        lc.generate(model, prompt, STEPS, feed=feed, lengths=lengths)
    lengths = {"source": None, "value": [1, 1, 1], "calendar": [1, 0, 1]}
    with pytest.raises(ValueError, match="lengths of the inputs that are continued differ"):
        lc.generate(model, prompt, STEPS, feed=feed, lengths=lengths)
    x = lc.Input(2)
    y, h = lc.GRU(2, 2, seed=0)(x)
    around = lc.Model({"x": x}, {"y": lc.GRU(2, 2, seed=1)(y, h)[0]})
    with pytest.raises(ValueError, match="takes what comes of all steps back into them"):
        lc.generate(around, {"x": prompt["source"]}, STEPS, feed={"x": "y"})
    source, value = lc.Input(2), lc.Input(2)
    keys, h = lc.GRU(2, 2, seed=0)(source)
    y, _ = lc.GRU(2, 2, seed=1)(value, h)
    mixed, _ = lc.attention.ScaledDotProduct()(keys, y, y)  # the encoder asks the decoder
    two = lc.Model({"source": source, "value": value}, {"y": y, "mixed": mixed})
    values = {"source": prompt["source"], "value": prompt["source"][:1]}
    with pytest.raises(TypeError, match="takes all steps of one input beside single ones"):
        lc.generate(two, values, STEPS, feed={"value": "y"})


def wrong(**changes: Any) -> dict[str, Array]:
    return {**prompt_of(), **changes}


@pytest.mark.parametrize(
    ("prompt", "options", "error", "message"),
    [
        (wrong(), {}, ValueError, r"feed is not given, .* as feed=\{'demand': 'next'\}"),
        (wrong(), {"feed": "demand"}, TypeError, r"feed is 'demand'.* as \{'demand': 'next'\}"),
        (wrong(), {"feed": {}}, TypeError, "feed is {}.*expected a dict from inputs"),
        (wrong(), {"feed": {"load": "next"}}, ValueError, "the input 'load', expected one of 'dem"),
        (wrong(), {"feed": {"demand": "n"}}, ValueError, "the output 'n', expected one of 'next'"),
        (wrong(), {"feed": {"place": "levels"}}, ValueError, "'place', which has no steps"),
        (wrong(), {"feed": lambda y: y["next"]}, TypeError, "feed gives a ndarray.*a dict of inp"),
        (wrong(), {"feed": lambda y: {"demand": y["levels"]}}, ValueError, r"\(3, 3\).* \(3, 1\)"),
        (wrong(), {"feed": lambda y: {"demand": np.nan * y["next"]}}, ValueError, "'demand' NaN"),
        (wrong(), {"feed": lambda y: {"demand": y["next"]}, "sample": "greedy"}, ValueError,
         "sample is given, but feed is a function"),
        (wrong(), {"feed": {"demand": "next"}, "sample": {"calendar": None}}, ValueError,
         "sample has 'calendar', which no output is fed to"),
        (wrong(calendar=np.ones((7, B, 2), "f4")), {"feed": {"demand": "next"}}, ValueError,
         r"prompt\['calendar'\] has 7 steps, .* expected 8 that are known, 5 of .* and 3 ahead"),
        (wrong(calendar=np.ones((10, B, 2), "f4")), {"feed": {"demand": "next"}}, ValueError,
         "has 10 steps"),
        (wrong(demand=np.ones((0, B, 1), "f4")), {"feed": {"demand": "next"}}, ValueError,
         r"prompt\['demand'\] is empty"),
        (wrong(place=np.ones((2, 3), "f4")), {"feed": {"demand": "next"}}, ValueError,
         r"prompt\['place'\] has 2 rows, expected 3"),
        (wrong()["demand"], {"feed": {"demand": "next"}}, TypeError, "prompt is a ndarray"),
        (wrong(), {"feed": {"demand": "next"}, "lengths": [1, 0, 2]}, ValueError, "lengths has 0"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    prompt: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        lc.generate(forecaster(), prompt, STEPS, **options)


def test_feed_is_refused_where_it_finds_no_use() -> None:
    chain = lc.Sequential(lc.GRU(2, 2, seed=0))
    with pytest.raises(ValueError, match=r"feed is given, but model is no lc\.Model"):
        lc.generate(chain, np.ones((3, 2), "f4"), 2, feed="y")
    x = lc.Input(2)
    with pytest.raises(ValueError, match="one input and one output, which needs none"):
        lc.generate(lc.Model(x, chain(x)), np.ones((3, 2), "f4"), 2, feed="y")
    with pytest.raises(TypeError, match="prompt is a dict of 'x', expected an array"):
        lc.generate(chain, {"x": np.ones((3, 2), "f4")}, 2)


def test_two_outputs_without_feed_say_how_it_is_called() -> None:
    x = lc.Input(2)
    y, h = lc.GRU(2, 2, seed=0)(x)
    with pytest.raises(ValueError, match=r"the outputs 0, 1: expected the one .* as feed=0"):
        lc.generate(lc.Model(x, [y, h[-1]]), np.ones((3, 2), "f4"), 2)


def named() -> tuple[lc.Model, lc.Model, dict[str, Any]]:
    """A network with a dict of inputs and outputs, the same with lists and names, and a prompt."""
    demand, calendar = lc.Input(1, name="demand"), lc.Input(2, name="calendar")
    y, _ = lc.GRU(3, 4, seed=0)(lc.concat([demand, calendar]))
    heads = lc.Linear(4, 1, seed=1)(y), lc.Linear(4, 3, seed=2)(y)
    by_key = lc.Model(
        {"demand": demand, "calendar": calendar}, dict(zip(("next", "levels"), heads, strict=True))
    )
    listed = lc.Model([demand, calendar], list(heads), output_names=["next", "levels"])
    rng = np.random.default_rng(0)
    prompt = {"demand": rng.random((5, 2, 1), "float32"), "calendar": rng.random((8, 2, 2), "f4")}
    return by_key, listed, prompt


@pytest.mark.parametrize("source", ["demand", 0])
@pytest.mark.parametrize("output", ["next", 0])
def test_names_of_inputs_and_outputs_are_as_good_as_numbers(source: Any, output: Any) -> None:
    by_key, listed, prompt = named()
    expected = lc.generate(by_key, prompt, 4, feed={"demand": "next"})["demand"]
    found = lc.generate(listed, prompt, 4, feed={source: output})
    assert list(found) == [source]
    assert np.array_equal(found[source], expected)
    by_function = lc.generate(listed, prompt, 4, feed=lambda y: {source: y[0]})
    assert np.array_equal(by_function[source], expected)
    sampled = lc.generate(listed, prompt, 4, {source: lambda y: y}, feed={source: output})
    assert np.array_equal(sampled[source], expected)


def test_one_input_or_output_has_a_name_too() -> None:
    x = lc.Input(1, name="demand")
    y, _ = lc.GRU(1, 4, seed=0)(x)
    heads = [lc.Linear(4, 1, seed=1)(y), lc.Linear(4, 3, seed=2)(y)]
    model = lc.Model(x, heads, output_names=["next", "levels"])
    prompt = np.ones((5, 2, 1), "float32")
    expected = lc.generate(model, prompt, 3, feed=0)
    assert np.array_equal(lc.generate(model, prompt, 3, feed="next"), expected)
    assert np.array_equal(
        lc.generate(model, prompt, 3, feed={"demand": "next"})["demand"], expected
    )


def test_messages_about_feed_have_the_names() -> None:
    _, listed, prompt = named()
    for feed, message in (
        (None, r"the inputs 'demand', 'calendar': .* as feed=\{'demand': 'next'\}"),
        ({"demnd": "next"}, "feed has the input 'demnd', expected one of 'demand', 'calendar'"),
        ({"demand": "nxt"}, "feed has the output 'nxt', expected one of 'next', 'levels'"),
        ({"demand": "next", 0: "next"}, "feed has 'demand' and 0, which are the same input"),
    ):
        with pytest.raises(ValueError, match=message):
            lc.generate(listed, prompt, 4, feed=feed)


def test_lengths_of_what_is_continued_may_have_its_name() -> None:
    _, listed, prompt = named()
    feed = {"demand": "next"}
    expected = lc.generate(listed, prompt, 4, feed=feed, lengths=[3, 5])["demand"]
    for lengths in (
        {"demand": [3, 5], "calendar": None},
        {"demand": [3, 5], "calendar": [3, 5]},
        ([3, 5], None),
        (3, 5),
    ):
        found = lc.generate(listed, prompt, 4, feed=feed, lengths=lengths)["demand"]
        assert np.array_equal(found, expected)
    with pytest.raises(ValueError, match="lengths of the inputs that are continued differ"):
        lc.generate(listed, prompt, 4, feed=feed, lengths={"demand": None, "calendar": [3, 5]})
