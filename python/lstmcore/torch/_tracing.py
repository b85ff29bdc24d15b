"""Modules of PyTorch that are code: traced by torch.fx, their calls become a Model.

torch.fx writes down which modules and functions a forward calls. Their order is followed with
symbols in place of tensors. PyTorch does not say which axis is what, so each way that the arguments
can be laid out is tried, those with the fewest axes first, until one fits all nodes.
"""

from __future__ import annotations

import inspect
import itertools
import linecache
import operator
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import fx, nn
from torch.nn.utils import rnn

from .._base import checks
from .._base.module import Module
from .._base.tree import leaves, rebuilt
from .._network.model import Model
from .._network.symbol import Input
from . import _traced
from ._modules import BothEnds, LastStep, MaxPool, MeanPool, Output
from ._traced import FREE, Order, Own, Refused, Rules, Value
from ._tying import tie_as_theirs

__all__ = ["from_code", "is_code"]

_OURS = (Output, LastStep, MeanPool, MaxPool, BothEnds)
_MAKERS = ("zeros", "ones", "full", "empty", "rand", "randn")  # fx does not trace them by itself
_PACKING = ("pack_padded_sequence", "pad_packed_sequence")
_LAYOUTS: tuple[Order, ...] = (("B", "F"), ("B", "T", "F"), ("T", "B", "F"), ("B", "F", "T"))
_MACHINERY = ("torch.", "lstmcore.")  # what stands between somebody's code and a node
_MASKED = (nn.TransformerEncoder, nn.TransformerEncoderLayer)
_HANDED_ON = (nn.Identity, nn.Dropout)  # modules that give what they take
_IN_PLACE = ("iadd", "imul", "isub", "itruediv")
_ARITHMETIC = ("add", "sub", "mul", "truediv", "div")
_MOST = 5  # arguments whose layouts are tried
_SAME = {  # what leaves the features what they are
    "add", "contiguous", "dropout", "elu", "expand", "flip", "gelu", "iadd", "leaky_relu", "mul",
    "neg", "pad", "permute", "relu", "repeat", "sigmoid", "silu", "softmax", "softplus", "sub",
    "swapaxes", "tanh", "to", "transpose", "truediv", "unsqueeze",
}  # fmt: skip


def is_code(module: Any) -> bool:
    """Whether a module is of somebody's own class, derived from torch.nn.Module alone."""
    kind = type(module)
    mine = kind.__module__.startswith(("torch.nn.", "torch.ao."))
    base = next(k for k in kind.__mro__ if k.__module__.startswith("torch.nn."))
    own = not mine and base is nn.Module and kind not in _OURS
    return own or isinstance(module, fx.GraphModule)


def from_code(module: nn.Module, convert: Callable[[Any, str], Module], inputs: Any) -> Model:
    """Return the Model of what a module computes.

    Parameters
    ----------
    module : torch.nn.Module
    convert : function
        From a module of PyTorch, and what it is called in messages, to one of ours.
    inputs : list of Input, or None
        What the arguments of forward are; None if that is to be found.
    """
    graph = _traced_graph(module)
    arguments = _Arguments(module, graph, convert, inputs)
    furthest: Refused | None = None
    for first, layouts in arguments.layouts():
        try:
            return _Reading(graph, arguments, first, layouts).model()
        except Refused as error:
            if furthest is None or error.place > furthest.place:
                furthest = error
    assert furthest is not None
    raise ValueError(f"{type(module).__name__}: {furthest}") from furthest


class _Proxy(fx.Proxy):
    """What stands for a tensor: fx's own makes x = x + y of x += y, which is another thing."""

    __iadd__, __isub__, __imul__, __itruediv__ = (
        lambda self, other, function=function: self.tracer.create_proxy(
            "call_function", function, (self, other), {}
        )
        for function in (operator.iadd, operator.isub, operator.imul, operator.itruediv)
    )


class _Tracer(fx.Tracer):
    """Goes into modules of somebody's own, and writes down calls of those of torch.nn and ours."""

    def __init__(self) -> None:
        makers = [getattr(torch, name) for name in _MAKERS]
        packing = [getattr(rnn, name) for name in _PACKING]
        super().__init__(autowrap_functions=(*makers, *packing))
        self._autowrap_search += [torch, rnn]  # whatever they are called by

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def create_node(self, *args: Any, **options: Any) -> fx.Node:
        """Note the line of somebody's code beside a node, for messages."""
        node = super().create_node(*args, **options)
        frame = sys._getframe(1)
        while frame.f_back and frame.f_globals.get("__name__", "").startswith(_MACHINERY):
            frame = frame.f_back
        node.meta["line"] = linecache.getline(frame.f_code.co_filename, frame.f_lineno).strip()
        return node

    def is_leaf_module(self, m: nn.Module, name: str) -> bool:
        return not (is_code(m) or type(m) is nn.Sequential)


