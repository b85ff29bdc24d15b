"""Models as people write them in Keras, each brought in whole and taken back, against Keras."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = peers.require("keras")
L = keras.layers
ops = keras.ops

# NumPy 2's, about Keras's own code.
pytestmark = [
    pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),  # Keras's, of a mask that is lost
]

RNG = np.random.default_rng(0)


def numbers(*shape: int) -> Any:
    return RNG.standard_normal(shape).astype("f4")


def ids(count: int, *shape: int) -> Any:
    return RNG.integers(1, count, shape)


def padded(ends: list[int], time: int) -> Any:
    """Ids, and zeros behind the ends of rows."""
    made = ids(20, len(ends), time)
    made[np.arange(time) >= np.array(ends)[:, None]] = 0
    return made


def two_encoders(**options: Any) -> tuple[Any, Any, Any]:
    a, b = L.Input((None, 4)), L.Input((None, 4))
    query, value = (L.GRU(5, return_sequences=True)(x) for x in (a, b))
    return [a, b], query, value


def concat_scores(scale: bool, masked: bool = False) -> Any:
    inputs, query, value = two_encoders()
    if masked:
        value = L.Masking(5.0)(inputs[1])
        value = L.GRU(5, return_sequences=True)(value)
    return keras.Model(inputs, L.Attention(use_scale=scale, score_mode="concat")([query, value]))


def chain(*layers: Any) -> Any:
    return keras.Sequential(list(layers))


def both_ways(*cells: Any, last: bool = False, **options: Any) -> Any:
    inner = L.RNN(list(cells), return_sequences=not last)
    return chain(L.Input((None, 4)), L.Bidirectional(inner, **options), L.Dense(2))


def different(last: bool, merge: Any) -> Any:
    forward = L.LSTM(5, return_sequences=not last)
    backward = L.GRU(5, return_sequences=not last, go_backwards=True, activation="relu")
    x = L.Input((None, 4))
    y = L.Bidirectional(forward, backward_layer=backward, merge_mode=merge)(x)
    return keras.Model(x, y)


def masked_both_ways() -> Any:
    x = L.Input((None,), dtype="int32")
    y = L.Embedding(20, 4, mask_zero=True)(x)
    inner = L.RNN([L.LSTMCell(5), L.GRUCell(6)], return_sequences=True)
    return keras.Model(x, L.Dense(2)(L.Bidirectional(inner)(y)))


def states_both_ways() -> Any:
    x = L.Input((None, 4))
    inner = L.LSTM(5, return_sequences=True, return_state=True)
    back = L.LSTM(5, return_sequences=True, return_state=True, go_backwards=True, activation="relu")
    first = L.Bidirectional(inner, backward_layer=back)
    y, *states = first(x)
    again = L.LSTM(5, return_sequences=True)
    other = L.LSTM(5, return_sequences=True, go_backwards=True, activation="softsign")
    z = L.Bidirectional(again, backward_layer=other)(y, initial_state=states)
    return keras.Model(x, [z, *states])


def steps_behind_each_other(how: str) -> Any:
    a, b = L.Input((None,), dtype="int32"), L.Input((None,), dtype="int32")
    embedding = L.Embedding(20, 4, mask_zero=True)
    parts = [embedding(a), embedding(b)]
    if how == "one masked":
        parts[1] = L.Embedding(20, 4)(b)
    x = L.Concatenate(axis=1)(parts)
    y = L.GRU(5, return_sequences=how != "last")(x)
    return keras.Model([a, b], L.Dense(3)(y))


def masked_queries() -> Any:
    x = L.Input((None,), dtype="int32")
    y = L.GRU(6, return_sequences=True)(L.Embedding(20, 4, mask_zero=True)(x))
    mixed = L.MultiHeadAttention(2, 3)(y, y)
    return keras.Model(x, L.Dense(3)(L.LayerNormalization()(L.Add()([y, mixed]))))


def looking_back(kind: str, masked: bool = False, other: bool = False) -> Any:
    if masked:
        x = L.Input((None,), dtype="int32")
        y = L.GRU(6, return_sequences=True)(L.Embedding(20, 4, mask_zero=True)(x))
    else:
        x = L.Input((None, 4))
        y = L.GRU(6, return_sequences=True)(x)
    inputs, key = x, y
    if other:
        inputs = [x, L.Input((None, 6))]
        key = inputs[1]
    if kind == "MultiHeadAttention":
        z = L.MultiHeadAttention(2, 3)(y, key, use_causal_mask=True)
    else:
        options = {"score_mode": "concat"} if kind == "concat" else {}
        layer = L.AdditiveAttention() if kind == "AdditiveAttention" else L.Attention(**options)
        z = layer([y, key], use_causal_mask=True)
    return keras.Model(inputs, L.Dense(3)(L.Concatenate()([y, z])))


def siamese() -> Any:
    a, b = L.Input((None,), dtype="int32"), L.Input((None,), dtype="int32")
    embedding, lstm = L.Embedding(20, 4), L.LSTM(6)
    apart = L.Subtract()([lstm(embedding(a)), lstm(embedding(b))])
    return keras.Model([a, b], ops.exp(-ops.sum(ops.abs(apart), axis=1, keepdims=True)))


def characters_and_words() -> Any:
    words, letters = L.Input((None,), dtype="int32"), L.Input((None, 6), dtype="int32")
    of_letters = L.TimeDistributed(L.Embedding(15, 3))(letters)
    of_letters = L.TimeDistributed(L.LSTM(5))(of_letters)
    x = L.Concatenate()([L.Embedding(20, 4)(words), of_letters])
    x = L.Bidirectional(L.LSTM(6, return_sequences=True))(x)
    y = L.TimeDistributed(L.Dense(4, activation="softmax"))(x)
    return keras.Model([words, letters], y)


def gated_residual() -> Any:
    x = L.Input((None, 2))
    y = L.Conv1D(4, 2, padding="causal")(x)
    for rate in (1, 2, 4):
        gates = [
            L.Conv1D(4, 2, padding="causal", dilation_rate=rate, activation=name)(y)
            for name in ("tanh", "sigmoid")
        ]
        y = L.Add()([y, L.Conv1D(4, 1)(L.Multiply()(gates))])
    return keras.Model(x, L.Dense(1)(L.GRU(5, return_sequences=True)(y)))


def attention_by_permuting() -> Any:
    x = L.Input((7, 4))
    y = L.LSTM(5, return_sequences=True)(x)
    shares = L.Dense(7, activation="softmax")(L.Permute((2, 1))(y))
    z = L.Multiply()([y, L.Permute((2, 1))(shares)])
    return keras.Model(x, L.Dense(2)(L.Flatten()(z)))


def decoder_for_inference() -> Any:
    x, h, c = L.Input((None, 9)), L.Input((6,)), L.Input((6,))
    lstm = L.LSTM(6, return_sequences=True, return_state=True)
    y, h1, c1 = lstm(x, initial_state=[h, c])
    return keras.Model([x, h, c], [L.Dense(9, activation="softmax")(y), h1, c1])


def windows() -> Any:
    return chain(
        L.Input((4, 10, 3)), L.TimeDistributed(L.Conv1D(6, 3, activation="relu")),
        L.TimeDistributed(L.MaxPooling1D(2)), L.TimeDistributed(L.Flatten()), L.LSTM(5), L.Dense(1),
    )  # fmt: skip


ENDS = [5, 2, 3]
CASES: dict[str, tuple[Callable[[], Any], list[Any]]] = {
    "scores by concat": (lambda: concat_scores(False), [numbers(2, 5, 4), numbers(2, 7, 4)]),
    "scores by concat, scaled": (
        lambda: concat_scores(True),
        [numbers(2, 5, 4), numbers(2, 7, 4)],
    ),
    "scores by concat, masked": (
        lambda: concat_scores(True, True),
        [numbers(2, 5, 4), np.where(np.arange(7)[:, None] < 4, numbers(2, 7, 4), 5).astype("f4")],
    ),
    "stacked cells both ways": (
        lambda: both_ways(L.LSTMCell(5), L.GRUCell(6)),
        [numbers(2, 5, 4)],
    ),
    "stacked cells, the last": (
        lambda: both_ways(L.LSTMCell(5), L.LSTMCell(6), last=True, merge_mode="sum"),
        [numbers(2, 5, 4)],
    ),
    "stacked cells, averaged": (
        lambda: both_ways(L.GRUCell(5), L.GRUCell(5), merge_mode="ave"),
        [numbers(2, 5, 4)],
    ),
    "stacked cells, masked": (masked_both_ways, [np.array([[1, 2, 0, 4, 0], [0, 5, 6, 7, 8]])]),
    "different directions": (lambda: different(False, "concat"), [numbers(2, 5, 4)]),
    "different directions, the last": (lambda: different(True, "mul"), [numbers(2, 5, 4)]),
    "different directions, two outputs": (lambda: different(False, None), [numbers(2, 5, 4)]),
    "states of different directions": (states_both_ways, [numbers(2, 5, 4)]),
    "masked steps behind each other": (
        lambda: steps_behind_each_other(""),
        [padded(ENDS, 5), padded([4, 1, 3], 4)],
    ),
    "masked steps behind each other, the last": (
        lambda: steps_behind_each_other("last"),
        [padded(ENDS, 5), padded([4, 1, 3], 4)],
    ),
    "steps behind each other, one masked": (
        lambda: steps_behind_each_other("one masked"),
        [padded(ENDS, 5), ids(20, 3, 4)],
    ),
    "masked queries": (masked_queries, [padded(ENDS, 5)]),
    "separable convolution": (
        lambda: chain(
            L.Input((9, 4)), L.SeparableConv1D(6, 3, padding="same", depth_multiplier=2),
            L.Bidirectional(L.GRU(5, return_sequences=True)), L.Dense(3),
        ),
        [numbers(2, 9, 4)],
    ),
    "depthwise convolution": (
        lambda: chain(
            L.Input((9, 4)),
            L.DepthwiseConv1D(3, depth_multiplier=2, strides=2, padding="same", activation="relu"),
            L.GRU(5), L.Dense(3),
        ),
        [numbers(2, 9, 4)],
    ),
    "groups": (
        lambda: chain(
            L.Input((7, 4)), L.Conv1D(6, 3, groups=2, padding="same"), L.PReLU(shared_axes=[1]),
            L.MaxPooling1D(2), L.LSTM(5), L.Dense(3), L.PReLU(),
        ),
        [numbers(2, 7, 4)],
    ),
    "unit length": (
        lambda: chain(L.Input((9, 4)), L.LSTM(5), L.UnitNormalization()), [numbers(2, 9, 4)]
    ),
    **{
        f"{kind} looking back{', masked' * masked}": (
            lambda kind=kind, masked=masked: looking_back(kind, masked),
            [np.array([[1, 2, 0, 4, 0], [0, 5, 6, 7, 8]]) if masked else numbers(2, 5, 4)],
        )
        for kind in ("Attention", "concat", "AdditiveAttention", "MultiHeadAttention")
        for masked in (False, True)
    },
    "looking back at fewer": (
        lambda: looking_back("Attention", other=True),
        [numbers(2, 5, 4), numbers(2, 3, 6)],
    ),
    "siamese": (siamese, [ids(20, 3, 5), ids(20, 3, 6)]),
    "characters and words": (characters_and_words, [ids(20, 2, 5), ids(15, 2, 5, 6)]),
    "gated residual": (gated_residual, [numbers(2, 9, 2)]),
    "attention by permuting": (attention_by_permuting, [numbers(2, 7, 4)]),
    "decoder for inference": (
        decoder_for_inference,
        [numbers(2, 1, 9), numbers(2, 6), numbers(2, 6)],
    ),
    "windows": (windows, [numbers(2, 4, 10, 3)]),
}  # fmt: skip


def randomized(model: Any) -> Any:
    rng = np.random.default_rng(1)
    weights = [rng.normal(0, 0.5, w.shape).astype(w.dtype) for w in model.get_weights()]
    model.set_weights(weights)
    return model


def given_by(model: Any, args: list[Any]) -> list[Any]:
    """What a model of Keras gives, as a list."""
    made = model(args if len(args) > 1 else args[0])
    made = made if isinstance(made, (list, tuple)) else [made]
    return [ops.convert_to_numpy(one) for one in made]


def ours_of(model: Any, args: list[Any]) -> list[Any]:
    made = model(*args)
    return list(made) if isinstance(made, tuple) else [made]


@pytest.mark.parametrize("name", list(CASES))
def test_known_models_come_in_whole_and_go_back(name: str) -> None:
    make, args = CASES[name]
    theirs = randomized(make())
    expected = given_by(theirs, args)
    ours = lc.from_keras(theirs)
    for one, other in zip(ours_of(ours, args), expected, strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=1e-5)
    written = lc.to_keras(ours)
    for one, other in zip(given_by(written, args), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    if name == "stacked cells, masked":  # which is written as layers that go backwards
        with pytest.raises(ValueError, match="outputs and its mask then run in opposite"):
            lc.from_keras(written)
        return
    again = lc.from_keras(written)
    for one, other in zip(ours_of(again, args), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    "name", ["stacked cells, masked", "masked steps behind each other", "masked queries"]
)
def test_they_train(name: str) -> None:
    make, args = CASES[name]
    model = lc.from_keras(randomized(make()))
    y, tape = model.forward(args[0] if len(args) == 1 else args)
    model.backward(tape, np.ones_like(y))
    grads = [np.abs(p.grad).sum() for p in model.parameters() if p.trainable]
    assert all(g > 0 for g in grads)


def test_one_weight_of_scores_is_not_trained() -> None:
    model = lc.from_keras(concat_scores(True))
    (additive,) = (m for m in model._children.values() if isinstance(m, lc.attention.Additive))
    assert not any(p.trainable for p in additive.parameters())


def test_the_mean_of_no_steps_is_zero() -> None:
    """Keras divides by how many steps there are, and gives NaN where all are masked."""
    theirs = randomized(
        chain(
            L.Input((None,), dtype="int32"), L.Embedding(20, 4, mask_zero=True),
            L.GlobalAveragePooling1D(),
        )
    )  # fmt: skip
    rows = np.array([[3, 4, 0], [0, 0, 0]])
    (expected,) = given_by(theirs, [rows])
    found = lc.from_keras(theirs)(rows)
    np.testing.assert_allclose(found[0], expected[0], atol=1e-6)
    assert np.isnan(expected[1]).all()
    np.testing.assert_array_equal(found[1], 0)


def test_masks_that_do_not_go_with_a_causal_one() -> None:
    x, other = L.Input((None, 4)), L.Input((None, 4))
    key = L.Masking()(other)
    y = L.Attention(name="back")([x, key], use_causal_mask=True)
    with pytest.raises(ValueError, match=r"'back'.*queries are not masked alike"):
        lc.from_keras(keras.Model([x, other], y))
    layer = L.Attention(name="twice")
    both = L.Add()([layer([x, x], use_causal_mask=True), layer([x, x])])
    with pytest.raises(ValueError, match="'twice' is called with and without use_causal_mask"):
        lc.from_keras(keras.Model(x, both))


def test_what_stays_refused() -> None:
    model = both_ways(L.LSTMCell(5), L.GRUCell(6))
    with pytest.raises(ValueError, match=r"several layers in each direction.*the whole model"):
        lc.from_keras(model, layer=model.layers[0].name)
    frames = L.Input((4, 8, 8, 1))
    images = keras.Model(frames, L.Flatten()(L.ConvLSTM2D(3, 3)(frames)))
    with pytest.raises(ValueError, match=r"the ConvLSTM2D layer .* is not imported"):
        lc.from_keras(images)
