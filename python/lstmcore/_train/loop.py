"""The loop of `fit`: epochs, batches, chunks of batches, steps of the optimizer."""

from __future__ import annotations

import itertools
import math
import time
import warnings
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np

from .._base import checks
from .._base.module import Module, overridden
from .._base.parameter import Parameter
from .._base.structure import leaves
from ..callbacks import Callback
from ..data._batches import Batch
from ..optim._checks import parameters as checked_parameters
from ..optim._clipping import limit_norm
from .accumulation import Accumulation, groups
from .batch import Caller, chunks
from .evaluate import measure
from .progress import Progress
from .run import Run
from .scorer import Scorer, Total

__all__ = ["Loop", "NonFiniteError", "Steps"]

_trainable = attrgetter("trainable")


def _has_gradient(p: Parameter) -> bool:
    return p._grad is not None and bool(p._grad.any())


def _parameters_of_own(model: Module) -> list[tuple[str, Module, str, Parameter]]:
    """Return path, module, name and parameter of all in modules with a backward of their own."""
    return [
        (path, module, name, p)
        for path, module in model._modules()
        if overridden(module)
        for name, p in module._parameters.items()
    ]


class NonFiniteError(ValueError):
    """A loss or a gradient became NaN or infinite; the message says when and where first.

    The parameters are those before the step that would have used it.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> head = lc.Linear(1, 1, seed=0)
    >>> x, target = np.ones((2, 1), "float32"), np.array([[1.0], [np.nan]])
    >>> lc.fit(head, (x, target), loss=lc.losses.mse, optimizer=lc.optim.SGD(head.parameters()))
    Traceback (most recent call last):
    lstmcore.NonFiniteError: the loss is nan in epoch 1, step 1; not finite: ... target
    """


class Steps(NamedTuple):
    """How steps of the optimizer are made of batches."""

    truncate: int | None
    clip_norm: float | None
    accumulate: int
    by_step: bool  # whether the schedule counts them


