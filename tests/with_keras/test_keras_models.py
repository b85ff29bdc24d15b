"""Ordinary models of Keras come in whole, with Keras's numbers."""

from __future__ import annotations

import copy
import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from lstmcore._base.tree import leaves, rebuilt
from lstmcore.keras import _functional, _live

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = peers.require("keras")
L = keras.layers
ops = keras.ops

pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),  # NumPy 2's
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Keras's, of a mask that is lost
]

B, T, F, WORDS = 4, 7, 3, 20
RNG = np.random.default_rng(0)
X = RNG.standard_normal((B, T, F)).astype("f4")
S = RNG.standard_normal((B, 5)).astype("f4")
IDS = RNG.integers(1, WORDS, (B, T))
BEHIND = IDS * (np.arange(T) < [[7], [4], [1], [3]])
BEFORE = BEHIND[:, ::-1].copy()
HOLES = IDS * np.array(
    [[1, 0, 1, 1, 0, 0, 1], [0, 0, 1, 0, 1, 1, 0], [1] * 7, [0, 1, 0, 1, 0, 0, 0]]
)
LETTERS = RNG.integers(1, 9, (B, T, 5))

Case = Callable[[], tuple[Any, Any]]
CASES: dict[str, Case] = {}


def case(function: Case) -> Case:
    CASES[function.__name__] = function
    return function


def chain(*layers: Any, name: str | None = None) -> Any:
    return keras.Sequential(list(layers), name=name)


def ids(length: int | None = None) -> Any:
    return L.Input((length,), dtype="int32")


def steps(length: int | None = None, features: int = F) -> Any:
    return L.Input((length, features))


@case
def sentiment() -> Any:
    return chain(ids(), L.Embedding(WORDS, 8), L.LSTM(6), L.Dense(1, activation="sigmoid")), IDS


@case
def masked_sentiment() -> Any:
    layers = L.Embedding(WORDS, 8, mask_zero=True), L.Bidirectional(L.LSTM(6)), L.Dropout(0.5)
    return chain(ids(), *layers, L.Dense(3, activation="softmax")), HOLES


@case
def tagger() -> Any:
    layers = L.Embedding(WORDS, 8, mask_zero=True), L.LSTM(6, return_sequences=True)
    return chain(ids(), *layers, L.Dense(4, activation="softmax")), BEHIND


@case
def tagger_padded_before() -> Any:
    layers = L.Embedding(WORDS, 8, mask_zero=True), L.GRU(6, return_sequences=True)
    return chain(ids(), *layers, L.TimeDistributed(L.Dense(4, activation="softmax"))), BEFORE


@case
def bidirectional_tagger_with_holes() -> Any:
    layers = (
        L.Embedding(WORDS, 8, mask_zero=True), L.SpatialDropout1D(0.1),
        L.Bidirectional(L.LSTM(6, return_sequences=True)),
        L.Bidirectional(L.GRU(5, return_sequences=True), merge_mode="sum"),
        L.LSTM(4, return_sequences=True), L.Dense(4),
    )  # fmt: skip
    return chain(ids(), *layers), HOLES


@case
def masking_tagger() -> Any:
    x = np.where(HOLES[..., None] > 0, X, np.float32(-1))
    layers = L.Masking(-1.0), L.LSTM(6, return_sequences=True, recurrent_dropout=0.2)
    return chain(steps(), *layers, L.LayerNormalization(), L.Dense(2)), x


@case
def forecaster() -> Any:
    layers = (
        L.LSTM(8, return_sequences=True),
        L.Dropout(0.2),
        L.LSTM(6),
        L.Dense(4),
        L.Reshape((2, 2)),
    )
    return chain(steps(T), *layers), X


@case
def conv_and_lstm() -> Any:
    layers = (
        L.Conv1D(6, 3, padding="same", activation="relu"), L.MaxPooling1D(2),
        L.BatchNormalization(), L.LSTM(5), L.Dense(1),
    )  # fmt: skip
    return chain(steps(T), *layers), X


@case
def conv_of_unknown_lengths() -> Any:
    layers = (
        L.Conv1D(6, 4, strides=2, padding="same", activation="elu"),
        L.MaxPooling1D(3, strides=2, padding="same"), L.UpSampling1D(2), L.ZeroPadding1D((1, 2)),
        L.AveragePooling1D(3, strides=1, padding="same"),
        L.Cropping1D((0, 1)), L.GRU(4, return_sequences=True), L.GlobalMaxPooling1D(keepdims=True),
    )  # fmt: skip
    return chain(steps(), *layers), X


