"""f1 and confusion_matrix, against scikit-learn and over batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

RNG = np.random.default_rng(0)
SCORES = RNG.standard_normal((9, 7, 5))
TARGET = RNG.integers(0, 4, (9, 7))  # class 4 is predicted, but no target
TARGET[RNG.random((9, 7)) < 0.2] = -100
VALID = TARGET != -100
WEIGHT = RNG.random((9, 7))


@pytest.mark.parametrize("weighted", [False, True])
def test_as_in_scikit_learn(weighted: bool) -> None:
    theirs = require("sklearn.metrics")
    given: dict[str, Any] = {"weight": WEIGHT} if weighted else {}
    beside = {"sample_weight": WEIGHT[VALID]} if weighted else {}
    true, said = TARGET[VALID], SCORES.argmax(-1)[VALID]
    for average in ("macro", "weighted", "micro"):
        expected = theirs.f1_score(true, said, average=average, **beside)
        found = lc.metrics.f1(SCORES, TARGET, average=average, **given)
        assert found == pytest.approx(expected, rel=1e-12)
    each = theirs.f1_score(true, said, average=None, labels=range(5), zero_division=0, **beside)
    for positive, expected in enumerate(each):
        found = lc.metrics.f1(SCORES, TARGET, positive=positive, **given)
        assert found == pytest.approx(expected, rel=1e-12)
    expected = theirs.confusion_matrix(true, said, labels=range(5), **beside)
    found = lc.metrics.confusion_matrix(SCORES, TARGET, **given)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_what_is_past_an_end_is_left_out() -> None:
    lengths = [9, 0, 3, 1, 9, 5, 2]
    there = np.arange(9)[:, None] < lengths
    target = np.where(there, TARGET, -100)
    for metric in (lc.metrics.f1, lc.metrics.confusion_matrix):
        expected = metric(SCORES, target)
        np.testing.assert_array_equal(metric(SCORES, TARGET, lengths), expected)
        swapped = metric(SCORES.swapaxes(0, 1), TARGET.T, lengths, batch_first=True)
        np.testing.assert_allclose(swapped, expected, rtol=1e-12)


class Given(lc.Module):
    def forward(self, x: Any) -> Any:
        return x, None


@pytest.mark.parametrize("batch_size", [1, 2, 4, None])
def test_over_batches_it_is_that_of_all_targets(batch_size: int | None) -> None:
    x = SCORES.reshape(63, 5)
    data = [(x[i : i + 8], TARGET.reshape(63)[i : i + 8]) for i in range(0, 63, 8)]
    if batch_size is not None:
        data = [(x, TARGET.reshape(63))]
    found = lc.evaluate(
        Given(), data if batch_size is None else data[0], loss="cross_entropy", metrics=["f1"],
        batch_size=batch_size,
    )  # fmt: skip
    assert found["f1"] == pytest.approx(float(lc.metrics.f1(SCORES, TARGET)), rel=1e-12)
    assert lc.metrics.f1.mode == "max"


def test_nan_is_no_class() -> None:
    scores = np.array([[np.nan, 0.0], [0.0, 1.0], [1.0, np.nan]])
    assert lc.metrics.f1(scores, [0, 1, 1]) == pytest.approx((0 + 2 / 3) / 2)
    assert lc.metrics.f1(scores, [-100, 1, -100]) == 1.0
    assert lc.metrics.confusion_matrix(scores, [-100, 1, -100]).tolist() == [[0, 0], [0, 1]]
    with pytest.raises(ValueError, match="pred has NaN where there is a target"):
        lc.metrics.confusion_matrix(scores, [0, 1, 1])


def test_nothing_valid_and_wrong_options() -> None:
    assert lc.metrics.f1(np.zeros((2, 3)), [-100, -100]) == 0.0
    assert lc.metrics.f1(np.zeros((0, 3)), np.zeros(0, int)) == 0.0
    assert not lc.metrics.confusion_matrix(np.zeros((2, 3)), [-100, -100]).any()
    with pytest.raises(ValueError, match="average is 'binary', expected one of 'macro'"):
        lc.metrics.f1(np.zeros((2, 3)), [0, 1], average="binary")
    with pytest.raises(ValueError, match="positive is 3, expected a class, 0 to 2"):
        lc.metrics.f1(np.zeros((2, 3)), [0, 1], positive=3)
    with pytest.raises(ValueError, match="target has class 3, expected 0 to 2"):
        lc.metrics.f1(np.zeros((2, 3)), [0, 3])
    with pytest.raises(ValueError, match=r"target has shape \(3,\), expected \(2,\)"):
        lc.metrics.confusion_matrix(np.zeros((2, 3)), [0, 1, 2])
