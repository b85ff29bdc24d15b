"""The benchmark: how fast a few layers are on this machine, beside PyTorch if it is installed.

``python -m lstmcore bench`` takes some seconds. It is for a first look: both libraries take turns
in one process, so that on several threads, or a busy machine, one can disturb the other.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from .._base import machine
from .._nn.layers import GRU, LSTM
from . import busy

__all__ = ["Row", "main"]

KINDS = (LSTM, GRU)
BATCH_SIZES = (1, 32)
HIDDEN_SIZES = (64, 256)
STEPS = 64
ROUNDS = 3  # in which both libraries take turns


class Row(NamedTuple):
    """One case, and what was measured.

    Attributes
    ----------
    layer : str
        "LSTM" or "GRU", of one layer, with as many inputs as hidden units.
    batch_size, hidden_size, threads : int
    training : bool
        Whether a call is forward and backward, for all gradients and dx; else it is inference.
    seconds : float
        Time of a call over 64 time steps, the shortest of all.
    gflops : float
        10^9 operations per second of the matrix products alone.
    torch_seconds : float or None
        What PyTorch takes; None if it is not installed.
    """

    layer: str
    batch_size: int
    hidden_size: int
    threads: int
    training: bool
    seconds: float
    gflops: float
    torch_seconds: float | None


def main(seconds: float = 0.15, *, show: Callable[[str], object] = print) -> list[Row]:
    """Measure all cases, on one thread and on all that are set, and show a table.

    Parameters
    ----------
    seconds : float, default 0.15
        For each case and library.
    show : callable, default print
        Takes each line of text.

    Returns
    -------
    list of Row
    """
    torch = _torch()
    for line in busy.hint():
        show(line)
    beside = "" if torch is None else f", PyTorch {torch.__version__}"
    show(f"lstmcore {machine.info()['lstmcore'].split()[0]}, {machine.isa()}{beside}")
    show(f"float32, {STEPS} time steps, as many inputs as hidden units; shortest call of all\n")
    heading = "layer   B    H threads  call             time  GFLOP/s"
    show(heading + ("" if torch is None else f" {'PyTorch':>12}"))
    before = machine.get_num_threads(), torch and torch.get_num_threads()
    rows = []
    try:
        for threads in sorted({1, before[0]}):
            machine.set_num_threads(threads)
            if torch is not None:
                torch.set_num_threads(threads)
            for case in itertools.product(KINDS, BATCH_SIZES, HIDDEN_SIZES, (False, True)):
                rows.append(_measure(*case, threads, seconds, torch))
                show(_line(rows[-1]))
    finally:
        machine.set_num_threads(before[0])
        if torch is not None:
            torch.set_num_threads(before[1])
    return rows


def _torch() -> Any:
    """Return PyTorch; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    return torch


def _measure(
    kind: type[LSTM] | type[GRU],
    batch_size: int,
    hidden_size: int,
    training: bool,
    threads: int,
    seconds: float,
    torch: Any,
) -> Row:
    layer: Any = kind(hidden_size, hidden_size, seed=0)
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, STEPS, batch_size, hidden_size)).astype("float32")

    def train() -> None:
        layer.zero_grad()
        _, _, tape = layer.forward(x)
        layer.backward(tape, dy)

    calls = [train if training else lambda: layer(x)]
    if torch is not None:
        calls.append(_torch_call(torch, layer, x, dy, training))
    times: list[list[float]] = [[] for _ in calls]
    late = time.perf_counter() + 2 * seconds * len(calls)
    for i in range(ROUNDS):
        if i and time.perf_counter() > late:  # calls are slow, perhaps as the machine is busy
            break
        for call, found in zip(calls, times, strict=True):
            found += _times(call, seconds / ROUNDS)
    ours, *theirs = map(min, times)
    weights = sum(p.size for p in layer.parameters() if p.name.startswith("weight"))
    products = 3 if training else 1  # y, dx, and the gradient of the weights
    return Row(
        kind.__name__,
        batch_size,
        hidden_size,
        threads,
        training,
        ours,
        2e-9 * products * STEPS * batch_size * weights / ours,
        theirs[0] if theirs else None,
    )


def _torch_call(torch: Any, layer: Any, x: Any, dy: Any, training: bool) -> Callable[[], object]:
    """Return the same call of the same layer in PyTorch."""
    theirs = getattr(torch.nn, type(layer).__name__)(layer.input_size, layer.hidden_size)
    theirs.load_state_dict({n: torch.tensor(w) for n, w in layer.state_dict().items()})
    x, dy = torch.tensor(x, requires_grad=training), torch.tensor(dy)

    def train() -> None:
        theirs.zero_grad(set_to_none=False)
        x.grad = None
        theirs(x)[0].backward(dy)

    def run() -> None:
        with torch.inference_mode():
            theirs(x)

    return train if training else run


def _times(call: Callable[[], object], seconds: float) -> list[float]:
    """Return the time of each call that fits into so many seconds, after one to warm up."""
    call()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return times


def _line(row: Row) -> str:
    call = "training" if row.training else "forward"
    line = (
        f"{row.layer:5} {row.batch_size:3} {row.hidden_size:4} {row.threads:7}  {call:8} "
        f"{row.seconds * 1e3:9.3f} ms {row.gflops:8.1f}"
    )
    return line if row.torch_seconds is None else f"{line} {row.torch_seconds * 1e3:9.3f} ms"
