"""Measure layers in bfloat16 and int8, ours and those of the others, beside our float32.

    python bench/precision.py [--rounds 15] [--markdown FILE]

One thread, I = H; inference, and training in bfloat16. Each library works in a process of its own;
rounds go through all of them. Times are medians over the rounds, "float32 / int8" and "best / ours"
medians of ratios within a round. An error is the largest of y against our own float64. In int8 ONNX
Runtime is what `quantize_dynamic` makes of the model (LSTM alone), PyTorch what its
`quantize_dynamic` does. In bfloat16 PyTorch has all its numbers in it, and OpenVINO what it chooses
by itself: bfloat16 where the processor has instructions for it, else float32.

"int8 of the limit" is how near we come to the least time that the machine needs for the products:
multiply-adds by AVX512-VNNI in registers, or weights read from the caches where that takes longer,
both measured in every round. Gates and the rounding of rows are not counted in it.
"""

from __future__ import annotations

import argparse
import statistics
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc
from cases import Case
from peers import LABELS, OURS
from roofline import work
from worker import LIMITS
from workers import Failed, NotSupported, WorkerProcess, environment

SHAPES = [
    *(("infer", "lstm", 100, 1, h) for h in (64, 128, 256, 384, 512)),
    ("infer", "lstm", 50, 1, 1024),
    *(("infer", "gru", 100, 1, h) for h in (128, 256, 512)),
    *(("infer", "lstm", 100, 8, h) for h in (128, 256)),
    *(("infer", "lstm", 100, 32, h) for h in (128, 256)),
    ("infer", "lstm", 20, 32, 512),
    ("infer", "gru", 100, 32, 256),
    ("train", "lstm", 100, 32, 64),
    ("train", "lstm", 100, 32, 128),
    ("train", "lstm", 20, 32, 512),
    ("train", "gru", 100, 32, 128),
]
FLOAT32, BFLOAT16, INT8 = "float32", "bfloat16", "int8"
# What is measured: a library and a precision.
COLUMNS = (
    (OURS, FLOAT32), (OURS, BFLOAT16), ("torch", BFLOAT16), ("openvino", BFLOAT16),
    (OURS, INT8), ("onnxruntime", INT8), ("torch", INT8),
)  # fmt: skip
SLICE = 0.02  # seconds of a library in a round
LIMIT_SLICE = 0.004


def key_of(library: str, precision: str) -> str:
    """Name what is measured."""
    return f"{'ours' if library == OURS else LABELS[library]} {precision}"


class Row:
    """What is measured of one shape."""

    def __init__(
        self, shape: tuple[str, str, int, int, int], workers: dict[str, WorkerProcess]
    ) -> None:
        mode, cell, steps, batch, size = shape
        exact = Case("precision", mode, cell, steps, batch, size, size)
        training = "training " if mode == "train" else ""
        self.name = f"{training}{cell.upper()} T{steps} B{batch} H{size}"
        self.errors: dict[str, float] = {}
        self.ask: dict[str, Any] = {}
        ours = workers[OURS]
        _, _, truth = ours("prepare", "float64", replace(exact, dtype="float64"), None, SLICE)
        for library, precision in COLUMNS:
            if library not in workers or (mode == "train" and precision == INT8):
                continue
            key, worker = key_of(library, precision), workers[library]
            low = {} if precision == FLOAT32 else {precision: True}
            case = replace(exact, **low)
            try:
                _, _, outputs = worker("prepare", key, case, None, SLICE)
            except (NotSupported, Failed):
                continue
            self.errors[key] = float(np.abs(outputs["y"] - truth["y"]).max())
            self.ask[key] = lambda key=key, worker=worker: worker("time", key, SLICE)
        self.times: dict[str, list[float]] = {key: [] for key in self.ask}

        self.work = work(replace(exact, int8=True))
        self.limits: list[float] = []

    def run(self, rounds: int, limits: WorkerProcess | None) -> None:
        """Time all, in turn."""
        names = list(self.ask)
        for i in range(rounds):
            if limits is not None:
                read = limits("read", 1, self.work.resident, LIMIT_SLICE)
                least, _ = self.work.seconds(limits("int8", 1, LIMIT_SLICE), read)
                self.limits.append(least)
            first = i % len(names)
            for name in names[first:] + names[:first]:
                self.times[name].append(self.ask[name]())

    def cells(self) -> list[str]:
        """Return the row of the table."""

        def ratio(one: str, other: str) -> float:
            times = zip(self.times[one], self.times[other], strict=True)
            return statistics.median(a / b for a, b in times)

        def cell(key: str) -> str:
            if key not in self.times:
                return "-"
            time = statistics.median(self.times[key]) * 1e6
            return f"{time:.0f} ({self.errors[key]:.0e})"

        exact, *_ = keys = [key_of(*column) for column in COLUMNS]
        found = [cell(key) for key in keys]
        for precision in (BFLOAT16, INT8):
            mine = key_of(OURS, precision)
            peers = [k for k in self.times if k.endswith(precision) and k != mine]
            best = f"{min(ratio(peer, mine) for peer in peers):.2f}" if peers else "-"
            found += [f"{ratio(exact, mine):.2f}" if mine in self.times else "-", best]
        times = self.times.get(key_of(OURS, INT8), [])
        if times and self.limits:
            pairs = zip(self.limits, times, strict=True)
            found.append(f"{statistics.median(a / b for a, b in pairs):.0%}")
        else:
            found.append("-")
        return [self.name, *found]


def table(rounds: int, isa: str | None = None) -> list[str]:
    """Measure all, print the table line by line, and return its lines."""
    names = ["case", *(key_of(*column) for column in COLUMNS)]
    for precision in (BFLOAT16, INT8):
        names += [f"float32 / {precision}", f"best / ours, {precision}"]
    names.append("int8 of the limit")
    lines = ["| " + " | ".join(names) + " |", "|---" * len(names) + "|"]
    with ExitStack() as stack:
        env = environment(1, isa)
        workers = {}
        for name in (OURS, "onnxruntime", "openvino", "torch"):
            try:
                workers[name] = stack.enter_context(WorkerProcess(name, "1", env))
            except (NotSupported, Failed) as reason:
                print(f"{LABELS[name]} is left out: {reason}", flush=True)
        limits = None
        try:
            limits = stack.enter_context(WorkerProcess(LIMITS, isa or lc.isa(), env))
            limits("int8", 1, LIMIT_SLICE)
        except (NotSupported, Failed):
            print("The limit of int8 is left out: no compiler, or no AVX512-VNNI", flush=True)
            limits = None
        print("\n".join(lines), flush=True)
        for shape in SHAPES:
            row = Row(shape, workers)
            row.run(rounds, limits)
            lines.append("| " + " | ".join(row.cells()) + " |")
            print(lines[-1], flush=True)
            for worker in workers.values():
                worker("clear")
    return lines


def main() -> None:
    """Run, and print the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=Path, help="a file for the table")
    arguments = parser.parse_args()
    lines = table(arguments.rounds)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
