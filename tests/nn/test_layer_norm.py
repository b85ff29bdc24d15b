"""Layer normalisation inside recurrent layers and cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require
from helpers.variants import make, states_of

KINDS = ("RNN", "LSTM", "GRU")
kinds = pytest.mark.parametrize("kind", KINDS)


def randomised(kind: str, *sizes: int, **options: Any) -> Any:
    """A layer whose gains are no ones and whose c has a bias."""
    layer = make(kind, *sizes, layer_norm=True, **options)
    rng = np.random.default_rng(5)
    for p in layer.parameters():
        if "_ln_" in p.name:
            p.data = rng.normal(0.5, 0.5, p.shape).astype(layer.dtype)
    return layer


def step_of_torch(kind: str, p: Any, x: Any, state: list[Any]) -> list[Any]:
    """One step by PyTorch's expressions."""
    import torch
    from torch.nn.functional import layer_norm

    def norm(v: Any, gain: Any, bias: Any = None) -> Any:
        return layer_norm(v, v.shape[-1:], gain, bias)

    h = state[0]
    a = norm(x @ p["weight_ih_l0"].T, p["weight_ln_ih_l0"]) + p["bias_ih_l0"]
    u = norm(h @ p["weight_hh_l0"].T, p["weight_ln_hh_l0"]) + p["bias_hh_l0"]
    if kind == "RNN":
        return [torch.tanh(a + u)]
    if kind == "GRU":
        (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), u.chunk(3, -1)
        r, z = torch.sigmoid(a_r + u_r), torch.sigmoid(a_z + u_z)
        return [(1 - z) * torch.tanh(a_n + r * u_n) + z * h]
    i, f, g, o = (a + u).chunk(4, -1)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    shown = norm(c, p["weight_ln_c_l0"], p["bias_ln_c_l0"])
    return [torch.sigmoid(o) * torch.tanh(shown), c]


@kinds
@pytest.mark.parametrize("hidden", [1, 7, 40])
def test_outputs_and_gradients_are_those_of_torch(isa: str, kind: str, hidden: int) -> None:
    torch = require("torch")
    T, B = 6, 3
    layer = randomised(kind, 4, hidden, dtype="float64")
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((T, B, 4)), requires_grad=True)
    start = states_of(layer, B, rng)
    state = [torch.tensor(s[0], requires_grad=True) for s in start]
    p = {n: torch.tensor(v, requires_grad=True) for n, v in layer.state_dict().items()}
    now, ys = state, []
    for t in range(T):
        now = step_of_torch(kind, p, x[t], now)
        ys.append(now[0])
    whole = torch.stack(ys)
    pair = len(start) == 2
    y, _, tape = layer.forward(x.detach().numpy(), start if pair else start[0])
    np.testing.assert_allclose(y, whole.detach().numpy(), rtol=0, atol=1e-12)
    assert_same_bits(layer(x.detach().numpy(), start if pair else start[0])[0], y)
    dy = rng.standard_normal(y.shape)
    dlast = [rng.standard_normal((B, hidden)) for _ in start]
    torch.autograd.backward([whole, *now], [torch.tensor(d) for d in (dy, *dlast)])
    given = [d[None] for d in dlast]
    dx, dstart = layer.backward(tape, dy, tuple(given) if pair else given[0])
    np.testing.assert_allclose(dx, x.grad.numpy(), rtol=1e-9, atol=1e-10)
    for mine, other in zip(dstart if pair else (dstart,), state, strict=True):
        np.testing.assert_allclose(mine[0], other.grad.numpy(), rtol=1e-9, atol=1e-10)
    for q in layer.parameters():
        expected = p[q.name].grad.numpy()
        np.testing.assert_allclose(q.grad, expected, rtol=1e-9, atol=1e-10, err_msg=q.name)


@kinds
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streams_pools_and_cells_give_the_bits_of_the_layer(
    isa: str, kind: str, dtype: str
) -> None:
    layer = randomised(kind, 3, 19, num_layers=2, dtype=dtype, zoneout=0.1)
    x = np.random.default_rng(0).standard_normal((7, 4, 3)).astype(dtype)
    y, _ = layer(x)
    stream = layer.stream(4)
    assert_same_bits(np.stack([stream.step(x_t).copy() for x_t in x]), y)
    assert_same_bits(layer.stream(4).process(x), y)
    alone = layer.stream()
    assert_same_bits(np.stack([alone.step(x_t[1:2]).copy() for x_t in x]), y[:, 1:2])
    pool = layer.stream_pool(5)
    ids = [pool.open() for _ in range(4)]
    assert_same_bits(np.stack([pool.step(ids, x_t).copy() for x_t in x]), y)
    one = randomised(kind, 3, 19, dtype=dtype)
    cell = getattr(lc, f"{kind}Cell")(3, 19, layer_norm=True, dtype=dtype)
    cell.load_state_dict({n.removesuffix("_l0"): v for n, v in one.state_dict().items()})
    y, _ = one(x)
    state: Any = None
    for t in range(7):
        state = cell(x[t], state)
        assert_same_bits(state[0] if kind == "LSTM" else state, y[t])


