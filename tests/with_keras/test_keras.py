"""Layers and models of Keras in memory, against Keras itself, and the other way round."""

from __future__ import annotations

import doctest
import os
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.paths import ROOT
from helpers.variants import CELLS, STACKS, masks_of, name_of, of_a_cell

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = peers.require("keras")
L = keras.layers

# NumPy 2's, about Keras's own code.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

Array = np.ndarray[Any, np.dtype[Any]]

KINDS = ("SimpleRNN", "LSTM", "GRU")
ACTIVATIONS = (
    "tanh", "sigmoid", "relu", "linear", "softsign", "hard_sigmoid", "elu", "selu", "gelu", "silu",
    "softplus", "leaky_relu", "mish", "hard_silu",
)  # fmt: skip
MERGES = ("concat", "sum", "mul", "ave")
X = np.random.default_rng(0).standard_normal((4, 7, 3)).astype("float32")
IDS = np.array([[3, 1, 4, 1, 5, 9, 2], [6, 5, 3, 0, 0, 0, 0], [2, 0, 0, 0, 0, 0, 0], [8] * 7])
GAPS = np.array(
    [[0, 0, 4, 1, 5, 9, 2], [6, 0, 3, 0, 0, 5, 0], [0, 0, 0, 0, 0, 0, 0], [0] + [8] * 6]
)


def model_of(*layers: Any, shape: tuple[Any, ...] = (None, 3), **options: Any) -> Any:
    """A Keras model with random weights."""
    return randomize(keras.Sequential([L.Input(shape, **options), *layers]))


def randomize(model: Any) -> Any:
    rng = np.random.default_rng(1)
    model.set_weights([rng.normal(0, 0.5, w.shape).astype(w.dtype) for w in model.get_weights()])
    return model


def call(model: Any, x: Array, **options: Any) -> Any:
    """What Keras gives, as NumPy."""
    y = model(x, **options)
    if isinstance(y, (list, tuple)):
        return [keras.ops.convert_to_numpy(part) for part in y]
    return keras.ops.convert_to_numpy(y)


def check(model: Any, x: Array = X, atol: float = 1e-5) -> Any:
    """Import it, compare, bring it back with the same bits, and return what was imported."""
    ours = lc.from_keras(model)
    expected = call(model, x)
    scale = max(1.0, float(np.abs(expected).max()))
    np.testing.assert_allclose(ours(x), expected, rtol=0, atol=atol * scale)
    back = lc.to_keras(ours)
    same_weights(model, back)
    np.testing.assert_allclose(call(back, x), expected, rtol=0, atol=1e-6 * scale)
    assert lc.from_keras(back) == ours
    return ours


def same_weights(one: Any, other: Any) -> None:
    """Every weight equal, bit for bit."""
    first, second = one.get_weights(), other.get_weights()
    assert [(w.shape, w.dtype) for w in first] == [(w.shape, w.dtype) for w in second]
    assert [w.tobytes() for w in first] == [w.tobytes() for w in second]


# Recurrent layers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("backwards", [False, True])
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_one_layer(kind: str, sequences: bool, backwards: bool, activation: str) -> None:
    for bias in (True, False):
        for reset_after in (True, False) if kind == "GRU" else (None,):
            options = {} if reset_after is None else {"reset_after": reset_after}
            if kind != "SimpleRNN":
                options["recurrent_activation"] = {"tanh": "sigmoid", "relu": "softsign"}.get(
                    activation, "hard_sigmoid"
                )
            layer = getattr(L, kind)(
                5,
                activation=activation,
                use_bias=bias,
                return_sequences=sequences,
                go_backwards=backwards,
                **options,
            )
            check(model_of(layer))


