"""Whole numbers with a scale: quantised models."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._model import Tensor
from .._reading import dtype_of
from ._elementwise import leaky_relu, sigmoid
from ._norms import _softmax
from ._products import asked, conv, gemm
from ._registry import MICROSOFT, operator
from ._shaping import along

# There and back -----------------------------------------------------------------------------------


def _spread(x: Tensor, scale: Tensor, axis: int, block_size: int) -> Any:
    """Return what makes a scale, or a zero point, meet x."""
    if block_size:
        count = x.shape[axis]

        def repeated(one: Tensor) -> Tensor:
            return np.repeat(one, block_size, axis).take(range(count), axis)

        if scale.ndim != x.ndim or scale.shape[axis] * block_size < count:
            raise ValueError(
                f"scale has shape {scale.shape}, for blocks of {block_size} in {x.shape}"
            )
        return repeated
    if scale.ndim > 1:
        raise ValueError(
            f"scale has shape {scale.shape}, expected one number, or one for each of x"
        )
    # One number may have an axis of its own, whatever x has.
    shape = along(x, axis) if scale.size > 1 else (1,) * x.ndim
    return lambda one: one.reshape(shape)


@operator("DequantizeLinear", grows=8)
def dequantized(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
) -> Any:
    """(x - zero) scale."""
    spread = _spread(x, scale, axis, block_size)
    if x.dtype.itemsize < 4:
        steps = x.astype(np.int32)
        steps = steps if zero is None else steps - spread(zero).astype(np.int32)
    else:
        steps = x.astype(np.int64)
        steps = steps if zero is None else steps - spread(zero).astype(np.int64)
    kind = dtype_of(output_dtype, "output_dtype") if output_dtype else scale.dtype
    return np.asarray((steps.astype(scale.dtype) * spread(scale)).astype(kind))


@operator("QuantizeLinear", grows="pairs")
def quantized(
    x: Tensor,
    scale: Tensor,
    zero: Tensor | None = None,
    *,
    axis: int = 1,
    block_size: int = 0,
    output_dtype: int = 0,
    precision: int = 0,
    saturate: int = 1,
) -> Any:
    """The whole number nearest to x / scale, plus zero."""
    spread = _spread(x, scale, axis, block_size)
    kind = dtype_of(output_dtype, "output_dtype") if output_dtype else np.dtype(np.uint8)
    zero = np.zeros(scale.shape, kind) if zero is None else zero
    wide = x.astype(dtype_of(precision, "precision")) if precision else x
    if wide.dtype.kind != "f" or wide.dtype.itemsize < 4:
        wide = wide.astype(np.float32)
    steps = np.asarray(wide / spread(scale).astype(wide.dtype))
    np.rint(steps, out=steps)
    steps += spread(zero).astype(wide.dtype)
    limits = np.iinfo(zero.dtype)
    np.clip(steps, limits.min, limits.max, out=steps)
    return steps.astype(zero.dtype)


# Those of ONNX Runtime take 16 bits and more, too.
operator("DequantizeLinear", domain=MICROSOFT, grows=8)(dequantized)
operator("QuantizeLinear", domain=MICROSOFT, grows="pairs")(quantized)


@operator("DynamicQuantizeLinear", since=11, grows=4)
def dynamically_quantized(x: Tensor) -> Any:
    """X in uint8, with the scale and zero point that its range asks for."""
    low, high = np.minimum(x.min(initial=0), 0), np.maximum(x.max(initial=0), 0)
    scale = np.asarray((high - low) / np.float32(255), np.float32)
    if scale == 0:
        scale = np.asarray(1, np.float32)
    zero = np.asarray(np.clip(np.rint(-low / scale), 0, 255).astype(np.uint8))
    return quantized(x, scale, zero), scale, zero


# Products -----------------------------------------------------------------------------------------


@operator("MatMulInteger", grows="asks")
def matmul_integer(
    a: Tensor, b: Tensor, a_zero: Tensor | None = None, b_zero: Tensor | None = None
) -> Any:
    """The product of whole numbers, in int32."""
    asked(a, b)
    # Real numbers are multiplied much faster, and hold these sums exactly.
    kind = np.float32 if a.shape[-1:] < (2**24 // 255**2,) else np.float64
    a, b = a.astype(kind), b.astype(kind)
    if a_zero is not None:
        a -= a_zero[..., None] if a_zero.ndim else a_zero
    if b_zero is not None:
        b -= b_zero[..., None, :] if b_zero.ndim else b_zero
    return np.asarray(np.matmul(a, b), np.int64).astype(np.int32)


@operator("MatMulIntegerToFloat", domain=MICROSOFT, grows="asks")
def _matmul_integer_to_float(
    a: Tensor,
    b: Tensor,
    a_scale: Tensor,
    b_scale: Tensor,
    a_zero: Tensor | None = None,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Any:
    y = matmul_integer(a, b, _scalar(a_zero), _scalar(b_zero)) * (a_scale * b_scale)
    y = y.astype(a_scale.dtype)
    return y if bias is None else y + bias


def _scalar(zero: Tensor | None) -> Tensor | None:
    """Return a zero point without an axis if it is one number."""
    return zero.reshape(()) if zero is not None and zero.size == 1 else zero


@operator("DynamicQuantizeMatMul", domain=MICROSOFT, grows="asks")
def _dynamic_quantize_matmul(
    a: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor | None = None,
    bias: Tensor | None = None,
) -> Any:
    q, scale, zero = dynamically_quantized(a)
    return _matmul_integer_to_float(q, b, scale, b_scale, zero, b_zero, bias)


@operator("QLinearMatMul", since=10, grows="asks")
def _q_linear_matmul(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
) -> Any:
    product = _rows(a, a_scale, a_zero) @ _columns(b, b_scale, b_zero)
    return quantized(product.astype(np.float32), y_scale, y_zero)


def _rows(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return x as real numbers, with a scale, or one for each row."""
    if scale.size > 1:
        scale, zero = scale[..., None], zero[..., None]
    else:
        scale, zero = _one(scale), _one(zero)
    return (x.astype(np.float64) - zero) * scale.astype(np.float64)


