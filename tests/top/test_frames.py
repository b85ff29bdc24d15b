"""Frames of pandas where arrays are taken: nullable types, columns by name in messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require


@pytest.fixture
def pandas() -> Any:
    return require("pandas")


def frame(pandas: Any, missing: Any = 2) -> Any:
    return pandas.DataFrame({
        "count": pandas.array([1, 2, missing], dtype="Int64"),
        "demand": pandas.array([0.5, 1.5, 2.5], dtype="Float32"),
        "open": pandas.array([True, False, True], dtype="boolean"),
        "hour": [3, 4, 5],
    })  # fmt: skip


def test_nullable_types_are_numbers(pandas: Any) -> None:
    layer = lc.Linear(4, 2, seed=0)
    plain = np.array([[1, 0.5, 1, 3], [2, 1.5, 0, 4], [2, 2.5, 1, 5]], "f4")
    assert_same_bits(layer(frame(pandas)), layer(plain))
    gru = lc.GRU(4, 2, seed=0)
    assert_same_bits(gru(frame(pandas))[0], gru(plain)[0])
    target = frame(pandas)["demand"]
    assert lc.losses.mse(target, plain[:, 1])[0] == 0.0
    assert lc.metrics.mae(plain[:, 0], frame(pandas)["count"]) == 0.0


def test_what_is_missing_is_nan(pandas: Any) -> None:
    y = lc.Linear(4, 2, seed=0)(frame(pandas, None))
    assert np.isnan(y).any(axis=1).tolist() == [False, False, True]


def test_columns_that_are_no_numbers_are_named(pandas: Any) -> None:
    layer = lc.Linear(2, 1, seed=0)
    text = pandas.DataFrame({"demand": [1.0, 2.0], "town": ["A", "B"]})
    with pytest.raises(TypeError, match=r"x\['town'\] has dtype .*, expected numbers"):
        layer(text)
    dates = pandas.DataFrame({"when": pandas.date_range("2024", periods=2), "demand": [1.0, 2.0]})
    with pytest.raises(TypeError, match=r"x\['when'\] has dtype datetime64.*, expected numbers"):
        layer(dates)
    with pytest.raises(TypeError, match=r"pred has dtype .*, expected numbers"):
        lc.losses.mse(text["town"], [1.0, 2.0])


def test_a_frame_is_resampled_by_a_frequency(pandas: Any) -> None:
    index = pandas.date_range("2024", periods=3, freq="2h")
    given = pandas.DataFrame({"demand": [1.0, 3.0, 5.0]}, index=index)
    expected = lc.data.resample(given, step="1h")
    assert expected["demand"].tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert lc.data.resample(given, step="h").equals(expected)
    with pytest.raises(TypeError, match=r"values is 'h' .* beside a frame.* expected step='h'"):
        lc.data.resample(given, "h")


def test_a_standardizer_in_extra_says_how_it_is_kept(tmp_path: Any) -> None:
    scaler = lc.data.Standardizer().fit(np.ones((3, 2)))
    with pytest.raises(TypeError, match=r"such as its state_dict\(\), of which Standardizer.from"):
        lc.save(lc.Linear(2, 1), tmp_path / "model.safetensors", extra={"scaler": scaler})
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("step", ["MS", "QS", "B", "2MS"])
def test_steps_of_changing_length_are_refused(pandas: Any, step: str) -> None:
    """Of which pandas takes some for milliseconds."""
    index = pandas.date_range("2020", periods=4, freq="D")
    days = pandas.DataFrame({"y": np.arange(4.0)}, index=index)
    with pytest.raises(ValueError, match=f"the step '{step}' is .*not always of the same length"):
        lc.data.resample(days, step=step)
    for same in ("D", "1D", "24h", pandas.Timedelta(days=1)):
        assert len(lc.data.resample(days, step=same)) == 4
    end = index[0] + pandas.Timedelta(milliseconds=3)
    assert len(lc.data.resample(days, step="ms", stop=end, max_gap="1D")) == 4
