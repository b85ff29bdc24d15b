"""Layers with an option that ONNX's recurrent nodes lack: plain operators in a Scan over the steps.

What does not depend on the state is computed before the Scan, for all steps at once. The equations
are those of `lstmcore.reference`. Sizes: T steps, B rows, H hidden units, P outputs, G gates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..._base.checks import Activation
from .. import _description

if TYPE_CHECKING:
    from ..._nn.layers import Layer
    from ._exporting import _Writer

__all__ = ["function_of", "write"]

_EPS = 1e-5  # of layer normalisation
# Those that are one operator, with the names of its attributes if it has any.
_OPERATORS: dict[str, tuple[str, ...]] = {
    "absolute": ("Abs",),
    "elu": ("Elu", "alpha"),
    "exponential": ("Exp",),
    "hard_sigmoid": ("HardSigmoid", "alpha", "beta"),
    "identity": ("Identity",),
    "leaky_relu": ("LeakyRelu", "alpha"),
    "relu": ("Relu",),
    "sigmoid": ("Sigmoid",),
    "softplus": ("Softplus",),
    "softsign": ("Softsign",),
    "tanh": ("Tanh",),
    "thresholded_relu": ("ThresholdedRelu", "alpha"),
}


def write(w: _Writer, layer: Layer[Any]) -> dict[str, list[str]]:
    """Write a layer that takes w.x, (T, B, F); w.x becomes its output.

    Returns the final states by their letter: (1, B, P) of h and (1, B, H) of c, for every stacked
    layer and direction.
    """
    config = layer._config
    sizes = {"h": config.output_size, "c": config.hidden_size}
    letters = "hc" if config.kind == "lstm" else "h"
    given = {letter: w.state_input(layer, letter) for letter in letters}
    zeros = {n: _zeros(w, sizes[n]) for n, value in given.items() if value is None}
    final: dict[str, list[str]] = {letter: [] for letter in letters}
    there = [] if w.lengths is None else [w.compared("Less")]
    for level in range(config.num_layers):
        ys = []
        for d in range(config.directions):
            at = level * config.directions + d
            initial = [
                zeros[letter] if value is None else w.node("Gather", [value, w.whole(at)], axis=0)
                for letter, value in given.items()
            ]
            cell = _KINDS[config.kind](w, layer, f"_l{level}" + "_reverse" * d)
            scanned = [cell.of_input(w.x), *there]
            *last, y = w.scan(cell.step, initial, scanned, config.reverse or d == 1)
            ys.append(y)
            for letter, state in zip(letters, last, strict=True):
                final[letter].append(w.node("Unsqueeze", [state, w.integers(0)]))
        w.x = ys[0] if len(ys) == 1 else w.joined(config.merge, ys)
    return final


def _zeros(w: _Writer, size: int) -> str:
    """Return zeros, (B, size)."""
    rows = w.node("Slice", [w.node("Shape", [w.x]), *map(w.integers, (1, 2, 0))])
    shape = w.node("Concat", [rows, w.integers(size)], axis=0)
    return str(w.node("Expand", [w.number(0), shape]))


class _Cell:
    """One direction of one stacked layer."""

    def __init__(self, w: _Writer, layer: Layer[Any], suffix: str) -> None:
        self._w, self._layer, self._suffix = w, layer, suffix
        self._config = layer._config
        self._weight_hh = self._transposed("weight_hh")

    def of_input(self, x: str) -> str:
        """Return what x adds to the gates at all steps, (T, B, G*H)."""
        sums = self._w.node("MatMul", [x, self._transposed("weight_ih")])
        return self._norm_and_bias(sums, "ih")

    def step(self, before: list[str], scanned: list[str]) -> tuple[list[str], str]:
        """Return the state after a step, and y, of the state before and what has the step.

        That is what x adds to the gates, and whether the rows have the step, if some have not.
        """
        sums, *there = scanned
        made = self._cell(sums, *before)
        parts = zip(self._config.zoneouts, before, made, strict=False)
        after = [self._zoned(*part) for part in parts]
        y = after[0]
        if there:
            after = [self._("Where", *there, *pair) for pair in zip(after, before, strict=True)]
            y = self._("Where", *there, y, self._w.number(0))
        return after, y

    def _cell(self, sums: str, *before: str) -> list[str]:
        """Return what the cell makes of the state."""
        raise NotImplementedError

    def _zoned(self, zoneout: float, before: str, made: str) -> str:
        if not zoneout:
            return made
        kept = self._("Mul", before, self._w.number(zoneout))
        return self._("Add", kept, self._("Mul", made, self._w.number(1 - zoneout)))

    def _(self, op: str, *inputs: str, **attributes: Any) -> str:
        return str(self._w.node(op, list(inputs), **attributes))

    # Parameters -----------------------------------------------------------------------------------

    def _parameter(self, name: str) -> str:
        return self._w.parameter(self._layer, name + self._suffix)

    def _transposed(self, name: str) -> str:
        name += self._suffix
        array = self._w.array(self._layer, name)
        return self._w.weight(array.T, name + _description.TRANSPOSED)

    # Parts of equations ---------------------------------------------------------------------------

    def _of_state(self, h: str) -> str:
        """Return what h adds to the gates, (B, G*H)."""
        return self._norm_and_bias(self._("MatMul", h, self._weight_hh), "hh")

    def _norm_and_bias(self, sums: str, side: str) -> str:
        """Normalise a product of the input, "ih", or of the state, "hh", and add the bias."""
        if self._config.layer_norm:
            sums = self._norm(sums, f"weight_ln_{side}")
        return self._("Add", sums, self._parameter(f"bias_{side}")) if self._config.bias else sums

    def _norm(self, x: str, gain: str) -> str:
        w = self._w
        if w._opset >= 17:
            given = (x, self._parameter(gain))
            return self._("LayerNormalization", *given, axis=-1, epsilon=_EPS)
        centred = self._("Sub", x, w.reduce("ReduceMean", x, -1, keep=True))
        variance = w.reduce("ReduceMean", self._("Mul", centred, centred), -1, keep=True)
        scale = self._("Sqrt", self._("Add", variance, w.number(_EPS)))
        return self._("Mul", self._("Div", centred, scale), self._parameter(gain))

    def _split(self, sums: str, count: int) -> list[str]:
        sizes = self._w.integers(*[self._config.hidden_size] * count)
        parts: list[str] = self._w.node("Split", [sums, sizes], count, axis=-1)
        return parts

    def _gate(self, role: int, x: str) -> str:
        """Apply the activation of a gate, which gate_clip is for."""
        if self._config.gate_clip is not None:
            x = self._clipped(x, self._config.gate_clip)
        return self._activation(role, x)

    def _clipped(self, x: str, limit: float) -> str:
        return self._("Clip", x, self._w.number(-limit), self._w.number(limit))

    def _activation(self, role: int, x: str) -> str:
        roles: tuple[Activation, ...] = self._config.activations or (self._config.nonlinearity,)
        chosen = roles[role]
        name, *numbers = (chosen,) if isinstance(chosen, str) else chosen
        return function_of(self._w, x, name, *numbers)


class _RNN(_Cell):
    def _cell(self, sums: str, *before: str) -> list[str]:
        return [self._gate(0, self._("Add", sums, self._of_state(*before)))]


class _GRU(_Cell):
    def __init__(self, w: _Writer, layer: Layer[Any], suffix: str) -> None:
        super().__init__(w, layer, suffix)
        self._before: list[list[str]] = []  # of r and z, and of n: W_hh, and the bias if there is
        if not self._config.reset_after:
            bias = [self._parameter("bias_hh")] if self._config.bias else []
            H = self._config.hidden_size
            halves = [
                w.node("Split", [name, w.integers(2 * H, H)], 2, axis=-1)
                for name in (self._weight_hh, *bias)
            ]
            self._before = [list(parts) for parts in zip(*halves, strict=True)]

    def _cell(self, sums: str, *before: str) -> list[str]:
        (h,) = before
        if self._config.reset_after:
            *of_gates, of_n = self._split(self._of_state(h), 3)
        else:
            of_gates = self._split(self._product(h, *self._before[0]), 2)
        a_r, a_z, a_n = self._split(sums, 3)
        r, z = (
            self._gate(0, self._("Add", *pair)) for pair in zip((a_r, a_z), of_gates, strict=True)
        )
        if self._config.reset_after:
            q = self._("Mul", r, of_n)
        else:
            q = self._product(self._("Mul", r, h), *self._before[1])
        n = self._gate(1, self._("Add", a_n, q))
        return [self._("Add", n, self._("Mul", z, self._("Sub", h, n)))]

    def _product(self, x: str, weight: str, *bias: str) -> str:
        y = self._("MatMul", x, weight)
        return self._("Add", y, *bias) if bias else y


class _LSTM(_Cell):
    def __init__(self, w: _Writer, layer: Layer[Any], suffix: str) -> None:
        super().__init__(w, layer, suffix)
        self._peepholes: dict[str, str] = {}
        if self._config.peephole:
            rows, gates = self._parameter("weight_ch"), self._config.gate_order.replace("g", "")
            self._peepholes = {
                gate: self._("Gather", rows, w.whole(k), axis=0) for k, gate in enumerate(gates)
            }
        self._weight_hr = self._transposed("weight_hr") if self._config.proj_size else None

    def _cell(self, sums: str, *before: str) -> list[str]:
        config, w = self._config, self._w
        h, c = before
        order = config.gate_order
        parts = self._split(self._("Add", sums, self._of_state(h)), len(order))
        a = dict(zip(order, parts, strict=True))
        i = self._sees(a, "i", c)
        g = self._("Mul", i, self._gate(1, a["g"]))
        if config.forget_gate:
            f = self._("Sub", w.number(1), i) if config.coupled else self._sees(a, "f", c)
            c = self._("Mul", f, c)
        c = self._("Add", c, g)
        if config.cell_clip is not None:
            c = self._clipped(c, config.cell_clip)
        o = self._sees(a, "o", c)
        shown = c
        if config.layer_norm:
            shown = self._("Add", self._norm(c, "weight_ln_c"), self._parameter("bias_ln_c"))
        m = self._("Mul", o, self._activation(2, shown))
        return [self._("MatMul", m, self._weight_hr) if self._weight_hr else m, c]

    def _sees(self, a: dict[str, str], gate: str, c: str) -> str:
        """Return a gate, which may have a peephole to c."""
        x = a[gate]
        if gate in self._peepholes:
            x = self._("Add", x, self._("Mul", self._peepholes[gate], c))
        return self._gate(0, x)


_KINDS: dict[str, type[_Cell]] = {"rnn": _RNN, "gru": _GRU, "lstm": _LSTM}


# Functions of single numbers: the activations of cells, and those of modules ----------------------


def function_of(w: _Writer, x: str, name: str, *numbers: float) -> str:
    """Return the function of this name of x; `numbers` are its alpha and beta."""

    def node(op: str, *inputs: str, **attributes: Any) -> str:
        return str(w.node(op, list(inputs), **attributes))

    if name in _OPERATORS:
        op, *attributes = _OPERATORS[name]
        return node(op, x, **dict(zip(attributes, numbers, strict=True)))
    if name == "affine":
        return node("Add", node("Mul", x, w.number(numbers[0])), w.number(numbers[1]))
    if name == "gelu":
        if w._opset >= 20:
            return node("Gelu", x, approximate="none")
        share = node("Erf", node("Mul", x, w.number(0.5**0.5)))
        return node("Mul", node("Mul", x, w.number(0.5)), node("Add", share, w.number(1)))
    if name == "hard_silu":
        return node("Mul", x, node("HardSigmoid", x, alpha=1 / 6, beta=0.5))
    if name == "mish":
        return node("Mul", x, node("Tanh", node("Softplus", x)))
    if name == "relu6":
        return node("Clip", x, w.number(0), w.number(6))
    if name == "scaled_tanh":
        outside, inside = map(w.number, numbers)
        return node("Mul", node("Tanh", node("Mul", x, inside)), outside)
    if name == "selu":
        return node("Selu", x, alpha=1.6732632423543772, gamma=1.0507009873554805)
    if name == "silu":
        return node("Mul", x, node("Sigmoid", x))
    if name == "square":
        return node("Mul", x, x)
    raise ValueError(f"its activation {name!r} is none of those that are written to ONNX")
