"""ONNX models that run: recurrent nodes on our layers, the nodes between them in NumPy."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .._base import checks
from . import _control, _recurrent, operators
from ._equations import Equations
from ._model import Model, Node, Tensor, Value, all_nodes
from ._plan import Plan, arrays
from ._recurrent import Layer, NotOurs, RecurrentNode

__all__ = ["Graph", "check_known"]


_STATES = ("initial_h", "initial_c")


class _RecurrentStep:
    """A recurrent node: ONNX's axes outside, a layer inside.

    `directed` is whether its y has ONNX's axis of directions, (T, D, B, H), else it is (T, B, D*H).
    """

    def __init__(self, roles: tuple[str, ...], layer: Layer, directed: bool = True) -> None:
        self._layer, self._roles, self._directed = layer, roles, directed
        self._dtype = layer.dtype
        self._dtypes = [self._dtype] * len(roles)
        self._count = len(layer._state_parts)
        whole = ("X", *_STATES[: self._count])  # nothing or all of what a layer takes
        self._plain = roles in (whole, whole[:1]) and not layer.batch_first
        self.bidirectional, self.features = layer.bidirectional, layer._features

    def without_directions(self) -> _RecurrentStep | None:
        """Return what gives y without the axis; None where the node has its axes otherwise."""
        if self._layer.batch_first:
            return None
        return _RecurrentStep(self._roles, self._layer, False)

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        layer: Any = self._layer
        x = values[0]
        if self._plain and x.ndim == 3 and [a.dtype for a in values] == self._dtypes:
            if self._count == 1:
                y, h = layer(*values)
                return (self._outside(y) if self._directed else y), h
            y, (h, c) = layer(x, values[1:] or None)
            return (self._outside(y) if self._directed else y), h, c
        if x.ndim != 3 or x.dtype.kind != "f":
            raise ValueError(f"X is {x.dtype} of shape {x.shape}, expected three axes of reals")
        first = layer.batch_first  # of states only: layout=1
        ours = x.dtype == self._dtype
        given = dict(zip(self._roles, values, strict=True))
        lengths = given.get("sequence_lens")
        parts = [_state(given.get(role), self._dtype, first) for role in _STATES[: self._count]]
        state = parts[0] if self._count == 1 else tuple(parts)
        y, final = layer(x if ours else x.astype(self._dtype), state, lengths=lengths)
        states = final if type(final) is tuple else (final,)
        if self._directed:
            y = self._outside(y)
        if first:
            states = tuple(state.transpose(1, 0, 2) for state in states)
        outputs = (y, *states)
        return outputs if ours else tuple(array.astype(x.dtype) for array in outputs)

    def _outside(self, y: Tensor) -> Tensor:
        """Return y with the axis of directions: (T, D, B, H), or (B, T, D, H) if layout=1."""
        first, layer = self._layer.batch_first, self._layer
        if not layer.bidirectional:
            return y[:, :, None] if first else y[:, None]
        y = y.reshape(*y.shape[:2], 2, layer.hidden_size)
        return y if first else y.transpose(0, 2, 1, 3)


def _state(given: Tensor | None, dtype: np.dtype[Any], batch_first: bool) -> Tensor | None:
    if given is None:
        return None
    wide = given if given.dtype == dtype else given.astype(dtype)
    return wide.transpose(1, 0, 2) if batch_first else wide


class _EquationsStep:
    """A recurrent node that our layers cannot express."""

    def __init__(self, roles: tuple[str, ...], equations: Equations, layout: bool) -> None:
        self._roles, self._equations, self._layout = roles, equations, layout

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self._roles, values, strict=True))
        x = given["X"]
        dtype = self._equations.dtype
        if x.ndim != 3 or x.dtype.kind != "f":
            raise ValueError(f"X is {x.dtype} of shape {x.shape}, expected three axes of reals")
        states = [_state(given.get(role), dtype, self._layout) for role in _STATES]
        time_major = x.swapaxes(0, 1) if self._layout else x
        y, *final = self._equations(
            time_major.astype(dtype, copy=False), states, given.get("sequence_lens")
        )
        if self._layout:
            y, final = y.transpose(2, 0, 1, 3), [a.transpose(1, 0, 2) for a in final]
        return tuple(array.astype(x.dtype, copy=False) for array in (y, *final))


class _WeightsStep:
    """A recurrent node whose weights come when it runs; those of the last call are kept."""

    def __init__(self, recurrent: RecurrentNode, constants: Mapping[str, Tensor]) -> None:
        self._recurrent = recurrent
        given = recurrent.given
        self._constants = {n: constants[n] for n in given.values() if n in constants}
        at_run_time = recurrent.at_run_time()
        self._roles = tuple(at_run_time)
        free = [n for r, n in given.items() if r not in at_run_time and n not in constants]
        self._free = tuple(dict.fromkeys(free))
        self.inputs = (*at_run_time.values(), *self._free)
        self._last: tuple[list[Tensor], Callable[..., Any]] | None = None

    def __call__(self, *values: Any) -> tuple[Tensor, ...]:
        weights = list(values[len(self._roles) :])
        last = self._last
        if last is None or not all(map(_same, weights, last[0])):
            constants = {**self._constants, **dict(zip(self._free, weights, strict=True))}
            run = _step_of(self._recurrent, constants, self._roles)[0]
            last = self._last = [a.copy() for a in weights], run
        found: tuple[Tensor, ...] = last[1](*values[: len(self._roles)])
        return found


def _same(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and np.array_equal(a, b)


def _step_of(
    recurrent: RecurrentNode,
    constants: Mapping[str, Tensor],
    roles: tuple[str, ...],
    layer: Layer | None = None,
) -> tuple[Callable[..., Any], Layer | None]:
    """Return what runs a recurrent node, and its layer if it is one."""
    try:
        layer = layer or _recurrent.layer_of(recurrent, constants)
        return _RecurrentStep(roles, layer), layer
    except NotOurs:
        said = _recurrent.attributes(recurrent.node, recurrent.kind)
        weights = _recurrent.weights_of(recurrent, constants)
        equations = Equations(recurrent.node, recurrent.kind, said, weights)
        return _EquationsStep(roles, equations, said.layout), None


class Graph(Mapping[str, Layer]):
    """A whole ONNX model for inference, as `from_onnx` returns it.

    Call it with the model's inputs, by position or by name. As a mapping it gives the layer of
    every recurrent node by the node's name, or that of its first output if it has none; these are
    the layers that run, so what is written to their parameters changes the model. Nodes whose
    weights come when the model runs, and those with activations that our layers lack, have none.

    Parameters
    ----------
    model : Model
        As `from_onnx` makes it of what it has read.

    Raises
    ------
    ValueError
        Naming what it cannot do.

    Notes
    -----
    It computes what ONNX defines, with three freedoms: recurrent nodes of float16 compute in
    float32; the inputs of a DynamicQuantizeLSTM are rounded row by row if its integers are
    symmetric, else they stay real, as its weights become; a row of length 0 keeps its initial
    state, where ONNX Runtime returns zeros.

    The second call with inputs of some shapes plans for these, and those behind it are faster.
    Their results may differ from those of the first two in rounding.
    """

    __hash__ = object.__hash__

    def __init__(self, model: Model) -> None:
        self._model = model
        self._layers: dict[str, Layer] = {}
        self._prepare()

    def _prepare(self) -> None:
        model = self._model
        check_known(model)
        self._inputs = model.inputs
        self._output_names = tuple(model.outputs)
        self._input_names = tuple(value.name for value in model.inputs)
        self._same: dict[Any, Layer] = {}
        self._varying = _varying(model)
        self._fitted: list[tuple[Any, Any]] = [(None, None)] * len(model.inputs)
        names = self._input_names
        self._plan = Plan(model.nodes, names, model.outputs, model.constants, self._special)
        del self._same, self._varying

    def _special(self, node: Node, constants: Mapping[str, Tensor]) -> Any:
        """Return what runs a recurrent node, and what it is given; None for other nodes."""
        if not _recurrent.is_recurrent(node):
            return None
        recurrent = _recurrent.resolve(node)
        at_run_time = recurrent.at_run_time()
        own = {role: name for role, name in recurrent.given.items() if role not in at_run_time}
        missing = [(role, name) for role, name in own.items() if name not in constants]
        for role, name in missing:
            if name not in self._varying:
                raise ValueError(f"{node} gets its {role} from {name!r}, expected a constant")
        if missing:
            _recurrent.attributes(node, recurrent.kind)
            loose = _WeightsStep(recurrent, constants)
            return loose, loose.inputs
        # For nodes that differ in nothing, the same layer. Two branches can have a name for two
        # arrays, so these are compared, not their names.
        arrays = [(role, id(constants[name])) for role, name in own.items()]
        key = node.op, tuple(arrays), repr(dict(node.attributes))
        roles = tuple(at_run_time)
        known = self._layers.get(node.name) or self._same.get(key)
        run, layer = _step_of(recurrent, constants, roles, known)
        if layer is not None:
            self._layers[node.name] = self._same[key] = layer
        return run, tuple(at_run_time.values())

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in their order."""
        return self._input_names

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in their order."""
        return self._output_names

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        """Run the model.

        Parameters
        ----------
        *inputs : array_like
            In the order of `input_names`. Arrays of real numbers must have the model's dtype.
        **named : array_like
            Or by their names; ``model(**{"input.1": x})`` if that is no Python name.

        Returns
        -------
        ndarray, or tuple of them
            The output, or the outputs in the order of `output_names`. They may share memory with
            each other, with the inputs and with the model: copy before writing to them. One that
            is a sequence is a list.

        Raises
        ------
        TypeError, ValueError
            If inputs are missing or do not fit, naming the input or the node.
        """
        if named or len(inputs) != len(self._inputs):
            inputs = self._in_order(inputs, named)
        given = self._checked(inputs)
        with np.errstate(all="ignore"):
            outputs = arrays(self._plan.run(given))
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _checked(self, inputs: tuple[Any, ...]) -> Sequence[Tensor]:
        """Return the inputs as arrays, or say what does not fit; most are like those before."""
        for array, (dtype, shape) in zip(inputs, self._fitted, strict=True):
            if type(array) is not np.ndarray or array.dtype is not dtype or array.shape != shape:
                break
        else:
            return inputs
        given = [_as_input(a, value) for a, value in zip(inputs, self._inputs, strict=True)]
        self._fitted = [(array.dtype, array.shape) for array in given]
        return given

    def _in_order(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        names = self.input_names
        if len(inputs) > len(names):
            raise TypeError(f"{len(inputs)} inputs are given, expected {len(names)}: {names}")
        given = dict(zip(names, inputs, strict=False))
        for name in named:
            if name in given or name not in names:
                raise TypeError(f"{name!r} is given twice or unknown, expected inputs {names}")
        given |= named
        missing = [name for name in names if name not in given]
        if missing:
            raise TypeError(f"the inputs {missing} are missing, expected {names}")
        return tuple(given[name] for name in names)

    def __getitem__(self, name: str) -> Layer:
        return self._layers[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._layers)

    def __len__(self) -> int:
        return len(self._layers)

    def __bool__(self) -> bool:
        return True

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        text = ", ".join(self.input_names) + " -> " + ", ".join(self.output_names)
        layers = "".join(f"\n  ({name}): {layer!r}" for name, layer in self._layers.items())
        return f"Graph({text}; {len(self._plan)} nodes{layers and ':' + layers})"

    def __getstate__(self) -> dict[str, Any]:
        return {"model": self._model, "layers": self._layers}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._model, self._layers = state["model"], state["layers"]
        self._prepare()


def _varying(model: Model) -> set[str]:
    """Return the names of the values that depend on what the model is given when it is called."""
    found = {value.name for value in model.inputs}
    for node in all_nodes(model.nodes):
        for body in node.bodies():
            found.update(body.inputs)
    for node in all_nodes(model.nodes):
        if not found.isdisjoint(node.uses()):
            found.update(node.outputs)
    return found


def _as_input(given: Any, value: Value) -> Tensor:
    array = given if type(given) is np.ndarray else checks._asarray(given, value.name)
    if array.dtype.kind not in "biufc":
        way = ": write model(**inputs)" if isinstance(given, Mapping) else ""
        raise TypeError(
            f"{value.name} is {checks.describe(given)}, expected an array of {value.dtype}{way}"
        )
    if array.dtype != value.dtype:
        converted = array.astype(value.dtype)
        exact = array.dtype.kind in "biu" and np.array_equal(converted, array)
        if not exact and (hasattr(given, "dtype") or value.dtype.kind != "f"):
            raise TypeError(f"{value.name} has dtype {array.dtype}, expected {value.dtype}")
        array = converted
    shape = value.shape
    if shape is None or shape == array.shape:
        return array
    if len(shape) != array.ndim or any(
        size not in (None, n) for size, n in zip(shape, array.shape, strict=True)
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{value.name} has shape {array.shape}, expected ({expected})")
    return array


def check_known(model: Model) -> None:
    """Refuse a model with operators that we do not know, naming all of them.

    Raises
    ------
    ValueError
        With how many nodes of each kind there are.
    """
    missing = Counter(
        node.kind
        for node in all_nodes(model.nodes)
        if not (_recurrent.is_recurrent(node) or _control.known(node) or operators.known(node))
    )
    if not missing:
        return
    (first, count), *others = missing.most_common()
    parts = [f"{first} ({count} {'node' if count == 1 else 'nodes'})"]
    parts += [f"{kind} ({n})" for kind, n in others]
    recurrent = any(map(_recurrent.is_recurrent, all_nodes(model.nodes)))
    ways = ["pass node= the name of a recurrent node to get that one alone"] if recurrent else []
    if model.producer == "tf2onnx":
        ways.append("from_keras reads the Keras model that it was made of")
    way = f": {', or '.join(ways)}" if ways else ""
    raise ValueError(
        f"the model needs {', '.join(parts)}, not supported in opset {model.opset}{way}"
    )
