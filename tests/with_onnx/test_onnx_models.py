"""ONNX graphs of any shape, of operators that our modules have: they become a Model."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from helpers import peers
from helpers.networks import NETWORKS, values_of
from helpers.numeric import assert_same_bits
from helpers.onnx_models import model, onnx, value, weights
from helpers.paths import DATA
from lstmcore._base.tree import leaves
from lstmcore.onnx._graph import Graph
from lstmcore.onnx._importing import graph_of

torch = peers.require("torch")
runtime = peers.require("onnxruntime")
nn = torch.nn
helper = onnx.helper


def theirs(proto: Any, arrays: list[Any]) -> list[Any]:
    """What ONNX Runtime makes of inputs."""
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    session = runtime.InferenceSession(proto.SerializeToString(), options)
    names = [one.name for one in session.get_inputs()]
    found: list[Any] = session.run(None, dict(zip(names, arrays, strict=True)))
    return found


def compare(found: Any, proto: Any, arrays: list[Any], atol: float = 3e-6) -> None:
    """Hold a model to ONNX Runtime: the same shapes, too."""
    ours = leaves(found(*arrays))
    for one, other in zip(ours, theirs(proto, arrays), strict=True):
        assert one.shape == other.shape
        np.testing.assert_allclose(one, other, atol=atol)


def same_everywhere(found: Any, arrays: list[Any], path: Path) -> None:
    """A model that is saved and loaded, or goes through ONNX, is the same."""
    lc.save(found, path / "m.safetensors")
    assert lc.load(path / "m.safetensors") == found
    proto = lc.to_onnx(found, path / "m.onnx")
    again = lc.from_onnx(path / "m.onnx")
    assert again == found
    assert_same_bits(leaves(again(*arrays)), leaves(found(*arrays)))
    compare(found, proto, arrays)


# What `to_onnx` writes ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "no_layers"])
def test_our_networks_without_their_description(name: str, first: bool, tmp_path: Path) -> None:
    network = NETWORKS[name](first)[0]
    arrays = leaves(values_of(network))
    proto = lc.to_onnx(network)
    del proto.metadata_props[:]
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    assert found.batch_first == first
    compare(found, proto, arrays)
    same_everywhere(found, arrays, tmp_path)


def test_what_several_nodes_share_is_one_module() -> None:
    proto = lc.to_onnx(NETWORKS["tied"](False)[0])
    del proto.metadata_props[:]
    found = lc.from_onnx(proto)
    assert [type(m) for m in found._children.values()] == [lc.GRU, lc.Linear, lc.LastStep]


# What PyTorch exports -----------------------------------------------------------------------------


class Residual(nn.Module):  # type: ignore[misc, name-defined]
    """Layers with what they take added to what they give, and a GELU."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.LSTM(6, 6, batch_first=True)
        self.norm = nn.LayerNorm(6)
        self.second = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Any) -> Any:
        y = x + self.first(x)[0]
        y = y + self.second(self.norm(y))[0]
        return self.head(nn.functional.gelu(y)) / 2


class Branches(nn.Module):  # type: ignore[misc, name-defined]
    """Two recurrent branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.LSTM(6, 5, bidirectional=True)
        self.b = nn.GRU(6, 4)
        self.head = nn.Linear(14, 3)

    def forward(self, x: Any) -> Any:
        return self.head(torch.relu(torch.cat([self.a(x)[0], self.b(x)[0]], -1)))


class Outputs(nn.Module):  # type: ignore[misc, name-defined]
    """Scores of steps and of rows, and the states of all layers."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(6, 5, 2, bidirectional=True, batch_first=True)
        self.steps, self.rows = nn.Linear(10, 3), nn.Linear(10, 2)

    def forward(self, x: Any) -> Any:
        y, (h, c) = self.lstm(x)
        return self.steps(y), self.rows(torch.cat([h[-2], h[-1]], 1)), h, c[1:3]


