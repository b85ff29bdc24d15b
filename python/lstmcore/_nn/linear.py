"""A linear layer: what turns the output of a recurrent layer into scores or a forecast."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.low_precision import check_precision
from .._base.module import storable
from .._base.packed_weights import PacksWeights
from .config import Option
from .feed_forward import FeedForward

__all__ = ["Linear"]


@storable
class Linear(PacksWeights, FeedForward):
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
    precision : {"float32", "bfloat16", "bfloat16x3"}
        What W and x are multiplied in, as of `LSTM`; can be set later, too.

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

    _MATRICES = ("weight",)
    _has_precision = True
    _watches_inputs = True

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
        *,
        precision: str = "float32",
    ) -> None:
        self._config = SimpleNamespace(
            in_features=checks.integer(in_features, "in_features", 1),
            out_features=checks.integer(out_features, "out_features", 1),
            bias=checks.boolean(bias, "bias"),
            dtype=checks.dtype(dtype),
            precision=check_precision(precision, "precision", checks.dtype(dtype)),
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
        self._refuse_in_int8("reset_parameters")
        rng = np.random.default_rng(checks.seed(seed))
        bound = self.in_features**-0.5
        for p in self._parameters.values():
            p._draw(lambda size: rng.uniform(-bound, bound, size))

    def _input(self, x: npt.ArrayLike) -> Array:
        config = self._config
        array = checks.real(x, config.dtype, "x")
        if array.ndim == 0 or array.shape[-1] != config.in_features:
            raise ValueError(f"x has shape {array.shape}, expected (..., {self.in_features})")
        return checks.in_order(array)

    def _pack(self, parameters: list[Array], train: bool) -> _core.Linear:
        weight, *bias = parameters
        precision = self._config.precision
        return _core.pack_linear(weight, bias[0] if bias else None, train, precision)

    def _pack_quantized(self, parameters: list[Any]) -> _core.Linear:
        weight, scales, *bias = parameters
        return _core.pack_quantized_linear(weight, scales, bias[0] if bias else None)

    def _watch_inputs(self, note: Callable[[str, Array], None] | None) -> None:
        if note is None:
            self.__dict__.pop("_forward", None)
            return
        forward = self._forward

        def noting(x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
            note("weight", x.reshape(-1, self.in_features))
            return forward(x, train)

        self.__dict__["_forward"] = noting

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        weights = self._weights(train)
        if train and (x.flags.writeable or type(x.base) is np.ndarray):
            x = checks.kept(x)
        return _core.linear_forward(weights, x), (x, weights)

    def _backward(self, dy: Array, x: Array, weights: _core.Linear) -> Array:
        gradients = self._own_gradients()
        return _core.linear_backward(weights, x, checks.in_order(dy), *gradients)

    def __repr__(self) -> str:
        text = super().__repr__()
        return text[:-1] + ", in int8)" if self._quantized else text
