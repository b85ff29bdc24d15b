"""Forecast the yearly number of sunspots, beside models without hidden units.

    python examples/forecast.py
    python examples/forecast.py --picture sunspots.png

Every model reads 33 years and says the next 11, one after the other. They are fitted to 1700 to
1920; then each year from 1921 on is the first of a forecast. The recurrent forecast is the mean of
several GRUs that differ in their seeds. The numbers are in sunspots.csv, their source is in
sunspots.txt.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc

YEAR, SPOTS = np.loadtxt(
    Path(__file__).with_name("sunspots.csv"), delimiter=",", skiprows=1, unpack=True
)
TRAIN = int(np.searchsorted(YEAR, 1921))  # years to fit to
WINDOW, HORIZON, CYCLE = 33, 11, 11
BINS = 8


class GRUs:
    """GRUs of which each predicts the next year at every step; their forecasts are averaged."""

    def __init__(self, count: int, hidden: int, epochs: int, seed: int) -> None:
        self._epochs = epochs
        self._models = [
            lc.Sequential(lc.GRU(1, hidden, seed=s), lc.Linear(hidden, 1, seed=s + 1000))
            for s in range(seed, seed + count)
        ]

    def fit(self, series: Any) -> GRUs:
        """Train all of them on all windows of a series (N, 1)."""
        self._scale = np.abs(series).max()
        x, target = lc.data.windows(
            (series / self._scale).astype(np.float32), WINDOW, per_step=True
        )
        for seed, model in enumerate(self._models):
            optimizer = lc.optim.AdamW(model.parameters(), lr=0.01, weight_decay=0.01)
            lc.fit(
                model,
                (x, target),
                batch_size=32,
                seed=seed,
                loss=lc.losses.mse,
                optimizer=optimizer,
                epochs=self._epochs,
                clip_norm=1.0,
                schedule=lc.optim.CosineLR(optimizer, self._epochs),
                progress=False,
            )
        return self

    def forecast(self, x: Any, steps: int) -> Any:
        """Return what follows windows (WINDOW, W, 1): (steps, W, 1)."""
        prompt = (x / self._scale).astype(np.float32)
        return np.mean([lc.generate(m, prompt, steps) for m in self._models], axis=0) * self._scale


class Baseline:
    """AR(p) or the seasonal naive forecast."""

    def __init__(self, model: Any) -> None:
        self._model = model

    def fit(self, series: Any) -> Baseline:
        """Fit to a series (N, 1)."""
        self._model.fit(series)
        return self

    def forecast(self, x: Any, steps: int) -> Any:
        """Return what follows windows (WINDOW, W, 1): (steps, W, 1)."""
        return lc.generate(self._model, x, steps)


class MarkovChain:
    """A Markov chain over bins with about as many years each; it forecasts its expectation."""

    def fit(self, series: Any) -> MarkovChain:
        """Count how bins follow each other in a series (N, 1)."""
        values = series[:, 0]
        self._edges = np.quantile(values, np.arange(1, BINS) / BINS)
        bins = np.digitize(values, self._edges)
        self._means = np.array([values[bins == b].mean() for b in range(BINS)])
        chain = lc.baselines.Markov(BINS, smoothing=0.1).fit(bins)
        self._transitions = np.exp(chain(np.arange(BINS)))
        return self

    def forecast(self, x: Any, steps: int) -> Any:
        """Return what follows windows (WINDOW, W, 1): (steps, W, 1)."""
        p = np.eye(BINS)[np.digitize(x[-1, :, 0], self._edges)]
        said = []
        for _ in range(steps):
            p = p @ self._transitions
            said.append(p @ self._means)
        return np.stack(said)[..., None]


def evaluate(models: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fit all; return errors (HORIZON,) at each horizon, and forecasts (HORIZON, W)."""
    # Window w ends in the year before TRAIN + w; target[h, w] is the year h + 1 after it.
    test = SPOTS[TRAIN - WINDOW :, None]
    x, _ = lc.data.windows(test, WINDOW, horizon=HORIZON)
    target = np.lib.stride_tricks.sliding_window_view(test[WINDOW:, 0], HORIZON).T
    forecasts = {
        name: model.fit(SPOTS[:TRAIN, None]).forecast(x, HORIZON)[..., 0]
        for name, model in models.items()
    }
    errors = {name: np.sqrt(((y - target) ** 2).mean(1)) for name, y in forecasts.items()}
    return errors, forecasts


def draw(forecasts: dict[str, Any], first_year: int, path: Path) -> None:
    """Draw the forecasts that begin in a year behind their history, and next to what came."""
    from matplotlib import pyplot

    figure, ax = pyplot.subplots(figsize=(8, 3.6))
    start = int(np.searchsorted(YEAR, first_year))
    shown = slice(start - WINDOW, start + HORIZON)
    ax.plot(YEAR[shown], SPOTS[shown], "k.-", label="sunspots")
    for name, y in forecasts.items():
        ax.plot(YEAR[start : start + HORIZON], y[:, start - TRAIN], "--", label=name)
    ax.axvline(first_year - 0.5, color="grey", lw=0.8)
    ax.set_title(f"Sunspots from {first_year} on, by what was known before")
    ax.set_xlabel("year")
    ax.set_ylabel("sunspots (yearly mean)")
    figure.legend(loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Fit all models and print a table."""
    parser = argparse.ArgumentParser(description="Forecasts of the yearly number of sunspots.")
    parser.add_argument("--hidden", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--count", type=int, default=10, help="of GRUs whose mean is taken")
    parser.add_argument("--seed", type=int, default=0, help="of the first GRU")
    parser.add_argument("--quick", action="store_true", help="two GRUs, fewer epochs")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draw one of the forecasts")
    parser.add_argument("--from-year", type=int, default=1977, help="where that one begins")
    args = parser.parse_args()
    if args.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    if args.quick:
        args.epochs, args.count = 20, 2
    last = int(YEAR[-1]) - HORIZON + 1
    if not 1921 <= args.from_year <= last:
        parser.error(f"--from-year must be within 1921 to {last}")

    models = {
        f"{args.count} GRUs": GRUs(args.count, args.hidden, args.epochs, args.seed),
        "AR(9)": Baseline(lc.baselines.AR(9)),
        "Markov chain": MarkovChain(),
        "seasonal naive": Baseline(lc.baselines.SeasonalNaive(CYCLE)),
        "naive": Baseline(lc.baselines.SeasonalNaive(1)),
    }
    errors, forecasts = evaluate(models)
    horizons = (1, 2, 5, 11)
    print(f"root mean squared error of forecasts, sunspots of 1921 to {YEAR[-1]:.0f}")
    print("years ahead   ", *(f"{h:6}" for h in horizons), "  1 to 11")
    for name, error in errors.items():
        mean = np.sqrt((error**2).mean())
        print(f"{name:14}", *(f"{error[h - 1]:6.1f}" for h in horizons), f"{mean:9.1f}")
    if args.picture:
        draw(forecasts, args.from_year, args.picture)


if __name__ == "__main__":
    main()
