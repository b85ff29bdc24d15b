"""ONNX's LSTM, GRU and RNN nodes, and what they are among our layers.

Sizes: D directions, H hidden units, I inputs, G gates. `layouts` has the order of the gates; that
of the peepholes is the same, without g.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from .._base import checks
from .._base.checks import Array
from .._files.layouts import LAYOUTS, reordered
from .._nn.config import Config
from .._nn.layers import GRU, LSTM, RNN
from ._model import Node, Tensor
from .operators import MICROSOFT

Layer: TypeAlias = RNN | LSTM | GRU

LAYERS = {"LSTM": LSTM, "GRU": GRU, "RNN": RNN}
DIRECTIONS = ("forward", "reverse", "bidirectional")
INPUTS = {
    "LSTM": ("X", "W", "R", "B", "sequence_lens", "initial_h", "initial_c", "P"),
    "GRU": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
    "RNN": ("X", "W", "R", "B", "sequence_lens", "initial_h"),
}
WEIGHTS = ("W", "R", "B", "P")
# What activations are for, and their defaults.
ROLES = {"LSTM": ("Sigmoid", "Tanh", "Tanh"), "GRU": ("Sigmoid", "Tanh"), "RNN": ("Tanh",)}
AT_RUN_TIME = ("X", "sequence_lens", "initial_h", "initial_c")
MIDDLE = 128  # of uint8, which stands for 0
# Those of com.microsoft's LSTM whose weights are integers.
QUANTIZED = (*INPUTS["LSTM"], "W_scale", "W_zero_point", "R_scale", "R_zero_point")

# The activations that ONNX knows, and the defaults of alpha and beta if they have them. ONNX says
# that these are those of the operators of the same name; ScaledTanh and Affine are none any more.
_DEFAULTS: dict[str, tuple[float | None, ...]] = {
    "Sigmoid": (),
    "Tanh": (),
    "Relu": (),
    "Softsign": (),
    "Softplus": (),
    "HardSigmoid": (0.2, 0.5),
    "ScaledTanh": (None, None),
    "Affine": (None, None),
    "LeakyRelu": (0.01,),
    "ThresholdedRelu": (1.0,),
    "Elu": (1.0,),
}
# Those of our layers.
_ACTIVATIONS = {
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "Relu": "relu",
    "Softsign": "softsign",
    "HardSigmoid": "hard_sigmoid",
    "ScaledTanh": "scaled_tanh",
    "Affine": "affine",
    "LeakyRelu": "leaky_relu",
    "ThresholdedRelu": "thresholded_relu",
    "Elu": "elu",
    "Softplus": "softplus",
}
# The bias of a forget gate that is always open, by the activation of the gates.
_OPEN = {
    "sigmoid": 100.0,
    "tanh": 100.0,
    "relu": 1.0,
    "identity": 1.0,
    "leaky_relu": 1.0,
    "elu": 1.0,
}


def is_recurrent(node: Node) -> bool:
    """Whether a node is one of those that become layers."""
    if node.domain == MICROSOFT:
        return node.op == "DynamicQuantizeLSTM"
    return not node.domain and node.op in LAYERS


class RecurrentNode(NamedTuple):
    """A node that becomes a layer, and the names of the values that it is given, by their roles."""

    node: Node
    kind: str  # "LSTM", "GRU" or "RNN"
    given: dict[str, str]

    def at_run_time(self) -> dict[str, str]:
        """Return the roles and names of what it is given when it runs."""
        return {role: self.given[role] for role in AT_RUN_TIME if role in self.given}


def resolve(node: Node) -> RecurrentNode:
    """Find out what a recurrent node is given for what."""
    roles = INPUTS.get(node.op, QUANTIZED)
    if len(node.inputs) > len(roles):
        raise ValueError(f"{node} has {len(node.inputs)} inputs, expected {len(roles)} at most")
    given = {role: name for role, name in zip(roles, node.inputs, strict=False) if name}
    for role in ("X", "W", "R"):
        if role not in given:
            raise ValueError(f"{node} has no {role}")
    return RecurrentNode(node, node.op if node.op in LAYERS else "LSTM", given)


class NotOurs(ValueError):
    """What ONNX can say and our layers cannot."""


class Attributes(NamedTuple):
    """What the attributes of a node say."""

    direction: str
    activations: tuple[tuple[tuple[Any, ...], ...], ...]  # of each direction, each (name, alpha...)
    hidden_size: int | None
    clip: float | None
    layout: bool  # whether X is (B, T, I)
    input_forget: bool
    linear_before_reset: bool

    @property
    def directions(self) -> int:
        """D."""
        return 2 if self.direction == "bidirectional" else 1


def layer_of(recurrent: RecurrentNode, constants: Mapping[str, Tensor]) -> Layer:
    """Return the layer that a node is, with its weights; its states and lengths are its callers'.

    With layout=1 the layer is batch_first. The dtype is that of the weights, but float32 for
    float16 and bfloat16. A DynamicQuantizeLSTM whose integers are symmetric, as those of
    `lstmcore.quantize` are, is a layer in int8; of others the weights become real numbers.

    Raises
    ------
    NotOurs
        Naming the attribute that our layers cannot express.
    ValueError
        Naming the attribute or input that is not sound.
    """
    node, kind, _ = recurrent
    weights = weights_of(recurrent, constants)
    said = attributes(node, kind)
    if len(set(said.activations)) > 1:
        raise NotOurs(
            f"{node} has other activations in each direction, which a layer of ours has not; "
            "whole, such a file becomes two layers side by side"
        )
    integers = _integers(recurrent, constants) if node.op == "DynamicQuantizeLSTM" else None
    return _layer(node, kind, said, weights, integers)


def both_directions(recurrent: RecurrentNode, constants: Mapping[str, Tensor]) -> list[Layer]:
    """Return a layer for each direction of a node that has two."""
    node, kind, _ = recurrent
    said, weights = attributes(node, kind), weights_of(recurrent, constants)
    sizes_of(node, kind, weights, said)
    made = []
    for place, direction in enumerate(("forward", "reverse")[: said.directions]):
        activations = said.activations[place : place + 1]
        mine = {name: array[place : place + 1] for name, array in weights.items()}
        one = said._replace(direction=direction, activations=activations)
        made.append(_layer(node, kind, one, mine))
    return made


def _layer(
    node: Node,
    kind: str,
    said: Attributes,
    weights: dict[str, Tensor],
    integers: dict[str, Tensor] | None = None,
) -> Layer:
    options = _options(node, kind, weights, said)
    if integers is not None:
        options["precision"] = "int8"
        weights |= integers
    try:
        kind_of: Any = LAYERS[kind]
        layer: Any = kind_of._from_options({**options, "seed": 0})
    except (ValueError, TypeError) as error:
        raise ValueError(f"{node}: {error}") from error
    layer.load_state_dict(to_state(layer._config, [weights]))
    return layer  # type: ignore[no-any-return]


def weights_of(recurrent: RecurrentNode, constants: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return W, R, and B and P if it has them, as real numbers of the shapes that ONNX says."""
    node, _, given = recurrent
    weights: dict[str, Tensor] = {}
    for name in WEIGHTS:
        if name in given:
            if given[name] not in constants:
                raise ValueError(
                    f"{node} gets its {name} from {given[name]!r}, expected a constant"
                )
            weights[name] = constants[given[name]]
    if node.op == "DynamicQuantizeLSTM":
        for name in ("W", "R"):
            weights[name] = _dequantized(recurrent, constants, name)
    dtypes = {array.dtype for array in weights.values()}
    if len(dtypes) > 1 or any(dtype.kind != "f" for dtype in dtypes):
        found = ", ".join(f"{name} {array.dtype}" for name, array in weights.items())
        raise ValueError(f"{node} has {found}, expected weights of one type of real numbers")
    return weights


