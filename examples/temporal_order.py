"""Temporal order, task 6a of 1997: tell what came first among a hundred others.

    python examples/temporal_order.py

A sequence of 100 to 110 symbols begins with E, ends with B, and is noise from a, b, c and d, but
for X or Y at two places: one of steps 10 to 20, one of steps 50 to 60. Which of XX, XY, YX and YY
it was is wanted at the end, as one of four outputs: right if all of them are within 0.3. The task
and when it counts as solved are those of S. Hochreiter, J. Schmidhuber, "Long short-term memory",
Neural Computation 9, 1997, section 5.6; how the nets here differ from theirs, which had 156
weights, `adding_problem.py` says.
"""

from __future__ import annotations

import numpy as np
from long_lag import Drawn, Task, parser, run

SYMBOLS = "EBabcdXY"


def draw(rng: np.random.Generator, count: int) -> Drawn:
    """Draw sequences, their symbols as one-hot vectors."""
    lengths = rng.integers(100, 110, size=count, endpoint=True)
    rows = np.arange(count)
    symbols = rng.integers(2, 6, size=(lengths.max(), count))
    symbols[0], symbols[lengths - 1, rows] = 0, 1
    which = rng.integers(2, size=(2, count))  # X or Y
    symbols[rng.integers(10, 20, size=count, endpoint=True), rows] = 6 + which[0]
    symbols[rng.integers(50, 60, size=count, endpoint=True), rows] = 6 + which[1]
    x = np.eye(len(SYMBOLS), dtype=np.float32)[symbols]
    target = np.eye(4, dtype=np.float32)[2 * which[0] + which[1]]
    return x, target, lengths


TASK = Task(
    name="temporal order",
    draw=draw,
    sizes=(len(SYMBOLS), 4),
    sigmoid=True,
    lag=100,
    tolerance=0.3,
    mean_tolerance=0.1,
)

if __name__ == "__main__":
    run(TASK, parser(__doc__.splitlines()[0], sequences=100_000).parse_args())