class Static(nn.Module):  # type: ignore[misc, name-defined]
    """A standardised series, and features without steps over its steps and beside its end."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.linspace(-1, 1, 6))
        self.register_buffer("deviation", torch.linspace(0.5, 2, 6))
        self.embed = nn.Linear(2, 4)
        self.gru = nn.GRU(10, 5, batch_first=True)
        self.head = nn.Linear(9, 3)

    def forward(self, x: Any, static: Any) -> Any:
        e = torch.tanh(self.embed(static))
        over = e.unsqueeze(1).expand(-1, x.size(1), -1)
        x = (x - self.mean) / self.deviation
        _, h = self.gru(torch.cat([x, over], -1))
        return torch.sigmoid(self.head(torch.cat([h[-1], e], 1)))


class Attention(nn.Module):  # type: ignore[misc, name-defined]
    """Pooling by weights that are learned, in each of the ways to write it."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.lstm = nn.LSTM(6, 5, bidirectional=True, batch_first=True)
        self.score, self.head = nn.Linear(10, 1), nn.Linear(10, 3)
        self.how = how

    def forward(self, ids: Any) -> Any:
        y, _ = self.lstm(self.embed(ids))
        scores = self.score(torch.tanh(y))
        if self.how == "sum":
            pooled = (torch.softmax(scores, 1) * y).sum(1)
        elif self.how == "bmm":
            pooled = torch.bmm(torch.softmax(scores.squeeze(-1), -1).unsqueeze(1), y).squeeze(1)
        else:
            pooled = (y.transpose(1, 2) @ torch.softmax(scores, 1)).squeeze(-1)
        return self.head(pooled)


class Translator(nn.Module):  # type: ignore[misc, name-defined]
    """An encoder, and a decoder that is given what it should have said."""

    def __init__(self, batch_first: bool) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 6)
        self.encoder = nn.LSTM(6, 5, 2, batch_first=batch_first)
        self.decoder = nn.LSTM(6, 5, 2, batch_first=batch_first)
        self.head = nn.Linear(5, 20)

    def forward(self, source: Any, previous: Any) -> Any:
        _, state = self.encoder(self.embed(source))
        return self.head(self.decoder(self.embed(previous), state)[0])


class Convolutions(nn.Module):  # type: ignore[misc, name-defined]
    """Convolutions, norm and pooling in front of a layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv1d(6, 8, 5, padding=2), nn.BatchNorm1d(8)
        self.pool, self.second = nn.MaxPool1d(2), nn.Conv1d(8, 8, 3, stride=2, padding=1)
        self.lstm = nn.LSTM(8, 5, bidirectional=True, batch_first=True)
        self.head = nn.Linear(10, 3)

    def forward(self, x: Any) -> Any:
        y = self.norm(torch.relu(self.first(x.transpose(1, 2))))
        y = torch.relu(self.second(self.pool(y))).transpose(1, 2)
        return self.head(self.lstm(y)[0].mean(1))


class Autoencoder(nn.Module):  # type: ignore[misc, name-defined]
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.GRU(6, 5, batch_first=True), nn.GRU(5, 6, batch_first=True)
        self.head = nn.Linear(6, 6)

    def forward(self, x: Any) -> Any:
        _, h = self.encoder(x)
        return self.head(self.decoder(h[-1].unsqueeze(1).repeat(1, x.size(1), 1))[0])


class Given(nn.Module):  # type: ignore[misc, name-defined]
    """The initial state is made of features without steps; gates of one minus a share."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.gru, self.gate = nn.Linear(2, 5), nn.GRU(6, 5), nn.Linear(5, 5)

    def forward(self, x: Any, static: Any) -> Any:
        y, _ = self.gru(x, torch.tanh(self.start(static)).unsqueeze(0))
        gate = torch.sigmoid(self.gate(y))
        return (gate * y + (1 - gate) * nn.functional.silu(y))[..., 1:4]


