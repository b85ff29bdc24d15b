"""Parameters: named arrays with gradients, which know when somebody may have changed them."""

from __future__ import annotations

import math
import mmap
import weakref
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._public.publish import explain
from . import checks
from .budget import BUDGET
from .checks import Array

__all__ = ["Parameter", "Watch", "gradients", "read_only", "settled", "touch", "zero_gradients"]


class _Storage(np.ndarray[tuple[int, ...], np.dtype[Any]]):
    """The memory of a parameter.

    It is a type of its own because NumPy lets the base of a view of a view skip the arrays between,
    except across types: so every slice of the array that `Parameter.data` hands out keeps
    that very array alive.
    """


def _zeros_untouched(shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return zeros that take memory, and time, only where they are written to.

    For a large array NumPy asks for pages of 2 MB, of which a few rows soon touch all.
    """
    nbytes = math.prod(shape) * dtype.itemsize
    memory = mmap.mmap(-1, nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return np.frombuffer(memory, dtype).reshape(shape)


class Watch:
    """What the parameters of a module share: a token, replaced whenever one may have changed."""

    __slots__ = ("frozen", "load", "shared", "token")

    # A copy for streams; of which module, which token, which ISA.
    frozen: tuple[Callable[[], Any], object, int, Callable[[], Any]]
    load: int  # the number of the last `load_state_dict` that wrote to one, see loads.py
    shared: bool  # whether several modules have it, as some of their parameters are tied

    def __init__(self, shared: bool = False) -> None:
        self.token = object()
        self.load = 0
        self.shared = shared
        self.frozen = (lambda: None, None, 0, lambda: None)

    def __reduce__(self) -> tuple[Any, ...]:
        return (Watch, (self.shared,))


class Parameter:
    """A named array and its gradient.

    Parameters
    ----------
    name : str
        As in the state dict, without the path of its module.
    data : array_like
        Its first values, copied; float32 or float64.
    watch : Watch, optional
        For modules: what they share with their parameters.

    Raises
    ------
    TypeError
        If name is no str, or data of another dtype.

    Examples
    --------
    >>> import numpy as np
    >>> p = Parameter("bias", np.ones(3, dtype="float32"))
    >>> p.grad += 2.0
    >>> p.data -= 0.25 * p.grad
    >>> p.data
    array([0.5, 0.5, 0.5], dtype=float32)
    """

    __slots__ = (
        "__weakref__", "_frozen", "_grad", "_lent", "_lent_grads", "_rows", "_storage", "_tracked",
        "_views", "_watch", "name", "sparse", "trainable",
    )  # fmt: skip

    name: str
    sparse: bool
    """Whether optimizers change only the `rows`, and leave the others as they are."""
    trainable: bool
    """Whether optimizers take and change it; clipping passes over it otherwise, too."""
    _frozen: bool  # whether it was trainable until `Module.freeze`
    _storage: _Storage
    _grad: Array | None
    _views: list[weakref.ref[Array]]  # the arrays handed out by `data` that are still in use
    _watch: Watch
    # Only of those whose gradient is kept by rows, such as an Embedding's weight:
    _tracked: bool
    _rows: npt.NDArray[np.intp] | None
    _lent: bool  # whether somebody may have written to any row of the gradient
    _lent_grads: list[weakref.ref[Array]]  # the arrays handed out by `grad`, still in use

    def __init__(self, name: str, data: npt.ArrayLike, watch: Watch | None = None) -> None:
        if not isinstance(name, str):
            raise TypeError(
                f"name is {checks.describe(name)}, expected a str, and the numbers after it"
            )
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
        self._storage = _Storage(shape, dtype)  # not a view, as `_Storage` explains
        self._grad = None
        self._views = []
        self._watch = watch
        self.sparse = False
        self.trainable = True
        self._frozen = False
        self._tracked = False
        self._rows = None

    @property
    def data(self) -> Array:
        """The values, writable in place; assigning copies into them.

        A layer sees every write through this array, its slices and whatever else keeps it alive (a
        `memoryview`, a `torch.from_numpy`), however late. While such a reference lives, each call
        of the layer prepares its weights anew, so let go of it when done. A bare address taken from
        it is not such a reference.
        """
        view: Array = self._storage.view(np.ndarray)
        # In this order, because a thread that packs weights reads the token and then the views.
        self._views.append(weakref.ref(view, self._views.remove))
        self._touch()
        return view

    @data.setter
    def data(self, value: npt.ArrayLike) -> None:
        if (
            getattr(value, "base", None) is not self._storage
        ):  # else `p.data += ...`, written already
            self._storage[...] = checks.values(value, self.shape, self.dtype, f"{self.name}.data")
        self._touch()

    @property
    def grad(self) -> Array:
        """The gradient, which `backward` adds to; zeros at first. Assigning copies into it."""
        if not self._tracked:
            return self._gradient()
        # Its base is a memoryview, so that slices of it keep this very view alive.
        view: Array = np.asarray(memoryview(self._gradient()))  # type: ignore[arg-type]
        self._lent_grads.append(weakref.ref(view, self._lent_grads.remove))
        self._lent = True
        return view

    @grad.setter
    def grad(self, value: npt.ArrayLike) -> None:
        gradient = self._gradient()
        own = value is gradient or getattr(getattr(value, "base", None), "obj", None) is gradient
        if not own:  # else `p.grad += ...`
            gradient[...] = checks.values(value, self.shape, self.dtype, f"{self.name}.grad")
        if not (own and self.sparse):
            self._rows = None

    @property
    def rows(self) -> npt.NDArray[np.intp] | None:
        """The rows that `backward` has added to since `zero_grad`, sorted; None if it may be all.

        The weight of an Embedding has them, other parameters do not. The gradient of all other rows
        is 0: rows that you have written to through an array taken from `grad` are among them.
        """
        if self._rows is not None and self._lent:
            gradient = self._gradient()
            written = (gradient != 0).any(axis=tuple(range(1, gradient.ndim)))
            return np.union1d(self._rows, np.flatnonzero(written))
        return self._rows

    def zero_grad(self) -> None:
        """Fill the gradient with zeros, if it is kept by rows at the cost of `rows` only."""
        zero_gradients([self])

    def _gradient(self) -> Array:
        """Return the gradient itself, which is for those who respect `rows`."""
        if self._grad is None:
            zeros = _zeros_untouched if self._tracked else np.zeros
            self._grad = zeros(self.shape, self.dtype)
        return self._grad

    def _freeze(self) -> None:
        self._frozen = self._frozen or self.trainable
        self.trainable = False

    def _unfreeze(self) -> None:
        self.trainable = self.trainable or self._frozen
        self._frozen = False

    def _keep_rows(self, sparse: bool) -> None:
        """Keep the gradient by rows from now on."""
        self.sparse = sparse
        self._tracked = True
        self._lent, self._lent_grads = False, []
        self._track()

    def _keep_all_rows(self) -> None:
        """Keep the gradient as a whole from now on, as somebody adds to all rows."""
        self._tracked, self._rows = False, None

    def _track(self) -> None:
        self._rows = np.empty(0, np.intp)

    def _add_rows(self, rows: npt.NDArray[np.intp], values: Array) -> None:
        """Add to rows of the gradient, of which each may come more than once."""
        _core.add_rows(self._gradient(), rows, checks.in_order(values))
        if self._rows is not None:
            self._rows = np.union1d(self._rows, rows)

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

    def _draw(self, draw: Callable[[int], Array]) -> None:
        """Overwrite the values by what `draw` returns: as many numbers as it is asked for."""
        if BUDGET.get() is not None:
            return  # a file has the values
        flat = self._storage.reshape(-1)
        for start in range(0, flat.size, 2**20):  # in pieces, as they come in float64
            piece = flat[start : start + 2**20]
            piece[...] = draw(piece.size)
        self._touch()

    def _touch(self) -> None:
        """Say that `_storage` has been written to: call it after the write."""
        self._watch.token = object()

    def __array_ufunc__(self, ufunc: Any, method: str, *args: Any, **options: Any) -> Any:
        if method == "__call__" and ufunc in (np.equal, np.not_equal):
            return ufunc is np.not_equal  # it is itself alone, as where no array is compared
        raise TypeError(
            f"{ufunc.__name__} is given the parameter {self.name!r}, expected its numbers: "
            f"{self.name}.data"
        )

    def __repr__(self) -> str:
        return f"Parameter({self.name!r}, shape={self.shape}, dtype={self.dtype})"

    def __getstate__(self) -> tuple[Any, ...]:
        """Pickled and copied without the gradient, as in PyTorch."""
        values = np.array(self._storage, subok=False)
        trained = self.trainable, self._frozen
        return self.name, values, self._watch, self._tracked, self.sparse, *trained

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        name, values, watch, tracked, sparse, *trained = state
        self._allocate(name, values.shape, values.dtype, watch)
        self._storage[...] = values
        if tracked:
            self._keep_rows(sparse)
        if trained:  # pickles of older versions do not say
            self.trainable, self._frozen = trained[0], any(trained[1:])


explain(
    Parameter,
    {
        name: f"its numbers have it, .data.{name}"
        for name in dir(np.ndarray)
        if name[0] != "_" and not hasattr(Parameter, name)
    },
)
_views = attrgetter("_views")

# Functions of many parameters: in a small model, a call for each would cost as much as the math.


def gradients(parameters: Iterable[Parameter]) -> list[Array]:
    """Return the gradients themselves, which are for those who respect `rows`."""
    return [p._gradient() if p._grad is None else p._grad for p in parameters]


def zero_gradients(parameters: Iterable[Parameter]) -> None:
    """Fill the gradients with zeros, as `Parameter.zero_grad` says."""
    for p in parameters:
        if p._grad is not None:
            if p._rows is None or p._lent or 2 * len(p._rows) > len(p._grad):
                p._grad.fill(0)
            else:
                p._grad[p._rows] = 0
        if p._tracked:
            p._track()
            p._lent = bool(p._lent_grads)


def touch(parameters: Iterable[Parameter]) -> None:
    """Say that the storages have been written to: call it after the write."""
    for p in parameters:
        p._watch.token = object()


def read_only(parameters: Iterable[Parameter]) -> Parameter | None:
    """Return the first parameter whose gradient cannot be added to, if there is one."""
    for p in parameters:
        if p._grad is not None and not p._grad.flags.writeable:
            return p
    return None


def settled(parameters: Iterable[Parameter]) -> bool:
    """Whether nobody outside holds a reference through which one could change unnoticed."""
    return not any(map(_views, parameters))
