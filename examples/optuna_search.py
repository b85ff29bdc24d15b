"""Search hyper-parameters with Optuna, which stops trials that do not look promising.

    python examples/optuna_search.py
    python examples/optuna_search.py --storage sqlite:///study.db    # from several processes

The task is that of japanese_vowels.py. A trial chooses cell, units, dropout and learning rate,
trains on two thirds of the training set and reports its loss on the rest after every epoch, by a
callback of `fit`. The best settings are then trained with the whole training set, and tested once.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np

import lstmcore as lc
from lstmcore.datasets import japanese_vowels

try:
    import optuna
except ImportError as error:
    raise SystemExit("this needs Optuna: pip install optuna") from error

CELLS = {"LSTM": lc.LSTM, "GRU": lc.GRU, "RNN": lc.RNN}


def settings(trial: Any) -> dict[str, Any]:
    """Let a trial choose."""
    return {
        "cell": trial.suggest_categorical("cell", list(CELLS)),
        "hidden": trial.suggest_int("hidden", 4, 64, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.5),
        "lr": trial.suggest_float("lr", 1e-3, 3e-2, log=True),
    }


def train(chosen: dict[str, Any], data: Any, epochs: int, **options: Any) -> Any:
    """Train a model of these settings."""
    hidden = chosen["hidden"]
    model = lc.Sequential(
        CELLS[chosen["cell"]](12, hidden, bidirectional=True, seed=0),
        lc.MeanPool(),
        lc.Dropout(chosen["dropout"], seed=1),
        lc.Linear(2 * hidden, 9, seed=2),
    )
    lc.fit(
        model,
        data,
        loss="cross_entropy",
        optimizer=lc.optim.Adam(model.parameters(), lr=chosen["lr"]),
        epochs=epochs,
        batch_size=30,
        seed=0,
        clip_norm=1.0,
        progress=False,
        **options,
    )
    return model


def study(data: Any, trials: int, epochs: int, seed: int, storage: str | None) -> Any:
    """Search, by the loss on every third sequence."""
    x, labels, lengths = data
    held = np.arange(len(labels)) % 3 == 0
    learned, rest = ((x[:, rows], labels[rows], lengths[rows]) for rows in (~held, held))

    def objective(trial: Any) -> float:
        losses: list[float] = []

        def report(run: Any) -> None:
            losses.append(run.history.validation_losses[-1])
            trial.report(losses[-1], run.epoch)
            if trial.should_prune():
                raise optuna.TrialPruned

        train(settings(trial), learned, epochs, validation=rest, callbacks=report)
        return losses[-1]

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made = optuna.create_study(
        sampler=optuna.samplers.TPESampler(seed=seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=3),
        storage=storage,
        study_name="vowels" if storage else None,
        load_if_exists=True,
    )
    made.optimize(objective, n_trials=trials)
    return made


def main() -> None:
    """Search, train and test."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--storage", help="database that several processes share")
    parser.add_argument("--quick", action="store_true", help="a few trials and epochs")
    args = parser.parse_args()
    if args.quick:
        args.trials, args.epochs = 8, 6
    train_set, test = japanese_vowels()
    steps = train_set.x[np.arange(len(train_set.x))[:, None] < train_set.lengths]
    mean, deviation = steps.mean(axis=0), steps.std(axis=0)
    data = (train_set.x - mean) / deviation, train_set.labels, train_set.lengths

    found = study(data, args.trials, args.epochs, args.seed, args.storage)
    pruned = sum(trial.state.name == "PRUNED" for trial in found.trials)
    print(f"{len(found.trials)} trials, of which {pruned} were stopped early")
    best = found.best_params
    print(
        f"best: {best['cell']}, {best['hidden']} units, dropout {best['dropout']:.2f}, "
        f"lr {best['lr']:.4f}, loss {found.best_value:.3f}"
    )
    model = train(best, data, args.epochs)
    scores = model((test.x - mean) / deviation, lengths=test.lengths)
    print(f"test: {100 * lc.metrics.accuracy(scores, test.labels):.1f} % right")


if __name__ == "__main__":
    main()
