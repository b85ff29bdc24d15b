r"""The recurrent layers in float64 NumPy, written to be read beside their equations.

This is the oracle that the fast code is tested against. It imports NumPy alone, walks through time
step by step, and is never fast. Every variant is an option of one cell; each backward step stands
under its forward step and takes the same numbered steps in the opposite order (full
backpropagation through time, nothing truncated).

Sizes: ``T`` steps, ``B`` rows, ``I`` inputs, ``H`` hidden units, ``P`` outputs (``H``, or as many
as a projection has), ``L`` layers, ``D`` directions, ``G`` gates. In the equations a prime marks
the step before, ``*`` is elementwise, and ``a_i`` is the part of ``a`` that belongs to gate ``i``.

Parameters are dicts with PyTorch's names, ``weight_ih_l{k}`` (G*H, I), ``weight_hh_l{k}`` (G*H, P),
``bias_ih_l{k}`` and ``bias_hh_l{k}`` (G*H,), and ``_reverse`` at the end for the second direction.
The LSTM also knows ``weight_ch_l{k}`` (peepholes) and ``weight_hr_l{k}`` (P, H) (projection). With
``weight_ln_ih_l{k}`` and ``weight_ln_hh_l{k}`` (G*H,), and in the LSTM ``weight_ln_c_l{k}`` and
``bias_ln_c_l{k}`` (H,), there is layer normalisation (Ba et al. 2016) as `rnn_forward` and
`lstm_forward` say. A name that is absent is a term that is absent. A matrix may be in int8, as
`lstmcore.quantize` makes it: then ``weight_ih_l{k}_scale`` (G*H,) has the scales of its rows, and
what it is multiplied with is rounded to int8, too. Backward is not there for it.

With ``precision="bfloat16"`` both factors of every product with a matrix are rounded to bfloat16,
in backward too, and all else, sums included, stays float64. `round_bfloat16` is how. With
``"bfloat16x3"`` both are sums of three numbers in bfloat16, and of the nine products of these the
six largest are added; those that are gradients of matrices are whole.

Activations are named as in ONNX: ``"sigmoid"``, ``"tanh"``, ``"relu"``, ``"softsign"``,
``"identity"``, ``"selu"``, ``"softplus"``, ``"exponential"``, ``"gelu"``, ``"silu"``, ``"mish"``,
``"hard_silu"``; with constants or with defaults for them, ``"hard_sigmoid"`` or
``("hard_sigmoid", alpha, beta)``, ``("leaky_relu", alpha)``, ``("thresholded_relu", alpha)`` and
``("elu", alpha)``; and always with constants ``("scaled_tanh", alpha, beta)`` and
``("affine", alpha, beta)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "gru_backward",
    "gru_forward",
    "lstm_backward",
    "lstm_forward",
    "rnn_backward",
    "rnn_forward",
    "round_bfloat16",
]


def __dir__() -> list[str]:
    return __all__


Array = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Activation = str | tuple[str, float] | tuple[str, float, float]
Arrays = tuple[Array, ...]
Saved = tuple[Any, ...]  # what a step leaves for its backward
Weights = dict[str, Any]  # of Array, or of _Int8 where a matrix is in int8


# Activations ----------------------------------------------------------------------------------
# Each is a pair: y = f(x), and dy/dx as a function of x and y.

Function = Callable[[Array], Array]
Pair = tuple[Function, Callable[[Array, Array], Array]]


def _sigmoid(x: Array) -> Array:
    e = np.exp(-np.abs(x))  # never overflows, exact in both tails
    return np.where(x >= 0, 1.0, e) / (1.0 + e)


def _softsign(x: Array) -> Array:
    largest = np.finfo(np.float64).max
    x = np.clip(x, -largest, largest)  # infinity saturates instead of inf / inf
    return x / (1.0 + np.abs(x))


def _hard_sigmoid(alpha: float = 0.2, beta: float = 0.5) -> Pair:
    return (
        lambda x: np.clip(alpha * x + beta, 0.0, 1.0),
        lambda x, y: np.where((y > 0) & (y < 1), alpha, 0.0),
    )


def _scaled_tanh(alpha: float, beta: float) -> Pair:
    return lambda x: alpha * np.tanh(beta * x), lambda x, y: beta * (alpha - y * y / alpha)


def _leaky_relu(alpha: float = 0.01) -> Pair:
    return lambda x: np.where(x < 0, alpha * x, x), lambda x, y: np.where(x > 0, 1.0, alpha)


def _thresholded_relu(alpha: float = 1.0) -> Pair:
    return lambda x: np.where(x <= alpha, 0.0, x), lambda x, y: np.where(x > alpha, 1.0, 0.0)


def _elu(alpha: float = 1.0, scale: float = 1.0) -> Pair:
    # Clevert, Unterthiner, Hochreiter 2016; with a scale Klambauer et al. 2017
    def f(x: Array) -> Array:
        return scale * np.where(x > 0, x, alpha * np.expm1(np.minimum(x, 0.0)))

    return f, lambda x, y: scale * np.where(x > 0, 1.0, alpha * np.exp(np.minimum(x, 0.0)))


def _softplus(x: Array) -> Array:
    return np.maximum(x, 0.0) + np.log1p(np.exp(-np.abs(x)))


def _normal(x: Array) -> Array:
    # The distribution function of the normal distribution; NumPy has no erf, Python has.
    erfc = np.frompyfunc(math.erfc, 1, 1)
    return np.asarray(0.5 * erfc(-x / math.sqrt(2.0)), dtype=np.float64)


def _normal_density(x: Array) -> Array:
    x = np.clip(x, -1000.0, 1000.0)
    return np.asarray(np.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi))


def _exponential(x: Array) -> Array:
    with np.errstate(over="ignore"):
        return np.asarray(np.exp(x))


def _finite(x: Array) -> Array:
    # Where a factor is 0 from some x on, what is multiplied with it must not be infinite.
    return np.maximum(x, -1000.0)


def _gated(share: Function, dshare: Function) -> Pair:
    # x share(x), where share goes from 0 to 1
    return (
        lambda x: _finite(x) * share(x),
        lambda x, y: share(x) + np.clip(x, -1000.0, 1000.0) * dshare(x),
    )


def _silu() -> Pair:
    return _gated(_sigmoid, lambda x: _sigmoid(x) * _sigmoid(-x))


def _mish() -> Pair:
    # D. Misra 2019
    return _gated(
        lambda x: np.tanh(_softplus(x)), lambda x: (1.0 - np.tanh(_softplus(x)) ** 2) * _sigmoid(x)
    )


def _hard_silu() -> Pair:
    return _gated(
        lambda x: np.clip(x / 6.0 + 0.5, 0.0, 1.0),
        lambda x: np.where(np.abs(x) < 3.0, 1.0 / 6.0, 0.0),
    )


_ACTIVATIONS: dict[str, Callable[..., Pair]] = {
    "sigmoid": lambda: (_sigmoid, lambda x, y: y * (1.0 - y)),
    "tanh": lambda: (np.tanh, lambda x, y: 1.0 - y * y),
    "relu": lambda: (lambda x: np.maximum(x, 0.0), lambda x, y: np.where(y > 0, 1.0, 0.0)),
    "softsign": lambda: (_softsign, lambda x, y: (1.0 - np.abs(y)) ** 2),
    "identity": lambda: (lambda x: x, lambda x, y: np.ones_like(y)),
    "hard_sigmoid": _hard_sigmoid,
    "scaled_tanh": _scaled_tanh,
    "affine": lambda alpha, beta: (
        lambda x: alpha * x + beta,
        lambda x, y: np.full_like(y, alpha),
    ),
    "leaky_relu": _leaky_relu,
    "thresholded_relu": _thresholded_relu,
    "elu": lambda alpha=1.0: _elu(alpha),
    "selu": lambda: _elu(1.6732632423543772, 1.0507009873554805),
    "softplus": lambda: (_softplus, lambda x, y: _sigmoid(x)),
    "exponential": lambda: (_exponential, lambda x, y: y),
    "gelu": lambda: _gated(_normal, _normal_density),
    "silu": _silu,
    "mish": _mish,
    "hard_silu": _hard_silu,
}


def _activation(spec: Activation, clip: float | None = None) -> Pair:
    """The pair of a name and its constants, with its argument held to [-clip, clip]."""
    if clip is not None:
        if not clip > 0:
            raise ValueError(f"gate_clip is {clip}, expected a positive number or None")
        f, df = _activation(spec)
        return (
            lambda x: f(np.clip(x, -clip, clip)),
            lambda x, y: np.where(np.abs(x) < clip, df(x, y), 0.0),
        )
    name, *constants = (spec,) if isinstance(spec, str) else spec
    if name not in _ACTIVATIONS:
        raise ValueError(f"activation is {name!r}, expected one of {', '.join(_ACTIVATIONS)}")
    try:
        return _ACTIVATIONS[str(name)](*constants)
    except TypeError:
        raise ValueError(f"activation {spec!r} has the wrong number of constants") from None


# Cells ----------------------------------------------------------------------------------------
# A step takes x (B, I), the state before it, a tuple of (B, .) arrays whose first is the output,
# and u, the output before it on its way into W_hh, which differs from that by recurrent dropout. It
# gives the state after it and what the backward step needs. The backward step takes that and the
# gradient of the state after, and gives the gradients of x, of u, of the state before, and of the
# parameters by name (the biases always; who has none leaves them out).

_NAMES = ("weight_ih", "weight_hh", "bias_ih", "bias_hh", "weight_ln_ih", "weight_ln_hh")
_MATRICES = ("weight_ih", "weight_hh", "weight_hr")


class _Cell(Protocol):
    @property
    def names(self) -> tuple[str, ...]: ...  # of the parameters it may have
    @property
    def gates(self) -> str: ...  # a letter each, in the order of the rows of the weights
    def step(self, x: Array, u: Array, state: Arrays, p: Weights) -> tuple[Arrays, Saved]: ...
    def step_backward(
        self, saved: Saved, dstate: Arrays, p: Weights
    ) -> tuple[Array, Array, Arrays, Weights]: ...


class _Int8(NamedTuple):
    """A matrix in int8: scale * values, with one scale for each row."""

    values: Array
    scale: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def split(self, n: int) -> list[_Int8]:
        return [_Int8(*parts) for parts in zip(np.split(self.values, n), np.split(self.scale, n))]


class _Bfloat16(NamedTuple):
    """A matrix in bfloat16; `values` are the rounded ones."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def split(self, n: int) -> list[_Bfloat16]:
        return [_Bfloat16(part) for part in np.split(self.values, n)]


