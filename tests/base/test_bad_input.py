"""Bad input: refused by name, saying what it is and what was expected, with nothing changed."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits

T, B, I, H = 5, 3, 4, 6  # noqa: E741
LAYERS = (lc.RNN, lc.GRU, lc.LSTM)
CELLS = (lc.RNNCell, lc.GRUCell, lc.LSTMCell)


def zeros(*shape: int, dtype: str = "float32") -> Any:
    return np.zeros(shape, dtype)


def refuses(error: type[Exception], message: str, call: Callable[..., Any], *args: Any, **kw: Any):
    """Assert that a call raises just this, down to the message."""
    with pytest.raises(error) as caught:
        call(*args, **kw)
    assert type(caught.value) is error
    assert re.fullmatch(message, str(caught.value), re.DOTALL), str(caught.value)


# Options ------------------------------------------------------------------------------------------

COMMON: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"input_size": 0}, ValueError, "input_size is 0, expected at least 1"),
    ({"input_size": -3}, ValueError, "input_size is -3, expected at least 1"),
    ({"input_size": 3.0}, TypeError, r"input_size is 3\.0 \(float\), expected an int"),
    ({"input_size": "3"}, TypeError, r"input_size is '3' \(str\), expected an int"),
    ({"input_size": True}, TypeError, r"input_size is True \(bool\), expected an int"),
    ({"input_size": None}, TypeError, r"input_size is None \(NoneType\), expected an int"),
    ({"hidden_size": 0}, ValueError, "hidden_size is 0, expected at least 1"),
    ({"hidden_size": 2.5}, TypeError, r"hidden_size is 2\.5 \(float\), expected an int"),
    ({"hidden_size": [4]}, TypeError, r"hidden_size is \[4\] \(list\), expected an int"),
    (
        {"hidden_size": np.ones(2)},
        TypeError,
        r"hidden_size is a ndarray of shape \(2,\), expected an int",
    ),
    ({"bias": 1}, TypeError, r"bias is 1 \(int\), expected a bool"),
    ({"bias": None}, TypeError, r"bias is None \(NoneType\), expected a bool"),
    ({"bias": "no"}, TypeError, r"bias is 'no' \(str\), expected a bool"),
    ({"dtype": "float16"}, ValueError, r"dtype is 'float16' \(str\), expected 'float32' or 'fl.*"),
    ({"dtype": "int64"}, ValueError, r"dtype is 'int64' \(str\), expected 'float32' or 'float64'"),
    ({"dtype": "double!"}, ValueError, r"dtype is 'double!' \(str\), expected .*"),
    ({"dtype": None}, ValueError, r"dtype is None \(NoneType\), expected .*"),
    ({"dtype": np.longdouble}, ValueError, r"dtype is .*(longdouble|float128).*, expected .*"),
    ({"dtype": 3}, ValueError, r"dtype is 3 \(int\), expected .*"),
    ({"seed": -1}, ValueError, "seed is -1, expected at least 0"),
    ({"seed": 1.5}, TypeError, r"seed is 1\.5 \(float\), expected an int"),
    ({"seed": "0"}, TypeError, r"seed is '0' \(str\), expected an int"),
]

OF_LAYERS: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"num_layers": 0}, ValueError, "num_layers is 0, expected at least 1"),
    ({"num_layers": "2"}, TypeError, r"num_layers is '2' \(str\), expected an int"),
    ({"batch_first": 1}, TypeError, r"batch_first is 1 \(int\), expected a bool"),
    ({"bidirectional": 2}, TypeError, r"bidirectional is 2 \(int\), expected a bool"),
    ({"reverse": "yes"}, TypeError, r"reverse is 'yes' \(str\), expected a bool"),
    ({"dropout": 1.0}, ValueError, r"dropout is 1\.0, expected 0 <= dropout < 1"),
    ({"dropout": 1}, ValueError, r"dropout is 1\.0, expected 0 <= dropout < 1"),
    ({"dropout": -0.1}, ValueError, r"dropout is -0\.1, expected 0 <= dropout < 1"),
    ({"dropout": np.nan}, ValueError, "dropout is nan, expected a finite number"),
    ({"dropout": 10**400}, ValueError, "dropout is 10*, expected a finite number"),
    ({"dropout": "0.5"}, TypeError, r"dropout is '0\.5' \(str\), expected a number"),
    ({"dropout": True}, TypeError, r"dropout is True \(bool\), expected a number"),
    ({"merge": "max"}, ValueError, "merge is 'max', expected one of 'concat', 'sum', 'mul', 'ave'"),
    ({"merge": None}, TypeError, r"merge is None \(NoneType\), expected one of 'concat', .*"),
    (
        {"reverse": True, "bidirectional": True},
        ValueError,
        "reverse=True contradicts bidirectional=True",
    ),
    ({"merge": "sum"}, ValueError, "merge='sum' contradicts bidirectional=False"),
]

OF_LSTM: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"proj_size": -1}, ValueError, "proj_size is -1, expected at least 0"),
    ({"proj_size": 1.0}, TypeError, r"proj_size is 1\.0 \(float\), expected an int"),
    (
        {"proj_size": H},
        ValueError,
        "proj_size is 6, expected less than hidden_size, which is 6, .*",
    ),
    (
        {"proj_size": 9},
        ValueError,
        "proj_size is 9, expected less than hidden_size, which is 6, .*",
    ),
    ({"forget_gate": 0}, TypeError, r"forget_gate is 0 \(int\), expected a bool"),
    ({"coupled": 1}, TypeError, r"coupled is 1 \(int\), expected a bool"),
    ({"peephole": "on"}, TypeError, r"peephole is 'on' \(str\), expected a bool"),
    ({"cell_clip": 0}, ValueError, r"cell_clip is 0\.0, expected a number above 0, or None"),
    ({"cell_clip": -1.0}, ValueError, r"cell_clip is -1\.0, expected a number above 0, or None"),
    ({"cell_clip": np.inf}, ValueError, "cell_clip is inf, expected a finite number"),
    ({"cell_clip": False}, TypeError, r"cell_clip is False \(bool\), expected a number"),
    ({"gate_clip": -1.0}, ValueError, r"gate_clip is -1\.0, expected a number above 0, or None"),
    ({"gate_clip": "1"}, TypeError, r"gate_clip is '1' \(str\), expected a number"),
    ({"forget_bias": np.nan}, ValueError, "forget_bias is nan, expected a finite number"),
    ({"forget_bias": "1"}, TypeError, r"forget_bias is '1' \(str\), expected a number"),
    (
        {"coupled": True, "forget_gate": False},
        ValueError,
        "coupled=True contradicts forget_gate=False",
    ),
    (
        {"forget_bias": 1.0, "forget_gate": False},
        ValueError,
        r"forget_bias=1\.0 contradicts forget_gate=False",
    ),
    (
        {"forget_bias": 1, "coupled": True},
        ValueError,
        r"forget_bias=1\.0 contradicts coupled=True.*",
    ),
    ({"forget_bias": 1, "bias": False}, ValueError, r"forget_bias=1\.0 contradicts bias=False"),
    ({"activations": "tanh"}, TypeError, r"activations is 'tanh' \(str\), expected 3 of them: .*"),
    (
        {"activations": ("sigmoid", "tanh")},
        ValueError,
        r"activations has 2 entries, expected 3: \(gates, candidate g, output h\(c\)\)",
    ),
    (
        {"activations": ("sigmoid", "tanh", "swish")},
        ValueError,
        r"activations\[2\] \(output h\(c\)\) is 'swish', expected one of 'sigmoid', 'tanh', .*",
    ),
    (
        {"activations": ("sigmoid", None, "tanh")},
        TypeError,
        r"activations\[1\] \(candidate g\) is None \(NoneType\), expected a name or .*",
    ),
    (
        {"activations": (("sigmoid", 1, 2), "tanh", "tanh")},
        ValueError,
        r"activations\[0\] \(gates\) is \('sigmoid', 1, 2\), but 'sigmoid' takes no parameters",
    ),
]

OF_RNN: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"nonlinearity": "celu"}, ValueError, "nonlinearity is 'celu', expected one of 'sigmoid', .*"),
    (
        {"nonlinearity": ("elu", 1, 2)},
        ValueError,
        r"nonlinearity is \('elu', 1, 2\), expected \('elu', alpha\)",
    ),
    (
        {"nonlinearity": "affine"},
        ValueError,
        r"nonlinearity is 'affine', expected \('affine', alpha, beta\)",
    ),
    *(
        (
            {"nonlinearity": (name, -0.1)},
            ValueError,
            rf"nonlinearity is \('{name}', -0.1\), expected alpha of at least 0",
        )
        for name in ("elu", "leaky_relu", "thresholded_relu")
    ),
    ({"nonlinearity": ("gelu", 1)}, ValueError, r".*\('gelu', 1\), but 'gelu' takes no parameters"),
    ({"nonlinearity": 3}, TypeError, r"nonlinearity is 3 \(int\), expected a name or .*"),
    ({"nonlinearity": ()}, TypeError, r"nonlinearity is \(\) \(tuple\), expected a name or .*"),
    (
        {"nonlinearity": "scaled_tanh"},
        ValueError,
        r"nonlinearity is 'scaled_tanh', expected \('scaled_tanh', alpha, beta\)",
    ),
    (
        {"nonlinearity": ("hard_sigmoid", 1)},
        ValueError,
        r"nonlinearity is \('hard_sigmoid', 1\), expected \('hard_sigmoid', alpha, beta\)",
    ),
    (
        {"nonlinearity": ("hard_sigmoid", "a", 1)},
        TypeError,
        r"nonlinearity, alpha is 'a' \(str\), expected a number",
    ),
    (
        {"nonlinearity": ("scaled_tanh", 1, np.inf)},
        ValueError,
        "nonlinearity, beta is inf, expected a finite number",
    ),
    (
        {"nonlinearity": ("scaled_tanh", 0, 1)},
        ValueError,
        r"nonlinearity is \('scaled_tanh', 0, 1\), expected alpha other than 0",
    ),
]

OF_GRU: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"reset_after": 1}, TypeError, r"reset_after is 1 \(int\), expected a bool"),
    (
        {"activations": ("sigmoid", "tanh", "tanh")},
        ValueError,
        r"activations has 3 entries, expected 2: \(gates, candidate n\)",
    ),
]

OPTIONS = [
    (kind, *case)
    for kinds, cases in (
        ((*LAYERS, *CELLS), COMMON),
        (LAYERS, OF_LAYERS),
        ((lc.LSTM, lc.LSTMCell), OF_LSTM),
        ((lc.RNN, lc.RNNCell), OF_RNN),
        ((lc.GRU, lc.GRUCell), OF_GRU),
    )
    for kind in kinds
    for case in cases
]


@pytest.mark.parametrize(
    ("kind", "options", "error", "message"),
    OPTIONS,
    ids=[f"{kind.__name__} {options}"[:80] for kind, options, _, _ in OPTIONS],
)
def test_options(kind: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    refuses(error, message, kind, **{"input_size": I, "hidden_size": H, **options})


@pytest.mark.parametrize(
    ("kind", "option"),
    [
        (lc.GRU, "proj_size"),
        (lc.GRU, "cell_clip"),
        (lc.GRU, "nonlinearity"),
        (lc.RNN, "proj_size"),
        (lc.RNN, "activations"),
        (lc.LSTM, "nonlinearity"),
        (lc.LSTM, "reset_after"),
        (lc.LSTMCell, "num_layers"),
        (lc.GRUCell, "batch_first"),
        (lc.LSTM, "device"),
    ],
)
def test_options_of_others(kind: Any, option: str) -> None:
    with pytest.raises(TypeError, match=f"^{kind.__name__}: there is no keyword {option}="):
        kind(I, H, **{option: None})


# Sizes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [*LAYERS, *CELLS])
@pytest.mark.parametrize("size", [10**9, 2**31, 2**62, 2**63, 2**64, 10**30])
@pytest.mark.parametrize("name", ["input_size", "hidden_size", "num_layers"])
def test_sizes_that_cannot_be(kind: Any, size: int, name: str) -> None:
    if name == "num_layers" and kind in CELLS:
        return
    sizes = {"input_size": 1000, "hidden_size": 1000, name: size}
    with pytest.raises((MemoryError, ValueError), match=f"{name}={size}.* GiB of parameters"):
        kind(**sizes)


def test_inputs_that_cannot_be() -> None:
    """Outputs too large for this or any machine, from inputs that take no memory."""
    layer = lc.GRU(1, 1000, seed=0)
    for time, batch in ((2**50, 1), (1, 2**50), (2**31, 2**20), (2**60, 1)):
        x = np.lib.stride_tricks.as_strided(zeros(1), (time, batch, 1), (0, 0, 4))
        with pytest.raises((MemoryError, ValueError), match="x has shape"):
            layer(x)
        with pytest.raises((MemoryError, ValueError), match="x has shape"):
            layer.forward(x)
    layer(zeros(2, 1))


# Calls --------------------------------------------------------------------------------------------


class Bad:
    """Looks like an array and fails."""

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("no")


WRONG_X: list[tuple[Any, type[Exception], str]] = [
    (zeros(T, B, I + 1), ValueError, r"x has shape \(5, 3, 5\), expected \(T, B, 4\) or \(T, 4\)"),
    (zeros(T, I + 1), ValueError, r"x has shape \(5, 5\), expected \(T, B, 4\) or \(T, 4\)"),
    (zeros(I), ValueError, r"x has shape \(4,\), expected \(T, B, 4\) or \(T, 4\)"),
    (zeros(1, T, B, I), ValueError, r"x has shape \(1, 5, 3, 4\), expected .*"),
    (np.float32(3), ValueError, r"x has shape \(\), expected .*"),
    (3, ValueError, r"x has shape \(\), expected .*"),
    ([], ValueError, r"x has shape \(0,\), expected .*"),
    (zeros(T, B, 0), ValueError, r"x has shape \(5, 3, 0\), expected .*"),
    (zeros(T, B, I, dtype="float64"), TypeError, "x has dtype float64, expected float32, the .*"),
    (zeros(T, B, I, dtype="complex64"), TypeError, "x has dtype complex64, expected float32.*"),
    (zeros(T, B, I, dtype="object"), TypeError, "x has dtype object, expected float32.*"),
    (zeros(T, B, I, dtype="U3"), TypeError, "x has dtype <U3, expected float32.*"),
    (zeros(T, B, I, dtype="datetime64[s]"), TypeError, r"x has dtype datetime64\[s\], .*"),
    (zeros(T, B, I, dtype="timedelta64[s]"), TypeError, r"x has dtype timedelta64\[s\], .*"),
    (zeros(T, B, I, dtype="longdouble"), TypeError, "x has dtype .*, expected float32.*"),
    (np.zeros((T, B), [("a", "f4")]), TypeError, r"x has dtype \[.*\], expected float32.*"),
    ([[["a"] * I] * B] * T, TypeError, "x has dtype <U1, expected real numbers .*"),
    ([[[None] * I] * B] * T, TypeError, "x has dtype object, expected real numbers .*"),
    ([[[1j] * I] * B] * T, TypeError, "x has dtype complex128, expected real numbers .*"),
    ("abc", TypeError, "x has dtype <U3, expected real numbers .*"),
    (None, TypeError, "x has dtype object, expected real numbers .*"),
    ({"x": 1}, TypeError, "x has dtype object, expected real numbers .*"),
    ([[1.0, 2.0], [3.0]], TypeError, "x is not an array of numbers: .*"),
    (Bad(), TypeError, "x is not an array of numbers: no"),
]

X = zeros(T, B, I)
STATES = r"\(num_layers\*D, B, H\) = \(1, 3, 6\)"

WRONG_H: list[tuple[Any, type[Exception], str]] = [
    (zeros(B, H), ValueError, rf"h0 has shape \(3, 6\), expected {STATES}"),
    (zeros(1, B, H + 1), ValueError, rf"h0 has shape \(1, 3, 7\), expected {STATES}"),
    (zeros(1, B + 1, H), ValueError, rf"h0 has shape \(1, 4, 6\), expected {STATES}"),
    (zeros(2, B, H), ValueError, rf"h0 has shape \(2, 3, 6\), expected {STATES}"),
    (zeros(B, 1, H), ValueError, rf"h0 has shape \(3, 1, 6\), expected {STATES}"),
    (0.0, ValueError, rf"h0 has shape \(\), expected {STATES}"),
    (zeros(1, B, H, dtype="float64"), TypeError, "h0 has dtype float64, expected float32, the .*"),
    (zeros(1, B, H, dtype="complex128"), TypeError, "h0 has dtype complex128, expected float32.*"),
    ("h0", TypeError, "h0 has dtype <U2, expected real numbers .*"),
    ([zeros(1, B, H), zeros(2, B, H)], TypeError, "h0 is not an array of numbers: .*"),
]

WRONG_PAIR: list[tuple[Any, type[Exception], str]] = [
    (
        zeros(1, B, H),
        TypeError,
        r"state is a ndarray of shape \(1, 3, 6\), expected a pair \(h0, c0\)",
    ),
    (zeros(2, 1, B, H), TypeError, r"state is a ndarray of shape .*, expected a pair \(h0, c0\)"),
    (3, TypeError, r"state is 3 \(int\), expected a pair \(h0, c0\)"),
    ("hc", TypeError, r"state is 'hc' \(str\), expected a pair \(h0, c0\)"),
    ({"h": 1, "c": 2}, TypeError, r"state is \{.*\} \(dict\), expected a pair \(h0, c0\)"),
    ((zeros(1, B, H),), ValueError, "state has 1 entries, expected two: h0, c0"),
    ((), ValueError, "state has 0 entries, expected two: h0, c0"),
    ((zeros(1, B, H),) * 3, ValueError, "state has 3 entries, expected two: h0, c0"),
    (
        (zeros(1, B, H), zeros(1, B, H + 1)),
        ValueError,
        rf"c0 has shape \(1, 3, 7\), expected {STATES}",
    ),
    (
        (zeros(1, B, H), zeros(1, B, H, dtype="float64")),
        TypeError,
        r"c0 has dtype float64, expected float32, the layer's dtype: "
        r'\.astype\("float32"\) converts it',
    ),
    *(((h, zeros(1, B, H)), error, message) for h, error, message in WRONG_H),
]

WRONG_LENGTHS: list[tuple[Any, type[Exception], str]] = [
    ([5, 6, 5], ValueError, r"lengths\[1\] is 6, expected 0 to 5, the time steps of x"),
    ([5, 5, -1], ValueError, r"lengths\[2\] is -1, expected 0 to 5, .*"),
    (np.array([0, 1, 2**63], "uint64"), ValueError, r"lengths\[2\] is 9223372036854775808, .*"),
    ([5, 5], ValueError, r"lengths has shape \(2,\), expected \(B,\) = \(3,\)"),
    (5, ValueError, r"lengths has shape \(\), expected \(B,\) = \(3,\)"),
    ([[5, 5, 5]], ValueError, r"lengths has shape \(1, 3\), expected \(B,\) = \(3,\)"),
    ([], ValueError, r"lengths has shape \(0,\), expected \(B,\) = \(3,\)"),
    ([5.0, 5.0, 5.0], TypeError, "lengths has dtype float64, expected integers"),
    ([True, True, True], TypeError, "lengths has dtype bool, expected integers"),
    ([None, 1, 2], TypeError, "lengths has dtype object, expected integers"),
    ("555", TypeError, "lengths has dtype <U3, expected integers"),
    ([5, 5, 2**70], TypeError, "lengths has dtype object, expected integers"),
    ([5, [5], 5], TypeError, "lengths is not an array of numbers: .*"),
]

WRONG_RESETS: list[tuple[Any, type[Exception], str]] = [
    (zeros(T, B), TypeError, "resets has dtype float32, expected bool"),
    (zeros(T, B, dtype="int8"), TypeError, "resets has dtype int8, expected bool"),
    ([[0] * B] * T, TypeError, "resets has dtype int64, expected bool"),
    (zeros(B, T, dtype="bool"), ValueError, r"resets has shape \(3, 5\), expected \(T, B\) = .*"),
    (zeros(T, dtype="bool"), ValueError, r"resets has shape \(5,\), expected \(T, B\) = \(5, 3\)"),
    (True, ValueError, r"resets has shape \(\), expected \(T, B\) = \(5, 3\)"),
    ("resets", TypeError, "resets has dtype <U6, expected bool"),
]

CALLS = [
    (kind, kwargs, error, message)
    for kind, name, cases in (
        *((kind, "x", WRONG_X) for kind in LAYERS),
        (lc.RNN, "state", WRONG_H),
        (lc.GRU, "state", WRONG_H),
        (lc.LSTM, "state", WRONG_PAIR),
        *((kind, "lengths", WRONG_LENGTHS) for kind in LAYERS),
        *((kind, "resets", WRONG_RESETS) for kind in LAYERS),
    )
    for value, error, message in cases
    for kwargs in ({name: value},)
]


def snapshot(layer: Any) -> list[Any]:
    return [array for p in layer.parameters() for array in (p.data.copy(), p.grad.copy())]


def assert_unchanged(layer: Any, before: list[Any]) -> None:
    for one, other in zip(snapshot(layer), before, strict=True):
        assert_same_bits(one, other)


@pytest.mark.parametrize(("kind", "kwargs", "error", "message"), CALLS)
def test_calls(kind: Any, kwargs: dict[str, Any], error: type[Exception], message: str) -> None:
    layer = kind(I, H, seed=0)
    good, _ = layer(X)
    before = snapshot(layer)
    arguments = {"x": X, **kwargs}
    refuses(error, message, layer.forward, **arguments)
    x, state = arguments.pop("x"), arguments.pop("state", None)
    refuses(error, message, layer, x, state, **arguments)
    assert_unchanged(layer, before)
    assert_same_bits(layer(X)[0], good)


def test_axes_are_named_as_they_are() -> None:
    first = lc.LSTM(I, H, 2, bidirectional=True, proj_size=2, batch_first=True)
    refuses(ValueError, r"x has shape \(4,\), expected \(B, T, 4\) or \(T, 4\)", first, zeros(4))
    message = r"resets has shape \(5, 3\), expected \(B, T\) = \(3, 5\)"
    refuses(ValueError, message, first, zeros(B, T, I), resets=zeros(T, B, dtype="bool"))
    message = r"h0 has shape \(3, 4, 2\), expected \(num_layers\*D, B, P\) = \(4, 3, 2\)"
    refuses(ValueError, message, first, zeros(B, T, I), (zeros(B, 4, 2), None))
    message = r"c0 has shape \(3, 4, 6\), expected \(num_layers\*D, B, H\) = \(4, 3, 6\)"
    refuses(ValueError, message, first, zeros(B, T, I), (None, zeros(B, 4, 6)))


def test_unbatched() -> None:
    layer = lc.LSTM(I, H)
    x = zeros(T, I)
    message = r"h0 has shape \(1, 1, 6\), expected \(num_layers\*D, H\) = \(1, 6\)"
    refuses(ValueError, message, layer, x, (zeros(1, 1, H), None))
    refuses(ValueError, r"lengths has shape \(2,\), expected one integer", layer, x, lengths=[5, 5])
    refuses(ValueError, r"lengths\[0\] is 6, expected 0 to 5, .*", layer, x, lengths=6)
    refuses(TypeError, "lengths has dtype float64, expected integers", layer, x, lengths=5.0)
    refuses(TypeError, "lengths has dtype bool, expected integers", layer, x, lengths=True)
    message = r"resets has shape \(5, 1\), expected \(T,\) = \(5,\)"
    refuses(ValueError, message, layer, x, resets=zeros(T, 1, dtype="bool"))


@pytest.mark.parametrize("kind", CELLS)
def test_cells(kind: Any) -> None:
    cell = kind(I, H, seed=0)
    x = zeros(B, I)
    good = cell(x)
    before = snapshot(cell)

    def pair(h: Any) -> Any:
        return (h, None) if kind is lc.LSTMCell else h

    wrong: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((zeros(B, I + 1),), ValueError, r"x has shape \(3, 5\), expected \(B, 4\) or \(4,\)"),
        ((zeros(T, B, I),), ValueError, r"x has shape \(5, 3, 4\), expected \(B, 4\) or \(4,\)"),
        ((zeros(B, I, dtype="float64"),), TypeError, "x has dtype float64, expected float32.*"),
        (
            (x, pair(zeros(1, B, H))),
            ValueError,
            r"hx(\[0\])? has shape .*, expected \(B, H\) = \(3, 6\)",
        ),
        (
            (x, pair(zeros(H))),
            ValueError,
            r"hx(\[0\])? has shape \(6,\), expected \(B, H\) = \(3, 6\)",
        ),
        (
            (x[0], pair(zeros(1, H))),
            ValueError,
            r"hx(\[0\])? has shape \(1, 6\), expected \(H,\) = \(6,\)",
        ),
    ]
    if kind is lc.LSTMCell:
        wrong += [
            ((x, zeros(B, H)), TypeError, r"hx is a ndarray .*, expected a pair .*"),
            (
                (x, (None, zeros(B))),
                ValueError,
                r"hx\[1\] has shape \(3,\), expected \(B, H\) = .*",
            ),
        ]
    for args, error, message in wrong:
        refuses(error, message, cell, *args)
        refuses(error, message, cell.forward, *args)
    state, tape = cell.forward(x)
    message = r"dh has shape \(6,\), expected \(B, H\) = \(3, 6\)"
    refuses(ValueError, message, cell.backward, tape, pair(zeros(H)))
    assert_unchanged(cell, before)
    for one, other in zip(np.array(cell(x)), np.array(good), strict=True):
        assert_same_bits(one, other)
    assert np.array(state).shape == np.array(good).shape


# Backward -----------------------------------------------------------------------------------------

WRONG_DY: list[tuple[Any, type[Exception], str]] = [
    (zeros(T, B, H + 1), ValueError, r"dy has shape \(5, 3, 7\), expected .* = \(5, 3, 6\)"),
    (zeros(B, T, H), ValueError, r"dy has shape \(3, 5, 6\), expected .* = \(5, 3, 6\)"),
    (zeros(T, H), ValueError, r"dy has shape \(5, 6\), expected the shape of y = \(5, 3, 6\)"),
    (1.0, ValueError, r"dy has shape \(\), expected the shape of y = \(5, 3, 6\)"),
    (zeros(T, B, H, dtype="float64"), TypeError, "dy has dtype float64, expected float32.*"),
    ("dy", TypeError, "dy has dtype <U2, expected real numbers .*"),
]


@pytest.mark.parametrize("kind", LAYERS)
def test_gradients(kind: Any) -> None:
    layer = kind(I, H, seed=0)
    for p in layer.parameters():
        p.grad += 7
    y, state, tape = layer.forward(X)
    before = snapshot(layer)
    wrong: list[tuple[tuple[Any, ...], type[Exception], str]] = [
        ((tape, dy, None), error, message) for dy, error, message in WRONG_DY
    ]
    states = WRONG_PAIR if kind is lc.LSTM else WRONG_H
    for value, error, message in states:
        for ours, theirs in (("state is", "dstate is"), ("state has", "dstate has")):
            message = message.replace(ours, theirs)
        message = message.replace("h0", "dh").replace("c0", "dc").replace("<U2", "<U[0-9]")
        wrong.append(((tape, y, value), error, message))
    wrong += [
        ((None, y, None), TypeError, r"tape is None \(NoneType\), expected a Tape from forward"),
        ((y, y, None), TypeError, r"tape is a ndarray of shape .*, expected a Tape from forward"),
    ]
    for args, error, message in wrong:
        refuses(error, message, layer.backward, *args)
    assert_unchanged(layer, before)
    layer.backward(tape, y, state)


def test_tapes_of_others() -> None:
    layer, twin = lc.GRU(I, H, seed=0), lc.GRU(I, H, seed=0)
    cell = lc.GRUCell(I, H, seed=0)
    before = snapshot(layer)
    y, _, tape = twin.forward(X)
    message = r"tape was made by another layer, GRU\(4, 6\), expected one made by this one"
    refuses(ValueError, message, layer.backward, tape, y)
    _, cell_tape = cell.forward(X[0])
    message = r"tape was made by another layer, GRUCell\(4, 6\), expected one made by this one"
    refuses(ValueError, message, layer.backward, cell_tape, y)
    message = r"tape was made by another layer, GRU\(4, 6\), expected one made by this one"
    refuses(ValueError, message, cell.backward, tape, zeros(B, H))
    assert_unchanged(layer, before)


# NaN is not bad input -----------------------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, 1e-40])
def test_any_number_is_computed_with(value: float) -> None:
    """And stays in the row it is in."""
    for kind in LAYERS:
        layer = kind(I, H, seed=0)
        x = np.ones((T, B, I), "float32")
        good, _ = layer(x)
        x[1, 1, 1] = value
        y, _, tape = layer.forward(x)
        assert_same_bits(y[:, [0, 2]], good[:, [0, 2]])
        assert_same_bits(y[0, 1], good[0, 1])
        assert np.isnan(y[1:, 1]).any() == np.isnan(value)
        layer.backward(tape, y)


# In a process of its own, where a crash would be seen ---------------------------------------------


def test_nothing_crashes() -> None:
    code = """
