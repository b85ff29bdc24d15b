"""Operators whose places or shapes are constants: worked out once, so that a call does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
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


def _squeeze(node: Node, axes: Tensor | None = None) -> Function | None:
    if node.opset < 13 or axes is None:
        return None
    gone: Any = tuple(axes.reshape(-1).tolist())
    return lambda x: x.squeeze(gone)


def _unsqueeze(node: Node, axes: Tensor | None = None) -> Function | None:
    new = [] if axes is None else axes.reshape(-1).tolist()
    if node.opset < 13 or not new or min(new) < 0 or len({*new}) < len(new):
        return None
    index = tuple(None if axis in new else slice(None) for axis in range(max(new) + 1))
    return lambda x: x[index]


def _pad(
    node: Node, pads: Tensor | None = None, value: Tensor | None = None, axes: Tensor | None = None
) -> Function | None:
    """One axis that is reflected, or the like: the places that it takes are kept for its size."""
    mode = node.attributes.get("mode", "constant")
    if node.opset < 11 or pads is None or mode == "constant" or pads.min(initial=0) < 0:
        return None
    around = pads.reshape(2, -1)
    wide = np.flatnonzero(np.any(around, axis=0))
    if len(wide) != 1 or axes is not None:
        return None
    axis, pad = int(wide[0]), around[:, wide[0]].tolist()
    rank = around.shape[1]
    last: tuple[int, Tensor] | None = None

    def run(x: Tensor) -> Tensor:
        nonlocal last
        if x.ndim != rank or not x.shape[axis]:
            raise ValueError(f"x has shape {x.shape}, but pads is {pads.tolist()}")
        size = x.shape[axis]
        places = last
        if places is None or places[0] != size:
            sizes([x.size // size, size + sum(pad)], x.dtype)
            places = last = size, np.pad(np.arange(size), pad, mode)
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
