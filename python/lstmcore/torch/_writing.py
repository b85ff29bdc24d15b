"""Networks, and modules that torch.nn lacks, as graphs of PyTorch's functions.

A `torch.fx.GraphModule` is a module like any other: its code can be printed, it trains, exports and
is read again. Inside, sequences are laid out as those of ours are.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from .._base.module import Module
from .._base.symbolic import Axes
from .._base.tree import leaves, rebuilt
from .._files.export_options import check_options, not_written
from .._network import arrays
from .._network.operations import Affine, Binary, Concat, Index, Repeat, Stack
from .._network.plan import Plan, Step
from .._nn.activations import Activation, PReLU
from .._nn.conv import Conv1D
from .._nn.normalization import BatchNorm
from .._nn.time_reversal import Flip
from .._shapes.each_step import EachStep
from .._shapes.rows import Permute, RepeatVector, Reshape
from .._shapes.steps import AvgPool1D, MaxPool1D, Pad1D, UpSample1D
from ..attention import Additive, MultiHead, ScaledDotProduct
from ._functions import FUNCTIONS

__all__ = ["WRITTEN", "write_model", "write_one"]

Convert = Callable[[Module, bool], nn.Module]


def write_model(model: Any, convert: Convert) -> nn.Module:
    """Return a module that runs the graph of a `Model`.

    Parameters
    ----------
    model : Model
    convert : function
        From a module of ours, and whether arrays are (B, T, F), to one of PyTorch.
    """
    plan: Plan = model._plan
    w = _Writer(model.batch_first, convert)
    names = _names(plan.inputs)
    values: dict[int, fx.Node] = {
        slot: w.graph.placeholder(name) for slot, name in enumerate(names)
    }
    paths = {id(child): name for name, child in model._children.items()}
    for step in plan.steps:
        _write_step(w, step, paths.get(id(step.module), ""), plan, values)
    w.graph.output(rebuilt(plan.outputs, (values[slot] for slot in plan.last)))
    return w.module("Model")


def write_one(module: Module, batch_first: bool, convert: Convert) -> nn.Module:
    """Return a module that does what one of `WRITTEN` does."""
    own = getattr(module, "batch_first", None)
    w = _Writer(batch_first if own is None else bool(own), convert)
    count = 1 if module._takes_one_x else 3  # of attention
    given = [w.graph.placeholder(name) for name in ("x", "key", "value")[:count]]
    made = w.call("", module, given, steps=True)
    w.graph.output(made[0] if len(made) == 1 else tuple(made))
    return w.module(type(module).__name__)


def _names(inputs: Any) -> list[str]:
    """Return the names of arguments: x, or x0 and x1, or the keys of a dict."""
    count = len(leaves(inputs))
    if isinstance(inputs, dict) and len(inputs) == count:
        return [str(name) for name in inputs]
    return [f"x{i}" for i in range(count)] if count > 1 else ["x"]


class _Writer:
    """A graph as it grows; `first` is whether arrays with steps are (B, T, F)."""

    def __init__(self, first: bool, convert: Convert) -> None:
        self.graph, self.first, self._convert = fx.Graph(), first, convert
        self._parts: dict[str, Any] = {}
        self.axes: list[Axes] = []  # of what the operation takes that is being written

    def module(self, name: str) -> nn.Module:
        """Return the module of the graph."""
        return fx.GraphModule(self._parts, self.graph, class_name=name)

    def do(self, function: Any, *args: Any, **options: Any) -> fx.Node:
        """Add a call of a function, or of a method by its name."""
        make = self.graph.call_method if isinstance(function, str) else self.graph.call_function
        return make(function, args, options)

    def parameter(self, path: str, array: Any, trainable: bool = True) -> fx.Node:
        """Add a parameter."""
        self._parts[path] = nn.Parameter(torch.from_numpy(array), requires_grad=trainable)
        return self.graph.get_attr(path)

    def buffer(self, path: str, array: Any) -> fx.Node:
        """Add what is stored and not trained."""
        self._parts[path] = torch.from_numpy(array)
        return self.graph.get_attr(path)

    @property
    def time(self) -> int:
        """Return which axis is that of the steps."""
        return int(self.first)

    def rows_first(self, x: fx.Node, swaps: bool = True) -> fx.Node:
        """Return (B, T, ...) of what is laid out as the model has it, or the other way round."""
        return x if self.first or not swaps else self.do(torch.transpose, x, 0, 1)

    def call(
        self, path: str, module: Any, args: Sequence[Any], state: Any = None, steps: bool = True
    ) -> list[fx.Node]:
        """Add a call of a module, and return what it gives."""
        kind = type(module)
        if kind in WRITTEN:
            check_options(module, (*WRITTEN[kind][1], "batch_first"), "PyTorch", path)
            made = WRITTEN[kind][0](self, module, path, *args)
            return list(made) if isinstance(made, tuple) else [made]
        if kind is BatchNorm and module.frozen:
            return [_frozen(self, module, path, *args)]
        causal = kind is Conv1D and module.padding == "causal"
        if path not in self._parts:
            self._parts[path] = self._convert(_unpadded(module) if causal else module, self.first)
        x, *others = args
        turned = kind is Conv1D or (kind in (BatchNorm, PReLU) and steps)  # features are second
        if turned:
            x = self._features(x, second=True)
        if causal:
            x = self.do(functional.pad, x, (module._reach, 0))
        if isinstance(self._parts[path], nn.Identity):
            return [x]
        given = () if state is None else (state,)
        made = self.graph.call_module(path, (x, *others, *given))
        if turned:
            made = self._features(made, second=False)
        return self._taken(module, made)

    def _features(self, x: fx.Node, second: bool) -> fx.Node:
        """Return (B, F, T) of what is laid out as the model has it, or the other way round."""
        order = (0, 2, 1) if self.first else (1, 2, 0) if second else (2, 0, 1)
        return self.do(torch.permute, x, order)

    def _taken(self, module: Any, made: fx.Node) -> list[fx.Node]:
        """Return y, h and c one by one of what a layer gives, or what attention gives."""
        if type(module) is MultiHead:
            return [self.do(operator.getitem, made, i) for i in range(2)]
        parts = len(module._state_parts)
        if not parts:
            return [made]
        if module._gives_state:
            state = self.do(operator.getitem, made, 1)
            made = self.do(operator.getitem, made, 0)
            whole = [self.do(operator.getitem, state, i) for i in range(parts)]
            return [made, *(whole if parts > 1 else [state])]
        return [self.do(operator.getitem, made, i) for i in range(parts)] if parts > 1 else [made]


def _unpadded(conv: Conv1D) -> Module:
    """Return a convolution without the zeros that are put before its steps."""
    made = Conv1D._from_options({**conv._options(), "padding": "valid"})
    made.load_state_dict(conv.state_dict())
    return made


def _write_step(w: _Writer, step: Step, path: str, plan: Plan, values: dict[int, fx.Node]) -> None:
    module = step.module
    xs = [values[slot] for slot in step.xs if slot is not None]
    if type(module) in _OPERATIONS:
        w.axes = [plan.axes[slot] for slot in step.xs if slot is not None]
        values[step.outs[0]] = _OPERATIONS[type(module)](w, module, xs)
        return
    if module._state_parts:
        x, state = values[step.xs[0] or 0], step.args[1] if len(step.args) > 1 else None
        made = w.call(path, module, [x], state=_state(w, module, state, values))
    else:
        slot = step.xs[0]
        timed = slot is not None and plan.axes[slot].steps
        made = w.call(path, module, xs, steps=timed)
    if len(made) != len(step.outs):
        raise ValueError(f"module {path}, {module!r}, which gives several y, is not written")
    values |= zip(step.outs, made, strict=True)


def _state(w: _Writer, module: Any, given: Any, values: dict[int, fx.Node]) -> Any:
    """Return the initial state, in which zeros stand for what is not given."""
    parts = [None if slot is None else values[slot] for slot in leaves(given)]
    known = next((part for part in parts if part is not None), None)
    if known is None:
        return None
    if None in parts and module._config.proj_size:
        raise ValueError(f"{module!r} is given h or c alone, which have other sizes in PyTorch")
    whole = [w.do(torch.zeros_like, known) if part is None else part for part in parts]
    return tuple(whole) if len(whole) > 1 else whole[0]


# Operations ---------------------------------------------------------------------------------------


def _binary(w: _Writer, module: Binary, xs: list[fx.Node]) -> fx.Node:
    kinds = {"add": operator.add, "subtract": operator.sub, "multiply": operator.mul}
    return w.do(kinds[module._config.kind], *xs)


def _affine(w: _Writer, module: Affine, xs: list[fx.Node]) -> fx.Node:
    (x,), (scale, shift) = xs, module._given
    x = w.do(operator.mul, x, scale) if scale != 1 else x
    return w.do(operator.add, x, shift) if shift else x


def _concat(w: _Writer, module: Concat, xs: list[fx.Node]) -> fx.Node:
    return w.do(torch.cat, xs, dim=-1)


def _stack(w: _Writer, module: Stack, xs: list[fx.Node]) -> fx.Node:
    return w.do(torch.stack, xs)


def _index(w: _Writer, module: Index, xs: list[fx.Node]) -> fx.Node:
    kind, *bounds = module._given
    if kind == "new":
        return w.do(torch.unsqueeze, xs[0], 0)
    if kind != "layer" and (bounds[2] or 1) < 0:  # tensors take no such slice
        size = w.axes[0].states if kind == "layers" else w.axes[0].features or 0
        places = list(range(size)[slice(*bounds)])
        return w.do(operator.getitem, xs[0], places if kind == "layers" else (..., places))
    return w.do(operator.getitem, xs[0], module._key)


def _repeat(w: _Writer, module: Repeat, xs: list[fx.Node]) -> fx.Node:
    x, like = xs
    count = w.do("size", like, w.time)
    sizes = (-1, count, -1) if w.first else (count, -1, -1)
    return w.do("expand", w.do(torch.unsqueeze, x, w.time), *sizes)


def _reduce(w: _Writer, module: arrays.Reduce, xs: list[fx.Node]) -> fx.Node:
    kind, axis, keep = module._given[:3]
    function = {"sum": torch.sum, "mean": torch.mean, "max": torch.amax}[kind]
    return w.do(function, xs[0], dim=axis, keepdim=keep)


def _softmax_over(w: _Writer, module: arrays.SoftmaxOver, xs: list[fx.Node]) -> fx.Node:
    return w.do(torch.softmax, xs[0], dim=module._given[0])


def _join(w: _Writer, module: arrays.Join, xs: list[fx.Node]) -> fx.Node:
    return w.do(torch.cat, xs, dim=module._given[0])


def _extreme(w: _Writer, module: arrays.Extreme, xs: list[fx.Node]) -> fx.Node:
    return w.do(getattr(torch, module._given[0]), *xs)


def _take(w: _Writer, module: arrays.Take, xs: list[fx.Node]) -> fx.Node:
    return w.do(operator.getitem, xs[0], module._key)


def _dot(w: _Writer, module: arrays.Dot, xs: list[fx.Node]) -> fx.Node:
    (first, second), ranks = module._given[:2], module._given[-2]
    letters = "bcdefgh"
    left = letters[: ranks[0] + 1]
    right = "b" + letters[ranks[0] + 1 : ranks[0] + ranks[1] + 1]
    right = right[:second] + left[first] + right[second + 1 :]
    kept = [n for n in left[1:] + right[1:] if n != left[first]]
    y = w.do(torch.einsum, f"{left},{right}->b{''.join(kept)}", *xs)
    return y if kept else w.do(torch.unsqueeze, y, 1)


def _unit_length(w: _Writer, module: arrays.UnitLength, xs: list[fx.Node]) -> fx.Node:
    axis, least, more = module._given[:3]
    length = w.do(torch.linalg.vector_norm, xs[0], dim=axis, keepdim=True)
    length = w.do(torch.clamp, length, min=least) if least else length
    length = w.do(operator.add, length, more) if more else length
    return w.do(operator.truediv, xs[0], length)


_OPERATIONS: dict[type[Module], Callable[[_Writer, Any, list[fx.Node]], fx.Node]] = {
    Affine: _affine,
    Binary: _binary,
    Concat: _concat,
    Index: _index,
    Repeat: _repeat,
    Stack: _stack,
    arrays.Dot: _dot,
    arrays.Extreme: _extreme,
    arrays.Join: _join,
    arrays.Reduce: _reduce,
    arrays.SoftmaxOver: _softmax_over,
    arrays.Take: _take,
    arrays.UnitLength: _unit_length,
}


# Modules ------------------------------------------------------------------------------------------


def _permute(w: _Writer, module: Permute, path: str, x: fx.Node) -> fx.Node:
    x = w.rows_first(x, len(module.given) > 1)
    return w.rows_first(w.do(torch.permute, x, (0, *module.order)), len(module.given) > 1)


def _repeat_vector(w: _Writer, module: RepeatVector, path: str, x: fx.Node) -> fx.Node:
    return w.do(torch.repeat_interleave, w.do(torch.unsqueeze, x, w.time), module.steps, dim=w.time)


def _reshape(w: _Writer, module: Reshape, path: str, x: fx.Node) -> fx.Node:
    x = w.rows_first(x, len(module.given) > 1)
    y = w.do(torch.reshape, x, (w.do("size", x, 0), *module.shape))
    return w.rows_first(y, len(module.shape) > 1)


def _pad(w: _Writer, pad: Pad1D, path: str, x: fx.Node) -> fx.Node:
    ends = (0, 0, pad.left, pad.right)
    return w.do(functional.pad, x, ends if w.first else (0, 0, *ends))


def _up_sample(w: _Writer, module: UpSample1D, path: str, x: fx.Node) -> fx.Node:
    return w.do(torch.repeat_interleave, x, module.size, dim=w.time)


def _pool(w: _Writer, pool: Any, path: str, x: fx.Node) -> fx.Node:
    x = w._features(x, second=True)
    most = type(pool) is MaxPool1D
    function = functional.max_pool1d if most else functional.avg_pool1d
    if pool.padding == "valid":
        return w._features(w.do(function, x, pool.size, pool.stride), second=False)
    if pool.stride != 1:
        raise not_written(pool, "padding", "PyTorch", "with a stride other than 1", path)
    ends = ((pool.size - 1) // 2, pool.size // 2)
    y = w.do(functional.pad, x, ends, value=-math.inf if most else 0.0)
    y = w.do(function, y, pool.size, 1)
    if not most:  # of what is there
        there = w.do(functional.pad, w.do(torch.ones_like, x), ends)
        y = w.do(operator.truediv, y, w.do(function, there, pool.size, 1))
    return w._features(y, second=False)


def _flip(w: _Writer, flip: Flip, path: str, x: fx.Node) -> fx.Node:
    return w.do(torch.flip, x, [w.time])


def _each_step(w: _Writer, each: EachStep, path: str, x: fx.Node) -> fx.Node:
    """Write a module for rows that are rows and steps."""
    first = w.first
    y = w.do(torch.flatten, x, 0, 1)
    inner = bool(getattr(each.module, "batch_first", False))
    chain = each.module._chain()
    steps = each.module._knows_time
    w.first = inner
    y = w.rows_first(y, steps)
    for name, part in chain:
        whole = ".".join(filter(None, (path, "module", name)))
        y = w.call(whole, part, [y], steps=steps)[0]
        steps = part._keeps_time and (steps or getattr(part, "_makes_time", False))
    y = w.rows_first(y, steps)
    w.first = first
    sizes = (w.do("size", x, 0), w.do("size", x, 1))
    return w.do(torch.unflatten, y, 0, sizes)


def _activation(w: _Writer, module: Activation, path: str, x: fx.Node) -> fx.Node:
    return w.do(FUNCTIONS[module.name], x)


def _scores(w: _Writer, module: Any, scores: fx.Node, value: fx.Node) -> tuple[fx.Node, fx.Node]:
    """Return what attention gives by its scores (B, T, S), and the weights."""
    if module.causal:
        ahead = w.do(torch.triu, w.do(torch.ones_like, scores), 1)
        scores = w.do(torch.masked_fill, scores, w.do(operator.gt, ahead, 0), -math.inf)
    weights = w.do(torch.softmax, scores, dim=-1)
    return w.rows_first(w.do(torch.matmul, weights, value)), weights


def _additive(w: _Writer, module: Additive, path: str, *given: fx.Node) -> Any:
    query, key, value = map(w.rows_first, given)
    query, key = w.do(torch.unsqueeze, query, 2), w.do(torch.unsqueeze, key, 1)
    bent = w.do(torch.tanh, w.do(operator.add, query, key))
    if not module.scale:
        return _scores(w, module, w.do(torch.sum, bent, dim=-1), value)
    name = ".".join(filter(None, (path, "weight")))
    weight = w.parameter(name, module.state_dict()["weight"])
    return _scores(w, module, w.do(torch.matmul, bent, weight), value)


def _scaled(w: _Writer, module: ScaledDotProduct, path: str, *given: fx.Node) -> Any:
    query, key, value = map(w.rows_first, given)
    turned = w.do(torch.transpose, key, 1, 2)
    scale: Any = module.scale
    if scale is None:
        scale = w.do(operator.pow, w.do("size", query, 2), -0.5)
    return _scores(w, module, w.do(operator.mul, w.do(torch.matmul, query, turned), scale), value)


def _frozen(w: _Writer, norm: BatchNorm, path: str, x: fx.Node) -> fx.Node:
    """Write a norm by statistics that do not change, in training either."""
    check_options(norm, (*_NORM, "batch_first"), "PyTorch", path)
    state, trained = norm.state_dict(), dict(norm.named_parameters())
    names = {name: ".".join(filter(None, (path, name))) for name in state}
    mean = w.buffer(names["running_mean"], state["running_mean"])
    variance = w.buffer(names["running_var"], state["running_var"])
    scale = w.do(torch.rsqrt, w.do(operator.add, variance, norm.eps) if norm.eps else variance)
    y = w.do(operator.mul, w.do(operator.sub, x, mean), scale)
    for name, function in (("weight", operator.mul), ("bias", operator.add)):
        if name in trained:
            one = w.parameter(names[name], state[name], trained[name].trainable)
            y = w.do(function, y, one)
    return y


_NORM = ("num_features", "eps", "momentum", "affine", "frozen", "dtype")

# How each is written, and which of its options.
WRITTEN: dict[type[Module], tuple[Callable[..., Any], tuple[str, ...]]] = {
    Activation: (_activation, ("name",)),
    Additive: (_additive, ("size", "scale", "causal", "dtype")),
    AvgPool1D: (_pool, ("size", "stride", "padding")),
    EachStep: (_each_step, ("module",)),
    Flip: (_flip, ()),
    MaxPool1D: (_pool, ("size", "stride", "padding")),
    Pad1D: (_pad, ("left", "right")),
    Permute: (_permute, ("given", "order")),
    RepeatVector: (_repeat_vector, ("steps",)),
    Reshape: (_reshape, ("given", "shape")),
    ScaledDotProduct: (_scaled, ("scale", "causal")),
    UpSample1D: (_up_sample, ("size",)),
}
