"""`load_state_dict` while other threads compute: all old values or all new ones, no mixture."""

from __future__ import annotations

import os
import threading
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads
from lstmcore._base.loads import _LOADS, loading, whole


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


class Scale(lc.Module):
    """Two parameters, read one after the other; between them somebody may do something."""

    each_step = True

    def __init__(self, size: int = 32) -> None:
        self.a = lc.Parameter("a", np.ones(size, "float32"))
        self.b = lc.Parameter("b", np.ones(size, "float32"))
        self.between: Callable[[], object] = lambda: None
        self.calls = 0

    def forward(self, x: Any) -> Any:
        self.calls += 1
        y = x * self.a._storage
        self.between()
        return y + self.b._storage, None


def residual() -> lc.Model:
    x = lc.Input(32)
    return lc.Model(x, lc.Linear(32, 32, seed=0)(lc.GRU(32, 32, seed=1)(x)[0]) + x)


def tagger() -> lc.Sequential:
    return lc.Sequential(
        lc.Embedding(200, 32, seed=0), lc.LSTM(32, 48, num_layers=2, seed=1), lc.LayerNorm(48),
        lc.Sequential(lc.Linear(48, 40, seed=2), lc.Tanh(), lc.Linear(40, 8, seed=3)),
    )  # fmt: skip


def attended(module: Any) -> Any:
    x = numbers(6, 2, 32)
    return module(x, x, x)[0]


ids = np.random.default_rng(0).integers(0, 200, (5, 2))
Case = tuple[Callable[[], Any], Callable[[Any], Any]]
CASES: dict[str, Case] = {
    "layer": (lambda: lc.LSTM(32, 64, seed=0), lambda m: m(numbers(3, 2, 32))),
    "cell": (lambda: lc.GRUCell(32, 64, seed=0), lambda m: m(numbers(2, 32))),
    "linear": (lambda: lc.Linear(32, 300, seed=0), lambda m: m(numbers(2, 32))),
    "conv": (lambda: lc.Conv1D(32, 64, 3, seed=0), lambda m: m(numbers(6, 2, 32))),
    "layer norm": (lambda: lc.LayerNorm(500), lambda m: m(numbers(3, 500))),
    "batch norm": (lambda: lc.BatchNorm(500), lambda m: m(numbers(3, 500))),
    "embedding": (lambda: lc.Embedding(200, 64, seed=0), lambda m: m(np.arange(200))),
    "attention": (lambda: lc.attention.MultiHead(32, 4, seed=0), attended),
    "own": (Scale, lambda m: m(numbers(3, 32))),
    "sequential": (tagger, lambda m: m(ids)),
    "run": (tagger, lambda m: m.run(ids)),
    "model": (residual, lambda m: m(numbers(5, 2, 32))),
    "model's run": (residual, lambda m: m.run(numbers(5, 2, 32))),
    "stream": (tagger, lambda m: m.stream(2).process(ids)),
    "model's stream": (residual, lambda m: m.stream(2).process(numbers(5, 2, 32))),
    "pool": (
        lambda: lc.LSTM(32, 64, seed=0),
        lambda m: (pool := m.stream_pool(2)).step([pool.open()], numbers(1, 32)),
    ),
    "state_dict": (tagger, lambda m: m.state_dict()),
}


def other_values(module: Any) -> dict[str, np.ndarray]:
    return {
        name: np.abs(values) + 0.25 if values.dtype.kind == "f" else values
        for name, values in module.state_dict().items()
    }


def same(a: Any, b: Any) -> bool:
    try:
        assert_same_bits(a, b)
    except AssertionError:
        return False
    return True


@pytest.mark.parametrize("name", CASES)
def test_results_are_old_or_new(name: str) -> None:
    make, compute = CASES[name]
    module = make()
    old = module.state_dict()
    new = other_values(module)
    expected = [compute(module)]
    module.load_state_dict(new)
    expected.append(compute(module))
    assert not same(*expected)
    stop = threading.Event()
    seen = [0, 0]

    def work() -> None:
        try:
            begin = time.monotonic()
            while time.monotonic() < begin + (0.7 if sum(seen) > 3 else 30):  # on a busy machine
                result = compute(module)
                which = [same(result, one) for one in expected]
                assert any(which)
                seen[which.index(True)] += 1
        finally:
            stop.set()

    def load() -> None:
        while not stop.is_set():
            for values in (old, new):
                module.load_state_dict(values)

    in_threads(lambda i: [load, work, work, work][i](), 4)
    module.load_state_dict(old)
    assert same(compute(module), expected[0])
    assert sum(seen) > 3


