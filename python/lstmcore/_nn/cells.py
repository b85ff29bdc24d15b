"""The cells: one step of an RNN, LSTM or GRU, for loops of your own.

They are single layers over one step. A layer called on a whole sequence is faster.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from .._base.checks import Activation, Array
from .._base.module import storable
from .._base.symbolic import Axes, Symbolic
from .config import Option, Zoneout
from .recurrent import Pair, PairLike, Recurrent, State
from .tape import CallShapes, Tape

__all__ = ["Cell", "GRUCell", "LSTMCell", "RNNCell"]


class Cell(Recurrent[State]):
    """What RNNCell, LSTMCell and GRUCell share: one step in, one step out."""

    _is_cell = True
    _state_names = ("hx", "hx", "c")
    _takes_one_x = False
    _instead = "export the layer of the same parameters, with _l0 at the end of their names"

    def _parameter_shapes(self) -> list[tuple[str, tuple[int, ...]]]:
        return [(name.removesuffix("_l0"), shape) for name, shape in self._config.shapes()]

    def _shapes_of_call(self, x: tuple[int, ...]) -> CallShapes:
        inputs = self._inputs
        if len(x) not in (1, 2) or x[-1] != inputs:
            raise ValueError(f"x has shape {x}, expected (B, {inputs}) or ({inputs},)")
        rows: tuple[int, ...] = x[:-1]  # (B,) or ()
        batch = rows[0] if rows else 1
        h, c = (*rows, self._outputs), (*rows, self._hidden)
        text = "(B, {})" if rows else "({},)"
        removed = (0, 0) if rows else (0, 0, 0)
        return CallShapes(x, h, h, c, text, (1, batch), False, 1, batch, removed)

    def forward(self, x: npt.ArrayLike, hx: Any = None) -> tuple[State, Tape]:
        """Take a step, and remember what `backward` needs.

        Parameters
        ----------
        x, hx
            As when the cell is called.

        Returns
        -------
        state
            As when the cell is called.
        tape : Tape
            For `backward`. It keeps x, as a copy unless that is read-only.

        Raises
        ------
        ValueError, TypeError
            If an argument has another shape, dtype or range than it should; it is named.
        """
        _, final, tape = self._forward(x, hx, True)
        return final, cast(Tape, tape)

    def backward(self, tape: Tape, dstate: Any) -> tuple[Array, State]:
        """Backpropagate through the step: add to every parameter's gradient.

        Parameters
        ----------
        tape : Tape
            From `forward` of this very cell.
        dstate : like the state, or None
            Gradient with respect to the new state; None, also inside a pair, for zeros.

        Returns
        -------
        dx : ndarray, shaped like x
            Gradient with respect to x.
        dstate : like the state
            Gradient with respect to the old state.

        Raises
        ------
        ValueError, TypeError
            If the tape is of another cell, or the gradient has another shape or dtype.
        """
        return self._backward(tape, None, dstate)

    def _note_inputs(
        self, note: Callable[[str, Array], None], x: Any, state: Any, lengths: Any, resets: Any
    ) -> None:
        note("weight_ih", np.reshape(x, (-1, self._inputs)))
        h = state[0] if isinstance(state, (tuple, list)) else state
        if h is not None:
            note("weight_hh", np.reshape(h, (-1, self._outputs)))

    _apply_all = Recurrent._apply_all_own
    _apply_all_backward = Recurrent._apply_all_backward_own

    def _axes(self, x: Axes, state: Any = None) -> tuple[Any, ...]:
        if x != (expected := Axes(self._inputs)):
            raise ValueError(f"x is {x}, expected {expected}")
        given = state if isinstance(state, (tuple, list)) else [state]
        sizes = [self._outputs, self._hidden][: len(self._state_parts)]
        parts = tuple(Axes(size) for size in sizes)
        if state is not None and len(given) != len(parts):
            raise ValueError(f"hx has {len(given)} parts, expected {len(parts)}")
        for part, name, want in zip(given, ("h", "c"), parts, strict=False):
            if part not in (None, want):
                raise ValueError(f"{name} is {part}, expected {want}")
        return (parts if len(parts) > 1 else parts[0],)

    def _step(self, x: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Take one step as a layer does: the state has an axis of its layers in front, here 1."""
        h, *c = (part[0] for part in state)
        new = self(x, (h, *c) if c else h)
        parts = new if isinstance(new, tuple) else (new,)
        return parts[0], tuple(part[None] for part in parts)


