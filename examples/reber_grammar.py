"""The embedded Reber grammar of 1997: foresee what may follow, and remember the second symbol.

    python examples/reber_grammar.py

A string is B, then T or P, then a string of the Reber grammar, then the same T or P again, then E.
The model reads it symbol by symbol and learns what follows; where the grammar allows two symbols,
both are right. Training ends when for every symbol of 256 strings to train on and of 256 others the
highest outputs are those of what may follow. The task and this criterion are those of
S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997, section 5.1.
Their nets had 3 blocks of 2 cells or 4 blocks of 1 (264 to 276 weights) and needed 8440 to 39740
strings, learned from one by one.
"""

from __future__ import annotations

import argparse
import time
from typing import NamedTuple

import numpy as np
from long_lag import CELL_1997
from numpy.typing import NDArray

import lstmcore as lc

SYMBOLS = "BTPSXVE"
BATCH_SIZE = 4
STRINGS = 256  # to train on; as many to test

# Of every state of the Reber grammar, which symbols may follow, and to which states they lead.
GRAMMAR = [
    {"B": 1},
    {"T": 2, "P": 3},
    {"S": 2, "X": 4},
    {"T": 3, "V": 5},
    {"X": 3, "S": 6},
    {"P": 4, "V": 6},
    {"E": 7},
]

CELLS = {
    "lstm-1997": lambda seed: lc.LSTM(7, 12, **CELL_1997, seed=seed),
    "lstm": lambda seed: lc.LSTM(7, 12, forget_bias=1, seed=seed),
    "rnn": lambda seed: lc.RNN(7, 24, seed=seed),
}


class Strings(NamedTuple):
    """Strings as arrays, padded at the end."""

    x: NDArray[np.float32]  # (T, B, 7): every symbol but the last
    target: NDArray[np.int64]  # (T, B): the symbol after it
    lengths: NDArray[np.int64]  # (B,)
    allowed: NDArray[np.bool_]  # (T, B, 7): every symbol that might be there


def draw_string(rng: np.random.Generator) -> tuple[str, list[str]]:
    """Draw a string; with it, for every symbol but the first, which ones may be in its place."""
    second = "TP"[rng.integers(2)]
    string, allowed, state = "B" + second, ["TP"], 0
    while state < 7:
        choices = GRAMMAR[state]
        symbol = "".join(choices)[rng.integers(len(choices))]
        string, state = string + symbol, choices[symbol]
        allowed.append("".join(choices))
    return string + second + "E", [*allowed, second, "E"]


def draw(rng: np.random.Generator) -> tuple[Strings, Strings]:
    """Draw the strings to train on and those to test, all different."""
    different: dict[str, list[str]] = {}
    while len(different) < 2 * STRINGS:
        different.update([draw_string(rng)])
    drawn = list(different.items())
    return encode(drawn[:STRINGS]), encode(drawn[STRINGS:])


def encode(drawn: list[tuple[str, list[str]]]) -> Strings:
    """Turn strings into arrays."""
    ids = [np.array([SYMBOLS.index(symbol) for symbol in string]) for string, _ in drawn]
    lengths = np.array([len(row) - 1 for row in ids])
    target = np.zeros((lengths.max(), len(drawn)), dtype=np.int64)
    symbols, allowed = target.copy(), np.zeros((*target.shape, len(SYMBOLS)), dtype=bool)
    for row, (_, choices) in enumerate(drawn):
        symbols[: lengths[row], row], target[: lengths[row], row] = ids[row][:-1], ids[row][1:]
        for step, choice in enumerate(choices):
            allowed[step, row] = [symbol in choice for symbol in SYMBOLS]
    return Strings(np.eye(len(SYMBOLS), dtype=np.float32)[symbols], target, lengths, allowed)


def wrong(model: lc.Sequential, strings: Strings) -> int:
    """Count the strings with a step where another output exceeds one of what may follow."""
    scores = model(strings.x, lengths=strings.lengths)
    lowest = np.where(strings.allowed, scores, np.inf).min(axis=-1)
    highest = np.where(strings.allowed, -np.inf, scores).max(axis=-1)
    valid = np.arange(len(scores))[:, None] < strings.lengths
    return int((valid & (lowest <= highest)).any(axis=0).sum())


def train(cell: str, seed: int, sequences: int, lr: float) -> None:
    """Train a model and print how it ended."""
    start = time.perf_counter()
    learned, tested = draw(np.random.default_rng(seed))
    layer = CELLS[cell](seed)
    model = lc.Sequential(layer, lc.Linear(layer.hidden_size, len(SYMBOLS), seed=seed + 1))

    def stop_when_right(run: lc.run.Run) -> None:
        if not wrong(model, learned) and not wrong(model, tested):
            run.stop("solved")

    history = lc.fit(
        model,
        (learned.x, learned.target, learned.lengths),
        loss=lc.losses.cross_entropy,
        optimizer=lc.optim.Adam(model.parameters(), lr=lr),
        epochs=sequences // STRINGS,
        batch_size=BATCH_SIZE,
        seed=seed,
        callbacks=[stop_when_right],
        progress=False,
    )
    how = "solved after" if history.stopped == "solved" else "not solved by"
    print(
        f"embedded Reber grammar, {cell}, {model.num_parameters} weights, seed {seed}: {how} "
        f"{history.epochs * STRINGS} strings, {wrong(model, learned)} and {wrong(model, tested)} "
        f"of {STRINGS} wrong, {time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cells", nargs="+", choices=CELLS, default=list(CELLS))
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options.add_argument("--sequences", type=int, default=40_000, help="to train on at most")
    options.add_argument("--lr", type=float, default=0.01, help="learning rate")
    options.add_argument("--quick", action="store_true", help="few strings, to see that it runs")
    arguments = options.parse_args()
    for name in arguments.cells:
        for number in arguments.seeds:
            sequences = 1024 if arguments.quick else arguments.sequences
            train(name, number, sequences, arguments.lr)