# What cannot be left to chance ------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True])
def test_a_call_into_whose_midst_a_load_came_is_made_anew(inside: bool) -> None:
    scale = Scale()
    call: Any = lc.Sequential(scale) if inside else scale
    x = np.ones((1, 32), "float32")
    assert (call(x) == 2).all()
    assert scale.calls == 1
    values = np.full(32, 5, "float32")

    def load() -> None:
        scale.between = lambda: None
        thread = threading.Thread(target=scale.load_state_dict, args=({"a": values, "b": values},))
        thread.start()
        thread.join()

    scale.between = load
    assert (call(x) == 10).all()  # a mixture would be 1 + 5
    assert scale.calls > 2


def test_what_was_packed_in_the_midst_of_a_load_serves_nobody_else() -> None:
    cell = lc.GRUCell(3, 5, seed=0)
    x = numbers(2, 3)
    pack = cell._pack_anew
    first, *others = cell.parameters()
    half, go_on, done = threading.Event(), threading.Event(), threading.Event()
    results: list[np.ndarray] = []

    def load() -> None:
        with loading(cell.parameters()):
            first._storage[...] = 3
            first._touch()
            half.set()
            go_on.wait(30)
            for p in others:
                p._storage[...] = 3
                p._touch()
        done.set()

    def between(train: bool) -> Any:
        """Pack half of a load, which began when the call had looked for one, as threads may."""
        cell.__dict__["_pack_anew"] = pack
        threading.Thread(target=load).start()
        half.wait(30)
        packed = pack(train)
        other = threading.Thread(target=lambda: results.append(cell(x)))
        other.start()
        other.join(0.2)
        go_on.set()
        done.wait(30)
        other.join()
        return packed

    cell.__dict__["_pack_anew"] = between
    results.append(cell(x))
    for result in results:
        assert_same_bits(result, cell(x))
    assert len(results) == 2


def test_a_load_of_another_model_disturbs_nobody() -> None:
    scale, other = Scale(), Scale()
    scale.between = lambda: other.load_state_dict(other.state_dict())
    scale(np.ones((1, 32), "float32"))
    assert scale.calls == 1


def test_one_that_loads_itself_ends() -> None:
    scale = Scale()
    scale.between = lambda: scale.load_state_dict(scale.state_dict())
    assert (scale(np.ones((1, 32), "float32")) == 2).all()
    assert 1 < scale.calls < 10


def test_calls_wait_for_a_load_and_loads_for_each_other() -> None:
    scale = Scale()
    values = np.full(32, 3, "float32")
    done: list[str] = []

    def call() -> None:
        y = scale(np.ones((1, 32), "float32"))
        done.append("call")
        assert (y == 6).all()

    def load() -> None:
        scale.load_state_dict({"a": values, "b": values})
        done.append("load")

    threads = [threading.Thread(target=one) for one in (call, call, load)]
    with loading(scale.parameters()):
        for thread in threads:
            thread.start()
        scale.a._storage[...] = 3
        time.sleep(0.2)
        assert done == []
        scale.b._storage[...] = 3
    for thread in threads:
        thread.join()
    assert sorted(done) == ["call", "call", "load"]


def test_loads_without_end_cannot_keep_a_call_from_ending() -> None:
    """After some tries, loads wait for the call."""
    scale = Scale()
    tries = 0

    def compute() -> int:
        nonlocal tries
        tries += 1
        if tries < 50:
            thread = threading.Thread(target=scale.load_state_dict, args=(scale.state_dict(),))
            thread.daemon = True
            thread.start()
            thread.join(0.05)
        return tries

    assert whole(scale, compute) == tries
    assert 1 < tries < 10


def until(holds: Callable[[], object]) -> None:
    """Wait for what another thread does, however long the machine takes."""
    end = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < end, "nothing happened in a minute"
        time.sleep(0.001)


