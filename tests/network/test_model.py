"""Networks of any shape: what they compute, train, keep and refuse."""

from __future__ import annotations

import copy
import pickle
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers.networks import ATTENTION, NETWORKS, values_of
from helpers.numeric import assert_same_bits
from helpers.peers import require
from lstmcore._base.tree import leaves, rebuilt
from lstmcore._network.summary import nodes

D: dict[str, Any] = {"dtype": "float64"}
T, B = 6, 4


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def two_inputs() -> tuple[Any, Any, Any, Any]:
    """A sequence and static features, one target per step."""
    sequence, static = lc.Input(3), lc.Input(2, steps=False)
    x = lc.concat([sequence, lc.repeat(static, like=sequence)])
    y, _ = lc.LSTM(5, 6, seed=0, **D)(x)
    x = {"sequence": rng(0).standard_normal((T, B, 3)), "static": rng(1).standard_normal((B, 2))}
    model = lc.Model({"sequence": sequence, "static": static}, lc.Linear(6, 2, seed=1, **D)(y))
    return model, x, rng(2).standard_normal((T, B, 2)), lc.losses.mse


def both(pred: Any, target: Any, lengths: Any = None) -> Any:
    """The sum of two losses, one per step, one per row."""
    a, da = lc.losses.mse(pred["steps"], target["steps"], lengths)
    b, db = lc.losses.cross_entropy(pred["rows"], target["rows"])
    return a + b, {"steps": da, "rows": db}


def two_heads() -> tuple[Any, Any, Any, Any]:
    x = lc.Input(3)
    y, h = lc.GRU(3, 6, seed=0, **D)(x)
    heads = {"steps": lc.Linear(6, 3, seed=1, **D)(y), "rows": lc.Linear(6, 4, seed=2, **D)(h[-1])}
    target = {"steps": rng(1).standard_normal((T, B, 3)), "rows": np.arange(4) % 3}
    return lc.Model(x, heads), rng(0).standard_normal((T, B, 3)), target, both


def residual_stack() -> tuple[Any, Any, Any, Any]:
    x = y = lc.Input(4)
    for i in range(3):
        y = y + lc.Dropout(0.1, seed=i)(lc.RNN(4, 4, seed=i, **D)(lc.LayerNorm(4, **D)(y))[0])
    target = rng(1).standard_normal((T, B, 4))
    return lc.Model(x, y), rng(0).standard_normal((T, B, 4)), target, lc.losses.mse


def autoencoder() -> tuple[Any, Any, Any, Any]:
    x = lc.Input(3)
    _, (h, _) = lc.LSTM(3, 5, seed=0, **D)(x)
    y, _ = lc.LSTM(5, 6, seed=1, **D)(lc.repeat(h[-1], like=x))
    values = rng(0).standard_normal((T, B, 3))
    return lc.Model(x, lc.Linear(6, 3, seed=2, **D)(y)), values, values, lc.losses.mse


def encoder_decoder() -> tuple[Any, Any, Any, Any]:
    source, previous = lc.Input(ids=True), lc.Input(ids=True)
    embedding = lc.Embedding(7, 4, seed=0, **D)
    _, state = lc.LSTM(4, 5, 2, seed=1, **D)(embedding(source))
    y, _ = lc.LSTM(4, 5, 2, seed=2, **D)(embedding(previous), state)
    model = lc.Model([source, previous], lc.Linear(5, 7, seed=3, **D)(y))
    ids = rng(0).integers(0, 7, (T, B)), rng(1).integers(0, 7, (T - 1, B))
    return model, ids, rng(2).integers(0, 7, (T - 1, B)), lc.losses.cross_entropy


class Tied(lc.Module):
    """Scores of all words from the vectors that an Embedding has for them."""

    def __init__(self, embedding: lc.Embedding) -> None:
        self.embedding = embedding

    @property
    def weight(self) -> lc.Parameter:
        return self.embedding.parameters()[0]

    def forward(self, x: Any) -> Any:
        weight = self.weight.data.copy()
        return x @ weight.T, (x, weight)

    def backward(self, tape: Any, dy: Any) -> Any:
        x, weight = tape
        self.weight.grad += dy.reshape(-1, len(weight)).T @ x.reshape(-1, x.shape[-1])
        return dy @ weight


def tied_weights() -> tuple[Any, Any, Any, Any]:
    x = lc.Input(ids=True)
    embedding = lc.Embedding(7, 4, seed=0, **D)
    y, _ = lc.GRU(4, 4, seed=1, **D)(embedding(x))
    ids = rng(0).integers(0, 7, (T + 1, B))
    return lc.Model(x, Tied(embedding)(y)), ids[:-1], ids[1:], lc.losses.cross_entropy


SHAPES: dict[str, Callable[[], tuple[Any, Any, Any, Any]]] = {
    f.__name__: f
    for f in (
        two_inputs, two_heads, residual_stack, autoencoder, encoder_decoder, tied_weights,
    )
}  # fmt: skip
shapes = pytest.mark.parametrize("name", SHAPES)


@shapes
def test_every_shape_trains(name: str, tmp_path: Path) -> None:
    """By fit, with callbacks and a checkpoint, and the run goes on from there to the same bits."""
    model, x, target, loss = SHAPES[name]()

    def fit(model: Any, epochs: int, **options: Any) -> Any:
        return lc.fit(
            model, [(x, target)], loss=loss, epochs=epochs, progress=False,
            optimizer=lc.optim.Adam(model.parameters(), lr=0.02), **options,
        )  # fmt: skip

    path = tmp_path / "run.safetensors"
    before = lc.evaluate(model, [(x, target)], loss=loss)["loss"]
    best = lc.callbacks.EarlyStopping(patience=100)
    history = fit(model, 20, callbacks=[best, lc.callbacks.Checkpoint(path)])
    assert history.losses[-1] < 0.9 * before
    again = SHAPES[name]()[0]
    resumed = fit(again, 25, resume=path)
    assert resumed.losses[:20] == history.losses
    straight = SHAPES[name]()[0]
    assert fit(straight, 25).losses == resumed.losses
    assert again == straight


