"""GELU, SiLU, ELU, LeakyReLU, Softplus: against PyTorch, in streams, files and other libraries."""

from __future__ import annotations

import copy
import math
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
from lstmcore._nn.activations import normal_distribution
from lstmcore.onnx._importing import graph_of

CASES: list[tuple[str, dict[str, Any]]] = [
    ("GELU", {}),
    ("GELU", {"approximate": "tanh"}),
    ("SiLU", {}),
    ("ELU", {}),
    ("ELU", {"alpha": 0.3}),
    ("ELU", {"alpha": -2.0}),
    ("LeakyReLU", {}),
    ("LeakyReLU", {"negative_slope": 0.2}),
    ("LeakyReLU", {"negative_slope": -0.5}),
    ("Softplus", {}),
    ("Softplus", {"beta": 2.0, "threshold": 5.0}),
    ("Softplus", {"beta": -0.5}),
]
every_case = pytest.mark.parametrize(("kind", "options"), CASES, ids=name_of)


def made(kind: str, options: dict[str, Any]) -> Any:
    return getattr(lc, kind)(**options)


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 30.0])
def test_values_and_gradients_are_pytorchs(
    kind: str, options: dict[str, Any], dtype: str, scale: float
) -> None:
    torch = peers.require("torch")
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((7, 5, 33)) * s for s in (scale, 1.0))
    x, dy = x.astype(dtype), dy.astype(dtype)
    given = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn, kind)(**options)(given)
    expected.backward(torch.tensor(dy))
    module = made(kind, options)
    y, tape = module.forward(x)
    assert_same_bits(module(x), y)
    assert y.dtype == dtype
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == "float64" else {"rtol": 2e-6}
    tolerance.setdefault("atol", 1e-6 * max(1, scale / 10))
    np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
    dx = module.backward(tape, dy)
    assert dx.dtype == dtype
    np.testing.assert_allclose(dx, given.grad.numpy(), **tolerance)


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_edges_are_pytorchs(kind: str, options: dict[str, Any], dtype: str) -> None:
    """NaN, infinity and what overflows on the way; without a warning."""
    torch = peers.require("torch")
    largest = float(np.finfo(dtype).max)
    edges = [-np.inf, -largest, -1e30, -1e4, -80.0, -1.0, -0.0, 0.0, 1e-30, 1.0, 80.0, 1e4, 1e30]
    # 64 of each: PyTorch's code for the rest, that fills no register, differs from itself at NaN.
    # On some processors it makes infinity of GELU at the largest number, and NaN at infinity.
    ends = [np.nan] if kind == "GELU" else [largest, np.inf, np.nan]
    if kind in ("GELU", "SiLU"):  # NaN there, and here what they tend to
        edges, ends = edges[1:], [end for end in ends if end != np.inf]
    # The slope of ELU is found from y: at -80 it is 0.
    gradients = [1.0, -2.0, 0.0] if kind == "ELU" else [1.0, -2.0, 0.0, np.inf]
    x, dy = (a.repeat(64).astype(dtype) for a in np.meshgrid([*edges, *ends], gradients))
    given = torch.tensor(x, requires_grad=True)
    expected = getattr(torch.nn, kind)(**options)(given)
    expected.backward(torch.tensor(dy))
    module = made(kind, options)
    y, tape = module.forward(x)
    tolerance = {"rtol": 2e-6, "atol": 1e-30}
    np.testing.assert_allclose(y, expected.detach().numpy(), **tolerance)
    np.testing.assert_allclose(module.backward(tape, dy), given.grad.numpy(), **tolerance)


