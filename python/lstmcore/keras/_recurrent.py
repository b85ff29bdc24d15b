"""The recurrent layers of Keras and ours: options and weights, there and back.

Keras multiplies from the left: x @ kernel + h @ recurrent_kernel + bias, with kernel (I, G*H),
recurrent_kernel (H, G*H) and the gates side by side, in the order that `layouts` has. The bias is
(G*H,), or (2, G*H) where input and state have one each (GRU with reset_after).

cuDNN keeps, for each gate in the same order, the matrices that multiply from the left side of x, as
PyTorch does, and Keras's CuDNNLSTM and CuDNNGRU hold these very numbers in arrays shaped like a
kernel; their bias is (2*G*H,), first that of the input.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from .._base import checks
from .._base.checks import Activation, Array, describe
from .._base.module import Module
from .._files.export_options import not_written
from .._files.layouts import LAYOUTS, OURS, reordered
from .._nn.cells import Cell, GRUCell, LSTMCell, RNNCell
from .._nn.config import MERGES, Config
from .._nn.layers import GRU, LSTM, RNN, Layer
from ._layer import KerasLayer, NoChain, name_of, unstacked

LAYERS: dict[str, Any] = {
    "SimpleRNN": RNN,
    "LSTM": LSTM,
    "GRU": GRU,
    "CuDNNLSTM": LSTM,
    "CuDNNGRU": GRU,
}
CELLS: dict[str, Any] = {"SimpleRNNCell": RNNCell, "LSTMCell": LSTMCell, "GRUCell": GRUCell}

# How Keras 2 and Keras 3 cut their hard_sigmoid(x) = clip(alpha * x + beta, 0, 1).
_HARD_SIGMOID: dict[int, Activation] = {
    2: ("hard_sigmoid", 0.2, 0.5),
    3: ("hard_sigmoid", 1 / 6, 0.5),
}
_ACTIVATIONS: dict[str, Activation] = {
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "relu": "relu",
    "softsign": "softsign",
    "linear": "identity",
    "elu": ("elu", 1.0),
    "selu": "selu",
    "gelu": "gelu",
    "silu": "silu",
    "softplus": "softplus",
    "leaky_relu": ("leaky_relu", 0.2),
    "exponential": "exponential",
    "mish": "mish",
    "hard_silu": "hard_silu",
}
# Names that are read, too: the second of Keras 3, and the one of Keras 2, which has no hard_silu.
_OTHER_NAMES = {"swish": "silu", "hard_swish": "hard_silu"}
# Layers of Keras as activations of others, and the names and defaults of their one option.
_LAYERS_AS_ACTIVATIONS = {
    "LeakyReLU": ("leaky_relu", {"negative_slope": 0.3, "alpha": 0.3}),
    "ELU": ("elu", {"alpha": 1.0}),
}


# Options ------------------------------------------------------------------------------------------


def options(layer: KerasLayer) -> dict[str, Any]:
    """Return what our constructor takes for a recurrent layer or cell of Keras, but for sizes."""
    if layer.kind.startswith("CuDNN"):
        return {"bias": True}
    chosen: dict[str, Any] = {"bias": layer.flag("use_bias", True)}
    squash = _activation(layer, "activation")
    if layer.kind.startswith("SimpleRNN"):
        return chosen | {"nonlinearity": squash}
    gates = _activation(layer, "recurrent_activation")
    if layer.kind.startswith("GRU"):
        reset_after = layer.flag("reset_after", False)  # as before Keras had the option
        return chosen | {"reset_after": reset_after, "activations": (gates, squash)}
    return chosen | {"activations": (gates, squash, squash)}


def keras_options(module: Module, version: int) -> dict[str, Any]:
    """Return what Keras's constructor takes for a layer or cell of ours."""
    config: Config = module._config
    chosen: dict[str, Any] = {
        "units": config.hidden_size,
        "use_bias": config.bias,
        "dtype": config.dtype.name,
    }
    if config.kind == "rnn":
        return chosen | {"activation": _keras_activation(module, "nonlinearity", 0, version)}
    _, *others = config.activations or ()
    if len(set(others)) > 1:
        why = "an LSTM of Keras has one activation for the candidate and the output"
        raise not_written(module, "activations", "Keras", why)
    chosen["recurrent_activation"] = _keras_activation(module, "activations", 0, version)
    chosen["activation"] = _keras_activation(module, "activations", 1, version)
    return chosen | ({"reset_after": config.reset_after} if config.kind == "gru" else {})