class Joined(nn.Module):  # type: ignore[misc, name-defined]
    """A tagger that scores rows and steps in one axis, and takes them apart behind that."""

    def __init__(self, first: bool, how: str) -> None:
        super().__init__()
        self.embedding, self.how = nn.Embedding(20, 6), how
        self.lstm = nn.LSTM(6, 5, batch_first=first)
        self.norm, self.head = nn.BatchNorm1d(5), nn.Linear(5, 4)
        self.norm.running_mean.normal_()
        self.norm.running_var.uniform_(0.5, 2)
        self.last = nn.GRU(4, 3, batch_first=first)

    def forward(self, ids: Any) -> Any:
        y, _ = self.lstm(self.embedding(ids))
        a, b, size = y.shape
        rows = y.reshape(a * b if self.how == "product" else -1, size)
        scores = self.head(torch.relu(self.norm(rows)) * 2 + rows)
        shape = {"product": (a, b, 4), "rest": (a, b, -1), "middle": (a, -1, 4)}[self.how]
        scores = torch.log_softmax(scores, 1).view(*shape)
        return scores, self.last(scores)[0]


class Flat(nn.Module):  # type: ignore[misc, name-defined]
    """All steps of a row side by side: six, or as many as a convolution leaves of seven."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.gru, self.conv = nn.GRU(6, 5, batch_first=True), nn.Conv1d(5, 4, 3, stride=2)
        self.head, self.how = nn.Linear(30 if how == "view" else 12, 3), how

    def forward(self, x: Any) -> Any:
        y, _ = self.gru(x)
        if self.how == "view":
            return self.head(y.reshape(y.shape[0], -1))
        return self.head(torch.flatten(self.conv(y.transpose(1, 2)), 1))


def numbers(*shape: int) -> Any:
    return torch.randn(*shape)


def ids(*shape: int) -> Any:
    return torch.randint(0, 20, shape)


Make = Callable[[int, int], "tuple[Any, ...]"]
CASES: dict[str, tuple[Callable[[], Any], Make, type]] = {
    "residual": (Residual, lambda T, B: (numbers(B, T, 6),), lc.Model),
    "branches": (Branches, lambda T, B: (numbers(T, B, 6),), lc.Model),
    "outputs": (Outputs, lambda T, B: (numbers(B, T, 6),), lc.Model),
    "static": (Static, lambda T, B: (numbers(B, T, 6), numbers(B, 2)), lc.Model),
    "sum": (lambda: Attention("sum"), lambda T, B: (ids(B, T),), lc.Model),
    "bmm": (lambda: Attention("bmm"), lambda T, B: (ids(B, T),), lc.Model),
    "matmul": (lambda: Attention("matmul"), lambda T, B: (ids(B, T),), lc.Model),
    "translator": (lambda: Translator(True), lambda T, B: (ids(B, T), ids(B, T + 2)), lc.Model),
    "time first": (lambda: Translator(False), lambda T, B: (ids(T, B), ids(3, B)), lc.Model),
    "convolutions": (Convolutions, lambda T, B: (numbers(B, 4 * T, 6),), lc.Sequential),
    "autoencoder": (Autoencoder, lambda T, B: (numbers(B, T, 6),), lc.Model),
    "given": (Given, lambda T, B: (numbers(T, B, 6), numbers(B, 2)), lc.Model),
    "joined": (lambda: Joined(True, "rest"), lambda T, B: (ids(B, T),), lc.Model),
    "joined by a product": (lambda: Joined(True, "product"), lambda T, B: (ids(B, T),), lc.Model),
    "joined, time first": (lambda: Joined(False, "middle"), lambda T, B: (ids(T, B),), lc.Model),
}


def exported(module: Any, inputs: tuple[Any, ...]) -> Any:
    """What PyTorch makes of a module, for any time and batch."""
    buffer = io.BytesIO()
    names = [f"input.{i}" for i in range(len(inputs))]
    axes = {
        name: {i: f"{name} {i}" for i in range(x.ndim - x.is_floating_point())}
        for name, x in zip(names, inputs, strict=True)
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module.eval(), inputs, buffer, dynamo=False, opset_version=17, input_names=names,
            dynamic_axes=axes,
        )  # fmt: skip
    return onnx.load_from_string(buffer.getvalue())


@pytest.mark.parametrize("name", CASES)
def test_what_pytorch_exports(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, inputs, kind = CASES[name]
    module = make()
    proto = exported(module, inputs(7, 3))
    found = lc.from_onnx(proto)
    assert type(found) is kind
    for T, B in ((7, 3), (1, 1), (9, 2)):  # other sizes than exported
        given = inputs(T, B)
        arrays = [x.numpy() for x in given]
        compare(found, proto, arrays)
        for one, truth in zip(leaves(found(*arrays)), leaves(module(*given)), strict=True):
            np.testing.assert_allclose(one, truth.detach().numpy(), atol=3e-6)
    same_everywhere(found, arrays, tmp_path)


@pytest.mark.parametrize(("how", "steps"), [("view", 6), ("flatten", 7)])
def test_steps_of_a_known_number_side_by_side(how: str, steps: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, buffer = Flat(how).eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            module, (numbers(2, steps, 6),), buffer, dynamo=False, opset_version=17,
            input_names=["x"], dynamic_axes={"x": {0: "batch"}},
        )  # fmt: skip
    proto = onnx.load_from_string(buffer.getvalue())
    found = lc.from_onnx(proto)
    assert type(found) is lc.Sequential
    for batch in (2, 1, 5):
        x = numbers(batch, steps, 6)
        compare(found, proto, [x.numpy()])
        np.testing.assert_allclose(found(x.numpy()), module(x).detach(), atol=3e-6)
    same_everywhere(found, [x.numpy()], tmp_path)


def test_rows_and_steps_are_not_taken_for_each_other() -> None:
    """Joined as (B, T) and taken apart as (T, B), numbers stand elsewhere: no network of ours."""
    torch.manual_seed(0)

    class Mixed(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.gru = nn.GRU(6, 5, batch_first=True)

        def forward(self, x: Any) -> Any:
            y, _ = self.gru(x)
            return torch.relu(y.reshape(-1, 5)).view(x.shape[1], x.shape[0], 5)

    proto = exported(Mixed(), (numbers(3, 4, 6),))
    found = lc.from_onnx(proto)
    assert type(found) is Graph
    compare(found, proto, [numbers(3, 4, 6).numpy()])


def test_reshape_without_a_zero_among_its_sizes_may_allow_zeros() -> None:
    torch.manual_seed(0)
    proto = exported(Joined(True, "rest"), (ids(3, 7),))
    for node in proto.graph.node:
        if node.op_type == "Reshape":
            del node.attribute[:]
            node.attribute.append(helper.make_attribute("allowzero", 1))
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    compare(found, proto, [ids(2, 5).numpy()])


def test_names_of_the_file(tmp_path: Path) -> None:
    """Inputs by the file's names, in any order; they and those of the outputs are kept."""
    torch.manual_seed(0)
    proto = exported(Static(), (numbers(3, 7, 6), numbers(3, 2)))
    found = lc.from_onnx(proto)
    assert found.input_names == ("input.0", "input.1")
    assert found.output_names == tuple(one.name for one in proto.graph.output)
    x, static = numbers(3, 7, 6).numpy(), numbers(3, 2).numpy()
    y = found(x, static)
    assert_same_bits(found({"input.1": static, "input.0": x}), y)
    dy = np.ones_like(y)
    _, tape = found.forward({"input.1": static, "input.0": x})
    assert [d.shape for d in found.backward(tape, dy)] == [x.shape, static.shape]
    for given, message in (
        (
            {"input.0": x},
            r"x has the names \['input.0'\] .*expected a dict of 'input.0', 'input.1'",
        ),
        ({"input.0": x, "input.1": x}, r"x\['input.1'\] has shape \(3, 7, 6\), expected \(B, 2\)"),
    ):
        with pytest.raises(ValueError, match=message):
            found(given)
    again = lc.to_onnx(found)
    assert [one.name for one in again.graph.input] == ["input.0", "input.1"]
    assert [one.name for one in again.graph.output] == list(found.output_names)
    lc.save(found, tmp_path / "m.safetensors")
    loaded = lc.load(tmp_path / "m.safetensors")
    assert (loaded.input_names, loaded.output_names) == (found.input_names, found.output_names)
    assert loaded == found


