"""Who is speaking? A grid search of scikit-learn over recurrent classifiers.

    python examples/sklearn_vowels.py
    python examples/sklearn_vowels.py --quick

The utterances of japanese_vowels.py have 7 to 29 steps each, and go in as they are: a list of
arrays. scikit-learn's own classifiers need tables, so they get the means and deviations of every
feature over time. All are chosen by cross-validation on the training set, and tested once.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np

from lstmcore.datasets import japanese_vowels
from lstmcore.sklearn import SequenceClassifier

try:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler
    from sklearn.svm import SVC
except ImportError as error:
    raise SystemExit('this needs scikit-learn: pip install "lstmcore[sklearn]"') from error


def summaries(sequences: list[Any]) -> Any:
    """Return a row of statistics for each sequence."""
    return np.stack([np.concatenate([x.mean(axis=0), x.std(axis=0)]) for x in sequences])


def searches(epochs: int, jobs: int, small: bool) -> dict[str, Any]:
    """Return the searches by the names of what they choose among."""
    recurrent = SequenceClassifier(
        bidirectional=True, pooling="mean", dropout=0.3, lr=0.005, epochs=epochs, seed=0
    )
    grid: dict[str, list[Any]] = {"cell": ["lstm", "gru"], "hidden_size": [16, 64]}
    if small:
        grid = {"cell": ["gru"], "hidden_size": [4, 16]}
    logistic = make_pipeline(
        FunctionTransformer(summaries), StandardScaler(), LogisticRegression(max_iter=2000)
    )
    machine = make_pipeline(FunctionTransformer(summaries), StandardScaler(), SVC())
    powers = [0.1, 1.0, 10.0, 100.0]
    return {
        "SequenceClassifier": GridSearchCV(recurrent, grid, cv=3, n_jobs=jobs),
        "logistic regression": GridSearchCV(logistic, {"logisticregression__C": powers}, cv=3),
        "support vectors": GridSearchCV(machine, {"svc__C": powers}, cv=3),
    }


def main() -> None:
    """Search, test and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--jobs", type=int, default=2, help="processes of the search")
    parser.add_argument("--quick", action="store_true", help="a smaller grid, a few epochs")
    args = parser.parse_args()
    if args.quick:
        args.epochs, args.jobs = 5, 1
    train, test = japanese_vowels()
    x, x_test = ([part.x[:n, i] for i, n in enumerate(part.lengths)] for part in (train, test))
    for name, search in searches(args.epochs, args.jobs, args.quick).items():
        start = time.perf_counter()
        search.fit(x, train.labels)
        seconds = time.perf_counter() - start
        chosen = ", ".join(f"{k.split('__')[-1]} {v}" for k, v in search.best_params_.items())
        print(
            f"{name:20} {100 * search.score(x_test, test.labels):5.1f} % right, "
            f"{100 * search.best_score_:.1f} in cross-validation; {chosen}; {seconds:.0f} s"
        )


if __name__ == "__main__":
    main()
