"""Looking inside: networks, gates and cells, how far gradients reach, training curves, forecasts.

Whatever is drawn is computed by functions of their own (`gate_values`, `gradient_norms`,
`gradient_bound`), which need no matplotlib. Those that draw take the axes to draw on, make some if
they get none, and return them: titles, limits and ``ax.figure.savefig`` are yours. New ones have
the style of this library; `use_style` takes it for all pictures.
"""

from __future__ import annotations

import copy
import textwrap
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ._base import checks
from ._base.checks import Array
from ._base.module import Module
from ._network.model import Model
from ._network.summary import Node, layout, nodes
from ._nn.layers import RNN, Layer
from ._nn.tape import Tape
from ._public.publish import publish

if TYPE_CHECKING:
    from ._train.history import History

__all__ = [
    "forecast",
    "gate_values",
    "gates",
    "gradient_bound",
    "gradient_flow",
    "gradient_norms",
    "heat_map",
    "network",
    "training",
    "use_style",
]


_IN_LOGISTIC_RANGE = ("i", "f", "o", "r", "z")  # gates, whose activation is a sigmoid by default
_TITLES = {
    "i": "input gate i",
    "f": "forget gate f",
    "g": "candidate g",
    "o": "output gate o",
    "c": "cell c",
    "r": "reset gate r",
    "z": "update gate z",
    "n": "candidate n",
}
_STYLE = "lstmcore.plot"  # plot.mplstyle, as matplotlib finds it
_WIDTH = 80  # characters of a legend in a new figure


def gate_values(
    tape: Tape, *, row: int = 0, layer: int = 0, length: int | None = None
) -> dict[str, Array]:
    """Return every gate of one sequence, and its cells.

    Parameters
    ----------
    tape : Tape
        From `forward` of an LSTM or a GRU; in a Sequential, one of ``tape.tapes``.
    row : int, default 0
        Which row of the batch.
    layer : int, default 0
        Which layer or, with two directions, 2 * layer + direction.
    length : int, optional
        Steps of that row, if its batch had lengths; all by default.

    Returns
    -------
    dict of str to ndarray (T, H)
        i, f, g, o (f only if it is learned) and the cells c of an LSTM; r, z, n of a GRU.

    Raises
    ------
    TypeError, ValueError
        If the tape is not one of such a layer, or has no such row, layer or length.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> gru = lc.GRU(2, 3, seed=0)
    >>> _, _, tape = gru.forward(np.ones((5, 4, 2), dtype="float32"))
    >>> {name: values.shape for name, values in lc.plot.gate_values(tape, row=3).items()}
    {'r': (5, 3), 'z': (5, 3), 'n': (5, 3)}
    """
    arrays = tape.gates() if isinstance(tape, Tape) and tape._owner._gives_state else {}
    if not arrays:
        what = checks.describe(tape)
        raise TypeError(
            f"tape is {what}, expected one of an LSTM or GRU (of a Sequential, in tape.tapes)"
        )
    shapes = tape._call_shapes
    if "c" in tape._owner._state_parts:
        arrays["c"] = tape.cells()
    layers = next(iter(arrays.values())).shape[0]
    for name, index, count in (("row", row, shapes.batch), ("layer", layer, layers)):
        if checks.integer(index, name, 0) >= count:
            raise ValueError(f"{name} is {index}, expected 0 to {count - 1}")
    length = shapes.time if length is None else checks.integer(length, "length", 0)
    if length > shapes.time:
        raise ValueError(f"length is {length}, expected 0 to {shapes.time}, the time steps of x")
    of_row: Any = (layer, slice(length))
    if not shapes.removed_axes:
        of_row = (layer, row, slice(length)) if shapes.batch_first else (layer, slice(length), row)
    return {name: values[of_row] for name, values in arrays.items()}


