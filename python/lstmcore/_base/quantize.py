"""quantize: a copy of a model whose matrices are in int8."""

from __future__ import annotations

import copy
from typing import Any, TypeVar

from . import checks
from .calibration import moments_of
from .low_precision import SCALE
from .module import Module
from .tying import other_names, share_watch, use_parameter

__all__ = ["quantize"]

Model = TypeVar("Model", bound=Module)


def quantize(model: Model, *, calibration: Any = None) -> Model:
    """Return a copy of a model for inference, with int8 weights in layers, Linear and Embedding.

    It takes a quarter of the memory, in files too, and is faster where weights come from behind the
    caches or arithmetic is what takes the time. The price is rounding: outputs of trained models
    change by some thousandths. All calls are as before: lengths, resets, states, streams,
    `lstmcore.save` and `lstmcore.load`, and `load_model` in C++. It cannot be trained.

    Parameters
    ----------
    model : module
        In float32. It is not changed.
    calibration : array_like or function, optional
        Examples of what the model will get: x of a call, some hundred steps or more, or a function
        that makes such calls of the model it is given, ``lambda m: m(x, lengths=lengths)``. Then
        matrices are rounded so that products with such x change less, as far as there is a choice
        between two neighbours. Costs time here, and none later.

    Returns
    -------
    model : module
        Of the same kind. Each matrix of a recurrent layer, a cell, a Linear or an Embedding
        (``weight_ih``, ``weight_hh``, ``weight_hr``, ``weight``) is int8 there, and a parameter
        with ``_scale`` at the end of its name has the scales of its rows, float32. All else,
        biases, peepholes, other modules, is as it was, and what was tied is tied.

    Raises
    ------
    TypeError
        If `model` is no module, or one of those to be quantised is float64.
    ValueError
        If there is nothing to quantise, a matrix holds NaN or infinity, or one that is multiplied
        has more than 32,768 columns; if `calibration` does not reach a module, or gives it NaN or
        infinity.

    Notes
    -----
    Weights are symmetric, one scale for each row: w is about scale * q with q in -127 .. 127. What
    they are multiplied with, x, h and what a projection reads, is rounded in the same way when it
    is multiplied, each row of the batch by its own largest number (twice as finely where a row has
    no negative number, as behind a ReLU). So one row does not depend on
    the others, and the sums of products, being whole numbers, are exact: results are equal to the
    bit alone or in a batch, padded or not, streamed or not, at any number of threads and at every
    ISA level with fused multiply-add. Gates, states and all other arithmetic are float32. Products
    of a row that holds NaN or infinity are NaN.

    An Embedding gives ``scale * q`` of the row of each id, in float32. Where a layer in int8
    reads that, it rounds it to the same q again, so that the table adds no further error there.

    Without `calibration`, a weight becomes the nearest whole number. With it, the columns of a
    matrix are rounded one after the other, and those after it make up for the error of each as far
    as the inputs of both go together in the examples: E. Frantar, S. Ashkboos, T. Hoefler,
    D. Alistarh, "GPTQ", ICLR 2023, without their groups. ``weight_hr`` and Embedding are rounded to
    nearest, and of a GRU with its reset before the product, h stands for what that leaves of h.

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
    moments = {} if calibration is None else moments_of(quantized, calibration)
    tied = other_names(quantized)
    sharing: dict[int, list[Module]] = {}
    for _, module in quantized._modules() if tied else ():
        if hasattr(module, "_watch"):
            sharing.setdefault(id(module._watch), []).append(module)
    found = [
        module._quantize(f"module {path}" if path else repr(module), moments)
        for path, module in quantized._modules()
    ]
    if not any(found):
        raise ValueError(
            f"{model!r} has nothing to quantise: no recurrent layer, Linear or Embedding"
        )
    for modules in sharing.values():
        share_watch(modules)
    _tie(quantized, tied)
    return quantized


def _tie(model: Module, tied: dict[str, str]) -> None:
    """Tie again what was: matrices with their scales. Of what is no int8, int8 stays apart."""
    modules = dict(model._modules())
    for names in tied.items():
        (path, name), (first, first_name) = (full.rpartition(".")[::2] for full in names)
        module, other = modules[path], modules[first]
        for suffix in ("", SCALE):
            p, q = module._parameters.get(name + suffix), other._parameters.get(first_name + suffix)
            if p is q or p is None or q is None or p.dtype != q.dtype:
                continue
            if not hasattr(module, "_watch"):  # one of somebody else's
                setattr(module, name, q)
            elif not hasattr(other, "_watch"):
                setattr(other, first_name, p)
            else:
                use_parameter(module, name + suffix, other, first_name + suffix)
