"""ONNX's operators in NumPy: what stands between the recurrent nodes of a model.

`names` lists them. Which version of ONNX they follow is decided by each node's own.
"""

from __future__ import annotations

from . import _elementwise, _norms, _products, _quantized, _sequences, _shaping
from ._elementwise import activation
from ._registry import LIMIT, TooLarge, bind, growth, known, names, sizes

__all__ = ["LIMIT", "TooLarge", "activation", "bind", "growth", "known", "names", "sizes"]

_ROOMS = (_elementwise, _norms, _products, _quantized, _sequences, _shaping)
