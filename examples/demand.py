"""Forecast the hourly demand of a town a day ahead, with quantiles, from a table with gaps.

    python examples/demand.py
    python examples/demand.py --picture docs/images/forecast.png

The table is made up, with a seed: 500 days with two peaks a day, weekends, holidays, seasons, a
level that wanders, and hours that are missing. From a week of demand and calendar, and from the
calendar of the day to come, a network says three quantiles of its 24 hours: one GRU reads the week,
another begins with its state and reads the day. Beside it stand the day before, the week before,
and an AR model, which know no calendar. pandas is needed.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import lstmcore as lc

DAY, WEEK = 24, 168
TRAIN, VALIDATION, TOTAL = 380, 410, 500  # days: where training ends, validation ends, all ends
QUANTILES = (0.1, 0.5, 0.9)
MODEL = "GRUs, median"


def make_table(seed: int) -> Any:
    """Return the demand in MW by the hour, without the hours that nobody has recorded."""
    import pandas

    rng = np.random.default_rng(seed)
    index = pandas.date_range("2023-01-02", periods=TOTAL * DAY, freq="h", name="hour")
    hour, day = np.arange(TOTAL * DAY) % DAY, np.arange(TOTAL * DAY) // DAY
    holiday = np.isin(day, holidays(seed))
    free = (day % 7 >= 5) | holiday
    work = 14 * np.exp(-(((hour - 9) / 3) ** 2)) + 18 * np.exp(-(((hour - 19) / 3) ** 2))
    rest = 10 * np.exp(-(((hour - 12) / 4) ** 2)) + 12 * np.exp(-(((hour - 20) / 3) ** 2))
    season = 8 * np.cos(2 * np.pi * day / 365)
    level, noise = np.zeros((2, TOTAL * DAY))
    for t in range(1, TOTAL * DAY):
        level[t] = 0.998 * level[t - 1] + 0.3 * rng.standard_normal()
        noise[t] = 0.7 * noise[t - 1] + (0.4 + 0.06 * work[t]) * rng.standard_normal()
    demand = 50 + np.where(free, rest - 6, work) + season + level + noise
    frame = pandas.DataFrame({"demand": demand, "holiday": holiday}, index=index)
    lost = rng.random(len(frame)) < 0.01  # single hours
    for start in rng.integers(0, len(frame), 25):  # and whole nights
        lost[start : start + rng.integers(4, 13)] = True
    return frame[~lost]


def holidays(seed: int) -> Any:
    """Return the numbers of the days on which nobody works, one in about 25."""
    rng = np.random.default_rng([seed, 1])
    return np.flatnonzero(rng.random(TOTAL) < 0.04)


def prepare(table: Any) -> tuple[Any, Any, Any, Any]:
    """Return a regular table with a calendar, demand without a gap, and how it is scaled.

    Hours that lack are filled with the last value before them: a line would look ahead. After three
    hours the table keeps its gap, and windows with one are dropped; nothing filled is scored.
    """
    frame, filled = lc.data.resample(
        table[["demand"]], step="1h", method="previous", max_gap="3h", return_filled=True
    )
    whole = lc.data.resample(table[["demand"]], step="1h", method="previous")
    holiday = set(table.index[table["holiday"]].normalize())
    hour = 2 * np.pi * frame.index.hour / DAY
    frame["sin"], frame["cos"] = np.sin(hour), np.cos(hour)
    for day in range(7):
        frame[f"day {day}"] = (frame.index.day_of_week == day).astype(float)
    frame["holiday"] = frame.index.normalize().isin(holiday).astype(float)
    scaler = lc.data.Standardizer().fit(frame[["demand"]][: TRAIN * DAY])
    for one in (frame, whole):
        one["demand"] = scaler.transform(one["demand"])
    return frame, whole, ~filled["demand"].to_numpy(), scaler


def cut(frame: Any, first_day: int, last_day: int, stride: int) -> tuple[dict[str, Any], Any]:
    """Return weeks and the days after them, where those days are within the given ones."""
    part = frame[first_day * DAY - WEEK : last_day * DAY]
    calendar = [name for name in frame.columns if name != "demand"]
    return lc.data.windows(
        part, WEEK, steps=DAY, stride=stride, target=["demand"], known=calendar, missing="drop"
    )


def make_model(features: int, known: int, hidden: int, seed: int) -> Any:
    """Return a network that reads a week and the calendar of a day, and says its quantiles."""
    past, calendar = lc.Input(features), lc.Input(known)
    _, state = lc.GRU(features, hidden, seed=seed)(past)
    y, _ = lc.GRU(known, hidden, seed=seed + 1)(calendar, state)
    said = lc.Linear(hidden, len(QUANTILES), seed=seed + 2)(y)
    return lc.Model({"past": past, "known": calendar}, said)


def train(frame: Any, hidden: int, epochs: int, stride: int, seed: int) -> Any:
    """Fit the network to the days before TRAIN; keep its best epoch on those up to VALIDATION."""
    x, target = cut(frame, 7, TRAIN, stride)
    model = make_model(x["past"].shape[-1], x["known"].shape[-1], hidden, seed)
    optimizer = lc.optim.Adam(model.parameters(), lr=0.005)
    lc.fit(
        model,
        (x, target),
        batch_size=32,
        seed=seed,
        loss=partial(lc.losses.quantile, quantiles=QUANTILES),
        optimizer=optimizer,
        schedule=lc.optim.CosineLR(optimizer, epochs),
        epochs=epochs,
        clip_norm=1.0,
        validation=cut(frame, TRAIN, VALIDATION, DAY),
        callbacks=lc.callbacks.BestWeights(),
        progress=False,
    )
    return model


def evaluate(frame: Any, whole: Any, model: Any) -> tuple[dict[str, Any], Any, Any, Any]:
    """Return forecasts (24, W) of each, quantiles (24, W, Q), the truth, and the days."""
    x, target = cut(frame, VALIDATION, TOTAL, DAY)
    days = np.arange(VALIDATION, TOTAL)
    part = frame["demand"].to_numpy()
    complete = [not np.isnan(part[d * DAY - WEEK : (d + 1) * DAY]).any() for d in days]
    week = x["past"][..., :1].astype(float)
    ar = lc.baselines.AR(WEEK).fit(whole["demand"].to_numpy()[: TRAIN * DAY, None])
    quantiles = model(x)
    forecasts = {
        MODEL: quantiles[..., 1],
        f"AR({WEEK})": lc.generate(ar, week, DAY)[..., 0],
        "week before": lc.generate(lc.baselines.SeasonalNaive(WEEK), week, DAY)[..., 0],
        "day before": lc.generate(lc.baselines.SeasonalNaive(DAY), week, DAY)[..., 0],
    }
    return forecasts, quantiles, target[..., 0], days[complete]


def draw(forecasts: Any, quantiles: Any, target: Any, days: Any, first: int, path: Path) -> None:
    """Draw a week of forecasts, each made at midnight for the day to come."""
    from matplotlib import pyplot

    start = int(np.searchsorted(days, first))
    shown = slice(start, start + 7)
    hours = (days[shown, None] - days[start] + np.arange(DAY) / DAY).ravel()
    breaks = np.flatnonzero(np.diff(hours) > 0.1) + 1  # days that are not there

    def line(values: Any) -> Any:
        return np.insert(values[:, shown].T.ravel(), breaks, np.nan)

    hours = np.insert(hours, breaks, np.nan)
    figure, ax = pyplot.subplots(figsize=(9, 3.6))
    low, _, high = (line(quantiles[..., q]) for q in range(3))
    ax.fill_between(hours, low, high, color="C0", alpha=0.3, lw=0, label="GRUs, 80 % range")
    for (name, values), style in zip(list(forecasts.items())[:3], ("C0-", "C2--", "C1:")):
        ax.plot(hours, line(values), style, lw=1.3, label=name)
    ax.plot(hours, line(target), "k.", ms=3, label="demand")
    for day in range(8):
        ax.axvline(day, color="grey", lw=0.5)
    ax.set_title("A week of forecasts, each made at midnight for the day to come")
    ax.set_xlabel("time (days)")
    ax.set_ylabel("demand (MW)")
    ax.margins(x=0)
    figure.legend(loc="outside right upper")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    pyplot.close(figure)


def main() -> None:
    """Make the table, fit all models, print a table of errors."""
    parser = argparse.ArgumentParser(description="Hourly demand, a day ahead, with quantiles.")
    parser.add_argument("--hidden", type=int, default=32)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--stride", type=int, default=5, help="hours between training windows")
    parser.add_argument("--seed", type=int, default=0, help="of the table and of the model")
    parser.add_argument("--quick", action="store_true", help="fewer windows and epochs")
    parser.add_argument("--picture", type=Path, metavar="PATH", help="draw a week of forecasts")
    parser.add_argument("--from-day", type=int, default=437, help="where that week begins")
    args = parser.parse_args()
    if args.picture:
        lc.plot.use_style()  # fails now, and not at the end, where matplotlib is missing
    if args.quick:
        args.epochs, args.stride, args.hidden = 4, 24, 16
    if not VALIDATION <= args.from_day <= TOTAL - 7:
        parser.error(f"--from-day must be within {VALIDATION} to {TOTAL - 7}")

    frame, whole, measured, scaler = prepare(make_table(args.seed))
    model = train(frame, args.hidden, args.epochs, args.stride, args.seed)
    forecasts, quantiles, target, days = evaluate(frame, whole, model)
    forecasts = {name: scaler.inverse(y, columns="demand") for name, y in forecasts.items()}
    quantiles, target = (scaler.inverse(a, columns="demand") for a in (quantiles, target))
    measured = measured[days * DAY + np.arange(DAY)[:, None]]  # (24, W)
    free = np.isin(days, holidays(args.seed)) & measured
    print(f"demand a day ahead, {len(days)} days, {free.any(0).sum()} of them holidays; MW")
    print(f"{'mean absolute error':20}  all days  holidays    NSE")
    for name, y in forecasts.items():
        error, special = (
            lc.metrics.mae(y, target, weight=hours) if hours.any() else np.nan
            for hours in (measured, free)
        )
        nse = lc.metrics.nse(y, target, weight=measured)
        print(f"{name:20}{error:10.2f}{special:10.2f}{nse:7.2f}")
    inside = ((quantiles[..., 0] <= target) & (target <= quantiles[..., 2]))[measured].mean()
    loss = lc.metrics.pinball(quantiles, target, quantiles=QUANTILES, weight=measured)
    print(f"{100 * inside:.0f} % within the 10 and 90 % quantiles, pinball loss {loss:.2f}")
    if args.picture:
        draw(forecasts, quantiles, target, days, args.from_day, args.picture)


if __name__ == "__main__":
    main()