class _Bfloat16x3(NamedTuple):
    """A matrix as the sum of three in bfloat16."""

    values: Array

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    def split(self, n: int) -> list[_Bfloat16x3]:
        return [_Bfloat16x3(part) for part in np.split(self.values, n)]


def _split(w: Any, n: int) -> list[Any]:
    """The rows of a matrix in n parts."""
    return w.split(n) if isinstance(w, (_Int8, _Bfloat16, _Bfloat16x3)) else np.split(w, n)


def round_bfloat16(x: npt.ArrayLike) -> Array:
    """Round to bfloat16, the upper half of a float32: to nearest, of two to the even one.

    Parameters
    ----------
    x : array_like
        Rounded to float32 first. NaN stays NaN; what is beyond the largest becomes infinite.

    Returns
    -------
    array of float64

    Examples
    --------
    >>> round_bfloat16([1.0, 1.00390625, 1.01171875, np.pi, 3.4e38])
    array([1.      , 1.      , 1.015625, 3.140625,      inf])
    """
    bits = np.array(x, dtype=np.float32).view(np.uint32)
    with np.errstate(over="ignore"):
        rounded = bits + (np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1)))
    is_nan = bits & np.uint32(0x7FFFFFFF) > np.uint32(0x7F800000)
    rounded = np.where(is_nan, bits | np.uint32(0x400000), rounded) & np.uint32(0xFFFF0000)
    return rounded.astype(np.uint32).view(np.float32).astype(np.float64)


def _product_of_parts(x: Array, w: Array) -> Array:
    """Return x @ w of the parts of both, the largest three and three."""
    of_x, of_w = _parts(x), _parts(w)
    return np.asarray(sum(of_x[i] @ of_w[j] for i in range(3) for j in range(3 - i)))


def _parts(x: Array) -> list[Array]:
    """Numbers as sums of three in bfloat16; what is not finite is in the last alone."""
    finite = np.isfinite(x)
    largest = np.float64(np.uint32(0x7F7F0000).view(np.float32))
    first = round_bfloat16(np.clip(np.where(finite, x, 0), -largest, largest))
    second = round_bfloat16(np.where(finite, x - first, 0))
    return [first, second, round_bfloat16(x - first - second)]


def _round_rows(x: Array) -> tuple[Array, Array]:
    """Rows as whole numbers times the scale of each; as in float32.

    The largest is 127, or 254 in a row without a negative number: with 127 subtracted, an int8.
    """
    rows = x.astype(np.float32)
    most = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    most[most < 1e-30] = 0  # such rows are zeros
    steps = np.where((rows < 0).any(axis=1, keepdims=True), np.float32(127), np.float32(254))
    factor = np.divide(steps, most, out=np.zeros_like(most), where=most > 0)
    values = np.where(np.isfinite(most), np.rint(rows * factor), 0)
    scale = np.where(np.isfinite(most), most / steps, np.nan)
    return values.astype(np.float64), scale.astype(np.float64)


def _linear(x: Array, w: Any, b: Array | float = 0.0) -> Array:
    if isinstance(w, _Int8):
        values, scale = _round_rows(x)
        return (values @ w.values.T) * (scale * w.scale) + b
    if isinstance(w, _Bfloat16):
        return np.asarray(round_bfloat16(x) @ w.values.T + b)
    if isinstance(w, _Bfloat16x3):
        return _product_of_parts(x, w.values.T) + b
    return np.asarray(x @ w.T + b)


def _linear_backward(dy: Array, x: Array, w: Any) -> tuple[Array, Array]:
    if isinstance(w, _Bfloat16):
        dy, x, w = round_bfloat16(dy), round_bfloat16(x), w.values
    if isinstance(w, _Bfloat16x3):
        return _product_of_parts(dy, w.values), dy.T @ x
    return dy @ w, dy.T @ x  # dx, dw


# Layer normalisation (Ba et al. 2016) of rows (B, n): what it gives without gain and bias, and the
# factor that made it so, are what backward needs.

_EPS = 1e-5


def _normalize(x: Array) -> Arrays:
    centred = x - x.mean(axis=1, keepdims=True)
    scale = 1.0 / np.sqrt((centred * centred).mean(axis=1, keepdims=True) + _EPS)
    return centred * scale, scale


