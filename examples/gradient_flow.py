"""Vanishing and exploding gradients: how far back the state of a network still matters.

    python examples/gradient_flow.py                            # the numbers
    python examples/gradient_flow.py --picture gradients.png    # and the curves

For every lag k the norm of the Jacobian dh_T / ds_{T-k} says how much of a gradient at the last
step can arrive k steps earlier. In a simple RNN it shrinks or grows at every step, at most by the
largest singular value of its recurrent matrix, here 0.9 or 1.1; LSTM and GRU keep what their gates
let pass.
"""

from __future__ import annotations

import argparse

import numpy as np

import lstmcore as lc


def orthogonal_rnn(size: int, largest: float, seed: int) -> lc.RNN:
    """Make an RNN whose recurrent matrix is orthogonal, times `largest`."""
    rnn = lc.RNN(1, size, bias=False, seed=seed)
    matrix = np.random.default_rng(seed).standard_normal((size, size))
    dict(rnn.named_parameters())["weight_hh_l0"].data[...] = largest * np.linalg.qr(matrix)[0]
    return rnn


def memory_gru(size: int, bias: float, seed: int) -> lc.GRU:
    """Make a GRU whose update gates start with this bias: above 0 they keep the state."""
    gru = lc.GRU(1, size, seed=seed)
    dict(gru.named_parameters())["bias_ih_l0"].data[size : 2 * size] = bias
    return gru


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--size", type=int, default=32, help="units of each layer")
    options.add_argument("--steps", type=int, default=100, help="the largest lag")
    options.add_argument("--quick", action="store_true", help="few steps and units")
    options.add_argument("--picture", help="file for the curves")
    arguments = options.parse_args()
    if arguments.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    if arguments.quick:
        arguments.size, arguments.steps = 8, 20
    size, seed, steps = arguments.size, arguments.seed, arguments.steps
    layers = {
        "RNN, 0.9": orthogonal_rnn(size, 0.9, seed),
        "RNN, 1.1": orthogonal_rnn(size, 1.1, seed),
        "LSTM": lc.LSTM(1, size, seed=seed),
        "LSTM, forget bias 3": lc.LSTM(1, size, forget_bias=3, seed=seed),
        "GRU": lc.GRU(1, size, seed=seed),
        "GRU, update bias 3": memory_gru(size, 3.0, seed),
    }
    x = 0.01 * np.random.default_rng(seed).standard_normal((steps, 1))
    for name, layer in layers.items():
        norms = lc.plot.gradient_norms(layer, x)
        print(f"gradient norm at lag {steps}, {name}: {norms[-1]:.2g}")
    if arguments.picture:
        ax = lc.plot.gradient_flow(layers, x)
        ax.set_ylim(1e-12, 1e6)
        ax.figure.set_size_inches(8, 4)
        ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        ax.figure.savefig(arguments.picture)