def _activation(layer: KerasLayer, name: str) -> Activation:
    value = layer.need(name)
    if value == "hard_sigmoid":
        return _HARD_SIGMOID[layer.version]
    if value is None:
        return "identity"
    if isinstance(value, dict):
        return _of_a_layer(layer, name, value)
    known = _OTHER_NAMES.get(value, value) if isinstance(value, str) else None
    if known not in _ACTIVATIONS:
        names = ", ".join([*_ACTIVATIONS, "hard_sigmoid"])
        raise layer.error(f"has {name}={value!r}, which is not imported; these are: {names}")
    return _ACTIVATIONS[known]


def _of_a_layer(layer: KerasLayer, name: str, value: dict[str, Any]) -> Activation:
    """Return the activation that a layer is, which stands where others have a name."""
    kind, said = value.get("class_name"), value.get("config")
    if kind not in _LAYERS_AS_ACTIVATIONS or not isinstance(said, dict):
        known = " and ".join(_LAYERS_AS_ACTIVATIONS)
        raise layer.error(
            f"has {name} of class {str(kind)[:60]!r}, which is not imported; by their names most "
            f"are, and these layers: {known}"
        )
    ours, options = _LAYERS_AS_ACTIVATIONS[kind]
    given = [said[option] for option in options if option in said] or [*options.values()]
    try:
        return checks.activation((ours, given[0]), name)
    except (TypeError, ValueError) as error:
        raise layer.error(f"has {kind} as its {name}: {error}") from None


def _keras_activation(module: Module, option: str, index: int, version: int) -> Any:
    """Return its name, or the description of the layer that it is in Keras."""
    names = {ours: name for name, ours in _ACTIVATIONS.items()}
    names[_HARD_SIGMOID[version]] = "hard_sigmoid"
    if version < 3:
        names["silu"] = "swish"
        del names["hard_silu"]
    value = getattr(module._config, option)
    activation = value if option == "nonlinearity" else value[index]
    if activation in names:
        return names[activation]
    for kind, (ours, options) in _LAYERS_AS_ACTIVATIONS.items():
        if version > 2 and activation[0] == ours:
            config = {next(iter(options)): activation[1]}
            return {"module": "keras.layers", "class_name": kind, "config": config}
    raise not_written(module, option, "Keras", f"Keras {version} has no {activation!r}")


# Layers -------------------------------------------------------------------------------------------


class Direction(NamedTuple):
    """All there is to know of a recurrent layer of Keras that reads in one direction."""

    kind: type[Any]  # RNN, LSTM or GRU
    options: dict[str, Any]
    weights: dict[str, Array]
    one_bias: bool  # whether Keras has one where ours has two
    sequences: bool  # whether it gives every output, and not the last alone
    backwards: bool

    def same(self, other: Direction) -> bool:
        """Whether they may be the two directions of one layer of ours."""
        shapes = ({name: w.shape for name, w in d.weights.items()} for d in (self, other))
        mine, others = shapes
        return (
            mine == others
            and (self.kind, self.options) == (other.kind, other.options)
            and self.sequences == other.sequences
        )


def direction(layer: KerasLayer) -> Direction:
    """Read a recurrent layer."""
    kind = LAYERS[layer.kind]
    chosen = options(layer)
    weights, one_bias = from_weights(layer, kind._kind, chosen)
    chosen["batch_first"] = not layer.flag("time_major", False)
    layer.flag("return_state", False)  # ours always do
    sequences, backwards = layer.flag("return_sequences", False), layer.flag("go_backwards", False)
    layer.close()
    return Direction(kind, chosen, weights, one_bias, sequences, backwards)


def both_directions(layer: KerasLayer) -> tuple[Direction, Direction, str | None]:
    """Read a Bidirectional layer of one layer: forward, reverse, how they are merged, None if not.

    Raises
    ------
    NoChain
        If its directions are several layers, or two that differ.
    """
    (forward, *more), (reverse, *_), merge = both_ways(layer)
    if more or not forward.same(reverse):
        raise NoChain(
            f"{layer.where} has several layers in each direction, or two that differ: import the "
            "whole model, which has them side by side then"
        )
    return forward, reverse, merge


class BothWays(NamedTuple):
    """The layers of a Bidirectional one, those of each direction one after the other."""

    forward: list[Direction]
    reverse: list[Direction]
    merge: str | None