def _dequantized(recurrent: RecurrentNode, constants: Mapping[str, Tensor], name: str) -> Array:
    """Return W or R of a DynamicQuantizeLSTM as ONNX's LSTM has it.

    It is transposed there, (D, I, 4H), with a scale and a zero point per direction, or per
    direction and row: (D,) or (D, 4H).
    """
    node, _, given = recurrent
    parts = []
    for part in (name, f"{name}_scale", f"{name}_zero_point"):
        if part not in given or given[part] not in constants:
            raise ValueError(f"{node} has no constant {part}")
        parts.append(constants[given[part]])
    values, scale, zero = parts
    if values.dtype not in (np.int8, np.uint8) or zero.dtype != values.dtype:
        raise ValueError(
            f"{node} has {name} of {values.dtype} and {name}_zero_point of {zero.dtype}, expected "
            "both int8 or both uint8"
        )
    shapes = (values.shape[:1], (*values.shape[:1], *values.shape[2:]))
    if values.ndim != 3 or scale.shape not in shapes or zero.shape != scale.shape:
        raise ValueError(
            f"{node} has {name} of shape {values.shape}, {name}_scale {scale.shape} and "
            f"{name}_zero_point {zero.shape}, expected (D, inputs, 4H) and (D,) or (D, 4H)"
        )
    if scale.dtype != np.float32:
        raise ValueError(f"{node} has {name}_scale of {scale.dtype}, expected float32")
    per_row = scale.reshape(len(scale), 1, -1)
    steps = values.astype(np.int32) - zero.reshape(per_row.shape).astype(np.int32)
    return np.ascontiguousarray((steps * per_row).astype(np.float32).transpose(0, 2, 1))


