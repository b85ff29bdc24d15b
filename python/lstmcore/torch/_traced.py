"""What nodes of traced modules are here: functions of PyTorch by those of symbols.

A value is a symbol and what the axes of the tensor are, in their order: "B" rows, "T" steps, "P"
steps with padding behind their ends, "F" features, "L" layers and directions of a state, "1" an
axis of size 1, and two letters for two axes that are one. A feature axis of size 1 may be left out.
"""

from __future__ import annotations

import builtins
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import rnn

from .._base.module import Module
from .._base.tree import leaves
from .._network.arrays import Join, Reduce, SoftmaxOver, Take, UnitLength
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
from .._nn.conv import Conv1D
from .._nn.dropout import Dropout
from .._nn.linear import Linear
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import LastStep, MaxPool, MeanPool
from .._nn.time_reversal import Flip
from .._shapes.rows import Permute, RepeatVector, Reshape
from .._shapes.steps import Pad1D
from ..attention import ScaledDotProduct
from ._functions import FUNCTIONS

__all__ = ["FREE", "Order", "Refused", "Rules", "Value", "as_output", "laid_out"]

Order = tuple[str, ...]


class Refused(ValueError):
    """What has no counterpart here.

    `place` is the number of its node and, of two errors there, whether it is more than axes that do
    not fit.
    """

    def __init__(self, message: str, place: int = -1, axes: bool = False) -> None:
        super().__init__(message)
        self.place = place, not axes


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


@dataclass(frozen=True)
class Own:
    """A parameter or buffer of the module itself."""

    tensor: Any
    name: str
    trained: bool  # whether these are the numbers that are trained there

    @property
    def array(self) -> Any:
        """Its numbers, of a dtype that modules here have."""
        tensor = self.tensor.detach()
        return (tensor if tensor.dtype == torch.float64 else tensor.float()).cpu().numpy()


@dataclass(frozen=True)
class Scores:
    """Products of queries and keys times a number, of which there may be any number; or shares."""

    query: Value
    key: Value
    scale: float = 1.0
    shares: bool = False


@dataclass(frozen=True)
class Split:
    """The layers of a state, or the features, in so many parts, which have an axis of their own."""

    of: Value
    parts: int

    @property
    def place(self) -> int:
        """Which axis is that of the parts."""
        return 0 if self.of.order[0] == "L" else len(self.of.order) - 1

    def part(self, index: int) -> Value:
        """Return one of the parts."""
        symbol, size = self.of.symbol, self.of.features // self.parts
        index = range(self.parts)[index]
        if self.place == 0:
            size = symbol.axes.states // self.parts
            return Value(symbol[index * size : (index + 1) * size], self.of.order)
        return Value(symbol[..., index * size : (index + 1) * size], self.of.order)


@dataclass(frozen=True)
class Length:
    """The length of each row, or `least` if it is shorter, and `more` added: what divides x."""

    of: Value
    least: float = 0.0
    more: float = 0.0


class _Free:
    """Zeros, or an argument that is an initial state: what a Model is called with."""


FREE = _Free()
_LINALG: Any = torch._C._linalg  # type: ignore[attr-defined]
_NEEDS_FIRST = (
    "{} is known here only where the batch is first: give the layers batch_first=True, and forward "
    "(B, T, F)"
)
_ROWS, _LAST = object(), object()  # the numbers of the rows, and of the last step of each
_OPAQUE = object()  # devices, dtypes, lengths


def as_output(value: Any, first: bool) -> Symbol | None:
    """Return the symbol of what a forward returns."""
    if not isinstance(value, Value):
        raise Refused(f"an output is {_said(value)}, expected what modules compute")
    order = tuple("T" if axis == "P" else axis for axis in value.order)
    if len(order[0]) == 2:  # rows and steps as one axis, which are two here
        order = (*order[0], *order[1:])
    order = order if "F" in order or value.features != 1 else (*order, "F")
    steps = ("B", "T", "F") if first else ("T", "B", "F")
    if order == (("B", "1", "F") if first else ("1", "B", "F")):
        value, order = Value(RepeatVector(1, batch_first=first)(value.symbol), steps), steps
    if order not in (("B", "F"), ("L", "B", "F"), steps):
        layout = ", ".join(steps)
        raise Refused(f"an output has the axes {value}, expected (B, F), (L, B, F) or ({layout})")
    result: Symbol = value.symbol
    return result


