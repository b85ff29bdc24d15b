"""Layers made from the names and shapes in a state dict, and what errors suggest."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.paths import DATA
from helpers.variants import CELLS, STACKS, name_of

# What shapes do not tell, and has to be given.
TOLD = {"peephole", "proj_size", "bias", "num_layers", "bidirectional", "layer_norm"}


@pytest.mark.parametrize("stack", STACKS, ids=name_of)
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant(kind: str, options: dict[str, Any], stack: dict[str, Any]) -> None:
    layer = getattr(lc, kind)(3, 5, seed=0, **options, **stack)
    given = {name: v for name, v in (options | stack).items() if name not in TOLD}
    given.pop("forget_bias", None)
    given.pop("dtype", None)
    for prefix in ("", "encoder.rnn."):
        state = {prefix + name: array for name, array in layer.state_dict().items()}
        state |= {"head.weight": np.ones(3)} if prefix else {}
        again = getattr(lc, kind).from_state_dict(state, prefix, **given)
        assert again.state_dict().keys() == layer.state_dict().keys()
        for name, array in layer.state_dict().items():
            np.testing.assert_array_equal(again.state_dict()[name], array)
        assert repr(again) == repr(layer) or "forget_bias" in options


def test_a_trained_model_by_its_prefix() -> None:
    weights = lc.load_torch(DATA / "uzmorph_bigru.pth")
    layer = lc.GRU.from_state_dict(weights, prefix="gru.", batch_first=True)
    assert repr(layer) == "GRU(64, 64, num_layers=2, batch_first=True, bidirectional=True)"
    wrapped = {f"module.{name}": array for name, array in weights.items()}
    assert lc.GRU.from_state_dict(wrapped, "gru.", batch_first=True) == layer
    assert lc.GRU.from_state_dict(wrapped, "module.gru.", batch_first=True) == layer
    assert lc.GRU.from_state_dict(
        {name: array.astype("float64") for name, array in weights.items()}, "gru."
    ).dtype == np.dtype("float64")


@pytest.mark.parametrize(
    ("kind", "state", "options", "error", "message"),
    [
        ("LSTM", lc.GRU(3, 4).state_dict(), {"bias": True}, TypeError, "bias: what is read off"),
        ("GRU", lc.LSTM(3, 4).state_dict(), {}, ValueError, r"expected \(3 \* .* it is of LSTM"),
        ("RNN", lc.GRU(3, 4).state_dict(), {}, ValueError, "it is of GRU"),
        ("LSTM", lc.LSTM(3, 4, coupled=True).state_dict(), {}, ValueError, "does not fit"),
        ("LSTM", lc.Linear(3, 4).state_dict(), {}, ValueError, "it has both with no prefix at all"),
        (
            "LSTM",
            lc.Sequential(lc.LSTM(3, 4), lc.LSTM(4, 4)).state_dict(),
            {},
            ValueError,
            r"lacks weight_ih_l0 or weight_hh_l0, and it has them with '0\.', '1\.'",
        ),
        ("LSTM", {"weight_ih_l0": 3, "weight_hh_l0": 4}, {}, ValueError, r"has shape \(\)"),
        ("LSTM", 3, {}, TypeError, "expected a mapping"),
        (
            "GRU",
            {"weight_ih_l0": np.ones((12, 3)), "weight_hh_l0_g": 1, "weight_hh_l0_v": 1},
            {},
            ValueError,
            "fold_norms",
        ),
    ],
    ids=[
        "bias given",
        "LSTM for GRU",
        "GRU for RNN",
        "coupled",
        "Linear",
        "two layers",
        "no shapes",
        "no mapping",
        "weight norm",
    ],
)
def test_what_is_no_such_layer(
    kind: str, state: Any, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        getattr(lc, kind).from_state_dict(state, **options)


def test_errors_suggest_what_would_fit() -> None:
    plain, both = lc.LSTM(3, 4), lc.LSTM(3, 4, 2, bidirectional=True, bias=False)
    model = lc.Sequential(lc.Embedding(9, 3), lc.LSTM(3, 4), lc.LSTM(4, 4)).state_dict()
    named = {f"net.encoder.{name}": array for name, array in plain.state_dict().items()}
    for layer, state, prefix, messages in (
        (plain, named, "", [r"with prefix='net\.encoder\.'"]),
        (plain, named, "encoder.", [r"with prefix='net\.encoder\.'"]),
        (plain, model, "", [r"with prefix='1\.' or prefix='2\.'"]),
        (
            plain,
            both.state_dict(),
            "",
            ["num_layers=2, the layer has 1", "bidirectional=True", "bias=False"],
        ),
        (
            both,
            plain.state_dict(),
            "",
            ["num_layers=1, the layer has 2", "bidirectional=False", "bias=True"],
        ),
        (plain, lc.LSTM(3, 4, peephole=True).state_dict(), "", ["peephole=True"]),
        (plain, lc.LSTM(3, 4, proj_size=2).state_dict(), "", ["those of a proj_size"]),
        (lc.LSTM(3, 4, proj_size=2), plain.state_dict(), "", ["those of no proj_size"]),
        (
            plain,
            {f"{name}_g": array for name, array in plain.state_dict().items()},
            "",
            ["fold_norms"],
        ),
        (lc.Linear(2, 3), {"head.weight": 1, "head.bias": 1}, "", [r"with prefix='head\.'"]),
    ):
        with pytest.raises(ValueError, match="does not fit") as caught:
            layer.load_state_dict(state, prefix=prefix)
        for message in messages:
            with pytest.raises(ValueError, match=message):
                raise caught.value
    with pytest.raises(ValueError, match="does not fit") as caught:
        lc.Linear(2, 3).load_state_dict({"x": np.ones(3)})
    assert "prefix" not in str(caught.value)


def test_a_network_is_told_which_prefix_each_module_has() -> None:
    lstm, head = lc.LSTM(3, 4, seed=0), lc.Linear(4, 2, seed=1)
    named = {f"lstm.{name}": array for name, array in lstm.state_dict().items()}
    named |= {f"head.fc.{name}": array for name, array in head.state_dict().items()}
    model = lc.Sequential(lc.LSTM(3, 4), lc.LastStep(), lc.Linear(4, 2))
    message = r"load into module 0 those with prefix='lstm\.', module 2 those with .*'head\.fc\.'"
    with pytest.raises(ValueError, match=message):
        model.load_state_dict(named)
    with pytest.raises(ValueError, match="missing") as error:
        model.load_state_dict({"lstm.weight": np.ones(3)})
    assert "one by one" not in str(error.value)


def test_a_path_is_no_state_dict() -> None:
    with pytest.raises(TypeError, match=r"expected a mapping: lstmcore\.load_torch reads one"):
        lc.Linear(4, 2).load_state_dict("model.pt")  # type: ignore[arg-type]


def test_a_state_dict_inside_of_another_is_found_by_its_prefix() -> None:
    layer = lc.LSTM(3, 4, seed=0)
    checkpoint = {"model": layer.state_dict(), "epoch": 3}
    message = r"state_dict\['model'\] is a mapping itself: give that, without prefix='model\.'"
    with pytest.raises(ValueError, match=message):
        lc.LSTM(3, 4).load_state_dict(checkpoint, prefix="model.")


def test_weights_in_int8_are_told_where_they_belong() -> None:
    model = lc.Sequential(lc.LSTM(3, 4, seed=0), lc.Linear(4, 2, seed=1))
    state = lc.quantize(model).state_dict()
    for refuse in (
        lambda: model.load_state_dict(state),
        lambda: model[1].load_state_dict(state, prefix="1."),
        lambda: lc.LSTM.from_state_dict(state, prefix="0."),
    ):
        with pytest.raises(ValueError, match=r"a model in int8: .* lstmcore\.quantize made"):
            refuse()
    small = lc.quantize(lc.Sequential(lc.LSTM(3, 4, seed=2), lc.Linear(4, 2, seed=3)))
    small.load_state_dict(state)
    with pytest.raises(ValueError, match="expected int8") as error:
        small.load_state_dict(model.state_dict())
    assert "a model in int8" not in str(error.value)
