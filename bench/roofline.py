"""How fast a case could be at best, given what the machine can do."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cases import Case
from data import row_lengths

__all__ = ["Work", "work"]


@dataclass(frozen=True)
class Work:
    """What a call cannot avoid, in two phases.

    The products over all steps at once (of the input, of the weights' gradients) wait for nothing.
    The recurrence reads the weights of the hidden state anew in each step, because it needs the
    result of the step before; with few rows that takes longer than the multiply-adds. One phase
    comes after the other, so their limits add up. Activations are not counted.

    Attributes
    ----------
    parallel, recurrent : (float, float)
        Floating-point operations, two for a multiply-add, and bytes of weights to be read.
    resident : int
        Bytes of weights that are read over and over: what has to fit into a cache.
    scale : float
        How many times slower the multiply-adds of this dtype are than those of float32; of int8,
        whose rate is measured, 1.
    """

    parallel: tuple[float, float]
    recurrent: tuple[float, float]
    resident: int
    scale: float

    @property
    def flops(self) -> float:
        """Floating-point operations of both phases."""
        return self.parallel[0] + self.recurrent[0]

    def seconds(self, flops_per_second: float, bytes_per_second: float) -> tuple[float, str]:
        """Return the least time, and what sets most of it: "compute" or "memory"."""
        total = {"compute": 0.0, "memory": 0.0}
        for flops, size in (self.parallel, self.recurrent):
            compute = flops * self.scale / flops_per_second
            memory = size / bytes_per_second
            total["compute" if compute >= memory else "memory"] += max(compute, memory)
        return sum(total.values()), max(total, key=lambda bound: total[bound])


def work(case: Case) -> Work:
    """Return the work of a case."""
    lengths = row_lengths(case)
    rows, steps = int(lengths.sum()), int(lengths.max())
    size = 1 if case.int8 else np.dtype(case.dtype).itemsize
    hidden = case.gates * case.H * case.P + case.proj_size * case.H  # weights of one direction
    into = case.D * case.gates * case.H * sum(case.layer_inputs)  # of all layers
    all_hidden = case.D * case.L * hidden
    parallel = 2.0 * rows * into, float(size * into)
    recurrent = 2.0 * rows * all_hidden, float(size * all_hidden * steps)
    if case.mode == "train":  # backward does both once more, and makes the gradients
        parallel = 2 * parallel[0] + 2.0 * rows * (into + all_hidden), 2 * parallel[1]
        recurrent = 2 * recurrent[0], 2 * recurrent[1]
    # Layers and directions run in turn; a single step goes through all of them.
    resident = size * (hidden if steps > 1 else into + all_hidden)
    return Work(parallel, recurrent, resident, 1.0 if case.int8 else size / 4)
