"""Names of parametrised cases, so that `pytest -k` finds them and a failure tells which it was."""

from __future__ import annotations

from typing import Any


def name_of(value: Any) -> str | None:
    """Return the name of a value; None for numbers, strings and classes, which name themselves.

    ("LSTM", {"peephole": True, "proj_size": 2}) is "LSTM-peephole-proj_size=2", a shape "4x3".
    """
    if isinstance(value, dict):
        return "-".join(_option(name, option) for name, option in value.items()) or "plain"
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], dict):
        return "-".join([_text(value[0]), *(_option(*item) for item in value[1].items())])
    if isinstance(value, (tuple, list)):
        if all(type(part) is int for part in value):
            return "x".join(map(str, value)) or "empty"
        return ",".join(map(_text, value))
    if getattr(value, "__name__", "") == "<lambda>":
        return "call"
    return None


def _option(name: Any, value: Any) -> str:
    return str(name) if value is True else f"{name}={_text(value)}"


def _text(value: Any) -> str:
    if isinstance(value, (tuple, list)) and value and isinstance(value[0], str):
        first, *rest = map(_text, value)  # an activation and its constants, or several activations
        if any(isinstance(part, float) for part in value[1:]):
            return f"{first}({','.join(rest)})"
        return ",".join([first, *rest])
    text: str = getattr(value, "__name__", None) or name_of(value) or str(value)
    # Each process has other addresses; an array would fill the screen.
    return text if len(text) <= 60 and " at 0x" not in text else type(value).__name__
