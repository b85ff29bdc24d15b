"""Networks made at random: their gradients, files, copies and bits."""

from __future__ import annotations

import copy
import tempfile
from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import lstmcore as lc
from helpers.numeric import assert_same_bits

T, B, F = 3, 2, 2
D: dict[str, Any] = {"dtype": "float64"}


class Graph:
    """Values of two kinds that grow, each with what computes it from arrays as from symbols."""

    def __init__(self, draw: Any) -> None:
        self.draw = draw
        self.modules: list[Any] = []
        self.plan: list[tuple[str, tuple[Any, ...]]] = []

    def describe(self, inputs: list[Any]) -> Any:
        """Make a network on symbols, writing down what was done."""
        timed, rows, states = [inputs[0], inputs[1]], [inputs[2]], []
        for _ in range(self.draw(st.integers(2, 7))):
            kind = self.draw(st.sampled_from(KINDS))
            choice = self.draw(st.tuples(*[st.integers(0, 9)] * 3))
            self.plan.append((kind, choice))
            self.grow(kind, choice, timed, rows, states)
        return self.outputs(inputs, timed, rows)

    def again(self, inputs: list[Any]) -> Any:
        """Do the same with other values, by the same modules in the same order."""
        self.used = iter(self.modules)
        timed, rows, states = [inputs[0], inputs[1]], [inputs[2]], []
        for kind, choice in self.plan:
            self.grow(kind, choice, timed, rows, states)
        return self.outputs(inputs, timed, rows)

    def outputs(self, inputs: list[Any], timed: list[Any], rows: list[Any]) -> Any:
        y = timed[-1] + inputs[0] - inputs[1]
        return {"steps": y, "rows": (lc.concat(rows), timed[0] * 0.5)}

    def module(self, make: Any, choice: int) -> Any:
        """Make a module, or take one of that kind that is there."""
        if hasattr(self, "used"):
            return next(self.used)
        made = make()
        same = [m for m in self.modules if type(m) is type(made) and repr(m) == repr(made)]
        self.modules.append(same[0] if same and choice % 3 == 0 else made)
        return self.modules[-1]

    def grow(self, kind: str, choice: Any, timed: Any, rows: Any, states: Any) -> None:
        i, j, seed = choice
        x, other, row = timed[i % len(timed)], timed[j % len(timed)], rows[j % len(rows)]
        if kind == "layer":
            options = {"num_layers": 1 + j % 2, "seed": seed, **D}
            kinds = (lc.GRU, lc.RNN)
            layer = self.module(lambda: kinds[i % 2](F, F, **options), seed)
            state = next((s for s in states if s.shape_is == layer.num_layers), None)
            y, h = layer(x, state and state.value)
            timed.append(y)
            states.append(State(h, layer.num_layers))
            rows.append(h[-1])
        elif kind == "linear":
            timed.append(self.module(lambda: lc.Linear(F, F, seed=seed, **D), seed)(x))
        elif kind == "rows":
            rows.append(self.module(lambda: lc.Linear(F, F, seed=seed, **D), seed)(row))
        elif kind == "norm":
            timed.append(self.module(lambda: lc.LayerNorm(F, **D), seed)(x))
        elif kind == "sum":
            timed.append([x + other, x - other, x * other, 2 - x, -x][seed % 5])
        elif kind == "repeat":
            timed.append(lc.repeat(row, like=x) * other)
        elif kind == "pool":
            pool = self.module([lc.LastStep, lc.MeanPool][seed % 2], 1)
            rows.append(pool(x))
        elif kind == "concat":
            wide = lc.concat([x, other, lc.repeat(row, like=x)])
            timed.append(wide[..., seed % 4 : seed % 4 + F] + wide[..., 3:4])
        elif kind == "attention":
            attention = self.module(lambda: lc.attention.MultiHead(F, 1, seed=seed, **D), seed)
            timed.append(attention(x, other, other)[0])
        else:
            rows.append(lc.Tanh()(row) * 0.5 + rows[0])


class State:
    def __init__(self, value: Any, layers: int) -> None:
        self.value, self.shape_is = value, layers


KINDS = ("layer", "linear", "rows", "norm", "sum", "repeat", "pool", "concat", "attention", "tanh")


@settings(max_examples=20, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_random_graphs(data: Any) -> None:
    graph = Graph(data.draw)
    inputs = [lc.Input(F), lc.Input(F), lc.Input(F, steps=False)]
    model = lc.Model(inputs, graph.describe(inputs))
    rng = np.random.default_rng(0)
    x = [rng.standard_normal(shape) for shape in ((T, B, F), (T, B, F), (B, F))]
    y = model(x)
    assert_same_bits(y, graph.again(x))  # the same expressions, with arrays
    trained, tape = model.forward(x)
    assert_same_bits(trained, y)
    lc.gradcheck(model, x, lengths=data.draw(st.sampled_from([None, [3, 1], [0, 2]])), tol=1e-5)
    dy = {"steps": rng.standard_normal((T, B, F)), "rows": None}
    dx = model.backward(tape, dy)
    with tempfile.TemporaryDirectory() as folder:
        lc.save(model, f"{folder}/model")
        again = lc.load(f"{folder}/model")
    for other in (copy.deepcopy(model), again):
        assert other == model
        assert_same_bits(other(x), y)
        _, tape = other.forward(x)
        other.zero_grad()
        assert_same_bits(other.backward(tape, dy), dx)
