"""Pools of streams: the bits of lone streams, who comes and goes, what is refused, threads."""

from __future__ import annotations

import copy
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.allocation import peak_of
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads
from helpers.variants import Cell, cells, dtypes, make

CAPACITY = 6


def numbers(*shape: int, dtype: Any = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def norm() -> lc.BatchNorm:
    """One that has seen something."""
    found = lc.BatchNorm(4)
    found.forward(numbers(50, 2, 4, seed=3) + 1)
    return found


def quantized() -> lc.Sequential:
    return lc.quantize(lc.Sequential(lc.LSTM(4, 9, num_layers=2, seed=0), lc.Linear(9, 3, seed=1)))


def chain() -> lc.Model:
    x = lc.Input(4)
    return lc.Model(x, lc.Linear(5, 2, seed=1)(lc.GRU(4, 5, seed=0)(x)[0]))


MODELS: dict[str, Callable[[], Any]] = {
    "tagger": lambda: lc.Sequential(
        lc.Linear(4, 6, seed=0), lc.LayerNorm(6), lc.LSTM(6, 7, proj_size=3, seed=1),
        lc.Dropout(0.5), lc.Sequential(lc.GRU(3, 33, num_layers=2, seed=2), lc.Tanh()),
        lc.Softmax(),
    ),
    "int8": quantized,
    "no state": lambda: lc.Sequential(lc.Linear(4, 2, seed=0)),
    "chain": chain,
    "in python": lambda: lc.Sequential(
        lc.GELU(), lc.LSTM(4, 5, seed=0), lc.SiLU(), lc.RNN(5, 3, seed=1), lc.Softplus()
    ),
    "past steps": lambda: lc.Sequential(
        lc.Conv1D(4, 4, 3, padding="causal", dilation=2, seed=0), norm(), lc.LSTM(4, 5, seed=1),
        lc.Conv1D(5, 3, 2, padding="causal", seed=2),
    ),
    "ids": lambda: lc.Sequential(lc.Embedding(11, 4, seed=0), lc.GRU(4, 5, seed=1)),
    "ids in python": lambda: lc.Sequential(
        lc.Embedding(11, 4, seed=0), lc.GRU(4, 5, seed=1), lc.GELU()
    ),
}  # fmt: skip
models = pytest.mark.parametrize("name", MODELS)


def check_beside_lone_streams(model: Any, draw: Callable[[int], np.ndarray]) -> None:
    """Streams come and go at random, and any of them take steps: `draw` makes so many rows of x."""
    rng = np.random.default_rng(1)
    pool = model.stream_pool(CAPACITY)
    lone: dict[int, Any] = {}
    for _ in range(40):
        while len(lone) < CAPACITY and rng.random() < 0.6:
            id = pool.open()
            assert id not in lone
            lone[id] = model.stream()
        ids = rng.permutation(np.array(list(lone), int))
        if len(ids) and rng.random() < 0.3:
            pool.close(ids[0])
            del lone[int(ids[0])]
            ids = ids[1:]
        if len(ids) and rng.random() < 0.3:
            pool.reset(ids[:2])
            for id in ids[:2]:
                lone[id].reset()
        assert len(pool) == len(lone)
        ids = ids[: rng.integers(len(ids) + 1)]
        x = draw(len(ids))
        y = pool.step(ids, x)
        assert y.shape[0] == len(ids)
        for id, row, out in zip(ids, x, y, strict=True):
            assert_same_bits(out[None], lone[id].step(row[None]))
    for id, stream in lone.items():
        assert_same_bits(pool.state(id), stream.state)


@cells
@dtypes
@pytest.mark.parametrize("num_layers", [1, 3])
def test_layers_have_the_bits_of_lone_streams(
    isa: str, cell: Cell, dtype: str, num_layers: int
) -> None:
    kind, options = cell
    layer = make(kind, 4, 19, num_layers=num_layers, dtype=dtype, **options)
    rng = np.random.default_rng(0)
    check_beside_lone_streams(layer, lambda n: rng.standard_normal((n, 4)).astype(dtype))


@models
def test_models_have_the_bits_of_lone_streams(isa: str, name: str) -> None:
    rng = np.random.default_rng(0)

    def draw(n: int) -> np.ndarray:
        if name.startswith("ids"):
            return rng.integers(0, 11, n)
        return rng.standard_normal((n, 4)).astype("float32")

    check_beside_lone_streams(MODELS[name](), draw)


def test_a_thousand_streams() -> None:
    lstm = lc.LSTM(20, 130, seed=0)
    pool = lstm.stream_pool(1000)
    ids = np.array([pool.open() for _ in range(1000)])
    x = numbers(3, 1000, 20)
    whole = lstm(x)[0]
    assert_same_bits(pool.step(ids, x[0]), whole[0])
    half = np.random.default_rng(1).permutation(1000)[:500]
    assert_same_bits(pool.step(ids[half], x[1][half]), whole[1][half])
    rest = np.setdiff1d(np.arange(1000), half)
    assert_same_bits(pool.step(ids[rest], x[1][rest]), whole[1][rest])
    assert_same_bits(pool.step(ids, x[2]), whole[2])


@models
def test_states_move_from_stream_to_stream(name: str) -> None:
    model = MODELS[name]()
    pool, stream = model.stream_pool(2), model.stream()
    x = np.arange(4) if name.startswith("ids") else numbers(4, 4)
    a = pool.open()
    for row in x[:3]:
        pool.step([a], row[None])
        stream.step(row[None])
    b = pool.open(state=pool.state(a))
    expected = stream.step(x[3:])
    y = pool.step([b, a], np.concatenate([x[3:], x[3:]]))
    assert_same_bits(y[:1], expected)
    assert_same_bits(y[1:], expected)
    other = model.stream()
    other.state = pool.state(b)
    assert_same_bits(other.step(x[:1]), stream.step(x[:1]))
    # What was given is a copy.
    given = pool.state(a)
    pool.step([a], x[:1])
    assert_same_bits(given, pool.state(b))
    pool.reset(b)
    assert_same_bits(pool.state(b), model.stream().state)


def test_a_part_of_a_state_may_be_none() -> None:
    pool = lc.LSTM(3, 5, seed=0).stream_pool(2)
    h = numbers(1, 1, 5)
    a = pool.open(state=(h, None))
    assert_same_bits(pool.state(a), (h, np.zeros_like(h)))
    for bad, error, message in [
        ((h, h, h), ValueError, "state has 3 entries, expected a pair"),
        (h, TypeError, "state is a ndarray of shape"),
        ((h, h[0]), ValueError, "c of state has shape"),
    ]:
        with pytest.raises(error, match=message):
            pool.open(state=bad)
        assert len(pool) == 1


def test_the_weights_are_those_of_the_moment() -> None:
    model = lc.Sequential(lc.LSTM(3, 5, seed=0), lc.Linear(5, 2, seed=1))
    pool, stream = model.stream_pool(2), model.stream()
    model.reset_parameters(7)
    x = numbers(1, 3)
    id = pool.open()
    assert_same_bits(pool.step([id], x), stream.step(x))
    later = model.stream_pool(2)
    assert_same_bits(later.step([later.open()], x), model.stream().step(x))


# Arrays -------------------------------------------------------------------------------------------


def test_arguments_are_converted() -> None:
    lstm = lc.LSTM(3, 3, seed=0)
    x = numbers(2, 3)
    expected = lstm.stream(2).step(x)

    def step(*order: Any, x: Any = x, out: Any = None) -> np.ndarray:
        pool = lstm.stream_pool(4)
        assert [pool.open() for _ in range(3)] == [0, 1, 2]
        made: np.ndarray = pool.step(*order, x, out)
        return made

    same_ids: list[Any] = [[0, 2], (0, 2), np.array([0, 2], "uint8"), np.array([0, 2], ">i8")]
    same_ids += [np.array([0, 7, 2])[::2], np.array([0, 2], "uint64"), [np.int32(0), 2]]
    for ids in same_ids:
        assert_same_bits(step(ids), expected)
    strided = np.zeros((4, 6), "float32")[::2, ::2]
    strided[...] = x
    for same in (strided, x.tolist(), np.asfortranarray(x), x.astype(">f4")):
        assert_same_bits(step([0, 2], x=same), expected)
    out = np.empty_like(x)
    assert step([0, 2], out=out) is out
    assert_same_bits(out, expected)
    # Into x itself, and into memory that overlaps it.
    inside = x.copy()
    step([0, 2], x=inside, out=inside)
    assert_same_bits(inside, expected)
    memory = np.zeros((3, 3), "float32")
    memory[:2] = x
    step([0, 2], x=memory[:2], out=memory[1:])
    assert_same_bits(memory[1:].copy(), expected)
    pool = lstm.stream_pool(4)
    assert pool.step([], np.empty((0, 3), "float32")).shape == (0, 3)
    assert pool.step(ids=[pool.open()], x=x[:1], out=out[:1]).base is out


@pytest.mark.parametrize("python", [False, True])
def test_what_is_wrong_is_refused_and_changes_nothing(python: bool) -> None:
    layers = [lc.LSTM(3, 5, seed=0), *[lc.GELU()] * python]
    pool = lc.Sequential(*layers).stream_pool(3)
    for _ in range(3):
        pool.open()
    pool.close(1)
    x, out = numbers(2, 3), np.full((2, 5), 7, "float32")
    pool.step([0, 2], x)
    before = [pool.state(id) for id in (0, 2)]
    read_only = out.copy()
    read_only.flags.writeable = False
    for call, error, message in [
        (lambda: pool.step([0, 1], x, out), ValueError, r"ids\[1\] is 1, a stream that is closed"),
        (lambda: pool.step([3, 0], x, out), ValueError, r"ids\[0\] is 3, which no stream of this"),
        (lambda: pool.step([0, 5], x, out), ValueError, r"ids\[1\] is 5, which no stream of this"),
        (lambda: pool.step([-1, 0], x, out), ValueError, r"ids\[0\] is -1, which no stream"),
        (lambda: pool.step([0, 0], x, out), ValueError, r"ids\[1\] is 0, which is there before"),
        (lambda: pool.step(np.array([2**63, 0], "u8"), x, out), ValueError, "which no stream"),
        (lambda: pool.step([2**64, 0], x, out), TypeError, "ids has dtype object"),
        (lambda: pool.step([0.0, 2.0], x, out), TypeError, "ids has dtype float64, expected int"),
        (lambda: pool.step([True, False], x, out), TypeError, "ids has dtype bool"),
        (lambda: pool.step(0, x[0], out[0]), ValueError, r"ids has shape \(\), expected \(n,\)"),
        (lambda: pool.step([[0, 2]], x, out), ValueError, r"ids has shape \(1, 2\)"),
        (lambda: pool.step("ab", x, out), TypeError, "ids has dtype"),
        (lambda: pool.step([0, 2], x[:1], out), ValueError, r"x has shape \(1, 3\), expected \(2"),
        (lambda: pool.step([0], x[0], out), ValueError, r"x has shape \(3,\), expected \(1, 3\)"),
        (lambda: pool.step([0, 2], numbers(2, 4), out), ValueError, r"x has shape \(2, 4\)"),
        (lambda: pool.step([0, 2], x.astype("float64"), out), TypeError, "x has dtype float64"),
        (lambda: pool.step([0, 2], None, out), TypeError, "x has dtype object"),
        (lambda: pool.step([0, 2], x, out[:1]), ValueError, r"out has shape \(1, 5\)"),
        (lambda: pool.step([0, 2], x, out.astype("float64")), TypeError, "out has dtype float64"),
        (lambda: pool.step([0, 2], x, read_only), ValueError, "out is read-only"),
        (lambda: pool.step([0, 2], x, [1]), TypeError, "out is .*, expected an ndarray"),
        (lambda: pool.step([0, 2]), TypeError, "x"),
        (lambda: pool.step([0, 2], x, out, 4), TypeError, "step"),
        (lambda: pool.step([0, 2], x, y=out), TypeError, "step"),
        (lambda: pool.step([0, 2], x, x=x), TypeError, "step"),
        (lambda: pool.reset([0, 1]), ValueError, r"ids\[1\] is 1, a stream that is closed"),
        (lambda: pool.reset([2, 0, 2]), ValueError, r"ids\[2\] is 2, which is there before"),
        (lambda: pool.reset([0.5]), TypeError, "ids has dtype float64"),
        (lambda: pool.reset(None), TypeError, "ids has dtype object"),
        (lambda: pool.reset(True), TypeError, "ids has dtype bool"),
        (lambda: pool.state(1), ValueError, "id is 1, a stream that is closed"),
        (lambda: pool.state([0]), TypeError, r"id is \[0\] \(list\), expected an int"),
        (lambda: pool.close(1), ValueError, "id is 1, a stream that is closed"),
        (lambda: pool.close(17), ValueError, "id is 17, which no stream"),
        (lambda: pool.close(2**62), ValueError, f"id is {2**62}, which no stream"),
        (lambda: pool.step([2**62, 2], x, out), ValueError, "which no stream"),
        (lambda: pool.close(2**63), ValueError, f"id is {2**63}, which no stream"),
        (lambda: pool.close(-1), ValueError, "id is -1, expected at least 0"),
        (lambda: pool.close(True), TypeError, "id is True"),
        (lambda: pool.close(0.0), TypeError, "id is 0.0"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()
        assert_same_bits([pool.state(id) for id in (0, 2)], before)
        assert (out == 7).all()
        assert len(pool) == 2
    assert pool.open() not in (0, 1, 2)
    with pytest.raises(RuntimeError, match=r"the pool is full: all of its 3 streams are open"):
        pool.open()
    assert len(pool) == 3
    pool.step([0, 2], x)


def test_ids_are_not_used_again() -> None:
    pool = lc.GRU(3, 5, seed=0).stream_pool(3)
    seen = set()
    for _ in range(1000):
        id = pool.open()
        assert id not in seen
        seen.add(id)
        pool.close(id)
    for id in seen:
        with pytest.raises(ValueError, match="a stream that is closed"):
            pool.state(id)


def test_a_capacity_may_be_an_integer_of_numpy_of_any_size() -> None:
    lstm = lc.LSTM(3, 50, seed=0)
    for pool in (lstm.stream_pool(np.int8(5)), lc.StreamPool(lstm, np.int8(5))):  # type: ignore[arg-type]
        assert pool.capacity == 5


def test_bad_capacities_and_modules_are_refused() -> None:
    gru = lc.GRU(3, 5, seed=0)
    for bad, error in [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="capacity"):
            gru.stream_pool(bad)
    with pytest.raises(ValueError, match=f"capacity is {2**31}, expected at most"):
        gru.stream_pool(2**31)
    with pytest.raises(MemoryError, match="capacity is 2000000000, which needs more memory"):
        lc.LSTM(1, 4096, seed=0).stream_pool(2_000_000_000)
    for module in (lc.LSTM(3, 5, bidirectional=True), lc.Sequential(lc.GRU(3, 5), lc.LastStep())):
        with pytest.raises(ValueError, match="whole sequence"):
            module.stream_pool(3)
    for module in (MODELS["in python"](), MODELS["ids"]()):
        with pytest.raises(TypeError, match=r"of which module.stream_pool\(\) makes a pool"):
            lc.StreamPool(module, 3)
    with pytest.raises(TypeError, match="module is 3"):
        lc.StreamPool(3, 3)  # type: ignore[arg-type]
    pool = lc.StreamPool(gru, 3)
    with pytest.raises(RuntimeError, match="made already"):
        pool.__init__(gru, 4)  # type: ignore[misc]
    with pytest.raises(TypeError, match="never initialized"):
        len(lc.StreamPool.__new__(lc.StreamPool))


@models
def test_what_a_pool_is(name: str) -> None:
    model = MODELS[name]()
    pool = model.stream_pool(5)
    stream = model.stream()
    assert (pool.capacity, pool.input_size, pool.output_size) == (5, 4, stream.output_size)
    assert pool.dtype == stream.dtype
    assert len(pool) == 0
    assert pool
    pool.open()
    assert "1 of 5 streams open" in repr(pool)
    for copied in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match=r"neither copied nor pickled.*pool.state\(id\)"):
            copied(pool)


def test_nothing_is_allocated() -> None:
    model = lc.Sequential(lc.LSTM(16, 32, num_layers=2, seed=0), lc.Linear(32, 8, seed=1))
    pool = model.stream_pool(300)
    ids = np.array([pool.open() for _ in range(300)])
    x, out = numbers(300, 16), np.empty((300, 8), "float32")
    step = pool.step
    few, x_of_few, out_of_few = ids[7:20].copy(), x[:13].copy(), out[:13].copy()

    def work() -> None:
        step(ids, x, out)
        step(few, x_of_few, out=out_of_few)

    def nothing() -> None:
        pass

    assert peak_of(work) == peak_of(nothing)
    assert peak_of(lambda: pool.step(ids, x)) > peak_of(nothing)


# Threads ------------------------------------------------------------------------------------------


def refused(call: Callable[[], Any], text: str) -> bool:
    """Whether a call is refused for the moment, with this in the message."""
    try:
        call()
    except RuntimeError as error:
        if text not in str(error):
            raise
        return True
    return False


@models
def test_others_open_and_close_meanwhile(name: str) -> None:
    """One thread steps; others open, read, reset and close, or step; nobody disturbs anybody."""
    model = MODELS[name]()
    ids_as_x = name.startswith("ids")
    pool = model.stream_pool(12)
    mine = [pool.open() for _ in range(5)]
    lone = {id: model.stream() for id in mine}
    zeros = model.stream().state
    stop = threading.Event()
    done = [0]

    def come_and_go() -> None:
        while not stop.is_set():
            id = pool.open()
            assert id not in mine
            assert_same_bits(pool.state(id), zeros)
            pool.reset([id])
            pool.close(id)
            with pytest.raises(ValueError, match="closed"):
                pool.close(id)
            done[0] += 1

    def step_too() -> None:
        x = np.zeros(1, int) if ids_as_x else np.zeros((1, 4), "float32")
        while not stop.is_set():
            id = pool.open()
            refused(lambda id=id: pool.step([id], x), "takes a step")
            pool.close(id)

    def step() -> None:
        rng = np.random.default_rng(0)
        try:
            until = time.monotonic() + 1.5
            while time.monotonic() < until:
                some = rng.permutation(mine)[: rng.integers(1, 6)]
                n = len(some)
                x = rng.integers(0, 11, n) if ids_as_x else rng.standard_normal((n, 4)).astype("f4")
                y = np.empty((n, pool.output_size), "float32")
                while refused(lambda some=some, x=x, y=y: pool.step(some, x, y), "takes a step"):
                    pass
                for id, row, out in zip(some, x, y, strict=True):
                    assert_same_bits(out[None], lone[id].step(row[None]))
        finally:
            stop.set()

    works = [step, come_and_go, come_and_go, step_too]
    in_threads(lambda i: works[i](), len(works))
    assert done[0] > 20
    assert len(pool) == 5


@pytest.mark.parametrize("python", [False, True])
def test_while_a_step_runs(python: bool) -> None:
    """A long step in another thread: what is refused meanwhile, and what is not."""
    model = lc.Sequential(lc.LSTM(64, 512, seed=0), *[lc.GELU()] * python)
    n = 60
    pool = model.stream_pool(n + 1)
    ids = [pool.open() for _ in range(n)]
    other = pool.open()
    x = numbers(n, 64)
    working = "another thread works with"
    calls: list[tuple[Callable[[], Any], str]] = [
        (lambda: pool.step([other], np.zeros((1, 64), "float32")), "takes a step of this pool"),
        (lambda: pool.state(ids[3]), working),
        (lambda: pool.reset([other, ids[3]]), working),
    ]
    seen = [0, 0, 0]
    stop = threading.Event()

    def stepping() -> None:
        until = time.monotonic() + 30
        while not stop.is_set() and time.monotonic() < until:
            refused(lambda: pool.step(ids, x), "")

    thread = threading.Thread(target=stepping)
    thread.start()
    while thread.is_alive() and not all(seen):
        pool.reset(other)  # it is not in the step
        assert not pool.state(other)[0][0].any()
        for i, (call, text) in enumerate(calls):
            seen[i] += refused(call, text)
    stop.set()
    thread.join()
    assert all(seen)


def test_a_stream_that_is_closed_in_its_step() -> None:
    model = lc.LSTM(64, 512, seed=0)
    pool = model.stream_pool(60)
    x = numbers(60, 64)
    expected = model.stream(60).step(x)

    def try_once() -> bool:
        """Whether the stream was closed in its step."""
        ids = [pool.open() for _ in range(60)]
        made: list[np.ndarray] = []

        def step() -> None:  # refused where the state is read just then
            while refused(lambda: made.append(pool.step(ids, x)), "works with"):
                pass

        thread = threading.Thread(target=step)
        thread.start()
        closed = False
        while thread.is_alive() and not closed:
            if refused(lambda: pool.state(ids[0]), "works with"):
                pool.close(ids[0])
                closed = True
                assert len(pool) == 59
                with pytest.raises(ValueError, match="a stream that is closed"):
                    pool.state(ids[0])
        thread.join()
        assert_same_bits(made[0], expected)
        for id in ids[closed:]:
            pool.close(id)
        return closed

    assert sum(try_once() for _ in range(30)) > 0
    assert len(pool) == 0
    assert len({pool.open() for _ in range(60)}) == 60
