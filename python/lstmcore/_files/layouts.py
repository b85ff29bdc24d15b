"""How other libraries lay out the weights of recurrent layers: order of gates, axes, biases.

The one place that puts gates into another order. It imports NumPy alone. One library more is a line
in `LAYOUTS`, its name in the docstring of `convert_weights`, and a line in docs/weights.md.

Gates have one letter each: i, f, g, o (input, forget, candidate, output) of an LSTM; r, z, n
(reset, update, candidate) of a GRU; n of an RNN.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

__all__ = ["LAYOUTS", "OURS", "Layout", "convert_weights", "reordered"]

Array: TypeAlias = npt.NDArray[Any]
Blocks: TypeAlias = npt.ArrayLike | Sequence[npt.ArrayLike | None]


class Layout(NamedTuple):
    """The layout of a library; "" as the order of a cell that it does not have."""

    lstm: str  # the gates in their order
    gru: str
    rnn: str = "n"
    inputs_first: bool = False  # whether matrices are (inputs, G*H), for x @ W, or (G*H, inputs)
    z_of_new: bool = False  # whether h is (1 - z) h_prev + z n, or (1 - z) n + z h_prev
    forget_bias: float = 0.0  # what it adds to the forget gate when it runs, but has in no file

    def order(self, cell: str) -> str:
        """Return the order of the gates of "lstm", "gru" or "rnn"."""
        return str(getattr(self, cell))


OURS = Layout("ifgo", "rzn")
LAYOUTS: dict[str, Layout] = {
    "pytorch": OURS,
    "cudnn": OURS,
    "mxnet": OURS,
    "onnx": Layout("iofg", "zrn"),
    "openvino": Layout("figo", "zrn"),
    "caffe": Layout("ifog", ""),
    "keras": Layout("ifgo", "zrn", inputs_first=True),
    "tensorflow1": Layout("igfo", "rzn", inputs_first=True, forget_bias=1.0),
    "haiku": Layout("igfo", "zrn", inputs_first=True, z_of_new=True, forget_bias=1.0),
    "flax": Layout("ifgo", "rzn", inputs_first=True),
    "lasagne": Layout("ifgo", "rzn", inputs_first=True, z_of_new=True),
}


def reordered(array: Array, given: str, wanted: str, axis: int = 0) -> Array:
    """Return an array whose blocks along an axis, one for each gate, are in another order.

    Parameters
    ----------
    array : ndarray
        The axis has as many blocks of equal size as there are gates in `given`.
    given, wanted : str
        The gates by their letters. Those that are only given are left out, those that are only
        wanted are zeros.
    axis : int, default 0
        Along which the blocks follow one another.

    Raises
    ------
    ValueError
        If the axis has no such blocks.

    Examples
    --------
    >>> import numpy as np
    >>> reordered(np.array([1, 1, 2, 2, 3, 3, 4, 4]), "iofg", "ifgo")
    array([1, 1, 3, 3, 4, 4, 2, 2])
    """
    if given == wanted:
        return array
    axis %= array.ndim
    if array.shape[axis] % len(given):
        raise ValueError(
            f"an array of shape {array.shape} has no {len(given)} blocks, {', '.join(given)}, "
            f"along axis {axis}"
        )
    before, after = array.shape[:axis], array.shape[axis + 1 :]
    size = array.shape[axis] // len(given)
    blocks = array.reshape(*before, len(given), size, *after)
    result = blocks.take([max(given.find(gate), 0) for gate in wanted], axis)
    for at, gate in enumerate(wanted):
        if gate not in given:
            np.moveaxis(result, axis, 0)[at] = 0
    return result.reshape(*before, len(wanted) * size, *after)


def convert_weights(
    library: str,
    cell: str,
    *,
    kernel: Blocks | None = None,
    w_ih: Blocks | None = None,
    w_hh: Blocks | None = None,
    bias: Blocks | None = None,
    bias_hh: Blocks | None = None,
    peepholes: Sequence[npt.ArrayLike] | None = None,
    projection: npt.ArrayLike | None = None,
    forget_bias: float | None = None,
    suffix: str = "_l0",
) -> dict[str, Array]:
    """Return the state dict of a layer from the arrays of another library.

    Where a library has one array for each gate, or some of them together, any argument may be the
    list of them, in the order that docs/weights.md has for the library; None in it is zeros.

    Parameters
    ----------
    library : str
        Whose arrays they are: "caffe", "cudnn", "flax", "haiku", "keras", "lasagne", "mxnet",
        "onnx", "openvino", "pytorch" or "tensorflow1".
    cell : {"lstm", "gru", "rnn"}
        What they are of.
    kernel : array_like
        One matrix of the inputs and h, (I+H, G*H), in place of w_ih and w_hh.
    w_ih, w_hh : array_like
        The matrices of the inputs and of h, with their axes as the library has them.
    bias : array_like, (G*H,), optional
        The only bias, or that of the inputs.
    bias_hh : array_like, (G*H,), optional
        The bias of h.
    peepholes : list of three array_like, (H,), optional
        Of an LSTM, always in the order i, f, o.
    projection : array_like, (H, P) where kernels are (inputs, G*H), else (P, H), optional
        Of an LSTM.
    forget_bias : float, optional
        What the library adds to the forget gate when it runs. By default 1 for "tensorflow1" and
        "haiku", which do so unless told otherwise, and 0 for others.
    suffix : str, default "_l0"
        What the names of the parameters end with.

    Returns
    -------
    dict of str to ndarray
        For `load_state_dict`. There are biases only if one is given.

    Raises
    ------
    ValueError
        If the library or the cell is unknown, or arrays are missing or do not fit.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5)
    >>> kernel, bias = np.ones((3 + 5, 4 * 5), "float32"), np.zeros(4 * 5, "float32")
    >>> lstm.load_state_dict(lc.convert_weights("haiku", "lstm", kernel=kernel, bias=bias))
    IncompatibleKeys(missing_keys=[], unexpected_keys=[])
    """
    if library not in LAYOUTS:
        raise ValueError(f"library is {library!r}, expected one of {', '.join(LAYOUTS)}")
    layout = LAYOUTS[library]
    theirs = layout.order(cell) if cell in ("lstm", "gru", "rnn") else ""
    if not theirs:
        known = ", ".join(name for name in ("lstm", "gru", "rnn") if layout.order(name))
        raise ValueError(f"cell is {cell!r}, expected one of {known} of {library}")
    ours = OURS.order(cell)
    state = _matrices(layout, len(ours), kernel, w_ih, w_hh, projection)
    state |= _biases(bias, bias_hh, state["weight_ih"])
    state = {
        name: array if name == "weight_hr" else reordered(array, theirs, ours)
        for name, array in state.items()
    }
    H = len(state["weight_ih"]) // len(ours)
    if cell == "lstm":
        _add_to_forget_gate(state, layout.forget_bias if forget_bias is None else forget_bias, H)
    if cell == "gru" and layout.z_of_new:
        for name, array in state.items():  # 1 - sigmoid(a) is sigmoid(-a)
            state[name] = np.concatenate([array[:H], -array[H : 2 * H], array[2 * H :]])
    if peepholes is not None:
        state["weight_ch"] = np.stack([_array(p, "peepholes") for p in peepholes])
    return {name + suffix: array for name, array in state.items()}


def _matrices(
    layout: Layout, gates: int, kernel: Any, w_ih: Any, w_hh: Any, projection: Any
) -> dict[str, Array]:
    """Return matrices, (G*H, inputs), gates still in the library's order; and the projection."""
    if (kernel is None) == (w_ih is None) or (w_ih is None) != (w_hh is None):
        raise ValueError("kernel, w_ih and w_hh: expected kernel alone, or the two others")
    state = {} if projection is None else {"weight_hr": _array(projection, "projection")}
    if kernel is None:
        state |= {"weight_ih": _joined(w_ih, layout, "w_ih")}
        state |= {"weight_hh": _joined(w_hh, layout, "w_hh")}
    else:
        state["kernel"] = _joined(kernel, layout, "kernel")
    for name, array in state.items():
        if array.ndim != 2:
            raise ValueError(f"{name} has shape {array.shape}, expected two axes")
        state[name] = array.T if layout.inputs_first else array
    if kernel is not None:
        whole = state.pop("kernel")
        outputs = len(state["weight_hr"]) if state else len(whole) // gates
        inputs = whole.shape[1] - outputs
        state |= {"weight_ih": whole[:, :inputs], "weight_hh": whole[:, inputs:]}
    return state


