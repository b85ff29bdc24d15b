"""Measure recurrent models that PyTorch exported, and ONNX Runtime.

    pip install . torch onnx onnxruntime
    python bench/graphs.py [--rounds 30] [--dynamo] [--markdown PATH]

A recurrent layer, a linear one and softmax. The states go in and come out, or begin with zeros.
Batch and steps are free in files of the older exporter; the newer one, `--dynamo`, needs
`onnxscript` and fixes the steps here, and writes an RNN as nodes for each step.

Both run in this process, on one thread and in turns. What is counted is the time that the processor
spends on it, so that others on the machine matter little; the least of all rounds is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import os
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import onnxruntime
import torch

import lstmcore as lc

KINDS, STEPS = ("LSTM", "GRU", "RNN"), (1, 100)
INPUTS, HIDDEN = 40, 64


class Form(NamedTuple):
    """What a model looks like, beside its kind."""

    layers: int = 1
    bidirectional: bool = False
    states: bool = True  # whether they go in and come out

    def __str__(self) -> str:
        layers = f"{self.layers} {'layer' if self.layers == 1 else 'layers'}"
        return layers + ", bidirectional" * self.bidirectional + ", states" * self.states


FORMS = [Form(n, two, states) for states in (True, False) for n in (1, 2) for two in (False, True)]


class Tagger(torch.nn.Module):
    """A recurrent layer, a linear one, softmax."""

    def __init__(self, kind: str, form: Form) -> None:
        super().__init__()
        options = {"batch_first": True, "bidirectional": form.bidirectional}
        self.rnn = getattr(torch.nn, kind)(INPUTS, HIDDEN, form.layers, **options)
        self.head = torch.nn.Linear(HIDDEN * (1 + form.bidirectional), 10)

    def forward(self, x: Any, *state: Any) -> Any:
        """Return the scores, and the states if some are given."""
        given = state if len(state) != 1 else state[0]
        y, final = self.rnn(x, given) if state else self.rnn(x)
        scores = torch.softmax(self.head(y), -1)
        if not state:
            return scores
        return (scores, *(final if isinstance(final, tuple) else (final,)))


def export(kind: str, form: Form, steps: int | None) -> bytes:
    """Return PyTorch's export; by the newer exporter if steps are given, else they are free."""
    count = (2 if kind == "LSTM" else 1) * form.states
    states = [torch.zeros(form.layers * (1 + form.bidirectional), 2, HIDDEN)] * count
    into, out = ["x", "h0", "c0"][: 1 + count], ["y", "hn", "cn"][: 1 + count]
    file = io.BytesIO()
    torch.manual_seed(0)
    model = Tagger(kind, form).eval()
    names = {"input_names": into, "output_names": out}
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if steps is None:
            axes = {"x": {0: "B", 1: "T"}, "y": {0: "B", 1: "T"}}
            axes |= {name: {1: "B"} for name in into[1:] + out[1:]}
            inputs = (torch.zeros(2, 5, INPUTS), *states)
            torch.onnx.export(model, inputs, file, **names, dynamic_axes=axes, dynamo=False)
        else:
            inputs = (torch.zeros(2, steps, INPUTS), *states)
            batch = torch.export.Dim("B")
            shapes = ({0: batch}, *[tuple({1: batch} for _ in states)] * form.states)
            program = torch.onnx.export(
                model, inputs, **names, dynamic_shapes=shapes, dynamo=True, verbose=False
            )
            program.save(file)
    return file.getvalue()


def microseconds(run: Callable[[], Any], calls: int) -> float:
    """Return what a call costs the processor."""
    begin = time.process_time()
    for _ in range(calls):
        run()
    return 1e6 * (time.process_time() - begin) / calls


def measure(kind: str, form: Form, steps: int, rounds: int, dynamo: bool) -> tuple[float, float]:
    """Return the microseconds of a call, ours and ONNX Runtime's."""
    file = export(kind, form, steps if dynamo else None)
    model = lc.from_onnx(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(0)
    given = {"x": rng.standard_normal((1, steps, INPUTS)).astype("float32")}
    rows = form.layers * (1 + form.bidirectional)
    for value in session.get_inputs()[1:]:
        given[value.name] = rng.standard_normal((rows, 1, HIDDEN)).astype("float32")
    ours, theirs = lambda: model(*given.values()), lambda: session.run(None, given)
    found = ours()
    for a, b in zip(found if form.states else [found], theirs(), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
    calls = 300 if steps == 1 else 30
    times = [(microseconds(ours, calls), microseconds(theirs, calls)) for _ in range(rounds)]
    least = np.min(times, axis=0)
    return float(least[0]), float(least[1])


def main() -> None:
    """Measure all, and print a table."""
    parser = argparse.ArgumentParser(description="Exports of PyTorch, beside ONNX Runtime.")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--dynamo", action="store_true", help="by PyTorch's newer exporter")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there, too")
    arguments = parser.parse_args()
    lines = ["| model | T | ours µs | ONNX Runtime µs | ours / theirs |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    print("\n".join(lines))
    for kind, form, steps in itertools.product(KINDS, FORMS, STEPS):
        ours, theirs = measure(kind, form, steps, arguments.rounds, arguments.dynamo)
        row = f"| {kind}, {form} | {steps}"
        lines.append(f"{row} | {ours:.1f} | {theirs:.1f} | {ours / theirs:.2f} |")
        print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