def _integers(
    recurrent: RecurrentNode, constants: Mapping[str, Tensor]
) -> dict[str, Tensor] | None:
    """Return W and R in int8 as ONNX's LSTM has them, with the scales of their rows.

    None if a zero point is not in the middle, or a matrix has an integer without a negative.
    """
    found: dict[str, Tensor] = {}
    for name in ("W", "R"):
        parts = (recurrent.given[f"{name}{end}"] for end in ("", "_scale", "_zero_point"))
        values, scale, zero = (constants[part] for part in parts)
        steps = signed(values)
        sound = np.isfinite(scale).all() and (scale >= 0).all()
        if signed(zero).any() or not sound or steps.min(initial=0) < -127:
            return None
        found[name] = np.ascontiguousarray(steps.transpose(0, 2, 1))
        rows = found[name].shape[:2]
        found[f"{name}_scale"] = np.broadcast_to(scale.reshape(len(scale), -1), rows)
    return found


# Attributes ---------------------------------------------------------------------------------------


def attributes(node: Node, kind: str) -> Attributes:
    """Return what the attributes of a node say, all of them."""
    left = dict(node.attributes)

    def take(name: str, type_: type, default: Any) -> Any:
        value = left.pop(name, default)
        if value is not default and type(value) is not type_:
            raise ValueError(f"{node} has {name}={value!r}, expected {type_.__name__}")
        return value

    def flag(name: str, there: bool) -> bool:
        value = take(name, int, 0) if there else 0
        if value not in (0, 1):
            raise ValueError(f"{node} has {name}={value}, expected 0 or 1")
        return bool(value)

    direction = take("direction", str, "forward")
    if direction not in DIRECTIONS:
        raise ValueError(f"{node} has direction={direction!r}, expected one of {DIRECTIONS}")
    clip = take("clip", float, None)
    if clip is not None and not clip > 0:
        raise ValueError(f"{node} has clip={clip}, expected more than 0")
    found = Attributes(
        direction=direction,
        activations=_activations(
            node,
            kind,
            2 if direction == "bidirectional" else 1,
            take("activations", list, None),
            take("activation_alpha", list, []),
            take("activation_beta", list, []),
        ),
        hidden_size=take("hidden_size", int, None),
        clip=clip,
        layout=flag("layout", node.opset >= 14 and node.op != "DynamicQuantizeLSTM"),
        input_forget=flag("input_forget", kind == "LSTM"),
        linear_before_reset=flag("linear_before_reset", kind == "GRU"),
    )
    if left:
        raise ValueError(f"{node} has the attribute {next(iter(left))!r}, which is not supported")
    return found


def _options(node: Node, kind: str, weights: dict[str, Tensor], said: Attributes) -> dict[str, Any]:
    """Return the options of the layer, from the attributes and the shapes of the weights."""
    options: dict[str, Any] = sizes_of(node, kind, weights, said)
    options["bidirectional"] = said.directions == 2
    options["reverse"] = said.direction == "reverse"
    options["bias"] = "B" in weights
    dtype = weights["W"].dtype
    options["dtype"] = "float32" if dtype == np.float16 else dtype.name
    options["batch_first"] = said.layout
    if kind == "GRU":
        options["reset_after"] = said.linear_before_reset
    if kind == "LSTM":
        options["peephole"] = "P" in weights
        options["coupled"] = said.input_forget
    roles = tuple(_ours(node, *role) for role in said.activations[0])
    if kind == "RNN":
        options["nonlinearity"] = roles[0]
    elif roles:
        options["activations"] = roles
    if said.clip is not None:
        options["gate_clip"] = said.clip
    return options


def _ours(node: Node, name: str, *parameters: float) -> Any:
    """Return an activation as our layers have it."""
    ours = (_ACTIVATIONS[name], *parameters)
    if ours == ("affine", 1, 0):
        return "identity"
    try:
        return checks.activation(ours, "activation")
    except ValueError as error:
        raise NotOurs(f"{node} has the activation {name!r}: {error}") from None


