"""Measure what options of the cells cost, and layer normalisation beside PyTorch's.

    python bench/options.py [--rounds 9] [--threads 1] [--markdown FILE]

Each option of an LSTM or GRU beside the layer without it, in inference and in a training step:
forward, backward and a step of SGD, after which every layer packs its weights anew. The LSTM with
layer normalisation also beside the loop over steps that one writes in PyTorch, compiled by
TorchScript: the outputs have to be equal first. Rounds go through all of a case, so that a machine
whose speed changes favours nobody: the ratio of a row is the median of those within a round. On one
thread all times are of the processor.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc
from turns import in_turns

Call = Callable[[], Any]

_SCRIPTED = "TorchScript layer_norm"
_RATE = 1e-30  # so low that all numbers stay the same

SIZES = [(50, 8, 64, 64), (50, 32, 128, 128), (50, 32, 256, 256)]  # T, B, I, H
OPTIONS: dict[str, dict[str, Any]] = {
    "layer_norm": {"layer_norm": True},
    "zoneout": {"zoneout": 0.1},
    "input_dropout": {"input_dropout": 0.2},
    "recurrent_dropout": {"recurrent_dropout": 0.2},
    "weight_dropout": {"weight_dropout": 0.2},
}


def calls_of(layer: Any, x: Any) -> dict[str, Call]:
    """Return an inference and a training step."""
    optimizer = lc.optim.SGD(layer.parameters(), lr=_RATE)

    def train() -> Any:
        optimizer.zero_grad()
        y, _, tape = layer.forward(x)
        layer.backward(tape, y)
        optimizer.step()

    return {"infer": lambda: layer(x)[0], "train": train}


def scripted(layer: Any, x: Any) -> dict[str, Call]:
    """Return those of a loop in TorchScript with the weights of an LSTM with layer_norm."""
    import torch
    from torch import Tensor
    from torch.nn.functional import layer_norm  # noqa: F401  (the script's)

    source = """
def run(x: Tensor, p: Dict[str, Tensor]) -> Tensor:
    H = p["weight_ln_c_l0"].size(0)
    h, c = torch.zeros(x.size(1), H), torch.zeros(x.size(1), H)
    ys: List[Tensor] = []
    for t in range(x.size(0)):
        a = torch.layer_norm(torch.mm(x[t], p["weight_ih_l0"].t()), [4 * H], p["weight_ln_ih_l0"])
        u = torch.layer_norm(torch.mm(h, p["weight_hh_l0"].t()), [4 * H], p["weight_ln_hh_l0"])
        i, f, g, o = (a + p["bias_ih_l0"] + u + p["bias_hh_l0"]).chunk(4, 1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        shown = torch.layer_norm(c, [H], p["weight_ln_c_l0"], p["bias_ln_c_l0"])
        h = torch.sigmoid(o) * torch.tanh(shown)
        ys.append(h)
    return torch.stack(ys)
"""
    run = torch.jit.CompilationUnit(source).run
    given: Tensor = torch.tensor(x)
    parameters = {n: torch.tensor(v, requires_grad=True) for n, v in layer.state_dict().items()}
    optimizer = torch.optim.SGD(parameters.values(), lr=_RATE)

    def infer() -> Any:
        with torch.no_grad():
            return run(given, parameters).numpy()

    def train() -> Any:
        optimizer.zero_grad()
        y = run(given.requires_grad_(), parameters)
        y.backward(y.detach())
        optimizer.step()

    for _ in range(3):  # TorchScript compiles in the first calls
        infer(), train()
    np.testing.assert_allclose(infer(), layer(x)[0], rtol=1e-3, atol=1e-4)
    return {"infer": infer, "train": train}


def rows_of(
    kind: str, size: tuple[int, ...], rounds: int, least: float, threads: int, torch: bool
) -> list[str]:
    """Return the rows of the table of one size."""
    T, B, inputs, hidden = size
    x = np.random.default_rng(0).standard_normal((T, B, inputs)).astype("float32")
    layers = {"": {}, **OPTIONS}
    made = {n: getattr(lc, kind)(inputs, hidden, seed=0, **o) for n, o in layers.items()}
    calls = {name: calls_of(layer, x) for name, layer in made.items()}
    if torch and kind == "LSTM":
        calls[_SCRIPTED] = scripted(made["layer_norm"], x)
    rows = []
    for what in ("infer", "train"):
        turns = {name: call[what] for name, call in calls.items()}
        found = in_turns(turns, rounds, least, threads=threads)
        for name, seconds in found.items():
            if name:
                other = found["layer_norm" if name == _SCRIPTED else ""]
                rows.append(
                    f"| {what} {kind} T{T} B{B} H{hidden} {name} | {np.median(seconds) * 1e3:.3f} "
                    f"| {np.median(seconds / other):.2f} |"
                )
    return rows


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=0.1, help="of a call in a round, at least")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-torch", action="store_true", help="leave TorchScript out")
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    lc.set_num_threads(arguments.threads)
    if not arguments.no_torch:
        import torch

        torch.set_num_threads(arguments.threads)
    lines = ["| | ms | times the plain layer; TorchScript: times ours |", "|---|---|---|"]
    print("\n".join(lines))
    for kind in ("LSTM", "GRU"):
        for size in SIZES:
            new = rows_of(
                kind,
                size,
                arguments.rounds,
                arguments.seconds,
                arguments.threads,
                not arguments.no_torch,
            )
            print("\n".join(new), flush=True)
            lines += new
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
