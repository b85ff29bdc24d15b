"""ONNX's operators in NumPy: what stands between the recurrent nodes of a model.

`names` lists them. Which version of ONNX they follow is decided by each node's own.
"""

from __future__ import annotations

from . import _elementwise, _norms, _products, _quantized, _sequences, _shaping, _signals
from ._elementwise import activation
from ._fixed import fixed
from ._registry import (
    FAILURES,
    LIMIT,
    MICROSOFT,
    TooLarge,
    bind,
    growth,
    in_room,
    known,
    names,
    sizes,
)

__all__ = [
    "FAILURES",
    "LIMIT",
    "MICROSOFT",
    "TooLarge",
    "activation",
    "bind",
    "fixed",
    "growth",
    "known",
    "names",
    "sizes",
]

# What each module's operators are, for the documentation.
_ROOMS = {
    "shapes, parts and places": _shaping,
    "functions of numbers": _elementwise,
    "products, convolutions, pooling": _products,
    "reductions, softmax, normalisation": _norms,
    "quantised": _quantized,
    "sequences": _sequences,
    "spectra": _signals,
}


def table() -> str:
    """Return the operators as a table in Markdown, as docs/onnx.md has it."""
    rows = ["| | operators |", "|---|---|"]
    for what, module in _ROOMS.items():
        rows.append(f"| {what} | {', '.join(in_room(module.__name__))} |")
    return "\n".join(rows)
