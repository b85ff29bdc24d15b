"""What `lstmcore.plot` computes, against other ways to compute it, and what it draws."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import lstmcore as lc
from lstmcore import plot
from lstmcore._network.summary import layout, nodes

RNG = np.random.default_rng(0)
X = RNG.standard_normal((6, 2))


@pytest.fixture
def pyplot() -> Any:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    yield pyplot
    pyplot.close("all")


def flat(state: Any) -> Any:
    """Return the state of one sequence as one vector, h before c, of all layers."""
    parts = state if isinstance(state, tuple) else (state,)
    return np.concatenate([part.reshape(-1) for part in parts])


def unflat(values: Any, state: Any) -> Any:
    if not isinstance(state, tuple):
        return values.reshape(state.shape)
    h, c = state
    return values[: h.size].reshape(h.shape), values[h.size :].reshape(c.shape)


# Gradients -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "layer",
    [
        lc.RNN(2, 3, dtype="float64", seed=0),
        lc.GRU(2, 3, dtype="float64", seed=0),
        lc.LSTM(2, 3, dtype="float64", seed=0),
        lc.LSTM(2, 4, num_layers=2, proj_size=2, batch_first=True, dtype="float64", seed=0),
    ],
)
def test_gradient_norms_are_those_of_finite_differences(layer: Any) -> None:
    norms = plot.gradient_norms(layer, X)
    assert norms.shape == (7,)
    assert norms[0] == 1
    step = 1e-6
    for lag in (1, 2, 6):
        past, rest = X[: len(X) - lag], X[len(X) - lag :]
        empty = layer(X[:1])[1]
        state = unflat(np.zeros_like(flat(empty)), empty)
        if len(past):
            state = layer(past)[1]
        start = flat(state)
        columns = []
        for unit in range(start.size):
            ends = []
            for sign in (1, -1):
                moved = start.copy()
                moved[unit] += sign * step
                ends.append(layer(rest, unflat(moved, state))[0][-1])
            columns.append((ends[0] - ends[1]) / (2 * step))
        jacobian = np.stack(columns, axis=1)
        assert norms[lag] == pytest.approx(np.linalg.norm(jacobian, ord=2), rel=1e-6)


def test_gradient_norms_leave_the_layer_alone() -> None:
    layer = lc.GRU(2, 3, seed=0)
    for p in layer.parameters():
        p.grad[...] = 7.0
    before = layer.state_dict()
    plot.gradient_norms(layer, X)
    assert all((p.grad == 7.0).all() for p in layer.parameters())
    assert all((before[name] == w).all() for name, w in layer.state_dict().items())


@pytest.mark.parametrize(
    "nonlinearity",
    ["tanh", "sigmoid", "softsign", ("scaled_tanh", -1.5, 0.5), ("hard_sigmoid", 0.3, 0.5)],
)
@pytest.mark.parametrize("scale", [0.5, 2.0])
def test_no_rnn_exceeds_its_bound(nonlinearity: Any, scale: float) -> None:
    rnn = lc.RNN(2, 5, nonlinearity=nonlinearity, dtype="float64", seed=1)
    dict(rnn.named_parameters())["weight_hh_l0"].data *= scale
    norms, bound = plot.gradient_norms(rnn, X), plot.gradient_bound(rnn, len(X))
    assert (norms <= bound * (1 + 1e-12)).all()


@pytest.mark.parametrize(
    "name",
    [
        ("affine", -1.5, 0.5), ("leaky_relu", 2.0), ("thresholded_relu", 1.0), ("elu", 1.5), "selu",
        "softplus", "gelu", "silu", "mish", "hard_silu",
    ],
)  # fmt: skip
def test_the_largest_slope_is_the_largest(name: Any) -> None:
    x = np.linspace(-12, 12, 240001)[None, :, None]
    one = {"weight_ih_l0": [[1.0]], "weight_hh_l0": [[0.0]]}
    _, _, tape = lc.reference.rnn_forward(x, None, one, nonlinearity=name)
    slopes, _, _ = lc.reference.rnn_backward(tape, np.ones_like(x))
    assert plot._largest_slope(name) == pytest.approx(np.abs(slopes).max(), rel=2e-4)
    assert plot._largest_slope("exponential") == np.inf


@pytest.mark.parametrize(
    ("nonlinearity", "slope"),
    [
        ("tanh", 1.0),
        ("identity", 1.0),
        ("relu", 1.0),
        ("softsign", 1.0),
        ("sigmoid", 0.25),
        (("hard_sigmoid", 0.3, 0.5), 0.3),
        (("scaled_tanh", -1.5, 0.5), 0.75),
    ],
)
def test_the_bound_is_reached_where_the_slope_is_largest(nonlinearity: Any, slope: float) -> None:
    """At h = 0, with a recurrent matrix that stretches every direction alike."""
    rnn = lc.RNN(1, 3, nonlinearity=nonlinearity, bias=True, dtype="float64", seed=2)
    matrix, _ = np.linalg.qr(RNG.standard_normal((3, 3)))
    # relu has its slope above 0 only; sigmoids are steepest at 0 but do not stay there.
    shift = {"relu": 1.0}.get(nonlinearity, 0.0) if isinstance(nonlinearity, str) else 0.0
    named = dict(rnn.named_parameters())
    for name, p in named.items():
        p.data[...] = 0.8 * matrix if name == "weight_hh_l0" else 0
    named["bias_ih_l0"].data[...] = shift
    norm = plot.gradient_norms(rnn, np.zeros((1, 1)))[1]
    assert norm == pytest.approx(0.8 * slope)
    np.testing.assert_allclose(plot.gradient_bound(rnn, 3), (0.8 * slope) ** np.arange(4))


def test_bad_layers_and_sequences() -> None:
    rnn = lc.RNN(2, 3, seed=0)
    with pytest.raises(TypeError, match="layer is Linear"):
        plot.gradient_norms(lc.Linear(2, 3), X)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected one that reads forward only"):
        plot.gradient_norms(lc.GRU(2, 3, bidirectional=True), X)
    with pytest.raises(ValueError, match=r"x has shape \(6, 3\), expected \(T, 2\)"):
        plot.gradient_norms(rnn, np.zeros((6, 3)))
    with pytest.raises(TypeError, match="rnn is GRU"):
        plot.gradient_bound(lc.GRU(2, 3), 4)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="expected one layer"):
        plot.gradient_bound(lc.RNN(2, 3, num_layers=2), 4)
    with pytest.raises(ValueError, match="steps is -1"):
        plot.gradient_bound(rnn, -1)
    with pytest.raises(TypeError, match="layers is RNN"):
        plot.gradient_flow(rnn, X)  # type: ignore[arg-type]


def test_gradient_flow_draws_norms_and_bounds(pyplot: Any) -> None:
    layers = {"a": lc.RNN(2, 3, seed=0), "b": lc.LSTM(2, 3, seed=0)}
    ax = plot.gradient_flow(layers, X)
    drawn = {line.get_label(): line.get_ydata() for line in ax.get_lines()}
    assert list(drawn) == ["a", "bound of a", "b"]
    np.testing.assert_array_equal(drawn["b"], plot.gradient_norms(layers["b"], X))
    np.testing.assert_array_equal(drawn["bound of a"], plot.gradient_bound(layers["a"], 6))
    assert ax.get_yscale() == "log"


# Gates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_first", [False, True])
def test_gate_values_are_those_of_the_row(batch_first: bool) -> None:
    lstm = lc.LSTM(2, 3, num_layers=2, bidirectional=True, batch_first=batch_first, seed=0)
    x = RNG.standard_normal((5, 4, 2)).astype("float32")  # 4 or 5 rows
    _, _, tape = lstm.forward(x)
    values = plot.gate_values(tape, row=2, layer=3, length=3)
    assert list(values) == ["i", "f", "g", "o", "c"]
    part = (3, 2, slice(3)) if batch_first else (3, slice(3), 2)
    for name, gate in tape.gates().items():
        np.testing.assert_array_equal(values[name], gate[part])
    np.testing.assert_array_equal(values["c"], tape.cells()[part])


def test_gate_values_without_a_batch() -> None:
    gru = lc.GRU(2, 3, dtype="float64", seed=0)
    _, _, tape = gru.forward(X)
    np.testing.assert_array_equal(plot.gate_values(tape)["z"], tape.gates()["z"][0])


def test_bad_tapes() -> None:
    x = np.zeros((5, 4, 2), "float32")
    _, _, tape = lc.LSTM(2, 3, seed=0).forward(x)
    _, of_model = lc.Sequential(lc.LSTM(2, 3, seed=0)).forward(x)
    _, _, of_rnn = lc.RNN(2, 3, seed=0).forward(x)
    _, of_cell = lc.GRUCell(2, 3, seed=0).forward(x[0])
    for wrong in (of_model, of_rnn, of_cell, None):
        with pytest.raises(TypeError, match="expected one of an LSTM or GRU"):
            plot.gate_values(wrong)  # type: ignore[arg-type]
    for options in ({"row": 4}, {"row": -1}, {"layer": 1}, {"length": 6}):
        name, value = next(iter(options.items()))
        with pytest.raises(ValueError, match=f"{name} is {value}"):
            plot.gate_values(tape, **options)


def test_gates_draws_each_of_them(pyplot: Any) -> None:
    _, _, tape = lc.LSTM(2, 3, forget_gate=False, seed=0).forward(X.astype("float32"))
    axes = plot.gates(tape)
    titles = [ax.get_title() for ax in axes]
    assert titles == ["input gate i", "candidate g", "output gate o", "cell c"]
    values = plot.gate_values(tape)
    for ax, title in zip(axes, titles):
        (image,) = ax.get_images()
        np.testing.assert_array_equal(image.get_array(), values[title[-1]].T)
    assert axes[0].get_images()[0].get_clim() == (0, 1)
    low, high = axes[-1].get_images()[0].get_clim()
    assert -low == high == pytest.approx(np.abs(values["c"]).max())
    own = pyplot.subplots(4)[1]
    assert list(plot.gates(tape, own)) == list(own)
    with pytest.raises(ValueError, match="axes has 4 of them, expected 5"):
        plot.gates(lc.LSTM(2, 3, seed=0).forward(X.astype("float32"))[2], own)


def test_heat_map(pyplot: Any) -> None:
    _, ax = pyplot.subplots()
    assert plot.heat_map(np.zeros((4, 2)), ax, label="zeros") is ax
    assert ax.get_images()[0].get_clim() == (-1, 1)
    with pytest.raises(ValueError, match=r"values has shape \(4,\)"):
        plot.heat_map(np.zeros(4))


# Curves ----------------------------------------------------------------------------------------


def test_training_draws_on_the_axes_given(pyplot: Any) -> None:
    history = lc.History()
    history.record(2.0, None, {}, 0.1, 1.0)
    _, ax = pyplot.subplots()
    assert plot.training(history, ax) is ax
    assert [line.get_label() for line in ax.get_lines()] == ["training loss"]


def test_training_draws_what_only_the_latest_epochs_measured(pyplot: Any) -> None:
    history = lc.History()
    history.record(2.0, None, {}, 0.1, 1.0)
    history.record(1.0, 1.5, {"accuracy": 0.5}, 0.1, 1.0)
    ax = plot.training(history)
    lines = {
        line.get_label(): np.array(line.get_xdata())[~np.isnan(line.get_ydata())].tolist()
        for line in ax.get_lines()
    }
    best = {"best epoch, 2": [2, 2]}
    assert lines == {"training loss": [1, 2], "validation loss": [2], **best}
    history.mark_best(1)
    labels = [text.get_text() for text in plot.training(history).get_legend().get_texts()]
    assert labels == ["training loss", "validation loss", "best epoch, 1", "accuracy"]


def test_forecast_continues_the_past(pyplot: Any) -> None:
    ax = plot.forecast(
        [1.0, 2.0, 3.0],
        {"a": [4.0, 5.0], "b": [3.0, 3.0]},
        actual=[3.5, 4.5],
        band=([2.0, 1.0], [5.0, 6.0]),
    )
    drawn = {line.get_label(): (line.get_xdata(), line.get_ydata()) for line in ax.get_lines()}
    for name, (steps, values) in {
        "past": ([-2, -1, 0], [1, 2, 3]),
        "actual": ([0, 1, 2], [3, 3.5, 4.5]),
        "a": ([0, 1, 2], [3, 4, 5]),
        "b": ([0, 1, 2], [3, 3, 3]),
    }.items():
        np.testing.assert_array_equal(drawn[name], (steps, values))
    (band,) = ax.collections
    corners = band.get_paths()[0].vertices
    assert corners[:, 1].min() == 1
    assert corners[:, 1].max() == 6


def test_forecast_takes_dates(pyplot: Any) -> None:
    days = np.arange("2020-01-01", "2020-01-06", dtype="datetime64[D]")
    ax = plot.forecast([1.0, 2.0, 3.0], [4.0, 5.0], times=days)
    line = next(line for line in ax.get_lines() if line.get_label() == "forecast")
    np.testing.assert_array_equal(line.get_xdata(), days[2:])


@pytest.mark.parametrize(
    ("past", "forecasts", "options", "message"),
    [
        ([], [1.0], {}, "past is empty"),
        ([1.0], {}, {}, "forecasts is empty"),
        ([[1.0, 2.0]], [1.0], {}, "past has shape"),
        ([1.0], {"a": [1.0], "b": [1.0, 2.0]}, {}, r"forecasts\['b'\] has shape \(2,\)"),
        ([1.0], [1.0], {"actual": [1.0, 2.0]}, "actual has shape"),
        ([1.0], [1.0], {"band": ([0.0], [1.0, 2.0])}, r"band\[1\] has shape"),
        ([1.0], [1.0], {"band": [1.0]}, "band is"),
        ([1.0], [1.0], {"times": [1.0]}, r"times has shape \(1,\), expected \(2,\)"),
    ],
)
def test_bad_forecasts(past: Any, forecasts: Any, options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plot.forecast(past, forecasts, **options)


# Without matplotlib ----------------------------------------------------------------------------


def test_importing_does_not_import_matplotlib() -> None:
    code = "import sys, lstmcore; assert 'matplotlib' not in sys.modules, 'it was imported'"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_drawing_names_the_command_and_numbers_need_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    layer = lc.GRU(2, 3, seed=0)
    _, _, tape = layer.forward(X.astype("float32"))
    assert plot.gate_values(tape)
    assert len(plot.gradient_norms(layer, X)) == 7
    for draw in (
        lambda: plot.heat_map(np.zeros((2, 2))),
        lambda: plot.gates(tape),
        lambda: plot.gradient_flow({"GRU": layer}, X),
        lambda: plot.training(lc.History()),
        lambda: plot.forecast([1.0], [2.0]),
    ):
        with pytest.raises(ImportError, match=r'pip install "lstmcore\[train\]"'):
            draw()


# Networks -----------------------------------------------------------------------------------------


def network() -> Any:
    x, static = lc.Input(4), lc.Input(2, steps=False)
    y: Any = x
    for i in range(2):
        y = y + lc.GRU(4, 4, seed=i)(y)[0]
    y, h = lc.GRU(6, 4)(lc.concat([y, lc.repeat(static, like=y)]))
    shared = lc.Linear(4, 4)
    return lc.Model([x, static], {"y": shared(y) + x, "label": shared(h[-1])})


def test_the_nodes_of_a_network_and_where_they_stand() -> None:
    model = network()
    listed = nodes(model._plan, model._children)
    assert [node.name for node in listed] == [
        "x[0]", "x[1]", "gru", "binary", "gru_1", "binary (2)", "repeat", "concat", "gru_2",
        "linear", "binary (3)", "index", "linear (2)", "y['y']", "y['label']",
    ]  # fmt: skip
    assert [node.takes for node in listed] == [
        [], [], [0], [0, 2], [3], [3, 4], [1, 5], [5, 6], [7], [8], [9, 0], [8], [11], [10], [12],
    ]  # fmt: skip
    assert sum(node.parameters for node in listed) == model.num_parameters
    places, edges = layout(listed)
    assert len(set(places)) == len(listed)
    takers = [(i, source) for i, node in enumerate(listed) for source in node.takes]
    through: list[tuple[float, int]] = []
    for (i, source), edge in zip(takers, edges, strict=True):
        assert edge[0] == places[source]
        assert edge[-1] == places[i]
        levels = [level for _, level in edge]
        assert levels == list(range(levels[0], levels[-1] + 1))  # always one level down
        through += edge[1:-1]
    assert len(edges[takers.index((10, 0))]) > 5  # the path of x round everything
    # Nothing stands on anything else, and edges go through no node.
    every = [*places, *through]
    for level in range(max(level for _, level in places) + 1):
        row = sorted(across for across, one in every if one == level)
        assert all(b - a >= 1 - 1e-9 for a, b in itertools.pairwise(row))
    assert places[1][1] == places[6][1] - 1  # an input right above what takes it
    assert places[-1][1] == places[-2][1] == max(level for _, level in places)


def test_networks_are_drawn(pyplot: Any) -> None:
    model = network()
    ax = plot.network(model)
    texts = [text.get_text() for text in ax.texts if text.get_text()]
    assert len(texts) == 15
    assert "gru_2: GRU(6, 4)\n(T, B, 4), (1, B, 4)" in texts
    assert "a + b\n(T, B, 4)" in texts
    assert len(ax.lines) == 18
    _, own = pyplot.subplots()
    x = lc.Input(3)
    assert plot.network(lc.Model(x, lc.Linear(3, 2)(x)), own) is own
    ax.figure.canvas.draw()
    with pytest.raises(TypeError, match=r"(?s)model is .*, expected a lc\.Model"):
        plot.network(lc.Sequential(lc.Linear(3, 2)))


def test_forecast_takes_what_a_network_gives(pyplot: Any) -> None:
    """One feature as the last axis."""
    past, said = np.arange(4.0), np.arange(3.0)
    column = plot.forecast(
        past[:, None], said[:, None], actual=said[:, None], band=(said[:, None] - 1, said + 1)
    )
    alone = plot.forecast(past, said, actual=said, band=(said - 1, said + 1))
    for one, two in zip(column.get_lines(), alone.get_lines(), strict=True):
        np.testing.assert_array_equal(one.get_xydata(), two.get_xydata())
    with pytest.raises(ValueError, match=r"past has shape \(4, 2\), expected \(N,\) or \(N, 1\)"):
        plot.forecast(np.ones((4, 2)), said)


@pytest.mark.parametrize("hours", [8, 72, 1000])
def test_no_dates_of_a_forecast_overlap(pyplot: Any, hours: int) -> None:
    times = np.datetime64("2024-02-27T00") + np.arange(hours) * np.timedelta64(1, "h")
    _, axes = pyplot.subplots(1, 2, figsize=(9, 3))
    for ax in (None, *axes):
        drawn = plot.forecast(np.ones(hours - 3), np.ones(3), ax, times=times)
        drawn.figure.canvas.draw()
        boxes = [t.get_window_extent() for t in drawn.get_xticklabels() if t.get_text()]
        assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))


@pytest.mark.parametrize("count", [1, 4, 9])
def test_all_texts_of_a_training_plot_are_in_the_picture(pyplot: Any, count: int) -> None:
    history = lc.History()
    for epoch in range(1, 4):
        history.record(
            1 / epoch, 2 / epoch, {f"label_accuracy_{i}": 1.0 for i in range(count)}, 1, 1
        )
    ax = plot.training(history)
    ax.figure.canvas.draw()
    other = next(one for one in ax.figure.axes if one is not ax)
    whole = ax.figure.bbox
    for text in (ax.title, ax.yaxis.label, other.yaxis.label, *ax.get_legend().get_texts()):
        box = text.get_window_extent()
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1