import numpy as np, lstmcore as lc
made = 0
for kind in (lc.RNN, lc.GRU, lc.LSTM, lc.RNNCell, lc.GRUCell, lc.LSTMCell):
    for size in (0, -1, 10**13, 2**62, 2**63 - 1, 10**40, 1.5, None, "a"):
        for sizes in ((size, 1), (1, size), (size, size)):
            try:
                kind(*sizes)
                made += 1
            except (ValueError, TypeError, MemoryError):
                pass
print(made, "made")
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "0 made\n"


@pytest.mark.parametrize(
    ("kind", "options", "name"),
    [
        ("LSTM", {"cell_clip": 1e-39}, "cell_clip"),
        ("LSTM", {"cell_clip": 1e39}, "cell_clip"),
        ("LSTM", {"forget_bias": 1e39}, "forget_bias"),
        ("RNN", {"nonlinearity": ("scaled_tanh", 1e-39, 1.0)}, "nonlinearity"),
        ("RNN", {"nonlinearity": ("scaled_tanh", 1.0, 1e39)}, "nonlinearity"),
        ("GRU", {"activations": ("sigmoid", ("scaled_tanh", 1e39, 1.0))}, r"activations\[1\]"),
    ],
)
def test_numbers_that_the_dtype_cannot_hold(kind, options, name):
    with pytest.raises(ValueError, match=rf"^{name}.*float32"):
        getattr(lc, kind)(3, 4, **options)
    getattr(lc, kind)(3, 4, dtype="float64", **options)


