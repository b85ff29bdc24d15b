"""Networks of any shape as ONNX graphs: by ONNX Runtime, and as `from_onnx` reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.networks import (
    ATTENTION,
    NETWORKS,
    B,
    T,
    autoencoder,
    encoder_decoder,
    initial_state,
    residual_stack,
    states_of,
    tied,
    two_heads,
    two_inputs,
    values_of,
)  # fmt: skip
from helpers.numeric import assert_same_bits
from helpers.onnx_models import session
from lstmcore._base.tree import leaves, rebuilt
from lstmcore._network.arrays import Dot, Extreme, Join, Reduce, UnitLength
from lstmcore.onnx._importing import graph_of

onnx: Any = peers.require("onnx")
runtime: Any = peers.require("onnxruntime")


def check(model: Any, proto: Any, feed: dict[str, Any], expected: list[Any]) -> None:
    """ONNX Runtime, and the graph that we read again, give what the model gives."""
    run = session(proto)
    graph = graph_of(proto)
    assert [i.name for i in run.get_inputs()] == list(graph.input_names) == list(feed)
    found, again = run.run(None, feed), graph(**feed)
    again = again if isinstance(again, tuple) else (again,)
    for theirs, ours, truth in zip(found, again, expected, strict=True):
        assert theirs.shape == ours.shape == truth.shape
        np.testing.assert_allclose(theirs, truth, atol=1e-6, rtol=1e-5)
        np.testing.assert_allclose(ours, truth, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("states", [False, True])
def test_onnx_runtime_computes_the_same(
    name: str, first: bool, lengths: bool, states: bool
) -> None:
    model, parts = NETWORKS[name](first)
    if states and not parts:
        return
    if lengths and name == "no_layers":
        return
    x = values_of(model)
    proto = lc.to_onnx(model, states=states, lengths=lengths)
    names = [i.name for i in proto.graph.input]
    feed = dict(zip(names, leaves(x), strict=False))
    given: dict[str, Any] = {}
    if lengths:
        rows = np.array([6, 3, 1, 4])
        several = [n for n in names if n.endswith(".lengths")]
        given["lengths"] = rows
        if several:
            of = {n.removesuffix(".lengths"): np.roll(rows, i) for i, n in enumerate(several)}
            feed |= {f"{n}.lengths": row for n, row in of.items()}
            given["lengths"] = rebuilt(x, (of.get(n) for n in names[: len(leaves(x))]))
        else:
            feed["lengths"] = rows
    state = states_of(model) if states else None
    y, final = model.run(x, state, **given)
    expected = leaves(y)
    if states:
        feed |= dict(zip(names[len(feed) :], leaves(state), strict=True))
        expected += leaves(final)
    check(model, proto, feed, expected)


@pytest.mark.parametrize("opset", [13, 14, 18, 20, 22])
def test_opsets(opset: int) -> None:
    for make in NETWORKS.values():
        model = make(True)[0]
        if opset < 17 and any(isinstance(m, lc.LayerNorm) for m in model._children.values()):
            with pytest.raises(ValueError, match=r"module layernorm, .*: it needs opset"):
                lc.to_onnx(model, opset=opset)
            continue
        x = values_of(model)
        proto = lc.to_onnx(model, opset=opset)
        feed = dict(zip((i.name for i in proto.graph.input), leaves(x), strict=True))
        check(model, proto, feed, leaves(model(x)))


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("first", [False, True])
def test_there_and_back(tmp_path: Path, name: str, first: bool) -> None:
    """An equal model, bit for bit; and where the graph was changed, equal numbers."""
    model, parts = NETWORKS[name](first)
    x = values_of(model)
    path = tmp_path / "model.onnx"
    proto = lc.to_onnx(model, path, states=bool(parts))
    again = lc.from_onnx(path)
    assert again == model
    assert_same_bits(leaves(again(x)), leaves(model(x)))
    del proto.metadata_props[:]
    graph = graph_of(proto)
    state = states_of(model)
    y, final = model.run(x, state)
    found = graph(*leaves(x), *leaves(state))
    for ours, truth in zip(leaves(found), [*leaves(y), *leaves(final)], strict=True):
        np.testing.assert_allclose(ours, truth, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ATTENTION)
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("lengths", [False, True])
def test_attention(name: str, first: bool, lengths: bool) -> None:
    """Keys past the end of a row are not looked at, even NaN; a row without any gives 0."""
    model = ATTENTION[name](first)
    rng = np.random.default_rng(0)
    for p in model.parameters():  # biases, too, which begin with zeros
        p.data = rng.standard_normal(p.shape) * 0.5
    x = values_of(model)
    given: dict[str, Any] = {}
    proto = lc.to_onnx(model, lengths=lengths, opset=18 if first else 17)
    names = [one.name for one in proto.graph.input]
    feed = dict(zip(names, leaves(x), strict=False))
    if lengths:
        rows = np.array([6, 3, 1, 0 if name != "transformer" else 2])
        keys = leaves(x)[-1]
        past = np.arange(T)[:, None] >= rows
        if name == "additive":
            keys[past.T if first else past] = np.nan
        feed[names[-1]] = rows
        given["lengths"] = rows if len(leaves(x)) == 1 or name == "dots" else (None, rows)
    check(model, proto, feed, leaves(model(x, **given)))
    again = lc.from_onnx(proto)
    assert again == model
    assert_same_bits(leaves(again(x)), leaves(model(x)))


def test_attention_alone_and_in_int8() -> None:
    attention = lc.attention.MultiHead(8, 2, seed=0)
    with pytest.raises(ValueError, match=r"MultiHead.* but a lc.Model of what it gives"):
        lc.to_onnx(attention)
    x = lc.Input(8)
    model = lc.quantize(lc.Model(x, lc.GRU(8, 4, seed=1)(attention(x, x, x)[0])[0]))
    with pytest.raises(ValueError, match="int8"):
        lc.to_onnx(model)


def test_names() -> None:
    def names(make: Any, **options: Any) -> tuple[list[str], list[str]]:
        graph = lc.to_onnx(make(False)[0], **options).graph
        return [i.name for i in graph.input], [o.name for o in graph.output]

    assert names(two_inputs) == (["x0", "x1"], ["y0", "y1", "y2"])
    assert names(two_heads, lengths=True, states=True) == (
        ["x", "lengths", "h0", "c0"], ["steps", "rows", "both", "hn", "cn"],
    )  # fmt: skip
    assert names(autoencoder, states=True) == (
        ["x", "lstm.h0", "lstm.c0", "lstm_1.h0", "lstm_1.c0"],
        ["x_2", "lstm.hn", "lstm.cn", "lstm_1.hn", "lstm_1.cn"],
    )
    assert names(encoder_decoder, lengths=True, states=True) == (
        ["source", "previous", "source.lengths", "previous.lengths", "h0", "c0"], ["y", "hn", "cn"],
    )  # fmt: skip
    assert names(tied, states=True) == (
        ["x0", "x1", "gru.h0", "gru.h0_2", "gru.h0_3"],
        ["y0", "y1", "gru.hn", "gru.hn_2", "gru.hn_3"],
    )
    a, b = lc.Input(3), lc.Input(3)
    nested = lc.Model({"p": [a], "q": {"r": b}}, [[a + b], {"s": a - b}])
    graph = lc.to_onnx(nested).graph
    assert [i.name for i in graph.input] == ["p0", "q.r"]
    assert [o.name for o in graph.output] == ["y00", "y1.s"]


def test_weights_that_calls_share_are_there_once() -> None:
    for make in (encoder_decoder, tied):
        model = make(False)[0]
        proto = lc.to_onnx(model)
        weights = [i for i in proto.graph.initializer if i.data_type == onnx.TensorProto.FLOAT]
        size = sum(int(np.prod(w.dims)) for w in weights)
        assert size == model.num_parameters


def test_inputs_whose_values_meet_share_their_lengths() -> None:
    a, b, c = lc.Input(3), lc.Input(3), lc.Input(3)
    y, _ = lc.GRU(3, 3, seed=0)(a)
    z, _ = lc.GRU(3, 2, seed=1)(y + b)
    model = lc.Model([a, b, c], [z, lc.GRU(3, 2, seed=2)(c)[0], lc.LastStep()(c)])
    proto = lc.to_onnx(model, lengths=True)
    assert [i.name for i in proto.graph.input][3:] == ["x0.lengths", "x2.lengths"]
    x = values_of(model)
    feed = dict(zip(["x0", "x1", "x2"], x, strict=True))
    one, two = np.array([6, 2, 0, 1]), np.array([3, 6, 2, 5])
    feed |= {"x0.lengths": one, "x2.lengths": two}
    check(model, proto, feed, list(model(x, lengths=(one, one, two))))
    # Those that nothing takes are no input.
    apart = lc.Model([a, b], [y, lc.Linear(3, 2)(b)])
    names = [i.name for i in lc.to_onnx(apart, lengths=True).graph.input]
    assert names == ["x0", "x1", "lengths"]


def test_time_and_batch_of_any_size() -> None:
    model = residual_stack(True)[0]
    proto = lc.to_onnx(model)
    run = session(proto)
    for batch, time in ((1, 1), (2, 9), (5, 3)):
        x = np.random.default_rng(time).standard_normal((batch, time, 4)).astype("f4")
        np.testing.assert_allclose(run.run(None, {"x": x})[0], model(x), atol=1e-6)
        np.testing.assert_allclose(graph_of(proto)(x), model(x), atol=1e-6)


def test_inputs_that_do_not_meet_have_their_own_numbers_of_steps() -> None:
    """ONNX Runtime takes axes of one name to be of one size."""
    model = encoder_decoder(True)[0]
    x = {"source": np.ones((2, 7), np.int64), "previous": np.ones((2, 4), np.int64)}
    check(model, lc.to_onnx(model), x, leaves(model(x)))
    inputs = lc.to_onnx(two_inputs(False)[0]).graph.input
    assert [d.dim_param for d in inputs[0].type.tensor_type.shape.dim][:2] == ["time", "batch"]


def normed(first: bool) -> Any:
    """The norm of what has no steps, then of what has them: features are another axis there."""
    x, static = lc.Input(3), lc.Input(2, steps=False)
    y, h = lc.GRU(3, 4, batch_first=first, seed=0)(x)
    norms = [lc.BatchNorm(n) for n in (4, 4, 2)]
    for i, norm in enumerate(norms):
        rng = np.random.default_rng(i)
        state = norm.state_dict()
        state["running_mean"] = rng.standard_normal(norm.num_features).astype("f4")
        norm.load_state_dict(state)
    return lc.Model([x, static], [norms[0](h[-1]), norms[1](y), norms[2](static)])


@pytest.mark.parametrize("first", [False, True])
def test_whether_a_value_has_steps_is_known_at_each_call(first: bool) -> None:
    model = normed(first)
    x = values_of(model)
    names = ("x0", "x1")
    check(model, lc.to_onnx(model), dict(zip(names, x, strict=True)), leaves(model(x)))


def test_operations_along_axes() -> None:
    """Luong's attention as Keras writes it, the larger and the smaller, steps behind steps."""
    x, queries = lc.Input(3), lc.Input(4)
    y, _ = lc.GRU(3, 4, batch_first=True, seed=0)(x)
    scores = lc.Softmax()(y._enter(Dot(2, 2, [2, 2], [None, T]), (queries, y)))
    context = y._enter(Dot(2, 1, [2, 2], [None, 4]), (scores, y))
    turned = y._enter(Dot(1, 1, [2, 2], [4, 4]), (y, queries))
    most = y._enter(Extreme("maximum", [2, 2], [None, 4]), (y, context))
    least = y._enter(Extreme("minimum", [2, 2], [None, 4]), (queries, context))
    joined = y._enter(Join(1, [2, 2, 2], [None, 4]), (most, least, turned))
    model = lc.Model([x, queries], joined)
    values = values_of(model)
    proto = lc.to_onnx(model)
    check(model, proto, dict(zip(("x0", "x1"), values, strict=True)), [model(values)])
    assert lc.from_onnx(proto) == model