def heat_map(
    values: npt.ArrayLike,
    ax: Any = None,
    *,
    limits: tuple[float, float] | None = None,
    label: str = "",
) -> Any:
    """Draw values over time, time from left to right, a line per unit.

    Parameters
    ----------
    values : array (T, H)
        Values of H units at T steps.
    ax : matplotlib Axes, optional
        Where to draw; new ones by default.
    limits : (float, float), optional
        What the ends of the colours stand for; by default plus and minus the largest value.
    label : str, optional
        What is drawn.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If `values` is not (T, H).
    ImportError
        If there is no matplotlib.

    Examples
    --------
    >>> import lstmcore as lc
    >>> ax = lc.plot.heat_map([[0.0, 1.0], [0.5, -1.0], [1.0, 0.0]])  # doctest: +SKIP
    """
    array = np.asarray(values, dtype=float)
    if array.ndim != 2:
        raise ValueError(f"values has shape {array.shape}, expected (T, H)")
    ax = _axes(ax)
    if limits is None:
        largest = float(np.abs(array).max(initial=0)) or 1.0
        limits = (-largest, largest)
    low, high = limits
    image = ax.imshow(
        array.T,
        aspect="auto",
        interpolation="nearest",
        origin="lower",
        vmin=low,
        vmax=high,
        cmap="RdBu_r" if low < 0 else "viridis",
    )
    ax.figure.colorbar(image, ax=ax)
    ax.set_xlabel("step")
    ax.set_ylabel("unit")
    ax.set_title(label)
    return ax


def gates(
    tape: Tape, axes: Any = None, *, row: int = 0, layer: int = 0, length: int | None = None
) -> Any:
    """Draw every gate of one sequence, and its cells, as heat maps below each other.

    Parameters
    ----------
    tape, row, layer, length
        As of `gate_values`.
    axes : sequence of matplotlib Axes, optional
        One for each of what `gate_values` returns; a new figure by default.

    Returns
    -------
    ndarray of Axes

    Raises
    ------
    TypeError, ValueError
        As `gate_values`, or if there are not as many axes as gates.
    ImportError
        If there is no matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(2, 3, seed=0)
    >>> _, _, tape = lstm.forward(np.ones((5, 1, 2), dtype="float32"))
    >>> axes = lc.plot.gates(tape)  # doctest: +SKIP
    >>> axes[0].figure.savefig("gates.png")  # doctest: +SKIP
    """
    values = gate_values(tape, row=row, layer=layer, length=length)
    if axes is None:
        axes = _new_axes((7, 1.4 * len(values)), nrows=len(values), sharex=True, squeeze=False)
    axes = np.asarray(axes).ravel()
    if len(axes) != len(values):
        raise ValueError(f"axes has {len(axes)} of them, expected {len(values)}: {[*values]}")
    for ax, (name, array) in zip(axes, values.items()):
        logistic = name in _IN_LOGISTIC_RANGE and array.min(initial=0) >= 0
        heat_map(array, ax, limits=(0, 1) if logistic else None, label=_TITLES[name])
        ax.label_outer()
    return axes


def gradient_norms(layer: Layer[Any], x: npt.ArrayLike) -> Array:
    """Compute how the last output depends on the state some steps earlier.

    Parameters
    ----------
    layer : RNN, LSTM or GRU
        Reading forward; it may be stacked.
    x : array_like (T, I)
        One sequence.

    Returns
    -------
    ndarray (T + 1,), float64
        For every lag k the largest singular value of the Jacobian dh_T / ds_{T-k}, where the state
        s is h and, of an LSTM, c, of all layers. It says how long the gradient of a loss at the end
        can at most become on its way back. At lag 0 it is 1.

    Raises
    ------
    TypeError, ValueError
        If `layer` is none or does not read forward only, or x does not fit it.

    Notes
    -----
    S. Hochreiter, "Untersuchungen zu dynamischen neuronalen Netzen", diploma thesis, 1991;
    Y. Bengio, P. Simard, P. Frasconi, "Learning long-term dependencies with gradient descent is
    difficult", IEEE Transactions on Neural Networks 5, 1994. The gradients of the layer's own
    parameters stay as they are.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> norms = lc.plot.gradient_norms(lc.LSTM(1, 8, seed=0), np.zeros((20, 1)))
    >>> norms.shape, bool(norms[20] < 1e-3 < norms[0] == 1)
    ((21,), True)
    """
    if not isinstance(layer, Module) or not layer._gives_state:
        raise TypeError(f"layer is {checks.describe(layer)}, expected an RNN, LSTM or GRU")
    if layer._needs_whole_sequence:
        raise ValueError(f"layer is {layer!r}, expected one that reads forward only")
    sequence = checks.real(x, layer.dtype, "x", cast=True)
    if sequence.ndim != 2 or sequence.shape[1] != layer.input_size:
        expected = f"(T, {layer.input_size}), one sequence"
        raise ValueError(f"x has shape {sequence.shape}, expected {expected}")
    layer = copy.deepcopy(layer)  # backward adds to the gradients of the copy
    # A batch of copies of the sequence, each with the gradient of one unit of the last output.
    units = layer._features
    time_axis = int(layer.batch_first)
    state, tapes = None, []
    for step in sequence:
        copies = np.expand_dims(np.tile(step, (units, 1)), time_axis)
        _, state, tape = layer.forward(copies, state)
        tapes.append(tape)
    dh = np.zeros((layer.num_layers, units, units), layer.dtype)
    dh[-1] = np.eye(units)
    dstate: Any = (dh, None) if len(layer._state_parts) == 2 else dh
    norms = [1.0]
    for tape in reversed(tapes):
        _, dstate = layer.backward(tape, None, dstate)
        parts = dstate if isinstance(dstate, tuple) else (dstate,)
        jacobian = np.concatenate([np.concatenate(list(part), axis=-1) for part in parts], axis=-1)
        norms.append(float(np.linalg.norm(jacobian.astype(np.float64), ord=2)))
    return np.array(norms)