def _traced_graph(module: nn.Module) -> fx.Graph:
    defaults = {
        name: p.default
        for name, p in inspect.signature(module.forward).parameters.items()
        if p.default is not p.empty
    }
    try:
        return _without_defaults(_Tracer().trace(module, defaults))
    except Exception as error:  # it is somebody else's code
        how = "Convert its parts one by one, and put them together with lc.Model"
        if "interpreted as an integer" in str(error) or "Proxy object cannot be iterated" in str(
            error
        ):
            how = (
                "A loop over steps may have a number of them that forward does not take from x, as "
                "range(10); a loop over all steps of a cell is what its layer does: LSTM for "
                "LSTMCell, with the cell's parameters as weight_ih_l0 and so on. " + how
            )
        raise ValueError(
            f"torch.fx does not trace {type(module).__name__}: {error}. {how}"
        ) from error


def _without_defaults(graph: fx.Graph) -> fx.Graph:
    """Return the graph without the checks that an argument is its default, which fx adds."""
    for argument in [node for node in graph.nodes if node.op == "placeholder"]:
        for user in list(argument.users):
            asserts = [one for one in user.users if one.target is torch._assert]
            if user.target is fx._symbolic_trace._assert_is_none:
                graph.erase_node(user)
            elif user.target is operator.eq and asserts and len(asserts) == len(user.users):
                for node in (*asserts, user):
                    graph.erase_node(node)
    return graph