@shapes
def test_gradients(name: str) -> None:
    model, x, _, _ = SHAPES[name]()
    lc.gradcheck(model, x)


@shapes
def test_copies_pickles_and_files(name: str, tmp_path: Path) -> None:
    model, x, _, _ = SHAPES[name]()
    y = model(x)
    others = [copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
    path = tmp_path / "model.safetensors"
    lc.save(model, path)
    into = copy.deepcopy(model) if name == "tied_weights" else None  # with a class of its own
    if into is not None:
        into.reset_parameters(9)
    others.append(lc.load(path, into=into))
    for other in others:
        assert other == model
        assert repr(other) == repr(model)
        assert_same_bits(other(x), y)
        assert list(other.state_dict()) == list(model.state_dict())
        other.parameters()[0].data[...] += 1
        assert other != model
        assert_same_bits(model(x), y)


@pytest.mark.parametrize("name", ["two_inputs", "two_heads", "residual_stack"])
def test_shapes_stream_to_the_same_bits(name: str) -> None:
    model, x, _, _ = SHAPES[name]()
    whole = model(x)
    stream = model.stream(batch_size=B)
    for t in range(T):
        # What has steps is given and made one at a time; what has none is that of the steps so far.
        step = (
            {"sequence": x["sequence"][t], "static": x["static"]} if name == "two_inputs" else x[t]
        )
        y = stream.step(step)
        if name == "two_heads":
            assert_same_bits(y["steps"], whole["steps"][t])
            assert_same_bits(y["rows"], model(x[: t + 1])["rows"])
        else:
            assert_same_bits(y, whole[t])


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("autoencoder", ValueError, "takes what comes of all steps back into them"),
        ("encoder_decoder", ValueError, "takes what comes of all steps back into them"),
        ("tied_weights", TypeError, r"Tied\(.* its each_step is False"),
    ],
)
def test_shapes_that_cannot_stream_say_why(name: str, error: type[Exception], message: str) -> None:
    model, _, _, _ = SHAPES[name]()
    with pytest.raises(error, match=f"(?s){message}"):
        model.stream()


@pytest.mark.parametrize("name", [name for name in SHAPES if name != "tied_weights"])
def test_every_shape_is_exported_and_read_again(name: str) -> None:
    """Trained first, so that nothing has the numbers that it was made with."""
    model, x, target, loss = SHAPES[name]()
    lc.fit(
        model, [(x, target)], loss=loss, epochs=2, progress=False,
        optimizer=lc.optim.Adam(model.parameters(), lr=0.02),
    )  # fmt: skip
    y = leaves(model(x))
    require("onnx")
    made = [leaves(lc.from_onnx(lc.to_onnx(model))(x))]  # inputs keep their names
    torch = require("torch")
    with torch.no_grad():
        theirs = lc.to_torch(model).eval()(*(torch.tensor(part) for part in leaves(x)))
    made.append([part.numpy() for part in leaves(theirs)])
    for parts in made:
        assert len(parts) == len(y)
        for part, expected in zip(parts, y, strict=True):
            np.testing.assert_allclose(part, expected, atol=1e-6)


def test_tied_weights_are_there_once() -> None:
    model, _, _, _ = tied_weights()
    assert [name for name, _ in model.named_parameters()] == [
        "embedding.weight",
        *(f"gru.{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")),
    ]
    assert len(model.parameters()) == 5
    other = pickle.loads(pickle.dumps(model))
    assert len(other.parameters()) == 5  # still tied


# The same bits as by hand -------------------------------------------------------------------------


def test_a_residual_stack_by_hand() -> None:
    layers = [lc.GRU(4, 4, seed=i) for i in range(3)]
    x = y = lc.Input(4)
    for layer in layers:
        y = y + layer(y)[0]
    model = lc.Model(x, y)
    values = rng().standard_normal((T, B, 4)).astype("f4")
    dy = rng(1).standard_normal((T, B, 4)).astype("f4")
    lengths = [6, 2, 0, 3]
    got, tape = model.forward(values, lengths=lengths)
    dx = model.backward(tape, dy)
    found = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    tapes, expected = [], values
    for layer in layers:
        inner, _, one = layer.forward(expected, lengths=lengths)
        expected = expected + inner
        tapes.append(one)
    for layer, one in zip(reversed(layers), reversed(tapes), strict=True):
        dy = dy + layer.backward(one, dy)[0]
    assert_same_bits(got, expected)
    assert_same_bits(model(values, lengths=lengths), expected)
    assert_same_bits(dx, dy)
    assert_same_bits(found, [p.grad for p in model.parameters()])


def test_states_wired_by_hand() -> None:
    encoder, decoder = lc.LSTM(3, 5, seed=0), lc.LSTM(2, 5, seed=1)
    source, target = lc.Input(3), lc.Input(2)
    _, state = encoder(source)
    y, (_, c) = decoder(target, state)
    model = lc.Model((source, target), (y, c))
    x = (
        rng(0).standard_normal((T, B, 3)).astype("f4"),
        rng(1).standard_normal((3, B, 2)).astype("f4"),
    )
    lengths = [6, 1, 0, 2], [3, 3, 1, 2]
    (got, last), tape = model.forward(x, lengths=lengths)
    dy, dc = (rng(2).standard_normal(a.shape).astype("f4") for a in (got, last))
    dx = model.backward(tape, (dy, dc))
    found = [p.grad.copy() for p in model.parameters()]
    model.zero_grad()
    _, state, first = encoder.forward(x[0], lengths=lengths[0])
    expected, (_, c), second = decoder.forward(x[1], state, lengths=lengths[1])
    dtarget, dstate = decoder.backward(second, dy, (None, dc))
    dsource, _ = encoder.backward(first, None, dstate)
    assert_same_bits((got, last), (expected, c))
    assert_same_bits(dx, (dsource, dtarget))
    assert_same_bits(found, [p.grad for p in model.parameters()])


