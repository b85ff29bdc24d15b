"""Groups of parameters, each with its own learning rate and weight decay."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

from .._base.checks import describe
from .._base.parameter import Parameter
from ._checks import at_least_0, parameters

__all__ = ["Given", "Group", "groups"]

Given: TypeAlias = Iterable[Parameter] | Iterable[Mapping[str, Any]]

_OPTIONS = ("lr", "weight_decay")


class Group:
    """Parameters of an optimizer that share their learning rate and weight decay.

    Attributes
    ----------
    parameters : list of Parameter
    lr, weight_decay : float
        At least 0; may be changed between steps.
    """

    __slots__ = ("_lr", "_weight_decay", "parameters")

    def __init__(self, params: list[Parameter], lr: float, weight_decay: float) -> None:
        self.parameters = params
        self.lr = lr
        self.weight_decay = weight_decay

    @property
    def lr(self) -> float:
        """Learning rate, at least 0."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = at_least_0(lr, "lr")

    @property
    def weight_decay(self) -> float:
        """Weight decay, at least 0."""
        return self._weight_decay

    @weight_decay.setter
    def weight_decay(self, weight_decay: float) -> None:
        self._weight_decay = at_least_0(weight_decay, "weight_decay")

    def __repr__(self) -> str:
        count = len(self.parameters)
        return f"Group({count} parameters, lr={self.lr}, weight_decay={self.weight_decay})"


def groups(given: Any, lr: float, weight_decay: float) -> list[Group]:
    """Return the groups of the parameters that are trainable: one, if they are given in a list.

    Groups that do not say it have this rate and weight decay.
    """
    listed = isinstance(given, Iterable) and not isinstance(given, (str, Mapping))
    if listed and not hasattr(given, "parameters"):  # as a Sequential has
        given = list(given)
    if not isinstance(given, list) or not any(isinstance(part, Mapping) for part in given):
        return [Group(parameters(given), lr, weight_decay)]
    parts = [_group(part, f"parameters[{i}]") for i, part in enumerate(given)]
    trainable = {id(p) for p in parameters([p for params, _ in parts for p in params])}
    return [
        Group(
            [p for p in params if id(p) in trainable],
            options.get("lr", lr),
            options.get("weight_decay", weight_decay),
        )
        for params, options in parts
    ]


def _group(given: Any, name: str) -> tuple[list[Parameter], dict[str, Any]]:
    """Return the parameters and the options of one group, as PyTorch writes it."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{name} is {describe(given)}, expected a dict, as the others are")
    unknown = [key for key in given if key not in ("params", *_OPTIONS)]
    if "params" not in given or unknown:
        raise ValueError(
            f"{name} has the keys {', '.join(map(repr, given))}, expected 'params' and perhaps "
            "'lr' and 'weight_decay'"
        )
    params = given["params"]
    if isinstance(params, Parameter):
        params = [params]
    if not isinstance(params, Iterable) or isinstance(params, (str, Mapping)):
        raise TypeError(f"{name}['params'] is {describe(params)}, expected a list of Parameters")
    listed = list(params)
    if not listed:
        raise ValueError(f"{name}['params'] is empty, expected at least one")
    return listed, {key: given[key] for key in _OPTIONS if key in given}