@pytest.mark.parametrize(
    ("activation", "ours"),
    [
        ("exponential", "exponential"),  # whose states grow without a bound, if weights are large
        ("swish", "silu"),
        ("hard_swish", "hard_silu"),
        ("leaky_relu", ("leaky_relu", 0.2)),
        (L.LeakyReLU(), ("leaky_relu", 0.3)),
        (L.LeakyReLU(negative_slope=0.1), ("leaky_relu", 0.1)),
        (L.ELU(alpha=0.5), ("elu", 0.5)),
    ],
)
@pytest.mark.parametrize("kind", KINDS)
def test_activations_by_other_names_and_layers(kind: str, activation: Any, ours: Any) -> None:
    model = model_of(getattr(L, kind)(4, activation=activation, return_sequences=True))
    model.set_weights([w / 10 for w in model.get_weights()])
    layer = check(model)[0]
    assert (layer.nonlinearity if kind == "SimpleRNN" else layer.activations[1]) == ours


@pytest.mark.parametrize(
    ("activation", "message"),
    [
        ("relu6", "activation='relu6', which is not imported; these are: tanh, .*, hard_sigmoid"),
        (L.PReLU(), "activation of class 'PReLU', .*: LeakyReLU and ELU"),
        (L.ELU(alpha=-0.5), "has ELU as its activation: .*at least 0"),
    ],
)
def test_activations_that_are_not_imported(activation: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.from_keras(model_of(L.GRU(4, activation=activation)))


@pytest.mark.parametrize("merge", MERGES)
@pytest.mark.parametrize("sequences", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_bidirectional(kind: str, sequences: bool, merge: str) -> None:
    inner = getattr(L, kind)(5, return_sequences=sequences)
    model = model_of(L.Bidirectional(inner, merge_mode=merge))
    ours = check(model)
    assert len(ours) == 1 + (not sequences)
    own = getattr(L, kind)(5, return_sequences=sequences, go_backwards=True)
    check(model_of(L.Bidirectional(inner, merge_mode=merge, backward_layer=own)))


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_alone_gives_all_outputs_and_the_state(kind: str) -> None:
    layer = getattr(L, kind)(5, return_sequences=True, return_state=True)
    layer.build((None, None, 3))
    randomize(layer)
    ours = lc.from_keras(layer)
    assert type(ours).__name__ == kind.removeprefix("Simple")
    y, state = ours(X)
    expected, *states = call(layer, X)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    for part, theirs in zip(state if kind == "LSTM" else [state], states, strict=True):
        np.testing.assert_allclose(part[0], theirs, atol=1e-6)
    start = [np.full((4, 5), 0.3, "float32") for _ in states]
    expected = call(layer, X, initial_state=[keras.ops.convert_to_tensor(s) for s in start])[0]
    h0 = tuple(s[None] for s in start)
    np.testing.assert_allclose(ours(X, h0 if kind == "LSTM" else h0[0])[0], expected, atol=1e-6)
    same_weights(lc.to_keras(ours), layer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_bidirectional_layer_alone(kind: str) -> None:
    layer = L.Bidirectional(getattr(L, kind)(5, return_state=True, return_sequences=True))
    layer.build((None, None, 3))
    randomize(layer)
    ours = lc.from_keras(layer)
    y, state = ours(X)
    expected, *states = call(layer, X)
    np.testing.assert_allclose(y, expected, atol=1e-6)
    parts = [part[d] for d in (0, 1) for part in (state if kind == "LSTM" else [state])]
    for part, theirs in zip(parts, states, strict=True):
        np.testing.assert_allclose(part, theirs, atol=1e-6)
    same_weights(lc.to_keras(ours), layer)


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_alone_that_goes_backwards_keeps_its_outputs_in_place(kind: str) -> None:
    layer = getattr(L, kind)(5, return_sequences=True, go_backwards=True)
    layer.build((None, None, 3))
    randomize(layer)
    ours = lc.from_keras(layer)
    assert ours.reverse
    np.testing.assert_allclose(ours(X)[0][:, ::-1], call(layer, X), atol=1e-6)
    back = lc.to_keras(ours)
    same_weights(back, layer)
    np.testing.assert_array_equal(call(back, X), call(layer, X))


@pytest.mark.parametrize("kind", KINDS)
def test_cells(kind: str) -> None:
    cell = getattr(L, kind + "Cell")(5)
    cell.build((None, 3))
    randomize(cell)
    ours = lc.from_keras(cell)
    states = [np.full((4, 5), 0.3, "float32") for _ in range(1 + (kind == "LSTM"))]
    _, expected = cell(X[:, 0], [keras.ops.convert_to_tensor(s) for s in states])
    expected = expected if isinstance(expected, (list, tuple)) else [expected]
    got = ours(X[:, 0], tuple(states) if kind == "LSTM" else states[0])
    for part, theirs in zip(got if kind == "LSTM" else [got], expected, strict=True):
        np.testing.assert_allclose(part, keras.ops.convert_to_numpy(theirs), atol=1e-6)
    same_weights(lc.to_keras(ours), cell)
    loop = model_of(L.RNN(getattr(L, kind + "Cell")(5), return_sequences=True))
    np.testing.assert_allclose(lc.from_keras(loop)(X), call(loop, X), atol=1e-6)


def test_options_that_change_nothing() -> None:
    layer = L.LSTM(
        5, unit_forget_bias=False, unroll=True, dropout=0.2, recurrent_dropout=0.3, seed=1,
        kernel_regularizer="l2", bias_constraint="non_neg", recurrent_initializer="zeros",
    )  # fmt: skip
    layer.trainable = False
    model = model_of(layer, shape=(7, 3))
    np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)


def test_double_precision() -> None:
    recurrent = (
        L.Bidirectional(L.GRU(5, return_sequences=True, dtype="float64"), dtype="float64"),
        L.LSTM(4, dtype="float64"),
    )
    check(model_of(*recurrent, dtype="float64"), X.astype("float64"), 1e-13)
    others = L.LayerNormalization(dtype="float64"), L.SimpleRNN(4, dtype="float64")
    model = model_of(*others, L.Dense(2, dtype="float64"), dtype="float64")
    ours = check(model, X.astype("float64"))  # Keras rounds to float32 in between
    assert ours.dtype == np.float64


def test_stateful_is_the_state_that_run_hands_on() -> None:
    layers = L.LSTM(5, stateful=True, return_sequences=True), L.GRU(4, stateful=True)
    model = randomize(keras.Sequential([L.Input(batch_shape=(4, 7, 3)), *layers]))
    ours = lc.from_keras(model)
    state = None
    for _ in range(3):
        y, state = ours.run(X, state)
        np.testing.assert_allclose(y, call(model, X), atol=1e-6)


# Masks --------------------------------------------------------------------------------------------


def masked(value: float) -> Array:
    x = X.copy()
    x[IDS == 0] = value
    return x


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["plain", "backwards", *MERGES])
def test_masked_to_a_last_output(kind: str, form: str) -> None:
    def last() -> Any:
        layer = getattr(L, kind)(5, go_backwards=form == "backwards")
        return L.Bidirectional(layer, merge_mode=form) if form in MERGES else layer

    first = getattr(L, kind)(4, return_sequences=True)
    embedding = L.Embedding(10, 3, mask_zero=True)
    model = model_of(embedding, first, L.Dropout(0.1), last(), shape=(None,), dtype="int32")
    ours = check(model, IDS)
    np.testing.assert_allclose(ours(GAPS), call(model, GAPS), atol=1e-5)
    check(model_of(L.Masking(0.25), last()), masked(0.25))


@pytest.mark.parametrize("kind", KINDS)
def test_masked_outputs_for_every_step(kind: str) -> None:
    layers = (
        L.Embedding(10, 3, mask_zero=True),
        L.Bidirectional(getattr(L, kind)(4, return_sequences=True)),
        getattr(L, kind)(5, return_sequences=True),
        L.LayerNormalization(),
        L.TimeDistributed(L.Dense(2, activation="softmax")),
    )
    model = model_of(*layers, shape=(None,), dtype="int32")
    ours = lc.from_keras(model)
    valid = IDS > 0
    np.testing.assert_allclose(ours(IDS)[valid], call(model, IDS)[valid], atol=1e-6)
    for ids in (IDS, GAPS):  # also where a step is masked
        np.testing.assert_allclose(ours(ids), call(model, ids), atol=1e-6)
    assert lc.from_keras(lc.to_keras(ours)) == ours


def test_masked_mean() -> None:
    layers = L.Embedding(10, 3, mask_zero=True), L.GlobalAveragePooling1D(), L.Dense(2)
    check(model_of(*layers, shape=(None,), dtype="int32"), IDS)
    layers = L.Masking(0.25), L.GRU(4, return_sequences=True), L.GlobalAveragePooling1D()
    check(model_of(*layers), masked(0.25))


def test_a_mask_that_nobody_looks_at() -> None:
    model = model_of(L.Embedding(10, 3, mask_zero=True), L.Dense(2), shape=(None,), dtype="int32")
    ours = lc.from_keras(model)
    assert [type(m).__name__ for m in ours] == ["Embedding", "Linear"]
    np.testing.assert_allclose(ours(GAPS), call(model, GAPS), atol=1e-6)


# Other layers, and models -------------------------------------------------------------------------


def test_dense_and_activations() -> None:
    for name in ("tanh", "relu", "sigmoid", "softmax", "log_softmax", "linear"):
        ours = lc.from_keras(model_of(L.Dense(4, activation=name)))
        np.testing.assert_allclose(
            ours(X), call(model_of(L.Dense(4, activation=name)), X), atol=1e-6
        )
        check(model_of(L.Dense(4, use_bias=False), L.Activation(name), shape=(3,)), X[0])
    for layer in (L.ReLU(), L.Softmax(), L.SpatialDropout1D(0.5), L.GaussianNoise(1.0)):
        model = model_of(L.Dense(4), layer)
        np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)
    ours = lc.from_keras(model_of(L.Dense(2)).layers[0])
    assert isinstance(ours, lc.Linear)


