"""CTC: the loss against all ways to say the labels, differences and PyTorch; decoding; fit."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient
from helpers.peers import require
from lstmcore.losses import ctc

Array = np.ndarray[Any, np.dtype[Any]]


def log_softmax(logits: Array) -> Array:
    x = logits.astype(np.float64)
    x = x - x.max(axis=-1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=-1, keepdims=True))


def said_by(path: tuple[int, ...], blank: int) -> tuple[int, ...]:
    return tuple(k for k, _ in itertools.groupby(path) if k != blank)


def all_labels(logits: Array, blank: int = 0) -> dict[tuple[int, ...], float]:
    """Probability of all labels that a row (T, C) may say, by enumeration."""
    log_p = log_softmax(logits)
    found: dict[tuple[int, ...], float] = {}
    for path in itertools.product(range(logits.shape[-1]), repeat=len(logits)):
        p = np.exp(sum(log_p[t, k] for t, k in enumerate(path)))
        labels = said_by(path, blank)
        found[labels] = found.get(labels, 0.0) + p
    return found


def some(time: int, batch: int, classes: int, seed: int, scale: float = 2.0) -> Array:
    return np.random.default_rng(seed).standard_normal((time, batch, classes)) * scale


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("blank", [0, 1, 2])
@pytest.mark.parametrize("time", [0, 1, 2, 3, 5])
def test_the_loss_is_that_of_all_ways_to_say_the_labels(time: int, blank: int) -> None:
    logits = some(time, 1, 3, seed=time)
    probability = all_labels(logits[:, 0], blank)
    others = [k for k in range(3) if k != blank]
    for count in range(5):
        for labels in itertools.product(others, repeat=count):
            loss, dlogits = ctc(logits, [list(labels)], blank=blank, reduction="sum")
            p = probability.get(labels, 0.0)
            if p:
                assert loss == pytest.approx(-np.log(p), rel=1e-12, abs=1e-12)
            else:
                assert loss == np.inf
                assert not dlogits.any()
    assert sum(probability.values()) == pytest.approx(1)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradients_are_differences(reduction: str) -> None:
    logits = some(6, 4, 4, seed=1)
    targets, lengths = [[1, 1, 2], [], [3], [2, 3]], [6, 4, 1, 5]

    def loss(x: Array) -> float:
        return float(ctc(x, targets, lengths, blank=0, reduction=reduction)[0])

    _, dlogits = ctc(logits, targets, lengths, reduction=reduction)
    np.testing.assert_allclose(dlogits, numeric_gradient(loss, logits), atol=1e-8)
    for row, end in enumerate(lengths):
        assert not dlogits[end:, row].any()


TORCH_CASES = {
    "plain": (12, 5, 7, [[1, 2, 3], [4, 4, 5, 5], [6], [1, 2, 1, 2, 1], []], None),
    "lengths": (12, 4, 7, [[1, 2, 3], [4, 4], [6], []], [12, 3, 1, 5]),
    "impossible": (4, 3, 5, [[1, 1, 1], [1, 2, 3], [4, 4]], [4, 2, 3]),
    "long": (150, 3, 20, [[1 + i % 19 for i in range(60)], [3] * 40, [5]], [150, 120, 150]),
    "wide": (9, 2, 300, [[299, 1], [17]], None),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("zero_infinity", [False, True])
@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("case", TORCH_CASES)
def test_pytorch_gives_the_same(case: str, reduction: str, zero_infinity: bool, dtype: str) -> None:
    torch = require("torch")
    time, batch, classes, targets, lengths = TORCH_CASES[case]
    logits = some(time, batch, classes, seed=3, scale=3.0).astype(dtype)
    theirs = torch.tensor(logits, requires_grad=True)
    ends = [time] * batch if lengths is None else lengths
    their_loss = torch.nn.functional.ctc_loss(
        theirs.log_softmax(-1),
        torch.tensor(list(itertools.chain(*targets))),
        torch.tensor(ends),
        torch.tensor([len(t) for t in targets]),
        reduction=reduction,
        zero_infinity=zero_infinity,
    )
    their_loss.sum().backward()
    loss, dlogits = ctc(logits, targets, lengths, reduction=reduction, zero_infinity=zero_infinity)
    # In float32 PyTorch adds up logarithms in float32, too: its error grows with the steps.
    tolerance = 1e-10 if dtype == "float64" else 2e-6 * time + 2e-5
    np.testing.assert_allclose(loss, their_loss.detach(), rtol=tolerance)
    expected = theirs.grad.numpy()
    infinite = np.isnan(expected).any(axis=(0, 2))  # of which theirs has NaN, ours 0
    assert not dlogits[:, infinite].any()
    assert infinite.any() == (case == "impossible" and not zero_infinity)
    np.testing.assert_allclose(
        dlogits[:, ~infinite], expected[:, ~infinite], rtol=tolerance, atol=tolerance
    )
    assert dlogits.dtype == dtype


def test_hard_scores_neither_overflow_nor_vanish() -> None:
    logits = np.full((50, 1, 4), -1e4)
    logits[:, :, 1] = 1e4  # sure of another label at every step
    loss, dlogits = ctc(logits, [[2, 3]], reduction="sum")
    ways = math.comb(52, 4)  # to place two labels in 50 steps, all of which are unlikely
    assert loss == pytest.approx(50 * 2e4 - math.log(ways), rel=1e-12)
    assert np.isfinite(dlogits).all()
    infinite = some(5, 1, 4, seed=0)
    infinite[:, :, 3] = -np.inf
    assert ctc(infinite, [[3]], reduction="sum")[0] == np.inf
    loss, dlogits = ctc(infinite, [[1, 2]], reduction="sum")
    expected = all_labels(np.where(np.isinf(infinite[:, 0]), -1e3, infinite[:, 0]))[1, 2]
    assert loss == pytest.approx(-np.log(expected), rel=1e-12)
    assert np.isfinite(dlogits).all()


def test_nan_stays_in_its_row_and_padding_is_not_looked_at() -> None:
    logits = some(6, 3, 4, seed=5)
    clean, dclean = ctc(logits, [[1], [2], [3]], [6, 4, 6], reduction="none")
    spoilt = logits.copy()
    spoilt[5, 1], spoilt[2, 2, 0] = np.nan, np.nan
    losses, dlogits = ctc(spoilt, [[1], [2], [3]], [6, 4, 6], reduction="none")
    assert_same_bits(losses[:2], clean[:2])
    assert_same_bits(dlogits[:, :2], dclean[:, :2])
    assert np.isnan(losses[2])
    assert np.isnan(dlogits[:, 2]).all()


# Forms of the arguments ---------------------------------------------------------------------------


def test_targets_come_in_several_forms() -> None:
    logits = some(8, 3, 6, seed=6)
    listed = [np.array([1, 2], np.int32), np.array([], np.int64), np.array([5], np.uint8)]
    expected = ctc(logits, listed, [8, 7, 6])
    padded = np.array([[1, 2], [0, 0], [5, 3]])
    marked = np.array([[1, 2], [-1, -1], [5, -100]])
    for targets, counts in [
        (padded, [2, 0, 1]),
        (marked, None),
        (np.array([1, 2, 5]), [2, 0, 1]),
        (marked.tolist(), None),
        ([[1, 2], [], [5]], None),
        (tuple(listed), None),
    ]:
        assert_same_bits(ctc(logits, targets, [8, 7, 6], target_lengths=counts), expected)
    turned = np.ascontiguousarray(logits.swapaxes(0, 1))
    loss, dlogits = ctc(turned, listed, [8, 7, 6], batch_first=True)
    assert_same_bits((loss, dlogits.swapaxes(0, 1)), expected)
    strided = np.repeat(logits, 2, axis=2)[:, :, ::2]
    strided.flags.writeable = False
    assert_same_bits(ctc(strided, listed, [8, 7, 6]), expected)


def test_one_row_without_a_batch_and_none_at_all() -> None:
    logits = some(8, 1, 6, seed=7)
    loss, dlogits = ctc(logits, [[1, 2, 3]])
    for targets, counts in [([1, 2, 3], None), ([1, 2, 3, 4], 3), (np.array([[1, 2, 3]]), None)]:
        ours, dours = ctc(logits[:, 0], targets, target_lengths=counts)
        assert ours == loss
        assert_same_bits(dours, dlogits[:, 0])
    assert ctc(logits[:, 0], [1], reduction="none")[0].shape == ()
    loss, dlogits = ctc(np.zeros((5, 0, 3)), [])
    assert (loss, loss.weight, dlogits.shape) == (0.0, 0.0, (5, 0, 3))
    loss, dlogits = ctc(np.zeros((0, 2, 3)), [[], [1]], reduction="none")
    assert loss.tolist() == [0.0, np.inf]
    assert dlogits.shape == (0, 2, 3)


WRONG: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"logits": np.zeros(3)}, ValueError, r"logits has shape \(3,\), expected \(T, B, C\)"),
    ({"logits": np.zeros((5, 2, 4), complex)}, TypeError, "logits has dtype complex128"),
    ({"targets": [[1]]}, ValueError, "targets has 1 rows, expected 2"),
    ({"targets": [[1], [4]]}, ValueError, "label 4, expected 0 to 3"),
    ({"targets": [[1], [2, -1]]}, ValueError, "label -1, expected 0 to 3"),
    ({"targets": [[1], [0]]}, ValueError, "label 0, which is the blank"),
    ({"targets": [[1.0], [2.0]]}, TypeError, r"targets\[0\] has dtype float64"),
    ({"targets": [1, 2]}, ValueError, r"targets\[0\] has shape \(\)"),
    ({"targets": np.array([1, 2])}, ValueError, r"targets has shape \(2,\), expected \(B, S\)"),
    ({"targets": np.array([[-1, 2], [1, 2]])}, ValueError, "in front of others in row 0"),
    ({"targets": np.ones((3, 2), int), "target_lengths": [1, 1]}, ValueError, r"shape \(3, 2\)"),
    ({"targets": np.ones(5, int), "target_lengths": [1, 1]}, ValueError, "2 together, but"),
    ({"targets": np.ones((2, 2), int), "target_lengths": [1, 3]}, ValueError, "has 3, expected 0"),
    ({"targets": np.ones((2, 2), int), "target_lengths": [1]}, ValueError, r"shape \(1,\)"),
    ({"lengths": [5, 6]}, ValueError, r"lengths\[1\] is 6, expected 0 to 5"),
    ({"blank": 4}, ValueError, "blank is 4, expected 0 to 3"),
    ({"reduction": "avg"}, ValueError, "reduction is 'avg'"),
    ({"zero_infinity": 1}, TypeError, "zero_infinity is 1"),
]


@pytest.mark.parametrize(("change", "error", "message"), WRONG)
def test_bad_input_is_refused(change: dict[str, Any], error: type[Exception], message: str) -> None:
    given = {"logits": np.zeros((5, 2, 4)), "targets": [[1], [2]], **change}
    logits, targets = given.pop("logits"), given.pop("targets")
    with pytest.raises(error, match=message):
        ctc(logits, targets, **given)


# Bits ---------------------------------------------------------------------------------------------


def test_bits_depend_on_neither_threads_nor_neighbours_nor_padding() -> None:
    rng = np.random.default_rng(8)
    logits = rng.standard_normal((40, 9, 21)).astype(np.float32) * 4
    targets = [rng.integers(1, 21, n) for n in (3, 0, 7, 9, 1, 5, 5, 2, 12)]
    lengths = [40, 3, 22, 40, 5, 11, 39, 40, 30]
    before = lc.get_num_threads()
    try:
        lc.set_num_threads(1)
        losses, dlogits = ctc(logits, targets, lengths, reduction="none")
        for threads in (2, 3, 16):
            lc._core.set_num_threads(threads, True)
            assert_same_bits(ctc(logits, targets, lengths, reduction="none"), (losses, dlogits))
    finally:
        lc.set_num_threads(before)
    for row, end in enumerate(lengths):
        alone, dalone = ctc(logits[:end, row : row + 1], targets[row : row + 1], reduction="none")
        assert_same_bits((alone, dalone), (losses[row : row + 1], dlogits[:end, row : row + 1]))


def test_isa_levels_agree() -> None:
    logits = some(30, 3, 11, seed=9, scale=5.0).astype(np.float32)
    targets = [[1, 2, 2, 10], [5], []]
    before, found = lc.isa(), {}
    try:
        for level in lc.available_isas():
            lc.set_isa(level)
            found[level] = ctc(logits, targets)
    finally:
        lc.set_isa(before)
    for level, (loss, dlogits) in found.items():
        if level != "x86-64-v2":
            assert_same_bits((loss, dlogits), found[lc.available_isas()[-1]])
        assert loss == pytest.approx(found[before][0], rel=1e-12)


# Decoding -----------------------------------------------------------------------------------------


def test_greedy_decoding_merges_repeats_and_drops_blanks() -> None:
    best = np.array([[0, 1, 1, 0, 1, 2, 2], [3, 3, 3, 3, 3, 3, 3], [0, 0, 0, 0, 0, 0, 1]])
    logits = np.eye(4)[best]  # (B, T, C)
    found = lc.ctc_decode(logits, batch_first=True)
    assert [ids.tolist() for ids in found] == [[1, 1, 2], [3], [1]]
    found = lc.ctc_decode(logits.swapaxes(0, 1), [3, 0, 6])
    assert [ids.tolist() for ids in found] == [[1], [], []]
    assert lc.ctc_decode(logits[0], blank=1).tolist() == [0, 0, 2]
    assert lc.ctc_decode(np.zeros((0, 3))).tolist() == []
    assert all(ids.dtype == np.int64 for ids in found)


@pytest.mark.parametrize("blank", [0, 2])
def test_a_wide_beam_finds_what_enumeration_finds(blank: int) -> None:
    for seed in range(4):
        logits = some(5, 2, 3, seed=seed)
        beams = lc.ctc_beam_search(logits, beam_size=1000, blank=blank)
        for row, beam in enumerate(beams):
            expected = all_labels(logits[:, row], blank)
            assert {tuple(one.ids.tolist()) for one in beam} == set(expected)
            for ids, score in beam:
                assert score == pytest.approx(np.log(expected[tuple(ids.tolist())]), abs=1e-12)
            scores = [one.score for one in beam]
            assert scores == sorted(scores, reverse=True)


def test_scores_of_a_beam_are_the_losses() -> None:
    logits = some(12, 3, 5, seed=11, scale=4.0)
    lengths = [12, 0, 9]
    for row, beam in enumerate(lc.ctc_beam_search(logits, lengths, beam_size=200)):
        ids, score = beam[0]
        loss, _ = ctc(logits[: lengths[row], row : row + 1], [ids], reduction="sum")
        assert -loss - 0.05 < score <= -loss + 1e-12  # some ways are missing
    narrow = lc.ctc_beam_search(logits, lengths, beam_size=1)
    assert [len(beam) for beam in narrow] == [1, 1, 1]
    assert narrow[1][0].ids.tolist() == []
    assert narrow[1][0].score == 0


def test_a_beam_beats_the_likeliest_way() -> None:
    worse = 0
    for seed in range(30):
        logits = some(8, 1, 4, seed=seed, scale=1.0)
        greedy = lc.ctc_decode(logits)
        best = lc.ctc_beam_search(logits, beam_size=16)[0][0]
        loss = ctc(logits, greedy, reduction="sum")[0]
        found = ctc(logits, [best.ids], reduction="sum")[0]
        assert found <= loss + 1e-9
        worse += found < loss - 1e-9
    assert worse > 3


def test_decoding_is_the_same_in_any_batch_and_on_any_threads() -> None:
    logits = some(20, 5, 6, seed=12).astype(np.float32)
    lengths = [20, 7, 1, 19, 0]
    before = lc.get_num_threads()
    try:
        lc._core.set_num_threads(1, True)
        whole = lc.ctc_beam_search(logits, lengths, beam_size=5)
        lc._core.set_num_threads(4, True)
        assert_same_bits(lc.ctc_beam_search(logits, lengths, beam_size=5), whole)
    finally:
        lc.set_num_threads(before)
    for row, end in enumerate(lengths):
        assert_same_bits(lc.ctc_beam_search(logits[:end, row], beam_size=5), whole[row])
    turned = logits.swapaxes(0, 1)
    assert_same_bits(lc.ctc_beam_search(turned, lengths, beam_size=5, batch_first=True), whole)


def test_decoding_refuses_nan_in_valid_steps_alone() -> None:
    logits = some(4, 2, 3, seed=13)
    logits[3, 1, 2] = np.nan
    for decode in (lc.ctc_decode, lc.ctc_beam_search):
        assert len(decode(logits, [4, 3])) == 2
        with pytest.raises(ValueError, match="logits has a NaN in step 3 of row 1"):
            decode(logits)
        with pytest.raises(ValueError, match="blank is 3, expected 0 to 2"):
            decode(logits, [4, 3], blank=3)
    with pytest.raises(ValueError, match="beam_size is 0"):
        lc.ctc_beam_search(logits, [4, 3], beam_size=0)


# In the loop --------------------------------------------------------------------------------------


def recogniser(seed: int = 0) -> lc.Sequential:
    return lc.Sequential(
        lc.GRU(4, 12, bidirectional=True, seed=seed), lc.Linear(24, 4, seed=seed + 1)
    )


def spoken(count: int, seed: int) -> tuple[list[Array], list[Array]]:
    """Sequences of labels 1 to 3, each two or three steps long, after a step of nothing."""
    rng = np.random.default_rng(seed)
    sequences, targets = [], []
    for _ in range(count):
        labels = rng.integers(1, 4, rng.integers(1, 5))
        steps = [row for k in labels for row in [0] + [int(k)] * int(rng.integers(2, 4))]
        sequences.append(np.eye(4, dtype=np.float32)[steps] + rng.normal(0, 0.1, (len(steps), 4)))
        targets.append(labels)
    return [s.astype(np.float32) for s in sequences], targets


def test_fit_trains_a_recogniser() -> None:
    sequences, targets = spoken(60, seed=0)
    model = recogniser()
    buckets = lc.data.Buckets(sequences, targets, batch_size=10, seed=0, per_step=False)
    for _, target, _ in buckets:
        assert target.shape[0] == 10
        assert target.min() >= -1
    history = lc.fit(
        model,
        buckets,
        loss="ctc",
        epochs=25,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.02),
        progress=False,
    )
    assert history.losses[-1] < 0.1 * history.losses[0]
    sequences, targets = spoken(20, seed=1)
    found = lc.ctc_decode(
        model(lc.data.pad(sequences), lengths=[len(s) for s in sequences]),
        [len(s) for s in sequences],
    )
    right = sum(np.array_equal(a, b) for a, b in zip(found, targets, strict=True))
    assert right >= 18


def test_evaluate_gives_one_number_whatever_the_batches_are() -> None:
    sequences, targets = spoken(7, seed=2)
    model = recogniser()
    x, lengths = lc.data.pad(sequences), np.array([len(s) for s in sequences])
    expected, _ = ctc(model(x, lengths=lengths), targets, lengths)
    ragged = [t.tolist() for t in targets]
    for size in (1, 3, 7):
        found = lc.evaluate(model, (x, ragged, lengths), loss="ctc", batch_size=size)
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
    batch = lc.data.Batch(x, ragged, lengths)
    assert lc.evaluate(model, [batch], loss="ctc")["loss"] == pytest.approx(expected, rel=1e-6)


def test_models_that_end_in_a_softmax_are_refused() -> None:
    model = lc.Sequential(recogniser(), lc.Softmax())
    with pytest.raises(ValueError, match="takes the scores before it"):
        lc.evaluate(model, [(np.zeros((5, 1, 4), np.float32), [[1]])], loss="ctc")