@pytest.mark.parametrize("name", ["residual", "states"])
def test_what_its_newer_exporter_writes(name: str, tmp_path: Path) -> None:
    """Files that were recorded: shapes are worked out by nodes, and layers begin with zeros."""
    proto = onnx.load(DATA / f"torch_dynamo_{name}.onnx")
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    assert found.batch_first
    rng = np.random.default_rng(0)
    for B, T in ((3, 7), (2, 4), (1, 2)):
        arrays = [rng.standard_normal((B, T, 6)).astype("f4")]
        compare(found, proto, arrays)
        compare(graph_of(proto), proto, arrays)
    same_everywhere(found, arrays, tmp_path)


@pytest.mark.parametrize("name", ["residual", "outputs", "static", "sum", "translator", "given"])
def test_their_gradients(name: str) -> None:
    torch.manual_seed(0)
    make, inputs, _ = CASES[name]
    given = tuple(x.double() if x.is_floating_point() else x for x in inputs(3, 2))
    found = lc.from_onnx(exported(make().double(), given))
    assert found.dtype == np.float64
    arrays = [x.numpy() for x in given]
    lc.gradcheck(found, arrays if len(arrays) > 1 else arrays[0])


def test_such_a_model_streams() -> None:
    torch.manual_seed(0)
    found = lc.from_onnx(exported(Residual(), (numbers(1, 7, 6),)))
    x = np.random.default_rng(0).standard_normal((7, 1, 6)).astype("f4")
    stream = found.stream()
    steps = np.stack([stream.step(step) for step in x], 1)
    np.testing.assert_array_equal(steps, found(x.transpose(1, 0, 2)))


