"""The demand of a town a day ahead, by scikit-learn's means: Forecaster, grid search, frames.

    python examples/sklearn_forecast.py

The table is that of demand.py, made up with two peaks a day, weekends and holidays. A Forecaster
reads the last hours and says the next 24 at once; how many it reads is chosen by a grid search, in
which each fold is tested on the hours after those it has learned. What the calendar says of
tomorrow is known today, so it is a column of today. pandas is needed.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

import numpy as np
from demand import DAY, TOTAL, TRAIN, VALIDATION, WEEK, make_table

import lstmcore as lc
from lstmcore.sklearn import Forecaster

try:
    from sklearn.metrics import mean_absolute_error
    from sklearn.model_selection import GridSearchCV, TimeSeriesSplit
except ImportError as error:
    raise SystemExit('this needs scikit-learn: pip install "lstmcore[sklearn]"') from error


def prepare(seed: int) -> Any:
    """Return the table by the hour: demand, time of day, and whether tomorrow is free."""
    table = make_table(seed)
    frame = lc.data.resample(table[["demand"]], step="1h", method="previous")
    angle = 2 * np.pi * frame.index.hour / DAY
    frame["sin"], frame["cos"] = np.sin(angle), np.cos(angle)
    holidays = set(table.index[table["holiday"]].normalize())
    day = frame.index.normalize()
    free = (day.day_of_week >= 5) | day.isin(holidays)
    frame["free"] = free.astype(float)
    frame["tomorrow"] = np.append(free[DAY:], np.repeat(False, DAY)).astype(float)
    return frame


def main() -> None:
    """Search, forecast every day of the test, and print errors."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--days", type=int, default=200, help="to learn from, at most 380")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--jobs", type=int, default=2, help="processes of the search")
    parser.add_argument("--seed", type=int, default=0, help="of the table and of the model")
    parser.add_argument("--quick", action="store_true", help="fewer days, a smaller grid")
    args = parser.parse_args()
    windows = [24, 48, 96]
    if args.quick:
        args.days, args.epochs, args.jobs, windows = 40, 2, 1, [6, 24]
    if not 20 <= args.days <= TRAIN:
        parser.error(f"--days must be within 20 to {TRAIN}")

    frame = prepare(args.seed)
    learned = frame[(VALIDATION - args.days) * DAY : VALIDATION * DAY]
    model = Forecaster(horizon=DAY, target="demand", cell="gru", epochs=args.epochs, seed=args.seed)
    folds = TimeSeriesSplit(2, test_size=len(learned) // 4)
    start = time.perf_counter()
    search = GridSearchCV(model, {"window": windows}, cv=folds, n_jobs=args.jobs).fit(learned)
    seconds = time.perf_counter() - start
    for window, score in zip(windows, search.cv_results_["mean_test_score"], strict=True):
        print(f"reads {window:3} hours: R squared {score:.3f} in cross-validation")
    print(f"chosen in {seconds:.0f} s: {search.best_params_['window']} hours")

    midnights = np.arange(VALIDATION, TOTAL) * DAY
    said = search.predict([frame[t - WEEK : t] for t in midnights])  # each is a Series
    print(f"the first: {said[0].index[0]} {said[0].iloc[0]:.1f} MW, ...")
    demand = frame["demand"].to_numpy()
    forecasts = {
        "Forecaster": np.stack([series.to_numpy() for series in said]),
        "week before": np.stack([demand[t - WEEK : t - WEEK + DAY] for t in midnights]),
        "day before": np.stack([demand[t - DAY : t] for t in midnights]),
    }
    truth = np.stack([demand[t : t + DAY] for t in midnights])
    print(f"mean absolute error of {len(truth)} days, MW")
    for name, y in forecasts.items():
        print(f"{name:12}{mean_absolute_error(truth, y):6.2f}")


if __name__ == "__main__":
    main()
