"""quantize: a copy of a model whose matrices are in int8."""

from __future__ import annotations

import copy
from typing import TypeVar

from . import checks
from .module import Module

__all__ = ["quantize"]

Model = TypeVar("Model", bound=Module)


def quantize(model: Model) -> Model:
    """Return a copy of a model for inference, with int8 weights in recurrent layers and Linear.

    It takes a quarter of the memory, in files too, and is faster where weights come from behind the
    caches or arithmetic is what takes the time. The price is rounding: outputs of trained models
    change by some thousandths. All calls are as before: lengths, resets, states, streams,
    `lstmcore.save` and `lstmcore.load`, and `load_model` in C++. It cannot be trained.

    Parameters
    ----------
    model : module
        In float32. It is not changed.

    Returns
    -------
    model : module
        Of the same kind. Each matrix of a recurrent layer, a cell or a Linear (``weight_ih``,
        ``weight_hh``, ``weight_hr``, ``weight``) is int8 there, and a parameter with ``_scale`` at
        the end of its name has the scales of its rows, float32. All else, biases, peepholes, other
        modules, is as it was.

    Raises
    ------
    TypeError
        If `model` is no module, or one of the layers to be quantised is float64.
    ValueError
        If there is nothing to quantise, a matrix holds NaN or infinity, or has more than 32,768
        columns.

    Notes
    -----
    Weights are symmetric, one scale for each row: w is about scale * q with q in -127 .. 127. What
    they are multiplied with, x, h and what a projection reads, is rounded in the same way when it
    is multiplied, each row of the batch by its own largest number. So one row does not depend on
    the others, and the sums of products, being whole numbers, are exact: results are equal to the
    bit alone or in a batch, padded or not, streamed or not, at any number of threads and at every
    ISA level with fused multiply-add. Gates, states and all other arithmetic are float32. Products
    of a row that holds NaN or infinity are NaN.

    The scheme is dynamic quantisation, as in PyTorch's ``quantize_dynamic`` and ONNX's
    ``DynamicQuantizeLSTM``, which have one scale for x of the whole batch.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.LSTM(8, 32, seed=0), lc.Linear(32, 4, seed=1))
    >>> small = lc.quantize(model)
    >>> small
    Sequential(
      (0): LSTM(8, 32, in int8)
      (1): Linear(32, 4, in int8)
    )
    >>> x = np.random.default_rng(0).standard_normal((20, 3, 8)).astype("float32")
    >>> bool(np.abs(small(x) - model(x)).max() < 0.01)
    True
    >>> [(name, array.dtype.name) for name, array in small[1].state_dict().items()]
    [('weight', 'int8'), ('weight_scale', 'float32'), ('bias', 'float32')]
    """
    if not isinstance(model, Module):
        raise TypeError(f"model is {checks.describe(model)}, expected a module")
    quantized = copy.deepcopy(model)
    found = [
        module._quantize(f"module {path}" if path else repr(module))
        for path, module in quantized._modules()
    ]
    if not any(found):
        raise ValueError(f"{model!r} has nothing to quantise: no recurrent layer and no Linear")
    return quantized