def test_such_a_model_trains() -> None:
    torch.manual_seed(0)
    found = lc.from_onnx(exported(Static(), (numbers(3, 7, 6), numbers(3, 2))))
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((8, 7, 6)).astype("f4"), rng.standard_normal((8, 2)).astype("f4"))
    target = rng.random((8, 3)).astype("f4")
    optimizer = lc.optim.Adam(found.parameters(), lr=0.02)
    history = lc.fit(
        found, [lc.data.Batch(x, target)], loss=lc.losses.mse, optimizer=optimizer, epochs=20,
        progress=False,
    )  # fmt: skip
    assert history.losses[-1] < history.losses[0] / 2


# Nodes one by one ---------------------------------------------------------------------------------


def behind(op: str, *nodes: Any, output: str = "z", **constants: Any) -> Any:
    """A bidirectional layer of x (T, B, 4), its Y, h (and c), and nodes behind it."""
    arrays = weights(op, 2)
    names = ["Y", "h", "c"][: 3 if op == "LSTM" else 2]
    first = helper.make_node(
        op, ["x", "W", "R", "B"], names, direction="bidirectional", hidden_size=3
    )
    given = {name: arrays[name] for name in "WRB"} | constants
    return model([first, *nodes], [value("x", "f4", ["T", "B", 4])], [value(output, "f4")], given)


ONE = np.array([1])
JOINED = helper.make_node("Concat", ["a1", "b1"], ["z"], axis=2)


