"""Weights in the layouts of other libraries: recorded layers of TensorFlow 1, Haiku and Flax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.paths import DATA
from lstmcore._files.layouts import LAYOUTS, OURS, reordered
from lstmcore._nn.config import KINDS, Config

STORED = np.load(DATA / "layouts.npz")
X, LENGTHS = STORED["tf1/x"], STORED["tf1/lengths"]  # (B, T, I), (B,)
JAX_X = STORED["jax/x"]  # (T, B, I)


def arrays(prefix: str) -> dict[str, np.ndarray]:
    return {
        name.removeprefix(prefix): STORED[name] for name in STORED.files if name.startswith(prefix)
    }


def close(mine: Any, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)


# TensorFlow 1 -------------------------------------------------------------------------------------


def basic(cell: dict[str, np.ndarray], **options: Any) -> dict[str, Any]:
    return lc.convert_weights(
        "tensorflow1", "lstm", kernel=cell["kernel"], bias=cell["bias"], **options
    )


def test_basic_lstm_cell() -> None:
    cell, recorded = arrays("tf1/basic/rnn/basic_lstm_cell/"), arrays("tf1/basic/")
    lstm = lc.LSTM(4, 5, batch_first=True)
    lstm.load_state_dict(basic(cell))
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])
    close(c[0], recorded["c"])
    # The constant is in no file: without it everything is something else.
    lstm.load_state_dict(basic(cell, forget_bias=0.0))
    assert np.abs(lstm(X, lengths=LENGTHS)[0] - recorded["y"]).max() > 0.01


def test_lstm_cell_with_peepholes_projection_and_clip() -> None:
    cell, recorded = arrays("tf1/lstm/rnn/lstm_cell/"), arrays("tf1/lstm/")
    peepholes = [cell[f"w_{gate}_diag"] for gate in "ifo"]
    lstm = lc.LSTM(4, 5, batch_first=True, peephole=True, proj_size=3, cell_clip=0.7)
    lstm.load_state_dict(basic(cell, peepholes=peepholes, projection=cell["projection/kernel"]))
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])
    close(c[0], recorded["c"])
    assert np.abs(c).max() == np.float32(0.7)


def test_block_lstm() -> None:
    recorded = arrays("tf1/block/")
    lstm = lc.LSTM(4, 5, peephole=True, cell_clip=3.0)
    peepholes = [recorded[f"w_{gate}_diag"] for gate in "ifo"]
    lstm.load_state_dict(basic(recorded, peepholes=peepholes))
    y, (_, c) = lstm(X.swapaxes(0, 1))
    close(y, recorded["y"])
    close(c[0], recorded["c"])


def test_bidirectional_dynamic_rnn() -> None:
    recorded, root = arrays("tf1/bi/"), "tf1/bi/bidirectional_rnn/"
    state = basic(arrays(f"{root}fw/basic_lstm_cell/"))
    other = basic(arrays(f"{root}bw/basic_lstm_cell/"))
    lstm = lc.LSTM(4, 5, batch_first=True, bidirectional=True)
    lstm.load_state_dict(state | {f"{name}_reverse": array for name, array in other.items()})
    y, (h, c) = lstm(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h, recorded["h"])
    close(c, recorded["c"])


def test_gru_cell() -> None:
    cell, recorded = arrays("tf1/gru/rnn/gru_cell/"), arrays("tf1/gru/")
    gru = lc.GRU(4, 5, batch_first=True, reset_after=False)
    parts = ("gates", "candidate")  # r and z, and n by itself
    gru.load_state_dict(
        lc.convert_weights(
            "tensorflow1",
            "gru",
            kernel=[cell[f"{part}/kernel"] for part in parts],
            bias=[cell[f"{part}/bias"] for part in parts],
        )
    )
    y, h = gru(X, lengths=LENGTHS)
    close(y, recorded["y"])
    close(h[0], recorded["h"])


# Haiku and Flax -----------------------------------------------------------------------------------


def haiku_lstm() -> None:
    given = arrays("haiku_lstm/lstm/linear/")
    lstm = lc.LSTM(4, 5)
    lstm.load_state_dict(lc.convert_weights("haiku", "lstm", kernel=given["w"], bias=given["b"]))
    close(lstm(JAX_X)[0], STORED["haiku_lstm/y"])


def haiku_gru() -> None:
    given = arrays("haiku_gru/gru/")
    gru = lc.GRU(4, 5, reset_after=False)
    gru.load_state_dict(
        lc.convert_weights("haiku", "gru", w_ih=given["w_i"], w_hh=given["w_h"], bias=given["b"])
    )
    close(gru(JAX_X)[0], STORED["haiku_gru/y"])


def flax(kind: str) -> None:
    cell, gates = arrays(f"flax_{kind}/cell/"), LAYOUTS["flax"].order(kind)
    layer: Any = {"lstm": lc.LSTM, "gru": lc.GRU}[kind](4, 5)
    state = lc.convert_weights(
        "flax",
        kind,
        w_ih=[cell[f"i{gate}/kernel"] for gate in gates],
        w_hh=[cell[f"h{gate}/kernel"] for gate in gates],
        bias=[cell.get(f"i{gate}/bias", np.zeros(5, "f4")) for gate in gates],
        bias_hh=[cell.get(f"h{gate}/bias") for gate in gates],
    )
    layer.load_state_dict(state)
    close(layer(JAX_X)[0].swapaxes(0, 1), STORED[f"flax_{kind}/y"])


JAX = {
    "haiku-lstm": haiku_lstm,
    "haiku-gru": haiku_gru,
    "flax-lstm": lambda: flax("lstm"),
    "flax-gru": lambda: flax("gru"),
}


@pytest.mark.parametrize("case", JAX)
def test_jax(case: str) -> None:
    JAX[case]()


@pytest.mark.parametrize(
    ("case", "change"),
    [
        ("haiku-lstm", {"lstm": "ifgo"}),
        ("haiku-lstm", {"lstm": "igof"}),
        ("haiku-lstm", {"forget_bias": 0.0}),
        ("haiku-gru", {"gru": "rzn"}),
        ("haiku-gru", {"z_of_new": False}),
    ],
    ids=str,
)
def test_a_wrong_layout_would_be_noticed(
    case: str, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    library = case.partition("-")[0]
    monkeypatch.setitem(LAYOUTS, library, LAYOUTS[library]._replace(**change))
    with pytest.raises(AssertionError):
        JAX[case]()


# What has no recorded layer -----------------------------------------------------------------------


def test_orders_are_those_of_the_documentation() -> None:
    """Of libraries without recorded numbers here; their letters are ours: c is g, h is n."""
    for library, lstm, gru in (
        ("onnx", "iofg", "zrn"),  # operators LSTM, W[iofc], and GRU, W[zrh]
        ("openvino", "figo", "zrn"),  # LSTMSequence, fico, and GRUSequence, zrh
        ("caffe", "ifog", ""),  # lstm_unit_layer.cpp
        ("keras", "ifgo", "zrn"),  # LSTMCell, i, f, c, o, and GRUCell, z, r, h
        ("pytorch", "ifgo", "rzn"),  # LSTM, (W_ii|W_if|W_ig|W_io), and GRU, (W_ir|W_iz|W_in)
    ):
        assert (LAYOUTS[library].lstm, LAYOUTS[library].gru) == (lstm, gru), library


@pytest.mark.parametrize("library", LAYOUTS)
@pytest.mark.parametrize("cell", ["rnn", "lstm", "gru"])
def test_every_layout_by_its_definition(library: str, cell: str) -> None:
    """Arrays whose blocks hold the place of their gate, as a library would have them."""
    layout = LAYOUTS[library]
    theirs, ours = layout.order(cell), OURS.order(cell)
    if not theirs:
        with pytest.raises(ValueError, match=f"cell is '{cell}', expected one of .* of {library}"):
            lc.convert_weights(library, cell, w_ih=np.ones((1, 1)), w_hh=np.ones((1, 1)))
        return
    inputs, H = 2, 3

    def weight(columns: int) -> np.ndarray:
        rows = [np.full((H, columns), 1.0 + ours.index(gate)) for gate in theirs]
        matrix = np.concatenate(rows) + np.arange(columns) / 8
        return matrix.T if layout.inputs_first else matrix

    bias = np.concatenate([np.full(H, 1.0 + ours.index(gate)) for gate in theirs])
    w_ih, w_hh = weight(inputs), weight(H)
    state = lc.convert_weights(library, cell, w_ih=w_ih, w_hh=w_hh, bias=bias, suffix="_l1")
    expected = np.repeat(np.arange(1.0, len(ours) + 1), H)
    expected_bias = expected.copy()
    sign = np.ones_like(expected)
    if cell == "lstm":
        expected_bias[H : 2 * H] += layout.forget_bias
    if cell == "gru" and layout.z_of_new:
        sign[H : 2 * H] = -1
    for name, columns in (("weight_ih_l1", inputs), ("weight_hh_l1", H)):
        matrix = sign[:, None] * (expected[:, None] + np.arange(columns) / 8)
        np.testing.assert_array_equal(state.pop(name), matrix)
    np.testing.assert_array_equal(state.pop("bias_ih_l1"), sign * expected_bias)
    assert not state.pop("bias_hh_l1").any()
    assert not state
    joined = np.concatenate([w_ih, w_hh], axis=0 if layout.inputs_first else 1)
    again = lc.convert_weights(library, cell, kernel=joined, bias=bias)
    apart = lc.convert_weights(library, cell, w_ih=w_ih, w_hh=w_hh, bias=bias)
    assert again.keys() == apart.keys()
    for name, array in again.items():
        assert_same_bits(array, apart[name])


@pytest.mark.parametrize("kind", KINDS)
def test_ours_is_the_order_of_the_parameters(kind: str) -> None:
    config = Config(kind, 1, 2)
    assert config.gate_order == OURS.order(kind)
    assert dict(config.shapes())["weight_hh_l0"] == (2 * len(config.gate_order), 2)


def test_there_and_back() -> None:
    rng = np.random.default_rng(0)
    for axis in (0, 1, -1):
        array = rng.standard_normal((12, 12))
        for order in ("ifgo", "iofg", "figo", "igfo", "ogfi"):
            other = reordered(array, "ifgo", order, axis)
            assert_same_bits(reordered(other, order, "ifgo", axis), array)
    with_zeros = reordered(np.arange(1.0, 7), "igo", "iofg")
    np.testing.assert_array_equal(with_zeros, [1, 2, 5, 6, 0, 0, 3, 4])
    np.testing.assert_array_equal(reordered(with_zeros, "iofg", "igo"), np.arange(1.0, 7))
    with pytest.raises(ValueError, match=r"shape \(5,\) has no 4 blocks, i, o, f, g"):
        reordered(np.zeros(5), "iofg", "ifgo")


def test_no_biases_but_what_a_library_adds() -> None:
    kernel = np.zeros((3, 8))
    assert list(lc.convert_weights("keras", "lstm", kernel=kernel)) == [
        "weight_ih_l0", "weight_hh_l0",
    ]  # fmt: skip
    state = lc.convert_weights("haiku", "lstm", kernel=kernel)
    np.testing.assert_array_equal(state["bias_ih_l0"], [0, 0, 1, 1, 0, 0, 0, 0])
    assert not state["bias_hh_l0"].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("cntk", "lstm"), "library is 'cntk', expected one of pytorch, "),
        (("caffe", "gru"), "cell is 'gru', expected one of lstm, rnn of caffe"),
        (("keras", "lstm"), "expected kernel alone, or the two others"),
    ],
    ids=["library", "cell", "nothing given"],
)
def test_what_is_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.convert_weights(*arguments)
    for given, expected in (
        ({"kernel": np.ones((3, 8)), "w_ih": np.ones((2, 4))}, "kernel alone"),
        ({"w_ih": np.ones((2, 4))}, "kernel alone"),
        ({"kernel": np.ones((3, 8), "i4")}, "kernel is int32, expected real numbers"),
        ({"kernel": np.ones(8)}, r"kernel has shape \(8,\), expected two axes"),
        ({"kernel": np.ones((3, 8)), "bias": [None]}, "bias is a list of nothing"),
        ({"kernel": np.ones((3, 8)), "bias": np.ones(7)}, r"\(7,\) has no 4 blocks"),
    ):
        with pytest.raises(ValueError, match=expected):
            lc.convert_weights("haiku", "lstm", **given)
