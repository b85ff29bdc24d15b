"""Recurrent layers on the CPU: RNN, LSTM and GRU, forward and backward, in NumPy arrays.

>>> import numpy as np
>>> import lstmcore as lc
>>> lstm = lc.LSTM(3, 5, seed=0)
>>> y, (h, c) = lstm(np.zeros((7, 2, 3), dtype="float32"))
>>> y.shape
(7, 2, 5)
"""

from . import (
    attention,
    baselines,
    callbacks,
    data,
    losses,
    metrics,
    optim,
    plot,
    reference,
    sampling,
)
from ._core import build_info as _build_info
from ._loop import NonFiniteError
from ._parameter import Parameter
from .activations import ReLU, Sigmoid, Softmax, Tanh
from .cells import GRUCell, LSTMCell, RNNCell
from .checkpoint import load_checkpoint, save_checkpoint
from .dropout import Dropout
from .embedding import Embedding
from .evaluate import evaluate
from .files import load, save
from .fit import fit
from .flip import Flip
from .generate import generate
from .history import History
from .keras import from_keras, to_keras
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
from .onnx import from_onnx, to_onnx
from .optim import clip_grad_norm, clip_grad_value
from .pooling import BothEnds, LastStep, MaxPool, MeanPool
from .seq2seq import Seq2Seq
from .sequential import Sequential
from .state_space import StateSpace
from .stream import Stream
from .tape import Tape
from .torch import from_torch, load_torch, to_torch

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
    "History",
    "LSTMCell",
    "LastStep",
    "LayerNorm",
    "Linear",
    "Masking",
    "MaxPool",
    "MeanPool",
    "NonFiniteError",
    "Parameter",
    "RNNCell",
    "ReLU",
    "Seq2Seq",
    "Sequential",
    "Sigmoid",
    "Softmax",
    "StateSpace",
    "Stream",
    "Tanh",
    "Tape",
    "__version__",
    "attention",
    "available_isas",
    "baselines",
    "callbacks",
    "clip_grad_norm",
    "clip_grad_value",
    "data",
    "evaluate",
    "fit",
    "from_keras",
    "from_onnx",
    "from_torch",
    "generate",
    "get_num_threads",
    "info",
    "isa",
    "load",
    "load_checkpoint",
    "load_torch",
    "losses",
    "metrics",
    "optim",
    "plot",
    "reference",
    "sampling",
    "save",
    "save_checkpoint",
    "set_isa",
    "set_num_threads",
    "to_keras",
    "to_onnx",
    "to_torch",
    "torch",
]
