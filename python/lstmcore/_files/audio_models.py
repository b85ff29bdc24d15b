"""Networks for audio in text files: RTNeural's JSON, and the LSTMs of Neural Amp Modeler."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._base.module import Module
from .._nn.activations import ELU, ReLU, Sigmoid, Softmax, Tanh
from .._nn.conv import Conv1D
from .._nn.layers import GRU, LSTM
from .._nn.linear import Linear
from .._nn.sequential import Sequential
from .layouts import convert_weights
from .source import opened

__all__ = ["from_nam", "from_rtneural"]

_MOST = 2**20  # units of a layer, steps of a kernel


def from_rtneural(file: Any) -> Sequential:
    """Read a network for RTNeural, the JSON that its scripts write of a Keras model.

    Parameters
    ----------
    file : path, bytes, or open binary file
        With layers of the types dense, time-distributed-dense, gru, lstm, conv1d and activation.

    Returns
    -------
    model : Sequential
        In float32, of x (T, B, F). Its `stream` takes samples one by one, as RTNeural does.

    Raises
    ------
    ValueError
        If the file is not sound, or has a layer of another type or with another activation.
    OSError, TypeError
        If it cannot be read.

    Notes
    -----
    J. Chowdhury, "RTNeural: fast neural inferencing for real-time systems", 2021
    (arXiv:2106.03037). A conv1d looks back alone. Its scripts for PyTorch write state dicts
    instead: their arrays go to `load_state_dict` as they are.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.from_rtneural(
    ...     b'{"in_shape": [null, null, 2], "layers": [{"type": "dense", "activation": "tanh",'
    ...     b' "shape": [null, null, 1], "weights": [[[0.5], [2.0]], [0.25]]}]}'
    ... )
    Sequential(
      (0): Linear(2, 1)
      (1): Tanh()
    )
    """
    content, name = _json(file)
    try:
        size = _size(_last(content["in_shape"]), "in_shape")
        modules: list[Module] = []
        for number, layer in enumerate(_list(content["layers"], "layers")):
            try:
                made, size = _rtneural_layer(layer, size)
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise ValueError(f"layer {number}: {_said(error)}") from error
            modules += made
        if not modules:
            raise ValueError("layers is empty")
        return Sequential(*modules)
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{name} is no sound model of RTNeural: {_said(error)}") from error


def from_nam(file: Any) -> tuple[Sequential, Any]:
    """Read an LSTM of Neural Amp Modeler, a ``.nam`` file.

    Parameters
    ----------
    file : path, bytes, or open binary file
        Its architecture is "LSTM".

    Returns
    -------
    model : Sequential
        An LSTM and a Linear in float32, from samples (T, B, 1) to samples (T, B, 1).
    state : list
        What the file says that it starts from, for one row: ``model.run(x, state)``,
        ``model.stream()`` with ``stream.state = state``.

    Raises
    ------
    ValueError
        If the file is not sound, or of another architecture.
    OSError, TypeError
        If it cannot be read.

    Notes
    -----
    For each layer the file has one matrix for x and h with the gates in the order i, f, g, o, one
    bias, and the initial h and c; then the weights and the bias of the Linear.

    Examples
    --------
    >>> import json
    >>> import lstmcore as lc
    >>> text = json.dumps({
    ...     "version": "0.5.4", "architecture": "LSTM", "weights": [0.1] * (8 * 3 + 8 + 4 + 3),
    ...     "config": {"input_size": 1, "hidden_size": 2, "num_layers": 1},
    ... })
    >>> model, state = lc.from_nam(text.encode())
    >>> y, state = model.run([[[1.0]], [[0.5]]], state)
    >>> y.ravel().round(4)
    array([0.1193, 0.12  ], dtype=float32)
    """
    content, name = _json(file)
    try:
        if content["architecture"] != "LSTM":
            what = checks.describe(content["architecture"])
            raise ValueError(f"its architecture is {what}, expected 'LSTM'")
        config = content["config"]
        sizes = ("input_size", "hidden_size", "num_layers")
        inputs, units, count = (_size(config[size], size) for size in sizes)
        return _nam(inputs, units, count, _real(content["weights"], "weights", 1))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise ValueError(f"{name} is no sound LSTM of NAM: {_said(error)}") from error


def _nam(inputs: int, units: int, count: int, weights: Array) -> tuple[Sequential, Any]:
    """Return the model and its state, once there are as many numbers as it has."""
    H, width = units, [inputs, *[units] * (count - 1)]
    expected = sum(4 * H * (size + H + 1) + 2 * H for size in width) + H + 1
    if len(weights) != expected:
        raise ValueError(f"there are {len(weights)} weights, expected {expected} for these sizes")
    left = iter(np.split(weights, np.cumsum([
        n for size in width for n in (4 * H * (size + H), 4 * H, H, H)
    ] + [H])))  # fmt: skip
    state: dict[str, Array] = {}
    starts: list[tuple[Array, Array]] = []
    for level, size in enumerate(width):
        kernel, bias, h, c = (next(left) for _ in range(4))
        kernel = kernel.reshape(4 * H, size + H)
        state |= convert_weights("pytorch", "lstm", kernel=kernel, bias=bias, suffix=f"_l{level}")
        starts.append((h, c))
    lstm, head = LSTM(inputs, H, count, seed=0), Linear(H, 1, seed=0)
    lstm.load_state_dict(state)
    head.load_state_dict({"weight": next(left).reshape(1, H), "bias": next(left)})
    h, c = (np.stack(parts)[:, None] for parts in zip(*starts, strict=True))
    return Sequential(lstm, head), [(h, c)]


# RTNeural -----------------------------------------------------------------------------------------


def _rtneural_layer(layer: Any, inputs: int) -> tuple[list[Module], int]:
    """Return the modules of a layer, and the size of what it gives."""
    kind = layer["type"]
    if kind not in _LAYERS:
        raise ValueError(f"its type is {kind!r}, expected one of {', '.join(_LAYERS)}")
    size = _size(_last(layer["shape"]), "shape")
    made = _LAYERS[kind](layer, inputs, size)
    if kind in ("gru", "lstm"):  # whose activations are what they are
        return made, size
    name = layer.get("activation", "")
    if name not in _ACTIVATIONS:
        known = ", ".join(filter(None, _ACTIVATIONS))
        raise ValueError(f"its activation is {name!r}, expected none or one of {known}")
    return [*made, *_ACTIVATIONS[name]()], size


def _dense(layer: Any, inputs: int, size: int) -> list[Module]:
    weight, bias = _arrays(layer, (inputs, size), (size,))
    return [_loaded(Linear(inputs, size, seed=0), weight=weight.T, bias=bias)]


def _conv(layer: Any, inputs: int, size: int) -> list[Module]:
    if layer.get("groups", 1) != 1:
        raise ValueError(f"groups is {layer['groups']!r}, expected 1")
    steps, apart = (_size(_last(layer[name]), name) for name in ("kernel_size", "dilation"))
    weight, bias = _arrays(layer, (steps, inputs, size), (size,))
    conv = Conv1D(inputs, size, steps, dilation=apart, padding="causal", seed=0)
    return [_loaded(conv, weight=weight.transpose(2, 1, 0), bias=bias)]


def _gru(layer: Any, inputs: int, size: int) -> list[Module]:
    w_ih, w_hh, both = _arrays(layer, (inputs, 3 * size), (size, 3 * size), (2, 3 * size))
    state = convert_weights("keras", "gru", w_ih=w_ih, w_hh=w_hh, bias=both[0], bias_hh=both[1])
    return [_loaded(GRU(inputs, size, seed=0), **state)]


def _lstm(layer: Any, inputs: int, size: int) -> list[Module]:
    w_ih, w_hh, bias = _arrays(layer, (inputs, 4 * size), (size, 4 * size), (4 * size,))
    state = convert_weights("keras", "lstm", w_ih=w_ih, w_hh=w_hh, bias=bias)
    return [_loaded(LSTM(inputs, size, seed=0), **state)]


_LAYERS: dict[str, Callable[[Any, int, int], list[Module]]] = {
    "dense": _dense,
    "time-distributed-dense": _dense,
    "gru": _gru,
    "lstm": _lstm,
    "conv1d": _conv,
    "activation": lambda layer, inputs, size: [],
}
_ACTIVATIONS: dict[str, Callable[[], list[Module]]] = {
    "": list,
    "tanh": lambda: [Tanh()],
    "relu": lambda: [ReLU()],
    "sigmoid": lambda: [Sigmoid()],
    "softmax": lambda: [Softmax()],
    "elu": lambda: [ELU()],
}


def _arrays(layer: Any, *shapes: tuple[int, ...]) -> list[Array]:
    """Return the weights of a layer, which have these shapes."""
    given = _list(layer["weights"], "weights")
    if len(given) != len(shapes):
        raise ValueError(f"it has {len(given)} arrays of weights, expected {len(shapes)}")
    arrays = [_real(one, "weights", len(shape)) for one, shape in zip(given, shapes, strict=True)]
    for array, shape in zip(arrays, shapes, strict=True):
        if array.shape != shape:
            raise ValueError(f"weights have shape {array.shape}, expected {shape}")
    return arrays


def _loaded(module: Module, **state: Array) -> Module:
    module.load_state_dict(state)
    return module


# Texts --------------------------------------------------------------------------------------------


def _json(file: Any) -> tuple[dict[str, Any], str]:
    """Return what a file of JSON holds, and what messages call the file."""
    with opened(file, "file") as source:
        text = source.file.read()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source.name} is no sound JSON: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{source.name} holds {checks.describe(content)}, expected an object")
    return content, source.name


def _said(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is {checks.describe(value)}, expected a list")
    return value


def _last(value: Any) -> Any:
    """Return the last size of a shape; one may stand alone."""
    return value[-1] if isinstance(value, list) else value


def _size(value: Any, name: str) -> int:
    size = checks.integer(value, name, 1)
    if size > _MOST:
        raise ValueError(f"{name} is {size}, expected {_MOST} at most")
    return size


def _real(value: Any, name: str, axes: int) -> Array:
    """Return a list of numbers, or of lists of them, as float32."""
    given = _list(value, name)
    try:
        array = np.asarray(given)
    except ValueError:
        raise ValueError(f"{name} has rows of several lengths") from None
    if array.ndim != axes or array.dtype.kind not in "iuf":
        raise ValueError(f"{name} is no list of real numbers with {axes} axes")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)
