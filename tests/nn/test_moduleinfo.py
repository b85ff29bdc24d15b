"""PyTorch's own sample inputs: the same outputs and gradients here, and the same wrong calls."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.paths import DATA

INFO = json.loads((DATA / "torch_moduleinfo.json").read_text(encoding="utf-8"))
CASES, ERRORS = INFO["cases"], INFO["error_cases"]


def test_all_cases_are_here() -> None:
    assert len(CASES) == 167
    assert len(ERRORS) == 58


# Right calls --------------------------------------------------------------------------------------


@cache
def arrays() -> dict[str, dict[str, Any]]:
    """All arrays by case, then by name."""
    result: dict[str, dict[str, Any]] = {}
    with np.load(DATA / "torch_moduleinfo.npz") as file:
        for key in file.files:
            case, _, name = key.rpartition("/")
            result.setdefault(case, {})[name] = file[key]
    return result


def state(found: dict[str, Any], name: str) -> Any:
    """A state, if it is there, as an array or a pair."""
    if f"{name}.0" in found:
        return found[f"{name}.0"], found[f"{name}.1"]
    return found.get(name)


def flat(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["key"])
def test_outputs_and_gradients(case: dict[str, Any]) -> None:
    found = arrays()[case["key"]]
    layer = getattr(lc, case["module"])(*case["args"], **case["kwargs"], dtype="float64")
    parameters = {k: v for k, v in found.items() if k.startswith("param.")}
    layer.load_state_dict(parameters, prefix="param.")
    x, initial = found["in0"], state(found, "in1")
    outputs = [found[f"out{i}"] for i in range(3) if f"out{i}" in found]
    gradients = [found[f"gout{i}"] for i in range(len(outputs))]
    is_cell = case["module"].endswith("Cell")

    if is_cell:
        inferred = flat(layer(x, initial))
        final, tape = layer.forward(x, initial)
        trained = flat(final)
        dstate = tuple(gradients) if len(gradients) > 1 else gradients[0]
        dx, dinitial = layer.backward(tape, dstate)
    else:
        y, final = layer(x, initial)
        inferred = (y, *flat(final))
        y, final, tape = layer.forward(x, initial)
        trained = (y, *flat(final))
        dstate = tuple(gradients[1:]) if len(gradients) > 2 else gradients[1]
        dx, dinitial = layer.backward(tape, gradients[0], dstate)

    assert len(inferred) == len(trained) == len(outputs)
    for ours, again, theirs in zip(inferred, trained, outputs, strict=True):
        assert ours.shape == theirs.shape
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-10)
        assert_same_bits(again, ours)

    wanted = {k.removeprefix("grad."): v for k, v in found.items() if k.startswith("grad.")}
    got = {f"param.{name}": p.grad for name, p in layer.named_parameters()} | {"in0": dx}
    if isinstance(dinitial, tuple):
        got |= {"in1.0": dinitial[0], "in1.1": dinitial[1]}
    else:
        got["in1"] = dinitial
    assert set(wanted) <= set(got)
    assert set(got) - set(wanted) <= {"in1", "in1.0", "in1.1"}  # where they gave no state
    assert {"in0", *(f"param.{name}" for name, _ in layer.named_parameters())} <= set(wanted)
    for name, theirs in wanted.items():
        assert got[name].shape == theirs.shape
        np.testing.assert_allclose(got[name], theirs, rtol=0, atol=1e-10, err_msg=name)


# Wrong calls --------------------------------------------------------------------------------------

# Their message, and what must be in ours; {0}, {1}, ... are the groups of theirs.
MESSAGES = (
    (r"inconsistent input_size: got (\d+)", ("x has shape (3, {0})", "expected (B, 10)")),
    (
        r"inconsistent hidden_size: got (\d+)",
        ("hx", " has shape (3, {0})", "expected (B, H) = (3, 20)"),
    ),
    (r"Input batch size 3 doesn't", ("hx", " has shape (5, 20)", "expected (B, H) = (3, 20)")),
    (r"to be 1D or 2D, got 4D", ("hx", " has shape (3, 1, 1, 20)", "expected (B, H) = (3, 20)")),
    (r"(\w+) must be greater than zero", ("{0} is ", "expected at least 1")),
    (r"RNN input dtype", ("x has dtype float32", "expected float64")),
    (r"(\w+) should be of type bool, got: (\w+)", ("{0} is ", "({1})", "expected a bool")),
    (r"(\w+) should be of type int, got: (\w+)", ("{0} is ", "({1})", "expected an int")),
)


def our_fragments(theirs: str) -> list[str]:
    """What our message must say, too."""
    for pattern, fragments in MESSAGES:
        match = re.search(pattern, theirs)
        if match:
            return [fragment.format(*match.groups()) for fragment in fragments]
    raise AssertionError(theirs)


def values(case: dict[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """Their constructor's arguments, stored as text: a str only if the message says so."""
    match = re.search(r"(\w+) should be of type \w+, got: str", case["regex"])
    text = match.group(1) if match else None

    def value(name: str, written: str) -> Any:
        if name == text:
            return written
        try:
            return ast.literal_eval(written)
        except ValueError:  # relu, tanh, torch.float64
            return written.removeprefix("torch.")

    names = ("input_size", "hidden_size", "third")
    args = [value(name, arg) for name, arg in zip(names, case["args"], strict=False)]
    assert len(args) == len(case["args"])
    kwargs = {name: value(name, arg) for name, arg in case["kwargs"].items()}
    assert kwargs.pop("device", "cpu") == "cpu"  # there is no other here
    return args, kwargs


def inputs(case: dict[str, Any]) -> list[Any]:
    """Their inputs in float32, the dtype of layers unless that is the point; only shapes count."""
    result: list[Any] = []
    for given in case["inputs"]:
        if isinstance(given, list):
            result.append(np.ones(given, np.float32))
        else:  # a pair of tensors, as printed
            plain = re.sub(r"tensor|,\s*dtype=torch\.float64", "", given)
            result.append(tuple(np.array(part, np.float32) for part in ast.literal_eval(plain)))
    return result


@pytest.mark.parametrize("number", range(len(ERRORS)))
def test_wrong_calls(number: int) -> None:
    case = ERRORS[number]
    args, kwargs = values(case)
    make = getattr(lc, case["module"])
    fragments = our_fragments(case["regex"])

    def refused(call: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        with pytest.raises((ValueError, TypeError)) as caught:
            call(*args, **kwargs)
        for fragment in fragments:
            assert fragment in str(caught.value)

    if not case["inputs"]:
        refused(make, *args, **kwargs)
        return
    if len(args) == 3:  # Cell(10, 20, "relu"), which they take for a truthy bias
        with pytest.raises(TypeError, match=f"bias is '{args[2]}' .str., expected a bool"):
            make(*args, **kwargs)
        args = args[:2]
    layer = make(*args, **kwargs)
    refused(layer, *inputs(case))
    refused(layer.forward, *inputs(case))
