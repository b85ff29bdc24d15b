"""A convolution over time."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array, Lengths
from .._base.flow import BackwardFlow, Ends, Flow
from .._base.module import storable
from .._base.packed_weights import PacksWeights
from .config import Option
from .over_time import OverTime, time_major, valid_steps
from .streams.frozen import PythonStage
from .tape import ModuleTape

__all__ = ["Conv1D"]

_PADDINGS = ("valid", "same", "causal")


@storable
class Conv1D(PacksWeights, OverTime):
    """y[t] = b + sum over k of W[k] x[stride t + dilation k - left]: a convolution over time.

    Steps before the first and past the end of a row are zeros; `padding` says how many of them are
    looked at. With n = dilation (kernel_size - 1):

    ========== ======== ====================================== ===============================
    padding    left     steps of y for T of x                  y[t] is made of
    ========== ======== ====================================== ===============================
    "valid"    0        (T - n - 1) // stride + 1, at least 0  steps that are all there
    "same"     n // 2   T; stride must be 1                    steps before and after
    "causal"   n        (T - 1) // stride + 1                  this step and steps before it
    p          p        (T + 2 p - n - 1) // stride + 1        p zeros on either side
    ========== ======== ====================================== ===============================

    Parameters
    ----------
    in_channels, out_channels : int
        Features of x and of y, at least 1.
    kernel_size : int
        How many steps each y is made of, at least 1.
    stride : int, default 1
        How many steps of x there are for each of y.
    padding : {"valid", "same", "causal"} or int, default "valid"
    dilation : int, default 1
        Steps of x from one of those that y is made of to the next.
    groups : int, default 1
        In how many parts the features of x and of y are: each part of y is made of one of x. With
        in_channels, every feature is by itself.
    bias : bool, default True
        Whether there is a b; without, it is 0.
    batch_first : bool, optional
        Whether x is (B, T, in_channels). None, the default, is False, and in a `Sequential` or
        `Model` what its recurrent layers have.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameters, x and y.
    seed : int, optional
        Of the first parameters, as in `reset_parameters`.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.
    MemoryError
        If the parameters need more memory than this process may use.

    Notes
    -----
    The parameters are PyTorch's: ``weight`` (out_channels, in_channels / groups, kernel_size) and
    ``bias`` (out_channels,). As there, the kernel is not flipped. Unlike there, features are the
    last axis.

    Lengths of rows follow: the modules after it, the losses and the metrics of `fit` get those of
    y. A causal one of stride 1 can be streamed, and be given a sequence in chunks, to the same
    bits: a `Sequential` or `Model` carries the last dilation (kernel_size - 1) steps of its x as
    its state, (steps, B, in_channels), zeros at first. Windows do not stop at ``resets``, which it
    refuses.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> mean = lc.Conv1D(1, 1, 2, padding="causal", bias=False, dtype="float64")
    >>> mean.load_state_dict({"weight": [[[0.5, 0.5]]]})
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    >>> mean([[2.0], [4.0], [8.0]]).ravel()
    array([1., 3., 6.])
    >>> model = lc.Sequential(lc.Conv1D(3, 8, 5, stride=2), lc.GELU(), lc.LSTM(8, 16))
    >>> model(np.zeros((21, 4, 3), "float32"), lengths=[21, 9, 5, 4]).shape
    (9, 4, 16)
    """

    in_channels = Option[int]()
    out_channels = Option[int]()
    kernel_size = Option[int]()
    stride = Option[int]()
    padding = Option["str | int"]()
    dilation = Option[int]()
    groups = Option[int]()
    bias = Option[bool]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: str | int = "valid",
        dilation: int = 1,
        bias: bool = True,
        batch_first: bool | None = None,
        dtype: npt.DTypeLike = "float32",
        seed: int | None = None,
        groups: int = 1,
    ) -> None:
        super().__init__(batch_first)
        self._config = SimpleNamespace(
            in_channels=checks.integer(in_channels, "in_channels", 1),
            out_channels=checks.integer(out_channels, "out_channels", 1),
            kernel_size=checks.integer(kernel_size, "kernel_size", 1),
            stride=checks.integer(stride, "stride", 1),
            padding=_checked_padding(padding),
            dilation=checks.integer(dilation, "dilation", 1),
            groups=checks.integer(groups, "groups", 1),
            bias=checks.boolean(bias, "bias"),
            batch_first=self._config.batch_first,
            dtype=checks.dtype(dtype),
        )
        if self.padding == "same" and self.stride > 1:
            raise ValueError(
                f"padding is 'same' and stride {self.stride}, expected stride 1: where windows "
                "stand would depend on how long rows are"
            )
        for name in ("in_channels", "out_channels"):
            size = getattr(self, name)
            if size % self.groups:
                raise ValueError(f"groups is {groups}, expected a divisor of {name}, {size}")
        shapes: list[tuple[str, tuple[int, ...]]]
        inputs = self.in_channels // self.groups
        shapes = [("weight", (self.out_channels, inputs, self.kernel_size))]
        shapes += [("bias", (self.out_channels,))] if self.bias else []
        self._make_parameters(shapes, self.dtype)
        self._find_reach()
        self.reset_parameters(seed)

    def _find_reach(self) -> None:
        """Find from the options what every call asks for."""
        # How many steps there are from the first to the last that a y is made of.
        reach = self._reach = self.dilation * (self.kernel_size - 1)
        # How many zeros stand before and after x.
        if self.padding == "same":
            left, right = reach // 2, reach - reach // 2
        elif isinstance(self.padding, int):
            left = right = self.padding
        else:
            left, right = (reach if self.padding == "causal" else 0), 0
        self._pads = left, right
        self._changes_lengths = self.stride > 1 or left + right != reach
        self._needs_whole_sequence = self._changes_lengths or right > 0
        self._past_steps = 0 if self._needs_whole_sequence else reach

    def _options(self) -> dict[str, Any]:
        options = super()._options()
        if self.groups == 1:  # so that versions without the option read the file
            del options["groups"]
        return options

    @property
    def each_step(self) -> bool:  # type: ignore[override]
        """Whether every step of y comes of the same step of x alone: that of a kernel of 1."""
        return self._reach == 0 and not self._changes_lengths

    @property
    def _input_size(self) -> int:
        return self.in_channels

    def _output_size(self, size: int | None) -> int:
        return self.out_channels

    def reset_parameters(self, seed: int | None = None) -> None:
        """Draw all from U(-s, s), s = 1 / sqrt(in_channels / groups kernel_size), as PyTorch does.

        Parameters
        ----------
        seed : int, optional
            Of ``numpy.random.default_rng``.
        """
        rng = np.random.default_rng(checks.seed(seed))
        bound = (self.in_channels // self.groups * self.kernel_size) ** -0.5
        for p in self._parameters.values():
            p._draw(lambda size: rng.uniform(-bound, bound, size))

    def _pack(self, parameters: list[Array], train: bool) -> list[_core.Linear]:
        """Return the weights of each group."""
        weight, *bias = parameters
        rows = weight.transpose(0, 2, 1).reshape(self.out_channels, -1)  # as windows are
        parts = (self._parts(checks.in_order(a)) for a in (rows, *bias))
        return [_core.pack_linear(w, b[0] if b else None, train) for w, *b in zip(*parts)]

    def _parts(self, array: Array) -> list[Array]:
        """Return what each group has of an array whose first axis is y's features."""
        return np.split(array, self.groups)

    def _part(self, windows: Array, group: int) -> Array:
        """Return what a group meets of windows (..., kernel_size in_channels)."""
        if self.groups == 1:
            return windows
        lead = windows.shape[:-1]
        inputs = self.in_channels // self.groups
        apart = windows.reshape(*lead, self.kernel_size, self.groups, inputs)[..., group, :]
        return checks.in_order(apart.reshape(*lead, self.kernel_size * inputs))

    def _products(self, weights: list[_core.Linear], windows: Array) -> Array:
        """Return y, (steps, B, out_channels), of windows."""
        made = [_core.linear_forward(w, self._part(windows, g)) for g, w in enumerate(weights)]
        return made[0] if len(made) == 1 else np.concatenate(made, axis=-1)

    def _stream_stage(self, name: str) -> Any:
        return PythonStage(self._whole_windows, self._reach, self.in_channels)

    def _whole_windows(self, x: Array) -> Array:
        """Return y (T - reach, B, out_channels) for x (T, B, in_channels), without padding."""
        return self._products(self._weights(False), self._windows(x))

    def _ends(self, ends: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return how many steps of y there are for so many of x."""
        first = self._reach + 1 - sum(self._pads)  # how many steps of x the first y needs
        found: npt.NDArray[np.int64] = np.maximum(ends - first + self.stride, 0) // self.stride
        return found

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        if flow.resets is not None and (self._reach or self._changes_lengths):
            raise ValueError(
                f"resets cannot be given to a model with {self!r}, whose windows reach over them"
            )
        if self._past_steps:
            return self._apply_from_past(x, flow, train)
        y, tape = super()._apply(x, flow, train)
        if flow.lengths is not None and self._changes_lengths:
            found = self._ends(np.asarray(flow.lengths.rows))
            flow.ends = Ends(found, flow.ends is not None and flow.ends.moved)
            flow.lengths = checks.Lengths(found)
        return y, tape

    def _apply_from_past(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Any]:
        place = len(flow.final)
        x = self._input(x, flow.batch_first)
        steps = time_major(x, flow.batch_first)
        past = self._check_past(flow.states[place], steps.shape[1], x.ndim, f"state[{place}]")
        y, tape = self._compute(x, flow.lengths, flow.batch_first, train, past)
        final = _last_steps(past, steps, flow.lengths)
        flow.final.append(final if x.ndim == 3 else final[:, 0])
        return y, tape

    def _apply_backward(self, tape: ModuleTape, dy: Any, flow: BackwardFlow) -> Any:
        if not self._past_steps:
            return super()._apply_backward(tape, dy, flow)
        dfinal = flow.final.pop()
        if dy is None and dfinal is None:
            flow.initial.append(None)
            return None
        if dy is None:
            dy = np.zeros(tape._y, self.dtype)
        dx, dpast = self._differentiate(tape, dy, dfinal)
        flow.initial.append(dpast if dx.ndim == 3 else dpast[:, 0])
        return dx

    def _check_past(self, past: Any, batch: int, rank: int, name: str) -> Array:
        """Return past steps, (steps, B, in_channels); zeros for None."""
        shape = (self._past_steps, batch, self.in_channels)
        if past is None:
            return np.zeros(shape, self.dtype)
        axes = "(steps, B, in_channels)" if rank == 3 else "(steps, in_channels)"
        given = shape if rank == 3 else shape[::2]
        return checks.contiguous(past, given, self.dtype, name, axes).reshape(shape)

    def _check_dstate(self, dstate: Any, tape: ModuleTape, place: int) -> None:
        """Refuse a wrong gradient of its final state."""
        batch = tape.saved[1].shape[1]
        self._check_past(dstate, batch, len(tape.x_shape), f"dstate[{place}]")

    def _input(self, x: Any, batch_first: bool) -> Array:
        config = self._config
        array = checks.real(x, config.dtype, "x")
        if array.ndim not in (2, 3) or array.shape[-1] != config.in_channels:
            axes, size = "B, T" if batch_first else "T, B", self.in_channels
            raise ValueError(f"x has shape {array.shape}, expected ({axes}, {size}) or (T, {size})")
        return array

    def _forward(
        self, x: Array, ends: npt.NDArray[np.int64], past: Array | None = None
    ) -> tuple[Any, ...]:
        time, batch, channels = x.shape
        left, right = self._pads
        padded = _core.empty((left + time + right, batch, channels), x.dtype)
        padded[:left] = 0 if past is None else past
        padded[left + time :] = 0
        padded[left : left + time] = x
        _zero_past(padded[left : left + time], ends)
        weights = self._weights(True)
        y = self._products(weights, self._windows(padded))
        _zero_past(y, self._ends(ends))
        return y, padded, ends, weights

    def _backward(
        self,
        dy: Array,
        dx: Array,
        padded: Array,
        ends: npt.NDArray[np.int64],
        weights: list[_core.Linear],
        dfinal: Any = None,
    ) -> Array:
        """Write into dx, and return the gradient of what stands before it."""
        gradients = self._own_gradients()
        dy = dy.copy(order="C")
        _zero_past(dy, self._ends(ends))
        windows = self._windows(padded)
        taps, channels = self.kernel_size, self.in_channels
        dwindows = np.empty((*dy.shape[:2], taps, channels), dy.dtype)
        for g, (own, *rest) in enumerate(zip(*map(self._parts, gradients))):
            size, inputs, _ = own.shape
            dweight = np.zeros((size, taps * inputs), dy.dtype)
            part = checks.in_order(dy[..., g * size : (g + 1) * size])
            given = self._part(windows, g)
            found = _core.linear_backward(weights[g], given, part, dweight, *rest)
            dwindows[..., g * inputs : (g + 1) * inputs] = found.reshape(
                *dy.shape[:2], taps, inputs
            )
            own += dweight.reshape(size, taps, inputs).transpose(0, 2, 1)
        dpadded = np.zeros_like(padded)
        for k in range(taps):
            dpadded[_steps_of_tap(k * self.dilation, len(dy), self.stride)] += dwindows[:, :, k]
        left, _ = self._pads
        if dfinal is not None:  # of the steps before the end of each row
            rows = np.arange(dpadded.shape[1])
            dpadded[ends + np.arange(left)[:, None], rows] += dfinal.reshape(left, len(rows), -1)
        there = valid_steps(len(dx), ends)[..., None]
        np.copyto(dx, dpadded[left : left + len(dx)], where=there)
        return dpadded[:left]

    def _windows(self, padded: Array) -> Array:
        """Return the steps that each y is made of, side by side, (steps, B, kernel_size I)."""
        time, batch, channels = padded.shape
        config = self._config
        taps, dilation, stride = config.kernel_size, config.dilation, config.stride
        count = max(time - self._reach - 1 + stride, 0) // stride
        if taps == 1 and stride == 1:
            return padded
        windows = _core.empty((count, batch, taps, channels), padded.dtype)
        for k in range(taps):
            windows[:, :, k] = padded[_steps_of_tap(k * dilation, count, stride)]
        beside: Array = windows.reshape(count, batch, taps * channels)
        return beside


def _steps_of_tap(start: int, count: int, stride: int) -> slice:
    """Return the steps of x that a weight meets in each of `count` windows."""
    return slice(start, start + max(count - 1, 0) * stride + (count > 0), stride)


def _checked_padding(padding: Any) -> str | int:
    if isinstance(padding, (int, np.integer)) and not isinstance(padding, bool):
        return checks.integer(padding, "padding", 0)
    try:
        return checks.choice(padding, "padding", _PADDINGS)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{error}, or an int") from None


def _last_steps(past: Array, x: Array, lengths: Lengths | None) -> Array:
    """Return the last steps before the end of each row, as many as `past` has; x is (T, B, F)."""
    count, time = len(past), len(x)
    if lengths is None and time >= count:
        return x[time - count :].copy()
    ends = np.full(x.shape[1], time) if lengths is None else np.ravel(lengths.rows)
    found: Array = np.concatenate([past, x])[ends + np.arange(count)[:, None], np.arange(len(ends))]
    return found


def _zero_past(y: Array, ends: npt.NDArray[np.int64]) -> None:
    """Set y, (T, B, F), to 0 past the end of each row."""
    if (ends < len(y)).any():
        y[~valid_steps(len(y), ends)] = 0
