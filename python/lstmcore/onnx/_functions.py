"""Functions of single numbers as nodes: the activations of cells, and those of modules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._exporting import _Writer

__all__ = ["write"]

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


def write(w: _Writer, x: str, name: str, *numbers: float) -> str:
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
