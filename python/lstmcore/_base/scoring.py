"""What losses and metrics tell beside a number: what their mean stands for, which way is better."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

__all__ = ["Mean", "apart", "check_scores", "says", "told"]

Function = TypeVar("Function", bound="Callable[..., Any]")


class Mean(float):
    """The mean that a loss or a metric returns: a float that knows what it is a mean of.

    `fit` and `evaluate` average over batches with it, so that their numbers are those of all
    targets together, whatever the batches are. It reaches them through ``functools.partial`` and
    through functions of your own that return it as it is. What you compute with it is a plain
    float: wrap that in a Mean again if its weight is not the number of targets.

    Parameters
    ----------
    value : float
        The number itself.
    weight : float, default 1.0
        Sum of the weights of what was averaged, or how many there were. The default lets
        ``statistics.mean`` and the like make one of the numbers that they find.
    mean : float or ndarray, optional
        What was averaged, if `value` is a function of it, as the root mean squared error is; an
        array if the function needs several means, as the Nash-Sutcliffe efficiency does.
    finish : function, optional
        That function.

    Attributes
    ----------
    weight, mean, finish
        As given; `mean` is the value, if it was not.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> loss, _ = lc.losses.mse(np.ones((5, 4, 2)), np.zeros((5, 4, 2)), lengths=[5, 2, 1, 0])
    >>> loss, loss.weight
    (1.0, 16.0)
    >>> def relative(pred, target):  # a metric whose mean is over the targets above 0
    ...     valid = target > 0
    ...     errors = np.abs(pred - target)[valid] / target[valid]
    ...     return lc.losses.Mean(errors.mean() if valid.any() else 0.0, valid.sum())
    >>> relative(np.array([1.0, 3.0]), np.array([0.0, 2.0])).weight
    1.0
    """

    __slots__ = ("finish", "mean", "weight")

    weight: float
    mean: Any
    finish: Callable[[Any], float] | None

    def __new__(
        cls,
        value: float,
        weight: float = 1.0,
        mean: Any = None,
        finish: Callable[[Any], float] | None = None,
    ) -> Mean:
        self = float.__new__(cls, value)
        self.weight = float(weight)
        several = isinstance(mean, np.ndarray)
        self.mean = mean if several else float(value if mean is None else mean)
        self.finish = finish
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Mean, (float(self), self.weight, self.mean, self.finish)


def says(**facts: Any) -> Callable[[Function], Function]:
    """Note facts of a loss or a metric as its attributes: a decorator.

    They are `mode`, "min" or "max", whichever is better; `takes_scores`, whether predictions are
    scores before a softmax or sigmoid, or the name of the option that may say otherwise;
    `takes_parts`, whether one prediction may be several arrays; and of a method that adds gradients
    of its object's parameters, `apart`: see there.
    """

    def note(function: Function) -> Function:
        for name, fact in facts.items():
            setattr(function, name, fact)
        return function

    return note


def told(function: Any, fact: str, default: Any = None) -> Any:
    """Return what a function says of itself, also if it is a partial one."""
    while isinstance(function, functools.partial) and not hasattr(function, fact):
        function = function.func
    return getattr(function, fact, default)


def apart(function: Any) -> Callable[..., Any] | None:
    """Return what computes a loss without adding gradients of parameters of its own, if it does.

    That returns them instead, beside the loss and the gradient of the prediction: a list of pairs,
    Parameter and gradient.
    """
    if isinstance(function, functools.partial):
        inner = apart(function.func)
        return (
            None if inner is None else functools.partial(inner, *function.args, **function.keywords)
        )
    name = getattr(function, "apart", None)
    return None if name is None else getattr(function.__self__, name)


def check_scores(model: Any, name: str, function: Any, output: Any = None) -> None:
    """Refuse a function that takes scores for a model that gives probabilities.

    Of a model with several outputs, `output` is the one that the function is for.
    """
    gives = getattr(model, "_output_gives_probabilities", None)
    if gives is None or not gives(output):
        return
    fact = told(function, "takes_scores", False)
    if fact is True or (fact and fact not in getattr(function, "keywords", {})):
        more = f" (without {fact}=)" if isinstance(fact, str) else ""
        raise ValueError(
            f"the model ends in a softmax or sigmoid, but {name}{more} takes the scores before it: "
            "leave that out, as model[:-1] does of a Sequential, which has the same parameters"
        )
