"""The examples with scikit-learn's tools, on shorter schedules."""

from __future__ import annotations

import re

import numpy as np

from helpers.example_scripts import load, run
from helpers.peers import require

require("sklearn")


def test_the_grid_search_on_vowels() -> None:
    lines = run("sklearn_vowels", "--quick")
    assert [line[:20].strip() for line in lines] == [
        "SequenceClassifier", "logistic regression", "support vectors",
    ]  # fmt: skip
    right = [float(re.search(r"([\d.]+) % right", line)[1]) for line in lines]  # type: ignore[index]
    assert right[0] > 70
    assert min(right[1:]) > 90
    assert "hidden_size 16" in lines[0]


def test_the_forecast_of_demand() -> None:
    require("pandas")
    lines = run("sklearn_forecast", "--quick")
    scores = [float(line.split()[-3]) for line in lines[:2]]
    assert scores[0] < scores[1] < 1
    assert lines[3].startswith("the first: 2024-02-16 00:00:00 ")
    errors = {line[:12].strip(): float(line[12:]) for line in lines[5:]}
    assert list(errors) == ["Forecaster", "week before", "day before"]
    assert errors["week before"] == 3.41
    assert errors["Forecaster"] < 6


def test_the_table_knows_tomorrow() -> None:
    require("pandas")
    frame = load("sklearn_forecast").prepare(0)
    assert np.array_equal(frame["tomorrow"][:-24], frame["free"][24:])
    assert not frame.isna().any().any()
    assert 2 / 7 < frame["free"].mean() < 0.4