def gradient_bound(rnn: RNN, steps: int) -> Array:
    """Compute what `gradient_norms` of a simple RNN cannot exceed, whatever it reads.

    It is (m s)^k at lag k, where m is the largest slope of the nonlinearity and s the largest
    singular value of W_hh: below 1 the gradient must vanish. (Above 1 it may explode.)

    Parameters
    ----------
    rnn : RNN
        Of one layer.
    steps : int
        The largest lag, T.

    Returns
    -------
    ndarray (T + 1,), float64

    Raises
    ------
    TypeError, ValueError
        If it is not an RNN of one layer that reads forward only, or steps is negative.

    Notes
    -----
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013, section 2.1.

    Examples
    --------
    >>> import lstmcore as lc
    >>> rnn = lc.RNN(1, 2, seed=0)
    >>> dict(rnn.named_parameters())["weight_hh_l0"].data[...] = [[0.5, 0], [0, 0.1]]
    >>> lc.plot.gradient_bound(rnn, 3)
    array([1.   , 0.5  , 0.25 , 0.125])
    """
    if not isinstance(rnn, RNN):
        raise TypeError(f"rnn is {checks.describe(rnn)}, expected an RNN")
    if rnn.num_layers > 1 or rnn.bidirectional or rnn.reverse:
        raise ValueError(f"rnn is {rnn!r}, expected one layer that reads forward only")
    steps = checks.integer(steps, "steps", 0)
    weight = dict(rnn.named_parameters())["weight_hh_l0"].data.astype(np.float64)
    factor = _largest_slope(rnn.nonlinearity) * float(np.linalg.norm(weight, ord=2))
    with np.errstate(over="ignore"):
        return np.asarray(factor ** np.arange(steps + 1, dtype=np.float64))


_LARGEST_SLOPE = {
    "sigmoid": 0.25,
    "tanh": 1.0,
    "relu": 1.0,
    "softsign": 1.0,
    "identity": 1.0,
    "thresholded_relu": 1.0,
    "selu": 1.7580993408473766,  # just below 0
    "softplus": 1.0,
    "exponential": np.inf,
    "gelu": 1.1289041451851548,  # at the square root of 2
    "silu": 1.0998393201288669,
    "mish": 1.0884981611725179,
    "hard_silu": 1.5,  # just below 3
}


def _largest_slope(nonlinearity: checks.Activation) -> float:
    kind, *numbers = (nonlinearity,) if isinstance(nonlinearity, str) else nonlinearity
    if kind == "scaled_tanh":
        return abs(numbers[0] * numbers[1])
    if kind in ("hard_sigmoid", "affine"):
        return abs(numbers[0])
    if kind in ("leaky_relu", "elu"):
        return max(1.0, numbers[0])
    return _LARGEST_SLOPE[kind]


