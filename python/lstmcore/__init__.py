"""Recurrent layers on the CPU: RNN, LSTM and GRU, forward and backward, in NumPy arrays.

>>> import numpy as np
>>> import lstmcore as lc
>>> lstm = lc.LSTM(3, 5, seed=0)
>>> y, (h, c) = lstm(np.zeros((7, 2, 3), dtype="float32"))
>>> y.shape
(7, 2, 5)
"""

from importlib import import_module as _import_module
from typing import TYPE_CHECKING as _TYPE_CHECKING

from . import (
    _base,  # noqa: F401  before NumPy: it refuses subinterpreters
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
from ._base.machine import available_isas, get_num_threads, info, isa, set_isa, set_num_threads
from ._base.module import Module
from ._base.parameter import Parameter
from ._base.quantize import quantize
from ._core import build_info as _build_info
from ._files.audio_models import from_nam, from_rtneural
from ._files.checkpoints import load_checkpoint, save_checkpoint
from ._files.layouts import convert_weights
from ._files.models import load, save
from ._models.crf import CRF
from ._models.ctc import ctc_beam_search, ctc_decode
from ._models.generate import generate
from ._models.seq2seq import Seq2Seq
from ._models.state_space import StateSpace
from ._network.gradcheck import gradcheck
from ._network.model import Model
from ._network.symbol import Input, concat, repeat
from ._nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from ._nn.cells import GRUCell, LSTMCell, RNNCell
from ._nn.conv import Conv1D
from ._nn.dropout import Dropout
from ._nn.embedding import Embedding
from ._nn.layers import GRU, LSTM, RNN
from ._nn.linear import Linear
from ._nn.masking import Masking
from ._nn.normalization import BatchNorm, LayerNorm
from ._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from ._nn.sequential import Sequential
from ._nn.streams.pool import StreamPool
from ._nn.streams.stream import Stream
from ._nn.tape import Tape
from ._nn.time_reversal import Flip
from ._public.publish import publish
from ._public.publish import where_else as _where_else
from ._shapes.each_step import EachStep
from ._shapes.rows import Permute, RepeatVector, Reshape
from ._shapes.steps import AvgPool1D, MaxPool1D, Pad1D, UpSample1D
from ._train.evaluate import evaluate
from ._train.fit import fit
from ._train.history import History
from ._train.loop import NonFiniteError
from .keras import from_keras, to_keras
from .onnx import from_onnx, to_onnx
from .optim import clip_grad_norm, clip_grad_value
from .torch import from_torch, load_torch, to_torch

__version__ = _build_info()["version"]

__all__ = [
    "CRF",
    "ELU",
    "GELU",
    "GRU",
    "LSTM",
    "RNN",
    "Activation",
    "AvgPool1D",
    "BatchNorm",
    "BothEnds",
    "Conv1D",
    "Dropout",
    "EachStep",
    "Embedding",
    "Flip",
    "GRUCell",
    "History",
    "Input",
    "LSTMCell",
    "LastStep",
    "LayerNorm",
    "LeakyReLU",
    "Linear",
    "LogSoftmax",
    "Masking",
    "MaxPool",
    "MaxPool1D",
    "MeanPool",
    "Model",
    "Module",
    "NonFiniteError",
    "PReLU",
    "Pad1D",
    "Parameter",
    "Permute",
    "RNNCell",
    "ReLU",
    "RepeatVector",
    "Reshape",
    "Seq2Seq",
    "Sequential",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "StateSpace",
    "Stream",
    "StreamPool",
    "Tanh",
    "Tape",
    "UpSample1D",
    "__version__",
    "attention",
    "available_isas",
    "baselines",
    "callbacks",
    "clip_grad_norm",
    "clip_grad_value",
    "concat",
    "convert_weights",
    "ctc_beam_search",
    "ctc_decode",
    "data",
    "evaluate",
    "fit",
    "from_keras",
    "from_nam",
    "from_onnx",
    "from_rtneural",
    "from_torch",
    "generate",
    "get_num_threads",
    "gradcheck",
    "info",
    "isa",
    "load",
    "load_checkpoint",
    "load_torch",
    "losses",
    "metrics",
    "optim",
    "plot",
    "quantize",
    "reference",
    "repeat",
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

publish(globals())


if not _TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        if name == "sklearn":  # which imports scikit-learn, and so is not imported before
            try:
                return _import_module("lstmcore.sklearn")
            except ImportError as error:  # hasattr expects the other
                raise AttributeError(str(error)) from error
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}{_where_else(name)}")
