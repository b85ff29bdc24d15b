"""Layer normalization."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.module import storable
from .config import Option
from .feed_forward import FeedForward

__all__ = ["LayerNorm"]


@storable
class LayerNorm(FeedForward):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, over the last axis or axes.

    Mean and variance (of the population) are of each row by itself: neither time nor batch enters.

    Parameters
    ----------
    normalized_shape : int or sequence of int
        Size of the last axis, or sizes of the last axes.
    eps : float, default 1e-5
        Added to the variance, at least 0.
    elementwise_affine : bool, default True
        Whether there are weight and bias; without, they are 1 and 0.
    bias : bool, default True
        Whether there is a bias, if `elementwise_affine`.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters, x and y.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", 2016 (arXiv:1607.06450). The
    parameters are PyTorch's, ``weight`` and ``bias``, of shape `normalized_shape`; they start as 1
    and 0.

    Examples
    --------
    >>> import lstmcore as lc
    >>> norm = lc.LayerNorm(4, eps=0.0, dtype="float64")
    >>> norm([1.0, 1.0, 3.0, 3.0])
    array([-1., -1.,  1.,  1.])
    """

    normalized_shape = Option[tuple[int, ...]]()
    eps = Option[float]()
    elementwise_affine = Option[bool]()
    bias = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        whole = isinstance(normalized_shape, (tuple, list))
        sizes: Any = normalized_shape if whole else [normalized_shape]
        self._config = SimpleNamespace(
            normalized_shape=tuple(checks.integer(n, "normalized_shape", 1) for n in sizes),
            eps=checks.number(eps, "eps"),
            elementwise_affine=checks.boolean(elementwise_affine, "elementwise_affine"),
            bias=checks.boolean(bias, "bias"),
            dtype=checks.dtype(dtype),
        )
        if not sizes:
            raise ValueError("normalized_shape is empty, expected at least one size")
        if self.eps < 0:
            raise ValueError(f"eps is {eps}, expected at least 0")
        checks.fits(self.eps, "eps", self.dtype)
        names = ["weight", "bias"][: 1 + self.bias] if self.elementwise_affine else []
        self._make_parameters([(name, self.normalized_shape) for name in names], self.dtype)
        self.reset_parameters()

    @property
    def _input_size(self) -> int:
        return self.normalized_shape[-1]

    def _output_size(self, size: int | None) -> int | None:
        return self.normalized_shape[-1]

    def reset_parameters(self, seed: int | None = None) -> None:
        """Set the weight to 1 and the bias to 0; there is nothing to draw from `seed`."""
        checks.seed(seed)
        for name, p in self._parameters.items():
            p._storage.fill(name == "weight")
            p._touch()

    def _input(self, x: npt.ArrayLike) -> Array:
        array = checks.real(x, self.dtype, "x")
        shape = self.normalized_shape
        if array.shape[-len(shape) :] != shape:
            expected = ", ".join(map(str, shape))
            raise ValueError(f"x has shape {array.shape}, expected (..., {expected})")
        return array

    @property
    def each_step(self) -> bool:  # type: ignore[override]
        """Whether it is over the features alone."""
        return len(self.normalized_shape) == 1

    def _stream_stage(self, name: str) -> Any:
        if len(self.normalized_shape) > 1:
            raise ValueError(
                f"{name} is over more than the features, expected one size for a stream"
            )
        weight, bias = (self._parameters.get(name) for name in ("weight", "bias"))
        storages = (p if p is None else p._storage for p in (weight, bias))
        return "layer_norm", self.normalized_shape[0], *storages, self.eps

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        parameters = self._parameters
        stored = [checks.in_order(np.asarray(p._storage)).ravel() for p in parameters.values()]
        weight, bias = [*stored, None, None][:2]
        size = math.prod(self.normalized_shape)
        y, normal, scale = _core.layer_norm(checks.in_order(x), size, weight, bias, self.eps, train)
        if train and normal is None:
            y.flags.writeable = False  # the tape needs it as it is
            normal = y.reshape(-1, size)
        # Backward needs the weight that this call had.
        return y, (normal, scale, weight.copy() if train and weight is not None else None)

    def _backward(self, dy: Array, normal: Array, scale: Array, weight: Array | None) -> Array:
        with np.errstate(all="ignore"):
            rows = dy.reshape(normal.shape)
            if weight is not None:
                shape = self.normalized_shape
                self._parameters["weight"].grad += np.einsum("ij,ij->j", rows, normal).reshape(
                    shape
                )
                if self.bias:
                    self._parameters["bias"].grad += rows.sum(axis=0).reshape(shape)
                rows = rows * weight
            # Mean and variance depend on x too: so dy loses its projections on 1 and on y.
            along = np.einsum("ij,ij->i", rows, normal)[:, None] / dy.dtype.type(normal.shape[1])
            dx: Array = scale * (rows - rows.mean(axis=1, keepdims=True) - normal * along)
            return dx.reshape(dy.shape)