def _said(value: Any) -> str:
    if isinstance(value, Value):
        return f"a tensor {value}"
    if isinstance(value, Own):
        return f"{value.name}, a tensor of the module itself,"
    if isinstance(value, Scores):
        return "scores of any number of keys"
    if value is _ROWS or value is _LAST:
        return "numbers of rows or steps"
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

    def __init__(self, first: bool, dtype: str = "float32") -> None:
        self.first, self.dtype = first, dtype
        self._of_own: dict[Any, Module] = {}  # made of tensors of the module itself, once
        self.causal: dict[int, Module] = {}  # what convolutions became, by the ids of these
        self._under_lengths: set[int] = set()  # calls that PyTorch, too, makes with lengths

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

    def _softmax(self, theirs: Any, ours: Any, input: Any) -> Any:
        return self.softmax(_value(input), theirs.dim)

    def _log_softmax(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.log_softmax(_value(input), theirs.dim)

    def _embedding(self, theirs: Any, ours: Any, input: Any) -> Value:
        x = _value(input)
        self._expect(x, ("B",), ("B", "T"), ("T", "B"), ("B", "1"), ("1", "B"))
        return Value(ours(x.symbol), (*x.order, "F"))

    def _encoder(self, theirs: Any, ours: Any, src: Any, src_key_padding_mask: Any = None) -> Value:
        """Keys are masked by lengths, those that the Model is called with."""
        x = _value(src)
        layer = getattr(theirs, "layers", [theirs])[0]
        order = self._steps(layer.self_attn.batch_first)
        if src_key_padding_mask is None:
            self._expect(x, order)
            return Value(ours(x.symbol), x.order)
        if src_key_padding_mask is not FREE:
            raise Refused("its mask is computed, expected an argument of forward")
        padded = self._steps(layer.self_attn.batch_first, "P")
        self._expect(x, order, padded)
        self._refuse_padding(x)
        made = ours(x.symbol)
        self._under_lengths.add(id(made.call))
        return Value(made, padded)

    def _refuse_padding(self, x: Value) -> None:
        """Refuse what has read past the ends in PyTorch, and does not here with lengths."""
        waiting, seen = [x.symbol], set()
        while waiting:
            call = waiting.pop().call
            if call is None or id(call) in seen:
                continue
            seen.add(id(call))
            module = call.module
            reads = module._knows_time and getattr(module, "bidirectional", True)
            causal = getattr(module, "padding", None) == "causal"
            if reads and not causal and id(call) not in self._under_lengths:
                raise Refused(
                    f"steps past the ends count in {module!r} before it, and not here, where all "
                    "of a Model is given the lengths"
                )
            waiting += [a for a in leaves(call.args) if isinstance(a, Symbol)]

    def _batch_norm(self, theirs: Any, ours: Any, input: Any) -> Value:
        x = _value(input)
        self._expect(x, ("B", "F", "T"), ("B", "F"))
        return Value(ours(x.symbol), x.order)

    def _convolution(self, theirs: Any, ours: Any, input: Any) -> Value:
        """With zeros before the steps alone it is a causal one, which can be streamed."""
        x = _value(input)
        self._expect(x, ("B", "F", "T"))
        call = x.symbol.call
        pad = None if call is None else call.module
        before = type(pad) is Pad1D and (pad.left, pad.right) == (ours._reach, 0)
        if before and ours.padding == "valid":
            return Value(self._causal(ours)(call.args[0]), x.order)
        if id(ours) in self.causal:
            raise Refused("it is called with zeros before the steps and without")
        return Value(ours(x.symbol), x.order)

    def _causal(self, conv: Any) -> Any:
        if id(conv) not in self.causal:
            made = Conv1D._from_options({**conv._options(), "padding": "causal"})
            made.load_state_dict(conv.state_dict())
            self.causal[id(conv)] = made
        return self.causal[id(conv)]

    def _without_ends(self, x: Value, start: int, stop: int) -> Any:
        """Return x without steps at its ends: of a convolution, a causal one if that is it."""
        call = x.symbol.call
        conv: Any = None if call is None else call.module
        padded = start == 0 and type(conv) is Conv1D and conv.padding == conv._reach == -stop
        if padded and conv.stride == 1:
            return self._causal(conv)(call.args[0])
        return Pad1D(-start, stop, batch_first=self.first)(x.symbol)

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
            padding = _padding(x.order)
            raise Refused(f"x has the axes {x}, expected {expected}{padding}", axes=not padding)

    def _layer(self, theirs: Any, ours: Any, input: Any, hx: Any = None) -> Any:
        packed = isinstance(input, Packed)
        x = input.value if isinstance(input, Packed) else self._without_layers(_value(input))
        alone = x.order == self._steps(theirs.batch_first, "1")
        if alone:
            x = Value(RepeatVector(1, batch_first=self.first)(x.symbol), x.order)
        elif not packed:
            self._expect(x, self._steps(theirs.batch_first))
        state = self._state(hx)
        made = ours(x.symbol) if state is None else ours(x.symbol, state)
        if packed:
            self._under_lengths.add(id(made[0].call))
        y: Any = Value(LastStep(batch_first=self.first)(made[0]) if alone else made[0], x.order)
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
        if isinstance(hx, Own):
            raise Refused(
                f"its initial state is {hx.name}, a tensor of the module itself: take it out of "
                "forward, and give it where the Model is called, model(x, state)"
            )
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
        places = (torch, functional, operator, builtins, rnn, torch.linalg, _LINALG)
        known = isinstance(target, str) or any(getattr(p, name, None) is target for p in places)
        given = list(leaves((args, options)))
        if known and _all_own(given):
            return _computed(name, target, args, options)
        rule = _FUNCTIONS.get(name) if known else None
        if rule is None:
            raise Refused(f"{getattr(target, '__module__', None) or 'torch'}.{name} is not known")
        if name == "getitem" and isinstance(args[0], (tuple, list, dict)):
            return args[0][args[1]]
        options = {k: v for k, v in options.items() if not (v is None and k in ("out", "dtype"))}
        if name == "pack_padded_sequence":
            kept = ("batch_first", "input")
            args, options = args[:1], {k: v for k, v in options.items() if k in kept}
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

    def rows(self, *count: Any, **options: Any) -> Any:
        """Return the numbers of the rows."""
        if len(count) == 1 and isinstance(count[0], Size) and count[0].axis == "T":
            raise Refused("it counts steps, of whose numbers nothing can be made here")
        if len(count) != 1 or not isinstance(count[0], Size) or count[0].axis != "B":
            raise Refused(f"it counts to {count}, expected the number of rows")
        return _ROWS

    def size(self, x: Any, dim: int | None = None) -> Any:
        """Return the sizes of a tensor, or one of them."""
        x = _value(x)
        known = {"F": x.features, "L": x.symbol.axes.states, "1": 1}
        sizes = tuple(known.get(axis, Size(axis, x)) for axis in x.order)
        return sizes if dim is None else sizes[_axis(x, dim)]

    # Tensors of the module itself

    def with_own(self, kind: str, x: Value, own: Own, turned: bool) -> Value:
        """Return x and numbers for its features put together; `turned` is own - x."""
        places = dict(zip(range(-1, -len(x.order) - 1, -1), reversed(x.order), strict=True))
        shape = own.array.shape
        sizes = {"F": x.features, "1": 1}
        fits = len(shape) <= len(x.order) and all(
            n in (1, sizes.get(places[i]))
            for i, n in zip(range(-1, -len(shape) - 1, -1), shape[::-1])
        )
        if not fits:
            raise Refused(
                f"{own.name}, a tensor of the module itself, is {shape}, and meets {x}: expected "
                "one number for each feature"
            )
        if own.array.size == 1:
            return Value(
                _put_together(kind, x.symbol, float(own.array.reshape(())), turned), x.order
            )
        key = own.name, kind, turned, "T" in x.order or "P" in x.order
        if key not in self._of_own:
            self._of_own[key] = self._for_features(kind, own, turned, key[-1])
        return Value(self._of_own[key](x.symbol), x.order)

    def _for_features(self, kind: str, own: Own, turned: bool, steps: bool) -> Module:
        """Return what shifts or scales features: a norm by statistics that do not change."""
        numbers = own.array.reshape(-1)
        made = BatchNorm(
            len(numbers), eps=0.0, frozen=True, batch_first=self.first if steps else None,
            dtype=numbers.dtype,
        )  # fmt: skip
        state = made.state_dict()
        if kind in ("add", "sub"):
            state["bias"] = -numbers if kind == "sub" and not turned else numbers
            state["weight"][:] = -1 if turned and kind == "sub" else 1
        else:
            state["weight"] = 1 / numbers if kind == "truediv" else numbers
        made.load_state_dict(state)
        trained = "bias" if kind in ("add", "sub") else "weight"
        for name, p in made.named_parameters():
            p.trainable = own.trained and name == trained and kind != "truediv"
        return made

    def linear(self, input: Any, weight: Any, bias: Any = None) -> Value:
        """Multiply with a matrix of the module itself."""
        x = _value(input)
        if not isinstance(weight, Own) or not (bias is None or isinstance(bias, Own)):
            raise Refused("its weights are computed, expected tensors of the module")
        return self._product(x, weight, weight.array, bias)

    def _product(self, x: Value, own: Own, matrix: Any, bias: Own | None = None) -> Value:
        if x.order[-1:] != ("F",) or matrix.ndim != 2 or matrix.shape[1] != x.features:
            raise Refused(f"{own.name}, a tensor of the module itself, is {matrix.shape} for {x}")
        key = own.name, "matrix", None if bias is None else bias.name
        if key not in self._of_own:
            rows, columns = matrix.shape
            made = Linear(columns, rows, bias=bias is not None, dtype=matrix.dtype)
            arrays = {"weight": matrix} | ({} if bias is None else {"bias": bias.array})
            made.load_state_dict(arrays)
            for p, one in zip(made.parameters(), (own, bias), strict=False):
                p.trainable = one is not None and one.trained
            self._of_own[key] = made
        return Value(self._of_own[key](x.symbol), x.order)

    def matmul(self, a: Any, b: Any) -> Any:
        """Multiply with a tensor of the module, queries with keys, or weights with values."""
        if isinstance(a, Value) and isinstance(b, Own):
            matrix = b.array
            if matrix.ndim == 1:
                made = self._product(a, b, matrix[None])
                return Value(made.symbol, made.order[:-1])
            return self._product(a, b, matrix.T)
        if isinstance(a, Scores):
            return self._attended(a, _value(b))
        a, b = _value(a), _value(b)
        if not self.first:
            raise Refused(_NEEDS_FIRST.format("a product of sequences"))
        if a.order == ("B", "T", "F") and b.order == ("B", "F", "T"):
            if a.features != b.features:
                raise Refused(f"queries have {a.features} features, and keys {b.features}")
            return Scores(a, Value(b.symbol, ("B", "T", "F")))
        one = ("B", "1", "T"), ("B", "F", "T")
        if a.order in one and b.order == ("B", "T", "F") and a.features == 1:
            return Value(self._total(a.symbol * b.symbol, 1, b.features), ("B", "1", "F"))
        one = ("B", "T", "1"), ("B", "T", "F")
        if a.order == ("B", "F", "T") and b.order in one and b.features == 1:
            return Value(self._total(a.symbol * b.symbol, 1, a.features), ("B", "F", "1"))
        for x, row, order in ((a, b, ("B", "T", "F")), (b, a, ("B", "F", "T"))):
            if x.order == order and row.order in (("B", "F", "1"), ("B", "1", "F")):
                over = repeat(row.symbol, like=x.symbol, batch_first=True)
                found = self._total(x.symbol * over, 2, 1)
                return Value(found, ("B", "T", "1") if x is a else ("B", "1", "T"))
        raise Refused(f"a product of {a} and {b} is not known here")

    def _total(self, symbol: Any, axis: int, features: int) -> Any:
        """Return sums over the steps, or over the features, which become one."""
        shape = [features] if axis == 1 else [None, 1]
        return Reduce("sum", axis, axis == 2, [2], shape)._given_symbols(symbol)

    def _attended(self, scores: Scores, value: Value, causal: bool = False) -> Value:
        """Return the means of values, weighted by a softmax of scores."""
        if not scores.shares or value.order != ("B", "T", "F"):
            raise Refused(f"scores of any number of keys meet {value}, expected a softmax of them")
        symbols = (scores.query.symbol, scores.key.symbol, value.symbol)
        made, _ = ScaledDotProduct(scores.scale, batch_first=True, causal=causal)(*symbols)
        return Value(made, ("B", "T", "F"))

    def attention(
        self, query: Any, key: Any, value: Any, attn_mask: Any = None, dropout_p: float = 0.0,
        is_causal: bool = False, scale: float | None = None,
    ) -> Value:  # fmt: skip
        """Attend, perhaps looking back alone."""
        if attn_mask is not None or dropout_p:
            raise Refused("it has a mask or dropout, which is not known here")
        for x in (query, key, value):
            self._expect(_value(x), ("B", "T", "F"))
        scale = query.features**-0.5 if scale is None else scale
        return self._attended(Scores(query, key, scale, True), value, is_causal)

    # Lengths of rows

    def norm(self, x: Any, p: Any = 2, dim: Any = None, keepdim: bool = False) -> Length:
        """Return what the features are divided by that are put to unit length."""
        x = _value(x)
        dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
        if p not in (2, "fro", None) or dim is None or x.order[_axis(x, dim)] != "F":
            raise Refused(f"a norm of order {p} of {x} over dim {dim}, expected 2 of the features")
        return Length(x)

    def vector_norm(self, x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False) -> Length:
        """Return the same by its other name."""
        return self.norm(x, ord, dim, keepdim)

    def normalize(self, input: Any, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Value:
        """Put the features to unit length."""
        found = self.norm(input, p, dim)
        return self.over_length(found.of, Length(found.of, least=eps))

    def over_length(self, x: Value, length: Length) -> Value:
        """Divide the features by their length."""
        if length.of != x:
            raise Refused("it divides by the length of something else")
        steps = "T" in x.order or "P" in x.order
        if steps and not self.first:
            raise Refused(_NEEDS_FIRST.format("division by the length of steps"))
        shape = [None, x.features] if steps else [x.features]
        kind = UnitLength(len(shape), length.least, length.more, [len(shape)], shape)
        return Value(kind._given_symbols(x.symbol), x.order)

    def clamp(self, x: Any, min: Any = None, max: Any = None) -> Any:
        """Return a length that is a number at least."""
        if not isinstance(x, Length) or max is not None or x.more or not isinstance(min, float):
            raise Refused("it clips numbers, which is known here for lengths of rows only")
        return Length(x.of, least=min)

    # Sums

    def alike(self, a: Value, b: Value) -> tuple[Value, Value]:
        """Return values of the same axes, one of them repeated over the steps of the other."""
        a, b = self._without_layers_beside_steps([a, b])
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

    def divide(self, a: Any, b: Any) -> Any:
        """Divide by a number, or by numbers for the features."""
        if isinstance(a, Value) and isinstance(b, Length):
            return self.over_length(a, b)
        if isinstance(a, Value) and isinstance(b, Own):
            return self.with_own("truediv", a, b, False)
        if isinstance(b, bool) or not isinstance(b, (int, float)) or not b:
            raise Refused(f"it divides by {_said(b)}, expected a number other than 0")
        if isinstance(a, Scores):
            return replace(a, scale=a.scale / b)
        a = _value(a)
        return Value(a.symbol * (1 / b), a.order)

    def negative(self, x: Any) -> Value:
        """Return -x."""
        x = _value(x)
        return Value(-x.symbol, x.order)

    # Axes

    def transpose(self, x: Any, dim0: int, dim1: int) -> Value:
        """Exchange two axes."""
        if isinstance(x, Scores):
            raise Refused("scores of any number of keys are turned, which is not known here")
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

    def unsqueeze(self, x: Any, dim: int) -> Any:
        """Add an axis of size 1."""
        if isinstance(x, Length):
            return x
        x = _value(x)
        place = dim if dim >= 0 else dim + len(x.order) + 1
        axis = "1" if "F" in x.order or x.features != 1 else "F"
        order = (*x.order[:place], axis, *x.order[place:])
        return self._as_state(Value(x.symbol, order))

    def _without_layers(self, x: Value) -> Value:
        """Return a state of one layer as (1, B, F), which may be one step as well."""
        if x.order == ("L", "B", "F") and x.symbol.axes.states == 1:
            return Value(x.symbol[0], ("1", "B", "F"))
        return x

    def _without_layers_beside_steps(self, parts: list[Value]) -> list[Value]:
        if all(x.order[0] != "1" for x in parts):
            return parts
        return [self._without_layers(x) for x in parts]

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
        if wanted[0] not in (1, -1):
            x = self._without_layers(x)
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

    def reshape(self, x: Any, *shape: Any) -> Any:
        """Put two axes together, or apart again."""
        return self._reshaped(
            _value(x), list(shape[0] if isinstance(shape[0], (tuple, list)) else shape)
        )

    def _split_into(self, x: Value, wanted: list[Any]) -> Split | None:
        """Return the layers of a state, or features of steps, in parts, if that is asked for."""
        order: Order
        if x.order == ("L", "B", "F"):
            parts, each, rest, order = wanted[0], wanted[1], wanted[2:], ("B", "F")
            total = x.symbol.axes.states
        elif x.order[-1:] == ("F",) and "T" in x.order:
            parts, each, rest, order = wanted[-2], wanted[-1], wanted[:-2], x.order[:-1]
            total = x.features
        else:
            return None
        if not self._fits(x, order, rest) or not isinstance(parts, int) or parts < 1:
            return None
        fits = total % parts == 0 and each in (-1, total // parts)
        return Split(x, parts) if fits and (each != -1 or -1 not in rest) else None

    def _reshaped(self, x: Value, wanted: list[Any]) -> Any:
        if len(wanted) == len(x.order) and self._fits(x, x.order, wanted):
            return x
        if len(wanted) == len(x.order) + 1 and (split := self._split_into(x, wanted)):
            return split
        if len(wanted) < len(x.order) and x.order[-1] == "F":
            merged = (x.order[0] + x.order[1], *x.order[2:])
            if merged[0] in ("BT", "TB") and self._fits(x, merged, wanted):
                return Value(x.symbol, merged)
            if x.order == ("B", "L", "F") and wanted[1] in (-1, self._width(x)):
                return self._flat(x, 1, -1)
        if x.order == ("B", "F", "L") and len(wanted) == 2 and wanted[1] in (-1, self._width(x)):
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
            if x.order == ("B", "F", "L"):  # the layers of each feature beside each other
                count, size = x.symbol.axes.states, x.features
                beside = concat([x.symbol[i] for i in range(count)])
                apart = Reshape((count * size,), (count, size), batch_first=True)(beside)
                turned = Permute((count, size), (2, 1), batch_first=True)(apart)
                made = Reshape((size, count), (count * size,), batch_first=True)(turned)
                return Value(made, ("B", "F"))
            if x.order == ("B", "F"):
                return x
            if sorted(x.order) == ["1", "B", "F"]:
                return Value(x.symbol, ("B", "F"))
        raise Refused(f"{x} flattened from {start_dim} to {end_dim} is not known here")

    # Parts

    def getitem(self, x: Any, key: Any) -> Value:
        """Return layers, features, the first or last step, or with a new axis."""
        if isinstance(x, Split):
            return self._part_of(x, key)
        x = _value(x)
        steps_first = x.order == ("T", "B", "F")
        if key == ((_LAST, _ROWS) if steps_first else (_ROWS, _LAST)) and x.order[2:] == ("F",):
            self._refuse_padding(x)
            return Value(LastStep(batch_first=self.first)(x.symbol), ("B", "F"))
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

    def _part_of(self, x: Split, key: Any) -> Value:
        """Return one of the parts in which layers or features are."""
        keys = list(key) if isinstance(key, tuple) else [key]
        if keys[:1] == [...]:
            keys = [slice(None)] * (len(x.of.order) + 2 - len(keys)) + keys[1:]
        keys += [slice(None)] * (x.place + 1 - len(keys))
        index = keys.pop(x.place)
        if type(index) is not int or len(keys) > len(x.of.order):
            raise Refused(f"{key!r} of {x.of} in {x.parts} parts is not known here")
        return self.getitem(x.part(index), tuple(keys)) if keys else x.part(index)

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
        if axis == "T" and isinstance(key, int):
            return self._step(x, key), []
        if axis == "T" and _is_cut(key):
            return self._without_ends(x, key.start or 0, key.stop or 0), ["T"]
        raise Refused(f"{key!r} of axis {axis} of {x} is not known here{_padding(axis)}")

    def _step(self, x: Value, step: int) -> Any:
        """Return one step, by its number."""
        if not self.first:
            raise Refused(_NEEDS_FIRST.format("a step by its number"))
        kind = Take([step, [None, None, None]], [2], [x.features])
        return kind._given_symbols(x.symbol)

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
        parts = self._without_layers_beside_steps([_value(one) for one in tensors])
        first = parts[0]
        axis = str(first.order[_axis(first, dim)])
        for i, part in enumerate(parts[1:], 1):
            if axis not in "T1":
                _, parts[i] = self.alike(first, part)
        if axis == "L":
            return self.stack([one for part in parts for one in self.unbind(part, dim)])
        if axis in "T1" and first.order.index(axis) == 1 and self.first:
            return self._behind(parts)
        if axis != "F":
            raise Refused(f"{first} behind each other along axis {axis} is not known here")
        return Value(concat([part.symbol for part in parts]), first.order)

    def _behind(self, parts: list[Value]) -> Value:
        """Return steps behind each other, of (B, T, F) and (B, 1, F)."""
        symbols, count = [], 0
        for part in parts:
            if part.order not in (("B", "T", "F"), ("B", "1", "F")):
                raise Refused(f"{part} behind {parts[0]} is not known here")
            size = part.features
            one = Reshape((size,), (1, size), batch_first=True)
            single = not part.symbol.axes.steps
            symbols.append(one(part.symbol) if single else part.symbol)
            count += single
        shape = [count if count == len(parts) else None, parts[0].features]
        made = Join(1, [2] * len(parts), shape)._given_symbols(*symbols)
        return Value(made, ("B", "T", "F"))

    def stack(self, tensors: Any, dim: int = 0) -> Value:
        """Make a state of several layers, or several steps, of as many tensors."""
        parts = [_value(one) for one in tensors]
        if dim == 1 and self.first and all(part.order == ("B", "F") for part in parts):
            return self._behind([replace(part, order=("B", "1", "F")) for part in parts])
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
        """Return the sum over steps, or of parts of features."""
        if isinstance(x, Split):
            return self._sum_of(x, dim)
        x = _value(x)
        place = self._rows(x, dim)
        made = Reduce("sum", 1, False, [2], [x.features])._given_symbols(x.symbol)
        return Value(made, (*x.order[:place], *x.order[place + 1 :]))

    def _sum_of(self, x: Split, dim: Any) -> Value:
        dim = dim[0] if isinstance(dim, (tuple, list)) and len(dim) == 1 else dim
        rank = len(x.of.order) + 1
        if type(dim) is not int or dim % rank != x.place or not x.place:
            raise Refused(f"over dim {dim} of {x.of} in {x.parts} parts is not known here")
        parts = [x.part(i).symbol for i in range(x.parts)]
        return Value(reduce(operator.add, parts), x.of.order)

    def _rows(self, x: Value, dim: Any) -> int:
        """Return which axis is that of the steps, in a model with the batch first."""
        place = self.steps_of(x, dim)
        if not self.first:
            raise Refused(_NEEDS_FIRST.format("over steps"))
        return place

    def softmax(self, x: Any, dim: Any = None, dtype: Any = None, _stacklevel: int = 3) -> Any:
        """Return shares over features, over steps, or over keys."""
        if isinstance(x, Scores):
            if dim not in (-1, 2) or x.shares:
                raise Refused(f"a softmax of scores is over dim {dim}, expected the keys, -1")
            return replace(x, shares=True)
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

    def dropout(self, x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        """Drop in training."""
        if isinstance(x, Scores) and not (training and p):
            return x
        x = _value(x)
        return Value(Dropout(p)(x.symbol), x.order) if training and p else x

    def pack(self, input: Any, batch_first: bool = False) -> Packed:
        """Say that rows end where lengths say."""
        x = _value(input)
        self._expect(x, self._steps(batch_first), self._steps(batch_first, "P"))
        self._refuse_padding(x)
        order = tuple("T" if axis == "P" else axis for axis in x.order)
        return Packed(Value(x.symbol, order))

    def pad(self, sequence: Any, batch_first: bool = False, total_length: Any = None) -> Any:
        """Return y, which is 0 past the ends, and the lengths."""
        if not isinstance(sequence, Packed):
            raise Refused(f"it takes {_said(sequence)}, expected a PackedSequence")
        order = self._steps(batch_first, "P")
        return Value(sequence.value.symbol, order), _OPAQUE

    def zeros_around(
        self, input: Any, pad: Any, mode: str = "constant", value: Any = None
    ) -> Value:
        """Put zeros before and after the steps."""
        x = _value(input)
        place = len(x.order) - 1 - x.order.index("T") if "T" in x.order else -1
        ends = [tuple(pad[i : i + 2]) for i in range(0, len(pad), 2)]
        others = [pair for i, pair in enumerate(ends) if i != place]
        if mode != "constant" or value or place < 0 or any(map(any, others)) or len(ends) <= place:
            raise Refused(f"it pads {x} by {tuple(pad)}, expected zeros around the steps")
        left, right = ends[place]
        return Value(Pad1D(left, right, batch_first=self.first)(x.symbol), x.order)

    def layer_norm(
        self, input: Any, normalized_shape: Any, weight: Any = None, bias: Any = None,
        eps: float = 1e-5,
    ) -> Value:  # fmt: skip
        """Normalise the features, perhaps by tensors of the module itself."""
        x = _value(input)
        fits = tuple(normalized_shape) == (x.features,) and x.order[-1:] == ("F",)
        if not fits or not all(one is None or isinstance(one, Own) for one in (weight, bias)):
            raise Refused(f"it is over {normalized_shape} of {x}, expected the features")
        made = LayerNorm(x.features, eps=eps, elementwise_affine=False, dtype=self.dtype)
        if weight is not None:
            dtype = weight.array.dtype
            made = LayerNorm(x.features, eps=eps, bias=bias is not None, dtype=dtype)
            arrays = {"weight": weight.array} | ({} if bias is None else {"bias": bias.array})
            made.load_state_dict(arrays)
        elif bias is not None:
            raise Refused("it has a bias and no weight, expected both or neither")
        return Value(made(x.symbol), x.order)

    def adaptive_pool(self, kind: Any, input: Any, output_size: Any) -> Value:
        """Pool over all steps."""
        x = _value(input)
        size = output_size[0] if isinstance(output_size, (tuple, list)) else output_size
        if size != 1 or x.order != ("B", "F", "T"):
            raise Refused(f"it makes {output_size} steps of {x}, expected 1 of (B, F, T)")
        return Value(kind(batch_first=self.first)(x.symbol), ("B", "F", "1"))

    def adaptive_mean(self, input: Any, output_size: Any) -> Value:
        """Return the mean of all steps."""
        return self.adaptive_pool(MeanPool, input, output_size)

    def adaptive_max(self, input: Any, output_size: Any, return_indices: bool = False) -> Value:
        """Return the largest of all steps, and no places of them."""
        if return_indices:
            raise Refused("places of the largest are not known here")
        return self.adaptive_pool(MaxPool, input, output_size)

    def _adaptive_mean(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.adaptive_pool(MeanPool, input, theirs.output_size)

    def _adaptive_max(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.adaptive_pool(MaxPool, input, theirs.output_size)

    def _flatten(self, theirs: Any, ours: Any, input: Any) -> Value:
        return self.flatten(input, theirs.start_dim, theirs.end_dim)

    def glu(self, input: Any, dim: int = -1) -> Value:
        """Multiply a half of the features with the sigmoid of the other."""
        x = _value(input)
        if x.order[_axis(x, dim)] != "F" or x.features % 2:
            raise Refused(f"it is of {x} over dim {dim}, expected an even number of features")
        half = x.features // 2
        return Value(x.symbol[..., :half] * Sigmoid()(x.symbol[..., half:]), x.order)


_SHAPES = ("permute", "reshape", "squeeze", "t", "transpose", "unsqueeze", "view")


def _all_own(given: list[Any]) -> bool:
    """Whether the tensors among arguments are of the module itself, and there is one."""
    own = any(isinstance(one, Own) for one in given)
    return own and not any(isinstance(one, (Value, Scores, Length)) for one in given)


def _computed(name: str, target: Any, args: Any, options: Any) -> Own:
    """Return what is computed of tensors of the module itself alone."""
    first = next(one for one in leaves((args, options)) if isinstance(one, Own))
    if name in ("expand", "repeat", "contiguous", "to"):  # over rows, which are not there yet
        return first
    if name == "getattr" and args[1] != "T":
        return getattr(first.tensor, args[1])  # type: ignore[no-any-return]

    def bare(one: Any) -> Any:
        if isinstance(one, (tuple, list)):
            return type(one)(map(bare, one))
        return one.tensor if isinstance(one, Own) else one

    values, named = bare(tuple(args)), {k: bare(v) for k, v in options.items()}
    try:
        with torch.no_grad():
            if isinstance(target, str):
                made = getattr(values[0], target)(*values[1:], **named)
            else:
                made = target(*values, **named)
    except Exception as error:  # it is somebody else's code
        raise Refused(f"{name} of {first.name} fails: {error}") from error
    if not isinstance(made, torch.Tensor):
        raise Refused(f"{name} of {first.name}, a tensor of the module itself, is not known here")
    kept = name in _SHAPES or name == "getattr"
    how = f"{name}{values[1:]}" if len(values) > 1 else name
    return Own(made, f"{how} of {first.name}", first.trained and kept)


def _is_cut(key: Any) -> bool:
    """Whether a slice leaves out some of the first and of the last steps."""
    if not isinstance(key, slice) or key.step not in (None, 1):
        return False
    numbers = all(n is None or type(n) is int for n in (key.start, key.stop))
    return numbers and (key.start or 0) >= 0 and (key.stop is None or key.stop < 0)


def _put_together(kind: str, x: Any, number: float, turned: bool) -> Any:
    if kind == "truediv":
        return x * (1 / number)
    function = getattr(operator, kind)
    return function(number, x) if turned else function(x, number)


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
        if a is FREE and b == 1 and kind == "sub":  # what lengths less 1 are
            return _LAST
        turned = reverse != isinstance(a, Own)
        own = next((one for one in (a, b) if isinstance(one, Own)), None)
        x = next((one for one in (a, b) if isinstance(one, Value)), None)
        if own is not None and x is not None:
            return w.with_own(kind, x, own, turned)
        number = next((one for one in (a, b) if type(one) in (int, float)), None)
        special = next((one for one in (a, b) if isinstance(one, (Scores, Length))), None)
        if isinstance(special, Scores) and kind == "mul" and number is not None:
            return replace(special, scale=special.scale * number)
        if isinstance(special, Length) and kind == "add" and number is not None:
            return replace(special, more=special.more + number)
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
        if isinstance(x, Split) and kind is MeanPool and not keepdim:
            total = w.sum(x, dim)
            return Value(total.symbol * (1 / x.parts), total.order)
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
    nn.TransformerEncoder: Rules._encoder,
    nn.TransformerEncoderLayer: Rules._encoder,
    nn.BatchNorm1d: Rules._batch_norm,
    nn.Conv1d: Rules._convolution,
    nn.PReLU: Rules._prelu,
    nn.AdaptiveAvgPool1d: Rules._adaptive_mean,
    nn.AdaptiveMaxPool1d: Rules._adaptive_max,
    nn.Flatten: Rules._flatten,
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
    "arange": Rules.rows,
    **dict.fromkeys(("matmul", "bmm", "mm"), Rules.matmul),
    "linear": Rules.linear,
    "scaled_dot_product_attention": Rules.attention,
    "norm": Rules.norm,
    **dict.fromkeys(("vector_norm", "linalg_norm", "linalg_vector_norm"), Rules.vector_norm),
    "normalize": Rules.normalize,
    **dict.fromkeys(("clamp", "clamp_min"), Rules.clamp),
    "pad": Rules.zeros_around,
    "glu": Rules.glu,
    "layer_norm": Rules.layer_norm,
    "adaptive_avg_pool1d": Rules.adaptive_mean,
    "adaptive_max_pool1d": Rules.adaptive_max,
    "getattr": Rules.getattr,
    "size": Rules.size,
    **dict.fromkeys(("zeros", "zeros_like", "new_zeros"), Rules.free),
    **dict.fromkeys(("clone", "contiguous", "cpu", "to", "tolist"), Rules.same),
}
