"""Activations as modules. The kernels of the layers compute most of them, NumPy the rest."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Array
from .._base.module import storable
from .config import Option
from .feed_forward import FeedForward
from .streams.frozen import PythonStage

__all__ = [
    "ELU",
    "FUNCTIONS",
    "GELU",
    "Activation",
    "LeakyReLU",
    "LogSoftmax",
    "PReLU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "Softmax",
    "Softplus",
    "Tanh",
    "normal_distribution",
    "softmax",
    "softmax_backward",
]


_Kernel: TypeAlias = tuple[str, float, float]  # its name there, alpha and beta

# Functions that fall and rise: y does not tell where x was, so their slope is found from x.
_FROM_X = ("gelu", "hard_silu", "mish", "silu")


class _LikeX(FeedForward):
    """What gives y the shape of x, and has no options unless it says so."""

    def __init__(self) -> None:
        self._config = SimpleNamespace()

    def _output_size(self, size: int | None) -> int | None:
        return size


class _OfNumbers(_LikeX):
    """What computes each number of x by itself."""

    _kernel: _Kernel | None = None  # None: NumPy computes `_curve`, and the tape keeps the slope

    def _stream_stage(self, name: str) -> Any:
        return PythonStage(self) if self._kernel is None else ("activation", self._kernel)

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        kernel = self._kernel
        if kernel is not None:
            y = _core.activate(kernel, checks.in_order(x))
            return y, (checks.kept(x) if train and kernel[0] in _FROM_X else y,)
        with np.errstate(all="ignore"):
            y, slope = self._curve(x, train)
        saved = np.asarray(slope, x.dtype) if train else None
        return np.asarray(y, x.dtype), (saved,)

    def _backward(self, dy: Array, saved: Array) -> Array:
        kernel = self._kernel
        if kernel is not None:
            return _core.activate_backward(kernel, checks.in_order(saved), checks.in_order(dy))
        with np.errstate(all="ignore"):
            return np.asarray(dy * saved)

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        """Return y and, for training, the slope dy/dx of each number."""
        raise NotImplementedError


class _OfRows(_LikeX):
    """What computes each row of x, over its last axis."""

    def _input(self, x: npt.ArrayLike) -> Array:
        array = super()._input(x)
        if array.ndim == 0:
            raise ValueError("x has shape (), expected (..., C)")
        return array


@storable
class Tanh(_OfNumbers):
    """y = tanh(x), elementwise.

    It takes x of any shape and keeps float32 and float64.

    Examples
    --------
    >>> import lstmcore as lc
    >>> tanh = lc.Tanh()
    >>> y, tape = tanh.forward([0.0, 0.5])
    >>> tanh.backward(tape, [1.0, 1.0]).round(3)
    array([1.   , 0.786])
    """

    _kernel = ("tanh", 1.0, 1.0)


@storable
class ReLU(_OfNumbers):
    """y = max(x, 0), elementwise; the gradient at 0 is 0.

    It takes x of any shape and keeps float32 and float64. Where y is 0 the gradient is 0 even if
    that of y is NaN or infinite; where x is NaN that of y goes through, as in PyTorch.

    Examples
    --------
    >>> import lstmcore as lc
    >>> relu = lc.ReLU()
    >>> y, tape = relu.forward([-1.0, 2.0])
    >>> y, relu.backward(tape, [1.0, 1.0])
    (array([0., 2.]), array([0., 1.]))
    """

    _kernel = ("relu", 1.0, 1.0)


@storable
class Sigmoid(_OfNumbers):
    """y = 1 / (1 + exp(-x)), elementwise.

    It takes x of any shape and keeps float32 and float64. `losses.binary_cross_entropy` has its
    own: it takes scores, not these.

    Examples
    --------
    >>> import lstmcore as lc
    >>> sigmoid = lc.Sigmoid()
    >>> y, tape = sigmoid.forward([0.0, -1000.0])
    >>> y, sigmoid.backward(tape, [1.0, 1.0])
    (array([0.5, 0. ]), array([0.25, 0.  ]))
    """

    _kernel = ("sigmoid", 1.0, 1.0)
    _gives_probabilities = True


@storable
class Softmax(_OfRows):
    """y = exp(x) / sum(exp(x)) over the last axis: numbers above 0 whose sum is 1.

    It takes x of any shape with a last axis and keeps float32 and float64. `losses.cross_entropy`
    has its own: it takes scores, not these.

    Examples
    --------
    >>> import lstmcore as lc
    >>> softmax = lc.Softmax()
    >>> y, tape = softmax.forward([0.0, 1000.0, 1000.0])
    >>> y, softmax.backward(tape, [0.0, 1.0, 0.0])
    (array([0. , 0.5, 0.5]), array([ 0.  ,  0.25, -0.25]))
    """

    _gives_probabilities = True

    def _stream_stage(self, name: str) -> Any:
        return ("softmax",)

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        y = softmax(x)
        return y, (y,)

    def _backward(self, dy: Array, y: Array) -> Array:
        return softmax_backward(dy, y)


@storable
class LogSoftmax(_OfRows):
    """y = x - log(sum(exp(x))) over the last axis: the logarithms of `Softmax`.

    It takes x of any shape with a last axis and keeps float32 and float64. Models of PyTorch end in
    it; `losses.cross_entropy` takes its numbers as it takes scores, and gives the same for both.

    Examples
    --------
    >>> import lstmcore as lc
    >>> log_softmax = lc.LogSoftmax()
    >>> y, tape = log_softmax.forward([0.0, 1000.0, 1000.0])
    >>> y.round(4), log_softmax.backward(tape, [0.0, 1.0, 0.0])
    (array([-1.0006931e+03, -6.9310000e-01, -6.9310000e-01]), array([ 0. ,  0.5, -0.5]))
    """

    def _stream_stage(self, name: str) -> Any:
        return PythonStage(self)

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        most: Array = x.max(axis=-1, keepdims=True, initial=-np.inf)
        with np.errstate(all="ignore"):
            # The largest share is 1 over the sum of exp(x - most).
            y: Array = (x - most) + np.log(softmax(x).max(axis=-1, keepdims=True, initial=0))
        return y, (y,)

    def _backward(self, dy: Array, y: Array) -> Array:
        with np.errstate(all="ignore"):
            dx: Array = dy - np.exp(y) * dy.sum(axis=-1, keepdims=True)
        return dx


def softmax(x: Array) -> Array:
    """Return the softmax over the last axis."""
    return _core.softmax(checks.in_order(x))


def softmax_backward(dy: Array, y: Array) -> Array:
    """Return the gradient of x from that of y = softmax(x)."""
    return _core.softmax_backward(checks.in_order(dy), checks.in_order(y))


# Those with options -------------------------------------------------------------------------------


@storable
class GELU(_OfNumbers):
    """y = x P(x), elementwise, where P is the distribution function of the standard normal.

    It takes x of any shape and keeps float32 and float64. Of -Inf it gives -0, to which it tends,
    and NaN with "tanh"; PyTorch gives NaN.

    Parameters
    ----------
    approximate : {"none", "tanh"}, default "none"
        "none" computes P to rounding, as (1 + erf(x / sqrt(2))) / 2; "tanh" takes
        (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))) / 2 for it, which is off by up to 4.8e-4.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", 2016 (arXiv:1606.08415).

    Examples
    --------
    >>> import lstmcore as lc
    >>> gelu = lc.GELU()
    >>> y, tape = gelu.forward([-1.0, 0.0, 2.0])
    >>> y.round(4), gelu.backward(tape, [1.0, 1.0, 1.0]).round(4)
    (array([-0.1587,  0.    ,  1.9545]), array([-0.0833,  0.5   ,  1.0852]))
    """

    approximate = Option[str]()

    def __init__(self, approximate: str = "none") -> None:
        self._config = SimpleNamespace(
            approximate=checks.choice(approximate, "approximate", ("none", "tanh"))
        )

    @property
    def _kernel(self) -> _Kernel | None:  # type: ignore[override]
        return ("gelu", 1.0, 1.0) if self.approximate == "none" else None

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        scale, cubic = (2 / np.pi) ** 0.5, 0.044715
        bent = np.tanh(scale * (x + cubic * x * x * x))
        y = 0.5 * x * (1 + bent)
        if not train:
            return y, None
        inner = scale * (1 + 3 * cubic * x * x)
        return y, 0.5 * (1 + bent) + 0.5 * x * (1 - bent * bent) * inner


@storable
class SiLU(_OfNumbers):
    """y = x / (1 + exp(-x)), elementwise; also called swish.

    It takes x of any shape and keeps float32 and float64. Of -Inf it gives -0, to which it tends,
    and PyTorch NaN.

    Notes
    -----
    D. Hendrycks, K. Gimpel, "Gaussian error linear units (GELUs)", 2016 (arXiv:1606.08415).

    Examples
    --------
    >>> import lstmcore as lc
    >>> silu = lc.SiLU()
    >>> y, tape = silu.forward([-1.0, 0.0, 2.0])
    >>> y.round(4), silu.backward(tape, [1.0, 1.0, 1.0]).round(4)
    (array([-0.2689,  0.    ,  1.7616]), array([0.0723, 0.5   , 1.0908]))
    """

    _kernel = ("silu", 1.0, 1.0)


@storable
class ELU(_OfNumbers):
    """y = x for x > 0, else alpha (exp(x) - 1), elementwise.

    It takes x of any shape and keeps float32 and float64.

    Parameters
    ----------
    alpha : float, default 1.0
        What y goes to, with the opposite sign, for x that go to -Inf.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    D.-A. Clevert, T. Unterthiner, S. Hochreiter, "Fast and accurate deep network learning by
    exponential linear units (ELUs)", ICLR 2016 (arXiv:1511.07289).

    Examples
    --------
    >>> import lstmcore as lc
    >>> elu = lc.ELU()
    >>> y, tape = elu.forward([-1.0, 0.0, 2.0])
    >>> y.round(4), elu.backward(tape, [1.0, 1.0, 1.0]).round(4)
    (array([-0.6321,  0.    ,  2.    ]), array([0.3679, 1.    , 1.    ]))
    """

    alpha = Option[float]()

    def __init__(self, alpha: float = 1.0) -> None:
        self._config = SimpleNamespace(alpha=checks.number(alpha, "alpha"))

    @property
    def _kernel(self) -> _Kernel | None:  # type: ignore[override]
        return ("elu", self.alpha, 1.0) if self.alpha >= 0 else None

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        above, low = x > 0, np.minimum(x, 0)
        slope = np.where(above, 1, self.alpha * np.exp(low)) if train else None
        return np.where(above, x, self.alpha * np.expm1(low)), slope


@storable
class LeakyReLU(_OfNumbers):
    """y = x for x > 0, else negative_slope x, elementwise; the gradient at 0 is negative_slope.

    It takes x of any shape and keeps float32 and float64.

    Parameters
    ----------
    negative_slope : float, default 0.01
        What x at most 0 are multiplied by.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> leaky = lc.LeakyReLU(0.1)
    >>> y, tape = leaky.forward([-1.0, 0.0, 2.0])
    >>> y, leaky.backward(tape, [1.0, 1.0, 1.0])
    (array([-0.1,  0. ,  2. ]), array([0.1, 0.1, 1. ]))
    """

    negative_slope = Option[float]()

    def __init__(self, negative_slope: float = 0.01) -> None:
        slope = checks.number(negative_slope, "negative_slope")
        self._config = SimpleNamespace(negative_slope=slope)

    @property
    def _kernel(self) -> _Kernel | None:  # type: ignore[override]
        return ("leaky_relu", self.negative_slope, 1.0) if self.negative_slope >= 0 else None

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        above = x > 0
        slope = np.where(above, 1, self.negative_slope) if train else None
        return np.where(above, x, x * self.negative_slope), slope


@storable
class PReLU(FeedForward):
    """y = x, or where x is below 0 weight * x: a `LeakyReLU` whose slope is trained.

    Parameters
    ----------
    num_parameters : int, default 1
        How many slopes there are: 1, for all numbers, or one for each feature.
    init : float, default 0.25
        What they start as.
    dtype : {"float32", "float64"}, default "float32"
        Of the parameter, x and y.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Notes
    -----
    K. He et al., "Delving deep into rectifiers", ICCV 2015 (arXiv:1502.01852). The parameter is
    PyTorch's, ``weight`` (num_parameters,). Unlike there, features are the last axis.

    Examples
    --------
    >>> import lstmcore as lc
    >>> prelu = lc.PReLU(2, dtype="float64")
    >>> y, tape = prelu.forward([[-1.0, 4.0], [2.0, -4.0]])
    >>> dx = prelu.backward(tape, [[1.0, 1.0], [1.0, 1.0]])
    >>> y[1], dx[1], prelu.parameters()[0].grad
    (array([ 2., -1.]), array([1.  , 0.25]), array([-1., -4.]))
    """

    num_parameters = Option[int]()
    init = Option[float]()
    dtype = Option[np.dtype[Any]]()

    def __init__(
        self, num_parameters: int = 1, init: float = 0.25, dtype: npt.DTypeLike = "float32"
    ) -> None:
        self._config = SimpleNamespace(
            num_parameters=checks.integer(num_parameters, "num_parameters", 1),
            init=checks.number(init, "init"),
            dtype=checks.dtype(dtype),
        )
        checks.fits(self.init, "init", self.dtype)
        self._make_parameters([("weight", (self.num_parameters,))], self.dtype)
        self.reset_parameters()

    def reset_parameters(self, seed: int | None = None) -> None:
        """Set the slopes to `init`; there is nothing to draw from `seed`."""
        checks.seed(seed)
        for p in self._parameters.values():
            p._storage.fill(self.init)
            p._touch()

    @property
    def _input_size(self) -> int | None:
        return self.num_parameters if self.num_parameters > 1 else None

    def _output_size(self, size: int | None) -> int | None:
        return size

    def _input(self, x: npt.ArrayLike) -> Array:
        array = checks.real(x, self.dtype, "x")
        size = self.num_parameters
        if size > 1 and array.shape[-1:] != (size,):
            raise ValueError(f"x has shape {array.shape}, expected (..., {size})")
        return array

    def _stream_stage(self, name: str) -> Any:
        return PythonStage(self)

    def _forward(self, x: Array, train: bool) -> tuple[Array, tuple[Any, ...]]:
        weight = np.array(self._parameters["weight"]._storage, subok=False)
        with np.errstate(all="ignore"):
            y = np.where(x > 0, x, x * weight)
        return y, (checks.kept(x), weight) if train else ()

    def _backward(self, dy: Array, x: Array, weight: Array) -> Array:
        above = x > 0
        with np.errstate(all="ignore"):
            each = np.where(above, dy.dtype.type(0), dy * x)
            axes = None if self.num_parameters == 1 else tuple(range(x.ndim - 1))
            self._parameters["weight"].grad += each.sum(axis=axes)
            return np.where(above, dy, dy * weight)


@storable
class Softplus(_OfNumbers):
    """y = log(1 + exp(beta x)) / beta, elementwise: a ReLU without the corner.

    It takes x of any shape and keeps float32 and float64.

    Parameters
    ----------
    beta : float, default 1.0
        How sharp the bend is; not 0.
    threshold : float, default 20.0
        Where beta x is above it, y is x, as in PyTorch. That differs from the formula by 2e-9 at
        most with the defaults, which float32 does not see.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> softplus = lc.Softplus()
    >>> y, tape = softplus.forward([-1.0, 0.0, 30.0])
    >>> y.round(4), softplus.backward(tape, [1.0, 1.0, 1.0]).round(4)
    (array([ 0.3133,  0.6931, 30.    ]), array([0.2689, 0.5   , 1.    ]))
    """

    beta = Option[float]()
    threshold = Option[float]()

    def __init__(self, beta: float = 1.0, threshold: float = 20.0) -> None:
        self._config = SimpleNamespace(
            beta=checks.number(beta, "beta"), threshold=checks.number(threshold, "threshold")
        )
        if not self.beta:
            raise ValueError("beta is 0.0, expected another number")

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        scaled = np.asarray(self.beta * x, x.dtype)
        straight = scaled > self.threshold
        y = np.where(straight, x, np.logaddexp(scaled, x.dtype.type(0)) / self.beta)
        if not train:
            return y, None
        share = _core.activate(("sigmoid", 1.0, 1.0), checks.in_order(scaled))
        return y, np.where(straight, 1, share)


def _softsign(x: Array) -> tuple[Any, Any]:
    share = 1 / (1 + np.abs(x))
    return x * share, share * share


# Those of `Activation`: what the kernels call it, or y and the slope dy/dx of each number.
FUNCTIONS: dict[str, _Kernel | Callable[[Array], tuple[Any, Any]]] = {
    "absolute": lambda x: (np.abs(x), np.sign(x)),
    "exponential": ("exponential", 1.0, 1.0),
    "hard_sigmoid": ("hard_sigmoid", 1 / 6, 0.5),
    "hard_silu": ("hard_silu", 1.0, 1.0),
    "mish": ("mish", 1.0, 1.0),
    "relu6": lambda x: (np.clip(x, 0, 6), (x > 0) & (x < 6)),
    "selu": ("selu", 1.0, 1.0),
    "softsign": _softsign,
    "square": lambda x: (x * x, 2 * x),
}


@storable
class Activation(_OfNumbers):
    """A function of every number by itself, by its name.

    It takes x of any shape and keeps float32 and float64. Beside it there are `ELU`, `GELU`,
    `LeakyReLU`, `LogSoftmax`, `ReLU`, `SiLU`, `Sigmoid`, `Softmax`, `Softplus` and `Tanh`.

    Parameters
    ----------
    name : str
        "absolute", abs(x); "exponential", exp(x); "hard_sigmoid", x / 6 + 1/2 between 0 and 1;
        "hard_silu", x times that; "mish", x tanh(log(1 + exp(x))); "relu6", x between 0 and 6;
        "selu", 1.0507 x above 0, else 1.7581 (exp(x) - 1); "softsign", x / (1 + abs(x)); "square",
        x * x.

    Raises
    ------
    ValueError, TypeError
        If it is none of these.

    Notes
    -----
    D. Misra, "Mish: a self regularized non-monotonic activation function", 2019 (arXiv:1908.08681).
    G. Klambauer et al., "Self-normalizing neural networks", 2017 (arXiv:1706.02515).

    Examples
    --------
    >>> import lstmcore as lc
    >>> mish = lc.Activation("mish")
    >>> y, tape = mish.forward([-1.0, 0.0, 2.0])
    >>> y.round(4), mish.backward(tape, [1.0, 1.0, 1.0]).round(4)
    (array([-0.3034,  0.    ,  1.944 ]), array([0.0592, 0.6   , 1.0693]))
    """

    name = Option[str]()

    def __init__(self, name: str) -> None:
        self._config = SimpleNamespace(name=checks.choice(name, "name", tuple(FUNCTIONS)))

    @property
    def _kernel(self) -> _Kernel | None:  # type: ignore[override]
        found = FUNCTIONS[self.name]
        return found if isinstance(found, tuple) else None

    def _curve(self, x: Array, train: bool) -> tuple[Any, Any]:
        found: Any = FUNCTIONS[self.name]
        return found(x)  # type: ignore[no-any-return]


# P(-z) exp(z^2 / 2) (z + 6) for z >= 0, as a polynomial in (z - 6) / (z + 6), lowest power first:
# its Chebyshev series. P comes out to 2e-16, and for z < 37 to 6e-14 of its size.
_TAIL = (
    0.7773517718933622, -0.7010090295908656, 0.5689688918147835, -0.4139035857755745,
    0.2679742458416649, -0.15268023206503917, 0.07517191566872725, -0.03098531549895509,
    0.010029820643608887, -0.002131605285716135, 3.286999093017252e-05, 0.00018136081565295003,
    -6.475182912359327e-05, 1.0742840107015701e-06, 6.795697883730602e-06, -1.7969945618258692e-06,
    -4.2792082812200157e-07, 3.0702367893627545e-07, 5.175950303086143e-09, -4.10380431659102e-08,
    3.9361952129522875e-09, 4.6664643925858215e-09, -7.828191936665439e-10, -3.403350501945896e-10,
    7.038111375958135e-11,
)  # fmt: skip


def normal_distribution(x: Array) -> Array:
    """Return P(x), the probability that a standard normal number is below x."""
    z = np.minimum(np.abs(x), 40)  # beyond, P(-z) is 0 in float64
    t = (z - 6) / (z + 6)
    tail = np.full_like(t, _TAIL[-1])
    for coefficient in _TAIL[-2::-1]:
        tail *= t
        tail += coefficient
    tail *= np.exp(-0.5 * z * z) / (z + 6)
    result: Array = np.where(x > 0, 1 - tail, tail)
    return result
