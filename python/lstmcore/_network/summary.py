"""A network as a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .._base.module import Module
from .plan import Plan

__all__ = ["table"]


def table(plan: Plan, children: Mapping[str, Module], total: int) -> str:
    """Return a row for each input and call of a plan, and the number of all parameters."""
    names = {id(module): name for name, module in children.items()}
    sources = dict(enumerate(plan.names))  # of every slot: what gives it
    rows = [("name", "module", "gives", "parameters", "takes")]
    rows += [
        (name, "", str(axes), "", "")
        for name, (axes, _) in zip(plan.names, plan.given, strict=True)
    ]
    seen: set[int] = set()
    for step in plan.steps:
        module: Any = step.module
        name = names.get(id(module)) or type(module).__name__.lower()
        count = (
            "" if id(module) in seen or not module.num_parameters else str(module.num_parameters)
        )
        seen.add(id(module))
        sources |= dict.fromkeys(step.outs, name)
        gives = ", ".join(str(plan.axes[y]) for y in step.outs)
        takes = ", ".join(dict.fromkeys(sources[x] for x in step.xs if x is not None))
        rows.append((name, repr(module).replace("\n", " "), gives, count, takes))
    widths = [max(len(row[i]) for row in rows) for i in range(5)]
    lines = []
    for row in rows:
        cells = [
            text.rjust(w) if i == 3 else text.ljust(w)
            for i, (text, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join([*lines, f"{total} parameters"])