def test_a_module_used_twice_adds_its_gradients() -> None:
    head, x, z = lc.Linear(3, 2, seed=0), lc.Input(3), lc.Input(3, steps=False)
    model = lc.Model((x, z), (head(x), head(z)))
    assert list(model.state_dict()) == ["linear.weight", "linear.bias"]
    values = np.ones((T, B, 3), "f4"), np.ones((B, 3), "f4")
    y, tape = model.forward(values)
    model.backward(tape, tuple(np.ones_like(one) for one in y))
    np.testing.assert_array_equal(head.parameters()[1].grad, [T * B + B] * 2)
    model.zero_grad()
    y, tape = model.forward(values)
    dx = model.backward(tape, (None, np.ones_like(y[1])))
    np.testing.assert_array_equal(head.parameters()[1].grad, [B] * 2)
    assert not dx[0].any()
    assert dx[1].all()


def modules(**options: Any) -> list[lc.Module]:
    return [
        lc.Embedding(5, 3, seed=0), lc.LSTM(3, 4, seed=1, **options), lc.Dropout(0.5, seed=2),
        lc.LayerNorm(4), lc.GRU(4, 5, seed=3, **options), lc.Linear(5, 2, seed=4), lc.Tanh(),
    ]  # fmt: skip


def module_by_module(sequential: lc.Sequential) -> lc.Model:
    x = y = lc.Input(ids=True)
    for module in copy.deepcopy(sequential):
        y = module(y)
        y = y[0] if isinstance(y, tuple) else y
    return lc.Model(x, y)


def as_a_whole(sequential: lc.Sequential) -> lc.Model:
    x = lc.Input(ids=True)
    return lc.Model(x, copy.deepcopy(sequential)(x))


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("described", [module_by_module, as_a_whole])
def test_a_chain_is_a_sequential(described: Any, batch_first: bool) -> None:
    """Its bits, with lookups, states, lengths and resets, forward, backward and in a stream."""
    sequential = lc.Sequential(*modules(batch_first=batch_first))
    model = described(sequential)
    assert model.batch_first == batch_first
    ids = rng().integers(0, 5, (B, T) if batch_first else (T, B))
    state = sequential.run(ids)[1]
    dstate = ((state[0][1], state[0][0]), state[1])
    for given in (
        {}, {"lengths": [6, 3, 0, 1]}, {"resets": rng(1).random(ids.shape) < 0.3}, {"state": state},
    ):  # fmt: skip
        assert_same_bits(model.run(ids, **given), sequential.run(ids, **given))
        results = []
        for m in (model, sequential):
            y, tape = m.forward(ids, **given)
            m.zero_grad()
            dx, initial = m.backward_state(tape, np.ones_like(y), dstate)
            results.append((y, tape.state, dx, initial, [p.grad for p in m.parameters()]))
        assert_same_bits(*results)
    streams = [m.stream(2) for m in (model, sequential)]
    steps = rng(2).integers(0, 5, (9, 2))
    assert_same_bits(*[s.process(steps) for s in streams])
    assert_same_bits(*[s.state for s in streams])


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras's
def test_a_chain_goes_where_a_sequential_goes(tmp_path: Path) -> None:
    require("onnx")
    keras = require("keras")
    sequential = lc.Sequential(lc.LSTM(3, 4, seed=0, batch_first=True), lc.Linear(4, 2, seed=1))
    x = lc.Input(3)
    model = lc.Model(x, sequential(x))
    values = rng().standard_normal((B, T, 3)).astype("f4")
    path = tmp_path / "model.onnx"
    lc.to_onnx(model, path)
    again = lc.from_onnx(path)
    assert again == model
    assert_same_bits(again(values), model(values))
    theirs = keras.ops.convert_to_numpy(lc.to_keras(model)(values))
    np.testing.assert_allclose(theirs, model(values), atol=1e-6)
    assert lc.StateSpace.of(lc.Model(x, lc.GRU(3, 4)(x)[0])).size == 4


def test_an_embedding_that_several_read_gives_vectors() -> None:
    x = lc.Input(ids=True)
    vectors = lc.Embedding(5, 3, seed=0, **D)(x)
    y, _ = lc.GRU(3, 3, seed=1, **D)(vectors)
    lc.gradcheck(lc.Model(x, y + vectors), rng().integers(0, 5, (T, B)))
    alone = lc.Model(x, y)
    ids = rng().integers(0, 5, (T, B))
    assert_same_bits(alone(ids), lc.Model(x, [y, vectors])(ids)[0])


# Time ---------------------------------------------------------------------------------------------


def test_chunks_are_the_whole() -> None:
    """States carried from call to call; fit with truncate."""
    x = lc.Input(3)
    y = x + lc.GRU(3, 3, seed=0)(x)[0]
    y = y - lc.LSTM(3, 3, seed=1)(y)[0]
    model = lc.Model(x, y)
    values = rng().standard_normal((T, B, 3)).astype("f4")
    whole, final = model.run(values)
    first, state = model.run(values[:2])
    second, last = model.run(values[2:], state)
    assert_same_bits(np.concatenate([first, second]), whole)
    assert_same_bits(last, final)
    scores = [
        lc.evaluate(model, [(values, values)], loss=lc.losses.mse, truncate=k) for k in (None, 2)
    ]
    assert scores[0]["loss"] == pytest.approx(scores[1]["loss"], rel=1e-6)
    lc.fit(
        model, [(values, values)], loss=lc.losses.mse, truncate=2, progress=False,
        optimizer=lc.optim.SGD(model.parameters(), lr=0.1),
    )  # fmt: skip
    wired = autoencoder()[0]
    with pytest.raises(ValueError, match="carries the state forward"):
        lc.evaluate(wired, [(values, values)], loss=lc.losses.mse, truncate=2)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", [*NETWORKS, *ATTENTION])
