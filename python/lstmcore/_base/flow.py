"""What goes through a network beside x: lengths, resets and states."""

from __future__ import annotations

from typing import Any, NamedTuple

from .checks import Lengths

__all__ = ["BackwardFlow", "Ends", "Flow"]


class Ends(NamedTuple):
    """Where the rows of a network's output end, as a `Masking` in it has found."""

    lengths: Any
    moved: bool  # whether steps stand elsewhere than in x


class Flow:
    """What the modules of one call share, besides the x that goes from one to the next."""

    __slots__ = (
        "batch_first",
        "ends",
        "feeds_lookup",
        "final",
        "lengths",
        "lookup",
        "resets",
        "states",
    )

    def __init__(self, states: list[Any], lengths: Any, resets: Any, batch_first: bool) -> None:
        self.states = states  # the initial ones, one per recurrent layer, in order
        self.final: list[Any] = []  # of the layers so far; the next one is number len(final)
        # Where rows end; None where they have all steps.
        self.lengths = None if lengths is None else Lengths(lengths)
        self.ends: Ends | None = None  # set by a Masking
        self.resets = resets
        self.batch_first = batch_first
        # Behind an Embedding a recurrent layer takes a table of vectors as x, and as `lookup` the
        # row of the table that each step reads: so it multiplies each vector once.
        self.feeds_lookup = False  # whether the next module takes a lookup
        self.lookup: Any = None


class BackwardFlow:
    """The gradients of states, which the layers take and give from the last to the first."""

    __slots__ = ("final", "initial")

    def __init__(self, final: list[Any]) -> None:
        self.final = final  # of the final states; each layer pops its own from the end
        self.initial: list[Any] = []  # of the initial states, the last layer's first
