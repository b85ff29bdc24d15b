"""PyTorch: its modules and checkpoints in and out, and layers of ours in its models.

``lstmcore.torch.LSTM``, ``GRU`` and ``RNN`` take the place of ``torch.nn``'s in a model: the same
arguments, state dict and calls, computed here. `Output`, `LastStep`, `BothEnds`, `MeanPool` and
`MaxPool` go with them in a ``torch.nn.Sequential``. PyTorch is imported when one of these is first
asked for.
"""

from __future__ import annotations

import sys
from opcode import opname
from types import FrameType
from typing import TYPE_CHECKING, Any

from .._public.publish import publish
from ._checkpoint import load_torch
from ._convert import from_torch, to_torch
from ._folding import fold_norms
from ._tensors import QuantizedArray
from ._unpickling import Placeholder

if TYPE_CHECKING:
    from ._modules import GRU, LSTM, RNN, BothEnds, LastStep, MaxPool, MeanPool, Output

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BothEnds",
    "LastStep",
    "MaxPool",
    "MeanPool",
    "Output",
    "Placeholder",
    "QuantizedArray",
    "fold_norms",
    "from_torch",
    "load_torch",
    "to_torch",
]

publish(globals())


def __getattr__(name: str) -> Any:
    if name in __all__:  # what is not here yet
        try:
            from . import _modules
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            message = f'lstmcore.torch.{name} needs PyTorch: pip install "lstmcore[torch]"'
            # hasattr and what lists a module expect the one, an import statement the other.
            importing = _is_import(sys._getframe(1))
            raise (ImportError if importing else AttributeError)(message) from error
        for public in set(__all__) - set(globals()):
            getattr(_modules, public).__module__ = __name__
        return getattr(_modules, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _is_import(frame: FrameType) -> bool:
    """Whether what runs there is ``from lstmcore.torch import ...``."""
    return opname[frame.f_code.co_code[frame.f_lasti]] == "IMPORT_FROM"
