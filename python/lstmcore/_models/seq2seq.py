"""Encoder-decoder: a sequence in, another one out, of another length."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .._base import checks
from .._base.checks import Array
from .._base.low_precision import PrecisionOfParts
from .._base.module import Module, needed_steps, overridden, storable
from .._nn.sequential import Sequential, SequentialTape, as_sequential
from .._nn.tape import check_owner
from ..attention import Attention
from ..sampling import Sampler
from .generate import chooser

__all__ = ["Hypothesis", "Seq2Seq", "Seq2SeqTape"]

Ids = npt.NDArray[np.int64]


class Hypothesis(NamedTuple):
    """What a search found: ids without the end, and their log-probability (see `beam_search`)."""

    ids: Ids
    score: float


class Seq2SeqTape:
    """What ``Seq2Seq.forward`` remembers for ``backward``: the tapes of its parts."""

    __slots__ = ("__weakref__", "_owner", "attention", "decoder", "encoder", "head", "keys")

    def __init__(
        self, owner: Seq2Seq, encoder: Any, decoder: Any, attention: Any, head: Any, keys: Array
    ) -> None:
        self._owner = owner
        self.encoder, self.decoder, self.attention, self.head = encoder, decoder, attention, head
        self.keys = keys

    @property
    def nbytes(self) -> int:
        """The memory it holds, in bytes, without what goes from one part to the next."""
        tapes = (self.encoder, self.decoder, self.attention, self.head)
        return sum(tape.nbytes for tape in tapes if tape is not None)

    def __repr__(self) -> str:
        return f"<Seq2SeqTape, {self.nbytes} bytes>"


@storable
class Seq2Seq(PrecisionOfParts):
    """An encoder reads a sequence, a decoder says another, by teacher forcing or by search.

    The decoder starts with the encoder's final states. With an attention, what the decoder gives at
    each step asks the encoder's outputs, and the head gets the answer and the question side by
    side: (context, decoder output).

    Parameters
    ----------
    encoder : Sequential or layer
        Reads the source; its y are what the attention looks at, but for steps that it masks.
    decoder : Sequential or layer
        Reads what has been said so far; reads forward.
    head : Module
        Turns the decoder's y, or (context, y), into scores (..., V) of all tokens. One of your own
        that does so for each step by itself says ``each_step = True``; without that it is trained,
        but not stepped: `greedy`, `beam_search` and `forecast` refuse it.
    attention : module of `lstmcore.attention`, optional
        Decoder against encoder, with the decoder's size for queries.
    carry_state : bool, default True
        Whether the decoder starts with the encoder's final states, which then have the same sizes,
        layer by layer. Without, and with an attention, the encoder may be anything, for instance
        bidirectional, and the decoder starts with zeros.

    Raises
    ------
    ValueError, TypeError
        If the parts do not fit together.

    Notes
    -----
    I. Sutskever, O. Vinyals, Q. V. Le, "Sequence to sequence learning with neural networks", NIPS
    2014; attention over the encoder's states after the decoder's recurrence: M.-T. Luong, H. Pham,
    C. D. Manning, "Effective approaches to attention-based neural machine translation", EMNLP 2015.

    `fit` trains it with the batches of `lstmcore.data.Pairs`. Where the decoder reads numbers, it
    forecasts series: see `forecast`.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Seq2Seq(
    ...     lc.Sequential(lc.Embedding(10, 8, seed=0), lc.GRU(8, 16, seed=1)),
    ...     lc.Sequential(lc.Embedding(7, 8, seed=2), lc.GRU(8, 16, seed=3)),
    ...     lc.Linear(32, 7, seed=4),
    ...     lc.attention.ScaledDotProduct(),
    ... )
    >>> source, previous = np.ones((5, 3), int), np.ones((4, 3), int)
    >>> scores, tape = model.forward((source, previous), lengths=([5, 2, 4], [4, 4, 1]))
    >>> scores.shape
    (4, 3, 7)
    >>> _ = model.backward(tape, np.ones_like(scores))
    >>> [ids.shape for ids in model.greedy(source, start=1, end=99, max_steps=6)]
    [(6,), (6,), (6,)]
    """

    _takes_one_x = False

    def __init__(
        self,
        encoder: Module,
        decoder: Module,
        head: Module,
        attention: Module | None = None,
        *,
        carry_state: bool = True,
    ) -> None:
        self.encoder, self.decoder = (
            self._sequential(part, name)
            for part, name in ((encoder, "encoder"), (decoder, "decoder"))
        )
        if not isinstance(head, Module) or not head._takes_one_x or head._knows_time:
            what = checks.describe(head)
            raise TypeError(f"head is {what}, expected a Linear or a Sequential without layers")
        if attention is not None and not isinstance(attention, Attention):
            what = checks.describe(attention)
            raise TypeError(f"attention is {what}, expected one of lstmcore.attention, or None")
        self.head: Any = head
        self.attention: Any = attention
        self._config = SimpleNamespace(carry_state=checks.boolean(carry_state, "carry_state"))
        self._children = {"encoder": self.encoder, "decoder": self.decoder, "head": head}
        if attention is not None:
            self._children["attention"] = attention
        self._check_parts()

    @staticmethod
    def _sequential(part: Any, name: str) -> Sequential:
        model: Sequential = as_sequential(part)
        if not any(module._gives_state for module in getattr(model, "_recurrent", ())):
            what = checks.describe(part)
            raise TypeError(f"{name} is {what}, expected a layer, or a Sequential with one")
        return model

    def _check_parts(self) -> None:
        owners: dict[int, str] = {}
        for name, child in self._children.items():
            if any(owners.setdefault(id(p), name) != name for p in child.parameters()):
                raise ValueError(f"{name} has parameters of another part, expected its own")
            dtype = getattr(child, "dtype", None)
            if dtype is not None and dtype != self.encoder.dtype:
                raise ValueError(
                    f"{name} has dtype={dtype}, expected that of the encoder, {self.encoder.dtype}"
                )
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            for _, module in part._steps:
                if not module._keeps_time:
                    raise ValueError(f"{name} has {module!r}, expected modules that keep the steps")
        whole = self.decoder._part_reading_ahead()
        if whole is not None:
            raise ValueError(
                f"decoder has {whole!r}, expected modules that read forward only: "
                f"{needed_steps(whole)}"
            )
        parts = {"encoder": self.encoder, "decoder": self.decoder, "attention": self.attention}
        for name, part in parts.items():
            if part is not None and part.batch_first != self.encoder.batch_first:
                raise ValueError(
                    f"{name} has batch_first={part.batch_first}, expected that of the encoder, "
                    f"{self.encoder.batch_first}"
                )
        if not self.carry_state:
            if self.attention is None:
                raise ValueError(
                    "carry_state is False and there is no attention: expected one of them, or the "
                    "decoder learns nothing of the source"
                )
        else:
            self._check_states()
        self._check_sizes()

    def _check_states(self) -> None:
        sizes = [
            [
                (m._state_parts, m._states, m._outputs, m._hidden)
                for m in part._recurrent
                if m._gives_state
            ]
            for part in (self.encoder, self.decoder)
        ]
        if sizes[0] != sizes[1]:
            raise ValueError(
                f"the states of the encoder's {self.encoder._recurrent} do not fit the decoder's "
                f"{self.decoder._recurrent}: expected the same sizes, or carry_state=False"
            )

    def _check_sizes(self) -> None:
        keys, size = self.encoder._output_size(None), self.decoder._output_size(None)
        if keys is None or size is None:  # a module does not say it
            return
        what = "the decoder's y"
        if self.attention is not None:
            query, key, value = self.attention._features(size)
            if query != size or key != keys or value not in (None, keys):
                raise ValueError(
                    f"attention is {self.attention!r}, expected one for queries of {size} "
                    f"features, {what}, and keys of {keys}, the encoder's y"
                )
            size, what = size + query, "context and " + what
        if self.head._input_size not in (None, size):
            raise ValueError(
                f"head takes {self.head._input_size} features, expected {size}, those of {what}"
            )

    def _check_head(self) -> None:
        """Refuse to give a head one step after the other that may need others."""
        head = self.head
        own = overridden(head) and not head.each_step
        part = head if own else head._part_reading_ahead()
        if part is not None:
            raise ValueError(f"head is stepped here, and has what cannot be: {needed_steps(part)}")

    @property
    def carry_state(self) -> bool:
        """Whether the decoder starts with the encoder's final states."""
        return bool(self._config.carry_state)

    @property
    def _gives_probabilities(self) -> bool:  # type: ignore[override]
        return bool(self.head._gives_probabilities)

    @property
    def batch_first(self) -> bool:
        """Whether source, previous and scores are (B, T, ...)."""
        return self.encoder.batch_first

    def __call__(self, x: tuple[npt.ArrayLike, npt.ArrayLike], *, lengths: Any = None) -> Array:
        """Compute scores by teacher forcing, without dropout.

        Parameters
        ----------
        x : (source, previous)
            The source as the encoder takes it, (T, B, ...); and what the decoder has said before
            each step, (S, B): the start, then all of the target but its last token. (B, T, ...)
            and (B, S) if batch_first.
        lengths : (source_lengths, target_lengths), optional
            Integers (B,) each, or None.

        Returns
        -------
        scores : ndarray (S, B, V), or (B, S, V) if batch_first
            Of each token of the target.
        """
        return self._decode(*self._read(x, lengths))[0]

    def attention_weights(
        self, x: tuple[npt.ArrayLike, npt.ArrayLike], *, lengths: Any = None
    ) -> Array:
        """Return where the decoder looks at each step: (B, S, T) weights of the source's steps.

        Parameters
        ----------
        x, lengths
            As when the model is called.

        Raises
        ------
        ValueError
            If there is no attention.
        """
        if self.attention is None:
            raise ValueError(f"{self!r} has no attention")
        weights = self._decode(*self._read(x, lengths))[1]
        assert weights is not None
        return weights

    def _read(self, x: Any, lengths: Any) -> tuple[Any, Any, Array, Any, Any]:
        """Run the encoder; return what `_decode` takes."""
        source, previous = _pair(x, "x")
        source_lengths, target_lengths = _lengths(lengths)
        keys, state, source_lengths = self._encode(source, source_lengths)
        return previous, self._carried(state), keys, source_lengths, target_lengths

    def _carried(self, final: Any) -> Any:
        """Return the state from which the decoder starts, given the encoder's final one."""
        return _handed(final, self.encoder, self.decoder) if self.carry_state else None

    def _encode(self, source: Any, lengths: Any) -> tuple[Array, tuple[Any, ...], Any]:
        """Return keys and final states of the encoder, and the lengths that it knows or finds."""
        keys, flow, _ = self.encoder._compute(source, None, lengths, None, False)
        return keys, tuple(flow.final), None if flow.lengths is None else flow.lengths.rows

    def _decode(
        self, previous: Any, state: Any, keys: Array, source_lengths: Any, lengths: Any
    ) -> tuple[Array, Array | None, Any]:
        """Return scores, attention weights and the decoder's final state."""
        y, state = self.decoder.run(previous, state, lengths=lengths)
        weights = None
        if self.attention is not None:
            context, weights = self.attention(y, keys, keys, source_lengths)
            y = np.concatenate([context, y], axis=-1)
        return self.head(y), weights, state

    def forward(
        self, x: tuple[npt.ArrayLike, npt.ArrayLike], *, lengths: Any = None
    ) -> tuple[Array, Seq2SeqTape]:
        """Compute scores by teacher forcing, with dropout, and keep what `backward` needs.

        Parameters
        ----------
        x, lengths
            As when the model is called.

        Returns
        -------
        scores : ndarray
        tape : Seq2SeqTape
        """
        source, previous = _pair(x, "x")
        source_lengths, target_lengths = _lengths(lengths)
        keys, flow, tapes = self.encoder._compute(source, None, source_lengths, None, True)
        encoder = SequentialTape(self.encoder, tapes, tuple(flow.final))
        state = self._carried(encoder.state)
        y, decoder = self.decoder.forward(previous, state, lengths=target_lengths)
        attention = None
        if self.attention is not None:
            context, _, attention = self.attention.forward(y, keys, keys, flow.lengths)
            y = np.concatenate([context, y], axis=-1)
        scores, head = self.head.forward(y)
        return scores, Seq2SeqTape(self, encoder, decoder, attention, head, keys)

    def backward(self, tape: Seq2SeqTape, dscores: npt.ArrayLike) -> tuple[Any, Any]:
        """Backpropagate through decoder and encoder: add to every parameter's gradient.

        Parameters
        ----------
        tape : Seq2SeqTape
            From `forward` of this very model.
        dscores : array_like, shaped like scores

        Returns
        -------
        dsource, dprevious : ndarray or None
            Gradients of source and previous; None for ids.
        """
        check_owner(tape, Seq2SeqTape, self)
        self._check_gradients()  # before any gradient is added to
        dy = self.head.backward(tape.head, dscores)
        # Recurrent layers take None for a gradient of zeros, other modules do not.
        dkeys = None if self.encoder._steps[-1][1]._gives_state else np.zeros_like(tape.keys)
        if self.attention is not None:
            size = dy.shape[-1] - self._decoder_size()
            dcontext, dy = dy[..., :size], dy[..., size:]
            dquery, dkey, dvalue = self.attention.backward(tape.attention, dcontext)
            dy, dkeys = dy + dquery, dkey + dvalue
        dprevious, dstate = self.decoder.backward_state(tape.decoder, dy)
        dfinal = _handed(dstate, self.decoder, self.encoder) if self.carry_state else None
        dsource, _ = self.encoder.backward_state(tape.encoder, dkeys, dfinal)
        return dsource, dprevious

    def _decoder_size(self) -> int:
        size = self.decoder._output_size(None)
        assert size is not None  # it has a recurrent layer
        return size

    def greedy(
        self,
        source: npt.ArrayLike,
        *,
        start: int,
        end: int,
        max_steps: int,
        lengths: npt.ArrayLike | None = None,
    ) -> list[Ids]:
        """Say, for each source, the likeliest token, then the likeliest after it, and so on.

        Parameters
        ----------
        source, start, end, max_steps, lengths
            As of `beam_search`.

        Returns
        -------
        list of ndarray
            The ids for each row, without start and end.
        """
        found = self.beam_search(
            source, start=start, end=end, max_steps=max_steps, lengths=lengths, beam_size=1
        )
        return [hypotheses[0].ids for hypotheses in found]

    def beam_search(
        self,
        source: npt.ArrayLike,
        *,
        start: int,
        end: int,
        max_steps: int,
        beam_size: int = 4,
        lengths: npt.ArrayLike | None = None,
        length_penalty: float = 0.0,
    ) -> list[list[Hypothesis]]:
        """Search for what the decoder finds likeliest, keeping several candidates at each step.

        Parameters
        ----------
        source : array (T, B, ...), or (B, T, ...) if batch_first
            As the encoder takes it.
        start, end : int
            Tokens that begin what the decoder reads and end what it says.
        max_steps : int
            After so many tokens, the end included, a candidate is cut.
        beam_size : int, default 4
            How many candidates are kept for each row. With 1 it is `greedy`.
        lengths : integer array (B,), optional
            Steps of each source.
        length_penalty : float, default 0.0
            a: in the end, candidates are ranked by log-probability / length**a, length counting the
            end. 0 prefers the likeliest, which are often short; 0.6 to 1 longer ones.

        Returns
        -------
        list of list of Hypothesis
            For each row up to `beam_size` of them, the best first, with that score.

        Raises
        ------
        ValueError, TypeError
            If an argument has a wrong value or shape.

        Notes
        -----
        The length penalty is that of Y. Wu et al., "Google's neural machine translation system",
        2016, without its constant 5.
        """
        beam_size = checks.integer(beam_size, "beam_size", 1)
        if beam_size > 1 and self._gives_probabilities:
            raise ValueError(
                f"head is {self.head!r}, which gives probabilities, expected the scores before them"
            )
        self._check_head()
        max_steps = checks.integer(max_steps, "max_steps", 1)
        start, end = checks.integer(start, "start", 0), checks.integer(end, "end", 0)
        length_penalty = checks.number(length_penalty, "length_penalty")
        keys, final, lengths = self._encode(source, lengths)
        if keys.ndim != 3:
            axes = "(B, T, ...)" if self.batch_first else "(T, B, ...)"
            raise ValueError(f"source has shape {np.shape(source)}, expected {axes}, a batch")
        rows = keys.shape[0 if self.batch_first else 1]
        # Candidates of a row stand next to each other: candidate k of row b is b * beam_size + k.
        every = np.repeat(np.arange(rows), beam_size)
        keys = keys[every] if self.batch_first else keys[:, every]
        lengths = None if lengths is None else np.asarray(lengths)[every]
        state = _take(self._carried(final), every)

        scores = np.full((rows, beam_size), -np.inf)
        scores[:, 0] = 0  # at first all are the same
        ended = np.zeros((rows, beam_size), bool)
        ids = np.zeros((rows, beam_size, 0), np.int64)
        last = np.full(rows * beam_size, start)
        for _ in range(max_steps):
            previous = last[:, None] if self.batch_first else last[None]
            logits, _, state = self._decode(previous, state, keys, lengths, None)
            tokens = logits.shape[-1]
            log_p = _log_softmax(logits.reshape(rows, beam_size, tokens))
            log_p[ended] = -np.inf
            if ended.any():  # a candidate that has ended repeats the end, at no cost
                log_p[ended, end] = 0
            total = (scores[:, :, None] + log_p).reshape(rows, beam_size * tokens)
            best = _largest(total, beam_size)
            scores = np.take_along_axis(total, best, 1)
            parent, token = best // tokens, best % tokens
            chosen = np.take_along_axis(ids, parent[:, :, None], 1)
            ids = np.concatenate([chosen, token[:, :, None]], axis=2)
            ended = np.take_along_axis(ended, parent, 1) | (token == end)
            if ended.all():
                break
            last = token.ravel()
            state = _take(state, (parent + np.arange(rows)[:, None] * beam_size).ravel())
        return [
            _ranked(row_ids, row_scores, end, length_penalty)
            for row_ids, row_scores in zip(ids, scores, strict=True)
        ]

    def forecast(
        self,
        source: npt.ArrayLike,
        previous: npt.ArrayLike,
        steps: int | None = None,
        *,
        known: npt.ArrayLike | None = None,
        sample: Sampler | None = None,
        lengths: npt.ArrayLike | None = None,
    ) -> Array:
        """Say numbers, step after step, each from what it said before: the decoder runs free.

        In training it reads the target one step late instead (teacher forcing): ``model.forward``,
        and so `fit`, take ``(source, previous)`` with the previous value, and what is known beside
        it, at every step. `lstmcore.data.windows` makes both.

        Parameters
        ----------
        source : array (T, B, ...), or (B, T, ...) if batch_first
            As the encoder takes it.
        previous : array (B, F)
            The value before the first step.
        steps : int, optional
            How many to say; not needed beside `known`.
        known : array (S, B, K), or (B, S, K) if batch_first, optional
            What is known of each step. The decoder reads it behind the previous value: F + K
            features.
        sample : function, optional
            Makes of the output (B, O) the value (B, F) that goes back, for instance the median of
            several quantiles, or a draw. By default the output itself.
        lengths : integer array (B,), optional
            Steps of each source.

        Returns
        -------
        y : ndarray (S, B, O), or (B, S, O) if batch_first
            What the head gives at each step.

        Raises
        ------
        ValueError, TypeError
            If the decoder reads ids, or an argument has a wrong value or shape.

        Examples
        --------
        >>> import numpy as np
        >>> import lstmcore as lc
        >>> wave = np.sin(0.3 * np.arange(300.0))
        >>> x, target = lc.data.windows(
        ...     wave, 20, steps=10, target=[0], previous=True, dtype="float32"
        ... )
        >>> model = lc.Seq2Seq(
        ...     lc.GRU(1, 16, seed=0), lc.GRU(1, 16, seed=1), lc.Linear(16, 1, seed=2)
        ... )
        >>> history = lc.fit(
        ...     model, ((x["past"], x["previous"]), target), batch_size=32, seed=0, epochs=20,
        ...     loss=lc.losses.mse, optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
        ...     progress=False,
        ... )
        >>> y = model.forecast(x["past"], x["previous"][0], steps=10)
        >>> y.shape, lc.metrics.rmse(y, target) < 0.2
        ((10, 271, 1), True)
        """
        value, beside = self._first_values(previous, steps, known)
        self._check_head()
        keys, final, lengths = self._encode(source, lengths)
        batch = 0 if self.batch_first else 1
        if keys.ndim != 3 or keys.shape[batch] != len(value):
            raise ValueError(
                f"source has shape {np.shape(source)}, expected a batch of {len(value)}, the rows "
                "of previous"
            )
        choose = chooser(sample, tokens=False)
        state = self._carried(final)
        said: list[Any] = []
        for now in beside:
            if said:
                output = said[-1]
                value = choose(output)
                if value.shape != (len(now), np.shape(previous)[1]):
                    raise ValueError(
                        f"what goes back has shape {value.shape}, expected {np.shape(previous)}, "
                        "that of previous: sample=... makes it of the output"
                    )
            x = np.concatenate([value, now], axis=1, dtype=value.dtype)
            y, _, state = self._decode(np.expand_dims(x, 1 - batch), state, keys, lengths, None)
            said.append(y.take(0, 1 - batch))
        return np.stack(said, axis=1 - batch)

    def _first_values(self, previous: Any, steps: Any, known: Any) -> tuple[Array, Array]:
        """Return what the decoder reads first, (B, F), and beside it at each step, (S, B, K)."""
        if self.decoder._takes_ids:
            raise TypeError("the decoder reads ids, expected numbers: see greedy and beam_search")
        dtype = self.encoder.dtype
        assert dtype is not None  # it has a recurrent layer
        value = checks.real(previous, dtype, "previous")
        if value.ndim != 2:
            raise ValueError(f"previous has shape {value.shape}, expected (B, F)")
        if known is None:
            beside = np.empty((checks.integer(steps, "steps", 1), len(value), 0), value.dtype)
        else:
            beside = checks.real(known, dtype, "known")
            if beside.ndim == 3 and self.batch_first:
                beside = beside.swapaxes(0, 1)
            if beside.ndim != 3 or beside.shape[1] != len(value) or not len(beside):
                axes = "(B, S, K)" if self.batch_first else "(S, B, K)"
                raise ValueError(
                    f"known has shape {np.shape(known)}, expected {axes} for {len(value)} rows"
                )
            if steps is not None and steps != len(beside):
                raise ValueError(f"steps is {steps}, but known has {len(beside)} steps")
        features = value.shape[1] + beside.shape[2]
        if self.decoder._input_size not in (None, features):
            raise ValueError(
                f"previous and known have {features} features, expected "
                f"{self.decoder._input_size}, as the decoder reads"
            )
        return value, beside

    def _options(self) -> dict[str, Any]:
        return {
            **{name: child._description() for name, child in self._children.items()},
            "carry_state": self.carry_state,
        }

    def __repr__(self) -> str:
        lines = [f"({name}): {child!r}" for name, child in self._children.items()]
        if not self.carry_state:
            lines.append("carry_state=False")
        inside = "\n".join(lines).replace("\n", "\n  ")
        return f"Seq2Seq(\n  {inside}\n)"


