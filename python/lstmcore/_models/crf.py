"""A linear-chain conditional random field: scores of labels that depend on the label before."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.module import storable
from .._base.parameter import Parameter
from .._base.scoring import Mean, says
from .._base.targets import scored_steps
from .._nn.config import Option
from .._nn.feed_forward import FeedForward

__all__ = ["CRF"]


@storable
class CRF(FeedForward):
    """A linear-chain conditional random field, for labels of every step that hang together.

    The score of a sequence of labels is that of each label at its step, as a network gives them,
    and ``transitions[i, j]`` for every j that follows i, ``start`` of the first and ``end`` of the
    last label. Its probability is the softmax over all sequences of labels (J. Lafferty, A.
    McCallum, F. Pereira, "Conditional random fields", ICML 2001). `loss` trains the network and
    these parameters together, `decode` finds the likeliest sequence.

    At the end of a network it passes the scores through as they are. Its parameters are the
    network's then, for optimizers, `state_dict` and `save`, and `fit` takes ``model[-1].loss``.

    Parameters
    ----------
    classes : int
        How many labels there are, C.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters and the scores.
    seed : int, optional
        Of the first parameters, as in `reset_parameters`.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    The parameters are ``transitions`` (C, C), from row to column, ``start`` (C,) and ``end`` (C,).
    What cannot follow has a large negative one, -1e4 say, or -inf where no `fit` looks at it:
    such a parameter gets no gradient.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.LSTM(3, 8, seed=0), lc.Linear(8, 4, seed=1), lc.CRF(4, seed=2))
    >>> x = np.stack([np.zeros((6, 3)), np.ones((6, 3))], axis=1).astype("float32")
    >>> labels = np.array([[0, 1], [1, 1]] * 3)
    >>> history = lc.fit(model, (x, labels), loss=model[-1].loss, epochs=60, progress=False,
    ...                  optimizer=lc.optim.Adam(model.parameters(), lr=0.1))
    >>> history.losses[-1] < 0.1 * history.losses[0]
    True
    >>> model[-1].decode(model(x))
    [array([0, 1, 0, 1, 0, 1]), array([1, 1, 1, 1, 1, 1])]
    """

    classes = Option[int]()
    dtype = Option[np.dtype[Any]]()

    _instead = "export the network without it, as model[:-1], which gives the same scores"

    def __init__(
        self, classes: int, *, dtype: npt.DTypeLike = "float32", seed: int | None = None
    ) -> None:
        classes = checks.integer(classes, "classes", 1)
        self._config = SimpleNamespace(classes=classes, dtype=checks.dtype(dtype))
        shapes = {"transitions": (classes, classes), "start": (classes,), "end": (classes,)}
        self._make_parameters(list(shapes.items()), self.dtype)
        self.reset_parameters(seed)

    @property
    def transitions(self) -> Parameter:
        """(C, C): of each label, the row, followed by each other, the column."""
        return self._parameters["transitions"]

    @property
    def start(self) -> Parameter:
        """(C,): of each label at the first step."""
        return self._parameters["start"]

    @property
    def end(self) -> Parameter:
        """(C,): of each label at the last step."""
        return self._parameters["end"]

    @property
    def _input_size(self) -> int:
        return self.classes

    def _output_size(self, size: int | None) -> int | None:
        return size

    def _stream_stage(self, name: str) -> Any:
        return None

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw all parameters from U(-0.1, 0.1).

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        rng = np.random.default_rng(checks.seed(seed))
        for p in self._parameters.values():
            p._draw(lambda size: rng.uniform(-0.1, 0.1, size))

    def _input(self, x: npt.ArrayLike) -> Array:
        return self._scores(x, "x")

    def _scores(self, scores: npt.ArrayLike, name: str) -> Array:
        array = checks.real(scores, self.dtype, name)
        if array.ndim == 0 or array.shape[-1] != self.classes:
            raise ValueError(f"{name} has shape {array.shape}, expected (..., {self.classes})")
        return array

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        return x, ()

    def _backward(self, dy: Array, *saved: Any) -> Array:
        return dy

    @says(mode="min", takes_scores=True, apart="_loss_apart")
    def loss(
        self,
        scores: npt.ArrayLike,
        target: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        ignore_index: int | None = -100,
        batch_first: bool = False,
    ) -> tuple[Mean, Array]:
        """Return -log of the probability of the labels, and add the gradients of the parameters.

        Parameters
        ----------
        scores : array (T, B, C), or (T, C) without a batch
            Of every label at every step.
        target : integer array (T, B), or (T,)
            The labels, 0 to C - 1.
        lengths : integer array (B,), optional
            Valid steps of each row.
        mask : bool array (T, B), or (T,), optional
            Which steps there are. Others are as if they were left out: the label behind such a step
            follows the one before it.
        ignore_index : int or None, default -100
            Steps with a target of this value are left out as well; None for no such value.
        batch_first : bool, default False
            `scores` are (B, T, C), `target` and `mask` (B, T).

        Returns
        -------
        loss : float
            The mean over the rows of what each takes for all of its steps, in nats. A row without
            steps has 0; one whose labels cannot be, because a score of theirs is -inf, inf.
        dscores : ndarray, shape and dtype of `scores`
            Gradient of the loss; 0 where there is no step, and in rows whose loss is infinite.

        Raises
        ------
        ValueError
            If the shapes do not fit, or a valid target is no label.
        TypeError
            If an argument is of the wrong type or dtype.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> crf = lc.CRF(3, dtype="float64", seed=0)
        >>> for p in crf.parameters():
        ...     p.data = np.zeros(p.shape)
        >>> loss, dscores = crf.loss(np.zeros((4, 1, 3)), [[0], [1], [2], [0]])
        >>> bool(np.isclose(loss, 4 * np.log(3))), crf.start.grad.round(3)
        (True, array([-0.667,  0.333,  0.333]))
        """
        loss, dscores, gradients = self._loss_apart(
            scores,
            target,
            lengths,
            mask=mask,
            ignore_index=ignore_index,
            batch_first=batch_first,
        )
        for own, (_, gradient) in zip(self._own_gradients(), gradients, strict=True):
            own += gradient
        return loss, dscores

    def _loss_apart(
        self,
        scores: npt.ArrayLike,
        target: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        ignore_index: int | None = -100,
        batch_first: bool = False,
    ) -> tuple[Mean, Array, list[tuple[Parameter, Array]]]:
        """Return the loss, the gradient of the scores, and those of the parameters, not added."""
        x, ends, steps, batch_first, _ = self._sequences(scores, lengths, mask, batch_first)
        given = checks.integers(target, "target")
        shape = np.shape(scores)[:-1]
        if given.shape != shape:
            raise ValueError(f"target has shape {given.shape}, expected {shape}, that of scores")
        given = given.reshape(x.shape[:2])
        if ignore_index is not None:
            there = given != checks.integer(ignore_index, "ignore_index", -(2**63))
            steps = there if steps is None else steps & there
        if steps is not None:
            steps = checks.in_order(steps)
        if given.size and not (given.min() >= 0 and given.max() < self.classes):
            wrong = given[self._valid(given.shape, ends, steps, batch_first)]
            wrong = wrong[(wrong < 0) | (wrong >= self.classes)]
            if wrong.size:
                raise ValueError(f"target has label {wrong[0]}, expected 0 to {self.classes - 1}")
        labels: Any = checks.in_order(given.astype(np.int64, copy=False))
        rows = x.shape[0 if batch_first else 1]
        factor = np.full(rows, 1 / max(rows, 1))
        dscores = _core.empty(x.shape, x.dtype)
        parameters = list(self._parameters.values())
        gradients = [np.zeros(p.shape, p.dtype) for p in parameters]
        arrays: list[Array] = [p._storage for p in parameters]
        losses = _core.crf(x, arrays, labels, ends, steps, batch_first, factor, dscores, gradients)
        loss = Mean(float(losses.sum() * (1 / max(rows, 1))), rows)
        return (
            loss,
            dscores.reshape(np.shape(scores)),
            list(zip(parameters, gradients, strict=True)),
        )

    def decode(
        self,
        scores: npt.ArrayLike,
        lengths: npt.ArrayLike | None = None,
        *,
        mask: npt.ArrayLike | None = None,
        batch_first: bool = False,
    ) -> Any:
        """Find the likeliest labels of all steps of a row together, by Viterbi's algorithm.

        Parameters
        ----------
        scores : array (T, B, C), or (T, C) without a batch
        lengths : integer array (B,), optional
            Valid steps of each row.
        mask : bool array (T, B), or (T,), optional
            Which steps there are, as of `loss`.
        batch_first : bool, default False
            `scores` are (B, T, C), `mask` (B, T).

        Returns
        -------
        list of B ndarrays, int64; without a batch one ndarray
            A label for every step of the row that there is. Of sequences that are equally likely,
            the one with the lower labels, from the end.

        Raises
        ------
        ValueError, TypeError
            As of `loss`, and if a valid step has a NaN.

        Notes
        -----
        A. J. Viterbi, "Error bounds for convolutional codes and an asymptotically optimum decoding
        algorithm", 1967.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> crf = lc.CRF(2, dtype="float64", seed=0)
        >>> crf.transitions.data = [[0.0, 0.0], [-100.0, 0.0]]  # 1 stays 1
        >>> crf.decode(np.array([[0.0, 2.0], [3.0, 0.0], [0.0, 2.0]]))
        array([0, 0, 1])
        """
        x, ends, steps, batch_first, batched = self._sequences(scores, lengths, mask, batch_first)
        valid = self._valid(x.shape[:2], ends, steps, batch_first)
        if np.isnan(x).any() and np.isnan(x[valid]).any():
            raise ValueError("scores has a NaN in a valid step, expected numbers")
        arrays: list[Array] = [p._storage for p in self._parameters.values()]
        paths = _core.crf_decode(x, arrays, None, valid, batch_first)
        counts = valid.sum(axis=1 if batch_first else 0)
        bounds = [0, *np.cumsum(counts).tolist()]
        found = [paths[first:end] for first, end in itertools.pairwise(bounds)]
        return found if batched else found[0]

    def _sequences(
        self, scores: npt.ArrayLike, lengths: Any, mask: Any, batch_first: bool
    ) -> tuple[Array, Any, Any, bool, bool]:
        """Return scores with a batch, lengths, mask, `batch_first`, and if a batch was given."""
        array = self._scores(scores, "scores")
        x, ends, batch_first, batched = scored_steps(array, lengths, batch_first, "scores")
        steps = None
        if mask is not None:
            steps = checks._asarray(mask, "mask")
            if steps.dtype != np.bool_ or steps.shape != array.shape[:-1]:
                raise ValueError(
                    f"mask has shape {steps.shape} and dtype {steps.dtype}, expected "
                    f"{array.shape[:-1]}, that of the steps of scores, and bool"
                )
            steps = steps.reshape(x.shape[:2])
        return x, ends, steps, batch_first, batched

    @staticmethod
    def _valid(
        shape: tuple[int, ...], ends: Any, steps: Any, batch_first: bool
    ) -> npt.NDArray[np.bool_]:
        """Say which steps there are."""
        valid = np.ones(shape, bool) if steps is None else steps.copy(order="C")
        if ends is not None:
            numbers = np.arange(shape[1 if batch_first else 0])
            before = numbers < ends[:, None]
            valid &= before if batch_first else before.T
        return valid
