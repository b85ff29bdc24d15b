"""Measure the losses of labels that hang together: CTC beside PyTorch's, the CRF beside NumPy's.

    python bench/heads.py [--rounds 15] [--markdown FILE]

One thread each, in processor time. A call is the loss and its gradient; of the CRF those of its
parameters, too. The numbers have to be equal first. Rounds go through all, so that a machine whose
speed changes favours nobody: the ratio of a row is the median of those within a round.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

import lstmcore as lc
from turns import in_turns

Call = Callable[[], list[Any]]  # returns the loss and gradients

# T, B, C, labels of a row, factor of the scores: of a net that knows nothing, and of one that does
CTC = [
    (200, 32, 40, 30, 1.0),
    (200, 32, 40, 30, 10.0),
    (1000, 8, 40, 150, 1.0),
    (50, 64, 500, 10, 1.0),
]
CRF = [(50, 32, 10), (50, 32, 40), (200, 8, 20)]  # T, B, C


def ctc_calls(time: int, batch: int, classes: int, labels: int, factor: float) -> dict[str, Call]:
    """Return a call of ours and one of PyTorch's."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    logits = (rng.standard_normal((time, batch, classes)) * factor).astype("float32")
    targets = rng.integers(1, classes, (batch, labels))
    theirs = torch.tensor(logits, requires_grad=True)
    ends, counts = torch.full((batch,), time), torch.full((batch,), labels)
    ids = torch.tensor(targets)

    def call() -> list[Any]:
        theirs.grad = None
        scores = theirs.log_softmax(-1)
        loss = torch.nn.functional.ctc_loss(scores, ids, ends, counts)
        loss.backward()
        return [loss.item(), theirs.grad]

    return {"lstmcore": lambda: list(lc.losses.ctc(logits, targets)), "PyTorch": call}


def log_sum(x: Any, axis: int) -> Any:
    """Return log(sum(exp(x)))."""
    highest = x.max(axis=axis, keepdims=True)
    return np.squeeze(highest, axis) + np.log(np.exp(x - highest).sum(axis=axis))


def numpy_crf(x: Any, target: Any, a: Any, start: Any, end: Any) -> list[Any]:
    """Return the loss and its gradients, as one writes them in NumPy: all rows at once."""
    time, batch, _ = x.shape
    alpha, beta = np.empty_like(x), np.empty_like(x)
    alpha[0], beta[-1] = start + x[0], end
    for t in range(1, time):
        alpha[t] = log_sum(alpha[t - 1][:, :, None] + a, 1) + x[t]
    for t in range(time - 2, -1, -1):
        beta[t] = log_sum(a + (x[t + 1] + beta[t + 1])[:, None, :], 2)
    total = log_sum(alpha[-1] + end, 1)
    dx = np.exp(alpha + beta - total[:, None]) / batch
    da = np.zeros_like(a)
    for t in range(time - 1):
        pair = alpha[t][:, :, None] + a + (x[t + 1] + beta[t + 1])[:, None, :]
        da += np.exp(pair - total[:, None, None]).sum(axis=0) / batch
    rows = np.arange(batch)
    own = start[target[0]] + end[target[-1]] + a[target[:-1], target[1:]].sum(axis=0)
    own += np.take_along_axis(x, target[..., None], 2)[..., 0].sum(axis=0)
    for t in range(time):
        dx[t, rows, target[t]] -= 1 / batch
    np.add.at(da, (target[:-1], target[1:]), -1 / batch)
    return [(total - own).mean(), dx, da, dx[0].sum(axis=0), dx[-1].sum(axis=0)]


def crf_calls(time: int, batch: int, classes: int) -> dict[str, Call]:
    """Return a call of ours and one of NumPy's."""
    rng = np.random.default_rng(0)
    crf = lc.CRF(classes, seed=0)
    scores = rng.standard_normal((time, batch, classes)).astype("float32")
    target = rng.integers(0, classes, (time, batch))
    parameters = [p.data.copy() for p in crf.parameters()]

    def call() -> list[Any]:
        crf.zero_grad()
        return [*crf.loss(scores, target), *(p.grad for p in crf.parameters())]

    return {"lstmcore": call, "NumPy": lambda: numpy_crf(scores, target, *parameters)}


def check(calls: dict[str, Call]) -> None:
    """See that both calls give the same."""
    first, second = (call() for call in calls.values())
    for ours, theirs in zip(first, second, strict=True):
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=2e-4, atol=2e-4)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    lc.set_num_threads(1)
    lines = [
        "| loss and gradient, ms | lstmcore | the other | the other / ours |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines))
    for name, make, cases in (("ctc", ctc_calls, CTC), ("crf", crf_calls, CRF)):
        for case in cases:
            calls = make(*case)
            check(calls)
            ours, theirs = in_turns(calls, arguments.rounds, threads=1).values()
            T, B, C, *more = case
            what = f"{name} T{T} B{B} C{C}" + (f" S{more[0]} x{more[1]:g}" if more else "")
            other = list(calls)[1]
            lines.append(
                f"| {what} | {np.median(ours) * 1e3:.2f} | {other} {np.median(theirs) * 1e3:.2f} "
                f"| {np.median(theirs / ours):.2f} |"
            )
            print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
