"""The example of hourly demand: its table, its gaps, and what it forecasts."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.example_scripts import load, run
from helpers.paths import EXAMPLES
from helpers.peers import require


@pytest.fixture(scope="module")
def example() -> Any:
    require("pandas")
    return load("demand")


@pytest.fixture(scope="module")
def prepared(example: Any) -> Any:
    return example.prepare(example.make_table(0))


def test_gaps_are_filled_by_what_was_known(example: Any, prepared: Any) -> None:
    table = example.make_table(0)
    frame, whole, measured, scaler = prepared
    hours = np.arange(500 * 24)
    assert 0.01 < 1 - len(table) / len(hours) < 0.05
    known = np.isin(hours, (table.index - table.index[0]) // np.timedelta64(1, "h"))
    demand = scaler.inverse(frame["demand"]).to_numpy()
    np.testing.assert_allclose(demand[: len(known)][known], table["demand"], rtol=1e-12)
    assert np.array_equal(measured[known], np.ones(known.sum(), bool))
    last = np.maximum.accumulate(np.where(known, hours, 0))
    age = hours - last
    assert np.array_equal(np.isnan(demand), age > 3)
    assert (age > 3).any()
    short = (age > 0) & (age <= 3)
    np.testing.assert_allclose(demand[short], demand[last[short]])
    assert not measured[short].any()
    assert not whole["demand"].isna().any()


def test_the_calendar_is_that_of_the_hour(example: Any, prepared: Any) -> None:
    frame = prepared[0]
    hour = np.arange(len(frame))
    assert np.array_equal(frame["holiday"], np.isin(hour // 24, example.holidays(0)))
    assert np.array_equal(frame["day 5"], hour // 24 % 7 == 5)  # it begins on a Monday
    np.testing.assert_allclose(frame["cos"], np.cos(2 * np.pi * hour / 24), atol=1e-12)


def test_the_network_beats_what_knows_no_calendar(example: Any, prepared: Any) -> None:
    frame, whole, measured, _ = prepared
    model = example.train(frame, hidden=16, epochs=20, stride=8, seed=0)
    forecasts, quantiles, target, days = example.evaluate(frame, whole, model)
    demand = frame["demand"].to_numpy(dtype="float32")
    steps = days * 24 + np.arange(24)[:, None]
    np.testing.assert_array_equal(target, demand[steps])
    np.testing.assert_array_equal(forecasts["week before"], demand[steps - 168])
    np.testing.assert_array_equal(forecasts["day before"], demand[steps - 24])
    weight = measured[steps]
    errors = [lc.metrics.mae(y, target, weight=weight) for y in forecasts.values()]
    assert errors[0] < 0.8 * min(errors[1:])
    inside = (quantiles[..., 0] <= target) & (target <= quantiles[..., 2])
    assert 0.6 < inside.mean() < 0.95


def test_the_script_about_demand(example: Any, tmp_path: Path) -> None:
    require("matplotlib")
    picture = tmp_path / "pictures" / "demand.png"
    lines = run("demand", "--quick", "--picture", str(picture))
    assert lines[0] == "demand a day ahead, 70 days, 5 of them holidays; MW"
    assert [line[:20].strip() for line in lines[2:6]] == [
        "GRUs, median", "AR(168)", "week before", "day before",
    ]  # fmt: skip
    assert "quantiles, pinball loss" in lines[6]
    assert len(lines) == 7
    assert picture.read_bytes().startswith(b"\x89PNG")


def test_a_week_outside_the_test_is_refused() -> None:
    command = [sys.executable, str(EXAMPLES / "demand.py"), "--from-day", "400"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "within 410 to 493" in done.stderr