def test_gradients_without_that_of_x(name: str, first: bool) -> None:
    """What training leaves out changes no gradient of a parameter."""
    made = NETWORKS[name](first)[0] if name in NETWORKS else ATTENTION[name](first)
    found = []
    for add in ("backward", "_add_gradients"):
        model = copy.deepcopy(made)
        y, tape = model.forward(values_of(model))
        shown = [model._plan.axes[slot].shown for slot in model._plan.last]
        dy = [None if s else np.ones_like(one) for s, one in zip(shown, leaves(y), strict=True)]
        getattr(model, add)(tape, rebuilt(model._plan.outputs, iter(dy)))
        found.append({name: p.grad for name, p in model.named_parameters()})
    assert_same_bits(found[0], found[1])
    assert name == "dots" or any(gradient.any() for gradient in found[0].values())


def test_generate() -> None:
    x = lc.Input(ids=True)
    y = lc.Embedding(7, 4, seed=0)(x)
    y = y + lc.GRU(4, 4, seed=1)(y)[0]
    model = lc.Model(x, lc.Linear(4, 7, seed=2)(y))
    prompt = np.array([[1, 2], [3, 4]])
    ids = lc.generate(model, prompt, 4)
    for step in range(4):
        whole = model(np.concatenate([prompt, ids[:step]]))
        np.testing.assert_array_equal(whole[-1].argmax(-1), ids[step])


def test_an_attention_is_not_given_a_part_of_its_keys() -> None:
    """One step at a time it would see that step alone."""
    x = lc.Input(4)
    attended, _ = lc.attention.MultiHead(4, 2, seed=0)(x, x, x)
    model = lc.Model(x, lc.LayerNorm(4)(x + attended))
    values = rng().standard_normal((T, B, 4)).astype("f4")
    message = r"MultiHead\(4, 2\) needs the whole sequence"
    with pytest.raises(ValueError, match=message):
        lc.generate(model, values, 2)
    before = copy.deepcopy(model)
    with pytest.raises(ValueError, match=message):
        lc.fit(
            model, [(values, values)], loss="mse", truncate=2, progress=False,
            optimizer=lc.optim.SGD(model.parameters()),
        )  # fmt: skip
    assert model == before


def test_the_gradient_of_states() -> None:
    x = lc.Input(2)
    y, h = lc.GRU(2, 3, seed=0, **D)(x)
    model = lc.Model(x, (y + 0.0, h * 2))
    values, dy = rng(0).standard_normal((T, B, 2)), rng(1).standard_normal((T, B, 3))
    state, dh, dstate = (rng(i).standard_normal((1, B, 3)) for i in (2, 3, 4))
    _, tape = model.forward(values, (state,))
    dx, (dinitial,) = model.backward_state(tape, (dy, dh), (dstate,))
    gru = copy.deepcopy(model._children["gru"])
    gru.zero_grad()
    _, _, tape = gru.forward(values, state)
    assert_same_bits((dx, dinitial), gru.backward(tape, dy, 2 * dh + dstate))


def test_lengths_go_with_their_values() -> None:
    source, previous = lc.Input(3), lc.Input(2)
    keys, h = lc.GRU(3, 4, seed=0, **D)(source)
    y, _ = lc.GRU(2, 4, seed=1, **D)(previous, h)
    attention = lc.attention.ScaledDotProduct()
    context, weights = attention(y, keys, keys)
    model = lc.Model((source, previous), (lc.concat([context, y]), lc.MeanPool()(keys), weights))
    x = rng(0).standard_normal((T, B, 3)), rng(1).standard_normal((3, B, 2))
    lengths = [6, 2, 4, 1], [3, 3, 1, 2]
    (got, mean, looked), tape = model.forward(x, lengths=lengths)
    assert [None if n is None else n.tolist() for n in tape.lengths] == [lengths[1], None, None]
    for row in range(B):
        n, m = lengths[0][row], lengths[1][row]
        one, two, three = model((x[0][:n, row], x[1][:m, row]))
        np.testing.assert_allclose(got[:m, row], one, atol=1e-12)
        np.testing.assert_allclose(mean[row], two, atol=1e-12)
        np.testing.assert_allclose(looked[row, :m, :n], three, atol=1e-12)
    with pytest.raises(ValueError, match=r"dy\[2\] is of \(B, T, S\), expected None"):
        model.backward(tape, (got, mean, looked))
    lc.gradcheck(lc.Model((source, previous), lc.LastStep()(context)), x, lengths=lengths)


def test_a_mask_goes_with_its_values_to_the_scorer() -> None:
    """`fit` and `evaluate` count the steps that a Masking found, in each output."""
    x = lc.Input(3)
    masked, lengths = lc.Masking()(x)
    y, _ = lc.GRU(3, 4, seed=0)(masked, lengths=lengths)
    model = lc.Model(x, lc.Linear(4, 3, seed=1)(y) + masked)
    values = rng().standard_normal((T, B, 3)).astype("f4")
    ends = np.array([6, 2, 4, 1])
    values[np.arange(T)[:, None] >= ends] = 0
    target = rng(1).standard_normal((T, B, 3)).astype("f4")
    found = lc.evaluate(model, [(values, target)], loss=lc.losses.mse)["loss"]
    expected = lc.losses.mse(model(values), target, ends)[0]
    assert found == pytest.approx(expected, rel=1e-6)
    y, tape = model.forward(values)
    np.testing.assert_array_equal(tape.lengths, ends)
    with pytest.raises(ValueError, match="a \\+ b meets values with other lengths"):
        lc.Model(x, masked + x)(values)


def test_a_loss_of_scores_is_refused_behind_a_softmax() -> None:
    x = lc.Input(3)
    scores = lc.GRU(3, 4, seed=0)(x)[0]
    data = [(np.ones((T, B, 3), "f4"), np.ones(B, int))]
    wrong = lc.Model(x, lc.LastStep()(lc.Softmax()(scores)))
    with pytest.raises(ValueError, match="ends in a softmax"):
        lc.evaluate(wrong, data, loss=lc.losses.cross_entropy)
    for model in (
        lc.Model(x, lc.LastStep()(scores)),
        lc.Sequential(lc.Softmax(), lc.Model(x, x + lc.GRU(3, 3)(x)[0]), lc.LastStep()),
    ):
        lc.evaluate(model, data, loss=lc.losses.cross_entropy)


