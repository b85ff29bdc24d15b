"""A linear layer: what turns the output of a recurrent layer into scores or a forecast."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks, _core
from ._checks import Array
from ._config import Option
from ._plain import Plain

__all__ = ["Linear"]


class Linear(Plain):
    """y = W x + b over the last axis.

    Parameters
    ----------
    in_features, out_features : int
        Sizes of x and of y, at least 1.
    bias : bool, default True
        Whether there is a b; without, it is 0.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters, x and y.
    seed : int, optional
        Of the first parameters, as in `reset_parameters`.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.
    MemoryError
        If the parameters need more memory than this process may use.

    Notes
    -----
    The parameters are PyTorch's: ``weight`` (out_features, in_features), ``bias`` (out_features,).

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> head = lc.Linear(3, 2, seed=0)
    >>> x = np.ones((5, 4, 3), dtype="float32")
    >>> head(x).shape
    (5, 4, 2)
    >>> y, tape = head.forward(x)
    >>> dx = head.backward(tape, np.ones_like(y))
    >>> dict(head.named_parameters())["bias"].grad
    array([20., 20.], dtype=float32)
    """

    in_features = Option[int]()
    out_features = Option[int]()
    bias = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        self._config = SimpleNamespace(
            in_features=_checks.integer(in_features, "in_features", 1),
            out_features=_checks.integer(out_features, "out_features", 1),
            bias=_checks.boolean(bias, "bias"),
            dtype=_checks.dtype(dtype),
        )
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        self._make_parameters(list(shapes.items())[: 1 + self.bias], self.dtype)
        self.reset_parameters(seed)

    @property
    def _input_size(self) -> int:
        return self.in_features

    def _output_size(self, size: int | None) -> int:
        return self.out_features

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw all parameters from U(-1/sqrt(in_features), 1/sqrt(in_features)), as PyTorch does.

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        rng = np.random.default_rng(_checks.seed(seed))
        bound = self.in_features**-0.5
        for p in self._parameters.values():
            p._draw(lambda size: rng.uniform(-bound, bound, size))

    def _input(self, x: npt.ArrayLike) -> Array:
        array = _checks.real(x, self.dtype, "x")
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            raise ValueError(f"x has shape {array.shape}, expected (..., {self.in_features})")
        return array

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        weight = self._parameters["weight"]._storage
        y = _core.empty((*x.shape[:-1], self.out_features), self.dtype)
        rows = y.reshape(-1, self.out_features)
        np.matmul(x.reshape(-1, self.in_features), weight.T.view(np.ndarray), out=rows)
        if self.bias:
            rows += self._parameters["bias"]._storage
        return y, (x, np.array(weight, subok=False)) if train else ()

    def _backward(self, dy: Array, x: Array, weight: Array) -> Array:
        rows = dy.reshape(-1, self.out_features)
        self._parameters["weight"].grad += rows.T @ x.reshape(-1, self.in_features)
        if self.bias:
            ones = np.ones(len(rows), self.dtype)
            self._parameters["bias"].grad += ones @ rows  # which is faster than a sum over an axis
        dx = _core.empty(x.shape, self.dtype)
        np.matmul(rows, weight, out=dx.reshape(-1, self.in_features))
        return dx