class _Arguments:
    """The arguments of forward, and which of them are inputs of a Model."""

    def __init__(self, module: nn.Module, graph: fx.Graph, convert: Any, inputs: Any) -> None:
        self.modules = dict(module.named_modules())
        double = any(p.dtype == torch.float64 for p in module.parameters())
        self.dtype = "float64" if double else "float32"
        self._graph, self._convert = graph, convert
        self._made: dict[int, Module] = {}
        self.kinds: dict[str, Any] = {}  # by the node: FREE, or the Input
        given = iter(_checked(inputs) if inputs is not None else ())
        for node in graph.nodes:
            if node.op != "placeholder":
                continue
            users = list(node.users)
            if not users or all(map(self._is_beside(node), users)):
                self._check_once(node, users)
                self.kinds[node.name] = FREE
            elif inputs is None:
                self.kinds[node.name] = self._features(node)
            else:
                self.kinds[node.name] = self._next(given, node)
        self.nodes = [name for name, kind in self.kinds.items() if kind is not FREE]
        if (left := len(list(given))) or not self.nodes:
            raise ValueError(
                f"inputs has {left} more than the arguments of forward that are no initial states "
                f"or lengths, {', '.join(self.nodes) or 'which has none'}"
            )
        if len(self.nodes) > _MOST:
            raise ValueError(f"forward takes {len(self.nodes)} arguments, expected up to {_MOST}")

    def module(self, path: str) -> tuple[Any, Module]:
        """Return a module and what it became, which is made once."""
        theirs = self.modules[path]
        if id(theirs) not in self._made:
            self._made[id(theirs)] = self._convert(theirs, f"module {path}")
        return theirs, self._made[id(theirs)]

    def own(self, path: str) -> Own:
        """Return a parameter or buffer of the module itself."""
        owner, _, name = path.rpartition(".")
        tensor = getattr(self.modules[owner], name)
        return Own(tensor, path, isinstance(tensor, nn.Parameter) and tensor.requires_grad)

    def layouts(self) -> Iterator[tuple[bool, dict[str, Order]]]:
        """Go through the ways in which arguments can be laid out: whether the batch is first."""
        choices = [self._choices(self.kinds[name]) for name in self.nodes]
        all_ways = sorted(itertools.product(*choices), key=lambda way: sum(map(len, way)))
        for way in all_ways:
            firsts = {order[0] == "B" for order in way if "T" in order}
            if len(firsts) < 2:
                for first in firsts or {True, False}:
                    yield first, dict(zip(self.nodes, way, strict=True))

    def _choices(self, kind: Any) -> list[Order]:
        if isinstance(kind, Input):
            ids, steps = kind.axes.features is None, kind.axes.steps
            return [
                tuple(axis for axis in order if axis != "F" or not ids)
                for order in _LAYOUTS
                if ("T" in order) == steps and not (ids and order[-1] == "T")
            ]
        return [order[:-1] for order in _LAYOUTS[:3]] if kind is None else list(_LAYOUTS)

    def _is_beside(self, node: fx.Node) -> Callable[[fx.Node], bool]:
        """Return whether a user takes the node as an initial state, or as lengths."""

        def is_it(user: fx.Node) -> bool:
            if user.op == "call_method" and user.target in ("cpu", "to", "tolist"):
                return bool(user.users) and all(map(self._is_beside(user), user.users))
            name = getattr(user.target, "__name__", "")
            if name == _PACKING[0]:
                return _given_first(user) is not node
            if name == "sub" and user.args == (node, 1):  # the last step of each row
                return bool(user.users) and all(map(self._is_beside(user), user.users))
            if name == "getitem":
                return user.args[0] is not node
            if user.op != "call_module":
                return False
            kind = self.modules[str(user.target)]
            if isinstance(kind, _MASKED):
                return user.kwargs.get("src_key_padding_mask") is node
            return isinstance(kind, nn.RNNBase) and _given_first(user) is not node

        return is_it

    def _check_once(self, node: fx.Node, users: list[fx.Node]) -> None:
        layers = [
            user for user in users
            if user.op == "call_module" and not isinstance(self.modules[str(user.target)], _MASKED)
        ]  # fmt: skip
        if len(layers) > 1:
            names = ", ".join(str(user.target) for user in users)
            raise ValueError(
                f"{node.name} is the initial state of {names}: a Model takes one for each layer"
            )

    def _features(self, node: fx.Node) -> int | None:
        """Return the size of the last axis, None for ids, by what takes it first."""
        waiting, seen = [node], {node}
        while waiting:
            one = waiting.pop(0)
            for user in one.users:
                size = self._size_beside(one, user)
                if size is not None:
                    return size
                if user.op == "call_module":
                    theirs, ours = self.module(str(user.target))
                    if ours._takes_ids:
                        return None
                    size = getattr(theirs, "input_size", getattr(theirs, "embed_dim", None))
                    size = ours._input_size if size is None else size
                    if size is not None:
                        return int(size)
                    passes = True
                else:
                    name = _name(user)
                    passes = name in _SAME or name == _PACKING[0] or _is_step(user)
                if passes and user not in seen:
                    seen.add(user)
                    waiting.append(user)
        raise ValueError(
            f"{node.target}, an argument of forward, goes to nothing that tells its size: say what "
            "they all are, inputs=[lc.Input(features, steps=...), ...]"
        )

    def _size_beside(self, node: fx.Node, user: fx.Node) -> int | None:
        """Return the size that follows from what a node stands beside, if it does."""
        if user.op != "call_function":
            return None
        if _name(user) in _ARITHMETIC:
            others = [n for n in user.all_input_nodes if n.op == "get_attr"]
            tensors = [self.own(str(n.target)).tensor for n in others]
            return next((t.shape[-1] for t in tensors if t.ndim and t.shape[-1] > 1), None)
        parts = user.args[0] if user.args else None
        if _name(user) not in ("cat", "concat") or not isinstance(parts, (tuple, list)):
            return None
        sizes = [self._size_made(part) for part in parts if part is not node]
        if None in sizes or len(sizes) != len(parts) - 1:
            return None
        try:
            total = self._features(user)
        except ValueError:
            return None
        return None if total is None else total - sum(n or 0 for n in sizes)

    def _size_made(self, node: Any) -> int | None:
        """Return how many features a module gives, if it tells."""
        if not isinstance(node, fx.Node) or node.op != "call_module":
            return None
        _, ours = self.module(str(node.target))
        return None if ours._state_parts else ours._output_size(None)

    def _next(self, given: Iterator[Input], node: fx.Node) -> Input:
        found = next(given, None)
        if found is None:
            raise ValueError(f"inputs has none for {node.name}, an argument of forward")
        return found


def _checked(inputs: Any) -> Sequence[Input]:
    if not isinstance(inputs, (tuple, list)) or not all(isinstance(x, Input) for x in inputs):
        raise TypeError(f"inputs is {checks.describe(inputs)}, expected a list of lc.Input")
    return inputs


