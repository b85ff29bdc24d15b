"""Modules of somebody's own class, traced by torch.fx, against PyTorch's own run of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require

torch = require("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402

B, T = 4, 6

pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")


class Code(nn.Module):  # type: ignore[misc]
    """A module whose forward is a function of itself and of its arguments."""

    def __init__(self, run: Callable[..., Any], **parts: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


class Two(Code):
    """The same of two arguments."""

    def forward(self, x: Any, z: Any) -> Any:
        return self.run(self, x, z)


def tagger(m: Any, ids: Any) -> Any:
    h0 = torch.zeros(4, ids.size(0), 5, device=ids.device, dtype=torch.float64)
    y, (h, _) = m.lstm(m.embedding(ids), (h0, h0))
    b, t, f = y.shape
    a, g = y.chunk(2, dim=-1)
    most, _ = y.max(1)
    rows = (
        m.head(torch.relu(torch.cat((h[-2], h[-1]), dim=1) + most))
        - (a * torch.sigmoid(g)).mean(dim=1)[:, :3] / 2
    )
    return rows, m.head(y.reshape(-1, f)).view(b, t, -1)


def attention_pooling(m: Any, x: Any, static: Any) -> Any:
    y, _ = m.gru(x)
    scores = m.score(torch.tanh(y)).squeeze(-1)
    shares = torch.softmax(scores, dim=1)
    context = (y * shares.unsqueeze(-1)).sum(dim=1)
    return m.head(m.drop(torch.cat([context, static], -1)))


def encoder_decoder(m: Any, source: Any, previous: Any) -> Any:
    _, state = m.encoder(source)
    y, (h, _) = m.decoder(previous, state)
    return {"y": m.head(y) + previous, "h": h}


def convolution(m: Any, x: Any) -> Any:
    x = F.relu(m.norm(m.conv(x.transpose(1, 2)))).permute(2, 0, 1)
    _, (h, _) = m.lstm(x)
    return m.head(h[-1])


def autoencoder(m: Any, x: Any) -> Any:
    _, h = m.encoder(x)
    y, _ = m.decoder(h[-1].unsqueeze(1).repeat(1, x.size(1), 1))
    return m.head(y)


def residual(m: Any, x: Any) -> Any:
    for layer, norm in zip(m.layers, m.norms, strict=True):
        x = x + F.dropout(layer(norm(x))[0], 0.1, m.training)
    return F.softmax(m.head(x), dim=-1), F.log_softmax(m.head(x), dim=2)


def ends(m: Any, x: Any) -> Any:
    y, h = m.gru(x)
    last, first = y[-1, :, :5], y[0][:, 5:]
    flat = h.transpose(0, 1).reshape(h.shape[1], -1)
    turned = torch.flip(y, [0])[:, :, 2:4].max(0).values
    return torch.cat([last, first, flat, turned, h.permute(1, 0, 2).flatten(1)], 1)


def blocks(m: Any, x: Any) -> Any:
    y, _ = m.attention(x, x, x)
    y = m.block(m.norm(x + y))
    return y.mean(1, keepdim=True) * y - 0.5 + F.gelu(-y)


def gates(m: Any, x: Any) -> Any:
    i, f = torch.split(m.wide(x), [3, 4], dim=-1)
    return F.hardsigmoid(i)[..., 1:], 1 - F.mish(f).square(), m.wide(x)[:, -1:][:, 0]


def cells(m: Any, x: Any) -> Any:
    h, c = m.cell(x)
    h, c = m.cell(x, (h, c))
    return m.gru(x, h), torch.stack([h, c])


def given_state(m: Any, x: Any, rows: Any) -> Any:
    y, h = m.gru(x, torch.stack([m.first(rows), torch.tanh(rows)]))
    z, _ = m.top(y, m.first(rows).unsqueeze(0))
    return z, h


def broadcast(m: Any, x: Any, rows: Any) -> Any:
    y, _ = m.gru(x * rows.unsqueeze(1))
    return torch.cat([y, rows[:, None].expand(-1, y.size(1), -1)], 2)


def normal(*shape: int) -> Any:
    return torch.randn(*shape, dtype=torch.float64)


def cases() -> dict[str, tuple[Any, list[Any], dict[str, Any]]]:
    """Modules, their arguments, and what from_torch is told."""
    first = {"batch_first": True}
    ids = torch.arange(B * T).reshape(B, T) % 9
    static = {"inputs": [lc.Input(3), lc.Input(2, steps=False)]}
    return {
        "tagger": (
            Code(
                tagger,
                embedding=nn.Embedding(9, 4),
                lstm=nn.LSTM(4, 5, 2, bidirectional=True, **first),
                head=nn.Linear(10, 3),
            ),
            [ids],
            {},
        ),
        "attention_pooling": (
            Two(
                attention_pooling,
                gru=lc.torch.GRU(3, 6, **first),
                score=nn.Linear(6, 1),
                drop=nn.Dropout(0.2),
                head=nn.Linear(8, 2),
            ),
            [normal(B, T, 3), normal(B, 2)],
            static,
        ),
        "encoder_decoder": (
            Two(
                encoder_decoder,
                encoder=nn.LSTM(3, 4, 2),
                decoder=nn.LSTM(3, 4, 2),
                head=nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3)),
            ),
            [normal(T, B, 3), normal(T - 1, B, 3)],
            {},
        ),
        "convolution": (
            Code(
                convolution,
                conv=nn.Conv1d(3, 4, 3, padding=1),
                norm=nn.BatchNorm1d(4),
                lstm=nn.LSTM(4, 5),
                head=nn.Linear(5, 2),
            ),
            [normal(B, T, 3)],
            {},
        ),
        "autoencoder": (
            Code(
                autoencoder,
                encoder=nn.GRU(3, 4, **first),
                decoder=nn.GRU(4, 4, **first),
                head=nn.Linear(4, 3),
            ),
            [normal(B, T, 3)],
            {},
        ),
        "residual": (
            Code(
                residual,
                layers=nn.ModuleList(nn.RNN(4, 4, nonlinearity="relu") for _ in range(3)),
                norms=nn.ModuleList(nn.LayerNorm(4) for _ in range(3)),
                head=nn.Linear(4, 2),
            ),
            [normal(T, B, 4)],
            {},
        ),
        "ends": (Code(ends, gru=nn.GRU(3, 5, bidirectional=True)), [normal(T, B, 3)], {}),
        "blocks": (
            Code(
                blocks,
                attention=nn.MultiheadAttention(4, 2, **first),
                norm=nn.LayerNorm(4),
                block=nn.TransformerEncoderLayer(4, 2, 8, **first),
            ),
            [normal(B, T, 4)],
            {},
        ),
        "gates": (
            Code(gates, wide=nn.Linear(3, 7)),
            [normal(B, T, 3)],
            {"inputs": [lc.Input(3)]},
        ),
        "cells": (
            Code(cells, cell=nn.LSTMCell(3, 4), gru=nn.GRUCell(3, 4)),
            [normal(B, 3)],
            {},
        ),
        "given_state": (
            Two(
                given_state,
                gru=nn.GRU(3, 4, 2, **first),
                top=nn.GRU(4, 4, **first),
                first=nn.Linear(4, 4),
            ),
            [normal(B, T, 3), normal(B, 4)],
            {},
        ),
        "broadcast": (
            Two(broadcast, gru=nn.GRU(3, 4, **first)),
            [normal(B, T, 3), normal(B, 3)],
            {},
        ),
    }


def flat(value: Any) -> list[Any]:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in flat(part)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value]


def prepared(module: Any) -> Any:
    """The module in float64, with numbers that are not small, for inference."""
    torch.manual_seed(3)
    for p in module.double().eval().parameters():
        nn.init.normal_(p)
    return module


def assert_same(mine: Any, theirs: Any, *args: Any, **options: Any) -> None:
    arrays = [a.numpy() for a in args]
    got = flat(mine(arrays[0] if len(arrays) == 1 else arrays, **options))
    with torch.no_grad():
        expected = flat(theirs(*args))
    assert len(got) == len(expected) > 0
    for a, b in zip(got, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("name", list(cases()))
def test_code_becomes_a_model(name: str) -> None:
    theirs, args, told = cases()[name]
    mine = lc.from_torch(prepared(theirs), **told)
    assert isinstance(mine, lc.Model)
    assert_same(mine, theirs, *args)


def test_gradients_are_pytorch_s() -> None:
    theirs, (ids,), _ = cases()["tagger"]
    mine = lc.from_torch(prepared(theirs))
    _, tape = mine.forward(ids.numpy())
    sum(part.sum() for part in theirs(ids)).backward()
    mine.backward(tape, tuple(np.ones_like(part) for part in mine(ids.numpy())))
    for (_, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(a.grad, b.grad.numpy(), rtol=1e-9, atol=1e-9)


class Packs(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 4)
        self.gru = nn.GRU(4, 5, batch_first=True, bidirectional=True)
        self.head = nn.Linear(10, 3)

    def forward(self, ids: Any, lengths: Any, hx: Any = None) -> Any:
        packed = rnn.pack_padded_sequence(
            self.embedding(ids), lengths.cpu(), batch_first=True, enforce_sorted=False
        )
        y, h = self.gru(packed, hx)
        y, _ = rnn.pad_packed_sequence(y, batch_first=True)
        return self.head(y), torch.cat([h[0], h[1]], 1)


def test_packed_sequences_take_lengths_at_the_call() -> None:
    theirs = prepared(Packs())
    mine = lc.from_torch(theirs)
    ids, lengths = torch.arange(B * T).reshape(B, T) % 9, torch.tensor([3, T, 1, 4])
    got = flat(mine(ids.numpy(), lengths=lengths.numpy()))
    with torch.no_grad():
        expected = flat(theirs(ids, lengths))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_arguments_that_are_states_are_those_of_the_model() -> None:
    theirs = prepared(Two(lambda m, x, h: m.gru(x, h), gru=nn.GRU(3, 4, 2)))
    mine = lc.from_torch(theirs)
    x, h = normal(T, B, 3), normal(2, B, 4)
    with torch.no_grad():
        expected = flat(theirs(x, h))
    for a, b in zip(flat(mine(x.numpy(), [h.numpy()])), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-11)


def test_a_module_called_twice_stays_one() -> None:
    theirs = prepared(Code(lambda m, x: m.b(m.a(m.a(x))), a=nn.Linear(3, 3), b=nn.Linear(3, 2)))
    mine = lc.from_torch(theirs)
    assert_same(mine, theirs, normal(B, 3))
    assert mine.num_parameters == sum(p.numel() for p in theirs.parameters())


def test_a_sequential_with_code_in_it() -> None:
    take = Code(lambda m, r: m.head(r[0][:, -1]), head=nn.Linear(5, 2))
    theirs = prepared(nn.Sequential(nn.GRU(3, 5, batch_first=True), take, nn.Softmax(dim=1)))
    assert_same(lc.from_torch(theirs), theirs, normal(B, T, 3))


def test_a_last_axis_of_size_one_stays() -> None:
    theirs = prepared(Code(lambda m, x: m.head(m.gru(x)[1][0]).squeeze(1), **parts()))
    x = normal(B, T, 3)
    with torch.no_grad():
        expected = theirs(x).numpy()[:, None]
    np.testing.assert_allclose(lc.from_torch(theirs)(x.numpy()), expected, rtol=1e-11, atol=1e-11)


def parts() -> dict[str, Any]:
    return {
        "gru": nn.GRU(3, 5, batch_first=True),
        "two": nn.GRU(3, 5, 2, batch_first=True),
        "head": nn.Linear(5, 1),
    }


def adds_in_place(m: Any, x: Any) -> Any:
    y = m.gru(x)[0]
    z = y
    y += 1
    return y * z


def branches(m: Any, x: Any) -> Any:
    return m.gru(x)[0] if x.sum() > 0 else x


def padded_mean(m: Any, x: Any) -> Any:
    packed = rnn.pack_padded_sequence(x, [2], batch_first=True)
    return rnn.pad_packed_sequence(m.gru(packed)[0], batch_first=True)[0].mean(1)


def two_states(m: Any, x: Any, h: Any) -> Any:
    y, _ = m.gru(x, h)
    return m.top(y, h)


REFUSED: dict[str, tuple[Callable[..., Any], str]] = {
    "a function": (lambda m, x: torch.cumsum(m.gru(x)[0], 1), r"node cumsum.*cumsum is not known"),
    "a method": (lambda m, x: m.gru(x)[0].argmax(-1), r"node argmax, in `.*argmax is not known"),
    "log_softmax over steps": (
        lambda m, x: m.gru(x)[0].log_softmax(1),
        r"node log_softmax.*over axis 1, expected the features",
    ),
    "an option": (lambda m, x: m.head(m.gru(x)[0]).sum(1, dtype=torch.float32), "node sum.*dtype"),
    "a step": (
        lambda m, x: m.gru(x)[0].transpose(0, 1)[2].unsqueeze(0).repeat(x.size(1), 1, 1)[0:3:2],
        r"node getitem.*axis T of \(T, B, F\)",
    ),
    "a row": (lambda m, x: m.gru(x)[0][1], r"1 of axis B of \(B, T, F\)"),
    "axes": (lambda m, x: m.gru(x)[0] + m.gru(x)[1], r"node add.*\(B, T, F\) and \(L, B, F\)"),
    "a layout": (lambda m, x: m.gru(x)[0].transpose(0, 1), r"an output has the axes \(T, B, F\)"),
    "a tensor": (
        lambda m, x: m.gru.weight_ih_l0 * m.gru(x)[0],
        "gru.weight_ih_l0, a tensor of the module itself, is .*one number for each feature",
    ),
    "in place": (adds_in_place, "node iadd.*in place"),
    "a branch": (branches, "torch.fx does not trace Code"),
    "padding": (padded_mean, "steps past the ends count there, and not here"),
    "a dtype": (lambda m, x: m.gru(x)[0].to(torch.float16), "node to.*torch.float16"),
    "features repeated": (
        lambda m, x: m.gru(x)[1][-1].unsqueeze(1).repeat(1, x.size(1), 2),
        r"node repeat.*repeats axis F of \(B, 1, F\)",
    ),
    "rows repeated": (
        lambda m, x: m.gru(x)[1].repeat(x.size(1), 2, 1),
        r"node repeat.*repeats axis B of \(1, B, F\)",
    ),
    "rows by steps": (
        lambda m, x: m.gru(x)[1][-1].unsqueeze(1).expand(x.size(1), x.size(1), 5),
        r"node expand.*repeats axis B of \(B, 1, F\)",
    ),
    "layers by steps": (
        lambda m, x: m.two(x)[1].expand(x.size(1), -1, -1),
        r"node expand.*\(L, B, F\), expected one of them of size 1",
    ),
    "a quotient": (lambda m, x: m.gru(x)[0] / x, "node truediv.*expected a number"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_has_no_counterpart_is_named(name: str) -> None:
    run, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        lc.from_torch(Code(run, **parts()))


def test_other_refusals() -> None:
    hooked = Code(tagger, gru=nn.GRU(3, 4))
    hooked.gru.register_forward_hook(lambda module, inputs, output: output)
    states = Two(two_states, gru=nn.GRU(3, 3), top=nn.GRU(3, 3))
    sizes = Two(lambda m, x, z: m.head(torch.cat([x, z], -1)), head=nn.Linear(5, 1))
    conv = Code(lambda m, x: m.conv(x), conv=nn.Conv2d(1, 2, 3))
    plain = Code(lambda m, x: m.head(x), head=nn.Linear(3, 1))
    for module, told, error, message in (
        (hooked, {}, ValueError, "module gru, GRU, has a forward hook"),
        (states, {}, ValueError, "z is the initial state of gru, top"),
        (sizes, {}, ValueError, r"x, an argument of forward, .*inputs=\[lc.Input"),
        (sizes, {"inputs": [lc.Input(3)]}, ValueError, "inputs has none for z"),
        (plain, {"inputs": [lc.Input(3), lc.Input(3)]}, ValueError, "inputs has 1 more"),
        (plain, {"inputs": lc.Input(3)}, TypeError, "expected a list of lc.Input"),
        (nn.Linear(3, 1), {"inputs": [lc.Input(3)]}, ValueError, "inputs is given for a Linear"),
        (conv, {}, TypeError, "module conv is a .*Conv2d"),
    ):
        with pytest.raises(error, match=message):
            lc.from_torch(module, **told)


class Flags(nn.Module):  # type: ignore[misc]
    """A module whose forward has arguments that are no tensors, as many have."""

    def __init__(self) -> None:
        super().__init__()
        self.gru = nn.GRU(3, 5, batch_first=True)
        self.head = nn.Linear(5, 2)

    def forward(
        self, x: Any, h: Any = None, pool: bool = False, scale: float = 0.5, *, keep: bool = True
    ) -> Any:
        y, h = self.gru(x, h)
        y = y if keep else -y
        return self.head(y[:, -1] if pool else y) * scale


def test_arguments_with_a_default_have_it() -> None:
    theirs, x = Flags(), torch.randn(B, T, 3)
    model = lc.from_torch(theirs)
    np.testing.assert_allclose(model(x.numpy()), theirs(x).detach(), atol=1e-6)


@pytest.mark.filterwarnings("ignore:.*deprecated")
def test_modules_of_other_precision_are_named() -> None:
    inside = torch.ao.nn.quantized.dynamic
    for theirs, where in (
        (nn.Sequential(inside.Linear(3, 4), nn.ReLU()), "module 0 is a torch.ao.*Linear"),
        (inside.LSTM(3, 4), "module is a torch.ao.*LSTM"),
        (Code(lambda m, x: m.part(x), part=inside.Linear(3, 4)), "module part is a torch.ao"),
    ):
        with pytest.raises(TypeError, match=f"{where}.*the module that it was made of"):
            lc.from_torch(theirs)
