"""Translate dates from the many ways people write them to ISO 8601, letter by letter.

    python examples/translation.py
    python examples/translation.py --picture docs/images/translation.png

A bidirectional GRU reads a date such as "the 3rd of march, 1998". Another GRU writes "1998-03-03"
and, at every letter, looks by attention at what the first made of each letter. The dates are random
days of 1900 to 2099; those for testing are other days than those for training.
"""

from __future__ import annotations

import argparse
import datetime
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import lstmcore as lc

MONTHS = [
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
]  # fmt: skip
DAYS = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"]
START, END = "<s>", "</s>"
LETTERS = lc.data.Vocabulary(" ,./-" + "0123456789" + "".join(MONTHS + DAYS))
DIGITS = lc.data.Vocabulary("0123456789-", specials=("<pad>", START, END), unknown=None)
LONGEST = len("1998-03-03") + 1


def written(day: datetime.date, rng: np.random.Generator) -> str:
    """Write a date in one of many ways."""
    name, d, year = MONTHS[day.month - 1], day.day, f"{day.year}"
    teen = d // 10 == 1
    th = f"{d}{'th' if teen else {1: 'st', 2: 'nd', 3: 'rd'}.get(d % 10, 'th')}"
    ways = [
        f"{name} {d}, {year}",
        f"{name[:3]} {d} {year}",
        f"{d} {name} {year}",
        f"{d}-{name[:3]}-{year[2:]}" if day.year < 2000 else f"{d}-{name[:3]}-{year}",
        f"the {th} of {name}, {year}",
        f"{name} {th} {year}",
        f"{day.month}/{d}/{year}",
        f"{d}.{day.month}.{year}",
        f"{DAYS[day.weekday()]}, {d} {name[:3]} {year}",
        f"{DAYS[day.weekday()][:3]} {name} {th}, {year}",
    ]
    return ways[rng.integers(len(ways))]


class Dates(NamedTuple):
    """Dates as people write them, and in ISO 8601."""

    written: list[str]
    iso: list[str]

    def batches(self, batch_size: int, seed: int) -> lc.data.Pairs:
        """Return batches of ids for training."""
        return lc.data.Pairs(
            [LETTERS.encode(text) for text in self.written],
            [DIGITS.encode(text) for text in self.iso],
            start=DIGITS[START],
            end=DIGITS[END],
            batch_size=batch_size,
            seed=seed,
        )


def draw(train: int, test: int, seed: int) -> tuple[Dates, Dates]:
    """Draw dates for training and for testing."""
    rng = np.random.default_rng(seed)
    first, last = datetime.date(1900, 1, 1), datetime.date(2099, 12, 31)
    count = (last - first).days + 1
    days = [first + datetime.timedelta(int(n)) for n in rng.permutation(count)[: train + test]]
    drawn = [written(day, rng) for day in days], [day.isoformat() for day in days]
    return Dates(*(part[:train] for part in drawn)), Dates(*(part[train:] for part in drawn))


def make(hidden: int, seed: int) -> lc.Seq2Seq:
    """Return an untrained model."""
    size = 32  # of a letter
    return lc.Seq2Seq(
        lc.Sequential(
            lc.Embedding(len(LETTERS), size, seed=seed),
            lc.GRU(size, hidden // 2, bidirectional=True, seed=seed + 1),
        ),
        lc.Sequential(
            lc.Embedding(len(DIGITS), size, seed=seed + 2),
            lc.GRU(size, hidden, seed=seed + 3),
        ),
        lc.Linear(2 * hidden, len(DIGITS), seed=seed + 4),
        lc.attention.ScaledDotProduct(),
        carry_state=False,
    )


def train(model: lc.Seq2Seq, dates: Dates, epochs: int, lr: float, seed: int) -> None:
    """Train a model; the learning rate falls to 0."""
    optimizer = lc.optim.Adam(model.parameters(), lr=lr)
    lc.fit(
        model,
        dates.batches(64, seed),
        loss=lc.losses.cross_entropy,
        optimizer=optimizer,
        epochs=epochs,
        clip_norm=1.0,
        schedule=lc.optim.CosineLR(optimizer, epochs),
        progress=False,
    )


def translate(model: lc.Seq2Seq, texts: list[str], beam_size: int = 1) -> list[str]:
    """Return what the model takes for these dates."""
    ids = [LETTERS.encode(text) for text in texts]
    found = model.beam_search(
        lc.data.pad(ids),
        lengths=[len(i) for i in ids],
        start=DIGITS[START],
        end=DIGITS[END],
        max_steps=LONGEST,
        beam_size=beam_size,
    )
    return ["".join(DIGITS.decode(candidates[0].ids)) for candidates in found]


def draw_attention(model: lc.Seq2Seq, text: str, path: Path) -> None:
    """Draw at which letters the model looks while it writes each digit."""
    from matplotlib import pyplot

    iso = translate(model, [text])[0]
    source = LETTERS.encode(text)[:, None]
    previous = np.concatenate([[DIGITS[START]], DIGITS.encode(iso)])[:, None]
    weights = model.attention_weights((source, previous))[0, : len(iso)]
    figure, ax = pyplot.subplots(figsize=(7, 3.4))
    image = ax.imshow(weights, aspect="auto", cmap="Greys", vmin=0, vmax=1)
    figure.colorbar(image, ax=ax, label="weight of the attention")
    ax.set_xticks(range(len(text)), text)
    ax.set_yticks(range(len(iso)), iso)
    ax.set_title("Where the model looks while it writes")
    ax.set_xlabel("read")
    ax.set_ylabel("written")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Train, test, and print the result with some translations."""
    parser = argparse.ArgumentParser(description="Dates as people write them to ISO 8601.")
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--dates", type=int, default=8000, help="to train with")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--beam-size", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--quick", action="store_true", help="fewer dates and epochs")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draw the attention")
    args = parser.parse_args()
    if args.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    if args.quick:
        args.dates, args.epochs = 3000, 5

    dates, test = draw(args.dates, 1000, args.seed)
    model = make(args.hidden, args.seed)
    start = time.perf_counter()
    train(model, dates, args.epochs, args.lr, args.seed)
    seconds = time.perf_counter() - start
    found = translate(model, test.written, args.beam_size)
    right = [a == b for a, b in zip(found, test.iso, strict=True)]
    for text, iso, is_right in list(zip(test.written, found, right, strict=True))[:8]:
        print(f"{text:32} {iso:12} {'' if is_right else 'wrong'}".rstrip())
    print(f"exact match {np.mean(right):.1%} of {len(right)}, after {seconds:.1f} s")
    if args.picture:
        draw_attention(model, "the 23rd of november, 1998", args.picture)


if __name__ == "__main__":
    main()
