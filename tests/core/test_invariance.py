"""Bitwise invariance: how work is batched, padded, split or threaded changes no bit of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.variants import Cell, Options, cells, dtypes, make, stacks, states_of, train_step
from lstmcore import _core

ONE_WAY = [{}, {"reverse": True}, {"num_layers": 2}]


def random_input(layer: Any, T: int, B: int) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
    rng = np.random.default_rng(T * 1000 + B)
    x = rng.standard_normal((T, B, layer.input_size)).astype(layer.dtype)
    return x, states_of(layer, B, rng)


def call(layer: Any, x: np.ndarray, state: tuple[np.ndarray, ...], **sequences: Any) -> Any:
    y, last = layer(x, state if isinstance(layer, lc.LSTM) else state[0], **sequences)
    return y, last if isinstance(layer, lc.LSTM) else (last,)


@cells
@stacks
@dtypes
def test_alone_is_as_in_a_batch(isa: str, cell: Cell, stack: Options, dtype: str) -> None:
    kind, options = cell
    layer = make(kind, 5, 19, dtype=dtype, **options, **stack)
    T, B = 7, 11
    x, state = random_input(layer, T, B)
    lengths = np.random.default_rng(1).integers(0, T + 1, B)
    y, last = call(layer, x, state, lengths=lengths)
    for b in range(B):
        rows = slice(b, b + 1)
        n = lengths[b]
        alone, last_alone = call(layer, x[:n, rows], tuple(s[:, rows] for s in state))
        assert_same_bits(y[:n, rows], alone)  # also: padded is as unpadded
        assert not y[n:, rows].any()
        for one, all_rows in zip(last_alone, last, strict=True):
            assert_same_bits(all_rows[:, rows], one)


@pytest.mark.parametrize(("kind", "hidden_size"), [("RNN", 400), ("LSTM", 330), ("GRU", 330)])
def test_many_units_alone_are_as_in_a_batch(isa: str, kind: str, hidden_size: int) -> None:
    """Units beyond the L1 cache and rows enough for steps that multiply the input themselves."""
    layer = make(kind, 20, hidden_size)
    x, state = random_input(layer, 2, 33)
    y, last = call(layer, x, state)
    for b in (0, 17, 32):
        rows = slice(b, b + 1)
        alone, last_alone = call(layer, x[:, rows], tuple(s[:, rows] for s in state))
        assert_same_bits(y[:, rows], alone)
        for one, all_rows in zip(last_alone, last, strict=True):
            assert_same_bits(all_rows[:, rows], one)


@cells
@dtypes
@pytest.mark.parametrize("stack", ONE_WAY)
def test_chunks_and_steps_are_as_the_whole(
    isa: str, cell: Cell, dtype: str, stack: Options
) -> None:
    kind, options = cell
    layer = make(kind, 5, 19, dtype=dtype, **options, **stack)
    x, state = random_input(layer, 12, 3)
    whole, last = call(layer, x, state)
    order = -1 if stack.get("reverse") else 1
    for size in (1, 5):
        pieces = []
        current = state
        for start in range(0, 12, size):
            piece = x[::order][start : start + size][::order]
            y, current = call(layer, piece, current)
            pieces.append(y)
        assert_same_bits(whole, np.concatenate(pieces[::order]))
        for one, other in zip(current, last, strict=True):
            assert_same_bits(one, other)


@cells
@stacks
def test_threads_change_nothing(isa: str, cell: Cell, stack: Options, threads: None) -> None:
    kind, options = cell
    layer = make(kind, 24, 48, **options, **stack)
    for T, B in ((60, 1), (40, 9)):
        x, state = random_input(layer, T, B)
        rng = np.random.default_rng(2)
        lengths = rng.integers(0, T + 1, B)
        dy = rng.standard_normal(call(layer, x, state)[0].shape).astype("float32")
        results = []
        for count in (1, 2):
            lc.set_num_threads(count)
            results.append(train_step(layer, x, state, dy, state, lengths=lengths))
        assert_same_bits(*results)


# More threads than cores: what a large machine does, on any. Layers are above the sizes from which
# on threads share the units of every step, or have several rows each.


@cells
@pytest.mark.parametrize("count", [3, 4, 7])
def test_threads_that_share_units_change_nothing(cell: Cell, count: int, threads: None) -> None:
    kind, options = cell
    for size, lengths in ((100, None), (123, [60])):  # whose last panels are narrower
        layer = make(kind, 24, size, **options)
        x, state = random_input(layer, 100, 1)
        compare_threads(layer, x, state, count, lengths)


@cells
@pytest.mark.parametrize("stack", [{}, {"bidirectional": True, "num_layers": 2}])
@pytest.mark.parametrize("count", [3, 4, 7])
def test_many_threads_change_nothing(cell: Cell, stack: Options, count: int, threads: None) -> None:
    kind, options = cell
    layer = make(kind, 24, 48, **options, **stack)
    for T, B in ((60, 2), (40, 9)):
        x, state = random_input(layer, T, B)
        compare_threads(layer, x, state, count, np.random.default_rng(2).integers(0, T + 1, B))


def compare_threads(
    layer: Any, x: np.ndarray, state: tuple[np.ndarray, ...], count: int, lengths: Any
) -> None:
    dy = np.random.default_rng(3).standard_normal(call(layer, x, state)[0].shape).astype(x.dtype)
    results = []
    for n in (1, count):
        _core.set_num_threads(n, exactly=True)
        inferred = call(layer, x, state, lengths=lengths)
        results.append((inferred, train_step(layer, x, state, dy, state, lengths=lengths)))
    (inferred, trained), (other_inferred, other_trained) = results
    assert_same_bits(inferred, other_inferred)
    assert_same_bits(trained, other_trained)


@cells
@stacks
@dtypes
def test_isa_levels_with_fused_multiply_add_agree(cell: Cell, stack: Options, dtype: str) -> None:
    levels = [name for name in lc.available_isas() if name != "x86-64-v2"]
    if len(levels) < 2:
        pytest.skip("one such level on this machine")
    kind, options = cell
    layer = make(kind, 7, 21, dtype=dtype, **options, **stack)
    x, state = random_input(layer, 9, 5)
    before = lc.isa()
    results = []
    try:
        for name in levels:
            lc.set_isa(name)
            rng = np.random.default_rng(2)
            dy = rng.standard_normal(call(layer, x, state)[0].shape).astype(dtype)
            results.append(train_step(layer, x, state, dy, state, lengths=[9, 3, 0, 5, 9]))
    finally:
        lc.set_isa(before)
    for result in results[1:]:
        assert_same_bits(results[0], result)


@cells
def test_resets_split_a_sequence(isa: str, cell: Cell) -> None:
    kind, options = cell
    for stack in ({}, {"reverse": True}, {"bidirectional": True}):
        layer = make(kind, 5, 9, **options, **stack)
        x, _ = random_input(layer, 10, 1)
        resets = np.zeros((10, 1), bool)
        resets[[4, 7]] = True
        y, _ = layer(x, resets=resets)
        parts = [layer(x[a:b])[0] for a, b in ((0, 4), (4, 7), (7, 10))]
        assert_same_bits(y, np.concatenate(parts))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_memory_layout_changes_nothing(isa: str, kind: str) -> None:
    """Strided, reversed, read-only, Fortran-ordered, offset, byte-swapped and broadcast inputs."""
    layer = make(kind, 6, 10, bidirectional=True)
    x, state = random_input(layer, 8, 4)
    y, last = call(layer, x, state)

    strided = np.zeros((16, 12, 6), "float32")[::2, ::3]
    strided[...] = x
    inner = np.zeros((8, 4, 12), "float32")[..., ::2]
    inner[...] = x
    backwards = np.ascontiguousarray(x[::-1, ::-1])[::-1, ::-1]
    read_only = x.copy()
    read_only.flags.writeable = False
    unaligned = np.frombuffer(b"\0" + x.tobytes(), "float32", offset=1).reshape(x.shape)
    for same in (strided, inner, backwards, read_only, np.asfortranarray(x), unaligned, x.tolist()):
        other, other_last = call(layer, same, state)
        assert_same_bits(y, other)
        for one, two in zip(last, other_last, strict=True):
            assert_same_bits(one, two)
    swapped = x.astype(x.dtype.newbyteorder())
    assert_same_bits(y, call(layer, swapped, state)[0])
    broadcast = np.broadcast_to(x[:1, :1], x.shape)
    assert_same_bits(call(layer, broadcast, state)[0], call(layer, broadcast.copy(), state)[0])

    first = make(kind, 6, 10, bidirectional=True, batch_first=True)
    turned = x.swapaxes(0, 1)
    for same in (turned, np.ascontiguousarray(turned)):
        other, _ = call(first, same, state)
        assert_same_bits(y, np.ascontiguousarray(other.swapaxes(0, 1)))


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_gradients_in_every_layout(isa: str, kind: str) -> None:
    layer = make(kind, 6, 10)
    first = make(kind, 6, 10, batch_first=True)
    x, state = random_input(layer, 8, 4)
    dy = np.random.default_rng(0).standard_normal((8, 4, 10)).astype("float32")
    plain = train_step(layer, x, state, dy, state)
    fortran = train_step(layer, np.asfortranarray(x), state, np.asfortranarray(dy), state)
    assert_same_bits(plain, fortran)
    turned = train_step(first, x.swapaxes(0, 1), state, dy.swapaxes(0, 1), state)
    for name, value in turned.gradients.items():
        value = value.swapaxes(0, 1) if name == "dx" else value
        assert_same_bits(value, plain.gradients[name])


@dtypes
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_arguments_checked_by_the_core_are_as_others(
    kind: str, batch_first: bool, dtype: str
) -> None:
    """Plain arrays go straight to the core; lengths, lists and arrays of other layouts do not."""
    layer = make(kind, 5, 7, num_layers=2, batch_first=batch_first, dtype=dtype)
    x, (h, *c) = random_input(layer, 4, 3)
    x = np.ascontiguousarray(x.swapaxes(0, 1)) if batch_first else x
    pair = isinstance(layer, lc.LSTM)
    for parts in ((h, *c), (h, *(None for _ in c)), (None, *c)):
        state: Any = parts if pair else parts[0]
        y, last = layer(x, state)
        fortran = tuple(None if p is None else np.asfortranarray(p) for p in parts)
        for other_x, other, lengths in (
            (x, state, [4, 4, 4]),
            (np.asfortranarray(x), state, None),
            (x, fortran if pair else fortran[0], None),
            (x, list(parts) if pair else state, None),
        ):
            other_y, other_last = layer(other_x, other, lengths=lengths)
            assert_same_bits(y, other_y)
            for one, two in zip(last, other_last, strict=True):
                assert_same_bits(one, two)
