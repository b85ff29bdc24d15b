"""Pools of networks of any shape: streams that come and go, any of which take a step together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .._base import checks
from .._base.tree import leaves, matched
from .._nn.streams.frozen import check_room, counted, too_large
from .._nn.streams.pool import Ids, InPython, stream_ids
from .stream import ModelStream, calls_with_states, check_streamable, frozen, restored

if TYPE_CHECKING:
    from .model import Model

__all__ = ["ModelStreamPool"]


class ModelStreamPool(InPython):
    """Streams of a network of any shape that come and go, any of which take a step together.

    Made by ``model.stream_pool(capacity)``, where the model is no chain. Each stream has the bits
    of a lone one, ``model.stream()``, whatever others step with it. What is said of `StreamPool`
    about weights and threads holds here, too; but the network goes from module to module in Python,
    and arrays are allocated.

    Parameters
    ----------
    model : Model
        Of which there can be a stream.
    capacity : int
        How many streams may be open at once.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> x = lc.Input(3)
    >>> y, h = lc.GRU(3, 3, seed=0)(x)
    >>> pool = lc.Model(x, {"next": x + y, "state": h[-1]}).stream_pool(capacity=100)
    >>> ids = [pool.open() for _ in range(4)]
    >>> y = pool.step(ids[1:], np.ones((3, 3), "float32"))
    >>> y["next"].shape, y["state"].shape, len(pool)
    ((3, 3), (3, 3), 4)
    """

    def __init__(self, model: Model, capacity: int) -> None:
        capacity = counted(capacity, "capacity")
        check_streamable(model, model._plan.steps)
        self._model = frozen(model)
        calls = calls_with_states(self._model._plan.steps)
        row = sum(part.nbytes for call in calls for part in call.zeros(1))
        check_room(capacity, row, "capacity")
        try:
            self._states = [call.zeros(capacity) for call in calls]
            self._begun = [np.zeros(capacity, np.bool_) if s.wired else None for s, _ in calls]
            self._begin(capacity)
        except MemoryError:
            raise too_large(capacity, "capacity") from None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """Of the parameters; None if there are none."""
        return self._model.dtype

    def step(self, ids: Any, *x: Any, out: Any = None) -> Any:
        """Take one step of n streams.

        Parameters
        ----------
        ids : array_like of int, (n,)
            From `open`, each once, in any order.
        *x : array_like, or tuple or dict of them
            In the structure of the model's inputs; if that is a list, they may be given one by one.
            Each is (n, F), or (n,) of ids.
        out : ndarray, or tuple or dict of them, optional
            In the structure of the model's outputs: is written to and returned.

        Returns
        -------
        y : ndarray, or tuple or dict of them
            In the structure of the model's outputs, each (n, F).

        Raises
        ------
        ValueError, TypeError
            If an id is of no open stream, or comes twice, or x or out does not fit; nothing has
            changed then.
        RuntimeError
            If another thread takes a step, or works with one of these streams.
        """
        with self._step(stream_ids(checks.integers(ids, "ids"))) as places:
            stream = self._stream_of(places)
            stream._may_lack_batch = False
            y = stream.step(*x)
            pairs = []
            if out is not None:
                given = matched(self._model._plan.outputs, out, "out")
                for (_, to), made in zip(given, leaves(y), strict=True):
                    checks.out(made, to, made.shape, made.dtype)
                    pairs.append((to, made))
            self._put(places, stream)
        for to, made in pairs:
            to[...] = made
        return y if out is None else out

    def _stream_of(self, places: Ids) -> ModelStream:
        """Return a stream with the states of these streams."""
        states = [tuple(part[:, places] for part in parts) for parts in self._states]
        begun = [None if one is None else one[places] for one in self._begun]
        return restored(ModelStream, self._model, len(places), states, begun)

    def _put(self, places: Ids, stream: ModelStream) -> None:
        """Take the states of a stream."""
        for parts, new in zip(self._states, stream._states, strict=True):
            for part, one in zip(parts, new, strict=True):
                part[:, places] = one
        for begun, new_begun in zip(self._begun, stream._begun, strict=True):
            if begun is not None:
                begun[places] = new_begun

    def _clear(self, places: Ids) -> None:
        self._put(places, restored(ModelStream, self._model, len(places)))

    def _states_at(self, place: int) -> list[Any]:
        return [self._stream_of(np.array([place]))]

    def _put_states_at(self, place: int, states: Sequence[Any]) -> None:
        self._put(np.array([place]), states[0])

    def _split(self, state: Any) -> list[Any]:
        stream = restored(ModelStream, self._model, 1)
        stream.state = state
        return [stream]

    def _joined(self, states: list[Any]) -> Any:
        return states[0].state

    def __repr__(self) -> str:
        return f"<ModelStreamPool of {self._model!r}, {len(self)} of {self.capacity} streams open>"
