"""The layers: RNN, LSTM and GRU over sequences.

Sizes: T steps, B rows, I inputs, H hidden units; L = num_layers, D = 2 if bidirectional else 1,
P = proj_size or H.

**States are (L*D, B, P) and (L*D, B, H) whatever batch_first says**, as in PyTorch: layer 0
forward, layer 0 reverse, layer 1 forward and so on. Only x, y and resets change their axes.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import numpy as np
import numpy.typing as npt

from .. import _core
from .._base import checks
from .._base.checks import Activation, Array
from .._base.flow import BackwardFlow, Flow
from .._base.module import storable
from .._base.state_names import sizes_of
from .._base.symbolic import Axes, Symbolic
from .config import Option, Zoneout
from .recurrent import GRADIENT, Pair, PairLike, Recurrent, State
from .streams.pool import StreamPool, open_pool
from .streams.stream import Stream, open_stream
from .tape import CallShapes, Tape

__all__ = ["GRU", "LSTM", "RNN", "Layer"]

Own = TypeVar("Own", bound="Layer[Any]")


class Layer(Recurrent[State]):
    """What RNN, LSTM and GRU share: sequences in, sequences out."""

    _knows_time = True
    _gives_state = True
    _applies_own = False
    num_layers = Option[int]()
    batch_first = Option[bool]()
    dropout = Option[float]()
    input_dropout = Option[float]()
    recurrent_dropout = Option[float]()
    weight_dropout = Option[float]()
    bidirectional = Option[bool]()
    reverse = Option[bool]()
    merge = Option[str]()

    def __init__(self, given: Mapping[str, Any]) -> None:
        super().__init__(given)
        config = self._config
        if config.dropout and config.num_layers == 1:
            warnings.warn(
                f"dropout={config.dropout} has no effect with num_layers=1: it acts between layers",
                stacklevel=4,
            )

    @classmethod
    def from_state_dict(
        cls: type[Own], arrays: Mapping[str, Any], prefix: str = "", **options: Any
    ) -> Own:
        """Make a layer of the sizes that the parameters in a state dict have, with these.

        Parameters
        ----------
        arrays : mapping of str to array_like
            With PyTorch's names, as `state_dict`, PyTorch's own and `load_torch` give them.
        prefix : str, default ""
            What the names of the layer begin with; others belong to somebody else.
        **options
            What shapes do not tell, such as ``batch_first``, ``dropout``, ``nonlinearity``,
            ``reset_after``, ``merge``, ``coupled``; as of the class.

        Returns
        -------
        layer
            Its input_size, hidden_size, num_layers, bidirectional, bias, proj_size, peephole and
            layer_norm are read off; in float64 if weight_ih_l0 is, else in float32.

        Raises
        ------
        ValueError
            If the names and shapes are not those of such a layer.
        TypeError
            If `arrays` is no mapping, or an option is given that the shapes tell.

        Examples
        --------
        >>> import lstmcore as lc
        >>> model = lc.Sequential(lc.Embedding(9, 3), lc.LSTM(3, 5, 2, bidirectional=True))
        >>> lc.LSTM.from_state_dict(model.state_dict(), prefix="1.", batch_first=True)
        LSTM(3, 5, num_layers=2, batch_first=True, bidirectional=True)
        """
        if not isinstance(arrays, Mapping):
            raise TypeError(f"arrays is {checks.describe(arrays)}, expected a mapping")
        for wrapper in ("module.", "_orig_mod."):  # of DataParallel and torch.compile
            wrapped = arrays and all(str(name).startswith(wrapper) for name in arrays)
            if wrapped and not prefix.startswith(wrapper):
                arrays = {str(n).removeprefix(wrapper): value for n, value in arrays.items()}
        sizes = sizes_of(cls._kind, arrays, prefix)
        twice = sorted(sizes.keys() & options.keys())
        if twice:
            raise TypeError(f"{', '.join(twice)}: what is read off the shapes cannot be given")
        dtype = str(getattr(arrays[f"{prefix}weight_ih_l0"], "dtype", ""))
        options.setdefault("dtype", "float64" if dtype.endswith("float64") else "float32")
        layer = cls(**sizes, **options)
        layer.load_state_dict(arrays, prefix=prefix)
        return layer

    @property
    def _needs_whole_sequence(self) -> bool:  # type: ignore[override]
        return self.bidirectional or self.reverse

    @property
    def _takes_lookup(self) -> bool:  # type: ignore[override]
        # A row of a table has no mask of its own, and what is normalised is kept for each step.
        return not (self._config.input_dropout or self._config.layer_norm)

    @property
    def _input_size(self) -> int:
        return self._inputs

    def _output_size(self, size: int | None) -> int:
        return self._features

    def _shapes_of_call(self, x: tuple[int, ...]) -> CallShapes:
        inputs, batch_first = self._inputs, self._config.batch_first
        if len(x) not in (2, 3) or x[-1] != inputs:
            axes = "B, T" if batch_first else "T, B"
            raise ValueError(f"x has shape {x}, expected ({axes}, {inputs}) or (T, {inputs})")
        y = (*x[:-1], self._features)
        h: tuple[int, ...]
        c: tuple[int, ...]
        if len(x) == 2:
            time, _ = x
            h, c = (self._states, self._outputs), (self._states, self._hidden)
            text = "(num_layers*D, {})"
            removed = (slice(None), slice(None), 0)
            return CallShapes(x, y, h, c, text, (time, 1), False, time, 1, removed)
        first, second, _ = x
        time, batch = (second, first) if batch_first else (first, second)
        h, c = (self._states, batch, self._outputs), (self._states, batch, self._hidden)
        text = "(num_layers*D, B, {})"
        return CallShapes(x, y, h, c, text, (first, second), batch_first, time, batch, ())

    def forward(
        self,
        x: npt.ArrayLike,
        state: Any = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
        recompute: bool = False,
    ) -> tuple[Array, State, Tape]:
        """Run with dropout and zoneout, and remember what `backward` needs.

        Parameters
        ----------
        x, state, lengths, resets
            As when the layer is called.
        recompute : bool, default False
            Whether to remember only about sqrt(T) states and compute the rest a second time in
            `backward`: the memory of sqrt(T) steps for a third more time, and the same bits. For
            layers that read forward only.

        Returns
        -------
        y, state
            As when the layer is called. y is read-only, because the tape shares it.
        tape : Tape
            For `backward`. It keeps x, as a copy unless that is read-only.

        Raises
        ------
        ValueError, TypeError
            If an argument has another shape, dtype or range than it should; it is named.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> gru = lc.GRU(2, 3, dtype="float64", seed=0)
        >>> y, h, tape = gru.forward(np.ones((5, 1, 2)))
        >>> dx, dh0 = gru.backward(tape, np.ones_like(y))
        >>> dx.shape, dh0.shape, gru.parameters()[0].grad.shape
        ((5, 1, 2), (1, 1, 3), (9, 2))
        """
        if checks.boolean(recompute, "recompute") and (self.bidirectional or self.reverse):
            raise ValueError(
                f"recompute is True, expected False for a layer that reads backwards: {self!r}"
            )
        y, final, tape = self._forward(x, state, True, lengths, resets, recompute=recompute)
        return y, final, cast(Tape, tape)

    def _infer(self, x: Any, state: Any, lengths: Any, resets: Any) -> tuple[Array, State]:
        """Return y and the final state; what is as it should be goes straight to the core."""
        result: tuple[Array, State] | None
        if isinstance(x, Symbolic):
            made: tuple[Array, State] = x._enter(self, (x, state), lengths, resets)
            return made
        weights = None
        if lengths is None and resets is None:
            try:
                weights = self._weights(False)
                result = _core.infer(weights, x, state, self._batch_first)
                if result is not None:
                    return result
            except MemoryError:
                pass  # the longer way below says in its message what is too large
        y, final, _ = self._forward(x, state, False, lengths, resets, weights=weights)
        return y, final

    def backward(
        self, tape: Tape, dy: npt.ArrayLike | None, dstate: Any = None
    ) -> tuple[Array, State]:
        """Backpropagate through time, all of it: add to every parameter's gradient.

        Parameters
        ----------
        tape : Tape
            From `forward` of this very layer.
        dy : array_like, shaped like y, or None
            Gradient with respect to y; None for zeros.
        dstate : like the state, optional
            Gradient with respect to the final state; None, also inside a pair, for zeros.

        Returns
        -------
        dx : ndarray, shaped like x
            Gradient with respect to x; 0 past the end of a row.
        dstate : like the state
            Gradient with respect to the initial state.

        Raises
        ------
        ValueError, TypeError
            If the tape is of another layer, or a gradient has another shape or dtype; those of the
            parameters are not changed then.
        """
        return self._backward(tape, dy, dstate)

    def _apply(self, x: Any, flow: Flow, train: bool) -> tuple[Array, Tape | None]:
        place = len(flow.final)
        state = flow.states[place]
        names = None if state is None else self._names_at("state", place, self._state_names)
        y, final, tape = self._forward(
            x, state, train, flow.lengths, flow.resets, names, lookup=flow.lookup
        )
        flow.lookup = None
        flow.final.append(final)
        return y, tape

    def _apply_backward(self, tape: Tape, dy: Any, flow: BackwardFlow) -> Any:
        dstate = flow.final.pop()
        if flow.needs_dx or type(self).backward is not Layer.backward:
            dx, dstate = self.backward(tape, dy, dstate)
        else:
            dx, dstate = self._backward(tape, dy, dstate, False)
        flow.initial.append(dstate)
        return dx

    def _check_dstate(self, dstate: Any, tape: Tape, place: int) -> None:
        """Refuse a wrong gradient of its final state."""
        self._check_state(dstate, tape._call_shapes, self._names_at("dstate", place, GRADIENT))

    def _apply_all(self, args: Sequence[Any], flow: Flow, train: bool) -> tuple[Any, Any]:
        x, state = args
        if state is not None:
            flow.states[len(flow.final)] = state
        y, tape = self._apply(x, flow, train)
        return (y, flow.final[-1]), tape

    def _apply_all_backward(self, tape: Tape, dy: tuple[Any, ...], flow: BackwardFlow) -> Any:
        flow.final.append(dy[1])
        dx = self._apply_backward(tape, dy[0], flow)
        return dx, flow.initial.pop()

    def _axes(self, x: Axes, state: Any = None) -> tuple[Any, ...]:
        (y,) = super()._axes(x)
        given = state if isinstance(state, (tuple, list)) else [state]
        sizes = [self._outputs, self._hidden][: len(self._state_parts)]
        parts = tuple(Axes(size, states=self._states) for size in sizes)
        if any(isinstance(part, Axes) and part.steps for part in given):
            raise ValueError("its state has steps; of (y, state), which a layer returns, take [1]")
        if state is not None and len(given) != len(parts):
            raise ValueError(f"its state has {len(given)} parts, expected {len(parts)}")
        for part, name, expected in zip(given, self._state_names[1:], parts, strict=False):
            if part not in (None, expected):
                raise ValueError(f"{name} is {part}, expected {expected}")
        return y, parts if len(parts) > 1 else parts[0]

    def _note_inputs(
        self, note: Callable[[str, Array], None], x: Any, state: Any, lengths: Any, resets: Any
    ) -> None:
        shapes = self._shapes_of_call(np.shape(x))
        time, rows = shapes.time, shapes.batch
        x = np.asarray(x, self._dtype).reshape(*shapes.axes, self._inputs)
        starts = None if resets is None else np.asarray(resets, bool).reshape(shapes.axes)
        if shapes.batch_first:
            x, starts = x.swapaxes(0, 1), None if starts is None else starts.T
        ends = None
        if lengths is not None:
            ends = checks.lengths(lengths, rows, time, batched=not shapes.removed_axes)
        there = np.arange(time)[:, None] < (np.full(rows, time) if ends is None else ends)
        initial = None if state is None else self._check_state(state, shapes, self._state_names)
        for level in range(self.num_layers):
            made = []
            for d in range(self._config.directions):
                at = f"_l{level}" + "_reverse" * d
                place = level * self._config.directions + d
                one = self._alone(at, x.shape[-1], bool(d) or self.reverse)
                h0, *c0 = (None, None) if initial is None else initial
                parts = [None if s is None else s[place : place + 1] for s in (h0, *c0)]
                given = tuple(parts) if len(self._state_parts) > 1 else parts[0]
                y, _ = one(x, given, lengths=ends, resets=starts)
                note(f"weight_ih{at}", x[there])
                first = np.zeros_like(y[:1]) if parts[0] is None else parts[0]
                before = np.concatenate([y[1:], first] if one.reverse else [first, y[:-1]])
                note(f"weight_hh{at}", before[there])
                made.append(y)
            x = _merged(self.merge, made)

    def _alone(self, at: str, input_size: int, reverse: bool) -> Any:
        """Return one direction of one of the stacked layers by itself; its names end in `at`."""
        options = {
            **self._options(), "input_size": input_size, "num_layers": 1, "dropout": 0.0,
            "bidirectional": False, "reverse": reverse, "merge": "concat", "batch_first": False,
        }  # fmt: skip
        layer = type(self)._from_options(options)
        names = [name.removesuffix("_l0") for name in layer._parameters]
        state = {f"{name}_l0": self._parameters[name + at]._storage for name in names}
        layer.load_state_dict(state)
        return layer

    def _step(self, x: Array, state: tuple[Array, ...]) -> tuple[Array, tuple[Array, ...]]:
        """Take one step; x and y are (B, I) and (B, P) or without B, the state has L in front."""
        axis = 1 if self.batch_first and x.ndim == 2 else 0
        given = state if len(state) > 1 else state[0]
        y, new = self(np.expand_dims(x, axis), given)
        return y.take(0, axis), cast("tuple[Array, ...]", new if len(state) > 1 else (new,))

    def stream(self, batch_size: int = 1) -> Stream:
        """Return a stream: the layer one step at a time, with its state kept.

        Parameters
        ----------
        batch_size : int, default 1
            Rows of the batch, each with a state of its own.

        Returns
        -------
        Stream
            In a state of zeros. It keeps the weights that the layer has now.

        Raises
        ------
        ValueError, TypeError
            If the layer reads sequences from their end (bidirectional or reverse), or batch_size is
            less than 1 or no int.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> stream = lc.GRU(2, 3, seed=0).stream()
        >>> stream.step(np.ones((1, 2), dtype="float32")).shape
        (1, 3)
        """
        return open_stream(self, batch_size)

    def stream_pool(self, capacity: int) -> StreamPool:
        """Return a pool: streams that come and go, any of which take a step together.

        Parameters
        ----------
        capacity : int
            How many streams may be open at once.

        Returns
        -------
        StreamPool
            Without a stream yet. It keeps the weights that the layer has now.

        Raises
        ------
        ValueError, TypeError
            As `stream` does, and if capacity is less than 1 or no int.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> pool = lc.GRU(2, 3, seed=0).stream_pool(capacity=1000)
        >>> ids = [pool.open() for _ in range(5)]
        >>> pool.step(ids[2:], np.ones((3, 2), dtype="float32")).shape
        (3, 3)
        """
        return open_pool(self, capacity)


def _merged(merge: str, made: list[Array]) -> Array:
    """Return the y of a layer from those of its directions."""
    if merge == "concat" or len(made) == 1:
        return np.concatenate(made, axis=-1)
    product: Array = made[0] * made[1] if merge == "mul" else made[0] + made[1]
    return product / 2 if merge == "ave" else product


class SingleStateLayer(Layer[Array]):
    """What RNN and GRU share: a state that is h alone."""

    def __call__(
        self,
        x: npt.ArrayLike,
        h0: npt.ArrayLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, Array]:
        """Run for inference: nothing is dropped, nothing remembered.

        Parameters
        ----------
        x : array_like, (T, B, I), or (B, T, I) if batch_first, or (T, I) unbatched
            Arrays of the layer's dtype are not copied if their last axis is contiguous. The other
            of float32 and float64 is a TypeError; other real numbers are converted.
        h0 : array_like, (num_layers*D, B, H), or (num_layers*D, H) unbatched, optional
            Initial state; zeros if not given.
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many steps each row has, 0 to T. Past its end y is 0; h is that of its last step,
            or the initial one if it has none; the reverse direction starts at its end.
        resets : array_like of bool, (T, B), or (B, T) if batch_first, or (T,) unbatched, optional
            Where an episode or document starts: no state crosses from the step before to that one,
            in either direction. A row that is reset at 0 does not use the initial state of the
            forward direction; that of the reverse direction enters at the row's end.

        Returns
        -------
        y : ndarray, (T, B, D*H), or (T, B, H) if merged; axes as in x
            The outputs of the last layer.
        h : ndarray, shaped like h0
            The final state.

        Raises
        ------
        ValueError, TypeError
            If an argument has another shape, dtype or range than it should; it is named.
        """
        return self._infer(x, h0, lengths, resets)


@storable
class RNN(SingleStateLayer):
    """A layer, or a stack, of simple recurrent units [1]_.

    h_t = f(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh)

    **The state is (num_layers*D, B, H) whatever batch_first says**, D = 2 if bidirectional else
    1; (num_layers*D, H) for unbatched x.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and h.
    num_layers : int, default 1
        How many layers are stacked.
    nonlinearity : str or (str, float, ...), default "tanh"
        f: "tanh", "relu", "sigmoid", "softsign", "identity", ("hard_sigmoid", alpha, beta),
        ("scaled_tanh", alpha, beta), ("affine", alpha, beta), ("leaky_relu", alpha),
        ("thresholded_relu", alpha), ("elu", alpha), "selu", "softplus" or "exponential", as ONNX
        defines them; "gelu" (by the normal distribution), "silu", "mish" or "hard_silu",
        x clip(x / 6 + 1/2, 0, 1). The name alone of "hard_sigmoid" means 0.2 and 0.5, of
        "leaky_relu" 0.01, of "elu" and "thresholded_relu" 1. alpha of the last three is not
        negative. Training with one of the last four takes more memory, because their gradient needs
        what enters them, too.
    gate_clip : float, optional
        Keeps what enters f in [-gate_clip, gate_clip], as ONNX's ``clip`` does; no gradient
        passes where it acts.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    batch_first : bool, default False
        Whether x, y and resets are (B, T, ...) rather than (T, B, ...).
    dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops an output on its way to the next layer.
    input_dropout, recurrent_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a feature of what a layer reads, and of h_{t-1}
        on its way into W_hh: of each row the same features at all steps [2]_.
    weight_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a number of a W_hh, for all steps and rows of the
        call [4]_.
    zoneout : float, default 0.0
        Probability in [0, 1) that a unit of h keeps its value for a step in `forward` [3]_. When
        the layer is called, h_t is zoneout * h_{t-1} + (1 - zoneout) times what it would be.
    layer_norm : bool, default False
        Whether W_ih x_t and W_hh h_{t-1} are normalised, to
        LN(W_ih x_t) * weight_ln_ih and LN(W_hh h_{t-1}) * weight_ln_hh [5]_, with
        LN(v) = (v - mean(v)) / sqrt(var(v) + 1e-5). Adds weight_ln_ih and weight_ln_hh, (H,).
    bidirectional : bool, default False
        Whether a second direction reads every sequence from its end.
    reverse : bool, default False
        Whether the only direction reads from the end; the order of y is kept.
    merge : {"concat", "sum", "mul", "ave"}, default "concat"
        How the outputs of the two directions of every layer become one.
    dtype : {"float32", "float64"}
        Of parameters, inputs and outputs.
    precision : {"float32", "bfloat16", "bfloat16x3"}
        What matrices are multiplied in; the attribute can be set at any time. In bfloat16 weights,
        x and h are rounded to 8 bits where they are multiplied, in `backward` the gradients, too;
        parameters, states and all else stay float32, which the dtype has to be. bfloat16x3 has
        the accuracy of float32: where AMX multiplies, each factor is three numbers in bfloat16,
        elsewhere it computes as float32 does. See docs/precision.md.
    seed : int, optional
        For the parameters, and for what `forward` draws: dropout of every kind, and zoneout.

    Raises
    ------
    TypeError, ValueError
        For options of the wrong type or value, or which contradict each other.
    MemoryError
        If there is not enough memory for the parameters.

    References
    ----------
    .. [1] J. L. Elman, "Finding structure in time", Cognitive Science 14, 1990.
    .. [2] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016.
    .. [3] D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden
       activations", ICLR 2017.
    .. [4] S. Merity, N. S. Keskar, R. Socher, "Regularizing and optimizing LSTM language models",
       ICLR 2018.
    .. [5] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> rnn = lc.RNN(3, 5, nonlinearity="relu", seed=0)
    >>> y, h = rnn(np.zeros((7, 2, 3), dtype="float32"))
    >>> y.shape, h.shape
    ((7, 2, 5), (1, 2, 5))
    """

    _kind = "rnn"
    nonlinearity = Option[Activation]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: Activation = "tanh",
        gate_clip: float | None = None,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())


@storable
class GRU(SingleStateLayer):
    """A layer, or a stack, of gated recurrent units [1]_.

    r, z = s(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), their parts of it

    n = f(W_in x_t + b_in + r * (W_hn h_{t-1} + b_hn)), or, if not `reset_after`,

    n = f(W_in x_t + b_in + b_hn + W_hn (r * h_{t-1}))

    h_t = (1 - z) * n + z * h_{t-1}

    The parameters hold the gates in the order r, z, n. **The state is (num_layers*D, B, H) whatever
    batch_first says**, D = 2 if bidirectional else 1; (num_layers*D, H) for unbatched x.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and h.
    num_layers : int, default 1
        How many layers are stacked.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    batch_first : bool, default False
        Whether x, y and resets are (B, T, ...) rather than (T, B, ...).
    dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops an output on its way to the next layer.
    input_dropout, recurrent_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a feature of what a layer reads, and of h_{t-1}
        on its way into W_hh: of each row the same features at all steps [2]_.
    weight_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a number of a W_hh, for all steps and rows of the
        call [4]_.
    zoneout : float, default 0.0
        Probability in [0, 1) that a unit of h keeps its value for a step in `forward` [3]_. When
        the layer is called, h_t is zoneout * h_{t-1} + (1 - zoneout) times what it would be.
    layer_norm : bool, default False
        Whether W_ih x_t and W_hh h_{t-1} are normalised, each over all gates, to
        LN(W_ih x_t) * weight_ln_ih and LN(W_hh h_{t-1}) * weight_ln_hh [5]_, with
        LN(v) = (v - mean(v)) / sqrt(var(v) + 1e-5). Adds weight_ln_ih and weight_ln_hh, (3*H,).
        Needs `reset_after`, as in [5]_: a reset before the product leaves no W_hh h_{t-1} of all
        gates to be normalised.
    bidirectional : bool, default False
        Whether a second direction reads every sequence from its end.
    reverse : bool, default False
        Whether the only direction reads from the end; the order of y is kept.
    merge : {"concat", "sum", "mul", "ave"}, default "concat"
        How the outputs of the two directions of every layer become one.
    reset_after : bool, default True
        Whether r acts after the product, as in PyTorch and cuDNN, or before it, as in the paper.
    activations : (s, f), default ("sigmoid", "tanh")
        Of the gates and of the candidate n; those that `RNN` knows.
    gate_clip : float, optional
        Keeps what enters s and f in [-gate_clip, gate_clip], as ONNX's ``clip`` does; no gradient
        passes where it acts.
    dtype : {"float32", "float64"}
        Of parameters, inputs and outputs.
    precision : {"float32", "bfloat16", "bfloat16x3"}
        What matrices are multiplied in; the attribute can be set at any time. In bfloat16 weights,
        x and h are rounded to 8 bits where they are multiplied, in `backward` the gradients, too;
        parameters, states and all else stay float32, which the dtype has to be. bfloat16x3 has
        the accuracy of float32: where AMX multiplies, each factor is three numbers in bfloat16,
        elsewhere it computes as float32 does. See docs/precision.md.
    seed : int, optional
        For the parameters, and for what `forward` draws: dropout of every kind, and zoneout.

    Raises
    ------
    TypeError, ValueError
        For options of the wrong type or value, or which contradict each other.
    MemoryError
        If there is not enough memory for the parameters.

    References
    ----------
    .. [1] K. Cho et al., "Learning phrase representations using RNN encoder-decoder for statistical
       machine translation", EMNLP 2014; its z is 1 - z here.
    .. [2] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016.
    .. [3] D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden
       activations", ICLR 2017.
    .. [4] S. Merity, N. S. Keskar, R. Socher, "Regularizing and optimizing LSTM language models",
       ICLR 2018.
    .. [5] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> gru = lc.GRU(3, 5, num_layers=2, bidirectional=True, seed=0)
    >>> y, h = gru(np.zeros((7, 2, 3), dtype="float32"), lengths=[7, 4])
    >>> y.shape, h.shape
    ((7, 2, 10), (4, 2, 5))
    """

    _kind = "gru"
    reset_after = Option[bool]()
    activations = Option[tuple[Activation, Activation]]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: float = 0.0,
        layer_norm: bool = False,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        reset_after: bool = True,
        gate_clip: float | None = None,
        activations: tuple[Activation, Activation] = ("sigmoid", "tanh"),
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())


@storable
class LSTM(Layer[Pair]):
    """A layer, or a stack, of long short-term memory.

    i, f, o = s(W_ih x_t + b_ih + W_hh h_{t-1} + b_hh), their parts of it; g likewise, with a

    c_t = f * c_{t-1} + i * g

    h_t = o * b(c_t), times W_hr if projected

    The parameters hold the gates in the order i, f, g, o; without a learned f, i, g, o.

    **The state is a pair (h, c): h (num_layers*D, B, P) and c (num_layers*D, B, H) whatever
    batch_first says**, D = 2 if bidirectional else 1, P = proj_size or H; without B for
    unbatched x.

    Parameters
    ----------
    input_size, hidden_size : int
        Features of x and c.
    num_layers : int, default 1
        How many layers are stacked.
    bias : bool, default True
        Whether there are b_ih and b_hh.
    batch_first : bool, default False
        Whether x, y and resets are (B, T, ...) rather than (T, B, ...).
    dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops an output on its way to the next layer.
    input_dropout, recurrent_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a feature of what a layer reads, and of h_{t-1}
        on its way into W_hh: of each row the same features at all steps [6]_.
    weight_dropout : float, default 0.0
        Probability in [0, 1) that `forward` drops a number of a W_hh, for all steps and rows of the
        call [8]_.
    zoneout : float or (float, float), default 0.0
        Probability in [0, 1) that a unit of h, and of c, keeps its value for a step in `forward`
        [7]_; one number is for both. When the layer is called, the state is
        zoneout * (what it was) + (1 - zoneout) * (what it would be).
    layer_norm : bool, default False
        Whether W_ih x_t and W_hh h_{t-1} are normalised, each over all gates, to
        LN(W_ih x_t) * weight_ln_ih and LN(W_hh h_{t-1}) * weight_ln_hh, and what b sees is
        LN(c_t) * weight_ln_c + bias_ln_c [9]_. LN(v) = (v - mean(v)) / sqrt(var(v) + 1e-5). Adds
        weight_ln_ih and weight_ln_hh, (4*H,), weight_ln_c and bias_ln_c, (H,).
    bidirectional : bool, default False
        Whether a second direction reads every sequence from its end.
    reverse : bool, default False
        Whether the only direction reads from the end; the order of y is kept.
    merge : {"concat", "sum", "mul", "ave"}, default "concat"
        How the outputs of the two directions of every layer become one.
    proj_size : int, default 0
        If not 0, h is projected to so many features, fewer than hidden_size [4]_. Adds weight_hr.
    forget_gate : bool, default True
        Without it f = 1, as in 1997 [1]_. For the whole cell of 1997 also pass
        ``activations=("sigmoid", ("scaled_tanh", 2, 0.5), ("scaled_tanh", 1, 0.5))``.
    coupled : bool, default False
        Whether f = 1 - i, a cell with one gate fewer [5]_.
    peephole : bool, default False
        Whether i and f see c_{t-1}, and o sees c_t [3]_. Adds weight_ch, (3, H): i, f, o; or
        (2, H): i, o.
    cell_clip : float, optional
        Keeps c_t in [-cell_clip, cell_clip]; no gradient passes where it acts.
    gate_clip : float, optional
        Keeps what enters s and a in [-gate_clip, gate_clip], as ONNX's ``clip`` does; no gradient
        passes where it acts.
    activations : (s, a, b), default ("sigmoid", "tanh", "tanh")
        Of the gates, of the candidate g and of c_t on its way out; those that `RNN` knows.
    forget_bias : float, optional
        Where the bias of f starts (1 helps with long lags [2]_).
    dtype : {"float32", "float64"}
        Of parameters, inputs and outputs.
    precision : {"float32", "bfloat16", "bfloat16x3"}
        What matrices are multiplied in; the attribute can be set at any time. In bfloat16 weights,
        x and h are rounded to 8 bits where they are multiplied, in `backward` the gradients, too;
        parameters, states and all else stay float32, which the dtype has to be. bfloat16x3 has
        the accuracy of float32: where AMX multiplies, each factor is three numbers in bfloat16,
        elsewhere it computes as float32 does. See docs/precision.md.
    seed : int, optional
        For the parameters, and for what `forward` draws: dropout of every kind, and zoneout.

    Raises
    ------
    TypeError, ValueError
        For options of the wrong type or value, or which contradict each other.
    MemoryError
        If there is not enough memory for the parameters.

    References
    ----------
    .. [1] S. Hochreiter, J. Schmidhuber, "Long short-term memory", Neural Computation 9, 1997.
    .. [2] F. A. Gers, J. Schmidhuber, F. Cummins, "Learning to forget: continual prediction with
       LSTM", Neural Computation 12, 2000.
    .. [3] F. A. Gers, N. N. Schraudolph, J. Schmidhuber, "Learning precise timing with LSTM
       recurrent networks", JMLR 3, 2002.
    .. [4] H. Sak, A. Senior, F. Beaufays, "Long short-term memory recurrent neural network
       architectures for large scale acoustic modeling", Interspeech 2014.
    .. [5] K. Greff et al., "LSTM: a search space odyssey", IEEE TNNLS 28, 2017.
    .. [6] Y. Gal, Z. Ghahramani, "A theoretically grounded application of dropout in recurrent
       neural networks", NIPS 2016.
    .. [7] D. Krueger et al., "Zoneout: regularizing RNNs by randomly preserving hidden
       activations", ICLR 2017.
    .. [8] S. Merity, N. S. Keskar, R. Socher, "Regularizing and optimizing LSTM language models",
       ICLR 2018.
    .. [9] J. L. Ba, J. R. Kiros, G. E. Hinton, "Layer normalization", arXiv:1607.06450, 2016.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> lstm = lc.LSTM(3, 5, num_layers=2, bidirectional=True, seed=0)
    >>> lstm
    LSTM(3, 5, num_layers=2, bidirectional=True)
    >>> y, (h, c) = lstm(np.zeros((7, 2, 3), dtype="float32"), lengths=[7, 4])
    >>> y.shape, h.shape, c.shape
    ((7, 2, 10), (4, 2, 5), (4, 2, 5))
    """

    _kind = "lstm"
    _state_parts = ("h", "c")
    proj_size = Option[int]()
    forget_gate = Option[bool]()
    coupled = Option[bool]()
    peephole = Option[bool]()
    cell_clip = Option["float | None"]()
    activations = Option[tuple[Activation, Activation, Activation]]()
    forget_bias = Option["float | None"]()

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        weight_dropout: float = 0.0,
        zoneout: Zoneout = 0.0,
        layer_norm: bool = False,
        bidirectional: bool = False,
        reverse: bool = False,
        merge: str = "concat",
        proj_size: int = 0,
        forget_gate: bool = True,
        coupled: bool = False,
        peephole: bool = False,
        cell_clip: float | None = None,
        gate_clip: float | None = None,
        activations: tuple[Activation, Activation, Activation] = ("sigmoid", "tanh", "tanh"),
        forget_bias: float | None = None,
        dtype: npt.DTypeLike = "float32",
        precision: str = "float32",
        seed: int | None = None,
    ) -> None:
        super().__init__(locals())

    def __call__(
        self,
        x: npt.ArrayLike,
        state: PairLike | None = None,
        *,
        lengths: npt.ArrayLike | None = None,
        resets: npt.ArrayLike | None = None,
    ) -> tuple[Array, Pair]:
        """Run for inference: nothing is dropped, nothing remembered.

        Parameters
        ----------
        x : array_like, (T, B, I), or (B, T, I) if batch_first, or (T, I) unbatched
            Arrays of the layer's dtype are not copied if their last axis is contiguous. The other
            of float32 and float64 is a TypeError; other real numbers are converted.
        state : (h0, c0), optional
            Initial state: (num_layers*D, B, P) and (num_layers*D, B, H), or (num_layers*D, P) and
            (num_layers*D, H) unbatched; None, for either or both, is zeros.
        lengths : array_like of int, (B,), or an int unbatched, optional
            How many steps each row has, 0 to T. Past its end y is 0; h and c are those of its last
            step, or the initial ones if it has none; the reverse direction starts at its end.
        resets : array_like of bool, (T, B), or (B, T) if batch_first, or (T,) unbatched, optional
            Where an episode or document starts: no state crosses from the step before to that one,
            in either direction. A row that is reset at 0 does not use the initial state of the
            forward direction; that of the reverse direction enters at the row's end.

        Returns
        -------
        y : ndarray, (T, B, D*P), or (T, B, P) if merged; axes as in x
            The outputs of the last layer.
        (h, c) : pair of ndarray, shaped like state
            The final state.

        Raises
        ------
        ValueError, TypeError
            If an argument has another shape, dtype or range than it should; it is named.
        """
        return self._infer(x, state, lengths, resets)
