"""Record what Python's models give, for test_network.cpp: ``python record_networks.py``.

It writes networks.safetensors beside itself. Of every case there are the bytes of the file that
`lstmcore.save` wrote (``case/model``, int8), for input 0, 1... ``case/x0``, or ids as numbers
``case/ids0``, and ``case/lengths0`` where there are some, and the outputs ``case/y0``, all
time-major. The numbers are those of level x86-64-v3, and of those with the same bits.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

import lstmcore as lc

HERE = Path(__file__).parent
T, B = 6, 3
LENGTHS = [6, 0, 4]


def chains() -> dict[str, Any]:
    """Return the models of one input with 3 features, (T, B, 3)."""
    both = lc.LSTM(3, 4, bidirectional=True, num_layers=2, seed=0)
    return {
        "last_step": lc.Sequential(both, lc.LastStep(), lc.Linear(8, 2, seed=1)),
        "mean_pool": lc.Sequential(lc.GRU(3, 4, seed=0), lc.MeanPool(), lc.Softmax()),
        "max_pool": lc.Sequential(lc.RNN(3, 4, reverse=True, seed=0), lc.MaxPool()),
        "both_ends": lc.Sequential(
            lc.GRU(3, 4, bidirectional=True, batch_first=True, seed=0), lc.BothEnds("ave")
        ),
        "layers": lc.Sequential(
            lc.LSTM(3, 4, bidirectional=True, merge="sum", proj_size=2, seed=0),
            lc.LayerNorm(2),
            lc.Dropout(0.5),
            lc.Sequential(lc.Tanh(), lc.Linear(2, 3, seed=1)),
            lc.Flip(),
        ),
        "convolutions": lc.Sequential(
            lc.Conv1D(3, 4, 3, padding="causal", dilation=2, seed=0),
            lc.BatchNorm(4),
            *(lc.Linear(4, 4, seed=3), lc.ReLU()),  # not 0 past the end of a row
            lc.Conv1D(4, 4, 3, padding="same", bias=False, seed=1),
            lc.Conv1D(4, 2, 2, stride=2, seed=2),
            lc.Conv1D(2, 4, 3, padding=1, groups=2, seed=4),
        ),
        "functions": lc.Sequential(
            lc.Linear(3, 5, seed=0),
            *(lc.GELU(), lc.GELU("tanh"), lc.SiLU(), lc.ELU(0.5), lc.LeakyReLU(0.1)),
            lc.Softplus(2.0, 1.0),
            *(lc.PReLU(init=0.5), lc.PReLU(5, init=-0.5)),
            *(lc.Activation(name) for name in ("softsign", "mish", "hard_silu", "selu", "relu6")),
            *(lc.Activation(name) for name in ("square", "hard_sigmoid", "exponential")),
            lc.Activation("absolute"),
            lc.LogSoftmax(),
        ),
        "masking": lc.Sequential(lc.Masking(), lc.GRU(3, 4, seed=0), lc.BatchNorm(4)),
        "autoencoder": lc.Sequential(
            lc.GRU(3, 4, seed=0), lc.LastStep(), lc.RepeatVector(2), lc.LSTM(4, 3, seed=1)
        ),
        "layer_alone": lc.LSTM(3, 4, seed=0),
        # One number, which stands for h and c.
        "zoneout": lc.Sequential(
            lc.LSTM(3, 4, zoneout=0.25, seed=0), lc.GRU(4, 3, zoneout=0.5, seed=1)
        ),
        "in_float64": lc.Sequential(lc.GRU(3, 4, dtype="float64", seed=0), lc.LastStep()),
        "in_int8": lc.quantize(lc.Sequential(lc.GRU(3, 4, seed=0), lc.Linear(4, 2, seed=1))),
    }


def graphs() -> dict[str, Any]:
    """Return the models of several inputs or outputs."""
    x, static = lc.Input(3, name="x"), lc.Input(2, steps=False, name="static")
    y, (h, _) = lc.LSTM(3, 4, bidirectional=True, seed=0)(x)
    skip = lc.Linear(3, 8, seed=1)(x)
    shared = lc.Sequential(lc.Linear(8, 2, seed=2), lc.Tanh())
    pooled = lc.concat([lc.MaxPool()(y + skip), static, h[-1]])
    everywhere = lc.repeat(pooled, like=x)
    two = lc.Model(
        (x, static),
        {
            "steps": lc.Linear(14, 2, seed=3)(everywhere) * 0.5 + shared(y - skip) * shared(y),
            "pooled": 1 - pooled[..., -1:0:-2],
            "state": h[0:2],
        },
    )
    ids, memory = lc.Input(ids=True), lc.Input(3)
    _, state = lc.GRU(3, 4, num_layers=2, seed=0)(memory)
    decoded, _ = lc.GRU(2, 4, seed=1)(lc.Embedding(5, 2, seed=2)(ids), state[-1][None])
    return {
        "two_inputs": two,
        "encoder_decoder": lc.Model([ids, memory], [decoded, lc.Linear(4, 2, seed=3)(decoded)]),
    }


def settled(model: Any) -> Any:
    """Return the model with running statistics that do something."""
    rng = np.random.default_rng(5)
    state = {
        name: rng.uniform(0.5, 2, array.shape).astype(array.dtype)
        for name, array in model.state_dict().items()
        if "running_" in name or (name.endswith("1.weight") and array.ndim == 1)
    }
    model.load_state_dict(state, strict=False)
    return model


def leaves(tree: Any) -> list[np.ndarray]:
    """Return the arrays of a structure, in order."""
    if isinstance(tree, dict):
        return [leaf for part in tree.values() for leaf in leaves(part)]
    if isinstance(tree, (tuple, list)):
        return [leaf for part in tree for leaf in leaves(part)]
    return [tree]


def record(case: str, model: Any, inputs: list[np.ndarray], *lengths: Any) -> dict[str, Any]:
    """Return the arrays of one case; lengths are of each input, or None."""
    with tempfile.TemporaryDirectory() as folder:
        lc.save(settled(model), f"{folder}/model")
        arrays = {f"{case}/model": np.frombuffer(Path(folder, "model").read_bytes(), np.int8)}
    batch_first = case == "both_ends"
    given = [x.swapaxes(0, 1) if batch_first else x for x in inputs]
    alone = len(given) == 1
    rows = None if not lengths else lengths[0] if alone else lengths
    y = model(given[0] if alone else given, lengths=rows)
    arrays |= {f"{case}/y{i}": np.ascontiguousarray(part) for i, part in enumerate(leaves(y))}
    for i, x in enumerate(inputs):
        kind = "ids" if x.dtype.kind == "i" else "x"
        arrays[f"{case}/{kind}{i}"] = x if kind == "x" else x.astype("float64")
    for i, ends in enumerate(lengths):
        if ends is not None:
            arrays[f"{case}/lengths{i}"] = np.array(ends, "float64")
    return arrays


def main() -> None:
    """Write the file."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((T, B, 3)).astype("float32")
    gaps = np.array([[0, 0, 1], [1, 0, 1], [0, 0, 0]] * 2, "float32")[..., None]
    masked_x = x * gaps
    masked_x[1, 0, 1] = 0  # a step with a zero in it is there
    arrays: dict[str, np.ndarray] = {}
    for case, model in chains().items():
        if case == "masking":
            arrays |= record(case, model, [masked_x])
        else:
            given = x.astype("float64") if case == "in_float64" else x
            arrays |= record(case, model, [given], LENGTHS)
    models = graphs()
    static = rng.standard_normal((B, 2)).astype("float32")
    ids = rng.integers(0, 5, (4, B))
    masked = lc.Sequential(
        lc.Masking(ids=True), lc.Embedding(5, 3, seed=0), lc.GRU(3, 4, seed=1), lc.LastStep()
    )
    arrays |= record("two_inputs", models["two_inputs"], [x, static], LENGTHS, None)
    arrays |= record("encoder_decoder", models["encoder_decoder"], [ids, x], [4, 3, 1], LENGTHS)
    arrays |= record("masked_ids", masked, [ids])
    words = lc.Embedding(5, 3, seed=0)
    head = lc.Linear(3, 5, seed=2).tie("weight", words)
    tied = lc.Sequential(words, lc.GRU(3, 3, seed=1), head)
    arrays |= record("tied", tied, [ids])
    arrays |= record("ids_in_int8", lc.quantize(tied), [ids])
    arrays |= record("table_in_int8", lc.quantize(lc.Sequential(words)), [ids])
    words.precision = "bfloat16"
    arrays |= record("table_in_bfloat16", lc.Sequential(words), [ids])
    save_file(arrays, HERE / "networks.safetensors")
    print(f"{len(arrays)} arrays")


if __name__ == "__main__":
    main()
