"""Layer normalization and batch normalization."""

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
from .._base.flow import Flow
from .._base.loads import whole
from .._base.module import Module, storable
from .._base.symbolic import Symbolic
from .config import Option
from .feed_forward import FeedForward
from .over_time import valid_steps
from .streams.frozen import PythonStage
from .tape import ModuleTape

__all__ = ["BatchNorm", "LayerNorm"]

_BUFFERS = ("running_mean", "running_var", "num_batches_tracked")


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
        return (
            self._normalized(x, True) if train else whole(self, lambda: self._normalized(x, False))
        )

    def _normalized(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
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
        size = normal.shape[1]
        sums = [np.zeros(size, dy.dtype) for _ in self._parameters]
        dx = _core.layer_norm_backward(
            checks.in_order(dy), normal, scale, weight, *[*sums, None, None][:2]
        )
        with np.errstate(all="ignore"):
            for p, added in zip(self._parameters.values(), sums, strict=True):
                p.grad += added.reshape(self.normalized_shape)
        return dx


@storable
class BatchNorm(Module):
    """y = weight (x - mean) / sqrt(variance + eps) + bias, each feature over all rows and steps.

    In training, `forward`, mean and variance (of the population) are those of the batch, and the
    running statistics move towards them. Called for inference, it takes the running statistics, so
    that no row depends on another. Steps past the end of a row do not count, and y is 0 there.

    Parameters
    ----------
    num_features : int
        Size of the last axis.
    eps : float, default 1e-5
        Added to the variance, at least 0.
    momentum : float, optional
        How far the running statistics move, 0 to 1: ``running += momentum * (batch - running)``.
        The default is 0.1; with None they are the mean over all batches so far.
    affine : bool, default True
        Whether there are weight and bias; without, they are 1 and 0.
    frozen : bool, default False
        Whether training takes the running statistics, too, and leaves them as they are: PyTorch's
        ``eval()`` of this module, Keras's ``trainable=False``.
    batch_first : bool, optional
        Whether x is (B, T, F), which matters where there are lengths. None, the default, is False,
        and in a `Sequential` or `Model` what its recurrent layers have.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters, x and y.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    S. Ioffe, C. Szegedy, "Batch normalization", ICML 2015 (arXiv:1502.03167). What is stored has
    PyTorch's names: ``weight``, ``bias``, which start as 1 and 0, and beside the parameters, in
    state dicts, files and checkpoints, ``running_mean``, ``running_var`` and
    ``num_batches_tracked``, which start as 0, 1 and 0. The running variance is the unbiased one, as
    in PyTorch. Unlike there the features are the last axis.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> norm = lc.BatchNorm(1, eps=0.0, dtype="float64")
    >>> y, tape = norm.forward([[1.0], [3.0], [5.0], [7.0]])
    >>> y.ravel().round(3)
    array([-1.342, -0.447,  0.447,  1.342])
    >>> {name: array.round(3).tolist() for name, array in norm.state_dict().items()}["running_mean"]
    [0.4]
    >>> norm([0.4])
    array([0.])
    """

    _applies_own = False
    each_step = True  # in inference

    num_features = Option[int]()
    eps = Option[float]()
    momentum = Option["float | None"]()
    affine = Option[bool]()
    frozen = Option[bool]()
    batch_first = Option["bool | None"]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        frozen: bool = False,
        batch_first: bool | None = None,
        dtype: npt.DTypeLike = "float32",
    ) -> None:
        if batch_first is not None:
            batch_first = checks.boolean(batch_first, "batch_first")
        self._config = SimpleNamespace(
            num_features=checks.integer(num_features, "num_features", 1),
            eps=checks.number(eps, "eps"),
            momentum=None if momentum is None else checks.number(momentum, "momentum"),
            affine=checks.boolean(affine, "affine"),
            frozen=checks.boolean(frozen, "frozen"),
            batch_first=batch_first,
            dtype=checks.dtype(dtype),
        )
        if self.eps < 0:
            raise ValueError(f"eps is {eps}, expected at least 0")
        if self.momentum is not None and not 0 <= self.momentum <= 1:
            raise ValueError(f"momentum is {momentum}, expected 0 to 1, or None")
        checks.fits(self.eps, "eps", self.dtype)
        size = (self.num_features,)
        shapes: list[tuple[str, tuple[int, ...]]]
        shapes = [("weight", size), ("bias", size)] if self.affine else []
        shapes += [(name, () if name == _BUFFERS[-1] else size) for name in _BUFFERS]
        self._make_parameters(shapes, self.dtype)
        made = self._parameters
        self._buffers = {name: made[name] for name in _BUFFERS}
        self._parameters = {n: p for n, p in made.items() if n not in _BUFFERS}
        self.reset_parameters()

    @property
    def _input_size(self) -> int:
        return self.num_features

    def _output_size(self, size: int | None) -> int:
        return self.num_features

    def _stream_stage(self, name: str) -> Any:
        return PythonStage(self)

    def reset_parameters(self, seed: int | None = None) -> None:
        """Set all to what it starts as; there is nothing to draw from `seed`."""
        checks.seed(seed)
        for name, p in {**self._parameters, **self._buffers}.items():
            p._storage.fill(name in ("weight", "running_var"))
            p._touch()

    def __call__(self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None) -> Array:
        """Compute y for inference, from the running statistics.

        Parameters
        ----------
        x : array_like, (T, B, F), or (B, T, F) if batch_first, or (B, F), (T, F) or (F,)
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many steps each row has, 0 to T, the default.

        Returns
        -------
        y : ndarray, shaped like x
            0 past the end of a row.

        Raises
        ------
        ValueError, TypeError
            If x has another shape or dtype than the module takes, or lengths do not fit it.
        """
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,), lengths)
            return result
        batch_first = bool(self.batch_first)
        return whole(self, lambda: self._compute(x, lengths, batch_first, False))[0]

    def forward(
        self, x: npt.ArrayLike, *, lengths: npt.ArrayLike | None = None
    ) -> tuple[Array, ModuleTape]:
        """Compute y from the statistics of the batch, and move the running ones towards them.

        Parameters
        ----------
        x, lengths
            As when the module is called.

        Returns
        -------
        y : ndarray, shaped like x
        tape : ModuleTape
            For `backward`.

        Raises
        ------
        ValueError, TypeError
            As when the module is called, and if there is one value of each feature, or none, of
            which there is no variance.
        """
        return self._compute(x, lengths, bool(self.batch_first), True)

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> Array:
        """Add the gradients of weight and bias to their `grad`, and return that of x.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y

        Returns
        -------
        dx : ndarray, shaped like x
            0 past the end of a row.
        """
        dy = ModuleTape.gradient(tape, self, dy)
        normal, scale, weight, there = tape.saved
        gradients = self._own_gradients()
        with np.errstate(all="ignore"):
            rows = _rows(dy, there)
            along, total = np.einsum("ij,ij->j", rows, normal), rows.sum(axis=0)
            if self.affine:
                gradients[0] += along
                gradients[1] += total
                scale = weight * scale
            dx = _core.empty(rows.shape, rows.dtype)
            if self.frozen or not len(rows):
                np.copyto(dx, rows)
            else:  # mean and variance depend on x, too
                count = dy.dtype.type(len(rows))
                np.multiply(normal, -along / count, out=dx)
                dx += rows
                dx -= total / count
            dx *= scale
            return _placed(dx, there, dy.shape)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        lengths = flow.lengths
        return self._compute(x, lengths, flow.batch_first, train)

    def _compute(self, x: Any, lengths: Any, batch_first: bool, train: bool) -> tuple[Array, Any]:
        x = checks.real(x, self.dtype, "x")
        if not 1 <= x.ndim <= 3 or x.shape[-1] != self.num_features:
            axes = "B, T" if batch_first else "T, B"
            size = self.num_features
            raise ValueError(
                f"x has shape {x.shape}, expected ({axes}, {size}), (B, {size}) or (T, {size})"
            )
        there = self._there(x, lengths, batch_first)
        rows = _rows(x, there)
        with np.errstate(all="ignore"):
            mean, variance = self._statistics(rows, train)
            scale = (1 / np.sqrt(variance + self.eps)).astype(self.dtype)
            normal = np.subtract(rows, mean, out=_core.empty(rows.shape, rows.dtype))
            normal *= scale
            weight, bias = self._affine()
            if weight is None:
                result = normal
            else:
                result = np.multiply(normal, weight, out=_core.empty(rows.shape, rows.dtype))
                result += bias
            y = _placed(result, there, x.shape)
        return y, ModuleTape(self, x, y, (normal, scale, weight, there)) if train else None

    def _there(self, x: Array, lengths: Any, batch_first: bool) -> npt.NDArray[np.bool_] | None:
        """Return which steps are there, without the axis of features; None if all are."""
        rows = lengths.rows if isinstance(lengths, checks.Lengths) else lengths
        if rows is None or x.ndim == 1:
            return None
        if x.ndim == 3:
            time, batch = x.shape[1::-1] if batch_first else x.shape[:2]
            grid = valid_steps(time, checks.lengths(lengths, batch, time, batched=True))
            return grid.T if batch_first else grid
        # (T, F) of one sequence, or (B, F), where pooling has left no steps.
        if np.ndim(rows) == 1 and len(rows) == len(x):
            return None
        return valid_steps(len(x), checks.lengths(lengths, 1, len(x), batched=False))[:, 0]

    def _statistics(self, rows: Array, train: bool) -> tuple[Array, Array]:
        """Return mean and variance, and for training move the running ones."""
        mean, variance, count = (p._storage.view(np.ndarray) for p in self._buffers.values())
        if not train or self.frozen:
            return mean, variance
        n = len(rows)
        if n < 2:
            raise ValueError(
                f"x has {n} values of each feature that are there, expected at least 2 to train "
                "with: of fewer there is no variance"
            )
        found = rows.mean(axis=0, dtype=np.float64)
        centred = rows - found  # float64, as `found` is
        spread = np.einsum("ij,ij->j", centred, centred) / n
        count += 1
        share = 1 / float(count) if self.momentum is None else self.momentum
        mean += share * (found - mean)
        variance += share * (spread * n / (n - 1) - variance)
        for p in self._buffers.values():
            p._touch()
        return found.astype(self.dtype), spread

    def _affine(self) -> tuple[Array | None, Array | None]:
        """Return copies of weight and bias, or None for both."""
        if not self.affine:
            return None, None
        weight, bias = (p._storage.view(np.ndarray).copy() for p in self._parameters.values())
        return weight, bias


def _rows(x: Array, there: npt.NDArray[np.bool_] | None) -> Array:
    """Return the steps that are there, (n, F)."""
    return x.reshape(-1, x.shape[-1]) if there is None else x[there]


def _placed(rows: Array, there: npt.NDArray[np.bool_] | None, shape: tuple[int, ...]) -> Array:
    """Return rows where they came from, and 0 elsewhere."""
    if there is None:
        return rows.reshape(shape)
    placed = _core.empty(shape, rows.dtype)
    placed.fill(0)
    placed[there] = rows
    return placed