def _normalize_backward(dnormal: Array, saved: Arrays) -> Array:
    normal, scale = saved
    slope = (dnormal * normal).mean(axis=1, keepdims=True)
    return np.asarray(scale * (dnormal - dnormal.mean(axis=1, keepdims=True) - normal * slope))


class _Product(NamedTuple):
    """w x + b, or, with a gain, LN(w x) * gain + b."""

    w: Any
    b: Array | float
    gain: Array | None

    @staticmethod
    def of(p: Weights, side: str) -> _Product:
        """The product of the input, "ih", or of the state, "hh"."""
        return _Product(p[f"weight_{side}"], p.get(f"bias_{side}", 0.0), p.get(f"weight_ln_{side}"))

    def run(self, x: Array) -> tuple[Array, Arrays]:
        if self.gain is None:
            return _linear(x, self.w, self.b), (x,)
        normal, scale = _normalize(_linear(x, self.w))
        return normal * self.gain + self.b, (x, normal, scale)

    def back(self, dy: Array, saved: Arrays, side: str) -> tuple[Array, Weights]:
        """The gradient of x, and those of the parameters by name."""
        x, *norm = saved
        dp: Weights = {f"bias_{side}": dy.sum(axis=0)}
        if self.gain is not None:
            dp[f"weight_ln_{side}"] = (dy * norm[0]).sum(axis=0)
            dy = _normalize_backward(dy * self.gain, tuple(norm))
        dx, dp[f"weight_{side}"] = _linear_backward(dy, x, self.w)
        return dx, dp


@dataclass(frozen=True)
class _RNN:
    """The steps are those of `rnn_forward`."""

    activation: Pair
    names, gates = _NAMES, "h"

    def step(self, x: Array, u: Array, state: Arrays, p: Weights) -> tuple[Arrays, Saved]:
        act, _ = self.activation
        # 1. the sum of what comes in
        a_x, of_x = _Product.of(p, "ih").run(x)
        a_u, of_u = _Product.of(p, "hh").run(u)
        # 2. the output
        a = a_x + a_u
        h = act(a)
        return (h,), (of_x, of_u, a, h)

    def step_backward(
        self, saved: Saved, dstate: Arrays, p: Weights
    ) -> tuple[Array, Array, Arrays, Weights]:
        _, dact = self.activation
        of_x, of_u, a, h = saved
        (dh,) = dstate
        # 2. the output
        da = dh * dact(a, h)
        # 1. the sum of what comes in
        dx, dp_x = _Product.of(p, "ih").back(da, of_x, "ih")
        du, dp_u = _Product.of(p, "hh").back(da, of_u, "hh")
        return dx, du, (np.zeros_like(dh),), dp_x | dp_u


@dataclass(frozen=True)
class _LSTM:
    """The steps are those of `lstm_forward`."""

    forget_gate: bool
    coupled: bool
    cell_clip: float | None
    activations: tuple[Pair, ...]
    names = (*_NAMES, "weight_ch", "weight_hr", "weight_ln_c", "bias_ln_c")

    def __post_init__(self) -> None:
        if self.coupled and not self.forget_gate:
            raise ValueError("coupled=True contradicts forget_gate=False")
        if self.cell_clip is not None and not self.cell_clip > 0:
            raise ValueError(f"cell_clip is {self.cell_clip}, expected a positive number or None")

    @property
    def gates(self) -> str:
        return "ifgo" if self.forget_gate and not self.coupled else "igo"

    def peepholes(self, p: Weights) -> Weights:
        """The peephole of each gate, of none if there are none."""
        return dict(zip(self.gates.replace("g", ""), p.get("weight_ch", ())))

    def step(self, x: Array, u: Array, state: Arrays, p: Weights) -> tuple[Arrays, Saved]:
        (gate, _), (candidate, _), (output, _) = self.activations
        _, c_prev = state
        w = self.peepholes(p)
        # 1. the sum of what comes in to each gate
        a_x, of_x = _Product.of(p, "ih").run(x)
        a_u, of_u = _Product.of(p, "hh").run(u)
        a = dict(zip(self.gates, np.split(a_x + a_u, len(self.gates), axis=1)))
        # 2. the input and forget gates, which may see the cell as it was
        for n in w:
            if n != "o":
                a[n] = a[n] + w[n] * c_prev
        i = gate(a["i"])
        if self.coupled:
            f = 1.0 - i
        elif self.forget_gate:
            f = gate(a["f"])
        else:
            f = np.ones_like(i)
        # 3. the candidate
        g = candidate(a["g"])
        # 4. the cell
        c = f * c_prev + i * g
        if self.cell_clip is not None:
            c = np.clip(c, -self.cell_clip, self.cell_clip)
        # 5. the output gate, which may see the cell as it is now
        if w:
            a["o"] = a["o"] + w["o"] * c
        o = gate(a["o"])
        # 6. what the cell shows
        of_c: Arrays = ()
        shown = c
        if "weight_ln_c" in p:
            of_c = _normalize(c)
            shown = of_c[0] * p["weight_ln_c"] + p["bias_ln_c"]
        k = output(shown)
        m = o * k
        # 7. its projection
        h = _linear(m, p["weight_hr"]) if "weight_hr" in p else m
        return (h, c), (of_x, of_u, of_c, c_prev, a, i, f, g, c, o, shown, k, m)

    def step_backward(
        self, saved: Saved, dstate: Arrays, p: Weights
    ) -> tuple[Array, Array, Arrays, Weights]:
        (_, dgate), (_, dcandidate), (_, doutput) = self.activations
        of_x, of_u, of_c, c_prev, a, i, f, g, c, o, shown, k, m = saved
        dh, dc = dstate
        w = self.peepholes(p)
        da, dp = {}, {}
        # 7. its projection
        dm = dh
        if "weight_hr" in p:
            dm, dp["weight_hr"] = _linear_backward(dh, m, p["weight_hr"])
        # 6. what the cell shows
        do, dk = dm * k, dm * o
        dshown = dk * doutput(shown, k)
        if of_c:
            dp["weight_ln_c"], dp["bias_ln_c"] = (dshown * of_c[0]).sum(axis=0), dshown.sum(axis=0)
            dshown = _normalize_backward(dshown * p["weight_ln_c"], of_c)
        dc = dc + dshown
        # 5. the output gate
        da["o"] = do * dgate(a["o"], o)
        if w:
            dc = dc + da["o"] * w["o"]
        # 4. the cell: where it was clipped, nothing before it mattered
        if self.cell_clip is not None:
            dc = np.where(np.abs(c) < self.cell_clip, dc, 0.0)
        df, dc_prev, di, dg = dc * c_prev, dc * f, dc * g, dc * i
        # 3. the candidate
        da["g"] = dg * dcandidate(a["g"], g)
        # 2. the input and forget gates
        if self.coupled:
            di = di - df
        elif self.forget_gate:
            da["f"] = df * dgate(a["f"], f)
        da["i"] = di * dgate(a["i"], i)
        if w:
            seen = {"i": c_prev, "f": c_prev, "o": c}  # the cell that each peephole looked at
            dc_prev = dc_prev + sum(da[n] * w[n] for n in w if n != "o")
            dp["weight_ch"] = np.stack([(da[n] * seen[n]).sum(axis=0) for n in w])
        # 1. the sum of what comes in to each gate
        dsums = np.concatenate([da[n] for n in self.gates], axis=1)
        dx, dp_x = _Product.of(p, "ih").back(dsums, of_x, "ih")
        du, dp_u = _Product.of(p, "hh").back(dsums, of_u, "hh")
        return dx, du, (np.zeros_like(dh), dc_prev), dp | dp_x | dp_u


