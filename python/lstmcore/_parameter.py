"""Parameters: named arrays with gradients, which know when somebody may have changed them."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _checks
from ._checks import Array

__all__ = ["Parameter", "Watch"]


class _Storage(np.ndarray[tuple[int, ...], np.dtype[Any]]):
    """The memory of a parameter.

    It is a type of its own because NumPy lets the base of a view of a view skip the arrays between,
    except across types: so every slice of the plain array that `Parameter.data` hands out keeps
    that very array alive.
    """


class Watch:
    """What the parameters of one module share: a token, replaced whenever one may have changed."""

    __slots__ = ("frozen", "token")

    frozen: tuple[object, int, Callable[[], Any]]  # a copy for streams; of which token, which ISA

    def __init__(self) -> None:
        self.token = object()
        self.frozen = (None, 0, lambda: None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Watch, ())


class Parameter:
    """A named array and its gradient.

    Parameters
    ----------
    name : str
        As in the state dict.
    data : array_like
        Its first values, copied; float32 or float64.

    Examples
    --------
    >>> import numpy as np
    >>> p = Parameter("bias", np.ones(3, dtype="float32"))
    >>> p.grad += 2.0
    >>> p.data -= 0.25 * p.grad
    >>> p.data
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    __slots__ = ("__weakref__", "_grad", "_storage", "_views", "_watch", "name")

    name: str
    _storage: _Storage
    _grad: Array | None
    _views: list[weakref.ref[Array]]  # the arrays handed out by `data` that are still in use
    _watch: Watch

    def __init__(self, name: str, data: npt.ArrayLike, watch: Watch | None = None) -> None:
        values = np.asarray(data)
        if values.dtype not in (np.float32, np.float64):
            raise TypeError(f"{name} has dtype {values.dtype}, expected float32 or float64")
        self._allocate(name, values.shape, values.dtype, watch or Watch())
        self._storage[...] = values

    @classmethod
    def _empty(
        cls, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], watch: Watch
    ) -> Parameter:
        """Make a parameter whose values are yet to be written."""
        self = cls.__new__(cls)
        self._allocate(name, shape, dtype, watch)
        return self

    def _allocate(
        self, name: str, shape: tuple[int, ...], dtype: np.dtype[Any], watch: Watch
    ) -> None:
        self.name = name
        self._storage = _Storage(shape, dtype)  # owns its memory, as it must: see there
        self._grad = None
        self._views = []
        self._watch = watch

    @property
    def data(self) -> Array:
        """The values, writable in place; assigning copies into them.

        A layer sees every write through this array, its slices and whatever else keeps it alive (a
        `memoryview`, a `torch.from_numpy`), however late. While such a reference lives, each call
        of the layer prepares its weights anew, so let go of it when done. A bare address taken from
        it is not such a reference.
        """
        view: Array = self._storage.view(np.ndarray)
        # The order matters to a thread packing meanwhile: it reads the token, then looks for views.
        self._views.append(weakref.ref(view, self._views.remove))
        self._touch()
        return view

    @data.setter
    def data(self, value: npt.ArrayLike) -> None:
        if (
            getattr(value, "base", None) is not self._storage
        ):  # else `p.data += ...`, written already
            self._storage[...] = _checks.values(value, self.shape, self.dtype, f"{self.name}.data")
        self._touch()

    @property
    def grad(self) -> Array:
        """The gradient, which `backward` adds to; zeros at first. Assigning copies into it."""
        if self._grad is None:
            self._grad = np.zeros(self.shape, self.dtype)
        return self._grad

    @grad.setter
    def grad(self, value: npt.ArrayLike) -> None:
        if value is not self._grad:  # else `p.grad += ...`
            self.grad[...] = _checks.values(value, self.shape, self.dtype, f"{self.name}.grad")

    def zero_grad(self) -> None:
        """Fill the gradient with zeros."""
        if self._grad is not None:
            self._grad.fill(0)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data` and `grad`."""
        return self._storage.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of `data` and `grad`: float32 or float64."""
        return self._storage.dtype

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return self._storage.size

    def _touch(self) -> None:
        """Say that `_storage` has been written to: call it after the write."""
        self._watch.token = object()

    def _settled(self) -> bool:
        """Whether nobody outside holds a reference through which it could change unnoticed."""
        return not self._views

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __getstate__(self) -> tuple[str, Array, Watch]:
        """Pickled and copied without the gradient, as in PyTorch."""
        return self.name, np.array(self._storage, subok=False), self._watch

    def __setstate__(self, state: tuple[str, Array, Watch]) -> None:
        self.__init__(*state)  # type: ignore[misc]
