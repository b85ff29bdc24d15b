"""Models as people write them in PyTorch, each brought in whole, against PyTorch's own run."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from lstmcore._base.tree import leaves

torch = require("torch")
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torch.nn.utils import rnn  # noqa: E402

B, T = 3, 9
FIRST = {"batch_first": True}

pytestmark = pytest.mark.filterwarnings("ignore:.*enable_nested_tensor")


class Code(nn.Module):  # type: ignore[misc]
    """A module whose forward is a function of itself and of its arguments."""

    def __init__(self, run: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        self.run = run
        for name, part in parts.items():
            if isinstance(part, torch.Tensor) and not isinstance(part, nn.Parameter):
                self.register_buffer(name, part)
            else:
                setattr(self, name, part)

    def forward(self, x: Any) -> Any:
        return self.run(self, x)


class Two(Code):
    """The same of two arguments."""

    def forward(self, x: Any, z: Any) -> Any:
        return self.run(self, x, z)


def normal(*shape: int) -> Any:
    return torch.randn(*shape, dtype=torch.float64)


def ids(count: int, *shape: int) -> Any:
    return torch.randint(count, shape)


def parameter(*shape: int) -> Any:
    return nn.Parameter(torch.randn(shape))


# Attention ----------------------------------------------------------------------------------------


def pooled_by_shares(m: Any, x: Any) -> Any:
    h, _ = m.lstm(m.embedding(x))
    shares = F.softmax(m.score(h).squeeze(-1), dim=-1)
    return m.head(torch.bmm(shares.unsqueeze(1), h).squeeze(1))


def pooled_by_a_parameter(m: Any, x: Any) -> Any:
    h, _ = m.gru(m.embedding(x))
    shares = F.softmax(torch.matmul(torch.tanh(h), m.w), dim=1).unsqueeze(-1)
    return m.head(F.relu(torch.sum(h * shares, 1)))


def pooled_by_a_matrix(m: Any, x: Any) -> Any:
    """W_a and u_a of hierarchical attention networks."""
    h, _ = m.gru(m.embedding(x))
    u = torch.tanh(h @ m.weight.t() + m.bias)
    shares = torch.softmax(u @ m.context, dim=1)
    return m.head((h * shares).sum(1))


def pooled_by_the_state(m: Any, x: Any) -> Any:
    y, (h, _) = m.lstm(x)
    scores = torch.bmm(y, h[-1].unsqueeze(2)).squeeze(2)
    context = torch.bmm(y.transpose(1, 2), F.softmax(scores, 1).unsqueeze(2)).squeeze(2)
    return m.head(context)


def luong(m: Any, source: Any, target: Any) -> Any:
    memory, h = m.encoder(m.embedding(source))
    y, _ = m.decoder(m.embedding(target), h)
    scores = torch.bmm(y, memory.transpose(1, 2)) / 2.0
    context = torch.bmm(m.drop(F.softmax(scores, dim=-1)), memory)
    return m.head(torch.tanh(m.joined(torch.cat([y, context], -1))))


def scaled_dot_product(m: Any, x: Any) -> Any:
    y, _ = m.gru(x)
    return F.scaled_dot_product_attention(m.q(y), m.k(y), y)


def looking_back(m: Any, x: Any) -> Any:
    y, _ = m.gru(x)
    return F.scaled_dot_product_attention(m.q(y), m.k(y), y, is_causal=True)


def behind_an_encoder(m: Any, x: Any) -> Any:
    return m.gru(m.encoder(m.wide(x)))[0]


# Speech and sound ---------------------------------------------------------------------------------


def tacotron_encoder(m: Any, x: Any) -> Any:
    x = m.embedding(x).transpose(1, 2)
    for conv in m.convolutions:
        x = F.dropout(F.relu(conv(x)), 0.5, m.training)
    return m.lstm(x.transpose(1, 2))[0]


def speaker_encoder(m: Any, x: Any) -> Any:
    _, (h, _) = m.lstm(x)
    raw = F.relu(m.linear(h[-1]))
    return raw / (torch.norm(raw, dim=1, keepdim=True) + 1e-5)


def d_vectors(m: Any, x: Any) -> Any:
    y, _ = m.lstm(x)
    e = y[:, y.size(1) - 1] if False else y[:, -1]
    return F.normalize(e, p=2, dim=1), e / e.norm(dim=-1, keepdim=True), e / torch.clamp(
        torch.linalg.vector_norm(e, dim=1, keepdim=True), min=1e-3
    )  # fmt: skip


def noise_suppression(m: Any, x: Any) -> Any:
    d = torch.tanh(m.dense(x))
    v, _ = m.vad_gru(d)
    n, _ = m.noise_gru(torch.cat([v, d, x], -1))
    g, _ = m.denoise_gru(torch.cat([v, n, x], -1))
    return torch.sigmoid(m.gains(g)), torch.sigmoid(m.vad(v))


def separator(m: Any, x: Any) -> Any:
    y = m.norm(m.pointwise(m.prelu(m.depthwise(x)))) + x
    return m.gru(y.transpose(1, 2))[0]


def causal_convolutions(m: Any, x: Any) -> Any:
    y = x.transpose(1, 2)
    y = torch.tanh(m.first(F.pad(y, (2, 0))))
    y = m.second(y)[:, :, :-4] + y
    return m.gru(y.permute(0, 2, 1))[0]


def strided_front(m: Any, x: Any) -> Any:
    y, _ = m.lstm(m.front(x).permute(0, 2, 1))
    return m.head(y.mean(1))


def gated(m: Any, x: Any) -> Any:
    keep = torch.sigmoid(m.keep(x))
    x = keep * F.relu(m.wide(x)) + (1 - keep) * x
    y, _ = m.gru(x)
    return F.glu(torch.cat([y, x], -1), dim=-1)


# Series, text, recommendations --------------------------------------------------------------------


def deep_ar(m: Any, x: Any, series: Any) -> Any:
    _, (h, _) = m.lstm(torch.cat((x, m.embedding(series)), dim=2))
    beside = h.permute(1, 2, 0).contiguous().view(h.shape[1], -1)
    return m.mu(beside), F.softplus(m.sigma(beside))


def scaled_inputs(m: Any, x: Any) -> Any:
    y, _ = m.gru((x - m.mean) / m.deviation)
    return torch.exp(m.log_gain) * (m.shift - y * m.gain)


def language_model(m: Any, x: Any) -> Any:
    y = m.embedding(x)
    for layer in m.layers:
        y, _ = layer(y)
    scores = m.head(y.view(y.size(0) * y.size(1), y.size(2)))
    return scores.view(y.size(0), y.size(1), scores.size(1))


def interests(m: Any, history: Any, target: Any) -> Any:
    """Deep interest evolution, with attention on what goes into the second GRU."""
    h, _ = m.first(m.embedding(history))
    t = m.embedding(target)
    wide = t.unsqueeze(1).expand(-1, h.size(1), -1)
    shares = torch.softmax(m.attention(torch.cat([wide, h, wide - h, wide * h], -1)), dim=1)
    _, final = m.second(h * shares)
    return m.top(torch.cat([final.squeeze(0), t], -1))


def mean_and_maximum(m: Any, x: Any) -> Any:
    y, _ = m.lstm(m.embedding(x))
    return torch.sigmoid(m.head(torch.cat((torch.mean(y, 1), torch.max(y, 1)[0]), 1))).squeeze()


def pooled_convolution(m: Any, x: Any) -> Any:
    """An LSTM and a convolution beside each other."""
    _, (h, _) = m.lstm(input=x.transpose(1, 2))
    beside = m.flat(m.mean(F.relu(m.conv(x))))
    most = F.adaptive_max_pool1d(m.conv(x), 1).squeeze(-1)
    return m.head(torch.cat([h[-1], beside, most], dim=1))


def layers_and_directions(m: Any, x: Any) -> Any:
    y, h = m.gru(x, hx=None)
    last = h.view(2, 2, x.size(0), 5)[-1]
    both = y.view(y.size(0), y.size(1), 2, 5)
    first, second = both[:, :, 0, :], both[:, :, 1]
    rows = torch.cat([last[0], last[1]], -1)
    steps = F.layer_norm(both.sum(dim=2), (5,)) + both.mean(2) * first - second
    return rows, steps


def steps_one_by_one(m: Any, x: Any) -> Any:
    h = torch.zeros(x.size(0), 8, dtype=x.dtype)
    c = torch.zeros(x.size(0), 8, dtype=x.dtype)
    made = []
    for t in range(4):
        h, c = m.cell(x[:, t], (h, c))
        made.append(m.head(h))
    return torch.stack(made, dim=1)


def decoded_step_by_step(m: Any, x: Any) -> Any:
    _, h = m.encoder(x)
    h, y, made = h[0], m.head(h[0]), []
    for _ in range(5):
        h = m.cell(y, h)
        y = m.head(h)
        made.append(y.unsqueeze(1))
    return torch.cat(made, dim=1)


def stacked_rnn_cells(m: Any, x: Any) -> Any:
    h = [None, None]
    for t in range(3):
        h[0] = m.low(x[:, t, :], h[0])
        h[1] = m.high(h[0], h[1])
    return h[1]


def cases() -> dict[str, tuple[Any, list[Any]]]:
    both = {"batch_first": True, "bidirectional": True}
    words = {"embedding": nn.Embedding(30, 8)}
    norm = nn.BatchNorm1d
    block = nn.TransformerEncoderLayer(8, 2, 16, norm_first=True, activation="gelu", **FIRST)
    encoder = nn.TransformerEncoder(block, 2, nn.LayerNorm(8), enable_nested_tensor=False)
    return {
        "pooled by shares": (
            Code(
                pooled_by_shares, lstm=nn.LSTM(8, 5, **both), score=nn.Linear(10, 1),
                head=nn.Linear(10, 3), **words,
            ),
            [ids(30, B, T)],
        ),
        "pooled by a parameter": (
            Code(
                pooled_by_a_parameter, gru=nn.GRU(8, 5, **both), w=parameter(10),
                head=nn.Linear(10, 3), **words,
            ),
            [ids(30, B, T)],
        ),
        "pooled by a matrix": (
            Code(
                pooled_by_a_matrix, gru=nn.GRU(8, 5, **both), weight=parameter(7, 10),
                bias=parameter(7), context=parameter(7, 1), head=nn.Linear(10, 3), **words,
            ),
            [ids(30, B, T)],
        ),
        "pooled by the state": (
            Code(pooled_by_the_state, lstm=nn.LSTM(4, 6, **FIRST), head=nn.Linear(6, 2)),
            [normal(B, T, 4)],
        ),
        "luong": (
            Two(
                luong, encoder=nn.GRU(8, 6, **FIRST), decoder=nn.GRU(8, 6, **FIRST),
                joined=nn.Linear(12, 6), head=nn.Linear(6, 30), drop=nn.Identity(), **words,
            ),
            [ids(30, B, T), ids(30, B, 5)],
        ),
        "scaled dot-product": (
            Code(
                scaled_dot_product, gru=nn.GRU(4, 6, **FIRST), q=nn.Linear(6, 3), k=nn.Linear(6, 3)
            ),
            [normal(B, T, 4)],
        ),
        "looking back": (
            Code(looking_back, gru=nn.GRU(4, 6, **FIRST), q=nn.Linear(6, 3), k=nn.Linear(6, 3)),
            [normal(B, T, 4)],
        ),
        "behind an encoder": (
            Code(
                behind_an_encoder, wide=nn.Linear(4, 8), gru=nn.GRU(8, 5, **FIRST),
                encoder=encoder,
            ),
            [normal(B, T, 4)],
        ),
        "tacotron encoder": (
            Code(
                tacotron_encoder, lstm=nn.LSTM(8, 4, **both),
                convolutions=nn.ModuleList(
                    nn.Sequential(nn.Conv1d(8, 8, 5, padding=2), norm(8)) for _ in range(3)
                ),
                **words,
            ),
            [ids(30, B, T)],
        ),
        "speaker encoder": (
            Code(speaker_encoder, lstm=nn.LSTM(40, 16, 3, **FIRST), linear=nn.Linear(16, 8)),
            [normal(B, T, 40)],
        ),
        "d-vectors": (
            Code(d_vectors, lstm=nn.LSTM(40, 16, 3, proj_size=8, **FIRST)), [normal(B, T, 40)]
        ),
        "noise suppression": (
            Code(
                noise_suppression, dense=nn.Linear(42, 24), vad_gru=nn.GRU(24, 24, **FIRST),
                noise_gru=nn.GRU(90, 48, **FIRST), denoise_gru=nn.GRU(114, 96, **FIRST),
                vad=nn.Linear(24, 1), gains=nn.Linear(96, 22),
            ),
            [normal(B, T, 42)],
        ),
        "separator": (
            Code(
                separator, depthwise=nn.Conv1d(8, 8, 3, padding=2, dilation=2, groups=8),
                prelu=nn.PReLU(), pointwise=nn.Conv1d(8, 8, 1), norm=norm(8),
                gru=nn.GRU(8, 4, **FIRST),
            ),
            [normal(B, 8, T)],
        ),
        "causal convolutions": (
            Code(
                causal_convolutions, first=nn.Conv1d(4, 6, 3), gru=nn.GRU(6, 5, **FIRST),
                second=nn.utils.parametrizations.weight_norm(
                    nn.Conv1d(6, 6, 3, padding=4, dilation=2)
                ),
            ),
            [normal(B, T, 4)],
        ),
        "strided front": (
            Code(
                strided_front, lstm=nn.LSTM(6, 4, **both), head=nn.Linear(8, 3),
                front=nn.Sequential(
                    nn.Conv1d(1, 4, 7, stride=2, padding=3), norm(4), nn.ReLU(), nn.MaxPool1d(2),
                    nn.ZeroPad1d((1, 0)), nn.Conv1d(4, 6, 5, padding=2), nn.PReLU(6),
                ),
            ),
            [normal(B, 1, 40)],
        ),
        "gated": (
            Code(gated, keep=nn.Linear(8, 8), wide=nn.Linear(8, 8), gru=nn.GRU(8, 8, **FIRST)),
            [normal(B, T, 8)],
        ),
        "deep autoregression": (
            Two(
                deep_ar, embedding=nn.Embedding(20, 5), lstm=nn.LSTM(9, 6, 3, **FIRST),
                mu=nn.Linear(18, 1), sigma=nn.Linear(18, 1),
            ),
            [normal(B, T, 4), ids(20, B, T)],
        ),
        "scaled inputs": (
            Code(
                scaled_inputs, mean=torch.randn(4), deviation=torch.rand(1, 1, 4) + 0.5,
                gru=nn.GRU(4, 5, **FIRST), gain=parameter(), shift=parameter(5),
                log_gain=parameter(5),
            ),
            [normal(B, T, 4)],
        ),
        "language model": (
            Code(
                language_model, head=nn.Linear(8, 30), **words,
                layers=nn.ModuleList([nn.LSTM(8, 6), nn.LSTM(6, 8)]),
            ),
            [ids(30, T, B)],
        ),
        "interests": (
            Two(
                interests, first=nn.GRU(8, 8, **FIRST), second=nn.GRU(8, 8, **FIRST), **words,
                attention=nn.Sequential(nn.Linear(32, 6), nn.PReLU(), nn.Linear(6, 1)),
                top=nn.Sequential(nn.Linear(16, 6), nn.PReLU(6), nn.Linear(6, 1), nn.Sigmoid()),
            ),
            [ids(30, B, T), ids(30, B)],
        ),
        "mean and maximum": (
            Code(mean_and_maximum, lstm=nn.LSTM(8, 5, **both), head=nn.Linear(20, 1), **words),
            [ids(30, B, T)],
        ),
        "pooled convolution": (
            Code(
                pooled_convolution, lstm=nn.LSTM(2, 4, **FIRST), conv=nn.Conv1d(2, 6, 3),
                mean=nn.AdaptiveAvgPool1d(1), flat=nn.Flatten(), head=nn.Linear(16, 3),
            ),
            [normal(B, 2, T)],
        ),
        "layers and directions": (
            Code(layers_and_directions, gru=nn.GRU(4, 5, 2, **both)), [normal(B, T, 4)]
        ),
        "steps one by one": (
            Code(steps_one_by_one, cell=nn.LSTMCell(6, 8), head=nn.Linear(8, 2)),
            [normal(B, 4, 6)],
        ),
        "decoded step by step": (
            Code(
                decoded_step_by_step, encoder=nn.GRU(3, 8, **FIRST), cell=nn.GRUCell(2, 8),
                head=nn.Linear(8, 2),
            ),
            [normal(B, T, 3)],
        ),
        "stacked cells": (
            Code(stacked_rnn_cells, low=nn.RNNCell(3, 8), high=nn.RNNCell(8, 5)),
            [normal(B, T, 3)],
        ),
    }  # fmt: skip


def prepared(module: Any) -> Any:
    """The module in float64, with numbers that are not small, for inference."""
    torch.manual_seed(3)
    for p in module.double().eval().parameters():
        nn.init.normal_(p)
    for name, buffer in module.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 2)
    return module


def flat(value: Any) -> list[Any]:
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in flat(part)]
    return [value.detach().numpy() if isinstance(value, torch.Tensor) else value]


def as_ours(mine: Any, args: list[Any]) -> list[Any]:
    """The arguments, with the features last."""
    arrays = [a.numpy() for a in args]
    want = mine._plan.given[0][0].features
    if arrays[0].ndim == 3 and arrays[0].shape[-1] != want:
        arrays[0] = arrays[0].swapaxes(1, 2)
    return arrays


@pytest.mark.parametrize("name", list(cases()))
def test_known_models_come_in_whole(name: str) -> None:
    torch.manual_seed(4)
    theirs, args = cases()[name]
    mine = lc.from_torch(prepared(theirs))
    with torch.no_grad():
        expected = flat(theirs(*args))
    arrays = as_ours(mine, args)
    got = flat(mine(arrays[0] if len(arrays) == 1 else arrays))
    assert len(got) == len(expected)
    for a, b in zip(got, expected, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-9, atol=1e-10)


@pytest.mark.filterwarnings("ignore")  # of the exporter
@pytest.mark.parametrize("name", [name for name in cases() if name != "d-vectors"])
def test_their_onnx_files_run(name: str) -> None:
    """For fewer rows than exported; the exporter refuses an LSTM with a projection."""
    require("onnx")
    torch.manual_seed(4)
    theirs, args = cases()[name]
    prepared(theirs)
    rows = [int(name == "language model")] * len(args)  # the axis of the rows
    names = [f"in{i}" for i in range(len(args))]
    axes = {n: {axis: "rows"} for n, axis in zip(names, rows, strict=True)}
    buffer = io.BytesIO()
    torch.onnx.export(
        theirs, tuple(args), buffer, dynamo=False, opset_version=17, input_names=names,
        dynamic_axes=axes,
    )  # fmt: skip
    ours = lc.from_onnx(buffer.getvalue())
    fewer = [a.narrow(axis, 0, 2) for a, axis in zip(args, rows, strict=True)]
    with torch.no_grad():
        expected = flat(theirs(*fewer))
    for a, b in zip(flat(ours(*[a.numpy() for a in fewer])), expected, strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("name", list(cases()))
def test_known_models_go_back(name: str) -> None:
    torch.manual_seed(4)
    theirs, args = cases()[name]
    mine = lc.from_torch(prepared(theirs))
    back = lc.to_torch(mine).eval()
    given = [torch.tensor(a) for a in as_ours(mine, args)]
    with torch.no_grad():
        expected, got = flat(theirs(*args)), flat(back(*given))
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.reshape(b.shape), b, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(
    "name", ["pooled by a matrix", "luong", "speaker encoder", "d-vectors", "steps one by one"]
)
def test_their_gradients_are_pytorch_s(name: str) -> None:
    torch.manual_seed(4)
    theirs, args = cases()[name]
    mine = lc.from_torch(prepared(theirs))
    total = sum((i + 1) * part.sum() for i, part in enumerate(flat_tensors(theirs(*args))))
    total.backward()
    arrays = [a.numpy() for a in args]
    y, tape = mine.forward(arrays[0] if len(arrays) == 1 else arrays)
    dy = [np.full_like(part, i + 1.0) for i, part in enumerate(flat(y))]
    mine.backward(tape, dy[0] if len(dy) == 1 else tuple(dy))
    wanted = sorted(float(p.grad.abs().sum()) for p in theirs.parameters())
    found = sorted(float(np.abs(p.grad).sum()) for p in mine.parameters() if p.trainable)
    np.testing.assert_allclose(found, wanted, rtol=1e-8, atol=1e-9)


def flat_tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, tuple) else [value]


def test_causal_convolutions_stream() -> None:
    """Zeros before a convolution, and steps cut behind one, make it causal."""
    theirs, (x,) = cases()["causal convolutions"]
    mine = lc.from_torch(prepared(theirs))
    assert not any(isinstance(m, lc.Pad1D) for m in mine._children.values())
    with torch.no_grad():
        expected = theirs(x).numpy()
    found = mine.stream(B).process(x.numpy().swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-10)
    twice = Code(
        lambda m, x: m.gru((m.conv(F.pad(x, (2, 0))) + F.pad(m.conv(x), (2, 0))).mT)[0],
        conv=nn.Conv1d(4, 4, 3), gru=nn.GRU(4, 3, batch_first=True),
    )  # fmt: skip
    with pytest.raises(ValueError, match="with zeros before the steps and without"):
        lc.from_torch(twice)


def test_tensors_of_the_module_are_trained_where_they_are_there() -> None:
    mine = lc.from_torch(prepared(cases()["scaled inputs"][0]))
    trained = {name for name, p in mine.named_parameters() if p.trainable}
    norms = {n for n, m in mine._children.items() if isinstance(m, lc.BatchNorm)}
    assert len(norms) == 4  # of mean, deviation, shift, and log_gain, of which exp is taken
    assert sum(name.split(".")[0] in norms for name in trained) == 1  # shift alone


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_a_transformer_encoder(norm_first: bool, activation: str, batch_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(
        8, 2, 12, activation=activation, norm_first=norm_first, batch_first=batch_first
    )
    x = normal(B, T, 8)
    lengths = torch.tensor([T, 4, 7])
    mask = torch.arange(T) >= lengths[:, None]
    for norm in (None, nn.LayerNorm(8)):
        theirs = prepared(nn.TransformerEncoder(layer, 3, norm, enable_nested_tensor=False))
        mine = lc.from_torch(theirs)
        given = x if batch_first else x.transpose(0, 1)
        expected = theirs(given).detach().numpy()
        np.testing.assert_allclose(mine(given.numpy()), expected, rtol=1e-9, atol=1e-10)
        expected = theirs(given, src_key_padding_mask=mask).detach().numpy()
        found = mine(given.numpy(), lengths=lengths.numpy())
        there = ~mask if batch_first else ~mask.T
        np.testing.assert_allclose(found[there], expected[there], rtol=1e-9, atol=1e-10)


def masked(m: Any, x: Any, mask: Any) -> Any:
    return m.head(m.encoder(m.wide(x), src_key_padding_mask=mask))


def test_a_mask_of_padding_is_lengths() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True)
    parts = {
        "encoder": nn.TransformerEncoder(block, 2, enable_nested_tensor=False),
        "wide": nn.Linear(4, 8),
    }
    theirs = prepared(Two(masked, head=nn.Linear(8, 3), **parts))
    lengths = torch.tensor([T, 4, 7])
    mask = torch.arange(T) >= lengths[:, None]
    x = normal(B, T, 4)
    mine = lc.from_torch(theirs)
    found = mine(x.numpy(), lengths=lengths.numpy())
    expected = theirs(x, mask).detach().numpy()
    np.testing.assert_allclose(found[~mask], expected[~mask], rtol=1e-9, atol=1e-10)
    # What counts the padding in PyTorch, before or behind it, cannot be had.
    around = {
        "behind": lambda m, x, mask: masked(m, x, mask).mean(1),
        "before": lambda m, x, mask: masked(m, m.gru(x)[0], mask),
        "computed": lambda m, x, mask: masked(m, x, x.sum(-1) == 0),
    }
    for name, message in (
        ("behind", "steps past the ends count there, and not here"),
        ("before", r"steps past the ends count in GRU\(4, 2.*before it, and not here"),
        ("computed", "eq is not known|its mask is computed"),
    ):
        gru = nn.GRU(4, 2, bidirectional=True, batch_first=True)
        module = Two(around[name], head=nn.Linear(8, 3), gru=gru, **parts)
        with pytest.raises(ValueError, match=message):
            lc.from_torch(module)


def test_what_has_read_the_padding_before_it_is_packed_is_refused() -> None:
    """With lengths, all of a Model passes over the padding; PyTorch's layer here does not."""

    def packed(m: Any, x: Any, lengths: Any) -> Any:
        y, _ = m.first(x)
        given = rnn.pack_padded_sequence(y, lengths, batch_first=True, enforce_sorted=False)
        return rnn.pad_packed_sequence(m.second(given)[0], batch_first=True)[0]

    both = nn.GRU(3, 4, batch_first=True, bidirectional=True)
    with pytest.raises(ValueError, match=r"GRU\(3, 4.*before it, and not here"):
        lc.from_torch(Two(packed, first=both, second=nn.GRU(8, 2, batch_first=True)))
    theirs = Two(
        packed, first=nn.GRU(3, 4, batch_first=True),
        second=nn.GRU(4, 2, batch_first=True, bidirectional=True),
    )  # fmt: skip
    x, lengths = normal(B, T, 3), torch.tensor([T, 4, 7])
    found = lc.from_torch(prepared(theirs))(x.numpy(), lengths=lengths.numpy())
    np.testing.assert_allclose(found, theirs(x, lengths).detach().numpy(), atol=1e-10)