@dataclass(frozen=True)
class _GRU:
    """The steps are those of `gru_forward`."""

    reset_after: bool
    activations: tuple[Pair, ...]
    names, gates = _NAMES, "rzn"

    def hidden(self, p: Weights) -> tuple[_Product, ...]:
        """The products with W_hh: of all gates, or first of r and z, then of n."""
        whole = _Product.of(p, "hh")
        if self.reset_after:
            return (whole,)
        w_r, w_z, w_n = _split(whole.w, 3)
        H = w_n.shape[0]
        b = p.get("bias_hh", np.zeros(3 * H))
        if whole.gain is not None:
            raise ValueError("layer normalisation contradicts reset_after=False")
        first = (_Product(w_r, b[:H], None), _Product(w_z, b[H : 2 * H], None))
        return (*first, _Product(w_n, b[2 * H :], None))

    def step(self, x: Array, u: Array, state: Arrays, p: Weights) -> tuple[Arrays, Saved]:
        (gate, _), (candidate, _) = self.activations
        (h_prev,) = state
        products = self.hidden(p)
        # 1. the part of the input in each gate
        a, of_x = _Product.of(p, "ih").run(x)
        a_r, a_z, a_n = np.split(a, 3, axis=1)
        # 2. the reset and update gates
        made = [product.run(u) for product in products[:2]]
        sums = np.concatenate([q for q, _ in made], axis=1)
        q_r, q_z, *rest = np.split(sums, 3 if self.reset_after else 2, axis=1)
        s_r, s_z = a_r + q_r, a_z + q_z
        r, z = gate(s_r), gate(s_z)
        # 3. the part of the state in the candidate, reset after the product or before it
        if self.reset_after:
            (q,) = rest
        else:
            made.append(products[2].run(r * u))
            q = made[2][0]
        # 4. the candidate
        s_n = a_n + (r * q if self.reset_after else q)
        n = candidate(s_n)
        # 5. the output
        h = (1.0 - z) * n + z * h_prev
        return (h,), (of_x, [of for _, of in made], u, h_prev, s_r, s_z, s_n, r, z, q, n)

    def step_backward(
        self, saved: Saved, dstate: Arrays, p: Weights
    ) -> tuple[Array, Array, Arrays, Weights]:
        (_, dgate), (_, dcandidate) = self.activations
        of_x, of_u, u, h_prev, s_r, s_z, s_n, r, z, q, n = saved
        (dh,) = dstate
        products = self.hidden(p)
        # 5. the output
        dn, dz, dh_prev = dh * (1.0 - z), dh * (h_prev - n), dh * z
        # 4. the candidate
        da_n = dn * dcandidate(s_n, n)
        # 3. the part of the state in the candidate, and 2. the reset and update gates
        da_z = dz * dgate(s_z, z)
        if self.reset_after:
            da_r = da_n * q * dgate(s_r, r)
            dq = np.concatenate([da_r, da_z, da_n * r], axis=1)
            du, dp = products[0].back(dq, of_u[0], "hh")
        else:
            dv, dp_n = products[2].back(da_n, of_u[2], "hh")
            da_r = dv * u * dgate(s_r, r)
            du_r, dp_r = products[0].back(da_r, of_u[0], "hh")
            du_z, dp_z = products[1].back(da_z, of_u[1], "hh")
            du = dv * r + du_r + du_z
            dp = {name: np.concatenate([d[name] for d in (dp_r, dp_z, dp_n)]) for name in dp_n}
        # 1. the part of the input in each gate
        da = np.concatenate([da_r, da_z, da_n], axis=1)
        dx, dp_x = _Product.of(p, "ih").back(da, of_x, "ih")
        return dx, du, (dh_prev,), dp | dp_x


# What acts on x and on the state around a step ------------------------------------------------


class _Around(NamedTuple):
    """Dropout and zoneout of one direction; None is none."""

    x: Array | None  # (B, I) factors
    u: Array | None  # (B, P) factors of h' on its way into W_hh
    zoneout: tuple[float, ...]  # in the mean: of each part of the state
    kept: tuple[Array | None, ...]  # (T, B, .) 1 where that part keeps its value, else 0

    def zone(self, part: int, t: int, rows: Any, before: Array, made: Array) -> Array:
        """A part of the state after a step, of what it was and what the cell has made."""
        kept = self.kept[part]
        if kept is not None:
            return np.where(kept[t, rows] == 1, before, made)
        p = self.zoneout[part]
        return p * before + (1.0 - p) * made if p else made

    def zone_backward(self, part: int, t: int, rows: Any, d: Array) -> tuple[Array, Array]:
        """The gradients of what it was and of what the cell has made."""
        kept, p = self.kept[part], self.zoneout[part]
        share = np.full(d.shape, p) if kept is None else kept[t, rows]
        return share * d, (1.0 - share) * d


def _masked(value: Array, mask: Array | None, rows: Any) -> Array:
    return value if mask is None else value * mask[rows]


# One direction through time -------------------------------------------------------------------


class _Run(NamedTuple):
    """What one direction of one layer leaves for its backward."""

    p: Weights
    y: Array  # (T, B, P)
    around: _Around
    steps: list[tuple[int, npt.NDArray[np.intp], Mask, Saved]]


def _run(
    cell: _Cell,
    x: Array,
    state: Arrays,
    p: Weights,
    around: _Around,
    valid: Mask,
    resets: Mask,
    reverse: bool,
) -> tuple[Arrays, _Run]:
    """Walk through time. `valid` and `resets` are (T, B); returns the last state of each row."""
    T, B = valid.shape
    cut = resets  # where the state that comes in is dropped: at a reset ...
    if reverse:  # ... and, from behind, at the last step before one (past the end, none is seen)
        cut = np.zeros_like(resets)
        cut[:-1] = resets[1:] & valid[1:]
    state = tuple(s.copy() for s in state)
    y = np.zeros((T, B, state[0].shape[1]))
    steps = []
    for t in reversed(range(T)) if reverse else range(T):
        # Only the rows that have a step t take part: padding is never read, not even to be
        # multiplied by zero, so nothing in it can leak.
        rows = np.flatnonzero(valid[t])
        drop = cut[t, rows, None]
        before = tuple(np.where(drop, 0.0, s[rows]) for s in state)
        u = _masked(before[0], around.u, rows)
        made, saved = cell.step(_masked(x[t, rows], around.x, rows), u, before, p)
        for part, s in enumerate(state):
            s[rows] = around.zone(part, t, rows, before[part], made[part])
        y[t, rows] = state[0][rows]
        steps.append((t, rows, drop, saved))
    return state, _Run(p, y, around, steps)


