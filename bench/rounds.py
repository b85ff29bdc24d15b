"""One case: prepared in every library, checked to be equal, timed in rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

import numpy as np

from cases import Case, as_dict
from data import Array
from peers import OURS
from roofline import work
from workers import Failed, NotSupported, WorkerProcess

__all__ = ["Result", "Team", "run_case"]

TOLERANCE = {"float32": 1e-4, "float64": 1e-9}
# Our own layer beside itself: the plain cell, and one thread where there are more.
PLAIN, ONE_THREAD = "plain", "one thread"
SLICE = 0.01  # seconds that a library computes in a round, if one call takes less
LIMIT_SLICE = 0.004
MOST_ROUNDS = 100


@dataclass
class Team:
    """The workers: lstmcore, its peers by name, and the limits if they can be measured."""

    threads: int
    ours: WorkerProcess
    peers: dict[str, WorkerProcess]
    limits: WorkerProcess | None


@dataclass
class Result:
    """What was found about a case; all times in seconds.

    Attributes
    ----------
    times : dict
        Seconds per call in each round: of lstmcore, of each peer, of "plain" (our plain cell) and
        of "one thread".
    ratios : dict
        The median over rounds of their time divided by ours.
    ways : dict
        How each library ran it.
    left_out : dict
        Why a peer did not take part.
    errors : dict
        Peers that failed, or whose outputs differ from ours.
    flops : float
        Of the products of one call.
    fraction : float, optional
        Of the limit that we reach, the median over rounds; `bound` says which limit.
    of_peak : float, optional
        The same if products could run at the peak.
    peak, product, bandwidth : list
        The limits in each round: multiply-adds in registers and those of a product, in operations
        per second, and bytes per second.
    scaling : float, optional
        How many times more multiply-adds all threads do than one.
    """

    case: dict[str, object]
    threads: int
    times: dict[str, list[float]] = field(default_factory=dict)
    ratios: dict[str, float] = field(default_factory=dict)
    ways: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    flops: float = 0.0
    plain_work: float | None = None  # our multiply-adds' time as a multiple of the plain cell's
    fraction: float | None = None
    of_peak: float | None = None
    bound: str = ""
    peak: list[float] = field(default_factory=list)
    product: list[float] = field(default_factory=list)
    bandwidth: list[float] = field(default_factory=list)
    scaling: float | None = None


def difference(ours: dict[str, Array], theirs: dict[str, Array], tolerance: float) -> str:
    """Say which output differs, and by how much; nothing if all are equal."""
    missing = set(ours) - set(theirs)
    if missing:
        return f"has no {', '.join(sorted(missing))}"
    for name, expected in ours.items():
        found = theirs[name]
        if found.shape != expected.shape:
            return f"{name} has shape {found.shape}, ours {expected.shape}"
        scale = max(1.0, float(np.abs(expected).max(initial=0)))
        error = float(np.abs(found - expected).max(initial=0)) / scale
        if not error <= tolerance:
            return f"{name} differs by {error:.1e} of {scale:.3g}, more than {tolerance:g}"
    return ""


def run_case(team: Team, case: Case, budget: float) -> Result:
    """Time a case for about `budget` seconds, at least three rounds.

    In a round every library computes for the same short time, and so do the loops that measure
    the machine's limits; the next round begins with the next library.
    """
    result = Result(as_dict(case), team.threads)
    call_seconds: dict[str, float] = {}
    ask: dict[str, Callable[[float], float]] = {}
    trial = min(SLICE, budget / 20)

    def prepare(worker: WorkerProcess, key: str, what: Case, threads: int | None) -> Any:
        way, call_seconds[key], outputs = worker("prepare", key, what, threads, trial)
        ask[key] = lambda seconds: float(worker("time", key, seconds))
        if way:
            result.ways[key] = way
        return outputs

    _clear(team)
    ours = prepare(team.ours, OURS, case, None)
    plain = case.baseline
    if plain is not None:
        prepare(team.ours, PLAIN, plain, None)
    if team.threads > 1:
        prepare(team.ours, ONE_THREAD, case, 1)
    for name, peer in team.peers.items():
        try:
            theirs = prepare(peer, name, case, None)
            wrong = difference(ours, theirs, TOLERANCE[case.dtype])
        except NotSupported as error:
            result.left_out[name] = str(error)
            continue
        except Failed as error:
            wrong = str(error).strip()
        if wrong:
            result.errors[name] = wrong
            ask.pop(name, None)
            call_seconds.pop(name, None)

    _time(team, case, budget, ask, call_seconds, result)
    todo = work(case)
    result.flops = todo.flops
    if plain is not None:
        usual = work(plain)
        result.plain_work = todo.flops * todo.scale / (usual.flops * usual.scale)
    mine = result.times[OURS]
    result.ratios = {
        key: statistics.median(t / m for t, m in zip(times, mine))
        for key, times in result.times.items()
        if key != OURS
    }
    if result.peak:

        def reached(flops: list[float]) -> tuple[float, str]:
            limits = [todo.seconds(f, b) for f, b in zip(flops, result.bandwidth)]
            fraction = statistics.median(limit / m for (limit, _), m in zip(limits, mine))
            return fraction, statistics.mode(bound for _, bound in limits)

        result.fraction, result.bound = reached(result.product)
        result.of_peak, _ = reached(result.peak)
    return result


def _time(
    team: Team,
    case: Case,
    budget: float,
    ask: dict[str, Callable[[float], float]],
    call_seconds: dict[str, float],
    result: Result,
) -> None:
    """Fill in the times and limits of each round."""
    slice_ = min(SLICE, budget / (10 * len(ask)))
    one_round = sum(slice_ + 2 * min(s, 10 * slice_) + s for s in call_seconds.values())
    rounds = min(max(3, int(budget / one_round)), MOST_ROUNDS)
    resident = -(-work(case).resident // team.threads)
    single: list[float] = []
    result.times = {key: [] for key in ask}
    names = list(ask)
    end = perf_counter() + budget
    for i in range(rounds):
        if i >= 3 and perf_counter() > end:
            break
        if team.limits is not None:
            result.peak.append(team.limits("flops", team.threads, False, LIMIT_SLICE))
            result.product.append(team.limits("flops", team.threads, True, LIMIT_SLICE))
            result.bandwidth.append(team.limits("read", team.threads, resident, LIMIT_SLICE))
            if team.threads > 1:
                single.append(team.limits("flops", 1, False, LIMIT_SLICE))
        first = i % len(names)
        for name in names[first:] + names[:first]:
            if name in result.errors:
                continue
            try:
                result.times[name].append(ask[name](slice_))
            except Failed as error:
                if name not in team.peers:
                    raise
                result.errors[name] = str(error).strip()
                del result.times[name]
    if single:
        result.scaling = statistics.median(p / s for p, s in zip(result.peak, single))


def _clear(team: Team) -> None:
    for worker in (team.ours, *team.peers.values()):
        worker("clear")