@case
def text_of_conv() -> Any:
    layers = L.Embedding(WORDS, 8, mask_zero=True), L.Conv1D(5, 3, activation="relu")
    return chain(ids(), *layers, L.GlobalMaxPooling1D(), L.Dense(2, activation="softmax")), BEHIND


@case
def conv_behind_masked_steps() -> Any:
    layers = (
        L.Embedding(WORDS, 8, mask_zero=True), L.LSTM(5, return_sequences=True), L.Conv1D(4, 2),
        L.GlobalMaxPooling1D(), L.Dense(2),
    )  # fmt: skip
    return chain(ids(), *layers), HOLES


@case
def flattened() -> Any:
    layers = L.Embedding(WORDS, 4), L.SimpleRNN(3, return_sequences=True), L.Flatten(), L.Dense(2)
    return chain(ids(T), *layers), IDS


@case
def autoencoder() -> Any:
    layers = (
        L.LSTM(6, return_sequences=True), L.LSTM(3), L.RepeatVector(T),
        L.LSTM(3, return_sequences=True), L.LSTM(6, return_sequences=True),
        L.TimeDistributed(L.Dense(F)),
    )  # fmt: skip
    return chain(steps(T), *layers), X


@case
def frames_of_a_series() -> Any:
    layers = (
        L.TimeDistributed(L.Conv1D(4, 2, activation="relu")), L.TimeDistributed(L.MaxPooling1D(2)),
        L.TimeDistributed(L.Flatten()), L.LSTM(5), L.Dense(1),
    )  # fmt: skip
    return chain(L.Input((None, 6, 2)), *layers), RNG.standard_normal((B, T, 6, 2)).astype("f4")


@case
def letters_of_words() -> Any:
    words, letters = ids(), L.Input((None, 5), dtype="int32")
    spelled = L.TimeDistributed(L.Embedding(9, 3))(letters)
    spelled = L.TimeDistributed(L.Bidirectional(L.LSTM(2)))(spelled)
    x = L.Concatenate()([L.Embedding(WORDS, 6)(words), spelled])
    y = L.Bidirectional(L.LSTM(5, return_sequences=True))(x)
    return keras.Model([words, letters], L.Dense(4, activation="softmax")(y)), (IDS, LETTERS)


@case
def hierarchy() -> Any:
    word = ids(5)
    sentence = keras.Model(word, L.GRU(4)(L.Embedding(9, 3)(word)), name="sentence")
    text = L.Input((T, 5), dtype="int32")
    y = L.GRU(3)(L.TimeDistributed(sentence)(text))
    return keras.Model(text, L.Dense(2)(y)), LETTERS


@case
def translator() -> Any:
    source, target = steps(features=F), steps(features=F)
    _, h, c = L.LSTM(6, return_state=True)(source)
    y, _, _ = L.LSTM(6, return_sequences=True, return_state=True)(target, initial_state=[h, c])
    return keras.Model([source, target], L.Dense(F, activation="softmax")(y)), (X, X[:, 2:])


@case
def masked_translator() -> Any:
    source, target = ids(), ids()
    embedded = L.Embedding(WORDS, 5, mask_zero=True)(source)
    y, forward, backward = L.Bidirectional(L.GRU(4, return_sequences=True, return_state=True))(
        embedded
    )
    start = L.Concatenate()([forward, backward])
    decoded = L.GRU(8, return_sequences=True)(
        L.Embedding(WORDS, 5, mask_zero=True)(target), initial_state=start
    )
    context = L.Attention()([decoded, y])
    both = L.Concatenate()([decoded, context])
    return keras.Model([source, target], L.Dense(WORDS, activation="softmax")(both)), (
        HOLES,
        BEHIND,
    )


@case
def encoder_of_states() -> Any:
    source = ids()
    y = L.Embedding(WORDS, 5)(source)
    outputs = L.LSTM(4, return_state=True)(y)
    return keras.Model(source, outputs[1:]), IDS