def gradient_flow(layers: Mapping[str, Layer[Any]], x: npt.ArrayLike, ax: Any = None) -> Any:
    """Draw `gradient_norms` of layers against the lag, with `gradient_bound` where it holds.

    Parameters
    ----------
    layers : dict of str to RNN, LSTM or GRU
        By the names to draw.
    x : array_like (T, I)
        One sequence, which all of them read.
    ax : matplotlib Axes, optional
        Where to draw; new ones by default.

    Returns
    -------
    Axes

    Raises
    ------
    TypeError, ValueError
        As `gradient_norms`.
    ImportError
        If there is no matplotlib.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> layers = {"RNN": lc.RNN(1, 8, seed=0), "LSTM": lc.LSTM(1, 8, forget_bias=1, seed=0)}
    >>> ax = lc.plot.gradient_flow(layers, np.ones((50, 1)))  # doctest: +SKIP
    """
    if not isinstance(layers, Mapping):
        raise TypeError(f"layers is {checks.describe(layers)}, expected a dict of them by name")
    norms = {name: gradient_norms(layer, x) for name, layer in layers.items()}
    ax = _axes(ax, "How far back gradients reach")
    for name, of_layer in norms.items():
        (line,) = ax.plot(of_layer, label=name)
        layer = layers[name]
        if isinstance(layer, RNN) and layer.num_layers == 1:
            bound = gradient_bound(layer, len(of_layer) - 1)
            ax.plot(bound, "--", color=line.get_color(), label=f"bound of {name}")
    ax.set_yscale("log")
    ax.set_xlabel("lag k, in steps")
    ax.set_ylabel("norm of the Jacobian, $\\|\\partial h_T / \\partial s_{T-k}\\|$")
    ax.legend()
    return ax


def network(model: Module, ax: Any = None) -> Any:
    """Draw a network: its inputs, calls and outputs, from top to bottom.

    Parameters
    ----------
    model : Model
        Of a Sequential, take ``lc.Model(x, sequential(x))``.
    ax : matplotlib Axes, optional
        Where to draw; new ones, as large as the network needs, by default.

    Returns
    -------
    matplotlib Axes

    Raises
    ------
    TypeError
        If `model` is no Model.
    ImportError
        Without matplotlib.

    Examples
    --------
    >>> import lstmcore as lc
    >>> x = lc.Input(8)
    >>> y, _ = lc.GRU(8, 8)(lc.LayerNorm(8)(x))
    >>> ax = lc.plot.network(lc.Model(x, x + y))  # doctest: +SKIP
    """
    if not isinstance(model, Model):
        what = checks.describe(model)
        raise TypeError(f"model is {what}, expected a lc.Model")
    listed = nodes(model._plan, model._children)
    places, edges = layout(listed)
    if ax is None:
        right = [point[0] for edge in edges for point in edge] or [0.0]
        wide, high = max(right) - min(right) + 1, max(level for _, level in places) + 1
        ax = _new_axes((2.4 * wide, 0.8 * high))
    for edge in edges:
        *bends, end = edge
        ax.plot(*zip(*edge, strict=True), color="0.6", linewidth=1, zorder=1)
        arrow = {"arrowstyle": "-|>", "color": "0.6", "shrinkA": 0, "shrinkB": 16}
        ax.annotate("", end, bends[-1], arrowprops=arrow, zorder=1)
    for node, (across, level) in zip(listed, places, strict=True):
        colour = "#dbe9f6" if node.parameters else "white" if node.module else "#fdebd0"
        box = {"boxstyle": "round,pad=0.4", "facecolor": colour, "edgecolor": "0.4"}
        ax.text(
            across, level, _label(node), ha="center", va="center", fontsize=7, bbox=box, zorder=2
        )
    ax.margins(0.15)
    ax.invert_yaxis()
    ax.set_axis_off()
    return ax


def _label(node: Node) -> str:
    """Return what a drawing says of a node: the operation, or the module below its name."""
    first = node.name
    if node.module:
        named = "(" in node.module  # an operation's text is short
        module = textwrap.shorten(node.module, 44, placeholder=" ...)")
        first = f"{node.name}: {module}" if named else module
    return "\n".join([*textwrap.wrap(first, 30), node.gives])


