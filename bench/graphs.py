"""Measure recurrent models that PyTorch exported, whose states go in and out, and ONNX Runtime.

    pip install . torch onnx onnxruntime
    python bench/graphs.py [--rounds 30] [--markdown PATH]

Both run in this process, on one thread and in turns. What is counted is the time that the processor
spends on it, so that others on the machine matter little; the least of all rounds is printed.
"""

from __future__ import annotations

import argparse
import io
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import onnxruntime
import torch

import lstmcore as lc

KINDS, LAYERS, STEPS = ("LSTM", "GRU"), (1, 2), (1, 100)
INPUTS, HIDDEN = 40, 64


class Tagger(torch.nn.Module):
    """A recurrent layer and a linear one; the states go in and come out."""

    def __init__(self, kind: str, layers: int) -> None:
        super().__init__()
        self.rnn = getattr(torch.nn, kind)(INPUTS, HIDDEN, layers, batch_first=True)
        self.head = torch.nn.Linear(HIDDEN, 10)

    def forward(self, x: Any, *state: Any) -> Any:
        """Return the scores and the states."""
        y, state = self.rnn(x, state if len(state) == 2 else state[0])
        return (self.head(y), *(state if isinstance(state, tuple) else (state,)))


def export(kind: str, layers: int) -> bytes:
    """Return PyTorch's export; batch and steps are free."""
    states = 2 if kind == "LSTM" else 1
    inputs = (torch.zeros(2, 5, INPUTS), *[torch.zeros(layers, 2, HIDDEN)] * states)
    into, out = ["x", "h0", "c0"][: 1 + states], ["y", "hn", "cn"][: 1 + states]
    axes = {"x": {0: "B", 1: "T"}, "y": {0: "B", 1: "T"}}
    axes |= {name: {1: "B"} for name in into[1:] + out[1:]}
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        torch.onnx.export(
            Tagger(kind, layers).eval(),
            inputs,
            file,
            input_names=into,
            output_names=out,
            dynamic_axes=axes,
            dynamo=False,
        )
    return file.getvalue()


def microseconds(run: Callable[[], Any], calls: int) -> float:
    """Return what a call costs the processor."""
    begin = time.process_time()
    for _ in range(calls):
        run()
    return 1e6 * (time.process_time() - begin) / calls


def measure(kind: str, layers: int, steps: int, rounds: int) -> tuple[float, float]:
    """Return the microseconds of a call, ours and ONNX Runtime's."""
    file = export(kind, layers)
    graph = lc.from_onnx(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((1, steps, INPUTS)).astype("float32")}
    for value in session.get_inputs()[1:]:
        given[value.name] = rng.standard_normal((layers, 1, HIDDEN)).astype("float32")
    ours, theirs = lambda: graph(*given.values()), lambda: session.run(None, given)
    for a, b in zip(ours(), theirs(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    calls = 300 if steps == 1 else 30
    times = [(microseconds(ours, calls), microseconds(theirs, calls)) for _ in range(rounds)]
    least = np.min(times, axis=0)
    return float(least[0]), float(least[1])


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description="Graphs with states, beside ONNX Runtime.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there, too")
    arguments = parser.parse_args()
    lines = ["| model | T | ours µs | ONNX Runtime µs | ours / theirs |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    print("\n".join(lines))
    for kind in KINDS:
        for layers in LAYERS:
            for steps in STEPS:
                ours, theirs = measure(kind, layers, steps, arguments.rounds)
                row = f"| {kind}, {layers} {'layer' if layers == 1 else 'layers'} | {steps}"
                lines.append(f"{row} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")
                print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