@case
def decoder_with_states_as_inputs() -> Any:
    token, h, c = ids(), L.Input((4,)), L.Input((4,))
    y, *states = L.LSTM(4, return_sequences=True, return_state=True)(
        L.Embedding(WORDS, 5)(token), initial_state=[h, c]
    )
    states_given = (S[:, :4], S[:, 1:])
    return keras.Model([token, h, c], [L.Dense(WORDS)(y), *states]), (IDS[:, :1], *states_given)


@case
def states_of_two_directions() -> Any:
    x, a, b = steps(), L.Input((5,)), L.Input((5,))
    y, *states = L.Bidirectional(L.GRU(5, return_state=True), merge_mode="mul")(
        x, initial_state=[a, b]
    )
    return keras.Model([x, a, b], [y, *states]), (X, S, -S)


@case
def two_outputs_of_two_directions() -> Any:
    x = steps()
    a, b = L.Bidirectional(L.LSTM(3, return_sequences=True), merge_mode=None)(x)
    c, d = L.Bidirectional(L.SimpleRNN(3), merge_mode=None)(x)
    return keras.Model(x, [L.Subtract()([a, b]), c, d]), X


@case
def attention_classifier() -> Any:
    words = ids(T)
    h = L.Bidirectional(L.LSTM(4, return_sequences=True))(L.Embedding(WORDS, 6)(words))
    scores = L.Flatten()(L.Dense(1, activation="tanh")(h))
    weights = L.Permute((2, 1))(L.RepeatVector(8)(L.Activation("softmax")(scores)))
    weighted = L.Multiply()([h, weights])
    return keras.Model(words, L.Dense(2)(L.GlobalAveragePooling1D()(weighted))), IDS


@case
def attention_over_time() -> Any:
    x = steps()
    h = L.GRU(4, return_sequences=True)(x)
    weights = L.Softmax(axis=1)(L.Dense(1)(h))
    context = L.Flatten()(L.Dot(axes=1)([weights, h]))
    summed = ops.sum(ops.softmax(L.Dense(1)(h), axis=1) * h, axis=1)
    return keras.Model(x, L.Dense(2)(L.Concatenate()([context, summed, h[:, -1]]))), X


@case
def self_attention() -> Any:
    words = ids()
    h = L.LSTM(4, return_sequences=True)(L.Embedding(WORDS, 6, mask_zero=True)(words))
    a = L.Attention(use_scale=True)([h, h])
    b = L.AdditiveAttention()([h, h])
    return keras.Model(words, L.GlobalAveragePooling1D()(L.Add()([a, b]))), HOLES


@case
def transformer_block() -> Any:
    x = steps(features=8)
    h = L.MultiHeadAttention(2, 3, value_dim=5)(x, x)
    h = L.LayerNormalization(epsilon=1e-6)(L.Add()([x, h]))
    dense = chain(L.Dense(6, activation="gelu"), L.Dense(8))
    h = L.LayerNormalization()(L.Add()([h, dense(h)]))
    h = L.MultiHeadAttention(2, 4, use_bias=False, output_shape=5)(h, value=x)
    values = RNG.standard_normal((B, T, 8)).astype("f4")
    return keras.Model(x, L.GlobalAveragePooling1D()(L.GRU(4, return_sequences=True)(h))), values


@case
def siamese() -> Any:
    left, right = ids(), ids()
    encoder = chain(ids(), L.Embedding(WORDS, 6, mask_zero=True), L.LSTM(5), name="encoder")
    a, b = encoder(left), encoder(right)
    return keras.Model([left, right], L.Dense(1)(L.Dot(axes=1, normalize=True)([a, b]))), (
        BEHIND, HOLES,
    )  # fmt: skip


@case
def wide_and_deep() -> Any:
    series, static, kind = steps(), L.Input((5,)), L.Input((1,), dtype="int32")
    normal = L.Normalization(mean=[0.1] * F, variance=[2.0, 0.5, 1.0])(series)
    h = L.GRU(4)(normal)
    category = L.Flatten()(L.Embedding(3, 2)(kind))
    both = L.Concatenate()(
        [h, L.Dense(4, activation="selu")(L.Rescaling(0.5, 1.0)(static)), category]
    )
    heads = {"value": L.Dense(1)(both), "kind": L.Dense(3, activation="softmax")(both)}
    return keras.Model([series, static, kind], heads), (X, S, RNG.integers(0, 3, (B, 1)))


