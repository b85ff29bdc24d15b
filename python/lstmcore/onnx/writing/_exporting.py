"""How modules become nodes of ONNX graphs.

Inside a graph sequences are (T, B, F), ONNX's own layout; batch_first is a transposition at either
end. Values, nodes and weights bear the names of the parameters they come from.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..._base.module import Module
from ..._files.export_options import check_options
from ..._nn.activations import (
    ELU,
    GELU,
    Activation,
    LeakyReLU,
    LogSoftmax,
    PReLU,
    ReLU,
    Sigmoid,
    SiLU,
    Softmax,
    Softplus,
    Tanh,
)
from ..._nn.conv import Conv1D
from ..._nn.dropout import Dropout
from ..._nn.embedding import Embedding
from ..._nn.layers import GRU, LSTM, RNN, Layer
from ..._nn.linear import Linear
from ..._nn.normalization import BatchNorm, LayerNorm
from ..._nn.pooling import BothEnds, LastStep, MaxPool, MeanPool
from ..._nn.time_reversal import Flip
from ..._shapes.rows import Permute, RepeatVector, Reshape
from ..._shapes.steps import AvgPool1D, MaxPool1D, Pad1D, UpSample1D
from .. import _description, _recurrent
from .._model import Tensor
from .._reading import require
from ..operators import MICROSOFT
from . import _scan

_IN_INT8 = (
    "its weights are in int8, which ONNX has in Linear, Embedding and LSTM alone, and there "
    "without layer_norm, zoneout, proj_size and cell_clip"
)
_INSIDE = " in a Sequential: call that with a lc.Input, and export the lc.Model of what comes of it"


class _Writer:
    """A graph as it grows; `x` is the value that the next module takes.

    Parameters
    ----------
    opset : int
    dtype : dtype
        Of the model.
    batch_first : bool
        Whether the user's arrays are (B, T, F).
    states : bool
        Whether states are inputs and outputs.
    alone : bool
        Whether one layer has a state, so that it needs no name.
    """

    x: str

    def __init__(
        self, opset: int, dtype: np.dtype[Any], batch_first: bool, states: bool, alone: bool
    ) -> None:
        self._onnx = require()
        self._opset = opset
        self.nodes: list[Any] = []
        self.inputs: list[Any] = []
        self.outputs: list[Any] = []
        self.initializers: list[Any] = []
        self.prefix = ""  # of the names of what belongs to the module that is being written
        self._names: set[str] = set()
        self._shared: dict[Any, str] = {}  # values that are needed more than once
        self._lengths: str | None = None
        self._time = "time"  # what the axis of steps is called
        self._dtype, self._batch_first = dtype, batch_first
        self._states, self._alone = states, alone
        self._swapped = False  # whether x is (T, B, F) where the user has (B, T, F)
        self.pooled = False  # whether x has no steps any more

    def module(self, path: str, module: Module) -> None:
        """Write a module: x becomes what it gives. `path` is where it stands, for names."""
        if type(module) not in _MODULES:
            name = f"module {path}, {module!r}," if path else repr(module)
            how = f": {module._instead}" if module._instead else ""
            if module._network is not None:
                how = _INSIDE
            if not path and module._lengths_of == 1:
                how = ", but a lc.Model of what it gives for lc.Input is"
            raise ValueError(f"{name} is not expressible in ONNX{how}")
        write, options = _MODULES[type(module)]
        check_options(module, options, "ONNX", path, in_int8=True)
        self.prefix = f"{path}." if path else ""
        try:
            write(self, module)
        except _Inexpressible as error:
            raise ValueError(f"module {path or 'to export'}, {module!r}: {error}") from None

    # Building blocks ------------------------------------------------------------------------------

    def axes(self, last: Any) -> list[Any]:
        """Return the axes of the user's arrays with steps, of which ids have no last one."""
        axes: list[Any] = ["batch", self._time] if self._batch_first else [self._time, "batch"]
        return axes if last is None else [*axes, last]

    def input(self, name: str, dtype: np.dtype[Any], shape: list[Any]) -> str:
        """Add an input of the graph."""
        name = self._unused(name)
        self.inputs.append(self._value(name, dtype, shape))
        return name

    def claim(self, name: str) -> str:
        """Keep a name for an output of the graph; return it, or the like if something has it."""
        return self._unused(name)

    def output(self, x: str, claimed: str, shape: list[Any]) -> Any:
        """Give a value the claimed name of an output; return what the graph says of that."""
        make = self._onnx.helper.make_node
        self.nodes.append(make("Identity", [x], [claimed], name=claimed))
        return self._value(claimed, self._dtype, shape)

    def _value(self, name: str, dtype: np.dtype[Any], shape: list[Any]) -> Any:
        helper = self._onnx.helper
        return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(dtype), shape)

    def _unused(self, name: str) -> str:
        """Return a name that nothing has yet, and take it."""
        unique, count = name, 1
        while unique in self._names:
            count += 1
            unique = f"{name}_{count}"
        self._names.add(unique)
        return unique

    def node(
        self, op: str, inputs: list[str], count: int = 1, *, name: str = "", **attributes: Any
    ) -> Any:
        """Add a node, and return the name of its output, or the list of them if count is not 1."""
        name = self._unused(name or self.prefix + op.lower())
        outputs = [name] if count == 1 else [self._unused(f"{name}_{i}") for i in range(count)]
        node = self._onnx.helper.make_node(op, inputs, outputs, name=name, **attributes)
        self.nodes.append(node)
        return name if count == 1 else outputs

    def weight(self, array: Tensor, name: str) -> str:
        """Add an initializer, or return that of this module and name which is there."""

        def add() -> str:
            unique = self._unused(self.prefix + name)
            value = np.ascontiguousarray(array)
            self.initializers.append(self._onnx.numpy_helper.from_array(value, unique))
            return unique

        return self.once(("weight", self.prefix, name), add)

    def parameter(self, module: Module, name: str) -> str:
        """Add a parameter as an initializer of its name and shape."""
        return self.weight(self.array(module, name), name)

    def array(self, module: Module, name: str) -> Tensor:
        """Return a parameter as it is now, not copied."""
        return np.asarray(dict(module._named())[name]._storage)

    def integers(self, *values: int) -> str:
        """Return a constant, (N,)."""
        return self._constant(np.array(values, np.int64))

    def whole(self, value: int) -> str:
        """Return a constant of int64, ()."""
        return self._constant(np.array(value, np.int64))

    def number(self, value: float) -> str:
        """Return a constant of the model's dtype, ()."""
        return self._constant(np.array(value, self._dtype))

    def _constant(self, array: Tensor) -> str:
        key = (array.dtype, array.shape, array.tobytes())
        if key not in self._shared:
            name = self._unused("constant")
            self.initializers.append(self._onnx.numpy_helper.from_array(array, name))
            self._shared[key] = name
        return self._shared[key]

    def once(self, key: Any, make: Callable[[], str]) -> str:
        """Return a value that is made when it is first needed."""
        if key not in self._shared:
            self._shared[key] = make()
        return self._shared[key]

    def reduce(self, op: str, x: str, axis: int, *, keep: bool = False) -> str:
        """Add a reduction over an axis, which goes, or keeps a size of 1."""
        if self._opset >= 18 or op == "ReduceSum":
            return str(self.node(op, [x, self.integers(axis)], keepdims=int(keep)))
        return str(self.node(op, [x], axes=[axis], keepdims=int(keep)))

    def joined(self, merge: str, parts: list[str]) -> str:
        """Return what becomes of the features of two directions."""
        if merge == "concat":
            return str(self.node("Concat", parts, axis=-1))
        y = self.node("Mul" if merge == "mul" else "Add", parts)
        return str(self.node("Mul", [y, self.number(0.5)])) if merge == "ave" else str(y)

    def scan(
        self,
        step: Callable[[list[str], list[str]], tuple[list[str], str]],
        initial: list[str],
        scanned: list[str],
        back: bool,
    ) -> list[str]:
        """Add a Scan over the first axis; return the names of the final state and of all y.

        `step` adds the nodes of one step, of the state before it and what it is given of each value
        that is scanned, and returns the state after it and y. What is shared inside has to be a
        constant, or there before.
        """
        helper = self._onnx.helper
        before = [self._unused(f"{self.prefix}before") for _ in initial]
        given = [self._unused(f"{self.prefix}given") for _ in scanned]
        outer, self.nodes = self.nodes, []
        after, y = step(before, given)
        made = [str(self.node("Identity", [name])) for name in (*after, y)]
        inside, self.nodes = self.nodes, outer
        untyped = helper.make_empty_tensor_value_info
        names = [[untyped(n) for n in part] for part in ((*before, *given), made)]
        found: list[str] = self.node(
            "Scan",
            [*initial, *scanned],
            len(made),
            body=helper.make_graph(inside, f"{self.prefix}step", *names),
            num_scan_inputs=len(scanned),
            scan_input_directions=[int(back)] * len(scanned),
            scan_output_directions=[int(back)],
        )
        return found

    # Time -----------------------------------------------------------------------------------------

    def time_major(self) -> None:
        """Make x (T, B, F)."""
        if self._batch_first and not self._swapped:
            self._swap()

    def user_layout(self) -> None:
        """Make x (B, T, F) if the user has it so."""
        if self._swapped:
            self._swap()

    def _swap(self) -> None:
        self.x = self.node("Transpose", [self.x], perm=[1, 0, 2])
        self._swapped = not self._swapped

    def pool(self, x: str) -> None:
        """Say that x is (B, F) from now on."""
        self.x = x
        self._swapped = False
        self.pooled = True

    @property
    def lengths(self) -> str | None:
        """The lengths of x, (B,) of int64, if they are an input."""
        return self._lengths

    @lengths.setter
    def lengths(self, name: str | None) -> None:
        self._lengths = name

    def short_lengths(self) -> str:
        """The lengths as recurrent nodes take them, or "" for none."""
        if self._lengths is None:
            return ""
        lengths, kind = self._lengths, self._onnx.TensorProto.INT32
        name = f"{lengths}_32"
        return self.once(name, lambda: str(self.node("Cast", [lengths], to=kind, name=name)))

    def compared(self, op: str, minus: int = 0) -> str:
        """Return a mask (T, B, 1): each step against the lengths, less a number."""
        assert self._lengths is not None
        lengths = self._lengths

        def steps() -> str:
            shape = self.node("Shape", [self.x])
            time = self.node("Gather", [shape, self.whole(0)])
            zero, one = (self.whole(n) for n in (0, 1))
            return str(self.node("Range", [zero, time, one], name="steps"))

        column = self.once(("steps", lengths), steps)
        column = self.node("Unsqueeze", [column, self.integers(1, 2)])
        ends = self.node("Unsqueeze", [lengths, self.integers(1)])
        if minus:
            ends = self.node("Sub", [ends, self.integers(minus)])
        return str(self.node(op, [column, ends]))

    def change_lengths(self, minus: int, divisor: int) -> None:
        """Say that rows have max(lengths - minus, 0) // divisor steps from now on."""
        self._time = f"{self.prefix}time"
        if self._lengths is not None:
            some = self.node("Sub", [self._lengths, self.integers(minus)])
            some = self.node("Max", [some, self.integers(0)])
            self._lengths = self.node("Div", [some, self.integers(divisor)])

    def zero_past_ends(self) -> None:
        """Make x, (T, B, F), zero past the end of each row, if there are lengths."""
        if self._lengths is not None:
            self.x = self.node("Where", [self.compared("Less"), self.x, self.number(0)])

    def some(self) -> str:
        """Return a mask (B, 1) of the rows that have steps."""
        assert self._lengths is not None
        ends = self.node("Unsqueeze", [self._lengths, self.integers(1)])
        return str(self.node("Greater", [ends, self.integers(0)]))

    def state_input(self, layer: Layer[Any], letter: str) -> str | None:
        """Add an input for an initial state, (L*D, B, H), if states are asked for."""
        if not self._states:
            return None
        shape = self._state_shape(layer, letter)
        return self.input(self._state_name(letter + "0"), self._dtype, shape)

    def state_output(self, layer: Layer[Any], letter: str, parts: list[str]) -> None:
        """Add an output for a final state, from those of every stacked layer."""
        if self._states:
            name = self.node("Concat", parts, axis=0, name=self._state_name(letter + "n"))
            self.outputs.append(self._value(name, self._dtype, self._state_shape(layer, letter)))

    def _state_name(self, name: str) -> str:
        return name if self._alone else self.prefix + name

    def _state_shape(self, layer: Layer[Any], letter: str) -> list[Any]:
        config = layer._config
        size = config.output_size if letter == "h" else config.hidden_size
        return [config.num_layers * config.directions, "batch", size]


