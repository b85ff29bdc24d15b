"""The training loop."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from .._base import checks
from .._base.parameter import Parameter
from .._base.scoring import apart
from .._files.checkpoints import load_checkpoint
from .._public.words import other_library
from ..callbacks import Callback, Checkpoint
from .batch import Caller, batches, split
from .evaluate import measure_first
from .functions import Functions, Loss, Metrics, scored
from .history import History
from .interrupt import Interrupt, Interrupted
from .loop import Loop, Steps
from .progress import Progress
from .resuming import settings
from .run import Run
from .scorer import Scorer

__all__ = ["fit"]

_Called: TypeAlias = Callback | Callable[[Run], object]


def fit(
    model: Any,
    data: Any,
    *,
    loss: Loss,
    optimizer: Any,
    epochs: int = 1,
    batch_size: int | None = None,
    shuffle: bool = True,
    seed: int | None = None,
    weight: Any = None,
    loss_weights: Mapping[Any, float] | Sequence[float] | None = None,
    validation: Any = None,
    validation_split: float | None = None,
    metrics: Metrics | None = None,
    truncate: int | None = None,
    clip_norm: float | None = None,
    accumulate: int = 1,
    schedule: Any = None,
    schedule_by: str = "epoch",
    callbacks: _Called | Iterable[_Called] = (),
    resume: str | os.PathLike[str] | None = None,
    progress: bool = True,
) -> History:
    """Train a model.

    Parameters
    ----------
    model : Module
        A Sequential, a layer, a `Seq2Seq`, or anything with their ``forward``, ``backward``,
        ``parameters`` and ``zero_grad``.
    data : iterable of batches, or tuple of arrays
        What an epoch goes through: batches, each a `lstmcore.data.Batch` or a tuple of its fields
        in their order, ``(x, target)``, ``(x, target, lengths)`` and so on, from a list,
        `lstmcore.data.Batches` or whatever else can be gone through again and again. Or one such
        tuple of arrays, cut by `batch_size`, or one batch without it: a tuple is always the arrays,
        batches come in a list. x is (T, B, ...), or (B, T, ...) if the model is batch_first, or
        (B, ...) if nothing in it knows of time steps: no recurrent layer, pooling, `Flip` or
        `Masking`. Where only a module of your own could know of them, its ``batch_first`` says
        which of these it takes. Targets are per step of the model's output, which may be other
        steps than those of x, or per sequence, as the loss takes them with that output. A model of
        your own may take an x that is a tuple or dict of arrays, and a loss of your own such a
        target.
    loss : function or str, or dict or tuple of them
        Of `lstmcore.losses`, also by its name, ``"mse"`` for instance, or one of your own:
        ``loss(pred, target)``, with lengths as a third
        argument where there is a prediction per step, and ``batch_first=True`` if so, returns the
        loss and its gradient with respect to pred. Predictions that can be (B, C) are one per
        sequence, whatever C is. Lengths are those that were given, or that a `Masking` in the model
        has found; where the model passes over masked steps between others, these have the weight 0,
        so that every function of that output needs a ``weight=``. For a loss of scores a model that
        ends in a softmax or sigmoid is refused: train ``model[:-1]``, which has the same
        parameters.

        The losses of `lstmcore.losses` say what their mean stands for (see `losses.Mean`), so that
        the mean over an epoch is that of all its targets together. A loss or metric that returns a
        plain float counts as a mean over the valid steps or, with one target per sequence, over the
        sequences.

        For a model with several outputs, a loss for each, in their structure; None for one that is
        not trained by. The target has that structure, too. Each counts over its own targets; they
        are in the metrics of the history as "a_loss" for the output "a", "0_loss" for the first of
        a tuple. "loss" is their sum, by `loss_weights`.
    optimizer : optimizer of `lstmcore.optim`
        Of parameters of this model. Those it does not have are not trained.
    epochs : int, default 1
        How often to go through the data, those of a resumed checkpoint included.
    batch_size : int, optional
        Rows per batch, if `data` is a tuple of arrays.
    shuffle, seed
        Of those batches, as of `lstmcore.data.Batches`; validation is not shuffled. A seed is not
        for one batch, nor for batches ready made.
    weight : array, optional
        How much each row counts, (B,), or each step, (T, B), or (B, T) if batch_first, if `data` is
        a tuple of arrays. Batches have their own. The loss gets it as ``weight=``, and so do
        metrics that take an argument of that name. Of several targets it may be in their structure,
        with None for those that all count.
    loss_weights : dict or tuple of float, optional
        What each of several losses is multiplied by in their sum, in the structure of the loss; 1
        by default.
    validation : like data, optional
        For a loss, and the metrics, after every epoch. Its first batch is tried before the first
        step, so that what does not fit is found before anything is changed.
    validation_split : float, optional
        In the place of `validation`: the share of the rows of `data`, a tuple of arrays, that is
        kept for it and not trained with. They are the last ones, as in Keras: shuffle the arrays
        first if their order means something.
    metrics : dict of str to function or name, or str or list of str, optional
        Names are those of `lstmcore.metrics`, or of a loss, ``["accuracy"]`` for instance. Own ones
        are ``function(pred, target)`` with lengths like a loss, which returns a number. They are
        means
        over the targets of the validation data or, without any, of the training batches; see
        `loss`. Of a model with several outputs a function gets all of them;
        ``{"a": ["accuracy"]}`` is of the output "a" alone, and called "a_accuracy".
    truncate : int, optional
        Truncated back-propagation through time: the batch is cut into chunks of so many steps, each
        with a step of the optimizer; the state is carried from each to the next, the gradient is
        not. For targets per step, in models that read forward. Every batch starts with zeros. Of
        several inputs those with steps are cut, and the others are given whole to every chunk.
    clip_norm : float, optional
        Largest Euclidean norm of all gradients together; longer ones are scaled down to it.
    accumulate : int, default 1
        Make a step of the optimizer after so many batches, which is that of one batch of all their
        rows within rounding, however they weigh: large batches in the memory of small ones. The
        last step of an epoch has what is left. Clipping, schedules and `on_step` go by step. (With
        several losses, the model runs once more for each batch, to learn what they weigh.)
    schedule : schedule of `lstmcore.optim`, optional
        Changes the learning rate of this optimizer.
    schedule_by : {"epoch", "step"}, default "epoch"
        What its options count: epochs, or steps of the optimizer. It is told the
        validation loss or, without any, the training loss.
    callbacks : Callback or function, or iterable of them, optional
        See `lstmcore.callbacks`. A function is called with the `Run` after every epoch.
    resume : path, optional
        A file of `lstmcore.callbacks.Checkpoint`, to go on from to the same bits, given the same
        arguments: another learning rate, seed or batch size than the run was begun with is refused,
        but more epochs are not. The order of batches of your own comes back if they have a
        ``state_dict``.
    progress : bool, default True
        A bar with loss, metrics and time left if tqdm is installed and stderr is a terminal, else a
        line per epoch.

    Returns
    -------
    History
        Of all epochs that were completed. Ctrl-C ends the run after the current step and returns
        it, too; a second Ctrl-C is a KeyboardInterrupt at once.

    Raises
    ------
    ValueError
        If the data are empty, arguments do not fit together, the optimizer has parameters of
        another model, a callback cannot do its work, or the checkpoint is damaged or of another
        run; nothing is changed then.
    NonFiniteError
        A ValueError: the loss, the validation loss or the norm of the gradients is NaN or
        infinite. It names the epoch
        and the step, and the first parameter or gradient that is not finite.
    TypeError
        If something is not what is expected at all.

    Notes
    -----
    Truncated back-propagation: R. J. Williams, J. Peng, "An efficient gradient-based algorithm for
    on-line training of recurrent network trajectories", Neural Computation 2, 1990. Clipping:
    R. Pascanu, T. Mikolov, Y. Bengio, "On the difficulty of training recurrent neural networks",
    ICML 2013.

    Examples
    --------
    >>> import lstmcore as lc
    >>> from lstmcore.datasets import japanese_vowels
    >>> train, test = japanese_vowels()
    >>> model = lc.Sequential(lc.GRU(12, 32, seed=0), lc.LastStep(), lc.Linear(32, 9, seed=1))
    >>> history = lc.fit(
    ...     model, (train.x, train.labels, train.lengths), batch_size=30, seed=0,
    ...     loss=lc.losses.cross_entropy, optimizer=lc.optim.Adam(model.parameters(), lr=0.01),
    ...     epochs=10, progress=False,
    ... )
    >>> history.epochs, history.losses[-1] < 0.3
    (10, True)
    """
    caller = Caller(model)
    shuffle = checks.boolean(shuffle, "shuffle")
    seed = checks.seed(seed)
    progress = checks.boolean(progress, "progress")
    epochs = checks.integer(epochs, "epochs", 1)
    steps = _steps(caller, truncate, clip_norm, accumulate, schedule_by)
    functions = scored(loss, metrics, loss_weights)
    if loss is None:
        raise TypeError("loss is None, expected a function or its name")
    _check_optimizer(optimizer, model)
    _check_losses(functions, model, truncate)
    _check_schedule(schedule, optimizer)
    if schedule is None and steps.by_step:
        raise ValueError("schedule_by is 'step', but there is no schedule: expected schedule=")
    if validation_split is not None:
        if validation is not None:
            raise ValueError("validation and validation_split are given, expected one of them")
        data, validation = split(data, validation_split, caller, weight)
        weight = None
    data = batches(data, "data", batch_size, caller, shuffle=shuffle, seed=seed, weight=weight)
    if validation is not None:
        _check_callable(model, "validation")
        size = batch_size if isinstance(validation, tuple) else None
        validation = batches(validation, "validation", size, caller, shuffle=False, seed=None)
    scorer = Scorer(functions, caller)
    if steps.accumulate > 1 and functions.outputs is not None:
        _check_callable(model, "accumulate with several losses")
    options = {"truncate": truncate, "clip_norm": clip_norm, "accumulate": accumulate}
    options |= {"validation_split": validation_split, **functions.settings()}
    begun = settings(optimizer, schedule, data, **options)
    made = _callbacks(callbacks)
    run = Run(model, optimizer, schedule, data, validation, epochs, made, functions, begun)
    for callback in run.callbacks:
        callback.on_check(run)
    if validation is not None:
        measure_first(caller, validation, "validation", scorer, truncate)
    if resume is not None:
        checks.path(resume, "resume")
        load_checkpoint(resume, **run.parts())
    bar = Progress(progress, epochs, run.epoch)
    with Interrupt() as interrupt:
        _go(run, Loop(run, caller, scorer, steps, interrupt.check, bar), interrupt, bar)
    if interrupt.pressed:  # perhaps too late to be noticed before
        run.history.stopped = "interrupted"
    return run.history


def _go(run: Run, loop: Loop, interrupt: Interrupt, bar: Progress) -> None:
    """Go through the epochs until they are done, or something ends the run."""
    try:
        for callback in run.callbacks:
            callback.on_start(run)
        while run.epoch < run.epochs and not run.history.stopped:
            loop.epoch()
    except Interrupted:
        run.history.stopped = "interrupted"
    except KeyboardInterrupt:  # raised by other code than our handler
        if interrupt.pressed:
            raise
        run.history.stopped = "interrupted"
    finally:
        bar.close()
        for callback in run.callbacks:
            callback.on_end(run)


def _steps(
    caller: Caller, truncate: int | None, clip_norm: Any, accumulate: int, schedule_by: str
) -> Steps:
    """Return how steps are made, if that fits together."""
    accumulate = checks.integer(accumulate, "accumulate", 1)
    if truncate is not None:
        truncate = checks.integer(truncate, "truncate", 1)
        caller.check_truncate(truncate, train=True)
        if accumulate > 1:
            raise ValueError(
                f"accumulate={accumulate} makes a step after several batches, but "
                f"truncate={truncate} several in each batch: expected one of them"
            )
    if clip_norm is not None:
        clip_norm = checks.number(clip_norm, "clip_norm")
        if not clip_norm > 0:
            raise ValueError(f"clip_norm is {clip_norm}, expected more than 0")
    by_step = checks.choice(schedule_by, "schedule_by", ("epoch", "step")) == "step"
    return Steps(truncate, clip_norm, accumulate, by_step)


def _check_callable(model: Any, what_for: str) -> None:
    if not callable(model):
        raise TypeError(
            f"model is {checks.describe(model)}, expected one that can be called, for {what_for}"
        )


def _check_optimizer(optimizer: Any, model: Any) -> None:
    parameters = getattr(optimizer, "parameters", None)
    if not isinstance(parameters, (list, tuple)) or not callable(getattr(optimizer, "step", None)):
        what = other_library(optimizer) or checks.describe(optimizer)
        raise TypeError(
            f"optimizer is {what}, expected one of lstmcore.optim, ready made: "
            "lc.optim.Adam(model.parameters(), lr=0.001)"
        )
    known = {id(p) for p in model.parameters()}
    for p in parameters:
        if not isinstance(p, Parameter):
            raise TypeError(f"optimizer has {checks.describe(p)}, expected Parameters only")
        if id(p) not in known:
            raise ValueError(
                f"optimizer has {p!r}, which is not a parameter of the model: expected one made "
                "from model.parameters()"
            )


def _check_losses(functions: Functions, model: Any, truncate: int | None) -> None:
    """Refuse losses with parameters that no step would zero the gradients of."""
    known = {id(p) for p in model.parameters()}
    for name in functions.loss_weights:
        function = functions.by_name[name]
        compute = apart(function)
        if compute is None:
            continue
        while isinstance(compute, functools.partial):
            compute = compute.func
        owner: Any = compute.__self__  # type: ignore[attr-defined]
        if any(id(p) not in known for p in owner.parameters()):
            raise ValueError(
                f"{name} is of {owner!r}, which is not in the model: expected it at its end, "
                "lc.Sequential(..., crf), so that its parameters are trained and saved with it"
            )
        if truncate is not None:
            raise ValueError(
                f"truncate={truncate} cuts the rows, but {name} is of whole rows: expected none"
            )


def _check_schedule(schedule: Any, optimizer: Any) -> None:
    if schedule is None:
        return
    if not callable(getattr(schedule, "step", None)):
        what = checks.describe(schedule)
        raise TypeError(f"schedule is {what}, expected one of lstmcore.optim, ready made")
    if getattr(schedule, "optimizer", optimizer) is not optimizer:
        raise ValueError(
            f"schedule is of another optimizer, {schedule.optimizer!r}, expected one of "
            f"{optimizer!r}"
        )


class _OnEpoch(Callback):
    def __init__(self, function: Callable[[Run], object]) -> None:
        self._function = function

    def on_epoch(self, run: Run) -> None:
        self._function(run)


def _callbacks(given: Any) -> list[Callback]:
    """Return all as Callbacks, checkpoints last: they save the state of the others."""
    if isinstance(given, Callback) or callable(given):
        given = [given]
    if not isinstance(given, Iterable):
        what = checks.describe(given)
        raise TypeError(f"callbacks is {what}, expected a Callback, a function or a list of them")
    made: list[Callback] = []
    for i, callback in enumerate(given):
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            what = checks.describe(callback)
            raise TypeError(f"callbacks[{i}] is {what}, expected a Callback or a function")
        made.append(callback if isinstance(callback, Callback) else _OnEpoch(callback))
    return sorted(made, key=lambda callback: isinstance(callback, Checkpoint))
