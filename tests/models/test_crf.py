"""CRF: loss and decoding against all sequences of labels, differences and PyTorch; fit; files."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient
from helpers.peers import require

Array = np.ndarray[Any, np.dtype[Any]]


def made(classes: int, seed: int = 0, scale: float = 1.0, dtype: str = "float64") -> lc.CRF:
    crf, rng = lc.CRF(classes, dtype=dtype), np.random.default_rng(seed)
    for p in crf.parameters():
        p.data = rng.standard_normal(p.shape) * scale
    return crf


def score(crf: lc.CRF, scores: Array, labels: tuple[int, ...]) -> float:
    """Of labels at the steps of one row (T, C)."""
    if not labels:
        return 0.0
    start, end, transitions = (p.data for p in (crf.start, crf.end, crf.transitions))
    total = start[labels[0]] + end[labels[-1]]
    total += sum(scores[t, k] for t, k in enumerate(labels))
    return float(total + sum(transitions[i, j] for i, j in itertools.pairwise(labels)))


def enumerated(crf: lc.CRF, scores: Array) -> dict[tuple[int, ...], float]:
    paths = itertools.product(range(scores.shape[1]), repeat=len(scores))
    return {labels: score(crf, scores, labels) for labels in paths}


def log_sum(values: Any) -> float:
    x = np.array(list(values))
    return float(x.max() + np.log(np.exp(x - x.max()).sum()))


def case(
    time: int, batch: int, classes: int, seed: int, scale: float = 2.0
) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    lengths = rng.integers(0, time + 1, batch)
    lengths[0] = time
    scores = rng.standard_normal((time, batch, classes)) * scale
    return scores, rng.integers(0, classes, (time, batch)), lengths


# Values -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("time", "classes"), [(1, 1), (1, 3), (4, 1), (2, 5), (4, 3), (6, 2)])
def test_loss_and_path_are_those_of_all_sequences(time: int, classes: int) -> None:
    crf = made(classes, seed=time)
    scores, target, lengths = case(time, 4, classes, seed=classes)
    losses = []
    for row, end in enumerate(lengths):
        found = enumerated(crf, scores[:end, row])
        losses.append(log_sum(found.values()) - found[tuple(target[:end, row].tolist())])
    loss, dscores = crf.loss(scores, target, lengths)
    assert loss == pytest.approx(np.mean(losses), rel=1e-12, abs=1e-12)
    assert loss.weight == 4
    for row, (end, path) in enumerate(zip(lengths, crf.decode(scores, lengths), strict=True)):
        found = enumerated(crf, scores[:end, row])
        assert path.dtype == np.int64
        assert tuple(path.tolist()) == max(found, key=found.__getitem__)
        assert not dscores[end:, row].any()


@pytest.mark.parametrize("scale", [0.5, 30.0, 400.0])
def test_gradients_are_differences(scale: float) -> None:
    crf = made(4, seed=1, scale=scale)
    scores, target, lengths = case(5, 3, 4, seed=2, scale=scale)
    mask = np.random.default_rng(3).random((5, 3)) < 0.8

    def loss(x: Array) -> float:
        return float(crf.loss(x, target, lengths, mask=mask)[0])

    crf.zero_grad()
    _, dscores = crf.loss(scores, target, lengths, mask=mask)
    gradients = {p.name: p.grad.copy() for p in crf.parameters()}
    step, tolerance = 1e-6 * max(scale, 1), 1e-6
    np.testing.assert_allclose(dscores, numeric_gradient(loss, scores, step), atol=tolerance)
    for p in crf.parameters():
        expected = parameter_gradient(p, lambda: loss(scores))
        np.testing.assert_allclose(gradients[p.name], expected, atol=tolerance)


def test_pytorch_expressions_give_the_same() -> None:
    """Up to scales of which exponentials hold few rows, some, or all; and labels that cannot be."""
    torch = require("torch")
    for classes, scale, never in [
        (7, 2.0, 0.0),
        (40, 1.0, 0.0),
        (6, 2.0, -1e4),
        (6, 30.0, -1e4),
        *((5, scale, 0.0) for scale in (30.0, 60.0, 90.0, 120.0, 200.0)),
    ]:
        crf = made(classes, seed=4, scale=scale)
        scores, target, lengths = case(30, 19, classes, seed=5, scale=scale)
        if never:
            crf.transitions.data[2] = crf.transitions.data[:, 3] = never
            crf.start.data[1] = crf.end.data[4] = never
        crf.zero_grad()
        loss, dscores = crf.loss(scores, target, lengths)
        x = torch.tensor(scores, requires_grad=True)
        a, start, end = (
            torch.tensor(p.data.copy(), requires_grad=True)
            for p in (crf.transitions, crf.start, crf.end)
        )
        total = 0
        for row, n in enumerate(lengths):
            if n == 0:
                continue
            alpha, labels = start + x[0, row], target[:n, row]
            own = start[labels[0]] + end[labels[-1]] + x[range(n), row, labels].sum()
            for t in range(1, n):
                alpha = torch.logsumexp(alpha[:, None] + a, 0) + x[t, row]
                own = own + a[labels[t - 1], labels[t]]
            total = total + torch.logsumexp(alpha + end, 0) - own
        (total / 19).backward()
        assert loss == pytest.approx(total.item() / 19, rel=1e-11)
        for ours, theirs in [
            (dscores, x),
            (crf.transitions.grad, a),
            (crf.start.grad, start),
            (crf.end.grad, end),
        ]:
            np.testing.assert_allclose(ours, theirs.grad.numpy(), rtol=1e-9, atol=1e-11)


def test_what_cannot_follow_has_no_gradient() -> None:
    for never in (-1e4, -np.inf):
        crf = made(3, seed=6)
        crf.transitions.data[0, 2] = crf.transitions.data[1, 1] = never
        crf.start.data[2] = never
        scores, target, _ = case(5, 2, 3, seed=7)
        target[:, 0], target[:, 1] = [0, 1, 2, 2, 0], [1, 0, 0, 1, 2]
        crf.zero_grad()
        loss, dscores = crf.loss(scores, target)
        assert np.isfinite(loss)
        assert np.isfinite(dscores).all()
        gradient = crf.transitions.grad
        assert gradient[0, 2] == gradient[1, 1] == crf.start.grad[2] == 0
        for path in crf.decode(scores * 10):
            assert path[0] != 2
            assert not {(0, 2), (1, 1)} & set(itertools.pairwise(path.tolist()))
    loss, dscores = crf.loss(scores, np.full((5, 2), 1))  # which cannot be
    assert loss == np.inf
    assert not dscores.any()


def test_only_a_way_through_what_is_hardly_possible() -> None:
    """The sums of exponentials are all lost; the logarithms are not."""
    crf = made(3, seed=8)
    crf.transitions.data = np.where(np.eye(3, k=1) > 0, 0.0, -3000.0)
    scores = np.zeros((6, 1, 3))
    scores[::2, :, 0] = 2000.0
    expected = enumerated(crf, scores[:, 0])
    target = np.array([[0], [1], [2], [0], [1], [2]])
    crf.zero_grad()
    loss, _ = crf.loss(scores, target)
    value = log_sum(expected.values()) - expected[tuple(target[:, 0].tolist())]
    assert loss == pytest.approx(value, rel=1e-12)
    p = {path: np.exp(s - log_sum(expected.values())) for path, s in expected.items()}
    pairs = np.zeros((3, 3))
    for path, share in p.items():
        for i, j in itertools.pairwise(path):
            pairs[i, j] += share
    for i, j in itertools.pairwise(target[:, 0]):
        pairs[i, j] -= 1
    np.testing.assert_allclose(crf.transitions.grad, pairs, atol=1e-9)


def test_masked_and_ignored_steps_are_left_out() -> None:
    crf = made(4, seed=9)
    scores, target, _ = case(6, 3, 4, seed=10)
    mask = np.ones((6, 3), bool)
    mask[[0, 2, 3], 0], mask[:, 1], mask[5, 2] = False, False, False
    ignored = np.where(mask, target, -100)
    spoilt = np.where(mask[..., None], scores, np.nan)
    crf.zero_grad()
    loss, dscores = crf.loss(spoilt, target, mask=mask)
    gradients = [p.grad.copy() for p in crf.parameters()]
    assert not dscores[~mask].any()
    crf.zero_grad()
    assert_same_bits(crf.loss(spoilt, ignored), (loss, dscores))
    assert_same_bits([p.grad for p in crf.parameters()], gradients)
    total = 0.0
    for row in range(3):
        keep = mask[:, row]
        total += crf.loss(scores[keep, row], target[keep, row])[0]
        path = crf.decode(scores[keep, row])
        assert crf.decode(spoilt, mask=mask)[row].tolist() == path.tolist()
    assert loss == pytest.approx(total / 3, rel=1e-12)
    beyond = np.where(mask, target, 2**63 + 5).astype(np.uint64)  # -100 is none of these
    assert crf.loss(spoilt, beyond, mask=mask)[0] == loss
    with pytest.raises(ValueError, match="target has label 9223372036854775813"):
        crf.loss(scores, beyond)
    with pytest.raises(ValueError, match="target has label -100, expected 0 to 3"):
        crf.loss(scores, ignored, ignore_index=None)


def test_nan_is_told() -> None:
    crf = made(3, seed=11)
    scores, target, _ = case(4, 2, 3, seed=12)
    clean = crf.loss(scores[:, :1], target[:, :1])[1]
    scores[2, 1, 0] = np.nan
    crf.zero_grad()
    loss, dscores = crf.loss(scores, target)
    assert np.isnan(loss)
    assert np.isnan(dscores[:, 1]).all()
    np.testing.assert_allclose(dscores[:, 0], clean[:, 0] / 2, rtol=1e-12)
    assert all(np.isnan(p.grad).all() for p in crf.parameters())
    with pytest.raises(ValueError, match="scores has a NaN"):
        crf.decode(scores)
    assert len(crf.decode(scores, [4, 2])) == 2


# Bits and forms -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bits_depend_on_neither_threads_nor_neighbours(dtype: str) -> None:
    crf = made(11, seed=13, dtype=dtype)
    scores, target, lengths = case(40, 37, 11, seed=14)
    scores = scores.astype(dtype)

    def run(s: slice) -> Any:
        crf.zero_grad()
        result = crf.loss(scores[:, s], target[:, s], lengths[s])
        return *result, [p.grad.copy() for p in crf.parameters()]

    before = lc.get_num_threads()
    try:
        lc._core.set_num_threads(1, True)
        loss, dscores, gradients = run(slice(None))
        paths = crf.decode(scores, lengths)
        for threads in (2, 5):
            lc._core.set_num_threads(threads, True)
            assert_same_bits(run(slice(None)), (loss, dscores, gradients))
            assert_same_bits(crf.decode(scores, lengths), paths)
    finally:
        lc.set_num_threads(before)
    for row in range(0, 37, 3):
        _, dalone, _ = run(slice(row, row + 1))
        np.testing.assert_allclose(dalone[:, 0] / 37, dscores[:, row], rtol=1e-6, atol=1e-12)
        assert_same_bits(crf.decode(scores[:, row], lengths[row]), paths[row])


def test_forms_of_the_arguments() -> None:
    crf = made(4, seed=15)
    scores, target, lengths = case(5, 3, 4, seed=16)
    loss, dscores = crf.loss(scores, target, lengths)
    turned = np.ascontiguousarray(scores.swapaxes(0, 1))
    other, dother = crf.loss(turned, target.T, lengths, batch_first=True)
    assert_same_bits((other, dother.swapaxes(0, 1)), (loss, dscores))
    assert_same_bits(crf.decode(turned, lengths, batch_first=True), crf.decode(scores, lengths))
    strided = np.repeat(scores, 2, axis=2)[:, :, ::2]
    strided.flags.writeable = False
    assert_same_bits(crf.loss(strided, target, lengths), (loss, dscores))
    alone, dalone = crf.loss(scores[:, 0], target[:, 0])
    assert alone == crf.loss(scores[:, :1], target[:, :1])[0]
    assert dalone.shape == (5, 4)
    assert crf.loss(np.zeros((5, 0, 4)), np.zeros((5, 0), int))[0] == 0
    assert crf.decode(np.zeros((5, 0, 4))) == []
    assert [p.tolist() for p in crf.decode(np.zeros((0, 2, 4)))] == [[], []]
    assert crf.loss(np.zeros((0, 2, 4)), np.zeros((0, 2), int))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((np.zeros((5, 2, 3)), np.zeros((5, 2), int)), ValueError, r"expected \(\.\.\., 4\)"),
        ((np.zeros((5, 2, 4), "float32"), np.zeros((5, 2), int)), TypeError, "expected float64"),
        ((np.zeros((5, 2, 4)), np.zeros((2, 5), int)), ValueError, r"target has shape \(2, 5\)"),
        ((np.zeros((5, 2, 4)), np.zeros((5, 2))), TypeError, "target has dtype float64"),
        ((np.zeros((5, 2, 4)), np.full((5, 2), 4)), ValueError, "label 4, expected 0 to 3"),
        ((np.zeros((5, 2, 4)), np.zeros((5, 2), int), [5, 6]), ValueError, r"lengths\[1\] is 6"),
        ((np.zeros(4), np.zeros((), int)), ValueError, r"expected \(T, B, C\)"),
    ],
)
def test_bad_input_is_refused(arguments: Any, error: type[Exception], message: str) -> None:
    crf = made(4)
    with pytest.raises(error, match=message):
        crf.loss(*arguments)
    assert all(not p.grad.any() for p in crf.parameters())
    with pytest.raises(ValueError, match="mask has shape"):
        crf.decode(np.zeros((5, 2, 4)), mask=np.ones(5, bool))


# In a network -------------------------------------------------------------------------------------


def tagger(seed: int = 0, batch_first: bool = False) -> lc.Sequential:
    return lc.Sequential(
        lc.LSTM(3, 8, batch_first=batch_first, seed=seed),
        lc.Linear(8, 4, seed=seed + 1),
        lc.CRF(4, seed=seed + 2),
    )


def data(rows: int = 12) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(17)
    x = rng.standard_normal((7, rows, 3)).astype(np.float32)
    return x, rng.integers(0, 4, (7, rows)), rng.integers(1, 8, rows)


def test_in_a_network_it_passes_scores_through() -> None:
    model, (x, _, lengths) = tagger(), data()
    y, tape = model.forward(x, lengths=lengths)
    assert_same_bits(y, model[:2](x, lengths=lengths))
    model.backward(tape, np.ones_like(y))
    assert not model[-1].transitions.grad.any()
    names = list(model.state_dict())
    assert names[-3:] == ["2.transitions", "2.start", "2.end"]
    assert repr(model[-1]) == "CRF(4)"
    stream = model.stream(batch_size=12)
    np.testing.assert_array_equal(stream.process(x), model(x))
    lc.gradcheck(lc.CRF(4, dtype="float64"), np.ones((2, 3, 4)))


def test_fit_makes_the_steps_of_a_loop_of_ones_own() -> None:
    x, target, lengths = data()
    model, own = tagger(), tagger()
    optimizers = [lc.optim.Adam(m.parameters(), lr=0.05) for m in (model, own)]
    history = lc.fit(
        model,
        [(x, target, lengths)],
        loss=model[-1].loss,
        validation=[(x, target, lengths)],  # adds no gradient
        epochs=5,
        optimizer=optimizers[0],
        progress=False,
    )
    losses = []
    for _ in range(5):
        own.zero_grad()
        scores, tape = own.forward(x, lengths=lengths)
        loss, dscores = own[-1].loss(scores, target, lengths)
        own.backward(tape, dscores)
        optimizers[1].step()
        losses.append(loss)
    assert history.losses == pytest.approx(losses, rel=1e-14)
    assert model == own
    assert any(g.any() for g in (model[-1].transitions.grad, model[-1].start.grad))


def test_accumulated_batches_are_one_large_batch() -> None:
    x, target, lengths = data()
    whole, parts = tagger(), tagger()
    pieces = [(x[:, s], target[:, s], lengths[s]) for s in (slice(0, 5), slice(5, 12))]
    for model, batches, accumulate in ((whole, [(x, target, lengths)], 1), (parts, pieces, 2)):
        lc.fit(
            model,
            batches,
            loss=model[-1].loss,
            accumulate=accumulate,
            optimizer=lc.optim.SGD(model.parameters(), lr=0.5),
            progress=False,
        )
    for (name, one), other in zip(
        whole.state_dict().items(), parts.state_dict().values(), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6, err_msg=name)


def test_evaluate_changes_nothing_and_does_not_depend_on_batches() -> None:
    x, target, lengths = data()
    model = tagger()
    model.zero_grad()
    expected = model[-1]._loss_apart(model(x, lengths=lengths), target, lengths)[0]
    for size in (1, 5, 12):
        found = lc.evaluate(model, (x, target, lengths), loss=model[-1].loss, batch_size=size)
        assert found["loss"] == pytest.approx(expected, rel=1e-6)
    assert not model[-1].transitions.grad.any()
    first = tagger(batch_first=True)
    swapped = (x.swapaxes(0, 1), target.T, lengths)
    found = lc.evaluate(first, swapped, loss=first[-1].loss, batch_size=5)
    assert found["loss"] == pytest.approx(expected, rel=1e-6)


def test_what_fit_refuses() -> None:
    x, target, lengths = data()
    model, other = tagger(), lc.CRF(4)
    options: dict[str, Any] = {"optimizer": lc.optim.SGD(model.parameters()), "progress": False}
    with pytest.raises(ValueError, match="which is not in the model: expected it at its end"):
        lc.fit(model, [(x, target, lengths)], loss=other.loss, **options)
    with pytest.raises(ValueError, match="truncate=2 cuts the rows"):
        lc.fit(model, [(x, target, lengths)], loss=model[-1].loss, truncate=2, **options)
    batch = lc.data.Batch(x, target, lengths, weight=np.ones(12))
    with pytest.raises(ValueError, match="weight is given, but the loss takes no argument"):
        lc.fit(model, [batch], loss=model[-1].loss, **options)


def test_files_have_model_and_crf_together(tmp_path: Path) -> None:
    model, (x, _, lengths) = tagger(), data()
    lc.save(model, tmp_path / "tagger.safetensors")
    loaded = lc.load(tmp_path / "tagger.safetensors")
    assert loaded == model
    assert isinstance(loaded[-1], lc.CRF)
    scores = model(x, lengths=lengths)
    assert_same_bits(loaded[-1].decode(scores, lengths), model[-1].decode(scores, lengths))