@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_layer_normalization(options: dict[str, Any]) -> None:
    model = model_of(L.LayerNormalization(**options), L.GRU(2))
    np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)
    if options.get("scale", True):
        check(model)


def test_pooling() -> None:
    for pool in (L.GlobalAveragePooling1D(), L.GlobalMaxPooling1D()):
        check(model_of(L.SimpleRNN(4, return_sequences=True), pool))
        check(model_of(pool.from_config(pool.get_config()), L.Dense(2)))


def test_a_model_in_a_model() -> None:
    inner = keras.Sequential([L.Bidirectional(L.LSTM(3, return_sequences=True)), L.Dense(4)])
    model = model_of(L.GRU(3, return_sequences=True), inner, L.Dense(2))
    np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)
    inner.layers[0].trainable = False
    with pytest.raises(ValueError, match="trainable=False beside others"):
        lc.from_keras(model)


def functional(masks: bool) -> Any:
    ids = L.Input((None,), dtype="int32")
    h = L.Embedding(10, 3, mask_zero=masks)(ids)
    h = L.Bidirectional(L.LSTM(4, return_sequences=True))(h)
    h, *_ = L.GRU(5, return_sequences=True, return_state=True)(h)
    h = L.SimpleRNN(4)(h)
    return randomize(keras.Model(ids, L.Dense(2, activation="softmax")(h)))


