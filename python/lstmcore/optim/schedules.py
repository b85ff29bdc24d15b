"""Learning-rate schedules: what `lr` an optimizer has at which step.

A schedule sets the optimizer's `lr` when it is made and at each call of its `step`, once per
epoch or once per step of the optimizer, as you like: its options count in that unit. It works out
the rate from the one that the optimizer had at first, so a rate assigned by hand in between lasts
until the next `step`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, SupportsFloat

from .._base import checks
from .._public.publish import explain, publish
from ._checks import at_least_0, keys
from ._optimizers import Optimizer

__all__ = [
    "CosineLR",
    "CosineRestarts",
    "LambdaLR",
    "OneCycle",
    "Plateau",
    "Schedule",
    "StepLR",
    "WarmUp",
]


class Schedule:
    """What all schedules have in common. Use one of its subclasses.

    Attributes
    ----------
    optimizer : Optimizer
        Whose `lr` it sets; of several groups of parameters that of each.
    base_lr, base_lrs : float, list of float
        The rate that the optimizer had when the schedule was made: that of its first group, and
        those of all.
    steps : int
        How often `step` was called.
    lr, lrs : float, list of float
        The rate at present, in the same way.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {checks.describe(optimizer)}, expected an Optimizer")
        self.optimizer = optimizer
        self.base_lrs = [group.lr for group in optimizer.groups]
        self.steps = 0
        self._set(self.base_lrs)

    @property
    def base_lr(self) -> float:
        """The rate that the optimizer had at first."""
        return self.base_lrs[0]

    @property
    def lr(self) -> float:
        """The rate at present."""
        return self.lrs[0]

    def step(self, metric: float | None = None) -> None:
        """Set the next rate.

        Parameters
        ----------
        metric : float, optional
            What the epoch reached; `Plateau` needs it, the others do not look at it.
        """
        lrs = self._next(self.steps + 1, metric)
        self.steps += 1
        self._set(lrs)

    def _next(self, t: int, metric: float | None) -> list[float]:
        """Return the rates after `t` calls of `step`."""
        return [self._rate(t, base) for base in self.base_lrs]

    def _rate(self, t: int, base: float) -> float:
        """Return the rate after `t` calls of `step` of what had this one at first."""
        raise NotImplementedError

    def _set(self, lrs: list[float]) -> None:
        self.lrs = lrs
        self._set_rates(lrs)

    def _set_rates(self, lrs: list[float]) -> None:
        for group, lr in zip(self.optimizer.groups, lrs, strict=True):
            group.lr = lr

    def _options(self) -> dict[str, Any]:
        """Return what the constructor takes beside the optimizer."""
        raise NotImplementedError

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON can hold it."""
        return {
            "type": type(self).__name__,
            **self._options(),
            "base_lr": self.base_lr if len(self.base_lrs) == 1 else self.base_lrs,
            "lr": self.lr if len(self.lrs) == 1 else self.lrs,
            "steps": self.steps,
        }

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over what `state_dict` gave: all of it, options and present rate too, or nothing.

        Parameters
        ----------
        state_dict : mapping
            From a schedule of the same type.

        Raises
        ------
        ValueError
            If it is of another schedule, keys are missing or unexpected, or a value is out of
            range.
        TypeError
            If it is no mapping, or a value is of the wrong type.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"state_dict is {checks.describe(state_dict)}, expected a mapping")
        name = type(self).__name__
        if state_dict.get("type", name) != name:
            raise ValueError(f"state_dict is of {state_dict['type']!r}, expected {name!r}")
        keys(state_dict, self.state_dict())
        before = [group.lr for group in self.optimizer.groups]
        try:
            fresh = self._like({name: state_dict[name] for name in self._options()})
            fresh._load_progress(state_dict)
        except BaseException:
            self._set_rates(before)
            raise
        self.__dict__.update(fresh.__dict__)
        self._set(self.lrs)

    def _like(self, options: dict[str, Any]) -> Schedule:
        """Return a new schedule for the same optimizer."""
        return type(self)(self.optimizer, **options)

    def _load_progress(self, state_dict: Mapping[str, Any]) -> None:
        count = len(self.optimizer.groups)
        self.base_lrs = _rates(state_dict["base_lr"], "base_lr", count)
        self.lrs = _rates(state_dict["lr"], "lr", count)
        self.steps = checks.integer(state_dict["steps"], "steps", 0)

    def __repr__(self) -> str:
        options = "".join(f"{k}={v}, " for k, v in self._options().items())
        return f"{type(self).__name__}({options}lr={self.lr} after {self.steps} steps)"


def _rates(value: Any, name: str, count: int) -> list[float]:
    """Return the rates of so many groups, of which a single one has a number."""
    if count == 1:
        return [at_least_0(value, name)]
    if not isinstance(value, (list, tuple)) or len(value) != count:
        raise ValueError(f"{name} is {value}, expected a list of {count} rates, one for each group")
    return [at_least_0(rate, f"{name}[{i}]") for i, rate in enumerate(value)]


explain(Schedule)


class StepLR(Schedule):
    """Multiply the rate by `gamma` after every `step_size` steps, as PyTorch's StepLR.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    step_size : int
        At least 1.
    gamma : float, default 0.1
        At least 0.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for epoch in range(5):
    ...     print(optimizer.lr, end=" ")  # train with it
    ...     schedule.step()
    1.0 1.0 0.5 0.5 0.25
    """

    def __init__(self, optimizer: Optimizer, step_size: int, gamma: float = 0.1) -> None:
        self.step_size = checks.integer(step_size, "step_size", 1)
        self.gamma = at_least_0(gamma, "gamma")
        super().__init__(optimizer)

    def _rate(self, t: int, base: float) -> float:
        return base * self.gamma ** (t // self.step_size)

    def _options(self) -> dict[str, Any]:
        return {"step_size": self.step_size, "gamma": self.gamma}


class CosineLR(Schedule):
    """Let the rate fall along half a cosine from its first value to `minimum`, and stay there.

    After t steps it is ``minimum + (lr - minimum) (1 + cos(pi t / total_steps)) / 2``, lr being the
    rate at first (I. Loshchilov and F. Hutter, "SGDR", ICLR 2017, equation 5, without restarts).
    PyTorch's CosineAnnealingLR is the same up to `total_steps`, and then rises again.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    total_steps : int
        Until the minimum is reached, at least 1.
    minimum : float, default 0
        At least 0.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = CosineLR(optimizer, total_steps=4, minimum=0.5)
    >>> for epoch in range(6):
    ...     print(round(optimizer.lr, 3), end=" ")  # train with it
    ...     schedule.step()
    1.0 0.927 0.75 0.573 0.5 0.5
    """

    def __init__(self, optimizer: Optimizer, total_steps: int, minimum: float = 0.0) -> None:
        self.total_steps = checks.integer(total_steps, "total_steps", 1)
        self.minimum = at_least_0(minimum, "minimum")
        super().__init__(optimizer)

    def _rate(self, t: int, base: float) -> float:
        if t >= self.total_steps:
            return self.minimum
        height = (1 + math.cos(math.pi * t / self.total_steps)) / 2
        return self.minimum + (base - self.minimum) * height

    def _options(self) -> dict[str, Any]:
        return {"total_steps": self.total_steps, "minimum": self.minimum}


class CosineRestarts(Schedule):
    """Let the rate fall along half a cosine, and begin again, each time for longer.

    As PyTorch's CosineAnnealingWarmRestarts (I. Loshchilov and F. Hutter, "SGDR: Stochastic
    Gradient Descent with Warm Restarts", ICLR 2017): t steps into a period of p it is
    ``minimum + (lr - minimum) (1 + cos(pi t / p)) / 2``, lr being the rate at first.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    first_steps : int
        Length of the first period, at least 1 (PyTorch's T_0).
    factor : int, default 1
        By how much every period is longer than the one before, at least 1 (T_mult).
    minimum : float, default 0
        At least 0; it is not reached, as the next period begins there.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = CosineRestarts(optimizer, first_steps=2, factor=2)
    >>> for epoch in range(7):
    ...     print(round(optimizer.lr, 3), end=" ")  # train with it
    ...     schedule.step()
    1.0 0.5 1.0 0.854 0.5 0.146 1.0
    """

    def __init__(
        self, optimizer: Optimizer, first_steps: int, factor: int = 1, minimum: float = 0.0
    ) -> None:
        self.first_steps = checks.integer(first_steps, "first_steps", 1)
        self.factor = checks.integer(factor, "factor", 1)
        self.minimum = at_least_0(minimum, "minimum")
        super().__init__(optimizer)

    def _rate(self, t: int, base: float) -> float:
        period = self.first_steps
        if self.factor == 1:
            t %= period
        while t >= period:
            t, period = t - period, period * self.factor
        return self.minimum + (base - self.minimum) * (1 + math.cos(math.pi * t / period)) / 2

    def _options(self) -> dict[str, Any]:
        return {"first_steps": self.first_steps, "factor": self.factor, "minimum": self.minimum}


class OneCycle(Schedule):
    """Let the rate rise to a maximum, and fall far below its first value, once: for few epochs.

    As PyTorch's OneCycleLR with ``cycle_momentum=False`` (L. N. Smith and N. Topin,
    "Super-Convergence", 2019). The rate at first is ``max_lr / div_factor``, whatever the optimizer
    has; it is ``max_lr`` after ``rise * total_steps - 1`` steps, and ``max_lr / (div_factor
    final_div_factor)`` after ``total_steps - 1``, where it stays (PyTorch refuses more steps).

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    max_lr : float, or list of float
        Above 0; one for each group of the optimizer, if it is a list.
    total_steps : int
        Steps of the whole cycle, at least 1. With ``fit(..., schedule_by="step")`` that is the
        number of epochs times that of the steps of each.
    rise : float, default 0.3
        Share of the steps in which the rate rises, in [0, 1] (pct_start).
    anneal : {"cos", "linear"}, default "cos"
        Along half a cosine or a line (anneal_strategy).
    div_factor, final_div_factor : float, default 25 and 1e4
        Above 0.
    three_phase : bool, default False
        Fall to the first rate in as many steps as it has risen, then to the last one.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = OneCycle(optimizer, 1.0, total_steps=6, rise=0.5, div_factor=4)
    >>> for step in range(6):
    ...     print(round(optimizer.lr, 3), end=" ")  # train with it
    ...     schedule.step()
    0.25 0.625 1.0 0.75 0.25 0.0
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: float | list[float],
        total_steps: int,
        *,
        rise: float = 0.3,
        anneal: str = "cos",
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
    ) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer is {checks.describe(optimizer)}, expected an Optimizer")
        count = len(optimizer.groups)
        given = list(max_lr) if isinstance(max_lr, (list, tuple)) else [max_lr] * count
        self.max_lrs = _rates(given[0] if count == 1 == len(given) else given, "max_lr", count)
        self.total_steps = checks.integer(total_steps, "total_steps", 1)
        self.rise = checks.number(rise, "rise")
        if not 0 <= self.rise <= 1:
            raise ValueError(f"rise is {rise}, expected 0 to 1")
        self.anneal = checks.choice(anneal, "anneal", ("cos", "linear"))
        self.div_factor = checks.number(div_factor, "div_factor")
        self.final_div_factor = checks.number(final_div_factor, "final_div_factor")
        self.three_phase = checks.boolean(three_phase, "three_phase")
        for name, value in (
            *((f"max_lr[{i}]" if count > 1 else "max_lr", lr) for i, lr in enumerate(self.max_lrs)),
            ("div_factor", self.div_factor),
            ("final_div_factor", self.final_div_factor),
        ):
            if value <= 0:
                raise ValueError(f"{name} is {value}, expected above 0")
        super().__init__(optimizer)
        self._set(self._next(0, None))

    def _next(self, t: int, metric: float | None) -> list[float]:
        return [self._rate(t, highest) for highest in self.max_lrs]

    def _rate(self, t: int, base: float) -> float:
        first = base / self.div_factor
        last = first / self.final_div_factor
        top, end = self.rise * self.total_steps - 1, float(self.total_steps - 1)
        phases = [(top, first, base), (end, base, last)]
        if self.three_phase:
            phases = [(top, first, base), (2 * top, base, first), (end, first, last)]
        start = 0.0
        for stop, low, high in phases:
            if t <= stop:
                # The only phase of no length is that of a cycle of one step.
                return self._between(low, high, (t - start) / (stop - start) if stop > start else 1)
            start = stop
        return last

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    def _options(self) -> dict[str, Any]:
        return {
            "max_lr": self.max_lrs[0] if len(self.max_lrs) == 1 else self.max_lrs,
            "total_steps": self.total_steps,
            "rise": self.rise,
            "anneal": self.anneal,
            "div_factor": self.div_factor,
            "final_div_factor": self.final_div_factor,
            "three_phase": self.three_phase,
        }


