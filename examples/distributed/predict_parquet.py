"""Run a model over a folder of Parquet files, with Dask, on one host or many.

    python examples/distributed/predict_parquet.py --make folder             # files to try it with
    python examples/distributed/predict_parquet.py folder results            # two processes here
    python examples/distributed/predict_parquet.py folder results --scheduler tcp://host0:8786

Each row of a file is a sequence: an id, and its steps as a list. A file is a task: read, computed,
and written to a file of its name, which appears whole or not at all. When a worker dies, Dask gives
its files to others; files that are there already are not computed again, so a run that was stopped
goes on where it was. Sequences of about the same length are computed together.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import numpy as np

import lstmcore as lc

try:
    import pyarrow
    import pyarrow.parquet
    from dask.distributed import Client, LocalCluster, as_completed
except ImportError as error:
    raise SystemExit("this needs Dask: pip install distributed pyarrow") from error

FEATURES, CLASSES = 12, 9


def make(folder: Path, files: int, rows: int) -> None:
    """Write files of random sequences, and a model, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for number in range(files):
        lengths = rng.integers(20, 200, rows)
        ids = pyarrow.array(number * rows + np.arange(rows))
        values = pyarrow.array(rng.standard_normal(lengths.sum() * FEATURES, dtype="float32"))
        steps = pyarrow.ListArray.from_arrays(np.append(0, lengths.cumsum()) * FEATURES, values)
        table = pyarrow.table({"id": ids, "steps": steps})
        pyarrow.parquet.write_table(table, folder / f"part-{number:05}.parquet")
    model = lc.Sequential(
        lc.LSTM(FEATURES, 64, bidirectional=True, seed=0),
        lc.MeanPool(),
        lc.Linear(128, CLASSES, seed=1),
    )
    lc.save(model, folder / "model.safetensors")


def predict(source: Path, target: Path, model: Path) -> int:
    """Compute one file, if its results are not there; return how many sequences it has."""
    table = pyarrow.parquet.read_table(source)
    if target.exists():
        return len(table)
    steps = table["steps"].combine_chunks()
    values = steps.values.to_numpy().reshape(-1, FEATURES)
    ends = steps.offsets.to_numpy() // FEATURES
    sequences = [values[begin:end] for begin, end in pairwise(ends)]
    network = lc.load(model)
    scores = np.empty((len(sequences), CLASSES), np.float32)
    rows = np.arange(len(sequences))
    for x, row, lengths in lc.data.Buckets(sequences, rows, batch_size=64, shuffle=False):
        scores[row] = network(x, lengths=lengths)
    results = table.select(["id"]).append_column("class", pyarrow.array(scores.argmax(axis=1)))
    new = target.with_suffix(f".{os.getpid()}.new")
    pyarrow.parquet.write_table(results, new)
    os.replace(new, target)
    return len(table)


def run(client: Client, folder: Path, results: Path) -> Iterable[int]:
    """Compute all files of a folder; yield how many sequences each has, as it is done."""
    results.mkdir(parents=True, exist_ok=True)
    for old in results.glob("*.new"):  # of workers that died
        old.unlink()
    model = folder / "model.safetensors"
    tasks = [
        client.submit(predict, file, results / file.name, model, retries=3, pure=False)
        for file in sorted(folder.glob("*.parquet"))
    ]
    for task in as_completed(tasks):
        yield task.result()


def main() -> None:
    """Compute, and compare with one process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="with Parquet files and model.safetensors")
    parser.add_argument("results", type=Path, nargs="?", help="folder to write to")
    parser.add_argument("--make", action="store_true", help="write files into the folder first")
    parser.add_argument("--files", type=int, default=24, help="that --make writes")
    parser.add_argument("--rows", type=int, default=400, help="of each of them")
    parser.add_argument("--workers", type=int, default=2, help="processes on this host")
    parser.add_argument("--scheduler", help="of a Dask cluster; its hosts must see the folders")
    args = parser.parse_args()
    if args.make:
        make(args.folder, args.files, args.rows)
        print(f"{args.files} files of {args.rows} sequences in {args.folder}")
    if args.results is None:
        if not args.make:
            parser.error("expected a folder for the results")
        return
    cluster = None
    if not args.scheduler:
        cluster = LocalCluster(args.workers, threads_per_worker=1, dashboard_address=None)
    with Client(args.scheduler or cluster) as client:
        client.run(lc.set_num_threads, 1)  # the workers share the cores
        start = time.perf_counter()
        done = sum(run(client, args.folder, args.results))
        speed = done / (time.perf_counter() - start)
        workers = len(client.scheduler_info()["workers"])
        print(f"{workers} workers: {done} sequences, {speed:.0f} per second")
    if cluster:
        cluster.close()

    lc.set_num_threads(1)
    first = min(args.folder.glob("*.parquet"))
    alone = args.results / "one_process"
    start = time.perf_counter()
    done = predict(first, alone, args.folder / "model.safetensors")
    print(f"one process: {done / (time.perf_counter() - start):.0f} per second")
    alone.unlink()


if __name__ == "__main__":
    main()
