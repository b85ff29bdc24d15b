"""Attention over the states of an encoder: scaled dot-product, multi-head, and additive.

All take `query`, `key` and `value`, and give for every query a mean of the values, weighted by how
well their keys fit the query. With an encoder, key and value are its outputs y, the queries are the
decoder's; add the gradients of key and value then.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._base import checks
from ._base.checks import Array
from ._base.flow import BackwardFlow, Flow
from ._base.loads import whole
from ._base.module import Module, storable
from ._base.packed_weights import PacksWeights
from ._base.symbolic import Axes, Symbolic
from ._nn.activations import softmax, softmax_backward
from ._nn.config import Option
from ._nn.dropout import dropout_scale
from ._nn.linear import Linear
from ._nn.over_time import valid_steps
from ._nn.tape import ModuleTape
from ._public.publish import publish

__all__ = ["Additive", "AttentionTape", "MultiHead", "ScaledDotProduct"]


class AttentionTape(ModuleTape):
    """What ``forward`` of an attention remembers for ``backward``.

    It keeps query, key and value themselves, so leave them as they are until then.
    """

    __slots__ = ("weights",)

    weights: Array
    """The weights of every query, (B, T, S), or of every head, (B, num_heads, T, S)."""


class Attention(Module):
    """What the kinds share: arguments, masks, the calls."""

    _takes_one_x = False
    _knows_time = True
    _looks_back = True  # over all keys
    _lengths_of = 1  # key
    _each_query = True

    batch_first = Option[bool]()
    causal = Option[bool]()

    def __call__(
        self,
        query: npt.ArrayLike,
        key: npt.ArrayLike,
        value: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Attend for inference: no dropout, nothing remembered.

        Parameters
        ----------
        query : array_like, (T, B, E), or (B, T, E) if batch_first, or (T, E) unbatched
            What looks for something, T of it.
        key : array_like, (S, B, K), or (B, S, K) if batch_first, or (S, K) unbatched
            What the queries are held to, one for each of S steps.
        value : array_like, (S, B, V), or (B, S, V) if batch_first, or (S, V) unbatched
            What is averaged.
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many keys and values each row has, 0 to S, the default. Those past the end are not
            looked at. A row without any gets the mean of nothing, which is 0.

        Returns
        -------
        y : ndarray, (T, B, V) or with MultiHead (T, B, E); axes as in query
            The weighted means.
        weights : ndarray, (B, T, S), or (T, S) unbatched, whatever `batch_first` says
            Their weights, at least 0, whose sum is 1; with MultiHead the mean of all heads.
        """
        if isinstance(query, Symbolic):
            made: tuple[Array, Array] = query._enter(self, (query, key, value), lengths)
            return made
        y, weights, _ = whole(self, lambda: self._compute(query, key, value, lengths, False))
        return y, weights

    def forward(
        self,
        query: npt.ArrayLike,
        key: npt.ArrayLike,
        value: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
    ) -> tuple[Array, Array, AttentionTape]:
        """Attend with dropout, and keep what `backward` needs.

        Parameters
        ----------
        query, key, value, lengths
            As when the module is called.

        Returns
        -------
        y, weights : ndarray
            As when the module is called; the weights are without dropout.
        tape : AttentionTape
            For `backward`. It shares query, key and value: leave them as they are until then.
        """
        y, weights, tape = self._compute(query, key, value, lengths, True)
        return y, weights, tape

    def backward(self, tape: AttentionTape, dy: npt.ArrayLike) -> tuple[Array, Array, Array]:
        """Add the gradients of the parameters to their `grad`, and return those of the arguments.

        Parameters
        ----------
        tape : AttentionTape
            From `forward` of this very module.
        dy : array_like, shaped like y
            Gradient with respect to y.

        Returns
        -------
        dquery, dkey, dvalue : ndarray
            Shaped like query, key and value; 0 past the end of a row. Where key and value are one
            array, its gradient is the sum of both.
        """
        dy = ModuleTape.gradient(tape, self, dy)
        *saved, shapes = tape.saved
        if len(shapes[0]) == 2:
            dy = self._batch_of_one(dy)
        with np.errstate(all="ignore"):
            gradients = self._backward(dy, tape.weights, *saved)
        dquery, dkey, dvalue = (g.reshape(s) for g, s in zip(gradients, shapes, strict=True))
        return dquery, dkey, dvalue

    def _compute(self, query: Any, key: Any, value: Any, lengths: Any, train: bool) -> Any:
        given: Any = self._arrays(query, key, value)
        if train:
            own = {id(x): checks.kept(x) for x in given}  # key and value are one array mostly
            given = tuple(own[id(x)] for x in given)
        query, key, value = given
        batched = query.ndim == 3
        if not batched:
            query, key, value = (self._batch_of_one(x) for x in given)
        ends = None
        if lengths is not None:
            batch, time = self._swap(key).shape[:2]
            ends = checks.lengths(lengths, batch, time, batched=batched, of="key")
        with np.errstate(all="ignore"):  # infinity and NaN are no error
            y, shown, weights, saved = self._forward(query, key, value, ends, train)
        if not batched:
            y, shown = self._swap(y)[0], shown[0]
        if not train:
            return y, shown, None
        weights.flags.writeable = shown.flags.writeable = False  # the tape needs it as it is
        tape = AttentionTape(self, given[0], y, (*saved, [x.shape for x in given]))
        tape.weights = weights
        tape.nbytes = weights.nbytes + _size(saved, (*given, y))
        return y, shown, tape

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        query, key, value = args
        y, weights, tape = self._compute(query, key, value, flow.lengths, train)
        return (y, weights), tape

    def _apply_all_backward(self, tape: Any, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        if dy[1] is not None:
            raise ValueError("the weights of an attention have a gradient, expected none")
        return self.backward(tape, dy[0])

    def _stream_stage(self, name: str) -> Any:
        raise TypeError(
            f"{name} cannot be streamed: it may need other steps than the one it is given"
        )

    def _axes(self, query: Axes, key: Axes, value: Axes) -> tuple[Any, ...]:
        for name, x in (("query", query), ("key", key), ("value", value)):
            if not x.steps or x.features is None:
                raise ValueError(f"{name} is {x}, expected time steps of features")
        sizes = self._features(query.features or 0)
        for name, x, size in zip(
            ("query", "key", "value"), (query, key, value), sizes, strict=True
        ):
            if size not in (None, x.features):
                raise ValueError(f"{name} is {x}, expected {size} features")
        size = value.features if sizes[2] is None else sizes[0]
        return Axes(size, steps=True), Axes(None, shown="(B, T, S)")

    def _swap(self, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return (B, T, ...) of (T, B, ...) or the other way, or x as it is if batch_first."""
        return x if self.batch_first else x.swapaxes(0, 1)

    def _batch_of_one(self, x: Array) -> Array:
        return x[None] if self.batch_first else x[:, None]

    def _arrays(self, query: Any, key: Any, value: Any) -> tuple[Array, Array, Array]:
        """Return the arguments as arrays whose dtypes and shapes fit."""
        dtype = getattr(self._config, "dtype", None)
        if dtype is None:
            query = checks.floating(query, "query")
            dtype = query.dtype
        else:
            query = checks.real(query, dtype, "query")
        key = checks.real(key, dtype, "key")
        value = checks.real(value, dtype, "value")
        first, second, third = self._features(query.shape[-1] if query.ndim else 0)
        time = ("B, T", "B, S") if self.batch_first else ("T, B", "S, B")
        if query.ndim not in (2, 3) or query.shape[-1] != first:
            expected = f"({time[0]}, {first}) or (T, {first})"
            raise ValueError(f"query has shape {query.shape}, expected {expected}")
        wanted: tuple[int, ...] = key.shape[:-1]
        if query.ndim == 3:
            batch = query.shape[0 if self.batch_first else 1]
            wanted = (batch, *key.shape[1:2]) if self.batch_first else (*key.shape[:1], batch)
        if key.ndim != query.ndim or key.shape != (*wanted, second):
            expected = f"({time[1] if query.ndim == 3 else 'S'}, {second})"
            if query.ndim == 3:
                expected += f" with B = {batch}, as query has"
            raise ValueError(f"key has shape {key.shape}, expected {expected}")
        third = value.shape[-1] if third is None and value.ndim else third
        if value.shape != (*wanted, third):
            size = "V" if third is None else third
            expected = ", ".join(map(str, (*wanted, size)))
            raise ValueError(f"value has shape {value.shape}, expected ({expected}), as key has")
        return query, key, value

    def _features(self, size: int) -> tuple[int, int, int | None]:
        """Sizes of query, key and value if query has that size, None being any."""
        raise NotImplementedError

    def _without_padding(self, x: Array, ends: Any) -> Array:
        """Return key or value with zeros behind the ends: weights of 0 do not undo a NaN."""
        if ends is None:
            return x
        there = valid_steps(self._swap(x).shape[1], ends).T[..., None]
        return np.where(self._swap(there), x, x.dtype.type(0))

    def _forward(
        self, query: Array, key: Array, value: Array, ends: Any, train: bool
    ) -> tuple[Array, Array, Any, tuple[Any, ...]]:
        """Return y, the weights to show and, for training, those of the tape and what else it has.

        `ends` are the lengths, or None; `_backward` takes what the tape has.
        """
        raise NotImplementedError

    def _backward(self, dy: Array, weights: Array, *saved: Any) -> tuple[Array, ...]:
        """Return dquery, dkey and dvalue."""
        raise NotImplementedError


@storable
class ScaledDotProduct(Attention):
    """y = softmax(query key' / sqrt(E)) value, without parameters.

    Parameters
    ----------
    scale : float, optional
        What the products are multiplied by instead of 1 / sqrt(E), E being the size of a query.
    batch_first : bool, default False
        Whether query, key, value and y are (B, T, ...) rather than (T, B, ...).
    causal : bool, default False
        Whether query t looks at keys 0 to t alone.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    A. Vaswani et al., "Attention is all you need", NIPS 2017, equation 1. Queries and keys have the
    same size; values may have another.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> attention = lc.attention.ScaledDotProduct()
    >>> key, value = np.eye(3), np.array([[1.0], [2.0], [3.0]])
    >>> y, weights, tape = attention.forward([[0.0, 0.0, 9.0]], key, value, lengths=2)
    >>> y, weights
    (array([[1.5]]), array([[0.5, 0.5, 0. ]]))
    >>> [gradient.shape for gradient in attention.backward(tape, np.ones_like(y))]
    [(1, 3), (3, 3), (3, 1)]
    """

    scale = Option["float | None"]()

    def __init__(
        self, scale: float | None = None, batch_first: bool = False, causal: bool = False
    ) -> None:
        self._config = SimpleNamespace(
            scale=None if scale is None else checks.number(scale, "scale"),
            batch_first=checks.boolean(batch_first, "batch_first"),
            causal=checks.boolean(causal, "causal"),
        )

    def _features(self, size: int) -> tuple[int, int, int | None]:
        return size, size, None

    def _forward(
        self, query: Array, key: Array, value: Array, ends: Any, train: bool
    ) -> tuple[Array, Array, Any, tuple[Any, ...]]:
        scale = max(query.shape[-1], 1) ** -0.5 if self.scale is None else self.scale
        query, key, value = map(checks.in_order, (query, key, value))
        (batch, time), steps = self._swap(query).shape[:2], self._swap(key).shape[1]
        weights = _core.empty((batch, time, steps), query.dtype)
        given = (query, key, value, ends, None, scale, 1, self.batch_first, self.causal)
        return _core.attention(weights, None, *given), weights, weights, given

    def _backward(self, dy: Array, weights: Array, *given: Any) -> tuple[Array, ...]:
        return _core.attention_backward(checks.in_order(dy), weights, *given)


@storable
class Additive(Attention):
    """y = softmax(sum over e of v[e] tanh(query[e] + key[e])) value.

    It is the attention of Bahdanau et al. behind its two projections, which are a `Linear` each for
    query and key; Keras calls it AdditiveAttention.

    Parameters
    ----------
    size : int
        Size of query and key.
    scale : bool, default True
        Whether there is a v, the parameter ``weight``; without, it is 1.
    batch_first : bool, default False
        Whether query, key, value and y are (B, T, ...) rather than (T, B, ...).
    dtype : {"float32", "float64"}, default "float32"
        Of the parameter, arguments and results.
    seed : int, optional
        Of the first parameter, as in `reset_parameters`.
    causal : bool, default False
        Whether query t looks at keys 0 to t alone.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    D. Bahdanau, K. Cho, Y. Bengio, "Neural machine translation by jointly learning to align and
    translate", ICLR 2015 (arXiv:1409.0473), appendix A.1.2. It needs memory for T S size numbers.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> attention = lc.attention.Additive(8, seed=0)
    >>> query, states = np.ones((3, 2, 8), "float32"), np.ones((5, 2, 8), "float32")
    >>> y, weights = attention(query, states, states, lengths=[5, 4])
    >>> y.shape, weights.shape, weights[1, 0].round(2)
    ((3, 2, 8), (2, 3, 5), array([0.25, 0.25, 0.25, 0.25, 0.  ], dtype=float32))
    """

    size = Option[int]()
    scale = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        size: int,
        scale: bool = True,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        causal: bool = False,
    ) -> None:
        self._config = SimpleNamespace(
            size=checks.integer(size, "size", 1),
            scale=checks.boolean(scale, "scale"),
            batch_first=checks.boolean(batch_first, "batch_first"),
            causal=checks.boolean(causal, "causal"),
            dtype=checks.dtype(dtype),
        )
        shapes: list[tuple[str, tuple[int, ...]]] = [("weight", (self.size,))]
        self._make_parameters(shapes[: self.scale], self.dtype)
        self.reset_parameters(seed)

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw v from U(-s, s) with s = 1 / sqrt(size).

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        rng = np.random.default_rng(checks.seed(seed))
        for p in self._parameters.values():
            p._draw(lambda count: rng.uniform(-(self.size**-0.5), self.size**-0.5, count))

    def _features(self, size: int) -> tuple[int, int, int | None]:
        return self.size, self.size, None

    def _forward(
        self, query: Array, key: Array, value: Array, ends: Any, train: bool
    ) -> tuple[Array, Array, Any, tuple[Any, ...]]:
        key, value = (self._without_padding(x, ends) for x in (key, value))
        query, key, value = (self._swap(x) for x in (query, key, value))
        bent = np.tanh(query[:, :, None] + key[:, None])
        v = np.array(self._parameters["weight"]._storage, subok=False) if self.scale else None
        scores = bent.sum(axis=-1) if v is None else bent @ v
        there: Any = True
        if ends is not None:
            there = valid_steps(key.shape[1], ends).T[:, None]
        if self.causal:
            there = there & np.tri(*scores.shape[1:], dtype=np.bool_)
        if there is not True:
            scores = np.where(there, scores, scores.dtype.type(-np.inf))
        weights = softmax(scores)
        if ends is not None:
            weights[ends == 0] = 0
        return self._swap(weights @ value), weights, weights, (bent, value, v)

    def _backward(
        self, dy: Array, weights: Array, bent: Array, value: Array, v: Array | None
    ) -> tuple[Array, Array, Array]:
        dy = self._swap(dy)
        dvalue = weights.swapaxes(-1, -2) @ dy
        dscores = softmax_backward(dy @ value.swapaxes(-1, -2), weights)[..., None]
        if v is not None:
            self._parameters["weight"].grad += (dscores * bent).sum(axis=(0, 1, 2))
        dbent = dscores * (1 - bent * bent) * (1 if v is None else v)
        return self._swap(dbent.sum(axis=2)), self._swap(dbent.sum(axis=1)), self._swap(dvalue)


@storable
class MultiHead(Attention, PacksWeights):
    """Several scaled dot-product attentions side by side, between learned projections.

    Head i attends with its part of W_q query + b_q, W_k key + b_k and W_v value + b_v, which are
    embed_dim / num_heads numbers each; y = W_o (the heads, one after the other) + b_o.

    Parameters
    ----------
    embed_dim : int
        Size of query and y.
    num_heads : int
        How many heads there are; they share embed_dim evenly.
    dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a weight.
    bias : bool, default True
        Whether there are b_q, b_k, b_v and b_o.
    kdim, vdim : int, optional
        Sizes of key and value, if not embed_dim.
    batch_first : bool, default False
        Whether query, key, value and y are (B, T, ...) rather than (T, B, ...).
    dtype : {"float32", "float64"}, default "float32"
        Of parameters, arguments and results.
    seed : int, optional
        Of the first parameters, as in `reset_parameters`, and of dropout.
    causal : bool, default False
        Whether query t looks at keys 0 to t alone.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    A. Vaswani et al., "Attention is all you need", NIPS 2017, section 3.2.2. The parameters are
    those of ``torch.nn.MultiheadAttention``: ``in_proj_weight`` (3 embed_dim, embed_dim) with W_q,
    W_k and W_v below each other (or, with `kdim` or `vdim`, ``q_proj_weight``, ``k_proj_weight``
    and ``v_proj_weight``), ``in_proj_bias``, ``out_proj.weight`` and ``out_proj.bias``.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> attention = lc.attention.MultiHead(8, 2, kdim=6, vdim=6, seed=0)
    >>> query, states = np.ones((3, 2, 8), "float32"), np.ones((5, 2, 6), "float32")
    >>> y, weights, tape = attention.forward(query, states, states, lengths=[5, 4])
    >>> y.shape, weights.shape, tape.weights.shape
    ((3, 2, 8), (2, 3, 5), (2, 2, 3, 5))
    >>> dquery, dkey, dvalue = attention.backward(tape, np.ones_like(y))
    >>> (dkey + dvalue).shape
    (5, 2, 6)
    """

    embed_dim = Option[int]()
    num_heads = Option[int]()
    dropout = Option[float]()
    bias = Option[bool]()
    kdim = Option["int | None"]()
    vdim = Option["int | None"]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        causal: bool = False,
    ) -> None:
        size = checks.integer(embed_dim, "embed_dim", 1)
        sizes = [
            None if dim is None or checks.integer(dim, name, 1) == size else int(dim)
            for name, dim in (("kdim", kdim), ("vdim", vdim))
        ]
        self._config = SimpleNamespace(
            embed_dim=size,
            num_heads=checks.integer(num_heads, "num_heads", 1),
            dropout=checks.probability(dropout, "dropout"),
            bias=checks.boolean(bias, "bias"),
            kdim=sizes[0],
            vdim=sizes[1],
            batch_first=checks.boolean(batch_first, "batch_first"),
            causal=checks.boolean(causal, "causal"),
            dtype=checks.dtype(dtype),
        )
        if size % self.num_heads:
            raise ValueError(f"embed_dim is {size}, expected a multiple of num_heads={num_heads}")
        if self.kdim or self.vdim:
            dims = (size, self.kdim or size, self.vdim or size)
            shapes = [(f"{n}_proj_weight", (size, dim)) for n, dim in zip("qkv", dims, strict=True)]
        else:
            shapes = [("in_proj_weight", (3 * size, size))]
        biases: list[tuple[str, tuple[int, ...]]] = [("in_proj_bias", (3 * size,))]
        self._make_parameters([*shapes, *biases[: self.bias]], self.dtype)
        self._children = {"out_proj": Linear(size, size, self.bias, self.dtype)}
        self.reset_parameters(seed)
        if self.dropout:
            # A stream of its own, so that dropout does not change the parameters.
            self._dropout_rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(0,)))

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw every projection anew, with biases 0, as PyTorch does.

        W_q, W_k and W_v are from U(-a, a), a = sqrt(6 / (rows + columns)) of their parameter
        (X. Glorot and Y. Bengio, "Understanding the difficulty of training deep feedforward neural
        networks", AISTATS 2010), W_o from U(-1/sqrt(embed_dim), 1/sqrt(embed_dim)).

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        rng = np.random.default_rng(checks.seed(seed))
        out = self._children["out_proj"]
        for name, p in (*self._parameters.items(), *out._parameters.items()):
            if "bias" in name:
                p._storage.fill(0)
                p._touch()
            else:
                a = self.embed_dim**-0.5 if name == "weight" else math.sqrt(6 / sum(p.shape))
                p._draw(lambda count, a=a: rng.uniform(-a, a, count))  # type: ignore[misc]

    def _features(self, size: int) -> tuple[int, int, int | None]:
        return self.embed_dim, self.kdim or self.embed_dim, self.vdim or self.embed_dim

    def _in_weights(self) -> list[Any]:
        """Return views of W_q, W_k and W_v."""
        return _of_each([p._storage for n, p in self._parameters.items() if n.endswith("weight")])

    def _pack(self, parameters: list[Array], train: bool) -> list[_core.Linear]:
        matrices = _of_each(parameters[: len(parameters) - self.bias])
        biases = np.split(parameters[-1], 3) if self.bias else [None] * 3
        return [_core.pack_linear(w, b, train) for w, b in zip(matrices, biases, strict=True)]

    def _forward(
        self, query: Array, key: Array, value: Array, ends: Any, train: bool
    ) -> tuple[Array, Array, Any, tuple[Any, ...]]:
        linears = self._weights(train)
        (batch, time), steps = self._swap(query).shape[:2], self._swap(key).shape[1]
        same = key is value
        query, key, value = map(checks.in_order, (query, key, value))
        if train:  # the gradients of W_k and W_v are sums over the padding, too
            key = self._without_padding(key, ends)
            value = key if same else self._without_padding(value, ends)
        inputs = (query, key, value)
        projected = [_core.linear_forward(w, x) for w, x in zip(linears, inputs, strict=True)]
        kept = weights = None
        if train:
            weights = _core.empty((batch, self.num_heads, time, steps), self.dtype)
            if self._dropout_rng is not None:
                kept = dropout_scale(self._dropout_rng, weights.shape, self.dropout, self.dtype)
        scale = (self.embed_dim // self.num_heads) ** -0.5
        given = (*projected, ends, kept, scale, self.num_heads, self.batch_first, self.causal)
        shown = _core.empty((batch, time, steps), self.dtype)
        joined = _core.attention(weights, shown, *given)
        out: Any = self._children["out_proj"]
        if not train:
            return out(joined), shown, None, ()
        y, tape = out.forward(joined)
        return y, shown, weights, (linears, inputs, given, tape)

    def _backward(
        self,
        dy: Array,
        weights: Array,
        linears: list[_core.Linear],
        inputs: tuple[Array, ...],
        given: tuple[Any, ...],
        tape: ModuleTape,
    ) -> tuple[Array, ...]:
        out: Any = self._children["out_proj"]
        djoined = out.backward(tape, dy)
        dprojected = _core.attention_backward(djoined, weights, *given)
        own = self._own_gradients()
        grads = _of_each(own[: len(own) - self.bias])
        biases = np.split(own[-1], 3) if self.bias else [None] * 3
        return tuple(map(_core.linear_backward, linears, inputs, dprojected, grads, biases))


def _of_each(matrices: list[Any]) -> list[Any]:
    """Return what W_q, W_k and W_v have of one matrix, or of three."""
    return np.split(matrices[0], 3) if len(matrices) == 1 else matrices


def _size(saved: Any, shared: tuple[Array, ...]) -> int:
    """Return how many bytes arrays and tapes hold, without memory that is shared."""
    if isinstance(saved, ModuleTape):
        saved = saved.saved
    if isinstance(saved, (tuple, list)):
        return sum(_size(part, shared) for part in saved)
    if not isinstance(saved, np.ndarray) or any(np.may_share_memory(saved, a) for a in shared):
        return 0
    return saved.nbytes


publish(globals())