@pytest.mark.parametrize("sizes", [(10**400, 4), (3, 10**400), (3, 4, 10**400)])
def test_sizes_beyond_any_float(sizes):
    with pytest.raises(MemoryError, match="input_size"):
        lc.LSTM(*sizes)


def test_read_only_gradient_is_named():
    gru = lc.GRU(2, 3)
    y, _, tape = gru.forward(np.zeros((2, 1, 2), "float32"))
    gru.parameters()[1].grad.flags.writeable = False
    with pytest.raises(ValueError, match=r"weight_hh_l0\.grad is read-only"):
        gru.backward(tape, y)
    assert not any(p.grad.any() for p in gru.parameters())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_core_takes_arrays_only(dtype):
    layer = lc.RNN(3, 4, dtype=dtype)
    arrays = [p.data for p in layer.parameters()]
    y, _, tape = layer.forward(zeros(2, 1, 3, dtype=dtype))
    lists = [array.tolist() for array in arrays]
    with pytest.raises(TypeError):
        lc._core.pack(layer._spec, lists, False)
    with pytest.raises(TypeError):
        lc._core.backward(tape._core, y, None, None, lists)
    for wrong in (arrays[:-1], [*arrays, arrays[0]]):
        with pytest.raises(ValueError, match=r"^parameters: too (few|many) arrays"):
            lc._core.pack(layer._spec, wrong, False)


