#!/usr/bin/env python3
"""Tables and pictures of what compare.py measured.

python bench/report.py results.json --markdown results.md --plot results.png
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from peers import LABELS, OURS
from rounds import ONE_THREAD, PLAIN

__all__ = ["best_peer", "heading", "markdown", "one_line", "plot", "summary", "write_json"]

Row = dict[str, Any]  # vars() of a rounds.Result
PEERS = [name for name in LABELS if name != OURS]
TITLES = {
    "inference": "Inference",
    "training": "Training step: forward, backward, gradient of everything",
    "lengths": "Rows of unequal lengths",
    "variants": "Variants, beside our plain cell",
    "networks": "Shapes of real networks",
}


def write_json(document: Row, path: Path) -> None:
    """Write everything; a reader never finds half of it."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(document, indent=1) + "\n")
    unfinished.replace(path)


def best_peer(row: Row) -> tuple[str, float] | None:
    """Return the fastest peer and its median ratio to us: above 1 we are faster."""
    ratios = {name: row["ratios"][name] for name in PEERS if name in row["ratios"]}
    if not ratios:
        return None
    name = min(ratios, key=lambda name: ratios[name])
    return name, ratios[name]


def _micro(seconds: Iterable[float]) -> str:
    value = statistics.median(seconds) * 1e6
    return f"{value:.3g}" if value < 100 else f"{value:,.0f}"


def _last_line(text: str) -> str:
    """What a traceback says in the end."""
    return text.splitlines()[-1]


def _gflops(row: Row) -> float:
    return float(row["flops"] / statistics.median(row["times"][OURS]) / 1e9)


def one_line(row: Row) -> str:
    """Say how a case went."""
    parts = [f"{row['case']['name']}: {_micro(row['times'][OURS])} µs"]
    for key in (*PEERS, PLAIN, ONE_THREAD):
        if key in row["ratios"]:
            parts.append(f"{LABELS.get(key, key)} x{row['ratios'][key]:.2f}")
    if row["fraction"] is not None:
        parts.append(f"{row['fraction']:.0%} of the {row['bound']} limit")
    parts += [f"{LABELS[name]}: ERROR, {_last_line(text)}" for name, text in row["errors"].items()]
    return ", ".join(parts)


