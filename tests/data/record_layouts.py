"""Record Haiku's and Flax's cells, for test_layouts.py: ``python record_layouts.py``.

It needs `dm-haiku` and `flax` (both Apache-2.0), and renews their arrays in layouts.npz: random
weights under their own names, the inputs, (T, B, I), and what the cells give, Flax with the batch
first. Those of TensorFlow 1 in that file, which are under ``tf1/``, stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

FILE = Path(__file__).with_name("layouts.npz")
STEPS, BATCH, INPUTS, HIDDEN = 7, 3, 4, 5


def drawn(tree: Any) -> Any:
    """Return parameters of the same shapes that are random, biases too."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: jnp.asarray(rng.normal(0, 0.5, a.shape), jnp.float32), tree)


def named(tree: Any, prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays of a structure by their paths."""
    if not hasattr(tree, "items"):
        return {prefix: np.asarray(tree)}
    found: dict[str, np.ndarray] = {}
    for name, part in tree.items():
        found |= named(part, f"{prefix}/{name}")
    return found


def record_haiku(case: str, make: Callable[[], Any], x: np.ndarray) -> dict[str, np.ndarray]:
    def run(steps: Any) -> Any:
        core = make()
        y, _ = hk.dynamic_unroll(core, steps, core.initial_state(BATCH))
        return y

    network = hk.without_apply_rng(hk.transform(run))
    parameters = drawn(network.init(jax.random.key(0), x))
    return named(parameters, case) | {f"{case}/y": np.asarray(network.apply(parameters, x))}


def record_flax(case: str, cell: Any, x: np.ndarray) -> dict[str, np.ndarray]:
    layer, rows = linen.RNN(cell), x.swapaxes(0, 1)
    parameters = drawn(layer.init(jax.random.key(0), rows))
    y = np.asarray(layer.apply(parameters, rows))
    return named(parameters["params"], case) | {f"{case}/y": y}


def main() -> None:
    with np.load(FILE) as before:
        recorded = {name: before[name] for name in before if name.startswith("tf1/")}
    x = np.random.default_rng(0).standard_normal((STEPS, BATCH, INPUTS)).astype(np.float32)
    recorded["jax/x"] = x
    recorded |= record_haiku("haiku_lstm", lambda: hk.LSTM(HIDDEN), x)
    recorded |= record_haiku("haiku_gru", lambda: hk.GRU(HIDDEN), x)
    recorded |= record_flax("flax_lstm", linen.OptimizedLSTMCell(HIDDEN), x)
    recorded |= record_flax("flax_gru", linen.GRUCell(HIDDEN), x)
    np.savez_compressed(FILE, **recorded)
    versions = ", ".join(f"{m.__name__} {m.__version__}" for m in (hk, flax, jax))
    print(f"{len(recorded)} arrays, {versions}")


if __name__ == "__main__":
    main()