class _Inexpressible(Exception):
    """What ONNX has no way to say."""


# Modules ------------------------------------------------------------------------------------------


def _layer(w: _Writer, layer: Layer[Any]) -> None:
    if layer._quantized and not (
        layer._config.kind == "lstm" and _recurrent.has_node(layer._config)
    ):
        raise _Inexpressible(_IN_INT8)
    w.time_major()
    final = _nodes(w, layer) if _recurrent.has_node(layer._config) else _scan.write(w, layer)
    for letter, parts in final.items():
        w.state_output(layer, letter, parts)


def _nodes(w: _Writer, layer: Layer[Any]) -> dict[str, list[str]]:
    """Write a recurrent node for each stacked layer; return the final states by their letter."""
    config = layer._config
    op = config.kind.upper()
    state = layer.state_dict()
    try:
        weights = [_recurrent.from_state(config, state, n) for n in range(config.num_layers)]
        attributes = _recurrent.attributes_of(config)
    except ValueError as error:
        raise _Inexpressible(str(error)) from None
    if layer._quantized:
        op, weights = "DynamicQuantizeLSTM", [_quantized(one) for one in weights]
    letters = "hc" if config.kind == "lstm" else "h"
    D = config.directions
    initial = {letter: w.state_input(layer, letter) for letter in letters}
    final: dict[str, list[str]] = {letter: [] for letter in letters}
    for level, arrays in enumerate(weights):
        given = {name: w.weight(array, f"{name}_l{level}") for name, array in arrays.items()}
        given |= {"X": w.x, "sequence_lens": w.short_lengths()}
        for letter, value in initial.items():
            if value is not None and config.num_layers > 1:
                ends = [w.integers(level * D), w.integers(level * D + D), w.integers(0)]
                value = w.node("Slice", [value, *ends])
            given[f"initial_{letter}"] = value or ""
        roles = _recurrent.INPUTS.get(op, _recurrent.QUANTIZED)
        inputs = [given.get(name, "") for name in roles]
        while not inputs[-1]:
            inputs.pop()
        y, *last = w.node(
            op,
            inputs,
            1 + len(letters),
            name=f"{w.prefix}{config.kind}_l{level}",
            **({"domain": MICROSOFT} if layer._quantized else {}),
            **attributes,
        )
        for letter, value in zip(letters, last, strict=True):
            final[letter].append(value)
        w.x = _merged(w, layer, y)
    return final


