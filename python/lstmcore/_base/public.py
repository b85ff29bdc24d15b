"""Where public names say that they live."""

from __future__ import annotations

from typing import Any

__all__ = ["publish"]


def publish(namespace: dict[str, Any]) -> None:
    """Let what a public module shows say that it is of that module, not of the file it is in.

    So tracebacks, pickles and documentation name a place that users can import from, and files can
    move without breaking pickles.

    Parameters
    ----------
    namespace : dict
        ``globals()`` of the public module; its ``__all__`` names what is public.
    """
    for name in namespace["__all__"]:
        thing = namespace[name]
        if "._" in (getattr(thing, "__module__", None) or ""):
            thing.__module__ = namespace["__name__"]