def _run_backward(
    cell: _Cell, run: _Run, dy: Array, dstate: Arrays
) -> tuple[Array, Arrays, Weights]:
    """Walk back: the gradients of x, of the initial state, and of the parameters."""
    dx = np.zeros((*dy.shape[:2], run.p["weight_ih"].shape[1]))
    dstate = tuple(d.copy() for d in dstate)
    dp = {name: np.zeros(value.shape) for name, value in run.p.items()}
    for t, rows, drop, saved in reversed(run.steps):
        dh, *rest = (d[rows] for d in dstate)
        dafter = (dh + dy[t, rows], *rest)
        zoned = [run.around.zone_backward(part, t, rows, d) for part, d in enumerate(dafter)]
        dkept, dmade = zip(*zoned)
        dx_t, du, dbefore, dp_t = cell.step_backward(saved, dmade, run.p)
        dx[t, rows] = _masked(dx_t, run.around.x, rows)
        dbefore = tuple(kept + value for kept, value in zip(dkept, dbefore))
        dbefore = (dbefore[0] + _masked(du, run.around.u, rows), *dbefore[1:])
        for d, value in zip(dstate, dbefore):
            d[rows] = np.where(drop, 0.0, value)
        for name in dp:
            dp[name] += dp_t[name]
    return dx, dstate, dp


# The two directions merged --------------------------------------------------------------------
# Each is a pair: y of the outputs a and b (Schuster & Paliwal 1997), and (da, db) of dy, a and b.

_MERGES: dict[str, tuple[Callable[..., Array], Callable[..., Sequence[Array]]]] = {
    "concat": (lambda a, b: np.concatenate([a, b], 2), lambda dy, a, b: np.split(dy, 2, 2)),
    "sum": (lambda a, b: a + b, lambda dy, a, b: (dy, dy)),
    "mul": (lambda a, b: a * b, lambda dy, a, b: (dy * b, dy * a)),
    "ave": (lambda a, b: (a + b) / 2, lambda dy, a, b: (dy / 2, dy / 2)),
}


# The stack of layers --------------------------------------------------------------------------


@dataclass(frozen=True)
class _Stack:
    """How the layers are put together."""

    num_layers: int
    bidirectional: bool
    reverse: bool
    merge: str

    def __post_init__(self) -> None:
        if self.num_layers < 1:
            raise ValueError(f"num_layers is {self.num_layers}, expected at least 1")
        if self.bidirectional and self.reverse:
            raise ValueError("bidirectional=True contradicts reverse=True")
        if self.merge not in _MERGES:
            raise ValueError(f"merge is {self.merge!r}, expected one of {', '.join(_MERGES)}")

    def directions(self, k: int) -> list[tuple[int, str, bool]]:
        """Of layer k: place among the states, suffix of the names, and whether it reads back."""
        if not self.bidirectional:
            return [(k, f"_l{k}", self.reverse)]
        return [(2 * k, f"_l{k}", False), (2 * k + 1, f"_l{k}_reverse", True)]


class _Tape(NamedTuple):
    """What a forward call leaves for its backward."""

    cell: _Cell
    stack: _Stack
    layers: list[list[_Run]]  # [layer][direction]
    dropout_masks: list[Array]
    names: list[str]  # of the parameters, in the order given
    y_shape: tuple[int, ...]
    state_shapes: list[tuple[int, ...]]


def _array(name: str, value: Any, shape: tuple[int, ...]) -> Array:
    """A float64 copy of `value` (zeros for None), which must have this shape."""
    array = np.zeros(shape) if value is None else np.array(value, dtype=np.float64)
    if array.shape != shape:
        raise ValueError(f"{name} has shape {array.shape}, expected {shape}")
    return array


def _weights(
    cell: _Cell, params: Mapping[str, npt.ArrayLike], inputs: int, suffix: str, precision: str
) -> Weights:
    """The parameters of one direction of one layer, without the suffix of their names."""
    for name in ("weight_ih", "weight_hh"):
        if name + suffix not in params:
            raise ValueError(f"params has no {name + suffix}")
    given = {
        name: np.shape(params[name + suffix]) for name in cell.names if name + suffix in params
    }
    gates = len(cell.gates)
    hidden = given["weight_hh"][0] // gates
    outputs = given["weight_hr"][0] if "weight_hr" in given else hidden
    shapes = {
        "weight_ih": (gates * hidden, inputs),
        "weight_hh": (gates * hidden, outputs),
        "bias_ih": (gates * hidden,),
        "bias_hh": (gates * hidden,),
        "weight_ch": (gates - 1, hidden),
        "weight_hr": (outputs, hidden),
        "weight_ln_ih": (gates * hidden,),
        "weight_ln_hh": (gates * hidden,),
        "weight_ln_c": (hidden,),
        "bias_ln_c": (hidden,),
    }
    norms = {name for name in cell.names if "_ln_" in name}
    if given.keys() & norms not in (set(), norms):
        raise ValueError(f"params has some of {', '.join(sorted(norms))}, expected all or none")
    weights: Weights = {}
    for name in given:
        values = _array(name + suffix, params[name + suffix], shapes[name])
        of_scale = f"{name}{suffix}_scale"
        if of_scale in params:
            scale = _array(of_scale, params[of_scale], shapes[name][:1])
            weights[name] = _Int8(values, scale)
        elif precision == "bfloat16" and name in _MATRICES:
            weights[name] = _Bfloat16(round_bfloat16(values))
        elif precision == "bfloat16x3" and name in _MATRICES:
            weights[name] = _Bfloat16x3(values)
        else:
            weights[name] = values
    return weights


class _Options(NamedTuple):
    """What regularises the layers, as `rnn_forward` takes it."""

    zoneout: Any
    zoneout_masks: Any
    input_masks: Any
    recurrent_masks: Any

    def around(self, parts: int, at: int, x: Array, shapes: list[tuple[int, ...]]) -> _Around:
        """Of one direction, whose place among the states is `at` and whose state has parts."""
        T, B, features = x.shape
        states = shapes[0][0]
        zoneout = self.zoneout if isinstance(self.zoneout, tuple) else (self.zoneout,) * parts
        if len(zoneout) != parts or not all(0 <= p < 1 for p in zoneout):
            raise ValueError(f"zoneout is {self.zoneout}, expected {parts} numbers in [0, 1)")
        given = self.zoneout_masks if parts > 1 else (self.zoneout_masks,)
        kept = []
        for masks, (_, _, n) in zip((None,) * parts if given is None else given, shapes):
            whole = None if masks is None else _array("zoneout_masks", masks, (states, T, B, n))
            kept.append(None if whole is None else whole[at])
        mask_x = mask_u = None
        if self.input_masks is not None:
            mask_x = _array(f"input_masks[{at}]", self.input_masks[at], (B, features))
        if self.recurrent_masks is not None:
            mask_u = _array("recurrent_masks", self.recurrent_masks, shapes[0])[at]
        return _Around(mask_x, mask_u, zoneout, tuple(kept))