class LambdaLR(Schedule):
    """Multiply the first rate by a function of the number of steps, as PyTorch's LambdaLR.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    function : function, or list of functions
        ``function(t)`` for t steps, from 0, returns a factor of at least 0; one for each group of
        the optimizer, if it is a list.

    Raises
    ------
    ValueError, TypeError
        If there is another number of functions than of groups, or one returns something else; also
        in `step`.

    Notes
    -----
    A state does not hold the function: who goes on with it gives the same one.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = LambdaLR(optimizer, lambda t: 1 / (1 + t))
    >>> for epoch in range(4):
    ...     print(round(optimizer.lr, 3), end=" ")  # train with it
    ...     schedule.step()
    1.0 0.5 0.333 0.25
    """

    def __init__(self, optimizer: Optimizer, function: Any) -> None:
        super().__init__(optimizer)
        count = len(optimizer.groups)
        given = list(function) if isinstance(function, (list, tuple)) else [function] * count
        for one in given:
            if not callable(one):
                raise TypeError(f"function is {checks.describe(one)}, expected a function")
        if len(given) != count:
            raise ValueError(f"function has {len(given)}, expected {count}, one for each group")
        self.functions = given
        self._set(self._next(0, None))

    def _next(self, t: int, metric: float | None) -> list[float]:
        pairs = zip(self.base_lrs, self.functions, strict=True)
        return [base * at_least_0(function(t), f"function({t})") for base, function in pairs]

    def _like(self, options: dict[str, Any]) -> Schedule:
        return LambdaLR(self.optimizer, self.functions)

    def _options(self) -> dict[str, Any]:
        return {}


