#!/usr/bin/env python3
"""Compare whole training loops with PyTorch's: data, forward, loss, backward, clipping, Adam.

    python bench/train.py --quick
    python bench/train.py --threads 1 2

Both libraries train the same models from the same numbers with the same batches, each in a process
of its own, in turns. Their losses of the first epoch are compared before anything is timed.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from contextlib import ExitStack
from pathlib import Path

from loops.tasks import TASKS
from peers import LABELS, OURS
from workers import WorkerProcess, environment

TORCH = "torch"
SCRIPT = Path(__file__).resolve().with_name("train_worker.py")
TOLERANCE = 1e-3  # of a loss after an epoch, during which rounding errors grow


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--filter", nargs="+", default=[""], metavar="TEXT", help="tasks with one")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--quick", action="store_true", help="three rounds")
    args = parser.parse_args()
    if args.quick:
        args.rounds = 3
    if min(args.threads) < 1 or args.rounds < 1:
        parser.error("--threads and --rounds must be positive")
    return args


def run(name: str, workers: dict[str, WorkerProcess], rounds: int) -> bool:
    """Check and time a task, and print its line; return whether the losses agree."""
    ours, theirs = (worker("prepare", name) for worker in workers.values())
    agree = abs(ours - theirs) <= TOLERANCE * abs(theirs)
    times: dict[str, list[float]] = {library: [] for library in workers}
    for i in range(rounds):
        order = list(workers)[:: -1 if i % 2 else 1]
        for library in order:
            times[library].append(workers[library]("time", name, 0.15))
    ratios = sorted(t / m for t, m in zip(times[TORCH], times[OURS], strict=True))
    milliseconds = (1e3 * statistics.median(t) for t in times.values())
    cells = (
        f"`{name}`",
        *(f"{ms:.3g}" for ms in milliseconds),
        f"{statistics.median(ratios):.2f}",
        f"{ratios[0]:.2f} to {ratios[-1]:.2f}",
    )
    print("|", " | ".join(cells), "|", flush=True)
    if not agree:
        print(f"{name}: the losses differ, {ours} and {theirs}", file=sys.stderr, flush=True)
    return agree


def main() -> int:
    """Run; return 1 if the losses of a task differ."""
    args = arguments()
    names = [name for name in TASKS if any(text in name for text in args.filter)]
    agree = True
    for threads in args.threads:
        env = environment(threads, None)
        with ExitStack() as stack:
            workers = {
                library: stack.enter_context(
                    WorkerProcess(library, str(threads), env, script=SCRIPT)
                )
                for library in (OURS, TORCH)
            }
            versions = (f"{LABELS[name]} {w.about['version']}" for name, w in workers.items())
            print(f"\n{', '.join(versions)}, {threads} thread{'s' * (threads > 1)}\n")
            print("| task | ours ms | PyTorch ms | PyTorch / ours | in the rounds |")
            print("| --- | ---: | ---: | ---: | ---: |", flush=True)
            for name in names:
                agree &= run(name, workers, args.rounds)
    return int(not agree)


if __name__ == "__main__":
    sys.exit(main())
