"""Parameters that several modules have."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.numeric import assert_same_bits
from helpers.peers import require

T, B, WORDS = 6, 3, 7
IDS = np.random.default_rng(0).integers(0, WORDS, (T + 1, B))


def network(kind: str, **d: Any) -> Any:
    embedding = lc.Embedding(WORDS, 4, seed=0, **d)
    layer = lc.GRU(4, 4, seed=1, **d)
    head = lc.Linear(4, WORDS, seed=2, **d).tie("weight", embedding)
    if kind == "chain":
        return lc.Sequential(embedding, layer, head)
    x = lc.Input(ids=True)
    y = embedding(x)
    return lc.Model(x, head(y + layer(y)[0]))


def parts(model: Any) -> tuple[Any, Any]:
    *_, embedding, head = (
        m for _, m in model._modules() if isinstance(m, (lc.Embedding, lc.Linear))
    )
    return embedding, head


def train(model: Any, epochs: int = 10, **options: Any) -> Any:
    return lc.fit(
        model, [(IDS[:-1], IDS[1:])], loss="cross_entropy", epochs=epochs, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.02), **options,
    )  # fmt: skip


kinds = pytest.mark.parametrize("kind", ["chain", "graph"])


@kinds
def test_it_is_one_parameter(kind: str) -> None:
    model = network(kind, dtype="float64")
    embedding, head = parts(model)
    assert sum(p is embedding.parameters()[0] for p in model.parameters()) == 1
    assert model.num_parameters == WORDS * 4 + 6 * 16 + 24 + WORDS
    lc.gradcheck(model, IDS[:2])
    before = train(model).losses
    assert before[-1] < before[0]
    assert_same_bits(head.state_dict()["weight"], embedding.state_dict()["weight"])
    # A change through either is seen by both, by streams and by weights that are packed.
    stream = model.stream(B)
    y = model(IDS)
    assert_same_bits(stream.process(IDS), y)
    model.state_dict()
    embedding.parameters()[0].data[...] *= 2
    assert not np.array_equal(model(IDS), y)
    assert_same_bits(model.stream(B).process(IDS), model(IDS))


@kinds
def test_what_is_made_of_it_is_tied(kind: str, tmp_path: Path) -> None:
    model = network(kind)
    path = tmp_path / "model.safetensors"
    train(model, 4, callbacks=lc.callbacks.Checkpoint(tmp_path / "run.safetensors"))
    lc.save(model, path)
    made = [lc.load(path), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    again = network(kind)
    train(again, 4, resume=tmp_path / "run.safetensors")
    for other in [*made, again]:
        assert other == model
        assert_same_bits(other(IDS), model(IDS))
        assert other.state_dict().keys() == model.state_dict().keys()
        embedding, head = parts(other)
        assert embedding.parameters()[0] is head.parameters()[0]
    assert train(made[0], 3).losses == train(made[1], 3).losses
    quantized = lc.quantize(model)
    lc.save(quantized, path)
    assert_same_bits(lc.load(path)(IDS), quantized(IDS))


@kinds
def test_as_in_pytorch(kind: str) -> None:
    torch = require("torch")
    model = network(kind)

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = torch.nn.Embedding(WORDS, 4), torch.nn.GRU(4, 4)
            self.c = torch.nn.Linear(4, WORDS)
            self.c.weight = self.a.weight

        def forward(self, x: Any) -> Any:
            y = self.a(x)
            return self.c(self.b(y)[0] + (y if kind == "graph" else 0))

    theirs = Network()
    # PyTorch has the weight twice. Half of them is enough, both have to be the same.
    names = dict(zip("abc", model._children, strict=True))
    state = {names[k[0]] + k[1:]: v for k, v in theirs.state_dict().items()}
    model.load_state_dict(state)
    first, second = names["a"] + ".weight", names["c"] + ".weight"
    model.load_state_dict({k: v for k, v in state.items() if k != first})
    with pytest.raises(ValueError, match=f"{second} is not {first}, expected the same"):
        model.load_state_dict({**state, second: state[second] + 1})
    with pytest.raises(ValueError, match=f"{second} cannot be read"):
        model.load_state_dict({**state, second: state[second].to("meta")})
    half = {k: v.bfloat16() for k, v in state.items()}
    model.load_state_dict(half)
    np.testing.assert_array_equal(model.state_dict()[first], half[second].float())
    model.load_state_dict(state)
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.5)
    x, target = torch.tensor(IDS[:-1]), torch.tensor(IDS[1:])
    expected = []
    for _ in range(5):
        loss = torch.nn.functional.cross_entropy(theirs(x).flatten(0, 1), target.flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        expected.append(loss.item())
    found = lc.fit(
        model, [(IDS[:-1], IDS[1:])], loss="cross_entropy", epochs=5, progress=False,
        optimizer=lc.optim.SGD(model.parameters(), lr=0.5),
    )  # fmt: skip
    np.testing.assert_allclose(found.losses, expected, rtol=1e-5)


@kinds
def test_other_formats_have_it_twice(kind: str) -> None:
    require("keras")
    model = network(kind)
    back = lc.from_onnx(lc.to_onnx(model))
    np.testing.assert_allclose(back(IDS), model(IDS), atol=1e-6)
    back = lc.from_keras(lc.to_keras(model))
    np.testing.assert_allclose(back(IDS.T), model(IDS).swapaxes(0, 1), atol=1e-6)


@kinds
def test_to_pytorch_and_back_it_stays_one(kind: str) -> None:
    torch = require("torch")
    model = network(kind, dtype="float64")
    theirs = lc.to_torch(model)
    names = dict(zip("abc", model._children, strict=True))
    head, embedding = (theirs.get_submodule(names[n]) for n in "ca")
    assert head.weight is embedding.weight
    assert sum(p.numel() for p in theirs.parameters()) == model.num_parameters
    np.testing.assert_allclose(theirs(torch.tensor(IDS)).detach(), model(IDS), atol=1e-12)
    back = lc.from_torch(theirs)
    embedding, head = parts(back)
    assert embedding.parameters()[0] is head.parameters()[0]
    assert back.num_parameters == model.num_parameters
    np.testing.assert_allclose(back(IDS), model(IDS), atol=1e-12)
    # Trained in both, they stay the same.
    sgd = torch.optim.SGD(theirs.parameters(), lr=0.5)
    expected = []
    for _ in range(4):
        y = theirs(torch.tensor(IDS[:-1]))
        loss = torch.nn.functional.cross_entropy(y.flatten(0, 1), torch.tensor(IDS[1:]).flatten())
        sgd.zero_grad()
        loss.backward()
        sgd.step()
        expected.append(loss.item())
    found = lc.fit(
        back, [(IDS[:-1], IDS[1:])], loss="cross_entropy", epochs=4, progress=False,
        optimizer=lc.optim.SGD(back.parameters(), lr=0.5),
    )  # fmt: skip
    np.testing.assert_allclose(found.losses, expected, rtol=1e-9)


def test_layers_of_pytorch_that_share_a_matrix() -> None:
    torch = require("torch")
    a, b = torch.nn.LSTM(4, 4), torch.nn.LSTM(4, 4)
    b.weight_hh_l0, b.bias_ih_l0 = a.weight_hh_l0, a.bias_ih_l0
    theirs = torch.nn.Sequential(a, lc.torch.Output(), b)
    ours = lc.from_torch(theirs)
    assert ours.num_parameters == sum(p.numel() for p in theirs.parameters())
    x = np.random.default_rng(0).standard_normal((T, B, 4)).astype("f4")
    back = lc.to_torch(ours)
    assert back[2].weight_hh_l0 is back[0].weight_hh_l0
    with torch.no_grad():
        back[0].weight_hh_l0 *= 2  # which the layer computes with, too
        a.weight_hh_l0 *= 2
    ours[0].parameters()[1].data[...] *= 2
    for made in (theirs, back):
        y = made(torch.tensor(x))
        y = y[0] if isinstance(y, tuple) else y
        np.testing.assert_allclose(y.detach(), ours(x), atol=1e-5)
    b.weight_ih_l0 = b.weight_hh_l0
    with pytest.raises(ValueError, match=r"weight_ih_l0 and weight_hh_l0 of LSTM.* are one param"):
        lc.from_torch(b)


def test_in_int8_matrices_and_their_scales_stay_one(tmp_path: Path) -> None:
    a, b = lc.LSTM(4, 4, seed=0), lc.LSTM(4, 4, seed=1)
    b.tie("weight_hh_l0", a).tie("bias_ih_l0", a)
    model = lc.Sequential(a, b, lc.Linear(4, 4, seed=2).tie("weight", lc.Linear(4, 4, seed=3)))
    small = lc.quantize(model)
    lc.save(small, tmp_path / "small.safetensors")
    x = np.random.default_rng(0).standard_normal((T, B, 4)).astype("f4")
    for made in (small, lc.load(tmp_path / "small.safetensors"), copy.deepcopy(small)):
        first, second = (dict(layer._parameters) for layer in list(made)[:2])
        for name in ("weight_hh_l0", "weight_hh_l0_scale", "bias_ih_l0"):
            assert first[name] is second[name]
        assert first["weight_ih_l0"] is not second["weight_ih_l0"]
        assert "1.weight_hh_l0" not in made.state_dict()
        assert_same_bits(made(x), small(x))
    untied = lc.Sequential(*(type(m)(4, 4) for m in model))
    state = model.state_dict()
    state |= {f"1.{n}": state[f"0.{n}"] for n in ("weight_hh_l0", "bias_ih_l0")}
    untied.load_state_dict(state)
    assert_same_bits(lc.quantize(untied)(x), small(x))
    embedding, head = parts(lc.quantize(network("chain")))
    for name, dtype in (("weight", "int8"), ("weight_scale", "float32")):
        assert embedding._parameters[name] is head._parameters[name]
        assert head._parameters[name].dtype == dtype


def test_layers_that_share_a_matrix() -> None:
    a, b = lc.LSTM(3, 4, seed=0), lc.LSTM(3, 4, seed=1)
    b.tie("weight_hh_l0", a).tie("weight_ih_l0", a)
    c = lc.LSTM(4, 4, seed=2).tie("weight_ih_l0", a, "weight_hh_l0")
    model = lc.Sequential(a, lc.Linear(4, 3), b, c)
    x = np.ones((T, B, 3), "f4")
    y, tape = model.forward(x)
    model.backward(tape, np.ones_like(y))
    assert len({id(p) for p in model.parameters()}) == 3 * 4 + 2 - 3
    model(x)  # packs all of them
    a.load_state_dict(lc.LSTM(3, 4, seed=5).state_dict())
    for layer, untied in ((b, lc.LSTM(3, 4)), (c, lc.LSTM(4, 4))):
        untied.load_state_dict(layer.state_dict())
        values = np.ones((T, B, layer.input_size), "f4")
        assert_same_bits(layer(values)[0], untied(values)[0])


class Own(lc.Module):
    def __init__(self) -> None:
        self.weight = lc.Parameter("weight", np.ones((7, 4), "f4"))


def test_what_does_not_fit_is_refused() -> None:
    embedding, head = lc.Embedding(7, 4), lc.Linear(4, 7)
    for module, args, error, message in [
        (lc.Linear(4, 6), ("weight", embedding), ValueError, r"shape \(7, 4\).* \(6, 4\)"),
        (head, ("bias", lc.Linear(4, 7, dtype="float64")), ValueError, "dtype float64, expected"),
        (head, ("weigth", embedding), ValueError, "'weigth', expected one of weight, bias"),
        (head, ("bias", embedding), ValueError, r"Embedding\(7, 4\) has no parameter 'bias'"),
        (head, ("weight", lc.Embedding(7, 4, sparse=True)), ValueError, "has sparse=True"),
        (head, ("weight", lc.Sequential(embedding)), TypeError, "no parameters of its own"),
        (Own(), ("weight", embedding), TypeError, "in a module of your own, set the attribute"),
    ]:
        before = head.state_dict()
        with pytest.raises(error, match=message):
            module.tie(*args)
        assert_same_bits(head.state_dict(), before)
    lc.Linear(4, 7).tie("weight", embedding)
    with pytest.raises(ValueError, match="is tied to another module already"):
        embedding.tie("weight", lc.Linear(4, 7))


def test_no_module_has_a_parameter_twice() -> None:
    a, b = lc.RNN(4, 4, seed=0), lc.RNN(4, 4, seed=1)
    with pytest.raises(ValueError, match="has that as weight_ih_l0 already"):
        a.tie("weight_hh_l0", a, "weight_ih_l0")
    b.tie("weight_ih_l0", a)
    with pytest.raises(ValueError, match="has that as weight_ih_l0 already"):
        b.tie("weight_hh_l0", a, "weight_ih_l0")
    assert len({id(p) for p in b.parameters()}) == 4


def test_damaged_files(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    lc.save(network("chain"), path)
    data = path.read_bytes()
    tied = b'{\\"2.weight\\": \\"0.weight\\"}'
    assert tied in data
    data = re.sub(rb"\\ncrc32:.{8}", b" " * 16, data)
    assert lc.load(data)(IDS).shape == (T + 1, B, WORDS)
    for other, message in [
        (b'{\\"2.weight\\": \\"0.weighs\\"}', "it ties parameters that are not there"),
        (b'{\\"2.weighs\\": \\"0.weight\\"}', "has no parameter 'weighs'"),
        (b'{\\"4.weight\\": \\"0.weight\\"}', "which are not both there"),
        (b'{\\"2.weight\\": \\"2.bias\\"}  ', "larger than its parameters"),
        (b'[\\"2.weight\\", \\"0.weight\\"]', "it ties parameters that are not there"),
    ]:
        assert len(other) == len(tied)
        with pytest.raises(ValueError, match=f"damaged: .*{message}"):
            lc.load(data.replace(tied, other))
