"""A linear layer: what turns the output of a recurrent layer into scores or a forecast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks
from ._checks import Array
from ._module import Module
from .machine import memory_limit

__all__ = ["Linear", "LinearTape"]


@dataclass(frozen=True, eq=False, repr=False)
class LinearTape:
    """What ``Linear.forward`` remembers for ``backward``, made by the former.

    It keeps x itself, so leave x as it is until ``backward``, and a copy of the weight: gradients
    are right even if the parameters have changed since.
    """

    owner: Linear
    x: Array
    weight: Array

    @property
    def nbytes(self) -> int:
        """The memory it holds, in bytes, without x."""
        return self.weight.nbytes

    def __repr__(self) -> str:
        return f"<LinearTape of {self.owner!r} for x {self.x.shape}, {self.nbytes} bytes>"


class Linear(Module):
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

    _config: tuple[int, int, bool, np.dtype[Any]]

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
    ) -> None:
        self._config = (
            _checks.integer(in_features, "in_features", 1),
            _checks.integer(out_features, "out_features", 1),
            _checks.boolean(bias, "bias"),
            _checks.dtype(dtype),
        )
        # Asked first, because a large allocation may succeed and fail when written to.
        if self.in_features * self.out_features * self.dtype.itemsize > memory_limit():
            raise MemoryError(f"{self!r} needs more memory than this process may use")
        shapes = {"weight": (self.out_features, self.in_features), "bias": (self.out_features,)}
        self._make_parameters(list(shapes.items())[: 1 + self.bias], self.dtype)
        self.reset_parameters(seed)

    @property
    def in_features(self) -> int:
        """Size of x."""
        return self._config[0]

    @property
    def out_features(self) -> int:
        """Size of y."""
        return self._config[1]

    @property
    def bias(self) -> bool:
        """Whether there is a bias."""
        return self._config[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the parameters, x and y."""
        return self._config[3]

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
            p._storage[...] = rng.uniform(-bound, bound, p.shape)
        self._watch.token = object()

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Compute y (..., out_features) for x (..., in_features)."""
        return self._product(self._input(x))

    def forward(self, x: npt.ArrayLike) -> tuple[Array, LinearTape]:
        """Compute y, and keep what `backward` needs.

        Parameters
        ----------
        x : array (..., in_features)
            Any leading shape.

        Returns
        -------
        y : ndarray (..., out_features)
        tape : LinearTape

        Raises
        ------
        ValueError, TypeError
            If x has another last axis or dtype.
        """
        x = self._input(x)
        return self._product(x), LinearTape(self, x, self._weight().copy())

    def backward(self, tape: LinearTape, dy: npt.ArrayLike) -> Array:
        """Add the gradients of the parameters to their `grad`, and return that of x.

        Parameters
        ----------
        tape : LinearTape
            From `forward`, of this layer.
        dy : array (..., out_features)
            Gradient of y.

        Returns
        -------
        dx : ndarray (..., in_features)

        Raises
        ------
        ValueError, TypeError
            If the tape is of another layer, or dy is not like y; no gradient is changed then.
        """
        if not isinstance(tape, LinearTape):
            raise TypeError(f"tape is {_checks.describe(tape)}, expected a LinearTape from forward")
        if tape.owner is not self:
            raise ValueError(
                f"tape was made by another layer, {tape.owner!r}, expected one made by this one"
            )
        dy = _checks.real(dy, self.dtype, "dy")
        shape = (*tape.x.shape[:-1], self.out_features)
        if dy.shape != shape:
            raise ValueError(f"dy has shape {dy.shape}, expected {shape}, that of y")
        rows = dy.reshape(-1, self.out_features)
        self._parameters["weight"].grad += rows.T @ tape.x.reshape(-1, self.in_features)
        if self.bias:
            self._parameters["bias"].grad += rows.sum(axis=0)
        return dy @ tape.weight

    def _weight(self) -> Array:
        return self._parameters["weight"]._storage.view(np.ndarray)

    def _input(self, x: npt.ArrayLike) -> Array:
        array = _checks.real(x, self.dtype, "x")
        if array.ndim == 0 or array.shape[-1] != self.in_features:
            raise ValueError(f"x has shape {array.shape}, expected (..., {self.in_features})")
        return array

    def _product(self, x: Array) -> Array:
        y: Array = x @ self._weight().T
        if self.bias:
            y += self._parameters["bias"]._storage
        return y

    def __repr__(self) -> str:
        text = f"{self.in_features}, {self.out_features}"
        if not self.bias:
            text += ", bias=False"
        if self.dtype != np.float32:
            text += f", dtype={self.dtype.name}"
        return f"Linear({text})"
