"""Dropout inside recurrent layers, and zoneout: what is drawn, and what it means."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from helpers.variants import masks_of
from lstmcore import _core

KINDS = ("RNN", "LSTM", "GRU")
USES = ("between_layers", "input", "hidden", "zone_h", "zone_c")
kinds = pytest.mark.parametrize("kind", KINDS)


def x_of(T: int, B: int, features: int = 3, dtype: str = "float64") -> np.ndarray:
    return np.random.default_rng(T * 100 + B).standard_normal((T, B, features)).astype(dtype)


# What is drawn ------------------------------------------------------------------------------------


def mix(z: np.ndarray) -> np.ndarray:
    """SplitMix64."""
    z = z + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@pytest.mark.parametrize("use", USES)
def test_masks_are_a_function_of_key_place_and_nothing_else(use: str) -> None:
    key, part, p = 2**63 + 12345, 3, 0.3
    T, B, features = 4, 5, 9
    got = _core.dropout_mask(key, part, T, B, features, p, use)
    at = np.arange(features, dtype=np.uint64)
    place = np.uint64(USES.index(use) << 48 | part)
    for t in range(T):
        for b in range(B):
            with np.errstate(over="ignore"):
                stream = mix(
                    mix(mix(np.array([key], np.uint64) + place) + np.uint64(t)) + np.uint64(b)
                )
                bits = mix(stream + at * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
            np.testing.assert_array_equal(got[t, b], bits >= int(p * 2**32))


def test_masks_of_uses_parts_steps_and_rows_differ_and_have_the_rate() -> None:
    masks = [
        _core.dropout_mask(1, part, 3, 4, 2000, 0.25, use) for use in USES for part in range(3)
    ]
    rows = np.concatenate([mask.reshape(-1, 2000) for mask in masks]).astype(float)
    assert np.abs(rows.mean(axis=1) - 0.75).max() < 0.05
    between = np.corrcoef(rows) - np.eye(len(rows))
    assert np.abs(between).max() < 0.15


@kinds
@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
def test_a_row_has_its_masks_in_any_batch_and_with_any_padding(
    kind: str, options: dict[str, Any], threads: None
) -> None:
    """Row 0 of a batch is row 0 alone; steps behind its end change nothing."""
    given = {"input_dropout": 0.3, "recurrent_dropout": 0.4, "zoneout": 0.2, **options}
    given["weight_dropout"] = 0.1
    x = x_of(9, 33, dtype="float32")
    lengths = np.random.default_rng(0).integers(1, 10, 33)
    lengths[0] = 6
    found = []
    for steps, batch, count in ((9, 33, 1), (9, 33, 2), (9, 1, 2), (6, 1, 1), (6, 5, 2)):
        lc.set_num_threads(count)
        layer = getattr(lc, kind)(3, 17, seed=4, **given)
        y, _, tape = layer.forward(x[:steps, :batch], lengths=np.minimum(lengths[:batch], steps))
        dy = np.zeros_like(y)
        dy[:6, 0] = 1
        dx, _ = layer.backward(tape, dy)
        grads = [p.grad.copy() for p in layer.parameters()]
        found.append((y[:6, 0].copy(), dx[:6, 0].copy(), *(grads if batch == 1 else ())))
    for other in found[1:]:
        assert_same_bits(found[0][:2], other[:2])
    assert_same_bits(found[2], found[3])


@kinds
def test_every_forward_draws_anew_from_the_stream_of_the_seed(kind: str) -> None:
    for name in ("input_dropout", "recurrent_dropout", "weight_dropout", "zoneout"):
        options = {name: 0.5}
        x = x_of(6, 2)
        one, same, other = (
            getattr(lc, kind)(3, 8, dtype="float64", seed=seed, **options) for seed in (1, 1, 2)
        )
        other.load_state_dict(one.state_dict())
        first, second = one.forward(x)[0], one.forward(x)[0]
        assert not np.array_equal(first, second)
        assert_same_bits((first, second), (same.forward(x)[0], same.forward(x)[0]))
        assert not np.array_equal(first, other.forward(x)[0])
        plain = getattr(lc, kind)(3, 8, dtype="float64", seed=1)
        assert_same_bits(plain.state_dict(), one.state_dict())
        if "zoneout" not in options:
            assert_same_bits(one(x)[0], plain(x)[0])


@kinds
def test_what_is_dropped_is_not_read(kind: str) -> None:
    """A feature with NaN that the mask drops leaves no trace."""
    layer = getattr(lc, kind)(4, 5, seed=0, input_dropout=0.5)
    x = x_of(3, 6, 4, "float32")
    _, _, tape = layer.forward(x)
    kept = masks_of(layer, tape._core.dropout_key, 3, 6)["input_masks"][0] > 0
    assert 0 < kept.mean() < 1
    again = getattr(lc, kind)(4, 5, seed=0, input_dropout=0.5)
    spoiled = np.where(kept, x, np.nan).astype("float32")
    y, _, tape = again.forward(spoiled)
    dx, _ = again.backward(tape, np.ones_like(y))
    assert np.isfinite(y).all()
    assert np.isfinite(dx).all()
    assert not dx[:, ~kept].any()
    assert all(np.isfinite(p.grad).all() for p in again.parameters())


# What it means ------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
@kinds
def test_zoneout_is_that_of_a_loop_over_torch_cells(kind: str, training: bool) -> None:
    """Outputs and, through autograd, every gradient."""
    torch = require("torch")
    T, B, H = 6, 4, 5
    zoneout = (0.3, 0.2) if kind == "LSTM" else 0.3
    layer = getattr(lc, kind)(3, H, dtype="float64", zoneout=zoneout, seed=0)
    cell = getattr(torch.nn, f"{kind}Cell")(3, H, dtype=torch.float64)
    cell.load_state_dict(
        {name.removesuffix("_l0"): torch.tensor(v) for name, v in layer.state_dict().items()}
    )
    x = torch.tensor(x_of(T, B), requires_grad=True)
    parts = 2 if kind == "LSTM" else 1
    start = [torch.randn(B, H, dtype=torch.float64).requires_grad_() for _ in range(parts)]
    ours = tuple(s.detach().numpy()[None] for s in start)
    state = ours if parts == 2 else ours[0]
    if training:
        y, _, tape = layer.forward(x.detach().numpy(), state)
        kept = masks_of(layer, tape._core.dropout_key, T, B)["zoneout_masks"]
        shares = [torch.tensor(k[0]) for k in (kept if parts == 2 else (kept,))]
    else:
        y, _ = layer(x.detach().numpy(), state)
        shares = [torch.full((T, 1, 1), p, dtype=torch.float64) for p in layer._config.zoneouts]
    now, ys = start, []
    for t in range(T):
        made = cell(x[t], tuple(now) if parts == 2 else now[0])
        made = list(made) if parts == 2 else [made]
        now = [
            share[t] * before + (1 - share[t]) * new
            for share, before, new in zip(shares, now, made, strict=False)
        ]
        ys.append(now[0])
    whole = torch.stack(ys)
    np.testing.assert_allclose(y, whole.detach().numpy(), rtol=0, atol=1e-13)
    if not training:
        return
    dy = torch.randn(T, B, H, dtype=torch.float64)
    whole.backward(dy)
    dx, dstate = layer.backward(tape, dy.numpy())
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=0, atol=1e-12)
    for given, expected in zip(dstate if parts == 2 else (dstate,), start, strict=True):
        np.testing.assert_allclose(given[0], expected.grad.numpy(), rtol=0, atol=1e-12)
    for name, p in cell.named_parameters():
        mine = next(q for q in layer.parameters() if q.name == f"{name}_l0")
        np.testing.assert_allclose(mine.grad, p.grad.numpy(), rtol=0, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("options", [{}, {"num_layers": 2, "bidirectional": True}])
@kinds
def test_weight_dropout_is_the_layer_with_masked_weights(
    kind: str, options: dict[str, Any]
) -> None:
    """Outputs to the bit; the gradients of W_hh are those of the masked one, masked."""
    layer = getattr(lc, kind)(3, 7, weight_dropout=0.4, dtype="float64", seed=0, **options)
    x, lengths = x_of(5, 4), [5, 2, 0, 4]
    y, last, tape = layer.forward(x, lengths=lengths)
    plain = getattr(lc, kind)(3, 7, dtype="float64", **options)
    masks = tape._masks
    for mask in masks.values():
        assert set(np.unique(mask)) == {0, 1 / 0.6}
        assert 0.4 < np.mean(mask > 0) < 0.8
    weights = layer.state_dict()
    plain.load_state_dict({n: w * masks[n] if n in masks else w for n, w in weights.items()})
    expected, _, plain_tape = plain.forward(x, lengths=lengths)
    assert_same_bits(y, expected)
    dx, dstate = layer.backward(tape, y, last)
    other_dx, other_dstate = plain.backward(plain_tape, y, last)
    assert_same_bits((dx, dstate), (other_dx, other_dstate))
    again = {p.name: p.grad.copy() for p in layer.parameters()}
    for mine, other in zip(layer.parameters(), plain.parameters(), strict=True):
        expected = other.grad * masks[mine.name] if mine.name in masks else other.grad
        np.testing.assert_array_equal(mine.grad, expected)
    layer.backward(tape, y, last)  # gradients add up
    for p in layer.parameters():
        np.testing.assert_allclose(p.grad, 2 * again[p.name], rtol=1e-12, atol=1e-13)
    assert_same_bits(layer.state_dict(), weights)
    assert tape.nbytes > sum(mask.nbytes for mask in masks.values())


@kinds
def test_gradients_with_weight_dropout_are_finite_differences(kind: str) -> None:
    layer = getattr(lc, kind)(2, 3, weight_dropout=0.3, dtype="float64", seed=1)
    x = x_of(6, 2, 2)
    dy = np.random.default_rng(1).standard_normal((6, 2, 3))

    def value() -> Any:
        layer._dropout_rng = np.random.default_rng(3)
        return layer.forward(x)

    _, _, tape = value()
    layer.backward(tape, dy)
    for p in layer.parameters():
        direction = np.random.default_rng(2).standard_normal(p.shape)
        start, step = p.data.copy(), 1e-6 * direction
        p.data = start + step
        more = float(np.sum(value()[0] * dy))
        p.data = start - step
        less = float(np.sum(value()[0] * dy))
        p.data = start
        assert float(np.sum(p.grad * direction)) == pytest.approx((more - less) / 2e-6, rel=1e-6)


@kinds
def test_weights_of_inference_are_whole_after_training(kind: str) -> None:
    layer, plain = (getattr(lc, kind)(3, 8, seed=0, weight_dropout=p) for p in (0.5, 0.0))
    x = x_of(4, 2, dtype="float32")
    layer.forward(x)
    assert_same_bits(layer(x)[0], plain(x)[0])
    assert_same_bits(layer.stream(2).process(x), plain(x)[0])


@kinds
def test_zoneout_in_cells_and_streams(kind: str) -> None:
    zoneout = (0.1, 0.3) if kind == "LSTM" else 0.2
    layer = getattr(lc, kind)(3, 11, seed=0, zoneout=zoneout)
    x = x_of(8, 3, dtype="float32")
    y, _ = layer(x)
    stream = layer.stream(3)
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), y)
    assert_same_bits(layer.stream(3).process(x), y)
    pool = layer.stream_pool(4)
    ids = [pool.open() for _ in range(3)]
    assert_same_bits(np.stack([pool.step(ids, x_t).copy() for x_t in x]), y)
    cell = getattr(lc, f"{kind}Cell")(3, 11, seed=0, zoneout=zoneout)
    state: Any = None
    for t in range(8):
        state = cell(x[t], state)
        assert_same_bits(state[0] if kind == "LSTM" else state, y[t])
    first, tape = cell.forward(x[0])
    assert not np.array_equal(first, cell.forward(x[0])[0])
    cell.backward(tape, first)


@kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_recompute_gives_the_same_bits(kind: str, dtype: str) -> None:
    options = {
        "input_dropout": 0.3, "recurrent_dropout": 0.2, "weight_dropout": 0.2, "zoneout": 0.25
    }  # fmt: skip
    x = x_of(10, 3, dtype=dtype)
    results = []
    for recompute in (False, True):
        layer = getattr(lc, kind)(3, 9, num_layers=2, dtype=dtype, seed=3, **options)
        y, last, tape = layer.forward(x, lengths=[10, 3, 7], recompute=recompute)
        dx, dstate = layer.backward(tape, y, last)
        results.append((y, last, dx, dstate, [p.grad.copy() for p in layer.parameters()]))
    assert_same_bits(*results)


@kinds
def test_files_keep_the_options(kind: str, tmp_path: Any) -> None:
    zoneout = (0.1, 0.0) if kind == "LSTM" else 0.1
    layer = getattr(lc, kind)(
        3, 5, input_dropout=0.1, recurrent_dropout=0.2, weight_dropout=0.3, zoneout=zoneout, seed=0
    )
    lc.save(layer, tmp_path / "layer.safetensors")
    back: Any = lc.load(tmp_path / "layer.safetensors")
    assert back == layer
    assert (back.input_dropout, back.recurrent_dropout, back.zoneout) == (0.1, 0.2, zoneout)


# Contradictions and bad values --------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["input_dropout", "recurrent_dropout", "weight_dropout", "zoneout"]
)
@pytest.mark.parametrize("value", [1, 1.5, -0.1, float("nan")])
@kinds
def test_probabilities_are_below_one(kind: str, name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name} is .*expected (0 <= {name} < 1|a finite)"):
        getattr(lc, kind)(2, 3, **{name: value})


def test_zoneout_of_c_is_for_the_lstm() -> None:
    for kind in ("RNN", "GRU", "RNNCell", "GRUCell"):
        with pytest.raises(ValueError, match=r"zoneout is \(0.1, 0.2\), expected one number"):
            getattr(lc, kind)(2, 3, zoneout=(0.1, 0.2))
    with pytest.raises(ValueError, match="zoneout has 3 entries, expected two"):
        lc.LSTM(2, 3, zoneout=(0.1, 0.2, 0.3))
    assert lc.LSTM(2, 3, zoneout=0.1)._config.zoneouts == (0.1, 0.1)


def test_rows_of_a_table_are_looked_up_unless_each_step_has_a_mask() -> None:
    ids = np.array([[0, 1], [2, 2], [1, 0]])
    for p in (0.0, 0.4):
        model = lc.Sequential(
            lc.Embedding(3, 4, seed=0), lc.GRU(4, 5, seed=1, input_dropout=p, recurrent_dropout=0.2)
        )
        y, tape = model.forward(ids)
        model.zero_grad()
        model.backward(tape, np.ones_like(y))
        layer: Any = lc.GRU(4, 5, seed=1, input_dropout=p, recurrent_dropout=0.2)
        x = model[0](ids)
        other, _, tape = layer.forward(x)
        layer.backward(tape, np.ones_like(other))
        np.testing.assert_allclose(y, other, rtol=0, atol=1e-6)
        for a, b in zip(model[1].parameters(), layer.parameters(), strict=True):
            np.testing.assert_allclose(a.grad, b.grad, rtol=0, atol=1e-5)