def test_resets_go_with_their_values() -> None:
    x, z = lc.Input(3), lc.Input(2)
    y, _ = lc.GRU(5, 4, seed=0)(lc.concat([x, z]))
    model = lc.Model((x, z), y)
    values = [rng(i).standard_normal((T, B, n)).astype("f4") for i, n in ((0, 3), (1, 2))]
    resets = rng(2).random((T, B)) < 0.4
    expected = model._children["gru"](np.concatenate(values, axis=-1), resets=resets)[0]
    assert_same_bits(model(values, resets=resets), expected)
    assert_same_bits(model(values, resets=(resets, resets.copy())), expected)
    with pytest.raises(ValueError, match="concat meets values with other resets"):
        model(values, resets=(resets, ~resets))
    with pytest.raises(ValueError, match=r"resets cannot be given .* Flip\(\), which moves"):
        lc.Model(x, lc.GRU(3, 3)(lc.Flip()(x))[0])(values[0], resets=resets)


def test_unbatched_and_batch_first() -> None:
    sequence, static = lc.Input(3), lc.Input(2, steps=False)
    values = rng(0).standard_normal((T, B, 3)), rng(1).standard_normal((B, 2))
    models = []
    for first in (False, True):
        y, h = lc.GRU(5, 4, 2, seed=0, batch_first=first, **D)(
            lc.concat([sequence, lc.repeat(static, like=sequence)])
        )
        last = lc.concat([lc.LastStep()(y), h[-1], h[0:1][0]])
        models.append(lc.Model((sequence, static), (y[..., 1:3], last[..., ::2])))
    y, last = models[0](values, lengths=[6, 2, 1, 3])
    first, same = models[1]((values[0].swapaxes(0, 1), values[1]), lengths=[6, 2, 1, 3])
    np.testing.assert_array_equal(first.swapaxes(0, 1), y)
    np.testing.assert_array_equal(last, same)
    for model in models:
        one, two = model((values[0][:2, 1], values[1][1]))
        np.testing.assert_array_equal(one, y[:2, 1])
        np.testing.assert_array_equal(two, last[1])


# In each other ------------------------------------------------------------------------------------


def test_models_in_models_and_sequentials(tmp_path: Path) -> None:
    x = lc.Input(4)
    layer = lc.GRU(4, 4, seed=0, **D)
    block = lc.Model(x, x + layer(x)[0])
    values = rng().standard_normal((T, B, 4))
    expected = values + layer(values)[0]
    expected = expected + layer(expected)[0]
    twice = lc.Model(x, block(block(x)))
    assert_same_bits(twice(values), expected)
    assert len(twice.parameters()) == 4
    head = lc.Linear(4, 2, seed=1, **D)
    sequential = lc.Sequential(block, lc.LSTM(4, 4, seed=2, **D), head)
    y, state = sequential.run(values[:2])
    rest, _ = sequential.run(values[2:], state)
    assert_same_bits(np.concatenate([y, rest]), sequential(values))
    lc.gradcheck(sequential, values, lengths=[6, 1, 0, 3])
    lc.save(sequential, tmp_path / "model")
    assert lc.load(tmp_path / "model") == sequential
    y, tape = sequential.forward(values, state)
    other = lc.Model(x, sequential(x))
    _, second = other.forward(values, state)
    given = (y, (state[1][0], (state[0], None)))
    assert_same_bits(other.backward_state(second, *given), sequential.backward_state(tape, *given))


def test_a_second_backward_through_a_sequential_changes_nothing() -> None:
    """The tape of a Model in it is used up, which is found before any gradient is added to."""
    x = lc.Input(4)
    block = lc.Model(x, x + lc.GRU(4, 4, seed=0, **D)(x)[0])
    inner = lc.Sequential(lc.Linear(4, 4, seed=2, **D), block)
    sequential = lc.Sequential(inner, lc.Linear(4, 2, seed=1, **D))
    y, tape = sequential.forward(rng().standard_normal((T, B, 4)))
    sequential.backward(tape, np.ones_like(y))
    before = [p.grad.copy() for p in sequential.parameters()]
    assert all(grad.any() for grad in before)
    for dstate in (None, [None]):
        with pytest.raises(ValueError, match="tape was used by backward already"):
            sequential.backward_state(tape, np.ones_like(y), dstate)
        assert_same_bits([p.grad for p in sequential.parameters()], before)
    chain = lc.Sequential(lc.GRU(4, 4, seed=0, **D), lc.Model(x, lc.Linear(4, 2, seed=1, **D)(x)))
    y, tape = chain.forward(rng().standard_normal((T, B, 4)))
    first = chain.backward(tape, np.ones_like(y))
    assert_same_bits(chain.backward(tape, np.ones_like(y)), first)  # a chain's can be used again


@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_transformer_block_is_pytorchs(norm_first: bool, first: bool) -> None:
    """Forward and gradients, with the norms behind and before, time-major and batch-first."""
    torch = require("torch")
    theirs = torch.nn.TransformerEncoderLayer(
        8, 2, 16, dropout=0.0, norm_first=norm_first, batch_first=first
    ).double()
    for p in theirs.parameters():
        torch.nn.init.normal_(p, std=0.3)
    attention = lc.attention.MultiHead(8, 2, batch_first=first, **D)
    parts = {
        "self_attn": attention, "linear1": lc.Linear(8, 16, **D), "linear2": lc.Linear(16, 8, **D),
        "norm1": lc.LayerNorm(8, **D), "norm2": lc.LayerNorm(8, **D),
    }  # fmt: skip
    for name, part in parts.items():
        part.load_state_dict(theirs.state_dict(), prefix=f"{name}.")
    norm1, norm2 = parts["norm1"], parts["norm2"]

    def feed_forward(x: Any) -> Any:
        return parts["linear2"](lc.ReLU()(parts["linear1"](x)))

    x = lc.Input(8)
    if norm_first:
        z = norm1(x)
        y = x + attention(z, z, z)[0]
        model = lc.Model(x, y + feed_forward(norm2(y)))
    else:
        y = norm1(x + attention(x, x, x)[0])
        model = lc.Model(x, norm2(y + feed_forward(y)))
    values, dy = (rng(i).standard_normal((B, T, 8) if first else (T, B, 8)) for i in (0, 1))
    lengths = np.array([6, 2, 4, 1])
    rows = np.arange(T) < lengths[:, None]
    valid = rows if first else rows.T
    given = torch.from_numpy(values).requires_grad_()
    expected = theirs(given, src_key_padding_mask=torch.from_numpy(~rows))
    got, tape = model.forward(values, lengths=lengths)
    np.testing.assert_allclose(got[valid], expected.detach().numpy()[valid], atol=1e-10)
    dy[~valid] = 0
    expected.backward(torch.from_numpy(dy))
    np.testing.assert_allclose(model.backward(tape, dy), given.grad.numpy(), atol=1e-10)
    theirs_grads = dict(theirs.named_parameters())
    for name, part in parts.items():
        for own, p in part.named_parameters():
            want = theirs_grads[f"{name}.{own}"].grad.numpy()
            np.testing.assert_allclose(p.grad, want, atol=1e-10)


