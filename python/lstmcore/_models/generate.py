"""Generating: what a model says goes back into it, step after step."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import sampling
from .._base import checks
from .._base.module import Module, needed_steps
from .._base.scoring import check_scores
from .._nn.sequential import as_sequential
from ..sampling import Sampler
from . import feeding

__all__ = ["chooser", "generate"]


def generate(
    model: Any,
    prompt: Any,
    steps: int,
    sample: Any = None,
    *,
    state: Any = None,
    lengths: npt.ArrayLike | None = None,
    stop: int | None = None,
    feed: Any = None,
) -> Any:
    """Continue a sequence by what the model predicts, one step after the other.

    The prompt is read in one call; each step then starts from the state of the one before. Dropout
    is off.

    Parameters
    ----------
    model : Sequential, Model, layer, or one of `lstmcore.baselines`
        Reads forward, and gives at every step, or at the last one, the scores of all tokens (before
        a softmax) or the next value.
    prompt : array, or tuple or dict of them
        Integers are tokens: (T,), (T, B), or (B, T) if the model is batch_first; for a model that
        begins with no Embedding they become one-hot vectors. Floats are values: (T, F), (T, B, F)
        or (B, T, F), arrays of the model's dtype or lists. At least one step. Of a `Model` with
        several inputs, all of them in its structure; see `feed`.
    steps : int
        How many to generate.
    sample : function or "greedy", optional
        Chooses the next token from the scores: ``sample(scores)`` with scores (B, C) returns ids
        (B,); see `lstmcore.sampling`. The default takes the one with the highest score. For values
        it makes of the output (B, O) the next input (B, F), by default the output itself. If `feed`
        has several inputs, a dict of such functions by input.
    state : optional
        The state before the prompt, as ``model.run`` takes it, or with `feed` as the ``state`` of
        ``model.stream()`` is; zeros if not given.
    lengths : integer array (B,), optional
        Steps of the prompt of each row, at least 1. Or a dict or tuple in the structure of the
        inputs, with None for those that have all steps, which is needed where an encoder reads an
        input whole.
    stop : int, optional
        A token that ends the text. When all rows have had it, generating ends; what follows it in a
        row is this token again.
    feed : dict, str, int or function, optional
        For a `Model` with several inputs or outputs, and needed there: which input gets which
        output at the next step, ``{input: output}``, by their keys in a dict or their numbers in a
        list, or by the names of the inputs and `output_names` of the model.
        If there is one output, the input alone does, and if there is one input, the output. A
        function makes the next inputs itself: it is given the outputs of a step, (B, O) each, in
        their structure, and returns a dict of inputs, (B, F) each, or the only one.

        Inputs without steps are the same at every step. Those with steps that are not fed have to
        be known ahead: beside the T steps of the prompt the ``steps - 1`` after it at which
        generated values are read. One more may be there, which is that of the last value
        generated, and is not read. What is ahead of a row with a length follows its own end.
        An input that an encoder reads, whose final states or outputs the rest starts from or
        attends to, is read whole first; it has as many steps as it likes.

    Returns
    -------
    ndarray, or dict of them
        The tokens or values generated, without the prompt and with its axes: int64 (steps,),
        (steps, B) or (B, steps), or (steps, F) and so on. Where `feed` is a dict or returns one, a
        dict of them, by input.

    Raises
    ------
    ValueError, TypeError
        If the model reads backwards or averages over time, or the arguments do not fit it.

    Notes
    -----
    With `feed`, the bits are those of ``model.stream()``, given the prompt and then step by step
    what it says.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> model = lc.Sequential(lc.Embedding(5, 8, seed=0), lc.GRU(8, 16, seed=1),
    ...                       lc.Linear(16, 5, seed=2))
    >>> lc.generate(model, [1, 2, 3], 4).shape
    (4,)
    >>> sample = lc.sampling.temperature(0.8, seed=0)
    >>> lc.generate(model, [[1, 4], [2, 0], [3, 0]], 4, sample).shape
    (4, 2)
    >>> series = lc.Sequential(lc.LSTM(2, 8, seed=0), lc.Linear(8, 2, seed=1))
    >>> lc.generate(series, np.zeros((10, 2), "float32"), 6).shape
    (6, 2)

    Demand, of which the calendar is known ahead:

    >>> demand, calendar = lc.Input(1), lc.Input(3)
    >>> y, _ = lc.GRU(4, 8, seed=0)(lc.concat([demand, calendar]))
    >>> model = lc.Model({"demand": demand, "calendar": calendar}, lc.Linear(8, 1, seed=1)(y))
    >>> prompt = {"demand": np.ones((48, 1), "float32"), "calendar": np.ones((72, 3), "float32")}
    >>> lc.generate(model, prompt, 24, feed="demand").shape
    (24, 1)
    """
    model = as_sequential(model)
    if feeding.is_fed(model, feed):
        steps = checks.integer(steps, "steps", 1)
        return feeding.continued(
            model, prompt, steps, sample, feed, chooser, state=state, lengths=lengths, stop=stop
        )
    _check_model(model)
    feeding.only_input(model, prompt)
    check_scores(model, "sample", sample)
    steps = checks.integer(steps, "steps", 1)
    x = checks._asarray(prompt, "prompt")
    if not x.size:
        raise ValueError("prompt is empty, expected at least one step")
    tokens = x.dtype.kind in "iu"
    takes_ids = getattr(model, "_takes_ids" if isinstance(model, Module) else "takes_ids", False)
    if takes_ids and not tokens:
        raise TypeError(f"prompt has dtype {x.dtype}, expected integers, as the model takes ids")
    if not tokens and getattr(model, "dtype", None) is not None:
        x = checks.real(prompt, model.dtype, "prompt")
    grid = x.ndim if tokens else x.ndim - 1  # how many of its axes are time and batch
    if grid not in (1, 2):
        what = "(T,) or two axes with the batch" if tokens else "(T, F) or three with the batch"
        raise ValueError(f"prompt has shape {x.shape}, expected {what}")
    axis = 1 if grid == 2 and getattr(model, "batch_first", False) else 0
    choose = chooser(sample, tokens)
    if stop is not None:
        stop = checks.integer(stop, "stop", 0)
        if not tokens:
            raise ValueError(f"stop is {stop}, but the prompt has values, no tokens")

    options = {} if state is None else {"state": state}
    if lengths is not None:
        if grid == 1:
            raise ValueError("lengths is given, but the prompt has no batch")
        batch, time = x.shape[1 - axis], x.shape[axis]
        lengths = checks.lengths(lengths, batch, time, batched=True, of="prompt")
        if not lengths.all():
            raise ValueError("lengths has 0, expected at least one step for each row")
        options["lengths"] = lengths
    encode = _encoder(model, tokens and not takes_ids)
    y, state = model.run(encode(x), **options)
    if y.ndim > grid:  # else the model itself has taken the last step
        y = _last(y, axis, lengths)
    ended = np.zeros(x.shape[1 - axis] if grid == 2 else 1, bool)
    generated = []
    for step in range(steps):
        following = choose(y if grid == 2 else y[None])
        if stop is not None:
            following = np.where(ended, stop, following)
            ended |= following == stop
        following = following if grid == 2 else following[0]
        generated.append(following)
        if step == steps - 1 or (stop is not None and ended.all()):
            break
        x = np.expand_dims(encode(following), axis)
        y, state = model.run(x, state)
        if y.ndim > grid:
            y = _last(y, axis, None)
    return np.stack(generated, axis)


def _check_model(model: Any) -> None:
    if isinstance(model, type) or not callable(getattr(model, "run", None)):
        what = checks.describe(model)
        raise TypeError(f"model is {what}, expected a Sequential, a layer or a baseline")
    whole = model._part_reading_ahead() if isinstance(model, Module) else None
    if whole is not None:
        raise ValueError(needed_steps(whole, ", of which this is the beginning only"))


def chooser(sample: Any, tokens: bool) -> Sampler:
    """Return what makes the next input of an output."""
    if sample is None or (isinstance(sample, str) and sample == "greedy"):
        given = sampling.greedy() if tokens else (lambda y: y)
    elif callable(sample):
        given = sample
    else:
        what = checks.describe(sample)
        raise TypeError(f"sample is {what}, expected a function of lstmcore.sampling or 'greedy'")

    def choose(y: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if np.isnan(y).any():
            raise ValueError("the model gives NaN: it has diverged, or the prompt is too short")
        following = np.asarray(given(y))
        if tokens:
            if following.shape != (len(y),) or following.dtype.kind not in "iu":
                raise ValueError(
                    f"sample gives {checks.describe(following)} of dtype {following.dtype}, "
                    f"expected ids ({len(y)},)"
                )
            return following.astype(np.int64)
        if following.shape[:1] != y.shape[:1] or following.dtype.kind not in "biuf":
            raise ValueError(
                f"sample gives {checks.describe(following)} of dtype {following.dtype}, expected "
                f"numbers ({len(y)}, F)"
            )
        return following.astype(y.dtype, copy=False)  # noise makes float64 of float32

    return choose


def _encoder(model: Any, one_hot: bool) -> Any:
    """Return what turns tokens into what the model takes."""
    if not one_hot:
        return lambda x: x
    size = model._input_size
    if size is None:
        raise TypeError("prompt has tokens, but the model takes values of any size")
    dtype = model.dtype

    def encode(ids: Any) -> npt.NDArray[Any]:
        wrong = ids[(ids < 0) | (ids >= size)]
        if wrong.size:
            raise ValueError(
                f"the token {wrong.flat[0]} has no place in {size} inputs, one-hot: expected 0 to "
                f"{size - 1} (values must be floats)"
            )
        hot = np.zeros((*ids.shape, size), dtype)
        np.put_along_axis(hot, ids[..., None], 1, axis=-1)
        return hot

    return encode


def _last(y: Any, axis: int, lengths: npt.NDArray[np.int64] | None) -> Any:
    """Take the last step of y, that of each row if lengths are given."""
    if lengths is None:
        return y.take(-1, axis)
    rows = np.arange(len(lengths))
    return y[lengths - 1, rows] if axis == 0 else y[rows, lengths - 1]