@np.errstate(all="ignore")  # overflow and NaN travel silently, as in the compiled layers
def _forward(
    cell: _Cell,
    x: npt.ArrayLike,
    state: Sequence[Any],
    params: Mapping[str, npt.ArrayLike],
    stack: _Stack,
    lengths: npt.ArrayLike | None,
    resets: npt.ArrayLike | None,
    dropout_masks: Sequence[npt.ArrayLike] | None,
    options: _Options,
    precision: str,
) -> tuple[Array, Arrays, _Tape]:
    y = np.array(x, dtype=np.float64)
    if y.ndim != 3:
        raise ValueError(f"x has shape {y.shape}, expected (T, B, I)")
    if precision not in ("float32", "bfloat16", "bfloat16x3"):
        raise ValueError(
            f"precision is {precision!r}, expected 'float32', 'bfloat16' or 'bfloat16x3'"
        )
    T, B, features = y.shape
    layers = range(stack.num_layers)

    ends = np.full(B, T) if lengths is None else np.asarray(lengths, dtype=np.int64)
    if ends.shape != (B,) or np.any((ends < 0) | (ends > T)):
        raise ValueError(f"lengths is {ends.tolist()}, expected {B} integers in 0..{T}")
    valid = np.arange(T)[:, None] < ends
    starts = np.zeros((T, B), np.bool_) if resets is None else np.asarray(resets, np.bool_)
    if starts.shape != (T, B):
        raise ValueError(f"resets has shape {starts.shape}, expected {(T, B)}")
    if dropout_masks is not None and len(dropout_masks) != len(layers) - 1:
        raise ValueError(f"dropout_masks has {len(dropout_masks)}, expected {len(layers) - 1}")

    weights: list[list[Weights]] = []
    for k in layers:
        ps = [
            _weights(cell, params, features, suffix, precision)
            for _, suffix, _ in stack.directions(k)
        ]
        outputs = ps[0]["weight_hh"].shape[1]
        features = outputs * (len(ps) if stack.merge == "concat" else 1)
        weights.append(ps)
    used = [w for ps in weights for p in ps for w in p.values()]
    if len(used) + sum(isinstance(w, _Int8) for w in used) != len(params):
        raise ValueError(f"params has names unknown to these layers, among {', '.join(params)}")

    hidden = weights[0][0]["weight_hh"].shape[0] // len(cell.gates)
    states = sum(map(len, weights))
    shapes: list[tuple[int, ...]] = [(states, B, outputs), (states, B, hidden)]
    initial = [_array(f"{n}0", s, shape) for n, s, shape in zip("hc", state, shapes)]
    final = [np.empty_like(s) for s in initial]
    masks: list[Array] = []
    tape: list[list[_Run]] = []
    for k in layers:
        if k > 0 and dropout_masks is not None:
            masks.append(_array(f"dropout_masks[{k - 1}]", dropout_masks[k - 1], y.shape))
            y = y * masks[-1]
        runs = []
        for p, (at, _, back) in zip(weights[k], stack.directions(k)):
            around = options.around(len(state), at, y, shapes)
            last, run = _run(cell, y, tuple(s[at] for s in initial), p, around, valid, starts, back)
            for s, value in zip(final, last):
                s[at] = value
            runs.append(run)
        tape.append(runs)
        y = _MERGES[stack.merge][0](*(run.y for run in runs)) if len(runs) == 2 else runs[0].y
    return y, tuple(final), _Tape(cell, stack, tape, masks, list(params), y.shape, shapes)


@np.errstate(all="ignore")
def _backward(
    tape: _Tape, kind: type, dy: npt.ArrayLike | None, dstate: Sequence[Any]
) -> tuple[Array, Arrays, Weights]:
    cell, stack = tape.cell, tape.stack
    if any(name.endswith("_scale") for name in tape.names):
        raise ValueError("tape is of weights in int8, which are for inference")
    if not isinstance(cell, kind):
        raise ValueError(f"tape is of another cell, {type(cell).__name__.strip('_')}")
    dx = _array("dy", dy, tape.y_shape)
    dfinal = [_array(f"d{n}", d, shape) for n, d, shape in zip("hc", dstate, tape.state_shapes)]
    dinitial = [np.empty_like(d) for d in dfinal]
    grads: Weights = {}
    for k in reversed(range(stack.num_layers)):
        runs = tape.layers[k]
        dys: Sequence[Array] = (dx,)
        if len(runs) == 2:
            dys = _MERGES[stack.merge][1](dx, *(run.y for run in runs))
        dxs = []
        for run, dy_d, (at, suffix, _) in zip(runs, dys, stack.directions(k)):
            dx_d, dfirst, dp = _run_backward(cell, run, dy_d, tuple(d[at] for d in dfinal))
            for d, value in zip(dinitial, dfirst):
                d[at] = value
            for name, value in dp.items():
                grads[name + suffix] = value
            dxs.append(dx_d)
        dx = dxs[0] + dxs[1] if len(runs) == 2 else dxs[0]
        if k > 0 and tape.dropout_masks:
            dx = dx * tape.dropout_masks[k - 1]
    return dx, tuple(dinitial), {name: grads[name] for name in tape.names}


# The layers -----------------------------------------------------------------------------------


def rnn_forward(
    x: npt.ArrayLike,
    state: npt.ArrayLike | None,
    params: Mapping[str, npt.ArrayLike],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    merge: str = "concat",
    nonlinearity: Activation = "tanh",
    gate_clip: float | None = None,
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    dropout_masks: Sequence[npt.ArrayLike] | None = None,
    input_masks: Sequence[npt.ArrayLike] | None = None,
    recurrent_masks: npt.ArrayLike | None = None,
    zoneout: float = 0.0,
    zoneout_masks: npt.ArrayLike | None = None,
    precision: str = "float32",
) -> tuple[Array, Array, _Tape]:
    """Run a simple recurrent network (Elman 1990) over sequences.

    ::

        1.  a = W_ih x + b_ih + W_hh h' + b_hh
        2.  h = nonlinearity(a)

    With layer normalisation (Ba et al. 2016) of a product v over all its numbers, all gates of a
    cell together, LN(v) = (v - mean(v)) / sqrt(var(v) + 1e-5), step 1 is, in every cell::

        1.  a = LN(W_ih x) * weight_ln_ih + b_ih + LN(W_hh h') * weight_ln_hh + b_hh

    Parameters
    ----------
    x : (T, B, I) array
    state : (L*D, B, H) array or None
        The initial state; None is zeros.
    params : mapping
        Arrays by PyTorch's names, see the top of this module.
    num_layers, bidirectional, reverse
        ``L``; whether a second direction reads each row from its end; whether the only one does.
    merge : "concat", "sum", "mul" or "ave"
        How the outputs of the two directions of a layer become one.
    nonlinearity : activation
        A name, or a name and its constants, see the top of this module.
    gate_clip : float or None
        Holds a to [-gate_clip, gate_clip] (ONNX's ``clip``); the gradient through it is 0 there.
    lengths : (B,) integers in 0..T, or None
        Past the end of a row ``x`` is not read and ``y`` is 0. The last state of a row is that
        of its last step, or its initial one if it has none.
    resets : (T, B) bools or None
        Where a sequence starts anew: no state passes between such a step and the one before it,
        in either direction.
    dropout_masks : L-1 arrays (T, B, F), or None
        Factors on the output of each layer but the last, already scaled.
    input_masks : L*D arrays (B, I of the layer), or None
        Factors on what each direction of each layer reads, at all steps the same.
    recurrent_masks : (L*D, B, H) array or None
        Factors on h' where it is multiplied with W_hh, at all steps the same; elsewhere h' is as it
        is.
    zoneout : float
        The state after a step becomes zoneout * h' + (1 - zoneout) * h.
    zoneout_masks : (L*D, T, B, H) array or None
        Instead of `zoneout`: 1 where the state after a step is h', 0 where it is h.
    precision : "float32", "bfloat16" or "bfloat16x3"
        In bfloat16 both factors of every product with a matrix are rounded to it, in bfloat16x3
        they are sums of three numbers in it. In float32 this is float64.

    Returns
    -------
    y : (T, B, D*H) array, or (T, B, H) if merged otherwise than by "concat"
    h : (L*D, B, H) array
    tape
        What `rnn_backward` needs.

    Raises
    ------
    ValueError
        If a shape or a name is not as above, or two options contradict each other.

    References
    ----------
    J. L. Ba, J. R. Kiros, G. E. Hinton (2016), Layer normalization, arXiv:1607.06450.
    J. L. Elman (1990), Finding structure in time, Cognitive Science 14(2).
    Y. Gal, Z. Ghahramani (2016), A theoretically grounded application of dropout in recurrent
    neural networks, NIPS.
    D. Krueger et al. (2017), Zoneout: regularizing RNNs by randomly preserving hidden activations,
    ICLR.
    M. Schuster, K. K. Paliwal (1997), Bidirectional recurrent neural networks, IEEE Transactions
    on Signal Processing 45(11).

    Examples
    --------
    >>> params = {"weight_ih_l0": [[2.0]], "weight_hh_l0": [[0.5]]}
    >>> y, h, tape = rnn_forward([[[1.0]], [[3.0]]], None, params, nonlinearity="relu")
    >>> y.ravel()  # relu(2*1), relu(2*3 + 0.5*2)
    array([2., 7.])
    """
    y, (h,), tape = _forward(
        _RNN(_activation(nonlinearity, gate_clip)),
        x,
        (state,),
        params,
        _Stack(num_layers, bidirectional, reverse, merge),
        lengths,
        resets,
        dropout_masks,
        _Options(zoneout, zoneout_masks, input_masks, recurrent_masks),
        precision,
    )
    return y, h, tape