def test_cells_by_hand() -> None:
    """Two steps of a cell, in a network without time."""
    cell, first, second = (
        lc.LSTMCell(3, 4, seed=0, **D),
        lc.Input(3, steps=False),
        lc.Input(3, steps=False),
    )
    state = cell(second, cell(first))
    model = lc.Model((first, second), state)
    x = tuple(rng(i).standard_normal((B, 3)) for i in (0, 1))
    assert_same_bits(model(x), cell(x[1], cell(x[0])))
    lc.gradcheck(model, x)
    lc.gradcheck(lc.Model((first, second), state[1]), x)


def test_the_same_expression_with_arrays() -> None:
    layer, head = lc.LSTM(5, 4, seed=0), lc.Linear(4, 3, seed=1)

    def network(x: Any, z: Any) -> Any:
        y, (h, c) = layer(lc.concat([x, lc.repeat(z, like=x)]))
        y, _ = layer(lc.concat([y, z2(z, y)]), (h, c))
        gate = lc.Sigmoid()(head(y))
        return (1 - gate) * x + gate * 0.5 - -x, (h[-1] - c[-1])[None], lc.LastStep()(y[..., :2])

    def z2(z: Any, y: Any) -> Any:
        return lc.repeat(z[..., 0:1], like=y)

    x, z = lc.Input(3), lc.Input(2, steps=False)
    model = lc.Model((x, z), network(x, z))
    values = (
        rng(0).standard_normal((T, B, 3)).astype("f4"),
        rng(1).standard_normal((B, 2)).astype("f4"),
    )
    assert_same_bits(model(values), network(*values))


# Memory -------------------------------------------------------------------------------------------


def test_backward_frees_what_it_has_used() -> None:
    alive: list[weakref.ref[Any]] = []

    class Watched(lc.Module):
        def forward(self, x: Any) -> Any:
            tape = np.array(x).view(Traced)
            alive.append(weakref.ref(tape))
            return x + 1, tape

        def backward(self, tape: Any, dy: Any) -> Any:
            del tape
            counts.append(sum(ref() is not None for ref in alive))
            return dy

    class Traced(np.ndarray):  # type: ignore[type-arg]
        pass

    counts: list[int] = []
    x = y = lc.Input(2)
    for _ in range(3):
        y = Watched()(y)
    model = lc.Model(x, y)
    alive.clear()
    values = np.ones((T, B, 2))
    _, tape = model.forward(values)
    assert sum(ref() is not None for ref in alive) == 3
    model.backward(tape, values)
    assert counts == [3, 2, 1]
    with pytest.raises(ValueError, match="used by backward already"):
        model.backward(tape, values)


class Doubled(lc.Module):
    """A module of the user's own that writes to its x, and keeps what it gives."""

    def forward(self, x: Any) -> Any:
        x *= 2
        self.kept = x
        return x, None

    def backward(self, tape: Any, dy: Any) -> Any:
        return 2 * dy


def test_what_goes_from_module_to_module_is_not_copied() -> None:
    x = lc.Input(4)
    total = x + x
    linear, own = lc.Linear(4, 3, seed=0), Doubled()
    values = rng(0).standard_normal((T, B, 4)).astype("float32")
    dy = np.ones((T, B, 3), "float32")
    # The network's own values: no tape needs a copy. What it is given, the user may write to.
    _, tape = lc.Model(x, linear(total)).forward(values)
    assert tape.tapes[1].nbytes == 0
    _, tape = lc.Model(x, linear(x * 1)).forward(values)
    assert tape.tapes[-1].nbytes == values.nbytes
    assert values.flags.writeable
    # An output that a module reads, too: writing to it changes no gradient.
    linear.zero_grad()
    model = lc.Model(x, [total, linear(total)])
    (y, _), tape = model.forward(values)
    y[...] = np.nan
    dx = model.backward(tape, (None, dy))
    assert np.isfinite(linear.parameters()[0].grad).all()
    np.testing.assert_allclose(dx, 2 * (dy @ linear.state_dict()["weight"]), rtol=1e-6)
    # A module of the user's own may write to what it takes, and to what it gave.
    model = lc.Model(x, linear(own(total)))
    y, tape = model.forward(values)
    assert_same_bits(y, linear(4 * values))
    own.kept[...] = np.nan
    linear.zero_grad()
    model.backward(tape, dy)
    assert np.isfinite(linear.parameters()[0].grad).all()


def test_values_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """In inference no more of them live at once than the network needs."""
    alive: list[weakref.ref[Any]] = []
    most = 0

    class Counted(lc.Module):
        def forward(self, x: Any) -> Any:
            nonlocal most
            y = x + 1
            alive.append(weakref.ref(y))
            most = max(most, sum(ref() is not None for ref in alive))
            return y, None

        def backward(self, tape: Any, dy: Any) -> Any:
            return dy

    x = y = lc.Input(2)
    for _ in range(6):
        y = Counted()(y)
    model = lc.Model(x, y)
    alive.clear()
    most = 0
    model(np.ones((T, B, 2)))
    assert most == 2


# What is refused ----------------------------------------------------------------------------------


