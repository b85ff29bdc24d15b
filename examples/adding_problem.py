"""The adding problem of 1997: remember two numbers for hundreds of steps, and add them.

    python examples/adding_problem.py                # T = 100
    python examples/adding_problem.py --length 500   # or 1000, for longer
    python examples/adding_problem.py --cells lstm-1997 --picture gates.png

Every step of a sequence has a random number and a marker. Two numbers are marked, one of the first
ten and one of the first half; at the end the answer is wanted: 0.5 + (X1 + X2) / 4, right if
within 0.04. The task and when it counts as solved are those of S. Hochreiter, J. Schmidhuber, "Long
short-term memory", Neural Computation 9, 1997, section 5.4. Their net, of 93 weights, had two
blocks of two cells, each block with its gates, and gates that heard the gates; the "lstm-1997" here
has four cells, each with gates of its own that hear the cells alone. They learned from one sequence
at a time by gradient descent; here it is 50 at a time, by Adam.
"""

from __future__ import annotations

import numpy as np
from long_lag import Drawn, Task, parser, run

import lstmcore as lc


def draw(rng: np.random.Generator, count: int, length: int) -> Drawn:
    """Draw sequences of `length` to 1.1 times as many steps."""
    lengths = rng.integers(length, length + length // 10, size=count, endpoint=True)
    rows, steps = np.arange(count), np.arange(lengths.max())
    x = np.zeros((len(steps), count, 2), dtype=np.float32)
    x[..., 0] = rng.uniform(-1, 1, size=x.shape[:2]) * (steps[:, None] < lengths)
    first = rng.integers(10, size=count)
    second = rng.integers(length // 2 - 2, size=count)  # of the first half but for one step,
    second += second >= first  # and never the same
    x[first, rows, 1] = x[second, rows, 1] = 1
    x[0, :, 1] = x[lengths - 1, rows, 1] = -1  # the ends; a number marked there counts as 0
    sums = sum(np.where(at == 0, 0, x[at, rows, 0]) for at in (first, second))
    target = (0.5 + sums / 4).astype(np.float32)
    return x, target[:, None], lengths


def adding_problem(length: int) -> Task:
    """Return the task for sequences of `length` to 1.1 times as many steps."""
    return Task(
        name=f"adding problem, T = {length}",
        draw=lambda rng, count: draw(rng, count, length),
        sizes=(2, 1),
        sigmoid=False,
        lag=length,
        tolerance=0.04,
        mean_tolerance=0.01,
    )


def picture(model: lc.Sequential, task: Task, path: str) -> None:
    """Draw the gates and cells of an LSTM as it reads one sequence, and where its markers are."""
    x, target, _ = task.draw(np.random.default_rng(1), 1)
    y, tape = model.forward(x)
    axes = lc.plot.gates(tape.tapes[0])
    for ax in axes:
        for step in np.flatnonzero(x[:, 0, 1] == 1):
            ax.axvline(step, color="black", linestyle=":")
    axes[0].figure.suptitle(
        f"The adding problem: answer {y.item():.3f}, right is {target.item():.3f}; "
        "dotted: the marked steps"
    )
    axes[0].figure.savefig(path)


if __name__ == "__main__":
    options = parser(__doc__.splitlines()[0], sequences=300_000)
    options.add_argument("--length", type=int, default=100, help="T, at least 20")
    options.add_argument("--picture", help="file for the gates of the first cell and seed")
    arguments = options.parse_args()
    if arguments.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    task = adding_problem(arguments.length)
    model = run(task, arguments)
    if arguments.picture:
        picture(model, task, arguments.picture)
