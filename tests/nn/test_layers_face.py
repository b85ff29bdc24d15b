"""The face of layers and cells: shapes, forms of input, states, tapes, dropout, threads."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.variants import Cell, cells, make

T, B, I, H = 5, 3, 4, 6  # noqa: E741
LAYERS = (lc.RNN, lc.GRU, lc.LSTM)
CELLS = (lc.RNNCell, lc.GRUCell, lc.LSTMCell)


def normal(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).normal(size=shape)


def parts(state: Any) -> tuple[Any, ...]:
    """The arrays of a state."""
    return state if isinstance(state, tuple) else (state,)


def like(state: tuple[Any, ...]) -> Any:
    """The state that has these arrays."""
    return state if len(state) == 2 else state[0]


def initial(layer: Any, batch: int | None = B) -> Any:
    """A state of the right shape."""
    slots = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [layer.hidden_size]
    if isinstance(layer, lc.LSTM):
        sizes = [layer.proj_size or layer.hidden_size, layer.hidden_size]
    rows = () if batch is None else (batch,)
    return like(tuple(normal(slots, *rows, n, seed=i) for i, n in enumerate(sizes)))


# Shapes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_layers": 2},
        {"bidirectional": True, "num_layers": 2},
        {"bidirectional": True, "merge": "sum"},
        {"bidirectional": True, "merge": "ave", "num_layers": 3},
        {"reverse": True},
        {"bias": False},
    ],
)
def test_shapes(kind: Any, batch_first: bool, options: dict[str, Any]) -> None:
    layer = kind(I, H, batch_first=batch_first, dtype="float64", seed=0, **options)
    directions = 2 if layer.bidirectional else 1
    features = H * directions if layer.merge == "concat" else H
    lead = (B, T) if batch_first else (T, B)
    slots = layer.num_layers * directions
    y, state = layer(normal(*lead, I))
    assert y.shape == (*lead, features)
    assert [s.shape for s in parts(state)] == [(slots, B, H)] * len(parts(state))
    assert len(parts(state)) == (2 if kind is lc.LSTM else 1)
    assert y.dtype == layer.dtype
    assert type(y) is np.ndarray

    y, state, tape = layer.forward(normal(*lead, I), initial(layer))
    dx, dstate = layer.backward(tape, normal(*y.shape), initial(layer))
    assert dx.shape == (*lead, I)
    assert [s.shape for s in parts(dstate)] == [(slots, B, H)] * len(parts(state))
    gates = tape.gates()
    assert set(gates) == set({lc.RNN: "", lc.GRU: "rzn", lc.LSTM: "ifgo"}[kind])
    assert all(gate.shape == (slots, *lead, H) for gate in gates.values())

    y, state = layer(normal(T, I))  # unbatched, the same whatever batch_first says
    assert y.shape == (T, features)
    assert [s.shape for s in parts(state)] == [(slots, H)] * len(parts(state))
    y, state, tape = layer.forward(normal(T, I), initial(layer, None))
    dx, dstate = layer.backward(tape, normal(*y.shape), initial(layer, None))
    assert dx.shape == (T, I)
    assert [s.shape for s in parts(dstate)] == [(slots, H)] * len(parts(state))
    assert all(gate.shape == (slots, T, H) for gate in tape.gates().values())


@pytest.mark.parametrize("batch_first", [False, True])
def test_projected_shapes(batch_first: bool) -> None:
    layer = lc.LSTM(I, H, 2, proj_size=2, bidirectional=True, batch_first=batch_first, seed=0)
    lead = (B, T) if batch_first else (T, B)
    x = normal(*lead, I).astype("float32")
    y, (h, c), tape = layer.forward(x)
    assert y.shape == (*lead, 4)
    assert h.shape == (4, B, 2)
    assert c.shape == (4, B, H)
    assert tape.cells().shape == (4, *lead, H)
    dx, (dh, dc) = layer.backward(tape, y, (h, c))
    assert dx.shape == x.shape
    assert dh.shape == h.shape
    assert dc.shape == c.shape
    y, (h, c) = layer(x[0], (np.ones((4, 2), "int8"), np.ones((4, H)).tolist()))
    assert h.shape == (4, 2)
    assert c.shape == (4, H)


@pytest.mark.parametrize("kind", CELLS)
@pytest.mark.parametrize("rows", [(), (B,), (0,)])
def test_cell_shapes(kind: Any, rows: tuple[int, ...]) -> None:
    cell = kind(I, H, dtype="float64", seed=0)
    x = normal(*rows, I)
    state = cell(x)
    assert [s.shape for s in parts(state)] == [(*rows, H)] * (2 if kind is lc.LSTMCell else 1)
    again, tape = cell.forward(x, state)
    assert_same_bits(again, cell(x, state))
    dx, dstate = cell.backward(tape, again)
    assert dx.shape == x.shape
    assert [s.shape for s in parts(dstate)] == [s.shape for s in parts(state)]
    assert all(gate.shape == (*rows, H) for gate in tape.gates().values())
    if kind is lc.LSTMCell:
        assert_same_bits(tape.cells(), again[1])


def test_projected_cell() -> None:
    cell = lc.LSTMCell(I, H, proj_size=2, dtype="float64", seed=0)
    h, c = cell(normal(B, I), (normal(B, 2), normal(B, H)))
    assert h.shape == (B, 2)
    assert c.shape == (B, H)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("shape", [(0, B), (T, 0), (0, 0)])
@pytest.mark.parametrize("batch_first", [False, True])
def test_nothing_to_do(kind: Any, shape: tuple[int, int], batch_first: bool) -> None:
    time, batch = shape
    layer = kind(I, H, bidirectional=True, batch_first=batch_first, dtype="float64", seed=0)
    lead = (batch, time) if batch_first else (time, batch)
    state = initial(layer, batch)
    for extra in ({}, {"lengths": [0] * batch, "resets": np.zeros(lead, bool)}):
        y, final, tape = layer.forward(np.zeros((*lead, I)), state, **extra)
        assert y.shape == (*lead, 2 * H)
        assert_same_bits(final, state)
        dx, dstate = layer.backward(tape, np.zeros(y.shape), state)
        assert dx.shape == (*lead, I)
        assert_same_bits(dstate, state)
    assert all((p.grad == 0).all() for p in layer.parameters())


def test_nothing_unbatched() -> None:
    layer = lc.GRU(I, H, seed=0)
    h0 = np.ones((1, H), "float32")
    y, h = layer(np.zeros((0, I), "float32"), h0)
    assert y.shape == (0, H)
    assert_same_bits(h, h0)


# Forms that mean the same -------------------------------------------------------------------------


def run(layer: Any, x: Any, state: Any = None, dy: Any = None, **extra: Any) -> tuple[Any, ...]:
    """Outputs, gradients of x and state and of every parameter, from forward and backward."""
    layer.zero_grad()
    y, final, tape = layer.forward(x, state, **extra)
    inferred, inferred_state = layer(x, state, **extra)
    assert_same_bits(inferred, y)
    assert_same_bits(inferred_state, final)
    dx, dstate = layer.backward(tape, np.ones(y.shape, layer.dtype) if dy is None else dy, final)
    return (y, final, dx, dstate, *(p.grad.copy() for p in layer.parameters()))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("lengths", [None, [5, 2, 0]])
def test_batch_first_is_time_major_transposed(kind: Any, lengths: Any) -> None:
    major = kind(I, H, num_layers=2, bidirectional=True, dtype="float64", seed=0)
    first = kind(I, H, num_layers=2, bidirectional=True, batch_first=True, dtype="float64", seed=0)
    x, dy, resets = normal(T, B, I), normal(T, B, 2 * H), np.zeros((T, B), bool)
    state = initial(major)

    def swap(array: Any) -> Any:
        return array.swapaxes(0, 1)

    y, final, dx, dstate, *grads = run(major, x, state, dy, lengths=lengths, resets=resets)
    y1, final1, dx1, dstate1, *grads1 = run(
        first, swap(x), state, swap(dy), lengths=lengths, resets=swap(resets)
    )
    assert_same_bits(swap(y1), y)
    assert_same_bits(final1, final)
    assert_same_bits(swap(dx1), dx)
    assert_same_bits(dstate1, dstate)
    for a, b in zip(grads, grads1, strict=True):
        assert_same_bits(a, b)


@pytest.mark.parametrize("kind", LAYERS)
def test_resets_by_axis(kind: Any) -> None:
    major = kind(I, H, bidirectional=True, dtype="float64", seed=0)
    first = kind(I, H, bidirectional=True, batch_first=True, dtype="float64", seed=0)
    resets = np.zeros((T, B), bool)
    resets[2, 1] = resets[0, 0] = resets[4, 0] = True
    x = normal(T, B, I)
    y, state = major(x, initial(major), resets=resets)
    assert not np.array_equal(y, major(x, initial(major))[0])
    y1, state1 = first(x.swapaxes(0, 1), initial(first), resets=resets.T)
    assert_same_bits(y1.swapaxes(0, 1), y)
    assert_same_bits(state1, state)
    assert_same_bits(major(x, initial(major), resets=resets.tolist())[0], y)
    for row in range(B):
        alone = tuple(s[:, row] for s in parts(initial(major)))
        y1, state1 = major(x[:, row], like(alone), resets=resets[:, row])
        assert_same_bits(y1, y[:, row])
        assert_same_bits(state1, like(tuple(s[:, row] for s in parts(state))))


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("batch_first", [False, True])
def test_unbatched_is_a_batch_of_one(kind: Any, batch_first: bool) -> None:
    layer = kind(I, H, 2, bidirectional=True, batch_first=batch_first, dtype="float64", seed=0)
    axis = 0 if batch_first else 1
    x, state = normal(T, I), initial(layer, None)
    whole = like(tuple(s[:, None] for s in parts(state)))
    for lengths in (None, 3, 0):
        batched = None if lengths is None else [lengths]
        y, final, dx, dstate, *grads = run(layer, x, state, lengths=lengths)
        y1, final1, dx1, dstate1, *grads1 = run(
            layer, np.expand_dims(x, axis), whole, lengths=batched
        )
        assert_same_bits(y, y1.squeeze(axis))
        assert_same_bits(final, like(tuple(s[:, 0] for s in parts(final1))))
        assert_same_bits(dx, dx1.squeeze(axis))
        assert_same_bits(dstate, like(tuple(s[:, 0] for s in parts(dstate1))))
        for a, b in zip(grads, grads1, strict=True):
            assert_same_bits(a, b)


@pytest.mark.parametrize(
    "form", [3, np.int8(3), np.array(3), [3], np.array([3], "uint16")], ids=repr
)
def test_lengths_unbatched(form: Any) -> None:
    layer = lc.LSTM(I, H, dtype="float64", seed=0)
    x = normal(T, I)
    y, state = layer(x, lengths=form)
    assert_same_bits(y[:3], layer(x[:3])[0])
    assert (y[3:] == 0).all()
    assert_same_bits(state, layer(x[:3])[1])


@pytest.mark.parametrize("form", [list, tuple, np.array, lambda n: np.array(n, "uint64")])
def test_lengths(form: Callable[[Any], Any]) -> None:
    layer = lc.GRU(I, H, dtype="float64", seed=0)
    x = normal(T, B, I)
    y, h = layer(x, lengths=form([5, 2, 0]))
    for row, n in enumerate((5, 2, 0)):
        assert_same_bits(y[:n, row], layer(x[:n, row])[0])
        assert (y[n:, row] == 0).all()
        assert_same_bits(h[:, row], layer(x[:n, row])[1])


@pytest.mark.parametrize("kind", LAYERS)
def test_no_state_is_zeros(kind: Any) -> None:
    layer = kind(I, H, 2, dtype="float64", seed=0)
    x = normal(T, B, I)
    zeros = like(tuple(np.zeros_like(s) for s in parts(initial(layer))))
    for one, other in zip(run(layer, x), run(layer, x, zeros), strict=True):
        assert_same_bits(one, other)


def test_half_a_state() -> None:
    layer = lc.LSTM(I, H, dtype="float64", seed=0)
    x, (h, c) = normal(T, B, I), initial(layer)
    zeros = np.zeros_like(h)
    for half, whole in (
        ((h, None), (h, zeros)),
        ((None, c), (zeros, c)),
        ([h, c], (h, c)),
        ((None, None), None),
        ((h.tolist(), c[..., ::-1][..., ::-1]), (h, c)),
    ):
        assert_same_bits(layer(x, half)[0], layer(x, whole)[0])
        y, _, tape = layer.forward(x)
        dx, dstate = layer.backward(tape, y, half)
        dx1, dstate1 = layer.backward(tape, y, whole)
        assert_same_bits(dx, dx1)
        assert_same_bits(dstate, dstate1)


@pytest.mark.parametrize("kind", LAYERS)
def test_no_dy_is_zeros(kind: Any) -> None:
    layer = kind(I, H, dtype="float64", seed=0)
    y, final, tape = layer.forward(normal(T, B, I))
    one = layer.backward(tape, None, final)
    grads = [p.grad.copy() for p in layer.parameters()]
    layer.zero_grad()
    other = layer.backward(tape, np.zeros(y.shape), final)
    for a, b in zip(one, other, strict=True):
        assert_same_bits(a, b)
    for p, grad in zip(layer.parameters(), grads, strict=True):
        assert_same_bits(p.grad, grad)
    layer.zero_grad()
    dx, dstate = layer.backward(tape, None)
    assert not dx.any()
    assert not any(s.any() for s in parts(dstate))
    assert not any(p.grad.any() for p in layer.parameters())


@pytest.mark.parametrize("kind", CELLS)
def test_cells_are_layers_of_one_step(kind: Any) -> None:
    cell = kind(I, H, dtype="float64", seed=0)
    layer = getattr(lc, kind.__name__.removesuffix("Cell"))(I, H, dtype="float64")
    layer.load_state_dict({f"{name}_l0": v for name, v in cell.state_dict().items()})
    x, state = normal(T, B, I), None
    steps = []
    for x_t in x:
        state = cell(x_t, state)
        steps.append(parts(state)[0])
    y, final = layer(x)
    assert_same_bits(np.array(steps), y)
    assert_same_bits(like(tuple(s[None] for s in parts(state))), final)


# Forms of arrays ----------------------------------------------------------------------------------


def unaligned(x: Any) -> Any:
    memory = np.empty(x.nbytes + 1, np.uint8)
    result = memory[1:].view(x.dtype).reshape(x.shape)
    result[...] = x
    return result


def packed_field(x: Any) -> Any:
    """The field of a packed structured array, whose strides are no multiples of its size."""
    rows = np.zeros(x.shape[:-1], np.dtype([("flag", "u1"), ("x", x.dtype, x.shape[-1:])]))
    rows["x"] = x
    return rows["x"]


def read_only(x: Any) -> Any:
    x = x.copy()
    x.flags.writeable = False
    return x


FORMS: dict[str, Callable[[Any], Any]] = {
    "list": lambda x: x.tolist(),
    "list of arrays": list,
    "read-only": read_only,
    "Fortran": np.asfortranarray,
    "reversed time": lambda x: x[::-1].copy()[::-1],
    "reversed batch": lambda x: x[:, ::-1].copy()[:, ::-1],
    "reversed features": lambda x: x[..., ::-1].copy()[..., ::-1],
    "every other step": lambda x: np.repeat(x, 2, 0)[::2],
    "every other row": lambda x: np.repeat(x, 2, 1)[:, ::2],
    "every other feature": lambda x: np.repeat(x, 2, 2)[..., ::2],
    "window": lambda x: np.pad(x, 2)[2:-2, 2:-2, 2:-2],
    "swapped": lambda x: x.swapaxes(0, 1).copy().swapaxes(0, 1),
    "unaligned": unaligned,
    "packed": packed_field,
    "other byte order": lambda x: x.astype(x.dtype.newbyteorder()),
    "memoryview": memoryview,
    "subclass": lambda x: x.view(type("Sub", (np.ndarray,), {})),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_forms_of_arrays(form: str, dtype: str) -> None:
    layer = lc.LSTM(I, H, 2, bidirectional=True, dtype=dtype, seed=0)
    x, dy = normal(T, B, I).astype(dtype), normal(T, B, 2 * H).astype(dtype)
    h, c = (s.astype(dtype) for s in initial(layer))
    make = FORMS[form]
    plain = run(layer, x, (h, c), dy)
    inputs = make(x), make(h), make(c), make(dy)
    before = [np.array(a) for a in inputs]
    for one, other in zip(run(layer, inputs[0], inputs[1:3], inputs[3]), plain, strict=True):
        assert_same_bits(one, other)
    for a, b in zip(inputs, before, strict=True):  # nothing given is written to
        assert_same_bits(np.array(a), b)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("given", ["int8", "uint64", "bool", "float16"])
def test_other_numbers_are_converted(dtype: str, given: str) -> None:
    layer = lc.GRU(I, H, dtype=dtype, seed=0)
    x = (normal(T, B, I) > 0).astype(given)
    h0 = np.ones((1, B, H), given)
    assert_same_bits(layer(x, h0), layer(x.astype(dtype), h0.astype(dtype)))


def test_broadcast_input() -> None:
    layer = lc.GRU(I, H, seed=0)
    row = normal(I).astype("float32")
    for x in (
        np.broadcast_to(row, (T, B, I)),
        np.broadcast_to(np.float32(2), (T, B, I)),
        np.broadcast_to(np.ones((B, 1), "float32"), (T, B, I)),
    ):
        assert_same_bits(layer(x), layer(np.ascontiguousarray(x)))


def test_axes_of_one_with_odd_strides() -> None:
    """Where there is one row or step, its stride means nothing."""
    layer = lc.GRU(I, H, seed=0)
    rows = np.zeros((T, B), np.dtype([("x", "f4", (I,)), ("flag", "u1")]))
    rows["x"] = normal(T, B, I)
    x = rows[:1, :1]["x"]
    assert x.strides[0] % 4
    assert x.flags.aligned
    assert_same_bits(layer(x), layer(x.copy()))
    y, _, tape = layer.forward(x)
    dx, _ = layer.backward(tape, y)
    assert dx.shape == x.shape


def test_one_feature() -> None:
    """An axis of one has no meaningful stride."""
    layer = lc.GRU(1, 1, seed=0)
    big = normal(2 * T, 3 * B, 7).astype("float32")
    x = big[::2, ::3, 3:4]
    assert_same_bits(layer(x), layer(x.copy()))
    _, _, tape = layer.forward(x)
    assert_same_bits(layer.backward(tape, x), layer.backward(tape, x.copy()))
    assert_same_bits(layer(big[:, :1, 2:3]), layer(big[:, :1, 2:3].copy()))
    assert_same_bits(layer(big[:1, ::2, 2:3]), layer(big[:1, ::2, 2:3].copy()))


# Who owns what ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_results_are_new_arrays(kind: Any) -> None:
    layer = kind(I, H, dtype="float64", seed=0)
    x, state = normal(T, B, I), initial(layer)
    y, final = layer(x, state)
    for array in (y, *parts(final)):
        assert array.flags.writeable
        for given in (x, *parts(state)):
            assert not np.shares_memory(array, given)
    y, final, tape = layer.forward(x, state)
    dy = np.ones(y.shape)
    dx, dstate = layer.backward(tape, dy, state)
    for array in (dx, *parts(dstate), *parts(final)):
        assert array.flags.writeable
        for given in (x, y, dy, *parts(state)):
            assert not np.shares_memory(array, given)


@pytest.mark.parametrize("shape", [(T, B, I), (T, I)])
def test_y_of_forward_is_read_only(shape: tuple[int, ...]) -> None:
    y, _, _ = lc.GRU(I, H, dtype="float64", seed=0).forward(normal(*shape))
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 1


@pytest.mark.parametrize("kind", LAYERS)
def test_tape_keeps_what_it_needs(kind: Any) -> None:
    """States, lengths, resets and parameters may change before backward; the input may go away."""
    layer = kind(I, H, 2, bidirectional=True, dtype="float64", seed=0)
    resets, lengths = np.zeros((T, B), bool), np.array([5, 2, 4])
    resets[2, 0] = True

    def gradients(spoil: bool) -> tuple[Any, ...]:
        layer.zero_grad()
        state, n, r = copy.deepcopy(initial(layer)), lengths.copy(), resets.copy()
        y, final, tape = layer.forward(normal(T, B, I), state, lengths=n, resets=r)
        dy = y.copy()
        before = layer.state_dict()
        if spoil:
            for array in (*parts(state), *parts(final)):
                array[...] = np.nan
            n[...] = 0
            r[...] = True
            for p in layer.parameters():
                p.data *= -1
            layer(normal(T, B, I))
            layer.forward(normal(T, B, I))
        result = layer.backward(tape, dy, initial(layer))
        layer.load_state_dict(before)
        return (*result, *(p.grad.copy() for p in layer.parameters()))

    for one, other in zip(gradients(False), gradients(True), strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize("kind", LAYERS)
def test_backward_adds(kind: Any) -> None:
    layer = kind(I, H, dtype="float64", seed=0)
    y, _, tape = layer.forward(normal(T, B, I))
    held = [p.grad for p in layer.parameters()]
    one = layer.backward(tape, y)
    once = [grad.copy() for grad in held]
    assert any(grad.any() for grad in once)
    other = layer.backward(tape, y)  # a tape can be used again
    for a, b in zip(one, other, strict=True):
        assert_same_bits(a, b)
    for p, grad, first in zip(layer.parameters(), held, once, strict=True):
        assert p.grad is grad
        np.testing.assert_allclose(grad, 2 * first, rtol=1e-14)


def test_tape() -> None:
    layer = lc.LSTM(I, H, 2, bidirectional=True, dtype="float64", seed=0)
    y, (_, c), tape = layer.forward(normal(T, B, I), lengths=[5, 2, 0])
    assert isinstance(tape, lc.Tape)
    assert tape.nbytes > 0
    cells, gates = tape.cells(), tape.gates()
    assert cells.shape == gates["i"].shape == (4, T, B, H)
    np.testing.assert_array_equal(cells[2, 4, 0], c[2, 0])
    np.testing.assert_array_equal(cells[2, 1, 1], c[2, 1])
    np.testing.assert_array_equal(cells[3, 0, 0], c[3, 0])
    np.testing.assert_allclose((gates["o"] * np.tanh(cells))[2], y[..., :H], atol=1e-14)
    for array in (cells, *gates.values()):
        assert not array[:, 2:, 1].any()
        assert not array[:, :, 2].any()
        array[...] = np.nan  # copies
    dx, _ = layer.backward(tape, y)
    assert np.isfinite(dx).all()
    assert repr(layer) in repr(tape)
    _, _, tape = lc.GRU(I, H, dtype="float64").forward(normal(T, B, I))
    with pytest.raises(TypeError, match="the tape of a GRU, expected an LSTM's"):
        tape.cells()


# Dropout ------------------------------------------------------------------------------------------


def dropped(layer: Any) -> Any:
    return layer.forward(np.ones((T, B, I), "float32"))[0]


def test_dropout_is_reproducible() -> None:
    options: dict[str, Any] = {"num_layers": 2, "dropout": 0.5, "seed": 0}
    layer, same = lc.GRU(I, H, **options), lc.GRU(I, H, **options)
    assert layer.dropout == 0.5
    first, second = dropped(layer), dropped(layer)
    assert not np.array_equal(first, second)
    assert_same_bits(dropped(same), first)
    for twin in (pickle.loads(pickle.dumps(same)), copy.deepcopy(same)):
        assert_same_bits(dropped(twin), second)  # goes on where it was
    other = lc.GRU(I, H, num_layers=2, dropout=0.5, seed=1)
    other.load_state_dict(layer.state_dict())
    assert not np.array_equal(dropped(other), first)
    plain = lc.GRU(I, H, num_layers=2, seed=0)
    for p, q in zip(layer.parameters(), plain.parameters(), strict=True):
        assert_same_bits(p.data, q.data)


def test_dropout_is_for_training() -> None:
    layer = lc.GRU(I, H, num_layers=2, dropout=0.9, seed=0)
    plain = lc.GRU(I, H, num_layers=2, seed=0)
    x = np.ones((T, B, I), "float32")
    assert_same_bits(layer(x), plain(x))
    assert not np.array_equal(dropped(layer), plain(x)[0])


def test_a_refused_call_draws_nothing() -> None:
    layer, same = (lc.GRU(I, H, num_layers=2, dropout=0.5, seed=0) for _ in range(2))
    for wrong in ({"lengths": [9, 9, 9]}, {"resets": np.ones(3, bool)}, {"state": 3.0}):
        with pytest.raises(ValueError, match="expected"):
            layer.forward(np.ones((T, B, I), "float32"), **wrong)
    assert_same_bits(dropped(layer), dropped(same))


def test_dropout_with_one_layer_warns() -> None:
    with pytest.warns(UserWarning, match=r"dropout=0\.5 has no effect with num_layers=1") as caught:
        lc.LSTM(I, H, dropout=0.5)
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lc.LSTM(I, H)
        lc.LSTM(I, H, 2, dropout=0.5)


# Options ------------------------------------------------------------------------------------------


REPRS = {
    "LSTM(3, 5, num_layers=2, bidirectional=True)": lambda: lc.LSTM(3, 5, 2, bidirectional=True),
    "LSTM(3, 5)": lambda: lc.LSTM(3, 5, activations=["sigmoid", "tanh", ("tanh",)], seed=3),
    "LSTM(3, 5, cell_clip=3.0, forget_bias=1.0)": lambda: lc.LSTM(3, 5, cell_clip=3, forget_bias=1),
    "LSTM(3, 5, peephole=True, activations=(('hard_sigmoid', 0.2, 0.5), "
    "('scaled_tanh', 2.0, 0.5), 'tanh'))": lambda: lc.LSTM(
        3, 5, activations=("hard_sigmoid", ("scaled_tanh", 2, 0.5), "tanh"), peephole=True
    ),
    "LSTM(3, 5, proj_size=2, coupled=True)": lambda: lc.LSTM(3, 5, proj_size=2, coupled=True),
    "LSTM(3, 5, forget_gate=False)": lambda: lc.LSTM(np.int32(3), np.int64(5), forget_gate=False),
    "GRU(3, 5, bias=False, batch_first=True, reset_after=False)": lambda: lc.GRU(
        3, 5, batch_first=True, bias=np.bool_(False), reset_after=False
    ),
    "GRU(3, 5, num_layers=2, dropout=0.5)": lambda: lc.GRU(3, 5, 2, dropout=0.5),
    "GRU(3, 5, activations=('sigmoid', 'relu'))": lambda: lc.GRU(
        3, 5, activations=("sigmoid", "relu")
    ),
    "RNN(3, 5, nonlinearity='relu', dtype='float64')": lambda: lc.RNN(
        3, 5, nonlinearity="relu", dtype=np.float64
    ),
    "RNN(3, 5, bidirectional=True, merge='sum')": lambda: lc.RNN(
        3, 5, bidirectional=True, merge="sum"
    ),
    "RNN(3, 5, reverse=True)": lambda: lc.RNN(3, 5, reverse=True),
    "RNNCell(3, 5, nonlinearity='relu', bias=False)": lambda: lc.RNNCell(3, 5, False, "relu"),
    "LSTMCell(3, 5, dtype='float64')": lambda: lc.LSTMCell(3, 5, dtype="float64"),
    "GRUCell(3, 5)": lambda: lc.GRUCell(3, 5),
}


@pytest.mark.parametrize("text", REPRS)
def test_repr(text: str) -> None:
    layer = REPRS[text]()
    assert repr(layer) == text
    twin = eval(text, vars(lc))
    twin.load_state_dict(layer.state_dict())
    assert twin == layer


def test_options_are_attributes_that_stay() -> None:
    layer = lc.LSTM(3, 5, 2, bidirectional=True, activations=("hard_sigmoid", "tanh", "relu"))
    assert (layer.input_size, layer.hidden_size, layer.num_layers) == (3, 5, 2)
    assert layer.dtype == "float32"
    assert layer.cell_clip is None
    assert layer.activations == (("hard_sigmoid", 0.2, 0.5), "tanh", "relu")
    for name in ("hidden_size", "batch_first", "dtype", "cell_clip"):
        with pytest.raises(AttributeError, match=f"{name} is fixed when the LSTM is made"):
            setattr(layer, name, 7)
    assert not hasattr(lc.GRU(3, 5), "cell_clip")
    assert not hasattr(lc.GRUCell(3, 5), "num_layers")
    assert lc.RNNCell(3, 5, nonlinearity="relu").nonlinearity == "relu"


# Threads, the machine, the package ----------------------------------------------------------------


@pytest.mark.parametrize("kind", LAYERS)
def test_threads_share_a_layer(kind: Any) -> None:
    layer = kind(I, H, 2, bidirectional=True, dtype="float64", seed=0)
    inputs = [normal(1 + i % 7, 1 + i % 3, I, seed=i) for i in range(40)]
    inputs += [normal(1 + i % 4, I, seed=i) for i in range(40)]
    wanted = [layer(x) for x in inputs]
    layer.parameters()[0].data += 0  # everybody has to pack again
    with ThreadPoolExecutor(4) as pool:
        for (y, state), (y1, state1) in zip(pool.map(layer, inputs), wanted, strict=True):
            assert_same_bits(y, y1)
            assert_same_bits(state, state1)


def test_exceptions_in_threads_are_the_same() -> None:
    layer = lc.GRU(I, H, seed=0)
    with ThreadPoolExecutor(4) as pool:
        futures = [pool.submit(layer, np.zeros((T, B, I + i % 2), "float32")) for i in range(40)]
    for i, future in enumerate(futures):
        assert (future.exception() is None) == (i % 2 == 0)


def test_num_threads() -> None:
    before = lc.get_num_threads()
    try:
        lc.set_num_threads(1)
        assert lc.get_num_threads() == 1
        lc.set_num_threads(10**6)
        assert 1 <= lc.get_num_threads() < 10**6  # no more than there are cores
    finally:
        lc.set_num_threads(before)
    for wrong, error in ((0, ValueError), (-1, ValueError), (1.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match=r"n is .*, expected"):
            lc.set_num_threads(wrong)
    assert lc.get_num_threads() == before


def test_isa() -> None:
    before = lc.isa()
    assert before in lc.available_isas()
    try:
        for name in lc.available_isas():
            lc.set_isa(name)
            assert lc.isa() == name
        chosen = lc.isa()
        with pytest.raises(ValueError, match=r"name is 'sse9', expected one of .*" + chosen):
            lc.set_isa("sse9")
        with pytest.raises(TypeError, match=r"name is 3 \(int\), expected one of"):
            lc.set_isa(3)  # type: ignore[arg-type]
        assert lc.isa() == chosen
    finally:
        lc.set_isa(before)


def test_a_tape_outlives_a_change_of_isa() -> None:
    layer = lc.LSTM(I, H, dtype="float64", seed=0)
    before = lc.isa()
    try:
        for name in lc.available_isas():
            lc.set_isa(before)
            y, _, tape = layer.forward(normal(T, B, I))
            wanted, _ = layer.backward(tape, y)
            lc.set_isa(name)
            dx, _ = layer.backward(tape, y)
            np.testing.assert_allclose(dx, wanted, rtol=1e-12)
    finally:
        lc.set_isa(before)


def test_info() -> None:
    info = lc.info()
    assert info["lstmcore"] == lc.__version__
    assert lc.isa() in info["isa"]
    assert str(lc.get_num_threads()) in info["threads"]
    assert {"python", "numpy", "platform", "cpu", "compiler", "eigen", "openmp"} <= set(info)
    assert info["bfloat16"] in ("float32", "avx512-bf16", "amx")
    assert info["bfloat16x3"] in ("float32", "amx")
    assert info["int8"] in ("plain", "vnni", "amx")
    lines = str(info).splitlines()
    assert len(lines) == len(info)
    for (key, value), line in zip(info.items(), lines, strict=True):
        assert line.startswith(f"{key}: ")
        assert line.endswith(f" {value}")


def test_the_package_has_what_it_lists() -> None:
    for name in lc.__all__:
        assert getattr(lc, name) is not None
    assert len(lc.__all__) == len(set(lc.__all__))


@cells
def test_gradients_without_that_of_x(cell: Cell) -> None:
    """Of every variant, the gradients of parameters and states are those beside that of x."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((6, 5, 3)).astype("f4")
    found = []
    for need_dx in (True, False):
        layer = make(cell[0], 3, 4, seed=1, **cell[1])
        y, _, tape = layer.forward(x, lengths=[6, 0, 3, 1, 6])
        dx, dstate = layer._backward(tape, np.ones_like(y), None, need_dx)
        assert (dx is None) == (not need_dx)
        found.append((dstate, [p.grad for p in layer.parameters()]))
    assert_same_bits(found[0], found[1])
