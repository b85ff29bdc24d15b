"""Every variant at every ISA level against the float64 reference, over many shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.numeric import assert_same_bits
from helpers.variants import (
    CELLS,
    STACKS,
    Cell,
    Options,
    assert_close,
    cells,
    make,
    reference_forward,
    reference_step,
    stacks,
    states_of,
    train_step,
)
from lstmcore import _core, reference

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 22, 27, 31, 32, 33, 63, 65, 100]
quick = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def compare(
    kind: str,
    options: dict[str, Any],
    shape: tuple[int, int, int, int],
    dtype: str,
    seed: int,
    *,
    ragged: bool = False,
    with_resets: bool = False,
    zero_state: bool = False,
) -> None:
    T, B, I, H = shape  # noqa: E741
    if options.get("proj_size", 0) >= H:
        options = {**options, "proj_size": 0}
    rng = np.random.default_rng(seed)
    layer = make(kind, I, H, seed, dtype=dtype, **options)
    x = rng.standard_normal((T, B, I)).astype(dtype)
    state = None if zero_state else states_of(layer, B, rng)
    sequences: dict[str, Any] = {}
    if ragged:
        sequences["lengths"] = rng.integers(0, T + 1, B)
    if with_resets:
        sequences["resets"] = rng.random((T, B)) < 0.3
    y, _ = layer(x, state if kind == "LSTM" or state is None else state[0], **sequences)
    dy = rng.standard_normal(y.shape).astype(dtype)
    dstate = states_of(layer, B, rng)
    ours = train_step(layer, x, state, dy, dstate, **sequences)
    truth = reference_step(layer, options, x, state, dy, dstate, **sequences)
    tolerance = 1e-11 if dtype == "float64" else 2e-5
    if layer._config.draws:
        expected, _, _ = reference_forward(layer, options, x, state, **sequences)
        np.testing.assert_allclose(y, expected, rtol=0, atol=tolerance)
    else:
        assert ours.outputs["y"].tobytes() == y.tobytes()  # inference gives the bits of training
    assert_close(ours, truth, tolerance)


@cells
@stacks
def test_every_variant(isa: str, cell: Cell, stack: Options) -> None:
    kind, options = cell
    for seed, shape in enumerate([(6, 5, 3, 7), (3, 2, 9, 17)]):
        for ragged in (False, True):
            compare(
                kind,
                {**options, **stack},
                shape,
                "float64",
                seed,
                ragged=ragged,
                with_resets=ragged,
            )


@quick
@given(
    cell=st.sampled_from(CELLS),
    stack=st.sampled_from(STACKS),
    shape=st.tuples(
        st.sampled_from([0, 1, 2, 3, 5, 12]),
        st.sampled_from([0, 1, 2, 3, 7, 8, 13]),
        st.sampled_from(SIZES),
        st.sampled_from(SIZES),
    ),
    dtype=st.sampled_from(["float32", "float64"]),
    seed=st.integers(0, 2**31),
    flags=st.tuples(st.booleans(), st.booleans(), st.booleans()),
)
def test_shapes(
    isa: str,
    cell: Cell,
    stack: Options,
    shape: tuple[int, int, int, int],
    dtype: str,
    seed: int,
    flags: tuple[bool, bool, bool],
) -> None:
    kind, options = cell
    compare(
        kind,
        {**options, **stack},
        shape,
        dtype,
        seed,
        ragged=flags[0],
        with_resets=flags[1],
        zero_state=flags[2],
    )


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_long_chunks(isa: str, kind: str) -> None:
    """More steps than one chunk of the input product or of the gates' gradients holds."""
    compare(kind, {"num_layers": 2}, (300, 3, 4, 70), "float64", 1, ragged=True)
    compare(kind, {"bidirectional": True}, (120, 40, 3, 40), "float64", 2, ragged=True)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_all_lengths_zero(isa: str, kind: str) -> None:
    rng = np.random.default_rng(0)
    layer = make(kind, 3, 5, bidirectional=True, num_layers=2)
    x = np.full((4, 3, 3), np.nan, "float32")
    state, dstate = states_of(layer, 3, rng), states_of(layer, 3, rng)
    dy = np.full((4, 3, 10), np.nan, "float32")
    result = train_step(layer, x, state, dy, dstate, lengths=[0, 0, 0])
    assert not result.outputs["y"].any()
    assert not result.gradients["dx"].any()
    for name, first in zip("hc", state, strict=False):
        assert_same_bits(result.outputs[name], first)
    for name, last in zip(("dh0", "dc0"), dstate, strict=False):
        assert_same_bits(result.gradients[name], last)
    for p in layer.parameters():
        assert not p.grad.any()


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("hidden", [8, 64, 100])
def test_float32_stays_near_the_truth(isa: str, kind: str, hidden: int) -> None:
    """Outputs within 2e-5 of float64 for inputs of unit scale and a hundred steps."""
    rng = np.random.default_rng(3)
    layer = make(kind, hidden, hidden, 1)
    x = rng.standard_normal((100, 4, hidden)).astype("float32")
    y, _ = layer(x)
    dy, dstate = np.zeros_like(y), states_of(layer, 4, rng)
    truth = reference_step(layer, {}, x, None, dy, dstate)
    assert np.abs(y - truth.outputs["y"]).max() < 2e-5
    ours = train_step(layer, x, None, dy, dstate)
    assert_close(ours, truth, 2e-5)


