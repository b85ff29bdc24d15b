"""Series made ready: gaps filled on a regular grid, columns standardised, kept with the model."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore.data import Standardizer, resample, windows

Array = np.ndarray[Any, np.dtype[Any]]
NAN = np.nan


@pytest.fixture
def pandas() -> Any:
    return require("pandas")


# Gaps -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["linear", "previous"])
def test_every_column_has_its_own_gaps(method: str) -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.2, 1.5, 60))
    values = rng.standard_normal((60, 3))
    values[rng.random((60, 3)) < 0.4] = NAN
    grid, taken, filled = resample(times, values, 0.5, method=method, return_filled=True)
    for column in range(3):
        there = ~np.isnan(values[:, column])
        t, y = times[there], values[there, column]
        for now, value, was_filled in zip(grid, taken[:, column], filled[:, column]):
            before, after = t[t <= now], t[t >= now]
            if len(before) == 0 or (method == "linear" and len(after) == 0):
                assert np.isnan(value)
                assert not was_filled
            elif method == "linear":
                assert value == pytest.approx(np.interp(now, t, y), abs=1e-12)
                assert was_filled == (after[0] - before[-1] > 0.5)
            else:
                assert value == y[t <= now][-1]
                assert was_filled == (now - before[-1] >= 0.5)
    assert filled.any()
    assert not filled.all()


def test_what_was_measured_is_not_filled() -> None:
    values = np.array([1.0, NAN, NAN, 4.0, 5.0, NAN])
    for method, wanted in (
        ("linear", [1, 2, 3, 4, 5, NAN]),
        ("previous", [1, 1, 1, 4, 5, 5]),
    ):
        _, taken, filled = resample(
            np.arange(6) * 0.1, values, 0.1, method=method, return_filled=True
        )
        np.testing.assert_allclose(taken, wanted, atol=1e-12)
        last = method == "previous"
        assert filled.tolist() == [False, True, True, False, False, last]


def test_long_gaps_stay() -> None:
    times, values = [0.0, 2.0, 6.0, 7.0], [0.0, 2.0, 6.0, 7.0]
    _, taken, filled = resample(times, values, 1.0, max_gap=2.0, return_filled=True)
    assert_same_bits(taken, np.array([0.0, 1, 2, NAN, NAN, NAN, 6, 7]))
    assert np.flatnonzero(filled).tolist() == [1]
    _, taken, filled = resample(
        times, values, 1.0, max_gap=2.0, method="previous", return_filled=True
    )
    assert_same_bits(taken, np.array([0.0, 0, 2, 2, 2, NAN, 6, 7]))
    assert np.flatnonzero(filled).tolist() == [1, 3, 4]
    hours = np.array(["2024-01-01T00", "2024-01-01T02", "2024-01-01T06"], "M8[h]")
    _, taken = resample(
        hours, [0.0, 2.0, 6.0], np.timedelta64(1, "h"), max_gap=np.timedelta64(120, "m")
    )
    assert np.isnan(taken).tolist() == [False] * 3 + [True] * 3 + [False]


def test_frames_are_resampled_by_their_index(pandas: Any) -> None:
    dates = pandas.DatetimeIndex(
        ["2024-03-31 00:30", "2024-03-31 01:00", "2024-03-31 04:00", "2024-03-31 05:10"],
        tz="Europe/Berlin", name="when",
    )  # fmt: skip
    frame = pandas.DataFrame(
        {"load": [0.0, 1.0, 3.0, 5.0], "wind": pandas.array([1, None, 3, 4], dtype="Int64")},
        index=dates,
    )
    regular, filled = resample(frame, step="1h", start="2024-03-31 01:00", return_filled=True)
    # Two hours later by the clock is the next but one: the clock goes forward.
    assert regular.index.tz is not None
    assert regular.index.name == "when"
    assert [t.hour for t in regular.index] == [1, 3, 4, 5]
    np.testing.assert_allclose(regular["load"][:3], [1, 2, 3])
    assert filled["load"].tolist() == [False, True, False, True]
    assert list(regular.columns) == list(filled.columns) == ["load", "wind"]
    assert windows(regular, 2)[0].shape == (2, 2, 2)
    series = resample(frame["load"], step=pandas.Timedelta("1h"), start="2024-03-31 01:00")
    assert series.name == "load"
    assert np.array_equal(series, regular["load"])
    numbered = pandas.DataFrame({"a": [0.0, 2.0, 4.0]}, index=[0, 2, 4])
    assert resample(numbered, step=1)["a"].tolist() == [0, 1, 2, 3, 4]
    limited = resample(frame, step="1h", start="2024-03-31 01:00", max_gap="90min")
    assert np.isnan(limited["load"]).tolist() == [False, True, False, False]
    # Or the times as a column beside values.
    columns = frame.tz_localize(None).reset_index()
    hour = np.timedelta64(1, "h")
    times, values = resample(columns["when"], columns["load"], hour)
    alone = resample(frame["load"].tz_localize(None), step="1h")
    assert np.array_equal(times, alone.index)
    assert np.array_equal(values, alone)
    with pytest.raises(ValueError, match=r"index\[1\] is .*, before index\[0\]"):
        resample(frame[::-1], step="1h")


# Standardising --------------------------------------------------------------------------------


def test_standardizer_against_scikit_learn() -> None:
    sklearn = require("sklearn.preprocessing")
    rng = np.random.default_rng(0)
    x = rng.standard_normal((40, 4)) * [1, 1e-6, 1e6, 1] + [0, 5, -1e7, 3]
    x[:, 3] = 7.3
    x[rng.random((40, 4)) < 0.2] = NAN
    x[0] = [1, 1, 1, 7.3]
    theirs, ours = sklearn.StandardScaler().fit(x), Standardizer().fit(x)
    np.testing.assert_allclose(ours.mean, theirs.mean_, rtol=1e-14)
    np.testing.assert_allclose(ours.scale, theirs.scale_, rtol=1e-12)
    np.testing.assert_allclose(ours.transform(x), theirs.transform(x), rtol=1e-9, atol=1e-12)
    assert ours.scale[3] == 1.0
    assert set(ours.transform(x)[~np.isnan(x[:, 3]), 3]) == {0.0}


@pytest.mark.parametrize("shape", [(50,), (50, 3), (10, 5, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
def test_there_and_back(dtype: str, shape: tuple[int, ...]) -> None:
    x = (np.random.default_rng(1).standard_normal(shape) * 9 + 100).astype(dtype)
    before = x.copy()
    scaler = Standardizer().fit(x)
    z = scaler.transform(x)
    assert_same_bits(x, before)
    kept = "float32" if dtype == "float32" else "float64"
    assert (z.shape, z.dtype) == (shape, kept)
    axes = tuple(range(max(len(shape) - 1, 1)))
    np.testing.assert_allclose(z.mean(axes), 0, atol=1e-5 if kept == "float32" else 1e-14)
    np.testing.assert_allclose(z.std(axes), 1, rtol=1e-5 if kept == "float32" else 1e-14)
    eps = np.finfo(kept).eps
    np.testing.assert_allclose(scaler.inverse(z), x, rtol=4 * eps)


def test_constant_columns_are_exact() -> None:
    x = np.full((7, 2), 0.1)
    x[:, 1] = np.arange(7)
    scaler = Standardizer().fit(x)
    assert not scaler.transform(x)[:, 0].any()
    assert_same_bits(scaler.inverse(scaler.transform(x))[:, 0], x[:, 0])


def test_one_column_of_predictions() -> None:
    x = np.random.default_rng(2).standard_normal((30, 3)) * [1, 2, 3] + [10, 20, 30]
    scaler = Standardizer().fit(x)
    y = np.random.default_rng(3).standard_normal((4, 5, 2))
    np.testing.assert_allclose(scaler.inverse(y, columns=1), scaler.mean[1] + scaler.scale[1] * y)
    both = scaler.inverse(y, columns=[2, 0])
    np.testing.assert_allclose(both[..., 1], scaler.mean[0] + scaler.scale[0] * y[..., 1])
    np.testing.assert_allclose(scaler.transform(both, [2, 0]), y)
    assert scaler.inverse(0.0, columns=2) == scaler.mean[2]


def test_frames_are_standardised_by_name(pandas: Any) -> None:
    frame = pandas.DataFrame(
        {"load": [1.0, 2.0, 6.0], "cars": pandas.array([1, None, 5], dtype="Int64")},
        index=pandas.date_range("2024-01-01", periods=3),
    )
    scaler = Standardizer().fit(frame)
    assert scaler.mean.tolist() == [3.0, 3.0]
    assert repr(scaler) == "<Standardizer of 'load', 'cars'>"
    z = scaler.transform(frame[["cars", "load"]])
    assert list(z.columns) == ["cars", "load"]
    assert z.index.equals(frame.index)
    assert z["cars"].iloc[[0, 2]].tolist() == [-1.0, 1.0]
    assert np.isnan(z["cars"].iloc[1])
    np.testing.assert_allclose(scaler.inverse(z)["load"], frame["load"], rtol=1e-15)
    only = scaler.transform(frame["load"])
    assert only.name == "load"
    assert np.array_equal(only, z["load"])
    np.testing.assert_allclose(scaler.inverse([0.0, 1.0], columns="load")[0], 3.0)
    assert scaler.inverse(np.zeros((2, 1)), columns=["cars"]).tolist() == [[3.0], [3.0]]
    with pytest.raises(ValueError, match="a column of x is 'wind', expected one of the columns 'l"):
        scaler.transform(frame.assign(wind=1.0))
    with pytest.raises(ValueError, match="x has no number in column 'cars'"):
        Standardizer().fit(frame.assign(cars=NAN))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda s: Standardizer().transform([1.0]), ValueError, "call fit first"),
        (lambda s: Standardizer().state_dict(), ValueError, "call fit first"),
        (lambda s: s.transform([1.0, 2.0, 3.0]), ValueError, r"x has shape \(3,\), expected \(.*2"),
        (lambda s: s.inverse([1.0], columns=2), ValueError, "columns is 2, expected one of 2 col"),
        (lambda s: s.inverse([1.0], columns=[0, 1]), ValueError, r"x has shape \(1,\)"),
        (lambda s: s.transform(["a"]), TypeError, "x is .*, expected numbers"),
        (lambda s: s.fit([[1.0, np.inf]]), ValueError, "x has infinity in column 1"),
        (lambda s: s.fit([[1.0, NAN]]), ValueError, "x has no number in column 1"),
        (lambda s: s.fit(np.ones((0, 2))), ValueError, "x has no number in column 0"),
        (lambda s: s.fit([[1e300], [-1e300]]), ValueError, "too large or too close"),
        (lambda s: s.from_state_dict(3), TypeError, "state is 3"),
        (lambda s: s.from_state_dict({"mean": [1]}), ValueError, "state has the keys"),
        (
            lambda s: s.from_state_dict({**s.state_dict(), "scale": [1.0, 0.0]}),
            ValueError,
            "a scale that is not above 0",
        ),
        (
            lambda s: s.from_state_dict({**s.state_dict(), "names": ["a"]}),
            ValueError,
            "of sizes",
        ),
    ],
)
def test_standardizer_refuses(
    call: Callable[[Standardizer], Any], error: type[Exception], message: str
) -> None:
    scaler = Standardizer().fit([[1.0, 2.0], [3.0, 5.0]])
    before = copy.deepcopy(scaler)
    with pytest.raises(error, match=message):
        call(scaler)
    assert scaler == before


# Beside the model -----------------------------------------------------------------------------


def test_a_standardizer_is_kept_with_its_model(tmp_path: Path, pandas: Any) -> None:
    path = tmp_path / "model.safetensors"
    rng = np.random.default_rng(0)
    frame = pandas.DataFrame(rng.standard_normal((20, 2)) / 3, columns=["load", "wind"])
    scaler = Standardizer().fit(frame)
    model = lc.Sequential(lc.GRU(2, 3, seed=0), lc.Linear(3, 2, seed=1))
    assert dict(model.extra) == {}
    lc.save(model, path, extra={"scaler": scaler.state_dict(), "window": np.int64(24)})
    loaded = lc.load(path)
    assert loaded == model
    assert loaded.extra["window"] == 24
    again = Standardizer.from_state_dict(loaded.extra["scaler"])
    assert again == scaler
    assert again.names == ("load", "wind")
    assert_same_bits(again.transform(frame).to_numpy(), scaler.transform(frame).to_numpy())
    # What was loaded is kept by copies, and written again.
    for one in (copy.deepcopy(loaded), pickle.loads(pickle.dumps(loaded))):
        lc.save(one, path)
        assert lc.load(path).extra == loaded.extra
    lc.save(loaded, path, extra={})
    assert dict(lc.load(path).extra) == {}


def test_extra_holds_plain_values(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    extra = {
        "a": [1, 2.5, None, True, "ü"], "b": {"c": (1, 2)}, "d": np.arange(4.0).reshape(2, 2),
        "e": 0.1 + 0.2, "f": np.float32(0.1),
    }  # fmt: skip
    lc.save(lc.GRU(1, 1), path, extra=extra)
    wanted = {
        "a": [1, 2.5, None, True, "ü"], "b": {"c": [1, 2]}, "d": [[0.0, 1.0], [2.0, 3.0]],
        "e": 0.1 + 0.2, "f": float(np.float32(0.1)),
    }  # fmt: skip
    assert lc.load(path).extra == wanted
    assert json.dumps(lc.load(path).extra) == json.dumps(wanted)


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    ("extra", "error", "message"),
    [
        ({"a": object()}, TypeError, r"extra\['a'\] is <object"),
        ({"a": [1, {2: 3}]}, TypeError, r"extra\['a'\]\[1\] has the key 2, expected strings"),
        ({"a": NAN}, ValueError, r"extra\['a'\] is nan, expected a finite number"),
        ({"a": np.array([1.0, np.inf])}, ValueError, r"extra\['a'\]\[1\] is inf"),
        ({"a": deep(21)}, ValueError, "nested too deep"),
        ({"a": 2**63}, ValueError, r"extra\['a'\] is 9223372036854775808, expected"),
        ({"a": "x" * 2**20}, ValueError, "the description and extra are .* long"),
        ([1], TypeError, r"extra is \[1\] \(list\), expected a dict"),
    ],
)
def test_extra_refuses(extra: Any, error: type[Exception], message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    with pytest.raises(error, match=message):
        lc.save(lc.GRU(1, 1), path, extra=extra)
    assert not path.exists()


def test_extra_refuses_half_a_character(tmp_path: Path) -> None:
    for extra in ({"a": chr(0xD800)}, {chr(0xD800): 1}):
        with pytest.raises((ValueError, TypeError), match=r"expected (text that UTF-8|strings)"):
            lc.save(lc.GRU(1, 1), tmp_path / "model.safetensors", extra=extra)


def test_a_file_whose_extra_is_no_dict_is_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.safetensors"
    dumps = json.dumps

    def wrong(value: Any, **options: Any) -> str:
        if isinstance(value, dict) and "extra" in value:
            value = {**value, "extra": [1]}
        return dumps(value, **options)

    monkeypatch.setattr(json, "dumps", wrong)
    lc.save(lc.GRU(1, 1), path, extra={"a": 1})
    monkeypatch.undo()
    with pytest.raises(ValueError, match="damaged: what is kept beside the model is no dict"):
        lc.load(path)


def test_an_index_that_is_not_in_order_says_what_puts_it_in_order() -> None:
    pandas = require("pandas")
    hours = pandas.date_range("2024-01-01", periods=3, freq="h", tz="Europe/Vienna")
    frame = pandas.DataFrame({"a": [1.0, 2.0, 3.0]}, index=hours)
    mixed = frame.iloc[[2, 0, 1]]
    message = r"index\[1\] is 2024-01-01 00:00:00\+01:00, before index\[0\].*frame\.sort_index\(\)"
    with pytest.raises(ValueError, match=message):
        lc.data.resample(mixed, step="1h")
    assert lc.data.resample(mixed.sort_index(), step="1h").equals(frame)
    with pytest.raises(ValueError, match=r"index\[0\] and index\[1\] are both .*frame\[~"):
        lc.data.resample(frame.iloc[[0, 0, 1]], step="1h")
    with pytest.raises(TypeError, match=r"the index of the frame has dtype .*, expected its times"):
        lc.data.resample(frame.set_axis(["a", "b", "c"]), step="1h")
