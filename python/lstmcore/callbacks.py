"""What `fit` calls along the way: early stopping, the best weights, checkpoints, logs, your own."""

from __future__ import annotations

import csv
import math
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ._base import checks
from ._base.scoring import told
from ._files.checkpoints import save_checkpoint
from ._public.publish import publish

if TYPE_CHECKING:
    from ._train.run import Run

__all__ = ["BestWeights", "CSVLogger", "Callback", "Checkpoint", "EarlyStopping", "TensorBoard"]


class Callback:
    """What `fit` calls; override what you need. A function of the run is an `on_epoch`.

    All get the `Run`: its model, optimizer, history, epoch, step and loss; ``run.stop("why")``
    ends it after the current step.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> class StopWhenGood(lc.callbacks.Callback):
    ...     def on_step(self, run):
    ...         if run.loss < 0.1:
    ...             run.stop("good enough")
    >>> head = lc.Linear(1, 1, dtype="float64", seed=0)
    >>> history = lc.fit(
    ...     head, [([[1.0]], [[3.0]])], loss=lc.losses.mse, epochs=200, progress=False,
    ...     optimizer=lc.optim.Adam(head.parameters(), lr=0.1), callbacks=[StopWhenGood()],
    ... )
    >>> history.stopped
    'good enough'
    """

    def on_check(self, run: Run) -> None:
        """Be called once, before anything is changed: raise what this callback cannot work with."""

    def on_start(self, run: Run) -> None:
        """Be called once, before the first epoch and after a checkpoint was loaded."""

    def on_step(self, run: Run) -> None:
        """Be called after every step of the optimizer."""

    def on_batch(self, run: Run) -> None:
        """Be called between two batches of an epoch, or two groups of batches that make a step."""

    def on_epoch(self, run: Run) -> None:
        """Be called after every epoch, when the history has it."""

    def on_end(self, run: Run) -> None:
        """Be called once at the end, whatever ended the run."""


