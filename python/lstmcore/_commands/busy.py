"""Whether other programs keep the machine busy: the times that we show are longer then."""

from __future__ import annotations

import os

__all__ = ["hint"]


def hint(load: float | None = None) -> list[str]:
    """Return a line to show if more than half of the cores are busy already, else none.

    Parameters
    ----------
    load : float, optional
        How many programs run, by default the average of the last minute; not known everywhere.
    """
    cores = os.cpu_count() or 1
    if load is None:
        try:
            load = os.getloadavg()[0]
        except (AttributeError, OSError):
            return []
    if load <= cores / 2:
        return []
    return [
        f"Other programs are running (load {load:.1f} on {cores} cores), so that times are longer "
        "than they could be.\nLSTMCORE_NUM_THREADS=1 in the environment keeps to one thread, which "
        "suffers least.\n"
    ]
