"""An Embedding in front of a layer: each id is multiplied once, as if all its steps had been."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.variants import CELLS, STACKS
from lstmcore import _core

V, T, B = 9, 40, 7


def parts(name: str, **options: Any) -> tuple[lc.Embedding, Any]:
    embedding = lc.Embedding(V, 12, padding_idx=2, dtype=options.get("dtype", "float32"), seed=0)
    return embedding, getattr(lc, name)(12, 10, seed=1, **options)


def check(name: str, ids: Any, **options: Any) -> None:
    """Compare a Sequential with its modules, called one by one."""
    dtype = options.get("dtype", "float32")
    batch_first = options.get("batch_first", False)
    rng = np.random.default_rng(0)
    kwargs: dict[str, Any] = {}
    if ids.ndim == 2:
        kwargs = {"lengths": rng.integers(0, T + 1, B), "resets": rng.random(ids.shape) < 0.1}
        kwargs["lengths"][0] = T
    embedding, layer = parts(name, **options)
    twin, model = (embedding, layer), lc.Sequential(*parts(name, **options))
    y, tape = model.forward(ids, **kwargs)
    if layer._takes_lookup:
        assert tape.tapes[0].x_shape == (len(np.unique(ids)),)  # which says that it was used
    x, embedding_tape = embedding.forward(ids)
    expected, _, layer_tape = layer.forward(x, **kwargs)
    assert_same_bits(y, expected)
    assert_same_bits(model(ids, **kwargs), layer(x, **kwargs)[0])
    assert tape.tapes[1].nbytes == layer_tape.nbytes

    dy = rng.standard_normal(y.shape).astype(dtype)
    assert model.backward(tape, dy) is None
    dx, _ = layer.backward(layer_tape, dy)
    embedding.backward(embedding_tape, dx)
    tolerance = 1e-11 if dtype == "float64" else 1e-3
    for ours, theirs in zip(
        model.parameters(), [p for module in twin for p in module.parameters()], strict=True
    ):
        np.testing.assert_allclose(ours.grad, theirs.grad, tolerance, tolerance, err_msg=ours.name)
        if theirs.rows is not None:
            np.testing.assert_array_equal(ours.rows, theirs.rows)
    assert batch_first == model._batch_first


def test_only_the_layer_behind_the_embedding_looks_up() -> None:
    embedding, lstm = parts("LSTM")
    gru = lc.GRU(10, 6, seed=2)
    ids = np.random.default_rng(0).integers(0, V, (T, B))
    y = lc.Sequential(embedding, lstm, gru)(ids)
    assert_same_bits(y, gru(lstm(embedding(ids))[0])[0])


def test_ids_that_were_written_to_after_forward_are_refused() -> None:
    layer = lc.LSTM(4, 8)
    ids = np.zeros((5, 2), np.int64)
    table = np.zeros((3, 4), np.float32)
    y, _, _, tape = _core.forward(
        layer._weights(True), table, None, None, None, None, False, True, (0, 0, 0), 0, lookup=ids
    )
    gradients = [np.zeros_like(p.data) for p in layer.parameters()]
    for wrong in (3, -1, 10**7):
        ids[4, 1] = wrong
        with pytest.raises(ValueError, match="lookup: not of the table"):
            _core.backward(tape, np.ones_like(y), None, None, gradients)
    ids[4, 1] = 2
    _core.backward(tape, np.ones_like(y), None, None, gradients)


def ids_of(*shape: int) -> Any:
    return np.random.default_rng(3).integers(0, V - 1, shape)  # the last never


@pytest.mark.parametrize(("name", "options"), CELLS)
def test_cells(name: str, options: dict[str, Any]) -> None:
    check(name, ids_of(T, B), dtype="float64", **options)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("stack", STACKS)
def test_stacks(name: str, stack: dict[str, Any]) -> None:
    check(name, ids_of(T, B), dtype="float64", **stack)
    check(name, ids_of(B, T), dtype="float64", batch_first=True, **stack)


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
def test_levels(name: str, isa: str) -> None:
    check(name, ids_of(T, B))
    check(name, ids_of(T), dtype="float64")


def test_threads_change_no_bit() -> None:
    ids = np.random.default_rng(0).integers(0, 60, (50, 16))
    found = []
    for threads in (1, 2):
        before = lc.get_num_threads()
        lc.set_num_threads(threads)
        model = lc.Sequential(
            lc.Embedding(60, 100, seed=0), lc.GRU(100, 70, bidirectional=True, seed=1)
        )
        y, tape = model.forward(ids)
        model.backward(tape, y)
        lc.set_num_threads(before)
        found.append([y, *(p.grad for p in model.parameters())])
    for one, two in zip(*found, strict=True):
        assert_same_bits(one, two)


def test_few_ids_are_not_looked_up() -> None:
    model = lc.Sequential(*parts("LSTM"))
    y, tape = model.forward(ids_of(2, B))
    assert tape.tapes[0].x_shape == (2, B)
    model.backward(tape, y)
    for shape in ((0, B), (T, 0), (0,)):
        y, tape = model.forward(np.zeros(shape, int))
        model.backward(tape, y)


def test_the_tape_keeps_the_vectors() -> None:
    ids = ids_of(T, B)
    gradients = []
    for change in (False, True):
        model = lc.Sequential(*parts("LSTM"))
        y, tape = model.forward(ids)
        if change:
            for p in model.parameters():
                p.data[...] = 0
        model.backward(tape, np.ones_like(y))
        gradients.append([p.grad for p in model.parameters()])
    for before, after in zip(*gradients, strict=True):
        assert_same_bits(before, after)


@pytest.mark.parametrize("wrong", [-1, 4])
def test_the_core_refuses_what_is_not_in_the_table(wrong: int) -> None:
    layer = lc.LSTM(3, 2, seed=0)
    lookup = np.full((5, 2), wrong)
    with pytest.raises(ValueError, match="lookup: not of the table"):
        layer._forward(np.zeros((4, 3), "float32"), None, True, lookup=lookup)
