"""ONNX models that run: recurrent nodes on our layers, the simple nodes between them in NumPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._base import checks
from .._nn.layers import GRU, LSTM, RNN
from . import _recurrent, operators
from ._reading import Model, Node, Tensor, Value

__all__ = ["Graph", "Layer", "fold"]

Layer: TypeAlias = RNN | LSTM | GRU

# What a node may raise if its inputs do not fit.
_FAILURES = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class _Step(NamedTuple):
    node: Node
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    drop: tuple[str, ...]  # the values that nobody needs after it


class _RecurrentStep:
    """A recurrent node: ONNX's axes outside, a layer inside."""

    def __init__(self, given: Mapping[str, str], layer: Layer) -> None:
        self._layer = layer
        self._roles = tuple(given)
        self.inputs = tuple(given.values())

    def __call__(self, *values: Tensor) -> tuple[Tensor, ...]:
        given = dict(zip(self._roles, values, strict=True))
        layer = self._layer
        x, dtype = given["X"], layer.dtype
        if x.ndim != 3 or x.dtype.kind != "f":
            raise ValueError(f"X is {x.dtype} of shape {x.shape}, expected three axes of reals")
        swap = (1, 0, 2) if layer.batch_first else (0, 1, 2)  # of states only: layout=1
        h, c = (
            given[role].astype(dtype, copy=False).transpose(swap) if role in given else None
            for role in ("initial_h", "initial_c")
        )
        y, final = layer(
            x.astype(dtype, copy=False),
            h if layer._state_parts == ("h",) else (h, c),  # type: ignore[arg-type]
            lengths=given.get("sequence_lens"),
        )
        y = y.reshape(*y.shape[:2], -1, layer.hidden_size)
        states = final if isinstance(final, tuple) else (final,)
        outputs = [
            y if layer.batch_first else y.transpose(0, 2, 1, 3),
            *(state.transpose(swap) for state in states),
        ]
        return tuple(array.astype(x.dtype, copy=False) for array in outputs)


class Graph(Mapping[str, Layer]):
    """A whole ONNX model for inference, as `from_onnx` returns it.

    Call it with the model's inputs, by position or by name. As a mapping it gives the layer of
    every recurrent node by the node's name, or that of its first output if it has none; these are
    the layers that run, so what is written to their parameters changes the model.

    Parameters
    ----------
    model : Model
        As `reading.read` and `fold` return it.

    Raises
    ------
    ValueError
        Naming the first node that it cannot do.

    Notes
    -----
    It computes what ONNX defines, with three freedoms: recurrent nodes of float16 compute in
    float32; the weights of DynamicQuantizeLSTM become real numbers, and its inputs stay real; a row
    of length 0 keeps its initial state, where ONNX Runtime returns zeros.
    """

    __hash__ = object.__hash__

    def __init__(self, model: Model) -> None:
        self._inputs = model.inputs
        self._output_names = model.outputs
        self._layers: dict[str, Layer] = {}
        self._same: dict[str, Layer] = {}
        steps = [self._step(node, model) for node in model.nodes]
        self._steps = _needed(steps, set(model.outputs))
        used = {name for step in self._steps for name in step.inputs} | set(model.outputs)
        self._constants = {name: a for name, a in model.constants.items() if name in used}

    def _step(self, node: Node, model: Model) -> _Step:
        if not _recurrent.is_recurrent(node):
            return _Step(node, operators.bind(node, model.opset), node.inputs, ())
        recurrent = _recurrent.resolve(node)
        at_run_time = recurrent.at_run_time()
        # For nodes that differ in nothing, the same layer.
        own = {role: name for role, name in recurrent.given.items() if role not in at_run_time}
        key = repr((node.op, own, node.attributes))
        if key not in self._same:
            self._same[key] = _recurrent.layer_of(recurrent, model.constants, model.opset)
        layer = self._layers[node.name] = self._same[key]
        run = _RecurrentStep(at_run_time, layer)
        return _Step(node, run, run.inputs, ())

    @property
    def input_names(self) -> tuple[str, ...]:
        """The names of the inputs, in their order."""
        return tuple(value.name for value in self._inputs)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The names of the outputs, in their order."""
        return tuple(self._output_names)

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
            each other, with the inputs and with the model: copy before writing to them.

        Raises
        ------
        TypeError, ValueError
            If inputs are missing or do not fit, naming the input or the node.
        """
        values = {**self._constants, **self._check(inputs, named)}
        with np.errstate(all="ignore"):
            for node, run, names, drop in self._steps:
                try:
                    results = run(*[values[name] if name else None for name in names])
                except _FAILURES as error:
                    raise ValueError(f"{node}: {error}") from error
                if not isinstance(results, tuple):
                    results = (results,)
                values |= zip(node.outputs, results, strict=False)
                for name in drop:
                    values.pop(name, None)
        try:
            outputs = tuple(values[name] for name in self._output_names)
        except KeyError as error:
            raise ValueError(f"output {error} is one that its node does not have here") from None
        return outputs[0] if len(outputs) == 1 else outputs

    def _check(self, inputs: tuple[Any, ...], named: dict[str, Any]) -> dict[str, Tensor]:
        """Return the inputs by name, of the model's dtypes and shapes."""
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
        return {value.name: _as_input(given[value.name], value) for value in self._inputs}

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
        return f"Graph({text}; {len(self._steps)} nodes{layers and ':' + layers})"


