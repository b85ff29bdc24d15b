"""Recurrent layers on the CPU: RNN, LSTM and GRU, forward and backward, in NumPy arrays.

>>> import numpy as np
>>> import lstmcore as lc
>>> lstm = lc.LSTM(3, 5, seed=0)
>>> y, (h, c) = lstm(np.zeros((7, 2, 3), dtype="float32"))
>>> y.shape
(7, 2, 5)
"""

from . import attention, losses, metrics, optim, reference
from ._core import build_info as _build_info
from ._parameter import Parameter
from .activations import ReLU, Sigmoid, Softmax, Tanh
from .cells import GRUCell, LSTMCell, RNNCell
from .dropout import Dropout
from .embedding import Embedding
from .flip import Flip
from .layer_norm import LayerNorm
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
from .masking import Masking
from .optim import clip_grad_norm, clip_grad_value
from .pooling import BothEnds, LastStep, MaxPool, MeanPool
from .sequential import Sequential
from .stream import Stream
from .tape import Tape

__version__ = _build_info()["version"]

__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "BothEnds",
    "Dropout",
    "Embedding",
    "Flip",
    "GRUCell",
    "LSTMCell",
    "LastStep",
    "LayerNorm",
    "Linear",
    "Masking",
    "MaxPool",
    "MeanPool",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "Stream",
    "Tanh",
    "Tape",
    "__version__",
    "attention",
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
