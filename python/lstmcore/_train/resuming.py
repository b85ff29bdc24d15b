"""What a run that goes on from a checkpoint must have in common with the one that was saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["check_settings", "settings"]

Settings = dict[str, Any]


def settings(optimizer: Any, schedule: Any, data: Any, **given: Any) -> Settings:
    """Return what a run was begun with, by name, as JSON can hold it.

    A checkpoint has it, because its state replaces what is given: other values would be ignored.
    """
    found: Settings = dict(given)
    for name in ("batch_size", "shuffle", "given_seed"):
        value = getattr(data, name, None)
        if isinstance(value, int):
            found[name.removeprefix("given_")] = value
    for kind, part in (("optimizer", optimizer), ("schedule", schedule)):
        found[kind] = None if part is None else type(part).__name__
        options: Settings = getattr(part, "_options", dict)()
        found |= {f"{name} of the {kind}": _as_json(v) for name, v in options.items()}
    found.pop("lr of the optimizer", None)
    groups = getattr(optimizer, "groups", ())
    if len(groups) > 1:
        found["weight_decay of the groups"] = [group.weight_decay for group in groups]
    # A schedule works out the rate from the first one; without any it stays, but by hand.
    found["lr"] = [getattr(schedule, "base_lr", getattr(optimizer, "lr", None))]
    return found


def check_settings(saved: Mapping[str, Any], given: Settings) -> None:
    """Refuse to go on with other settings than those that were saved.

    What only one of the two knows of, as of a seed that was not given, is let pass.
    """
    complaints = []
    for name in sorted(saved.keys() & given.keys()):
        before, now = saved[name], given[name]
        if name == "lr":
            if not set(now) & set(before):
                complaints.append(f"lr is {now[0]}, and was {before[0]}")
        elif name not in ("optimizer", "schedule") and before != now:  # they compare themselves
            complaints.append(f"{name} is {now}, and was {before}")
    if complaints:
        raise ValueError(
            "; ".join(complaints) + ": expected the same, because the run goes on as it was begun; "
            "what may change on the way, change in a callback: run.optimizer.lr = ... in on_start"
        )


def _as_json(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
