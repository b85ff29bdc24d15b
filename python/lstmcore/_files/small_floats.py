"""Floating-point numbers that NumPy has no type for, as float32."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["WIDENED", "widen_bfloat16"]

Floats = npt.NDArray[np.float32]


def widen_bfloat16(bits: npt.NDArray[np.uint16]) -> Floats:
    """Return as float32 what bfloat16 numbers are, the upper halves of those."""
    wide = bits.astype(np.uint32)
    wide <<= 16
    return wide.view(np.float32)


@cache
def _table(exponent: int, bias: int, only_nan: int | None) -> Floats:
    """Return the numbers of all 256 bytes: a sign, bits of the exponent, and the fraction.

    Denormal where the exponent is 0. The largest exponent is that of infinity and NaN, or, of kinds
    without infinity, `only_nan` is the byte that is NaN.
    """
    fraction = 7 - exponent
    codes = np.arange(256)
    size = codes & 127
    e, f = size >> fraction, size & (2**fraction - 1)
    normal = e > 0
    values = (f + normal * 2.0**fraction) * 2.0 ** (np.maximum(e, 1) - bias - fraction)
    if only_nan is None:
        values[e == 2**exponent - 1] = np.inf
        values[(e == 2**exponent - 1) & (f > 0)] = np.nan
    values = np.where(codes > 127, -values, values)
    if only_nan is not None:
        values[codes == only_nan] = np.nan
        if only_nan == 127:  # of either sign; the others have no zero below 0
            values[255] = np.nan
    result: Floats = values.astype(np.float32)
    return result


@cache
def _powers() -> Floats:
    """Return the powers of two that scales are: 2 ** (byte - 127), and NaN."""
    with np.errstate(over="ignore"):
        values = np.ldexp(np.float64(1), np.arange(256) - 127).astype(np.float32)
    values[255] = np.nan
    return values


def _by_table(table: Callable[[], Floats], bits: npt.NDArray[np.uint8]) -> Floats:
    result: Floats = table()[bits]
    return result


# By PyTorch's names: the type of the bits, and what makes float32 of them.
WIDENED: dict[str, tuple[str, Callable[[npt.NDArray[Any]], Floats]]] = {
    "bfloat16": ("uint16", widen_bfloat16),
    "float8_e4m3fn": ("uint8", partial(_by_table, partial(_table, 4, 7, 127))),
    "float8_e5m2": ("uint8", partial(_by_table, partial(_table, 5, 15, None))),
    "float8_e4m3fnuz": ("uint8", partial(_by_table, partial(_table, 4, 8, 128))),
    "float8_e5m2fnuz": ("uint8", partial(_by_table, partial(_table, 5, 16, 128))),
    "float8_e8m0fnu": ("uint8", partial(_by_table, _powers)),
}
