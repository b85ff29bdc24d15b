"""What operations of the core a node becomes, once the shapes of its inputs are known.

A rule is given a `Call` and returns the value that it makes, or raises `NoRule`: then NumPy
computes the node, as it does where shapes are new.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from .._model import Node, Tensor
from ..operators._joined import Joined, Product
from ..operators._products import Convolution, Spread, Windows
from ._recording import Recorder, Value

__all__ = ["Call", "NoRule", "rule_of"]


class NoRule(Exception):
    """What operations of the core do not compute."""


class Call:
    """A node that has run, with its inputs and what it made of them."""

    def __init__(
        self,
        recorder: Recorder,
        node: Node,
        run: Any,
        value: Callable[[str], Value | None],
        made: Tensor,
    ) -> None:
        self.recorder, self.node, self.run, self.made = recorder, node, run, made
        self._value = value

    def get(self, i: int) -> Value | None:
        """Return an input of the node, None if it was left out."""
        return self._value(self.node.inputs[i]) if i < len(self.node.inputs) else None

    def real(self, i: int) -> Value:
        """Return an input of the type of the output."""
        x = self.get(i)
        if x is None or type(x.array) is not np.ndarray or x.array.dtype != self.made.dtype:
            raise NoRule
        return x

    def fixed(self, i: int) -> Tensor | None:
        """Return an input that is a constant, None if it was left out."""
        x = self.get(i)
        if x is None:
            return None
        if not x.fixed:
            raise NoRule
        found: Tensor = x.array
        return found

    def scalar(self, number: float) -> Value:
        """Return a constant of the type of the output."""
        return self.recorder.constant(np.array(number, self.made.dtype))

    def output(self, *after: Value) -> Value:
        """Return the array for the output, which needs these values."""
        return self.recorder.new(self.made, *after)

    def room(self, shape: Sequence[int], *after: Value) -> Value:
        """Return an array for what comes between."""
        if math.prod(shape) * self.made.itemsize > 2**26:
            raise NoRule
        return self.recorder.new(tuple(shape), *after, dtype=self.made.dtype)

    def said(self, name: str, default: Any) -> Any:
        """Return an attribute."""
        return self.node.attributes.get(name, default)


Rule: TypeAlias = Callable[[Call], Value]
_RULES: dict[str, Rule] = {}


def rule_of(step: Joined) -> Rule | None:
    """Return the rule for what runs some nodes, if there is one."""
    if isinstance(step.run, Product):
        return _linear
    return None if step.node.domain else _RULES.get(step.node.op)


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# Of single numbers --------------------------------------------------------------------------------


def _mapped(op: str) -> Rule:
    """Return a rule for a function of some inputs, taken two by two."""

    def rule(call: Call) -> Value:
        given = [call.real(i) for i in range(len(call.node.inputs))]
        y = call.output(*given)
        before = given[0]
        if len(given) == 1 and op not in _OF_ONE.values():
            call.recorder.apply("copy", y, before)
        elif len(given) == 1:
            call.recorder.apply(op, y, before)
        for x in given[1:]:
            call.recorder.apply(op, y, before, x)
            before = y
        return y

    return rule


_OF_ONE = {"Abs": "absolute", "Neg": "negative", "Reciprocal": "reciprocal", "Sqrt": "root"}
_OF_TWO = {"Add": "add", "Div": "divide", "Max": "maximum", "Min": "minimum", "Mul": "multiply",
           "Sub": "subtract", "Sum": "add"}  # fmt: skip
_RULES.update({name: _mapped(op) for name, op in (_OF_ONE | _OF_TWO).items()})


@_rule("Pow")
def _power(call: Call) -> Value:
    """Only those that need no logarithm."""
    x, exponent = call.real(0), call.fixed(1)
    if exponent is None or exponent.size != 1 or exponent.item() not in (0.5, 1, 2):
        raise NoRule
    y = call.output(x)
    if exponent.item() == 2:
        call.recorder.apply("multiply", y, x, x)
    else:
        call.recorder.apply("root" if exponent.item() == 0.5 else "copy", y, x)
    return y


@_rule("Clip")
def _clip(call: Call) -> Value:
    x = call.real(0)
    if call.node.opset < 11:
        limits = [call.said(name, None) for name in ("min", "max")]
        low, high = (None if limit is None else call.scalar(limit) for limit in limits)
    else:
        low, high = (None if call.get(i) is None else call.real(i) for i in (1, 2))
    y = call.output(*filter(None, (x, low, high)))
    if low is None:
        call.recorder.apply("copy", y, x)
    else:
        call.recorder.apply("maximum", y, x, low)
    if high is not None:
        call.recorder.apply("minimum", y, y, high)
    return y


_FUNCTIONS: dict[str, Callable[[Call], tuple[str, float, float]]] = {
    "Elu": lambda call: ("elu", call.said("alpha", 1.0), 1.0),
    "Gelu": lambda call: ("gelu", 1.0, 1.0),
    "HardSigmoid": lambda call: (
        "hard_sigmoid", call.said("alpha", 0.2), call.said("beta", 0.5)
    ),
    "HardSwish": lambda call: ("hard_silu", 1.0, 1.0),
    "LeakyRelu": lambda call: ("leaky_relu", call.said("alpha", 0.01), 1.0),
    "Mish": lambda call: ("mish", 1.0, 1.0),
    "Relu": lambda call: ("relu", 1.0, 1.0),
    "Sigmoid": lambda call: ("sigmoid", 1.0, 1.0),
    "Softplus": lambda call: ("softplus", 1.0, 1.0),
    "Softsign": lambda call: ("softsign", 1.0, 1.0),
    "Swish": lambda call: ("silu", 1.0, 1.0),
    "Tanh": lambda call: ("tanh", 1.0, 1.0),
    "ThresholdedRelu": lambda call: ("thresholded_relu", call.said("alpha", 1.0), 1.0),
}  # fmt: skip


@_rule(*_FUNCTIONS)
def _function(call: Call) -> Value:
    f = _FUNCTIONS[call.node.op](call)
    other = call.said("approximate", "none") != "none"
    if f[1] < 0 or other or (f[0] == "silu" and call.said("alpha", 1.0) != 1):
        raise NoRule
    x = call.recorder.dense(call.real(0))
    y = call.output(x)
    call.recorder.rows("activate", y, [x.array.size], x, f=f)
    return y


# Products -----------------------------------------------------------------------------------------


def _linear(call: Call) -> Value:
    x = call.recorder.dense(call.real(0))
    y = call.output(x)
    inputs, outputs = x.array.shape[-1], y.array.shape[-1]
    shape = [x.array.size // inputs, inputs, outputs]
    call.recorder.rows("linear", y, shape, x, linear=call.run.core)
    return y


def _product(call: Call, a: Value, b: Value, start: Value) -> Value:
    if min(a.array.ndim, b.array.ndim) < 2:
        raise NoRule
    y = call.output(a, b, start)
    call.recorder.apply("copy", y, start)
    call.recorder.multiply(y, a, b)
    return y


@_rule("MatMul")
def _matmul(call: Call) -> Value:
    return _product(call, call.real(0), call.real(1), call.scalar(0))


@_rule("Gemm")
def _gemm(call: Call) -> Value:
    if call.said("alpha", 1) != 1 or call.said("beta", 1) != 1:
        raise NoRule
    a, b = call.real(0), call.real(1)
    a = a.part(a.array.T) if call.said("transA", 0) else a
    b = b.part(b.array.T) if call.said("transB", 0) else b
    return _product(call, a, b, call.scalar(0) if call.get(2) is None else call.real(2))


# Convolutions and pooling -------------------------------------------------------------------------


def _around(call: Call, x: Value, windows: Windows, filler: float) -> Value:
    """Return what stands around each place, (B, C, places ..., kernel ...), a view."""
    padded = call.recorder.dense(x)
    if windows.wide != x.array.shape:
        padded = call.room(windows.wide, x)
        call.recorder.apply("fill", padded, value=filler)
        call.recorder.apply("copy", padded.part(padded.array[windows.inside]), x)
    return padded.part(windows.over(padded.array))


@_rule("Conv")
def _conv(call: Call) -> Value:
    x, run = call.real(0), call.run
    if not isinstance(run, Convolution) or run.weights.dtype != call.made.dtype:
        raise NoRule
    dims = x.array.ndim - 2
    batch, group, features = len(x.array), run.group, run.weights.shape[2]
    count = math.prod(call.made.shape[2:])
    around = _around(call, x, run.windows(x.array.shape), 0.0)
    if count == 1 and run.packed is not None:
        rows = call.recorder.dense(around)
        y = call.output(rows)
        shape = [batch, run.weights.shape[1], features]
        call.recorder.rows("linear", y, shape, rows, linear=run.packed)
        return y
    # (B, C, kernel ..., places ...)
    order = (0, 1, *range(2 + dims, 2 + 2 * dims), *range(2, 2 + dims))
    turned = around.part(around.array.transpose(order))
    if around.array.shape[2 + dims :] == (1,) * dims and turned.array.flags.c_contiguous:
        columns = turned
    else:
        columns = call.room(turned.array.shape, x)
        call.recorder.apply("copy", columns, turned)
    y = call.output(columns)
    bias = call.scalar(0)
    if run.bias is not None:
        bias = call.recorder.constant(run.bias.reshape(-1, *[1] * dims))
    call.recorder.apply("copy", y, bias)
    weights = call.recorder.constant(run.weights)
    call.recorder.multiply(
        y.part(y.array.reshape(batch, group, features, count)),
        weights.part(weights.array.swapaxes(1, 2)),
        columns.part(columns.array.reshape(batch, group, -1, count)),
    )
    return y


@_rule("ConvTranspose")
def _conv_transpose(call: Call) -> Value:
    x, w, b = call.recorder.dense(call.real(0)), call.fixed(1), call.fixed(2)
    if w is None or w.dtype != call.made.dtype:
        raise NoRule
    at = Spread(x.array.shape, w.shape, **call.node.attributes)
    group, count = at.group, math.prod(x.array.shape[2:])
    columns = call.room((len(x.array), at.features, *w.shape[2:], *x.array.shape[2:]), x)
    call.recorder.apply("fill", columns)
    weights = call.recorder.constant(np.ascontiguousarray(w.reshape(group, len(w) // group, -1)))
    call.recorder.multiply(
        columns.part(columns.array.reshape(len(x.array), group, -1, count)),
        weights.part(weights.array.swapaxes(1, 2)),
        x.part(x.array.reshape(len(x.array), group, len(w) // group, count)),
    )
    sums = call.room((len(x.array), at.features, *at.whole), x)
    bias = call.scalar(0)
    if b is not None:
        bias = call.recorder.constant(b.reshape(-1, *[1] * (x.array.ndim - 2)))
    call.recorder.apply("copy", sums, bias)
    for offset, where in at.places():
        target = sums.part(sums.array[where])
        column = columns.part(columns.array[(slice(None), slice(None), *offset)])
        call.recorder.apply("add", target, target, column)
    return sums.part(sums.array[at.kept])


@_rule("MaxPool")
def _max_pool(call: Call) -> Value:
    x = call.real(0)
    wanted = ("auto_pad", "dilations", "pads", "strides")
    said: Any = {name: call.said(name, None) for name in wanted if call.said(name, None)}
    ceil = bool(call.said("ceil_mode", 0))
    at = Windows(x.array.shape, call.said("kernel_shape", None), **said, ceil=ceil)
    around = _around(call, x, at, -math.inf)
    inside = tuple(slice(n) for n in call.made.shape)
    y = call.output(around)
    call.recorder.apply("fill", y, value=-math.inf)
    axes = range(x.array.ndim, around.array.ndim)
    call.recorder.reduce("greatest", y, around.part(around.array[inside]), axes)
    return y


# Reductions, softmax and normalisations -----------------------------------------------------------


def _reduced(call: Call, op: str, x: Value, axes: Sequence[int]) -> Value:
    y = call.output(x)
    start = {"sum": 0.0, "greatest": -math.inf, "least": math.inf}
    call.recorder.apply("fill", y, value=start[op])
    kept = [n for axis, n in enumerate(x.array.shape) if axis not in axes]
    call.recorder.reduce(op, y.part(y.array.reshape(kept)), x, axes)
    return y


_REDUCTIONS = {"ReduceL2": "sum", "ReduceMax": "greatest", "ReduceMean": "sum",
               "ReduceMin": "least", "ReduceSum": "sum", "ReduceSumSquare": "sum"}  # fmt: skip


@_rule(*_REDUCTIONS)
def _reduce(call: Call) -> Value:
    x, name = call.real(0), call.node.op
    given = call.fixed(1)
    asked = call.said("axes", None) if given is None else given.reshape(-1).tolist()
    if not asked and call.said("noop_with_empty_axes", 0):
        raise NoRule
    axes = sorted({axis % x.array.ndim for axis in asked or range(x.array.ndim)})
    if name in ("ReduceL2", "ReduceSumSquare"):
        squares = call.room(x.array.shape, x)
        call.recorder.apply("multiply", squares, x, x)
        x = squares
    y = _reduced(call, _REDUCTIONS[name], x, axes)
    if name == "ReduceMean":
        call.recorder.apply("divide", y, y, call.scalar(x.array.size // call.made.size))
    elif name == "ReduceL2":
        call.recorder.apply("root", y, y)
    return y


@_rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call) -> Value:
    x = call.real(0)
    mean = call.node.op == "GlobalAveragePool"
    y = _reduced(call, "sum" if mean else "greatest", x, range(2, x.array.ndim))
    if mean:
        call.recorder.apply("divide", y, y, call.scalar(x.array.size // call.made.size))
    return y


@_rule("Softmax")
def _softmax(call: Call) -> Value:
    x, old = call.real(0), call.node.opset < 13
    ndim = x.array.ndim
    axis = call.said("axis", 1 if old else -1) % ndim
    if old or axis == ndim - 1:
        x = call.recorder.dense(x)
        classes = math.prod(x.array.shape[axis:])
        y = call.output(x)
        call.recorder.rows("softmax", y, [x.array.size // classes, classes], x)
        return y
    order = [*(i for i in range(ndim) if i != axis), axis]
    x = call.recorder.dense(x.part(x.array.transpose(order)))
    turned = call.room(x.array.shape, x)
    call.recorder.rows("softmax", turned, [x.array.size // x.array.shape[-1], x.array.shape[-1]], x)
    return turned.part(turned.array.transpose(np.argsort(order)))


@_rule("LayerNormalization")
def _layer_norm(call: Call) -> Value:
    x, scale = call.recorder.dense(call.real(0)), call.recorder.dense(call.real(1))
    bias = None if call.get(2) is None else call.recorder.dense(call.real(2))
    axis = call.said("axis", -1) % x.array.ndim
    shape = x.array.shape[axis:]
    if any(call.node.outputs[1:]) or any(b and b.array.shape != shape for b in (scale, bias)):
        raise NoRule
    y = call.output(*filter(None, (x, scale, bias)))
    rows = [x.array.size // scale.array.size, scale.array.size]
    call.recorder.rows("layer_norm", y, rows, x, scale, bias, value=call.said("epsilon", 1e-5))
    return y


@_rule("BatchNormalization")
def _batch_norm(call: Call) -> Value:
    x, parts = call.real(0), [call.fixed(i) for i in range(1, 5)]
    if any(part is None or part.dtype != call.made.dtype for part in parts):
        raise NoRule
    if any(call.node.outputs[1:]) or not call.said("spatial", 1):
        raise NoRule
    spread = [part.reshape(-1, *[1] * (x.array.ndim - 2)) for part in parts]  # type: ignore[union-attr]
    scale, bias, mean, variance = spread
    scale = scale / np.sqrt(variance + variance.dtype.type(call.said("epsilon", 1e-5)))
    y = call.output(x)
    for op, before, part in (("subtract", x, mean), ("multiply", y, scale), ("add", y, bias)):
        call.recorder.apply(op, y, before, call.recorder.constant(part))
    return y


# Parts and wholes ---------------------------------------------------------------------------------


@_rule("Concat")
def _concat(call: Call) -> Value:
    parts = [call.real(i) for i in range(len(call.node.inputs))]
    y = call.output(*parts)
    turned, end = np.moveaxis(y.array, call.node.attributes["axis"], 0), 0
    for part in parts:
        x = np.moveaxis(part.array, call.node.attributes["axis"], 0)
        call.recorder.apply("copy", y.part(turned[end : end + len(x)]), part.part(x))
        end += len(x)
    return y


@_rule("Tile")
def _tile(call: Call) -> Value:
    x, times = call.real(0), call.fixed(1)
    if times is None:
        raise NoRule
    y = call.output(x)
    pairs = [n for pair in zip(times.tolist(), x.array.shape, strict=True) for n in pair]
    ones = [n for size in x.array.shape for n in (1, size)]
    call.recorder.apply("copy", y.part(y.array.reshape(pairs)), x.part(x.array.reshape(ones)))
    return y


@_rule("Expand")
def _expand(call: Call) -> Value:
    x = call.real(0)
    y = call.output(x)
    call.recorder.apply("copy", y, x)
    return y


@_rule("Pad")
def _pad(call: Call) -> Value:
    """With a number, or one axis that is reflected."""
    x, mode = call.real(0), call.said("mode", "constant")
    if call.node.opset < 11:
        pads, value = np.array(call.said("pads", None)), call.said("value", 0.0)
    else:
        given, filler = call.fixed(1), call.fixed(2)
        if given is None or call.get(3) is not None:
            raise NoRule
        pads, value = given, 0.0 if filler is None else filler.item()
    around = pads.reshape(2, -1).T.tolist()
    wide = [axis for axis, pad in enumerate(around) if any(pad)]
    if pads.min() < 0 or (mode != "constant" and (mode != "reflect" or len(wide) != 1)):
        raise NoRule
    y = call.output(x)
    sides = zip(x.array.shape, around, strict=True)
    inside = tuple(slice(before, before + n) for n, (before, _) in sides)
    if mode == "constant":
        call.recorder.apply("fill", y, value=value)
        call.recorder.apply("copy", y.part(y.array[inside]), x)
        return y
    (axis,) = wide
    (before, after), n = around[axis], x.array.shape[axis]
    if max(before, after) >= n:
        raise NoRule
    call.recorder.apply("copy", y.part(y.array[inside]), x)
    to, source = np.moveaxis(y.array, axis, 0), np.moveaxis(x.array, axis, 0)
    for target, part in (
        (to[:before], source[1 : before + 1][::-1]),
        (to[before + n :], source[n - 1 - after : n - 1][::-1]),
    ):
        if len(target):
            call.recorder.apply("copy", y.part(target), x.part(part))
    return y


@_rule("ScatterND")
def _scatter(call: Call) -> Value:
    """Into places one behind the other of the first axis."""
    x, at, updates = call.real(0), call.fixed(1), call.real(2)
    if at is None or at.shape != (len(at), 1) or call.said("reduction", "none") != "none":
        raise NoRule
    first = at[0, 0] % len(x.array)
    if not np.array_equal(at[:, 0] % len(x.array), np.arange(first, first + len(at))):
        raise NoRule
    y = call.output(x, updates)
    call.recorder.apply("copy", y, x)
    call.recorder.apply("copy", y.part(y.array[first : first + len(at)]), updates)
    return y
