"""Recurrent layers on the CPU: RNN, LSTM and GRU, forward and backward, in NumPy arrays.

>>> import numpy as np
>>> import lstmcore as lc
>>> lstm = lc.LSTM(3, 5, seed=0)
>>> y, (h, c) = lstm(np.zeros((7, 2, 3), dtype="float32"))
>>> y.shape
(7, 2, 5)
"""

from . import losses, metrics, optim, reference
from ._core import build_info as _build_info
from ._parameter import Parameter
from .cells import GRUCell, LSTMCell, RNNCell
from .layers import GRU, LSTM, RNN
from .linear import Linear
from .machine import (
    available_isas,
    get_num_threads,
    info,
    isa,
    set_isa,
    set_num_threads,
)
from .optim import clip_grad_norm, clip_grad_value
from .tape import Tape

__version__ = _build_info()["version"]

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "GRUCell",
    "LSTMCell",
    "Linear",
    "Parameter",
    "RNNCell",
    "Tape",
    "__version__",
    "available_isas",
    "clip_grad_norm",
    "clip_grad_value",
    "get_num_threads",
    "info",
    "isa",
    "losses",
    "metrics",
    "optim",
    "reference",
    "set_isa",
    "set_num_threads",
]