def sizes_of(
    node: Node, kind: str, weights: Mapping[str, Tensor], said: Attributes
) -> dict[str, int]:
    """Return input_size and hidden_size, once the weights have all the shapes that they should."""
    W, R, directions = weights["W"], weights["R"], said.directions
    H = R.shape[-1] if R.ndim else 0
    if said.hidden_size not in (None, H):
        raise ValueError(f"{node} has hidden_size={said.hidden_size}, but R of shape {R.shape}")
    rows = len(LAYOUTS["onnx"].order(kind.lower())) * H
    inputs = W.shape[-1] if W.ndim else 0
    expected = {
        "W": (directions, rows, inputs),
        "R": (directions, rows, H),
        "B": (directions, 2 * rows),
        "P": (directions, 3 * H),
    }
    for name, array in weights.items():
        if array.shape != expected[name] or not array.size:
            raise ValueError(
                f"{node} has {name} of shape {array.shape}, expected {expected[name]} for "
                f"{directions} directions, {inputs} inputs, {H} hidden units, none of them 0"
            )
    return {"input_size": inputs, "hidden_size": H}


def _activations(
    node: Node,
    kind: str,
    directions: int,
    names: list[str] | None,
    alphas: list[float],
    betas: list[float],
) -> tuple[tuple[tuple[Any, ...], ...], ...]:
    """Return the activations of each direction; alphas and betas go to those that take them."""
    roles = ROLES[kind]
    if names is None:
        if alphas or betas:
            raise ValueError(f"{node} has activation_alpha or activation_beta, but no activations")
        return (tuple((name,) for name in roles),) * directions
    if kind == "RNN" and directions == 1 and names == ["Tanh", "Tanh"]:
        names = names[:1]  # what ONNX calls the default, whatever the direction
    if len(names) != len(roles) * directions:
        raise ValueError(
            f"{node} has {len(names)} activations, expected {len(roles)} for each direction"
        )
    known = {name.lower(): name for name in _DEFAULTS}
    left = list(alphas), list(betas)
    found: list[tuple[Any, ...]] = []
    for name in names:
        if not isinstance(name, str) or name.lower() not in known:
            raise ValueError(
                f"{node} has the activation {name!r}, expected one of {', '.join(_DEFAULTS)}"
            )
        name = known[name.lower()]
        parameters: list[Any] = [
            given.pop(0) if given else default
            for given, default in zip(left, _DEFAULTS[name], strict=False)
        ]
        if None in parameters:
            raise ValueError(
                f"{node} has the activation {name!r} without alpha and beta, which have no default"
            )
        found.append((name, *parameters))
    if any(left):
        raise ValueError(
            f"{node} has more activation_alpha or activation_beta than its activations take"
        )
    n = len(roles)
    return tuple(tuple(found[d * n : d * n + n]) for d in range(directions))


def attributes_of(config: Config) -> dict[str, Any]:
    """Return the attributes of the nodes that a layer becomes."""
    attributes: dict[str, Any] = {"hidden_size": config.hidden_size}
    attributes["direction"] = DIRECTIONS[2 if config.bidirectional else int(config.reverse)]
    if config.kind == "gru":
        attributes["linear_before_reset"] = int(config.reset_after)
    if config.coupled:
        attributes["input_forget"] = 1
    if config.gate_clip is not None:
        attributes["clip"] = config.gate_clip
    roles = (config.nonlinearity,) if config.kind == "rnn" else config.activations or ()
    plain = {"rnn": ("tanh",), "gru": ("sigmoid", "tanh"), "lstm": ("sigmoid", "tanh", "tanh")}
    if roles != plain[config.kind]:
        theirs = {ours: name for name, ours in _ACTIVATIONS.items()}
        names, alphas, betas = [], [], []
        for role in roles * config.directions:
            if role == "identity":
                role = ("affine", 1.0, 0.0)
            name, *numbers = (role,) if isinstance(role, str) else role
            names.append(theirs[name])
            alphas += numbers[:1]
            betas += numbers[1:]
        attributes["activations"] = names
        if alphas:
            attributes["activation_alpha"] = alphas
        if betas:
            attributes["activation_beta"] = betas
    return attributes


# Weights ------------------------------------------------------------------------------------------


def _order(config: Config) -> str:
    """Return the gates of ONNX's node in their order."""
    return LAYOUTS["onnx"].order(config.kind)


def has_node(config: Config) -> bool:
    """Whether ONNX's nodes have all options of a layer; what others are written as is in _scan."""
    roles = (config.nonlinearity,) if config.kind == "rnn" else config.activations or ()
    names = {role if isinstance(role, str) else role[0] for role in roles}
    lacking = names - {*_ACTIVATIONS.values(), "identity"}
    other = config.layer_norm, any(config.zoneouts), config.proj_size, config.cell_clip
    return not any((*other, lacking))