class _Reading:
    """The nodes of a graph, one after the other, with symbols for its arguments."""

    def __init__(
        self,
        graph: fx.Graph,
        arguments: _Arguments,
        first: bool,
        layouts: dict[str, Order],
    ) -> None:
        self._graph, self._arguments = graph, arguments
        self._first, self._layouts = first, layouts
        self._rules = Rules(first, arguments.dtype)
        self._values: dict[fx.Node, Any] = {}
        self._inputs: list[Input] = []
        self._laid_out: dict[int, Module] = {}

    def model(self) -> Model:
        """Return what the nodes compute."""
        for place, node in enumerate(self._graph.nodes):
            try:
                if node.op == "output":
                    return self._output(self._filled(node.args[0]))
                self._values[node] = self._value(node)
            except (ValueError, TypeError, IndexError) as error:
                axes = isinstance(error, Refused) and not error.place[1]
                raise Refused(f"{_text(node)}: {error}", place, axes) from error
        raise AssertionError("a graph has an output")

    def _filled(self, arguments: Any) -> Any:
        return fx.node.map_arg(arguments, lambda node: self._values[node])

    def _value(self, node: fx.Node) -> Any:
        args, options = self._filled(node.args), self._filled(node.kwargs)
        if node.op == "placeholder":
            return self._placeholder(node)
        if node.op == "get_attr":
            return self._arguments.own(str(node.target))
        if node.op == "call_module":
            theirs, ours = self._module(str(node.target))
            self._check_in_place(node, getattr(theirs, "inplace", False))
            return self._rules.module(theirs, ours, args, dict(options))
        name = node.target if isinstance(node.target, str) else node.target.__name__
        self._check_in_place(node, node.kwargs.get("inplace") or name in _IN_PLACE)
        return self._rules.function(node.target, args, dict(options))

    def _check_in_place(self, node: fx.Node, changes: Any) -> None:
        """Refuse to change what another node has, unless it has made something else of it."""
        if not changes:
            return
        modules = self._arguments.modules
        for user in node.all_input_nodes[0].users:
            module = modules.get(str(user.target)) if user.op == "call_module" else None
            copied = user < node and module and not isinstance(module, _HANDED_ON)
            if user is not node and not copied:
                raise Refused(f"it changes in place what node {user.name} takes, too")

    def _module(self, path: str) -> tuple[Any, Any]:
        theirs, ours = self._arguments.module(path)
        if id(theirs) not in self._laid_out:  # once, as calls share it
            self._laid_out[id(theirs)] = _traced.laid_out(ours, self._first)
        return theirs, self._laid_out[id(theirs)]

    def _placeholder(self, node: fx.Node) -> Any:
        kind = self._arguments.kinds[node.name]
        if kind is FREE:
            return FREE
        order = self._layouts[node.name]
        if not isinstance(kind, Input):
            kind = Input(kind, steps="T" in order, ids=kind is None)
        self._inputs.append(kind)
        return Value(kind, order)

    def _output(self, made: Any) -> Model:
        # Of modules, those that are used, in the order in which PyTorch has them.
        theirs = self._arguments.modules.values()
        pairs = [(m, self._laid_out[id(m)]) for m in theirs if id(m) in self._laid_out]
        causal = self._rules.causal
        tie_as_theirs([(m, causal.get(id(ours), ours)) for m, ours in pairs])
        values = leaves(made)
        symbols = [_traced.as_output(value, self._first) for value in values]
        inputs: Any = self._inputs[0] if len(self._inputs) == 1 else list(self._inputs)
        return Model(inputs, rebuilt(made, iter(symbols)))


def _given_first(node: fx.Node) -> Any:
    """Return what a layer or packing takes as its sequence, by position or by name."""
    return node.args[0] if node.args else node.kwargs.get("input")


def _name(node: fx.Node) -> str:
    return (
        node.target if isinstance(node.target, str) else str(getattr(node.target, "__name__", ""))
    )


def _is_step(node: fx.Node) -> bool:
    """Whether it takes a step, or some: the features stay what they are."""
    if _name(node) == "select":
        return len(node.args) > 1 and node.args[1] in (0, 1)
    if _name(node) != "getitem":
        return False
    key = node.args[1]
    keys = key if isinstance(key, tuple) else (key,)
    whole = len(keys) == 3 and keys[2] == slice(None)
    return all(isinstance(k, (int, slice)) for k in keys) and (len(keys) < 3 or whole)


def _text(node: fx.Node) -> str:
    """Return what a message calls a node: its name, and the line of code if that is known."""
    code = node.meta.get("line")
    return f"node {node.name}" + (f", in `{code}`" if code else "")
