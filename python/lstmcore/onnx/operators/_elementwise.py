"""Functions of one number or two: arithmetic, logic, activations."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from ... import _core
from ..._base import checks
from ..._nn.activations import GELU, normal_distribution
from .._model import Tensor
from ._registry import MICROSOFT, Function, operator

# Of two -------------------------------------------------------------------------------------------


def _pair(function: Function) -> Function:
    """Return a function of two arrays of one type, as ONNX wants it; NumPy would convert."""

    def call(a: Tensor, b: Tensor) -> Tensor:
        if a.dtype != b.dtype:
            raise ValueError(f"it is given {a.dtype} and {b.dtype}, expected one type")
        y = function(a, b)
        return y if type(y) is np.ndarray else np.asarray(y)

    return call


def _divide(a: Tensor, b: Tensor) -> Any:
    if a.dtype.kind == "f":
        return np.divide(a, b)
    quotient: Tensor = np.floor_divide(a, b)  # which rounds down, where ONNX rounds to 0
    return quotient + ((quotient < 0) & (quotient * b != a)).astype(a.dtype)


_PAIRS: dict[str, Function] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": np.multiply,
    "Div": _divide,
    "Equal": np.equal,
    "Less": np.less,
    "LessOrEqual": np.less_equal,
    "Greater": np.greater,
    "GreaterOrEqual": np.greater_equal,
    "And": np.logical_and,
    "Or": np.logical_or,
    "Xor": np.logical_xor,
    "BitwiseAnd": np.bitwise_and,
    "BitwiseOr": np.bitwise_or,
    "BitwiseXor": np.bitwise_xor,
}
for _name, _function in _PAIRS.items():
    operator(_name, grows="pairs")(_pair(_function))


@operator("Pow", grows="pairs")
def _power(x: Tensor, exponent: Tensor) -> Any:
    return np.power(x, exponent).astype(x.dtype)


@operator("Mod", grows="pairs")
def _mod(a: Tensor, b: Tensor, *, fmod: int = 0) -> Any:
    return np.asarray(np.fmod(a, b) if fmod else np.mod(a, b))


def _fold(function: Function) -> Function:
    def call(first: Tensor, *others: Tensor) -> Tensor:
        return np.asarray(functools.reduce(function, others, first))

    return call


for _name, _function in {"Min": np.minimum, "Max": np.maximum, "Sum": np.add}.items():
    operator(_name, grows="pairs")(_fold(_function))


@operator("Mean", grows="pairs")
def _mean(*parts: Tensor) -> Any:
    return np.asarray(functools.reduce(np.add, parts) / np.array(len(parts), parts[0].dtype))


@operator("Where", grows="pairs")
def _where(condition: Tensor, a: Tensor, b: Tensor) -> Any:
    return np.where(condition, a, b)


@operator("PRelu", grows="pairs")
def _prelu(x: Tensor, slope: Tensor) -> Any:
    return np.where(x < 0, x * slope, x)


# Of one -------------------------------------------------------------------------------------------


def _one(function: Function) -> Function:
    def call(x: Tensor) -> Tensor:
        y = function(x)
        return y if type(y) is np.ndarray else np.asarray(y)

    return call


def _by_core(name: str, otherwise: Function) -> Function:
    """Return a function that the core has, of float32 and float64: programs use it, too."""
    kernel = (name, 1.0, 1.0)

    def call(x: Tensor) -> Any:
        if x.dtype.char in "fd" and x.dtype.isnative:
            return _core.activate(kernel, checks.in_order(x))
        return otherwise(x)

    return call


def _sigmoid(x: Tensor) -> Any:
    """1 / (1 + exp(-x)); where that overflows, it is 0."""
    y = np.asarray(np.negative(x))
    with np.errstate(over="ignore"):
        np.exp(y, out=y)
    y += 1
    return np.divide(1, y, out=y)


def _softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), without overflow."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


sigmoid = _by_core("sigmoid", _sigmoid)
tanh = _by_core("tanh", np.tanh)
softplus = _by_core("softplus", _softplus)


_ONES: dict[str, Function] = {
    "Abs": np.abs,
    "Acos": np.arccos,
    "Acosh": np.arccosh,
    "Asin": np.arcsin,
    "Asinh": np.arcsinh,
    "Atan": np.arctan,
    "Atanh": np.arctanh,
    "BitwiseNot": np.bitwise_not,
    "Ceil": np.ceil,
    "Cos": np.cos,
    "Cosh": np.cosh,
    "Exp": np.exp,
    "Floor": np.floor,
    "IsNaN": np.isnan,
    "Log": np.log,
    "Mish": _by_core("mish", lambda x: x * np.tanh(_softplus(x))),
    "Neg": np.negative,
    "Not": np.logical_not,
    "Reciprocal": np.reciprocal,
    "Relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "Round": np.rint,
    "Sigmoid": sigmoid,
    "Sign": np.sign,
    "Sin": np.sin,
    "Sinh": np.sinh,
    "Softplus": softplus,
    "Softsign": _by_core("softsign", lambda x: x / (1 + np.abs(x))),
    "Sqrt": np.sqrt,
    "Tan": np.tan,
    "Tanh": tanh,
}
for _name, _function in _ONES.items():
    operator(_name, grows=1)(_one(_function))


@operator("IsInf", grows=1)
def _is_inf(x: Tensor, *, detect_negative: int = 1, detect_positive: int = 1) -> Any:
    wanted = ((x > 0) & bool(detect_positive)) | ((x < 0) & bool(detect_negative))
    return np.isinf(x) & wanted


@operator("Erf", grows=1)
def _erf(x: Tensor) -> Any:
    kind = x.dtype if x.dtype.kind == "f" and x.dtype.itemsize > 2 else np.dtype(np.float32)
    wide = x.astype(kind, copy=False)
    return (2 * normal_distribution(wide * kind.type(2**0.5)) - 1).astype(x.dtype)


@operator("Gelu", since=20, grows=1)
def _gelu(x: Tensor, *, approximate: str = "none") -> Any:
    return GELU(approximate)(x).astype(x.dtype, copy=False)


@operator("Gelu", domain=MICROSOFT, grows=1)
def _gelu_of_runtime(x: Tensor) -> Any:
    return _gelu(x)


@operator("BiasGelu", domain=MICROSOFT, grows="pairs")
def _bias_gelu(x: Tensor, bias: Tensor) -> Any:
    return _gelu(x + bias)


@operator("FastGelu", domain=MICROSOFT, grows="pairs")
def _fast_gelu(x: Tensor, bias: Tensor | None = None) -> Any:
    return _gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=MICROSOFT, grows=1)
def _quick_gelu(x: Tensor, *, alpha: float = 1.702) -> Any:
    return _swish(x, alpha=alpha)


@operator("Swish", since=24, grows=1)
def _swish(x: Tensor, *, alpha: float = 1.0) -> Any:
    return x * sigmoid(x * x.dtype.type(alpha))


@operator("LeakyRelu", grows=1)
def leaky_relu(x: Tensor, *, alpha: float = 0.01) -> Any:
    """x, or alpha x below 0."""
    return np.where(x < 0, x * x.dtype.type(alpha), x)


@operator("ThresholdedRelu", grows=1)
def thresholded_relu(x: Tensor, *, alpha: float = 1.0) -> Any:
    """X above alpha, else 0."""
    return np.where((x <= x.dtype.type(alpha)), x.dtype.type(0), x)


def _bent(x: Tensor, alpha: float) -> Any:
    return x.dtype.type(alpha) * np.expm1(np.minimum(x, 0))


@operator("Elu", grows=1)
def elu(x: Tensor, *, alpha: float = 1.0) -> Any:
    """x, or alpha (exp(x) - 1) below 0."""
    return np.where(x < 0, _bent(x, alpha), x)


@operator("Celu", since=12, grows=1)
def _celu(x: Tensor, *, alpha: float = 1.0) -> Any:
    return np.where(x < 0, _bent(x / x.dtype.type(alpha), alpha), x)


@operator("Selu", grows=1)
def _selu(
    x: Tensor, *, alpha: float = 1.6732632423543772, gamma: float = 1.0507009873554805
) -> Any:
    return x.dtype.type(gamma) * np.where(x < 0, _bent(x, alpha), x)


@operator("Shrink", grows=1)
def _shrink(x: Tensor, *, bias: float = 0.0, lambd: float = 0.5) -> Any:
    kind = x.dtype.type
    y = np.where(x < -lambd, x + kind(bias), np.where(x > lambd, x - kind(bias), kind(0)))
    return y.astype(x.dtype, copy=False)


@operator("HardSigmoid", grows=1)
def hard_sigmoid(x: Tensor, *, alpha: float = 0.2, beta: float = 0.5) -> Any:
    """Alpha x + beta, between 0 and 1."""
    kind = x.dtype.type
    return np.clip(x * kind(alpha) + kind(beta), kind(0), kind(1))


_hard_silu = _by_core("hard_silu", lambda x: x * hard_sigmoid(x, alpha=1 / 6, beta=0.5))


@operator("HardSwish", since=14, grows=1)
def _hard_swish(x: Tensor) -> Any:
    return _hard_silu(x)


@operator("Clip", grows=1)
def _clip_7(x: Tensor, *, min: float | None = None, max: float | None = None) -> Any:
    kind = x.dtype.type
    return _clip(x, None if min is None else kind(min), None if max is None else kind(max))


@operator("Clip", since=11, grows="pairs")
def _clip(x: Tensor, low: Any = None, high: Any = None) -> Any:
    if low is not None:
        x = np.maximum(x, low)
    return x if high is None else np.asarray(np.minimum(x, high))


# As parts of other nodes --------------------------------------------------------------------------

_RECURRENT: dict[str, Function] = {
    "Affine": lambda x, alpha, beta: x * x.dtype.type(alpha) + x.dtype.type(beta),
    "Elu": lambda x, alpha=1.0: elu(x, alpha=alpha),
    "HardSigmoid": lambda x, alpha, beta: hard_sigmoid(x, alpha=alpha, beta=beta),
    "LeakyRelu": lambda x, alpha=0.01: leaky_relu(x, alpha=alpha),
    "Relu": _ONES["Relu"],
    "ScaledTanh": lambda x, alpha, beta: x.dtype.type(alpha) * np.tanh(x * x.dtype.type(beta)),
    "Sigmoid": sigmoid,
    "Softplus": softplus,
    "Softsign": _ONES["Softsign"],
    "Tanh": tanh,
    "ThresholdedRelu": lambda x, alpha=1.0: thresholded_relu(x, alpha=alpha),
}


def activation(name: str, parameters: Sequence[float] = ()) -> Function:
    """Return an activation that is a part of another node, with its alpha and beta."""
    if name not in _RECURRENT:
        known = ", ".join(_RECURRENT)
        raise ValueError(f"the activation is {name!r}, expected one of {known}")
    function = _RECURRENT[name]
    return (lambda x: function(x, *parameters)) if parameters else function


def activated(y: Tensor, name: str, parameters: Sequence[float] | None = None) -> Any:
    """Apply an activation that ONNX Runtime has fused with what was before it; "" is none."""
    given = list(parameters or ())
    if name == "Clip":
        return _clip_7(y, min=given[0], max=given[1])
    return activation(name, given)(y) if name else y