def X(features: int = 3, **options: Any) -> Any:
    return lc.Input(features, **options)


SYMBOL = X()
BUILDS: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (lambda: lc.Input(), TypeError, "features is None"),
    (lambda: lc.Input(3, ids=True), ValueError, "ids have no features"),
    (lambda: lc.Input(3, dtype="int8"), ValueError, "dtype is 'int8'"),
    (lambda: X() + X(4), ValueError, r"a \+ b, given .*\(T, B, 3\) and \(T, B, 4\), expected the"),
    (lambda: X() * X(steps=False), ValueError, r"lc\.repeat\(a, like=b\) gives steps"),
    (lambda: X() + np.ones(3), TypeError, "what is to add is a ndarray"),
    (lambda: np.ones(3) - X(), TypeError, "what is to subtract is a ndarray"),
    (lambda: X() + lc.Input(ids=True), ValueError, r"\(T, B\) of ids, expected features"),
    (lambda: np.tanh(X()), TypeError, "."),
    (lambda: np.asarray(X()), TypeError, "it is a symbol"),
    (lambda: list(X()), TypeError, "not iterable"),
    (
        lambda: lc.GRU(4, 2)(X()),
        ValueError,
        r"GRU\(4, 2\), given <Symbol \(T, B, 3\)>.*expected 4 f",
    ),
    (lambda: lc.GRU(3, 2)(X(steps=False)), ValueError, "expected time steps"),
    (
        lambda: lc.GRU(3, 2)(X(), lc.GRU(3, 4)(X())[1]),
        ValueError,
        r"h0 is \(1, B, 4\), expected \(1",
    ),
    (lambda: lc.LSTM(3, 2)(X(), lc.GRU(3, 2)(X())[1]), ValueError, "its state has 1 parts"),
    (lambda: lc.GRU(3, 2)(X(), np.zeros((1, 2, 2))), TypeError, "given a ndarray .* symbols alone"),
    (lambda: lc.GRU(3, 2)(X(), lengths=[3]), TypeError, r"lengths of GRU\(3, 2\) is \[3\]"),
    (lambda: lc.GRU(3, 2)(X(), resets=[3]), TypeError, "has resets, expected them when"),
    (lambda: lc.GRUCell(3, 2)(X()), ValueError, r"x is \(T, B, 3\), expected \(B, 3\)"),
    (lambda: lc.LSTMCell(3, 2)(X(steps=False), X(steps=False)), ValueError, "hx has 1 parts"),
    (lambda: lc.Linear(3, 2)(lc.Input(ids=True)), ValueError, "expected features"),
    (lambda: lc.Embedding(3, 2)(X()), ValueError, "expected ids"),
    (lambda: lc.LastStep()(X(steps=False)), ValueError, "expected time steps"),
    (lambda: lc.attention.MultiHead(4, 2)(X(4), X(), X()), ValueError, r"key is .*, expected 4"),
    (lambda: lc.Tanh()(lc.attention.ScaledDotProduct()(X(), X(), X())[1]), TypeError, "only be an"),
    (lambda: lc.Tanh()(lc.Masking()(X())[1]), TypeError, "is given lengths where"),
    (lambda: X()[0], ValueError, r"lc\.LastStep\(\) takes the last"),
    (lambda: X()["a"], TypeError, "the index of a symbol is 'a'"),
    (lambda: X()[..., 5:], ValueError, "nothing of"),
    (lambda: lc.GRU(3, 2)(X())[1][1], ValueError, r"the index is 1, but x is \(1, B, 2\)"),
    (lambda: X()[None], ValueError, r"expected \(B, F\)"),
    (
        lambda: lc.concat([X(), X(steps=False)]),
        ValueError,
        "expected the same but for the features",
    ),
    (lambda: lc.concat([]), TypeError, "arrays is \\[\\]"),
    (lambda: lc.concat([X(), 1]), TypeError, "given 1"),
    (lambda: lc.concat([np.ones((2, 3)), np.ones((4, 3))]), ValueError, "have the shapes"),
    (lambda: lc.repeat(X(), like=X()), ValueError, r"expected \(B, F\) and time steps"),
    (lambda: lc.repeat(np.ones((2, 3)), like=np.ones((5, 4, 3))), ValueError, "array has shape"),
    (lambda: lc.Model(SYMBOL, X()), ValueError, "not among the inputs"),
    (lambda: lc.Model([SYMBOL, X()], SYMBOL), ValueError, r"no output needs inputs\[1\]"),
    (lambda: lc.Model([SYMBOL, SYMBOL], SYMBOL), ValueError, "twice"),
    (lambda: lc.Model(SYMBOL + 1, SYMBOL), TypeError, r"inputs is .*, expected a lc\.Input"),
    (lambda: lc.Model([], SYMBOL), ValueError, "inputs is empty"),
    (lambda: lc.Model(SYMBOL, {}), ValueError, "outputs is empty"),
    (lambda: lc.Model(SYMBOL, [SYMBOL, 3]), TypeError, "outputs has 3"),
    (lambda: lc.Model(SYMBOL, lc.Masking()(SYMBOL)), TypeError, "goes with its y"),
    (
        lambda: lc.Model(SYMBOL, lc.Linear(3, 3)(lc.Linear(3, 3, dtype="float64")(SYMBOL))),
        ValueError,
        "module linear_1, Linear.* has dtype=float32, but module linear, .* has dtype=float64",
    ),
    (
        lambda: lc.Model(
            SYMBOL, lc.GRU(3, 3)(SYMBOL)[0] - lc.GRU(3, 3, batch_first=True)(SYMBOL)[0]
        ),
        ValueError,
        "has batch_first=True, but .* has batch_first=False",
    ),
]


@pytest.mark.parametrize("number", range(len(BUILDS)))
def test_what_does_not_fit_is_refused_when_it_is_described(number: int) -> None:
    build, kind, message = BUILDS[number]
    with pytest.raises(kind, match=message):
        build()


