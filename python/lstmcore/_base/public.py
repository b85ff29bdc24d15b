"""Where public names say that they live."""

from __future__ import annotations

from typing import Any

__all__ = ["Elsewhere", "explain", "publish", "where_else"]

# Names of PyTorch and Keras, and those of the same here.
_NAMES = {
    "BatchNormalization": "BatchNorm",
    "Conv1d": "Conv1D",
    "Dense": "Linear",
    "LayerNormalization": "LayerNorm",
    "MultiHeadAttention": "attention.MultiHead",
    "MultiheadAttention": "attention.MultiHead",
    "SimpleRNN": "RNN",
    "load_model": "load",
    "layers": "LSTM and others, in lstmcore itself",
    "nn": "LSTM and others, in lstmcore itself",
    "save_model": "save",
    "train": "fit",
}


def where_else(name: str, namespace: dict[str, Any]) -> str:
    """Say where a public module has a name that is looked for in the package, or what it is here.

    Parameters
    ----------
    name : str
    namespace : dict
        ``globals()`` of the package.
    """
    if name in _NAMES:
        return f": here it is lstmcore.{_NAMES[name]}"
    for module in namespace["__all__"]:
        if name in getattr(namespace.get(module), "__all__", ()):
            return f": it is lstmcore.{module}.{name}"
    return ""


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


class Elsewhere:
    """An attribute that instances do not have, whose error says what does it here.

    A ``__getattr__`` would say so, too, but every other attribute would be slower for it.
    """

    def __init__(self, hint: str) -> None:
        self._hint = hint
        self.__doc__ = f"No attribute: {hint}."  # which ``help`` of the class shows

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type) -> Any:
        who = (
            f"type object {owner.__name__!r}" if instance is None else f"{owner.__name__!r} object"
        )
        raise AttributeError(
            f"{who} has no attribute {self._name!r}: {self._hint}",
            name=self._name,
            obj=owner if instance is None else instance,
        )


def explain(kind: type, hints: dict[str, str]) -> None:
    """Give a class an `Elsewhere` for each name, which `dir` of an instance does not show."""
    for name, hint in hints.items():
        attribute = Elsewhere(hint)
        attribute.__set_name__(kind, name)
        setattr(kind, name, attribute)

    def names(self: Any) -> list[str]:
        return [name for name in object.__dir__(self) if name not in hints or hasattr(self, name)]

    kind.__dir__ = names  # type: ignore[assignment]
