"""Networks of many shapes, and values for them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import lstmcore as lc
from lstmcore._base.tree import rebuilt

T, B = 6, 4


def residual_stack(first: bool) -> Any:
    x = y = lc.Input(4)
    for i in range(3):
        inside = lc.LSTM(4, 4, batch_first=first, seed=i)(lc.LayerNorm(4)(y))[0]
        y = y + lc.Dropout(0.5)(lc.Tanh()(inside))
    return lc.Model(x, y), ["h0", "c0"]


def two_inputs(first: bool) -> Any:
    """A sequence and static features; all the arithmetic there is."""
    sequence, static = lc.Input(3), lc.Input(2, steps=False)
    x = lc.concat([sequence, lc.repeat(lc.ReLU()(static), like=sequence)])
    y, h = lc.GRU(5, 6, 2, batch_first=first, seed=0)(x)
    y = lc.Linear(6, 3, seed=1)(y) * sequence - 0.5 * y[..., :3] + 1
    part = y[..., 2:0:-1] - y[..., -1:]
    gate = lc.Sigmoid()(y[..., :1])
    return lc.Model([sequence, static], [2 - part * gate, h[0:1], h[-1] + h[0]]), ["h0"]


def two_heads(first: bool) -> Any:
    x = lc.Input(3)
    y, (h, c) = lc.LSTM(3, 5, bidirectional=True, batch_first=first, seed=0)(x)
    heads = {
        "steps": lc.Linear(10, 3, seed=1)(y),
        "rows": lc.Softmax()(lc.Linear(15, 4, seed=2)(lc.concat([lc.MeanPool()(y), c[1]]))),
        "both": h[::-1],
    }
    return lc.Model(x, heads), ["h0", "c0"]


def autoencoder(first: bool) -> Any:
    x = lc.Input(3)
    _, (h, _) = lc.LSTM(3, 5, batch_first=first, seed=0)(x)
    y, _ = lc.LSTM(5, 6, batch_first=first, seed=1)(lc.repeat(h[-1], like=x))
    return lc.Model({"x": x}, {"x": lc.Linear(6, 3, seed=2)(y)}), ["h0", "c0"]


def encoder_decoder(first: bool) -> Any:
    """Wired by states of two layers; the Embedding, and the norm, are called twice."""
    source, previous = lc.Input(ids=True), lc.Input(ids=True)
    embedding, norm = lc.Embedding(7, 4, seed=0), lc.LayerNorm(4)
    _, state = lc.LSTM(4, 5, 2, batch_first=first, seed=1)(norm(embedding(source)))
    y, _ = lc.LSTM(4, 5, 2, batch_first=first, seed=2)(norm(embedding(previous)), state)
    inputs = {"source": source, "previous": previous}
    return lc.Model(inputs, lc.Linear(5, 7, seed=3)(y)), ["h0", "c0"]


def tied(first: bool) -> Any:
    """One layer with weights that three calls share, each with a state of its own."""
    a, b = lc.Input(3), lc.Input(3)
    layer, head = lc.GRU(3, 3, batch_first=first, seed=0), lc.Linear(3, 3, seed=1)
    y = head(layer(a)[0])
    return lc.Model([a, b], [y + layer(y)[0], head(lc.LastStep()(layer(b)[0]))]), ["h0"]


def initial_state(first: bool) -> Any:
    """Given by what has no steps: of the LSTM a half of it."""
    image, previous = lc.Input(4, steps=False), lc.Input(3)
    h = lc.Linear(4, 5, seed=0)(image)
    y, _ = lc.LSTM(3, 5, batch_first=first, seed=1)(previous, (h[None], None))
    y, _ = lc.GRU(5, 5, batch_first=first, seed=2)(y, h[None])
    pools = [lc.MaxPool()(y), lc.LastStep()(lc.Flip()(y)), lc.MeanPool()(y)]
    return lc.Model([image, previous], [y, lc.concat(pools)]), []


def no_layers(first: bool) -> Any:
    a, b = lc.Input(3, steps=False), lc.Input(3, steps=False)
    return lc.Model([a, b], lc.Linear(3, 3, seed=0)(a) * b + lc.Linear(3, 1, seed=1)(b)), []


NETWORKS: dict[str, Callable[[bool], tuple[Any, list[str]]]] = {
    f.__name__: f
    for f in (
        residual_stack, two_inputs, two_heads, autoencoder, encoder_decoder, tied, initial_state,
        no_layers,
    )
}  # fmt: skip


def heads_over_another(first: bool) -> Any:
    """Queries of one sequence, keys and values of another; the weights are an output as well."""
    query, key = lc.Input(8), lc.Input(6)
    attention = lc.attention.MultiHead(8, 2, 0.5, kdim=6, vdim=6, batch_first=first, seed=0)
    y, weights = attention(query, lc.Tanh()(key), key)
    return lc.Model([query, key], [query + y, weights])


def transformer(first: bool) -> Any:
    """Two encoder blocks with a GRU behind them."""
    x = y = lc.Input(8)
    for i in range(2):
        attention = lc.attention.MultiHead(8, 4, bias=i > 0, batch_first=first, seed=i)
        y = lc.LayerNorm(8)(y + attention(y, y, y)[0])
        y = lc.LayerNorm(8)(y + lc.Linear(16, 8, seed=i)(lc.GELU()(lc.Linear(8, 16, seed=i)(y))))
    y, h = lc.GRU(8, 5, batch_first=first, seed=9)(y)
    return lc.Model(x, [y, h[-1]])


def additive(first: bool) -> Any:
    """The attention of Bahdanau et al., and one without a scale."""
    query, states = lc.Input(5), lc.Input(6)
    keys, queries = lc.Linear(6, 4, seed=0)(states), lc.Linear(5, 4, seed=1)(query)
    y, weights = lc.attention.Additive(4, batch_first=first, seed=2)(queries, keys, states)
    plain, _ = lc.attention.Additive(4, scale=False, batch_first=first)(queries, keys, states)
    return lc.Model([query, states], [y, weights, plain])


def dots(first: bool) -> Any:
    query, states = lc.Input(6), lc.Input(6)
    y, weights = lc.attention.ScaledDotProduct(batch_first=first)(query, states, states)
    other, _ = lc.attention.ScaledDotProduct(0.3, batch_first=first)(query, states, query * states)
    return lc.Model([query, states], [y, weights, other])


def looking_back(first: bool) -> Any:
    x, states = lc.Input(6), lc.Input(6)
    options: dict[str, Any] = {"batch_first": first, "causal": True}
    y, _ = lc.attention.ScaledDotProduct(**options)(x, states, states)
    z, weights = lc.attention.Additive(6, seed=0, **options)(y, states, states)
    return lc.Model([x, states], [y, z, weights])


def heads_looking_back(first: bool) -> Any:
    x = lc.Input(6)
    attention = lc.attention.MultiHead(6, 2, seed=0, batch_first=first, causal=True)
    y, weights = attention(x, x, x)
    return lc.Model(x, [lc.LayerNorm(6)(x + y), weights])


ATTENTION: dict[str, Callable[[bool], Any]] = {
    f.__name__: f
    for f in (heads_over_another, transformer, additive, dots, looking_back, heads_looking_back)
}


def values_of(model: Any, seed: int = 0) -> Any:
    """Values for the inputs of a model."""
    rng = np.random.default_rng(seed)
    made = []
    for axes, _ in model._plan.given:
        lead = ((B, T) if model.batch_first else (T, B)) if axes.steps else (B,)
        if axes.features is None:
            made.append(rng.integers(0, 7, lead))
        else:
            made.append(rng.standard_normal((*lead, axes.features)).astype("f4"))
    return rebuilt(model._plan.inputs, iter(made))


def states_of(model: Any) -> list[Any]:
    """An initial state for every layer that takes one."""
    rng = np.random.default_rng(7)
    states = []
    for step in model._plan.free:
        layer = step.module
        shape = (layer._states, B, layer.hidden_size)
        parts = tuple(rng.standard_normal(shape).astype("f4") for _ in layer._state_parts)
        states.append(parts if len(parts) > 1 else parts[0])
    return states
