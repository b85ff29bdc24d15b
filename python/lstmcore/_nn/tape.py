"""The tape: what the backward pass needs to remember of a forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array

if TYPE_CHECKING:
    from .._base.module import Module
    from .recompute import Segments
    from .recurrent import Recurrent

__all__ = ["ModuleTape", "Tape"]


def check_owner(tape: object, kind: type, owner: Module) -> None:
    """Refuse what is not the tape of that kind that `owner` made."""
    if not isinstance(tape, kind):
        what = checks.describe(tape)
        raise TypeError(f"tape is {what}, expected a {kind.__name__} from forward")
    if tape._owner is not owner:  # type: ignore[attr-defined]
        raise ValueError(
            f"tape was made by another layer, {tape._owner!r}, "  # type: ignore[attr-defined]
            "expected one made by this one"
        )


class ModuleTape:
    """What ``forward`` of a module without a state remembers for ``backward``.

    It may keep the output itself, which is read-only then, and the input, of which it takes a copy
    unless that is read-only. Weights it keeps are copies. So gradients are right even if x or the
    parameters have changed since.
    """

    __slots__ = ("__weakref__", "_dtype", "_owner", "_y", "nbytes", "saved", "x_shape")

    saved: tuple[Any, ...]  # what the backward of its module takes after dy
    x_shape: tuple[int, ...]
    nbytes: int
    """The memory it holds, in bytes, a copy of x included, without what it shares with others: x
    itself, y, and packed weights."""

    def __init__(
        self, owner: Module, x: npt.NDArray[Any], y: npt.NDArray[Any], saved: tuple[Any, ...]
    ) -> None:
        self._owner = owner
        self.x_shape, self._y, self._dtype = x.shape, y.shape, y.dtype
        self.saved = saved
        self.nbytes = 0
        for array in saved:
            if array is y:
                y.flags.writeable = False  # the tape needs it as it is
            elif isinstance(array, np.ndarray) and array is not x:
                self.nbytes += array.nbytes

    def gradient(self, owner: Module, dy: Any) -> Array:
        """Return dy, if this is a tape of `owner` and dy is like its y."""
        check_owner(self, ModuleTape, owner)
        array = checks.real(dy, self._dtype, "dy")
        if array.shape != self._y:
            raise ValueError(f"dy has shape {array.shape}, expected {self._y}, that of y")
        return array

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self._owner!r}, x {self.x_shape}, {self.nbytes} bytes>"


class CallShapes(NamedTuple):
    """The shapes of one call: of the user's arrays, and what turns them into those of the core."""

    x: tuple[int, ...]
    y: tuple[int, ...]
    h: tuple[int, ...]
    c: tuple[int, ...]
    state_text: str  # what messages call the axes of h and c, the last being {}
    axes: tuple[int, int]  # of the core's x but for its last: (T, B) or (B, T)
    batch_first: bool
    time: int  # T
    batch: int  # B
    # Index into (L*D, T, B, H) arrays of the core that removes the axes which the user's lack: ()
    # where they have all.
    removed_axes: tuple[int | slice, ...]


class Tape:
    """What ``forward`` remembers for ``backward``, made by the former.

    It keeps the output ``y``, which is read-only, and the input ``x``, of which it takes a copy
    unless that is read-only, as the y of another layer is. It also keeps the weights it was made
    with. So gradients are right even if x or the parameters have changed since. Use it as often as
    you like, with the layer that made it.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(2, 3, seed=0)
    >>> y, state, tape = lstm.forward(np.ones((5, 1, 2), dtype="float32"))
    >>> sorted(tape.gates()), tape.gates()["f"].shape, tape.cells().shape
    (['f', 'g', 'i', 'o'], (1, 5, 1, 3), (1, 5, 1, 3))
    """

    __slots__ = ("__weakref__", "_call_shapes", "_core", "_masks", "_owner")

    def __init__(
        self,
        core: _core.Tape | Segments,
        owner: Recurrent[Any],
        shapes: CallShapes,
        masks: Mapping[str, Array],  # of weight dropout, by the name of the matrix
    ) -> None:
        self._masks = masks
        self._core = core
        self._owner = owner
        self._call_shapes = shapes

    @property
    def nbytes(self) -> int:
        """The memory it holds, in bytes, without x or its copy, and y."""
        return self._core.nbytes + sum(mask.nbytes for mask in self._masks.values())

    def gates(self) -> dict[str, Array]:
        """Return copies of the activations of every gate, by their names.

        Those are i, f, g, o (LSTM; f only if it is learned) or r, z, n (GRU; an RNN has none), and
        0 past the end of a row. Each is (num_layers*D, T, B, H), or (num_layers*D, B, T, H) if
        batch_first; without B if x was unbatched; (B, H) or (H,) for cells.
        """
        index = self._call_shapes.removed_axes
        return {name: gate[index] for name, gate in self._core.gates().items()}

    def cells(self) -> Array:
        """Return a copy of the cell state c after every step, shaped like a gate; LSTM only."""
        if "c" not in self._owner._state_parts:
            kind = type(self._owner).__name__
            raise TypeError(f"this is the tape of a {kind}, expected an LSTM's: only that has c")
        return self._core.cells()[self._call_shapes.removed_axes]

    def __repr__(self) -> str:
        return f"<Tape of {self._owner!r}, x {self._call_shapes.x}, {self.nbytes} bytes>"
