"""Modules that move and combine numbers: against NumPy, gradients, lengths, files, networks."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc

RNG = np.random.default_rng(0)


def words() -> lc.Sequential:
    return lc.Sequential(lc.Conv1D(3, 4, 2, seed=0, dtype="float64"), lc.MaxPool())


MODULES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "flatten": (lc.Reshape((5, 3), (-1,)), (5, 2, 3)),
    "reshape": (lc.Reshape((6,), (3, 2)), (4, 6)),
    "reshape any": (lc.Reshape((None, 4), (-1, 2)), (3, 2, 4)),
    "reshape inner": (lc.Reshape((4, 3), (2, 2, 3)), (4, 2, 3)),
    "permute": (lc.Permute((5, 3), (2, 1)), (5, 2, 3)),
    "permute inner": (lc.Permute((2, 3, 4), (3, 1, 2)), (2, 5, 3, 4)),
    "repeat": (lc.RepeatVector(3), (2, 4)),
    "pad": (lc.Pad1D(2, 1), (5, 2, 3)),
    "crop": (lc.Pad1D(-1, -2), (5, 2, 3)),
    "up": (lc.UpSample1D(3), (4, 2, 2)),
    "max": (lc.MaxPool1D(3, 2, "same"), (7, 2, 2)),
    "max valid": (lc.MaxPool1D(2), (7, 2, 2)),
    "mean": (lc.AvgPool1D(3, 2, "same"), (6, 2, 2)),
    "mean valid": (lc.AvgPool1D(3, 1), (6, 2, 2)),
    "each": (lc.EachStep(words()), (3, 2, 5, 3)),
    "each state": (
        lc.EachStep(lc.GRU(3, 4, seed=0, dtype="float64", batch_first=True)), (3, 2, 5, 3),
    ),
    "each row": (lc.EachStep(lc.Linear(3, 4, seed=0, dtype="float64")), (3, 2, 3)),
}  # fmt: skip
modules = pytest.mark.parametrize("name", MODULES)


@modules
def test_gradients_and_layouts(name: str) -> None:
    module, shape = MODULES[name]
    x = RNG.standard_normal(shape)
    lc.gradcheck(module, x)
    y = module(x)
    options = module._options()
    if name.startswith("each"):
        options["module"] = copy.deepcopy(module.module)
    first = type(module)._from_options({**options, "batch_first": True})
    turned = first(x.swapaxes(0, 1)) if len(shape) > 2 else first(x)
    np.testing.assert_array_equal(turned.swapaxes(0, 1) if y.ndim > 2 else turned, y)
    if name != "each row":
        alone = first(x[:, 1] if len(shape) > 2 else x[1])
        np.testing.assert_array_equal(alone, y[:, 1] if y.ndim > 2 else y[1])
    single = RNG.standard_normal(shape).astype("f4")
    if name.startswith(("each", "reshape any")):
        return
    assert module(single).dtype == np.float32
    single.flags.writeable = False
    np.testing.assert_array_equal(module(single[..., ::-1][..., ::-1]), module(single))


@modules
def test_in_a_file_in_a_network_and_not_in_a_stream(name: str, tmp_path: Path) -> None:
    module, shape = MODULES[name]
    x = RNG.standard_normal(shape)
    steps, inner = len(shape) > 2, shape[2:-1]
    given = lc.Input(shape[-1], steps=steps, inner=inner, dtype="float64")
    model = lc.Model(given, lc.Activation("mish")(module(given)))
    for i, one in enumerate((lc.Sequential(module, lc.Activation("mish")), model)):
        expected = one(x)
        np.testing.assert_array_equal(expected, lc.Activation("mish")(module(x)))
        lc.save(one, tmp_path / f"{i}.safetensors")
        again = lc.load(tmp_path / f"{i}.safetensors")
        np.testing.assert_array_equal(again(x), expected)
        assert again == one
        assert repr(again) == repr(one)
    lc.gradcheck(model, x)
    with pytest.raises((TypeError, ValueError), match=type(module).__name__):
        lc.Sequential(module, lc.Tanh()).stream()


@pytest.mark.parametrize("name", ["pad", "crop", "up", "max", "max valid", "mean", "mean valid"])
@pytest.mark.parametrize("time", [0, 1, 6])
def test_a_padded_row_is_as_it_would_be_alone(name: str, time: int) -> None:
    module = MODULES[name][0]
    x = RNG.standard_normal((time, 4, 3))
    lengths = [time, 0, min(time, 1), min(time, 4)]
    y = module(x, lengths=lengths)
    for row, n in enumerate(lengths):
        alone = module(x[:n, row])
        np.testing.assert_array_equal(y[: len(alone), row], alone)
        assert not y[len(alone) :, row].any()
    lc.gradcheck(module, x, lengths=lengths)
    _, tape = module.forward(x, lengths=lengths)
    dx = module.backward(tape, np.ones_like(y))
    for row, n in enumerate(lengths):
        assert not dx[n:, row].any()


def test_windows_against_loops() -> None:
    x = RNG.standard_normal((11, 1))
    for size, stride in [(2, 2), (3, 1), (4, 3), (1, 2)]:
        valid = [x[t : t + size] for t in range(0, len(x) - size + 1, stride)]
        np.testing.assert_array_equal(lc.MaxPool1D(size, stride)(x)[:, 0], [w.max() for w in valid])
        np.testing.assert_allclose(
            lc.AvgPool1D(size, stride)(x)[:, 0], [w.mean() for w in valid], rtol=1e-14
        )
        count = -(-len(x) // stride)
        left = max((count - 1) * stride + size - len(x), 0) // 2
        same = [x[max(t * stride - left, 0) : t * stride - left + size] for t in range(count)]
        y = lc.MaxPool1D(size, stride, "same")(x)
        np.testing.assert_array_equal(y[:, 0], [w.max() for w in same])
    nan = np.array([[1.0], [np.nan], [-np.inf], [-np.inf]])
    np.testing.assert_array_equal(lc.MaxPool1D(2)(nan)[:, 0], [np.nan, -np.inf])


def test_lengths_go_on_to_the_layers_behind() -> None:
    model = lc.Sequential(lc.MaxPool1D(2), lc.GRU(3, 4, seed=0), lc.LastStep())
    x = RNG.standard_normal((9, 2, 3)).astype("f4")
    y = model(x, lengths=[9, 5])
    np.testing.assert_array_equal(y[1], model(x[:5, 1:])[0])
    with pytest.raises(ValueError, match="resets cannot be given to a model with MaxPool1D"):
        model(x, resets=np.zeros((9, 2), bool))


def test_an_autoencoder_trains_and_its_lengths_end_with_the_encoder() -> None:
    def model() -> lc.Sequential:
        return lc.Sequential(
            lc.GRU(3, 8, seed=0), lc.LastStep(), lc.RepeatVector(5), lc.GRU(8, 8, seed=1),
            lc.Linear(8, 3, seed=2),
        )  # fmt: skip

    x = RNG.standard_normal((5, 16, 3)).astype("f4")
    sequential = model()
    optimizer = lc.optim.Adam(sequential.parameters(), lr=0.02)
    history = lc.fit(
        sequential, [(x, x)], loss=lc.losses.mse, optimizer=optimizer, epochs=30, progress=False
    )
    assert history.losses[-1] < 0.8 * history.losses[0]
    lengths = np.full(16, 3)
    value = lc.evaluate(model(), [(x, x, lengths)], loss=lc.losses.mse)["loss"]
    np.testing.assert_allclose(value, lc.losses.mse(model()(x, lengths=lengths), x)[0], rtol=1e-6)
    given = lc.Input(3)
    network = lc.Model(given, model()(given))
    assert lc.evaluate(network, [(x, x, lengths)], loss=lc.losses.mse)["loss"] == value


def test_axes_between_time_and_features() -> None:
    letters = RNG.integers(0, 9, (4, 2, 6))
    spelling = lc.Sequential(lc.Embedding(9, 3, seed=0), lc.GRU(3, 5, seed=1), lc.LastStep())
    ids = lc.Input(ids=True, inner=[None])
    y, _ = lc.LSTM(5, 2, seed=2)(lc.EachStep(spelling)(ids))
    model = lc.Model(ids, y)
    each = np.stack([spelling(step.T) for step in letters])
    np.testing.assert_array_equal(model(letters), lc.LSTM(5, 2, seed=2)(each)[0])
    lengths = [4, 2]
    np.testing.assert_array_equal(model(letters, lengths=lengths)[2:, 1], 0)
    np.testing.assert_allclose(model(letters[:, 1]), model(letters)[:, 1], atol=1e-7)
    with pytest.raises(ValueError, match=r"x has shape \(4,\), expected"):
        model(letters[:, 0, 0])
    with pytest.raises(ValueError, match=r"no axes beside them; lc\.EachStep takes those"):
        lc.GRU(3, 4)(lc.Input(3, inner=[2]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: lc.Reshape((2, 3), (4,)),
            ValueError,
            r"shape is \(4,\), but rows of shape \(2, 3",
        ),
        (lambda: lc.Reshape((2, 3), (-1, -1)), ValueError, "one of them -1 at most"),
        (lambda: lc.Reshape((None, 3), (2, -1)), ValueError, "expected the last size of shape"),
        (lambda: lc.Reshape(3, (3,)), TypeError, "given is 3 .int., expected a tuple"),
        (lambda: lc.Permute((2, 3), (1, 1)), ValueError, r"order is \(1, 1\), expected 1, 2"),
        (lambda: lc.Permute((None, 3), (2, 1)), ValueError, "expected the size of axis 1"),
        (lambda: lc.RepeatVector(0), ValueError, "steps is 0, expected"),
        (lambda: lc.MaxPool1D(2, padding="causal"), ValueError, "padding is 'causal'"),
        (lambda: lc.EachStep(3), TypeError, "module is 3"),
        (lambda: lc.EachStep(lc.LSTMCell(3, 4)), TypeError, "makes one y of one x"),
        (lambda: lc.Activation("cosine"), ValueError, "name is 'cosine'"),
        (lambda: lc.Reshape((2, 3), (6,))(np.zeros((3, 2, 3))), ValueError, "expected rows of sha"),
        (lambda: lc.Reshape((2, 3), (6,))(lc.Input(4)), ValueError, "expected rows of shape"),
        (lambda: lc.Input(3, steps=False, inner=[2]), ValueError, "inner is .* without steps"),
    ],
)
def test_what_is_refused(make: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "name",
    [
        "absolute",
        "square",
        "exponential",
        "hard_sigmoid",
        "hard_silu",
        "mish",
        "relu6",
        "selu",
        "softsign",
    ],
)
def test_activations_by_name(name: str) -> None:
    module = lc.Activation(name)
    x = np.concatenate([RNG.standard_normal(50) * 4, [0.0, -0.0, 30.0, -30.0]])
    lc.gradcheck(module, RNG.standard_normal((4, 3)) * 2)
    x32 = x.astype("f4")
    expected = {
        "absolute": abs(x),
        "square": x**2,
        "exponential": np.exp(x),
        "hard_sigmoid": np.clip(x / 6 + 0.5, 0, 1),
        "hard_silu": x * np.clip(x / 6 + 0.5, 0, 1),
        "mish": x * np.tanh(np.logaddexp(0, x)),
        "relu6": np.clip(x, 0, 6),
        "selu": 1.0507009873554805
        * np.where(x > 0, x, 1.6732632423543772 * np.expm1(np.minimum(x, 0))),
        "softsign": x / (1 + abs(x)),
    }[name]  # fmt: skip
    np.testing.assert_allclose(module(x), expected, rtol=1e-14, atol=1e-16)
    assert module(x32).dtype == np.float32
    np.testing.assert_allclose(module(x32), expected, rtol=2e-6, atol=1e-6)
    assert np.isnan(module(np.array([np.nan])))[0]
    stream = lc.Sequential(lc.Linear(3, 4, seed=0), module).stream()
    assert stream.step(np.ones(3, "f4")).shape == (4,)