def test_who_waits_has_its_turn_before_the_next_load() -> None:
    """Loads without a pause and two calls: what is done after each load is known in advance."""
    scale = Scale(1)
    order: list[str] = []

    def load() -> None:
        for _ in range(100):
            with loading(scale.parameters()):
                order.append("load")
                until(lambda: len(_LOADS.waiting) == 2)

    def call() -> None:
        for _ in range(100):
            until(lambda: _LOADS.busy)
            whole(scale, lambda: order.append("call"))

    in_threads(lambda i: [load, call, call][i](), 3)
    assert order == ["load", "call", "call"] * 100


def test_loads_have_their_turn_between_calls_in_the_order_in_which_they_came() -> None:
    scale = Scale(1)
    order: list[int] = []
    go, stop = threading.Event(), threading.Event()
    calls = [0, 0]

    def load(i: int) -> None:
        with loading(scale.parameters()):
            order.append(i)

    def keep_out() -> None:
        with _LOADS.none():
            go.wait(60)

    def call(i: int) -> None:
        while not stop.is_set():
            whole(scale, lambda: None)
            calls[i] += 1

    first = threading.Thread(target=keep_out)
    first.start()
    until(lambda: _LOADS.calls)
    loads = [threading.Thread(target=load, args=(i,)) for i in range(5)]
    for i, thread in enumerate(loads):
        thread.start()
        until(lambda i=i: len(_LOADS.loads) == i + 1)
    others = [threading.Thread(target=call, args=(i,)) for i in range(2)]
    for thread in others:
        thread.start()
    until(lambda: min(calls) > 100)  # a load that waits is in nobody's way
    assert order == []
    go.set()
    for thread in (first, *loads):  # neither do calls without a pause keep loads from their turn
        thread.join(60)
    assert order == [0, 1, 2, 3, 4]
    stop.set()
    for thread in others:
        thread.join()


@pytest.mark.parametrize("of_call", [False, True])
def test_who_is_stopped_while_it_waits_keeps_nobody_from_their_turn(
    of_call: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    scale = Scale(1)
    values = scale.state_dict()

    def load() -> None:
        scale.load_state_dict(values)

    def stopped() -> None:
        me, wait = threading.get_ident(), _LOADS.changed.wait

        def interrupt(timeout: float | None = None) -> bool:
            if threading.get_ident() == me:
                raise KeyboardInterrupt
            return wait(timeout)

        with monkeypatch.context() as patch:
            patch.setattr(_LOADS.changed, "wait", interrupt)
            with pytest.raises(KeyboardInterrupt):
                whole(scale, lambda: None) if of_call else load()

    other = threading.Thread(target=load)
    with loading(scale.parameters()) if of_call else _LOADS.none():
        other.start()
        until(lambda: len(_LOADS.loads) == 1 + of_call)
        in_threads(lambda _: stopped(), 1)
    other.join(60)
    in_threads(lambda _: load(), 1)
    assert (_LOADS.busy, *_LOADS.loads, *_LOADS.waiting, *_LOADS.calls) == (False,)


def test_a_child_forked_in_the_midst_of_a_load_computes() -> None:
    lstm = lc.LSTM(3, 5, seed=0)
    x = numbers(2, 1, 3)
    expected = lstm(x)[0]
    reader, writer = os.pipe()
    go, end = threading.Event(), threading.Event()

    def load() -> None:
        with loading(lstm.parameters()):
            go.set()
            end.wait()

    thread = threading.Thread(target=load)
    thread.start()
    go.wait()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking with threads
        child = os.fork()
    if child == 0:
        lstm.load_state_dict(lstm.state_dict())
        os.write(writer, lstm(x)[0].tobytes())
        os._exit(0)
    try:
        os.set_blocking(reader, False)
        until, sent = time.monotonic() + 30, b""
        while not sent and time.monotonic() < until:
            try:
                sent = os.read(reader, 1000)
            except BlockingIOError:
                time.sleep(0.01)
        assert sent == expected.tobytes()
    finally:
        end.set()
        thread.join()
        os.kill(child, 9)
        os.waitpid(child, 0)
        os.close(reader)
        os.close(writer)
