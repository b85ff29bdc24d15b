"""What `to_onnx` writes, as ONNX Runtime runs it and as `from_onnx` reads it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.onnx_models import session
from helpers.variants import CELLS, STACKS, name_of, states_of
from lstmcore._files.layouts import LAYOUTS
from lstmcore._nn.layers import Layer
from lstmcore.onnx import _recurrent as recurrent
from lstmcore.onnx._importing import graph_of
from lstmcore.onnx.writing import _scan

onnx: Any = peers.require("onnx")
peers.require("onnxruntime")

T, B = 6, 4
LENGTHS = np.array([6, 3, 1, 4])
TWO = {"bidirectional": True}
HARD = ("hard_sigmoid", 1 / 6, 0.5)


def models(batch_first: bool) -> Iterator[Any]:
    options: Any = {"batch_first": batch_first}
    yield lc.RNN(3, 5, **options)
    yield lc.RNN(3, 5, nonlinearity="relu", reverse=True, **options)
    yield lc.RNN(3, 5, 2, nonlinearity=("scaled_tanh", 0.5, 0.9), bias=False, **options)
    yield lc.RNN(3, 5, nonlinearity="identity", gate_clip=0.7, **TWO, **options)
    yield lc.LSTM(3, 5, dropout=0.5, num_layers=3, **TWO, **options)
    yield lc.LSTM(3, 5, reverse=True, bias=False, **options)
    yield lc.LSTM(3, 5, coupled=True, num_layers=2, **options)
    yield lc.LSTM(3, 5, coupled=True, peephole=True, gate_clip=0.4, **TWO, **options)
    yield lc.LSTM(3, 5, peephole=True, num_layers=2, **options)
    yield lc.LSTM(3, 5, forget_gate=False, peephole=True, bias=False, **options)
    yield lc.LSTM(3, 5, forget_gate=False, activations=(HARD, "softsign", "relu"), **options)
    yield lc.LSTM(3, 5, activations=(HARD, "identity", ("scaled_tanh", 1.7, 0.6)), **options)
    yield lc.GRU(3, 5, **options)
    yield lc.GRU(3, 5, 2, reset_after=False, **TWO, **options)
    yield lc.GRU(3, 5, reset_after=False, gate_clip=0.3, activations=(HARD, "tanh"), **options)
    for merge in ("sum", "mul", "ave"):
        yield lc.GRU(3, 5, 2, merge=merge, **TWO, **options)
    yield lc.LSTM(3, 5, activations=(("affine", 0.2, 0.5), ("elu", 0.7), "softplus"), **options)
    yield lc.GRU(3, 5, activations=(HARD, ("leaky_relu", 0.2)), gate_clip=1.3, **TWO, **options)
    yield lc.RNN(3, 5, nonlinearity=("thresholded_relu", 0.1), reverse=True, **options)
    yield lc.LSTM(3, 5, forget_gate=False, activations=(("elu", 0.5), "tanh", "tanh"), **options)
    # With options that ONNX's nodes lack.
    for name in ("selu", "exponential", "gelu", "silu", "mish", "hard_silu"):
        yield lc.RNN(3, 5, nonlinearity=name, gate_clip=0.8, **options)
    yield lc.LSTM(3, 5, activations=("sigmoid", "mish", "silu"), peephole=True, **TWO, **options)
    yield lc.GRU(3, 5, 2, activations=("sigmoid", "gelu"), reset_after=False, **options)
    yield lc.RNN(3, 5, nonlinearity=("affine", 0.4, 0.1), zoneout=0.2, **options)
    yield lc.GRU(3, 5, activations=("sigmoid", ("elu", 0.7)), layer_norm=True, **options)
    yield lc.RNN(3, 5, layer_norm=True, recurrent_dropout=0.3, merge="ave", **TWO, **options)
    yield lc.LSTM(3, 5, layer_norm=True, num_layers=2, weight_dropout=0.3, **options)
    yield lc.LSTM(3, 5, zoneout=(0.3, 0.1), cell_clip=0.3, peephole=True, **TWO, **options)
    yield lc.LSTM(3, 5, proj_size=2, forget_gate=False, activations=(HARD, "tanh", "softsign"),
                  reverse=True, **options)  # fmt: skip
    yield lc.GRU(3, 5, layer_norm=True, gate_clip=0.6, input_dropout=0.3, reverse=True, **options)
    yield lc.GRU(3, 5, zoneout=0.2, reset_after=False, bias=False, num_layers=2, **options)
    yield lc.Sequential(
        lc.LSTM(3, 4, layer_norm=True, **TWO, **options), lc.GRU(8, 4, **options),
        lc.GRU(4, 4, 2, zoneout=0.3, **options), lc.LastStep(), lc.Linear(4, 2),
    )  # fmt: skip
    pools = (lc.LastStep(), lc.MeanPool(), lc.MaxPool(), lc.BothEnds(), lc.BothEnds("mul"))
    for pool in (*pools, lc.BothEnds("ave")):
        merged = isinstance(pool, lc.BothEnds) and pool.merge != "concat"
        yield lc.Sequential(
            lc.Linear(3, 4), lc.ReLU(), lc.GRU(4, 6, **TWO, **options), lc.LayerNorm(12),
            lc.Dropout(0.3), pool, lc.Linear(6 if merged else 12, 2, bias=False), lc.Softmax(),
        )  # fmt: skip
    inner = lc.Sequential(lc.Flip(), lc.RNN(4, 4, **options))
    yield lc.Sequential(lc.LSTM(3, 4, **options), inner, lc.Tanh(), lc.Linear(4, 3))
    yield lc.Sequential(lc.Embedding(11, 4), lc.GRU(4, 6, **options), lc.Sigmoid())
    yield lc.Sequential(
        lc.RNN(3, 4, **options),
        lc.LayerNorm(4, elementwise_affine=False),
        lc.LayerNorm(4, bias=False, eps=0.1),
    )


def layers_of(model: Any) -> list[Any]:
    steps = model._steps if isinstance(model, lc.Sequential) else [("", model)]
    return [module for _, module in steps if isinstance(module, Layer)]


def flat(state: Any) -> list[Any]:
    return [a for part in state for a in (part if isinstance(part, tuple) else (part,))]


def check(model: Any, states: bool, lengths: bool, opset: int, exported: Any = None) -> None:
    """Compare ONNX Runtime, the graph that we read again, and the model itself."""
    rng = np.random.default_rng(0)
    for parameter in model.parameters():
        parameter.data = rng.standard_normal(parameter.shape) * 0.4
    proto = exported or lc.to_onnx(model, states=states, lengths=lengths, opset=opset)
    assert [entry.version for entry in proto.opset_import] == [opset]
    run = session(proto)
    batch_first = model.batch_first
    axes = (B, T) if batch_first else (T, B)
    if isinstance(model, lc.Sequential) and isinstance(model[0], lc.Embedding):
        x: Any = rng.integers(0, 11, axes)
    else:
        x = rng.standard_normal((*axes, 3)).astype("f4")
    feed, state = {"x": x}, []
    if lengths:
        feed["lengths"] = LENGTHS
    for path, layer in [*getattr(model, "_steps", [("", model)])]:
        if states and isinstance(layer, Layer):
            letters = "hc" if isinstance(layer, lc.LSTM) else "h"
            part = states_of(layer, B, rng)
            state.append(part if len(part) > 1 else part[0])
            prefix = f"{path}." if len(layers_of(model)) > 1 else ""
            feed |= {f"{prefix}{n}0": a for n, a in zip(letters, part, strict=True)}
    given: dict[str, Any] = {"lengths": LENGTHS} if lengths else {}
    if isinstance(model, lc.Sequential):
        y, final = model.run(x, state or None, **given)
    else:
        y, final = model(x, state[0] if state else None, **given)
        final = (final,)
    expected = [y, *flat(final)] if states else [y]
    graph = graph_of(proto)
    again = graph(**feed)
    found = run.run(None, feed)
    # What is normalised over few units has few digits.
    near = 2e-5 if any(layer.layer_norm for layer in layers_of(model)) else 1e-6
    assert [i.name for i in run.get_inputs()] == list(graph.input_names) == list(feed)
    for theirs, ours, truth in zip(
        found, again if isinstance(again, tuple) else (again,), expected, strict=True
    ):
        assert theirs.shape == ours.shape == truth.shape
        np.testing.assert_allclose(theirs, truth, atol=near, rtol=near)
        np.testing.assert_allclose(ours, truth, atol=near, rtol=near)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("batch_first", [False, True])
def test_onnx_runtime_computes_the_same(batch_first: bool, states: bool, lengths: bool) -> None:
    for model in models(batch_first):
        check(model, states, lengths, 17)


@pytest.mark.parametrize("opset", [13, 14, 15, 16, 18, 19, 20, 21, 22])
def test_opsets(opset: int) -> None:
    for model in models(False):
        if opset < 17 and any(isinstance(m, lc.LayerNorm) for _, m in getattr(model, "_steps", ())):
            with pytest.raises(ValueError, match=r"LayerNorm.*opset 17, and opset is"):
                lc.to_onnx(model, opset=opset)
        else:
            check(model, True, True, opset)


@pytest.mark.parametrize("batch_first", [False, True])
def test_there_and_back(tmp_path: Path, batch_first: bool) -> None:
    path = tmp_path / "model.onnx"
    for model, (states, lengths) in itertools.product(
        models(batch_first), itertools.product((False, True), repeat=2)
    ):
        lc.to_onnx(model, path, states=states, lengths=lengths)
        back = lc.from_onnx(path)
        assert type(back) is type(model)
        assert back == model  # options, and every bit of the weights


def bare(proto: Any) -> Any:
    """The same without the description that `to_onnx` leaves."""
    copy = onnx.ModelProto()
    copy.CopyFrom(proto)
    del copy.metadata_props[:]
    return copy


@pytest.mark.parametrize("stack", STACKS, ids=name_of)
@pytest.mark.parametrize(("kind", "options"), CELLS, ids=name_of)
def test_every_variant_there_and_back(
    kind: str, options: dict[str, Any], stack: dict[str, Any]
) -> None:
    """The same numbers in ONNX Runtime and of what comes back, whatever the option."""
    layer = getattr(lc, kind)(3, 5, seed=0, **options, **stack)
    proto = lc.to_onnx(layer)
    x = np.random.default_rng(0).standard_normal((T, B, 3)).astype("f4")
    y = layer(x)[0]
    near = 2e-5 if layer.layer_norm else 1e-6
    assert lc.from_onnx(proto) == layer
    np.testing.assert_allclose(session(proto).run(None, {"x": x})[0], y, rtol=0, atol=near)
    np.testing.assert_allclose(lc.from_onnx(bare(proto))(x), y, rtol=0, atol=near)


@pytest.mark.parametrize("kind", ["RNNCell", "LSTMCell", "GRUCell"])
def test_cells_are_refused(kind: str) -> None:
    with pytest.raises(ValueError, match=rf"^{kind}\(3, 5\) is not expressible in ONNX"):
        lc.to_onnx(getattr(lc, kind)(3, 5))


def test_there_and_back_in_float64() -> None:
    for model in (
        lc.LSTM(3, 5, 2, peephole=True, dtype="float64", seed=0),
        lc.Sequential(lc.Linear(3, 4, dtype="float64"), lc.GRU(4, 2, dtype="float64")),
    ):
        proto = lc.to_onnx(model)
        onnx.checker.check_model(proto, full_check=True)
        assert lc.from_onnx(proto) == model
        graph = graph_of(proto)
        x = np.random.default_rng(0).standard_normal((T, B, 3))
        y = model(x)
        y = y[0] if isinstance(y, tuple) else y
        np.testing.assert_allclose(graph(x), y, atol=1e-14)


@pytest.mark.parametrize("batch_first", [False, True])
def test_every_node_has_the_bits_of_its_layer(batch_first: bool) -> None:
    """Without the description that `to_onnx` leaves, from the nodes alone."""
    for model in models(batch_first):
        graph = graph_of(bare(lc.to_onnx(model)))
        nodes = iter(graph.values())
        for layer in layers_of(model):
            for level in range(layer.num_layers if recurrent.has_node(layer._config) else 0):
                state = next(nodes).state_dict()
                for name, array in layer.state_dict().items():
                    if f"_l{level}" in name and layer._config.gates != 3:
                        found = state[name.replace(f"_l{level}", "_l0")]
                        np.testing.assert_array_equal(found, array)
        assert not list(nodes)


def test_a_graph_that_was_changed_counts() -> None:
    model = lc.Sequential(lc.LSTM(3, 4, seed=0), lc.Tanh())
    proto = lc.to_onnx(model)
    assert lc.from_onnx(proto) == model
    proto.producer_name = proto.graph.node[0].doc_string = "some tool"
    assert lc.from_onnx(proto) == model
    weight = next(t for t in proto.graph.initializer if t.name == "0.R_l0")
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros((1, 16, 4), "f4"), "0.R_l0"))
    changed = lc.from_onnx(proto)  # other weights, the same graph
    assert not changed.state_dict()["0.weight_hh_l0"].any()
    tanh = next(node for node in proto.graph.node if node.op_type == "Tanh")
    tanh.op_type = "Relu"
    graph = lc.from_onnx(proto)
    assert [type(part) for part in graph] == [lc.LSTM, lc.ReLU]
    assert (graph(np.ones((2, 1, 3), "f4")) >= 0).all()


def test_time_and_batch_of_any_size() -> None:
    model = lc.Sequential(lc.GRU(3, 4, **TWO, seed=0), lc.MeanPool(), lc.Linear(8, 2, seed=0))
    run = session(lc.to_onnx(model))
    for time, batch in ((1, 1), (9, 1), (2, 7)):
        x = np.random.default_rng(time).standard_normal((time, batch, 3)).astype("f4")
        np.testing.assert_allclose(run.run(None, {"x": x})[0], model(x), atol=1e-6)
    graph = lc.to_onnx(model).graph
    shapes = [
        [axis.dim_param or axis.dim_value for axis in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    ]
    assert shapes == [["time", "batch", 3], ["batch", 2]]


def test_modules_without_time() -> None:
    model = lc.Sequential(lc.Linear(3, 4, seed=0), lc.Sigmoid(), lc.Linear(4, 2, seed=0))
    x = np.random.default_rng(0).standard_normal((T, B, 3)).astype("f4")
    for module in (model, model[0], model[1]):
        proto = lc.to_onnx(module)
        np.testing.assert_allclose(session(proto).run(None, {"x": x})[0], module(x), atol=1e-6)
        assert lc.from_onnx(proto) == module


def test_a_row_of_length_0() -> None:
    """ONNX Runtime leaves it a final state of 0; the graph and we, its initial state."""
    model = lc.LSTM(3, 4, seed=0)
    proto = lc.to_onnx(model, states=True, lengths=True)
    rng = np.random.default_rng(0)
    x, h, c = (rng.standard_normal(s).astype("f4") for s in ((5, 2, 3), (1, 2, 4), (1, 2, 4)))
    feed = {"x": x, "lengths": np.array([0, 3]), "h0": h, "c0": c}
    theirs = session(proto).run(None, feed)
    y, (hn, cn) = model(x, (h, c), lengths=[0, 3])
    ours = graph_of(proto)(**feed)
    for one, other, third in zip(theirs, ours, (y, hn, cn), strict=True):
        np.testing.assert_array_equal(other, third)
        np.testing.assert_allclose(one[:, 1], other[:, 1], atol=1e-6)
    np.testing.assert_array_equal(hn[:, 0], h[:, 0])
    assert not theirs[1][:, 0].any()


def test_scans_in_float64_and_rows_of_length_0() -> None:
    """ONNX Runtime runs these in float64, too, and keeps the state of a row without steps."""
    rng = np.random.default_rng(0)
    for layer in (
        lc.LSTM(3, 5, 2, layer_norm=True, zoneout=(0.1, 0.2), dtype="float64", **TWO, seed=0),
        lc.GRU(3, 5, layer_norm=True, reverse=True, dtype="float64", seed=0),
        lc.RNN(3, 5, zoneout=0.3, batch_first=True, dtype="float64", seed=0),
    ):
        state, lengths = states_of(layer, B, rng), np.array([6, 0, 1, 4])
        x = rng.standard_normal((B, T, 3) if layer.batch_first else (T, B, 3))
        y, final = layer(x, state if len(state) > 1 else state[0], lengths=lengths)
        names = dict(zip(("h0", "c0"), state, strict=False))
        for opset in (13, 17):
            proto = lc.to_onnx(layer, states=True, lengths=True, opset=opset)
            found = session(proto).run(None, {"x": x, "lengths": lengths, **names})
            # From 17 on epsilon is an attribute, which is a float32.
            near = 1e-12 if opset < 17 else 1e-9
            for theirs, ours in zip(found, flat([y, final]), strict=True):
                np.testing.assert_allclose(theirs, ours, rtol=0, atol=near)


@pytest.mark.parametrize(
    ("model", "options", "named"),
    [
        (lc.quantize(lc.LSTM(3, 4, cell_clip=1.0)), {}, "LSTM.*int8.*without.*cell_clip"),
        (lc.Sequential(lc.GRU(3, 4), lc.quantize(lc.LSTM(4, 4, zoneout=0.1))), {},
         "module 1, LSTM.*without.* zoneout"),
        (lc.LSTM(3, 4, forget_gate=False, activations=("softsign", "tanh", "tanh")), {},
         "forget_gate=False"),
        (lc.LSTM(3, 4, forget_gate=False, gate_clip=1.0), {}, "forget_gate=False.*1.0"),
        (lc.Sequential(lc.Masking(), lc.GRU(3, 4)), {}, "module 0, Masking"),
        (lc.Linear(3, 4), {"states": True}, "states=True needs"),
        (lc.Linear(3, 4), {"lengths": True}, "lengths=True needs"),
        (lc.GRU(3, 4), {"opset": 12}, "opset is 12"),
        (lc.GRU(3, 4), {"opset": 23}, "opset is 23"),
    ],
)  # fmt: skip
def test_what_onnx_cannot_say_is_refused_by_name(
    tmp_path: Path, model: Any, options: dict[str, Any], named: str
) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(ValueError, match=named):
        lc.to_onnx(model, path, **options)
    assert not path.exists()


def test_arguments_of_the_wrong_type() -> None:
    with pytest.raises(TypeError, match="layer_or_model is 3"):
        lc.to_onnx(3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="states is 1"):
        lc.to_onnx(lc.GRU(3, 4), states=1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="opset is '17'"):
        lc.to_onnx(lc.GRU(3, 4), opset="17")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"path is 3 \(int\), expected a path"):
        lc.to_onnx(lc.GRU(3, 4), 3)  # type: ignore[arg-type]


def test_an_activation_that_nobody_writes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new one is, in a Scan as in a node."""
    layer = lc.RNN(3, 5, nonlinearity="softsign", zoneout=0.1)
    lc.to_onnx(layer)
    monkeypatch.delitem(_scan._OPERATORS, "softsign")
    with pytest.raises(ValueError, match="its activation 'softsign' is none of those"):
        lc.to_onnx(layer)


def test_a_swapped_gate_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, "onnx", LAYOUTS["onnx"]._replace(gru="rzn"))
    with pytest.raises(AssertionError):
        check(lc.GRU(3, 5), False, False, 17)


def test_a_dropped_bias_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = recurrent.from_state

    def wrong(*args: Any) -> Any:
        return {name: a for name, a in right(*args).items() if name != "B"}

    monkeypatch.setattr(recurrent, "from_state", wrong)
    with pytest.raises((AssertionError, KeyError)):
        check(lc.LSTM(3, 5), False, False, 17)
