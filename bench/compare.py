#!/usr/bin/env python3
"""Compare lstmcore with the libraries that are installed: PyTorch, ONNX Runtime, OpenVINO, JAX.

    python bench/compare.py --quick
    python bench/compare.py --threads 1 2 --json r.json --markdown r.md --plot r.png

Each library runs in a process of its own, in short turns; outputs are checked to be equal before
anything is timed. See bench/README.md for how to read the tables. What options of a layer cost that
no library has in its layers, and layer normalisation beside a loop in TorchScript, options.py
measures; attention, CTC and the CRF, heads.py.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import precision
import report
from cases import GROUPS, Case, all_cases, quick_cases
from limits import cache_sizes
from peers import LABELS, OURS
from rounds import Result, Team, run_case
from worker import LIMITS
from workers import Failed, NotSupported, WorkerProcess, environment


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--threads", type=int, nargs="+", default=[1], metavar="N")
    parser.add_argument("--cells", nargs="+", choices=["lstm", "gru", "rnn"])
    parser.add_argument("--groups", nargs="+", choices=GROUPS)
    parser.add_argument(
        "--filter", nargs="+", default=[], metavar="TEXT", help="cases whose name has one of these"
    )
    parser.add_argument("--quick", action="store_true", help="a dozen cases, under three minutes")
    parser.add_argument(
        "--budget", type=float, metavar="SECONDS", help="for each case (default: 4, quick: 2)"
    )
    parser.add_argument("--isa", metavar="LEVEL", help="ISA level of lstmcore and of the limits")
    peers = [name for name in LABELS if name != OURS]
    parser.add_argument("--peers", nargs="*", choices=peers, default=peers)
    parser.add_argument(
        "--low-precision",
        action="store_true",
        help="then also bfloat16 and int8, as the others choose them by default: precision.py",
    )
    parser.add_argument("--json", type=Path, metavar="PATH", help="all numbers, after each case")
    parser.add_argument("--markdown", type=Path, metavar="PATH", help="the tables")
    parser.add_argument("--plot", type=Path, metavar="PATH", help="a picture; needs matplotlib")
    parser.add_argument("--list", action="store_true", help="print the cases and stop")
    args = parser.parse_args()
    if args.budget is None:
        args.budget = 2.0 if args.quick else 4.0
    if min(args.threads) < 1 or args.budget <= 0:
        parser.error("--threads and --budget must be positive")
    return args


def chosen(args: argparse.Namespace) -> list[Case]:
    """Return the cases that were asked for."""
    return [
        case
        for case in (quick_cases() if args.quick else all_cases())
        if (not args.cells or case.cell in args.cells)
        and (not args.groups or case.group in args.groups)
        and (not args.filter or any(text in case.name for text in args.filter))
    ]


def start(name: str, argument: str, env: dict[str, str], stack: ExitStack) -> WorkerProcess | None:
    """Start a worker; say so and return None if its library is not there."""
    try:
        return stack.enter_context(WorkerProcess(name, argument, env))
    except NotSupported as reason:
        print(f"{LABELS.get(name, name)} is left out: {reason}", flush=True)
    except Failed as error:
        print(f"{LABELS.get(name, name)} is left out, it failed:\n{error}", flush=True)
    return None


def machine(team: Team, isa: str) -> dict[str, Any]:
    """Return what the numbers depend on, with the limits of caches and multiply-adds."""
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "cpu": _cpu(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "isa": isa,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "versions": {LABELS[w.name]: w.about["version"] for w in (team.ours, *team.peers.values())},
        "limits": {},
    }
    if team.limits is not None:
        sizes = cache_sizes()
        # Half a cache is surely in it. The largest is often shared, and huge: 4 L2s are beyond L2.
        places = {
            "L1": sizes["L1"] // 2,
            "L2": sizes["L2"] // 2,
            "L3": min(4 * sizes["L2"], sizes["L3"] // 2),
        }
        found["limits"] = {
            "GFLOP/s": team.limits("flops", team.threads, False, 0.05) / 1e9,
            "of a product": team.limits("flops", team.threads, True, 0.05) / 1e9,
            **{
                f"{name} GB/s": team.limits("read", team.threads, size, 0.05) / 1e9
                for name, size in places.items()
            },
        }
    return found


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


class Comparison:
    """All cases on one number of threads."""

    def __init__(self, args: argparse.Namespace, threads: int, stack: ExitStack) -> None:
        self._args, self._threads, self._stack = args, threads, stack
        self._env = environment(threads, args.isa)
        ours = start(OURS, str(threads), self._env, stack)
        if ours is None:
            raise SystemExit("lstmcore is not installed: pip install .")
        self.isa = ours.about["isa"]
        peers = {name: start(name, str(threads), self._env, stack) for name in args.peers}
        self.team = Team(
            threads,
            ours,
            {name: worker for name, worker in peers.items() if worker is not None},
            start(LIMITS, self.isa, self._env, stack),
        )
        self.machine = machine(self.team, self.isa)

    def run(self, case: Case) -> Result | None:
        """Run a case; None if our own library failed."""
        self._replace_the_dead()
        try:
            return run_case(self.team, case, self._args.budget)
        except (Failed, NotSupported) as error:
            print(f"{case.name}: lstmcore failed:\n{error}", file=sys.stderr, flush=True)
            return None

    def _replace_the_dead(self) -> None:
        team, threads = self.team, str(self._threads)
        if not team.ours.alive:
            team.ours = WorkerProcess(OURS, threads, self._env)
            self._stack.enter_context(team.ours)
        for name, worker in list(team.peers.items()):
            if not worker.alive:
                again = start(name, threads, self._env, self._stack)
                if again is None:
                    del team.peers[name]
                else:
                    team.peers[name] = again
        if team.limits is not None and not team.limits.alive:
            team.limits = start(LIMITS, self.isa, self._env, self._stack)


def main() -> int:
    """Run; return 1 if an output was wrong or a library failed."""
    args = arguments()
    cases = chosen(args)
    if args.list or not cases:
        print(*(case.name for case in cases), f"{len(cases)} cases", sep="\n")
        return not cases
    document: dict[str, Any] = {"command": " ".join(sys.argv), "runs": []}
    failed = False
    for threads in args.threads:
        with ExitStack() as stack:
            comparison = Comparison(args, threads, stack)
            run: dict[str, Any] = {
                "threads": threads,
                "machine": comparison.machine,
                "results": [],
            }
            document["runs"].append(run)
            print(report.heading(run), flush=True)
            for number, case in enumerate(cases, 1):
                result = comparison.run(case)
                if result is None:
                    failed = True
                    continue
                run["results"].append(vars(result))
                failed |= bool(result.errors)
                line = report.one_line(vars(result))
                print(f"[{number}/{len(cases)}] {line}", flush=True)
                if args.json:
                    report.write_json(document, args.json)
    text = report.markdown(document)
    if args.low_precision:
        print("\nIn bfloat16 and int8, one thread")
        lines = precision.table(15, args.isa)
        text += "\n".join(["", "## In bfloat16 and int8, one thread", "", *lines, ""])
    if args.markdown:
        args.markdown.write_text(text)
    if args.plot:
        report.plot(document, args.plot)
    print()
    print(report.summary(document))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
