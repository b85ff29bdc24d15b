"""Pools of streams of networks of any shape."""

from __future__ import annotations

import copy
import threading
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.threads import in_threads


def numbers(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype("float32")


def residual() -> lc.Model:
    x = lc.Input(4)
    return lc.Model(x, x + lc.LSTM(4, 4, seed=0)(x)[0])


def several() -> lc.Model:
    """Two inputs with steps, one without that gives an initial state, outputs of both kinds."""
    a, b, start = lc.Input(3), lc.Input(1), lc.Input(5, steps=False)
    y, h = lc.GRU(4, 5, seed=0)(lc.concat([a, b]), lc.Linear(5, 5, seed=1)(start)[None])
    return lc.Model(
        {"a": a, "b": b, "start": start}, {"y": lc.Linear(5, 3, seed=2)(y) + a, "h": h[-1]}
    )


def draw(model: Any, n: int, rng: np.random.Generator) -> Any:
    if len(model._plan.given) == 1:
        return rng.standard_normal((n, 4)).astype("float32")
    return {
        name: rng.standard_normal((n, size)).astype("float32")
        for name, size in (("a", 3), ("b", 1), ("start", 5))
    }


def row(x: Any, i: int) -> Any:
    return {k: v[i : i + 1] for k, v in x.items()} if isinstance(x, dict) else x[i : i + 1]


@pytest.mark.parametrize("make", [residual, several])
def test_the_bits_of_lone_streams(isa: str, make: Any) -> None:
    model = make()
    rng = np.random.default_rng(1)
    pool = model.stream_pool(6)
    lone: dict[int, Any] = {}
    for _ in range(40):
        while len(lone) < 6 and rng.random() < 0.6:
            lone[pool.open()] = model.stream()
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
        x = draw(model, len(ids), rng)
        y = pool.step(ids, x)
        for i, id in enumerate(ids):
            assert_same_bits(row(y, i), lone[id].step(row(x, i)))
    for id, stream in lone.items():
        assert_same_bits(pool.state(id), stream.state)


def test_states_move() -> None:
    model = several()
    rng = np.random.default_rng(0)
    pool, stream = model.stream_pool(3), model.stream()
    a = pool.open()
    assert pool.state(a) == (None,)  # the network gives it
    x = draw(model, 1, rng)
    assert_same_bits(pool.step([a], x), stream.step(x))
    b = pool.open(state=pool.state(a))
    x = draw(model, 1, rng)
    assert_same_bits(pool.step([b], x), stream.step(x))
    with pytest.raises(ValueError, match="state"):
        pool.open(state=(numbers(2, 1, 5),))
    assert len(pool) == 2


def test_out() -> None:
    model = several()
    pool, other = model.stream_pool(3), model.stream_pool(3)
    ids = [pool.open() for _ in range(2)]
    assert ids == [other.open() for _ in range(2)]
    x = draw(model, 2, np.random.default_rng(0))
    out = {"y": np.empty((2, 3), "float32"), "h": np.empty((2, 5), "float32")}
    assert pool.step(ids, x, out=out) is out
    assert_same_bits(out, other.step(ids, x))


def test_what_is_wrong_is_refused_and_changes_nothing() -> None:
    model = several()
    pool = model.stream_pool(2)
    ids = [pool.open(), pool.open()]
    x = draw(model, 2, np.random.default_rng(0))
    pool.step(ids, x)
    before = [pool.state(id) for id in ids]
    good = {"y": np.full((2, 3), 7, "float32"), "h": np.full((2, 5), 7, "float32")}
    first = {k: v[0] for k, v in x.items()}
    read_only = {k: v.copy() for k, v in good.items()}
    read_only["h"].flags.writeable = False
    for call, error, message in [
        (lambda: pool.step([0, 0], x), ValueError, "there before"),
        (lambda: pool.step([0, 5], x), ValueError, "no stream"),
        (lambda: pool.step([0.0, 1.0], x), TypeError, "ids has dtype"),
        (lambda: pool.step(ids, {**x, "a": x["a"][:1]}), ValueError, r"expected \(2, 3\)"),
        (lambda: pool.step(ids[:1], first), ValueError, r"\(3,\), expected \(1, 3\)$"),
        (lambda: pool.step(ids, {"a": x["a"]}), ValueError, "x"),
        (lambda: pool.step(ids, x, out={**good, "h": good["h"][:1]}), ValueError, "out has shape"),
        (lambda: pool.step(ids, x, out=read_only), ValueError, "out is read-only"),
        (lambda: pool.step(ids, x, out=good["y"]), TypeError, "out"),
        (lambda: pool.open(), RuntimeError, "the pool is full"),
        (lambda: model.stream_pool(0), ValueError, "capacity is 0"),
        (lambda: model.stream_pool(2**31), ValueError, "capacity is"),
        (lambda: copy.copy(pool), TypeError, "neither copied nor pickled"),
    ]:  # fmt: skip
        with pytest.raises(error, match=message):
            call()
        assert_same_bits([pool.state(id) for id in ids], before)
        assert all((v == 7).all() for v in good.values())
    assert "2 of 2 streams open" in repr(pool)
    assert pool.dtype == np.float32
    with pytest.raises(MemoryError, match="capacity is 2000000000"):
        model.stream_pool(2_000_000_000)


def test_threads() -> None:
    model = residual()
    pool = model.stream_pool(8)
    mine = [pool.open() for _ in range(4)]
    lone = {id: model.stream() for id in mine}
    stop = threading.Event()
    done = [0]

    def come_and_go() -> None:
        while not stop.is_set():
            id = pool.open()
            assert not pool.state(id)[0][0].any()
            pool.close(id)
            done[0] += 1

    def step() -> None:
        rng = np.random.default_rng(0)
        try:
            for _ in range(300):
                some = rng.permutation(mine)[: rng.integers(1, 5)]
                x = rng.standard_normal((len(some), 4)).astype("float32")
                for id, one, y in zip(some, x, pool.step(some, x), strict=True):
                    assert_same_bits(y[None], lone[id].step(one[None]))
        finally:
            stop.set()

    in_threads(lambda i: [step, come_and_go, come_and_go][i](), 3)
    assert done[0] > 5
    assert len(pool) == 4
