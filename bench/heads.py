"""Measure what stands around recurrent layers: modules and CTC beside PyTorch's, a CRF in NumPy.

    python bench/heads.py [--rounds 15] [--markdown FILE]

One thread each, in processor time. A call is the loss and its gradient; of the CRF those of its
parameters, too. A call of an attention, of several heads, gives y and the weights; one of another
module y; in training, also the gradients of all arguments and parameters. The numbers have to be
equal first. Rounds go through all, so that a machine whose speed changes favours nobody: the ratio
of a row is the median of those within a round.
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
# T, S, B, features, heads, whether to train, whether PyTorch gives the weights, too, as ours does
ATTENTION = [
    (*shape, trains, True)
    for trains in (False, True)
    for shape in (
        (100, 100, 16, 128, 8),
        (100, 100, 16, 512, 8),
        (1000, 1000, 1, 128, 8),
        (1, 100, 16, 128, 8),
    )
] + [(100, 100, 16, 128, 8, trains, False) for trains in (False, True)]

# Modules without products: name, and whether to train; x is (50, 32, 128).
MODULES = [
    (name, trains)
    for name in ("LayerNorm", "BatchNorm", "Softmax", "ReLU", "SiLU", "GELU")
    for trains in (False, True)
]


def module_calls(name: str, trains: bool) -> dict[str, Call]:
    """Return a call of ours and one of PyTorch's."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((50, 32, 128)).astype("float32") for _ in range(2))
    size = (x.shape[-1],) if name.endswith("Norm") else ()
    options = {"dim": -1} if name == "Softmax" else {}
    ours: Any = getattr(lc, name)(*size)
    theirs = getattr(torch.nn, {"BatchNorm": "BatchNorm1d"}.get(name, name))(*size, **options)
    theirs.train(trains)

    def infer() -> list[Any]:
        return [ours(x)]

    def train() -> list[Any]:
        ours.zero_grad()
        y, tape = ours.forward(x)
        return [y, ours.backward(tape, dy), *(p.grad for p in ours.parameters())]

    # BatchNorm1d takes (rows, features), or the features before the steps.
    shape = (-1, x.shape[-1]) if name == "BatchNorm" else x.shape
    given = torch.from_numpy(x).view(shape).requires_grad_(trains)
    gradient = torch.from_numpy(dy).view(shape)

    def infer_theirs() -> list[Any]:
        with torch.inference_mode():
            return [theirs(given).view(x.shape)]

    def train_theirs() -> list[Any]:
        leaves = [given, *theirs.parameters()]
        for leaf in leaves:
            leaf.grad = None
        y = theirs(given)
        y.backward(gradient)
        arrays = [y.detach(), *(leaf.grad for leaf in leaves)]
        return [a.view(x.shape) if a.ndim > 1 else a for a in arrays]

    if trains:
        return {"lstmcore": train, "PyTorch": train_theirs}
    return {"lstmcore": infer, "PyTorch": infer_theirs}


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


def attention_calls(
    time: int, steps: int, batch: int, size: int, heads: int, trains: bool, weighs: bool
) -> dict[str, Call]:
    """Return a call of ours and one of PyTorch's; self-attention if there are as many keys."""
    import torch

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    ours = lc.attention.MultiHead(size, heads, seed=0)
    theirs = torch.nn.MultiheadAttention(size, heads)
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    query = rng.standard_normal((time, batch, size)).astype("float32")
    states = rng.standard_normal((steps, batch, size)).astype("float32")
    dy = rng.standard_normal(query.shape).astype("float32")
    if time == steps:
        states = query
    given = {id(x): torch.from_numpy(x).requires_grad_(trains) for x in (query, states)}
    tensors = [given[id(x)] for x in (query, states, states)]

    def infer() -> list[Any]:
        return list(ours(query, states, states))[: 1 + weighs]

    def infer_theirs() -> list[Any]:
        with torch.inference_mode():
            return list(theirs(*tensors, need_weights=weighs))[: 1 + weighs]

    def train() -> list[Any]:
        ours.zero_grad()
        for p in ours.parameters():
            p.data[:1] *= 1  # as an optimizer changes them: they are packed anew
        y, _, tape = ours.forward(query, states, states)
        dquery, dkey, dvalue = ours.backward(tape, dy)
        dkey = dkey + dvalue
        inputs = [dquery + dkey] if states is query else [dquery, dkey]
        return [y, *inputs, *(p.grad for p in ours.parameters())]

    def train_theirs() -> list[Any]:
        leaves = [*given.values(), *theirs.parameters()]
        for leaf in leaves:
            leaf.grad = None
        y, _ = theirs(*tensors, need_weights=weighs)
        y.backward(torch.from_numpy(dy))
        return [y.detach(), *(leaf.grad for leaf in leaves)]

    theirs.train(trains)
    if trains:
        return {"lstmcore": train, "PyTorch": train_theirs}
    return {"lstmcore": infer, "PyTorch": infer_theirs}


def check(calls: dict[str, Call]) -> None:
    """See that both calls give the same."""
    first, second = (call() for call in calls.values())
    for ours, theirs in zip(first, second, strict=True):
        near = 2e-4 * max(1.0, np.abs(ours).max())
        np.testing.assert_allclose(ours, np.asarray(theirs), rtol=2e-4, atol=near)


def name_of(kind: str, case: Any) -> str:
    """Return what a row of the table is called."""
    if kind == "attention":
        T, S, B, size, heads, trains, weighs = case
        what = f"attention T{T} S{S} B{B} features {size} heads {heads}"
        return what + " training" * trains + ", PyTorch's without weights" * (not weighs)
    if kind == "module":
        name, trains = case
        return f"{name} T50 B32 F128" + " training" * trains
    T, B, C, *more = case
    return f"{kind} T{T} B{B} C{C}" + (f" S{more[0]} x{more[1]:g}" if more else "")


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--markdown", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    lc.set_num_threads(1)
    lines = [
        "| ms | lstmcore | the other | the other / ours |",
        "|---|---|---|---|",
    ]
    print("\n".join(lines))
    kinds: list[tuple[str, Callable[..., dict[str, Call]], list[Any]]] = [
        ("module", module_calls, MODULES),
        ("attention", attention_calls, ATTENTION),
        ("ctc", ctc_calls, CTC),
        ("crf", crf_calls, CRF),
    ]
    for kind, make, cases in kinds:
        for case in cases:
            calls = make(*case)
            check(calls)
            ours, theirs = in_turns(calls, arguments.rounds, threads=1).values()
            other = list(calls)[1]
            lines.append(
                f"| {name_of(kind, case)} | {np.median(ours) * 1e3:.2f} "
                f"| {other} {np.median(theirs) * 1e3:.2f} | {np.median(theirs / ours):.2f} |"
            )
            print(lines[-1], flush=True)
    if arguments.markdown:
        arguments.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