def training(history: History, ax: Any = None) -> Any:
    """Draw the losses of a run of `fit` over its epochs and, on an axis at the right, its metrics.

    A dotted line marks the best epoch, `History.best_epoch`.

    Parameters
    ----------
    history : History
        What `fit` returned.
    ax : matplotlib Axes, optional
        Where to draw; new ones by default.

    Returns
    -------
    Axes
        Of the losses.

    Raises
    ------
    ImportError
        If there is no matplotlib.

    Examples
    --------
    >>> import lstmcore as lc
    >>> history = lc.History()
    >>> history.record(0.5, 0.6, {"accuracy": 0.75}, 1e-3, 2.0)
    >>> ax = lc.plot.training(history)  # doctest: +SKIP
    """
    if ax is not None:
        _draw_training(history, ax, {})
        return ax
    ax = _axes(None, "Training")
    with _pyplot().style.context(_STYLE):
        names = ["best epoch, 10", "validation loss", *history.metrics]
        _draw_training(history, ax, _below(names))
    return ax


def _below(names: Iterable[str]) -> dict[str, Any]:
    """Return where a legend is below the axes of a new figure, where it hides nothing."""
    columns = _WIDTH // (max(map(len, names)) + 5)
    return {
        "loc": "upper center", "bbox_to_anchor": (0.5, -0.16), "ncols": min(max(columns, 1), 4),
    }  # fmt: skip


def _draw_training(history: History, ax: Any, where: dict[str, Any]) -> None:
    epochs = range(1, history.epochs + 1)
    ax.plot(epochs, history.losses, label="training loss")
    if history.validation_losses:
        ax.plot(epochs, history.validation_losses, label="validation loss")
    if history.epochs > 1:
        best = history.best_epoch
        ax.axvline(best, linestyle=":", color="0.5", label=f"best epoch, {best}")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("loss")
    lines = [*ax.get_lines()]
    if history.metrics:
        from matplotlib.colors import to_hex

        other = ax.twinx()
        for i, (name, values) in enumerate(history.metrics.items()):
            lines += other.plot(epochs, values, "--", color=to_hex(f"C{i + 2}"), label=name)
        other.set_ylabel("metrics" if len(history.metrics) > 1 else next(iter(history.metrics)))
        other.spines["right"].set_visible(True)
        ax.set_zorder(other.get_zorder() + 1)  # so that no line crosses the legend
        ax.patch.set_visible(False)
    ax.legend(handles=lines, **where)


def forecast(
    past: npt.ArrayLike,
    forecasts: npt.ArrayLike | Mapping[str, npt.ArrayLike],
    ax: Any = None,
    *,
    actual: npt.ArrayLike | None = None,
    band: tuple[npt.ArrayLike, npt.ArrayLike] | None = None,
    times: npt.ArrayLike | None = None,
) -> Any:
    """Draw a series and what was predicted to follow it.

    Parameters
    ----------
    past : array (N,) or (N, 1)
        The series up to where the forecast begins; at least one value.
    forecasts : array (M,) or (M, 1), or dict of str to such arrays
        What follows, by one model or by several of these names.
    ax : matplotlib Axes, optional
        Where to draw; new ones by default.
    actual : array (M,), optional
        What did follow.
    band : (array (M,), array (M,)), optional
        Lower and upper end of where the series is expected.
    times : array (N + M,), optional
        Times of all values, numbers or dates; steps from the end of the past by default.

    Returns
    -------
    Axes

    Raises
    ------
    ValueError
        If the shapes do not fit each other.
    ImportError
        If there is no matplotlib.

    Examples
    --------
    >>> import lstmcore as lc
    >>> naive = {"naive": [4.0, 4.0], "drift": [5.0, 6.0]}
    >>> ax = lc.plot.forecast([2.0, 3.0, 4.0], naive, actual=[5.0, 5.0])  # doctest: +SKIP
    """
    before = _series(past, "past", None)
    if not len(before):
        raise ValueError("past is empty, expected at least one value")
    if not isinstance(forecasts, Mapping):
        forecasts = {"forecast": forecasts}
    if not forecasts:
        raise ValueError("forecasts is empty, expected at least one")
    predicted: dict[str, Array] = {}
    steps: int | None = None
    for name, values in forecasts.items():
        predicted[name] = _series(values, f"forecasts[{name!r}]", steps)
        steps = len(predicted[name])
    followed = None if actual is None else _series(actual, "actual", steps)
    ends = None
    if band is not None:
        if not isinstance(band, (tuple, list)) or len(band) != 2:
            raise ValueError(f"band is {checks.describe(band)}, expected a pair (lower, upper)")
        ends = [_series(end, f"band[{i}]", steps) for i, end in enumerate(band)]
    count = len(before) + len(next(iter(predicted.values())))
    when = np.arange(count) - (len(before) - 1) if times is None else np.asarray(times)
    if when.shape != (count,):
        raise ValueError(f"times has shape {when.shape}, expected ({count},), past and forecast")

    lines = _Forecast(before, predicted, followed, ends, when, "step" if times is None else "time")
    if ax is not None:
        _draw_forecast(lines, ax, {})
        return ax
    ax = _axes(None, "Forecast")
    with _pyplot().style.context(_STYLE):
        _draw_forecast(lines, ax, _below(["expected range", *predicted]))
    return ax