@pytest.mark.parametrize("masks", [False, True])
def test_a_functional_chain(masks: bool) -> None:
    model = functional(masks)
    ours = lc.from_keras(model)
    np.testing.assert_allclose(ours(IDS), call(model, IDS), atol=1e-6)
    np.testing.assert_allclose(ours(GAPS), call(model, GAPS), atol=1e-6)


def test_a_functional_chain_with_masking() -> None:
    x = L.Input((None, 3))
    h = L.LSTM(4, return_sequences=True)(L.Masking(0.25)(x))
    model = randomize(keras.Model(x, L.GRU(5)(h)))
    np.testing.assert_allclose(
        lc.from_keras(model)(masked(0.25)), call(model, masked(0.25)), atol=1e-6
    )


def test_one_layer_of_a_model_that_is_no_chain() -> None:
    x = L.Input((None, 3))
    forward, other = L.LSTM(4, name="one")(x), L.LSTM(4, name="two")(x)
    model = randomize(keras.Model(x, L.Add(name="sum")([forward, other])))
    for name in ("one", "two"):
        ours = lc.from_keras(model, layer=name)
        y = call(model.get_layer(name), X)
        np.testing.assert_allclose(ours(X)[0][:, -1], y, atol=1e-6)
    np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"layer is 'three', expected one of .*'one', 'two', 'sum'"
    ):
        lc.from_keras(model, layer="three")