def test_more_threads_than_any_machine_has(threads):
    lc.set_num_threads(10**30)
    assert lc.get_num_threads() <= lc._core.max_threads()


# What a layer returns, in the place of an array ---------------------------------------------------

GIVEN = zeros(T, B, H)
SEVERAL = {
    "gru": lambda x: lc.GRU(H, H)(x),
    "lstm": lambda x: lc.LSTM(H, H)(x),
    "masking": lambda x: lc.Masking()(x),
    "attention": lambda x: lc.attention.ScaledDotProduct()(x, x, x),
}
TAKES_ONE: dict[str, Callable[[Any, Any], Any]] = {
    "linear": lambda x, y: lc.Linear(H, 2)(y),
    "layer": lambda x, y: lc.GRU(H, 2)(y),
    "cell": lambda x, y: lc.LSTMCell(H, 2)(y),
    "forward": lambda x, y: lc.Linear(H, 2).forward(y),
    "pooling": lambda x, y: lc.LastStep()(y),
    "sequential": lambda x, y: lc.Sequential(lc.ReLU())(y),
    "model": lambda x, y: lc.Model(i := lc.Input(H), lc.ReLU()(i))(y),
    "attention": lambda x, y: lc.attention.ScaledDotProduct()(x, y, y),
    "concat": lambda x, y: lc.concat([x, y]),
    "concat first": lambda x, y: lc.concat([y, x]),
    "repeat": lambda x, y: lc.repeat(lc.Input(2, steps=False), like=y),
    "loss": lambda x, y: lc.losses.mse(y, GIVEN),
}