@case
def residual_stack() -> Any:
    x = steps(features=4)
    y = x
    for _ in range(2):
        z = L.Bidirectional(L.LSTM(2, return_sequences=True))(L.LayerNormalization()(y))
        y = L.Add()([y, z])
    y = L.Maximum()([y, L.Average()([x, y, z])])
    values = RNG.standard_normal((B, T, 4)).astype("f4")
    return keras.Model(x, L.Minimum()([y, L.Activation("mish")(x)])), values


@case
def stacked_cells() -> Any:
    x = steps()
    cells = [L.LSTMCell(4), L.GRUCell(3), L.SimpleRNNCell(2)]
    y, *states = L.RNN(cells, return_sequences=True, return_state=True)(x)
    back = L.RNN([L.GRUCell(3), L.LSTMCell(2)], go_backwards=True)(x)
    return keras.Model(x, [y, back, *keras.tree.flatten(states)]), X


@case
def static_repeated_over_steps() -> Any:
    x, s = steps(T), L.Input((5,))
    both = L.Concatenate()([x, L.RepeatVector(T)(L.Dense(2)(s))])
    y = L.GRU(4, return_sequences=True)(both)
    y = L.Concatenate(axis=1)([L.Reshape((1, 4))(L.Dense(4)(s)), y])
    return keras.Model([x, s], [y[:, 2], y[:, 1:4], L.SimpleRNN(3)(y)]), (X, S)


@case
def activations() -> Any:
    names = ["elu", "selu", "gelu", "silu", "softplus", "leaky_relu", "exponential", "mish",
             "hard_silu", "hard_sigmoid", "softsign", "relu6"]  # fmt: skip
    layers = [L.Dense(4, activation=name) for name in names]
    return chain(steps(), L.GRU(4, return_sequences=True), *layers, L.ReLU(6.0)), X


@case
def zeros_where_masked() -> Any:
    layers = L.LSTM(4, return_sequences=True, zero_output_for_mask=True), L.Dense(2)
    x = np.where(HOLES[..., None] > 0, X, np.float32(0))
    return chain(steps(), L.Masking(), *layers, L.LSTM(3, return_sequences=True)), x


@case
def lstm_fcn() -> Any:
    x = steps(T)
    recurrent = L.Dropout(0.8)(L.LSTM(4)(L.Permute((2, 1))(x)))
    y = L.Conv1D(6, 4, padding="same", kernel_initializer="he_uniform")(x)
    y = L.Activation("relu")(L.BatchNormalization()(y))
    gate = L.Dense(6, activation="sigmoid")(L.Reshape((1, 6))(L.GlobalAveragePooling1D()(y)))
    y = L.GlobalAveragePooling1D()(L.Multiply()([y, gate]))
    return keras.Model(x, L.Dense(3, activation="softmax")(L.concatenate([recurrent, y]))), X


@case
def gated_causal_convolutions() -> Any:
    x = steps(features=4)
    y, skips = x, []
    for dilation in (1, 2, 4):
        options = {"padding": "causal", "dilation_rate": dilation}
        a = L.Conv1D(4, 2, activation="tanh", **options)(y)
        b = L.Conv1D(4, 2, activation="sigmoid", **options)(y)
        z = L.Conv1D(4, 1)(L.Multiply()([a, b]))
        skips.append(z)
        y = L.Add()([y, z])
    y = L.LSTM(3, return_sequences=True)(L.ReLU()(L.Add()(skips)))
    return keras.Model(x, L.Conv1D(1, 1)(y)), RNG.standard_normal((B, T, 4)).astype("f4")


@case
def luong_attention_of_any_length() -> Any:
    source, target = ids(), ids()
    encoded, *states = L.LSTM(5, return_sequences=True, return_state=True)(
        L.Embedding(WORDS, 4)(source)
    )
    decoded = L.LSTM(5, return_sequences=True)(L.Embedding(WORDS, 4)(target), initial_state=states)
    weights = L.Activation("softmax")(L.Dot(axes=[2, 2])([decoded, encoded]))
    context = L.Dot(axes=[2, 1])([weights, encoded])
    both = L.Dense(5, activation="tanh")(L.Concatenate()([context, decoded]))
    return keras.Model([source, target], L.TimeDistributed(L.Dense(WORDS))(both)), (IDS, IDS[:, 3:])


@case
def luong_attention_of_fixed_length() -> Any:
    x = steps(T)
    h = L.GRU(4, return_sequences=True)(x)
    weights = L.Softmax()(L.Dot(axes=(2, 2))([h, h]))
    product = ops.matmul(weights, h)
    return keras.Model(x, [weights, product, ops.max(product, axis=1, keepdims=True)]), X


