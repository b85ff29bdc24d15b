"""What nodes of traced modules are here: functions of PyTorch by those of symbols.

A value is a symbol and what the axes of the tensor are, in their order: "B" rows, "T" steps, "P"
steps with padding behind their ends, "F" features, "L" layers and directions of a state, "1" an
axis of size 1, and two letters for two axes that are one. A feature axis of size 1 may be left out.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import rnn

from .._base.module import Module
from .._network.arrays import Reduce, SoftmaxOver
from .._network.operations import Stack
from .._network.symbol import Symbol, concat, repeat
from .._nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from .._nn.dropout import Dropout
from .._nn.pooling import LastStep, MaxPool, MeanPool
from .._nn.time_reversal import Flip
from .._shapes.rows import RepeatVector, Reshape
from ._functions import FUNCTIONS

__all__ = ["FREE", "Order", "Refused", "Rules", "Value", "as_output", "laid_out"]

Order = tuple[str, ...]


class Refused(ValueError):
    """What has no counterpart here; `place` is the number of its node."""

    def __init__(self, message: str, place: int = -1) -> None:
        super().__init__(message)
        self.place = place


@dataclass(frozen=True)
class Value:
    """A symbol and the axes of the tensor it stands for."""

    symbol: Any
    order: Order

    @property
    def features(self) -> int:
        """The size of the last axis of the symbol."""
        return int(self.symbol.axes.features or 0)

    def __str__(self) -> str:
        return f"({', '.join(self.order)})"


@dataclass(frozen=True)
class Packed:
    """A PackedSequence: its rows end where the lengths say that the Model is called with."""

    value: Value


@dataclass(frozen=True)
class Size:
    """How many rows or steps a value has."""

    axis: str
    of: Value


class _Free:
    """Zeros, or an argument that is an initial state: what a Model is called with."""


FREE = _Free()
_OPAQUE = object()  # devices, dtypes, lengths


def as_output(value: Any, first: bool) -> Symbol | None:
    """Return the symbol of what a forward returns."""
    if not isinstance(value, Value):
        raise Refused(f"an output is {_said(value)}, expected what modules compute")
    order = tuple("T" if axis == "P" else axis for axis in value.order)
    order = order if "F" in order or value.features != 1 else (*order, "F")
    steps = ("B", "T", "F") if first else ("T", "B", "F")
    if order not in (("B", "F"), ("L", "B", "F"), steps):
        layout = ", ".join(steps)
        raise Refused(f"an output has the axes {value}, expected (B, F), (L, B, F) or ({layout})")
    result: Symbol = value.symbol
    return result


def _said(value: Any) -> str:
    if isinstance(value, Value):
        return f"a tensor {value}"
    return "an initial state or lengths" if value is FREE else f"a {type(value).__name__}"


def _padding(axes: Sequence[str]) -> str:
    """Return what a refusal adds where one of the axes has padding."""
    return ": steps past the ends count there, and not here" if "P" in axes else ""


def _value(x: Any, what: str = "it") -> Value:
    if not isinstance(x, Value):
        raise Refused(f"{what} takes {_said(x)}, expected a tensor that modules compute")
    return x


def _axis(x: Value, dim: int) -> int:
    if isinstance(dim, bool) or not isinstance(dim, int) or not -len(x.order) <= dim < len(x.order):
        raise Refused(f"dim is {dim!r} of {x}")
    return dim % len(x.order)


def laid_out(module: Any, first: bool) -> Any:
    """Return a module like it whose sequences are laid out as the model has them."""
    made = getattr(module, "batch_first", first)
    if made == first:
        return module
    if not hasattr(module._config, "batch_first"):
        raise Refused(f"it has batch_first={made}, where the model has {first}")
    other = type(module)._from_options({**module._options(), "batch_first": first})
    other.load_state_dict(module.state_dict())
    return other


class Rules:
    """What modules and functions give; `first` is whether arrays here are (B, T, F)."""

    def __init__(self, first: bool) -> None:
        self.first = first

    # Modules --------------------------------------------------------------------------------------

    def module(self, theirs: Any, ours: Any, args: Any, options: dict[str, Any]) -> Any:
        """Return what a module of theirs gives, of which ours was made."""
        for kind, rule in _MODULES.items():
            if isinstance(theirs, kind):
                try:
                    return rule(self, theirs, ours, *args, **options)
                except TypeError as error:
                    raise Refused(f"it takes what is not known here ({error})") from error
        if len(args) != 1 or options:
            raise Refused("it is called with more than one argument")
        (x,) = args
        if type(theirs).__name__ == "Output":
            return x[0]
        x = _value(x)
        if hasattr(theirs, "batch_first"):  # pooling of ours
            self._expect(x, self._steps(theirs.batch_first))
            return Value(ours(x.symbol), ("B", "F"))
        if ours._knows_time:
            self._expect(x, ("B", "F", "T"))
        elif ours._input_size is not None and x.order[-1:] != ("F",):
            raise Refused(f"x has the axes {x}, expected the features last")
        return Value(ours(x.symbol), x.order)

    def _identity(self, theirs: Any, ours: Any, input: Any) -> Any:
        return input

    def _softmax(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.softmax(_value(input), theirs.dim)

    def _log_softmax(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.log_softmax(_value(input), theirs.dim)

    def _embedding(self, theirs: Any, ours: Any, input: Any) -> Value:
        x = _value(input)
        self._expect(x, ("B",), ("B", "T"), ("T", "B"))
        return Value(ours(x.symbol), (*x.order, "F"))

    def _encoder(self, theirs: Any, ours: Any, src: Any) -> Value:
        x = _value(src)
        self._expect(x, self._steps(theirs.self_attn.batch_first))
        return Value(ours(x.symbol), x.order)

    def _batch_norm(self, theirs: Any, ours: Any, input: Any) -> Value:
        x = _value(input)
        self._expect(x, ("B", "F", "T"), ("B", "F"))
        return Value(ours(x.symbol), x.order)

    def _prelu(self, theirs: Any, ours: Any, input: Any) -> Value:
        x = _value(input)
        if theirs.num_parameters > 1:
            self._expect(x, ("B", "F", "T"), ("B", "F"))
        return Value(ours(x.symbol), x.order)

    def _steps(self, batch_first: bool, time: str = "T") -> Order:
        return ("B", time, "F") if batch_first else (time, "B", "F")

    def _expect(self, x: Value, *orders: Order) -> None:
        if x.order not in orders:
            expected = " or ".join(f"({', '.join(order)})" for order in orders)
            raise Refused(f"x has the axes {x}, expected {expected}{_padding(x.order)}")

    def _layer(self, theirs: Any, ours: Any, input: Any, hx: Any = None) -> Any:
        packed = isinstance(input, Packed)
        x = input.value if isinstance(input, Packed) else _value(input)
        if not packed:
            self._expect(x, self._steps(theirs.batch_first))
        state = self._state(hx)
        made = ours(x.symbol) if state is None else ours(x.symbol, state)
        y: Any = Value(made[0], x.order)
        final = made[1]
        if isinstance(final, tuple):
            final = tuple(Value(part, ("L", "B", "F")) for part in final)
        else:
            final = Value(final, ("L", "B", "F"))
        return (Packed(y) if packed else y), final

    def _state(self, hx: Any) -> Any:
        if isinstance(hx, (tuple, list)):
            parts = tuple(self._state(part) for part in hx)
            return None if all(part is None for part in parts) else parts
        if hx is None or hx is FREE:
            return None
        self._expect(_value(hx), ("L", "B", "F"))
        return hx.symbol

    def _cell(self, theirs: Any, ours: Any, input: Any, hx: Any = None) -> Any:
        x = _value(input)
        self._expect(x, ("B", "F"))
        parts = hx if isinstance(hx, (tuple, list)) else (hx,)
        given = tuple(None if h is None or h is FREE else _value(h).symbol for h in parts)
        if any(given):
            made = ours(x.symbol, given if len(given) > 1 else given[0])
        else:
            made = ours(x.symbol)
        if isinstance(made, tuple):
            return tuple(Value(part, ("B", "F")) for part in made)
        return Value(made, ("B", "F"))

    def _attention(
        self, theirs: Any, ours: Any, query: Any, key: Any, value: Any, need_weights: bool = True
    ) -> Any:
        order = self._steps(theirs.batch_first)
        for x in (query, key, value):
            self._expect(_value(x), order)
        y, weights = ours(query.symbol, key.symbol, value.symbol)
        return Value(y, order), Value(weights, ("B", "S", "S")) if need_weights else None

    # Functions ------------------------------------------------------------------------------------

    def function(self, target: Any, args: Any, options: dict[str, Any]) -> Any:
        """Return what a function of PyTorch gives, or a method of tensors by its name."""
        name = target if isinstance(target, str) else target.__name__
        places = (torch, functional, operator, builtins, rnn)
        known = isinstance(target, str) or any(getattr(p, name, None) is target for p in places)
        if name == "_assert_is_none":
            return None
        rule = _FUNCTIONS.get(name) if known else None
        if rule is None:
            raise Refused(f"{getattr(target, '__module__', None) or 'torch'}.{name} is not known")
        if name == "getitem" and isinstance(args[0], (tuple, list, dict)):
            return args[0][args[1]]
        if name == "pack_padded_sequence":
            args, options = args[:1], {k: v for k, v in options.items() if k == "batch_first"}
        try:
            return rule(self, *args, **options)
        except TypeError as error:
            raise Refused(f"{name} takes what is not known here ({error})") from error

    def same(self, x: Any, *args: Any, **options: Any) -> Any:
        """Copies, and moves to a device."""
        for one in (*args, *options.values()):
            if isinstance(one, torch.dtype):
                raise Refused(f"it makes numbers {one}: parts of a model have one dtype here")
        return x

    def free(self, *args: Any, **options: Any) -> Any:
        """Zeros, which initial states are."""
        return FREE

    def getattr(self, x: Any, name: str) -> Any:
        """Shapes of tensors; devices and the like, which say nothing."""
        if isinstance(x, tuple) and name == "values":  # of a maximum and where it is
            return x[0]
        return self.size(x) if name == "shape" else _OPAQUE

    def size(self, x: Any, dim: int | None = None) -> Any:
        """Return the sizes of a tensor, or one of them."""
        x = _value(x)
        known = {"F": x.features, "L": x.symbol.axes.states, "1": 1}
        sizes = tuple(known.get(axis, Size(axis, x)) for axis in x.order)
        return sizes if dim is None else sizes[_axis(x, dim)]

    # Sums

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return values of the same axes, one of them repeated over the steps of the other."""
        for one, other in ((a, b), (b, a)):
            there = other.order.index("T") if "T" in other.order else None
            if there is not None and len(one.order) == len(other.order):
                wanted = tuple("1" if axis == "T" else axis for axis in other.order)
                if one.order == wanted:
                    symbol = repeat(one.symbol, like=other.symbol, batch_first=self.first)
                    whole = Value(symbol, other.order)
                    return (whole, b) if one is a else (a, whole)
        if a.order != b.order:
            raise Refused(f"the axes are {a} and {b}, expected the same")
        return a, b

    def divide(self, a: Any, b: Any) -> Value:
        """Divide by a number."""
        if isinstance(b, bool) or not isinstance(b, (int, float)) or not b:
            raise Refused(f"it divides by {_said(b)}, expected a number other than 0")
        a = _value(a)
        return Value(a.symbol * (1 / b), a.order)

    def negative(self, x: Any) -> Value:
        """Return -x."""
        x = _value(x)
        return Value(-x.symbol, x.order)

    # Axes

    def transpose(self, x: Any, dim0: int, dim1: int) -> Value:
        """Exchange two axes."""
        x = _value(x)
        order, i, j = list(x.order), _axis(x, dim0), _axis(x, dim1)
        order[i], order[j] = order[j], order[i]
        return Value(x.symbol, tuple(order))

    def permute(self, x: Any, *dims: Any) -> Value:
        """Put the axes in another order."""
        x = _value(x)
        wanted = dims[0] if isinstance(dims[0], (tuple, list)) else dims
        order = tuple(x.order[_axis(x, dim)] for dim in wanted)
        if sorted(order) != sorted(x.order):
            raise Refused(f"dims are {wanted} of {x}")
        return Value(x.symbol, order)

    def unsqueeze(self, x: Any, dim: int) -> Value:
        """Add an axis of size 1."""
        x = _value(x)
        place = dim if dim >= 0 else dim + len(x.order) + 1
        axis = "1" if "F" in x.order or x.features != 1 else "F"
        order = (*x.order[:place], axis, *x.order[place:])
        return self._as_state(Value(x.symbol, order))

    def _as_state(self, x: Value) -> Value:
        """Return (1, B, F) as a state of one layer."""
        if x.order == ("1", "B", "F"):
            return Value(x.symbol[None], ("L", "B", "F"))
        return x

    def squeeze(self, x: Any, dim: Any = None) -> Value:
        """Leave out axes of size 1."""
        x = _value(x)
        sizes = self.size(x)
        ones = [i for i, size in enumerate(sizes) if size == 1]
        if dim is None and any(isinstance(size, Size) for size in sizes):
            raise Refused("it leaves out whatever axis has size 1, expected dim=")
        if dim is not None:
            ones = [i for i in ones if i == _axis(x, dim)]
        symbol = x.symbol
        if any(x.order[i] == "L" for i in ones):
            symbol = symbol[0]
        return Value(symbol, tuple(axis for i, axis in enumerate(x.order) if i not in ones))

    def expand(self, x: Any, *sizes: Any) -> Value:
        """Repeat what has no steps over steps; the sizes of the other axes are theirs, or -1."""
        return self._over_steps(_value(x), sizes, self._is_size)

    def repeat(self, x: Any, *counts: Any) -> Value:
        """Repeat what has no steps over steps, and the other axes once."""
        return self._over_steps(_value(x), counts, lambda x, axis, count: count == 1)

    def _over_steps(self, x: Value, sizes: Any, stays: Callable[[Value, str, Any], bool]) -> Value:
        """Repeat over steps; `stays` is whether a number leaves another axis as it is."""
        wanted = sizes[0] if isinstance(sizes[0], (tuple, list)) else sizes
        if x.order == ("L", "B", "F") and wanted[0] not in (1, -1) and x.symbol.axes.states == 1:
            x = Value(x.symbol[0], ("1", "B", "F"))
        if len(wanted) != len(x.order) or x.order.count("1") != 1:
            raise Refused(f"the axes are {x}, expected one of them of size 1")
        place = x.order.index("1")
        steps = wanted[place]
        for i, (axis, n) in enumerate(zip(x.order, wanted, strict=True)):
            if i != place and not stays(x, axis, n):
                raise Refused(f"it repeats axis {axis} of {x}, expected that of the steps alone")
        order = tuple("T" if axis == "1" else axis for axis in x.order)
        if isinstance(steps, Size) and steps.axis == "T":
            symbol = repeat(x.symbol, like=steps.of.symbol, batch_first=self.first)
        elif isinstance(steps, int) and steps > 0:
            symbol = RepeatVector(steps, batch_first=self.first)(x.symbol)
        else:
            raise Refused(f"it repeats over {_said(steps)}, expected steps")
        return Value(symbol, order)

    def reshape(self, x: Any, *shape: Any) -> Value:
        """Put two axes together, or apart again."""
        return self._reshaped(
            _value(x), list(shape[0] if isinstance(shape[0], (tuple, list)) else shape)
        )

    def _reshaped(self, x: Value, wanted: list[Any]) -> Value:
        if len(wanted) == len(x.order) and self._fits(x, x.order, wanted):
            return x
        if len(wanted) < len(x.order) and x.order[-1] == "F":
            merged = (x.order[0] + x.order[1], *x.order[2:])
            if merged[0] in ("BT", "TB") and self._fits(x, merged, wanted):
                return Value(x.symbol, merged)
            if x.order == ("B", "L", "F") and wanted[1] in (-1, self._width(x)):
                return self._flat(x, 1, -1)
        if len(wanted) == 3 and len(x.order[0]) == 2 and x.order[1:] == ("F",):
            apart = (*x.order[0], "F")
            if self._fits(x, apart, wanted):
                return Value(x.symbol, apart)
        fixed = wanted[1:]
        if x.order == ("B", "F") and len(wanted) == 3 and all(isinstance(n, int) for n in fixed):
            cut = Reshape((x.features,), tuple(fixed), batch_first=self.first)
            return Value(cut(x.symbol), ("B", "T", "F"))
        raise Refused(f"{x} in another shape is not known here")

    def _width(self, x: Value) -> int:
        return int(x.symbol.axes.states) * x.features

    def _fits(self, x: Value, order: Order, wanted: list[Any]) -> bool:
        """Whether a shape asks for those axes; one of them may be left to it."""
        if wanted.count(-1) > 1 or len(order) != len(wanted):
            return False
        return all(self._is_size(x, axis, n) for axis, n in zip(order, wanted, strict=True))

    def _is_size(self, x: Value, axis: str, n: Any) -> bool:
        """Whether n is the size of an axis, or -1, which stands for it."""
        if isinstance(n, Size):
            return n.axis == axis
        known = {"F": x.features, "L": x.symbol.axes.states, "1": 1}
        return bool(n == -1 or n == known.get(axis))

    def flatten(self, x: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
        """Put the layers of a state side by side, or rows and steps behind each other."""
        return self._flat(_value(x), start_dim, end_dim)

    def _flat(self, x: Value, start_dim: int, end_dim: int) -> Value:
        if (start_dim, end_dim) == (0, 1) and x.order in (("B", "T", "F"), ("T", "B", "F")):
            return Value(x.symbol, (x.order[0] + x.order[1], "F"))
        if start_dim == 1 and _axis(x, end_dim) == len(x.order) - 1:
            if x.order == ("B", "L", "F"):
                parts = [x.symbol[i] for i in range(x.symbol.axes.states)]
                return Value(concat(parts), ("B", "F"))
            if x.order == ("B", "F"):
                return x
            if sorted(x.order) == ["1", "B", "F"]:
                return Value(x.symbol, ("B", "F"))
        raise Refused(f"{x} flattened from {start_dim} to {end_dim} is not known here")

    # Parts

    def getitem(self, x: Any, key: Any) -> Value:
        """Return layers, features, the first or last step, or with a new axis."""
        x = _value(x)
        keys = list(key) if isinstance(key, tuple) else [key]
        if any(k is Ellipsis for k in keys):
            i = next(i for i, k in enumerate(keys) if k is Ellipsis)
            count = len(x.order) - sum(k is not None for k in keys) + 1
            keys[i : i + 1] = [slice(None)] * count
        order: list[str] = []
        axes = iter(x.order)
        symbol = x.symbol
        for k in keys:
            if k is None:
                order.append("1")
                continue
            axis = next(axes, None)
            if axis is None:
                raise Refused(f"the index has more parts than {x}")
            if isinstance(k, slice) and (k.start, k.stop, k.step) == (None, None, None):
                order.append(axis)
                continue
            symbol, kept = self._part(Value(symbol, x.order), axis, k)
            order += kept
        return self._as_state(Value(symbol, (*order, *axes)))

    def _part(self, x: Value, axis: str, key: Any) -> tuple[Any, list[str]]:
        """Return a part along an axis, and the axes that stay of it."""
        if axis in "FL" and isinstance(key, list):
            key = _as_slice(key)
        if axis == "F" and isinstance(key, slice):
            return x.symbol[..., key], ["F"]
        if axis == "F" and isinstance(key, int):
            stop = key + 1 or None
            return x.symbol[..., key:stop], []
        if axis == "L":
            return x.symbol[key], ["L"] * isinstance(key, slice)
        if axis == "1" and key in (0, -1):
            return x.symbol, []
        if axis == "T" and key in (0, -1):
            return self._end(x, key), []
        if axis == "T" and key == slice(-1, None):
            return self._end(x, -1), ["1"]
        if axis == "T" and key == slice(None, 1):
            return self._end(x, 0), ["1"]
        raise Refused(f"{key!r} of axis {axis} of {x} is not known here{_padding(axis)}")

    def _end(self, x: Value, step: int) -> Any:
        symbol = x.symbol if step else Flip(batch_first=self.first)(x.symbol)
        return LastStep(batch_first=self.first)(symbol)

    def select(self, x: Any, dim: int, index: int) -> Value:
        """Return what one place of an axis has."""
        x = _value(x)
        return self.getitem(x, (*[slice(None)] * _axis(x, dim), index))

    def narrow(self, x: Any, dim: int, start: int, length: int) -> Value:
        """Return some places of an axis."""
        x = _value(x)
        return self.getitem(x, (*[slice(None)] * _axis(x, dim), slice(start, start + length)))

    def chunk(self, x: Any, chunks: int, dim: int = 0) -> tuple[Value, ...]:
        """Return the features in so many parts."""
        x = _value(x)
        size = x.features if x.order[_axis(x, dim)] == "F" else x.symbol.axes.states
        return self.split(x, -(-size // chunks), dim)

    def split(self, x: Any, split_size: Any, dim: int = 0) -> tuple[Value, ...]:
        """Return the features, or layers, in parts of so many, or of these sizes."""
        x = _value(x)
        place = _axis(x, dim)
        if x.order[place] not in "FL":
            raise Refused(f"axis {x.order[place]} of {x} in parts is not known here")
        size = x.features if x.order[place] == "F" else x.symbol.axes.states
        if isinstance(split_size, int):
            split_size = [min(split_size, size - i) for i in range(0, size, split_size)]
        parts, start = [], 0
        for count in split_size:
            parts.append(self.narrow(x, place, start, count))
            start += count
        return tuple(parts)

    def unbind(self, x: Any, dim: int = 0) -> tuple[Value, ...]:
        """Return the layers of a state, one by one."""
        x = _value(x)
        if x.order[_axis(x, dim)] != "L":
            raise Refused(f"{x} one by one is not known here")
        return tuple(self.select(x, dim, i) for i in range(x.symbol.axes.states))

    def cat(self, tensors: Any, dim: int = 0) -> Value:
        """Put features side by side."""
        parts = [_value(one) for one in tensors]
        first = parts[0]
        for i, part in enumerate(parts[1:], 1):
            _, parts[i] = self.alike(first, part)
        axis = first.order[_axis(first, dim)]
        if axis == "L":
            return self.stack([one for part in parts for one in self.unbind(part, dim)])
        if axis != "F":
            raise Refused(f"{first} behind each other along axis {axis} is not known here")
        return Value(concat([part.symbol for part in parts]), first.order)

    def stack(self, tensors: Any, dim: int = 0) -> Value:
        """Make a state of several layers of as many tensors."""
        parts = [_value(one) for one in tensors]
        if dim != 0 or any(part.order != ("B", "F") for part in parts):
            raise Refused(f"{parts[0]} stacked along dim {dim} is not known here")
        symbols = tuple(part.symbol for part in parts)
        return Value(symbols[0]._enter(Stack(), symbols), ("L", "B", "F"))

    # Over time

    def largest(self, x: Any, dim: Any = None, keepdim: bool = False) -> Any:
        """Return the maxima, and no places of them."""
        if isinstance(dim, Value):
            raise Refused("the larger of two tensors is not known here")
        return _pool(MaxPool)(self, x, dim, keepdim), None

    def steps_of(self, x: Value, dim: Any) -> int:
        """Return which axis is that of the steps, if `dim` is that."""
        dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
        place = _axis(x, dim)
        if x.order[place] != "T":
            raise Refused(f"over axis {x.order[place]} of {x} is not known here{_padding(x.order)}")
        return place

    def sum(self, x: Any, dim: Any = None) -> Value:
        """Return the sum over steps."""
        x = _value(x)
        place = self._rows(x, dim)
        made = Reduce("sum", 1, False, [2], [x.features])._given_symbols(x.symbol)
        return Value(made, (*x.order[:place], *x.order[place + 1 :]))

    def _rows(self, x: Value, dim: Any) -> int:
        """Return which axis is that of the steps, in a model with the batch first."""
        place = self.steps_of(x, dim)
        if not self.first:
            raise Refused("over steps is known here only where the batch is first")
        return place

    def softmax(self, x: Any, dim: Any = None, dtype: Any = None, _stacklevel: int = 3) -> Value:
        """Return shares over features, or over steps."""
        x = self.same(_value(x), dtype)
        place = _axis(x, dim)
        if x.order[place] == "F":
            return Value(Softmax()(x.symbol), x.order)
        self._rows(x, dim)
        kind = SoftmaxOver(1, [2], [None, x.features])
        return Value(kind._given_symbols(x.symbol), x.order)

    def log_softmax(
        self, x: Any, dim: Any = None, dtype: Any = None, _stacklevel: int = 3
    ) -> Value:
        """Return the logarithms of shares over features."""
        x = self.same(_value(x), dtype)
        if x.order[_axis(x, dim)] != "F":
            raise Refused(f"log_softmax is of {x} over axis {dim}, expected the features")
        return Value(LogSoftmax()(x.symbol), x.order)

    def flip(self, x: Any, *dims: Any) -> Value:
        """Turn the steps round."""
        x = _value(x)
        wanted = dims[0] if isinstance(dims[0], (tuple, list)) else dims
        if [x.order[_axis(x, dim)] for dim in wanted] != ["T"]:
            raise Refused(f"dims are {wanted} of {x}, expected the steps")
        return Value(Flip(batch_first=self.first)(x.symbol), x.order)

    def dropout(
        self, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False
    ) -> Value:
        """Drop in training."""
        x = _value(x)
        return Value(Dropout(p)(x.symbol), x.order) if training and p else x

    def pack(self, input: Any, batch_first: bool = False) -> Packed:
        """Say that rows end where lengths say."""
        x = _value(input)
        self._expect(x, self._steps(batch_first), self._steps(batch_first, "P"))
        order = tuple("T" if axis == "P" else axis for axis in x.order)
        return Packed(Value(x.symbol, order))

    def pad(self, sequence: Any, batch_first: bool = False, total_length: Any = None) -> Any:
        """Return y, which is 0 past the ends, and the lengths."""
        if not isinstance(sequence, Packed):
            raise Refused(f"it takes {_said(sequence)}, expected a PackedSequence")
        order = self._steps(batch_first, "P")
        return Value(sequence.value.symbol, order), _OPAQUE


def _as_slice(places: list[int]) -> slice:
    """Return what takes the same places, if they are equally far from each other."""
    by = places[1] - places[0] if len(places) > 1 else 1
    stop = places[-1] + by
    if not by or list(range(places[0], stop, by)) != places:
        raise Refused(f"{places} are not equally far from each other")
    return slice(places[0], None if stop < 0 else stop, by)


Rule = Callable[..., Any]


def _each(make: Callable[..., Module]) -> Rule:
    """Return the rule of a function of every number by itself."""

    def rule(w: Rules, x: Any, *args: Any, inplace: bool = False, **options: Any) -> Value:
        x = _value(x)
        return Value(make(*args, **options)(x.symbol), x.order)

    return rule


def _arithmetic(kind: str, reverse: bool = False) -> Rule:
    """Return the rule of a sum, a difference or a product."""
    function = getattr(operator, kind)

    def rule(w: Rules, a: Any, b: Any) -> Any:
        if isinstance(a, Size) and isinstance(b, Size) and kind == "mul":
            return Size(a.axis + b.axis, a.of)
        if isinstance(a, Value) and isinstance(b, Value):
            a, b = w.alike(a, b)
        for one in (a, b):
            if not isinstance(one, Value | int | float):
                raise Refused(f"it takes {_said(one)}, expected tensors that modules compute")
        order = a.order if isinstance(a, Value) else _value(b).order
        a, b = (one.symbol if isinstance(one, Value) else one for one in (a, b))
        return Value(function(b, a) if reverse else function(a, b), order)

    return rule


def _pool(kind: Callable[..., Module]) -> Rule:
    """Return the rule of a mean or a maximum over steps."""

    def rule(w: Rules, x: Any, dim: Any = None, keepdim: bool = False) -> Value:
        x = _value(x)
        place = w.steps_of(x, dim)
        order = (*x.order[:place], *["1"] * keepdim, *x.order[place + 1 :])
        return Value(kind(batch_first=w.first)(x.symbol), order)

    return rule


# Modules of PyTorch whose axes are not those of most: by class, subclasses with them.
_MODULES: dict[type[nn.Module], Rule] = {
    nn.RNNBase: Rules._layer,
    nn.RNNCellBase: Rules._cell,
    nn.MultiheadAttention: Rules._attention,
    nn.Identity: Rules._identity,
    nn.Softmax: Rules._softmax,
    nn.LogSoftmax: Rules._log_softmax,
    nn.Embedding: Rules._embedding,
    nn.TransformerEncoderLayer: Rules._encoder,
    nn.BatchNorm1d: Rules._batch_norm,
    nn.PReLU: Rules._prelu,
}

_ADD, _SUB, _MUL = (_arithmetic(kind) for kind in ("add", "sub", "mul"))
_FUNCTIONS: dict[str, Rule] = {
    **{there.__name__: _each(partial(Activation, ours)) for ours, there in FUNCTIONS.items()},
    "elu": _each(ELU),
    "gelu": _each(GELU),
    "leaky_relu": _each(LeakyReLU),
    "relu": _each(ReLU),
    "sigmoid": _each(Sigmoid),
    "silu": _each(SiLU),
    "softplus": _each(Softplus),
    "tanh": _each(Tanh),
    **dict.fromkeys(("add", "iadd"), _ADD),
    **dict.fromkeys(("sub", "subtract", "isub"), _SUB),
    **dict.fromkeys(("mul", "multiply", "imul"), _MUL),
    "rsub": _arithmetic("sub", reverse=True),
    "neg": Rules.negative,
    **dict.fromkeys(("truediv", "div", "itruediv"), Rules.divide),
    **dict.fromkeys(("transpose", "swapaxes"), Rules.transpose),
    "permute": Rules.permute,
    "unsqueeze": Rules.unsqueeze,
    "squeeze": Rules.squeeze,
    "expand": Rules.expand,
    "repeat": Rules.repeat,
    **dict.fromkeys(("view", "reshape"), Rules.reshape),
    "flatten": Rules.flatten,
    "getitem": Rules.getitem,
    "select": Rules.select,
    "narrow": Rules.narrow,
    "chunk": Rules.chunk,
    "split": Rules.split,
    "unbind": Rules.unbind,
    **dict.fromkeys(("cat", "concat"), Rules.cat),
    "stack": Rules.stack,
    "mean": _pool(MeanPool),
    "amax": _pool(MaxPool),
    "max": Rules.largest,
    "sum": Rules.sum,
    "softmax": Rules.softmax,
    "log_softmax": Rules.log_softmax,
    "flip": Rules.flip,
    "dropout": Rules.dropout,
    "pack_padded_sequence": Rules.pack,
    "pad_packed_sequence": Rules.pad,
    "getattr": Rules.getattr,
    "size": Rules.size,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), Rules.free),
    **dict.fromkeys(("clone", "contiguous", "cpu", "to", "tolist"), Rules.same),
}