def _pair(value: Any, name: str) -> tuple[Any, Any]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        what = checks.describe(value)
        raise TypeError(f"{name} is {what}, expected a pair, for the encoder and the decoder")
    return value[0], value[1]


def _lengths(value: Any) -> tuple[Any, Any]:
    return (None, None) if value is None else _pair(value, "lengths")


def _handed(state: Any, source: Sequential, target: Sequential) -> Any:
    """Return the states of recurrent layers in the places that they have in another model.

    Past steps are its own: those of a Conv1D there are zeros.
    """
    pairs = zip(source._recurrent, state, strict=True)
    given = iter([one for module, one in pairs if module._gives_state])
    return tuple(next(given) if module._gives_state else None for module in target._recurrent)


def _take(state: Any, rows: npt.NDArray[Any]) -> Any:
    """Take rows of all states: (layers, B, size) each, in tuples."""
    if state is None:
        return None
    if isinstance(state, tuple):
        return tuple(_take(part, rows) for part in state)
    return state[:, rows]


def _log_softmax(scores: Array) -> Array:
    scores = scores.astype(np.float64)
    scores -= scores.max(axis=-1, keepdims=True)
    log_p: Array = scores - np.log(np.exp(scores).sum(axis=-1, keepdims=True))
    return log_p


def _largest(values: Array, count: int) -> npt.NDArray[np.intp]:
    """Return where the largest of each row are, the largest first."""
    if count < values.shape[1]:
        where = np.argpartition(values, -count, axis=1)[:, -count:]
    else:
        where = np.broadcast_to(np.arange(values.shape[1]), values.shape)
    order = np.argsort(-np.take_along_axis(values, where, 1), axis=1, kind="stable")
    return np.take_along_axis(where, order, 1)


def _ranked(ids: Ids, scores: Array, end: int, length_penalty: float) -> list[Hypothesis]:
    found = []
    for row, score in zip(ids, scores, strict=True):
        if np.isfinite(score):
            ends = np.flatnonzero(row == end)
            length = int(ends[0]) if ends.size else len(row)
            said = length + bool(ends.size)
            found.append(Hypothesis(row[:length].copy(), float(score) / said**length_penalty))
    return sorted(found, key=lambda hypothesis: -hypothesis.score)