def test_operations_that_are_not_written_are_refused_by_name() -> None:
    x = lc.Input(3)
    y, _ = lc.GRU(3, 4, batch_first=True, seed=0)(x)
    model = lc.Model(x, y._enter(UnitLength(2, 1e-7, 0.0, [2], [None, 4]), (y,)))
    with pytest.raises(ValueError, match="unitlength is between the modules, which is not written"):
        lc.to_onnx(model)
    total = Reduce("sum", 1, False, [2], [4])._given_symbols(y)
    with pytest.raises(ValueError, match="reduce takes steps past the ends of rows"):
        lc.to_onnx(lc.Model(x, [total, y]), lengths=True)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("kind", ["sum", "mean", "max"])
def test_over_steps(kind: str, keep: bool) -> None:
    x = lc.Input(3)
    y, _ = lc.GRU(3, 4, batch_first=True, seed=0)(x)
    shape = [1, 4] if keep else [4]
    model = lc.Model(x, Reduce(kind, 1, keep, [2], shape)._given_symbols(y))
    value = values_of(model)
    check(model, lc.to_onnx(model), {"x": value}, [model(value)])


def test_double_precision() -> None:
    x, static = lc.Input(3), lc.Input(2, steps=False)
    y, h = lc.GRU(5, 3, seed=0, dtype="float64")(lc.concat([x, lc.repeat(static, like=x)]))
    model = lc.Model([x, static], [0.1 * x + y, h[-1] - 0.3])
    rng = np.random.default_rng(0)
    values = rng.standard_normal((T, B, 3)), rng.standard_normal((B, 2))
    proto = lc.to_onnx(model)
    onnx.checker.check_model(proto, full_check=True)
    for ours, truth in zip(graph_of(proto)(*values), model(values), strict=True):
        np.testing.assert_allclose(ours, truth, rtol=1e-14)
    assert lc.from_onnx(proto) == model