def both_ways(layer: KerasLayer) -> BothWays:
    """Read a Bidirectional layer, whatever there is in each direction."""
    merge = layer.get("merge_mode", "concat")
    if merge not in (None, *MERGES):
        expected = ", ".join(map(repr, MERGES))
        raise layer.error(f"has merge_mode={describe(merge)}, expected one of {expected}")
    inside, own = layer.need("layer"), layer.get("backward_layer")
    for description in (inside, own or inside):
        name_of(description)
    forward, reverse = (
        [direction(layer.inside(part, LAYERS)) for part in unstacked(description)]
        for description in (inside, own or inside)
    )
    layer.close()
    if forward[0].backwards or not (reverse[0].backwards or own is None):
        raise layer.error("has a forward layer that goes backwards, which is not imported")
    if forward[-1].sequences != reverse[-1].sequences:
        raise layer.error("has return_sequences=True in one of its directions alone")
    return BothWays(forward, reverse, merge)


def make(*directions: Direction, reverse: bool = False, merge: str = "concat") -> Layer[Any]:
    """Make our layer of one or two directions."""
    first = directions[0]
    weights = {
        f"{name}_l0{suffix}": weight
        for part, suffix in zip(directions, ("", "_reverse"))
        for name, weight in part.weights.items()
    }
    w_ih, w_hh = first.weights["weight_ih"], first.weights["weight_hh"]
    layer: Layer[Any] = first.kind(
        w_ih.shape[1],
        w_hh.shape[1],
        bidirectional=len(directions) == 2,
        reverse=reverse,
        merge=merge,
        dtype=w_ih.dtype,
        **first.options,
    )
    layer.load_state_dict(weights)
    for part, suffix in zip(directions, ("", "_reverse")):
        if part.one_bias:
            _freeze(layer, f"bias_hh_l0{suffix}")
    return layer


def _freeze(module: Module, name: str) -> None:
    """Train one of two biases: both would move twice as far as the one that Keras has."""
    dict(module.named_parameters())[name].trainable = False


def make_cell(layer: KerasLayer) -> Cell[Any]:
    """Make our cell of a cell of Keras."""
    kind = CELLS[layer.kind]
    chosen = options(layer)
    weights, one_bias = from_weights(layer, kind._kind, chosen)
    layer.close()
    w_ih, w_hh = weights["weight_ih"], weights["weight_hh"]
    cell: Cell[Any] = kind(w_ih.shape[1], w_hh.shape[1], dtype=w_ih.dtype, **chosen)
    cell.load_state_dict(weights)
    if one_bias:
        _freeze(cell, "bias_hh")
    return cell


# Weights ------------------------------------------------------------------------------------------


def from_weights(
    layer: KerasLayer, kind: str, options: dict[str, Any]
) -> tuple[dict[str, Array], bool]:
    """Take the weights of one direction; return them as ours, and whether there is one bias."""
    theirs, ours = LAYOUTS["keras"].order(kind), OURS.order(kind)
    units = layer.size("units")
    width = len(theirs) * units
    kernel = layer.take("kernel", (None, width))
    recurrent = layer.take("recurrent_kernel", (units, width))
    state: dict[str, Array] = {}
    cudnn = one = False
    if options["bias"]:
        two = kind == "gru" and options.get("reset_after", True)
        shapes: list[tuple[int, ...]] = [(2, width) if two else (width,)]
        if kind == "lstm" or two:
            shapes.append((2 * width,))
        given = layer.take("bias", *shapes)
        cudnn, one = given.shape == (2 * width,), given.shape == (width,)
        both = np.stack([given, np.zeros_like(given)]) if one else given
        both = reordered(both.reshape(2, width), theirs, ours, axis=1)
        state["bias_ih"], state["bias_hh"] = both
    if cudnn:
        kernel, recurrent = (_of_cudnn(matrix, units) for matrix in (kernel, recurrent))
    state["weight_ih"] = reordered(kernel.T, theirs, ours)
    state["weight_hh"] = reordered(recurrent.T, theirs, ours)
    return state, one


def to_weights(config: Config, state: dict[str, Array]) -> list[Array]:
    """Return the weights of one direction as a list for Keras's ``set_weights``."""
    ours, theirs = config.gate_order, LAYOUTS["keras"].order(config.kind)
    weights = [reordered(state[name], ours, theirs).T for name in ("weight_ih", "weight_hh")]
    if config.bias:
        b_ih, b_hh = (reordered(state[name], ours, theirs) for name in ("bias_ih", "bias_hh"))
        if config.kind == "gru" and config.reset_after:
            weights.append(np.stack([b_ih, b_hh]))
        else:
            weights.append(np.where(b_hh == 0, b_ih, b_ih + b_hh))  # keeps the sign of a zero
    return weights


def _of_cudnn(matrix: Array, units: int) -> Array:
    """Return a kernel (N, G*H) whose blocks (N, H) hold the numbers of matrices (H, N)."""
    rows, width = matrix.shape
    blocks = [matrix[:, at : at + units].reshape(units, rows) for at in range(0, width, units)]
    return np.concatenate(blocks).T