# Ours ---------------------------------------------------------------------------------------------


def ours_with(kind: str, **options: Any) -> Any:
    return getattr(lc, kind)(3, 4, batch_first=True, seed=0, **options)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"bias": False},
        {"num_layers": 3, "dropout": 0.2},
        {"num_layers": 2, "bidirectional": True},
        {"num_layers": 2, "bidirectional": True, "merge": "mul"},
    ],
)
def test_our_layers_in_keras(kind: str, options: dict[str, Any]) -> None:
    layer = ours_with(kind, **options)
    theirs = lc.to_keras(layer)
    np.testing.assert_allclose(call(theirs, X), layer(X)[0], atol=1e-6)


@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_our_reverse_layers_in_keras(kind: str) -> None:
    layer = ours_with(kind, num_layers=2, reverse=True)
    np.testing.assert_allclose(call(lc.to_keras(layer), X)[:, ::-1], layer(X)[0], atol=1e-6)


def test_our_models_in_keras() -> None:
    seeds = {"batch_first": True, "seed": 0}
    for model in (
        lc.Sequential(lc.LSTM(3, 4, num_layers=2, **seeds), lc.LastStep(), lc.Linear(4, 2)),
        lc.Sequential(lc.Flip(), lc.GRU(3, 4, num_layers=2, **seeds), lc.LastStep()),
        lc.Sequential(
            lc.Linear(3, 5, bias=False, seed=0),
            lc.LayerNorm(5),
            lc.Tanh(),
            lc.Dropout(0.2),
            lc.RNN(5, 4, bidirectional=True, **seeds),
            lc.BothEnds("ave"),
            lc.Sequential(lc.Linear(4, 2, seed=0), lc.Softmax()),
        ),
        lc.Sequential(lc.LayerNorm(3, elementwise_affine=False), lc.GRU(3, 2, **seeds)),
        lc.Sequential(lc.Masking(0.25), lc.GRU(3, 2, **seeds), lc.MeanPool()),
        lc.Sequential(lc.Masking(0.25), lc.Flip(), lc.GRU(3, 2, **seeds), lc.LastStep()),
    ):
        np.testing.assert_allclose(
            call(lc.to_keras(model), masked(0.25)), model(masked(0.25)), atol=1e-6
        )
    embedding = lc.to_keras(lc.Embedding(10, 4, seed=0))
    np.testing.assert_array_equal(call(embedding, IDS), lc.Embedding(10, 4, seed=0)(IDS))


# What Keras has no option for, or no such value of.
LACKS = {
    "proj_size", "forget_gate", "coupled", "peephole", "cell_clip", "gate_clip", "zoneout",
    "input_dropout", "recurrent_dropout", "weight_dropout", "layer_norm",
}  # fmt: skip


def lacks(options: dict[str, Any]) -> set[str]:
    """The options of a variant that are refused."""
    refused = LACKS & set(options)
    for name in ("nonlinearity", "activations"):
        value = options.get(name, ())
        roles = value if name == "activations" else (value,)
        kinds = {role if isinstance(role, str) else role[0] for role in roles if role}
        if kinds & {"hard_sigmoid", "scaled_tanh", "affine", "thresholded_relu"}:
            refused.add(name)
        if len(set(roles[1:])) > 1:
            refused.add(name)
    return refused


def like(mine: Any, theirs: Any, tolerance: float = 1e-6) -> None:
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=tolerance)


