"""JAX: the cell in lax.scan, compiled, the input's product outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cases import Case
from data import Array, Data

from .base import Unsupported, Way


class Jax:
    """JAX on the CPU."""

    def __init__(self, threads: int) -> None:
        # XLA takes as many threads as there are cores for this process.
        if hasattr(os, "sched_setaffinity"):
            os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
        self.version = jax.__version__

    def ways(self, case: Case, data: Data) -> Iterator[Way]:
        """Yield the loop as it is, and unrolled."""
        if not case.jax or case.L > 1 or case.D > 1:
            raise Unsupported("compared on a few cases only")
        w_ih, w_hh, b_ih, b_hh = map(jnp.asarray, data.parameters.values())
        x = jnp.asarray(data.x)
        step = _STEPS[case.cell]

        def layer(unroll: int) -> Callable[[Any], Any]:
            def run(x: Any) -> Any:
                pre = x @ w_ih.T + b_ih + (b_hh if case.cell != "gru" else 0)
                h = jnp.zeros((case.B, case.H), x.dtype)
                state = (h, h) if case.cell == "lstm" else h
                return jax.lax.scan(
                    lambda s, p: step(s, p, w_hh.T, b_hh), state, pre, unroll=unroll
                )[1]

            return jax.jit(run)

        for unroll in (1, 4):
            compiled = layer(unroll)

            def run(compiled: Callable[[Any], Any] = compiled) -> Any:
                return compiled(x).block_until_ready()

            def outputs(y: Any) -> dict[str, Array]:
                return {"y": np.asarray(y)}

            yield Way(f"unroll {unroll}", run, outputs)


def _lstm(state: Any, pre: Any, w: Any, _: Any) -> Any:
    h, c = state
    i, f, g, o = jnp.split(pre + h @ w, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    return (h, c), h


def _gru(h: Any, pre: Any, w: Any, b: Any) -> Any:
    hr, hz, hn = jnp.split(h @ w + b, 3, axis=-1)
    xr, xz, xn = jnp.split(pre, 3, axis=-1)
    r, z = jax.nn.sigmoid(xr + hr), jax.nn.sigmoid(xz + hz)
    n = jnp.tanh(xn + r * hn)
    h = n + z * (h - n)
    return h, h


def _rnn(h: Any, pre: Any, w: Any, _: Any) -> Any:
    h = jnp.tanh(pre + h @ w)
    return h, h


_STEPS: dict[str, Callable[..., Any]] = {"lstm": _lstm, "gru": _gru, "rnn": _rnn}


def make(threads: int) -> Jax:
    """Return the library, on this many cores."""
    return Jax(threads)
