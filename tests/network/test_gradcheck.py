"""gradcheck finds what is wrong, and nothing where all is right."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc

D: dict[str, Any] = {"dtype": "float64", "seed": 0}
X = np.random.default_rng(0).standard_normal((4, 2, 3))


@pytest.mark.parametrize(
    ("module", "x", "lengths"),
    [
        (lc.LSTM(3, 2, 2, peephole=True, bidirectional=True, **D), (X,), [4, 1]),
        (lc.LSTM(3, 2, **D), (X, (np.ones((1, 2, 2)), np.zeros((1, 2, 2)))), None),
        (lc.GRU(3, 2, 2, dropout=0.5, **D), (X, np.ones((2, 2, 2))), [0, 3]),
        (lc.LSTMCell(3, 2, **D), (X[0], (np.ones((2, 2)), np.zeros((2, 2)))), None),
        (lc.RNNCell(3, 2, **D), (X[0],), None),
        (lc.Embedding(5, 3, **D), (np.array([[0, 4], [1, 4]]),), None),
        (lc.attention.MultiHead(3, 1, dropout=0.3, **D), (X, X[:2], X[:2]), [1, 2]),
        (lc.Masking(), (X,), [2, 2]),
        (lc.MaxPool(), (X,), [2, 0]),
        (lc.Sequential(lc.Dropout(0.5), lc.Linear(3, 2, **D)), (X,), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_all_is_right(module: Any, x: Any, lengths: Any) -> None:
    before = [p.data.copy() for p in module.parameters()]
    lc.gradcheck(module, *x, lengths=lengths)
    for p, data in zip(module.parameters(), before, strict=True):
        np.testing.assert_array_equal(p.data, data)
        assert not p.grad.any()


class Cubed(lc.Module):
    """y = (w x)^3, with a mistake."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake
        self.w = lc.Parameter("w", np.array([1.0, 2.0]))

    def forward(self, x: Any) -> Any:
        return (self.w.data * x) ** 3, x

    def backward(self, x: Any, dy: Any) -> Any:
        w = self.w.data
        d = 3 * (w * x) ** 2 * dy
        dw = (d * x).reshape(-1, 2).sum(axis=0)
        if self.mistake == "one entry":
            dw[1] *= 1.001
        if self.mistake == "overwritten":
            self.w.grad = dw
        elif self.mistake != "nothing":
            self.w.grad += dw
        dx = d * (1.01 if self.mistake == "x" else w)
        return dx[:1] if self.mistake == "shape" else dx


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("one entry", r"the gradient of parameter w at \(1,\) is .*, expected"),
        ("overwritten", r"parameter w at \(0,\) .*: backward replaces what was there, expected"),
        ("nothing", r"parameter w at \(0,\) is 0\.0, expected .*: backward gives 0 everywhere"),
        ("x", r"the gradient of x\[0\] at \(0,\)"),
        ("shape", r"the gradient of x\[0\] has shape \(1,\), expected \(2,\)"),
    ],
)
def test_mistakes_are_found(mistake: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        lc.gradcheck(Cubed(mistake), np.array([0.5, -0.7]))
    lc.gradcheck(Cubed(""), np.array([0.5, -0.7]))
    if mistake == "one entry":
        lc.gradcheck(Cubed(mistake), np.array([0.5, -0.7]), tol=0.1)


class Square(lc.Module):
    """y = x^2, with a mistake."""

    def __init__(self, mistake: str) -> None:
        self.mistake = mistake

    def forward(self, x: Any) -> Any:
        y = x * x
        if self.mistake == "x":
            x *= 2
        self.x = x
        return y, x

    def backward(self, x: Any, dy: Any) -> Any:
        if self.mistake == "self":
            x = self.x
        dx: Any = 2 * x * dy
        if self.mistake == "dy":
            dy *= 2
        if self.mistake == "x later":
            x *= 2
        return {"None": None, "list": [dx], "more": (dx, dx)}.get(self.mistake, dx)


@pytest.mark.parametrize(
    ("mistake", "message"),
    [
        ("x", r"forward changes x\[0\] in place, expected it to leave it as it is"),
        ("x later", r"backward changes x\[0\] in place"),
        ("dy", r"backward changes dy\[0\] in place"),
        ("self", r"the gradient of x\[0\] is another after .*expected backward to go by its tape"),
        ("None", r"the gradient of x\[0\] is None \(NoneType\), expected an array of shape \(2,\)"),
        ("list", r"the gradient of x\[0\] is a list of 1 array, expected an array of shape \(2,\)"),
        ("more", r"backward returned 2 gradients, expected 1, those of every x"),
    ],
)
def test_methods_that_do_more_or_less_than_they_should(mistake: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        lc.gradcheck(Square(mistake), np.array([0.5, -0.7]))
    lc.gradcheck(Square(""), np.array([0.5, -0.7]))


def test_a_gradient_too_few() -> None:
    class Product(lc.Module):
        def forward(self, a: Any, b: Any) -> Any:
            return a * b, (a, b)

        def backward(self, tape: Any, dy: Any) -> Any:
            return dy * tape[1]

    with pytest.raises(AssertionError, match="1 gradients, expected 2, those of every x"):
        lc.gradcheck(Product(), np.ones(3), np.ones(3))

    class Listed(Product):
        def backward(self, tape: Any, dy: Any) -> Any:
            return [dy * tape[1], dy * tape[0]]

    said = "returned a list, expected a tuple of 2 gradients, those of every x"
    with pytest.raises(AssertionError, match=said):
        lc.gradcheck(Listed(), np.ones(3), np.ones(3))
    a, b = lc.Input(2, steps=False), lc.Input(2, steps=False)
    model = lc.Model([a, b], Listed()(a, b))
    x = np.ones((1, 2), "f4")
    _, tape = model.forward([x, x])
    with pytest.raises(TypeError, match=said):
        model.backward(tape, x)


def test_x_whose_order_matters() -> None:
    class Speed(lc.Module):
        def forward(self, times: Any) -> Any:
            if (np.diff(times) <= 0).any():
                raise ValueError("times must increase")
            return 1 / np.diff(times), times

        def backward(self, times: Any, dy: Any) -> Any:
            d = dy / np.diff(times) ** 2
            return np.append(d, 0) - np.append(0, d)

    lc.gradcheck(Speed(), np.array([0.0, 1.0, 3.0]))


def test_no_x_at_all() -> None:
    class Start(lc.Module):
        def __init__(self, slope: float) -> None:
            self.h, self.slope = lc.Parameter("h", np.ones(3)), slope

        def forward(self) -> Any:
            return self.h.data**2, self.h.data.copy()

        def backward(self, h: Any, dy: Any) -> None:
            self.h.grad += self.slope * h * dy

    lc.gradcheck(Start(2.0))
    with pytest.raises(AssertionError, match="the gradient of parameter h"):
        lc.gradcheck(Start(3.0))


def test_numbers_without_axes() -> None:
    class Squared(lc.Module):
        def __init__(self) -> None:
            self.factor = lc.Parameter("factor", np.array(2.0))

        def forward(self, x: Any) -> Any:
            factor = self.factor.data.copy()
            return x * x * factor, (x, factor)

        def backward(self, tape: Any, dy: Any) -> Any:
            x, factor = tape
            self.factor.grad += x * x * dy
            return 2 * x * factor * dy

    lc.gradcheck(Squared(), 3.0)
    lc.gradcheck(Squared(), np.array(3.0))


def test_names_in_structures() -> None:
    a, b = lc.Input(2, steps=False), lc.Input(2, steps=False)
    model = lc.Model({"a": a, "b": b}, Cubed("x")(a) + b)
    x = {"a": np.array([[0.5, -0.7]]), "b": np.ones((1, 2))}
    with pytest.raises(AssertionError, match=r"x\[0\]\['a'\] at \(0, 0\)"):
        lc.gradcheck(model, x)


def test_refuses() -> None:
    with pytest.raises(TypeError, match="weight has dtype float32, expected float64"):
        lc.gradcheck(lc.Linear(3, 2), X)
    with pytest.raises(TypeError, match="module is 3"):
        lc.gradcheck(3, X)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tol is 'x'"):
        lc.gradcheck(lc.Tanh(), X, tol="x")  # type: ignore[arg-type]