class _Forecast(NamedTuple):
    """What `forecast` draws."""

    past: Array
    predicted: dict[str, Array]
    followed: Array | None
    band: list[Array] | None
    when: npt.NDArray[Any]
    unit: str


def _draw_forecast(lines: _Forecast, ax: Any, where: dict[str, Any]) -> None:
    past, when = lines.past, lines.when
    ax.plot(when[: len(past)], past, color="black", label="past")
    # Everything that follows starts at the last known value, so that no line begins in the air.
    later = when[len(past) - 1 :]
    if lines.band is not None:
        lower, upper = (np.insert(end, 0, past[-1]) for end in lines.band)
        ax.fill_between(later, lower, upper, alpha=0.2, label="expected range")
    if lines.followed is not None:
        ax.plot(later, np.insert(lines.followed, 0, past[-1]), ":", color="black", label="actual")
    for name, values in lines.predicted.items():
        ax.plot(later, np.insert(values, 0, past[-1]), label=name)
    ax.axvline(when[len(past) - 1], color="gray", linewidth=0.8)
    _make_room(ax)
    ax.set_xlabel(lines.unit)
    ax.legend(**where)


def _make_room(ax: Any) -> None:
    """Let dates below the axes be as short and as few as their width needs."""
    from matplotlib import dates as untyped

    dates: Any = untyped
    if isinstance(ax.xaxis.get_major_formatter(), dates.AutoDateFormatter):
        inches = ax.get_window_extent().width / ax.figure.dpi
        locator = dates.AutoDateLocator(minticks=3, maxticks=max(3, int(inches / 0.65)))
        ax.xaxis.set_major_locator(locator)
        ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _series(values: npt.ArrayLike, name: str, steps: int | None) -> Array:
    array = np.asarray(values, dtype=np.float64)
    if array.ndim == 2 and array.shape[1] == 1:  # as a network gives one row of a batch
        array = array[:, 0]
    if array.ndim != 1 or steps not in (None, len(array)):
        expected = "(N,) or (N, 1)" if steps is None else f"({steps},), as the first forecast"
        raise ValueError(f"{name} has shape {array.shape}, expected {expected}")
    return array


def use_style() -> None:
    """Take the style of this library for all pictures of matplotlib from here on.

    It is that of `lstmcore.plot`, of the examples and of the documentation: colours that people
    with any kind of colour vision tell apart, 200 dots per inch in files. The same as
    ``matplotlib.pyplot.style.use("lstmcore.plot")``.

    Raises
    ------
    ImportError
        If there is no matplotlib: call it before what takes long.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.plot.use_style()  # doctest: +SKIP
    """
    _pyplot().style.use(_STYLE)


def _axes(ax: Any, title: str = "") -> Any:
    """Return the axes to draw on: those given, or new ones, which get the title."""
    if ax is None:
        ax = _new_axes(None)
        ax.set_title(title)
    return ax


def _new_axes(size: tuple[float, float] | None, **options: Any) -> Any:
    """Return axes of a new figure in our style, of so many inches."""
    pyplot = _pyplot()
    with pyplot.style.context(_STYLE):
        return pyplot.subplots(figsize=size, **options)[1]


def _pyplot() -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError('plotting needs matplotlib: pip install "lstmcore[train]"') from error
    return pyplot


publish(globals())