@storable
class RNNCell(Cell[Array]):
    """One step of an `RNN`.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and h.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    nonlinearity : str or (str, float, ...), default "tanh"
        As of `RNN`.
    gate_clip, zoneout, layer_norm, dtype, precision, seed
        As of `RNN`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the layer does.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> cell = lc.RNNCell(3, 5, seed=0)
    >>> h = None
    >>> for x in np.zeros((7, 2, 3), dtype="float32"):
    ...     h = cell(x, h)
    >>> h.shape
    (2, 5)
    """

    _kind = "rnn"
    nonlinearity = Option[Activation]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: Activation = "tanh",
        *,
        gate_clip: float | None = None,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())

    def __call__(self, x: npt.ArrayLike, hx: npt.ArrayLike | None = None) -> Array:
        """Return the new h, (B, H) or (H,), from x, (B, I) or (I,), and the old one or zeros."""
        if isinstance(x, Symbolic):
            made: Array = x._enter(self, (x, hx))
            return made
        return self._forward(x, hx, False)[1]


@storable
class GRUCell(Cell[Array]):
    """One step of a `GRU`.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and h.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    reset_after, gate_clip, zoneout, layer_norm, activations, dtype, precision, seed
        As of `GRU`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the layer does.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> cell = lc.GRUCell(3, 5, seed=0)
    >>> cell(np.zeros(3, dtype="float32")).shape
    (5,)
    """

    _kind = "gru"
    reset_after = Option[bool]()
    activations = Option[tuple[Activation, Activation]]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        reset_after: bool = True,
        gate_clip: float | None = None,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())

    def __call__(self, x: npt.ArrayLike, hx: npt.ArrayLike | None = None) -> Array:
        """Return the new h, (B, H) or (H,), from x, (B, I) or (I,), and the old one or zeros."""
        if isinstance(x, Symbolic):
            made: Array = x._enter(self, (x, hx))
            return made
        return self._forward(x, hx, False)[1]


@storable
class LSTMCell(Cell[Pair]):
    """One step of an `LSTM`.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and c.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    proj_size, forget_gate, coupled, peephole, cell_clip, gate_clip, zoneout, layer_norm
        As of `LSTM`.
    activations, forget_bias, dtype, precision, seed
        As of `LSTM`.

    Raises
    ------
    TypeError, ValueError, MemoryError
        As the layer does.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> cell = lc.LSTMCell(3, 5, seed=0)
    >>> x = np.zeros((2, 3), dtype="float32")
    >>> h, c = cell(x)
    >>> h, c = cell(x, (h, c))
    >>> h.shape, c.shape
    ((2, 5), (2, 5))
    """

    _kind = "lstm"
    _state_parts = ("h", "c")
    _state_names = ("hx", "hx[0]", "hx[1]")
    proj_size = Option[int]()
    forget_gate = Option[bool]()
    coupled = Option[bool]()
    peephole = Option[bool]()
    cell_clip = Option["float | None"]()
    activations = Option[tuple[Activation, Activation, Activation]]()
    forget_bias = Option["float | None"]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        *,
        proj_size: int = 0,
        forget_gate: bool = True,
        coupled: bool = False,
        peephole: bool = False,
        cell_clip: float | None = None,
        gate_clip: float | None = None,
        zoneout: Zoneout = 0.0,
        layer_norm: bool = False,
        activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh"),
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())

    def __call__(self, x: npt.ArrayLike, hx: PairLike | None = None) -> Pair:
        """Return the new (h, c), (B, P) and (B, H), from x, (B, I), and the old ones or zeros.

        Unbatched, they are (P,), (H,) and (I,).
        """
        if isinstance(x, Symbolic):
            made: Pair = x._enter(self, (x, hx))
            return made
        return self._forward(x, hx, False)[1]