@pytest.mark.parametrize(
    ("nodes", "constants", "kinds"),
    [
        # Two directions apart and together again, as tools for Keras write them.
        ([helper.make_node("Split", ["Y", "halves"], ["a", "b"], axis=1),
          helper.make_node("Squeeze", ["a", "one"], ["a1"]),
          helper.make_node("Squeeze", ["b", "one"], ["b1"]), JOINED],
         {"halves": np.array([1, 1]), "one": ONE}, [lc.LSTM]),
        ([helper.make_node("Gather", ["Y", "zeroth"], ["a1"], axis=1),
          helper.make_node("Gather", ["Y", "first"], ["b1"], axis=1), JOINED],
         {"zeroth": np.array(0), "first": np.array(1)}, [lc.LSTM]),
        # Side by side the other way, added, and the cells' states.
        ([helper.make_node("Gather", ["Y", "first"], ["a1"], axis=1),
          helper.make_node("Gather", ["Y", "zeroth"], ["b1"], axis=1), JOINED],
         {"zeroth": np.array(0), "first": np.array(1)}, None),
        ([helper.make_node("Split", ["Y", "halves"], ["a", "b"], axis=1),
          helper.make_node("Add", ["a", "b"], ["s"]),
          helper.make_node("Squeeze", ["s", "one"], ["z"])],
         {"halves": np.array([1, 1]), "one": ONE}, None),
        ([helper.make_node("Transpose", ["c"], ["t"], perm=[1, 0, 2]),
          helper.make_node("Reshape", ["t", "shape"], ["z"])],
         {"shape": np.array([0, -1])}, None),
        ([helper.make_node("Transpose", ["h"], ["t"], perm=[1, 0, 2]),
          helper.make_node("Flatten", ["t"], ["z"])], {}, [lc.LSTM, lc.BothEnds]),
        # The first step, all steps backwards, all but two, and with zeros around them.
        ([helper.make_node("Transpose", ["Y"], ["t"], perm=[0, 2, 1, 3]),
          helper.make_node("Reshape", ["t", "shape"], ["y"]),
          helper.make_node("Slice", ["y", "minus", "far", "axis", "minus"], ["r"]),
          helper.make_node("Slice", ["r", "first", "minus", "axis"], ["s"]),
          helper.make_node("Pad", ["s", "pads"], ["z"])],
         {"shape": np.array([0, 0, 6]), "minus": np.array([-1]), "far": np.array([-(2**40)]),
          "first": ONE, "axis": np.array([0]), "pads": np.array([2, 0, 0, 1, 0, 0])},
         [lc.LSTM, lc.Flip, lc.Pad1D, lc.Pad1D]),
        # The end of a state over all steps; both directions of it as they are.
        ([helper.make_node("Gather", ["h", "zeroth"], ["e"], axis=0),
          helper.make_node("Gather", ["Y", "zeroth"], ["y"], axis=1),
          helper.make_node("Mul", ["y", "e"], ["z"])], {"zeroth": np.array(0)}, None),
        ([helper.make_node("Tanh", ["h"], ["z"])], {}, None),
    ],
)  # fmt: skip
def test_nodes_behind_two_directions(nodes: list[Any], constants: Any, kinds: Any) -> None:
    proto = behind("LSTM", *nodes, **constants)
    found = lc.from_onnx(proto)
    if kinds is None:
        assert type(found) is lc.Model
    else:
        assert [type(part) for part in found] == kinds
    compare(found, proto, [weights("LSTM")["X"]])


def test_a_softmax_of_each_direction_is_none_of_both() -> None:
    nodes = [
        helper.make_node("Softmax", ["Y"], ["s"], axis=-1),
        helper.make_node("Transpose", ["s"], ["t"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["t", "shape"], ["z"]),
    ]
    proto = behind("LSTM", *nodes, shape=np.array([0, 0, 6]))
    compare(lc.from_onnx(proto), proto, [weights("LSTM")["X"]])


@pytest.mark.parametrize("scale", [1e-25, 1e-20, 1e20, 1e25])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_scales_whose_squares_are_no_numbers(op: str, scale: float) -> None:
    arrays = weights("GRU")
    nodes = [
        helper.make_node(op, ["x", "scales"], ["s"]),
        helper.make_node("GRU", ["s", "W", "R"], ["Y", "z"], hidden_size=3),
    ]
    given = {"W": arrays["W"], "R": arrays["R"], "scales": np.array([scale, 1, 2, 3], "f4")}
    proto = model(nodes, [value("x", "f4", ["T", "B", 4])], [value("z", "f4")], given)
    x = arrays["X"].copy()
    x[..., 0] = x[..., 0] / scale if op == "Mul" else x[..., 0] * scale
    compare(lc.from_onnx(proto), proto, [x])


@pytest.mark.parametrize("op", ["Mul", "Add"])
def test_shares_of_gelu_that_meet(op: str) -> None:
    nodes = [
        helper.make_node("Div", ["h", "root"], ["a"]),
        helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]),
        helper.make_node(op, ["c", "c"], ["z"]),
    ]
    proto = behind("GRU", *nodes, root=np.float32(2**0.5), one=np.float32(1))
    compare(lc.from_onnx(proto), proto, [weights("GRU")["X"]])