class Loop:
    """The loop over epochs, batches and chunks."""

    def __init__(
        self,
        run: Run,
        caller: Caller,
        scorer: Scorer,
        steps: Steps,
        check: Callable[[], None],
        bar: Progress,
    ) -> None:
        self._run, self._caller, self._bar, self._check = run, caller, bar, check
        self._truncate, self._clip_norm, self._group_size, self._by_step = steps
        self._scorer = scorer
        # Metrics are of the validation data, if there are any.
        own = [] if run.validation is not None else scorer.names
        self._metrics = [name for name in own if name not in scorer.loss_weights]
        self._parameters: list[Parameter] = list(run.optimizer.parameters)
        if self._clip_norm is not None:
            checked_parameters(self._parameters)
        # The gradient of x is for nobody here.
        model = caller.model
        self._backward = model._add_gradients if isinstance(model, Module) else model.backward
        self._of_own = _parameters_of_own(run.model) if isinstance(run.model, Module) else []
        self._group: Accumulation | None = None
        if self._group_size > 1:
            self._group = Accumulation(scorer, caller, self._parameters)
        self._on_batch = [c for c in run.callbacks if type(c).on_batch is not Callback.on_batch]
        self._on_step = [c for c in run.callbacks if type(c).on_step is not Callback.on_step]

    def epoch(self) -> None:
        """Train for one epoch, then validate and record it."""
        run, start = self._run, time.perf_counter() - self._run.seconds
        values = self._train(start)
        if values is None:
            return
        self._check_parameters()
        if run.epoch == 1 and self._of_own:
            self._check_own()
        loss, validation_loss = values.pop("loss"), None
        if run.validation is not None:
            values = measure(
                self._caller,
                run.validation,
                "validation",
                self._scorer,
                self._truncate,
                self._check,
            )
            validation_loss = values.pop("loss")
            if not math.isfinite(validation_loss):
                raise self._error(f"the validation loss is {validation_loss}", None)
        run.end_epoch()
        run.history.record(
            loss,
            validation_loss,
            values,
            getattr(run.optimizer, "lr", math.nan),
            time.perf_counter() - start,
        )
        if not self._by_step and run.schedule is not None:
            run.schedule.step(loss if validation_loss is None else validation_loss)
        self._bar.epoch(run.history)
        for callback in run.callbacks:
            callback.on_epoch(run)

    def _train(self, start: float) -> dict[str, float] | None:
        """Go through the data and return the means; None if a callback has stopped the run."""
        run, truncate, total = self._run, self._truncate, Total(self._scorer, self._run.sums)
        run.sums = total.state
        count = len(run.data) if hasattr(run.data, "__len__") else math.inf
        done = run.batch  # before the run was resumed
        run.begin_epoch()
        for group in groups(itertools.islice(run.data, done, None), self._group_size):
            if run.batch > done:
                run.seconds = time.perf_counter() - start
                for callback in self._on_batch:
                    callback.on_batch(run)
            batches = list(map(self._caller.unpack, group, itertools.count(run.batch)))
            if self._group is not None:
                self._group.begin(batches)
            for i, batch in enumerate(batches):
                state = None
                for chunk, part in (
                    [(batch, 1.0)]
                    if truncate is None
                    else chunks(self._scorer.scored_only(batch), truncate, self._caller)
                ):
                    self._check()
                    state = self._step(chunk, state, total, i == 0, i == len(batches) - 1)
                    if run.history.stopped:
                        return None
                    at = run.epoch + (run.batch + i + part) / count
                    self._bar.step(at, run.loss, run.history)
            run.batch += len(batches)
        if done and run.batch == done:
            raise ValueError(
                f"the checkpoint was saved after {done} batches of an epoch, but data has no more "
                "than that: expected those that the run was begun with"
            )
        return total.means("data")

    def _step(self, batch: Batch, state: Any, total: Total, first: bool, last: bool) -> Any:
        """Add the gradient of a batch, and step if it is the last one of its group.

        Return the final state of the model, if it is carried.
        """
        run, scorer, model = self._run, self._scorer, self._caller.model
        pred, tape, ends = self._caller.forward(batch, state)
        targets = scorer.targets(pred, batch, ends)
        losses = scorer.loss(pred, targets)
        values: dict[str, Any] = {name: scored.loss for name, scored in losses.items()}
        loss = scorer.total(values)
        if not math.isfinite(loss):
            run.model.zero_grad()
            model.backward(tape, scorer.gradient(losses, None))
            raise self._error(f"the loss is {loss}", batch)
        for name in self._metrics:  # all of them before anything is changed
            values[name] = scorer.score(name, pred, targets)
        means = scorer.means(values, pred, targets)
        total.add(means)
        shares = None if self._group is None else self._group.add(means)
        state = None
        if self._truncate is not None:
            try:
                state = tape.state
            except AttributeError as error:
                what = checks.describe(tape)
                raise TypeError(f"tape is {what}, expected a `state` to carry on") from error
        if first:
            run.model.zero_grad()
        self._backward(tape, scorer.gradient(losses, shares))
        if last:
            self._update(batch, loss if self._group is None else self._group.finish())
        return state

    def _update(self, batch: Batch, loss: float) -> None:
        """Make one step of the optimizer."""
        run = self._run
        if self._clip_norm is not None:
            norm = limit_norm(list(filter(_trainable, self._parameters)), self._clip_norm)
            if not math.isfinite(norm):
                raise self._error(f"the norm of the gradients is {norm}", batch)
        run.optimizer.step()
        run.step += 1
        run.loss = loss
        if self._by_step and run.schedule is not None:
            run.schedule.step(run.loss)
        for callback in self._on_step:
            callback.on_step(run)

    def _check_parameters(self) -> None:
        """Refuse to go on from, and to save, parameters that the last step has spoilt."""
        for p in self._parameters:
            if not np.isfinite(p._storage).all():
                raise self._error("the parameters are spoilt", None)

    def _check_own(self) -> None:
        """Warn of parameters that a backward of the user's own seems to have forgotten.

        Not after one epoch, which may be one step, and begin where another parameter is 0.
        """
        if not any(map(_has_gradient, self._parameters)):
            return
        for path, module, name, p in self._of_own:
            if p.trainable and not _has_gradient(p):
                kind = type(module).__qualname__
                where = f"{path}.{name}" if path else name
                warnings.warn(
                    f"the gradient of {where} is 0 after two epochs: {kind}.backward may have "
                    f"forgotten to add to it, self.{name}.grad += ...; lstmcore.gradcheck "
                    "tells whether it is right",
                    stacklevel=6,
                )

    def _error(self, what: str, batch: Batch | None) -> NonFiniteError:
        """Say when it happened, and what is the first that is not finite."""
        run = self._run
        named = getattr(run.model, "named_parameters", None)
        names = {id(p): name for name, p in named()} if named else {}
        found = []
        for what_of, arrays in (
            ("parameter", [p._storage for p in self._parameters]),
            ("gradient of", [p._gradient() for p in self._parameters]),
        ):
            for p, array in zip(self._parameters, arrays, strict=True):
                if not np.isfinite(array).all():
                    found.append(f"{what_of} {names.get(id(p), p.name)!r}")
                    break
        given = {} if batch is None else {"x": batch.x, "target": batch.target}
        for name, value in given.items():
            floats = [
                a for a in leaves(value) if getattr(a, "dtype", None) in (np.float32, np.float64)
            ]
            found += [] if all(np.isfinite(a).all() for a in floats) else [name]
        first = ", ".join(found) or "no parameter, gradient or input"
        step = run.step + (batch is not None)
        return NonFiniteError(f"{what} in epoch {run.epoch + 1}, step {step}; not finite: {first}")