class BestWeights(Callback):
    """Keeps the parameters of the best epoch, and puts them back at the end of the run.

    Parameters
    ----------
    monitor : str, optional
        What tells how good an epoch was: "loss", "validation loss" or the name of a metric; by
        default the validation loss or, without validation data, the training loss.
    mode : {"min", "max"}, optional
        Whether less or more of it is better. Known of losses and of the functions of
        `lstmcore.metrics`, partial ones too; a function of your own may say it by an attribute
        `mode`. Of any other it must be given.
    min_delta : float, default 0.0
        By how much an epoch must be better than the best one to count as better.

    Attributes
    ----------
    best : float or None
        What the best epoch had of it.
    best_epoch : int
        Which one that was, from 1.

    Raises
    ------
    TypeError, ValueError
        If an option has a wrong type or value; before the first epoch, if there is nothing called
        `monitor`, it is not known which way is better, or the model has no ``state_dict``.

    Examples
    --------
    >>> import lstmcore as lc
    >>> head = lc.Linear(1, 1, dtype="float64", seed=0)
    >>> best = lc.callbacks.BestWeights()
    >>> history = lc.fit(  # with a learning rate that is too high
    ...     head, [([[1.0]], [[3.0]])], loss=lc.losses.mse, epochs=9, progress=False,
    ...     optimizer=lc.optim.SGD(head.parameters(), lr=0.6), callbacks=best,
    ... )
    >>> best.best_epoch, best.best == min(history.losses)
    (1, True)
    """

    _restore = True

    def __init__(
        self, monitor: str | None = None, *, mode: str | None = None, min_delta: float = 0.0
    ) -> None:
        if monitor is not None and not isinstance(monitor, str):
            raise TypeError(f"monitor is {checks.describe(monitor)}, expected a str")
        self.monitor = monitor
        self._mode = None if mode is None else checks.choice(mode, "mode", ("min", "max"))
        self.min_delta = checks.number(min_delta, "min_delta")
        if self.min_delta < 0:
            raise ValueError(f"min_delta is {min_delta}, expected at least 0")
        self.best: float | None = None
        self.best_epoch = 0
        self._weights: dict[str, Any] = {}

    def on_check(self, run: Run) -> None:
        """Find out whether there is such a value, which way is better, and how to keep weights."""
        name = self._name(run)
        losses = ["loss"] if run.validation is None else ["loss", "validation loss"]
        known = [*losses, *(name for name in run.functions if name != "loss")]
        if name not in known:
            raise ValueError(f"monitor is {name!r}, expected one of {', '.join(map(repr, known))}")
        self._direction(run)
        if self._restore:
            _check_state(run.model, "model", self)

    def _name(self, run: Run) -> str:
        return self.monitor or ("loss" if run.validation is None else "validation loss")

    def _direction(self, run: Run) -> int:
        """Return 1 if less is better, -1 if more is."""
        name = self._name(run)
        mode = self._mode or told(run.functions.get(name), "mode")
        if mode is None and name not in ("loss", "validation loss"):
            raise ValueError(
                f"monitor is {name!r}, of which it is not known whether less or more is better: "
                "expected mode='min' or mode='max'"
            )
        return -1 if mode == "max" else 1

    def on_start(self, run: Run) -> None:
        """Forget another run; a checkpoint's is this one."""
        if run.epoch == 0:
            self.best, self.best_epoch, self._weights = None, 0, {}
        elif self.best_epoch:
            run.history.mark_best(self.best_epoch)

    def on_epoch(self, run: Run) -> None:
        """Compare the epoch with the best one."""
        values, name, sign = run.history.last(), self._name(run), self._direction(run)
        best = math.inf if self.best is None else sign * self.best
        if sign * values[name] < best - (0 if math.isinf(best) else self.min_delta):
            self.best, self.best_epoch = values[name], run.epoch
            run.history.mark_best(run.epoch)
            if self._restore:
                self._weights = run.model.state_dict()

    def on_end(self, run: Run) -> None:
        """Put the best parameters back."""
        if self._weights:
            run.model.load_state_dict(self._weights)

    def state_dict(self) -> dict[str, Any]:
        """Return the best epoch and its parameters, for a checkpoint."""
        weights = {name: np.array(w) for name, w in self._weights.items()}
        return {"best": self.best, "best_epoch": self.best_epoch, "weights": weights}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what `state_dict` returned."""
        best, epoch, weights = (state[name] for name in ("best", "best_epoch", "weights"))
        self.best, self.best_epoch, self._weights = best, epoch, dict(weights)


class EarlyStopping(BestWeights):
    """Stops the run when it has not become better for some epochs, and restores the best weights.

    Parameters
    ----------
    patience : int, default 10
        After how many epochs without a better one the run stops.
    restore_best : bool, default True
        Whether the best parameters are put back at the end, whatever ended the run.
    monitor, mode, min_delta
        As of `BestWeights`.

    Raises
    ------
    TypeError, ValueError
        As `BestWeights`.

    Notes
    -----
    L. Prechelt, "Early Stopping - But When?", Neural Networks: Tricks of the Trade, 1998, the
    criterion UP.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> head = lc.Linear(1, 1, dtype="float64", seed=0)
    >>> stopping = lc.callbacks.EarlyStopping(patience=3)
    >>> history = lc.fit(
    ...     head, [([[1.0]], [[3.0]])], loss=lc.losses.mse, epochs=1000, progress=False,
    ...     optimizer=lc.optim.Adam(head.parameters(), lr=0.3), callbacks=[stopping],
    ... )
    >>> history.stopped, history.losses[stopping.best_epoch - 1] == min(history.losses)
    ('no better loss for 3 epochs', True)
    """

    def __init__(
        self,
        patience: int = 10,
        *,
        restore_best: bool = True,
        monitor: str | None = None,
        mode: str | None = None,
        min_delta: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode=mode, min_delta=min_delta)
        self.patience = checks.integer(patience, "patience", 1)
        self._restore = checks.boolean(restore_best, "restore_best")

    def on_start(self, run: Run) -> None:
        """Stop at once if the checkpoint was of a run that had stopped."""
        super().on_start(run)
        if self.best is not None:
            self._decide(run)

    def on_epoch(self, run: Run) -> None:
        """Compare, and stop if it is time."""
        super().on_epoch(run)
        self._decide(run)

    def _decide(self, run: Run) -> None:
        if run.epoch - self.best_epoch >= self.patience:
            name = self._name(run)
            last = run.history.last()[name]
            nan = f", which is {last}" if math.isnan(last) else ""
            run.stop(f"no better {name} for {self.patience} epochs{nan}")


class Checkpoint(Callback):
    """Saves the run after epochs or within them, for ``fit(..., resume=path)`` to go on from there.

    `fit` calls it after all other callbacks, so that their state is that of the same epoch.

    Parameters
    ----------
    path : str or path
        Of the file; ``{epoch}`` in it becomes the number of the epoch, from 1, and ``{step}`` that
        of the steps of the optimizer.
    every : int, default 1
        After how many epochs each. The last one is always saved, also if a callback stops the run
        at its end; an epoch that is not completed, because of Ctrl-C for instance, is not.
    every_steps : int, optional
        Also within epochs, after so many steps of the optimizer each, for epochs that take hours.
        Who resumes goes on with the next batch, to the same bits, if the data give the same batches
        again: lists do, and what has a ``state_dict``, as all in `lstmcore.data`.

    Raises
    ------
    TypeError, ValueError
        If an option has a wrong type or value.
    OSError
        If the file cannot be written; that its folder is missing, or that it is a folder itself,
        is noticed before the first epoch.

    Examples
    --------
    >>> import tempfile
    >>> import lstmcore as lc
    >>> head = lc.Linear(1, 1, dtype="float64", seed=0)
    >>> options = {"loss": lc.losses.mse, "optimizer": lc.optim.SGD(head.parameters())}
    >>> options |= {"data": [([[1.0]], [[3.0]])], "epochs": 2, "progress": False}
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     saving = lc.callbacks.Checkpoint(f"{folder}/epoch-{{epoch}}.safetensors")
    ...     _ = lc.fit(head, **options, callbacks=saving)
    ...     lc.fit(head, **options | {"epochs": 3}, resume=f"{folder}/epoch-2.safetensors").epochs
    3
    """

    def __init__(
        self, path: str | os.PathLike[str], *, every: int = 1, every_steps: int | None = None
    ) -> None:
        self.path = str(checks.path(path, "path"))
        self.every = checks.integer(every, "every", 1)
        self.every_steps = None
        if every_steps is not None:
            self.every_steps = checks.integer(every_steps, "every_steps", 1)
        self._saved = 0  # after how many steps

    def on_check(self, run: Run) -> None:
        """Find out that there is a folder to save in, and a state to save, before it is needed."""
        for name, part in run.parts().items():
            _check_state(part, name, self)
        _check_folder(self._path(run, run.epoch + 1), "checkpoints")

    def on_start(self, run: Run) -> None:
        """Count the steps from here."""
        self._saved = run.step

    def on_batch(self, run: Run) -> None:
        """Save within an epoch, if it is time."""
        if self._is_due(run):
            self._save(run, run.epoch + 1)

    def on_epoch(self, run: Run) -> None:
        """Save, if it is time."""
        last = run.epoch == run.epochs or run.history.stopped
        if run.epoch % self.every == 0 or last or self._is_due(run):
            self._save(run, run.epoch)

    def _is_due(self, run: Run) -> bool:
        every = self.every_steps
        return every is not None and run.step // every > self._saved // every

    def _save(self, run: Run, epoch: int) -> None:
        save_checkpoint(self._path(run, epoch), **run.parts())
        self._saved = run.step

    def _path(self, run: Run, epoch: int) -> Path:
        names = self.path.replace("{epoch}", str(epoch)).replace("{step}", str(run.step))
        return Path(names)


class CSVLogger(Callback):
    """Writes a line per epoch to a CSV file: its losses, metrics, learning rate and seconds.

    The file is that of this run: an older one is replaced, and of a resumed run the epochs before
    come first. Numbers are written so that reading them gives the same bits.

    Parameters
    ----------
    path : str or path
        Of the file.

    Raises
    ------
    TypeError
        If that is no path.
    OSError
        If the file cannot be written; that its folder is missing, or that it is a folder itself,
        is noticed before the first epoch.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import lstmcore as lc
    >>> head = lc.Linear(1, 1, dtype="float64", seed=0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = pathlib.Path(folder) / "run.csv"
    ...     _ = lc.fit(
    ...         head, [([[1.0]], [[3.0]])], loss="mse", epochs=2, progress=False,
    ...         optimizer=lc.optim.SGD(head.parameters()), callbacks=lc.callbacks.CSVLogger(path),
    ...     )
    ...     lines = path.read_text().splitlines()
    >>> lines[0], len(lines)
    ('epoch,loss,lr,seconds', 3)
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(checks.path(path, "path"))

    def on_check(self, run: Run) -> None:
        """Find out that there is a folder to write in."""
        _check_folder(self.path, "logs")

    def on_start(self, run: Run) -> None:
        """Write the names, and the epochs that a checkpoint has."""
        history = run.history
        metrics = dict.fromkeys([*history.metrics, *(n for n in run.functions if n != "loss")])
        validated = run.validation is not None or history.validation_losses
        self._names = ["loss", *(["validation loss"] if validated else []), *metrics]
        with self.path.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(["epoch", *self._names, "lr", "seconds"])
        for epoch in range(1, history.epochs + 1):
            self._write(history, epoch)

    def on_epoch(self, run: Run) -> None:
        """Write the line of the epoch."""
        self._write(run.history, run.epoch)

    def _write(self, history: Any, epoch: int) -> None:
        series = {"loss": history.losses, "validation loss": history.validation_losses}
        series |= history.metrics
        row: list[Any] = [epoch]
        for values in (*(series.get(name) for name in self._names), history.lr, history.time):
            value = values[epoch - 1] if values else math.nan
            row.append("" if math.isnan(value) else value)  # a resumed run may measure other things
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.writer(file).writerow(row)


class TensorBoard(Callback):
    """Writes losses, metrics and the learning rate for TensorBoard, to look at while `fit` runs.

    The curves are called "loss/training", "loss/validation", "metrics/accuracy" and so on, and
    "lr", over the epochs. It needs the package tensorboardX:
    ``pip install "lstmcore[tensorboard]"``; to look at them, tensorboard.

    Parameters
    ----------
    folder : str or path
        Of this run, made if it is not there: ``tensorboard --logdir runs`` shows all in "runs".
    steps : bool, default False
        Whether to write the loss of every step of the optimizer, too, as "loss/step" over the
        steps, in a folder "steps" within, which TensorBoard shows as a run of its own.

    Raises
    ------
    TypeError
        If an option has a wrong type.
    ImportError
        Before the first epoch, if tensorboardX is not installed.
    OSError
        If the folder cannot be written in.

    Examples
    --------
    >>> import lstmcore as lc
    >>> lc.callbacks.TensorBoard("runs/first").folder
    'runs/first'
    """

    def __init__(self, folder: str | os.PathLike[str], *, steps: bool = False) -> None:
        self.folder = str(checks.path(folder, "folder"))
        self.steps = checks.boolean(steps, "steps")
        self._writer: Any = None
        self._step_writer: Any = None

    def on_check(self, run: Run) -> None:
        """Find out that there is what writes such files."""
        _tensorboard()

    def on_start(self, run: Run) -> None:
        """Begin a file; in one of a run that is resumed, what came after is left out."""
        self._writer = _new_writer(self.folder, run.epoch)
        if self.steps:
            self._step_writer = _new_writer(os.path.join(self.folder, "steps"), run.step)

    def on_step(self, run: Run) -> None:
        """Write the loss of the step, if asked for."""
        if self._step_writer is not None:
            self._step_writer.add_scalar("loss/step", run.loss, run.step)

    def on_epoch(self, run: Run) -> None:
        """Write what the epoch has measured."""
        tags = {"loss": "loss/training", "validation loss": "loss/validation"}
        for name, value in run.history.last().items():
            self._writer.add_scalar(tags.get(name, f"metrics/{name}"), value, run.epoch)
        self._writer.add_scalar("lr", run.history.lr[-1], run.epoch)
        for writer in self._writers():
            writer.flush()

    def on_end(self, run: Run) -> None:
        """Close the files."""
        for writer in self._writers():
            writer.close()
        self._writer = self._step_writer = None

    def _writers(self) -> list[Any]:
        return [writer for writer in (self._writer, self._step_writer) if writer is not None]


def _new_writer(folder: str, done: int) -> Any:
    """Return what writes in a folder, of which TensorBoard forgets what is beyond so many."""
    # That is by number, so epochs and steps are not in one folder. Files are named by the second:
    # another run in it would overwrite the last one's.
    purge = done + 1 if done else None
    return _tensorboard().SummaryWriter(
        folder, purge_step=purge, filename_suffix=f".{time.time_ns()}"
    )


def _tensorboard() -> Any:
    try:
        import tensorboardX  # type: ignore[import-not-found,import-untyped,unused-ignore]
    except ImportError as error:
        raise ImportError(
            'lc.callbacks.TensorBoard needs tensorboardX: pip install "lstmcore[tensorboard]"'
        ) from error
    return tensorboardX


def _check_folder(path: Path, what: str) -> None:
    if not path.parent.is_dir():
        raise FileNotFoundError(f"{path.parent} is no folder, expected one to save {what} in")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, expected a file to save {what} in")


def _check_state(part: Any, name: str, callback: Callback) -> None:
    """Refuse what has no state to keep."""
    for method in ("state_dict", "load_state_dict"):
        if not callable(getattr(part, method, None)):
            raise TypeError(
                f"{name} is {checks.describe(part)}, which has no {method}(): "
                f"{type(callback).__name__} needs it"
            )


publish(globals())