def rnn_backward(
    tape: _Tape, dy: npt.ArrayLike | None, dstate: npt.ArrayLike | None = None
) -> tuple[Array, Array, Weights]:
    """Backpropagate through `rnn_forward`.

    Parameters
    ----------
    tape
        From `rnn_forward`.
    dy, dstate : arrays of the shapes of y and h, or None
        Gradients of the outputs; None is zeros.

    Returns
    -------
    dx : (T, B, I) array
    dstate0 : (L*D, B, H) array
        Gradient of the initial state.
    grads : dict
        Gradients of the parameters, with their names and shapes.

    Examples
    --------
    >>> params = {"weight_ih_l0": [[2.0]], "weight_hh_l0": [[0.5]]}
    >>> y, h, tape = rnn_forward([[[1.0]], [[3.0]]], None, params, nonlinearity="relu")
    >>> dx, dh0, grads = rnn_backward(tape, None, dstate=[[[1.0]]])  # of h_2 = y_2
    >>> dx.ravel(), dh0.ravel()
    (array([1., 2.]), array([0.25]))
    >>> grads["weight_ih_l0"]  # 3 + 0.5*1
    array([[3.5]])
    """
    dx, (dh0,), grads = _backward(tape, _RNN, dy, (dstate,))
    return dx, dh0, grads


def lstm_forward(
    x: npt.ArrayLike,
    state: tuple[npt.ArrayLike | None, npt.ArrayLike | None] | None,
    params: Mapping[str, npt.ArrayLike],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    merge: str = "concat",
    forget_gate: bool = True,
    coupled: bool = False,
    cell_clip: float | None = None,
    gate_clip: float | None = None,
    activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh"),
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    dropout_masks: Sequence[npt.ArrayLike] | None = None,
    input_masks: Sequence[npt.ArrayLike] | None = None,
    recurrent_masks: npt.ArrayLike | None = None,
    zoneout: float | tuple[float, float] = 0.0,
    zoneout_masks: tuple[npt.ArrayLike | None, npt.ArrayLike | None] | None = None,
    precision: str = "float32",
) -> tuple[Array, tuple[Array, Array], _Tape]:
    """Run a long short-term memory (Hochreiter & Schmidhuber 1997) over sequences.

    With ``activations`` = (s, act_g, act_h)::

        1.  a = W_ih x + b_ih + W_hh h' + b_hh          in four parts, i, f, g, o
        2.  i = s(a_i + w_i * c')
            f = s(a_f + w_f * c')
        3.  g = act_g(a_g)
        4.  c = f * c' + i * g
        5.  o = s(a_o + w_o * c)
        6.  m = o * act_h(c)
        7.  h = W_hr m

    - The forget gate ``f`` is that of Gers et al. (2000). In the cell of 1997 it is 1
      (``forget_gate=False``), and act_g(a) = 2 tanh(a/2), act_h(c) = tanh(c/2), which are
      ``("scaled_tanh", 2, 0.5)`` and ``("scaled_tanh", 1, 0.5)``.
    - If ``coupled``, f = 1 - i (the CIFG of Greff et al. 2017). Neither of these two variants
      learns a forget gate, and their parameters have three parts, i, g, o.
    - The peepholes w (Gers & Schmidhuber 2000; Gers et al. 2002) are there if
      ``weight_ch_l{k}`` is: (3, H), the rows i, f, o, or (2, H), i, o, without a forget gate.
    - The projection (Sak et al. 2014) is there if ``weight_hr_l{k}`` (P, H) is; else h = m.
    - ``cell_clip`` limits c to [-cell_clip, cell_clip] at the end of step 4. The gradient through
      a clipped c is 0.
    - With layer normalisation, see `rnn_forward`, step 6 is
      m = o * act_h(LN(c) * weight_ln_c + bias_ln_c); c itself is not normalised.
    - ``gate_clip`` limits what enters s and act_g to [-gate_clip, gate_clip] (ONNX's ``clip``). The
      gradient through it is 0 there.

    Parameters
    ----------
    state : (h0, c0), or None
        Initial state, (L*D, B, P) and (L*D, B, H); None is zeros.
    forget_gate, coupled, cell_clip, gate_clip, activations
        See above.
    zoneout : float or (float, float)
        As in `rnn_forward`, of h and of c; one number is for both. o * act_h(c) sees the c of step
        4, before zoneout.
    zoneout_masks : (array, array), or None
        As in `rnn_forward`, (L*D, T, B, P) of h and (L*D, T, B, H) of c; either may be None.
    recurrent_masks : (L*D, B, P) array or None
        As in `rnn_forward`.
    x, params, num_layers, bidirectional, reverse, merge, lengths, resets, dropout_masks, \
input_masks, precision
        As in `rnn_forward`.

    Returns
    -------
    y : (T, B, D*P) array, or (T, B, P) if merged otherwise than by "concat"
    (h, c) : (L*D, B, P) and (L*D, B, H) arrays
    tape
        What `lstm_backward` needs.

    Raises
    ------
    ValueError
        If a shape or a name is not as above, or two options contradict each other.

    References
    ----------
    S. Hochreiter, J. Schmidhuber (1997), Long short-term memory, Neural Computation 9(8).
    F. A. Gers, J. Schmidhuber, F. Cummins (2000), Learning to forget: continual prediction with
    LSTM, Neural Computation 12(10).
    F. A. Gers, J. Schmidhuber (2000), Recurrent nets that time and count, IJCNN.
    F. A. Gers, N. N. Schraudolph, J. Schmidhuber (2002), Learning precise timing with LSTM
    recurrent networks, Journal of Machine Learning Research 3.
    H. Sak, A. Senior, F. Beaufays (2014), Long short-term memory recurrent neural network
    architectures for large scale acoustic modeling, Interspeech.
    K. Greff, R. K. Srivastava, J. Koutník, B. R. Steunebrink, J. Schmidhuber (2017), LSTM: a
    search space odyssey, IEEE Transactions on Neural Networks and Learning Systems 28(10).

    Examples
    --------
    A memory that only counts: all gates half open, all weights of the state zero.

    >>> params = {"weight_ih_l0": [[0.0], [0.0], [1.0], [0.0]], "weight_hh_l0": np.zeros((4, 1))}
    >>> linear = ("sigmoid", "identity", "identity")
    >>> y, (h, c), tape = lstm_forward([[[8.0]], [[4.0]]], None, params, activations=linear)
    >>> y.ravel(), c.ravel()  # c = 0.5*8 = 4, then 0.5*4 + 0.5*4 = 4
    (array([2., 2.]), array([4.]))
    """
    y, (h, c), tape = _forward(
        _LSTM(
            forget_gate,
            coupled,
            cell_clip,
            tuple(map(_activation, activations, (gate_clip, gate_clip, None))),
        ),
        x,
        (None, None) if state is None else state,
        params,
        _Stack(num_layers, bidirectional, reverse, merge),
        lengths,
        resets,
        dropout_masks,
        _Options(zoneout, zoneout_masks, input_masks, recurrent_masks),
        precision,
    )
    return y, (h, c), tape


