"""Measure recurrent models that PyTorch exported, and ONNX Runtime.

    pip install . torch onnx onnxruntime
    python bench/graphs.py [--rounds 30] [--dynamo] [--markdown PATH]

A recurrent layer, a linear one and softmax. The states go in and come out, or begin with zeros.
Then models that are no chain, those of `graph_models.py`. Batch and steps are free in files of the
older exporter; the newer one, `--dynamo`, needs `onnxscript` and fixes the steps here, and writes
an RNN as nodes for each step.

Both run in this process, on one thread and in turns. What is counted is the time that the processor
spends on it, so that others on the machine matter little; the least of all rounds is printed.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import itertools
import os
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np
import onnxruntime
import torch

import lstmcore as lc
from graph_models import CASES, Case

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


def export_case(case: Case, given: tuple[Any, ...], dynamo: bool) -> bytes:
    """Return PyTorch's export of a model that is no chain."""
    file = io.BytesIO()
    torch.manual_seed(0)
    model, inputs = case.make().eval(), tuple(map(torch.tensor, given))
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        if dynamo:
            names = list(case.names)
            torch.onnx.export(model, inputs, input_names=names, dynamo=True, verbose=False).save(
                file
            )
        else:
            axes = {name: {0: "B", 1: "T"} for name, x in zip(case.names, given, strict=True)
                    if name in ("x", "ids") and case.steps != (1,)}  # fmt: skip
            torch.onnx.export(model, inputs, file, input_names=list(case.names), dynamic_axes=axes,
                              dynamo=False)  # fmt: skip
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
    rng = np.random.default_rng(0)
    shapes = [(1, steps, INPUTS)]
    states = (2 if kind == "LSTM" else 1) * form.states
    shapes += [(form.layers * (1 + form.bidirectional), 1, HIDDEN)] * states
    given = [rng.standard_normal(shape).astype("float32") for shape in shapes]
    return compare(file, given, steps, rounds)


def measure_case(case: Case, steps: int, rounds: int, dynamo: bool) -> tuple[float, float]:
    """Return the same of a model that is no chain."""
    given = case.inputs(steps, np.random.default_rng(0))
    return compare(export_case(case, given, dynamo), given, steps, rounds)


def compare(file: bytes, inputs: Sequence[Any], steps: int, rounds: int) -> tuple[float, float]:
    """Return the microseconds of a call with these inputs."""
    model = lc.from_onnx(file)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # of initializers that PyTorch has left over
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    given = dict(zip(names, inputs, strict=True))
    ours, theirs = lambda: model(*inputs), lambda: session.run(None, given)
    for _ in range(3):  # a graph is planned for shapes that come again
        found = ours()
        for a, b in zip(found if isinstance(found, tuple) else [found], theirs(), strict=True):
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
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="of models with this in the name"
    )
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="write the table there, too")
    arguments = parser.parse_args()
    lines = ["| model | T | ours µs | ONNX Runtime µs | ours / theirs |"]
    lines += ["| --- | ---: | ---: | ---: | ---: |"]
    print("\n".join(lines))
    rows: list[tuple[str, int, Callable[..., tuple[float, float]]]] = [
        (f"{kind}, {form}", steps, functools.partial(measure, kind, form))
        for kind, form, steps in itertools.product(KINDS, FORMS, STEPS)
    ]
    rows += [
        (c.name, steps, functools.partial(measure_case, c)) for c in CASES for steps in c.steps
    ]
    for name, steps, run in rows:
        if arguments.only in name:
            ours, theirs = run(steps, arguments.rounds, arguments.dynamo)
            times = f"{ours:.1f} | {theirs:.1f} | {ours / theirs:.2f}"
            lines.append(f"| {name} | {steps} | {times} |")
            print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