def to_state(config: Config, nodes: list[dict[str, Tensor]]) -> dict[str, Array]:
    """Return the state dict of a layer whose every stacked layer is a node with these weights.

    Of W and R in int8 there are W_scale and R_scale (D, 4H), too.
    """
    theirs, ours = _order(config), config.gate_order
    state = {}
    for level, weights in enumerate(nodes):
        for d in range(config.directions):
            suffix = f"_l{level}" + "_reverse" * d
            state["weight_ih" + suffix] = reordered(weights["W"][d], theirs, ours)
            state["weight_hh" + suffix] = reordered(weights["R"][d], theirs, ours)
            for name, parameter in (("W_scale", "weight_ih"), ("R_scale", "weight_hh")):
                if name in weights:
                    scale = reordered(weights[name][d], theirs, ours)
                    state[f"{parameter}{suffix}_scale"] = scale
            if config.bias:
                both = reordered(weights["B"][d].reshape(2, -1), theirs, ours, axis=1)
                state["bias_ih" + suffix], state["bias_hh" + suffix] = both
            if config.peephole:
                p = reordered(weights["P"][d], _without_g(theirs), _without_g(ours))
                state["weight_ch" + suffix] = p.reshape(config.gates - 1, -1)
    return state


def from_state(config: Config, state: Mapping[str, Array], level: int) -> dict[str, Array]:
    """Return W, R, and B and P if needed, of one stacked layer as an ONNX node: the inverse.

    A forget gate that is not learned gets weights of 0; one that is always open also a bias.
    """
    theirs, ours = _order(config), config.gate_order
    H = config.hidden_size
    weights: dict[str, list[Array]] = {}
    for d in range(config.directions):
        suffix = f"_l{level}" + "_reverse" * d
        for name, parameter in (("W", "weight_ih"), ("R", "weight_hh")):
            weights.setdefault(name, []).append(reordered(state[parameter + suffix], ours, theirs))
            scale = state.get(f"{parameter}{suffix}_scale")
            if scale is not None:
                weights.setdefault(f"{name}_scale", []).append(reordered(scale, ours, theirs))
        if config.bias or not config.forget_gate:
            both = np.zeros((2, len(theirs) * H), config.dtype)
            if config.bias:
                both[0] = reordered(state["bias_ih" + suffix], ours, theirs)
                both[1] = reordered(state["bias_hh" + suffix], ours, theirs)
            if not config.forget_gate:
                f = theirs.index("f") * H
                both[0, f : f + H] = _open_bias(config)
            weights.setdefault("B", []).append(both.reshape(-1))
        if config.peephole:
            p = state["weight_ch" + suffix].reshape(-1)
            p = reordered(p, _without_g(ours), _without_g(theirs))
            weights.setdefault("P", []).append(p)
    return {name: np.stack(parts) for name, parts in weights.items()}


def turned(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of an LSTM in int8 as DynamicQuantizeLSTM has them, or back."""
    return {
        name: np.ascontiguousarray(signed(a).transpose(0, 2, 1)) if name in ("W", "R") else a
        for name, a in weights.items()
    }


def signed(steps: Tensor) -> Tensor:
    """Return integers about 0 of those in uint8 about 128; those in int8 are that."""
    return steps if steps.dtype == np.int8 else (steps.astype(np.int16) - MIDDLE).astype(np.int8)


def unsigned(steps: Tensor) -> Tensor:
    """Return int8 as uint8 about 128: ONNX Runtime's sums of int8 saturate without VNNI."""
    return (steps.astype(np.int16) + MIDDLE).astype(np.uint8)


def _without_g(order: str) -> str:
    return order.replace("g", "")  # which has no peephole


def _open_bias(config: Config) -> float:
    """Return the bias at which the gates' activation gives 1, as `forget_gate=False` means."""
    gate = (config.activations or ("sigmoid",))[0]
    name, *numbers = (gate,) if isinstance(gate, str) else gate
    bias = _OPEN.get(name)
    if name == "hard_sigmoid" and numbers[0]:
        bias = (2 - numbers[1]) / numbers[0]  # 2 before it is bounded
    clip = config.gate_clip
    if bias is None or (clip is not None and abs(bias) > clip):
        raise ValueError(
            f"forget_gate=False is not expressible in ONNX with gates of {gate!r}, clipped to "
            f"{clip}: nothing that goes into them gives 1"
        )
    return bias
