"""Embedding: against PyTorch and the definition; a gradient that knows its rows; what it costs."""

from __future__ import annotations

import copy
import os
import pickle
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require

Array = np.ndarray[Any, np.dtype[Any]]


def weight_of(module: lc.Embedding) -> lc.Parameter:
    (weight,) = module.parameters()
    return weight


@pytest.mark.parametrize("shape", [(), (1,), (7,), (5, 3), (2, 3, 4), (0,), (3, 0)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_against_the_definition(shape: tuple[int, ...], dtype: str) -> None:
    rng = np.random.default_rng(0)
    module = lc.Embedding(6, 4, dtype=dtype, seed=1)
    ids = rng.integers(0, 6, shape)
    y, tape = module.forward(ids)
    weight = weight_of(module)
    assert y.dtype == dtype
    assert y.shape == (*shape, 4)
    assert_same_bits(y, weight.data[ids])
    assert_same_bits(module(ids), y)
    dy = rng.standard_normal(y.shape).astype(dtype)
    assert module.backward(tape, dy) is None
    expected = np.zeros((6, 4))
    for id_, row in zip(ids.ravel(), dy.reshape(-1, 4), strict=True):
        expected[id_] += row
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    np.testing.assert_allclose(weight.grad, expected, atol=tolerance)
    module.backward(tape, dy)
    np.testing.assert_allclose(weight.grad, 2 * expected, atol=2 * tolerance)


@pytest.mark.parametrize("padding_idx", [None, 0, 4, -1])
def test_against_pytorch(padding_idx: int | None) -> None:
    torch = require("torch")
    theirs = torch.nn.Embedding(50, 8, padding_idx).double()
    ours = lc.Embedding(50, 8, padding_idx, dtype="float64", seed=0)
    if padding_idx is not None:
        assert not weight_of(ours).data[padding_idx].any()
        assert ours.padding_idx == theirs.padding_idx
    ours.load_state_dict(theirs.state_dict())
    rng = np.random.default_rng(1)
    ids = rng.integers(0, 50, (20, 6))
    ids[3] = 4
    tensor = theirs(torch.from_numpy(ids))
    y, tape = ours.forward(ids)
    np.testing.assert_array_equal(y, tensor.detach().numpy())
    dy = rng.standard_normal(y.shape)
    tensor.backward(torch.from_numpy(dy))
    ours.backward(tape, dy)
    np.testing.assert_allclose(weight_of(ours).grad, theirs.weight.grad.numpy(), atol=1e-13)


def test_starts_like_pytorch() -> None:
    module = lc.Embedding(1000, 100, padding_idx=3, seed=0)
    values = weight_of(module).data
    assert abs(values.mean()) < 0.01
    assert abs(values.std() - 1) < 0.01
    assert not values[3].any()
    assert module == lc.Embedding(1000, 100, padding_idx=3, seed=0)
    assert module != lc.Embedding(1000, 100, padding_idx=3, seed=1)
    single = lc.Embedding(3, 4, seed=5)
    double = lc.Embedding(3, 4, seed=5, dtype="float64")
    np.testing.assert_array_equal(weight_of(double).data.astype("float32"), weight_of(single).data)
    before = module.state_dict()["weight"]
    module.reset_parameters(0)
    np.testing.assert_array_equal(module.state_dict()["weight"], before)


def test_ids_of_every_integer_dtype_and_container() -> None:
    module = lc.Embedding(200, 2, seed=0)
    expected = module([[1, 2], [100, 0]])
    for dtype in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", ">i4"):
        np.testing.assert_array_equal(module(np.array([[1, 2], [100, 0]], dtype)), expected)
    np.testing.assert_array_equal(module(((1, 2), (100, 0))), expected)
    np.testing.assert_array_equal(module(np.array([[1, 100], [2, 0]]).T), expected)
    assert module([]).shape == (0, 2)
    assert module(7).shape == (2,)


def test_the_tape_keeps_the_ids() -> None:
    module = lc.Embedding(5, 2, seed=0)
    ids = np.array([1, 2])
    y, tape = module.forward(ids)
    ids[:] = 99
    y[:] = 0  # belongs to the caller
    module.backward(tape, np.ones((2, 2), "float32"))
    np.testing.assert_array_equal(weight_of(module).rows, [1, 2])
    assert tape.nbytes == 2 * 8


# Rows ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_rows(sparse: bool) -> None:
    module = lc.Embedding(100, 2, padding_idx=9, sparse=sparse, seed=0)
    weight = weight_of(module)
    assert weight.sparse is sparse
    assert len(weight.rows) == 0
    for ids, rows in (([7, 3, 7, 9], [3, 7]), ([5, 3], [3, 5, 7]), ([9, 9], [3, 5, 7])):
        y, tape = module.forward(ids)
        module.backward(tape, np.ones_like(y))
        np.testing.assert_array_equal(weight.rows, rows)
    np.testing.assert_array_equal(weight.grad[weight.rows, 0], [2, 1, 2])
    assert weight.grad.sum() == 10
    module.zero_grad()
    assert len(weight.rows) == 0
    assert not weight.grad.any()
    other = lc.Linear(2, 2).parameters()[0]
    assert other.rows is None
    assert not other.sparse


def test_gradients_written_by_others_are_cleared() -> None:
    """Whoever holds the array may write to any row, and zero_grad leaves nothing behind."""
    module = lc.Embedding(100, 2, seed=0)
    weight = weight_of(module)
    for take in (lambda g: g, lambda g: g[50:], lambda g: g.T, np.ravel, memoryview, np.asarray):
        held = take(weight.grad)
        module.zero_grad()
        np.asarray(held)[...] = 1  # after a zero_grad, through what was taken before
        assert weight._gradient().any()
        module.zero_grad()
        assert not weight._gradient().any()
        del held
        module.zero_grad()
    y, tape = module.forward([4])
    module.backward(tape, np.ones_like(y))
    weight.grad[50] = 1
    module.zero_grad()
    assert not weight._gradient().any()


def test_assigned_gradients_have_no_rows() -> None:
    for sparse in (False, True):
        module = lc.Embedding(10, 2, sparse=sparse, seed=0)
        weight = weight_of(module)
        weight.grad = np.ones((10, 2))
        assert weight.rows is None
        y, tape = module.forward([4])
        module.backward(tape, np.ones_like(y))
        assert weight.rows is None
        np.testing.assert_array_equal(weight.grad[:, 0], 1 + (np.arange(10) == 4))
        module.zero_grad()
        assert len(weight.rows) == 0
        assert not weight.grad.any()
        module.backward(tape, np.ones_like(y))
        weight.grad *= 0.5
        np.testing.assert_array_equal(weight.grad[4], [0.5, 0.5])
        if sparse:  # scaled as it was, it is still of those rows
            np.testing.assert_array_equal(weight.rows, [4])
        else:
            assert weight.rows is None
        with pytest.raises(ValueError, match=r"weight.grad has shape \(2,\)"):
            weight.grad = np.zeros(2)


@pytest.mark.parametrize("sparse", [False, True])
def test_copies_start_without_a_gradient(sparse: bool) -> None:
    module = lc.Embedding(10, 2, sparse=sparse, seed=0)
    y, tape = module.forward([4])
    module.backward(tape, np.ones_like(y))
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        weight = weight_of(twin)
        assert weight.sparse is sparse
        assert len(weight.rows) == 0
        y, tape = twin.forward([5, 6])
        twin.backward(tape, np.ones_like(y))
        np.testing.assert_array_equal(weight.rows, [5, 6])
    np.testing.assert_array_equal(weight_of(module).rows, [4])


@pytest.mark.parametrize("count", [1, 2, 5, 50, 400])
def test_rows_that_come_once_and_often(count: int) -> None:
    rng = np.random.default_rng(count)
    for _ in range(20):
        p = lc.Parameter("w", np.zeros((60, 3)))
        p._keep_rows(False)
        rows = rng.integers(0, rng.integers(1, 61), count)
        values = rng.standard_normal((count, 3))
        p._add_rows(rows, values)
        expected = np.zeros((60, 3))
        np.add.at(expected, rows, values)
        assert_same_bits(p.grad, expected)  # in the same order
        np.testing.assert_array_equal(p.rows, np.unique(rows))


def test_gradients_of_any_layout() -> None:
    """Strides, and bytes that begin anywhere."""
    module = lc.Embedding(7, 3, seed=0)
    ids = np.random.default_rng(0).integers(0, 7, (5, 4))
    dy = np.random.default_rng(1).standard_normal((5, 4, 3)).astype("float32")
    _, tape = module.forward(ids)
    module.backward(tape, dy)
    expected = weight_of(module).grad.copy()
    unaligned = np.frombuffer(b" " + dy.tobytes(), "u1")[1:].view("float32").reshape(dy.shape)
    for same in (dy[::-1].copy()[::-1], np.asfortranarray(dy), unaligned):
        module.zero_grad()
        module.backward(tape, same)
        assert_same_bits(weight_of(module).grad, expected)


def resident() -> int:
    """Bytes of memory that this process has touched."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def test_a_large_vocabulary_costs_what_was_touched() -> None:
    """Neither a step's memory nor the pages it writes depend on the vocabulary."""
    module = lc.Embedding(200_000, 64, sparse=True, seed=0)  # 51 MB
    weight = weight_of(module)
    ids = np.random.default_rng(0).integers(0, 200_000, (10, 10))
    dy = np.ones((10, 10, 64), "float32")

    def step() -> None:
        _, tape = module.forward(ids)
        module.backward(tape, dy)
        module.zero_grad()

    before = resident()
    step()  # reserves the gradient, and takes memory for its rows only
    assert resident() - before < 10 * 2**20
    tracemalloc.start()
    step()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20

    gradient = weight._gradient()
    gradient[199_999] = 1  # as a mark: whatever fills or scans all rows would wipe it out
    assert 199_999 not in ids
    step()
    assert gradient[199_999].all()
    gradient[199_999] = 0
    assert not gradient.any()


# Whole models -------------------------------------------------------------------------------------


def test_trains_in_a_model() -> None:
    """The sum of what the ids stand for."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal(20)
    model = lc.Sequential(lc.Embedding(20, 4, seed=1), lc.Linear(4, 1, seed=2), lc.MeanPool())
    optimizer = lc.optim.Adam(model.parameters(), lr=0.05)
    losses = []
    for _ in range(200):
        ids = rng.integers(0, 20, (5, 32))
        lengths = rng.integers(1, 6, 32)
        valid = np.arange(5)[:, None] < lengths
        target = (values[ids] * valid).sum(0) / lengths
        y, tape = model.forward(ids, lengths=lengths)
        loss, dy = lc.losses.mse(y, target[:, None])
        optimizer.zero_grad()
        assert model.backward(tape, dy) is None
        optimizer.step()
        losses.append(loss)
    assert np.mean(losses[-10:]) < 0.02 * np.mean(losses[:10])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: lc.Embedding(0, 4), ValueError, "num_embeddings is 0, expected at least 1"),
        (lambda m: lc.Embedding(4, 0), ValueError, "embedding_dim is 0"),
        (lambda m: lc.Embedding(4, 2.0), TypeError, "embedding_dim is 2.0"),
        (lambda m: lc.Embedding(4, 2, 4), ValueError, "padding_idx is 4, expected less than 4"),
        (lambda m: lc.Embedding(4, 2, -5), ValueError, "padding_idx is -5, expected at least -4"),
        (lambda m: lc.Embedding(4, 2, 0.5), TypeError, "padding_idx is 0.5"),
        (lambda m: lc.Embedding(4, 2, sparse=1), TypeError, "sparse is 1"),
        (lambda m: lc.Embedding(4, 2, dtype="int8"), ValueError, "dtype is"),
        (lambda m: lc.Embedding(10**13, 10**3), MemoryError, "10000000000000, 1000"),
        (lambda m: m([0, 5]), ValueError, "x has the id 5, expected 0 to 4"),
        (lambda m: m([0, -1]), ValueError, "x has the id -1, expected 0 to 4"),
        (lambda m: m(np.uint64(2**64 - 1)), ValueError, f"x has the id {2**64 - 1}"),
        (lambda m: m([0.0, 1.0]), TypeError, "x has dtype float64, expected integers"),
        (lambda m: m([True]), TypeError, "x has dtype bool, expected integers"),
        (lambda m: m([[1], [1, 2]]), TypeError, "x is not an array of numbers"),
        (lambda m: m.forward([7]), ValueError, "x has the id 7"),
        (lambda m: m.backward(None, [1.0]), TypeError, "tape is None"),
        (
            lambda m: m.backward(lc.Embedding(5, 2).forward([0])[1], np.ones((1, 2), "f4")),
            ValueError,
            "made by another layer",
        ),
        (
            lambda m: m.backward(m.forward([0])[1], np.ones((2, 2), "f4")),
            ValueError,
            r"dy has shape \(2, 2\), expected \(1, 2\)",
        ),
        (
            lambda m: m.backward(m.forward([0])[1], np.ones((1, 2))),
            TypeError,
            "dy has dtype float64",
        ),
    ],
)
def test_refuses(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    module = lc.Embedding(5, 2, seed=0)
    with pytest.raises(error, match=message):
        call(module)
    assert len(weight_of(module).rows) == 0
    assert not weight_of(module).grad.any()


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("keep", [False, True])
def test_rows_written_to_from_outside_count(sparse: bool, keep: bool) -> None:
    module = lc.Embedding(10, 2, sparse=sparse, dtype="float64", seed=0)
    weight = weight_of(module)

    def backward() -> Any:
        weight.zero_grad()
        _, tape = module.forward([3, 7])
        module.backward(tape, np.ones((2, 2)))
        view = weight.grad  # looking at it changes nothing
        np.testing.assert_array_equal(weight.rows, [3, 7])
        assert lc.clip_grad_norm([weight], np.inf) == 2.0
        weight.grad[5] += [3.0, 4.0]
        return view if keep else None

    kept = backward()
    np.testing.assert_array_equal(weight.rows, [3, 5, 7])
    assert lc.clip_grad_norm([weight], 1.0) == pytest.approx(29**0.5)
    assert np.linalg.norm(weight.grad) == pytest.approx(1.0)
    kept = backward()
    lc.optim.clip_grad_value([weight], 0.5)
    np.testing.assert_array_equal(weight.grad[[3, 5, 7]], 0.5)
    kept = backward()
    before = weight.data.copy()
    lc.optim.SGD([weight], lr=1.0).step()
    np.testing.assert_array_equal(before - weight.data, weight.grad)
    weight.zero_grad()
    assert not weight.grad.any()
    del kept