@pytest.mark.parametrize("kind", SEVERAL)
@pytest.mark.parametrize("place", TAKES_ONE)
@pytest.mark.parametrize("x", [GIVEN, lc.Input(H)], ids=["array", "symbol"])
def test_tuples_of_layers_are_named(kind: str, place: str, x: Any) -> None:
    message = (
        ".* is a tuple of 2, such as the .y, state. that a .*, expected one array: take its .0."
    )
    refuses(TypeError, message, TAKES_ONE[place], x, SEVERAL[kind](x))


def test_tuples_of_layers_are_named_in_sums_and_data() -> None:
    i, gru = lc.Input(H), lc.GRU(H, H)
    for total in (lambda: i + gru(i), lambda: gru(i) + i, lambda: i - gru(i), lambda: i * gru(i)):
        refuses(TypeError, "what is to .* is a tuple of 2, .*: take its .0.", total)
    refuses(ValueError, r"concat, .*; of \(y, state\), .* \[0\] is y", lc.concat, gru(i))
    sgd = lc.optim.SGD(gru.parameters(), lr=0.1)
    refuses(
        TypeError, "x of batch 0 of data is a tuple of 2, .*: take its .0.",
        lambda: lc.fit(gru, (gru(GIVEN), GIVEN), loss="mse", optimizer=sgd),
    )  # fmt: skip


def test_one_step_is_not_taken_for_two_arrays() -> None:
    """y and h of one step have one shape, and NumPy would stack them."""
    one, gru = GIVEN[:1], lc.GRU(H, H)
    for x in (one, one[:, 0]):
        refuses(TypeError, "x is a tuple of 2, .*: take its .0.", lc.Linear(H, 2), gru(x))
    assert lc.Linear(H, 2)((one, one, one)).shape == (3, 1, B, 2)
    assert lc.Linear(H, 2)([one, one]).shape == (2, 1, B, 2)


@pytest.mark.parametrize("make", LAYERS)
def test_all_that_a_layer_returns_is_no_state(make: Any) -> None:
    layer, i = make(H, H), lc.Input(H)
    refuses(
        TypeError, r".* of \(y, .*|.* is \(y, \(h, c.*take its \[1\]", layer, GIVEN, layer(GIVEN)
    )
    refuses(ValueError, r".*its state has steps; of \(y, state\), .*", layer, i, layer(i))
