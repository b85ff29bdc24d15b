"""Windows of tables: horizons, columns, panels, covariates, gaps, and frames of pandas."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore.data import Batch, windows

Array = np.ndarray[Any, np.dtype[Any]]

N, F = 30, 4
TABLE = np.arange(N * F, dtype=float).reshape(N, F)


# Steps and columns ----------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("horizon", [1, 3])
@pytest.mark.parametrize("stride", [1, 4])
def test_the_next_steps(stride: int, horizon: int, batch_first: bool) -> None:
    options: dict[str, Any] = {"horizon": horizon, "stride": stride, "batch_first": batch_first}
    x, target = windows(TABLE, 5, steps=2, target=[3, -4], **options)
    if batch_first:
        x, target = x.swapaxes(0, 1), target.swapaxes(0, 1)
    starts = range(0, N - 5 - horizon - 2 + 2, stride)
    assert x.shape == (5, len(starts), F)
    assert target.shape == (2, len(starts), 2)
    for w, start in enumerate(starts):
        assert np.array_equal(x[:, w], TABLE[start : start + 5])
        first = start + 5 + horizon - 1
        assert np.array_equal(target[:, w], TABLE[first : first + 2, [3, 0]])
    for column in (3, -1, np.int64(3)):
        _, one = windows(TABLE, 5, steps=2, target=column, **options)
        assert np.array_equal(one.T if batch_first else one, target[..., 0])
    single = windows(TABLE, 5, target=2, horizon=horizon, stride=stride)[1]
    starts = range(0, N - 5 - horizon + 1, stride)
    assert single.tolist() == [TABLE[start + 4 + horizon, 2] for start in starts]
    each = windows(TABLE, 5, target=[2], per_step=True, **options)[1]
    assert each.shape == ((len(starts), 5, 1) if batch_first else (5, len(starts), 1))


def test_the_last_window_ends_with_the_series() -> None:
    x, target = windows(np.arange(7.0), 4, steps=3)
    assert (x[:, :, 0].T.tolist(), target[:, :, 0].T.tolist()) == ([[0, 1, 2, 3]], [[4, 5, 6]])


def test_dtypes() -> None:
    assert windows(TABLE, 3)[0].dtype == np.float64
    assert windows(TABLE.astype("f4"), 3)[0].dtype == np.float32
    assert windows(TABLE, 3, dtype="float32")[1].dtype == np.float32
    assert windows(TABLE.astype(int), 3)[0].dtype == np.int64
    assert windows(TABLE.astype(int), 3, dtype="float32")[0].dtype == np.float32


# Panels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["column", "list", "names"])
def test_no_window_crosses_two_series(kind: str) -> None:
    rng = np.random.default_rng(0)
    ids = rng.permutation(np.repeat([7, 2, 5, 9], [10, 8, 3, 9]))  # rows of all of them mixed
    numbers = np.arange(N, dtype=float)
    if kind == "column":
        x, target = windows(np.stack([numbers, ids, numbers], axis=1), 3, steps=2, by=1)
        x = x[..., :1]
    else:
        by: Any = ids.tolist() if kind == "list" else [f"station {i}" for i in ids]
        x, target = windows(numbers, 3, steps=2, by=by)
    wanted = []
    for name in dict.fromkeys(ids.tolist()):  # in the order of their first rows
        rows = numbers[ids == name]
        wanted += [rows[start : start + 5] for start in range(len(rows) - 4)]
    assert len(wanted) == 6 + 4 + 0 + 5
    found = np.concatenate([x[..., 0], target[..., 0]]).T
    assert np.array_equal(found, wanted)


def test_what_is_known_and_what_does_not_change() -> None:
    ids = np.repeat([1, 2], 15)
    table = np.stack([np.arange(30.0), np.arange(30.0) % 7, ids * 100.0], axis=1)
    for batch_first in (False, True):
        x, target = windows(
            table, 4, steps=3, target=0, by=ids, known=[1], static=[2], batch_first=batch_first
        )
        assert list(x) == ["past", "known", "static"]
        past, known = (
            x[name].swapaxes(0, 1) if batch_first else x[name] for name in ("past", "known")
        )
        later = target.T if batch_first else target
        assert past.shape == (4, 18, 2)
        assert np.array_equal(known[..., 0], later % 7)
        assert np.array_equal(past[-1, :, 0] + 1, later[0])
        assert np.array_equal(x["static"][:, 0], np.where(later[0] < 15, 100, 200))
    x, _ = windows(table, 4, target=0, by=ids, static=2)
    assert list(x) == ["past", "static"]
    assert x["past"].shape == (4, 22, 2)


def test_a_network_of_all_three_trains_from_windows() -> None:
    rng = np.random.default_rng(0)
    ids = np.repeat([0, 1], 80)
    load, hour = rng.standard_normal(160), np.arange(160) % 12 / 12
    table = np.stack([load + ids, hour, ids], axis=1).astype("float32")
    data = windows(table, 6, steps=4, target=[0], by=ids, known=[1], static=[2])
    past, known, static = lc.Input(2), lc.Input(1), lc.Input(1, steps=False)
    _, h = lc.GRU(2, 8, seed=0)(past)
    y, _ = lc.GRU(2, 8, seed=1)(lc.concat([known, lc.repeat(static, like=known)]), h)
    model = lc.Model({"past": past, "known": known, "static": static}, lc.Linear(8, 1, seed=2)(y))
    history = lc.fit(
        model, data, batch_size=16, seed=0, loss=lc.losses.mse, epochs=5, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
        validation=data,
    )  # fmt: skip
    assert history.losses[-1] < history.losses[0]
    found = lc.evaluate(model, data, loss=lc.losses.mse, batch_size=7)["loss"]
    assert found == pytest.approx(lc.losses.mse(model(data[0]), data[1])[0], rel=1e-6)


# Gaps -----------------------------------------------------------------------------------------


def with_gaps() -> Array:
    table = TABLE.copy()
    table[8, 1] = table[20, 0] = np.nan
    return table


def test_missing_values_are_refused_dropped_or_kept() -> None:
    table = with_gaps()
    with pytest.raises(ValueError, match="series has 1 NaN of 30 in column 0, expected none: fill"):
        windows(table, 3)
    x, target = windows(table, 3, steps=2, target=0, missing="keep")
    assert_same_bits((x, target), tuple(a.copy() for a in (
        np.stack([table[s : s + 3] for s in range(26)], axis=1),
        np.stack([table[s + 3 : s + 5, 0] for s in range(26)], axis=1),
    )))  # fmt: skip
    lost = np.isnan(x).any(axis=(0, 2)) | np.isnan(target).any(axis=0)
    dropped, dropped_target = windows(table, 3, steps=2, target=0, missing="drop")
    assert 0 < lost.sum() < 26
    assert_same_bits((dropped, dropped_target), (x[:, ~lost], target[:, ~lost]))
    # A gap in a column that the target lacks, after the window, is none.
    starts = dropped[0, :, 0] / F
    assert 4 in starts  # its target has step 8
    known = windows(table, 3, steps=2, target=0, known=[1], missing="drop")[0]
    assert 4 not in known["past"][0, :, 0] / F
    whole = windows(TABLE, 3, missing="drop")[0]
    assert_same_bits(whole, windows(TABLE, 3)[0])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("steps", [None, 2])
@pytest.mark.parametrize("target", [0, [0, 1], None])
def test_missing_values_as_masks_and_weights(target: Any, steps: Any, batch_first: bool) -> None:
    table = with_gaps()
    options: dict[str, Any] = {"steps": steps, "target": target, "batch_first": batch_first}
    x, wanted = windows(table, 3, missing="keep", **options)
    batch = windows(table, 3, missing="mask", **options)
    assert isinstance(batch, Batch)
    assert (batch.lengths, batch.resets) == (None, None)
    assert np.array_equal(batch.x[..., F:], np.isnan(x))
    assert np.array_equal(batch.x[..., :F], np.nan_to_num(x))
    assert np.array_equal(batch.target, np.nan_to_num(wanted))
    assert np.array_equal(batch.weight, ~np.isnan(wanted))
    assert (batch.weight == 0).any()
    whole = windows(TABLE, 3, missing="mask", **options)
    assert whole.x.shape == batch.x.shape
    assert whole.weight.all()


def test_masked_windows_train_and_count_right() -> None:
    table = with_gaps() / 60 - 1
    batch = windows(table, 3, steps=2, target=[0, 1], missing="mask", batch_first=True)
    model = lc.Sequential(
        lc.GRU(2 * F, 5, batch_first=True, dtype="float64", seed=0),
        lc.LastStep(batch_first=True),
        lc.Linear(5, 2, dtype="float64", seed=1),
    )
    first = batch._replace(target=batch.target[:, 0], weight=batch.weight[:, 0])
    lc.fit(
        model, first, batch_size=4, seed=0, loss=lc.losses.mse, epochs=3, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    counts = first.weight > 0
    error = (model(first.x) - first.target)[counts]
    for size in (1, 4, None):
        found = lc.evaluate(model, first, loss=lc.losses.mse, batch_size=size)["loss"]
        assert found == pytest.approx((error**2).mean(), rel=1e-12)


@pytest.mark.parametrize("batch_first", [False, True])
def test_weights_of_steps_are_cut_with_their_rows(batch_first: bool) -> None:
    batch = windows(with_gaps(), 3, steps=3, known=[2], target=0, missing="mask",
                    batch_first=batch_first)  # fmt: skip
    cut = lc.data.Batches(*batch, batch_size=5, shuffle=False, batch_first=batch_first)
    axis = 0 if batch_first else 1
    parts = list(cut)
    assert len(parts) == 5
    for name in ("target", "weight"):
        whole = np.concatenate([getattr(part, name) for part in parts], axis)
        assert np.array_equal(whole, getattr(batch, name))
    assert np.array_equal(np.concatenate([p.x["known"] for p in parts], axis), batch.x["known"])


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("horizon", [1, 3])
def test_the_target_one_step_late(horizon: int, batch_first: bool) -> None:
    options: dict[str, Any] = {"horizon": horizon, "batch_first": batch_first, "previous": True}
    x, target = windows(TABLE, 3, steps=4, target=2, **options)
    assert list(x) == ["past", "previous"]
    assert np.array_equal(x["previous"][..., 0], target - F)
    table = TABLE.copy()
    table[10, 2] = np.nan
    x, target = windows(table, 3, steps=4, target=[2], missing="drop", **options)
    assert not np.isnan(x["previous"]).any()
    # Of the windows that would have step 10 in any part.
    used = 3 + 4 if horizon == 1 else 3 + 1 + 4  # with a gap between the window and the rest
    whole = windows(TABLE, 3, steps=4, **options)[1]
    rows = 0 if batch_first else 1
    assert whole.shape[rows] - target.shape[rows] == used
    masked = windows(table, 3, steps=4, target=[2], missing="mask", **options)
    assert (masked.x["previous"] == 0).sum() == (masked.weight == 0).sum() == 4


# Frames ---------------------------------------------------------------------------------------


@pytest.fixture
def pandas() -> Any:
    return require("pandas")


def test_frames_are_taken_by_name(pandas: Any) -> None:
    frame = pandas.DataFrame({"load": np.arange(12.0), "hour": np.arange(12) % 4, 3: 1.0})
    frame["station"] = pandas.array(["a"] * 6 + ["b"] * 6, dtype="string")
    options: dict[str, Any] = {"steps": 2, "by": "station"}
    x, target = windows(frame, 3, target="load", known=["hour"], static=3, **options)
    array = frame[["load", "hour", 3]].to_numpy().astype("float32")
    other, wanted = windows(
        array, 3, target=0, known=[1], static=2, steps=2, by=frame["station"].to_numpy(object)
    )
    assert_same_bits((x, target), (other, wanted))
    assert target.dtype == x["past"].dtype == np.float32
    double = windows(frame, 3, target=["load"], dtype="float64", **options)
    assert double[0].dtype == double[1].dtype == np.float64
    assert np.array_equal(double[1][..., 0], target)
    series = windows(frame["load"], 3, steps=2)
    assert_same_bits(series, windows(frame[["load"]], 3, steps=2))
    by_number = windows(frame.drop(columns="station"), 3, steps=2, target=0)[1]
    assert np.array_equal(by_number, windows(frame["load"], 3, steps=2)[1][..., 0])


def test_nullable_types_and_bools(pandas: Any) -> None:
    frame = pandas.DataFrame(
        {
            "whole": pandas.array([1, None, 3, 4, 5, 6], dtype="Int64"),
            "real": pandas.array([0.5, 1.5, None, 2.5, 3.5, 4.5], dtype="Float32"),
            "flag": pandas.array([True, False, True, None, True, False], dtype="boolean"),
            "plain": [True, False] * 3,
        }
    )
    x, _ = windows(frame, 2, missing="keep")
    nan = np.nan
    assert_same_bits(x[0], np.array(
        [[1, 0.5, 1, 1], [nan, 1.5, 0, 0], [3, nan, 1, 1], [4, 2.5, nan, 0]], "f4"
    ))  # fmt: skip
    with pytest.raises(ValueError, match="1 NaN of 6 in column 'whole'"):
        windows(frame, 2)
    with pytest.raises(ValueError, match=r"1 NaN of 6 in column 'real'.* known or static"):
        windows(frame, 2, steps=1, known="real", missing="mask")
    assert len(windows(frame[["plain", "real"]], 2, missing="drop")[1]) == 1


def test_columns_without_numbers_are_named(pandas: Any) -> None:
    frame = pandas.DataFrame({"load": [1.0, 2.0, 3.0], "town": ["a", "b", "c"]})
    with pytest.raises(TypeError, match=r"series\['town'\] has dtype .*, expected numbers: col"):
        windows(frame, 2)
    frame["town"] = pandas.date_range("2024-01-01", periods=3)
    with pytest.raises(TypeError, match=r"series\['town'\] .*: dates belong in the index"):
        windows(frame, 2)
    frame["town"] = pandas.Categorical(["a", "b", "a"])
    with pytest.raises(TypeError, match=r"series\['town'\] has dtype category"):
        windows(frame, 2)
    with pytest.raises(ValueError, match="target is 'lode', expected one of the columns 'load'"):
        windows(frame[["load"]], 2, target="lode")
    twice = pandas.DataFrame(np.ones((3, 2)), columns=["a", "a"])
    with pytest.raises(ValueError, match="several columns 'a'"):
        windows(twice, 2)
    with pytest.raises(ValueError, match=r"series is empty, of shape \(0, 1\)"):
        windows(frame[["load"]][:0], 2)


def test_dates_that_are_not_regular_are_refused(pandas: Any) -> None:
    dates = pandas.date_range("2024-03-30", periods=48, freq="h", tz="Europe/Berlin")
    frame = pandas.DataFrame({"load": np.arange(48.0)}, index=dates)  # the clock goes forward
    assert windows(frame, 3)[0].shape == (3, 45, 1)
    frame.index.freq = None
    assert windows(frame, 3)[0].shape == (3, 45, 1)
    gap = frame.drop(frame.index[[7, 8]])
    message = r"goes from 2024-03-30T05:00.* to 2024-03-30T08:00.*reset_index\(drop=True\)"
    with pytest.raises(ValueError, match=message):
        windows(gap, 3)
    assert windows(gap.reset_index(drop=True), 3)[0].shape == (3, 43, 1)
    with pytest.raises(ValueError, match="expected regular increasing dates"):
        windows(frame[::-1], 3)
    months = pandas.date_range("2024-01-31", periods=9, freq="ME")
    assert windows(pandas.Series(np.arange(9.0), index=months), 3)[0].shape == (3, 6, 1)
    # Two series with the same dates, one below the other.
    panel = pandas.concat([frame.assign(id=0), frame[10:].assign(id=1)])
    assert windows(panel, 3, by="id")[0].shape == (3, 45 + 35, 1)
    with pytest.raises(ValueError, match="expected regular increasing dates"):
        windows(panel, 3)


def test_arrays_need_no_pandas() -> None:
    code = (
        "import sys; sys.modules['pandas'] = None\n"
        "import lstmcore as lc; print(lc.data.windows([1.0, 2.0, 3.0], 2)[1])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[[3.]]", done.stderr


def test_a_model_says_how_to_convert() -> None:
    x, target = windows(TABLE, 3)
    model = lc.Sequential(lc.GRU(F, 3), lc.LastStep(), lc.Linear(3, F))
    with pytest.raises(TypeError, match=r'dtype float64, .*: \.astype\("float32"\) converts it'):
        model(x)
    with pytest.raises(TypeError, match=r'\.astype\("float32"\) converts it'):
        lc.fit(model, (x, target), loss=lc.losses.mse, progress=False,
               optimizer=lc.optim.SGD(model.parameters()))  # fmt: skip


# Bad input ------------------------------------------------------------------------------------

take = partial(windows, TABLE, 3)
MIXED = np.array(["a", 1] * 15, object)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: take(steps=0), ValueError, "steps is 0, expected at least 1"),
        (lambda: take(steps=2, per_step=True), ValueError, "steps is 2 and per_step is True"),
        (lambda: take(steps=28), ValueError, r"30 steps, .* size \+ horizon \+ steps - 1 = 31"),
        (lambda: take(target=4), ValueError, "target is 4, expected one of 4 columns, 0 to 3"),
        (lambda: take(target=-5), ValueError, "target is -5"),
        (lambda: take(target="load"), ValueError, "target is 'load', expected one of 4 columns"),
        (lambda: take(target=True), ValueError, "target is True"),
        (lambda: take(target=[]), ValueError, "target is empty"),
        (lambda: take(target=[0, -4]), ValueError, r"target is \[0, -4\], which names a column tw"),
        (lambda: take(known=0), ValueError, "known is given without steps"),
        (lambda: take(previous=True), ValueError, "previous is given without steps"),
        (lambda: take(previous=1), TypeError, "previous is 1"),
        (lambda: take(static=1), ValueError, "static column 1 has 1.0 and 5.0 in one series"),
        (lambda: windows(np.ones((5, 1)), 2, static=0), ValueError, "static names all columns"),
        (lambda: take(missing="skip"), ValueError, "missing is 'skip', expected one of 'raise'"),
        (lambda: take(by=[1, 2]), ValueError, r"by has shape \(2,\), expected \(30,\)"),
        (lambda: take(by=9), ValueError, "by is 9, expected one of 4 columns"),
        (lambda: take(by=0), ValueError, r"the longest series has 1 steps, expected at least size"),
        (lambda: windows(TABLE[:, 0], 3, by=0), ValueError, r"expected \(N, F\), to have by"),
        (lambda: take(by=MIXED), TypeError, "by has values that cannot be compared"),
        (
            lambda: take(by=np.where(np.arange(N) < N - 2, 1.0, np.nan)),
            ValueError,
            rf"by has no value in 2 of {N} rows, the first of them {N - 2}",
        ),
        (
            lambda: take(by=np.array([None, "a"] * N, object)[:N]),
            ValueError,
            "by has no value in .* the first of them 0",
        ),
        (lambda: take(dtype="int32"), ValueError, "dtype is 'int32'"),
        (
            lambda: windows(TABLE * np.nan, 3, missing="drop"),
            ValueError,
            "every window of 27 has NaN",
        ),
    ],
)
def test_windows_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