def _as_input(given: Any, value: Value) -> Tensor:
    array = checks._asarray(given, value.name)
    if array.dtype != value.dtype:
        converted = array.astype(value.dtype)
        exact = array.dtype.kind in "biu" and np.array_equal(converted, array)
        if not exact and (hasattr(given, "dtype") or value.dtype.kind != "f"):
            raise TypeError(f"{value.name} has dtype {array.dtype}, expected {value.dtype}")
        array = converted
    shape = value.shape
    if shape is not None and (
        len(shape) != array.ndim
        or any(size not in (None, n) for size, n in zip(shape, array.shape, strict=True))
    ):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{value.name} has shape {array.shape}, expected ({expected})")
    return array


def _needed(steps: list[_Step], needed: set[str]) -> list[_Step]:
    """Return the steps that the needed values come from, knowing what to drop after each."""
    kept = []
    for step in reversed(steps):
        if needed.isdisjoint(step.node.outputs):
            continue
        unused = {name for name in step.node.outputs if name not in needed}
        last = {name for name in step.inputs if name and name not in needed}
        needed |= last
        kept.append(step._replace(drop=tuple(last | unused)))
    return kept[::-1]


def fold(model: Model) -> Model:
    """Return the model with the values that only rearrange constants as constants themselves.

    Exporters leave weights to be sliced, joined, transposed or dequantised by nodes. Files that
    would grow much by that are left as they are.
    """
    constants = dict(model.constants)
    tensors = [a for n in model.nodes for a in n.attributes.values() if isinstance(a, np.ndarray)]
    left = 8 * sum(a.nbytes for a in (*constants.values(), *tensors)) + 2**20
    nodes = []
    for node in model.nodes:
        inputs = [constants.get(name) for name in node.inputs]
        growth = operators.REARRANGING.get(node.op, 0) if not node.domain else 0
        most = growth * sum(a.nbytes for a in inputs if a is not None)
        absent = any(name and name not in constants for name in node.inputs)
        if not growth or absent or most > left:
            nodes.append(node)
            continue
        run = operators.bind(node, model.opset)
        try:
            with np.errstate(all="ignore"):
                results = run(*inputs)
        except _FAILURES as error:
            raise ValueError(f"{node}: {error}") from error
        results = results if isinstance(results, tuple) else (results,)
        for name, result in zip(node.outputs, results, strict=False):
            constants[name] = result
            if not any(a is not None and np.may_share_memory(a, result) for a in inputs):
                left -= result.nbytes
    return model._replace(nodes=nodes, constants=constants)
