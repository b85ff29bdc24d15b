"""lstmcore.torch's layers against those of torch.nn, whose place they take."""

from __future__ import annotations

import copy
import gc
import io
import itertools
import pickle
import subprocess
import sys
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.peers import require
from helpers.threads import in_threads
from lstmcore import _core

torch = require("torch")
from torch import nn  # noqa: E402
from torch.nn.utils import rnn as packing  # noqa: E402

import lstmcore.torch as ours  # noqa: E402

T, B, I, H = 7, 4, 3, 5  # noqa: E741
KINDS = ("RNN", "LSTM", "GRU")
OPTIONS: list[dict[str, Any]] = [
    {},
    {"num_layers": 2, "bidirectional": True},
    {"bias": False, "batch_first": True},
    {"num_layers": 3, "batch_first": True, "bidirectional": True, "bias": False},
]
CASES = [
    *((kind, options) for kind in KINDS for options in OPTIONS),
    ("RNN", {"nonlinearity": "relu", "num_layers": 2}),
    ("LSTM", {"proj_size": 2, "num_layers": 2, "bidirectional": True}),
    ("LSTM", {"proj_size": 2, "bias": False, "batch_first": True}),
]


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def pair(kind: str, options: dict[str, Any], dtype: Any = torch.float64) -> tuple[Any, Any]:
    """Our layer and theirs, with the same numbers."""
    mine = getattr(ours, kind)(I, H, dtype=dtype, **options)
    theirs = getattr(nn, kind)(I, H, dtype=dtype, **options)
    theirs.load_state_dict(mine.state_dict())
    return mine, theirs


def make_input(layer: Any, *, batched: bool = True, grad: bool = True) -> Any:
    shape = (B, T, I) if layer.batch_first else (T, B, I)
    x = torch.randn(shape if batched else (T, I), dtype=layer.weight_ih_l0.dtype)
    return x.requires_grad_(grad)


def make_state(layer: Any, *, batched: bool = True) -> Any:
    first = layer.num_layers * (2 if layer.bidirectional else 1)
    rows = (B,) if batched else ()
    h, c = (
        torch.randn(first, *rows, size, dtype=layer.weight_ih_l0.dtype).requires_grad_()
        for size in (layer.proj_size or H, H)
    )
    return (h, c) if isinstance(layer, nn.LSTM) else h


def flat(value: Any) -> list[Any]:
    """The tensors of an output."""
    if isinstance(value, packing.PackedSequence):
        return [value.data]
    if isinstance(value, tuple):
        return [tensor for part in value for tensor in flat(part)]
    return [] if value is None else [value]


def run(layer: Any, x: Any, state: Any) -> tuple[Any, list[Any]]:
    """The output, and the gradients of everything for some loss."""
    output = layer(x, state)
    generator = torch.Generator().manual_seed(1)
    loss = sum(
        (t * torch.randn(t.shape, dtype=t.dtype, generator=generator)).sum() for t in flat(output)
    )
    return output, list(torch.autograd.grad(loss, [*flat(x), *flat(state), *layer.parameters()]))


def assert_same(mine: Any, theirs: Any, tolerance: float = 1e-12) -> None:
    assert len(mine) == len(theirs) > 0
    for a, b in zip(mine, theirs, strict=True):
        assert a.shape == b.shape
        assert a.dtype == b.dtype
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance, equal_nan=True)