def _biases(bias: Any, bias_hh: Any, weight: Array) -> dict[str, Array]:
    """Return both biases, zeros for one that is not given; nothing if neither is."""
    if bias is None and bias_hh is None:
        return {}
    zeros = np.zeros(len(weight), weight.dtype)
    return {
        "bias_ih": zeros if bias is None else _joined(bias, OURS, "bias"),
        "bias_hh": zeros if bias_hh is None else _joined(bias_hh, OURS, "bias_hh"),
    }


def _add_to_forget_gate(state: dict[str, Array], number: float, H: int) -> None:
    if number:
        zeros = np.zeros(len(state["weight_ih"]), state["weight_ih"].dtype)
        bias = state.get("bias_ih", zeros).copy()
        bias[H : 2 * H] += number
        state |= {"bias_ih": bias, "bias_hh": state.get("bias_hh", zeros)}


def _joined(blocks: Any, layout: Layout, name: str) -> Array:
    """Return one array for all gates, of one or of a list in which None is zeros."""
    if not isinstance(blocks, (list, tuple)):
        return _array(blocks, name)
    given = [None if block is None else _array(block, name) for block in blocks]
    some = next((block for block in given if block is not None), None)
    if some is None:
        raise ValueError(f"{name} is a list of nothing, expected arrays")
    axis = -1 if layout.inputs_first else 0
    return np.concatenate([np.zeros_like(some) if b is None else b for b in given], axis)


def _array(value: Any, name: str) -> Array:
    array = np.asarray(value)
    if array.dtype.kind != "f":
        raise ValueError(f"{name} is {array.dtype}, expected real numbers")
    return array