def test_a_convolution_without_bias_and_features_that_are_normalised() -> None:
    arrays, generator = weights("GRU"), np.random.default_rng(0)
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["a", "kernel"], ["b"], pads=[2, 0]),
        helper.make_node("Transpose", ["b"], ["c"], perm=[2, 0, 1]),
        helper.make_node("GRU", ["c", "W", "R"], ["Y", "h"], hidden_size=3),
        helper.make_node("Squeeze", ["h", "zero"], ["e"]),
        helper.make_node("BatchNormalization", ["x2", *["four"] * 4], ["n"]),
        helper.make_node("Concat", ["e", "n"], ["z"], axis=1),
    ]
    given = {
        "W": arrays["W"], "R": arrays["R"], "zero": np.array([0]), "four": np.full(2, 4, "f4"),
        "kernel": generator.standard_normal((4, 4, 3)).astype("f4"),
    }  # fmt: skip
    inputs = [value("x2", "f4", ["B", 2]), value("x", "f4", ["B", "T", 4])]
    proto = model(nodes, inputs, [value("z", "f4")], given)
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    assert [m.batch_first for _, m in found._modules() if type(m) is lc.BatchNorm] == [True]
    compare(found, proto, [numbers(2, 2).numpy(), arrays["X"].swapaxes(0, 1)])


def test_a_layer_that_reads_backwards_ends_at_the_first_step() -> None:
    arrays = weights("GRU")
    nodes = [
        helper.make_node("GRU", ["x", "W", "R"], ["Y", "h"], direction="reverse", hidden_size=3),
        helper.make_node("Squeeze", ["h", "zero"], ["z"]),
    ]
    given = {"W": arrays["W"], "R": arrays["R"], "zero": np.array([0])}
    proto = model(nodes, [value("x", "f4", ["T", "B", 4])], [value("z", "f4")], given)
    found = lc.from_onnx(proto)
    assert type(found) is lc.Model
    compare(found, proto, [arrays["X"]])


def test_states_that_are_inputs_stay_inputs_of_a_graph() -> None:
    """No Input is a state; what a Model is called with would be another thing."""
    torch.manual_seed(0)

    class Step(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(4, 3, 2), nn.Linear(3, 2)

        def forward(self, x: Any, h: Any) -> Any:
            y, h = self.gru(x, h)
            return self.head(y), h

    proto = exported(Step(), (numbers(5, 2, 4), numbers(2, 2, 3)))
    found = lc.from_onnx(proto)
    assert isinstance(found, Graph)
    compare(found, proto, [numbers(5, 2, 4).numpy(), numbers(2, 2, 3).numpy()])


def test_outputs_of_other_shapes_keep_them() -> None:
    """A single feature without its axis, which no output of a Model lacks."""

    class Scores(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.gru, self.head = nn.GRU(6, 5, batch_first=True), nn.Linear(5, 1)

        def forward(self, x: Any) -> Any:
            return self.head(self.gru(x)[0]).squeeze(-1)

    proto = exported(Scores(), (numbers(3, 7, 6),))
    found = lc.from_onnx(proto)
    assert isinstance(found, Graph)
    assert found(numbers(2, 5, 6).numpy()).shape == (2, 5)


def test_inputs_one_by_one_or_as_a_list() -> None:
    proto = lc.to_onnx(NETWORKS["tied"](False)[0])
    del proto.metadata_props[:]
    found = lc.from_onnx(proto)
    a, b = np.ones((5, 2, 3), "f4"), np.zeros((4, 2, 3), "f4")
    assert_same_bits(leaves(found(a, b)), leaves(found([a, b])))
    for one, other in zip(found(a, b), graph_of(proto)(a, b), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)
    with pytest.raises(ValueError, match="x has 3 entries, expected 2"):
        found(a, b, b)
    with pytest.raises(TypeError, match=r"x is .*expected a tuple of 2"):
        found(a)
    state = found.run([a, b])[1]
    assert len(found([a, b], state)) == 2  # states, where the inputs are a list