class Plateau(Schedule):
    """Multiply the rate by `factor` when a metric stops improving, as PyTorch's ReduceLROnPlateau.

    Parameters
    ----------
    optimizer : Optimizer
        Whose `lr` is set.
    factor : float, default 0.1
        In [0, 1).
    patience : int, default 10
        Steps in a row without improvement that are let pass; the next one reduces the rate.
    mode : {"min", "max"}, default "min"
        Whether a smaller or a larger metric is better. NaN is never better.
    threshold : float, default 1e-4
        By how much a metric must beat the best so far to be an improvement, at least 0.
    threshold_mode : {"rel", "abs"}, default "rel"
        Whether `threshold` is a share of the best or a difference from it.
    cooldown : int, default 0
        Steps after a reduction during which none counts as without improvement.
    min_lr : float, default 0
        What the rate does not fall below.
    eps : float, default 1e-8
        Reductions by no more than this are left undone.

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = Plateau(optimizer, factor=0.5, patience=1)
    >>> for loss in (3.0, 2.0, 2.0, 2.0, 2.0):
    ...     schedule.step(loss)
    ...     print(optimizer.lr, end=" ")
    1.0 1.0 1.0 0.5 0.5
    """

    def __init__(
        self,
        optimizer: Optimizer,
        factor: float = 0.1,
        patience: int = 10,
        *,
        mode: str = "min",
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: float = 0.0,
        eps: float = 1e-8,
    ) -> None:
        self.factor = at_least_0(factor, "factor")
        if self.factor >= 1:
            raise ValueError(f"factor is {factor}, expected below 1")
        self.patience = checks.integer(patience, "patience", 0)
        self.mode = checks.choice(mode, "mode", ("min", "max"))
        self.threshold = at_least_0(threshold, "threshold")
        self.threshold_mode = checks.choice(threshold_mode, "threshold_mode", ("rel", "abs"))
        self.cooldown = checks.integer(cooldown, "cooldown", 0)
        self.min_lr = at_least_0(min_lr, "min_lr")
        self.eps = at_least_0(eps, "eps")
        self.best: float | None = None
        self.bad_steps = 0
        self.cooling_steps = 0  # left
        super().__init__(optimizer)

    def _next(self, t: int, metric: Any) -> list[float]:
        if isinstance(metric, bool) or not isinstance(metric, SupportsFloat):
            raise TypeError(f"metric is {checks.describe(metric)}, expected a number for Plateau")
        value = float(metric)
        if self._is_better(value):
            self.best = value
            self.bad_steps = 0
        else:
            self.bad_steps += 1
        if self.cooling_steps > 0:
            self.cooling_steps -= 1
            self.bad_steps = 0
        if self.bad_steps <= self.patience:
            return self.lrs
        self.bad_steps = 0
        self.cooling_steps = self.cooldown
        return [self._reduced(lr) for lr in self.lrs]

    def _reduced(self, lr: float) -> float:
        reduced = max(lr * self.factor, self.min_lr)
        return reduced if lr - reduced > self.eps else lr

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "min" else -1
        best = sign * math.inf if self.best is None else self.best
        if self.threshold_mode == "rel":
            return sign * value < sign * best * (1 - sign * self.threshold)
        return sign * value < sign * best - self.threshold

    def _options(self) -> dict[str, Any]:
        return {
            "factor": self.factor,
            "patience": self.patience,
            "mode": self.mode,
            "threshold": self.threshold,
            "threshold_mode": self.threshold_mode,
            "cooldown": self.cooldown,
            "min_lr": self.min_lr,
            "eps": self.eps,
        }

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON can hold it."""
        return {
            **super().state_dict(),
            "best": self.best,
            "bad_steps": self.bad_steps,
            "cooling_steps": self.cooling_steps,
        }

    def _load_progress(self, state_dict: Mapping[str, Any]) -> None:
        super()._load_progress(state_dict)
        best = state_dict["best"]
        self.best = None if best is None else checks.number(best, "best")
        self.bad_steps = checks.integer(state_dict["bad_steps"], "bad_steps", 0)
        self.cooling_steps = checks.integer(state_dict["cooling_steps"], "cooling_steps", 0)


class WarmUp(Schedule):
    """Let the rate rise on a line to its full value, then follow another schedule.

    After t < `warmup_steps` steps it is ``lr (start + (1 - start) t / warmup_steps)``, lr being the
    rate at first; then the other schedule begins. PyTorch's SequentialLR of LinearLR and the other.

    Parameters
    ----------
    schedule : Schedule or Optimizer
        What comes afterwards, whose own `step` is not to be called by you; an optimizer's rate
        stays at its full value.
    warmup_steps : int
        At least 1.
    start : float, default 0.1
        Share of the rate at first, in [0, 1].

    Raises
    ------
    ValueError, TypeError
        If an option has a wrong value or type.

    Examples
    --------
    >>> import lstmcore as lc
    >>> optimizer = lc.optim.SGD(lc.Linear(2, 1).parameters(), lr=1.0)
    >>> schedule = WarmUp(StepLR(optimizer, step_size=1, gamma=0.5), warmup_steps=2, start=0.0)
    >>> for step in range(5):
    ...     print(optimizer.lr, end=" ")  # train with it
    ...     schedule.step()
    0.0 0.5 1.0 0.5 0.25
    """

    def __init__(
        self, schedule: Schedule | Optimizer, warmup_steps: int, start: float = 0.1
    ) -> None:
        if not isinstance(schedule, (Schedule, Optimizer)):
            raise TypeError(
                f"schedule is {checks.describe(schedule)}, expected a Schedule or an Optimizer"
            )
        self.schedule = schedule if isinstance(schedule, Schedule) else None
        self.warmup_steps = checks.integer(warmup_steps, "warmup_steps", 1)
        self.start = at_least_0(start, "start")
        if self.start > 1:
            raise ValueError(f"start is {start}, expected 0 to 1")
        super().__init__(schedule.optimizer if isinstance(schedule, Schedule) else schedule)
        self._set(self._next(0, None))

    def _next(self, t: int, metric: float | None) -> list[float]:
        if t < self.warmup_steps:
            share = self.start + (1 - self.start) * t / self.warmup_steps
            return [base * share for base in self.base_lrs]
        if self.schedule is None:
            return self.base_lrs
        if t > self.warmup_steps:
            self.schedule.step(metric)
        return self.schedule.lrs

    def _options(self) -> dict[str, Any]:
        return {"warmup_steps": self.warmup_steps, "start": self.start}

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, as JSON can hold it."""
        after = None if self.schedule is None else self.schedule.state_dict()
        return {**super().state_dict(), "schedule": after}

    def _like(self, options: dict[str, Any]) -> Schedule:
        return WarmUp(self.schedule or self.optimizer, **options)

    def _load_progress(self, state_dict: Mapping[str, Any]) -> None:
        super()._load_progress(state_dict)
        after = state_dict["schedule"]
        if self.schedule is not None:
            self.schedule.load_state_dict(after)  # last, as it cannot be undone
        elif after is not None:
            raise ValueError("state_dict has a schedule after the warm-up, expected none")


publish(globals())