def _columns(x: Tensor, scale: Tensor, zero: Tensor) -> Tensor:
    """Return x as real numbers, with a scale, or one for each column."""
    if scale.size > 1:
        scale, zero = scale[..., None, :], zero[..., None, :]
    else:
        scale, zero = _one(scale), _one(zero)
    return (x.astype(np.float64) - zero) * scale.astype(np.float64)


@operator("QGemm", domain=MICROSOFT, grows="asks")
def _q_gemm(
    a: Tensor,
    a_scale: Tensor,
    a_zero: Tensor,
    b: Tensor,
    b_scale: Tensor,
    b_zero: Tensor,
    c: Tensor | None = None,
    y_scale: Tensor | None = None,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    left = (a.astype(np.float64) - _one(a_zero)) * _one(a_scale)
    rows = (-1, 1) if transB and b_scale.size > 1 else b_scale.shape
    right = (b.astype(np.float64) - b_zero.reshape(rows)) * b_scale.reshape(rows)
    y = gemm(left, right, None, alpha=alpha, transA=transA, transB=transB)
    if c is not None:
        y = y + c * (alpha * _one(a_scale).astype(np.float64) * b_scale)
    y = y.astype(np.float32)
    return y if y_scale is None else quantized(y, y_scale, y_zero)


def _one(value: Tensor) -> Tensor:
    return value.reshape(())


@operator("ConvInteger", since=10, grows="asks")
def _conv_integer(
    x: Tensor,
    w: Tensor,
    x_zero: Tensor | None = None,
    w_zero: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    wide = x.astype(np.float64) - (0 if x_zero is None else _one(x_zero))
    weight = w.astype(np.float64) - (0 if w_zero is None else _first(w_zero, w))
    y = conv(wide, weight, auto_pad=auto_pad, dilations=dilations, group=group, pads=pads,
             strides=strides)  # fmt: skip
    return y.astype(np.int32)


@operator("QLinearConv", since=10, grows="asks")
def _q_linear_conv(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    w: Tensor,
    w_scale: Tensor,
    w_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    bias: Tensor | None = None,
    *,
    auto_pad: str = "NOTSET",
    dilations: list[int] | None = None,
    group: int = 1,
    kernel_shape: list[int] | None = None,
    pads: list[int] | None = None,
    strides: list[int] | None = None,
) -> Any:
    wide = x.astype(np.float64) - _one(x_zero)
    weight = w.astype(np.float64) - _first(w_zero, w)
    total = conv(wide, weight, bias, auto_pad=auto_pad, dilations=dilations, group=group,
                 pads=pads, strides=strides)  # fmt: skip
    scale = _one(x_scale).astype(np.float64) * w_scale
    if scale.size > 1:
        scale = scale.reshape(-1, *[1] * (x.ndim - 2))
    return quantized((total * scale).astype(np.float32), y_scale, y_zero)


def _first(value: Tensor, w: Tensor) -> Tensor:
    """Return a number, or one for each output, as they meet the weights of a convolution."""
    return value.reshape(-1, *[1] * (w.ndim - 1)) if value.size > 1 else value.reshape(())


# Other functions of what is quantised -------------------------------------------------------------


def _pair(function: Any) -> Any:
    def call(
        a: Tensor,
        a_scale: Tensor,
        a_zero: Tensor | None,
        b: Tensor,
        b_scale: Tensor,
        b_zero: Tensor | None,
        y_scale: Tensor,
        y_zero: Tensor | None = None,
    ) -> Any:
        left, right = dequantized(a, a_scale, a_zero), dequantized(b, b_scale, b_zero)
        return quantized(function(left, right), y_scale, y_zero)

    return call


operator("QLinearAdd", domain=MICROSOFT, grows="pairs")(_pair(np.add))
operator("QLinearMul", domain=MICROSOFT, grows="pairs")(_pair(np.multiply))


@operator("QLinearSigmoid", domain=MICROSOFT, grows=1)
def _q_linear_sigmoid(
    x: Tensor, x_scale: Tensor, x_zero: Tensor | None, y_scale: Tensor, y_zero: Tensor | None = None
) -> Any:
    return quantized(sigmoid(dequantized(x, x_scale, x_zero)), y_scale, y_zero)


@operator("QLinearLeakyRelu", domain=MICROSOFT, grows=1)
def _q_linear_leaky_relu(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor | None = None,
    *,
    alpha: float = 0.01,
) -> Any:
    return quantized(leaky_relu(dequantized(x, x_scale, x_zero), alpha=alpha), y_scale, y_zero)


@operator("QLinearSoftmax", domain=MICROSOFT, grows=1)
def _q_linear_softmax(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor | None,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    axis: int = -1,
    opset: int = 13,
) -> Any:
    if opset < 13:
        raise ValueError(f"opset={opset} is not supported, expected 13 or later")
    return quantized(_softmax(dequantized(x, x_scale, x_zero), axis=axis), y_scale, y_zero)


@operator("QLinearConcat", domain=MICROSOFT, grows=1)
def _q_linear_concat(y_scale: Tensor, y_zero: Tensor, *parts: Tensor, axis: int) -> Any:
    real = [dequantized(*parts[i : i + 3]) for i in range(0, len(parts), 3)]
    return quantized(np.concatenate(real, axis), y_scale, y_zero)


@operator("QLinearGlobalAveragePool", domain=MICROSOFT, grows=1)
def _q_linear_global_average_pool(
    x: Tensor,
    x_scale: Tensor,
    x_zero: Tensor,
    y_scale: Tensor,
    y_zero: Tensor,
    *,
    channels_last: int = 0,
) -> Any:
    axes = tuple(range(1, x.ndim - 1) if channels_last else range(2, x.ndim))
    real = dequantized(x, x_scale, x_zero).mean(axes, keepdims=True, dtype=np.float32)
    return quantized(real, y_scale, y_zero)
