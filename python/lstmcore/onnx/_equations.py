"""Recurrent nodes by their equations, in NumPy: for what ONNX can say and our layers cannot.

These are the activations that our layers lack, and other ones in each direction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._model import Node, Tensor
from ._recurrent import Attributes, sizes_of
from .operators import activation

__all__ = ["Equations"]

_States = tuple[Tensor, ...]


class Equations:
    """A recurrent node with its weights.

    Parameters
    ----------
    node : Node
    kind : str
        "LSTM", "GRU" or "RNN".
    said : Attributes
        Of the node.
    weights : mapping
        W, R, and B and P if it has them.
    """

    def __init__(
        self, node: Node, kind: str, said: Attributes, weights: Mapping[str, Tensor]
    ) -> None:
        self._size = sizes_of(node, kind, weights, said)["hidden_size"]
        self._kind, self._said = kind, said
        wide = np.float32 if weights["W"].dtype == np.float16 else weights["W"].dtype
        self._weights = {name: a.astype(wide, copy=False) for name, a in weights.items()}

    @property
    def dtype(self) -> np.dtype[Any]:
        """In which it computes."""
        return self._weights["W"].dtype

    def __call__(
        self, x: Tensor, states: list[Tensor | None], lengths: Tensor | None
    ) -> tuple[Tensor, ...]:
        """Return Y (T, D, B, H) and the final states (D, B, H) of x (T, B, I), without layout."""
        T, B = x.shape[:2]
        ends = np.full(B, T) if lengths is None else _checked(lengths, T, B)
        count = 2 if self._kind == "LSTM" else 1
        y = np.zeros((T, self._said.directions, B, self._size), self.dtype)
        final = [np.zeros((self._said.directions, B, self._size), self.dtype) for _ in range(count)]
        for d in range(self._said.directions):
            state = []
            for given in states[:count]:
                if given is not None and given.shape != final[0].shape:
                    raise ValueError(f"a state has shape {given.shape}, expected {final[0].shape}")
                state.append(final[0][0] * 0 if given is None else given[d])
            backwards = self._said.direction == "reverse" or d == 1
            last = self._run(x, tuple(state), ends, d, backwards, y[:, d])
            for whole, part in zip(final, last, strict=True):
                whole[d] = part
        return (y, *final)

    def _run(
        self, x: Tensor, state: _States, ends: Tensor, d: int, backwards: bool, y: Tensor
    ) -> _States:
        """Go through all steps of a direction; y is written to."""
        step = self._step(d)
        T = len(x)
        for t in reversed(range(T)) if backwards else range(T):
            there = (t < ends)[:, None]
            new = step(x[t], *state)
            y[t] = np.where(there, new[0], 0)
            state = tuple(np.where(there, a, b) for a, b in zip(new, state, strict=True))
        return state

    def _step(self, d: int) -> Callable[..., _States]:
        """Return the step of a direction: x and the states before it become those after it."""
        W, R = self._weights["W"][d], self._weights["R"][d]
        b_w, b_r = (
            self._weights["B"][d].reshape(2, -1)
            if "B" in self._weights
            else np.zeros((2, len(W)), self.dtype)
        )
        clip = self._said.clip

        def function(role: tuple[Any, ...], clipped: bool = True) -> Callable[[Tensor], Tensor]:
            f = activation(role[0], role[1:])
            return f if clip is None or not clipped else lambda a: f(np.clip(a, -clip, clip))

        roles = self._said.activations[d]
        f, *others = [function(role, i < 2) for i, role in enumerate(roles)]
        if self._kind == "RNN":
            return lambda x, h: (f(x @ W.T + b_w + h @ R.T + b_r),)
        if self._kind == "GRU":
            return self._gru(W, R, b_w, b_r, f, others[0])
        P = np.split(self._weights["P"][d], 3) if "P" in self._weights else [self.dtype.type(0)] * 3
        return self._lstm(W, R, b_w + b_r, P, f, *others)

    def _gru(
        self, W: Tensor, R: Tensor, b_w: Tensor, b_r: Tensor, f: Any, g: Any
    ) -> Callable[..., _States]:
        after = self._said.linear_before_reset
        H = self._size

        def step(x: Tensor, h: Tensor) -> _States:
            a_z, a_r, a_n = np.split(x @ W.T + b_w, 3, axis=1)
            q_z, q_r = np.split(h @ R[: 2 * H].T + b_r[: 2 * H], 2, axis=1)
            z, r = f(a_z + q_z), f(a_r + q_r)
            q = (h if after else r * h) @ R[2 * H :].T + b_r[2 * H :]
            n = g(a_n + (r * q if after else q))
            return ((1 - z) * n + z * h,)

        return step

    def _lstm(
        self, W: Tensor, R: Tensor, b: Tensor, P: list[Any], f: Any, g: Any, shown: Any
    ) -> Callable[..., _States]:
        p_i, p_o, p_f = P

        def step(x: Tensor, h: Tensor, c: Tensor) -> _States:
            a_i, a_o, a_f, a_c = np.split(x @ W.T + h @ R.T + b, 4, axis=1)
            i = f(a_i + p_i * c)
            forget = 1 - i if self._said.input_forget else f(a_f + p_f * c)
            c = forget * c + i * g(a_c)
            return f(a_o + p_o * c) * shown(c), c

        return step


def _checked(lengths: Tensor, T: int, B: int) -> Tensor:
    if lengths.shape != (B,) or (lengths < 0).any() or (lengths > T).any():
        raise ValueError(f"sequence_lens is {lengths.tolist()}, expected {B} of up to {T}")
    return lengths