def heading(run: Row) -> str:
    """Say what machine this is."""
    about = run["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in about["versions"].items())
    threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
    lines = [
        f"{about['cpu']}, {threads}, lstmcore at {about['isa']}, {about['date']}",
        f"{versions}; Python {about['python']}, {about['system']}",
    ]
    if about["limits"]:
        limits = ", ".join(f"{name} {value:.0f}" for name, value in about["limits"].items())
        lines.append(f"Limits before the run, float32: {limits}")
    else:
        lines.append("Limits not measured")
    if about["load"] is not None and about["load"] > 0.5:
        lines.append(f"Other work was running: the load average was {about['load']:.1f}")
    return "\n".join(lines)


def _peaks(run: Row) -> str:
    def spread(key: str) -> str:
        rates = sorted(rate / 1e9 for row in run["results"] for rate in row[key])
        low, middle, high = (rates[int(q * (len(rates) - 1))] for q in (0.05, 0.5, 0.95))
        return f"median {middle:.0f} GFLOP/s, from {low:.0f} (5 %) to {high:.0f} (95 %)"

    if not any(row["peak"] for row in run["results"]):
        return ""
    return (
        f"Multiply-adds in the rounds, in registers: {spread('peak')}; "
        f"of a product: {spread('product')}."
    )


def _groups(run: Row) -> Iterator[tuple[str, list[Row]]]:
    for group, title in TITLES.items():
        rows = [row for row in run["results"] if row["case"]["group"] == group]
        if rows:
            yield title, rows


def _cells(row: Row, peers: list[str], extra: list[str]) -> list[str]:
    """One line of a table."""
    times, ratios = row["times"], row["ratios"]
    cells = [f"`{row['case']['name']}`", _micro(times[OURS])]
    for name in peers:
        if name in times:
            cells.append(_micro(times[name]))
        else:
            cells.append("error" if name in row["errors"] else "-")
    best = best_peer(row)
    if best is None:
        cells.append("-")
    else:
        text = f"{best[1]:.2f}"
        cells.append(text if best[1] >= 1 else f"**{text}**")
    cells.append(f"{_gflops(row):.3g}")
    if row["fraction"] is None:
        cells += ["-", "-", "-"]
    else:
        cells.append("-" if best is None else f"{best[1] / row['fraction']:.2f}")
        cells.append(f"{row['fraction'] * 100:.0f} % {row['bound']}")
        cells.append(f"{row['of_peak'] * 100:.0f} %")
    if PLAIN in extra:
        if PLAIN in ratios:
            cells += [f"{1 / ratios[PLAIN]:.2f}", f"{row['plain_work']:.2f}"]
        else:
            cells += ["-", "-"]
    if ONE_THREAD in extra:
        cells += [f"{ratios[ONE_THREAD]:.2f}", f"{row['scaling']:.2f}" if row["scaling"] else "-"]
    return cells


def _table(rows: list[Row]) -> str:
    peers = [name for name in PEERS if any(name in {**r["times"], **r["errors"]} for r in rows)]
    extra = [key for key in (PLAIN, ONE_THREAD) if any(key in row["ratios"] for row in rows)]
    header = ["case", "ours µs", *(f"{LABELS[name]} µs" for name in peers)]
    header += ["best peer / ours", "GFLOP/s", "best peer / limit", "of the limit", "of the peak"]
    if PLAIN in extra:
        header += ["time / plain", "work / plain"]
    if ONE_THREAD in extra:
        header += ["speed / 1 thread", "peak / 1 thread"]
    lines = [header, ["---"] + ["---:"] * (len(header) - 1)]
    lines += [_cells(row, peers, extra) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(title: str, rows: list[Row]) -> str:
    """Count wins and losses against the best peer of each case."""
    ratios = sorted(best[1] for best in map(best_peer, rows) if best)
    if not ratios:
        return f"{title}: no peer has these."
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    lost = sum(ratio < 1 for ratio in ratios)
    return (
        f"{title}: best peer / ours from {ratios[0]:.2f} to {ratios[-1]:.2f}, geometric mean "
        f"{mean:.2f}; slower than the best peer in {lost} of {len(ratios)} cases."
    )


def summary(document: Row) -> str:
    """Return a line for each group, and every error."""
    lines = []
    for run in document["runs"]:
        threads = f"{run['threads']} thread{'s' if run['threads'] > 1 else ''}"
        for title, rows in _groups(run):
            lines.append(_verdict(f"{title}, {threads}", rows))
        for row in run["results"]:
            for name, text in row["errors"].items():
                where = f"{row['case']['name']}, {threads}, {LABELS[name]}"
                lines.append(f"ERROR {where}: {_last_line(text)}")
    return "\n".join(lines)


def markdown(document: Row) -> str:
    """Return everything as tables. Cases that are lost are bold."""
    parts = [f"Command: `{document['command']}`"]
    for run in document["runs"]:
        parts.append(f"## {run['threads']} thread{'s' if run['threads'] > 1 else ''}")
        parts.append("\n".join(f"- {line}" for line in heading(run).splitlines()))
        parts.append(_peaks(run))
        for title, rows in _groups(run):
            parts += [f"### {title}", _verdict(title, rows), _table(rows)]
        errors = [
            f"- `{row['case']['name']}`, {LABELS[name]}: {_last_line(text)}"
            for row in run["results"]
            for name, text in row["errors"].items()
        ]
        if errors:
            parts += ["### Errors", "\n".join(errors)]
    return "\n\n".join(part for part in parts if part) + "\n"


def plot(document: Row, path: Path) -> None:
    """Draw, case by case, the ratio to every peer and the fraction of the limit."""
    try:
        import matplotlib

        matplotlib.use("Agg")
        import matplotlib.pyplot as plt
    except ImportError:
        print("No picture: matplotlib is not installed.")
        return
    runs = [run for run in document["runs"] if run["results"]]
    tallest = max(len(run["results"]) for run in runs)
    figure, axes = plt.subplots(
        1, 2 * len(runs), figsize=(11 * len(runs), 1.5 + 0.19 * tallest), squeeze=False
    )
    for run, (left, right) in zip(runs, axes.reshape(-1, 2)):
        rows = run["results"][::-1]
        at = range(len(rows))
        left.set_yticks(at, [row["case"]["name"] for row in rows], fontsize=6)
        left.axvline(1, color="black", linewidth=0.8)
        for color, name in zip(("C1", "C0", "C4", "C2"), PEERS):
            points = [(r["ratios"][name], y) for y, r in zip(at, rows) if name in r["ratios"]]
            if points:
                left.plot(*zip(*points), "o", markersize=3.5, color=color, label=LABELS[name])
        left.set_xscale("log")
        left.set_xlabel("their time / ours: right of 1 we are faster")
        left.set_title(f"{run['threads']} thread(s), {run['machine']['isa']}")
        if left.get_legend_handles_labels()[0]:
            left.legend(fontsize=7)
        for bound, color in (("compute", "C3"), ("memory", "C5")):
            bars = [
                (y, r["fraction"])
                for y, r in zip(at, rows)
                if r["fraction"] is not None and r["bound"] == bound
            ]
            if bars:
                right.barh(*zip(*bars), color=color, label=f"bound by {bound}")
        right.set_yticks(at, [""] * len(rows))
        right.axvline(1, color="black", linewidth=0.8)
        right.set_xlabel("fraction of the limit")
        if right.get_legend_handles_labels()[0]:
            right.legend(fontsize=7)
        for axis in (left, right):
            axis.set_ylim(-0.7, tallest - 0.3)
            axis.grid(axis="x", linewidth=0.3)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def main() -> None:
    """Write the tables and the picture of one or more results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("json", type=Path, nargs="+")
    parser.add_argument("--markdown", type=Path, metavar="PATH")
    parser.add_argument("--plot", type=Path, metavar="PATH")
    args = parser.parse_args()
    found = [json.loads(path.read_text()) for path in args.json]
    document = {
        "command": "; ".join(each["command"] for each in found),
        "runs": [run for each in found for run in each["runs"]],
    }
    if args.markdown:
        args.markdown.write_text(markdown(document))
    if args.plot:
        plot(document, args.plot)
    print(summary(document))


if __name__ == "__main__":
    main()
