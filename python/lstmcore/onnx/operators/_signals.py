"""Spectra of signals and the windows they are taken through, as models of speech have them."""

from __future__ import annotations

from typing import Any

import numpy as np

from .._model import Tensor
from .._reading import dtype_of
from ._registry import operator, sizes


def _complex(x: Tensor) -> Tensor:
    """Return (..., 1) or (..., 2), real and imaginary parts, without that axis."""
    if x.ndim < 2 or x.shape[-1] not in (1, 2):
        raise ValueError(f"x has shape {x.shape}, expected (..., 1) or (..., 2)")
    if x.shape[-1] == 1:
        return x[..., 0]
    found: Tensor = x[..., 0] + np.array(1j, np.result_type(x, np.complex64)) * x[..., 1]
    return found


def _parts(y: Tensor, dtype: np.dtype[Any]) -> Tensor:
    return np.stack([y.real, y.imag], axis=-1).astype(dtype, copy=False)


@operator("DFT", since=17, grows="asks")
def _dft_17(
    x: Tensor,
    dft_length: Tensor | None = None,
    *,
    axis: int = 1,
    inverse: int = 0,
    onesided: int = 0,
) -> Any:
    signal = _complex(x)
    if not -x.ndim <= axis < x.ndim or (axis := axis % x.ndim) == x.ndim - 1:
        raise ValueError(f"axis is {axis}, expected one of {x.shape[:-1]}")
    size = x.shape[axis]
    if inverse and onesided:
        size = 2 * (size - 1)
    count = size if dft_length is None else int(dft_length.item())
    if count < 1:
        raise ValueError(f"dft_length is {count}, expected at least 1")
    sizes([*x.shape[:axis], count, *x.shape[axis + 1 : -1], 2], np.dtype(np.complex128))
    if inverse and onesided:
        return np.fft.irfft(signal, count, axis)[..., None].astype(x.dtype, copy=False)
    if onesided:
        if x.shape[-1] == 2:
            raise ValueError("onesided is 1, expected real numbers, (..., 1)")
        return _parts(np.fft.rfft(signal, count, axis), x.dtype)
    return _parts((np.fft.ifft if inverse else np.fft.fft)(signal, count, axis), x.dtype)


@operator("DFT", since=20, grows="asks")
def _dft(
    x: Tensor,
    dft_length: Tensor | None = None,
    axis: Tensor | None = None,
    *,
    inverse: int = 0,
    onesided: int = 0,
) -> Any:
    at = -2 if axis is None else int(axis.item())
    return _dft_17(x, dft_length, axis=at, inverse=inverse, onesided=onesided)


@operator("STFT", since=17, grows="asks")
def _stft(
    signal: Tensor,
    frame_step: Tensor,
    window: Tensor | None = None,
    frame_length: Tensor | None = None,
    *,
    onesided: int = 1,
) -> Any:
    """Spectra of parts of signals (B, T, 1 or 2), a step apart: (B, parts, places, 2)."""
    if signal.ndim != 3:
        raise ValueError(f"signal has shape {signal.shape}, expected (B, T, 1) or (B, T, 2)")
    x, step = _complex(signal), int(frame_step.item())
    if frame_length is None and window is None:
        raise ValueError("neither frame_length nor window is given")
    given = len(window) if window is not None else 0
    length = given if frame_length is None else int(frame_length.item())
    if not 1 <= length <= x.shape[1] or step < 1 or given not in (0, length):
        raise ValueError(
            f"frames are {length} long and {step} apart, for {x.shape[1]} numbers and a window of "
            f"{given}"
        )
    count = (x.shape[1] - length) // step + 1
    sizes([len(x), count, length, 2], np.dtype(np.complex128))
    frames = np.lib.stride_tricks.sliding_window_view(x, length, 1)[:, ::step]
    if window is not None:
        frames = frames * window
    if onesided and signal.shape[-1] == 1:
        return _parts(np.fft.rfft(frames), signal.dtype)
    spectra = np.fft.fft(frames)
    return _parts(spectra[..., : length // 2 + 1] if onesided else spectra, signal.dtype)


def _window(name: str, *factors: float) -> None:
    """Register a sum of cosines: factors[k] cos(2 pi k n / size)."""

    @operator(name, since=17, grows="asks")
    def run(size: Tensor, *, output_datatype: int = 1, periodic: int = 1) -> Any:
        count, dtype = int(size.item()), dtype_of(output_datatype, "output_datatype")
        sizes([count], np.dtype(np.float64))
        angles = 2 * np.pi * np.arange(count) / max(count if periodic else count - 1, 1)
        return sum(f * np.cos(k * angles) for k, f in enumerate(factors)).astype(dtype)  # type: ignore[union-attr]


_window("HannWindow", 0.5, -0.5)
_window("HammingWindow", 25 / 46, -21 / 46)
_window("BlackmanWindow", 0.42, -0.5, 0.08)