@case
def distance_of_sequences() -> Any:
    left, right = steps(), steps()
    shared = L.GRU(4)
    a, b = shared(left), shared(right)
    distance = ops.sum(ops.abs(a - b), axis=1, keepdims=True)
    return keras.Model([left, right], ops.exp(-distance)), (X, X[::-1, 2:])


@case
def rows_beside_steps_in_another_shape() -> Any:
    x, row = steps(4), L.Input((4,))
    gate = L.Reshape((1, 4))(row)
    return keras.Model(
        [x, row], L.Add()([L.Multiply()([L.Permute((2, 1))(x), gate]), L.Reshape((3, 4))(x), gate])
    ), (X[:, :4], S[:, :4])


CANNOT_GO_BACK = {
    "conv_of_unknown_lengths": "padsame is nothing that Keras can express",
    "siamese": "unitlength is nothing that Keras can express there: its UnitNormalization is by",
}


def randomize(model: Any) -> None:
    rng = np.random.default_rng(1)
    model.set_weights(
        [
            abs(rng.normal(1, 0.1, w.shape))
            if "variance" in v.path
            else rng.normal(0, 0.4, w.shape)
            for w, v in zip(model.get_weights(), model.weights, strict=True)
        ]
    )


def call(model: Any, x: Any) -> Any:
    given = rebuilt(x, (keras.ops.convert_to_tensor(a) for a in leaves(x)))
    y = model(list(given) if isinstance(given, tuple) else given)
    return rebuilt(y, (keras.ops.convert_to_numpy(one) for one in leaves(y)))


def same(ours: Any, theirs: Any, atol: float = 2e-5) -> None:
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        ours = {name: ours[name] for name in theirs}
    ours, theirs = leaves(ours), leaves(theirs)
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=atol)


@pytest.mark.parametrize("name", CASES)
def test_it_comes_in_whole(name: str, tmp_path: Path) -> None:
    """From memory and from a file, with Keras's numbers everywhere; and it trains and is saved."""
    model, x = CASES[name]()
    randomize(model)
    expected = call(model, x)
    ours = lc.from_keras(model)
    y = ours(x)
    same(y, expected)
    model.save(tmp_path / "model.keras")
    again = lc.from_keras(tmp_path / "model.keras")
    for one, other in zip(leaves(again(x)), leaves(y), strict=True):
        np.testing.assert_array_equal(one, other)
    lc.save(ours, tmp_path / "model.safetensors")
    loaded = lc.load(tmp_path / "model.safetensors")
    assert loaded == ours
    for one, other in zip(leaves(loaded(x)), leaves(y), strict=True):
        np.testing.assert_array_equal(one, other)
    if name in CANNOT_GO_BACK:
        with pytest.raises(ValueError, match=CANNOT_GO_BACK[name]):
            lc.to_keras(ours)
    else:
        back = lc.to_keras(ours)
        same(y, call(back, x))
        same(lc.from_keras(back)(x), expected)
    z, tape = ours.forward(x)
    ours.backward(
        tape, rebuilt(z, (RNG.standard_normal(one.shape).astype(one.dtype) for one in leaves(z)))
    )
    assert not ours.parameters() or any(np.any(p.grad) for p in ours.parameters())
    trained = sum(int(np.prod(w.shape)) for w in model.trainable_weights)
    assert sum(p.data.size for p in ours.parameters() if p.trainable) <= trained + 2


def as_keras_2(node: Any) -> Any:
    """A call as Keras 2 writes it down: [[layer, call, output, keyword arguments], ...]."""
    state = node["kwargs"].get("initial_state")
    args = [*node["args"][0], *(state or [])] if isinstance(node["args"][0], list) else node["args"]
    args = args if state is None or args is not node["args"] else [*args, *state]
    return [[*one["config"]["keras_history"], {}] for one in args]


