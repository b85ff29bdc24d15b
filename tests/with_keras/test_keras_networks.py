"""Functional models of Keras that are no chain, against Keras itself, and the other way round."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.networks import ATTENTION, NETWORKS, values_of
from lstmcore._base.tree import leaves, matched, rebuilt
from lstmcore.keras import _functional, _live

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = peers.require("keras")
L = keras.layers
ops = keras.ops

# NumPy 2's, about Keras's own code.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

B, T = 4, 6
RNG = np.random.default_rng(0)
A = RNG.standard_normal((B, T, 3)).astype("f4")
S = RNG.standard_normal((B, 2)).astype("f4")
IDS = RNG.integers(0, 7, (B, T))


def randomize(model: Any) -> Any:
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def call(model: Any, x: Any) -> Any:
    """What Keras gives, as NumPy; it sorts what has names."""
    given = rebuilt(x, (keras.ops.convert_to_tensor(a) for a in leaves(x)))
    y = model(list(given) if isinstance(given, tuple) else given)
    return rebuilt(y, (keras.ops.convert_to_numpy(one) for one in leaves(y)))


def same(ours: Any, theirs: Any, atol: float = 1e-5) -> None:
    for name, other in matched(ours, theirs, "y"):
        one = dict(matched(ours, ours, "y"))[name]
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=0, atol=atol)


def branches() -> tuple[Any, Any]:
    """Three inputs, layers that calls share, states that go on, all that merges."""
    a, s = L.Input((None, 3), name="a"), L.Input((2,), name="s")
    ids = L.Input((None,), dtype="int32", name="ids")
    vectors = L.Embedding(7, 3)(ids)
    x = L.Concatenate(name="beside")([a, L.LSTM(4, return_sequences=True)(vectors)])
    y, h, _ = L.LSTM(5, return_sequences=True, return_state=True, name="middle")(x)
    z = L.LSTM(5, return_sequences=True)(y, initial_state=[h, L.Dense(5, activation="tanh")(s)])
    shared, norm = L.Dense(5), L.LayerNormalization()
    sums = L.Add()([shared(z), norm(shared(y)), norm(z)])
    products = L.Subtract()([L.Multiply()([sums, y]), z])
    last = L.GRU(5, reset_after=False, go_backwards=True)(y, initial_state=h)
    pooled = L.Average()([L.GlobalAveragePooling1D()(y), L.GlobalMaxPooling1D()(z), last])
    model = keras.Model([a, s, ids], [products, L.Dense(2)(pooled), h])
    return randomize(model), (A, S, IDS)


def states() -> tuple[Any, Any]:
    """Encoder and decoder of two directions and of one."""
    source, previous = L.Input((None, 3), name="source"), L.Input((None, 3), name="previous")
    y, *both = L.Bidirectional(L.LSTM(4, return_sequences=True, return_state=True))(source)
    z = L.Bidirectional(L.LSTM(4), merge_mode="sum")(y, initial_state=both)
    _, forward, reverse = L.Bidirectional(L.GRU(2, return_state=True))(previous)
    decoded = L.SimpleRNN(4, return_sequences=True)(previous, initial_state=[z])
    outputs = {"decoded": decoded, "states": L.Concatenate(axis=1)([forward, reverse])}
    model = keras.Model({"source": source, "previous": previous}, outputs)
    return randomize(model), {"source": A, "previous": A[:, :4]}


def arithmetic() -> tuple[Any, Any]:
    """Operations of Keras between tensors, without layers."""
    a, s = L.Input((None, 3)), L.Input((2,))
    repeated = ops.expand_dims(s, 1) * ops.ones_like(a[..., :1])
    both = ops.concatenate([a, repeated, ops.ones_like(a[:, :, 1:2]) * ops.expand_dims(s, 1)], -1)
    y = L.Dense(3)(both)
    outputs = [
        2 * y - a / 4 + 1, 1 - a, -y * 0.5, a[..., 1:3], a[:, :, -1:], s[:, 1:], a[:, -1],
        y[:, -1, :], ops.flip(y, axis=1), ops.flip(a, axis=-1), ops.subtract(y, a),
    ]  # fmt: skip
    return randomize(keras.Model([a, s], outputs)), (A, S)


def inside() -> tuple[Any, Any]:
    """A Sequential model that is called twice, a wrapper, and a frozen layer."""
    a = L.Input((None, 3))
    block = keras.Sequential([L.GRU(4, return_sequences=True), L.Dense(3, activation="relu")])
    frozen = L.Dense(3, name="frozen")
    frozen.trainable = False
    y = L.Add()([a, block(a)])
    y = L.Add()([y, block(y), L.TimeDistributed(frozen)(y)])
    cell = L.RNN(L.LSTMCell(4), return_sequences=True)(y)
    return randomize(keras.Model(a, [y, L.Dropout(0.5)(cell)])), A


MODELS: dict[str, Callable[[], tuple[Any, Any]]] = {
    f.__name__: f for f in (branches, states, arithmetic, inside)
}
models = pytest.mark.parametrize("name", MODELS)


@models
def test_an_imported_network_computes_the_same(name: str, tmp_path: Path) -> None:
    """From memory and from a file; back in Keras; and once more here, to the bit."""
    model, x = MODELS[name]()
    expected = call(model, x)
    ours = lc.from_keras(model)
    assert isinstance(ours, lc.Model)
    y = ours(x)
    same(y, expected)
    assert (y.keys() if isinstance(y, dict) else None) == (
        model.output.keys() if isinstance(model.output, dict) else None
    )
    path = tmp_path / "model.keras"
    model.save(path)
    again = lc.from_keras(path)
    for one, other in zip(leaves(again(x)), leaves(y), strict=True):
        np.testing.assert_array_equal(one, other)
    theirs = lc.to_keras(ours)
    same(y, call(theirs, x))
    back = lc.from_keras(theirs)
    same(y, back(x), 1e-6)
    assert back.num_parameters == ours.num_parameters


def without_states(model: Any) -> Any:
    """The model with the first layer of every state that it gives."""
    inputs, outputs = model._plan.symbols(model._config.graph, list(model._children.values()))
    parts = (y[0] if y.axes.states else y for y in leaves(outputs))
    return lc.Model(inputs, rebuilt(outputs, parts))


def swapped(x: Any, timed: list[bool]) -> Any:
    """(B, T, ...) of (T, B, ...) where that is timed."""
    pairs = zip(leaves(x), timed, strict=True)
    return rebuilt(x, (a.swapaxes(0, 1) if t else a for a, t in pairs))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("first", [False, True])
def test_keras_computes_what_our_networks_do(name: str, first: bool) -> None:
    """And from there they come back."""
    model = without_states(NETWORKS[name](first)[0])
    plan = model._plan
    x = values_of(model)
    given = swapped(x, [axes.steps and not first for axes, _ in plan.given])
    expected = swapped(model(x), [plan.axes[y].steps and not first for y in plan.last])
    theirs = lc.to_keras(model)
    same(expected, call(theirs, given), 1e-6)
    again = lc.from_keras(theirs)
    same(expected, again(given), 1e-6)
    assert again.num_parameters == model.num_parameters


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("first", [False, True])
def test_keras_computes_what_our_attention_does(name: str, first: bool) -> None:
    model = ATTENTION[name](first)
    rng = np.random.default_rng(0)
    for p in model.parameters():  # biases, too, which begin with zeros
        p.data = rng.standard_normal(p.shape) * 0.5
    plan = model._plan
    x = values_of(model)
    given = swapped(x, [not first for _ in plan.given])
    expected = swapped(model(x), [plan.axes[y].steps and not first for y in plan.last])
    theirs = lc.to_keras(model)
    same(expected, call(theirs, given), 2e-6)
    if name == "transformer":  # the others' weights are outputs
        same(expected, lc.from_keras(theirs)(given), 2e-6)


@pytest.mark.parametrize("kind", ["AdditiveAttention", "Attention", "MultiHeadAttention"])
def test_masks_reach_the_keys_and_go_back(kind: str) -> None:
    """Keys that a Masking has left out are so in what is written of an imported network."""
    x, query = L.Input((T, 3)), L.Input((None, 4))
    h = L.GRU(4, return_sequences=True)(L.Masking()(x))
    if kind == "MultiHeadAttention":
        y = L.MultiHeadAttention(2, 3)(query, h)
    else:
        y = getattr(L, kind)()([query, h])
    model = randomize(keras.Model([x, query], L.Dense(2)(y)))
    values = A.copy()
    values[0, 3:] = values[1, 2] = values[2, :2] = 0
    given = (values, RNG.standard_normal((B, 5, 4)).astype("f4"))
    ours = lc.from_keras(model)
    same(ours(given), call(model, given), 1e-6)
    same(call(lc.to_keras(ours), given), call(model, given), 1e-6)
    with pytest.raises(ValueError, match="x != 0 is between the modules, which is not written"):
        lc.to_onnx(ours)


@pytest.mark.parametrize("kind", ["AdditiveAttention", "Attention", "MultiHeadAttention"])
def test_masked_queries_give_what_they_give_in_keras(kind: str) -> None:
    """Zeros, or with several heads the mean of all steps, where nothing masks them later."""
    x = L.Input((T, 3))
    h = L.GRU(4, return_sequences=True)(L.Masking()(x))
    if kind == "MultiHeadAttention":
        y = L.MultiHeadAttention(2, 3, value_dim=2)(h, h)
    else:
        y = getattr(L, kind)()([h, h])
    model = randomize(keras.Model(x, L.Dense(2)(y)))
    values = A.copy()
    values[0, 3:] = values[1, 2] = values[2, :2] = 0
    ours = lc.from_keras(model)
    same(ours(values), call(model, values), 1e-6)
    back = lc.to_keras(ours)
    same(call(back, values), call(model, values), 1e-6)
    same(lc.from_keras(back)(values), call(model, values), 1e-6)


def test_double_precision() -> None:
    x, static = lc.Input(3), lc.Input(2, steps=False)
    d: dict[str, Any] = {"dtype": "float64", "seed": 0}
    y, (h, _) = lc.LSTM(5, 3, 2, **d)(lc.concat([x, lc.repeat(static, like=x)]))
    steps = lc.Dropout(0.5)(lc.Tanh()(0.1 * x + y)) * x[..., 2:1:-1]
    model = lc.Model([x, static], [steps, lc.MaxPool()(y) + h[-1] - 0.3])
    values = RNG.standard_normal((T, B, 3)), RNG.standard_normal((B, 2))
    theirs = lc.to_keras(model)
    expected = swapped(model(values), [True, False])
    same(expected, call(theirs, (values[0].swapaxes(0, 1), values[1])), 1e-14)
    same(lc.from_keras(theirs)((values[0].swapaxes(0, 1), values[1])), expected, 1e-14)


def test_pooling_that_a_layer_of_keras_has_in_it() -> None:
    x = lc.Input(3)
    d: dict[str, Any] = {"batch_first": True, "seed": 0}
    two, one = lc.GRU(3, 4, bidirectional=True, **d), lc.LSTM(3, 4, **d)
    backwards = lc.RNN(3, 4, reverse=True, **d)
    ends, last = lc.BothEnds("ave"), lc.LastStep()
    y, state = backwards(x)
    outputs = [ends(two(x)[0]), ends(two(x * 2)[0]), last(one(x)[0]), y, last(y), state[0]]
    model = lc.Model(x, outputs)
    theirs = lc.to_keras(model)
    same(model(A), call(theirs, A), 1e-6)
    same(lc.from_keras(theirs)(A), model(A), 1e-6)
    kinds = [type(layer).__name__ for layer in theirs.layers]
    assert kinds.count("Bidirectional") == 1
    (lstm,) = (layer for layer in theirs.layers if type(layer) is L.LSTM)
    assert not lstm.return_sequences
    apart = lc.Model(x, [ends(two(x)[0]), two(x)[0]])
    with pytest.raises(ValueError, match=r"BothEnds\(merge='ave'\) is nothing that Keras"):
        lc.to_keras(apart)


def test_an_imported_network_trains_as_in_keras() -> None:
    model, x = branches()
    targets = [RNG.standard_normal(y.shape).astype("f4") for y in leaves(call(model, x))]
    ours = lc.from_keras(model)
    model.compile(keras.optimizers.SGD(0.05), ["mse", "mse", "mse"])
    theirs = model.fit(list(x), targets, epochs=3, batch_size=B, shuffle=False, verbose=0)
    optimizer = lc.optim.SGD(ours.parameters(), lr=0.05)

    def loss(pred: Any, target: Any, lengths: Any = None) -> Any:
        parts = [lc.losses.mse(p, t) for p, t in zip(pred, target, strict=True)]
        return sum(value for value, _ in parts), tuple(d for _, d in parts)

    history = lc.fit(
        ours, [(x, tuple(targets))], loss=loss, optimizer=optimizer, epochs=3, progress=False
    )
    np.testing.assert_allclose(history.losses, theirs.history["loss"], rtol=1e-5)
    same(ours(x), call(model, x), 1e-5)


# What is refused ----------------------------------------------------------------------------------


def test_networks_that_are_refused_by_name() -> None:
    x, s = L.Input((None, 3)), L.Input((2,))
    ids = L.Input((None,), dtype="int32")
    y = L.GRU(3, return_sequences=True)(x)
    masked = L.Embedding(7, 3, mask_zero=True)(ids)
    own = L.Input((None,), dtype="bool")
    for inputs, outputs, message in [
        ([x, own], [y, L.LSTM(2, name="told")(x, mask=own)], "is of bools, which is not"),
        (
            [x, ids],
            [y, L.LSTM(2, return_sequences=True, go_backwards=True)(masked)],
            "opposite directions",
        ),
        ([x, s], [y, L.Conv1DTranspose(3, 2, name="up")(x)], "Conv1DTranspose layer 'up' is not"),
        (x, L.Dot(-1)([x, y]), "one of the outputs of the model is Scores"),
        (x, [y, L.Flatten(name="flat")(x)], "'flat' needs rows whose size is fixed"),
        (x, [y, ops.roll(x, 1, axis=1)], "the Roll layer"),
        (x, [y, x[:, None]], r"takes \[.*\], which is not imported: parts of rows"),
        (x, [y, ops.ones_like(x)], "one of the outputs of the model is Ones"),
        (x, [y, ops.sum(x, axis=0)], "has axis=0, expected one of 1 to 2"),
        (x, [y, y / x], "divides by something else than a number"),
        (x, [y, ops.flip(x, axis=0)], "has axis=0, expected one of 1 to 2"),
    ]:
        with pytest.raises(ValueError, match=message + r"(.|\n)*can be had alone: layer='"):
            lc.from_keras(keras.Model(inputs, outputs))
    one = L.Input((3,))
    with pytest.raises(ValueError, match=r"'add.*: a \+ b, given .*their shapes are"):
        lc.from_keras(keras.Model([x, one], [y, x + one]))


class Own(lc.Module):
    def forward(self, x: Any) -> Any:
        return x, None


def test_what_is_not_known_is_named_however_many_inputs_it_has() -> None:
    x = keras.Input((T, 3))
    y = L.GRU(4, return_sequences=True)(x)
    for made, name in ((ops.einsum("btf,btg->bfg", y, y), "Einsum"), (ops.cumsum(y), "Cumsum")):
        with pytest.raises(
            ValueError, match=f"the {name} layer .* is not imported; those that are"
        ):
            lc.from_keras(keras.Model(x, made))


def test_the_layer_that_is_refused_is_not_offered_alone() -> None:
    model = keras.Sequential(
        [L.Input((T, 3)), L.LSTM(4, return_sequences=True), L.GRU(4, activation="celu", name="bad")]
    )
    with pytest.raises(ValueError, match=r"activation='celu'.* alone: layer='lstm") as caught:
        lc.from_keras(model)
    assert "'bad'" not in str(caught.value).partition("alone: ")[2]


def test_what_keras_cannot_express_is_refused_by_name() -> None:
    x = lc.Input(3)
    ids = lc.Input(ids=True)
    gru = lc.GRU(3, 3)
    for inputs, outputs, error, message in [
        (x, x + gru(lc.Masking()(x)[0])[0], ValueError, r"Masking\(\) is nothing .*chains only"),
        (x, x + lc.LSTM(3, 3, peephole=True)(x)[0], ValueError, "peephole=True cannot be written"),
        (x, x + Own()(x), TypeError, "Own"),
        ([ids, lc.Input(3, steps=False)], None, ValueError, "repeat is nothing .* are ids"),
        (x, [gru(x)[1], x + 1], ValueError, r"an output is a state \(1, B, 3\)"),
    ]:
        if outputs is None:
            outputs = lc.repeat(inputs[1], like=ids)
        with pytest.raises(error, match=message):
            lc.to_keras(lc.Model(inputs, outputs))
    network = lc.Model(x, gru(x)[0] + x)
    block = lc.Sequential(network, lc.Linear(3, 2))
    values = swapped(block(A.swapaxes(0, 1)), [True])
    same(values, call(lc.to_keras(block), A), 1e-6)
    block = lc.Sequential(lc.Linear(3, 3), network)
    with pytest.raises(ValueError, match=r"(?s)Model.*nothing that Keras.*with a lc\.Input"):
        lc.to_keras(block)


def _damaged(tree: Any, rng: np.random.Generator) -> Any:
    """The same with one value in it changed."""
    tree = copy.deepcopy(tree)
    at = tree
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        key = keys[rng.integers(len(keys))]
        if not isinstance(at[key], (dict, list)) or not at[key] or rng.random() < 0.1:
            break
        at = at[key]
    choices = [None, 0, -1, 10**9, "x", [], {}, 0.5, True, ["a", 0, 0], float("nan"), "lstm", at]
    at[key] = copy.deepcopy(choices[rng.integers(len(choices))])
    return tree


@models
def test_damaged_descriptions_are_value_errors(name: str) -> None:
    source = _live.source_of(MODELS[name]()[0])
    rng = np.random.default_rng(0)
    failed = 0
    for _ in range(int(os.environ.get("LSTMCORE_FUZZ", "200"))):
        model = _damaged(json.loads(json.dumps(source.model)), rng)
        try:
            _functional.import_model(source.__class__(model, 3, source.weights))
        except ValueError:
            failed += 1
    assert failed > 20


def test_an_order_of_layers_that_is_not_theirs() -> None:
    model, x = branches()
    source = _live.source_of(model)
    turned = copy.deepcopy(source.model)
    turned["config"]["layers"].reverse()
    ours = _functional.import_model(source.__class__(turned, 3, source.weights))
    same(ours(x), call(model, x))
    circle = copy.deepcopy(source.model)
    layers = {layer["config"]["name"]: layer for layer in circle["config"]["layers"]}
    node = layers["beside"]["inbound_nodes"][0]
    node["args"][0][0]["config"]["keras_history"] = ["middle", 0, 0]
    with pytest.raises(ValueError, match="takes what nothing gives before it"):
        _functional.import_model(source.__class__(circle, 3, source.weights))


def test_inputs_keep_the_names_that_they_were_given() -> None:
    long, short = lc.Input(3, name="long"), lc.Input(2, name="short")
    y = lc.concat([long, short])
    for inputs in ([long, short], {"long": long, "short": short}):
        made = lc.to_keras(lc.Model(inputs, y))
        assert [one.name for one in made.inputs] == ["long", "short"]
    assert [one.name for one in lc.to_keras(lc.Model({"a": long, "b": short}, y)).inputs] == [*"ab"]
