"""lengths, resets and every c in the layers of lstmcore.torch: against a loop over steps."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from helpers.peers import require

torch = require("torch")
from torch import nn  # noqa: E402

import lstmcore.torch as ours  # noqa: E402

T, B, I, H = 9, 5, 3, 4  # noqa: E741
KINDS = ("RNN", "LSTM", "GRU")


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pair(kind: str, **options: Any) -> tuple[Any, Any]:
    mine = getattr(ours, kind)(I, H, dtype=torch.float64, **options)
    theirs = getattr(nn, kind)(I, H, dtype=torch.float64, **options)
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def some(layer: Any) -> tuple[Any, Any, Any, Any]:
    """x, state, lengths and resets, time-major."""
    x = torch.randn(T, B, I, dtype=torch.float64, requires_grad=True)
    sizes = (layer.proj_size or H, H) if isinstance(layer, nn.LSTM) else (H,)
    state = tuple(
        torch.randn(layer.num_layers, B, size, dtype=torch.float64, requires_grad=True)
        for size in sizes
    )
    resets = torch.rand(T, B) < 0.25
    resets[0, 1] = True
    return x, state, torch.tensor([T, 0, 4, 1, 7]), resets


def loop(layer: Any, x: Any, state: Any, lengths: Any, resets: Any) -> tuple[Any, Any, Any]:
    """The layer of torch.nn, step by step: what all who have episodes write."""
    outputs, cells = [], []
    for t in range(len(x)):
        fresh = tuple(s * (~resets[t]).to(s.dtype)[None, :, None] for s in state)
        y, after = layer(x[t : t + 1], fresh if len(fresh) > 1 else fresh[0])
        after = after if isinstance(after, tuple) else (after,)
        valid = (t < lengths)[None, :, None]
        state = tuple(torch.where(valid, a, s) for a, s in zip(after, state, strict=True))
        outputs.append(torch.where(valid, y, 0))
        cells.append(torch.where(valid, after[-1], 0))
    return torch.cat(outputs), state, torch.stack(cells, 1)


def gradients(y: Any, state: Any, sources: Any) -> Any:
    generator = torch.Generator().manual_seed(1)
    loss = sum((t * torch.randn(t.shape, generator=generator)).sum() for t in (y, *state))
    return torch.autograd.grad(loss, sources)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("kind", [*KINDS, "projected"])
def test_numbers_and_gradients_of_a_loop(kind: str, layers: int, batch_first: bool) -> None:
    options: dict[str, Any] = {"num_layers": layers, "batch_first": batch_first}
    if kind == "projected":
        kind, options["proj_size"] = "LSTM", 2
    mine, theirs = pair(kind, **options)
    theirs.batch_first = False
    x, state, lengths, resets = some(mine)
    expected_y, expected_state, _ = loop(theirs, x, state, lengths, resets)
    expected = gradients(expected_y, expected_state, (x, *state, *theirs.parameters()))
    turned = x.transpose(0, 1) if batch_first else x
    starts = resets.T if batch_first else resets
    y, final = mine(turned, state if len(state) > 1 else state[0], lengths=lengths, resets=starts)
    y = y.transpose(0, 1) if batch_first else y
    final = final if isinstance(final, tuple) else (final,)
    found = gradients(y, final, (x, *state, *mine.parameters()))
    pairs = [(y, expected_y), *zip(final, expected_state, strict=True)]
    for a, b in [*pairs, *zip(found, expected, strict=True)]:
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_rollout_in_chunks_has_the_bits_of_the_whole(kind: str) -> None:
    mine, _ = pair(kind, num_layers=2)
    x, state, _, resets = some(mine)
    state = state if len(state) > 1 else state[0]
    with torch.no_grad():
        whole, end = mine(x, state, resets=resets)
        pieces = []
        for t in range(0, T, 2):
            y, state = mine(x[t : t + 2], state, resets=resets[t : t + 2])
            pieces.append(y)
    assert torch.equal(torch.cat(pieces), whole)
    for a, b in zip(torch.stack([*state]), torch.stack([*end]), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("grad", [True, False])
@pytest.mark.parametrize("batch_first", [False, True])
def test_every_c(batch_first: bool, grad: bool) -> None:
    mine, theirs = pair("LSTM", num_layers=2, batch_first=batch_first)
    theirs.batch_first = False
    x, state, lengths, resets = some(mine)
    _, _, expected = loop(theirs, x, state, lengths, resets)
    turned, starts = (x.transpose(0, 1), resets.T) if batch_first else (x, resets)
    with torch.set_grad_enabled(grad):
        y, (_, c), cells = mine(turned, state, lengths=lengths, resets=starts, cells=True)
    assert not cells.requires_grad
    assert y.requires_grad == grad
    cells = cells.transpose(1, 2) if batch_first else cells
    torch.testing.assert_close(cells, expected, rtol=0, atol=1e-12)
    assert torch.equal(cells[:, 6, 4], c[:, 4])
    if grad:
        y.sum().backward()
        assert x.grad is not None
    one, _, alone = mine(turned[0] if batch_first else turned[:, 0], cells=True)
    assert one.shape == (T, H)
    assert alone.shape == (2, T, H)


def test_one_row_without_a_batch() -> None:
    for batch_first in (False, True):
        mine, _ = pair("GRU", batch_first=batch_first)
        x = torch.randn(T, I, dtype=torch.float64)
        starts = torch.zeros(T, dtype=torch.bool)
        starts[3] = True
        y, h = mine(x, lengths=6, resets=starts)
        batch = 0 if batch_first else 1
        rows, hs = mine(x.unsqueeze(batch), lengths=[6], resets=starts.unsqueeze(batch).numpy())
        assert torch.equal(y, rows.squeeze(batch))
        assert torch.equal(h, hs.squeeze(1))
        assert torch.equal(y[3:6], mine(x[3:6])[0])
        assert not y[6:].any()


def test_gradcheck_and_lost_tapes() -> None:
    mine, _ = pair("LSTM", num_layers=2, bidirectional=True)
    x = torch.randn(4, 2, I, dtype=torch.float64, requires_grad=True)
    starts = torch.tensor([[False, True], [True, False], [False, False], [False, True]])

    def call(x: Any) -> Any:
        return mine(x, lengths=[4, 3], resets=starts)[0]

    assert torch.autograd.gradcheck(call, (x,))
    expected = torch.autograd.grad(call(x).square().sum(), [x, *mine.parameters()])
    with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
        again = torch.autograd.grad(call(x).square().sum(), [x, *mine.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"lengths": [T + 1] * B}, ValueError, rf"lengths\[0\] is {T + 1}, expected 0 to {T}"),
        ({"lengths": [1, 2]}, ValueError, r"lengths has shape \(2,\), expected \(B,\) = \(5,\)"),
        ({"lengths": [1.0] * B}, TypeError, "lengths has dtype float64"),
        ({"resets": np.zeros((T, B))}, TypeError, "resets has dtype float64, expected bool"),
        ({"resets": np.zeros((B, T), bool)}, ValueError, rf"\(T, B\) = \({T}, {B}\)"),
        ({"cells": 1}, TypeError, "cells is 1"),
    ],
)
def test_what_is_refused(options: dict[str, Any], error: type[Exception], message: str) -> None:
    mine, _ = pair("LSTM")
    x = torch.randn(T, B, I, dtype=torch.float64)
    with pytest.raises(error, match=message):
        mine(x, **options)
    packed = nn.utils.rnn.pack_padded_sequence(x, [T] * B)
    with pytest.raises(ValueError, match="input is a PackedSequence, which has lengths"):
        mine(packed, resets=np.zeros((T, B), bool))
