"""What the long-lag tasks of 1997 share: models, and training on sequences drawn as needed.

The tasks are those of S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation
9, 1997, section 5: every sequence is new, and training ends when the last 2000 of them were right,
each of them before the model learned from it. `adding_problem.py` and `temporal_order.py` use this.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import lstmcore as lc

WINDOW = 2000  # so many sequences in a row must be right
TEST_SEQUENCES = 2560
# The cell of 1997: no forget gate; candidates are in [-2, 2], cells come out in [-1, 1].
CELL_1997 = {
    "forget_gate": False,
    "activations": ("sigmoid", ("scaled_tanh", 2, 0.5), ("scaled_tanh", 1, 0.5)),
}

# x (T, B, I), target (B, O), lengths (B,)
Drawn = tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]


class Task(NamedTuple):
    """What is to be learned."""

    name: str
    draw: Callable[
        [np.random.Generator, int], Drawn
    ]  # so many: x (T, B, I), target (B, O), lengths
    sizes: tuple[int, int]  # I, O
    sigmoid: bool  # whether outputs are from 0 to 1
    lag: int  # steps from what matters to the end
    tolerance: float  # a sequence is right if all outputs are as close as this
    mean_tolerance: float  # of the last sequences, before training ends


def lstm_1997(input_size: int, lag: int, seed: int) -> lc.LSTM:
    """Make a layer of the cell of 1997.

    As in the paper, the input gates start shut, each with a bias of its own, so that the cells
    take up different things one after the other.
    """
    layer = lc.LSTM(input_size, 4, **CELL_1997, seed=seed)
    bias = dict(layer.named_parameters())["bias_ih_l0"]  # the input gates' part comes first
    bias.data[:4] = [-1.5, -3, -4.5, -6]
    return layer


def lstm(input_size: int, lag: int, seed: int) -> lc.LSTM:
    """Make a layer of the modern cell, whose gates start with memories of 1 to `lag` steps.

    C. Tallec, Y. Ollivier, "Can recurrent neural networks warp time?", ICLR 2018, section 2.
    """
    layer = lc.LSTM(input_size, 8, seed=seed)
    memory = np.log(np.random.default_rng(seed).uniform(1, lag, 8))
    bias = dict(layer.named_parameters())["bias_ih_l0"]
    bias.data[:16] = np.concatenate([-memory, memory])  # input gates, forget gates
    return layer


def rnn(input_size: int, lag: int, seed: int) -> lc.RNN:
    """Make a layer of simple units, four times as many: to stand beside the others."""
    return lc.RNN(input_size, 16, seed=seed)


CELLS: dict[str, Callable[[int, int, int], lc.LSTM | lc.RNN]] = {
    "lstm-1997": lstm_1997,
    "lstm": lstm,
    "rnn": rnn,
}


class Result(NamedTuple):
    """How a training run ended."""

    solved: bool
    sequences: int  # used for training
    wrong: int  # of the test sequences
    seconds: float

    def __str__(self) -> str:
        how = "solved after" if self.solved else "not solved by"
        return (
            f"{how} {self.sequences} sequences, {self.wrong} of {TEST_SEQUENCES} wrong, "
            f"{self.seconds:.0f} s"
        )


def make_model(task: Task, cell: str, seed: int) -> lc.Sequential:
    """Make a recurrent layer and, on its last step, a linear one."""
    inputs, outputs = task.sizes
    layer = CELLS[cell](inputs, task.lag, seed)
    head = [lc.LastStep(), lc.Linear(layer.hidden_size, outputs, seed=seed + 1)]
    return lc.Sequential(layer, *head, *[lc.Sigmoid()] * task.sigmoid)


def train(
    model: lc.Sequential,
    task: Task,
    *,
    sequences: int,
    seed: int,
    lr: float = 0.02,
    batch_size: int = 50,
) -> Result:
    """Train until the last 2000 sequences are right and their mean error small, or to the end."""
    start = time.perf_counter()
    rng = np.random.default_rng(seed)
    optimizer = lc.optim.Adam(model.parameters(), lr=lr)
    errors = np.ones(WINDOW)  # of the last sequences, the largest of each
    seen, solved = 0, False
    while seen < sequences and not solved:
        x, target, lengths = task.draw(rng, batch_size)
        y, tape = model.forward(x, lengths=lengths)
        errors = np.append(errors[batch_size:], np.abs(y - target).max(axis=1))
        seen += batch_size
        solved = errors.max() < task.tolerance and errors.mean() < task.mean_tolerance
        _, dy = lc.losses.mse(y, target)
        optimizer.zero_grad()
        model.backward(tape, dy)
        lc.clip_grad_norm(optimizer.parameters, 1.0)
        optimizer.lr = lr * min(1.0, errors.mean() / task.tolerance)  # small steps at the end
        optimizer.step()
    x, target, lengths = task.draw(rng, TEST_SEQUENCES)
    wrong = np.abs(model(x, lengths=lengths) - target).max(axis=1) >= task.tolerance
    return Result(bool(solved), seen, int(wrong.sum()), time.perf_counter() - start)


def parser(description: str, *, sequences: int) -> argparse.ArgumentParser:
    """Return a parser of the options that the tasks share."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0])
    options.add_argument("--sequences", type=int, default=sequences, help="to train on at most")
    options.add_argument("--lr", type=float, default=0.02, help="learning rate at the beginning")
    options.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of products with matrices",
    )
    options.add_argument("--quick", action="store_true", help="few sequences, to see that it runs")
    return options


def run(task: Task, options: argparse.Namespace) -> lc.Sequential:
    """Train every cell from every seed, print a line for each, and return the first model."""
    models = []
    for cell in options.cells:
        for seed in options.seeds:
            models.append(make_model(task, cell, seed))
            models[-1].precision = options.precision
            sequences = 2000 if options.quick else options.sequences
            result = train(models[-1], task, sequences=sequences, seed=seed, lr=options.lr)
            weights = models[-1].num_parameters
            print(f"{task.name}, {cell}, {weights} weights, seed {seed}: {result}", flush=True)
    return models[0]
