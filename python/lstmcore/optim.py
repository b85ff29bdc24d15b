"""Optimizers: they change the parameters by the gradients that ``backward`` has added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from . import _checks
from ._checks import Array
from ._parameter import Parameter

__all__ = ["Adam"]


class Adam:
    """Adam: steps of about `lr` per parameter, whatever the scale of its gradient.

    With g the gradient at step t, for every parameter w, as PyTorch computes it::

        m = beta1 m + (1 - beta1) g                 mhat = m / (1 - beta1^t)
        v = beta2 v + (1 - beta2) g^2               vhat = v / (1 - beta2^t)
        w = w - lr mhat / (sqrt(vhat) + eps)

    Parameters
    ----------
    parameters : iterable of Parameter
        What to train, for instance ``[*lstm.parameters(), *head.parameters()]``.
    lr : float, default 1e-3
        Step size; may be changed between steps.
    betas : (float, float), default (0.9, 0.999)
        Decay rates of the two averages, in [0, 1).
    eps : float, default 1e-8
        Added to the denominator.

    Raises
    ------
    ValueError
        If there is no parameter, one is given twice, or an option is out of range.
    TypeError
        If something else than a Parameter is given.

    Notes
    -----
    D. P. Kingma and J. Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, algorithm 1.

    Examples
    --------
    >>> import numpy as np
    >>> import lstmcore as lc
    >>> head = lc.Linear(2, 1, dtype="float64", seed=0)
    >>> optimizer = lc.optim.Adam(head.parameters(), lr=0.1)
    >>> for _ in range(200):
    ...     y, tape = head.forward(np.eye(2))
    ...     loss, dy = lc.losses.mse(y, [[1.0], [2.0]])
    ...     head.zero_grad()
    ...     _ = head.backward(tape, dy)
    ...     optimizer.step()
    >>> loss < 1e-4
    True
    """

    def __init__(
        self,
        parameters: Iterable[Parameter],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        self.parameters = list(parameters)
        if not self.parameters:
            raise ValueError("parameters is empty, expected at least one to train")
        for p in self.parameters:
            if not isinstance(p, Parameter):
                raise TypeError(f"parameters has {_checks.describe(p)}, expected Parameters only")
        if len({id(p) for p in self.parameters}) < len(self.parameters):
            raise ValueError("parameters has one of them twice")
        self.lr = lr
        self.betas = _betas(betas)
        self.eps = _at_least_0(eps, "eps")
        self.steps = 0
        self._exp_avg = [np.zeros(p.shape, p.dtype) for p in self.parameters]
        self._exp_avg_sq = [np.zeros(p.shape, p.dtype) for p in self.parameters]

    @property
    def lr(self) -> float:
        """Step size."""
        return self._lr

    @lr.setter
    def lr(self, lr: float) -> None:
        self._lr = _at_least_0(lr, "lr")

    def zero_grad(self) -> None:
        """Set the gradient of every parameter to 0."""
        for p in self.parameters:
            p.zero_grad()

    def step(self) -> None:
        """Change every parameter by its gradient. The gradients stay as they are."""
        self.steps += 1
        beta1, beta2 = self.betas
        step_size = self.lr / (1 - beta1**self.steps)
        root2 = math.sqrt(1 - beta2**self.steps)
        for p, m, v in zip(self.parameters, self._exp_avg, self._exp_avg_sq, strict=True):
            g = p.grad
            m *= beta1
            m += g * (1 - beta1)
            v *= beta2
            v += g * g * (1 - beta2)
            p._storage -= step_size * m / (np.sqrt(v) / root2 + self.eps)
            p._touch()

    def state_dict(self) -> dict[str, Any]:
        """The options, the number of steps and both averages, copied."""
        return {
            "lr": self.lr,
            "betas": self.betas,
            "eps": self.eps,
            "steps": self.steps,
            "exp_avg": [m.copy() for m in self._exp_avg],
            "exp_avg_sq": [v.copy() for v in self._exp_avg_sq],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over what ``state_dict`` gave, for the same parameters in the same order.

        Raises
        ------
        ValueError
            If a key is missing or unknown, a value is out of range or a shape differs; nothing is
            changed then.
        """
        keys = {"lr", "betas", "eps", "steps", "exp_avg", "exp_avg_sq"}
        if set(state) != keys:
            raise ValueError(
                f"state lacks the keys {sorted(keys - set(state))} "
                f"and has the unexpected keys {sorted(set(state) - keys)}"
            )
        lr, eps = _at_least_0(state["lr"], "lr"), _at_least_0(state["eps"], "eps")
        betas, steps = _betas(state["betas"]), _checks.integer(state["steps"], "steps", 0)
        exp_avg = self._check_averages("exp_avg", state["exp_avg"])
        exp_avg_sq = self._check_averages("exp_avg_sq", state["exp_avg_sq"])
        self.lr, self.betas, self.eps, self.steps = lr, betas, eps, steps
        self._exp_avg, self._exp_avg_sq = exp_avg, exp_avg_sq

    def _check_averages(self, name: str, arrays: Any) -> list[Array]:
        if not isinstance(arrays, (list, tuple)) or len(arrays) != len(self.parameters):
            raise ValueError(f"{name} is not a list of {len(self.parameters)} arrays")
        return [
            _checks.values(a, p.shape, p.dtype, f"{name}[{i}]").copy()
            for i, (a, p) in enumerate(zip(arrays, self.parameters, strict=True))
        ]

    def __repr__(self) -> str:
        count = f"{len(self.parameters)} parameters"
        return f"Adam({count}, lr={self.lr}, betas={self.betas}, eps={self.eps})"


def _at_least_0(value: object, name: str) -> float:
    number = _checks.number(value, name)
    if number < 0:
        raise ValueError(f"{name} is {value}, expected at least 0")
    return number


def _betas(value: Any) -> tuple[float, float]:
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise TypeError(f"betas is {_checks.describe(value)}, expected two numbers")
    beta1, beta2 = (_checks.number(b, f"betas[{i}]") for i, b in enumerate(value))
    if not (0 <= beta1 < 1 and 0 <= beta2 < 1):
        raise ValueError(f"betas is {value}, expected two numbers in [0, 1)")
    return beta1, beta2
