"""The examples that train small models, on shorter schedules."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from helpers.example_scripts import EXAMPLES, load, run
from helpers.peers import require


def test_characters_are_predicted_better_than_by_bigrams() -> None:
    example = load("char_language_model")
    text = example.Text(60_000)
    model = example.make(len(text.letters), "gru", 64, seed=0)
    untrained = example.bits(model, text)
    example.train(model, text, epochs=6, lr=0.005)
    markov = example.lc.baselines.Markov(len(text.letters)).fit(text.train[0])
    assert example.bits(model, text) < example.bits(markov, text) < untrained
    small = example.lc.quantize(model)  # loses less than 0.7 % of its perplexity
    assert small[0].precision == "int8"
    assert 0 < abs(example.bits(small, text) - example.bits(model, text)) < np.log2(1.007)
    said = example.sample(model, text, "And God", 100, seed=1)
    assert len(said) == len("And God") + 100
    assert said.startswith("And God")
    assert said == example.sample(model, text, "And God", 100, seed=1)
    assert said != example.sample(model, text, "And God", 100, seed=2)


@pytest.mark.parametrize("cell", ["gru", "lstm"])
def test_pytorch_learns_the_characters_as_well(cell: str) -> None:
    torch = require("torch")
    example = load("char_language_model")
    text = example.Text(60_000)
    options = {"epochs": 3, "lr": 0.005}
    model = example.make(len(text.letters), cell, 32, seed=0)
    example.train(model, text, **options)
    theirs = example.train_torch(torch, cell, 32, 0, text, **options)
    assert model != theirs
    assert example.bits(model, text) == pytest.approx(example.bits(theirs, text), rel=0.05)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_script_about_characters(precision: str) -> None:
    lines = run("char_language_model", "--quick", "--precision", precision)
    bits = {line.split()[0]: float(line.split()[1]) for line in lines[2:4]}
    assert set(bits) == {"bigram", "lstmcore"}
    assert 2.5 < bits["lstmcore"] < bits["bigram"]
    assert lines[-1].startswith("And God said")


def test_gru_forecasts_beat_the_naive_ones() -> None:
    example = load("forecast")
    baseline, models = example.Baseline, example.lc.baselines
    errors, forecasts = example.evaluate(
        {
            "gru": example.GRUs(count=3, hidden=16, epochs=60, seed=0),
            "ar": baseline(models.AR(9)),
            "markov": example.MarkovChain(),
            "seasonal": baseline(models.SeasonalNaive(11)),
            "naive": baseline(models.SeasonalNaive(1)),
        }
    )
    next_year = {name: error[0] for name, error in errors.items()}
    assert next_year["gru"] < min(next_year["naive"], next_year["seasonal"], next_year["markov"])
    # What needs no model, by hand: the windows and years are those that they should be.
    years, spots = example.YEAR, example.SPOTS
    first = int(np.flatnonzero(years == 1921)[0])
    count = len(spots) - first - 10
    assert {y.shape for y in forecasts.values()} == {(11, count)}
    last = spots[first - 1 : first - 1 + count]
    np.testing.assert_array_equal(forecasts["naive"], np.tile(last, (11, 1)))
    for h in range(11):
        before = spots[first - 11 + h : first - 11 + h + count]
        np.testing.assert_array_equal(forecasts["seasonal"][h], before)
        truth = spots[first + h : first + h + count]
        by_hand = np.sqrt(((before - truth) ** 2).mean())
        assert errors["seasonal"][h] == pytest.approx(by_hand)


def test_the_script_about_sunspots(tmp_path: Path) -> None:
    require("matplotlib")
    picture = tmp_path / "pictures" / "forecast.png"
    lines = run("forecast", "--quick", "--picture", str(picture))
    assert len(lines) == 7
    assert [line[:8].strip() for line in lines[2:]] == [
        "2 GRUs", "AR(9)", "Markov c", "seasonal", "naive",
    ]  # fmt: skip
    assert all(float(field) > 0 for line in lines[2:] for field in line[14:].split())
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_year_without_a_forecast_is_refused() -> None:
    command = [sys.executable, str(EXAMPLES / "forecast.py"), "--from-year", "2005"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "within 1921 to 1998" in done.stderr


def test_dates_are_translated() -> None:
    example = load("translation")
    dates, test = example.draw(3000, 200, seed=0)
    assert not set(dates.iso) & set(test.iso)
    model = example.make(64, seed=0)
    example.train(model, dates, epochs=6, lr=0.01, seed=0)
    found = example.translate(model, test.written)
    right = np.mean([a == b for a, b in zip(found, test.iso, strict=True)])
    assert right > 0.8
    alone = [example.translate(model, [text])[0] for text in test.written[:20]]
    assert alone == found[:20]
    by_beam = example.translate(model, test.written, beam_size=3)
    assert np.mean([a == b for a, b in zip(by_beam, test.iso, strict=True)]) > 0.8


@pytest.mark.parametrize(
    ("day", "th"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (11, "11th"), (13, "13th"), (22, "22nd")]
)
def test_every_way_of_writing_a_date(day: int, th: str) -> None:
    example = load("translation")
    date, rng = example.datetime.date(1998, 3, day), np.random.default_rng(0)
    ways = {example.written(date, rng) for _ in range(300)}
    assert len(ways) == 10
    assert {f"march {th} 1998", f"the {th} of march, 1998", f"{day}.3.1998"} <= ways
    assert all(set(way) <= set(example.LETTERS.tokens) for way in ways)


def test_the_script_about_dates(tmp_path: Path) -> None:
    require("matplotlib")
    picture = tmp_path / "attention.png"
    lines = run("translation", "--quick", "--picture", str(picture))
    assert len(lines) == 9
    assert lines[-1].startswith("exact match ")
    assert float(lines[-1].split()[2].rstrip("%")) > 50
    assert picture.read_bytes().startswith(b"\x89PNG")
