"""The table of options, and the constructors that have them."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore._nn.config import KINDS, OPTIONS, Config, options_of

MODULES = [getattr(lc, kind.upper() + cell) for kind in KINDS for cell in ("", "Cell")]


def kind_of(module: Any) -> str:
    return module.__name__.removesuffix("Cell").lower()


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_constructors_have_the_options_of_the_table_with_its_defaults(module: Any) -> None:
    kind = kind_of(module)
    parameters = dict(inspect.signature(module).parameters)
    assert parameters.pop("seed").default is None
    assert set(parameters) == set(options_of(kind, module.__name__.endswith("Cell")))
    standard = Config(kind, 1, 2)
    for name, parameter in parameters.items():
        if name not in ("input_size", "hidden_size"):
            assert parameter.default == getattr(standard, name), name
        assert name in inspect.getdoc(module)  # type: ignore[operator]
        assert getattr(module(1, 2), name) == getattr(Config(kind, 1, 2), name)


# A value of each option that is not the default.
OTHER: dict[str, Any] = {
    "input_size": 5, "hidden_size": 6, "num_layers": 2, "nonlinearity": "relu", "bias": False,
    "batch_first": True, "dropout": 0.5, "input_dropout": 0.4, "recurrent_dropout": 0.3,
    "weight_dropout": 0.6, "zoneout": 0.2, "layer_norm": True, "bidirectional": True,
    "reverse": True, "merge": "sum",
    "proj_size": 1, "forget_gate": False, "coupled": True, "peephole": True, "cell_clip": 0.5,
    "gate_clip": 0.5, "reset_after": False, "activations": ("relu", "relu", "relu"),
    "forget_bias": 0.5, "dtype": np.dtype("float64"), "precision": "bfloat16",
}  # fmt: skip
NEEDS = {"merge": {"bidirectional": True}, "dropout": {"num_layers": 2}}


def test_every_option_is_tried() -> None:
    assert set(OTHER) == set(OPTIONS)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_options_arrive_or_are_refused(module: Any, name: str) -> None:
    value = OTHER[name]
    if name == "activations" and kind_of(module) == "gru":
        value = value[:2]
    if name not in inspect.signature(module).parameters:
        with pytest.raises(TypeError, match=name):
            module(1, 2, **{name: value})
        return
    made = module(**{"input_size": 1, "hidden_size": 2, **NEEDS.get(name, {}), name: value})
    assert getattr(made, name) == value
    text = repr(value.name if name == "dtype" else value)
    if name not in ("input_size", "hidden_size"):
        assert f", {name}={text}" in repr(made)
    if name == "precision":  # the only one that can be set
        made.precision = "float32"
        assert ", precision=" not in repr(made)
        return
    with pytest.raises(AttributeError, match=f"{name} is fixed"):
        setattr(made, name, value)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_description_refuses_the_options_of_other_kinds(kind: str, name: str) -> None:
    if name not in options_of(kind):
        with pytest.raises((TypeError, ValueError), match=name):
            Config(kind, 1, 2, **{name: OTHER[name]})


@pytest.mark.parametrize("name", OPTIONS)
def test_none_is_a_value_only_where_it_is_the_default(name: str) -> None:
    module = next(m for m in MODULES if name in inspect.signature(m).parameters)
    if name in ("activations", "cell_clip", "gate_clip", "forget_bias"):
        assert repr(module(1, 2, **{name: None})) == repr(module(1, 2))
        return
    with pytest.raises((TypeError, ValueError), match=f"{name} is None"):
        module(**{"input_size": 1, "hidden_size": 2, name: None})
