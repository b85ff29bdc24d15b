"""What `to_onnx` does: a chain of modules, or a network of any shape, becomes an ONNX model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._base import checks
from ..._base.module import Module
from ..._base.symbolic import Axes
from ..._base.tree import leaves
from ..._files.export_options import check_options
from ..._network.arrays import Dot, Extreme, Join, Reduce, SoftmaxOver
from ..._network.operations import Affine, Binary, Concat, Index, Operation, Repeat, Stack
from ..._network.plan import Plan, Step
from ..._nn.layers import Layer
from ...attention import Additive, Attention, MultiHead, ScaledDotProduct
from .. import _description
from .._reading import read, require
from ._exporting import _linear, _Writer

OPSETS = (13, 22)  # from where Squeeze takes its axes as an input, to what this was tried with
_MOST = 2**31 - 2**20  # bytes: what a protocol buffer can have, less room for the graph
_END = 2**62  # of a slice: past every axis


def export(module: Any, states: bool, lengths: bool, opset: int) -> Any:
    """Return the ``onnx.ModelProto`` of a layer or model, as `to_onnx` says."""
    onnx = require()
    if not isinstance(module, Module):
        what = checks.describe(module)
        raise TypeError(f"layer_or_model is {what}, expected a layer or a model")
    states = checks.boolean(states, "states")
    lengths = checks.boolean(lengths, "lengths")
    opset = checks.integer(opset, "opset", OPSETS[0])
    if opset > OPSETS[1]:
        raise ValueError(f"opset is {opset}, expected {OPSETS[0]} to {OPSETS[1]}")
    nbytes = sum(p.size * p.dtype.itemsize for p in module.parameters())
    if nbytes > _MOST:
        raise ValueError(f"{nbytes} bytes of parameters are more than an ONNX file holds, {_MOST}")
    if module._network is None:
        writer = _chain(module, states, lengths, opset)
    else:
        writer = _NetworkWriter(module, states, opset)
        writer.write(lengths)
    helper = onnx.helper
    graph = helper.make_graph(
        writer.nodes, "lstmcore", writer.inputs, writer.outputs, writer.initializers
    )
    imports = [helper.make_opsetid("", opset)]
    version = helper.find_min_ir_version_for(imports)
    domains = {node.domain for node in writer.nodes} - {""}
    imports += [helper.make_opsetid(domain, 1) for domain in sorted(domains)]
    proto = helper.make_model(
        graph, opset_imports=imports, ir_version=version, producer_name="lstmcore"
    )
    helper.set_model_props(proto, {_description.KEY: _description.describe(module, read(proto))})
    return proto


def _check_uses(states: bool, layers: Any, past: Any, lengths: bool, timed: Any) -> None:
    if states and not layers:
        raise ValueError("states=True needs a recurrent layer, and there is none")
    if states and past:
        raise ValueError(
            f"states=True, but {past[0]!r} needs past steps of x, which no state of a file has: "
            "expected states=False and whole sequences"
        )
    if lengths and not timed:
        raise ValueError("lengths=True needs a module that takes lengths, and there is none")


def _chain(module: Module, states: bool, lengths: bool, opset: int) -> _Writer:
    """Write modules that follow each other, or one alone: the input x, the output y."""
    modules = module._chain()
    layers = [m for _, m in modules if m._state_parts]
    timed = [m for _, m in modules if m._knows_time]
    past = [m for _, m in modules if m._past_steps]
    _check_uses(states, layers, past, lengths, timed)
    dtype = next((m.dtype for _, m in modules if hasattr(m, "dtype")), np.dtype("f4"))
    batch_first = any(getattr(m, "batch_first", False) for _, m in modules)
    w = _Writer(opset, dtype, batch_first, states, len(layers) == 1)
    first = modules[0][1]
    size = first._input_size
    shape = w.axes(None if first._takes_ids else size or "features")
    if not getattr(first, "_takes_time", True):
        shape, w.pooled = ["batch", size or "features"], True
    w.x = w.input("x", np.dtype("i8") if first._takes_ids else dtype, shape)
    y = w.claim("y")
    if lengths:
        w.lengths = w.input("lengths", np.dtype("i8"), ["batch"])
    for path, m in modules:
        w.module(path, m)
        size = m._output_size(size)
    w.user_layout()
    features = size or "features"
    w.outputs.insert(0, w.output(w.x, y, ["batch", features] if w.pooled else w.axes(features)))
    return w


class _NetworkWriter(_Writer):
    """The graph of a network, call by call.

    Values with steps may be there as the user has them and as (T, B, F), ONNX's own layout.
    """

    def __init__(self, model: Any, states: bool, opset: int) -> None:
        self._plan: Plan = model._network
        dtype = model.dtype or next((d for _, d in self._plan.given if d), np.dtype("f4"))
        alone = sum(not step.past for step in self._plan.free) == 1
        super().__init__(opset, dtype, model.batch_first, states, alone)
        self._paths = {id(child): name for name, child in model._children.items()}
        # Of every slot, its names: as the user has it, and if it has steps and is laid out
        # otherwise, as (T, B, F).
        self._values: dict[int, dict[bool, str]] = {}
        self._step: Step | None = None  # the call that is being written
        self.ends: dict[int, str] = {}  # of every slot whose rows have lengths: their name
        self._final: dict[str, list[str]] = {}  # the final state of its layers
        self._ahead: str | None = None  # which keys are no later than a query, if that matters

    def write(self, lengths: bool) -> None:
        """Write everything."""
        plan = self._plan
        timed = [step for step in plan.steps if step.module._knows_time]
        layers = [step for step in plan.free if not step.past]
        past = [step.module for step in plan.free if step.past]
        _check_uses(self._states, layers, past, lengths, timed)
        names = plan.input_names or _names(plan.inputs, "x")
        times = self._times(names)
        for slot, (name, (axes, dtype)) in enumerate(zip(names, plan.given, strict=True)):
            kind = np.dtype("i8") if axes.features is None else dtype or self._dtype
            self._time = times.get(slot, self._time)
            self._values[slot] = {False: self.input(name, kind, self._shape(axes))}
        claimed = [self.claim(name) for name in plan.output_names or _names(plan.outputs, "y")]
        ends = self.ends = self._lengths_of_slots(names) if lengths else {}
        for step in plan.steps:
            self._step = step
            self.lengths = next((ends[s] for s in step.given if s in ends), None)
            self._call(step)
        made = []
        for slot, name in zip(plan.last, claimed, strict=True):
            if plan.finds or len(set(times.values())) > 1:
                self._time = f"{name}.time"
            self.prefix = f"{name}."
            made.append(self.output(self._value_of(slot), name, self._shape(plan.axes[slot])))
        self.outputs[:0] = made

    def _times(self, names: list[str]) -> dict[int, str]:
        """Return what the axis of time of each input is called: the same where values meet."""
        groups = self._plan.lengths_together
        several = len(groups) > 1
        return {
            slot: f"{names[min(group)]}.time" if several else self._time
            for group in groups
            for slot in group
        }

    def _lengths_of_slots(self, names: list[str]) -> dict[int, str]:
        """Add the inputs for lengths: one for all inputs that must have the same."""
        plan = self._plan
        told = [slot for step in plan.steps if step.module._knows_time for slot in step.given]
        groups = [(group, plan.slots_of(group)) for group in plan.lengths_together]
        used = [(group, slots) for group, slots in groups if not set(told).isdisjoint(slots)]
        found: dict[int, str] = {}
        for group, slots in used:
            name = "lengths" if len(used) == 1 else f"{names[min(group)]}.lengths"
            found |= dict.fromkeys(slots, self.input(name, np.dtype("i8"), ["batch"]))
        return found

    def _shape(self, axes: Axes) -> list[Any]:
        if axes.shown:  # the weights of an attention
            return ["batch", *(f"{self.prefix}{name}" for name in ("queries", "keys"))]
        if axes.steps:
            return self.axes(axes.features)
        lead = [axes.states, "batch"] if axes.states else ["batch"]
        return lead if axes.features is None else [*lead, axes.features]

    # Values ---------------------------------------------------------------------------------------

    def _value_of(self, slot: int, time_major: bool = False) -> str:
        """Return the name of a value as the user has it, or as (T, B, F), which is made if need be.

        What has no steps has one layout, and so has everything if the user has (T, B, F).
        """
        made = self._values[slot]
        both = self._batch_first and self._plan.axes[slot].steps
        if not both:
            return made[False]
        if time_major not in made:
            made[time_major] = str(self.node("Transpose", [made[not time_major]], perm=[1, 0, 2]))
        return made[time_major]

    def _load(self, step: Step) -> None:
        """Make what a call takes first the x of the module that is to be written."""
        slot = step.xs[0]
        assert slot is not None
        timed = self._batch_first and self._plan.axes[slot].steps
        # In whichever layout it is, unless the module needs ONNX's.
        self._swapped = timed and (step.module._knows_time or False not in self._values[slot])
        self.x = self._value_of(slot, self._swapped)
        self.pooled = not self._plan.axes[slot].steps

    def _call(self, step: Step) -> None:
        module = step.module
        if isinstance(module, Operation):
            self.prefix = ""
            self._values[step.outs[0]] = _written(self, module, step)
            return
        if type(module) in _ATTENTION:
            self._attention(step)
            return
        self._load(step)
        self.module(self._paths[id(module)], module)
        self._values[step.outs[0]] = {self._swapped: self.x}
        for slot, parts in zip(step.outs[1:], self._final.values(), strict=False):
            name = parts[0] if len(parts) == 1 else str(self.node("Concat", parts, axis=0))
            self._values[slot] = {False: name}
        self._final = {}

    def _attention(self, step: Step) -> None:
        module, path = step.module, self._paths[id(step.module)]
        scores, options = _ATTENTION[type(module)]
        check_options(module, options, "ONNX", path)
        self.prefix = f"{path}."
        query, key, value = (self._rows_first(slot) for slot in step.xs if slot is not None)
        valid = None if self.lengths is None else self._valid(key)
        if valid is not None:  # weights of 0 are not enough: what is past the end may be NaN
            there = self.node("Unsqueeze", [valid, self.integers(2)])
            key, value = (self.node("Where", [there, x, self.number(0)]) for x in (key, value))
        self._ahead = self._looking_back(query, key) if module._config.causal else None
        y, weights = scores(self, module, (query, key, value), valid)
        self._values[step.outs[0]] = {
            False: y if self._batch_first else str(self.node("Transpose", [y], perm=[1, 0, 2]))
        }
        self._values[step.outs[1]] = {False: weights}

    def _rows_first(self, slot: int) -> str:
        """Return the name of a value with steps as (B, T, F)."""
        x = self._value_of(slot)
        if self._batch_first:
            return x
        return self.once(("rows", x), lambda: str(self.node("Transpose", [x], perm=[1, 0, 2])))

    def _valid(self, key: str) -> str:
        """Return a mask (B, S) of the keys that are there."""
        assert self.lengths is not None
        count = self.node("Gather", [self.node("Shape", [key]), self.whole(1)])
        steps = self.node("Range", [self.whole(0), count, self.whole(1)])
        ends = self.node("Unsqueeze", [self.lengths, self.integers(1)])
        return str(self.node("Less", [steps, ends]))

    def _looking_back(self, query: str, key: str) -> str:
        """Return a mask (T, S) of the keys that are no later than each query."""
        counts = [
            self.node("Gather", [self.node("Shape", [x]), self.whole(1)]) for x in (query, key)
        ]
        steps = [self.node("Range", [self.whole(0), n, self.whole(1)]) for n in counts]
        column = self.node("Unsqueeze", [steps[0], self.integers(1)])
        return str(self.node("GreaterOrEqual", [column, steps[1]]))

    def shares(self, scores: str, valid: str | None, *inner: int) -> str:
        """Return the softmax of scores, over the keys that are there; 0 where there is none.

        `inner` are the axes of the scores between those of the rows and of the keys.
        """
        if self._ahead is not None:
            scores = self.node("Where", [self._ahead, scores, self.number(-np.inf)])
        if valid is None:
            return str(self.node("Softmax", [scores], axis=-1))
        there = self.node("Unsqueeze", [valid, self.integers(*inner)])
        masked = self.node("Where", [there, scores, self.number(-np.inf)])
        weights = self.node("Softmax", [masked], axis=-1)
        some = self.node("Unsqueeze", [self.some(), self.integers(*inner)])
        return str(self.node("Where", [some, weights, self.number(0)]))

    # States, which layers ask for while they are written ------------------------------------------

    def state_input(self, layer: Layer[Any], letter: str) -> str | None:
        """Return what the network gives as an initial state, or the input for it."""
        assert self._step is not None
        if not self._step.wired:
            return super().state_input(layer, letter)
        slot = dict(zip("hc", leaves(self._step.args[1]), strict=False)).get(letter)
        return None if slot is None else self._value_of(slot)

    def state_output(self, layer: Layer[Any], letter: str, parts: list[str]) -> None:
        """Keep a final state for the calls that take it, and add the output for it."""
        assert self._step is not None
        self._final[letter] = parts
        if not self._step.wired:
            super().state_output(layer, letter, parts)


def _names(tree: Any, alone: str) -> list[str]:
    """Return what the inputs or outputs of a structure are called: x, or x0 and x1, or the keys."""

    def parts(tree: Any, name: str) -> list[str]:
        if isinstance(tree, dict):
            dot = "" if name == alone else f"{name}."
            return [one for key, part in tree.items() for one in parts(part, f"{dot}{key}")]
        if isinstance(tree, tuple):
            return [one for i, part in enumerate(tree) for one in parts(part, f"{name}{i}")]
        return [name or alone]

    return parts(tree, alone)


# Operations ---------------------------------------------------------------------------------------


def _together(w: _NetworkWriter, step: Step) -> tuple[list[str], bool]:
    """Return the names of what a call takes, all in one layout, and whether that is (T, B, F)."""
    slots: list[int] = [slot for slot in step.xs if slot is not None]
    timed = [slot for slot in slots if w._plan.axes[slot].steps]
    # As the user has it, unless more are (T, B, F) already.
    swapped = sum(True in w._values[slot] for slot in timed) * 2 > len(timed)
    return [w._value_of(slot, swapped) for slot in slots], swapped


def _written(w: _NetworkWriter, module: Operation, step: Step) -> dict[bool, str]:
    """Write an operation; return the names of what it gives."""
    if type(module) not in _OPERATIONS:
        raise ValueError(f"{module!r} is between the modules, which is not written as ONNX")
    if module._needs_whole_sequence and not w.ends.keys().isdisjoint(step.xs):
        raise ValueError(f"{module!r} takes steps past the ends of rows, whose lengths are given")
    return _OPERATIONS[type(module)](w, module, step)


def _binary(w: _NetworkWriter, module: Binary, step: Step) -> dict[bool, str]:
    given, swapped = _together(w, step)
    op = {"add": "Add", "subtract": "Sub", "multiply": "Mul"}[module._config.kind]
    return {swapped: str(w.node(op, given))}


def _affine(w: _NetworkWriter, module: Affine, step: Step) -> dict[bool, str]:
    (x,), swapped = _together(w, step)
    scale, shift = module._given
    if scale != 1:
        x = w.node("Mul", [x, w.number(scale)])
    if shift:
        x = w.node("Add", [x, w.number(shift)])
    return {swapped: x}


def _concat(w: _NetworkWriter, module: Concat, step: Step) -> dict[bool, str]:
    given, swapped = _together(w, step)
    return {swapped: str(w.node("Concat", given, axis=-1))}


def _repeat(w: _NetworkWriter, module: Repeat, step: Step) -> dict[bool, str]:
    x, like = step.xs
    assert x is not None
    assert like is not None
    swapped = True in w._values[like]
    first = w._batch_first and not swapped  # whether y is (B, T, F)
    sizes = w.node("Shape", [w._value_of(like, swapped)])
    time = w.node("Gather", [sizes, w.integers(int(first))])
    ones = w.integers(1)
    shape = w.node("Concat", [ones, time, ones] if first else [time, ones, ones], axis=0)
    column = w.node("Unsqueeze", [w._value_of(x), w.integers(int(first))])
    return {swapped: str(w.node("Expand", [column, shape]))}


def _index(w: _NetworkWriter, module: Index, step: Step) -> dict[bool, str]:
    (x,), swapped = _together(w, step)
    kind, *bounds = module._given
    if kind == "new":
        return {swapped: str(w.node("Unsqueeze", [x, w.integers(0)]))}
    if kind == "layer":
        return {swapped: str(w.node("Gather", [x, w.whole(bounds[0])], axis=0))}
    start, stop, by = bounds
    by = 1 if by is None else by
    ends = (0, _END) if by > 0 else (_END, -_END)
    start, stop = (end if b is None else b for b, end in zip((start, stop), ends, strict=True))
    axis = 0 if kind == "layers" else -1
    return {swapped: str(w.node("Slice", [x, *map(w.integers, (start, stop, axis, by))]))}


def _stack(w: _NetworkWriter, module: Stack, step: Step) -> dict[bool, str]:
    given, _ = _together(w, step)
    layers = [w.node("Unsqueeze", [x, w.integers(0)]) for x in given]
    return {False: str(w.node("Concat", layers, axis=0))}


def _softmax_over(w: _NetworkWriter, module: SoftmaxOver, step: Step) -> dict[bool, str]:
    (x,) = _rows(w, module, step)
    return {False: str(w.node("Softmax", [x], axis=module._config.axis))}


def _reduce(w: _NetworkWriter, module: Reduce, step: Step) -> dict[bool, str]:
    kind, axis, keep, *_ = module._given
    op = {"sum": "ReduceSum", "mean": "ReduceMean", "max": "ReduceMax"}[kind]
    (x,) = _rows(w, module, step)
    y = w.reduce(op, x, axis)
    return {False: str(w.node("Unsqueeze", [y, w.integers(axis)])) if keep else y}


def _extreme(w: _NetworkWriter, module: Extreme, step: Step) -> dict[bool, str]:
    op = "Max" if module._given[0] == "maximum" else "Min"
    return {False: str(w.node(op, _rows(w, module, step)))}


def _join(w: _NetworkWriter, module: Join, step: Step) -> dict[bool, str]:
    return {False: str(w.node("Concat", _rows(w, module, step), axis=module._given[0]))}


def _dot(w: _NetworkWriter, module: Dot, step: Step) -> dict[bool, str]:
    first, second, ranks, _ = module._given
    if list(ranks) != [2, 2]:
        raise ValueError(f"{module!r} is of rows without steps, which is not written as ONNX")
    a, b = _rows(w, module, step)
    a = a if first == 2 else w.node("Transpose", [a], perm=[0, 2, 1])
    b = b if second == 1 else w.node("Transpose", [b], perm=[0, 2, 1])
    return {False: str(w.node("MatMul", [a, b]))}


def _rows(w: _NetworkWriter, module: Any, step: Step) -> list[str]:
    """Return what it takes with the batch first, which networks with these have."""
    slots = [slot for slot in step.xs if slot is not None]
    if any(w._plan.axes[slot].inner for slot in (*slots, step.outs[0])):
        raise ValueError(f"{module!r} has axes between time and features, not written as ONNX")
    return [w._value_of(slot) for slot in slots]


_OPERATIONS: dict[type[Operation], Callable[[_NetworkWriter, Any, Step], dict[bool, str]]] = {
    Affine: _affine,
    Binary: _binary,
    Concat: _concat,
    Dot: _dot,
    Extreme: _extreme,
    Index: _index,
    Join: _join,
    Reduce: _reduce,
    Repeat: _repeat,
    SoftmaxOver: _softmax_over,
    Stack: _stack,
}


# Attention, of (B, T, E), (B, S, K) and (B, S, V) ------------------------------------------------


_Given = tuple[str, str, str]


def _scaled(
    w: _NetworkWriter, module: ScaledDotProduct, given: _Given, valid: str | None
) -> tuple[str, str]:
    query, key, value = given
    assert w._step is not None
    size = w._plan.axes[w._step.xs[0] or 0].features or 1
    scale = size**-0.5 if module.scale is None else module.scale
    query = w.node("Mul", [query, w.number(scale)])
    scores = w.node("MatMul", [query, w.node("Transpose", [key], perm=[0, 2, 1])])
    weights = w.shares(scores, valid, 1)
    return str(w.node("MatMul", [weights, value])), weights


def _additive(
    w: _NetworkWriter, module: Additive, given: _Given, valid: str | None
) -> tuple[str, str]:
    query, key, value = given
    sums = [w.node("Unsqueeze", [x, w.integers(axis)]) for x, axis in ((query, 2), (key, 1))]
    bent = w.node("Tanh", [w.node("Add", sums)])
    if module.scale:
        scores = w.node("MatMul", [bent, w.parameter(module, "weight")])
    else:
        scores = w.reduce("ReduceSum", bent, 3)
    weights = w.shares(scores, valid, 1)
    return str(w.node("MatMul", [weights, value])), weights


def _multi_head(
    w: _NetworkWriter, module: MultiHead, given: _Given, valid: str | None
) -> tuple[str, str]:
    size, count = module.embed_dim, module.num_heads
    thirds = w.integers(size, size, size)
    names = list(module._parameters)
    matrices = [w.parameter(module, name) for name in names if name.endswith("weight")]
    if len(matrices) == 1:
        matrices = w.node("Split", [matrices[0], thirds], 3, axis=0)
    projected = [
        w.node("MatMul", [x, w.node("Transpose", [matrix], perm=[1, 0])])
        for x, matrix in zip(given, matrices, strict=True)
    ]
    if module.bias:
        biases = w.node("Split", [w.parameter(module, "in_proj_bias"), thirds], 3, axis=0)
        projected = [w.node("Add", list(pair)) for pair in zip(projected, biases, strict=True)]
    projected[0] = w.node("Mul", [projected[0], w.number((size // count) ** -0.5)])
    shape, orders = w.integers(0, 0, count, size // count), ((0, 2, 1, 3), (0, 2, 3, 1))
    query, key, value = (
        w.node("Transpose", [w.node("Reshape", [x, shape])], perm=list(orders[i == 1]))
        for i, x in enumerate(projected)
    )
    weights = w.shares(w.node("MatMul", [query, key]), valid, 1, 2)
    heads = w.node("Transpose", [w.node("MatMul", [weights, value])], perm=[0, 2, 1, 3])
    w.x = w.node("Reshape", [heads, w.integers(0, 0, size)])
    mean = w.reduce("ReduceMean", weights, 1)
    w.prefix += "out_proj."
    _linear(w, module._children["out_proj"])  # type: ignore[arg-type]
    return w.x, mean


# How each is written, and which of its options.
_ATTENTION: dict[type[Attention], tuple[Callable[..., tuple[str, str]], tuple[str, ...]]] = {
    ScaledDotProduct: (_scaled, ("scale", "batch_first", "causal")),
    Additive: (_additive, ("size", "scale", "batch_first", "causal", "dtype")),
    MultiHead: (
        _multi_head,
        (
            "embed_dim",
            "num_heads",
            "dropout",
            "bias",
            "kdim",
            "vdim",
            "batch_first",
            "causal",
            "dtype",
        ),
    ),
}
