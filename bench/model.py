"""Measure what a network costs beside the same calls written by hand, and what `fit` adds.

    python bench/model.py [--rounds 25]

One thread. A call is forward, loss and backward of a batch; a step of `fit` has batches, metrics
and the optimizer besides, and is held to a loop with the same. The numbers of both have to be equal
to the bit first. Times are those of the processor; rounds go through all, and the ratio of a row is
the median of those within a round.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"
import numpy as np

import lstmcore as lc
from lstmcore.datasets import japanese_vowels
from turns import in_turns

Call = Callable[[], list[Any]]  # returns what has to be equal


def gradients(modules: Any) -> list[Any]:
    """Return the gradients of modules, in order."""
    return [p.grad for module in modules for p in module.parameters()]


def vowels() -> dict[str, Call]:
    """The classifier of examples/japanese_vowels.py: a GRU, its last step, a Linear."""
    train, _ = japanese_vowels()
    values, labels, lengths = train.x[:, :30], train.labels[:30], train.lengths[:30]
    layer, last, head = lc.GRU(12, 32, seed=0), lc.LastStep(), lc.Linear(32, 9, seed=1)
    x = lc.Input(12)
    model = lc.Model(x, head(last(layer(x)[0])))

    def network() -> list[Any]:
        model.zero_grad()
        y, tape = model.forward(values, lengths=lengths)
        loss, dy = lc.losses.cross_entropy(y, labels)
        return [loss, model.backward(tape, dy), *gradients([layer, head])]

    def by_hand() -> list[Any]:
        for module in (layer, head):
            module.zero_grad()
        y, _, tape = layer.forward(values, lengths=lengths)
        row, row_tape = last.forward(y, lengths=lengths)
        scores, head_tape = head.forward(row)
        loss, dscores = lc.losses.cross_entropy(scores, labels)
        dy = last.backward(row_tape, head.backward(head_tape, dscores))
        return [loss, layer.backward(tape, dy)[0], *gradients([layer, head])]

    return {"network": network, "by hand": by_hand}


def residual_stack(size: int) -> dict[str, Call]:
    """Three times y + GRU(LayerNorm(y)), with a target for each step."""
    values = np.random.default_rng(0).standard_normal((50, 16, size)).astype("float32")
    parts = [(lc.LayerNorm(size), lc.GRU(size, size, seed=i)) for i in range(3)]
    x = symbol = lc.Input(size)
    for norm, layer in parts:
        symbol = symbol + layer(norm(symbol))[0]
    model = lc.Model(x, symbol)
    modules = [module for part in parts for module in part]

    def network() -> list[Any]:
        model.zero_grad()
        y, tape = model.forward(values)
        loss, dy = lc.losses.mse(y, values)
        return [loss, model.backward(tape, dy), *gradients(modules)]

    def by_hand() -> list[Any]:
        for module in modules:
            module.zero_grad()
        y, tapes = values, []
        for norm, layer in parts:
            z, norm_tape = norm.forward(y)
            z, _, tape = layer.forward(z)
            y = y + z
            tapes.append((norm_tape, tape))
        loss, dy = lc.losses.mse(y, values)
        for (norm, layer), (norm_tape, tape) in zip(parts[::-1], tapes[::-1], strict=True):
            dy = dy + norm.backward(norm_tape, layer.backward(tape, dy)[0])
        return [loss, dy, *gradients(modules)]

    return {"network": network, "by hand": by_hand}


def training() -> dict[str, Call]:
    """Ten epochs of the classifier: `fit`, and the loop that it stands for."""
    train, _ = japanese_vowels()
    data = lc.data.Batches(train.x, train.labels, train.lengths, batch_size=30, shuffle=False)

    def made() -> Any:
        layer, head = lc.GRU(12, 32, seed=0), lc.Linear(32, 9, seed=1)
        model = lc.Sequential(layer, lc.LastStep(), head)
        return model, lc.optim.Adam(model.parameters(), lr=0.001)

    def fit() -> list[Any]:
        model, adam = made()
        options: dict[str, Any] = {"epochs": 10, "clip_norm": 1.0, "progress": False}
        lc.fit(model, data, loss="cross_entropy", optimizer=adam, **options)
        return list(model.state_dict().values())

    def by_hand() -> list[Any]:
        model, adam = made()
        for _ in range(10):
            for values, target, lengths in data:
                y, tape = model.forward(values, lengths=lengths)
                _, dy = lc.losses.cross_entropy(y, target)
                model.zero_grad()
                model.backward(tape, dy)
                lc.clip_grad_norm(model.parameters(), 1.0)
                adam.step()
        return list(model.state_dict().values())

    return {"fit": fit, "by hand": by_hand}


CASES: dict[str, Callable[[], dict[str, Call]]] = {
    "vowels, GRU 32": vowels,
    "residual stack, 3 GRU 32": lambda: residual_stack(32),
    "residual stack, 3 GRU 128": lambda: residual_stack(128),
    "fit of vowels": training,
}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=25)
    args = parser.parse_args()
    lc.set_num_threads(1)
    print("| | network ms | by hand ms | network / by hand | middle half of the rounds |")
    print("| --- | ---: | ---: | ---: | ---: |", flush=True)
    for name, make in CASES.items():
        calls = make()
        ours, hand = ([np.array(one, copy=True) for one in call()] for call in calls.values())
        for one, other in zip(ours, hand, strict=True):
            if not np.array_equal(one, other):
                raise SystemExit(f"{name}: the numbers differ")
        a, b = in_turns(calls, args.rounds, threads=1).values()
        low, ratio, high = np.percentile(a / b, [25, 50, 75])
        cells = (f"{np.median(a) * 1e3:.3g}", f"{np.median(b) * 1e3:.3g}", f"{ratio:.3f}")
        print(f"| {name} | {' | '.join(cells)} | {low:.3f} to {high:.3f} |", flush=True)


if __name__ == "__main__":
    main()