def test_dropout_matches_the_reference_with_its_mask(isa: str) -> None:
    rng = np.random.default_rng(0)
    for options in ({"num_layers": 3}, {"num_layers": 2, "bidirectional": True, "merge": "mul"}):
        layer = make("GRU", 3, 6, 5, dtype="float64", dropout=0.4, **options)
        x = rng.standard_normal((5, 4, 3))
        lengths = [5, 0, 3, 2]
        y, h, tape = layer.forward(x, lengths=lengths)
        dy = rng.standard_normal(y.shape)
        dh = rng.standard_normal(h.shape)
        dx, dh0 = layer.backward(tape, dy, dh)
        masks = [
            _core.dropout_mask(tape._core.dropout_key, layer_index, 5, 4, 6, 0.4) / 0.6
            for layer_index in range(options["num_layers"] - 1)
        ]
        assert 0.3 < np.mean(np.array(masks) > 0) < 0.9
        ry, rh, rtape = reference.gru_forward(
            x, None, layer.state_dict(), lengths=lengths, dropout_masks=masks, **options
        )
        rdx, rdh0, grads = reference.gru_backward(rtape, dy, dh)
        for ours, truth in ((y, ry), (h, rh), (dx, rdx), (dh0, rdh0)):
            np.testing.assert_allclose(ours, truth, atol=1e-12)
        for p in layer.parameters():
            np.testing.assert_allclose(p.grad, grads[p.name], atol=1e-11)


def test_dropout_is_seeded_and_off_in_inference() -> None:
    x = np.random.default_rng(0).standard_normal((6, 2, 4)).astype("float32")
    make_one = lambda seed: make("LSTM", 4, 8, seed, num_layers=2, dropout=0.5)  # noqa: E731
    a, b, other = make_one(1), make_one(1), make_one(2)
    other.load_state_dict(a.state_dict())
    first, second = a.forward(x)[0], a.forward(x)[0]
    assert not np.array_equal(first, second)
    assert_same_bits(first, b.forward(x)[0])
    assert_same_bits(second, b.forward(x)[0])
    assert not np.array_equal(first, other.forward(x)[0])
    plain = make("LSTM", 4, 8, 1, num_layers=2)
    assert_same_bits(a(x)[0], plain(x)[0])


def test_tape_shows_gates_and_cells() -> None:

    rng = np.random.default_rng(0)
    layer = make("LSTM", 3, 5, bidirectional=True, dtype="float64")
    x = rng.standard_normal((4, 2, 3))
    y, (_, c), tape = layer.forward(x, lengths=[4, 2])
    gates, cells = tape.gates(), tape.cells()
    assert list(gates) == ["i", "f", "g", "o"]
    assert cells.shape == gates["i"].shape == (2, 4, 2, 5)
    h = y.reshape(4, 2, 2, 5).transpose(2, 0, 1, 3)
    np.testing.assert_allclose(gates["o"] * np.tanh(cells), h, atol=1e-15)
    assert_same_bits(cells[0, 3, 0], c[0, 0])
    assert_same_bits(cells[0, 1, 1], c[0, 1])
    assert not cells[:, 2:, 1].any()
    assert not gates["f"][:, 2:, 1].any()
    assert tape.nbytes == 2 * 5 * 4 * 2 * 5 * 8  # directions, (gates and cell) H, T, B, double
