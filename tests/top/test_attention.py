"""Attention: against PyTorch, central differences, the definition; masks; what it refuses."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits, numeric_gradient, parameter_gradient
from helpers.peers import require
from lstmcore.attention import Additive, MultiHead, ScaledDotProduct

Array = np.ndarray[Any, np.dtype[Any]]

T, S, B = 3, 5, 4  # queries, keys, rows
LENGTHS = [5, 3, 1, 2]


def arguments(query: int, key: int, value: int, seed: int = 0) -> tuple[Array, Array, Array]:
    rng = np.random.default_rng(seed)
    return (
        rng.standard_normal((T, B, query)),
        rng.standard_normal((S, B, key)),
        rng.standard_normal((S, B, value)),
    )


def multi_head(**options: Any) -> MultiHead:
    """In float64, with biases other than 0."""
    module = MultiHead(8, 2, dtype="float64", seed=0, **options)
    rng = np.random.default_rng(1)
    for name, p in module.named_parameters():
        if "bias" in name:
            p.data = rng.standard_normal(p.shape)
    return module


MODULES: dict[str, tuple[Callable[..., Any], tuple[int, int, int]]] = {
    "ScaledDotProduct": (ScaledDotProduct, (6, 6, 2)),
    "with another scale": (lambda **k: ScaledDotProduct(scale=1.5, **k), (6, 6, 2)),
    "Additive": (lambda **k: Additive(6, dtype="float64", seed=0, **k), (6, 6, 2)),
    "Additive without scale": (lambda **k: Additive(6, False, dtype="float64", **k), (6, 6, 2)),
    "MultiHead": (multi_head, (8, 8, 8)),
    "MultiHead of other sizes": (lambda **k: multi_head(kdim=3, vdim=5, **k), (8, 3, 5)),
    "MultiHead without bias": (lambda **k: multi_head(bias=False, **k), (8, 8, 8)),
    "ScaledDotProduct, causal": (lambda **k: ScaledDotProduct(causal=True, **k), (6, 6, 2)),
    "Additive, causal": (
        lambda **k: Additive(6, dtype="float64", seed=0, causal=True, **k),
        (6, 6, 2),
    ),
    "MultiHead, causal": (lambda **k: multi_head(causal=True, **k), (8, 8, 8)),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("lengths", [None, LENGTHS, [0, 5, 0, 2]])
@pytest.mark.parametrize("batch_first", [False, True])
def test_gradients_are_those_of_differences(
    name: str, lengths: list[int] | None, batch_first: bool
) -> None:
    make, sizes = MODULES[name]
    module = make(batch_first=batch_first)
    given = list(arguments(*sizes))
    if batch_first:
        given = [a.swapaxes(0, 1).copy() for a in given]
    y, weights, tape = module.forward(*given, lengths)
    dy = np.random.default_rng(2).standard_normal(y.shape)
    found = module.backward(tape, dy)
    for i, gradient in enumerate(found):

        def loss(x: Array, i: int = i) -> float:
            return float((module(*given[:i], x, *given[i + 1 :], lengths)[0] * dy).sum())

        np.testing.assert_allclose(gradient, numeric_gradient(loss, given[i]), atol=1e-7)
    for key, p in module.named_parameters():
        expected = parameter_gradient(p, lambda: float((module(*given, lengths)[0] * dy).sum()))
        np.testing.assert_allclose(p.grad, expected, atol=1e-7, err_msg=key)
    for ours, again in zip((y, weights), module(*given, lengths), strict=True):
        assert_same_bits(ours, again)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize(
    "options",
    [{}, {"kdim": 3, "vdim": 5}, {"kdim": 3}, {"bias": False}, {"num_heads": 1}, {"num_heads": 8}],
)
@pytest.mark.parametrize("batch_first", [False, True])
def test_multi_head_against_pytorch(
    lengths: list[int] | None, options: dict[str, Any], batch_first: bool
) -> None:
    torch = require("torch")
    options = {"embed_dim": 8, "num_heads": 2, "batch_first": batch_first, **options}
    theirs = torch.nn.MultiheadAttention(**options, dtype=torch.float64)
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    ours = MultiHead(**options, dtype="float64")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())

    given = list(arguments(8, options.get("kdim", 8), options.get("vdim", 8)))
    if batch_first:
        given = [a.swapaxes(0, 1) for a in given]
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in given]
    mask = None if lengths is None else torch.arange(S) >= torch.tensor(lengths)[:, None]
    expected, expected_weights = theirs(*tensors, key_padding_mask=mask)

    y, weights, tape = ours.forward(*given, lengths)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
    np.testing.assert_allclose(weights, expected_weights.detach().numpy(), atol=1e-12)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    expected.backward(torch.from_numpy(dy))
    for gradient, tensor in zip(ours.backward(tape, dy), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-10)
    for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad.numpy(), atol=1e-10, err_msg=name)

    per_head = theirs(*tensors, key_padding_mask=mask, average_attn_weights=False)[1]
    np.testing.assert_allclose(tape.weights, per_head.detach().numpy(), atol=1e-12)


def test_multi_head_starts_like_pytorch() -> None:
    torch = require("torch")
    for options in ({}, {"kdim": 40, "vdim": 10}):
        ours = MultiHead(64, 4, seed=0, **options).state_dict()
        theirs = torch.nn.MultiheadAttention(64, 4, **options).state_dict()
        for name, tensor in theirs.items():
            expected = np.abs(tensor.numpy()).max()
            assert np.abs(ours[name]).max() == pytest.approx(expected, rel=0.02), name
            assert abs(ours[name].mean()) < 0.01
    assert MultiHead(8, 2, seed=0) == MultiHead(8, 2, seed=0)
    assert MultiHead(8, 2, seed=0) != MultiHead(8, 2, seed=1)
    module = MultiHead(8, 2, seed=0)
    module.reset_parameters(1)
    assert module == MultiHead(8, 2, seed=1)


@pytest.mark.parametrize("lengths", [None, LENGTHS])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_scaled_dot_product_against_pytorch(lengths: list[int] | None, scale: Any) -> None:
    torch = require("torch")
    given = arguments(6, 6, 2)
    tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in given]
    mask = None if lengths is None else (torch.arange(S) < torch.tensor(lengths)[:, None])[:, None]
    expected = torch.nn.functional.scaled_dot_product_attention(
        *(t.transpose(0, 1) for t in tensors), attn_mask=mask, scale=scale
    ).transpose(0, 1)
    module = ScaledDotProduct(scale)
    y, _, tape = module.forward(*given, lengths)
    np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-13)
    dy = np.random.default_rng(3).standard_normal(y.shape)
    expected.backward(torch.from_numpy(dy))
    for gradient, tensor in zip(module.backward(tape, dy), tensors, strict=True):
        np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-12)


@pytest.mark.parametrize("lengths", [None, [5, 3, 1, 2]])
def test_causal_heads_are_pytorchs(lengths: list[int] | None) -> None:
    torch = require("torch")
    theirs = torch.nn.MultiheadAttention(8, 2, dtype=torch.float64)
    for p in theirs.parameters():
        torch.nn.init.normal_(p)
    ours = MultiHead(8, 2, dtype="float64", causal=True)
    ours.load_state_dict(theirs.state_dict())
    for count in (T, S):  # of the queries
        given = [arguments(8, 8, 8)[0]] if count == T else [arguments(8, 8, 8)[1]]
        given += list(arguments(8, 8, 8)[1:])
        tensors = [torch.from_numpy(a.copy()).requires_grad_() for a in given]
        hidden = torch.ones(count, S, dtype=torch.bool).triu(1)
        padding = None if lengths is None else torch.arange(S) >= torch.tensor(lengths)[:, None]
        expected, shares = theirs(*tensors, key_padding_mask=padding, attn_mask=hidden)
        y, weights, tape = ours.forward(*given, lengths)
        np.testing.assert_allclose(y, expected.detach().numpy(), atol=1e-12)
        np.testing.assert_allclose(weights, shares.detach().numpy(), atol=1e-12)
        dy = np.random.default_rng(3).standard_normal(y.shape)
        expected.backward(torch.from_numpy(dy))
        for gradient, tensor in zip(ours.backward(tape, dy), tensors, strict=True):
            np.testing.assert_allclose(gradient, tensor.grad.numpy(), atol=1e-10)


@pytest.mark.parametrize("name", [name for name in MODULES if "causal" in name])
def test_later_keys_change_nothing(name: str) -> None:
    make, sizes = MODULES[name]
    module = make()
    query, key, value = arguments(*sizes)
    before, _ = module(query, key, value)
    key[2:], value[2:] = key[2:] + 5, value[2:] - 7
    after, weights = module(query, key, value)
    assert_same_bits(after[:2], before[:2])
    assert not np.allclose(after[2], before[2])
    np.testing.assert_array_equal(
        weights == 0, ~np.tri(T, S, dtype=bool) | np.zeros((B, 1, 1), bool)
    )


@pytest.mark.parametrize("name", MODULES)
def test_padding_is_not_looked_at(name: str) -> None:
    make, sizes = MODULES[name]
    module = make()
    query, key, value = arguments(*sizes)
    lengths = [5, 3, 0, 2]
    dy = np.ones((T, B, module(query, key, value)[0].shape[2]))
    clean = module.forward(query, key, value, lengths)
    expected = module.backward(clean[2], dy)
    sums = [p.grad.copy() for p in module.parameters()]
    past = np.arange(S)[:, None] >= lengths
    key[past], value[past] = np.nan, np.inf
    module.zero_grad()
    y, weights, tape = module.forward(query, key, value, lengths)
    assert_same_bits(y, clean[0])
    assert_same_bits(weights, clean[1])
    for ours, theirs in zip(module.backward(tape, dy), expected, strict=True):
        assert_same_bits(ours, theirs)
    for p, gradient in zip(module.parameters(), sums, strict=True):
        assert_same_bits(p.grad, gradient)
    assert not weights.swapaxes(1, 2)[past.T].any()
    np.testing.assert_allclose(weights.sum(axis=2), np.array([1, 1, 0, 1])[:, None] * np.ones(T))
    for b, length in enumerate(lengths):  # each row as if it were alone
        alone = module(query[:, b], key[:length, b], value[:length, b])
        np.testing.assert_allclose(y[:, b], alone[0], atol=1e-14)
        np.testing.assert_allclose(weights[b, :, :length], alone[1], atol=1e-14)


def by_numpy(
    query: Array, key: Array, value: Array, lengths: list[int] | None, scale: float
) -> tuple[Array, Array]:
    """Return y and the weights of (B, heads, T or S, size), in their dtype."""
    scores = (query * query.dtype.type(scale)) @ key.swapaxes(-1, -2)
    if lengths is not None:
        there = np.arange(key.shape[2]) < np.array(lengths)[:, None, None, None]
        scores = np.where(there, scores, -np.inf)
    with np.errstate(invalid="ignore"):
        e = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights = np.nan_to_num(e / e.sum(axis=-1, keepdims=True)).astype(query.dtype)
    return weights @ value, weights


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize(("time", "steps"), [(1, 1), (1, 130), (70, 3), (130, 257)])
def test_of_any_length_it_is_the_definition(
    time: int, steps: int, batch_first: bool, dtype: str
) -> None:
    """More queries than are taken at once, and keys that fill no register."""
    rng = np.random.default_rng(0)
    lengths = [steps, 0, (steps + 1) // 2]
    query = rng.standard_normal((3, 1, time, 9)).astype(dtype)
    key = rng.standard_normal((3, 1, steps, 9)).astype(dtype)
    value = rng.standard_normal((3, 1, steps, 20)).astype(dtype)
    module = ScaledDotProduct(0.4, batch_first=batch_first)
    given = [a[:, 0] if batch_first else a[:, 0].swapaxes(0, 1) for a in (query, key, value)]
    tolerance = 1e-12 if dtype == "float64" else 2e-6
    for ends in (None, lengths):
        expected, expected_weights = by_numpy(query, key, value, ends, 0.4)
        y, weights = module(*given, ends)  # not contiguous, one of them
        y = y if batch_first else y.swapaxes(0, 1)
        np.testing.assert_allclose(y, expected[:, 0], rtol=tolerance, atol=tolerance)
        np.testing.assert_allclose(weights, expected_weights[:, 0], rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_neither_neighbours_nor_padding_nor_threads_change_a_bit(dtype: str) -> None:
    rng = np.random.default_rng(0)
    module = MultiHead(24, 3, dtype=dtype, seed=0)
    lengths = [100, 37, 64, 0]
    query = rng.standard_normal((80, 4, 24)).astype(dtype)
    states = rng.standard_normal((100, 4, 24)).astype(dtype)
    dy = rng.standard_normal(query.shape).astype(dtype)
    before = lc.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            lc.set_num_threads(threads)
            module.zero_grad()
            y, weights, tape = module.forward(query, states, states, lengths)
            gradients = module.backward(tape, dy)
            own = [p.grad.copy() for p in module.parameters()]
            found.append([y, weights, tape.weights, *gradients, *own])
    finally:
        lc.set_num_threads(before)
    for other in found[1:]:
        for ours, theirs in zip(other, found[0], strict=True):
            assert_same_bits(ours, theirs)
    y, weights, each, dquery, dkey, dvalue, *_ = found[0]
    for ours, theirs in zip(module(query, states, states, lengths), (y, weights), strict=True):
        assert_same_bits(ours, theirs)
    for b, length in enumerate(lengths):
        one = [a[:, b : b + 1] for a in (query, states[:length], states[:length])]
        alone, alone_weights, tape = module.forward(*one)
        assert_same_bits(alone[:, 0], y[:, b])
        assert_same_bits(alone_weights[0], weights[b, :, :length])
        assert_same_bits(tape.weights[0], each[b, :, :, :length])
        for ours, theirs in zip(
            module.backward(tape, dy[:, b : b + 1]), (dquery, dkey, dvalue), strict=True
        ):
            assert_same_bits(ours[:, 0], theirs[: len(ours), b])


def test_a_nan_stays_in_its_row() -> None:
    query, key, value = arguments(8, 8, 8)
    module = multi_head()
    y, _, tape = module.forward(query, key, value)
    clean = module.backward(tape, np.ones_like(y))
    key[2, 1, 0] = np.nan
    found, found_weights, tape = module.forward(query, key, value)
    assert np.isnan(found[:, 1]).all()
    assert np.isnan(found_weights[1]).all()
    others = [0, 2, 3]
    assert_same_bits(found[:, others], y[:, others])
    for ours, theirs in zip(module.backward(tape, np.ones_like(y)), clean, strict=True):
        assert_same_bits(ours[:, others], theirs[:, others])
        assert np.isnan(ours[:, 1]).any()


def test_what_is_packed_follows_the_parameters() -> None:
    given = arguments(8, 8, 8)
    module = multi_head()
    before = module(*given)[0]
    module._parameters["in_proj_weight"].data[:8] *= 2
    after = module(*given)[0]
    assert not np.allclose(before, after)
    twin = multi_head()
    twin.load_state_dict(module.state_dict())
    assert_same_bits(twin(*given)[0], after)


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("length", [None, 2])
def test_unbatched(name: str, batch_first: bool, length: int | None) -> None:
    make, sizes = MODULES[name]
    module, batched = make(batch_first=batch_first), make()
    given = [a[:, :1] for a in arguments(*sizes)]
    lengths = None if length is None else [length]
    expected, expected_weights, whole = batched.forward(*given, lengths)
    y, weights, tape = module.forward(*(a[:, 0] for a in given), length)
    np.testing.assert_allclose(y, expected[:, 0], atol=1e-14)
    np.testing.assert_allclose(weights, expected_weights[0], atol=1e-14)
    for ours, theirs in zip(
        module.backward(tape, y), batched.backward(whole, expected), strict=True
    ):
        np.testing.assert_allclose(ours, theirs[:, 0], atol=1e-14)


@pytest.mark.parametrize("name", MODULES)
def test_of_nothing(name: str) -> None:
    make, sizes = MODULES[name]
    module = make()
    for t, s, b in ((0, S, B), (T, 0, B), (T, S, 0)):
        given = [np.zeros((n, b, size)) for n, size in zip((t, s, s), sizes, strict=True)]
        y, weights, tape = module.forward(*given, [s] * b)
        assert weights.shape == (b, t, s)
        assert y.shape[:2] == (t, b)
        for gradient, x in zip(module.backward(tape, y), given, strict=True):
            assert gradient.shape == x.shape
            assert np.isfinite(gradient).all()
        if b:
            y, weights, tape = module.forward(*(x[:, 0] for x in given), s)
            assert weights.shape == (t, s)
            assert [g.ndim for g in module.backward(tape, y)] == [2, 2, 2]


def test_dropout_of_weights() -> None:
    given = arguments(8, 8, 8)
    module = multi_head(dropout=0.5)
    plain = multi_head()
    assert_same_bits(module(*given)[0], plain(*given)[0])
    twin = copy.deepcopy(module)
    y, weights, tape = module.forward(*given)
    assert not np.allclose(y, plain(*given)[0])
    assert_same_bits(weights, plain(*given)[1])
    assert_same_bits(twin.forward(*given)[0], y)
    assert not np.array_equal(module.forward(*given)[0], y)
    state = module._rng_state()
    after = module.forward(*given)[0]
    module._set_rng_state(state)
    assert_same_bits(module.forward(*given)[0], after)

    start = twin._rng_state()
    dy = np.random.default_rng(2).standard_normal(y.shape)

    def loss(x: Array) -> float:
        twin._set_rng_state(start)
        return float((twin.forward(x, *given[1:])[0] * dy).sum())

    twin._set_rng_state(start)
    _, _, tape = twin.forward(*given)
    dquery, _, _ = twin.backward(tape, dy)
    np.testing.assert_allclose(dquery, numeric_gradient(loss, given[0]), atol=1e-7)


def test_a_tape_keeps_the_weights_of_its_forward_call() -> None:
    module = multi_head()
    given = arguments(8, 8, 8)
    y, weights, tape = module.forward(*given)
    dy = np.ones_like(y)
    expected = module.backward(tape, dy)
    for p in module.parameters():
        p.data[...] = 0
    for ours, theirs in zip(module.backward(tape, dy), expected, strict=True):
        assert_same_bits(ours, theirs)
    with pytest.raises(ValueError, match="read-only"):
        weights[0] = 0
    query, key, value, heads = 3 * 4 * 8, 5 * 4 * 8, 5 * 4 * 8, 2
    projections = 2 * query + key + value  # one more query are the heads before W_o
    assert tape.nbytes == 8 * (projections + heads * B * T * S)
    assert repr(tape).startswith("<AttentionTape of MultiHead(8, 2, dtype=float64)")


def test_pickles_with_its_projection() -> None:
    module = MultiHead(8, 2, kdim=6, seed=0)
    twin = pickle.loads(pickle.dumps(module))
    given = [a.astype("float32") for a in arguments(8, 6, 8)]
    assert_same_bits(twin(*given)[0], module(*given)[0])
    twin.parameters()[-1].data += 1
    assert twin != module


Q, K, V = arguments(8, 8, 8)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda m: MultiHead(8, 3), ValueError, "embed_dim is 8, expected a multiple of num_heads"),
        (lambda m: MultiHead(0, 1), ValueError, "embed_dim is 0"),
        (lambda m: MultiHead(8, 2, dropout=1.0), ValueError, "dropout is 1.0"),
        (lambda m: MultiHead(8, 2, kdim=0), ValueError, "kdim is 0"),
        (lambda m: MultiHead(8, 2, vdim=1.5), TypeError, "vdim is 1.5"),
        (lambda m: ScaledDotProduct(scale="a"), TypeError, "scale is 'a'"),
        (lambda m: ScaledDotProduct(batch_first=1), TypeError, "batch_first is 1"),
        (
            lambda m: m(Q[..., :7], K, V),
            ValueError,
            r"query has shape \(3, 4, 7\), expected \(T, B, 8\) or \(T, 8\)",
        ),
        (lambda m: m(Q[0, 0], K, V), ValueError, r"query has shape \(8,\)"),
        (lambda m: m(1.0, K, V), ValueError, r"query has shape \(\)"),
        (
            lambda m: m(Q, K[:, :3], V),
            ValueError,
            r"key has shape \(5, 3, 8\), expected \(S, B, 8\) with B = 4, as query has",
        ),
        (lambda m: m(Q, K[:, 0], V), ValueError, r"key has shape \(5, 8\)"),
        (lambda m: m(Q[:, 0], K, V), ValueError, r"key has shape \(5, 4, 8\), expected \(S, 8\)"),
        (lambda m: m(Q, K[..., :7], V), ValueError, r"key has shape \(5, 4, 7\)"),
        (
            lambda m: m(Q, K, V[:4]),
            ValueError,
            r"value has shape \(4, 4, 8\), expected \(5, 4, 8\), as key has",
        ),
        (lambda m: m(Q, K, V[..., :7]), ValueError, r"value has shape \(5, 4, 7\)"),
        (lambda m: m(Q.astype("f4"), K, V), TypeError, "query has dtype float32, expected float64"),
        (lambda m: m(Q, K.astype("f4"), V), TypeError, "key has dtype float32, expected float64"),
        (lambda m: m(Q, K, V * 1j), TypeError, "value has dtype complex128"),
        (lambda m: m(Q, K, V, [6, 1, 1, 1]), ValueError, "0 to 5, the time steps of key"),
        (lambda m: m(Q, K, V, [1, 1, 1]), ValueError, r"lengths has shape \(3,\)"),
        (lambda m: m(Q, K, V, [1.0] * 4), TypeError, "lengths has dtype float64"),
        (lambda m: m.backward(None, Q), TypeError, "tape is None"),
        (lambda m: m.backward(multi_head().forward(Q, K, V)[2], Q), ValueError, "another layer"),
        (lambda m: m.backward(m.forward(Q, K, V)[2], Q[:1]), ValueError, r"dy has shape \(1, 4"),
    ],
)
def test_refuses(call: Callable[[Any], Any], error: type[Exception], message: str) -> None:
    module = multi_head()
    with pytest.raises(error, match=message):
        call(module)
    assert not any(p.grad.any() for p in module.parameters())


def test_scaled_dot_product_takes_any_sizes_that_fit() -> None:
    module = ScaledDotProduct()
    with pytest.raises(ValueError, match=r"key has shape \(5, 4, 8\), expected \(S, B, 7\)"):
        module(Q[..., :7], K, V)
    with pytest.raises(ValueError, match=r"value has shape \(4, 4, 8\), expected \(5, 4, 8\)"):
        module(Q, K, V[:4])
    with pytest.raises(TypeError, match="key has dtype float64, expected float32"):
        module(Q.astype("float32"), K, V)
    y, weights = module(Q.tolist(), K, V[..., :0])
    assert y.shape == (T, B, 0)
    assert weights.shape == (B, T, S)


def test_attention_over_an_encoder_trains() -> None:
    """Copying one marked step of the encoder is learned, through every gradient."""
    rng = np.random.default_rng(0)
    encoder = lc.GRU(3, 16, bidirectional=True, seed=1)
    attention = MultiHead(16, 2, kdim=32, vdim=32, seed=2)
    head = lc.Linear(16, 1, seed=3)
    modules = (encoder, attention, head)
    query = lc.Parameter("query", rng.standard_normal((1, 1, 16)).astype("float32"))
    optimizer = lc.optim.Adam([query, *(p for m in modules for p in m.parameters())], lr=0.01)
    losses = []
    for _ in range(150):
        x = rng.standard_normal((8, 32, 3)).astype("float32")
        lengths = rng.integers(1, 9, 32)
        step = rng.integers(0, lengths)
        x[..., 1] = np.arange(8)[:, None] == step
        target = x[step, np.arange(32), :1][None]
        states, _, t0 = encoder.forward(x, lengths=lengths)
        asked = np.broadcast_to(query.data, (1, 32, 16))
        context, _, t1 = attention.forward(asked, states, states, lengths)
        y, t2 = head.forward(context)
        loss, dy = lc.losses.mse(y, target)
        losses.append(loss)
        optimizer.zero_grad()
        dquery, dkey, dvalue = attention.backward(t1, head.backward(t2, dy))
        query.grad += dquery.sum(axis=1, keepdims=True)
        encoder.backward(t0, dkey + dvalue)
        optimizer.step()
    assert np.mean(losses[-10:]) < 0.1 * np.mean(losses[:10])
