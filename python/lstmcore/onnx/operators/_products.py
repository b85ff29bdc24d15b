"""Products of matrices, convolutions and pooling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ... import _core
from ..._base.budget import affords
from .._model import Tensor
from ._elementwise import activated
from ._registry import MICROSOFT, operator, sizes


@operator("MatMul", grows="asks")
def _matmul(a: Tensor, b: Tensor) -> Any:
    asked(a, b)
    return np.asarray(a @ b)


def asked(a: Tensor, b: Tensor) -> None:
    """Refuse a product that is larger than it may be; most are not, and cost nothing here."""
    if a.size * b.size > 2**24 and a.ndim and b.ndim:
        lead = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
        sizes([*lead, *a.shape[-2:-1], *b.shape[1:][-1:]], np.dtype(np.float64))


@operator("Gemm", grows="asks")
def gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    """Alpha a b + beta c, a and b transposed or not."""
    kind = a.dtype.type
    a, b = a.T if transA else a, b.T if transB else b
    asked(a, b)
    y: Tensor = a @ b
    if alpha != 1:
        y = y * kind(alpha)
    return y if c is None else y + (c if beta == 1 else c * kind(beta))


@operator("FusedGemm", domain=MICROSOFT, grows="asks")
def _fused_gemm(
    a: Tensor,
    b: Tensor,
    c: Tensor | None = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    activation: str = "",
    activation_alpha: float | None = None,
    activation_beta: float | None = None,
    activation_gamma: float | None = None,
) -> Any:
    y = gemm(a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)
    given = [p for p in (activation_alpha, activation_beta, activation_gamma) if p is not None]
    return activated(y, activation, given)


@operator("FusedMatMul", domain=MICROSOFT, grows="asks")
def _fused_matmul(
    a: Tensor,
    b: Tensor,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
    transBatchA: int = 0,
    transBatchB: int = 0,
) -> Any:
    a = np.moveaxis(a, 0, -2) if transBatchA else a
    b = np.moveaxis(b, 0, -2) if transBatchB else b
    a, b = a.swapaxes(-1, -2) if transA else a, b.swapaxes(-1, -2) if transB else b
    asked(a, b)
    return np.asarray(a @ b) * a.dtype.type(alpha)


@operator("Einsum", since=12)
def _einsum(*parts: Tensor, equation: str) -> Any:
    letters = {c for c in equation if c.isalpha()}
    if len(letters) > 52 or any(c not in " ,.->" and not c.isalpha() for c in equation):
        raise ValueError(f"equation is {equation!r}, which is none")
    return np.asarray(np.einsum(equation, *parts, optimize=len(parts) > 2))


# Convolutions and pooling -------------------------------------------------------------------------


@operator("Conv", grows="asks")
def conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    """Sums of x, (B, C, ...), around each place, with weights (C', C / group, ...)."""
    return Convolution(w, b, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads,
                       strides=strides)(x)  # fmt: skip


class Convolution:
    """What Conv does with an x; where its windows stand is kept for the next x of that shape.

    `packed` weights are multiplied by our own kernels. That pays when more than one x comes.
    """

    def __init__(
        self,
        w: Tensor,
        b: Tensor | None = None,
        *,
        group: int = 1,
        kernel_shape: list[int] | None = None,
        packed: bool = False,
        **windows: Any,
    ) -> None:
        if w.ndim < 3 or group < 1 or w.shape[0] % group:
            raise ValueError(f"w is {w.shape}, in {group} groups")
        self._windows = windows  # as Windows takes them
        self._shape, self.group = w.shape, group
        self.bias = b
        #: (groups, what is multiplied, C' / groups)
        self.weights = w.reshape(group, w.shape[0] // group, -1).swapaxes(1, 2)
        self.packed = None
        wanted = packed and group == 1 and w.dtype in (np.float32, np.float64)
        if wanted and affords(w.shape, w.dtype):
            rows = np.ascontiguousarray(w.reshape(w.shape[0], -1))
            self.packed = _core.pack_linear(rows, b, False)
        dims = w.ndim - 2
        # From (B, groups, C / group, places ..., kernel ...) to rows of a product.
        self._order = (0, 1, *range(3, 3 + dims), 2, *range(3 + dims, 3 + 2 * dims))
        self._last: _Rows | None = None

    def __call__(self, x: Tensor) -> Tensor:
        last = self._last
        if last is None or last.like != (x.shape, x.dtype):
            last = self._last = self._at(x)
        view = np.ndarray(last.shape, x.dtype, last.windows.padded(x), 0, last.strides)
        rows = view.reshape(last.rows)
        if self.packed is not None and x.dtype == self.weights.dtype:
            y = _core.linear_forward(self.packed, np.ascontiguousarray(rows))
        else:
            y = rows @ self.weights
            if self.bias is not None:
                y += self.bias.reshape(self.group, 1, -1)
        return y.swapaxes(2, 3).reshape(last.made)

    def windows(self, shape: tuple[int, ...]) -> Windows:
        """Return where the windows of an x of this shape stand."""
        return Windows(shape, self._shape[2:], **self._windows)

    def _at(self, x: Tensor) -> _Rows:
        """Return where the windows of such an x stand."""
        w, group = self._shape, self.group
        if x.ndim != len(w) or x.shape[1] != group * w[1]:
            raise ValueError(f"x is {x.shape} and w {w}, in {group} groups")
        windows = self.windows(x.shape)
        batch, channels, *places = windows.places
        sizes([batch, max(w[0], channels * math.prod(w[2:])), *places], x.dtype)
        view = windows.of(x)
        view = view.reshape(batch, group, w[1], *view.shape[2:]).transpose(self._order)
        rows = (batch, group, math.prod(places), self.weights.shape[1])
        made = (batch, w[0], *places)
        return _Rows((x.shape, x.dtype), windows, view.shape, view.strides, rows, made)


class _Rows(NamedTuple):
    """What a product takes of an x of some shape and dtype."""

    like: tuple[tuple[int, ...], np.dtype[Any]]
    windows: Windows
    shape: tuple[int, ...]  # (B, groups, places ..., C / group, kernel ...), a view of the padded x
    strides: tuple[int, ...]
    rows: tuple[int, ...]  # the same, (B, groups, places, what is multiplied)
    made: tuple[int, ...]  # the shape of what comes out


@operator("ConvTranspose", grows="asks")
def _conv_transpose(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    output_padding: list[int] | None = None,
    output_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    """Each number of x, (B, C, ...), times weights (C, C' / group, ...), added up around it."""
    at = Spread(x.shape, w.shape, auto_pad=auto_pad, dilations=dilations, group=group,
                output_padding=output_padding, output_shape=output_shape, pads=pads,
                strides=strides)  # fmt: skip
    sizes([len(x), at.features, *at.whole], x.dtype)
    sizes([len(x), at.features, math.prod(w.shape[2:]), *x.shape[2:]], x.dtype)
    places = math.prod(x.shape[2:])
    columns = w.reshape(group, len(w) // group, -1).swapaxes(1, 2) @ x.reshape(
        len(x), group, len(w) // group, places
    )
    columns = columns.reshape(len(x), at.features, *w.shape[2:], *x.shape[2:])
    y = np.zeros((len(x), at.features, *at.whole), x.dtype)
    for offset, where in at.places():
        column: Any = (slice(None), slice(None), *offset)
        y[where] += columns[column]
    y = y[at.kept]
    return y if b is None else y + b.reshape(-1, *[1] * (x.ndim - 2))


class Spread:
    """Where the products of a transposed convolution are added up."""

    def __init__(
        self,
        x: tuple[int, ...],
        w: tuple[int, ...],
        *,
        auto_pad: str = "NOTSET",
        dilations: list[int] | None = None,
        group: int = 1,
        kernel_shape: list[int] | None = None,
        output_padding: list[int] | None = None,
        output_shape: list[int] | None = None,
        pads: list[int] | None = None,
        strides: list[int] | None = None,
    ) -> None:
        if len(x) != len(w) or len(x) < 3 or group < 1 or x[1] != w[0] or w[0] % group:
            raise ValueError(f"x is {x} and w {w}, in {group} groups")
        dims = len(x) - 2
        steps, gaps, more = (given or [n] * dims for given, n in
                             ((strides, 1), (dilations, 1), (output_padding, 0)))  # fmt: skip
        if not len(steps) == len(gaps) == len(more) == dims or min([*steps, *gaps, *more, 1]) < 0:
            raise ValueError(f"strides are {steps}, dilations {gaps} and output_padding {more}")
        reach = [1 + gap * (n - 1) for gap, n in zip(gaps, w[2:], strict=True)]
        whole = [
            step * (n - 1) + r + extra
            for n, step, r, extra in zip(x[2:], steps, reach, more, strict=True)
        ]
        if output_shape:
            whole = [max(n, size) for n, size in zip(whole, output_shape[-dims:], strict=True)]
        around = _cut_off(x[2:], whole, steps, auto_pad, pads, output_shape)
        self.group, self.features = group, w[1] * group
        #: What its windows reach, and what is left of that, (B, C', ...).
        self.whole = whole
        self.kept: Any = (
            ...,
            *(slice(before, n - after) for n, (before, after) in zip(whole, around, strict=True)),
        )
        self._x, self._kernel, self._steps, self._gaps = x[2:], w[2:], steps, gaps

    def places(self) -> Iterator[tuple[tuple[int, ...], Any]]:
        """Yield each place in the kernel, and where its products go."""
        for offset in np.ndindex(*self._kernel):
            yield (
                offset,
                (
                    ...,
                    *(
                        slice(gap * i, gap * i + step * (n - 1) + 1, step)
                        for i, gap, step, n in zip(
                            offset, self._gaps, self._steps, self._x, strict=True
                        )
                    ),
                ),
            )


def _cut_off(
    shape: tuple[int, ...],
    whole: list[int],
    steps: list[int],
    auto_pad: str,
    pads: list[int] | None,
    output_shape: list[int] | None,
) -> list[tuple[int, int]]:
    """Return how much is left out before and after each axis."""
    wanted = output_shape or [n * step for n, step in zip(shape, steps, strict=True)]
    if output_shape and auto_pad in ("NOTSET", "VALID"):
        auto_pad = "SAME_LOWER"  # as ONNX says of an output_shape
    totals = [n - size for n, size in zip(whole, wanted[-len(shape) :], strict=True)]
    around = _sides(auto_pad, pads, totals)
    if any(min(sides) < 0 or sum(sides) > n for sides, n in zip(around, whole, strict=True)):
        raise ValueError(f"{around} are cut off of {whole}")
    return around


@operator("FusedConv", domain=MICROSOFT, grows="asks")
def _fused_conv(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    z: Tensor | None = None,
    *,
    activation: str = "",
    activation_params: list[float] | None = None,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    y = conv(x, w, b, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads,
             strides=strides)  # fmt: skip
    return activated(y if z is None else y + z, activation, activation_params)


class Windows:
    """Where windows stand in an x, (B, C, ...): one around each place. Padding widens x."""

    def __init__(
        self,
        shape: tuple[int, ...],
        kernel: Sequence[int],
        auto_pad: str = "NOTSET",
        dilations: list[int] | None = None,
        pads: list[int] | None = None,
        strides: list[int] | None = None,
        ceil: bool = False,
    ) -> None:
        dims = len(shape) - 2
        steps, gaps = strides or [1] * dims, dilations or [1] * dims
        if not len(kernel) == len(steps) == len(gaps) == dims:
            raise ValueError(f"x is {shape}, but the kernel is {list(kernel)}")
        if min([*steps, *gaps, *kernel], default=1) < 1:
            raise ValueError(f"strides are {steps} and dilations {gaps}, expected at least 1")
        reach = [1 + gap * (n - 1) for gap, n in zip(gaps, kernel, strict=True)]
        around = _pads(shape[2:], reach, steps, auto_pad, pads)
        if min(map(min, around), default=0) < 0:
            raise ValueError(f"pads are {around}, expected at least 0")
        if ceil:  # what is past the end of the last whole place counts as one more
            around = [
                (before, after + (-(n + before + after - wide) % step))
                for n, (before, after), wide, step in zip(
                    shape[2:], around, reach, steps, strict=True
                )
            ]
        wide = [n + sum(pad) for n, pad in zip(shape[2:], around, strict=True)]
        if any(n < r for n, r in zip(wide, reach, strict=True)):
            raise ValueError(f"x is {shape}, too short for a kernel that reaches {reach}")
        self.shape = shape
        #: The shape of x with what pads it, and where x is in that.
        self.wide = *shape[:2], *wide
        self.inside: Any = (
            ...,
            *(slice(b, b + n) for n, (b, _) in zip(shape[2:], around, strict=True)),
        )
        self._kernel, self._steps, self._gaps = tuple(kernel), steps, gaps
        #: (B, C, places ...)
        self.places = (
            *shape[:2],
            *((n - r) // step + 1 for n, r, step in zip(wide, reach, steps, strict=True)),
        )

    def padded(self, x: Tensor, filler: float = 0.0) -> Tensor:
        """Return x with what pads it, contiguous."""
        if self.wide == x.shape:
            return np.ascontiguousarray(x)
        padded = np.zeros(self.wide, x.dtype)
        if filler:
            padded.fill(filler)
        padded[self.inside] = x
        return padded

    def of(self, x: Tensor, filler: float = 0.0) -> Tensor:
        """Return what stands around each place, (B, C, places ..., kernel ...), a view."""
        sizes(self.wide, x.dtype)
        return self.over(self.padded(x, filler))

    def over(self, padded: Tensor) -> Tensor:
        """Return the same of a padded x."""
        inner = padded.strides[2:]
        strides = (
            *padded.strides[:2],
            *(n * step for n, step in zip(inner, self._steps, strict=True)),
            *(n * gap for n, gap in zip(inner, self._gaps, strict=True)),
        )
        return np.ndarray((*self.places, *self._kernel), padded.dtype, padded, 0, strides)


def _pads(
    shape: tuple[int, ...], reach: list[int], steps: list[int], auto: str, pads: list[int] | None
) -> list[tuple[int, int]]:
    """Return how many zeros stand before and after each axis."""
    totals = [
        max((-(-size // step) - 1) * step + wide - size, 0)
        for size, wide, step in zip(shape, reach, steps, strict=True)
    ]
    return _sides(auto, pads, totals)


def _sides(auto: str, pads: list[int] | None, totals: list[int]) -> list[tuple[int, int]]:
    """Return what is before and after each axis: `pads`, or with SAME the halves of a total."""
    dims = len(totals)
    if auto in ("NOTSET", "VALID"):
        given = pads if pads and auto == "NOTSET" else [0] * 2 * dims
        return list(zip(given[:dims], given[dims:], strict=True))
    if auto not in ("SAME_UPPER", "SAME_LOWER"):
        raise ValueError(f"auto_pad is {auto!r}, which is not known")
    smaller = [(total // 2, total - total // 2) for total in totals]
    return smaller if auto == "SAME_UPPER" else [sides[::-1] for sides in smaller]


@operator("MaxPool", grows="asks")
def _max_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    storage_order: int = 0,
    strides: list[int] | None = None,
) -> Any:
    least = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    at = Windows(x.shape, kernel_shape, auto_pad, dilations, pads, strides, bool(ceil_mode))
    windows = at.of(x, least)
    y = windows.max(tuple(range(x.ndim, windows.ndim)))
    return _whole_places(y, x, kernel_shape, auto_pad, dilations, pads, strides)


@operator("AveragePool", grows="asks")
def _average_pool(
    x: Tensor,
    *,
    kernel_shape: list[int],
    auto_pad: str = "NOTSET",
    ceil_mode: int = 0,
    count_include_pad: int = 0,
    dilations: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    def sums(a: Tensor, around: list[int] | None, ceil: bool) -> Tensor:
        at = Windows(a.shape, kernel_shape, auto_pad, dilations, around, strides, ceil)
        windows = at.of(a)
        return np.asarray(windows.sum(tuple(range(a.ndim, windows.ndim)), dtype=a.dtype))

    total = sums(x, pads, bool(ceil_mode))
    ones = np.ones((1, 1, *x.shape[2:]), x.dtype)
    if count_include_pad and auto_pad == "NOTSET":
        dims = x.ndim - 2
        pads = pads or [0] * 2 * dims
        around = list(zip(pads[:dims], pads[dims:], strict=True))
        count = sums(np.pad(ones, [(0, 0), (0, 0), *around], constant_values=1), None,
                     bool(ceil_mode))  # fmt: skip
    elif count_include_pad:
        count = np.array(math.prod(kernel_shape), x.dtype)
    else:
        count = sums(ones, pads, bool(ceil_mode))
    with np.errstate(all="ignore"):
        y = total / count
    return _whole_places(y, x, kernel_shape, auto_pad, dilations, pads, strides)


def _whole_places(
    y: Tensor,
    x: Tensor,
    kernel: list[int],
    auto_pad: str,
    dilations: list[int] | None,
    pads: list[int] | None,
    strides: list[int] | None,
) -> Tensor:
    """Drop the places that would begin past x and what is before it."""
    dims = x.ndim - 2
    if auto_pad != "NOTSET":
        return y
    before = (pads or [0] * 2 * dims)[:dims]
    steps = strides or [1] * dims
    keep = tuple(
        slice(-(-(n + first) // step))
        for n, first, step in zip(x.shape[2:], before, steps, strict=True)
    )
    return y[(slice(None), slice(None), *keep)]


@operator("GlobalAveragePool", grows=1)
def _global_average_pool(x: Tensor) -> Any:
    return x.mean(tuple(range(2, x.ndim)), keepdims=True, dtype=x.dtype)


@operator("GlobalMaxPool", grows=1)
def _global_max_pool(x: Tensor) -> Any:
    return x.max(tuple(range(2, x.ndim)), keepdims=True)
