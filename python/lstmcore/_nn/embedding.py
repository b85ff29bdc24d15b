"""Embedding: a vector for every id."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.flow import Flow
from .._base.loads import whole
from .._base.low_precision import LowPrecision, check_precision
from .._base.module import storable
from .._base.symbolic import Symbolic
from .config import Option
from .tape import ModuleTape

__all__ = ["Embedding"]


@storable
class Embedding(LowPrecision):
    """y = weight[ids]: a vector for each of the ids, which are integers from 0.

    A call, its `backward` and `zero_grad` cost what the ids of the batch cost, however many there
    could be.

    Parameters
    ----------
    num_embeddings : int
        How many ids there are: 0 to num_embeddings - 1.
    embedding_dim : int
        Size of a vector.
    padding_idx : int, optional
        An id whose vector starts as 0 and gets no gradient; negative ones count from the end.
    sparse : bool, default False
        Whether optimizers change only the vectors whose ids the batch had, and leave the others,
        their moments too, as they are (as ``torch.optim.SparseAdam`` does). If not, Adam and
        momentum move every vector in every step, at the cost of all of them.
    dtype : {"float32", "float64"}, default "float32"
        Of the weight and y.
    seed : int, optional
        Of the first weight, as in `reset_parameters`.
    precision : {"float32", "bfloat16", "bfloat16x3"}
        With "bfloat16", y is rounded to it, so that y is what a table in bfloat16 holds: C++ keeps
        it so. The weight and its gradient are float32, and layers in bfloat16 behind it have the
        same bits with it as without. "bfloat16x3" computes in float32. Can be set later, too.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.
    MemoryError
        If the weight needs more memory than this process may use.

    Notes
    -----
    The parameter is PyTorch's: ``weight`` (num_embeddings, embedding_dim). `lstmcore.quantize`
    makes it int8, with ``weight_scale`` (num_embeddings,).

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> embedding = lc.Embedding(1000, 2, seed=0)
    >>> y, tape = embedding.forward([[3, 7], [3, 5]])
    >>> y.shape
    (2, 2, 2)
    >>> embedding.backward(tape, np.ones_like(y))  # ids have no gradient
    >>> weight = embedding.parameters()[0]
    >>> weight.rows
    array([3, 5, 7])
    >>> weight.grad[weight.rows]
    array([[2., 2.],
           [1., 1.],
           [1., 1.]], dtype=float32)
    """

    _MATRICES = ("weight",)
    _MOST_COLUMNS = float("inf")
    _has_precision = True

    each_step = True
    _takes_ids = True
    num_embeddings = Option[int]()
    embedding_dim = Option[int]()
    padding_idx = Option["int | None"]()
    sparse = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        sparse: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        *,
        precision: str = "float32",
    ) -> None:
        count = checks.integer(num_embeddings, "num_embeddings", 1)
        if padding_idx is not None:
            index = checks.integer(padding_idx, "padding_idx", -count)
            if index >= count:
                raise ValueError(f"padding_idx is {index}, expected less than {count}")
            padding_idx = index % count
        self._config = SimpleNamespace(
            num_embeddings=count,
            embedding_dim=checks.integer(embedding_dim, "embedding_dim", 1),
            padding_idx=padding_idx,
            sparse=checks.boolean(sparse, "sparse"),
            dtype=checks.dtype(dtype),
            precision=check_precision(precision, "precision", checks.dtype(dtype)),
        )
        self._make_parameters([("weight", (count, self.embedding_dim))], self.dtype)
        if not self._quantized:
            self._parameters["weight"]._keep_rows(self.sparse)
        self.reset_parameters(seed)

    def _output_size(self, size: int | None) -> int:
        return self.embedding_dim

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw the weight from N(0, 1), as PyTorch does, but for 0 at `padding_idx`.

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        self._refuse_in_int8("reset_parameters")
        weight = self._parameters["weight"]
        weight._draw(np.random.default_rng(checks.seed(seed)).standard_normal)
        if self.padding_idx is not None:
            weight._storage[self.padding_idx] = 0

    def __call__(self, x: npt.ArrayLike) -> Array:
        """Return the vectors of ids.

        Parameters
        ----------
        x : array_like of int, any shape
            Ids, 0 to num_embeddings - 1. Where sequences are padded, pad with any of them.

        Returns
        -------
        y : ndarray (..., embedding_dim)

        Raises
        ------
        ValueError
            If an id is negative or too large.
        TypeError
            If x is not of integers.
        """
        if isinstance(x, Symbolic):
            result: Array = x._enter(self, (x,))
            return result
        ids = self._ids(x)
        return whole(self, lambda: self._vectors(ids))

    def forward(self, x: npt.ArrayLike) -> tuple[Array, ModuleTape]:
        """Return the vectors of ids, and keep what `backward` needs.

        Parameters
        ----------
        x : array_like of int, any shape
            As when the module is called.

        Returns
        -------
        y : ndarray (..., embedding_dim)
        tape : ModuleTape
            For `backward`.
        """
        self._refuse_in_int8("training")
        ids = self._ids(x)
        y = self._vectors(ids)
        return y, ModuleTape(self, ids, y, (ids.copy(),))

    def backward(self, tape: ModuleTape, dy: npt.ArrayLike) -> None:
        """Add to the gradient of the weight, in the rows of the ids; ids have no gradient.

        Parameters
        ----------
        tape : ModuleTape
            From `forward` of this very module.
        dy : array_like, shaped like y
            Gradient with respect to y.
        """
        rows = ModuleTape.gradient(tape, self, dy).reshape(-1, self.embedding_dim)
        ids = tape.saved[0].ravel()
        if self.padding_idx is not None:
            kept = ids != self.padding_idx
            rows, ids = rows[kept], ids[kept]
        self._parameters["weight"]._add_rows(ids, rows)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Any, Any]:
        if flow.feeds_lookup and type(self) is Embedding:  # else its own way of computing is called
            x, flow.lookup = self._distinct(x)
        return super()._apply(x, flow, train)

    def _stream_stage(self, name: str) -> Any:
        return None  # a stream calls it, and gives the core its vectors

    def _distinct(self, x: npt.ArrayLike) -> tuple[Any, npt.NDArray[np.int64] | None]:
        """Return the different ids of x, ascending, and where in them each of x is.

        So a layer behind it multiplies the vector of each id once, however often it comes. Where
        that is no gain, with few ids or a large vocabulary, return x itself and None.
        """
        ids = self._ids(x)
        if ids.ndim not in (1, 2) or 2 * self.num_embeddings > ids.size:
            return ids, None
        place = np.zeros(self.num_embeddings, np.int64)
        place[ids] = 1
        distinct = np.flatnonzero(place)
        place[distinct] = np.arange(len(distinct))
        return distinct, place[ids]

    def _ids(self, x: npt.ArrayLike) -> npt.NDArray[np.intp]:
        ids = checks.integers(x, "x")
        if ids.size:
            for id_ in (ids.min(), ids.max()):
                if not 0 <= id_ < self.num_embeddings:
                    raise ValueError(f"x has the id {id_}, expected 0 to {self.num_embeddings - 1}")
        return ids.astype(np.intp, copy=False)

    def _vectors(self, ids: npt.NDArray[np.intp]) -> Array:
        y = _core.empty((*ids.shape, self.embedding_dim), self.dtype)
        weight, *scale = (p._storage.view(np.ndarray) for p in self._parameters.values())
        # mode="clip" is faster, and the ids are known to be right.
        if scale:
            factors = scale[0].take(ids, mode="clip")[..., None]
            return np.multiply(weight.take(ids, axis=0, mode="clip"), factors, out=y)
        weight.take(ids, axis=0, out=y, mode="clip")
        if self._config.precision == "bfloat16":
            _core.round_bfloat16(y)
        return y

    def __repr__(self) -> str:
        text = super().__repr__()
        return text[:-1] + ", in int8)" if self._quantized else text
