"""Streams: the bits of the whole sequence, states, snapshots of weights, no allocation."""

from __future__ import annotations

import copy
import ctypes
import pickle
import shutil
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.allocation import peak_of
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads
from helpers.variants import Cell, cells, dtypes, make, states_of
from lstmcore import _core


def numbers(*shape: int, dtype: Any = "float32", seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def bare(layer: Any, state: tuple[np.ndarray, ...]) -> Any:
    return state if isinstance(layer, lc.LSTM) else state[0]


def assert_same_state(a: Any, b: Any) -> None:
    for one, other in zip(*((s,) if isinstance(s, np.ndarray) else s for s in (a, b)), strict=True):
        assert_same_bits(one, other)


# The bits of the whole ----------------------------------------------------------------------------


@cells
@dtypes
@pytest.mark.parametrize("num_layers", [1, 3])
def test_steps_and_blocks_are_as_the_whole(
    isa: str, cell: Cell, dtype: str, num_layers: int
) -> None:
    kind, options = cell
    layer = make(kind, 5, 19, num_layers=num_layers, dtype=dtype, **options)
    for batch in (1, 3):
        x = numbers(70, batch, 5, dtype=dtype)
        start = bare(layer, states_of(layer, batch, np.random.default_rng(1)))
        expected, last = layer(x, start)
        for size in (0, 1, 33, 70):
            stream = layer.stream(batch)
            stream.state = start
            pieces = (
                [stream.step(frame)[None] for frame in x]
                if size == 0
                else [stream.process(x[t : t + size]) for t in range(0, len(x), size)]
            )
            assert_same_bits(np.concatenate(pieces), expected)
            assert_same_state(stream.state, last)


def test_a_stream_starts_from_zeros() -> None:
    lstm = lc.LSTM(3, 5, num_layers=2, seed=0)
    x = numbers(6, 2, 3)
    assert_same_bits(lstm.stream(2).process(x), lstm(x)[0])


def test_without_a_batch_axis() -> None:
    gru = lc.GRU(3, 5, seed=0)
    x = numbers(6, 3)
    expected = gru(x)[0]
    stream = gru.stream()
    assert_same_bits(stream.process(x[:4]), expected[:4])
    out = np.empty(5, "float32")
    assert stream.step(x[4], out) is out
    assert_same_bits(out, expected[4])
    assert_same_bits(stream.step(x[5]), expected[5])


def test_batch_first_changes_nothing() -> None:
    lstm = lc.LSTM(3, 5, batch_first=True, seed=0)
    x = numbers(2, 7, 3)
    y = lstm.stream(2).process(np.ascontiguousarray(x.swapaxes(0, 1)))
    assert_same_bits(np.ascontiguousarray(y.swapaxes(0, 1)), lstm(x)[0])


def test_no_steps() -> None:
    stream = lc.LSTM(3, 5, seed=0).stream(2)
    before = stream.state
    assert stream.process(np.empty((0, 2, 3), "float32")).shape == (0, 2, 5)
    assert_same_state(stream.state, before)


# Arrays -------------------------------------------------------------------------------------------


def test_inputs_are_converted_as_a_layer_does() -> None:
    lstm = lc.LSTM(6, 5, seed=0)
    x = numbers(8, 2, 6)
    expected = lstm(x)[0]
    strided = np.zeros((8, 4, 12), "float32")[:, ::2, ::2]
    strided[...] = x
    unaligned = np.frombuffer(b"\0" + x.tobytes(), "float32", offset=1).reshape(x.shape)
    read_only = x.copy()
    read_only.flags.writeable = False
    swapped = x.astype(x.dtype.newbyteorder())
    for same in (strided, unaligned, read_only, swapped, np.asfortranarray(x), x.tolist()):
        assert_same_bits(lstm.stream(2).process(same), expected)
        assert_same_bits(lstm.stream(2).step(same[0]), expected[0])
    whole = np.ones((8, 2, 6), int)
    assert_same_bits(lstm.stream(2).process(whole), lstm(whole)[0])


def test_out_is_written_and_returned() -> None:
    lstm = lc.LSTM(5, 5, seed=0)
    x = numbers(40, 2, 5)
    expected = lstm(x)[0]
    out = np.empty_like(x)
    assert lstm.stream(2).process(x, out=out) is out
    assert_same_bits(out, expected)
    stream = lstm.stream(2)
    for t in range(40):
        assert stream.step(x=x[t], out=out[t]).base is out
    assert_same_bits(out, expected)
    # Into x itself, and into memory that overlaps it.
    same = x.copy()
    lstm.stream(2).process(same, same)
    assert_same_bits(same, expected)
    for shift in (1, -1):
        memory = np.zeros((41, 2, 5), "float32")
        source, target = (memory[:-1], memory[1:]) if shift > 0 else (memory[1:], memory[:-1])
        source[...] = x
        lstm.stream(2).process(source, target)
        assert_same_bits(np.ascontiguousarray(target), expected)


def test_bad_arrays_are_refused_and_change_nothing() -> None:
    stream = lc.LSTM(3, 5, seed=0).stream(2)
    stream.step(numbers(2, 3))
    before = stream.state
    good, out = numbers(2, 3), np.empty((2, 5), "float32")
    read_only = out.copy()
    read_only.flags.writeable = False
    for call, error, message in [
        (lambda: stream.step(numbers(2, 4)), ValueError, r"x has shape \(2, 4\), expected \(2, 3"),
        (lambda: stream.step(numbers(3)), ValueError, r"x has shape \(3,\), expected \(2, 3\)"),
        (lambda: stream.step(numbers(1, 2, 3)), ValueError, "x has shape"),
        (lambda: stream.process(good), ValueError, r"expected \(T, 2, 3\)"),
        (lambda: stream.process(np.float32(1)), ValueError, r"x has shape \(\)"),
        (lambda: stream.step(numbers(2, 3, dtype="float64")), TypeError, "float64, expected float"),
        (lambda: stream.step(None), TypeError, "x has dtype object"),
        (lambda: stream.step("noise"), TypeError, "x has dtype"),
        (lambda: stream.step(good, [1]), TypeError, "out is .*, expected an ndarray"),
        (lambda: stream.step(good, numbers(2, 4)), ValueError, r"out has shape \(2, 4\)"),
        (lambda: stream.step(good, out.astype("float64")), TypeError, "out has dtype float64"),
        (lambda: stream.step(good, read_only), ValueError, "out is read-only"),
        (lambda: stream.step(good, np.empty((2, 10), "float32")[:, ::2]), ValueError, "contiguous"),
        (lambda: stream.step(), TypeError, "takes x"),
        (lambda: stream.step(good, out, 3), TypeError, "takes x"),
        (lambda: stream.step(good, x=good), TypeError, "takes x"),
        (lambda: stream.step(good, z=1), TypeError, "takes x"),
    ]:
        with pytest.raises(error, match=message):
            call()
        assert_same_state(stream.state, before)


# What can be streamed -----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{"bidirectional": True}, {"reverse": True}])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_layers_that_read_from_the_end_are_refused(kind: str, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(options))}=True.*whole sequence"):
        make(kind, 3, 5, **options).stream()


def test_bad_batch_sizes_are_refused() -> None:
    lstm = lc.LSTM(3, 5, seed=0)
    for bad, error in [(0, ValueError), (-1, ValueError), (1.0, TypeError), (True, TypeError)]:
        with pytest.raises(error, match="batch_size"):
            lstm.stream(bad)
    for too_many in (2**31, 10**13, 2**70):
        with pytest.raises(ValueError, match=f"batch_size is {too_many}, expected at most"):
            lstm.stream(too_many)
    with pytest.raises(MemoryError, match=f"batch_size is {2**31 - 1}, which needs more memory"):
        lc.LSTM(1, 4096, seed=0).stream(2**31 - 1)
    with pytest.raises(TypeError, match="module is 3"):
        lc.Stream(3)  # type: ignore[arg-type]


def test_a_batch_size_may_be_an_integer_of_numpy_of_any_size() -> None:
    lstm = lc.LSTM(3, 50, seed=0)
    for stream in (lstm.stream(np.int8(5)), lc.Stream(lstm, np.int8(5))):  # type: ignore[arg-type]
        assert stream.batch_size == 5


# State --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_state_is_saved_and_set(kind: str, tmp_path: Path) -> None:
    layer = make(kind, 3, 5, num_layers=2)
    x = numbers(10, 4, 3)
    stream = layer.stream(4)
    stream.process(x[:6])
    saved = stream.state
    np.savez(tmp_path / "state.npz", *(saved if kind == "LSTM" else [saved]))
    rest = stream.process(x[6:])
    loaded = tuple(np.load(tmp_path / "state.npz").values())
    other = layer.stream(4)
    other.state = bare(layer, loaded)
    assert_same_bits(other.process(x[6:]), rest)
    # What `state` gave is a copy, and what it was set to is copied.
    assert_same_state(saved, bare(layer, loaded))
    loaded[0][...] = 7
    assert_same_state(other.state, stream.state)


def test_none_is_a_state_of_zeros() -> None:
    lstm = lc.LSTM(3, 5, seed=0)
    stream = lstm.stream(2)
    h = numbers(1, 2, 5)
    stream.state = (h, None)
    assert_same_bits(stream.state[0], h)
    assert not stream.state[1].any()
    stream.state = None
    assert not stream.state[0].any()
    gru = lc.GRU(3, 5, seed=0).stream()
    gru.step(numbers(1, 3))
    gru.state = None
    assert not gru.state.any()


def test_bad_states_are_refused_and_change_nothing() -> None:
    stream = lc.LSTM(3, 5, proj_size=2, seed=0).stream(2)
    stream.step(numbers(2, 3))
    before = stream.state
    h, c = numbers(1, 2, 2), numbers(1, 2, 5)
    for bad, error, message in [
        (h, TypeError, r"state is .*, expected a pair \(h, c\)"),
        (1, TypeError, r"state is 1 \(int\), expected a pair"),
        ((h, c, c), ValueError, r"state has 3 entries, expected a pair"),
        ((c, c), ValueError, r"h of state has shape \(1, 2, 5\), expected .* = \(1, 2, 2\)"),
        ((h, h), ValueError, r"c of state has shape \(1, 2, 2\), expected .* = \(1, 2, 5\)"),
        ((h, c.astype("float64")), TypeError, "c of state has dtype float64"),
    ]:
        with pytest.raises(error, match=message):
            stream.state = bad
        assert_same_state(stream.state, before)


def test_a_stream_is_made_once() -> None:
    stream = lc.LSTM(3, 5, seed=0).stream(2)
    stream.step(numbers(2, 3))
    before, shown = stream.state, repr(stream)
    with pytest.raises(RuntimeError, match="made already"):
        stream.__init__(lc.GRU(2, 4), 7)  # type: ignore[misc]
    assert repr(stream) == shown
    assert_same_state(stream.state, before)
    assert stream.step(numbers(2, 3)).shape == (2, 5)


def test_reset() -> None:
    layer = lc.LSTM(3, 5, num_layers=2, seed=0)
    x = numbers(2, 4, 3)
    first = layer.stream(4).step(x[0])

    def after(rows: Any) -> np.ndarray:
        stream = layer.stream(4)
        stream.process(x)
        stream.reset(rows)
        return stream.step(x[0])

    went_on = after([])
    for rows, mask in [
        (None, [1, 1, 1, 1]),
        (2, [0, 0, 1, 0]),
        ([0, 3], [1, 0, 0, 1]),
        (np.array([1], "uint8"), [0, 1, 0, 0]),
        ([False, True, True, False], [0, 1, 1, 0]),
        (np.zeros(4, bool), [0, 0, 0, 0]),
    ]:
        y = after(rows)
        for row in range(4):
            assert_same_bits(y[row], (first if mask[row] else went_on)[row])
    for bad in (4, -1):
        with pytest.raises(ValueError, match=f"rows is {bad}, expected 0 to 3"):
            after(bad)
    for wrong in ([0.5], [True]):
        with pytest.raises(TypeError, match="rows has dtype"):
            after(wrong)


def test_copies_go_their_own_way() -> None:
    layer = lc.GRU(3, 5, seed=0)
    x = numbers(9, 2, 3)
    expected = layer(x)[0]
    stream = layer.stream(2)
    stream.process(x[:4])
    others = [stream.copy(), copy.copy(stream), copy.deepcopy(stream)]
    others.append(pickle.loads(pickle.dumps(stream)))
    stream.process(numbers(3, 2, 3, seed=1))
    for other in others:
        assert type(other) is lc.Stream
        assert (other.batch_size, other.input_size, other.output_size) == (2, 3, 5)
        assert other.dtype == layer.dtype
        assert_same_bits(other.process(x[4:]), expected[4:])


# Weights ------------------------------------------------------------------------------------------


def test_a_stream_keeps_the_weights_it_was_made_with() -> None:
    layer = lc.LSTM(3, 5, seed=0)
    x = numbers(9, 1, 3)
    before = layer(x)[0]
    stream = layer.stream()
    layer.parameters()[0].data *= 2
    after = layer(x)[0]
    assert not np.array_equal(before, after)
    assert_same_bits(stream.process(x[:3]), before[:3])
    layer.load_state_dict(lc.LSTM(3, 5, seed=1).state_dict())
    assert_same_bits(stream.process(x[3:6]), before[3:6])
    # So do its copies, also through pickle.
    other = pickle.loads(pickle.dumps(stream))
    assert_same_bits(stream.copy().process(x[6:]), before[6:])
    assert_same_bits(other.process(x[6:]), before[6:])
    # A stream made now has those of now.
    assert_same_bits(layer.stream().process(x), layer(x)[0])


def test_weights_are_seen_while_somebody_holds_them() -> None:
    layer = lc.GRU(3, 5, seed=0)
    x = numbers(4, 1, 3)
    held = layer.parameters()[0].data
    first = layer.stream()
    expected = layer(x)[0]
    held *= 2
    second = layer.stream()
    assert_same_bits(first.process(x), expected)
    assert_same_bits(second.process(x), layer(x)[0])


def test_streams_share_the_weights() -> None:
    layer = lc.LSTM(64, 128, seed=0)
    first = layer.stream()
    tracemalloc.start()
    try:
        streams = [layer.stream() for _ in range(50)]
        used, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert used < layer.num_parameters * 4
    x = numbers(3, 1, 64)
    y = first.process(x)
    for stream in streams:
        assert_same_bits(stream.process(x), y)


def test_the_isa_level_of_later_streams() -> None:
    layer = lc.LSTM(5, 19, seed=0)
    x = numbers(6, 1, 5)
    before = lc.isa()
    try:
        for name in lc.available_isas():
            lc.set_isa(name)
            assert_same_bits(layer.stream().process(x), layer(x)[0])
    finally:
        lc.set_isa(before)


# Threads ------------------------------------------------------------------------------------------


def test_threads_with_a_stream_each() -> None:
    layer = lc.LSTM(8, 128, num_layers=2, seed=0)  # long enough to release the GIL
    x = numbers(8, 60, 1, 8)
    expected = [layer(v)[0] for v in x]
    wrong: list[int] = []

    def work(i: int) -> None:
        stream = layer.stream()
        for _ in range(5):
            stream.reset()
            y = [stream.step(frame)[None] for frame in x[i % 8, :20]]
            y.append(stream.process(x[i % 8, 20:]))
            if not np.array_equal(np.concatenate(y), expected[i % 8]):
                wrong.append(i)

    in_threads(work, 16)
    assert not wrong


def test_a_stream_used_by_two_threads_at_once_is_refused() -> None:
    """Never two at once: every call is either done or refused."""
    layer = lc.LSTM(8, 256, seed=0)
    stream = layer.stream()
    x = numbers(400, 1, 8)
    results: list[Any] = []

    def work(_: int) -> None:
        for _ in range(10):
            try:
                results.append(stream.process(x)[-1])
            except RuntimeError as error:
                results.append(error)

    in_threads(work, 4)
    refused = [r for r in results if isinstance(r, RuntimeError)]
    assert len(results) == 40
    assert all("another thread" in str(r) for r in refused)
    done = len(results) - len(refused)
    other = layer.stream()
    for _ in range(done):
        last = other.process(x)[-1]
    assert_same_state(stream.state, other.state)
    assert any(np.array_equal(r, last) for r in results if not isinstance(r, RuntimeError))


# No allocation ------------------------------------------------------------------------------------


def test_nothing_is_allocated_in_python() -> None:
    stream = lc.LSTM(3, 40, num_layers=2, seed=0).stream(2)
    frame, block = numbers(2, 3), numbers(100, 2, 3)
    y, ys = np.empty((2, 40), "float32"), np.empty((100, 2, 40), "float32")
    step, process = stream.step, stream.process

    def lean() -> None:
        step(frame, y)
        step(frame, out=y)
        process(block, out=ys)

    def nothing() -> None:
        pass

    assert peak_of(lean) == peak_of(nothing)
    assert peak_of(lambda: step(frame)) > peak_of(nothing)


COUNTER = """
#define _GNU_SOURCE
#include <stddef.h>
static long count;
long allocations(void) { return count; }
void* __libc_malloc(size_t); void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t); void* __libc_memalign(size_t, size_t);
void* malloc(size_t n) { ++count; return __libc_malloc(n); }
void* calloc(size_t n, size_t m) { ++count; return __libc_calloc(n, m); }
void* realloc(void* p, size_t n) { ++count; return __libc_realloc(p, n); }
void* memalign(size_t a, size_t n) { ++count; return __libc_memalign(a, n); }
void* aligned_alloc(size_t a, size_t n) { ++count; return __libc_memalign(a, n); }
int posix_memalign(void** p, size_t a, size_t n) {
    ++count;
    *p = __libc_memalign(a, n);
    return *p ? 0 : 12;
}
"""
COUNTED = """
import ctypes
import numpy as np
import lstmcore as lc

count = ctypes.CDLL(None).allocations
count.restype = ctypes.c_long
streams = [
    (layer.stream(batch), np.ones((batch, 3), "float32"), np.empty((batch, 200), "float32"),
     np.ones((50, batch, 3), "float32"), np.empty((50, batch, 200), "float32"))
    for layer in (lc.RNN(3, 200), lc.LSTM(3, 200), lc.GRU(3, 200, num_layers=2))
    for batch in (1, 7)
]
pool = lc.Sequential(lc.LSTM(3, 40, num_layers=2), lc.Linear(40, 9)).stream_pool(600)
def work():
    for stream, x, y, xs, ys in streams:
        for _ in range(100):
            stream.step(x, out=y)
        stream.process(xs, ys)
    for n in (600, 13):
        pool.step(ids[n], pool_x[n], pool_y[n])
ids = np.array([pool.open() for _ in range(600)])
ids, pool_x, pool_y = (
    {600: a, 13: a[:13]} for a in (ids, np.ones((600, 3), "float32"), np.empty((600, 9), "float32"))
)
work()
before = count()
work()
during = count() - before
np.ones(10**6)
print(during, count() - before > during)
"""


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler")
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "__libc_malloc"), reason="not the GNU C library")
def test_nothing_is_allocated_in_c(tmp_path: Path) -> None:
    """The C library's malloc is replaced by one that counts."""
    (tmp_path / "counter.c").write_text(COUNTER)
    library = str(tmp_path / "counter.so")
    command = ["cc", "-shared", "-fPIC", "-O1", "-o", library, str(tmp_path / "counter.c")]
    subprocess.run(command, check=True)
    environment = {"LD_PRELOAD": library, "PYTHONPATH": ":".join(sys.path)}
    run = subprocess.run(
        [sys.executable, "-c", COUNTED], env=environment, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert run.stdout.split() == ["0", "True"]


# Objects that were never initialized --------------------------------------------------------------


def _without_init(cls: Any) -> Any:
    return cls.__new__(cls)


UNINITIALIZED = {
    "step": lambda: _without_init(lc.Stream).step(np.zeros((1, 3), "float32")),
    "process": lambda: _without_init(lc.Stream).process(np.zeros((1, 1, 3), "float32")),
    "state": lambda: _without_init(lc.Stream).state,
    "batch_size": lambda: _without_init(lc.Stream).batch_size,
    "reset": lambda: _without_init(lc.Stream).reset(),
    "copy": lambda: _without_init(lc.Stream).copy(),
    "pickle": lambda: pickle.dumps(_without_init(lc.Stream)),
    "step of the core's": lambda: _without_init(_core.Stream).step(np.zeros((1, 3), "float32")),
    "a stage": lambda: _core.Stream([_without_init(_core.Linear)], 1, False),
    "spec": lambda: _core.pack(_without_init(_core.Spec), [], False),
    "weights": lambda: _without_init(_core.Weights).nbytes,
    "tape": lambda: _without_init(_core.Tape).gates(),
    "backward": lambda: _core.backward(_without_init(_core.Tape), None, None, None, []),
    "tape by its base": lambda: _core.Tape.__mro__[1].__new__(_core.Tape).nbytes,
}


@pytest.mark.parametrize("use", UNINITIALIZED)
def test_without_init_is_refused(use: str) -> None:
    """Rather than computing with memory that nobody has written to."""
    with pytest.raises(TypeError, match="was never initialized"):
        UNINITIALIZED[use]()


def test_after_an_init_that_failed() -> None:
    stream = _without_init(lc.Stream)
    with pytest.raises(ValueError, match="batch_size is 0"):
        stream.__init__(lc.GRU(3, 4), 0)
    with pytest.raises(TypeError, match="was never initialized"):
        stream.step(np.zeros((1, 3), "float32"))
    stream.__init__(lc.GRU(3, 4))
    assert stream.step(np.zeros((1, 3), "float32")).shape == (1, 4)


@pytest.mark.parametrize("name", ["Spec", "Weights", "Tape", "Linear"])
def test_classes_of_the_core_are_final(name: str) -> None:
    with pytest.raises(TypeError, match="not an acceptable base type"):
        type("Sub", (getattr(_core, name),), {})
