"""Recurrent: the base of recurrent layers and cells, which calls the core.

A call goes through `_forward`: arguments are checked, the core computes, the results get the user's
shapes. `_backward` is its counterpart.

Sizes: T steps, B rows, I inputs, H hidden units; L = num_layers, D = 2 if bidirectional else 1,
P = proj_size or H.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Generic, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.loads import whole
from .._base.packed_weights import PacksWeights
from .config import Config, Option, Zoneout, options_of
from .dropout import dropout_scale
from .recompute import Segments, forward_segments
from .tape import CallShapes, Tape, check_owner

__all__ = ["GRADIENT", "Pair", "PairLike", "Recurrent", "State"]

Pair: TypeAlias = tuple[Array, Array]
PairLike: TypeAlias = tuple[npt.ArrayLike | None, npt.ArrayLike | None]
State = TypeVar("State", Array, Pair)

_NOTHING = (0.0, 0.0, 0.0)  # is dropped
_NO_MASKS: Mapping[str, Array] = MappingProxyType({})

GRADIENT = ("dstate", "dh", "dc")  # what messages call the gradient of a state, of its h and c


class Recurrent(PacksWeights, Generic[State]):
    """What layers and cells share: options, parameters, states, the calls of the core."""

    _MATRICES = ("weight_ih", "weight_hh", "weight_hr")
    _has_precision = True
    _watches_inputs = True
    _kind: ClassVar[str]
    _is_cell: ClassVar[bool] = False
    _state_parts: tuple[str, ...] = ("h",)
    _state_names: ClassVar[tuple[str, str, str]] = ("state", "h0", "c0")
    _config: Config
    _dropout_rng: np.random.Generator | None = None

    input_size = Option[int]()
    hidden_size = Option[int]()
    bias = Option[bool]()
    gate_clip = Option["float | None"]()
    zoneout = Option[Zoneout]()
    layer_norm = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(self, given: Mapping[str, Any]) -> None:
        """Take the options out of the arguments of a constructor, which are given as `locals()`."""
        names = options_of(self._kind, self._is_cell)
        self._config = Config(self._kind, **{name: given[name] for name in names})
        self._make_parameters(self._parameter_shapes(), self._config.dtype)
        self._prepare()
        self.reset_parameters(given["seed"])
        if self._config.draws:
            # A stream of its own, so that what is drawn does not change the parameters.
            entropy = np.random.SeedSequence(given["seed"], spawn_key=(0,))
            self._dropout_rng = np.random.default_rng(entropy)

    def _parameter_shapes(self) -> Iterable[tuple[str, tuple[int, ...]]]:
        return self._config.shapes()

    def _prepare(self) -> None:
        """Make what is not pickled: the core's description, and what each call needs at hand."""
        config = self._config
        self._spec = config.spec()
        # Most calls have the shapes of the call before, so these are kept. No x has shape (-1,).
        self._call_shapes = CallShapes((-1,), (), (), (), "", (0, 0), False, 0, 0, ())
        self._dtype = np.dtype(config.dtype.type)  # the object that arrays have, not its equal
        self._inputs = config.input_size  # I
        self._outputs = config.output_size  # P
        self._hidden = config.hidden_size  # H
        self._features = config.features  # of y
        self._batch_first = config.batch_first
        self._states = config.num_layers * config.directions  # L*D

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw every parameter from U(-1/sqrt(H), 1/sqrt(H)), as PyTorch does.

        With `forget_bias`, the forget gate's part of every bias_ih becomes that, and of every
        bias_hh 0. With `layer_norm`, every weight_ln is 1 and bias_ln_c 0.

        Parameters
        ----------
        seed : int, optional
            For ``numpy.random.default_rng``. The same seed gives the same numbers in float32 and
            float64, but for the rounding.
        """
        self._refuse_in_int8("reset_parameters")
        rng = np.random.default_rng(checks.seed(seed))
        hidden = self._hidden
        bound = hidden**-0.5
        forget_bias = self._config.forget_bias
        for name, p in self._parameters.items():
            if "_ln_" in name:
                p._storage[...] = name.startswith("weight")
                continue
            p._draw(lambda size: rng.uniform(-bound, bound, size))
            if forget_bias is not None and name.startswith("bias_"):
                p._storage[hidden : 2 * hidden] = 0 if name.startswith("bias_hh") else forget_bias
        self._watch.token = object()

    def _pack(self, parameters: list[Array], train: bool) -> _core.Weights:
        return _core.pack(self._spec, parameters, train, self._config.precision)

    def _pack_quantized(self, parameters: list[Any]) -> _core.Weights:
        return _core.pack_quantized(self._spec, parameters)

    def _shapes_of_call(self, x: tuple[int, ...]) -> CallShapes:
        """Return the shapes of calls with an x of this shape, or say what is wrong with it."""
        raise NotImplementedError

    def _check_state(
        self, state: Any, shapes: CallShapes, names: tuple[str, str, str], copy: bool = False
    ) -> tuple[Array | None, Array | None]:
        """Return h and c of a state, or of the gradient of one, as the core wants them."""
        if len(self._state_parts) == 1:
            if checks.returned(state):
                raise TypeError(
                    f"{names[1]} is a tuple of {len(state)}, expected one array: of (y, state), "
                    "which a recurrent layer returns, take [1]"
                )
            return self._check_part(state, shapes.h, shapes, names[1], copy), None
        whole, *parts = names
        if not isinstance(state, (tuple, list)):
            what = checks.describe(state)
            raise TypeError(f"{whole} is {what}, expected a pair ({', '.join(parts)})")
        if len(state) != 2:
            raise ValueError(f"{whole} has {len(state)} entries, expected two: {', '.join(parts)}")
        h, c = state
        if isinstance(c, tuple) and checks.returned(state):
            raise TypeError(
                f"{whole} is (y, (h, c)), as a recurrent layer returns, expected a pair "
                f"({', '.join(parts)}): take its [1]"
            )
        return (
            h if h is None else self._check_part(h, shapes.h, shapes, names[1], copy),
            c if c is None else self._check_part(c, shapes.c, shapes, names[2], copy),
        )

    def _check_part(
        self, part: Any, shape: tuple[int, ...], shapes: CallShapes, name: str, copy: bool
    ) -> Array:
        if type(part) is np.ndarray and part.shape == shape and part.dtype == self._dtype:
            flags = part.flags
            if flags.c_contiguous and flags.aligned and not copy and not shapes.removed_axes:
                return part  # as the core takes it
        text = shapes.state_text.format("H" if shape[-1] == self._hidden else "P")
        array = checks.contiguous(part, shape, self._dtype, name, text, copy=copy)
        return array.reshape(self._states, shapes.batch, shape[-1])

    def _names_at(
        self, whole: str, place: int, parts: tuple[str, str, str]
    ) -> tuple[str, str, str]:
        """Return what messages call a state, its h and its c, of the layer at that place."""
        _, h, c = parts
        return f"{whole}[{place}]", f"{h} of {whole}[{place}]", f"{c} of {whole}[{place}]"

    def _forward(
        self,
        x: Any,
        state: Any,
        train: bool,
        lengths: Any = None,
        resets: Any = None,
        names: tuple[str, str, str] | None = None,
        recompute: bool = False,
        lookup: npt.NDArray[np.int64] | None = None,
        weights: _core.Weights | None = None,
    ) -> tuple[Array, State, Tape | None]:
        """Check everything, run the core, return what the user gets.

        `names` is what messages call the state and its parts. With `lookup` (T, B), x is a table
        (V, I) and each step reads a row of it. `weights` are those of inference, if at hand.
        """
        if type(x) is not np.ndarray or x.dtype is not self._dtype:
            x = checks.real(x, self._dtype, "x")
        shapes = self._call_shapes
        shape: tuple[int, ...] = x.shape
        if lookup is not None:
            shape = lookup.shape + x.shape[1:]
        if shape != shapes.x:
            shapes = self._call_shapes = self._shapes_of_call(shape)
        flags = x.flags
        if not (flags.c_contiguous and flags.aligned):
            x = checks.walkable(x)
        if train and (x.flags.writeable or type(x.base) is np.ndarray):
            x = checks.kept(x)
        h = c = None
        if state is not None:
            # The tape keeps its own copy: a training loop may zero rows of its state in place.
            h, c = self._check_state(state, shapes, names or self._state_names, copy=train)
        if lengths is not None:
            batched = not shapes.removed_axes
            lengths = checks.lengths(lengths, shapes.batch, shapes.time, batched=batched)
        if resets is not None:
            text = "(T,)" if shapes.removed_axes else "(B, T)" if shapes.batch_first else "(T, B)"
            resets = checks.resets(resets, shapes.x[:-1], text).reshape(shapes.axes)
        draws = train and self._dropout_rng is not None
        dropouts, key = self._draw() if draws else (_NOTHING, 0)
        if lookup is not None:
            lookup = lookup.reshape(shapes.axes)
        elif shapes.removed_axes:
            x = x.reshape(*shapes.axes, self._inputs)
        tape: _core.Tape | Segments | None
        masks: Mapping[str, Array] = _NO_MASKS
        try:
            if draws and self._config.weight_dropout:
                weights, masks = self._drop_weights()
            weights = weights or self._weights(train)
            if recompute:
                y, h, c, tape = forward_segments(
                    weights, x, h, c, lengths, resets, shapes.batch_first, dropouts, key, draws
                )
            else:
                y, h, c, tape = _core.forward(
                    weights, x, h, c, lengths, resets, shapes.batch_first, train, dropouts, key,
                    lookup,
                )  # fmt: skip
        except MemoryError:
            raise MemoryError(f"x has shape {shape}, too large for the memory: {self!r}") from None
        if shapes.removed_axes:
            y = y.reshape(shapes.y)
            h = h.reshape(shapes.h)
            c = c if c is None else c.reshape(shapes.c)
        if train:
            y.flags.writeable = False  # the tape needs it as it is
        final: Any = h if c is None else (h, c)
        return y, final, None if tape is None else Tape(tape, self, shapes, masks)

    def _watch_inputs(self, note: Callable[[str, Array], None] | None) -> None:
        if note is None:
            for name in ("_forward", "_infer"):
                self.__dict__.pop(name, None)
            return
        forward = self._forward

        def noting(
            x: Any, state: Any, train: bool, lengths: Any = None, resets: Any = None,
            names: Any = None, **options: Any,
        ) -> tuple[Array, State, Tape | None]:  # fmt: skip
            lookup = options.get("lookup")
            self._note_inputs(note, x if lookup is None else x[lookup], state, lengths, resets)
            return forward(x, state, train, lengths, resets, names, **options)

        self.__dict__["_forward"] = noting
        # Else it may go straight to the core.
        self.__dict__["_infer"] = lambda x, state, lengths, resets: noting(
            x, state, False, lengths, resets
        )[:2]

    def _note_inputs(
        self, note: Callable[[str, Array], None], x: Any, state: Any, lengths: Any, resets: Any
    ) -> None:
        """Tell what a call multiplies with each W_ih and W_hh."""
        raise NotImplementedError

    def _draw(self) -> tuple[tuple[float, float, float], int]:
        """Return what is dropped, and a new key, from which the core makes the masks of a call."""
        assert self._dropout_rng is not None
        key = self._dropout_rng.integers(2**64, dtype=np.uint64)  # NumPy's generators have a lock
        return self._config.dropouts, int(key)

    def _drop_weights(self) -> tuple[_core.Weights, dict[str, Array]]:
        """Return the weights of one call in training, and the mask of each W_hh in them."""
        self._refuse_in_int8("training")
        rng, p = self._dropout_rng, self._config.weight_dropout
        assert rng is not None
        masks = {
            name: dropout_scale(rng, parameter.shape, p, self._dtype)
            for name, parameter in self._parameters.items()
            if name.startswith("weight_hh")
        }

        def pack() -> _core.Weights:
            arrays = [
                _masked(parameter._storage, masks[name]) if name in masks else parameter._storage
                for name, parameter in self._parameters.items()
            ]
            return self._pack(arrays, True)

        weights: _core.Weights = whole(self, pack)
        return weights, masks

    def _backward(
        self, tape: Tape, dy: Any, dstate: Any, needs_dx: bool = True
    ) -> tuple[Any, State]:
        """Do what `backward` does; without `needs_dx`, dx may be None."""
        check_owner(tape, Tape, self)
        shapes = tape._call_shapes
        if dy is not None:
            dy = checks.contiguous(dy, shapes.y, self._dtype, "dy", "the shape of y")
            if shapes.removed_axes:
                dy = dy.reshape(*shapes.axes, self._features)
        dh = dc = None
        if dstate is not None:
            dh, dc = self._check_state(dstate, shapes, GRADIENT)
        gradients = own = self._own_gradients()
        masks = tape._masks
        if masks:  # what is masked gets a gradient of its own first, to be masked too
            gradients = [
                np.zeros_like(gradient) if name in masks else gradient
                for name, gradient in zip(self._parameters, own, strict=True)
            ]
        if isinstance(tape._core, Segments):
            dx, dh, dc = tape._core.backward(dy, dh, dc, gradients)
        else:
            dx, dh, dc = _core.backward(tape._core, dy, dh, dc, gradients, needs_dx)
        if masks:
            for name, total, gradient in zip(self._parameters, own, gradients, strict=True):
                if name in masks:
                    total += _masked(gradient, masks[name])
        if shapes.removed_axes:
            dh = dh.reshape(shapes.h)
            dc = dc if dc is None else dc.reshape(shapes.c)
            if dx is not None and dx.ndim == 3:  # after a lookup it is that of the table, (V, I)
                dx = dx.reshape(shapes.x)
        initial: Any = dh if dc is None else (dh, dc)
        return dx, initial

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._config}{', in int8' * self._quantized})"

    def __getstate__(self) -> dict[str, Any]:
        return {
            k: v for k, v in super().__getstate__().items() if k not in ("_spec", "_call_shapes")
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._prepare()


def _masked(array: Array, mask: Array) -> Array:
    """Return an array times a mask; what is dropped is 0, whatever it was."""
    with np.errstate(all="ignore"):
        masked: Array = array * mask
    if not np.isfinite(masked).all():
        masked[mask == 0] = 0  # not infinity times 0
    return masked
