"""Graphs whose nodes are what modules of ours compute: they become a Sequential or a Model.

ONNX does not say which axis is what, so both layouts are tried: time first, and the batch first.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._base.module import Module
from .._network.arrays import Reduce, SoftmaxOver
from .._network.operations import Affine, Index, Stack
from .._network.symbol import concat, repeat
from .._nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    Softmax,
    Softplus,
    Tanh,
)
from .._nn.conv import Conv1D
from .._nn.embedding import Embedding
from .._nn.linear import Linear
from .._nn.normalization import BatchNorm, LayerNorm
from .._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from .._nn.time_reversal import Flip
from .._shapes.rows import Permute, RepeatVector, Reshape
from .._shapes.steps import AvgPool1D, MaxPool1D, Pad1D
from . import _recurrent
from ._facts import END, axes_of, bounds_of, product_of, turns
from ._model import Model, Node
from ._nodes import Axed, Nodes, Unlike, loaded
from .operators import FAILURES

__all__ = ["as_module"]

_MOST = 1000  # nodes; those between modules are few


def as_module(model: Model) -> Module | None:
    """Return the Sequential or Model that a simplified model is, or None."""
    if len(model.nodes) > _MOST or not any(map(_recurrent.is_recurrent, model.nodes)):
        return None
    made: dict[str, Any] = {}
    for first in (False, True):
        try:
            return Nodes(model, first, made, _RULES).whole()
        except (Unlike, *FAILURES):  # what does not fit is refused by the graph, by name
            continue
    return None


_Rule: TypeAlias = Callable[[Nodes, Node], "Axed | list[Axed]"]
_RULES: dict[str, _Rule] = {}


def _rule(*names: str) -> Callable[[_Rule], _Rule]:
    def register(rule: _Rule) -> _Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


# Modules with parameters --------------------------------------------------------------------------


@_rule("MatMul")
def _matmul(nodes: Nodes, node: Node) -> Axed:
    if nodes.is_value(node, 1):
        return _weighted(nodes, nodes.value(node), nodes.value(node, 1))
    weight = nodes.constant(node, 1)
    bias = nodes.bias_after(node, weight.shape[-1]) if weight.ndim == 2 else None
    y = _linear(nodes, node, weight.T, (node.inputs[1], bias))
    if bias is not None:
        nodes.keep_past(node, y)
    return y


@_rule("Gemm")
def _gemm(nodes: Nodes, node: Node) -> Axed:
    said, weight = node.attributes, nodes.constant(node, 1)
    plain = said.get("alpha", 1.0) == 1 and said.get("beta", 1.0) == 1
    if said.get("transA") or not plain or len(nodes.value(node).axes) != 2:
        raise Unlike
    weight = weight if said.get("transB") else weight.T
    bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] else None
    if bias and nodes.constants[bias].shape not in ((len(weight),), (1, len(weight))):
        raise Unlike
    return _linear(nodes, node, weight, (node.inputs[1], bias))


def _linear(nodes: Nodes, node: Node, weight: Any, names: tuple[str, str | None]) -> Axed:
    x, bias = nodes.value(node), names[1]
    if x.axes[-1:] != "F" or weight.ndim != 2 or 0 in weight.shape:
        raise Unlike
    arrays = {"weight": weight}
    if bias is not None:
        arrays["bias"] = nodes.constants[bias].reshape(-1)
    if any(array.dtype != weight.dtype for array in arrays.values()):
        raise Unlike
    out, size = weight.shape

    def make() -> Module:
        return loaded(Linear(size, out, bias=bias is not None, dtype=weight.dtype), **arrays)

    return x._replace(symbol=nodes.shared(node, names, make)(x.symbol))


def _embedding(nodes: Nodes, node: Node) -> Axed:
    table, ids = nodes.constant(node, 0), nodes.value(node, 1)
    if node.attributes.get("axis", 0) or table.ndim != 2 or "F" in ids.axes:
        raise Unlike
    count, size = table.shape

    def make() -> Module:
        return loaded(Embedding(count, size, dtype=table.dtype), weight=table)

    symbol = nodes.shared(node, node.inputs[:1], make)(ids.symbol)
    return ids._replace(symbol=symbol, axes=ids.axes + "F")


@_rule("LayerNormalization")
def _layer_norm(nodes: Nodes, node: Node) -> Axed:
    x, said, names = nodes.value(node), node.attributes, node.inputs[1:]
    arrays = dict(zip(("weight", "bias"), (nodes.constants[n] for n in names if n), strict=False))
    scale, bias = arrays["weight"], "bias" in arrays
    last = said.get("axis", -1) in (-1, len(x.axes) - 1)
    if x.axes[-1:] != "F" or scale.ndim != 1 or not last or said.get("stash_type", 1) != 1:
        raise Unlike

    def make() -> Module:
        eps = said.get("epsilon", 1e-5)
        return loaded(LayerNorm(len(scale), eps=eps, bias=bias, dtype=scale.dtype), **arrays)

    return x._replace(symbol=nodes.shared(node, names, make)(x.symbol))


@_rule("BatchNormalization")
def _batch_norm(nodes: Nodes, node: Node) -> Axed:
    x, said = nodes.value(node), node.attributes
    given = [nodes.constant(node, place) for place in range(1, 5)]
    known = x.axes in ("BF", "NF", "MF", "BFT")
    if not known or said.get("training_mode") or not said.get("spatial", 1):
        raise Unlike
    arrays = dict(zip(("weight", "bias", "running_mean", "running_var"), given, strict=True))

    def make() -> Module:
        size, eps = len(given[0]), said.get("epsilon", 1e-5)
        module = BatchNorm(size, eps=eps, batch_first=nodes.first, dtype=given[0].dtype)
        return loaded(module, **arrays, num_batches_tracked=np.array(0))

    names = (*node.inputs[1:], str(nodes.first))
    return x._replace(symbol=nodes.shared(node, names, make)(x.symbol))


@_rule("Conv")
def _conv(nodes: Nodes, node: Node) -> Axed:
    x, said, names = nodes.value(node), node.attributes, node.inputs[1:]
    arrays = dict(zip(("weight", "bias"), (nodes.constants[n] for n in names if n), strict=False))
    weight = arrays["weight"]
    if x.axes != "BFT" or weight.ndim != 3:
        raise Unlike
    out, size, kernel = weight.shape
    groups = said.get("group", 1)
    (stride,), (dilation,) = said.get("strides", [1]), said.get("dilations", [1])
    left, right = _window(said, reach := dilation * (kernel - 1), stride)
    paddings: dict[tuple[int, int], str | int] = {(0, 0): "valid", (reach, 0): "causal"}
    if stride == 1:
        paddings.setdefault((reach // 2, reach - reach // 2), "same")
    if left == right >= 0:
        paddings.setdefault((left, right), left)
    padding = paddings.get((left, right))
    symbol = (
        x.symbol if padding is not None else Pad1D(left, right, batch_first=nodes.first)(x.symbol)
    )

    def make() -> Module:
        module = Conv1D(
            size * groups, out, kernel, stride, "valid" if padding is None else padding, dilation,
            "bias" in arrays, batch_first=nodes.first, dtype=weight.dtype, groups=groups,
        )  # fmt: skip
        return loaded(module, **arrays)

    return x._replace(symbol=nodes.shared(node, (*names, str(nodes.first)), make)(symbol))


def _window(said: Mapping[str, Any], reach: int, stride: int) -> tuple[int, int]:
    """Return how many zeros stand before and after the steps that windows go over."""
    how = said.get("auto_pad", "NOTSET")
    if how == "SAME_UPPER" and stride == 1:
        return reach // 2, reach - reach // 2
    if how not in ("NOTSET", "VALID"):
        raise Unlike
    left, right = said.get("pads", [0, 0])
    return left, right


# Functions of every number ------------------------------------------------------------------------


_ACTIVATIONS: dict[str, Callable[[Mapping[str, Any]], Module]] = {
    "Relu": lambda said: ReLU(),
    "Tanh": lambda said: Tanh(),
    "Sigmoid": lambda said: Sigmoid(),
    "Softplus": lambda said: Softplus(threshold=1e30),
    "Elu": lambda said: ELU(said.get("alpha", 1.0)),
    "LeakyRelu": lambda said: LeakyReLU(said.get("alpha", 0.01)),
    "Gelu": lambda said: GELU(said.get("approximate", "none")),
    "HardSigmoid": lambda said: _of_sixths(said, "hard_sigmoid"),
    "HardSwish": lambda said: Activation("hard_silu"),
    "Mish": lambda said: Activation("mish"),
    "Selu": lambda said: _selu(said),
    "Softsign": lambda said: Activation("softsign"),
    "Exp": lambda said: Activation("exponential"),
    "Abs": lambda said: Activation("absolute"),
}


@_rule("PRelu")
def _prelu(nodes: Nodes, node: Node) -> Axed:
    """Slopes meet x from its last axis on."""
    x, slopes = nodes.value(node), nodes.constant(node, 1)
    place = x.axes.find("F") - len(x.axes)
    each = slopes.ndim >= -place and slopes.shape[place] == slopes.size == x.features
    if slopes.dtype.kind != "f" or "D" in x.axes or not (slopes.size == 1 or each):
        raise Unlike

    def make() -> Module:
        return loaded(PReLU(slopes.size, dtype=slopes.dtype), weight=slopes.reshape(-1))

    return x._replace(symbol=nodes.shared(node, node.inputs[1:2], make)(x.symbol))


def _of_sixths(said: Mapping[str, Any], name: str) -> Module:
    if not np.allclose((said.get("alpha", 0.2), said.get("beta", 0.5)), (1 / 6, 0.5), 1e-6):
        raise Unlike
    return Activation(name)


def _selu(said: Mapping[str, Any]) -> Module:
    usual = (1.6732632423543772, 1.0507009873554805)
    given = said.get("alpha", usual[0]), said.get("gamma", usual[1])
    if not np.allclose(given, usual, 1e-6):
        raise Unlike
    return Activation("selu")


@_rule(*_ACTIVATIONS)
def _activation(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    return x._replace(symbol=_ACTIVATIONS[node.op](dict(node.attributes))(x.symbol))


class _Share(NamedTuple):
    """What erf of x / sqrt(2), or 1 more, stands for on the way to GELU: no value of a network."""

    of: Any
    more: int


@_rule("Erf")
def _erf(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    scaled = _scale_of(x.symbol)
    if scaled is None or not np.isclose(scaled[1], 0.5**0.5, 1e-6):
        raise Unlike
    return x._replace(symbol=_Share(scaled[0], 0))


def _scale_of(symbol: Any) -> tuple[Any, float] | None:
    """Return what was multiplied by a number, and that."""
    call = symbol.call
    if call is None or type(call.module) is not Affine or call.module._given[1]:
        return None
    return call.args[0], call.module._given[0]


def _times_share(x: Any, share: _Share) -> Any:
    """Return GELU of x for x, or a half of it, times 1 + erf(x / sqrt(2))."""
    scaled = (x, 1.0) if x is share.of else _scale_of(x)
    if share.more != 1 or scaled is None or scaled[0] is not share.of:
        raise Unlike
    return GELU()(share.of) * (2 * scaled[1]) if scaled[1] != 0.5 else GELU()(share.of)


@_rule("Clip")
def _clip(nodes: Nodes, node: Node) -> Axed:
    said = node.attributes
    bounds = [nodes.constants[name] for name in node.inputs[1:]] or [said["min"], said["max"]]
    if list(map(float, bounds)) != [0, 6]:
        raise Unlike
    x = nodes.value(node)
    return x._replace(symbol=Activation("relu6")(x.symbol))


@_rule("Softmax", "LogSoftmax")
def _softmax(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    axis = node.attributes.get("axis", -1 if node.opset >= 13 else 1)
    over = x.axes[axis]
    if node.opset < 13 and axis not in (-1, len(x.axes) - 1):
        raise Unlike
    if over == "F" and "D" not in x.axes:
        kind = Softmax if node.op == "Softmax" else LogSoftmax
        return x._replace(symbol=kind()(x.symbol))
    if over != "T" or not nodes.first or node.op != "Softmax":
        raise Unlike
    made = SoftmaxOver(1, [2], [None, x.features])._given_symbols(x.symbol)
    return x._replace(symbol=made)


@_rule("Identity", "Dropout")
def _same(nodes: Nodes, node: Node) -> Axed:
    if len(node.inputs) > 2:
        raise Unlike
    return nodes.value(node)


@_rule("Cast")
def _cast(nodes: Nodes, node: Node) -> Axed:
    """Ids in another type of whole numbers."""
    x = nodes.value(node)
    if "F" in x.axes or node.attributes["to"] not in (6, 7):  # int32, int64
        raise Unlike
    return x


# Sums and products --------------------------------------------------------------------------------


@_rule("Neg")
def _negative(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    return x._replace(symbol=-x.symbol)


_OF_TWO: dict[str, Callable[[Any, Any], Any]] = {
    "Add": operator.add,
    "Sub": operator.sub,
    "Mul": operator.mul,
}


@_rule("Add", "Sub", "Mul", "Div")
def _arithmetic(nodes: Nodes, node: Node) -> Axed:
    if not nodes.is_value(node, 1):
        return _with_constant(nodes, node.op, nodes.value(node), nodes.constant(node, 1))
    if nodes.is_value(node, 0):
        if node.op == "Div":
            raise Unlike
        both = [nodes.value(node), nodes.value(node, 1)]
        shares = [x.symbol for x in both if type(x.symbol) is _Share]
        if shares:
            if len(shares) > 1 or node.op != "Mul":
                raise Unlike
            (other,) = (x for x in both if x.symbol is not shares[0])
            return other._replace(symbol=_times_share(other.symbol, shares[0]))
        (a, b), axes = _alike(nodes, both)
        return Axed(_OF_TWO[node.op](a, b), axes, both[0].joined or both[1].joined)
    x, constant = nodes.value(node, 1), nodes.constant(node, 0)
    if node.op == "Sub":
        return _with_constant(nodes, "Add", x._replace(symbol=-x.symbol), constant)
    if node.op == "Div":
        raise Unlike
    return _with_constant(nodes, node.op, x, constant)


def _with_constant(nodes: Nodes, op: str, x: Axed, constant: Any) -> Axed:
    """Return a value and a number, or a number for each feature, put together."""
    if constant.dtype.kind != "f" or constant.ndim > len(x.axes):
        raise Unlike
    if constant.size == 1:
        return x._replace(symbol=_with_number(op, x.symbol, float(constant.reshape(()))))
    if x.axes[-1:] != "F" or constant.size != x.features or constant.shape[-1] != x.features:
        raise Unlike
    numbers = constant.reshape(-1)
    return x._replace(symbol=_each_feature(nodes, op, numbers)(x.symbol))


def _with_number(op: str, x: Any, number: float) -> Any:
    if type(x) is _Share:
        if (op, number) != ("Add", 1):
            raise Unlike
        return x._replace(more=1)
    if op in ("Add", "Sub"):
        return x + number if op == "Add" else x - number
    scale = number if op == "Mul" else 1 / number
    before = _scale_of(x)
    if before is not None and before[1] * scale == 1:
        return before[0]
    return x * scale


def _each_feature(nodes: Nodes, op: str, numbers: Any) -> Module:
    """Return what shifts or scales features by constants: statistics that do not change."""
    shifts = op in ("Add", "Sub")
    if not shifts and not (np.isfinite(numbers) & (numbers > 0)).all():
        raise Unlike
    wide = numbers.astype(np.float64)
    mean = (-wide if op == "Add" else wide) if shifts else 0 * wide
    variance = np.ones_like(wide) if shifts else (wide if op == "Div" else 1 / wide) ** 2
    known = np.finfo(numbers.dtype)
    if not ((variance >= known.tiny) & (variance <= known.max)).all():
        raise Unlike
    module = BatchNorm(
        len(numbers), eps=0.0, affine=False, frozen=True, batch_first=nodes.first,
        dtype=numbers.dtype,
    )  # fmt: skip
    statistics = {"running_mean": mean, "running_var": variance}
    arrays = {name: array.astype(numbers.dtype) for name, array in statistics.items()}
    return loaded(module, **arrays, num_batches_tracked=np.array(0))


def _alike(nodes: Nodes, values: Sequence[Axed]) -> tuple[list[Any], str]:
    """Return the symbols of values that meet, repeated over steps, and the axes of what is made."""
    most = max(len(x.axes) for x in values)
    if len({x.axes for x in values}) > 1:
        values = [nodes.without_layers(x) for x in values]
    values = [x._replace(axes=x.axes.rjust(most, "=")) for x in values]
    axes = "".join(_meeting(letters) for letters in zip(*(x.axes for x in values), strict=True))
    if len({x.joined for x in values if x.joined}) > 1:
        raise Unlike
    symbols = []
    for x in values:
        missing = {a for a, b in zip(axes, x.axes, strict=True) if a != b}
        if not missing <= {"T", "F"} or ("F" in missing and x.features != 1):
            raise Unlike
        if "T" in missing:
            like = next(other.symbol for other in values if "T" in other.axes)
            symbols.append(repeat(x.symbol, like=like, batch_first=nodes.first))
        else:
            symbols.append(x.symbol)
    return symbols, axes


def _meeting(letters: Sequence[str]) -> str:
    there = {letter for letter in letters if letter != "="}
    if len(there) > 1:
        raise Unlike
    return there.pop() if there else "="


def _weighted(nodes: Nodes, a: Axed, b: Axed) -> Axed:
    """Return a sum over steps, weighted by one number for each: (B, 1, T) (B, T, F), or turned."""
    if not nodes.first:
        raise Unlike
    if a.axes in ("B=T", "BFT") and b.axes == "BTF" and a.features == 1:
        axes = "B=F"
    elif a.axes == "BFT" and b.axes in ("BT=", "BTF") and b.features == 1:
        axes = "BF="
    else:
        raise Unlike
    return Axed(_sum(a.symbol * b.symbol, max(a.features, b.features)), axes)


def _sum(symbol: Any, features: int) -> Any:
    return Reduce("sum", 1, False, [2], [features])._given_symbols(symbol)


# Over steps ---------------------------------------------------------------------------------------


@_rule("ReduceMean", "ReduceMax", "ReduceSum")
def _reduce(nodes: Nodes, node: Node) -> Axed:
    x, axes = nodes.value(node), axes_of(nodes.facts, node)
    if axes is None or len(axes) != 1 or x.axes[axes[0]] != "T":
        raise Unlike
    place = axes[0] % len(x.axes)
    if node.op == "ReduceSum":
        if not nodes.first:
            raise Unlike
        symbol = _sum(x.symbol, x.features)
    else:
        pool = MeanPool if node.op == "ReduceMean" else MaxPool
        symbol = pool(batch_first=nodes.first)(x.symbol)
    keep = "=" if node.attributes.get("keepdims", 1) else ""
    return Axed(symbol, x.axes[:place] + keep + x.axes[place + 1 :])


@_rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    if x.axes != "BFT":
        raise Unlike
    pool = MeanPool if node.op == "GlobalAveragePool" else MaxPool
    return Axed(pool(batch_first=nodes.first)(x.symbol), "BF=")


@_rule("AveragePool", "MaxPool")
def _window_pool(nodes: Nodes, node: Node) -> Axed:
    x, said = nodes.value(node), node.attributes
    (size,), (stride,) = said["kernel_shape"], said.get("strides", [1])
    pads = _window(said, size - 1, 0)
    if (
        x.axes != "BFT"
        or pads != (0, 0)
        or said.get("ceil_mode")
        or said.get("dilations", [1]) != [1]
    ):
        raise Unlike
    kind = MaxPool1D if node.op == "MaxPool" else AvgPool1D
    return x._replace(symbol=kind(size, stride, batch_first=nodes.first)(x.symbol))


@_rule("Pad")
def _pad(nodes: Nodes, node: Node) -> Axed:
    x, said = nodes.value(node), node.attributes
    pads: Any = said.get("pads") or nodes.facts.list_of(node.inputs[1])
    fill = nodes.constants[node.inputs[2]] if node.inputs[2:3] > ("",) else said.get("value", 0)
    rank = len(x.axes)
    if said.get("mode", "constant") != "constant" or fill != 0 or len(pads) != 2 * rank:
        raise Unlike
    if node.inputs[3:] or any(n and x.axes[i % rank] != "T" for i, n in enumerate(pads)):
        raise Unlike
    place = x.axes.index("T")
    pad = Pad1D(pads[place], pads[place + rank], batch_first=nodes.first)
    return x._replace(symbol=pad(x.symbol))


@_rule("Expand", "Tile")
def _expand(nodes: Nodes, node: Node) -> Axed:
    """Repeat what has no steps over steps."""
    x = nodes.without_layers(nodes.value(node))
    sizes, asked = nodes.facts[node.inputs[0]].shape, nodes.facts[node.inputs[1]].numbers
    if asked is None or sizes is None or len(asked) < len(sizes):
        raise Unlike
    made = Axed(x.symbol, x.axes.rjust(len(asked), "="))
    have = (1,) * (len(asked) - len(sizes)) + sizes
    for place, n in enumerate(asked):
        if n == 1 or (node.op == "Expand" and n == have[place]):
            continue
        if made.axes[place] != "=" or "T" in made.axes:
            raise Unlike
        made = Axed(_over_steps(nodes, x, n), made.axes[:place] + "T" + made.axes[place + 1 :])
    return made


def _over_steps(nodes: Nodes, x: Axed, count: Any) -> Any:
    like = nodes.steps_like(count)
    if like is not None:
        return repeat(x.symbol, like=like, batch_first=nodes.first)
    if not isinstance(count, int):
        raise Unlike
    return RepeatVector(count, batch_first=nodes.first)(x.symbol)


# Axes ---------------------------------------------------------------------------------------------


@_rule("Transpose")
def _transpose(nodes: Nodes, node: Node) -> Axed:
    x = nodes.value(node)
    perm = node.attributes.get("perm") or list(range(len(x.axes)))[::-1]
    return x._replace(axes="".join(x.axes[i] for i in perm))


@_rule("Squeeze")
def _squeeze(nodes: Nodes, node: Node) -> Axed:
    axes = axes_of(nodes.facts, node)
    if axes is None:
        raise Unlike
    x = nodes.without_layers(nodes.value(node))
    for place in sorted((axis % len(x.axes) for axis in axes), reverse=True):
        if x.axes[place] != "=" and (x.axes[place] != "F" or x.features != 1):
            raise Unlike
        x = x.without(place)
    return x


@_rule("Unsqueeze")
def _unsqueeze(nodes: Nodes, node: Node) -> Axed:
    x, axes = nodes.value(node), axes_of(nodes.facts, node)
    if axes is None:
        raise Unlike
    rank = len(x.axes) + len(axes)
    for place in sorted(axis % rank for axis in axes):
        letter = "F" if "F" not in x.axes and x.features == 1 else "="
        x = x._replace(axes=x.axes[:place] + letter + x.axes[place:])
    return x


@_rule("Reshape", "Flatten")
def _reshape(nodes: Nodes, node: Node) -> Axed:
    x, sizes = nodes.value(node), nodes.facts[node.inputs[0]].shape
    if node.op == "Flatten":
        asked: Any = nodes.facts[node.outputs[0]].shape
    else:
        asked = nodes.facts[node.inputs[1]].numbers
    if asked is None or sizes is None or (0 in asked and node.attributes.get("allowzero")):
        raise Unlike
    for made, kept in _ways(nodes, x, sizes):
        if len(made.axes) == len(asked) and _asks_for(asked, kept, sizes):
            return _with_ends(nodes, made)
    if x.axes in ("BTF", "BFT") and len(asked) == 2:
        return _flattened(nodes, x, sizes, asked)
    raise Unlike


def _ways(nodes: Nodes, x: Axed, sizes: Any) -> Iterator[tuple[Axed, list[Any]]]:
    """Yield what a value can be in other shapes, and the sizes of its axes then."""
    yield x, list(sizes)
    one = nodes.without_layers(x)
    for place, letter in enumerate(one.axes):
        left = [size for i, size in enumerate(sizes) if i != place]
        if letter == "=" or (letter == "F" and x.features == 1):
            yield one.without(place), left
        last = sizes[-1]
        if letter in "DL" and one.axes[place + 1 :] == "F" and isinstance(last, int):
            yield x.without(place), [*left[:-1], sizes[place] * last]
    for place in range(len(one.axes) + 1):
        wide = [*sizes[:place], 1, *sizes[place:]]
        yield one._replace(axes=f"{one.axes[:place]}={one.axes[place:]}"), wide
    if x.axes[:2] in _JOINED:
        joined = x._replace(axes=_JOINED[x.axes[:2]] + x.axes[2:], joined=tuple(sizes[:2]))
        yield joined, [product_of(sizes[:2]), *sizes[2:]]
    if x.joined:
        apart = {letter: both for both, letter in _JOINED.items()}[x.axes[0]]
        yield Axed(x.symbol, apart + x.axes[1:]), [*x.joined, *sizes[1:]]


_JOINED = {"BT": "N", "TB": "M"}


def _flattened(nodes: Nodes, x: Axed, sizes: Any, asked: Sequence[Any]) -> Axed:
    """Return the steps of a row side by side, if their number is known."""
    steps, features = sizes[x.axes.index("T")], x.features
    if not isinstance(steps, int) or not _asks_for(asked, [sizes[0], steps * features], sizes):
        raise Unlike
    symbol, shape = x.symbol, (steps, features)
    if x.axes == "BFT":
        symbol, shape = Permute(shape, (2, 1), nodes.first)(symbol), (features, steps)
    return Axed(Reshape(shape, (steps * features,), nodes.first)(symbol), "BF")


def _asks_for(asked: Sequence[Any], kept: Sequence[Any], before: Sequence[Any]) -> bool:
    """Whether a Reshape asks for the sizes that are kept; one of them may be left to it."""
    if list(asked).count(-1) > 1:
        return False
    return all(
        n == -1 or n == size or (n == 0 and i < len(before) and before[i] == size)
        for i, (n, size) in enumerate(zip(asked, kept, strict=True))
    )


def _with_ends(nodes: Nodes, x: Axed) -> Axed:
    """Return a value whose layers are side by side, if it is a state without its axis for them."""
    count = x.symbol.axes.states
    if not count or "L" in x.axes:
        return x
    y = nodes.ends.get(x.symbol)
    if y is not None and count == 2:
        return x._replace(symbol=BothEnds(batch_first=nodes.first)(y))
    return x._replace(symbol=concat([x.symbol[i] for i in range(count)]))


# Parts --------------------------------------------------------------------------------------------


@_rule("Gather")
def _gather(nodes: Nodes, node: Node) -> Axed:
    if not nodes.is_value(node, 0):
        return _embedding(nodes, node)
    x, index = nodes.value(node), nodes.constant(node, 1)
    place = node.attributes.get("axis", 0) % len(x.axes)
    if index.size != 1 or index.ndim > 1:
        raise Unlike
    y = _part(nodes, x, place, int(index.reshape(())))
    return y if index.ndim else _squeezed(nodes, y, place)


@_rule("Slice")
def _slice(nodes: Nodes, node: Node) -> Axed:
    x, bounds = nodes.value(node), bounds_of(nodes.facts, node)
    if bounds is None:
        raise Unlike
    for place, (start, stop, step) in bounds.items():
        x = _range(nodes, x, place, start, stop, step)
    return x


@_rule("Split")
def _split(nodes: Nodes, node: Node) -> list[Axed]:
    x = nodes.value(node)
    place = node.attributes.get("axis", 0) % len(x.axes)
    total = _length(x, place)
    given = node.attributes.get("split")
    if given is None and len(node.inputs) > 1:
        given = nodes.facts.list_of(node.inputs[1])
    if given is None:
        count = node.attributes.get("num_outputs", len(node.outputs))
        share = -(-total // count)
        given = [min(share, total - start) for start in range(0, total, share)]
    ends = np.cumsum(given).tolist()
    return [_range(nodes, x, place, stop - n, stop, 1) for n, stop in zip(given, ends, strict=True)]


def _length(x: Axed, place: int) -> int:
    """Return how many features, layers or directions there are along an axis."""
    sizes = {"F": x.features, "L": x.symbol.axes.states, "D": 2, "=": 1}
    if x.axes[place] == "F" and "D" in x.axes:
        raise Unlike
    return int(sizes[x.axes[place]])


def _part(nodes: Nodes, x: Axed, place: int, index: int) -> Axed:
    """Return one place of an axis, which stays with size 1."""
    if x.axes[place] == "T":
        if index not in (0, -1):
            raise Unlike
        return _range(nodes, x, place, index, END if index else 1, 1)
    start = index % _length(x, place)
    return _range(nodes, x, place, start, start + 1, 1)


def _range(nodes: Nodes, x: Axed, place: int, start: int, stop: int, step: int) -> Axed:
    """Return what a slice takes of an axis."""
    letter = x.axes[place]
    if letter == "T":
        return _some_steps(nodes, x, place, start, stop, step)
    length = _length(x, place)
    which = range(length)[start:stop:step]
    if which == range(length):
        return x
    if letter == "F" and which:
        return x._replace(symbol=x.symbol[..., _bounds(which)])
    if letter == "L" and which:
        return x._replace(symbol=x.symbol[_bounds(which)])
    if letter != "D" or len(which) != 1:
        raise Unlike
    half = x.features // 2
    part = x.symbol[..., which[0] * half : which[0] * half + half]
    return Axed(part, x.axes.replace("D", "="))


def _bounds(which: range) -> slice:
    return slice(which.start, None if which.stop < 0 else which.stop, which.step)


def _some_steps(nodes: Nodes, x: Axed, place: int, start: int, stop: int, step: int) -> Axed:
    first = nodes.first
    if turns(start, stop, step):
        return x._replace(symbol=Flip(batch_first=first)(x.symbol))
    one = x.axes[:place] + "=" + x.axes[place + 1 :]
    if step != 1:
        raise Unlike
    if start == -1 and stop >= END:
        return Axed(LastStep(batch_first=first)(x.symbol), one)
    if (start, stop) == (0, 1):
        return Axed(LastStep(batch_first=first)(Flip(batch_first=first)(x.symbol)), one)
    if start < 0 or 0 <= stop < END:
        raise Unlike
    pad = Pad1D(-start, stop if stop < 0 else 0, batch_first=first)
    return x._replace(symbol=pad(x.symbol))


def _squeezed(nodes: Nodes, x: Axed, place: int) -> Axed:
    """Return it without an axis of size 1."""
    if x.axes[place] == "L":
        return _layer_alone(nodes, x).without(place)
    return x.without(place)


def _layer_alone(nodes: Nodes, x: Axed) -> Axed:
    """Return one layer of a state; a part of a state is told by the whole and its number."""
    source = _of_index(x.symbol, "layers")
    if source is None:
        return nodes.without_layers(x)
    whole, (start, *_) = source
    return Axed(whole[start], x.axes.replace("L", "="))


def _of_index(symbol: Any, kind: str) -> tuple[Any, list[Any]] | None:
    """Return what a symbol is a part of, and which."""
    call = symbol.call
    if call is None or type(call.module) is not Index or call.module._given[0] != kind:
        return None
    return call.args[0], list(call.module._given[1:])


@_rule("Concat")
def _concat(nodes: Nodes, node: Node) -> Axed:
    values = [nodes.value(node, place) for place in range(len(node.inputs))]
    letter = values[0].axes[node.attributes["axis"]]
    axes = values[0].axes
    if any(x.axes != axes for x in values):
        values = [nodes.without_layers(x) for x in values]
        axes, letter = values[0].axes, values[0].axes[node.attributes["axis"]]
        if any(x.axes != axes for x in values):
            raise Unlike
    symbols = [x.symbol for x in values]
    if letter == "F" and "D" not in axes:
        return Axed(_whole_of(nodes, symbols) or concat(symbols), axes, values[0].joined)
    place = node.attributes["axis"] % len(axes)
    if letter not in "L=" or axes.replace(letter, "", 1) != "BF":
        raise Unlike
    rows = [part for x in values for part in _layers(x)]
    made = rows[0]._enter(Stack(), tuple(rows))
    return Axed(made, axes[:place] + "L" + axes[place + 1 :])


def _layers(x: Axed) -> list[Any]:
    count = x.symbol.axes.states
    return [x.symbol[i] for i in range(count)] if count else [x.symbol]


def _whole_of(nodes: Nodes, symbols: Sequence[Any]) -> Any:
    """Return what these are all the parts of, side by side as they were; None if of nothing."""
    layers = [_of_index(symbol, "layer") for symbol in symbols]
    if len(layers) == 2 and None not in layers:
        (h, [i]), (other, [j]) = layers  # type: ignore[misc]
        y = nodes.ends.get(h)
        if h is other and y is not None and (i, j) == (0, 1) and h.axes.states == 2:
            return BothEnds(batch_first=nodes.first)(y)
    parts = [_of_index(symbol, "features") for symbol in symbols]
    if None in parts:
        return None
    source, at = parts[0][0], 0  # type: ignore[index]
    for x, (start, stop, step) in parts:  # type: ignore[misc]
        if x is not source or start != at or step not in (1, None):
            return None
        at = stop
    return source if at == source.axes.features else None
