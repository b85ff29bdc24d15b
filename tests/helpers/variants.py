"""Variants of the layers, random inputs for them, and the reference beside them."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from lstmcore import _core, reference

__all__ = [
    "CELLS", "STACKS", "Cell", "Options", "Result", "assert_close", "assert_same_bits", "cells",
    "dtypes", "make", "masks_of", "of_a_cell", "reference_forward", "reference_step", "stacks",
    "states_of", "train_step",
]  # fmt: skip

Options = dict[str, Any]
Cell = tuple[str, Options]

# Options of one cell each: every variant of the table in the README.
CELLS: list[Cell] = [
    ("RNN", {}),
    ("RNN", {"nonlinearity": "relu"}),
    ("RNN", {"nonlinearity": "sigmoid", "bias": False}),
    ("RNN", {"gate_clip": 0.7}),
    ("LSTM", {}),
    ("LSTM", {"bias": False}),
    ("LSTM", {"forget_gate": False}),
    (
        "LSTM",  # as in 1997
        {
            "forget_gate": False,
            "activations": ("sigmoid", ("scaled_tanh", 2.0, 0.5), ("scaled_tanh", 1.0, 0.5)),
        },
    ),
    ("LSTM", {"coupled": True}),
    ("LSTM", {"peephole": True}),
    ("LSTM", {"peephole": True, "coupled": True}),
    ("LSTM", {"peephole": True, "cell_clip": 0.4}),
    ("LSTM", {"peephole": True, "gate_clip": 0.6}),
    ("LSTM", {"proj_size": 1}),
    ("LSTM", {"proj_size": 2, "peephole": True, "bias": False}),
    ("LSTM", {"activations": (("hard_sigmoid", 0.25, 0.4), "softsign", "identity")}),
    ("RNN", {"nonlinearity": ("elu", 0.7)}),
    ("RNN", {"nonlinearity": "gelu"}),
    ("RNN", {"nonlinearity": "mish", "layer_norm": True, "gate_clip": 1.5}),
    ("RNN", {"nonlinearity": "hard_silu", "zoneout": 0.3, "recurrent_dropout": 0.2}),
    (
        "LSTM",
        {"activations": (("affine", 0.3, 0.4), ("leaky_relu", 0.2), "softplus"), "gate_clip": 2.0},
    ),
    ("LSTM", {"activations": ("silu", "gelu", "mish"), "peephole": True, "gate_clip": 1.0}),
    ("LSTM", {"activations": ("sigmoid", "selu", "silu"), "coupled": True, "layer_norm": True}),
    ("GRU", {}),
    ("GRU", {"bias": False}),
    ("GRU", {"gate_clip": 0.5}),
    ("GRU", {"reset_after": False}),
    ("GRU", {"reset_after": False, "gate_clip": 0.5}),
    ("GRU", {"reset_after": False, "activations": ("hard_sigmoid", ("scaled_tanh", 1.5, 0.5))}),
    ("GRU", {"activations": ("hard_silu", "mish"), "gate_clip": 2.0, "zoneout": 0.1}),
    ("GRU", {"activations": ("sigmoid", "exponential"), "gate_clip": 0.5}),
    (
        "GRU",
        {
            "activations": ("silu", "gelu"),
            "reset_after": False,
            "recurrent_dropout": 0.3,
            "gate_clip": 1.0,
        },
    ),
    ("GRU", {"activations": ("sigmoid", ("thresholded_relu", 0.0)), "reset_after": False}),
    ("GRU", {"activations": ("sigmoid", "silu"), "layer_norm": True}),
    ("RNN", {"layer_norm": True}),
    ("LSTM", {"layer_norm": True}),
    ("LSTM", {"layer_norm": True, "peephole": True, "coupled": True, "cell_clip": 0.5}),
    ("LSTM", {"layer_norm": True, "proj_size": 2, "bias": False, "zoneout": (0.2, 0.1)}),
    ("GRU", {"layer_norm": True}),
    ("GRU", {"layer_norm": True, "gate_clip": 0.6, "recurrent_dropout": 0.3, "zoneout": 0.1}),
    ("RNN", {"zoneout": 0.3, "input_dropout": 0.4, "recurrent_dropout": 0.2}),
    ("LSTM", {"zoneout": (0.3, 0.2), "input_dropout": 0.2, "recurrent_dropout": 0.4}),
    ("LSTM", {"zoneout": (0.0, 0.3), "recurrent_dropout": 0.3, "proj_size": 2, "peephole": True}),
    ("GRU", {"zoneout": 0.2, "recurrent_dropout": 0.3}),
    ("GRU", {"zoneout": 0.1, "recurrent_dropout": 0.3, "input_dropout": 0.3, "reset_after": False}),
]
STACKS: list[Options] = [
    {},
    {"reverse": True},
    {"num_layers": 2},
    {"num_layers": 3, "reverse": True},
    {"bidirectional": True},
    {"bidirectional": True, "merge": "sum"},
    {"bidirectional": True, "num_layers": 2, "merge": "mul"},
    {"bidirectional": True, "num_layers": 3, "merge": "ave"},
    {"bidirectional": True, "num_layers": 2},
]
cells = pytest.mark.parametrize("cell", CELLS)
stacks = pytest.mark.parametrize("stack", STACKS)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])

_SEED = 7  # of what train_step draws

_REFERENCE_OPTIONS = {
    "num_layers", "bidirectional", "reverse", "merge", "forget_gate", "coupled", "cell_clip",
    "gate_clip", "activations", "reset_after", "nonlinearity", "precision", "zoneout",
}  # fmt: skip


def of_a_cell(kind: str, options: Options) -> Options:
    """Return those of the options of a layer that cells have, too."""
    known = inspect.signature(getattr(lc, f"{kind}Cell")).parameters
    return {name: value for name, value in options.items() if name in known}


def name_of(value: Any) -> str:
    """Name a kind or the options of a variant, as the `ids` of a test."""
    if not isinstance(value, dict):
        return str(value)
    return "-".join(f"{name}={_short(option)}" for name, option in value.items()) or "plain"


def _short(option: Any) -> str:
    return "+".join(map(_short, option)) if isinstance(option, tuple) else str(option)


class Result(NamedTuple):
    """All that a training step gives, by name."""

    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]


def make(kind: str, input_size: int, hidden_size: int, seed: int = 0, **options: Any) -> Any:
    """Make a layer whose biases and peepholes are as large as its other weights."""
    return getattr(lc, kind)(input_size, hidden_size, seed=seed, **options)


def states_of(layer: Any, batch: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Random states of a layer: (h,), or (h, c) of an LSTM."""
    count = layer.num_layers * (2 if layer.bidirectional else 1)
    sizes = [getattr(layer, "proj_size", 0) or layer.hidden_size]
    if isinstance(layer, lc.LSTM):
        sizes.append(layer.hidden_size)
    return tuple(rng.standard_normal((count, batch, n)).astype(layer.dtype) for n in sizes)


