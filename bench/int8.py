"""Measure layers with int8 weights: ours, ONNX Runtime's and PyTorch's, beside our float32.

    python bench/int8.py [--rounds 15] [--markdown FILE]

One thread, inference, I = H. Each library works in a process of its own; rounds go through all of
them. Times are medians over the rounds, "float32 / int8" and "best / ours" medians of ratios within
a round. An error is the largest of y against our own float64. ONNX Runtime is what
`quantize_dynamic` makes of the model (LSTM alone), PyTorch what its `quantize_dynamic` does.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cases import Case
from peers import LABELS, OURS
from workers import Failed, NotSupported, WorkerProcess, environment

SHAPES = [
    *(("lstm", 100, 1, h) for h in (64, 128, 256, 384, 512)),
    ("lstm", 50, 1, 1024),
    *(("gru", 100, 1, h) for h in (128, 256, 512)),
    *(("lstm", 100, 8, h) for h in (128, 256)),
    *(("lstm", 100, 32, h) for h in (128, 256)),
    ("lstm", 20, 32, 512),
    ("gru", 100, 32, 256),
]
PEERS = ("onnxruntime", "torch")
FLOAT32 = "float32"  # the key of our own float32
SLICE = 0.02  # seconds of a library in a round


class Row:
    """What is measured of one shape."""

    def __init__(self, shape: tuple[str, int, int, int], workers: dict[str, WorkerProcess]) -> None:
        cell, steps, batch, size = shape
        exact = Case("int8", "infer", cell, steps, batch, size, size)
        self.name = f"{cell.upper()} T{steps} B{batch} H{size}"
        self.errors: dict[str, float] = {}
        self.ask: dict[str, Any] = {}
        ours = workers[OURS]
        _, _, truth = ours("prepare", "float64", replace(exact, dtype="float64"), None, SLICE)
        wanted = [(FLOAT32, ours, exact)]
        wanted += [(name, worker, replace(exact, int8=True)) for name, worker in workers.items()]
        for key, worker, case in wanted:
            try:
                _, _, outputs = worker("prepare", key, case, None, SLICE)
            except (NotSupported, Failed):
                continue
            self.errors[key] = float(np.abs(outputs["y"] - truth["y"]).max())
            self.ask[key] = lambda key=key, worker=worker: worker("time", key, SLICE)
        self.times: dict[str, list[float]] = {key: [] for key in self.ask}

    def run(self, rounds: int) -> None:
        """Time all, in turn."""
        names = list(self.ask)
        for i in range(rounds):
            first = i % len(names)
            for name in names[first:] + names[:first]:
                self.times[name].append(self.ask[name]())

    def cells(self) -> list[str]:
        """Return the row of the table."""
        mine = self.times[OURS]

        def ratio(times: list[float]) -> float:
            return statistics.median(t / m for t, m in zip(times, mine))

        def cell(key: str) -> str:
            if key not in self.times:
                return "-"
            time = statistics.median(self.times[key]) * 1e6
            return f"{time:.0f} ({self.errors[key]:.0e})"

        peers = [ratio(self.times[key]) for key in PEERS if key in self.times]
        best = f"{min(peers):.2f}" if peers else "-"
        found = [cell(key) for key in (FLOAT32, OURS, *PEERS)]
        return [self.name, *found, f"{ratio(self.times[FLOAT32]):.2f}", best]


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    names = ["case", "ours float32", "ours", *(LABELS[p] for p in PEERS)]
    names += ["float32 / int8", "best / ours"]
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    with ExitStack() as stack:
        env = environment(1, None)
        workers = {}
        for name in (OURS, *PEERS):
            try:
                workers[name] = stack.enter_context(WorkerProcess(name, "1", env))
            except (NotSupported, Failed) as reason:
                print(f"{LABELS[name]} is left out: {reason}", flush=True)
        print("\n".join(lines), flush=True)
        for shape in SHAPES:
            row = Row(shape, workers)
            row.run(arguments.rounds)
            lines.append("| " + " | ".join(row.cells()) + " |")
            print(lines[-1], flush=True)
            for worker in workers.values():
                worker("clear")
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