def _quantized(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a DynamicQuantizeLSTM, with zero points."""
    made = _recurrent.turned(weights)
    for name in ("W", "R"):
        made[name] = _recurrent.unsigned(made[name])
        made[f"{name}_zero_point"] = np.full(
            made[f"{name}_scale"].shape, _recurrent.MIDDLE, np.uint8
        )
    return made


def _merged(w: _Writer, layer: Layer[Any], y: str) -> str:
    """Return (T, B, F) from the (T, D, B, H) of a node."""
    if not layer.bidirectional:
        return str(w.node("Squeeze", [y, w.integers(1)]))
    if layer.merge == "concat":
        beside = w.node("Transpose", [y], perm=[0, 2, 1, 3])
        return str(w.node("Reshape", [beside, w.integers(0, 0, 2 * layer.hidden_size)]))
    parts = w.node("Split", [y, w.integers(1, 1)], 2, axis=1)
    return w.joined(layer.merge, [w.node("Squeeze", [part, w.integers(1)]) for part in parts])


def _linear(w: _Writer, linear: Linear) -> None:
    # As tools that quantise or merge products expect it: a constant, inputs first.
    weight = linear.state_dict()["weight"].T
    name = "weight" + _description.TRANSPOSED
    transposed = w.weight(_recurrent.unsigned(weight) if linear._quantized else weight, name)
    if linear._quantized:
        steps, scale, zero = w.node("DynamicQuantizeLinear", [w.x], 3)
        middle = w.weight(np.array(_recurrent.MIDDLE, np.uint8), "weight_zero_point")
        sums = w.node("MatMulInteger", [steps, transposed, zero, middle])
        real = w.node("Cast", [sums], to=w._onnx.TensorProto.FLOAT)
        scales = w.node("Mul", [w.parameter(linear, "weight_scale"), scale])
        w.x = w.node("Mul", [real, scales])
    else:
        w.x = w.node("MatMul", [w.x, transposed])
    if linear.bias:
        w.x = w.node("Add", [w.x, w.parameter(linear, "bias")])


def _embedding(w: _Writer, embedding: Embedding) -> None:
    ids = w.x
    w.x = w.node("Gather", [w.parameter(embedding, "weight"), ids])
    if embedding._quantized:
        real = w.node("Cast", [w.x], to=w._onnx.TensorProto.FLOAT)
        scales = w.node("Gather", [w.parameter(embedding, "weight_scale"), ids])
        w.x = w.node("Mul", [real, w.node("Unsqueeze", [scales, w.integers(-1)])])


def _layer_norm(w: _Writer, norm: LayerNorm) -> None:
    if w._opset < 17:
        raise _Inexpressible(f"it needs opset 17, and opset is {w._opset}")
    if len(norm.normalized_shape) > 1:
        w.user_layout()
    if norm.elementwise_affine:
        given = [w.parameter(norm, name) for name in ("weight", "bias")[: 1 + norm.bias]]
    else:
        given = [w.weight(np.ones(norm.normalized_shape, norm.dtype), "ones")]
    axis = -len(norm.normalized_shape)
    w.x = w.node("LayerNormalization", [w.x, *given], axis=axis, epsilon=norm.eps)


def _batch_norm(w: _Writer, norm: BatchNorm) -> None:
    """Features are the second axis there; a row past its end is 0."""
    state = norm.state_dict()
    if not norm.affine:
        size = norm.num_features
        state |= {"weight": np.ones(size, norm.dtype), "bias": np.zeros(size, norm.dtype)}
    names = ("weight", "bias", "running_mean", "running_var")
    given = [w.weight(state[name], name) for name in names]
    if w.pooled:
        w.x = w.node("BatchNormalization", [w.x, *given], epsilon=norm.eps)
        return
    if w.lengths is not None:
        w.time_major()
    turned = w.node("Transpose", [w.x], perm=[0, 2, 1])
    y = w.node("BatchNormalization", [turned, *given], epsilon=norm.eps)
    w.x = w.node("Transpose", [y], perm=[0, 2, 1])
    w.zero_past_ends()


def _conv(w: _Writer, conv: Conv1D) -> None:
    """Features are the second axis there; what is past the end of a row counts as zeros."""
    w.time_major()
    w.zero_past_ends()
    given = [w.parameter(conv, name) for name in ("weight", "bias")[: 1 + conv.bias]]
    y = w.node(
        "Conv",
        [w.node("Transpose", [w.x], perm=[1, 2, 0]), *given],
        kernel_shape=[conv.kernel_size],
        strides=[conv.stride],
        dilations=[conv.dilation],
        pads=list(conv._pads),
        group=conv.groups,
    )
    w.x = w.node("Transpose", [y], perm=[2, 0, 1])
    if conv._changes_lengths:
        w.change_lengths(conv._reach + 1 - sum(conv._pads) - conv.stride, conv.stride)
    w.zero_past_ends()


def _dropout(w: _Writer, dropout: Dropout) -> None:
    """Inference drops nothing."""


def _activation(w: _Writer, module: Module) -> None:
    w.x = w.node(_ACTIVATIONS[type(module)], [w.x])


def _prelu(w: _Writer, prelu: PReLU) -> None:
    w.x = w.node("PRelu", [w.x, w.parameter(prelu, "weight")])


def _gelu(w: _Writer, gelu: GELU) -> None:
    if gelu.approximate == "none":
        w.x = _scan.function_of(w, w.x, "gelu")
        return
    if w._opset >= 20:
        w.x = w.node("Gelu", [w.x], approximate="tanh")
        return
    cube = w.node("Mul", [w.x, w.node("Mul", [w.x, w.x])])
    bent = w.node("Add", [w.x, w.node("Mul", [cube, w.number(0.044715)])])
    share = w.node("Tanh", [w.node("Mul", [bent, w.number((2 / np.pi) ** 0.5)])])
    half = w.node("Mul", [w.x, w.number(0.5)])
    w.x = w.node("Mul", [half, w.node("Add", [share, w.number(1)])])


def _silu(w: _Writer, silu: SiLU) -> None:
    w.x = _scan.function_of(w, w.x, "silu")


def _elu(w: _Writer, elu: ELU) -> None:
    w.x = _scan.function_of(w, w.x, "elu", elu.alpha)


def _leaky_relu(w: _Writer, leaky: LeakyReLU) -> None:
    w.x = _scan.function_of(w, w.x, "leaky_relu", leaky.negative_slope)


def _softplus(w: _Writer, softplus: Softplus) -> None:
    scaled = w.x if softplus.beta == 1 else w.node("Mul", [w.x, w.number(softplus.beta)])
    y = w.node("Softplus", [scaled])
    if softplus.beta != 1:
        y = w.node("Div", [y, w.number(softplus.beta)])
    # Above the threshold y is x, which ONNX's operator has only as far as rounding goes.
    limit, precision = softplus.threshold, np.finfo(w._dtype).eps
    if np.log1p(np.exp(-limit)) > limit * precision / 4:
        y = w.node("Where", [w.node("Greater", [scaled, w.number(limit)]), w.x, y])
    w.x = y


def _softmax(w: _Writer, softmax: Softmax | LogSoftmax) -> None:
    w.x = w.node(type(softmax).__name__, [w.x], axis=-1)


def _last_step(w: _Writer, pool: LastStep) -> None:
    w.time_major()
    w.pool(_last(w, w.x))


def _last(w: _Writer, x: str) -> str:
    if w.lengths is None:
        return _step(w, x, -1)
    there = w.node("Where", [w.compared("Equal", minus=1), x, w.number(0)])
    return w.reduce("ReduceSum", there, 0)


def _step(w: _Writer, x: str, t: int) -> str:
    return str(w.node("Gather", [x, w.whole(t)], axis=0))


def _both_ends(w: _Writer, pool: BothEnds) -> None:
    w.time_major()
    sizes = w.node("Shape", [w.x])
    features = w.node("Gather", [sizes, w.integers(2)])
    half = w.node("Div", [features, w.integers(2)])
    end, axis = w.integers(2**62), w.integers(2)
    forward = w.node("Slice", [w.x, w.integers(0), half, axis])
    reverse = w.node("Slice", [w.x, half, end, axis])
    parts = [_last(w, forward), _step(w, reverse, 0)]
    if w.lengths is not None:
        parts[1] = w.node("Where", [w.some(), parts[1], w.number(0)])
    w.pool(w.joined(pool.merge, parts))


def _mean_pool(w: _Writer, pool: MeanPool) -> None:
    w.time_major()
    if w.lengths is None:
        w.pool(w.reduce("ReduceMean", w.x, 0))
        return
    there = w.node("Where", [w.compared("Less"), w.x, w.number(0)])
    steps = w.node("Max", [w.node("Unsqueeze", [w.lengths, w.integers(1)]), w.integers(1)])
    kind = w._onnx.helper.np_dtype_to_tensor_dtype(w._dtype)
    count = w.node("Cast", [steps], to=kind)
    w.pool(w.node("Div", [w.reduce("ReduceSum", there, 0), count]))


def _max_pool(w: _Writer, pool: MaxPool) -> None:
    w.time_major()
    if w.lengths is None:
        w.pool(w.reduce("ReduceMax", w.x, 0))
        return
    there = w.node("Where", [w.compared("Less"), w.x, w.number(-np.inf)])
    most = w.reduce("ReduceMax", there, 0)
    w.pool(w.node("Where", [w.some(), most, w.number(0)]))


def _permute(w: _Writer, module: Permute) -> None:
    _rows(
        w, module.given, module.order, lambda x: w.node("Transpose", [x], perm=[0, *module.order])
    )


def _reshape(w: _Writer, module: Reshape) -> None:
    shape = w.integers(0, *module.shape)  # 0 keeps the size of the batch
    _rows(w, module.given, module.shape, lambda x: w.node("Reshape", [x, shape]))


def _repeat_vector(w: _Writer, module: RepeatVector) -> None:
    def repeated(x: str) -> str:
        column = w.node("Unsqueeze", [x, w.integers(1)])
        return str(w.node("Tile", [column, w.integers(1, module.steps, 1)]))

    _rows(w, (None,), (None, None), repeated)


def _rows(w: _Writer, given: Any, made: Any, write: Callable[[str], str]) -> None:
    """Write what takes and gives rows (B, ...), whatever the layout is."""
    if max(len(given), len(made)) > 2:
        raise _Inexpressible("it has axes between time and features")
    if w.lengths is not None and len(given) > 1:
        raise _Inexpressible("it makes other steps, whose lengths are not written")
    if len(given) > 1:
        w.time_major()
        w.x = w.node("Transpose", [w.x], perm=[1, 0, 2])
    y = write(w.x)
    if len(made) < 2:
        w.pool(y)
        return
    w.x, w._swapped, w.pooled = y, False, False
    w._time = f"{w.prefix}time"
    if w._batch_first:
        return
    w.x = w.node("Transpose", [w.x], perm=[1, 0, 2])


def _pad(w: _Writer, pad: Pad1D) -> None:
    """Write steps of zeros, or fewer steps; of rows with ends those behind them are zeros, too."""
    w.time_major()
    w.zero_past_ends()
    pads = w.integers(pad.left, 0, 0, pad.right, 0, 0)
    if w.lengths is not None and pad.right < 0:
        raise _Inexpressible("it leaves out steps at the ends of rows of several lengths")
    w.x = w.node("Pad", [w.x, pads, w.number(0)])
    w.change_lengths(-pad.left - pad.right, 1)


def _up_sample(w: _Writer, module: UpSample1D) -> None:
    w.time_major()
    size, one = w.integers(module.size), w.integers(1)
    column = w.node("Unsqueeze", [w.x, one])
    wide = w.node("Tile", [column, w.node("Concat", [one, size, one, one], axis=0)])
    last = w.node("Slice", [w.node("Shape", [w.x]), one, w.integers(3), w.integers(0)])
    shape = w.node("Concat", [w.integers(-1), last], axis=0)
    w.x = w.node("Reshape", [wide, shape])
    w._time = f"{w.prefix}time"
    if w.lengths is not None:
        w.lengths = w.node("Mul", [w.lengths, w.whole(module.size)])


def _window_pool(w: _Writer, pool: MaxPool1D | AvgPool1D) -> None:
    """Features are the second axis there; of rows with ends the last windows differ."""
    if w.lengths is not None and pool.padding == "same":
        raise _Inexpressible("its windows reach over the ends of rows, whose lengths are given")
    w.time_major()
    most = type(pool) is MaxPool1D
    said: dict[str, Any] = {"kernel_shape": [pool.size], "strides": [pool.stride]}
    if pool.padding == "same":
        said["auto_pad"] = "SAME_UPPER"
    turned = w.node("Transpose", [w.x], perm=[1, 2, 0])
    y = w.node("MaxPool" if most else "AveragePool", [turned], **said)
    w.x = w.node("Transpose", [y], perm=[2, 0, 1])
    w.change_lengths(pool.size - pool.stride, pool.stride)
    w.zero_past_ends()


def _named(w: _Writer, activation: Activation) -> None:
    numbers = (1 / 6, 0.5) if activation.name == "hard_sigmoid" else ()
    w.x = _scan.function_of(w, w.x, activation.name, *numbers)


def _flip(w: _Writer, flip: Flip) -> None:
    w.time_major()
    if w.lengths is None:
        backwards = [w.integers(n) for n in (-1, -(2**62), 0, -1)]
        w.x = w.node("Slice", [w.x, *backwards])
        return
    w.x = w.node("ReverseSequence", [w.x, w.lengths], batch_axis=1, time_axis=0)
    w.zero_past_ends()


_ACTIVATIONS: dict[type[Module], str] = {Tanh: "Tanh", ReLU: "Relu", Sigmoid: "Sigmoid"}

# The modules that are written, how, and which of their options. Left out are options that act in
# training only: dropout of every kind, forget_bias, padding_idx, sparse, momentum, frozen.
_LAYER = (
    "input_size", "hidden_size", "num_layers", "bias", "batch_first", "dropout", "input_dropout",
    "recurrent_dropout", "weight_dropout", "bidirectional", "reverse", "merge", "gate_clip",
    "zoneout", "layer_norm", "dtype",
)  # fmt: skip
_LSTM = (
    "proj_size", "forget_gate", "coupled", "peephole", "cell_clip", "activations", "forget_bias",
)  # fmt: skip
_MODULES: dict[type[Module], tuple[Callable[[_Writer, Any], None], tuple[str, ...]]] = {
    RNN: (_layer, (*_LAYER, "nonlinearity")),
    LSTM: (_layer, (*_LAYER, *_LSTM)),
    GRU: (_layer, (*_LAYER, "reset_after", "activations")),
    **dict.fromkeys(_ACTIVATIONS, (_activation, ())),
    Softmax: (_softmax, ()),
    LogSoftmax: (_softmax, ()),
    GELU: (_gelu, ("approximate",)),
    SiLU: (_silu, ()),
    ELU: (_elu, ("alpha",)),
    LeakyReLU: (_leaky_relu, ("negative_slope",)),
    PReLU: (_prelu, ("num_parameters", "init", "dtype")),
    Softplus: (_softplus, ("beta", "threshold")),
    Linear: (_linear, ("in_features", "out_features", "bias", "dtype")),
    Embedding: (_embedding, ("num_embeddings", "embedding_dim", "padding_idx", "sparse", "dtype")),
    LayerNorm: (_layer_norm, ("normalized_shape", "eps", "elementwise_affine", "bias", "dtype")),
    BatchNorm: (
        _batch_norm,
        ("num_features", "eps", "momentum", "affine", "frozen", "batch_first", "dtype"),
    ),
    Conv1D: (
        _conv,
        (
            "in_channels",
            "out_channels",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "groups",
            "bias",
            "batch_first",
            "dtype",
        ),
    ),
    Activation: (_named, ("name",)),
    AvgPool1D: (_window_pool, ("size", "stride", "padding", "batch_first")),
    MaxPool1D: (_window_pool, ("size", "stride", "padding", "batch_first")),
    Pad1D: (_pad, ("left", "right", "batch_first")),
    Permute: (_permute, ("given", "order", "batch_first")),
    RepeatVector: (_repeat_vector, ("steps", "batch_first")),
    Reshape: (_reshape, ("given", "shape", "batch_first")),
    UpSample1D: (_up_sample, ("size", "batch_first")),
    Dropout: (_dropout, ("p",)),
    LastStep: (_last_step, ("batch_first",)),
    BothEnds: (_both_ends, ("merge", "batch_first")),
    MeanPool: (_mean_pool, ("batch_first",)),
    MaxPool: (_max_pool, ("batch_first",)),
    Flip: (_flip, ("batch_first",)),
}
