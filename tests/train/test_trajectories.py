"""Whole training runs, held step by step to those that PyTorch recorded."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.paths import DATA
from lstmcore.datasets import japanese_vowels

# The optimizer and the clipping of each recorded run; train_trajectory.txt says the same.
RUNS: dict[str, tuple[str, dict[str, float], float | None]] = {
    "LSTM_1l_uni_SGD": ("SGD", {"lr": 0.1, "momentum": 0.9}, None),
    "LSTM_1l_uni_RMSprop": ("RMSprop", {"lr": 0.002}, None),
    "LSTM_2l_bi_Adam": ("Adam", {"lr": 0.005}, None),
    "GRU_1l_uni_SGD_clip0.1": ("SGD", {"lr": 0.1, "momentum": 0.9}, 0.1),
    "GRU_1l_uni_Adam": ("Adam", {"lr": 0.01}, None),
    "GRU_1l_uni_AdamW": ("AdamW", {"lr": 0.01, "weight_decay": 0.01}, None),
    "RNN_1l_uni_SGD": ("SGD", {"lr": 0.1, "momentum": 0.9}, None),
    "RNN_1l_uni_AdamW": ("AdamW", {"lr": 0.01, "weight_decay": 0.01}, None),
    "RNN_2l_bi_Adam": ("Adam", {"lr": 0.005}, None),
}


class GradientNorms(lc.callbacks.Callback):
    """Notes the norm of the gradients that each step was made with."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def on_step(self, run: Any) -> None:
        squares = [float(np.square(p.grad).sum()) for p in run.model.parameters()]
        self.norms.append(math.sqrt(sum(squares)))


def recorded(case: str) -> dict[str, Any]:
    with np.load(DATA / "train_trajectory.npz") as arrays:
        names = [name for name in arrays if name.startswith(f"{case}/")]
        return {name.partition("/")[2]: arrays[name] for name in names}


def test_all_recorded_runs_are_followed() -> None:
    with np.load(DATA / "train_trajectory.npz") as arrays:
        assert {name.partition("/")[0] for name in arrays} == set(RUNS)


@pytest.mark.parametrize("case", RUNS)
def test_fit_follows_pytorch(case: str) -> None:
    record = recorded(case)
    name, options, clip_norm = RUNS[case]
    both = "_2l_bi_" in case
    layer = getattr(lc, case.split("_")[0])(
        12, 16, num_layers=1 + both, bidirectional=both, dtype="float64"
    )
    head = lc.Linear(16 * (1 + both), 9, dtype="float64")
    model = lc.Sequential(layer, lc.BothEnds() if both else lc.LastStep(), head)
    missing = layer.load_state_dict(record, strict=False, prefix="init.").missing_keys
    assert not missing
    head.load_state_dict(record, prefix="init.head.")

    vowels, _ = japanese_vowels()
    rows = slice(0, 256, 4)
    data = vowels.x[:, rows].astype("float64"), vowels.labels[rows], vowels.lengths[rows]
    norms = GradientNorms()
    history = lc.fit(
        model,
        data,
        loss=lc.losses.cross_entropy,
        optimizer=getattr(lc.optim, name)(model.parameters(), **options),
        epochs=30,
        clip_norm=clip_norm,
        callbacks=[norms],
        progress=False,
    )

    np.testing.assert_allclose(history.losses, record["loss"], rtol=1e-8, atol=0)
    expected = np.minimum(record["gradnorm"], np.inf if clip_norm is None else clip_norm)
    # PyTorch clips to 0.1 / (1 + 1e-6 / norm), a little less than 0.1.
    np.testing.assert_allclose(norms.norms, expected, rtol=1e-8 if clip_norm is None else 1e-5)
    parts = {"": layer, "head.": head}
    for prefix, part in parts.items():
        for parameter, p in part.named_parameters():
            final = record[f"final.{prefix}{parameter}"]
            np.testing.assert_allclose(p.data, final, rtol=1e-8, atol=1e-8)
