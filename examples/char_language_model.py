"""A character language model: a GRU that reads Genesis and goes on in its style.

    python examples/char_language_model.py
    python examples/char_language_model.py --torch        # and the same model in PyTorch beside it

The first 90 % of the text are cut into columns, read side by side from top to bottom in chunks of
100 characters, with the state carried from each chunk to the next: truncated back-propagation. The
rest tells how many bits the model needs for each character. genesis.gz is the Book of Genesis
in the King James Version of 1611, in the public domain, one verse per line.
"""

from __future__ import annotations

import argparse
import gzip
import statistics
import time
from pathlib import Path
from typing import Any

import lstmcore as lc

ROWS, CHUNK = 32, 100


class Text:
    """A text as ids, for training and for validation.

    Attributes
    ----------
    letters : Vocabulary
    train, validation : (x, target)
        (T, ROWS) ids each, and what follows each of them.
    """

    def __init__(self, characters: int | None = None) -> None:
        path = Path(__file__).with_name("genesis.gz")
        text = gzip.decompress(path.read_bytes()).decode()[:characters]
        self.letters = lc.data.Vocabulary(text, specials=(), padding=None, unknown=None)
        ids = self.letters.encode(text)
        cut = len(ids) * 9 // 10
        self.train = lc.data.columns(ids[:cut], ROWS)
        self.validation = lc.data.columns(ids[cut:], ROWS)


def make(tokens: int, cell: str, hidden: int, seed: int) -> lc.Sequential:
    """Return an untrained model."""
    layer = {"gru": lc.GRU, "lstm": lc.LSTM}[cell]
    return lc.Sequential(
        lc.Embedding(tokens, hidden, seed=seed),
        layer(hidden, hidden, seed=seed + 1000),
        lc.Linear(hidden, tokens, seed=seed + 2000),
    )


def train(model: Any, text: Text, epochs: int, lr: float, progress: bool = False) -> None:
    """Train a model; the learning rate falls to 0."""
    optimizer = lc.optim.Adam(model.parameters(), lr=lr)
    lc.fit(
        model,
        text.train,
        loss=lc.losses.cross_entropy,
        optimizer=optimizer,
        epochs=epochs,
        truncate=CHUNK,
        clip_norm=1.0,
        schedule=lc.optim.CosineLR(optimizer, epochs),
        progress=progress,
    )


def train_torch(
    torch: Any, cell: str, hidden: int, seed: int, text: Text, epochs: int, lr: float
) -> lc.Sequential:
    """Train the same model by the same loop in PyTorch, and return it as one of ours."""
    tokens = len(text.letters)
    torch.manual_seed(seed)
    embedding = torch.nn.Embedding(tokens, hidden)
    layer = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](hidden, hidden)
    head = torch.nn.Linear(hidden, tokens)
    model = torch.nn.ModuleList([embedding, layer, head])
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    x, target = (torch.from_numpy(ids) for ids in text.train)
    for _ in range(epochs):
        state = None
        for ids, wanted in zip(x.split(CHUNK), target.split(CHUNK)):
            y, state = layer(embedding(ids), state)
            state = tuple(s.detach() for s in state) if cell == "lstm" else state.detach()
            loss = torch.nn.functional.cross_entropy(head(y).flatten(0, 1), wanted.flatten())
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        schedule.step()
    trained = make(tokens, cell, hidden, seed)
    trained.load_state_dict({name: p.detach().numpy() for name, p in model.named_parameters()})
    return trained


def bits(model: Any, text: Text) -> float:
    """Return how many bits a character of the validation text takes on average."""
    x, target = text.validation
    return lc.metrics.bits_per_symbol(model(x), target)


def sample(model: Any, text: Text, prompt: str, steps: int, seed: int) -> str:
    """Return a prompt and what the model says after it."""
    said = lc.generate(
        model, text.letters.encode(prompt), steps, lc.sampling.temperature(0.6, seed=seed)
    )
    return prompt + "".join(text.letters.decode(said))


def main() -> None:
    """Train, print a table and a sample."""
    parser = argparse.ArgumentParser(description="A character language model.")
    parser.add_argument("--cell", choices=["gru", "lstm"], default="gru")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=15)
    parser.add_argument("--lr", type=float, default=0.005)
    parser.add_argument("--seed", type=int, default=0, help="of the first run")
    parser.add_argument("--runs", type=int, default=3, help="with a seed each")
    parser.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of products with matrices",
    )
    parser.add_argument("--quick", action="store_true", help="one short run on a part of the text")
    parser.add_argument("--torch", action="store_true", help="train it in PyTorch, too")
    args = parser.parse_args()
    if args.quick:
        args.runs, args.epochs, args.hidden = 1, 4, 64
    if args.torch:
        import torch
    text = Text(60_000 if args.quick else None)
    tokens = len(text.letters)

    found: dict[str, list[tuple[float, float]]] = {}  # bits and seconds of each run
    for seed in range(args.seed, args.seed + args.runs):
        for name in ("lstmcore", "PyTorch") if args.torch else ("lstmcore",):
            start = time.perf_counter()
            if name == "PyTorch":
                trained = train_torch(
                    torch, args.cell, args.hidden, seed, text, args.epochs, args.lr
                )
            else:
                trained = model = make(tokens, args.cell, args.hidden, seed)
                model.precision = args.precision
                train(model, text, args.epochs, args.lr)
            seconds = time.perf_counter() - start
            found.setdefault(name, []).append((bits(trained, text), seconds))

    bigram = lc.baselines.Markov(tokens).fit(text.train[0])
    print(f"{args.cell}, {args.hidden} units, {args.epochs} epochs, {args.runs} runs")
    print("               bits per character   seconds")
    print(f"bigram         {bits(bigram, text):.3f}")
    for name, runs in found.items():
        values, times = zip(*runs)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        mean, seconds = statistics.mean(values), statistics.mean(times)
        print(f"{name:14} {mean:.3f} +- {spread:.3f}      {seconds:.1f}")
    print()
    print(sample(model, text, "And God said", 300, args.seed))


if __name__ == "__main__":
    main()
