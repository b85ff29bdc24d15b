"""What goes through a network beside x: lengths, resets and states."""

from __future__ import annotations

from typing import Any

__all__ = ["BackwardFlow", "Flow"]


class Flow:
    """What the modules of one call share, besides the x that goes from one to the next."""

    __slots__ = ("batch_first", "feeds_lookup", "final", "lengths", "lookup", "resets", "states")

    def __init__(self, states: list[Any], lengths: Any, resets: Any, batch_first: bool) -> None:
        self.states = states  # the initial ones, one per recurrent layer, in order
        self.final: list[Any] = []  # of the layers that have run: the next one is number len(final)
        self.lengths = lengths  # where rows end; None where they have all steps
        self.resets = resets
        self.batch_first = batch_first
        # A layer behind an Embedding can take a table of vectors as x and, for each step, the row
        # of the table that it reads.
        self.feeds_lookup = False  # whether what comes next can
        self.lookup: Any = None


class BackwardFlow:
    """The gradients of states, which the layers take and give from the last to the first."""

    __slots__ = ("final", "initial")

    def __init__(self, final: list[Any]) -> None:
        self.final = final  # with respect to the final states; each layer takes its own off the end
        self.initial: list[Any] = []  # with respect to the initial states, the last layer's first
