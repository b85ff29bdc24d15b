"""The C++ example that runs a model over whole sequences, against Python, to the bit.

It is run where the environment names the folder it was built in (LSTMCORE_EXAMPLES).
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc

FOLDER = os.environ.get("LSTMCORE_EXAMPLES", "")
pytestmark = pytest.mark.skipif(not FOLDER, reason="LSTMCORE_EXAMPLES is not set")

LENGTHS = [9, 0, 1, 30]


def run(model: Path, *sequences: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(FOLDER) / "run_model"), str(model), *map(str, sequences)]
    return subprocess.run(command, capture_output=True, text=True)


def outputs(folder: Path, model: Any, sequences: list[np.ndarray]) -> list[np.ndarray]:
    """Return what the program prints of each sequence, (steps, features)."""
    lc.save(model, folder / "model.safetensors")
    paths = [folder / f"{i}.csv" for i in range(len(sequences))]
    for path, x in zip(paths, sequences):
        rows = x[:, None] if x.ndim == 1 else x
        lines = [",".join(f"{number:.9g}" for number in row) for row in rows]
        path.write_text("".join(line + "\n" for line in lines))
    done = run(folder / "model.safetensors", *paths)
    assert done.returncode == 0, done.stderr
    blocks: list[list[str]] = [[]]
    for line in done.stdout.splitlines():
        if line:
            blocks[-1].append(line)
        else:
            blocks.append([])
    assert not blocks.pop()
    return [np.array([row.split(",") for row in b], "float32") for b in blocks]


def graph() -> Any:
    """A residual stack with two poolings side by side."""
    x = lc.Input(3)
    y, (h, _) = lc.LSTM(3, 8, bidirectional=True, seed=0)(x)
    y = lc.LayerNorm(16)(y + lc.Linear(3, 16, seed=1)(x))
    z, _ = lc.GRU(16, 5, batch_first=False, seed=2)(y)
    joined = lc.concat([lc.LastStep()(z), lc.MaxPool()(y), h[-1] * 0.5])
    return lc.Model(x, lc.Linear(29, 2, seed=3)(joined))


MODELS = {
    "classifier": lambda: lc.Sequential(
        lc.LSTM(3, 33, num_layers=2, bidirectional=True, dropout=0.5, seed=0),
        lc.LastStep(), lc.Dropout(0.5), lc.Linear(66, 4, seed=1), lc.Softmax(),
    ),
    "tagger": lambda: lc.Sequential(
        lc.Conv1D(3, 6, 3, padding="same", seed=0), lc.BatchNorm(6), lc.ReLU(),
        lc.GRU(6, 9, bidirectional=True, merge="mul", batch_first=True, seed=1),
        lc.LayerNorm(9), lc.Linear(9, 5, seed=2), lc.CRF(5, seed=3),
    ),
    "both ends": lambda: lc.Sequential(
        lc.RNN(3, 7, bidirectional=True, nonlinearity="relu", seed=0), lc.BothEnds("sum"),
        lc.SiLU(), lc.Linear(7, 3, seed=1), lc.LeakyReLU(0.2),
    ),
    "max": lambda: lc.Sequential(lc.LSTM(3, 5, peephole=True, seed=0), lc.MaxPool(), lc.Tanh()),
    "masked": lambda: lc.Sequential(lc.Masking(), lc.GRU(3, 4, seed=0), lc.Flip()),
    "int8": lambda: lc.quantize(lc.Sequential(lc.LSTM(3, 20, seed=0), lc.Linear(20, 2, seed=1))),
    "bfloat16": lambda: lc.Sequential(lc.GRU(3, 20, precision="bfloat16", seed=0), lc.LastStep()),
    "activations": lambda: lc.Sequential(
        lc.GRU(3, 9, activations=("silu", ("elu", 0.5)), gate_clip=1.0, seed=0), lc.LastStep(),
    ),
    "graph": graph,
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_outputs_have_the_bits_of_python(name: str, tmp_path: Path) -> None:
    model: Any = MODELS[name]()
    rng = np.random.default_rng(0)
    sequences = [rng.standard_normal((n, 3)).astype("float32") for n in LENGTHS]
    if name == "masked":
        sequences[0][::2] = 0
    x = np.zeros((max(LENGTHS), len(LENGTHS), 3), "float32")
    for b, sequence in enumerate(sequences):
        x[: len(sequence), b] = sequence
    batch_first = getattr(model, "batch_first", False)
    y = model(x.swapaxes(0, 1) if batch_first else x, lengths=LENGTHS)
    # Of the first row of nine steps, five are zeros.
    ends = [4, *LENGTHS[1:]] if name == "masked" else LENGTHS
    if y.ndim == 3:
        expected = [row[:end] for row, end in zip(y if batch_first else y.swapaxes(0, 1), ends)]
    else:
        expected = [row[None] for row in y]
    found = outputs(tmp_path, model, sequences)
    assert len(found) == len(expected)
    for one, other in zip(found, expected):
        assert one.tobytes() == np.ascontiguousarray(other).tobytes()


@pytest.mark.parametrize(
    "middle",
    [lc.MeanPool(), lc.GELU(), lc.GELU("tanh"), lc.ELU(0.7), lc.Softplus(3.0, 2.0)]
    + [lc.Activation(name) for name in ("mish", "selu", "hard_silu", "relu6", "softsign")],
    ids=repr,
)
def test_functions_of_numpy_are_within_rounding(middle: Any, tmp_path: Path) -> None:
    model = lc.Sequential(lc.Linear(3, 40, seed=0), middle, lc.Linear(40, 2, seed=1))
    x = 4 * np.random.default_rng(0).standard_normal((50, 3)).astype("float32")
    (found,) = outputs(tmp_path, model, [x])
    expected = model(x[:, None])
    np.testing.assert_allclose(found, expected.reshape(-1, 2), rtol=1e-6, atol=2e-6)


def test_ids(tmp_path: Path) -> None:
    model = lc.Sequential(
        lc.Embedding(50, 6, seed=0), lc.GRU(6, 8, bidirectional=True, seed=1), lc.LastStep()
    )
    ids = np.random.default_rng(0).integers(0, 50, (12, 2))
    found = outputs(tmp_path, model, [ids[:, 0], ids[:7, 1]])
    expected = model(ids, lengths=[12, 7])
    assert np.concatenate(found).tobytes() == expected.tobytes()


def test_what_is_wrong_is_said(tmp_path: Path) -> None:
    lc.save(lc.Sequential(lc.LSTM(2, 4), lc.LastStep()), tmp_path / "model.safetensors")
    lc.save(lc.Pad1D(1, 1), tmp_path / "other.safetensors")
    (tmp_path / "x.csv").write_text("1,2\n3\n")
    for model, sequence, message in [
        ("none.safetensors", "x.csv", "cannot be opened"),
        ("model.safetensors", "none.csv", "none.csv: cannot be opened"),
        ("model.safetensors", "x.csv", "x.csv: step 1 has 1 numbers, expected 2"),
        ("other.safetensors", "x.csv", "Pad1D, which is known to Python only; C++ knows Seq"),
    ]:
        done = run(tmp_path / model, tmp_path / sequence)
        assert done.returncode == 1
        assert message in done.stderr