@pytest.mark.parametrize(
    "name",
    [
        "letters_of_words", "translator", "decoder_with_states_as_inputs", "attention_classifier",
        "states_of_two_directions", "residual_stack", "tagger_of_branches",
    ],
)  # fmt: skip
def test_functional_models_as_keras_2_writes_them(name: str) -> None:
    """Without masks in the calls, which its layers hand on by themselves."""
    if name == "tagger_of_branches":
        words = ids()
        h = L.Embedding(WORDS, 6, mask_zero=True)(words)
        a, b = L.LSTM(4, return_sequences=True)(h), L.GRU(4, return_sequences=True)(h)
        model, x = keras.Model(words, L.Dense(3)(L.Concatenate()([a, L.Add()([a, b])]))), HOLES
    else:
        model, x = CASES[name]()
    randomize(model)
    source = _live.source_of(model)
    old = copy.deepcopy(source.model)
    old["class_name"] = "Model"
    layers = old["config"]["layers"]
    old["config"]["layers"] = [one for one in layers if "keras.src.ops" not in one["module"]]
    for layer in old["config"]["layers"]:
        layer["name"] = layer["config"]["name"]
        layer["inbound_nodes"] = [as_keras_2(node) for node in layer["inbound_nodes"]]
    for which in ("input_layers", "output_layers"):
        ends = old["config"][which]
        old["config"][which] = [ends] if isinstance(ends[0], str) else ends
    ours = _functional.import_model(source.__class__(old, 2, source.weights))
    same(ours(x), call(model, x))


def test_the_bytes_of_a_file_and_an_open_one(tmp_path: Path) -> None:
    model, x = CASES["tagger"]()
    expected = call(model, x)
    for suffix in ("keras", "h5"):
        path = tmp_path / f"model.{suffix}"
        model.save(path)
        data = path.read_bytes()
        for given in (str(path), data, bytearray(data), memoryview(data), io.BytesIO(data)):
            same(lc.from_keras(given)(x), expected)
        with open(path, "rb") as file:
            same(lc.from_keras(file)(x), expected)
    with open(tmp_path / "text.txt", "w+") as text, pytest.raises(TypeError, match="with 'rb'"):
        lc.from_keras(text)
    with pytest.raises(ValueError, match=r"source is neither a \.keras file"):
        lc.from_keras(b"nothing of the kind")
    folder = tmp_path / "saved"
    folder.mkdir()
    (folder / "saved_model.pb").write_bytes(b"")
    with pytest.raises(ValueError, match="saved is a SavedModel folder of TensorFlow"):
        lc.from_keras(folder)


@pytest.mark.parametrize("x", [BEHIND, BEFORE, HOLES], ids=["behind", "before", "holes"])
def test_a_tagger_is_scored_and_trained_as_in_keras(x: Any) -> None:
    """Masked steps do not count, wherever they are."""
    model = chain(
        ids(), L.Embedding(WORDS, 6, mask_zero=True),
        L.Bidirectional(L.LSTM(4, return_sequences=True)), L.GRU(5, return_sequences=True),
        L.Dense(3, activation="softmax"),
    )  # fmt: skip
    randomize(model)
    tags = RNG.integers(0, 3, x.shape)
    ours = lc.from_keras(model)[:-1]
    model.compile(keras.optimizers.SGD(0.2), "sparse_categorical_crossentropy")
    theirs = model.fit(x, tags, epochs=3, batch_size=2, shuffle=False, verbose=0)
    optimizer = lc.optim.SGD(ours.parameters(), lr=0.2)
    history = lc.fit(
        ours, (x, tags), loss=lc.losses.cross_entropy, optimizer=optimizer, epochs=3, batch_size=2,
        shuffle=False, progress=False,
    )  # fmt: skip
    expected = lc.from_keras(model)
    for (name, p), q in zip(ours.named_parameters(), expected.parameters(), strict=True):
        np.testing.assert_allclose(p.data, q.data, rtol=0, atol=1e-5, err_msg=name)
    assert len(history.losses) == len(theirs.history["loss"]) == 3


@pytest.mark.parametrize(
    "build",
    [
        lambda: L.LSTM(4, return_sequences=True),
        lambda: L.Bidirectional(L.GRU(4), merge_mode="ave"),
        lambda: L.RNN([L.LSTMCell(3), L.SimpleRNNCell(4)]),
    ],
)
@pytest.mark.parametrize("x", [BEHIND, BEFORE, HOLES])
def test_masks_that_are_given_by_hand(build: Any, x: Any) -> None:
    words, series = ids(), steps()
    mask = ops.not_equal(words, 0)
    model = keras.Model([words, series], build()(series, mask=mask))
    randomize(model)
    same(lc.from_keras(model)((x, X)), call(model, (x, X)))