def lstm_backward(
    tape: _Tape,
    dy: npt.ArrayLike | None,
    dstate: tuple[npt.ArrayLike | None, npt.ArrayLike | None] | None = None,
) -> tuple[Array, tuple[Array, Array], Weights]:
    """Backpropagate through `lstm_forward`.

    Parameters
    ----------
    tape
        From `lstm_forward`.
    dy : array of the shape of y, or None
    dstate : (dh, dc), arrays of the shapes of h and c, or None
        Gradients of the outputs; None is zeros.

    Returns
    -------
    dx : (T, B, I) array
    (dh0, dc0) : (L*D, B, P) and (L*D, B, H) arrays
        Gradients of the initial state.
    grads : dict
        Gradients of the parameters, with their names and shapes.

    Examples
    --------
    >>> params = {"weight_ih_l0": [[0.0], [0.0], [1.0], [0.0]], "weight_hh_l0": np.zeros((4, 1))}
    >>> linear = ("sigmoid", "identity", "identity")
    >>> y, (h, c), tape = lstm_forward([[[8.0]], [[4.0]]], None, params, activations=linear)
    >>> dx, (dh0, dc0), grads = lstm_backward(tape, None, (None, [[[1.0]]]))  # of c_2
    >>> dx.ravel(), dc0.ravel()
    (array([0.25, 0.5 ]), array([0.25]))
    """
    given = (None, None) if dstate is None else dstate
    dx, (dh0, dc0), grads = _backward(tape, _LSTM, dy, given)
    return dx, (dh0, dc0), grads


def gru_forward(
    x: npt.ArrayLike,
    state: npt.ArrayLike | None,
    params: Mapping[str, npt.ArrayLike],
    *,
    num_layers: int = 1,
    bidirectional: bool = False,
    reverse: bool = False,
    merge: str = "concat",
    reset_after: bool = True,
    gate_clip: float | None = None,
    activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
    lengths: npt.ArrayLike | None = None,
    resets: npt.ArrayLike | None = None,
    dropout_masks: Sequence[npt.ArrayLike] | None = None,
    input_masks: Sequence[npt.ArrayLike] | None = None,
    recurrent_masks: npt.ArrayLike | None = None,
    zoneout: float = 0.0,
    zoneout_masks: npt.ArrayLike | None = None,
    precision: str = "float32",
) -> tuple[Array, Array, _Tape]:
    """Run gated recurrent units (Cho et al. 2014, equations 5 to 8) over sequences.

    With ``activations`` = (s, act)::

        1.  a = W_ih x + b_ih                           in three parts, r, z, n
        2.  r = s(a_r + W_hr h' + b_hr)
            z = s(a_z + W_hz h' + b_hz)
        3.  q = W_hn h' + b_hn                          or  W_hn (r * h') + b_hn
        4.  n = act(a_n + r * q)                        or  act(a_n + q)
        5.  h = (1 - z) * n + z * h'

    The reset gate comes after the product with ``W_hn`` (PyTorch, cuDNN), or before it, the
    right-hand column, with ``reset_after=False`` (the paper), of which there is no form with layer
    normalisation here: r is needed before the product of all gates is whole. ``gate_clip`` limits
    what enters s and act to [-gate_clip, gate_clip] (ONNX's ``clip``); the gradient through it is 0
    there.

    Parameters
    ----------
    reset_after, gate_clip, activations
        See above.
    x, state, params, num_layers, bidirectional, reverse, merge, lengths, resets, dropout_masks, \
input_masks, recurrent_masks, zoneout, zoneout_masks, precision
        As in `rnn_forward`; z keeps a part of h' as it is, without the factors.

    Returns
    -------
    y : (T, B, D*H) array, or (T, B, H) if merged otherwise than by "concat"
    h : (L*D, B, H) array
    tape
        What `gru_backward` needs.

    Raises
    ------
    ValueError
        If a shape or a name is not as above, or two options contradict each other.

    References
    ----------
    K. Cho, B. van Merriënboer, C. Gulcehre, D. Bahdanau, F. Bougares, H. Schwenk, Y. Bengio
    (2014), Learning phrase representations using RNN encoder-decoder for statistical machine
    translation, EMNLP.

    Examples
    --------
    Both gates half open: half of what was, half of what comes.

    >>> params = {"weight_ih_l0": [[0.0], [0.0], [1.0]], "weight_hh_l0": np.zeros((3, 1))}
    >>> linear = ("sigmoid", "identity")
    >>> y, h, tape = gru_forward([[[8.0]], [[4.0]]], None, params, activations=linear)
    >>> y.ravel()
    array([4., 4.])
    """
    y, (h,), tape = _forward(
        _GRU(reset_after, tuple(_activation(a, gate_clip) for a in activations)),
        x,
        (state,),
        params,
        _Stack(num_layers, bidirectional, reverse, merge),
        lengths,
        resets,
        dropout_masks,
        _Options(zoneout, zoneout_masks, input_masks, recurrent_masks),
        precision,
    )
    return y, h, tape


def gru_backward(
    tape: _Tape, dy: npt.ArrayLike | None, dstate: npt.ArrayLike | None = None
) -> tuple[Array, Array, Weights]:
    """Backpropagate through `gru_forward`.

    Parameters
    ----------
    tape
        From `gru_forward`.
    dy, dstate : arrays of the shapes of y and h, or None
        Gradients of the outputs; None is zeros.

    Returns
    -------
    dx : (T, B, I) array
    dstate0 : (L*D, B, H) array
        Gradient of the initial state.
    grads : dict
        Gradients of the parameters, with their names and shapes.

    Examples
    --------
    >>> params = {"weight_ih_l0": [[0.0], [0.0], [1.0]], "weight_hh_l0": np.zeros((3, 1))}
    >>> linear = ("sigmoid", "identity")
    >>> y, h, tape = gru_forward([[[8.0]], [[4.0]]], None, params, activations=linear)
    >>> dx, dh0, grads = gru_backward(tape, None, dstate=[[[1.0]]])
    >>> dx.ravel(), dh0.ravel()
    (array([0.25, 0.5 ]), array([0.25]))
    """
    dx, (dh0,), grads = _backward(tape, _GRU, dy, (dstate,))
    return dx, dh0, grads
