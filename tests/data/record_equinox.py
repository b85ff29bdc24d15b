"""Record Equinox's cells, for test_documented_layouts.py: ``python record_equinox.py``.

It needs `equinox` (Apache-2.0) and `jax`, and writes equinox.npz beside itself: of an LSTMCell and
GRUCells with and without bias their own arrays under their own names, random, the inputs, (T, I),
and h after each step, all in float64.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

STEPS, INPUTS, HIDDEN = 6, 3, 5
NAMES = ("weight_ih", "weight_hh", "bias", "bias_n")


def cell_arrays(cell: Any) -> dict[str, np.ndarray]:
    """Return the arrays of a cell by their names."""
    found = {name: getattr(cell, name, None) for name in NAMES}
    return {name: np.asarray(array) for name, array in found.items() if array is not None}


def main() -> None:
    jax.config.update("jax_enable_x64", True)
    x = np.random.default_rng(0).standard_normal((STEPS, INPUTS))
    recorded: dict[str, np.ndarray] = {"x": x}
    for seed, (case, kind, bias) in enumerate(
        (
            ("lstm", eqx.nn.LSTMCell, True),
            ("lstm_plain", eqx.nn.LSTMCell, False),
            ("gru", eqx.nn.GRUCell, True),
            ("gru_plain", eqx.nn.GRUCell, False),
        )
    ):
        cell = kind(INPUTS, HIDDEN, use_bias=bias, dtype=jnp.float64, key=jax.random.key(seed))
        zeros = jnp.zeros(HIDDEN)
        state = zeros if kind is eqx.nn.GRUCell else (zeros, zeros)
        outputs = []
        for step in x:
            state = cell(jnp.asarray(step), state)
            outputs.append(np.asarray(state if kind is eqx.nn.GRUCell else state[0]))
        arrays = cell_arrays(cell) | {"y": np.array(outputs)}
        recorded |= {f"{case}/{name}": array for name, array in arrays.items()}
    np.savez_compressed(Path(__file__).with_name("equinox.npz"), **recorded)
    print(f"{len(recorded)} arrays, Equinox {eqx.__version__}, JAX {jax.__version__}")


if __name__ == "__main__":
    main()
