"""Another instruction set from the next call on, whatever is kept from the call before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require

Array = np.ndarray[Any, np.dtype[Any]]
LEVELS = lc.available_isas()


@pytest.fixture
def first_level() -> Iterator[None]:
    """Begin at the lowest level, and put the level back."""
    before = lc.isa()
    lc.set_isa(LEVELS[0])
    yield
    lc.set_isa(before)


def lstm() -> lc.LSTM:
    return lc.LSTM(5, 19, seed=0)


def linear() -> lc.Linear:
    return lc.Linear(5, 19, seed=0)


def layer_and_stream() -> Callable[[Array], Array]:
    layer = lstm()
    streams = []  # they keep the copy alive that streams of the same module share

    def call(x: Array) -> Array:
        streams.append(layer.stream())
        return streams[-1].process(x)

    return call


def model_and_stream() -> Callable[[Array], Array]:
    model = lc.Sequential(linear(), lc.GRU(19, 8, seed=1), lc.Softmax())
    streams = []

    def call(x: Array) -> Array:
        streams.append(model.stream())
        return streams[-1].process(x)

    return call


def torch_module(train: bool) -> Callable[[Array], Array]:
    torch = require("torch")
    module = lc.torch.LSTM(5, 19)
    with torch.no_grad():
        for p, own in zip(module.parameters(), lstm().parameters(), strict=True):
            p.copy_(torch.from_numpy(np.array(own.data)))

    def call(x: Array) -> Array:
        with torch.set_grad_enabled(train):
            y: Array = module(torch.from_numpy(x))[0].detach().numpy()
            return y

    return call


def layer_called() -> Callable[[Array], Array]:
    layer = lstm()
    return lambda x: layer(x)[0]


def layer_trained() -> Callable[[Array], Array]:
    layer = lstm()
    return lambda x: layer.forward(x)[0]


KEEPERS: dict[str, Callable[[], Callable[[Array], Array]]] = {
    "layer": layer_called,
    "layer in training": layer_trained,
    "Linear": linear,
    "stream": layer_and_stream,
    "stream of a model": model_and_stream,
    "torch": lambda: torch_module(train=False),
    "torch in training": lambda: torch_module(train=True),
}


@pytest.mark.parametrize("name", KEEPERS)
def test_what_is_kept_is_made_again_for_another_level(name: str, first_level: None) -> None:
    x = np.random.default_rng(0).standard_normal((6, 1, 5)).astype("float32")
    kept = KEEPERS[name]()
    seen = set()
    for level in (*LEVELS, *LEVELS):  # up, and once more, from the highest to the lowest
        lc.set_isa(level)
        y = kept(x)
        assert_same_bits(y, KEEPERS[name]()(x))  # of one that was never at another level
        assert_same_bits(kept(x), y)
        seen.add(y.tobytes())
    if {"x86-64-v2", "x86-64-v3"} <= set(LEVELS):
        assert len(seen) == 2  # without fused multiply-add, and with it
