"""What a library has to offer to be compared."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from cases import Case
from data import Array, Data

__all__ = ["Peer", "Unsupported", "Way", "reordered"]


class Unsupported(Exception):
    """The library, or the comparison with it, does not have this case."""


@dataclass
class Way:
    """One way of running a case; a library may have several, and its fastest is taken.

    Attributes
    ----------
    run : callable
        What is timed.
    outputs : callable
        Turns what `run` returned into y (T, B, D*P) and, in training, dx and a gradient for each
        parameter by its name.
    enter : callable, optional
        Called before a series of runs, for settings of the whole process.
    keep : object
        What the library reads and does not keep alive itself.
    """

    name: str
    run: Callable[[], Any]
    outputs: Callable[[Any], dict[str, Array]]
    enter: Callable[[], None] = lambda: None
    keep: object = None


class Peer(Protocol):
    """A library in its worker process."""

    version: str

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield the ways of running the case; raise Unsupported if there is none."""


def _layouts() -> Any:
    """Load the library's table of gate orders by itself, so that its threads are not here too."""
    path = Path(__file__).parents[2] / "python" / "lstmcore" / "_files" / "layouts.py"
    spec = importlib.util.spec_from_file_location("layouts", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


layouts = _layouts()


def reordered(array: Array, case: Case, library: str, without: str = "") -> Array:
    """Return a parameter with its gates in the order of a library; those that ours lacks are 0.

    `without` are gates that the parameter has no part for.
    """
    ours, theirs = case.gate_order, layouts.LAYOUTS[library].order(case.cell)
    for gate in without:
        ours, theirs = ours.replace(gate, ""), theirs.replace(gate, "")
    result: Array = layouts.reordered(array, ours, theirs)
    return result