@pytest.mark.parametrize("kind", ["GELU", "SiLU"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_minus_infinity_gives_what_large_negative_numbers_do(kind: str, dtype: str) -> None:
    module = made(kind, {})
    y, tape = module.forward(np.full(5, -np.inf, dtype))
    assert not y.any()
    assert np.abs(module.backward(tape, np.ones(5, dtype))).max() < 1e-30


@every_case
def test_gradients_are_those_of_differences(kind: str, options: dict[str, Any]) -> None:
    x = np.random.default_rng(1).standard_normal((3, 2, 4)) * 3
    lc.gradcheck(made(kind, options), x)
    lc.gradcheck(lc.Sequential(lc.Linear(4, 3, dtype="float64", seed=0), made(kind, options)), x)


def test_the_normal_distribution_against_erfc() -> None:
    x = np.concatenate([np.linspace(-37, 37, 20001), [-1e-300, 1e-300, -40, 40, -np.inf, np.inf]])
    exact = np.array([math.erfc(-value / math.sqrt(2)) / 2 for value in x])
    found = normal_distribution(x)
    np.testing.assert_allclose(found, exact, rtol=0, atol=2.5e-16)
    # Near -37 the argument of erfc is rounded to as much.
    np.testing.assert_allclose(found[x > -37], exact[x > -37], rtol=4e-13)
    assert np.isnan(normal_distribution(np.array([np.nan]))).all()
    single = normal_distribution(x.astype("float32"))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, exact, rtol=0, atol=3e-7)


@every_case
def test_dtypes_shapes_and_tapes(kind: str, options: dict[str, Any]) -> None:
    module = made(kind, options)
    for x, dtype in (
        (np.ones((2, 3), np.float16), "float32"),
        ([1, 2], "float64"),
        (np.ones(3, "f4"), "float32"),
        (0.5, "float64"),
        (np.float32(0.5), "float32"),
        (np.zeros((0, 3)), "float64"),
    ):
        y, tape = module.forward(x)
        assert isinstance(y, np.ndarray)
        assert (y.dtype, y.shape) == (np.dtype(dtype), np.shape(x))
        assert module.backward(tape, np.ones(y.shape, dtype)).shape == y.shape
    with pytest.raises(TypeError, match="x has dtype complex128, expected float32 or float64"):
        module(np.ones(2, complex))
    x = np.linspace(-2, 2, 9)[::2]
    y, tape = module.forward(x)
    dx = module.backward(tape, np.ones(5))
    x[...] = np.nan
    if y.flags.writeable:  # else the tape keeps it
        y[...] = np.nan
    assert_same_bits(module.backward(tape, np.ones(5)), dx)
    with pytest.raises(ValueError, match=r"dy has shape \(2,\), expected \(5,\)"):
        module.backward(tape, np.ones(2))


@every_case
def test_in_files_copies_and_models(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    module = made(kind, options)
    shown = ", ".join(f"{name}={value!r}" for name, value in options.items())
    assert repr(module) == f"{kind}({shown})"
    lc.save(module, tmp_path / "module.safetensors")
    for twin in (
        copy.deepcopy(module), pickle.loads(pickle.dumps(module)),
        lc.load(tmp_path / "module.safetensors"),
    ):  # fmt: skip
        assert twin == module
        assert repr(twin) == repr(module)
    x, linear = lc.Input(3), lc.Linear(3, 3, seed=0)
    y = linear(x)
    model = lc.Model(x, module(y) + y)
    numbers = np.random.default_rng(0).standard_normal((4, 2, 3)).astype("float32")
    assert_same_bits(model(numbers), module(linear(numbers)) + linear(numbers))
    lc.save(model, tmp_path / "model.safetensors")
    assert_same_bits(lc.load(tmp_path / "model.safetensors")(numbers), model(numbers))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: lc.GELU("fast"), ValueError, "approximate is 'fast', expected one of 'none', 't"),
        (lambda: lc.GELU(True), TypeError, "approximate is True"),
        (lambda: lc.ELU("a"), TypeError, "alpha is 'a'"),
        (lambda: lc.ELU(np.inf), ValueError, "alpha is inf, expected a finite number"),
        (lambda: lc.LeakyReLU(None), TypeError, "negative_slope is None"),
        (lambda: lc.Softplus(0), ValueError, "beta is 0.0, expected another number"),
        (lambda: lc.Softplus(1.0, np.nan), ValueError, "threshold is nan"),
    ],
)
def test_refused(call: Callable[[], Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


# Streams ------------------------------------------------------------------------------------------


def network(kind: str, options: dict[str, Any], dtype: str) -> lc.Sequential:
    """With stages of the core, of Python and activations alone before, between and after."""
    return lc.Sequential(
        lc.Tanh(), made(kind, options), lc.GRU(3, 6, dtype=dtype, seed=0), lc.Dropout(0.5),
        made(kind, options), lc.Sigmoid(), made(kind, options),
        lc.LSTM(6, 4, dtype=dtype, seed=1), lc.Linear(4, 5, dtype=dtype, seed=2),
        made(kind, options),
    )  # fmt: skip


@every_case
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_streams(kind: str, options: dict[str, Any], dtype: str) -> None:
    model = network(kind, options, dtype)
    for batch in (1, 3):
        x = np.random.default_rng(0).standard_normal((20, batch, 3)).astype(dtype)
        expected, last = model.run(x)
        stream = model.stream(batch)
        assert (stream.batch_size, stream.input_size, stream.output_size) == (batch, 3, 5)
        assert stream.dtype == dtype
        whole = stream.process(x)
        assert whole.dtype == dtype
        tolerance = 1e-6 if dtype == "float32" else 1e-14
        np.testing.assert_allclose(whole, expected, rtol=0, atol=tolerance)
        for ours, theirs in zip(stream.state, last, strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
        stream.reset()
        parts = [stream.step(frame)[None] for frame in x[:6]]
        parts += [stream.process(x[6:9]), stream.process(x[9:])]
        np.testing.assert_allclose(np.concatenate(parts), whole, rtol=0, atol=tolerance)


def test_a_stream_of_parts_is_a_stream() -> None:
    model = network("Softplus", {}, "float32")
    x = np.random.default_rng(0).standard_normal((6, 2, 3)).astype("float32")
    stream = model.stream(2)
    assert isinstance(stream, lc.Stream)
    assert "Softplus()" in repr(stream)
    stream.process(x[:3])
    twins = [stream.copy(), copy.copy(stream), copy.deepcopy(stream)]
    twins.append(pickle.loads(pickle.dumps(stream)))
    other = model.stream(2)
    other.state = stream.state
    y = stream.process(x[3:])
    for twin in (*twins, other):
        assert_same_bits(twin.process(x[3:]), y)
    stream.reset([0])
    h = stream.state[1][0]
    assert not h[:, 0].any()
    assert h[:, 1].all()
    stream.reset()
    assert not stream.state[0].any()
    out = np.empty((2, 5), "float32")
    assert stream.step(x[0], out=out) is out
    assert_same_bits(out, model.stream(2).step(x[0]))
    block = np.empty((3, 2, 5), "float32")
    assert stream.process(x[1:4], block) is block
    assert_same_bits(block, stream.copy().process(x[:0]).reshape(0, 2, 5).sum() + block)
    for bad, error, message in (
        (np.ones((2, 4), "f4"), ValueError, r"x has shape \(2, 4\), expected \(2, 3\)"),
        (np.ones((2, 3)), TypeError, "x has dtype float64"),
    ):
        with pytest.raises(error, match=message):
            stream.step(bad)
    with pytest.raises(ValueError, match=r"out has shape \(2, 4\), expected \(2, 5\)"):
        stream.step(x[0], out=np.empty((2, 4), "f4"))
    with pytest.raises(ValueError, match="state has 1 entries, expected a tuple of 2"):
        stream.state = (None,)
    with pytest.raises(ValueError, match="batch_size is 0"):
        model.stream(0)
    with pytest.raises(TypeError, match=r"of which module.stream\(\) makes a stream"):
        lc.Stream(model)
    alone = model.stream()
    np.testing.assert_allclose(
        alone.step(x[0, 0]), model.stream().step(x[0, :1])[0], rtol=0, atol=0
    )
    assert alone.process(x[:, 0]).shape == (6, 5)


def test_a_stream_of_ids_with_parts() -> None:
    model = lc.Sequential(
        lc.Embedding(9, 4, seed=0), lc.SiLU(), lc.GRU(4, 5, seed=1), lc.GELU(), lc.Linear(5, 9)
    )
    ids = np.random.default_rng(0).integers(0, 9, (7, 2))
    stream = model.stream(2)
    y = np.concatenate([stream.step(ids[0])[None], stream.process(ids[1:])])
    np.testing.assert_allclose(y, model(ids), atol=1e-6)
    assert_same_bits(pickle.loads(pickle.dumps(stream)).step([1, 2]), stream.copy().step([1, 2]))


def test_one_thread_at_a_time() -> None:
    stream = network("Softplus", {}, "float32").stream()
    with stream._turn():
        for call in (
            lambda: stream.step(np.ones(3, "f4")), lambda: stream.state, stream.reset, stream.copy,
        ):  # fmt: skip
            with pytest.raises(RuntimeError, match="in use by another thread"):
                call()
    stream.step(np.ones(3, "f4"))


# Other libraries ----------------------------------------------------------------------------------


@every_case
def test_pytorch_there_and_back(kind: str, options: dict[str, Any]) -> None:
    torch = peers.require("torch")
    model = lc.Sequential(lc.Linear(3, 4, seed=0), made(kind, options))
    theirs = lc.to_torch(model)
    assert type(theirs[1]) is getattr(torch.nn, kind)
    assert lc.from_torch(theirs) == model
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32") * 4
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


@every_case
@pytest.mark.parametrize("opset", [13, 16, 17, 19, 20, 22])
def test_onnx_there_and_back(kind: str, options: dict[str, Any], opset: int) -> None:
    peers.require("onnx")
    runtime = peers.require("onnxruntime")

    model = lc.Sequential(lc.Linear(3, 40, seed=0), made(kind, options), lc.Linear(40, 2, seed=1))
    proto = lc.to_onnx(model, opset=opset)
    assert lc.from_onnx(proto) == model
    x = np.random.default_rng(0).standard_normal((4, 5, 3)).astype("float32") * 20
    (theirs,) = runtime.InferenceSession(proto.SerializeToString()).run(None, {"x": x})
    graph = graph_of(proto)
    for y in (theirs, graph(x)):
        np.testing.assert_allclose(y, model(x), rtol=1e-5, atol=1e-5)


def test_onnx_of_float64_has_the_threshold() -> None:
    peers.require("onnx")

    x = np.linspace(15, 25, 1001)[:, None, None]
    model = lc.Sequential(lc.Softplus(), lc.Linear(1, 1, dtype="float64", seed=0))
    graph = graph_of(lc.to_onnx(model))
    np.testing.assert_allclose(graph(x), model(x), rtol=1e-14)
    single = lc.to_onnx(lc.Sequential(lc.Softplus(), lc.Linear(1, 1, seed=0)))
    assert "Where" not in [node.op_type for node in single.graph.node]


of_keras = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
KERAS = [
    case for case in CASES if case[0] != "Softplus" and not {"tanh", -0.5} & {*case[1].values()}
]


@of_keras
@pytest.mark.parametrize(("kind", "options"), [*KERAS, ("Softplus", {})], ids=name_of)
def test_keras_there_and_back(kind: str, options: dict[str, Any]) -> None:
    keras = peers.require("keras")
    model = lc.Sequential(lc.Linear(3, 4, seed=0), made(kind, options))
    theirs = lc.to_keras(model)
    back = lc.from_keras(theirs)
    assert back == model
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32") * 4
    expected = keras.ops.convert_to_numpy(theirs(x))
    np.testing.assert_allclose(model(x), expected, rtol=1e-5, atol=1e-6)


@of_keras
def test_keras_names() -> None:
    keras = peers.require("keras")
    x = np.random.default_rng(0).standard_normal((5, 3)).astype("float32") * 4
    for name, expected in (
        ("gelu", lc.GELU()), ("silu", lc.SiLU()), ("swish", lc.SiLU()), ("elu", lc.ELU()),
        ("leaky_relu", lc.LeakyReLU(0.2)), ("softplus", lc.Softplus()),
    ):  # fmt: skip
        layers = keras.layers.Input((3,)), keras.layers.Dense(4, activation=name)
        theirs = keras.Sequential(layers)
        ours = lc.from_keras(theirs)
        assert ours[1] == expected
        y = keras.ops.convert_to_numpy(theirs(x))
        np.testing.assert_allclose(ours(x), y, rtol=1e-5, atol=1e-6)
    assert lc.from_keras(keras.layers.LeakyReLU()) == lc.LeakyReLU(0.3)
    assert lc.from_keras(keras.layers.ReLU(negative_slope=0.25)) == lc.LeakyReLU(0.25)


@pytest.mark.parametrize(
    "module",
    [lc.GELU("tanh"), lc.Softplus(2.0), lc.Softplus(threshold=5.0), lc.LeakyReLU(-0.5)],
    ids=repr,
)
def test_what_keras_has_no_name_for_is_refused(module: Any) -> None:
    peers.require("keras")
    with pytest.raises(ValueError, match=r"=.* cannot be written to Keras"):
        lc.to_keras(module)
