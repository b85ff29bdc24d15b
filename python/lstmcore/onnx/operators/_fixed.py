"""Operators whose places or shapes are constants: worked out once, so that a call does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import methodcaller
from typing import Any

import numpy as np

from .._model import Node, Tensor
from .._reading import dtype_of
from ._products import Convolution
from ._registry import FAILURES, Function, sizes

__all__ = ["fixed"]


def fixed(node: Node, constants: Mapping[str, Tensor]) -> Function | None:
    """Return a function of the first input alone, if all others are constants that allow it."""
    rule = None if node.domain else _RULES.get(node.op)
    others = [constants.get(name) if name else None for name in node.inputs[1:]]
    absent = any(name and a is None for name, a in zip(node.inputs[1:], others, strict=True))
    if rule is None or absent or not node.inputs or len(node.outputs) > 1:
        return None
    try:
        return rule(node, *others)
    except FAILURES:  # the operator itself says what does not fit
        return None


def _cast(node: Node) -> Function | None:
    kind = dtype_of(node.attributes["to"], "to")
    return lambda x: x.astype(kind, copy=False)


def _conv(node: Node, w: Tensor | None = None, b: Tensor | None = None) -> Function | None:
    return None if w is None else Convolution(w, b, packed=True, **node.attributes)


def _slice(node: Node, *given: Tensor | None) -> Function | None:
    if node.opset < 10 or len(given) < 2 or given[0] is None or given[1] is None:
        return None
    lists: list[Any] = [None if a is None else a.tolist() for a in (*given, None, None)]
    starts, stops, axes, steps = lists[:4]
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if min([*axes, *steps, 0]) < 0 or 0 in steps or not len(starts) == len(stops) == len(axes):
        return None
    where = [slice(None)] * (max(axes, default=-1) + 1)
    for axis, start, stop, step in zip(axes, starts, stops, steps, strict=True):
        where[axis] = slice(start, stop, step)
    index = tuple(where)
    return lambda x: x[index]


def _axes(node: Node, axes: Tensor | None) -> list[int] | None:
    """Return axes that are counted from the first, which older versions have as an attribute."""
    if node.opset < 13:
        found = node.attributes.get("axes")
    else:
        found = None if axes is None else axes.reshape(-1).tolist()
    return None if not found or min(found) < 0 or len({*found}) < len(found) else found


def _squeeze(node: Node, axes: Tensor | None = None) -> Function | None:
    gone = _axes(node, axes)
    return None if gone is None else methodcaller("squeeze", tuple(gone))


def _unsqueeze(node: Node, axes: Tensor | None = None) -> Function | None:
    new = _axes(node, axes)
    if new is None:
        return None
    index = tuple(None if axis in new else slice(None) for axis in range(max(new) + 1))
    return lambda x: x[index]


def _pad(
    node: Node, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Function | None:
    """Nothing; or one axis that is reflected, or the like: its places are kept for its size."""
    if node.opset < 11 or pads is None or axes is not None or pads.min(initial=0) < 0:
        return None
    around = pads.reshape(2, -1).T.tolist()
    wide = [axis for axis, pad in enumerate(around) if any(pad)]
    mode = node.attributes.get("mode", "constant")
    if len(wide) > 1 or (wide and mode == "constant"):
        return None
    last: tuple[int, Tensor] | None = None

    def run(x: Tensor) -> Tensor:
        nonlocal last
        if x.ndim != len(around):
            raise ValueError(f"x has shape {x.shape}, but pads is {pads.tolist()}")
        if not wide:
            return x
        (axis,), places = wide, last
        size = x.shape[axis]
        if places is None or places[0] != size:
            sizes([x.size // max(size, 1), size + sum(around[axis])], x.dtype)
            places = last = size, np.pad(np.arange(size), around[axis], mode)
        return x.take(places[1], axis)

    return run


def _reshape(node: Node, shape: Tensor | None = None) -> Function | None:
    if shape is None or 0 in shape or (shape.size and shape.min() < 0):
        return None
    asked = shape.tolist()
    return lambda x: x.reshape(asked)


def _gather(node: Node, index: Tensor | None = None) -> Function | None:
    """One place of an axis: a view, which no other index gives."""
    axis = node.attributes.get("axis", 0)
    if index is None or index.shape != () or axis < 0:
        return None
    where = (*[slice(None)] * axis, int(index))
    return lambda x: x[where]


def _transpose(node: Node) -> Function | None:
    perm = node.attributes.get("perm")
    return None if not perm or min(perm) < 0 else lambda x: x.transpose(perm)


_RULES: dict[str, Callable[..., Function | None]] = {
    "Cast": _cast,
    "Conv": _conv,
    "Gather": _gather,
    "Pad": _pad,
    "Reshape": _reshape,
    "Slice": _slice,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
