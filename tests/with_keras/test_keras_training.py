"""Imported models train as they do in Keras: the same weights after an epoch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = peers.require("keras")
L = keras.layers

# NumPy 2's, about Keras's own code.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RNG = np.random.default_rng(0)
IDS = RNG.integers(1, 50, (40, 9)) * (np.arange(9) < RNG.integers(1, 10, (40, 1)))
X = RNG.standard_normal((40, 7, 3)).astype("f4")
LABELS, TAGS = RNG.integers(0, 3, 40), RNG.integers(0, 3, (40, 7))
VALUES = RNG.standard_normal((40, 2)).astype("f4")


def ids_to_class() -> list[Any]:
    return [
        L.Input((None,), dtype="int32"), L.Embedding(50, 8, mask_zero=True),
        L.Bidirectional(L.LSTM(6)), L.Dense(3, activation="softmax"),
    ]  # fmt: skip


def two_grus() -> list[Any]:
    return [
        L.Input((None, 3)), L.GRU(5, return_sequences=True), L.GRU(4, reset_after=False),
        L.Dense(3, activation="softmax"),
    ]  # fmt: skip


def tagger() -> list[Any]:
    return [
        L.Input((None, 3)), L.SimpleRNN(5, return_sequences=True), L.LayerNormalization(),
        L.Dense(3, activation="softmax"),
    ]  # fmt: skip


def forecaster() -> list[Any]:
    return [L.Input((None, 3)), L.LSTM(5), L.Dense(4, activation="tanh"), L.Dense(2)]


def tagger_of_padded() -> list[Any]:
    return [
        L.Input((None, 3)), L.Masking(), L.LSTM(5, return_sequences=True),
        L.Dense(3, activation="softmax"),
    ]  # fmt: skip


@pytest.mark.parametrize("adam", [False, True])
@pytest.mark.parametrize(
    ("layers", "x", "target"),
    [
        (ids_to_class, IDS, LABELS), (two_grus, X, LABELS), (tagger, X, TAGS),
        (forecaster, X, VALUES), (tagger_of_padded, X * (IDS[:, :7, None] > 0), TAGS),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_an_epoch_is_keras_s(
    tmp_path: Path, layers: Callable[[], list[Any]], x: Any, target: Any, adam: bool
) -> None:
    theirs = keras.Sequential(layers())
    rng = np.random.default_rng(2)
    theirs.set_weights([rng.normal(0, 0.3, w.shape) for w in theirs.get_weights()])
    lc.save(lc.from_keras(theirs), tmp_path / "model.safetensors")
    ours = lc.load(tmp_path / "model.safetensors")
    before = ours.state_dict()
    classes = layers is not forecaster
    theirs.compile(
        keras.optimizers.Adam(0.01) if adam else keras.optimizers.SGD(0.1, momentum=0.9),
        "sparse_categorical_crossentropy" if classes else "mse",
    )
    theirs.fit(x, target, batch_size=8, shuffle=False, verbose=0)
    trained = ours[:-1] if classes else ours
    optimizer = (
        lc.optim.Adam(trained.parameters(), 0.01, eps=1e-7, eps_hat=True)
        if adam
        else lc.optim.SGD(trained.parameters(), 0.1, momentum=0.9)
    )
    lc.fit(
        trained, (x, target), batch_size=8, shuffle=False, optimizer=optimizer, progress=False,
        loss=lc.losses.cross_entropy if classes else lc.losses.mse,
    )  # fmt: skip
    expected = lc.from_keras(theirs).state_dict()
    for name, weight in ours.state_dict().items():
        np.testing.assert_allclose(weight, expected[name], rtol=0, atol=1e-5, err_msg=name)
    moved = [name for name, weight in before.items() if not np.allclose(weight, expected[name])]
    assert len(moved) > len(before) / 2


@pytest.mark.parametrize("cell", ["SimpleRNN", "LSTM", "GRU"])
def test_one_bias_of_two_is_trained(cell: str) -> None:
    options = {"reset_after": False} if cell == "GRU" else {}
    layer = getattr(L, cell)(4, **options)
    layer.build((None, None, 3))
    alone = getattr(L, f"{cell}Cell")(4, **options)
    alone.build((None, 3))
    for ours in (lc.from_keras(layer), lc.from_keras(alone)):
        frozen = [name for name, p in ours.named_parameters() if not p.trainable]
        assert frozen == [name for name in ours.state_dict() if name.startswith("bias_hh")]
    if cell == "GRU":
        both = L.GRU(4)
        both.build((None, None, 3))
        assert all(p.trainable for p in lc.from_keras(both).parameters())
    assert all(p.trainable for p in lc.LSTM(3, 4).parameters())


def test_layers_that_keras_does_not_train() -> None:
    theirs = keras.Sequential([L.Input((None, 3)), L.GRU(4), L.Dense(2), L.Dense(2)])
    theirs.layers[0].trainable = theirs.layers[1].trainable = False
    ours = lc.from_keras(theirs)
    assert {name for name, p in ours.named_parameters() if p.trainable} == {"3.weight", "3.bias"}
