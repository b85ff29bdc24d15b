"""Measure a step of a pool of streams, beside a stream with as many rows.

    python bench/pool.py [--streams 1000] [--seconds 2] [--markdown FILE]

One thread, I = H, from Python, with an array for the output. The stream has a batch, whose rows
always step together; of the pool all streams step, in any order, or half of them. Lone streams are
stepped one after the other, in a loop of Python. Rounds go through all ways, so that a machine
whose speed changes favours none; a cell is the median over the rounds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

import lstmcore as lc

SIZES = (16, 32, 64, 128, 256)
WAYS = ("lone streams", "batched stream", "pool, all", "pool, half")


def ways(layer: lc.LSTM | lc.GRU, x: np.ndarray) -> list[Callable[[], object]]:
    """Return what to measure, having compared the outputs."""
    n = len(x)
    rng = np.random.default_rng(0)
    lone, batched = [layer.stream() for _ in range(n)], layer.stream(n)
    pool = layer.stream_pool(n)
    ids = rng.permutation([pool.open() for _ in range(n)])
    some = np.sort(rng.permutation(n)[: n // 2])
    half, x_of_half = ids[some].copy(), x[some].copy()
    y, y_of_half = np.empty_like(x), np.empty_like(x_of_half)
    rows = [(stream.step, x[i], y[i]) for i, stream in enumerate(lone)]

    def loop() -> None:
        for step, x_of_one, out in rows:
            step(x_of_one, out)

    if not np.array_equal(batched.step(x), pool.step(ids, x)):
        raise SystemExit("the outputs differ")
    return [
        loop,
        lambda: batched.step(x, y),
        lambda: pool.step(ids, x, y),
        lambda: pool.step(half, x_of_half, y_of_half),
    ]


def measure(kind: str, size: int, streams: int, seconds: float) -> str:
    """Return a row of the table: microseconds per stream there is, and the ratios."""
    layer = getattr(lc, kind)(size, size, seed=0)
    x = np.random.default_rng(0).standard_normal((streams, size)).astype("float32")
    rounds: list[list[float]] = []
    all_ways = ways(layer, x)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(rounds) < 3:
        times = []
        for way in all_ways:
            begin = time.perf_counter()
            way()
            times.append(time.perf_counter() - begin)
        rounds.append(times)
    found = np.array(rounds)
    each = np.median(found, axis=0) / streams * 1e6
    ratios = np.median(found[:, 2:] / found[:, 1:2], axis=0)
    cells = [f"{kind} {size}", *(f"{value:.3g}" for value in each)]
    return "| " + " | ".join([*cells, *(f"{value:.2f}" for value in ratios)]) + " |"


def main() -> None:
    """Print the table, and write it."""
    parser = argparse.ArgumentParser(description="Measure pools of streams.")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=2, help="for each row")
    parser.add_argument("--markdown", metavar="FILE", help="write the table there, too")
    arguments = parser.parse_args()

    heads = ["us per stream", *WAYS, "all / batched", "half / batched"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" + " ---: |" * (len(heads) - 1)]
    print(*lines, sep="\n", flush=True)
    for kind in ("LSTM", "GRU"):
        for size in SIZES:
            lines.append(measure(kind, size, arguments.streams, arguments.seconds))
            print(lines[-1], flush=True)
    if arguments.markdown:
        with open(arguments.markdown, "w") as file:
            file.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
