"""What can be known of a model's values before it runs: sizes, whole numbers, and what is zero.

A size is a number, a name that stands for one, or a product of names and a number: two sizes that
are written alike are equal.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, TypeAlias

from . import _recurrent
from ._model import Model, Node, Tensor
from .operators import FAILURES

__all__ = ["Fact", "Facts"]

Size: TypeAlias = "int | str | tuple[int | str, ...]"  # a product: its number, then sorted names
_MANY = 32  # whole numbers that are known one by one; sizes are few
_MOST_NAMES = 8  # of a product of sizes
END = 2**31 - 1  # of a slice: at least this is past every axis


class Fact(NamedTuple):
    """What is known of a value; None is nothing."""

    shape: tuple[Size, ...] | None = None
    numbers: tuple[Size, ...] | None = None  # of whole numbers with an axis at most
    zeros: bool = False  # whether it is zero everywhere


class Facts:
    """The facts of a model's values, by their names.

    Parameters
    ----------
    model : Model
        Whose nodes are in order and whose constants are computed.
    """

    def __init__(self, model: Model) -> None:
        self._facts: dict[str, Fact] = {}
        self._constants = model.constants
        for value in model.inputs:
            shape = value.shape
            sizes = (
                None
                if shape is None
                else tuple(f"{value.name}[{i}]" if n is None else n for i, n in enumerate(shape))
            )
            self._facts[value.name] = Fact(sizes)

    def __getitem__(self, name: str) -> Fact:
        if name in self._constants:
            return _of_constant(self._constants[name])
        return self._facts.get(name, Fact())

    def add(self, node: Node) -> None:
        """Find out what can be known of the outputs of a node, the inputs of which are known."""
        if _recurrent.is_recurrent(node):
            found: list[Fact | None] = self._recurrent(node)
        elif node.domain or node.op not in _RULES:
            return
        else:
            try:
                found = [_RULES[node.op](self, node, *map(self.__getitem__, node.inputs))]
            except FAILURES:  # a node that does not fit its inputs
                return
        for name, fact in zip(node.outputs, found, strict=False):
            if name and fact is not None:
                self._facts[name] = fact

    def _recurrent(self, node: Node) -> list[Fact | None]:
        given = dict(zip(_recurrent.INPUTS.get(node.op, ()), node.inputs, strict=False))
        x, r = self[given.get("X", "")].shape, self[given.get("R", "")].shape
        if x is None or r is None or len(x) != 3 or len(r) != 3:
            return []
        directions, hidden = r[0], r[2]
        if node.attributes.get("layout"):
            state: Any = Fact((x[0], directions, hidden))
            return [Fact((x[0], x[1], directions, hidden)), state, state]
        state = Fact((directions, x[1], hidden))
        return [Fact((x[0], directions, x[1], hidden)), state, state]

    def list_of(self, name: str) -> list[int] | None:
        """Return the whole numbers of a constant as a list, None if they are not known."""
        numbers = self[name].numbers
        if numbers is None or not all(isinstance(n, int) for n in numbers):
            return None
        return list(numbers)  # type: ignore[arg-type]


def _of_constant(array: Tensor) -> Fact:
    small = array.dtype.kind in "iu" and array.ndim < 2 and array.size <= _MANY
    numbers = tuple(array.reshape(-1).tolist()) if small else None
    return Fact(array.shape, numbers, not array.any())


Rule: TypeAlias = Callable[..., "Fact | None"]
_RULES: dict[str, Rule] = {}


def _rule(*names: str) -> Callable[[Rule], Rule]:
    def register(rule: Rule) -> Rule:
        _RULES.update(dict.fromkeys(names, rule))
        return rule

    return register


@_rule("Identity", "Cast", "Dropout", "Neg", "Relu", "Tanh", "Abs")
def _same(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact:
    return x if node.op in ("Identity", "Cast", "Dropout") else x._replace(numbers=None)


@_rule("Sigmoid", "Softmax", "LogSoftmax", "LeakyRelu", "Elu", "Selu", "Gelu", "Softplus", "Erf",
       "LayerNormalization", "BatchNormalization", "HardSigmoid", "HardSwish", "Clip",
       "Exp")  # fmt: skip
def _same_shape(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact:
    return Fact(x.shape)


@_rule("Shape")
def _shape(facts: Facts, node: Node, x: Fact) -> Fact | None:
    if x.shape is None:
        return None
    numbers = x.shape[node.attributes.get("start", 0) : node.attributes.get("end")]
    return Fact((len(numbers),), numbers)


@_rule("Gather")
def _gather(facts: Facts, node: Node, x: Fact, indices: Fact) -> Fact | None:
    axis = node.attributes.get("axis", 0)
    numbers = None
    places = facts.list_of(node.inputs[1])
    if x.numbers is not None and places is not None and x.shape and len(x.shape) == 1:
        numbers = tuple(x.numbers[i] for i in places)
    shape = None
    if x.shape is not None and indices.shape is not None:
        axis %= len(x.shape)
        shape = (*x.shape[:axis], *indices.shape, *x.shape[axis + 1 :])
    return Fact(shape, numbers, x.zeros)


@_rule("Slice")
def _slice(facts: Facts, node: Node, x: Fact, *given: Fact) -> Fact | None:
    bounds = bounds_of(facts, node)
    if bounds is None or x.shape is None:
        return Fact(zeros=x.zeros)
    shape = list(x.shape)
    for axis, (start, stop, step) in bounds.items():
        size = shape[axis]
        if isinstance(size, int):
            shape[axis] = len(range(size)[start:stop:step])
        elif ((start, step) != (0, 1) or stop < END) and not turns(start, stop, step):
            shape[axis] = f"{node.outputs[0]}[{axis}]"
    numbers = None
    if x.numbers is not None and len(x.shape) == 1:
        numbers = x.numbers[slice(*bounds.get(0, (None, None, None)))]
    return Fact(tuple(shape), numbers, x.zeros)


def turns(start: int, stop: int, step: int) -> bool:
    """Whether a slice takes the whole of an axis, from its end."""
    return step == -1 and (start == -1 or start >= END) and stop <= -END


def bounds_of(facts: Facts, node: Node) -> dict[int, tuple[int, int, int]] | None:
    """Return start, stop and step by the axis of a Slice, None if they are not known."""
    if node.opset < 10:
        parts = [node.attributes.get(name) for name in ("starts", "ends", "axes")]
    else:
        parts = [facts.list_of(name) if name else None for name in node.inputs[1:]]
    starts, stops, axes, steps = [*parts, None, None, None][:4]
    named = [bool(name) for name in node.inputs[1:]]
    if starts is None or stops is None:
        return None
    if node.opset >= 10 and any(
        there and part is None for there, part in zip(named, parts, strict=True)
    ):
        return None
    rank = facts[node.inputs[0]].shape
    axes = list(range(len(starts))) if axes is None else axes
    steps = [1] * len(starts) if steps is None else steps
    if rank is None or 0 in steps:
        return None
    bounds = zip(starts, stops, steps, strict=True)
    return {axis % len(rank): bound for axis, bound in zip(axes, bounds, strict=True)}


@_rule("Concat")
def _concat(facts: Facts, node: Node, *parts: Fact) -> Fact | None:
    zeros = all(part.zeros for part in parts)
    numbers: tuple[Size, ...] | None = ()
    for part in parts:
        one = part.numbers
        numbers = None if numbers is None or one is None or part.shape is None else numbers + one
    shapes = [part.shape for part in parts]
    if any(shape is None for shape in shapes):
        return Fact(None, numbers, zeros)
    first: Any = shapes[0]
    axis = node.attributes["axis"] % len(first)
    total: Any = [shape[axis] for shape in shapes if shape is not None]
    size = sum(total) if all(isinstance(n, int) for n in total) else f"{node.outputs[0]}[{axis}]"
    return Fact((*first[:axis], size, *first[axis + 1 :]), numbers, zeros)


def axes_of(facts: Facts, node: Node) -> list[int] | None:
    """Return the axes of a Squeeze, Unsqueeze or reduction, None if they are not known."""
    if "axes" in node.attributes:
        return list(node.attributes["axes"])
    return facts.list_of(node.inputs[1]) if len(node.inputs) > 1 else None


@_rule("Squeeze")
def _squeeze(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact | None:
    axes = axes_of(facts, node)
    if axes is None or x.shape is None:
        return Fact(None, x.numbers, x.zeros)
    gone = {axis % len(x.shape) for axis in axes}
    return Fact(tuple(n for i, n in enumerate(x.shape) if i not in gone), x.numbers, x.zeros)


@_rule("Unsqueeze")
def _unsqueeze(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact | None:
    axes = axes_of(facts, node)
    if axes is None or x.shape is None:
        return Fact(zeros=x.zeros)
    rank = len(x.shape) + len(axes)
    new = {axis % rank for axis in axes}
    old = iter(x.shape)
    shape = tuple(1 if i in new else next(old) for i in range(rank))
    return Fact(shape, x.numbers if rank < 2 else None, x.zeros)


@_rule("Transpose")
def _transpose(facts: Facts, node: Node, x: Fact) -> Fact | None:
    if x.shape is None:
        return Fact(zeros=x.zeros)
    perm = node.attributes.get("perm") or list(range(len(x.shape)))[::-1]
    return Fact(tuple(x.shape[i] for i in perm), None, x.zeros)


@_rule("Flatten")
def _flatten(facts: Facts, node: Node, x: Fact) -> Fact | None:
    if x.shape is None:
        return None
    axis = node.attributes.get("axis", 1)
    rows, features = product_of(x.shape[:axis]), product_of(x.shape[axis:])
    return None if rows is None or features is None else Fact((rows, features), None, x.zeros)


@_rule("Reshape")
def _reshape(facts: Facts, node: Node, x: Fact, asked: Fact) -> Fact | None:
    numbers = x.numbers if asked.shape in ((0,), (1,)) else None
    shape = reshaped(x.shape, asked.numbers, bool(node.attributes.get("allowzero")))
    return Fact(shape, numbers, x.zeros)


def reshaped(
    shape: tuple[Size, ...] | None, asked: Sequence[Size] | None, allowzero: bool
) -> tuple[Size, ...] | None:
    """Return the shape that a Reshape gives, as far as it can be known."""
    if asked is None or (shape is None and any(n in (0, -1) for n in asked)):
        return None
    if shape is None:
        return tuple(asked)
    found: list[Any] = [
        shape[i] if n == 0 and not allowzero and i < len(shape) else n for i, n in enumerate(asked)
    ]
    if -1 not in found:
        return tuple(found)
    left = quotient(product_of(shape), product_of(n for n in found if n != -1))
    if left is None:
        return None
    found[found.index(-1)] = left
    return tuple(found)


def _factors(size: Size) -> tuple[int, list[str]]:
    """Return the number and the names whose product a size is."""
    parts = size if isinstance(size, tuple) else (size,)
    number = math.prod(n for n in parts if isinstance(n, int))
    return number, [n for n in parts if isinstance(n, str)]


def product_of(sizes: Iterable[Size]) -> Size | None:
    """Return the product of sizes; None if it is larger than any file needs."""
    number, names = 1, list[str]()
    for size in sizes:
        one, others = _factors(size)
        number, names = number * one, names + others
    if abs(number) > END or len(names) > _MOST_NAMES:
        return None
    if not names or not number:
        return number
    return (number, *sorted(names)) if number > 1 or len(names) > 1 else names[0]


def quotient(size: Size | None, by: Size | None) -> Size | None:
    """Return how often one size goes into another; None if that is not known."""
    if size is None or by is None:
        return None
    (number, names), (divisor, others) = _factors(size), _factors(by)
    for name in others:
        if name not in names:
            return None
        names.remove(name)
    if divisor < 1 or number % divisor:
        return None
    return product_of((number // divisor, *names))


@_rule("ConstantFill")
def _constant_fill(facts: Facts, node: Node, asked: Fact) -> Fact:
    zeros = not node.attributes.get("value")
    return Fact(asked.numbers if node.attributes.get("input_as_shape") else None, None, zeros)


@_rule("ConstantOfShape")
def _constant_of_shape(facts: Facts, node: Node, asked: Fact) -> Fact:
    value = node.attributes.get("value")
    zeros = value is None or not value.any()
    count = asked.numbers[0] if asked.numbers is not None and len(asked.numbers) == 1 else None
    numbers: Any = None
    if isinstance(count, int) and count <= _MANY and (value is None or value.dtype.kind in "iu"):
        numbers = (0 if value is None else int(value.reshape(())),) * count
    return Fact(asked.numbers, numbers, zeros)


@_rule("Equal")
def _equal(facts: Facts, node: Node, a: Fact, b: Fact) -> Fact:
    """Which whole numbers are equal, as 0 and 1: a size by its name is none below 0."""
    numbers: Any = None
    pairs = _pairs(a.numbers, b.numbers)
    if pairs is not None:
        made = [_same_size(x, y) for x, y in pairs]
        numbers = None if None in made else tuple(map(int, made))  # type: ignore[arg-type]
    return Fact(_spread(a.shape, b.shape), numbers)


def _same_size(a: Size, b: Size) -> bool | None:
    if a == b or (isinstance(a, int) and isinstance(b, int)):
        return a == b
    below = [n for n in (a, b) if isinstance(n, int) and n < 0]
    return False if below else None


@_rule("Where")
def _where(facts: Facts, node: Node, which: Fact, a: Fact, b: Fact) -> Fact:
    numbers = None
    if which.numbers is not None and a.numbers is not None and b.numbers is not None:
        parts = zip(which.numbers, a.numbers, b.numbers, strict=True)
        numbers = tuple(x if chosen else y for chosen, x, y in parts)
    return Fact(_spread(_spread(which.shape, a.shape), b.shape), numbers)


@_rule("Expand")
def _expand(facts: Facts, node: Node, x: Fact, asked: Fact) -> Fact:
    return Fact(_spread(x.shape, asked.numbers), None, x.zeros)


@_rule("Tile")
def _tile(facts: Facts, node: Node, x: Fact, counts: Fact) -> Fact | None:
    if x.shape is None or counts.numbers is None:
        return None
    sizes = [_whole("Mul", n, count) for n, count in zip(x.shape, counts.numbers, strict=True)]
    return Fact(None if None in sizes else tuple(sizes), None, x.zeros)  # type: ignore[arg-type]


@_rule("Conv", "MaxPool", "AveragePool")
def _windows(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact | None:
    """Return a shape whose sizes behind the features are new, but for known numbers of steps."""
    if x.shape is None or (others and others[0].shape is None):
        return None
    features = others[0].shape[0] if others and others[0].shape else x.shape[1]
    made = [_windows_over(node, i, n, others) for i, n in enumerate(x.shape[2:])]
    new = (f"{node.outputs[0]}[{i}]" if n is None else n for i, n in enumerate(made, 2))
    return Fact((x.shape[0], features, *new))


def _windows_over(node: Node, i: int, size: Size, weights: Sequence[Fact]) -> int | None:
    """Return how many windows there are along an axis behind the features."""
    said, kernel = node.attributes, node.attributes.get("kernel_shape")
    if kernel is None and weights and weights[0].shape is not None:
        kernel = weights[0].shape[2:]
    padded = said.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or said.get("ceil_mode")
    if not isinstance(size, int) or kernel is None or padded:
        return None
    rank = len(kernel)
    pads = said.get("pads", [0] * 2 * rank)
    reach = said.get("dilations", [1] * rank)[i] * (kernel[i] - 1)
    stride = said.get("strides", [1] * rank)[i]
    return max(int(size + pads[i] + pads[i + rank] - reach - 1) // int(stride) + 1, 0)


@_rule("Add", "Sub", "Mul", "Div")
def _arithmetic(facts: Facts, node: Node, a: Fact, b: Fact) -> Fact:
    numbers: Any = None
    pairs = _pairs(a.numbers, b.numbers)
    if pairs is not None:
        made = [_whole(node.op, x, y) for x, y in pairs]
        numbers = None if None in made else tuple(made)
    return Fact(_spread(a.shape, b.shape), numbers)


def _pairs(
    a: tuple[Size, ...] | None, b: tuple[Size, ...] | None
) -> list[tuple[Size, Size]] | None:
    """Return which numbers meet; one alone meets all others."""
    if a is None or b is None:
        return None
    count = max(len(a), len(b))
    a, b = (numbers * count if len(numbers) == 1 else numbers for numbers in (a, b))
    return list(zip(a, b, strict=True)) if len(a) == len(b) else None


def _whole(op: str, a: Size, b: Size) -> Size | None:
    if isinstance(a, int) and isinstance(b, int):
        if op == "Div":
            return a // b if a >= 0 and b > 0 else None
        made = {"Add": a + b, "Sub": a - b, "Mul": a * b}[op]
        return made if abs(made) <= END else None
    if op == "Mul":
        return product_of((a, b))
    if op == "Div":
        return quotient(a, b)
    if b == 0:
        return a
    return b if a == 0 and op == "Add" else None


def _spread(a: tuple[Size, ...] | None, b: tuple[Size, ...] | None) -> tuple[Size, ...] | None:
    """Return the shape of what has the larger of each two sizes, if one is 1 or they are equal."""
    if a is None or b is None:
        return None
    rank = max(len(a), len(b))
    a, b = ((1,) * (rank - len(shape)) + shape for shape in (a, b))
    if any(x != y and 1 not in (x, y) for x, y in zip(a, b, strict=True)):
        return None
    return tuple(y if x == 1 else x for x, y in zip(a, b, strict=True))


@_rule("MatMul")
def _matmul(facts: Facts, node: Node, a: Fact, b: Fact) -> Fact | None:
    if a.shape is None or b.shape is None or len(b.shape) != 2 or len(a.shape) < 2:
        return None
    return Fact((*a.shape[:-1], b.shape[-1]))


@_rule("Gemm")
def _gemm(facts: Facts, node: Node, a: Fact, b: Fact, *c: Fact) -> Fact | None:
    if a.shape is None or b.shape is None:
        return None
    return Fact(
        (
            a.shape[1 if node.attributes.get("transA") else 0],
            b.shape[0 if node.attributes.get("transB") else 1],
        )
    )


@_rule("ReduceMean", "ReduceMax", "ReduceSum", "ReduceMin")
def _reduce(facts: Facts, node: Node, x: Fact, *others: Fact) -> Fact | None:
    axes = axes_of(facts, node)
    if axes is None or x.shape is None:
        return None
    gone = {axis % len(x.shape) for axis in axes}
    if node.attributes.get("keepdims", 1):
        return Fact(tuple(1 if i in gone else n for i, n in enumerate(x.shape)))
    return Fact(tuple(n for i, n in enumerate(x.shape) if i not in gone))