def _packed(layer: Any, state: tuple[np.ndarray, ...] | None) -> Any:
    return state if state is None or isinstance(layer, lc.LSTM) else state[0]


def _unpacked(layer: Any, state: Any) -> tuple[np.ndarray, ...]:
    return tuple(state) if isinstance(layer, lc.LSTM) else (state,)


def train_step(
    layer: Any,
    x: np.ndarray,
    state: tuple[np.ndarray, ...] | None,
    dy: np.ndarray,
    dstate: tuple[np.ndarray, ...],
    **sequences: Any,
) -> Result:
    """Run forward and backward of a layer, with the same random numbers each time."""
    layer.zero_grad()
    if layer._config.draws:
        layer._dropout_rng = np.random.default_rng(_SEED)
    y, last, tape = layer.forward(x, _packed(layer, state), **sequences)
    dx, first = layer.backward(tape, dy, _packed(layer, dstate))
    return _result(layer, y, last, dx, first, {p.name: p.grad.copy() for p in layer.parameters()})


def masks_of(layer: Any, key: int, steps: int, batch: int) -> dict[str, Any]:
    """Return what the core draws with this key, as the reference takes it."""
    config = layer._config
    D, P, H = config.directions, config.output_size, config.hidden_size
    states = config.num_layers * D

    def factors(use: str, part: int, features: int, p: float, steps: int) -> np.ndarray:
        return _core.dropout_mask(key, part, steps, batch, features, p, use) / (1 - p)

    masks: dict[str, Any] = {}
    if p := config.dropout:
        masks["dropout_masks"] = [
            factors("between_layers", k, config.features, p, steps)
            for k in range(config.num_layers - 1)
        ]
    if p := config.input_dropout:
        sizes = [config.features if s >= D else config.input_size for s in range(states)]
        masks["input_masks"] = [factors("input", s, n, p, 1)[0] for s, n in enumerate(sizes)]
    if p := config.recurrent_dropout:
        masks["recurrent_masks"] = np.stack(
            [factors("hidden", s, P, p, 1)[0] for s in range(states)]
        )
    if any(config.zoneouts):
        kept = tuple(
            np.stack(
                [
                    1.0 - _core.dropout_mask(key, s, steps, batch, n, p, f"zone_{part}")
                    for s in range(states)
                ]
            )
            for part, n, p in zip("hc", (P, H), config.zoneouts, strict=True)
        )
        masks["zoneout_masks"] = kept if isinstance(layer, lc.LSTM) else kept[0]
    return masks


