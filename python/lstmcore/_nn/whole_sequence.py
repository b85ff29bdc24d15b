"""Which modules can be run step by step, or chunk by chunk, with the state carried on."""

from __future__ import annotations

from typing import Any

from .._base.module import Module
from .layers import Layer
from .masking import Masking
from .pooling import LastStep, Pool
from .time_reversal import Flip

__all__ = ["whole_sequence"]


def whole_sequence(model: Any) -> Module | None:
    """Return the first module of a model that needs the whole sequence at once, if there is one."""
    for _, module in model._modules() if isinstance(model, Module) else ():
        if (
            (isinstance(module, Layer) and (module.bidirectional or module.reverse))
            or (isinstance(module, Pool) and not isinstance(module, LastStep))
            or isinstance(module, (Flip, Masking))
        ):
            return module
    return None
