"""Forward through a plan, and backward beside it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._base.checks import Lengths
from .._base.flow import BackwardFlow, Ends, Flow
from .._base.tree import leaves, rebuilt
from .plan import Plan, Step

__all__ = ["backward", "forward"]

_ALL_STEPS = Ends(None, False)


def forward(
    plan: Plan,
    values: list[Any],
    lengths: list[Lengths | None] | None,
    resets: list[Any] | None,
    flow: Flow,
    train: bool,
) -> tuple[list[Any], list[Ends], list[Any]]:
    """Run all steps; return the outputs, where the rows of each end, and the tapes.

    Lengths and resets are of each input; None for all if there are none. The final states are in
    the flow. What no step needs any more is let go.
    """
    spare, none = [None] * (plan.count - len(values)), [None] * len(values)
    cut = resets is not None and any(one is not None for one in resets)
    tracked = cut or plan.finds or (lengths is not None and any(n is not None for n in lengths))
    ends: list[Any] = [*(lengths or none), *spare] if tracked else []
    starts: list[Any] = [*(resets or none), *spare] if tracked else []
    values = [*values, *spare]
    lookups: dict[int, Any] = {}  # of tables: which row each step reads
    moved: dict[int, bool] = {}  # of lengths that were found: whether steps were moved
    tapes = []
    for step in plan.steps:
        module = step.module
        if tracked:
            alone = len(step.given) == 1  # as it is most often
            flow.lengths = (
                ends[step.given[0]] if alone else _common(ends, step.given, step, "lengths")
            )
            flow.resets = _common(starts, step.along, step, "resets") if cut else None
        if flow.resets is not None and module._moves_steps:
            raise ValueError(
                f"resets cannot be given to a model with {module!r}, which moves steps"
            )
        flow.feeds_lookup = step.feeds_lookup
        flow.lookup = lookups.pop(step.xs[0] or 0, None) if lookups else None
        xs = [None if x is None else values[x] for x in step.xs]
        args: Any = rebuilt(step.args, iter(xs)) if step.nested else xs
        given = flow.lengths
        y, tape = module._apply_all(args, flow, train)
        if flow.lookup is not None:
            lookups[step.outs[0]] = flow.lookup
        if len(step.outs) == 1:
            values[step.outs[0]] = y
            if train and step.inside and (y is not xs[0] if len(xs) == 1 else _is_new(y, xs)):
                y.flags.writeable = False  # so that no tape needs a copy of it
        else:
            for slot, value in zip(step.outs, y if step.flat else leaves(y), strict=True):
                values[slot] = value
        if tracked and step.timed:
            along = flow.lengths
            if module._finds_lengths:
                moved[id(along)] = flow.ends is not None and flow.ends.moved
            elif module._changes_lengths:
                if along is not None:
                    moved[id(along)] = moved.get(id(given), False)
            else:
                along = given
                if step.along != step.given:
                    along = _common(ends, step.along, step, "lengths")
            for slot in step.timed:
                ends[slot] = along
                starts[slot] = flow.resets
        if train:
            tapes.append((tape, [(v.shape, v.dtype) for v in leaves(y)]) if step.own else tape)
        for slot in step.frees:
            values[slot] = None
    found = [_ALL_STEPS] * len(plan.last)
    if tracked:
        last = [ends[slot] for slot in plan.last]
        found = [
            _ALL_STEPS if e is None else Ends(e.rows, moved.get(id(e), False), e.there)
            for e in last
        ]
    return [values[slot] for slot in plan.last], found, tapes


def backward(
    plan: Plan, tapes: list[Any], gradients: list[Any], flow: BackwardFlow, needs_dx: bool
) -> tuple[list[Any], list[Any]]:
    """Go back through all steps, from the gradients by slot; those not known are None.

    The flow has those of the past steps that convolutions have left. Return those of the inputs,
    some of which are None without `needs_dx`, and those of the initial states that the plan does
    not give. Tapes and gradients are let go as they are used.
    """
    states: list[Any] = []
    for step in reversed(plan.steps):
        tape = tapes.pop()
        dy = [gradients[slot] for slot in step.outs]
        for slot in step.outs:
            gradients[slot] = None
        idle = not (needs_dx or step.trains) or (
            dy[0] is None and all(d is None for d in dy) and not step.past
        )
        if idle:
            dx: Any = [None] * len(step.args)
        else:
            if step.own:
                tape, like = tape
                dy = [np.zeros(*a) if d is None else d for d, a in zip(dy, like, strict=True)]
            dys = tuple(dy) if step.flat else rebuilt(step.ys, iter(dy))
            flow.needs_dx = needs_dx or step.needs_dx
            dx = step.module._apply_all_backward(tape, dys, flow)
        del tape, dy
        if step.place is not None and not step.wired:
            states.append(flow.initial.pop() if step.past else dx[1])
        if step.nested or dx is None:
            _add(gradients, step.args, dx)
            continue
        for slot, one in zip(step.args, dx, strict=False):
            if slot is not None and one is not None:
                before = gradients[slot]
                gradients[slot] = one if before is None else before + one
    return gradients[: len(plan.given)], states[::-1]


def _add(gradients: list[Any], slots: Any, given: Any) -> None:
    """Add gradients to those of their slots; None, for one or a whole structure, is zeros."""
    if given is None or slots is None:
        return
    if isinstance(slots, (tuple, list)):
        for slot, one in zip(slots, given, strict=False):
            _add(gradients, slot, one)
    else:
        before = gradients[slots]
        gradients[slots] = given if before is None else before + given


def _is_new(y: Any, xs: list[Any]) -> bool:
    """Whether y is an array of its own, and not one of xs."""
    return all(y is not x for x in xs)


def _common(found: list[Any], slots: list[int], step: Step, name: str) -> Any:
    """Return what all slots have there, or say that they differ."""
    if not slots:
        return None
    first = found[slots[0]]
    if len(slots) == 1:
        return first
    for slot in slots[1:]:
        other = found[slot]
        if other is first:
            continue
        one, two = (x.rows if isinstance(x, Lengths) else x for x in (first, other))
        if one is None or two is None or not np.array_equal(one, two):
            raise ValueError(
                f"{step.module!r} meets values with other {name}, {one} and {two}, expected the "
                "same for both"
            )
    return first