def reference_step(
    layer: Any,
    options: dict[str, Any],
    x: np.ndarray,
    state: tuple[np.ndarray, ...] | None,
    dy: np.ndarray,
    dstate: tuple[np.ndarray, ...],
    **sequences: Any,
) -> Result:
    """Run the same in the reference."""
    key = int(np.random.default_rng(_SEED).integers(2**64, dtype=np.uint64))
    masks = masks_of(layer, key, *x.shape[:2])
    y, last, tape = reference_forward(layer, options, x, state, **masks, **sequences)
    kind = type(layer).__name__.lower()
    dx, first, gradients = getattr(reference, f"{kind}_backward")(tape, dy, _packed(layer, dstate))
    return _result(layer, y, last, dx, first, gradients)


def reference_forward(
    layer: Any,
    options: dict[str, Any],
    x: np.ndarray,
    state: tuple[np.ndarray, ...] | None,
    **others: Any,
) -> tuple[Any, Any, Any]:
    """Run forward in the reference: inference, unless masks are given."""
    chosen = {k: v for k, v in options.items() if k in _REFERENCE_OPTIONS}
    run = getattr(reference, f"{type(layer).__name__.lower()}_forward")
    made: tuple[Any, Any, Any] = run(
        x, _packed(layer, state), layer.state_dict(), **chosen, **others
    )
    return made


def _result(
    layer: Any,
    y: np.ndarray,
    last: Any,
    dx: np.ndarray,
    first: Any,
    gradients: dict[str, Any],
) -> Result:
    outputs = {"y": y}
    gradients = {"dx": dx, **gradients}
    for name, value in zip("hc", _unpacked(layer, last), strict=False):
        outputs[name] = value
    for name, value in zip(("dh0", "dc0"), _unpacked(layer, first), strict=False):
        gradients[name] = value
    return Result(outputs, gradients)


def assert_close(ours: Result, truth: Result, tolerance: float) -> None:
    """Compare absolutely below one, relatively above, array by array."""
    for mine, true in ((ours.outputs, truth.outputs), (ours.gradients, truth.gradients)):
        assert mine.keys() == true.keys()
        for name, value in mine.items():
            scale = max(1.0, float(np.abs(true[name]).max(initial=0)))
            np.testing.assert_allclose(
                value, true[name], rtol=0, atol=tolerance * scale, err_msg=name
            )
