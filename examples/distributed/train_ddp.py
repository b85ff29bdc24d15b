"""Train one model by several processes, on one host or many, with PyTorch's DDP under torchrun.

    python examples/distributed/train_ddp.py
    torchrun --nproc-per-node 2 examples/distributed/train_ddp.py

The layer is lstmcore.torch.LSTM, which takes the place of torch.nn.LSTM; the data are those of
japanese_vowels.py. Every process computes the gradients of its share of each batch, and gloo
averages them, so that the model is that of one process within rounding. After each epoch the run
is saved: when a process dies, torchrun starts all again (--max-restarts), and they go on there.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc
from lstmcore.datasets import japanese_vowels

try:
    import torch
    import torch.distributed as dist
    from torch.nn.parallel import DistributedDataParallel
except ImportError as error:
    raise SystemExit('this needs PyTorch: pip install "lstmcore[torch]"') from error


class Classifier(torch.nn.Module):
    """A bidirectional LSTM, the mean of its outputs over time, a linear layer."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.lstm = lc.torch.LSTM(12, hidden, bidirectional=True)
        self.head = torch.nn.Linear(2 * hidden, 9)

    def forward(self, x: Any, lengths: Any) -> Any:
        """Return scores (B, 9) of sequences (T, B, 12), whose outputs are 0 past their ends."""
        y, _ = self.lstm(x, lengths=lengths)
        return self.head(y.sum(dim=0) / lengths[:, None])


class Run:
    """A model, its optimizer and how many epochs they have seen."""

    def __init__(self, hidden: int, path: Path | None) -> None:
        torch.manual_seed(0)
        self.model = Classifier(hidden)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.005)
        self.path, self.epoch = path, 0
        if path and path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch = state["epoch"]

    def save(self) -> None:
        """Save it, or leave the file as it was."""
        if self.path:
            state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
            new = self.path.with_suffix(".new")
            torch.save({**state, "epoch": self.epoch}, new)
            os.replace(new, self.path)
            print(f"epoch {self.epoch} is saved", flush=True)


def vowels() -> list[tuple[Any, Any, Any]]:
    """Return x, standardised by the training set, labels and lengths: to train and to test."""
    train_set, test = japanese_vowels()
    steps = train_set.x[np.arange(len(train_set.x))[:, None] < train_set.lengths]
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    return [
        tuple(map(torch.from_numpy, ((part.x - mean) / deviation, part.labels, part.lengths)))
        for part in (train_set, test)
    ]


def train(run: Run, epochs: int, batch_size: int, rank: int = 0, world: int = 1) -> float:
    """Train with every world-th row of each batch; return sequences per second, of all together."""
    x, labels, lengths = vowels()[0]
    model: Any = DistributedDataParallel(run.model) if world > 1 else run.model
    seen, start = 0, time.perf_counter()
    while run.epoch < epochs:
        order = np.random.default_rng(run.epoch).permutation(len(labels))
        # Batches that every process has the same share of: what is left waits for another epoch.
        whole = len(order) // batch_size * batch_size
        for batch in order[:whole].reshape(-1, batch_size):
            rows = torch.from_numpy(batch[rank::world])
            loss = torch.nn.functional.cross_entropy(model(x[:, rows], lengths[rows]), labels[rows])
            run.optimizer.zero_grad()
            loss.backward()
            run.optimizer.step()
            seen += batch_size
        run.epoch += 1
        if rank == 0:
            run.save()
    return seen / (time.perf_counter() - start)


def accuracy(model: Any) -> float:
    """Return the share of the test set that is right."""
    x, labels, lengths = vowels()[1]
    with torch.no_grad():
        scores = model(x, lengths)
    return float((scores.argmax(dim=1) == labels).double().mean())


def join(timeout: timedelta) -> None:
    """Meet the other processes that torchrun has started.

    After a restart torchrun's store still has the addresses of the processes that have ended. New
    ones that read those wait for nobody, so each start has keys of its own.
    """
    store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
    start = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    store = dist.PrefixStore(f"start_{start}", store)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=world, timeout=timeout)


def main() -> None:
    """Train as one of the processes that torchrun has started, or alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--batch", type=int, default=90, help="sequences, of all processes")
    parser.add_argument("--checkpoint", type=Path, help="file to save to, and to go on from")
    args = parser.parse_args()
    rank, world = (int(os.environ.get(name, d)) for name, d in (("RANK", 0), ("WORLD_SIZE", 1)))
    if args.batch % world:
        parser.error(f"--batch must be a multiple of {world}, the processes")
    lc.set_num_threads(1)  # of each process; with fewer processes than cores, more
    torch.set_num_threads(1)
    if world > 1:
        join(timedelta(seconds=60))
    run = Run(args.hidden, args.checkpoint)
    speed = train(run, args.epochs, args.batch, rank, world)
    if rank == 0:
        right = 100 * accuracy(run.model)
        print(f"{world} processes: {right:.1f} % right, {speed:.0f} sequences per second")
        if world > 1:
            alone = train(Run(args.hidden, None), 3, args.batch)
            print(f"one process: {alone:.0f} sequences per second")
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()
        # DistributedDataParallel keeps gloo's threads, and one that still frees a tensor while
        # Python ends aborts the process: https://github.com/pytorch/pytorch/issues/190489
        sys.stdout.flush()
        os._exit(0)


if __name__ == "__main__":
    main()
