"""Who is speaking? Tell nine speakers by one vowel: sequences of unequal lengths, and `fit`.

    python examples/japanese_vowels.py
    python examples/japanese_vowels.py --picture vowels.png   # the training curves

270 utterances to train on, 370 to test; `lstmcore.datasets.japanese_vowels` names their source. The
features are standardised by the training set. Every run has the same number of epochs and is tested
at its end; what the model looks like was chosen by cross-validation on the training set.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import lstmcore as lc
from lstmcore.datasets import japanese_vowels


def train(seed: int, epochs: int, precision: str = "float32") -> lc.History:
    """Train a model; the history has the accuracy on the test set after every epoch."""
    learned, tested = japanese_vowels()
    steps = learned.x[np.arange(len(learned.x))[:, None] < learned.lengths]  # (N, 12), no padding
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    model = lc.Sequential(
        lc.LSTM(12, 64, bidirectional=True, seed=seed),
        lc.MeanPool(),
        lc.Dropout(0.3, seed=seed + 1),
        lc.Linear(128, 9, seed=seed + 2),
    )
    model.precision = precision
    optimizer = lc.optim.Adam(model.parameters(), lr=0.005)
    return lc.fit(
        model,
        ((learned.x - mean) / deviation, learned.labels, learned.lengths),
        validation=((tested.x - mean) / deviation, tested.labels, tested.lengths),
        loss=lc.losses.cross_entropy,
        metrics={"accuracy": lc.metrics.accuracy},
        optimizer=optimizer,
        schedule=lc.optim.CosineLR(optimizer, total_steps=epochs),
        epochs=epochs,
        batch_size=30,
        seed=seed,
        clip_norm=1.0,
        progress=False,
    )


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2, 3, 4])
    options.add_argument("--epochs", type=int, default=40)
    options.add_argument(
        "--precision",
        choices=["float32", "bfloat16"],
        default="float32",
        help="of products with matrices",
    )
    options.add_argument("--quick", action="store_true", help="one seed, a few epochs")
    options.add_argument("--picture", help="file for the training curves of the last seed")
    arguments = options.parse_args()
    if arguments.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    if arguments.quick:
        arguments.seeds, arguments.epochs = arguments.seeds[:1], 5
    start = time.perf_counter()
    histories = [train(seed, arguments.epochs, arguments.precision) for seed in arguments.seeds]
    accuracies = [100 * history.metrics["accuracy"][-1] for history in histories]
    print(
        f"Japanese Vowels, {len(accuracies)} seeds, {arguments.epochs} epochs: "
        f"median {np.median(accuracies):.1f} % right "
        f"({', '.join(f'{accuracy:.1f}' for accuracy in accuracies)}), "
        f"{time.perf_counter() - start:.0f} s"
    )
    if arguments.picture:
        ax = lc.plot.training(histories[-1])
        ax.set_title("Japanese Vowels (validation: the test set)")
        ax.figure.savefig(arguments.picture)