class Own(lc.Module):
    def forward(self, x: Any) -> Any:
        return x, None


def test_what_onnx_cannot_say_is_refused_by_name(tmp_path: Path) -> None:
    x = lc.Input(3)
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    cell = lc.GRUCell(3, 3)
    state = lc.Input(3, steps=False)
    for inputs, outputs, message in [
        (x, x + Own()(x), r"module own, Own\(\), is not expressible in ONNX"),
        (x, x + lc.GRU(3, 3)(lc.Masking()(x)[0])[0], r"module masking, Masking\(\), is not"),
        (
            x,
            x + lc.quantize(lc.LSTM(3, 4, proj_size=3))(x)[0],
            r"module lstm, LSTM.*int8.*without layer_norm, zoneout, proj_size",
        ),
        (state, cell(state, state) + state, r"module grucell, GRUCell\(3, 3\), is not expressible"),
    ]:
        with pytest.raises(ValueError, match=message):
            lc.to_onnx(lc.Model(inputs, outputs), path)
    no_layer = lc.Model(x, lc.Linear(3, 3)(x) + x)
    for option in ("states", "lengths"):
        with pytest.raises(ValueError, match=f"{option}=True needs a .*, and there is none"):
            lc.to_onnx(no_layer, path, **{option: True})
    wired = initial_state(False)[0]
    with pytest.raises(ValueError, match="states=True needs a recurrent layer"):
        lc.to_onnx(wired, states=True)
    conv = lc.Conv1D(3, 3, 2, padding="causal")
    for model in (lc.Sequential(conv, lc.GRU(3, 3)), lc.Model(x, lc.GRU(3, 3)(conv(x))[0])):
        with pytest.raises(ValueError, match=r"states=True, but Conv1D.* needs past steps"):
            lc.to_onnx(model, path, states=True)
    block = lc.Sequential(lc.Model(x, lc.GRU(3, 3)(x)[0] + x), lc.Linear(3, 2))
    with pytest.raises(ValueError, match=r"(?s)module 0, Model.*not expressible.*lc\.Input"):
        lc.to_onnx(block, path)
    assert path.read_bytes() == b"before"