@pytest.mark.parametrize("stack", STACKS, ids=name_of)
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant_there_and_back(
    kind: str, options: dict[str, Any], stack: dict[str, Any]
) -> None:
    """The same numbers in Keras and of what comes back, or refused by name."""
    layer = ours_with(kind, **options, **stack)
    refused = lacks(options)
    if refused:
        with pytest.raises(ValueError, match=rf"^{kind}\(.*({'|'.join(refused)})=.* to Keras"):
            lc.to_keras(layer)
        return
    theirs = lc.to_keras(layer)
    y = layer(X)[0]
    back = lc.from_keras(theirs)
    if layer.reverse:  # Keras's outputs are in the order in which they are read
        like(call(theirs, X)[:, ::-1], y)
        like(back(X)[0] if layer.num_layers == 1 else back(X)[:, ::-1], y)
    else:
        like(call(theirs, X), y)
        like(back(X)[0] if layer.num_layers == 1 else back(X), y)


@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant_of_the_cells_there_and_back(kind: str, options: dict[str, Any]) -> None:
    options = of_a_cell(kind, options)
    cell: Any = getattr(lc, kind + "Cell")(3, 4, seed=0, **options)
    refused = lacks(options)
    if refused:
        with pytest.raises(ValueError, match=rf"^{kind}Cell\(.*({'|'.join(refused)})=.* to Keras"):
            lc.to_keras(cell)
        return
    theirs = lc.to_keras(cell)
    rng = np.random.default_rng(0)
    states = [rng.standard_normal((len(X), 4)).astype("float32") for _ in cell._state_parts]
    ours = cell(X[:, 0], states[0] if len(states) == 1 else tuple(states))
    like(np.asarray(theirs(X[:, 0], states)[0].detach()), ours[0] if len(states) > 1 else ours)
    again = lc.from_keras(theirs)(X[:, 0], states[0] if len(states) == 1 else tuple(states))
    like(np.stack(again), np.stack(ours))


def chain(*modules: Any) -> lc.Sequential:
    return lc.Sequential(*modules)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (
            lc.LSTM(3, 4, activations=("sigmoid", "tanh", "relu")),
            "one activation for the candidate",
        ),
        (lc.RNN(3, 4, nonlinearity=("scaled_tanh", 2.0, 0.5)), "Keras 3 has no .'scaled_tanh"),
        (
            lc.GRU(3, 4, activations=(("hard_sigmoid", 0.2, 0.5), "tanh")),
            "Keras 3 has no .'hard_sigmoid",
        ),
        (lc.GRU(3, 4, activations=("sigmoid", ("affine", 1.0, 0.5))), "Keras 3 has no .'affine"),
        (chain(lc.GRU(3, 4), lc.Dropout(0.1), lc.LastStep()), r"LastStep\(\) is nothing that"),
        (chain(lc.GRU(3, 4, bidirectional=True), lc.LastStep()), "take BothEnds"),
        (chain(lc.GRU(3, 4, reverse=True), lc.LastStep()), "for reverse=True a Flip"),
        (chain(lc.GRU(3, 4, reverse=True), lc.Linear(4, 2)), "write Flip before"),
        (chain(lc.Flip(), lc.GRU(3, 4, bidirectional=True)), "after Flip.* is more than"),
        (chain(lc.GRU(3, 4), lc.Flip()), r"Flip\(\) is nothing that"),
        (chain(lc.GRU(3, 4), lc.BothEnds()), "BothEnds.* is more than"),
        (chain(lc.Masking(), lc.GRU(3, 4), lc.MaxPool()), r"MaxPool\(\) is nothing that"),
        (chain(lc.Masking(), lc.Flip(), lc.GRU(3, 4), lc.MeanPool()), "opposite directions"),
        (chain(lc.Masking(), lc.Flip(), lc.GRU(3, 4, 2), lc.LastStep()), "opposite directions"),
        (chain(lc.Masking(1, ids=True), lc.Embedding(3, 4)), "0 for an Embedding"),
        (lc.LayerNorm((3, 4)), "is nothing that Keras"),
    ],
)
def test_what_keras_cannot_express_is_refused(module: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.to_keras(module)


def test_to_keras_wants_a_module() -> None:
    with pytest.raises(TypeError, match="module is 3"):
        lc.to_keras(3)  # type: ignore[arg-type]

    class Own(lc.GRU):
        pass

    with pytest.raises(TypeError, match=r"module '1' of module is a .*Own, expected a module of"):
        lc.to_keras(chain(lc.Linear(3, 3), Own(3, 4, batch_first=True)))


# What is refused ----------------------------------------------------------------------------------


class Mine(L.LSTM):  # type: ignore[misc, name-defined]
    pass


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: L.LSTM(4, activation="celu"), "'celu', which is not imported"),
        (lambda: L.GRU(4, recurrent_activation=lambda x: x), "recurrent_activation of class"),
        (lambda: L.LSTM(4, recurrent_activation="relu6"), "'relu6', which is not imported"),
        (lambda: L.Dense(4, activation="celu"), "'celu', which is not imported"),
        (
            lambda: L.Bidirectional(L.LSTM(4, go_backwards=True), backward_layer=L.LSTM(4)),
            "a forward layer that goes backwards",
        ),
        (lambda: L.Conv1DTranspose(4, 3), "the Conv1DTranspose layer .* is not imported"),
        (lambda: L.BatchNormalization(axis=1), "the BatchNormalization layer .* has axis="),
        (lambda: L.Lambda(lambda x: x), "the Lambda layer"),
        (lambda: L.LayerNormalization(axis=1), r"has axis=\[1\]"),
        (lambda: L.LayerNormalization(scale=False, center=False), "neither scale nor center"),
        (lambda: L.LayerNormalization(rms_scaling=True), "rms_scaling=True"),
        (lambda: L.ReLU(max_value=5.0), "has a threshold or a max_value"),
        (lambda: L.Dropout(0.1, noise_shape=(None, 1, 3)), "noise_shape"),
        (lambda: L.GlobalMaxPooling1D(data_format="data_format="), "data_format="),
        (lambda: L.TimeDistributed(L.Lambda(lambda x: x)), "the Lambda layer"),
        (lambda: L.MaxPooling1D(2, data_format="channels_first"), "data_format='channels_first'"),
        (lambda: Mine(4), "the Mine layer"),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras's, of input_shape
