"""BatchNorm: against PyTorch, differences and the definition; files, streams, other libraries."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.names import name_of
from helpers.numeric import assert_same_bits

T, B, F = 6, 4, 3
LENGTHS = [6, 3, 1, 0]
PAST = np.arange(T)[:, None] >= LENGTHS
OPTIONS: list[dict[str, Any]] = [
    {},
    {"eps": 0.1, "momentum": 0.3},
    {"momentum": None},
    {"affine": False},
    {"momentum": 0.0},
]


def norm(**options: Any) -> lc.BatchNorm:
    """One with other numbers than those it starts with."""
    module = lc.BatchNorm(F, **{"dtype": "float64", **options})
    rng = np.random.default_rng(3)
    state = {name: rng.uniform(0.5, 2, a.shape) for name, a in module.state_dict().items()}
    module.load_state_dict({**state, "num_batches_tracked": 0})
    return module


def numbers(*shape: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).standard_normal(shape) * 2 + 1


@pytest.mark.parametrize("options", OPTIONS, ids=name_of)
@pytest.mark.parametrize("shape", [(7, F), (T, B, F)], ids=name_of)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_and_inference_are_pytorchs(
    options: dict[str, Any], shape: tuple[int, ...], dtype: str
) -> None:
    torch = peers.require("torch")
    ours = norm(dtype=dtype, **options)
    theirs = torch.nn.BatchNorm1d(F, **options).to(getattr(torch, dtype))
    theirs.load_state_dict({k: torch.tensor(v) for k, v in ours.state_dict().items()})
    tolerance = {"rtol": 1e-11, "atol": 1e-12} if dtype == "float64" else {"rtol": 1e-5}
    tolerance.setdefault("atol", 2e-6)
    for seed in range(3):
        x = numbers(*shape, seed=seed).astype(dtype)
        dy = numbers(*shape, seed=9).astype(dtype)
        given = torch.tensor(x.reshape(-1, F), requires_grad=True)
        expected = theirs(given)
        ours.zero_grad()
        theirs.zero_grad()
        expected.backward(torch.tensor(dy.reshape(-1, F)))
        y, tape = ours.forward(x)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.reshape(-1, F), expected.detach().numpy(), **tolerance)
        dx = ours.backward(tape, dy)
        np.testing.assert_allclose(dx.reshape(-1, F), given.grad.numpy(), **tolerance)
        for (name, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            np.testing.assert_allclose(p.grad, q.grad.numpy(), err_msg=name, **tolerance)
    state = theirs.state_dict()
    assert list(state) == list(ours.state_dict())
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, state[name].numpy(), err_msg=name, **tolerance)
    theirs.eval()
    expected = theirs(torch.tensor(x.reshape(-1, F))).detach().numpy()
    np.testing.assert_allclose(ours(x).reshape(-1, F), expected, **tolerance)


@pytest.mark.parametrize("options", [*OPTIONS, {"frozen": True}], ids=name_of)
def test_gradients_are_those_of_differences(options: dict[str, Any]) -> None:
    lc.gradcheck(norm(**options), numbers(5, F))
    lc.gradcheck(norm(**options), numbers(T, B, F), lengths=LENGTHS)
    lc.gradcheck(norm(batch_first=True, **options), numbers(B, T, F), lengths=LENGTHS)
    lc.gradcheck(norm(**options), numbers(T, F), lengths=4)


@pytest.mark.parametrize("batch_first", [False, True])
def test_padding_does_not_count(batch_first: bool) -> None:
    x, dy = numbers(T, B, F), numbers(T, B, F, seed=1)
    there = [(t, b) for b in range(B) for t in range(LENGTHS[b])]
    rows = np.array([x[at] for at in there])
    drows = np.array([dy[at] for at in there])
    x[PAST] = np.nan
    dy[PAST] = np.nan
    ours, theirs = norm(batch_first=batch_first), norm()
    turn = (lambda a: a.swapaxes(0, 1)) if batch_first else (lambda a: a)
    expected, their_tape = theirs.forward(rows)
    y, tape = ours.forward(turn(x), lengths=LENGTHS)
    dx, their_dx = ours.backward(tape, turn(dy)), theirs.backward(their_tape, drows)
    np.testing.assert_allclose(
        [ours.state_dict()[n] for n in ("running_mean", "running_var")],
        [theirs.state_dict()[n] for n in ("running_mean", "running_var")],
        rtol=1e-13,
    )
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad, q.grad, rtol=1e-12)
    inference, wanted = ours(turn(x), lengths=LENGTHS), theirs(rows)
    for found, right in ((y, expected), (dx, their_dx), (inference, wanted)):
        assert not turn(found)[PAST].any()
        np.testing.assert_allclose([turn(found)[at] for at in there], right, rtol=1e-11, atol=1e-12)


def test_lengths_where_pooling_has_left_no_steps() -> None:
    """They are of steps that are no more: each row counts."""
    model = lc.Sequential(
        lc.GRU(F, 5, seed=0, dtype="float64"), lc.MeanPool(),
        lc.BatchNorm(5, dtype="float64"), lc.Linear(5, 2, seed=1, dtype="float64"),
    )  # fmt: skip
    x = numbers(T, B, F)
    y, tape = model.forward(x, lengths=LENGTHS)
    pooled = lc.Sequential(*list(model)[:2])(x, lengths=LENGTHS)
    np.testing.assert_allclose(y, model[3](lc.BatchNorm(5, dtype="float64").forward(pooled)[0]))
    assert model.backward(tape, y).shape == x.shape
    steps = lc.Sequential(lc.GRU(F, F, seed=0, dtype="float64"), norm())
    one = steps(x[:, 0], lengths=2)
    np.testing.assert_allclose(one, steps(x[:, :1], lengths=[2])[:, 0])
    assert one[:2].all()
    assert not one[2:].any()


def test_in_a_model_lengths_go_with_their_values() -> None:
    x, static = lc.Input(F), lc.Input(2, steps=False)
    y = norm()(lc.RNN(F, F, dtype="float64", seed=0)(x)[0])
    z = lc.BatchNorm(2, dtype="float64")(static)
    model = lc.Model([x, static], [y, lc.MeanPool()(y), z])
    given = [numbers(T, B, F), numbers(B, 2)]
    (steps, pooled, _), tape = model.forward(given, lengths=LENGTHS)
    assert not steps[PAST].any()
    model.backward(tape, [steps, pooled, None])
    lc.gradcheck(model, given, lengths=LENGTHS)


def test_frozen_takes_the_running_statistics_in_training() -> None:
    module = norm(frozen=True)
    before = module.state_dict()
    x = numbers(T, B, F)
    y, tape = module.forward(x)
    assert_same_bits(y, module(x))
    assert module.backward(tape, y).shape == x.shape
    assert_same_bits(module.state_dict(), before)
    assert module.parameters()[0].grad.any()


def test_statistics_of_a_large_offset() -> None:
    """The variance is of what is left without the mean, and sums are of float64."""
    x = (np.random.default_rng(0).standard_normal((100000, 1)) + 4096).astype("float32")
    module = lc.BatchNorm(1, momentum=1.0)
    module.forward(x)
    exact = x.astype("float64")
    np.testing.assert_allclose(module.state_dict()["running_var"], exact.var(ddof=1), rtol=1e-6)
    np.testing.assert_allclose(module.state_dict()["running_mean"], exact.mean(), rtol=1e-7)


# What is stored -----------------------------------------------------------------------------------


def test_running_statistics_are_no_parameters() -> None:
    module = norm()
    assert [name for name, _ in module.named_parameters()] == ["weight", "bias"]
    assert module.num_parameters == 2 * F
    stored = ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert list(module.state_dict()) == stored
    model = lc.Sequential(module, lc.Linear(F, 2, dtype="float64"))
    assert list(model.state_dict())[:6] == [*(f"0.{name}" for name in stored), "1.weight"]
    with pytest.raises(ValueError, match=r"missing: running_mean"):
        module.load_state_dict({k: v for k, v in module.state_dict().items() if k != stored[2]})
    before = module.state_dict()["running_mean"]
    adam = lc.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.5)
    _, tape = model.forward(numbers(5, F))
    after = module.state_dict()["running_mean"]
    assert (before != after).all()
    model.backward(tape, np.ones((5, 2)))
    adam.step()
    assert_same_bits(module.state_dict()["running_mean"], after)
    module.reset_parameters()
    assert module == lc.BatchNorm(F, dtype="float64")


@pytest.mark.parametrize("options", [{}, {"affine": False}], ids=name_of)
def test_copies_files_and_checkpoints(options: dict[str, Any], tmp_path: Path) -> None:
    module = norm(**options)
    module.forward(numbers(5, F))
    model = lc.Sequential(lc.Linear(F, F, seed=0, dtype="float64"), module)
    x = lc.Input(F)
    network = lc.Model(x, module(x) + x)
    for i, one in enumerate((module, model, network)):
        lc.save(one, tmp_path / f"{i}.safetensors")
        again = lc.load(tmp_path / f"{i}.safetensors")
        for twin in (again, copy.deepcopy(one), pickle.loads(pickle.dumps(one))):
            assert twin == one
            assert_same_bits(twin.state_dict(), one.state_dict())
            assert_same_bits(twin(numbers(4, F)), one(numbers(4, F)))
            twin.forward(numbers(5, F, seed=1))
            assert twin != one
    lc.save_checkpoint(tmp_path / "run.safetensors", model=model)
    before = model.state_dict()
    model.forward(numbers(5, F))
    lc.load_checkpoint(tmp_path / "run.safetensors", model=model)
    assert_same_bits(model.state_dict(), before)
    lc.save(model.state_dict(), tmp_path / "state.safetensors")
    assert_same_bits(lc.load_torch(tmp_path / "state.safetensors"), before)


def test_fit_resumes_to_the_same_bits(tmp_path: Path) -> None:
    x, target = numbers(32, F).astype("f4"), numbers(32, 1, seed=1).astype("f4")

    def model() -> lc.Sequential:
        return lc.Sequential(
            lc.Linear(F, 8, seed=0), lc.BatchNorm(8), lc.ReLU(), lc.Linear(8, 1, seed=1)
        )

    def run(net: Any, epochs: int, **options: Any) -> Any:
        optimizer = lc.optim.Adam(net.parameters(), lr=0.01)
        return lc.fit(
            net, (x, target), loss=lc.losses.mse, optimizer=optimizer, epochs=epochs, batch_size=8,
            seed=0, progress=False, **options,
        )  # fmt: skip

    whole, first, second = model(), model(), model()
    history = run(whole, 6)
    assert history.losses[-1] < history.losses[0]
    path = tmp_path / "run.safetensors"
    run(first, 3, callbacks=[lc.callbacks.Checkpoint(path)])
    run(second, 6, resume=path)
    assert_same_bits(second.state_dict(), whole.state_dict())


def test_one_stands_in_a_sequential_once() -> None:
    module = norm(affine=False)
    with pytest.raises(ValueError, match=r"modules 0 and 2 are the same BatchNorm"):
        lc.Sequential(module, lc.Tanh(), module)


def test_repr_and_options() -> None:
    assert repr(lc.BatchNorm(4)) == "BatchNorm(4)"
    module = lc.BatchNorm(4, momentum=None, frozen=True, batch_first=True)
    assert repr(module) == "BatchNorm(4, momentum=None, frozen=True, batch_first=True)"
    assert lc.BatchNorm(**module._options()) == module
    with pytest.raises(AttributeError, match="eps is fixed"):
        module.eps = 1.0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.BatchNorm(0), ValueError, "num_features is 0, expected at least 1"),
        (lambda: lc.BatchNorm(3, -1.0), ValueError, "eps is -1.0, expected at least 0"),
        (lambda: lc.BatchNorm(3, momentum=1.5), ValueError, "momentum is 1.5, expected 0 to 1"),
        (lambda: lc.BatchNorm(3, momentum="a"), TypeError, "momentum is 'a'"),
        (lambda: lc.BatchNorm(3, affine=1), TypeError, "affine is 1"),
        (lambda: lc.BatchNorm(3, batch_first=0), TypeError, "batch_first is 0"),
        (
            lambda: norm()(np.ones((2, 4))),
            ValueError,
            r"x has shape \(2, 4\), expected \(T, B, 3\)",
        ),
        (lambda: norm()(np.ones((2, 2, 2, 3))), ValueError, r"x has shape \(2, 2, 2, 3\)"),
        (lambda: norm()(np.ones((2, 3), "f4")), TypeError, "x has dtype float32"),
        (lambda: norm().forward(np.ones((1, 3))), ValueError, "x has 1 values of each feature"),
        (
            lambda: norm().forward(np.ones((2, 2, 3)), lengths=[1, 0]),
            ValueError,
            "x has 1 values of each feature that are there, expected at least 2",
        ),
        (lambda: norm()(np.ones((2, 2, 3)), lengths=[3, 0]), ValueError, r"lengths\[0\] is 3"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_a_refused_batch_changes_nothing() -> None:
    module = norm()
    before = module.state_dict()
    with pytest.raises(ValueError, match="x has 1 values"):
        module.forward(np.ones((1, F)))
    _, tape = module.forward(numbers(5, F))
    with pytest.raises(ValueError, match="dy has shape"):
        module.backward(tape, np.ones((4, F)))
    assert not any(p.grad.any() for p in module.parameters())
    assert module.state_dict()["num_batches_tracked"] == before["num_batches_tracked"] + 1


def test_tapes_keep_what_they_need() -> None:
    module, x, dy = norm(), numbers(5, F), numbers(5, F, seed=1)
    _, tape = module.forward(x)
    dx = module.backward(tape, dy)
    x[...] = np.nan
    for p in module.parameters():
        p.data *= 2
    module.forward(numbers(5, F, seed=2))
    assert_same_bits(module.backward(tape, dy), dx)


def test_streams() -> None:
    model = lc.Sequential(
        lc.GRU(F, 5, seed=0),
        lc.BatchNorm(5),
        lc.Linear(5, 2, seed=1),
        lc.BatchNorm(2, affine=False),
    )
    model.forward(numbers(T, B, F).astype("f4"))
    x = numbers(T, B, F, seed=1).astype("f4")
    stream = model.stream(B)
    y = np.concatenate([stream.step(x[0])[None], stream.process(x[1:])])
    assert_same_bits(y, model(x))
    twin = pickle.loads(pickle.dumps(stream))
    model.forward(x)  # later changes are for later streams
    other = model.stream(B)
    assert_same_bits(twin.step(x[0]), stream.step(x[0]))
    stream.reset()
    assert_same_bits(stream.process(x), y)
    assert_same_bits(other.process(x), model(x))
    assert not np.array_equal(model(x), y)


# Other libraries ----------------------------------------------------------------------------------


def test_pytorch_there_and_back() -> None:
    torch = peers.require("torch")
    for options in ({}, {"affine": False}, {"momentum": None, "eps": 0.1}):
        module = norm(dtype="float32", **options)
        theirs = lc.to_torch(module)
        assert isinstance(theirs, torch.nn.BatchNorm1d)
        assert lc.from_torch(theirs) == module
        double = lc.from_torch(theirs.double().eval())
        assert (double.dtype, double._options() | {"dtype": "float32"}) == (
            "float64", module._options(),
        )  # fmt: skip
        x = numbers(5, F)
        np.testing.assert_allclose(
            theirs(torch.tensor(x)).detach().numpy(), norm(**options)(x), rtol=1e-5
        )
    model = lc.Sequential(
        lc.GRU(F, 4, seed=0),
        lc.LastStep(batch_first=False),
        lc.BatchNorm(4),
        lc.Linear(4, 2, seed=1),
    )
    theirs = lc.to_torch(model).eval()
    x = numbers(T, B, F).astype("f4")
    np.testing.assert_allclose(theirs(torch.tensor(x)).detach().numpy(), model(x), atol=1e-6)
    assert lc.from_torch(theirs) == model
    with pytest.raises(ValueError, match=r"BatchNorm\(4\) stands where there are time steps"):
        lc.to_torch(lc.Sequential(lc.GRU(F, 4), lc.BatchNorm(4)))
    chain = torch.nn.Sequential(
        torch.nn.GRU(F, 4), lc.torch.Output(), torch.nn.BatchNorm1d(4), torch.nn.Linear(4, 2)
    )
    with pytest.raises(ValueError, match=r"BatchNorm\(4\) stands where there are time steps"):
        lc.from_torch(chain)
    with pytest.raises(ValueError, match=r"BatchNorm\(3\) stands where there are time steps"):
        lc.from_torch(torch.nn.Sequential(torch.nn.BatchNorm1d(F), *chain[:2]))
    with pytest.raises(ValueError, match="track_running_stats=False"):
        lc.from_torch(torch.nn.BatchNorm1d(3, track_running_stats=False))
    fixed = norm(frozen=True, dtype="float32")
    x = numbers(5, F).astype("f4")
    written = lc.to_torch(fixed)(torch.tensor(x)).detach().numpy()
    np.testing.assert_allclose(written, fixed(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("opset", [13, 17, 22])
@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_onnx_there_and_back(opset: int, batch_first: bool, lengths: bool) -> None:
    peers.require("onnx")
    runtime = peers.require("onnxruntime")
    from lstmcore.onnx._importing import graph_of

    options: Any = {"batch_first": batch_first}
    model = lc.Sequential(
        norm(dtype="float32"), lc.GRU(F, 5, seed=0, **options), lc.BatchNorm(5, affine=False),
        lc.MeanPool(), lc.BatchNorm(5, eps=0.5), lc.Linear(5, 2, seed=1),
    )  # fmt: skip
    for net in (model, lc.Sequential(*list(model)[:3])):
        proto = lc.to_onnx(net, lengths=lengths, opset=opset)
        assert lc.from_onnx(proto) == net
        shape = (B, T, F) if batch_first else (T, B, F)
        feed = {"x": numbers(*shape).astype("f4")}
        if lengths:
            feed["lengths"] = np.array(LENGTHS)
        expected = net(**feed)
        (theirs,) = runtime.InferenceSession(proto.SerializeToString()).run(None, feed)
        for y in (theirs, graph_of(proto)(**feed)):
            np.testing.assert_allclose(y, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_keras_there_and_back() -> None:
    keras = peers.require("keras")
    model = lc.Sequential(
        lc.GRU(F, 4, batch_first=True, seed=0),
        lc.BatchNorm(4, 1e-2, 0.2, batch_first=True),
        lc.LastStep(batch_first=True),
        lc.BatchNorm(4, frozen=True),
        lc.Linear(4, 2, seed=1),
    )
    for module in (model[1], model[3]):
        rng = np.random.default_rng(5)
        state = {n: rng.uniform(0.5, 2, a.shape) for n, a in module.state_dict().items()}
        module.load_state_dict({**state, "num_batches_tracked": 0})
    with pytest.raises(ValueError, match="LastStep"):
        lc.to_keras(model)
    parts = lc.Sequential(*list(model)[:2]), lc.Sequential(model[3], model[4])
    x = numbers(B, T, F).astype("f4")
    for net, given in zip(parts, (x, numbers(B, 4).astype("f4")), strict=True):
        theirs = lc.to_keras(net)
        expected = keras.ops.convert_to_numpy(theirs(given, training=False))
        np.testing.assert_allclose(net(given), expected, rtol=1e-5, atol=1e-5)
        back = lc.from_keras(theirs)
        np.testing.assert_allclose(back(given), expected, rtol=1e-5, atol=1e-5)
        for ours, again in zip(net, back, strict=True):
            assert_same_bits(again.state_dict(), ours.state_dict())
        norms = [m for m in (*net, *back) if isinstance(m, lc.BatchNorm)]
        assert len({(m.eps, m.momentum, m.frozen) for m in norms}) == 1
    with pytest.raises(ValueError, match="momentum=None cannot be written to Keras"):
        lc.to_keras(lc.BatchNorm(3, momentum=None))


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("options", [{}, {"scale": False}, {"center": False}, {"epsilon": 0.5}])
def test_keras_options(options: dict[str, Any]) -> None:
    keras = peers.require("keras")
    layers = keras.layers
    model = keras.Sequential(
        [layers.Input((None, F)), layers.BatchNormalization(**options), layers.Masking(9.0)]
    )
    rng = np.random.default_rng(5)
    model.set_weights([rng.uniform(0.5, 2, w.shape) for w in model.get_weights()])
    ours = lc.from_keras(model)
    x = numbers(B, T, F).astype("f4")
    expected = keras.ops.convert_to_numpy(model(x, training=False))
    np.testing.assert_allclose(ours(x), expected, rtol=1e-5, atol=1e-5)
    trained = {name for name, p in ours[0].named_parameters() if p.trainable}
    fixed = {"scale": "weight", "center": "bias"}
    assert trained == {"weight", "bias"} - {fixed[o] for o in options if o in fixed}
    # One step of training moves the running mean alike; the variance is unbiased here.
    theirs, before = model.layers[0], ours.state_dict()["0.running_var"]
    theirs(x, training=True)
    ours.forward(x)
    mean, variance = (keras.ops.convert_to_numpy(w) for w in theirs.weights[-2:])
    state = ours.state_dict()
    np.testing.assert_allclose(state["0.running_mean"], mean, rtol=1e-5)
    moved = [(after - 0.99 * before) / 0.01 for after in (state["0.running_var"], variance)]
    np.testing.assert_allclose(moved[0] * (B * T - 1) / (B * T), moved[1], rtol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_mask_before_it() -> None:
    keras = peers.require("keras")
    layers = keras.layers
    model = keras.Sequential([
        layers.Input((None, F)), layers.Masking(9.0), layers.BatchNormalization(), layers.GRU(4),
    ])  # fmt: skip
    ours = lc.from_keras(model)
    x = numbers(B, T, F).astype("f4")
    x[PAST.T] = 9.0
    expected = keras.ops.convert_to_numpy(model(x[:3], training=False))
    np.testing.assert_allclose(ours(x[:3]), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"has axis=(\[1\]|1), expected the last one"):
        lc.from_keras(keras.Sequential([layers.Input((T, F)), layers.BatchNormalization(axis=1)]))
