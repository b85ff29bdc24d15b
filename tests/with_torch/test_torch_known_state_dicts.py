"""State dicts with the names that well-known recurrent models have, against PyTorch's layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

torch = require("torch")
from torch import nn  # noqa: E402


def arrays(module: Any, prefix: str = "") -> dict[str, Any]:
    return {prefix + name: t.detach().numpy() for name, t in module.state_dict().items()}


def same(ours: Any, theirs: Any) -> None:
    x = torch.randn(5, 2, theirs.input_size)
    with torch.no_grad():
        expected, _ = theirs(x)
    np.testing.assert_allclose(ours(x.numpy())[0], expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("inside", ["module.", ""])
def test_weight_drop_of_awd_lstms(inside: str) -> None:
    """The raw weight is all of it; beside it may be what dropout left in the last step."""
    torch.manual_seed(0)
    layer = nn.LSTM(4, 6)
    whole = arrays(layer, f"rnns.0.{inside}")
    raw = whole[f"rnns.0.{inside}weight_hh_l0"]
    remains = np.where(np.arange(raw.size).reshape(raw.shape) % 2, raw, 0)
    others = {k: v for k, v in whole.items() if not k.endswith("weight_hh_l0")}
    fastai = {"encoder.weight": np.ones((9, 4), "f4"), **others, "rnns.0.weight_hh_l0_raw": raw}
    for state in (
        fastai,
        {**fastai, f"rnns.0.{inside}weight_hh_l0": remains},
        {f"rnns.0.{inside}weight_hh_l0": remains, **fastai},
    ):
        with pytest.raises(ValueError, match="fold_norms"):
            lc.LSTM.from_state_dict(state, prefix=f"rnns.0.{inside}")
        folded = lc.torch.fold_norms(state)
        assert not any(name.endswith("_raw") for name in folded)
        same(lc.LSTM.from_state_dict(folded, prefix=f"rnns.0.{inside}"), layer)


def test_raw_weights_within_the_layer_they_are_of() -> None:
    """As the first scripts for AWD-LSTMs wrote them: in the wrapped module itself."""
    layer = nn.LSTM(4, 6)
    state = arrays(layer, "rnns.0.module.")
    state["rnns.0.module.weight_hh_l0_raw"] = state.pop("rnns.0.module.weight_hh_l0")
    with pytest.raises(ValueError, match=r"no prefix at all; lstmcore.torch.fold_norms"):
        lc.LSTM.from_state_dict(state, prefix="rnns.0.module.")
    same(lc.LSTM.from_state_dict(lc.torch.fold_norms(state), prefix="rnns.0.module."), layer)


def test_names_of_a_cell_are_told_from_those_of_a_layer() -> None:
    cell = nn.GRUCell(3, 4)
    with pytest.raises(ValueError, match="those of a cell, to which a layer adds _l0"):
        lc.GRU.from_state_dict(arrays(cell))
    layer = lc.GRU.from_state_dict({f"{k}_l0": v for k, v in arrays(cell).items()})
    x, h = torch.randn(1, 2, 3), torch.randn(2, 4)
    with torch.no_grad():
        expected = cell(x[0], h).numpy()
    np.testing.assert_allclose(layer(x.numpy(), h.numpy()[None])[1][0], expected, atol=1e-6)


def test_names_of_another_module_with_the_same_arrays() -> None:
    tagger = nn.ModuleDict(
        {"word_embeds": nn.Embedding(9, 4), "lstm": nn.LSTM(4, 5), "hidden2tag": nn.Linear(5, 2)}
    )
    model = lc.Sequential(lc.Embedding(9, 4), lc.LSTM(4, 5), lc.Linear(5, 2))
    state = arrays(tagger)
    with pytest.raises(ValueError, match=r"in this order the arrays fit .* dict\(zip\(model"):
        model.load_state_dict(state)
    model.load_state_dict(dict(zip(model.state_dict(), state.values(), strict=True)))
    same(model[1], tagger["lstm"])
    with pytest.raises(ValueError, match="state_dict does not fit") as error:
        model.load_state_dict(dict(reversed(state.items())))
    assert "in this order" not in str(error.value)


@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_a_speaker_encoder() -> None:
    layer = nn.LSTM(40, 16, 3, batch_first=True, proj_size=8)
    checkpoint = {"model_state": arrays(layer, "lstm."), "step": 3}
    ours = lc.LSTM.from_state_dict(checkpoint["model_state"], prefix="lstm.", batch_first=True)
    same(ours, layer)
