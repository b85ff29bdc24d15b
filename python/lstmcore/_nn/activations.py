"""Activations as modules: Tanh, ReLU, Sigmoid, Softmax."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np

from .._base.checks import Array
from .._base.module import storable
from .feed_forward import FeedForward

__all__ = ["ReLU", "Sigmoid", "Softmax", "Tanh", "softmax", "softmax_backward"]


class Activation(FeedForward):
    """What they share: no options, any shape, and a backward that needs only y."""

    _name: ClassVar[str]  # what the core calls it

    def __init__(self) -> None:
        self._config = SimpleNamespace()

    def _output_size(self, size: int | None) -> int | None:
        return size

    def _stream_stage(self, name: str) -> Any:
        return "activation", (self._name, 0.0, 0.0)

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        with np.errstate(all="ignore"):
            y = np.asarray(self._function(x))
        return y, (y,)

    def _backward(self, dy: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            return np.asarray(self._gradient(dy, y))

    def _function(self, x: Array) -> Array:
        raise NotImplementedError

    def _gradient(self, dy: Array, y: Array) -> Array:
        raise NotImplementedError


@storable
class Tanh(Activation):
    """y = tanh(x), elementwise.

    It takes x of any shape and keeps float32 and float64.

    Examples
    --------
    >>> import lstmcore as lc
    >>> tanh = lc.Tanh()
    >>> y, tape = tanh.forward([0.0, 0.5])
    >>> tanh.backward(tape, [1.0, 1.0]).round(3)
    array([1.   , 0.786])
    """

    _name = "tanh"

    def _function(self, x: Array) -> Array:
        return np.tanh(x)

    def _gradient(self, dy: Array, y: Array) -> Array:
        dx: Array = dy * (1 - y * y)
        return dx


@storable
class ReLU(Activation):
    """y = max(x, 0), elementwise; the gradient at 0 is 0.

    It takes x of any shape and keeps float32 and float64. Where y is 0 the gradient is 0 even if
    that of y is NaN or infinite; where x is NaN that of y goes through, as in PyTorch.

    Examples
    --------
    >>> import lstmcore as lc
    >>> relu = lc.ReLU()
    >>> y, tape = relu.forward([-1.0, 2.0])
    >>> y, relu.backward(tape, [1.0, 1.0])
    (array([0., 2.]), array([0., 1.]))
    """

    _name = "relu"

    def _function(self, x: Array) -> Array:
        return np.maximum(x, 0)

    def _gradient(self, dy: Array, y: Array) -> Array:
        dx: Array = np.where(y <= 0, dy.dtype.type(0), dy)
        return dx


@storable
class Sigmoid(Activation):
    """y = 1 / (1 + exp(-x)), elementwise.

    It takes x of any shape and keeps float32 and float64. `losses.binary_cross_entropy` has its
    own: it takes scores, not these.

    Examples
    --------
    >>> import lstmcore as lc
    >>> sigmoid = lc.Sigmoid()
    >>> y, tape = sigmoid.forward([0.0, -1000.0])
    >>> y, sigmoid.backward(tape, [1.0, 1.0])
    (array([0.5, 0. ]), array([0.25, 0.  ]))
    """

    _name = "sigmoid"
    _gives_probabilities = True

    def _function(self, x: Array) -> Array:
        y: Array = 1 / (1 + np.exp(-x))  # exp(-x) may overflow: 1 / inf is 0, which is right
        return y

    def _gradient(self, dy: Array, y: Array) -> Array:
        dx: Array = dy * y * (1 - y)
        return dx


@storable
class Softmax(Activation):
    """y = exp(x) / sum(exp(x)) over the last axis: numbers above 0 whose sum is 1.

    It takes x of any shape with a last axis and keeps float32 and float64. `losses.cross_entropy`
    has its own: it takes scores, not these.

    Examples
    --------
    >>> import lstmcore as lc
    >>> softmax = lc.Softmax()
    >>> y, tape = softmax.forward([0.0, 1000.0, 1000.0])
    >>> y, softmax.backward(tape, [0.0, 1.0, 0.0])
    (array([0. , 0.5, 0.5]), array([ 0.  ,  0.25, -0.25]))
    """

    _gives_probabilities = True

    def _stream_stage(self, name: str) -> Any:
        return ("softmax",)

    def _function(self, x: Array) -> Array:
        if x.ndim == 0:
            raise ValueError("x has shape (), expected (..., C)")
        return softmax(x)

    def _gradient(self, dy: Array, y: Array) -> Array:
        return softmax_backward(dy, y)


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis."""
    if not x.size:
        return x.copy()
    y: Array = np.exp(
        x - x.max(axis=-1, keepdims=True)
    )  # the exponents are at most 0, so none overflows
    y /= y.sum(axis=-1, keepdims=True)
    return y


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return the gradient of x from that of y = softmax(x)."""
    dx: Array = dy * y
    dx -= y * dx.sum(axis=-1, keepdims=True)
    return dx
