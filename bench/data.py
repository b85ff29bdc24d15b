"""The numbers that a case is run with. Every process makes the same ones."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from cases import Case

__all__ = ["Array", "Data", "make", "row_lengths"]

Array = npt.NDArray[Any]


@dataclass
class Data:
    """Parameters by PyTorch's names, x (T, B, I), dy (T, B, D*P) in training, lengths (B,)."""

    parameters: dict[str, Array]
    x: Array
    dy: Array | None
    lengths: npt.NDArray[np.int64] | None

    def parameter(self, name: str, layer: int, direction: int) -> Array:
        """Return one parameter of one direction of a layer."""
        return self.parameters[f"{name}_l{layer}{'_reverse' if direction else ''}"]


def _generator(case: Case) -> np.random.Generator:
    name = replace(
        case, int8=False, bfloat16=False, dtype="float32"
    ).name  # the same ones in every precision
    return np.random.default_rng(zlib.crc32(name.encode()))


def row_lengths(case: Case) -> npt.NDArray[np.int64]:
    """Return how many steps each row has."""
    if not case.lengths:
        return np.full(case.B, case.T, np.int64)
    return _generator(case).integers(1, case.T, case.B, np.int64, endpoint=True)


def make(case: Case) -> Data:
    """Make the numbers of a case."""
    rng = _generator(case)
    dtype = np.dtype(case.dtype)
    G, H, P = case.gates, case.H, case.P

    def uniform(*shape: int) -> Array:
        return rng.uniform(-(H**-0.5), H**-0.5, shape).astype(dtype)

    parameters = {}
    for layer, inputs in enumerate(case.layer_inputs):
        for suffix in ("", "_reverse")[: case.D]:
            name = f"_l{layer}{suffix}"
            parameters[f"weight_ih{name}"] = uniform(G * H, inputs)
            parameters[f"weight_hh{name}"] = uniform(G * H, P)
            parameters[f"bias_ih{name}"] = uniform(G * H)
            parameters[f"bias_hh{name}"] = uniform(G * H)
            if case.peephole:
                parameters[f"weight_ch{name}"] = uniform(G - 1, H)
            if case.proj_size:
                parameters[f"weight_hr{name}"] = uniform(P, H)
    if case.denormal:  # the states are to be denormal too
        for name, values in parameters.items():
            if name.startswith("bias"):
                values *= 0
    scale = np.finfo(dtype).smallest_normal / 8 if case.denormal else 1
    x = (rng.standard_normal((case.T, case.B, case.I)) * scale).astype(dtype)
    dy = None
    if case.mode == "train":
        dy = (rng.standard_normal((case.T, case.B, case.D * P)) * scale).astype(dtype)
    lengths = row_lengths(case) if case.lengths else None
    if dy is not None and lengths is not None:
        dy[np.arange(case.T)[:, None] >= lengths] = 0
    return Data(parameters, x, dy, lengths)
