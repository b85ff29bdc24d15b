"""What goes through a network beside x: lengths, resets and states.

A Sequential makes one `Flow` for each call, and hands it to every module with x (`Module._apply`).
Modules read what they need, and may change it for those after them: a Masking sets `lengths`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from .checks import Lengths

__all__ = ["BackwardFlow", "Ends", "Flow"]


class Ends(NamedTuple):
    """Where the rows of a network's output end, as a `Masking` in it has found."""

    lengths: Any
    moved: bool  # whether steps stand elsewhere than in x
    there: Any = None  # which steps count, like y without its features; None: all before the end


class Flow:
    """What the modules of a network share in one call, beside the x that each gives the next."""

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
        # Final states of the layers so far. The next layer has number len(final).
        self.final: list[Any] = []
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
    """The gradients of states. Backward goes from the last layer to the first."""

    __slots__ = ("final", "initial", "needs_dx")

    def __init__(self, final: list[Any]) -> None:
        self.final = final  # of the final states; each layer takes its own from the end
        self.initial: list[Any] = []  # of the initial states, that of the last layer first
        self.needs_dx = True  # whether the next module's dx is for somebody; may be None if not
