"""The data helpers: batches, windows, regular steps, vocabularies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore.data import Batches, Buckets, Pairs, Vocabulary, columns, pad, resample, windows

Array = np.ndarray[Any, np.dtype[Any]]


# Batches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_batches_keep_rows_together(batch_first: bool, per_step: bool) -> None:
    rng = np.random.default_rng(0)
    x, lengths, resets = rng.random((5, 7, 2)), rng.integers(0, 6, 7), rng.random((5, 7)) < 0.5
    target = rng.random((5, 7)) if per_step else np.arange(7)
    if batch_first:
        x, resets = x.swapaxes(0, 1), resets.T
        target = target.T if per_step else target
    batches = Batches(x, target, lengths, resets, batch_size=3, seed=0, batch_first=batch_first)
    seen = []
    for part, part_target, part_lengths, part_resets in batches:
        rows = part_resets.shape[0 if batch_first else 1]
        for i in range(rows):
            one = part[i] if batch_first else part[:, i]
            axis = 0 if batch_first else 1
            row = next(r for r in range(7) if np.array_equal(x.take(r, axis), one))
            seen.append(row)
            assert part_lengths[i] == lengths[row]
            assert np.array_equal(part_resets.take(i, axis), resets.take(row, axis))
            target_axis = axis if per_step else 0
            assert np.array_equal(part_target.take(i, target_axis), target.take(row, target_axis))
    assert sorted(seen) == list(range(7))
    assert len(batches) == 3


def test_the_order_is_that_of_the_seed_and_the_epoch() -> None:
    x = np.arange(10.0).reshape(1, 10, 1)

    def epochs(count: int, **options: Any) -> list[list[float]]:
        batches = Batches(x, np.arange(10), batch_size=4, **options)
        return [[v for batch, _ in batches for v in batch.ravel()] for _ in range(count)]

    first, second = epochs(2, seed=5)
    assert first != second
    assert epochs(2, seed=5) == [first, second]
    assert epochs(1, seed=6) != [first]
    assert epochs(1) != epochs(1)
    assert epochs(2, shuffle=False) == [list(range(10))] * 2


@pytest.mark.parametrize("make", ["batches", "buckets", "pairs"])
def test_the_order_goes_on_where_it_was_saved(make: str) -> None:
    def fresh(seed: int) -> Any:
        if make == "batches":
            return Batches(np.arange(10.0).reshape(1, 10), np.arange(10), batch_size=4, seed=seed)
        some = [np.arange(n) for n in range(1, 11)]
        if make == "buckets":
            return Buckets(some, np.arange(10), batch_size=4, seed=seed)
        return Pairs(some, some, start=90, end=91, batch_size=4, seed=seed)

    def epoch(batches: Any) -> str:
        return repr(list(batches))

    whole, resumed = fresh(1), fresh(2)
    first = epoch(whole)
    state = whole.state_dict()
    second = epoch(whole)
    resumed.load_state_dict(state)
    assert epoch(resumed) == second != first
    for bad in ({}, {"seed": 7}, {"seed": -1, "epoch": 7}, {"seed": 7, "epoch": -1}):
        with pytest.raises(ValueError, match=r"state|seed|epoch"):
            resumed.load_state_dict(bad)
        assert resumed.state_dict() == whole.state_dict()  # not by half


def test_rows_without_a_time_axis() -> None:
    batches = Batches(np.eye(3), [0, 1, 2], batch_size=2, shuffle=False, batch_first=True)
    assert [(x.shape, t.tolist()) for x, t in batches] == [((2, 3), [0, 1]), ((1, 3), [2])]


def test_square_targets_can_be_told_apart() -> None:
    x, target = np.zeros((4, 4, 2)), np.arange(16).reshape(4, 4)
    for per_step in (None, True, False):
        batches = Batches(x, target, batch_size=1, shuffle=False, per_step=per_step)
        first = next(iter(batches))[1]
        assert first.tolist() == ([[0, 1, 2, 3]] if per_step is False else [[0], [4], [8], [12]])


# Buckets --------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("per_step", [False, True])
def test_buckets_hand_on_every_sequence_whole(batch_first: bool, per_step: bool) -> None:
    rng = np.random.default_rng(1)
    sequences = [rng.random((n, 2)).astype("float32") for n in rng.integers(1, 30, 50)]
    targets: Any = [np.arange(len(s)) for s in sequences] if per_step else np.arange(50)
    buckets = Buckets(sequences, targets, batch_size=8, seed=0, batch_first=batch_first, padding=-9)
    seen = []
    for x, target, lengths in buckets:
        assert x.dtype == np.float32
        assert x.shape[int(batch_first)] == lengths.max()
        for i, length in enumerate(lengths):
            row = x[i] if batch_first else x[:, i]
            found = [k for k, s in enumerate(sequences) if np.array_equal(s, row[:length])]
            assert (row[length:] == -9).all()
            seen += found
            if per_step:
                steps = target[i] if batch_first else target[:, i]
                assert steps[:length].tolist() == list(range(length))
                assert not steps[length:].any()  # padded with 0, whatever x is padded with
            else:
                assert found == [target[i]]
    assert sorted(seen) == list(range(50))
    assert len(buckets) == 7


def test_buckets_hand_on_weights() -> None:
    sequences = [np.full(n, n) for n in range(1, 30)]
    weight = np.arange(29) / 7
    seen = []
    for batch in Buckets(sequences, np.arange(29), weight=weight, batch_size=8, seed=0):
        assert batch.resets is None
        assert np.array_equal(batch.weight, weight[batch.target])
        assert np.array_equal(batch.lengths, batch.target + 1)
        seen += batch.target.tolist()
    assert sorted(seen) == list(range(29))


def test_buckets_pad_little() -> None:
    rng = np.random.default_rng(2)
    sequences = [np.zeros(n) for n in rng.integers(1, 200, 1000)]
    needed = sum(map(len, sequences))

    def padded(batches: Any) -> int:
        return sum(x.size for x, _, _ in batches)

    buckets = Buckets(sequences, np.zeros(1000), batch_size=20, seed=0)
    assert padded(buckets) < 1.1 * needed
    lengths = [tuple(lengths) for _, _, lengths in buckets]
    assert lengths != sorted(lengths)  # the batches come in any order
    in_order = Buckets(sequences, np.zeros(1000), batch_size=20, shuffle=False)
    lengths = [tuple(lengths) for _, _, lengths in in_order]
    assert lengths == sorted(lengths)
    assert len(lengths) == len(buckets) == 50


def test_pairs_shift_the_target() -> None:
    sources, targets = [[5, 6, 7], [8]], [[3], [4, 4]]
    pairs = Pairs(sources, targets, start=1, end=2, batch_size=2, shuffle=False)
    ((source, previous), target, (source_lengths, target_lengths)), *rest = pairs
    assert not rest
    # The sums of the lengths are 5 and 4, so the second comes first.
    assert source.T.tolist() == [[8, 0, 0], [5, 6, 7]]
    assert previous.T.tolist() == [[1, 4, 4], [1, 3, 0]]
    assert target.T.tolist() == [[4, 4, 2], [3, 2, 0]]
    assert source_lengths.tolist() == [1, 3]
    assert target_lengths.tolist() == [3, 2]
    first = next(iter(Pairs(sources, targets, start=1, end=2, batch_size=2, batch_first=True)))
    assert first[1].shape == (2, 3)


def test_pairs_are_bucketed_by_both_lengths() -> None:
    """Rows whose source is long and target short, or the other way round, fit together."""
    sizes = [(1, 4), (4, 4), (2, 1), (5, 1), (3, 2), (1, 1)]  # by their sums: 5 2 0 4 3 1
    sources = [np.full(n, i) for i, (n, _) in enumerate(sizes)]
    targets = [np.full(n, i) for i, (_, n) in enumerate(sizes)]
    pairs = Pairs(sources, targets, start=90, end=91, batch_size=1, shuffle=False)
    rows = [int(source[0, 0]) for (source, _), _, _ in pairs]
    assert rows == sorted(range(6), key=lambda i: sum(sizes[i])) == [5, 2, 0, 4, 3, 1]
    assert rows != sorted(range(6), key=lambda i: sizes[i][0])
    assert rows != sorted(range(6), key=lambda i: sizes[i][1])


# Series ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("horizon", [1, 4])
@pytest.mark.parametrize("stride", [1, 2, 5])
def test_windows_are_what_they_say(size: int, horizon: int, stride: int) -> None:
    series = np.random.default_rng(0).random((20, 2))
    x, target = windows(series, size, horizon=horizon, stride=stride)
    steps, steps_target = windows(series, size, horizon=horizon, stride=stride, per_step=True)
    starts = range(0, 20 - size - horizon + 1, stride)
    assert x.shape == steps_target.shape == (size, len(starts), 2)
    assert np.array_equal(x, steps)
    for w, start in enumerate(starts):
        assert np.array_equal(x[:, w], series[start : start + size])
        assert np.array_equal(target[w], series[start + size - 1 + horizon])
        later = series[start + horizon : start + horizon + size]
        assert np.array_equal(steps_target[:, w], later)
    first, first_target = windows(series, size, horizon=horizon, stride=stride, batch_first=True)
    assert np.array_equal(first.swapaxes(0, 1), x)
    assert_same_bits(first_target, target)
    assert x.flags.owndata
    assert x.flags.c_contiguous


def test_windows_forecast_a_sine() -> None:
    """In one piece with fit: a linear recurrence is learned from windows of a series."""
    series = np.sin(0.3 * np.arange(200, dtype="float32"))
    data = windows(series, 12)
    model = lc.Sequential(lc.GRU(1, 16, seed=0), lc.LastStep(), lc.Linear(16, 1, seed=1))
    history = lc.fit(
        model, data, batch_size=32, seed=0, loss=lc.losses.mse, epochs=15, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
    )  # fmt: skip
    assert history.losses[-1] < 0.01  # its variance is 0.5


def test_resample_previous_never_looks_ahead() -> None:
    rng = np.random.default_rng(3)
    times = np.cumsum(rng.random(30) + 0.01)
    values = rng.random((30, 2))
    grid, taken = resample(times, values, 0.4, method="previous")
    for t, v in zip(grid, taken, strict=True):
        assert np.array_equal(v, values[np.flatnonzero(times <= t)[-1]])
    _, lines = resample(times, values, 0.4)
    for f in range(2):
        np.testing.assert_allclose(lines[:, f], np.interp(grid, times, values[:, f]), atol=1e-12)
    np.testing.assert_allclose(np.diff(grid), 0.4)
    assert grid[0] == times[0]
    assert grid[-1] <= times[-1] < grid[-1] + 0.4


@pytest.mark.parametrize("method", ["linear", "previous"])
def test_resample_of_regular_times_changes_nothing(method: str) -> None:
    times, values = np.arange(11) * 0.1, np.random.default_rng(4).random(11)
    grid, taken = resample(times, values, 0.1, method=method)
    assert len(grid) == 11  # though 3 * 0.1 is not 0.3
    np.testing.assert_allclose(taken, values, atol=1e-12)
    assert resample([3.0], [5.0], 1.0, method=method)[1].tolist() == [5.0]


def test_resample_dates() -> None:
    days = np.array(["2020-01-01", "2020-01-02", "2020-01-05"], "datetime64[D]")
    grid, taken = resample(days, [0.0, 1.0, 4.0], np.timedelta64(1, "D"))
    assert np.array_equal(grid, np.arange("2020-01-01", "2020-01-06", dtype="datetime64[D]"))
    np.testing.assert_allclose(taken, [0, 1, 2, 3, 4], atol=1e-12)
    grid, taken = resample(
        days, [0.0, 1.0, 4.0], np.timedelta64(12, "h"), start=np.datetime64("2020-01-02")
    )
    assert len(grid) == 7
    assert grid[1] == np.datetime64("2020-01-02T12")
    np.testing.assert_allclose(taken[:3], [1, 1.5, 2])
    for noon in (np.datetime64("2020-01-02T12"), "2020-01-02T12"):  # between two days
        grid, taken = resample(days, [0.0, 1.0, 4.0], np.timedelta64(1, "D"), start=noon)
        assert grid.tolist() == np.arange(noon, "2020-01-05", 24, dtype="M8[h]").tolist()
        np.testing.assert_allclose(taken, [1.5, 2.5, 3.5])


def test_resample_between() -> None:
    grid, taken = resample([0.0, 10.0], [0.0, 10.0], 2.0, start=3.0, stop=8.0)
    assert grid.tolist() == taken.tolist() == [3.0, 5.0, 7.0]
    float32 = resample([0.0, 10.0], np.array([0.0, 10.0], "float32"), 2.0)[1]
    assert float32.dtype == np.float32


# Text -----------------------------------------------------------------------------------------


def test_vocabulary_of_words() -> None:
    words = ["b", "a", "c", "a", "b", "a", "d"]
    vocabulary = Vocabulary(words)
    assert vocabulary.tokens == ["<pad>", "<unk>", "a", "b", "c", "d"]
    assert (vocabulary.padding, vocabulary.unknown, len(vocabulary)) == (0, 1, 6)
    assert vocabulary.decode(vocabulary.encode(words)) == words
    assert vocabulary.encode(["a", "z", "<pad>"]).tolist() == [2, 1, 0]
    assert vocabulary["a"] == 2
    assert "z" not in vocabulary
    assert Vocabulary(words, min_count=2).tokens[2:] == ["a", "b"]
    assert Vocabulary(words, max_size=3).tokens[2:] == ["a"]
    assert Vocabulary([*words, "<unk>", "<pad>"]) == vocabulary  # a text may have the specials
    assert Vocabulary(words) == Vocabulary(reversed(words)) != Vocabulary(words, max_size=3)
    with pytest.raises(KeyError, match="'z' is not in the vocabulary"):
        Vocabulary(words, unknown=None)["z"]
    marked = Vocabulary(words, specials=("<pad>", "<unk>", "<s>", "</s>"))
    assert marked["</s>"] == 3


def test_columns_follow_the_text() -> None:
    text = np.arange(24)
    for batch_size in (1, 3, 4, 23):
        x, target = columns(text, batch_size)
        assert x.shape == (23 // batch_size, batch_size)
        assert np.array_equal(target, x + 1)
        assert np.array_equal(x.T.ravel(), text[: x.size])
        first, _ = columns(text, batch_size, batch_first=True)
        assert_same_bits(first, x.T)


def test_pad() -> None:
    padded = pad([np.ones((2, 3)), np.ones((4, 3))], padding=7)
    assert padded.shape == (4, 2, 3)
    assert (padded[2:, 0] == 7).all()
    assert (padded[:, 1] == 1).all()
    assert np.isnan(pad([[0.5], []], padding=np.nan)[0, 1])
    assert pad([[1, 2], [3]], padding=4.0).tolist() == [[1, 3], [2, 4]]
    assert pad([np.array([i], "u1") for i in range(200)]).dtype == np.uint8


# Bad input ------------------------------------------------------------------------------------


X, K = np.zeros((4, 3, 2)), np.zeros(3, int)
WORDS = ["a", "b"]
RAGGED: Any = [[1], [2, 3]]


def pairs(sources: Any, targets: Any, **options: Any) -> Pairs:
    return Pairs(sources, targets, start=0, end=1, batch_size=1, **options)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: Batches(X[:, :0], K[:0], batch_size=2), ValueError, "the data are empty"),
        (lambda: Batches(X, K[:2], batch_size=2), ValueError, r"target has shape \(2,\)"),
        (lambda: Batches(X[0, 0], K, batch_size=2), ValueError, r"x has shape \(2,\)"),
        (lambda: Batches(X, K, [1, 2], batch_size=2), ValueError, "lengths has shape"),
        (lambda: Batches(X, K, [1, 2, 5], batch_size=2), ValueError, r"lengths\[2\] is 5"),
        (lambda: Batches(X, K, None, K, batch_size=2), TypeError, "resets has dtype int64"),
        (lambda: Batches(X, K, batch_size=0), ValueError, "batch_size is 0"),
        (lambda: Batches(X, K, batch_size=2, shuffle=1), TypeError, "shuffle is 1"),  # type: ignore[arg-type]
        (lambda: Batches(X, K, batch_size=2, seed=-1), ValueError, "seed is -1"),
        (lambda: Buckets([], [], batch_size=2), ValueError, "the data are empty"),
        (lambda: Buckets([[1]], [0, 1], batch_size=2), ValueError, "targets has 2 entries"),
        (lambda: Buckets([[1], 2], [0, 1], batch_size=2), TypeError, r"sequences\[1\] is 2"),
        (
            lambda: Buckets([[1], [2]], [0, 1], weight=[1, 2, 3], batch_size=2),
            ValueError,
            r"weight has shape \(3,\), expected \(2,\), one for each sequence",
        ),
        (
            lambda: Buckets([X[0], X[0, :, :1]], [0, 1], batch_size=2),
            ValueError,
            r"sequences\[1\] has shape \(3, 1\)",
        ),
        (
            lambda: Buckets([[1, 2], [3]], [[1, 2, 3], [3, 4]], batch_size=2),
            ValueError,
            "targets are neither as long as the sequences",
        ),
        (lambda: Pairs([], [], start=0, end=1, batch_size=1), ValueError, "the data are empty"),
        (lambda: Pairs([[1]], [], start=0, end=1, batch_size=1), ValueError, "targets has 0"),
        (
            lambda: Pairs([[1]], [[0.5]], start=0, end=1, batch_size=1),
            TypeError,
            r"targets\[0\] is \[0.5\]",
        ),
        (lambda: windows([1.0, 2.0], 2), ValueError, "series has 2 steps, expected at least"),
        (lambda: windows([1.0, 2.0], 0), ValueError, "size is 0"),
        (lambda: windows([], 1), ValueError, "series is empty"),
        (lambda: windows(np.ones((3, 0)), 1), ValueError, "series is empty"),
        (lambda: windows(["a", "b"], 1), ValueError, "series is"),
        (lambda: resample([0, 1], [0.0], 1), ValueError, r"values has shape \(1,\)"),
        (
            lambda: resample([0, 0], [0.0, 1.0], 1),
            ValueError,
            r"times\[0\] and times\[1\] are both 0",
        ),
        (
            lambda: resample([1, 0], [0.0, 1.0], 1),
            ValueError,
            r"times\[1\] is 0, before times\[0\], 1",
        ),
        (lambda: resample([0, np.nan], [0.0, 1.0], 1), ValueError, "times has NaN"),
        (lambda: resample([0, np.inf], [0.0, 1.0], 1), ValueError, "times has NaN or infinity"),
        (
            lambda: resample([0, 1], [0.0, 1.0], np.timedelta64(1, "s")),
            TypeError,
            r"step is .* \(timedelta64\), expected a number",
        ),
        (lambda: resample([0, 1], [0.0, np.inf], 1), ValueError, "values has infinity"),
        (lambda: resample([0, 1], [np.nan, np.nan], 1), ValueError, "nothing but NaN, expected"),
        (
            lambda: resample([0, 1], [[0, np.nan], [1, np.nan]], 1),
            ValueError,
            "nothing but NaN in column 1",
        ),
        (lambda: resample([0, 1], [0.0, 1.0], 1, max_gap=0), ValueError, "max_gap is 0"),
        (lambda: resample([0, 1], [0.0, 1.0]), TypeError, "step is None"),
        (lambda: resample([0, 1], [0.0, 1.0], 0), ValueError, "step is 0"),
        (lambda: resample([0, 1], [0.0, 1.0], 1, start=-1), ValueError, "nothing is extrapolated"),
        (lambda: resample([0, 1], [0.0, 1.0], 1, method="next"), ValueError, "method is 'next'"),
        (lambda: resample([], [], 1), ValueError, "times is"),
        (
            lambda: resample(np.array(["2020-01-01"], "M8[D]"), [0.0], 1),
            TypeError,
            r"step is 1 \(int\), expected timedelta64",
        ),
        (lambda: Vocabulary([], specials=(), padding=None, unknown=None), ValueError, "empty"),
        (lambda: Vocabulary(WORDS, padding="x"), ValueError, "padding is 'x'"),
        (lambda: Vocabulary(WORDS, min_count=0), ValueError, "min_count is 0"),
        (lambda: Vocabulary([1, 2]), TypeError, r"tokens has 1 \(int\)"),  # type: ignore[list-item]
        (lambda: Vocabulary(WORDS).decode([4]), ValueError, "ids has 4, expected 0 to 3"),
        (lambda: Vocabulary(WORDS).decode([-1]), ValueError, "ids has -1"),
        (lambda: Vocabulary(WORDS).decode([[1]]), ValueError, "ids is"),
        (
            lambda: Batches(X, K, batch_size=2, per_step=True),
            ValueError,
            r"target has shape \(3,\)",
        ),
        (lambda: Batches(X, X[:, :2], batch_size=2, per_step=True), ValueError, "target has shape"),
        (lambda: Batches(X, K, batch_size=2, per_step=1), TypeError, "per_step is 1"),  # type: ignore[arg-type]
        (lambda: Batches(X, K, batch_size=2).load_state_dict(3), TypeError, "state is 3"),  # type: ignore[arg-type]
        (lambda: Buckets(3, [], batch_size=2), TypeError, "sequences is 3"),  # type: ignore[arg-type]
        (lambda: Buckets([[1]], None, batch_size=2), TypeError, "targets is None"),  # type: ignore[arg-type]
        (lambda: Buckets([[1]], [0], batch_size=2, padding=0.5), ValueError, "padding is 0.5"),
        (lambda: pad([]), ValueError, "sequences is empty"),
        (lambda: pad([[1], [[2]]]), ValueError, r"sequences\[1\] has shape \(1, 1\)"),
        (lambda: pad([[1], [2]], padding=np.nan), ValueError, "padding is nan"),
        (lambda: pad([np.ones(2, "u1")], padding=-1), ValueError, "padding is -1, .* uint8"),
        (lambda: columns([1, 2], 2), ValueError, "expected more than 2 entries"),
        (lambda: columns([1, 2], 0), ValueError, "batch_size is 0"),
        (lambda: columns([1, 2], 1, batch_first=1), TypeError, "batch_first is 1"),  # type: ignore[arg-type]
        (lambda: columns(RAGGED, 1), TypeError, "ids is not an array"),
        (lambda: Batches(RAGGED, K, batch_size=2), TypeError, "x is not an array"),
        (lambda: Batches(X, RAGGED, batch_size=2), TypeError, "target is not an array"),
        (lambda: Buckets([[1], RAGGED], [0, 1], batch_size=2), TypeError, r"sequences\[1\] is not"),
        (
            lambda: Buckets([[1], [2]], [RAGGED, [1]], batch_size=2),
            TypeError,
            r"targets\[0\] is not",
        ),
        (
            lambda: Buckets([[1], [2]], [[1], RAGGED], batch_size=2),
            TypeError,
            r"targets\[1\] is not",
        ),
        (
            lambda: Buckets([[1, 2], [3]], [[1, 2], 3], batch_size=2),
            ValueError,
            "targets are neither as long as the sequences",
        ),
        (lambda: pairs([RAGGED], [[1]]), TypeError, r"sources\[0\] is not an array"),
        (lambda: pairs([[1]], [RAGGED]), TypeError, r"targets\[0\] is not an array"),
        (lambda: pairs([[1]], 3), TypeError, "targets is 3 .*, expected one for each source"),
        (lambda: pairs([[1]], None), TypeError, "targets is None"),
        (
            lambda: pairs([np.ones(1, "u1")], [[2]], padding=300),
            ValueError,
            "padding is 300.*uint8",
        ),
        (lambda: pairs([[0.5]], [[2]], padding=2**63), ValueError, "padding is .*int64"),
        (lambda: pad([[1.0, 2.0], [3.0]], "a"), TypeError, "padding is 'a'"),  # type: ignore[arg-type]
        (lambda: pad([[1.0, 2.0], [3.0]], None), TypeError, "padding is None"),  # type: ignore[arg-type]
        (lambda: windows(RAGGED, 1), TypeError, "series is not an array"),
        (lambda: windows([1, 2], 1, per_step=1), TypeError, "per_step is 1"),  # type: ignore[arg-type]
        (lambda: windows([1, 2], 1, batch_first=1), TypeError, "batch_first is 1"),  # type: ignore[arg-type]
        (lambda: resample(RAGGED, [1, 2], 1), TypeError, "times is not an array"),
        (lambda: resample([1, 2], RAGGED, 1), TypeError, "values is not an array"),
        (
            lambda: resample(np.array(["2020-01-01"], "M8[D]"), [0.0], np.timedelta64(1, "M")),
            TypeError,
            r"step is .*, expected a length that divides timedelta64\[D\]",
        ),
        (lambda: Vocabulary(WORDS).decode(RAGGED), TypeError, "ids is not an array"),
        (lambda: Vocabulary(WORDS, specials=3), TypeError, "specials is 3"),  # type: ignore[arg-type]
        (lambda: Vocabulary(3), TypeError, "tokens is 3"),  # type: ignore[arg-type]
    ],
)
def test_data_helpers_refuse(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_text_is_not_taken_for_words() -> None:
    words = Vocabulary(["a", "cat", "sat"])
    for text in ("cat sat", "a cat"):
        with pytest.raises(ValueError, match=r"but those known are words: expected a list .*split"):
            words.encode(text)
    assert words.encode(["a", "cat"]).tolist() == [2, 3]
    assert words.encode("a").tolist() == [2]
    assert Vocabulary("abc").encode("cab!").tolist() == [4, 2, 3, 1]  # letters, of which "!" is new
    bracketed = {"specials": ("[PAD]", "[UNK]"), "padding": "[PAD]", "unknown": "[UNK]"}
    assert Vocabulary("hello", **bracketed).encode("hex").tolist() == [4, 3, 1]  # type: ignore[arg-type]


def test_rows_that_come_first_are_told_of_batch_first() -> None:
    x, target = np.zeros((50, 20, 3)), np.zeros((50, 1))
    with pytest.raises(ValueError, match=r"one for each step; where x is \(B, T, .*batch_first=Tr"):
        Batches(x, target, batch_size=8)
    with pytest.raises(ValueError, match=r"one for each step$"):
        Batches(x, np.zeros((7, 1)), batch_size=8)


def test_a_target_whose_rows_could_be_on_either_axis_is_refused() -> None:
    """As many steps of a target as rows: that those are rows would be a guess."""
    x, target = np.zeros((4, 6, 1)), np.arange(36.0).reshape(6, 6, 1)
    with pytest.raises(ValueError, match=r"\(6, 6, 1\), of which either axis may be that of the 6"):
        lc.data.Batches(x, target, batch_size=3)
    batches = lc.data.Batches(x, target, batch_size=3, per_step=False, shuffle=False)
    np.testing.assert_array_equal(np.concatenate([part[1] for part in batches]), target)
    rows_first = lc.data.Batches(x.swapaxes(0, 1), target, batch_size=3, batch_first=True)
    assert [part[1].shape for part in rows_first] == [(3, 6, 1)] * 2
