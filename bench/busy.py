#!/usr/bin/env python3
"""Measure what several threads cost where other processes use the cores, ours and PyTorch's.

    python bench/busy.py --quick
    python bench/busy.py --markdown busy.md

Every case runs on one thread and on as many as there are cores, each in a process of its own, in
turns: alone, and beside processes that compute all the time, one for each core. Turns are short,
because what else a machine does changes within a second, and slows one turn down and not the next:
with turns of 0.5 s, ratios of the same build differ by a factor of two. The tables show the time on
several threads over the median on one, under the same load: in the median of all
calls, and at their 95th percentile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from cases import Case
from peers import LABELS, OURS
from workers import Failed, NotSupported, WorkerProcess, environment

TORCH = "torch"
CASES = [
    Case("busy", "train", "gru", 29, 30, 12, 16),
    Case("busy", "train", "lstm", 29, 30, 12, 32),
    Case("busy", "train", "lstm", 50, 32, 64, 64),
    Case("busy", "train", "lstm", 100, 1, 128, 128),
    Case("busy", "train", "lstm", 50, 32, 256, 256),
    Case("busy", "infer", "gru", 29, 30, 12, 16),
    Case("busy", "infer", "lstm", 50, 32, 64, 64),
    Case("busy", "infer", "lstm", 100, 1, 128, 128),
    Case("busy", "infer", "lstm", 100, 1, 512, 512),
    Case("busy", "infer", "lstm", 50, 32, 256, 256),
]


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    cores = len(os.sched_getaffinity(0))
    parser.add_argument(
        "--threads", type=int, default=cores, metavar="N", help="default %(default)s"
    )
    parser.add_argument("--others", type=int, default=cores, metavar="N", help="busy processes")
    parser.add_argument("--filter", nargs="+", default=[""], metavar="TEXT", help="cases with one")
    parser.add_argument("--peers", nargs="*", default=[TORCH], choices=[TORCH])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=0.05, help="of each turn")
    parser.add_argument("--quick", action="store_true", help="two short rounds")
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="write the tables here, too")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 2, 0.05
    if args.threads < 2 or args.rounds < 1 or args.others < 1:
        parser.error("--threads must be at least 2, --rounds and --others at least 1")
    return args


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Keep so many processes computing."""
    command = [sys.executable, "-c", "while True: pass"]
    processes = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(
    case: Case, workers: dict[tuple[str, int], WorkerProcess], args: argparse.Namespace
) -> dict[tuple[str, int], np.ndarray]:
    """Return the seconds of every call, by library and number of threads."""
    times: dict[tuple[str, int], list[float]] = {key: [] for key in workers}
    for i in range(args.rounds):
        order = list(workers)[:: -1 if i % 2 else 1]
        for key in order:
            times[key] += workers[key]("samples", case.name, args.seconds)
    return {key: np.array(seconds) for key, seconds in times.items()}


def cells(times: dict[tuple[str, int], np.ndarray], library: str, threads: int) -> list[str]:
    """Return the columns of a library: µs on one thread, ratios of several."""
    one, several = times[library, 1], times[library, threads]
    median = float(np.median(one))
    return [
        f"{1e6 * median:.0f}",
        f"{np.median(several) / median:.2f}",
        f"{np.percentile(several, 95) / median:.2f}",
        f"{np.percentile(one, 95) / median:.2f}",
    ]


def main() -> int:
    """Run all cases, alone and beside busy processes."""
    args = arguments()
    cases = [case for case in CASES if any(text in case.name for text in args.filter)]
    lines: list[str] = []

    def show(line: str) -> None:
        print(line, flush=True)
        lines.append(line)

    with contextlib.ExitStack() as stack:
        workers = {}
        for library in (OURS, *args.peers):
            for threads in (1, args.threads):
                try:
                    worker = WorkerProcess(library, str(threads), environment(threads, None))
                except NotSupported:
                    continue
                workers[library, threads] = stack.enter_context(worker)
        libraries = list(dict.fromkeys(library for library, _ in workers))
        for case in cases:
            for worker in workers.values():
                worker("prepare", case.name, case, None, 0.05)
        for others in (0, args.others):
            beside = f"beside {others} busy processes" if others else "nothing else running"
            show(f"\n{args.threads} threads, {beside}\n")
            heads = [
                f"{LABELS[library]} {head}"
                for library in libraries
                for head in ("1 thread, µs", f"{args.threads} threads / 1", "95 %", "1 thread 95 %")
            ]
            show("| case | " + " | ".join(heads) + " |")
            show("| --- |" + " ---: |" * len(heads))
            with busy(others):
                for case in cases:
                    try:
                        times = measure(case, workers, args)
                    except Failed as error:
                        print(f"{case.name}: {error}", file=sys.stderr)
                        return 1
                    row = [c for library in libraries for c in cells(times, library, args.threads)]
                    show(f"| `{case.name}` | " + " | ".join(row) + " |")
    if args.markdown:
        args.markdown.write_text("\n".join(lines).strip() + "\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