def test_the_last_step_by_lengths() -> None:
    def last(m: Any, x: Any, lengths: Any) -> Any:
        y, _ = m.gru(x)
        return m.head(y[torch.arange(y.size(0)), lengths - 1])

    theirs = prepared(Two(last, gru=nn.GRU(3, 4, batch_first=True), head=nn.Linear(4, 2)))
    x, lengths = normal(B, T, 3), torch.tensor([T, 4, 7])
    mine = lc.from_torch(theirs)
    expected = theirs(x, lengths).detach().numpy()
    np.testing.assert_allclose(mine(x.numpy(), lengths=lengths.numpy()), expected, atol=1e-10)
    both = nn.GRU(3, 2, batch_first=True, bidirectional=True)
    with pytest.raises(ValueError, match="before it, and not here"):
        lc.from_torch(Two(last, gru=both, head=nn.Linear(4, 2)))


def test_rows_and_steps_that_are_one_axis_stay_two() -> None:
    def scores(m: Any, x: Any, hidden: Any) -> Any:
        y, hidden = m.lstm(m.embedding(x), hidden)
        return F.log_softmax(m.head(y).view(-1, 30), dim=1), hidden

    theirs = prepared(
        Two(scores, embedding=nn.Embedding(30, 8), lstm=nn.LSTM(8, 6, 2), head=nn.Linear(6, 30))
    )
    x, state = ids(30, T, B), (normal(2, B, 6), normal(2, B, 6))
    expected, (h, c) = theirs(x, state)
    found, final = lc.from_torch(theirs)(x.numpy(), [tuple(s.numpy() for s in state)])
    np.testing.assert_allclose(found.reshape(-1, 30), expected.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(final[0], h.detach().numpy(), atol=1e-10)
    np.testing.assert_allclose(final[1], c.detach().numpy(), atol=1e-10)


def test_refusals_name_the_way_out() -> None:
    def over_all_steps(m: Any, x: Any) -> Any:
        h = torch.zeros(x.size(0), 8)
        for t in range(x.size(1)):
            h = m.cell(x[:, t], h)
        return h

    def learned_state(m: Any, x: Any) -> Any:
        return m.gru(x, m.h0.expand(-1, x.size(0), -1).contiguous())[0]

    def images(m: Any, x: Any) -> Any:
        return m.rnn(m.cnn(x).flatten(2).permute(2, 0, 1))[0]

    def wrong_size(m: Any, x: Any) -> Any:
        return m.gru(x)[0] + m.bias

    for module, error, message in (
        (
            Code(over_all_steps, cell=nn.GRUCell(3, 8)),
            ValueError,
            r"as range\(10\); .*LSTM for LSTMCell.*get_submodule\('cell'\)",
        ),
        (
            Code(learned_state, gru=nn.GRU(3, 4, batch_first=True), h0=parameter(1, 1, 4)),
            ValueError,
            r"initial state is h0, .*model\(x, state\)",
        ),
        (
            Code(images, cnn=nn.Conv2d(1, 4, 3), rnn=nn.LSTM(4, 3)),
            TypeError,
            r"Conv2d.*had alone, by from_torch: get_submodule\('rnn'\)",
        ),
        (
            Code(wrong_size, gru=nn.GRU(3, 4, batch_first=True), bias=parameter(B, 1, 4)),
            ValueError,
            r"bias, a tensor of the module itself, is \(3, 1, 4\).*one number for each feature",
        ),
    ):
        with pytest.raises(error, match=message):
            lc.from_torch(module)


def test_a_step_that_is_not_there() -> None:
    mine = lc.from_torch(prepared(cases()["steps one by one"][0]))
    with pytest.raises(ValueError, match=r"x has 2 steps, and step 2 is taken"):
        mine(np.ones((B, 2, 6)))


# One step, as decoders take them -----------------------------------------------------------------


def of_ids(m: Any, ids: Any, state: Any) -> Any:
    y, state = m.rnn(m.embedding(ids).unsqueeze(0), state)
    return m.head(y.squeeze(0)), state


def of_ids_with_an_axis(m: Any, ids: Any, state: Any) -> Any:
    embedded = m.embedding(ids.unsqueeze(0))
    y, state = m.rnn(F.relu(embedded), state)
    return m.both(torch.cat((embedded, y), dim=2)[0]), state


def of_features(m: Any, x: Any, state: Any) -> Any:
    y, state = m.rnn(x.unsqueeze(1), state)
    return m.head(y[:, -1]), state


def that_stays(m: Any, x: Any, state: Any) -> Any:
    y, state = m.rnn(x.unsqueeze(1), state)
    return m.head(y), state


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize(
    "run", [of_ids, of_ids_with_an_axis, of_features, that_stays], ids=lambda run: run.__name__
)
def test_a_step_of_a_decoder(run: Any, kind: str) -> None:
    first = run in (of_features, that_stays)
    layer = getattr(nn, kind)(4, 5, 2, batch_first=first)
    theirs = Two(run, embedding=nn.Embedding(9, 4), rnn=layer, head=nn.Linear(5, 3),
                 both=nn.Linear(9, 3)).double()  # fmt: skip
    x = normal(B, 4) if first else ids(9, B)
    parts = [normal(2, B, 5) for _ in range(2 if kind == "LSTM" else 1)]
    state: Any = tuple(parts) if kind == "LSTM" else parts[0]
    with torch.no_grad():
        y, final = theirs(x, state)
    ours = lc.from_torch(theirs)
    assert isinstance(ours, lc.Model)
    arrays: Any = tuple(part.numpy() for part in parts)
    found = leaves(ours(x.numpy(), (arrays if kind == "LSTM" else arrays[0],)))
    expected = [y, *(final if kind == "LSTM" else [final])]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-12)
