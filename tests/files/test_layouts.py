"""Weights in the layouts of TensorFlow 1, Haiku and Flax, by what docs/weights.md says of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import pages
from helpers.paths import DATA

STORED = np.load(DATA / "layouts.npz")
X, LENGTHS = STORED["tf1/x"], STORED["tf1/lengths"]  # (B, T, I), (B,)
JAX_X = STORED["jax/x"]  # (T, B, I)


@pytest.fixture(scope="module")
def page() -> dict[str, Any]:
    """The functions that the page shows."""
    return pages.run("docs/weights.md")


def arrays(prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): STORED[name] for name in STORED.files if name.startswith(prefix)
    }


def close(mine: Any, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)


# TensorFlow 1 -------------------------------------------------------------------------------------


def basic(page: dict[str, Any], cell: dict[str, np.ndarray], **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = page["lstm_of_tensorflow_1"](cell["kernel"], cell["bias"], **options)
    return found


def test_basic_lstm_cell(page: dict[str, Any]) -> None:
    cell, recorded = arrays("tf1/basic/rnn/basic_lstm_cell/"), arrays("tf1/basic/")
    lstm = lc.LSTM(4, 5, batch_first=True)
    lstm.load_state_dict(basic(page, cell))
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])
    close(c[0], recorded["c"])
    # The constant is in no file: without it everything is something else.
    lstm.load_state_dict(basic(page, cell, forget_bias=0.0))
    assert np.abs(lstm(X, lengths=LENGTHS)[0] - recorded["y"]).max() > 0.01


def test_lstm_cell_with_peepholes_projection_and_clip(page: dict[str, Any]) -> None:
    cell, recorded = arrays("tf1/lstm/rnn/lstm_cell/"), arrays("tf1/lstm/")
    peepholes = [cell[f"w_{gate}_diag"] for gate in "ifo"]
    lstm = lc.LSTM(4, 5, batch_first=True, peephole=True, proj_size=3, cell_clip=0.7)
    lstm.load_state_dict(
        basic(page, cell, peepholes=peepholes, projection=cell["projection/kernel"])
    )
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])
    close(c[0], recorded["c"])
    assert np.abs(c).max() == np.float32(0.7)


def test_block_lstm(page: dict[str, Any]) -> None:
    recorded = arrays("tf1/block/")
    lstm = lc.LSTM(4, 5, peephole=True, cell_clip=3.0)
    peepholes = [recorded[f"w_{gate}_diag"] for gate in "ifo"]
    lstm.load_state_dict(basic(page, recorded, peepholes=peepholes))
    y, (_, c) = lstm(X.swapaxes(0, 1))
    close(y, recorded["y"])
    close(c[0], recorded["c"])


def test_bidirectional_dynamic_rnn(page: dict[str, Any]) -> None:
    recorded, root = arrays("tf1/bi/"), "tf1/bi/bidirectional_rnn/"
    state = basic(page, arrays(f"{root}fw/basic_lstm_cell/"))
    other = basic(page, arrays(f"{root}bw/basic_lstm_cell/"))
    lstm = lc.LSTM(4, 5, batch_first=True, bidirectional=True)
    lstm.load_state_dict(state | {f"{name}_reverse": array for name, array in other.items()})
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h, recorded["h"])
    close(c, recorded["c"])


def test_gru_cell(page: dict[str, Any]) -> None:
    cell, recorded = arrays("tf1/gru/rnn/gru_cell/"), arrays("tf1/gru/")
    names = ("gates/kernel", "gates/bias", "candidate/kernel", "candidate/bias")
    gru = lc.GRU(4, 5, batch_first=True, reset_after=False)
    gru.load_state_dict(page["gru_of_tensorflow_1"](*(cell[name] for name in names)))
    y, h = gru(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])


# Haiku and Flax -----------------------------------------------------------------------------------


def test_haiku_lstm(page: dict[str, Any]) -> None:
    given, reordered = arrays("haiku_lstm/lstm/linear/"), page["reordered"]
    bias = reordered(given["b"], "igfo", "ifgo")
    bias[5:10] += 1
    lstm = lc.LSTM(4, 5)
    lstm.load_state_dict(
        {
            "weight_ih_l0": reordered(given["w"][:4], "igfo", "ifgo"),
            "weight_hh_l0": reordered(given["w"][4:], "igfo", "ifgo"),
            "bias_ih_l0": bias,
            "bias_hh_l0": np.zeros(20),
        }
    )
    close(lstm(JAX_X)[0], STORED["haiku_lstm/y"])


def test_haiku_gru_whose_update_gate_is_the_other_way_round(page: dict[str, Any]) -> None:
    given = arrays("haiku_gru/gru/")
    w_ih, w_hh, bias = (page["reordered"](given[n], "zrn", "rzn") for n in ("w_i", "w_h", "b"))
    for array in (w_ih, w_hh, bias):
        array[5:10] *= -1
    gru = lc.GRU(4, 5, reset_after=False)
    gru.load_state_dict(
        {
            "weight_ih_l0": w_ih,
            "weight_hh_l0": w_hh,
            "bias_ih_l0": bias,
            "bias_hh_l0": np.zeros(15),
        }
    )
    close(gru(JAX_X)[0], STORED["haiku_gru/y"])


@pytest.mark.parametrize(("kind", "gates"), [("lstm", "ifgo"), ("gru", "rzn")])
def test_flax_with_one_array_per_gate(kind: str, gates: str) -> None:
    cell, zeros = arrays(f"flax_{kind}/cell/"), np.zeros(5, "float32")
    state = {
        f"{name}_{side}h_l0": np.concatenate(
            [cell.get(f"{side}{gate}/{theirs}", zeros) for gate in gates], axis=-1
        ).T
        for side in "ih"
        for name, theirs in (("weight", "kernel"), ("bias", "bias"))
    }
    layer: Any = {"lstm": lc.LSTM, "gru": lc.GRU}[kind](4, 5)
    layer.load_state_dict(state)
    close(layer(JAX_X)[0].swapaxes(0, 1), STORED[f"flax_{kind}/y"])
