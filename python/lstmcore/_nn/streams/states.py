"""The states of streams: as users give and get them, and as the core does."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..._base import checks
from ..._base.checks import Array

__all__ = ["check_entries", "chosen_rows", "joined_state", "split_state", "state_parts"]


def chosen_rows(rows: Any, batch_size: int) -> list[int]:
    """Return the rows of a batch that are meant: numbers, or bools for each; None is all."""
    if rows is None:
        return list(range(batch_size))
    chosen = np.atleast_1d(checks._asarray(rows, "rows"))
    if chosen.dtype == np.bool_ and chosen.shape == (batch_size,):
        chosen = np.flatnonzero(chosen)
    elif chosen.size == 0:
        chosen = np.empty(0, np.int64)
    if chosen.dtype.kind not in "iu" or chosen.ndim != 1:
        what = f"dtype {chosen.dtype} and shape {chosen.shape}"
        raise TypeError(f"rows has {what}, expected integers, or ({batch_size},) bools")
    if ((chosen < 0) | (chosen >= batch_size)).any():
        raise ValueError(f"rows is {rows}, expected 0 to {batch_size - 1}")
    found: list[int] = chosen.tolist()
    return found


def joined_state(layers: list[Any], states: Any, bare: bool) -> Any:
    """Return the (h, c) of every layer as users get them: as the layers take and give them."""
    found = [
        (h, c) if len(layer._state_parts) == 2 else h
        for layer, (h, c) in zip(layers, states, strict=True)
    ]
    return found[0] if bare else tuple(found)


def split_state(
    layers: list[Any], value: Any, batch_size: int, dtype: np.dtype[Any], bare: bool
) -> list[tuple[Array | None, Array | None]]:
    """Return the (h, c) of every layer, having checked a state that users give."""
    if bare:
        return [state_parts(layers[0], value, batch_size, "state", dtype)]
    count = len(layers)
    value = [None] * count if value is None else value
    check_entries(value, count, "state", f"a tuple of {count}, one per layer")
    return [
        state_parts(layer, v, batch_size, f"state[{i}]", dtype)
        for i, (layer, v) in enumerate(zip(layers, value, strict=True))
    ]


def state_parts(
    layer: Any, value: Any, batch_size: int, name: str, dtype: np.dtype[Any]
) -> tuple[Array | None, Array | None]:
    """Return h and c of the state of a layer, as the core wants them."""
    rows = (layer.num_layers, batch_size)

    def part(value: Any, size: int, name: str) -> Array | None:
        if value is None:
            return None
        axes = f"(num_layers, B, {'H' if size == layer._hidden else 'P'})"
        return checks.contiguous(value, (*rows, size), dtype, name, axes)

    if len(layer._state_parts) == 1:
        return part(value, layer._outputs, name), None
    if value is None:
        return None, None
    check_entries(value, 2, name, "a pair (h, c)")
    h, c = value
    return part(h, layer._outputs, f"h of {name}"), part(c, layer._hidden, f"c of {name}")


def check_entries(value: Any, count: int, name: str, expected: str) -> None:
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} is {checks.describe(value)}, expected {expected}")
    if len(value) != count:
        raise ValueError(f"{name} has {len(value)} entries, expected {expected}")