def test_refused_by_name(layer: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lc.from_keras(model_of(layer(), shape=(6, 3)))


@pytest.mark.filterwarnings("ignore::UserWarning")  # Keras's, of a mask that is lost
def test_masks_of_several_layers_and_masks_that_are_overlooked() -> None:
    backwards = L.LSTM(4, go_backwards=True, return_sequences=True)
    with pytest.raises(ValueError, match="opposite directions"):
        lc.from_keras(model_of(L.Masking(), backwards))
    for layers in (
        (L.Masking(), L.Masking(0.25), L.LSTM(4)),
        (L.Masking(0.25), L.LSTM(4, return_sequences=True), L.GlobalMaxPooling1D()),
    ):
        model = model_of(*layers)
        x = masked(0.25)
        np.testing.assert_allclose(lc.from_keras(model)(x), call(model, x), atol=1e-6)


def test_graphs_that_are_refused() -> None:
    x = L.Input((None, 3))
    mask = L.Input((None,), dtype="bool")
    with pytest.raises(ValueError, match=r"the input .* is of bools"):
        lc.from_keras(keras.Model([x, mask], L.GRU(4)(x, mask=mask)))
    own = keras.ops.any(keras.ops.not_equal(x, 3.0), axis=-1)
    model = keras.Model(x, L.GRU(4)(x, mask=own))
    np.testing.assert_allclose(lc.from_keras(model)(X), call(model, X), atol=1e-6)
    with pytest.raises(ValueError, match="is not imported"):
        lc.from_keras(keras.Model(x, keras.ops.sort(x, axis=1)))


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (None, TypeError, "^source is None .*, expected a layer or model"),
        (3, TypeError, "^source is 3 \\(int\\), expected a layer or model"),
        (lc.LSTM(3, 4), TypeError, "expected a layer or model of Keras"),
        (L.LSTM(4), ValueError, "has no kernel: it is not built"),
    ],
)
def test_what_is_not_of_keras(source: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        lc.from_keras(source)


def test_a_subclass_is_refused() -> None:
    layer = Mine(4)
    layer.build((None, None, 3))
    with pytest.raises(TypeError, match="of a class derived from Keras's, expected"):
        lc.from_keras(layer)


def test_arguments_for_files_only() -> None:
    model = model_of(L.LSTM(4))
    with pytest.raises(ValueError, match="config is given"):
        lc.from_keras(model, config={})
    with pytest.raises(ValueError, match="layer is 'lstm', but source is not a model"):
        lc.from_keras(model.layers[0], layer="lstm")


# Going on -----------------------------------------------------------------------------------------


def test_an_imported_model_is_saved_and_trained(tmp_path: Any) -> None:
    model = model_of(
        L.Embedding(10, 3, mask_zero=True),
        L.Bidirectional(L.GRU(4, return_sequences=True)),
        L.LSTM(5, go_backwards=True),
        L.Dense(2),
        shape=(None,),
        dtype="int32",
    )
    ours = lc.from_keras(model)
    lc.save(ours, tmp_path / "model.safetensors")
    assert lc.load(tmp_path / "model.safetensors") == ours
    target = np.array([[1.0, 0.0]] * 4, "float32")
    optimizer = lc.optim.Adam(ours.parameters(), lr=0.05)
    losses = []
    for _ in range(30):
        y, tape = ours.forward(GAPS)
        loss, dy = lc.losses.mse(y, target)
        losses.append(loss)
        optimizer.zero_grad()
        ours.backward(tape, dy)
        optimizer.step()
    assert losses[-1] < losses[0] / 10
    np.testing.assert_allclose(call(lc.to_keras(ours), GAPS), ours(GAPS), atol=1e-6)


# The documentation --------------------------------------------------------------------------------


def test_the_documentation(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = (ROOT / "docs" / "keras.md").read_text("utf-8")
    test = doctest.DocTestParser().get_doctest(text, {}, "keras.md", "keras.md", 0)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


# Dropout inside recurrent layers ------------------------------------------------------------------


@pytest.mark.parametrize("reset_after", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_masks_of_dropout_mean_what_they_mean_in_keras(kind: str, reset_after: bool) -> None:
    """Keras's cell, given the masks that ours has drawn: outputs and gradients."""
    torch = peers.require("torch")
    options = {"reset_after": reset_after} if kind == "GRU" else {}
    sizes = {"batch_first": True, "dtype": "float64", "seed": 0, **options}
    ours = getattr(lc, kind)(3, 5, input_dropout=0.4, recurrent_dropout=0.3, **sizes)
    layer = lc.to_keras(getattr(lc, kind)(3, 5, **sizes))
    x = X.astype("float64")
    y, _, tape = ours.forward(x)
    masks = masks_of(ours, tape._core.dropout_key, 7, 4)
    of_x, of_h = (torch.tensor(masks[name][0]) for name in ("input_masks", "recurrent_masks"))
    cell = layer.cell
    cell.dropout, cell.recurrent_dropout, cell.implementation = 0.4, 0.3, 1
    several = 1 if kind == "RNN" else 4  # masks, one for each gate
    cell.get_dropout_mask = lambda _: of_x if several == 1 else [of_x] * several
    cell.get_recurrent_dropout_mask = lambda _: of_h if several == 1 else [of_h] * several
    given = torch.tensor(x, requires_grad=True)
    made = layer(given, training=True)
    np.testing.assert_allclose(y, made.detach().numpy(), rtol=0, atol=1e-6)
    made.sum().backward()
    dx, _ = ours.backward(tape, np.ones_like(y))
    np.testing.assert_allclose(dx, given.grad.numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "option", ["input_dropout", "recurrent_dropout", "weight_dropout", "zoneout"]
)
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_options_that_keras_layers_of_other_meaning_have_are_refused(
    kind: str, option: str
) -> None:
    layer = getattr(lc, kind)(3, 5, batch_first=True, **{option: 0.25})
    with pytest.raises(ValueError, match=f"{option}=0.25 cannot be written to Keras"):
        lc.to_keras(layer)