@kinds
def test_recompute_gives_the_same_bits(kind: str) -> None:
    x = np.random.default_rng(0).standard_normal((10, 3, 3)).astype("float32")
    results = []
    for recompute in (False, True):
        layer = randomised(kind, 3, 9, num_layers=2)
        y, last, tape = layer.forward(x, lengths=[10, 3, 7], recompute=recompute)
        dx, dstate = layer.backward(tape, y, last)
        results.append((y, last, dx, dstate, [p.grad.copy() for p in layer.parameters()]))
    assert_same_bits(*results)


@kinds
def test_files_and_state_dicts_keep_it(kind: str, tmp_path: Any) -> None:
    layer = randomised(kind, 3, 5, num_layers=2, bidirectional=True)
    lc.save(layer, tmp_path / "layer.safetensors")
    assert lc.load(tmp_path / "layer.safetensors") == layer
    assert getattr(lc, kind).from_state_dict(layer.state_dict()) == layer
    plain = getattr(lc, kind)(3, 5, num_layers=2, bidirectional=True)
    with pytest.raises(ValueError, match="its names are those of layer_norm=True"):
        plain.load_state_dict(layer.state_dict())


@kinds
def test_it_starts_as_normalisation_alone(kind: str) -> None:
    layer, plain = (getattr(lc, kind)(3, 5, layer_norm=on, seed=0) for on in (True, False))
    others = {n: v for n, v in layer.state_dict().items() if "_ln_" not in n}
    assert_same_bits(others, plain.state_dict())
    for name, value in layer.state_dict().items():
        if "_ln_" in name:
            assert (value == (0 if name.startswith("bias") else 1)).all()
    if kind == "LSTM":
        biased: Any = lc.LSTM(3, 5, layer_norm=True, forget_bias=1.0)
        assert not biased.state_dict()["bias_ln_c_l0"].any()


@kinds
@pytest.mark.parametrize("scale", [1e-12, 1e12])
def test_the_scale_of_the_input_counts_for_nothing_or_little(kind: str, scale: float) -> None:
    """A product far above eps is normalised whatever its scale; one far below vanishes."""
    layer = randomised(kind, 3, 8, dtype="float64")
    x = np.random.default_rng(0).standard_normal((1, 2, 3))
    expected = x * 1e6 if scale > 1 else np.zeros_like(x)
    np.testing.assert_allclose(layer(x * scale)[0], layer(expected)[0], rtol=0, atol=1e-6)


def test_inputs_that_are_not_finite_give_nan_and_spoil_no_other_row() -> None:
    for kind in KINDS:
        layer = randomised(kind, 3, 8)
        x = np.random.default_rng(0).standard_normal((4, 3, 3)).astype("float32")
        bad = x.copy()
        bad[1, 1, 0] = np.inf
        y, clean = layer(bad)[0], layer(x)[0]
        assert np.isnan(y[1:, 1]).all()
        assert_same_bits(y[:, [0, 2]], clean[:, [0, 2]])
        assert_same_bits(y[0], clean[0])


@pytest.mark.parametrize("name", ["GRU", "GRUCell"])
def test_reset_before_the_product_is_refused(name: str) -> None:
    message = r"^layer_norm=True contradicts reset_after=False \(.*\), expected reset_after=True$"
    with pytest.raises(ValueError, match=message):
        getattr(lc, name)(3, 5, layer_norm=True, reset_after=False)


def test_an_embedding_in_front_gives_each_step_its_row() -> None:
    model = lc.Sequential(lc.Embedding(4, 3, seed=0), randomised("LSTM", 3, 5))
    ids = np.array([[0, 1], [2, 2], [3, 0]])
    y, tape = model.forward(ids)
    layer: Any = model[1]
    assert_same_bits(y, layer(model[0](ids))[0])
    model.backward(tape, np.ones_like(y))


@kinds
@pytest.mark.parametrize("library", ["keras", "torch"])
def test_other_libraries_refuse_it_by_name(kind: str, library: str) -> None:
    require(library)
    with pytest.raises(ValueError, match="layer_norm=True cannot be written to"):
        getattr(lc, f"to_{library}")(getattr(lc, kind)(3, 5, layer_norm=True))