# The same numbers ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "options"), CASES)
@pytest.mark.parametrize("batched", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
def test_outputs_and_gradients(
    kind: str, options: dict[str, Any], batched: bool, with_state: bool
) -> None:
    mine, theirs = pair(kind, options)
    x = make_input(mine, batched=batched)
    state = make_state(mine, batched=batched) if with_state else None
    output, gradients = run(mine, x, state)
    expected, expected_gradients = run(theirs, x, state)
    assert_same(flat(output), flat(expected))
    assert_same(gradients, expected_gradients)
    with torch.no_grad():
        assert_same(flat(mine(x, state)), flat(expected), 1e-12)


@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_float32(kind: str, options: dict[str, Any]) -> None:
    mine, theirs = pair(kind, options, torch.float32)
    x, state = make_input(mine), make_state(mine)
    output, gradients = run(mine, x, state)
    expected, expected_gradients = run(theirs, x, state)
    assert_same(flat(output), flat(expected), 1e-6)
    assert_same(gradients, expected_gradients, 1e-4)


@pytest.mark.parametrize("enforce_sorted", [True, False])
@pytest.mark.parametrize("with_state", [True, False])
@pytest.mark.parametrize(("kind", "options"), CASES)
def test_packed_sequences(
    kind: str, options: dict[str, Any], with_state: bool, enforce_sorted: bool
) -> None:
    mine, theirs = pair(kind, options)
    lengths = [7, 5, 5, 1] if enforce_sorted else [3, 7, 1, 5]
    x = make_input(mine)
    state = make_state(mine) if with_state else None

    def packed(layer: Any, value: Any, state: Any) -> Any:
        return layer(
            packing.pack_padded_sequence(
                value, lengths, batch_first=layer.batch_first, enforce_sorted=enforce_sorted
            ),
            state,
        )

    results = []
    for layer in (mine, theirs):
        y, final = packed(layer, x, state)
        padded, _ = packing.pad_packed_sequence(y, batch_first=layer.batch_first)
        weights = torch.linspace(-1, 1, padded.numel(), dtype=torch.float64).reshape(padded.shape)
        loss = (padded * weights).sum() + sum(t.sin().sum() for t in flat(final))
        gradients = torch.autograd.grad(loss, [x, *flat(state), *layer.parameters()])
        results.append((y, flat(final), gradients))
    (y, final, gradients), (expected, expected_final, expected_gradients) = results
    assert isinstance(y, packing.PackedSequence)
    for a, b in zip(y[1:], expected[1:], strict=True):
        assert (a is None and b is None) or torch.equal(a, b)
    assert_same([y.data, *final], [expected.data, *expected_final])
    assert_same(gradients, expected_gradients)
    with torch.no_grad():
        assert_same(flat(packed(mine, x, state)), [expected.data, *expected_final])


def test_strided_inputs_and_gradients() -> None:
    """Transposed, expanded and sliced tensors, as models hand them on."""
    mine, theirs = pair("LSTM", {"batch_first": True})
    wide = torch.randn(I, 2 * T, B, dtype=torch.float64).requires_grad_()
    for x in (wide.permute(2, 1, 0)[:, ::2], wide[:, :1].permute(2, 1, 0).expand(B, T, I)):
        for select in (
            lambda y: y[:, -1].sum(),  # gradients that are expanded scalars
            lambda y: (y.transpose(1, 2) @ y).sum(),
        ):
            gradients = []
            for layer in (mine, theirs):
                y, (h, _) = layer(x)
                loss = select(y) + h.expand(3, B, H).mean()
                gradients.append(torch.autograd.grad(loss, [wide, *layer.parameters()]))
            assert_same(*gradients)


def test_only_the_state_is_used() -> None:
    mine, theirs = pair("GRU", {"num_layers": 2})
    x = make_input(mine)
    gradients = [
        torch.autograd.grad(layer(x)[1].sum(), [x, *layer.parameters()]) for layer in (mine, theirs)
    ]
    assert_same(*gradients)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_gradcheck(kind: str, options: dict[str, Any]) -> None:
    layer, _ = pair(kind, options)
    names = [name for name, _ in layer.named_parameters()]

    def function(x: Any, *others: Any) -> Any:
        state, weights = others[: -len(names)], others[-len(names) :]
        hx = state if len(state) > 1 else state[0]
        parameters = dict(zip(names, weights, strict=True))
        return tuple(flat(torch.func.functional_call(layer, parameters, (x, hx))))

    x, state = make_input(layer), make_state(layer)
    assert torch.autograd.gradcheck(function, (x, *flat(state), *layer.parameters()))


def test_gradcheck_of_packed_sequences_and_dropout() -> None:
    layer, _ = pair("LSTM", {"num_layers": 2, "bidirectional": True, "dropout": 0.4})

    def function(x: Any, *weights: Any) -> Any:
        torch.manual_seed(3)  # the same masks in every call
        packed = packing.pack_padded_sequence(x, [2, 7, 4, 1], enforce_sorted=False)
        parameters = dict(zip(names, weights, strict=True))
        return tuple(flat(torch.func.functional_call(layer, parameters, (packed,))))

    names = [name for name, _ in layer.named_parameters()]
    assert torch.autograd.gradcheck(function, (make_input(layer), *layer.parameters()))


# Autograd -----------------------------------------------------------------------------------------


def test_second_derivatives_are_refused() -> None:
    layer, _ = pair("GRU", {})
    x = make_input(layer)
    with pytest.raises(RuntimeError, match="first derivatives only"):
        torch.autograd.gradgradcheck(lambda value: layer(value)[0], (x,))
    y, _ = layer(x)
    (dx,) = torch.autograd.grad(y.sum(), x, create_graph=True)  # dy is a constant here
    with pytest.raises(RuntimeError, match="first derivatives only"):
        (dx.norm() - 1).square().backward()
    (dx,) = torch.autograd.grad(layer(x)[0].sum(), x, create_graph=True)
    assert torch.isfinite(dx).all()  # harmless as long as nobody differentiates again


def test_subsets_that_require_gradients() -> None:
    mine, theirs = pair("LSTM", {"num_layers": 2})
    everything = [make_input(mine), *flat(make_state(mine))]
    tensors = [name for name, _ in mine.named_parameters()]
    for chosen in ([], ["weight_hh_l0"], ["bias_ih_l1", "weight_ih_l0"], tensors):
        for inputs in ([], [0], [2], [0, 1, 2]):
            results = []
            for layer in (mine, theirs):
                for name, p in layer.named_parameters():
                    p.requires_grad_(name in chosen)
                x, h, c = (t.detach().clone() for t in everything)
                leaves = [[x, h, c][i].requires_grad_() for i in inputs]
                leaves += [p for p in layer.parameters() if p.requires_grad]
                y, _ = layer(x, (h, c))
                assert y.requires_grad == bool(leaves)
                results.append(torch.autograd.grad(y.sum(), leaves) if leaves else (y,))
            assert_same(*results)


def test_without_gradients() -> None:
    layer, _ = pair("LSTM", {})
    x = make_input(layer, grad=False)
    with_gradients, _ = layer(x)
    for context in (torch.no_grad, torch.inference_mode):
        with context():
            y, (h, c) = layer(x)
            assert not any(t.requires_grad or t.grad_fn for t in (y, h, c))
            assert y.is_inference() == (context is torch.inference_mode)
            assert torch.equal(y, with_gradients)


def test_backward_again() -> None:
    layer, _ = pair("GRU", {})
    x = make_input(layer)
    y, _ = layer(x)
    loss = y.square().sum()
    loss.backward(retain_graph=True)
    once = [p.grad.clone() for p in layer.parameters()]
    loss.backward()
    for p, gradient in zip(layer.parameters(), once, strict=True):
        torch.testing.assert_close(p.grad, 2 * gradient, rtol=0, atol=1e-14)
    with pytest.raises(RuntimeError, match="backward through the graph a second time"):
        loss.backward()


def test_memory_is_freed_as_the_graph_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keeping a loss for the records must not keep the tapes of all steps."""
    layer, _ = pair("LSTM", {})
    tapes = []
    forward = _core.forward

    def noted(*args: Any) -> Any:
        result = forward(*args)
        tapes.append(weakref.ref(result[3]))
        return result

    monkeypatch.setattr(_core, "forward", noted)
    loss = layer(make_input(layer))[0].sum()
    loss.backward(retain_graph=True)
    assert tapes[0]() is not None
    loss.backward()
    gc.collect()
    assert tapes[0]() is None
    layer(make_input(layer))  # and no backward at all
    gc.collect()
    assert tapes[1]() is None


@pytest.mark.parametrize("what", ["x", "y", "h0", "weight"])
def test_writes_between_forward_and_backward_are_noticed(what: str) -> None:
    layer, _ = pair("LSTM", {})
    x, (h0, c0) = make_input(layer, grad=False), make_state(layer)
    h0 = h0.detach()
    y, _ = layer(x, (h0, c0))
    with torch.no_grad():
        {"x": x, "y": y, "h0": h0, "weight": layer.weight_hh_l0}[what].mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("how", ["reentrant", "recomputed", "offloaded", "copied"])
def test_saved_tensor_hooks(how: str) -> None:
    """Activation checkpoints and offloading replace what is saved, and lose nothing."""
    from torch.utils.checkpoint import checkpoint

    layer, _ = pair("LSTM", {"num_layers": 2, "dropout": 0.3})
    x = make_input(layer)

    def gradients(call: Callable[[Any], Any]) -> Any:
        torch.manual_seed(5)
        return torch.autograd.grad(call(x).square().sum(), list(layer.parameters()))

    def reentrant() -> Any:
        layer.zero_grad()
        torch.manual_seed(5)
        checkpoint(lambda v: layer(v)[0], x, use_reentrant=True).square().sum().backward()
        return [p.grad for p in layer.parameters()]

    expected = gradients(lambda v: layer(v)[0])
    if how == "reentrant":
        found = reentrant()
    elif how == "recomputed":
        found = gradients(lambda v: checkpoint(lambda u: layer(u)[0], v, use_reentrant=False))
    elif how == "offloaded":
        with torch.autograd.graph.save_on_cpu():
            found = gradients(lambda v: layer(v)[0])
    else:
        with torch.autograd.graph.saved_tensors_hooks(lambda t: t.clone(), lambda t: t):
            found = gradients(lambda v: layer(v)[0])
    for a, b in zip(found, expected, strict=True):
        assert torch.equal(a, b)


# Weights are never stale --------------------------------------------------------------------------


def _set_data(layer: Any) -> None:
    layer.weight_hh_l0.data = torch.randn_like(layer.weight_hh_l0)


def _replace(layer: Any) -> None:
    layer.weight_ih_l0 = nn.Parameter(torch.randn_like(layer.weight_ih_l0))


def _swap_rows(layer: Any) -> None:
    rows = layer.weight_hh_l0.data
    rows[[0, 1, 2]] = rows[[1, 2, 0]]


def _through_numpy(layer: Any) -> None:
    layer.bias_hh_l0.detach().numpy()[0] += 1


def _set_nan(layer: Any) -> None:
    layer.bias_hh_l0.data[0] = torch.nan


def _optimizer(kind: str, **options: Any) -> Callable[[Any], None]:
    def step(layer: Any) -> None:
        optimizer = getattr(torch.optim, kind)(layer.parameters(), lr=0.1, **options)
        for p in layer.parameters():
            p.grad = torch.ones_like(p)
        optimizer.step()

    return step


WRITES: dict[str, Callable[[Any], Any]] = {
    "SGD": _optimizer("SGD", momentum=0.9),
    "Adam": _optimizer("Adam"),
    "Adam, one by one": _optimizer("Adam", foreach=False),
    "Adam, fused": _optimizer("Adam", fused=True),
    "add_": lambda layer: torch.no_grad()(layer.weight_ih_l0.add_)(1),
    "data.add_": lambda layer: layer.weight_ih_l0.data.add_(1),
    "data.copy_": lambda layer: layer.bias_ih_l0.data.copy_(torch.ones(())),
    "detach().add_": lambda layer: layer.weight_ih_l0.detach().add_(1),
    "data =": _set_data,
    "a new parameter": _replace,
    "rows swapped": _swap_rows,
    "NumPy": _through_numpy,
    "NaN": _set_nan,
    "reset_parameters": lambda layer: layer.reset_parameters(),
    "load_state_dict": lambda layer: layer.load_state_dict(
        {name: torch.randn_like(t) for name, t in layer.state_dict().items()}
    ),
    "double": lambda layer: layer.float().double(),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", KINDS)
def test_writes_are_seen(kind: str, write: str) -> None:
    layer, theirs = pair(kind, {})
    x = make_input(layer, grad=False)

    def infer(layer: Any) -> Any:
        with torch.no_grad():
            return layer(x)[0]

    before = infer(layer)
    for _ in range(2):
        for _ in range(3):
            assert_same([infer(layer), layer(x)[0]], [theirs(x)[0]] * 2)
        WRITES[write](layer)
        theirs.load_state_dict(layer.state_dict())
        after = infer(layer)
        assert_same([after], [theirs(x)[0]])
        assert_same([layer(x)[0]], [after], 0)
        assert write == "double" or not torch.equal(after, before)


def test_written_through_a_handle_taken_before() -> None:
    layer, _ = pair("GRU", {})
    x = make_input(layer, grad=False)
    handle = layer.weight_hh_l0.data
    array = layer.weight_hh_l0.detach().numpy()
    with torch.no_grad():
        outputs = [layer(x)[0]]
        handle[0] = 3
        outputs.append(layer(x)[0])
        array[1] = 4
        outputs.append(layer(x)[0])
        layer.weight_hh_l0[2] = 5
        outputs.append(layer(x)[0])
    for a, b in itertools.combinations(outputs, 2):
        assert not torch.equal(a, b)


def test_written_by_another_process(tmp_path: Path) -> None:
    """Or as if: through another mapping of the file that a weight is in."""
    layer, theirs = pair("GRU", {})
    x = make_input(layer, grad=False)
    weight = layer.weight_hh_l0
    file = tmp_path / "weight"
    file.write_bytes(weight.detach().numpy().tobytes())
    weight.data = torch.from_file(
        str(file), shared=True, size=weight.numel(), dtype=weight.dtype
    ).view_as(weight)
    with torch.no_grad():
        for _ in range(3):
            assert_same([layer(x)[0]], [theirs(x)[0]])
        version, address = weight._version, weight.data_ptr()
        np.memmap(file, "float64", "r+")[:3] += 1
        assert (weight._version, weight.data_ptr()) == (version, address)
        theirs.load_state_dict(layer.state_dict())
        assert_same([layer(x)[0]], [theirs(x)[0]])


def test_packs_only_when_something_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    layer, _ = pair("LSTM", {})
    x = make_input(layer, grad=False)
    seen: list[bool] = []
    pack = _core.pack

    def noted(spec: Any, arrays: Any, train: bool, *more: Any) -> Any:
        seen.append(train)
        return pack(spec, arrays, train, *more)

    monkeypatch.setattr(_core, "pack", noted)

    def packs(calls: int) -> int:
        seen.clear()
        for _ in range(calls):
            layer(x)
        return len(seen)

    with torch.no_grad():
        assert packs(5) == 2  # the second time with copies to compare with
        layer.bias_ih_l0 += 1
        assert packs(5) == 2
        layer.bias_ih_l0.data += 1
        assert packs(5) == 1  # they differ, and are copied again
        assert packs(5) == 0
    assert packs(5) == 2  # for training
    with torch.no_grad():
        assert packs(5) == 0  # which serves inference


def test_comparing_bits() -> None:
    """Of what the layer has packed and of what the weights are now."""
    zeros, ones = np.zeros((2, 3), "float32"), np.ones((2, 3), "float32")
    assert _core.same_bits([], [])
    assert _core.same_bits([zeros, ones], [zeros.copy(), ones.copy()])
    assert _core.same_bits([zeros * np.nan], [zeros * np.nan])
    large = np.zeros(2**20, "uint8")  # long enough to release the GIL
    assert _core.same_bits([large, zeros], [large.copy(), zeros])
    for others in ([zeros, zeros], [zeros], [zeros, ones, ones], [zeros, ones.T.copy()]):
        assert not _core.same_bits([zeros, ones], others)
    assert not _core.same_bits([zeros], [-zeros])
    for at in (0, -1):
        changed = large.copy()
        changed[at] = 1
        assert not _core.same_bits([zeros, large], [zeros, changed])
    with pytest.raises(ValueError, match="not contiguous"):
        _core.same_bits([zeros.T], [zeros.T])


def test_memory_is_shared() -> None:
    """The parameters stay where they are, and the gradients of training find them there."""
    layer, _ = pair("LSTM", {})
    addresses = [p.data_ptr() for p in layer.parameters()]
    flat_memory = torch.zeros(sum(p.numel() for p in layer.parameters()), dtype=torch.float64)
    layer(make_input(layer))[0].sum().backward()
    assert [p.data_ptr() for p in layer.parameters()] == addresses
    start = 0
    for p in layer.parameters():  # one block for all, as flattening optimizers make
        part = flat_memory[start : start + p.numel()].view_as(p)
        part.copy_(p.detach())
        p.data = part
        start += p.numel()
    x = make_input(layer, grad=False)
    with torch.no_grad():
        before = layer(x)[0]
        flat_memory += 0.5
        assert not torch.equal(layer(x)[0], before)


# Modes, types, places -----------------------------------------------------------------------------


def test_dropout() -> None:
    layer, theirs = pair("GRU", {"num_layers": 2, "dropout": 0.5})
    plain, _ = pair("GRU", {"num_layers": 2})
    plain.load_state_dict(layer.state_dict())
    x = make_input(layer, grad=False)

    def seeded() -> Any:
        torch.manual_seed(7)
        return layer(x)[0]

    assert torch.equal(seeded(), seeded())
    assert not torch.equal(layer(x)[0], layer(x)[0])
    with torch.no_grad():  # drops as well, as theirs does
        assert not torch.equal(layer(x)[0], layer(x)[0])
        assert torch.equal(seeded(), seeded())
        assert not torch.equal(theirs(x)[0], theirs(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], plain(x)[0])
    layer.train()
    ones = {
        name: torch.full_like(t, 1.0 if name == "bias_ih_l0" else 0.0)
        for name, t in layer.state_dict().items()
    }
    ones["weight_ih_l1"][2 * H :] = 1e-6  # where n is nearly linear
    layer.load_state_dict(ones)
    layer.eval()
    whole = layer(x)[0]
    layer.train()
    mean = torch.stack([layer(x)[0] for _ in range(400)]).mean(0)
    torch.testing.assert_close(mean, whole, rtol=0.25, atol=0)


def test_state_dict_is_theirs() -> None:
    for kind, options in CASES:
        mine, theirs = pair(kind, options)
        assert list(mine.state_dict()) == list(theirs.state_dict())
        assert [n for n, _ in mine.named_parameters()] == [n for n, _ in theirs.named_parameters()]
        theirs.reset_parameters()
        mine.load_state_dict(theirs.state_dict())
        assert repr(mine) == repr(theirs)
        assert isinstance(mine, getattr(nn, kind))
        torch.manual_seed(11)
        a = getattr(ours, kind)(I, H, **options)
        torch.manual_seed(11)
        b = getattr(nn, kind)(I, H, **options)
        assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


def test_types() -> None:
    layer = ours.LSTM(I, H)
    x = torch.randn(T, B, I)
    assert layer(x)[0].dtype == torch.float32
    assert layer.double()(x.double())[0].dtype == torch.float64
    with pytest.raises(
        ValueError, match=r"RNN input dtype \(torch\.float32\) does not match weight dtype"
    ):
        layer(x)
    with torch.no_grad(), pytest.raises(ValueError, match="hx has dtype"):
        layer(x.double(), (torch.zeros(1, B, H), torch.zeros(1, B, H)))
    with pytest.raises(TypeError, match=r"weights of torch\.float16, expected float32, float64 or"):
        layer.to(torch.float16)(x.to(torch.float16))
    message = r"input dtype \(torch\.float32\) does not match weight dtype \(torch\.bfloat16\)"
    with pytest.raises(ValueError, match=message):
        layer.to(torch.bfloat16)(x)
    layer.float().bias_hh_l0 = nn.Parameter(torch.zeros(4 * H, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"a weight has dtype torch\.float64"):
        layer(x)


def test_autocast() -> None:
    model = nn.Sequential(nn.Linear(I, I), ours.GRU(I, H))
    x = torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = model(x)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, model(x)[0], rtol=0, atol=0.05)
    y.sum().backward()


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_autocast_to_bfloat16_is_our_precision(kind: str) -> None:
    theirs = getattr(ours, kind)(I, H, num_layers=2, bidirectional=True)
    own = getattr(lc, kind)(I, H, num_layers=2, bidirectional=True, precision="bfloat16")
    own.load_state_dict(theirs.state_dict())
    x = torch.randn(T, B, I)
    with torch.autocast("cpu", torch.bfloat16):
        y, _ = theirs(x)
        with torch.inference_mode():
            inferred, _ = theirs(x)
    y.sum().backward()
    expected, _, tape = own.forward(x.numpy())
    own.backward(tape, np.ones_like(expected))
    for tensor in (y, inferred):
        np.testing.assert_array_equal(tensor.detach().numpy(), expected)
    for name, p in own.named_parameters():
        np.testing.assert_array_equal(theirs.get_parameter(name).grad.numpy(), p.grad)
    with torch.autocast("cpu", torch.float16), torch.inference_mode():
        exact, _ = theirs(x)
    own.precision = "float32"
    np.testing.assert_array_equal(exact.numpy(), own(x.numpy())[0])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_modules_in_bfloat16(kind: str) -> None:
    layer = getattr(ours, kind)(I, H, num_layers=2).bfloat16()
    truth = getattr(nn, kind)(I, H, num_layers=2).double()
    truth.load_state_dict(layer.state_dict())
    x = torch.randn(T, B, I).bfloat16().requires_grad_()
    x64 = x.detach().double().requires_grad_()
    y, state = layer(x)
    expected, _ = truth(x64)
    assert {t.dtype for t in (y, *(state if kind == "LSTM" else (state,)))} == {torch.bfloat16}
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=0.02)
    y.float().square().sum().backward()
    expected.square().sum().backward()
    for mine, true in [(x, x64), *zip(layer.parameters(), truth.parameters(), strict=True)]:
        assert mine.grad.dtype == torch.bfloat16
        scale = float(true.grad.abs().max())
        torch.testing.assert_close(mine.grad.double(), true.grad, rtol=0, atol=0.05 * scale)
    with torch.inference_mode():
        again, _ = layer(x, state)  # states go in as they came out
        torch.testing.assert_close(layer(x)[0], y, rtol=0, atol=0)
    assert again.dtype == torch.bfloat16


def test_hx_is_checked() -> None:
    """And refused before anything is computed, not in the backward."""
    x, h = torch.zeros(T, B, I), torch.zeros(1, B, H)
    hx: Any
    for hx, error, message in (
        ((h, h, h), RuntimeError, "hx has 3 tensors, expected two"),
        ((h,), RuntimeError, "hx has 1 tensors"),
        (torch.stack([h, h]), TypeError, "hx is a Tensor, expected a pair"),
        ((None, None), TypeError, "hx has a NoneType, expected tensors"),
    ):
        with pytest.raises(error, match=message):
            ours.LSTM(I, H)(x, hx)
    for kind in (ours.GRU, ours.RNN):
        with pytest.raises(TypeError, match=f"{kind.__name__}: hx has a tuple, expected tensors"):
            kind(I, H)(x, (h,))
    y, _ = ours.LSTM(I, H)(x, [h, h])  # as torch.nn does
    assert y.shape == (T, B, H)


def test_no_steps() -> None:
    h = torch.ones(1, B, H)
    y, last = ours.GRU(I, H)(torch.zeros(0, B, I), h)
    assert y.shape == (0, B, H)
    assert torch.equal(last, h)


def test_the_cpu_only() -> None:
    layer = ours.GRU(I, H, device="meta")
    with pytest.raises(RuntimeError, match=r"lstmcore\.torch\.GRU runs on the CPU only, but input"):
        layer(torch.zeros(T, B, I, device="meta"))
    with pytest.raises(RuntimeError, match="a weight is on meta"):
        layer(torch.zeros(T, B, I))
    layer = layer.to_empty(device="cpu")
    layer.reset_parameters()
    layer(torch.zeros(T, B, I))
    with pytest.raises(RuntimeError, match="hx is on meta"):
        layer(torch.zeros(T, B, I), torch.zeros(1, B, H, device="meta"))


def test_a_dropout_of_one_is_refused() -> None:
    with pytest.raises(ValueError, match="dropout is 1, expected less than 1"):
        ours.GRU(I, H, 2, dropout=1.0)(torch.zeros(T, B, I))


# Where PyTorch writes down or transforms what is computed -----------------------------------------


class Tagger(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self, kind: str = "GRU") -> None:
        super().__init__()
        self.rnn = getattr(ours, kind)(I, H, batch_first=True)
        self.head = nn.Linear(H, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y, _ = self.rnn(x)
        return self.head(y[:, -1])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_traced_and_exported(kind: str, tmp_path: Path) -> None:
    """torch.nn's own layer stands in, with the same parameters."""
    model = Tagger(kind)
    x = torch.randn(B, T, I)
    expected = model(x).detach()
    for made in (
        torch.jit.trace(model, x),
        torch.fx.symbolic_trace(model),
        torch.export.export(model, (x,)).module(),
    ):
        torch.testing.assert_close(made(x).detach(), expected, rtol=0, atol=1e-6)
    torch.jit.trace(model, x).save(tmp_path / "model.pt")
    weights = lc.load_torch(tmp_path / "model.pt")
    assert {f"rnn.{n}" for n in model.rnn.state_dict()} <= set(weights)
    with torch.no_grad():
        assert torch.equal(model(x), expected)  # which is as it was
    with pytest.raises(RuntimeError, match=rf"lstmcore\.torch\.{kind} cannot be scripted"):
        torch.jit.script(model)
    assert type(model.rnn) is getattr(ours, kind)
    with pytest.raises(RuntimeError, match=rf"torch\.{kind} cannot be traced by itself"):
        torch.fx.symbolic_trace(model.rnn)
    model.rnn.__class__ = getattr(nn, kind)
    torch.testing.assert_close(torch.jit.script(model)(x).detach(), expected, rtol=0, atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_torch_func(kind: str) -> None:
    mine, theirs = pair(kind, {})
    x = make_input(mine, grad=False)
    call = torch.func.functional_call
    for transform in (torch.func.grad, torch.func.jacrev):

        def values(layer: Any, transform: Any = transform) -> Any:
            scalar = transform is torch.func.grad
            return transform(lambda v: layer(v)[0].sum() if scalar else layer(v)[0])(x)

        torch.testing.assert_close(values(mine), values(theirs), rtol=0, atol=1e-12)
    weights = [
        torch.func.grad(lambda p, m=m: call(m, p, (x,))[0].square().sum())(
            dict(m.named_parameters())
        )
        for m in (mine, theirs)
    ]
    assert_same(list(weights[0].values()), list(weights[1].values()))
    for transform, message in (
        (torch.func.vmap(lambda v: mine(v)[0]), "within vmap"),
        (torch.func.vmap(torch.func.grad(lambda v: mine(v)[0].sum())), "within vmap"),
        (torch.func.jacfwd(lambda v: mine(v)[0]), "no forward-mode derivatives"),
        (torch.func.hessian(lambda v: mine(v)[0].sum()), "no forward-mode derivatives"),
    ):
        with pytest.raises(RuntimeError, match=rf"lstmcore\.torch\.{kind} .*{message}"):
            transform(x[None] if "vmap" in message else x)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_tensors_of_another_layout_are_refused() -> None:
    mine = lc.torch.LSTM(3, 4)
    rows = [torch.ones(3, 3), torch.ones(2, 3)]
    for given in (
        torch.nested.nested_tensor(rows, layout=torch.jagged),
        torch.ones(5, 2, 3).to_sparse(),
    ):
        with pytest.raises(TypeError, match=r"lstmcore\.torch\.LSTM: input is laid out as torch\."):
            mine(given)


@pytest.mark.parametrize(("kind", "options"), CASES)
def test_many_gradients_at_once(kind: str, options: dict[str, Any]) -> None:
    mine, theirs = pair(kind, options)
    x = make_input(mine)
    jacobian = torch.autograd.functional.jacobian
    for take in (lambda out: out[0], lambda out: flat(out[1])[-1]):
        torch.testing.assert_close(
            jacobian(lambda v, take=take: take(mine(v)), x, vectorize=True),
            jacobian(lambda v, take=take: take(theirs(v)), x),
            rtol=0,
            atol=1e-12,
        )
    y = mine(x)[0]
    many = torch.randn(3, *y.shape, dtype=y.dtype)
    leaves = [x, *mine.parameters()]
    batched = torch.autograd.grad(y, leaves, many, retain_graph=True, is_grads_batched=True)
    mapped = torch.func.vmap(lambda g: torch.autograd.grad(y, leaves, g, retain_graph=True))(many)
    for i, one in enumerate(many):
        expected = torch.autograd.grad(y, leaves, one, retain_graph=True)
        for rows in (batched, mapped):
            for a, b in zip(rows, expected, strict=True):
                assert torch.equal(a[i], b)


def test_classes_derived_from_tensor_stay() -> None:
    class Mine(torch.Tensor):  # type: ignore[misc]
        pass

    mine, theirs = pair("LSTM", {})
    for batched in (True, False):
        x = make_input(mine, batched=batched, grad=False).as_subclass(Mine)
        for a, b in zip(flat(mine(x)), flat(theirs(x)), strict=True):
            assert type(a) is type(b) is Mine
            torch.testing.assert_close(
                a.as_subclass(torch.Tensor), b.as_subclass(torch.Tensor), rtol=0, atol=1e-12
            )
        mine(x)[0].sum().backward()


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.parametrize("grad", [False, True])
def test_forward_mode_is_refused(grad: bool) -> None:
    """It has to be: under no_grad, too, tangents would get lost."""
    layer, _ = pair("GRU", {})
    layer.requires_grad_(False)
    x = make_input(layer, grad=False)
    with torch.autograd.forward_ad.dual_level(), torch.set_grad_enabled(grad):
        layer(x)
        with pytest.raises(RuntimeError, match="no forward-mode derivatives"):
            layer(torch.autograd.forward_ad.make_dual(x, x))


WRONG: list[Callable[[Any], Any]] = [
    lambda layer: layer(torch.zeros(T, B, I + 1, dtype=torch.float64)),
    lambda layer: layer(torch.zeros(I, dtype=torch.float64)),
    lambda layer: layer(torch.zeros(1, T, B, I, dtype=torch.float64)),
    lambda layer: layer(torch.zeros(T, B, I)),
    lambda layer: layer(make_input(layer), torch.zeros(1, B + 1, H, dtype=torch.float64)),
    lambda layer: layer(make_input(layer), torch.zeros(2, B, H, dtype=torch.float64)),
    lambda layer: layer(make_input(layer), torch.zeros(1, B, H + 1, dtype=torch.float64)),
    lambda layer: layer(make_input(layer), torch.zeros(1, H, dtype=torch.float64)),
    lambda layer: layer(make_input(layer)[0], torch.zeros(1, B, H, dtype=torch.float64)),
    lambda layer: type(layer)(0, H),
    lambda layer: type(layer)(I, 0),
    lambda layer: type(layer)(I, H, 0),
    lambda layer: type(layer)(I, 2.5),
    lambda layer: type(layer)(I, H, bias=1),
    lambda layer: type(layer)(I, H, dropout=2.0),
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_wrong_calls_raise_what_theirs_raise(number: int) -> None:
    mine, theirs = pair("GRU", {})
    with pytest.raises((ValueError, RuntimeError, TypeError)) as expected:
        WRONG[number](theirs)
    with pytest.raises(expected.type):
        WRONG[number](mine)


# Life in a program --------------------------------------------------------------------------------


def test_copies() -> None:
    layer, _ = pair("LSTM", {"num_layers": 2})
    x = make_input(layer, grad=False)
    with torch.no_grad():
        expected = layer(x)[0]
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    for twin in (
        copy.deepcopy(layer),
        pickle.loads(pickle.dumps(layer)),
        torch.load(file, weights_only=False),
    ):
        assert type(twin) is ours.LSTM
        with torch.no_grad():
            assert torch.equal(twin(x)[0], expected)
            twin.weight_hh_l0.zero_()
            assert not torch.equal(twin(x)[0], expected)
            assert torch.equal(layer(x)[0], expected)


def test_takes_the_place_of_a_layer_in_a_model() -> None:
    """By assignment of the class alone, the shortest way that people take."""
    theirs = nn.LSTM(I, H, batch_first=True)
    x = torch.randn(B, T, I)
    expected = theirs(x)[0].detach()
    theirs.__class__ = ours.LSTM
    with torch.no_grad():
        torch.testing.assert_close(theirs(x)[0], expected, rtol=0, atol=1e-6)


def test_parametrized_weights() -> None:
    mine, theirs = pair("GRU", {})
    for layer in (mine, theirs):
        nn.utils.parametrizations.weight_norm(layer, "weight_hh_l0")
    x = make_input(mine)
    results = []
    for layer in (mine, theirs):
        y, _ = layer(x)
        results.append((y, *torch.autograd.grad(y.square().sum(), list(layer.parameters()))))
    assert_same(*results)
    with torch.no_grad():
        before = mine(x)[0]
        mine.parametrizations.weight_hh_l0.original0 *= 2
        assert not torch.equal(mine(x)[0], before)


def test_learns_as_theirs_does() -> None:
    mine, theirs = pair("LSTM", {"num_layers": 2, "bidirectional": True})
    x = torch.randn(T, B, I, dtype=torch.float64)
    target = torch.randn(T, B, 2 * H, dtype=torch.float64)
    losses = []
    for layer in (mine, theirs):
        optimizer = torch.optim.Adam(layer.parameters(), lr=0.01)
        for _ in range(20):
            loss = (layer(x)[0] - target).square().mean()
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(layer.parameters(), 0.5)
            optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(losses[1], abs=1e-10)


def test_threads() -> None:
    layer, _ = pair("GRU", {})
    inputs = [make_input(layer, grad=False) for _ in range(4)]
    expected = [layer(x)[0].detach() for x in inputs]
    wrong = []

    def work(i: int) -> None:
        for _ in range(50):
            with torch.no_grad():
                if not torch.equal(layer(inputs[i])[0], expected[i]):
                    wrong.append(i)

    in_threads(work, 4)
    assert wrong == []


class Encoded(torch.utils.data.Dataset):  # type: ignore[misc]
    """Runs the layer in the worker that loads the data."""

    def __init__(self, layer: Any, x: Any) -> None:
        self.layer = layer
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        with torch.no_grad():
            return self.layer(self.x[i])[0]


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_in_workers_of_a_data_loader(start: str) -> None:
    layer, _ = pair("LSTM", {})
    x = torch.randn(6, T, I, dtype=torch.float64)
    with torch.no_grad():
        expected = torch.stack([layer(row)[0] for row in x])
    loader = torch.utils.data.DataLoader(
        Encoded(layer, x), batch_size=2, num_workers=2, multiprocessing_context=start
    )
    assert torch.equal(torch.cat(list(loader)), expected)


WORKER = """
import sys
import torch
import torch.distributed as dist
from torch import nn
import lstmcore.torch as ours

rank, store, result, how = int(sys.argv[1]), *sys.argv[2:]
dtype = {"autocast": torch.float32}.get(how) or getattr(torch, how)
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
torch.manual_seed(rank)  # DistributedDataParallel makes the first numbers those of rank 0

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = ours.LSTM(3, 5, num_layers=2, batch_first=True, dtype=dtype)
        self.head = nn.Linear(5, 2, dtype=dtype)

    def forward(self, x):
        return self.head(self.lstm(x)[0][:, -1])

model = nn.parallel.DistributedDataParallel(Model())
generator = torch.Generator().manual_seed(0)
x = torch.randn(8, 7, 3, dtype=torch.float64, generator=generator).to(dtype)
target = torch.randn(8, 2, dtype=torch.float64, generator=generator).to(dtype)
first = {name: t.clone() for name, t in model.module.state_dict().items()}
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad()
    with torch.autocast("cpu", torch.bfloat16, enabled=how == "autocast"):
        loss = (model(x[rank::2]) - target[rank::2]).square().mean()
    loss.backward()
    optimizer.step()
torch.save({"first": first, "last": model.module.state_dict()}, result)
dist.destroy_process_group()
"""


# What the parameters differ by from those of PyTorch in float64, and whether they have to.
@pytest.mark.parametrize(
    ("how", "least", "most"),
    [("float64", 0, 1e-13), ("autocast", 1e-5, 3e-3), ("bfloat16", 1e-4, 2e-2)],
)
def test_distributed_data_parallel(how: str, least: float, most: float, tmp_path: Path) -> None:
    """Two processes with half of the batch each do what one does with all of it."""
    results = [tmp_path / f"{rank}.pt" for rank in range(2)]
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(rank), str(tmp_path / "store"), str(result), how],
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, result in enumerate(results)
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=120)
        assert worker.returncode == 0, errors
    saved = [lc.load_torch(result) for result in results]
    for name, array in saved[0]["last"].items():
        np.testing.assert_array_equal(array, saved[1]["last"][name])

    model = nn.ModuleDict(
        {
            "lstm": nn.LSTM(3, 5, num_layers=2, batch_first=True),
            "head": nn.Linear(5, 2),
        }
    ).double()
    first = {k: torch.from_numpy(v).double() for k, v in saved[0]["first"].items()}
    model.load_state_dict(first)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 7, 3, dtype=torch.float64, generator=generator)
    target = torch.randn(8, 2, dtype=torch.float64, generator=generator)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        (model["head"](model["lstm"](x)[0][:, -1]) - target).square().mean().backward()
        optimizer.step()
    last = model.state_dict()
    difference = max(np.abs(saved[0]["last"][k] - t.numpy()).max() for k, t in last.items())
    assert least <= difference <= most
    moved = max(float((last[k] - first[k]).abs().max()) for k in last)
    assert moved > 5 * most


# In a Sequential ----------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("name", ["LastStep", "MeanPool", "MaxPool", "BothEnds"])
def test_pooling(name: str, batch_first: bool) -> None:
    for shape in ((T, B, 6), (T, 6)):
        y = torch.randn(shape)
        mine = getattr(ours, name)(batch_first)
        expected = getattr(lc, name)(batch_first=batch_first)(y.numpy())
        np.testing.assert_allclose(mine(y).numpy(), expected, rtol=0, atol=1e-6)


def test_missing_torch_is_named() -> None:
    code = """
import sys
sys.modules["torch"] = None
import lstmcore as lc
def named():
    from lstmcore.torch import LSTM
for call in (
    named, lambda: lc.torch.LSTM, lambda: lc.to_torch(lc.GRU(2, 3)), lambda: lc.from_torch(3)
):
    try:
        call()
    except (ImportError, AttributeError) as error:
        assert 'pip install "lstmcore[torch]"' in str(error), error
        print(type(error).__name__)
assert not hasattr(lc.torch, "GRU")
assert hasattr(lc.torch, "load_torch") and "GRU" in dir(lc.torch)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    expected = ["ImportError", "AttributeError", "ImportError", "ImportError"]
    assert done.stdout.split() == expected
