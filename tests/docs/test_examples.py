"""The examples of long lags, of fit and of looking inside, on shorter schedules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.example_scripts import load, run


@pytest.fixture(scope="module")
def long_lag() -> Any:
    return load("long_lag")


# The adding problem ------------------------------------------------------------------------------


def test_sequences_of_the_adding_problem(long_lag: Any) -> None:
    x, target, lengths = load("adding_problem").draw(np.random.default_rng(0), 5000, 100)
    assert lengths.min() == 100
    assert lengths.max() == 110
    places, firsts = set(), 0
    for row, length in enumerate(lengths):
        value, marker = x[:length, row].T
        assert np.abs(value).max() <= 1
        assert not x[length:, row].any()
        assert marker[0] == marker[-1] == -1
        marked = np.flatnonzero(marker == 1)
        assert marked.size + (marker == 0).sum() + 2 == length
        assert marked.size <= 2
        if marked.size < 2:
            firsts += 1  # the first step was drawn, whose number counts as 0
        else:
            assert marked[0] < 10
        places.update(marked.tolist())
        assert target[row, 0] == pytest.approx(0.5 + value[marked].sum() / 4)
    assert places == set(range(1, 49))  # of the first 49 steps, the first left out
    assert 0.05 < firsts / 5000 < 0.2


@pytest.mark.parametrize("cell", ["lstm-1997", "lstm"])
def test_a_short_adding_problem_is_solved(long_lag: Any, cell: str) -> None:
    task = load("adding_problem").adding_problem(20)._replace(tolerance=0.15, mean_tolerance=0.05)
    model = long_lag.make_model(task, cell, 0)
    result = long_lag.train(model, task, sequences=60_000, seed=0)
    assert result.solved
    assert result.sequences >= long_lag.WINDOW
    assert result.wrong < 25  # 1 in 100, where the training ended after 2000 in a row


def test_what_is_not_learned_is_not_called_solved(long_lag: Any) -> None:
    task = load("adding_problem").adding_problem(100)
    model = long_lag.make_model(task, "rnn", 0)
    result = long_lag.train(model, task, sequences=3000, seed=0)
    assert not result.solved
    assert result.sequences == 3000
    assert 0.7 < result.wrong / long_lag.TEST_SEQUENCES < 0.95  # as good as a constant answer
    assert str(result).startswith("not solved by 3000 sequences, ")


def test_the_adding_problem_runs(tmp_path: Path) -> None:
    options = ["--length", "20", "--seeds", "3", "4", "--precision", "bfloat16"]
    lines = run("adding_problem", "--quick", *options)
    assert len(lines) == 6
    pytest.importorskip("matplotlib")
    picture = tmp_path / "gates.png"
    (line,) = run("adding_problem", "--quick", "--cells", "lstm-1997", "--picture", str(picture))
    assert line.startswith("adding problem, T = 100, lstm-1997, 101 weights, seed 0: not solved")
    assert picture.read_bytes().startswith(b"\x89PNG")


# Temporal order ----------------------------------------------------------------------------------


def test_sequences_of_temporal_order(long_lag: Any) -> None:
    example = load("temporal_order")
    x, target, lengths = example.draw(np.random.default_rng(0), 2000)
    assert set(lengths) == set(range(100, 111))
    symbols = x.argmax(axis=2)
    assert (x.sum(axis=2) == 1).all()
    order = {"XX": 0, "XY": 1, "YX": 2, "YY": 3}
    firsts, seconds = set(), set()
    for row, length in enumerate(lengths):
        text = "".join(example.SYMBOLS[i] for i in symbols[:length, row])
        found = re.fullmatch(r"E([a-d]*)([XY])([a-d]*)([XY])[a-d]*B", text)
        assert found, text
        firsts.add(found.start(2))
        seconds.add(found.start(4))
        assert target[row].argmax() == order[found[2] + found[4]]
    assert firsts == set(range(10, 21))
    assert seconds == set(range(50, 61))
    np.testing.assert_array_equal(target.sum(axis=1), 1)


def test_temporal_order_runs() -> None:
    lines = run("temporal_order", "--quick")
    assert [line.split(", ")[1] for line in lines] == ["lstm-1997", "lstm", "rnn"]


# The embedded Reber grammar ----------------------------------------------------------------------


def test_strings_of_the_embedded_reber_grammar() -> None:
    example = load("reber_grammar")
    rng = np.random.default_rng(0)
    end = "(?:XT*VP)*(?:S|XT*VV)"  # from where both branches of the grammar may arrive
    embedded = rf"B([TP])B(?:TS*X{end}|PT*V(?:V|P{end}))E\1E"
    for _ in range(500):
        string, allowed = example.draw_string(rng)
        assert re.fullmatch(embedded, string), string
        assert len(allowed) == len(string) - 1
        for symbol, choices in zip(string[1:], allowed):
            assert symbol in choices
        assert allowed[-2:] == [string[1], "E"]
    learned, tested = example.draw(rng)
    different = {
        s.target[: s.lengths[row], row].tobytes() for s in (learned, tested) for row in range(256)
    }
    assert len(different) == 512
    for strings in (learned, tested):
        valid = np.arange(len(strings.x))[:, None] < strings.lengths
        hit = np.take_along_axis(strings.allowed, strings.target[..., None], axis=2)[..., 0]
        assert hit[valid].all()
        np.testing.assert_array_equal(strings.x[1:].argmax(axis=2)[valid[1:]],
                                      strings.target[:-1][valid[1:]])  # fmt: skip


def test_strings_are_counted_as_wrong_if_one_step_is() -> None:
    example = load("reber_grammar")
    _, strings = example.draw(np.random.default_rng(0))
    scores = strings.allowed.astype("float32")

    def answer(x: Any, lengths: Any) -> Any:
        return scores

    assert example.wrong(answer, strings) == 0
    scores[3, 7] = 1 - scores[3, 7]
    scores[strings.lengths[9] :, 9] = 0  # past the end nothing counts
    assert example.wrong(answer, strings) == 1
    scores[...] = 0  # no output is higher than the others
    assert example.wrong(answer, strings) == 256


def test_the_reber_grammar_runs() -> None:
    lines = run("reber_grammar", "--seeds", "0", "--cells", "lstm-1997", "--sequences", "12000")
    assert len(lines) == 1
    assert re.search(r"solved after \d+ strings, 0 and 0 of 256 wrong", lines[0])
    assert len(run("reber_grammar", "--quick", "--seeds", "1")) == 3


# Others ------------------------------------------------------------------------------------------


def test_japanese_vowels_runs(tmp_path: Path) -> None:
    for options in ([], ["--precision", "bfloat16"]):
        (line,) = run("japanese_vowels", "--quick", *options)
        median = re.search(r"median (\d+\.\d) % right", line)
        assert median
        assert float(median[1]) > 85  # 97 with the whole schedule
    pytest.importorskip("matplotlib")
    picture = tmp_path / "curves.png"
    run("japanese_vowels", "--quick", "--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_gradient_flow_runs(tmp_path: Path) -> None:
    lines = run("gradient_flow", "--size", "8", "--steps", "60")
    norms = {name: float(value) for name, value in (line.rsplit(": ", 1) for line in lines)}
    of = {name.split(", ", 1)[1]: norm for name, norm in norms.items()}
    assert of["RNN, 0.9"] <= 0.9**60 * 1.01
    assert of["RNN, 1.1"] > 2
    assert of["LSTM"] < 1e-6 < 1e-2 < of["LSTM, forget bias 3"]
    assert of["GRU"] < 1e-6 < 1e-2 < of["GRU, update bias 3"]
    pytest.importorskip("matplotlib")
    picture = tmp_path / "gradients.png"
    run("gradient_flow", "--quick", "--picture", str(picture))
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_the_orthogonal_rnn_is_one() -> None:
    rnn = load("gradient_flow").orthogonal_rnn(8, 0.9, 0)
    np.testing.assert_allclose(lc.plot.gradient_bound(rnn, 2), [1, 0.9, 0.81], rtol=1e-6)