def test_calls_are_checked_before_anything_runs() -> None:
    model, x, _, _ = two_inputs()
    a, b = x["sequence"], x["static"]
    wrong: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (a, {}, TypeError, "x is a ndarray .*, expected a dict of 'sequence', 'static'"),
        ({"sequence": a}, {}, ValueError, "x has the names"),
        ({"sequence": a, "static": b[:3]}, {}, ValueError, r"x\['static'\] has 3 rows, expected 4"),
        (
            {"sequence": a[..., :2], "static": b},
            {},
            ValueError,
            r"x\['sequence'\] has shape \(6, 4, 2",
        ),
        ({"sequence": a, "static": b[0]}, {}, ValueError, "has no batch rows|has no batch"),
        (
            {"sequence": a.astype("f4"), "static": b},
            {},
            TypeError,
            r"x\['sequence'\] has dtype float32",
        ),
        (x, {"lengths": [9, 1, 1, 1]}, ValueError, r"0 to 6, the time steps of x\['sequence'\]"),
        (x, {"lengths": {"sequence": None, "static": [1] * 4}}, ValueError, "it has no steps"),
        (x, {"lengths": {"static": None}}, ValueError, "lengths has the names"),
        (x, {"resets": np.ones((2, 4), bool)}, ValueError, "resets has shape"),
        (x, {"state": 3}, TypeError, "state is 3"),
        (x, {"state": (None, None)}, ValueError, "state has 2 entries, expected 1"),
    ]
    for given, options, kind, message in wrong:
        with pytest.raises(kind, match=message):
            model(given, **options)
    rows = lc.Input(3, steps=False)
    plain = lc.Model(rows, lc.Linear(3, 2)(rows))
    for name in ("lengths", "resets"):
        with pytest.raises(ValueError, match=f"{name} is given, but nothing in the model uses it"):
            plain(np.ones((4, 3), "f4"), **{name: [1, 1, 1, 1]})
    y, tape = model.forward(x)
    for dy, message in ((y[:2], "dy has shape"), ({"y": y}, "dy")):
        with pytest.raises((ValueError, TypeError), match=message):
            model.backward(tape, dy)
    assert not any(p.grad.any() for p in model.parameters())
    with pytest.raises(ValueError, match="made by another layer"):
        two_inputs()[0].backward(tape, y)
    model.backward(tape, y)


def test_symbols_are_divided_by_numbers_alone() -> None:
    x = lc.Input(3, dtype="float64")
    values = np.random.default_rng(0).standard_normal((5, 2, 3))
    for number in (2, -0.25, np.float32(4), 3):
        model = lc.Model(x, x / number)
        np.testing.assert_allclose(model(values), values / number, rtol=1e-15)
    lc.gradcheck(lc.Model(x, x / 3 + x), values)
    with pytest.raises(ZeroDivisionError, match="is divided by 0"):
        x / 0
    for call in (
        lambda: x / x, lambda: 1 / x, lambda: x**2, lambda: x @ x, lambda: abs(x), lambda: x > 0,
        lambda: x // 2, lambda: x % 2,
    ):  # fmt: skip
        with pytest.raises(TypeError, match=r"symbols can be added, .* or of your own"):
            call()
    with pytest.raises(
        TypeError, match=r"what is to add is a ndarray .*, expected a number or a s"
    ):
        x + values


def test_concat_says_that_it_takes_a_list() -> None:
    x = lc.Input(3)
    for call in (lambda: lc.concat(x, x), lambda: lc.concat(x)):
        with pytest.raises(TypeError, match=r"lc\.concat\(\[a, b\]\)"):
            call()
    twice = lc.Model(x, lc.concat([x, x]))
    values = np.ones((2, 1, 3), "float32")
    assert twice(values).shape == (2, 1, 6)
    _, tape = twice.forward(values)
    assert np.array_equal(twice.backward(tape, np.ones((2, 1, 6), "float32")), 2 * values)


def test_a_summary_tells_calls_apart(capsys: Any) -> None:
    x, other = lc.Input(3, name="sequence"), lc.Input(3, name="other")
    linear = lc.Linear(3, 3, seed=0)
    model = lc.Model([x, other], [linear(linear(x)) + x + other], output_names=["sum"])
    model.summary()
    rows = [line.split("  ") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows[1:-1]] == [
        "sequence", "other", "linear", "linear (2)", "binary", "binary (2)",
    ]  # fmt: skip
    assert [row[-1] for row in rows[5:-1]] == ["linear (2), sequence", "binary, other"]
    names = [node.name for node in nodes(model._plan, model._children)]
    assert names[-1] == "sum"


def test_messages_about_several_inputs_give_the_way_out() -> None:
    a, b = lc.Input(3), lc.Input(3)
    two = lc.Model([a, b], [lc.GRU(3, 3, seed=0)(a)[0], lc.GRU(3, 3, seed=1)(b)[0]])
    with pytest.raises(TypeError, match="a Model of several inputs or outputs, expected one of ea"):
        lc.Sequential(two)
    x = [np.ones((t, 2, 3), "float32") for t in (5, 3)]
    with pytest.raises(
        ValueError, match=r"lengths\[0\] is 4, .* x\[1\]: one array is for all input"
    ):
        two(x, lengths=[4, 2])
    assert repr(lc.Model(a, a + a)) == "Model()"


def test_what_needs_the_whole_sequence_is_named() -> None:
    parts = lc.GRU(3, 3, seed=0), lc.LastStep(), lc.RepeatVector(2), lc.GRU(3, 3, seed=1)
    model, x = lc.Sequential(*parts), np.ones((5, 2, 3), "float32")
    with pytest.raises(ValueError, match=r"^RepeatVector\(2\) needs the whole sequence"):
        lc.generate(model, x, 3)
    past, known = lc.Input(3), lc.Input(3)
    _, h = lc.GRU(3, 4, seed=0)(past)
    decoder = lc.Model([past, known], lc.GRU(3, 4, seed=1)(known, h)[0])
    data = [((x, x), np.ones((5, 2, 4), "float32"))]
    with pytest.raises(
        ValueError, match=r"but GRU\(3, 4\) in the Model takes what comes of all st"
    ):
        lc.evaluate(decoder, data, loss="mse", truncate=2)
